"""
DERP, from the login to the end of a connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol as TypingProtocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.crypto.box import Box, openFrom, sealTo
from tsrt.derp.bucket import TokenBucket
from tsrt.derp.counters import RelayCounters
from tsrt.derp.failures import RelayLost, RelayProtocolError, RelayTimeout
from tsrt.derp.upgrade import Greeting
from tsrt.errors import RelayError, WireError
from tsrt.interfaces import IReadListener
from tsrt.keys import NodeKey
from tsrt.wire import derp
from tsrt.wire.derp import FrameSplitter, FrameType, Restarting
from tsrt.wire.derpinfo import ClientInfo, ServerInfo

_log = Logger(namespace="tsrt.derp")

WATCHDOG = 120.0
"""Seconds without a frame after which a connection is given up."""

LOGIN_TIMEOUT = 10.0
"""Seconds in which a relay must have answered the login."""

QUEUE_LIMIT = 32
"""Packets that wait while the connection takes no more."""

BURST_TIME = 0.05
"""
Seconds that a connection may be behind before it counts as taking no more.

A transport asks for a pause as soon as one turn wrote more than it likes to
buffer, before the system was even asked to take any of it; so the window of a
single stream is enough for a pause.
"""

BURST_LIMIT = 2048
"""Packets that wait until then: the windows of a few streams."""

PING_TIMEOUT = 3.0
"""Seconds in which a ping must be answered, unless said otherwise."""

CLOSE_TIMEOUT = 2.0
"""Seconds that a relay has to agree to the end of a connection."""

_PING_LIMIT = 16
_RECV_PACKET = FrameType.RECV_PACKET.value
_FRAME_OVERHEAD = derp.HEADER_LENGTH + derp.KEY_LENGTH


class RelayListener(TypingProtocol):
    """Told of what happens on a connection with a relay."""

    def relayReady(self, protocol: DERPClientProtocol) -> None:
        """The login was sent: packets can be."""

    def relayLoggedIn(self, protocol: DERPClientProtocol) -> None:
        """The relay has let us in."""

    def relayPackets(
        self, protocol: DERPClientProtocol, source: bytes, packets: list[bytes]
    ) -> None:
        """Packets from a peer have come, those of one read at once."""

    def relayPeerGone(
        self, protocol: DERPClientProtocol, peer: bytes, reason: int
    ) -> None:
        """The relay does not, or no longer, reach a peer."""

    def relayHealth(self, protocol: DERPClientProtocol, problem: str) -> None:
        """The relay has a problem, or with no text: has none any more."""

    def relayRestarting(self, protocol: DERPClientProtocol, advice: Restarting) -> None:
        """The relay is about to go away for a moment."""

    def relayLost(self, protocol: DERPClientProtocol, reason: Failure) -> None:
        """The connection is gone; the reason is a L{RelayError}."""


@implementer(IPushProducer, IReadListener)
class DERPClientProtocol(Protocol):
    """
    One connection with one relay.

    It is begun by L{begin} once the upgrade is done.  Whatever the relay
    sends: nothing is raised from C{dataReceived}.

    @ivar lastFrame: when the last frame came, in seconds of the reactor.
    @ivar info: what the relay said of itself, once it did.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        nodeKey: NodeKey,
        listener: RelayListener,
        *,
        randbytes: Callable[[int], bytes],
        counters: RelayCounters | None = None,
        clientInfo: ClientInfo | None = None,
    ) -> None:
        """
        @param nodeKey: who we are.
        @param listener: is told of everything.
        @param counters: where to count.
        @param clientInfo: what to say of ourselves.
        """
        self.counters = counters if counters is not None else RelayCounters()
        self.info: ServerInfo | None = None
        self.lastFrame = reactor.seconds()
        self._reactor = reactor
        self._nodeKey = nodeKey
        self._listener = listener
        self._randbytes = randbytes
        self._clientInfo = clientInfo if clientInfo is not None else ClientInfo()
        self._box: Box | None = None
        self._splitter = FrameSplitter()
        self._isHome = False
        self._isUp = False
        self._paused = False
        self._pausedAt = 0.0
        self._queue: deque[bytes] = deque()
        # Packets by whom they are from, and what hands them on.
        self._arrived: dict[bytes, list[bytes]] = {}
        self._handing: IDelayedCall | None = None
        # Whether the transport says when a read is over.
        self._toldOfEnds = False
        self._bucket: TokenBucket | None = None
        self._timer: IDelayedCall | None = None
        self._closing: IDelayedCall | None = None
        self._pings: dict[bytes, tuple[Deferred[float], IDelayedCall, float]] = {}
        self._reason: RelayError | None = None
        self._handlers: dict[int, Callable[[bytes], None]] = {
            FrameType.SERVER_INFO: self._serverInfo,
            FrameType.KEEP_ALIVE: self._ignore,
            FrameType.PEER_GONE: self._peerGone,
            FrameType.PING: self._ping,
            FrameType.PONG: self._pong,
            FrameType.HEALTH: self._health,
            FrameType.RESTARTING: self._restarting,
            # Told to clients of a mesh only; and after a fast start the key
            # comes late.
            FrameType.PEER_PRESENT: self._ignore,
            FrameType.SERVER_KEY: self._ignore,
        }

    # -- login -------------------------------------------------------------------

    def begin(self, greeting: Greeting) -> None:
        """
        Log in.

        @raise WireError: when the relay's key is no usable key.
        """
        self._splitter = greeting.splitter
        self._box = Box(self._nodeKey.raw, greeting.serverKey)
        self.lastFrame = self._reactor.seconds()
        sealed = sealTo(self._box, self._clientInfo.encode(), self._randbytes)
        self._isUp = True
        self._write(derp.buildClientInfo(self._nodeKey.public().raw, sealed))
        if self.transport is not None:
            IConsumer(self.transport).registerProducer(self, True)
        self._timer = self._reactor.callLater(LOGIN_TIMEOUT, self._loginTimedOut)
        self._tell(self._listener.relayReady)
        self._takeFrames(greeting.frames)

    def _loginTimedOut(self) -> None:
        self._fail(RelayTimeout("the relay did not answer the login"))

    def _serverInfo(self, payload: bytes) -> None:
        if self._box is None:
            return
        first = self.info is None
        try:
            info = ServerInfo.decode(openFrom(self._box, payload))
        except WireError as malformed:
            # Not a frame to skip: whoever sent it does not have the relay's key.
            self._fail(
                RelayProtocolError(f"the relay's answer to the login: {malformed}")
            )
            return
        self.info = info
        self._bucket = None
        if info.tokenBucketBytesPerSecond > 0 and info.tokenBucketBytesBurst > 0:
            self._bucket = TokenBucket.full(
                info.tokenBucketBytesPerSecond,
                info.tokenBucketBytesBurst,
                self._reactor.seconds(),
            )
        if first:
            self._cancelTimer()
            self._watch()
            self._tell(self._listener.relayLoggedIn)
        self._tell(self._listener.relayHealth, "")

    # -- what comes in -----------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        if not self._isUp:
            return
        try:
            frames = self._splitter.feed(data)
        except WireError as malformed:
            self._fail(RelayProtocolError(str(malformed)))
            return
        if frames:
            self.lastFrame = self._reactor.seconds()
            self._takeFrames(frames)

    def _takeFrames(self, frames: list[tuple[int, bytes]]) -> None:
        bySource = self._arrived
        counters = self.counters
        for kind, payload in frames:
            if not self._isUp:
                return
            if kind == _RECV_PACKET:
                if len(payload) < derp.KEY_LENGTH:
                    counters.malformed += 1
                    continue
                source = payload[: derp.KEY_LENGTH]
                packet = payload[derp.KEY_LENGTH :]
                counters.receivedPackets += 1
                counters.receivedBytes += len(packet)
                packets = bySource.get(source)
                if packets is None:
                    bySource[source] = [packet]
                else:
                    packets.append(packet)
                continue
            handler = self._handlers.get(kind)
            if handler is None:
                counters.unknown += 1
                continue
            # What came before must be heard of before.
            self._handOn()
            bySource = self._arrived
            try:
                handler(payload)
            except WireError:
                counters.malformed += 1
        # TLS gives a record at a time, which is a packet or two: those of one
        # read are handed on together when it is over.
        if bySource and self._handing is None and not self._toldOfEnds:
            self._handing = self._reactor.callLater(0, self._handOn)

    def readOver(self) -> None:
        """See L{IReadListener}."""
        self._toldOfEnds = True
        if self._arrived:
            self._handOn()

    def _handOn(self) -> None:
        """Hand on the packets that have arrived."""
        handing, self._handing = self._handing, None
        if handing is not None and handing.active():
            handing.cancel()
        bySource, self._arrived = self._arrived, {}
        for source, packets in bySource.items():
            self._tell(self._listener.relayPackets, source, packets)

    def _tell(self, method: Callable[..., None], *arguments: object) -> None:
        """Tell the listener; its errors are bugs, but not the relay's."""
        try:
            method(self, *arguments)
        except Exception:
            _log.failure("an event of a relay could not be handled")

    def _ignore(self, payload: bytes) -> None:
        """A frame that says nothing but that the relay is alive."""

    def _peerGone(self, payload: bytes) -> None:
        peer, reason = derp.parsePeerGone(payload)
        self._tell(self._listener.relayPeerGone, peer, reason)

    def _health(self, payload: bytes) -> None:
        self._tell(self._listener.relayHealth, derp.parseHealth(payload))

    def _restarting(self, payload: bytes) -> None:
        self._tell(self._listener.relayRestarting, derp.parseRestarting(payload))

    def _ping(self, payload: bytes) -> None:
        pong = derp.buildPong(derp.parsePing(payload))
        # A relay that pings but does not read gets no answers piled up.
        if not self._paused:
            self._write(pong)

    def _pong(self, payload: bytes) -> None:
        ping = self._pings.pop(derp.parsePing(payload), None)
        if ping is None:
            return
        answered, timeout, sent = ping
        timeout.cancel()
        answered.callback(self._reactor.seconds() - sent)

    # -- what goes out -----------------------------------------------------------

    @property
    def isUp(self) -> bool:
        """Whether packets can be sent."""
        return self._isUp

    def _write(self, data: bytes) -> None:
        if self._isUp and self.transport is not None:
            self.transport.write(data)

    def send(self, peer: bytes, messages: list[bytes]) -> None:
        """
        Send packets to a peer; those that cannot go are dropped and counted.

        @param peer: the raw node key of the peer.
        @param messages: the packets, in order.
        """
        counters = self.counters
        if not self._isUp:
            counters.droppedClosed += len(messages)
            return
        bucket = self._bucket
        frames = []
        for message in messages:
            if len(message) > derp.MAX_PACKET:
                counters.droppedTooLong += 1
                continue
            if bucket is not None and not bucket.take(
                _FRAME_OVERHEAD + len(message), self._reactor.seconds()
            ):
                counters.droppedRate += 1
                continue
            frames.append(derp.buildSendPacket(peer, message))
            counters.sentPackets += 1
            counters.sentBytes += len(message)
        if not frames:
            return
        if not self._paused:
            self._write(b"".join(frames))
            return
        queue = self._queue
        behind = self._reactor.seconds() - self._pausedAt
        limit = BURST_LIMIT if 0.0 <= behind < BURST_TIME else QUEUE_LIMIT
        for frame in frames:
            if len(queue) >= limit:
                # The oldest: streams learn soonest what they lost when more
                # of them arrives behind it, and talk wants to be fresh.
                dropped = queue.popleft()
                counters.droppedFull += 1
                counters.sentPackets -= 1
                counters.sentBytes -= len(dropped) - _FRAME_OVERHEAD
            queue.append(frame)

    def setHome(self, isHome: bool) -> None:
        """Tell the relay whether it is our home, when that has changed."""
        if isHome != self._isHome:
            self._isHome = isHome
            self._write(derp.buildNotePreferred(isHome))

    def ping(self, timeout: float = PING_TIMEOUT) -> Deferred[float]:
        """
        Measure the round trip to the relay.

        @param timeout: seconds.
        @return: fires with seconds; fails with L{RelayTimeout} or L{RelayLost}.
        """
        if not self._isUp or len(self._pings) >= _PING_LIMIT:
            return fail(RelayLost("the relay cannot be pinged now"))
        data = self._randbytes(derp.PING_LENGTH)

        def cancelled(_: Deferred[float]) -> None:
            self._forget(data)

        answered: Deferred[float] = Deferred(cancelled)
        expiry = self._reactor.callLater(timeout, self._pingTimedOut, data)
        self._pings[data] = (answered, expiry, self._reactor.seconds())
        self._write(derp.buildPing(data))
        return answered

    def _forget(self, data: bytes) -> Deferred[float] | None:
        ping = self._pings.pop(data, None)
        if ping is None:
            return None
        if ping[1].active():
            ping[1].cancel()
        return ping[0]

    def _pingTimedOut(self, data: bytes) -> None:
        answered = self._forget(data)
        if answered is not None:
            answered.errback(Failure(RelayTimeout("the relay did not answer a ping")))

    # -- back-pressure -----------------------------------------------------------

    def pauseProducing(self) -> None:
        """See L{IPushProducer}."""
        self._paused = True
        self._pausedAt = self._reactor.seconds()

    def resumeProducing(self) -> None:
        """See L{IPushProducer}."""
        self._paused = False
        if _isEnding(self.transport):
            # Twisted has sent all there was, and would not close while there
            # is a producer; and of a close by the relay it would not hear.
            self._fail(RelayLost("the relay hung up"))
            return
        if self._queue:
            waiting = b"".join(self._queue)
            self._queue.clear()
            self._write(waiting)

    def stopProducing(self) -> None:
        """See L{IPushProducer}."""

    # -- the end -----------------------------------------------------------------

    def _watch(self) -> None:
        """Give up when nothing has come for too long, else look again then."""
        silence = self._reactor.seconds() - self.lastFrame
        if silence >= WATCHDOG:
            self._timer = None
            self._fail(RelayTimeout(f"the relay has been silent for {WATCHDOG:.0f} s"))
            return
        self._timer = self._reactor.callLater(WATCHDOG - silence, self._watch)

    def _cancelTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _fail(self, reason: RelayError) -> None:
        if self._reason is None:
            self._reason = reason
        self.abort()

    def close(self) -> None:
        """Hang up after what was written, or soon in any case."""
        if not self._isUp or self.transport is None:
            return
        IConsumer(self.transport).unregisterProducer()
        self._isUp = False
        self.transport.loseConnection()
        self._closing = self._reactor.callLater(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Hang up at once."""
        self._isUp = False
        if self.transport is not None:
            ITCPTransport(self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}."""
        self._handOn()
        self._isUp = False
        self._cancelTimer()
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self.counters.droppedClosed += len(self._queue)
        self._queue.clear()
        lost = self._reason or RelayLost(
            f"the relay hung up: {reason.getErrorMessage()}"
        )
        for data in list(self._pings):
            answered = self._forget(data)
            if answered is not None:
                answered.errback(Failure(RelayLost(str(lost))))
        self._tell(self._listener.relayLost, Failure(lost))


def _isEnding(transport: object) -> bool:
    """Whether a transport, or one below it, has begun to close."""
    while transport is not None:
        if getattr(transport, "disconnecting", False):
            return True
        transport = getattr(transport, "transport", None)
    return False

"""
One client of a DERP server, as the server sees it.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.crypto.box import Box, openFrom, sealTo
from tsrt.errors import WireError
from tsrt.keys import NodePublic
from tsrt.wire import derp
from tsrt.wire.classify import looksLikeDisco
from tsrt.wire.derp import FrameType
from tsrt.wire.derpinfo import ClientInfo

if TYPE_CHECKING:
    from tsrt.testing.derp import DERPServer

_log = Logger(namespace="tsrt.testing.derp")

LOGIN_TIMEOUT = 10.0
"""Seconds that a client has for its login."""

WRITE_TIMEOUT = 2.0
"""Seconds after which a client that takes nothing is given up."""

QUEUE_LIMIT = 32
"""Packets that wait for one client, of disco and of everything else each."""

_GONE_BURST = 3.0
_TALKED_TO_LIMIT = 10_000


class Phase(enum.Enum):
    """How far a connection has come."""

    GREETED = "greeted"
    ADMITTING = "admitting"
    SERVING = "serving"
    CLOSED = "closed"


@implementer(IPushProducer)
class ClientConnection(Protocol):
    """
    Speaks DERP with one client, from the server key on.

    @ivar key: the client's raw node key, once it has logged in.
    @ivar info: what the client said of itself.
    @ivar isHome: whether the client calls this relay its home.
    """

    def __init__(self, server: DERPServer, idealNode: str = "") -> None:
        """
        @param server: the server that the connection belongs to.
        @param idealNode: which server the client would rather have reached.
        """
        self.idealNode = idealNode
        self.key = b""
        self.info = ClientInfo()
        self.isHome = False
        self.isDisabled = False
        self.talkedTo: set[bytes] = set()
        self.phase = Phase.GREETED
        self._server = server
        self._reactor = server.reactor
        self._splitter = derp.FrameSplitter(limits=derp.SERVER_LIMITS)
        self._timer: IDelayedCall | None = None
        self._stuck: IDelayedCall | None = None
        self._paused = False
        self._early: list[tuple[int, bytes]] = []
        self._disco: deque[bytes] = deque()
        self._other: deque[bytes] = deque()
        self._discoNext = True
        self._goneTokens = _GONE_BURST
        self._goneAt = 0.0
        self._handlers: dict[int, Callable[[bytes], None]] = {
            FrameType.SEND_PACKET: self._sendPacket,
            FrameType.NOTE_PREFERRED: self._notePreferred,
            FrameType.PING: self._ping,
            FrameType.WATCH_CONNS: self._meshOnly,
            FrameType.FORWARD_PACKET: self._meshOnly,
            FrameType.CLOSE_PEER: self._meshOnly,
        }

    # -- login -------------------------------------------------------------------

    def connectionMade(self) -> None:
        """See L{IProtocol}."""
        self._server.connectionOpened(self)
        self._timer = self._reactor.callLater(LOGIN_TIMEOUT, self.abort)
        self._write(derp.buildServerKey(self._server.publicKey))

    def _login(self, payload: bytes) -> None:
        key, sealed = derp.parseClientInfo(payload)
        box = Box(self._server.privateRaw, key)
        self.info = ClientInfo.decode(openFrom(box, sealed))
        self.key = key
        self.phase = Phase.ADMITTING
        assert self.transport is not None
        admission = maybeDeferred(
            self._server.admit, NodePublic(key), self.transport.getPeer()
        )
        admission.addCallbacks(self._admitted, self._notAdmitted, callbackArgs=(box,))
        admission.addErrback(
            lambda failure: _log.failure("a login failed", failure=failure)
        )

    def _admitted(self, allowed: bool, box: Box) -> None:
        if self.phase is not Phase.ADMITTING:
            return
        if not allowed:
            self._server.counters.refused += 1
            self.abort()
            return
        self.phase = Phase.SERVING
        info = self._server.info.encode()
        self._server.clientJoined(self)
        self._write(derp.buildServerInfo(sealTo(box, info, self._server.randbytes)))
        assert self.transport is not None
        IConsumer(self.transport).registerProducer(self, True)
        self._scheduleKeepAlive()
        early, self._early = self._early, []
        self._guarded(early)

    def _notAdmitted(self, failure: Failure) -> None:
        _log.failure("the admission of a client failed", failure=failure)
        self.abort()

    def _scheduleKeepAlive(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        delay = self._server.keepAlive + 5.0 * self._server.randbytes(1)[0] / 255
        self._timer = self._reactor.callLater(delay, self._keepAlive)

    def _keepAlive(self) -> None:
        if not self._paused:
            self._write(derp.buildKeepAlive())
        self._scheduleKeepAlive()

    # -- what comes in -----------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        if self.phase is Phase.CLOSED:
            return
        try:
            frames = self._splitter.feed(data)
        except WireError as error:
            self._malformed(error)
            return
        self._guarded(frames)

    def _guarded(self, frames: list[tuple[int, bytes]]) -> None:
        try:
            for kind, payload in frames:
                self._frame(kind, payload)
        except WireError as error:
            self._malformed(error)

    def _malformed(self, error: WireError) -> None:
        _log.debug("a DERP client is dropped: {error}", error=error)
        self._server.counters.malformed += 1
        self.abort()

    def _frame(self, kind: int, payload: bytes) -> None:
        if self.phase is Phase.GREETED:
            if kind != FrameType.CLIENT_INFO:
                raise WireError("a DERP client does not log in")
            self._login(payload)
        elif self.phase is Phase.ADMITTING:
            # Clients need not wait for us; what comes early waits here.
            if len(self._early) >= QUEUE_LIMIT:
                self._server.counters.droppedEarly += 1
                return
            self._early.append((kind, payload))
        elif self.phase is Phase.SERVING:
            handler = self._handlers.get(kind)
            if handler is not None:
                handler(payload)

    def _sendPacket(self, payload: bytes) -> None:
        destination, packet = derp.parseSendPacket(payload)
        self._server.relay(self, destination, packet)

    def _notePreferred(self, payload: bytes) -> None:
        self.isHome = derp.parseNotePreferred(payload)

    def _ping(self, payload: bytes) -> None:
        pong = derp.buildPong(derp.parsePing(payload))
        if not self._paused:
            self._write(pong)

    def _meshOnly(self, payload: bytes) -> None:
        raise WireError("only a mesh peer may ask for that")

    # -- what goes out -----------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self.transport is not None and self.phase is not Phase.CLOSED:
            self.transport.write(data)

    def deliver(self, source: bytes, packet: bytes) -> None:
        """Send a packet that is for this client, or let it wait, or drop one."""
        frame = derp.buildRecvPacket(source, packet)
        if not self._paused:
            self._server.counters.delivered += 1
            self._write(frame)
            return
        queue = self._disco if looksLikeDisco(packet) else self._other
        if len(queue) >= QUEUE_LIMIT:
            queue.popleft()
            self._server.counters.droppedFull += 1
        queue.append(frame)

    def peerGone(self, peer: bytes, reason: derp.PeerGoneReason) -> None:
        """Tell the client that C{peer} is not, or no longer, here."""
        self._write(derp.buildPeerGone(peer, reason))

    def notHere(self, peer: bytes) -> None:
        """As L{peerGone}, but not too often."""
        now = self._reactor.seconds()
        self._goneTokens = min(_GONE_BURST, self._goneTokens + now - self._goneAt)
        self._goneAt = now
        if self._goneTokens >= 1.0:
            self._goneTokens -= 1.0
            self.peerGone(peer, derp.PeerGoneReason.NOT_HERE)

    def health(self, problem: str) -> None:
        """Tell the client of a problem, or with no text that it is over."""
        self._write(derp.buildHealth(problem))

    def restarting(self, reconnectIn: float, tryFor: float) -> None:
        """Tell the client to come back soon, and hang up."""
        self._write(derp.buildRestarting(reconnectIn, tryFor))
        self.close()

    def talksTo(self, peer: bytes) -> None:
        """Remember whom to tell when this client is gone."""
        if len(self.talkedTo) < _TALKED_TO_LIMIT:
            self.talkedTo.add(peer)

    # -- back-pressure -----------------------------------------------------------

    def pauseProducing(self) -> None:
        """See L{IPushProducer}."""
        self._paused = True
        if self._stuck is None:
            self._stuck = self._reactor.callLater(WRITE_TIMEOUT, self._isStuck)

    def _isStuck(self) -> None:
        self._stuck = None
        self._server.counters.stuck += 1
        self.abort()

    def resumeProducing(self) -> None:
        """See L{IPushProducer}."""
        self._paused = False
        self._cancelStuck()
        while not self._paused and (self._disco or self._other):
            # In turn, so that neither kind can starve the other.
            first, second = self._disco, self._other
            if not self._discoNext:
                first, second = second, first
            self._discoNext = not self._discoNext
            self._server.counters.delivered += 1
            self._write((first or second).popleft())

    def stopProducing(self) -> None:
        """See L{IPushProducer}."""

    def _cancelStuck(self) -> None:
        stuck, self._stuck = self._stuck, None
        if stuck is not None and stuck.active():
            stuck.cancel()

    # -- the end -----------------------------------------------------------------

    def close(self) -> None:
        """Hang up after all that was written."""
        if self.transport is not None and self.phase is not Phase.CLOSED:
            if self.phase is Phase.SERVING:
                IConsumer(self.transport).unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Hang up at once."""
        if self.transport is not None and self.phase is not Phase.CLOSED:
            ITCPTransport(self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}."""
        self.phase = Phase.CLOSED
        self._cancelStuck()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._disco.clear()
        self._other.clear()
        self._server.connectionClosed(self)

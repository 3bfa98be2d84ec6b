"""
The tunnel to one peer: its sessions, handshakes, timers and waiting packets.

A handshake that we started and one that the peer started do not get in each
other's way: both nodes may start at once, and one session or two come of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from attrs import frozen

from tsrt.crypto.hashes import x25519
from tsrt.dataplane.runs import (
    Arrived,
    Outgoing,
    Received,
    Sealed,
    countOf,
    packetsOf,
)
from tsrt.errors import WireError
from tsrt.tunnel.cookies import CookieJar
from tsrt.tunnel.counters import TunnelCounters
from tsrt.tunnel.handshake import Initiation, ReceivedInitiation, StaticKey
from tsrt.tunnel.indices import IndexTable
from tsrt.tunnel.session import REKEY_AFTER_MESSAGES, Session
from tsrt.tunnel.slots import SessionSlots
from tsrt.tunnel.timers import (
    MAX_JITTER,
    REJECT_AFTER_TIME,
    REKEY_AFTER_TIME,
    REKEY_ON_RECEIVE,
    REKEY_TIMEOUT,
    STOP_SENDING_TIME,
    TimerEvent,
    TimerState,
)

MAX_QUEUED = 128
"""How many packets wait for a session; a newer one pushes the oldest out."""

MIN_INITIATION_GAP = 0.02
"""Seconds that must lie between two initiations of one peer."""

_NO_TIMESTAMP = bytes(12)


@frozen
class PeerTunnelStatus:
    """What is known of the tunnel to one peer at one moment."""

    sendsUntil: float | None
    """Until when packets go out without a handshake; C{None} without a session."""
    isHandshaking: bool
    """Whether we wait for the answer to an initiation."""
    lastHandshake: float | None
    """When a session last came into use, in the time of C{now}."""
    lastReceived: float | None
    """When the last authentic message came in, in the time of C{now}."""
    queued: int
    """How many packets wait for a session."""
    receivedBytes: int
    """Bytes of authentic transport messages received."""
    sentBytes: int
    """Bytes of transport messages sent."""


class TunnelContext:
    """What all tunnels of a node share."""

    __slots__ = (
        "counters",
        "established",
        "indices",
        "mtu",
        "randbytes",
        "static",
        "timestamp",
    )

    def __init__(
        self,
        static: StaticKey,
        *,
        timestamp: Callable[[], bytes],
        randbytes: Callable[[int], bytes],
        mtu: int,
    ) -> None:
        """
        @param timestamp: gives strictly increasing TAI64N labels.
        @param mtu: the largest inner packet, in bytes.
        """
        self.static = static
        self.timestamp = timestamp
        self.randbytes = randbytes
        self.mtu = mtu
        self.counters = TunnelCounters()
        self.indices: IndexTable[PeerTunnel] = IndexTable(randbytes)
        self.established: list[bytes] = []
        """Public keys of peers whose new session came into use lately."""

    def jitter(self) -> float:
        """A random part of the largest jitter, in seconds."""
        return int.from_bytes(self.randbytes(2), "little") / 65536 * MAX_JITTER


class PeerTunnel:
    """
    Packets in, messages out, and the other way round, for one peer.

    A new one costs nothing but its slots: keys are computed at first use.
    """

    __slots__ = (
        "_acceptedAt",
        "_context",
        "_jar",
        "_pending",
        "_queue",
        "_receivedBytes",
        "_sentBytes",
        "_sessions",
        "_shared",
        "_timestamp",
        "incarnation",
        "lastHandshake",
        "lastReceived",
        "public",
        "scheduledAt",
        "timers",
    )

    def __init__(self, context: TunnelContext, public: bytes) -> None:
        """
        @param public: the peer's static key, 32 bytes.
        """
        self._context = context
        self.public = public
        self.timers = TimerState()
        self.scheduledAt = inf
        """Where the owner's heap of deadlines has this tunnel."""
        self.incarnation = b""
        """Another value means that the peer was started anew; empty: unknown."""
        self._queue: list[bytes] = []
        self._pending: Initiation | None = None
        self._sessions = SessionSlots(context.indices.release)
        self._jar: CookieJar | None = None
        self._shared = b""
        self._timestamp = _NO_TIMESTAMP
        self._acceptedAt = -inf
        self._receivedBytes = 0
        self._sentBytes = 0
        self.lastHandshake: float | None = None
        self.lastReceived: float | None = None

    # -- outgoing ----------------------------------------------------------

    def send(self, items: Sequence[Outgoing], now: float) -> list[Sealed]:
        """
        Seal packets, or let them wait for a session.

        @return: the messages to send now; an initiation may be among them.
        """
        session = self._sessions.usable(now)
        if session is None:
            self._enqueue(packetsOf(items))
            return [*self._initiate(now)]
        count, room = countOf(items), session.room
        if count > room:
            packets = packetsOf(items)
            self._enqueue(packets[room:])
            items = [*packets[:room]]
            count = room
        if not items:
            return [*self._initiate(now)]
        self._context.counters.packetsSent += count
        return self._seal(session, items, now, True)

    def sendKeepalive(self, now: float) -> list[Sealed]:
        """
        Send an empty message, or start the handshake that will end in one.
        """
        session = self._sessions.usable(now)
        if session is None or not session.room:
            return [*self._initiate(now)]
        self._context.counters.keepalivesSent += 1
        return self._seal(session, [b""], now, False)

    def _seal(
        self, session: Session, items: Sequence[Outgoing], now: float, isData: bool
    ) -> list[Sealed]:
        """Seal, and see whether the session is due for renewal."""
        messages = session.seal(items, self._context.mtu)
        self._sentBytes += sum(map(len, messages))
        self.timers.sent(now, isData)
        if session.sendCounter > REKEY_AFTER_MESSAGES or (
            session.isInitiator and now - session.createdAt >= REKEY_AFTER_TIME
        ):
            messages += self._initiate(now)
        return messages

    def _enqueue(self, packets: list[bytes]) -> None:
        """Let packets wait; the oldest make room."""
        queue = self._queue
        queue += packets
        excess = len(queue) - MAX_QUEUED
        if excess > 0:
            del queue[:excess]
            self._context.counters.droppedQueueFull += excess

    def _flush(self, now: float) -> list[Sealed]:
        """Send what waited, now that there is a session."""
        packets, self._queue = self._queue, []
        return self.send(packets, now) if packets else []

    def _initiate(self, now: float, isRetry: bool = False) -> list[bytes]:
        """
        Start a handshake, unless one was started a moment ago.

        A handshake that is not answered is replaced by a fresh one.
        """
        context = self._context
        timers = self.timers
        if not isRetry:
            timers.retransmits = 0
            if now - timers.startedAt < REKEY_TIMEOUT:
                timers.awaitTurn()
                return []
        self._dropPending()
        index = context.indices.claim(self)
        try:
            pending = Initiation(
                context.static,
                self.public,
                self._staticShared(),
                index=index,
                timestamp=context.timestamp(),
                ephemeral=context.randbytes(32),
            )
        except WireError:
            # The peer's key is no usable point: nobody can own it.
            context.indices.release(index)
            context.counters.droppedNoAnswer += self._dropQueue()
            return []
        self._pending = pending
        context.counters.handshakesStarted += 1
        timers.handshakeStarted(now, context.jitter())
        return [self._sign(pending.body, now)]

    # -- incoming ----------------------------------------------------------

    def receiveData(
        self, index: bytes, items: Sequence[Received], now: float
    ) -> tuple[list[Arrived], list[Sealed], bool]:
        """
        Take a run of transport messages that all carry one of our indices.

        @return: the packets in them; what to send in reply; whether any of
            the messages was authentic.
        """
        counters = self._context.counters
        session = self._sessions.find(index)
        if session is None:
            counters.droppedUnknownIndex += countOf(items)
            return [], [], False
        if now - session.createdAt >= REJECT_AFTER_TIME:
            counters.droppedExpired += countOf(items)
            return [], [], False
        packets, authentic = session.open(items, counters)
        if not authentic:
            return [], [], False
        counters.packetsReceived += countOf(packets)
        self._receivedBytes += authentic
        self.lastReceived = now
        self.timers.received(now, bool(packets))
        replies: list[Sealed] = []
        if session is self._sessions.next:
            self._confirm(now)
            replies = self._flush(now)
        elif (
            session is self._sessions.current
            and session.isInitiator
            and now - session.createdAt >= REKEY_ON_RECEIVE
        ):
            replies = [*self._initiate(now)]
        return packets, replies, True

    def receiveInitiation(
        self, initiation: ReceivedInitiation, now: float
    ) -> list[bytes]:
        """
        Answer a handshake that the peer (so it says) started.

        @return: the response, or nothing when the initiation is dropped.
        """
        context = self._context
        counters = context.counters
        try:
            timestamp = initiation.authenticate(self._staticShared())
        except WireError:
            counters.droppedHandshakeFailed += 1
            return []
        if timestamp <= self._timestamp:
            counters.droppedHandshakeReplay += 1
            return []
        if now - self._acceptedAt < MIN_INITIATION_GAP:
            counters.droppedHandshakeFlood += 1
            return []
        index = context.indices.claim(self)
        body, keys = initiation.respond(index, context.randbytes(32))
        self._timestamp = timestamp
        self._acceptedAt = now
        self._sessions.offer(
            Session(
                keys,
                index=index,
                remoteIndex=initiation.index,
                isInitiator=False,
                now=now,
            )
        )
        counters.handshakesAnswered += 1
        self.lastReceived = now
        self.timers.received(now, False)
        self.timers.sessionMade(now, context.jitter())
        self.timers.sent(now, False)
        return [self._sign(body, now)]

    def receiveResponse(self, response: bytes, now: float) -> list[Sealed]:
        """
        Complete the handshake that we started.

        @return: the first messages of the new session, at least one; nothing
            when the response is dropped.
        """
        context = self._context
        pending = self._pending
        if pending is None or pending.index != response[8:12]:
            context.counters.droppedUnknownIndex += 1
            return []
        try:
            keys = pending.finish(response)
        except WireError:
            context.counters.droppedHandshakeFailed += 1
            return []
        self._pending = None
        self._sessions.complete(
            Session(
                keys,
                index=pending.index,
                remoteIndex=response[4:8],
                isInitiator=True,
                now=now,
            )
        )
        self.lastReceived = now
        self.timers.received(now, False)
        self.timers.sessionMade(now, context.jitter())
        self._completed(now)
        # The peer may not send before it heard from us, so say something.
        return self._flush(now) or self.sendKeepalive(now)

    def receiveCookie(self, nonce: bytes, sealed: bytes, now: float) -> bool:
        """
        Keep a cookie for our next handshake message.

        @return: whether it is the peer's answer to the last one.
        """
        counters = self._context.counters
        try:
            self._cookieJar().accept(nonce, sealed, now)
        except WireError:
            counters.droppedCookieInvalid += 1
            return False
        counters.cookiesReceived += 1
        return True

    # -- time ----------------------------------------------------------------

    def tick(self, now: float) -> list[Sealed]:
        """
        Do what is due.

        @return: messages to send.
        """
        messages: list[Sealed] = []
        for event in self.timers.expire(now):
            if event is TimerEvent.RETRANSMIT:
                messages += self._initiate(now, isRetry=True)
            elif event is TimerEvent.GIVE_UP:
                self._giveUp()
            elif event is TimerEvent.NEW_HANDSHAKE:
                messages += self._initiate(now)
            elif event is TimerEvent.ZERO_KEYS:
                self._sessions.clear()
            else:
                messages += self.sendKeepalive(now)
        return messages

    def status(self) -> PeerTunnelStatus:
        """How the tunnel stands."""
        session = self._sessions.current
        return PeerTunnelStatus(
            sendsUntil=session.createdAt + STOP_SENDING_TIME if session else None,
            isHandshaking=self._pending is not None,
            lastHandshake=self.lastHandshake,
            lastReceived=self.lastReceived,
            queued=len(self._queue),
            receivedBytes=self._receivedBytes,
            sentBytes=self._sentBytes,
        )

    def renew(self, now: float) -> None:
        """
        Doubt the session: the peer may have lost its end.

        What is sent from now on waits for another, which the next tick asks
        for; what still comes on this one is taken.
        """
        if self._sessions.usable(now) is not None:
            self._sessions.retire()
            self.timers.sessionDoubted(now)

    def reset(self) -> None:
        """Forget sessions, handshakes and whatever depends on our own key."""
        self._dropPending()
        self._sessions.clear()
        self._context.counters.droppedRemovedPeer += self._dropQueue()
        self._shared = b""
        self.timers.clear()

    # -- ends and beginnings -------------------------------------------------

    def _confirm(self, now: float) -> None:
        """The peer used the session that it started: now we may, too."""
        self._sessions.confirm()
        # Whatever we started ourselves is not needed any more.
        self._dropPending()
        self._completed(now)

    def _completed(self, now: float) -> None:
        """A session came into use."""
        self.timers.handshakeFinished()
        self.lastHandshake = now
        self._context.counters.handshakesCompleted += 1
        self._context.established.append(self.public)

    def _giveUp(self) -> None:
        """
        The peer does not answer.  The next packet starts all over.
        """
        counters = self._context.counters
        counters.handshakesAbandoned += 1
        counters.droppedNoAnswer += self._dropQueue()
        self._dropPending()
        self._sessions.retire()

    def _dropPending(self) -> None:
        """Forget the handshake that we started."""
        if self._pending is not None:
            self._context.indices.release(self._pending.index)
            self._pending = None

    def _dropQueue(self) -> int:
        """Forget what waits; how many packets that were."""
        count = len(self._queue)
        self._queue = []
        return count

    # -- keys ----------------------------------------------------------------

    def _staticShared(self) -> bytes:
        """The Diffie-Hellman result of both static keys, computed once."""
        if not self._shared:
            self._shared = x25519(self._context.static.private, self.public)
        return self._shared

    def _cookieJar(self) -> CookieJar:
        """The maker of MACs for this peer, made at first use."""
        if self._jar is None:
            self._jar = CookieJar(self.public)
        return self._jar

    def _sign(self, body: bytes, now: float) -> bytes:
        """Put the MACs on a handshake message."""
        return self._cookieJar().sign(body, now)

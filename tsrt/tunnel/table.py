"""
All tunnels of a node: who is a peer, whose message is this, who is due when.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from math import inf

from tsrt.dataplane.runs import Arrived, DatagramRun, Outgoing, Sealed, countOf
from tsrt.dataplane.runs import Received as Incoming
from tsrt.errors import WireError
from tsrt.keys import NodeKey
from tsrt.tunnel.cookies import CookieChecker
from tsrt.tunnel.counters import TunnelCounters
from tsrt.tunnel.handshake import ReceivedInitiation, StaticKey
from tsrt.tunnel.limits import HANDSHAKES_PER_SECOND, LoadGauge, SourceLimiter
from tsrt.tunnel.peer import PeerTunnel, PeerTunnelStatus, TunnelContext
from tsrt.wire.wireguard import (
    COOKIE_REPLY_LENGTH,
    INITIATION_LENGTH,
    RESPONSE_LENGTH,
    TRANSPORT_PREFIX,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
)

DEFAULT_MTU = 1280

MIN_KEEPALIVE = 1.0
"""The shortest interval of persistent keep-alives, in seconds."""

TICK_BATCH = 64
"""How many peers one L{TunnelTable.tick} serves, so that no tick takes long."""

_INITIATION_PREFIX = TYPE_INITIATION.to_bytes(4, "little")
_RESPONSE_PREFIX = TYPE_RESPONSE.to_bytes(4, "little")
_COOKIE_REPLY_PREFIX = TYPE_COOKIE_REPLY.to_bytes(4, "little")
_KEY_SIZE = 32


class Received:
    """What came out of a batch of datagrams."""

    __slots__ = ("established", "heard", "packets", "replies", "toSource")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.packets: list[tuple[bytes, list[Arrived]]] = []
        """Inner packets by public key of the sender, in order of arrival."""
        self.replies: list[tuple[bytes, list[Sealed]]] = []
        """Messages to send to peers, by public key."""
        self.toSource: list[bytes] = []
        """Messages to send to where the batch came from: cookie replies."""
        self.heard: list[bytes] = []
        """Peers of whom an authentic message was in the batch."""
        self.established: list[bytes] = []
        """Peers whose new session came into use."""


class TunnelTable:
    """
    The tunnels to all peers.

    Nothing is sent and nothing is timed here: messages to send are returned,
    and L{tick} wants to be called when L{deadline} has come.
    """

    def __init__(
        self,
        key: NodeKey,
        *,
        timestamp: Callable[[], bytes],
        randbytes: Callable[[int], bytes],
        mtu: int = DEFAULT_MTU,
        loadLimit: int = HANDSHAKES_PER_SECOND,
    ) -> None:
        """
        @param key: our own key.
        @param timestamp: gives TAI64N labels of 12 bytes, strictly increasing
            for as long as the key lives.
        @param randbytes: the source of secret random bytes.
        @param mtu: the largest inner packet, in bytes.
        @param loadLimit: handshake messages a second that are no load.
        """
        static = StaticKey(key.raw)
        self._context = TunnelContext(
            static, timestamp=timestamp, randbytes=randbytes, mtu=mtu
        )
        self._randbytes = randbytes
        self._checker = CookieChecker(static.public, randbytes)
        self._gauge = LoadGauge(loadLimit)
        self._limiter = SourceLimiter()
        self._peers: dict[bytes, PeerTunnel] = {}
        # Each tunnel with a running timer has one valid entry here: the one at
        # its `scheduledAt`.  Timers that are put off leave their entry where it
        # is; it is put right when its time comes.
        self._heap: list[tuple[float, int, PeerTunnel]] = []
        self._pushed = 0

    # -- who there is --------------------------------------------------------

    @property
    def counters(self) -> TunnelCounters:
        """Traffic and drops of all tunnels, present and past."""
        return self._context.counters

    def __len__(self) -> int:
        """How many peers there are."""
        return len(self._peers)

    def __contains__(self, public: bytes) -> bool:
        """Whether somebody is a peer."""
        return public in self._peers

    @property
    def indexCount(self) -> int:
        """How many receiver indices are in use, for all peers together."""
        return len(self._context.indices)

    def setKey(self, key: NodeKey) -> None:
        """
        Become somebody else: all sessions end, the peers stay.

        The same key again changes nothing.
        """
        if key.raw == self._context.static.private:
            return
        for peer in self._peers.values():
            peer.reset()
            self._schedule(peer)
        self._context.static = static = StaticKey(key.raw)
        self._checker = CookieChecker(static.public, self._randbytes)

    def upsertPeer(
        self,
        public: bytes,
        keepalive: float = 0.0,
        incarnation: bytes = b"",
        *,
        now: float,
    ) -> None:
        """
        Let somebody be a peer, or change the keep-alive of one.

        The first persistent keep-alive comes at a random time within the
        interval, so that many peers do not all begin at once.

        @param public: its static key, 32 bytes.
        @param keepalive: seconds after which something is sent even if there
            is nothing to say; 0 for never.
        @param incarnation: some value that changes whenever the peer starts
            anew, and so has lost its sessions; empty if there is none.
        @raise WireError: the key has not 32 bytes.
        """
        if len(public) != _KEY_SIZE:
            raise WireError(f"a peer's key has {_KEY_SIZE} bytes, not {len(public)}")
        peer = self._peers.get(public)
        if peer is None:
            self._peers[public] = peer = PeerTunnel(self._context, public)
        interval = max(keepalive, MIN_KEEPALIVE) if keepalive > 0 else 0.0
        if interval != peer.timers.interval:
            part = int.from_bytes(self._randbytes(2), "little") / 65536
            peer.timers.setInterval(interval, now + interval * part)
            self._schedule(peer)
        if incarnation and incarnation != peer.incarnation:
            if peer.incarnation:
                peer.renew(now)
                self._schedule(peer)
            peer.incarnation = incarnation

    def doubtSessions(self, now: float) -> None:
        """
        This machine slept while its peers did not: they may have forgotten
        sessions that look young here.  Those in use are made anew.
        """
        for peer in self._peers.values():
            peer.renew(now)
            if peer.timers.earliest < peer.scheduledAt:
                self._schedule(peer)

    def removePeer(self, public: bytes) -> None:
        """
        End the sessions with a peer and forget it; strangers are ignored.
        """
        peer = self._peers.pop(public, None)
        if peer is not None:
            peer.reset()
            peer.scheduledAt = inf
            self._tidy()

    def status(self, public: bytes) -> PeerTunnelStatus | None:
        """How the tunnel to a peer stands; C{None} for strangers."""
        peer = self._peers.get(public)
        return None if peer is None else peer.status()

    # -- packets -------------------------------------------------------------

    def send(
        self, public: bytes, packets: Sequence[Outgoing], now: float
    ) -> list[Sealed]:
        """
        Seal packets for a peer.

        Without a session they wait, and a handshake starts.

        @return: messages to send to the peer.
        """
        peer = self._peers.get(public)
        if peer is None:
            self._context.counters.droppedUnknownPeer += countOf(packets)
            return []
        if not packets:
            return []
        messages = peer.send(packets, now)
        if peer.timers.earliest < peer.scheduledAt:
            self._schedule(peer)
        return messages

    def receive(self, items: Sequence[Incoming], source: bytes, now: float) -> Received:
        """
        Take a batch of datagrams that came from one place.

        @param source: that place, in any form that is always the same for the
            same place; it decides about cookies and rates only.
        """
        received = Received()
        count = len(items)
        position = 0
        while position < count:
            datagram = items[position]
            if isinstance(datagram, DatagramRun):
                prefix = datagram.prefix
                if prefix.startswith(TRANSPORT_PREFIX):
                    self._receiveData(prefix[4:], [datagram], now, received)
                    position += 1
                else:
                    items = [
                        *items[:position],
                        *datagram.datagrams(),
                        *items[position + 1 :],
                    ]
                    count = len(items)
                continue
            kind = datagram[:4]
            if kind == TRANSPORT_PREFIX:
                prefix = datagram[:8]
                end = position + 1
                while end < count and _prefixOf(items[end]) == prefix:
                    end += 1
                run = items
                if end - position < count:
                    run = items[position:end]
                self._receiveData(prefix[4:], run, now, received)
                position = end
                continue
            position += 1
            if kind == _INITIATION_PREFIX and len(datagram) == INITIATION_LENGTH:
                self._receiveInitiation(datagram, source, now, received)
            elif kind == _RESPONSE_PREFIX and len(datagram) == RESPONSE_LENGTH:
                self._receiveResponse(datagram, source, now, received)
            elif kind == _COOKIE_REPLY_PREFIX and len(datagram) == COOKIE_REPLY_LENGTH:
                self._receiveCookie(datagram, now)
            else:
                self._context.counters.droppedMalformed += 1
        if self._context.established:
            received.established = self._context.established
            self._context.established = []
        return received

    def _receiveData(
        self, index: bytes, run: Sequence[Incoming], now: float, received: Received
    ) -> None:
        """Take transport messages that carry the same index."""
        peer = self._context.indices.find(index)
        if peer is None:
            self._context.counters.droppedUnknownIndex += countOf(run)
            return
        packets, replies, isAuthentic = peer.receiveData(index, run, now)
        if not isAuthentic:
            return
        if packets:
            received.packets.append((peer.public, packets))
        self._heard(peer, replies, received)

    def _receiveInitiation(
        self, message: bytes, source: bytes, now: float, received: Received
    ) -> None:
        """Take a message of somebody who wants a session with us."""
        counters = self._context.counters
        if not self._admits(message, source, now, received):
            return
        try:
            initiation = ReceivedInitiation(self._context.static, message)
        except WireError:
            counters.droppedHandshakeFailed += 1
            return
        peer = self._peers.get(initiation.public)
        if peer is None:
            counters.droppedUnknownKey += 1
            return
        replies = peer.receiveInitiation(initiation, now)
        if replies:
            self._heard(peer, [*replies], received)

    def _receiveResponse(
        self, message: bytes, source: bytes, now: float, received: Received
    ) -> None:
        """Take an answer to an initiation of ours."""
        # The index comes first: it is the cheapest check, and strangers cannot
        # guess it.
        peer = self._context.indices.find(message[8:12])
        if peer is None:
            self._context.counters.droppedUnknownIndex += 1
            return
        if not self._admits(message, source, now, received):
            return
        replies = peer.receiveResponse(message, now)
        if replies:
            self._heard(peer, replies, received)

    def _receiveCookie(self, message: bytes, now: float) -> None:
        """Take a cookie that came in place of an answer."""
        peer = self._context.indices.find(message[4:8])
        if peer is None:
            self._context.counters.droppedUnknownIndex += 1
            return
        peer.receiveCookie(message[8:32], message[32:], now)

    def _admits(
        self, message: bytes, source: bytes, now: float, received: Received
    ) -> bool:
        """
        Whether a handshake message is worth the work it would cause.

        Under load it must show a cookie; if it does not, it gets one.
        """
        counters = self._context.counters
        if not self._checker.checkMac1(message):
            counters.droppedMac1 += 1
            return False
        if not self._gauge.note(now):
            return True
        if not self._checker.checkMac2(message, source, now):
            received.toSource.append(self._checker.reply(message, source, now))
            counters.droppedUnderLoad += 1
            counters.cookiesSent += 1
            return False
        if not self._limiter.admit(source, now):
            counters.droppedRateLimited += 1
            return False
        return True

    def _heard(
        self, peer: PeerTunnel, replies: list[Sealed], received: Received
    ) -> None:
        """A peer was heard: note it, its replies, and its timers."""
        if peer.public not in received.heard:
            received.heard.append(peer.public)
        if replies:
            received.replies.append((peer.public, replies))
        if peer.timers.earliest < peer.scheduledAt:
            self._schedule(peer)

    # -- time ------------------------------------------------------------------

    def deadline(self) -> float | None:
        """
        When to call L{tick}; C{None} if nothing is going to be due.

        It may be somewhat too early, and is in the past if the last tick left
        something to do.
        """
        heap = self._heap
        while heap and heap[0][0] != heap[0][2].scheduledAt:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def tick(self, now: float) -> list[tuple[bytes, list[Sealed]]]:
        """
        Do what is due, for at most L{TICK_BATCH} peers.

        @return: messages to send, by public key of the peer.
        """
        heap = self._heap
        work: list[tuple[bytes, list[Sealed]]] = []
        served = 0
        while heap and heap[0][0] <= now and served < TICK_BATCH:
            at, _, peer = heapq.heappop(heap)
            if at != peer.scheduledAt:
                continue
            served += 1
            messages = peer.tick(now)
            peer.scheduledAt = inf
            self._schedule(peer)
            if messages:
                work.append((peer.public, messages))
        return work

    def _schedule(self, peer: PeerTunnel) -> None:
        """Have a tunnel ticked when its earliest timer runs out."""
        at = peer.timers.earliest
        if at < peer.scheduledAt:
            peer.scheduledAt = at
            self._pushed += 1
            heapq.heappush(self._heap, (at, self._pushed, peer))
            self._tidy()

    def _tidy(self) -> None:
        """Throw out invalid entries once they are the greater part."""
        if len(self._heap) > 2 * len(self._peers) + 64:
            valid = [entry for entry in self._heap if entry[0] == entry[2].scheduledAt]
            heapq.heapify(valid)
            self._heap[:] = valid


def _prefixOf(item: Incoming) -> bytes:
    """Type and index of a message; nothing of a run."""
    return item[:8] if isinstance(item, bytes) else b""

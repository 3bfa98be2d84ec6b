"""
The walk of a packet, in both directions, through the pure machines.

Outbound: stack, route, filter, tunnel, path.  Inbound: path, tunnel, source
check and filter, stack, and then whatever the stack has to say to that.  All
of it works on lists; nothing here makes a Deferred, logs or allocates more
than lists for a packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tsrt.counters import Counters
from tsrt.dataplane.runs import (
    Arrived,
    ArrivedRun,
    Outgoing,
    Received,
    Sealed,
    SegmentRun,
    countOf,
    packetsOf,
)
from tsrt.netmap.filter import PacketFilter
from tsrt.netmap.masquerade import Masquerade
from tsrt.netmap.routes import RouteTable
from tsrt.netstack.icmperrors import buildNoRoute
from tsrt.netstack.stack import Stack
from tsrt.path.places import Place
from tsrt.runtime.timers import DeadlineTimer
from tsrt.tunnel.table import TunnelTable
from tsrt.wire.pcap import FROM_LOCAL, FROM_PEER

_log = Logger(namespace="tsrt.datapath")

# Rounds of "the stack spoke, the applications answered" in one turn, before
# the reactor gets to do something else.
_MOST_ROUNDS = 16

_IPPROTO_TCP = 6
_IPPROTO_TSMP = 99


class DataPathCounters(Counters):
    """Packets and bytes that went through, and those that went nowhere."""

    __slots__ = (
        "droppedNoPath",
        "droppedNoRoute",
        "inboundBytes",
        "inboundPackets",
        "outboundBytes",
        "outboundPackets",
    )
    droppedNoPath: int
    droppedNoRoute: int
    inboundBytes: int
    inboundPackets: int
    outboundBytes: int
    outboundPackets: int


class Transmit(Protocol):
    """Takes messages to a peer, by whatever path leads there now."""

    def __call__(self, peer: bytes, messages: Sequence[Sealed]) -> bool:
        """Send; tell whether there was a path at all."""


class DataPath:
    """
    Joins stack, filter, routes and tunnel; does no I/O of its own.

    @ivar lastActive: when a packet was carried last, in seconds of C{now}.
    @ivar capture: called with a direction and a list of IP packets while it
        is set; C{None} costs one comparison a batch.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        now: Callable[[], float],
        stack: Stack,
        forwardStack: Stack,
        tunnel: TunnelTable,
        packetFilter: PacketFilter,
        transmit: Transmit,
        reply: Callable[[Place, Sequence[Sealed]], object],
        onHeard: Callable[[Place, list[bytes]], object],
        onTSMP: Callable[[bytes, bytes], list[bytes]],
    ) -> None:
        """
        @param now: the time in seconds, which never goes backwards.
        @param stack: takes packets to this node.
        @param forwardStack: takes those to others, see L{setForwarding}.
        @param transmit: takes messages to a peer, named by its raw node key.
        @param reply: takes messages to where some came from.
        @param onHeard: told where authentic messages of which peers came from.
        @param onTSMP: given a peer's key and its TSMP packet, returns the
            packets to answer with.
        """
        self._reactor = reactor
        self._now = now
        self._stack = stack
        self._forwardStack = forwardStack
        self._stacks: tuple[Stack, ...] = (stack,)
        self._forwards = False
        self._tunnel = tunnel
        self._filter = packetFilter
        self._routes: RouteTable[bytes] = RouteTable()
        self._masquerades: dict[bytes, Masquerade] = {}
        self._transmit = transmit
        self._reply = reply
        self._onHeard = onHeard
        self._onTSMP = onTSMP
        self._timer = DeadlineTimer(reactor, self._tick)
        self._scheduled: IDelayedCall | None = None
        self._flushing = False
        self._running = False
        self.capture: Callable[[int, list[bytes]], object] | None = None
        self.counters = DataPathCounters()
        self.lastActive: float | None = None

    # -- life -------------------------------------------------------------------

    def start(self) -> None:
        """Begin to move packets."""
        self._running = True
        self.flush()

    def stop(self) -> None:
        """Move nothing any more; no delayed call remains."""
        self._running = False
        self._timer.cancel()
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None

    def setRoutes(self, routes: RouteTable[bytes]) -> None:
        """Send packets by this table, from addresses to raw node keys."""
        self._routes = routes

    def setMasquerades(self, masquerades: dict[bytes, Masquerade]) -> None:
        """
        Appear to some peers with another address than our own.

        @param masquerades: by raw node keys; nearly always empty.
        """
        self._masquerades = masquerades

    def setForwarding(self, forwards: bool) -> None:
        """
        Say whether packets to others are taken in, now that the filter passes
        them.
        """
        self._forwards = forwards
        if forwards and len(self._stacks) == 1:
            # For the rest of the run: flows end after their route has gone.
            self._stacks = (self._stack, self._forwardStack)

    def cutForbidden(self) -> None:
        """Other rules are in force: end the flows of peers that they forbid."""
        mayBegin = self._filter.mayBegin

        def isAllowed(remote: bytes, local: bytes, port: int) -> bool:
            return mayBegin(_IPPROTO_TCP, remote, local, port)

        count = sum(stack.cutFlows(isAllowed) for stack in self._stacks)
        if count:
            _log.info("{count} connections of peers were cut by new rules", count=count)
        self.flush()

    # -- inbound ------------------------------------------------------------------

    def receive(
        self, source: bytes, messages: Sequence[Received], place: Place
    ) -> None:
        """
        Take WireGuard messages as they came from the real network.

        @param source: what to tell floods from one place by: the relayed
            sender's node key, or a packed address and port.
        @param place: where they came from.
        """
        if not self._running:
            return
        now = self._now()
        received = self._tunnel.receive(messages, source, now)
        if received.heard:
            self._onHeard(place, received.heard)
        for peer, replies in received.replies:
            self._send(peer, replies)
        if received.toSource:
            self._reply(place, received.toSource)
        for peer, packets in received.packets:
            self._inbound(peer, packets, now)
        self._settle(now)
        # Once they are answered: who waits for the answer does not wait for this.
        counters = self.counters
        for _, packets in received.packets:
            counters.inboundPackets += countOf(packets)
            counters.inboundBytes += sum(map(len, packets))

    def _inbound(self, peer: bytes, packets: Sequence[Arrived], now: float) -> None:
        self.lastActive = now
        if self._masquerades:
            masquerade = self._masquerades.get(peer)
            if masquerade is not None:
                packets = [*masquerade.inbound(packetsOf(packets))]
        if self.capture is not None:
            self.capture(FROM_PEER, packetsOf(packets))
        admitted = self._filter.admit(packets, peer)
        if not admitted:
            return
        for packet in admitted:
            if isinstance(packet, bytes) and _protocolOf(packet) == _IPPROTO_TSMP:
                admitted = self._takeTSMP(peer, admitted, now)
                break
        if self._forwards:
            admitted = self._takeForwarded(admitted, now)
        if admitted:
            self._stack.receive(admitted, now)

    def _takeForwarded(self, packets: Sequence[Arrived], now: float) -> list[Arrived]:
        """Hand on what is not for this node; return what is."""
        addresses = self._stack.addresses
        own: list[Arrived] = []
        others: list[Arrived] = []
        for packet in packets:
            head = packet.head if isinstance(packet, ArrivedRun) else packet
            where = head[16:20] if head[0] >> 4 == 4 else head[24:40]
            (own if where in addresses else others).append(packet)
        if others:
            self._forwardStack.receive(others, now)
        return own

    def _takeTSMP(
        self, peer: bytes, packets: Sequence[Arrived], now: float
    ) -> list[Arrived]:
        """Answer TSMP messages; return the packets that are none."""
        others: list[Arrived] = []
        answers: list[Outgoing] = []
        for packet in packets:
            if isinstance(packet, bytes) and _protocolOf(packet) == _IPPROTO_TSMP:
                answers += self._onTSMP(peer, packet)
            else:
                others.append(packet)
        if answers:
            self.sendPackets(peer, answers, now)
        return others

    # -- outbound -------------------------------------------------------------------

    def flush(self) -> None:
        """
        Send what the stack has to send: at the end of this batch if one is being
        handled, else once the reactor has dealt with what is ready.
        """
        if self._running and self._scheduled is None and not self._flushing:
            self._scheduled = self._reactor.callLater(0, self._flushNow)

    def _flushNow(self) -> None:
        self._scheduled = None
        self._settle(self._now())

    def sendPackets(self, peer: bytes, packets: Sequence[Outgoing], now: float) -> None:
        """Seal packets for one peer and send them."""
        if self._masquerades:
            masquerade = self._masquerades.get(peer)
            if masquerade is not None:
                packets = [*masquerade.outbound(packetsOf(packets))]
        self._send(peer, self._tunnel.send(peer, packets, now))

    def _outbound(self, stack: Stack, packets: Sequence[Outgoing], now: float) -> None:
        if self.capture is not None:
            self.capture(FROM_LOCAL, packetsOf(packets))
        counters = self.counters
        lookup = self._routes.lookup
        self.lastActive = now
        batches: dict[bytes, list[Outgoing]] = {}
        refused: list[Arrived] = []
        if stack is self._stack:
            # What is forwarded begins nothing, it only answers.
            packets = self._filter.noteOutbound(packets)
        for packet in packets:
            if isinstance(packet, SegmentRun):
                peer = lookup(packet.destination)
            else:
                version = packet[0] >> 4
                peer = lookup(packet[16:20] if version == 4 else packet[24:40])
            if peer is None:
                counters.droppedNoRoute += 1
                if isinstance(packet, SegmentRun):
                    counters.droppedNoRoute += packet.count - 1
                    packet = packet.packets()[0]
                unreachable = buildNoRoute(packet)
                if unreachable is not None:
                    refused.append(unreachable)
                continue
            batch = batches.get(peer)
            if batch is None:
                batches[peer] = [packet]
            else:
                batch.append(packet)
        if refused:
            # The stack is told at once, instead of retrying into the void.
            stack.receive(refused, now)
        for peer, batch in batches.items():
            self.sendPackets(peer, batch, now)
            # Once they are on their way: who waits for them waits less.
            counters.outboundPackets += countOf(batch)
            counters.outboundBytes += sum(map(len, batch))

    def _send(self, peer: bytes, messages: Sequence[Sealed]) -> None:
        if messages and not self._transmit(peer, messages):
            self.counters.droppedNoPath += countOf(messages)

    # -- the turn ---------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """Let applications and stack talk until both are quiet, then sleep."""
        if self._flushing or not self._running:
            return
        self._flushing = True
        try:
            for _ in range(_MOST_ROUNDS):
                spoke = False
                for stack in self._stacks:
                    for ready in stack.takeReady():
                        owner = ready.owner
                        if owner is not None:
                            self._tell(owner)
                    if not self._running:
                        return
                    packets = stack.drainRuns(now)
                    if packets:
                        spoke = True
                        self._outbound(stack, packets, now)
                if not spoke:
                    break
            else:
                self._scheduled = self._scheduled or self._reactor.callLater(
                    0, self._flushNow
                )
        finally:
            self._flushing = False
        self._arm(now)

    def _tell(self, owner: object) -> None:
        """
        Tell the owner of a stack object that it has news.

        Owners guard the code of users; this guards the data path against a
        mistake in an owner.
        """
        try:
            owner.stackReady()  # type: ignore[attr-defined]  # every owner is a Reactive; checked where owners are set
        except Exception:
            _log.failure("{owner!r} failed", owner=owner)

    def _arm(self, now: float) -> None:
        timer = self._timer
        for stack in self._stacks:
            timer.arm(stack.deadline(), now)
        timer.arm(self._tunnel.deadline(), now)

    def _tick(self) -> None:
        """A deadline of the stack or of the tunnel has come."""
        if not self._running:
            return
        now = self._now()
        self.sendAll(self._tunnel.tick(now))
        for stack in self._stacks:
            stack.tick(now)
        self._settle(now)

    def sendAll(self, batches: Iterable[tuple[bytes, list[Sealed]]]) -> None:
        """Send messages to several peers."""
        for peer, messages in batches:
            self._send(peer, messages)

    def doubtSessions(self) -> None:
        """This machine slept: see L{TunnelTable.doubtSessions}."""
        self._tunnel.doubtSessions(self._now())
        self.rearm()

    def rearm(self) -> None:
        """Something gave the tunnel or the stack new deadlines."""
        if self._running:
            self._arm(self._now())


def _protocolOf(packet: bytes) -> int:
    """The protocol number, or next header, of an IP packet."""
    return packet[9] if packet[0] >> 4 == 4 else packet[6]

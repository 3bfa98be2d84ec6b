"""
Two TCP flows on a simulated wire, in simulated time.

A L{Link} is one direction with delay, loss, duplication, reordering and a
bottleneck, all seeded.  A L{Pair} runs two flows over two links until nothing
is left to do, and checks on the way what must hold of every packet.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

from tsrt.dataplane.runs import packetsOf
from tsrt.netstack import tcpstate
from tsrt.netstack.flow import TCPFlow, TCPOptions
from tsrt.wire.checksum import verifyTransport
from tsrt.wire.ip import PROTOCOL_TCP, parseIP
from tsrt.wire.tcp import ACK, RST, SYN, Segment, parseTCP

CLIENT = (bytes((100, 64, 0, 1)), 40000)
SERVER = (bytes((100, 64, 0, 2)), 80)
CLIENT6 = (bytes.fromhex("fd7a115ca1e0") + bytes(9) + b"\x01", 40000)
SERVER6 = (bytes.fromhex("fd7a115ca1e0") + bytes(9) + b"\x02", 80)


class WireFault(AssertionError):
    """A flow did something that it must never do."""


def parse(packet: bytes) -> Segment:
    """The segment of a whole IP packet, its checksum checked."""
    header = parseIP(packet)
    if not verifyTransport(
        packet,
        header.addresses,
        header.addressesEnd,
        header.start,
        header.end,
        PROTOCOL_TCP,
    ):
        raise WireFault("wrong checksum")
    return parseTCP(packet, header.start, header.end)


class Link:
    """
    One direction of a wire.

    @ivar carried: packets that were handed in.
    @ivar dropped: packets that did not come out.
    """

    def __init__(
        self,
        seed: int = 0,
        delay: float = 0.02,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        mtu: int = 1280,
        rate: float | None = None,
        queue: int = 100,
        drop: Callable[[int, Segment], bool] | None = None,
    ) -> None:
        """
        @param loss: probability that a packet vanishes; likewise
            C{duplicate} and C{reorder} (held back for up to three delays).
        @param rate: bytes a second of a bottleneck; L{None} for none.
        @param queue: packets that fit in front of the bottleneck.
        @param drop: decides by number and content whether a packet vanishes.
        """
        self.random = random.Random(seed)
        self.delay = delay
        self.loss = loss
        self.duplicate = duplicate
        self.reorder = reorder
        self.mtu = mtu
        self.rate = rate
        self.queue = queue
        self.drop = drop
        self.carried = 0
        self.dropped = 0
        self.tooBig = 0
        self._free = 0.0

    def transit(self, packet: bytes, now: float) -> list[float]:
        """When the copies of C{packet} arrive; empty if it is lost."""
        number = self.carried
        self.carried += 1
        if self.drop is not None and self.drop(number, parse(packet)):
            self.dropped += 1
            return []
        roll = self.random.random
        if roll() < self.loss:
            self.dropped += 1
            return []
        at = now + self.delay
        if self.rate is not None:
            start = max(self._free, now)
            if (start - now) * self.rate > self.queue * self.mtu:
                self.dropped += 1
                return []
            self._free = start + len(packet) / self.rate
            at = self._free + self.delay
        if self.reorder and roll() < self.reorder:
            at += self.delay * 3 * roll()
        arrivals = [at]
        if self.duplicate and roll() < self.duplicate:
            arrivals.append(at + self.delay * roll())
        return arrivals


class Side:
    """
    One flow and a simple application on it.

    @ivar received: everything that was read.
    @ivar reading: whether the application reads at all.
    @ivar marks: all marks seen, in order.
    @ivar sent: every segment that the flow sent, with its time.
    """

    def __init__(self, name: str, mtu: int) -> None:
        self.name = name
        self.mtu = mtu
        self.peerMSS: int | None = None
        self.flow: TCPFlow | None = None
        self.received = bytearray()
        self.reading = True
        self.readLimit: int | None = None
        self.marks: list[int] = []
        self.sent: list[tuple[float, Segment]] = []
        self.highWater = 256 * 1024
        self._toSend = memoryview(b"")
        self._finish = False

    def send(self, data: bytes, finish: bool = False) -> None:
        """Write C{data} as the flow takes it, then perhaps finish."""
        self._toSend = memoryview(bytes(self._toSend) + data)
        self._finish = finish
        self.pump()

    def pump(self) -> None:
        """Let the application read and write."""
        flow = self.flow
        if flow is None:
            return
        room = self.highWater - flow.queued
        if len(self._toSend) and room > self.highWater // 2:
            flow.write(self._toSend[:room])
            self._toSend = self._toSend[room:]
        if self._finish and not len(self._toSend):
            self._finish = False
            flow.shutdownWrite()
        if flow.takeReady():
            self.marks.append(flow.takeMarks())
        if self.reading and flow.readable:
            self.received += flow.read(self.readLimit)

    def count(self, mark: int) -> int:
        """How often a mark was given."""
        return sum(1 for marks in self.marks if marks & mark)


class Pair:
    """
    A client and a server flow, the links between them, and the time.

    @ivar there: the link from the client to the server.
    @ivar back: the link from the server to the client.
    """

    def __init__(
        self,
        there: Link | None = None,
        back: Link | None = None,
        clientOptions: TCPOptions | None = None,
        serverOptions: TCPOptions | None = None,
        mtu: int = 1280,
        serverMTU: int | None = None,
        ipv6: bool = False,
        clientISS: int = 0xFFFFF000,
        serverISS: int = 0x7FFFFF00,
        start: float = 1000.0,
        icmp: bool = True,
    ) -> None:
        """
        @param icmp: whether a flow is told of packets too big for the link.
        """
        self.there = there or Link(1)
        self.back = back or Link(2)
        self.now = start
        self.icmp = icmp
        self.client = Side("client", mtu)
        self.server = Side("server", serverMTU or mtu)
        self.serverOptions = serverOptions or TCPOptions()
        self.serverISS = serverISS
        self.ends = (CLIENT6, SERVER6) if ipv6 else (CLIENT, SERVER)
        self.listening = True
        self._events: list[tuple[float, int, Side, bytes]] = []
        self._serial = itertools.count()
        (address, port), (remote, remotePort) = self.ends
        self.client.flow = TCPFlow.connect(
            address,
            port,
            remote,
            remotePort,
            iss=clientISS,
            now=start,
            mtu=mtu,
            options=clientOptions or TCPOptions(),
        )

    @property
    def a(self) -> TCPFlow:
        """The client's flow."""
        assert self.client.flow is not None
        return self.client.flow

    @property
    def b(self) -> TCPFlow:
        """The server's flow."""
        assert self.server.flow is not None
        return self.server.flow

    # -- running -------------------------------------------------------------

    def establish(self) -> Pair:
        """Run until both sides are established; fails if they are not."""
        self.run(
            stop=lambda: (
                self.a.established
                and self.server.flow is not None
                and self.b.established
            )
        )
        if not (self.a.established and self.b.established):
            raise WireFault("not established")
        return self

    def settle(self) -> None:
        """Let the applications act and the flows send what they have."""
        for side in (self.client, self.server):
            side.pump()
        for side in (self.client, self.server):
            self._drain(side)

    def run(
        self,
        until: float | None = None,
        stop: Callable[[], bool] | None = None,
        steps: int = 400_000,
    ) -> None:
        """
        Run until nothing is left to do, a time has come or C{stop} holds.

        @param until: seconds from now.
        """
        end = None if until is None else self.now + until
        for _ in range(steps):
            self.settle()
            if stop is not None and stop():
                return
            following = self._following()
            if following is None or (end is not None and following > end):
                if end is not None:
                    self.now = max(self.now, end)
                return
            self.now = max(self.now, following)
            self._step()
        raise WireFault("no end in sight")

    def _following(self) -> float | None:
        times = [event[0] for event in self._events[:1]]
        for side in (self.client, self.server):
            if side.flow is not None:
                deadline = side.flow.deadline()
                if deadline is not None:
                    times.append(deadline)
        return min(times) if times else None

    def _step(self) -> None:
        batches: dict[str, tuple[Side, list[bytes]]] = {}
        while self._events and self._events[0][0] <= self.now:
            _, _, side, packet = heapq.heappop(self._events)
            batches.setdefault(side.name, (side, []))[1].append(packet)
        for side, packets in batches.values():
            self._deliver(side, packets)
        for side in (self.client, self.server):
            flow = side.flow
            if flow is None:
                continue
            deadline = flow.deadline()
            if deadline is not None and deadline <= self.now:
                flow.tick(self.now)
                side.pump()
                self._drain(side)
                deadline = flow.deadline()
                if deadline is not None and deadline <= self.now:
                    raise WireFault(f"{side.name} would spin")

    def _deliver(self, side: Side, packets: list[bytes]) -> None:
        segments = [parse(packet) for packet in packets]
        if side.flow is None and side is self.server and self.listening:
            while segments and segments[0].flags & (SYN | ACK | RST) != SYN:
                segments.pop(0)
            if not segments:
                return
            (address, _), (local, _) = self.ends
            side.flow = TCPFlow.fromSYN(
                segments.pop(0),
                local,
                address,
                iss=self.serverISS,
                now=self.now,
                mtu=side.mtu,
                options=self.serverOptions,
            )
        if side.flow is not None and segments:
            side.flow.process(segments, self.now)

    def _drain(self, side: Side) -> None:
        flow = side.flow
        if flow is None:
            return
        for _ in range(1000):
            if not flow.wantsDispatch:
                return
            for packet in packetsOf(flow.dispatch(self.now)):
                self._send(side, packet)
        raise WireFault(f"{side.name} sends without end")

    def _send(self, side: Side, packet: bytes) -> None:
        segment = parse(packet)
        self.check(side, packet, segment)
        side.sent.append((self.now, segment))
        other = self.server if side is self.client else self.client
        link = self.there if side is self.client else self.back
        if len(packet) > link.mtu:
            link.tooBig += 1
            if self.icmp and side.flow is not None and side.flow.quotes(segment.seq):
                side.flow.reducePathMTU(link.mtu, self.now)
            return
        for at in link.transit(packet, self.now):
            heapq.heappush(self._events, (at, next(self._serial), other, packet))

    def check(self, side: Side, packet: bytes, segment: Segment) -> None:
        """What must hold of every packet."""
        if len(packet) > side.mtu:
            raise WireFault("packet larger than the MTU")
        if segment.flags & SYN:
            other = self.server if side is self.client else self.client
            other.peerMSS = segment.options.mss
        elif side.peerMSS is not None:
            overhead = 60 if len(self.ends[0][0]) == 16 else 40
            if len(packet) - overhead > side.peerMSS:
                raise WireFault("segment larger than the peer's MSS")

    def inject(self, side: Side, packet: bytes) -> None:
        """Give a packet to one side at once, as if it came from the other."""
        self._deliver(side, [packet])
        self.settle()

    def closed(self) -> bool:
        """Whether both flows are over."""
        return (
            self.a.closeReason is not None
            and self.server.flow is not None
            and self.b.closeReason is not None
        )


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ everywhere, so that misplaced ones are noticed."""
    return random.Random(seed).randbytes(size)


__all__ = [
    "CLIENT",
    "SERVER",
    "Link",
    "Pair",
    "Side",
    "WireFault",
    "parse",
    "pattern",
    "tcpstate",
]

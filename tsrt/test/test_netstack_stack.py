"""Tests of whole stacks: two of them on a bad link, and one on its own."""

from __future__ import annotations

import heapq
import os
import random
import tracemalloc
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.dataplane.runs import SegmentRun
from tsrt.errors import NoFreePort, PortInUse
from tsrt.netstack import ingress as ingressModule
from tsrt.netstack import stack as stackModule
from tsrt.netstack.flow import CloseReason, TCPFlow, TCPState
from tsrt.netstack.limits import DEFAULT_LIMITS, StackLimits
from tsrt.netstack.listen import Listener
from tsrt.netstack.ports import AddressNotAvailable
from tsrt.netstack.stack import Stack
from tsrt.test.test_wire_checksum import naiveChecksum
from tsrt.wire.ip import IPHeader, buildPackets, parseIP
from tsrt.wire.tcp import ACK, FIN, PSH, RST, SYN, Segment, SegmentBuilder, parseTCP

A4, B4, C4 = (bytes((100, 64, 0, n)) for n in (1, 2, 3))
A6, B6, C6 = (bytes.fromhex("fd7a115ca1e0") + bytes(9) + bytes((n,)) for n in (1, 2, 3))
FAMILIES = ((A4, B4), (A6, B6))


def makeStack(*addresses: bytes, seed: int = 1, **options: object) -> Stack:
    """A stack whose randomness repeats."""
    stack = Stack(
        randbytes=random.Random(seed).randbytes,
        **options,  # type: ignore[arg-type]  # as a test gives them
    )
    stack.setAddresses(list(addresses))
    return stack


def readSegment(packet: bytes) -> Segment:
    """The TCP segment of a whole packet."""
    header = parseIP(packet)
    return parseTCP(packet, header.start, header.end)


class Network:
    """
    Two stacks with a link between them, and a clock that nobody waits for.

    Applications are callables that get each object that is ready.
    """

    def __init__(
        self,
        loss: float = 0.0,
        delay: float = 0.01,
        jitter: float = 0.0,
        repeat: float = 0.0,
        seed: int = 1,
        **options: object,
    ) -> None:
        self.a = makeStack(A4, A6, seed=seed, **options)
        self.b = makeStack(B4, B6, seed=seed + 1, **options)
        self.now = 1000.0
        self.apps: dict[Stack, Callable[[object], None]] = {}
        self.seen: list[bytes] = []
        self._loss, self._delay = loss, delay
        self._jitter, self._repeat = jitter, repeat
        self._random = random.Random(seed + 2)
        self._serial = 0
        self._queue: list[tuple[float, int, Stack, bytes]] = []

    def _send(self, packet: bytes, to: Stack) -> None:
        self.seen.append(packet)
        chance = self._random.random
        for _ in range(2 if chance() < self._repeat else 1):
            if chance() >= self._loss:
                self._serial += 1
                when = self.now + self._delay + self._jitter * chance()
                heapq.heappush(self._queue, (when, self._serial, to, packet))

    def settle(self) -> None:
        """Let both stacks and their applications do what they can do now."""
        for stack, other in ((self.a, self.b), (self.b, self.a)):
            for _ in range(100):
                ready = stack.takeReady()
                app = self.apps.get(stack)
                if app is not None:
                    for item in ready:
                        app(item)
                packets = stack.drain(self.now)
                for packet in packets:
                    if len(packet) > stack.mtu:
                        raise AssertionError("a packet larger than the MTU")
                    self._send(packet, other)
                if not packets and not ready:
                    break

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """
        Let time pass.

        @return: whether C{until} came true.
        """
        end = self.now + seconds
        self.settle()
        while until is None or not until():
            due = [d for s in (self.a, self.b) if (d := s.deadline()) is not None]
            if self._queue:
                due.append(self._queue[0][0])
            when = min(due, default=end)
            if when > end:
                self.now = end
                return False
            if not due:
                self.now = end
                return until is None
            self.now = max(self.now, when)
            arrived: dict[Stack, list[bytes]] = {}
            while self._queue and self._queue[0][0] <= self.now:
                _, _, stack, packet = heapq.heappop(self._queue)
                arrived.setdefault(stack, []).append(packet)
            for stack, packets in arrived.items():
                stack.receive(packets, self.now)
            for stack in (self.a, self.b):
                stack.tick(self.now)
            self.settle()
        return True

    def connected(
        self, ends: tuple[bytes, bytes] = (A4, B4), port: int = 80
    ) -> tuple[TCPFlow, TCPFlow]:
        """A flow from the first stack to the second, seen from both."""
        listener = self.b.listenTCP(port, self.now)
        client = self.a.connectTCP(ends[1], port, self.now)
        if not self.run(30.0, lambda: listener.waiting > 0):
            raise AssertionError("no connection")
        server = listener.accept()
        assert server is not None
        self.run(1.0, lambda: client.established)
        listener.close(self.now)
        return client, server


class Echoer:
    """An application that sends back what it reads, and ends when its peer does."""

    def __init__(self) -> None:
        self.accepted = 0

    def __call__(self, item: object) -> None:
        if isinstance(item, Listener):
            while (flow := item.accept()) is not None:
                self.accepted += 1
                self(flow)
        elif isinstance(item, TCPFlow):
            item.write(item.read())
            if item.eof:
                item.shutdownWrite()


class Client:
    """An application that sends a text and collects the answer."""

    def __init__(self, flow: TCPFlow, text: bytes) -> None:
        self.flow = flow
        self.got = b""
        flow.write(text)
        flow.shutdownWrite()

    def __call__(self, item: object) -> None:
        if item is self.flow:
            self.got += self.flow.read()


class LinkTests(SynchronousTestCase):
    """Streams through two stacks."""

    def echo(self, network: Network, ends: tuple[bytes, bytes], size: int) -> None:
        """Have a text of C{size} echoed and both flows closed."""
        server = Echoer()
        network.apps[network.b] = server
        listener = network.b.listenTCP(7, network.now)
        text = random.Random(size).randbytes(size)
        client = Client(network.a.connectTCP(ends[1], 7, network.now), text)
        network.apps[network.a] = client
        flow = client.flow
        self.assertTrue(
            network.run(600.0, lambda: flow.eof and flow.closeReason is not None)
        )
        self.assertEqual(client.got, text)
        self.assertIs(flow.closeReason, CloseReason.DONE)
        self.assertEqual(server.accepted, 1)
        network.run(120.0)
        self.assertEqual((network.a.flows(), network.b.flows()), ([], []))
        listener.close(network.now)
        self.assertIsNone(network.a.deadline())
        self.assertIsNone(network.b.deadline())

    def test_echo(self) -> None:
        """Text goes there and back unharmed, over IPv4 and IPv6."""
        for ends in FAMILIES:
            self.echo(Network(), ends, 100_000)

    def test_echoOnBadLink(self) -> None:
        """The same with loss, reordering and repetition."""
        for seed, ends in enumerate(FAMILIES):
            network = Network(loss=0.1, jitter=0.02, repeat=0.05, seed=seed)
            self.echo(network, ends, 60_000)

    def test_emptyStream(self) -> None:
        """A flow that carries nothing closes as well."""
        self.echo(Network(), FAMILIES[0], 0)

    def test_manyFlows(self) -> None:
        """Fifty flows at once do not disturb each other."""
        network = Network(loss=0.02, jitter=0.005)
        network.apps[network.b] = Echoer()
        network.b.listenTCP(7, network.now, backlog=50)
        clients = {}
        for n in range(50):
            flow = network.a.connectTCP(FAMILIES[n % 2][1], 7, network.now)
            clients[flow] = Client(flow, bytes((n,)) * (1000 + 97 * n))
        network.apps[network.a] = lambda item: (
            clients[item](item) if isinstance(item, TCPFlow) else None
        )
        self.assertTrue(network.run(300.0, lambda: all(flow.eof for flow in clients)))
        for n, client in enumerate(clients.values()):
            self.assertEqual(client.got, bytes((n,)) * (1000 + 97 * n))

    def test_T_mtu_segments(self) -> None:
        """Segments fill 1280 bytes and the SYN says which payload fits."""
        for ends, mss in zip(FAMILIES, (1240, 1220), strict=True):
            network = Network()
            client, _ = network.connected(ends)
            client.write(bytes(50_000))
            network.run(5.0)
            syn = readSegment(network.seen[0])
            self.assertEqual((syn.flags, syn.options.mss), (SYN, mss))
            self.assertEqual(max(map(len, network.seen)), 1280)

    def test_T_mtu_everything(self) -> None:
        """Neither datagrams nor pings leave in larger packets."""
        network = Network()
        for _, remote in FAMILIES:
            network.a.bindUDP(0).send(bytes(60_000), remote, 9, network.now)
            network.a.ping(remote, bytes(9_000), network.now)
        network.run(1.0)
        self.assertEqual(max(map(len, network.seen)), 1280)

    def test_batchIsAnsweredOnce(self) -> None:
        """Segments that come in one batch get one acknowledgement."""
        network = Network()
        client, server = network.connected()
        client.write(bytes(12_000))
        packets = network.a.drain(network.now)
        self.assertEqual(len(packets), 10)
        network.b.receive(packets, network.now)
        self.assertEqual(server.readable, 12_000)
        self.assertEqual(len(network.b.drain(network.now)), 1)

    def test_interleavedFlows(self) -> None:
        """Segments of two flows in one batch make one batch for each flow."""
        network = Network()
        pairs = [network.connected(port=port) for port in (80, 81)]
        runs = []
        for client, _ in pairs:
            client.write(bytes(6_000))
            runs.append(network.a.drain(network.now))
        batches = []
        process = TCPFlow.process

        def note(flow: TCPFlow, segments: list[Segment], now: float) -> None:
            batches.append(len(segments))
            process(flow, segments, now)

        self.patch(TCPFlow, "process", note)
        network.b.receive([p for two in zip(*runs, strict=True) for p in two], 1001.0)
        self.assertEqual(batches, [5, 5])
        self.assertEqual([server.readable for _, server in pairs], [6_000] * 2)

    def test_damageInARun(self) -> None:
        """Of a run of like segments only the damaged ones are dropped."""
        for ends in FAMILIES:
            network = Network()
            client, server = network.connected(ends)
            client.write(bytes(range(250)) * 40)
            packets = network.a.drain(network.now)
            start = readSegment(packets[3]).start
            for at in (start + 100, start - 16, start - 4):
                damaged = bytearray(packets[3])
                damaged[at] ^= 0x40
                network.b.receive([*packets[:3], bytes(damaged)], network.now)
            self.assertEqual(network.b.counters.droppedChecksum, 3)
            network.b.receive([packets[3][:-1]], network.now)
            self.assertEqual(network.b.counters.droppedMalformed, 1)
            network.b.receive(packets[2:], network.now)
            self.assertEqual(server.read(), bytes(range(250)) * 40)

    def test_runWithIdentifications(self) -> None:
        """A run whose packets are numbered goes the short way, damage does not."""
        network = Network()
        client, server = network.connected()
        client.write(bytes(range(250)) * 49)
        packets = [
            numbered(packet, 65530 + n)
            for n, packet in enumerate(network.a.drain(network.now))
        ]
        self.assertEqual(len(packets), 10)
        parsed = []

        def note(packet: bytes) -> IPHeader:
            parsed.append(packet)
            return parseIP(packet)

        self.patch(ingressModule, "parseIP", note)
        for at in (1, 3, 5, 8, 11, 13):
            damaged = bytearray(packets[1])
            damaged[at] ^= 0x01
            network.b.receive([packets[0], bytes(damaged)], network.now)
        dropped = network.b.counters.droppedMalformed
        self.assertEqual((dropped, len(parsed)), (6, 12))
        parsed.clear()
        network.b.receive(packets, network.now)
        # The last one is shorter.
        self.assertEqual(parsed, [packets[0], packets[-1]])
        self.assertEqual(server.read(), bytes(range(250)) * 49)

    def test_readyOnce(self) -> None:
        """An object is ready once, however much happened to it."""
        network = Network()
        client, server = network.connected()
        network.b.takeReady()
        for _ in range(3):
            client.write(b"x")
            network.b.receive(network.a.drain(network.now), network.now)
        self.assertEqual(network.b.takeReady(), [server])
        self.assertEqual(network.b.takeReady(), [])

    def test_drainVisitsOnlyWhoAsked(self) -> None:
        """Among many idle flows a drain looks at the one that wrote."""
        network = Network()
        network.apps[network.b] = Echoer()
        network.b.listenTCP(7, network.now, backlog=200)
        flows = [network.a.connectTCP(B4, 7, network.now) for _ in range(100)]
        network.run(5.0)
        self.assertTrue(all(flow.established for flow in flows))
        visited = []
        dispatch = TCPFlow.dispatch

        def note(flow: TCPFlow, now: float, mustWait: bool) -> list[bytes]:
            visited.append(flow)
            return dispatch(flow, now, mustWait=mustWait)

        self.patch(TCPFlow, "dispatch", note)
        flows[17].write(b"hello")
        self.assertEqual(len(network.a.drain(network.now)), 1)
        self.assertEqual(visited, [flows[17]])

    def test_T_memory_idleFlows(self) -> None:
        """An idle connection takes kilobytes, not half a megabyte."""
        network = Network()
        network.b.listenTCP(7, network.now, backlog=300)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            network.a.connectTCP(B4, 7, network.now)
            network.run(0.05)
        network.seen.clear()
        used = tracemalloc.get_traced_memory()[0] - before
        self.assertEqual(len(network.b.flows()), 200)
        self.assertLess(used / 400, 12_000)


class AloneTests(SynchronousTestCase):
    """One stack, and packets made by hand."""

    def setUp(self) -> None:
        self.stack = makeStack(A4, A6)
        self.remote = {
            4: SegmentBuilder(B4, 5000, A4, 80),
            6: SegmentBuilder(B6, 5000, A6, 80),
        }

    def exchange(self, *packets: bytes, now: float = 10.0) -> list[Segment]:
        """Hand packets over and read the segments that come back."""
        self.stack.receive(list(packets), now)
        return [readSegment(packet) for packet in self.stack.drain(now)]

    def assertDropped(self, reason: str, *packets: bytes) -> None:
        """Each of the packets is dropped for that reason and not answered."""
        before = getattr(self.stack.counters, reason)
        self.assertEqual(self.exchange(*packets), [])
        self.assertEqual(
            getattr(self.stack.counters, reason) - before, len(packets), reason
        )

    def test_resetForAck(self) -> None:
        """A stray acknowledgement gets a reset at the position it expects."""
        for builder in self.remote.values():
            (reset,) = self.exchange(builder.build(77, 4242, ACK, 9, b"", b"data"))
            self.assertEqual((reset.flags, reset.seq, reset.ack), (RST, 4242, 0))
            self.assertEqual((reset.sourcePort, reset.destinationPort), (80, 5000))

    def test_resetForSyn(self) -> None:
        """A SYN to a closed port gets a reset that acknowledges all of it."""
        for flags, payload, ack in (
            (SYN, b"", 78),
            (SYN | FIN, b"", 79),
            (SYN, b"four", 82),
            (FIN, b"", 78),
        ):
            (reset,) = self.exchange(
                self.remote[4].build(77, 0, flags, 9, b"", payload)
            )
            self.assertEqual((reset.flags, reset.seq, reset.ack), (RST | ACK, 0, ack))

    def test_noResetForReset(self) -> None:
        """A reset is never answered."""
        for flags in (RST, RST | ACK, RST | SYN):
            self.assertDropped("droppedNoFlow", self.remote[4].build(1, 2, flags, 0))

    def test_resetsAreBounded(self) -> None:
        """A flood of strays gets a bounded number of resets."""
        stray = self.remote[4].build(1, 2, ACK, 0)
        self.assertEqual(len(self.exchange(*[stray] * 900)), 500)
        self.assertEqual(self.stack.counters.droppedRateReset, 400)

    def test_notLocal(self) -> None:
        """Packets to other addresses are dropped."""
        for address in (C4, bytes((224, 0, 0, 1)), b"\xff" * 4, bytes(4)):
            builder = SegmentBuilder(B4, 5000, address, 80)
            self.assertDropped("droppedNotLocal", builder.build(1, 0, SYN, 9))
        builder = SegmentBuilder(B6, 5000, C6, 80)
        self.assertDropped("droppedNotLocal", builder.build(1, 0, SYN, 9))

    def test_badSource(self) -> None:
        """Packets that claim to come from us or from nobody are dropped."""
        self.stack.listenTCP(80)
        for address in (A4, bytes(4), bytes((127, 0, 0, 1)), bytes((230, 0, 0, 1))):
            builder = SegmentBuilder(address, 80, A4, 80)
            self.assertDropped("droppedBadSource", builder.build(1, 0, SYN, 9))
        for address in (A6, bytes(16), bytes(15) + b"\1", b"\xff\x02" + bytes(14)):
            builder = SegmentBuilder(address, 80, A6, 80)
            self.assertDropped("droppedBadSource", builder.build(1, 0, SYN, 9))

    def test_malformed(self) -> None:
        """Malformed packets are dropped."""
        good = self.remote[4].build(1, 0, SYN, 9)
        short = buildPackets(B4, A4, 6, bytes(19), 1280, 0)[0]
        noPort = SegmentBuilder(B4, 0, A4, 80).build(1, 0, SYN, 9)
        self.assertDropped("droppedMalformed", b"", b"\x45", good[:30], short, noPort)

    def test_wrongChecksum(self) -> None:
        """A segment with a wrong checksum is dropped."""
        for builder in self.remote.values():
            packet = bytearray(builder.build(1, 0, SYN, 9))
            packet[-1] ^= 1
            self.assertDropped("droppedChecksum", bytes(packet))

    def test_tsmpIsIgnored(self) -> None:
        """Protocol 99 is neither answered nor counted as dropped."""
        for ends in ((B4, A4), (B6, A6)):
            (packet,) = buildPackets(*ends, 99, b"!\x06A\0\1\0\2", 1280, 0)
            self.assertEqual(self.exchange(packet), [])
        dropped = {
            name: count
            for name, count in self.stack.counters.snapshot().items()
            if name.startswith("dropped") and count
        }
        self.assertEqual(dropped, {})

    def test_unknownProtocol(self) -> None:
        """Other protocols are dropped, ICMP of the other family as well."""
        for ends, protocol in (((B4, A4), 47), ((B4, A4), 58), ((B6, A6), 1)):
            (packet,) = buildPackets(*ends, protocol, bytes(40), 1280, 0)
            self.assertDropped("droppedProtocol", packet)

    def test_idle(self) -> None:
        """A stack without anything to do wants nothing."""
        self.assertIsNone(self.stack.deadline())
        self.assertEqual(self.stack.drain(5.0), [])
        self.assertEqual(self.stack.takeReady(), [])
        self.stack.tick(6.0)
        self.assertIn("flows=0", repr(self.stack))

    def test_mtuLimits(self) -> None:
        """An MTU that cannot work is refused."""
        for mtu in (575, 65536):
            self.assertRaises(ValueError, makeStack, A4, mtu=mtu)
        self.assertEqual(makeStack(A4, mtu=1500).mtu, 1500)

    def test_segmentWithIPOptions(self) -> None:
        """Options between IP header and segment do not hide the flow."""
        listener = self.stack.listenTCP(80)
        plain = self.remote[4].build(100, 0, SYN, 900)
        (answer,) = self.exchange(plain)
        self.assertEqual(answer.flags, SYN | ACK)
        ack = self.remote[4].build(101, (answer.seq + 1) & 0xFFFFFFFF, ACK, 900)
        self.exchange(withOptions(ack))
        self.assertIsNotNone(listener.accept())

    def test_flowInOneBatch(self) -> None:
        """SYN, data and FIN of a flow may come together with its last ACK."""
        listener = self.stack.listenTCP(80)
        builder = self.remote[4]
        (answer,) = self.exchange(builder.build(100, 0, SYN, 900))
        ack = (answer.seq + 1) & 0xFFFFFFFF
        self.exchange(
            builder.build(101, ack, ACK, 900),
            builder.build(101, ack, ACK | PSH, 900, b"", b"hello"),
            builder.build(106, ack, ACK | FIN, 900),
        )
        flow = listener.accept()
        assert flow is not None
        self.assertEqual((flow.read(), flow.eof), (b"hello", True))

    def test_fragmentedSegment(self) -> None:
        """A segment that comes in fragments is taken, and not twice."""
        listener = self.stack.listenTCP(80)
        syn = self.remote[4].build(100, 0, SYN, 900, b"\1" * 40)
        parts = buildPackets(B4, A4, 6, syn[20:], 44, 9)
        self.assertEqual(len(parts), 3)
        for part in parts[:-1]:
            self.assertEqual(self.exchange(part), [])
        (answer,) = self.exchange(parts[-1])
        self.assertEqual(answer.flags, SYN | ACK)
        self.assertEqual(listener.halfOpen, 1)
        self.assertEqual(self.stack.counters.reassembled, 1)

    def test_fragmentsInFragments(self) -> None:
        """Fragments inside of a reassembled packet are refused."""
        inner = bytes((17, 0, 0, 1)) + bytes(4) + bytes(64)
        parts = buildPackets(B6, A6, 44, inner, 40 + 8 + 40, 1)
        self.assertEqual(len(parts), 2)
        self.exchange(parts[0])
        self.assertDropped("droppedMalformed", parts[1])

    def test_malformedInFragments(self) -> None:
        """What is malformed only when it is put together is dropped then."""
        inner = bytes((17, 1, 0xC2, 0)) + bytes(12) + bytes(64)
        parts = buildPackets(B6, A6, 60, inner, 40 + 8 + 40, 1)
        self.exchange(parts[0])
        self.assertDropped("droppedMalformed", parts[1])

    def test_fragmentTimers(self) -> None:
        """Fragments of which the rest does not come are given up by tick."""
        (first, *_) = buildPackets(B4, A4, 17, bytes(3000), 1280, 1)
        self.stack.receive([first], 10.0)
        self.assertEqual(self.stack.deadline(), 40.0)
        self.stack.tick(40.0)
        self.assertIsNone(self.stack.deadline())
        self.assertEqual(self.stack.counters.droppedFragmentTimeout, 1)

    def test_anyAddress(self) -> None:
        """A router's stack takes connections to addresses that are not its own."""
        self.stack = makeStack(A4, anyAddress=True)
        listener = self.stack.listenTCP(80)
        outside = bytes((192, 0, 2, 7))
        builder = SegmentBuilder(B4, 5000, outside, 80)
        (answer,) = self.exchange(builder.build(100, 0, SYN, 900))
        self.exchange(builder.build(101, (answer.seq + 1) & 0xFFFFFFFF, ACK, 900))
        flow = listener.accept()
        assert flow is not None
        self.assertEqual(flow.localAddress, outside)
        for address in (bytes((224, 0, 0, 5)), bytes((127, 0, 0, 1))):
            builder = SegmentBuilder(B4, 5000, address, 80)
            self.assertDropped("droppedNotLocal", builder.build(1, 0, SYN, 9))


def withOptions(packet: bytes) -> bytes:
    """The same IPv4 packet with four no-operations in its header."""
    header = bytearray(packet[:20] + b"\1" * 4)
    header[0] = 0x46
    header[2:4] = (len(packet) + 4).to_bytes(2, "big")
    header[10:12] = b"\0\0"
    header[10:12] = naiveChecksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + packet[20:]


def numbered(packet: bytes, ident: int) -> bytes:
    """The same IPv4 packet with an identification."""
    header = bytearray(packet[:20])
    header[4:6] = (ident & 0xFFFF).to_bytes(2, "big")
    header[10:12] = b"\0\0"
    header[10:12] = naiveChecksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + packet[20:]


class ConnectTests(SynchronousTestCase):
    """What connecting asks of ports and addresses."""

    def setUp(self) -> None:
        self.stack = makeStack(A4, A6)

    def test_source(self) -> None:
        """A flow comes from the first address of the family, or the given one."""
        self.stack.setAddresses([A4, A6, C4])
        self.assertEqual(self.stack.addresses, (A4, A6, C4))
        self.assertEqual(self.stack.connectTCP(B4, 80, 0.0).localAddress, A4)
        self.assertEqual(self.stack.connectTCP(B6, 80, 0.0).localAddress, A6)
        flow = self.stack.connectTCP(B4, 80, 0.0, localAddress=C4)
        self.assertEqual(flow.localAddress, C4)

    def test_noSource(self) -> None:
        """Without an address of the family, or that very one, nothing opens."""
        bare = makeStack(A4)
        self.assertRaises(AddressNotAvailable, bare.connectTCP, B6, 80, 0.0)
        self.assertRaises(
            AddressNotAvailable, bare.connectTCP, B4, 80, 0.0, localAddress=C4
        )
        self.assertRaises(
            AddressNotAvailable, self.stack.connectTCP, B4, 80, 0.0, localAddress=A6
        )
        self.assertRaises(
            AddressNotAvailable, bare.connectTCP, bytes((224, 0, 0, 1)), 80, 0.0
        )
        self.assertRaises(ValueError, bare.connectTCP, B4, 0, 0.0)
        self.assertRaises(ValueError, bare.connectTCP, B4, 65536, 0.0)

    def test_T_udp0_tcpPortZero(self) -> None:
        """Local port 0 means an ephemeral one, for connecting and listening."""
        flow = self.stack.connectTCP(B4, 80, 0.0)
        self.assertIn(flow.localPort, range(49152, 65536))
        self.assertIn(self.stack.listenTCP(0).port, range(49152, 65536))

    def test_T_ephCollision_liveFlow(self) -> None:
        """The same random number twice does not give the same port twice."""
        stack = Stack(randbytes=bytes)
        stack.setAddresses([A4])
        ports = {stack.connectTCP(B4, 80, 0.0).localPort for _ in range(50)}
        self.assertEqual(len(ports), 50)
        # Another remote end may share a port.
        self.assertIn(stack.connectTCP(B4, 81, 0.0).localPort, ports)

    def test_T_ephCollision_listener(self) -> None:
        """Ports that are listened on are not chosen."""
        stack = Stack(randbytes=bytes)
        stack.setAddresses([A4])
        stack.listenTCP(49152)
        self.assertEqual(stack.connectTCP(B4, 80, 0.0).localPort, 49153)
        self.assertEqual(stack.listenTCP(0).port, 49153)

    def test_explicitPort(self) -> None:
        """A given local port is used, but not twice for the same remote end."""
        flow = self.stack.connectTCP(B4, 80, 0.0, localPort=1234)
        self.assertEqual(flow.localPort, 1234)
        self.assertRaises(PortInUse, self.stack.connectTCP, B4, 80, 0.0, localPort=1234)
        self.stack.connectTCP(B4, 81, 0.0, localPort=1234)

    def test_connectToItself(self) -> None:
        """A port does not talk to itself."""
        self.assertRaises(PortInUse, self.stack.connectTCP, A4, 99, 0.0, localPort=99)
        stack = Stack(randbytes=bytes)
        stack.setAddresses([A4])
        self.assertEqual(stack.connectTCP(A4, 49152, 0.0).localPort, 49153)

    def test_flowLimit(self) -> None:
        """At the limit of flows connecting fails, and works when one ended."""
        stack = makeStack(A4, limits=StackLimits(flows=3))
        flows = [stack.connectTCP(B4, 80, 0.0) for _ in range(3)]
        self.assertRaises(NoFreePort, stack.connectTCP, B4, 80, 0.0)
        self.assertRaises(NoFreePort, stack.connectTCP, B4, 80, 0.5)
        flows[0].abort()
        stack.drain(0.0)
        stack.connectTCP(B4, 80, 0.0)

    def test_manyFlows(self) -> None:
        """
        Ten thousand flows are had without asking for them, at some kilobytes each.
        """
        stack = makeStack(A4)
        stack.connectTCP(B4, 80, 0.0)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        flows = [stack.connectTCP(B4, 80, 0.0) for _ in range(10_000)]
        size, _ = tracemalloc.get_traced_memory()
        self.assertEqual(len(stack.flows()), 10_001)
        self.assertLess(size / len(flows), 6000)
        # Strangers get no more of them than ever.
        self.assertEqual(
            (DEFAULT_LIMITS.halfOpen, DEFAULT_LIMITS.halfOpenPerRemote), (256, 64)
        )

    def test_refused(self) -> None:
        """Connecting to a closed port ends with REFUSED."""
        network = Network()
        flow = network.a.connectTCP(B6, 9, network.now)
        network.run(1.0)
        self.assertIs(flow.closeReason, CloseReason.REFUSED)
        self.assertEqual(network.a.flows(), [])

    def test_silence(self) -> None:
        """Connecting to nobody times out by itself."""
        network = Network(loss=1.0)
        flow = network.a.connectTCP(B4, 9, network.now)
        ready: list[object] = []
        network.apps[network.a] = ready.append
        network.run(300.0)
        self.assertIs(flow.closeReason, CloseReason.TIMEOUT)
        self.assertEqual(ready, [flow])
        self.assertIsNone(network.a.deadline())


class LifeTests(SynchronousTestCase):
    """Flows that end, addresses that go, handles that are stale."""

    def test_T_reap_timeWait(self) -> None:
        """A closed flow lingers for a bounded time and is forgotten."""
        network = Network()
        client, server = network.connected()
        client.shutdownWrite()
        network.run(1.0)
        server.shutdownWrite()
        network.run(1.0)
        self.assertIs(client.state, TCPState.TIME_WAIT)
        self.assertEqual(network.a.flows(), [client])
        network.run(60.0)
        self.assertEqual(network.a.flows(), [])
        self.assertEqual(network.a.counters.flowsRetired, 1)

    def test_addressRemovedWhileLingering(self) -> None:
        """A flow that only lingers is forgotten with its address, timers and all."""
        network = Network()
        client, server = network.connected()
        client.shutdownWrite()
        network.run(1.0)
        server.shutdownWrite()
        network.run(1.0)
        network.a.takeReady()
        self.assertIsNotNone(network.a.deadline())
        network.a.setAddresses([A6])
        self.assertEqual(network.a.flows(), [])
        self.assertIsNone(network.a.deadline())
        self.assertIs(client.closeReason, CloseReason.DONE)

    def test_timeWaitMakesRoom(self) -> None:
        """At the limit of flows those that only linger are given up."""
        network = Network(limits=StackLimits(flows=4))
        for _ in range(8):
            client, server = network.connected()
            client.shutdownWrite()
            network.run(0.1)
            server.shutdownWrite()
            network.run(0.1)
        self.assertLessEqual(len(network.a.flows()), 4)

    def test_timeWaitMakesRoomForMany(self) -> None:
        """
        They are looked for once for many: an eighth of the table goes at a time,
        and in it are none but those that linger.
        """
        network = Network(limits=StackLimits(flows=64))
        listener = network.b.listenTCP(80, network.now)
        lasting = [network.a.connectTCP(B4, 80, network.now) for _ in range(32)]
        network.run(0.5)
        accepted = [listener.accept() for _ in lasting]
        for _ in range(32):
            flow = network.a.connectTCP(B4, 80, network.now)
            network.run(0.1)
            other = listener.accept()
            assert other is not None
            flow.shutdownWrite()
            network.run(0.1)
            other.shutdownWrite()
            network.run(0.1)
        self.assertEqual(len(network.a.flows()), 64)
        network.a.connectTCP(B4, 80, network.now)
        flows = network.a.flows()
        self.assertEqual(len(flows), 64 - 8 + 1)
        for flow, kept in zip(lasting, accepted, strict=True):
            self.assertIn(flow, flows)
            self.assertIsNotNone(kept)

    def test_timeWaitReuse(self) -> None:
        """A new SYN for lingering addresses and ports opens a new flow."""
        network = Network()
        listener = network.b.listenTCP(80, network.now)
        client = network.a.connectTCP(B4, 80, network.now, localPort=4000)
        network.run(1.0)
        first = listener.accept()
        assert first is not None
        first.shutdownWrite()
        network.run(1.0)
        client.shutdownWrite()
        network.run(1.0)
        self.assertIs(first.state, TCPState.TIME_WAIT)
        again = network.a.connectTCP(B4, 80, network.now, localPort=4000)
        network.run(1.0)
        self.assertTrue(again.established)
        second = listener.accept()
        self.assertIsNot(second, first)
        self.assertEqual(network.b.flows(), [second])

    def test_T_handles_staleFlow(self) -> None:
        """Whatever is done with a flow that is over, nothing leaves."""
        network = Network()
        client, server = network.connected()
        server.abort()
        network.run(1.0)
        self.assertIs(client.closeReason, CloseReason.RESET)
        self.assertEqual((network.a.flows(), network.b.flows()), ([], []))
        for flow in (client, server):
            flow.write(b"x")
            flow.shutdownWrite()
            flow.abort()
            self.assertEqual(flow.read(), b"")
        # The ports belong to somebody else now.
        other = network.a.connectTCP(B4, 80, network.now, localPort=client.localPort)
        client.abort()
        network.a.drain(network.now)
        self.assertIsNone(other.closeReason)
        self.assertEqual(network.a.flows(), [other])

    def test_addressRemoved(self) -> None:
        """Removing an address ends its flows without a packet, others go on."""
        network = Network()
        four = network.connected(FAMILIES[0])
        six = network.connected(FAMILIES[1])
        network.a.takeReady()
        network.a.setAddresses([A6])
        self.assertIs(four[0].closeReason, CloseReason.ABORTED)
        self.assertEqual(network.a.takeReady(), [four[0]])
        self.assertEqual(network.a.drain(network.now), [])
        self.assertEqual(network.a.flows(), [six[0]])
        six[0].write(b"still here")
        network.run(1.0)
        self.assertEqual(six[1].read(), b"still here")

    def test_addressRemovedWhileConnecting(self) -> None:
        """A flow that is being opened ends the same way."""
        stack = makeStack(A4)
        flow = stack.connectTCP(B4, 80, 0.0)
        stack.setAddresses([])
        self.assertIs(flow.closeReason, CloseReason.ABORTED)
        self.assertEqual((stack.flows(), stack.drain(0.0)), ([], []))
        self.assertEqual(stack.counters.flowsRetired, 1)

    def test_timeWaitReuseRefused(self) -> None:
        """With nobody listening any more such a SYN is refused."""
        network = Network()
        client, server = network.connected()
        server.shutdownWrite()
        network.run(1.0)
        client.shutdownWrite()
        network.run(1.0)
        self.assertIs(server.state, TCPState.TIME_WAIT)
        again = network.a.connectTCP(B4, 80, network.now, localPort=client.localPort)
        network.run(1.0)
        self.assertIs(again.closeReason, CloseReason.REFUSED)
        self.assertEqual(network.b.flows(), [])

    def test_addressRemovedAndListeners(self) -> None:
        """Listeners stay, what was not accepted of the old address does not."""
        network = Network()
        listener = network.b.listenTCP(80, network.now, address=B4)
        network.a.connectTCP(B4, 80, network.now)
        network.run(1.0)
        self.assertEqual(listener.waiting, 1)
        network.b.setAddresses([B6])
        self.assertIsNone(listener.accept())
        network.b.setAddresses([B4, B6])
        network.a.connectTCP(B4, 80, network.now)
        network.run(1.0)
        self.assertIsNotNone(listener.accept())

    def test_addressesAreChecked(self) -> None:
        """Only addresses are taken, and each once."""
        stack = makeStack()
        self.assertRaises(ValueError, stack.setAddresses, [b"abc"])
        stack.setAddresses([A4, A4])
        self.assertEqual(stack.addresses, (A4,))


class LoopbackTests(SynchronousTestCase):
    """A node that talks to itself."""

    def test_echoToItself(self) -> None:
        """A flow to our own address works and no packet leaves."""
        for address in (A4, A6):
            network = Network()
            server = Echoer()
            listener = network.a.listenTCP(7, network.now)
            client = Client(
                network.a.connectTCP(address, 7, network.now), b"x" * 90_000
            )

            def app(
                item: object,
                mine: Listener = listener,
                client: Client = client,
                server: Echoer = server,
            ) -> None:
                (client if item in (mine, client.flow) else server)(item)
                if item is mine:
                    server(item)

            network.apps[network.a] = app
            self.assertTrue(network.run(60.0, lambda client=client: client.flow.eof))
            self.assertEqual(client.got, b"x" * 90_000)
            self.assertEqual(network.seen, [])
            self.assertGreater(network.a.counters.loopedBack, 100)
            network.run(100.0)
            self.assertEqual(network.a.flows(), [])

    def test_runsToItself(self) -> None:
        """Bulk to our own address stays in runs, which no checksum is made for."""
        for address in (A4, A6):
            network = Network()
            client = network.a.connectTCP(address, 7, network.now)
            listener = network.a.listenTCP(7, network.now)
            network.run(1.0)
            server = listener.accept()
            built: list[SegmentRun] = []
            packets = SegmentRun.packets

            def note(run: SegmentRun, built=built, packets=packets) -> list[bytes]:
                built.append(run)
                return packets(run)

            self.patch(SegmentRun, "packets", note)
            data = os.urandom(500_000)
            client.write(data)
            got = b""
            for _ in range(1000):
                network.a.drain(network.now)
                got += server.read()
                if len(got) == len(data):
                    break
            self.assertEqual(got, data)
            self.assertEqual(built, [])
            self.assertEqual(client._tcb.sender.retransmissions, 0)

    def test_refusedByItself(self) -> None:
        """A closed port of our own refuses."""
        stack = makeStack(A4)
        flow = stack.connectTCP(A4, 9, 0.0)
        self.assertEqual(stack.drain(0.0), [])
        self.assertIs(flow.closeReason, CloseReason.REFUSED)

    def test_deadlineWhileNewsWait(self) -> None:
        """What a drain delivered to ourselves asks for attention at once."""
        stack = makeStack(A4)
        stack.connectTCP(A4, 9, 5.0)
        self.assertEqual(stack.drain(5.0), [])
        self.assertEqual(stack.deadline(), 5.0)
        self.assertEqual(len(stack.takeReady()), 1)
        self.assertIsNone(stack.deadline())

    def test_bounded(self) -> None:
        """One drain delivers a bounded number of packets, the next the rest."""
        stack = makeStack(A4, limits=StackLimits(loopback=10, loopbackQueue=25))
        sink = stack.bindUDP(9)
        source = stack.bindUDP(0)
        sent = [source.send(b"x", A4, 9, 0.0) for _ in range(30)]
        self.assertEqual(sent.count(True), 25)
        self.assertEqual(stack.counters.droppedLoopbackQueue, 5)
        stack.drain(0.0)
        self.assertEqual(sink.waiting, 10)
        self.assertEqual(stack.deadline(), 0.0)
        stack.drain(0.0)
        stack.drain(0.0)
        self.assertEqual(sink.waiting, 25)

    def test_roundsAreBounded(self) -> None:
        """One drain hands packets to ourselves around a bounded number of times."""
        self.patch(stackModule, "_LOOPBACK_ROUNDS", 2)
        stack = makeStack(A4)
        listener = stack.listenTCP(80)
        flow = stack.connectTCP(A4, 80, 7.0)
        stack.drain(7.0)
        self.assertEqual((flow.established, stack.deadline()), (True, 7.0))
        self.assertEqual(listener.waiting, 0)
        stack.drain(7.0)
        self.assertEqual(listener.waiting, 1)


class FuzzTests(SynchronousTestCase):
    """Whatever comes in, nothing is raised."""

    def setUp(self) -> None:
        self.network = Network()
        self.client, self.server = self.network.connected()
        self.stack = self.network.b
        self.stack.listenTCP(80)
        self.stack.bindUDP(53)
        self.stack.ping(A4, b"x", 0.0)

    @given(st.binary(max_size=100), st.sampled_from((b"", b"\x45", b"\x60")))
    @settings(max_examples=150, deadline=None)
    def test_anyBytes(self, data: bytes, start: bytes) -> None:
        """Any bytes are dropped or taken."""
        self.stack.receive([start + data], self.network.now)
        self.stack.drain(self.network.now)

    @given(
        st.sampled_from(((A4, B4), (A6, B6))),
        st.sampled_from((1, 6, 17, 58, 44, 0, 60, 99)),
        st.binary(max_size=120),
    )
    @settings(max_examples=200, deadline=None)
    def test_anyPayload(
        self, ends: tuple[bytes, bytes], protocol: int, payload: bytes
    ) -> None:
        """Any payload of a good IP packet is dropped or taken."""
        packets = buildPackets(*ends, protocol, payload, 1280, 0)
        self.stack.receive(packets, self.network.now)
        self.stack.drain(self.network.now)

    @given(
        st.sampled_from((80, 81)),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 255),
        st.integers(0, 65535),
        st.binary(max_size=40).map(lambda data: data[: len(data) & ~3]),
        st.binary(max_size=60),
        st.booleans(),
    )
    @settings(max_examples=250, deadline=None)
    def test_anySegment(
        self,
        port: int,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        options: bytes,
        payload: bytes,
        live: bool,
    ) -> None:
        """Any segment with a right checksum is dropped or taken."""
        source = self.client.localPort if live else 7777
        builder = SegmentBuilder(A4, source, B4, port)
        packet = builder.build(seq, ack, flags, window, options, payload)
        self.stack.receive([packet, packet], self.network.now)
        self.stack.drain(self.network.now)
        self.stack.tick(self.network.now)
        self.stack.deadline()

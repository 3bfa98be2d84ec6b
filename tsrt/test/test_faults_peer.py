"""
A peer that attacks another one through its own, valid tunnel.

In each test two other nodes talk meanwhile; they must not notice.
"""

from __future__ import annotations

import struct
from random import Random

from tsrt.addresses import parseAddress
from tsrt.crypto.hashes import x25519
from tsrt.keys import NodeKey
from tsrt.netstack.limits import DEFAULT_LIMITS
from tsrt.test.faultworld import STREAM_PORT, FaultTestCase, Insider, during
from tsrt.test.filterpackets import ip
from tsrt.tunnel.cookies import CookieJar
from tsrt.tunnel.handshake import Initiation, StaticKey
from tsrt.tunnel.limits import HANDSHAKES_PER_SECOND
from tsrt.wire.icmp import buildICMP
from tsrt.wire.ip import (
    PROTOCOL_ICMP,
    PROTOCOL_TCP,
    PROTOCOL_TSMP,
    PROTOCOL_UDP,
    buildIP,
)
from tsrt.wire.tcp import ACK, RST, SYN, SegmentBuilder
from tsrt.wire.tsmp import Ping
from tsrt.wire.udp import buildUDP
from tsrt.wire.wireguard import tai64n


class PeerAttackTests(FaultTestCase):
    """Node C{m} attacks node C{b}, which serves node C{a}."""

    def setUp(self) -> None:
        self.makeTailnet("m")
        self.insider = Insider(self.net, "m", "b")
        self.a = parseAddress(self.net["a"].status.addresses[0])
        self.a6 = parseAddress(self.net["a"].status.addresses[1])

    def engine(self) -> object:
        return self.net["b"]._engine

    def victimFlow(self) -> object:
        """The flow of the innocent stream at the victim."""
        [flow] = [
            flow
            for flow in self.net["b"]._overlay.stack._flows.flows()
            if flow.remotePort == self.stream.localPort
        ]
        return flow

    def test_R_SRC_1_R_DPC_2_spoofedSources(self) -> None:
        """
        Packets from addresses that are not the peer's own never reach the stack.

        The resets among them would end the stream: they have its very ports
        and sequence numbers.
        """
        received = self.net["b"]._overlay.stack.counters
        flow = self.victimFlow()
        own = self.insider.victim
        packets = []
        for offset in range(0, 60_000, 600):
            builder = SegmentBuilder(self.a, self.stream.localPort, own, STREAM_PORT)
            seq = (flow._tcb.receiver.next + offset) & 0xFFFFFFFF
            packets.append(builder.build(seq, 0, RST, 0))
        for source in (
            own,  # the victim itself
            parseAddress("127.0.0.1"),
            parseAddress("8.8.8.8"),
            parseAddress("192.168.1.1"),
            parseAddress("100.64.77.77"),  # nobody's
            parseAddress("0.0.0.0"),
            parseAddress("255.255.255.255"),
        ):
            packets.append(
                SegmentBuilder(source, 9, own, STREAM_PORT).build(1, 0, SYN, 9)
            )
        for source in (self.a6, parseAddress("::1"), parseAddress("fe80::1")):
            builder = SegmentBuilder(source, 9, self.insider.victim6, STREAM_PORT)
            packets.append(builder.build(1, 0, SYN, 9))
        accepted = received.flowsAccepted
        before = self.engine().packetFilter.counters.droppedSource
        self.insider.inject(packets)
        dropped = self.engine().packetFilter.counters.droppedSource - before
        self.assertEqual(dropped, len(packets))
        self.assertEqual(received.flowsAccepted, accepted)
        self.assertDropped("b", "filter", "Source", len(packets))
        self.assertInnocent()

    def test_theResetWouldWork(self) -> None:
        """Without the filter such a reset does end the stream (a check of tests)."""
        flow = self.victimFlow()
        self.stream.stop()
        self.net.elapse(5)
        builder = SegmentBuilder(
            self.a, self.stream.localPort, self.insider.victim, STREAM_PORT
        )
        reset = builder.build(flow._tcb.receiver.next & 0xFFFFFFFF, 0, RST, 0)
        self.net["b"]._overlay.stack.receive([reset], self.net.clock.seconds())
        self.assertIsNotNone(flow.closeReason)

    def test_otherDestinations(self) -> None:
        """Packets to addresses that are not the victim's go nowhere."""
        packets = []
        for target in (
            "127.0.0.1",
            "8.8.8.8",
            "224.0.0.1",
            "169.254.1.1",
            "100.64.0.1",
        ):
            packed = parseAddress(target)
            body = buildUDP(self.insider.address, 9, packed, 9, b"x")
            packets.append(buildIP(self.insider.address, packed, PROTOCOL_UDP, body))
        before = self.net["b"]._overlay.stack.counters.received
        self.stream.stop()
        self.net.elapse(5)
        before = self.net["b"]._overlay.stack.counters.received
        self.insider.inject(packets)
        self.assertEqual(self.net["b"]._overlay.stack.counters.received, before)
        self.assertDropped("b", "filter", "NotLocal", 3)
        self.assertInnocent()

    def test_synFlood(self) -> None:
        """
        A flood of SYNs fills nothing but the attacker's own share.

        Others connect meanwhile, and what was half open is forgotten.
        """
        random = Random(3)
        flood = []
        for _ in range(4000):
            port = random.randrange(1024, 65536)
            builder = SegmentBuilder(
                self.insider.address, port, self.insider.victim, STREAM_PORT
            )
            flood.append(builder.build(random.getrandbits(32), 0, SYN, 65535))
        stack = self.net["b"]._overlay.stack
        self.insider.inject(flood[:2000], pause=0.02)
        self.assertLessEqual(len(stack._flows), DEFAULT_LIMITS.halfOpenPerRemote + 8)
        fresh = self.connect("a", "b")
        self.insider.inject(flood[2000:], pause=0.02)
        fresh.transport.write(b"in the middle")
        self.net.elapse(3)
        self.assertEqual(bytes(fresh.received), b"in the middle")
        self.assertDropped("b", "stack", "HalfOpen", 1000)
        self.net.elapse(DEFAULT_LIMITS.halfOpenTimeout + 20)
        self.assertLess(len(stack._flows), 8)
        self.assertInnocent()

    def test_fullHandshakeFlood(self) -> None:
        """Connections that say nothing are bounded by the table of flows."""
        stack = self.net["b"]._overlay.stack
        builders = {}
        for port in range(1024, 1424):
            builder = SegmentBuilder(
                self.insider.address, port, self.insider.victim, STREAM_PORT
            )
            builders[port] = builder
            self.insider.inject([builder.build(1000, 0, SYN, 65535)], pause=0.011)
            for packet in self.insider.heard:
                local = int.from_bytes(packet[22:24], "big")
                seq = int.from_bytes(packet[24:28], "big")
                if packet[9] == PROTOCOL_TCP and packet[33] & SYN and local in builders:
                    acknowledgement = builders[local].build(
                        1001, (seq + 1) & 0xFFFFFFFF, ACK, 65535
                    )
                    self.insider.inject([acknowledgement], pause=0.0)
            self.insider.heard.clear()
        self.net.elapse(1)
        self.assertGreater(len(stack._flows), 300)
        self.assertLessEqual(len(stack._flows), DEFAULT_LIMITS.flows)
        self.assertInnocent()

    def test_overlappingFragments(self) -> None:
        """
        Overlapping, incomplete and contradictory fragments are dropped.

        What is held of them is bounded in number and bytes, and for a while.
        """
        me, victim = (
            ".".join(map(str, self.insider.address)),
            ".".join(map(str, self.insider.victim)),
        )
        random = Random(4)
        packets = []
        for _ in range(600):
            for _ in range(3):
                packet = bytearray(
                    ip(
                        me,
                        victim,
                        PROTOCOL_UDP,
                        random.randbytes(8 * random.randrange(10, 60)),
                        moreFragments=True,
                        fragmentUnits=random.randrange(0, 40),
                    )
                )
                packet[4:6] = random.randbytes(1) + b"\0"
                packet[10:12] = b"\0\0"
                total = sum(struct.unpack("!10H", packet[:20]))
                total = (total & 0xFFFF) + (total >> 16)
                packet[10:12] = struct.pack(
                    "!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
                )
                packets.append(bytes(packet))
        fragments = self.net["b"]._overlay.stack._fragments
        self.insider.inject(packets, pause=0.01)
        counters = self.net["b"]._overlay.stack.counters
        self.assertGreater(counters.droppedFragmentOverlap, 50)
        self.assertLessEqual(len(fragments), DEFAULT_LIMITS.reassembliesPerSource)
        self.assertLessEqual(fragments.held, DEFAULT_LIMITS.reassemblyBytes)
        self.assertEqual(counters.reassembled, 0)
        self.net.elapse(DEFAULT_LIMITS.reassemblyTimeout6 + 1)
        self.assertEqual((len(fragments), fragments.held), (0, 0))
        self.assertInnocent()

    def test_icmpLies(self) -> None:
        """Errors about a stream that the sender has no part in do not end it."""
        flow = self.victimFlow()
        quoted = SegmentBuilder(
            self.insider.victim, STREAM_PORT, self.a, self.stream.localPort
        ).build(flow._tcb.sender.una & 0xFFFFFFFF, 0, ACK, 100)[:28]
        packets = []
        for kind, code, rest in (
            *((3, code, 0) for code in range(16)),
            (3, 4, 68),  # a path MTU of 68 bytes
            (3, 4, 0),
            (3, 4, 1),
            (4, 0, 0),  # source quench
            (5, 1, 0x01010101),  # redirect
            (11, 0, 0),
            (12, 0, 0),
            (0, 0, 0),
            (200, 77, 1),
        ):
            for payload in (quoted, quoted[:20], quoted[:7], b"", bytes(100)):
                body = buildICMP(
                    self.insider.address, self.insider.victim, kind, code, rest, payload
                )
                packets.append(
                    buildIP(
                        self.insider.address, self.insider.victim, PROTOCOL_ICMP, body
                    )
                )
        self.insider.inject(packets)
        self.assertGreaterEqual(flow._tcb.sender.mss, 536)
        self.assertInnocent()

    def test_tsmpJunk(self) -> None:
        """TSMP messages are answered or counted, and never reach anybody."""
        random = Random(6)
        received = self.net["b"]._overlay.stack.counters.received
        self.stream.stop()
        self.net.elapse(5)
        received = self.net["b"]._overlay.stack.counters.received
        packets = [
            buildIP(
                self.insider.address,
                self.insider.victim,
                PROTOCOL_TSMP,
                random.randbytes(random.randrange(0, 200)),
            )
            for _ in range(300)
        ]
        packets += [
            buildIP(
                self.insider.address,
                self.insider.victim,
                PROTOCOL_TSMP,
                Ping(bytes(8)).encode(),
            )
        ] * 50
        self.insider.inject(packets)
        self.assertEqual(self.net["b"]._overlay.stack.counters.received, received)
        self.assertInnocent()

    def test_garbageInside(self) -> None:
        """Authentic messages with anything inside are dropped by reason."""
        random = Random(7)
        packets = []
        for _ in range(500):
            packet = bytearray(
                buildIP(
                    self.insider.address,
                    self.insider.victim,
                    random.choice((1, 6, 17, 99, 132, 0, 44)),
                    random.randbytes(random.randrange(0, 300)),
                )
            )
            for _ in range(random.randrange(0, 4)):
                packet[random.randrange(len(packet))] = random.randrange(256)
            packets.append(bytes(packet[: random.randrange(1, len(packet) + 1)]))
        self.insider.inject(packets)
        counters = self.engine().packetFilter.counters.snapshot()
        inner = self.engine().datapath._tunnel.counters.droppedInner
        dropped = sum(v for k, v in counters.items() if k.startswith("dropped"))
        self.assertGreater(dropped + inner, 200)
        self.assertInnocent()

    # -- WireGuard -------------------------------------------------------------------

    def initiation(self, static: StaticKey, number: int) -> bytes:
        """A handshake with a valid first MAC, and whatever inside."""
        randbytes = self.net.internet.randbytes
        made = Initiation(
            static,
            self.insider.victimKey,
            x25519(static.private, self.insider.victimKey),
            index=number.to_bytes(4, "little"),
            timestamp=tai64n(int(self.net.clock.seconds() * 1e9) + number * (1 << 25)),
            ephemeral=randbytes(32),
        )
        return CookieJar(self.insider.victimKey).sign(made.body, 0.0)

    def test_handshakeStorm(self) -> None:
        """
        Under a storm of handshakes strangers get cookies, and work is bounded.

        The two nodes renew their session meanwhile.
        """
        tunnel = self.engine().datapath._tunnel
        counters = tunnel.counters
        strangers = [
            StaticKey(NodeKey.generate(self.net.internet.randbytes).raw)
            for _ in range(8)
        ]
        messages = [
            self.initiation(strangers[number % 8], number) for number in range(400)
        ]
        self.net.elapse(112)
        handshakes = counters.handshakesCompleted
        indices = tunnel.indexCount
        during(self.net, 12, 0.5, lambda: self.insider.injectRaw(messages, 0.03))
        self.assertGreater(counters.cookiesSent, 500)
        self.assertGreater(counters.droppedUnderLoad, 500)
        self.assertGreater(counters.droppedUnknownKey, 100)
        self.assertLess(counters.droppedUnknownKey, 2 * 14 * HANDSHAKES_PER_SECOND)
        self.assertGreater(counters.handshakesCompleted, handshakes)
        self.assertLessEqual(tunnel.indexCount, indices + 4)
        self.assertDropped("b", "tunnel", "UnderLoad", 500)
        self.assertInnocent()

    def test_wireGuardGarbage(self) -> None:
        """Messages of no form, for no session or with no key are counted."""
        random = Random(8)
        tunnel = self.engine().datapath._tunnel
        sizes = (
            0,
            1,
            3,
            4,
            8,
            16,
            31,
            32,
            63,
            64,
            65,
            91,
            92,
            147,
            148,
            149,
            1300,
            9000,
        )
        messages = [
            bytes((kind, 0, 0, 0)) + random.randbytes(max(0, size - 4))
            for kind in range(6)
            for size in sizes
        ]
        messages += [random.randbytes(size) for size in sizes for _ in range(5)]
        self.insider.injectRaw(messages)
        counters = tunnel.counters
        dropped = (
            counters.droppedMalformed
            + counters.droppedUnknownIndex
            + counters.droppedMac1
        )
        self.assertGreater(dropped, 100)
        for reason in ("Malformed", "UnknownIndex", "Mac1"):
            self.assertDropped("b", "tunnel", reason, 1)
        self.assertInnocent()

    def test_R_WG_1_replays(self) -> None:
        """A message of the attacker's own session counts once, however often sent."""
        sealed = self.insider.engine.datapath._tunnel.send(
            self.insider.victimKey,
            [
                SegmentBuilder(
                    self.insider.address, 4000, self.insider.victim, 9
                ).build(1, 0, SYN, 100)
            ],
            self.net.clock.seconds(),
        )
        self.assertEqual(len(sealed), 1)
        counters = self.engine().datapath._tunnel.counters
        received = counters.packetsReceived
        self.stream.stop()
        self.net.elapse(5)
        received = counters.packetsReceived
        # While a path is unproven messages take the relay as well.
        doubled = counters.droppedReplay
        self.insider.injectRaw(sealed * 300)
        self.assertEqual(counters.packetsReceived, received + 1)
        self.assertEqual(counters.droppedReplay, doubled + 299)
        self.assertInnocent()

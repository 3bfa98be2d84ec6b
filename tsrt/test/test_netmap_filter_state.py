"""
Tests for L{tsrt.netmap.filter}: what it remembers, shields, jail, and what goes
out.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import Prefix, parseAddress
from tsrt.netmap import filter as _filterModule
from tsrt.netmap.filter import MOST_FLOWS, PacketFilter
from tsrt.netmap.routes import RouteTable
from tsrt.netmap.rules import compileRules
from tsrt.tailcfg import CapGrant, FilterRule, Raw
from tsrt.test.filterharness import (
    OTHER,
    PEER,
    V4,
    V6,
    FilterTestCase,
    makeFilter,
    rule,
)
from tsrt.test.filterpackets import (
    ACK,
    SYN_ACK,
    TCP,
    UDP,
    icmp,
    ip,
    tcp,
    udp,
)


class InvalidationTests(FilterTestCase):
    """
    Tests that what is remembered goes with what it was decided by.
    """

    def setUp(self) -> None:
        """A flow that passes, and is remembered."""
        self.filter = makeFilter(rule("*"))
        self.packet = tcp(V4.peer, V4.own, 80)
        self.datagram = udp(V6.peer, V6.own, 80)
        for packet in (self.packet, self.datagram):
            self.assertPasses(self.filter, packet)

    def assertBothDropped(self, reason: str) -> None:
        """Neither passes any more."""
        for packet in (self.packet, self.datagram):
            self.assertDrops(self.filter, packet, reason)

    def test_setRules(self) -> None:
        """New rules hold at once."""
        self.filter.setRules(compileRules([]))
        self.assertBothDropped("droppedRule")

    def test_setSources(self) -> None:
        """R-SRC-3: who loses a prefix may not send from it any more."""
        self.filter.setSources(RouteTable())
        self.assertBothDropped("droppedSource")

    def test_setLocal(self) -> None:
        """Packets to a former address of this node are dropped."""
        self.filter.setLocal([Prefix.parse("100.64.0.77")])
        self.assertBothDropped("droppedNotLocal")

    def test_setJailed(self) -> None:
        """Who is jailed from now on is so at once."""
        self.filter.setJailed([PEER])
        self.assertBothDropped("droppedRule")

    def test_setShieldsUp(self) -> None:
        """Shields go up at once."""
        self.filter.setShieldsUp(True)
        self.assertBothDropped("droppedRule")

    def test_memoryIsBounded(self) -> None:
        """A peer that tries all ports cannot make the memory grow for ever."""
        self.patch(_filterModule, "MOST_REMEMBERED", 10)
        self.filter.setRules(compileRules([]))
        packets = [tcp(V4.peer, V4.own, 80, ACK, sourcePort=n) for n in range(1, 1001)]
        sizes = []
        for packet in packets:
            self.assertEqual([packet], self.filter.admit([packet], PEER))
            self.assertEqual([packet], self.filter.admit([packet], PEER))
            sizes.append(sum(len(flows) for flows in self.filter._cache.values()))
        # When there is no room all is forgotten, and then there is room again.
        self.assertEqual([*range(1, 11)] * 100, sizes)
        self.assertEqual(packets, self.filter.admit(packets, PEER))


class MemoryTests(FilterTestCase):
    """
    Tests that what is remembered of flows is used: it is what makes most
    packets cheap.
    """

    def _cannotDecide(self, packetFilter: PacketFilter) -> None:
        def fail(*anything: object) -> bool:
            raise AssertionError("the long way was taken")

        self.patch(packetFilter, "_decide", fail)
        self.patch(packetFilter, "_maySend", fail)

    def test_inbound(self) -> None:
        """Later packets of a flow are not decided again."""
        packetFilter = makeFilter(rule("*", ports=(80, 80)))
        packets = []
        for family in (V4, V6):
            packetFilter.noteOutbound(
                [udp(family.own, family.peer, 53, sourcePort=5000)]
            )
            packets += [
                tcp(family.peer, family.own, 80),
                tcp(family.peer, family.own, 80, data=b"data"),
                tcp(family.peer, family.own, 81, ACK),
                udp(family.peer, family.own, 80),
                udp(family.peer, family.own, 80, data=bytes(1000)),
                udp(family.peer, family.own, 5000, sourcePort=53),
            ]
        # The smallest datagrams are not worth it.
        packets = [packet for packet in packets if len(packet) >= 40]
        self.assertEqual(packets, packetFilter.admit(packets, PEER))
        self._cannotDecide(packetFilter)
        self.assertEqual(packets, packetFilter.admit(packets, PEER))

    def test_ofEachPeer(self) -> None:
        """What is remembered of one peer's flow is not another's."""
        packetFilter = makeFilter(rule("*"))
        packet = tcp(V4.peer, V4.own, 80)
        self.assertPasses(packetFilter, packet)
        self.assertDrops(packetFilter, packet, "droppedSource", OTHER)

    def test_outbound(self) -> None:
        """Later segments to a destination are not looked at again."""
        packetFilter = makeFilter()
        packets = []
        for family in (V4, V6):
            packets += [
                tcp(family.own, family.peer, 80),
                tcp(family.own, family.peer, 81, ACK, data=b"data"),
            ]
        self.assertEqual(packets, packetFilter.noteOutbound(packets))
        self._cannotDecide(packetFilter)
        self.assertEqual(packets, packetFilter.noteOutbound(packets))

    def test_datagramsAreAlwaysLookedAt(self) -> None:
        """Each datagram that goes out renews what is known of its flow."""
        packetFilter = makeFilter()
        packet = udp(V4.own, V4.peer, 53)
        packetFilter.noteOutbound([packet])
        self._cannotDecide(packetFilter)
        self.assertRaises(AssertionError, packetFilter.noteOutbound, [packet])


class ShieldsTests(FilterTestCase):
    """
    Tests for shields up, and for peers in jail.
    """

    def test_onlyAnswersPass(self) -> None:
        """With shields up only answers pass, whatever the rules say."""
        packetFilter = makeFilter(rule("*"))
        packetFilter.setShieldsUp(True)
        packetFilter.noteOutbound([udp(V4.own, V4.peer, 53, sourcePort=5000)])
        self.assertPasses(packetFilter, udp(V4.peer, V4.own, 5000, sourcePort=53))
        self.assertPasses(packetFilter, tcp(V4.peer, V4.own, 40000, SYN_ACK))
        self.assertPasses(packetFilter, icmp(V4.peer, V4.own, 0))
        for packet in (
            tcp(V4.peer, V4.own, 80),
            udp(V4.peer, V4.own, 53),
            icmp(V4.peer, V4.own, 8),
        ):
            self.assertDrops(packetFilter, packet, "droppedRule")

    def test_flowsOfBeforeAreForgotten(self) -> None:
        """When shields go up, flows from before do not count."""
        packetFilter = makeFilter()
        packetFilter.noteOutbound([udp(V4.own, V4.peer, 53, sourcePort=5000)])
        answer = udp(V4.peer, V4.own, 5000, sourcePort=53)
        self.assertPasses(packetFilter, answer)
        packetFilter.setShieldsUp(True)
        self.assertDrops(packetFilter, answer, "droppedRule")

    def test_flowsSurviveShieldsDown(self) -> None:
        """When shields stay up or go down, flows stay."""
        packetFilter = makeFilter(rule("*", ports=(80, 80)))
        packetFilter.setShieldsUp(True)
        packetFilter.noteOutbound([udp(V4.own, V4.peer, 53, sourcePort=5000)])
        packetFilter.setShieldsUp(True)
        answer = udp(V4.peer, V4.own, 5000, sourcePort=53)
        self.assertPasses(packetFilter, answer)
        packetFilter.setShieldsUp(False)
        self.assertPasses(packetFilter, answer)
        self.assertPasses(packetFilter, tcp(V4.peer, V4.own, 80))

    def test_capabilities(self) -> None:
        """With shields up nobody has capabilities here."""
        grant = FilterRule(
            srcIPs=["*"],
            capGrant=[CapGrant(dsts=[V4.own], capMap={"files": [Raw(b"1")]})],
        )
        packetFilter = makeFilter(grant)
        peer, own = parseAddress(V4.peer), parseAddress(V4.own)
        self.assertEqual(
            {"files": [b"1"]},
            {
                k: list(map(bytes, v))
                for k, v in packetFilter.capabilities(peer, own).items()
            },
        )
        packetFilter.setShieldsUp(True)
        self.assertEqual({}, packetFilter.capabilities(peer, own))

    def test_jailedPeerMayAnswerOnly(self) -> None:
        """A jailed peer begins nothing; another peer is not affected."""
        packetFilter = makeFilter(rule("*"))
        packetFilter.setJailed([PEER])
        for family, echo in ((V4, 8), (V6, 128)):
            for make in (
                lambda source, family=family: tcp(source, family.own, 80),
                lambda source, family=family: udp(source, family.own, 80),
                lambda source, family=family, echo=echo: icmp(source, family.own, echo),
            ):
                self.assertDrops(packetFilter, make(family.peer), "droppedRule")
                self.assertPasses(packetFilter, make(family.other), OTHER)
            self.assertPasses(packetFilter, tcp(family.peer, family.own, 9, ACK))

    def test_jailedFlowsAreApart(self) -> None:
        """Flows to jailed peers are remembered apart from the others."""
        packetFilter = makeFilter()
        packetFilter.setJailed([PEER])
        toJail = udp(V4.own, V4.peer, 53, sourcePort=5000)
        elsewhere = udp(V4.own, V4.other, 53, sourcePort=5000)
        nowhere = udp(V4.own, V4.stranger, 53, sourcePort=5000)
        packetFilter.noteOutbound([toJail, elsewhere, nowhere])
        answer = udp(V4.peer, V4.own, 5000, sourcePort=53)
        self.assertPasses(packetFilter, answer)
        self.assertPasses(
            packetFilter, udp(V4.other, V4.own, 5000, sourcePort=53), OTHER
        )
        # Many other flows do not push out those of the jail.
        for port in range(1, MOST_FLOWS + 10):
            packetFilter.noteOutbound([udp(V4.own, V4.other, port)])
        self.assertPasses(packetFilter, answer)
        # Once out of jail what was remembered there is not consulted.
        packetFilter.setJailed([])
        self.assertDrops(packetFilter, answer, "droppedRule")


class OutboundTests(FilterTestCase):
    """
    Tests for what goes out.
    """

    def test_everythingElsePasses(self) -> None:
        """Well-formed packets go out, of whatever protocol, without rules."""
        packetFilter = makeFilter()
        for family in (V4, V6):
            packets = [
                tcp(family.own, family.peer, 80),
                tcp(family.own, family.peer, 80, ACK, data=b"data"),
                udp(family.own, family.stranger, 53),
                icmp(family.own, family.peer, 8),
                ip(family.own, family.peer, 47, b"GRE"),
                ip(family.own, family.peer, UDP, b"data", fragmentUnits=20),
                tcp(family.own, family.peer, 80, moreFragments=True),
            ]
            for _ in range(2):
                self.assertEqual(packets, packetFilter.noteOutbound(packets))
        self.assertEqual(0, packetFilter.counters.droppedOutbound)

    def test_preChecks(self) -> None:
        """What is malformed, multicast or link-local does not go out."""
        packetFilter = makeFilter()
        wellFormed = tcp(V4.own, V4.peer, 80), tcp(V6.own, V6.peer, 80)
        packetFilter.noteOutbound(list(wellFormed))
        packets = [
            b"",
            b"E" * 19,
            b"\x60" * 39,
            b"\x00" * 60,
            udp(V4.own, "224.0.0.251", 5353),
            udp(V6.own, "ff02::fb", 5353),
            tcp(V4.own, "169.254.1.1", 80),
            tcp(V6.own, "fe80::1", 80),
            ip(V4.own, V4.peer, UDP, b"data", fragmentUnits=1),
            ip(V4.own, V4.peer, TCP, bytes(19)),
            tcp(V4.own, V4.peer, 80, total=50),
            tcp(V6.own, V6.peer, 80, total=50),
            tcp(V4.own, V4.peer, 80, total=30),
            tcp(V6.own, V6.peer, 80, total=10),
        ]
        for _ in range(2):
            before = packetFilter.counters.droppedOutbound
            self.assertEqual([], packetFilter.noteOutbound(packets))
            self.assertEqual(
                len(packets), packetFilter.counters.droppedOutbound - before
            )
        self.assertEqual(
            {"droppedOutbound"},
            {n for n, count in packetFilter.counters.snapshot().items() if count},
        )

    def test_laterFragmentsBeginNoFlow(self) -> None:
        """What stands at the place of ports in a later fragment is data."""
        packetFilter = makeFilter()
        for family in (V4, V6):
            fragment = ip(
                family.own, family.peer, UDP, b"\x13\x88\x00\x35data", fragmentUnits=20
            )
            packetFilter.noteOutbound([fragment])
            self.assertDrops(
                packetFilter,
                udp(family.peer, family.own, 5000, sourcePort=53),
                "droppedRule",
            )

    def test_firstFragmentBeginsFlow(self) -> None:
        """A fragmented question gets its answer."""
        packetFilter = makeFilter()
        for family in (V4, V6):
            packetFilter.noteOutbound(
                [
                    udp(
                        family.own,
                        family.peer,
                        53,
                        sourcePort=5000,
                        data=bytes(64),
                        moreFragments=True,
                    )
                ]
            )
            self.assertPasses(
                packetFilter, udp(family.peer, family.own, 5000, sourcePort=53)
            )

    def test_memoryIsBounded(self) -> None:
        """However many destinations there are, memory stays bounded."""
        self.patch(_filterModule, "MOST_REMEMBERED", 10)
        packetFilter = makeFilter()
        for number in range(100):
            packet = tcp(V4.own, f"100.64.1.{number}", 80)
            self.assertEqual([packet], packetFilter.noteOutbound([packet]))
        self.assertLessEqual(len(packetFilter._passable), 10)


class ErrorTests(SynchronousTestCase):
    """
    Tests for what a filter tells of its rules.
    """

    def test_errors(self) -> None:
        """What could not be used of the rules is told."""
        packetFilter = makeFilter(rule("nonsense"))
        self.assertEqual(1, len(packetFilter.errors))
        self.assertIn("nonsense", packetFilter.errors[0])

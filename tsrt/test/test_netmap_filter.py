"""
Tests for L{tsrt.netmap.filter}: what a packet filter lets in, of both families.
"""

from __future__ import annotations

from tsrt.addresses import Prefix
from tsrt.netmap.filter import MOST_FLOWS, PacketFilter
from tsrt.netmap.routes import RouteTable
from tsrt.netmap.rules import compileRules
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
    ICMP,
    ICMPV6,
    RST,
    SCTP,
    SYN,
    SYN_ACK,
    TCP,
    TSMP,
    UDP,
    icmp,
    ip,
    sctp,
    tcp,
    udp,
)


class ClosedTests(FilterTestCase):
    """
    Tests for the time before control has sent anything.
    """

    def test_R_DPC_1_newFilterDropsEverything(self) -> None:
        """A filter that was told nothing takes packets from nobody."""
        packetFilter = PacketFilter()
        self.assertDrops(packetFilter, tcp(V4.peer, V4.own, 22), "droppedSource")
        self.assertDrops(packetFilter, icmp(V6.peer, V6.own, 129), "droppedSource")

    def test_R_DP_1_noRulesDenyAll(self) -> None:
        """With sources and addresses but without rules nothing begins."""
        packetFilter = makeFilter()
        for family, echo in ((V4, 8), (V6, 128)):
            for packet in (
                tcp(family.peer, family.own, 22),
                udp(family.peer, family.own, 53),
                sctp(family.peer, family.own, 99),
                icmp(family.peer, family.own, echo),
                ip(family.peer, family.own, 47, b"GRE GRE GRE"),
            ):
                self.assertDrops(packetFilter, packet, "droppedRule")

    def test_R_PF_1_defaultDrop(self) -> None:
        """What no rule lets in is dropped, whatever else rules let in."""
        packetFilter = makeFilter(rule("*", ports=(22, 22)))
        self.assertDrops(packetFilter, tcp(V4.peer, V4.own, 23), "droppedRule")
        self.assertPasses(packetFilter, tcp(V4.peer, V4.own, 22))

    def test_emptyPacketVanishes(self) -> None:
        """An empty packet, a keep-alive, is neither let in nor counted."""
        packetFilter = makeFilter(rule("*"))
        self.assertEqual([], packetFilter.admit([b""], PEER))
        self.assertEqual({0}, set(packetFilter.counters.snapshot().values()))

    def test_orderIsKept(self) -> None:
        """Packets that pass come out in the order in which they came."""
        packetFilter = makeFilter(rule("*", ports=(80, 80)))
        good = [tcp(V4.peer, V4.own, 80, sourcePort=n) for n in (5, 3, 4)]
        bad = tcp(V4.peer, V4.own, 81)
        batch = [good[0], bad, good[1], bad, good[2]]
        self.assertEqual(good, packetFilter.admit(batch, PEER))
        self.assertEqual(3, packetFilter.counters.admitted)


class SourceTests(FilterTestCase):
    """
    Tests for the check that a packet comes from whom it says.
    """

    def test_R_DPC_2_sourceMustMatchSender(self) -> None:
        """A peer cannot send with the address of another peer."""
        packetFilter = makeFilter(rule("*"))
        for family in (V4, V6):
            packet = tcp(family.other, family.own, 22)
            self.assertDrops(packetFilter, packet, "droppedSource", PEER)
            self.assertPasses(packetFilter, packet, OTHER)
            self.assertDrops(packetFilter, packet, "droppedSource", PEER)

    def test_R_DPC_3_unknownSource(self) -> None:
        """An address that leads to nobody is nobody's."""
        packetFilter = makeFilter(rule("*"))
        for family in (V4, V6):
            self.assertDrops(
                packetFilter, udp(family.stranger, family.own, 53), "droppedSource"
            )

    def test_sourceIsCheckedForAnswersToo(self) -> None:
        """Neither later fragments nor ICMP errors are exempt from the check."""
        packetFilter = makeFilter(rule("*"))
        for packet in (
            ip(V4.other, V4.own, UDP, b"x" * 16, fragmentUnits=20),
            icmp(V4.other, V4.own, 3),
            ip(V4.other, V4.own, TSMP, b"p12345678"),
            tcp(V4.other, V4.own, 22, ACK),
        ):
            self.assertDrops(packetFilter, packet, "droppedSource")

    def test_longestPrefixDecides(self) -> None:
        """A wide route of one peer does not cover the address of another."""
        packetFilter = makeFilter(rule("*"))
        sources: RouteTable[bytes] = RouteTable()
        sources.insert(Prefix.parse("100.64.0.0/10"), OTHER)
        sources.insert(Prefix.parse(V4.peer), PEER)
        packetFilter.setSources(sources)
        self.assertDrops(packetFilter, tcp(V4.peer, V4.own, 1), "droppedSource", OTHER)
        self.assertPasses(packetFilter, tcp(V4.other, V4.own, 1), OTHER)


class DestinationTests(FilterTestCase):
    """
    Tests for where packets may go.
    """

    def test_notLocal(self) -> None:
        """What is not for this node is dropped, whatever the rules say."""
        packetFilter = makeFilter(rule("*"))
        for family in (V4, V6):
            for destination in (family.other, family.stranger):
                self.assertDrops(
                    packetFilter,
                    tcp(family.peer, destination, 22),
                    "droppedNotLocal",
                )
                self.assertDrops(
                    packetFilter,
                    ip(family.peer, destination, TSMP, b"p12345678"),
                    "droppedNotLocal",
                )

    def test_T_multicast(self) -> None:
        """Multicast and link-local destinations never reach the rules."""
        packetFilter = makeFilter(rule("*"))
        packetFilter.setLocal([Prefix.parse("0.0.0.0/0"), Prefix.parse("::/0")])
        for source, destination, reason in (
            (V4.peer, "224.0.0.1", "droppedMulticast"),
            (V4.peer, "239.255.255.255", "droppedMulticast"),
            (V6.peer, "ff02::1", "droppedMulticast"),
            (V4.peer, "169.254.0.1", "droppedLinkLocal"),
            (V4.peer, "169.254.169.253", "droppedLinkLocal"),
            (V6.peer, "fe80::1", "droppedLinkLocal"),
            (V6.peer, "febf::1", "droppedLinkLocal"),
        ):
            self.assertDrops(packetFilter, udp(source, destination, 5353), reason)
        for source, destination in (
            (V4.peer, "223.255.255.255"),
            (V4.peer, "169.253.0.1"),
            (V6.peer, "fec0::1"),
            (V6.peer, "fe00::1"),
        ):
            self.assertPasses(packetFilter, udp(source, destination, 5353))

    def test_metadataServiceIsNotLinkLocal(self) -> None:
        """The one link-local address that clouds serve is let through."""
        packetFilter = makeFilter(rule("*"))
        packetFilter.setLocal([Prefix.parse("169.254.169.254")])
        self.assertPasses(packetFilter, tcp(V4.peer, "169.254.169.254", 80))

    def test_localPrefixes(self) -> None:
        """A whole network can be local."""
        packetFilter = makeFilter(rule("*"))
        packetFilter.setLocal([Prefix.parse("10.1.0.0/16")])
        self.assertPasses(packetFilter, tcp(V4.peer, "10.1.2.3", 80))
        self.assertDrops(packetFilter, tcp(V4.peer, "10.2.2.3", 80), "droppedNotLocal")


class TCPTests(FilterTestCase):
    """
    Tests for TCP: the first segment of a connection is what rules decide.
    """

    def test_synNeedsRule(self) -> None:
        """A SYN passes where protocol, source, destination and port match."""
        for family in (V4, V6):
            packetFilter = makeFilter(
                rule(family.peer, to=family.own, ports=(20, 22), protocols=[TCP])
            )
            for port in (20, 21, 22):
                self.assertPasses(packetFilter, tcp(family.peer, family.own, port))
            for port in (19, 23, 0, 65535):
                self.assertDrops(
                    packetFilter, tcp(family.peer, family.own, port), "droppedRule"
                )
            self.assertDrops(
                packetFilter, udp(family.peer, family.own, 21), "droppedRule"
            )
            self.assertDrops(
                packetFilter,
                tcp(family.other, family.own, 21),
                "droppedRule",
                OTHER,
            )

    def test_T_stateful_nonSynAlwaysPasses(self) -> None:
        """With an empty filter answers of TCP pass, an unsolicited SYN not."""
        packetFilter = makeFilter()
        for family in (V4, V6):
            for flags in (SYN_ACK, ACK, RST, ACK | 0x01, 0):
                self.assertPasses(
                    packetFilter, tcp(family.peer, family.own, 40000, flags)
                )
            self.assertDrops(
                packetFilter, tcp(family.peer, family.own, 40000, SYN), "droppedRule"
            )
            # Flags beside SYN that are not ACK make it no less a first segment.
            self.assertDrops(
                packetFilter,
                tcp(family.peer, family.own, 40000, SYN | 0xC0 | 0x01),
                "droppedRule",
            )

    def test_synOfRememberedFlow(self) -> None:
        """
        That later segments of a flow pass does not open the way for a SYN, and
        a SYN that passes does so after them.
        """
        for family in (V4, V6):
            packetFilter = makeFilter(rule("*", ports=(80, 80)))
            for port, reason in ((80, None), (81, "droppedRule")):
                self.assertPasses(packetFilter, tcp(family.peer, family.own, port, ACK))
                syn = tcp(family.peer, family.own, port, SYN)
                if reason is None:
                    self.assertPasses(packetFilter, syn)
                else:
                    self.assertDrops(packetFilter, syn, reason)
                self.assertPasses(packetFilter, tcp(family.peer, family.own, port, ACK))

    def test_withOptions(self) -> None:
        """IPv4 options shift the header, and with it the port."""
        packetFilter = makeFilter(rule("*", ports=(80, 80)))
        options = bytes((1,)) * 8
        self.assertPasses(packetFilter, tcp(V4.peer, V4.own, 80, options=options))
        self.assertDrops(
            packetFilter, tcp(V4.peer, V4.own, 81, options=options), "droppedRule"
        )


class DatagramTests(FilterTestCase):
    """
    Tests for UDP and SCTP, whose answers are known by the flows begun here.
    """

    def test_needsRule(self) -> None:
        """A datagram that answers nothing needs a rule for its port."""
        for family in (V4, V6):
            packetFilter = makeFilter(
                rule(family.peer, to=family.own, ports=(53, 53), protocols=[UDP, 132])
            )
            for make in (udp, sctp):
                self.assertPasses(packetFilter, make(family.peer, family.own, 53))
                self.assertDrops(
                    packetFilter, make(family.peer, family.own, 54), "droppedRule"
                )

    def test_T_stateful_answersPass(self) -> None:
        """What this node asked for passes without a rule; nothing else does."""
        for family in (V4, V6):
            for make in (udp, sctp):
                packetFilter = makeFilter()
                question = make(family.own, family.peer, 53, sourcePort=5000)
                answer = make(family.peer, family.own, 5000, sourcePort=53)
                self.assertDrops(packetFilter, answer, "droppedRule")
                self.assertEqual([question], packetFilter.noteOutbound([question]))
                self.assertPasses(packetFilter, answer)
                for wrong in (
                    make(family.peer, family.own, 5000, sourcePort=54),
                    make(family.peer, family.own, 5001, sourcePort=53),
                ):
                    self.assertDrops(packetFilter, wrong, "droppedRule")
                self.assertDrops(
                    packetFilter,
                    make(family.other, family.own, 5000, sourcePort=53),
                    "droppedRule",
                    OTHER,
                )

    def test_protocolIsPartOfTheFlow(self) -> None:
        """A question by UDP lets in no SCTP."""
        packetFilter = makeFilter()
        packetFilter.noteOutbound([udp(V4.own, V4.peer, 53, sourcePort=5000)])
        self.assertDrops(
            packetFilter, sctp(V4.peer, V4.own, 5000, sourcePort=53), "droppedRule"
        )

    def _ask(self, packetFilter: PacketFilter, port: int) -> None:
        packetFilter.noteOutbound([udp(V4.own, V4.peer, port, sourcePort=5000)])

    def _answer(self, port: int) -> bytes:
        return udp(V4.peer, V4.own, 5000, sourcePort=port)

    def test_leastRecentlyUsedFlowGoes(self) -> None:
        """Of 513 flows the one unused for longest is forgotten, and counted."""
        packetFilter = makeFilter()
        for port in range(1, MOST_FLOWS + 1):
            self._ask(packetFilter, port)
        self.assertEqual(512, MOST_FLOWS)
        # Both a question and an answer count as use.
        self._ask(packetFilter, 1)
        self.assertPasses(packetFilter, self._answer(2))
        self.assertEqual(0, packetFilter.counters.flowsForgotten)
        self._ask(packetFilter, 1001)
        self._ask(packetFilter, 1002)
        self.assertEqual(2, packetFilter.counters.flowsForgotten)
        for port in (1, 2, 5, 1001, 1002):
            self.assertPasses(packetFilter, self._answer(port))
        for port in (3, 4):
            self.assertDrops(packetFilter, self._answer(port), "droppedRule")

    def test_rememberedAnswerCountsAsUse(self) -> None:
        """A flow that goes on stays, however many others begin."""
        packetFilter = makeFilter()
        self._ask(packetFilter, 1)
        for port in range(1000, 1000 + 3 * MOST_FLOWS):
            self._ask(packetFilter, port)
            self.assertEqual(1, len(packetFilter.admit([self._answer(1)], PEER)), port)

    def test_forgottenFlowIsNotRemembered(self) -> None:
        """An answer that passed does not pass when its flow is forgotten."""
        packetFilter = makeFilter()
        self._ask(packetFilter, 1)
        self.assertPasses(packetFilter, self._answer(1))
        for port in range(1000, 1000 + MOST_FLOWS):
            self._ask(packetFilter, port)
        self.assertDrops(packetFilter, self._answer(1), "droppedRule")

    def test_flowsSurviveNewRules(self) -> None:
        """New rules do not cut off answers to what was asked before."""
        packetFilter = makeFilter(rule("*"))
        self._ask(packetFilter, 53)
        packetFilter.setRules(compileRules([]))
        self.assertPasses(packetFilter, self._answer(53))

    def test_wholePort(self) -> None:
        """Both bytes of a port count, and the source's port does not."""
        for family in (V4, V6):
            for protocol, make in ((TCP, tcp), (UDP, udp), (SCTP, sctp)):
                packetFilter = makeFilter(
                    rule("*", ports=(0x1234, 0x1234), protocols=[protocol])
                )
                self.assertPasses(packetFilter, make(family.peer, family.own, 0x1234))
                for port in (0x0034, 0x1200, 0x1334, 0x3412):
                    self.assertDrops(
                        packetFilter,
                        make(family.peer, family.own, port, sourcePort=0x1234),
                        "droppedRule",
                    )

    def test_shortDatagrams(self) -> None:
        """Datagrams with next to nothing in them are no different."""
        for family in (V4, V6):
            packetFilter = makeFilter(rule("*", ports=(53, 53)))
            for data in (b"", b"1", b"1234567890"):
                self.assertPasses(
                    packetFilter, udp(family.peer, family.own, 53, data=data)
                )
                self.assertDrops(
                    packetFilter,
                    udp(family.peer, family.own, 54, data=data),
                    "droppedRule",
                )


class PortlessTests(FilterTestCase):
    """
    Tests for protocols without ports (trap T-portless).
    """

    def test_T_portless_icmpIgnoresPortsAndProtocols(self) -> None:
        """An echo request passes where any rule links the two addresses."""
        for family, echo in ((V4, 8), (V6, 128)):
            packetFilter = makeFilter(
                rule(family.peer, to=family.own, ports=(443, 443), protocols=[TCP])
            )
            self.assertPasses(packetFilter, icmp(family.peer, family.own, echo))
            self.assertDrops(
                packetFilter,
                icmp(family.other, family.own, echo),
                "droppedRule",
                OTHER,
            )

    def test_icmpAnswersPass(self) -> None:
        """Echo replies and errors pass without a rule; other kinds do not."""
        packetFilter = makeFilter()
        for family, passing, dropped in (
            (V4, (0, 3, 11, 12), (4, 5, 8, 13, 129)),
            (V6, (1, 2, 3, 4, 129), (0, 11, 128, 135)),
        ):
            for kind in passing:
                self.assertPasses(packetFilter, icmp(family.peer, family.own, kind))
            for kind in dropped:
                self.assertDrops(
                    packetFilter, icmp(family.peer, family.own, kind), "droppedRule"
                )
        for family, reply in ((V4, 0), (V6, 129)):
            self.assertDrops(
                packetFilter, icmp(family.peer, family.own, reply, 1), "droppedRule"
            )

    def test_icmpOfTheOtherFamily(self) -> None:
        """ICMP in IPv6, and ICMPv6 in IPv4, are protocols like any other."""
        packetFilter = makeFilter()
        self.assertDrops(
            packetFilter,
            ip(V4.peer, V4.own, ICMPV6, bytes((129, 0, 0, 0, 0, 0))),
            "droppedRule",
        )
        self.assertDrops(
            packetFilter, ip(V6.peer, V6.own, ICMP, bytes(8)), "droppedRule"
        )

    def test_T_portless_tsmpAlwaysPasses(self) -> None:
        """TSMP passes without any rule, even with shields up."""
        packetFilter = makeFilter()
        packetFilter.setShieldsUp(True)
        for family in (V4, V6):
            self.assertPasses(
                packetFilter, ip(family.peer, family.own, TSMP, b"p12345678")
            )

    def test_otherProtocols(self) -> None:
        """Other protocols need a rule that names them and has all ports."""
        for family in (V4, V6):
            gre = ip(family.peer, family.own, 47, b"GRE")
            for drop in (
                rule("*"),  # the default protocols are four others
                rule("*", protocols=[47], ports=(0, 65534)),
                rule("*", protocols=[47], ports=(1, 65535)),
                rule("*", protocols=[46]),
                rule(family.other, protocols=[47]),
                rule("*", to=family.other, protocols=[47]),
            ):
                self.assertDrops(makeFilter(drop), gre, "droppedRule")
            self.assertPasses(makeFilter(rule("*", protocols=[46, 47])), gre)

    def test_otherProtocolsIgnoreAttributes(self) -> None:
        """To hold an attribute is not enough for other protocols."""
        packetFilter = makeFilter(
            rule("cap:vip", protocols=[47]), attributes={V4.peer: {"vip"}}
        )
        self.assertDrops(packetFilter, ip(V4.peer, V4.own, 47, b"GRE"), "droppedRule")

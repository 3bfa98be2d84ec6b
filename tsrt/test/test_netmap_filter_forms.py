"""
Tests for L{tsrt.netmap.filter}: rules of all forms, fragments, and packets that
are not what they say.
"""

from __future__ import annotations

from tsrt.addresses import Prefix, parseAddress
from tsrt.netmap.filter import PacketFilter
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
    TCP,
    TSMP,
    UDP,
    icmp,
    ip,
    sctp,
    tcp,
    udp,
)


class RuleFormTests(FilterTestCase):
    """
    Tests for the forms that rules have.
    """

    def test_defaultProtocols(self) -> None:
        """A rule without protocols is about TCP, UDP and ICMP."""
        unnamed: tuple[list[int] | None, ...] = (None, [])
        for protocols in unnamed:
            packetFilter = makeFilter(rule("*", protocols=protocols))
            for family in (V4, V6):
                self.assertPasses(packetFilter, tcp(family.peer, family.own, 1))
                self.assertPasses(packetFilter, udp(family.peer, family.own, 1))
                self.assertDrops(
                    packetFilter, sctp(family.peer, family.own, 1), "droppedRule"
                )

    def test_impossibleProtocols(self) -> None:
        """A list of only impossible protocols matches none, not all."""
        packetFilter = makeFilter(rule("*", protocols=[256, -1]))
        self.assertDrops(packetFilter, tcp(V4.peer, V4.own, 1), "droppedRule")
        packetFilter = makeFilter(rule("*", protocols=[256, TCP]))
        self.assertPasses(packetFilter, tcp(V4.peer, V4.own, 1))

    def test_sourceCapability(self) -> None:
        """C{cap:} lets in peers that hold an attribute, by their own address."""
        for family, echo in ((V4, 8), (V6, 128)):
            packetFilter = makeFilter(
                rule("cap:https://example.com/vip", ports=(80, 80)),
                attributes={family.peer: {"https://example.com/vip", "more"}},
            )
            self.assertPasses(packetFilter, tcp(family.peer, family.own, 80))
            self.assertPasses(packetFilter, icmp(family.peer, family.own, echo))
            self.assertDrops(
                packetFilter, tcp(family.peer, family.own, 81), "droppedRule"
            )
            self.assertDrops(
                packetFilter, tcp(family.other, family.own, 80), "droppedRule", OTHER
            )
            self.assertDrops(
                packetFilter, icmp(family.other, family.own, echo), "droppedRule", OTHER
            )

    def test_nobodyHasAttributes(self) -> None:
        """A filter that was told of no attributes knows of none."""
        packetFilter = PacketFilter()
        packetFilter.setSources(RouteTable([(Prefix.parse(V4.peer), PEER)]))
        packetFilter.setLocal([Prefix.parse(V4.own)])
        packetFilter.setRules(compileRules([rule("cap:vip")]))
        self.assertDrops(packetFilter, tcp(V4.peer, V4.own, 80), "droppedRule")

    def test_attributesAreAskedForAfresh(self) -> None:
        """When rules are set again, attributes are looked up again."""
        held = {parseAddress(V4.peer): {"vip"}}
        packetFilter = PacketFilter(lambda packed: held.get(packed, ()))
        packetFilter.setSources(RouteTable([(Prefix.parse(V4.peer), PEER)]))
        packetFilter.setLocal([Prefix.parse(V4.own)])
        rules = compileRules([rule("cap:vip")])
        packetFilter.setRules(rules)
        packet = tcp(V4.peer, V4.own, 80)
        self.assertPasses(packetFilter, packet)
        held.clear()
        packetFilter.setRules(rules)
        self.assertDrops(packetFilter, packet, "droppedRule")


class FragmentTests(FilterTestCase):
    """
    Tests for fragments (trap T-fragments; RFC 1858, RFC 3128).
    """

    def test_T_fragments_laterOnesPass(self) -> None:
        """A later fragment at a sane offset has no ports, and passes."""
        packetFilter = makeFilter()
        for family in (V4, V6):
            for units in (10, 11, 185):
                self.assertPasses(
                    packetFilter,
                    ip(family.peer, family.own, TCP, b"data", fragmentUnits=units),
                )

    def test_T_fragments_earlyOnesAreDropped(self) -> None:
        """One that could overwrite headers of the first is dropped."""
        packetFilter = makeFilter(rule("*"))
        for family in (V4, V6):
            for units in (1, 2, 9):
                self.assertDrops(
                    packetFilter,
                    ip(family.peer, family.own, TCP, bytes(40), fragmentUnits=units),
                    "droppedMalformed",
                )

    def test_firstFragmentIsDecidedByItsPorts(self) -> None:
        """The first fragment is judged like a whole packet."""
        packetFilter = makeFilter(rule("*", ports=(80, 80)))
        for family in (V4, V6):
            self.assertPasses(
                packetFilter,
                tcp(family.peer, family.own, 80, data=bytes(60), moreFragments=True),
            )
            self.assertDrops(
                packetFilter,
                tcp(family.peer, family.own, 81, data=bytes(60), moreFragments=True),
                "droppedRule",
            )

    def test_tinyFirstFragment(self) -> None:
        """A first fragment without all of its header is dropped."""
        packetFilter = makeFilter(rule("*"))
        for family in (V4, V6):
            self.assertDrops(
                packetFilter,
                ip(family.peer, family.own, TCP, bytes(16), moreFragments=True),
                "droppedMalformed",
            )

    def test_fragmentToMulticast(self) -> None:
        """A later fragment to multicast is dropped like any other packet."""
        packetFilter = makeFilter(rule("*"))
        self.assertDrops(
            packetFilter,
            ip(V4.peer, "224.0.0.1", UDP, b"data", fragmentUnits=20),
            "droppedMulticast",
        )

    def test_rememberedFlowAndFragments(self) -> None:
        """A remembered flow does not let in fragments that say its ports."""
        packetFilter = makeFilter(rule("*"))
        whole = tcp(V4.peer, V4.own, 80, ACK, data=bytes(40))
        self.assertPasses(packetFilter, whole)
        early = bytearray(whole)
        early[7] = 3
        self.assertDrops(packetFilter, bytes(early), "droppedMalformed")

    def test_fragmentedTSMP(self) -> None:
        """TSMP does not come in pieces."""
        packetFilter = makeFilter(rule("*"))
        self.assertDrops(
            packetFilter,
            ip(V4.peer, V4.own, TSMP, b"p12345678", moreFragments=True),
            "droppedMalformed",
        )


class MalformedTests(FilterTestCase):
    """
    Tests for packets that are not what they say.
    """

    def test_malformed(self) -> None:
        """Packets that are cut short, or claim to be longer, are dropped."""
        packetFilter = makeFilter(rule("*", protocols=list(range(256))))
        good4, good6 = tcp(V4.peer, V4.own, 80), tcp(V6.peer, V6.own, 80)
        for packet in (
            b"E",
            good4[:19],
            good4[:-1],
            good6[:39],
            good6[:-1],
            b"\x55" + good4[1:],
            b"\x00" * 60,
            b"\x44" + good4[1:],  # a header of 16 bytes
            tcp(V4.peer, V4.own, 80, total=19),
            tcp(V4.peer, V4.own, 80, total=39),
            tcp(V4.peer, V4.own, 80, total=41),
            tcp(V6.peer, V6.own, 80, total=19),
            tcp(V6.peer, V6.own, 80, total=21),
            ip(V4.peer, V4.own, 255, bytes(40)),
            ip(V6.peer, V6.own, 255, bytes(40)),
            ip(V4.peer, V4.own, 0, bytes(40)),
            ip(V6.peer, V6.own, 0, bytes(40)),
            ip(V6.peer, V6.own, 44, bytes(7)),
        ):
            self.assertDrops(packetFilter, packet, "droppedMalformed")

    def test_shortHeaders(self) -> None:
        """Each protocol needs its header, to the byte."""
        packetFilter = makeFilter(rule("*", protocols=list(range(256))))
        for family, lengths in (
            (V4, {ICMP: 4, TCP: 20, UDP: 8, 132: 12, TSMP: 7}),
            (V6, {ICMPV6: 4, TCP: 20, UDP: 8, 132: 12, TSMP: 7}),
        ):
            for protocol, length in lengths.items():
                self.assertPasses(
                    packetFilter, ip(family.peer, family.own, protocol, bytes(length))
                )
                self.assertDrops(
                    packetFilter,
                    ip(family.peer, family.own, protocol, bytes(length - 1)),
                    "droppedMalformed",
                )

    def test_rememberedFlowWithWrongLength(self) -> None:
        """To know a flow does not excuse a packet from being well-formed."""
        packetFilter = makeFilter(rule("*"))
        for family in (V4, V6):
            self.assertPasses(packetFilter, tcp(family.peer, family.own, 80))
            for total in (0, 19, 3000):
                self.assertDrops(
                    packetFilter,
                    tcp(family.peer, family.own, 80, total=total),
                    "droppedMalformed",
                )

    def test_bytesBehindTheEnd(self) -> None:
        """Bytes behind the end do not change what a packet is."""
        packetFilter = makeFilter(rule("*", ports=(80, 80)))
        for family in (V4, V6):
            self.assertPasses(packetFilter, tcp(family.peer, family.own, 80) + bytes(7))
            self.assertDrops(
                packetFilter, tcp(family.peer, family.own, 81) + bytes(7), "droppedRule"
            )

    def test_extensionHeaders(self) -> None:
        """Only the fragment header of IPv6 is looked behind."""
        packetFilter = makeFilter(rule("*"))
        destinationOptions = ip(V6.peer, V6.own, 60, bytes((TCP, 0)) + bytes(26))
        self.assertDrops(packetFilter, destinationOptions, "droppedRule")

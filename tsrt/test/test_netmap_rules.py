"""
Tests for L{tsrt.netmap.rules}: reading filter rules.
"""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.errors import WireError
from tsrt.netmap.rules import (
    DEFAULT_PROTOCOLS,
    RuleSet,
    compileRules,
    parseAddresses,
    prefixesBetween,
)
from tsrt.tailcfg import CapGrant, FilterRule, NetPortRange, PortRange, Raw, decode
from tsrt.test.filterharness import rule

TCP = 6

PEER = parseAddress("100.64.0.2")
OWN = parseAddress("100.64.0.1")


def nobody(packed: bytes) -> tuple[str, ...]:
    """Nobody has attributes."""
    return ()


def allows(rules: RuleSet, source: str = "100.64.0.2", port: int = 80) -> bool:
    """Whether TCP from a source to this node is let in."""
    return rules.allowsPort(TCP, parseAddress(source), OWN, port, nobody)


def granted(
    rules: RuleSet, source: str = "100.64.0.2", destination: str = "100.64.0.1"
) -> dict[str, list[bytes]]:
    """The capabilities between two addresses."""
    found = rules.capabilities(parseAddress(source), parseAddress(destination))
    return {name: list(map(bytes, values)) for name, values in found.items()}


class AddressFormTests(SynchronousTestCase):
    """
    Tests for L{parseAddresses}.
    """

    def assertReads(self, text: str, *expected: str) -> None:
        """C{text} means these prefixes."""
        self.assertEqual(
            list(expected), [prefix.text() for prefix in parseAddresses(text)]
        )

    def test_forms(self) -> None:
        """Everything, a prefix, a range and an address are understood."""
        self.assertReads("*", "0.0.0.0/0", "::/0")
        self.assertReads("10.0.0.0/8", "10.0.0.0/8")
        self.assertReads("fd7a:115c:a1e0::/48", "fd7a:115c:a1e0::/48")
        self.assertReads("100.64.0.1", "100.64.0.1/32")
        self.assertReads("fd7a::1", "fd7a::1/128")
        self.assertReads("10.0.0.1-10.0.0.1", "10.0.0.1/32")
        self.assertReads(
            "10.0.0.1-10.0.0.6",
            "10.0.0.1/32",
            "10.0.0.2/31",
            "10.0.0.4/31",
            "10.0.0.6/32",
        )
        self.assertReads("fd7a::2-fd7a::5", "fd7a::2/127", "fd7a::4/127")
        self.assertReads("0.0.0.0-255.255.255.255", "0.0.0.0/0")
        self.assertReads("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0")

    def test_malformed(self) -> None:
        """Everything else is an error, bits beyond a prefix's length too."""
        for text in (
            "",
            "**",
            "10.0.0.1/8",
            "fd7a::1/48",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.2-10.0.0.1",
            "10.0.0.1-fd7a::1",
            "10.0.0.1-",
            "-10.0.0.1",
            "10.0.0.1-10.0.0.2-10.0.0.3",
            "10.0.0.1-10.0.0.2/32",
            "cap:vip",
            "host.example.com",
            "10.0.0",
            "fe80::1%eth0",
        ):
            self.assertRaises(WireError, parseAddresses, text)

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from((32, 128)), st.data())
    def test_rangesAreMinimal(self, bits: int, data: st.DataObject) -> None:
        """Ranges become the same prefixes as with the standard library."""
        number = st.one_of(
            st.integers(0, (1 << bits) - 1),
            st.integers(0, 40),
            st.just((1 << bits) - 1),
        )
        low, high = sorted((data.draw(number), data.draw(number)))
        make = ipaddress.IPv4Address if bits == 32 else ipaddress.IPv6Address
        first, last = make(low), make(high)
        expected = [
            (network.network_address.packed, network.prefixlen)
            for network in ipaddress.summarize_address_range(first, last)  # type: ignore[type-var]  # both of one family
        ]
        self.assertEqual(
            expected,
            [(p.address, p.length) for p in prefixesBetween(first.packed, last.packed)],
        )

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet="0123456789abcdef.:/-*cap% ", max_size=30))
    def test_anyText(self, text: str) -> None:
        """Any text is read, or is a L{WireError}."""
        try:
            self.assertTrue(parseAddresses(text))
        except WireError:
            pass


class CompileTests(SynchronousTestCase):
    """
    Tests for L{compileRules}.
    """

    def test_nothing(self) -> None:
        """R-PF-1: no rules let in nothing."""
        rules = compileRules([])
        self.assertEqual(RuleSet(), rules)
        self.assertFalse(allows(rules))

    def test_allowAll(self) -> None:
        """The rule that lets in everything does, as it stands in documents."""
        one = decode(
            FilterRule,
            b'{"SrcIPs":["*"],"DstPorts":[{"IP":"*","Ports":{"First":0,"Last":65535}}]}',
        )
        rules = compileRules([one])
        self.assertEqual([], rules.errors)
        for port in (0, 1, 65535):
            self.assertTrue(allows(rules, port=port))
        self.assertTrue(allows(rules, "8.8.8.8"))

    def test_protocols(self) -> None:
        """Four protocols by default; impossible numbers count for nothing."""
        self.assertEqual(frozenset((1, 6, 17, 58)), DEFAULT_PROTOCOLS)
        for given_, expected in (
            (None, DEFAULT_PROTOCOLS),
            ([], DEFAULT_PROTOCOLS),
            ([6], {6}),
            ([0, 255], {0, 255}),
            ([6, 256, -1, 99999], {6}),
            ([256], set()),
        ):
            (match,) = compileRules([rule("*", protocols=given_)]).matches
            self.assertEqual(expected, match.protocols)

    def test_badSourceCostsOnlyItself(self) -> None:
        """The other sources of a rule, and the other rules, stay in force."""
        rules = compileRules(
            [rule("10.0.0.1/8", "nonsense", "100.64.0.2"), rule("100.64.0.3")]
        )
        self.assertTrue(allows(rules))
        self.assertTrue(allows(rules, "100.64.0.3"))
        self.assertFalse(allows(rules, "10.0.0.1"))
        self.assertEqual(2, len(rules.errors))
        self.assertIn("'10.0.0.1/8'", rules.errors[0])

    def test_badDestinationCostsOnlyItself(self) -> None:
        """The other destinations of a rule stay in force."""
        rules = compileRules(
            [
                FilterRule(
                    srcIPs=["*"],
                    dstPorts=[
                        NetPortRange(ip="cap:vip", ports=PortRange(first=0, last=9)),
                        NetPortRange(ip="*", ports=PortRange(first=90, last=80)),
                        NetPortRange(ip="*", ports=PortRange(first=-1, last=80)),
                        NetPortRange(ip="*", ports=PortRange(first=80, last=65536)),
                        NetPortRange(ip="100.64.0.1", ports=PortRange(80, 81)),
                    ],
                )
            ]
        )
        self.assertEqual(4, len(rules.errors))
        for port, expected in ((79, False), (80, True), (81, True), (82, False)):
            self.assertIs(expected, allows(rules, port=port))

    def test_ruleWithoutGoodSource(self) -> None:
        """When all sources are bad nobody is let in, rather than all."""
        for texts in (["nonsense"], [], ["100.64.0.1-100.64.0.0"]):
            self.assertFalse(allows(compileRules([rule(*texts)])))

    def test_ruleWithoutDestination(self) -> None:
        """A rule without good destinations lets in nobody."""
        for destinations in (None, [], [NetPortRange(ip="x")]):
            one = FilterRule(srcIPs=["*"], dstPorts=destinations)
            self.assertEqual([], compileRules([one]).matches)

    def test_destinationWithoutPorts(self) -> None:
        """A destination that names no ports is not open on all of them."""
        one = decode(FilterRule, b'{"SrcIPs":["*"],"DstPorts":[{"IP":"*"}]}')
        self.assertFalse(allows(compileRules([one])))

    def test_srcBitsRejectTheWholeFilter(self) -> None:
        """A form long out of use leaves no rule in force, and says so."""
        old = (
            b'{"SrcIPs":["1.2.3.4"],"SrcBits":[8],"DstPorts":[]}',
            b'{"SrcIPs":["*"],"DstPorts":[{"IP":"1.2.3.4","Bits":0}]}',
            b'{"SrcIPs":["*"],"DstPorts":[{"IP":"1.2.3.4","Bits":8}]}',
        )
        for data in old:
            for place in (0, 1):
                several = [rule("*")]
                several.insert(place, decode(FilterRule, data))
                rules = compileRules(several)
                self.assertEqual(([], []), (rules.matches, rules.grants))
                self.assertEqual(1, len(rules.errors))
        for data in (
            b'{"SrcIPs":["*"],"SrcBits":[],"DstPorts":[{"IP":"*","Ports":{"Last":90}}]}',
            b'{"SrcIPs":["*"],"SrcBits":null,'
            b'"DstPorts":[{"IP":"*","Bits":null,"Ports":{"Last":90}}]}',
        ):
            self.assertTrue(allows(compileRules([decode(FilterRule, data)])))

    def test_errorsAreBounded(self) -> None:
        """A filter full of mistakes does not make a list without end."""
        rules = compileRules(
            [*(rule(f"wrong{n}") for n in range(1000)), rule("100.64.0.2")]
        )
        self.assertEqual(20, len(rules.errors))
        self.assertIn("wrong0", rules.errors[0])
        self.assertTrue(allows(rules))

    def test_sameSourcesAreReadOnce(self) -> None:
        """Rules with the same sources share what was read of them."""
        rules = compileRules([rule("100.64.0.2", "*"), rule("100.64.0.2", "*")])
        self.assertIs(rules.matches[0].sources, rules.matches[1].sources)

    def test_attributesAreLookedUpOnce(self) -> None:
        """For one packet attributes are asked for at most once."""
        asked: list[bytes] = []

        def attributes(packed: bytes) -> tuple[str, ...]:
            asked.append(packed)
            return ("c",)

        rules = compileRules([rule("cap:a"), rule("cap:b"), rule("cap:c")])
        self.assertEqual([], rules.errors)
        self.assertTrue(rules.usesAttributes)
        self.assertTrue(rules.allowsPort(TCP, PEER, OWN, 80, attributes))
        self.assertTrue(rules.allowsHost(PEER, OWN, attributes))
        self.assertEqual([PEER, PEER], asked)
        plain = compileRules([rule("*")])
        self.assertFalse(plain.usesAttributes)
        self.assertTrue(plain.allowsPort(TCP, PEER, OWN, 80, attributes))
        self.assertEqual(2, len(asked))

    def test_letsIn(self) -> None:
        """Whether any of some addresses may send at all can be asked."""
        rules = compileRules(
            [
                rule("100.64.0.2", ports=(80, 80)),
                FilterRule(srcIPs=["100.64.0.3"], capGrant=[CapGrant(caps=["x"])]),
            ]
        )
        self.assertTrue(rules.letsIn([parseAddress("100.64.0.9"), PEER]))
        self.assertFalse(rules.letsIn([parseAddress("100.64.0.3")]))
        self.assertFalse(rules.letsIn([]))


class GrantTests(SynchronousTestCase):
    """
    Tests for capabilities that rules grant.
    """

    def test_grant(self) -> None:
        """Sources get the capabilities towards the destinations, only these."""
        rules = compileRules(
            [
                decode(
                    FilterRule,
                    b'{"SrcIPs":["100.64.0.2"],"CapGrant":[{"Dsts":["100.64.0.1/32"],'
                    b'"CapMap":{"https://example.com/cap/files":null,'
                    b'"example.com/cap/x":[{"a":1},2]}}]}',
                )
            ]
        )
        self.assertEqual(
            {
                "https://example.com/cap/files": [],
                "example.com/cap/x": [b'{"a":1}', b"2"],
            },
            granted(rules),
        )
        self.assertEqual({}, granted(rules, source="100.64.0.3"))
        self.assertEqual({}, granted(rules, destination="100.64.0.9"))
        # A grant lets in no packet.
        self.assertFalse(allows(rules))

    def test_valuesAreJoined(self) -> None:
        """Several grants of one capability give all their values, in order."""
        rules = compileRules(
            [
                FilterRule(
                    srcIPs=["*"],
                    capGrant=[
                        CapGrant(dsts=["100.64.0.0/10"], capMap={"x": [Raw(b"1")]}),
                        CapGrant(dsts=["100.64.0.1"], capMap={"x": [Raw(b"2")]}),
                        CapGrant(dsts=["100.64.0.9"], capMap={"x": [Raw(b"3")]}),
                    ],
                ),
                FilterRule(
                    srcIPs=["100.64.0.2"],
                    capGrant=[
                        CapGrant(
                            dsts=["0.0.0.0/0"],
                            caps=["x", "older"],
                            capMap={"x": [Raw(b"4")]},
                        )
                    ],
                ),
            ]
        )
        self.assertEqual({"x": [b"1", b"2", b"4"], "older": []}, granted(rules))
        # What was told does not change what is told next.
        self.assertEqual({"x": [b"1", b"2", b"4"], "older": []}, granted(rules))

    def test_attributesDoNotCount(self) -> None:
        """C{cap:} sources get no capabilities."""
        rules = compileRules(
            [
                FilterRule(
                    srcIPs=["cap:vip"],
                    capGrant=[CapGrant(dsts=["0.0.0.0/0"], caps=["x"])],
                )
            ]
        )
        self.assertEqual({}, granted(rules))

    def test_badDestinationCostsOnlyItself(self) -> None:
        """The other destinations of a grant stay, and the other grants."""
        rules = compileRules(
            [
                FilterRule(
                    srcIPs=["*"],
                    capGrant=[
                        CapGrant(dsts=["nonsense", "100.64.0.1"], caps=["x"]),
                        CapGrant(dsts=["*"], caps=["never"]),
                        CapGrant(dsts=["100.64.0.1"], caps=["y"]),
                        CapGrant(caps=["nowhere"]),
                    ],
                )
            ]
        )
        self.assertEqual({"x": [], "y": []}, granted(rules))
        self.assertEqual(2, len(rules.errors))

    def test_IPv6(self) -> None:
        """IPv6 is no different."""
        rules = compileRules(
            [
                FilterRule(
                    srcIPs=["fd7a:115c:a1e0::2"],
                    capGrant=[CapGrant(dsts=["fd7a:115c:a1e0::1/128"], caps=["x"])],
                )
            ]
        )
        self.assertEqual(
            {"x": []}, granted(rules, "fd7a:115c:a1e0::2", "fd7a:115c:a1e0::1")
        )
        self.assertEqual({}, granted(rules, "fd7a:115c:a1e0::2"))

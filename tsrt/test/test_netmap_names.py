"""
Tests for L{tsrt.netmap.names}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import formatAddress, parseAddress
from tsrt.netmap.delta import MapState
from tsrt.netmap.names import SERVICE_NAME, NameTable, canonical, displayName
from tsrt.netmap.node import Node
from tsrt.tailcfg import DNSConfig, DNSRecord, Hostinfo, MapResponse, WireNode
from tsrt.tailcfg.capabilities import DNS_SUBDOMAIN_RESOLVE, MAGICDNS_AAAA
from tsrt.test.netmapworld import NOW, firstResponse, wireNode


def tableOf(*peers: WireNode, dns: DNSConfig | None = None, **own: object) -> NameTable:
    """The names of a tailnet of node 1, with what is unusual about it."""
    state = MapState()
    state.apply(
        firstResponse(*peers, node=wireNode(1, **own), dnsConfig=dns or DNSConfig()),
        NOW,
    )
    return NameTable(state.map)


def resolved(table: NameTable, name: str) -> list[str]:
    """The addresses of a name as text."""
    return [formatAddress(packed) for packed in table.resolve(name)]


def answered(table: NameTable, name: str) -> list[str] | None:
    """What MagicDNS answers, as text."""
    found = table.answer(name)
    return None if found is None else [formatAddress(packed) for packed in found]


def records(*entries: tuple[str, str, str]) -> DNSConfig:
    """A configuration with extra records: name, type and value."""
    return DNSConfig(
        domains=["tail.example"],
        extraRecords=[DNSRecord(name=n, type=t, value=v) for n, t, v in entries],
    )


BOTH = ["100.64.0.2", "fd7a:115c:a1e0::2"]


class ResolveTests(SynchronousTestCase):
    """
    Tests for L{NameTable.resolve}, what programs in this process ask.
    """

    def test_forms(self) -> None:
        """Short and full names, with and without a dot, in any case."""
        table = tableOf(wireNode(2))
        for name in (
            "n2",
            "N2",
            "n2.",
            "n2.tail.example",
            "n2.tail.example.",
            "N2.Tail.EXAMPLE",
        ):
            self.assertEqual(BOTH, resolved(table, name), name)

    def test_unknown(self) -> None:
        """Other names, and none, have no addresses."""
        table = tableOf(wireNode(2))
        for name in ("", ".", "n3", "n2.other.example", "n2.tail", "x.n2", "example"):
            self.assertEqual([], resolved(table, name), name)

    def test_thisNode(self) -> None:
        """This node is found by its name like the others."""
        self.assertEqual(["100.64.0.1", "fd7a:115c:a1e0::1"], resolved(tableOf(), "n1"))

    def test_nobodyTakesThisNodesName(self) -> None:
        """A peer with the name of this node does not stand in for it."""
        table = tableOf(wireNode(2, name="n1.tail.example."))
        self.assertEqual("100.64.0.1", resolved(table, "n1")[0])
        self.assertNotIn("100.64.0.2", resolved(table, "n1"))

    def test_beforeTheNetmap(self) -> None:
        """Before there is a netmap there are no names."""
        table = NameTable(MapState().map)
        self.assertEqual(0, len(table))
        self.assertEqual([], table.resolve("n1"))
        self.assertFalse(table.isLocal("n1"))

    def test_searchDomains(self) -> None:
        """A name is looked for in each search domain, this tailnet's first."""
        shared = wireNode(2, name="shared.other.example.")
        own, other = wireNode(3), wireNode(4, name="n3.other.example.")
        table = tableOf(
            shared, own, other, dns=DNSConfig(domains=["Other.Example.", "third"])
        )
        self.assertEqual(("tail.example", "other.example", "third"), table.domains)
        self.assertEqual(BOTH, resolved(table, "shared"))
        self.assertEqual("100.64.0.3", resolved(table, "n3")[0])

    def test_orderOfSearchDomains(self) -> None:
        """Where control lists this tailnet's domain its order counts."""
        own, other = wireNode(3), wireNode(4, name="n3.other.example.")
        table = tableOf(
            own, other, dns=DNSConfig(domains=["other.example", "tail.example"])
        )
        self.assertEqual("100.64.0.4", resolved(table, "n3")[0])

    def test_R_DNS_13_emptyDomain(self) -> None:
        """An empty search domain is no domain, and not everything is local."""
        table = tableOf(wireNode(2), dns=DNSConfig(domains=["", ".", "tail.example"]))
        self.assertEqual(("tail.example",), table.domains)
        self.assertFalse(table.isLocal("www.example.com"))
        self.assertFalse(table.isLocal(""))

    def test_T_singleAddress(self) -> None:
        """Nodes of one family have the one address."""
        for address in ("100.64.0.2", "fd7a:115c:a1e0::2"):
            table = tableOf(wireNode(2, addresses=[address], allowedIPs=None))
            self.assertEqual([address], resolved(table, "n2"))
            self.assertEqual([address], answered(table, "n2.tail.example"))

    def test_nodeWithoutName(self) -> None:
        """A node without a name has none, and is in nobody's way."""
        table = tableOf(wireNode(2, name=""))
        self.assertEqual(1, len(table))
        self.assertIsNone(table.nameOf(parseAddress("100.64.0.2")))

    def test_resultIsACopy(self) -> None:
        """To change what was found changes nothing."""
        table = tableOf(wireNode(2))
        table.resolve("n2").clear()
        found = table.answer("n2.tail.example")
        assert found is not None
        found.clear()
        self.assertEqual(BOTH, resolved(table, "n2"))
        self.assertEqual(BOTH[:1], answered(table, "n2.tail.example"))

    def test_expiredNode(self) -> None:
        """When the key of this node has expired nothing has a name."""
        table = tableOf(wireNode(2), expired=True)
        self.assertEqual([], table.resolve("n2"))
        self.assertEqual((), table.domains)
        self.assertIsNone(table.nameOf(parseAddress("100.64.0.2")))

    def test_subdomains(self) -> None:
        """Where a node asks for it, names below its own lead to it."""
        table = tableOf(
            wireNode(2, capMap={DNS_SUBDOMAIN_RESOLVE: None}),
            wireNode(3),
            wireNode(4, name="a.n2.tail.example."),
        )
        for name in ("x.n2.tail.example", "y.x.N2.tail.example."):
            self.assertEqual(BOTH, resolved(table, name))
            self.assertEqual(BOTH[:1], answered(table, name))
        # An exact name comes first.
        self.assertEqual("100.64.0.4", resolved(table, "a.n2.tail.example")[0])
        for name in ("x.n3.tail.example", "xn2.tail.example"):
            self.assertEqual([], resolved(table, name))
            self.assertIsNone(answered(table, name))

    def test_special(self) -> None:
        """MagicDNS itself, and sites behind a subnet router, have names."""
        table = tableOf()
        self.assertEqual(
            ["100.100.100.100", "fd7a:115c:a1e0::53"], resolved(table, SERVICE_NAME)
        )
        site = ["fd7a:115c:a1e0:b1a:0:7:a01:105"]
        for name in ("10-1-1-5-via-7", "10-1-1-5-via-7.tail.ts.net."):
            self.assertEqual(site, resolved(table, name))
            self.assertEqual(site, answered(table, name))
        self.assertEqual([], resolved(table, "10-1-1-5-via-7.example.com"))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=40))
    def test_anyText(self, name: str) -> None:
        """No text makes a look-up fail."""
        table = tableOf(wireNode(2, capMap={DNS_SUBDOMAIN_RESOLVE: None}))
        self.assertIsInstance(table.resolve(name), list)
        table.answer(name)
        table.isLocal(name)


class AnswerTests(SynchronousTestCase):
    """
    Tests for L{NameTable.answer}, what DNS clients are told.
    """

    def test_IPv4Only(self) -> None:
        """Who has IPv4 is found by IPv4, by the full name only."""
        table = tableOf(wireNode(2))
        self.assertEqual(BOTH[:1], answered(table, "N2.tail.example."))
        self.assertIsNone(answered(table, "n2"))
        self.assertIsNone(answered(table, ""))

    def test_both(self) -> None:
        """A node that asks for it is told both addresses."""
        table = tableOf(wireNode(2), capMap={MAGICDNS_AAAA: None})
        self.assertEqual(BOTH, answered(table, "n2.tail.example"))

    def test_nodeWithoutIPv4(self) -> None:
        """A node without IPv4 is told IPv6 addresses, of peers that have any."""
        table = tableOf(
            wireNode(2),
            wireNode(3, addresses=["100.64.0.3/32"]),
            addresses=["fd7a:115c:a1e0::1/128"],
        )
        self.assertEqual(BOTH[1:], answered(table, "n2.tail.example"))
        # The name is known, and has no addresses that would be of use.
        self.assertEqual([], answered(table, "n3.tail.example"))

    def test_families(self) -> None:
        """What is told depends on what this node and the other one have."""
        only4 = ["100.64.0.1/32"]
        only6 = ["fd7a:115c:a1e0::1/128"]
        for own, peer, expected in (
            ({"addresses": only4}, {}, BOTH[:1]),
            ({"addresses": only6}, {}, BOTH[1:]),
            ({}, {"addresses": BOTH[1:]}, BOTH[1:]),
            ({"addresses": only6}, {"addresses": BOTH[:1]}, []),
            ({"addresses": only6}, {"addresses": BOTH[1:]}, BOTH[1:]),
            ({"capMap": {MAGICDNS_AAAA: None}}, {"addresses": BOTH[1:]}, BOTH[1:]),
        ):
            table = tableOf(wireNode(2, **peer), **own)
            self.assertEqual(expected, answered(table, "n2.tail.example"))

    def test_recordBesideANode(self) -> None:
        """Extra records are told whole, also those beside a node's name."""
        table = tableOf(
            wireNode(2), dns=records(("n2.tail.example", "AAAA", "2001:db8::9"))
        )
        self.assertEqual([BOTH[0], "2001:db8::9"], answered(table, "n2.tail.example"))

    def test_namesWithoutAddresses(self) -> None:
        """A node without any address is known all the same."""
        table = tableOf(wireNode(2, addresses=[], allowedIPs=[]))
        self.assertEqual([], answered(table, "n2.tail.example"))


class ExtraRecordTests(SynchronousTestCase):
    """
    Tests for names that are no node's.
    """

    def test_forms(self) -> None:
        """Records of both families and of none are taken, any others not."""
        table = tableOf(
            dns=records(
                ("Web.Corp.", "", "192.0.2.1"),
                ("web.corp", "AAAA", "2001:db8::1"),
                ("web.corp", "a", "192.0.2.2"),
                ("web.corp", "A", "192.0.2.1"),
                ("web.corp", "TXT", "192.0.2.9"),
                ("web.corp", "CNAME", "n2.tail.example"),
                ("web.corp", "A", "nonsense"),
                ("", "A", "192.0.2.9"),
                (".", "A", "192.0.2.9"),
            )
        )
        expected = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
        self.assertEqual(expected, resolved(table, "web.corp"))
        self.assertEqual(expected, answered(table, "WEB.corp."))
        self.assertEqual([], resolved(table, ""))

    def test_R_DNS_16_families(self) -> None:
        """An A record holds no IPv6 address, an AAAA record no IPv4."""
        table = tableOf(
            dns=records(("a.corp", "A", "2001:db8::1"), ("b.corp", "AAAA", "192.0.2.1"))
        )
        for name in ("a.corp", "b.corp"):
            self.assertEqual([], resolved(table, name))
            self.assertIsNone(answered(table, name))

    def test_besideANode(self) -> None:
        """A record adds to a node of its name, and replaces nothing."""
        table = tableOf(
            wireNode(2),
            dns=records(
                ("n2.tail.example", "A", "192.0.2.1"),
                ("n1.tail.example", "A", "192.0.2.1"),
            ),
        )
        self.assertEqual([BOTH[0], "192.0.2.1", BOTH[1]], resolved(table, "n2"))
        self.assertEqual("100.64.0.1", resolved(table, "n1")[0])

    def test_inASearchDomain(self) -> None:
        """A record below a search domain has a short name, too."""
        table = tableOf(dns=records(("web.tail.example", "A", "192.0.2.1")))
        self.assertEqual(["192.0.2.1"], resolved(table, "web"))

    def test_hasNoReverse(self) -> None:
        """The address of a record has no name: many could claim it."""
        table = tableOf(dns=records(("web.corp", "A", "192.0.2.1")))
        self.assertIsNone(table.nameOf(parseAddress("192.0.2.1")))


class ReverseTests(SynchronousTestCase):
    """
    Tests for L{NameTable.nameOf} and for what is local.
    """

    def test_nameOf(self) -> None:
        """Both addresses lead to the full name; so does this node's."""
        table = tableOf(wireNode(2))
        for address, name in (
            ("100.64.0.1", "n1.tail.example"),
            ("100.64.0.2", "n2.tail.example"),
            ("fd7a:115c:a1e0::2", "n2.tail.example"),
            ("100.100.100.100", SERVICE_NAME),
            ("fd7a:115c:a1e0::53", SERVICE_NAME),
            ("100.64.0.3", None),
            ("8.8.8.8", None),
        ):
            self.assertEqual(name, table.nameOf(parseAddress(address)))

    def test_mappedAddresses(self) -> None:
        """
        Addresses that hold the end of an IPv4 address stand for it, unless
        they are somebody's own.
        """
        mapped = "fd7a:115c:a1e0:ab12:4843:cd96:6240:2"
        table = tableOf(wireNode(2))
        self.assertEqual("n2.tail.example", table.nameOf(parseAddress(mapped)))
        unknown = "fd7a:115c:a1e0:ab12:4843:cd96:6240:3"
        self.assertIsNone(table.nameOf(parseAddress(unknown)))
        table = tableOf(wireNode(2), wireNode(3, addresses=[f"{mapped}/128"]))
        self.assertEqual("n3.tail.example", table.nameOf(parseAddress(mapped)))

    def test_isLocal(self) -> None:
        """A name is local in a search domain, at a label's boundary."""
        table = tableOf(dns=DNSConfig(domains=["corp.example"]))
        for name, expected in (
            ("tail.example", True),
            ("nobody.tail.example", True),
            ("x.y.Corp.Example.", True),
            ("corp.example", True),
            ("xcorp.example", False),
            ("example", False),
            ("tail.example.com", False),
        ):
            self.assertIs(expected, table.isLocal(name), name)

    def test_canonical(self) -> None:
        """Names are compared in lower case, without the last dot."""
        self.assertEqual("a.b", canonical("A.B."))
        self.assertEqual("", canonical("."))

    def test_displayName(self) -> None:
        """A node is called by the best name that there is for it."""

        def called(**fields: object) -> str:
            return displayName(Node.fromWire(wireNode(2, **fields)))

        self.assertEqual("n2.tail.example", called())
        self.assertEqual("n2", called(name=""))
        nameless = {"name": "", "hostinfo": Hostinfo()}
        self.assertEqual("100.64.0.2", called(**nameless))
        addressless = {**nameless, "addresses": [], "allowedIPs": []}
        self.assertEqual(Node.fromWire(wireNode(2)).key.short(), called(**addressless))


class DeltaTests(SynchronousTestCase):
    """
    Names follow the netmap.
    """

    def test_renamed(self) -> None:
        """A peer that has another name is found by that one only."""
        state = MapState()
        state.apply(firstResponse(wireNode(2)), NOW)
        state.apply(
            MapResponse(peersChanged=[wireNode(2, name="new.tail.example.")]), NOW
        )
        table = NameTable(state.map)
        self.assertEqual([], table.resolve("n2"))
        self.assertEqual(BOTH, resolved(table, "new"))

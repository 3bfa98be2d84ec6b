"""Tests of the names of a tailnet, and of who is behind an address."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import formatAddress, parseAddress
from tsrt.netmap.names import NameTable, displayName
from tsrt.netmap.netmap import MapParts, NetworkMap
from tsrt.netmap.node import Node
from tsrt.netmap.whois import WhoIs
from tsrt.tailcfg import DNSConfig, DNSRecord, Hostinfo, UserProfile, WireNode
from tsrt.test.netmapworld import NOW, SUFFIX, raw, wireNode

BOTH = ["100.64.0.2", "fd7a:115c:a1e0::2"]


def table(
    *peers: WireNode, own: WireNode | None = None, dns: DNSConfig | None = None
) -> NameTable:
    """The names of a tailnet with some peers; this node is the node 1."""
    parts = MapParts(
        selfNode=Node.fromWire(own or wireNode(1), NOW, isSelf=True),
        dnsConfig=dns or DNSConfig(),
    )
    for peer in peers:
        parts.peers.put(Node.fromWire(peer, NOW))
    return NameTable(NetworkMap(parts))


def texts(addresses: list[bytes] | None) -> list[str] | None:
    """Packed addresses as text."""
    return None if addresses is None else [formatAddress(a) for a in addresses]


def records(*values: tuple[str, str, str]) -> DNSConfig:
    """A configuration with extra records."""
    return DNSConfig(
        extraRecords=[DNSRecord(name=n, type=t, value=v) for n, t, v in values]
    )


class ResolveTests(SynchronousTestCase):
    """L{NameTable.resolve}, as programs of this node use it."""

    def test_forms(self) -> None:
        """A short name, a full one, in any case, with and without a dot."""
        names = table(wireNode(2))
        for name in ("n2", "N2", "n2.", f"n2.{SUFFIX}", f"N2.{SUFFIX.upper()}."):
            self.assertEqual(texts(names.resolve(name)), BOTH, name)
        for name in ("", ".", "n3", f"n2.{SUFFIX}.{SUFFIX}", f"x.n2.{SUFFIX}", "2"):
            self.assertEqual(names.resolve(name), [], name)

    def test_self(self) -> None:
        """This node has a name, which no peer can take away."""
        thief = wireNode(2, name=f"n1.{SUFFIX}.")
        self.assertEqual(
            texts(table(thief).resolve("n1")), ["100.64.0.1", "fd7a:115c:a1e0::1"]
        )

    def test_searchDomains(self) -> None:
        """A short name is completed by each domain, this tailnet's first."""
        peers = (
            wireNode(2, name="x.other.example."),
            wireNode(3, name="y.other.example."),
            wireNode(4, name=f"y.{SUFFIX}."),
        )
        dns = DNSConfig(domains=["Other.Example.", ""])
        names = table(*peers, dns=dns)
        self.assertEqual(texts(names.resolve("x")), BOTH)
        self.assertEqual(texts(names.resolve("y"))[:1], ["100.64.0.4"])  # type: ignore[index]  # it is there
        self.assertEqual(names.domains, (SUFFIX, "other.example"))

    def test_R_DNS_13_emptyDomain(self) -> None:
        """An empty search domain does not make every name a local one."""
        names = table(dns=DNSConfig(domains=["", ".", "a.example"]))
        self.assertEqual(names.domains, (SUFFIX, "a.example"))
        self.assertTrue(names.isLocal(f"unknown.{SUFFIX}."))
        self.assertTrue(names.isLocal(SUFFIX.upper()))
        for name in ("www.example.com", "com", "", ".", f"x{SUFFIX}", "example"):
            self.assertFalse(names.isLocal(name), name)
        self.assertFalse(NameTable(NetworkMap()).isLocal("www.example.com"))

    def test_extraRecords(self) -> None:
        """Extra records add names, and addresses to names."""
        names = table(
            wireNode(2),
            dns=records(
                ("Db.example.", "A", "10.0.0.1"),
                ("db.example", "", "10.0.0.2"),
                ("db.example", "AAAA", "2001:db8::1"),
                ("db.example", "A", "10.0.0.1"),
                (f"n2.{SUFFIX}", "A", "10.0.0.9"),
                ("bad.example", "A", "nowhere"),
                ("bad.example", "CNAME", "10.0.0.1"),
                ("", "A", "10.0.0.1"),
            ),
        )
        self.assertEqual(
            texts(names.resolve("db.example")),
            ["10.0.0.1", "10.0.0.2", "2001:db8::1"],
        )
        self.assertEqual(names.resolve("db"), [])
        self.assertEqual(names.resolve("bad.example"), [])
        self.assertEqual(
            texts(names.resolve("n2")), ["100.64.0.2", "10.0.0.9", BOTH[1]]
        )

    def test_R_DNS_16_families(self) -> None:
        """A record of one family holds no address of the other."""
        names = table(
            dns=records(
                ("a.example", "AAAA", "10.0.0.1"), ("b.example", "A", "2001:db8::1")
            )
        )
        for name in ("a.example", "b.example"):
            self.assertEqual(names.resolve(name), [])
            self.assertIsNone(names.answer(name))

    def test_specialNames(self) -> None:
        """The resolver itself, and addresses of sites, have names."""
        names = table()
        self.assertEqual(
            texts(names.resolve("magicdns.localhost-tailscale-daemon.")),
            ["100.100.100.100", "fd7a:115c:a1e0::53"],
        )
        site = ["fd7a:115c:a1e0:b1a:0:7:a01:105"]
        self.assertEqual(texts(names.resolve("10-1-1-5-via-7")), site)
        self.assertEqual(texts(names.answer("10-1-1-5-via-7.x.ts.net.")), site)

    def test_subdomains(self) -> None:
        """A node with the attribute stands for all names below its own."""
        names = table(wireNode(2, capMap={"dns-subdomain-resolve": None}), wireNode(3))
        for name in (f"a.n2.{SUFFIX}", f"a.b.N2.{SUFFIX}."):
            self.assertEqual(texts(names.resolve(name)), BOTH)
            self.assertEqual(texts(names.answer(name)), BOTH[:1])
        self.assertEqual(names.resolve(f"a.n3.{SUFFIX}"), [])
        self.assertIsNone(names.answer(f"a.n3.{SUFFIX}"))

    def test_expiredSelf(self) -> None:
        """A node whose key has expired knows no names."""
        names = table(wireNode(2), own=wireNode(1, expired=True))
        self.assertEqual((len(names), names.resolve("n2"), names.domains), (0, [], ()))

    def test_unnamed(self) -> None:
        """A node without a name takes no place."""
        names = table(wireNode(2, name=""))
        self.assertEqual(len(names), 1)
        self.assertIsNone(names.nameOf(parseAddress("100.64.0.2")))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=30))
    def test_anyName(self, name: str) -> None:
        """Any text is a name that can be asked for."""
        names = table(wireNode(2, capMap={"dns-subdomain-resolve": None}))
        self.assertIsInstance(names.resolve(name), list)
        names.answer(name)
        names.isLocal(name)

    def test_answersAreCopies(self) -> None:
        """Nobody can spoil the table through what it gives."""
        names = table(wireNode(2))
        names.resolve("n2").clear()
        self.assertEqual(texts(names.resolve("n2")), BOTH)


class AnswerTests(SynchronousTestCase):
    """L{NameTable.answer}, as MagicDNS uses it."""

    def answer(self, own: WireNode, peer: WireNode) -> list[str] | None:
        """What is told of peer 2."""
        return texts(table(peer, own=own).answer(f"n2.{SUFFIX}."))

    def test_family(self) -> None:
        """IPv4 is preferred, unless this node lacks it, or wants both."""
        only6 = wireNode(1, addresses=["fd7a:115c:a1e0::1/128"])
        only4 = wireNode(1, addresses=["100.64.0.1/32"])
        aaaa = wireNode(1, capMap={"magicdns-aaaa": None})
        dual = wireNode(2)
        peer6 = wireNode(2, addresses=["fd7a:115c:a1e0::2/128"])
        peer4 = wireNode(2, addresses=["100.64.0.2/32"])
        for own, peer, expected in (
            (wireNode(1), dual, BOTH[:1]),
            (only4, dual, BOTH[:1]),
            (only6, dual, BOTH[1:]),
            (aaaa, dual, BOTH),
            (wireNode(1), peer6, BOTH[1:]),
            (only6, peer4, []),
            (only6, peer6, BOTH[1:]),
            (wireNode(1), wireNode(2, addresses=[]), []),
        ):
            self.assertEqual(self.answer(own, peer), expected)

    def test_noSearch(self) -> None:
        """Only full names are answered; a name that is not known is C{None}."""
        names = table(wireNode(2), dns=DNSConfig(domains=[SUFFIX]))
        self.assertIsNone(names.answer("n2"))
        self.assertIsNone(names.answer(f"n3.{SUFFIX}"))
        self.assertEqual(texts(names.answer(f"N2.{SUFFIX}")), BOTH[:1])

    def test_extraRecords(self) -> None:
        """Extra records are told whole, also those beside a node's name."""
        names = table(
            wireNode(2),
            dns=records(
                (f"n2.{SUFFIX}", "AAAA", "2001:db8::9"), ("x", "A", "10.0.0.1")
            ),
        )
        self.assertEqual(
            texts(names.answer(f"n2.{SUFFIX}")), ["100.64.0.2", "2001:db8::9"]
        )
        self.assertEqual(texts(names.answer("x.")), ["10.0.0.1"])
        self.assertEqual(texts(names.resolve("n2")), [*BOTH, "2001:db8::9"])


class ReverseTests(SynchronousTestCase):
    """L{NameTable.nameOf}."""

    def test_nodes(self) -> None:
        """Each address of a node leads to its full name."""
        names = table(wireNode(2))
        for text in BOTH:
            self.assertEqual(names.nameOf(parseAddress(text)), f"n2.{SUFFIX}")
        self.assertEqual(names.nameOf(parseAddress("100.64.0.1")), f"n1.{SUFFIX}")
        self.assertIsNone(names.nameOf(parseAddress("100.64.0.3")))
        self.assertIsNone(names.nameOf(parseAddress("10.0.0.1")))

    def test_service(self) -> None:
        """The addresses of MagicDNS have a name."""
        for text in ("100.100.100.100", "fd7a:115c:a1e0::53"):
            self.assertEqual(
                table().nameOf(parseAddress(text)),
                "magicdns.localhost-tailscale-daemon",
            )

    def test_mappedAddress(self) -> None:
        """An IPv6 address made from a node's IPv4 address leads to it."""
        names = table(wireNode(2, addresses=["100.90.80.70/32"]))
        mapped = parseAddress("fd7a:115c:a1e0:ab12:4843:cd96:625a:5046")
        self.assertEqual(names.nameOf(mapped), f"n2.{SUFFIX}")
        other = parseAddress("fd7a:115c:a1e0:ab12:4843:cd96:625a:5047")
        self.assertIsNone(names.nameOf(other))


class DisplayNameTests(SynchronousTestCase):
    """L{displayName}."""

    def test_fallbacks(self) -> None:
        """The name, or what else is known of a node, down to its key."""
        for fields, expected in (
            ({}, f"n2.{SUFFIX}"),
            ({"name": ""}, "n2"),
            ({"name": "", "hostinfo": None}, "100.64.0.2"),
        ):
            self.assertEqual(
                displayName(Node.fromWire(wireNode(2, **fields))), expected
            )
        bare = Node.fromWire(wireNode(2, name="", hostinfo=Hostinfo(), addresses=[]))
        self.assertEqual(displayName(bare), bare.key.short())


class WhoIsTests(SynchronousTestCase):
    """L{WhoIs}."""

    def whois(self, profile: UserProfile | None, **fields: object) -> WhoIs:
        """Who node 2 is."""
        node = Node.fromWire(wireNode(2, **fields), NOW)
        return WhoIs(
            node, profile, {"a": [], "b": [raw('{"x": 1}'), raw("2"), raw("{")]}
        )

    def test_user(self) -> None:
        """The login name comes before the display name."""
        both = UserProfile(id=1, loginName="a@example.com", displayName="A")
        self.assertEqual(self.whois(both).user, "a@example.com")
        self.assertEqual(self.whois(UserProfile(id=1, displayName="A")).user, "A")

    def test_unknownProfile(self) -> None:
        """A user that nothing is known of has no name; the node is known."""
        who = self.whois(None)
        self.assertEqual((who.user, who.node.id, who.tags), ("", 2, ()))
        self.assertTrue(who.can("a"))

    def test_tagged(self) -> None:
        """A tagged node belongs to nobody."""
        who = self.whois(UserProfile(id=1, loginName="a"), tags=["tag:web"])
        self.assertEqual((who.user, who.tags), ("", ("tag:web",)))

    def test_capabilities(self) -> None:
        """Capabilities are there or not; values come as Python values."""
        who = self.whois(None)
        self.assertTrue(who.can("a") and who.can("b"))
        self.assertFalse(who.can("c"))
        self.assertEqual(who.values("a"), [])
        self.assertEqual(who.values("b"), [{"x": 1}, 2])
        self.assertEqual(who.values("c"), [])

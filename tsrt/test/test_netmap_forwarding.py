"""Which networks a node leads to, and which of their addresses it dares to ask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import Prefix, parseAddress, viaPrefix
from tsrt.errors import ConfigError
from tsrt.netmap.forwarding import (
    EXIT_ROUTES,
    Destination,
    ForwardTable,
    PortRanges,
    Refusal,
    RouteKind,
    advertisedPrefixes,
    readAdvertised,
)

OFFICE = Prefix.parse("10.20.0.0/16")


def table(*texts: str) -> ForwardTable:
    """A table in which everything that is offered was approved."""
    prefixes = tuple(map(Prefix.parse, texts))
    return ForwardTable(prefixes, prefixes)


class AdvertisedTests(SynchronousTestCase):
    """Reading what a user wants to advertise."""

    def test_good(self) -> None:
        """Networks of IPv4, and of sites by IPv6."""
        for text in (
            "10.0.0.0/8",
            "192.168.1.7",
            "203.0.113.0/24",
            "169.254.169.254/32",
            viaPrefix(7, Prefix.parse("10.1.1.0/24")).text(),
            viaPrefix(7, Prefix.parse("0.0.0.0/0")).text(),
        ):
            self.assertEqual(readAdvertised(text), Prefix.parse(text))
        self.assertEqual(readAdvertised(" 10.0.0.0/8 "), Prefix.parse("10.0.0.0/8"))

    def test_R_CFG_3_bad(self) -> None:
        """What cannot be forwarded is refused, with the reason: IPv6, too."""
        for text, words in (
            ("10.0.0.1/8", "bits set"),
            ("ten", "not an address"),
            ("0.0.0.0/0", "exit node"),
            ("::/0", "exit node"),
            ("2001:db8::/32", "4via6"),
            ("fd7a:115c:a1e0:b1a::/64", "more than one site"),
            ("100.64.0.0/10", "tailnet itself"),
            ("100.64.3.0/24", "tailnet itself"),
            ("127.0.0.0/8", "nothing on a network"),
            ("127.0.0.1", "nothing on a network"),
            ("224.0.0.0/24", "nothing on a network"),
            ("240.0.0.0/4", "nothing on a network"),
            ("0.0.0.0/8", "nothing on a network"),
            (viaPrefix(7, Prefix.parse("127.0.0.1/32")).text(), "nothing on a network"),
        ):
            with self.assertRaises(ConfigError) as caught:
                readAdvertised(text)
            self.assertIn(words, caught.exception.describe(), text)

    def test_exitRoutes(self) -> None:
        """Peers take a node for an exit node only with both families; once each."""
        self.assertEqual(
            advertisedPrefixes([OFFICE, OFFICE], True), (OFFICE, *EXIT_ROUTES)
        )
        self.assertEqual(advertisedPrefixes([OFFICE], False), (OFFICE,))

    def test_ports(self) -> None:
        """Ports and ranges of them."""
        ports = PortRanges.parse(["443", 80, "8000-8010"])
        for port in (80, 443, 8000, 8010):
            self.assertIn(port, ports)
        for port in (1, 81, 7999, 8011, 65535):
            self.assertNotIn(port, ports)
        for bad in ("", "x", "0", "65536", "9-8", "1-", "-1", "²"):
            self.assertRaises(ConfigError, PortRanges.parse, [bad])


class ClassifyTests(SynchronousTestCase):
    """L{ForwardTable.classify}."""

    def where(self, table: ForwardTable, text: str) -> Destination | Refusal:
        """Where a flow to an address goes."""
        return table.classify(parseAddress(text))

    def test_R_FWD_5_R_GLB_6_whatWasOffered(self) -> None:
        """Forwarded is what was offered, whatever control approves beside it."""
        offered = (OFFICE, Prefix.parse("10.30.0.0/16"))
        approved = (OFFICE, Prefix.parse("10.40.0.0/16"))
        both = ForwardTable(offered, approved)
        self.assertEqual(both.prefixes, offered)
        self.assertEqual(both.approved, (OFFICE,))
        for text in ("10.20.0.5", "10.30.0.5"):
            self.assertIsInstance(self.where(both, text), Destination)
        self.assertIs(self.where(both, "10.40.0.5"), Refusal.NOT_ADVERTISED)
        self.assertFalse(ForwardTable((), approved))

    def test_longest(self) -> None:
        """The right to go to a network beats that of going to the internet."""
        both = table("10.20.0.0/16", "0.0.0.0/0", "::/0")
        self.assertEqual(
            self.where(both, "10.20.0.5"),
            Destination(parseAddress("10.20.0.5"), RouteKind.SUBNET),
        )
        self.assertEqual(
            self.where(both, "198.51.100.1"),
            Destination(parseAddress("198.51.100.1"), RouteKind.EXIT),
        )

    def test_R_FW_5_T_hostexit_guard(self) -> None:
        """
        By the right to go to the internet nobody reaches this machine, the cloud
        that it is in, its neighbours or the tailnet.
        """
        exit = table("0.0.0.0/0", "::/0")
        for text in (
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.100",
            "100.115.92.1",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "169.254.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ):
            self.assertIs(self.where(exit, text), Refusal.FORBIDDEN, text)
        for text in (
            "172.15.255.255",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "1.1.1.1",
        ):
            self.assertIsInstance(self.where(exit, text), Destination, text)

    def test_R_GLB_2_noIPv6(self) -> None:
        """No IPv6 leaves, although it is advertised."""
        exit = table("0.0.0.0/0", "::/0")
        for text in ("2001:db8::1", "fc00::1", "fe80::1", "::ffff:198.51.100.1", "::1"):
            self.assertIs(self.where(exit, text), Refusal.IPV6, text)
        for text in ("fd7a:115c:a1e0::53", "fd7a:115c:a1e0::1"):
            self.assertIs(self.where(exit, text), Refusal.FORBIDDEN, text)
        # Another site's network is not ours to lead to.
        via = viaPrefix(9, Prefix.parse("198.51.100.1/32"))
        self.assertIs(exit.classify(via.address), Refusal.FORBIDDEN)

    def test_subnetGuard(self) -> None:
        """A wide network does not hide what no network has, or the metadata."""
        wide = table("64.0.0.0/2", "128.0.0.0/1")
        for text in ("100.64.0.1", "127.0.0.1", "169.254.169.254", "224.0.0.1"):
            self.assertIs(self.where(wide, text), Refusal.FORBIDDEN, text)
        self.assertIsInstance(self.where(wide, "192.168.0.1"), Destination)
        meant = table("169.254.169.254/32")
        self.assertIsInstance(self.where(meant, "169.254.169.254"), Destination)

    def test_via(self) -> None:
        """A site's network by IPv6 is its network of IPv4."""
        site = table(viaPrefix(7, OFFICE).text())
        inside = viaPrefix(7, Prefix.parse("10.20.0.5/32")).address
        self.assertEqual(
            site.classify(inside),
            Destination(parseAddress("10.20.0.5"), RouteKind.SUBNET),
        )
        for other in (
            viaPrefix(8, Prefix.parse("10.20.0.5/32")).address,
            viaPrefix(7, Prefix.parse("10.21.0.5/32")).address,
            parseAddress("10.20.0.5"),
        ):
            self.assertIs(site.classify(other), Refusal.NOT_ADVERTISED)
        everything = table(viaPrefix(7, Prefix.parse("0.0.0.0/0")).text())
        for text in ("127.0.0.1", "169.254.169.254", "100.64.0.1"):
            via = viaPrefix(7, Prefix.host(parseAddress(text))).address
            self.assertIs(everything.classify(via), Refusal.FORBIDDEN, text)

    @given(
        st.lists(
            st.tuples(st.binary(min_size=4, max_size=4), st.integers(0, 32)), max_size=8
        ),
        st.binary(min_size=4, max_size=4),
    )
    def test_model(self, entries: list[tuple[bytes, int]], address: bytes) -> None:
        """What is forwarded lies in some prefix, and the longest says by what right."""
        prefixes = [Prefix(a, length).masked() for a, length in entries]
        found = ForwardTable(prefixes, prefixes).classify(address)
        covering = [p.length for p in prefixes if p.contains(address)]
        if not covering:
            self.assertIs(found, Refusal.NOT_ADVERTISED)
        elif isinstance(found, Destination):
            kind = RouteKind.SUBNET if max(covering) else RouteKind.EXIT
            self.assertEqual(found, Destination(address, kind))
        else:
            self.assertIs(found, Refusal.FORBIDDEN)

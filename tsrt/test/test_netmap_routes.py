"""
Tests for L{tsrt.netmap.routes}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import Prefix, parseAddress
from tsrt.keys import NodePublic
from tsrt.netmap.netmap import Node
from tsrt.netmap.routes import (
    RouteTable,
    buildRoutes,
    isSubnetRoute,
    routesToInstall,
)
from tsrt.tailcfg import WireNode


def key(number: int) -> bytes:
    """The raw node key of the node with a number."""
    return bytes((number,)) * 32


def node(number: int, *routes: str, **more: object) -> Node:
    """A node with its own two addresses and more routes."""
    addresses = [f"100.64.0.{number}/32", f"fd7a:115c:a1e0::{number:x}/128"]
    fields: dict[str, object] = {
        "id": number,
        "stableID": f"n{number}",
        "name": f"host{number}.tail.ts.net.",
        "key": NodePublic(key(number)).text(),
        "addresses": addresses,
        "allowedIPs": [*addresses, *routes],
        "homeDERP": 1,
    }
    fields.update(more)
    return Node.fromWire(WireNode(**fields))  # type: ignore[arg-type]  # fields of several types


def texts(prefixes: tuple[Prefix, ...]) -> set[str]:
    """Prefixes as text."""
    return {prefix.text() for prefix in prefixes}


OWN = {"100.64.0.5/32", "fd7a:115c:a1e0::5/128"}


class RouteTableTests(SynchronousTestCase):
    """
    Tests for L{RouteTable}.
    """

    def test_T_lpm_nested(self) -> None:
        """Of nested prefixes of every length the longest is found."""
        for text in ("10.11.12.13", "2001:db8:1:2:3:4:5:6"):
            address = parseAddress(text)
            bits = 8 * len(address)
            table: RouteTable[int] = RouteTable()
            for length in (*range(0, bits + 1, 3), bits - 1, bits):
                table.insert(Prefix(address, length).masked(), length)
            number = int.from_bytes(address, "big")
            for flipped in range(bits):
                probe = (number ^ 1 << (bits - 1 - flipped)).to_bytes(
                    len(address), "big"
                )
                # As many leading bits are right as stand before the wrong one.
                longest = max(n for n in (*range(0, bits, 3), bits - 1) if n <= flipped)
                self.assertEqual(longest, table.lookup(probe), flipped)
            self.assertEqual(bits, table.lookup(address))

    def test_T_lpm_ends(self) -> None:
        """The shortest and the longest lengths are right at their ends."""
        table = RouteTable(
            (Prefix.parse(text), text)
            for text in ("0.0.0.0/0", "10.0.0.2/31", "10.0.0.3/32", "128.0.0.0/1")
        )
        for address, expected in (
            ("10.0.0.1", "0.0.0.0/0"),
            ("10.0.0.2", "10.0.0.2/31"),
            ("10.0.0.3", "10.0.0.3/32"),
            ("10.0.0.4", "0.0.0.0/0"),
            ("127.255.255.255", "0.0.0.0/0"),
            ("128.0.0.0", "128.0.0.0/1"),
            ("255.255.255.255", "128.0.0.0/1"),
        ):
            self.assertEqual(expected, table.lookup(parseAddress(address)))

    def test_familiesAreApart(self) -> None:
        """A prefix of one family says nothing of the other."""
        table = RouteTable([(Prefix.parse("0.0.0.0/0"), 4)])
        self.assertIsNone(table.lookup(parseAddress("::1")))
        self.assertIsNone(table.lookup(b""))
        self.assertIsNone(table.lookup(bytes(5)))
        table.insert(Prefix.parse("::/0"), 6)
        self.assertEqual(6, table.lookup(parseAddress("::1")))
        self.assertEqual(4, table.lookup(parseAddress("1.1.1.1")))

    def test_lastValueCounts(self) -> None:
        """The last of several values for one prefix stays; size says so."""
        table: RouteTable[str] = RouteTable()
        for prefix in ("10.0.0.0/8", "10.0.0.1/32"):
            table.insert(Prefix.parse(prefix), "first")
            table.insert(Prefix.parse(prefix), "second")
        self.assertEqual(2, len(table))
        self.assertEqual(["second", "second"], list(table.values()))
        self.assertIn(parseAddress("10.200.0.1"), table)
        self.assertNotIn(parseAddress("11.0.0.1"), table)

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_T_lpm_likeTheModel(self, data: st.DataObject) -> None:
        """Look-ups give what a search of all prefixes gives."""
        bits = data.draw(st.sampled_from((32, 128)))
        # Few distinct leading bits, so that prefixes are nested often.
        numbers = st.builds(
            lambda high, low: (high << (bits - 8)) | low,
            st.sampled_from((0, 1, 10, 127, 128, 255)),
            st.one_of(st.integers(0, 3), st.integers(0, (1 << (bits - 8)) - 1)),
        )
        prefixes = data.draw(
            st.lists(st.tuples(numbers, st.integers(0, bits)), max_size=20)
        )
        table: RouteTable[int] = RouteTable()
        model: dict[tuple[int, int], int] = {}
        for value, (number, length) in enumerate(prefixes):
            prefix = Prefix(number.to_bytes(bits // 8, "big"), length)
            table.insert(prefix, value)
            model[number >> (bits - length), length] = value
        self.assertEqual(len(model), len(table))
        probes = [n for n, _ in prefixes] + data.draw(st.lists(numbers, max_size=5))
        for probe in probes:
            found = [
                (length, value)
                for (head, length), value in model.items()
                if probe >> (bits - length) == head
            ]
            expected = max(found)[1] if found else None
            self.assertEqual(expected, table.lookup(probe.to_bytes(bits // 8, "big")))


class RoutesToInstallTests(SynchronousTestCase):
    """
    Tests for L{routesToInstall} and L{isSubnetRoute}.
    """

    def test_R_RT_3_subnetRoutesWhenAccepted(self) -> None:
        """Networks behind a node are wanted or not; its addresses always."""
        router = node(5, "10.0.0.0/8", "192.0.2.1/32", "2001:db8::/64")
        self.assertEqual(OWN, texts(routesToInstall(router)))
        self.assertEqual(
            OWN | {"10.0.0.0/8", "192.0.2.1/32", "2001:db8::/64"},
            texts(routesToInstall(router, acceptRoutes=True)),
        )

    def test_R_RT_2_defaultRouteOfTheChosenNodeOnly(self) -> None:
        """A default route is installed for the chosen exit node alone."""
        exitNode = node(5, "0.0.0.0/0", "::/0")
        defaults = {"0.0.0.0/0", "::/0"}
        for acceptRoutes in (False, True):
            self.assertEqual(
                OWN | defaults, texts(routesToInstall(exitNode, acceptRoutes, "n5"))
            )
            for chosen in (None, "", "n6", "auto:any"):
                self.assertEqual(
                    OWN, texts(routesToInstall(exitNode, acceptRoutes, chosen))
                )

    def test_nodeWithoutStableID(self) -> None:
        """That nobody is chosen does not choose a node without an id."""
        self.assertEqual(
            OWN, texts(routesToInstall(node(5, "0.0.0.0/0", stableID=""), True, ""))
        )

    def test_R_RT_1_matchWithoutDefaultRoute(self) -> None:
        """To choose a node that has no default route gives it none."""
        self.assertEqual(OWN, texts(routesToInstall(node(5), True, "n5")))

    def test_R_RT_6_isSubnetRoute(self) -> None:
        """What leads beyond a node is told from what the node itself is."""
        own = node(5)
        for text, expected in (
            ("0.0.0.0/0", True),
            ("::/0", True),
            ("10.0.0.0/31", True),
            ("192.0.2.1/32", True),
            ("2001:db8::1/128", True),
            ("100.115.92.1/32", True),  # what ChromeOS uses inside
            ("100.64.0.0/10", True),
            ("100.64.0.5/32", False),
            ("100.64.0.77/32", False),
            ("fd7a:115c:a1e0::77/128", False),
        ):
            self.assertIs(expected, isSubnetRoute(own, Prefix.parse(text)), text)
        unusual = node(5, addresses=["192.0.2.1/32"])
        self.assertFalse(isSubnetRoute(unusual, Prefix.parse("192.0.2.1/32")))

    def test_unusableNodes(self) -> None:
        """Expired nodes, and those there is no way to, get no routes."""
        nowhere = {"homeDERP": 0}
        for fields, usable in (
            ({"expired": True}, False),
            (nowhere, False),
            ({**nowhere, "discoKey": "discokey:" + "11" * 32}, True),
            ({**nowhere, "isWireGuardOnly": True}, True),
            ({}, True),
        ):
            peer = node(5, "10.0.0.0/8", "0.0.0.0/0", **fields)
            routes = routesToInstall(peer, True, "n5")
            self.assertEqual(4 if usable else 0, len(routes), fields)

    def test_singleFamily(self) -> None:
        """T-single-address: a node with one address gets the route to it."""
        for text in ("100.64.0.9/32", "fd7a:115c:a1e0::9/128"):
            peer = node(9, addresses=[text], allowedIPs=None)
            self.assertEqual({text}, texts(routesToInstall(peer)))

    def test_noAllowedIPs(self) -> None:
        """An empty list of allowed prefixes means none at all."""
        self.assertEqual((), routesToInstall(node(5, allowedIPs=[])))


class BuildRoutesTests(SynchronousTestCase):
    """
    Tests for L{buildRoutes}.
    """

    def lookup(self, table: RouteTable[bytes], text: str) -> bytes | None:
        """The key that an address leads to."""
        return table.lookup(parseAddress(text))

    def test_peers(self) -> None:
        """Each address leads to the key of the peer that has it."""
        table = buildRoutes([node(2), node(3)])
        self.assertEqual(key(2), self.lookup(table, "100.64.0.2"))
        self.assertEqual(key(3), self.lookup(table, "fd7a:115c:a1e0::3"))
        self.assertIsNone(self.lookup(table, "100.64.0.4"))
        self.assertIsNone(self.lookup(table, "8.8.8.8"))

    def test_lowestIDWins(self) -> None:
        """Of several nodes with one prefix that with the lowest id gets it."""
        routers = [node(3, "10.0.0.0/8"), node(2, "10.0.0.0/8"), node(4, "10.1.0.0/16")]
        for order in (routers, routers[::-1]):
            table = buildRoutes(order, acceptRoutes=True)
            self.assertEqual(key(2), self.lookup(table, "10.200.0.1"))
            self.assertEqual(key(4), self.lookup(table, "10.1.0.1"))

    def test_unusableWinnerLeavesThePrefix(self) -> None:
        """An expired router leaves its prefix to the next one."""
        routers = [node(2, "10.0.0.0/8", expired=True), node(3, "10.0.0.0/8")]
        table = buildRoutes(routers, acceptRoutes=True)
        self.assertEqual(key(3), self.lookup(table, "10.0.0.1"))

    def test_R_RT_2_oneExitNode(self) -> None:
        """Of two that offer it only the chosen one gets the default route."""
        peers = [node(2, "0.0.0.0/0"), node(3, "0.0.0.0/0")]
        table = buildRoutes(peers, exitNodeID="n3")
        self.assertEqual(key(3), self.lookup(table, "8.8.8.8"))
        self.assertEqual(key(2), self.lookup(table, "100.64.0.2"))

    def test_R_RT_1_staleSelector(self) -> None:
        """R-RT-1: a chosen node that is not there leaves no default route."""
        table = buildRoutes([node(2, "0.0.0.0/0")], True, "n9")
        self.assertIsNone(self.lookup(table, "8.8.8.8"))

    def test_R_GLB_7_sourcesAreRoutes(self) -> None:
        """
        Where packets may go is where they may come from: the one table has
        exactly what L{routesToInstall} says, under all settings.
        """
        peers = [
            node(2, "10.0.0.0/8", "0.0.0.0/0"),
            node(3, "10.1.0.0/16", "::/0"),
            node(4, expired=True),
        ]
        probes = ["100.64.0.2", "100.64.0.4", "10.0.0.1", "10.1.0.1", "8.8.8.8", "2::2"]
        for acceptRoutes in (False, True):
            for exitNodeID in (None, "n2", "n3"):
                table = buildRoutes(peers, acceptRoutes, exitNodeID)
                for probe in probes:
                    owners = [
                        (prefix.length, -peer.id, peer.key.raw)
                        for peer in peers
                        for prefix in routesToInstall(peer, acceptRoutes, exitNodeID)
                        if prefix.contains(parseAddress(probe))
                    ]
                    expected = max(owners)[2] if owners else None
                    self.assertEqual(expected, self.lookup(table, probe))

    def test_R_SRC_1_subnetSourceNeedsAcceptedRoutes(self) -> None:
        """A source in a network behind a peer counts only if routes do."""
        router = node(2, "10.0.0.0/8")
        self.assertIsNone(self.lookup(buildRoutes([router]), "10.0.0.1"))
        self.assertEqual(
            key(2), self.lookup(buildRoutes([router], acceptRoutes=True), "10.0.0.1")
        )

    def test_R_SRC_2_internetSourceOfTheExitNodeOnly(self) -> None:
        """Only the chosen exit node may send from anywhere."""
        peers = [node(2, "0.0.0.0/0"), node(3, "0.0.0.0/0")]
        self.assertIsNone(self.lookup(buildRoutes(peers), "198.51.100.1"))
        for chosen in (2, 3):
            table = buildRoutes(peers, exitNodeID=f"n{chosen}")
            self.assertEqual(key(chosen), self.lookup(table, "198.51.100.1"))

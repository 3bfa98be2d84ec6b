"""
Tests for nodes behind NATs, in L{tsrt.testing.tailnet}.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tsrt.testing.links import Link
from tsrt.testing.nat import NAT_KINDS
from tsrt.testing.natkinds import EASY
from tsrt.testing.tailnet import TestTailnet


class NetworkTests(SynchronousTestCase):
    """A word puts a node behind a NAT."""

    def tailnet(self, nodes: Any, **arguments: Any) -> TestTailnet:
        tailnet = TestTailnet(nodes=nodes, **arguments)
        self.addCleanup(tailnet.close)
        return tailnet

    def path(self, tailnet: TestTailnet, one: str, other: str) -> str:
        """The way from one node to another, when it has had time to settle."""
        for _ in range(5):
            tailnet.wait(tailnet[one].ping(other))
            tailnet.settle(3)
        return tailnet.wait(tailnet[one].ping(other, kind="disco")).path

    def test_direct(self) -> None:
        """Two behind good NATs find each other, by addresses of their routers."""
        tailnet = self.tailnet({"a": "easy", "b": "port-restricted"})
        router = tailnet.hosts["b"].network
        self.assertEqual(
            self.path(tailnet, "a", "b").partition(":")[0], f"direct {router.external}"
        )

    def test_hardPair(self) -> None:
        """Where nobody can guess the other's port the relay stays."""
        tailnet = self.tailnet({"a": "symmetric-random", "b": "symmetric-random"})
        self.assertEqual(self.path(tailnet, "a", "b"), "relay r900")

    def test_udpBlocked(self) -> None:
        """A node that has no UDP at all comes up, and is reached by relay."""
        tailnet = self.tailnet({"a": "udp-blocked", "b": "none"})
        self.assertEqual(self.path(tailnet, "b", "a"), "relay r900")
        self.assertEqual(tailnet.hosts["a"].addresses, ["192.168.1.10"])
        self.assertIsNone(tailnet.hosts["b"].gateway)

    def test_everyKindComesUp(self) -> None:
        tailnet = self.tailnet({name: name for name in NAT_KINDS})
        for status in tailnet.waitUp():
            self.assertTrue(status.isRunning)

    def test_sharedNetwork(self) -> None:
        """Nodes in one network speak to each other inside of it."""
        tailnet = self.tailnet(["c"])
        office = tailnet.network("office", "symmetric", link=Link(delay=0.001))
        for name in "ab":
            tailnet.addNode(name, network=office)
        tailnet.waitUp()
        [address] = tailnet.hosts["b"].addresses
        self.assertEqual(
            self.path(tailnet, "a", "b").partition(":")[0], f"direct {address}"
        )

    def test_kindAsValue(self) -> None:
        tailnet = self.tailnet({"a": evolve(EASY, udpTimeout=300.0)})
        nat = tailnet.hosts["a"].network.nat
        assert nat is not None
        self.assertEqual(nat.kind.udpTimeout, 300.0)

    def test_startedElsewhere(self) -> None:
        """A node that is started again in another network has its keys still."""
        tailnet = self.tailnet({"a": "easy", "b": "none"})
        before = tailnet["a"].status.addresses
        tailnet.wait(tailnet["a"].stopService())
        cafe = tailnet.network("cafe", "cgnat")
        tailnet.addNode("a", network=cafe)
        tailnet.waitUp("a")
        self.assertIs(tailnet.hosts["a"].network, cafe)
        self.assertEqual(tailnet["a"].status.addresses, before)
        tailnet.wait(tailnet["b"].ping("a"))

    def test_ipv6(self) -> None:
        """With IPv6 behind hard NATs the direct path is one of IPv6."""
        hard = "symmetric-random"
        tailnet = self.tailnet({"a": hard, "b": hard, "c": "none"}, ipv6=True)
        address = tailnet.hosts["b"].addresses[1]
        path = self.path(tailnet, "a", "b")
        self.assertTrue(path.startswith(f"direct [{address}]"), path)
        self.assertTrue(self.path(tailnet, "c", "a").startswith("direct"))

    def test_ipv6Only(self) -> None:
        """A node without IPv4 joins, and is reached."""
        tailnet = self.tailnet({"b": "easy"}, ipv6=True)
        only6 = tailnet.internet.network("six", None, ipv6=True)
        tailnet.addNode("a", network=only6)
        tailnet.waitUp("a")
        path = self.path(tailnet, "b", "a")
        self.assertTrue(path.startswith("direct [2001:db8:"), path)

    def test_unknownKind(self) -> None:
        tailnet = self.tailnet([])
        with self.assertRaises(ValueError) as raised:
            tailnet.addNode("a", network="simetric")
        self.assertIn("symmetric", str(raised.exception))

    def test_routedNetworksDiffer(self) -> None:
        tailnet = self.tailnet({"a": "firewall", "b": "firewall"})
        one, two = tailnet.hosts["a"].addresses, tailnet.hosts["b"].addresses
        self.assertNotEqual(one, two)
        self.assertTrue(self.path(tailnet, "a", "b").startswith(f"direct {two[0]}"))

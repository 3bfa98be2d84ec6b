"""The status as C{tailscale status --json} tells it, and finding peers."""

from __future__ import annotations

import json
from datetime import datetime

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import NotRunning, UnknownPeer
from tsrt.runtime.hostinfo import describeNode
from tsrt.testing.tailnet import TestTailnet


class StatusTests(SynchronousTestCase):
    """Three nodes, of which two have talked."""

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=["a", "b", "c"])
        self.addCleanup(self.net.close)
        self.node = self.net["a"]
        self.net.wait(self.node.ping("b"))
        self.net.settle(2)
        self.net.wait(self.node.ping("b"))

    def test_self(self) -> None:
        """Who we are."""
        document = self.node.backendStatus()
        status = self.node.status
        self.assertEqual(document["BackendState"], "Running")
        self.assertEqual(document["TailscaleIPs"], list(status.addresses))
        own = document["Self"]
        self.assertEqual(own["HostName"], "a")
        self.assertEqual(own["DNSName"], "a.tailnet.test.")
        self.assertEqual(own["TailscaleIPs"], list(status.addresses))
        self.assertEqual(own["Relay"], status.homeRegion)
        self.assertTrue(own["Online"])
        self.assertTrue(own["Addrs"])
        self.assertEqual(document["CurrentTailnet"]["MagicDNSSuffix"], "tailnet.test")
        self.assertNotIn("ExitNodeStatus", document)
        json.dumps(document)

    def test_peers(self) -> None:
        """Whom we talk with, and how."""
        document = self.node.backendStatus()
        peers = {peer["HostName"]: peer for peer in document["Peer"].values()}
        self.assertEqual(sorted(peers), ["b", "c"])
        b, c = peers["b"], peers["c"]
        self.assertTrue(b["CurAddr"])
        self.assertEqual(b["Relay"], "r900")
        self.assertGreater(b["RxBytes"], 0)
        self.assertGreater(b["TxBytes"], 0)
        self.assertTrue(b["Active"] and b["Online"] and b["InEngine"])
        for name in ("LastWrite", "LastHandshake"):
            when = datetime.fromisoformat(b[name]).timestamp()
            self.assertLess(abs(self.net.clock.seconds() - when), 10, name)
            self.assertEqual(c[name], "0001-01-01T00:00:00Z")
        self.assertEqual((c["CurAddr"], c["RxBytes"], c["Active"]), ("", 0, False))
        self.assertFalse(c["InEngine"])
        for key, peer in document["Peer"].items():
            self.assertEqual(key, peer["PublicKey"])
        user = document["User"][str(b["UserID"])]
        self.assertEqual(user["LoginName"], self.node.status.user)

    def test_withoutPeers(self) -> None:
        """Who does not want to know of peers need not."""
        document = self.node.backendStatus(peers=False)
        self.assertIsNone(document["Peer"])
        self.assertIsNone(document["User"])

    def test_idle(self) -> None:
        """A peer that is not talked with any more is not active."""
        self.net.elapse(300)
        peers = self.node.backendStatus()["Peer"].values()
        [b] = [peer for peer in peers if peer["HostName"] == "b"]
        self.assertFalse(b["Active"])
        self.assertEqual(b["CurAddr"], "")

    def test_exitNode(self) -> None:
        """Which exit nodes there are, and which is in use."""
        control = self.net["c"]._engine.control
        hostinfo = describeNode(self.net["c"].preferences)
        hostinfo.routableIPs = ["0.0.0.0/0", "::/0"]
        control.setHostinfo(hostinfo)
        self.net.settle(2)
        self.net.control.approveRoutes("c")
        self.net.settle(2)
        self.node.setPreferences(exitNode="c")
        document = self.node.backendStatus()
        peers = {peer["HostName"]: peer for peer in document["Peer"].values()}
        self.assertTrue(peers["c"]["ExitNode"] and peers["c"]["ExitNodeOption"])
        self.assertFalse(peers["b"]["ExitNode"] or peers["b"]["ExitNodeOption"])
        self.assertEqual(document["ExitNodeStatus"]["ID"], peers["c"]["ID"])

    def test_starting(self) -> None:
        """Before control has let it in a node claims neither key nor address."""
        document = self.net.addNode("late").backendStatus()
        self.assertEqual(document["BackendState"], "Starting")
        self.assertNotIn("HaveNodeKey", document)
        self.assertIsNone(document["Self"])
        self.assertEqual(document["TailscaleIPs"], [])
        self.assertIs(self.node.backendStatus()["HaveNodeKey"], True)

    def test_notRunning(self) -> None:
        """A node that does not run has no status of that kind."""
        self.net.wait(self.node.stopService())
        self.assertRaises(NotRunning, self.node.backendStatus)

    def test_watchNetmap(self) -> None:
        """Who watches is told of what is so, and of each change; errors are his."""
        seen: list[set[str]] = []
        stop = self.node.watchNetmap(
            lambda netmap: seen.append({peer.hostname for peer in netmap.peers})
        )
        self.assertEqual(seen, [{"b", "c"}])

        def broken(netmap: object) -> None:
            raise ZeroDivisionError

        self.node.watchNetmap(broken)
        self.net.addNode("d")
        self.net.waitUp("d")
        self.net.settle(2)
        self.assertEqual(seen[-1], {"b", "c", "d"})
        self.assertGreater(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.net.wait(self.node.stopService())
        count = len(seen)
        self.node.startService()
        self.net.waitUp("a")
        self.assertGreater(len(seen), count)
        self.net.wait(self.net["d"].stopService())
        self.net.settle(2)
        stop()
        count = len(seen)
        self.net.control.deleteNode("d")
        self.net.settle(2)
        self.assertEqual(len(seen), count)
        self.assertEqual({p.hostname for p in self.node.netmap.peers}, {"b", "c"})
        self.flushLoggedErrors(ZeroDivisionError)

    def test_finding(self) -> None:
        """Peers by name, by address, by route; who is behind a flow."""
        [b, _] = sorted(self.node.peers(), key=lambda peer: peer.name)
        four = self.net["b"].status.addresses[0]
        for name in ("b", "B", "b.tailnet.test", "b.tailnet.test."):
            self.assertEqual(self.node.peerByName(name), b, name)
        self.assertIsNone(self.node.peerByName("nobody"))
        self.assertEqual(self.node.peerByIP(four), b)
        self.assertIsNone(self.node.peerByIP("100.64.9.9"))
        self.assertIsNone(self.node.peerByIP("nonsense"))
        self.assertEqual(self.node.peersWithRoute(four), (b,))
        self.assertEqual(self.node.peersWithRoute("10.0.0.1"), ())
        self.assertEqual(self.node.peersWithRoute("nonsense"), ())
        for flow in (four, f"{four}:80", IPv4Address("TCP", four, 80)):
            self.assertEqual(self.node.whois(flow).node, b)
        self.assertRaises(UnknownPeer, self.node.whois, "100.64.9.9:80")
        self.net.wait(self.node.stopService())
        self.assertIsNone(self.node.peerByName("b"))
        self.assertIsNone(self.node.peerByIP(four))
        self.assertEqual(self.node.peersWithRoute(four), ())

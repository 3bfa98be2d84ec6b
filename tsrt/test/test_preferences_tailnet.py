"""What users change while nodes run: routes, exit nodes, shields, names."""

from __future__ import annotations

from twisted.internet.error import NoRouteError
from twisted.internet.protocol import Factory, Protocol

from tsrt.errors import ConfigError
from tsrt.netmap.exitnode import ExitChoice
from tsrt.runtime.hostinfo import describeNode
from tsrt.test.faultworld import STREAM_PORT, Echo, FaultTestCase, Gather
from tsrt.testing.control import ControlConfig
from tsrt.testing.tailnet import TestTailnet

INTERNET = "203.0.113.80"
OFFICE = "10.20.0.5"


class PreferencesTestCase(FaultTestCase):
    """Node C{a} has preferences; C{x} and C{y} offer routes."""

    names = ("a", "x", "y")

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=self.names)
        self.addCleanup(self.net.close)
        # Somebody on the internet who must never hear of any of this.
        self.outside = self.net.internet.host("outside", [INTERNET])
        self.visitors: list[Protocol] = []
        factory = Factory()
        factory.protocol = self.visited
        self.outside.listenTCP(80, factory)

    def visited(self) -> Protocol:
        """Somebody came by the real network."""
        protocol = Echo()
        self.visitors.append(protocol)
        return protocol

    def offer(self, name: str, *routes: str) -> None:
        """Let a node advertise routes, and approve them."""
        node = self.net[name]
        hostinfo = describeNode(node.preferences)
        hostinfo.routableIPs = list(routes)
        node._engine.control.setHostinfo(hostinfo)
        self.net.settle(2)
        self.net.control.approveRoutes(name)
        self.net.settle(2)

    def watch(self, name: str) -> list[str]:
        """The destinations of IPv4 packets that a node gets from now on."""
        seen: list[str] = []

        def note(direction: int, packets: list[bytes]) -> None:
            if direction == 1:
                seen.extend(".".join(map(str, p[16:20])) for p in packets)

        self.net[name]._engine.datapath.capture = note
        return seen

    def dial(self, address: str) -> object:
        """Try to connect from C{a}; what became of it within a second."""
        endpoint = self.net["a"].clientEndpoint(address, 80, timeout=1)
        attempt = endpoint.connect(Factory.forProtocol(Gather))
        results: list[object] = []
        attempt.addCallbacks(results.append, lambda f: results.append(f.value))
        self.net.elapse(2)
        return results[0]

    def assertNowhere(self) -> None:
        """What goes to the internet goes nowhere, and the user hears so at once."""
        self.assertIsInstance(self.dial(INTERNET), NoRouteError)
        self.assertIsNone(self.net["a"].activeExitNode)
        self.assertEqual(self.net["a"].status.exitNode, "")
        self.assertEqual(self.visitors, [])


class ExitNodeTests(PreferencesTestCase):
    """Everything else goes through one peer, or nowhere."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("x", "y"):
            self.offer(name, "0.0.0.0/0", "::/0")

    def test_R_RT_2_selected(self) -> None:
        """Of two that offer it only the one that was chosen gets packets."""
        atX, atY = self.watch("x"), self.watch("y")
        self.assertNowhere()
        self.net["a"].setPreferences(exitNode="x")
        self.dial(INTERNET)
        self.assertIn(INTERNET, atX)
        self.assertNotIn(INTERNET, atY)
        active = self.net["a"].activeExitNode
        assert active is not None
        self.assertEqual(active.hostname, "x")
        self.assertEqual(self.net["a"].status.exitNode, active.name)
        self.assertEqual(self.visitors, [])
        self.net.settle(2)
        [record] = [n for n in self.net.control.nodes() if n.name == "a"]
        self.assertEqual(record.hostinfo.exitNodeID, active.stableID)

    def test_R_RT_1_R_GLB_4_failsClosed(self) -> None:
        """One that is not there, or lets nobody out, is as good as a wall."""
        for selector, words in (
            ("nobody", "no peer is the exit node"),
            ("100.64.0.99", "no peer is the exit node"),
        ):
            self.net["a"].setPreferences(exitNode=selector)
            self.assertNowhere()
            [text] = self.net["a"].status.health
            self.assertIn(words, text)
        self.net["a"].setPreferences(exitNode="x")
        self.assertEqual(self.net["a"].status.health, ())
        self.net.control.approveRoutes("x", [])
        self.net.settle(2)
        self.assertNowhere()
        [text] = self.net["a"].status.health
        self.assertIn("lets nobody out", text)
        self.net.control.approveRoutes("x")
        self.net.settle(2)
        self.assertEqual(self.net["a"].status.exitNode[:2], "x.")
        self.net["a"].setPreferences(exitNode=None)
        self.assertNowhere()
        self.assertEqual(self.net["a"].status.health, ())

    def test_R_SRC_2_R_SRC_3_sources(self) -> None:
        """Only the present exit node may send from addresses of the internet."""
        filter = self.net["a"]._engine.packetFilter
        self.net["a"].setPreferences(exitNode="x")
        keys = {p.hostname: p.key.raw for p in self.net["a"].peers()}
        packed = bytes(map(int, INTERNET.split(".")))
        self.assertEqual(filter._sources.lookup(packed), keys["x"])
        self.net["a"].setPreferences(exitNode="y")
        self.assertEqual(filter._sources.lookup(packed), keys["y"])
        self.net["a"].setPreferences(exitNode=None)
        self.assertIsNone(filter._sources.lookup(packed))

    def test_R_RT_7_oneTable(self) -> None:
        """Where packets go is where they may come from, after each change."""
        engine = self.net["a"]._engine
        for exitNode in ("x", "y", None, "nobody"):
            self.net["a"].setPreferences(exitNode=exitNode)
            self.assertIs(engine.packetFilter._sources, engine.datapath._routes)

    def test_automatic(self) -> None:
        """The nearest, and another one when it is gone."""
        self.net["a"].setPreferences(exitNode="auto:any")
        active = self.net["a"].activeExitNode
        assert active is not None
        self.assertEqual(active, self.net["a"].suggestExitNode())
        # Offering the nearer one later, or other wishes, do not cut connections.
        [worse] = {"x", "y"} - {active.hostname}
        self.net["a"].setPreferences(exitNode=worse)
        self.net["a"].setPreferences(exitNode="auto:any")
        self.assertEqual(self.net["a"].activeExitNode, active)
        self.net["a"]._engine.dispatcher.exit = ExitChoice(
            self.net["a"].peerByName(worse)
        )
        self.net["a"].setPreferences(acceptRoutes=True)
        kept = self.net["a"].activeExitNode
        assert kept is not None
        self.assertEqual(kept.hostname, worse)
        self.net["a"].setPreferences(exitNode=None)
        self.net["a"].setPreferences(exitNode="auto:any")
        self.net.control.deleteNode(active.hostname)
        self.net.settle(2)
        other = self.net["a"].activeExitNode
        assert other is not None
        self.assertEqual({active.hostname, other.hostname}, {"x", "y"})

    def test_fromTheStart(self) -> None:
        """A node that begins with an exit node is up with it, and stays so."""
        node = self.net.addNode("c", exitNode="x", acceptRoutes=True)
        self.net.waitUp("c")
        self.assertEqual(node.status.exitNode[:2], "x.")
        node.setPreferences(exitNode="y")
        self.net.wait(node.stopService())
        self.assertIsNone(node.activeExitNode)
        node.startService()
        self.net.waitUp("c")
        self.assertEqual(node.status.exitNode[:2], "y.")


class SubnetTests(PreferencesTestCase):
    """Networks behind peers."""

    def test_R_RT_3_onlyIfWanted(self) -> None:
        """They are reached through them if that is wanted, at once."""
        self.offer("x", "10.20.0.0/16")
        atX = self.watch("x")
        self.assertIsInstance(self.dial(OFFICE), NoRouteError)
        self.net["a"].setPreferences(acceptRoutes=True)
        self.dial(OFFICE)
        self.assertIn(OFFICE, atX)
        self.net["a"].setPreferences(acceptRoutes=False)
        self.assertIsInstance(self.dial(OFFICE), NoRouteError)

    def test_longestPrefix(self) -> None:
        """The narrower route wins, and the other one when it goes."""
        self.net["a"].setPreferences(acceptRoutes=True)
        self.offer("x", "10.0.0.0/8")
        self.offer("y", "10.20.0.0/16")
        atX, atY = self.watch("x"), self.watch("y")
        self.dial(OFFICE)
        self.assertIn(OFFICE, atY)
        self.assertNotIn(OFFICE, atX)
        self.net.control.approveRoutes("y", [])
        self.net.settle(2)
        self.dial(OFFICE)
        self.assertIn(OFFICE, atX)


class OtherTests(PreferencesTestCase):
    """Shields, names, and what cannot be."""

    def test_shieldsUp(self) -> None:
        """Nobody begins anything any more; what this node begins works."""
        self.serve("a")
        self.serve("x")
        self.connect("x", "a")
        self.net["a"].setPreferences(shieldsUp=True)
        endpoint = self.net["x"].clientEndpoint("a", STREAM_PORT, timeout=2)
        refused = endpoint.connect(Factory.forProtocol(Gather))
        self.net.elapse(3)
        self.failureResultOf(refused)
        self.connect("a", "x")
        self.net["a"].setPreferences(shieldsUp=False)
        self.connect("x", "a")

    def test_hostname(self) -> None:
        """Control hears of another name, and the shields, at once."""
        self.net["a"].setPreferences(hostname="renamed", shieldsUp=True)
        self.net.settle(2)
        names = {n.hostinfo.hostname for n in self.net.control.nodes()}
        self.assertEqual(names, {"renamed", "x", "y"})
        shields = {n.hostinfo.shieldsUp for n in self.net.control.nodes()}
        self.assertEqual(shields, {True, False})

    def test_oneUpdate(self) -> None:
        """Whatever is changed together reaches control in one request."""
        api = self.net["a"]._engine.control.api
        sent: list[object] = []
        update = api.updateMap

        def count(request: object) -> object:
            sent.append(request)
            return update(request)

        self.patch(api, "updateMap", count)
        self.net["a"].setPreferences(
            hostname="renamed",
            shieldsUp=True,
            advertiseRoutes=["10.20.0.0/16"],
            advertiseExitNode=True,
            advertiseTags=["tag:web"],
        )
        self.net.elapse(10)
        self.assertEqual(len(sent), 1)
        [record] = [
            n for n in self.net.control.nodes() if n.hostinfo.hostname == "renamed"
        ]
        info = record.hostinfo
        self.assertEqual(info.routableIPs, ["10.20.0.0/16", "0.0.0.0/0", "::/0"])
        self.assertEqual(info.requestTags, ["tag:web"])
        self.assertTrue(info.shieldsUp)

    def test_R_NS_1_noIPv6(self) -> None:
        """Where control gives no IPv6, no address of it is anywhere."""
        net = TestTailnet(nodes=["c", "d"], config=ControlConfig(ipv6=False))
        self.addCleanup(net.close)
        for name in ("c", "d"):
            engine = net[name]._engine
            self.assertEqual({len(a) for a in engine._overlay.stack.addresses}, {4})
            self.assertEqual({len(a) for a in engine._overlay.resolve("d")}, {4})
            self.assertEqual([a for a in net[name].status.addresses if ":" in a], [])

    def test_R_ENV_2_onlyTheNode(self) -> None:
        """Whoever holds the preferences reads them; the node alone changes them."""
        preferences = self.net["a"].preferences
        with self.assertRaises(AttributeError):
            preferences.exitNode = None  # type: ignore[misc]  # the point
        changed = preferences.changed({"exitNode": "x"})
        self.assertIsNone(self.net["a"].preferences.exitNode)
        self.assertIsNotNone(changed.exitNode)
        with self.assertRaises(AttributeError):
            self.net["a"].preferences = changed  # type: ignore[misc]  # the point

    def test_wrong(self) -> None:
        """What cannot be changes nothing."""
        node = self.net["a"]
        before = node.preferences
        for changes in (
            {"hostname": "..."},
            {"acceptRoutes": "yes"},
            {"exitNode": "auto:moon"},
            {"exitNode": 7},
            {"shieldsUp": 1},
            {"colour": "blue"},
        ):
            self.assertRaises(ConfigError, node.setPreferences, **changes)
        self.assertEqual(node.preferences, before)

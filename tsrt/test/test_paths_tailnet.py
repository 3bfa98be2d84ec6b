"""Direct paths of whole nodes: over IPv6 only, and through routers that change."""

from __future__ import annotations

from tsrt.test.faultworld import FaultTestCase, Stream
from tsrt.testing.clock import elapse
from tsrt.testing.natkinds import EASY
from tsrt.testing.tailnet import TestTailnet


class IPv6OnlyTests(FaultTestCase):
    """A host that has no IPv4 address at all."""

    def test_ipv6Only(self) -> None:
        """It joins by a relay over IPv6, and has direct paths both ways."""
        self.net = net = TestTailnet(nodes=["a"], ipv6=True)
        self.addCleanup(net.close)
        net.hosts["b"] = net.internet.host("b", ["2001:db8:77::1"])
        net.addNode("b", controlURL="http://control.test", allowHTTP=True)
        net.waitUp("b")
        net.wait(net["a"].ping("b"))
        net.settle(2)
        there, back = net.wait(net["a"].ping("b")), net.wait(net["b"].ping("a"))
        self.assertTrue(there.path.startswith("direct [2001:db8:77::1]:"), there)
        self.assertTrue(back.path.startswith("direct ["), back)
        self.assertEqual(net["b"].status.health, ())
        [peer] = net["a"].peers()
        self.assertTrue(all(e.startswith("[2001:db8:77::1]:") for e in peer.endpoints))


class RouterTests(FaultTestCase):
    """Two nodes, each behind a router, that talk all the time."""

    def setUp(self) -> None:
        self.net = TestTailnet(nodes={"a": "easy", "b": "easy"})
        self.addCleanup(self.net.close)
        self.serve("b")
        self.stream = Stream(self.net, "a", "b")
        self.addCleanup(self.stream.stop)
        self.net.elapse(5)
        self.assertDirect()

    def path(self) -> str:
        """How packets go now, in words."""
        return self.net.wait(self.net["a"].ping("b")).path

    def assertDirect(self, patience: float = 0.0) -> None:
        """The path is, or becomes, direct."""
        end = self.net.clock.seconds() + patience
        while not self.path().startswith("direct"):
            self.assertLess(self.net.clock.seconds(), end, self.path())
            elapse(self.net.clock, 0.5)

    def test_rebootedRouter(self) -> None:
        """A router that forgets its mappings costs no byte."""
        for name in ("a", "b", "a"):
            network = self.net.hosts[name].network
            assert network is not None
            network.reboot()
            progress = self.stream.progress
            self.net.elapse(12)
            self.assertGreater(self.stream.progress, progress)
            self.assertDirect(10)
        self.assertInnocent()

    def test_anotherExternalAddress(self) -> None:
        """So does a provider that gives the router another address."""
        network = self.net.hosts["a"].network
        assert network is not None
        network.setExternal()
        self.net.elapse(20)
        self.assertDirect(30)
        self.assertInnocent()

    def test_laptop(self) -> None:
        """A machine that is carried to another network keeps its streams."""
        host = self.net.hosts["a"]
        other = self.net.internet.network("cafe", "10.44.0.0/24", nat=EASY)
        self.net.internet.moveHost(host, other)
        self.net.elapse(6)
        self.assertDirect(3)
        self.assertInnocent()

    def test_longSleep(self) -> None:
        """
        After an hour's sleep peers have forgotten the sessions; they are made
        anew at once, without waiting for an answer that cannot come.
        """
        self.net.hosts["a"].sleep(3600)
        self.stream.stop()
        self.net.elapse(3601)
        self.net.elapse(5)
        began = self.net.clock.seconds()
        self.net.wait(self.net["a"].ping("b"))
        self.assertLess(self.net.clock.seconds() - began, 1.0)

    def test_sleep(self) -> None:
        """So does one that slept for ten minutes, and is direct within 5 s."""
        self.net.hosts["a"].sleep(600)
        self.stream.stop()
        self.net.elapse(601)
        self.net.elapse(5)
        self.assertDirect()
        self.assertInnocent(patience=60)

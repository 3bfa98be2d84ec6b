"""Port mapping on a whole tailnet: nodes behind hard NATs that map ports."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tsrt.failures import TailnetTimeout
from tsrt.path.mappings import Service
from tsrt.tailcfg import NetInfo
from tsrt.testing.natkinds import CGNAT, SYMMETRIC_RANDOM
from tsrt.testing.tailnet import TestTailnet

PCP = evolve(SYMMETRIC_RANDOM, name="pcp", serves=("PCP",))
ALL = evolve(SYMMETRIC_RANDOM, name="all", serves=("NAT-PMP", "PCP", "UPnP"))


class PortMappingTests(SynchronousTestCase):
    """Node C{a} has a gateway that maps ports; C{b} is behind a hard NAT."""

    def makeTailnet(self, kind: object, **settings: object) -> None:
        """Make both nodes, and let C{a} get its port."""
        self.net = TestTailnet()
        self.addCleanup(self.net.close)
        self.net.addNode("a", network=kind, **settings)
        self.net.addNode("b", network="symmetric-random")
        self.net.waitUp()
        self.net.elapse(10)
        self.network = self.net.hosts["a"].network

    def path(self) -> str:
        """How packets go, once they have had time to find their way."""
        self.net.wait(self.net["b"].ping("a"))
        self.net.elapse(2)
        return self.net.wait(self.net["b"].ping("a")).path

    def netInfo(self) -> NetInfo:
        """What C{a} has told control of its network."""
        return self.net.control.node("a").hostinfo.netInfo

    def mapper(self):
        """The port mapper of C{a}."""
        return self.net["a"]._engine.portMapper

    def test_each(self) -> None:
        """Each protocol makes the path direct, by the gateway's address."""
        for kind in ("symmetric-pmp", PCP, "symmetric-upnp", ALL):
            self.makeTailnet(kind)
            path = self.path()
            self.assertTrue(path.startswith("direct "), path)
            self.net.close()

    def test_firstMapped(self) -> None:
        """Control hears of the mapped address first, and that it is mapped."""
        self.makeTailnet("symmetric-pmp")
        peer = next(p for p in self.net["b"].peers() if p.hostname == "a")
        self.assertEqual(self.mapper().mapping.address.text(), peer.endpoints[0])
        self.assertTrue(self.netInfo().pmp)
        self.assertFalse(self.netInfo().upnp)
        self.assertTrue(self.netInfo().havePortMap)

    def test_reboot(self) -> None:
        """The gateway reboots: the relay at once, the direct path soon after."""
        self.makeTailnet("symmetric-pmp")
        self.network.gateways[0].began -= 3600
        self.net["a"]._engine.portMapper._machine.check(self.net.clock.seconds())
        self.mapper()._settle()
        self.assertTrue(self.path().startswith("direct"))
        self.network.gateways[0].reboot()
        self.net.elapse(30)
        self.assertTrue(self.path().startswith("relay"))
        self.net.elapse(600)
        self.assertTrue(self.path().startswith("direct"))

    def test_newAddress(self) -> None:
        """The provider renumbers: measured, mapped anew, direct again."""
        self.makeTailnet("symmetric-pmp")
        self.assertTrue(self.path().startswith("direct"))
        external = self.network.setExternal()
        for _ in range(6):
            # Those that are sent while nobody knows of it yet are lost.
            pinging = self.net["b"].ping("a")
            pinging.addErrback(lambda failure: failure.trap(TailnetTimeout))
            self.net.elapse(10)
        self.assertIn(external, self.path())

    def test_moved(self) -> None:
        """In a network whose gateway maps nothing, nothing is left of it."""
        self.makeTailnet("symmetric-pmp")
        former = self.mapper().mapping.address.text()
        cafe = self.net.network("cafe", "easy", prefix="10.1.0.0/24")
        self.net.internet.moveHost(self.net.hosts["a"], cafe)
        self.net.elapse(20)
        self.assertIsNone(self.mapper().mapping)
        peer = next(p for p in self.net["b"].peers() if p.hostname == "a")
        self.assertNotIn(former, peer.endpoints)

    def test_stopped(self) -> None:
        """As the node stops it gives its port back."""
        self.makeTailnet("symmetric-pmp")
        self.assertEqual(len(self.network.nat._mapped), 1)
        self.net.wait(self.net["a"].stopService())
        self.net.elapse(1)
        self.assertEqual(len(self.network.nat._mapped), 0)

    def test_switchedOff(self) -> None:
        """By the user: nobody is asked."""
        self.makeTailnet(ALL, portMapping=False)
        self.assertEqual(self.network.gateways[0].asked, [])
        self.assertTrue(self.path().startswith("relay"))

    def test_noUPnP(self) -> None:
        """By the user, UPnP alone."""
        self.makeTailnet("symmetric-upnp", upnp=False)
        self.assertEqual(self.network.gateways[0].actions, [])
        self.assertTrue(self.path().startswith("relay"))

    def test_policy(self) -> None:
        """By the tailnet's policy, at any time."""
        self.makeTailnet("symmetric-upnp")
        self.assertEqual(self.mapper().mapping.service, Service.UPNP)
        self.net.control.setAttributes("a", {"debug-disable-upnp": []})
        self.net.elapse(10)
        self.assertIsNone(self.mapper().mapping)
        self.assertIn("DeletePortMapping", self.network.gateways[0].actions)

    def test_behindCarrier(self) -> None:
        """A gateway that is behind another NAT itself gives nothing of use."""
        self.makeTailnet(evolve(CGNAT, serves=("NAT-PMP",)))
        self.assertIsNone(self.mapper().mapping)
        self.assertIn("is not a public one", self.mapper().failure)

    def test_publicNode(self) -> None:
        """A node with a public address asks nobody."""
        self.makeTailnet("none")
        self.assertEqual(self.mapper().failure, "there is no gateway of IPv4")

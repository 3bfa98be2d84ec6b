"""Networks without UDP, as whole nodes see them: HTTPS, and captive portals."""

from __future__ import annotations

from attrs import frozen
from msgspec.structs import replace
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from tsrt.path.netcheck import Report
from tsrt.tailcfg import DERPMap
from tsrt.testing.derphttp import DERPHTTPProtocol
from tsrt.testing.links import Link
from tsrt.testing.tailnet import FIRST_REGION, TestTailnet


class Portal(Protocol):
    """Sends everybody to a login page."""

    def dataReceived(self, data: bytes) -> None:
        """Answer."""
        self.transport.write(
            b"HTTP/1.1 302 Found\r\nLocation: http://portal.test/login\r\n\r\n"
        )


@frozen
class _Relay:
    """What a relay answers at port 80."""

    def __call__(self) -> Protocol:
        return DERPHTTPProtocol(
            bytes(32), lambda request: Protocol(), lambda path: None
        )


class NoUDPTests(SynchronousTestCase):
    """A node that no datagram reaches."""

    def setUp(self) -> None:
        self.net = TestTailnet(regions=3)
        self.addCleanup(self.net.close)

    def join(self, **delays: float) -> None:
        """A node behind a wall, with relays at some distances."""
        host = self.net._host("a", "udp-blocked")
        for name, delay in delays.items():
            relay = self.net.stuns[int(name[1:])]._reactor
            self.net.internet.setLink(Link(delay=delay), host.network, relay)
        self.net.addNode("a")
        self.net.waitUp("a")

    def report(self) -> Report:
        """The last report."""
        netcheck = self.net["a"]._engine.getServiceNamed("netcheck")
        report = netcheck.last
        assert report is not None
        return report

    def test_homeByHTTPS(self) -> None:
        """The nearest relay is found by HTTPS, and control is told so."""
        self.join(r900=0.05, r901=0.01, r902=0.03)
        self.assertEqual(self.net["a"].status.homeRegion, "r901")
        report = self.report()
        self.assertTrue(report.usedHTTPS)
        self.assertFalse(report.udp)
        self.assertEqual(
            sorted(report.latencies, key=report.latencies.__getitem__),
            [901, 902, 900],
        )
        self.net.settle(2)
        [peer] = self.net.control.nodes()
        self.assertEqual(peer.hostinfo.netInfo.preferredDERP, 901)
        self.assertIs(peer.hostinfo.netInfo.workingUDP, False)

    def test_another(self) -> None:
        """When that relay goes another is found the same way."""
        self.join(r900=0.05, r901=0.01, r902=0.03)
        self.net.wait(self.net.relays[901].stopService())
        self.net.elapse(60)
        self.assertEqual(self.net["a"].status.homeRegion, "r902")
        self.net.addNode("b")
        self.net.waitUp("b")
        self.assertIn("relay", self.net.wait(self.net["b"].ping("a")).path)

    def serve(self, protocol: object) -> IListeningPort:
        """Answer at port 80 of the first relay's address."""
        factory = Factory()
        factory.protocol = protocol
        host = self.net.stuns[FIRST_REGION]._reactor
        return host.listenTCP(80, factory)

    def test_captivePortal(self) -> None:
        """People are told that somebody has to log in, until somebody has."""
        regions = dict(self.net.control._core.view.derpMap.regions or {})
        first = regions[FIRST_REGION]
        assert first is not None
        node = replace(first.nodes[0], canPort80=True)
        changed = {**regions, FIRST_REGION: replace(first, nodes=[node])}
        self.net.control.setDERPMap(DERPMap(regions=changed, omitDefaultRegions=True))
        port = self.serve(Portal)
        self.join()
        node = self.net["a"]
        self.assertIs(self.report().captivePortal, True)
        [text] = node.status.health
        self.assertIn("captive portal", text)
        self.assertIn("log in there", text)
        port.stopListening()
        self.net.settle(1)
        self.serve(_Relay())
        self.net.wait(node._engine.getServiceNamed("netcheck").check())
        self.assertIs(self.report().captivePortal, False)
        self.assertEqual(node.status.health, ())

"""Tests of L{tsrt.path.captive}: whom to ask, and what to think of answers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.path.captive import MOST_CHECKS, TAILSCALE_HOSTS, PortalCheck, portalChecks
from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
from tsrt.wire.httphead import ResponseHead


def node(ipv4: str, canPort80: bool = True) -> DERPNode:
    """A relay server."""
    return DERPNode(hostName="relay.test", ipv4=ipv4, canPort80=canPort80)


def region(*nodes: DERPNode, **settings: bool) -> DERPRegion:
    """A region with servers."""
    return DERPRegion(nodes=list(nodes), **settings)


class WhomTests(SynchronousTestCase):
    """Whom to ask."""

    def hosts(self, regions: dict[int, DERPRegion | None], preferred: int = 0) -> list:
        """The hosts that are asked."""
        return [c.host for c in portalChecks(DERPMap(regions=regions), preferred)]

    def test_relays(self) -> None:
        """Relays with an address and a port 80, each with its own challenge."""
        regions = {
            1: region(node("192.0.2.1"), node("192.0.2.2", False), node("none")),
            2: region(node("192.0.2.3"), avoid=True),
            3: region(node("192.0.2.4"), noMeasureNoHome=True),
            4: None,
            5: region(node("192.0.2.5"), node("")),
        }
        self.assertEqual(self.hosts(regions), ["192.0.2.1", "192.0.2.5"])
        self.assertEqual(self.hosts(regions, 5), ["192.0.2.5", "192.0.2.1"])
        self.assertEqual(portalChecks(DERPMap()), ())
        check = portalChecks(DERPMap(regions=regions))[0]
        self.assertEqual(check.challenge, "ts_192.0.2.1")

    def test_few(self) -> None:
        """Never more than a handful, further hosts last."""
        regions = {n: region(node(f"192.0.2.{n}")) for n in range(1, 4)}
        checks = portalChecks(DERPMap(regions=regions), 0, TAILSCALE_HOSTS)
        self.assertEqual([c.host for c in checks[3:]], list(TAILSCALE_HOSTS))
        self.assertEqual(checks[-1].challenge, "")
        regions = {n: region(node(f"192.0.2.{n}")) for n in range(1, 100)}
        self.assertEqual(len(portalChecks(DERPMap(regions=regions))), MOST_CHECKS)

    def test_request(self) -> None:
        """What is asked is a whole request, that no cache may answer."""
        request = PortalCheck("192.0.2.1", "ts_192.0.2.1").request().decode()
        head, _, rest = request.partition("\r\n\r\n")
        lines = head.split("\r\n")
        self.assertEqual(rest, "")
        self.assertEqual(lines[0], "GET /generate_204 HTTP/1.1")
        self.assertIn("Host: 192.0.2.1", lines)
        self.assertIn("X-Tailscale-Challenge: ts_192.0.2.1", lines)
        self.assertIn("no-store", request)
        self.assertNotIn("Challenge", PortalCheck("a.test").request().decode())


class AnswerTests(SynchronousTestCase):
    """What to think of answers."""

    def isForged(self, check: PortalCheck, status: int, *headers: str) -> bool:
        """Judge an answer."""
        pairs = tuple(("x-tailscale-response", value) for value in headers)
        return check.isForged(ResponseHead(status, "", pairs))

    def test_challenged(self) -> None:
        """Only who repeats the challenge is the server."""
        check = PortalCheck("192.0.2.1", "ts_192.0.2.1")
        good = "response ts_192.0.2.1"
        self.assertFalse(self.isForged(check, 204, good))
        self.assertTrue(self.isForged(check, 200, good))
        self.assertTrue(self.isForged(check, 204))
        self.assertTrue(self.isForged(check, 204, "response ts_192.0.2.2"))

    def test_plain(self) -> None:
        """Without a challenge the status decides."""
        check = PortalCheck("login.tailscale.com")
        self.assertFalse(self.isForged(check, 204))
        for status in (200, 302, 403, 511):
            self.assertTrue(self.isForged(check, status))

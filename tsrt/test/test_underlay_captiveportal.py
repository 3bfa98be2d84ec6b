"""Tests of L{tsrt.underlay.captiveportal}, on a simulated internet."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from tsrt.path.captive import PortalCheck
from tsrt.test.relayworld import World
from tsrt.testing.derphttp import DERPHTTPProtocol
from tsrt.testing.links import Link
from tsrt.underlay.captiveportal import TIMEOUT, findCaptivePortal

PORTAL = b"HTTP/1.1 302 Found\r\nLocation: http://portal.test/\r\n\r\n"


class Says(Protocol):
    """Says the same to everybody, in pieces."""

    text = b""

    def dataReceived(self, data: bytes) -> None:
        """Answer."""
        for i in range(0, len(self.text), 7):
            self.transport.write(self.text[i : i + 7])


class FindingTests(SynchronousTestCase):
    """A machine, and servers that are themselves or not."""

    def setUp(self) -> None:
        self.world = World()
        self.host = self.world.internet.host("node", ["198.51.100.1"])
        self.count = 0

    def server(self, text: bytes | None = None, delay: float = 0.01) -> PortalCheck:
        """A server at port 80: a relay's, or one that says C{text}."""
        self.count += 1
        address = f"192.0.2.{self.count}"
        host = self.world.internet.host(f"s{self.count}", [address])
        self.world.internet.setLink(Link(delay=delay), self.host, host)
        factory = Factory()
        if text is None:
            factory.protocol = lambda: DERPHTTPProtocol(
                bytes(32), lambda request: Protocol(), lambda path: None
            )
        else:
            factory.protocol = lambda: Says()
            Says.text = text
        host.listenTCP(80, factory)
        return PortalCheck(address, f"ts_{address}")

    def find(self, *checks: PortalCheck) -> Deferred[bool | None]:
        """Look."""
        return findCaptivePortal(self.host, checks)

    def found(self, *checks: PortalCheck) -> bool | None:
        """Look, and wait for the answer; nothing is left open."""
        answer = self.world.result(self.find(*checks))
        self.world.elapse(1)
        self.assertEqual(self.host.streams, [])
        self.assertEqual(list(self.host.getDelayedCalls()), [])
        return answer

    def test_none(self) -> None:
        """Relays that answer themselves: there is no portal."""
        self.assertIs(self.found(self.server(), self.server()), False)

    def test_portal(self) -> None:
        """One answer of a portal is enough, and ends the others."""
        slow = self.server(delay=1.0)
        self.assertIs(self.found(self.server(PORTAL), slow), True)

    def test_noHTTP(self) -> None:
        """Whoever answers with something else than HTTP is no relay."""
        self.assertIs(self.found(self.server(b"go away" * 20 + b"\r\n\r\n")), True)
        self.assertIs(self.found(self.server(b"x" * 100_000)), True)

    def test_nobodyAnswers(self) -> None:
        """Nobody to ask, or nobody who answers, says nothing."""
        self.assertIsNone(self.found())
        self.assertIsNone(self.found(PortalCheck("192.0.2.250")))
        self.assertIsNone(self.found(PortalCheck("no-such-name.test")))
        began = self.world.clock.seconds()
        self.assertIsNone(self.found(self.server(b"HTTP/1.1 204 No")))
        self.assertLessEqual(self.world.clock.seconds() - began, TIMEOUT + 1.01)

    def test_silent(self) -> None:
        """A server that hangs does not keep the others from being heard."""
        hangs = self.server(b"HTTP/1.1 2")
        self.assertIs(self.found(self.server(), hangs), False)

    def test_byName(self) -> None:
        """Names are looked up."""
        check = self.server()
        self.world.internet.register("login.test", check.host)
        self.assertIs(self.found(PortalCheck("login.test")), False)

    def test_cancel(self) -> None:
        """Cancelled at any time it leaves nothing."""
        for seconds in (0, 0.005, 0.015, 0.025, 0.5):
            looking = self.find(self.server(b"HTTP"), self.server(delay=0.2))
            looking.addErrback(lambda _: None)
            self.world.elapse(seconds)
            looking.cancel()
            self.world.elapse(2)
            self.assertEqual(self.host.streams, [])
            self.assertEqual(list(self.host.getDelayedCalls()), [])

"""
Tests for L{tsrt.endpoints}.

Twisted's own mix-ins for endpoints are applied with a memory reactor in the
place of the tailnet.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.error import (
    CannotListenError,
    ConnectingCancelledError,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from tsrt.endpoints import TailnetClientEndpoint, TailnetServerEndpoint
from tsrt.errors import ConfigError
from tsrt.reactor import TailnetReactor
from tsrt.test.overlaynet import A4, B4, B6, OverlayNet, Recorder, factoryFor

try:
    from twisted.internet.test.test_endpoints import EndpointTestCaseMixin
except ImportError:  # pragma: no cover  # it needs a library of Twisted's tests
    EndpointTestCaseMixin = object


class ConformanceTests(EndpointTestCaseMixin, SynchronousTestCase):
    """What Twisted demands of its own TCP endpoints."""

    expectedAddress = "web"

    def expectedServers(self, reactor):
        return reactor.tcpServers

    def expectedClients(self, reactor):
        return reactor.tcpClients

    def assertConnectArgs(self, receivedArgs, expectedArgs):
        host, port, _factory, timeout, bindAddress = receivedArgs
        self.assertEqual(expectedArgs, (host, port, timeout, bindAddress))

    def connectArgs(self):
        return {"timeout": 10, "bindAddress": (A4, 49595)}

    def listenArgs(self):
        return {"backlog": 100, "interface": B4}

    def createServerEndpoint(self, reactor, factory, **listenArgs):
        endpoint = TailnetServerEndpoint(lambda: reactor, 80, **listenArgs)
        expected = (
            80,
            factory,
            listenArgs.get("backlog", 50),
            listenArgs.get("interface", ""),
        )
        return endpoint, expected, IPv4Address("TCP", "0.0.0.0", 80)

    def createClientEndpoint(self, reactor, clientFactory, **connectArgs):
        endpoint = TailnetClientEndpoint(lambda: reactor, "web", 80, **connectArgs)
        expected = (
            "web",
            80,
            connectArgs.get("timeout", 30),
            connectArgs.get("bindAddress"),
        )
        return endpoint, expected, IPv4Address("TCP", "web", 80)


class EndpointTests(SynchronousTestCase):
    """Endpoints between two nodes."""

    def setUp(self) -> None:
        self.net = OverlayNet()

    def client(self, host: str = B4, port: int = 80, **more) -> TailnetClientEndpoint:
        return TailnetClientEndpoint(lambda: self.net.a.tailnet, host, port, **more)

    def server(self, port: int = 80, **more) -> TailnetServerEndpoint:
        return TailnetServerEndpoint(lambda: self.net.b.tailnet, port, **more)

    def test_interfaces(self) -> None:
        """Endpoints are endpoints."""
        self.assertTrue(verifyClass(IStreamClientEndpoint, TailnetClientEndpoint))
        self.assertTrue(verifyClass(IStreamServerEndpoint, TailnetServerEndpoint))
        self.assertTrue(verifyObject(IStreamClientEndpoint, self.client()))
        self.assertTrue(verifyObject(IStreamServerEndpoint, self.server()))
        self.assertEqual("<TailnetClientEndpoint web:80>", repr(self.client("web")))
        self.assertEqual("<TailnetServerEndpoint port 80>", repr(self.server()))

    def test_connect(self) -> None:
        """connect() fires with the protocol, by name and by address."""
        self.successResultOf(
            self.server().listen(factoryFor(Recorder(), Recorder(), Recorder()))
        )
        for host in ("b", B4, B6):
            mine = Recorder()
            got = self.net.wait(self.client(host).connect(factoryFor(mine)))
            self.assertIs(mine, got)
            self.assertEqual(["made"], mine.events)

    def test_reuse(self) -> None:
        """An endpoint can be connected and listened on again and again."""
        client, server = self.client(), self.server()
        for _ in range(3):
            port = self.successResultOf(server.listen(factoryFor(Recorder())))
            protocol = self.net.wait(client.connect(factoryFor(Recorder())))
            protocol.transport.loseConnection()
            self.net.elapse(1)
            self.net.wait(port.stopListening())

    def test_errors(self) -> None:
        """Failures are Twisted's."""
        for endpoint, kind in (
            (self.client(), ConnectionRefusedError),
            (self.client("nobody"), DNSLookupError),
            (self.client("not a name"), DNSLookupError),
            (self.client("under_score.example"), DNSLookupError),
            (self.client(""), DNSLookupError),
        ):
            connecting = endpoint.connect(factoryFor())
            self.net.elapse(1)
            self.failureResultOf(connecting, kind)

    def test_portInUse(self) -> None:
        """listen() fails with CannotListenError."""
        self.successResultOf(self.server().listen(factoryFor()))
        self.failureResultOf(self.server().listen(factoryFor()), CannotListenError)
        bad = self.server(interface="nonsense").listen(factoryFor())
        self.failureResultOf(bad, CannotListenError)

    def test_timeout(self) -> None:
        """The time-out is for everything."""
        self.net.lose = lambda packet: True
        connecting = self.client(timeout=3).connect(factoryFor())
        self.net.elapse(2.9)
        self.assertNoResult(connecting)
        self.net.elapse(0.2)
        self.failureResultOf(connecting, TimeoutError)

    def test_cancel(self) -> None:
        """A cancelled attempt leaves nothing behind."""
        self.net.lose = lambda packet: True
        connecting = self.client().connect(factoryFor())
        self.net.elapse(1)
        connecting.cancel()
        self.failureResultOf(connecting, ConnectingCancelledError)
        self.net.elapse(200)
        self.assertEqual([], self.net.a.stack.flows())
        self.assertEqual([], self.net.clock.getDelayedCalls())

    def test_noTailnet(self) -> None:
        """What keeps the node from starting is the failure."""

        def obtain() -> TailnetReactor:
            raise ConfigError("no such node")

        for deferred in (
            TailnetClientEndpoint(obtain, "b", 80).connect(factoryFor()),
            TailnetServerEndpoint(obtain, 80).listen(factoryFor()),
        ):
            self.failureResultOf(deferred, ConfigError)

    def test_factoryRaises(self) -> None:
        """A factory that raises fails the attempt with what it raised."""
        self.successResultOf(self.server().listen(factoryFor(Recorder())))
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: 1 / 0
        connecting = self.client().connect(factory)
        self.net.elapse(1)
        self.failureResultOf(connecting, ZeroDivisionError)
        self.flushLoggedErrors(ZeroDivisionError)

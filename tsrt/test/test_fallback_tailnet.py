"""Handlers for connections to ports that nobody listens on."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol

import tsrt
from tsrt.overlay import fallback
from tsrt.overlay.fallback import REFUSE
from tsrt.test.faultworld import Echo, FaultTestCase, Gather
from tsrt.testing.tailnet import TestTailnet

OFFICE = "10.20.0.5"


class Mistake(Exception):
    """What a handler raises."""


class Life(Factory):
    """Counts its starts and stops."""

    protocol = Echo
    noisy = False

    def __init__(self) -> None:
        self.events: list[str] = []

    def startFactory(self) -> None:
        self.events.append("start")

    def stopFactory(self) -> None:
        self.events.append("stop")


class FallbackTestCase(FaultTestCase):
    """Node C{a} connects to node C{b}, which has handlers."""

    names = ("a", "b")

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=self.names)
        self.addCleanup(self.net.close)
        self.node = self.net["b"]
        self.address = self.node.status.addresses[0]
        self.asked: list[tuple[Any, Any]] = []

    def handler(self, answer: Any, *ports: int) -> Any:
        """A handler that notes what it is asked; for some ports only, or all."""

        def handle(source: Any, destination: Any) -> Any:
            self.asked.append((source, destination))
            return answer if not ports or destination.port in ports else None

        return handle

    def echo(self) -> Factory:
        """A factory."""
        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        return factory

    def dial(self, port: int, host: str = "", timeout: float = 20) -> object:
        """Try to connect from C{a}; the protocol, or what went wrong."""
        results: list[object] = []
        endpoint = self.net["a"].clientEndpoint(
            host or self.address, port, timeout=timeout
        )
        endpoint.connect(Factory.forProtocol(Gather)).addCallbacks(
            results.append, lambda failure: results.append(failure.value)
        )
        self.net.elapse(timeout + 1 if not results else 0)
        return results[0]

    def works(self, port: int, host: str = "") -> Gather:
        """It is a connection, and something answers."""
        client = self.dial(port, host)
        assert isinstance(client, Gather), client
        client.transport.write(b"hello")
        self.net.elapse(2)
        self.assertEqual(bytes(client.received), b"hello")
        return client

    def refused(self, port: int, host: str = "") -> None:
        """It is refused at once."""
        started = self.net.clock.seconds()
        results: list[float] = []
        endpoint = self.net["a"].clientEndpoint(host or self.address, port, timeout=20)

        def note(failure: Any) -> None:
            failure.trap(ConnectError)
            results.append(self.net.clock.seconds() - started)

        endpoint.connect(Factory.forProtocol(Gather)).addCallbacks(self.fail, note)
        self.net.elapse(21)
        self.assertLess(results[0], 2)


class HandlerTests(FallbackTestCase):
    """C{registerFallbackTCPHandler}."""

    def test_takes(self) -> None:
        """A handler is told both ends, and its protocol gets the connection."""
        self.node.registerFallbackTCPHandler(self.handler(self.echo()))
        client = self.works(4444)
        [(source, destination)] = self.asked
        own = client.transport.getHost()
        self.assertEqual(source, IPv4Address("TCP", own.host, own.port))
        self.assertEqual(
            destination, IPv4Address("TCP", self.node.status.addresses[0], 4444)
        )
        # Over IPv6 as well.
        self.works(4445, self.node.status.addresses[1])

    def test_order(self) -> None:
        """The first that answers counts; a refusal is an answer."""
        register = self.node.registerFallbackTCPHandler
        register(self.handler(self.echo(), 1000))
        register(self.handler(REFUSE, 2000))
        register(self.handler(self.echo(), 2000, 3000))
        self.works(1000)
        self.assertEqual(len(self.asked), 1)
        self.refused(2000)
        self.assertEqual(len(self.asked), 3)
        self.works(3000)
        self.assertEqual(len(self.asked), 6)
        self.assertIs(tsrt.REFUSE, REFUSE)

    def test_R_FB_4_unclaimed(self) -> None:
        """What nobody takes is refused, and goes nowhere else."""
        self.node.registerFallbackTCPHandler(self.handler(None))
        streams = len(self.node._hostReactor.streams)
        self.refused(4444)
        self.assertEqual(len(self.asked), 1)
        self.assertEqual(len(self.node._hostReactor.streams), streams)

    def test_R_FB_1_withdrawn(self) -> None:
        """A handler that is withdrawn is not asked; what it took goes on."""
        self.assertIsNone(self.node._overlay.stack.fallback)
        registration = self.node.registerFallbackTCPHandler(self.handler(self.echo()))
        client = self.works(4444)
        registration.withdraw()
        registration.withdraw()
        self.assertIsNone(self.node._overlay.stack.fallback)
        self.refused(4444)
        self.assertEqual(len(self.asked), 1)
        client.transport.write(b" again")
        self.net.elapse(2)
        self.assertEqual(bytes(client.received), b"hello again")

    def test_R_FB_2_listeners(self) -> None:
        """Who listens on a port gets its connections, not a handler."""
        self.node.registerFallbackTCPHandler(self.handler(REFUSE))
        self.successResultOf(self.node.serverEndpoint(4444).listen(self.echo()))
        self.works(4444)
        self.assertEqual(self.asked, [])

    def test_R_FB_3_caps(self) -> None:
        """Beyond the bound a connection waits, and gets in when there is room."""
        self.patch(fallback, "MOST_PER_PORT", 2)
        self.node.registerFallbackTCPHandler(self.handler(self.echo()))
        first = self.works(4444)
        self.works(4444)
        results: list[object] = []
        endpoint = self.net["a"].clientEndpoint(self.address, 4444, timeout=60)
        endpoint.connect(Factory.forProtocol(Gather)).addBoth(results.append)
        self.net.elapse(5)
        self.assertEqual(results, [])
        self.works(4445)
        first.transport.loseConnection()
        self.net.elapse(40)
        self.assertIsInstance(results[0], Gather)

    def test_R_FB_3_halfOpen(self) -> None:
        """Handshakes that come to nothing do not take room for ever."""
        self.patch(fallback, "MOST_PER_PORT", 1)
        self.node.registerFallbackTCPHandler(self.handler(self.echo()))
        stack = self.node._overlay.stack
        ask = stack.fallback
        assert ask is not None
        remote, local = bytes((100, 64, 0, 1)), bytes((100, 64, 0, 2))
        # As if the last part of a handshake never came.
        ask(remote, 1, local, 4444)
        self.assertNotIsInstance(self.dial(4444, timeout=3), Gather)
        self.net.elapse(80)
        self.works(4444)

    def test_R_FB_5_snapshot(self) -> None:
        """Handlers may register and withdraw others while they are asked."""
        later: list[Any] = []

        def first(source: Any, destination: Any) -> None:
            registration.withdraw()
            later.append(
                self.node.registerFallbackTCPHandler(self.handler(self.echo()))
            )

        registration = self.node.registerFallbackTCPHandler(first)
        self.refused(4444)
        self.assertEqual(self.asked, [])
        self.works(4444)
        self.assertEqual(len(later), 1)

    def test_raises(self) -> None:
        """One that raises refuses that connection, and no other."""

        def broken(source: Any, destination: Any) -> Any:
            if destination.port == 4444:
                raise Mistake("broken")
            return None

        self.node.registerFallbackTCPHandler(broken)
        self.node.registerFallbackTCPHandler(self.handler(self.echo()))
        self.refused(4444)
        self.assertEqual(self.asked, [])
        self.assertEqual(len(self.flushLoggedErrors(Mistake)), 1)
        self.works(4445)

    def test_factoryRaises(self) -> None:
        """A factory that raises, or has no protocol, loses that connection only."""

        class Broken(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Protocol:
                raise Mistake("broken")

        class BrokenStart(Life):
            def startFactory(self) -> None:
                raise Mistake("broken")

        class Without(Life):
            def buildProtocol(self, addr: Any) -> None:
                return None

        without = Without()
        register = self.node.registerFallbackTCPHandler
        register(self.handler(Broken(), 4444))
        register(self.handler(BrokenStart(), 4445))
        register(self.handler(without, 4446))
        for port in (4444, 4445, 4446):
            client = self.dial(port)
            assert isinstance(client, Gather)
            self.net.elapse(2)
            self.assertIsNotNone(client.reason)
        self.assertEqual(len(self.flushLoggedErrors(Mistake)), 2)
        self.assertEqual(without.events, ["start", "stop"])
        for listener in (self.node._overlay.stack.fallback.__self__,):
            self.assertEqual(listener._byPort, {})

    def test_factoryLife(self) -> None:
        """A factory is started while it has connections."""
        factory = Life()
        self.node.registerFallbackTCPHandler(self.handler(factory))
        one, two = self.works(1), self.works(2)
        self.assertEqual(factory.events, ["start"])
        one.transport.loseConnection()
        self.net.elapse(2)
        self.assertEqual(factory.events, ["start"])
        two.transport.loseConnection()
        self.net.elapse(2)
        self.assertEqual(factory.events, ["start", "stop"])

    def test_restart(self) -> None:
        """Handlers stay over stops and starts of the node."""
        self.node.registerFallbackTCPHandler(self.handler(self.echo()))
        self.net.wait(self.node.stopService())
        self.node.startService()
        self.net.waitUp("b")
        self.net.settle(2)
        self.works(4444)


class SubnetTests(FallbackTestCase):
    """Connections to networks that the node leads to."""

    def setUp(self) -> None:
        super().setUp()
        self.office = self.net.internet.host("office", [OFFICE])
        self.visits: list[Any] = []
        factory = Factory()

        def visited(addr: Any) -> Protocol:
            self.visits.append(addr)
            return Echo()

        factory.buildProtocol = visited
        self.office.listenTCP(80, factory)
        self.node.setPreferences(advertiseRoutes=["10.20.0.0/16"])
        self.net["a"].setPreferences(acceptRoutes=True)
        self.net.settle(2)
        self.net.control.approveRoutes("b")
        self.net.settle(2)

    def test_taken(self) -> None:
        """A handler that takes one keeps it from the network."""
        registration = self.node.registerFallbackTCPHandler(
            self.handler(self.echo(), 80)
        )
        self.works(80, OFFICE)
        self.assertEqual(self.visits, [])
        [(_, destination)] = self.asked
        self.assertEqual((destination.host, destination.port), (OFFICE, 80))
        # Also for addresses and ports that are nowhere.
        self.works(80, "10.20.9.9")
        registration.withdraw()
        self.works(80, OFFICE)
        self.assertEqual(len(self.visits), 1)

    def test_refusedOrNot(self) -> None:
        """One that is refused is not forwarded; one that is nobody's is."""
        registration = self.node.registerFallbackTCPHandler(self.handler(REFUSE))
        self.refused(80, OFFICE)
        self.assertEqual(self.visits, [])
        registration.withdraw()
        self.node.registerFallbackTCPHandler(self.handler(None))
        self.works(80, OFFICE)
        self.assertEqual(len(self.visits), 1)

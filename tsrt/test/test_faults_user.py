"""
Programs whose code raises in every callback, on a running tailnet.
"""

from __future__ import annotations

from twisted.internet.protocol import (
    ClientFactory,
    DatagramProtocol,
    Factory,
    Protocol,
    ServerFactory,
)

from tsrt.runtime.prompt import LogPrompt
from tsrt.test.faultworld import Echo, FaultTestCase


class Mistake(Exception):
    """What the program raises."""


def mistaken(*arguments: object) -> None:
    """Raise."""
    raise Mistake


class FailingProtocol(Protocol):
    """Raises in whichever callback it is told to."""

    def __init__(self, where: str) -> None:
        setattr(self, where, mistaken)


TCP_CALLBACKS = (
    "makeConnection",
    "connectionMade",
    "dataReceived",
    "connectionLost",
    "readConnectionLost",
    "writeConnectionLost",
)


class UserTests(FaultTestCase):
    """Node C{b} runs a program full of mistakes besides the good one."""

    def setUp(self) -> None:
        self.makeTailnet("c")

    def flows(self, name: str) -> int:
        """How many TCP flows a node has."""
        return len(self.net[name]._overlay.stack._flows)

    def assertMistakes(self, atLeast: int = 1) -> None:
        """They were logged; nothing else was."""
        self.assertGreaterEqual(len(self.flushLoggedErrors(Mistake)), atLeast)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_everyServerCallback(self) -> None:
        """Connections to a program that raises end, and take nothing with them."""
        for port, where in enumerate((*TCP_CALLBACKS, "buildProtocol"), 2000):
            factory = ServerFactory()
            factory.noisy = False
            if where == "buildProtocol":
                factory.buildProtocol = mistaken
            else:
                factory.buildProtocol = lambda address, w=where: FailingProtocol(w)
            endpoint = self.net["b"].serverEndpoint(port)
            self.successResultOf(endpoint.listen(factory))
            for _ in range(10):
                client = self.connect("c", "b", port)
                client.transport.write(b"x" * 3000)
                self.net.elapse(0.5)
                client.transport.loseConnection()
                self.net.elapse(0.5)
                self.assertIsNotNone(client.reason, where)
        self.assertMistakes(50)
        self.net.elapse(200)
        self.assertLessEqual(self.flows("b"), 2)
        self.assertInnocent()

    def test_everyClientCallback(self) -> None:
        """The same for connections that the program makes."""
        self.serve("c", 99)
        names = (
            *TCP_CALLBACKS,
            "buildProtocol",
            "startedConnecting",
            "clientConnectionLost",
            "clientConnectionFailed",
        )
        for where in names:
            for port in (99, 98):
                factory = ClientFactory()
                factory.noisy = False
                protocol = Echo() if where not in TCP_CALLBACKS else None
                protocol = protocol or FailingProtocol(where)
                factory.buildProtocol = lambda address, p=protocol: p
                if where not in TCP_CALLBACKS:
                    setattr(factory, where, mistaken)
                try:
                    connector = self.net["b"].reactor.connectTCP(
                        self.net["c"].status.addresses[0], port, factory
                    )
                except Mistake:
                    self.assertEqual(where, "startedConnecting")
                    continue
                self.net.elapse(2)
                if protocol.transport is not None:
                    protocol.transport.write(b"echo this")
                self.net.elapse(2)
                connector.disconnect()
                self.net.elapse(2)
        self.assertMistakes(len(names) - 3)
        self.net.elapse(200)
        self.assertLessEqual(self.flows("b"), 2)
        self.assertInnocent()

    def test_everyDatagramCallback(self) -> None:
        """Datagram protocols that raise, one datagram at a time."""
        for where in ("datagramReceived", "connectionRefused", "stopProtocol"):
            protocol = DatagramProtocol()
            setattr(protocol, where, mistaken)
            port = self.net["b"].reactor.listenUDP(5000, protocol)
            sender = self.net["c"].reactor.listenUDP(0, DatagramProtocol())
            for _ in range(20):
                sender.write(b"x", (self.net["b"].status.addresses[0], 5000))
            self.net.elapse(1)
            if where == "connectionRefused":
                port.connect(self.net["c"].status.addresses[0], 9)
                port.write(b"nobody there")
                self.net.elapse(1)
            port.stopListening()
            sender.stopListening()
            self.net.elapse(1)
            self.assertMistakes()
        self.assertInnocent()

    def test_statusWatchersAndPrompts(self) -> None:
        """Watchers of the status and login prompts that raise."""

        class Prompt(LogPrompt):
            loginRequired = approvalRequired = loginCompleted = mistaken

        stops = [self.net["b"].watchStatus(mistaken)]
        node = self.net.addNode("d", authKey=None, login=Prompt(), start=False)
        stops.append(node.watchStatus(mistaken))
        node.startService()
        self.net.elapse(5)
        url = node.status.loginURL
        self.assertTrue(url)
        self.net.control.approve(url)
        self.net.wait(node.up())
        self.net.control.setHealth("something")
        self.net.elapse(2)
        self.net.control.setHealth()
        self.net.elapse(2)
        for stop in stops:
            stop()
        self.assertMistakes(3)
        self.assertInnocent()

    def test_closing(self) -> None:
        """Nodes stop although every connection of theirs has a mistake in its end."""
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: FailingProtocol("connectionLost")
        factory.doStop = mistaken
        endpoint = self.net["b"].serverEndpoint(2000)
        self.successResultOf(endpoint.listen(factory))
        for _ in range(10):
            self.connect("c", "b", 2000)
        self.stream.finish(self)
        began = self.net.clock.seconds()
        self.net.wait(self.net["b"].stopService())
        self.assertLess(self.net.clock.seconds() - began, 10)
        self.assertMistakes(10)
        self.net["b"].startService()
        self.net.waitUp("b")
        self.net.wait(self.net["c"].ping("b"))

    def test_deafProtocol(self) -> None:
        """A program that pauses and never goes on holds up nobody else."""

        class Deaf(Protocol):
            def connectionMade(self) -> None:
                self.transport.pauseProducing()

        endpoint = self.net["b"].serverEndpoint(2000)
        self.successResultOf(endpoint.listen(Factory.forProtocol(Deaf)))
        clients = [self.connect("c", "b", 2000) for _ in range(5)]
        for client in clients:
            client.transport.write(bytes(3_000_000))
        self.net.elapse(60)
        flows = self.net["b"]._overlay.stack._flows.flows()
        self.assertLess(max(flow.readable for flow in flows), 1 << 22)
        for client in clients:
            self.assertIsNone(client.reason)
            client.transport.abortConnection()
        self.assertInnocent()

    def test_busyProtocol(self) -> None:
        """Programs that answer every byte with another let others have a turn."""
        limit = 2000
        said = 0

        class Chatterbox(Protocol):
            def connectionMade(self) -> None:
                self.transport.write(b"hello")

            def dataReceived(self, data: bytes) -> None:
                nonlocal said
                said += 1
                if said < limit:
                    self.transport.write(data)

        node = self.net["b"]
        port = node.reactor.listenTCP(2000, Factory.forProtocol(Chatterbox))
        # Both ends are on one node, so that nothing slows them down.
        connecting = node.clientEndpoint(node.status.addresses[0], 2000).connect(
            Factory.forProtocol(Chatterbox)
        )
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            if said < limit:
                self.net.clock.callLater(0, turn)

        turn()
        end = self.net.wait(connecting)
        self.net.elapse(1)
        self.assertGreaterEqual(said, limit)
        self.assertGreater(turns, limit // 100)
        end.transport.abortConnection()
        port.stopListening()
        self.assertInnocent()

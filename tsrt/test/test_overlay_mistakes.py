"""
Tests for protocols, factories and producers that raise.

Each mistake is logged and ends the connection that it was made on, with what
was raised as the reason.  A second connection between the same nodes shows
that nothing else is harmed.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Factory
from twisted.trial.unittest import SynchronousTestCase

from tsrt.test.overlaynet import (
    B4,
    HalfCloser,
    OverlayNet,
    PushProducer,
    Recorder,
    factoryFor,
    join,
)


class Mistake(Exception):
    """What the user's code raises."""


def mistaken(*args: object) -> None:
    """Raise."""
    raise Mistake


class MistakeTests(SynchronousTestCase):
    """Mistakes, while another connection is open."""

    def setUp(self) -> None:
        self.net = OverlayNet()
        self.otherClient, self.otherServer = Recorder(), Recorder()
        join(self.net, self.otherClient, self.otherServer)
        self.client, self.server = Recorder(), HalfCloser()

    def tearDown(self) -> None:
        """The other connection still works, and ends as it should."""
        self.otherClient.transport.write(b"fine")
        self.net.elapse(1)
        self.assertEqual(b"fine", self.otherServer.data)
        self.otherServer.transport.loseConnection()
        self.net.elapse(1)
        self.assertIsInstance(self.otherClient.lost, ConnectionDone)

    def assertLogged(self, count: int = 1) -> None:
        self.assertEqual(count, len(self.flushLoggedErrors(Mistake)))

    def assertServerFailed(self) -> None:
        """The server's connection ended with the mistake, the client's too."""
        self.net.elapse(5)
        self.assertLogged()
        self.assertIsInstance(self.server.lost, Mistake)
        self.assertIsNotNone(self.client.lost)

    def test_makeConnection(self) -> None:
        """A server whose makeConnection raises."""

        def makeConnection(transport: object) -> None:
            HalfCloser.makeConnection(self.server, transport)
            mistaken()

        self.server.makeConnection = makeConnection
        join(self.net, self.client, self.server)
        self.assertServerFailed()

    def test_connectionMade(self) -> None:
        """A server whose connectionMade raises; what it wrote arrives."""

        def connectionMade() -> None:
            self.server.transport.write(b"so far")
            mistaken()

        self.server.connectionMade = connectionMade
        join(self.net, self.client, self.server)
        self.assertServerFailed()
        self.assertEqual(b"so far", self.client.data)

    def test_connectionMadeOfClient(self) -> None:
        """A client whose connectionMade raises."""
        self.client.connectionMade = mistaken
        port = self.net.b.tailnet.listenTCP(0, factoryFor(self.server))
        factory = ClientFactory()
        factory.noisy = False
        factory.buildProtocol = lambda address: self.client
        ends = []
        factory.clientConnectionLost = lambda connector, reason: ends.append(reason)
        self.net.a.tailnet.connectTCP(B4, port.getHost().port, factory)
        self.net.elapse(5)
        self.assertLogged()
        self.assertIsInstance(self.client.lost, Mistake)
        self.assertIsInstance(ends[0].value, Mistake)

    def test_dataReceived(self) -> None:
        """A dataReceived that raises gets no more data."""
        self.server.dataReceived = mistaken
        join(self.net, self.client, self.server)
        self.client.transport.write(bytes(500_000))
        self.assertServerFailed()

    def test_dataReceivedWhileDisconnecting(self) -> None:
        """A mistake after loseConnection is still the reason."""

        def dataReceived(data: bytes) -> None:
            self.server.transport.loseConnection()
            mistaken()

        self.server.dataReceived = dataReceived
        join(self.net, self.client, self.server)
        self.client.transport.write(b"x")
        self.assertServerFailed()

    def test_readConnectionLost(self) -> None:
        """A readConnectionLost that raises."""
        self.server.readConnectionLost = mistaken
        join(self.net, self.client, self.server)
        self.client.transport.loseWriteConnection()
        self.assertServerFailed()

    def test_writeConnectionLost(self) -> None:
        """A writeConnectionLost that raises."""
        self.server.writeConnectionLost = mistaken
        join(self.net, self.client, self.server)
        self.server.transport.loseWriteConnection()
        self.assertServerFailed()

    def test_connectionLost(self) -> None:
        """A connectionLost that raises is logged; everything else is told."""
        self.client.connectionLost = mistaken
        port = self.net.b.tailnet.listenTCP(0, factoryFor(self.server))
        factory = ClientFactory()
        factory.noisy = False
        factory.buildProtocol = lambda address: self.client
        ends = []
        factory.clientConnectionLost = lambda connector, reason: ends.append(reason)
        self.net.a.tailnet.connectTCP(B4, port.getHost().port, factory)
        self.net.elapse(1)
        self.server.transport.abortConnection()
        self.net.elapse(1)
        self.assertLogged()
        self.assertEqual(1, len(ends))

    def test_clientConnectionLost(self) -> None:
        """A factory that raises when told of the end."""
        port = self.net.b.tailnet.listenTCP(0, factoryFor(self.server))
        factory = ClientFactory()
        factory.noisy = False
        factory.buildProtocol = lambda address: self.client
        factory.clientConnectionLost = mistaken
        self.net.a.tailnet.connectTCP(B4, port.getHost().port, factory)
        self.net.elapse(1)
        self.server.transport.abortConnection()
        self.net.elapse(1)
        self.assertLogged()
        self.assertIsNotNone(self.client.lost)

    def test_clientConnectionFailed(self) -> None:
        """A factory that raises when told that there is no connection."""
        factory = ClientFactory()
        factory.noisy = False
        factory.clientConnectionFailed = mistaken
        self.net.a.tailnet.connectTCP(B4, 9, factory)
        self.net.elapse(1)
        self.assertLogged()

    def test_buildProtocolOfServer(self) -> None:
        """A factory that raises refuses that one connection."""
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = mistaken
        port = self.net.b.tailnet.listenTCP(0, factory)
        outgoing = factoryFor(self.client)
        self.net.a.tailnet.connectTCP(B4, port.getHost().port, clientFactory(outgoing))
        self.net.elapse(1)
        self.assertLogged()
        self.assertIsNotNone(self.client.lost)
        factory.buildProtocol = lambda address: self.server
        again = Recorder()
        self.net.a.tailnet.connectTCP(
            B4, port.getHost().port, clientFactory(factoryFor(again))
        )
        self.net.elapse(1)
        self.assertEqual(["made"], self.server.events)

    def test_buildProtocolOfClient(self) -> None:
        """A client factory that raises is told of the failure."""
        port = self.net.b.tailnet.listenTCP(0, factoryFor(self.server))
        failures = []
        factory = ClientFactory()
        factory.noisy = False
        factory.buildProtocol = mistaken
        factory.clientConnectionFailed = lambda connector, reason: failures.append(
            reason.value
        )
        self.net.a.tailnet.connectTCP(B4, port.getHost().port, factory)
        self.net.elapse(1)
        self.assertLogged()
        self.assertIsInstance(failures[0], Mistake)

    def test_doStartOfServer(self) -> None:
        """listenTCP raises what doStart raises, and the port stays free."""
        factory = Factory()
        factory.noisy = False
        factory.doStart = mistaken
        with self.assertRaises(Mistake):
            self.net.b.tailnet.listenTCP(80, factory)
        self.net.b.tailnet.listenTCP(80, factoryFor())

    def test_doStopOfServer(self) -> None:
        """A doStop that raises is logged, and the port is free."""
        factory = Factory()
        factory.noisy = False
        factory.doStop = mistaken
        port = self.net.b.tailnet.listenTCP(80, factory)
        self.net.wait(port.stopListening())
        self.assertLogged()
        self.net.b.tailnet.listenTCP(80, factoryFor())

    def test_doStartOfClient(self) -> None:
        """connectTCP raises what doStart raises."""
        factory = ClientFactory()
        factory.doStart = mistaken
        with self.assertRaises(Mistake):
            self.net.a.tailnet.connectTCP(B4, 80, factory)

    def test_doStopOfClient(self) -> None:
        """A client factory's doStop that raises is logged."""
        factory = ClientFactory()
        factory.noisy = False
        factory.doStop = mistaken
        self.net.a.tailnet.connectTCP(B4, 9, factory)
        self.net.elapse(1)
        self.assertLogged()

    # -- producers -----------------------------------------------------------------

    def test_pauseProducing(self) -> None:
        """A producer whose pauseProducing raises."""
        producer = PushProducer(self.server, 0)
        producer.pauseProducing = mistaken
        join(self.net, self.client, self.server)
        self.server.transport.registerProducer(producer, True)
        # The writer is somebody else, who is not to blame.
        self.server.transport.write(bytes(2_000_000))
        self.net.elapse(1)
        self.client.transport.loseConnection()
        self.assertServerFailed()
        self.assertEqual(["stop"], producer.events)

    def test_resumeProducing(self) -> None:
        """A producer whose resumeProducing raises."""
        join(self.net, self.client, self.server)
        producer = PushProducer(self.server.transport, 3_000_000)
        producer.resumeProducing = mistaken
        producer.start()
        self.net.elapse(1)
        self.client.transport.loseConnection()
        self.assertServerFailed()
        self.assertEqual(["pause", "stop"], producer.events)

    def test_resumeProducingAtRegistration(self) -> None:
        """Registering a pull producer raises what it raises when asked."""
        join(self.net, self.client, self.server)
        producer = PushProducer(self.server.transport, 0)
        producer.resumeProducing = mistaken
        with self.assertRaises(Mistake):
            self.server.transport.registerProducer(producer, False)
        self.server.transport.unregisterProducer()

    def test_stopProducing(self) -> None:
        """A producer whose stopProducing raises; the protocol is told anyway."""
        join(self.net, self.client, self.server)
        producer = PushProducer(self.server.transport, 0)
        producer.stopProducing = mistaken
        self.server.transport.registerProducer(producer, True)
        self.client.transport.abortConnection()
        self.net.elapse(1)
        self.assertLogged()
        self.assertIsNotNone(self.server.lost)

    # -- datagrams -------------------------------------------------------------------

    def test_datagramReceived(self) -> None:
        """A datagramReceived that raises costs that datagram; more come."""
        got = []

        class Picky(DatagramProtocol):
            def datagramReceived(self, data: bytes, addr: object) -> None:
                got.append(data)
                if data == b"bad":
                    raise Mistake

        port = self.net.b.tailnet.listenUDP(0, Picky())
        sender = self.net.a.tailnet.listenUDP(0, DatagramProtocol())
        for data in (b"one", b"bad", b"two"):
            sender.write(data, (B4, port.getHost().port))
        self.net.elapse(1)
        self.assertEqual([b"one", b"bad", b"two"], got)
        self.assertLogged()

    def test_startProtocol(self) -> None:
        """listenUDP raises what startProtocol raises, and the port stays free."""
        protocol = DatagramProtocol()
        protocol.startProtocol = mistaken
        with self.assertRaises(Mistake):
            self.net.b.tailnet.listenUDP(53, protocol)
        self.net.b.tailnet.listenUDP(53, DatagramProtocol())

    def test_stopProtocol(self) -> None:
        """A stopProtocol that raises is logged, and the port is free."""
        protocol = DatagramProtocol()
        protocol.stopProtocol = mistaken
        port = self.net.b.tailnet.listenUDP(53, protocol)
        self.net.wait(port.stopListening())
        self.assertLogged()
        self.net.b.tailnet.listenUDP(53, DatagramProtocol())

    def test_connectionRefused(self) -> None:
        """A connectionRefused that raises is logged; the port goes on."""
        protocol = DatagramProtocol()
        protocol.connectionRefused = mistaken
        port = self.net.a.tailnet.listenUDP(0, protocol)
        port.connect(B4, 9)
        port.write(b"x")
        self.net.elapse(1)
        self.assertLogged()
        port.write(b"y")
        self.net.elapse(1)
        self.assertLogged()


def clientFactory(factory: Factory) -> ClientFactory:
    """A client factory that builds what another factory builds."""
    made = ClientFactory()
    made.noisy = False
    made.buildProtocol = factory.buildProtocol
    return made

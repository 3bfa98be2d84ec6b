"""Tests for TLS over overlay transports: wrapped, by reactor, and startTLS."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.endpoints import wrapClientTLS, wrapServerTLS
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.internet.protocol import ClientFactory
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tsrt.endpoints import TailnetClientEndpoint, TailnetServerEndpoint
from tsrt.netstack.tcpoptions import DEFAULTS
from tsrt.overlay.feed import LEAST_HIGH_WATER
from tsrt.test.overlaynet import (
    B4,
    HalfCloser,
    OverlayNet,
    PushProducer,
    Recorder,
    factoryFor,
    join,
    queued,
)
from tsrt.testing.certificates import selfSigned

_made = selfSigned(["b.test"])


def serverOptions():
    """What a TLS server is configured with."""
    return PrivateCertificate.loadPEM(_made.keyPEM + _made.pem).options()


def clientOptions(name: str = "b.test"):
    """What a TLS client that trusts that server is configured with."""
    return optionsForClientTLS(name, trustRoot=Certificate.loadPEM(_made.pem))


class TLSCase(SynchronousTestCase):
    """Two nodes."""

    def setUp(self) -> None:
        self.net = OverlayNet()
        self.client, self.server = Recorder(), Recorder()

    def assertExchange(self) -> None:
        """Bytes go both ways, more than a window of them."""
        self.client.transport.write(b"c" * 300_000)
        self.server.transport.write(b"s" * 300_000)
        self.net.elapse(10)
        self.assertEqual(b"c" * 300_000, self.server.data)
        self.assertEqual(b"s" * 300_000, self.client.data)

    def assertCleanEnd(self) -> None:
        """The client closes, and both sides hear of a clean end."""
        self.client.transport.loseConnection()
        self.net.elapse(1)
        self.assertIsInstance(self.client.lost, ConnectionDone)
        self.assertIsInstance(self.server.lost, ConnectionDone)


class WrappedTests(TLSCase):
    """TLS as a protocol of its own, above the transport."""

    def connectSSL(self, name: str = "b.test") -> None:
        port = self.net.b.tailnet.listenSSL(0, factoryFor(self.server), serverOptions())
        factory = ClientFactory()
        factory.noisy = False
        factory.buildProtocol = lambda address: self.client
        self.net.a.tailnet.connectSSL(
            B4, port.getHost().port, factory, clientOptions(name)
        )
        self.net.elapse(1)

    def test_reactorSSL(self) -> None:
        """connectSSL and listenSSL make a TLS connection."""
        self.connectSSL()
        self.assertTrue(verifyObject(ISSLTransport, self.client.transport))
        self.assertExchange()
        self.assertCleanEnd()

    def test_wrongCertificate(self) -> None:
        """A certificate for another name ends the connection on both sides."""
        self.connectSSL("other.test")
        self.assertIsInstance(self.server.lost, SSL.Error | ConnectionLost)
        self.assertNotIsInstance(self.client.lost, ConnectionDone)

    def endpoints(self):
        server = wrapServerTLS(
            serverOptions(),
            TailnetServerEndpoint(lambda: self.net.b.tailnet, 443),
            self.net.clock,
        )
        self.net.wait(server.listen(factoryFor(self.server)))
        return TailnetClientEndpoint(lambda: self.net.a.tailnet, B4, 443)

    def test_wrapClientTLS(self) -> None:
        """Twisted's wrappers work over the endpoints of the overlay."""
        client = wrapClientTLS(clientOptions(), self.endpoints(), self.net.clock)
        protocol = self.net.wait(client.connect(factoryFor(self.client)))
        self.assertIs(self.client, protocol)
        self.net.elapse(1)
        self.assertExchange()
        self.assertCleanEnd()

    def test_largeWriteThenLose(self) -> None:
        """loseConnection under TLS flushes everything written."""
        self.connectSSL()
        self.client.transport.write(b"x" * 1_000_000)
        self.client.transport.loseConnection()
        self.net.elapse(20)
        self.assertEqual(1_000_000, len(self.server.data))
        self.assertIsInstance(self.client.lost, ConnectionDone)
        self.assertIsInstance(self.server.lost, ConnectionDone)

    def test_backPressure(self) -> None:
        """A paused reader pauses a producer through both TLS layers."""
        self.connectSSL()
        self.server.transport.pauseProducing()
        producer = PushProducer(self.client.transport, 20_000_000)
        producer.start()
        self.net.elapse(60)
        self.assertEqual("pause", producer.events[-1])
        self.assertLess(producer.written, DEFAULTS.receiveLimit + 3 * LEAST_HIGH_WATER)
        self.server.dataReceived = lambda data: None
        self.server.transport.resumeProducing()
        self.net.elapse(60)
        self.assertEqual("done", producer.events[-1])

    def test_truncation(self) -> None:
        """An end of the stream without TLS's own end is a lost connection."""
        self.connectSSL()
        self.client.transport.write(b"half a mess")
        self.net.elapse(1)
        # Below TLS, as an attacker could.
        self.client.transport.transport.rawLoseConnection()
        self.net.elapse(1)
        self.assertIs(ConnectionLost, type(self.server.lost))


class StartTLSTests(TLSCase):
    """TLS in the middle of a connection."""

    def startTLS(self, normal: bool = True) -> None:
        """Exchange a line in clear text, then begin TLS on both sides."""
        join(self.net, self.client, self.server)
        self.client.transport.write(b"STARTTLS")
        self.net.elapse(1)
        self.assertEqual(b"STARTTLS", self.server.data)
        self.server.transport.write(b"go on")
        self.net.elapse(1)
        self.assertEqual(b"go on", self.client.data)
        self.client.data = self.server.data = b""
        if normal:
            self.server.transport.startTLS(serverOptions())
            self.client.transport.startTLS(clientOptions())
        else:
            self.client.transport.startTLS(serverOptions(), False)
            self.server.transport.startTLS(clientOptions(), False)

    def test_clientIsClient(self) -> None:
        """The TCP client is the TLS client by default."""
        self.startTLS()
        self.assertTrue(verifyObject(ISSLTransport, self.client.transport))
        self.assertTrue(self.client.transport.TLS)
        self.assertExchange()
        certificate = self.client.transport.getPeerCertificate()
        self.assertEqual(
            _made.certificate.serial_number, certificate.get_serial_number()
        )
        self.assertIsInstance(self.server.transport.getHandle(), SSL.Connection)
        self.assertCleanEnd()

    def test_serverIsClient(self) -> None:
        """With normal=False the TCP server is the TLS client."""
        self.startTLS(normal=False)
        self.assertExchange()
        self.assertIsNotNone(self.server.transport.getPeerCertificate())
        self.assertCleanEnd()

    def test_serverCloses(self) -> None:
        """Either side may close."""
        self.startTLS()
        self.server.transport.write(b"bye")
        self.server.transport.loseConnection()
        self.net.elapse(2)
        self.assertEqual(b"bye", self.client.data)
        self.assertIsInstance(self.client.lost, ConnectionDone)
        self.assertIsInstance(self.server.lost, ConnectionDone)

    def test_nothingInClear(self) -> None:
        """What is written under TLS is not on the wire."""
        seen = []
        self.startTLS()
        self.net.lose = lambda packet: seen.append(packet)
        self.client.transport.write(b"a secret")
        self.client.transport.writeSequence([b"more ", b"secrets"])
        self.net.elapse(2)
        self.assertEqual(b"a secretmore secrets", self.server.data)
        self.assertNotIn(b"secret", b"".join(seen))

    def test_insideDataReceived(self) -> None:
        """startTLS may be called by dataReceived, as SMTP and IMAP servers do."""

        def dataReceived(data: bytes) -> None:
            del self.server.dataReceived
            self.server.transport.write(b"ready")
            self.server.transport.startTLS(serverOptions())

        def ready(data: bytes) -> None:
            self.client.data += data
            del self.client.dataReceived
            self.client.transport.startTLS(clientOptions())
            self.client.transport.write(b"hello")

        self.server.dataReceived = dataReceived
        self.client.dataReceived = ready
        join(self.net, self.client, self.server)
        self.client.transport.write(b"STARTTLS")
        self.net.elapse(1)
        self.assertEqual(b"ready", self.client.data)
        self.assertEqual(b"hello", self.server.data)

    def test_handshakeListener(self) -> None:
        """A protocol that wants to is told when the handshake is done."""

        @implementer(IHandshakeListener)
        class Listener(Recorder):
            def handshakeCompleted(self) -> None:
                self.events.append("handshake")

        self.client = Listener()
        self.startTLS()
        self.net.elapse(1)
        self.assertEqual(["made", "handshake"], self.client.events)

    def test_producerMovesAbove(self) -> None:
        """A producer that is registered before startTLS goes on above it."""
        join(self.net, self.client, self.server)
        producer = PushProducer(self.client.transport, 2_000_000)
        self.client.transport.registerProducer(producer, True)
        self.server.transport.startTLS(serverOptions())
        self.client.transport.startTLS(clientOptions())
        producer._produce()
        self.net.elapse(20)
        self.assertEqual(2_000_000, len(self.server.data))
        self.assertIn("pause", producer.events)
        self.assertEqual("done", producer.events[-1])

    def test_slowReader(self) -> None:
        """Memory stays bounded under startTLS too."""
        self.startTLS()
        self.net.elapse(1)
        self.server.transport.pauseProducing()
        producer = PushProducer(self.client.transport, 20_000_000)
        producer.start()
        self.net.elapse(60)
        self.assertEqual("pause", producer.events[-1])
        self.assertLess(queued(self.client), 2 * LEAST_HIGH_WATER)

    def test_loseWriteConnection(self) -> None:
        """TLS is never left half-open: ending one direction ends both."""
        self.client, self.server = HalfCloser(), HalfCloser()
        self.startTLS()
        self.net.elapse(1)
        self.client.transport.write(b"the end")
        self.client.transport.loseWriteConnection()
        self.net.elapse(1)
        self.assertEqual(b"the end", self.server.data)
        self.assertIsInstance(self.client.lost, ConnectionDone)
        self.assertIsInstance(self.server.lost, ConnectionDone)
        self.assertEqual(["made", "lost"], self.server.events)

    def test_peerEndsBelow(self) -> None:
        """A FIN below TLS is no clean end, also for who knows half-close."""
        self.client, self.server = HalfCloser(), HalfCloser()
        self.startTLS()
        self.net.elapse(1)
        self.client.transport.rawLoseConnection()
        self.net.elapse(1)
        self.assertIs(ConnectionLost, type(self.server.lost))

    def test_abort(self) -> None:
        """abortConnection resets the connection below TLS."""
        self.startTLS()
        self.net.elapse(1)
        self.client.transport.abortConnection()
        self.net.elapse(1)
        # Which of the two it is the TLS layer decides.
        self.assertIsInstance(self.client.lost, ConnectionAborted | ConnectionLost)
        self.assertIs(ConnectionLost, type(self.server.lost))

    def test_abortInHandshake(self) -> None:
        """So it does before the handshake is done."""
        self.startTLS()
        self.client.transport.abortConnection()
        self.net.elapse(1)
        self.assertIsInstance(self.client.lost, ConnectionAborted | ConnectionLost)
        self.assertIsNotNone(self.server.lost)

    def test_everythingAfterTheEnd(self) -> None:
        """After the end every method is harmless."""
        self.startTLS()
        self.net.elapse(1)
        transport = self.client.transport
        self.assertCleanEnd()
        producer = PushProducer(None, 0)
        transport.write(b"x")
        transport.writeSequence([b"x"])
        transport.loseConnection()
        transport.loseWriteConnection()
        transport.abortConnection()
        transport.registerProducer(producer, True)
        transport.unregisterProducer()
        self.assertEqual(["stop"], producer.events)

    def test_mistakeUnderTLS(self) -> None:
        """A protocol that raises under TLS loses the connection; it is logged."""
        self.startTLS()
        self.server.dataReceived = lambda data: 1 / 0
        self.client.transport.write(b"x")
        self.net.elapse(2)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        # The TLS layer puts the missing end of TLS in place of the reason.
        self.assertIs(ConnectionLost, type(self.server.lost))
        self.assertIsNotNone(self.client.lost)

    def test_garbage(self) -> None:
        """Bytes that are no TLS end the connection with an error of TLS."""
        join(self.net, self.client, self.server)
        self.server.transport.startTLS(serverOptions())
        self.client.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        self.net.elapse(2)
        self.assertIsInstance(self.server.lost, SSL.Error)
        self.assertIsNotNone(self.client.lost)

"""Tests for TCP transports of the overlay: data, ends, addresses, options."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    ILoggingContext,
    IPushProducer,
    ITCPTransport,
    ITLSTransport,
    ITransport,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from tsrt.overlay.transport import READ_SIZE, TailnetTCPTransport
from tsrt.test.overlaynet import (
    A4,
    A6,
    B4,
    B6,
    HalfCloser,
    OverlayNet,
    Recorder,
    join,
    queued,
)

INTERFACES = (
    ITransport,
    ITCPTransport,
    ITLSTransport,
    IConsumer,
    IPushProducer,
    ILoggingContext,
)


class TransportTests(SynchronousTestCase):
    """Two connected protocols."""

    def setUp(self) -> None:
        self.net = OverlayNet()
        self.client, self.server = Recorder(), Recorder()

    def join(self, host: str = B4) -> None:
        self.port = join(self.net, self.client, self.server, host)

    def assertQuiet(self) -> None:
        """No transport or connector left a delayed call."""
        self.net.elapse(300)
        self.assertEqual([], self.net.clock.getDelayedCalls())

    def test_interfaces(self) -> None:
        """The transport provides what it says it provides."""
        self.join()
        for interface in INTERFACES:
            self.assertTrue(verifyClass(interface, TailnetTCPTransport))
            for protocol in (self.client, self.server):
                self.assertTrue(verifyObject(interface, protocol.transport))

    def test_addresses(self) -> None:
        """Both sides have plain IPv4 addresses of the overlay."""
        self.join()
        for mine, other, host in (
            (self.client, self.server, A4),
            (self.server, self.client, B4),
        ):
            address = mine.transport.getHost()
            self.assertIs(type(address), IPv4Address)
            self.assertEqual("TCP", address.type)
            self.assertEqual(host, address.host)
            self.assertEqual(address, other.transport.getPeer())

    def test_addresses6(self) -> None:
        """Both sides have plain IPv6 addresses of the overlay."""
        self.join(B6)
        address = self.client.transport.getHost()
        self.assertIs(type(address), IPv6Address)
        self.assertEqual(A6, address.host)
        self.assertEqual(address, self.server.transport.getPeer())
        self.assertEqual(B6, self.client.transport.getPeer().host)

    def test_exchange(self) -> None:
        """What one side writes the other receives, in order."""
        self.join()
        self.client.transport.write(b"one ")
        self.client.transport.writeSequence([b"two ", b"three"])
        self.server.transport.write(memoryview(b"back"))
        self.net.elapse(1)
        self.assertEqual(b"one two three", self.server.data)
        self.assertEqual(b"back", self.client.data)

    def test_writesOfOneTurnLeaveTogether(self) -> None:
        """Many small writes in one turn make one packet, without Nagle."""
        self.join()
        self.net.elapse(1)
        self.net.packets = 0
        for _ in range(100):
            self.client.transport.write(b"x")
        self.net.elapse(0.006)
        self.assertEqual(1, self.net.packets)
        self.assertEqual(b"x" * 100, self.server.data)

    def test_pieces(self) -> None:
        """A protocol gets much data in pieces of a bounded size."""
        sizes = []
        self.server.dataReceived = lambda data: sizes.append(len(data))
        self.join()
        self.client.transport.write(bytes(2_000_000))
        self.net.elapse(10)
        self.assertEqual(2_000_000, sum(sizes))
        self.assertLessEqual(max(sizes), READ_SIZE)

    def test_wrongData(self) -> None:
        """Writing what is no bytes raises TypeError; the connection lives on."""
        self.join()
        for wrong in ("text", 5, None):
            with self.assertRaises(TypeError):
                self.client.transport.write(wrong)
        with self.assertRaises(TypeError):
            self.client.transport.writeSequence([b"x", "y"])  # type: ignore[list-item]  # the mistake
        self.client.transport.write(b"fine")
        self.net.elapse(1)
        self.assertEqual(b"fine", self.server.data)

    # -- ends ------------------------------------------------------------------------

    def test_loseConnectionFlushes(self) -> None:
        """Everything written before loseConnection arrives; then both hear."""
        self.join()
        self.client.transport.write(bytes(500_000))
        self.client.transport.loseConnection()
        self.assertTrue(self.client.transport.disconnecting)
        self.assertIsNone(self.client.lost)
        self.net.elapse(10)
        self.assertEqual(500_000, len(self.server.data))
        self.assertIsInstance(self.client.lost, ConnectionDone)
        self.assertIsInstance(self.server.lost, ConnectionDone)
        self.port.stopListening()
        self.assertQuiet()

    def test_loseConnectionInConnectionMade(self) -> None:
        """What connectionMade writes before it closes arrives."""

        def connectionMade() -> None:
            self.server.transport.write(b"greeting")
            self.server.transport.loseConnection()
            self.assertNotIn("lost", self.server.events)

        self.server.connectionMade = connectionMade
        self.join()
        self.net.elapse(1)
        self.assertEqual(b"greeting", self.client.data)
        self.assertIsInstance(self.client.lost, ConnectionDone)
        self.assertIsInstance(self.server.lost, ConnectionDone)

    def test_loseConnectionInDataReceived(self) -> None:
        """An answer written before the close arrives; no more data is given."""

        def dataReceived(data: bytes) -> None:
            self.server.data += data
            self.server.transport.write(b"answer")
            self.server.transport.loseConnection()
            self.assertIsNone(self.server.lost)

        self.server.dataReceived = dataReceived
        self.join()
        self.client.transport.write(b"question")
        self.net.elapse(0.001)
        self.client.transport.write(b" and more")
        self.net.elapse(1)
        self.assertEqual(b"question", self.server.data)
        self.assertEqual(b"answer", self.client.data)
        self.assertIsInstance(self.client.lost, ConnectionDone)

    def test_loseConnectionTwice(self) -> None:
        """Closing again, before or after the end, does nothing."""
        self.join()
        self.client.transport.loseConnection()
        self.client.transport.loseConnection()
        self.net.elapse(1)
        self.client.transport.loseConnection()
        self.net.elapse(1)
        self.assertEqual(["made", "lost"], self.client.events)

    def test_writeAfterLoseConnection(self) -> None:
        """Bytes written in the same turn, after loseConnection, still go out."""
        self.join()
        self.client.transport.loseConnection()
        self.client.transport.write(b"late")
        self.net.elapse(1)
        self.assertEqual(b"late", self.server.data)

    def test_everythingAfterTheEnd(self) -> None:
        """After the end every method is harmless."""
        self.join()
        transport = self.client.transport
        transport.loseConnection()
        self.net.elapse(1)
        events: list[str] = []

        class Producer:
            def stopProducing(self) -> None:
                events.append("stop")

        transport.write(b"x")
        transport.writeSequence([b"x"])
        transport.loseConnection()
        transport.loseWriteConnection()
        transport.abortConnection()
        transport.pauseProducing()
        transport.resumeProducing()
        transport.stopProducing()
        transport.registerProducer(Producer(), True)
        transport.unregisterProducer()
        transport.stopConsuming()
        transport.setTcpNoDelay(False)
        transport.setTcpKeepAlive(True)
        transport.setTcpKeepAlive(False)
        self.assertEqual(A4, transport.getHost().host)
        self.assertEqual(B4, transport.getPeer().host)
        self.assertIn("not connected", repr(transport))
        self.assertEqual(["stop"], events)
        self.port.stopListening()
        self.assertQuiet()

    def test_abort(self) -> None:
        """abortConnection drops what was not sent, and the peer gets a reset."""
        self.join()
        self.client.transport.write(bytes(1_000_000))
        self.client.transport.abortConnection()
        self.client.transport.abortConnection()
        self.client.transport.write(b"nothing")
        self.assertIsNone(self.client.lost)
        self.net.elapse(1)
        self.assertIsInstance(self.client.lost, ConnectionAborted)
        self.assertIsInstance(self.server.lost, ConnectionLost)
        self.assertEqual(b"", self.server.data)
        self.port.stopListening()
        self.assertQuiet()

    def test_abortInDataReceived(self) -> None:
        """After an abort a protocol gets no more data, and no call in a call."""

        def dataReceived(data: bytes) -> None:
            self.server.data += data[:1]
            self.server.transport.abortConnection()
            self.assertIsNone(self.server.lost)

        def connectionLost(reason) -> None:
            Recorder.connectionLost(self.server, reason)
            names = [call.func.__name__ for call in self.net.clock.getDelayedCalls()]
            self.assertNotIn("_woken", names)

        self.server.dataReceived = dataReceived
        self.server.connectionLost = connectionLost
        self.join()
        self.client.transport.write(bytes(READ_SIZE * 3))
        self.net.elapse(1)
        self.assertEqual(1, len(self.server.data))
        self.assertIsInstance(self.server.lost, ConnectionAborted)

    def test_loseConnectionWithDataUnread(self) -> None:
        """What a closing protocol did not read does not make its end a reset."""
        self.client = HalfCloser()
        self.join()
        self.server.transport.pauseProducing()
        self.client.transport.write(b"never read")
        self.net.elapse(1)
        self.server.transport.write(b"last words")
        self.server.transport.loseConnection()
        self.net.elapse(1)
        self.assertEqual(b"last words", self.client.data)
        self.assertEqual(["made", "read lost"], self.client.events)
        self.assertEqual(["made", "lost"], self.server.events)
        self.assertEqual(b"", self.server.data)

    def test_turnInsideATurn(self) -> None:
        """A protocol that turns the reactor itself is not called in its call."""
        depth = [0]

        def dataReceived(data: bytes) -> None:
            self.assertEqual(0, depth[0])
            depth[0] += 1
            self.server.data += data
            self.client.transport.write(b"more" if len(self.server.data) < 20 else b"")
            self.net.elapse(0.02)
            depth[0] -= 1

        self.server.dataReceived = dataReceived
        self.join()
        self.client.transport.write(b"begin")
        self.net.elapse(2)
        self.assertGreaterEqual(len(self.server.data), 20)

    def test_abortAfterLose(self) -> None:
        """An abort ends a connection that cannot be flushed."""
        self.join()
        self.server.transport.pauseProducing()
        self.client.transport.write(bytes(3_000_000))
        self.client.transport.loseConnection()
        self.net.elapse(30)
        self.assertIsNone(self.client.lost)
        self.client.transport.abortConnection()
        self.net.elapse(1)
        self.assertIsInstance(self.client.lost, ConnectionAborted)

    def test_resetWhileFlushing(self) -> None:
        """A connection that is reset before all was flushed was not done."""
        self.join()
        self.server.transport.pauseProducing()
        self.client.transport.write(bytes(3_000_000))
        self.client.transport.loseConnection()
        self.net.elapse(5)
        self.server.transport.abortConnection()
        self.net.elapse(1)
        self.assertIs(ConnectionLost, type(self.client.lost))
        self.assertIn("reset", str(self.client.lost))

    def test_silentPeer(self) -> None:
        """A peer that never acknowledges ends the connection, in time."""
        self.join()
        self.net.lose = lambda packet: True
        self.client.transport.write(b"anybody?")
        self.net.until(lambda: self.client.lost is not None, limit=1000)
        self.assertIs(ConnectionLost, type(self.client.lost))
        self.assertIn("did not answer", str(self.client.lost))

    def test_keepAlive(self) -> None:
        """Keep-alive finds out about a peer that is gone, at the set times."""
        self.join()
        transport = self.client.transport
        self.assertFalse(transport.getTcpKeepAlive())
        transport.setTcpKeepAlive(True, idle=60, interval=10, count=3)
        self.assertTrue(transport.getTcpKeepAlive())
        self.net.elapse(300)
        self.assertIsNone(self.client.lost)
        self.net.lose = lambda packet: True
        self.net.elapse(110)
        self.assertIs(ConnectionLost, type(self.client.lost))

    def test_noDelay(self) -> None:
        """Small writes leave at once unless the program wants them gathered."""
        self.join()
        transport = self.client.transport
        self.assertIs(True, transport.getTcpNoDelay())
        transport.write(b"1")
        self.net.elapse(0.001)
        transport.write(b"2")
        self.net.elapse(0.0045)
        self.assertEqual(b"1", self.server.data)
        self.net.elapse(0.001)
        self.assertEqual(b"12", self.server.data)
        self.net.elapse(1)
        self.server.data = b""
        transport.setTcpNoDelay(False)
        self.assertIs(False, transport.getTcpNoDelay())
        transport.write(b"a")
        self.net.elapse(0.001)
        transport.write(b"b")
        self.net.elapse(0.002)
        self.assertEqual(2, queued(self.client))
        self.net.elapse(0.003)
        self.assertEqual(b"a", self.server.data)
        transport.setTcpNoDelay(True)
        self.net.elapse(0.006)
        self.assertEqual(b"ab", self.server.data)

    def test_lostAddress(self) -> None:
        """A connection whose address is taken away ends."""
        self.join()
        self.net.a.stack.setAddresses([])
        self.net.a.flush()
        self.net.elapse(1)
        self.assertIs(ConnectionLost, type(self.client.lost))
        self.assertIn("lost the address", str(self.client.lost))

    def test_logPrefix(self) -> None:
        """Log lines name the protocol and the side."""
        self.join()
        self.assertEqual("Recorder,client", self.client.transport.logPrefix())
        port = self.client.transport.getHost().port
        self.assertEqual(f"Recorder,{port},{A4}", self.server.transport.logPrefix())
        self.assertIn(B4, repr(self.client.transport))

    def test_losses(self) -> None:
        """Data arrives complete and in order although packets are lost."""
        lost = iter([False, False, True] * 100_000)
        self.join()
        self.net.lose = lambda packet: next(lost)
        data = bytes(range(256)) * 400
        self.client.transport.write(data)
        self.client.transport.loseConnection()
        self.net.until(lambda: self.server.lost is not None, limit=600)
        self.assertEqual(data, self.server.data)

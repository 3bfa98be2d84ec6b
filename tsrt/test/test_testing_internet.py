"""
Tests for the simulated internet: L{tsrt.testing.internet} and its parts.
"""

from __future__ import annotations

from twisted.internet import error
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
)
from twisted.internet.interfaces import (
    IConnector,
    IConsumer,
    IHalfCloseableProtocol,
    IHostnameResolver,
    IListeningPort,
    IPushProducer,
    IReactorFromThreads,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
    ITCPTransport,
    IUDPTransport,
)
from twisted.internet.protocol import (
    ClientFactory,
    ConnectedDatagramProtocol,
    DatagramProtocol,
    Factory,
    Protocol,
)
from twisted.internet.task import Clock, LoopingCall
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent, readBody
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tsrt.testing.clock import PumpError, elapse, nextEvent, pump, resultOf
from tsrt.testing.internet import HostReactor, MemoryInternet
from tsrt.testing.links import Link


class Recorder(Protocol):
    """Keeps what happens to it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.times: list[float] = []
        self.reasons: list[Failure] = []

    @property
    def data(self) -> bytes:
        return b"".join(self.received)

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)
        self.times.append(self.transport.reactor.seconds())

    def connectionLost(self, reason: Failure) -> None:
        self.reasons.append(reason)


@implementer(IHalfCloseableProtocol)
class HalfCloser(Recorder):
    """A recorder that goes on after one direction is closed."""

    readLost = False
    writeLost = False

    def readConnectionLost(self) -> None:
        self.readLost = True

    def writeConnectionLost(self) -> None:
        self.writeLost = True


class Collector(Factory):
    """Makes protocols of one class and keeps them."""

    def __init__(self, kind: type[Protocol] = Recorder) -> None:
        self.kind = kind
        self.made: list[Protocol] = []

    def buildProtocol(self, addr):
        protocol = self.kind()
        protocol.factory = self
        self.made.append(protocol)
        return protocol


class Clients(ClientFactory):
    """Keeps what becomes of connections."""

    noisy = False

    def __init__(self) -> None:
        self.made: list[Recorder] = []
        self.failed: list[Failure] = []
        self.lost: list[Failure] = []

    def buildProtocol(self, addr):
        self.made.append(Recorder())
        return self.made[-1]

    def clientConnectionFailed(self, connector, reason):
        self.failed.append(reason)

    def clientConnectionLost(self, connector, reason):
        self.lost.append(reason)


class Datagrams(DatagramProtocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, tuple[str, int]]] = []

    def datagramReceived(self, datagram, addr):
        self.received.append((datagram, addr))


class InternetTestCase(SynchronousTestCase):
    """Two hosts, far from each other."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.internet = MemoryInternet(self.clock, seed=7)
        self.alice = self.internet.host("alice", ["192.0.2.1", "2001:db8::1"])
        self.bob = self.internet.host("bob", ["192.0.2.2", "2001:db8::2"])

    def connected(
        self, kind: type[Protocol] = Recorder, port: int = 80
    ) -> tuple[Protocol, Protocol]:
        """A stream from alice to bob."""
        server = Collector(kind)
        resultOf(self.clock, TCP4ServerEndpoint(self.bob, port).listen(server))
        client = resultOf(
            self.clock,
            TCP4ClientEndpoint(self.alice, "192.0.2.2", port).connect(Collector(kind)),
        )
        pump(self.clock, lambda: bool(server.made))
        return client, server.made[0]


class InterfaceTests(InternetTestCase):
    """Everything that a host hands out has the interface it claims."""

    def test_hostReactor(self) -> None:
        """A host provides the reactor interfaces that endpoints need."""
        for interface in (
            IReactorTCP,
            IReactorUDP,
            IReactorTime,
            IReactorPluggableNameResolver,
            IReactorFromThreads,
        ):
            verifyObject(interface, self.alice)
        verifyObject(IHostnameResolver, self.alice.nameResolver)

    def test_transports(self) -> None:
        """Streams, ports and connectors provide Twisted's interfaces."""
        client, server = self.connected()
        for protocol in (client, server):
            for interface in (ITCPTransport, IConsumer, IPushProducer):
                verifyObject(interface, protocol.transport)
        verifyObject(IListeningPort, self.bob.ports[0])
        udp = self.alice.listenUDP(0, Datagrams())
        verifyObject(IUDPTransport, udp)
        verifyObject(IListeningPort, udp)
        connector = self.alice.connectTCP("192.0.2.2", 80, ClientFactory())
        verifyObject(IConnector, connector)
        connector.stopConnecting()


class StreamTests(InternetTestCase):
    """Streams behave as TCP connections of a real reactor."""

    def test_dataArrivesAfterTheDelay(self) -> None:
        """Bytes arrive whole, in order, and one path delay later."""
        client, server = self.connected()
        start = self.clock.seconds()
        client.transport.write(b"one ")
        client.transport.writeSequence([b"two ", b"three"])
        pump(self.clock, lambda: bool(server.received))
        self.assertEqual(server.data, b"one two three")
        self.assertAlmostEqual(self.clock.seconds() - start, 0.01)

    def test_addresses(self) -> None:
        """Each end sees its own and the other's address and port."""
        client, server = self.connected()
        self.assertEqual(client.transport.getPeer().host, "192.0.2.2")
        self.assertEqual(client.transport.getPeer().port, 80)
        self.assertEqual(client.transport.getHost(), server.transport.getPeer())
        self.assertEqual(server.transport.getHost(), client.transport.getPeer())

    def test_connectingTakesARoundTrip(self) -> None:
        """The client is connected one round trip after it began."""
        TCP4ServerEndpoint(self.bob, 80).listen(Collector())
        connecting = TCP4ClientEndpoint(self.alice, "192.0.2.2", 80).connect(
            Collector()
        )
        resultOf(self.clock, connecting)
        self.assertAlmostEqual(self.clock.seconds(), 0.02)

    def test_refused(self) -> None:
        """A port at which nobody listens refuses after a round trip."""
        connecting = TCP4ClientEndpoint(self.alice, "192.0.2.2", 81).connect(
            Collector()
        )
        with self.assertRaises(error.ConnectionRefusedError):
            resultOf(self.clock, connecting)
        self.assertAlmostEqual(self.clock.seconds(), 0.02)

    def test_unreachable(self) -> None:
        """An address that nobody has makes connecting time out."""
        connecting = TCP4ClientEndpoint(
            self.alice, "203.0.113.9", 80, timeout=5
        ).connect(Collector())
        with self.assertRaises(error.TimeoutError):
            resultOf(self.clock, connecting)
        self.assertAlmostEqual(self.clock.seconds(), 5.0)

    def test_noSuchFamily(self) -> None:
        """A host without IPv6 cannot begin to connect by IPv6."""
        lonely = self.internet.host("lonely")
        connecting = TCP6ClientEndpoint(lonely, "2001:db8::2", 80).connect(Collector())
        with self.assertRaises(error.NoRouteError):
            resultOf(self.clock, connecting)

    def test_portInUse(self) -> None:
        """A port can be listened at once; port 0 picks a free one."""
        self.bob.listenTCP(80, Collector())
        self.assertRaises(error.CannotListenError, self.bob.listenTCP, 80, Collector())
        one = self.bob.listenTCP(0, Collector())
        other = self.bob.listenTCP(0, Collector())
        self.assertNotEqual(one.getHost().port, other.getHost().port)

    def test_stopListening(self) -> None:
        """A closed port refuses, and can be listened at again."""
        port = self.bob.listenTCP(80, Collector())
        resultOf(self.clock, port.stopListening())
        self.test_refusedAt(80)
        self.bob.listenTCP(80, Collector())

    def test_refusedAt(self, port: int = 8080) -> None:
        """A client is refused at a port that is not open."""
        connecting = TCP4ClientEndpoint(self.alice, "192.0.2.2", port).connect(
            Collector()
        )
        with self.assertRaises(error.ConnectionRefusedError):
            resultOf(self.clock, connecting)

    def test_loseConnectionFlushes(self) -> None:
        """What was written before C{loseConnection} arrives, then the end."""
        client, server = self.connected()
        client.transport.write(b"x" * 300_000)
        client.transport.loseConnection()
        pump(self.clock, lambda: bool(server.reasons))
        self.assertEqual(len(server.data), 300_000)
        self.assertTrue(server.reasons[0].check(error.ConnectionDone))
        self.assertTrue(client.reasons[0].check(error.ConnectionDone))
        self.assertEqual((self.alice.streams, self.bob.streams), ([], []))

    def test_muchInBothDirections(self) -> None:
        """More than a window passes either way."""
        client, server = self.connected()
        client.transport.write(b"c" * 1_000_000)
        server.transport.write(b"s" * 1_000_000)
        pump(self.clock, lambda: len(client.data) == len(server.data) == 1_000_000)

    def test_bindAddress(self) -> None:
        """A client may choose the address and port that it comes from."""
        server = Collector()
        self.bob.listenTCP(80, server)
        self.internet.setAddresses(self.alice, ["192.0.2.1", "192.0.2.111"])
        endpoint = TCP4ClientEndpoint(
            self.alice, "192.0.2.2", 80, bindAddress=("192.0.2.111", 777)
        )
        client = resultOf(self.clock, endpoint.connect(Collector()))
        self.assertEqual(client.transport.getHost().host, "192.0.2.111")
        self.assertEqual(client.transport.getHost().port, 777)
        again = endpoint.connect(Collector())
        with self.assertRaises(error.ConnectBindError):
            resultOf(self.clock, again)

    def test_connectTCPByName(self) -> None:
        """The lower-level call resolves names as well."""
        self.internet.register("www.example.com", "192.0.2.2")
        self.bob.listenTCP(80, Collector())
        client = Clients()
        self.alice.connectTCP("www.example.com", 80, client)
        pump(self.clock, lambda: bool(client.made))
        self.alice.connectTCP("nowhere.example.com", 80, client)
        pump(self.clock, lambda: bool(client.failed))
        self.assertTrue(client.failed[0].check(error.DNSLookupError))

    def test_connector(self) -> None:
        """A connector can be disconnected, and connect again."""
        self.bob.listenTCP(80, Collector())
        client = Clients()
        connector = self.alice.connectTCP("192.0.2.2", 80, client)
        self.assertRaises(RuntimeError, connector.connect)
        pump(self.clock, lambda: bool(client.made))
        self.assertRaises(error.NotConnectingError, connector.stopConnecting)
        connector.disconnect()
        pump(self.clock, lambda: bool(client.lost))
        self.assertEqual(connector.state, "disconnected")
        connector.connect()
        connector.disconnect()
        self.assertTrue(client.failed[0].check(error.UserError))
        self.assertEqual(connector.getDestination().port, 80)

    def test_unwantedConnections(self) -> None:
        """Either side's factory may want no protocol."""

        class Picky(Clients):
            def buildProtocol(self, addr):
                return None

        self.bob.listenTCP(80, Picky())
        client = Clients()
        self.alice.connectTCP("192.0.2.2", 80, client)
        pump(self.clock, lambda: bool(client.lost))
        self.assertTrue(client.lost[0].check(error.ConnectionLost))
        server = Collector()
        self.bob.listenTCP(81, server)
        self.alice.connectTCP("192.0.2.2", 81, Picky())
        elapse(self.clock, 1)
        self.assertEqual((self.alice.streams, self.bob.streams), ([], []))

    def test_goneBeforeItAgreed(self) -> None:
        """A client that gives up during the handshake leaves nothing."""
        server = Collector()
        self.bob.listenTCP(80, server)
        connector = self.alice.connectTCP("192.0.2.2", 80, Clients())
        elapse(self.clock, 0.015)
        connector.stopConnecting()
        elapse(self.clock, 1)
        self.assertEqual(server.made, [])
        self.assertEqual((self.alice.streams, self.bob.streams), ([], []))

    def test_closedWhileAgreeing(self) -> None:
        """A port that closes during the handshake resets the client."""
        port = self.bob.listenTCP(80, Collector())
        client = Clients()
        self.alice.connectTCP("192.0.2.2", 80, client)
        elapse(self.clock, 0.015)
        port.stopListening()
        self.assertIsNone(port.stopListening())
        pump(self.clock, lambda: bool(client.lost))

    def test_cutInFlight(self) -> None:
        """What is on its way when the path is cut is sent again."""
        client, server = self.connected()
        client.transport.write(b"one")
        elapse(self.clock, 0.005)
        client.transport.write(b"two")
        elapse(self.clock, 0.001)
        self.internet.cut(self.alice, self.bob)
        elapse(self.clock, 3)
        self.assertEqual(server.data, b"")
        self.internet.heal(self.alice, self.bob)
        pump(self.clock, lambda: server.data == b"onetwo")

    def test_cutBeforeConnecting(self) -> None:
        """Connecting goes on when the path is healed in time."""
        self.bob.listenTCP(80, Collector())
        self.internet.cut(self.alice, self.bob)
        client = Clients()
        self.alice.connectTCP("192.0.2.2", 80, client)
        elapse(self.clock, 5)
        self.internet.heal(self.alice, self.bob)
        pump(self.clock, lambda: bool(client.made))

    def test_givenUpWhileConnecting(self) -> None:
        """Connecting fails when the path stays cut, whatever its own limit."""
        self.internet.giveUp = 5
        client = Clients()
        self.alice.connectTCP("203.0.113.1", 80, client, timeout=1000)
        pump(self.clock, lambda: bool(client.failed))
        self.assertTrue(client.failed[0].check(error.TimeoutError))

    def test_options(self) -> None:
        """The options of a stream are remembered; only bytes are written."""
        client, _ = self.connected()
        transport = client.transport
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        self.assertTrue(transport.getTcpNoDelay() and transport.getTcpKeepAlive())
        self.assertRaises(TypeError, transport.write, "text")

    def test_producers(self) -> None:
        """One producer at a time; a closed stream stops it at once."""
        client, server = self.connected()
        stopped: list[int] = []

        class Producer:
            def stopProducing(self) -> None:
                stopped.append(1)

        client.transport.registerProducer(Producer(), True)
        self.assertRaises(
            RuntimeError, client.transport.registerProducer, Producer(), True
        )
        client.transport.abortConnection()
        client.transport.abortConnection()
        pump(self.clock, lambda: bool(server.reasons))
        self.assertEqual(len(stopped), 1)
        client.transport.registerProducer(Producer(), True)
        self.assertEqual(len(stopped), 2)
        client.transport.write(b"late")
        client.transport.loseConnection()

    def test_loseConnectionAfterHalfClose(self) -> None:
        """A half-closed stream can be closed; stopProducing does that too."""
        client, server = self.connected(HalfCloser)
        client.transport.loseWriteConnection()
        pump(self.clock, lambda: server.readLost)
        client.transport.stopProducing()
        self.assertEqual(len(client.reasons), 1)

    def test_failingEnd(self) -> None:
        """An error in C{connectionLost} is logged."""

        class Broken(Recorder):
            def connectionLost(self, reason: Failure) -> None:
                raise ZeroDivisionError

        client, _ = self.connected(Broken)
        client.transport.abortConnection()
        elapse(self.clock, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_foreignAddress(self) -> None:
        """Nobody listens at an address of somebody else."""
        self.assertRaises(
            error.CannotListenError,
            self.bob.listenTCP,
            80,
            Collector(),
            interface="192.0.2.1",
        )

    def test_abortConnection(self) -> None:
        """An aborted stream ends at once here and as lost over there."""
        client, server = self.connected()
        client.transport.write(b"x" * 300_000)
        client.transport.abortConnection()
        pump(self.clock, lambda: bool(server.reasons))
        self.assertTrue(client.reasons[0].check(error.ConnectionAborted))
        self.assertTrue(server.reasons[0].check(error.ConnectionLost))
        self.assertLess(len(server.data), 300_000)

    def test_halfClose(self) -> None:
        """One direction can be closed while the other goes on."""
        client, server = self.connected(HalfCloser)
        client.transport.write(b"request")
        client.transport.loseWriteConnection()
        pump(self.clock, lambda: server.readLost)
        self.assertTrue(client.writeLost)
        client.transport.write(b"ignored")
        server.transport.write(b"answer")
        server.transport.loseConnection()
        pump(self.clock, lambda: client.readLost)
        self.assertEqual((server.data, client.data), (b"request", b"answer"))
        client.transport.loseConnection()
        pump(self.clock, lambda: bool(client.reasons))

    def test_pauseIsBackPressure(self) -> None:
        """A reader that pauses makes a streaming producer pause, and resume."""
        client, server = self.connected()
        events: list[str] = []

        @implementer(IPushProducer)
        class Producer:
            def pauseProducing(self) -> None:
                events.append("pause")

            def resumeProducing(self) -> None:
                events.append("resume")

            def stopProducing(self) -> None:
                events.append("stop")

        server.transport.pauseProducing()
        client.transport.registerProducer(Producer(), True)
        for _ in range(40):
            client.transport.write(b"x" * 20_000)
            elapse(self.clock, 0.1)
        self.assertEqual(events[-1], "pause")
        self.assertEqual(server.data, b"")
        server.transport.resumeProducing()
        pump(self.clock, lambda: len(server.data) == 800_000)
        self.assertEqual(events[-1], "resume")
        client.transport.unregisterProducer()
        client.transport.loseConnection()
        pump(self.clock, lambda: bool(server.reasons))

    def test_pullProducer(self) -> None:
        """A pull producer is asked again and again until it is done."""
        client, server = self.connected()

        class Producer:
            left = 5

            def resumeProducing(self) -> None:
                if not self.left:
                    client.transport.unregisterProducer()
                    client.transport.loseConnection()
                    return
                self.left -= 1
                client.transport.write(b"y" * 100_000)

            def stopProducing(self) -> None:
                self.left = 0

        client.transport.registerProducer(Producer(), False)
        pump(self.clock, lambda: bool(server.reasons))
        self.assertEqual(len(server.data), 500_000)

    def test_cutIsSilentThenHealed(self) -> None:
        """What is written during a cut arrives after it."""
        client, server = self.connected()
        self.internet.cut(self.alice, self.bob)
        client.transport.write(b"late")
        elapse(self.clock, 20)
        self.assertEqual(server.data, b"")
        self.internet.heal(self.alice, self.bob)
        pump(self.clock, lambda: server.data == b"late", limit=10)

    def test_cutForTooLong(self) -> None:
        """A stream with unsent bytes gives up; an idle one notices nothing."""
        client, server = self.connected()
        self.internet.cut(self.alice, self.bob)
        client.transport.write(b"never")
        pump(self.clock, lambda: bool(client.reasons), limit=100)
        self.assertTrue(client.reasons[0].check(error.TimeoutError))
        elapse(self.clock, 1000)
        self.assertEqual(server.reasons, [])

    def test_crash(self) -> None:
        """After a crash the peer learns by writing that nobody is there."""
        client, _server = self.connected()
        self.bob.crash()
        elapse(self.clock, 1000)
        self.assertEqual(client.reasons, [])
        client.transport.write(b"hello?")
        elapse(self.clock, 1)
        # The crashed end answers what it does not know with a reset.
        self.assertEqual(len(client.reasons), 1)

    def test_changedAddress(self) -> None:
        """A stream does not survive the loss of its address."""
        client, server = self.connected()
        self.internet.setAddresses(self.alice, ["192.0.2.77"])
        client.transport.write(b"x")
        pump(self.clock, lambda: bool(client.reasons), limit=100)
        self.assertEqual(server.data, b"")

    def test_lossOnlyDelays(self) -> None:
        """A lossy path delivers streams whole, and later."""
        self.internet.setLink(Link(loss=0.5), self.alice, self.bob)
        client, server = self.connected()
        for number in range(50):
            client.transport.write(b"%02d" % number)
            elapse(self.clock, 0.001)
        pump(self.clock, lambda: len(server.data) == 100)
        self.assertEqual(server.data, b"".join(b"%02d" % n for n in range(50)))

    def test_chunks(self) -> None:
        """A link may cut streams into small pieces."""
        self.internet.setLink(Link(chunk=3), self.alice, self.bob)
        client, server = self.connected()
        client.transport.write(b"0123456789")
        pump(self.clock, lambda: len(server.data) == 10)
        self.assertEqual(server.received, [b"012", b"345", b"678", b"9"])

    def test_turns(self) -> None:
        """
        Of much that arrives at once a reader gets as much as a real reactor
        reads, then it is the turn of others.
        """
        client, server = self.connected()
        other, served = self.connected(port=81)
        for sender in (client, other):
            sender.transport.write(bytes(200_000))
        order: list[Protocol] = []
        for end in (server, served):
            end.dataReceived = lambda data, end=end: order.append(end)
        elapse(self.clock, 1)
        self.assertEqual(order, [server, served] * 4)

    def test_noTurnsForLittle(self) -> None:
        """The bound is for each turn, not for each piece, and for the end too."""
        self.internet.setLink(Link(chunk=1000), self.alice, self.bob)
        client, server = self.connected()
        client.transport.write(bytes(150_000))
        client.transport.loseConnection()
        pump(self.clock, lambda: bool(server.reasons))
        self.assertEqual(len(server.data), 150_000)
        self.assertEqual(len(set(server.times)), 1)

    def test_failingProtocol(self) -> None:
        """An error in C{dataReceived} is logged and closes the stream."""

        class Broken(Recorder):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        client, server = self.connected(Broken)
        client.transport.write(b"x")
        pump(self.clock, lambda: bool(client.reasons))
        self.assertTrue(server.reasons[0].check(ZeroDivisionError))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancelledConnect(self) -> None:
        """A cancelled attempt leaves nothing behind on the client."""
        self.bob.listenTCP(80, Collector())
        connecting = TCP4ClientEndpoint(self.alice, "192.0.2.2", 80).connect(
            Collector()
        )
        connecting.cancel()
        self.failureResultOf(connecting, error.ConnectingCancelledError)
        pump(self.clock)
        self.assertEqual(list(self.alice.getDelayedCalls()), [])
        self.assertEqual(self.bob.streams, [])

    def test_firewall(self) -> None:
        """A firewall that forbids TCP to a port makes connecting time out."""
        self.bob.listenTCP(80, Collector())
        self.alice.firewall = lambda kind, address, port: port == 443
        connecting = TCP4ClientEndpoint(self.alice, "192.0.2.2", 80).connect(
            Collector()
        )
        with self.assertRaises(error.TimeoutError):
            resultOf(self.clock, connecting)


class NameTests(InternetTestCase):
    """Names are those registered with the internet."""

    def test_hostnameEndpoint(self) -> None:
        """An endpoint with a name reaches the registered address."""
        self.internet.register("www.example.com", "2001:db8::2", "192.0.2.2")
        server = Collector()
        self.successResultOf(TCP6ServerEndpoint(self.bob, 80).listen(server))
        client = resultOf(
            self.clock,
            HostnameEndpoint(self.alice, "www.example.com", 80).connect(Collector()),
        )
        self.assertEqual(client.transport.getPeer().host, "2001:db8::2")

    def test_fallsBackToTheOtherFamily(self) -> None:
        """Where IPv6 leads nowhere the endpoint goes on to IPv4."""
        self.internet.register("www.example.com", "2001:db8::dead", "192.0.2.2")
        self.bob.listenTCP(80, Collector())
        client = resultOf(
            self.clock,
            HostnameEndpoint(self.alice, "www.example.com", 80).connect(Collector()),
        )
        self.assertEqual(client.transport.getPeer().host, "192.0.2.2")

    def test_unknownName(self) -> None:
        """A name that is not registered cannot be looked up."""
        self.internet.register("gone.example.com", "192.0.2.2")
        self.internet.unregister("gone.example.com")
        connecting = HostnameEndpoint(self.alice, "gone.example.com", 80).connect(
            Collector()
        )
        with self.assertRaises(error.DNSLookupError):
            resultOf(self.clock, connecting)

    def test_cancelledResolution(self) -> None:
        """A resolution that nobody waits for can be cancelled."""
        heard: list[str] = []

        class Receiver:
            def resolutionBegan(self, resolution):
                heard.append("began")

            def addressResolved(self, address):
                heard.append("resolved")

            def resolutionComplete(self):
                heard.append("complete")

        resolution = self.alice.nameResolver.resolveHostName(Receiver(), "a.example")
        resolution.cancel()
        resolution.cancel()
        elapse(self.clock, 1)
        self.assertEqual(heard, ["began"])
        self.internet.register("a.example", "192.0.2.1", "2001:db8::1")
        self.alice.nameResolver.resolveHostName(
            Receiver(), "a.example", addressTypes=[IPv6Address]
        )
        elapse(self.clock, 1)
        self.assertEqual(heard, ["began", "began", "resolved", "complete"])

    def test_installedResolver(self) -> None:
        """A host can be given another resolver."""
        other = MemoryInternet(self.clock)
        other.register("www.example.com", "192.0.2.2")
        previous = self.alice.installNameResolver(other.resolver())
        self.assertIsNot(previous, self.alice.nameResolver)
        self.bob.listenTCP(80, Collector())
        resultOf(
            self.clock,
            HostnameEndpoint(self.alice, "www.example.com", 80).connect(Collector()),
        )

    def test_localhost(self) -> None:
        """C{localhost} is the host itself, reached without delay."""
        server = Collector()
        self.alice.listenTCP(80, server, interface="127.0.0.1")
        start = self.clock.seconds()
        resultOf(
            self.clock,
            TCP4ClientEndpoint(self.alice, "localhost", 80).connect(Collector()),
        )
        self.assertEqual(self.clock.seconds(), start)
        connecting = TCP4ClientEndpoint(self.bob, "192.0.2.1", 80).connect(Collector())
        with self.assertRaises(error.ConnectionRefusedError):
            resultOf(self.clock, connecting)


class WebTests(InternetTestCase):
    """Twisted's own programs run unmodified."""

    def test_agent(self) -> None:
        """C{Agent} fetches a page from a C{Site}."""

        class Page(Resource):
            isLeaf = True

            def render_GET(self, request):
                return b"z" * 200_000

        self.internet.register("www.example.com", "192.0.2.2")
        site = Site(Page(), reactor=self.bob)
        self.bob.listenTCP(80, site)
        agent = Agent(self.alice)

        async def fetch() -> bytes:
            response = await agent.request(b"GET", b"http://www.example.com/")
            return await readBody(response)

        body = resultOf(self.clock, Deferred.fromCoroutine(fetch()))
        self.assertEqual(len(body), 200_000)


class DatagramTests(InternetTestCase):
    """UDP behaves as UDP does."""

    def exchange(
        self, link: Link, count: int, size: int = 10
    ) -> list[tuple[bytes, tuple[str, int]]]:
        """Send C{count} datagrams one millisecond apart; what arrived."""
        self.internet.setLink(link, self.alice, self.bob)
        received = Datagrams()
        self.bob.listenUDP(4000, received)
        port = self.alice.listenUDP(5000, Datagrams())
        for number in range(count):
            port.write(b"%04d" % number + bytes(size - 4), ("192.0.2.2", 4000))
            elapse(self.clock, 0.001)
        elapse(self.clock, 10)
        return received.received

    def test_delivered(self) -> None:
        """A datagram arrives with the address it was sent from."""
        [(data, source)] = self.exchange(Link(), 1)
        self.assertEqual((data[:4], source), (b"0000", ("192.0.2.1", 5000)))
        self.assertEqual(self.internet.delivered, 1)

    def test_loss(self) -> None:
        """About the stated share is lost, and counted."""
        received = self.exchange(Link(loss=0.25), 400)
        self.assertTrue(250 < len(received) < 350, len(received))
        self.assertEqual(self.internet.dropped["lost"], 400 - len(received))

    def test_duplicates(self) -> None:
        """About the stated share arrives twice."""
        self.assertTrue(430 < len(self.exchange(Link(duplicate=0.2), 400)) < 530)

    def test_reordering(self) -> None:
        """Some arrive after others that were sent later; none is lost."""
        received = [data for data, _ in self.exchange(Link(reorder=0.1), 200)]
        self.assertEqual(len(received), 200)
        self.assertNotEqual(received, sorted(received))

    def test_sameSeedSameFate(self) -> None:
        """Two runs with one seed are alike."""
        link = Link(loss=0.3, duplicate=0.3, reorder=0.3, jitter=0.01)
        first = self.exchange(link, 50)
        self.setUp()
        self.assertEqual(self.exchange(link, 50), first)

    def test_mtu(self) -> None:
        """What does not fit the path vanishes and is counted."""
        link = Link(mtu=1280)
        self.assertEqual(len(self.exchange(link, 1, 1280 - 28)), 1)
        self.setUp()
        self.assertEqual(self.exchange(link, 1, 1280 - 27), [])
        self.assertEqual(self.internet.dropped, {"too big": 1})

    def test_hugeDatagram(self) -> None:
        """A datagram that IP cannot carry is refused at once."""
        port = self.alice.listenUDP(0, Datagrams())
        self.assertRaises(
            error.MessageLengthError, port.write, bytes(65508), ("192.0.2.2", 1)
        )

    def test_wrongFamilyAndNames(self) -> None:
        """A port takes only addresses of its family."""
        port = self.alice.listenUDP(0, Datagrams())
        six = self.alice.listenUDP(0, Datagrams(), interface="::")
        for wrong, address in (
            (port, "2001:db8::2"),
            (six, "192.0.2.2"),
            (port, "www.example.com"),
        ):
            self.assertRaises(
                error.InvalidAddressError, wrong.write, b"x", (address, 1)
            )

    def test_ipv6(self) -> None:
        """IPv6 datagrams reach the IPv6 port of the same number."""
        four, six = Datagrams(), Datagrams()
        self.bob.listenUDP(4000, four)
        self.bob.listenUDP(4000, six, interface="::")
        port = self.alice.listenUDP(5000, Datagrams(), interface="::")
        port.write(b"x", ("2001:db8::2", 4000))
        elapse(self.clock, 1)
        self.assertEqual(six.received, [(b"x", ("2001:db8::1", 5000))])
        self.assertEqual(four.received, [])

    def test_unreachable(self) -> None:
        """Nobody's address swallows datagrams; no family is an error."""
        port = self.alice.listenUDP(0, Datagrams())
        port.write(b"x", ("203.0.113.9", 1))
        self.assertEqual(self.internet.dropped, {"unreachable": 1})
        lonely = self.internet.host("lonely")
        six = lonely.listenUDP(0, Datagrams(), interface="::")
        self.assertRaises(OSError, six.write, b"x", ("2001:db8::2", 1))

    def test_connectionRefused(self) -> None:
        """A connected port hears that nobody listens, another does not."""

        class Connected(ConnectedDatagramProtocol):
            refused = 0

            def startProtocol(self) -> None:
                self.transport.connect("192.0.2.2", 4000)

            def connectionRefused(self) -> None:
                self.refused += 1

        protocol = Connected()
        port = self.alice.listenUDP(0, protocol)
        port.write(b"x")
        self.alice.listenUDP(0, Datagrams()).write(b"x", ("192.0.2.2", 4000))
        elapse(self.clock, 1)
        self.assertEqual(protocol.refused, 1)
        self.assertEqual(self.internet.dropped, {"no port": 2})

    def test_stopListening(self) -> None:
        """A closed port gets nothing and can be bound again."""
        received = Datagrams()
        port = self.bob.listenUDP(4000, received)
        sender = self.alice.listenUDP(0, Datagrams())
        sender.write(b"x", ("192.0.2.2", 4000))
        resultOf(self.clock, port.stopListening())
        elapse(self.clock, 1)
        self.assertEqual(received.received, [])
        self.bob.listenUDP(4000, Datagrams())
        self.assertIsNone(port.stopListening())

    def test_connectedPort(self) -> None:
        """A connected port sends to its peer, and hears nobody else."""
        received = Datagrams()
        port = self.alice.listenUDP(5000, received)
        port.connect("192.0.2.2", 4000)
        self.assertRaises(RuntimeError, port.connect, "192.0.2.2", 4000)
        answering = Datagrams()
        other = self.bob.listenUDP(4000, answering)
        port.writeSequence([b"a", b"b"])
        elapse(self.clock, 1)
        self.assertEqual(answering.received, [(b"ab", ("192.0.2.1", 5000))])
        other.write(b"yes", ("192.0.2.1", 5000))
        self.bob.listenUDP(4001, Datagrams()).write(b"no", ("192.0.2.1", 5000))
        elapse(self.clock, 1)
        self.assertEqual([data for data, _ in received.received], [b"yes"])
        free = self.alice.listenUDP(0, Datagrams())
        self.assertRaises(error.InvalidAddressError, free.connect, "a.example", 1)

    def test_failingProtocol(self) -> None:
        """An error in C{datagramReceived} is logged and closes nothing."""

        class Broken(Datagrams):
            def datagramReceived(self, datagram, addr):
                raise ZeroDivisionError

        self.bob.listenUDP(4000, Broken())
        port = self.alice.listenUDP(0, Datagrams())
        port.write(b"x", ("192.0.2.2", 4000))
        port.write(b"x", ("192.0.2.2", 4000))
        elapse(self.clock, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_cutInFlight(self) -> None:
        """What is on its way when the path is cut is lost."""
        self.bob.listenUDP(4000, Datagrams())
        port = self.alice.listenUDP(0, Datagrams())
        port.write(b"x", ("192.0.2.2", 4000))
        elapse(self.clock, 0.005)
        self.internet.cut(self.alice, self.bob)
        elapse(self.clock, 1)
        self.assertEqual(self.internet.dropped, {"unreachable": 1})

    def test_options(self) -> None:
        """Broadcasts can be allowed; closed ports send nothing."""
        port = self.alice.listenUDP(0, Datagrams())
        port.setBroadcastAllowed(True)
        self.assertTrue(port.getBroadcastAllowed())
        port.stopListening()
        port.write(b"x", ("192.0.2.2", 4000))
        elapse(self.clock, 1)
        self.assertEqual(self.internet.dropped, {})
        self.assertEqual(
            self.alice.listenUDP(0, Datagrams(), interface="::").getHost().host, "::"
        )

    def test_hostDown(self) -> None:
        """Nothing reaches a host that is down, nor leaves it."""
        self.bob.down = True
        self.assertEqual(self.exchange(Link(), 3), [])

    def test_firewall(self) -> None:
        """A host whose firewall stops UDP sends none."""
        self.alice.firewall = lambda kind, address, port: kind == "tcp"
        self.assertEqual(self.exchange(Link(), 3), [])
        self.assertEqual(self.internet.dropped, {"firewall": 3})


class HostTests(InternetTestCase):
    """Hosts, names and addresses are kept apart."""

    def test_allocated(self) -> None:
        """A host without addresses gets one of its own."""
        one, other = self.internet.host("one"), self.internet.host("other")
        self.assertNotEqual(one.addresses, other.addresses)
        self.assertEqual(len(self.internet.hosts()), 4)

    def test_taken(self) -> None:
        """Neither names nor addresses are given out twice."""
        self.assertRaises(ValueError, self.internet.host, "alice")
        self.assertRaises(ValueError, self.internet.host, "eve", ["192.0.2.1"])

    def test_ownDelayedCalls(self) -> None:
        """A host knows the calls that were scheduled through it."""
        call = self.alice.callLater(5, lambda: None)
        self.bob.callLater(5, lambda: None)
        self.assertEqual(list(self.alice.getDelayedCalls()), [call])
        elapse(self.clock, 6)
        self.assertEqual(list(self.alice.getDelayedCalls()), [])

    def test_callFromThread(self) -> None:
        """What a thread asks for happens in the next turn."""
        done: list[int] = []
        self.alice.callFromThread(done.append, 1)
        self.assertEqual(done, [])
        elapse(self.clock, 0)
        self.assertEqual(done, [1])

    def test_repr(self) -> None:
        """A host shows its name and addresses."""
        self.assertIn("alice", repr(self.alice))
        self.assertIsInstance(self.alice, HostReactor)

    def test_randbytes(self) -> None:
        """Randomness depends on the seed alone."""
        again = MemoryInternet(Clock(), seed=7)
        self.assertEqual(self.internet.randbytes(16), again.randbytes(16))


class ClockTests(SynchronousTestCase):
    """The clock is driven from event to event."""

    def test_elapseRunsEachCallAtItsTime(self) -> None:
        """A repeated call sees each of its own times."""
        clock = Clock()
        times: list[float] = []
        loop = LoopingCall(lambda: times.append(clock.seconds()))
        loop.clock = clock
        loop.start(0.25)
        elapse(clock, 1.0)
        self.assertEqual(times, [0.0, 0.25, 0.5, 0.75, 1.0])
        self.assertEqual(clock.seconds(), 1.0)
        loop.stop()
        self.assertIsNone(nextEvent(clock))

    def test_pumpStopsAtTheCondition(self) -> None:
        """Pumping goes no further than it must."""
        clock = Clock()
        done: list[int] = []
        clock.callLater(3, done.append, 1)
        clock.callLater(4, done.append, 2)
        pump(clock, lambda: bool(done))
        self.assertEqual((clock.seconds(), done), (3.0, [1]))
        pump(clock)
        self.assertEqual(done, [1, 2])

    def test_pumpHasLimits(self) -> None:
        """What never happens is an error, as is standing still."""
        clock = Clock()
        self.assertRaises(PumpError, pump, clock, lambda: False)
        clock.callLater(100, lambda: None)
        self.assertRaises(PumpError, pump, clock, Deferred(), limit=10)

        def again() -> None:
            clock.callLater(1e-4, again)

        again()
        self.assertRaises(PumpError, pump, clock, lambda: False, calls=50)
        self.assertRaises(PumpError, elapse, clock, 1, calls=50)

    def test_resultOf(self) -> None:
        """The result of a Deferred is returned, its failure raised."""
        clock = Clock()
        good: Deferred[int] = Deferred()
        bad: Deferred[int] = Deferred()
        clock.callLater(1, good.callback, 5)
        clock.callLater(1, bad.errback, KeyError("k"))
        self.assertEqual(resultOf(clock, good), 5)
        self.assertRaises(KeyError, resultOf, clock, bad)


class LinkTests(SynchronousTestCase):
    """Links refuse nonsense."""

    def test_validated(self) -> None:
        """Values outside their range are errors; loss comes to an end."""
        self.assertEqual(
            Link(jitter=1.0, loss=0.5).streamDelay(lambda: 0.0),
            0.01 + 0.2 * (1 + 2 + 4 + 8 + 16 + 32),
        )
        for wrong in ({"loss": 1.5}, {"delay": -1}, {"mtu": 10}, {"reorder": -0.1}):
            self.assertRaises(ValueError, Link, **wrong)

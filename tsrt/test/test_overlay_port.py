"""Tests for listening on TCP ports of the overlay."""

from __future__ import annotations

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from tsrt.endpoints import TailnetClientEndpoint
from tsrt.overlay.port import TailnetPort
from tsrt.test.overlaynet import (
    A4,
    B4,
    B6,
    OverlayNet,
    Recorder,
    RecordingFactory,
    factoryFor,
    join,
)


class PortTests(SynchronousTestCase):
    """C{listenTCP}."""

    def setUp(self) -> None:
        self.net = OverlayNet()

    def listen(self, port: int = 0, **more) -> TailnetPort:
        factory = factoryFor(*(Recorder() for _ in range(9)))
        return self.net.b.tailnet.listenTCP(port, factory, **more)

    def reaches(self, host: str, port: int) -> bool:
        factory = RecordingFactory()
        self.net.a.tailnet.connectTCP(host, port, factory)
        self.net.elapse(1)
        return factory.failure is None

    def test_interface(self) -> None:
        """The port provides what it should."""
        self.assertTrue(verifyClass(IListeningPort, TailnetPort))
        self.assertTrue(verifyObject(IListeningPort, self.listen()))

    def test_inUse(self) -> None:
        """A port that is taken cannot be listened on."""
        self.listen(80)
        with self.assertRaises(CannotListenError) as caught:
            self.listen(80)
        self.assertEqual(80, caught.exception.port)
        self.assertIn("80", str(caught.exception))

    def test_inUseByInterface(self) -> None:
        """IPv4 and IPv6 are two ports; a wildcard takes both."""
        self.listen(80, interface="v4")
        self.listen(80, interface="v6")
        for interface in ("v4", "v6", ""):
            with self.assertRaises(CannotListenError):
                self.listen(80, interface=interface)

    def test_anyPort(self) -> None:
        """Port 0 picks a free one, another one each time."""
        first, second = self.listen().getHost().port, self.listen().getHost().port
        self.assertNotEqual(0, first)
        self.assertNotEqual(first, second)
        self.assertTrue(self.reaches(B4, first))

    def test_interfaces(self) -> None:
        """Who reaches a port depends on the interface."""
        for interface, on4, on6, host in (
            ("", True, True, B4),
            ("::", True, True, B4),
            ("v4", True, False, B4),
            ("0.0.0.0", True, False, B4),
            ("v6", False, True, B6),
            (B4, True, False, B4),
            (B6, False, True, B6),
        ):
            port = self.listen(interface=interface)
            number = port.getHost().port
            self.assertEqual(host, port.getHost().host, interface)
            self.assertEqual(on4, self.reaches(B4, number), interface)
            self.assertEqual(on6, self.reaches(B6, number), interface)

    def test_wrongArguments(self) -> None:
        """What cannot be listened on is a CannotListenError."""
        for port, interface, backlog in (
            (80, "eth0", 50),
            (80, "example.com", 50),
            (70_000, "", 50),
            (-1, "", 50),
            (80, "", 0),
        ):
            with self.assertRaises(CannotListenError):
                self.listen(port, interface=interface, backlog=backlog)

    def test_stopListening(self) -> None:
        """The port is refused at once; connections go on; it can be taken again."""
        port = self.listen(80)
        client = Recorder()
        endpoint = TailnetClientEndpoint(lambda: self.net.a.tailnet, B4, 80)
        self.net.wait(endpoint.connect(factoryFor(client)))
        self.net.elapse(1)
        stopping = port.stopListening()
        self.assertFalse(self.reaches(B4, 80))
        self.successResultOf(stopping)
        self.assertIsNone(client.lost)
        port.startListening()
        self.assertTrue(self.reaches(B4, 80))

    def test_stopTwice(self) -> None:
        """Stopping again is harmless; each Deferred fires after doStop."""
        factory = Factory()
        factory.noisy = False
        stops = []
        factory.doStop = lambda: stops.append(True)
        port = self.net.b.tailnet.listenTCP(80, factory)
        first, second = port.stopListening(), port.loseConnection()
        self.assertNoResult(first)
        self.net.elapse(0)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(port.stopListening())
        self.assertEqual([True], stops)
        self.assertIn("not listening", repr(port))
        with self.assertRaises(CannotListenError):
            port.getHost()

    def test_startTwice(self) -> None:
        """A port that listens cannot start once more."""
        port = self.listen(80)
        with self.assertRaises(CannotListenError):
            port.startListening()
        self.assertIn("port 80", repr(port))

    def test_noProtocol(self) -> None:
        """A factory that gives no protocol closes the connection."""
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: None
        port = self.net.b.tailnet.listenTCP(0, factory)
        client = RecordingFactory()
        self.net.a.tailnet.connectTCP(B4, port.getHost().port, client)
        self.net.elapse(1)
        self.assertEqual(["made", "lost"], client.made.events)
        self.net.elapse(400)
        self.assertEqual([], self.net.b.stack.flows())

    def test_manyAtOnce(self) -> None:
        """All connections that came in one batch are accepted."""
        made = []
        factory = Factory()
        factory.noisy = False

        def build(address):
            made.append(Recorder())
            return made[-1]

        factory.buildProtocol = build
        port = self.net.b.tailnet.listenTCP(0, factory, backlog=100)
        for _ in range(60):
            self.net.a.tailnet.connectTCP(B4, port.getHost().port, RecordingFactory())
        self.net.elapse(5)
        self.assertEqual(60, len(made))

    def test_connectionToItself(self) -> None:
        """A node can connect to its own port."""
        server = Recorder()
        port = self.net.a.tailnet.listenTCP(0, factoryFor(server))
        client = RecordingFactory()
        self.net.a.tailnet.connectTCP(A4, port.getHost().port, client)
        self.net.elapse(1)
        client.made.transport.write(b"me")
        self.net.elapse(1)
        self.assertEqual(b"me", server.data)

    def test_joinHelper(self) -> None:
        """Two protocols joined have each other as peer, with IPv6 too."""
        client, server = Recorder(), Recorder()
        join(self.net, client, server, B6)
        self.assertEqual(client.transport.getHost(), server.transport.getPeer())

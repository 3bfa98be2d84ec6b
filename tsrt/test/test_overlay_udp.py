"""Tests for UDP ports of the overlay."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import (
    CannotListenError,
    InvalidAddressError,
    MessageLengthError,
)
from twisted.internet.interfaces import (
    IListeningPort,
    ILoggingContext,
    IReactorUDP,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.python import context
from twisted.python.log import ILogContext
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from tsrt.overlay.udp import TailnetUDPPort
from tsrt.test.overlaynet import A4, A6, B4, B6, OverlayNet


class Receiver(DatagramProtocol):
    """Keeps the datagrams that it gets."""

    noisy = False

    def __init__(self) -> None:
        self.got: list[tuple[bytes, tuple[str, int]]] = []
        self.events: list[str] = []
        self.system = ""

    def startProtocol(self) -> None:
        self.events.append("start")

    def stopProtocol(self) -> None:
        self.events.append("stop")

    def datagramReceived(self, data: bytes, addr: tuple[str, int]) -> None:
        self.system = context.get(ILogContext)["system"]
        self.got.append((data, addr))

    def connectionRefused(self) -> None:
        self.events.append("refused")


class UDPTests(SynchronousTestCase):
    """Datagrams between two nodes."""

    def setUp(self) -> None:
        self.net = OverlayNet()
        self.receiver = Receiver()

    def bind(self, interface: str = "", **more) -> TailnetUDPPort:
        """Bind a port on each node; the receiver's is returned."""
        self.sender = Receiver()
        self.out = self.net.a.tailnet.listenUDP(0, self.sender)
        return self.net.b.tailnet.listenUDP(53, self.receiver, interface, **more)

    def send(self, data: bytes, host: str = B4, port: int = 53) -> None:
        self.out.write(data, (host, port))
        self.net.elapse(1)

    def test_interfaces(self) -> None:
        """The port provides what it should."""
        port = self.bind()
        for interface in (IListeningPort, IUDPTransport, ILoggingContext):
            self.assertTrue(verifyClass(interface, TailnetUDPPort))
            self.assertTrue(verifyObject(interface, port))
        self.assertTrue(verifyObject(IReactorUDP, self.net.a.tailnet))

    def test_exchange(self) -> None:
        """A datagram arrives with its sender's address, which answers reach."""
        port = self.bind()
        self.send(b"question")
        [(data, address)] = self.receiver.got
        self.assertEqual(b"question", data)
        self.assertEqual((A4, self.out.getHost().port), address)
        port.write(b"answer", address)
        self.net.elapse(1)
        self.assertEqual([(b"answer", (B4, 53))], self.sender.got)

    def test_wildcardIsDualStack(self) -> None:
        """A wildcard port receives both families, by any of its names."""
        for interface in ("", "::"):
            port = self.bind(interface)
            self.receiver.got.clear()
            self.send(b"four", B4)
            self.send(b"six", B6)
            self.assertEqual(
                [(b"four", A4), (b"six", A6)],
                [(data, address[0]) for data, address in self.receiver.got],
            )
            self.net.wait(port.stopListening())

    def test_oneFamily(self) -> None:
        """0.0.0.0 and v4 take IPv4 only, v6 takes IPv6 only."""
        for interface, expected in (
            ("0.0.0.0", b"4"),
            ("v4", b"4"),
            ("v6", b"6"),
            (B4, b"4"),
            (B6, b"6"),
        ):
            port = self.bind(interface)
            self.receiver.got.clear()
            self.send(b"4", B4)
            self.send(b"6", B6)
            self.assertEqual([expected], [data for data, _ in self.receiver.got])
            self.net.wait(port.stopListening())

    def test_getHost(self) -> None:
        """A port shows the address that peers reach it by."""
        for interface, expected in (
            ("", IPv4Address("UDP", B4, 53)),
            ("v4", IPv4Address("UDP", B4, 53)),
            ("v6", IPv6Address("UDP", B6, 53)),
            (B6, IPv6Address("UDP", B6, 53)),
        ):
            port = self.bind(interface)
            self.assertEqual(expected, port.getHost())
            self.net.wait(port.stopListening())
        with self.assertRaises(CannotListenError):
            port.getHost()

    def test_empty(self) -> None:
        """A datagram may be empty."""
        self.bind()
        self.send(b"")
        self.assertEqual([b""], [data for data, _ in self.receiver.got])

    def test_large(self) -> None:
        """A datagram larger than the MTU arrives in one piece, in both families."""
        self.bind(maxPacketSize=65535)
        for host in (B4, B6):
            data = bytes(range(256)) * 200
            self.send(data, host)
            self.assertEqual(data, self.receiver.got.pop()[0])

    def test_largest(self) -> None:
        """65,507 bytes is the most that one can send."""
        self.bind(maxPacketSize=65535)
        self.send(bytes(65507))
        self.assertEqual(65507, len(self.receiver.got[0][0]))
        with self.assertRaises(MessageLengthError):
            self.send(bytes(65508))

    def test_maxPacketSize(self) -> None:
        """What is longer than the port wants is cut, as a socket does."""
        self.bind(maxPacketSize=10)
        self.send(bytes(2000))
        self.assertEqual([bytes(10)], [data for data, _ in self.receiver.got])

    def test_writeSequence(self) -> None:
        """Pieces make one datagram."""
        self.bind()
        self.out.writeSequence([b"some", b"bytes"], (B4, 53))
        self.net.elapse(1)
        self.assertEqual([b"somebytes"], [data for data, _ in self.receiver.got])

    def test_names(self) -> None:
        """Only addresses can be written or connected to."""
        self.bind()
        for host in ("b", "example.com", ""):
            with self.assertRaises(InvalidAddressError):
                self.out.write(b"x", (host, 53))
            with self.assertRaises(InvalidAddressError):
                self.out.connect(host, 53)

    def test_otherFamily(self) -> None:
        """A port of one family does not write to the other."""
        for interface, host in (("v4", B6), ("v6", B4), (A4, B6), (A6, B4)):
            port = self.net.a.tailnet.listenUDP(0, Receiver(), interface)
            with self.assertRaises(InvalidAddressError):
                port.write(b"x", (host, 53))

    def test_connected(self) -> None:
        """A connected port talks with its peer only."""
        port = self.bind()
        self.assertIsNone(self.out.getPeer())
        self.out.connect(B4, 53)
        self.assertEqual(IPv4Address("UDP", B4, 53), self.out.getPeer())
        self.out.write(b"plain")
        self.out.write(b"with address", (B4, 53))
        self.net.elapse(1)
        self.assertEqual(2, len(self.receiver.got))
        with self.assertRaises(ValueError):
            self.out.write(b"x", (B4, 54))
        stranger = self.net.b.tailnet.listenUDP(0, Receiver())
        mine = (A4, self.out.getHost().port)
        stranger.write(b"psst", mine)
        port.write(b"answer", mine)
        self.net.elapse(1)
        self.assertEqual([(b"answer", (B4, 53))], self.sender.got)
        with self.assertRaises(RuntimeError):
            self.out.connect(B4, 53)

    def test_wrongConnect(self) -> None:
        """A port that cannot be connected to leaves the port unconnected."""
        self.bind()
        with self.assertRaises(ValueError):
            self.out.connect(B4, 0)
        self.assertIsNone(self.out.getPeer())
        self.out.connect(B4, 53)

    def test_unconnected(self) -> None:
        """An unconnected port has to be told whom to write to."""
        self.bind()
        with self.assertRaises(ValueError):
            self.out.write(b"x")

    def test_refused(self) -> None:
        """A connected port hears that nobody listens; an unconnected does not."""
        self.bind()
        self.send(b"x", B4, 9)
        self.assertNotIn("refused", self.sender.events)
        self.out.connect(B4, 9)
        self.out.write(b"x")
        self.net.elapse(1)
        self.assertEqual(["start", "refused"], self.sender.events)

    def test_broadcast(self) -> None:
        """Broadcasts cannot be allowed, as there are none."""
        port = self.bind()
        self.assertFalse(port.getBroadcastAllowed())
        port.setBroadcastAllowed(False)
        with self.assertRaises(OSError):
            port.setBroadcastAllowed(True)
        self.assertFalse(port.getBroadcastAllowed())

    def test_inUse(self) -> None:
        """A port that is taken cannot be bound, also across families."""
        self.bind()
        for interface in ("", "v4", "v6"):
            with self.assertRaises(CannotListenError):
                self.net.b.tailnet.listenUDP(53, Receiver(), interface)
        with self.assertRaises(CannotListenError):
            self.net.b.tailnet.listenUDP(70_000, Receiver())

    def test_wrongInterface(self) -> None:
        """An interface that is none is an InvalidAddressError."""
        with self.assertRaises(InvalidAddressError):
            self.net.b.tailnet.listenUDP(53, Receiver(), "example.com")

    def test_anyPort(self) -> None:
        """Port 0 picks a free one, another one each time."""
        ports = {
            self.net.a.tailnet.listenUDP(0, Receiver()).getHost().port
            for _ in range(20)
        }
        self.assertEqual(20, len(ports))
        self.assertNotIn(0, ports)

    def test_stopListening(self) -> None:
        """The port is free at once, the protocol stops in the next turn."""
        port = self.bind()
        stopping = port.stopListening()
        self.assertEqual(["start"], self.receiver.events)
        self.assertNoResult(stopping)
        self.net.elapse(0)
        self.successResultOf(stopping)
        self.assertEqual(["start", "stop"], self.receiver.events)
        self.assertIsNone(self.receiver.transport)
        self.successResultOf(port.stopListening())
        port.loseConnection()
        port.write(b"x", (A4, 5))
        self.assertIn("not bound", repr(port))
        self.send(b"to nobody")
        port.startListening()
        self.send(b"again")
        self.assertEqual([b"again"], [data for data, _ in self.receiver.got])

    def test_stopInsideStart(self) -> None:
        """A protocol may give its port back while it starts."""
        self.receiver.startProtocol = lambda: self.receiver.transport.stopListening()
        self.bind()
        self.net.elapse(1)
        self.assertEqual(["stop"], self.receiver.events)

    def test_stopInsideDatagramReceived(self) -> None:
        """After it gave its port back a protocol gets no datagram more."""
        port = self.bind()

        def datagramReceived(data: bytes, addr: object) -> None:
            self.receiver.events.append("datagram")
            port.stopListening()

        self.receiver.datagramReceived = datagramReceived
        for _ in range(5):
            self.out.write(b"x", (B4, 53))
        self.net.elapse(1)
        self.assertEqual(["start", "datagram", "stop"], self.receiver.events)

    def test_startTwice(self) -> None:
        """A bound port cannot be bound again."""
        port = self.bind()
        with self.assertRaises(CannotListenError):
            port.startListening()
        self.assertIn("port 53", repr(port))

    def test_flood(self) -> None:
        """More datagrams than are handed out at once arrive in order."""
        port = self.bind()
        port._binding._queueLimit = 2000
        numbers = [str(number).encode() for number in range(1000)]
        for number in numbers:
            self.out.write(number, (B4, 53))
        self.net.elapse(1)
        self.assertEqual(numbers, [data for data, _ in self.receiver.got])

    def test_stopInAFlood(self) -> None:
        """Stopping in the middle of a flood leaves no delayed call."""
        port = self.bind()
        port._binding._queueLimit = 2000
        left: list[str] = []

        def stop() -> None:
            port.stopListening()
            left.extend(c.func.__name__ for c in self.net.clock.getDelayedCalls())

        def datagramReceived(data: bytes, addr: object) -> None:
            self.receiver.got.append((data, addr))
            if len(self.receiver.got) == 256:
                self.net.clock.callLater(0, stop)

        self.receiver.datagramReceived = datagramReceived
        for _ in range(1000):
            self.out.write(b"x", (B4, 53))
        self.net.elapse(1)
        self.assertIn("stop", self.receiver.events)
        self.assertIn("_stopped", left)
        self.assertNotIn("_woken", left)
        self.assertEqual([], self.net.clock.getDelayedCalls())

    def test_floodIsBounded(self) -> None:
        """A flood that nobody takes is dropped and counted."""
        self.bind()
        for _ in range(1000):
            self.out.write(b"x", (B4, 53))
        self.net.elapse(1)
        dropped = self.net.b.stack.counters.droppedDatagramQueue
        self.assertEqual(1000, len(self.receiver.got) + dropped)

    def test_beforeUp(self) -> None:
        """A port may be bound, and written to, before the node has addresses."""
        self.net = OverlayNet(up=False)
        port = self.bind()
        self.assertEqual("0.0.0.0", port.getHost().host)
        self.send(b"lost")
        self.net.a.setUp()
        self.net.b.setUp()
        self.send(b"found")
        self.assertEqual([b"found"], [data for data, _ in self.receiver.got])

    def test_logPrefix(self) -> None:
        """The log calls a port by its protocol, also while it is called."""
        port = self.bind()
        self.send(b"x")
        self.assertEqual("Receiver (UDP)", port.logPrefix())
        self.assertEqual("Receiver (UDP)", self.receiver.system)
        self.receiver.logPrefix = lambda: "Custom"
        self.send(b"x")
        self.assertEqual("Custom (UDP)", self.receiver.system)

"""
Tests for L{tsrt.underlay.socket}.
"""

from __future__ import annotations

import errno
import itertools
import socket as systemSocket
from functools import partial

from twisted.internet import error
from twisted.internet import reactor as realReactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tsrt.addresses import AddrPort, parseAddress
from tsrt.testing.clock import elapse, resultOf
from tsrt.testing.internet import MemoryInternet
from tsrt.underlay.ports import sendVia
from tsrt.underlay.socket import (
    BATCH_LIMIT,
    DEFAULT_PORT,
    LONGEST_REOPEN_DELAY,
    REOPEN_DELAY,
    UnderlayBindError,
    UnderlaySocket,
)
from tsrt.underlay.sockopts import BUFFER_SIZE, enlargeBuffers, ignoreICMPErrors
from tsrt.wire import stun
from tsrt.wire.classify import Kind

RESPONSE = stun.buildResponse(bytes(12), AddrPort(bytes(4), 1))
DISCO = b"TS\xf0\x9f\x92\xac" + bytes(60)


def at(text: str, port: int) -> AddrPort:
    """A packed address."""
    return AddrPort(parseAddress(text), port)


class Peer(DatagramProtocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, tuple[str, int]]] = []

    def datagramReceived(self, datagram, addr):
        self.received.append((datagram, addr))


class SocketTestCase(SynchronousTestCase):
    """A socket on one host and a peer on another."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.internet = MemoryInternet(self.clock)
        self.host = self.internet.host("node", ["192.0.2.1", "2001:db8::1"])
        self.other = self.internet.host("peer", ["192.0.2.2", "2001:db8::2"])
        self.stun: list[tuple[bytes, AddrPort]] = []
        self.datagrams: list[tuple[AddrPort, Kind, list[bytes]]] = []
        self.peer, self.peer6 = Peer(), Peer()
        self.other.listenUDP(9, self.peer)
        self.other.listenUDP(9, self.peer6, interface="::")

    def socket(self, **settings) -> UnderlaySocket:
        """A running socket."""
        socket = UnderlaySocket(
            self.host,
            onSTUN=lambda *event: self.stun.append(event),
            onDatagrams=lambda *event: self.datagrams.append(event),
            **settings,
        )
        socket.startService()
        return socket

    def stop(self, socket: UnderlaySocket) -> None:
        """Stop it; nothing is left."""
        resultOf(self.clock, socket.stopService())
        self.assertEqual(self.host.ports, [])
        self.assertEqual(list(self.host.getDelayedCalls()), [])


class PortTests(SocketTestCase):
    """Which ports are opened."""

    def test_usual(self) -> None:
        """The usual port is taken in both families."""
        socket = self.socket()
        self.assertEqual(socket.localPort(4), DEFAULT_PORT)
        self.assertEqual(socket.localPort(6), DEFAULT_PORT)
        self.stop(socket)
        self.assertEqual(socket.localPort(4), 0)

    def test_any(self) -> None:
        """Port 0 is a free one, the same in both families."""
        socket = self.socket(port=0)
        self.assertNotIn(socket.localPort(4), (0, DEFAULT_PORT))
        self.assertEqual(socket.localPort(4), socket.localPort(6))

    def test_taken(self) -> None:
        """A port that is taken is replaced by another, and the log says so."""
        self.host.listenUDP(DEFAULT_PORT, Peer())
        socket = self.socket()
        self.assertNotIn(socket.localPort(4), (0, DEFAULT_PORT))
        self.assertEqual(socket.localPort(4), socket.localPort(6))
        self.assertEqual(socket.errors, {})

    def test_strict(self) -> None:
        """A port that was demanded and is taken is an error that says why."""
        self.host.listenUDP(4000, Peer())
        socket = UnderlaySocket(self.host, port=4000, strict=True)
        failure = self.assertRaises(UnderlayBindError, socket.startService)
        self.assertIn("4000", str(failure))
        self.assertIn("in use", str(failure))
        self.assertFalse(socket.running)
        self.assertEqual(len(self.host.ports), 1)

    def test_strictAndFree(self) -> None:
        """A port that was demanded and is free is taken."""
        self.assertEqual(self.socket(port=4000, strict=True).localPort(4), 4000)

    def test_IPv6IsOptional(self) -> None:
        """A machine that has no IPv6 does without, which shows."""
        listen = self.host.listenUDP

        def noIPv6(port, protocol, interface="", maxPacketSize=8192):
            if interface == "::":
                raise error.CannotListenError("::", port, OSError("no such family"))
            return listen(port, protocol, interface, maxPacketSize)

        self.host.listenUDP = noIPv6
        socket = self.socket()
        self.assertTrue(socket.has(4))
        self.assertFalse(socket.has(6))
        self.assertIn("no such family", socket.errors[6])
        self.assertFalse(socket.send([b"x"], at("2001:db8::2", 9)))
        self.assertEqual(socket.counters.droppedNoSocket, 1)
        self.stop(socket)

    def test_IPv4IsOptional(self) -> None:
        """A machine without IPv4 has its port by IPv6, even if it is demanded."""
        listen = self.host.listenUDP

        def noIPv4(port, protocol, interface="", maxPacketSize=8192):
            if interface != "::":
                problem = OSError(errno.EAFNOSUPPORT, "no such family")
                raise error.CannotListenError(interface, port, problem)
            return listen(port, protocol, interface, maxPacketSize)

        self.host.listenUDP = noIPv4
        socket = self.socket(port=4000, strict=True)
        self.assertFalse(socket.has(4))
        self.assertEqual(socket.localPort(6), 4000)
        self.assertTrue(socket.send([b"x"], at("2001:db8::2", 9)))
        self.assertFalse(socket.send([b"x"], at("192.0.2.2", 9)))
        socket.rebind()
        elapse(self.clock, 0.1)
        self.assertEqual(socket.localPort(6), 4000)
        self.assertEqual(self.peer6.received, [(b"x", ("2001:db8::1", 4000))])
        self.stop(socket)
        # But then of IPv6.
        self.host.listenUDP(4000, Peer(), "::")
        failing = UnderlaySocket(self.host, port=4000, strict=True)
        self.assertRaises(UnderlayBindError, failing.startService)

    def test_R_DIR_2_noSocketAtAll(self) -> None:
        """With no family the node is left to its relays: no other way."""

        def refuse(port, protocol, interface="", maxPacketSize=8192):
            raise error.CannotListenError(interface, port, OSError("forbidden"))

        self.host.listenUDP = refuse
        socket = self.socket(strict=False)
        self.assertTrue(socket.running)
        self.assertEqual(set(socket.errors), {4, 6})
        self.assertFalse(socket.send([b"x"], at("192.0.2.2", 9)))
        self.stop(socket)

    def test_R_DIR_8_withoutIPv6(self) -> None:
        """Where IPv6 is switched off it is not even tried."""
        socket = self.socket(ipv6=False)
        self.assertEqual([port.interface for port in self.host.ports], [""])
        self.assertFalse(socket.has(6))
        self.assertEqual(socket.errors, {})

    def test_rebind(self) -> None:
        """A rebind opens the ports anew, with their numbers."""
        socket = self.socket(port=0)
        number = socket.localPort(4)
        before = self.host.ports
        socket.rebind()
        elapse(self.clock, 0.1)
        self.assertEqual(socket.localPort(4), number)
        self.assertEqual(len(self.host.ports), 2)
        self.assertFalse(set(map(id, before)) & set(map(id, self.host.ports)))
        self.assertEqual(socket.counters.reopened, 1)
        self.stop(socket)
        socket.rebind()
        self.assertEqual(self.host.ports, [])

    def test_stopWhileRebinding(self) -> None:
        """A stop in the middle of a rebind leaves nothing."""
        socket = self.socket()
        socket.rebind()
        self.stop(socket)
        elapse(self.clock, 5)
        self.assertEqual(self.host.ports, [])

    def test_lostSocket(self) -> None:
        """A socket that the system took away is opened again soon."""
        socket = self.socket()
        self.host.ports[0].stopListening()
        elapse(self.clock, REOPEN_DELAY / 2)
        self.assertFalse(socket.has(4))
        elapse(self.clock, REOPEN_DELAY)
        self.assertTrue(socket.has(4) and socket.has(6))
        self.assertEqual(socket.counters.reopened, 1)
        self.host.ports[0].stopListening()
        elapse(self.clock, 0.1)
        self.stop(socket)

    def test_lostForLonger(self) -> None:
        """What cannot be opened again at once is tried again, ever less often."""
        socket = self.socket()
        listen, tries = self.host.listenUDP, []

        def refuse(port, protocol, interface="", maxPacketSize=8192):
            tries.append((self.clock.seconds(), port))
            raise error.CannotListenError(interface, port, OSError("no room"))

        self.host.listenUDP = refuse
        lost = self.host.ports[0]
        lost.stopListening()
        elapse(self.clock, 300)
        self.assertFalse(socket.has(4))
        self.assertTrue(socket.has(6))
        moments = sorted({time for time, _ in tries})
        gaps = [round(b - a) for a, b in itertools.pairwise(moments)]
        self.assertEqual(gaps[:7], [1, 2, 4, 8, 16, 32, 60])
        self.assertEqual([port for _, port in tries[:2]], [DEFAULT_PORT, 0])
        self.host.listenUDP = listen
        elapse(self.clock, LONGEST_REOPEN_DELAY)
        self.assertTrue(socket.has(4))
        self.assertEqual(socket.localPort(4), DEFAULT_PORT)
        self.assertEqual(socket.errors, {})
        self.stop(socket)

    def test_rebindInVain(self) -> None:
        """A rebind that fails is tried again, until the socket stops."""
        socket = self.socket()
        listen = self.host.listenUDP

        def refuse(port, protocol, interface="", maxPacketSize=8192):
            raise error.CannotListenError(interface, port, OSError("no room"))

        self.host.listenUDP = refuse
        socket.rebind()
        elapse(self.clock, 0.1)
        self.assertFalse(socket.send([b"x"], at("192.0.2.2", 9)))
        self.assertEqual(socket.counters.droppedNoSocket, 1)
        self.host.listenUDP = listen
        elapse(self.clock, 2)
        self.assertEqual(socket.localPort(4), DEFAULT_PORT)
        self.assertEqual(socket.localPort(6), DEFAULT_PORT)
        self.host.listenUDP = refuse
        socket.rebind()
        elapse(self.clock, 0.1)
        self.stop(socket)

    def test_rebindFindsTheWayBack(self) -> None:
        """A port that was taken for a while is had again after it was free."""
        blocker = self.host.listenUDP(4000, Peer())
        socket = self.socket(port=4000)
        other = socket.localPort(4)
        self.assertNotEqual(other, 4000)
        self.assertEqual(socket.localPort(6), other)
        self.assertEqual(socket.errors, {})
        # As long as the other port can be had there is no reason to change.
        blocker.stopListening()
        socket.rebind()
        elapse(self.clock, 0.1)
        self.assertEqual(socket.localPort(4), other)
        # When it cannot, the one that was asked for comes before any.
        blocker = None

        def swap(port, protocol, interface="", maxPacketSize=8192):
            if port == other:
                raise error.CannotListenError(interface, port, OSError("in use"))
            return listen(port, protocol, interface, maxPacketSize)

        listen, self.host.listenUDP = self.host.listenUDP, swap
        socket.rebind()
        elapse(self.clock, 0.1)
        self.assertEqual(socket.localPort(4), 4000)
        self.host.listenUDP = listen
        self.stop(socket)

    def test_startAgain(self) -> None:
        """A stopped socket can be started again."""
        socket = self.socket()
        self.stop(socket)
        socket.startService()
        self.assertEqual(socket.localPort(4), DEFAULT_PORT)
        self.stop(socket)


class TrafficTests(SocketTestCase):
    """What is sent and received."""

    def send(self, *datagrams: bytes, isIPv6: bool = False) -> None:
        """The peer sends datagrams, all in one turn."""
        peer, address = self.peer, "192.0.2.1"
        if isIPv6:
            peer, address = self.peer6, "2001:db8::1"
        for datagram in datagrams:
            peer.transport.write(datagram, (address, DEFAULT_PORT))
        elapse(self.clock, 0.1)

    def test_send(self) -> None:
        """Batches go out to IPv4 and IPv6 addresses."""
        socket = self.socket()
        self.assertTrue(socket.send([b"1", b"2"], at("192.0.2.2", 9)))
        self.assertTrue(socket.send([b"3"], at("2001:db8::2", 9)))
        elapse(self.clock, 0.1)
        self.assertEqual(
            self.peer.received, [(d, ("192.0.2.1", DEFAULT_PORT)) for d in (b"1", b"2")]
        )
        self.assertEqual(self.peer6.received, [(b"3", ("2001:db8::1", DEFAULT_PORT))])
        self.assertEqual(socket.counters.sentPackets, 3)
        self.assertEqual(socket.counters.sentBytes, 3)

    def test_receive(self) -> None:
        """Datagrams of one turn come together, by source and kind, in order."""
        self.socket()
        wireguard = [b"\x04\0\0\0" + bytes((n,)) * 30 for n in range(3)]
        self.send(wireguard[0], DISCO, wireguard[1], RESPONSE, wireguard[2])
        source = at("192.0.2.2", 9)
        self.assertEqual(self.stun, [(RESPONSE, source)])
        self.assertEqual(
            self.datagrams,
            [(source, Kind.WIREGUARD, wireguard), (source, Kind.DISCO, [DISCO])],
        )

    def test_receiveIPv6(self) -> None:
        """Datagrams over IPv6 come with their packed source."""
        self.socket()
        self.send(b"x", isIPv6=True)
        self.assertEqual(
            self.datagrams, [(at("2001:db8::2", 9), Kind.WIREGUARD, [b"x"])]
        )

    def test_nobodyWantsIt(self) -> None:
        """What nobody wants is counted."""
        socket = self.socket()
        socket.onSTUN = socket.onDatagrams = None
        self.send(RESPONSE, b"x", b"y")
        self.assertEqual(socket.counters.unhandled, 3)
        self.assertEqual(socket.counters.receivedPackets, 3)

    def test_failingHandler(self) -> None:
        """An error of a handler is logged, and stops nothing."""
        socket = self.socket()

        def broken(source, kind, datagrams):
            raise ZeroDivisionError

        socket.onDatagrams = broken
        self.send(b"x")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        socket.onDatagrams = lambda *event: self.datagrams.append(event)
        self.send(b"y")
        self.assertEqual(len(self.datagrams), 1)

    def test_batchIsBounded(self) -> None:
        """One turn brings only so many datagrams."""
        socket = self.socket()
        self.send(*[b"x"] * (BATCH_LIMIT + 10))
        self.assertEqual(len(self.datagrams[0][2]), BATCH_LIMIT)
        self.assertEqual(socket.counters.droppedFull, 10)
        self.send(b"y")
        self.assertEqual(len(self.datagrams), 2)

    def test_sendErrors(self) -> None:
        """What the system does not take is counted, never raised."""
        socket = self.socket()
        unreachable = []
        socket.onUnreachable = unreachable.append
        address = at("192.0.2.2", 9)
        self.assertFalse(socket.send([bytes(70_000), b"fits"], address))
        self.assertEqual(socket.counters.droppedTooLong, 1)
        self.assertEqual(unreachable, [])
        self.internet.setAddresses(self.host, [])
        self.assertFalse(socket.send([b"1", b"2"], address))
        self.assertEqual(socket.counters.droppedUnreachable, 2)
        self.assertEqual(socket.counters.droppedSendError, 0)
        self.assertEqual(unreachable, [address])

    def test_reasons(self) -> None:
        """Each kind of error has a counter of its own; the way is told once."""
        socket = self.socket()
        unreachable: list[AddrPort] = []
        socket.onUnreachable = unreachable.append
        address = at("192.0.2.2", 9)

        def failing(number):
            def write(datagram, address):
                raise OSError(number, "no")

            return write

        for number, counter in (
            (errno.EAGAIN, "droppedBusy"),
            (errno.ENOBUFS, "droppedBusy"),
            (errno.EMSGSIZE, "droppedTooLong"),
            (errno.ENETUNREACH, "droppedUnreachable"),
            (errno.EHOSTUNREACH, "droppedUnreachable"),
            (errno.EPERM, "droppedUnreachable"),
            (errno.EADDRNOTAVAIL, "droppedUnreachable"),
            (errno.EINVAL, "droppedSendError"),
            (errno.ECONNREFUSED, "droppedSendError"),
        ):
            before = socket.counters.snapshot()
            told = len(unreachable)
            socket._senders[4] = partial(sendVia, failing(number))
            self.assertFalse(socket.send([b"1", b"2", b"3"], address))
            after = socket.counters.snapshot()
            changed = {name: after[name] - before[name] for name in after}
            self.assertEqual(
                {name: n for name, n in changed.items() if n}, {counter: 3}, number
            )
            expected = 1 if counter == "droppedUnreachable" else 0
            self.assertEqual(len(unreachable) - told, expected)

    def test_strangeSource(self) -> None:
        """A source that is no address is counted, not fatal."""
        socket = self.socket()
        socket._received(("nonsense", 1), b"x")
        socket._received(("fe80::1%eth0", 1), b"y")
        socket._received(("::ffff:192.0.2.7", 1), b"z")
        elapse(self.clock, 0)
        self.assertEqual(socket.counters.unhandled, 1)
        self.assertEqual(
            [source for source, _, _ in self.datagrams],
            [at("fe80::1", 1), at("192.0.2.7", 1)],
        )

    def test_refusedIsIgnored(self) -> None:
        """An ICMP error that the system tells of is counted, no more."""
        socket = self.socket()
        self.host.ports[0].protocol.connectionRefused()
        self.assertEqual(socket.counters.refused, 1)
        self.send(b"x")
        self.assertEqual(len(self.datagrams), 1)

    def test_nothingAfterTheStop(self) -> None:
        """What came just before the stop is not handed on after it."""
        socket = self.socket()
        socket._received(("192.0.2.2", 9), b"x")
        self.stop(socket)
        elapse(self.clock, 1)
        self.assertEqual(self.datagrams, [])


class SendViaTests(SynchronousTestCase):
    """Sending goes on as far as it makes sense."""

    def send(self, problem: Exception) -> tuple[tuple, list[bytes]]:
        """Send five datagrams, of which the fourth meets a problem."""
        taken: list[bytes] = []

        def write(datagram, address):
            if datagram == b"long":
                raise error.MessageLengthError("long")
            if datagram == b"bad":
                raise problem
            taken.append(datagram)

        batch = [b"a", b"long", b"bc", b"bad", b"d"]
        outcome = sendVia(write, batch, ("x", 1))
        told = (outcome.sent, outcome.size, outcome.tooLong, outcome.error)
        return told, taken

    def test_tooLong(self) -> None:
        """A long datagram is passed over, whoever says that it is long."""
        for problem in (
            error.MessageLengthError("long"),
            OSError(errno.EMSGSIZE, "long"),
        ):
            self.assertEqual(self.send(problem), ((3, 4, 2, 0), [b"a", b"bc", b"d"]))

    def test_errors(self) -> None:
        """Any other error ends the batch; its number is told."""
        for problem, number in (
            (OSError(errno.EHOSTUNREACH, "no route"), errno.EHOSTUNREACH),
            (OSError("no number"), -1),
            (error.InvalidAddressError("x", "strange"), -1),
        ):
            self.assertEqual(self.send(problem), ((2, 3, 1, number), [b"a", b"bc"]))


class Options:
    """A socket that takes options only so far."""

    def __init__(self, limit: int, isAdministrator: bool = False) -> None:
        self.limit = limit
        self.isAdministrator = isAdministrator
        self.set: list[tuple[int, int]] = []

    def fileno(self) -> int:
        """See L{systemSocket.socket}."""
        return 7

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """See L{systemSocket.socket}."""
        isForced = option in (32, 33)
        if (isForced and not self.isAdministrator) or value > self.limit:
            raise OSError(errno.ENOBUFS, "no")
        self.set.append((option, value))


class OptionsTests(SynchronousTestCase):
    """What sockets are told when they are made."""

    receive, send = systemSocket.SO_RCVBUF, systemSocket.SO_SNDBUF

    def test_asked(self) -> None:
        """The system is asked for large buffers, both ways."""
        options = Options(BUFFER_SIZE)
        enlargeBuffers(options, "linux")
        self.assertEqual(
            options.set, [(self.receive, BUFFER_SIZE), (self.send, BUFFER_SIZE)]
        )

    def test_forced(self) -> None:
        """Whoever may have more than others has it."""
        options = Options(BUFFER_SIZE, isAdministrator=True)
        enlargeBuffers(options, "linux")
        self.assertEqual(options.set, [(33, BUFFER_SIZE), (32, BUFFER_SIZE)])

    def test_less(self) -> None:
        """A system that refuses is asked for less, and for nothing at last."""
        options = Options(BUFFER_SIZE // 3)
        enlargeBuffers(options, "darwin")
        self.assertEqual(
            options.set,
            [(self.receive, BUFFER_SIZE // 4), (self.send, BUFFER_SIZE // 4)],
        )
        options = Options(1000)
        enlargeBuffers(options, "darwin")
        self.assertEqual(options.set, [])

    def test_windows(self) -> None:
        """Windows is told to keep errors of others to itself; nobody else."""
        asked = []

        def control(handle, code, data):
            asked.append((handle, hex(code), data))
            return 1

        ignoreICMPErrors(Options(0), "linux", control)
        self.assertEqual(asked, [])
        ignoreICMPErrors(Options(0), "win32", control)
        self.assertEqual(
            asked, [(7, "0x9800000c", bytes(4)), (7, "0x9800000f", bytes(4))]
        )

    def test_real(self) -> None:
        """A real socket has at least what it had before."""
        with systemSocket.socket(systemSocket.AF_INET, systemSocket.SOCK_DGRAM) as sock:
            before = [
                sock.getsockopt(systemSocket.SOL_SOCKET, option)
                for option in (self.receive, self.send)
            ]
            enlargeBuffers(sock)
            for option, size in zip((self.receive, self.send), before, strict=True):
                now = sock.getsockopt(systemSocket.SOL_SOCKET, option)
                self.assertGreaterEqual(now, min(size, BUFFER_SIZE))


class RealSocketTests(TestCase):
    """Both families on a real reactor."""

    timeout = 10

    def test_bothFamiliesOnOnePort(self) -> Deferred[None]:
        """Where there is IPv6 it has the same port, and both receive."""

        async def run() -> None:
            got: list[tuple[AddrPort, Kind, list[bytes]]] = []
            waiting: list[Deferred[None]] = []

            def received(*event) -> None:
                got.append(event)
                if waiting:
                    waiting.pop().callback(None)

            socket = UnderlaySocket(realReactor, port=0, onDatagrams=received)
            other = UnderlaySocket(realReactor, port=0)
            socket.startService()
            other.startService()
            try:
                for family, text in ((4, "127.0.0.1"), (6, "::1")):
                    if not socket.has(family):
                        continue
                    self.assertEqual(socket.localPort(family), socket.localPort(4))
                    done: Deferred[None] = Deferred()
                    waiting.append(done)
                    other.send([b"hello"], at(text, socket.localPort(family)))
                    await done
                    self.assertEqual(
                        got.pop(),
                        (
                            at(text, other.localPort(family)),
                            Kind.WIREGUARD,
                            [b"hello"],
                        ),
                    )
            finally:
                await socket.stopService()
                await other.stopService()

        return Deferred.fromCoroutine(run())

    def test_refusedByOthers(self) -> None:
        """Datagrams to closed ports and forbidden places harm nothing."""

        async def run() -> None:
            got: Deferred[list[bytes]] = Deferred()
            socket = UnderlaySocket(
                realReactor,
                port=0,
                ipv6=False,
                onDatagrams=lambda source, kind, datagrams: got.callback(datagrams),
            )
            socket.startService()
            unreachable: list[AddrPort] = []
            socket.onUnreachable = unreachable.append
            try:
                with systemSocket.socket(
                    systemSocket.AF_INET, systemSocket.SOCK_DGRAM
                ) as sock:
                    sock.bind(("127.0.0.1", 0))
                    closed = at("127.0.0.1", sock.getsockname()[1])
                for _ in range(5):
                    self.assertTrue(socket.send([b"x", b"y"], closed))
                # Without leave to broadcast, this is an error of the system.
                broadcast = at("255.255.255.255", 9)
                self.assertFalse(socket.send([b"x", b"y"], broadcast))
                self.assertEqual(unreachable, [broadcast])
                self.assertEqual(socket.counters.droppedUnreachable, 2)
                self.assertFalse(socket.send([bytes(70_000)], closed))
                self.assertEqual(socket.counters.droppedTooLong, 1)
                # It still carries, to itself for example.
                mine = at("127.0.0.1", socket.localPort(4))
                self.assertTrue(socket.send([b"hello"], mine))
                self.assertEqual(await got, [b"hello"])
                self.assertEqual(socket.counters.reopened, 0)
            finally:
                await socket.stopService()

        return Deferred.fromCoroutine(run())

"""
Tests for L{tsrt.underlay.batchport}.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from types import SimpleNamespace

from twisted.internet import reactor as realReactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tsrt.addresses import AddrPort, parseAddress
from tsrt.dataplane.runs import DatagramRun, SealedRun, datagramsOf
from tsrt.path.places import Via
from tsrt.runtime.paths import PathService
from tsrt.runtime.traffic import Traffic
from tsrt.underlay.batchport import (
    _MOST_SINGLES,
    SINGLES_LIFETIME,
    BatchPort,
    Offloads,
    bindPort,
)
from tsrt.underlay.socket import UnderlaySocket
from tsrt.wire.geneve import HEADER_LENGTH, parseGeneve

THERE = ("192.0.2.2", 9)
ELSEWHERE = ("192.0.2.3", 9)


class FakeReactor:
    """Knows what is watched."""

    def __init__(self) -> None:
        self.readers: list[object] = []

    def addReader(self, reader) -> None:
        self.readers.append(reader)

    def removeReader(self, reader) -> None:
        self.readers.remove(reader)


class FakeSocket:
    """A socket whose system has some abilities, and some faults."""

    family = socket.AF_INET

    def __init__(self, options=(103, 104)) -> None:
        self.options = options
        self.waiting: list = []
        self.writes: list[tuple[bytes, int, tuple]] = []
        self.faults: dict[bool, int] = {}
        self.closed = False

    def setsockopt(self, level, option, value) -> None:
        if option not in self.options:
            raise OSError(errno.ENOPROTOOPT, "unknown option")

    def recvmsg_into(self, buffers, size):
        data, each, address = self.take()
        buffers[0][: len(data)] = data
        controls = [(17, 104, struct.pack("=i", each))] if each else []
        return len(data), controls, 0, address

    def recvfrom_into(self, buffer):
        data, _, address = self.take()
        buffer[: len(data)] = data
        return len(data), address

    def take(self):
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        found = self.waiting.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    def sendmsg(self, buffers, controls, flags, address) -> None:
        data = b"".join(map(bytes, buffers))
        each = struct.unpack("=H", controls[0][2])[0] if controls else 0
        self.write(data, each, address)

    def sendto(self, data, address) -> None:
        self.write(bytes(data), 0, address)

    def write(self, data: bytes, each: int, address) -> None:
        fault = self.faults.get(bool(each))
        if fault:
            raise OSError(fault, "no")
        self.writes.append((data, each, address))

    def getsockname(self):
        return "192.0.2.1", 7

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        return -1 if self.closed else 5


def runOf(count: int, size: int = 100, last: int = 0) -> SealedRun:
    """A sealed run of recognisable messages."""
    messages = [bytes((n % 251,)) * size for n in range(count - 1)]
    messages.append(bytes((count % 251,)) * (last or size))
    buffers = [part for message in messages for part in (message[:16], message[16:])]
    return SealedRun(buffers, size, count, sum(map(len, messages)), 2)


class BatchPortTests(SynchronousTestCase):
    """With a system that can do this or that."""

    def port(self, options=(103, 104), platform: str = "linux") -> BatchPort:
        self.reactor, self.socket = FakeReactor(), FakeSocket(options)
        self.clock = Clock()
        self.got: list = []
        self.refused = 0
        self.stopped: list = []

        def refused() -> None:
            self.refused += 1

        port = BatchPort(
            self.reactor,
            self.socket,
            lambda *event: self.got.append(event),
            refused,
            self.stopped.append,
            platform,
            self.clock.seconds,
        )
        port.startListening()
        return port

    # -- reading ---------------------------------------------------------------

    def test_joined(self) -> None:
        """What the system joined stays a run, and runs that match are one."""
        port = self.port()
        self.socket.waiting = [
            (b"aaabbb", 3, THERE),
            (b"cccdd", 3, THERE),
            (b"eee", 0, THERE),
            (b"x", 0, ELSEWHERE),
        ]
        port.doRead()
        (there, some), (elsewhere, others) = self.got
        self.assertEqual((there, elsewhere), (THERE, ELSEWHERE))
        self.assertEqual([type(item) for item in some], [DatagramRun, bytes])
        self.assertEqual(datagramsOf(some), [b"aaa", b"bbb", b"ccc", b"dd", b"eee"])
        self.assertEqual(others, [b"x"])

    def test_singles(self) -> None:
        """
        Single datagrams of one size are a run, too; a shorter one ends it.
        """
        for options in ((103, 104), ()):
            port = self.port(options)
            datagrams = [b"aa", b"bb", b"c", b"dd", b"", b"ee", b"ffff"]
            self.socket.waiting = [(each, 0, THERE) for each in datagrams]
            port.doRead()
            ((_, items),) = self.got
            self.assertEqual(datagramsOf(items), datagrams)
            self.assertLess(len(items), len(datagrams))

    def test_loneIsPrompt(self) -> None:
        """
        Where one datagram comes at a time, it is handed on before the system is
        asked for more; and no longer once more come.
        """
        port = self.port()
        left: list[int] = []
        port._received = lambda *event: left.append(len(self.socket.waiting))
        lone = (b"lone", 0, THERE)
        for count, expected in ((1, [0]), (1, [0]), (2, [1, 0]), (2, [0]), (1, [0])):
            self.socket.waiting = [lone] * count
            left.clear()
            port.doRead()
            self.assertEqual(left, expected)

    def test_loneEndsIt(self) -> None:
        """Whoever takes a lone datagram may close the port."""
        port = self.port()
        self.socket.waiting = [(b"first", 0, THERE)]
        port.doRead()
        self.got.clear()

        def close(*event: object) -> None:
            self.got.append(event)
            port.stopListening()

        port._received = close
        self.socket.waiting = [(b"lone", 0, THERE), (b"more", 0, THERE)]
        port.doRead()
        self.assertEqual(self.got, [(THERE, [b"lone"])])

    def test_order(self) -> None:
        """Within an address the order stays."""
        port = self.port()
        self.socket.waiting = [
            (b"1111", 2, THERE),
            (b"x", 0, ELSEWHERE),
            (b"2222", 2, THERE),
        ]
        port.doRead()
        self.assertEqual(datagramsOf(self.got[0][1]), [b"11", b"11", b"22", b"22"])

    def test_readErrors(self) -> None:
        """An ICMP error is counted, and what comes after it is read."""
        port = self.port()
        self.socket.waiting = [
            OSError(errno.ECONNREFUSED, "refused"),
            InterruptedError(errno.EINTR, "a signal"),
            (b"good", 0, THERE),
        ]
        port.doRead()
        self.assertEqual(self.refused, 1)
        self.assertEqual(self.got, [(THERE, [b"good"])])

    def test_endlessErrors(self) -> None:
        """A socket that does nothing but fail does not hold the reactor up."""
        port = self.port()
        self.socket.waiting = [OSError(errno.ENETDOWN, "down")] * 10_000
        port.doRead()
        self.assertEqual(self.got, [])
        self.assertGreater(len(self.socket.waiting), 5000)

    def test_bounded(self) -> None:
        """A read event ends, however much waits."""
        port = self.port()
        self.socket.waiting = [(bytes(60_000), 1200, THERE)] * 100
        port.doRead()
        self.assertGreater(len(self.socket.waiting), 80)

    # -- writing ------------------------------------------------------------------

    def sent(self) -> list[bytes]:
        """The datagrams as they would arrive."""
        datagrams: list[bytes] = []
        for data, each, _ in self.socket.writes:
            each = each or len(data)
            datagrams += [data[at : at + each] for at in range(0, len(data), each)]
        return datagrams

    def test_cut(self) -> None:
        """A run is one write."""
        port = self.port()
        run = runOf(40, last=33)
        outcome = port.send([run], THERE)
        self.assertEqual((outcome.sent, outcome.size), (40, len(run)))
        self.assertEqual([each for _, each, _ in self.socket.writes], [100])
        self.assertEqual(self.sent(), run.messages())

    def test_limits(self) -> None:
        """A write has no more datagrams and bytes than the system takes."""
        port = self.port()
        for size, most in ((100, 64), (1312, 49), (40_000, 1)):
            self.socket.writes.clear()
            run = runOf(130, size, last=20)
            self.assertEqual(port.send([run], THERE).sent, 130)
            self.assertEqual(self.sent(), run.messages())
            for data, each, _ in self.socket.writes:
                self.assertLessEqual(-(-len(data) // (each or size)), most)
                self.assertLessEqual(len(data), 65507)

    def test_singlesTogether(self) -> None:
        """Datagrams of one size leave together, in order with the rest."""
        port = self.port()
        items = [b"aa", b"bb", b"c", b"dddd", b"ee", runOf(3), b"f"]
        outcome = port.send(items, THERE)
        expected = [b"aa", b"bb", b"c", b"dddd", b"ee", *items[5].messages(), b"f"]
        self.assertEqual(self.sent(), expected)
        self.assertEqual(outcome.sent, len(expected))
        self.assertEqual(len(self.socket.writes), 4)

    def test_peerRelay(self) -> None:
        """
        What goes by a peer relay is wrapped message by message, and still leaves
        by one write.
        """
        port = self.port()
        socket = UnderlaySocket(self.clock)
        socket._senders[4] = port.send
        service = SimpleNamespace(_socket=socket, traffic=Traffic())
        run = runOf(40, last=33)
        via = Via(AddrPort(parseAddress(THERE[0]), THERE[1]), 77)
        PathService._sendTo(service, via, [run])
        self.assertEqual([each for _, each, _ in self.socket.writes], [108])
        self.assertEqual([to for *_, to in self.socket.writes], [THERE])
        datagrams = self.sent()
        self.assertEqual([d[HEADER_LENGTH:] for d in datagrams], run.messages())
        for datagram in datagrams:
            self.assertEqual(parseGeneve(datagram).vni, 77)
        self.assertEqual(socket.counters.sentPackets, 40)

    def test_withoutCutting(self) -> None:
        """Where the system cannot cut, each datagram is a write."""
        for port in (self.port(()), self.port(platform="darwin")):
            self.assertFalse(port.cuts or port.joins)
        run = runOf(10)
        self.assertEqual(port.send([run], THERE).sent, 10)
        self.assertEqual(self.sent(), run.messages())
        self.assertEqual(len(self.socket.writes), 10)

    def test_deviceCannotCut(self) -> None:
        """A device that cannot is not asked again; nothing is lost."""
        port = self.port()
        self.socket.faults = {True: errno.EIO}
        run = runOf(10)
        self.assertEqual(port.send([run], THERE).sent, 10)
        self.assertFalse(port.cuts)
        self.assertEqual(self.sent(), run.messages())

    def test_pathTooNarrow(self) -> None:
        """Neither is a path whose packets are smaller; others are."""
        for number in (errno.EINVAL, errno.EMSGSIZE):
            port = self.port()
            self.socket.faults = {True: number}
            run = runOf(10)
            self.assertEqual(port.send([run], THERE).sent, 10)
            self.assertEqual(self.sent(), run.messages())
            self.socket.faults = {}
            self.socket.writes.clear()
            port.send([run], THERE)
            self.assertEqual(len(self.socket.writes), 10)
            self.socket.writes.clear()
            port.send([run], ELSEWHERE)
            self.assertEqual(len(self.socket.writes), 1)

    def test_pathWidens(self) -> None:
        """After a while a path that was too narrow gets whole writes again."""
        port = self.port()
        run = runOf(10)

        def writes(address) -> int:
            self.socket.writes.clear()
            self.assertEqual(port.send([run], address).sent, 10)
            self.assertEqual(self.sent(), run.messages())
            return len(self.socket.writes)

        self.assertEqual(port.offloads, Offloads(True, True, 0))
        self.socket.faults = {True: errno.EMSGSIZE}
        self.assertEqual(writes(THERE), 10)
        self.clock.advance(SINGLES_LIFETIME / 2)
        self.assertEqual(writes(ELSEWHERE), 10)
        self.assertEqual(port.offloads, Offloads(True, True, 2))
        self.socket.faults = {}
        self.clock.advance(SINGLES_LIFETIME / 2 - 1)
        self.assertEqual((writes(THERE), writes(ELSEWHERE)), (10, 10))
        self.clock.advance(1)
        self.assertEqual(port.offloads, Offloads(True, True, 1))
        self.assertEqual((writes(THERE), writes(ELSEWHERE)), (1, 10))
        self.assertEqual(list(port._singles), [ELSEWHERE])
        # One that is as narrow as before is found out anew.
        self.socket.faults = {True: errno.EMSGSIZE}
        self.clock.advance(SINGLES_LIFETIME)
        self.assertEqual(writes(ELSEWHERE), 10)
        self.assertEqual(port.offloads, Offloads(True, True, 1))

    def test_manyNarrowPaths(self) -> None:
        """Of many narrow paths the latest are remembered."""
        port = self.port()
        self.socket.faults = {True: errno.EMSGSIZE}
        for number in range(_MOST_SINGLES + 10):
            port.send([runOf(2)], ("192.0.2.1", number))
        self.assertEqual(port.offloads.singles, _MOST_SINGLES)
        self.assertEqual(next(iter(port._singles)), ("192.0.2.1", 10))

    def test_offloads(self) -> None:
        """What cannot be done anywhere is not counted by path."""
        self.assertEqual(self.port(()).offloads, Offloads(False, False, 0))
        self.assertEqual(self.port((104,)).offloads, Offloads(True, False, 0))
        port = self.port()
        self.socket.faults = {True: errno.EMSGSIZE}
        port.send([runOf(2)], THERE)
        self.socket.faults = {True: errno.EIO}
        port.send([runOf(2)], ELSEWHERE)
        self.assertEqual(port.offloads, Offloads(True, False, 0))

    def test_errors(self) -> None:
        """What the system does not take is told; the rest is not tried."""
        port = self.port()
        self.socket.faults = {True: errno.EAGAIN, False: errno.EAGAIN}
        outcome = port.send([runOf(100), b"x"], THERE)
        self.assertEqual((outcome.sent, outcome.error), (0, errno.EAGAIN))
        self.socket.faults = {False: errno.EMSGSIZE}
        outcome = port.send([b"x", b"yy", b"zzz"], THERE)
        self.assertEqual((outcome.tooLong, outcome.error), (3, 0))

    # -- life -----------------------------------------------------------------------

    def test_stop(self) -> None:
        """A port that was stopped watches nothing; that is told once."""
        port = self.port()
        self.successResultOf(port.stopListening())
        port.connectionLost(Failure(OSError("late")))
        self.assertEqual(self.reactor.readers, [])
        self.assertTrue(self.socket.closed)
        self.assertEqual(self.stopped, [port])
        self.assertEqual(port.fileno(), -1)

    def test_stopWhileReading(self) -> None:
        """Nothing is handed on by a port that a handler has stopped."""
        port = self.port()
        self.socket.waiting = [(b"1", 0, THERE), (b"2", 0, ELSEWHERE)]

        def stop(*event) -> None:
            self.got.append(event)
            port.stopListening()

        port._received = stop
        port.doRead()
        self.assertEqual(self.got, [(THERE, [b"1"])])


class RealPortTests(TestCase):
    """With the system's own sockets."""

    def test_runs(self) -> Deferred[None]:
        """Runs get from one port to another, whatever the system can do."""
        arrived: list[bytes] = []
        enough: Deferred[None] = Deferred()
        run = runOf(200, 1312, last=500)
        if sys.platform != "linux":
            # Elsewhere a socket holds less.
            run = runOf(20, 1312, last=500)

        def received(address, items) -> None:
            arrived.extend(datagramsOf(items))
            if len(arrived) == run.count:
                enough.callback(None)

        def make(handler) -> BatchPort:
            sock = bindPort(4, 0, "127.0.0.1")
            port = BatchPort(realReactor, sock, handler, lambda: None, lambda _: None)
            port.startListening()
            self.addCleanup(port.stopListening)
            return port

        sink, source = make(received), make(lambda *_: None)
        host = sink.getHost()
        outcome = source.send([run], (host.host, host.port))
        self.assertEqual(outcome.sent, run.count)
        enough.addTimeout(10, realReactor)
        return enough.addCallback(lambda _: self.assertEqual(arrived, run.messages()))

    def test_taken(self) -> None:
        """A port that is taken is an error that says so."""
        first = bindPort(4, 0, "127.0.0.1")
        self.addCleanup(first.close)
        port = first.getsockname()[1]
        error = self.assertRaises(CannotListenError, bindPort, 4, port, "127.0.0.1")
        self.assertEqual(error.socketError.errno, errno.EADDRINUSE)

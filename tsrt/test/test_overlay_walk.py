"""
Watching packets walk: what the interpreter does for each of them.

A packet may cost parsing, sealing and queueing.  It may cost no Deferred, no
coroutine, no input of a state machine, no log event, no delayed call, no address
object and no frozen attrs object; these are for batches.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from inspect import CO_COROUTINE
from types import FrameType

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tsrt.dataplane.runs import messagesOf
from tsrt.path.places import Relayed
from tsrt.runtime.datapath import DataPath
from tsrt.test.overlaynet import Recorder, factoryFor, queued
from tsrt.testing.clock import pump
from tsrt.testing.tailnet import TestTailnet

# Parts of file names, and names of functions, that are not to be met.
_DEAR_FILES = (
    "twisted/internet/defer",
    "twisted/logger",
    "twisted/python/log",
    "twisted/python/failure",
    "automat/",
    "/ipaddress.py",
    "<attrs generated",
)
_DEAR_NAMES = ("callLater", "callWithContext", "_settle", "_arm")

FEW, MANY = 10, 1000

# As many as fit into the congestion window.
SEGMENTS = 60

LONE = 280
"""Python calls that a lone segment cost once, both ends together."""


def callsOf(action: Callable[[], object]) -> tuple[int, Counter[str]]:
    """
    Do something under a profiler.

    @return: how many Python functions were called, and how often each dear
        one was.
    """
    total = 0
    dear: Counter[str] = Counter()

    def watch(frame: FrameType, event: str, argument: object) -> None:
        nonlocal total
        if event != "call":
            return
        total += 1
        code = frame.f_code
        file = code.co_filename.replace("\\", "/")
        if (
            code.co_flags & CO_COROUTINE
            or code.co_name in _DEAR_NAMES
            or any(part in file for part in _DEAR_FILES)
        ):
            dear[f"{file.rpartition('/')[2]}:{code.co_name}"] += 1

    sys.setprofile(watch)
    try:
        action()
    finally:
        sys.setprofile(None)
    return total, dear


class Counting(DatagramProtocol):
    """Counts datagrams."""

    count = 0

    def datagramReceived(self, data: bytes, addr: tuple[str, int]) -> None:
        self.count += 1


class WalkTests(SynchronousTestCase):
    """Two nodes whose data paths are joined without a network."""

    def setUp(self) -> None:
        self.tailnet = TestTailnet(nodes=["a", "b"])
        self.addCleanup(self.tailnet.close)
        self.sent: list[bytes] = []
        self.protocol = Counting()
        self.port = self.listen("b", 4000, self.protocol)
        self.port._binding._queueLimit = 10 * MANY
        self.out = self.listen("a", 4000, Counting())
        self.target = (self.tailnet["b"].status.addresses[0], 4000)
        # The first datagram makes the tunnel's session.
        self.out.write(b"first", self.target)
        self.tailnet.settle()
        self.assertEqual(1, self.protocol.count)
        self.a, self.b = self.datapath("a"), self.datapath("b")
        self.normally = self.a._transmit
        self.a._transmit = self.transmit

    def listen(self, name: str, number: int, protocol: DatagramProtocol):
        port = self.tailnet[name].reactor.listenUDP(number, protocol)
        self.addCleanup(lambda: self.tailnet.wait(port.stopListening()))
        return port

    def datapath(self, name: str) -> DataPath:
        engine = self.tailnet[name]._engine
        assert engine is not None
        return engine.datapath

    def transmit(self, peer: bytes, messages) -> bool:
        self.sent += messagesOf(messages)
        return True

    def outbound(self, count: int) -> tuple[int, Counter[str]]:
        """Send datagrams from C{a}; the calls from the first write on."""
        self.sent.clear()

        def action() -> None:
            for _ in range(count):
                self.out.write(b"x" * 100, self.target)
            self.tailnet.clock.advance(0)

        seen = callsOf(action)
        self.assertEqual(count, len(self.sent))
        return seen

    def inbound(self, count: int) -> tuple[int, Counter[str]]:
        """Let C{b} receive datagrams; the calls from the messages on."""
        self.outbound(count)
        before = self.protocol.count
        source = self.tailnet["b"].peers()[0].key.raw
        seen = callsOf(lambda: self.b.receive(source, self.sent, Relayed(900, source)))
        self.tailnet.settle()
        self.assertEqual(count, self.protocol.count - before)
        return seen

    def assertConstant(
        self, few: tuple[int, Counter[str]], many: tuple[int, Counter[str]]
    ) -> None:
        """What is dear does not grow with the number of packets."""
        for name, count in many[1].items():
            self.assertLessEqual(count, few[1][name] + 2, f"{name}: {many[1]}")
        # The profiler saw the packets at all.
        self.assertGreater(many[0], few[0] + MANY - FEW)

    def test_outbound(self) -> None:
        """A thousand packets out: as many dear calls as for ten."""
        self.assertConstant(self.outbound(FEW), self.outbound(MANY))

    def test_inbound(self) -> None:
        """A thousand packets in: as many dear calls as for ten."""
        self.assertConstant(self.inbound(FEW), self.inbound(MANY))

    def connect(self) -> None:
        """Let C{a} connect to C{b}."""
        self.a._transmit = self.normally
        self.client, self.server = Recorder(), Recorder()
        self.listening = self.tailnet["b"].reactor.listenTCP(7, factoryFor(self.server))
        connecting = self.tailnet["a"].clientEndpoint("b", 7)
        self.tailnet.wait(connecting.connect(factoryFor(self.client)))

    def disconnect(self) -> None:
        """End the connection."""
        self.client.transport.loseConnection()
        self.tailnet.settle()
        self.tailnet.wait(self.listening.stopListening())

    def stream(
        self, segments: int, size: int = 1200
    ) -> tuple[tuple[int, Counter[str]], ...]:
        """
        Send segments of a stream from C{a} to C{b}.

        @param size: bytes in each.
        @return: the calls of sending, and of receiving.
        """
        self.sent.clear()
        # Open the windows wide; they would close again in a pause.
        self.client.transport.write(bytes(2_000_000))
        pump(self.tailnet.clock, lambda: not queued(self.client))
        data = b"s" * (size * segments)

        def send() -> None:
            self.client.transport.write(data)
            self.tailnet.clock.advance(0)

        self.a._transmit = self.transmit
        before = len(self.server.data)
        out = callsOf(send)
        self.assertGreaterEqual(len(self.sent), segments * 9 // 10)
        self.a._transmit = self.normally
        source = self.tailnet["b"].peers()[0].key.raw
        into = callsOf(lambda: self.b.receive(source, self.sent, Relayed(900, source)))
        self.tailnet.settle(2)
        self.assertEqual(len(data), len(self.server.data) - before)
        return out, into

    def test_tcp(self) -> None:
        """A stream's segments cost no more dear calls when there are more."""
        self.connect()
        few, many = self.stream(FEW), self.stream(SEGMENTS)
        for less, more in zip(few, many, strict=True):
            for name, count in more[1].items():
                self.assertLessEqual(count, less[1][name] + 2, f"{name}: {more[1]}")
            # The plain tier computes the checksums of each; all else is done
            # for all of them at once.
            self.assertLess(more[0] - less[0], 4 * (SEGMENTS - FEW))
        self.disconnect()

    def test_loneSegment(self) -> None:
        """
        A message of one byte leaves in the turn of its write, and costs both ends
        together not many more calls than it always did.
        """
        self.connect()
        self.stream(FEW)
        costs = [sum(calls for calls, _ in self.stream(1, 1)) for _ in range(3)]
        self.assertLess(min(costs), LONE * 3 // 2)
        self.disconnect()

    def test_watcherSees(self) -> None:
        """The watch finds what it is to find."""

        def action() -> None:
            for _ in range(FEW):
                Deferred().callback(None)
                self.tailnet.clock.callLater(0, int)

        _, dear = callsOf(action)
        self.assertGreaterEqual(dear["defer.py:callback"], FEW)
        self.assertGreaterEqual(dear["simclock.py:callLater"], FEW)
        self.tailnet.settle()

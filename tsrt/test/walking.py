"""
Walks of packets between two whole nodes, watched call by call.

Below each node lies a socket of no system: it keeps what is written, and gives what
the test has it give, joined as the system would join it.  A relay is cut off in the
same way, below the frames of its protocol.  So all calls between an application and
its system are those of one side, and can be told from those of the other.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE
from types import FrameType

from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tsrt.derp.protocol import DERPClientProtocol
from tsrt.runtime.engine import Engine
from tsrt.test.overlaynet import Recorder, factoryFor, queued
from tsrt.test.test_underlay_batchport import FakeReactor, FakeSocket
from tsrt.testing.clock import pump
from tsrt.testing.links import Link
from tsrt.testing.tailnet import TestTailnet
from tsrt.underlay.batchport import BatchPort
from tsrt.underlay.socket import UnderlaySocket
from tsrt.wire import derp

DEAR_FILES = (
    "twisted/internet/defer",
    "twisted/logger/",
    "twisted/python/log",
    "twisted/python/failure",
    "automat/",
    "/logging/__init__.py",
    "/ipaddress.py",
    "<attrs generated",
)
"""Parts of the names of files that are not to be met."""

DEAR_KINDS = CO_COROUTINE | CO_ITERABLE_COROUTINE | CO_ASYNC_GENERATOR
"""Kinds of functions that are not."""

CONVENTION = "twisted/python/log.py:callWithContext"
"""What is, once for each flow in each turn: Twisted's own transports do so, too."""


class Watch:
    """
    What the interpreter did.

    @ivar calls: how many Python functions were called.
    @ivar dear: how often each was that is dear.
    @ivar contexts: how often a logging context was entered.
    @ivar scheduled: how often something was scheduled.
    """

    def __init__(self, action: Callable[[], object]) -> None:
        """Do something under a profiler."""
        self.calls = self.contexts = self.scheduled = 0
        self.dear: Counter[str] = Counter()
        sys.setprofile(self._event)
        try:
            action()
        finally:
            sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        self.calls += 1
        code = frame.f_code
        name = f"{code.co_filename}:{code.co_name}".replace("\\", "/")
        if name.endswith(CONVENTION):
            self.contexts += 1
        elif code.co_flags & DEAR_KINDS or any(part in name for part in DEAR_FILES):
            self.dear[name] += 1
        elif code.co_name == "callLater" and "/simclock.py" in name:
            self.scheduled += 1


class Counting(DatagramProtocol):
    """Counts datagrams."""

    count = 0

    def datagramReceived(self, data: bytes, addr: tuple[str, int]) -> None:
        self.count += 1


class Pipe:
    """The transport of a relay's client, which keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)


class Walker:
    """
    A node, with what is below its socket, and below its relay's protocol.

    @ivar socket: the socket.
    @ivar pipe: the relay.
    """

    def __init__(self, tailnet: TestTailnet, name: str) -> None:
        node = tailnet[name]
        engine = node._engine
        assert engine is not None
        underlay = engine.getServiceNamed("underlay")
        self.engine: Engine = engine
        self.underlay: UnderlaySocket = underlay
        self.key: bytes = engine.netmap.selfNode.key.raw
        self.address = (tailnet.hosts[name].addresses[0], underlay.localPort(4))
        self.socket = FakeSocket()
        self.pipe = Pipe()
        self.port = BatchPort(
            FakeReactor(),
            self.socket,
            underlay._arrived,
            underlay._refused,
            lambda port: None,
        )
        self.port.startListening()
        self._usual = underlay._senders[4]

    @property
    def relay(self) -> DERPClientProtocol:
        """The protocol that it speaks with its relay."""
        protocol = self.engine.relays._regions[900]._protocol
        assert protocol is not None
        return protocol

    def cutOff(self) -> None:
        """Send to the fakes from now on."""
        self.underlay._senders[4] = self.port.send
        self._stream = self.relay.transport
        self.relay.transport = self.pipe
        self.socket.writes.clear()
        self.pipe.written.clear()

    def restore(self) -> None:
        """Send to the simulated network again."""
        self.underlay._senders[4] = self._usual
        self.relay.transport = self._stream


class WalkTestCase(SynchronousTestCase):
    """
    Two nodes, C{a} and C{b}, with a connection and a port for datagrams.

    @cvar direct: whether there is a direct path.
    @ivar client: what is connected on C{a}; C{server} on C{b}.
    @ivar arrived: counts the datagrams on C{b}.
    """

    direct = True

    def setUp(self) -> None:
        # A short path, on which all that the window has room for leaves at once.
        self.tailnet = TestTailnet(
            nodes=["a", "b"], direct=self.direct, links=Link(delay=0.0005)
        )
        self.addCleanup(self.tailnet.close)
        self.arrived = Counting()
        self.out = self.bind("a", Counting())
        binding = self.bind("b", self.arrived)._binding
        binding._queueLimit = 1 << 20
        self.target = (self.tailnet["b"].status.addresses[0], 4000)
        self.connect("b")
        # A path is found, and what is done once is done.
        self.out.write(b"first", self.target)
        self.tailnet.elapse(5)
        self.assertEqual(self.arrived.count, 1)
        self.a, self.b = Walker(self.tailnet, "a"), Walker(self.tailnet, "b")

    def bind(self, name: str, protocol: DatagramProtocol) -> IListeningPort:
        """Have a port for datagrams on a node."""
        port = self.tailnet[name].reactor.listenUDP(4000, protocol)
        self.addCleanup(lambda: self.tailnet.wait(port.stopListening()))
        return port

    def connect(self, host: str) -> None:
        """Let C{a} connect to C{b}."""
        self.client, self.server = Recorder(), Recorder()
        port = self.tailnet["b"].reactor.listenTCP(0, factoryFor(self.server))
        self.addCleanup(lambda: self.tailnet.wait(port.stopListening()))
        endpoint = self.tailnet["a"].clientEndpoint(host, port.getHost().port)
        self.tailnet.wait(endpoint.connect(factoryFor(self.client)))
        self.addCleanup(self.tailnet.settle)
        self.addCleanup(self.client.transport.loseConnection)

    def widen(self) -> None:
        """Open the windows wide; they would close again in a pause."""
        self.client.transport.write(bytes(2_000_000))
        pump(self.tailnet.clock, lambda: not queued(self.client))

    # -- walks ---------------------------------------------------------------------

    def walk(self, write: Callable[[], object]) -> tuple[Watch, Watch, Watch]:
        """
        Let C{a} write, C{b} take what comes of it, and C{a} the answer to that.

        @return: what was called for each.
        """
        a, b = self.a, self.b
        clock = self.tailnet.clock
        # What is due now has nothing to do with it.
        clock.advance(0)
        a.cutOff()
        b.cutOff()

        def leave() -> None:
            write()
            clock.advance(0)

        try:
            out = Watch(leave)
            self.written, self.frames = [*a.socket.writes], [*a.pipe.written]
            into = self.take(a, b)
            a.socket.writes.clear()
            a.pipe.written.clear()
            return out, into, self.take(b, a)
        finally:
            a.restore()
            b.restore()

    def take(self, source: Walker, sink: Walker) -> Watch:
        """Let a node take what another has written."""
        if self.direct:
            sink.socket.waiting = [
                (data, each, source.address) for data, each, _ in source.socket.writes
            ]
            return Watch(sink.port.doRead)
        records = [
            derp.buildRecvPacket(source.key, message)
            for message in messagesIn(source.pipe.written)
        ]

        def read() -> None:
            # TLS gives them one by one.
            for record in records:
                sink.relay.dataReceived(record)
            sink.relay.readOver()

        return Watch(read)

    def packets(self) -> int:
        """How many messages the last walk had."""
        if self.direct:
            return sum(
                -(-len(data) // (each or len(data))) for data, each, _ in self.written
            )
        return len(messagesIn(self.frames))


def messagesIn(written: list[bytes]) -> list[bytes]:
    """What was written to a relay."""
    frames = derp.FrameSplitter().feed(b"".join(written))
    return [
        derp.parseSendPacket(payload)[1]
        for kind, payload in frames
        if kind == derp.FrameType.SEND_PACKET
    ]

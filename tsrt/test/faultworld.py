"""
A tailnet under attack: two nodes that talk all the time, and somebody else.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.testing.tailnet import TestTailnet

STREAM_PORT = 7


class Echo(Protocol):
    """Sends back what it gets."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Gather(Protocol):
    """Keeps what it gets, and how it ended."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


class Stream:
    """A connection that has data under way at any time."""

    def __init__(self, tailnet: TestTailnet, source: str, target: str) -> None:
        """The target echoes on L{STREAM_PORT} already."""
        self._tailnet = tailnet
        self._random = Random(5)
        self._sent = bytearray()
        endpoint = tailnet[source].clientEndpoint(target, STREAM_PORT, timeout=20)
        self.client = tailnet.wait(endpoint.connect(Factory.forProtocol(Gather)))
        self._talk = LoopingCall(self._say)
        self._talk.clock = tailnet.clock
        self._talk.start(0.25)

    def _say(self) -> None:
        data = self._random.randbytes(600)
        self._sent += data
        self.client.transport.write(data)

    @property
    def localPort(self) -> int:
        """The port of the client."""
        return self.client.transport.getHost().port

    @property
    def progress(self) -> int:
        """How much came back so far."""
        return len(self.client.received)

    def stop(self) -> None:
        """Say nothing more."""
        if self._talk.running:
            self._talk.stop()

    def finish(self, test: SynchronousTestCase, patience: float = 30.0) -> None:
        """Fail unless everything came back as it was sent, and all is open."""
        self.stop()
        self._tailnet.elapse(patience)
        test.assertIsNone(self.client.reason)
        test.assertGreater(len(self._sent), 0)
        test.assertEqual(len(self.client.received), len(self._sent))
        test.assertEqual(bytes(self.client.received), bytes(self._sent))


class FaultTestCase(SynchronousTestCase):
    """
    Watches over an innocent stream from node C{a} to node C{b}.

    When the test is over the stream must have lost nothing, and once the
    tailnet is closed nothing may be scheduled.
    """

    def makeTailnet(self, *names: str, **arguments: Any) -> TestTailnet:
        """A tailnet that is closed in the end, with C{a}, C{b} and others."""
        self.net = TestTailnet(nodes=("a", "b", *names), **arguments)
        self.addCleanup(self.net.close)
        self.serve("b")
        self.stream = Stream(self.net, "a", "b")
        self.addCleanup(self.stream.stop)
        self.net.elapse(1)
        return self.net

    def serve(self, name: str, port: int = STREAM_PORT) -> None:
        """Echo on a port of a node."""
        endpoint = self.net[name].serverEndpoint(port)
        self.successResultOf(endpoint.listen(Factory.forProtocol(Echo)))

    def connect(self, source: str, target: str, port: int = STREAM_PORT) -> Any:
        """Connect from a node; return the protocol."""
        endpoint = self.net[source].clientEndpoint(target, port, timeout=20)
        return self.net.wait(endpoint.connect(Factory.forProtocol(Gather)))

    def assertInnocent(self, patience: float = 30.0) -> None:
        """The stream, both nodes and new connections are as they should be."""
        self.stream.finish(self, patience)
        for name in ("a", "b"):
            self.assertTrue(self.net[name].status.isRunning, name)
        fresh = self.connect("a", "b")
        fresh.transport.write(b"still there?")
        self.net.elapse(5)
        self.assertEqual(bytes(fresh.received), b"still there?")
        fresh.transport.loseConnection()
        self.net.elapse(1)

    def assertDropped(self, name: str, part: str, reason: str, atLeast: int) -> None:
        """A node's metrics tell users that so much was dropped."""
        wanted = f'tsrt_dropped_total{{part="{part}",reason="{reason}"}} '
        for line in self.net[name]._engine.metrics.text().splitlines():
            if line.startswith(wanted):
                count = int(line.removeprefix(wanted))
                self.assertGreaterEqual(count, atLeast, line)
                return
        self.fail(f"no metric {wanted}")


class Insider:
    """
    A peer with its keys in the hands of an attacker.

    What it sends goes through its tunnel, so that it is authentic, but through
    no filter and no stack.
    """

    def __init__(self, tailnet: TestTailnet, name: str, victim: str) -> None:
        self._tailnet = tailnet
        self.engine = tailnet[name]._engine
        self.address = parseAddress(tailnet[name].status.addresses[0])
        self.address6 = parseAddress(tailnet[name].status.addresses[1])
        self.victim = parseAddress(tailnet[victim].status.addresses[0])
        self.victim6 = parseAddress(tailnet[victim].status.addresses[1])
        self.victimKey = next(
            peer.key.raw for peer in tailnet[name].peers() if peer.hostname == victim
        )
        self.region = self.engine.relays.home
        tailnet.wait(tailnet[name].ping(victim))
        self.heard: list[bytes] = []
        # Its own stack would answer what comes back, and so interfere.
        self.engine.packetFilter.admit = self._hear

    def _hear(self, packets: list[bytes], peer: bytes) -> list[bytes]:
        self.heard += packets
        return []

    def inject(self, packets: list[bytes], pause: float = 0.05) -> None:
        """Send packets to the victim as they are."""
        now = self._tailnet.clock.seconds()
        for at in range(0, len(packets), 25):
            batch = packets[at : at + 25]
            self.engine.datapath.sendPackets(self.victimKey, batch, now)
            self._tailnet.elapse(pause)
            now = self._tailnet.clock.seconds()

    def injectRaw(self, messages: list[bytes], pause: float = 0.05) -> None:
        """Send messages to the victim past the tunnel, over the relay."""
        for at in range(0, len(messages), 25):
            batch = messages[at : at + 25]
            self.engine.relays.send(self.region, self.victimKey, batch)
            self._tailnet.elapse(pause)


def during(
    tailnet: TestTailnet, seconds: float, every: float, act: Callable[[], object]
) -> None:
    """Do something again and again while time passes."""
    end = tailnet.clock.seconds() + seconds
    while tailnet.clock.seconds() < end:
        act()
        tailnet.elapse(every)

"""
Stacks joined by a link on a clock, as what overlay transports run on.

No keys, no relays, no netmap: only IP packets, which may be delayed, counted
and lost.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tsrt.addresses import parseAddress
from tsrt.endpoints import TailnetClientEndpoint
from tsrt.netstack.stack import Stack
from tsrt.reactor import TailnetReactor
from tsrt.testing.clock import elapse, pump, resultOf

A4, A6 = "100.64.0.1", "fd7a:115c:a1e0::1"
B4, B6 = "100.64.0.2", "fd7a:115c:a1e0::2"


class OverlayNet:
    """
    Nodes without a tailnet.

    @ivar clock: the time of everything.
    @ivar delay: seconds that a packet takes.
    @ivar lose: asked for each packet whether it is lost.
    @ivar packets: how many packets were sent.
    """

    def __init__(
        self, *, delay: float = 0.005, up: bool = True, reactor: Clock | None = None
    ) -> None:
        """
        @param up: whether the nodes are up at once.
        @param reactor: what the applications are given, if not L{clock}.
        """
        self.clock = Clock()
        self.reactor = reactor or self.clock
        self.delay = delay
        self.lose: Callable[[bytes], bool] = lambda packet: False
        self.packets = 0
        self.names: dict[str, list[bytes]] = {}
        self.contexts: list[FakeOverlay] = []
        self.a = FakeOverlay(self, "a", [A4, A6])
        self.b = FakeOverlay(self, "b", [B4, B6])
        if up:
            self.a.setUp()
            self.b.setUp()

    def carry(self, packets: list[bytes]) -> None:
        """Take packets to the nodes that have their addresses."""
        batches: dict[FakeOverlay, list[bytes]] = {}
        for packet in packets:
            self.packets += 1
            if self.lose(packet):
                continue
            target = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
            for context in self.contexts:
                if target in context.addresses:
                    batches.setdefault(context, []).append(packet)
        for context, batch in batches.items():
            self.clock.callLater(self.delay, context.receive, batch)

    def elapse(self, seconds: float) -> None:
        """Let time pass."""
        elapse(self.clock, seconds)

    def wait(self, deferred, limit: float = 60.0):
        """Let time pass until C{deferred} fires; its result."""
        return resultOf(self.clock, deferred, limit=limit)

    def until(self, predicate: Callable[[], bool], limit: float = 60.0) -> None:
        """Let time pass until something is so."""
        pump(self.clock, predicate, limit=limit)


class FakeOverlay:
    """
    Implements L{tsrt.overlay.context.OverlayContext} over an L{OverlayNet}.

    @ivar tailnet: the reactor interfaces of this node.
    """

    def __init__(self, net: OverlayNet, name: str, addresses: list[str]) -> None:
        self.reactor = net.reactor
        self._clock = net.clock
        self.stack = Stack(randbytes=Random(name).randbytes)
        self.addresses = [parseAddress(text) for text in addresses]
        self._net = net
        self._up = False
        self._waiting: list[Callable[[], object]] = []
        self._settling = False
        self._flush: IDelayedCall | None = None
        self._timer: IDelayedCall | None = None
        net.contexts.append(self)
        net.names[name] = self.addresses
        self.tailnet = TailnetReactor(self)

    def setUp(self) -> None:
        """Addresses and routes are known now."""
        self.stack.setAddresses(self.addresses)
        self._up = True
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def now(self) -> float:
        return self._clock.seconds()

    def flush(self) -> None:
        if self._flush is None and not self._settling:
            self._flush = self._clock.callLater(0, self._flushNow)

    def resolve(self, name: str) -> list[bytes]:
        return list(self._net.names.get(name, ()))

    def whenUp(self, callback: Callable[[], object]) -> Callable[[], None]:
        if self._up:
            callback()
            return lambda: None
        self._waiting.append(callback)

        def forget() -> None:
            if callback in self._waiting:
                self._waiting.remove(callback)

        return forget

    def localAddresses(self) -> list[bytes]:
        return list(self.addresses) if self._up else []

    def receive(self, packets: list[bytes]) -> None:
        """Take packets from the link."""
        self.stack.receive(packets, self.now())
        self._settle()

    def _flushNow(self) -> None:
        self._flush = None
        self._settle()

    def _settle(self) -> None:
        self._settling = True
        try:
            for _ in range(16):
                for ready in self.stack.takeReady():
                    if ready.owner is not None:
                        ready.owner.stackReady()
                packets = self.stack.drain(self.now())
                self._net.carry(packets)
                if not packets:
                    break
        finally:
            self._settling = False
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.stack.deadline()
        if due is not None:
            self._timer = self._clock.callLater(max(0.0, due - self.now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.stack.tick(self.now())
        self._settle()


class Recorder(Protocol):
    """
    Keeps what happens to it.

    @ivar data: the bytes received.
    @ivar events: other events, by name.
    @ivar lost: the exception that C{connectionLost} was given.
    """

    def __init__(self) -> None:
        self.data = b""
        self.events: list[str] = []
        self.lost: BaseException | None = None

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason=None) -> None:
        assert self.lost is None, "connectionLost came twice"
        self.events.append("lost")
        self.lost = reason.value


@implementer(IHalfCloseableProtocol)
class HalfCloser(Recorder):
    """The same, for a protocol that wants to hear of half-closed connections."""

    def readConnectionLost(self) -> None:
        self.events.append("read lost")

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")


class RecordingFactory(ClientFactory):
    """Keeps what a connector tells it."""

    noisy = False

    def __init__(self) -> None:
        self.events: list[str] = []
        self.failure: BaseException | None = None
        self.made = Recorder()

    def doStart(self) -> None:
        self.events.append("start")

    def doStop(self) -> None:
        self.events.append("stop")

    def startedConnecting(self, connector) -> None:
        self.events.append("connecting")

    def buildProtocol(self, addr):
        self.events.append("build")
        return self.made

    def clientConnectionFailed(self, connector, reason) -> None:
        self.events.append("failed")
        self.failure = reason.value

    def clientConnectionLost(self, connector, reason) -> None:
        self.events.append("lost")


class PushProducer:
    """
    Writes pieces until it is paused, or has written enough.

    @ivar written: bytes so far.
    @ivar events: the calls that it got.
    """

    def __init__(self, consumer, total: int, piece: int = 16384) -> None:
        self._consumer = consumer
        self._left = total
        self._piece = bytes(range(256)) * (piece // 256)
        self._paused = False
        self.written = 0
        self.events: list[str] = []
        self.mostQueued = 0

    def start(self) -> None:
        self._consumer.registerProducer(self, True)
        self._produce()

    def _produce(self) -> None:
        while self._left and not self._paused:
            piece = self._piece[: self._left]
            self._left -= len(piece)
            self.written += len(piece)
            self._consumer.write(piece)
        if not self._left and "done" not in self.events:
            self.events.append("done")
            self._consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        self.events.append("pause")
        self._paused = True

    def resumeProducing(self) -> None:
        self.events.append("resume")
        self._paused = False
        self._produce()

    def stopProducing(self) -> None:
        self.events.append("stop")
        self._paused = True


class PullProducer:
    """Writes one piece each time that it is asked."""

    def __init__(self, consumer, total: int, piece: int = 4096) -> None:
        self._consumer = consumer
        self._left = total
        self._piece = piece
        self.events: list[str] = []

    def resumeProducing(self) -> None:
        piece = min(self._piece, self._left)
        self._left -= piece
        self._consumer.write(b"p" * piece)
        if not self._left:
            self.events.append("done")
            self._consumer.unregisterProducer()

    def stopProducing(self) -> None:
        self.events.append("stop")


def factoryFor(*protocols: Protocol) -> Factory:
    """A factory that gives these protocols, one after the other."""
    left = list(protocols)
    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda address: left.pop(0)
    return factory


def join(net: OverlayNet, client: Protocol, server: Protocol, host: str = B4):
    """
    Connect two protocols, the client on node C{a}, the server on node C{b}.

    @return: the listening port.
    """
    port = net.b.tailnet.listenTCP(0, factoryFor(server))
    endpoint = TailnetClientEndpoint(lambda: net.a.tailnet, host, port.getHost().port)
    net.wait(endpoint.connect(factoryFor(client)))
    net.until(lambda: server.transport is not None)
    return port


def queued(protocol: Protocol) -> int:
    """Bytes that a protocol's transport has and its peer has not."""
    return protocol.transport._flow.queued


def unread(protocol: Protocol) -> int:
    """Bytes that wait for a protocol to want them."""
    return protocol.transport._flow.readable


def recordLog(case: SynchronousTestCase) -> Callable[[], list[str]]:
    """
    Record what is logged from now on.

    @return: gives the lines so far.
    """
    events = EventLoggingObserver.createWithCleanup(case, globalLogPublisher)
    return lambda: [formatEvent(event) for event in events]

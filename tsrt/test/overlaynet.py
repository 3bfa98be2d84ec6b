"""
Stacks joined by a link on a clock, as what overlay transports run on.

No keys, no relays, no netmap: only IP packets, which may be delayed, counted
and lost.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from tsrt.addresses import parseAddress
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
        return lambda: self._waiting.remove(callback)

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

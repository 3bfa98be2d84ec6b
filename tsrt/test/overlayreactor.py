"""
A reactor on simulated time whose network is the overlay.

It lets the test mix-ins that Twisted holds its own reactors to, which build
and run reactors, be run against overlay transports.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorSSL,
    IReactorTCP,
    IReactorUDP,
)
from twisted.internet.task import Clock
from zope.interface import implementer

from tsrt.overlay.transport import TailnetTCPTransport
from tsrt.test.overlaynet import B4, B6, OverlayNet
from tsrt.testing.clock import nextEvent

_MEANT = {"127.0.0.1": B4, "::1": B6}


def _ours(host: str) -> str:
    """The node that listens, where a test says "this machine"."""
    return _MEANT.get(host, host)


@implementer(IReactorTCP, IReactorUDP, IReactorSSL, IReactorFDSet)
class OverlayReactor(Clock):
    """
    Listens on one node and connects from another.

    Stack and link have a clock of their own, as a kernel has, so that the
    delayed calls are those of transports and tests.
    """

    def __init__(self) -> None:
        super().__init__()
        self._net = OverlayNet(reactor=self)
        self.nameResolver = self._net.a.tailnet.nameResolver
        self._running = False
        self._startup: list[Callable[[], object]] = []

    def callLater(self, delay, callable, *args, **kwargs):
        # Who polls as fast as it can still lets time pass.
        least = 1e-4 if delay else 0
        return super().callLater(max(delay, least), callable, *args, **kwargs)

    # -- the overlay -----------------------------------------------------------------

    def connectTCP(self, host, port, factory, timeout=30, bindAddress=None):
        return self._net.a.tailnet.connectTCP(
            _ours(host), port, factory, timeout, bindAddress
        )

    def listenTCP(self, port, factory, backlog=50, interface=""):
        return self._net.b.tailnet.listenTCP(port, factory, backlog, _ours(interface))

    def connectSSL(
        self, host, port, factory, contextFactory, timeout=30, bindAddress=None
    ):
        return self._net.a.tailnet.connectSSL(
            _ours(host), port, factory, contextFactory, timeout, bindAddress
        )

    def listenSSL(self, port, factory, contextFactory, backlog=50, interface=""):
        return self._net.b.tailnet.listenSSL(
            port, factory, contextFactory, backlog, _ours(interface)
        )

    def listenUDP(self, port, protocol, interface="", maxPacketSize=8192):
        return self._net.b.tailnet.listenUDP(
            port, protocol, _ours(interface), maxPacketSize
        )

    # -- running -----------------------------------------------------------------------

    def callWhenRunning(self, call, *args, **kwargs) -> None:
        """Call at the start of L{run}."""
        if self._running:
            call(*args, **kwargs)
        else:
            self._startup.append(lambda: call(*args, **kwargs))

    def run(self, installSignalHandlers: bool = True) -> None:
        """Go from event to event until L{stop}."""
        self._running = True
        while self._startup:
            self._startup.pop(0)()
        while self._running:
            self._step()

    def _step(self) -> None:
        clock = self._net.clock
        events = [nextEvent(self), nextEvent(clock)]
        at = min(event for event in events if event is not None)
        passed = max(0.0, at - self.seconds())
        # Both show the new time before either does anything.
        self.rightNow += passed
        clock.advance(passed)
        self.advance(0)

    def stop(self) -> None:
        """Leave L{run}."""
        self._running = False

    # -- what the mix-ins look at, or clean up -------------------------------------

    def getReaders(self) -> list[object]:
        """The transports that want data."""
        owners = [
            flow.owner
            for context in self._net.contexts
            for flow in context.stack.flows()
        ]
        return [
            owner
            for owner in owners
            if isinstance(owner, TailnetTCPTransport)
            and not (owner._readPaused or owner.disconnecting)
        ]

    def getWriters(self) -> list[object]:
        """Nothing: what was written waits in the stack."""
        return []

    def removeAll(self) -> list[object]:
        """Nothing is left after a run, as the connections have ended."""
        return self.getReaders()

    def disconnectAll(self) -> None:
        """Stop the clock of the stack."""
        for call in list(self._net.clock.getDelayedCalls()):
            call.cancel()

    def _uninstallHandler(self) -> None:
        """No signal is handled."""

    def addReader(self, reader: object) -> None:
        raise AssertionError("there are no file descriptors")

    addWriter = removeReader = removeWriter = addReader

"""The node as its overlay transports see it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tsrt.netstack.stack import Stack
from tsrt.overlay.fallback import FallbackHandlers, FallbackListener

_log = Logger(namespace="tsrt.overlay")

LONGEST_STEP = 150.0
"""
Seconds that may lie between two looks at the clock of a running node.

It looks at least once a minute; more means that the clock was set, or that the
machine slept.
"""


class NodeOverlay:
    """
    Implements L{tsrt.overlay.context.OverlayContext}.

    It outlives starts and stops of its node, so that the tailnet reactor and
    ports made before a start go on to be valid: the stack is the node's for
    its whole life, only what feeds it comes and goes.
    """

    def __init__(self, reactor: IReactorTime, stack: Stack) -> None:
        self.reactor = reactor
        self.stack = stack
        self._flush: Callable[[], None] | None = None
        self._resolve: Callable[[str], list[bytes]] | None = None
        self._addresses: list[bytes] = []
        self._isUp = False
        self._waiting: list[Callable[[], object]] = []
        self._latest = reactor.seconds()
        self._lag = 0.0

    def now(self) -> float:
        """
        The reactor's time, without the steps that a clock makes when it is set.

        Most reactors tell the time of day.  Set back, it must not keep
        retransmission timers and keys waiting; set forward, it must not look
        as if nobody had answered for days.
        """
        seconds = self.reactor.seconds() + self._lag
        step = seconds - self._latest
        if step < 0 or (step > LONGEST_STEP and self._flush is not None):
            self._lag -= step
            return self._latest
        self._latest = seconds
        return seconds

    def flush(self) -> None:
        """Ask the data path to send what waits, if there is one."""
        if self._flush is not None:
            self._flush()

    def resolve(self, name: str) -> list[bytes]:
        """The packed addresses of a tailnet name."""
        return [] if self._resolve is None else self._resolve(name)

    def localAddresses(self) -> list[bytes]:
        """This node's packed addresses, IPv4 first."""
        return list(self._addresses)

    def whenUp(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call C{callback} once addresses and routes are known."""
        if self._isUp:
            callback()
            return lambda: None
        self._waiting.append(callback)

        def forget() -> None:
            if callback in self._waiting:
                self._waiting.remove(callback)

        return forget

    def useFallback(self, handlers: FallbackHandlers) -> None:
        """Offer to handlers, while there are any, what nobody listens for."""
        listener = FallbackListener(self, handlers)

        def changed(hasAny: bool) -> None:
            # Without handlers the stack refuses by itself (R-FB-1).
            self.stack.fallback = listener.asked if hasAny else None

        handlers.watch(changed)

    # -- for the runtime -------------------------------------------------------------

    def attach(
        self, flush: Callable[[], None], resolve: Callable[[str], list[bytes]]
    ) -> None:
        """A data path feeds the stack now, and looks at the clock."""
        self.now()
        self._flush = flush
        self._resolve = resolve

    def detach(self) -> None:
        """The data path is gone; connections wait for the next one."""
        self._flush = None
        self._resolve = None
        self._isUp = False

    def setAddresses(self, addresses: list[bytes]) -> None:
        """The netmap gave the node these addresses."""
        if addresses != self._addresses:
            self._addresses = list(addresses)
            self.stack.setAddresses(addresses)

    def setUp(self) -> None:
        """Addresses and routes are known: let those who waited go on."""
        self._isUp = True
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            try:
                callback()
            except Exception:
                _log.failure("A callback that waited for the node failed")

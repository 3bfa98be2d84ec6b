"""
Noticing that this machine is on another network, or was asleep.

Sockets say nothing of either: connections just stay silent until their
time-outs have run out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable

from twisted.application.service import Service
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorCore,
    IReactorFDSet,
    IReactorTime,
)
from twisted.logger import Logger
from zope.interface import implementer

from tsrt.interfaces import ILinkMonitor
from tsrt.path.local import InterfaceAddress
from tsrt.underlay.linkstate import DefaultRoute, LinkChange, LinkState, compare
from tsrt.underlay.netlink import NetlinkWatcher, kernelRoutes, preferredSources

__all__ = [
    "INTERVAL",
    "LONGEST_WAIT",
    "QUIET",
    "SLEPT",
    "LinkChange",
    "LinkMonitor",
    "LinkState",
    "linkMonitor",
    "sleeplessClock",
]

_log = Logger(namespace="tsrt.underlay")

INTERVAL = 3.0
"""Seconds between two looks at the machine's addresses."""

SLEPT = 10.0
"""Seconds by which a look must be late to mean that the machine was asleep."""

QUIET = 0.25
"""Seconds without further news after which one looks what they amount to."""

LONGEST_WAIT = 1.0
"""Seconds after which one looks although the news do not end."""

AddressSource = Callable[[], Iterable[InterfaceAddress]]
RouteSource = Callable[[], Iterable[DefaultRoute]]
Watch = Callable[[Callable[[], object]], NetlinkWatcher]
"""Makes what listens to the system; it gets what to call when there are news."""


@implementer(ILinkMonitor)
class LinkMonitor(Service):
    """
    Looks at the addresses and routes of this machine, and at the clock: every
    few seconds, and shortly after the system has told that there are news.

    The regular look does not depend on the system's telling, which may be
    forbidden or incomplete; and only it notices that time has passed.

    @ivar state: how the machine is connected, as of the last look.
    """

    name = "linkmonitor"

    def __init__(
        self,
        reactor: IReactorTime,
        interfaces: AddressSource,
        onChange: Callable[[LinkChange], object],
        *,
        interval: float = INTERVAL,
        routes: RouteSource | None = None,
        clock: Callable[[], float] | None = None,
        watch: Watch | None = None,
    ) -> None:
        """
        @param interfaces: tells the addresses of this machine.
        @param onChange: told of each change.
        @param interval: seconds between two looks.
        @param routes: tells the ways to the internet; C{None} if not known.
        @param clock: seconds that go on while the machine is asleep; C{None} if
            there is only the reactor's.
        @param watch: see L{Watch}; C{None} if the system tells nothing.
        """
        self.state = LinkState()
        self._reactor = reactor
        self._interfaces = interfaces
        self._onChange = onChange
        self._interval = interval
        self._routes = routes
        self._clock = clock
        self._watcher = None if watch is None else watch(self._news)
        self._looked: tuple[float, float] = (0.0, 0.0)
        self._next: IDelayedCall | None = None
        self._newsSince: float | None = None

    # -- the service -------------------------------------------------------------

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        if self._watcher is not None:
            self._watcher.start()
        self.state = self._read()
        self._schedule()

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._watcher is not None:
            self._watcher.stop()
        self._cancel()
        self._newsSince = None

    def _cancel(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None

    # -- when to look --------------------------------------------------------------

    def _times(self) -> tuple[float, float]:
        now = self._reactor.seconds()
        return now, now if self._clock is None else self._clock()

    def _schedule(self) -> None:
        self._cancel()
        self._looked = self._times()
        self._next = self._reactor.callLater(self._interval, self.look)

    def _news(self) -> None:
        """The system says that something has changed; there may be more."""
        if not self.running:
            return
        now = self._reactor.seconds()
        if self._newsSince is None or now < self._newsSince:
            self._newsSince = now
        wait = min(QUIET, max(self._newsSince + LONGEST_WAIT - now, 0.0))
        self._cancel()
        self._next = self._reactor.callLater(wait, self.look)

    # -- looking -----------------------------------------------------------------

    def look(self) -> None:
        """Look now; tell of what changed since the last look."""
        if not self.running:
            return
        self._newsSince = None
        events = self._slept()
        self._schedule()
        former, self.state = self.state, self._read()
        change = compare(former, self.state, events)
        if change is None:
            return
        try:
            self._onChange(change)
        except Exception:
            _log.failure("a change of the network could not be handled")

    def _slept(self) -> list[str]:
        """
        Whether this machine, or this program, stood still since the last look.

        The reactor's clock is the wall clock on most systems: it shows a sleep
        of any kind, also that of a virtual machine whose other clocks were
        stopped with it, but may be set at will.  Starting over because it was
        set ahead does little harm; to miss a sleep would.
        """
        wall, other = (
            now - then - self._interval
            for now, then in zip(self._times(), self._looked, strict=True)
        )
        late = max(wall, other)
        if late <= SLEPT:
            return []
        if self._clock is not None and other <= SLEPT:
            return [f"the clock of this machine was set ahead by {late:.0f} s"]
        return [f"this machine was asleep for {late:.0f} s"]

    def _read(self) -> LinkState:
        routes: Iterable[DefaultRoute] = ()
        if self._routes is not None:
            try:
                routes = tuple(self._routes())
            except OSError as error:
                # What is not known has not changed.
                _log.debug("the routes are not told: {e}", e=error)
                routes = self.state.routes
        return LinkState.of(self._interfaces(), routes)


def sleeplessClock() -> float:
    """
    Seconds since some moment that go on while the machine is asleep, as far as
    the system has such a clock, and that nobody can set.
    """
    for name in _SLEEPLESS:
        number = getattr(time, name, None)
        if number is not None:
            return time.clock_gettime(number)
    return time.monotonic()


# Linux stops CLOCK_MONOTONIC while it sleeps; macOS stops only what Python uses
# there. Windows has neither and stops nothing.
_SLEEPLESS = ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC")


def linkMonitor(
    reactor: IReactorTime,
    interfaces: AddressSource,
    onChange: Callable[[LinkChange], object],
    *,
    platform: str = sys.platform,
) -> LinkMonitor:
    """
    The best monitor for the machine that a reactor stands for.

    On a simulated host, whose reactor runs nothing, that is one which only
    looks at the addresses; on Linux it also listens to the kernel.
    """
    if not IReactorCore.providedBy(reactor):
        return LinkMonitor(reactor, interfaces, onChange)
    isLinux = platform.startswith("linux")
    watch: Watch | None = None
    if isLinux and IReactorFDSet.providedBy(reactor):
        fdReactor = IReactorFDSet(reactor)
        watch = lambda news: NetlinkWatcher(fdReactor, news)  # noqa: E731
    return LinkMonitor(
        reactor,
        interfaces,
        onChange,
        routes=kernelRoutes if isLinux else preferredSources,
        clock=sleeplessClock,
        watch=watch,
    )

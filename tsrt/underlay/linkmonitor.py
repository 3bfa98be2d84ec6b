"""
Noticing that this machine is on another network, or was asleep.

Sockets say nothing of either: connections just stay silent until their
time-outs have run out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tsrt.addresses import formatAddress
from tsrt.path.local import InterfaceAddress, isLinkLocal, usableAddresses

_log = Logger(namespace="tsrt.underlay")

INTERVAL = 3.0
"""Seconds between two looks at the machine's addresses."""

SLEPT = 10.0
"""Seconds by which a look must be late to mean that the machine was asleep."""


@frozen
class LinkChange:
    """
    Something that happened to this machine's network.

    @ivar what: it, in words.
    @ivar isMajor: whether connections made before may be of no use any more.
    @ivar addresses: the addresses that the machine has now, as text.
    """

    what: str
    isMajor: bool
    addresses: frozenset[str]

    @property
    def isOffline(self) -> bool:
        """Whether there is no network at all at the moment."""
        return not self.addresses


class LinkMonitor(Service):
    """
    Looks at the addresses of this machine, and at the clock, every few seconds.
    """

    name = "linkmonitor"

    def __init__(
        self,
        reactor: IReactorTime,
        interfaces: Callable[[], Iterable[InterfaceAddress]],
        onChange: Callable[[LinkChange], object],
        *,
        interval: float = INTERVAL,
    ) -> None:
        """
        @param interfaces: tells the addresses of this machine.
        @param onChange: told of each change.
        @param interval: seconds between two looks.
        """
        self._reactor = reactor
        self._interfaces = interfaces
        self._onChange = onChange
        self._interval = interval
        self._addresses: frozenset[str] = frozenset()
        self._looked = 0.0
        self._next: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._addresses = self._read()
        self._schedule()

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None

    def _schedule(self) -> None:
        self._looked = self._reactor.seconds()
        self._next = self._reactor.callLater(self._interval, self._periodic)

    def _periodic(self) -> None:
        late = self._reactor.seconds() - self._looked - self._interval
        self._schedule()
        self.look(late if late > SLEPT else 0.0)

    def look(self, slept: float = 0.0) -> None:
        """
        Look now; tell of what changed since the last look.

        @param slept: seconds for which the machine was asleep.
        """
        former, self._addresses = self._addresses, self._read()
        lost = former - self._addresses
        found = self._addresses - former
        if not (lost or found or slept):
            return
        parts = []
        if slept:
            parts.append(f"this machine was asleep for {slept:.0f} s")
        if lost:
            parts.append(f"lost {_list(lost)}")
        if found:
            parts.append(f"got {_list(found)}")
        change = LinkChange(
            " and ".join(parts),
            bool(lost or slept or not former),
            self._addresses,
        )
        try:
            self._onChange(change)
        except Exception:
            _log.failure("a change of the network could not be handled")

    def _read(self) -> frozenset[str]:
        """The addresses by which anybody else can be reached."""
        addresses = [a for a in self._interfaces() if not isLinkLocal(a.address)]
        usable, _ = usableAddresses(addresses)
        return frozenset(map(formatAddress, usable))


def _list(addresses: Iterable[str]) -> str:
    return ", ".join(sorted(addresses))

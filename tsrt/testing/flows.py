"""
One direction of a stream of the simulated internet.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IDelayedCall

from tsrt.testing.links import Link
from tsrt.testing.nat import Endpoint

if TYPE_CHECKING:
    from tsrt.testing.hosts import HostReactor

_FIRST_RETRY = 0.5
_LONGEST_RETRY = 8.0
_EPSILON = 1e-9


class Kind(enum.Enum):
    """What a flow carries."""

    SYN = "syn"
    SYNACK = "synack"
    ACK = "ack"
    DATA = "data"
    FIN = "fin"
    RST = "rst"


class Sink(Protocol):
    """Takes what arrives at the far end of a L{Flow}."""

    def __call__(self, kind: Kind, data: bytes, host: HostReactor) -> None:
        """
        @param host: the host at which it arrived.
        """


class Flow:
    """
    One direction of a stream: reliable, in order, and late.

    A flow takes the time of its path, and holds what it carries back while the
    path is cut, as the retransmission of TCP does.

    @ivar seenSource: the source that the far end sees; a NAT may change it.
    @ivar reached: the destination as the far end knows itself.
    """

    def __init__(
        self,
        host: HostReactor,
        source: Endpoint,
        destination: Endpoint,
        sink: Sink,
        failed: Callable[[], None],
    ) -> None:
        """
        @param host: the sending host.
        @param source: its address and port.
        @param destination: the address and port that things are sent to.
        @param sink: called with what arrives.
        @param failed: called when the path stayed cut for too long.
        """
        self._internet = host.internet
        self._host = host
        self._source = source
        self._destination = destination
        self.seenSource = source
        self.reached = destination
        self.sink = sink
        self._failed = failed
        self._waiting: deque[tuple[Kind, bytes]] = deque()
        self._air: deque[tuple[float, Kind, bytes, int]] = deque()
        self._latest = 0.0
        self._event: IDelayedCall | None = None
        self._retry: IDelayedCall | None = None
        self._retryAfter = _FIRST_RETRY
        self._stalledSince: float | None = None
        self._dead = False

    def send(self, kind: Kind, data: bytes = b"") -> None:
        """Send something after all that was sent before."""
        if self._dead:
            return
        self._waiting.append((kind, data))
        if self._retry is None:
            self._launch()

    def reset(self) -> None:
        """Forget all that is still to be sent, and say RST."""
        self._waiting.clear()
        self._air.clear()
        self.send(Kind.RST)

    def stop(self) -> None:
        """Carry nothing any more."""
        self._dead = True
        self._waiting.clear()
        self._air.clear()
        for call in (self._event, self._retry):
            if call is not None and call.active():
                call.cancel()
        self._event = self._retry = None

    def _path(self, kind: Kind) -> tuple[HostReactor, Link] | None:
        """Where something comes out now, and what it suffers."""
        internet = self._internet
        source, destination = self._source, self._destination
        path = internet.path(self._host, source[0], destination[0])
        if path is not None or not internet.isRouted:
            return path
        route = internet.forwarding.route(
            self._host, source, destination, kind is Kind.SYN
        )
        if route is None:
            return None
        self.seenSource, self.reached = route.source, route.destination
        return route.host, route.link

    def _launch(self) -> None:
        now = self._internet.clock.seconds()
        while self._waiting:
            path = self._path(self._waiting[0][0])
            if path is None:
                if self._waiting[0][0] is Kind.RST:
                    # Nobody repeats it; who says something is told again.
                    self._waiting.clear()
                else:
                    self._stall()
                return
            self._stalledSince = None
            self._retryAfter = _FIRST_RETRY
            link = path[1]
            kind, data = self._waiting.popleft()
            delay = link.streamDelay(self._internet.random.random)
            self._latest = max(self._latest, now + delay)
            self._air.append((self._latest, kind, data, link.chunk))
        self._schedule(now)

    def _schedule(self, now: float) -> None:
        if self._air and self._event is None:
            self._event = self._internet.clock.callLater(
                max(0.0, self._air[0][0] - now), self._arrive
            )

    def _stall(self) -> None:
        if self._host.isAsleep:
            self._retry = self._host.soon(self._again)
            return
        # The timers of TCP stand still while the host sleeps.
        now = self._host.monotonic()
        if self._stalledSince is None:
            self._stalledSince = now
        elif now - self._stalledSince >= self._internet.giveUp:
            self.stop()
            self._failed()
            return
        self._retry = self._internet.clock.callLater(self._retryAfter, self._again)
        self._retryAfter = min(_LONGEST_RETRY, self._retryAfter * 2)

    def _again(self) -> None:
        self._retry = None
        self._launch()

    def _arrive(self) -> None:
        self._event = None
        now = self._internet.clock.seconds()
        path = self._path(self._air[0][1])
        if path is None:
            # Lost on the way: all of it is sent again, but for a RST.
            self._waiting.extendleft(
                (kind, data)
                for _, kind, data, _ in reversed(self._air)
                if kind is not Kind.RST
            )
            self._air.clear()
            if self._retry is None and self._waiting:
                self._stall()
            return
        due: list[tuple[Kind, bytes]] = []
        chunk = 65536
        while self._air and self._air[0][0] <= now + _EPSILON:
            _, kind, data, chunk = self._air.popleft()
            if kind is Kind.DATA and due and due[-1][0] is Kind.DATA:
                due[-1] = (kind, due[-1][1] + data)
            else:
                due.append((kind, data))
        self._schedule(now)
        for kind, data in due:
            for start in range(0, max(1, len(data)), chunk):
                if self._dead:
                    return
                self.sink(kind, data[start : start + chunk], path[0])

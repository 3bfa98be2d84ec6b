"""
Noticing that our node key has expired, or is about to.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tsrt.tailcfg import MapResponse, WireNode, present

CLOCK_TOLERANCE = 60.0
"""Seconds by which our clock may differ from the server's without effect."""

LONGEST_WAIT = 86400.0
"""
Seconds after which we look again in any case: the clocks may have been set.
"""


class ExpiryWatch:
    """Looks at what maps say about this node."""

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        wallTime: Callable[[], float],
        expired: Callable[[], None],
        good: Callable[[], None],
    ) -> None:
        """
        @param reactor: the clock.
        @param wallTime: tells the time in seconds since 1970.
        @param expired: told that the key of the node has expired.
        @param good: told that the node is authorized and its key good.
        """
        self._reactor = reactor
        self._wallTime = wallTime
        self._expired = expired
        self._good = good
        self._clockDelta = 0.0
        self._timer: IDelayedCall | None = None

    def noteTime(self, response: MapResponse) -> None:
        """Take the server's time from a response, if it tells any."""
        when = present(response.controlTime)
        if when is not None:
            delta = when.timestamp() - self._wallTime()
            self._clockDelta = delta if abs(delta) > CLOCK_TOLERANCE else 0.0

    def look(self, node: WireNode) -> None:
        """Look at this node in a map, now and when its key expires."""
        self.stop()
        expiry = present(node.keyExpiry)
        if expiry is not None:
            left = expiry.timestamp() - (self._wallTime() + self._clockDelta)
            if left <= 0:
                self._expired()
                return
            self._timer = self._reactor.callLater(
                min(left, LONGEST_WAIT), self.look, node
            )
        if node.machineAuthorized:
            self._good()

    def stop(self) -> None:
        """Forget the node."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

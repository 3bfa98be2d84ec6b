"""
Keep-alive: whether the peer of a silent flow is still there.

Reference: RFC 9293 section 3.8.4.
"""

from __future__ import annotations

PROBE = 1
"""What L{KeepAlive.check} says when a probe has to go out."""

DEAD = 2
"""What L{KeepAlive.check} says when too many probes went unanswered."""


class KeepAlive:
    """
    The keep-alive timer of one flow; off until L{configure} turns it on.

    @ivar heard: when the peer was heard last, in seconds.
    """

    __slots__ = ("_count", "_idle", "_interval", "_probed", "_probes", "heard")

    def __init__(self, now: float) -> None:
        self.heard = now
        self._idle: float | None = None
        self._interval = 0.0
        self._count = 0
        self._probes = 0
        self._probed = now

    def configure(
        self, idle: float | None, interval: float, count: int, now: float
    ) -> None:
        """
        Turn keep-alive on or off.

        @param idle: seconds of silence before the first probe; L{None} turns
            it off.
        @param interval: seconds between probes.
        @param count: unanswered probes after which the peer counts as dead.
        """
        self._idle = idle
        self._interval = interval
        self._count = count
        self._probes = 0
        self.heard = now

    def deadline(self) -> float | None:
        """When L{check} has something to do; L{None} for never."""
        if self._idle is None:
            return None
        if self._probes and self.heard < self._probed:
            return self._probed + self._interval
        return self.heard + self._idle

    def check(self, now: float, busy: bool) -> int:
        """
        Do what is due.

        @param busy: whether data is in flight, so that retransmission finds
            out by itself.
        @return: L{PROBE}, L{DEAD}, or 0 when nothing is due.
        """
        at = self.deadline()
        if at is None or now < at:
            return 0
        if busy:
            self._probes = 0
            self.heard = now
            return 0
        if self.heard >= self._probed:
            self._probes = 0
        if self._probes >= self._count:
            return DEAD
        self._probes += 1
        self._probed = now
        return PROBE

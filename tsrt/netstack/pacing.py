"""
Pacing: on a long path data leaves evenly, in place of all at once.

What a window lets go is mostly let go in bursts: after a pause, where acknowledgements
come in bunches, and while the window doubles.  On a short path a burst costs nothing, and
makes long runs.  On a long one it overflows queues that are far from full on average,
such as the 32 packets of a relay, and the losses keep the window far below what the path
takes.

It costs a timer for each millisecond of a stream, and so is done where round trips take
long enough for that to matter.

Reference: RFC 9002 section 7.7, which has the same for QUIC.
"""

from __future__ import annotations

LONG = 0.004
"""Round-trip time in seconds from which a path is a long one."""

QUANTUM = 0.001
"""Seconds whose data leaves at once: a reactor's timers are hardly finer."""

_LATENESS = 0.003
"""Seconds by which a timer may be late without anything being lost by it."""

_LEAST = 2
"""Full segments that leave at once in any case: they are acknowledged together."""

_BURST = 10
"""Full segments that leave at once after a pause, as at the beginning (RFC 6928)."""

_ROUNDING = 0.01
"""Of a segment: the time of day has few digits left for fractions of a second."""

_STARTING, _STEADY = 2.0, 1.25
"""Windows for each round trip, in slow start and after it; with less the window would
never be used up, and not grow."""


class Pacer:
    """
    A bucket that the data of a flow leaves from, filled at the rate of its window.

    @ivar at: when enough will be in it; L{None} while nothing waits for that.
    """

    __slots__ = ("_each", "_since", "at")

    def __init__(self) -> None:
        self.at: float | None = None
        # When the bucket would have been empty, if nothing flowed over.
        self._since = 0.0
        # Seconds for a full segment, when last something was let go.
        self._each = 0.0

    def segments(
        self, now: float, wanted: int, window: float, trip: float, isStarting: bool
    ) -> int:
        """
        How many segments may leave now; if none may, L{at} says when.

        @param wanted: how many there are to send.
        @param window: the congestion window, in segments.
        @param trip: the round-trip time in seconds.
        @param isStarting: whether the flow is in slow start.
        """
        self._each = each = trip / (window * (_STARTING if isStarting else _STEADY))
        quantum = max(_LEAST, int(QUANTUM / each))
        least = min(quantum, wanted, max(1, int(window)))
        most = max(_BURST, quantum + int(_LATENESS / each))
        # A clock that was set back has nobody wait.
        self._since = since = min(max(self._since, now - most * each), now)
        at = since + least * each
        if now < at:
            self.at = at
            return 0
        self.at = None
        return max(least, int((now - since) / each + _ROUNDING))

    def sent(self, segments: float) -> None:
        """So much has left, counted in full segments."""
        self._since += segments * self._each

    def tick(self, now: float) -> None:
        """What waited may ask again."""
        if self.at is not None and now >= self.at:
            self.at = None

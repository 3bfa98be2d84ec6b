"""
The scoreboard: which sent bytes the peer holds out of order.

Kept as ranges, never per segment.  From the ranges follow what counts as lost,
how much is in flight, and what to send again next.

Reference: RFC 2018 section 5, RFC 6675 sections 3 and 4, RFC 2883.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

DUPLICATE_THRESHOLD = 3
"""Duplicate acknowledgements, or ranges above a gap, that mean a loss."""

MAX_RANGES = 512
"""Ranges that are remembered; blocks that would make more are ignored."""


class Scoreboard:
    """
    The selectively acknowledged ranges above the cumulative acknowledgement.

    @ivar total: bytes in all ranges.
    """

    __slots__ = ("_ends", "_starts", "total")

    def __init__(self) -> None:
        # Sorted, disjoint, not touching.
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0

    def __bool__(self) -> bool:
        return bool(self._starts)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The ranges, lowest first."""
        return list(zip(self._starts, self._ends, strict=True))

    @property
    def highest(self) -> int:
        """Position just past the highest range; there must be one."""
        return self._ends[-1]

    def clear(self) -> None:
        """Forget everything, as when the peer may have dropped what it held."""
        self._starts = []
        self._ends = []
        self.total = 0

    def add(self, start: int, end: int) -> int:
        """
        Note that the peer holds what lies between C{start} and C{end}.

        The caller has checked that it lies within what is in flight.

        @return: how many of these bytes are news.
        """
        starts = self._starts
        ends = self._ends
        first = bisect_left(ends, start)
        last = bisect_right(starts, end)
        if first == last:
            if len(starts) >= MAX_RANGES:
                return 0
            starts.insert(first, start)
            ends.insert(first, end)
            self.total += end - start
            return end - start
        held = sum(ends[first:last]) - sum(starts[first:last])
        low = min(start, starts[first])
        high = max(end, ends[last - 1])
        starts[first:last] = [low]
        ends[first:last] = [high]
        gained = high - low - held
        self.total += gained
        return gained

    def advance(self, position: int) -> None:
        """Forget what lies before C{position}: it was acknowledged for good."""
        starts = self._starts
        ends = self._ends
        passed = bisect_right(ends, position)
        if passed:
            self.total -= sum(ends[:passed]) - sum(starts[:passed])
            del starts[:passed]
            del ends[:passed]
        if starts and starts[0] < position:
            self.total -= position - starts[0]
            starts[0] = position

    def within(self, start: int, end: int) -> int:
        """How many bytes between two positions the peer holds."""
        if not self._starts or start >= end:
            return 0
        starts = self._starts
        ends = self._ends
        first = bisect_right(ends, start)
        last = bisect_left(starts, end)
        if first >= last:
            return 0
        held = sum(ends[first:last]) - sum(starts[first:last])
        return held - max(0, start - starts[first]) - max(0, ends[last - 1] - end)

    def below(self, start: int, end: int, size: int) -> int:
        """
        Where the range starts with which, going down from C{end}, the peer holds more
        than C{size} bytes.

        @param start: where to stop; it holds more than C{size} above that.
        """
        starts = self._starts
        ends = self._ends
        at = bisect_left(starts, end)
        while True:
            at -= 1
            low = max(starts[at], start)
            size -= min(ends[at], end) - low
            if size < 0:
                return low

    def gap(self, start: int, end: int) -> tuple[int, int] | None:
        """
        The first piece between two positions that the peer does not hold.
        """
        starts = self._starts
        at = bisect_right(self._ends, start)
        if at < len(starts) and starts[at] <= start:
            start = self._ends[at]
            at += 1
        if start >= end:
            return None
        if at < len(starts) and starts[at] < end:
            end = starts[at]
        return start, end

    def lossEdge(self, mss: int) -> int | None:
        """
        The position below which all that the peer does not hold is lost.

        That is so when three ranges, or more than two full segments, lie above
        (C{IsLost} of RFC 6675).  L{None} when nothing is lost.
        """
        starts = self._starts
        ends = self._ends
        enough = (DUPLICATE_THRESHOLD - 1) * mss
        above = 0
        for at in range(len(starts) - 1, -1, -1):
            above += ends[at] - starts[at]
            if above > enough or len(starts) - at >= DUPLICATE_THRESHOLD:
                return starts[at]
        return None

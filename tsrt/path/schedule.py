"""Which path is looked at when."""

from __future__ import annotations

import heapq
from math import inf

from tsrt.path.peerpath import PeerPath


class PathSchedule:
    """
    The next look at each path.

    A path keeps the time of its next look in C{scheduledAt}; entries with another
    one were overtaken by an earlier one, and count for nothing.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, PeerPath]] = []
        self._pushed = 0

    def note(self, path: PeerPath) -> None:
        """The deadline of a path may have come nearer."""
        at = path.deadline()
        if at < path.scheduledAt:
            path.scheduledAt = at
            self._pushed += 1
            heapq.heappush(self._heap, (at, self._pushed, path))

    def deadline(self) -> float:
        """When the next one is due; infinity for never."""
        heap = self._heap
        while heap and heap[0][0] != heap[0][2].scheduledAt:
            heapq.heappop(heap)
        return heap[0][0] if heap else inf

    def next(self, now: float) -> PeerPath | None:
        """Take a path that is due, if one is; it is to be noted again."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, path = heapq.heappop(heap)
            if at == path.scheduledAt:
                path.scheduledAt = inf
                return path
        return None

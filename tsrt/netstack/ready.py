"""
Who has news for the application, and who has to be woken when.

Both are indexes into a large number of objects, so that a turn costs what
happens in it and not what exists.
"""

from __future__ import annotations

import heapq
from typing import Generic, Protocol, TypeVar


class HasDeadline(Protocol):
    """Something that wants to be woken at a time of its own."""

    def deadline(self) -> float | None:
        """When; L{None} for never."""


Item = TypeVar("Item")
Sleeper = TypeVar("Sleeper", bound=HasDeadline)


class ReadyList(Generic[Item]):
    """Objects marked since the last look, each once, in order of marking."""

    __slots__ = ("_marked",)

    def __init__(self) -> None:
        self._marked: dict[Item, None] = {}

    def __len__(self) -> int:
        return len(self._marked)

    def mark(self, item: Item) -> None:
        """Put C{item} on the list, if it is not there yet."""
        self._marked[item] = None

    def discard(self, item: Item) -> None:
        """Take C{item} off the list, if it is there."""
        self._marked.pop(item, None)

    def take(self) -> list[Item]:
        """Empty the list and return what was on it."""
        if not self._marked:
            return []
        taken = list(self._marked)
        self._marked.clear()
        return taken


class DeadlineHeap(Generic[Sleeper]):
    """
    The earliest deadline of many objects.

    Deadlines mostly move later, with each segment that arrives.  That costs
    nothing here: an object that comes up too early is looked at and put back.
    """

    __slots__ = ("_heap", "_scheduled", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Sleeper]] = []
        self._scheduled: dict[Sleeper, float] = {}
        self._serial = 0

    def __len__(self) -> int:
        """How many objects are to be woken."""
        return len(self._scheduled)

    def note(self, item: Sleeper) -> None:
        """The deadline of C{item} may have changed."""
        due = item.deadline()
        if due is not None:
            known = self._scheduled.get(item)
            if known is None or due < known:
                self._push(due, item)

    def forget(self, item: Sleeper) -> None:
        """C{item} is not to be woken any more."""
        self._scheduled.pop(item, None)

    def _push(self, due: float, item: Sleeper) -> None:
        self._scheduled[item] = due
        self._serial += 1
        heapq.heappush(self._heap, (due, self._serial, item))
        if len(self._heap) > 4 * len(self._scheduled) + 64:
            # Mostly entries that were overtaken by earlier ones.
            self._heap = [
                (when, serial, item)
                for serial, (item, when) in enumerate(self._scheduled.items())
            ]
            heapq.heapify(self._heap)
            self._serial = len(self._heap)

    def due(self, now: float) -> list[Sleeper]:
        """
        Take the objects whose deadline has come.

        They are forgotten until they are noted again.
        """
        taken = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            when, _, item = heapq.heappop(heap)
            if self._scheduled.get(item) != when:
                continue
            del self._scheduled[item]
            actual = item.deadline()
            if actual is None:
                continue
            if actual <= now:
                taken.append(item)
            else:
                self._push(actual, item)
                heap = self._heap
        return taken

    def deadline(self) -> float | None:
        """
        When to look at L{due}; L{None} for never.

        It may be too early, since deadlines that moved later are not looked at.
        """
        heap = self._heap
        while heap:
            when, _, item = heap[0]
            if self._scheduled.get(item) == when:
                return when
            heapq.heappop(heap)
        return None

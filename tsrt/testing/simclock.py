"""
A clock for long simulations of many timers.

L{twisted.internet.task.Clock} sorts all its calls whenever one is made or run,
which is a matter of milliseconds when thousands are waiting.  This one keeps a
heap.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

_FEW = 64


class _Call(DelayedCall):
    """A call that knows which entry of the heap stands for it."""

    order = 0


class SimulationClock(Clock):
    """
    A L{Clock} whose cost hardly grows with the number of calls that wait.

    Calls that are due at the same time run in the order in which they were
    scheduled for it.
    """

    def __init__(self) -> None:
        """Begin at zero; set C{rightNow} to begin at another time."""
        super().__init__()
        self._heap: list[tuple[float, int, _Call]] = []
        self._count = 0
        self._active = 0

    # The heap's entries are not changed.  A call that is cancelled leaves a dead
    # one behind, a call that is moved to an earlier time as well; one that is
    # moved to a later time is found too early, and put back.

    def _push(self, call: DelayedCall) -> None:
        assert isinstance(call, _Call)
        self._count = call.order = self._count + 1
        heapq.heappush(self._heap, (call.time, call.order, call))

    def _cancelled(self, call: DelayedCall) -> None:
        assert isinstance(call, _Call)
        self._active -= 1
        call.order = 0
        if len(self._heap) > _FEW + 2 * self._active:
            self._heap = [entry for entry in self._heap if entry[2].order == entry[1]]
            heapq.heapify(self._heap)

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """See L{twisted.internet.interfaces.IReactorTime}."""
        call = _Call(
            self.rightNow + delay,
            callable,
            args,
            kw,
            self._cancelled,
            self._push,
            self.seconds,
        )
        self._active += 1
        self._push(call)
        return call

    def _due(self) -> _Call | None:
        """The first call, with its entry at the top of the heap."""
        heap = self._heap
        while heap:
            _, order, call = heap[0]
            if call.order != order:
                heapq.heappop(heap)
            elif call.delayed_time:
                heapq.heappop(heap)
                call.activate_delay()
                self._push(call)
            else:
                return call
        return None

    def nextTime(self) -> float | None:
        """When the next call is due; C{None} when none is scheduled."""
        call = self._due()
        return None if call is None else call.time

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """See L{twisted.internet.interfaces.IReactorTime}; the earliest first."""
        calls = [entry for entry in self._heap if entry[2].order == entry[1]]
        return [c for _, _, c in sorted(calls, key=lambda e: (e[2].getTime(), e[1]))]

    def advance(self, amount: float) -> None:
        """Let time pass, and run what is due then."""
        self.advanceTo(self.rightNow + amount)

    def advanceTo(self, now: float) -> None:
        """
        Let it be C{now}, and run what is due then.

        @param now: a time as C{seconds()} tells it, not before the present.
        """
        self.rightNow = now
        while True:
            call = self._due()
            if call is None or call.time > self.rightNow:
                return
            heapq.heappop(self._heap)
            self._active -= 1
            call.order = 0
            call.called = 1
            call.func(*call.args, **call.kw)

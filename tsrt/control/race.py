"""
Several ways to the same end, started one after the other; the first wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")

_log = Logger(namespace="tsrt.control")


class AllFailed(Exception):
    """
    None of the ways led to the end.

    @ivar failures: why, in the order of the ways.
    """

    def __init__(self, failures: Sequence[Failure]) -> None:
        """
        @param failures: why, in the order of the ways.
        """
        super().__init__("; ".join(failure.getErrorMessage() for failure in failures))
        self.failures = tuple(failures)


class _Race(Generic[T]):
    def __init__(
        self,
        reactor: IReactorTime,
        starts: Sequence[tuple[float, Callable[[], Deferred[T]]]],
        hasten: bool,
    ) -> None:
        self._starts = starts
        self._hasten = hasten
        self._failures: dict[int, Failure] = {}
        self._running: dict[int, Deferred[T]] = {}
        self._over = False
        self.done: Deferred[T] = Deferred(lambda _: self._stop())
        self._timers: dict[int, IDelayedCall] = {}
        for index, (delay, _) in enumerate(starts):
            if delay > 0:
                self._timers[index] = reactor.callLater(delay, self._start, index)
        for index, (delay, _) in enumerate(starts):
            if delay <= 0 and not self._over:
                self._start(index)

    def _start(self, index: int) -> None:
        timer = self._timers.pop(index, None)
        if timer is not None and timer.active():
            timer.cancel()
        attempt = self._starts[index][1]()
        self._running[index] = attempt
        attempt.addCallbacks(self._won, self._failed, errbackArgs=(index,))
        attempt.addErrback(
            lambda failure: _log.failure("a race ended badly", failure=failure)
        )

    def _won(self, result: T) -> None:
        if not self._over:
            self._stop()
            self.done.callback(result)

    def _failed(self, failure: Failure, index: int) -> None:
        if self._over:
            return
        self._running.pop(index, None)
        self._failures[index] = failure
        if len(self._failures) == len(self._starts):
            self._over = True
            ordered = [self._failures[key] for key in sorted(self._failures)]
            self.done.errback(AllFailed(ordered))
        elif self._hasten and not self._running and self._timers:
            self._start(min(self._timers))

    def _stop(self) -> None:
        self._over = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        running = list(self._running.values())
        self._running.clear()
        for attempt in running:
            attempt.cancel()


def race(
    reactor: IReactorTime,
    starts: Sequence[tuple[float, Callable[[], Deferred[T]]]],
    *,
    hasten: bool,
) -> Deferred[T]:
    """
    Start each way after its delay, and cancel the rest once one succeeds.

    @param starts: for each way, seconds to wait and how to start it; at least
        one.
    @param hasten: when all that were started have failed, start the next one
        at once rather than after its delay.
    @return: fires with the first result.  It fails with L{AllFailed};
        cancelling it cancels all that run.
    """
    if not starts:
        raise ValueError("there is nothing to race")
    return _Race(reactor, starts, hasten).done

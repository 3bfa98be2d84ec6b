"""
Several attempts at one thing, of which the first success counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")

HOLD = 3.0
"""Seconds for which an attempt that got somewhere holds back the next."""


@frozen
class Attempt(Generic[T]):
    """One way to try."""

    delay: float
    """Seconds after the beginning of the one before it, unless that fails."""

    start: Callable[[Callable[[], None]], Deferred[T]]
    """
    Begins; is given what to call when it has got somewhere.  What it returns
    can be cancelled.
    """


class Race(Generic[T]):
    """
    Begins attempts one after the other; the first success ends them all.

    @ivar result: fires with what the first successful attempt gave; fails with
        a list of all failures in a L{RaceLost}; may be cancelled.
    """

    def __init__(self, reactor: IReactorTime, attempts: Sequence[Attempt[T]]) -> None:
        """
        @param attempts: what to try, the best first.
        """
        self._reactor = reactor
        self._waiting = list(attempts)
        self._running: set[Deferred[T]] = set()
        self._failures: list[Failure] = []
        self._next: IDelayedCall | None = None
        self._done = False
        self.result: Deferred[T] = Deferred(lambda _: self._stop())

    def begin(self) -> None:
        """Begin with the first attempt."""
        self._startNext()

    def _startNext(self) -> None:
        self._cancelNext()
        if self._done:
            return
        if not self._waiting:
            if not self._running:
                self._done = True
                self.result.errback(Failure(RaceLost(self._failures)))
            return
        attempt = self._waiting.pop(0)
        if self._waiting:
            self._next = self._reactor.callLater(
                self._waiting[0].delay, self._startNext
            )
        running = attempt.start(self._gotSomewhere)
        self._running.add(running)
        running.addCallbacks(
            self._won,
            self._failed,
            callbackArgs=(running,),
            errbackArgs=(running,),
        )

    def _gotSomewhere(self) -> None:
        if self._next is not None and self._next.active():
            self._next.reset(HOLD)

    def _won(self, result: T, winner: Deferred[T]) -> None:
        self._running.discard(winner)
        if self._done:
            return
        self._stop()
        self.result.callback(result)

    def _failed(self, failure: Failure, loser: Deferred[T]) -> None:
        self._running.discard(loser)
        if self._done:
            return
        self._failures.append(failure)
        self._startNext()

    def _cancelNext(self) -> None:
        following, self._next = self._next, None
        if following is not None and following.active():
            following.cancel()

    def _stop(self) -> None:
        self._done = True
        self._cancelNext()
        self._waiting.clear()
        for running in list(self._running):
            running.cancel()


class RaceLost(Exception):
    """
    No attempt succeeded.

    @ivar failures: how each of them failed, in the order of failing.
    """

    def __init__(self, failures: list[Failure]) -> None:
        super().__init__(failures)
        self.failures = failures

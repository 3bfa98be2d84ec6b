"""
Driving a L{twisted.internet.task.Clock} from one event to the next.

C{Clock.advance(n)} runs everything that falls due within C{n} seconds at the
I{end} of that time.  The functions here stop at each event, so that what is
measured in simulated time is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tsrt.testing.simclock import SimulationClock

T = TypeVar("T")

_EPSILON = 1e-9


class PumpError(AssertionError):
    """What a test waits for did not happen within the limit."""


def nextEvent(clock: Clock) -> float | None:
    """
    When the next delayed call of C{clock} is due, or C{None}.

    @return: a time as C{clock.seconds()} tells it.
    """
    if isinstance(clock, SimulationClock):
        return clock.nextTime()
    calls = clock.getDelayedCalls()
    if not calls:
        return None
    return min(call.getTime() for call in calls)


def _step(clock: Clock, event: float) -> None:
    if isinstance(clock, SimulationClock):
        clock.advanceTo(max(event, clock.seconds()))
        return
    clock.advance(max(0.0, event - clock.seconds()))


def elapse(clock: Clock, seconds: float, *, calls: int = 200_000) -> None:
    """
    Let time pass, running each delayed call at its own time.

    @param seconds: how much simulated time passes.
    @param calls: the most steps to take.
    @raise PumpError: when more steps are needed, which means that something
        reschedules itself without time passing.
    """
    end = clock.seconds() + seconds
    for _ in range(calls):
        event = nextEvent(clock)
        if event is None or event > end + _EPSILON:
            if end > clock.seconds():
                clock.advance(end - clock.seconds())
            return
        _step(clock, event)
    raise PumpError(f"more than {calls} events within {seconds} simulated seconds")


def pump(
    clock: Clock,
    until: Callable[[], bool] | Deferred[object] | None = None,
    *,
    limit: float = 60.0,
    calls: int = 200_000,
) -> None:
    """
    Go from event to event until something has happened.

    @param until: what to wait for: a predicate that turns true, or a Deferred
        that fires; without it, until nothing is scheduled any more.
    @param limit: the most simulated seconds to let pass.
    @param calls: the most steps to take.
    @raise PumpError: when it has not happened within the limits.
    """
    done = _predicate(clock, until)
    end = clock.seconds() + limit
    for _ in range(calls):
        if done():
            return
        event = nextEvent(clock)
        if event is None:
            raise PumpError("nothing is scheduled, so it will never happen")
        if event > end + _EPSILON:
            raise PumpError(
                f"it did not happen within {limit} simulated seconds; "
                f"next: {clock.getDelayedCalls()[:5]}"
            )
        _step(clock, event)
    if not done():
        raise PumpError(f"it did not happen within {calls} events")


def _predicate(
    clock: Clock, until: Callable[[], bool] | Deferred[object] | None
) -> Callable[[], bool]:
    if until is None:
        return lambda: nextEvent(clock) is None
    if isinstance(until, Deferred):
        deferred = until
        return lambda: deferred.called and not deferred.paused
    return until


def resultOf(
    clock: Clock,
    deferred: Deferred[T],
    *,
    limit: float = 60.0,
    calls: int = 200_000,
) -> T:
    """
    Pump until C{deferred} fires, and return what it fires with.

    @param limit: the most simulated seconds to let pass.
    @param calls: the most steps to take.
    @raise PumpError: when it does not fire within the limits.
    @raise Exception: what C{deferred} failed with.
    """
    results: list[T | Failure] = []
    deferred.addBoth(results.append)
    pump(clock, lambda: bool(results), limit=limit, calls=calls)
    [result] = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def cooperateOn(case: SynchronousTestCase, clock: Clock) -> None:
    """
    Let what Twisted does on the global reactor be done on a clock, for one
    test: pull producers of HTTP responses and of TLS, and bodies of requests.

    @param case: the test.
    """
    cooperator = task.Cooperator(scheduler=lambda call: clock.callLater(0.0001, call))
    case.patch(task, "_theCooperator", cooperator)

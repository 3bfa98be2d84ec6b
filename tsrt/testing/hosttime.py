"""
The time of one simulated host, which may sleep while the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

# The network is there before the first timer of a host that has woken up.
_FIRST_TIMER = 1e-6

_MANY = 256


class HostTime:
    """
    A host's share of the one clock.

    As on a laptop whose lid is closed, nothing of the host runs while it
    sleeps.  Its wall clock, which Twisted's timers go by, has gone on when it
    wakes up: what was due meanwhile is run at once, in the order in which it
    was due.  Its monotonic clock has stood still.

    @ivar down: whether the host has no network; true while it sleeps.
    @ivar isAsleep: whether it sleeps.
    """

    def __init__(self, clock: Clock) -> None:
        self.down = False
        self.isAsleep = False
        self._clock = clock
        self._calls: list[IDelayedCall] = []
        self._slept = 0.0
        self._asleepSince = 0.0
        self._wakesAt = 0.0
        self._wasDown = False

    def seconds(self) -> float:
        """The wall clock; see L{twisted.internet.interfaces.IReactorTime}."""
        return self._clock.seconds()

    def monotonic(self) -> float:
        """The seconds for which the host was awake, from some time on."""
        until = self._asleepSince if self.isAsleep else self._clock.seconds()
        return until - self._slept

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        """See L{twisted.internet.interfaces.IReactorTime}."""
        if self.isAsleep:
            delay += self._untilAwake()
        call: IDelayedCall = self._clock.callLater(delay, callable, *args, **kwargs)
        self._calls.append(call)
        if len(self._calls) > _MANY:
            self._calls = [call for call in self._calls if call.active()]
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """The calls that were scheduled through this host and are still due."""
        self._calls = [call for call in self._calls if call.active()]
        return list(self._calls)

    def callFromThread(
        self, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> None:
        """See L{twisted.internet.interfaces.IReactorFromThreads}."""
        self.soon(callable, *args, **kwargs)

    def soon(
        self, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """
        Call in the next turn in which the host is awake.

        For what a host does of itself: it is not among L{getDelayedCalls}.
        """
        delay = self._untilAwake() if self.isAsleep else 0.0
        return self._clock.callLater(delay, callable, *args, **kwargs)

    def sleep(self, seconds: float) -> None:
        """
        Fall asleep, and wake up after so many seconds.

        @raise ValueError: when that is no time, or the host sleeps already.
        """
        if not seconds > 0:
            raise ValueError(f"a host cannot sleep for {seconds} s")
        if self.isAsleep:
            raise ValueError("the host is asleep; let its time pass first")
        self._asleepSince = self._clock.seconds()
        self._wakesAt = self._asleepSince + seconds
        self._wasDown, self.down = self.down, True
        self.isAsleep = True
        for call in self.getDelayedCalls():
            if call.getTime() < self._wakesAt + _FIRST_TIMER:
                call.reset(seconds + _FIRST_TIMER)
        self._clock.callLater(seconds, self._wake)

    def _untilAwake(self) -> float:
        return self._wakesAt - self._clock.seconds() + _FIRST_TIMER

    def _wake(self) -> None:
        self._slept += self._clock.seconds() - self._asleepSince
        self.isAsleep = False
        self.down = self._wasDown

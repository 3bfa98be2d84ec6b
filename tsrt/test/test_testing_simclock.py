"""
Tests for L{tsrt.testing.simclock}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tsrt.testing.clock import elapse, nextEvent
from tsrt.testing.simclock import SimulationClock

_steps = st.lists(
    st.tuples(
        st.sampled_from(["call", "cancel", "reset", "delay", "advance"]),
        st.integers(0, 9),
        st.integers(-4, 12),
    ),
    max_size=60,
)


class SimulationClockTests(SynchronousTestCase):
    """It is a L{Clock}, only faster."""

    def setUp(self) -> None:
        self.clock = SimulationClock()
        self.ran: list[object] = []

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IReactorTime, self.clock))
        self.assertIsInstance(self.clock, Clock)

    def test_order(self) -> None:
        """The earliest first; at one time, the first that was scheduled."""
        for name, delay in (("c", 2), ("a", 1), ("d", 2), ("b", 1)):
            self.clock.callLater(delay, self.ran.append, name)
        self.assertEqual(self.clock.nextTime(), 1)
        self.clock.advance(5)
        self.assertEqual(self.ran, ["a", "b", "c", "d"])
        self.assertIsNone(self.clock.nextTime())

    def test_scheduledWhileRunning(self) -> None:
        """What a call schedules for now is run now."""
        self.clock.callLater(1, self.clock.callLater, 0, self.ran.append, "inner")
        self.clock.advance(1)
        self.assertEqual(self.ran, ["inner"])

    def test_looping(self) -> None:
        loop = LoopingCall(lambda: self.ran.append(self.clock.seconds()))
        loop.clock = self.clock
        loop.start(10)
        elapse(self.clock, 35)
        loop.stop()
        self.assertEqual(self.ran, [0, 10, 20, 30])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_movedLater(self) -> None:
        """It is found in its new place, and not before."""
        call = self.clock.callLater(1, self.ran.append, "moved")
        self.clock.callLater(5, self.ran.append, "other")
        call.reset(10)
        self.assertEqual(self.clock.nextTime(), 5)
        call.delay(-7)
        self.assertEqual(self.clock.nextTime(), 3)
        self.clock.advance(4)
        self.assertEqual(self.ran, ["moved"])

    def test_cancelled(self) -> None:
        call = self.clock.callLater(1, self.ran.append, "never")
        call.cancel()
        self.assertRaises(error.AlreadyCancelled, call.cancel)
        self.assertRaises(error.AlreadyCancelled, call.reset, 1)
        done = self.clock.callLater(1, self.ran.append, "once")
        self.clock.advance(2)
        self.assertRaises(error.AlreadyCalled, done.cancel)
        self.assertEqual(self.ran, ["once"])

    def test_failingCall(self) -> None:
        """An error goes to whoever lets time pass; the rest can be run after."""
        self.clock.callLater(1, lambda: 1 / 0)
        self.clock.callLater(1, self.ran.append, "next")
        self.assertRaises(ZeroDivisionError, self.clock.advance, 1)
        self.clock.advance(0)
        self.assertEqual(self.ran, ["next"])

    def test_cancelledCallsAreNotKept(self) -> None:
        """Timers that are always set and never run cost no memory."""
        for _ in range(10_000):
            self.clock.callLater(3600, self.fail).cancel()
        moved = self.clock.callLater(3600, self.ran.append, "moved")
        for number in range(10_000):
            moved.reset(3600 - number / 10)
            self.clock.callLater(3600, self.fail).cancel()
        self.assertLess(len(self.clock._heap), 100)
        self.clock.advance(3600)
        self.assertEqual(self.ran, ["moved"])

    def test_exactTimes(self) -> None:
        """Even late in the life of the world a step ends at its event."""
        self.clock.rightNow = 1_790_000_000.0
        self.clock.callLater(0.1, lambda: self.ran.append(self.clock.seconds()))
        due = nextEvent(self.clock)
        elapse(self.clock, 1)
        self.assertEqual(self.ran, [due])

    @given(_steps)
    def test_sameAsClock(self, steps: list[tuple[str, int, int]]) -> None:
        """The same calls run by the same time as with Twisted's own clock."""
        clocks = Clock(), SimulationClock()
        outcomes = []
        for clock in clocks:
            ran: list[tuple[float, int]] = []
            calls = []
            trace: list[object] = []
            for number, (what, index, value) in enumerate(steps):
                call = calls[index % len(calls)] if calls else None
                if what == "call":
                    calls.append(
                        clock.callLater(
                            max(value, 0),
                            lambda number=number, clock=clock, ran=ran: ran.append(
                                (clock.seconds(), number)
                            ),
                        )
                    )
                elif what == "advance":
                    clock.advance(max(value, 0))
                    trace.append(sorted(ran))
                elif call is not None and call.active():
                    if what == "cancel":
                        call.cancel()
                    elif what == "reset":
                        call.reset(max(value, 0))
                    else:
                        call.delay(value)
                trace.append(sorted(c.getTime() for c in clock.getDelayedCalls()))
                trace.append(nextEvent(clock))
            outcomes.append(trace)
        self.assertEqual(outcomes[0], outcomes[1])

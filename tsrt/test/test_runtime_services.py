"""Tests for L{tsrt.runtime.services} and L{tsrt.runtime.timers}."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tsrt.runtime.services import OrderedMultiService
from tsrt.runtime.timers import DeadlineTimer


class Recorder(Service):
    """Notes when it starts and stops; stops when it is told."""

    def __init__(self, name: str, journal: list[str]) -> None:
        self.setName(name)
        self.journal = journal
        self.stopping: Deferred[None] | None = None

    def startService(self) -> None:
        super().startService()
        self.journal.append(f"start {self.name}")

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self.journal.append(f"stop {self.name}")
        self.stopping = Deferred()
        return self.stopping


class OrderedMultiServiceTests(SynchronousTestCase):
    """L{OrderedMultiService} stops in sequence."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.journal: list[str] = []
        self.parent = OrderedMultiService(self.clock, stopTimeout=3)
        self.children = [Recorder(name, self.journal) for name in "abc"]
        for child in self.children:
            child.setServiceParent(self.parent)

    def test_startsInOrder(self) -> None:
        """Children start in the order in which they were added."""
        self.parent.startService()
        self.assertEqual(self.journal, ["start a", "start b", "start c"])

    def test_stopsInReverseWaiting(self) -> None:
        """A child stops only after its younger siblings have stopped."""
        a, b, c = self.children
        self.parent.startService()
        del self.journal[:]
        stopped = self.parent.stopService()
        self.assertEqual(self.journal, ["stop c"])
        c.stopping.callback(None)
        self.assertEqual(self.journal, ["stop c", "stop b"])
        b.stopping.callback(None)
        self.assertNoResult(stopped)
        a.stopping.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slowChildIsLeft(self) -> None:
        """A child that does not stop in time holds nobody up."""
        self.parent.startService()
        stopped = self.parent.stopService()
        self.clock.advance(3)
        self.assertEqual(self.journal[-1], "stop b")
        self.clock.advance(3)
        self.clock.advance(3)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failingChildIsLogged(self) -> None:
        """A child that fails to stop is logged; the others still stop."""
        a, b, c = self.children
        self.parent.startService()
        stopped = self.parent.stopService()
        c.stopping.errback(ValueError("stuck"))
        b.stopping.callback(None)
        a.stopping.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_startStopStart(self) -> None:
        """It can be started again after it has stopped."""
        for _ in range(2):
            self.parent.startService()
            stopped = self.parent.stopService()
            for child in reversed(self.children):
                child.stopping.callback(None)
            self.successResultOf(stopped)
        self.assertEqual(self.journal.count("start a"), 2)


class DeadlineTimerTests(SynchronousTestCase):
    """L{DeadlineTimer} holds at most one delayed call."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.woken: list[float] = []
        self.timer = DeadlineTimer(
            self.clock, lambda: self.woken.append(self.clock.seconds())
        )

    def arm(self, deadline: float | None) -> None:
        self.timer.arm(deadline, self.clock.seconds())

    def test_wakesAtDeadline(self) -> None:
        """It wakes its owner at the deadline, once."""
        self.arm(5.0)
        self.clock.advance(4.9)
        self.assertEqual(self.woken, [])
        self.clock.advance(0.1)
        self.assertEqual(self.woken, [5.0])
        self.clock.advance(100)
        self.assertEqual(len(self.woken), 1)

    def test_earlierReplaces(self) -> None:
        """An earlier deadline replaces a later one."""
        self.arm(5.0)
        self.arm(2.0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(2)
        self.assertEqual(self.woken, [2.0])

    def test_laterKeepsTheEarlier(self) -> None:
        """A later deadline leaves the pending wake-up alone."""
        self.arm(2.0)
        self.arm(5.0)
        self.assertEqual(self.clock.getDelayedCalls()[0].getTime(), 2.0)

    def test_pastIsNow(self) -> None:
        """A deadline in the past wakes in the next turn."""
        self.clock.advance(10)
        self.arm(3.0)
        self.clock.advance(0)
        self.assertEqual(self.woken, [10.0])

    def test_noneChangesNothing(self) -> None:
        """No deadline arms nothing."""
        self.arm(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel(self) -> None:
        """After cancel nothing is left, and it can be armed again."""
        self.arm(5.0)
        self.timer.cancel()
        self.timer.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.arm(1.0)
        self.clock.advance(1)
        self.assertEqual(self.woken, [1.0])

"""Tests for L{tsrt.netstack.standing}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.congestion import makeCongestionControl
from tsrt.netstack.sender import Sender
from tsrt.netstack.standing import ENOUGH, SHORT, StandingQueue

MSS = 1000


class StandingQueueTests(SynchronousTestCase):
    """How long segments wait."""

    def test_waiting(self) -> None:
        """The queue is full while segments wait for long, and no longer."""
        queue = StandingQueue()
        queue.sent(1000, 1.0, 0.001)
        queue.sent(2000, 1.0001, 0.001)
        queue.sent(3000, 1.01, 0.001)
        queue.acknowledged(1000, 1.001, 0.001)
        self.assertFalse(queue.isFull)
        queue.acknowledged(2000, 1.0001 + 0.001 + 2 * ENOUGH, 0.001)
        self.assertTrue(queue.isFull)
        # Nothing that was sent is acknowledged: no news.
        queue.acknowledged(2500, 1.0101, 0.001)
        self.assertTrue(queue.isFull)
        queue.acknowledged(3000, 1.0105, 0.001)
        self.assertFalse(queue.isFull)

    def test_longPath(self) -> None:
        """On a path that is not short, or not known, delay says nothing."""
        queue = StandingQueue()
        for smallest in (SHORT, None):
            queue.sent(1000, 1.0, smallest)
            queue.acknowledged(1000, 9.0, smallest)
            self.assertFalse(queue.isFull)

    def test_memory(self) -> None:
        """What is sent at one time takes one entry."""
        queue = StandingQueue()
        for number in range(1, 1000):
            queue.sent(number * 1000, 1.0, 0.0)
        self.assertEqual(1, len(queue._sent))

    def test_clear(self) -> None:
        """What is sent again is not measured."""
        queue = StandingQueue()
        queue.sent(1000, 1.0, 0.0)
        queue.clear()
        queue.acknowledged(1000, 2.0, 0.0)
        self.assertFalse(queue.isFull)


class GrowthTests(SynchronousTestCase):
    """What the sender makes of it."""

    def grow(self, trip: float, waits: float) -> int:
        """
        Send whole windows.

        @param trip: the round-trip time of the handshake, in seconds.
        @param waits: how long segments take after that.
        @return: how many bytes the window has grown.
        """
        sender = Sender(0, MSS, makeCongestionControl("cubic", MSS), 60.0, True)
        sender.rtt.sample(trip)
        sender.opened(1 << 22, 0, 0.0)
        before = sender.congestion.window
        sender.buffer.append(bytes(1_000_000))
        now = 1.0
        for _ in range(4):
            while (found := sender.pull(now, 1000)) is not None:
                sender.sent(*found, now)
            sender.settle(now)
            now += waits
            sender.acknowledge(sender.nxt, 1 << 22, 0, [], True, None, now)
        return sender.congestion.window - before

    def test_growsOnShortPath(self) -> None:
        """While nothing waits, the window doubles with each round trip."""
        self.assertGreater(self.grow(0.0005, 0.0006), 100 * MSS)

    def test_holdsOnShortPath(self) -> None:
        """Once segments wait, it stays as it is."""
        self.assertEqual(0, self.grow(0.0005, 0.0005 + 2 * ENOUGH))

    def test_growsOnLongPath(self) -> None:
        """Elsewhere it grows until something is lost."""
        self.assertGreater(self.grow(0.05, 0.2), 100 * MSS)

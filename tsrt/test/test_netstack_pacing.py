"""
Tests of L{tsrt.netstack.pacing}, by itself, in a flow, and on long paths.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.pacing import LONG, QUANTUM, Pacer
from tsrt.netstack.tcpoptions import TCPOptions
from tsrt.test.netlink import Link, Pair, pattern
from tsrt.test.netpeer import MSS, Peer, payloads

TRIP = 0.1
START = 1_790_000_000.0
"""A time of day, whose fractions of a second have few digits left."""


def sent(
    pacer: Pacer, window: float, end: float, isStarting: bool = False, late: float = 0.0
) -> list[tuple[float, int]]:
    """
    Send as much as may be from L{START} on.

    @param end: for how many seconds.
    @param late: by how much each timer is late, in seconds.
    @return: when how many segments left.
    """
    found = []
    now = START
    while now < START + end:
        count = pacer.segments(now, 1 << 20, window, TRIP, isStarting)
        if count:
            found.append((now - START, count))
            pacer.sent(count)
        else:
            assert pacer.at is not None and pacer.at > now
            now = pacer.at + late
            pacer.tick(now)
    return found


class PacerTests(SynchronousTestCase):
    """L{Pacer}."""

    def test_rate(self) -> None:
        """A quarter more than a window for each round trip; two in slow start."""
        for isStarting, windows in ((False, 1.25), (True, 2.0)):
            for window in (1, 3, 20, 1000, 100_000):
                found = sent(Pacer(), window, 10 * TRIP, isStarting)
                total = sum(count for _, count in found)
                first = found[0][1]
                expected = 10 * windows * window
                self.assertLess(abs(total - first - expected), 0.02 * expected + 3)

    def test_even(self) -> None:
        """What leaves at once is the data of a millisecond, or two segments."""
        for window, most in ((20, 2), (800, 10), (8000, 101)):
            [_, *others] = sent(Pacer(), window, TRIP)
            self.assertTrue(all(count <= most for _, count in others), others)
            gaps = [b - a for (a, _), (b, _) in pairwise(others)]
            self.assertGreater(min(gaps), 0.9 * QUANTUM)

    def test_burst(self) -> None:
        """After a pause ten leave at once, but no more for a longer one."""
        pacer = Pacer()
        sent(pacer, 20, 1.0)
        for pause in (2.0, 1000.0):
            self.assertEqual(pacer.segments(START + pause, 50, 20, TRIP, False), 10)

    def test_lateTimers(self) -> None:
        """A timer that is late by up to three milliseconds costs nothing."""
        for late in (0.0004, 0.001, 0.003):
            total = sum(count for _, count in sent(Pacer(), 4000, 1.0, late=late))
            self.assertGreater(total, 0.97 * 1.25 * 40_000)

    def test_few(self) -> None:
        """Who has little to send does not wait for what would be a millisecond's."""
        pacer = Pacer()
        pacer.sent(pacer.segments(START, 10_000, 8000, TRIP, False))
        self.assertEqual(pacer.segments(START, 50, 8000, TRIP, False), 0)
        assert pacer.at is not None
        whole = pacer.at
        self.assertEqual(pacer.segments(START, 3, 8000, TRIP, False), 0)
        self.assertLess(pacer.at - START, 0.1 * (whole - START))

    def test_setBack(self) -> None:
        """A clock that was set back has nobody wait for it to catch up."""
        pacer = Pacer()
        sent(pacer, 800, 1.0)
        self.assertEqual(pacer.segments(START - 3600, 50, 800, TRIP, False), 0)
        assert pacer.at is not None
        self.assertLess(pacer.at, START - 3600 + 2 * QUANTUM)

    @given(
        st.floats(1.0, 1e6),
        st.floats(LONG, 10.0),
        st.integers(1, 10_000),
        st.floats(0.0, 4e9),
        st.booleans(),
    )
    def test_wakes(
        self, window: float, trip: float, wanted: int, now: float, isStarting: bool
    ) -> None:
        """At the time that it names something may leave, whatever the numbers are."""
        pacer = Pacer()
        for _ in range(20):
            count = pacer.segments(now, wanted, window, trip, isStarting)
            if count:
                self.assertIs(pacer.at, None)
                pacer.sent(min(count, wanted))
                continue
            assert pacer.at is not None
            self.assertGreater(pacer.at, now)
            now = pacer.at
            pacer.tick(now)
            self.assertIs(pacer.at, None)
            self.assertGreater(pacer.segments(now, wanted, window, trip, isStarting), 0)


class FlowTests(SynchronousTestCase):
    """A flow with a hand-driven peer."""

    def open(self, trip: float, options: TCPOptions | None = None) -> Peer:
        """A flow whose window has grown to forty segments, with nothing on its way."""
        peer = Peer(options, scale=4).establish(trip)
        peer.flow.write(bytes(70 * MSS))
        count = len(payloads(peer.take()))
        for _ in range(4):
            count += len(payloads(peer.wait(trip)))
            count += len(payloads(peer.send(0, 1, 1 + count * MSS)))
            if count == 70:
                break
        peer.now += trip
        peer.send(0, 1, 1 + 70 * MSS)
        sender = peer.flow._tcb.sender
        self.assertEqual(sender.inFlight, 0)
        self.assertEqual(sender.congestion.window, 40 * MSS)
        return peer

    def test_long(self) -> None:
        """On a long path ten leave at once, and the others one after the other."""
        peer = self.open(0.05)
        peer.flow.write(bytes(40 * MSS))
        left = len(payloads(peer.take()))
        self.assertEqual(left, 10)
        began, most = peer.now, 0
        for _ in range(50):
            count = len(payloads(peer.wait(0.001)))
            most = max(most, count)
            left += count
            if left == 40:
                break
        self.assertLess(most, 6)
        self.assertGreater(peer.now - began, 0.3 * 0.05)
        self.assertLess(peer.now - began, 0.05)

    def test_short(self) -> None:
        """On a short one all of them."""
        peer = self.open(0.001)
        peer.flow.write(bytes(40 * MSS))
        self.assertEqual(len(payloads(peer.take())), 40)

    def test_off(self) -> None:
        """So they do where pacing is off."""
        peer = self.open(0.05, TCPOptions(pacedFrom=inf))
        peer.flow.write(bytes(40 * MSS))
        self.assertEqual(len(payloads(peer.take())), 40)

    def test_options(self) -> None:
        """A path that takes no time has no rate."""
        for value in (0.0, -1.0):
            self.assertRaises(ValueError, TCPOptions, pacedFrom=value)

    def test_lone(self) -> None:
        """A small message leaves in the same turn, time and again."""
        peer = self.open(0.05)
        peer.flow.setNoDelay(True)
        for _ in range(8):
            peer.flow.write(b"message")
            self.assertEqual(len(payloads(peer.take())), 1)
            peer.now += 0.01

    def test_idle(self) -> None:
        """Nothing wakes a flow that has nothing to send, or no room."""
        peer = self.open(0.05)
        sender = peer.flow._tcb.sender
        peer.flow.write(bytes(100 * MSS))
        peer.take()
        for _ in range(60):
            peer.wait(0.001)
        self.assertEqual(sender.inFlight, sender.congestion.window // MSS * MSS)
        self.assertIs(sender.pacer.at, None)
        deadline = peer.flow.deadline()
        assert deadline is not None
        self.assertGreater(deadline, peer.now + 0.01)


class PathTests(SynchronousTestCase):
    """A long path with a bottleneck, and a queue that is short for it."""

    def took(self, options: TCPOptions) -> tuple[float, Pair]:
        """Seconds for five megabytes, at 12.5 in a second and 40 ms a round trip."""
        pair = Pair(Link(1, rate=12.5e6, queue=48), Link(2), options, options)
        data = pattern(5_000_000)
        pair.client.highWater = 1 << 21
        pair.client.send(data, True)
        pair.server.send(b"", True)
        start = pair.now
        pair.run(stop=pair.closed)
        self.assertEqual(pair.server.received, data)
        return pair.now - start, pair

    def test_shortQueue(self) -> None:
        """Evenly it goes through such a queue that overflows with each burst."""
        paced, pair = self.took(TCPOptions())
        burst, _ = self.took(TCPOptions(pacedFrom=inf))
        self.assertLess(paced, 0.7 * burst)
        self.assertEqual(pair.a._tcb.sender.timerFires, 0)

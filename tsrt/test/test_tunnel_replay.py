"""
Tests for L{tsrt.tunnel.replay}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.tunnel.replay import WINDOW, ReplayWindow


class Model:
    """The same by the plainest means: a set of all counters ever marked."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.newest = -1

    def isFresh(self, counter: int) -> bool:
        """What the window must answer."""
        if counter <= self.newest - WINDOW - 1:
            return False
        return counter not in self.seen

    def mark(self, counter: int) -> None:
        """What the window must remember."""
        self.seen.add(counter)
        self.newest = max(self.newest, counter)


class ReplayWindowTests(SynchronousTestCase):
    """
    Tests for L{ReplayWindow}.
    """

    def test_windowSize(self) -> None:
        """The window is 8192 bits less one word."""
        self.assertEqual(WINDOW, 8128)

    def test_firstMessage(self) -> None:
        """A new window takes counter zero, once."""
        window = ReplayWindow()
        self.assertTrue(window.isFresh(0))
        window.mark(0)
        self.assertFalse(window.isFresh(0))
        self.assertTrue(window.isFresh(1))

    def test_askingDoesNotMark(self) -> None:
        """A counter that is only asked about stays fresh."""
        window = ReplayWindow()
        window.isFresh(70)
        self.assertTrue(window.isFresh(70))
        self.assertEqual(window.newest, -1)

    def test_edgeOfWindow(self) -> None:
        """A counter 8128 behind the newest is late, one further is too late."""
        for newest in (WINDOW + 1, 10_000, 64 * 200, 64 * 200 + 63, 1 << 40):
            window = ReplayWindow()
            window.mark(newest)
            self.assertTrue(window.isFresh(newest - WINDOW))
            self.assertFalse(window.isFresh(newest - WINDOW - 1))

    def test_farJumpForgetsOldBits(self) -> None:
        """Bits of the last round through the ring do not count as seen."""
        window = ReplayWindow()
        window.markRun(0, 8191)
        window.mark(8192 * 3 + 5)
        self.assertTrue(window.isFresh(8192 * 3 + 4))
        self.assertTrue(window.isFresh(8192 * 3 + 5 - WINDOW))

    def test_runLongerThanWindow(self) -> None:
        """A run that fills the whole ring marks each counter in reach."""
        window = ReplayWindow()
        window.markRun(3, 30_000)
        self.assertEqual(window.newest, 30_000)
        fresh = [c for c in range(30_000 - WINDOW, 30_001) if window.isFresh(c)]
        self.assertEqual(fresh, [])

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.integers(0, 200),
                st.integers(8000, 8400),
                st.integers(0, 40_000),
                st.integers((1 << 64) - 20_000, (1 << 64) - 1),
            ),
            max_size=80,
        )
    )
    def test_agreesWithModel(self, counters: list[int]) -> None:
        """Whatever arrives, the window answers as a set of all counters would."""
        window, model = ReplayWindow(), Model()
        for counter in counters:
            for asked in (counter, max(counter - 1, 0), max(counter - WINDOW, 0)):
                self.assertEqual(window.isFresh(asked), model.isFresh(asked))
            if model.isFresh(counter):
                window.mark(counter)
                model.mark(counter)
                self.assertEqual(window.newest, model.newest)

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(1, 300), st.integers(0, 9000)), max_size=8),
        st.data(),
    )
    def test_runIsLikeOneByOne(
        self, runs: list[tuple[int, int]], data: st.DataObject
    ) -> None:
        """Marking a run leaves the window as marking each of it does."""
        atOnce, single = ReplayWindow(), ReplayWindow()
        for gap, length in runs:
            first = atOnce.newest + gap
            atOnce.markRun(first, first + length)
            for counter in range(first, first + length + 1):
                single.mark(counter)
        self.assertEqual(atOnce.newest, single.newest)
        newest = single.newest
        probes = st.integers(max(newest - WINDOW - 70, 0), max(newest + 70, 1))
        for counter in data.draw(st.lists(probes, max_size=200)):
            self.assertEqual(atOnce.isFresh(counter), single.isFresh(counter))

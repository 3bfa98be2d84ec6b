"""Tests for L{tsrt.netstack.sack}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.sack import MAX_RANGES, Scoreboard


def board(*ranges: tuple[int, int]) -> Scoreboard:
    """A scoreboard with these ranges."""
    made = Scoreboard()
    for start, end in ranges:
        made.add(start, end)
    return made


class ScoreboardTests(SynchronousTestCase):
    """What the peer holds out of order."""

    def test_add(self) -> None:
        """Only what was not known is counted as news; touching ranges join."""
        made = Scoreboard()
        self.assertFalse(made)
        self.assertEqual(made.add(10, 20), 10)
        self.assertEqual(made.add(10, 20), 0)
        self.assertEqual(made.add(15, 25), 5)
        self.assertEqual(made.add(30, 40), 10)
        self.assertEqual(made.add(25, 30), 5)
        self.assertEqual(made.ranges, [(10, 40)])
        self.assertEqual((made.total, made.highest), (30, 40))

    def test_advance(self) -> None:
        """The cumulative acknowledgement takes ranges away from the front."""
        made = board((10, 20), (30, 40), (50, 60))
        made.advance(35)
        self.assertEqual(made.ranges, [(35, 40), (50, 60)])
        self.assertEqual(made.total, 15)
        made.advance(100)
        self.assertEqual((made.ranges, made.total), ([], 0))

    def test_within(self) -> None:
        """Bytes held between two positions are counted."""
        made = board((10, 20), (30, 40))
        self.assertEqual(made.within(0, 100), 20)
        self.assertEqual(made.within(15, 35), 10)
        self.assertEqual(made.within(12, 14), 2)
        self.assertEqual(made.within(20, 30), 0)
        self.assertEqual(made.within(35, 15), 0)

    def test_below(self) -> None:
        """The range is found with which enough is held, counted from the end."""
        made = board((10, 20), (30, 40), (50, 60))
        for size, start in ((0, 50), (9, 50), (10, 30), (19, 30), (20, 10)):
            self.assertEqual(made.below(0, 100, size), start)
        # Only what lies in between counts.
        self.assertEqual(made.below(0, 55, 5), 30)
        self.assertEqual(made.below(35, 55, 9), 35)

    def test_gap(self) -> None:
        """The first piece that is not held is found."""
        made = board((10, 20), (30, 40))
        self.assertEqual(made.gap(0, 100), (0, 10))
        self.assertEqual(made.gap(10, 100), (20, 30))
        self.assertEqual(made.gap(15, 25), (20, 25))
        self.assertEqual(made.gap(25, 100), (25, 30))
        self.assertEqual(made.gap(35, 100), (40, 100))
        self.assertIsNone(made.gap(30, 40))
        self.assertIsNone(made.gap(5, 5))

    def test_lossByRanges(self) -> None:
        """Three ranges above a gap mean that it is lost (RFC 6675)."""
        self.assertIsNone(board((100, 101), (110, 111)).lossEdge(1000))
        self.assertEqual(board((100, 101), (110, 111), (120, 121)).lossEdge(1000), 100)
        self.assertEqual(
            board((90, 91), (100, 101), (110, 111), (120, 121)).lossEdge(1000), 100
        )

    def test_lossByBytes(self) -> None:
        """More than two full segments above a gap mean that it is lost."""
        self.assertIsNone(board((5000, 7000)).lossEdge(1000))
        self.assertEqual(board((5000, 7001)).lossEdge(1000), 5000)
        self.assertEqual(board((5000, 7000), (8000, 8001)).lossEdge(1000), 5000)
        self.assertEqual(board((5000, 5001), (8000, 10001)).lossEdge(1000), 8000)

    def test_bounded(self) -> None:
        """A peer cannot make the board grow without limit."""
        made = Scoreboard()
        for number in range(MAX_RANGES + 10):
            made.add(2 * number, 2 * number + 1)
        self.assertEqual(len(made.ranges), MAX_RANGES)
        self.assertEqual(made.total, MAX_RANGES)

    def test_clear(self) -> None:
        """Everything can be forgotten."""
        made = board((10, 20))
        made.clear()
        self.assertEqual((made.ranges, made.total), ([], 0))

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 80), st.integers(1, 20), st.booleans()),
            max_size=30,
        ),
        st.integers(0, 100),
        st.integers(0, 100),
    )
    def test_model(
        self, steps: list[tuple[int, int, bool]], low: int, high: int
    ) -> None:
        """The board agrees with a plain set of positions."""
        made = Scoreboard()
        held: set[int] = set()
        una = 0
        for start, size, advance in steps:
            if advance:
                una = max(una, start)
                made.advance(una)
                held = {position for position in held if position >= una}
            elif start >= una:
                new = set(range(start, start + size)) - held
                self.assertEqual(made.add(start, start + size), len(new))
                held |= new
        self.assertEqual(made.total, len(held))
        self.assertEqual(
            {p for start, end in made.ranges for p in range(start, end)}, held
        )
        self.assertEqual(made.within(low, high), len(held & set(range(low, high))))
        missing = [p for p in range(low, high) if p not in held]
        gap = made.gap(low, high)
        if not missing:
            self.assertIsNone(gap)
        else:
            assert gap is not None
            self.assertEqual(gap[0], missing[0])
            self.assertEqual(
                gap[1],
                next((p for p in range(gap[0], high) if p in held), high),
            )

"""
Tests for L{tsrt.counters}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.counters import Counters


class Base(Counters):
    """Two counters."""

    __slots__ = ("received", "sent")
    received: int
    sent: int


class More(Base):
    """One more, named by a string alone."""

    __slots__ = "dropped"
    dropped: int


class CountersTests(SynchronousTestCase):
    """L{Counters}."""

    def test_beginAtZero(self) -> None:
        """All counters, inherited ones too, begin at zero, in order."""
        self.assertEqual(
            list(More().snapshot().items()),
            [("received", 0), ("sent", 0), ("dropped", 0)],
        )

    def test_snapshot(self) -> None:
        """A snapshot has the counts of its moment."""
        counters = More()
        counters.sent += 2
        before = counters.snapshot()
        counters.sent += 1
        counters.dropped += 1
        self.assertEqual(before, {"received": 0, "sent": 2, "dropped": 0})
        self.assertEqual(counters.snapshot()["sent"], 3)

    def test_add(self) -> None:
        """The counters of another set are added one by one."""
        one, two = Base(), Base()
        one.sent, two.sent, two.received = 1, 2, 5
        one.add(two)
        self.assertEqual(one.snapshot(), {"received": 5, "sent": 3})
        self.assertEqual(two.snapshot(), {"received": 5, "sent": 2})

    def test_repr(self) -> None:
        """What is shown leaves zeros out."""
        counters = More()
        counters.dropped = 7
        self.assertEqual(repr(counters), "<More dropped=7>")

    def test_slots(self) -> None:
        """A mistyped counter is an error, not a new attribute."""
        with self.assertRaises(AttributeError):
            Base().snet = 1  # type: ignore[attr-defined]  # the point of the test

"""Tests for L{tsrt.netstack.seq}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.seq import initialSequence, precedes, unwrap, wrap

_quick = settings(max_examples=200, deadline=None)


class UnwrapTests(SynchronousTestCase):
    """Positions and what they look like on the wire."""

    def test_nearest(self) -> None:
        """A number means the nearest position that it can stand for."""
        self.assertEqual(unwrap(5, 3), 5)
        self.assertEqual(unwrap(5, 0xFFFFFFF0), 0x100000005)
        self.assertEqual(unwrap(0xFFFFFFF0, 0x100000005), 0xFFFFFFF0)
        self.assertEqual(unwrap(0xFFFFFFFF, 0), -1)

    def test_farthest(self) -> None:
        """Half the sequence space away is the limit."""
        self.assertEqual(unwrap(0x80000000, 0), -0x80000000)
        self.assertEqual(unwrap(0x7FFFFFFF, 0), 0x7FFFFFFF)

    @_quick
    @given(st.integers(0, 1 << 40), st.integers(-(1 << 31), (1 << 31) - 1))
    def test_roundTrip(self, near: int, offset: int) -> None:
        """A position within reach survives the wire."""
        self.assertEqual(unwrap(wrap(near + offset), near), near + offset)

    def test_precedes(self) -> None:
        """Order holds across the wrap, and nothing precedes itself."""
        self.assertTrue(precedes(0xFFFFFFFF, 0))
        self.assertFalse(precedes(0, 0xFFFFFFFF))
        self.assertFalse(precedes(7, 7))
        self.assertTrue(precedes(7, 8))


class InitialSequenceTests(SynchronousTestCase):
    """RFC 6528 initial sequence numbers."""

    def test_clock(self) -> None:
        """The number of one flow moves on 250,000 a second."""
        first = initialSequence(b"secret", b"flow", 10.0)
        second = initialSequence(b"secret", b"flow", 12.0)
        self.assertEqual((second - first) & 0xFFFFFFFF, 500_000)

    def test_flowsDiffer(self) -> None:
        """Other flows and other secrets give unrelated numbers."""
        numbers = {
            initialSequence(secret, flow, 10.0)
            for secret in (b"one", b"two")
            for flow in (b"a", b"b", b"c")
        }
        self.assertEqual(len(numbers), 6)

    def test_range(self) -> None:
        """The number fits the field however late it is."""
        self.assertLess(initialSequence(b"s", b"f", 1e9), 1 << 32)

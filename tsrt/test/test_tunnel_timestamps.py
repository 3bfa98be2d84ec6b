"""
Tests for L{tsrt.tunnel.timestamps}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.test.tunnelpair import vector
from tsrt.tunnel.timestamps import (
    TimestampSource,
    decodeTimestamp,
)
from tsrt.wire.wireguard import tai64n

_SECOND = 1_000_000_000


class LabelTests(SynchronousTestCase):
    """
    Tests for the encoding of labels.
    """

    def test_vector(self) -> None:
        """A known time has the known label."""
        label = vector("wireguard_initiation")["timestamp"]
        moment = 1_700_000_000 * _SECOND + 0x12000000
        self.assertEqual(tai64n(moment).hex(), label)
        self.assertEqual(decodeTimestamp(bytes.fromhex(label)), moment)

    def test_whitened(self) -> None:
        """The low 24 bits of the nanoseconds are never told."""
        label = tai64n(1_700_000_000 * _SECOND + 0x12FFFFFF)
        self.assertEqual(label[8:].hex(), "12000000")

    @settings(max_examples=100, deadline=None)
    @given(st.one_of(st.binary(max_size=20), st.binary(min_size=12, max_size=12)))
    def test_anyBytes(self, data: bytes) -> None:
        """Any bytes are a label, or a L{WireError}."""
        try:
            moment = decodeTimestamp(data)
        except WireError:
            return
        self.assertLessEqual(tai64n(moment), data)

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 1 << 62))
    def test_roundTrip(self, moment: int) -> None:
        """A label stands for its time, rounded down by less than 17 ms."""
        decoded = decodeTimestamp(tai64n(moment))
        self.assertTrue(0 <= moment - decoded < 1 << 24)

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 1 << 62), st.integers(0, 1 << 62))
    def test_orderOfBytesIsOrderOfTimes(self, one: int, other: int) -> None:
        """Labels compare, as bytes, as their times do."""
        if tai64n(one) < tai64n(other):
            self.assertLess(one, other)


class TimestampSourceTests(SynchronousTestCase):
    """
    Tests for L{TimestampSource}.
    """

    def setUp(self) -> None:
        """A clock that the test sets, and a disk that may be cut off."""
        self.clock = 1_700_000_000.0
        self.disk: list[bytes] = []

    def source(self, stored: bytes = b"", reservation: float = 60.0) -> TimestampSource:
        """A source on our clock and disk."""
        return TimestampSource(
            lambda: self.clock,
            stored,
            save=self.disk.append,
            reservation=reservation,
        )

    def test_tellsTheTime(self) -> None:
        """The timestamp is the time of the clock."""
        self.assertEqual(decodeTimestamp(self.source()()), 1_700_000_000 * _SECOND)

    def test_increasesWhileClockStands(self) -> None:
        """Many timestamps within one tick of the clock are all different."""
        source = self.source()
        given = [source() for _ in range(500)]
        self.assertEqual(given, sorted(set(given)))

    def test_increasesWhenClockStepsBack(self) -> None:
        """A clock that is set back does not take the timestamps with it."""
        source = self.source()
        before = source()
        self.clock -= 86400
        after = source()
        self.assertGreater(after, before)
        self.clock -= 1_800_000_000
        self.assertGreater(source(), after)

    def test_catchesUp(self) -> None:
        """Once the clock is ahead again it is followed."""
        source = self.source()
        source()
        self.clock += 5
        self.assertEqual(decodeTimestamp(source()), 1_700_000_005 * _SECOND)

    def test_cleanRestart(self) -> None:
        """A run that starts from C{last} goes on above it."""
        source = self.source()
        self.clock += 7
        newest = source()
        self.assertEqual(source.last, newest)
        self.clock -= 3600
        self.assertGreater(self.source(source.last)(), newest)

    def test_lastBeforeFirst(self) -> None:
        """There is nothing to save before anything was given out or read."""
        self.assertEqual(self.source().last, b"")

    def test_crashNeverGoesBack(self) -> None:
        """
        Whenever the node dies, what it saved last is not below what it gave out.
        """
        source = self.source()
        newest = b""
        for _ in range(300):
            self.clock += 0.9
            newest = source()
            self.assertGreaterEqual(self.disk[-1], newest)
            crashed = TimestampSource(lambda: 5.0, self.disk[-1])
            self.assertGreater(crashed(), newest)

    def test_fewWrites(self) -> None:
        """One write serves all timestamps of the reserved time."""
        source = self.source(reservation=60.0)
        for _ in range(600):
            source()
            self.clock += 0.5
        self.assertEqual(len(self.disk), 5)

    def test_stepForwardIsReserved(self) -> None:
        """A clock that leaps ahead of the reservation makes a new one first."""
        source = self.source()
        source()
        self.clock += 1e6
        newest = source()
        self.assertEqual(len(self.disk), 2)
        self.assertGreater(self.disk[-1], newest)

    def test_worksWithoutDisk(self) -> None:
        """Nobody has to save anything."""
        source = TimestampSource(lambda: self.clock)
        self.assertLess(source(), source())

    def test_malformedStorage(self) -> None:
        """What is no timestamp is refused, not taken for one."""
        for stored in (b"x", bytes(12), b"\xff" * 12):
            self.assertRaises(WireError, TimestampSource, lambda: 0.0, stored)

    def test_clockBeforeTheEpoch(self) -> None:
        """A machine that thinks it is 1969 still gets increasing timestamps."""
        self.clock = -1000.0
        source = self.source()
        self.assertLess(source(), source())

"""Tests of bound ports, ephemeral ports and of what wakes objects."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import NoFreePort, PortInUse
from tsrt.netstack import ports
from tsrt.netstack.limits import RateLimiter
from tsrt.netstack.ready import DeadlineHeap, ReadyList
from tsrt.test.test_wire_ip import A4, A6, B4


class TableTests(SynchronousTestCase):
    """Who collides with whom, and who gets what."""

    def setUp(self) -> None:
        self.table: ports.PortTable[str] = ports.PortTable()

    def test_collisions(self) -> None:
        """Equal scopes collide; a dual wildcard collides with each family."""
        scopes: list[ports.Scope] = [None, 4, 6, A4, B4, A6]
        colliding = {(None, 4), (4, None), (None, 6), (6, None)}
        for first in scopes:
            for second in scopes:
                table: ports.PortTable[str] = ports.PortTable()
                table.add(first, 80, "first")
                if first == second or (first, second) in colliding:
                    self.assertRaises(PortInUse, table.add, second, 80, "second")
                else:
                    table.add(second, 80, "second")
                table.add(second, 81, "other port")

    def test_mostSpecificWins(self) -> None:
        """One address goes before its family, the family before everything."""
        self.table.add(None, 80, "all")
        self.assertEqual(self.table.find(A4, 80), "all")
        self.assertEqual(self.table.find(A6, 80), "all")
        self.table.add(A4, 80, "one")
        self.assertEqual(self.table.find(A4, 80), "one")
        self.assertEqual(self.table.find(B4, 80), "all")
        self.assertIsNone(self.table.find(A4, 81))

    def test_families(self) -> None:
        """IPv4 alone and IPv6 alone share a port without mixing."""
        self.table.add(4, 80, "four")
        self.assertIsNone(self.table.find(A6, 80))
        self.table.add(6, 80, "six")
        self.assertEqual(self.table.find(A4, 80), "four")
        self.assertEqual(self.table.find(A6, 80), "six")

    def test_T_handles_staleRemove(self) -> None:
        """Removing twice does not take the port from its new owner."""
        self.table.add(None, 80, "old")
        self.table.remove(None, 80, "old")
        self.assertFalse(self.table.isUsed(80))
        self.table.add(None, 80, "new")
        self.table.remove(None, 80, "old")
        self.assertEqual(self.table.find(A4, 80), "new")
        self.assertTrue(self.table.isUsed(80))

    def test_usedInAnyScope(self) -> None:
        """A port is used until its last binding is gone."""
        self.table.add(4, 80, "four")
        self.table.add(A6, 80, "one")
        self.table.remove(4, 80, "four")
        self.assertTrue(self.table.isUsed(80))
        self.table.remove(A6, 80, "one")
        self.assertFalse(self.table.isUsed(80))
        self.assertEqual(len(self.table), 0)

    def test_checks(self) -> None:
        """Scopes and ports that are none are refused."""
        for scope in (5, b"abc", "x"):
            self.assertRaises(ValueError, ports.checkScope, scope)
        for scope in (None, 4, 6, A4, A6):
            ports.checkScope(scope)
        self.assertRaises(ValueError, ports.checkPort, 0)
        ports.checkPort(1)
        ports.checkPort(0, 0)
        ports.checkPort(65535)
        self.assertRaises(ValueError, ports.checkPort, 65536)

    def test_covers(self) -> None:
        """Scopes cover what they say."""
        self.assertTrue(ports.covers(None, A6))
        self.assertTrue(ports.covers(4, A4))
        self.assertFalse(ports.covers(4, A6))
        self.assertTrue(ports.covers(6, A6))
        self.assertFalse(ports.covers(6, A4))
        self.assertTrue(ports.covers(A4, A4))
        self.assertFalse(ports.covers(A4, B4))


class EphemeralTests(SynchronousTestCase):
    """The choice of ephemeral ports."""

    def test_range(self) -> None:
        """Any random bytes choose a port of the dynamic range."""
        for drawn in (b"\0\0", b"\xff\xff", b"\x3f\xff", b"\x40\x00"):
            port = ports.chooseEphemeral(lambda n, drawn=drawn: drawn, lambda _: True)
            self.assertIn(port, range(49152, 65536))

    def test_T_ephCollision_skipsUsed(self) -> None:
        """A port in use is passed over, around the end of the range."""
        used = {65535, 49152, 49153}
        port = ports.chooseEphemeral(lambda n: b"\x3f\xff", lambda p: p not in used)
        self.assertEqual(port, 49154)

    def test_exhausted(self) -> None:
        """With every port taken the failure says so."""
        self.assertRaises(
            NoFreePort, ports.chooseEphemeral, os.urandom, lambda _: False
        )
        last = ports.chooseEphemeral(os.urandom, lambda port: port == 50000)
        self.assertEqual(last, 50000)


class Sleeper:
    """Something with a deadline."""

    def __init__(self, due: float | None) -> None:
        self.due = due

    def deadline(self) -> float | None:
        """When to wake."""
        return self.due


class DeadlineHeapTests(SynchronousTestCase):
    """Many deadlines."""

    def test_laterDeadline(self) -> None:
        """A deadline that moved later without notice is honoured."""
        heap: DeadlineHeap[Sleeper] = DeadlineHeap()
        item = Sleeper(1.0)
        heap.note(item)
        item.due = 5.0
        # That is found out when it comes up, no sooner.
        self.assertEqual(heap.deadline(), 1.0)
        self.assertEqual(heap.due(2.0), [])
        self.assertEqual(heap.deadline(), 5.0)
        self.assertEqual(heap.due(5.0), [item])
        self.assertIsNone(heap.deadline())

    def test_earlierDeadline(self) -> None:
        """A deadline that moved earlier counts once it is noted, one time."""
        heap: DeadlineHeap[Sleeper] = DeadlineHeap()
        item = Sleeper(5.0)
        heap.note(item)
        item.due = 1.0
        heap.note(item)
        self.assertEqual(heap.deadline(), 1.0)
        self.assertEqual(heap.due(10.0), [item])
        self.assertEqual(heap.due(10.0), [])

    def test_forgotten(self) -> None:
        """What is forgotten does not wake."""
        heap: DeadlineHeap[Sleeper] = DeadlineHeap()
        item = Sleeper(1.0)
        heap.note(item)
        heap.forget(item)
        self.assertIsNone(heap.deadline())
        self.assertEqual(heap.due(2.0), [])

    def test_noDeadline(self) -> None:
        """An object without a deadline is not woken."""
        heap: DeadlineHeap[Sleeper] = DeadlineHeap()
        item = Sleeper(1.0)
        heap.note(item)
        item.due = None
        self.assertEqual(heap.due(2.0), [])
        self.assertIsNone(heap.deadline())
        heap.note(item)
        self.assertEqual(len(heap), 0)
        item.due = 1.0
        heap.note(item)
        item.due = None
        self.assertEqual(heap.due(2.0), [])

    def test_staleEntriesBounded(self) -> None:
        """Deadlines that move back and forth do not pile up."""
        heap: DeadlineHeap[Sleeper] = DeadlineHeap()
        item = Sleeper(0.0)
        for turn in range(10000):
            item.due = 1e6 - turn
            heap.note(item)
        self.assertLess(len(heap._heap), 200)
        self.assertEqual(heap.deadline(), 1e6 - 9999)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 5),
                st.none() | st.integers(0, 50),
                st.integers(0, 3),
            ),
            max_size=150,
        )
    )
    @settings(max_examples=100, deadline=None)
    def test_againstPlainMinimum(
        self, steps: list[tuple[int, int | None, int]]
    ) -> None:
        """The heap agrees with the minimum over all noted objects."""
        heap: DeadlineHeap[Sleeper] = DeadlineHeap()
        items = [Sleeper(None) for _ in range(6)]
        alive: set[Sleeper] = set()
        now = 0
        for which, due, step in steps:
            item = items[which]
            now += step
            item.due = due
            if due is None and which % 2:
                heap.forget(item)
                alive.discard(item)
            else:
                heap.note(item)
                alive.add(item)
            woken = heap.due(now)
            expected = {i for i in alive if i.due is not None and i.due <= now}
            self.assertEqual(set(woken), expected)
            self.assertEqual(len(woken), len(expected))
            alive -= expected
            earliest = min((i.due for i in alive if i.due is not None), default=None)
            found = heap.deadline()
            if earliest is not None:
                # Too early is good enough.
                self.assertIsNotNone(found)
                self.assertLessEqual(found, earliest)
            # Nothing is looked at twice.
            if found is not None:
                self.assertGreater(found, now)


class ReadyListTests(SynchronousTestCase):
    """Marks for the application."""

    def test_once(self) -> None:
        """An object appears once per call, in order of its first mark."""
        ready: ReadyList[str] = ReadyList()
        for name in ("b", "a", "b"):
            ready.mark(name)
        self.assertEqual(ready.take(), ["b", "a"])
        self.assertEqual(ready.take(), [])

    def test_discard(self) -> None:
        """A discarded object does not appear."""
        ready: ReadyList[str] = ReadyList()
        ready.mark("a")
        ready.discard("a")
        ready.discard("b")
        self.assertEqual(len(ready), 0)
        self.assertEqual(ready.take(), [])


class RateLimiterTests(SynchronousTestCase):
    """Tokens."""

    def test_burstAndRate(self) -> None:
        """A burst goes at once, then as many as the rate gives."""
        limiter = RateLimiter(10.0, 3.0)
        self.assertEqual(
            [limiter.allow(5.0) for _ in range(5)], [True] * 3 + [False] * 2
        )
        self.assertTrue(limiter.allow(5.125))
        self.assertFalse(limiter.allow(5.125))
        self.assertEqual(sum(limiter.allow(100.0) for _ in range(9)), 3)

    def test_clockBackwards(self) -> None:
        """A clock that goes back gives no tokens and takes none."""
        limiter = RateLimiter(10.0, 1.0)
        self.assertTrue(limiter.allow(5.0))
        self.assertFalse(limiter.allow(1.0))
        self.assertTrue(limiter.allow(1.2))

"""Tests for L{tsrt.netstack.recvbuf}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.recvbuf import MAX_ISLANDS, ReceiveBuffer
from tsrt.test.netlink import pattern


class OrderedTests(SynchronousTestCase):
    """Data that arrives in order."""

    def test_read(self) -> None:
        """What was taken is read in order, at once or in pieces."""
        buffer = ReceiveBuffer(10)
        buffer.extend([b"abc", b"def"], 6)
        self.assertEqual((buffer.next, buffer.readable), (16, 6))
        self.assertEqual(buffer.read(2), b"ab")
        self.assertEqual(buffer.readable, 4)
        buffer.extend([b"gh"], 2)
        self.assertEqual(buffer.read(), b"cdefgh")
        self.assertEqual(buffer.read(), b"")
        self.assertEqual((buffer.next, buffer.readable), (18, 0))

    def test_readWholeChunks(self) -> None:
        """Chunks are given out as they came, as many as the limit allows."""
        buffer = ReceiveBuffer(0)
        chunks = [b"abc", b"de", b"fgh"]
        buffer.extend(chunks, 8)
        self.assertEqual(buffer.read(7), b"abcde")
        self.assertEqual(buffer.readable, 3)
        self.assertIs(buffer.read(3), chunks[2])
        self.assertEqual(buffer.readable, 0)

    def test_readNothing(self) -> None:
        """Asking for nothing gives nothing."""
        buffer = ReceiveBuffer(0)
        buffer.extend([b"abc"], 3)
        self.assertEqual(buffer.read(0), b"")
        self.assertEqual(buffer.readable, 3)

    def test_smallChunks(self) -> None:
        """Many tiny segments are joined, so that they cost their bytes only."""
        buffer = ReceiveBuffer(0)
        for number in range(5000):
            buffer.extend([bytes([number & 0xFF])], 1)
        self.assertLess(len(buffer._chunks), 100)
        self.assertEqual(buffer.read(), bytes(n & 0xFF for n in range(5000)))

    def test_clear(self) -> None:
        """Clearing drops what waits, in order or not."""
        buffer = ReceiveBuffer(0)
        buffer.extend([b"abc"], 3)
        buffer.insert(9, b"x")
        buffer.clear()
        self.assertEqual((buffer.readable, buffer.hasIslands), (0, False))
        self.assertEqual(buffer.blocks(4), [])


class IslandTests(SynchronousTestCase):
    """Data that arrives out of order."""

    def test_gapFilled(self) -> None:
        """Islands join the stream once the gap before them is filled."""
        buffer = ReceiveBuffer(0)
        self.assertEqual(buffer.insert(3, b"def"), 0)
        self.assertTrue(buffer.hasIslands)
        self.assertEqual(buffer.insert(0, b"abc"), 6)
        self.assertEqual(buffer.read(), b"abcdef")
        self.assertFalse(buffer.hasIslands)

    def test_firstWins(self) -> None:
        """Where segments overlap, the bytes that came first stay."""
        buffer = ReceiveBuffer(0)
        buffer.insert(4, b"4567")
        buffer.insert(2, b"ABCDEFGH")
        self.assertEqual(buffer.blocks(4), [(2, 10)])
        buffer.insert(0, b"zzzzzzzzzzzz")
        self.assertEqual(buffer.read(), b"zzAB4567GHzz")

    def test_inOrderOverlap(self) -> None:
        """A segment that covers an island and reaches beyond keeps both."""
        buffer = ReceiveBuffer(0)
        buffer.insert(2, b"CD")
        buffer.insert(6, b"GH")
        self.assertEqual(buffer.insert(0, b"abcdefghij"), 10)
        self.assertEqual(buffer.read(), b"abCDefGHij")

    def test_old(self) -> None:
        """What lies before the stream's end is cut off."""
        buffer = ReceiveBuffer(0)
        buffer.extend([b"abcd"], 4)
        self.assertEqual(buffer.insert(0, b"ABCD"), 0)
        self.assertEqual(buffer.insert(2, b"CDEF"), 2)
        self.assertEqual(buffer.read(), b"abcdEF")

    def test_touchingMerge(self) -> None:
        """Neighbours become one island, whichever came first."""
        buffer = ReceiveBuffer(0)
        buffer.insert(10, b"bb")
        buffer.insert(12, b"cc")
        buffer.insert(8, b"aa")
        self.assertEqual(buffer.blocks(4), [(8, 14)])
        buffer.insert(20, b"d")
        buffer.insert(14, b"ffffff")
        self.assertEqual(buffer.blocks(4), [(8, 21)])
        self.assertEqual(buffer.highest, 21)

    def test_blocksNewestFirst(self) -> None:
        """The first block holds the newest segment (RFC 2018 section 4)."""
        buffer = ReceiveBuffer(0)
        for start in (10, 20, 30, 40):
            buffer.insert(start, b"xx")
        self.assertEqual(buffer.blocks(3), [(40, 42), (30, 32), (20, 22)])
        buffer.insert(12, b"y")
        self.assertEqual(buffer.blocks(2), [(10, 13), (40, 42)])
        buffer.insert(15, b"z")
        self.assertEqual(buffer.blocks(2), [(15, 16), (10, 13)])

    def test_islandsBounded(self) -> None:
        """Only so many islands are kept; more are dropped and counted."""
        buffer = ReceiveBuffer(0)
        for number in range(MAX_ISLANDS + 5):
            buffer.insert(10 + 2 * number, b"x")
        self.assertEqual(len(buffer.blocks(10_000)), MAX_ISLANDS)
        self.assertEqual(buffer.refused, 5)
        # Growing an island is still possible.
        buffer.insert(11, b"y")
        self.assertEqual(buffer.blocks(1), [(10, 13)])
        self.assertEqual(buffer.refused, 5)

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 60), st.integers(0, 20), st.integers(0, 255)),
            max_size=30,
        )
    )
    def test_model(self, segments: list[tuple[int, int, int]]) -> None:
        """Any segments leave what a plain first-wins table would hold."""
        buffer = ReceiveBuffer(0)
        table: dict[int, int] = {}
        end = 0
        read = bytearray()
        for start, size, value in segments:
            moved = buffer.insert(start, bytes([value]) * size)
            for position in range(start, start + size):
                table.setdefault(position, value)
            before = end
            while end in table:
                end += 1
            self.assertEqual((moved, buffer.next), (end - before, end))
            held = set()
            for left, right in buffer.blocks(1000):
                self.assertGreater(left, end)
                held |= set(range(left, right))
            self.assertEqual(held, {p for p in table if p > end})
            read += buffer.read(7)
        read += buffer.read()
        self.assertEqual(bytes(read), bytes(table[p] for p in range(end)))

    @settings(max_examples=100, deadline=None)
    @given(st.permutations(range(20)))
    def test_anyOrder(self, order: list[int]) -> None:
        """Pieces of a stream in any order give the stream."""
        source = pattern(200)
        buffer = ReceiveBuffer(0)
        for number in order:
            buffer.insert(number * 10, source[number * 10 : number * 10 + 10])
        self.assertEqual(buffer.read(), source)

"""Tests for L{tsrt.netstack.recvbuf}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.recvbuf import MAX_ISLANDS, Island, ReceiveBuffer
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

    def test_readBitByBit(self) -> None:
        """What is left of many chunks is not moved each time that one is read."""
        buffer = ReceiveBuffer(0)
        chunks = [pattern(1000, seed) for seed in range(3000)]
        buffer.extend(chunks, 3_000_000)
        lists = {id(buffer._chunks)}
        for chunk in chunks[:2900]:
            self.assertIs(buffer.read(1000), chunk)
            lists.add(id(buffer._chunks))
            # Nor is what was read kept.
            self.assertEqual(sum(map(len, buffer._chunks)), buffer.readable)
        self.assertEqual(len(lists), 1)
        self.assertLess(len(buffer._chunks), 300)
        self.assertEqual(buffer.read(1500), chunks[2900])
        self.assertEqual(buffer.read(500), chunks[2901][:500])
        buffer.extend([b"end"], 3)
        expected = chunks[2901][500:] + b"".join(chunks[2902:]) + b"end"
        self.assertEqual(buffer.read(), expected)
        self.assertEqual((buffer.readable, buffer.read()), (0, b""))

    def test_joinedHalfRead(self) -> None:
        """Chunks are joined without those that were read."""
        buffer = ReceiveBuffer(0)
        source = pattern(2000)
        buffer.extend([source[n : n + 2] for n in range(0, 100, 2)], 100)
        read = buffer.read(7) + buffer.read(12) + buffer.read(3)
        for number in range(100, 2000):
            buffer.extend([source[number : number + 1]], 1)
            if not number % 5:
                read += buffer.read(3)
        self.assertLess(len(buffer._chunks), 200)
        self.assertEqual(read + buffer.read(), source)

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


class EffortTests(SynchronousTestCase):
    """What a segment costs does not depend on how much waits."""

    def arrive(self, order: list[int], size: int = 1200) -> ReceiveBuffer:
        """
        Segments come in some order, but for the very first, and are read again one
        by one: the very objects that came, so that nothing was copied.
        """
        segments = [bytes((n & 0xFF, n >> 8)) * (size // 2) for n in range(len(order))]
        buffer = ReceiveBuffer(0)
        for number in order:
            buffer.insert(number * size, segments[number])
        self.assertEqual(buffer.refused, 0)
        self.assertFalse(buffer.hasIslands)
        self.assertEqual(buffer.readable, len(order) * size)
        for segment in segments:
            self.assertIs(buffer.read(size), segment)
        return buffer

    def countMoves(self) -> list[int]:
        """How many pieces are moved from one island to another, each time."""
        moves: list[int] = []
        for name in ("appendAll", "prependAll"):
            original = getattr(Island, name)

            def counted(island: Island, other: Island, original=original) -> None:
                moves.append(len(other))
                original(island, other)

            self.patch(Island, name, counted)
        return moves

    def test_forwards(self) -> None:
        """Segments behind a gap, in order, are copied by nobody."""
        self.arrive([*range(1, 3300), 0])

    def test_backwards(self) -> None:
        """Neither are segments that come in the reverse of their order."""
        moves = self.countMoves()
        self.arrive([*range(3299, -1, -1)])
        self.assertEqual(moves, [])

    def test_bothEnds(self) -> None:
        """Nor those that come now before what is there, now behind it."""
        order = [1650]
        for distance in range(1, 1650):
            order += [1650 - distance, 1650 + distance]
        self.arrive([*order, 0])

    def test_joining(self) -> None:
        """
        Of islands that become one the smaller is moved, whichever it is, so that
        no piece is moved more often than the number of pieces can be doubled.
        """
        moves = self.countMoves()
        count = 256
        self.arrive([*range(1, count, 2), *range(count - 2, 0, -2), 0])
        self.assertEqual(sum(moves), count // 2 - 1)
        moves.clear()
        self.arrive([*range(1, count, 2), *range(2, count, 2), 0])
        self.assertEqual(sum(moves), count // 2 - 1)
        # Pairs, then pairs of pairs, and so on.
        moves.clear()
        order = [*range(1, count, 2)]
        step = 2
        while step < count:
            order += range(step, count, 2 * step)
            step *= 2
        self.arrive([*order, 0])
        self.assertLessEqual(sum(moves), count // 2 * 8)

    def test_tiny(self) -> None:
        """
        Bytes that come one by one are joined now and then, so that they do not
        cost an object each; that is seldom enough.
        """
        copied = 0
        bound = Island.bound

        def counted(island: Island, start: int) -> None:
            nonlocal copied
            before = len(island)
            bound(island, start)
            if len(island) < before:
                copied += island.end - start

        self.patch(Island, "bound", counted)
        size = 20_000
        source = pattern(size)
        for order in (range(1, size), range(size - 1, 0, -1)):
            buffer = ReceiveBuffer(0)
            copied = 0
            for number in order:
                buffer.insert(number, source[number : number + 1])
                self.assertLess(len(buffer._islands[0]), 66 + size // 256)
            self.assertLess(copied, 256 * size)
            self.assertEqual(buffer.insert(0, source[:1]), size)
            self.assertEqual(buffer.read(), source)

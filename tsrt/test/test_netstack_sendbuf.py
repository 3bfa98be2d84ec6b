"""Tests for L{tsrt.netstack.sendbuf}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.sendbuf import SendBuffer
from tsrt.test.netlink import pattern


def held(buffer: SendBuffer) -> int:
    """Bytes in memory, acknowledged or not."""
    return sum(map(len, buffer._pieces))


class SendBufferTests(SynchronousTestCase):
    """The contiguous outgoing stream."""

    def test_slices(self) -> None:
        """Any range of what was written can be cut out, again and again."""
        buffer = SendBuffer(100)
        buffer.append(b"hello ")
        buffer.append(memoryview(b"world"))
        self.assertEqual(buffer.slice(100, 111), b"hello world")
        self.assertEqual(buffer.slice(104, 108), b"o wo")
        self.assertEqual(buffer.slice(104, 108), b"o wo")
        self.assertEqual((buffer.base, buffer.end, len(buffer)), (100, 111, 11))

    def test_outside(self) -> None:
        """Positions beyond what is held are cut off: a FIN has no bytes."""
        buffer = SendBuffer(100)
        buffer.append(b"abc")
        self.assertEqual(buffer.slice(101, 104), b"bc")
        self.assertEqual(buffer.slice(103, 104), b"")
        self.assertEqual(buffer.slice(90, 95), b"")

    def test_discard(self) -> None:
        """Acknowledged bytes go; positions stay what they were."""
        buffer = SendBuffer(100)
        buffer.append(b"abcdef")
        buffer.discard(103)
        self.assertEqual(buffer.slice(103, 106), b"def")
        self.assertEqual(buffer.slice(100, 104), b"d")
        buffer.discard(99)
        self.assertEqual(len(buffer), 3)
        buffer.append(b"gh")
        self.assertEqual(buffer.slice(103, 108), b"defgh")

    def test_T_memory(self) -> None:
        """An emptied buffer holds no memory; a used one gives most back."""
        buffer = SendBuffer(0)
        buffer.append(bytes(1 << 20))
        buffer.discard(1 << 20)
        self.assertEqual(held(buffer), 0)
        buffer.append(bytes(1 << 20))
        buffer.discard((1 << 20) + 900_000)
        self.assertLess(held(buffer), 200_000)
        self.assertEqual(len(buffer), (1 << 20) - 900_000)

    def test_T_memory_pieces(self) -> None:
        """Of many pieces those go that are acknowledged, and their entries."""
        buffer = SendBuffer(0)
        for _ in range(1000):
            buffer.append(bytes(5000))
        buffer.discard(4_999_000)
        self.assertEqual(held(buffer), 5000)
        self.assertEqual(buffer.slice(4_999_000, 5_000_000), bytes(1000))
        self.assertLess(len(buffer._starts), 200)

    def test_T_memory_small(self) -> None:
        """Many small writes are few pieces."""
        buffer = SendBuffer(0)
        for number in range(10_000):
            buffer.append(bytes((number & 255,)))
        self.assertLess(len(buffer._pieces), 10)
        self.assertEqual(buffer.slice(255, 258), b"\xff\x00\x01")

    def test_notCopied(self) -> None:
        """Large pieces are kept as they are, unless they might change."""
        buffer = SendBuffer(0)
        fixed, changing = bytes(10_000), bytearray(b"x" * 10_000)
        buffer.append(fixed)
        buffer.append(changing)
        changing[:] = b"y" * 10_000
        self.assertIs(buffer.slice(0, 10_000), fixed)
        self.assertEqual(buffer.slice(10_000, 20_000), b"x" * 10_000)

    def test_clear(self) -> None:
        """Clearing drops everything."""
        buffer = SendBuffer(7)
        buffer.append(b"abc")
        buffer.clear()
        self.assertEqual((len(buffer), buffer.base, buffer.end), (0, 10, 10))

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(st.booleans(), st.integers(0, 120_000)), min_size=1, max_size=25
        )
    )
    def test_model(self, steps: list[tuple[bool, int]]) -> None:
        """Whatever is written and acknowledged, the bytes stay in place."""
        source = pattern(3_200_000)
        buffer = SendBuffer(0)
        written = acked = 0
        for write, size in steps:
            if write:
                buffer.append(source[written : written + size])
                written += size
            else:
                acked = min(written, acked + size)
                buffer.discard(acked)
            self.assertEqual((buffer.base, buffer.end), (acked, written))
            middle = (acked + written) // 2
            self.assertEqual(buffer.slice(acked, middle), source[acked:middle])
            self.assertEqual(buffer.slice(middle, written), source[middle:written])

"""Tests of putting fragments together, of overlaps and of bombs."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.fragments import Reassembler
from tsrt.netstack.limits import StackCounters, StackLimits
from tsrt.test.test_wire_ip import A4, A6, B4, B6, v4
from tsrt.wire.ip import buildPackets, parseIP

PAIRS = ((A4, B4), (A6, B6))


def cut(
    pair: tuple[bytes, bytes], payload: bytes, ident: int = 7, mtu: int = 576
) -> list[bytes]:
    """The fragments of a UDP packet."""
    return buildPackets(*pair, 17, payload, mtu, ident)


def piece(offset: int, data: bytes, more: bool, ident: int = 9) -> bytes:
    """One IPv4 fragment, put together by hand."""
    return v4(data, flags=offset >> 3 | (0x2000 if more else 0), ident=ident)


class ReassemblyTests(SynchronousTestCase):
    """Fragments in, packets out."""

    def setUp(self) -> None:
        self.make()

    def make(self, **limits: object) -> None:
        """Make a reassembler with other limits."""
        self.counters = StackCounters()
        self.parts = Reassembler(
            StackLimits(**limits),  # type: ignore[arg-type]  # as a test gives them
            self.counters,
        )

    def add(self, packet: bytes, now: float = 0.0) -> bytes | None:
        """Hand one fragment over."""
        header = parseIP(packet)
        assert header.isFragment
        return self.parts.add(header, now)

    def assertEmpty(self) -> None:
        """Nothing is held any more."""
        self.assertEqual((len(self.parts), self.parts.held), (0, 0))
        self.assertIsNone(self.parts.deadline())

    def test_inOrder(self) -> None:
        """The last fragment brings the whole packet, for both families."""
        payload = bytes(range(256)) * 8
        for pair in PAIRS:
            *first, last = cut(pair, payload)
            for packet in first:
                self.assertIsNone(self.add(packet))
            whole = self.add(last)
            assert whole is not None
            header = parseIP(whole)
            self.assertEqual(whole[header.start : header.end], payload)
            self.assertEqual((header.source, header.destination), pair)
            self.assertEqual((header.protocol, header.isFragment), (17, False))
        self.assertEqual(self.counters.reassembled, 2)
        self.assertEmpty()

    @given(st.integers(1, 4000), st.integers(100, 1280), st.integers(0, 2**16))
    @settings(max_examples=60, deadline=None)
    def test_anyOrder(self, size: int, mtu: int, seed: int) -> None:
        """Fragments in any order and repeated give the same packet, once."""
        self.make()
        payload = bytes(i * 7 & 0xFF for i in range(size))
        for pair in PAIRS:
            packets = cut(pair, payload, mtu=mtu)
            if len(packets) == 1:
                continue
            shuffled = packets + packets[: len(packets) // 2]
            random.Random(seed).shuffle(shuffled)
            got = []
            seen: set[bytes] = set()
            for packet in shuffled:
                whole = self.add(packet)
                seen.add(packet)
                if whole is not None:
                    got.append(whole)
                if len(seen) == len(packets):
                    break
            header = parseIP(got[0])
            self.assertEqual(len(got), 1)
            self.assertEqual(got[0][header.start :], payload)

    def test_identKeepsApart(self) -> None:
        """Fragments of different packets do not mix."""
        one = cut((A4, B4), b"a" * 1000, ident=1)
        two = cut((A4, B4), b"b" * 1000, ident=2)
        self.assertIsNone(self.add(one[0]))
        self.assertIsNone(self.add(two[1]))
        self.assertIn(b"a" * 1000, self.add(one[1]) or b"")
        self.assertIn(b"b" * 1000, self.add(two[0]) or b"")

    def test_protocolKeepsApart(self) -> None:
        """In IPv4 packets of different protocols may have the same number."""
        one = buildPackets(A4, B4, 17, b"a" * 1000, 576, 1)
        two = buildPackets(A4, B4, 1, b"b" * 1000, 576, 1)
        self.assertIsNone(self.add(one[0]))
        self.assertIsNone(self.add(two[1]))
        whole = self.add(one[1]) or b""
        self.assertEqual((parseIP(whole).protocol, whole[20:]), (17, b"a" * 1000))
        whole = self.add(two[0]) or b""
        self.assertEqual((parseIP(whole).protocol, whole[20:]), (1, b"b" * 1000))

    def test_firstFragmentNamesProtocol(self) -> None:
        """In IPv6 fragments that disagree, the first one decides."""
        one = buildPackets(A6, B6, 17, b"a" * 1000, 576, 1)
        two = buildPackets(A6, B6, 6, b"a" * 1000, 576, 1)
        self.assertIsNone(self.add(two[1]))
        self.assertEqual(parseIP(self.add(one[0]) or b"").protocol, 17)

    def test_overlap(self) -> None:
        """Overlapping fragments condemn the packet and what comes later of it."""
        for overlapping in (
            piece(8, b"y" * 16, True),
            piece(0, b"y" * 24, True),
            piece(0, b"y" * 16, True),
            piece(8, b"y" * 8, False),
        ):
            self.make()
            self.assertIsNone(self.add(piece(0, b"x" * 16, True)))
            self.assertIsNone(self.add(overlapping))
            self.assertEqual(self.counters.droppedFragmentOverlap, 1)
            self.assertEqual(self.parts.held, 0)
            self.assertIsNone(self.add(piece(16, b"z" * 8, False)))
            self.assertIsNone(self.add(piece(0, b"x" * 16, True)))
            self.assertEqual(self.counters.reassembled, 0)
            self.parts.tick(31.0)
            self.assertEmpty()

    def test_overlapV6(self) -> None:
        """The same holds for IPv6 (RFC 5722)."""
        packets = cut(PAIRS[1], b"x" * 2000)
        other = cut(PAIRS[1], b"y" * 2000, mtu=400)
        self.assertIsNone(self.add(packets[0]))
        self.assertIsNone(self.add(other[1]))
        for packet in packets[1:]:
            self.assertIsNone(self.add(packet))
        self.assertEqual(self.counters.reassembled, 0)

    def test_duplicate(self) -> None:
        """A repetition of the same fragment does no harm."""
        self.assertIsNone(self.add(piece(0, b"x" * 16, True)))
        self.assertIsNone(self.add(piece(0, b"x" * 16, True)))
        self.assertIsNotNone(self.add(piece(16, b"z", False)))
        self.assertEqual(self.counters.droppedFragmentOverlap, 0)

    def test_secondEnd(self) -> None:
        """Two different ends condemn the packet."""
        for second in (piece(16, b"z", False), piece(32, b"z", False)):
            self.make()
            self.assertIsNone(self.add(piece(24, b"z", False)))
            self.assertIsNone(self.add(second))
            self.assertEqual(self.counters.droppedFragmentOverlap, 1)

    def test_beyondEnd(self) -> None:
        """Data beyond the end condemns the packet, whichever came first."""
        self.assertIsNone(self.add(piece(24, b"z" * 8, True)))
        self.assertIsNone(self.add(piece(8, b"z", False)))
        self.assertEqual(self.counters.droppedFragmentOverlap, 1)
        self.make()
        self.assertIsNone(self.add(piece(8, b"z", False)))
        self.assertIsNone(self.add(piece(24, b"z" * 8, True)))
        self.assertEqual(self.counters.droppedFragmentOverlap, 1)

    def test_wrongFragments(self) -> None:
        """Empty, uneven and overlong fragments are dropped by themselves."""
        for wrong in (
            piece(8, b"", False),
            piece(0, b"x" * 9, True),
            piece(65512, b"x" * 8, False),
        ):
            self.assertIsNone(self.add(wrong))
        self.assertEqual(self.counters.droppedFragmentWrong, 3)
        self.assertEmpty()

    def test_largest(self) -> None:
        """The largest packet of each family can be put together."""
        for pair, size, total in zip(
            PAIRS, (65515, 65535), (65535, 65575), strict=True
        ):
            *first, last = cut(pair, bytes(size))
            for packet in first:
                self.add(packet)
            self.assertEqual(len(self.add(last) or b""), total)

    def test_timeout(self) -> None:
        """IPv4 waits 30 seconds for the missing part, IPv6 60."""
        self.add(cut(PAIRS[0], bytes(1000))[0], 100.0)
        self.add(cut(PAIRS[1], bytes(1000))[0], 100.0)
        self.assertEqual(self.parts.deadline(), 130.0)
        self.parts.tick(129.9)
        self.assertEqual(len(self.parts), 2)
        self.parts.tick(130.0)
        self.assertEqual((len(self.parts), self.parts.deadline()), (1, 160.0))
        self.parts.tick(160.0)
        self.assertEqual(self.counters.droppedFragmentTimeout, 2)
        self.assertEmpty()

    def test_bombOfDatagrams(self) -> None:
        """First fragments without end fill a bounded number of places."""
        self.make(reassemblies=10, reassembliesPerSource=6)
        for ident in range(100):
            self.add(piece(0, bytes(1000), True, ident))
        self.assertEqual(len(self.parts), 6)
        for ident in range(100):
            self.add(cut(PAIRS[1], bytes(2000), ident)[0])
        self.assertEqual(len(self.parts), 10)
        self.assertEqual(self.counters.droppedFragmentLimit, 190)
        self.parts.tick(1000.0)
        self.assertEmpty()
        self.assertIsNone(self.add(piece(0, bytes(8), True)))
        self.assertEqual(len(self.parts), 1)

    def test_bombOfBytes(self) -> None:
        """No more bytes are held than the limit says."""
        self.make(reassemblyBytes=5000)
        for ident in range(10):
            self.add(piece(0, bytes(1000), True, ident))
        self.assertEqual(self.parts.held, 5000)
        self.assertEqual(self.counters.droppedFragmentLimit, 5)

    def test_bombOfTinyFragments(self) -> None:
        """Eight thousand tiny fragments of one packet stay within the bound."""
        for offset in range(0, 65504, 8):
            self.assertIsNone(self.add(piece(offset, b"12345678", True)))
        self.assertEqual(self.parts.held, 65504)
        whole = self.add(piece(65504, b"1", False))
        self.assertEqual(len(whole or b""), 20 + 65505)
        self.assertEmpty()

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 40),
                st.binary(min_size=1, max_size=40),
                st.booleans(),
                st.integers(0, 2),
            ),
            max_size=30,
        )
    )
    @settings(max_examples=80, deadline=None)
    def test_anyFragments(self, parts: list[tuple[int, bytes, bool, int]]) -> None:
        """Any fragments leave the books balanced, and nothing after the end."""
        self.make()
        for offset, data, more, ident in parts:
            self.add(piece(offset * 8 or 8, data, more, ident))
        self.assertLessEqual(self.parts.held, 40 * len(parts))
        self.parts.tick(31.0)
        self.assertEmpty()

"""
Tests for L{tsrt.netmap.inspection}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.netmap.inspection import (
    flowKey,
    isAnswer,
    isLinkLocal,
    isMulticast,
    parseForFilter,
)
from tsrt.test.filterharness import V4, V6
from tsrt.test.filterpackets import ICMP, ICMPV6, TSMP, UDP, ip, tcp, udp

GRE = 47


class ParseTests(SynchronousTestCase):
    """
    Tests for L{parseForFilter}.
    """

    def test_whole(self) -> None:
        """Of a whole packet its header's place and its addresses are told."""
        for family, offset in ((V4, 20), (V6, 40)):
            source, own = parseAddress(family.peer), parseAddress(family.own)
            for body in (b"", b"x", bytes(300), bytes(60000)):
                self.assertEqual(
                    (GRE, source, own, offset, False),
                    parseForFilter(ip(family.peer, family.own, GRE, body)),
                )

    def test_options(self) -> None:
        """IPv4 options move the header; an option may be all there is."""
        for words in (1, 10):
            packet = ip(V4.peer, V4.own, GRE, b"", options=b"\1\1\1\1" * words)
            parsed = parseForFilter(packet)
            assert parsed is not None
            self.assertEqual(20 + 4 * words, parsed[3])

    def test_cutShort(self) -> None:
        """One byte less than the header says is too little."""
        for family in (V4, V6):
            for body in (b"", bytes(7), bytes(300)):
                packet = ip(family.peer, family.own, GRE, body)
                self.assertIsNotNone(parseForFilter(packet))
                self.assertIsNone(parseForFilter(packet[:-1]))

    def test_shorterThanItsHeader(self) -> None:
        """A length that ends within the header is malformed."""
        good = ip(V4.peer, V4.own, GRE, bytes(20), options=bytes(4))
        for total, isGood in ((23, False), (24, True), (25, True)):
            packet = good[:2] + total.to_bytes(2, "big") + good[4:]
            self.assertIs(isGood, parseForFilter(packet) is not None)
        self.assertIsNone(parseForFilter(b"\x44" + good[1:]))

    def test_versions(self) -> None:
        """Only the versions 4 and 6 are IP."""
        packet = bytearray(ip(V6.peer, V6.own, GRE, bytes(40)))
        for version in range(16):
            packet[0] = version << 4 | 5
            packet[4:6] = b"\0\x28"
            parsed = parseForFilter(bytes(packet))
            self.assertIs(version == 6, parsed is not None, version)

    def test_fragments(self) -> None:
        """Only later fragments are told to be that; large offsets, too."""
        for family, offset in ((V4, 20), (V6, 48)):
            source, own = parseAddress(family.peer), parseAddress(family.own)
            for units in (10, 32, 100, 8191):
                for more in (False, True):
                    packet = ip(
                        family.peer,
                        family.own,
                        UDP,
                        b"",
                        fragmentUnits=units,
                        moreFragments=more,
                    )
                    self.assertEqual(
                        (UDP, source, own, offset, True), parseForFilter(packet)
                    )
            for units in range(1, 10):
                packet = ip(
                    family.peer, family.own, UDP, bytes(80), fragmentUnits=units
                )
                self.assertIsNone(parseForFilter(packet), units)
            first = ip(family.peer, family.own, GRE, b"", moreFragments=True)
            self.assertEqual((GRE, source, own, offset, False), parseForFilter(first))

    def test_fragmentHeaderCutShort(self) -> None:
        """A fragment header of IPv6 that is not all there is malformed."""
        for length, isGood in ((7, False), (8, True)):
            packet = ip(V6.peer, V6.own, 44, (bytes((GRE,)) + bytes(7))[:length])
            self.assertIs(isGood, parseForFilter(packet) is not None)

    def test_dontFragment(self) -> None:
        """That a packet must not be fragmented does not make it a fragment."""
        packet = bytearray(ip(V4.peer, V4.own, TSMP, bytes(9)))
        packet[6] = 0x40
        parsed = parseForFilter(bytes(packet))
        assert parsed is not None
        self.assertFalse(parsed[4])
        packet[6] = 0x20
        self.assertIsNone(parseForFilter(bytes(packet)))

    def test_numbersOfNoProtocol(self) -> None:
        """Two numbers stand for no protocol; all others are one."""
        for family in (V4, V6):
            for protocol in range(256):
                packet = ip(family.peer, family.own, protocol, bytes((GRE, *bytes(39))))
                expected = protocol not in (0, 255)
                self.assertIs(expected, parseForFilter(packet) is not None, protocol)

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from((b"", b"\x45", b"\x4f", b"\x60")), st.binary(max_size=100))
    def test_anyBytes(self, first: bytes, rest: bytes) -> None:
        """What is read of any bytes lies within them."""
        packet = first + rest
        parsed = parseForFilter(packet)
        if parsed is None:
            return
        protocol, source, destination, offset, _ = parsed
        self.assertEqual(len(source), len(destination))
        self.assertIn(len(source), (4, 16))
        self.assertIn(protocol, packet)
        self.assertLessEqual(offset, len(packet))


class FlowKeyTests(SynchronousTestCase):
    """
    Tests for L{flowKey}.
    """

    def test_parts(self) -> None:
        """Protocol, both addresses and both ports, and nothing else."""
        for family in (V4, V6):
            addresses = parseAddress(family.peer) + parseAddress(family.own)
            self.assertEqual(
                b"\x06" + addresses + b"\x9c\x40\x00\x50",
                flowKey(tcp(family.peer, family.own, 80)),
            )
            self.assertEqual(
                b"\x11" + addresses + b"\x9c\x40\x00\x35",
                flowKey(udp(family.peer, family.own, 53)),
            )


class AddressKindTests(SynchronousTestCase):
    """
    Tests for L{isMulticast} and L{isLinkLocal}.
    """

    def test_isMulticast(self) -> None:
        """Multicast ends where its ranges do."""
        for text, expected in (
            ("223.255.255.255", False),
            ("224.0.0.0", True),
            ("239.255.255.255", True),
            ("240.0.0.0", False),
            ("255.255.255.255", False),
            ("feff::1", False),
            ("ff00::", True),
            ("ffff::", True),
            ("::", False),
        ):
            self.assertIs(expected, isMulticast(parseAddress(text)), text)

    def test_isLinkLocal(self) -> None:
        """Link-local ranges have sharp ends, and one exception."""
        for text, expected in (
            ("169.253.255.255", False),
            ("169.254.0.0", True),
            ("169.254.169.253", True),
            ("169.254.169.254", False),
            ("169.254.255.255", True),
            ("169.255.0.0", False),
            ("fe7f::1", False),
            ("fe80::", True),
            ("febf::1", True),
            ("fec0::", False),
            ("ff80::", False),
        ):
            self.assertIs(expected, isLinkLocal(parseAddress(text)), text)


class AnswerTests(SynchronousTestCase):
    """
    Tests for L{isAnswer}.
    """

    def test_kinds(self) -> None:
        """Echo replies with code 0 and errors of any code are answers."""
        for protocol, reply, errors in (
            (ICMP, 0, {3, 11, 12}),
            (ICMPV6, 129, {1, 2, 3, 4}),
        ):
            for kind in range(256):
                self.assertIs(
                    kind == reply or kind in errors, isAnswer(protocol, kind, 0)
                )
                self.assertIs(kind in errors, isAnswer(protocol, kind, 1))

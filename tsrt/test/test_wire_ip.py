"""Tests of IPv4 and IPv6 headers, extension headers and fragments."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.test.test_wire_checksum import naiveChecksum
from tsrt.wire import ip

A4, B4 = b"\x64\x40\x00\x01", b"\x64\x40\x00\x02"
A6, B6 = b"\xfd" + bytes(14) + b"\x01", b"\xfd" + bytes(14) + b"\x02"

WELL_KNOWN = bytes.fromhex("45000073000040004011b861c0a80001c0a800c7") + bytes(95)
"""A published IPv4 header (UDP, 115 bytes) with a body of zeros."""


def v4(
    payload: bytes, *, flags: int = 0x4000, ident: int = 0, options: bytes = b""
) -> bytes:
    """An IPv4 UDP packet, put together by hand."""
    header = bytearray(
        struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | 5 + len(options) // 4,
            0,
            20 + len(options) + len(payload),
            ident,
            flags,
            64,
            17,
            0,
            A4,
            B4,
        )
        + options
    )
    header[10:12] = naiveChecksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + payload


def v6(following: int, payload: bytes) -> bytes:
    """An IPv6 packet, put together by hand."""
    start = struct.pack("!IHBB", 0x60000000, len(payload), following, 64)
    return start + A6 + B6 + payload


def padding(following: int, words: int = 0) -> bytes:
    """An options header with one PadN option, 8 + 8 * words bytes."""
    size = 8 + 8 * words
    return bytes((following, words, 1, size - 4)) + bytes(size - 4)


class IPv4Tests(SynchronousTestCase):
    """Parsing IPv4."""

    def test_wellKnownHeader(self) -> None:
        """A published header parses to its addresses and offsets."""
        header = ip.parseIP(WELL_KNOWN)
        self.assertEqual(
            (header.version, header.protocol, header.start, header.end),
            (4, 17, 20, 115),
        )
        self.assertEqual(header.source, bytes((192, 168, 0, 1)))
        self.assertEqual(header.destination, bytes((192, 168, 0, 199)))
        self.assertFalse(header.isFragment)

    def test_badChecksum(self) -> None:
        """A header with a flipped bit is refused."""
        for at in range(20):
            broken = bytearray(WELL_KNOWN)
            broken[at] ^= 0x01
            self.assertRaises(WireError, ip.parseIP, bytes(broken))

    def test_options(self) -> None:
        """Options are stepped over."""
        header = ip.parseIP(v4(b"x" * 8, options=b"\x94\x04\x00\x00"))
        self.assertEqual((header.start, header.end), (24, 32))

    def test_paddingAfterPacket(self) -> None:
        """Bytes after the total length do not belong to the packet."""
        header = ip.parseIP(v4(b"x" * 8) + b"pad")
        self.assertEqual(header.end, 28)

    def test_truncated(self) -> None:
        """A packet shorter than its total length is refused."""
        for size in range(len(WELL_KNOWN)):
            self.assertRaises(WireError, ip.parseIP, WELL_KNOWN[:size])

    def test_headerLengthOutside(self) -> None:
        """A header length below 20 or beyond the packet is refused."""
        for first in (0x40, 0x44):
            broken = bytearray(v4(b""))
            broken[0] = first
            self.assertRaises(WireError, ip.parseIP, bytes(broken))
        broken = bytearray(v4(b""))
        broken[0] = 0x4F
        self.assertRaises(WireError, ip.parseIP, bytes(broken))

    def test_fragmentFields(self) -> None:
        """Offset, identification and more-fragments are read."""
        first = ip.parseIP(v4(b"x" * 8, flags=0x2000, ident=77))
        self.assertEqual(
            (first.isFragment, first.ident, first.fragmentOffset, first.moreFragments),
            (True, 77, 0, True),
        )
        last = ip.parseIP(v4(b"x" * 8, flags=3, ident=77))
        self.assertEqual(
            (last.isFragment, last.fragmentOffset, last.moreFragments),
            (True, 24, False),
        )

    def test_versions(self) -> None:
        """Other versions and empty packets are refused."""
        self.assertRaises(WireError, ip.parseIP, b"")
        self.assertRaises(WireError, ip.parseIP, b"\x50" + bytes(60))


class IPv6Tests(SynchronousTestCase):
    """Parsing IPv6 and its extension headers."""

    def test_plain(self) -> None:
        """A packet without extensions has its transport at 40."""
        header = ip.parseIP(v6(6, b"x" * 20) + b"pad")
        self.assertEqual(
            (header.version, header.protocol, header.start, header.end), (6, 6, 40, 60)
        )
        self.assertEqual((header.source, header.destination), (A6, B6))

    def test_chain(self) -> None:
        """Hop-by-hop, destination options and a used-up routing header pass."""
        routing = bytes((60, 0, 0, 0)) + bytes(4)
        packet = v6(0, padding(43) + routing + padding(17, 1) + b"u" * 8)
        header = ip.parseIP(packet)
        self.assertEqual((header.protocol, header.start), (17, 40 + 8 + 8 + 16))

    def test_sourceRouting(self) -> None:
        """A routing header with segments left is refused."""
        routing = bytes((17, 0, 0, 1)) + bytes(4)
        self.assertRaises(WireError, ip.parseIP, v6(43, routing + b"u" * 8))

    def test_hopByHopLate(self) -> None:
        """Hop-by-hop options anywhere but in front are refused."""
        self.assertRaises(WireError, ip.parseIP, v6(60, padding(0) + padding(17)))

    def test_unknownOption(self) -> None:
        """An unknown option is skipped or refused as its type says."""
        skip = bytes((17, 0, 0x1E, 4)) + bytes(4)
        self.assertEqual(ip.parseIP(v6(60, skip)).protocol, 17)
        refuse = bytes((17, 0, 0x9E, 4)) + bytes(4)
        self.assertRaises(WireError, ip.parseIP, v6(60, refuse))

    def test_padding(self) -> None:
        """Padding of one byte has no length."""
        self.assertEqual(ip.parseIP(v6(60, bytes((17, 0, 0, 0, 1, 2, 0, 0)))).start, 48)

    def test_optionOutside(self) -> None:
        """An option longer than its header is refused."""
        self.assertRaises(
            WireError, ip.parseIP, v6(60, bytes((17, 0, 1, 5, 0, 0, 0, 0)))
        )
        self.assertRaises(
            WireError, ip.parseIP, v6(60, bytes((17, 0, 1, 3, 0, 0, 0, 1)))
        )

    def test_extensionLimits(self) -> None:
        """Too many, too long and cut-off extension headers are refused."""
        eight = b"".join(padding(60) for _ in range(7)) + padding(17)
        self.assertEqual(ip.parseIP(v6(60, eight + b"u" * 8)).start, 40 + 64)
        self.assertRaises(WireError, ip.parseIP, v6(60, padding(60) + eight))
        long = bytes((17, 64)) + bytes(8 * 64 + 6)
        self.assertRaises(WireError, ip.parseIP, v6(60, long))
        self.assertRaises(WireError, ip.parseIP, v6(60, padding(17, 1)[:8]))
        self.assertRaises(WireError, ip.parseIP, v6(60, b"\x11\0\0\0"))

    def test_fragment(self) -> None:
        """A fragment header ends the walk and gives offset and identification."""
        extension = struct.pack("!BBHI", 17, 0, 16 | 1, 0xDEADBEEF)
        header = ip.parseIP(v6(44, extension + b"x" * 8))
        self.assertEqual(
            (header.isFragment, header.ident, header.fragmentOffset, header.start),
            (True, 0xDEADBEEF, 16, 48),
        )
        self.assertTrue(header.moreFragments)
        self.assertEqual(header.protocol, 17)

    def test_atomicFragment(self) -> None:
        """A fragment that is the whole packet counts as unfragmented; two do not."""
        extension = struct.pack("!BBHI", 17, 0, 0, 1)
        header = ip.parseIP(v6(44, extension + b"x" * 8))
        self.assertEqual((header.isFragment, header.start), (False, 48))
        twice = struct.pack("!BBHI", 44, 0, 0, 1) + extension
        self.assertRaises(WireError, ip.parseIP, v6(44, twice + b"x" * 8))

    def test_truncated(self) -> None:
        """A packet shorter than header and payload length is refused."""
        packet = v6(17, b"x" * 8)
        for size in range(len(packet)):
            self.assertRaises(WireError, ip.parseIP, packet[:size])

    @given(st.binary(max_size=120), st.sampled_from((b"", b"\x45", b"\x60")))
    @settings(max_examples=200, deadline=None)
    def test_anyBytes(self, data: bytes, start: bytes) -> None:
        """Any bytes parse or raise WireError, and offsets stay inside."""
        try:
            header = ip.parseIP(start + data)
        except WireError:
            return
        self.assertLessEqual(header.start, header.end)
        self.assertLessEqual(header.end, len(start + data))

    @given(st.binary(max_size=120), st.sampled_from((0, 43, 44, 60)))
    @settings(max_examples=200, deadline=None)
    def test_anyExtensions(self, data: bytes, following: int) -> None:
        """Any extension headers parse or raise WireError."""
        try:
            header = ip.parseIP(v6(following, data))
        except WireError:
            return
        self.assertLessEqual(header.start, header.end)


class BuildTests(SynchronousTestCase):
    """Building headers and fragments."""

    def test_template(self) -> None:
        """A template gives the headers that are put together by hand."""
        self.assertEqual(ip.HeaderTemplate(A4, B4, 17).header(9), v4(b"x" * 9)[:20])
        self.assertEqual(ip.HeaderTemplate(A6, B6, 58).header(9), v6(58, b"x" * 9)[:40])

    def test_templateKeepsLengthsApart(self) -> None:
        """Headers for changing lengths do not mix."""
        template = ip.HeaderTemplate(A4, B4, 17)
        for size in (100, 100, 7, 100):
            self.assertEqual(template.header(size), v4(b"x" * size)[:20])

    def test_families(self) -> None:
        """Addresses of different families are refused."""
        self.assertRaises(ValueError, ip.HeaderTemplate, A4, B6, 6)
        self.assertRaises(ValueError, ip.buildPackets, A4, B6, 17, b"", 1280, 0)

    def test_unfragmented(self) -> None:
        """What fits the MTU goes as one packet."""
        (packet,) = ip.buildPackets(A4, B4, 17, b"x" * 1260, 1280, 0x12345)
        self.assertEqual(packet, v4(b"x" * 1260, flags=0, ident=0x2345))
        (packet,) = ip.buildPackets(A6, B6, 17, b"x" * 1240, 1280, 5)
        self.assertEqual(packet, v6(17, b"x" * 1240))

    def test_emptyPayload(self) -> None:
        """A packet may have no payload."""
        self.assertEqual(ip.buildPackets(A4, B4, 17, b"", 1280, 0), [v4(b"", flags=0)])

    @given(st.integers(0, 5000), st.integers(68, 1500), st.sampled_from((4, 6)))
    @settings(max_examples=100, deadline=None)
    def test_fragments(self, size: int, mtu: int, version: int) -> None:
        """Fragments fit, lie end to end, and only the last may be uneven."""
        payload = bytes(i & 0xFF for i in range(size))
        a, b = (A4, B4) if version == 4 else (A6, B6)
        at = 0
        packets = ip.buildPackets(a, b, 17, payload, mtu, 9)
        for packet in packets:
            self.assertLessEqual(len(packet), mtu)
            header = ip.parseIP(packet)
            self.assertEqual(header.fragmentOffset, at)
            self.assertEqual(header.moreFragments, packet is not packets[-1])
            data = packet[header.start : header.end]
            self.assertEqual(data, payload[at : at + len(data)])
            at += len(data)
        self.assertEqual(at, size)

    def test_limits(self) -> None:
        """Payloads beyond what IP can say and hopeless MTUs are refused."""
        self.assertRaises(
            ValueError, ip.buildPackets, A4, B4, 17, bytes(65516), 1280, 0
        )
        self.assertRaises(
            ValueError, ip.buildPackets, A6, B6, 17, bytes(65536), 1280, 0
        )
        self.assertRaises(ValueError, ip.buildPackets, A4, B4, 17, bytes(99), 27, 0)
        self.assertTrue(ip.buildPackets(A4, B4, 17, bytes(65515), 1280, 0))

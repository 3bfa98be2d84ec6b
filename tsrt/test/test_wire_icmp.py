"""Tests of ICMP messages and of the packets that errors quote."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.test.test_wire_checksum import naiveChecksum, naiveTransport
from tsrt.test.test_wire_ip import A4, A6, B4, B6, v4, v6
from tsrt.wire import icmp
from tsrt.wire.ip import PROTOCOL_UDP, buildPackets, parseIP


class MessageTests(SynchronousTestCase):
    """Messages with their checksums."""

    def test_echoV4(self) -> None:
        """An echo request put together by hand is read, verified and built."""
        bare = struct.pack("!BBHHH", 8, 0, 0, 0x1234, 1) + b"abcde"
        value = naiveChecksum(bare)
        message = bare[:2] + value.to_bytes(2, "big") + bare[4:]
        packet = v4(message)
        header = parseIP(packet)
        self.assertTrue(icmp.verifyICMP(header))
        parsed = icmp.parseICMP(packet, header.start, header.end)
        self.assertEqual(
            (parsed.type, parsed.code, parsed.ident, parsed.sequence, parsed.payload),
            (8, 0, 0x1234, 1, b"abcde"),
        )
        self.assertEqual(icmp.buildICMP(A4, B4, 8, 0, 0x12340001, b"abcde"), message)

    def test_echoV6(self) -> None:
        """ICMPv6 has the pseudo-header in its checksum."""
        bare = struct.pack("!BBHHH", 129, 0, 0, 7, 9) + b"abcd"
        value = naiveTransport(A6, B6, 58, bare)
        message = bare[:2] + value.to_bytes(2, "big") + bare[4:]
        self.assertEqual(icmp.buildICMP(A6, B6, 129, 0, 0x00070009, b"abcd"), message)
        self.assertTrue(icmp.verifyICMP(parseIP(v6(58, message))))
        broken = message[:-1] + b"x"
        self.assertFalse(icmp.verifyICMP(parseIP(v6(58, broken))))

    def test_allZeroReply(self) -> None:
        """An echo reply of nothing but zeros has the checksum 0xFFFF."""
        message = icmp.buildICMP(A4, B4, 0, 0, 0, bytes(8))
        self.assertEqual(message, b"\0\0\xff\xff" + bytes(12))
        self.assertTrue(icmp.verifyICMP(parseIP(v4(message))))

    def test_short(self) -> None:
        """Less than a header is refused."""
        for size in range(8):
            self.assertRaises(WireError, icmp.parseICMP, bytes(size), 0, size)
        self.assertRaises(WireError, icmp.parseICMP, bytes(8), 0, 9)


class QuotationTests(SynchronousTestCase):
    """What an error says about the packet that caused it."""

    def quote(self, packet: bytes) -> icmp.Quotation:
        """Parse C{packet} as lying behind some other bytes."""
        return icmp.parseQuotation(b"xxx" + packet, 3, 3 + len(packet))

    def test_cutOffIPv4(self) -> None:
        """Header and eight bytes are enough, options or not."""
        transport = struct.pack("!HHI", 1000, 80, 0xCAFEBABE)
        for options in (b"", b"\x01\x01\x01\x01"):
            whole = v4(transport + bytes(500), options=options)
            got = self.quote(whole[: 28 + len(options)])
            self.assertEqual(
                (got.source, got.destination, got.protocol), (A4, B4, PROTOCOL_UDP)
            )
            self.assertEqual(
                (got.sourcePort, got.destinationPort, got.sequence),
                (1000, 80, 0xCAFEBABE),
            )

    def test_cutOffIPv6(self) -> None:
        """The same for IPv6."""
        whole = v6(6, struct.pack("!HHI", 1000, 80, 5) + bytes(500))
        got = self.quote(whole[:48])
        self.assertEqual((got.source, got.destination, got.protocol), (A6, B6, 6))
        self.assertEqual((got.sourcePort, got.sequence), (1000, 5))

    def test_firstFragment(self) -> None:
        """First fragments of ours are understood, later ones are refused."""
        transport = struct.pack("!HHHH", 5, 6, 3008, 0) + bytes(3000)
        for a, b in ((A4, B4), (A6, B6)):
            packets = buildPackets(a, b, 17, transport, 1280, 1)
            got = self.quote(packets[0])
            self.assertEqual((got.protocol, got.sourcePort), (17, 5))
            for later in packets[1:]:
                self.assertRaises(WireError, self.quote, later)

    def test_tooShort(self) -> None:
        """Anything less than eight bytes of transport is refused."""
        for whole, size in ((v4(bytes(8)), 28), (v6(17, bytes(8)), 48)):
            for cut in range(size):
                self.assertRaises(WireError, self.quote, whole[:cut])

    @given(st.binary(max_size=80), st.sampled_from((b"", b"\x45", b"\x60")))
    @settings(max_examples=150, deadline=None)
    def test_anyBytes(self, data: bytes, start: bytes) -> None:
        """Any bytes parse or raise WireError."""
        try:
            self.quote(start + data)
        except WireError:
            pass

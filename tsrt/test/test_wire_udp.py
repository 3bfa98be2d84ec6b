"""Tests of UDP datagrams and their checksum rules."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.test.test_wire_checksum import naiveTransport
from tsrt.test.test_wire_ip import A4, A6, B4, B6, v4, v6
from tsrt.wire import udp
from tsrt.wire.ip import parseIP


class UDPTests(SynchronousTestCase):
    """Parsing, verifying and building."""

    def parse(self, packet: bytes) -> tuple[udp.Datagram, bool]:
        """Parse a whole packet and verify its checksum."""
        header = parseIP(packet)
        datagram = udp.parseUDP(packet, header.start, header.end)
        return datagram, udp.verifyUDP(header, datagram)

    def test_handMade(self) -> None:
        """A datagram put together by hand is read and verifies."""
        bare = struct.pack("!HHHH", 53, 4000, 13, 0) + b"hello"
        value = naiveTransport(A4, B4, 17, bare)
        message = bare[:6] + value.to_bytes(2, "big") + bare[8:]
        datagram, right = self.parse(v4(message))
        self.assertEqual(
            (datagram.sourcePort, datagram.destinationPort, datagram.payload),
            (53, 4000, b"hello"),
        )
        self.assertTrue(right)
        self.assertEqual(udp.buildUDP(A4, 53, B4, 4000, b"hello"), message)

    def test_wrongChecksum(self) -> None:
        """A damaged payload does not verify."""
        message = bytearray(udp.buildUDP(A6, 1, B6, 2, b"hello"))
        message[-1] ^= 1
        self.assertFalse(self.parse(v6(17, bytes(message)))[1])

    def test_noChecksum(self) -> None:
        """A zero checksum is right over IPv4 and wrong over IPv6."""
        message = struct.pack("!HHHH", 1, 2, 9, 0) + b"x"
        self.assertTrue(self.parse(v4(message))[1])
        self.assertFalse(self.parse(v6(17, message))[1])

    def test_zeroSentAsOnes(self) -> None:
        """A checksum that comes out as zero goes out as 0xFFFF and verifies."""
        bare = struct.pack("!HHHH", 1, 2, 10, 0)
        filler = naiveTransport(A4, B4, 17, bare + b"\0\0")
        payload = filler.to_bytes(2, "big")
        self.assertEqual(naiveTransport(A4, B4, 17, bare + payload), 0)
        message = udp.buildUDP(A4, 1, B4, 2, payload)
        self.assertEqual(message[6:8], b"\xff\xff")
        self.assertTrue(self.parse(v4(message))[1])

    def test_shorterThanPacket(self) -> None:
        """The length field may cut padding off, which is not summed either."""
        message = udp.buildUDP(A4, 1, B4, 2, b"ab") + b"padding"
        datagram, right = self.parse(v4(message))
        self.assertEqual((datagram.payload, right), (b"ab", True))

    def test_lengths(self) -> None:
        """Length fields below 8 or beyond the packet are refused."""
        for length in (0, 7, 10):
            message = struct.pack("!HHHH", 1, 2, length, 0) + b"x"
            self.assertRaises(WireError, self.parse, v4(message))
        self.assertRaises(WireError, self.parse, v4(b"\0" * 7))
        self.assertRaises(WireError, udp.parseUDP, bytes(8), 0, 9)

    def test_largest(self) -> None:
        """65507 bytes can be built, one more cannot."""
        self.assertEqual(len(udp.buildUDP(A4, 1, B4, 2, bytes(65507))), 65515)
        self.assertRaises(ValueError, udp.buildUDP, A4, 1, B4, 2, bytes(65508))

    @given(st.binary(max_size=300), st.sampled_from(((A4, B4), (A6, B6))))
    @settings(max_examples=80, deadline=None)
    def test_roundTrip(self, payload: bytes, ends: tuple[bytes, bytes]) -> None:
        """What is built parses to the same and verifies."""
        message = udp.buildUDP(ends[0], 7, ends[1], 9, payload)
        packet = v4(message) if len(ends[0]) == 4 else v6(17, message)
        datagram, right = self.parse(packet)
        self.assertEqual((datagram.payload, right), (payload, True))

    @given(st.binary(max_size=40))
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Any bytes parse or raise WireError."""
        try:
            datagram = udp.parseUDP(data, 0, len(data))
        except WireError:
            return
        self.assertLessEqual(datagram.end, len(data))

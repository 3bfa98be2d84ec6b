"""Tests of the Internet checksum against published sums and plain addition."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.wire import checksum


def naiveSum(data: bytes) -> int:
    """Add 16-bit words with end-around carry, as RFC 1071 writes it in C."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def naiveChecksum(data: bytes) -> int:
    """The complement of L{naiveSum}."""
    return ~naiveSum(data) & 0xFFFF


def naiveTransport(
    source: bytes, destination: bytes, protocol: int, data: bytes
) -> int:
    """The checksum over a pseudo-header written out, for both families."""
    if len(source) == 4:
        pseudo = source + destination + struct.pack("!BBH", 0, protocol, len(data))
    else:
        pseudo = source + destination + struct.pack("!IHBB", len(data), 0, 0, protocol)
    return naiveChecksum(pseudo + data)


class ChecksumTests(SynchronousTestCase):
    """Sums of bytes."""

    def test_rfc1071Example(self) -> None:
        """The worked example of RFC 1071 section 3 gives ddf2 and 220d."""
        data = bytes.fromhex("0001f203f4f5f6f7")
        self.assertEqual(checksum.onesSum(data) % 65535, 0xDDF2)
        self.assertEqual(checksum.checksum(data), 0x220D)

    def test_publishedIPv4Header(self) -> None:
        """A well-known IPv4 header has the checksum b861."""
        header = bytes.fromhex("450000730000400040110000c0a80001c0a800c7")
        self.assertEqual(checksum.checksum(header), 0xB861)
        whole = header[:10] + b"\xb8\x61" + header[12:]
        self.assertTrue(checksum.verify(whole))
        self.assertFalse(checksum.verify(whole[:1] + b"\x01" + whole[2:]))

    def test_zeroes(self) -> None:
        """Nothing but zeros sums to zero, and does not verify as all ones."""
        self.assertEqual(checksum.checksum(bytes(8)), 0xFFFF)
        self.assertFalse(checksum.verify(bytes(8)))
        self.assertTrue(checksum.verify(b"\xff\xff" + bytes(6)))

    def test_sumOfAllOnes(self) -> None:
        """A sum of 0xFFFF has the checksum zero."""
        self.assertEqual(checksum.checksum(b"\xff\xff"), 0)
        self.assertEqual(checksum.checksum(b"\x7f\xff\x80\x00"), 0)

    def test_everyFoldingWidth(self) -> None:
        """Lengths around each folding step agree with plain addition."""
        for size in (0, 1, 2, 89, 90, 179, 180, 181, 182, 659, 661, 1319, 1321, 9001):
            for fill in (b"\xff", b"\x01", b"\x80\x7f\x03"):
                data = (fill * size)[:size]
                self.assertEqual(checksum.checksum(data), naiveChecksum(data), size)
                other = data[::-1]
                self.assertEqual(
                    checksum.onesSums([data, other]),
                    [checksum.onesSum(data), checksum.onesSum(other)],
                )
        self.assertEqual(checksum.onesSums([]), [])
        big = bytes(range(256)) * 256
        self.assertEqual(checksum.checksum(big), naiveChecksum(big))

    @given(st.binary(max_size=3000))
    @settings(max_examples=150, deadline=None)
    def test_agreesWithPlainAddition(self, data: bytes) -> None:
        """Any bytes have the sum that a loop over words gives."""
        self.assertEqual(checksum.checksum(data), naiveChecksum(data))

    @given(
        st.sampled_from((4, 16)).flatmap(
            lambda n: st.tuples(
                st.binary(min_size=n, max_size=n), st.binary(min_size=n, max_size=n)
            )
        ),
        st.sampled_from((6, 17, 58)),
        st.binary(max_size=200),
    )
    @settings(max_examples=150, deadline=None)
    def test_pseudoHeader(
        self, addresses: tuple[bytes, bytes], protocol: int, message: bytes
    ) -> None:
        """The pseudo-header counts as if it were written out in front."""
        source, destination = addresses
        got = checksum.transportChecksum(source, destination, protocol, message)
        expected = naiveTransport(source, destination, protocol, message)
        self.assertEqual(got % 65535, expected % 65535)
        self.assertIn(got, range(65535))

    @given(st.binary(min_size=20, max_size=100), st.integers(0, 8))
    @settings(max_examples=80, deadline=None)
    def test_verifyTransport(self, message: bytes, gap: int) -> None:
        """A right checksum verifies with and without options; a flip does not."""
        source, destination = b"\x64\x64\x00\x01", b"\x64\x64\x00\x02"
        message = message[:16] + b"\0\0" + message[18:]
        value = naiveTransport(source, destination, 6, message)
        message = message[:16] + value.to_bytes(2, "big") + message[18:]
        packet = bytes(12) + source + destination + b"\x99" * gap + message + b"junk"
        start = 20 + gap
        end = start + len(message)
        self.assertTrue(checksum.verifyTransport(packet, 12, 20, start, end, 6))
        flipped = bytearray(packet)
        flipped[start + 4] ^= 0x10
        self.assertFalse(
            checksum.verifyTransport(bytes(flipped), 12, 20, start, end, 6)
        )

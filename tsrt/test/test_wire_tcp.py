"""Tests of TCP segments, their options and the builder of packets."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.test.test_wire_checksum import naiveTransport
from tsrt.test.test_wire_ip import A4, A6, B4, B6
from tsrt.wire import tcp
from tsrt.wire.ip import parseIP


def segment(options: bytes = b"", payload: bytes = b"", flags: int = tcp.ACK) -> bytes:
    """A TCP segment without checksum, put together by hand."""
    words = 5 + len(options) // 4
    start = struct.pack(
        "!HHIIBBHHH", 1234, 80, 0xFFFFFFF0, 77, words << 4, flags, 512, 0, 0
    )
    return start + options + payload


class ParseTests(SynchronousTestCase):
    """From bytes to segments."""

    def test_plain(self) -> None:
        """All fields of a segment without options are read at an offset."""
        data = b"junk" + segment(payload=b"hello") + b"tail"
        got = tcp.parseTCP(data, 4, len(data) - 4)
        self.assertEqual(
            (got.sourcePort, got.destinationPort, got.seq, got.ack, got.window),
            (1234, 80, 0xFFFFFFF0, 77, 512),
        )
        self.assertEqual((got.payload, got.flags), (b"hello", tcp.ACK))
        self.assertIs(got.packet, data)
        self.assertIs(got.options, tcp.NO_OPTIONS)

    def test_sequenceLength(self) -> None:
        """SYN and FIN take one place each besides the payload."""
        for flags, length in (
            (tcp.ACK, 3),
            (tcp.SYN, 4),
            (tcp.FIN | tcp.ACK, 4),
            (tcp.SYN | tcp.FIN, 5),
        ):
            data = segment(payload=b"abc", flags=flags)
            self.assertEqual(tcp.parseTCP(data, 0, len(data)).sequenceLength, length)

    def test_repr(self) -> None:
        """The repr tells flags, numbers and length but no payload."""
        data = segment(payload=b"secret", flags=tcp.SYN | tcp.ACK)
        text = repr(tcp.parseTCP(data, 0, len(data)))
        self.assertIn("SA seq=4294967280 ack=77 win=512 len=6", text)
        self.assertNotIn("secret", text)

    def test_synOptions(self) -> None:
        """The options of a SYN as Linux sends it are read."""
        # MSS 1460, SACK permitted, timestamps, NOP, window scale 7.
        options = bytes.fromhex("020405b4 0402 080a 11223344 00000000 01 030307")
        data = segment(options, flags=tcp.SYN)
        got = tcp.parseTCP(data, 0, len(data)).options
        self.assertEqual(
            (got.mss, got.sackPermitted, got.tsValue, got.tsEcho, got.windowScale),
            (1460, True, 0x11223344, 0, 7),
        )

    def test_timestampsAlone(self) -> None:
        """The usual layout of timestamps takes the short way to the same values."""
        usual = bytes.fromhex("0101080a0000000500000006")
        odd = bytes.fromhex("080a00000005000000060000")
        for options in (usual, odd):
            got = tcp.parseOptions(options, 0, 12)
            self.assertEqual((got.tsValue, got.tsEcho), (5, 6))

    def test_sackBlocks(self) -> None:
        """SACK blocks come as edges; broken blocks are refused."""
        options = bytes.fromhex("0101 0512 00000001 00000002 fffffff0 00000010")
        got = tcp.parseOptions(options, 0, len(options))
        self.assertEqual(got.sacks, ((1, 2), (0xFFFFFFF0, 0x10)))
        for length in (2, 9, 11, 14):
            broken = bytes((5, length)) + bytes(length - 2)
            self.assertRaises(WireError, tcp.parseOptions, broken, 0, length)

    def test_windowScaleLimit(self) -> None:
        """A shift above 14 counts as 14."""
        self.assertEqual(tcp.parseOptions(b"\x03\x03\xff\x00", 0, 4).windowScale, 14)

    def test_unknownOptions(self) -> None:
        """Unknown kinds are skipped, the end-of-list option ends the list."""
        got = tcp.parseOptions(b"\xfd\x04\x00\x00\x02\x04\x05\x00", 0, 8)
        self.assertEqual(got.mss, 1280)
        self.assertIsNone(tcp.parseOptions(b"\x00\x04\x05\x00", 0, 4).mss)

    def test_malformedOptions(self) -> None:
        """Lengths that lie are refused."""
        for text in (
            "01010102",  # no length byte
            "02000000",  # length zero
            "02010000",  # length one
            "02050000",  # past the end
            "02030100",  # a wrong length of a known kind
            "04040000",
            "08040000",
            "03020000",
        ):
            options = bytes.fromhex(text)
            self.assertRaises(WireError, tcp.parseOptions, options, 0, len(options))

    def test_dataOffset(self) -> None:
        """A data offset below the header or beyond the segment is refused."""
        for words in (0, 4, 6, 15):
            data = bytearray(segment())
            data[12] = words << 4
            self.assertRaises(WireError, tcp.parseTCP, bytes(data), 0, len(data))
        self.assertRaises(WireError, tcp.parseTCP, segment(), 0, 19)
        self.assertRaises(WireError, tcp.parseTCP, segment(), 0, 21)

    @given(st.binary(max_size=80))
    @settings(max_examples=150, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Any bytes parse or raise WireError."""
        try:
            got = tcp.parseTCP(data, 0, len(data))
        except WireError:
            return
        self.assertLessEqual(got.start, got.end)

    @given(st.binary(max_size=40))
    @settings(max_examples=150, deadline=None)
    def test_anyOptions(self, data: bytes) -> None:
        """Any options parse or raise WireError."""
        try:
            tcp.parseOptions(data, 0, len(data))
        except WireError:
            pass


class EncodeTests(SynchronousTestCase):
    """From values to options."""

    def test_known(self) -> None:
        """Each option has its published layout, in whole words."""
        self.assertEqual(tcp.encodeOptions(mss=1240), bytes.fromhex("020404d8"))
        for stamps in ((0, 0), (7, 9), (0xFFFFFFFF, 0x80000001)):
            self.assertEqual(
                tcp.encodeTimestamps(*stamps), tcp.encodeOptions(timestamps=stamps)
            )
        self.assertEqual(
            tcp.encodeOptions(
                mss=1240, windowScale=7, sackPermitted=True, timestamps=(5, 6)
            ),
            bytes.fromhex("020404d8 01030307 01010402 0101080a 00000005 00000006"),
        )
        self.assertEqual(
            tcp.encodeOptions(sacks=[(1, 2)]),
            bytes.fromhex("0101050a 00000001 00000002"),
        )

    def test_sacksThatFit(self) -> None:
        """Four blocks go without timestamps, three with, the first ones."""
        blocks = [(n, n + 1) for n in range(6)]
        for timestamps, count in ((None, 4), ((1, 2), 3)):
            data = tcp.encodeOptions(timestamps=timestamps, sacks=blocks)
            self.assertLessEqual(len(data), 40)
            got = tcp.parseOptions(data, 0, len(data))
            self.assertEqual(got.sacks, tuple(blocks[:count]))

    @given(
        st.none() | st.integers(0, 65535),
        st.none() | st.integers(0, 14),
        st.booleans(),
        st.none() | st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    )
    @settings(max_examples=80, deadline=None)
    def test_roundTrip(
        self,
        mss: int | None,
        scale: int | None,
        sack: bool,
        timestamps: tuple[int, int] | None,
    ) -> None:
        """Options parse back to what they were made of."""
        data = tcp.encodeOptions(mss, scale, sack, timestamps)
        self.assertEqual(len(data) % 4, 0)
        got = tcp.parseOptions(data, 0, len(data))
        self.assertEqual(
            (got.mss, got.windowScale, got.sackPermitted), (mss, scale, sack)
        )
        if timestamps is not None:
            self.assertEqual((got.tsValue, got.tsEcho), timestamps)


class BuilderTests(SynchronousTestCase):
    """Whole packets of a flow."""

    def check(self, packet: bytes) -> tcp.Segment:
        """Parse a packet whose checksum must agree with plain addition."""
        header = parseIP(packet)
        self.assertEqual(header.end, len(packet))
        data = packet[header.start :]
        bare = data[:16] + b"\0\0" + data[18:]
        expected = naiveTransport(header.source, header.destination, 6, bare)
        self.assertEqual(data[16:18], expected.to_bytes(2, "big"))
        return tcp.parseTCP(packet, header.start, header.end)

    @given(
        st.sampled_from(((A4, B4), (A6, B6))),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 65535),
        st.binary(max_size=100),
        st.sampled_from((b"", bytes.fromhex("0101080affffffff00000006"))),
    )
    @settings(max_examples=80, deadline=None)
    def test_build(
        self,
        ends: tuple[bytes, bytes],
        seq: int,
        ack: int,
        window: int,
        payload: bytes,
        options: bytes,
    ) -> None:
        """A built packet parses back and has a right checksum."""
        builder = tcp.SegmentBuilder(ends[0], 50000, ends[1], 443)
        packet = builder.build(seq, ack, tcp.ACK | tcp.PSH, window, options, payload)
        self.assertEqual(len(packet), builder.overhead + len(options) + len(payload))
        got = self.check(packet)
        self.assertEqual(
            (got.sourcePort, got.destinationPort, got.seq, got.ack, got.window),
            (50000, 443, seq, ack, window),
        )
        self.assertEqual((got.flags, got.payload), (tcp.ACK | tcp.PSH, payload))

    def test_zeroChecksum(self) -> None:
        """A checksum that comes out as zero stays zero in TCP."""
        builder = tcp.SegmentBuilder(A4, 1, B4, 2)
        filler = int.from_bytes(
            builder.build(1, 0, tcp.ACK, 9, b"", b"\0\0")[36:38], "big"
        )
        packet = builder.build(1, 0, tcp.ACK, 9, b"", filler.to_bytes(2, "big"))
        self.assertEqual(packet[36:38], b"\0\0")
        self.check(packet)

    @given(
        st.binary(min_size=1, max_size=700),
        st.integers(1, 300),
        st.sampled_from((b"", bytes.fromhex("0101080affffffff00000006"))),
    )
    @settings(max_examples=80, deadline=None)
    def test_buildRun(self, payload: bytes, mss: int, options: bytes) -> None:
        """A run is the payload cut in order, pushed at its end."""
        builder = tcp.SegmentBuilder(A6, 1, B6, 2)
        seq = 0xFFFFFFFF - 100
        packets = builder.buildRun(seq, 5, tcp.ACK, 7, options, payload, mss)
        self.assertEqual(len(packets), -(-len(payload) // mss))
        joined = b""
        for packet in packets:
            got = self.check(packet)
            self.assertEqual(got.seq, (seq + len(joined)) & 0xFFFFFFFF)
            last = packet is packets[-1]
            self.assertEqual(got.flags, tcp.ACK | (tcp.PSH if last else 0))
            joined += got.payload
        self.assertEqual(joined, payload)

"""
TCP segments: parsing to offsets, options, and building whole IP packets.

Parsing makes one L{Segment} that keeps the packet and where its payload lies;
nothing is copied.  Building goes through a L{SegmentBuilder} for each flow,
which has the constant part of both headers and of the checksum ready.

Reference: RFC 9293, RFC 7323 (window scale, timestamps), RFC 2018 (SACK).
"""

from __future__ import annotations

import struct

from tsrt.errors import WireError
from tsrt.wire.checksum import onesSum
from tsrt.wire.ip import PROTOCOL_TCP, HeaderTemplate

FIN = 0x01
SYN = 0x02
RST = 0x04
PSH = 0x08
ACK = 0x10
URG = 0x20
ECE = 0x40
CWR = 0x80

HEADER_LENGTH = 20
"""Bytes of a TCP header without options."""

MAX_OPTIONS = 40
"""Bytes that the options of one segment can take."""

MAX_WINDOW_SCALE = 14
"""The largest shift of the window (RFC 7323 section 2.3)."""

_OPTION_END = 0
_OPTION_NOP = 1
_OPTION_MSS = 2
_OPTION_WINDOW_SCALE = 3
_OPTION_SACK_PERMITTED = 4
_OPTION_SACK = 5
_OPTION_TIMESTAMPS = 8

_HEADER = struct.Struct("!HHIIHHHH")
_AFTER_PORTS = struct.Struct("!IIHHHH")
_TWO_WORDS = struct.Struct("!II")
_TIMESTAMPS_ALONE = b"\x01\x01\x08\x0a"
_packStamps = struct.Struct("!4sII").pack


class Options:
    """The options of one segment that this implementation understands."""

    __slots__ = ("mss", "sackPermitted", "sacks", "tsEcho", "tsValue", "windowScale")

    def __init__(
        self,
        mss: int | None = None,
        windowScale: int | None = None,
        sackPermitted: bool = False,
        sacks: tuple[tuple[int, int], ...] = (),
        tsValue: int | None = None,
        tsEcho: int = 0,
    ) -> None:
        """
        @param mss: the maximum segment size that the sender accepts.
        @param windowScale: the sender's window shift, at most 14.
        @param sackPermitted: whether the sender understands SACK.
        @param sacks: blocks received out of order, as (left, right) edges.
        @param tsValue: the sender's timestamp; L{None} without the option.
        @param tsEcho: the timestamp that the sender echoes.
        """
        self.mss = mss
        self.windowScale = windowScale
        self.sackPermitted = sackPermitted
        self.sacks = sacks
        self.tsValue = tsValue
        self.tsEcho = tsEcho


NO_OPTIONS = Options()
"""What every segment without options shares; never changed."""


class Segment:
    """
    A parsed TCP segment.

    @ivar packet: the whole IP packet (or any buffer) that holds the segment.
    @ivar start: offset in C{packet} of the first byte of the payload.
    @ivar end: offset in C{packet} just past the payload.
    @ivar window: the window field as sent, not scaled.
    @ivar largest: bytes of payload in the largest of the segments that came as
        this one.
    """

    __slots__ = (
        "ack",
        "destinationPort",
        "end",
        "flags",
        "largest",
        "options",
        "packet",
        "seq",
        "sourcePort",
        "start",
        "window",
    )

    def __init__(
        self,
        packet: bytes,
        start: int,
        end: int,
        sourcePort: int,
        destinationPort: int,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        options: Options = NO_OPTIONS,
        largest: int = 0,
    ) -> None:
        """
        @param largest: 0 if it is one segment and no run of them.
        """
        self.packet = packet
        self.start = start
        self.end = end
        self.sourcePort = sourcePort
        self.destinationPort = destinationPort
        self.seq = seq
        self.ack = ack
        self.flags = flags
        self.window = window
        self.options = options
        self.largest = largest or end - start

    @property
    def payload(self) -> bytes:
        """The payload, copied out of the packet."""
        return self.packet[self.start : self.end]

    @property
    def sequenceLength(self) -> int:
        """How much sequence space the segment takes: payload, SYN and FIN."""
        flags = self.flags
        return self.end - self.start + (flags & FIN) + ((flags & SYN) >> 1)

    def __repr__(self) -> str:
        names = "".join(
            letter
            for letter, bit in zip(
                "SAFRPU", (SYN, ACK, FIN, RST, PSH, URG), strict=True
            )
            if self.flags & bit
        )
        return (
            f"<Segment {self.sourcePort}>{self.destinationPort} {names or '-'} "
            f"seq={self.seq} ack={self.ack} win={self.window} "
            f"len={self.end - self.start}>"
        )


def parseTCP(packet: bytes, offset: int, end: int) -> Segment:
    """
    Parse the TCP segment that lies at C{packet[offset:end]}.

    The checksum is not looked at; see L{tsrt.wire.checksum}.

    @raise WireError: if the header or its options are malformed.
    """
    if end - offset < HEADER_LENGTH or end > len(packet):
        raise WireError("TCP segment shorter than its header")
    sourcePort, destinationPort, seq, ack, offsetFlags, window, _, _ = (
        _HEADER.unpack_from(packet, offset)
    )
    headerLength = offsetFlags >> 12 << 2
    start = offset + headerLength
    if headerLength == HEADER_LENGTH:
        options = NO_OPTIONS
    elif headerLength < HEADER_LENGTH or start > end:
        raise WireError("TCP data offset outside the segment")
    else:
        options = parseOptions(packet, offset + HEADER_LENGTH, start)
    return Segment(
        packet,
        start,
        end,
        sourcePort,
        destinationPort,
        seq,
        ack,
        offsetFlags & 0xFF,
        window,
        options,
    )


def parseOptions(packet: bytes, offset: int, end: int) -> Options:
    """
    Parse the TCP options that lie at C{packet[offset:end]}.

    Unknown kinds are skipped; known kinds must have their proper length.

    @raise WireError: if an option runs past C{end} or has a wrong length.
    """
    if end - offset == 12 and packet[offset : offset + 4] == _TIMESTAMPS_ALONE:
        # What every segment of an established flow with timestamps carries.
        tsValue, tsEcho = _TWO_WORDS.unpack_from(packet, offset + 4)
        return Options(tsValue=tsValue, tsEcho=tsEcho)
    options = Options()
    while offset < end:
        kind = packet[offset]
        if kind == _OPTION_NOP:
            offset += 1
            continue
        if kind == _OPTION_END:
            break
        if offset + 1 >= end:
            raise WireError("TCP option without a length")
        length = packet[offset + 1]
        if length < 2 or offset + length > end:
            raise WireError("TCP option length outside the header")
        if kind in _LENGTHS and length != _LENGTHS[kind]:
            raise WireError("TCP option of a known kind with a wrong length")
        value = offset + 2
        if kind == _OPTION_MSS:
            options.mss = packet[value] << 8 | packet[value + 1]
        elif kind == _OPTION_WINDOW_SCALE:
            options.windowScale = min(packet[value], MAX_WINDOW_SCALE)
        elif kind == _OPTION_SACK_PERMITTED:
            options.sackPermitted = True
        elif kind == _OPTION_TIMESTAMPS:
            options.tsValue, options.tsEcho = _TWO_WORDS.unpack_from(packet, value)
        elif kind == _OPTION_SACK:
            if length & 7 != 2 or length == 2:
                raise WireError("TCP SACK option with a broken block")
            options.sacks = tuple(
                _TWO_WORDS.unpack_from(packet, at)
                for at in range(value, offset + length, 8)
            )
        offset += length
    return options


_LENGTHS = {
    _OPTION_MSS: 4,
    _OPTION_WINDOW_SCALE: 3,
    _OPTION_SACK_PERMITTED: 2,
    _OPTION_TIMESTAMPS: 10,
}


def encodeOptions(
    mss: int | None = None,
    windowScale: int | None = None,
    sackPermitted: bool = False,
    timestamps: tuple[int, int] | None = None,
    sacks: list[tuple[int, int]] | tuple[tuple[int, int], ...] = (),
) -> bytes:
    """
    Encode TCP options, padded with no-operations to whole words.

    As many of the C{sacks} are kept, from the first, as the room allows.

    @param timestamps: our timestamp and the one that we echo.
    """
    parts = []
    if mss is not None:
        parts.append(struct.pack("!BBH", _OPTION_MSS, 4, mss))
    if windowScale is not None:
        parts.append(bytes((_OPTION_NOP, _OPTION_WINDOW_SCALE, 3, windowScale)))
    if sackPermitted:
        parts.append(bytes((_OPTION_NOP, _OPTION_NOP, _OPTION_SACK_PERMITTED, 2)))
    if timestamps is not None:
        parts.append(_TIMESTAMPS_ALONE + _TWO_WORDS.pack(*timestamps))
    encoded = b"".join(parts)
    room = (MAX_OPTIONS - len(encoded) - 4) // 8
    if sacks and room > 0:
        kept = sacks[:room]
        encoded += bytes((_OPTION_NOP, _OPTION_NOP, _OPTION_SACK, 2 + 8 * len(kept)))
        encoded += b"".join(_TWO_WORDS.pack(left, right) for left, right in kept)
    return encoded


def encodeTimestamps(value: int, echo: int) -> bytes:
    """What L{encodeOptions} makes of timestamps alone, for each segment of a flow."""
    return _packStamps(_TIMESTAMPS_ALONE, value, echo)


class SegmentBuilder:
    """
    Builds the packets of one direction of one flow.

    Addresses and ports do not change during a flow, so that both headers and
    the checksum have a constant part, which is made once here.
    """

    __slots__ = ("_ip", "_ports", "destination", "fixedSum", "overhead")

    def __init__(
        self,
        localAddress: bytes,
        localPort: int,
        remoteAddress: bytes,
        remotePort: int,
    ) -> None:
        """
        @param localAddress: packed source address, 4 or 16 bytes.
        @param remoteAddress: packed destination address of the same family.
        """
        self._ip = HeaderTemplate(localAddress, remoteAddress, PROTOCOL_TCP)
        self._ports = struct.pack("!HH", localPort, remotePort)
        self.destination = remoteAddress
        """The packed address that the packets go to."""
        self.fixedSum = (
            onesSum(localAddress)
            + onesSum(remoteAddress)
            + PROTOCOL_TCP
            + localPort
            + remotePort
        )
        """The part of the checksum that no packet changes."""
        self.overhead = self._ip.length + HEADER_LENGTH
        """Bytes of both headers without TCP options."""

    def build(
        self,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        options: bytes = b"",
        payload: bytes = b"",
    ) -> bytes:
        """
        Build one whole IP packet.

        @param window: the window field as it goes on the wire (scaled down).
        @param options: as L{encodeOptions} makes them, whole words.
        """
        headerLength = HEADER_LENGTH + len(options)
        length = headerLength + len(payload)
        offsetFlags = headerLength << 10 | flags
        total = self.fixedSum + length + seq + ack + offsetFlags + window
        if options:
            total += onesSum(options)
        if payload:
            total += onesSum(payload)
        return b"".join(
            (
                self._ip.header(length),
                self._ports,
                _AFTER_PORTS.pack(seq, ack, offsetFlags, window, -total % 65535, 0),
                options,
                payload,
            )
        )

    def front(self, length: int) -> bytes:
        """
        What a packet begins with: the IP header, and the ports.

        @param length: bytes of the TCP header, its options and the payload.
        """
        return self._ip.header(length) + self._ports

    def buildRun(
        self,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        options: bytes,
        payload: bytes,
        mss: int,
        lastFlags: int = PSH,
    ) -> list[bytes]:
        """
        Cut C{payload} into segments and build a packet for each.

        @param flags: flags of every segment of the run.
        @param mss: most bytes of payload for a segment.
        @param lastFlags: flags that the last segment has besides.
        """
        headerLength = HEADER_LENGTH + len(options)
        size = len(payload)
        offsetFlags = headerLength << 10 | flags
        fixed = self.fixedSum + ack + offsetFlags + window + onesSum(options)
        # The prefix of all segments but the last is the same bytes.
        full = headerLength + mss
        prefix = self.front(full)
        pack = _AFTER_PORTS.pack
        join = b"".join
        packets = []
        at = 0
        fixed += full
        while size - at > mss:
            piece = payload[at : at + mss]
            total = fixed + seq + onesSum(piece)
            packets.append(
                join(
                    (
                        prefix,
                        pack(seq, ack, offsetFlags, window, -total % 65535, 0),
                        options,
                        piece,
                    )
                )
            )
            at += mss
            seq = (seq + mss) & 0xFFFFFFFF
        packets.append(
            self.build(seq, ack, flags | lastFlags, window, options, payload[at:])
        )
        return packets

"""
IPv4 and IPv6: headers parsed to offsets, extension headers, building.

Parsing checks lengths and, for IPv4, the header checksum once; what it returns
are offsets into the packet, so that nothing is copied before somebody needs it.

Reference: RFC 791, RFC 8200, RFC 6864 (identification), RFC 5095 (no type 0
routing), RFC 7045 (extension headers).
"""

from __future__ import annotations

import struct

from tsrt.errors import WireError
from tsrt.wire.checksum import checksum, verify

PROTOCOL_ICMP = 1
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_ICMPV6 = 58
PROTOCOL_TSMP = 99

IPV4_HEADER = 20
"""Bytes of an IPv4 header without options."""

IPV6_HEADER = 40
"""Bytes of the fixed IPv6 header."""

FRAGMENT_HEADER = 8
"""Bytes of the IPv6 fragment extension header."""

HOP_LIMIT = 64
"""The TTL or hop limit of every packet that starts here."""

MAX_EXTENSION_HEADERS = 8
"""How many extension headers one IPv6 packet may have."""

MAX_EXTENSION_BYTES = 512
"""How many bytes the extension headers of one IPv6 packet may take."""

_HOP_BY_HOP = 0
_ROUTING = 43
_FRAGMENT = 44
_NO_NEXT_HEADER = 59
_DESTINATION_OPTIONS = 60

_V4_START = struct.Struct("!BBHHHBBH")
_V6_START = struct.Struct("!IHBB")
_FRAGMENT_EXTENSION = struct.Struct("!BBHI")
_TWO = struct.Struct("!HH")

_DONT_FRAGMENT = 0x4000
_MORE_FRAGMENTS = 0x2000


class IPHeader:
    """
    Where the parts of a packet lie, and what the header says of fragments.

    @ivar version: 4 or 6.
    @ivar protocol: of the transport (after the extension headers).
    @ivar addresses: offset of the source address; the destination follows it.
    @ivar addressesEnd: offset just past the destination address.
    @ivar start: offset of the transport header, or of the fragment's data.
    @ivar end: offset just past the packet (there may be padding after it).
    @ivar isFragment: whether the packet is only a part of one.
    @ivar ident: identification of the fragmented packet.
    @ivar fragmentOffset: bytes before this part in the whole packet.
    @ivar moreFragments: whether this part is not the last one.
    @ivar unfragmentable: offset just past the headers that each part repeats.
    @ivar nextHeaderAt: offset of the byte that names what follows the
        unfragmentable part.
    """

    __slots__ = (
        "addresses",
        "addressesEnd",
        "end",
        "fragmentOffset",
        "ident",
        "isFragment",
        "moreFragments",
        "nextHeaderAt",
        "packet",
        "protocol",
        "start",
        "unfragmentable",
        "version",
    )

    def __init__(
        self, packet: bytes, version: int, protocol: int, start: int, end: int
    ) -> None:
        self.packet = packet
        self.version = version
        self.protocol = protocol
        self.start = start
        self.end = end
        if version == 4:
            self.addresses = 12
            self.addressesEnd = 20
            self.nextHeaderAt = 9
        else:
            self.addresses = 8
            self.addressesEnd = 40
            self.nextHeaderAt = 6
        self.unfragmentable = start
        self.isFragment = False
        self.ident = 0
        self.fragmentOffset = 0
        self.moreFragments = False

    @property
    def source(self) -> bytes:
        """The packed source address."""
        return self.packet[12:16] if self.version == 4 else self.packet[8:24]

    @property
    def destination(self) -> bytes:
        """The packed destination address."""
        return self.packet[16:20] if self.version == 4 else self.packet[24:40]


def parseIP(packet: bytes) -> IPHeader:
    """
    Parse the IP header (and IPv6 extension headers) of a whole packet.

    @raise WireError: if the packet is malformed or its IPv4 header checksum
        is wrong.
    """
    if not packet:
        raise WireError("empty packet")
    version = packet[0] >> 4
    if version == 4:
        return _parseV4(packet)
    if version == 6:
        return _parseV6(packet)
    raise WireError("neither IPv4 nor IPv6")


def _parseV4(packet: bytes) -> IPHeader:
    if len(packet) < IPV4_HEADER:
        raise WireError("IPv4 packet shorter than its header")
    first, _, total, ident, fragment, _, protocol, _ = _V4_START.unpack_from(packet)
    start = (first & 0xF) << 2
    if not IPV4_HEADER <= start <= total <= len(packet):
        raise WireError("IPv4 lengths contradict each other")
    if not verify(packet[:start]):
        raise WireError("IPv4 header checksum")
    header = IPHeader(packet, 4, protocol, start, total)
    # The reserved bit and "don't fragment" say nothing to a receiver.
    fragment &= 0x3FFF
    if fragment:
        header.isFragment = True
        header.ident = ident
        header.fragmentOffset = (fragment & 0x1FFF) << 3
        header.moreFragments = bool(fragment & _MORE_FRAGMENTS)
    return header


def _parseV6(packet: bytes) -> IPHeader:
    if len(packet) < IPV6_HEADER:
        raise WireError("IPv6 packet shorter than its header")
    _, length, following, _ = _V6_START.unpack_from(packet)
    end = IPV6_HEADER + length
    if end > len(packet):
        raise WireError("IPv6 payload longer than the packet")
    header = IPHeader(packet, 6, following, IPV6_HEADER, end)
    if following in _EXTENSIONS:
        _walkExtensions(header)
    return header


_EXTENSIONS = frozenset((_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS))


def _walkExtensions(header: IPHeader) -> None:
    """
    Step over the extension headers and note what the fragment header says.

    @raise WireError: if they are malformed, too many, or ask for something
        that a receiver has to refuse.
    """
    packet = header.packet
    end = header.end
    at = IPV6_HEADER
    following = header.protocol
    for count in range(MAX_EXTENSION_HEADERS + 1):
        if following not in _EXTENSIONS:
            break
        if count == MAX_EXTENSION_HEADERS:
            raise WireError("too many IPv6 extension headers")
        if at + 8 > end:
            raise WireError("IPv6 extension header outside the packet")
        kind = following
        following = packet[at]
        if kind == _FRAGMENT:
            offset = packet[at + 2] << 8 | packet[at + 3]
            header.ident = int.from_bytes(packet[at + 4 : at + 8], "big")
            header.fragmentOffset = offset & 0xFFF8
            header.moreFragments = bool(offset & 1)
            # A lone "fragment" that is the whole packet is an atomic one and
            # taken as if it had no fragment header (RFC 6946).
            if offset & 0xFFF9:
                header.isFragment = True
                header.unfragmentable = at
                header.protocol = following
                header.start = at + 8
                return
            at += 8
            continue
        length = (packet[at + 1] + 1) << 3
        if at + length > end or at + length - IPV6_HEADER > MAX_EXTENSION_BYTES:
            raise WireError("IPv6 extension header too long")
        if kind == _HOP_BY_HOP and count:
            raise WireError("IPv6 hop-by-hop options not in front")
        if kind == _ROUTING:
            if packet[at + 3]:
                # Segments left: the packet wants to be forwarded from here.
                raise WireError("IPv6 source routing")
        else:
            _checkOptions(packet, at + 2, at + length)
        if not header.isFragment and kind != _DESTINATION_OPTIONS:
            header.nextHeaderAt = at
        at += length
    header.protocol = following
    header.start = at


def _checkOptions(packet: bytes, at: int, end: int) -> None:
    """
    Walk the options of a hop-by-hop or destination options header.

    @raise WireError: if one is malformed, or unknown and not to be skipped
        (its two highest bits are not zero).
    """
    while at < end:
        kind = packet[at]
        if kind == 0:
            at += 1
            continue
        if at + 2 > end or at + 2 + packet[at + 1] > end:
            raise WireError("IPv6 option outside its header")
        if kind & 0xC0:
            raise WireError("IPv6 option that must be understood")
        at += 2 + packet[at + 1]


class HeaderTemplate:
    """
    Makes the IP headers of packets between two addresses.

    The packets are atomic: never fragmented later, so that the IPv4
    identification may be zero (RFC 6864).
    """

    __slots__ = ("_after", "_cached", "_cachedLength", "_sum", "length")

    def __init__(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        hopLimit: int = HOP_LIMIT,
    ) -> None:
        """
        @param source: packed address, 4 or 16 bytes.
        @param destination: packed address of the same family.
        @raise ValueError: if the addresses are of different families.
        """
        if len(source) != len(destination) or len(source) not in (4, 16):
            raise ValueError("addresses of different families")
        self._cachedLength = -1
        self._cached = b""
        if len(source) == 4:
            self.length = IPV4_HEADER
            self._sum = 0xFFFF - checksum(
                _V4_START.pack(0x45, 0, 0, 0, _DONT_FRAGMENT, hopLimit, protocol, 0)
                + source
                + destination
            )
            self._after = (
                struct.pack("!HHBB", 0, _DONT_FRAGMENT, hopLimit, protocol),
                source + destination,
            )
        else:
            self.length = IPV6_HEADER
            self._sum = 0
            self._after = (bytes((protocol, hopLimit)) + source + destination, b"")

    def header(self, payloadLength: int) -> bytes:
        """The header for a packet with that many bytes after the header."""
        if payloadLength == self._cachedLength:
            return self._cached
        front, back = self._after
        if back:
            total = payloadLength + IPV4_HEADER
            made = b"".join(
                (
                    b"\x45\x00",
                    total.to_bytes(2, "big"),
                    front,
                    (-(self._sum + total) % 65535).to_bytes(2, "big"),
                    back,
                )
            )
        else:
            made = b"\x60\x00\x00\x00" + payloadLength.to_bytes(2, "big") + front
        self._cachedLength = payloadLength
        self._cached = made
        return made


def buildIP(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    """Build one whole packet around C{payload}."""
    return HeaderTemplate(source, destination, protocol).header(len(payload)) + payload

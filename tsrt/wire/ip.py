"""
IPv4 and IPv6: headers parsed to offsets, extension headers, building.

Parsing checks lengths and, for IPv4, the header checksum once; what it returns
are offsets into the packet, so that nothing is copied before somebody needs it.

Reference: RFC 791, RFC 8200, RFC 6864 (identification), RFC 6946 (atomic
fragments), RFC 5095 (no source routing).
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
_DESTINATION_OPTIONS = 60
_EXTENSIONS = frozenset((_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS))

_V4_HEADER = struct.Struct("!BBHHHBBH4s4s")
_V4_START = struct.Struct("!BBHHHBB")
_V6_START = struct.Struct("!IHBB")
_FRAGMENT_EXTENSION = struct.Struct("!BBHI")

_DONT_FRAGMENT = 0x4000
_MORE_FRAGMENTS = 0x2000
_OFFSET_BITS = 0x1FFF


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
    @ivar ident: identification of the packet that this is a fragment of.
    @ivar fragmentOffset: bytes before this part in the whole packet.
    @ivar moreFragments: whether this part is not the last one.
    """

    __slots__ = (
        "addresses",
        "addressesEnd",
        "end",
        "fragmentOffset",
        "ident",
        "isFragment",
        "moreFragments",
        "packet",
        "protocol",
        "start",
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
        else:
            self.addresses = 8
            self.addressesEnd = 40
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
    first, _, total, ident, fragment, _, protocol = _V4_START.unpack_from(packet)
    start = (first & 0xF) << 2
    if not IPV4_HEADER <= start <= total <= len(packet):
        raise WireError("IPv4 lengths contradict each other")
    if not verify(packet[:start]):
        raise WireError("IPv4 header checksum")
    header = IPHeader(packet, 4, protocol, start, total)
    if fragment & (_MORE_FRAGMENTS | _OFFSET_BITS):
        header.isFragment = True
        header.ident = ident
        header.fragmentOffset = (fragment & _OFFSET_BITS) << 3
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
    count = 0
    atomic = False
    while following in _EXTENSIONS:
        if count == MAX_EXTENSION_HEADERS:
            raise WireError("too many IPv6 extension headers")
        if at + 8 > end:
            raise WireError("IPv6 extension header outside the packet")
        kind = following
        following = packet[at]
        if kind == _FRAGMENT:
            if atomic:
                raise WireError("two IPv6 fragment headers")
            _, _, offset, ident = _FRAGMENT_EXTENSION.unpack_from(packet, at)
            at += FRAGMENT_HEADER
            # A lone "fragment" that is the whole packet is taken as if it had
            # no fragment header (RFC 6946).
            atomic = not offset & 0xFFF9
            if not atomic:
                header.isFragment = True
                header.ident = ident
                header.fragmentOffset = offset & 0xFFF8
                header.moreFragments = bool(offset & 1)
                break
        else:
            length = (packet[at + 1] + 1) << 3
            if at + length > min(end, IPV6_HEADER + MAX_EXTENSION_BYTES):
                raise WireError("IPv6 extension header too long")
            if kind == _ROUTING:
                if packet[at + 3]:
                    # Segments left: the packet wants to be forwarded from here.
                    raise WireError("IPv6 source routing")
            else:
                if kind == _HOP_BY_HOP and count:
                    raise WireError("IPv6 hop-by-hop options not in front")
                _checkOptions(packet, at + 2, at + length)
            at += length
        count += 1
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

    __slots__ = ("_back", "_cached", "_cachedLength", "_front", "_sum", "length")

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
            header = _V4_HEADER.pack(
                0x45,
                0,
                0,
                0,
                _DONT_FRAGMENT,
                hopLimit,
                protocol,
                0,
                source,
                destination,
            )
            self._sum = 0xFFFF - checksum(header)
            self._front = header[4:10]
            self._back = header[12:]
        else:
            self.length = IPV6_HEADER
            self._sum = 0
            self._front = bytes((protocol, hopLimit)) + source + destination
            self._back = b""

    def header(self, payloadLength: int) -> bytes:
        """The header for a packet with that many bytes after the header."""
        if payloadLength == self._cachedLength:
            return self._cached
        if self._back:
            total = payloadLength + IPV4_HEADER
            made = b"".join(
                (
                    b"\x45\x00",
                    total.to_bytes(2, "big"),
                    self._front,
                    (-(self._sum + total) % 65535).to_bytes(2, "big"),
                    self._back,
                )
            )
        else:
            made = b"\x60\x00\x00\x00" + payloadLength.to_bytes(2, "big") + self._front
        self._cachedLength = payloadLength
        self._cached = made
        return made


def buildIP(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    """Build one atomic packet around C{payload}, which has to fit."""
    return HeaderTemplate(source, destination, protocol).header(len(payload)) + payload


def buildPackets(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    mtu: int,
    ident: int,
    hopLimit: int = HOP_LIMIT,
) -> list[bytes]:
    """
    Build the packet around C{payload}, in fragments if it exceeds C{mtu}.

    Routers may fragment the IPv4 packets further.

    @param payload: transport header and data.
    @param ident: identification, unlike that of other recent packets between
        the two addresses; 16 bits of it are used for IPv4, 32 for IPv6.
    @raise ValueError: if the payload is larger than any packet can be, the
        addresses are of different families, or the MTU leaves no room.
    """
    if len(source) != len(destination) or len(source) not in (4, 16):
        raise ValueError("addresses of different families")
    size = len(payload)
    if len(source) == 4:
        if size > 65535 - IPV4_HEADER:
            raise ValueError("payload too large for IPv4")
        room = (mtu - IPV4_HEADER) & ~7
        if IPV4_HEADER + size <= mtu:
            room = max(room, size)
    else:
        if size > 65535:
            raise ValueError("payload too large for IPv6")
        if IPV6_HEADER + size <= mtu:
            start = _V6_START.pack(0x60000000, size, protocol, hopLimit)
            return [start + source + destination + payload]
        room = (mtu - IPV6_HEADER - FRAGMENT_HEADER) & ~7
    if room < 8:
        raise ValueError("MTU too small")
    packets = []
    for at in range(0, size or 1, room):
        piece = payload[at : at + room]
        more = at + room < size
        if len(source) == 4:
            header = bytearray(
                _V4_HEADER.pack(
                    0x45,
                    0,
                    IPV4_HEADER + len(piece),
                    ident & 0xFFFF,
                    at >> 3 | (_MORE_FRAGMENTS if more else 0),
                    hopLimit,
                    protocol,
                    0,
                    source,
                    destination,
                )
            )
            header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
            packets.append(bytes(header) + piece)
        else:
            packets.append(
                _V6_START.pack(
                    0x60000000, FRAGMENT_HEADER + len(piece), _FRAGMENT, hopLimit
                )
                + source
                + destination
                + _FRAGMENT_EXTENSION.pack(protocol, 0, at | more, ident & 0xFFFFFFFF)
                + piece
            )
    return packets

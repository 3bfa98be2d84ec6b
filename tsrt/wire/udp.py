"""
UDP datagrams: parsing to offsets, the checksum rules, building.

Reference: RFC 768, RFC 8200 section 8.1.
"""

from __future__ import annotations

import struct

from tsrt.errors import WireError
from tsrt.wire.checksum import transportChecksum, verifyTransport
from tsrt.wire.ip import PROTOCOL_UDP, IPHeader

HEADER_LENGTH = 8
"""Bytes of a UDP header."""

MAX_PAYLOAD = 65507
"""Most bytes of a datagram's payload: what IPv4 can carry, here for both."""

_HEADER = struct.Struct("!HHHH")


class Datagram:
    """
    A parsed UDP datagram.

    @ivar packet: the whole IP packet that holds the datagram.
    @ivar start: offset in C{packet} of the first byte of the payload.
    @ivar end: offset in C{packet} just past the payload.
    """

    __slots__ = ("checksum", "destinationPort", "end", "packet", "sourcePort", "start")

    def __init__(
        self,
        packet: bytes,
        start: int,
        end: int,
        sourcePort: int,
        destinationPort: int,
        checksum: int,
    ) -> None:
        self.packet = packet
        self.start = start
        self.end = end
        self.sourcePort = sourcePort
        self.destinationPort = destinationPort
        self.checksum = checksum

    @property
    def payload(self) -> bytes:
        """The payload, copied out of the packet."""
        return self.packet[self.start : self.end]


def parseUDP(packet: bytes, offset: int, end: int) -> Datagram:
    """
    Parse the datagram that lies at C{packet[offset:end]}.

    The datagram may be shorter than that, by its own length field.  The
    checksum is not looked at; see L{verifyUDP}.

    @raise WireError: if the header or its length is malformed.
    """
    if end - offset < HEADER_LENGTH or end > len(packet):
        raise WireError("UDP datagram shorter than its header")
    sourcePort, destinationPort, length, checksum = _HEADER.unpack_from(packet, offset)
    if not HEADER_LENGTH <= length <= end - offset:
        raise WireError("UDP length outside the packet")
    return Datagram(
        packet,
        offset + HEADER_LENGTH,
        offset + length,
        sourcePort,
        destinationPort,
        checksum,
    )


def verifyUDP(header: IPHeader, datagram: Datagram) -> bool:
    """
    Whether the checksum of C{datagram} is right.

    Zero stands for "no checksum", which IPv4 allows and IPv6 does not.
    """
    if not datagram.checksum:
        return header.version == 4
    return verifyTransport(
        header.packet,
        header.addresses,
        header.addressesEnd,
        datagram.start - HEADER_LENGTH,
        datagram.end,
        PROTOCOL_UDP,
    )


def buildUDP(
    source: bytes,
    sourcePort: int,
    destination: bytes,
    destinationPort: int,
    payload: bytes,
) -> bytes:
    """
    Build UDP header and payload, without an IP header.

    @param source: packed address; goes into the checksum only.
    @raise ValueError: if the payload is longer than L{MAX_PAYLOAD}.
    """
    if len(payload) > MAX_PAYLOAD:
        raise ValueError("payload too large for UDP")
    length = HEADER_LENGTH + len(payload)
    bare = _HEADER.pack(sourcePort, destinationPort, length, 0)
    total = transportChecksum(source, destination, PROTOCOL_UDP, bare + payload)
    # Zero on the wire would mean "no checksum".
    return _HEADER.pack(sourcePort, destinationPort, length, total or 65535) + payload

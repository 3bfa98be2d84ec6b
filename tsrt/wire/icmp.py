"""
ICMP for IPv4 and IPv6: messages, and the packets that errors quote.

Reference: RFC 792, RFC 1191 (next-hop MTU), RFC 4443, RFC 8201.
"""

from __future__ import annotations

import struct

from tsrt.errors import WireError
from tsrt.wire.checksum import checksum, transportChecksum, verify, verifyTransport
from tsrt.wire.ip import (
    IPV4_HEADER,
    IPV6_HEADER,
    PROTOCOL_ICMPV6,
    IPHeader,
)

HEADER_LENGTH = 8
"""Bytes of an ICMP header with its four bytes that depend on the type."""

V4_ECHO_REPLY = 0
V4_UNREACHABLE = 3
V4_ECHO_REQUEST = 8
V4_TIME_EXCEEDED = 11
V4_PARAMETER_PROBLEM = 12

V4_NET_UNREACHABLE = 0
V4_HOST_UNREACHABLE = 1
V4_PROTOCOL_UNREACHABLE = 2
V4_PORT_UNREACHABLE = 3
V4_FRAGMENTATION_NEEDED = 4

V6_UNREACHABLE = 1
V6_PACKET_TOO_BIG = 2
V6_TIME_EXCEEDED = 3
V6_PARAMETER_PROBLEM = 4
V6_ECHO_REQUEST = 128
V6_ECHO_REPLY = 129

V6_NO_ROUTE = 0
V6_PROHIBITED = 1
V6_ADDRESS_UNREACHABLE = 3
V6_PORT_UNREACHABLE = 4

V4_ERROR_LIMIT = 576
"""Most bytes of an IPv4 packet that carries an error (RFC 1812 4.3.2.3)."""

V6_ERROR_LIMIT = 1280
"""Most bytes of an IPv6 packet that carries an error (RFC 4443 2.4)."""

_HEADER = struct.Struct("!BBHI")
_PORTS = struct.Struct("!HHI")
_FRAGMENT = 44


class ICMPMessage:
    """
    A parsed ICMP message.

    @ivar rest: the four bytes after the checksum, as a number; what they mean
        depends on the type.
    @ivar start: offset in C{packet} of what follows the header.
    @ivar end: offset in C{packet} just past the message.
    """

    __slots__ = ("code", "end", "packet", "rest", "start", "type")

    def __init__(
        self, packet: bytes, start: int, end: int, type: int, code: int, rest: int
    ) -> None:
        self.packet = packet
        self.start = start
        self.end = end
        self.type = type
        self.code = code
        self.rest = rest

    @property
    def ident(self) -> int:
        """The identifier of an echo request or reply."""
        return self.rest >> 16

    @property
    def sequence(self) -> int:
        """The sequence number of an echo request or reply."""
        return self.rest & 0xFFFF

    @property
    def payload(self) -> bytes:
        """What follows the header, copied out of the packet."""
        return self.packet[self.start : self.end]


def parseICMP(packet: bytes, offset: int, end: int) -> ICMPMessage:
    """
    Parse the ICMP message that lies at C{packet[offset:end]}.

    The checksum is not looked at; see L{verifyICMP}.

    @raise WireError: if it is shorter than a header.
    """
    if end - offset < HEADER_LENGTH or end > len(packet):
        raise WireError("ICMP message shorter than its header")
    kind, code, _, rest = _HEADER.unpack_from(packet, offset)
    return ICMPMessage(packet, offset + HEADER_LENGTH, end, kind, code, rest)


def verifyICMP(header: IPHeader) -> bool:
    """Whether the ICMP message in a packet has a right checksum."""
    if header.version == 4:
        return verify(header.packet[header.start : header.end])
    return verifyTransport(
        header.packet,
        header.addresses,
        header.addressesEnd,
        header.start,
        header.end,
        PROTOCOL_ICMPV6,
    )


def buildICMP(
    source: bytes, destination: bytes, type: int, code: int, rest: int, payload: bytes
) -> bytes:
    """
    Build an ICMP or ICMPv6 message, by the family of the addresses, without
    an IP header.

    @param source: packed address; goes into the checksum of ICMPv6.
    @param rest: the four bytes after the checksum, as a number.
    """
    message = _HEADER.pack(type, code, 0, rest) + payload
    if len(source) == 4:
        total = checksum(message)
    else:
        total = transportChecksum(source, destination, PROTOCOL_ICMPV6, message)
    return message[:2] + total.to_bytes(2, "big") + message[4:]


class Quotation:
    """
    The start of a packet of ours that came back inside an ICMP error.

    @ivar source: packed source address: one of ours, if the error is for us.
    @ivar sourcePort: for protocols with ports.
    @ivar sequence: bytes four to seven of the transport header: the sequence
        number of a TCP segment, identifier and sequence number of an echo.
    """

    __slots__ = (
        "destination",
        "destinationPort",
        "protocol",
        "sequence",
        "source",
        "sourcePort",
    )

    def __init__(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        sourcePort: int,
        destinationPort: int,
        sequence: int,
    ) -> None:
        self.source = source
        self.destination = destination
        self.protocol = protocol
        self.sourcePort = sourcePort
        self.destinationPort = destinationPort
        self.sequence = sequence


def parseQuotation(packet: bytes, offset: int, end: int) -> Quotation:
    """
    Parse the quoted packet that lies at C{packet[offset:end]}.

    It may be cut off, has at least eight bytes of its transport header, and
    must be whole or a first fragment.

    @raise WireError: if it is malformed or tells too little.
    """
    if end <= offset or end > len(packet):
        raise WireError("ICMP error without a quotation")
    version = packet[offset] >> 4
    if version == 4:
        if end - offset < IPV4_HEADER:
            raise WireError("quoted IPv4 header cut off")
        at = offset + ((packet[offset] & 0xF) << 2)
        later = packet[offset + 6] & 0x1F or packet[offset + 7]
        if at < offset + IPV4_HEADER or later:
            raise WireError("quoted IPv4 packet without its transport header")
        protocol = packet[offset + 9]
        source = packet[offset + 12 : offset + 16]
        destination = packet[offset + 16 : offset + 20]
    elif version == 6:
        at = offset + IPV6_HEADER
        if end < at:
            raise WireError("quoted IPv6 header cut off")
        protocol = packet[offset + 6]
        source = packet[offset + 8 : offset + 24]
        destination = packet[offset + 24 : offset + 40]
        if protocol == _FRAGMENT:
            # The only extension header that our own packets have.
            if end < at + 8 or packet[at + 2] or packet[at + 3] & 0xF8:
                raise WireError("quoted IPv6 packet without its transport header")
            protocol = packet[at]
            at += 8
    else:
        raise WireError("quoted packet is neither IPv4 nor IPv6")
    if end - at < 8:
        raise WireError("quoted transport header cut off")
    sourcePort, destinationPort, sequence = _PORTS.unpack_from(packet, at)
    return Quotation(
        source, destination, protocol, sourcePort, destinationPort, sequence
    )

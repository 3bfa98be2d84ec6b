"""
ICMP errors as values: what they say about which packet, and how to say it.

Reference: RFC 792, RFC 1122 section 3.2.2, RFC 1191, RFC 4443.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from tsrt.errors import WireError
from tsrt.netstack.egress import isUnicast
from tsrt.wire.icmp import (
    HEADER_LENGTH,
    V4_ECHO_REQUEST,
    V4_ERROR_LIMIT,
    V4_FRAGMENTATION_NEEDED,
    V4_HOST_UNREACHABLE,
    V4_PARAMETER_PROBLEM,
    V4_PORT_UNREACHABLE,
    V4_PROTOCOL_UNREACHABLE,
    V4_TIME_EXCEEDED,
    V4_UNREACHABLE,
    V6_ECHO_REQUEST,
    V6_ERROR_LIMIT,
    V6_NO_ROUTE,
    V6_PACKET_TOO_BIG,
    V6_PARAMETER_PROBLEM,
    V6_PORT_UNREACHABLE,
    V6_PROHIBITED,
    V6_TIME_EXCEEDED,
    V6_UNREACHABLE,
    ICMPMessage,
    Quotation,
    buildICMP,
    parseICMP,
    parseQuotation,
)
from tsrt.wire.ip import (
    IPV4_HEADER,
    IPV6_HEADER,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    IPHeader,
    buildIP,
    parseIP,
)

_V4_PROHIBITED = (9, 10, 13)


class Trouble(enum.Enum):
    """What an ICMP error says."""

    UNREACHABLE = "unreachable"
    """The network or the host cannot be reached."""

    PORT_UNREACHABLE = "port unreachable"
    """Nobody has the port, or the protocol, over there."""

    PROHIBITED = "prohibited"
    """A filter on the way refuses the packet."""

    TOO_BIG = "too big"
    """The packet does not fit a link on the way."""

    EXPIRED = "expired"
    """The packet was under way for too long."""


class NetworkError(NamedTuple):
    """
    An ICMP error about a packet of ours.

    @ivar quotation: the packet that caused it.
    @ivar mtu: for L{Trouble.TOO_BIG}: what fits; 0 if the router did not say.
    """

    trouble: Trouble
    quotation: Quotation
    mtu: int


def readError(version: int, message: ICMPMessage) -> NetworkError | None:
    """
    Read an ICMP error.

    @param version: 4 or 6, of the IP packet.
    @return: what it says; L{None} if it is none, or says nothing of use.
    @raise WireError: if the packet that it quotes is malformed or cut short.
    """
    trouble = _troubleV4(message) if version == 4 else _troubleV6(message)
    if trouble is None:
        return None
    quotation = parseQuotation(message.packet, message.start, message.end)
    mtu = 0
    if trouble is Trouble.TOO_BIG:
        mtu = message.rest & 0xFFFF if version == 4 else message.rest
    return NetworkError(trouble, quotation, mtu)


def _troubleV4(message: ICMPMessage) -> Trouble | None:
    """What an ICMPv4 message says, if it is an error that matters."""
    if message.type == V4_UNREACHABLE:
        if message.code == V4_FRAGMENTATION_NEEDED:
            return Trouble.TOO_BIG
        if message.code in (V4_PORT_UNREACHABLE, V4_PROTOCOL_UNREACHABLE):
            return Trouble.PORT_UNREACHABLE
        if message.code in _V4_PROHIBITED:
            return Trouble.PROHIBITED
        return Trouble.UNREACHABLE
    if message.type == V4_TIME_EXCEEDED:
        return Trouble.EXPIRED
    if message.type == V4_PARAMETER_PROBLEM:
        return Trouble.UNREACHABLE
    return None


def _troubleV6(message: ICMPMessage) -> Trouble | None:
    """What an ICMPv6 message says, if it is an error that matters."""
    if message.type == V6_UNREACHABLE:
        if message.code == V6_PORT_UNREACHABLE:
            return Trouble.PORT_UNREACHABLE
        if message.code == V6_PROHIBITED or message.code > V6_PORT_UNREACHABLE:
            return Trouble.PROHIBITED
        return Trouble.UNREACHABLE
    if message.type == V6_PACKET_TOO_BIG:
        return Trouble.TOO_BIG
    if message.type == V6_TIME_EXCEEDED:
        return Trouble.EXPIRED
    if message.type == V6_PARAMETER_PROBLEM:
        return Trouble.UNREACHABLE
    return None


def buildPortUnreachable(header: IPHeader) -> bytes:
    """
    The message, without an IP header, that tells the sender of a packet that
    nobody has its port here.
    """
    if header.version == 4:
        kind, code = V4_UNREACHABLE, V4_PORT_UNREACHABLE
    else:
        kind, code = V6_UNREACHABLE, V6_PORT_UNREACHABLE
    return buildICMP(header.destination, header.source, kind, code, 0, _quote(header))


def _quote(header: IPHeader) -> bytes:
    """As much of a packet as an error about it may quote."""
    if header.version == 4:
        room = V4_ERROR_LIMIT - IPV4_HEADER - HEADER_LENGTH
    else:
        room = V6_ERROR_LIMIT - IPV6_HEADER - HEADER_LENGTH
    return header.packet[: min(header.end, room)]


def buildNoRoute(packet: bytes) -> bytes | None:
    """
    The packet that a router would send back for one that it cannot forward.

    Given back to the stack that C{packet} came from, it ends connection
    attempts at once that would otherwise time out.

    @param packet: a whole packet that our stack made.
    @return: a whole packet; L{None} where there must be no error: for other
        than unicast, for later fragments, and for ICMP errors.
    """
    try:
        header = parseIP(packet)
        if header.isFragment and header.fragmentOffset:
            return None
        if header.protocol == PROTOCOL_ICMP:
            kind = parseICMP(packet, header.start, header.end).type
            if kind != V4_ECHO_REQUEST:
                return None
        elif header.protocol == PROTOCOL_ICMPV6:
            kind = parseICMP(packet, header.start, header.end).type
            if kind != V6_ECHO_REQUEST:
                return None
    except WireError:
        return None
    remote, local = header.destination, header.source
    if not isUnicast(remote):
        return None
    if header.version == 4:
        kind, code, protocol = V4_UNREACHABLE, V4_HOST_UNREACHABLE, PROTOCOL_ICMP
    else:
        kind, code, protocol = V6_UNREACHABLE, V6_NO_ROUTE, PROTOCOL_ICMPV6
    return buildIP(
        remote, local, protocol, buildICMP(remote, local, kind, code, 0, _quote(header))
    )

"""
What the packet filter wants to know of a packet, read from any bytes.

Packets that are malformed, or look like an attempt to hide something from a
filter, are not read at all (RFC 1858, RFC 3128 for fragments).
"""

from __future__ import annotations

_ICMP = 1
_TCP = 6
_UDP = 17
_FRAGMENT_HEADER = 44
_ICMPV6 = 58
_TSMP = 99
_SCTP = 132

# Bytes that a packet must have behind its IP header, by protocol.
_LEAST_V4 = {_ICMP: 4, _TCP: 20, _UDP: 8, _SCTP: 12, _TSMP: 7}
_LEAST_V6 = {_ICMPV6: 4, _TCP: 20, _UDP: 8, _SCTP: 12, _TSMP: 7}

# Numbers that stand for nothing: zero for "unknown" (in IPv6 these are
# hop-by-hop options), and one that is reserved.
_NO_PROTOCOLS = (0, 255)

# A later fragment that begins before this could overwrite what the first one
# was judged by.
_LEAST_FRAGMENT_OFFSET = 80

_ECHO_REPLY_V4 = 0
_ECHO_REPLY_V6 = 129
_ERRORS_V4 = frozenset((3, 11, 12))
_ERRORS_V6 = frozenset((1, 2, 3, 4))

_METADATA_SERVICE = bytes((169, 254, 169, 254))

Parsed = tuple[int, bytes, bytes, int, bool]
"""
Protocol, source, destination, where the protocol's header begins, and whether
the packet is a later fragment, without that header.
"""


def parseForFilter(packet: bytes) -> Parsed | None:
    """Read an IP packet; C{None} if it is malformed or suspicious."""
    size = len(packet)
    if size < 20:
        return None
    version = packet[0] >> 4
    if version == 4:
        return _parseV4(packet, size)
    if version == 6 and size >= 40:
        return _parseV6(packet, size)
    return None


def _parseV4(packet: bytes, size: int) -> Parsed | None:
    offset = (packet[0] & 0x0F) * 4
    total = packet[2] << 8 | packet[3]
    if offset < 20 or total < offset or total > size:
        return None
    protocol = packet[9]
    fragment = packet[6] << 8 | packet[7]
    if fragment & 0x1FFF:
        if (fragment & 0x1FFF) * 8 < _LEAST_FRAGMENT_OFFSET:
            return None
        return protocol, packet[12:16], packet[16:20], offset, True
    if protocol == _TSMP and fragment & 0x2000:
        return None
    if protocol in _NO_PROTOCOLS or total - offset < _LEAST_V4.get(protocol, 0):
        return None
    return protocol, packet[12:16], packet[16:20], offset, False


def _parseV6(packet: bytes, size: int) -> Parsed | None:
    total = 40 + (packet[4] << 8 | packet[5])
    if total > size:
        return None
    protocol, offset = packet[6], 40
    if protocol == _FRAGMENT_HEADER:
        if total < 48:
            return None
        protocol, offset = packet[40], 48
        fragment = (packet[42] << 8 | packet[43]) & 0xFFF8
        if fragment:
            if fragment < _LEAST_FRAGMENT_OFFSET:
                return None
            return protocol, packet[8:24], packet[24:40], offset, True
    if protocol in _NO_PROTOCOLS or total - offset < _LEAST_V6.get(protocol, 0):
        return None
    return protocol, packet[8:24], packet[24:40], offset, False


def flowKey(packet: bytes) -> bytes:
    """
    Protocol, source, destination and ports of a packet, as one value.

    @param packet: one of a protocol with ports, whole, and without options or
        extension headers.
    """
    if packet[0] >> 4 == 4:
        return packet[9:10] + packet[12:24]
    return packet[6:7] + packet[8:44]


def isMulticast(address: bytes) -> bool:
    """Whether an address stands for many."""
    if len(address) == 4:
        return address[0] & 0xF0 == 0xE0
    return address[0] == 0xFF


def isLinkLocal(address: bytes) -> bool:
    """
    Whether an address is good on one link only.

    The metadata service of clouds has such an address, and counts as none.
    """
    if len(address) == 4:
        return address[:2] == b"\xa9\xfe" and address != _METADATA_SERVICE
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def isAnswer(protocol: int, kind: int, code: int) -> bool:
    """Whether an ICMP message can only be an answer: an echo reply or error."""
    if protocol == _ICMP:
        return (kind == _ECHO_REPLY_V4 and code == 0) or kind in _ERRORS_V4
    return (kind == _ECHO_REPLY_V6 and code == 0) or kind in _ERRORS_V6

"""
Packets as the packet filter's tests want them: small, and wrong where asked.
"""

from __future__ import annotations

import struct

from tsrt.addresses import parseAddress

ICMP = 1
TCP = 6
UDP = 17
FRAGMENT = 44
ICMPV6 = 58
TSMP = 99
SCTP = 132

SYN = 0x02
ACK = 0x10
SYN_ACK = SYN | ACK
RST = 0x04


def ip(
    source: str,
    destination: str,
    protocol: int,
    body: bytes,
    *,
    options: bytes = b"",
    moreFragments: bool = False,
    fragmentUnits: int = 0,
    total: int | None = None,
) -> bytes:
    """
    An IP packet of the family of its addresses.

    @param options: IPv4 options, a multiple of four bytes.
    @param fragmentUnits: where a fragment begins, in units of eight bytes.
    @param total: what the header says instead of the real length; for IPv6
        the length of the payload.
    """
    packedSource, packedDestination = parseAddress(source), parseAddress(destination)
    if len(packedSource) == 4:
        headerLength = 20 + len(options)
        return (
            struct.pack(
                "!BBHHHBBH",
                0x40 | headerLength // 4,
                0,
                headerLength + len(body) if total is None else total,
                7,
                (0x2000 if moreFragments else 0) | fragmentUnits,
                64,
                protocol,
                0,
            )
            + packedSource
            + packedDestination
            + options
            + body
        )
    if moreFragments or fragmentUnits:
        body = (
            struct.pack("!BBHI", protocol, 0, fragmentUnits << 3 | moreFragments, 7)
            + body
        )
        protocol = FRAGMENT
    return (
        struct.pack(
            "!IHBB", 6 << 28, len(body) if total is None else total, protocol, 64
        )
        + packedSource
        + packedDestination
        + body
    )


def tcp(
    source: str,
    destination: str,
    port: int,
    flags: int = SYN,
    sourcePort: int = 40000,
    data: bytes = b"",
    **more: object,
) -> bytes:
    """A TCP segment in a packet."""
    header = struct.pack("!HHIIBBHHH", sourcePort, port, 1, 0, 0x50, flags, 8192, 0, 0)
    return ip(source, destination, TCP, header + data, **more)  # type: ignore[arg-type]  # passed on as given


def udp(
    source: str,
    destination: str,
    port: int,
    sourcePort: int = 40000,
    data: bytes = b"0123456789ab",
    **more: object,
) -> bytes:
    """A UDP datagram in a packet."""
    header = struct.pack("!HHHH", sourcePort, port, 8 + len(data), 0)
    return ip(source, destination, UDP, header + data, **more)  # type: ignore[arg-type]  # passed on as given


def sctp(source: str, destination: str, port: int, sourcePort: int = 40000) -> bytes:
    """An SCTP packet in a packet."""
    return ip(
        source,
        destination,
        SCTP,
        struct.pack("!HHII", sourcePort, port, 1, 2) + b"chunk of it",
    )


def icmp(source: str, destination: str, kind: int, code: int = 0) -> bytes:
    """An ICMP message of the family of its addresses."""
    protocol = ICMP if len(parseAddress(source)) == 4 else ICMPV6
    return ip(source, destination, protocol, bytes((kind, code, 0, 0, 0, 1, 0, 1)))

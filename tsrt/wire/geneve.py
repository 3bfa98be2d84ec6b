"""
The Geneve header that peer relays put in front of what they carry.

Reference: RFC 8926; only headers without options occur.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tsrt.errors import WireError

HEADER_LENGTH = 8

PROTOCOL_DISCO = 0x7A11
PROTOCOL_WIREGUARD = 0x7A12

MAX_VNI = (1 << 24) - 1

_HEADER = struct.Struct("!BBHI")
_CONTROL = 0x80
_RESERVED = 0x3F


class GeneveHeader(NamedTuple):
    """Whom a relayed datagram belongs to and what it holds."""

    protocol: int
    """L{PROTOCOL_DISCO} or L{PROTOCOL_WIREGUARD}."""

    vni: int
    """The number of the pair of clients at the relay, 24 bits."""

    control: bool = False
    """Whether the datagram is for the relay itself."""

    def encode(self) -> bytes:
        """The 8 bytes of the header."""
        control = _CONTROL if self.control else 0
        return _HEADER.pack(0, control, self.protocol, self.vni << 8)


def parseGeneve(datagram: bytes) -> GeneveHeader:
    """
    The header of C{datagram}; its content begins at L{HEADER_LENGTH}.

    @raise WireError: if it is cut short, has options or another version.
    """
    if len(datagram) < HEADER_LENGTH:
        raise WireError("a Geneve header is cut short")
    first, second, protocol, last = _HEADER.unpack_from(datagram)
    if first or second & _RESERVED or last & 0xFF:
        raise WireError("a Geneve header has options or another version")
    return GeneveHeader(protocol, last >> 8, bool(second & _CONTROL))

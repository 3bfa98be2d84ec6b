"""
Packet captures: pcap with the link type and the header that Tailscale's have.

Each packet has a path in front of it, which tells its direction, and the
addresses that it had before they were translated, if they were.  All integers
are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

MAGIC = 0xA1B2C3D4
VERSION = 2, 4
MAX_LENGTH = 65535

LINK_TYPE = 147
"""C{LINKTYPE_USER0}, for which Tailscale's dissector registers itself."""

FROM_LOCAL = 0
"""The path of packets that this node sends."""

FROM_PEER = 1
"""The path of packets from peers, before any filter."""

_FILE_HEADER = struct.Struct("<IHHIIII")
_RECORD = struct.Struct("<IIIIHBB")
_EXTRA = 4


def fileHeader() -> bytes:
    """What a capture begins with."""
    return _FILE_HEADER.pack(MAGIC, *VERSION, 0, 0, MAX_LENGTH, LINK_TYPE)


def records(when: float, path: int, packets: Iterable[bytes]) -> bytes:
    """
    The records of some packets, whose addresses were not translated.

    @param when: Unix seconds.
    @param path: L{FROM_LOCAL} or L{FROM_PEER}.
    """
    seconds = int(when)
    micros = int((when - seconds) * 1_000_000)
    pack = _RECORD.pack
    parts = []
    for packet in packets:
        length = len(packet) + _EXTRA
        parts.append(pack(seconds, micros, length, length, path, 0, 0))
        parts.append(packet)
    return b"".join(parts)

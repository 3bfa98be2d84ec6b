"""
The ports at which nodes like to have their PeerAPI.
"""

from __future__ import annotations

import zlib

PREFERRED_TRIES = 5
"""How many preferred ports an address has."""


def preferredPort(address: bytes, attempt: int = 0) -> int:
    """
    The port to try for the PeerAPI of an address.

    A convention only: peers learn the real port from the control server.

    @param address: one of the node's packed addresses.
    @param attempt: from zero on, below L{PREFERRED_TRIES}.
    """
    first, second, third = address[-3:]
    seed = bytes((first + attempt & 0xFF, second, third))
    return 0x8000 | zlib.crc32(seed) & 0xFFFF

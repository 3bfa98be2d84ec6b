"""
The place at a peer relay where two nodes meet, as disco messages carry it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tsrt.addresses import BINARY_ADDR_PORT_LENGTH, AddrPort
from tsrt.errors import WireError

KEY_LENGTH = 32
"""Bytes of a disco key."""

_NANOSECONDS = 1_000_000_000
_FIXED = struct.Struct("!32s32s32sQIQQ")


MAX_ENDPOINTS = 64
"""Addresses that one message may name; those behind are not looked at."""


def parseEndpoints(data: bytes, offset: int) -> tuple[AddrPort, ...]:
    """The first L{MAX_ENDPOINTS} of the addresses that C{data} ends with."""
    starts = range(offset, len(data), BINARY_ADDR_PORT_LENGTH)[:MAX_ENDPOINTS]
    return tuple(AddrPort.fromBinary(data, at) for at in starts)


class RelayEndpoint(NamedTuple):
    """What a peer relay allocated for two of its clients."""

    serverDisco: bytes
    """The relay's disco key."""

    clientDisco: tuple[bytes, bytes]
    """The disco keys of the two clients."""

    lamportID: int
    """Grows with each allocation of the relay; the larger one wins."""

    vni: int
    """The number that the relay knows the pair by."""

    bindLifetime: float
    """Seconds that the clients have to bind."""

    steadyStateLifetime: float
    """Seconds that the place stays without traffic, once bound."""

    addrPorts: tuple[AddrPort, ...]
    """Where to reach the relay; at least one."""

    def encode(self) -> bytes:
        """The binary form."""
        fixed = _FIXED.pack(
            self.serverDisco,
            *self.clientDisco,
            self.lamportID,
            self.vni,
            round(self.bindLifetime * _NANOSECONDS),
            round(self.steadyStateLifetime * _NANOSECONDS),
        )
        return fixed + b"".join(addrPort.binary() for addrPort in self.addrPorts)

    @classmethod
    def decode(cls, data: bytes) -> RelayEndpoint:
        """
        Read the binary form, which must fill C{data} exactly.

        @raise WireError: if it does not, or has no address.
        """
        rest = len(data) - _FIXED.size
        if rest < BINARY_ADDR_PORT_LENGTH or rest % BINARY_ADDR_PORT_LENGTH:
            raise WireError("a relay endpoint is cut short or too long")
        server, first, second, lamportID, vni, bind, steady = _FIXED.unpack_from(data)
        return cls(
            server,
            (first, second),
            lamportID,
            vni,
            bind / _NANOSECONDS,
            steady / _NANOSECONDS,
            parseEndpoints(data, _FIXED.size),
        )

"""
TSMP: small messages between nodes, inside the tunnel, as IP protocol 99.

Here are the bodies, which come directly behind the IP header.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from tsrt.errors import WireError

PROTOCOL_TSMP = 99
"""The IP protocol number."""

MIN_LENGTH = 7
"""Bytes of the smallest body."""

PING_DATA_LENGTH = 8

_REJECT = ord("!")
_PING = ord("p")
_PONG = ord("o")
_DISCO = ord("a")
_PING_END = 1 + PING_DATA_LENGTH
_DISCO_LENGTH = 33
_MAYBE_BROKEN = 1

_REJECT_LAYOUT = struct.Struct("!BBBHH")
_PORT = struct.Struct("!H")


class RejectReason(enum.IntEnum):
    """Why a node refuses a flow; receivers may meet others."""

    ACL = ord("A")
    SHIELDS_UP = ord("S")
    NO_FORWARDING = ord("F")
    HOST_FIREWALL = ord("W")
    UNKNOWN_TRANSIT_ADDRESS = ord("T")


class Reject(NamedTuple):
    """A node refuses a flow; the IP header says which node."""

    protocol: int
    """The IP protocol of the flow."""

    reason: int
    """One of L{RejectReason}, or a newer one."""

    sourcePort: int
    """The port of the side that was refused."""

    destinationPort: int
    """The port that it wanted to reach."""

    maybeBroken: bool = False
    """Whether the refusal may be the fault of the refusing node."""

    def encode(self) -> bytes:
        """The body."""
        body = _REJECT_LAYOUT.pack(
            _REJECT, self.protocol, self.reason, self.sourcePort, self.destinationPort
        )
        return body + bytes((_MAYBE_BROKEN,)) if self.maybeBroken else body


class Ping(NamedTuple):
    """Asks for a pong through the tunnel."""

    data: bytes
    """8 bytes, to know the pong by."""

    def encode(self) -> bytes:
        """The body."""
        return bytes((_PING,)) + self.data


class Pong(NamedTuple):
    """Answers a ping."""

    data: bytes
    """The 8 bytes of the ping."""

    peerAPIPort: int = 0
    """Where the node's PeerAPI listens; zero if not told."""

    def encode(self) -> bytes:
        """The body."""
        return bytes((_PONG,)) + self.data + _PORT.pack(self.peerAPIPort)


class DiscoAdvertisement(NamedTuple):
    """Tells a peer our new disco key."""

    key: bytes
    """32 bytes."""

    def encode(self) -> bytes:
        """The body."""
        return bytes((_DISCO,)) + self.key


TSMPMessage = Reject | Ping | Pong | DiscoAdvertisement


def parseTSMP(body: bytes) -> TSMPMessage:
    """
    The message in the body of a packet; what is longer than it has to be is
    tolerated.

    @raise WireError: for an unknown message, or one cut short.
    """
    if len(body) < MIN_LENGTH:
        raise WireError("a TSMP message is cut short")
    kind = body[0]
    if kind == _REJECT:
        _, protocol, reason, source, destination = _REJECT_LAYOUT.unpack_from(body)
        flags = body[MIN_LENGTH] if len(body) > MIN_LENGTH else 0
        broken = bool(flags & _MAYBE_BROKEN)
        return Reject(protocol, reason, source, destination, broken)
    if kind in (_PING, _PONG):
        if len(body) < _PING_END:
            raise WireError("a TSMP ping or pong is cut short")
        data = body[1:_PING_END]
        if kind == _PING:
            return Ping(data)
        if len(body) < _PING_END + _PORT.size:
            return Pong(data)
        return Pong(data, _PORT.unpack_from(body, _PING_END)[0])
    if kind == _DISCO:
        if len(body) < _DISCO_LENGTH:
            raise WireError("a TSMP disco advertisement is cut short")
        return DiscoAdvertisement(body[1:_DISCO_LENGTH])
    raise WireError(f"there is no TSMP message of type {kind:#04x}")

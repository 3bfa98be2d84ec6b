"""
The layouts of WireGuard's four messages, without any cryptography.

All integers are little-endian.  A message begins with its type and three zero
bytes, which are read together as one integer.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tsrt.errors import WireError

TYPE_INITIATION = 1
TYPE_RESPONSE = 2
TYPE_COOKIE_REPLY = 3
TYPE_TRANSPORT = 4

INITIATION_LENGTH = 148
RESPONSE_LENGTH = 92
COOKIE_REPLY_LENGTH = 64
TRANSPORT_HEADER_LENGTH = 16
MIN_TRANSPORT_LENGTH = TRANSPORT_HEADER_LENGTH + 16
"""Bytes of a keep-alive: the header and the tag of no plaintext."""

PADDING_MULTIPLE = 16
"""Plaintexts are padded with zeros to a multiple of this many bytes."""

MAC_LENGTH = 16
NO_MAC = bytes(MAC_LENGTH)
"""The second MAC of a message whose sender holds no cookie."""

TRANSPORT_PREFIX = b"\x04\x00\x00\x00"
"""What every transport message begins with."""

TRANSPORT_HEADER = struct.Struct("<4xIQ")
"""Receiver index and counter; packing leaves the type zero."""

_TYPE = struct.Struct("<I")
_INITIATION = struct.Struct("<II32s48s28s16s16s")
_RESPONSE = struct.Struct("<III32s16s16s16s")
_COOKIE_REPLY = struct.Struct("<II24s32s")
_TRANSPORT = struct.Struct("<IIQ")

_EXACT_LENGTHS = {
    TYPE_INITIATION: INITIATION_LENGTH,
    TYPE_RESPONSE: RESPONSE_LENGTH,
    TYPE_COOKIE_REPLY: COOKIE_REPLY_LENGTH,
}


def messageType(datagram: bytes) -> int:
    """
    Which message C{datagram} is.

    @raise WireError: if it is none, or has a length that its type never has.
    """
    if len(datagram) < MIN_TRANSPORT_LENGTH:
        raise WireError("a WireGuard message is cut short")
    kind: int = _TYPE.unpack_from(datagram)[0]
    if kind == TYPE_TRANSPORT:
        return kind
    length = _EXACT_LENGTHS.get(kind)
    if length is None:
        raise WireError(f"there is no WireGuard message of type {kind}")
    if len(datagram) != length:
        raise WireError(f"a WireGuard message of type {kind} has another length")
    return kind


def _unpack(
    layout: struct.Struct, datagram: bytes, kind: int, what: str
) -> tuple[object, ...]:
    """The fields of a message of fixed length, without its type."""
    if len(datagram) != layout.size:
        raise WireError(f"a WireGuard {what} has {len(datagram)} bytes")
    fields = layout.unpack(datagram)
    if fields[0] != kind:
        raise WireError(f"a WireGuard {what} has type {fields[0]}")
    return fields[1:]


class Initiation(NamedTuple):
    """The first message of a handshake."""

    senderIndex: int
    ephemeral: bytes
    """32 bytes."""
    sealedStatic: bytes
    """48 bytes."""
    sealedTimestamp: bytes
    """28 bytes."""
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    def encode(self) -> bytes:
        """The 148 bytes of the message."""
        return _INITIATION.pack(TYPE_INITIATION, *self)

    @classmethod
    def decode(cls, datagram: bytes) -> Initiation:
        """
        Read the message.

        @raise WireError: for another length or type.
        """
        return cls(*_unpack(_INITIATION, datagram, TYPE_INITIATION, "initiation"))  # type: ignore[arg-type]  # struct does not know field types


class Response(NamedTuple):
    """The second message of a handshake."""

    senderIndex: int
    receiverIndex: int
    ephemeral: bytes
    """32 bytes."""
    sealedEmpty: bytes
    """16 bytes."""
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    def encode(self) -> bytes:
        """The 92 bytes of the message."""
        return _RESPONSE.pack(TYPE_RESPONSE, *self)

    @classmethod
    def decode(cls, datagram: bytes) -> Response:
        """
        Read the message.

        @raise WireError: for another length or type.
        """
        return cls(*_unpack(_RESPONSE, datagram, TYPE_RESPONSE, "response"))  # type: ignore[arg-type]  # struct does not know field types


class CookieReply(NamedTuple):
    """What a loaded responder sends instead of a response."""

    receiverIndex: int
    nonce: bytes
    """24 bytes."""
    sealedCookie: bytes
    """32 bytes."""

    def encode(self) -> bytes:
        """The 64 bytes of the message."""
        return _COOKIE_REPLY.pack(TYPE_COOKIE_REPLY, *self)

    @classmethod
    def decode(cls, datagram: bytes) -> CookieReply:
        """
        Read the message.

        @raise WireError: for another length or type.
        """
        return cls(*_unpack(_COOKIE_REPLY, datagram, TYPE_COOKIE_REPLY, "cookie"))  # type: ignore[arg-type]  # struct does not know field types


class Transport(NamedTuple):
    """A sealed packet; one with no plaintext is a keep-alive."""

    receiverIndex: int
    counter: int
    sealed: bytes
    """The ciphertext and its 16-byte tag."""

    def encode(self) -> bytes:
        """The bytes of the message."""
        header = _TRANSPORT.pack(TYPE_TRANSPORT, self.receiverIndex, self.counter)
        return header + self.sealed

    @classmethod
    def decode(cls, datagram: bytes) -> Transport:
        """
        Read the message.

        @raise WireError: if it is too short or has another type.
        """
        if len(datagram) < MIN_TRANSPORT_LENGTH:
            raise WireError("a WireGuard transport message is cut short")
        kind, index, counter = _TRANSPORT.unpack_from(datagram)
        if kind != TYPE_TRANSPORT:
            raise WireError(f"a WireGuard transport message has type {kind}")
        return cls(index, counter, datagram[TRANSPORT_HEADER_LENGTH:])


def paddingFor(length: int, mtu: int) -> bytes:
    """
    The zeros that go behind a packet before it is sealed.

    @param length: bytes of the packet.
    @param mtu: bytes beyond which padding does not go.
    """
    padded = -(-length // PADDING_MULTIPLE) * PADDING_MULTIPLE
    return bytes(max(min(padded, mtu) - length, 0))


_TAI64N = struct.Struct("!QI")
_TAI_BASE = (1 << 62) + 10
_WHITENING = 0xFF000000


def tai64n(nanoseconds: int) -> bytes:
    """
    The 12-byte TAI64N timestamp of a handshake.

    The low 24 bits of the nanoseconds are cleared, so that the clock of this
    machine cannot be measured by it; the grain is 16.8 ms.

    @param nanoseconds: since the Unix epoch.
    """
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return _TAI64N.pack(_TAI_BASE + seconds, rest & _WHITENING)

"""
STUN binding requests and responses, both roles.

Clients send a request that names its software and carries a fingerprint;
servers answer no other.

Reference: RFC 8489.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from tsrt.addresses import AddrPort
from tsrt.errors import WireError

COOKIE = b"\x21\x12\xa4\x42"
"""The magic cookie of every STUN message."""

HEADER_LENGTH = 20
TXID_LENGTH = 12
REQUEST_LENGTH = 40

DEFAULT_PORT = 3478

SOFTWARE = b"tailnode"
"""What a request must say to be answered."""

_REQUEST = 0x0001
_RESPONSE = 0x0101
_MAPPED_ADDRESS = 0x0001
_XOR_MAPPED_ADDRESS = 0x0020
_XOR_MAPPED_ADDRESS_OLD = 0x8020
_SOFTWARE = 0x8022
_FINGERPRINT = 0x8028
_FINGERPRINT_XOR = 0x5354554E

_HEADER = struct.Struct("!HH4s12s")
_ATTRIBUTE = struct.Struct("!HH")
_FINGERPRINT_ATTRIBUTE = struct.Struct("!HHI")
_ADDRESS = struct.Struct("!xBH")
_FAMILIES = {1: 4, 2: 16}
_PORT_MASK = int.from_bytes(COOKIE[:2], "big")


def _fingerprint(data: bytes) -> int:
    """The fingerprint of a message that goes on with it."""
    return zlib.crc32(data) ^ _FINGERPRINT_XOR


def isSTUN(datagram: bytes) -> bool:
    """Whether C{datagram} is STUN at all, as far as its header tells."""
    return (
        len(datagram) >= HEADER_LENGTH
        and datagram[0] & 0xC0 == 0
        and datagram[4:8] == COOKIE
    )


def buildRequest(txid: bytes) -> bytes:
    """
    A binding request.

    @param txid: 12 random bytes, to know the response by.
    """
    message = (
        _HEADER.pack(_REQUEST, REQUEST_LENGTH - HEADER_LENGTH, COOKIE, txid)
        + _ATTRIBUTE.pack(_SOFTWARE, len(SOFTWARE))
        + SOFTWARE
    )
    return message + _FINGERPRINT_ATTRIBUTE.pack(_FINGERPRINT, 4, _fingerprint(message))


def buildResponse(txid: bytes, source: AddrPort) -> bytes:
    """
    The response to a request.

    @param txid: that of the request.
    @param source: where the request came from.
    """
    family = 1 if len(source.address) == 4 else 2
    value = _ADDRESS.pack(family, source.port ^ _PORT_MASK)
    value += _xor(source.address, COOKIE + txid)
    attribute = _ATTRIBUTE.pack(_XOR_MAPPED_ADDRESS, len(value)) + value
    return _HEADER.pack(_RESPONSE, len(attribute), COOKIE, txid) + attribute


def _xor(address: bytes, mask: bytes) -> bytes:
    """C{address} under as much of C{mask} as it is long."""
    return bytes(a ^ b for a, b in zip(address, mask, strict=False))


def _attributes(datagram: bytes, end: int) -> Iterator[tuple[int, bytes, int]]:
    """
    Yield type, value and end of each attribute.

    @raise WireError: if one is cut short.
    """
    at = HEADER_LENGTH
    while at < end:
        if at + _ATTRIBUTE.size > end:
            raise WireError("a STUN attribute is cut short")
        kind, length = _ATTRIBUTE.unpack_from(datagram, at)
        start = at + _ATTRIBUTE.size
        # Values are padded to a multiple of four, which the length leaves out.
        at = start + (length + 3 & ~3)
        if start + length > end:
            raise WireError("a STUN attribute is cut short")
        yield kind, datagram[start : start + length], at


def _header(datagram: bytes, wanted: int) -> tuple[bytes, int]:
    """The transaction and where the attributes end."""
    if not isSTUN(datagram):
        raise WireError("a datagram is not STUN")
    kind, length, _, txid = _HEADER.unpack_from(datagram)
    if kind != wanted:
        raise WireError(f"a STUN message has type {kind:#06x}, not {wanted:#06x}")
    end = HEADER_LENGTH + length
    if end > len(datagram):
        raise WireError("a STUN message is cut short")
    return txid, end


def parseRequest(datagram: bytes) -> bytes:
    """
    The transaction of a binding request.

    @raise WireError: if it is none, or one that must not be answered because
        its software or fingerprint is not right.
    """
    txid, end = _header(datagram, _REQUEST)
    software = fingerprint = b""
    last = HEADER_LENGTH
    for kind, value, at in _attributes(datagram, end):
        if fingerprint:
            raise WireError("a STUN request goes on behind its fingerprint")
        if kind == _SOFTWARE:
            software = value
        elif kind == _FINGERPRINT:
            expected = _fingerprint(datagram[:last]).to_bytes(4, "big")
            if value != expected:
                raise WireError("a STUN request has a wrong fingerprint")
            fingerprint = value
        last = at
    if software != SOFTWARE:
        raise WireError("a STUN request is of other software")
    if not fingerprint:
        raise WireError("a STUN request has no fingerprint")
    return txid


def parseResponse(datagram: bytes) -> tuple[bytes, AddrPort]:
    """
    The transaction of a success response, and our address as the server saw
    it.

    @raise WireError: if it is none, or has no address.
    """
    txid, end = _header(datagram, _RESPONSE)
    fallback: AddrPort | None = None
    for kind, value, _ in _attributes(datagram, end):
        if kind in (_XOR_MAPPED_ADDRESS, _XOR_MAPPED_ADDRESS_OLD):
            found = _parseAddress(value)
            if found is not None:
                address = _xor(found.address, COOKIE + txid)
                return txid, AddrPort(address, found.port ^ _PORT_MASK)
        elif kind == _MAPPED_ADDRESS:
            fallback = fallback or _parseAddress(value)
    if fallback is None:
        raise WireError("a STUN response has no address")
    return txid, fallback


def _parseAddress(value: bytes) -> AddrPort | None:
    """The address in an attribute, or C{None} if it is no such thing."""
    if len(value) < _ADDRESS.size:
        return None
    family, port = _ADDRESS.unpack_from(value)
    length = _FAMILIES.get(family)
    if length is None or len(value) < _ADDRESS.size + length:
        return None
    return AddrPort(value[_ADDRESS.size : _ADDRESS.size + length], port)

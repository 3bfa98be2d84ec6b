"""
NAT-PMP and PCP: asking the gateway for a port of its public address.

Only what a client needs to keep one UDP mapping.

Reference: RFC 6886 (NAT-PMP), RFC 6887 (PCP).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tsrt.addresses import fromMapped, toMapped
from tsrt.errors import WireError

GATEWAY_PORT = 5351
"""The UDP port of the gateway, for both protocols."""

LIFETIME = 7200
"""Seconds that we ask for; renew at half of them, zero deletes."""

PCP_NONCE_LENGTH = 12

PMP_VERSION = 0
PCP_VERSION = 2

RESULT_SUCCESS = 0
RESULT_UNSUPPORTED_VERSION = 1
"""In both protocols: the gateway speaks the other one, or neither."""
RESULT_NOT_AUTHORISED = 2
"""In both protocols: the gateway could but must not."""

_REPLY = 0x80
_PMP_ADDRESS = 0
_PMP_MAP_UDP = 1
_PCP_ANNOUNCE = 0
_PCP_MAP = 1
_UDP = 17

_PMP_REQUEST = struct.Struct("!BBHHHI")
_PMP_ADDRESS_REPLY = struct.Struct("!BBHI4s")
_PMP_MAP_REPLY = struct.Struct("!BBHIHHI")
_PCP_REQUEST = struct.Struct("!BBHI16s")
_PCP_REPLY = struct.Struct("!BBBBII12x")
_PCP_MAP_BODY = struct.Struct("!12sB3xHH16s")


class PMPAddress(NamedTuple):
    """NAT-PMP: the public address of the gateway."""

    result: int
    epoch: int
    """Seconds since the gateway forgot its mappings."""
    address: bytes
    """Four bytes; zeros when the result is not a success."""


class PMPMapping(NamedTuple):
    """NAT-PMP: a mapping, or why there is none."""

    result: int
    epoch: int
    """Seconds since the gateway forgot its mappings."""
    internalPort: int
    externalPort: int
    lifetime: int
    """Seconds."""


class PCPAnnounce(NamedTuple):
    """PCP: the gateway shows that it speaks PCP."""

    result: int
    lifetime: int
    """Seconds that an error lasts."""
    epoch: int
    """Seconds since the gateway forgot its mappings."""


class PCPMapping(NamedTuple):
    """PCP: a mapping, or why there is none."""

    result: int
    lifetime: int
    """Seconds."""
    epoch: int
    """Seconds since the gateway forgot its mappings."""
    nonce: bytes
    """That of the request."""
    internalPort: int
    externalPort: int
    externalAddress: bytes
    """Packed."""


PortmapReply = PMPAddress | PMPMapping | PCPAnnounce | PCPMapping


def buildPMPAddressRequest() -> bytes:
    """Ask for the gateway's public address."""
    return bytes((PMP_VERSION, _PMP_ADDRESS))


def buildPMPMapRequest(
    internalPort: int, suggestedPort: int = 0, lifetime: int = LIFETIME
) -> bytes:
    """
    Ask for a UDP mapping.

    @param internalPort: our port.
    @param suggestedPort: the gateway's port, if there is one we had before.
    @param lifetime: seconds; zero deletes.
    """
    return _PMP_REQUEST.pack(
        PMP_VERSION, _PMP_MAP_UDP, 0, internalPort, suggestedPort, lifetime
    )


def buildPCPAnnounceRequest(client: bytes) -> bytes:
    """
    Ask whether the gateway speaks PCP.

    @param client: our packed address towards the gateway.
    """
    return _PCP_REQUEST.pack(PCP_VERSION, _PCP_ANNOUNCE, 0, 0, toMapped(client))


def buildPCPMapRequest(
    client: bytes,
    nonce: bytes,
    internalPort: int,
    suggestedPort: int = 0,
    suggestedAddress: bytes = bytes(4),
    lifetime: int = LIFETIME,
) -> bytes:
    """
    Ask for a UDP mapping.

    @param client: our packed address towards the gateway.
    @param nonce: 12 random bytes, the same for renewals of one mapping.
    @param internalPort: our port.
    @param suggestedPort: the gateway's port, if there is one we had before.
    @param suggestedAddress: the gateway's public address, likewise.
    @param lifetime: seconds; zero deletes.
    """
    header = _PCP_REQUEST.pack(PCP_VERSION, _PCP_MAP, 0, lifetime, toMapped(client))
    return header + _PCP_MAP_BODY.pack(
        nonce, _UDP, internalPort, suggestedPort, toMapped(suggestedAddress)
    )


def parsePortmapReply(datagram: bytes) -> PortmapReply:
    """
    Whatever a gateway answers from L{GATEWAY_PORT}.

    A result that is not L{RESULT_SUCCESS} is no error of the parser.

    @raise WireError: if it is no such answer, or cut short.
    """
    if len(datagram) < 2:
        raise WireError("a port mapping reply is cut short")
    version, op = datagram[0], datagram[1]
    if version == PMP_VERSION:
        return _parsePMP(op, datagram)
    if version == PCP_VERSION:
        return _parsePCP(op, datagram)
    raise WireError(f"a port mapping reply has version {version}")


def _parsePMP(op: int, datagram: bytes) -> PMPAddress | PMPMapping:
    """A reply of version 0."""
    if op == _REPLY | _PMP_ADDRESS:
        if len(datagram) < _PMP_ADDRESS_REPLY.size:
            raise WireError("a NAT-PMP address reply is cut short")
        return PMPAddress(*_PMP_ADDRESS_REPLY.unpack_from(datagram)[2:])
    if op == _REPLY | _PMP_MAP_UDP:
        if len(datagram) < _PMP_MAP_REPLY.size:
            raise WireError("a NAT-PMP mapping reply is cut short")
        return PMPMapping(*_PMP_MAP_REPLY.unpack_from(datagram)[2:])
    raise WireError(f"a NAT-PMP reply has operation {op}")


def _parsePCP(op: int, datagram: bytes) -> PCPAnnounce | PCPMapping:
    """A reply of version 2."""
    if len(datagram) < _PCP_REPLY.size:
        raise WireError("a PCP reply is cut short")
    result, lifetime, epoch = _PCP_REPLY.unpack_from(datagram)[3:]
    if op == _REPLY | _PCP_ANNOUNCE:
        return PCPAnnounce(result, lifetime, epoch)
    if op != _REPLY | _PCP_MAP:
        raise WireError(f"a PCP reply has operation {op}")
    if len(datagram) < _PCP_REPLY.size + _PCP_MAP_BODY.size:
        raise WireError("a PCP mapping reply is cut short")
    nonce, protocol, internal, external, address = _PCP_MAP_BODY.unpack_from(
        datagram, _PCP_REPLY.size
    )
    if protocol != _UDP:
        raise WireError(f"a PCP mapping reply has protocol {protocol}")
    return PCPMapping(
        result, lifetime, epoch, nonce, internal, external, fromMapped(address)
    )

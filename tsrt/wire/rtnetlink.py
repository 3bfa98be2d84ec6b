"""
Netlink route messages: how the Linux kernel tells of interfaces, addresses and
routes (RFC 3549; linux/netlink.h, linux/rtnetlink.h).

Everything is in the byte order of the machine and padded to four bytes.  Only
what a node needs to notice that its network changed is read; the rest is passed
over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from tsrt.errors import WireError

GROUP_LINK = 0x1
GROUP_IPV4_ADDRESS = 0x10
GROUP_IPV4_ROUTE = 0x40
GROUP_IPV6_ADDRESS = 0x100
GROUP_IPV6_ROUTE = 0x400
GROUPS = (
    GROUP_LINK
    | GROUP_IPV4_ADDRESS
    | GROUP_IPV4_ROUTE
    | GROUP_IPV6_ADDRESS
    | GROUP_IPV6_ROUTE
)
"""The multicast groups that tell of all that is read here."""

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
"""Flags of interfaces: switched on, and leading nowhere but back."""

_ERROR = 2
_DONE = 3
_NEW_LINK, _DEL_LINK = 16, 17
_NEW_ADDRESS, _DEL_ADDRESS = 20, 21
_NEW_ROUTE, _DEL_ROUTE = 24, 25
_GET_ROUTE = 26
_REQUEST = 1

# Families as Linux numbers them on every machine.
_FAMILIES = {2: 4, 10: 16}
_NUMBERS = {4: 2, 16: 10}

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_WORD = struct.Struct("=I")
_NUMBER = struct.Struct("=i")

# The upper two bits of an attribute's type are flags.
_TYPE_MASK = 0x3FFF

_IFLA_IFNAME = 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_VIA = 1, 4, 5, 7, 18
_UNICAST = 1


class LinkMessage(NamedTuple):
    """
    An interface.

    @ivar isGone: whether it is no more, rather than new or changed.
    @ivar interface: its index.
    """

    isGone: bool
    interface: int
    name: str
    flags: int

    @property
    def isUp(self) -> bool:
        """Whether it is there and switched on."""
        return not self.isGone and bool(self.flags & IFF_UP)


class AddressMessage(NamedTuple):
    """
    An address of an interface.

    @ivar interface: its index.
    @ivar address: packed.
    """

    isGone: bool
    interface: int
    address: bytes
    prefixLength: int


class RouteMessage(NamedTuple):
    """
    A route.

    @ivar size: of its addresses, 4 or 16.
    @ivar prefixLength: 0 for a default route.
    @ivar gateway: packed; C{None} when the destination is on the link.
    @ivar interface: index of the one that it leads out by; 0 if none is named.
    @ivar source: the address that packets get that have none yet, or C{None}.
    @ivar isUnicast: whether it leads somewhere; others refuse.
    """

    isGone: bool
    size: int
    prefixLength: int
    gateway: bytes | None
    interface: int
    source: bytes | None
    isUnicast: bool


class ErrorMessage(NamedTuple):
    """
    The answer to a request that failed, or that succeeded without more to say.

    @ivar number: the error number, 0 for none.
    """

    number: int


Message = LinkMessage | AddressMessage | RouteMessage | ErrorMessage


def parseMessages(data: bytes) -> list[tuple[int, Message]]:
    """
    Read what came in one datagram.

    Messages of other kinds are passed over; so is the rest of a datagram from a
    message on that does not add up.

    @return: the messages, each with the sequence number of the request that it
        answers, which is 0 for news.
    """
    found: list[tuple[int, Message]] = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            break
        if kind == _DONE:
            break
        body = data[offset + _HEADER.size : offset + length]
        try:
            message = _parse(kind, body)
        except (WireError, struct.error):
            break
        if message is not None:
            found.append((sequence, message))
        offset += (length + 3) & ~3
    return found


def buildRouteRequest(destination: bytes, sequence: int) -> bytes:
    """
    Ask which way packets to an address would go.

    The answer is one L{RouteMessage}, or an L{ErrorMessage} when there is no
    way.

    @param destination: packed, 4 or 16 bytes.
    @param sequence: returned with the answer.
    @raise WireError: if it is neither.
    """
    size = len(destination)
    if size not in _NUMBERS:
        raise WireError(f"an address has {size} bytes, not 4 or 16")
    body = _ROUTE.pack(_NUMBERS[size], 8 * size, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + size, _RTA_DST) + destination
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, _GET_ROUTE, _REQUEST, sequence, 0) + body


def _parse(kind: int, body: bytes) -> Message | None:
    if kind in (_NEW_LINK, _DEL_LINK):
        return _parseLink(kind == _DEL_LINK, body)
    if kind in (_NEW_ADDRESS, _DEL_ADDRESS):
        return _parseAddress(kind == _DEL_ADDRESS, body)
    if kind in (_NEW_ROUTE, _DEL_ROUTE):
        return _parseRoute(kind == _DEL_ROUTE, body)
    if kind == _ERROR:
        return ErrorMessage(-_NUMBER.unpack_from(body)[0])
    return None


def _parseLink(isGone: bool, body: bytes) -> LinkMessage:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    name = ""
    for kind, value in _attributes(body, _LINK.size):
        if kind == _IFLA_IFNAME:
            name = value.split(b"\0")[0].decode("utf-8", "replace")
    return LinkMessage(isGone, index, name, flags)


def _parseAddress(isGone: bool, body: bytes) -> AddressMessage | None:
    family, length, _, _, index = _ADDRESS.unpack_from(body)
    size = _FAMILIES.get(family)
    if size is None:
        return None
    address = local = b""
    for kind, value in _attributes(body, _ADDRESS.size):
        if kind == _IFA_LOCAL:
            local = value
        elif kind == _IFA_ADDRESS:
            # On links of two ends this is the other end.
            address = value
    own = local or address
    if len(own) != size:
        raise WireError(f"an address has {len(own)} bytes, not {size}")
    return AddressMessage(isGone, index, own, length)


def _parseRoute(isGone: bool, body: bytes) -> RouteMessage | None:
    family, length, _, _, _, _, _, kind, _ = _ROUTE.unpack_from(body)
    size = _FAMILIES.get(family)
    if size is None:
        return None
    gateway = source = None
    index = 0
    for attribute, value in _attributes(body, _ROUTE.size):
        if attribute == _RTA_OIF:
            (index,) = _WORD.unpack_from(value)
        elif attribute == _RTA_GATEWAY and len(value) == size:
            gateway = value
        elif attribute == _RTA_VIA:
            # A gateway of the other family: two bytes that say which, and it.
            gateway = value[2:]
        elif attribute == _RTA_PREFSRC and len(value) == size:
            source = value
    return RouteMessage(isGone, size, length, gateway, index, source, kind == _UNICAST)


def _attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size or offset + length > len(body):
            raise WireError("an attribute is cut short")
        yield kind & _TYPE_MASK, body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3

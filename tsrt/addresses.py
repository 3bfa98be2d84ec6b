"""
Addresses as packed bytes, prefixes, and the ranges of a tailnet.

An address is C{bytes} in network order: four for IPv4, sixteen for IPv6.  That
is what packets hold and what dictionaries look up fastest.  Text and the
standard library's address objects appear only here, at the edges.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from functools import lru_cache
from typing import Final, NamedTuple

from tsrt.errors import WireError

_MAPPED = bytes(10) + b"\xff\xff"
_PORT = struct.Struct("!H")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")


# The same few addresses are read and written again and again, for each datagram
# of an application.
@lru_cache(4096)
def parseAddress(text: str) -> bytes:
    """
    Read an address literal.

    @param text: IPv4 or IPv6 text; no zone, no brackets.
    @raise WireError: if it is not an address.
    """
    try:
        if ":" not in text:
            return ipaddress.IPv4Address(text).packed
        if "%" in text:
            raise WireError(f"address {text!r} has a zone")
        return ipaddress.IPv6Address(text).packed
    except ipaddress.AddressValueError:
        raise WireError(f"{text!r} is not an address") from None


@lru_cache(4096)
def formatAddress(packed: bytes) -> str:
    """
    Write an address as text (RFC 5952 for IPv6).

    IPv4-mapped addresses keep their dotted tail, whatever the version of
    Python.

    @raise WireError: if C{packed} is neither 4 nor 16 bytes.
    """
    if len(packed) == 4:
        return ".".join(map(str, packed))
    if len(packed) != 16:
        raise WireError(f"an address has {len(packed)} bytes, not 4 or 16")
    if packed.startswith(_MAPPED):
        return "::ffff:" + ".".join(map(str, packed[12:]))
    return ipaddress.IPv6Address(bytes(packed)).compressed


def toMapped(packed: bytes) -> bytes:
    """The 16-byte form: IPv4 becomes IPv4-mapped, IPv6 stays."""
    return _MAPPED + packed if len(packed) == 4 else packed


def fromMapped(packed: bytes) -> bytes:
    """Undo L{toMapped}: IPv4-mapped becomes 4 bytes, the rest stays."""
    return packed[12:] if packed.startswith(_MAPPED) else packed


class Prefix:
    """
    A range of addresses that share their leading bits.

    The address is kept as given, host bits too; L{parse} clears them unless
    asked to be strict.
    """

    __slots__ = ("_shift", "_size", "_value", "address", "length")

    address: Final[bytes]
    """The packed address."""

    length: Final[int]
    """How many leading bits count."""

    def __init__(self, address: bytes, length: int) -> None:
        """
        @param address: 4 or 16 bytes.
        @param length: leading bits that count.
        @raise WireError: if either is impossible.
        """
        size = len(address)
        if size not in (4, 16):
            raise WireError(f"an address has {size} bytes, not 4 or 16")
        if not 0 <= length <= 8 * size:
            raise WireError(f"a prefix of {8 * size} bits has no length {length}")
        self.address = bytes(address)
        self.length = length
        self._size = size
        self._shift = 8 * size - length
        self._value = int.from_bytes(address, "big") >> self._shift

    @classmethod
    def host(cls, address: bytes) -> Prefix:
        """The prefix that holds only C{address}."""
        return cls(address, 8 * len(address))

    @classmethod
    def parse(cls, text: str, strict: bool = False) -> Prefix:
        """
        Read C{address/length}; an address alone is the prefix of that host.

        @param strict: reject bits that are set beyond the length, instead of
            clearing them.
        @raise WireError: if it is not a prefix.
        """
        addressText, slash, lengthText = text.partition("/")
        address = parseAddress(addressText)
        if not slash:
            return cls.host(address)
        if not _NUMBER.fullmatch(lengthText):
            raise WireError(f"{text!r} has no prefix length")
        prefix = cls(address, int(lengthText))
        masked = prefix.masked()
        if strict and masked != prefix:
            raise WireError(f"{text!r} has bits set beyond its length")
        return masked

    @property
    def family(self) -> int:
        """4 or 6."""
        return 4 if self._size == 4 else 6

    @property
    def isHost(self) -> bool:
        """Whether the prefix holds exactly one address."""
        return self._shift == 0

    def contains(self, packed: bytes) -> bool:
        """Whether C{packed} lies in the range; other families never do."""
        return (
            len(packed) == self._size
            and int.from_bytes(packed, "big") >> self._shift == self._value
        )

    def covers(self, other: Prefix) -> bool:
        """Whether every address of C{other} lies in the range."""
        return self.length <= other.length and self.contains(other.address)

    def overlaps(self, other: Prefix) -> bool:
        """Whether the two ranges have an address in common."""
        return self.covers(other) or other.covers(self)

    def masked(self) -> Prefix:
        """The same range with all bits beyond the length cleared."""
        value = self._value << self._shift
        return Prefix(value.to_bytes(self._size, "big"), self.length)

    def text(self) -> str:
        """C{address/length}."""
        return f"{formatAddress(self.address)}/{self.length}"

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<Prefix {self.text()}>"

    def __hash__(self) -> int:
        return hash((self.address, self.length))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prefix):
            return NotImplemented
        return self.address == other.address and self.length == other.length

    def __lt__(self, other: Prefix) -> bool:
        return (self._size, self.address, self.length) < (
            other._size,
            other.address,
            other.length,
        )


class AddrPort(NamedTuple):
    """A packed address and a port: one end of a UDP path."""

    address: bytes
    port: int

    def text(self) -> str:
        """C{1.2.3.4:5} or C{[2001:db8::1]:5}."""
        if len(self.address) == 4:
            return f"{formatAddress(self.address)}:{self.port}"
        return f"[{formatAddress(self.address)}]:{self.port}"

    @classmethod
    def parse(cls, text: str) -> AddrPort:
        """
        Read what L{text} writes; IPv6 needs its brackets.

        @raise WireError: if it is not an address and a port.
        """
        addressText, colon, portText = text.rpartition(":")
        if not colon or not _NUMBER.fullmatch(portText) or int(portText) > 65535:
            raise WireError(f"{text!r} has no port")
        if addressText.startswith("[") and addressText.endswith("]"):
            address = parseAddress(addressText[1:-1])
            if len(address) != 16:
                raise WireError(f"{text!r} has IPv4 in brackets")
        else:
            address = parseAddress(addressText)
            if len(address) != 4:
                raise WireError(f"{text!r} has IPv6 without brackets")
        return cls(address, int(portText))

    def binary(self) -> bytes:
        """The 18 bytes of disco and DERP: 16-byte address and port."""
        return toMapped(self.address) + _PORT.pack(self.port)

    @classmethod
    def fromBinary(cls, data: bytes, offset: int = 0) -> AddrPort:
        """
        Read the 18 bytes that L{binary} writes, from C{offset} on.

        @raise WireError: if they are not all there.
        """
        end = offset + BINARY_ADDR_PORT_LENGTH
        if len(data) < end:
            raise WireError("an address and port is cut short")
        address = fromMapped(bytes(data[offset : end - 2]))
        return cls(address, _PORT.unpack_from(data, end - 2)[0])


BINARY_ADDR_PORT_LENGTH = 18
"""Bytes of an L{AddrPort} in its binary form."""

MTU = 1280
"""Bytes of the largest packet inside the tunnel, unless configured."""

CGNAT = Prefix.parse("100.64.0.0/10")
"""The IPv4 addresses of tailnets, but for L{CHROMEOS}."""

CHROMEOS = Prefix.parse("100.115.92.0/23")
"""The part of L{CGNAT} that ChromeOS uses inside; never a tailnet's."""

ULA = Prefix.parse("fd7a:115c:a1e0::/48")
"""The IPv6 addresses of tailnets."""

EPHEMERAL_ULA = Prefix.parse("fd7a:115c:a1e0:efe3::/64")
"""The part of L{ULA} for ephemeral nodes."""

VIA = Prefix.parse("fd7a:115c:a1e0:b1a::/64")
"""The part of L{ULA} that maps the IPv4 networks of sites."""

SERVICE_IPV4 = parseAddress("100.100.100.100")
"""Where each node finds MagicDNS, over IPv4."""

SERVICE_IPV6 = parseAddress("fd7a:115c:a1e0::53")
"""Where each node finds MagicDNS, over IPv6."""

DERP_MAGIC = parseAddress("127.3.3.40")
"""The address that means "through a relay"; the port is the region."""

_ULA_HEAD = ULA.address[:6]


def isTailscaleAddress(packed: bytes) -> bool:
    """Whether C{packed} lies in the ranges that tailnets give to nodes."""
    if len(packed) == 4:
        if packed[0] != 100 or packed[1] & 0xC0 != 64:
            return False
        # 100.115.92.0/23, see CHROMEOS.
        return packed[1] != 115 or packed[2] & 0xFE != 92
    return len(packed) == 16 and packed.startswith(_ULA_HEAD)


_SITE = struct.Struct("!I")
_VIA_HEAD = VIA.address[:8]
_VIA_LABEL = re.compile(
    r"([0-9]{1,3}(?:-[0-9]{1,3}){3})-via-(0x[0-9a-f]{1,8}|[0-9]{1,10})",
    re.ASCII | re.IGNORECASE,
)
_VIA_SUFFIXES = ("ts.net", "tailscale.net")


def viaPrefix(site: int, prefix: Prefix) -> Prefix:
    """
    Map an IPv4 prefix of a site into L{VIA}.

    @param site: which of several networks with the same addresses is meant.
    @param prefix: an IPv4 prefix.
    @raise WireError: for another family or a site beyond 32 bits.
    """
    if prefix.family != 4:
        raise WireError(f"{prefix.text()} is not IPv4")
    if not 0 <= site < 1 << 32:
        raise WireError(f"site {site} does not fit 32 bits")
    return Prefix(_VIA_HEAD + _SITE.pack(site) + prefix.address, 96 + prefix.length)


def unmapVia(prefix: Prefix) -> tuple[int, Prefix] | None:
    """
    Undo L{viaPrefix}.

    @return: the site and its IPv4 prefix, or C{None} if C{prefix} is no such
        mapping.
    """
    if prefix.length < 96 or not prefix.address.startswith(_VIA_HEAD):
        return None
    (site,) = _SITE.unpack_from(prefix.address, 8)
    return site, Prefix(prefix.address[12:], prefix.length - 96)


def parseViaName(name: str) -> bytes | None:
    """
    The address that a name such as C{10-1-1-5-via-7} means.

    @param name: one label, or one label in front of a name that ends in
        C{ts.net} or C{tailscale.net}; a last dot is ignored.
    @return: the packed IPv6 address, or C{None} for any other name.
    """
    label, _, rest = name.removesuffix(".").partition(".")
    rest = rest.lower()
    if rest and not any(
        rest == suffix or rest.endswith("." + suffix) for suffix in _VIA_SUFFIXES
    ):
        return None
    match = _VIA_LABEL.fullmatch(label)
    if match is None:
        return None
    siteText = match[2].lower()
    site = int(siteText, 16 if siteText.startswith("0x") else 10)
    if site >= 1 << 32:
        return None
    try:
        address = parseAddress(match[1].replace("-", "."))
    except WireError:
        return None
    return _VIA_HEAD + _SITE.pack(site) + address

"""
Which networks this node leads to, and which of their addresses it dares to ask.

What is advertised is what is forwarded: one list of prefixes serves for both
(R-GLB-6).  What leaves for a real network leaves by IPv4 only; an IPv6 prefix is
either one that stands for the IPv4 network of a site (4via6), or the whole of
IPv6, which is advertised beside the whole of IPv4 because peers take a node for
an exit node only with both, and of which every flow is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

from attrs import frozen

from tsrt.addresses import CGNAT, ULA, VIA, Prefix, unmapVia
from tsrt.errors import ConfigError, WireError
from tsrt.netmap.routes import RouteTable

EXIT_ROUTES = (Prefix.parse("0.0.0.0/0"), Prefix.parse("::/0"))
"""What an exit node advertises."""

_VIA_SITE = 96

_LINK_LOCAL = Prefix.parse("169.254.0.0/16")

# Nobody's host has such an address on any network: this host, loopback,
# multicast, and what is reserved.
_NOWHERE = tuple(
    map(Prefix.parse, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"))
)

# The networks that are reached from the exit node, but are not the internet.
_PRIVATE = tuple(map(Prefix.parse, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


class RouteKind(enum.Enum):
    """By what right a destination is forwarded to."""

    SUBNET = "subnet"
    """It lies in a network that was advertised by its prefix."""

    EXIT = "exit"
    """It is somewhere on the internet, and this is an exit node."""


class Refusal(enum.Enum):
    """Why a destination is not forwarded to."""

    NOT_ADVERTISED = "not advertised"
    FORBIDDEN = "forbidden destination"
    IPV6 = "no IPv6 leaves"


class Destination(NamedTuple):
    """
    Where a flow goes on the real network.

    @ivar address: packed, IPv4.
    """

    address: bytes
    kind: RouteKind


def readAdvertised(text: str) -> Prefix:
    """
    Read a prefix to advertise.

    @raise ConfigError: it is none, or one that cannot be forwarded.
    """
    try:
        prefix = Prefix.parse(text.strip(), strict=True)
    except WireError as error:
        raise ConfigError(
            f"the route {text!r} cannot be advertised: {error}",
            advice="Write it like 192.168.1.0/24.",
        ) from None
    reason = _whyNot(prefix)
    if reason:
        sentence, advice = reason
        raise ConfigError(
            f"the route {prefix.text()} cannot be advertised: {sentence}",
            advice=advice,
        )
    return prefix


def _whyNot(prefix: Prefix) -> tuple[str, str] | None:
    if prefix.length == 0:
        return "that is all of the internet", "Advertise an exit node instead."
    if prefix.family == 6:
        if not VIA.covers(prefix):
            return (
                "what leaves for a real network leaves by IPv4 only",
                "Only the IPv6 form of an IPv4 network (4via6) can be advertised.",
            )
        via = unmapVia(prefix)
        if via is None:
            return (
                "it stands for more than one site",
                "A 4via6 prefix has at least 96 bits.",
            )
        prefix = via[1]
        if prefix.length == 0:
            return None
    if CGNAT.covers(prefix):
        return "these are addresses of the tailnet itself", ""
    if any(nowhere.covers(prefix) for nowhere in _NOWHERE):
        return "nothing on a network has such addresses", ""
    return None


def advertisedPrefixes(routes: Iterable[Prefix], exitNode: bool) -> tuple[Prefix, ...]:
    """All that a node advertises: each once, in the given order."""
    wanted = (*routes, *EXIT_ROUTES) if exitNode else routes
    return tuple(dict.fromkeys(wanted))


@frozen
class PortRanges:
    """
    The ports that are forwarded.

    @ivar ranges: first and last port of each, both included.
    """

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, texts: Iterable[str | int]) -> PortRanges:
        """
        Read C{443} and C{8000-8010}.

        @raise ConfigError: one of them is no port and no range of ports.
        """
        return cls(tuple(map(_readRange, texts)))

    def __contains__(self, port: int) -> bool:
        """Whether a port is one of them."""
        return any(first <= port <= last for first, last in self.ranges)


def _readRange(text: str | int) -> tuple[int, int]:
    first, dash, last = str(text).strip().partition("-")
    ends = (first, last if dash else first)
    if not all(end.isascii() and end.isdigit() for end in ends):
        raise ConfigError(f"{text!r} is no port", advice="Write 443 or 8000-8010.")
    low, high = map(int, ends)
    if not 0 < low <= high < 65536:
        raise ConfigError(f"{text!r} is no range of ports")
    return low, high


class ForwardTable:
    """
    Tells where flows go that are not for this node itself.

    What is advertised is forwarded, nothing else and no less (R-GLB-6): whether
    peers are told of it is for control to decide, and who may use it for its rules.
    Not every control server tells the node itself what it approves.

    @ivar prefixes: what is forwarded.
    @ivar approved: which of them control is known to have approved.
    """

    def __init__(
        self, advertised: Iterable[Prefix] = (), approved: Iterable[Prefix] = ()
    ) -> None:
        """
        @param advertised: what this node offers (R-FWD-5: nothing else is
            forwarded, whatever control says).
        @param approved: what control says that this node leads to.
        """
        known = frozenset(approved)
        self.prefixes: tuple[Prefix, ...] = tuple(advertised)
        self.approved = tuple(prefix for prefix in self.prefixes if prefix in known)
        self._table: RouteTable[Prefix] = RouteTable((p, p) for p in self.prefixes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ForwardTable):
            return NotImplemented
        return (self.prefixes, self.approved) == (other.prefixes, other.approved)

    def __hash__(self) -> int:
        return hash((self.prefixes, self.approved))

    def __bool__(self) -> bool:
        """Whether anything is forwarded."""
        return bool(self.prefixes)

    def classify(self, address: bytes) -> Destination | Refusal:
        """
        Where a flow to a packed address goes, or why it goes nowhere.

        The answer holds whoever makes the connection (T-hostexit).
        """
        prefix = self._table.lookup(address)
        if prefix is None:
            return Refusal.NOT_ADVERTISED
        kind = RouteKind.SUBNET if prefix.length else RouteKind.EXIT
        if len(address) == 16:
            if kind is RouteKind.EXIT or not VIA.contains(address):
                isOurs = ULA.contains(address)
                return Refusal.FORBIDDEN if isOurs else Refusal.IPV6
            address = address[12:]
            prefix = Prefix(address, max(0, prefix.length - _VIA_SITE)).masked()
        if _isForbidden(address, kind, prefix):
            return Refusal.FORBIDDEN
        return Destination(address, kind)


def _isForbidden(address: bytes, kind: RouteKind, prefix: Prefix) -> bool:
    """
    Whether an IPv4 address is one to reach into this machine, the cloud that it
    runs in, or its neighbourhood, rather than the network that was offered.

    @param prefix: the route, as an IPv4 prefix.
    """
    if any(nowhere.contains(address) for nowhere in (*_NOWHERE, CGNAT)):
        return True
    if _LINK_LOCAL.contains(address):
        # The metadata service of a cloud, unless somebody means just that.
        return not _LINK_LOCAL.covers(prefix)
    return kind is RouteKind.EXIT and any(net.contains(address) for net in _PRIVATE)

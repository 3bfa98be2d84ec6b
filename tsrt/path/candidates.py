"""
The addresses at which a peer may perhaps be reached, and who may name which.

What a peer itself tells is believed less than what control tells: a peer must
not make this node send packets to the networks around it.
"""

from __future__ import annotations

import enum
from math import inf

from tsrt.addresses import AddrPort, isTailscaleAddress
from tsrt.path.local import isLinkLocal, isLoopback, isUnicast, isUniqueLocal
from tsrt.path.places import Direct

CALL_LIMIT = 64
"""Addresses that one call-me-maybe may name."""

CANDIDATE_LIMIT = 100
"""Candidates of a peer above which those that never answered make room."""


class Source(enum.Flag):
    """Who named a candidate."""

    NETMAP = enum.auto()
    """Control did."""

    CALL = enum.auto()
    """The peer did, by a relay (call-me-maybe)."""

    PING = enum.auto()
    """The peer's ping came from there."""

    RELAY = enum.auto()
    """A peer relay offered it."""


class Candidate:
    """
    One address of one peer.

    @ivar source: who named it.
    @ivar latency: seconds of the last answered ping; C{None} before.
    @ivar lastPing: when it was pinged last.
    @ivar heardPing: when the peer last pinged us from there.
    @ivar heardPong: when it last answered from there, or else might have first.
    """

    __slots__ = ("heardPing", "heardPong", "lastPing", "latency", "place", "source")

    def __init__(self, place: Direct, source: Source) -> None:
        self.place = place
        self.source = source
        self.latency: float | None = None
        self.lastPing = -inf
        self.heardPing = -inf
        self.heardPong = -inf


def netmapMayName(address: AddrPort) -> bool:
    """Whether an address that control tells can be that of a node at all."""
    packed = address.address
    return (
        0 < address.port < 65536
        and isUnicast(packed)
        and not isTailscaleAddress(packed)
        and not (len(packed) == 16 and isLinkLocal(packed))
    )


def pingMayName(address: AddrPort) -> bool:
    """
    Whether an address from which an authentic ping came may be a candidate.

    It may be a private one: who is pinged back there was heard there.
    """
    return (
        netmapMayName(address)
        and not isLoopback(address.address)
        and not isLinkLocal(address.address)
    )


def callMayName(address: AddrPort) -> bool:
    """
    Whether an address that a peer merely tells may be a candidate.

    Only a public one: the peer's private ones are control's to tell.
    """
    return pingMayName(address) and not isPrivate(address.address)


def isPrivate(packed: bytes) -> bool:
    """Whether an address is good inside one site only (RFC 1918, RFC 4193)."""
    if len(packed) == 16:
        return isUniqueLocal(packed)
    first, second = packed[0], packed[1]
    return (
        first == 10
        or (first == 172 and second & 0xF0 == 16)
        or (first == 192 and second == 168)
    )

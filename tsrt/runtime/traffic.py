"""How much was carried by which kind of path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tsrt.dataplane.runs import Received, Sealed, countOf
from tsrt.path.places import Place, Relayed, Via

DERP = "derp"


class PathTraffic(NamedTuple):
    """
    What was carried by one kind of path: WireGuard messages, nothing else.

    @ivar path: C{derp}, C{direct_ipv4}, C{direct_ipv6}, C{peer_relay_ipv4} or
        C{peer_relay_ipv6}, as Tailscale's metrics have it.
    """

    path: str
    inboundBytes: int
    outboundBytes: int
    inboundPackets: int
    outboundPackets: int


class Tally:
    """Messages and bytes of one direction, by kind of path."""

    __slots__ = ("_bytes", "_packets")

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}
        self._packets: dict[str, int] = {}

    def add(self, path: str, messages: Sequence[Sealed] | Sequence[Received]) -> None:
        """Some messages took a path."""
        self._bytes[path] = self._bytes.get(path, 0) + sum(map(len, messages))
        self._packets[path] = self._packets.get(path, 0) + countOf(messages)

    def of(self, path: str) -> tuple[int, int]:
        """Bytes and packets."""
        return self._bytes.get(path, 0), self._packets.get(path, 0)


class Traffic:
    """
    All that was carried.

    @ivar inbound: what came.
    @ivar outbound: what was sent.
    """

    PATHS = (
        DERP,
        "direct_ipv4",
        "direct_ipv6",
        "peer_relay_ipv4",
        "peer_relay_ipv6",
    )

    def __init__(self) -> None:
        self.inbound = Tally()
        self.outbound = Tally()

    def byPath(self) -> Iterator[PathTraffic]:
        """Each kind of path, whether anything took it or not."""
        for path in self.PATHS:
            bytesIn, packetsIn = self.inbound.of(path)
            bytesOut, packetsOut = self.outbound.of(path)
            yield PathTraffic(path, bytesIn, bytesOut, packetsIn, packetsOut)


def pathOf(place: Place) -> str:
    """The kind of path that leads to a place."""
    if isinstance(place, Relayed):
        return DERP
    if isinstance(place, Via):
        four = len(place.address.address) == 4
        return "peer_relay_ipv4" if four else "peer_relay_ipv6"
    return "direct_ipv4" if len(place.address) == 4 else "direct_ipv6"

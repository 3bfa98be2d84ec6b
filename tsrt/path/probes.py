"""
Which STUN servers to ask, in which order: the plan of a network check.
"""

from __future__ import annotations

from attrs import define, frozen

from tsrt.addresses import AddrPort, parseAddress
from tsrt.errors import WireError
from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
from tsrt.wire.stun import DEFAULT_PORT

FULL_TRIES = 3
FULL_INTERVAL = 0.1
"""Seconds between two tries of a full check."""

FASTEST = 2
"""How many regions of an incremental check are asked twice."""

INCREMENTAL = 3
"""How many regions, besides the home, an incremental check asks."""

HOME_TRIES = 4
"""How often the home is asked, so that it does not seem gone too easily."""

RETRY = 0.2
"""Seconds between two tries where no latency is known."""

_SLACK = 1.2
_LATER = 0.05


@frozen
class Probe:
    """One question to one STUN server."""

    delay: float
    """Seconds after the beginning of the check."""

    regionID: int
    node: str
    server: AddrPort

    @property
    def family(self) -> int:
        """4 or 6."""
        return 4 if len(self.server.address) == 4 else 6


@define
class ProbeSet:
    """The questions to one region in one family; the first answer will do."""

    regionID: int
    family: int
    waiting: list[Probe]
    isAnswered: bool = False


def stunServer(node: DERPNode, family: int) -> AddrPort | None:
    """
    The STUN server of a node.

    Only a fixed address of that family counts: looking a name up would let
    somebody other than the server know of us.

    @param family: 4 or 6.
    @return: C{None} when the node has none.
    """
    if node.stunPort < 0 or node.stunPort > 65535:
        return None
    text, length = (node.stunTestIP or node.ipv4, 4) if family == 4 else (node.ipv6, 16)
    packed = _fixed(text, length)
    return None if packed is None else AddrPort(packed, node.stunPort or DEFAULT_PORT)


def _fixed(text: str, length: int) -> bytes | None:
    try:
        packed = parseAddress(text)
    except WireError:
        return None
    return packed if len(packed) == length else None


def measuredRegions(derpMap: DERPMap) -> dict[int, DERPRegion]:
    """The regions that may be measured, and so become the home."""
    return {
        number: region
        for number, region in (derpMap.regions or {}).items()
        if region is not None and not region.noMeasureNoHome
    }


def _servers(region: DERPRegion, family: int) -> list[tuple[str, AddrPort]]:
    found = []
    for node in region.nodes or ():
        server = stunServer(node, family)
        if server is not None:
            found.append((node.name, server))
    return found


def _probeSet(
    number: int, region: DERPRegion, family: int, delays: list[float]
) -> ProbeSet | None:
    servers = _servers(region, family)
    if not servers:
        return None
    probes = []
    for turn, delay in enumerate(delays):
        name, server = servers[turn % len(servers)]
        probes.append(Probe(delay, number, name, server))
    return ProbeSet(number, family, probes)


def fullPlan(derpMap: DERPMap, families: tuple[int, ...] = (4, 6)) -> list[ProbeSet]:
    """
    Ask every region.

    @param families: those that there is a socket for.
    """
    delays = [turn * FULL_INTERVAL for turn in range(FULL_TRIES)]
    sets = [
        _probeSet(number, region, family, delays)
        for number, region in measuredRegions(derpMap).items()
        for family in families
    ]
    return [each for each in sets if each is not None]


def incrementalPlan(
    derpMap: DERPMap,
    latencies: dict[int, float],
    home: int,
    *,
    families: tuple[int, ...] = (4, 6),
    had4: bool = True,
    had6: bool = True,
) -> list[ProbeSet]:
    """
    Ask the regions that were nearest the last time, and the home.

    @param latencies: those of the last check, in seconds.
    @param home: the home region, or 0.
    @param families: those that there is a socket for.
    @param had4: whether IPv4 worked the last time.
    @param had6: whether IPv6 worked the last time.
    """
    regions = {
        number: region
        for number, region in measuredRegions(derpMap).items()
        if not region.avoid or number == home
    }
    order = sorted(regions, key=lambda n: (latencies.get(n, float("inf")), n))
    sets: list[ProbeSet] = []
    for rank, number in enumerate(order):
        isHome = number == home
        if rank >= INCREMENTAL and not isHome:
            continue
        tries = HOME_TRIES if isHome else (2 if rank < FASTEST else 1)
        delays = _incrementalDelays(tries, latencies.get(number))
        found = [
            each
            for family in families
            if family == 4 or had6 or rank < FASTEST
            if (each := _probeSet(number, regions[number], family, delays))
        ]
        if rank >= FASTEST and had4 and had6 and not isHome:
            # Slower regions take turns in families, rather than double the
            # traffic; a home that one family does not reach must not seem gone.
            found = found[rank % len(found) :][:1] if found else []
        sets += found
    return sets


def _incrementalDelays(tries: int, latency: float | None) -> list[float]:
    step = RETRY if not latency else latency * _SLACK
    return [turn * step + (turn * _LATER if turn > 1 else 0.0) for turn in range(tries)]

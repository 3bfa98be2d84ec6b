"""
How fast streams are, beside the real Go node, in the same run and in turns.

All nodes are processes in one network namespace.  Zeros are poured from one to the
other and counted there; the time runs from the first write until the receipt.  Each
pair takes its turn in each round, because the machine's noise changes; the ratios
are of medians.  Beside the tailnet's nodes, two nodes of plain wireguard-go on a
userspace stack take their turn.  Needs C{make interop-build} and root.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any, NamedTuple

from twisted.internet.task import deferLater

from benchmarks.ground import Ground, run
from benchmarks.results import conclude, spread
from tsrt.dataplane.choice import TIERS, chooseTier
from tsrt.errors import NotSupported

PORT = 7
PAUSE = 0.5
"""Seconds between two turns."""

GO = "go"


class Way(NamedTuple):
    """One thing to measure."""

    name: str
    source: str
    sink: str
    flows: int = 1
    family: int = 4


class Measured:
    """What was measured of one way."""

    def __init__(self) -> None:
        self.speeds: list[float] = []
        self.source: list[float] = []
        self.sink: list[float] = []
        self.fairness: list[float] = []

    @property
    def median(self) -> float:
        """Mbit/s."""
        return statistics.median(self.speeds)


def tiers() -> list[str]:
    """The tiers that can be had here, the slowest first."""
    found = []
    for name in reversed(TIERS):
        try:
            chooseTier(name)
        except NotSupported as error:
            print(f"without the {name} tier: {error}")
        else:
            found.append(name)
    return found


async def pour(ground: Ground, way: Way, size: int, measured: Measured | None) -> None:
    """Pour once; note it, unless it is to warm up."""
    # Whoever had the turn before may still tidy up.
    await deferLater(ground.reactor, PAUSE)
    ends = (way.source, way.sink)
    before = [float((await ground.call(end, "usage"))["cpu"]) for end in ends]
    answer: dict[str, Any] = await ground.call(
        way.source,
        "pour",
        size=size,
        count=way.flows,
        timeout=300,
        **ground.target(way.sink, PORT, way.family),
    )
    after = [float((await ground.call(end, "usage"))["cpu"]) for end in ends]
    if measured is None:
        return
    measured.speeds.append(size * 8 / answer["seconds"] / 1e6)
    gigabytes = size / 1e9
    measured.source.append((after[0] - before[0]) / gigabytes)
    measured.sink.append((after[1] - before[1]) / gigabytes)
    times = [float(time) for time in answer["times"]]
    # The index of Jain: 1 if all flows were as fast, 1/n if one had it all.
    speeds = [1 / time for time in times]
    squares = len(speeds) * sum(speed * speed for speed in speeds)
    measured.fairness.append(sum(speeds) ** 2 / squares)


async def rounds(
    ground: Ground, ways: list[Way], size: int, count: int
) -> dict[str, Measured]:
    """Let every way take its turn, some times."""
    found = {way.name: Measured() for way in ways}
    for way in ways:
        await pour(ground, way, size // 10, None)
    for number in range(count):
        for way in ways:
            await pour(ground, way, size, found[way.name])
        print(f"round {number + 1} of {count} is done", file=sys.stderr)
    return found


def show(title: str, found: dict[str, Measured], base: str) -> None:
    """Print a table."""
    print(f"\n{title:<28}{'Mbit/s':>8}{'least':>8}{'most':>8}{'ratio':>7}", end="")
    print(f"{'CPU s/GB':>12}{'fairness':>10}")
    for name, way in found.items():
        cpu = f"{statistics.median(way.source):.2f}+{statistics.median(way.sink):.2f}"
        print(
            f"{name:<28}{way.median:>8.0f}{min(way.speeds):>8.0f}"
            f"{max(way.speeds):>8.0f}{way.median / found[base].median:>7.2f}"
            f"{cpu:>12}{statistics.median(way.fairness):>10.3f}"
        )


async def measure(ground: Ground, options: argparse.Namespace) -> None:
    """Start the nodes, take turns, print."""
    available = tiers()
    best = available[-1]
    for name in ("go1", "go2"):
        await ground.addGo(name)
    for tier in available:
        for end in ("a", "b"):
            await ground.addOurs(f"{tier}-{end}", tier)
    await ground.addWireGuard("wg1", "wg2")
    for name in ground.nodes:
        await ground.listen(name, PORT, "count")
    plainWireGuard = Way("wireguard-go", "wg1", "wg2")
    ways = [Way(GO, "go1", "go2")]
    ways += [Way(tier, f"{tier}-a", f"{tier}-b") for tier in available]
    ways += [
        Way("tsrt to go", f"{best}-a", "go2"),
        Way("go to tsrt", "go1", f"{best}-b"),
    ]
    for way in ways:
        await ground.untilDirect(way.source, way.sink)
    ways.append(plainWireGuard)
    size = options.size * 1_000_000
    direct = await rounds(ground, ways, size, options.rounds)
    show("one flow, direct, IPv4", direct, GO)

    sixes = [Way("go, IPv6", "go1", "go2", 1, 6)]
    sixes += [Way(f"{t}, IPv6", f"{t}-a", f"{t}-b", 1, 6) for t in available]
    six = await rounds(ground, sixes, size, max(options.rounds // 2, 1))
    show("one flow, direct, IPv6", six, "go, IPv6")

    many = []
    for flows in (1, 10, 100, 1000):
        many.append(Way(f"go, {flows} flows", "go1", "go2", flows))
        many.append(Way(f"tsrt, {flows} flows", f"{best}-a", f"{best}-b", flows))
    shares = await rounds(ground, many, size, max(options.rounds // 2, 1))
    show("many flows, direct", shares, "go, 1 flows")

    ground.namespace.cutUDP()
    relayed = [Way("go, relay", "go1", "go2")]
    relayed += [Way(f"{t}, relay", f"{t}-a", f"{t}-b") for t in available]
    derp = await rounds(ground, relayed, size // 4, options.rounds)
    show("one flow, by a real relay", derp, "go, relay")

    go = direct[GO].median
    ratios = {f"single_flow_{tier}": direct[tier].median / go for tier in available}
    ratios |= {
        "to_go": direct["tsrt to go"].median / go,
        "from_go": direct["go to tsrt"].median / go,
        "derp": derp[f"{best}, relay"].median / derp["go, relay"].median,
        "hundred_flows_share": shares["tsrt, 100 flows"].median
        / shares["tsrt, 1 flows"].median,
    }
    everything = {**direct, **six, **shares, **derp}
    absolute: dict[str, Any] = {
        "throughput_mbit": {k: spread(way.speeds) for k, way in everything.items()},
        "throughput_cpu_seconds_per_gb": {
            name: {
                "source": round(statistics.median(way.source), 2),
                "sink": round(statistics.median(way.sink), 2),
            }
            for name, way in everything.items()
        },
        "fairness": {
            name: round(statistics.median(way.fairness), 3)
            for name, way in shares.items()
        },
    }
    conclude(ratios, absolute)


def main() -> int:
    """Run it, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=300, help="megabytes a turn")
    options = parser.parse_args()
    return run(lambda ground: measure(ground, options))


if __name__ == "__main__":
    sys.exit(main())

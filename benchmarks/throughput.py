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
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

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


Found: TypeAlias = tuple[dict[str, Measured], dict[str, float]]
"""What was measured of each way, and ratios of it."""


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
    available = [name for name in tiers() if name in options.tiers]
    best = available[-1]
    for name in ("go1", "go2"):
        await ground.addGo(name)
    for tier in available:
        for end in ("a", "b"):
            await ground.addOurs(f"{tier}-{end}", tier)
    if "direct" in options.only:
        await ground.addWireGuard("wg1", "wg2")
    for name in ground.nodes:
        await ground.listen(name, PORT, "count")
    await ground.untilDirect("go1", "go2")
    for tier in available:
        await ground.untilDirect(f"{tier}-a", f"{tier}-b")
    everything: dict[str, Measured] = {}
    ratios: dict[str, float] = {}
    for name, part in PARTS.items():
        if name in options.only:
            found, more = await part(ground, available, best, options)
            everything |= found
            ratios |= more
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
            for name, way in everything.items()
            if name.endswith("flows")
        },
    }
    isWhole = set(options.only) == set(PARTS) and set(options.tiers) == set(TIERS)
    conclude(ratios, absolute, isWhole)


async def direct(
    ground: Ground, available: list[str], best: str, options: argparse.Namespace
) -> Found:
    """One flow over IPv4: every tier, with real Go nodes, and wireguard-go."""
    ways = [Way(GO, "go1", "go2")]
    ways += [Way(tier, f"{tier}-a", f"{tier}-b") for tier in available]
    mixed = [
        Way("tsrt to go", f"{best}-a", "go2"),
        Way("go to tsrt", "go1", f"{best}-b"),
    ]
    for way in mixed:
        await ground.untilDirect(way.source, way.sink)
    ways += [*mixed, Way("wireguard-go", "wg1", "wg2")]
    found = await rounds(ground, ways, options.size * 1_000_000, options.rounds)
    show("one flow, direct, IPv4", found, GO)
    go = found[GO].median
    ratios = {f"single_flow_{tier}": found[tier].median / go for tier in available}
    ratios["to_go"] = found["tsrt to go"].median / go
    ratios["from_go"] = found["go to tsrt"].median / go
    return found, ratios


async def six(
    ground: Ground, available: list[str], best: str, options: argparse.Namespace
) -> Found:
    """One flow over IPv6."""
    ways = [Way("go, IPv6", "go1", "go2", 1, 6)]
    ways += [Way(f"{t}, IPv6", f"{t}-a", f"{t}-b", 1, 6) for t in available]
    found = await rounds(ground, ways, options.size * 1_000_000, options.rounds)
    show("one flow, direct, IPv6", found, "go, IPv6")
    return found, {}


async def many(
    ground: Ground, available: list[str], best: str, options: argparse.Namespace
) -> Found:
    """Several flows at once."""
    ways = []
    for flows in (1, 10, 100, 1000):
        ways.append(Way(f"go, {flows} flows", "go1", "go2", flows))
        ways.append(Way(f"tsrt, {flows} flows", f"{best}-a", f"{best}-b", flows))
    found = await rounds(ground, ways, options.size * 1_000_000, options.rounds)
    show("many flows, direct", found, "go, 1 flows")
    one, hundred = found["tsrt, 1 flows"].median, found["tsrt, 100 flows"].median
    return found, {"hundred_flows_share": hundred / one}


async def relayed(
    ground: Ground, available: list[str], best: str, options: argparse.Namespace
) -> Found:
    """One flow by a relay; nothing is direct any more after that."""
    ground.namespace.cutUDP()
    ways = [Way("go, relay", "go1", "go2")]
    ways += [Way(f"{t}, relay", f"{t}-a", f"{t}-b") for t in available]
    found = await rounds(ground, ways, options.size * 250_000, options.rounds)
    show("one flow, by a real relay", found, "go, relay")
    ratio = found[f"{best}, relay"].median / found["go, relay"].median
    return found, {"derp": ratio}


PARTS = {"direct": direct, "six": six, "many": many, "relay": relayed}
"""What can be measured, in this order: the last one cuts the direct paths."""


def chosen(known: Iterable[str]) -> Callable[[str], list[str]]:
    """What reads a list of names, with commas between them."""

    def choose(text: str) -> list[str]:
        names = text.split(",")
        wrong = set(names) - set(known)
        if wrong:
            raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(wrong))}")
        return names

    return choose


def main() -> int:
    """Run it, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=300, help="megabytes a turn")
    parser.add_argument(
        "--only", type=chosen(PARTS), default=[*PARTS], help=", ".join(PARTS)
    )
    parser.add_argument(
        "--tiers", type=chosen(TIERS), default=[*TIERS], help=", ".join(TIERS)
    )
    options = parser.parse_args()
    return run(lambda ground: measure(ground, options))


if __name__ == "__main__":
    sys.exit(main())

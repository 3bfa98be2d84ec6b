"""
How fast streams are, beside the real Go node, in the same run and in turns.

All nodes are processes in one network namespace, but for two of ours that share a
process.  Noise is poured from one to the other and counted there; the time runs from
the first write until the receipt.  Each pair takes its turn in each round, because
the machine's noise changes; the ratios are of medians.  Beside the tailnet's nodes,
two nodes of plain wireguard-go on a userspace stack take their turn.  Needs
C{make interop-build} and root.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from benchmarks.ground import Ground, run
from benchmarks.results import conclude, readOptions, spread
from tsrt.dataplane.choice import TIERS, chooseTier
from tsrt.errors import NotSupported

PORT = 7
PAUSE = 0.5
"""Seconds between two turns."""

GO = "go"

MEGABYTE = 1_000_000

MANY = 3.4
"""How much longer many flows pour: else a hundred would hardly be past their slow
start."""

RELAYED = 0.25
"""The same for what goes by a relay."""


class Way(NamedTuple):
    """
    One thing to measure.

    @ivar isBoth: whether as much is poured the other way at the same time.
    """

    name: str
    source: str
    sink: str
    flows: int = 1
    family: int = 4
    isBoth: bool = False


class Measured:
    """
    What was measured of one way.

    @ivar speeds: Mbit/s, of both directions together.
    @ivar source: CPU seconds for a gigabyte; C{sink} those of the other process,
        nothing if there is none.
    """

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
    before = await usage(ground, way)
    directions = [(way.source, way.sink), (way.sink, way.source)]
    pouring = [
        ground.call(
            source,
            "pour",
            size=size,
            count=way.flows,
            timeout=300,
            **ground.target(sink, PORT, way.family),
        )
        for source, sink in directions[: 1 + way.isBoth]
    ]
    answers: list[dict[str, Any]]
    answers = await gatherResults([Deferred.fromCoroutine(each) for each in pouring])
    after = await usage(ground, way)
    if measured is None:
        return
    poured = size * len(answers)
    seconds = max(float(answer["seconds"]) for answer in answers)
    measured.speeds.append(poured * 8 / seconds / 1e6)
    measured.source.append((after[0] - before[0]) / poured * 1e9)
    measured.sink.append((after[1] - before[1]) / poured * 1e9)
    # The index of Jain: 1 if all flows were as fast, 1/n if one had it all.
    speeds = [1 / float(time) for answer in answers for time in answer["times"]]
    squares = len(speeds) * sum(speed * speed for speed in speeds)
    measured.fairness.append(sum(speeds) ** 2 / squares)


async def usage(ground: Ground, way: Way) -> list[float]:
    """CPU seconds so far of the process of each end; nothing more if it is one."""
    used = [float((await ground.call(way.source, "usage"))["cpu"]), 0.0]
    if ground.nodes[way.source] is not ground.nodes[way.sink]:
        used[1] = float((await ground.call(way.sink, "usage"))["cpu"])
    return used


async def rounds(
    ground: Ground, ways: list[Way], options: argparse.Namespace, factor: float = 1.0
) -> dict[str, Measured]:
    """
    Let every way take its turn, some times.

    @param factor: how much more is poured than usual.
    """
    size, count = int(options.size * factor * MEGABYTE), options.rounds
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
    options.isWhole = options.isWhole and len(available) == len(TIERS)
    await prepare(ground, available)
    everything: dict[str, Measured] = {}
    ratios: dict[str, float] = {}
    for name, part in PARTS.items():
        if name in options.only:
            found, more = await part(ground, available, options)
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
    conclude("throughput", ratios, absolute, options)


async def prepare(ground: Ground, available: list[str]) -> None:
    """Start all nodes, and wait until those that are to be measured are joined."""
    pairs = [("go1", "go2")]
    for name in pairs[0]:
        await ground.addGo(name)
    for tier in available:
        pairs.append((f"{tier}-a", f"{tier}-b"))
        for name in pairs[-1]:
            await ground.addOurs(name, tier)
    best = available[-1]
    await ground.addOurs("one", best)
    await ground.addWireGuard("wg1", "wg2")
    for name in ground.nodes:
        await ground.listen(name, PORT, "count")
    await ground.addTwin("one", "twin", PORT)
    pairs += [("one", "twin"), (f"{best}-a", "go2"), ("go1", f"{best}-b")]
    for ends in pairs:
        await ground.untilDirect(*ends)


async def direct(
    ground: Ground, available: list[str], options: argparse.Namespace
) -> Found:
    """One flow over IPv4: every tier, with real Go nodes, and wireguard-go."""
    best = available[-1]
    ways = [Way(GO, "go1", "go2")]
    ways += [Way(tier, f"{tier}-a", f"{tier}-b") for tier in available]
    ways += [
        Way("tsrt to go", f"{best}-a", "go2"),
        Way("go to tsrt", "go1", f"{best}-b"),
        Way("tsrt, one process", "one", "twin"),
        Way("wireguard-go", "wg1", "wg2"),
    ]
    found = await rounds(ground, ways, options)
    show("one flow, direct, IPv4", found, GO)
    go = found[GO].median
    ratios = {f"single_flow_{tier}": found[tier].median / go for tier in available}
    ratios["to_go"] = found["tsrt to go"].median / go
    ratios["from_go"] = found["go to tsrt"].median / go
    ratios["one_process"] = found["tsrt, one process"].median / go
    ratios["wireguard_go"] = found["wireguard-go"].median / go
    return found, ratios


async def both(
    ground: Ground, available: list[str], options: argparse.Namespace
) -> Found:
    """One flow each way at the same time."""
    ways = [Way("go, both ways", "go1", "go2", isBoth=True)]
    ways += [
        Way(f"{tier}, both ways", f"{tier}-a", f"{tier}-b", isBoth=True)
        for tier in available
    ]
    found = await rounds(ground, ways, options)
    show("one flow each way, direct", found, "go, both ways")
    go = found["go, both ways"].median
    return found, {
        f"both_ways_{tier}": found[f"{tier}, both ways"].median / go
        for tier in available
    }


async def six(
    ground: Ground, available: list[str], options: argparse.Namespace
) -> Found:
    """One flow over IPv6."""
    ways = [Way("go, IPv6", "go1", "go2", 1, 6)]
    ways += [Way(f"{t}, IPv6", f"{t}-a", f"{t}-b", 1, 6) for t in available]
    found = await rounds(ground, ways, options)
    show("one flow, direct, IPv6", found, "go, IPv6")
    go = found["go, IPv6"].median
    return found, {
        f"single_flow_ipv6_{tier}": found[f"{tier}, IPv6"].median / go
        for tier in available
    }


async def many(
    ground: Ground, available: list[str], options: argparse.Namespace
) -> Found:
    """Several flows at once."""
    best = available[-1]
    ways = []
    for flows in (1, 10, 100, 1000):
        ways.append(Way(f"go, {flows} flows", "go1", "go2", flows))
        ways.append(Way(f"tsrt, {flows} flows", f"{best}-a", f"{best}-b", flows))
    for tier in available[:-1]:
        ways.append(Way(f"{tier}, 100 flows", f"{tier}-a", f"{tier}-b", 100))
    for flows in (10, 100):
        ways.append(Way(f"wireguard-go, {flows} flows", "wg1", "wg2", flows))
    found = await rounds(ground, ways, options, MANY)
    show("many flows, direct", found, "go, 1 flows")
    one, hundred = found["tsrt, 1 flows"].median, found["tsrt, 100 flows"].median
    ratios = {"hundred_flows_share": hundred / one}
    for flows in (10, 100, 1000):
        go, ours = (found[f"{name}, {flows} flows"].median for name in ("go", "tsrt"))
        ratios[f"flows_{flows}"] = ours / go
    return found, ratios


async def relayed(
    ground: Ground, available: list[str], options: argparse.Namespace
) -> Found:
    """One flow by a relay; nothing is direct any more after that."""
    best = available[-1]
    ground.namespace.cutUDP()
    ways = [Way("go, relay", "go1", "go2")]
    ways += [Way(f"{t}, relay", f"{t}-a", f"{t}-b") for t in available]
    ways += [
        Way("tsrt to go, relay", f"{best}-a", "go2"),
        Way("go to tsrt, relay", "go1", f"{best}-b"),
    ]
    found = await rounds(ground, ways, options, RELAYED)
    show("one flow, by a real relay", found, "go, relay")
    go = found["go, relay"].median
    return found, {
        "derp": found[f"{best}, relay"].median / go,
        "derp_to_go": found["tsrt to go, relay"].median / go,
        "derp_from_go": found["go to tsrt, relay"].median / go,
    }


PARTS = {"direct": direct, "both": both, "six": six, "many": many, "relay": relayed}
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
    options = readOptions(parser)
    return run(lambda ground: measure(ground, options))


if __name__ == "__main__":
    sys.exit(main())

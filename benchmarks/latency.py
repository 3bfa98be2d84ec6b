"""
Round trips of small messages, beside the real Go node's.

Messages of 1 byte and of 1 kB go over one TCP connection, one after the other: on an
idle path, while another connection between the same nodes pours, and, in the end, by
a real relay.  Each pair of nodes takes its turn in each round; the ratios are of
medians.  Needs C{make interop-build} and root.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from benchmarks.ground import Ground, run
from benchmarks.results import conclude, readOptions

ECHO, COUNT = 8, 7
SIZES = (1, 1000)
PAIRS = {"go": ("go1", "go2"), "tsrt": ("tsrt1", "tsrt2")}
POURED = 400_000_000
"""Bytes that are poured at a time while the path is loaded."""

RAMP = 0.3
"""Seconds after which it is."""


async def pingpong(
    ground: Ground, ends: tuple[str, str], size: int, count: int
) -> list[float]:
    """Seconds of each of some round trips."""
    answer: dict[str, Any] = await ground.call(
        ends[0],
        "pingpong",
        size=size,
        count=count,
        timeout=120,
        **ground.target(ends[1], ECHO),
    )
    return [float(time) for time in answer["times"]]


async def loaded(
    ground: Ground, ends: tuple[str, str], size: int, count: int
) -> list[float]:
    """The same while another connection pours all the time."""
    isEnough = False

    async def pour() -> None:
        while not isEnough:
            await ground.call(
                ends[0],
                "pour",
                size=POURED,
                count=1,
                timeout=120,
                **ground.target(ends[1], COUNT),
            )

    pouring = Deferred.fromCoroutine(pour())
    try:
        await deferLater(ground.reactor, RAMP)
        return await pingpong(ground, ends, size, count)
    finally:
        isEnough = True
        await pouring


async def measure(ground: Ground, options: argparse.Namespace) -> None:
    """Start the nodes, take turns, print."""
    for name in ("go1", "go2"):
        await ground.addGo(name)
    for name in ("tsrt1", "tsrt2"):
        await ground.addOurs(name)
    for name in ground.nodes:
        await ground.listen(name, ECHO, "echo")
        await ground.listen(name, COUNT, "count")
    for ends in PAIRS.values():
        await ground.untilDirect(*ends)
    found: dict[str, list[float]] = {}
    await idle(ground, options, "idle", found)
    for _ in range(options.rounds):
        for size in SIZES:
            for name, ends in PAIRS.items():
                times = await loaded(ground, ends, size, options.count // 10)
                found.setdefault(f"{name}, {size} B, loaded", []).extend(times)
    ground.namespace.cutUDP()
    await idle(ground, options, "relay", found)
    print(f"{'round trips, us':<22}{'p10':>8}{'p50':>8}{'p90':>8}{'p99':>8}")
    absolute: dict[str, Any] = {}
    for name, times in sorted(found.items()):
        cuts = statistics.quantiles(times, n=100)
        shown = {f"p{p}": round(cuts[p - 1] * 1e6, 1) for p in (10, 50, 90, 99)}
        print(f"{name:<22}" + "".join(f"{value:>8.0f}" for value in shown.values()))
        absolute[name] = shown
    medians = {name: statistics.median(times) for name, times in found.items()}
    ratios = {}
    for name, size, way in (
        ("rtt_idle", 1, "idle"),
        ("rtt_idle_1000", 1000, "idle"),
        ("rtt_loaded", 1, "loaded"),
        ("rtt_loaded_1000", 1000, "loaded"),
        ("rtt_derp", 1, "relay"),
        ("rtt_derp_1000", 1000, "relay"),
    ):
        go, ours = (medians[f"{kind}, {size} B, {way}"] for kind in PAIRS)
        ratios[name] = ours / go
    conclude("latency", ratios, {"rtt_microseconds": absolute}, options)


async def idle(
    ground: Ground,
    options: argparse.Namespace,
    way: str,
    found: dict[str, list[float]],
) -> None:
    """Measure while nothing else goes on."""
    for ends in PAIRS.values():
        await pingpong(ground, ends, 1, 200)
    for _ in range(options.rounds):
        for size in SIZES:
            for name, ends in PAIRS.items():
                times = await pingpong(ground, ends, size, options.count)
                found.setdefault(f"{name}, {size} B, {way}", []).extend(times)


def main() -> int:
    """Run it, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=2000, help="trips a turn")
    options = readOptions(parser)
    return run(lambda ground: measure(ground, options))


if __name__ == "__main__":
    sys.exit(main())

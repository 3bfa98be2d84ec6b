"""
How fast connections are made, beside the real Go node, in the same run.

TCP connections through the tunnel are opened and closed, one at a time and many at a
time.  Then nodes that are new connect to one that they have never spoken with, so that
the time is from the first packet to the session and the connection in it; by the path
that is there first, which is the relay's.  And a WireGuard handshake, both of its
sides, is taken alone.  Needs C{make interop-build} and root.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from benchmarks.ground import Ground, run
from benchmarks.results import conclude, readOptions, spread
from benchmarks.tunnel import measureHandshakes

PORT = 7
WAYS = {"one at a time": 1, "32 at a time": 32}
FRESH = 5
"""New nodes that connect for the first time, in a round."""

PAUSE = 3.0
"""Seconds that they have to look around before."""


async def connects(
    ground: Ground, ends: tuple[str, str], count: int, parallel: int
) -> float:
    """Connections a second."""
    answer: dict[str, Any] = await ground.call(
        ends[0],
        "connects",
        count=count,
        parallel=parallel,
        timeout=120,
        **ground.target(ends[1], PORT),
    )
    return count / float(answer["seconds"])


async def measure(ground: Ground, options: argparse.Namespace) -> None:
    """Start the nodes, take turns, print."""
    for name in ("go1", "go2"):
        await ground.addGo(name)
    for name in ("tsrt1", "tsrt2"):
        await ground.addOurs(name)
    for name in ground.nodes:
        await ground.listen(name, PORT, "count")
    pairs = {"go": ("go1", "go2"), "tsrt": ("tsrt1", "tsrt2")}
    for ends in pairs.values():
        await ground.untilDirect(*ends)
        await connects(ground, ends, 100, 4)
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for way, parallel in WAYS.items():
            for name, ends in pairs.items():
                speed = await connects(ground, ends, options.count, parallel)
                found.setdefault(f"{name}, {way}", []).append(speed)
    firsts: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, ends in pairs.items():
            target = ground.target(ends[1], PORT)
            times = await ground.crowd(ends[0], FRESH, target, PAUSE)
            firsts.setdefault(name, []).extend(time * 1e3 for time in times)
    handshake = measureHandshakes(300)
    print(f"{'connections a second':<28}{'median':>8}{'least':>8}{'most':>8}")
    for name, speeds in found.items():
        median = statistics.median(speeds)
        print(f"{name:<28}{median:>8.0f}{min(speeds):>8.0f}{max(speeds):>8.0f}")
    print(f"{'first connection, ms':<28}{'median':>8}{'least':>8}{'most':>8}")
    for name, values in firsts.items():
        median = statistics.median(values)
        print(f"{name:<28}{median:>8.2f}{min(values):>8.2f}{max(values):>8.2f}")
    print(f"WireGuard handshake, both sides, CPU alone: {handshake:.0f} us")
    medians = {name: statistics.median(speeds) for name, speeds in found.items()}
    ratios = {
        name: medians[f"tsrt, {way}"] / medians[f"go, {way}"]
        for name, way in (
            ("connects_per_second", "32 at a time"),
            ("connects_one_at_a_time", "one at a time"),
        )
    }
    first = {name: statistics.median(values) for name, values in firsts.items()}
    ratios["first_handshake"] = first["tsrt"] / first["go"]
    absolute = {
        "connects_per_second": {k: spread(v) for k, v in found.items()},
        "first_handshake_milliseconds": {k: spread(v, 2) for k, v in firsts.items()},
        "handshake_both_sides_microseconds": round(handshake),
    }
    conclude("connections", ratios, absolute, options)


def main() -> int:
    """Run it, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=500, help="a turn")
    options = readOptions(parser)
    return run(lambda ground: measure(ground, options))


if __name__ == "__main__":
    sys.exit(main())

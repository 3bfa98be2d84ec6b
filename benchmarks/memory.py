"""
What nodes weigh, and how soon they are there, beside the real Go node.

A process is started with one node, which exchanges a byte with another; then 49 more
nodes are started in the same process.  What single peers, sessions and flows weigh is
measured in this process.  Needs C{make interop-build} and root.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

from benchmarks.ground import Ground, run
from benchmarks.results import conclude, spread
from benchmarks.tunnel import connected
from tsrt.addresses import parseAddress
from tsrt.keys import NodeKey
from tsrt.netstack.limits import StackLimits
from tsrt.netstack.stack import Stack
from tsrt.tunnel.table import TunnelTable

ECHO = 8
CROWD = 50
MEBIBYTE = 1 << 20


def peers(count: int) -> object:
    """Tunnels to peers that are silent."""
    table = TunnelTable(
        NodeKey.generate(os.urandom),
        timestamp=lambda: bytes(12),
        randbytes=os.urandom,
    )
    for _ in range(count):
        table.upsertPeer(os.urandom(32), now=0.0)
    return table


def sessions(count: int) -> object:
    """Sessions, two ends each."""
    return [connected(1000.0) for _ in range(count // 2)]


def flows(count: int) -> object:
    """TCP flows that are being opened."""
    stack = Stack(randbytes=os.urandom, limits=StackLimits(flows=count))
    stack.setAddresses([parseAddress("100.64.0.1")])
    there = parseAddress("100.64.0.2")
    for number in range(count):
        stack.connectTCP(there, 1 + number % 65535, 0.0)
    return stack


def weigh(make: Callable[[int], object], count: int) -> float:
    """Bytes of each of some things."""
    make(2)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = make(count)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return (after - before) / count


async def measure(ground: Ground, options: argparse.Namespace) -> None:
    """Start processes in turns, and print what they weigh."""
    await ground.addGo("partner")
    await ground.listen("partner", ECHO, "echo")
    target = ground.target("partner", ECHO)
    clock = ground.reactor.seconds
    firsts: dict[str, list[float]] = {"go": [], "tsrt": []}
    weights: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for kind, add in (("go", ground.addGo), ("tsrt", ground.addOurs)):
            name = f"{kind}{number}"
            began = clock()
            await add(name)
            await ground.call(name, "pingpong", size=1, count=1, timeout=60, **target)
            firsts[kind].append(clock() - began)
            rss = float((await ground.call(name, "usage"))["rss"]) / MEBIBYTE
            weights.setdefault(f"{kind}, 1 node", []).append(rss)
    for kind in firsts:
        name = f"{kind}0"
        await ground.crowd(name, CROWD - 1, target)
        rss = float((await ground.call(name, "usage"))["rss"]) / MEBIBYTE
        weights[f"{kind}, {CROWD} nodes"] = [rss]
    each = {
        "peer": weigh(peers, 10_000),
        "session": weigh(sessions, 400),
        "flow": weigh(flows, 5_000),
    }
    for kind, times in firsts.items():
        print(f"{kind}: {statistics.median(times):.2f} s from start to first byte")
    for name, values in weights.items():
        print(f"{name}: {statistics.median(values):.1f} MiB")
    for thing, size in each.items():
        print(f"a {thing}: {size:.0f} bytes")
    median = {name: statistics.median(values) for name, values in weights.items()}
    absolute: dict[str, Any] = {
        "start_to_first_byte_seconds": {k: spread(v, 2) for k, v in firsts.items()},
        "rss_mib": {name: round(value, 1) for name, value in median.items()},
        "bytes_each": {thing: round(size) for thing, size in each.items()},
    }
    conclude(
        {
            "start_to_first_byte": statistics.median(firsts["tsrt"])
            / statistics.median(firsts["go"]),
            "rss_1_node": median["tsrt, 1 node"] / median["go, 1 node"],
            "rss_50_nodes": median["tsrt, 50 nodes"] / median["go, 50 nodes"],
        },
        absolute,
    )


def main() -> int:
    """Run it, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    return run(lambda ground: measure(ground, options))


if __name__ == "__main__":
    sys.exit(main())

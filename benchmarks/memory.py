"""
What nodes weigh, and how soon they are there, beside the real Go node.

A process is started with one node, which exchanges a byte with another; then, in some
rounds, 49 more nodes are started in the same process.  What single peers, sessions and
flows weigh is measured in this process: a peer is one of many that control tells of,
with all that a node keeps of it; a flow is one end of an established connection, with
its transport and its protocol.  Needs C{make interop-build} and root.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tracemalloc
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory

from benchmarks.ground import Ground, run
from benchmarks.netmap import BigNode
from benchmarks.results import conclude, readOptions, spread
from benchmarks.tunnel import connected
from benchmarks.walk import Taker
from tsrt.testing.tailnet import TestTailnet

ECHO = 8
CROWD = 50
CROWDS = 3
"""Processes of each kind that get so many nodes."""

MEBIBYTE = 1 << 20
ATONCE = 50
"""Connections that are opened at a time: one peer may not have many half-open ones."""


def weighSessions(count: int) -> float:
    """Bytes of one end of a session."""
    connected(1000.0)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = [connected(1000.0) for _ in range(count // 2)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return (after - before) / count


def weighPeers(count: int) -> float:
    """Bytes of all that a node keeps of a peer."""
    node = BigNode(count)
    node.close()
    return node.memory


def weighFlows(count: int) -> float:
    """Bytes of one end of a connection that has carried a byte each way."""
    tailnet = TestTailnet(nodes=["a", "b"])
    listening = tailnet["b"].serverEndpoint(7)
    tailnet.wait(listening.listen(Factory.forProtocol(lambda: Taker(isEcho=True))))
    endpoint = tailnet["a"].clientEndpoint("b", 7)

    def open_(count: int) -> list[Taker]:
        takers = [Taker() for _ in range(count)]
        for at in range(0, count, ATONCE):
            some = [connectProtocol(endpoint, t) for t in takers[at : at + ATONCE]]
            tailnet.wait(gatherResults(some))
        for taker in takers:
            assert taker.transport is not None
            taker.transport.write(b"!")
        tailnet.settle(5)
        if {taker.count for taker in takers} != {1}:
            raise SystemExit("not all connections work: the figures mean nothing")
        gc.collect()
        return takers

    takers = open_(ATONCE)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    takers += open_(count)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for taker in takers:
        assert taker.transport is not None
        taker.transport.loseConnection()
    tailnet.settle()
    tailnet.close()
    # Both ends are in this process.
    return (after - before) / count / 2


async def measure(ground: Ground, options: argparse.Namespace) -> None:
    """Start processes in turns, and print what they weigh."""
    await ground.addGo("partner")
    await ground.listen("partner", ECHO, "echo")
    target = ground.target("partner", ECHO)
    clock = ground.reactor.seconds
    firsts: dict[str, list[float]] = {"go": [], "tsrt": []}
    weights: dict[str, list[float]] = {}

    async def weigh(name: str, label: str) -> None:
        rss = float((await ground.call(name, "usage"))["rss"]) / MEBIBYTE
        weights.setdefault(label, []).append(rss)

    for number in range(options.rounds):
        for kind, add in (("go", ground.addGo), ("tsrt", ground.addOurs)):
            name = f"{kind}{number}"
            began = clock()
            await add(name)
            await ground.call(name, "pingpong", size=1, count=1, timeout=60, **target)
            firsts[kind].append(clock() - began)
            await weigh(name, f"{kind}, 1 node")
            if number < CROWDS:
                await ground.crowd(name, CROWD - 1, target)
                await weigh(name, f"{kind}, {CROWD} nodes")
            # The next one is to meet as few others.
            await ground.drop(name)
    each = {
        "peer": weighPeers(10_000),
        "session": weighSessions(400),
        "flow": weighFlows(2_000),
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
        "rss_mib": {k: spread(v, 1) | {"samples": len(v)} for k, v in weights.items()},
        "bytes_each": {thing: round(size) for thing, size in each.items()},
    }
    ratios = {
        "start_to_first_byte": statistics.median(firsts["tsrt"])
        / statistics.median(firsts["go"]),
        "rss_1_node": median["tsrt, 1 node"] / median["go, 1 node"],
        "rss_50_nodes": median["tsrt, 50 nodes"] / median["go, 50 nodes"],
    }
    conclude("memory", ratios, absolute, options)


def main() -> int:
    """Run it, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = readOptions(parser)
    return run(lambda ground: measure(ground, options))


if __name__ == "__main__":
    sys.exit(main())

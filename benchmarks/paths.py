"""
What pacing is worth on long paths whose queues are short, in simulated time.

One flow for each path goes between two stacks, through a bottleneck of 100 Mbit/s that
loses what its queue has no room for: once paced, and once with as much at once as the
window has room for.  The figures are the same on each machine.
"""

from __future__ import annotations

import argparse
from math import inf

from benchmarks.results import conclude, readOptions
from tsrt.netstack.tcpoptions import DEFAULTS, TCPOptions
from tsrt.test.stackpair import PORT, THERE, CutPair

RATE = 12.5e6
"""Bytes a second that get through."""

PATHS = ((40, 32), (40, 100), (100, 32), (100, 250))
"""Milliseconds of a round trip, and packets that fit in front of the bottleneck."""

UNPACED = TCPOptions(pacedFrom=inf)


def carry(trip: int, queue: int, seconds: float, options: TCPOptions) -> float:
    """The megabits that one flow brings in each second, from its start on."""
    pair = CutPair(trip / 2000, RATE, queue)
    flow = pair.source.connectTCP(THERE, PORT, pair.now, options=options)
    pair.until(lambda: flow.established)
    pair.fill(flow)
    pair.run(seconds)
    return pair.read[flow.localPort] * 8 / seconds / 1e6


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=1)
    options = readOptions(parser)
    print(f"{'Mbit/s of 100, a flow':<32}{'at once':>10}{'paced':>10}{'ratio':>8}")
    ratios, absolute = {}, {}
    for trip, queue in PATHS:
        atOnce, paced = (
            carry(trip, queue, options.seconds, how) for how in (UNPACED, DEFAULTS)
        )
        label = f"{trip} ms, room for {queue} packets"
        print(f"{label:<32}{atOnce:>10.1f}{paced:>10.1f}{paced / atOnce:>8.2f}")
        ratios[f"paced_{trip}_ms_{queue}_packets"] = paced / atOnce
        absolute[label] = {"at once": round(atOnce, 1), "paced": round(paced, 1)}
    conclude("paths", ratios, {"mbit": absolute}, options)


if __name__ == "__main__":
    main()

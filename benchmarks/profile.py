"""
What each stage of a packet's way costs, for each tier, beside the bare AEAD.

One flow of full segments goes from one stack to another in this process, with made-up
time and no socket; each stage is timed for itself.  Then packets walk all the way
between two whole nodes, see L{benchmarks.walk}: that has all that lies between the
stages as well.  The least of many rounds counts, since other work on the machine only
ever adds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from benchmarks.results import conclude, readOptions
from benchmarks.walk import RUNS, NullReactor, walksOf
from tsrt.addresses import parseAddress
from tsrt.dataplane.choice import TIERS, chooseTier
from tsrt.dataplane.runs import (
    ArrivedRun,
    DatagramRun,
    SealedRun,
    SegmentRun,
    arrivedOf,
    countOf,
)
from tsrt.errors import NotSupported
from tsrt.netmap.filter import PacketFilter
from tsrt.netstack.stack import Stack
from tsrt.netstack.tcb import TIMESTAMPS_LENGTH
from tsrt.underlay.batchport import BatchPort, bindPort
from tsrt.wire.checksum import onesSum
from tsrt.wire.tcp import ACK, PSH, SegmentBuilder

HERE, THERE = parseAddress("100.64.0.1"), parseAddress("100.64.0.2")
MSS, COUNT = 1240, 48
LONGEST = max(RUNS)
PREFIX = b"\x04\0\0\0abcd"
KEY = bytes(32)


def least(work: Callable[[], object], rounds: int, packets: int = COUNT) -> float:
    """Microseconds a packet."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(20):
            work()
        best = min(best, time.perf_counter() - began)
    return best / 20 / packets * 1e6


def bare(rounds: int) -> dict[str, float]:
    """What nobody can do without."""
    cipher = ChaCha20Poly1305(KEY)
    nonce, packet = bytes(12), os.urandom(1280)
    sealed = cipher.encrypt(nonce, packet, None)
    many = range(COUNT)
    return {
        "AEAD seal": least(
            lambda: [cipher.encrypt(nonce, packet, None) for _ in many], rounds
        ),
        "AEAD open": least(
            lambda: [cipher.decrypt(nonce, sealed, None) for _ in many], rounds
        ),
        "checksum": least(lambda: [onesSum(packet) for _ in many], rounds),
    }


def sockets(sealed: SealedRun, rounds: int) -> dict[str, float]:
    """Writing a run to a real socket on loopback, and reading it."""
    reactor: Any = NullReactor()
    ports = []
    for _ in range(2):
        sock = bindPort(4, 0, "127.0.0.1")
        port = BatchPort(reactor, sock, lambda *_: None, lambda: None, lambda _: None)
        port.startListening()
        ports.append(port)
    source, sink = ports
    host = sink.getHost()
    address = (host.host, host.port)
    writing = reading = float("inf")
    for _ in range(rounds * 5):
        began = time.perf_counter()
        source.send([sealed], address)
        written = time.perf_counter()
        sink.doRead()
        writing = min(writing, written - began)
        reading = min(reading, time.perf_counter() - written)
    for port in ports:
        port.stopListening()
    return {
        "socket write": writing / COUNT * 1e6,
        "socket read": reading / COUNT * 1e6,
    }


def stacks(rounds: int) -> dict[str, float]:
    """From a flow's buffer to runs, and from runs to another flow's."""
    sending, receiving = Stack(randbytes=os.urandom), Stack(randbytes=os.urandom)
    sending.setAddresses([HERE])
    receiving.setAddresses([THERE])
    now = 1000.0
    listener = receiving.listenTCP(80, now)
    source, sink = sending.connectTCP(THERE, 80, now), None
    while sink is None:
        receiving.receive(sending.drain(now), now)
        sending.receive(receiving.drain(now), now)
        sink = listener.accept()
    text = os.urandom((MSS - TIMESTAMPS_LENGTH) * COUNT)
    out = into = float("inf")
    for _ in range(rounds * 40):
        now += 0.001
        source.write(text)
        began = time.perf_counter()
        items = sending.drainRuns(now)
        drained = time.perf_counter()
        arrived = arrivedOf(items)
        again = time.perf_counter()
        receiving.receive(arrived, now)
        receiving.takeReady()
        sink.read()
        answers = receiving.drain(now)
        ended = time.perf_counter()
        sending.receive(answers, now)
        sending.takeReady()
        if countOf(items) == COUNT:
            out = min(out, drained - began)
            into = min(into, ended - again)
    return {"stack out": out / COUNT * 1e6, "stack in": into / COUNT * 1e6}


def filtering(run: ArrivedRun, rounds: int) -> float:
    """The packet filter, once it knows the flow."""
    packetFilter = PacketFilter()
    packetFilter._cache = {b"peer": {run.head[6:10] + run.head[12:24]: 1}}
    return least(lambda: packetFilter.admit([run], b"peer"), rounds)


def tierStages(name: str, run: SegmentRun, rounds: int) -> dict[str, float] | None:
    """What a tier and what is around it costs; nothing if it cannot be had."""
    try:
        tier = chooseTier(name)
    except NotSupported as error:
        print(error)
        return None
    sealer, opener = tier.sealer(KEY), tier.opener(KEY)
    sealed = sealer.sealRun(run, PREFIX, 0, 1280)
    data = DatagramRun(b"".join(map(bytes, sealed.buffers)), sealed.size)
    (arrived,) = opener.openRun(data, 0, 0).items
    assert isinstance(arrived, ArrivedRun)
    return {
        "seal run": least(partial(sealer.sealRun, run, PREFIX, 0, 1280), rounds),
        "open run": least(partial(opener.openRun, data, 0, 0), rounds),
        "filter": filtering(arrived, rounds),
        **sockets(sealed, rounds),
    }


def table(title: str, columns: dict[str, dict[str, float]]) -> None:
    """Print some costs of each tier."""
    print(f"  {title:<26}" + "".join(f"{name:>10}" for name in columns))
    for row in next(iter(columns.values())):
        values = "".join(f"{costs[row]:>10.3f}" for costs in columns.values())
        print(f"  {row:<26}{values}")


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    options = readOptions(parser)
    rounds = options.rounds
    builder = SegmentBuilder(HERE, 1000, THERE, 80)
    run = SegmentRun(builder, 1, 2, ACK, 500, b"", os.urandom(MSS * COUNT), MSS, PSH)
    common = bare(rounds) | stacks(rounds)
    stages: dict[str, dict[str, float]] = {}
    walks: dict[str, dict[str, float]] = {}
    for name in reversed(TIERS):
        costs = tierStages(name, run, rounds)
        if costs is None:
            options.isWhole = False
            continue
        stages[name] = costs
        walks[name] = {
            f"{length} at once: {part}": cost
            for length, parts in walksOf(name, rounds).items()
            for part, cost in parts.items()
        }
        # Taken again beside each tier, because the machine's mood changes.
        again = bare(rounds)
        common |= {key: min(value, common[key]) for key, value in again.items()}
    print(f"microseconds a packet of {MSS} bytes in runs of {COUNT}, least of many")
    for name, value in common.items():
        print(f"  {name:<26}{value:>10.3f}")
    table("each stage alone", stages)
    table("the whole walk of segments", walks)
    aead = common["AEAD seal"] + common["AEAD open"]
    ratios = {}
    for name, costs in walks.items():
        for length, prefix in ((COUNT, "walk"), (LONGEST, "long_walk")):
            ratio = costs[f"{length} at once: whole"] / aead
            ratios[f"{prefix}_over_aead_{name}"] = ratio
            print(f"whole walk, {length} at once, over both AEADs, {name}: {ratio:.2f}")
    absolute = {
        "microseconds_a_packet": {"all": rounded(common)}
        | {name: rounded(costs) for name, costs in stages.items()},
        "microseconds_a_packet_whole_walk": {
            name: rounded(costs) for name, costs in walks.items()
        },
    }
    conclude("profile", ratios, absolute, options)
    return 0


def rounded(costs: dict[str, float]) -> dict[str, float]:
    """To nanoseconds."""
    return {name: round(cost, 3) for name, cost in costs.items()}


if __name__ == "__main__":
    sys.exit(main())

"""
What each stage of a packet's way costs, for each tier, beside the bare AEAD.

One flow of full segments goes from one stack to another in this process, with made-up
time and no socket; each stage is timed for itself.  The least of many rounds counts,
since other work on the machine only ever adds.
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

from benchmarks.results import conclude
from tsrt.addresses import parseAddress
from tsrt.dataplane.choice import TIERS, chooseTier
from tsrt.dataplane.runs import ArrivedRun, DatagramRun, SealedRun, SegmentRun
from tsrt.errors import NotSupported
from tsrt.netmap.filter import PacketFilter
from tsrt.netstack.stack import Stack
from tsrt.netstack.tcb import TIMESTAMPS_LENGTH
from tsrt.underlay.batchport import BatchPort, bindPort
from tsrt.wire.checksum import onesSum
from tsrt.wire.tcp import ACK, PSH, SegmentBuilder, parseOptions

HERE, THERE = parseAddress("100.64.0.1"), parseAddress("100.64.0.2")
MSS, COUNT = 1240, 48
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


class NullReactor:
    """Watches nothing."""

    def addReader(self, reader: object) -> None:
        """Nothing."""

    removeReader = addReader


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
        arrived: list[bytes | ArrivedRun] = []
        count = 0
        for item in items:
            if isinstance(item, bytes):
                arrived.append(item)
                count += 1
                continue
            packets = item.packets()
            head = packets[0][: len(packets[0]) - item.mss]
            flags = ACK | item.lastFlags
            arrived.append(
                ArrivedRun(
                    packets,
                    head,
                    item.payload,
                    item.mss,
                    item.count,
                    item.seq,
                    item.ack,
                    flags,
                    item.window,
                    parseOptions(item.options, 0, len(item.options)),
                )
            )
            count += item.count
        again = time.perf_counter()
        receiving.receive(arrived, now)
        receiving.takeReady()
        sink.read()
        answers = receiving.drain(now)
        ended = time.perf_counter()
        sending.receive(answers, now)
        sending.takeReady()
        if count == COUNT:
            out = min(out, drained - began)
            into = min(into, ended - again)
    return {"stack out": out / COUNT * 1e6, "stack in": into / COUNT * 1e6}


def filtering(run: ArrivedRun, rounds: int) -> float:
    """The packet filter, once it knows the flow."""
    packetFilter = PacketFilter()
    packetFilter._cache = {b"peer": {run.head[6:10] + run.head[12:24]: 1}}
    return least(lambda: packetFilter.admit([run], b"peer"), rounds)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    rounds = options.rounds
    builder = SegmentBuilder(HERE, 1000, THERE, 80)
    run = SegmentRun(builder, 1, 2, ACK, 500, b"", os.urandom(MSS * COUNT), MSS, PSH)
    common = bare(rounds) | stacks(rounds)
    table: dict[str, dict[str, float]] = {}
    for name in reversed(TIERS):
        try:
            tier = chooseTier(name)
        except NotSupported as error:
            print(error)
            continue
        sealer, opener = tier.sealer(KEY), tier.opener(KEY)
        sealed = sealer.sealRun(run, PREFIX, 0, 1280)
        data = DatagramRun(b"".join(map(bytes, sealed.buffers)), sealed.size)
        (arrived,) = opener.openRun(data, 0, 0).items
        assert isinstance(arrived, ArrivedRun)
        table[name] = {
            "seal run": least(partial(sealer.sealRun, run, PREFIX, 0, 1280), rounds),
            "open run": least(partial(opener.openRun, data, 0, 0), rounds),
            "filter": filtering(arrived, rounds),
            **sockets(sealed, rounds),
        }
    print(f"microseconds a packet of {MSS} bytes in runs of {COUNT}, least of many")
    for name, value in common.items():
        print(f"  {name:<14}{value:8.3f}")
    stages = list(next(iter(table.values())))
    print(f"  {'':<14}" + "".join(f"{name:>10}" for name in table))
    for stage in stages:
        row = "".join(f"{costs[stage]:>10.3f}" for costs in table.values())
        print(f"  {stage:<14}{row}")
    aead = common["AEAD seal"] + common["AEAD open"]
    ratios = {}
    for name, costs in table.items():
        walk = sum(costs.values()) + common["stack out"] + common["stack in"]
        ratios[f"walk_over_aead_{name}"] = walk / aead
        print(f"whole walk, both ends, over both AEADs, {name}: {walk / aead:.2f}")
    rounded = {k: {s: round(v, 3) for s, v in c.items()} for k, c in table.items()}
    conclude(
        ratios,
        {
            "microseconds_a_packet": rounded
            | {"all": {k: round(v, 3) for k, v in common.items()}}
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

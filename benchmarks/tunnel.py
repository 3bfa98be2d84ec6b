"""
What the tunnel costs, beside the bare AEAD, in one run on one machine: for packets,
and for runs of segments with the tier of the data plane that is in use.

Absolute figures differ from machine to machine and from minute to minute; the
ratios, taken in turns within one run, are what to compare.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from benchmarks.results import conclude, readOptions
from tsrt.addresses import parseAddress
from tsrt.dataplane.choice import TIER
from tsrt.dataplane.runs import (
    DatagramRun,
    Outgoing,
    Received,
    Sealed,
    SealedRun,
    SegmentRun,
    messagesOf,
)
from tsrt.keys import NodeKey
from tsrt.tunnel.table import TunnelTable
from tsrt.tunnel.timestamps import TimestampSource
from tsrt.wire.tcp import ACK, PSH, SegmentBuilder

BATCH = 48
LONGEST = 392
FULL = 1280
ROUNDS = 15
REPEAT = 40


def ipPacket(size: int) -> bytes:
    """An IPv4 packet, as far as the tunnel looks at it."""
    return (b"\x45\x00" + size.to_bytes(2, "big")).ljust(size, b"\x5a")


def connected(now: float) -> tuple[TunnelTable, TunnelTable, bytes, bytes]:
    """Two tables with a session, and the public keys of their nodes."""
    keys = [NodeKey.generate(os.urandom) for _ in range(2)]
    publics = [key.public().raw for key in keys]
    tables = [
        TunnelTable(key, timestamp=TimestampSource(time.time), randbytes=os.urandom)
        for key in keys
    ]
    tables[0].upsertPeer(publics[1], now=now)
    tables[1].upsertPeer(publics[0], now=now)
    messages = messagesOf(tables[0].send(publics[1], [ipPacket(60)], now))
    for side in (1, 0, 1):
        received = tables[side].receive(messages, b"here", now)
        messages = [m for _, found in received.replies for m in messagesOf(found)]
    return tables[0], tables[1], publics[0], publics[1]


def bareSeal(packets: list[bytes]) -> Callable[[], object]:
    """Seal with the library's AEAD alone."""
    encrypt = ChaCha20Poly1305(bytes(32)).encrypt
    nonce = bytes(12)
    return lambda: [encrypt(nonce, packet, None) for packet in packets]


def bareOpen(packets: list[bytes]) -> Callable[[], object]:
    """Open with the library's AEAD alone, other messages each time."""
    cipher = ChaCha20Poly1305(bytes(32))
    nonce = bytes(12)
    decrypt = cipher.decrypt
    batches = [
        [cipher.encrypt(nonce, packet, None) for packet in packets]
        for _ in range(REPEAT)
    ]

    def openAll() -> None:
        for sealed in batches:
            [decrypt(nonce, message, None) for message in sealed]

    return openAll


class Stopwatch:
    """The best and the median of many rounds, in microseconds a packet."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def take(self, work: Callable[[], object], packets: int) -> None:
        """Time one round."""
        began = time.perf_counter()
        work()
        self.times.append((time.perf_counter() - began) / packets * 1e6)

    @property
    def best(self) -> float:
        """The best round."""
        return min(self.times)

    @property
    def median(self) -> float:
        """The median round."""
        return sorted(self.times)[len(self.times) // 2]


def repeated(work: Callable[[], object]) -> Callable[[], object]:
    """Do something many times."""

    def many() -> None:
        for _ in range(REPEAT):
            work()

    return many


def segmentRun(count: int) -> SegmentRun:
    """Segments that make packets of L{FULL} bytes."""
    here, there = parseAddress("100.64.0.1"), parseAddress("100.64.0.2")
    builder = SegmentBuilder(here, 1000, there, 80)
    mss = FULL - builder.overhead
    data = os.urandom(mss * count)
    return SegmentRun(builder, 1, 2, ACK, 500, b"", data, mss, PSH)


def arriving(items: list[Sealed]) -> list[Received]:
    """What was sealed, as it comes from a socket that joins datagrams."""
    return [
        DatagramRun(b"".join(map(bytes, item.buffers)), item.size)
        if isinstance(item, SealedRun)
        else item
        for item in items
    ]


def measure(items: list[Outgoing], size: int, rounds: int) -> dict[str, Stopwatch]:
    """
    Time sealing and opening, bare and by the tunnel, in turns.

    @param items: the packets that are handed over at once.
    @param size: of each packet, in bytes.
    """
    now = 1000.0
    packets = sum(map(len, items)) // size
    plain = [ipPacket(size)] * packets
    seal, open_ = repeated(bareSeal(plain)), bareOpen(plain)
    sender, receiver, _, public = connected(now)
    watches = {name: Stopwatch() for name in ("bare seal", "seal", "bare open", "open")}
    count = packets * REPEAT

    def sealOnce() -> None:
        sender.send(public, items, now)

    for _ in range(rounds):
        batches = [arriving(sender.send(public, items, now)) for _ in range(REPEAT)]

        def openAll(batches: list[list[Received]] = batches) -> None:
            for messages in batches:
                receiver.receive(messages, b"here", now)

        watches["bare seal"].take(seal, count)
        watches["seal"].take(repeated(sealOnce), count)
        watches["bare open"].take(open_, count)
        watches["open"].take(openAll, count)
    expected = rounds * count + 1
    if receiver.counters.packetsReceived != expected:
        raise SystemExit("the tunnel lost packets: the figures mean nothing")
    return watches


def measureHandshakes(count: int) -> float:
    """Microseconds for one handshake, both sides together."""
    began = time.perf_counter()
    for _ in range(count):
        connected(1000.0)
    return (time.perf_counter() - began) / count * 1e6


def measurePeers(count: int) -> tuple[float, float]:
    """
    Microseconds to take in one idle peer, and to serve one keep-alive of a
    peer that does not answer.
    """
    table = TunnelTable(
        NodeKey.generate(os.urandom),
        timestamp=TimestampSource(time.time),
        randbytes=os.urandom,
    )
    keys = [os.urandom(32) for _ in range(count)]
    began = time.perf_counter()
    for key in keys:
        table.upsertPeer(key, now=0.0)
    added = (time.perf_counter() - began) / count * 1e6
    for key in keys[:1000]:
        table.upsertPeer(key, 25.0, now=0.0)
    began = time.perf_counter()
    while (table.deadline() or 0.0) <= 25.0:
        table.tick(25.0)
        if table.counters.handshakesStarted >= 1000:
            break
    served = (time.perf_counter() - began) / 1000 * 1e6
    return added, served


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = readOptions(parser)
    print(f"Python {sys.version.split()[0]}; µs a packet, best (median)")
    print(f"{'':<24} {'step':<5} {'AEAD':>13} {'tunnel':>13} ratio")
    cases: dict[str, tuple[list[Outgoing], int]] = {
        f"{batch} of {size} bytes": ([ipPacket(size)] * batch, size)
        for size in (60, 576, FULL)
        for batch in (1, BATCH)
    }
    for count in (BATCH, LONGEST):
        cases[f"run of {count}, {TIER.name}"] = ([segmentRun(count)], FULL)
    found: dict[str, dict[str, float]] = {}
    for name, (items, size) in cases.items():
        watches = measure(items, size, options.rounds)
        found[name] = {step: round(w.median, 3) for step, w in watches.items()}
        for step in ("seal", "open"):
            bare, whole = watches[f"bare {step}"], watches[step]
            print(
                f"{name:<24} {step:<5}"
                f" {bare.best:>5.2f} ({bare.median:>5.2f})"
                f" {whole.best:>5.2f} ({whole.median:>5.2f})"
                f" {whole.median / bare.median:>5.2f}"
            )
    handshake = measureHandshakes(200)
    print(f"handshake, both sides: {handshake:.0f} µs")
    added, served = measurePeers(10_000)
    print(f"10,000 peers: {added:.2f} µs to add one, {served:.0f} µs to call one")
    absolute = {
        "tunnel_microseconds_a_packet": found,
        "tunnel_microseconds": {
            "handshake, both sides": round(handshake),
            "add a peer": round(added, 2),
            "call a peer": round(served, 1),
        },
    }
    conclude("tunnel", {}, absolute, options)


if __name__ == "__main__":
    main()

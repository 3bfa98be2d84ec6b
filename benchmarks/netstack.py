"""
What one TCP flow costs from stack to stack, beside a bare copy and AEAD.

Two stacks in one process hand each other packets and runs of segments, as they do
in nodes; there is no tunnel and no socket, and time is made up.  Absolute figures differ from machine to
machine and from minute to minute; the ratios, taken in turns within one run,
are what to compare.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from benchmarks.results import conclude, readOptions, spread
from tsrt.addresses import parseAddress
from tsrt.dataplane.runs import arrivedOf, countOf
from tsrt.netstack.flow import TCPFlow
from tsrt.netstack.stack import Stack
from tsrt.wire.checksum import onesSum

ADDRESSES = {
    4: (parseAddress("100.64.0.1"), parseAddress("100.64.0.2")),
    6: (parseAddress("fd7a:115c:a1e0::1"), parseAddress("fd7a:115c:a1e0::2")),
}
CHUNK = 65536
"""Bytes that the application writes at a time."""

QUEUE = 4 * CHUNK
"""Bytes that it keeps queued."""

ROUND_TRIP = 0.002
"""Made-up seconds between a packet and its answer."""


class Link:
    """One flow between two stacks, and what each side of it took."""

    def __init__(self, family: int) -> None:
        """
        @param family: 4 or 6.
        """
        here, there = ADDRESSES[family]
        self.sending = Stack(randbytes=os.urandom)
        self.receiving = Stack(randbytes=os.urandom)
        self.sending.setAddresses([here])
        self.receiving.setAddresses([there])
        self.now = 1000.0
        self.sendTime = self.receiveTime = 0.0
        self.segments = 0
        self.got = 0
        listener = self.receiving.listenTCP(80, self.now)
        self.source = self.sending.connectTCP(there, 80, self.now)
        self.sink: TCPFlow | None = None
        while self.sink is None:
            self.turn(0)
            self.sink = listener.accept()

    def turn(self, queue: int) -> None:
        """
        Let packets go there and back once.

        @param queue: bytes that the application keeps queued.
        """
        clock = time.perf_counter
        start = clock()
        source = self.source
        while source.queued < queue:
            source.write(_TEXT)
        items = self.sending.drainRuns(self.now)
        sent = clock()
        self.segments += countOf(items)
        arrived = arrivedOf(items)
        self.now += ROUND_TRIP / 2
        receiving = self.receiving
        middle = clock()
        receiving.receive(arrived, self.now)
        receiving.takeReady()
        if self.sink is not None:
            self.got += len(self.sink.read())
        receiving.tick(self.now)
        answers = arrivedOf(receiving.drainRuns(self.now))
        received = clock()
        self.now += ROUND_TRIP / 2
        again = clock()
        self.sending.receive(answers, self.now)
        self.sending.takeReady()
        self.sending.tick(self.now)
        end = clock()
        self.sendTime += sent - start + end - again
        self.receiveTime += received - middle

    def run(self, size: int) -> None:
        """Send about C{size} bytes, and count anew."""
        self.segments = self.got = 0
        self.sendTime = self.receiveTime = 0.0
        while self.got < size:
            self.turn(QUEUE)


_TEXT = os.urandom(CHUNK)


def perCall(work: Callable[[], object], count: int) -> float:
    """Microseconds of one call."""
    start = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - start) / count * 1e6


def references() -> dict[str, Callable[[], object]]:
    """Bare operations on one packet."""
    packet = os.urandom(1280)
    piece = memoryview(_TEXT)
    cipher = ChaCha20Poly1305(bytes(32))
    nonce = bytes(12)
    return {
        "copy": lambda: bytes(piece[1240:2480]),
        "checksum": lambda: onesSum(packet),
        "AEAD seal": lambda: cipher.encrypt(nonce, packet, None),
    }


def main() -> int:
    """Print what some rounds took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=64_000_000, help="bytes a round")
    options = readOptions(parser)

    links = {family: Link(family) for family in ADDRESSES}
    bare = references()
    columns: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        columns.setdefault(name, []).append(value)

    for link in links.values():
        # Past slow start, and everything imported and warm.
        link.run(4_000_000)
    for _ in range(options.rounds):
        for name, work in bare.items():
            note(name, perCall(work, 2000))
        for family, link in links.items():
            link.run(options.size)
            note(f"IPv{family} sender", link.sendTime / link.segments * 1e6)
            note(f"IPv{family} receiver", link.receiveTime / link.segments * 1e6)
            seconds = link.sendTime + link.receiveTime
            note(f"IPv{family} Mbit/s", link.got * 8 / seconds / 1e6)

    # Other work on the machine only ever adds, so the least is what to compare.
    seal = min(columns["AEAD seal"])
    print(f"{'':16}{'least':>10}{'median':>10}{'most':>10}{'/ AEAD':>10}")
    for name, values in columns.items():
        least, most = min(values), max(values)
        ratio = "" if name.endswith("bit/s") else f"{least / seal:10.2f}"
        median = statistics.median(values)
        print(f"{name:16}{least:10.2f}{median:10.2f}{most:10.2f}{ratio}")
    print("times in microseconds a packet; both sides share one core")
    absolute = {
        "netstack_microseconds_a_packet": {
            name: spread(values, 3)
            for name, values in columns.items()
            if not name.endswith("bit/s")
        },
        "netstack_mbit": {
            name: spread(values)
            for name, values in columns.items()
            if name.endswith("bit/s")
        },
    }
    conclude("netstack", {}, absolute, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())

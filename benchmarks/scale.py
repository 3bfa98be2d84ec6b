"""
Whether a packet costs more where there is much: many peers, sessions, flows.

Each ratio is of the same work where there are many and where there is one, taken in
turns: the echo of a byte between two whole nodes that know thousands of peers; a packet
sealed and opened, and one answered, by a node with a thousand sessions; a lone segment
and its echo between two stacks with ten thousand established flows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

from benchmarks.netmap import wireNode
from benchmarks.results import conclude, readOptions
from benchmarks.tunnel import ipPacket
from benchmarks.walk import Pair
from tsrt.addresses import parseAddress
from tsrt.dataplane.runs import arrivedOf, messagesOf
from tsrt.keys import NodeKey
from tsrt.netstack.flow import TCPFlow
from tsrt.netstack.limits import StackLimits
from tsrt.netstack.stack import Stack
from tsrt.tailcfg import MapResponse, decodeMapResponse, encode
from tsrt.tunnel.table import TunnelTable

NOW = 1000.0
REPEAT = 200
HERE, THERE = parseAddress("100.64.0.1"), parseAddress("100.64.0.2")
FIRST_NUMBER = 1000
"""Of the peers that are only known."""

ATONCE = 50
"""Connections that are opened at a time."""

PAUSE = 0.02
"""Made-up seconds between two handshakes."""


class Echo(Protocol):
    """Something that can be echoed many times."""

    def echo(self, times: int) -> float:
        """Microseconds of each."""


def pairWith(peers: int) -> Pair:
    """Two nodes that know so many peers."""
    pair = Pair(isEcho=True)
    numbers = range(FIRST_NUMBER, FIRST_NUMBER + peers - 1)
    others = [wireNode(number) for number in numbers]
    for end in pair.ends:
        netmap: Any = end.engine.netmap
        known = [node.wire for node in netmap.peers]
        response = MapResponse(node=netmap.selfNode.wire, peers=[*known, *others])
        end.engine.dispatcher.apply(decodeMapResponse(encode(response)))
    return pair


class Sessions:
    """A node with sessions; one of its peers echoes what it sends."""

    def __init__(self, count: int) -> None:
        self._now = NOW
        self._table, self._key = self._node()
        self._others = [self._meet() for _ in range(count)]

    @staticmethod
    def _node() -> tuple[TunnelTable, bytes]:
        key = NodeKey.generate(os.urandom)
        stamps = iter(range(1, 1 << 30))
        table = TunnelTable(
            key,
            timestamp=lambda: next(stamps).to_bytes(12, "big"),
            randbytes=os.urandom,
        )
        return table, key.public().raw

    def _meet(self) -> tuple[TunnelTable, bytes]:
        """One more peer with a session."""
        # Slowly, or it is taken for a flood.
        now = self._now = self._now + PAUSE
        other, key = self._node()
        self._table.upsertPeer(key, now=now)
        other.upsertPeer(self._key, now=now)
        messages = messagesOf(self._table.send(key, [ipPacket(60)], now))
        for table in (other, self._table, other):
            received = table.receive(messages, key, now)
            messages = [m for _, found in received.replies for m in messagesOf(found)]
        return other, key

    def echo(self, times: int) -> float:
        """Microseconds to seal, open, and the same for the answer."""
        table, (other, key) = self._table, self._others[-1]
        now, packet = self._now, ipPacket(60)
        before = table.counters.packetsReceived
        began = time.perf_counter()
        for _ in range(times):
            other.receive(messagesOf(table.send(key, [packet], now)), b"a", now)
            table.receive(messagesOf(other.send(self._key, [packet], now)), b"b", now)
            table.deadline()
        seconds = time.perf_counter() - began
        if table.counters.packetsReceived != before + times:
            raise SystemExit("packets were lost: the figures mean nothing")
        return seconds / times * 1e6


class Flows:
    """Two stacks with established flows; one of them echoes what it gets."""

    def __init__(self, count: int) -> None:
        limits = StackLimits(flows=2 * count)
        self._stacks = [Stack(randbytes=os.urandom, limits=limits) for _ in range(2)]
        here, there = self._stacks
        here.setAddresses([HERE])
        there.setAddresses([THERE])
        listener = there.listenTCP(80, NOW, backlog=ATONCE)
        self._flows: list[tuple[TCPFlow, TCPFlow]] = []
        while len(self._flows) < count:
            most = min(ATONCE, count - len(self._flows))
            sources = [here.connectTCP(THERE, 80, NOW) for _ in range(most)]
            for _ in range(2):
                self._carry(here, there)
                self._carry(there, here)
            for source in sources:
                sink = listener.accept()
                assert sink is not None
                self._flows.append((source, sink))

    @staticmethod
    def _carry(source: Stack, sink: Stack) -> None:
        """A turn of each."""
        sink.receive(arrivedOf(source.drainRuns(NOW)), NOW)
        source.deadline()
        sink.takeReady()

    def echo(self, times: int) -> float:
        """Microseconds for a byte to go there and come back."""
        source, sink = self._flows[len(self._flows) // 2]
        here, there = self._stacks
        began = time.perf_counter()
        count = 0
        for _ in range(times):
            source.write(b"!")
            self._carry(here, there)
            sink.write(bytes(sink.read()))
            self._carry(there, here)
            count += len(source.read())
        seconds = time.perf_counter() - began
        if count != times:
            raise SystemExit("not every byte came back: the figures mean nothing")
        return seconds / times * 1e6


def compare(make: Callable[[int], Echo], many: int, rounds: int) -> list[float]:
    """The medians for one and for many, in turns."""
    both = [make(1), make(many)]
    costs: list[list[float]] = [[], []]
    for each in both:
        each.echo(REPEAT)
    for _ in range(rounds):
        for each, found in zip(both, costs, strict=True):
            found.append(each.echo(REPEAT))
    for each in both:
        if isinstance(each, Pair):
            each.close()
    return [statistics.median(found) for found in costs]


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--flows", type=int, default=10_000)
    options = readOptions(parser)
    print(f"{'microseconds for an echo':<28}{'one':>10}{'many':>10}{'ratio':>8}")
    ratios, absolute = {}, {}
    for name, make, many in (
        ("peers", pairWith, options.peers),
        ("sessions", Sessions, options.sessions),
        ("flows", Flows, options.flows),
    ):
        one, more = compare(make, many, options.rounds)
        label = f"{many} {name}"
        print(f"{label:<28}{one:>10.2f}{more:>10.2f}{more / one:>8.2f}")
        ratios[f"scale_{name}"] = more / one
        absolute[label] = {"one": round(one, 2), "many": round(more, 2)}
    conclude("scale", ratios, {"microseconds_for_an_echo": absolute}, options)


if __name__ == "__main__":
    main()

"""
Two or more tunnel tables on a simulated wire, with one clock and one seed.

The wire loses, doubles and delays datagrams, all as the seed decides; time
jumps from one thing that happens to the next.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from math import inf
from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tsrt.keys import NodeKey
from tsrt.tunnel.session import Session
from tsrt.tunnel.table import Received, TunnelTable
from tsrt.tunnel.timestamps import TimestampSource

_VECTORS = Path(__file__).parent / "vectors" / "vectors.json"
_EPOCH = 1_700_000_000.0


def vector(name: str) -> dict[str, str]:
    """One of the published vectors, by name."""
    vectors: dict[str, dict[str, str]] = json.loads(_VECTORS.read_text())["vectors"]
    return vectors[name]


def littleEndian(number: int) -> bytes:
    """An index as it stands on the wire."""
    return number.to_bytes(4, "little")


def ipPacket(number: int, size: int = 60) -> bytes:
    """An IPv4 packet (as far as the tunnel looks) that carries a number."""
    head = b"\x45\x00" + size.to_bytes(2, "big") + number.to_bytes(8, "big")
    return head.ljust(size, b"\x5a")


def ip6Packet(number: int, size: int = 60) -> bytes:
    """An IPv6 packet (as far as the tunnel looks) that carries a number."""
    head = b"\x60\x00\x00\x00" + (size - 40).to_bytes(2, "big")
    return (head + number.to_bytes(8, "big")).ljust(size, b"\x6b")


class Party:
    """One node on the wire: its table, and what came out of it."""

    def __init__(self, wire: Wire, name: str, **options: int) -> None:
        """
        @param options: passed on to L{TunnelTable}.
        """
        self.wire = wire
        self.name = name
        self.source = name.encode()
        self.random = Random(f"{wire.seed}/{name}")
        self.key = NodeKey.generate(self.random.randbytes)
        self.public = self.key.public().raw
        self.table = TunnelTable(
            self.key,
            timestamp=TimestampSource(lambda: _EPOCH + wire.now),
            randbytes=self.random.randbytes,
            **options,
        )
        self.got: list[bytes] = []
        """Inner packets received, in order."""
        self.sent: list[bytes] = []
        """Datagrams that this node put on the wire."""
        self.last = Received()
        """What the newest call of C{receive} returned."""

    def knows(self, other: Party, keepalive: float = 0.0) -> None:
        """Make another node a peer."""
        self.table.upsertPeer(other.public, keepalive, now=self.wire.now)

    def send(self, to: Party, *packets: bytes) -> None:
        """Send inner packets to another node."""
        messages = self.table.send(to.public, list(packets), self.wire.now)
        self.transmit(to.public, messages)

    def transmit(self, public: bytes, messages: list[bytes]) -> None:
        """Put messages on the wire."""
        self.sent += messages
        for message in messages:
            self.wire.carry(self, self.wire.byKey[public], message)

    def take(self, datagrams: list[bytes], origin: Party) -> Received:
        """Receive a batch of datagrams, and send whatever follows from it."""
        received = self.table.receive(datagrams, origin.source, self.wire.now)
        self.last = received
        for _, packets in received.packets:
            self.got += packets
        for public, messages in received.replies:
            self.transmit(public, messages)
        self.sent += received.toSource
        for message in received.toSource:
            self.wire.carry(self, origin, message)
        return received

    def tick(self) -> None:
        """Do what is due."""
        for public, messages in self.table.tick(self.wire.now):
            self.transmit(public, messages)

    def kinds(self) -> list[int]:
        """The types of the datagrams sent so far, and forget them."""
        kinds = [datagram[0] for datagram in self.sent]
        self.sent.clear()
        return kinds


class Wire:
    """What lies between the parties."""

    def __init__(self, seed: int = 1) -> None:
        """
        @param seed: decides about everything that is random.
        """
        self.seed = seed
        self.now = 1000.0
        self.random = Random(seed)
        self.loss = 0.0
        self.duplicates = 0.0
        self.delay = 0.01
        self.jitter = 0.0
        self.drop: Callable[[Party, Party, bytes], bool] = lambda *_: False
        """Decides about a datagram before chance does."""
        self.parties: list[Party] = []
        self.byKey: dict[bytes, Party] = {}
        self._flying: list[tuple[float, int, Party, Party, bytes]] = []
        self._count = 0

    def join(self, name: str, **options: int) -> Party:
        """A new node on this wire."""
        party = Party(self, name, **options)
        self.parties.append(party)
        self.byKey[party.public] = party
        return party

    def pair(self) -> tuple[Party, Party]:
        """Two nodes that know each other."""
        first, second = self.join("first"), self.join("second")
        first.knows(second)
        second.knows(first)
        return first, second

    def carry(self, origin: Party, to: Party, datagram: bytes) -> None:
        """Let a datagram fly, or not, or twice."""
        if self.drop(origin, to, datagram) or self.random.random() < self.loss:
            return
        copies = 2 if self.random.random() < self.duplicates else 1
        for _ in range(copies):
            at = self.now + self.delay + self.random.random() * self.jitter
            self._count += 1
            heapq.heappush(self._flying, (at, self._count, origin, to, datagram))

    def run(self, seconds: float) -> None:
        """Let time pass; at its end everything that was due has been done."""
        end = self.now + seconds
        steps = 0
        while True:
            flight = self._flying[0][0] if self._flying else inf
            ticks = [party.table.deadline() for party in self.parties]
            at = min([flight, *(tick for tick in ticks if tick is not None)])
            if at > end:
                break
            steps += 1
            if steps > 2_000_000:
                raise AssertionError("the simulation does not end")
            self.now = max(self.now, at)
            if flight <= self.now:
                self._land()
            for party in self.parties:
                party.tick()
        self.now = end

    def _land(self) -> None:
        """Deliver what arrives now, as one batch for each way."""
        batches: dict[tuple[str, str], tuple[Party, Party, list[bytes]]] = {}
        while self._flying and self._flying[0][0] <= self.now:
            _, _, origin, to, datagram = heapq.heappop(self._flying)
            way = batches.setdefault((origin.name, to.name), (origin, to, []))
            way[2].append(datagram)
        for origin, to, datagrams in batches.values():
            to.take(datagrams, origin)


def drops(party: Party) -> dict[str, int]:
    """What a node dropped, by reason."""
    snapshot = party.table.counters.snapshot()
    return {n: v for n, v in snapshot.items() if n.startswith("dropped") and v}


class PairTestCase(SynchronousTestCase):
    """
    Two nodes that know each other.
    """

    def setUp(self) -> None:
        """Make them, without any session."""
        self.wire = Wire()
        self.first, self.second = self.wire.pair()

    def connect(self, settle: float = 11.0) -> None:
        """
        Give them a session that C{first} started, and forget the traffic.

        @param settle: seconds to let pass; the keep-alive that answers the
            first packet comes after ten.
        """
        self.first.send(self.second, ipPacket(0))
        self.wire.run(settle)
        self.assertEqual(self.second.got, [ipPacket(0)])
        self.forget()

    def forget(self) -> None:
        """Forget what was sent and received so far."""
        for party in (self.first, self.second):
            party.sent.clear()
            party.got.clear()

    def session(self, party: Party, other: Party) -> Session:
        """The session on which a node sends to another."""
        session = party.table._peers[other.public]._sessions.current
        assert session is not None
        return session

"""
Path machines of several nodes on a simulated wire, with one clock.

Each node has one socket behind a wall that may translate and may filter; the
relay always works.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import AddrPort
from tsrt.keys import DiscoKey, NodeKey
from tsrt.path.book import PathBook
from tsrt.path.peers import PathPeer
from tsrt.path.places import Direct, Place, Relayed, Via
from tsrt.path.status import PathStatus


def at(text: str) -> AddrPort:
    """An address and a port."""
    return AddrPort.parse(text)


class PathNode:
    """One node: its keys, its machine, and what came out of it."""

    def __init__(self, world: PathWorld, name: str, address: str, **options: bool):
        self.world = world
        self.name = name
        self.address = at(address)
        self.random = Random(name)
        self.disco = DiscoKey.generate(self.random.randbytes)
        self.key = NodeKey.generate(self.random.randbytes).public().raw
        self.book = PathBook(
            self.disco, randbytes=self.random.randbytes, now=world.now, **options
        )
        self.book.setOwnKey(self.key)
        self.sent: list[tuple[Place, bytes]] = []
        # Addresses that our firewall lets in; None: all.
        self.opened: set[AddrPort] | None = None

    def peer(self, *endpoints: str, home: int = 1, **options: bool) -> PathPeer:
        """What the netmap says of this node."""
        return PathPeer(
            key=self.key,
            disco=self.disco.public().raw,
            endpoints=tuple(map(at, endpoints)),
            home=home,
            **options,
        )

    def knows(self, *peers: PathPeer) -> None:
        """Make others peers; the rest is forgotten."""
        self.book.setPeers(peers, self.world.now)

    def told(self, *endpoints: str, hasReflexive: bool = True) -> None:
        """Say where this node may be reached."""
        self.book.setEndpoints(
            [at(text) for text in endpoints],
            self.world.now,
            hasReflexive=hasReflexive,
        )

    def route(self, other: PathNode) -> tuple[Direct | None, bool]:
        """Send something to another node."""
        result = self.book.route(other.key, self.world.now)
        self.flush()
        return result

    def status(self, other: PathNode) -> PathStatus:
        """How the path to another node stands."""
        status = self.book.status(other.key, self.world.now)
        assert status is not None
        return status

    def isDirect(self, other: PathNode) -> bool:
        """Whether packets go directly, and nowhere else."""
        status = self.status(other)
        return status.place is not None and status.isTrusted

    def flush(self) -> None:
        """Put what the machine has to send on the wire."""
        for place, datagram in self.book.take():
            self.sent.append((place, datagram))
            self.world.carry(self, place, datagram)

    def deadline(self) -> float | None:
        """When to call L{tick}."""
        return self.book.deadline()

    def tick(self) -> None:
        """Do what is due."""
        self.book.tick(self.world.now)

    def take(self, place: Place, datagram: bytes) -> None:
        """Receive a datagram."""
        self.book.receivedDisco(place, datagram, self.world.now)
        self.flush()

    def places(self) -> list[Place]:
        """Where datagrams were sent so far; forgets it."""
        places = [place for place, _ in self.sent]
        self.sent.clear()
        return places


class PathWorld:
    """The wire between the nodes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.delay = 0.01
        self.cut = False
        self.nodes: list[PathNode] = []
        self.tap: Callable[[PathNode, Place, bytes], None] = lambda *_: None
        self._flying: list[tuple[float, int, PathNode, Place, bytes, bool]] = []
        self._count = 0

    def join(self, name: str, address: str, **options: bool) -> PathNode:
        """A new node."""
        node = PathNode(self, name, address, **options)
        self.nodes.append(node)
        return node

    def carry(self, origin: PathNode, place: Place, datagram: bytes) -> None:
        """Let a datagram fly."""
        self.tap(origin, place, datagram)
        if isinstance(place, Relayed):
            target = next((n for n in self.nodes if n.key == place.peer), None)
            source: Place = Relayed(place.region, origin.key)
        else:
            if origin.opened is not None:
                origin.opened.add(place)
            target = next((n for n in self.nodes if n.address == place), None)
            source = origin.address
            if self.cut:
                return
        if target is not None:
            self.later(self.delay, target, source, datagram)

    def later(
        self,
        delay: float,
        target: PathNode,
        source: Place,
        datagram: bytes,
        control: bool = False,
    ) -> None:
        """Let a datagram arrive after some time."""
        self._count += 1
        item = (self.now + delay, self._count, target, source, datagram, control)
        heapq.heappush(self._flying, item)

    def deliver(
        self, target: PathNode, source: Place, datagram: bytes, control: bool
    ) -> None:
        """A datagram arrives."""
        isOpen = target.opened is None or source in target.opened
        if isinstance(source, Relayed | Via) or isOpen:
            target.take(source, datagram)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            flight = self._flying[0][0] if self._flying else inf
            times = [node.deadline() for node in self.nodes]
            when = min([flight, *(time for time in times if time is not None)])
            if when > end:
                break
            self.now = max(self.now, when)
            while self._flying and self._flying[0][0] <= self.now:
                _, _, *arrival = heapq.heappop(self._flying)
                self.deliver(*arrival)
            for node in self.nodes:
                node.tick()
                node.flush()
        self.now = end


class PathTestCase(SynchronousTestCase):
    """Two nodes with public addresses that know each other."""

    def setUp(self) -> None:
        """Make them; no path is known yet."""
        self.world = PathWorld()
        self.a = self.world.join("a", "198.51.100.1:1")
        self.b = self.world.join("b", "203.0.113.1:1")
        self.a.knows(self.b.peer("203.0.113.1:1"))
        self.b.knows(self.a.peer("198.51.100.1:1"))
        self.a.told("198.51.100.1:1")
        self.b.told("203.0.113.1:1")

    def connect(self) -> None:
        """Let them find each other, and forget the traffic."""
        self.a.route(self.b)
        self.b.route(self.a)
        self.world.run(1)
        self.assertTrue(self.a.isDirect(self.b))
        self.assertTrue(self.b.isDirect(self.a))
        self.a.sent.clear()
        self.b.sent.clear()

    def talk(self, seconds: float) -> None:
        """Let both send all the time."""
        for _ in range(round(seconds * 2)):
            self.a.route(self.b)
            self.b.route(self.a)
            self.world.run(0.5)

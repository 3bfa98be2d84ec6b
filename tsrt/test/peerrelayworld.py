"""Path machines that use peer relays, on the simulated wire of L{PathWorld}."""

from __future__ import annotations

from random import Random

from tsrt.addresses import AddrPort
from tsrt.crypto.box import Box, sealTo
from tsrt.path.peerrelays import PeerRelays
from tsrt.path.peers import PathPeer
from tsrt.path.places import Direct, Place, Relayed, Via
from tsrt.test.pathworld import PathNode, PathTestCase, PathWorld, at
from tsrt.testing.peerrelay import PeerRelay, PeerRelayMachine
from tsrt.wire import disco, geneve

SERVER = "192.0.2.200:7777"


class UserNode(PathNode):
    """A node that uses peer relays."""

    relays: PeerRelays
    world: RelayWorld

    def __init__(self, world: RelayWorld, name: str, address: str, **options: bool):
        super().__init__(world, name, address, **options)
        self.relays = PeerRelays(self.book, self.disco, randbytes=self.random.randbytes)
        self.controls: list[tuple[Via, bytes]] = []

    def peer(self, *endpoints: str, home: int = 1, **options: bool) -> PathPeer:
        """What the netmap says of this node."""
        return super().peer(*endpoints, home=home, **{"canRelay": True, **options})

    def deadline(self) -> float | None:
        """When to call L{tick}."""
        times = [self.book.deadline(), self.relays.deadline()]
        return min((time for time in times if time is not None), default=None)

    def tick(self) -> None:
        """Do what is due."""
        super().tick()
        self.relays.tick(self.world.now)

    def flush(self) -> None:
        """Put what the machines have to send on the wire."""
        for via, datagram in self.relays.take():
            self.controls.append((via, datagram))
            self.world.carry(self, via, datagram, control=True)
        super().flush()

    def uses(self, *servers: PathNode) -> None:
        """Let nodes relay for this one."""
        self.relays.setServers([s.key for s in servers], self.world.now)


class RelayNode(PathNode):
    """A node that relays for others, at an address of its own."""

    def __init__(self, world: PathWorld, name: str, address: str, server: str):
        super().__init__(world, name, address)
        self.random = Random(name)
        self.server = at(server)
        self.machine = PeerRelayMachine(
            (self.server,), now=lambda: world.now, randbytes=self.random.randbytes
        )
        self.book.relays = PeerRelay(self.book, self.machine)

    def peer(self, *endpoints: str, home: int = 1, **options: bool) -> PathPeer:
        """What the netmap says of this node."""
        return super().peer(*endpoints, home=home, **{"canRelay": True, **options})


class RelayWorld(PathWorld):
    """A wire with peer relays; what is C{cut} is only what has none."""

    isDead = False

    def carry(
        self, origin: PathNode, place: Place, datagram: bytes, control: bool = False
    ) -> None:
        """Let a datagram fly."""
        if not isinstance(place, Via):
            super().carry(origin, place, datagram)
            return
        self.tap(origin, place, datagram)
        if self.isDead:
            return
        header = geneve.GeneveHeader(geneve.PROTOCOL_DISCO, place.vni, control)
        for node in self.nodes:
            if isinstance(node, RelayNode) and node.server == place.address:
                self._relay(node, origin.address, header.encode() + datagram)

    def _relay(self, node: RelayNode, source: AddrPort, datagram: bytes) -> None:
        for to, data in node.machine.received(source, datagram):
            header = geneve.parseGeneve(data)
            via = Via(node.server, header.vni)
            inner = data[geneve.HEADER_LENGTH :]
            target = next((n for n in self.nodes if n.address == to), None)
            if isinstance(target, UserNode):
                # Through a third node, so it takes twice the time.
                self.later(2 * self.delay, target, via, inner, header.control)

    def deliver(
        self, target: PathNode, source: Place, datagram: bytes, control: bool
    ) -> None:
        """A datagram arrives."""
        if control:
            assert isinstance(source, Via) and isinstance(target, UserNode)
            target.relays.receivedControl(source, datagram, self.now)
            target.flush()
        else:
            super().deliver(target, source, datagram, control)


class RelayTestCase(PathTestCase):
    """Two nodes that never reach each other directly, and a relay that both do."""

    world: RelayWorld
    a: UserNode
    b: UserNode

    def setUp(self) -> None:
        """Make them; C{a} alone may ask the relay."""
        self.world = RelayWorld()
        self.world.cut = True
        self.a = UserNode(self.world, "a", "198.51.100.1:1")
        self.b = UserNode(self.world, "b", "203.0.113.1:1")
        self.r = RelayNode(self.world, "r", "192.0.2.200:1", SERVER)
        self.world.nodes += [self.a, self.b, self.r]
        self.a.knows(self.b.peer("203.0.113.1:1"), self.r.peer("192.0.2.200:1"))
        self.b.knows(self.a.peer("198.51.100.1:1"))
        self.r.knows(self.a.peer(), self.b.peer())
        self.a.told("198.51.100.1:1")
        self.b.told("203.0.113.1:1")
        self.a.uses(self.r)

    def place(self, node: PathNode, other: PathNode) -> Direct | None:
        """Where packets go, if that is trusted."""
        status = node.status(other)
        return status.place if status.isTrusted else None

    def viaOf(self, node: PathNode, other: PathNode) -> Via:
        """The place at a relay that packets go by."""
        place = self.place(node, other)
        assert isinstance(place, Via), node.status(other)
        return place

    def sealed(self, origin: PathNode, to: PathNode, message: disco.Message) -> bytes:
        """A datagram that a node might have sent."""
        box = Box(origin.disco.raw, to.disco.public().raw)
        return disco.encodeEnvelope(
            origin.disco.public().raw,
            sealTo(box, message.encode(), self.world.nodes[0].random.randbytes),
        )

    def byDERP(self, origin: PathNode, to: PathNode, message: disco.Message) -> None:
        """Let a node receive a message by DERP."""
        to.take(Relayed(1, origin.key), self.sealed(origin, to, message))

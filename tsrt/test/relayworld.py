"""
A small simulated world with relays, for the tests of the relay client.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tsrt.derp.pool import RelayEvents, RelayPool
from tsrt.keys import NodeKey
from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
from tsrt.testing.certificates import TestCertificate, selfSigned
from tsrt.testing.clock import elapse, pump, resultOf
from tsrt.testing.derp import DERPServer
from tsrt.testing.hosts import HostReactor
from tsrt.testing.internet import MemoryInternet
from tsrt.underlay.dial import StreamDialer

HOME = 900
OTHER = 901


class World:
    """A clock, an internet, and what is in it."""

    def __init__(self, seed: int = 3) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.internet = MemoryInternet(self.clock, seed)
        self.randbytes = self.internet.randbytes
        self._number = 0

    def relay(
        self,
        name: str = "relay",
        certificate: TestCertificate | None = None,
        tls: bool = False,
        **settings: object,
    ) -> tuple[HostReactor, DERPServer]:
        """A host with a running relay on port 443, called C{name.example.com}."""
        self._number += 1
        host = self.internet.host(name, [f"192.0.2.{self._number}"])
        hostName = f"{name}.example.com"
        self.internet.register(hostName, *host.addresses)
        if tls and certificate is None:
            certificate = selfSigned([hostName])
        server = DERPServer(
            host,
            TCP4ServerEndpoint(host, 443),
            certificate=certificate,
            randbytes=self.randbytes,
            **settings,
        )
        server.startService()
        return host, server

    def elapse(self, seconds: float) -> None:
        """Let time pass."""
        elapse(self.clock, seconds)

    def until(self, condition: Callable[[], bool], limit: float = 60.0) -> None:
        """Let time pass until something is so."""
        pump(self.clock, condition, limit=limit)

    def result(self, deferred: Deferred, limit: float = 60.0):
        """Let time pass until C{deferred} fires; what it fires with."""
        return resultOf(self.clock, deferred, limit=limit)


def region(number: int, *nodes: DERPNode) -> DERPRegion:
    """A region of these servers."""
    return DERPRegion(regionID=number, regionCode=f"r{number}", nodes=list(nodes))


def node(name: str = "relay", number: int = HOME, **settings: object) -> DERPNode:
    """How a map describes a server made by L{World.relay}."""
    return DERPNode(
        name=f"{number}{name}",
        regionID=number,
        hostName=f"{name}.example.com",
        derpPort=443,
        **settings,
    )


def derpMap(*regions: DERPRegion) -> DERPMap:
    """A map of these regions."""
    return DERPMap(regions={each.regionID: each for each in regions})


class Relayed:
    """A client of relays on a host of its own, and what it is told."""

    def __init__(self, world: World, name: str, plain: bool = True, **dialer) -> None:
        self.world = world
        self.host = world.internet.host(name)
        self.key = NodeKey.generate(world.randbytes)
        self.public = self.key.public().raw
        self.packets: list[tuple[int, bytes, list[bytes]]] = []
        self.gone: list[tuple[int, bytes, int]] = []
        self.health: list[tuple[int, str]] = []
        self.connections: list[int] = []
        self.disconnections: list[int] = []
        self.failures: list[tuple[int, Exception]] = []
        events = RelayEvents(
            onPackets=lambda *event: self.packets.append(event),
            onPeerGone=lambda *event: self.gone.append(event),
            onHealth=lambda *event: self.health.append(event),
            onConnected=self.connections.append,
            onDisconnected=lambda region, reason: self.disconnections.append(region),
            onFailed=lambda *event: self.failures.append(event),
        )
        self.pool = RelayPool(
            self.host,
            StreamDialer(self.host, **dialer),
            self.key,
            events,
            randbytes=world.randbytes,
            plain=plain,
        )

    @property
    def data(self) -> list[bytes]:
        """All packets that came."""
        return [packet for _, _, packets in self.packets for packet in packets]


class RelayTestCase(SynchronousTestCase):
    """One relay without TLS, in region L{HOME}."""

    def setUp(self) -> None:
        self.world = World()
        self.relayHost, self.relay = self.world.relay()
        self.map = derpMap(region(HOME, node()))

    def client(self, name: str, home: int | None = HOME, **settings) -> Relayed:
        """A running client that knows the map."""
        client = Relayed(self.world, name, **settings)
        client.pool.setMap(self.map)
        client.pool.setHome(home)
        client.pool.startService()
        return client

    def connected(self, name: str, home: int = HOME, **settings) -> Relayed:
        """A client whose home has let it in."""
        client = self.client(name, home, **settings)
        self.world.until(lambda: client.pool.isConnected(home))
        return client

    def assertNothingLeft(self, *hosts: HostReactor) -> None:
        """Nothing is scheduled or open any more on C{hosts}."""
        # An aborted connection is gone in the next turn.
        self.world.elapse(0)
        for host in hosts:
            self.assertEqual(list(host.getDelayedCalls()), [], host)
            self.assertEqual(host.streams, [], host)
            self.assertEqual(host.ports, [], host)

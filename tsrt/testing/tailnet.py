"""
A whole tailnet in one process, under one L{task.Clock}, without a socket.

A control server, relays and nodes run on a simulated internet::

    class GreetingTests(SynchronousTestCase):
        def test_greeting(self):
            tailnet = TestTailnet(nodes=["a", "b"])
            self.addCleanup(tailnet.close)
            self.successResultOf(tailnet["b"].serverEndpoint(7).listen(factory))
            connecting = tailnet["a"].clientEndpoint("b", 7).connect(other)
            protocol = tailnet.wait(connecting)

Nothing happens but while time passes: L{wait}, L{settle} and L{elapse} make it
pass, from event to event.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock

from tsrt.config import NodeConfig, Seams
from tsrt.interfaces import ILoginPrompt, IStateStore
from tsrt.node import Node
from tsrt.runtime.status import NodeStatus
from tsrt.state import MemoryStateStore
from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
from tsrt.testing.certificates import TestCertificate, selfSigned
from tsrt.testing.clock import elapse, resultOf
from tsrt.testing.control import ControlConfig, ControlServer
from tsrt.testing.derp import DERPServer
from tsrt.testing.hosts import HostReactor
from tsrt.testing.internet import MemoryInternet
from tsrt.testing.links import Link
from tsrt.testing.stun import STUNServer
from tsrt.underlay.interfaces import addressesFromText

T = TypeVar("T")

FIRST_REGION = 900
"""The number of the first relay region; the next ones follow."""

# A time at which clocks count as set.
START = 1_790_000_000.0


class PersistentMemoryStore(MemoryStateStore):
    """Memory that stands for a disk: a node may be stopped and started on it."""

    isPersistent = True


class TestTailnet:
    """
    The servers and the nodes.

    @ivar clock: the time of everything.
    @ivar internet: the simulated internet: cut paths, add delay and loss here.
    @ivar control: the control server: users, keys, policy.
    @ivar relays: the relay servers by region.
    @ivar nodes: the nodes by the names that they were made with.
    """

    __test__ = False  # not a test case, whatever its name says

    def __init__(
        self,
        nodes: Iterable[str] = (),
        *,
        links: Link | None = None,
        regions: int = 1,
        seed: int = 0,
        config: ControlConfig | None = None,
        up: bool = True,
        direct: bool = True,
    ) -> None:
        """
        Start everything; the nodes are up when this returns.

        @param nodes: names of the first nodes.
        @param links: what the paths between all hosts are like.
        @param regions: how many relay regions there are.
        @param seed: where all chance comes from.
        @param config: the control server's configuration; its relays are
            replaced by those of this tailnet.
        @param up: whether to wait for the nodes to come up.
        @param direct: whether the nodes look for direct paths; if not, all they
            send goes by relay.
        """
        self._relayOnly = not direct
        self.clock = Clock()
        self.clock.rightNow = START
        self.internet = MemoryInternet(self.clock, seed, link=links)
        self.relays: dict[int, DERPServer] = {}
        self.stuns: dict[int, STUNServer] = {}
        self.nodes: dict[str, Node] = {}
        self.hosts: dict[str, HostReactor] = {}
        self.states: dict[str, IStateStore] = {}
        described: dict[int, DERPRegion | None] = {}
        for number in range(FIRST_REGION, FIRST_REGION + regions):
            described[number] = self._startRelay(number)
        host = self.internet.host("control", ["192.168.255.1"])
        self.control = ControlServer(
            host,
            TCP4ServerEndpoint(host, 80, interface="192.168.255.1"),
            config or ControlConfig(),
            randbytes=self.internet.randbytes,
            wallTime=self.clock.seconds,
        )
        self.control.setDERPMap(DERPMap(regions=described, omitDefaultRegions=True))
        self.control.startService()
        self.authKey = self.control.createAuthKey(reusable=True)
        for name in nodes:
            self.addNode(name)
        if up:
            self.waitUp(*self.nodes)

    _certificates: dict[str, TestCertificate] = {}

    def _startRelay(self, number: int) -> DERPRegion:
        """Start a relay and a STUN server on a host of their own."""
        name = f"derp{number}.test"
        host = self.internet.host(name, [f"192.168.254.{number - FIRST_REGION + 1}"])
        address = f"192.168.254.{number - FIRST_REGION + 1}"
        self.internet.register(name, address)
        certificate = self._certificates.get(name)
        if certificate is None:
            certificate = self._certificates[name] = selfSigned([name, address])
        self.relays[number] = relay = DERPServer(
            host,
            TCP4ServerEndpoint(host, 443, interface=address),
            certificate=certificate,
            randbytes=self.internet.randbytes,
        )
        relay.startService()
        self.stuns[number] = stun = STUNServer(host, 3478, address)
        stun.startService()
        return DERPRegion(
            regionID=number,
            regionCode=f"r{number}",
            regionName=f"Region {number}",
            nodes=[
                DERPNode(
                    name=f"{number}a",
                    regionID=number,
                    hostName=name,
                    ipv4=address,
                    ipv6="none",
                    stunPort=3478,
                    derpPort=443,
                    insecureForTests=True,
                )
            ],
        )

    # -- nodes ---------------------------------------------------------------------

    def __getitem__(self, name: str) -> Node:
        """The node that was made with a name."""
        return self.nodes[name]

    def addNode(
        self,
        name: str,
        *,
        state: IStateStore | None = None,
        login: ILoginPrompt | None = None,
        start: bool = True,
        **settings: Any,
    ) -> Node:
        """
        Make a node on a host of its own.

        @param state: where it keeps its keys; memory that survives its stops
            by default.
        @param login: shows its login page.
        @param start: whether to start it.
        @param settings: of L{NodeConfig}; by default the tailnet's auth key
            lets it in.
        """
        host = self.hosts.get(name) or self.internet.host(name)
        self.hosts[name] = host
        settings.setdefault("authKey", self.authKey.secret)
        settings.setdefault("hostname", name)
        settings.setdefault("relayOnly", self._relayOnly)
        settings.setdefault("controlURL", "http://192.168.255.1")
        store = state or self.states.get(name) or PersistentMemoryStore()
        self.states[name] = store
        node = Node(
            host,
            NodeConfig(**settings),
            state=store,
            login=login,
            seams=Seams(
                randbytes=self.internet.randbytes,
                wallclock=self.clock.seconds,
                interfaces=lambda reactor: addressesFromText(host.addresses),
            ),
            name=name,
        )
        self.nodes[name] = node
        if start:
            node.startService()
        return node

    def waitUp(self, *names: str) -> list[NodeStatus]:
        """Wait for nodes to come up; for all of them without names."""
        return [self.wait(self[name].up()) for name in names or self.nodes]

    # -- time -----------------------------------------------------------------------

    def wait(self, deferred: Deferred[T], limit: float = 60.0) -> T:
        """
        Let time pass until C{deferred} fires; return or raise its result.

        @param limit: the most simulated seconds.
        """
        return resultOf(self.clock, deferred, limit=limit)

    def elapse(self, seconds: float) -> None:
        """Let time pass, from event to event."""
        elapse(self.clock, seconds)

    def settle(self, seconds: float = 1.0) -> None:
        """Let everything that is under way arrive."""
        elapse(self.clock, seconds)

    def close(self) -> None:
        """
        Stop all nodes and servers.

        @raise AssertionError: something is still scheduled afterwards.
        """
        for node in self.nodes.values():
            self.wait(node.stopService())
        self.wait(self.control.stopService())
        for relay in self.relays.values():
            self.wait(relay.stopService())
        for stun in self.stuns.values():
            self.wait(stun.stopService())
        elapse(self.clock, self.internet.giveUp)
        left = self.clock.getDelayedCalls()
        if left:
            raise AssertionError(f"still scheduled: {left}")

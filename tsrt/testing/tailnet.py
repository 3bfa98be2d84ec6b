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

Nodes have public addresses, or are behind a NAT of a kind that a word names::

    tailnet = TestTailnet(nodes={"a": "easy", "b": "symmetric", "c": "none"})

The words are those of L{tsrt.testing.nat.NAT_KINDS}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint

from tsrt.addresses import parseAddress
from tsrt.config import NodeConfig, Seams
from tsrt.interfaces import ILoginPrompt, IStateStore
from tsrt.node import Node
from tsrt.path.mappings import Gateway
from tsrt.runtime.status import NodeStatus
from tsrt.state import MemoryStateStore
from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
from tsrt.testing.bothfamilies import BothFamilies
from tsrt.testing.certificates import TestCertificate, selfSigned
from tsrt.testing.clock import elapse, resultOf
from tsrt.testing.control import ControlConfig, ControlServer
from tsrt.testing.derp import DERPServer
from tsrt.testing.hosts import HostReactor
from tsrt.testing.internet import MemoryInternet
from tsrt.testing.links import Link
from tsrt.testing.nat import NAT_KINDS, NATKind
from tsrt.testing.natkinds import NONE
from tsrt.testing.networks import Network
from tsrt.testing.simclock import SimulationClock
from tsrt.testing.stun import STUNServer
from tsrt.underlay.interfaces import addressesFromText

T = TypeVar("T")

FIRST_REGION = 900
"""The number of the first relay region; the next ones follow."""

# Where the servers are, by the addresses of both families.
_CONTROL = "192.168.255.1", "2001:db8:ffff::1"
_RELAYS = "192.168.254.", "2001:db8:fffe::"
_HOSTS6 = "2001:db8:fffd::"

# A time at which clocks count as set.
START = 1_790_000_000.0


Place = str | NATKind | Network
"""Where a node is: behind a NAT of a kind, or in a network that exists."""


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
    @ivar stuns: the STUN servers by region; those of IPv6 are C{stuns6}.
    @ivar nodes: the nodes by the names that they were made with.
    """

    __test__ = False  # not a test case, whatever its name says

    def __init__(
        self,
        nodes: Iterable[str] | Mapping[str, Place] = (),
        *,
        links: Link | None = None,
        regions: int = 1,
        seed: int = 0,
        config: ControlConfig | None = None,
        up: bool = True,
        direct: bool = True,
        ipv6: bool = False,
    ) -> None:
        """
        Start everything; the nodes are up when this returns.

        @param nodes: names of the first nodes; or a mapping that says of each
            what network it is in, see L{addNode}.
        @param links: what the paths between all hosts are like.
        @param regions: how many relay regions there are.
        @param seed: where all chance comes from.
        @param config: the control server's configuration; its relays are
            replaced by those of this tailnet.
        @param up: whether to wait for the nodes to come up.
        @param direct: whether the nodes look for direct paths; if not, all they
            send goes by relay.
        @param ipv6: whether servers and nodes have addresses of IPv6 as well.
        """
        self._relayOnly = not direct
        self._ipv6 = ipv6
        self._routed = 0
        self.clock = SimulationClock()
        self.clock.rightNow = START
        self.internet = MemoryInternet(self.clock, seed, link=links)
        self.relays: dict[int, DERPServer] = {}
        self.stuns: dict[int, STUNServer] = {}
        self.stuns6: dict[int, STUNServer] = {}
        self.nodes: dict[str, Node] = {}
        self.hosts: dict[str, HostReactor] = {}
        self.states: dict[str, IStateStore] = {}
        described: dict[int, DERPRegion | None] = {}
        for number in range(FIRST_REGION, FIRST_REGION + regions):
            described[number] = self._startRelay(number)
        addresses = _CONTROL[: 1 + ipv6]
        host = self.internet.host("control", addresses)
        self.internet.register("control.test", *addresses)
        self.control = ControlServer(
            host,
            self._listening(host, 80),
            config or ControlConfig(),
            randbytes=self.internet.randbytes,
            wallTime=self.clock.seconds,
        )
        self.control.setDERPMap(DERPMap(regions=described, omitDefaultRegions=True))
        self.control.startService()
        self.authKey = self.control.createAuthKey(reusable=True)
        places = nodes if isinstance(nodes, Mapping) else dict.fromkeys(nodes)
        for name, place in places.items():
            self.addNode(name, network=place)
        if up:
            self.waitUp(*self.nodes)

    _certificates: dict[str, TestCertificate] = {}

    def _startRelay(self, number: int) -> DERPRegion:
        """Start a relay and a STUN server on a host of their own."""
        name = f"derp{number}.test"
        last = number - FIRST_REGION + 1
        addresses = [f"{prefix}{last:x}" for prefix in _RELAYS[: 1 + self._ipv6]]
        addresses[0] = address = f"{_RELAYS[0]}{last}"
        host = self.internet.host(name, addresses)
        self.internet.register(name, *addresses)
        certificate = self._certificates.get(name)
        if certificate is None:
            certificate = self._certificates[name] = selfSigned([name, address])
        self.relays[number] = relay = DERPServer(
            host,
            self._listening(host, 443),
            certificate=certificate,
            randbytes=self.internet.randbytes,
        )
        relay.startService()
        self.stuns[number] = STUNServer(host, 3478, address)
        self.stuns[number].startService()
        if self._ipv6:
            self.stuns6[number] = STUNServer(host, 3478, addresses[1])
            self.stuns6[number].startService()
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
                    ipv6=addresses[1] if self._ipv6 else "none",
                    stunPort=3478,
                    derpPort=443,
                    insecureForTests=True,
                )
            ],
        )

    @staticmethod
    def _listening(host: HostReactor, port: int) -> IStreamServerEndpoint:
        """A port on each address of a server's host."""
        return BothFamilies(
            *(
                (TCP6ServerEndpoint if ":" in address else TCP4ServerEndpoint)(
                    host, port, interface=address
                )
                for address in host.addresses
            )
        )

    # -- networks --------------------------------------------------------------------

    def network(self, name: str, kind: str | NATKind, **settings: Any) -> Network:
        """
        Make a network behind a router.

        @param kind: what the router does, by a word of L{NAT_KINDS} or as a value.
        @param settings: of L{MemoryInternet.network}.  Networks behind NATs all
            have the prefix C{192.168.1.0/24} unless they are given another.
        @raise ValueError: when there is no such kind.
        """
        if isinstance(kind, str):
            if kind not in NAT_KINDS:
                words = ", ".join(NAT_KINDS)
                raise ValueError(f"no NAT is called {kind!r}; there are {words}")
            kind = NAT_KINDS[kind]
        if not kind.translates and "prefix" not in settings:
            # Addresses that are not translated have to differ.
            self._routed += 1
            settings["prefix"] = f"198.51.{self._routed}.0/24"
        settings.setdefault("ipv6", self._ipv6)
        return self.internet.network(name, nat=kind, **settings)

    def _host(self, name: str, place: Place | None) -> HostReactor:
        """The host of a node, made or moved as C{place} says."""
        host = self.hosts.get(name)
        if isinstance(place, str) and place == NONE.name:
            place = None
        elif isinstance(place, str | NATKind):
            place = self.network(name, place)
        if host is None:
            addresses = None
            if place is None:
                addresses = [self.internet.publicAddress()]
                if self._ipv6:
                    addresses.append(f"{_HOSTS6}{len(self.hosts) + 1:x}")
            host = self.internet.host(name, addresses, network=place)
            self.hosts[name] = host
        elif place is not None and place is not host.network:
            self.internet.moveHost(host, place)
        return host

    # -- nodes ---------------------------------------------------------------------

    def __getitem__(self, name: str) -> Node:
        """The node that was made with a name."""
        return self.nodes[name]

    def addNode(
        self,
        name: str,
        *,
        network: Place | None = None,
        state: IStateStore | None = None,
        login: ILoginPrompt | None = None,
        start: bool = True,
        **settings: Any,
    ) -> Node:
        """
        Make a node on a host of its own.

        @param network: where the host is: the name of a kind of NAT, behind
            which it is then alone, or a L{Network}.  By default it has a public
            address.
        @param state: where it keeps its keys; memory that survives its stops
            by default.
        @param login: shows its login page.
        @param start: whether to start it.
        @param settings: of L{NodeConfig}; by default the tailnet's auth key
            lets it in.
        """
        host = self._host(name, network)
        settings.setdefault("authKey", self.authKey.secret)
        settings.setdefault("hostname", name)
        settings.setdefault("relayOnly", self._relayOnly)
        if self._ipv6:
            # By its name, so that either family leads to it.
            settings.setdefault("controlURL", "http://control.test")
            settings.setdefault("allowHTTP", True)
        settings.setdefault("controlURL", f"http://{_CONTROL[0]}")
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
                gateway=lambda reactor: succeed(_gatewayOf(host)),
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
        for stun in (*self.stuns.values(), *self.stuns6.values()):
            self.wait(stun.stopService())
        # Streams whose other end vanished give up after that, and say so.
        elapse(self.clock, self.internet.giveUp + 5)
        left = self.clock.getDelayedCalls()
        if left:
            raise AssertionError(f"still scheduled: {left}")


def _gatewayOf(host: HostReactor) -> Gateway | None:
    """The router of the network where a host is, as the host knows it."""
    own = [address for address in host.addresses if ":" not in address]
    if host.gateway is None or not own:
        return None
    return Gateway(parseAddress(host.gateway), parseAddress(own[0]))

"""
An internet in memory: hosts, names, paths, datagrams and streams on one clock.

Each host is a reactor of its own, good enough for Twisted's endpoints, for
C{wrapClientTLS}, C{Agent}, C{listenTCP} and C{listenUDP}; no socket is opened
and no time passes but that of a L{twisted.internet.task.Clock}.  With the same
seed the same things happen in the same order::

    clock = Clock()
    internet = MemoryInternet(clock, seed=1)
    server = internet.host("server", ["192.0.2.1"])
    client = internet.host("client", ["198.51.100.1"])
    internet.register("www.example.com", "192.0.2.1")
    TCP4ServerEndpoint(server, 80).listen(factory)
    HostnameEndpoint(client, "www.example.com", 80).connect(otherFactory)
    pump(clock, until=...)

Hosts are on the open internet, or in a network behind a router that translates
addresses, filters, or both::

    home = internet.network("home", "192.168.1.0/24", nat=NAT_KINDS["easy"])
    laptop = internet.host("laptop", network=home)
    internet.moveHost(laptop, internet.network("cafe", "10.0.0.0/24", nat=CGNAT))
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from random import Random

from attrs import evolve
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.task import Clock

from tsrt.testing.datagrams import MemoryUDPPort
from tsrt.testing.forwarding import Forwarding
from tsrt.testing.gateways import startGateways
from tsrt.testing.hosts import HostReactor
from tsrt.testing.links import LAN, LOOPBACK, Link
from tsrt.testing.names import MemoryResolver
from tsrt.testing.nat import NAT, NATKind
from tsrt.testing.natkinds import FIREWALL, NONE
from tsrt.testing.networks import Network, Router, canonical
from tsrt.testing.statefulfirewall import StatefulFirewall

__all__ = ["HostReactor", "Link", "MemoryInternet", "Network"]

Place = HostReactor | Network
"""A host, or the router of a network."""


@functools.lru_cache(maxsize=4096)
def _isLoopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


class MemoryInternet:
    """
    All hosts of a simulation and the paths between them.

    Any host reaches any public address of any other host directly.  What crosses
    a path takes the time, and suffers the losses, of its L{Link}.

    @ivar public: the network of all hosts that are behind no router.
    @ivar isRouted: whether there are routers at all.
    @ivar delivered: how many datagrams reached a port.
    @ivar dropped: how many did not, by reason; pieces of streams that a NAT
        refused are counted as well, with each of their repetitions.
    """

    def __init__(
        self,
        clock: Clock,
        seed: int = 0,
        *,
        link: Link | None = None,
        giveUp: float = 60.0,
    ) -> None:
        """
        @param clock: the time of all hosts.
        @param seed: where all chance comes from.
        @param link: the path between public hosts, and routers, that have none
            of their own.
        @param giveUp: seconds after which a stream ends with
            L{twisted.internet.error.TimeoutError} while its path is cut.
        """
        self.clock = clock
        self.random = Random(seed)
        self.giveUp = giveUp
        self.delivered = 0
        self.dropped: dict[str, int] = {}
        self._hosts: dict[str, HostReactor] = {}
        self.public = Network(self, "the internet", link or Link())
        self._owners = self.public.hosts
        self._networks: dict[str, Network] = {}
        self._prefixes6 = 0
        self._names: dict[str, list[str]] = {}
        self._links: dict[tuple[HostReactor | Router, HostReactor | Router], Link] = {}
        self._cuts: set[tuple[HostReactor | Router, HostReactor | Router]] = set()
        self._allocated = 0
        self.isRouted = False
        self.forwarding = Forwarding(self)

    @property
    def link(self) -> Link:
        """The path between public hosts, and routers, without one of their own."""
        return self.public.link

    @link.setter
    def link(self, link: Link) -> None:
        self.public.link = link

    def randbytes(self, count: int) -> bytes:
        """C{count} bytes that depend on nothing but the seed."""
        return self.random.randbytes(count)

    # -- hosts and names ---------------------------------------------------------

    def host(
        self,
        name: str,
        addresses: Iterable[str] | None = None,
        *,
        network: Network | None = None,
    ) -> HostReactor:
        """
        Make a new host.

        @param name: a name to tell hosts apart; it is not resolvable until it
            is registered.
        @param addresses: its addresses; without them it gets one of each
            family that its network has, on the internet one of IPv4.
        @param network: the network that it is in; by default the internet.
        """
        if name in self._hosts:
            raise ValueError(f"there is a host called {name!r} already")
        network = network or self.public
        if addresses is None:
            addresses = self._freeAddresses(network)
        host = HostReactor(self, name, network)
        network.attach(host, addresses)
        self._hosts[name] = host
        return host

    def _freeAddresses(self, network: Network) -> list[str]:
        if network is self.public:
            return [self.publicAddress()]
        return network.freeAddresses()

    def publicAddress(self) -> str:
        """A public IPv4 address that nobody has."""
        while True:
            self._allocated += 1
            high, low = divmod(self._allocated, 254)
            address = f"198.{18 + high // 256}.{high % 256}.{low + 1}"
            if address not in self._owners and address not in self.public.doors:
                return address

    def setAddresses(self, host: HostReactor, addresses: Iterable[str]) -> None:
        """
        Give C{host} other addresses in the network where it is.

        @raise ValueError: when they are not of that network, or another host's.
        """
        self._settle(host, host.network, addresses)

    def moveHost(
        self,
        host: HostReactor,
        network: Network | None,
        addresses: Iterable[str] | None = None,
    ) -> None:
        """
        Take a host to another network, as people do with laptops.

        Its ports stay open; its streams, whose addresses are gone, stand still
        until they time out.

        @param network: where it goes; C{None} for the internet itself.
        @param addresses: those that it gets there; free ones by default.
        """
        network = network or self.public
        if addresses is None:
            addresses = self._freeAddresses(network)
        self._settle(host, network, addresses)

    def _settle(
        self, host: HostReactor, network: Network, addresses: Iterable[str]
    ) -> None:
        before, had = host.network, host.addresses
        before.detach(host)
        try:
            network.attach(host, addresses)
        except ValueError:
            before.attach(host, had)
            raise

    def network(
        self,
        name: str,
        prefix: str | None = "192.168.1.0/24",
        *,
        nat: NATKind | None = None,
        uplink: Network | None = None,
        external: str | None = None,
        link: Link = LAN,
        access: Link | None = None,
        ipv6: bool | str = False,
        firewall6: NATKind | None = FIREWALL,
    ) -> Network:
        """
        Make a network behind a router.

        @param prefix: its IPv4 addresses; several networks behind NATs may
            well have the same.  C{None} for a network without IPv4.
        @param nat: what the router does to IPv4; without it the addresses of
            C{prefix} are reached from everywhere.  When the kind has a carrier,
            the provider's network is made between this one and the uplink.
        @param uplink: the network that the router is in; by default the
            internet.
        @param external: the IPv4 address by which the world sees the network; a
            free one by default.
        @param link: what crossing this network is like.
        @param access: what the line to the provider adds to that.
        @param ipv6: a prefix of IPv6, or whether to have a free one.  IPv6 is
            never translated.
        @param firewall6: what the router does to IPv6, C{None} for nothing.
            Where C{nat} blocks UDP it is blocked for IPv6 as well.
        @raise ValueError: the name is in use, or a prefix is none.
        """
        if name in self._networks:
            raise ValueError(f"there is a network called {name!r} already")
        outside = uplink or self.public
        if nat is not None and nat.carrier is not None:
            outside = self.network(
                f"{name}.carrier",
                "100.64.0.0/10",
                nat=nat.carrier,
                uplink=uplink,
                external=external,
                firewall6=None,
            )
            external = None
        if ipv6 is True:
            self._prefixes6 += 1
            ipv6 = f"2001:db8:{self._prefixes6:x}::/64"
        prefixes = [p for p in (prefix, ipv6) if isinstance(p, str)]
        inside = Network(self, name, link, prefixes)
        box: NAT | StatefulFirewall | None = None
        if nat is not None and nat.translates and prefix is not None:
            external = canonical(external) if external else outside.freeAddress()
            box = NAT(nat, external, self.random.random)
        elif nat is not None and nat != NONE:
            box = StatefulFirewall(nat)
        if firewall6 is not None and nat is not None and nat.blocksUDP:
            firewall6 = evolve(firewall6, blocksUDP=True)
        inside.router = Router(
            inside,
            outside,
            nat=box,
            firewall6=None if firewall6 is None else StatefulFirewall(firewall6),
            access=access,
        )
        self._networks[name] = inside
        if nat is not None and nat.serves and inside.external is not None:
            inside.gateways = startGateways(inside, nat.serves)
        self.isRouted = True
        return inside

    def networks(self) -> list[Network]:
        """All networks behind routers, in the order in which they were made."""
        return list(self._networks.values())

    def hosts(self) -> list[HostReactor]:
        """All hosts, in the order in which they were made."""
        return list(self._hosts.values())

    def register(self, name: str, *addresses: str) -> None:
        """Let C{name} resolve to C{addresses}, in place of what it did before."""
        self._names[name.lower().rstrip(".")] = [canonical(a) for a in addresses]

    def unregister(self, name: str) -> None:
        """Let C{name} not resolve any more."""
        self._names.pop(name.lower().rstrip("."), None)

    def lookup(self, name: str) -> list[str]:
        """The addresses of C{name}; none when it does not exist."""
        lowered = name.lower().rstrip(".")
        if lowered == "localhost":
            return ["127.0.0.1", "::1"]
        return list(self._names.get(lowered, ()))

    def resolver(self) -> IHostnameResolver:
        """A resolver that knows the registered names and nothing else."""
        return MemoryResolver(self.clock, self.lookup)

    # -- paths -------------------------------------------------------------------

    @staticmethod
    def _place(place: Place) -> HostReactor | Router:
        if not isinstance(place, Network):
            return place
        if place.router is None:
            raise ValueError(f"{place.name} is everywhere: name a host or a network")
        return place.router

    def setLink(self, link: Link, one: Place, other: Place) -> None:
        """
        Give the path between two neighbours, both ways, its own properties.

        @param one: a host, or a network whose router is meant.
        @raise ValueError: when there is a router between the two, so that there
            is no one path.
        """
        first, second = self._place(one), self._place(other)
        if not self._around(first) & self._around(second):
            raise ValueError(
                f"{first!r} and {second!r} are not in one network: set the link or "
                "the access of the networks on the way instead"
            )
        self._links[first, second] = self._links[second, first] = link

    @staticmethod
    def _around(place: HostReactor | Router) -> set[Network]:
        if isinstance(place, Router):
            return {place.inside, place.outside}
        return {place.network}

    def linkBetween(
        self, one: HostReactor | Router, other: HostReactor | Router
    ) -> Link | None:
        """What L{setLink} has said about two neighbours."""
        return self._links.get((one, other))

    def cut(self, one: Place, other: Place) -> None:
        """
        Let nothing through between two hosts, or networks; they are not told.

        It holds whatever lies between the two, and only for what crosses both.
        """
        first, second = self._place(one), self._place(other)
        self._cuts |= {(first, second), (second, first)}

    def heal(self, one: Place, other: Place) -> None:
        """Undo L{cut}."""
        first, second = self._place(one), self._place(other)
        self._cuts -= {(first, second), (second, first)}

    def isCut(
        self, trail: Iterable[HostReactor | Router], target: HostReactor | Router
    ) -> bool:
        """Whether what came along C{trail} must not reach C{target}."""
        cuts = self._cuts
        return bool(cuts) and any((place, target) in cuts for place in trail)

    def path(
        self, source: HostReactor, sourceAddress: str, destination: str
    ) -> tuple[HostReactor, Link] | None:
        """
        Where a packet would come out that passes no router, and what it would
        suffer.

        @return: C{None} when nothing comes through; L{forwarding} knows about
            the rest.
        """
        if _isLoopback(destination):
            return source, LOOPBACK
        owner = self._owners.get(canonical(destination))
        if owner is source:
            return owner, LOOPBACK
        if (
            owner is None
            or owner.down
            or source.down
            or (source, owner) in self._cuts
            or self._owners.get(canonical(sourceAddress)) is not source
        ):
            return None
        return owner, self._links.get((source, owner), self.public.link)

    # -- datagrams ---------------------------------------------------------------

    def drop(self, reason: str) -> None:
        """Count something that does not arrive."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def sendDatagram(
        self,
        host: HostReactor,
        source: tuple[str, int],
        destination: tuple[str, int],
        data: bytes,
    ) -> None:
        """
        Carry one datagram.

        @param host: the host that sends it.
        @param source: the address and port that the receiver sees.
        """
        if not host.permits("udp", destination[0], destination[1]):
            self.drop("firewall")
            return
        path = self.path(host, source[0], destination[0])
        if path is None:
            if self.isRouted:
                self.forwarding.send(host, source, destination, data)
            else:
                self.drop("unreachable")
            return
        owner, link = path
        size = len(data) + (48 if ":" in destination[0] else 28)
        delays = link.arrivals(size, self.random.random)
        if not delays:
            self.drop("too big" if size > link.mtu else "lost")
        for delay in delays:
            self.clock.callLater(
                delay, self._datagramArrived, host, owner, source, destination, data
            )

    def _datagramArrived(
        self,
        sender: HostReactor,
        owner: HostReactor,
        source: tuple[str, int],
        destination: tuple[str, int],
        data: bytes,
    ) -> None:
        path = self.path(sender, source[0], destination[0])
        if path is None or path[0] is not owner:
            self.drop("unreachable")
            return
        port = owner.boundPort("udp", destination[0], destination[1])
        if isinstance(port, MemoryUDPPort):
            self.delivered += 1
            port.arrived(data, source)
            return
        self.drop("no port")
        # The ICMP message that says so travels back like anything else.
        self.clock.callLater(path[1].delay, self.refuse, sender, source, destination)

    def refuse(
        self,
        sender: HostReactor,
        source: tuple[str, int],
        destination: tuple[str, int],
    ) -> None:
        """Tell a sender that nothing listens where it has sent a datagram to."""
        port = sender.boundPort("udp", source[0], source[1])
        if isinstance(port, MemoryUDPPort):
            port.refused(destination)

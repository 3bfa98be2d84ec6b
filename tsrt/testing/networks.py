"""
Networks of the simulated internet, and the routers between them.

The public internet is a L{Network} without a router.  Every other one is behind
a L{Router}, whose outside is in another network: the internet, or that of a
provider who translates addresses as well.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tsrt.testing.links import Link
from tsrt.testing.nat import NAT, Endpoint
from tsrt.testing.natkinds import Refusal
from tsrt.testing.statefulfirewall import StatefulFirewall

if TYPE_CHECKING:
    from tsrt.testing.gateways import Gateway
    from tsrt.testing.hosts import HostReactor
    from tsrt.testing.internet import MemoryInternet

_FIRST_HOST = 10


@functools.lru_cache(maxsize=4096)
def canonical(address: str) -> str:
    """The one way in which this simulation writes an address."""
    return str(ipaddress.ip_address(address))


class Network:
    """
    Hosts that reach each other without a router.

    @ivar hosts: its hosts by their addresses.
    @ivar doors: the routers of networks behind this one, by the addresses that
        they stand for.
    @ivar link: what crossing this network is like, from host to host and from
        host to router.
    @ivar router: leads to L{uplink}; the public internet has none.
    @ivar gateways: what maps ports there on request.
    """

    def __init__(
        self,
        internet: MemoryInternet,
        name: str,
        link: Link,
        prefixes: Iterable[str] = (),
    ) -> None:
        """Networks are made by L{MemoryInternet.network}."""
        self.internet = internet
        self.name = name
        self.link = link
        self.hosts: dict[str, HostReactor] = {}
        self.doors: dict[str, Router] = {}
        self.router: Router | None = None
        self.gateways: Sequence[Gateway] = ()
        self.prefixes = [ipaddress.ip_network(prefix) for prefix in prefixes]
        self._used = _FIRST_HOST - 1
        self._gatewayHost: HostReactor | None = None

    def __repr__(self) -> str:
        return f"<Network {self.name} {[str(prefix) for prefix in self.prefixes]}>"

    # -- the router ----------------------------------------------------------------

    def _theRouter(self) -> Router:
        if self.router is None:
            raise ValueError(f"{self.name} is the internet itself: it has no router")
        return self.router

    @property
    def uplink(self) -> Network | None:
        """The network that the router leads to."""
        return None if self.router is None else self.router.outside

    @property
    def nat(self) -> NAT | StatefulFirewall | None:
        """What the router does to IPv4, C{None} when it only forwards."""
        return self._theRouter().nat

    @property
    def firewall6(self) -> StatefulFirewall | None:
        """What the router does to IPv6, C{None} when it only forwards."""
        return self._theRouter().firewall6

    @property
    def external(self) -> str | None:
        """The IPv4 address of the router outside."""
        return self._theRouter().external

    @property
    def gateway(self) -> str | None:
        """The IPv4 address of the router inside; C{None} where there is none."""
        for prefix in self.prefixes:
            if prefix.version == 4 and self.router is not None:
                return str(prefix.network_address + 1)
        return None

    def gatewayHost(self) -> HostReactor:
        """
        The router as a host of its network, with the address L{gateway}.

        What a router serves (port mapping, DNS) runs on it.  It is made when
        it is first asked for.
        """
        gateway = self.gateway
        if gateway is None:
            raise ValueError(f"{self.name} has no gateway with an IPv4 address")
        if self._gatewayHost is None:
            self._gatewayHost = self.internet.host(
                f"{self.name}.gateway", [gateway], network=self
            )
        return self._gatewayHost

    def setExternal(self, address: str | None = None) -> str:
        """
        Let the provider give the router another address; flows end by that.

        @param address: which one; the next free one by default.
        @return: the address.
        """
        router = self._theRouter()
        address = router.outside.freeAddress() if address is None else address
        router.setExternal(canonical(address))
        return canonical(address)

    def reboot(self) -> None:
        """Let the router forget all its flows and mappings."""
        router = self._theRouter()
        for box in (router.nat, router.firewall6):
            if box is not None:
                box.reset()

    # -- addresses -------------------------------------------------------------------

    def freeAddress(self) -> str:
        """An IPv4 address that nobody has."""
        if self.router is None:
            return self.internet.publicAddress()
        return self.freeAddresses()[0]

    def freeAddresses(self) -> list[str]:
        """
        An address of each prefix that nobody has.

        @raise ValueError: when a prefix is used up.
        """
        while True:
            self._used += 1
            addresses = []
            for prefix in self.prefixes:
                if self._used >= prefix.num_addresses - 1:
                    raise ValueError(
                        f"network {self.name} has no address left in {prefix}; "
                        "make it with a wider prefix"
                    )
                addresses.append(str(prefix.network_address + self._used))
            if not any(a in self.hosts or a in self.doors for a in addresses):
                return addresses

    def attach(self, host: HostReactor, addresses: Iterable[str]) -> None:
        """
        Give a host addresses of this network.

        @raise ValueError: when one is not of this network, or somebody has it.
        """
        wanted = [canonical(address) for address in addresses]
        for address in wanted:
            self._check(address, host)
        for address in wanted:
            self.hosts[address] = host
            for network, router in self._above(address):
                network.doors[address] = router
        host.network = self
        host.addresses = wanted
        host.networkChanged()

    def detach(self, host: HostReactor) -> None:
        """Take all its addresses from a host."""
        for address in host.addresses:
            del self.hosts[address]
            for network, _ in self._above(address):
                del network.doors[address]
        host.addresses = []

    def _check(self, address: str, host: HostReactor | None = None) -> None:
        if self.hosts.get(address, host) is not host or address in self.doors:
            raise ValueError(f"{address} belongs to another host")
        value = ipaddress.ip_address(address)
        if self.prefixes and not any(value in prefix for prefix in self.prefixes):
            raise ValueError(
                f"{address} is no address of network {self.name}, which has "
                f"{', '.join(map(str, self.prefixes))}"
            )
        for network, _ in self._above(address):
            if address in network.hosts or address in network.doors:
                raise ValueError(f"{address} belongs to somebody in {network.name}")

    def _above(self, address: str) -> list[tuple[Network, Router]]:
        """The networks in which an address of this one is known, and by whom."""
        above = []
        router = self.router
        while router is not None and not router.hides(address):
            above.append((router.outside, router))
            router = router.outside.router
        return above


class Router:
    """
    Joins a network to the one that leads on to the internet.

    @ivar external: its IPv4 address outside, C{None} when it does not translate.
    @ivar nat: what it does to IPv4.
    @ivar firewall6: what it does to IPv6.
    @ivar access: the line to the outside, in addition to the network there.
    @ivar down: whether it has no power.
    """

    def __init__(
        self,
        inside: Network,
        outside: Network,
        *,
        nat: NAT | StatefulFirewall | None,
        firewall6: StatefulFirewall | None,
        access: Link | None,
    ) -> None:
        self.inside = inside
        self.outside = outside
        self.nat = nat
        self.firewall6 = firewall6
        self.access = access
        self.down = False
        self.external: str | None = None
        if isinstance(nat, NAT):
            self._announce(nat.external)

    def __repr__(self) -> str:
        return f"<Router of {self.inside.name} at {self.external}>"

    def hides(self, address: str) -> bool:
        """Whether an address inside means nothing outside."""
        return isinstance(self.nat, NAT) and ":" not in address

    def _announce(self, address: str) -> None:
        self.outside._check(address)
        above = [(self.outside, self), *self.outside._above(address)]
        if self.external is not None:
            for network, _ in above:
                del network.doors[self.external]
        for network, router in above:
            network.doors[address] = router
        self.external = address

    def setExternal(self, address: str) -> None:
        """See L{Network.setExternal}."""
        if not isinstance(self.nat, NAT):
            raise ValueError(
                f"the router of {self.inside.name} translates nothing: give its "
                "hosts other addresses instead"
            )
        self._announce(address)
        self.nat.setExternal(address)

    def carry(
        self,
        network: Network,
        protocol: str,
        source: Endpoint,
        destination: Endpoint,
        now: float,
        begins: bool,
    ) -> tuple[Network, Endpoint, Endpoint] | Refusal:
        """
        Take a packet that comes from one side.

        @param network: that side.
        @param begins: see L{NAT.outbound}.
        @return: the network that it goes to, with its source and destination
            there; or why it does not.
        """
        box = self.firewall6 if ":" in destination[0] else self.nat
        if network is not self.inside:
            if box is None:
                return self.inside, source, destination
            inner = box.inbound(protocol, source, destination, now)
            if isinstance(inner, Refusal):
                return inner
            return self.inside, source, inner
        if box is None:
            return self.outside, source, destination
        isHairpin = destination[0] == self.external
        if isHairpin and not box.kind.hairpin:
            return Refusal.NO_HAIRPIN
        seen = box.outbound(protocol, source, destination, now, begins)
        if isinstance(seen, Refusal):
            return seen
        if not isHairpin:
            return self.outside, seen, destination
        inner = box.inbound(protocol, seen, destination, now)
        if isinstance(inner, Refusal):
            return inner
        return self.inside, seen, inner

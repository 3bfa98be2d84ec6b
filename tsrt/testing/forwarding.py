"""
The way of packets through the routers of the simulated internet.

A datagram goes hop by hop, and meets each router in the state in which that is
when it gets there.  A piece of a stream meets them all when it is sent and once
more when it arrives; what a router refuses is sent again, as TCP does.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING, NamedTuple

from tsrt.testing.datagrams import MemoryUDPPort
from tsrt.testing.links import LOOPBACK, Link
from tsrt.testing.nat import Endpoint
from tsrt.testing.natkinds import Refusal
from tsrt.testing.networks import Network, Router

if TYPE_CHECKING:
    from tsrt.testing.hosts import HostReactor
    from tsrt.testing.internet import MemoryInternet

# More routers than any real path has; two networks cannot be each other's uplink.
_MOST_HOPS = 16


class Route(NamedTuple):
    """How a piece of a stream gets to the other end."""

    host: HostReactor
    link: Link
    source: Endpoint
    """The sender as the other end sees it."""
    destination: Endpoint
    """The receiver as it knows itself."""


class _Packet(NamedTuple):
    """A datagram somewhere on its way."""

    trail: tuple[HostReactor | Router, ...]
    source: Endpoint
    destination: Endpoint
    data: bytes
    sent: float
    first: tuple[Endpoint, Endpoint]


@functools.lru_cache(maxsize=4096)
def _isMulticast(address: str) -> bool:
    return ipaddress.ip_address(address).is_multicast


@functools.lru_cache(maxsize=4096)
def joined(*links: Link) -> Link:
    """What several links, one behind the other, are like together."""
    intact = single = inOrder = 1.0
    for link in links:
        intact *= 1.0 - link.loss
        single *= 1.0 - link.duplicate
        inOrder *= 1.0 - link.reorder
    return Link(
        delay=sum(link.delay for link in links),
        jitter=sum(link.jitter for link in links),
        loss=1.0 - intact,
        duplicate=1.0 - single,
        reorder=1.0 - inOrder,
        mtu=min(link.mtu for link in links),
        chunk=min(link.chunk for link in links),
    )


class Forwarding:
    """Carries what has to pass a router, or stays in a network behind one."""

    def __init__(self, internet: MemoryInternet) -> None:
        self._internet = internet

    # -- one hop -------------------------------------------------------------------

    def _next(
        self, network: Network, trail: tuple[HostReactor | Router, ...], address: str
    ) -> tuple[HostReactor | Router, Link] | None:
        """Who in C{network} takes what is for C{address}, and how it gets there."""
        origin = trail[-1]
        target: HostReactor | Router | None = (
            network.hosts.get(address) or network.doors.get(address) or network.router
        )
        if target is None or target is origin or target.down or origin.down:
            return None
        if self._internet.isCut(trail, target):
            return None
        return target, self._link(network, origin, target)

    def _link(
        self,
        network: Network,
        origin: HostReactor | Router,
        target: HostReactor | Router,
    ) -> Link:
        link = self._internet.linkBetween(origin, target) or network.link
        lines = [
            place.access
            for place in (origin, target)
            if isinstance(place, Router)
            and place.outside is network
            and place.access is not None
        ]
        return joined(link, *lines) if lines else link

    # -- datagrams -------------------------------------------------------------------

    def send(
        self, host: HostReactor, source: Endpoint, destination: Endpoint, data: bytes
    ) -> None:
        """Carry a datagram from a host."""
        network = host.network
        if network.hosts.get(source[0]) is not host:
            self._internet.drop("unreachable")
            return
        now = self._internet.clock.seconds()
        first = source, destination
        packet = _Packet((host,), source, destination, data, now, first)
        address = destination[0]
        if address in host.addresses:
            self._cross(packet, network, host, LOOPBACK)
        elif network.router is not None and _isMulticast(address):
            for other in dict.fromkeys(network.hosts.values()):
                if other is not host and not other.down and not host.down:
                    link = self._link(network, host, other)
                    self._cross(packet, network, other, link)
        else:
            self._forward(packet, network)

    def _forward(self, packet: _Packet, network: Network) -> None:
        found = self._next(network, packet.trail, packet.destination[0])
        if found is None:
            self._internet.drop("unreachable")
        else:
            self._cross(packet, network, *found)

    def _cross(
        self,
        packet: _Packet,
        network: Network,
        target: HostReactor | Router,
        link: Link,
    ) -> None:
        internet = self._internet
        size = len(packet.data) + (48 if ":" in packet.destination[0] else 28)
        delays = link.arrivals(size, internet.random.random)
        if not delays:
            internet.drop("too big" if size > link.mtu else "lost")
        for delay in delays:
            if isinstance(target, Router):
                internet.clock.callLater(delay, self._route, packet, network, target)
            else:
                internet.clock.callLater(delay, self._deliver, packet, network, target)

    def _route(self, packet: _Packet, network: Network, router: Router) -> None:
        internet = self._internet
        if router.down or internet.isCut(packet.trail, router):
            internet.drop("unreachable")
            return
        carried = router.carry(
            network,
            "udp",
            packet.source,
            packet.destination,
            internet.clock.seconds(),
            True,
        )
        if isinstance(carried, Refusal):
            internet.drop(carried.value)
            return
        following, source, destination = carried
        trail = (*packet.trail, router)
        packet = packet._replace(trail=trail, source=source, destination=destination)
        self._forward(packet, following)

    def _deliver(self, packet: _Packet, network: Network, host: HostReactor) -> None:
        internet = self._internet
        address, number = packet.destination
        isGroup = network.router is not None and _isMulticast(address)
        if (
            host.down
            or (network.hosts.get(address) is not host and not isGroup)
            or internet.isCut(packet.trail, host)
        ):
            internet.drop("unreachable")
            return
        port = host.boundPort("udp", address, number)
        if isinstance(port, MemoryUDPPort):
            internet.delivered += 1
            port.arrived(packet.data, packet.source)
            return
        internet.drop("no port")
        if packet.first == (packet.source, packet.destination) and not isGroup:
            # The ICMP message that says so takes as long, and passes no NAT.
            delay = internet.clock.seconds() - packet.sent
            sender = packet.trail[0]
            internet.clock.callLater(delay, internet.refuse, sender, *packet.first)

    # -- streams ---------------------------------------------------------------------

    def route(
        self,
        host: HostReactor,
        source: Endpoint,
        destination: Endpoint,
        begins: bool,
    ) -> Route | None:
        """
        Find the way of a piece of a stream.

        @param begins: whether it is a SYN.
        @return: C{None} when nothing comes through.
        """
        network = host.network
        if network.hosts.get(source[0]) is not host:
            return None
        if destination[0] in host.addresses:
            return Route(host, LOOPBACK, source, destination)
        now = self._internet.clock.seconds()
        trail: tuple[HostReactor | Router, ...] = (host,)
        links: list[Link] = []
        for _ in range(_MOST_HOPS):
            found = self._next(network, trail, destination[0])
            if found is None:
                return None
            target, link = found
            links.append(link)
            if not isinstance(target, Router):
                return Route(target, joined(*links), source, destination)
            carried = target.carry(network, "tcp", source, destination, now, begins)
            if isinstance(carried, Refusal):
                self._internet.drop(carried.value)
                return None
            network, source, destination = carried
            trail = (*trail, target)
        return None

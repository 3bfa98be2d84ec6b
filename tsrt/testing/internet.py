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
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from random import Random

from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.task import Clock

from tsrt.testing.datagrams import MemoryUDPPort
from tsrt.testing.hosts import HostReactor
from tsrt.testing.links import LOOPBACK, Link
from tsrt.testing.names import MemoryResolver

__all__ = ["HostReactor", "Link", "MemoryInternet"]


@functools.lru_cache(maxsize=4096)
def _canonical(address: str) -> str:
    return str(ipaddress.ip_address(address))


@functools.lru_cache(maxsize=4096)
def _isLoopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


class MemoryInternet:
    """
    All hosts of a simulation and the paths between them.

    Any host reaches any address of any other host directly.  What crosses a
    path takes the time, and suffers the losses, of its L{Link}.
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
        @param link: the path between hosts that have none of their own.
        @param giveUp: seconds after which a stream ends with
            L{twisted.internet.error.TimeoutError} while its path is cut.
        """
        self.clock = clock
        self.random = Random(seed)
        self.link = link if link is not None else Link()
        self.giveUp = giveUp
        self.delivered = 0
        self.dropped: dict[str, int] = {}
        self._hosts: dict[str, HostReactor] = {}
        self._owners: dict[str, HostReactor] = {}
        self._names: dict[str, list[str]] = {}
        self._links: dict[tuple[HostReactor, HostReactor], Link] = {}
        self._cuts: set[tuple[HostReactor, HostReactor]] = set()
        self._allocated = 0

    def randbytes(self, count: int) -> bytes:
        """C{count} bytes that depend on nothing but the seed."""
        return self.random.randbytes(count)

    # -- hosts and names ---------------------------------------------------------

    def host(self, name: str, addresses: Iterable[str] | None = None) -> HostReactor:
        """
        Make a new host.

        @param name: a name to tell hosts apart; it is not resolvable until it
            is registered.
        @param addresses: its addresses; without them it gets an IPv4 address.
        """
        if name in self._hosts:
            raise ValueError(f"there is a host called {name!r} already")
        if addresses is None:
            self._allocated += 1
            high, low = divmod(self._allocated, 254)
            addresses = [f"198.18.{high}.{low + 1}"]
        host = HostReactor(self, name)
        self._hosts[name] = host
        self.setAddresses(host, addresses)
        return host

    def setAddresses(self, host: HostReactor, addresses: Iterable[str]) -> None:
        """Give C{host} other addresses, as a change of network does."""
        wanted = [_canonical(address) for address in addresses]
        for address in wanted:
            if self._owners.get(address, host) is not host:
                raise ValueError(f"{address} belongs to another host")
        for address in host.addresses:
            del self._owners[address]
        host.addresses = wanted
        for address in wanted:
            self._owners[address] = host

    def hosts(self) -> list[HostReactor]:
        """All hosts, in the order in which they were made."""
        return list(self._hosts.values())

    def register(self, name: str, *addresses: str) -> None:
        """Let C{name} resolve to C{addresses}, in place of what it did before."""
        self._names[name.lower().rstrip(".")] = [_canonical(a) for a in addresses]

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

    def setLink(self, link: Link, one: HostReactor, other: HostReactor) -> None:
        """Give the path between two hosts, both ways, its own properties."""
        self._links[one, other] = self._links[other, one] = link

    def cut(self, one: HostReactor, other: HostReactor) -> None:
        """Let nothing through between two hosts; they are not told."""
        self._cuts |= {(one, other), (other, one)}

    def heal(self, one: HostReactor, other: HostReactor) -> None:
        """Undo L{cut}."""
        self._cuts -= {(one, other), (other, one)}

    def path(
        self, source: HostReactor, sourceAddress: str, destination: str
    ) -> tuple[HostReactor, Link] | None:
        """
        Where a packet would come out, and what it would suffer.

        @return: C{None} when nothing comes through.
        """
        if _isLoopback(destination):
            return source, LOOPBACK
        owner = self._owners.get(_canonical(destination))
        if owner is source:
            return owner, LOOPBACK
        if (
            owner is None
            or owner.down
            or source.down
            or (source, owner) in self._cuts
            or self._owners.get(_canonical(sourceAddress)) is not source
        ):
            return None
        return owner, self._links.get((source, owner), self.link)

    # -- datagrams ---------------------------------------------------------------

    def _drop(self, reason: str) -> None:
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
            self._drop("firewall")
            return
        path = self.path(host, source[0], destination[0])
        if path is None:
            self._drop("unreachable")
            return
        owner, link = path
        size = len(data) + (48 if ":" in destination[0] else 28)
        delays = link.arrivals(size, self.random.random)
        if not delays:
            self._drop("too big" if size > link.mtu else "lost")
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
            self._drop("unreachable")
            return
        port = owner.boundPort("udp", destination[0], destination[1])
        if isinstance(port, MemoryUDPPort):
            self.delivered += 1
            port.arrived(data, source)
            return
        self._drop("no port")
        # The ICMP message that says so travels back like anything else.
        self.clock.callLater(path[1].delay, self._refuse, sender, source, destination)

    def _refuse(
        self,
        sender: HostReactor,
        source: tuple[str, int],
        destination: tuple[str, int],
    ) -> None:
        port = sender.boundPort("udp", source[0], source[1])
        if isinstance(port, MemoryUDPPort):
            port.refused(destination)

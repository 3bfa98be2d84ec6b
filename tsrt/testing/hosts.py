"""
The hosts of the simulated internet: each one is a reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet import error
from twisted.internet.interfaces import (
    IHostnameResolver,
    IReactorFromThreads,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
)
from twisted.internet.protocol import (
    AbstractDatagramProtocol,
    ClientFactory,
    ServerFactory,
)
from zope.interface import implementer

from tsrt.testing.connections import MemoryConnector, MemoryTCPPort
from tsrt.testing.datagrams import MemoryUDPPort
from tsrt.testing.flows import Flow, Kind
from tsrt.testing.hosttime import HostTime
from tsrt.testing.nat import Endpoint
from tsrt.testing.streams import MemoryStream

if TYPE_CHECKING:
    from twisted.internet.protocol import P

    from tsrt.testing.internet import MemoryInternet
    from tsrt.testing.networks import Network

Firewall = Callable[[str, str, int], bool]
"""Told C{"tcp"} or C{"udp"}, an address and a port; says whether it passes."""

_WILDCARDS = {"": "0.0.0.0", "0.0.0.0": "0.0.0.0", "::": "::"}
_EPHEMERAL = 32768


@implementer(
    IReactorTCP,
    IReactorUDP,
    IReactorTime,
    IReactorPluggableNameResolver,
    IReactorFromThreads,
)
class HostReactor(HostTime):
    """
    A host of the simulated internet, in the shape of a Twisted reactor.

    Time is that of the internet's clock.  What is opened through the host can
    be asked for (L{getDelayedCalls}, L{ports}, L{streams}), so that a test can
    tell whether anything is left over.

    @ivar network: where the host is; see L{MemoryInternet.moveHost}.
    """

    def __init__(self, internet: MemoryInternet, name: str, network: Network) -> None:
        """Hosts are made by L{MemoryInternet.host}."""
        HostTime.__init__(self, internet.clock)
        self.internet = internet
        self.name = name
        self.network = network
        self.addresses: list[str] = []
        self._watchers: list[Callable[[], object]] = []
        self.firewall: Firewall | None = None
        self.nameResolver: IHostnameResolver = internet.resolver()
        self.streams: list[MemoryStream] = []
        self._ports: dict[tuple[str, str, int], object] = {}
        self._nextPort = _EPHEMERAL

    def __repr__(self) -> str:
        return f"<HostReactor {self.name} {self.addresses}>"

    @property
    def gateway(self) -> str | None:
        """The IPv4 address of the router of its network, if it has one."""
        return self.network.gateway

    # -- names ---------------------------------------------------------------------

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """See L{twisted.internet.interfaces.IReactorPluggableNameResolver}."""
        previous, self.nameResolver = self.nameResolver, resolver
        return previous

    # -- what happens to a host --------------------------------------------------------

    def watchNetwork(self, callback: Callable[[], object]) -> Callable[[], None]:
        """
        Be told of changes of the network, as programs on Linux are by netlink.

        @param callback: called in a later turn when the host has got addresses,
            be they the same as before in another network.
        @return: a callable that ends this.
        """
        self._watchers.append(callback)

        def stop() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return stop

    def networkChanged(self) -> None:
        """The host has got addresses: tell who wants to know."""
        for callback in self._watchers:
            self.soon(self._tell, callback)

    def _tell(self, callback: Callable[[], object]) -> None:
        if callback in self._watchers:
            callback()

    def crash(self) -> None:
        """End all streams without a word to their peers."""
        for stream in list(self.streams):
            stream.vanish()

    def permits(self, kind: str, address: str, port: int) -> bool:
        """Whether the firewall lets something out."""
        return self.firewall is None or self.firewall(kind, address, port)

    # -- ports ---------------------------------------------------------------------

    @property
    def ports(self) -> list[object]:
        """The ports at which something listens."""
        return [
            port
            for port in self._ports.values()
            if not isinstance(port, MemoryConnector)
        ]

    def sourceFor(self, destination: str) -> str | None:
        """The address that something sent to C{destination} comes from."""
        isIPv6 = ":" in destination
        if destination == "::1" or destination.startswith("127."):
            return destination
        if destination in self.addresses:
            return destination
        for address in self.addresses:
            if (":" in address) == isIPv6:
                return address
        return None

    def bindPort(self, kind: str, interface: str, port: int, owner: object) -> int:
        """
        Take a port.

        @return: its number, which is a free one when C{port} is 0.
        @raise CannotListenError: when it is taken, or the address is not ours.
        """
        interface = _WILDCARDS.get(interface, interface)
        if (
            interface not in _WILDCARDS
            and interface not in self.addresses
            and interface != "::1"
            and not interface.startswith("127.")
        ):
            raise error.CannotListenError(
                interface, port, OSError("Cannot assign requested address")
            )
        if port == 0:
            port = self._freePort(kind, interface)
        elif self._taken(kind, interface, port):
            raise error.CannotListenError(
                interface, port, OSError("Address already in use")
            )
        self._ports[kind, interface, port] = owner
        return port

    def _freePort(self, kind: str, interface: str) -> int:
        for _ in range(65536 - _EPHEMERAL):
            port = self._nextPort
            self._nextPort = _EPHEMERAL if port == 65535 else port + 1
            if not self._taken(kind, interface, port):
                return port
        raise error.CannotListenError(interface, 0, OSError("no free port"))

    def _taken(self, kind: str, interface: str, port: int) -> bool:
        isIPv6 = ":" in interface
        return any(
            otherKind == kind
            and otherPort == port
            and (":" in other) == isIPv6
            and (other == interface or other in _WILDCARDS or interface in _WILDCARDS)
            for otherKind, other, otherPort in self._ports
        )

    def releasePort(self, kind: str, interface: str, port: int) -> None:
        """Give back what L{bindPort} took."""
        self._ports.pop((kind, _WILDCARDS.get(interface, interface), port), None)

    def boundPort(self, kind: str, address: str, port: int) -> object | None:
        """What listens for things sent to C{address} and C{port}."""
        exact = self._ports.get((kind, address, port))
        if exact is not None:
            return exact
        return self._ports.get((kind, "::" if ":" in address else "0.0.0.0", port))

    # -- listening and connecting -------------------------------------------------

    def listenUDP(
        self,
        port: int,
        protocol: AbstractDatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,
    ) -> MemoryUDPPort:
        """See L{twisted.internet.interfaces.IReactorUDP}."""
        udpPort = MemoryUDPPort(self, port, protocol, interface, maxPacketSize)
        udpPort.startListening()
        return udpPort

    def listenTCP(
        self,
        port: int,
        factory: ServerFactory,
        backlog: int = 50,
        interface: str = "",
    ) -> MemoryTCPPort:
        """See L{twisted.internet.interfaces.IReactorTCP}."""
        tcpPort = MemoryTCPPort(self, port, factory, interface)
        tcpPort.startListening()
        return tcpPort

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[P],
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> MemoryConnector:
        """See L{twisted.internet.interfaces.IReactorTCP}."""
        connector = MemoryConnector(self, host, port, factory, timeout, bindAddress)
        connector.connect()
        return connector

    def streamOpened(self, stream: MemoryStream) -> None:
        """Remember a stream until it is closed."""
        self.streams.append(stream)

    def streamClosed(self, stream: MemoryStream) -> None:
        """Forget a stream."""
        if stream in self.streams:
            self.streams.remove(stream)

    def synArrived(
        self, client: MemoryStream, source: Endpoint, destination: Endpoint
    ) -> None:
        """
        Somebody wants to connect to a port of ours.

        @param source: the client as we see it.
        @param destination: our own address and port.
        """
        port = self.boundPort("tcp", *destination)
        if isinstance(port, MemoryTCPPort):
            port.synArrived(client, source, destination)
            return
        refusal = Flow(self, destination, source, client.arrived, lambda: None)
        refusal.send(Kind.RST)

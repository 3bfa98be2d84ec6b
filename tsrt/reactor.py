"""
The tailnet as a reactor.

L{TailnetReactor} provides the reactor interfaces that networked Twisted code
asks for, so that endpoints, Agent, Site, names and others run on the tailnet
unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from twisted.internet.interfaces import (
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IListeningPort,
    IReactorPluggableNameResolver,
    IReactorSSL,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
)
from twisted.internet.protocol import (
    AbstractDatagramProtocol,
    ClientFactory,
    ServerFactory,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tsrt.names import TailnetHostnameResolver
from tsrt.overlay.connector import TailnetConnector
from tsrt.overlay.context import OverlayContext
from tsrt.overlay.port import TailnetPort
from tsrt.overlay.udp import TailnetUDPPort


class WayPast(Protocol):
    """Connects to hosts that are not in the tailnet."""

    def covers(self, host: str) -> bool:
        """Whether a host is one of them."""

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory, timeout: float
    ) -> IConnector:
        """Connect to one of them."""


@implementer(
    IReactorTCP, IReactorUDP, IReactorSSL, IReactorTime, IReactorPluggableNameResolver
)
class TailnetReactor:
    """
    Connects, listens and resolves on the tailnet; keeps time with the real
    reactor.  It neither runs nor stops.
    """

    def __init__(self, context: OverlayContext, past: WayPast | None = None) -> None:
        """
        @param context: the node's overlay.
        @param past: connects to what is not in the tailnet, if anything is to be.
        """
        self._context = context
        self._past = past
        self._clock = context.reactor
        self.nameResolver: IHostnameResolver = TailnetHostnameResolver(context)

    # -- IReactorTCP -------------------------------------------------------------

    def listenTCP(
        self,
        port: int,
        factory: ServerFactory,
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort:
        """
        Listen on a tailnet port; works before the node is up.

        @param interface: C{""} for IPv4 and IPv6, C{"v4"}, C{"v6"}, or one of
            the node's addresses.
        @raise CannotListenError: the port is taken, or the interface is none.
        """
        listening = TailnetPort(self._context, port, factory, backlog, interface)
        listening.startListening()
        return listening

    def connectTCP(  # type: ignore[override]  # factories became generic only lately
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        """
        Connect to a tailnet name or address; waits, within the time-out, for
        the node to come up.

        @param port: a number, or the name of a service.
        @param bindAddress: own address, which may be empty, and port.
        @raise ServiceNameUnknownError: there is no such service.
        """
        if self._past is not None and self._past.covers(host):
            return self._past.connectTCP(host, port, factory, timeout)
        connector = TailnetConnector(
            self._context,
            host,
            port,
            factory,
            timeout,
            bindAddress,
            lambda: self.nameResolver,
        )
        connector.connect()
        return connector

    # -- IReactorSSL, for callers older than endpoints -------------------------------

    def listenSSL(  # type: ignore[override]  # factories became generic only lately
        self,
        port: int,
        factory: ServerFactory,
        contextFactory: Any,  # Twisted's own signature takes several interfaces
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort:
        """Listen for TLS connections on a tailnet port."""
        wrapped = TLSMemoryBIOFactory(contextFactory, False, factory, self._clock)
        return self.listenTCP(port, cast(ServerFactory, wrapped), backlog, interface)

    def connectSSL(  # type: ignore[override]  # factories became generic only lately
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        contextFactory: Any,  # Twisted's own signature takes several interfaces
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        """Connect to a tailnet port and talk TLS."""
        wrapped = TLSMemoryBIOFactory(contextFactory, True, factory, self._clock)
        return self.connectTCP(
            host, port, cast(ClientFactory, wrapped), timeout, bindAddress
        )

    # -- IReactorUDP -----------------------------------------------------------------

    def listenUDP(
        self,
        port: int,
        protocol: AbstractDatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,
    ) -> IListeningPort:
        """
        Send and receive datagrams on a tailnet port.

        @param interface: C{""}, C{"0.0.0.0"} (IPv4 only), C{"::"} (both), or
            one of the node's addresses.
        @param maxPacketSize: what is longer is cut.
        @raise CannotListenError: the port is taken.
        @raise InvalidAddressError: the interface is none.
        """
        bound = TailnetUDPPort(self._context, port, protocol, interface, maxPacketSize)
        bound.startListening()
        return bound

    # -- IReactorTime ----------------------------------------------------------------

    def seconds(self) -> float:
        """The real reactor's time."""
        return self._clock.seconds()

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        """Call later, on the real reactor."""
        return self._clock.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """The real reactor's delayed calls."""
        return self._clock.getDelayedCalls()

    # -- IReactorPluggableNameResolver ---------------------------------------------------

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Resolve names by C{resolver} from now on; return the former one."""
        previous, self.nameResolver = self.nameResolver, resolver
        return previous

"""
The doors to real networks.

Which of them a node has is decided once, when it is made, and none of them turns
into another when something fails.  All sockets are of IPv4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorTime,
    IReactorUDP,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import DatagramProtocol

from tsrt.addresses import formatAddress
from tsrt.errors import ExitEgressRefused, ProxyUDPUnsupported
from tsrt.netmap.forwarding import Destination, RouteKind
from tsrt.underlay.proxy import Proxy
from tsrt.underlay.tunnel import TunnelEndpoint

DIAL_TIMEOUT = 10.0
"""Seconds for a connection to a real network, with all that belongs to it."""

ANY_PORT = ("0.0.0.0", 0)
"""Where all sockets of egress are bound: IPv4, any port (R-FW-6)."""

_LARGEST = 65507


class Egress(Protocol):
    """A way out of this node."""

    def endpoint(self, to: Destination, port: int) -> IStreamClientEndpoint:
        """
        A connection to a destination.

        @raise EgressRefused: this door is not for it.
        """

    def datagrams(
        self, to: Destination, port: int, protocol: DatagramProtocol
    ) -> IListeningPort:
        """
        A socket that exchanges datagrams with a destination only.

        @raise EgressRefused: this door is not for it.
        @raise CannotListenError: there is no socket to be had.
        """

    def checkDatagrams(self, to: Destination) -> None:
        """
        See whether datagrams and pings may go to a destination.

        @raise EgressRefused: they may not.
        """


class HostExitEgress:
    """
    Sockets of this host, for subnets and for the internet.

    What leaves for the internet shows this host's address there.
    """

    def __init__(self, reactor: object) -> None:
        """
        @param reactor: the host's; provides TCP and UDP.
        """
        self._reactor = reactor

    def endpoint(self, to: Destination, port: int) -> IStreamClientEndpoint:
        """See L{Egress}."""
        return TCP4ClientEndpoint(
            self._reactor,
            formatAddress(to.address),
            port,
            timeout=int(DIAL_TIMEOUT),
            bindAddress=ANY_PORT,
        )

    def datagrams(
        self, to: Destination, port: int, protocol: DatagramProtocol
    ) -> IListeningPort:
        """See L{Egress}."""
        reactor = cast(IReactorUDP, self._reactor)
        bound = reactor.listenUDP(0, protocol, ANY_PORT[0], _LARGEST)
        assert protocol.transport is not None
        protocol.transport.connect(formatAddress(to.address), port)
        return bound

    def checkDatagrams(self, to: Destination) -> None:
        """See L{Egress}."""


class DirectEgress:
    """
    Sockets of this host, for subnets only.

    There is nothing by which it could be made to let anything out to the internet
    (R-FW-2).
    """

    def __init__(self, reactor: object) -> None:
        """
        @param reactor: the host's; provides TCP and UDP.
        """
        self._sockets = HostExitEgress(reactor)

    def endpoint(self, to: Destination, port: int) -> IStreamClientEndpoint:
        """See L{Egress}."""
        self.checkDatagrams(to)
        return self._sockets.endpoint(to, port)

    def datagrams(
        self, to: Destination, port: int, protocol: DatagramProtocol
    ) -> IListeningPort:
        """See L{Egress}."""
        self.checkDatagrams(to)
        return self._sockets.datagrams(to, port, protocol)

    def checkDatagrams(self, to: Destination) -> None:
        """See L{Egress}."""
        if to.kind is not RouteKind.SUBNET:
            raise ExitEgressRefused("nothing may leave for the internet from here")


class ProxyEgress:
    """
    Connections by an upstream proxy, for subnets and for the internet.

    What the proxy does not carry is refused; nothing goes past it (R-FW-3,
    R-FW-4).
    """

    def __init__(
        self,
        reactor: IReactorTime,
        proxy: Proxy,
        toProxy: Callable[[Proxy], IStreamClientEndpoint],
    ) -> None:
        """
        @param toProxy: makes an endpoint that leads to the proxy.
        """
        self._reactor = reactor
        self._proxy = proxy
        self._toProxy = toProxy

    def endpoint(self, to: Destination, port: int) -> IStreamClientEndpoint:
        """See L{Egress}."""
        return TunnelEndpoint(
            self._reactor,
            self._toProxy(self._proxy),
            self._proxy,
            formatAddress(to.address),
            port,
        )

    def datagrams(
        self, to: Destination, port: int, protocol: DatagramProtocol
    ) -> IListeningPort:
        """See L{Egress}."""
        raise ProxyUDPUnsupported("only connections can leave by the upstream proxy")

    def checkDatagrams(self, to: Destination) -> None:
        """See L{Egress}."""
        raise ProxyUDPUnsupported("only connections can leave by the upstream proxy")


def chooseEgress(
    reactor: IReactorTime,
    exitEgress: bool,
    proxy: Proxy | None,
    toProxy: Callable[[Proxy], IStreamClientEndpoint],
) -> Egress:
    """
    The one door of a node.

    @param exitEgress: whether anything may leave for the internet at all; a proxy
        alone does not say so (R-FWD-1).
    """
    if not exitEgress:
        return DirectEgress(reactor)
    if proxy is None:
        return HostExitEgress(reactor)
    return ProxyEgress(reactor, proxy, toProxy)

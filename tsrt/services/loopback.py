"""Ports on this machine through which other programs reach the tailnet."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.application.service import IServiceCollection, Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
    IStreamServerEndpoint,
)

from tsrt.keys import Secret
from tsrt.services.listening import ListeningService
from tsrt.services.proxy import HTTP, SOCKS5, ProxyFactory, Tailnet

USER = "tsnet"
"""The user of a proxy that wants a password, as everywhere."""


class ProxyService(ListeningService):
    """Listens for programs that want to the tailnet."""

    def __init__(self, listenOn: IStreamServerEndpoint, factory: ProxyFactory) -> None:
        """
        @param listenOn: where; whoever reaches it reaches the tailnet, unless
            C{factory} wants a password.
        """
        self._proxies = factory
        super().__init__(listenOn, factory)

    def stopService(self) -> Deferred[None]:
        """Stop listening, and close what is open."""
        for protocol in list(self._proxies.open):
            protocol.stop()
        return super().stopService()


class Loopback(Service):
    """
    A port of 127.0.0.1 with a password, by which programs reach the tailnet.

    It ends with its node, and is not opened again when that starts anew.

    @ivar address: C{127.0.0.1:PORT}.
    @ivar user: always L{USER}.
    @ivar password: 32 hexadecimal digits, made for this one.
    """

    user = USER

    def __init__(self, factory: ProxyFactory, password: Secret) -> None:
        """
        @param factory: wants L{USER} and C{password}.
        """
        self.address = ""
        self.password = password
        self._proxies = factory
        self._port: IListeningPort | None = None

    def __repr__(self) -> str:
        return f"<Loopback {self.address}>"

    def url(self, scheme: str = "socks5h") -> str:
        """
        What programs are told, password and all.

        @param scheme: C{socks5h}, or C{http} for an HTTP proxy.
        """
        return f"{scheme}://{self.user}:{self.password.reveal()}@{self.address}"

    async def open(self, reactor: IReactorTCP) -> None:
        """
        Listen (R-LB-1).

        @param reactor: this machine's.
        @raise CannotListenError: there is no port.
        """
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self._port = await endpoint.listen(self._proxies)
        port = cast(IPv4Address, self._port.getHost()).port
        self.address = f"127.0.0.1:{port}"

    def stopService(self) -> Deferred[None]:
        """Close it, and all connections through it."""
        super().stopService()
        parent, self.parent = self.parent, None
        if parent is not None:
            parent.removeService(self)
        for protocol in list(self._proxies.open):
            protocol.stop()
        port, self._port = self._port, None
        stopping = None if port is None else port.stopListening()
        return succeed(None) if stopping is None else stopping


async def openLoopback(
    reactor: object,
    tailnet: Tailnet,
    randbytes: Callable[[int], bytes],
    parent: IServiceCollection,
) -> Loopback:
    """
    Open a L{Loopback}.

    @param reactor: this machine's, with TCP, UDP and time.
    @param randbytes: where the password comes from.
    @param parent: a running service that it ends with.
    """
    password = Secret(randbytes(16).hex())
    factory = ProxyFactory(
        cast(IReactorTime, reactor),
        cast(IReactorUDP, reactor),
        tailnet,
        (USER.encode(), password.reveal().encode()),
        frozenset((SOCKS5, HTTP)),
    )
    loopback = Loopback(factory, password)
    await loopback.open(cast(IReactorTCP, reactor))
    loopback.setServiceParent(parent)
    return loopback

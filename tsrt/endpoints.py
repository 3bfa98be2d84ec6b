"""Stream endpoints on the tailnet."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.reactor import TailnetReactor

DEFAULT_TIMEOUT = 30.0


@implementer(IStreamClientEndpoint)
class TailnetClientEndpoint:
    """Connects to a name or an address of the tailnet."""

    def __init__(
        self,
        obtain: Callable[[], TailnetReactor],
        host: str,
        port: int,
        timeout: float = DEFAULT_TIMEOUT,
        bindAddress: tuple[str, int] | None = None,
    ) -> None:
        """
        @param obtain: gives the tailnet when a connection is asked for, and
            starts its node if need be.
        @param host: a MagicDNS name, short or full, or an address literal.
        @param timeout: seconds for everything, waiting for the node included.
        @param bindAddress: own address, which may be empty, and port.
        """
        self._obtain = obtain
        self._host = host
        self._port = port
        self._timeout = timeout
        self._bindAddress = bindAddress

    def __repr__(self) -> str:
        return f"<TailnetClientEndpoint {self._host}:{self._port}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect; fires with the protocol.

        Fails with L{DNSLookupError} for an unknown name, with
        L{ConnectionRefusedError}, L{TimeoutError} or another L{ConnectError},
        or with whatever kept the node from starting.  Cancelling gives up the
        attempt (L{ConnectingCancelledError}).
        """
        try:
            tailnet = self._obtain()
        except Exception:
            return fail(Failure())
        endpoint = TCP4ClientEndpoint(
            tailnet, self._host, self._port, self._timeout, self._bindAddress
        )
        return endpoint.connect(protocolFactory)


@implementer(IStreamServerEndpoint)
class TailnetServerEndpoint:
    """Listens on a TCP port of the tailnet."""

    def __init__(
        self,
        obtain: Callable[[], TailnetReactor],
        port: int,
        backlog: int = 50,
        interface: str = "",
    ) -> None:
        """
        @param obtain: gives the tailnet when asked to listen, and starts its
            node if need be.
        @param interface: C{""} for both families, C{"v4"}, C{"v6"}, or one of
            the node's addresses.
        """
        self._obtain = obtain
        self._port = port
        self._backlog = backlog
        self._interface = interface

    def __repr__(self) -> str:
        return f"<TailnetServerEndpoint port {self._port}>"

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen; fires with the port, whether or not the node is up yet.

        Fails with L{CannotListenError} when the port is taken.
        """
        try:
            tailnet = self._obtain()
        except Exception:
            return fail(Failure())
        endpoint = TCP4ServerEndpoint(
            tailnet, self._port, self._backlog, self._interface
        )
        return cast("Deferred[IListeningPort]", endpoint.listen(protocolFactory))

"""Connecting to a TCP port of the overlay (L{IConnector})."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.base import BaseConnector
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
)
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.addresses import parseAddress
from tsrt.errors import NoFreePort, PortInUse, WireError
from tsrt.netstack.flow import TCPFlow
from tsrt.netstack.tcpstate import CloseReason
from tsrt.overlay.context import OverlayContext
from tsrt.overlay.transport import TailnetTCPTransport

_log = Logger(namespace="tsrt.overlay")


@implementer(IConnector)
class TailnetConnector(BaseConnector):
    """
    One outgoing connection, for L{IReactorTCP.connectTCP} callers.

    Waits for the node to know its addresses and routes, within the time-out.
    """

    def __init__(
        self,
        context: OverlayContext,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float,
        bindAddress: tuple[str, int] | None = None,
    ) -> None:
        """
        @param host: a tailnet name or an address literal.
        @param timeout: seconds for everything, waiting for the node included.
        @param bindAddress: own address (may be empty) and port (may be 0).
        """
        super().__init__(factory, timeout, context.reactor)  # type: ignore[arg-type]  # only callLater is used
        self._context = context
        self._host = host
        self._port = port
        self._bindAddress = bindAddress

    def _makeTransport(self) -> OutgoingConnection:  # type: ignore[override]  # the base names its own client class
        return OutgoingConnection(
            self._context, self, self._host, self._port, self._bindAddress
        )

    def getDestination(self) -> IPv4Address | IPv6Address:
        """The address that was asked for, a name where it was a name."""
        kind = IPv6Address if ":" in self._host else IPv4Address
        return kind("TCP", self._host, self._port)


class OutgoingConnection:
    """
    The time between asking for a connection and having one.

    Afterwards it stands for the connection in L{BaseConnector}'s eyes.
    """

    def __init__(
        self,
        context: OverlayContext,
        connector: TailnetConnector,
        host: str,
        port: int,
        bindAddress: tuple[str, int] | None,
    ) -> None:
        self._context = context
        self._connector: TailnetConnector | None = connector
        self._host = host
        self._port = port
        self._bindAddress = bindAddress
        self._addresses: list[bytes] = []
        self._flow: TCPFlow | None = None
        self._transport: TailnetTCPTransport | None = None
        # The connector sets its own state first, so nothing happens in this
        # stack frame, not even a failure.
        self._forgetWait: Callable[[], None] | None = None
        self._firstTurn = context.reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        self._forgetWait = self._context.whenUp(self._resolve)

    def _resolve(self) -> None:
        """The node is up: find the address and start the handshake."""
        self._forgetWait = None
        try:
            self._addresses = [parseAddress(self._host)]
        except WireError:
            self._addresses = self._context.resolve(self._host)
        if not self._addresses:
            self._fail(
                DNSLookupError(f"no node of the tailnet is called {self._host!r}")
            )
            return
        self._tryNext()

    def _tryNext(self) -> None:
        address = self._addresses.pop(0)
        local, localPort = None, 0
        try:
            if self._bindAddress is not None:
                host, localPort = self._bindAddress
                local = parseAddress(host) if host else None
            flow = self._context.stack.connectTCP(
                address,
                self._port,
                self._context.now(),
                localAddress=local,
                localPort=localPort,
            )
        except (PortInUse, NoFreePort) as error:
            self._fail(ConnectError(string=str(error)))
            return
        except (WireError, ValueError, LookupError) as error:
            self._fail(NoRouteError(string=str(error)))
            return
        self._flow = flow
        flow.owner = self
        self._context.flush()

    def stackReady(self) -> None:
        """The handshake ended, well or not."""
        flow = self._flow
        if flow is None or self._connector is None:
            return
        if flow.established:
            self._connected(flow)
        elif flow.closeReason is not None:
            self._dropFlow()
            if self._addresses:
                self._tryNext()
            else:
                self._fail(_errorFor(flow.closeReason, self._host, self._port))

    def _connected(self, flow: TCPFlow) -> None:
        connector, self._flow = self._connector, None
        assert connector is not None
        self._transport = transport = TailnetTCPTransport(
            self._context, flow, isClient=True, onLost=connector.connectionLost
        )
        try:
            protocol = connector.buildProtocol(transport.getPeer())
        except Exception:
            failure = Failure()
            _log.failure("a client factory raised in buildProtocol", failure)
            transport.connected = True
            transport.abortConnection()
            return
        if protocol is None:
            transport.connected = True
            transport.loseConnection()
            return
        transport.attach(protocol)

    # -- what BaseConnector asks of a transport ------------------------------------

    def failIfNotConnected(self, error: Exception) -> None:
        """Give up, unless the connection is there."""
        if self._transport is None:
            self._fail(error)

    def loseConnection(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.loseConnection()

    def _fail(self, error: Exception) -> None:
        connector, self._connector = self._connector, None
        if self._firstTurn.active():
            self._firstTurn.cancel()
        if self._forgetWait is not None:
            self._forgetWait()
            self._forgetWait = None
        if self._flow is not None:
            flow = self._flow
            self._dropFlow()
            flow.abort()
            self._context.flush()
        if connector is not None:
            connector.connectionFailed(Failure(error))

    def _dropFlow(self) -> None:
        flow = cast(TCPFlow, self._flow)
        self._flow = None
        flow.owner = None
        flow.release(self._context.now())


def _errorFor(reason: CloseReason, host: str, port: int) -> Exception:
    """What Twisted's own reactors would say."""
    if reason is CloseReason.TIMEOUT:
        return TCPTimedOutError(string=f"{host}:{port} did not answer")
    if reason is CloseReason.UNREACHABLE:
        return NoRouteError(string=f"no node of the tailnet has the address {host}")
    return ConnectionRefusedError(string=f"{host}:{port} refused the connection")

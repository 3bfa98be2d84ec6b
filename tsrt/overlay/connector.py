"""Connecting to a TCP port of the overlay (L{IConnector})."""

from __future__ import annotations

from collections.abc import Callable
from socket import getservbyname

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.base import BaseConnector
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    ServiceNameUnknownError,
    TCPTimedOutError,
)
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.addresses import parseAddress
from tsrt.errors import NoFreePort, PortInUse, WireError
from tsrt.netstack.flow import TCPFlow
from tsrt.netstack.ports import AddressNotAvailable
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
        port: int | str,
        factory: ClientFactory,
        timeout: float,
        bindAddress: tuple[str, int] | None = None,
    ) -> None:
        """
        @param host: a tailnet name or an address literal.
        @param port: a number or the name of a service.
        @param timeout: seconds for everything, waiting for the node included.
        @param bindAddress: own address (may be empty) and port (may be 0).
        @raise ServiceNameUnknownError: there is no such service.
        """
        if isinstance(port, str):
            try:
                port = getservbyname(port, "tcp")
            except OSError as error:
                raise ServiceNameUnknownError(string=f"{error} ({port!r})") from None
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
        self._local: bytes | None = None
        self._localPort = 0
        self._flow: TCPFlow | None = None
        self._transport: TailnetTCPTransport | None = None
        # The connector sets its own state first, so nothing happens in this
        # stack frame, not even a failure.
        self._forgetWait: Callable[[], None] | None = None
        self._firstTurn = context.reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        try:
            if self._bindAddress is not None:
                host, self._localPort = self._bindAddress[:2]
                self._local = parseAddress(host) if host else None
        except WireError as error:
            self.failIfNotConnected(ConnectBindError(string=str(error)))
            return
        self._forgetWait = self._context.whenUp(self._resolve)

    def _resolve(self) -> None:
        """The node is up: find the address and start the handshake."""
        self._forgetWait = None
        try:
            addresses = [parseAddress(self._host)]
        except WireError:
            addresses = self._context.resolve(self._host)
        if not addresses:
            self.failIfNotConnected(
                DNSLookupError(f"no node of the tailnet is called {self._host!r}")
            )
            return
        local = self._local
        self._addresses = [
            address
            for address in addresses
            if local is None or len(local) == len(address)
        ]
        if self._addresses:
            self._tryNext()
        else:
            self.failIfNotConnected(
                ConnectBindError(string=f"{self._host} has no address of that family")
            )

    def _tryNext(self) -> None:
        address = self._addresses.pop(0)
        context = self._context
        try:
            flow = context.stack.connectTCP(
                address,
                self._port,
                context.now(),
                localAddress=self._local,
                localPort=self._localPort,
            )
        except (PortInUse, NoFreePort) as error:
            self.failIfNotConnected(ConnectBindError(string=str(error)))
        except AddressNotAvailable as error:
            if self._local is not None and self._local not in context.localAddresses():
                self.failIfNotConnected(ConnectBindError(string=str(error)))
            else:
                self.failIfNotConnected(NoRouteError(string=str(error)))
        except (ValueError, TypeError) as error:
            self.failIfNotConnected(ConnectError(string=str(error)))
        else:
            self._flow = flow
            flow.owner = self
            context.flush()

    def stackReady(self) -> None:
        """The handshake ended, well or not."""
        flow = self._flow
        if flow is None or self._connector is None:
            return
        if flow.established:
            self._connected(flow, self._connector)
        elif flow.closeReason is not None:
            self._dropFlow(flow)
            if self._addresses:
                self._tryNext()
            else:
                self.failIfNotConnected(
                    _errorFor(flow.closeReason, self._host, self._port)
                )

    def _connected(self, flow: TCPFlow, connector: TailnetConnector) -> None:
        self._flow = None
        transport = TailnetTCPTransport(
            self._context, flow, isClient=True, onLost=connector.connectionLost
        )
        try:
            protocol = connector.buildProtocol(transport.getPeer())
        except Exception:
            failure = Failure()
            _log.failure(
                "{factory!r} raised when asked for a protocol",
                failure,
                factory=connector.factory,
            )
            flow.owner = None
            flow.abort()
            self._context.flush()
            self._tellFailure(failure)
            return
        self._transport = transport
        if protocol is None:
            # The factory does not want the connection after all, but is to
            # hear of its end.
            transport.attach(_Unwanted())
        else:
            transport.attach(protocol)

    # -- what BaseConnector asks of a transport ------------------------------------

    def failIfNotConnected(self, error: Exception) -> None:
        """Give up, unless the connection is there."""
        if self._transport is not None or self._connector is None:
            return
        if self._firstTurn.active():
            self._firstTurn.cancel()
        if self._forgetWait is not None:
            self._forgetWait()
            self._forgetWait = None
        flow = self._flow
        if flow is not None:
            self._dropFlow(flow)
            flow.abort()
            self._context.flush()
        self._tellFailure(Failure(error))

    def loseConnection(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.loseConnection()

    def abortConnection(self) -> None:
        """Close the connection now, or stop making it."""
        if self._transport is not None:
            self._transport.abortConnection()
        else:
            self.failIfNotConnected(ConnectError(string="the node was stopped"))

    def _tellFailure(self, failure: Failure) -> None:
        connector, self._connector = self._connector, None
        if connector is None:
            return
        try:
            connector.connectionFailed(failure)
        except Exception:
            _log.failure(
                "{factory!r} raised when told of a failure", factory=connector.factory
            )

    def _dropFlow(self, flow: TCPFlow) -> None:
        self._flow = None
        flow.owner = None
        flow.release(self._context.now())


class _Unwanted(Protocol):
    """Takes the place of the protocol that a factory did not give."""

    def connectionMade(self) -> None:
        """Close at once."""
        assert self.transport is not None
        self.transport.loseConnection()


def _errorFor(reason: CloseReason, host: str, port: int) -> Exception:
    """What Twisted's own reactors would say."""
    if reason is CloseReason.TIMEOUT:
        return TCPTimedOutError(string=f"{host}:{port} did not answer")
    if reason is CloseReason.UNREACHABLE:
        return NoRouteError(string=f"no node of the tailnet has the address {host}")
    if reason is CloseReason.ABORTED:
        return ConnectError(string="this node lost its address")
    return ConnectionRefusedError(string=f"{host}:{port} refused the connection")

"""Connecting to a TCP port of the overlay (L{IConnector})."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
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
    TimeoutError,
)
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
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


ATTEMPT_LIMIT = 8.0
"""Seconds for one address of a name while others are left."""


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
        bindAddress: tuple[str, int] | None,
        resolver: Callable[[], IHostnameResolver],
    ) -> None:
        """
        @param host: a name or an address literal.
        @param port: a number or the name of a service.
        @param timeout: seconds for everything, waiting for the node included.
        @param bindAddress: own address (may be empty) and port (may be 0).
        @param resolver: gives who resolves names at present.
        @raise ServiceNameUnknownError: there is no such service.
        """
        if isinstance(port, str):
            try:
                port = getservbyname(port, "tcp")
            except OSError as error:
                raise ServiceNameUnknownError(string=f"{error} ({port!r})") from None
        super().__init__(factory, timeout, context.reactor)  # type: ignore[arg-type]  # only callLater is used
        self.context = context
        self.host = host
        self.port = port
        self.bindAddress = bindAddress
        self.resolver = resolver

    def _makeTransport(self) -> OutgoingConnection:  # type: ignore[override]  # the base names its own client class
        return OutgoingConnection(self)

    def getDestination(self) -> IPv4Address | IPv6Address:
        """The address that was asked for, a name where it was a name."""
        kind = IPv6Address if ":" in self.host else IPv4Address
        return kind("TCP", self.host, self.port)


class OutgoingConnection:
    """
    The time between asking for a connection and having one.

    Afterwards it stands for the connection in L{BaseConnector}'s eyes.
    """

    def __init__(self, connector: TailnetConnector) -> None:
        self._connector: TailnetConnector | None = connector
        self._context = context = connector.context
        self._host = connector.host
        self._port = connector.port
        self._addresses: list[bytes] = []
        self._local: bytes | None = None
        self._localPort = 0
        self._flow: TCPFlow | None = None
        self._transport: TailnetTCPTransport | None = None
        self._forgetWait: Callable[[], object] | None = None
        # The connector sets its own state first, so nothing happens in this
        # stack frame, not even a failure.
        self._next = context.reactor.callLater(0, self._begin, connector)

    def _begin(self, connector: TailnetConnector) -> None:
        try:
            if connector.bindAddress is not None:
                host, self._localPort = connector.bindAddress[:2]
                self._local = parseAddress(host) if host else None
        except WireError as error:
            self.failIfNotConnected(ConnectBindError(string=str(error)))
            return
        try:
            literal = parseAddress(self._host)
        except WireError:
            receiver = _Addresses(self._resolved)
            self._forgetWait = receiver.cancel
            connector.resolver().resolveHostName(receiver, self._host, self._port)
        else:
            self._resolved([literal])

    def _resolved(self, addresses: list[bytes]) -> None:
        """The name, if it was one, has these addresses."""
        self._forgetWait = None
        local = self._local
        self._addresses = [
            address
            for address in addresses
            if local is None or len(local) == len(address)
        ]
        if self._addresses:
            self._forgetWait = self._context.whenUp(self._tryNext)
        elif addresses:
            self.failIfNotConnected(
                ConnectBindError(string=f"{self._host} has no address of that family")
            )
        else:
            self.failIfNotConnected(
                DNSLookupError(f"no node of the tailnet is called {self._host!r}")
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
                self._attemptFailed(NoRouteError(string=str(error)))
        except (ValueError, TypeError) as error:
            self.failIfNotConnected(ConnectError(string=str(error)))
        else:
            self._flow = flow
            flow.owner = self
            context.flush()
            if self._addresses:
                self._next = context.reactor.callLater(ATTEMPT_LIMIT, self._tooLong)

    def _tooLong(self) -> None:
        """Perhaps another address answers."""
        flow = self._flow
        if flow is not None:
            self._dropFlow(flow)
            self._tryNext()

    def _attemptFailed(self, error: Exception) -> None:
        if self._addresses:
            self._tryNext()
        else:
            self.failIfNotConnected(error)

    def stackReady(self) -> None:
        """The handshake ended, well or not."""
        flow = self._flow
        if flow is None or self._connector is None:
            return
        if flow.established:
            self._connected(flow, self._connector)
        elif flow.closeReason is not None:
            reason = flow.closeReason
            self._dropFlow(flow)
            self._attemptFailed(_errorFor(reason, self._host, self._port))

    def _connected(self, flow: TCPFlow, connector: TailnetConnector) -> None:
        self._flow = None
        self._cancelNext()
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
        connector = self._connector
        if self._transport is not None or connector is None:
            return
        if type(error) is TimeoutError and not any(error.args):
            error = TimeoutError(
                string=f"{self._host}:{self._port} was not reached within "
                f"{connector.timeout:g} seconds"
            )
        self._cancelNext()
        if self._forgetWait is not None:
            self._forgetWait()
            self._forgetWait = None
        if self._flow is not None:
            self._dropFlow(self._flow)
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
        self._cancelNext()
        flow.owner = None
        flow.release(self._context.now())
        self._context.flush()

    def _cancelNext(self) -> None:
        if self._next.active():
            self._next.cancel()


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects the addresses of a name."""

    def __init__(self, done: Callable[[list[bytes]], object]) -> None:
        self._done: Callable[[list[bytes]], object] | None = done
        self._found: list[bytes] = []
        self._resolution: IHostResolution | None = None

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Remember what to cancel."""
        self._resolution = resolutionInProgress

    def addressResolved(self, address: IAddress) -> None:
        """One more."""
        with suppress(WireError):
            self._found.append(parseAddress(getattr(address, "host", "")))

    def resolutionComplete(self) -> None:
        """There are no more."""
        done, self._done = self._done, None
        if done is not None:
            done(self._found)

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self._done = None
        if self._resolution is not None:
            self._resolution.cancel()


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

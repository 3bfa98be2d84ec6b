"""
Listening for and making connections on the simulated internet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IListeningPort,
    IProtocol,
)
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.testing.flows import Kind
from tsrt.testing.nat import Endpoint
from tsrt.testing.streams import MemoryStream

if TYPE_CHECKING:
    from tsrt.testing.hosts import HostReactor


def streamAddress(host: str, port: int) -> IPv4Address | IPv6Address:
    """The Twisted address of one end of a stream."""
    if ":" in host:
        return IPv6Address("TCP", host, port)
    return IPv4Address("TCP", host, port)


class ConnectingFactory(Protocol):
    """The part of C{ClientFactory} that a connector uses."""

    def doStart(self) -> None:
        """A connector begins to use the factory."""

    def doStop(self) -> None:
        """A connector has stopped using the factory."""

    def startedConnecting(self, connector: IConnector) -> None:
        """The connection is being made."""

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """The connection is made."""

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """The connection cannot be made."""

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        """The connection was made, and is gone."""


@implementer(IListeningPort)
class MemoryTCPPort:
    """A listening TCP port of a simulated host."""

    def __init__(
        self, reactor: HostReactor, port: int, factory: ServerFactory, interface: str
    ) -> None:
        """
        @param port: the port number, or 0 for a free one.
        @param interface: the address to bind, empty or C{"::"} for all.
        """
        self.reactor = reactor
        self.factory = factory
        self.interface = interface
        self.port = port
        self._asked = port
        self._listening = False

    def startListening(self) -> None:
        """See L{twisted.internet.interfaces.IListeningPort}."""
        self.port = self.reactor.bindPort("tcp", self.interface, self._asked, self)
        self._listening = True
        self.factory.doStart()

    def stopListening(self) -> Deferred[None] | None:
        """See L{twisted.internet.interfaces.IListeningPort}."""
        if not self._listening:
            return None
        self._listening = False
        self.reactor.releasePort("tcp", self.interface, self.port)
        done: Deferred[None] = Deferred()
        self.reactor.internet.clock.callLater(0, self._stopped, done)
        return done

    def _stopped(self, done: Deferred[None]) -> None:
        self.factory.doStop()
        done.callback(None)

    def getHost(self) -> IPv4Address | IPv6Address:
        """See L{twisted.internet.interfaces.IListeningPort}."""
        return streamAddress(self.interface or "0.0.0.0", self.port)

    def synArrived(
        self, client: MemoryStream, source: Endpoint, destination: Endpoint
    ) -> None:
        """
        Answer a client; the protocol is built when the client has agreed.

        @param source: the client as we see it.
        @param destination: our own address and port.
        """
        stream = MemoryStream(
            self.reactor,
            streamAddress(*destination),
            streamAddress(*source),
            lambda stream, reason: self.reactor.streamClosed(stream),
        )
        stream.join(client)
        client.outgoing.sink = lambda kind, data, host: self._agreed(
            stream, client, kind, data, host
        )
        stream.outgoing.send(Kind.SYNACK)

    def _agreed(
        self,
        stream: MemoryStream,
        client: MemoryStream,
        kind: Kind,
        data: bytes,
        host: HostReactor,
    ) -> None:
        if kind is Kind.SYN:
            return
        client.outgoing.sink = stream.arrived
        client.peer = stream
        if kind is not Kind.ACK:
            # The client went away before it agreed.
            stream.arrived(kind, data, host)
            return
        protocol = None
        if self._listening:
            protocol = self.factory.buildProtocol(stream.getPeer())
        if protocol is None:
            stream.outgoing.reset()
            stream.disconnected = True
            return
        self.reactor.streamOpened(stream)
        stream.open(protocol)


@implementer(IConnector)
class MemoryConnector:
    """An attempt to connect, and then the connection, of a simulated host."""

    def __init__(
        self,
        reactor: HostReactor,
        host: str,
        port: int,
        factory: ConnectingFactory,
        timeout: float,
        bindAddress: tuple[str, int] | None,
    ) -> None:
        """See L{HostReactor.connectTCP}."""
        self.reactor = reactor
        self.factory = factory
        self.state = "disconnected"
        self.transport: MemoryStream | None = None
        self._host = host
        self._port = port
        self._timeout = timeout
        self._bindAddress = bindAddress
        self._timer: IDelayedCall | None = None
        self._source = ""
        self._sourcePort = 0

    def getDestination(self) -> IPv4Address | IPv6Address:
        """See L{twisted.internet.interfaces.IConnector}."""
        return streamAddress(self._host, self._port)

    def connect(self) -> None:
        """See L{twisted.internet.interfaces.IConnector}."""
        if self.state != "disconnected":
            raise RuntimeError("can't connect in this state")
        self.state = "connecting"
        self.factory.doStart()
        self.factory.startedConnecting(self)
        self._timer = self.reactor.callLater(
            self._timeout, self._failed, error.TimeoutError()
        )
        self.reactor.soon(self._begin)

    def _begin(self) -> None:
        if self.state != "connecting":
            return
        if self.reactor.isAsleep:
            self.reactor.soon(self._begin)
            return
        host = self._host
        if not isIPAddress(host) and not isIPv6Address(host):
            found = self.reactor.internet.lookup(host)
            if not found:
                self._failed(error.DNSLookupError(f"no address for {host}"))
                return
            host = found[0]
        source = self._bindAddress[0] if self._bindAddress else ""
        if source in ("0.0.0.0", "::"):
            # Any address of that family, as on a real host.
            if isIPv6Address(source) != isIPv6Address(host):
                self._failed(error.ConnectBindError("another address family"))
                return
            source = ""
        chosen = source or self.reactor.sourceFor(host)
        if chosen is None:
            self._failed(error.NoRouteError())
            return
        try:
            port = self.reactor.bindPort(
                "tcp", chosen, self._bindAddress[1] if self._bindAddress else 0, self
            )
        except error.CannotListenError as reason:
            self._failed(error.ConnectBindError(str(reason)))
            return
        self._source, self._sourcePort = chosen, port
        stream = MemoryStream(
            self.reactor,
            streamAddress(chosen, port),
            streamAddress(host, self._port),
            self._lost,
        )
        self.transport = stream
        stream.outgoing.sink = self._knock
        stream.beforeOpen = self._answered
        if self.reactor.permits("tcp", host, self._port):
            stream.outgoing.send(Kind.SYN)

    def _knock(self, kind: Kind, data: bytes, host: HostReactor) -> None:
        if kind is Kind.SYN and self.transport is not None:
            flow = self.transport.outgoing
            host.synArrived(self.transport, flow.seenSource, flow.reached)

    def _answered(self, kind: Kind) -> None:
        stream = self.transport
        if self.state != "connecting" or stream is None:
            return
        if kind is not Kind.SYNACK:
            self._failed(error.ConnectionRefusedError())
            return
        stream.beforeOpen = None
        stream.outgoing.send(Kind.ACK)
        self._cancelTimer()
        self.state = "connected"
        self.reactor.streamOpened(stream)
        protocol = self.factory.buildProtocol(stream.getPeer())
        if protocol is None:
            stream.vanish()
            return
        stream.open(protocol)

    def _cancelTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _release(self) -> None:
        if self._sourcePort:
            self.reactor.releasePort("tcp", self._source, self._sourcePort)
            self._sourcePort = 0

    def _failed(self, reason: Exception) -> None:
        if self.state != "connecting":
            return
        self._cancelTimer()
        self.state = "disconnected"
        stream, self.transport = self.transport, None
        if stream is not None:
            stream.beforeOpen = None
            stream.disconnected = True
            stream.outgoing.reset()
        self._release()
        self.factory.clientConnectionFailed(self, Failure(reason))
        if self.state == "disconnected":
            self.factory.doStop()

    def _lost(self, stream: MemoryStream, reason: Failure) -> None:
        if self.state == "connecting":
            self._failed(error.TimeoutError())
            return
        self.reactor.streamClosed(stream)
        self._release()
        self.state = "disconnected"
        self.factory.clientConnectionLost(self, reason)
        if self.state == "disconnected":
            self.factory.doStop()

    def stopConnecting(self) -> None:
        """See L{twisted.internet.interfaces.IConnector}."""
        if self.state != "connecting":
            raise error.NotConnectingError("we're not trying to connect")
        self._failed(error.UserError())

    def disconnect(self) -> None:
        """See L{twisted.internet.interfaces.IConnector}."""
        if self.state == "connecting":
            self.stopConnecting()
        elif self.transport is not None:
            self.transport.loseConnection()

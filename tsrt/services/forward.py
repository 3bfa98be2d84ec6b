"""
Joining connections: a tailnet port to a host endpoint, or the other way.

Each side's end is passed on alone, so that a half-closed connection stays
half-closed on the far side; and each side paces the other.
"""

from __future__ import annotations

from typing import cast

from twisted.application.internet import StreamServerEndpointService
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger(namespace="tsrt.forward")

# Connections at once that one forwarding port carries; more are refused.
MOST_CONNECTIONS = 1024


@implementer(IHalfCloseableProtocol)
class Half(Protocol):
    """One side of a joined pair; hands everything to the other side."""

    other: Half | None = None

    def join(self, other: Half) -> None:
        """Make a pair with C{other}; both are connected."""
        self.other, other.other = other, self
        for one, two in ((self, other), (other, self)):
            consumer = cast(IConsumer, one.transport)
            consumer.registerProducer(cast(IPushProducer, two.transport), True)

    def dataReceived(self, data: bytes) -> None:
        """Pass data on."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def readConnectionLost(self) -> None:
        """This side sends no more: tell the other so."""
        if self.other is not None and self.other.transport is not None:
            transport = self.other.transport
            cast(IConsumer, transport).unregisterProducer()
            end = getattr(transport, "loseWriteConnection", transport.loseConnection)
            end()

    def writeConnectionLost(self) -> None:
        """The other side's end has been passed on."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """This side is gone: finish, or break, the other in the same way."""
        other, self.other = self.other, None
        if other is None or other.transport is None:
            return
        other.other = None
        cast(IConsumer, other.transport).unregisterProducer()
        if reason.check(type(connectionDone.value)):
            other.transport.loseConnection()
        else:
            cast(ITCPTransport, other.transport).abortConnection()


class Incoming(Half):
    """The side that was connected to; makes the connection to the target."""

    def __init__(self, factory: ForwardFactory) -> None:
        self._factory = factory
        self._connecting: Deferred[object] | None = None

    def connectionMade(self) -> None:
        """Read nothing until the target is connected."""
        self._factory.opened()
        cast(IPushProducer, self.transport).pauseProducing()
        self._connecting = Deferred.fromCoroutine(self._reach())

    async def _reach(self) -> None:
        try:
            outgoing = await self._factory.target.connect(Factory.forProtocol(Half))
        except Exception as error:
            self._connecting = None
            if self.transport is not None and not self._gone:
                _log.warn(
                    "{target}: no connection for {peer}: {reason}",
                    target=self._factory.description,
                    peer=self.transport.getPeer(),
                    reason=str(error) or type(error).__name__,
                )
                cast(ITCPTransport, self.transport).abortConnection()
            return
        self._connecting = None
        if self._gone:
            cast(ITCPTransport, cast(Half, outgoing).transport).abortConnection()
            return
        self.join(cast(Half, outgoing))
        cast(IPushProducer, self.transport).resumeProducing()

    _gone = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Finish the other side, or stop connecting to it."""
        self._gone = True
        self._factory.closed()
        if self._connecting is not None:
            self._connecting.cancel()
        super().connectionLost(reason)


class ForwardFactory(Factory):
    """Joins each accepted connection to a new one to C{target}."""

    noisy = False

    def __init__(self, target: IStreamClientEndpoint, description: str) -> None:
        """
        @param description: what the log calls this forwarding.
        """
        self.target = target
        self.description = description
        self._open = 0

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Accept, unless too many connections are open."""
        if self._open >= MOST_CONNECTIONS:
            _log.warn("{target}: too many connections", target=self.description)
            return None
        if isinstance(addr, IPv4Address | IPv6Address):
            _log.debug("{target}: for {peer}", target=self.description, peer=addr.host)
        protocol = Incoming(self)
        protocol.factory = self
        return protocol

    def opened(self) -> None:
        """One more connection."""
        self._open += 1

    def closed(self) -> None:
        """One connection fewer."""
        self._open -= 1


class ForwardService(StreamServerEndpointService):
    """Listens on one endpoint and joins its connections to another."""

    def __init__(
        self,
        listenOn: IStreamServerEndpoint,
        target: IStreamClientEndpoint,
        description: str,
    ) -> None:
        """
        @param description: what the log calls this forwarding.
        """
        super().__init__(listenOn, ForwardFactory(target, description))

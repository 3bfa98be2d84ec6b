"""
Joining connections: a tailnet port to a host endpoint, or the other way.

Each side's end is passed on alone, so that a half-closed connection stays
half-closed on the far side; and each side paces the other.
"""

from __future__ import annotations

from contextlib import suppress
from typing import cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ISSLTransport,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.overlay.transport import TailnetTCPTransport
from tsrt.services.listening import ListeningService

_log = Logger(namespace="tsrt.forward")

MOST_CONNECTIONS = 1024
"""Connections at once that one forwarding port carries; more are refused."""

KEEP_ALIVE_IDLE = 60.0
"""Seconds of silence after which a tailnet peer is asked if it still is."""


@implementer(IHalfCloseableProtocol)
class Half(Protocol):
    """
    One side of a joined pair; hands everything to the other side.

    @ivar readEnded: whether this side will send no more.
    """

    readEnded = False
    _other: Half | None = None

    def connectionMade(self) -> None:
        """Read nothing until there is another side."""
        cast(IPushProducer, self.transport).pauseProducing()
        transport: object = self.transport
        if isinstance(transport, TailnetTCPTransport):
            transport.setTcpKeepAlive(True, idle=KEEP_ALIVE_IDLE)
        elif hasattr(transport, "setTcpKeepAlive"):
            transport.setTcpKeepAlive(True)
            # What one side wrote in one piece must not wait on the other for an
            # acknowledgement.  Unix sockets know no such thing.
            with suppress(OSError):
                cast(ITCPTransport, transport).setTcpNoDelay(True)

    def join(self, other: Half) -> None:
        """Make a pair with C{other}; both are connected and paused."""
        self._other, other._other = other, self
        for one, two in ((self, other), (other, self)):
            one.consumer.registerProducer(cast(IPushProducer, two.transport), True)
        for side in (self, other):
            cast(IPushProducer, side.transport).resumeProducing()

    @property
    def consumer(self) -> IConsumer:
        """The transport, as what the other side feeds."""
        return cast(IConsumer, self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Pass data on."""
        if self._other is not None:
            self._other.consumer.write(data)

    def readConnectionLost(self) -> None:
        """This side sends no more: tell the other so."""
        self.readEnded = True
        other = self._other
        if other is None:
            return
        other.endWriting()
        if other.readEnded:
            # Nothing will come from either.
            self.finish()
            other.finish()

    def endWriting(self) -> None:
        """Nothing more will be passed on to this side."""
        self.consumer.unregisterProducer()
        transport: object = self.transport
        # TLS ends its own direction by a close, and goes on to deliver.
        if hasattr(transport, "loseWriteConnection") and not ISSLTransport.providedBy(
            transport
        ):
            transport.loseWriteConnection()
        else:
            self.finish()

    def finish(self) -> None:
        """Close, once everything that was passed on has been sent."""
        self.consumer.unregisterProducer()
        assert self.transport is not None
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The other side's end has been passed on."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """This side is gone: finish, or break, the other in the same way."""
        other, self._other = self._other, None
        if other is None:
            return
        other._other = None
        if reason.check(ConnectionDone):
            other.finish()
        else:
            cast(ITCPTransport, other.transport).abortConnection()


class Incoming(Half):
    """The side that was connected to; makes the connection to the target."""

    _connecting: Deferred[None] | None = None

    def __init__(self, factory: ForwardFactory) -> None:
        """
        @param factory: knows the target, and counts connections.
        """
        self._factory = factory

    def connectionMade(self) -> None:
        """Connect to the target."""
        super().connectionMade()
        self._factory.incoming.add(self)
        self._connecting = Deferred.fromCoroutine(self._reach())
        self._connecting.addErrback(
            lambda failure: _log.failure("A pair could not be joined", failure)
        )

    async def _reach(self) -> None:
        try:
            outgoing = await self._factory.target.connect(Factory.forProtocol(Half))
        except Exception as error:
            if self._isOpen:
                assert self.transport is not None
                _log.warn(
                    "{target}: no connection for {peer}: {reason}",
                    target=self._factory.description,
                    peer=self.transport.getPeer(),
                    reason=str(error) or type(error).__name__,
                )
                cast(ITCPTransport, self.transport).abortConnection()
            return
        if self._isOpen:
            self.join(cast(Half, outgoing))
        else:
            cast(ITCPTransport, cast(Half, outgoing).transport).abortConnection()

    @property
    def _isOpen(self) -> bool:
        return self in self._factory.incoming

    def close(self) -> None:
        """End the pair, or the attempt to make one."""
        other = self._other
        if other is None:
            cast(ITCPTransport, self.transport).abortConnection()
        else:
            self.finish()
            other.finish()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Finish the other side, or stop connecting to it."""
        self._factory.incoming.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        super().connectionLost(reason)


class ForwardFactory(Factory):
    """
    Joins each accepted connection to a new one to C{target}.

    @ivar incoming: the connections that are open.
    """

    noisy = False

    def __init__(
        self,
        target: IStreamClientEndpoint,
        description: str,
        most: int = MOST_CONNECTIONS,
    ) -> None:
        """
        @param description: what the log calls this forwarding.
        @param most: connections at once; more are closed at once.
        """
        self.target = target
        self.description = description
        self.incoming: set[Incoming] = set()
        self._most = most
        self._isFull = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Accept, unless too many connections are open."""
        if len(self.incoming) >= self._most:
            if not self._isFull:
                _log.warn(
                    "{target}: more than {most} connections; refusing others",
                    target=self.description,
                    most=self._most,
                )
            self._isFull = True
            return None
        self._isFull = False
        if isinstance(addr, IPv4Address | IPv6Address):
            _log.debug("{target}: for {peer}", target=self.description, peer=addr.host)
        protocol = Incoming(self)
        protocol.factory = self
        return protocol


class ForwardService(ListeningService):
    """Listens on one endpoint and joins its connections to another."""

    def __init__(
        self,
        listenOn: IStreamServerEndpoint,
        target: IStreamClientEndpoint,
        description: str,
        most: int = MOST_CONNECTIONS,
    ) -> None:
        """
        @param description: what the log calls this forwarding.
        @param most: connections at once; more are closed at once.
        """
        self._joining = ForwardFactory(target, description, most)
        super().__init__(listenOn, self._joining)

    def stopService(self) -> Deferred[None]:
        """Stop listening, and close what is open."""
        for incoming in list(self._joining.incoming):
            incoming.close()
        return super().stopService()

"""
Connections that an upstream proxy makes for us.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.errors import WireError
from tsrt.underlay.negotiation import Negotiation, ProxyError, negotiation
from tsrt.underlay.proxy import Proxy

HANDSHAKE_TIMEOUT = 30.0
"""Seconds in which a proxy must have made the connection."""


@implementer(IHalfCloseableProtocol)
class _TunnelProtocol(Protocol):
    """Talks with the proxy, then passes everything on to the real protocol."""

    def __init__(
        self,
        reactor: IReactorTime,
        proxy: Proxy,
        conversation: Negotiation,
        factory: IProtocolFactory,
        address: IAddress,
        established: Deferred[IProtocol],
    ) -> None:
        self._reactor = reactor
        self._proxy = proxy
        self._conversation = conversation
        self._factory = factory
        self._address = address
        self._established: Deferred[IProtocol] | None = established
        self._inner: IProtocol | None = None
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._timer = self._reactor.callLater(HANDSHAKE_TIMEOUT, self._timedOut)
        self._write(self._conversation.begin())

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self._established is None:
            return
        try:
            progress = self._conversation.feed(data)
        except ProxyError as refusal:
            self._giveUp(Failure(refusal))
            return
        except WireError as malformed:
            self._giveUp(
                Failure(ProxyError(f"the proxy {self._proxy.name}: {malformed}"))
            )
            return
        if progress.reply:
            self._write(progress.reply)
        if progress.surplus is not None:
            self._handOver(progress.surplus)

    def _handOver(self, surplus: bytes) -> None:
        self._stopTimer()
        established, self._established = self._established, None
        assert established is not None and self.transport is not None
        inner = self._factory.buildProtocol(self._address)
        if inner is None:
            ITCPTransport(self.transport).abortConnection()
            established.errback(Failure(error.NoProtocol()))
            return
        self._inner = inner
        inner.makeConnection(self.transport)
        established.callback(inner)
        if surplus:
            inner.dataReceived(surplus)

    def _timedOut(self) -> None:
        self._timer = None
        self._giveUp(
            Failure(ProxyError(f"the proxy {self._proxy.name} did not answer in time"))
        )

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _giveUp(self, reason: Failure) -> None:
        self._stopTimer()
        established, self._established = self._established, None
        if self.transport is not None:
            ITCPTransport(self.transport).abortConnection()
        if established is not None:
            established.errback(reason)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._giveUp(Failure(CancelledError()))

    def readConnectionLost(self) -> None:
        inner = IHalfCloseableProtocol(self._inner, None)
        if inner is not None:
            inner.readConnectionLost()
        elif self.transport is not None:
            # Most protocols take the end of what they read for the end.
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        inner = IHalfCloseableProtocol(self._inner, None)
        if inner is not None:
            inner.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stopTimer()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)
        established, self._established = self._established, None
        if established is not None:
            established.errback(
                Failure(ProxyError(f"the proxy {self._proxy.name} hung up on us"))
            )


class _TunnelFactory(Factory[_TunnelProtocol]):
    noisy = False

    def __init__(self, build: Callable[[IAddress], _TunnelProtocol]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> _TunnelProtocol:
        assert addr is not None
        return self._build(addr)


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """
    An endpoint that leads to a server through a proxy.

    C{connect} fails with L{ProxyError} when the proxy cannot be reached,
    refuses, or does not answer in time.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        proxyEndpoint: IStreamClientEndpoint,
        proxy: Proxy,
        host: str,
        port: int,
    ) -> None:
        """
        @param proxyEndpoint: leads to the proxy.
        @param host: where the connection shall lead; the proxy resolves it.
        """
        self._reactor = reactor
        self._proxyEndpoint = proxyEndpoint
        self._proxy = proxy
        self._host = host
        self._port = port

    def __repr__(self) -> str:
        return f"<TunnelEndpoint {self._host}:{self._port} by {self._proxy.name}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{IStreamClientEndpoint}."""
        try:
            conversation = negotiation(self._proxy, self._host, self._port)
        except WireError as malformed:
            return fail(malformed)
        talking: list[_TunnelProtocol] = []
        attempt: list[Deferred[IProtocol]] = []

        def cancel(_: Deferred[IProtocol]) -> None:
            if talking:
                talking[0].cancel()
            else:
                attempt[0].cancel()

        established: Deferred[IProtocol] = Deferred(cancel)

        def build(address: IAddress) -> _TunnelProtocol:
            protocol = _TunnelProtocol(
                self._reactor,
                self._proxy,
                conversation,
                protocolFactory,
                address,
                established,
            )
            talking.append(protocol)
            return protocol

        def failed(reason: Failure) -> None:
            if established.called:
                return
            if not reason.check(CancelledError, error.ConnectingCancelledError):
                message = reason.getErrorMessage()
                reason = Failure(
                    ProxyError(
                        f"the proxy {self._proxy.name} cannot be reached: {message}"
                    )
                )
            established.errback(reason)

        connecting = self._proxyEndpoint.connect(_TunnelFactory(build))
        attempt.append(connecting)
        connecting.addErrback(failed)
        return established

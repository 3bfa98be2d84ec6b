"""
What a program says to a proxy that leads to the tailnet, and what it gets.

One port speaks SOCKS5 and HTTP, told apart by the first byte.  Names are those of
the tailnet, and nothing is ever connected to by another way (rules R-LB-1 to 4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IReactorTime,
    IReactorUDP,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.addresses import parseAddress
from tsrt.errors import WireError
from tsrt.services.forward import Half
from tsrt.services.udprelay import UDPRelay
from tsrt.wire import socks5
from tsrt.wire.proxyrequest import ProxyRequest, ProxyRequestParser

_log = Logger(namespace="tsrt.loopback")

HANDSHAKE_TIMEOUT = 30.0
"""Seconds until a connection to the tailnet must stand."""

MOST_CONNECTIONS = 256
"""Connections at once; more are closed at once."""

SOCKS5, HTTP = "SOCKS5", "HTTP"

_SOCKS_VERSION = bytes((socks5.VERSION,))
_REALM = 'Proxy-Authenticate: Basic realm="tailnet"\r\n'


@frozen
class Tailnet:
    """
    What a proxy needs of the tailnet.

    @ivar connect: makes an endpoint that leads to a name or address and a port.
    @ivar reactor: has its UDP ports.
    @ivar resolve: gives the packed addresses of a name.
    """

    connect: Callable[[str, int], IStreamClientEndpoint]
    reactor: IReactorUDP
    resolve: Callable[[str], list[bytes]]


class ProxyProtocol(Half):
    """One connection of a program: from its first byte to the tailnet."""

    def __init__(self, factory: ProxyFactory) -> None:
        self._factory = factory
        self._feed: Callable[[bytes], None] = self._first
        self._greeting = socks5.Greeting(factory.credentials)
        self._parser = ProxyRequestParser()
        self._limit: IDelayedCall | None = None
        self._connecting: Deferred[None] | None = None
        self._relay: UDPRelay | None = None
        self._early: list[bytes] = []

    def connectionMade(self) -> None:
        """Hear what it wants, but not for ever."""
        factory = self._factory
        factory.open.add(self)
        self._limit = factory.reactor.callLater(HANDSHAKE_TIMEOUT, self._abort)

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        if self._other is not None:
            super().dataReceived(data)
        else:
            self._feed(data)

    def _first(self, data: bytes) -> None:
        isSOCKS = data.startswith(_SOCKS_VERSION)
        if (SOCKS5 if isSOCKS else HTTP) not in self._factory.protocols:
            self._abort()
            return
        self._feed = self._socks if isSOCKS else self._http
        self._feed(data)

    # -- SOCKS5 ------------------------------------------------------------------------

    def _socks(self, data: bytes) -> None:
        try:
            asked = self._greeting.feed(data)
        except WireError:
            self._abort()
            return
        if asked.reply:
            self._say(asked.reply)
        if asked.isOver:
            self._close()
        elif asked.command is socks5.Command.CONNECT and asked.target is not None:
            self._reach(asked.target, asked.surplus, self._socksDone)
        elif asked.command is socks5.Command.UDP_ASSOCIATE:
            self._associate()

    def _socksDone(self, error: Exception | None) -> bytes:
        reply = socks5.Reply.SUCCEEDED if error is None else socks5.Reply.REFUSED
        return socks5.encodeReply(reply)

    def _associate(self) -> None:
        """Carry datagrams as long as this connection lasts."""
        factory = self._factory
        transport = cast(ITCPTransport, self.transport)
        self._endLimit()
        self._feed = lambda data: None
        try:
            self._relay = UDPRelay(
                factory.hostReactor,
                factory.tailnet.reactor,
                factory.tailnet.resolve,
                transport.getHost().host,
                transport.getPeer().host,
            )
        except Exception as error:
            _log.warn("no UDP for a SOCKS client: {error}", error=error)
            self._say(socks5.encodeReply(socks5.Reply.GENERAL_FAILURE))
            self._close()
            return
        host, port = self._relay.address
        self._say(socks5.encodeReply(socks5.Reply.SUCCEEDED, parseAddress(host), port))

    # -- HTTP --------------------------------------------------------------------------

    def _http(self, data: bytes) -> None:
        try:
            request = self._parser.feed(data)
        except WireError as error:
            self._refuse("400 Bad Request", str(error))
            return
        if request is None:
            return
        if not request.has(self._factory.credentials):
            self._refuse(
                "407 Proxy Authentication Required", "user and password", _REALM
            )
            return
        self._reach(
            request.target,
            request.head + request.surplus,
            lambda error: self._httpDone(request, error),
        )

    def _httpDone(self, request: ProxyRequest, error: Exception | None) -> bytes:
        if error is None:
            established = b"HTTP/1.1 200 Connection established\r\n\r\n"
            return established if request.isTunnel else b""
        host, port = request.target
        return _answer("502 Bad Gateway", f"no connection to {host}:{port}: {error}")

    def _refuse(self, status: str, why: str, header: str = "") -> None:
        self._say(_answer(status, why, header))
        self._close()

    # -- to the tailnet ------------------------------------------------------------------

    def _reach(
        self,
        target: socks5.Target,
        surplus: bytes,
        done: Callable[[Exception | None], bytes],
    ) -> None:
        if surplus:
            self._early.append(surplus)
        self._feed = self._early.append
        cast(ITCPTransport, self.transport).pauseProducing()  # type: ignore[attr-defined]  # every TCP transport is a producer
        self._connecting = Deferred.fromCoroutine(self._connect(target, done))
        self._connecting.addErrback(
            lambda failure: _log.failure("A proxied connection failed", failure)
        )

    async def _connect(
        self, target: socks5.Target, done: Callable[[Exception | None], bytes]
    ) -> None:
        endpoint = self._factory.tailnet.connect(target.host, target.port)
        try:
            outgoing = await endpoint.connect(Factory.forProtocol(Half))
        except Exception as error:
            if self in self._factory.open:
                self._say(done(error))
                self._close()
            return
        other = cast(Half, outgoing)
        if self not in self._factory.open:
            cast(ITCPTransport, other.transport).abortConnection()
            return
        self._endLimit()
        self._connecting = None
        self._say(done(None))
        for data in self._early:
            other.consumer.write(data)
        self._early.clear()
        self.join(other)

    # -- the end -------------------------------------------------------------------------

    def _say(self, data: bytes) -> None:
        assert self.transport is not None
        if data:
            self.transport.write(data)

    def _close(self) -> None:
        """Nothing more is said or heard."""
        self._feed = lambda data: None
        assert self.transport is not None
        self.transport.loseConnection()

    def _abort(self) -> None:
        self._feed = lambda data: None
        cast(ITCPTransport, self.transport).abortConnection()

    def _endLimit(self) -> None:
        limit, self._limit = self._limit, None
        if limit is not None and limit.active():
            limit.cancel()

    def stop(self) -> None:
        """End it, joined or not."""
        other = self._other
        if other is None:
            self._abort()
        else:
            self.finish()
            other.finish()

    def readConnectionLost(self) -> None:
        """The program says nothing more."""
        if self._other is None:
            # Who has not asked yet never will; who has, may go on listening.
            self.readEnded = True
            if self._connecting is None:
                self._close()
            return
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}."""
        self._factory.open.discard(self)
        self._endLimit()
        if self._relay is not None:
            self._relay.stop()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        super().connectionLost(reason)


def _answer(status: str, why: str, header: str = "") -> bytes:
    body = f"{why}\n".encode()
    return (
        f"HTTP/1.1 {status}\r\n{header}Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body


class ProxyFactory(Factory):
    """
    Takes connections of programs.

    @ivar open: those that there are.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        hostReactor: IReactorUDP,
        tailnet: Tailnet,
        credentials: tuple[bytes, bytes] | None,
        protocols: frozenset[str],
        most: int = MOST_CONNECTIONS,
    ) -> None:
        """
        @param reactor: the clock.
        @param hostReactor: has the UDP ports of this machine.
        @param credentials: user and password; C{None}: everybody is let in.
        @param protocols: of L{SOCKS5} and L{HTTP}.
        @param most: connections at once.
        """
        self.reactor = reactor
        self.hostReactor = hostReactor
        self.tailnet = tailnet
        self.credentials = credentials
        self.protocols = protocols
        self.open: set[ProxyProtocol] = set()
        self._most = most

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Accept, unless too many connections are open."""
        if len(self.open) >= self._most:
            _log.warn("more than {most} proxied connections", most=self._most)
            return None
        protocol = ProxyProtocol(self)
        protocol.factory = self
        return protocol

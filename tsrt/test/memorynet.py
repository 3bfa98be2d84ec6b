"""
Connections in memory for tests of the control client: a dialer that leads to
server protocols of the test, over real or pretended TLS.

Nothing moves by itself: L{MemoryNet.pump} moves everything that can move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IHandshakeListener,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.interfaces import IStreamDialer

HIGH_WATER = 64 * 1024


@implementer(ITCPTransport, IConsumer, IPushProducer)
class WireEnd:
    """One end of a connection in memory."""

    def __init__(self, address: IPv4Address, peerAddress: IPv4Address) -> None:
        self.address = address
        self.peerAddress = peerAddress
        self.protocol: IProtocol | None = None
        self.peer: WireEnd | None = None
        self.outgoing = bytearray()
        self.reading = True
        self.disconnecting = False
        self.aborted = False
        self.gone = False
        self.producer: IProducer | None = None
        self.producerPaused = False

    def write(self, data: bytes) -> None:
        if self.disconnecting or self.gone:
            return
        self.outgoing += data
        if (
            self.producer is not None
            and not self.producerPaused
            and len(self.outgoing) > HIGH_WATER
        ):
            self.producerPaused = True
            IPushProducer(self.producer).pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.outgoing.clear()
        self.disconnecting = self.aborted = True

    def getHost(self) -> IPv4Address:
        return self.address

    def getPeer(self) -> IPv4Address:
        return self.peerAddress

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        assert self.producer is None and streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None
        self.producerPaused = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return False

    def loseWriteConnection(self) -> None:
        self.loseConnection()

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

    def lose(self, reason: BaseException) -> None:
        """The connection is gone at this end."""
        if not self.gone:
            self.gone = True
            self.outgoing.clear()
            if self.protocol is not None:
                self.protocol.connectionLost(Failure(reason))

    def step(self) -> bool:
        """Move what this end has to send; whether anything happened."""
        peer = self.peer
        assert peer is not None
        if self.gone:
            return False
        if self.outgoing and peer.reading and not peer.gone:
            data = bytes(self.outgoing)
            self.outgoing.clear()
            if self.producer is not None and self.producerPaused:
                self.producerPaused = False
                IPushProducer(self.producer).resumeProducing()
            if peer.protocol is not None:
                peer.protocol.dataReceived(data)
            return True
        if self.disconnecting and not self.outgoing:
            self.lose(error.ConnectionDone())
            peer.lose(
                error.ConnectionLost() if self.aborted else error.ConnectionDone()
            )
            return True
        return False


class Attempt(NamedTuple):
    """A connection that was asked for."""

    host: str
    port: int
    tls: bool
    address: str | None
    time: float


class _Listener(NamedTuple):
    build: Callable[[], Protocol]
    tls: Any


class _Forward(Factory):
    noisy = False

    def __init__(self, build: Callable[[], Protocol]) -> None:
        self._build = build

    def buildProtocol(self, addr: object) -> Protocol:
        return self._build()


@implementer(IStreamDialer)
class MemoryNet:
    """
    Hosts and ports that exist only here.

    @ivar attempts: all connections that were asked for.
    @ivar wires: the client's end of each connection that was made.
    """

    def __init__(self, clock: Clock, trustRoot: object = None) -> None:
        self.clock = clock
        self.trustRoot = trustRoot
        self.attempts: list[Attempt] = []
        self.wires: list[WireEnd] = []
        self._listeners: dict[tuple[str, int], _Listener] = {}
        self._failing: dict[tuple[str, int], BaseException | None] = {}

    def listen(
        self,
        host: str,
        port: int,
        build: Callable[[], Protocol],
        tls: object | None = None,
    ) -> None:
        """
        Let something answer at C{host:port}.

        @param tls: a context factory for real TLS; without one, TLS is only
            pretended to be there.
        """
        self._listeners[host, port] = _Listener(build, tls)
        self._failing.pop((host, port), None)

    def refuse(self, host: str, port: int, reason: BaseException | None) -> None:
        """
        Let connections to C{host:port} fail.

        @param reason: with what; C{None} lets them hang for ever.
        """
        self._failing[host, port] = reason

    def endpoint(
        self,
        host: str,
        port: int,
        connectionCreator: object | None = None,
        address: str | None = None,
    ) -> IStreamClientEndpoint:
        """See L{IStreamDialer}."""
        return _MemoryEndpoint(self, host, port, connectionCreator, address)

    def connect(
        self,
        host: str,
        port: int,
        creator: Any,
        address: str | None,
        factory: IProtocolFactory,
    ) -> Deferred[IProtocol]:
        self.attempts.append(
            Attempt(host, port, creator is not None, address, self.clock.seconds())
        )
        where = (address or host, port)
        if where in self._failing:
            reason = self._failing[where]
            return Deferred() if reason is None else fail(reason)
        listener = self._listeners.get(where)
        if listener is None:
            return fail(error.ConnectionRefusedError())
        server: IProtocol
        client: IProtocol | None
        inner: IProtocol | None
        ours = IPv4Address("TCP", "192.0.2.1", 50000 + len(self.wires))
        theirs = IPv4Address("TCP", "192.0.2.2", port)
        if creator is not None and listener.tls is not None:
            serverSide = TLSMemoryBIOFactory(
                listener.tls, False, _Forward(listener.build), self.clock
            )
            clientSide = TLSMemoryBIOFactory(creator, True, factory, self.clock)
            server = serverSide.buildProtocol(None)
            client = clientSide.buildProtocol(None)
            inner = client.wrappedProtocol
        else:
            server = listener.build()
            inner = client = factory.buildProtocol(theirs)
        assert client is not None and inner is not None
        clientEnd, serverEnd = WireEnd(ours, theirs), WireEnd(theirs, ours)
        clientEnd.peer, serverEnd.peer = serverEnd, clientEnd
        clientEnd.protocol, serverEnd.protocol = client, server
        self.wires.append(clientEnd)
        server.makeConnection(serverEnd)
        client.makeConnection(clientEnd)
        if creator is not None and listener.tls is None:
            listening = IHandshakeListener(inner, None)
            if listening is not None:
                listening.handshakeCompleted()
        return succeed(inner)

    def pump(self) -> None:
        """Move everything until nothing moves any more."""
        for _ in range(100_000):
            self.clock.advance(0)
            moved = False
            for wire in list(self.wires):
                assert wire.peer is not None
                moved = wire.step() or moved
                moved = wire.peer.step() or moved
            self.wires = [wire for wire in self.wires if not wire.gone]
            if not moved:
                return
        raise AssertionError("the connections never come to rest")

    def advance(self, seconds: float, steps: int = 1) -> None:
        """Let time pass, in C{steps} equal parts, and move everything."""
        self.pump()
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            self.pump()


@implementer(IStreamClientEndpoint)
class _MemoryEndpoint:
    def __init__(
        self,
        net: MemoryNet,
        host: str,
        port: int,
        creator: object | None,
        address: str | None,
    ) -> None:
        self._net = net
        self._host = host
        self._port = port
        self._creator = creator
        self._address = address

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._net.connect(
            self._host, self._port, self._creator, self._address, protocolFactory
        )

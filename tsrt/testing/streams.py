"""
TCP-like streams of the simulated internet.

A stream is two L{MemoryStream} transports joined by two
L{Flow<tsrt.testing.flows.Flow>}s, one for each direction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPullProducer,
    IPushProducer,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.testing.flows import Flow, Kind

if TYPE_CHECKING:
    from tsrt.testing.hosts import HostReactor

_log = Logger(namespace="tsrt.testing")

WINDOW = 256 * 1024
"""The most bytes of one direction that the peer has not consumed yet."""

READ_SIZE = 65536
"""Bytes after which the other streams have a turn, as a real reactor reads."""


@implementer(ITCPTransport, IConsumer, IPushProducer)
class MemoryStream:
    """One end of a stream, with the behaviour of Twisted's TCP transport."""

    bufferSize = 65536
    """Bytes that may be buffered before a streaming producer is paused."""

    def __init__(
        self,
        reactor: HostReactor,
        local: IPv4Address | IPv6Address,
        remote: IPv4Address | IPv6Address,
        lost: Callable[[MemoryStream, Failure], None],
    ) -> None:
        """
        @param reactor: the host of this end.
        @param lost: called once when this end is closed, after the protocol.
        """
        self.reactor = reactor
        self.protocol: IProtocol | None = None
        self.connected = False
        self.disconnecting = False
        self.disconnected = False
        self.peer: MemoryStream | None = None
        self.beforeOpen: Callable[[Kind], None] | None = None
        self.outgoing = Flow(
            reactor,
            (local.host, local.port),
            (remote.host, remote.port),
            self._misdelivered,
            self._timedOut,
        )
        self._local = local
        self._remote = remote
        self._lost = lost
        self._pending: deque[bytes] = deque()
        self._buffered = 0
        self._unconsumed = 0
        self._inbox: deque[bytes | None] = deque()
        self._reading = False
        self._delivering = False
        # What may still be delivered in this turn, and when that began.
        self._room = READ_SIZE
        self._readAt = 0.0
        self._turn: IDelayedCall | None = None
        self._producer: IProducer | None = None
        self._streaming = False
        self._producerPaused = False
        self._finSent = False
        self._writeClosing = False
        self._writeClosed = False
        self._noDelay = False
        self._keepAlive = False

    # -- joining the two ends ------------------------------------------------

    def join(self, peer: MemoryStream) -> None:
        """Make C{peer} the other end of this one."""
        self.peer = peer
        self.outgoing.sink = peer.arrived

    def _misdelivered(self, kind: Kind, data: bytes, host: HostReactor) -> None:
        """Nothing is there yet to take what arrives: it is ignored."""

    def open(self, protocol: IProtocol) -> None:
        """The stream is established: hand it to C{protocol}."""
        self.protocol = protocol
        self.connected = True
        self._reading = True
        self._guard(protocol.makeConnection, self)
        self._wake()

    def _guard(self, call: Callable[..., object], *arguments: object) -> None:
        """Call the protocol; as with a real reactor, an error closes us."""
        try:
            call(*arguments)
        except Exception:
            failure = Failure()
            _log.failure("a protocol on the simulated internet failed", failure)
            self._fail(failure)

    # -- what comes in ---------------------------------------------------------

    def arrived(self, kind: Kind, data: bytes, host: HostReactor) -> None:
        """Take what the flow of the other end brings."""
        if self.beforeOpen is not None:
            self.beforeOpen(kind)
        elif kind is Kind.RST:
            self._fail(Failure(error.ConnectionLost()))
        elif self.disconnected:
            if kind is Kind.DATA:
                # As a kernel does for data that nobody will ever read.
                self.outgoing.reset()
        elif kind is Kind.DATA:
            self._inbox.append(data)
            self._deliver()
        elif kind is Kind.FIN:
            self._inbox.append(None)
            self._deliver()

    def _deliver(self) -> None:
        if self._delivering or self.protocol is None:
            return
        self._delivering = True
        now = self.reactor.internet.clock.seconds()
        if now > self._readAt:
            self._readAt, self._room = now, READ_SIZE
        try:
            while self._inbox and self._reading and self.connected:
                if self._room <= 0:
                    self._wake()
                    return
                data = self._inbox.popleft()
                if data is None:
                    self._ended()
                    continue
                self._room -= len(data)
                if self.peer is not None:
                    self.peer._consumed(len(data))
                self._guard(self.protocol.dataReceived, data)
        finally:
            self._delivering = False

    def _ended(self) -> None:
        protocol = IHalfCloseableProtocol(self.protocol, None)
        if protocol is None:
            self._fail(Failure(error.ConnectionDone()))
        else:
            self._guard(protocol.readConnectionLost)

    def _consumed(self, count: int) -> None:
        self._unconsumed -= count
        if self._pending:
            self._wake()

    # -- what goes out ---------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See L{twisted.internet.interfaces.ITransport}."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if not self.connected or self._writeClosed or not data:
            return
        self._pending.append(data)
        self._buffered += len(data)
        if (
            self._producer is not None
            and self._streaming
            and self._buffered > self.bufferSize
        ):
            self._producerPaused = True
            cast(IPushProducer, self._producer).pauseProducing()
        self._wake()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See L{twisted.internet.interfaces.ITransport}."""
        self.write(b"".join(data))

    def _wake(self) -> None:
        """Go on in the next turn, as a real transport does."""
        if self._turn is None and not self.disconnected:
            self._turn = self.reactor.soon(self._work)

    def _work(self) -> None:
        self._turn = None
        if self.reactor.isAsleep:
            self._wake()
            return
        if not self.connected:
            return
        self._room = READ_SIZE
        self._deliver()
        while self._pending and self._unconsumed < WINDOW:
            room = min(65536, WINDOW - self._unconsumed)
            data = self._pending.popleft()
            if len(data) > room:
                self._pending.appendleft(data[room:])
                data = data[:room]
            self._buffered -= len(data)
            self._unconsumed += len(data)
            self.outgoing.send(Kind.DATA, data)
        if self._pending or not self.connected:
            return
        if self._producer is not None and (not self._streaming or self._producerPaused):
            self._producerPaused = False
            self._resume(self._producer)
        elif self.disconnecting:
            self._finish(Failure(error.ConnectionDone()))
        elif self._writeClosing and not self._writeClosed:
            self._writeClosed = True
            self._sendFIN()
            protocol = IHalfCloseableProtocol(self.protocol, None)
            if protocol is not None:
                self._guard(protocol.writeConnectionLost)

    def _resume(self, producer: IProducer) -> None:
        if self._streaming:
            self._guard(cast(IPushProducer, producer).resumeProducing)
        else:
            self._guard(cast(IPullProducer, producer).resumeProducing)

    def _sendFIN(self) -> None:
        if not self._finSent:
            self._finSent = True
            self.outgoing.send(Kind.FIN)

    # -- closing -----------------------------------------------------------------

    def loseConnection(self) -> None:
        """See L{twisted.internet.interfaces.ITransport}."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._reading = False
            if self._writeClosed:
                self._finish(Failure(error.ConnectionDone()))
            else:
                self._wake()

    def loseWriteConnection(self) -> None:
        """See L{twisted.internet.interfaces.ITCPTransport}."""
        self._writeClosing = True
        self._wake()

    def abortConnection(self) -> None:
        """See L{twisted.internet.interfaces.ITCPTransport}."""
        if not self.connected or self.disconnected:
            return
        self.disconnecting = True
        self._reading = False
        self.outgoing.reset()
        self._finSent = True
        # Never from within the call: the caller may be in the middle of things.
        self.reactor.internet.clock.callLater(
            0, self._finish, Failure(error.ConnectionAborted())
        )

    def vanish(self) -> None:
        """Close without a word to the peer, as a crash does."""
        self._forget()
        self._finish(Failure(error.ConnectionLost()))

    def _timedOut(self) -> None:
        self._forget()
        self._fail(Failure(error.TimeoutError()))

    def _forget(self) -> None:
        """Say nothing of our own any more."""
        self.outgoing.stop()
        self._finSent = True
        # What arrives later is still answered, as a host that knows of no such
        # connection does.
        self.outgoing = Flow(
            self.reactor,
            (self._local.host, self._local.port),
            (self._remote.host, self._remote.port),
            self.outgoing.sink,
            lambda: None,
        )

    def _fail(self, reason: Failure) -> None:
        if not reason.check(error.ConnectionDone):
            self._pending.clear()
        self._finish(reason)

    def _finish(self, reason: Failure) -> None:
        if self.disconnected:
            return
        self.disconnected = True
        self.connected = False
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._sendFIN()
        self._inbox.clear()
        self._pending.clear()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        if self.protocol is not None:
            try:
                self.protocol.connectionLost(reason)
            except Exception:
                _log.failure("connectionLost failed on the simulated internet")
        self._lost(self, reason)

    # -- producers and consumers -------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See L{twisted.internet.interfaces.IConsumer}."""
        if self._producer is not None:
            raise RuntimeError("a producer is already registered")
        if self.disconnected:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producerPaused = False
        if not streaming:
            cast(IPullProducer, producer).resumeProducing()

    def unregisterProducer(self) -> None:
        """See L{twisted.internet.interfaces.IConsumer}."""
        self._producer = None
        if self.connected and self.disconnecting:
            self._wake()

    def pauseProducing(self) -> None:
        """See L{twisted.internet.interfaces.IPushProducer}."""
        self._reading = False

    def resumeProducing(self) -> None:
        """See L{twisted.internet.interfaces.IPushProducer}."""
        if self.connected and not self.disconnecting:
            self._reading = True
            self._wake()

    def stopProducing(self) -> None:
        """See L{twisted.internet.interfaces.IProducer}."""
        self.loseConnection()

    # -- addresses and options ------------------------------------------------------

    def getHost(self) -> IPv4Address | IPv6Address:
        """See L{twisted.internet.interfaces.ITCPTransport}."""
        return self._local

    def getPeer(self) -> IPv4Address | IPv6Address:
        """See L{twisted.internet.interfaces.ITCPTransport}."""
        return self._remote

    def getTcpNoDelay(self) -> bool:
        """See L{twisted.internet.interfaces.ITCPTransport}."""
        return self._noDelay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See L{twisted.internet.interfaces.ITCPTransport}."""
        self._noDelay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        """See L{twisted.internet.interfaces.ITCPTransport}."""
        return self._keepAlive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See L{twisted.internet.interfaces.ITCPTransport}."""
        self._keepAlive = bool(enabled)

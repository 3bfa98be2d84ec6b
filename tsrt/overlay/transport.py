"""
A TCP connection of the overlay as a Twisted transport.

The transport meets L{ITCPTransport} in full and L{ITLSTransport}.  Data is
pulled from the flow only while the protocol wants it, so that a paused
protocol closes the TCP window of its peer; and what is written and not yet
acknowledged pauses the producer, so that a slow peer pauses the writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    ILoggingContext,
    IProtocol,
    IPullProducer,
    IPushProducer,
    ITCPTransport,
    ITLSTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.netstack.flow import TCPFlow
from tsrt.netstack.tcpstate import CloseReason
from tsrt.overlay.context import OverlayContext, twistedAddress

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

    from tsrt.overlay.starttls import ContextFactory

_log = Logger(namespace="tsrt.overlay")

HIGH_WATER = 256 * 1024
"""Bytes written and not acknowledged at which a producer is paused."""

LOW_WATER = 64 * 1024
"""Bytes written and not acknowledged at which it may go on."""

# What Linux takes for the keep-alive of a socket that just asks for one.
KEEP_ALIVE_IDLE = 7200.0
KEEP_ALIVE_INTERVAL = 75.0
KEEP_ALIVE_COUNT = 9


@implementer(ITCPTransport, ITLSTransport, ILoggingContext)
class TailnetTCPTransport:
    """
    One established connection, on either side.

    @ivar protocol: who gets the data; replaced by a TLS layer on startTLS.
    """

    TLS = False
    disconnecting = False
    producer: IPushProducer | IPullProducer | None = None
    streamingProducer = False

    def __init__(
        self,
        context: OverlayContext,
        flow: TCPFlow,
        *,
        isClient: bool,
        onLost: Callable[[Failure], object] | None = None,
    ) -> None:
        """
        @param flow: an established flow; its owner becomes this object.
        @param isClient: which side of a TLS handshake is the default.
        @param onLost: called after the protocol's C{connectionLost}.
        """
        self._context = context
        self._flow = flow
        self._isClient = isClient
        self._onLost = onLost
        self.protocol: IProtocol | None = None
        self.connected = False
        self._readPaused = False
        self._producerPaused = False
        self._writeEnding = False
        self._writeEnded = False
        self._eofSeen = False
        self._delivering = False
        self._keepAlive = False
        self._noDelay = False
        self._peer = twistedAddress("TCP", flow.remoteAddress, flow.remotePort)
        self._host = twistedAddress("TCP", flow.localAddress, flow.localPort)
        flow.owner = self
        flow.writeLowWater = LOW_WATER

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<TailnetTCPTransport {self._host} to {self._peer}, {state}>"

    # -- life -------------------------------------------------------------------

    def attach(self, protocol: IProtocol) -> None:
        """Connect the protocol and give it what has already arrived."""
        self.protocol = protocol
        self.connected = True
        if self._guarded(protocol.makeConnection, self):
            self.stackReady()

    def stackReady(self) -> None:
        """The flow has news: data, room to write, or its end."""
        if not self.connected or self._delivering:
            return
        self._deliver()
        if self.connected:
            self._afterWriting()
        if self.connected and self._flow.closeReason is not None:
            self._lost(_failureFor(self._flow.closeReason))

    def _deliver(self) -> None:
        """Hand on what has arrived, for as long as it is wanted."""
        flow = self._flow
        self._delivering = True
        try:
            while flow.readable and not self._readPaused and self.connected:
                data = flow.read()
                if self.disconnecting:
                    continue  # nobody wants it; reading keeps the window open
                assert self.protocol is not None
                if not self._guarded(self.protocol.dataReceived, data):
                    return
        finally:
            self._delivering = False
        if flow.eof and not self._eofSeen and not self._readPaused and self.connected:
            self._eofSeen = True
            self._readSideEnded()

    def _readSideEnded(self) -> None:
        """The peer has sent all it will send."""
        if self.disconnecting:
            return
        halfCloseable = IHalfCloseableProtocol(self.protocol, None)
        if halfCloseable is not None:
            self._guarded(halfCloseable.readConnectionLost)
            return
        # What was written before still goes out: the stack sends it, and the
        # end after it, without us.
        self._flow.shutdownWrite()
        self._context.flush()
        self._lost(Failure(ConnectionDone()))

    def _lost(self, reason: Failure) -> None:
        """Tell everybody, once, that the connection is over."""
        if not self.connected:
            return
        self.connected = False
        self.disconnecting = False
        self._flow.owner = None
        self._flow.release(self._context.now())
        self._context.flush()
        producer, self.producer = self.producer, None
        if producer is not None:
            self._run(producer.stopProducing)
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            self._run(protocol.connectionLost, reason)
        if self._onLost is not None:
            onLost, self._onLost = self._onLost, None
            onLost(reason)

    def _run(self, call: Callable[..., object], *args: object) -> None:
        """Call user code whose errors change nothing any more."""
        try:
            call(*args)
        except Exception:
            _log.failure("Error in {call!r} of a closed connection", call=call)

    def _guarded(self, call: Callable[..., object], *args: object) -> bool:
        """
        Call user code; an error in it ends this connection and no more.

        @return: whether the call went well and the connection is still there.
        """
        try:
            call(*args)
        except Exception:
            failure = Failure()
            _log.failure(
                "Unhandled error in the protocol of {transport!r}",
                failure=failure,
                transport=self,
            )
            self._flow.abort()
            self._context.flush()
            self._lost(failure)
            return False
        return self.connected

    # -- writing ------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send C{data}, some time."""
        if isinstance(data, str):
            raise TypeError("Data must not be str")
        if self.TLS:
            if self.connected:
                self._tls().write(data)
            return
        self.rawWrite(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces of data, in order."""
        self.write(b"".join(iovec))

    def rawWrite(self, data: bytes) -> None:
        """Send bytes below a TLS layer, if there is one."""
        if not self.connected or self._writeEnded or not data:
            return
        self._flow.write(data)
        if (
            self.producer is not None
            and self.streamingProducer
            and not self._producerPaused
            and self._flow.queued > HIGH_WATER
        ):
            self._producerPaused = True
            cast(IPushProducer, self.producer).pauseProducing()
        self._context.flush()

    def _afterWriting(self) -> None:
        """There may be room to write, or all has been written."""
        queued = self._flow.queued
        if self.producer is not None:
            if queued <= LOW_WATER and (
                not self.streamingProducer or self._producerPaused
            ):
                self._producerPaused = False
                self._guarded(self.producer.resumeProducing)
            return
        if self.disconnecting:
            self._endWriting()
            if queued == 0:
                self._lost(Failure(ConnectionDone()))
        elif self._writeEnding and not self._writeEnded:
            self._endWriting()
            halfCloseable = IHalfCloseableProtocol(self.protocol, None)
            if halfCloseable is not None:
                self._guarded(halfCloseable.writeConnectionLost)

    def _endWriting(self) -> None:
        """Let a FIN follow the last byte."""
        if not self._writeEnded:
            self._writeEnded = True
            self._flow.shutdownWrite()
            self._context.flush()

    # -- closing --------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Close once everything written has reached the peer."""
        if self.TLS:
            if self.connected and not self.disconnecting:
                self._tls().loseConnection()
            return
        self.rawLoseConnection()

    def rawLoseConnection(self) -> None:
        """Close below a TLS layer, if there is one."""
        if not self.connected or self.disconnecting:
            return
        self.disconnecting = True
        self._readPaused = False
        self._soon()

    def loseWriteConnection(self) -> None:
        """Close the sending side; go on receiving."""
        if self.TLS:
            self._tls().loseConnection()
            return
        if self.connected and not self._writeEnding:
            self._writeEnding = True
            self._soon()

    def abortConnection(self) -> None:
        """Close now; what was not yet sent is lost and the peer gets a RST."""
        if not self.connected:
            return
        self._flow.abort()
        self._context.flush()
        self.disconnecting = True
        self._context.reactor.callLater(0, self._lost, Failure(ConnectionAborted()))

    def _soon(self) -> None:
        """Look at the flow in a later turn, outside of the caller's stack."""
        self._context.reactor.callLater(0, self.stackReady)

    # -- producing, to the protocol ---------------------------------------------------

    def pauseProducing(self) -> None:
        """Deliver nothing; the peer's window closes as the buffer fills."""
        self._readPaused = True

    def resumeProducing(self) -> None:
        """Deliver again."""
        if self._readPaused and self.connected and not self.disconnecting:
            self._readPaused = False
            self._soon()

    def stopProducing(self) -> None:
        """Nobody wants more data: close."""
        self.loseConnection()

    # -- consuming, from a producer -----------------------------------------------------

    def registerProducer(
        self, producer: IPushProducer | IPullProducer, streaming: bool
    ) -> None:
        """Take data from C{producer}, as fast as the peer reads it."""
        if self.TLS:
            self._tls().registerProducer(producer, streaming)
            return
        self.rawRegisterProducer(producer, streaming)

    def rawRegisterProducer(
        self, producer: IPushProducer | IPullProducer, streaming: bool
    ) -> None:
        """Register below a TLS layer, if there is one."""
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer} while producer "
                f"{self.producer} is still registered."
            )
        if not self.connected:
            producer.stopProducing()
            return
        self.producer = producer
        self.streamingProducer = streaming
        self._producerPaused = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Stop taking data; a close that waited for this goes on."""
        if self.TLS:
            if self.protocol is not None:
                self._tls().unregisterProducer()
            return
        self.rawUnregisterProducer()

    def rawUnregisterProducer(self) -> None:
        """Unregister below a TLS layer, if there is one."""
        self.producer = None
        if self.connected and (self.disconnecting or self._writeEnding):
            self._soon()

    # -- addresses and options ------------------------------------------------------------

    def getPeer(self) -> IPv4Address | IPv6Address:
        """The tailnet address of the other side."""
        return self._peer

    def getHost(self) -> IPv4Address | IPv6Address:
        """The tailnet address of this side."""
        return self._host

    def getTcpNoDelay(self) -> bool:
        """Whether small writes leave at once (Nagle's algorithm is off)."""
        return self._noDelay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Send small writes at once, or gather them (RFC 896)."""
        self._noDelay = bool(enabled)
        self._flow.setNoDelay(self._noDelay)
        self._context.flush()

    def getTcpKeepAlive(self) -> bool:
        """Whether an idle connection is probed."""
        return self._keepAlive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Probe an idle connection (RFC 9293, 3.8.4)."""
        self._keepAlive = bool(enabled)
        self._flow.setKeepAlive(
            KEEP_ALIVE_IDLE if enabled else None,
            KEEP_ALIVE_INTERVAL,
            KEEP_ALIVE_COUNT,
            now=self._context.now(),
        )
        self._context.flush()

    def logPrefix(self) -> str:
        """How log lines call this connection."""
        protocol = self.protocol
        if ILoggingContext.providedBy(protocol):
            name = protocol.logPrefix()
        else:
            name = type(protocol).__name__
        return f"{name},{'client' if self._isClient else 'server'}"

    # -- TLS ----------------------------------------------------------------------------

    def startTLS(self, tlsContextFactory: ContextFactory, normal: bool = True) -> None:
        """
        Put TLS on the connection.

        @param normal: whether the TLS client is the TCP client.
        """
        from tsrt.overlay.starttls import startTLS

        startTLS(self, tlsContextFactory, self._isClient == bool(normal))

    def _tls(self) -> TLSMemoryBIOProtocol:
        """The TLS layer that startTLS made the protocol."""
        return cast("TLSMemoryBIOProtocol", self.protocol)


def _failureFor(reason: CloseReason) -> Failure:
    """What Twisted's own transport would say of this end."""
    if reason is CloseReason.DONE:
        return Failure(ConnectionDone())
    if reason is CloseReason.ABORTED:
        return Failure(ConnectionAborted())
    texts = {
        CloseReason.RESET: "the peer reset the connection",
        CloseReason.TIMEOUT: "the peer did not answer in time",
        CloseReason.UNREACHABLE: "the peer became unreachable",
        CloseReason.REFUSED: "the peer refused the connection",
    }
    return Failure(ConnectionLost(texts[reason]))

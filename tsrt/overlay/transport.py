"""
A TCP connection of the overlay as a Twisted transport.

The transport meets L{ITCPTransport} in full and L{ITLSTransport}.  Data is
pulled from the flow only while the protocol wants it, so that a paused
protocol closes the TCP window of its peer; and what is written and not yet
acknowledged pauses the producer, so that a slow peer pauses the writer.

All that happens to a protocol happens in a turn of the transport, never inside
of a call that the protocol makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    ILoggingContext,
    IProducer,
    IProtocol,
    IPushProducer,
    ITCPTransport,
    ITLSTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.log import callWithContext
from zope.interface import implementer

from tsrt.netstack.flow import TCPFlow
from tsrt.netstack.tcpstate import CloseReason
from tsrt.overlay.context import OverlayContext, twistedAddress
from tsrt.overlay.feed import Feed

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

    from tsrt.overlay.starttls import ContextFactory

_log = Logger(namespace="tsrt.overlay")

READ_SIZE = 512 * 1024
"""Most bytes that a protocol is given at a time."""

# What Linux takes for the keep-alive of a socket that just asks for one.
KEEP_ALIVE_IDLE = 7200.0
KEEP_ALIVE_INTERVAL = 75.0
KEEP_ALIVE_COUNT = 9


@implementer(ITCPTransport, ITLSTransport, IConsumer, IPushProducer, ILoggingContext)
class TailnetTCPTransport:
    """
    One established connection, on either side.

    @ivar protocol: who gets the data; replaced by a TLS layer on startTLS.
    @ivar connected: whether the protocol still has to be told of the end.
    @ivar disconnecting: whether the connection closes once all is flushed.
    """

    TLS = False

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
        self._feed = Feed(flow)
        self.protocol: IProtocol | None = None
        self.connected = False
        self.disconnecting = False
        self._logPrefix = "-"
        self._inTurn = False
        self._wake: IDelayedCall | None = None
        # Why the connection ends at the end of this turn, or in the next one.
        self._ending: Failure | None = None
        self._readPaused = False
        self._readEnded = False
        self._writeEnding = False
        self._writeEnded = False
        self._keepAlive = False
        self._peer = twistedAddress("TCP", flow.remoteAddress, flow.remotePort)
        self._host = twistedAddress("TCP", flow.localAddress, flow.localPort)
        flow.owner = self
        # Writes of one turn leave together, so that gathering them longer
        # only adds delay.
        self._noDelay = True
        flow.setNoDelay(True)

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<TailnetTCPTransport {self._host} to {self._peer}, {state}>"

    # -- life -------------------------------------------------------------------

    def attach(self, protocol: IProtocol) -> None:
        """Connect the protocol and give it what has already arrived."""
        self.protocol = protocol
        self.connected = True
        if ILoggingContext.providedBy(protocol):
            name = protocol.logPrefix()
        else:
            name = type(protocol).__name__
        if self._isClient:
            self._logPrefix = f"{name},client"
        else:
            self._logPrefix = f"{name},{self._peer.port},{self._peer.host}"
        callWithContext({"system": self._logPrefix}, self._turn, protocol)

    def stackReady(self) -> None:
        """The flow has news: data, room to write, or its end."""
        if self.connected and not self._inTurn:
            callWithContext({"system": self._logPrefix}, self._turn)

    def _turn(self, newcomer: IProtocol | None = None) -> None:
        """
        Bring flow and protocol together, once.

        @param newcomer: the protocol, if it is not connected yet.
        """
        self._inTurn = True
        try:
            if newcomer is None or self._call(newcomer.makeConnection, self):
                self._deliver()
            if self._ending is None:
                self._supply()
            if self._ending is None:
                self._ending = self._endOfFlow()
        finally:
            self._inTurn = False
        if self._ending is not None:
            self._lost(self._ending)

    def _call(self, call: Callable[..., object], *args: object) -> bool:
        """
        Call user code; an error in it ends this connection and no more.

        @return: whether the connection goes on.
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
            # An abort does not hide the mistake.
            self._ending = failure
        return self._ending is None

    def _deliver(self) -> None:
        """Hand on what has arrived, for as long as it is wanted."""
        flow = self._flow
        if flow.readable:
            # What is read makes room that the peer may have to hear of.
            self._context.flush()
        while flow.readable:
            if self.disconnecting:
                # Nobody wants it; but a reset because of it might cost the
                # peer what it has not read of ours.
                flow.read()
                break
            if self._readPaused:
                return
            # Not None: it is only without a protocol that it is disconnecting.
            receiver = cast(IProtocol, self.protocol)
            if not self._call(receiver.dataReceived, flow.read(READ_SIZE)):
                return
        if flow.eof and not self._readEnded and not self._readPaused:
            self._readEnded = True
            if not self.disconnecting:
                self._readSideEnded()

    def _readSideEnded(self) -> None:
        """The peer has sent all it will send."""
        halfCloseable = IHalfCloseableProtocol(self.protocol, None)
        if halfCloseable is not None:
            self._call(halfCloseable.readConnectionLost)
        else:
            # What was written before still goes out: the stack sends it, and
            # the end after it, without us.
            self._ending = Failure(ConnectionDone())

    def _supply(self) -> None:
        """Let the producer fill the room there is, or end what is to end."""
        flow = self._flow
        if flow.closeReason is not None:
            return
        if self._feed.producer is not None and not self._call(self._feed.room):
            return
        if self._feed.producer is not None:
            return
        if self.disconnecting:
            self._endWriting()
            if not flow.queued:
                self._ending = Failure(ConnectionDone())
        elif self._writeEnding and not self._writeEnded:
            self._endWriting()
            halfCloseable = IHalfCloseableProtocol(self.protocol, None)
            if halfCloseable is not None:
                self._call(halfCloseable.writeConnectionLost)

    def _endWriting(self) -> None:
        """Let a FIN follow the last byte."""
        if not self._writeEnded:
            self._writeEnded = True
            self._flow.shutdownWrite()
            self._context.flush()
        # Give notice when the very last byte has arrived.
        self._flow.writeLowWater = 0

    def _endOfFlow(self) -> Failure | None:
        """Why the flow is over; L{None} while it is not, or is still read."""
        reason = self._flow.closeReason
        if reason is None:
            return None
        if reason is CloseReason.DONE:
            if self._readPaused and not self._readEnded and not self.disconnecting:
                return None
            return Failure(ConnectionDone())
        return Failure(ConnectionLost(_LOSSES[reason]))

    def _lost(self, reason: Failure) -> None:
        """Tell everybody, once, that the connection is over."""
        self.connected = False
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        self._flow.owner = None
        self._flow.release(self._context.now())
        self._context.flush()
        self._call(self._feed.stop)
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            self._call(protocol.connectionLost, reason)
        onLost, self._onLost = self._onLost, None
        if onLost is not None:
            self._call(onLost, reason)
        # It may hold frames of the protocol.
        self._ending = None

    def _soon(self) -> None:
        """Have a turn when the caller, who may be the protocol, is done."""
        if self._wake is None:
            self._wake = self._context.reactor.callLater(0, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self.stackReady()

    # -- writing ------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send C{data}, some time; after the end it is dropped."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError("Data must be bytes")
        if not self.TLS:
            self.rawWrite(data)
        elif self.connected:
            self._tls().write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces of data, in order."""
        try:
            data = b"".join(iovec)
        except TypeError:
            raise TypeError("Data must be bytes") from None
        self.write(data)

    def rawWrite(self, data: bytes) -> None:
        """Send bytes below a TLS layer, if there is one."""
        if not self.connected or self._writeEnded or self._ending is not None:
            return
        self._flow.write(data)
        self._context.flush()
        try:
            if self._feed.written():
                self._soon()
        except Exception:
            # It is the producer's mistake, and not that of whoever writes.
            failure = Failure()
            _log.failure("{producer!r} failed", failure, producer=self.producer)
            self._ending = failure
            self._soon()

    # -- closing --------------------------------------------------------------------

    def loseConnection(self) -> None:
        """
        Close once everything written has reached the peer.

        A registered producer may go on writing until it unregisters.
        """
        if not self.TLS:
            self.rawLoseConnection()
        elif self.connected and not self.disconnecting:
            self._tls().loseConnection()

    def rawLoseConnection(self) -> None:
        """Close below a TLS layer, if there is one."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._soon()

    def loseWriteConnection(self) -> None:
        """
        Close the sending side, once everything is sent; go on receiving.

        TLS cannot be left half-open, so under startTLS it is closed.
        """
        if not self.connected:
            return
        if self.TLS:
            self._tls().loseConnection()
        elif not self._writeEnding:
            self._writeEnding = True
            self._soon()

    def abortConnection(self) -> None:
        """Close now; what was not yet sent is lost and the peer gets a RST."""
        if self.connected and self._ending is None:
            self._ending = Failure(ConnectionAborted())
            self._flow.abort()
            self._context.flush()
            self._soon()

    # -- producing, to the protocol ---------------------------------------------------

    def pauseProducing(self) -> None:
        """Deliver nothing; the peer's window closes as the buffer fills."""
        self._readPaused = True

    def resumeProducing(self) -> None:
        """Deliver again."""
        if self._readPaused and self.connected:
            self._readPaused = False
            self._soon()

    # Names that Twisted's own transports have besides, and programs use.
    stopReading = pauseProducing
    startReading = resumeProducing

    def stopProducing(self) -> None:
        """Nobody wants more data: close."""
        self.loseConnection()

    # -- consuming, from a producer -----------------------------------------------------

    @property
    def producer(self) -> IProducer | None:
        """Who is registered as producer below a TLS layer."""
        return self._feed.producer

    @property
    def streamingProducer(self) -> bool:
        """Whether that one has to be paused, rather than asked."""
        return self._feed.streaming

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        Take data from C{producer}, as fast as the peer reads it.

        @raise RuntimeError: there is a producer already.
        """
        if self.TLS and self.connected:
            self._tls().registerProducer(producer, streaming)
        else:
            self.rawRegisterProducer(producer, streaming)

    def rawRegisterProducer(self, producer: IProducer, streaming: bool) -> None:
        """Register below a TLS layer, if there is one."""
        if not self.connected:
            producer.stopProducing()
        elif self._feed.register(producer, streaming):
            self._soon()

    def unregisterProducer(self) -> None:
        """Stop taking data; a close that waited for this goes on."""
        if self.TLS and self.connected:
            self._tls().unregisterProducer()
        else:
            self.rawUnregisterProducer()

    def rawUnregisterProducer(self) -> None:
        """Unregister below a TLS layer, if there is one."""
        self._feed.unregister()
        if self.connected and (self.disconnecting or self._writeEnding):
            self._soon()

    def stopConsuming(self) -> None:
        """The producer has come to its end: close."""
        self.unregisterProducer()
        self.loseConnection()

    # -- addresses and options ------------------------------------------------------------

    def getPeer(self) -> IPv4Address | IPv6Address:
        """The tailnet address of the other side."""
        return self._peer

    def getHost(self) -> IPv4Address | IPv6Address:
        """The tailnet address of this side."""
        return self._host

    def getTcpNoDelay(self) -> bool:
        """Whether small writes leave at once, as they do unless told otherwise."""
        return self._noDelay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Send small writes at once, or gather them (RFC 896)."""
        self._noDelay = bool(enabled)
        self._flow.setNoDelay(self._noDelay)
        self._context.flush()

    def getTcpKeepAlive(self) -> bool:
        """Whether an idle connection is probed."""
        return self._keepAlive

    def setTcpKeepAlive(
        self,
        enabled: bool,
        idle: float = KEEP_ALIVE_IDLE,
        interval: float = KEEP_ALIVE_INTERVAL,
        count: int = KEEP_ALIVE_COUNT,
    ) -> None:
        """
        Probe an idle connection (RFC 9293, 3.8.4).

        @param idle: seconds of silence before the first probe.
        @param interval: seconds between probes.
        @param count: unanswered probes that end the connection.
        """
        self._keepAlive = bool(enabled)
        self._flow.setKeepAlive(
            idle if enabled else None, interval, count, now=self._context.now()
        )
        self._context.flush()

    def logPrefix(self) -> str:
        """How log lines call this connection."""
        return self._logPrefix

    # -- TLS ----------------------------------------------------------------------------

    def startTLS(self, tlsContextFactory: ContextFactory, normal: bool = True) -> None:
        """
        Put TLS on the connection.

        @param normal: whether the TLS client is the TCP client.
        """
        from tsrt.overlay.starttls import startTLS

        clock = self._context.reactor
        startTLS(self, tlsContextFactory, self._isClient == bool(normal), clock)

    def _tls(self) -> TLSMemoryBIOProtocol:
        """The TLS layer that startTLS made the protocol."""
        return cast("TLSMemoryBIOProtocol", self.protocol)


_LOSSES = {
    CloseReason.RESET: "the peer reset the connection",
    CloseReason.TIMEOUT: "the peer did not answer in time",
    CloseReason.UNREACHABLE: "the peer became unreachable",
    CloseReason.REFUSED: "the peer refused the connection",
    CloseReason.ABORTED: "this node lost the address of the connection",
}

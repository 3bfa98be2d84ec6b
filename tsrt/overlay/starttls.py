"""TLS in the middle of an overlay connection (L{ITLSTransport})."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLContextFactory,
    IOpenSSLServerConnectionCreator,
    IProducer,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import alsoProvides

if TYPE_CHECKING:
    from tsrt.overlay.transport import TailnetTCPTransport


ContextFactory: TypeAlias = (
    "IOpenSSLContextFactory"
    " | IOpenSSLClientConnectionCreator"
    " | IOpenSSLServerConnectionCreator"
)


class BelowTLS:
    """
    The transport as the TLS layer sees it.

    What TLS changes goes to the bytes below; everything else is the
    transport's own.
    """

    def __init__(self, transport: TailnetTCPTransport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send sealed bytes."""
        self._transport.rawWrite(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send pieces of sealed bytes."""
        self._transport.rawWrite(b"".join(iovec))

    def loseConnection(self) -> None:
        """Close after the sealed bytes."""
        self._transport.rawLoseConnection()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Let the flow's window pace the TLS layer."""
        self._transport.rawRegisterProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Stop pacing the TLS layer."""
        self._transport.rawUnregisterProducer()


def startTLS(
    transport: TailnetTCPTransport,
    contextFactory: ContextFactory,
    isClient: bool,
    clock: IReactorTime,
) -> None:
    """
    Put a TLS layer between C{transport} and its protocol.

    @param contextFactory: an C{IOpenSSLClientConnectionCreator}, an
        C{IOpenSSLServerConnectionCreator} or a context factory.
    @param isClient: which side of the handshake this is.
    @param clock: where the layer waits for the end of a turn.
    """
    producer, streaming = transport.producer, transport.streamingProducer
    if producer is not None:
        transport.unregisterProducer()
    factory = TLSMemoryBIOFactory(contextFactory, isClient, Factory(), clock)
    assert transport.protocol is not None
    layer = factory.protocol(factory, transport.protocol, False)
    transport.protocol = layer
    transport.getHandle = layer.getHandle  # type: ignore[attr-defined]  # L{ISSLTransport} comes with the layer
    transport.getPeerCertificate = layer.getPeerCertificate  # type: ignore[attr-defined]  # as above
    alsoProvides(transport, ISSLTransport)
    transport.TLS = True
    layer.makeConnection(BelowTLS(transport))
    if producer is not None:
        transport.registerProducer(producer, streaming)

"""
TLS for those who have whole batches to say, and want to know when one is over.

What Twisted wraps a client in collects what is written until the next turn of the
reactor, since many small writes would each become a record.  Who writes a batch at
once gains nothing by that and waits for a turn.  On the way in a record after the
other is handed on, and nothing tells which one is the last of a read.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from tsrt.interfaces import IReadListener


class PromptTLS(TLSMemoryBIOProtocol):
    """Seals each write at once, and tells an L{IReadListener} of the end of reads."""

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        super().dataReceived(data)
        listener = self.wrappedProtocol
        if IReadListener.providedBy(listener):
            listener.readOver()


class PromptTLSFactory(TLSMemoryBIOFactory):
    """Makes L{PromptTLS}."""

    protocol = PromptTLS


@implementer(IStreamClientEndpoint)
class PromptTLSEndpoint:
    """Wraps another endpoint in TLS."""

    def __init__(
        self,
        reactor: IReactorTime,
        creator: IOpenSSLClientConnectionCreator,
        endpoint: IStreamClientEndpoint,
    ) -> None:
        """
        @param creator: knows the server and what its certificate must be.
        @param endpoint: leads to the server.
        """
        self._reactor = reactor
        self._creator = creator
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{IStreamClientEndpoint}."""
        factory = PromptTLSFactory(self._creator, True, protocolFactory, self._reactor)
        return self._endpoint.connect(factory).addCallback(_wrapped)


def _wrapped(protocol: IProtocol) -> IProtocol:
    assert isinstance(protocol, PromptTLS)
    wrapped: IProtocol = protocol.wrappedProtocol
    return wrapped

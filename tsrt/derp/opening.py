"""
What all connections with relay servers have in common as they begin.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.derp.failures import RelayLost
from tsrt.derp.tls import certificateAccepted, certificateProblem
from tsrt.errors import RelayCertificateError, RelayError
from tsrt.tailcfg import DERPNode


@implementer(IHandshakeListener)
class OpeningProtocol(Protocol):
    """
    Waits for TLS, where there is any, and judges it; the rest is up to
    subclasses.  Nothing is said to a server with a wrong certificate.

    @ivar ready: fires with C{None} when the server has proved useful, or fails
        with a L{RelayError}.
    """

    def __init__(self, node: DERPNode, isTLS: bool) -> None:
        """
        @param node: the server.
        @param isTLS: whether the connection is TLS, so that its handshake has
            to be waited for.
        """
        self.node = node
        self.isOver = False
        self._isTLS = isTLS
        self.ready: Deferred[None] = Deferred(lambda _: self.abort())

    def opened(self) -> None:
        """The connection can be spoken on; subclasses begin here."""

    def connectionMade(self) -> None:
        """See L{IProtocol}."""
        # Packets must not wait until the relay has acknowledged those before.
        ITCPTransport(self.transport).setTcpNoDelay(True)
        if not self._isTLS:
            self.opened()

    def handshakeCompleted(self) -> None:
        """See L{IHandshakeListener}."""
        if self.isOver:
            return
        if certificateAccepted(self.transport):
            self.opened()
        else:
            self.fail(
                certificateProblem(self.transport)
                or RelayCertificateError("the relay's certificate was not judged")
            )

    def succeed(self) -> None:
        """The server has proved useful."""
        if not self.isOver:
            self.isOver = True
            self.ready.callback(None)

    def fail(self, reason: RelayError) -> None:
        """The server is of no use."""
        if not self.isOver:
            self.abort()
            self.ready.errback(Failure(reason))

    def abort(self) -> None:
        """Hang up at once."""
        self.isOver = True
        if self.transport is not None:
            ITCPTransport(self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}."""
        if self.isOver:
            return
        self.isOver = True
        problem = certificateProblem(self.transport)
        self.ready.errback(
            Failure(
                problem
                or RelayLost(
                    f"{self.node.hostName} hung up before it was of use: "
                    f"{reason.getErrorMessage()}"
                )
            )
        )

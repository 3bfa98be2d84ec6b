"""
From a fresh connection to a relay's greeting.

Usually that is an HTTP upgrade, whose answer is followed by the server's key.
A server that told its key during the TLS handshake need not be waited for
(fast start): the login can follow the request at once.
"""

from __future__ import annotations

import re

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.derp.failures import (
    RelayLost,
    RelayProtocolError,
    RelayRefused,
    RelayUnreachable,
)
from tsrt.derp.tls import announcedKey, certificateAccepted, certificateProblem
from tsrt.errors import RelayCertificateError, RelayError, WireError
from tsrt.wire import derp
from tsrt.wire.derp import FrameSplitter, FrameType
from tsrt.wire.httphead import ResponseHeadParser

_HOST = re.compile(r"[0-9A-Za-z._:-]{1,253}\Z")
_NODE_NAME = re.compile(r"[0-9A-Za-z._-]{1,64}\Z")


@frozen
class Greeting:
    """What is known when the login can begin."""

    serverKey: bytes
    splitter: FrameSplitter
    frames: list[tuple[int, bytes]]
    """Frames that came right behind the server's key."""

    fastStart: bool


def upgradeRequest(host: str, idealNode: str = "", fastStart: bool = False) -> bytes:
    """
    The request that turns an HTTP connection into DERP.

    @param host: the name of the server.
    @param idealNode: the name of the node that should have been reached, when
        it is another one.
    @raise WireError: when C{host} is not a host name.
    """
    # Both come from the relay map, and a line break would be a new header.
    if not _HOST.match(host):
        raise WireError("the relay map has a malformed host name")
    lines = [
        "GET /derp HTTP/1.1",
        f"Host: [{host}]" if ":" in host else f"Host: {host}",
        "User-Agent: tsrt",
        "Connection: Upgrade",
        "Upgrade: DERP",
    ]
    if _NODE_NAME.match(idealNode):
        lines.append(f"Ideal-Node: {idealNode}")
    if fastStart:
        lines.append("Derp-Fast-Start: 1")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


@implementer(IHandshakeListener)
class UpgradeProtocol(Protocol):
    """
    Gets the greeting, and then passes everything on to the real protocol.

    @ivar greeted: fires with this protocol when the login can begin, or fails
        with a L{RelayError}.
    """

    def __init__(self, host: str, idealNode: str, isTLS: bool) -> None:
        """
        @param host: the name of the server.
        @param idealNode: see L{upgradeRequest}.
        @param isTLS: whether the connection is TLS, so that its handshake has
            to be waited for.
        """
        self.greeting: Greeting | None = None
        self._host = host
        self._idealNode = idealNode
        self._isTLS = isTLS
        self._head: ResponseHeadParser | None = ResponseHeadParser()
        self._splitter = FrameSplitter()
        self._inner: IProtocol | None = None
        self._isOver = False
        self.greeted: Deferred[UpgradeProtocol] = Deferred(lambda _: self.abort())

    def connectionMade(self) -> None:
        """See L{IProtocol}."""
        if not self._isTLS:
            self._request(None)

    def handshakeCompleted(self) -> None:
        """See L{IHandshakeListener}."""
        if certificateAccepted(self.transport):
            self._request(announcedKey(self.transport))
        else:
            self._fail(
                certificateProblem(self.transport)
                or RelayCertificateError("the relay's certificate was not judged")
            )

    def _request(self, serverKey: bytes | None) -> None:
        if self.transport is None or self._isOver:
            return
        try:
            request = upgradeRequest(self._host, self._idealNode, serverKey is not None)
        except WireError as malformed:
            self._fail(RelayUnreachable(str(malformed)))
            return
        self.transport.write(request)
        if serverKey is not None:
            self._head = None
            self._greet(Greeting(serverKey, self._splitter, [], True))

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self._isOver:
            return
        try:
            self._consume(data)
        except WireError as malformed:
            self._fail(RelayProtocolError(f"{self._host}: {malformed}"))

    def _consume(self, data: bytes) -> None:
        if self._head is not None:
            answer = self._head.feed(data)
            if answer is None:
                return
            head, data = answer
            if head.status != 101:
                self._fail(
                    RelayRefused(
                        f"{self._host} answers the upgrade to DERP with "
                        f"{head.statusText}",
                        advice="A proxy in front of the relay may have dropped "
                        "the Upgrade header, or this is not a relay.",
                    )
                )
                return
            self._head = None
        frames = self._splitter.feed(data)
        if not frames:
            return
        kind, payload = frames[0]
        if kind != FrameType.SERVER_KEY:
            raise WireError("the relay does not begin with its key")
        key = derp.parseServerKey(payload)
        self._greet(Greeting(key, self._splitter, frames[1:], False))

    def _greet(self, greeting: Greeting) -> None:
        self.greeting = greeting
        self._isOver = True
        self.greeted.callback(self)

    def _fail(self, reason: RelayError) -> None:
        if self._isOver:
            return
        self._isOver = True
        self.abort()
        self.greeted.errback(Failure(reason))

    def abort(self) -> None:
        """Hang up at once."""
        self._isOver = True
        if self.transport is not None:
            ITCPTransport(self.transport).abortConnection()

    def handOver(self, factory: IProtocolFactory) -> IProtocol | None:
        """
        Give the connection to a protocol of C{factory}.

        @return: that protocol, or C{None} when the factory does not want any.
        """
        assert self.transport is not None
        inner = factory.buildProtocol(self.transport.getPeer())
        if inner is None:
            self.abort()
            return None
        self._inner = inner
        inner.makeConnection(self.transport)
        return inner

    def disown(self) -> None:
        """Take the connection back from a protocol that never used it."""
        self._inner = None
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}."""
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)
        elif not self._isOver:
            self._isOver = True
            self.greeted.errback(Failure(self._why(reason)))

    def _why(self, reason: Failure) -> RelayError:
        problem = certificateProblem(self.transport)
        if problem is not None:
            return problem
        return RelayLost(
            f"{self._host} hung up before the relay began: {reason.getErrorMessage()}"
        )

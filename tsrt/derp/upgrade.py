"""
From a fresh connection to a relay's greeting.

Usually that is an HTTP upgrade, whose answer is followed by the server's key.
A server that told its key during the TLS handshake need not be waited for
(fast start): the login can follow the request at once.
"""

from __future__ import annotations

import re

from attrs import frozen
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.derp.failures import RelayProtocolError, RelayRefused
from tsrt.derp.opening import OpeningProtocol
from tsrt.derp.tls import announcedKey
from tsrt.errors import WireError
from tsrt.interfaces import IReadListener
from tsrt.tailcfg import DERPNode
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


def httpHost(host: str) -> str:
    """
    C{host} as it may stand in a request.

    @raise WireError: when it is not a host name.
    """
    # Names come from the relay map, and a line break would be a new header.
    if not _HOST.match(host):
        raise WireError("the relay map has a malformed host name")
    return f"[{host}]" if ":" in host else host


def upgradeRequest(host: str, idealNode: str = "", fastStart: bool = False) -> bytes:
    """
    The request that turns an HTTP connection into DERP.

    @param host: the name of the server.
    @param idealNode: the name of the node that should have been reached, when
        it is another one.
    @raise WireError: when C{host} is not a host name.
    """
    lines = [
        "GET /derp HTTP/1.1",
        f"Host: {httpHost(host)}",
        "User-Agent: tsrt",
        "Connection: Upgrade",
        "Upgrade: DERP",
    ]
    if _NODE_NAME.match(idealNode):
        lines.append(f"Ideal-Node: {idealNode}")
    if fastStart:
        lines.append("Derp-Fast-Start: 1")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


@implementer(IReadListener)
class UpgradeProtocol(OpeningProtocol):
    """
    Gets the greeting, and then passes everything on to the real protocol.

    It is ready when the login can begin.

    @ivar greeting: what is known then.
    """

    def __init__(self, node: DERPNode, idealNode: str, isTLS: bool) -> None:
        """
        @param node: the server.
        @param idealNode: see L{upgradeRequest}.
        @param isTLS: whether the connection is TLS.
        """
        super().__init__(node, isTLS)
        self.greeting: Greeting | None = None
        self._idealNode = idealNode
        self._head: ResponseHeadParser | None = ResponseHeadParser()
        self._splitter = FrameSplitter()
        self._inner: IProtocol | None = None

    def opened(self) -> None:
        """Ask for the upgrade; with the server's key there is no need to wait."""
        if self.transport is None:
            return
        serverKey = announcedKey(self.transport)
        self.transport.write(
            upgradeRequest(self.node.hostName, self._idealNode, serverKey is not None)
        )
        if serverKey is not None:
            self._head = None
            self._greet(Greeting(serverKey, self._splitter, [], True))

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self.isOver:
            return
        try:
            self._consume(data)
        except WireError as malformed:
            self.fail(RelayProtocolError(f"{self.node.hostName}: {malformed}"))

    def _consume(self, data: bytes) -> None:
        if self._head is not None:
            answer = self._head.feed(data)
            if answer is None:
                return
            head, data = answer
            if head.status != 101:
                self.fail(
                    RelayRefused(
                        f"{self.node.hostName} answers the upgrade to DERP with "
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
        self.succeed()

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

    def readOver(self) -> None:
        """See L{IReadListener}."""
        if self._inner is not None and IReadListener.providedBy(self._inner):
            self._inner.readOver()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}."""
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)
        else:
            super().connectionLost(reason)

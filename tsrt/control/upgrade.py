"""
The HTTP/1.1 request that turns a connection into a Noise connection.
"""

from __future__ import annotations

import base64

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.control.noiselayer import NoiseLayer
from tsrt.control.reach import unreachable
from tsrt.control.steps import NOISE, TLS, StepLog
from tsrt.control.tlsoptions import NotedTLS
from tsrt.crypto.noise import IKInitiator
from tsrt.errors import UpgradeRefused, WireError
from tsrt.wire.httphead import ResponseHead, ResponseHeadParser

_log = Logger(namespace="tsrt.control")

UPGRADE_PATH = "/ts2021"
UPGRADE_PROTOCOL = "tailscale-control-protocol"

_EXCERPT = 200


@implementer(IHandshakeListener)
class UpgradeProtocol(Protocol):
    """
    Asks for the upgrade, and from the C{101} on hands everything to a
    L{NoiseLayer}.

    @ivar done: fires with the L{NoiseLayer} once its handshake is complete.
        It fails with L{UpgradeRefused} when something else answers, and with
        what the Noise handshake fails with.  Cancelling it aborts the
        connection.
    """

    def __init__(
        self,
        initiator: IKInitiator,
        *,
        authority: str,
        path: str,
        where: str,
        steps: StepLog,
        tls: NotedTLS | None,
    ) -> None:
        """
        @param initiator: our side of a handshake that nobody else uses.
        @param authority: for the Host header.
        @param path: what to ask for.
        @param where: scheme, host and port, for messages.
        @param steps: where the steps are noted.
        @param tls: tells of the certificate; C{None} when there is no TLS.
        """
        self._initiator = initiator
        self._authority = authority
        self._path = path
        self._where = where
        self._steps = steps
        self._tls = tls
        self._parser: ResponseHeadParser | None = ResponseHeadParser()
        self._noise: NoiseLayer | None = None
        self._over = False
        self.done: Deferred[NoiseLayer] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        """Send the request; with TLS it waits for the handshake by itself."""
        self._steps.begin(NOISE, self._where)
        # A request must not wait until the one before was acknowledged.
        ITCPTransport(self.transport).setTcpNoDelay(True)
        handshake = base64.b64encode(self._initiator.initiation()).decode("ascii")
        self._write(
            f"POST {self._path} HTTP/1.1\r\n"
            f"Host: {self._authority}\r\n"
            f"Upgrade: {UPGRADE_PROTOCOL}\r\n"
            "Connection: upgrade\r\n"
            f"X-Tailscale-Handshake: {handshake}\r\n"
            "Content-Length: 0\r\n"
            "\r\n"
        )

    def _write(self, text: str) -> None:
        if self.transport is not None:
            self.transport.write(text.encode("ascii"))

    def handshakeCompleted(self) -> None:
        """See L{IHandshakeListener}."""
        self._steps.succeeded(TLS, self._where)
        problem = None if self._tls is None else self._tls.problem()
        if problem is not None:
            _log.warn(
                "{where}: {problem}; going on, as the Noise handshake proves the "
                "server's key",
                where=self._where,
                problem=problem,
            )

    def dataReceived(self, data: bytes) -> None:
        """First the head of the response, then records."""
        if self._noise is not None:
            self._noise.dataReceived(data)
            return
        if self._parser is None:
            return
        try:
            result = self._parser.feed(data)
        except WireError as error:
            self._refuse(UpgradeRefused(f"{self._where}: {error}"))
            return
        if result is not None:
            self._parser = None
            self._headReceived(*result)

    def _headReceived(self, head: ResponseHead, surplus: bytes) -> None:
        protocol = head.header("upgrade")
        if head.status != 101 or protocol != UPGRADE_PROTOCOL:
            self._refuse(_refusal(self._where, head, surplus))
            return
        noise = NoiseLayer(self._initiator, where=self._where)
        self._noise = noise
        noise.handshake.addCallbacks(self._established, self._handshakeFailed)
        transport = self.transport
        if transport is not None:
            noise.makeConnection(transport)
        if surplus:
            noise.dataReceived(surplus)

    def _established(self, noise: NoiseLayer) -> None:
        self._steps.succeeded(NOISE, self._where)
        self._over = True
        self.done.callback(noise)

    def _handshakeFailed(self, failure: Failure) -> None:
        self._steps.failed(NOISE, failure.getErrorMessage())
        if not self._over:
            self._over = True
            self.done.errback(failure)

    def _refuse(self, error: UpgradeRefused) -> None:
        self._parser = None
        self._steps.failed(NOISE, str(error))
        if not self._over:
            self._over = True
            self._abort()
            self.done.errback(error)

    def _abort(self) -> None:
        self._over = True
        transport = self.transport
        if transport is not None:
            getattr(transport, "abortConnection", transport.loseConnection)()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The connection is gone, perhaps before it was any good."""
        self.transport = None
        if self._noise is not None:
            self._noise.connectionLost(reason)
        elif not self._over and reason is not None:
            self._over = True
            error = unreachable(reason, self._where, self._steps)
            self._steps.failed(NOISE, str(error))
            self.done.errback(error)


def _refusal(where: str, head: ResponseHead, surplus: bytes) -> UpgradeRefused:
    """Say what came instead of the upgrade."""
    text = f"{where} answered the upgrade with HTTP {head.statusText}"
    kind = (head.header("content-type") or "").lower()
    excerpt = surplus[:_EXCERPT].decode("utf-8", "replace").strip()
    location = head.header("location")
    if head.status == 101:
        text = f"{where} upgraded to {head.header('upgrade')!r}, not to the control protocol"
    elif location is not None:
        text += f" and sends us to {location[:_EXCERPT]}"
    elif "html" in kind or excerpt.startswith("<"):
        text += " and an HTML page"
    elif excerpt:
        text += f": {' '.join(excerpt.split())}"
    if head.status == 404:
        return UpgradeRefused(
            text,
            advice="Check that the login server's address is a control server's, "
            f"and that a proxy in front of it passes {UPGRADE_PATH} through.",
        )
    return UpgradeRefused(text)

"""
Ordinary HTTP to the control server's own host, outside of Noise.

Certificates are verified, redirects are not followed, and no other host is
ever asked.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    UNKNOWN_LENGTH,
    IAgentEndpointFactory,
    IBodyProducer,
    IResponse,
)
from zope.interface import implementer

from tsrt._version import __version__
from tsrt.control.reach import NotedEndpoint, isAddress
from tsrt.control.steps import TLS, StepLog
from tsrt.control.tlsoptions import verifiedTLS
from tsrt.control.urls import ControlURL
from tsrt.interfaces import IStreamDialer

LARGEST_ANSWER = 64 * 1024
"""Bytes of an answer that are read."""


class TooLong(Exception):
    """The answer exceeds the limit."""


class _BodyCollector(Protocol):
    """Collects the body of a response up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self.done: Deferred[bytes] = Deferred(lambda _: self._close())

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        self._parts.append(data)
        if self._size > self._limit:
            self._parts.clear()
            self._close()
            self._finish(TooLong())

    def connectionLost(self, reason: Failure | None = None) -> None:
        whole = reason is None or isinstance(
            reason.value, ResponseDone | PotentialDataLoss
        )
        self._finish(None if whole or reason is None else reason.value)

    def _finish(self, error: BaseException | None) -> None:
        if self.done.called:
            return
        if error is None:
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(error)


@implementer(IAgentEndpointFactory)
class _EndpointFactory:
    """Lets an Agent connect as everything else of ours does."""

    def __init__(self, dialer: IStreamDialer, steps: StepLog) -> None:
        self._dialer = dialer
        self._steps = steps

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See L{IAgentEndpointFactory}."""
        host = uri.host.decode("ascii").strip("[]")
        isTLS = uri.scheme == b"https"
        creator = verifiedTLS(host, self._dialer.trustRoot) if isTLS else None
        return NotedEndpoint(
            self._dialer.endpoint(host, uri.port, creator),
            self._steps,
            uri.netloc.decode("ascii"),
            resolves=not isAddress(host),
            tls=isTLS,
        )


@implementer(IBodyProducer)
class _Body:
    """The body of a request that is whole in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See L{IBodyProducer}."""
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """See L{IBodyProducer}: it is all written already."""

    def resumeProducing(self) -> None:
        """See L{IBodyProducer}: it is all written already."""

    def stopProducing(self) -> None:
        """See L{IBodyProducer}: it is all written already."""


@frozen
class PlainAnswer:
    """
    A whole response.

    @ivar status: the HTTP status code.
    @ivar reason: the words behind it.
    @ivar body: empty unless the status is 2xx.
    """

    status: int
    reason: str
    body: bytes


class PlainHTTP:
    """Requests to one control server."""

    def __init__(
        self,
        reactor: IReactorTime,
        dialer: IStreamDialer,
        url: ControlURL,
        *,
        steps: StepLog,
    ) -> None:
        """
        @param reactor: the clock.
        @param dialer: makes the connections.
        @param url: the server.
        @param steps: where the steps are noted.
        """
        self._url = url
        self._steps = steps
        pool = HTTPConnectionPool(reactor, persistent=False)
        self._agent: Agent = Agent.usingEndpointFactory(
            reactor, _EndpointFactory(dialer, steps), pool=pool
        )

    async def request(
        self, method: str, path: str, body: bytes | None = None
    ) -> PlainAnswer:
        """
        Make a request.

        @param path: with the query, if there is one; the prefix of the URL
            goes in front.
        @raise TooLong: when the answer exceeds L{LARGEST_ANSWER}.
        """
        response: IResponse = await self._agent.request(
            method.encode("ascii"),
            f"{self._url.text}{path}".encode("ascii"),
            Headers({"User-Agent": [f"tsrt/{__version__}"]}),
            None if body is None else _Body(body),
        )
        if self._url.scheme == "https":
            self._steps.succeeded(TLS, self._url.authority)
        collector = _BodyCollector(LARGEST_ANSWER)
        response.deliverBody(collector)
        good = 200 <= response.code < 300
        length = response.length
        tooLong = length is not UNKNOWN_LENGTH and length > LARGEST_ANSWER
        if method == "HEAD" or not good or tooLong:
            collector.done.addErrback(lambda _: None)
            collector.done.cancel()
            if good and tooLong and method != "HEAD":
                raise TooLong
            content = b""
        else:
            content = await collector.done
        reason = response.phrase.decode("latin-1", "replace")[:80]
        return PlainAnswer(response.code, reason, content)

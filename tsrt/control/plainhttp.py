"""
Ordinary HTTP to the control server's own host, outside of Noise.

Certificates are verified, redirects are not followed, and no other host is
ever asked.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgentEndpointFactory, IResponse
from zope.interface import implementer

from tsrt._version import __version__
from tsrt.control.reach import NotedEndpoint, isAddress
from tsrt.control.steps import TLS, StepLog
from tsrt.control.tlsoptions import verifiedTLS
from tsrt.control.urls import ControlURL
from tsrt.httpbody import BodyCollector, TooLong, WholeBody
from tsrt.interfaces import IStreamDialer

LARGEST_ANSWER = 64 * 1024
"""Bytes of an answer that are read unless more is asked for."""


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
    """Requests to one server."""

    def __init__(
        self,
        reactor: IReactorTime,
        dialer: IStreamDialer,
        url: ControlURL,
        *,
        steps: StepLog,
        limit: int = LARGEST_ANSWER,
    ) -> None:
        """
        @param reactor: the clock.
        @param dialer: makes the connections.
        @param url: the server.
        @param steps: where the steps are noted.
        @param limit: bytes of an answer that are read.
        """
        self._limit = limit
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
        @raise TooLong: when the answer exceeds the limit.
        """
        response: IResponse = await self._agent.request(
            method.encode("ascii"),
            f"{self._url.text}{path}".encode("ascii"),
            Headers({"User-Agent": [f"tsrt/{__version__}"]}),
            None if body is None else WholeBody(body),
        )
        if self._url.scheme == "https":
            self._steps.succeeded(TLS, self._url.authority)
        collector = BodyCollector(self._limit)
        response.deliverBody(collector)
        good = 200 <= response.code < 300
        length = response.length
        tooLong = length is not UNKNOWN_LENGTH and length > self._limit
        if method == "HEAD" or not good or tooLong:
            collector.done.addErrback(lambda _: None)
            collector.done.cancel()
            if good and tooLong and method != "HEAD":
                raise TooLong(self._limit)
            content = b""
        else:
            content = await collector.done
        reason = response.phrase.decode("latin-1", "replace")[:80]
        return PlainAnswer(response.code, reason, content)

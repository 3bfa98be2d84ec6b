"""HTTP over the tailnet: an Agent, and who is asking."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
)
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IPolicyForHTTPS
from twisted.web.resource import IResource, Resource
from zope.interface import implementer

from tsrt.endpoints import DEFAULT_TIMEOUT, TailnetClientEndpoint
from tsrt.errors import TSRTError
from tsrt.netmap.whois import WhoIs
from tsrt.reactor import TailnetReactor

if TYPE_CHECKING:
    from twisted.web.server import Request


def makeAgent(
    tailnet: TailnetReactor,
    contextFactory: IPolicyForHTTPS | None = None,
    pool: HTTPConnectionPool | None = None,
    connectTimeout: float | None = None,
) -> IAgent:
    """
    Make an agent whose connections run through the tailnet.

    @param contextFactory: how https:// URLs are verified; Twisted's own policy
        by default.
    @param pool: keeps connections for later requests; none are kept by
        default.
    @param connectTimeout: seconds for all of a connection attempt, waiting
        for the node included.
    """
    endpoints = TailnetEndpointFactory(
        tailnet,
        BrowserLikePolicyForHTTPS() if contextFactory is None else contextFactory,
        DEFAULT_TIMEOUT if connectTimeout is None else connectTimeout,
    )
    return cast(IAgent, Agent.usingEndpointFactory(tailnet, endpoints, pool))


@implementer(IAgentEndpointFactory)
class TailnetEndpointFactory:
    """Finds the way to the server of a URL."""

    def __init__(
        self, tailnet: TailnetReactor, policy: IPolicyForHTTPS, timeout: float
    ) -> None:
        """
        @param policy: how the certificates of https:// servers are verified.
        @param timeout: seconds for all of a connection attempt.
        """
        self._tailnet = tailnet
        self._policy = policy
        self._timeout = timeout

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """
        The endpoint of the server.

        @raise SchemeNotSupported: the URL is neither http nor https.
        """
        endpoint = TailnetClientEndpoint(
            lambda: self._tailnet,
            uri.host.decode("ascii").strip("[]"),
            uri.port,
            self._timeout,
        )
        if uri.scheme in (b"http", b"ws"):
            return endpoint
        if uri.scheme in (b"https", b"wss"):
            creator = self._policy.creatorForNetloc(uri.host, uri.port)
            return wrapClientTLS(creator, endpoint, clock=self._tailnet)
        raise SchemeNotSupported(f"Unsupported scheme: {uri.scheme!r}")


class WhoIsResource(Resource):
    """
    Gives each request to a resource that is made for its caller.

    Requests from unknown addresses are refused.
    """

    def __init__(
        self, whois: Callable[[str], WhoIs], makeResource: Callable[[WhoIs], IResource]
    ) -> None:
        """
        @param whois: the node's C{whois}.
        @param makeResource: gives the resource for one caller; it may be a
            leaf.
        """
        super().__init__()
        self._whois = whois
        self._makeResource = makeResource

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        """Find out who is asking, and let their resource take the path."""
        # They are lists while resources are looked up.
        assert request.postpath is not None and request.prepath is not None
        request.postpath.insert(0, request.prepath.pop())
        return self._resourceFor(request)

    def render(self, request: Request) -> object:
        """Render the caller's resource itself."""
        return self._resourceFor(request).render(request)

    def _resourceFor(self, request: Request) -> IResource:
        address = getattr(request.getClientAddress(), "host", "")
        try:
            caller = self._whois(address)
        except TSRTError:
            return cast(IResource, Forbidden("unknown caller"))
        return self._makeResource(caller)


class Forbidden(Resource):
    """Answers everything with 403."""

    isLeaf = True

    def __init__(self, reason: str) -> None:
        """
        @param reason: one line for the reader.
        """
        super().__init__()
        self._reason = reason

    def render(self, request: Request) -> bytes:
        """Refuse."""
        request.setResponseCode(403)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return self._reason.encode("utf-8") + b"\n"


def requireCapability(
    whois: Callable[[str], WhoIs], capability: str, resource: IResource
) -> WhoIsResource:
    """
    Let only callers with a capability, granted by the policy, to C{resource}.

    @param whois: the node's C{whois}.
    """
    refused = cast(IResource, Forbidden(f"this needs the capability {capability}"))
    return WhoIsResource(
        whois, lambda caller: resource if caller.can(capability) else refused
    )

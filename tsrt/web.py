"""HTTP over the tailnet: an Agent, and who is asking."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IAgent, IPolicyForHTTPS
from twisted.web.resource import Resource

from tsrt.errors import TSRTError
from tsrt.netmap.whois import WhoIs
from tsrt.reactor import TailnetReactor

if TYPE_CHECKING:
    from twisted.web.http import Request


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
    """
    if contextFactory is None:
        return Agent(tailnet, connectTimeout=connectTimeout, pool=pool)
    return Agent(
        tailnet,
        contextFactory=contextFactory,
        connectTimeout=connectTimeout,
        pool=pool,
    )


class WhoIsResource(Resource):
    """
    Gives each request to a resource that is made for its caller.

    Requests from unknown addresses are refused.
    """

    def __init__(
        self, whois: Callable[[str], WhoIs], makeResource: Callable[[WhoIs], Resource]
    ) -> None:
        """
        @param whois: the node's C{whois}.
        @param makeResource: makes the resource for one caller.
        """
        super().__init__()
        self._whois = whois
        self._makeResource = makeResource

    def getChildWithDefault(self, path: bytes, request: Request) -> Resource:
        """Find out who is asking and go on there."""
        child = self._resourceFor(request).getChildWithDefault(path, request)
        return cast(Resource, child)

    def render(self, request: Request) -> object:
        """Render the caller's resource itself."""
        return self._resourceFor(request).render(request)

    def _resourceFor(self, request: Request) -> Resource:
        address = getattr(request.getClientAddress(), "host", "")
        try:
            caller = self._whois(address)
        except TSRTError:
            return Forbidden("unknown caller")
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
    whois: Callable[[str], WhoIs], capability: str, resource: Resource
) -> Resource:
    """
    Let only callers with a capability, granted by the policy, to C{resource}.

    @param whois: the node's C{whois}.
    """
    refused = Forbidden(f"this needs the capability {capability}")
    return WhoIsResource(
        whois, lambda caller: resource if caller.can(capability) else refused
    )

"""The metrics of a node for Prometheus, and whether it is well."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint
from twisted.web.http import Request
from twisted.web.resource import Resource

from tsrt.errors import NotRunning
from tsrt.runtime.status import NodeStatus
from tsrt.services.listening import ListeningService
from tsrt.services.quietsite import QuietSite

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Page(Resource):
    """One page, made when it is asked for."""

    isLeaf = True

    def __init__(self, make: Callable[[], tuple[int, str]]) -> None:
        """
        @param make: gives the status of HTTP and the text.
        """
        super().__init__()
        self._make = make

    def render_GET(self, request: Request) -> bytes:
        """See L{Resource}."""
        code, text = self._make()
        request.setResponseCode(code)
        request.setHeader("Content-Type", CONTENT_TYPE)
        return text.encode()


class MetricsService(ListeningService):
    """Serves C{/metrics} and C{/healthz}."""

    def __init__(
        self,
        reactor: IReactorTime,
        listenOn: IStreamServerEndpoint,
        metrics: Callable[[], str],
        status: Callable[[], NodeStatus],
    ) -> None:
        """
        @param metrics: gives the text; raises L{NotRunning} when there is none.
        @param status: gives the node's status.
        """
        self._metrics = metrics
        self._status = status
        root = Resource()
        root.putChild(b"metrics", _Page(self._metricsPage))
        root.putChild(b"healthz", _Page(self._health))
        super().__init__(listenOn, QuietSite(root, reactor=reactor))

    def _metricsPage(self) -> tuple[int, str]:
        try:
            return 200, self._metrics()
        except NotRunning as error:
            return 503, f"# {error}\n"

    def _health(self) -> tuple[int, str]:
        status = self._status()
        lines = [status.state.value, *status.health]
        code = 200 if status.isRunning else 503
        return code, "".join(f"{line}\n" for line in lines)

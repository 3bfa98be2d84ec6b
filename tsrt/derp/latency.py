"""
How far away a region is, measured by HTTPS, for networks without UDP.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tsrt.derp.dial import CONNECT_TIMEOUT, RegionDialer
from tsrt.derp.failures import RelayProtocolError, RelayRefused
from tsrt.derp.opening import OpeningProtocol
from tsrt.derp.upgrade import httpHost
from tsrt.errors import WireError
from tsrt.interfaces import IStreamDialer
from tsrt.tailcfg import DERPNode, DERPRegion
from tsrt.wire.httphead import ResponseHeadParser

PATH = "/derp/latency-check"


class LatencyProtocol(OpeningProtocol):
    """
    Asks for a page that says nothing, and looks at the clock.

    @ivar latency: seconds from the request to the head of the answer; setting
        up the connection does not count.
    """

    latency = 0.0

    def __init__(self, reactor: IReactorTime, node: DERPNode, isTLS: bool) -> None:
        """
        @param node: the server.
        @param isTLS: whether the connection is TLS.
        """
        super().__init__(node, isTLS)
        self._reactor = reactor
        self._parser = ResponseHeadParser()
        self._asked = 0.0

    def opened(self) -> None:
        """Ask."""
        if self.transport is None:
            return
        lines = (
            f"GET {PATH} HTTP/1.1",
            f"Host: {httpHost(self.node.hostName)}",
            "User-Agent: tsrt",
            "Connection: close",
        )
        self._asked = self._reactor.seconds()
        self.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        if self.isOver:
            return
        try:
            answer = self._parser.feed(data)
        except WireError as malformed:
            self.fail(RelayProtocolError(f"{self.node.hostName}: {malformed}"))
            return
        if answer is None:
            return
        status = answer[0].status
        if not 200 <= status < 300:
            self.fail(
                RelayRefused(
                    f"{self.node.hostName} answers the latency check with "
                    f"{answer[0].statusText}"
                )
            )
            return
        self.latency = self._reactor.seconds() - self._asked
        self.succeed()


def measureLatency(
    reactor: IReactorTime,
    dialer: IStreamDialer,
    region: DERPRegion,
    *,
    plain: bool = False,
    limit: float = CONNECT_TIMEOUT,
) -> Deferred[float]:
    """
    Measure how far away the first server of a region is that can be reached.

    @param plain: do without TLS, which only debugging wants.
    @param limit: the most seconds that it may take.
    @return: fires with seconds; fails as L{RegionDialer.dial} does; may be
        cancelled.
    """
    finder = RegionDialer(
        reactor,
        dialer,
        region,
        lambda node, isTLS: LatencyProtocol(reactor, node, isTLS),
        plain=plain,
    )

    def measured(protocol: LatencyProtocol) -> float:
        protocol.abort()
        return protocol.latency

    return finder.dial(limit).addCallback(measured)

"""What the server says to single nodes, and asks of them."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, fail

from tsrt.errors import NotRunning
from tsrt.tailcfg import (
    MapResponse,
    PingRequest,
    PingResponse,
    decode,
)
from tsrt.testing.control.core import ControlCore
from tsrt.testing.control.pings import (
    ANSWER_PATH,
    C2NResponse,
    encodeC2NRequest,
    parseC2NResponse,
)
from tsrt.testing.control.tailnet import NodeReference


class Conversations:
    """
    Frames, pings and requests for single nodes.

    Methods that take a node take a record, a number, a name or an address, and
    raise L{tsrt.errors.UnknownPeer} when there is no such node.
    """

    _core: ControlCore

    @property
    def url(self) -> str:
        """The address that clients are given."""
        raise NotRunning("the control server has no address yet")

    def isListening(self, node: NodeReference) -> bool:
        """Whether a node has a map stream open at present."""
        return self._core.polls.of(self._core.tailnet.node(node)) is not None

    def sendRaw(self, node: NodeReference, response: MapResponse) -> None:
        """
        Send a node a frame as it is, whatever its effect.

        @raise NotRunning: if the node does not listen.
        """
        record = self._core.tailnet.node(node)
        poll = self._core.polls.of(record)
        if poll is None:
            raise NotRunning(f"the node {record.name} does not listen")
        poll.send(response)

    def closePoll(self, node: NodeReference) -> None:
        """End the map stream of a node; it will open another."""
        self._core.polls.close(self._core.tailnet.node(node))

    def popBrowserURL(self, node: NodeReference, url: str) -> None:
        """
        Have a node show a page to its user.

        @raise NotRunning: if the node does not listen.
        """
        self.sendRaw(node, MapResponse(popBrowserURL=url))

    def pingNode(
        self,
        node: NodeReference,
        kind: str = "",
        target: NodeReference | None = None,
        timeout: float = 30.0,
    ) -> Deferred[PingResponse | None]:
        """
        Have a node show that it is alive, or ping another.

        @param kind: empty to have the node answer itself; else C{disco},
            C{TSMP}, C{ICMP} or C{peerapi}, or several joined by commas.
        @param target: the node to ping.
        @param timeout: seconds to wait.
        @return: fires with what the node found, or C{None} for its own answer;
            fails with C{TimeoutError}, L{NotRunning} or L{tsrt.errors.WireError}.
        """
        address = self._core.tailnet.node(target).ips[0] if target is not None else ""
        answer = self._ask(node, kind, address, None, timeout)
        return answer.addCallback(
            lambda body: decode(PingResponse, body) if kind else None
        )

    def c2n(
        self,
        node: NodeReference,
        path: str,
        *,
        method: str = "GET",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Deferred[C2NResponse]:
        """
        Make a request of a node.

        @param path: the path with the query, such as C{/echo}.
        @param method: the method.
        @param body: the body.
        @param headers: further headers.
        @param timeout: seconds to wait.
        @return: fires with the response; fails with C{TimeoutError},
            L{NotRunning} or L{tsrt.errors.ProtocolError}.
        """
        payload = encodeC2NRequest(method, path, body, headers)
        answer = self._ask(node, "c2n", "", payload, timeout)
        return answer.addCallback(parseC2NResponse)

    def _ask(
        self,
        node: NodeReference,
        kind: str,
        address: str,
        payload: bytes | None,
        timeout: float,
    ) -> Deferred[bytes]:
        record = self._core.tailnet.node(node)
        poll = self._core.polls.of(record)
        if poll is None:
            return fail(NotRunning(f"the node {record.name} does not listen"))
        question, answer = self._core.pings.ask(timeout)
        ping = PingRequest(
            url=f"{self.url}{ANSWER_PATH}{question}",
            urlIsNoise=True,
            types=kind,
            ip=address,
            payload=payload,
        )
        poll.send(MapResponse(keepAlive=True, pingRequest=ping))
        return answer

"""
The calls that the control server offers inside the Noise connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from tsrt.control.connection import ControlConnection
from tsrt.control.h2response import H2Response
from tsrt.errors import (
    ControlError,
    ControlHTTPError,
    ControlProtocolError,
    ControlUnreachable,
    NotSupportedByControl,
    WireError,
)
from tsrt.keys import NodePublic
from tsrt.tailcfg import (
    MapRequest,
    RegisterRequest,
    RegisterResponse,
    decode,
    encode,
)
from tsrt.tailcfg.capabilities import CAPABILITY_VERSION

T = TypeVar("T")

LARGEST_BODY = 1 << 20
"""Bytes of an answer that are read, unless a call says otherwise."""

CALL_TIMEOUT = 30.0
"""Seconds that a call may take, unless it says otherwise."""

LONGEST_EXCERPT = 200
"""Characters of an error page that go into a message."""


@frozen
class Answer:
    """
    A whole response.

    @ivar status: the HTTP status code.
    @ivar headers: names in lower case with their values, in order.
    @ivar body: all of the body.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@frozen
class FeatureAnswer:
    """
    What the server says about a feature of the tailnet.

    @ivar complete: whether nothing is left to do.
    @ivar text: what to tell the user.
    @ivar url: a page to open.
    @ivar shouldWait: whether asking again after the page was seen makes sense.
    """

    complete: bool
    text: str
    url: str
    shouldWait: bool


def loadBalancing(*keys: NodePublic) -> tuple[tuple[str, str], ...]:
    """
    The headers that repeat the node key for load balancers.

    They prove nothing; absent keys are left out.
    """
    return tuple(("ts-lb", key.text()) for key in keys if not key.isZero())


_UNKNOWN_NODE = frozenset((401, 404, 410))


def isUnknownNode(error: ControlError) -> bool:
    """Whether the server says that it does not know our node key."""
    return isinstance(error, ControlHTTPError) and error.status in _UNKNOWN_NODE


class ControlAPI:
    """
    Typed calls.

    All of them fail with L{ControlError}: L{NotSupportedByControl} when the
    server does not have the call, L{ControlHTTPError} for other HTTP errors,
    L{ControlProtocolError} for answers of the wrong form, and
    L{ControlUnreachable}.  Cancelling a call gives it up.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        connection: ControlConnection,
        *,
        wallTime: Callable[[], float],
        version: int = CAPABILITY_VERSION,
    ) -> None:
        """
        @param reactor: the clock.
        @param connection: carries the calls.
        @param wallTime: tells the time in seconds since 1970.
        @param version: our capability version.
        """
        self._reactor = reactor
        self._connection = connection
        self._wallTime = wallTime
        self.version = version

    # -- registration and the map ----------------------------------------------------

    def register(
        self, request: RegisterRequest, *, timeout: float | None = CALL_TIMEOUT
    ) -> Deferred[RegisterResponse]:
        """
        Register a node key, or say something about it.

        @param timeout: seconds, or C{None} for as long as the server takes,
            which is for requests with a followup.
        """
        return Deferred.fromCoroutine(self._register(request, timeout))

    async def _register(
        self, request: RegisterRequest, timeout: float | None
    ) -> RegisterResponse:
        answer = await self.send(
            "POST",
            "/machine/register",
            encode(request),
            headers=self._registerHeaders(request),
            timeout=timeout,
        )
        if answer.body.strip() in (b"", b"null"):
            return RegisterResponse()
        try:
            return decode(RegisterResponse, answer.body)
        except WireError as error:
            raise ControlProtocolError(
                f"the control server's answer to the registration: {error}"
            ) from None

    def expire(
        self, request: RegisterRequest, *, timeout: float = CALL_TIMEOUT
    ) -> Deferred[None]:
        """
        Send a register request whose expiry is past, to log out.

        What the server says to it does not matter, only that it took it.
        """
        sent = self.send(
            "POST",
            "/machine/register",
            encode(request),
            headers=self._registerHeaders(request),
            timeout=timeout,
        )
        return sent.addCallback(lambda _: None)

    def _registerHeaders(self, request: RegisterRequest) -> tuple[tuple[str, str], ...]:
        return loadBalancing(
            NodePublic.parse(request.oldNodeKey), NodePublic.parse(request.nodeKey)
        )

    def openMap(self, request: MapRequest) -> Deferred[H2Response]:
        """
        Ask for the map, as a stream that goes on and on.

        @return: fires with the response, whose body is still to come.
        """
        return Deferred.fromCoroutine(self._openMap(request))

    async def _openMap(self, request: MapRequest) -> H2Response:
        response = await self._connection.request(
            "POST", "/machine/map", self._mapHeaders(request), encode(request)
        )
        if response.status != 200:
            body = await self._limited(
                response.readBody(LARGEST_BODY), CALL_TIMEOUT, "/machine/map"
            )
            raise self._error("/machine/map", response.status, response.headers, body)
        return response

    def updateMap(self, request: MapRequest) -> Deferred[None]:
        """Tell the server about ourselves; it answers with a status only."""
        return Deferred.fromCoroutine(self._updateMap(request))

    async def _updateMap(self, request: MapRequest) -> None:
        await self.send(
            "POST", "/machine/map", encode(request), headers=self._mapHeaders(request)
        )

    def _mapHeaders(self, request: MapRequest) -> tuple[tuple[str, str], ...]:
        return loadBalancing(NodePublic.parse(request.nodeKey))

    # -- the smaller ones --------------------------------------------------------------

    def setDNS(
        self, nodeKey: NodePublic, name: str, recordType: str, value: str
    ) -> Deferred[None]:
        """
        Publish a DNS record, as a certificate authority may want to see it.

        @param name: such as C{_acme-challenge.host.example.ts.net}.
        @param recordType: such as C{TXT}.
        """
        document = {
            "Version": self.version,
            "NodeKey": nodeKey.text(),
            "Name": name,
            "Type": recordType,
            "Value": value,
        }
        call = self.callJSON("POST", "/machine/set-dns", document, nodeKey=nodeKey)
        return call.addCallback(lambda _: None)

    def idToken(self, nodeKey: NodePublic, audience: str) -> Deferred[str]:
        """Get a token that proves who this node is to C{audience}."""
        document = {
            "CapVersion": self.version,
            "NodeKey": nodeKey.text(),
            "Audience": audience,
        }
        call = self.callJSON("POST", "/machine/id-token", document, nodeKey=nodeKey)
        return call.addCallback(_idToken)

    def queryFeature(
        self, nodeKey: NodePublic, feature: str
    ) -> Deferred[FeatureAnswer]:
        """
        Ask whether a feature of the tailnet is on, and how to turn it on.

        @param feature: such as C{funnel} or C{serve}.
        """
        document = {"Feature": feature, "NodeKey": nodeKey.text()}
        call = self.callJSON(
            "POST", "/machine/feature/query", document, nodeKey=nodeKey
        )
        return call.addCallback(
            lambda answer: FeatureAnswer(
                complete=answer.get("Complete") is True,
                text=str(answer.get("Text") or ""),
                url=str(answer.get("URL") or ""),
                shouldWait=answer.get("ShouldWait") is True,
            )
        )

    def setDeviceAttributes(
        self, nodeKey: NodePublic, update: Mapping[str, str | float | bool | None]
    ) -> Deferred[None]:
        """
        Set or remove attributes of this device.

        @param update: attribute to value; C{None} removes it.
        """
        document = {
            "Version": self.version,
            "NodeKey": nodeKey.text(),
            "Update": dict(update),
        }
        call = self.callJSON(
            "PATCH", "/machine/set-device-attr", document, nodeKey=nodeKey
        )
        return call.addCallback(lambda _: None)

    # -- all that there is --------------------------------------------------------------

    def callJSON(
        self,
        method: str,
        path: str,
        document: Mapping[str, object],
        *,
        nodeKey: NodePublic | None = None,
        limit: int = LARGEST_BODY,
        timeout: float | None = CALL_TIMEOUT,
    ) -> Deferred[dict[str, object]]:
        """
        Send a JSON object and take one.

        @param nodeKey: for load balancers.
        @param limit: the most bytes of the answer.
        @param timeout: seconds, or C{None} for no limit.
        @return: fires with the answer; an empty body counts as C{{}}.
        """
        return Deferred.fromCoroutine(
            self._callJSON(method, path, document, nodeKey, limit, timeout)
        )

    async def _callJSON(
        self,
        method: str,
        path: str,
        document: Mapping[str, object],
        nodeKey: NodePublic | None,
        limit: int,
        timeout: float | None,
    ) -> dict[str, object]:
        balancing = () if nodeKey is None else loadBalancing(nodeKey)
        answer = await self.send(
            method,
            path,
            json.dumps(document, separators=(",", ":")).encode("utf-8"),
            headers=(*balancing, ("content-type", "application/json")),
            limit=limit,
            timeout=timeout,
        )
        if not answer.body.strip():
            return {}
        try:
            result: object = json.loads(answer.body)
        except (ValueError, RecursionError):
            result = None
        if not isinstance(result, dict):
            raise ControlProtocolError(f"the answer to {path} is not a JSON object")
        return result

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Sequence[tuple[str, str]] = (),
        limit: int = LARGEST_BODY,
        timeout: float | None = CALL_TIMEOUT,
    ) -> Deferred[Answer]:
        """
        Send any request over the Noise connection.

        @param path: with the query, if there is one.
        @param limit: the most bytes of the answer.
        @param timeout: seconds, or C{None} for no limit.
        @return: fires with the whole answer if its status is 2xx.
        """
        return self._limited(
            Deferred.fromCoroutine(self._send(method, path, body, headers, limit)),
            timeout,
            path,
        )

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Sequence[tuple[str, str]],
        limit: int,
    ) -> Answer:
        response = await self._connection.request(method, path, headers, body)
        content = await response.readBody(limit)
        if not 200 <= response.status < 300:
            raise self._error(path, response.status, response.headers, content)
        return Answer(response.status, response.headers, content)

    def _limited(
        self, call: Deferred[T], timeout: float | None, path: str
    ) -> Deferred[T]:
        if timeout is None:
            return call

        def late(failure: Failure) -> Failure:
            if not isinstance(failure.value, TimeoutError):
                return failure
            raise ControlUnreachable(
                f"the control server did not answer {path} within {timeout:g} s"
            )

        return call.addTimeout(timeout, self._reactor).addErrback(late)

    def _error(
        self,
        path: str,
        status: int,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
    ) -> ControlError:
        text = " ".join(body.decode("utf-8", "replace").split())[:LONGEST_EXCERPT]
        message = f"the control server answered {path} with HTTP {status}"
        if text:
            message += f": {text}"
        if status == 501:
            return NotSupportedByControl(message)
        return ControlHTTPError(
            message, status=status, retryAfter=self._retryAfter(headers)
        )

    def _retryAfter(self, headers: tuple[tuple[str, str], ...]) -> float | None:
        value = dict(headers).get("retry-after", "").strip()
        if not value:
            return None
        try:
            if value.isdecimal():
                return float(value)
            return parsedate_to_datetime(value).timestamp() - self._wallTime()
        except (ValueError, OverflowError):
            return None


def _idToken(answer: dict[str, object]) -> str:
    token = answer.get("id_token")
    if not isinstance(token, str) or not token:
        raise ControlProtocolError("the control server's answer holds no token")
    return token

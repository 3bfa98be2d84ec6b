"""
A small HTTP/1.1 server protocol that can hand its connection over.

The control protocol starts as HTTP/1.1 and goes on as something else after an
upgrade, possibly in the same segment.  This protocol serves plain requests one
after the other and, when a handler answers with an L{Upgrade}, gives the
connection and every byte that came behind the request to another protocol.

Reference: RFC 9112.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import cast
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import field, frozen
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES
from zope.interface import implementer

from tsrt.testing.control.refusal import Refusal

_log = Logger(namespace="tsrt.testing.control")

MAX_HEAD = 16 * 1024
"""Bytes of the longest request line with its headers."""

MAX_BODY = 1 << 20
"""Bytes of the longest request body."""

REQUEST_TIMEOUT = 30.0
"""Seconds for one whole request to arrive, from when it is waited for."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@frozen
class HTTPRequest:
    """
    A request.

    @ivar method: the method, in capitals.
    @ivar path: the path, with escapes resolved.
    @ivar query: the last value of each query parameter.
    @ivar headers: the values by lower-case name; repeated ones joined by commas.
    @ivar body: the whole body.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""

    def form(self) -> dict[str, str]:
        """The fields of a submitted form; malformed ones are left out."""
        text = self.body.decode("utf-8", "replace")
        return dict(parse_qsl(text, keep_blank_values=True))


@frozen
class HTTPResponse:
    """
    A response.

    @ivar status: the status code.
    @ivar body: the whole body.
    @ivar contentType: the type of the body.
    @ivar headers: further headers.
    """

    status: int = 200
    body: bytes = b""
    contentType: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(factory=dict)


@frozen
class Upgrade:
    """
    The answer that gives the connection away.

    @ivar protocol: takes over; its C{makeConnection} is called next and has to
        write the answer to the upgrade, the status line included.
    """

    protocol: IProtocol


Handler = Callable[[HTTPRequest], HTTPResponse | Upgrade]
"""Answers a request; may raise L{Refusal}."""


@frozen
class _Head:
    """A request line and its headers."""

    method: str
    target: str
    headers: Mapping[str, str]
    length: int
    keepAlive: bool


def _refused(refusal: Refusal) -> HTTPResponse:
    return HTTPResponse(refusal.status, refusal.body, headers=refusal.headers)


def parseHead(data: bytes) -> _Head:
    """
    Parse a request line and headers.

    @param data: everything before the empty line.
    @raise Refusal: when it is malformed or asks for what is not offered.
    """
    line, *rest = data.decode("latin-1").split("\r\n")
    parts = line.split(" ")
    if len(parts) != 3 or not _TOKEN.match(parts[0]) or not parts[1]:
        raise Refusal(400, "malformed request line")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        if version.startswith("HTTP/"):
            raise Refusal(400, "make request over HTTP/1")
        raise Refusal(400, "malformed request line")
    headers: dict[str, str] = {}
    for item in rest:
        name, colon, value = item.partition(":")
        value = value.strip(" \t")
        if not colon or not _TOKEN.match(name) or _CONTROL_CHARACTERS.search(value):
            raise Refusal(400, "malformed header")
        name = name.lower()
        if name in headers and name in ("content-length", "host"):
            raise Refusal(400, "repeated header")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "transfer-encoding" in headers:
        raise Refusal(501, "transfer encodings are not supported")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) <= 12):
        raise Refusal(400, "malformed Content-Length")
    if int(length) > MAX_BODY:
        raise Refusal(413, "the request body is too large")
    connection = headers.get("connection", "").lower()
    keepAlive = version == "HTTP/1.1" and "close" not in connection
    return _Head(method, target, headers, int(length), keepAlive)


def parseTarget(target: str) -> tuple[str, dict[str, str]]:
    """
    Split a request target into a path and query parameters.

    @raise Refusal: when it is neither a path nor a whole URL.
    """
    try:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=64))
    except ValueError:
        raise Refusal(400, "malformed request target") from None
    path = unquote(parts.path, errors="replace")
    if not path.startswith("/"):
        raise Refusal(400, "malformed request target")
    return path, query


@implementer(IPushProducer)
class HTTPFront(Protocol):
    """
    Serves requests on one connection until it closes or is upgraded.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        handler: Handler,
        wallTime: Callable[[], float],
    ) -> None:
        """
        @param reactor: provides the time-outs.
        @param handler: answers the requests.
        @param wallTime: seconds since 1970, for the C{Date} header.
        """
        self._reactor = reactor
        self._handler = handler
        self._wallTime = wallTime
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._timer: IDelayedCall | None = None
        self._paused = False
        self._closing = False
        self._upgraded: IProtocol | None = None

    # -- the connection -----------------------------------------------------------

    def connectionMade(self) -> None:
        """See L{IProtocol}."""
        self._consumer().registerProducer(self, True)
        self._restartTimer()

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        if self._upgraded is not None:
            self._upgraded.dataReceived(data)
            return
        if self._closing:
            return
        self._buffer += data
        self._serve()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}."""
        self._stopTimer()
        self._closing = True
        self._buffer.clear()
        if self._upgraded is not None:
            self._upgraded.connectionLost(reason)

    def pauseProducing(self) -> None:
        """Stop reading requests: the answers are not being read."""
        self._paused = True
        self._tcp().pauseProducing()

    def resumeProducing(self) -> None:
        """Go on reading requests."""
        self._paused = False
        self._tcp().resumeProducing()
        self._serve()

    def stopProducing(self) -> None:
        """The connection is going away; C{connectionLost} follows."""

    def _consumer(self) -> IConsumer:
        return cast(IConsumer, self.transport)

    def _tcp(self) -> IPushProducer:
        return cast(IPushProducer, self.transport)

    def _restartTimer(self) -> None:
        self._stopTimer()
        self._timer = self._reactor.callLater(REQUEST_TIMEOUT, self._timedOut)

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _timedOut(self) -> None:
        self._timer = None
        cast(ITCPTransport, self.transport).abortConnection()

    # -- requests -------------------------------------------------------------------

    def _serve(self) -> None:
        """Answer every complete request that has arrived."""
        while not (self._paused or self._closing or self._upgraded):
            try:
                request = self._nextRequest()
            except Refusal as error:
                self._respond(_refused(error), keepAlive=False)
                return
            if request is None:
                return
            head, self._head = self._head, None
            assert head is not None
            self._stopTimer()
            answer = self._answer(request)
            if isinstance(answer, Upgrade):
                self._handOver(answer.protocol)
                return
            self._restartTimer()
            self._respond(answer, head.keepAlive, withBody=request.method != "HEAD")

    def _nextRequest(self) -> HTTPRequest | None:
        """Take one request off the buffer, if it is complete."""
        if self._head is None:
            while self._buffer.startswith(b"\r\n"):
                del self._buffer[:2]
            end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
            if end < 0:
                if len(self._buffer) >= MAX_HEAD:
                    raise Refusal(431, "the request head is too large")
                return None
            self._head = parseHead(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if self._head.headers.get("expect", "").lower() == "100-continue":
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = self._head
        if len(self._buffer) < head.length:
            return None
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        path, query = parseTarget(head.target)
        return HTTPRequest(head.method, path, query, head.headers, body)

    def _answer(self, request: HTTPRequest) -> HTTPResponse | Upgrade:
        try:
            return self._handler(request)
        except Refusal as error:
            return _refused(error)
        except Exception:
            _log.failure("failed to answer {path}", path=request.path)
            return HTTPResponse(500, b"internal error\n")

    def _respond(
        self, response: HTTPResponse, keepAlive: bool, withBody: bool = True
    ) -> None:
        reason = RESPONSES.get(response.status, b"Unknown").decode("ascii")
        lines = [
            f"HTTP/1.1 {response.status} {reason}",
            f"Date: {formatdate(self._wallTime(), usegmt=True)}",
        ]
        if response.status != 204:
            lines.append(f"Content-Length: {len(response.body)}")
        if response.body:
            lines.append(f"Content-Type: {response.contentType}")
        lines.extend(f"{name}: {value}" for name, value in response.headers.items())
        if not keepAlive:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self._write(head + response.body if withBody else head)
        if not keepAlive:
            self._closing = True
            self._stopTimer()
            self._buffer.clear()
            assert self.transport is not None
            self._consumer().unregisterProducer()
            self.transport.loseConnection()
            # A peer that never reads must not keep the connection for ever.
            self._restartTimer()

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def _handOver(self, protocol: IProtocol) -> None:
        """Let another protocol have the connection, with what came behind."""
        assert self.transport is not None
        self._consumer().unregisterProducer()
        self._upgraded = protocol
        protocol.makeConnection(self.transport)
        surplus = bytes(self._buffer)
        self._buffer.clear()
        if surplus:
            protocol.dataReceived(surplus)

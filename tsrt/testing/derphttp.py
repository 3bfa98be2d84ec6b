"""
The HTTP side of a DERP server: the upgrade, and the small pages beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from attrs import frozen
from twisted.internet.interfaces import IProtocol, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

LARGEST_HEAD = 16 * 1024
"""Bytes of the largest request head."""

_PHRASES = {
    101: "Switching Protocols",
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    426: "Upgrade Required",
    501: "Not Implemented",
}
_CHALLENGE = re.compile(r"[A-Za-z0-9.:_-]{1,64}\Z")
_NO_CACHE = "no-cache, no-store, must-revalidate, no-transform, max-age=0"


@frozen
class Request:
    """The head of a request."""

    method: str
    path: str
    headers: Mapping[str, str]
    """By name in lower case; of a repeated header the last."""

    @classmethod
    def parse(cls, head: bytes) -> Request | None:
        """Read a head without its blank line; C{None} when it is malformed."""
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return None
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or name != name.strip():
                return None
            headers[name.lower()] = value.strip()
        return cls(words[0], words[1].partition("?")[0], headers)


@frozen
class Response:
    """A response that is over with its body."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = {}

    def encode(self, close: bool, withBody: bool) -> bytes:
        """The bytes of the response."""
        body = self.body.encode("utf-8")
        lines = [f"HTTP/1.1 {self.status} {_PHRASES[self.status]}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status != 204:
            lines.append(f"Content-Length: {len(body)}")
        if body:
            lines.append("Content-Type: text/plain; charset=utf-8")
        if close:
            lines.append("Connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return head + body if withBody else head


def page(request: Request) -> Response:
    """The answer to anything but an upgrade."""
    if request.path in ("/derp/probe", "/derp/latency-check"):
        if request.method not in ("GET", "HEAD"):
            return Response(405)
        return Response(200, headers={"Access-Control-Allow-Origin": "*"})
    if request.method not in ("GET", "HEAD"):
        return Response(405)
    if request.path == "/generate_204":
        headers = {"Cache-Control": _NO_CACHE}
        challenge = request.headers.get("x-tailscale-challenge", "")
        if _CHALLENGE.match(challenge):
            headers["X-Tailscale-Response"] = f"response {challenge}"
        return Response(204, headers=headers)
    if request.path == "/bootstrap-dns":
        return Response(200, "{}", {"Content-Type": "application/json"})
    if request.path == "/robots.txt":
        return Response(200, "User-agent: *\nDisallow: /\n")
    if request.path == "/":
        return Response(200, "This is a DERP relay for tests and development.\n")
    return Response(404)


class DERPHTTPProtocol(Protocol):
    """Serves HTTP requests until one of them turns the connection into DERP."""

    def __init__(
        self,
        publicKey: bytes,
        relay: Callable[[Request], IProtocol],
        onRequest: Callable[[str], None],
    ) -> None:
        """
        @param publicKey: the key of the server.
        @param relay: makes the protocol that takes over after an upgrade, given
            the request for it.
        @param onRequest: told the path of each request.
        """
        self._publicKey = publicKey
        self._relay = relay
        self._onRequest = onRequest
        self._buffer = b""
        self._inner: IProtocol | None = None

    def connectionMade(self) -> None:
        """See L{IProtocol}."""
        ITCPTransport(self.transport).setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._buffer += data
        while self._inner is None and not self._isClosing():
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if len(head) > LARGEST_HEAD:
                self._answer(Response(400), close=True)
                return
            if not end:
                return
            self._buffer = rest
            self._request(Request.parse(head))
        if self._inner is not None and self._buffer:
            surplus, self._buffer = self._buffer, b""
            self._inner.dataReceived(surplus)

    def _isClosing(self) -> bool:
        return self.transport is None or bool(
            getattr(self.transport, "disconnecting", False)
        )

    def _answer(
        self, response: Response, close: bool = False, withBody: bool = True
    ) -> None:
        if self.transport is None:
            return
        self.transport.write(response.encode(close, withBody))
        if close:
            self.transport.loseConnection()

    def _request(self, request: Request | None) -> None:
        if request is None:
            self._answer(Response(400, "malformed request\n"), close=True)
            return
        self._onRequest(request.path)
        if request.path == "/derp":
            self._upgrade(request)
            return
        headers = request.headers
        # A body would have to be skipped; nothing here takes one.
        close = (
            headers.get("connection", "").lower() == "close"
            or headers.get("content-length", "0") != "0"
            or "transfer-encoding" in headers
        )
        self._answer(page(request), close, withBody=request.method != "HEAD")

    def _upgrade(self, request: Request) -> None:
        wanted = request.headers.get("upgrade", "").lower()
        if request.method != "GET" or wanted not in ("derp", "websocket"):
            self._answer(Response(426, "DERP requires connection upgrade\n"), True)
            return
        if wanted == "websocket":
            self._answer(Response(501, "DERP over WebSocket is not served\n"), True)
            return
        if self.transport is None:
            return
        if request.headers.get("derp-fast-start") != "1":
            lines = (
                "HTTP/1.1 101 Switching Protocols",
                "Upgrade: DERP",
                "Connection: Upgrade",
                "Derp-Version: 2",
                f"Derp-Public-Key: {self._publicKey.hex()}",
            )
            self.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
        self._inner = self._relay(request)
        self._inner.makeConnection(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}."""
        inner, self._inner = self._inner, None
        self._buffer = b""
        if inner is not None:
            inner.connectionLost(reason)

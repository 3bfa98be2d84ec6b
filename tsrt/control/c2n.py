"""
Requests that the control server sends to the node.

They come as the bytes of an HTTP/1.1 request inside of a map response, and the
answer goes back as the bytes of an HTTP/1.1 response.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from tsrt.errors import WireError

_log = Logger(namespace="tsrt.control.c2n")

LARGEST_REQUEST = 1 << 20
"""Bytes of a request."""

DEFAULT_TIMEOUT = 60.0
"""Seconds that a handler may take, unless the request says otherwise."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}


@frozen
class C2NRequest:
    """
    A request of the server.

    @ivar query: the first value of each parameter.
    @ivar headers: by their names in lower case.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def timeout(self) -> float:
        """Seconds that the server waits for the answer."""
        text = self.headers.get("c2n-handler-timeout", "")
        parts = _DURATION.findall(text)
        if not parts or "".join(a + b for a, b in parts) != text:
            return DEFAULT_TIMEOUT
        return min(
            sum(float(number) * _UNITS[unit] for number, unit in parts),
            DEFAULT_TIMEOUT,
        )


@frozen
class C2NResponse:
    """An answer to the server."""

    status: int = 200
    body: bytes = b""
    contentType: str = "text/plain; charset=utf-8"

    @classmethod
    def ofJSON(cls, document: object) -> C2NResponse:
        """An answer that is a JSON document."""
        body = json.dumps(document, separators=(",", ":")).encode("utf-8") + b"\n"
        return cls(200, body, "application/json")

    def toBytes(self) -> bytes:
        """The whole HTTP/1.1 response."""
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Status"
        head = f"HTTP/1.1 {self.status} {phrase}\r\n"
        if self.status != 204:
            head += (
                f"Content-Type: {self.contentType}\r\n"
                f"Content-Length: {len(self.body)}\r\n"
            )
        return head.encode("ascii") + b"\r\n" + self.body


Handler = Callable[[C2NRequest], "C2NResponse | Deferred[C2NResponse]"]


@frozen(kw_only=True)
class C2NSources:
    """
    Where answers come from; what is C{None} is not offered at all.

    @ivar metrics: the counters as Prometheus text.
    @ivar health: warnings, as a JSON document.
    @ivar prefs: the node's settings without secrets, as a JSON document.
    @ivar netmap: the current map without secrets, as a JSON document.
    @ivar sshUsernames: users that may be logged in as.
    @ivar vipServices: services that this node hosts, each as an object with
        C{Name}, C{Ports} and C{Active}, and the hash of their list.
    @ivar certificate: for a domain: validity and dates, as a JSON document.
    @ivar further: more handlers; path to method (or C{*}) and handler.
    """

    metrics: Callable[[], str] | None = None
    health: Callable[[], object] | None = None
    prefs: Callable[[], object] | None = None
    netmap: Callable[[], object] | None = None
    sshUsernames: Callable[[], list[str]] | None = None
    vipServices: Callable[[], tuple[list[object], str]] | None = None
    certificate: Callable[[str], object] | None = None
    further: Mapping[str, Mapping[str, Handler]] = field(factory=dict)


class C2NHandler:
    """Answers requests of the server from a table of paths."""

    def __init__(self, sources: C2NSources) -> None:
        """
        @param sources: where answers come from.
        """
        self._sources = sources
        self._table: dict[str, dict[str, Handler]] = {
            "/echo": {"*": lambda request: C2NResponse(body=request.body)},
            # There are no uploaded logs, so there is nothing to flush.
            "/logtail/flush": {"POST": lambda _: C2NResponse(204)},
            "/ssh/usernames": {"*": self._sshUsernames},
            "/update": {"GET": self._update, "POST": self._update},
            "/posture/identity": {"GET": self._posture},
            "/vip-services": {"GET": self._vipServices},
        }
        self._offer("/debug/health", sources.health)
        self._offer("/debug/prefs", sources.prefs)
        self._offer("/debug/netmap", sources.netmap)
        metrics = sources.metrics
        if metrics is not None:
            self._table["/debug/metrics"] = {
                "*": lambda _: C2NResponse(body=metrics().encode("utf-8"))
            }
        certificate = sources.certificate
        if certificate is not None:
            self._table["/tls-cert-status"] = {
                "GET": lambda request: C2NResponse.ofJSON(
                    certificate(request.query.get("domain", ""))
                )
            }
        for path, methods in sources.further.items():
            self._table[path] = dict(methods)

    def _offer(self, path: str, source: Callable[[], object] | None) -> None:
        if source is not None:
            self._table[path] = {"*": lambda _: C2NResponse.ofJSON(source())}

    def handle(self, request: C2NRequest) -> Deferred[C2NResponse]:
        """
        Answer a request.

        @return: fires with the answer; whatever the handler does is one.
        """
        return Deferred.fromCoroutine(self._handle(request))

    async def _handle(self, request: C2NRequest) -> C2NResponse:
        methods = self._table.get(request.path)
        if methods is None:
            return C2NResponse(400, b"unknown c2n path\n")
        handler = methods.get(request.method) or methods.get("*")
        if handler is None:
            return C2NResponse(405, b"bad method\n")
        try:
            answer = handler(request)
            return await answer if isinstance(answer, Deferred) else answer
        except CancelledError:
            raise
        except Exception:
            _log.failure("the handler of {path} failed", path=request.path)
            return C2NResponse(500, b"the handler failed\n")

    def _sshUsernames(self, request: C2NRequest) -> C2NResponse:
        source = self._sources.sshUsernames
        return C2NResponse.ofJSON({"Usernames": [] if source is None else source()})

    def _update(self, request: C2NRequest) -> C2NResponse:
        document: dict[str, object] = {"Enabled": False, "Supported": False}
        if request.method == "POST":
            document["Err"] = "not supported"
            document["Started"] = False
        return C2NResponse.ofJSON(document)

    def _posture(self, request: C2NRequest) -> C2NResponse:
        return C2NResponse.ofJSON(
            {
                "SerialNumbers": [],
                "IfaceHardwareAddrs": [],
                "PostureDisabled": True,
            }
        )

    def _vipServices(self, request: C2NRequest) -> C2NResponse:
        source = self._sources.vipServices
        services, digest = ([], "") if source is None else source()
        return C2NResponse.ofJSON({"VIPServices": services, "ServicesHash": digest})


def parseRequest(data: bytes) -> C2NRequest:
    """
    Read an HTTP/1.x request.

    @raise WireError: when it is none, or is cut short.
    """
    if len(data) > LARGEST_REQUEST:
        raise WireError("a request of the control server is too long")
    head, separator, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if not separator or len(parts) != 3 or parts[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise WireError("this is no HTTP/1 request")
    method, target, _ = parts
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise WireError("a request has a malformed header")
        headers[name.lower()] = value.strip()
    try:
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
    except ValueError:
        raise WireError("a request has a malformed target") from None
    return C2NRequest(method, url.path, query, headers, _body(headers, rest))


def _body(headers: Mapping[str, str], rest: bytes) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _unchunked(rest)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 10):
        raise WireError("a request has a malformed length")
    if int(length) > len(rest):
        raise WireError("a request is cut short")
    return rest[: int(length)]


def _unchunked(rest: bytes) -> bytes:
    """RFC 9112, 7.1; chunk extensions and trailers are skipped."""
    parts: list[bytes] = []
    while True:
        line, separator, rest = rest.partition(b"\r\n")
        size = line.partition(b";")[0].strip()
        if not separator or not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size):
            raise WireError("a request has a malformed chunk")
        count = int(size, 16)
        if count == 0:
            return b"".join(parts)
        if rest[count : count + 2] != b"\r\n":
            raise WireError("a request is cut short")
        parts.append(rest[:count])
        rest = rest[count + 2 :]

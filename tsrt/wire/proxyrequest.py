"""
What a client asks an HTTP proxy for.

C{CONNECT} wants a connection; anything else names a whole C{http://} URL, and is
passed on to its server as if it had been asked directly, for this one request.

Reference: RFC 9110, 9.3.6; RFC 9112, 3.2.2.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import NamedTuple

from tsrt.errors import WireError
from tsrt.wire.socks5 import Target

LARGEST_HEAD = 64 * 1024
"""Bytes of request line and headers together."""

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}\Z")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]{1,253})(?::([0-9]{1,5}))?\Z")
_URL = re.compile(r"http://([^\s/?#]+)([^\s#]*)\Z", re.IGNORECASE)

# What concerns this connection only (RFC 9110, 7.6.1), and the proxy alone.
_OURS = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
    )
)


class ProxyRequest(NamedTuple):
    """
    A request.

    @ivar target: where to connect.
    @ivar isTunnel: whether the connection itself is wanted.
    @ivar head: what to send to the target first; empty for a tunnel.
    @ivar credentials: user and password as sent, C{None}: none.
    @ivar surplus: bytes behind the head.
    """

    target: Target
    isTunnel: bool
    head: bytes
    credentials: tuple[bytes, bytes] | None
    surplus: bytes

    def has(self, wanted: tuple[bytes, bytes] | None) -> bool:
        """Whether it brings these credentials; it needs none for C{None}."""
        if wanted is None:
            return True
        user, password = self.credentials or (b"", b"")
        # Both are compared, in a time that says nothing of either.
        isUser = hmac.compare_digest(user, wanted[0])
        return hmac.compare_digest(password, wanted[1]) and isUser


class ProxyRequestParser:
    """Collects bytes until the blank line that ends the head."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> ProxyRequest | None:
        """
        Take bytes as they come in.

        @return: C{None} while the head is not whole.
        @raise WireError: it is no request for a proxy.
        """
        start = max(0, len(self._buffer) - 3)
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", start)
        if end > LARGEST_HEAD or (end < 0 and len(self._buffer) > LARGEST_HEAD):
            raise WireError(f"the head of the request exceeds {LARGEST_HEAD} bytes")
        if end < 0:
            return None
        head, surplus = bytes(self._buffer[:end]), bytes(self._buffer[end + 4 :])
        return _parse(head.decode("latin-1").split("\r\n"), surplus)


def _parse(lines: list[str], surplus: bytes) -> ProxyRequest:
    words = lines[0].split(" ")
    if len(words) != 3 or not _METHOD.match(words[0]):
        raise WireError("that is no HTTP request")
    method, what, version = words
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise WireError("that is not HTTP/1")
    headers = [_header(line) for line in lines[1:]]
    credentials = None
    for name, value in headers:
        if name.lower() == "proxy-authorization":
            credentials = _basic(value)
    if method == "CONNECT":
        return ProxyRequest(_authority(what, None), True, b"", credentials, surplus)
    url = _URL.match(what)
    if url is None:
        raise WireError("a proxy is asked for an http:// URL, or by CONNECT")
    named = {
        name.strip().lower()
        for n, v in headers
        if n.lower() == "connection"
        for name in v.split(",")
    }
    path = url[2] if url[2].startswith("/") else f"/{url[2]}"
    kept = [
        f"{name}: {value}"
        for name, value in headers
        if name.lower() not in _OURS | named | {"host"}
    ]
    # One request for each connection: the next may be for another server.
    passed = [f"{method} {path} HTTP/1.1", f"Host: {url[1]}", *kept]
    passed.append("Connection: close")
    head = ("\r\n".join(passed) + "\r\n\r\n").encode("latin-1")
    return ProxyRequest(_authority(url[1], 80), False, head, credentials, surplus)


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _METHOD.match(name) or "\n" in value or "\r" in value:
        raise WireError("a malformed header")
    return name, value.strip()


def _authority(text: str, port: int | None) -> Target:
    """A host and a port; the port may be left out where there is a usual one."""
    match = _AUTHORITY.match(text)
    number = None if match is None else (int(match[2]) if match[2] else port)
    if match is None or number is None or not 0 < number < 65536:
        raise WireError(f"{text[:80]!r} is no host with a port")
    return Target(match[1].strip("[]"), number)


def _basic(value: str) -> tuple[bytes, bytes] | None:
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    user, _, password = decoded.partition(b":")
    return user, password

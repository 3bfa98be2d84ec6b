"""
How to ask a proxy for a connection: HTTP C{CONNECT} and SOCKS version 5.

Bytes in, bytes out; L{tsrt.underlay.tunnel} does the talking.
"""

from __future__ import annotations

import base64
import re
import struct
from typing import NamedTuple, Protocol

from tsrt.addresses import parseAddress
from tsrt.errors import Persistence, TSRTError, WireError
from tsrt.underlay.proxy import Proxy
from tsrt.wire.httphead import ResponseHeadParser


class ProxyError(TSRTError):
    """The upstream proxy does not let a connection through."""

    persistence = Persistence.TRANSIENT
    advice = "Check HTTPS_PROXY, ALL_PROXY and NO_PROXY, and the proxy itself."


class ProxyAuthError(ProxyError):
    """The upstream proxy wants a user and password, or refuses the given ones."""

    advice = "Put them into the proxy's address: http://user:password@host:port."


class Progress(NamedTuple):
    """What a L{Negotiation} makes of some bytes."""

    reply: bytes = b""
    """What to send to the proxy."""

    surplus: bytes | None = None
    """When the connection stands: bytes that already belong to it."""


class Negotiation(Protocol):
    """A conversation with a proxy, from the first byte to the connection."""

    def begin(self) -> bytes:
        """What to send first."""

    def feed(self, data: bytes) -> Progress:
        """
        Take what the proxy sent.

        @raise ProxyError: when the proxy refuses.
        @raise WireError: when it does not speak the protocol.
        """


class HTTPConnect:
    """Asks an HTTP proxy for a tunnel."""

    def __init__(self, proxy: Proxy, host: str, port: int) -> None:
        """
        @param host: where the tunnel shall lead.
        """
        self._proxy = proxy
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._parser = ResponseHeadParser()

    def begin(self) -> bytes:
        """The C{CONNECT} request."""
        lines = [
            f"CONNECT {self._authority} HTTP/1.1",
            f"Host: {self._authority}",
            "User-Agent: tsrt",
        ]
        if self._proxy.username:
            credentials = f"{self._proxy.username}:{self._proxy.password.reveal()}"
            encoded = base64.b64encode(credentials.encode("utf-8")).decode("ascii")
            lines.append(f"Proxy-Authorization: Basic {encoded}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def feed(self, data: bytes) -> Progress:
        """See L{Negotiation.feed}."""
        answer = self._parser.feed(data)
        if answer is None:
            return Progress()
        head, surplus = answer
        if 200 <= head.status < 300:
            return Progress(surplus=surplus)
        kind = ProxyAuthError if head.status == 407 else ProxyError
        raise kind(
            f"the proxy {self._proxy.name} refused a connection to "
            f"{self._authority}: {head.statusText}"
        )


_SOCKS_ERRORS = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live exceeded",
    7: "command not supported",
    8: "address type not supported",
}
_VERSION = 5
_NO_AUTH = 0
_PASSWORD = 2
_ADDRESS_LENGTHS = {1: 4, 4: 16}


class SOCKS5Connect:
    """
    Asks a SOCKS proxy for a connection.

    References: RFC 1928, RFC 1929.
    """

    def __init__(self, proxy: Proxy, host: str, port: int) -> None:
        """
        @param host: where the connection shall lead; a name is left to the
            proxy to resolve.
        """
        self._proxy = proxy
        self._host = host
        self._port = port
        self._buffer = b""
        self._step = self._method

    def begin(self) -> bytes:
        """The greeting: which ways to authenticate we have."""
        if self._proxy.username:
            return bytes((_VERSION, 2, _NO_AUTH, _PASSWORD))
        return bytes((_VERSION, 1, _NO_AUTH))

    def feed(self, data: bytes) -> Progress:
        """See L{Negotiation.feed}."""
        self._buffer += data
        reply = b""
        while True:
            before = self._step
            progress = self._step()
            reply += progress.reply
            if progress.surplus is not None:
                return Progress(reply, progress.surplus)
            if self._step == before:
                return Progress(reply)

    def _take(self, count: int) -> bytes | None:
        """The next C{count} bytes, or C{None} while they are not there."""
        if len(self._buffer) < count:
            return None
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _method(self) -> Progress:
        answer = self._take(2)
        if answer is None:
            return Progress()
        if answer[0] != _VERSION:
            raise WireError("the proxy does not speak SOCKS version 5")
        if answer[1] == _NO_AUTH:
            self._step = self._connected
            return Progress(self._request())
        if answer[1] == _PASSWORD and self._proxy.username:
            self._step = self._authenticated
            username = self._proxy.username.encode("utf-8")
            password = self._proxy.password.reveal().encode("utf-8")
            return Progress(
                b"\x01"
                + bytes((len(username),))
                + username
                + bytes((len(password),))
                + password
            )
        raise ProxyAuthError(
            f"the proxy {self._proxy.name} accepts no way to authenticate that we have"
        )

    def _authenticated(self) -> Progress:
        answer = self._take(2)
        if answer is None:
            return Progress()
        if answer[1] != 0:
            raise ProxyAuthError(
                f"the proxy {self._proxy.name} refused user and password"
            )
        self._step = self._connected
        return Progress(self._request())

    def _request(self) -> bytes:
        try:
            address = parseAddress(self._host)
        except WireError:
            name = self._host.encode("ascii")
            target = bytes((3, len(name))) + name
        else:
            target = bytes((1 if len(address) == 4 else 4,)) + address
        return bytes((_VERSION, 1, 0)) + target + struct.pack("!H", self._port)

    def _connected(self) -> Progress:
        if len(self._buffer) < 5:
            return Progress()
        version, code, _, kind, first = self._buffer[:5]
        if version != _VERSION:
            raise WireError("the proxy does not speak SOCKS version 5")
        if code != 0:
            reason = _SOCKS_ERRORS.get(code, f"code {code}")
            raise ProxyError(
                f"the proxy {self._proxy.name} refused a connection to "
                f"{self._host}:{self._port}: {reason}"
            )
        length = first + 1 if kind == 3 else _ADDRESS_LENGTHS.get(kind)
        if length is None:
            raise WireError("the proxy answers with an address of an unknown kind")
        if self._take(4 + length + 2) is None:
            return Progress()
        return Progress(surplus=self._buffer)


_HOST = re.compile(r"[0-9A-Za-z._:-]{1,253}\Z")


def _hostName(host: str) -> str:
    """C{host} as it may stand in a request."""
    try:
        encoded = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        encoded = ""
    # Names come from the netmap: one with a line break in it would be a request
    # of its own.
    if not _HOST.match(encoded):
        raise WireError("that is no host name to ask a proxy for")
    return encoded


def negotiation(proxy: Proxy, host: str, port: int) -> Negotiation:
    """
    The conversation that gets a connection to C{host:port} from C{proxy}.

    @raise WireError: when C{host} is not a host name.
    """
    host = _hostName(host)
    if proxy.scheme == "socks5":
        return SOCKS5Connect(proxy, host, port)
    return HTTPConnect(proxy, host, port)

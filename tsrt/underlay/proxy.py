"""
Which upstream proxy to use for which connection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from tsrt.errors import ConfigError
from tsrt.keys import Secret

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080}


def _isLoopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@frozen
class Proxy:
    """One upstream proxy."""

    scheme: str
    """C{"http"}, C{"https"} (TLS to the proxy itself) or C{"socks5"}."""

    host: str
    port: int
    username: str = ""
    password: Secret = field(factory=lambda: Secret(""))

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """
        Read C{scheme://[user[:password]@]host[:port]}.

        Without a scheme it is an HTTP proxy.  C{socks5h} is the same as
        C{socks5}: names are always left to the proxy to resolve.

        @raise ConfigError: when it is nothing of the kind.
        """
        # The text may hold a password, so no message quotes it.
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            port = parts.port
            host = parts.hostname
        except ValueError:
            raise ConfigError("the address of the proxy is malformed") from None
        scheme = "socks5" if parts.scheme == "socks5h" else parts.scheme
        if scheme not in _DEFAULT_PORTS:
            raise ConfigError(
                f"a proxy of the kind {parts.scheme!r} is not supported",
                advice="Use http://, https:// or socks5://.",
            )
        if not host or port == 0 or any(c.isspace() for c in text):
            raise ConfigError("the address of the proxy is malformed")
        username = unquote(parts.username or "")
        password = unquote(parts.password or "")
        if scheme == "socks5" and max(len(username), len(password)) > 255:
            raise ConfigError("SOCKS has no room for so long a user or password")
        return cls(
            scheme, host, port or _DEFAULT_PORTS[scheme], username, Secret(password)
        )

    @property
    def name(self) -> str:
        """The proxy as messages show it, without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@frozen
class Bypass:
    """One entry of C{NO_PROXY}: what to reach without a proxy."""

    everything: bool = False
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    domain: str = ""
    subdomainsOnly: bool = False
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Bypass:
        """
        Read C{*}, a name (which covers the names below it), C{.name} or
        C{*.name} (which covers only those), an address or a network; each of
        them may end in C{:port}.
        """
        if text == "*":
            return cls(everything=True)
        network = _network(text)
        if network is not None:
            return cls(network=network)
        host, colon, tail = text.rpartition(":")
        port = int(tail) if colon and tail.isascii() and tail.isdigit() else None
        if port is not None:
            text = host
            network = _network(text.removeprefix("[").removesuffix("]"))
            if network is not None:
                return cls(network=network, port=port)
        text = text.lower().rstrip(".").removeprefix("*")
        return cls(
            domain=text.removeprefix("."),
            subdomainsOnly=text.startswith("."),
            port=port,
        )

    def covers(self, host: str, port: int) -> bool:
        """Whether C{host} (lower case, no dot at its end) is meant."""
        if self.everything:
            return True
        if self.port not in (None, port):
            return False
        if self.network is not None:
            try:
                return ipaddress.ip_address(host) in self.network
            except ValueError:
                return False
        if not self.domain:
            return False
        if host == self.domain:
            return not self.subdomainsOnly
        return host.endswith(f".{self.domain}")


def _network(
    text: str,
) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


@frozen
class ProxySettings:
    """
    The upstream proxies, as the environment of a process gives them.

    With no arguments: no proxy at all.
    """

    forTLS: Proxy | None = None
    """For connections that are TLS."""

    forPlain: Proxy | None = None
    """For all other connections."""

    bypass: tuple[Bypass, ...] = ()
    """What is reached without a proxy."""

    @classmethod
    def fromEnvironment(cls, environ: Mapping[str, str]) -> ProxySettings:
        """
        Read C{HTTPS_PROXY} (for TLS), C{HTTP_PROXY} (for the rest),
        C{ALL_PROXY} (where the former is not set) and C{NO_PROXY}.

        Names in lower case come first.  Under CGI, where a client can set
        C{HTTP_PROXY} by a header, that one is not read.

        @raise ConfigError: when a proxy is malformed.
        """

        def read(name: str) -> str:
            for variant in (name.lower(), name):
                value = environ.get(variant, "").strip()
                if value:
                    return value
            return ""

        everything = read("ALL_PROXY")
        tls = read("HTTPS_PROXY") or everything
        plain = (
            "" if "REQUEST_METHOD" in environ else read("HTTP_PROXY")
        ) or everything
        entries = read("NO_PROXY").replace(" ", ",").split(",")
        return cls(
            forTLS=Proxy.parse(tls) if tls else None,
            forPlain=Proxy.parse(plain) if plain else None,
            bypass=tuple(Bypass.parse(entry) for entry in entries if entry),
        )

    def proxyFor(
        self, host: str, port: int, tls: bool, address: str | None = None
    ) -> Proxy | None:
        """
        The proxy for one connection, or C{None} to connect directly.

        Connections to this machine itself never take a proxy.

        @param host: the name or address of the server.
        @param tls: whether the connection is TLS.
        @param address: the address that would be connected to, where known.
        """
        proxy = self.forTLS if tls else self.forPlain
        if proxy is None:
            return None
        for name in (host, address):
            if name is None:
                continue
            if _isLoopback(name):
                return None
            lowered = name.lower().rstrip(".")
            if any(entry.covers(lowered, port) for entry in self.bypass):
                return None
        return proxy

"""
The control server's URL, checked once and then kept as a value.

All of the rules about which port is tried with which scheme live here.
"""

from __future__ import annotations

import ipaddress

from attrs import frozen
from hyperlink import URL

from tsrt.errors import ConfigError, InsecureControlURL

PLAIN_PORT = 80
TLS_PORT = 443

_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
    )
)


def isLocalHost(host: str) -> bool:
    """
    Whether C{host} is this machine or an address of a private network.

    Only names that never leave the machine and address literals count: what a
    DNS name leads to is for whoever answers DNS to decide.
    """
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return any(
        address in network for network in _PRIVATE if network.version == address.version
    )


@frozen
class ControlURL:
    """
    Where a control server is.

    @ivar scheme: C{"https"} or C{"http"}.
    @ivar host: a DNS name or an address literal without brackets.
    @ivar port: the port of the URL, or the scheme's usual one.
    @ivar prefix: a path in front of everything that is asked of the server;
        empty, or begins with a slash and ends without one.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def isLocal(self) -> bool:
        """Whether the server is on this machine or on a private network."""
        return isLocalHost(self.host)

    @property
    def authority(self) -> str:
        """The host as it stands in a URL, with the port if it is unusual."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = TLS_PORT if self.scheme == "https" else PLAIN_PORT
        return host if self.port == usual else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        """The URL without a slash at its end."""
        return f"{self.scheme}://{self.authority}{self.prefix}"

    @property
    def plainPort(self) -> int:
        """Where the control upgrade is tried without TLS."""
        return PLAIN_PORT if self.scheme == "https" else self.port

    @property
    def tlsPort(self) -> int | None:
        """
        Where the control upgrade is tried with TLS, or C{None} for nowhere.

        A plain server on this machine or on a private network has no other
        port that would be worth a try.
        """
        if self.scheme == "https":
            return self.port
        return None if self.isLocal else TLS_PORT

    @property
    def plainIsSecondChoice(self) -> bool:
        """
        Whether a quick redial leaves plain HTTP out.

        Something on the way that lets the plain connection come up and then
        spoils it would otherwise win each race.  Whoever configured plain
        HTTP gets plain HTTP, each time.
        """
        return self.scheme == "https"

    def keyURL(self, version: int) -> str:
        """The URL of the server's key for a client of this version."""
        return f"{self.text}/key?v={version}"


def parseControlURL(text: str, *, allowHTTP: bool = False) -> ControlURL:
    """
    Check and take apart the URL of a control server.

    @param allowHTTP: permit C{http://} for a server elsewhere than on this
        machine or on a private network.  The server's key is then fetched
        without any proof of whose key it is.
    @raise InsecureControlURL: when C{http://} is not permitted for it.
    @raise ConfigError: when it is no URL of a control server.
    """
    try:
        url = URL.from_text(text.strip())
        port = url.port
    except ValueError as error:
        raise ConfigError(f"the login server {text!r} is not a URL: {error}") from None
    scheme = url.scheme.lower()
    if scheme not in ("http", "https") or not url.host or not port:
        raise ConfigError(
            f"the login server {text!r} must be an http:// or https:// URL"
        )
    if url.userinfo or url.query or url.fragment:
        raise ConfigError(
            "the login server's URL holds a user, a query or a fragment",
            advice="Give only scheme, host and port.",
        )
    if not 0 < port < 65536:
        raise ConfigError(f"the login server {text!r} has an impossible port")
    try:
        # IPv6 literals, which are no names, must not be encoded as such.
        literal = ":" in url.host
        encoded = url.replace(host="literal").to_uri() if literal else url.to_uri()
    except ValueError as error:
        raise ConfigError(
            f"the login server {text!r} has an impossible name: {error}"
        ) from None
    host = url.host if literal else encoded.host.lower()
    path = "/".join(part for part in encoded.path if part)
    result = ControlURL(scheme, host, port, f"/{path}" if path else "")
    if scheme == "http" and not allowHTTP and not result.isLocal:
        raise InsecureControlURL(
            f"the login server {result.text} would be used without TLS"
        )
    return result

"""The command line of C{twistd tsrt}, with the names that Tailscale users know."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import quoteStringArgument
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from tsrt._version import __version__
from tsrt.cli.local import socketPath
from tsrt.config import NodeConfig, parseDuration
from tsrt.errors import ConfigError
from tsrt.keys import Secret
from tsrt.services.localapi import LONGEST_PATH
from tsrt.services.proxy import HTTP, SOCKS5
from tsrt.settings import parseBool


class Options(UsageOptions):
    """The command line of C{twistd tsrt}."""

    synopsis = "[options]"
    longdesc = (
        "Joins a tailnet and carries its traffic in this process. Without an auth "
        "key a login page is shown. Settings may also come from the environment: "
        "TS_AUTHKEY, TS_CONTROL_URL, TS_HOSTNAME, TS_STATE_DIR, TS_ROUTES, "
        "TS_ACCEPT_DNS, TS_BOOT_TIMEOUT, "
        "TS_DEBUG_ALWAYS_USE_DERP, TS_DISABLE_PORTMAPPER, TS_DISABLE_UPNP, "
        "TS_SOCKS5_SERVER, TS_OUTBOUND_HTTP_PROXY_LISTEN, "
        "HTTPS_PROXY, ALL_PROXY, NO_PROXY."
    )

    optFlags = [
        ["accept-routes", None, "Reach networks behind other nodes through them."],
        [
            "exit-node-allow-lan-access",
            None,
            "Reach the private networks of this machine directly, in spite of an "
            "exit node.",
        ],
        [
            "advertise-exit-node",
            None,
            "Offer to be an exit node, and let what peers send to the internet out "
            "by this host.",
        ],
        ["shields-up", None, "Let nobody begin a connection with this node."],
        ["ephemeral", None, "Leave the tailnet for good when the node stops."],
        ["force-reauth", None, "Log in anew, although a valid key is saved."],
        ["allow-http", None, "Permit an http:// login server on a public address."],
        ["verbose", "v", "Log what happens inside, too."],
    ]

    optParameters = [
        [
            "authkey",
            None,
            None,
            "Auth key, or file:PATH. Everybody on this machine can read command "
            "lines: prefer --authkey-file or TS_AUTHKEY.",
        ],
        ["authkey-file", None, None, "File that holds the auth key."],
        ["login-server", None, None, "URL of the control server."],
        ["hostname", None, None, "Name to ask for; this machine's by default."],
        ["statedir", None, None, "Directory for the node's keys."],
        ["state", None, None, "'mem:' keeps keys in memory only (with --ephemeral)."],
        ["advertise-tags", None, None, "Tags to ask for, with commas between."],
        [
            "exit-node",
            None,
            None,
            "Peer through which everything else goes: name, address or auto:any.",
        ],
        [
            "accept-dns",
            None,
            None,
            "'false' ignores the tailnet's DNS settings; names of nodes are known.",
        ],
        [
            "advertise-routes",
            None,
            None,
            "Networks to lead to, with commas between, such as 192.168.1.0/24.",
        ],
        [
            "exit-proxy",
            None,
            None,
            "URL of a SOCKS5 or HTTP proxy by which all that is forwarded leaves.",
        ],
        [
            "forward-tcp-ports",
            None,
            None,
            "Ports to forward, with commas between, such as 443,8000-8010; all by "
            "default.",
        ],
        ["forward-udp-ports", None, None, "The same for UDP."],
        ["port", None, None, "UDP port on the real network; 0 picks one.", int],
        [
            "static-endpoints",
            None,
            None,
            "Further ADDRESS:PORT, with commas between, at which peers reach that "
            "port, such as one that was forwarded by hand.",
        ],
        [
            "socks5-server",
            None,
            None,
            "ADDRESS:PORT of a SOCKS5 proxy to the tailnet, without a password.",
        ],
        [
            "outbound-http-proxy-listen",
            None,
            None,
            "ADDRESS:PORT of an HTTP proxy to the tailnet, without a password; may be "
            "the same.",
        ],
        [
            "socket",
            None,
            None,
            "Unix socket for the tsrt command; 'no' for none. In the state directory "
            "by default.",
        ],
        ["ca-file", None, None, "PEM file of further certificate authorities."],
        [
            "timeout",
            None,
            None,
            "Give up when not running after this long (60s); 0 waits for ever.",
        ],
        ["config", None, None, "TOML file with settings; options beat it."],
        [
            "metrics",
            None,
            None,
            "ADDRESS:PORT of a web server with /metrics for Prometheus, and /healthz.",
        ],
        ["capture", None, None, "pcap file to record all packets in, for Wireshark."],
        ["status-file", None, None, "JSON file to keep the node's status in."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen-tcp"] = []
        self["forward"] = []
        self["serve-dir"] = []
        self["ping"] = []

    def opt_control_url(self, url: str) -> None:
        """The same as --login-server."""
        self["login-server"] = url

    def opt_auth_key(self, key: str) -> None:
        """The same as --authkey."""
        self["authkey"] = key

    def opt_listen_tcp(self, text: str) -> None:
        """PORT=ENDPOINT: join connections to this tailnet port to a host endpoint, as in 8080=tcp:127.0.0.1:80."""
        port, endpoint = _split(text, "--listen-tcp PORT=ENDPOINT", first=True)
        self["listen-tcp"].append((_port(port), endpoint))

    def opt_forward(self, text: str) -> None:
        """ENDPOINT=HOST:PORT: join connections to a host endpoint to a tailnet address, as in tcp:8022:interface=127.0.0.1=build:22."""
        endpoint, target = _split(text, "--forward ENDPOINT=HOST:PORT", first=False)
        host, _, port = target.rpartition(":")
        if not host:
            raise UsageError(f"--forward: {target!r} is not HOST:PORT")
        self["forward"].append((endpoint, host.strip("[]"), _port(port)))

    def opt_serve_dir(self, text: str) -> None:
        """PORT=PATH: serve the files below a directory by HTTP on this tailnet port."""
        port, path = _split(text, "--serve-dir PORT=PATH", first=True)
        self["serve-dir"].append((_port(port), Path(path).expanduser()))

    def opt_ping(self, host: str) -> None:
        """Ping this peer every ten seconds; log path and round-trip time."""
        self["ping"].append(host)

    def opt_version(self) -> None:
        """Show the version and exit."""
        sys.stdout.write(f"tsrt {__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Check what the options mean together."""
        if self["authkey"] and self["authkey-file"]:
            raise UsageError("--authkey and --authkey-file exclude each other")
        if self["state"] not in (None, "mem:"):
            raise UsageError("--state knows only 'mem:'; a directory is --statedir")
        if self["state"] and self["statedir"]:
            raise UsageError("--state mem: and --statedir exclude each other")
        try:
            self.config = self._makeConfig()
            self.proxies()
            if self["metrics"]:
                listening(self["metrics"])
        except ConfigError as error:
            raise UsageError(error.describe()) from None
        if self["state"] == "mem:" and not self.config.ephemeral:
            raise UsageError(
                "--state mem: without --ephemeral would leave a dead machine in "
                "the tailnet at every start; add --ephemeral or use --statedir"
            )

    def proxies(self) -> dict[str, frozenset[str]]:
        """
        Which proxies are wanted, by where they listen.

        @raise ConfigError: that is no address.
        """
        wanted: dict[str, frozenset[str]] = {}
        for option, variable, protocol in (
            ("socks5-server", "TS_SOCKS5_SERVER", SOCKS5),
            ("outbound-http-proxy-listen", "TS_OUTBOUND_HTTP_PROXY_LISTEN", HTTP),
        ):
            address = self[option] or os.environ.get(variable)
            if address:
                listening(address)
                wanted[address] = wanted.get(address, frozenset()) | {protocol}
        return wanted

    def socket(self) -> str | None:
        """
        The Unix socket that the C{tsrt} command asks, if there is to be one.

        Keys in memory have no directory for it.
        """
        named: str | None = self["socket"] or os.environ.get("TS_SOCKET")
        if named == "no":
            return None
        if named:
            return str(Path(named).expanduser())
        if self["state"]:
            return None
        path = str(socketPath(self.config))
        # Deep directories have none rather than keep the node from running.
        return path if len(os.fsencode(path)) <= LONGEST_PATH else None

    def _makeConfig(self) -> NodeConfig:
        authKey = self["authkey"]
        if self["authkey-file"]:
            authKey = f"file:{self['authkey-file']}"
        timeout = None
        if self["timeout"] is not None:
            timeout = parseDuration(self["timeout"])
        settings: dict[str, Any] = {
            "authKey": Secret(authKey) if authKey else None,
            "controlURL": self["login-server"],
            "hostname": self["hostname"],
            "stateDir": self["statedir"],
            "advertiseTags": _list(self["advertise-tags"]),
            "acceptRoutes": True if self["accept-routes"] else None,
            "exitNode": self["exit-node"],
            "exitNodeAllowLANAccess": (
                True if self["exit-node-allow-lan-access"] else None
            ),
            "acceptDNS": (
                None
                if self["accept-dns"] is None
                else parseBool("--accept-dns", self["accept-dns"])
            ),
            "advertiseRoutes": _list(self["advertise-routes"]),
            "advertiseExitNode": True if self["advertise-exit-node"] else None,
            # On the command line to offer means to do.
            "forwardExitEgress": True if self["advertise-exit-node"] else None,
            "exitProxy": self["exit-proxy"],
            "forwardTCPPorts": _list(self["forward-tcp-ports"]),
            "forwardUDPPorts": _list(self["forward-udp-ports"]),
            "shieldsUp": True if self["shields-up"] else None,
            "port": self["port"],
            "staticEndpoints": _list(self["static-endpoints"]),
            "caFile": self["ca-file"],
            "ephemeral": True if self["ephemeral"] else None,
            "forceReauth": True if self["force-reauth"] else None,
            "allowHTTP": True if self["allow-http"] else None,
            "startupTimeout": timeout,
        }
        # Command lines must not hold secrets for longer than it takes to read.
        self["authkey"] = self["exit-proxy"] = None
        if self["config"]:
            return NodeConfig.fromFile(self["config"], **settings)
        return NodeConfig.fromEnvironment(**settings)


def _split(text: str, form: str, *, first: bool) -> tuple[str, str]:
    left, sign, right = text.partition("=") if first else text.rpartition("=")
    if not (left and sign and right):
        raise UsageError(f"{text!r} is not of the form {form}")
    return left, right


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise UsageError(f"{text!r} is not a port")
    return int(text)


def _list(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    return tuple(part.strip() for part in text.split(",") if part.strip())


def listening(address: str) -> str:
    """
    The endpoint string of C{address:port}; without an address it is this machine
    only.
    """
    host, colon, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"{address!r} is not an address with a port",
            advice="Write it like localhost:1055.",
        )
    if host == "localhost":
        host = "127.0.0.1"
    kind = "tcp6" if ":" in host else "tcp"
    return f"{kind}:{port}:interface={quoteStringArgument(host)}"

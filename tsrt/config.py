"""
What a user may set on a node, checked when it is set.

L{NodeConfig} is a value; L{Seams} holds what tests replace.
"""

from __future__ import annotations

import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import Attribute, evolve, field, fields, frozen
from hyperlink import URL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tsrt.addresses import AddrPort, Prefix
from tsrt.errors import ConfigError, WireError
from tsrt.interfaces import IHostPinger, IStreamDialer
from tsrt.keys import Secret
from tsrt.netmap.exitnode import ExitNodeSelector
from tsrt.netmap.forwarding import PortRanges, readAdvertised
from tsrt.path.mappings import Gateway
from tsrt.settings import checkKinds, parseDuration, readVariables
from tsrt.underlay.gateway import findGateway
from tsrt.underlay.hostping import HostPinger
from tsrt.underlay.interfaces import InterfaceAddress, interfaceAddresses
from tsrt.underlay.proxy import Proxy, ProxySettings

__all__ = [
    "DEFAULT_CONTROL_URL",
    "DEFAULT_STARTUP_TIMEOUT",
    "NodeConfig",
    "Seams",
    "checkHostname",
    "checkTags",
    "defaultHostname",
    "parseDuration",
    "sanitizeHostname",
    "toRoutes",
    "toTexts",
]

DEFAULT_CONTROL_URL = "https://controlplane.tailscale.com"
DEFAULT_STARTUP_TIMEOUT = 60.0

_TAG = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]*\Z")

# Program names that say nothing about the program.
_MEANINGLESS = frozenset(
    {
        "",
        "-c",
        "-m",
        "__main__",
        "python",
        "python3",
        "twistd",
        "twist",
        "trial",
        "tsrt",
    }
)


def _checkURL(instance: object, attribute: Attribute[str], value: str) -> None:
    try:
        url = URL.from_text(value)
    except ValueError as error:
        raise ConfigError(f"the login server {value!r} is not a URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(
            f"the login server {value!r} must be an http:// or https:// URL"
        )
    if url.userinfo or url.query or url.fragment:
        raise ConfigError(
            "the login server's URL holds a user, a query or a fragment",
            advice="Give only scheme, host, port and, if need be, a path.",
        )


def checkTags(
    instance: object, attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]
) -> None:
    """
    Check tags that a node asks for.

    @raise ConfigError: one of them is none.
    """
    for tag in value:
        if not _TAG.match(tag):
            raise ConfigError(
                f"{tag!r} is not a tag",
                advice="A tag is 'tag:' with a letter and then letters, "
                "digits or '-' behind it.",
            )


def _checkPort(instance: object, attribute: Attribute[int], value: int) -> None:
    if not 0 <= value <= 65535:
        raise ConfigError(f"{value} is not a UDP port")


def _checkEndpoints(
    instance: object, attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]
) -> None:
    for text in value:
        try:
            AddrPort.parse(text)
        except WireError:
            raise ConfigError(
                f"the endpoint {text!r} is not an address with a port",
                advice="Write it like 203.0.113.7:41641 or [2001:db8::7]:41641.",
            ) from None


def _checkExitNode(
    instance: object, attribute: Attribute[str | None], value: str | None
) -> None:
    if value is not None:
        ExitNodeSelector.parse(value)


def checkHostname(name: str) -> None:
    """
    Check a name that a node may ask for.

    @raise ConfigError: nothing of it can stand in a DNS label.
    """
    if not sanitizeHostname(name):
        raise ConfigError(f"the hostname {name!r} holds no letter and no digit")


def _checkPositive(
    instance: object, attribute: Attribute[Any], value: float | None
) -> None:
    if value is not None and value < 0:
        raise ConfigError(f"{attribute.name} must not be negative")


def _toPath(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else Path(value).expanduser()


def toRoutes(value: Iterable[Prefix | str]) -> tuple[Prefix, ...]:
    """
    Read prefixes to advertise.

    @raise ConfigError: one of them cannot be.
    """
    if isinstance(value, str):
        raise ConfigError("advertiseRoutes is a list of prefixes, not one text")
    return tuple(dict.fromkeys(readAdvertised(str(route)) for route in value))


def _toProxy(value: Proxy | str | None) -> Proxy | None:
    return Proxy.parse(value) if isinstance(value, str) else value


def _toPorts(value: PortRanges | Iterable[str | int] | None) -> PortRanges | None:
    if value is None or isinstance(value, PortRanges):
        return value
    return PortRanges.parse(value)


def _withoutSlash(value: str) -> str:
    return value.rstrip("/")


def toTexts(value: Iterable[str]) -> tuple[str, ...]:
    """
    Take a list of texts.

    @raise ConfigError: it is one text.
    """
    if isinstance(value, str):
        raise ConfigError(f"{value!r} is one text where a list belongs")
    return tuple(value)


def _toSecret(value: Secret | str | None) -> Secret | None:
    if value is None or isinstance(value, Secret):
        return value
    return Secret(value) if value else None


def defaultHostname() -> str:
    """
    The program's name, or this machine's where that says nothing.

    Two programs on one machine so get different names and state directories.
    """
    name = Path(sys.argv[0] if sys.argv else "").stem
    if name.lower() in _MEANINGLESS:
        import platform

        name = platform.node()
    return sanitizeHostname(name) or "tsrt"


def sanitizeHostname(name: str) -> str:
    """
    Make a DNS label of C{name}, the way that Tailscale clients do.

    @return: at most 63 letters, digits and hyphens in lower case, perhaps
        nothing at all.
    """
    for suffix in (".local", ".localdomain", ".lan"):
        name = name.removesuffix(suffix)
    name = re.sub(r"[ .@_]", "-", name[:63].strip())
    name = re.sub(r"[^A-Za-z0-9-]", "", name)
    return name.strip("-").lower()


@frozen(kw_only=True)
class NodeConfig:
    """
    How a node joins a tailnet.

    @ivar hostname: the name that the node asks for; the program's by default.
    @ivar stateDir: where keys are kept.  C{None} means a directory of the
        user's that contains the host name (unless a store is given to the
        node).
    @ivar controlURL: the control server (C{--login-server}).
    @ivar authKey: used only when no valid node key is saved; C{file:/path}
        reads the key from a file.
    @ivar ephemeral: whether control forgets the node when it stops.
    @ivar advertiseTags: the tags that the node asks for.
    @ivar acceptRoutes: whether networks behind other nodes are reached through
        them.
    @ivar exitNode: the peer through which everything else goes: its MagicDNS
        name or tailnet address, or C{auto:any} for the nearest; C{None}: what no
        route leads to goes nowhere.
    @ivar exitNodeAllowLANAccess: whether connections to the private networks that
        this machine is in go there directly while an exit node is wanted.
    @ivar acceptDNS: whether the tailnet's DNS settings hold for names; those of
        nodes are known in any case.
    @ivar shieldsUp: whether to let nobody begin anything with this node.
    @ivar advertiseRoutes: the networks that this node leads to for others, as
        prefixes of IPv4, or of IPv6 where that stands for IPv4 (4via6).
    @ivar advertiseExitNode: whether to offer to be an exit node.  Nothing leaves
        for the internet by that alone, see C{forwardExitEgress}.
    @ivar forwardExitEgress: whether what peers send to the internet may leave by
        this host, by its own address unless there is an C{exitProxy}.
    @ivar exitProxy: the URL of a SOCKS5 or HTTP proxy by which all forwarded
        connections leave; if it fails they fail.  It is of no use without
        C{forwardExitEgress}.
    @ivar forwardTCPPorts: ports that are forwarded, such as C{"443"} and
        C{"8000-8010"}; C{None}: all.
    @ivar forwardUDPPorts: the same for UDP.
    @ivar port: UDP port on the real network; 0 picks one.
    @ivar staticEndpoints: further C{address:port} at which peers reach that
        port, such as one that was forwarded by hand.
    @ivar relayOnly: send everything by relays, look for no direct paths.
    @ivar portMapping: whether to ask the gateway for a port of its public
        address, by NAT-PMP, PCP or UPnP.
    @ivar upnp: whether UPnP may be among those.
    @ivar forceReauth: get a new node key although the saved one is valid.
    @ivar allowHTTP: permit a plain C{http://} control server that is neither
        loopback nor private.
    @ivar forceHTTPS: never try port 80 for the control connection.
    @ivar caFile: PEM file of certificate authorities trusted besides the
        system's, for control and relays.
    @ivar proxy: upstream proxies for control and relays.
    @ivar keepAlive: seconds between WireGuard keep-alives to every peer; 0
        sends none.
    @ivar startupTimeout: seconds until C{up()} gives up, or C{None} for never.
    @ivar stopTimeout: seconds that each part gets for a clean stop.
    """

    hostname: str = field(factory=defaultHostname)
    stateDir: Path | None = field(default=None, converter=_toPath)
    controlURL: str = field(
        default=DEFAULT_CONTROL_URL,
        converter=_withoutSlash,
        validator=_checkURL,
    )
    authKey: Secret | None = field(default=None, converter=_toSecret)
    ephemeral: bool = False
    advertiseTags: tuple[str, ...] = field(
        default=(), converter=toTexts, validator=checkTags
    )
    acceptRoutes: bool = False
    exitNode: str | None = field(default=None, validator=_checkExitNode)
    exitNodeAllowLANAccess: bool = False
    acceptDNS: bool = True
    shieldsUp: bool = False
    advertiseRoutes: tuple[Prefix, ...] = field(default=(), converter=toRoutes)
    advertiseExitNode: bool = False
    forwardExitEgress: bool = False
    exitProxy: Proxy | None = field(default=None, converter=_toProxy)
    forwardTCPPorts: PortRanges | None = field(default=None, converter=_toPorts)
    forwardUDPPorts: PortRanges | None = field(default=None, converter=_toPorts)
    port: int = field(default=0, validator=_checkPort)
    staticEndpoints: tuple[str, ...] = field(
        default=(), converter=toTexts, validator=_checkEndpoints
    )
    relayOnly: bool = False
    portMapping: bool = True
    upnp: bool = True
    forceReauth: bool = False
    allowHTTP: bool = False
    forceHTTPS: bool = False
    caFile: Path | None = field(default=None, converter=_toPath)
    proxy: ProxySettings = field(factory=ProxySettings)
    keepAlive: float = field(default=0.0, validator=_checkPositive)
    startupTimeout: float | None = field(
        default=DEFAULT_STARTUP_TIMEOUT, validator=_checkPositive
    )
    stopTimeout: float = field(default=3.0, validator=_checkPositive)

    def __attrs_post_init__(self) -> None:
        checkHostname(self.hostname)

    @classmethod
    def fromEnvironment(
        cls, environ: Mapping[str, str] | None = None, **settings: Any
    ) -> NodeConfig:
        """
        Read the C{TS_*} variables that Tailscale users know.

        C{TS_AUTHKEY} (or C{TS_AUTH_KEY}), C{TS_CONTROL_URL}, C{TS_HOSTNAME},
        C{TS_STATE_DIR}, C{TS_ROUTES}, C{TS_ACCEPT_DNS}, C{TS_BOOT_TIMEOUT},
        C{TSNET_FORCE_LOGIN},
        C{TS_FORCE_NOISE_443}, C{TS_DEBUG_ALWAYS_USE_DERP} (or
        C{TS_DEBUG_NEVER_DIRECT_UDP}), C{TS_DISABLE_PORTMAPPER},
        C{TS_DISABLE_UPNP}, and C{HTTPS_PROXY}, C{ALL_PROXY}, C{NO_PROXY}.

        @param settings: beat the variables; C{None} means not set.
        @raise ConfigError: a variable has a value that cannot be.
        """
        found = readVariables(os.environ if environ is None else environ)
        found.update({k: v for k, v in settings.items() if v is not None})
        return cls._checked(found, "a setting")

    @classmethod
    def fromFile(
        cls,
        path: str | os.PathLike[str],
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> NodeConfig:
        """
        Read a TOML file whose keys are the attributes of this class.

        The C{TS_*} variables of L{fromEnvironment} beat the file, which beats
        C{HTTPS_PROXY} and its like.

        @param settings: beat file and variables; C{None} means not set.
        @raise ConfigError: the file cannot be read, or holds a key or a value
            that cannot be.
        """
        try:
            with open(path, "rb") as file:
                found: dict[str, object] = tomllib.load(file)
        except OSError as error:
            raise ConfigError(
                f"the configuration file {os.fspath(path)} cannot be read: "
                f"{error.strerror}"
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(
                f"the configuration file {os.fspath(path)} is not TOML: {error}"
            ) from None
        checkKinds(found, os.fspath(path))
        if "proxy" in found:
            found["proxy"] = ProxySettings.fromEnvironment(
                {"ALL_PROXY": str(found["proxy"])}
            )
        variables = readVariables(os.environ if environ is None else environ)
        proxy = variables.pop("proxy")
        found.setdefault("proxy", proxy)
        found.update(variables)
        found.update({k: v for k, v in settings.items() if v is not None})
        return cls._checked(found, os.fspath(path))

    @classmethod
    def _checked(cls, settings: Mapping[str, object], where: str) -> NodeConfig:
        known = {a.name for a in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ConfigError(
                f"{where} has no meaning here: {', '.join(unknown)}",
                advice=f"Known are: {', '.join(sorted(known))}.",
            )
        try:
            return cls(**settings)  # type: ignore[arg-type]  # checked by attrs
        except ConfigError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{where} has a value of a wrong kind: {error}") from None

    def resolvedAuthKey(self) -> Secret | None:
        """
        The auth key itself, read from its file when it names one.

        White space around the key is dropped: files end in newlines.

        @raise ConfigError: the file cannot be read or is empty.
        """
        if self.authKey is None:
            return None
        text = self.authKey.reveal()
        if text.startswith("file:"):
            path = Path(text.removeprefix("file:")).expanduser()
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not text"
                raise ConfigError(
                    f"the auth key file {path} cannot be read: {reason}"
                ) from None
            if not text.strip():
                raise ConfigError(f"the auth key file {path} is empty")
        return Secret(text.strip()) if text.strip() else None

    def resolvedStateDir(self) -> Path:
        """The state directory, the user's default one if none was set."""
        if self.stateDir is not None:
            return self.stateDir
        from platformdirs import user_state_path

        return user_state_path("tsrt", appauthor=False) / sanitizeHostname(
            self.hostname
        )

    def replace(self, **changes: Any) -> NodeConfig:
        """A copy with some settings changed."""
        return evolve(self, **changes)


@frozen(kw_only=True)
class Seams:
    """
    What a test replaces; the only hook for fakes.

    @ivar randbytes: the source of randomness, C{os.urandom} by default.
    @ivar wallclock: seconds since 1970, for WireGuard timestamps and expiry
        dates.  Not the reactor's time, which some reactors count from
        elsewhere.
    @ivar makeDialer: makes the dialer of outgoing streams.
    @ivar interfaces: tells the addresses of the machine that a reactor stands
        for.
    @ivar gateway: finds its next router on the way to the IPv4 internet.
    @ivar hostPinger: pings the real network for peers.
    """

    randbytes: Callable[[int], bytes] = os.urandom
    wallclock: Callable[[], float] = time.time
    makeDialer: Callable[[IReactorTime, NodeConfig], IStreamDialer] | None = None
    interfaces: Callable[[IReactorTime], Sequence[InterfaceAddress]] = lambda reactor: (
        interfaceAddresses()
    )
    gateway: Callable[[IReactorTime], Deferred[Gateway | None]] = findGateway
    hostPinger: Callable[[IReactorTime], IHostPinger] = HostPinger

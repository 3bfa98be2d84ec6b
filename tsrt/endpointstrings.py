"""
Endpoint strings: C{tailnet:web:80}, C{tailnet:80:hostname=files:stateDir=...}.

The parsers run while a program is being configured, before the reactor runs,
so they only check words.  The node is found, or made and started, when the
endpoint is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, cast
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorCore, IReactorTime

from tsrt.config import NodeConfig
from tsrt.endpoints import (
    DEFAULT_TIMEOUT,
    TailnetClientEndpoint,
    TailnetServerEndpoint,
)
from tsrt.errors import ConfigError
from tsrt.keys import Secret
from tsrt.node import Node, nodes
from tsrt.reactor import TailnetReactor
from tsrt.registry import DEFAULT_NAME

# What a string may say about the node; the auth key itself is not among it,
# because command lines can be read by everybody on the machine.
_SETTINGS = ("stateDir", "hostname", "authKeyFile", "controlURL", "ephemeral")

_declared: WeakKeyDictionary[object, dict[str, dict[str, str]]] = WeakKeyDictionary()


def parseClient(
    reactor: IReactorCore, *args: str, **kwargs: str
) -> TailnetClientEndpoint:
    """
    Make a client endpoint of C{tailnet:HOST:PORT} or
    C{tailnet:host=HOST:port=PORT[:timeout=SECONDS]}.

    @raise ConfigError: a word is missing, wrong or contradicts another string.
    """
    words = _words("client", ("host", "port"), args, kwargs, ("timeout",))
    if "host" not in words or "port" not in words:
        raise ConfigError(
            "a tailnet: client needs a host and a port",
            advice="Write tailnet:web:80 or tailnet:host=web:port=80.",
        )
    obtain = _declare(reactor, words)
    try:
        timeout = float(words.get("timeout", DEFAULT_TIMEOUT))
    except ValueError:
        raise ConfigError(f"timeout={words['timeout']} is not a number") from None
    return TailnetClientEndpoint(obtain, words["host"], _port(words, 1), timeout)


def parseServer(
    reactor: IReactorCore, *args: str, **kwargs: str
) -> TailnetServerEndpoint:
    """
    Make a server endpoint of C{tailnet:PORT} or
    C{tailnet:port=PORT[:interface=v4][:backlog=N]}.

    @raise ConfigError: a word is missing, wrong or contradicts another string.
    """
    words = _words("server", ("port",), args, kwargs, ("interface", "backlog"))
    if "port" not in words:
        raise ConfigError("a tailnet: server needs a port", advice="Try tailnet:80.")
    obtain = _declare(reactor, words)
    try:
        backlog = int(words.get("backlog", "50"))
    except ValueError:
        raise ConfigError(f"backlog={words['backlog']} is not a number") from None
    return TailnetServerEndpoint(
        obtain, _port(words, 0), backlog, words.get("interface", "")
    )


def _words(
    kind: str,
    positional: tuple[str, ...],
    args: tuple[str, ...],
    kwargs: dict[str, str],
    optional: tuple[str, ...],
) -> dict[str, str]:
    """All words of a string under their names."""
    if len(args) > len(positional):
        raise ConfigError(
            f"a tailnet: {kind} takes {' and '.join(positional)} without names, "
            f"not also {args[len(positional)]!r}"
        )
    words = dict(zip(positional, args, strict=False))
    known = {*positional, *optional, "node", *_SETTINGS}
    for name, value in kwargs.items():
        if name in words:
            raise ConfigError(f"{name} is given twice in a tailnet: string")
        if name == "authKey":
            raise ConfigError(
                "an auth key must not stand in an endpoint string",
                advice="Everybody on this machine can read command lines: use "
                "authKeyFile= or the variable TS_AUTHKEY.",
            )
        if name not in known:
            raise ConfigError(
                f"{name}= has no meaning in a tailnet: {kind} string",
                advice=f"Known are: {', '.join(sorted(known))}.",
            )
        words[name] = value
    return words


def _port(words: dict[str, str], least: int) -> int:
    try:
        port = int(words["port"])
    except ValueError:
        port = -1
    if not least <= port <= 65535:
        raise ConfigError(f"{words['port']!r} is not a port")
    return port


def _declare(
    reactor: IReactorCore, words: dict[str, str]
) -> Callable[[], TailnetReactor]:
    """Note what a string says about its node; return how to get there."""
    name = words.get("node", DEFAULT_NAME)
    said = {key: words[key] for key in _SETTINGS if key in words}
    declared = _declared.setdefault(reactor, {}).setdefault(name, {})
    for key, value in said.items():
        if declared.get(key, value) != value:
            raise ConfigError(
                f"two tailnet: strings disagree on {key} of node {name!r}: "
                f"{declared[key]!r} and {value!r}",
                advice="Give the nodes different names with node=.",
            )
    declared.update(said)
    _config(declared)  # wrong values are found now
    return lambda: _obtain(reactor, name).reactor


def _config(said: dict[str, str]) -> NodeConfig:
    settings: dict[str, Any] = {
        key: said[key] for key in ("stateDir", "hostname", "controlURL") if key in said
    }
    if "authKeyFile" in said:
        settings["authKey"] = Secret(f"file:{said['authKeyFile']}")
    if "ephemeral" in said:
        if said["ephemeral"] not in ("yes", "no", "true", "false"):
            raise ConfigError(f"ephemeral={said['ephemeral']} is neither yes nor no")
        settings["ephemeral"] = said["ephemeral"] in ("yes", "true")
    return NodeConfig.fromEnvironment(**settings)


def _obtain(reactor: IReactorCore, name: str) -> Node:
    """Find the node, or make, start and register it."""
    node = nodes.find(reactor, name)
    if node is not None:
        return node
    said = _declared.get(reactor, {}).get(name, {})
    if not said:
        _refuse(name)
    made = Node(cast(IReactorTime, reactor), _config(said), name=name)
    made.startService()
    reactor.addSystemEventTrigger("before", "shutdown", made.stopService)
    return made


def _refuse(name: str) -> NoReturn:
    raise ConfigError(
        f"this process has no tailnet node called {name!r}",
        advice="Add hostname= and stateDir= (and authKeyFile=) to the string, or "
        "start a tsrt.Node of that name first.",
    )

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
from tsrt.overlay.context import packedInterface
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
    if not words.get("host") or not words.get("port"):
        raise ConfigError(
            "a tailnet: client needs a host and a port",
            advice="Write tailnet:web:80 or tailnet:host=web:port=80.",
        )
    port = _number(words, "port", 1, 65535)
    timeout = _number(words, "timeout", 1, 86_400, int(DEFAULT_TIMEOUT))
    obtain = _declare(reactor, words)
    return TailnetClientEndpoint(obtain, words["host"], port, timeout)


def parseServer(
    reactor: IReactorCore, *args: str, **kwargs: str
) -> TailnetServerEndpoint:
    """
    Make a server endpoint of C{tailnet:PORT} or
    C{tailnet:port=PORT[:interface=v4][:backlog=N]}.

    @raise ConfigError: a word is missing, wrong or contradicts another string.
    """
    words = _words("server", ("port",), args, kwargs, ("interface", "backlog"))
    if not words.get("port"):
        raise ConfigError("a tailnet: server needs a port", advice="Try tailnet:80.")
    port = _number(words, "port", 0, 65535)
    backlog = _number(words, "backlog", 1, 65535, 50)
    interface = words.get("interface", "")
    try:
        packedInterface(interface)
    except ValueError:
        raise ConfigError(
            f"interface={interface} is not an address of the tailnet",
            advice="Use v4, v6 or one of the node's addresses; escape colons.",
        ) from None
    return TailnetServerEndpoint(_declare(reactor, words), port, backlog, interface)


def _words(
    kind: str,
    positional: tuple[str, ...],
    args: tuple[str, ...],
    kwargs: dict[str, str],
    optional: tuple[str, ...],
) -> dict[str, str]:
    """All words of a string under their names."""
    if len(args) > len(positional):
        # The words themselves are not repeated: one might be a key.
        raise ConfigError(
            f"a tailnet: {kind} string takes {' and '.join(positional)} without "
            f"names, and nothing more; here are {len(args)} such words",
            advice="Write the others as name=value.",
        )
    words = dict(zip(positional, args, strict=False))
    known = {*positional, *optional, "node", *_SETTINGS}
    for name, value in kwargs.items():
        if name in words:
            raise ConfigError(f"{name} is given twice in a tailnet: string")
        if name.lower() == "authkey":
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


def _number(
    words: dict[str, str], name: str, least: int, most: int, default: int = 0
) -> int:
    """A number among the words."""
    if name not in words:
        return default
    try:
        number = int(words[name])
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise ConfigError(
            f"{name}={words[name]} is not a number from {least} to {most}"
        )
    return number


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
    _config({**declared, **said})  # wrong values are found now
    declared.update(said)
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
    """
    Find the node, or make, start and register it.

    @raise TSRTError: there is none and cannot be, or it has given up.
    """
    node = nodes.find(reactor, name)
    if node is None:
        said = _declared.get(reactor, {}).get(name, {})
        if not said:
            _refuse(name)
        node = Node(cast(IReactorTime, reactor), _config(said), name=name)
        node.startService()
        reactor.addSystemEventTrigger("before", "shutdown", node.stopService)
    if node.status.error is not None:
        raise node.status.error
    return node


def _refuse(name: str) -> NoReturn:
    raise ConfigError(
        f"this process has no tailnet node called {name!r}",
        advice="Add hostname= and stateDir= (and authKeyFile=) to the string, or "
        "start a tsrt.Node of that name first.",
    )

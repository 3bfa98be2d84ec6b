"""
Reading the settings of a node from the environment and from a file.

What comes out are plain values by the names of C{NodeConfig}'s attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tsrt.errors import ConfigError
from tsrt.underlay.proxy import ProxySettings


def readVariables(environ: Mapping[str, str]) -> dict[str, object]:
    """The settings that are in the environment; C{proxy} always is."""
    found: dict[str, object] = {"proxy": ProxySettings.fromEnvironment(environ)}
    for names, setting in (
        (("TS_AUTHKEY", "TS_AUTH_KEY"), "authKey"),
        (("TS_CONTROL_URL",), "controlURL"),
        (("TS_HOSTNAME",), "hostname"),
        (("TS_STATE_DIR",), "stateDir"),
    ):
        value = next((environ[n] for n in names if environ.get(n)), None)
        if value is not None:
            found[setting] = value
    if environ.get("TS_ACCEPT_DNS"):
        found["acceptDNS"] = parseBool("TS_ACCEPT_DNS", environ["TS_ACCEPT_DNS"])
    if environ.get("TS_ROUTES"):
        found["advertiseRoutes"] = tuple(environ["TS_ROUTES"].split(","))
    if environ.get("TS_BOOT_TIMEOUT"):
        found["startupTimeout"] = parseDuration(environ["TS_BOOT_TIMEOUT"])
    for name, setting in (
        ("TSNET_FORCE_LOGIN", "forceReauth"),
        ("TS_FORCE_NOISE_443", "forceHTTPS"),
        ("TS_DEBUG_NEVER_DIRECT_UDP", "relayOnly"),
        ("TS_DEBUG_ALWAYS_USE_DERP", "relayOnly"),
    ):
        if environ.get(name):
            isOn = parseBool(name, environ[name])
            found[setting] = isOn or found.get(setting, False)
    for name, setting in (
        ("TS_DISABLE_PORTMAPPER", "portMapping"),
        ("TS_DISABLE_UPNP", "upnp"),
    ):
        if environ.get(name):
            found[setting] = not parseBool(name, environ[name])
    return found


_NUMBER = ((int, float), "a number")
_TEXT = ((str,), "text")
_SWITCH = ((bool,), "true or false")

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "hostname": _TEXT,
    "stateDir": _TEXT,
    "controlURL": _TEXT,
    "authKey": _TEXT,
    "ephemeral": _SWITCH,
    "advertiseTags": ((list,), "a list of texts"),
    "acceptRoutes": _SWITCH,
    "exitNode": _TEXT,
    "exitNodeAllowLANAccess": _SWITCH,
    "acceptDNS": _SWITCH,
    "shieldsUp": _SWITCH,
    "advertiseRoutes": ((list,), "a list of texts"),
    "advertiseExitNode": _SWITCH,
    "forwardExitEgress": _SWITCH,
    "exitProxy": _TEXT,
    "forwardTCPPorts": ((list,), "a list of texts"),
    "forwardUDPPorts": ((list,), "a list of texts"),
    "port": ((int,), "a whole number"),
    "staticEndpoints": ((list,), "a list of texts"),
    "relayOnly": _SWITCH,
    "portMapping": _SWITCH,
    "upnp": _SWITCH,
    "forceReauth": _SWITCH,
    "allowHTTP": _SWITCH,
    "forceHTTPS": _SWITCH,
    "caFile": _TEXT,
    "proxy": _TEXT,
    "keepAlive": _NUMBER,
    "startupTimeout": _NUMBER,
    "stopTimeout": _NUMBER,
}


def checkKinds(found: Mapping[str, object], where: str) -> None:
    """
    Check the values of a file; no message quotes one, it may be a secret.

    @raise ConfigError: a value is of another kind than it must be.
    """
    for name, value in found.items():
        kinds, words = _KINDS.get(name, ((object,), ""))
        fits = isinstance(value, kinds) and (
            not isinstance(value, bool) or bool in kinds or object in kinds
        )
        if isinstance(value, list) and list in kinds:
            fits = all(isinstance(item, str) for item in value)
        if not fits:
            raise ConfigError(f"{where}: {name} must be {words}")


def parseDuration(text: str) -> float:
    """
    Read C{90}, C{90s}, C{1m30s} or C{1h} as seconds.

    @raise ConfigError: the text is no duration.
    """
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(r"(\d+(\.\d+)?(h|ms|m|s))+", text):
        raise ConfigError(
            f"{text!r} is not a duration", advice="Write seconds, or like 1m30s."
        )
    return sum(
        float(number) * units[unit]
        for number, unit in re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|s)", text)
    )


def parseBool(name: str, text: str) -> bool:
    """
    Read a switch.

    @param name: what the text is the value of.
    @raise ConfigError: it is none.
    """
    if text.lower() in ("1", "t", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "f", "false", "no", "off"):
        return False
    raise ConfigError(f"{name}={text!r} is neither true nor false")

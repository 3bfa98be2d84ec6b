"""Where a command that joins no tailnet gets the map of relays from."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from tsrt.config import NodeConfig
from tsrt.control.plainhttp import PlainHTTP
from tsrt.control.reach import unreachable
from tsrt.control.steps import StepLog
from tsrt.control.urls import ControlURL, parseControlURL
from tsrt.errors import TSRTError, WireError
from tsrt.httpbody import TooLong
from tsrt.interfaces import IStreamDialer
from tsrt.tailcfg import DERPMap, decode

LARGEST_MAP = 1 << 20
"""Bytes of a map that are read."""

TIMEOUT = 20.0
"""Seconds for fetching one."""

DEFAULT_PATH = "/derpmap/default"
"""Where Tailscale's control server has the map for everybody."""


class DERPMapUnavailable(TSRTError):
    """There is no map of relays."""

    advice = "Name one with --derp-map, a file or an https:// URL."


async def loadDERPMap(
    reactor: IReactorTime,
    dialer: IStreamDialer,
    config: NodeConfig,
    source: str | None = None,
) -> DERPMap:
    """
    Load a map of relays.

    @param config: the control server, which is asked without a C{source}.
    @param source: a file or an C{https://} URL.
    @raise DERPMapUnavailable: it cannot be had, or is none.
    @raise ConfigError: C{source} is no URL that may be asked.
    """
    if source is None:
        url = parseControlURL(config.controlURL, allowHTTP=config.allowHTTP)
        where, data = await _fetch(reactor, dialer, url, DEFAULT_PATH)
    elif source.startswith(("http://", "https://")):
        url = parseControlURL(source, allowHTTP=config.allowHTTP)
        where, data = await _fetch(reactor, dialer, url, "")
    else:
        where, data = source, _read(Path(source))
    try:
        derpMap = decode(DERPMap, data)
    except WireError as error:
        raise DERPMapUnavailable(f"{where} holds no map of relays: {error}") from None
    if not any((derpMap.regions or {}).values()):
        raise DERPMapUnavailable(f"the map of relays of {where} has no region")
    return derpMap


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_MAP)
    except OSError as error:
        reason = error.strerror or error
        raise DERPMapUnavailable(f"{path} cannot be read: {reason}") from None


async def _fetch(
    reactor: IReactorTime, dialer: IStreamDialer, url: ControlURL, path: str
) -> tuple[str, bytes]:
    where = f"{url.text}{path}"
    steps = StepLog(reactor)
    http = PlainHTTP(reactor, dialer, url, steps=steps, limit=LARGEST_MAP)
    steps.newRound()
    began = reactor.seconds()
    fetching = Deferred.fromCoroutine(http.request("GET", path))
    fetching.addTimeout(TIMEOUT, reactor)
    try:
        answer = await fetching
    except TooLong as error:
        raise DERPMapUnavailable(f"{where}: {error}") from None
    except Exception:
        if reactor.seconds() - began >= TIMEOUT:
            # The client wraps the cancellation in errors of its own.
            raise DERPMapUnavailable(
                f"{where} did not answer within {TIMEOUT:g} seconds"
            ) from None
        reason = unreachable(Failure(), where, steps)
        raise DERPMapUnavailable(str(reason)) from None
    if answer.status != 200:
        raise DERPMapUnavailable(
            f"{where} was answered with HTTP {answer.status} {answer.reason}".rstrip()
        )
    return where, answer.body

"""
The next router on the way to the IPv4 internet, as this machine knows it.
"""

from __future__ import annotations

import re
import sys

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorProcess,
    IReactorTime,
)
from twisted.internet.utils import getProcessOutput
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.addresses import parseAddress
from tsrt.errors import WireError
from tsrt.path.mappings import Gateway
from tsrt.underlay.netlink import kernelRoutes, preferredSources

_log = Logger(namespace="tsrt.underlay")

PROGRAM_TIMEOUT = 5.0
"""Seconds that the system's own program may take."""

_MACOS = re.compile(r"^\s*gateway:\s*([0-9.]+)\s*$", re.MULTILINE)
_WINDOWS = re.compile(
    r"^\s*0\.0\.0\.0\s+0\.0\.0\.0\s+([0-9.]+)\s+([0-9.]+)\s+([0-9]+)\s*$",
    re.MULTILINE,
)


def parseRouteGet(output: str) -> bytes | None:
    """
    Read what macOS and the BSDs answer to C{route -n get default}.

    @return: the gateway, packed; C{None} when there is none.
    """
    found = _MACOS.search(output)
    return None if found is None else _packed(found[1])


def parseRoutePrint(output: str) -> Gateway | None:
    """
    Read what Windows answers to C{route print -4 0.0.0.0}.

    @return: the gateway with the least metric; C{None} when there is none.
    """
    best: tuple[int, Gateway] | None = None
    for address, own, metric in _WINDOWS.findall(output):
        packed, source = _packed(address), _packed(own)
        if packed is None or source is None:
            continue
        if best is None or int(metric) < best[0]:
            best = int(metric), Gateway(packed, source)
    return None if best is None else best[1]


def _packed(text: str) -> bytes | None:
    try:
        packed = parseAddress(text)
    except WireError:
        return None
    return packed if len(packed) == 4 and any(packed) else None


def findGateway(
    reactor: IReactorTime, platform: str = sys.platform
) -> Deferred[Gateway | None]:
    """
    Find the gateway of the machine that a reactor stands for.

    On Linux the kernel is asked, elsewhere the system's own program.

    @return: fires with C{None} when there is no gateway, or it cannot be found;
        never fails.
    """
    if not IReactorCore.providedBy(reactor):
        # A simulated host: whoever made it knows.
        return succeed(None)
    if platform.startswith("linux"):
        return succeed(_fromKernel())
    if not IReactorProcess.providedBy(reactor):
        return succeed(None)
    isWindows = platform == "win32"
    program, *arguments = _ON_WINDOWS if isWindows else _ON_OTHERS
    parse = parseRoutePrint if isWindows else _withSource
    asking: Deferred[bytes] = maybeDeferred(
        getProcessOutput, program, arguments, reactor=reactor
    )
    asking.addTimeout(PROGRAM_TIMEOUT, reactor)
    parsing: Deferred[Gateway | None] = asking.addCallback(
        lambda output: parse(output.decode("latin-1"))
    )
    return parsing.addErrback(_unknown)


_ON_WINDOWS = ("route.exe", "print", "-4", "0.0.0.0")
_ON_OTHERS = ("/sbin/route", "-n", "get", "-inet", "default")


def _fromKernel() -> Gateway | None:
    try:
        routes = kernelRoutes()
    except OSError as error:
        _log.debug("the gateway is not told: {e}", e=error)
        return None
    for route in routes:
        if route.family == 4 and route.gateway is not None and route.source is not None:
            return Gateway(route.gateway, route.source)
    return None


def _withSource(output: str) -> Gateway | None:
    gateway = parseRouteGet(output)
    source = next((r.source for r in preferredSources() if r.family == 4), None)
    if gateway is None or source is None:
        return None
    return Gateway(gateway, source)


def _unknown(failure: Failure) -> None:
    _log.debug("the gateway is not known: {why}", why=failure.getErrorMessage())

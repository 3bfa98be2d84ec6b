"""
What other programs on this machine may ask a running node: a part of Tailscale's
LocalAPI, on a Unix socket that only this user opens.

C{tailscale --socket=...} understands it as far as it goes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorUNIX,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from tsrt._version import __version__
from tsrt.addresses import parseAddress
from tsrt.errors import ConfigError, NotRunning, TSRTError, UnknownPeer
from tsrt.netmap.netmap import NetworkMap
from tsrt.netmap.node import Node
from tsrt.netmap.whois import WhoIs
from tsrt.runtime.ping import PingResult
from tsrt.runtime.pings import PingKind
from tsrt.services.listening import ListeningService
from tsrt.services.quietsite import QuietSite
from tsrt.tailcfg import CAPABILITY_VERSION, encode
from tsrt.tailcfg.codec import toBuiltins

_log = Logger(namespace="tsrt.localapi")

HOST = "local-tailscaled.sock"
"""What clients call a node by, whatever socket they found it at."""

PREFIX = "/localapi/v0/"

LONGEST_PATH = 100
"""Letters that the path of a socket may have everywhere."""


class Answering(Protocol):
    """What of a node is asked."""

    def backendStatus(self, peers: bool = True) -> dict[str, Any]:
        """See L{Node<tsrt.node.Node>}."""

    def whois(self, address: str) -> WhoIs:
        """See L{Node<tsrt.node.Node>}."""

    def ping(self, host: str, *, kind: PingKind | str) -> Deferred[PingResult]:
        """See L{Node<tsrt.node.Node>}."""

    def suggestExitNode(self) -> Node | None:
        """See L{Node<tsrt.node.Node>}."""

    def metricsText(self) -> str:
        """See L{Node<tsrt.node.Node>}."""

    def idToken(self, audience: str) -> Deferred[str]:
        """See L{Node<tsrt.node.Node>}."""

    @property
    def netmap(self) -> NetworkMap:
        """See L{Node<tsrt.node.Node>}."""


class _Problem(Exception):
    """The answer to a request that cannot be met."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


Answer = Callable[[Request], Coroutine[Any, Any, bytes]]


class LocalAPI(Resource):
    """
    Answers requests.

    Whoever can open the socket may ask; web pages in a browser may not.
    """

    isLeaf = True

    def __init__(self, node: Answering) -> None:
        super().__init__()
        self._node = node
        self._answers: dict[str, tuple[bytes, Answer]] = {
            "status": (b"GET", self._status),
            "whois": (b"GET", self._whois),
            "ping": (b"POST", self._ping),
            "derpmap": (b"GET", self._derpMap),
            "suggest-exit-node": (b"GET", self._suggest),
            "usermetrics": (b"GET", self._metrics),
            "id-token": (b"GET", self._idToken),
        }

    def render(self, request: Request) -> int:
        """See L{Resource}."""
        request.setHeader("Tailscale-Version", __version__)
        request.setHeader("Tailscale-Cap", str(CAPABILITY_VERSION))
        request.setHeader("X-Content-Type-Options", "nosniff")
        request.setHeader("X-Frame-Options", "DENY")
        request.setHeader("Content-Security-Policy", "default-src 'none'")
        answering = Deferred.fromCoroutine(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addCallbacks(
            lambda body: self._finish(request, 200, body),
            lambda failure: self._fail(request, failure),
        )
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> bytes:
        host = request.getHeader("Host") or ""
        if (
            host not in ("", HOST)
            or request.getHeader("Referer")
            or request.getHeader("Origin")
        ):
            raise _Problem(403, "invalid localapi request")
        path = request.path.decode("latin-1")
        found = self._answers.get(path.removeprefix(PREFIX))
        if found is None or not path.startswith(PREFIX):
            raise _Problem(404, "404 page not found")
        method, answer = found
        if request.method != method:
            raise _Problem(405, f"use {method.decode()}")
        request.setHeader("Content-Type", "application/json")
        return await answer(request)

    def _finish(self, request: Request, code: int, body: bytes) -> None:
        if not request._disconnected:
            request.setResponseCode(code)
            request.write(body)
            request.finish()

    def _fail(self, request: Request, failure: Failure) -> None:
        error = failure.value
        code, text = 500, str(error) or type(error).__name__
        if isinstance(error, _Problem):
            code = error.code
        elif isinstance(error, NotRunning):
            code = 503
        elif not isinstance(error, TSRTError):
            _log.failure("a local request could not be answered", failure)
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        self._finish(request, code, f"{text}\n".encode())

    # -- the answers -------------------------------------------------------------------

    async def _status(self, request: Request) -> bytes:
        document = self._node.backendStatus(_argument(request, "peers") != "false")
        return _json(document)

    async def _whois(self, request: Request) -> bytes:
        address = _argument(request, "addr")
        try:
            found = self._node.whois(address)
        except UnknownPeer:
            raise _Problem(404, "no match for IP:port") from None
        node, profile = found.node, found.profile
        user: dict[str, Any] = {
            "ID": node.user,
            "LoginName": "tagged-devices",
            "DisplayName": "Tagged Devices",
        }
        if profile is not None and not node.tags:
            user = cast(dict[str, Any], toBuiltins(profile))
        granted = {name: found.values(name) for name in found.capabilities}
        return _json(
            {"Node": toBuiltins(node.wire), "UserProfile": user, "CapMap": granted}
        )

    async def _ping(self, request: Request) -> bytes:
        ip = _argument(request, "ip")
        answer: dict[str, Any] = {"IP": ip, "NodeIP": ip, "NodeName": "", "Err": ""}
        try:
            parseAddress(ip)
            result = await self._node.ping(ip, kind=_argument(request, "type"))
        except ConfigError as error:
            raise _Problem(400, str(error)) from None
        except Exception as error:
            answer["Err"] = str(error)
            return _json(answer)
        way, _, where = result.path.partition(" ")
        answer |= {
            "NodeName": result.name,
            "LatencySeconds": result.seconds,
            "Endpoint": where if way == "direct" else "",
            "PeerRelay": where if way == "peer-relay" else "",
            "DERPRegionID": 0,
            "DERPRegionCode": "",
        }
        if way == "relay":
            for number, region in self._node.netmap.regions.items():
                if where in (region.regionCode, str(number)):
                    answer["DERPRegionID"] = number
                    answer["DERPRegionCode"] = where
        return _json(answer)

    async def _derpMap(self, request: Request) -> bytes:
        return encode(self._node.netmap.derpMap)

    async def _suggest(self, request: Request) -> bytes:
        node = self._node.suggestExitNode()
        if node is None:
            return _json({"ID": "", "Name": ""})
        return _json({"ID": node.stableID, "Name": f"{node.name}."})

    async def _metrics(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "text/plain; version=0.0.4")
        return self._node.metricsText().encode()

    async def _idToken(self, request: Request) -> bytes:
        audience = _argument(request, "aud")
        if not audience:
            raise _Problem(400, "no audience requested")
        return _json({"id_token": await self._node.idToken(audience)})


def _argument(request: Request, name: str) -> str:
    values = (request.args or {}).get(name.encode(), [b""])
    return bytes(values[0]).decode("utf-8", "replace")


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


@implementer(IStreamServerEndpoint)
class _SocketEndpoint:
    """
    Listens on a Unix socket in a directory of this user's, made if need be.

    A node does without it rather than not at all.
    """

    def __init__(self, reactor: IReactorUNIX, path: str) -> None:
        self._path = path
        self._inner = UNIXServerEndpoint(reactor, path, mode=0o600, wantPID=True)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See L{IStreamServerEndpoint}; fires with the port, or never."""
        return Deferred.fromCoroutine(self._listen(protocolFactory))

    async def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        try:
            directory = os.path.dirname(self._path)
            if directory:
                os.makedirs(directory, 0o700, exist_ok=True)
            port: IListeningPort = await self._inner.listen(factory)
            return port
        except (OSError, CannotListenError) as error:
            _log.warn(
                "the tsrt command cannot ask this node, no socket at {path}: {error}",
                path=self._path,
                error=error,
            )
        return await Deferred[IListeningPort]()


class LocalAPIService(ListeningService):
    """Listens on a Unix socket as long as the node runs."""

    def __init__(self, reactor: IReactorUNIX, path: str, node: Answering) -> None:
        """
        @param path: of the socket; one that a dead process left is replaced.
        @raise ConfigError: the path is too long for a socket.
        """
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise ConfigError(
                f"the path {path} is too long for a Unix socket",
                advice=f"Name one of at most {LONGEST_PATH} letters with --socket.",
            )
        super().__init__(
            _SocketEndpoint(reactor, path), QuietSite(LocalAPI(node), reactor=reactor)
        )

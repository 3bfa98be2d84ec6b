"""
The requests that nodes make over their control connections.

Each path has one method here; what is not offered is answered with 501, as
clients expect of servers that lack a feature.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tsrt.errors import WireError
from tsrt.keys import DiscoPublic, NodePublic
from tsrt.tailcfg import (
    MapRequest,
    MapResponse,
    RegisterRequest,
    UnsetType,
    decode,
    encode,
)
from tsrt.testing.control.connection import MachineConnection
from tsrt.testing.control.faults import Faults
from tsrt.testing.control.frames import COMPRESSIONS, encodeFrame
from tsrt.testing.control.h2server import ServerStream
from tsrt.testing.control.idtoken import TokenSigner
from tsrt.testing.control.logins import PendingLogin
from tsrt.testing.control.pings import ANSWER_PATH, PendingPings
from tsrt.testing.control.records import NodeRecord
from tsrt.testing.control.refusal import Refusal
from tsrt.testing.control.registration import Registrar
from tsrt.testing.control.tailnet import Tailnet

_log = Logger(namespace="tsrt.testing.control")

MAX_REQUEST = 1 << 20
"""Bytes of the longest request; answers to pings may be longer."""

MAX_KEPT = 1000
"""How many DNS records and audit messages are kept."""

T = TypeVar("T")
_Handler = Callable[["MachineAPI", MachineConnection, ServerStream], None]


@define(eq=False)
class MachineAPI:
    """
    Answers the requests of nodes.

    @ivar reactor: provides time.
    @ivar tailnet: the state.
    @ivar registrar: answers register requests.
    @ivar pings: takes the answers to pings.
    @ivar signer: makes identity tokens.
    @ivar faults: failures that a test asked for.
    @ivar minimumVersion: the oldest capability version that is let in.
    @ivar wallTime: seconds since 1970.
    @ivar openPoll: begins a map stream.
    @ivar fullFrame: makes a complete map response.
    @ivar dnsRecords: the records that nodes asked to publish: the number of the
        node, name, type and value.
    @ivar auditLog: the number of the node, action and details of what nodes
        reported.
    """

    reactor: IReactorTime
    tailnet: Tailnet
    registrar: Registrar
    pings: PendingPings
    signer: TokenSigner
    faults: Faults
    minimumVersion: int
    wallTime: Callable[[], float]
    openPoll: Callable[[ServerStream, NodeRecord, str], None]
    fullFrame: Callable[[NodeRecord], MapResponse]
    dnsRecords: list[tuple[int, str, str, str]] = field(factory=list)
    auditLog: list[tuple[int, str, str]] = field(factory=list)

    def handle(self, connection: MachineConnection, stream: ServerStream) -> None:
        """
        Answer a request.

        @param connection: where it came from.
        @param stream: the request.
        """
        path = stream.path.partition("?")[0]
        try:
            self.faults.check(path)
            if path.startswith(ANSWER_PATH):
                self._pingAnswer(stream, path)
                return
            handler = _HANDLERS.get((stream.method, path))
            if handler is None:
                raise Refusal(501, f"{stream.method} {path} is not supported")
            if len(stream.body) > MAX_REQUEST:
                raise Refusal(413, "the request is too large")
            handler(self, connection, stream)
        except Refusal as refusal:
            stream.respond(
                refusal.status, refusal.body, headers=refusal.headers.items()
            )

    # -- registration ---------------------------------------------------------------

    def _register(self, connection: MachineConnection, stream: ServerStream) -> None:
        request = _decoded(RegisterRequest, stream)
        self._checkVersion(request.version)
        answer = self.registrar.register(
            connection.machineKey, request.version, request, self.wallTime()
        )
        if not isinstance(answer, PendingLogin):
            stream.respond(200, encode(answer), "application/json")
            return

        self._wait(answer, connection, stream)

    def _wait(
        self, login: PendingLogin, connection: MachineConnection, stream: ServerStream
    ) -> None:
        """Answer when a person has decided, or the login is too old."""

        def again() -> None:
            gone()
            stream.onClosed = None
            if stream.isOpen:
                self.handle(connection, stream)

        def gone() -> None:
            if timer.active():
                timer.cancel()
            if again in login.waiters:
                login.waiters.remove(again)

        delay = max(0.0, login.ends - self.wallTime())
        timer = self.reactor.callLater(delay, again)
        login.waiters.append(again)
        stream.onClosed = gone

    # -- maps -------------------------------------------------------------------------

    def _map(self, connection: MachineConnection, stream: ServerStream) -> None:
        request = _decoded(MapRequest, stream)
        self._checkVersion(request.version)
        node = self._node(connection, request.nodeKey)
        compression = request.compress or ""
        if compression not in COMPRESSIONS:
            raise Refusal(400, f"the compression {compression!r} is not supported")
        self._apply(node, request)
        if request.stream:
            self.openPoll(stream, node, compression)
        elif request.omitPeers:
            stream.respond(200)
        else:
            response = self.fullFrame(node)
            stream.respond(200, encodeFrame(response, compression), "application/json")

    def _apply(self, node: NodeRecord, request: MapRequest) -> None:
        """Take what a node says about itself; all of it or nothing."""
        if request.readOnly:
            return
        disco = None
        if request.discoKey:
            try:
                disco = DiscoPublic.parse(request.discoKey)
            except WireError as error:
                raise Refusal(400, f"malformed disco key: {error}") from None
            if disco.isZero():
                disco = None
        self.tailnet.update(node, version=request.version)
        endpoints = request.endpoints
        self.tailnet.setPaths(
            node,
            # Absent means as before: some clients tell one thing at a time.
            endpoints=None if isinstance(endpoints, UnsetType) else endpoints or (),
            discoKey=disco,
        )
        if request.hostinfo is not None:
            self.tailnet.setHostinfo(node, request.hostinfo)

    # -- the smaller ones ---------------------------------------------------------

    def _setDNS(self, connection: MachineConnection, stream: ServerStream) -> None:
        values = _members(stream)
        node = self._node(connection, values.get("NodeKey"))
        name, kind, value = (
            _string(values, member) for member in ("Name", "Type", "Value")
        )
        own = f"_acme-challenge.{node.name}.{self.tailnet.domain}"
        if name.rstrip(".") != own:
            raise Refusal(403, f"a node may only set {own}")
        if kind != "TXT" or not value:
            raise Refusal(400, "only TXT records with a value can be set")
        self.dnsRecords.append((node.id, own, kind, value))
        del self.dnsRecords[:-MAX_KEPT]
        _respondJSON(stream, {})

    def _idToken(self, connection: MachineConnection, stream: ServerStream) -> None:
        values = _members(stream)
        node = self._node(connection, values.get("NodeKey"))
        audience = _string(values, "Audience")
        if not audience:
            raise Refusal(400, "an identity token needs an audience")
        token = self.signer.sign(node, audience, self.wallTime())
        _respondJSON(stream, {"id_token": token})

    def _queryFeature(
        self, connection: MachineConnection, stream: ServerStream
    ) -> None:
        values = _members(stream)
        self._node(connection, values.get("NodeKey"))
        _respondJSON(stream, {"Complete": True})

    def _updateHealth(
        self, connection: MachineConnection, stream: ServerStream
    ) -> None:
        _members(stream)
        _respondJSON(stream, {})

    def _audit(self, connection: MachineConnection, stream: ServerStream) -> None:
        values = _members(stream)
        node = self._node(connection, values.get("NodeKey"))
        self.auditLog.append(
            (node.id, _string(values, "Action"), _string(values, "Details"))
        )
        del self.auditLog[:-MAX_KEPT]
        _respondJSON(stream, {})

    def _whoAmI(self, connection: MachineConnection, stream: ServerStream) -> None:
        nodes = [
            node.name
            for node in self.tailnet.nodes()
            if node.machineKey == connection.machineKey
        ]
        _respondJSON(stream, {"Machine": connection.machineKey.text(), "Nodes": nodes})

    def _pingAnswer(self, stream: ServerStream, path: str) -> None:
        question = path.removeprefix(ANSWER_PATH)
        if not self.pings.answered(question, bytes(stream.body)):
            raise Refusal(404, "nobody asked")
        stream.respond(200)

    # -- who asks -----------------------------------------------------------------

    def _checkVersion(self, version: int) -> None:
        if version < self.minimumVersion:
            raise Refusal(
                400,
                f"unsupported client version {version}; "
                f"the oldest supported one is {self.minimumVersion}",
            )

    def _node(self, connection: MachineConnection, key: object) -> NodeRecord:
        """The node that a request names, if it is on the machine that asks."""
        try:
            parsed = NodePublic.parse(key if isinstance(key, str) else "")
        except WireError as error:
            raise Refusal(400, f"malformed node key: {error}") from None
        node = self.tailnet.byNodeKey(parsed)
        if node is None:
            raise Refusal(404, "node not found")
        if node.machineKey != connection.machineKey:
            raise Refusal(401, "node key belongs to another machine")
        return node


def _decoded(kind: type[T], stream: ServerStream) -> T:
    try:
        return decode(kind, bytes(stream.body))
    except WireError as error:
        raise Refusal(400, f"malformed request: {error}") from None


def _members(stream: ServerStream) -> Mapping[str, object]:
    try:
        value = json.loads(stream.body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the request is not JSON") from None
    if not isinstance(value, dict):
        raise Refusal(400, "the request is not a JSON object")
    return value


def _string(values: Mapping[str, object], name: str) -> str:
    value = values.get(name, "")
    if not isinstance(value, str):
        raise Refusal(400, f"{name} is not a string")
    return value


def _respondJSON(stream: ServerStream, value: object) -> None:
    stream.respond(200, json.dumps(value).encode("utf-8"), "application/json")


_HANDLERS: Mapping[tuple[str, str], _Handler] = {
    ("POST", "/machine/register"): MachineAPI._register,
    ("POST", "/machine/map"): MachineAPI._map,
    ("POST", "/machine/set-dns"): MachineAPI._setDNS,
    ("POST", "/machine/id-token"): MachineAPI._idToken,
    ("POST", "/machine/feature/query"): MachineAPI._queryFeature,
    ("POST", "/machine/update-health"): MachineAPI._updateHealth,
    ("POST", "/machine/audit-log"): MachineAPI._audit,
    ("GET", "/machine/whoami"): MachineAPI._whoAmI,
}

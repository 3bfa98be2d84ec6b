"""
The administration of the server over HTTP: JSON in, JSON out.

It exists for programs that run the server as a process of its own.  Requests
carry the token as C{Authorization: Bearer ...}; without a configured token
there is no such interface.

  - C{GET /admin/nodes}, C{DELETE /admin/nodes/ID}
  - C{POST /admin/nodes/ID/approve}, C{.../expire}, and C{.../routes} with an
    optional C{{"routes": [...]}}
  - C{GET /admin/logins}, C{POST /admin/logins/ID} with an optional
    C{{"user": ...}}
  - C{POST /admin/keys} with any of C{user reusable ephemeral preApproved tags
    lifetime}
  - C{PUT /admin/policy} with a policy document
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from attrs import define

from tsrt.errors import TSRTError
from tsrt.keys import Secret
from tsrt.testing.control.http import HTTPRequest, HTTPResponse
from tsrt.testing.control.logins import PendingLogin
from tsrt.testing.control.records import AuthKey, NodeRecord
from tsrt.testing.control.refusal import Refusal


class Administered(Protocol):
    """What the interface needs of the server."""

    def nodes(self) -> list[NodeRecord]:
        """All nodes."""

    def deleteNode(self, node: int) -> None:
        """Remove a node."""

    def approveNode(self, node: int) -> None:
        """Let a machine take part."""

    def expireNode(self, node: int) -> None:
        """End the key of a node."""

    def approveRoutes(self, node: int, routes: Iterable[str] | None = None) -> None:
        """Approve routes."""

    def logins(self) -> list[PendingLogin]:
        """The machines that wait for a person."""

    def approve(self, login: str, user: str | None = None) -> NodeRecord:
        """Let a machine in."""

    def createAuthKey(
        self,
        user: str | None = None,
        *,
        reusable: bool = False,
        ephemeral: bool = False,
        preApproved: bool = True,
        tags: Iterable[str] = (),
        lifetime: float | None = None,
    ) -> AuthKey:
        """Make an auth key."""

    def setPolicy(self, text: str) -> None:
        """Put another policy in force."""


def describeNode(node: NodeRecord) -> dict[str, object]:
    """A node as the interface shows it."""
    return {
        "id": node.id,
        "stableID": node.stableID,
        "name": node.name,
        "user": node.user.login,
        "tags": list(node.tags),
        "addresses": list(node.ips),
        "nodeKey": node.nodeKey.text(),
        "online": bool(node.online),
        "authorized": node.authorized,
        "ephemeral": node.ephemeral,
        "expires": node.expires,
        "lastSeen": node.lastSeen,
        "endpoints": list(node.endpoints),
        "homeDERP": node.homeDERP,
        "advertisedRoutes": [route.text() for route in node.advertisedRoutes],
        "approvedRoutes": sorted(route.text() for route in node.approvedRoutes),
        "version": node.version,
    }


@define(eq=False)
class AdminInterface:
    """
    Answers the requests under C{/admin/}.
    """

    _server: Administered
    _token: Secret | None

    def handle(self, request: HTTPRequest) -> HTTPResponse:
        """
        Answer a request.

        @raise Refusal: when the answer is an error.
        """
        if self._token is None:
            raise Refusal(404, "not found")
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        wanted = self._token.reveal()
        if not hmac.compare_digest(given.encode("utf-8"), wanted.encode("utf-8")):
            raise Refusal(401, "wrong token", {"WWW-Authenticate": "Bearer"})
        try:
            return self._answer(request)
        except TSRTError as error:
            raise Refusal(400, str(error)) from None

    def _answer(self, request: HTTPRequest) -> HTTPResponse:
        method, steps = request.method, request.path.split("/")[2:]
        match (method, *steps):
            case ("GET", "nodes"):
                return _json([describeNode(node) for node in self._server.nodes()])
            case ("DELETE", "nodes", number):
                self._server.deleteNode(_number(number))
            case ("POST", "nodes", number, action):
                self._act(_number(number), action, _members(request))
            case ("GET", "logins"):
                return _json(
                    [
                        {"id": login.id, "hostname": login.hostname}
                        for login in self._server.logins()
                    ]
                )
            case ("POST", "logins", login):
                user = _text(_members(request), "user")
                return _json(describeNode(self._server.approve(login, user)))
            case ("POST", "keys"):
                key = self._createKey(_members(request))
                return _json({"id": key.id, "key": key.text})
            case ("PUT", "policy"):
                self._server.setPolicy(request.body.decode("utf-8", "replace"))
            case _:
                raise Refusal(404, "not found")
        return _json({})

    def _act(self, node: int, action: str, members: Mapping[str, object]) -> None:
        actions: Mapping[str, Callable[[], None]] = {
            "approve": lambda: self._server.approveNode(node),
            "expire": lambda: self._server.expireNode(node),
            "routes": lambda: self._server.approveRoutes(
                node, _texts(members, "routes", None)
            ),
        }
        if action not in actions:
            raise Refusal(404, "not found")
        actions[action]()

    def _createKey(self, members: Mapping[str, object]) -> AuthKey:
        return self._server.createAuthKey(
            _text(members, "user"),
            reusable=_flag(members, "reusable", False),
            ephemeral=_flag(members, "ephemeral", False),
            preApproved=_flag(members, "preApproved", True),
            tags=_texts(members, "tags", ()) or (),
            lifetime=_seconds(members, "lifetime"),
        )


def _json(value: object) -> HTTPResponse:
    return HTTPResponse(200, json.dumps(value).encode("utf-8"), "application/json")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise Refusal(400, "malformed node number")
    return int(text)


def _members(request: HTTPRequest) -> Mapping[str, object]:
    if not request.body:
        return {}
    try:
        value = json.loads(request.body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the request is not JSON") from None
    if not isinstance(value, dict):
        raise Refusal(400, "the request is not a JSON object")
    return value


def _flag(members: Mapping[str, object], name: str, default: bool) -> bool:
    value = members.get(name, default)
    if not isinstance(value, bool):
        raise Refusal(400, f"{name} is not true or false")
    return value


def _text(members: Mapping[str, object], name: str) -> str | None:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise Refusal(400, f"{name} is not a string")
    return value


def _seconds(members: Mapping[str, object], name: str) -> float | None:
    value = members.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal(400, f"{name} is not a number")
    return float(value)


def _texts(
    members: Mapping[str, object], name: str, default: Iterable[str] | None
) -> Iterable[str] | None:
    value = members.get(name, default)
    if value is default:
        return default
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise Refusal(400, f"{name} is not a list of strings")
    return value

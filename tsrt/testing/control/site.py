"""The server's plain HTTP pages, and the door to the control protocol."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IProtocol

from tsrt.errors import UnknownPeer
from tsrt.keys import MachinePublic
from tsrt.testing.control.admin import AdminInterface
from tsrt.testing.control.connection import PROTOCOL
from tsrt.testing.control.faults import Faults
from tsrt.testing.control.http import HTTPRequest, HTTPResponse, Upgrade
from tsrt.testing.control.idtoken import TokenSigner
from tsrt.testing.control.pages import donePage, frontPage, gonePage, loginPage
from tsrt.testing.control.pings import ANSWER_PATH, PendingPings
from tsrt.testing.control.refusal import Refusal
from tsrt.testing.control.registration import Registrar
from tsrt.testing.control.tailnet import Tailnet

NOISE_VERSION = 39
"""The first capability version that is told the server's key."""

LOGIN_PATH = "/a/"
"""Where logins are approved, followed by their id."""

_CHALLENGE = re.compile(r"[A-Za-z0-9.:_-]{1,64}\Z")


@define(eq=False)
class ControlSite:
    """
    Answers plain requests.

    @ivar publicKey: the server's key.
    @ivar tailnet: the state.
    @ivar registrar: knows the logins that wait.
    @ivar pings: takes the answers to plain pings.
    @ivar signer: knows the keys of identity tokens.
    @ivar faults: failures that a test asked for.
    @ivar admin: the administration interface.
    @ivar wallTime: seconds since 1970.
    @ivar accept: makes the protocol that goes on from a handshake message.
    """

    publicKey: MachinePublic
    tailnet: Tailnet
    registrar: Registrar
    pings: PendingPings
    signer: TokenSigner
    faults: Faults
    admin: AdminInterface
    wallTime: Callable[[], float]
    accept: Callable[[bytes], IProtocol]

    def handle(self, request: HTTPRequest) -> HTTPResponse | Upgrade:
        """
        Answer a request.

        @raise Refusal: when the answer is an error.
        """
        path = request.path
        self.faults.check(path)
        if path == "/ts2021":
            return self._upgrade(request)
        if path.startswith(LOGIN_PATH):
            return self._login(request, path.removeprefix(LOGIN_PATH))
        if path.startswith(ANSWER_PATH):
            return self._pingAnswer(request, path.removeprefix(ANSWER_PATH))
        if path.startswith("/admin/"):
            return self.admin.handle(request)
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, "method not allowed", {"Allow": "GET, HEAD"})
        if path == "/":
            return frontPage(self.tailnet.domain)
        if path == "/key":
            return self._key(request)
        if path == "/health":
            return _json({"status": "pass"})
        if path == "/bootstrap-dns":
            return _json({})
        if path == "/generate_204":
            return _noContent(request)
        if path == "/.well-known/jwks.json":
            return _json(self.signer.keySet())
        if path == "/.well-known/openid-configuration":
            return _json(self.signer.configuration())
        raise Refusal(404, "not found")

    def _key(self, request: HTTPRequest) -> HTTPResponse:
        """The server's key, for clients that can use it."""
        zero = MachinePublic.zero().text()
        text = request.query.get("v", str(NOISE_VERSION))
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise Refusal(400, "malformed version")
        told = self.publicKey.text() if int(text) >= NOISE_VERSION else zero
        return _json({"legacyPublicKey": zero, "publicKey": told})

    def _upgrade(self, request: HTTPRequest) -> Upgrade:
        """Leave HTTP/1.1 behind."""
        if request.method not in ("POST", "GET"):
            raise Refusal(405, "method not allowed", {"Allow": "POST, GET"})
        wanted = request.headers.get("upgrade", "").lower()
        if not wanted:
            raise Refusal(400, "missing next protocol")
        if wanted != PROTOCOL:
            raise Refusal(400, "unknown next protocol")
        handshake = request.headers.get("x-tailscale-handshake")
        if not handshake:
            raise Refusal(400, "missing Tailscale handshake header")
        try:
            initiation = base64.b64decode(handshake, validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(400, "invalid tailscale handshake header") from None
        return Upgrade(self.accept(initiation))

    def _login(self, request: HTTPRequest, loginID: str) -> HTTPResponse:
        """Show a login that waits, or decide it."""
        now = self.wallTime()
        try:
            login = self.registrar.login(loginID, now)
        except UnknownPeer:
            return gonePage()
        users = self.tailnet.users()
        if request.method in ("GET", "HEAD"):
            return loginPage(login, users, self.tailnet.domain)
        if request.method != "POST":
            raise Refusal(405, "method not allowed", {"Allow": "GET, POST"})
        form = request.form()
        if form.get("verdict") == "deny":
            self.registrar.deny(loginID, "", now)
            return donePage("The machine was refused.")
        chosen = form.get("user", users[0].login)
        for user in users:
            if user.login == chosen:
                break
        else:
            problem = "There is no such user."
            return loginPage(login, users, self.tailnet.domain, problem)
        try:
            node = self.registrar.approve(loginID, user, now)
        except Refusal as refusal:
            return loginPage(login, users, self.tailnet.domain, str(refusal))
        return donePage(f"The machine is in the tailnet as {node.name}.")

    def _pingAnswer(self, request: HTTPRequest, question: str) -> HTTPResponse:
        if request.method not in ("GET", "HEAD", "POST"):
            raise Refusal(405, "method not allowed")
        if not self.pings.answered(question, request.body):
            raise Refusal(404, "nobody asked")
        return HTTPResponse()


def _json(value: object) -> HTTPResponse:
    return HTTPResponse(200, json.dumps(value).encode("utf-8"), "application/json")


def _noContent(request: HTTPRequest) -> HTTPResponse:
    """The answer that clients tell captive portals by."""
    headers = {
        "Cache-Control": "no-cache, no-store, must-revalidate, no-transform, max-age=0"
    }
    challenge = request.headers.get("x-tailscale-challenge", "")
    if _CHALLENGE.match(challenge):
        headers["X-Tailscale-Response"] = f"response {challenge}"
    return HTTPResponse(204, headers=headers)

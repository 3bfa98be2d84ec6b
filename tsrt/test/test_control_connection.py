"""
Tests for L{tsrt.control.connection} and L{tsrt.control.api}.
"""

from __future__ import annotations

import json
from email.utils import formatdate
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from tsrt.control.api import CALL_TIMEOUT, LARGEST_BODY, loadBalancing
from tsrt.control.connection import (
    CLOSE_TIMEOUT,
    IDLE_TIMEOUT,
    PING_TIMEOUT,
    QUIET,
)
from tsrt.control.h2response import H2Response
from tsrt.control.keyfetch import KeyUnavailable
from tsrt.errors import (
    ControlHTTPError,
    ControlProtocolError,
    ControlUnreachable,
    NotSupportedByControl,
    WrongControlKey,
)
from tsrt.keys import MachineKey, NodePublic
from tsrt.tailcfg import MapRequest, RegisterRequest, RegisterResponse
from tsrt.test.controlharness import WALL_TIME, WELCOME, Harness, makeNodeKey
from tsrt.test.controlpeer import fixedBytes, keyAnswer, page

T = TypeVar("T")

KEY = makeNodeKey().public()


class ConnectionTests(SynchronousTestCase):
    """One connection for all requests."""

    def setUp(self) -> None:
        self.harness = Harness()
        self.peer = self.harness.peer
        self.connection = self.harness.connection()
        self.harness.answer("/x", b"ok")

    def tearDown(self) -> None:
        closed = self.connection.close()
        self.harness.pump()
        self.successResultOf(closed)
        self.assertEqual(self.harness.clock.getDelayedCalls(), [])
        self.assertEqual(self.harness.net.wires, [])

    def fetchedKeys(self) -> int:
        return sum(target.startswith("/key") for _, target, _ in self.peer.heads)

    def test_shared(self) -> None:
        """Requests at the same time and later ones share one connection."""
        first = gatherResults([self.connection.request("GET", "/x") for _ in range(3)])
        self.harness.pump()
        for response in self.successResultOf(first):
            self.assertEqual(response.status, 200)
        later = self.connection.request("GET", "/x")
        self.harness.pump()
        self.successResultOf(later)
        self.assertEqual(len(self.peer.connections), 1)
        self.assertEqual(self.fetchedKeys(), 1)
        self.assertTrue(self.connection.isConnected)

    def test_redial(self) -> None:
        """A lost connection is made again for the next request."""
        first = self.connection.request("GET", "/never")
        self.harness.pump()
        self.peer.connections[0].drop()
        self.harness.pump()
        self.failureResultOf(first, ControlUnreachable)
        self.assertFalse(self.connection.isConnected)
        second = self.connection.request("GET", "/x")
        self.harness.pump()
        self.successResultOf(second)
        self.assertEqual(len(self.peer.connections), 2)
        self.assertEqual(self.fetchedKeys(), 1)

    def test_drop(self) -> None:
        """A dropped connection fails what is under way, with the reason."""
        first = self.connection.request("GET", "/never")
        self.harness.pump()
        self.connection.drop("the network changed")
        failure = self.failureResultOf(first, ControlUnreachable)
        self.assertEqual(str(failure.value), "the network changed")
        second = self.connection.request("GET", "/x")
        self.harness.pump()
        self.successResultOf(second)

    def test_newServerKey(self) -> None:
        """When the server has a new key, it is asked for and used."""
        self.successResultOf(self.pumped())
        self.peer.rekey()
        self.connection.drop("test")
        self.successResultOf(self.pumped())
        self.assertEqual(self.fetchedKeys(), 2)

    def test_wrongControlKey(self) -> None:
        """A server that publishes one key and uses another is not believed."""
        other = MachineKey.generate(fixedBytes(99))
        self.peer.handshakeAnswer = b"\x02\x00\x30" + other.public().raw + bytes(16)
        request = self.pumped()
        self.failureResultOf(request, WrongControlKey)

    def test_failedDial(self) -> None:
        """A failed dial fails the requests that wait; the next one dials."""
        good, self.peer.keyAnswer = self.peer.keyAnswer, page(b"", "502 Bad Gateway")
        first = self.connection.request("GET", "/x")
        second = self.connection.request("GET", "/x")
        self.harness.pump()
        self.failureResultOf(first, KeyUnavailable)
        self.failureResultOf(second, KeyUnavailable)
        self.peer.keyAnswer = good
        self.successResultOf(self.pumped())

    def test_cancelDial(self) -> None:
        """The dial goes on while anybody waits for it."""
        self.harness.net.refuse("127.0.0.1", 9000, None)
        first = self.connection.request("GET", "/x")
        second = self.connection.request("GET", "/x")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNotEqual(self.harness.clock.getDelayedCalls(), [])
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.harness.clock.getDelayedCalls(), [])

    def pumped(self) -> Deferred[H2Response]:
        request = self.connection.request("GET", "/x")
        self.harness.pump()
        return request

    def test_idle(self) -> None:
        """A connection that nobody needs is closed after a while."""
        self.successResultOf(self.pumped())
        self.harness.advance(IDLE_TIMEOUT - 10, 20)
        self.assertTrue(self.connection.isConnected)
        self.harness.advance(20, 10)
        self.assertFalse(self.connection.isConnected)
        self.harness.advance(10, 2)
        self.assertEqual(self.harness.clock.getDelayedCalls(), [])
        self.successResultOf(self.pumped())
        self.assertEqual(len(self.peer.connections), 2)

    def test_busyIsNotIdle(self) -> None:
        """A request that takes long keeps the connection."""
        request = self.connection.request("GET", "/never")
        self.harness.advance(10 * IDLE_TIMEOUT, 200)
        self.assertTrue(self.connection.isConnected)
        self.assertNoResult(request)
        request.cancel()
        self.failureResultOf(request, CancelledError)

    def test_deadServer(self) -> None:
        """A server that answers no sign of life is given up."""
        request = self.connection.request("GET", "/never")
        self.harness.pump()
        [wire] = self.harness.net.wires
        assert wire.peer is not None
        wire.reading = False
        wire.peer.reading = False
        self.harness.advance(QUIET + PING_TIMEOUT + 10, 40)
        failure = self.failureResultOf(request, ControlUnreachable)
        self.assertIn("has been silent", str(failure.value))

    def test_closed(self) -> None:
        """After the close nothing works any more."""
        waiting = self.connection.request("GET", "/never")
        self.harness.pump()
        closed = self.connection.close()
        self.failureResultOf(waiting, ControlUnreachable)
        self.harness.pump()
        self.successResultOf(closed)
        self.failureResultOf(self.connection.request("GET", "/x"), ControlUnreachable)
        self.assertIsNotNone(self.peer.connections[0].terminated)

    def test_closeWhileDialling(self) -> None:
        """A close in the middle of a dial ends it."""
        self.harness.net.refuse("127.0.0.1", 9000, None)
        request = self.connection.request("GET", "/x")
        self.successResultOf(self.connection.close())
        self.failureResultOf(request, ControlUnreachable)

    def test_slowClose(self) -> None:
        """A close that the network holds up is cut short."""
        self.successResultOf(self.pumped())
        [wire] = self.harness.net.wires
        assert wire.peer is not None
        wire.peer.reading = False
        closed = self.connection.close()
        self.harness.pump()
        self.assertNoResult(closed)
        self.harness.advance(CLOSE_TIMEOUT)
        self.successResultOf(closed)


class APITests(SynchronousTestCase):
    """Typed calls."""

    def setUp(self) -> None:
        self.harness = Harness()
        self.api = self.harness.api()

    def call(self, deferred: Deferred[T]) -> Deferred[T]:
        self.harness.pump()
        return deferred

    def test_register(self) -> None:
        """A registration sends the document and reads the answer."""
        requests = self.harness.answer("/machine/register", WELCOME)
        old = makeNodeKey(61).public()
        response = self.successResultOf(
            self.call(
                self.api.register(
                    RegisterRequest(
                        version=130, nodeKey=KEY.text(), oldNodeKey=old.text()
                    )
                )
            )
        )
        self.assertTrue(response.machineAuthorized)
        self.assertEqual(response.login.loginName, "ann@example.com")
        [request] = requests
        self.assertEqual(request.method, "POST")
        self.assertEqual(request.header("ts-lb"), [old.text(), KEY.text()])
        self.assertEqual(request.header("content-type"), [])
        self.assertEqual(request.json["Version"], 130)

    def test_absentKeysAreNotSentInHeaders(self) -> None:
        """The header for load balancers has no absent keys."""
        self.assertEqual(
            loadBalancing(NodePublic.zero(), KEY), (("ts-lb", KEY.text()),)
        )

    def register(self, answer: object) -> Deferred[RegisterResponse]:
        self.harness.answer("/machine/register", answer)
        zero = NodePublic.zero().text()
        return self.call(
            self.api.register(RegisterRequest(nodeKey=KEY.text(), oldNodeKey=zero))
        )

    def test_badRegisterAnswers(self) -> None:
        """An answer that is no registration is an error that may pass."""
        for answer in (b"<html>", b"[]", b'{"AuthURL":5}', b"\xff"):
            self.failureResultOf(self.register(answer), ControlProtocolError)

    def test_nullRegisterAnswer(self) -> None:
        """No document at all counts as an empty one."""
        for answer in (b"null", b""):
            response = self.successResultOf(self.register(answer))
            self.assertFalse(response.machineAuthorized)

    def test_T_caps_registerAnswer(self) -> None:
        """An answer of more than 1 MiB is not read."""
        self.failureResultOf(
            self.register(b" " * (LARGEST_BODY + 1)), ControlProtocolError
        )

    def test_notImplemented(self) -> None:
        """501 is told apart, as there is no use in asking again."""
        problem = self.failureResultOf(
            self.register((501, "Not implemented yet")), NotSupportedByControl
        ).value
        self.assertTrue(problem.isPermanent)
        self.assertIn("Not implemented yet", str(problem))

    def test_retryAfter(self) -> None:
        """Retry-After is read as seconds and as a date."""
        date = formatdate(WALL_TIME + 90, usegmt=True)
        for text, expected in (
            ("17", 17),
            (date, 90),
            ("soon", None),
            ("-5", None),
            ("", None),
        ):
            problem = self.failureResultOf(
                self.register((429, "slow down", {"retry-after": text})),
                ControlHTTPError,
            ).value
            self.assertEqual(problem.status, 429)
            self.assertEqual(problem.retryAfter, expected)

    def test_errorPages(self) -> None:
        """The text of an error page is passed on, up to 200 characters."""
        problem = self.failureResultOf(
            self.register((401, "no\n\n entry " + "x" * 999)), ControlHTTPError
        ).value
        self.assertIn("HTTP 401: no entry xxx", str(problem))
        self.assertLess(len(str(problem)), 300)

    def test_timeout(self) -> None:
        """A call that is not answered ends in time, and its stream with it."""
        requests = self.harness.answer("/machine/register", None)
        zero = NodePublic.zero().text()
        call = self.api.register(RegisterRequest(nodeKey=KEY.text(), oldNodeKey=zero))
        self.harness.advance(CALL_TIMEOUT)
        self.failureResultOf(call, ControlUnreachable)
        self.harness.pump()
        self.assertTrue(requests[0].reset)

    def test_noTimeout(self) -> None:
        """A followup waits for as long as it takes."""
        self.harness.answer("/machine/register", None)
        zero = NodePublic.zero().text()
        call = self.api.register(
            RegisterRequest(nodeKey=KEY.text(), oldNodeKey=zero), timeout=None
        )
        self.harness.advance(10_000, 100)
        self.assertNoResult(call)
        call.cancel()
        self.failureResultOf(call, CancelledError)

    def test_openMap(self) -> None:
        """A map is asked for with its own headers, and read as it comes."""
        requests = self.harness.answer("/machine/map", b"frames")
        response = self.successResultOf(
            self.call(self.api.openMap(MapRequest(nodeKey=KEY.text(), stream=True)))
        )
        self.assertEqual(requests[0].header("ts-lb"), [KEY.text()])
        self.assertEqual(self.successResultOf(response.readBody(9)), b"frames")

    def test_openMapRefused(self) -> None:
        """A map that is refused is an error with the server's text."""
        self.harness.answer("/machine/map", (404, "node not found"))
        problem = self.failureResultOf(
            self.call(self.api.openMap(MapRequest(nodeKey=KEY.text()))),
            ControlHTTPError,
        ).value
        self.assertEqual(problem.status, 404)
        self.assertIn("node not found", str(problem))

    def test_updateMap(self) -> None:
        """An update needs nothing but a good status."""
        self.harness.answer("/machine/map", b"")
        self.successResultOf(
            self.call(self.api.updateMap(MapRequest(nodeKey=KEY.text())))
        )

    def test_setDNS(self) -> None:
        """A DNS record is published with the node's name for itself."""
        requests = self.harness.answer("/machine/set-dns", {})
        self.successResultOf(
            self.call(self.api.setDNS(KEY, "_acme-challenge.h.ts.net", "TXT", "v"))
        )
        self.assertEqual(
            requests[0].json,
            {
                "Version": 130,
                "NodeKey": KEY.text(),
                "Name": "_acme-challenge.h.ts.net",
                "Type": "TXT",
                "Value": "v",
            },
        )
        self.assertEqual(requests[0].header("ts-lb"), [KEY.text()])
        self.assertEqual(requests[0].header("content-type"), ["application/json"])

    def test_setDNSEmptyAnswer(self) -> None:
        """An empty answer is as good as an empty object."""
        self.harness.answer("/machine/set-dns", b"")
        self.successResultOf(self.call(self.api.setDNS(KEY, "n", "TXT", "v")))

    def test_idToken(self) -> None:
        """A token is asked for by its audience."""
        requests = self.harness.answer("/machine/id-token", {"id_token": "a.b.c"})
        token = self.successResultOf(self.call(self.api.idToken(KEY, "aud")))
        self.assertEqual(token, "a.b.c")
        self.assertEqual(
            requests[0].json,
            {"CapVersion": 130, "NodeKey": KEY.text(), "Audience": "aud"},
        )

    def test_idTokenMissing(self) -> None:
        """An answer without a token is an error."""
        for answer in ({}, {"id_token": 5}, b"[]", b"x"):
            self.harness.answer("/machine/id-token", answer)
            self.failureResultOf(
                self.call(self.api.idToken(KEY, "aud")), ControlProtocolError
            )

    def test_queryFeature(self) -> None:
        """What the server says of a feature is passed on."""
        self.harness.answer(
            "/machine/feature/query",
            {"Complete": False, "Text": "t", "URL": "u", "ShouldWait": True},
            {"Complete": True},
        )
        answer = self.successResultOf(self.call(self.api.queryFeature(KEY, "funnel")))
        self.assertEqual(
            (answer.complete, answer.text, answer.url, answer.shouldWait),
            (False, "t", "u", True),
        )
        answer = self.successResultOf(self.call(self.api.queryFeature(KEY, "funnel")))
        self.assertEqual((answer.complete, answer.url), (True, ""))

    def test_deviceAttributes(self) -> None:
        """Attributes are patched."""
        requests = self.harness.answer("/machine/set-device-attr", b"")
        self.successResultOf(
            self.call(self.api.setDeviceAttributes(KEY, {"custom:a": None}))
        )
        self.assertEqual(requests[0].method, "PATCH")
        self.assertEqual(requests[0].json["Update"], {"custom:a": None})

    def test_getWithBody(self) -> None:
        """Calls of the tailnet lock are GET requests with a body."""
        requests = self.harness.answer("/machine/tka/sync/offer", {"Head": "x"})
        answer = self.successResultOf(
            self.call(
                self.api.callJSON("GET", "/machine/tka/sync/offer", {"Head": "y"})
            )
        )
        self.assertEqual(answer, {"Head": "x"})
        self.assertEqual(requests[0].method, "GET")
        self.assertEqual(json.loads(requests[0].body), {"Head": "y"})

    def test_ts2021KeyIsZero(self) -> None:
        """A server without a Noise key fails every call, for good."""
        self.harness.peer.keyAnswer = keyAnswer(
            MachineKey.generate(fixedBytes(1)).public().zero()
        )
        failure = self.failureResultOf(self.call(self.api.idToken(KEY, "a")))
        self.assertTrue(failure.value.isPermanent)

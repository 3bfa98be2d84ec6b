"""
Tests for L{tsrt.control.pings} and L{tsrt.control.c2n}.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tsrt.control.c2n import (
    C2NHandler,
    C2NRequest,
    C2NResponse,
    C2NSources,
    parseRequest,
)
from tsrt.control.pings import (
    MOST_ANSWERS,
    PING_TIMEOUT,
    PingAnswerer,
    replyTarget,
)
from tsrt.control.plainhttp import PlainHTTP
from tsrt.control.steps import StepLog
from tsrt.control.urls import parseControlURL
from tsrt.errors import WireError
from tsrt.tailcfg import PingRequest, PingResponse
from tsrt.test.controlharness import URL, Harness
from tsrt.test.controlpeer import page


class C2NTests(SynchronousTestCase):
    """Requests that the server sends to the node."""

    def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        sources: C2NSources | None = None,
    ) -> tuple[int, bytes]:
        request = parseRequest(
            f"{method} {target} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        handler = C2NHandler(sources or C2NSources())
        answer = self.successResultOf(handler.handle(request))
        return answer.status, answer.body

    def askJSON(self, *arguments: Any) -> object:
        status, body = self.ask(*arguments)
        self.assertEqual(status, 200)
        return json.loads(body)

    def test_echo(self) -> None:
        """An echo gives back the body, whatever the method."""
        self.assertEqual(self.ask("POST", "/echo", b"hello"), (200, b"hello"))
        self.assertEqual(self.ask("PUT", "/echo?x=1", b""), (200, b""))

    def test_unknown(self) -> None:
        """Paths that are not offered are answered so."""
        for path in ("/", "/nothing", "/debug/goroutines", "/wol", "/debug/prefs"):
            self.assertEqual(self.ask("GET", path), (400, b"unknown c2n path\n"))

    def test_methods(self) -> None:
        """The wrong method is told apart from an unknown path."""
        self.assertEqual(self.ask("GET", "/logtail/flush")[0], 405)
        self.assertEqual(self.ask("POST", "/posture/identity")[0], 405)
        self.assertEqual(self.ask("DELETE", "/update")[0], 405)

    def test_logtail(self) -> None:
        """There are no logs to flush."""
        self.assertEqual(self.ask("POST", "/logtail/flush"), (204, b""))

    def test_posture(self) -> None:
        """Nothing is told about the hardware."""
        self.assertEqual(
            self.askJSON("GET", "/posture/identity"),
            {"SerialNumbers": [], "IfaceHardwareAddrs": [], "PostureDisabled": True},
        )

    def test_update(self) -> None:
        """The node does not update itself."""
        self.assertEqual(
            self.askJSON("GET", "/update"), {"Enabled": False, "Supported": False}
        )
        answer = self.askJSON("POST", "/update")
        assert isinstance(answer, dict)
        self.assertEqual(answer["Started"], False)
        self.assertTrue(answer["Err"])

    def test_sshUsernames(self) -> None:
        """User names come from whoever knows them."""
        self.assertEqual(self.askJSON("GET", "/ssh/usernames"), {"Usernames": []})
        sources = C2NSources(sshUsernames=lambda: ["ann"])
        self.assertEqual(
            self.askJSON("POST", "/ssh/usernames", b"{}", sources),
            {"Usernames": ["ann"]},
        )

    def test_vipServices(self) -> None:
        """So do the services that this node hosts."""
        self.assertEqual(
            self.askJSON("GET", "/vip-services"),
            {"VIPServices": [], "ServicesHash": ""},
        )
        service = {"Name": "svc:x", "Ports": ["tcp:443"], "Active": True}
        sources = C2NSources(vipServices=lambda: ([service], "abc"))
        self.assertEqual(
            self.askJSON("GET", "/vip-services", b"", sources),
            {"VIPServices": [service], "ServicesHash": "abc"},
        )

    def test_debug(self) -> None:
        """What there is to be seen of the inside is offered if it is given."""
        sources = C2NSources(
            metrics=lambda: "a 1\n",
            health=lambda: {"w": 1},
            prefs=lambda: {"p": 1},
            netmap=lambda: {"n": 1},
            certificate=lambda domain: {"Valid": domain == "a.example"},
        )
        self.assertEqual(
            self.ask("GET", "/debug/metrics", b"", sources), (200, b"a 1\n")
        )
        for path, document in (
            ("/debug/health", {"w": 1}),
            ("/debug/prefs", {"p": 1}),
            ("/debug/netmap", {"n": 1}),
            ("/tls-cert-status?domain=a.example", {"Valid": True}),
        ):
            self.assertEqual(self.askJSON("GET", path, b"", sources), document)

    def test_further(self) -> None:
        """More paths can be added, with handlers that take their time."""
        later: Deferred[C2NResponse] = Deferred()
        sources = C2NSources(further={"/x": {"GET": lambda _: later}})
        handler = C2NHandler(sources)
        answer = handler.handle(C2NRequest("GET", "/x", {}, {}, b""))
        self.assertNoResult(answer)
        later.callback(C2NResponse(201))
        self.assertEqual(self.successResultOf(answer).status, 201)

    def test_brokenHandler(self) -> None:
        """A handler that fails is answered with 500, and logged."""

        def broken() -> str:
            raise RuntimeError("broken")

        status, _ = self.ask("GET", "/debug/metrics", b"", C2NSources(metrics=broken))
        self.assertEqual(status, 500)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_bytes(self) -> None:
        """An answer is a whole HTTP/1.1 response."""
        self.assertEqual(
            C2NResponse(200, b"hi").toBytes(),
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: 2\r\n\r\nhi",
        )
        self.assertEqual(C2NResponse(204).toBytes(), b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertTrue(C2NResponse(599).toBytes().startswith(b"HTTP/1.1 599 "))

    def test_chunked(self) -> None:
        """A body may come in chunks."""
        request = parseRequest(
            b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
        )
        self.assertEqual(request.body, b"abc0123456789")

    def test_timeouts(self) -> None:
        """The server may say how long it waits, as Go writes durations."""
        for text, seconds in (
            ("1m30s", 60.0),
            ("1.5s", 1.5),
            ("250ms", 0.25),
            ("", 60.0),
            ("soon", 60.0),
            ("5s later", 60.0),
            ("9h", 60.0),
        ):
            request = C2NRequest("GET", "/", {}, {"c2n-handler-timeout": text}, b"")
            self.assertEqual(request.timeout, seconds)

    def test_badRequests(self) -> None:
        """What is no request is refused."""
        for data in (
            b"",
            b"GET / HTTP/1.1",
            b"GET /\r\n\r\n",
            b"GET / HTTP/2\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"GET http://[ HTTP/1.1\r\n\r\n",
            b"x" * (1 << 21),
        ):
            self.assertRaises(WireError, parseRequest, data)

    @given(st.binary())
    @settings(max_examples=200, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Any bytes are a request or a WireError."""
        for start in (b"", b"GET / HTTP/1.1\r\n", b"P /%zz?a=%ff HTTP/1.0\r\n"):
            try:
                parseRequest(start + data + b"\r\n\r\n")
            except WireError:
                pass


class PingTests(SynchronousTestCase):
    """Answers to the server's questions."""

    def setUp(self) -> None:
        self.harness = Harness()
        self.pinged: list[tuple[str, str]] = []
        self.pong: Deferred[PingResponse] | None = None
        self.silent = False
        http = PlainHTTP(
            self.harness.clock,
            self.harness.net,
            parseControlURL(URL),
            steps=StepLog(self.harness.clock),
        )
        self.api = self.harness.api()
        self.answerer = PingAnswerer(
            self.harness.clock,
            self.api,
            http,
            c2n=C2NHandler(C2NSources()),
            pinger=self.ping,
        )
        self.replies = self.harness.answer("/reply", b"")

    def tearDown(self) -> None:
        self.answerer.stop()
        self.harness.pump()

    def ping(self, ip: str, kind: str) -> Deferred[PingResponse]:
        self.pinged.append((ip, kind))
        if self.silent:
            return Deferred()
        if self.pong is not None:
            return self.pong
        return succeed(PingResponse(ip=ip, nodeName="b", latencySeconds=0.5))

    def ask(self, **fields: Any) -> None:
        fields.setdefault("url", "https://control.example/reply?id=1")
        self.answerer.answer(PingRequest(**fields))
        self.harness.pump()

    def test_headOverNoise(self) -> None:
        """A question without a kind is answered with HEAD."""
        self.ask(urlIsNoise=True)
        [request] = self.harness.peer.requests
        self.assertEqual((request.method, request.path), ("HEAD", "/reply?id=1"))

    def test_headInTheOpen(self) -> None:
        """Without Noise it goes by ordinary HTTP."""
        self.harness.peer.pages["HEAD", "/reply"] = page(b"")
        self.ask(url=URL + "/reply?id=2")
        self.assertEqual(self.harness.peer.heads[0][:2], ("HEAD", "/reply?id=2"))
        self.assertEqual(self.harness.peer.requests, [])

    def test_R_NET_2_host(self) -> None:
        """The host that the server names is never contacted."""
        self.harness.peer.pages["HEAD", "/reply"] = page(b"")
        self.ask(url="http://169.254.169.254:80/reply?id=3")
        self.ask(url="http://169.254.169.254:80/reply?id=4", urlIsNoise=True)
        self.ask(
            url="http://10.0.0.1/reply",
            types="c2n",
            payload=b"GET /echo HTTP/1.1\r\n\r\n",
        )
        self.ask(url="http://10.0.0.2/reply", types="disco", ip="100.64.0.2")
        hosts = {(a.host, a.port) for a in self.harness.net.attempts}
        self.assertEqual(hosts, {("127.0.0.1", 9000)})
        for _, target, headers in self.harness.peer.heads:
            self.assertNotIn("169", target)
            self.assertEqual(headers["host"], "127.0.0.1:9000")

    def test_R_NET_2_target(self) -> None:
        """Only path and query of a URL are used."""
        self.assertEqual(replyTarget("https://evil/a/b?c=d&e=f#g"), "/a/b?c=d&e=f")
        self.assertEqual(replyTarget("/a?b"), "/a?b")
        for url in ("", "https://evil", "evil", "https://e/a b", "https://[", "/é"):
            self.assertRaises(WireError, replyTarget, url)

    def test_sameURL(self) -> None:
        """The same question twice in a row is answered once."""
        for _ in range(3):
            self.ask(urlIsNoise=True)
        self.assertEqual(len(self.replies), 1)
        self.ask(url="/reply?id=2", urlIsNoise=True)
        self.ask(urlIsNoise=True)
        self.assertEqual(len(self.replies), 3)

    def test_c2n(self) -> None:
        """A request inside of a question is answered over Noise, always."""
        self.ask(
            types="c2n",
            payload=b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
        )
        [request] = self.replies
        self.assertEqual((request.method, request.path), ("POST", "/reply?id=1"))
        self.assertTrue(request.body.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertTrue(request.body.endswith(b"\r\n\r\nhi"))

    def test_c2nPayloadIsBase64(self) -> None:
        """In JSON the request is base64, as all bytes are."""
        from tsrt.tailcfg import decode

        raw = b"GET /echo HTTP/1.1\r\n\r\n"
        document = {
            "URL": "/x",
            "Types": "c2n",
            "Payload": base64.b64encode(raw).decode(),
        }
        self.assertEqual(
            decode(PingRequest, json.dumps(document).encode()).payload, raw
        )

    def test_badC2N(self) -> None:
        """A request that is none is not answered, and does no harm."""
        for payload in (None, b"", b"nonsense"):
            self.ask(
                url=f"/reply?{payload!r}".replace("'", ""), types="c2n", payload=payload
            )
        self.assertEqual(self.replies, [])

    def test_ping(self) -> None:
        """Each kind of ping is made and its result posted."""
        self.ask(types="disco,TSMP,ICMP,peerapi", ip="100.64.0.2", urlIsNoise=True)
        kinds = ["disco", "TSMP", "ICMP", "peerapi"]
        self.assertEqual(self.pinged, [("100.64.0.2", kind) for kind in kinds])
        self.assertEqual([request.json["Type"] for request in self.replies], kinds)
        self.assertEqual(self.replies[0].json["LatencySeconds"], 0.5)
        self.assertEqual(self.replies[0].json["IP"], "100.64.0.2")

    def test_pingInTheOpen(self) -> None:
        """Without Noise the result goes by ordinary HTTP."""
        self.harness.peer.pages["POST", "/reply"] = page(b"")
        self.ask(types="TSMP", ip="100.64.0.2")
        self.assertEqual(self.harness.peer.heads[0][:2], ("POST", "/reply?id=1"))

    def test_pingTimeout(self) -> None:
        """A ping without an answer is told as one."""
        self.pong = Deferred()
        self.ask(types="disco", ip="100.64.0.2", urlIsNoise=True)
        self.harness.advance(PING_TIMEOUT)
        self.assertEqual(self.replies[0].json["Err"], "timeout")

    def test_pingFailure(self) -> None:
        """A ping that fails tells why."""
        self.pong = Deferred()
        self.pong.errback(ValueError("no such node"))
        self.ask(types="disco", ip="100.64.0.2", urlIsNoise=True)
        self.assertEqual(self.replies[0].json["Err"], "no such node")

    def test_unknownKind(self) -> None:
        """A kind of ping that we do not know is passed over."""
        self.ask(types="carrier-pigeon", ip="100.64.0.2", urlIsNoise=True)
        self.assertEqual((self.pinged, self.replies), ([], []))

    def test_bounded(self) -> None:
        """Only so many questions are answered at a time."""
        self.silent = True
        for number in range(MOST_ANSWERS + 5):
            self.ask(url=f"/reply?{number}", types="disco", ip="x", urlIsNoise=True)
        self.assertEqual(len(self.pinged), MOST_ANSWERS)
        self.assertEqual(self.answerer.dropped, 5)

    def test_stop(self) -> None:
        """Stopping gives up what is under way."""
        self.pong = Deferred()
        self.ask(types="disco", ip="100.64.0.2", urlIsNoise=True)
        self.answerer.stop()
        self.assertTrue(self.pong.called)
        self.assertEqual(self.harness.clock.getDelayedCalls(), [])

    def test_noURL(self) -> None:
        """A question without a URL cannot be answered."""
        self.ask(url="", types="disco", ip="x")
        self.ask(url="https://evil", types="disco", ip="x")
        self.assertEqual(self.pinged, [])

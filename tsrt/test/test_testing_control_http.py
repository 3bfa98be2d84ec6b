"""Tests for the plain HTTP side of the embedded control server."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.keys import MachineKey, Secret
from tsrt.test.rawcontrol import Harness, Random
from tsrt.testing.control import ControlConfig, RegistrationOptions
from tsrt.testing.control.http import MAX_BODY, MAX_HEAD, REQUEST_TIMEOUT


class FrontTests(SynchronousTestCase):
    """Tests for how requests are read and answered."""

    def setUp(self):
        """Start a server."""
        self.harness = Harness()

    def status(self, data):
        """The status of the answer to some bytes, and whether it closed."""
        client = self.harness.client()
        answer = client.http(data)
        status = int(answer.split(b" ")[1]) if answer else None
        return status, client.pipe.closed

    def test_malformedRequests(self):
        """Each malformed request gets an error and costs its connection."""
        cases = {
            b"GET\r\n\r\n": 400,
            b"GET / HTTP/1.1 x\r\n\r\n": 400,
            b"G\x00T / HTTP/1.1\r\n\r\n": 400,
            b"GET / FTP/1.1\r\n\r\n": 400,
            b"PRI * HTTP/2.0\r\n\r\n": 400,
            b"GET / HTTP/1.1\r\nNo colon\r\n\r\n": 400,
            b"GET / HTTP/1.1\r\nBad name: x\r\n\r\n": 400,
            b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n": 400,
            b"GET / HTTP/1.1\r\nX: a\r\n folded\r\n\r\n": 400,
            b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n": 400,
            b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n": 400,
            b"GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n": 400,
            b"GET / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1): 413,
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n": 501,
            b"GET http://[::/ HTTP/1.1\r\n\r\n": 400,
            b"GET * HTTP/1.1\r\n\r\n": 400,
            b"GET " + b"x" * MAX_HEAD + b" HTTP/1.1\r\n\r\n": 431,
        }
        for data, status in cases.items():
            self.assertEqual((status, True), self.status(data), data[:60])
        self.assertEqual((200, False), self.status(b"GET / HTTP/1.1\r\n\r\n"))

    def test_unknown(self):
        """Unknown pages and methods are refused; the connection stays."""
        self.assertEqual((404, False), self.status(b"GET /x HTTP/1.1\r\n\r\n"))
        self.assertEqual((405, False), self.status(b"PUT /key HTTP/1.1\r\n\r\n"))
        self.assertEqual((405, False), self.status(b"PUT /ts2021 HTTP/1.1\r\n\r\n"))

    def test_pieces(self):
        """A request may come in any pieces, and several in one."""
        client = self.harness.client()
        request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        for byte in request[:-1]:
            self.assertEqual(b"", client.http(bytes([byte])))
        self.assertIn(b'{"status": "pass"}', client.http(request[-1:]))
        self.assertEqual(3, client.http(request * 3).count(b"HTTP/1.1 200 OK"))

    def test_bodiesAndHeads(self):
        """HEAD has no body; a POST body is read before the next request."""
        client = self.harness.client()
        answer = client.http(b"HEAD /health HTTP/1.1\r\n\r\n")
        self.assertIn(b"Content-Length: 18\r\n", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\n"))
        status, _ = client.get("/machine/ping-response/x", "POST", b"GET / ...")
        self.assertEqual(404, status)
        answer = client.http(
            b"POST /a/x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        )
        self.assertEqual(b"HTTP/1.1 100 Continue\r\n\r\n", answer)

    def test_close(self):
        """The connection closes when the client, or HTTP/1.0, wants it to."""
        for data in (
            b"GET /key?v=145 HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"GET /key?v=145 HTTP/1.0\r\n\r\n",
        ):
            client = self.harness.client()
            self.assertIn(b"\r\nConnection: close\r\n", client.http(data))
            self.assertTrue(client.pipe.closed)
        self.assertEqual([], self.harness.reactor.getDelayedCalls())

    def test_timeout(self):
        """A connection that never completes a request is dropped."""
        client = self.harness.client()
        client.http(b"GET / HT")
        self.harness.advance(REQUEST_TIMEOUT - 1)
        client.http(b"T")
        self.assertFalse(client.pipe.closed)
        self.harness.advance(2)
        self.assertTrue(client.pipe.closed)

    def test_answersNobodyReads(self):
        """Requests are not answered faster than the answers are read."""
        client = self.harness.client()
        request = b"GET / HTTP/1.1\r\n\r\n"
        for _ in range(1000):
            client.pipe.send(request)
        self.assertFalse(client.pipe.reading)
        self.assertLess(len(client.pipe.buffer), 3 * client.pipe.limit)
        answers = b""
        while not client.pipe.reading:
            answers += client.pipe.take()
            self.harness.settle()
        answers += client.pipe.take()
        self.assertEqual(1000, answers.count(b"HTTP/1.1 200 OK"))

    def test_failingHandler(self):
        """A mistake in the server costs one request, and is logged."""

        def fail():
            raise RuntimeError("a mistake")

        self.harness.server._site.wallTime = fail
        self.assertEqual(500, self.harness.client().get("/a/x")[0])
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))

    def test_date(self):
        """Answers carry the calendar time, by which clients see a wrong clock."""
        answer = self.harness.client().http(b"GET / HTTP/1.1\r\n\r\n")
        self.assertIn(b"\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n", answer)

    @given(st.binary(max_size=200))
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, data):
        """Whatever comes, the server answers or waits, and lives on."""
        self.harness.client().http(data + b"\r\n\r\n")
        self.assertEqual(200, self.harness.client().get("/health")[0])
        self.assertEqual([], self.flushLoggedErrors())


class PageTests(SynchronousTestCase):
    """Tests for the pages."""

    def setUp(self):
        """Start a server."""
        self.harness = Harness(ControlConfig(users=("alice", "bob")))
        self.server = self.harness.server

    def get(self, path, **more):
        """Ask for a page."""
        return self.harness.client().get(path, **more)

    def test_key(self):
        """The key is told to clients that can use it, and to people."""
        zero = "mkey:" + "0" * 64
        key = self.server.publicKey.text()
        for query, told in (
            ("?v=145", key),
            ("?v=39", key),
            ("", key),
            ("?v=38", zero),
        ):
            status, body = self.get("/key" + query)
            self.assertEqual(200, status)
            self.assertEqual(
                {"legacyPublicKey": zero, "publicKey": told}, json.loads(body)
            )
        self.assertEqual(400, self.get("/key?v=x")[0])

    def test_small(self):
        """The pages that programs look at."""
        self.assertEqual((200, b"{}"), self.get("/bootstrap-dns?q=x"))
        self.assertEqual((204, b""), self.get("/generate_204"))
        answer = self.harness.client().http(
            b"GET /generate_204 HTTP/1.1\r\nX-Tailscale-Challenge: ts_1\r\n\r\n"
        )
        self.assertIn(b"\r\nX-Tailscale-Response: response ts_1\r\n", answer)
        self.assertNotIn(b"Content-Length", answer)
        self.assertIn(b"tailnet.test", self.get("/")[1])

    def test_upgradeRefusals(self):
        """Each way to ask wrongly for the control protocol has its own text."""
        upgrade = "Upgrade: tailscale-control-protocol\r\n"
        cases = {
            "": b"missing next protocol",
            "Upgrade: websocket\r\n": b"unknown next protocol",
            upgrade: b"missing Tailscale handshake header",
            upgrade + "X-Tailscale-Handshake: !\r\n": b"invalid tailscale handshake",
        }
        for headers, text in cases.items():
            status, body = self.get("/ts2021", method="POST", headers=headers)
            self.assertEqual(400, status)
            self.assertIn(text, body)

    def login(self, hostname="laptop", **hostinfo):
        """A machine that waits for a person, and the path of its page."""
        node = self.harness.node(hostname, authKey="", listen=False)
        node.hostinfo.update(hostinfo)
        node.newKey()
        url = node.register().json()["AuthURL"]
        self.assertTrue(url.startswith(self.server.url + "/a/"))
        return node, url.removeprefix(self.server.url)

    def test_loginPage(self):
        """The page names the machine and offers all users."""
        _, path = self.login("<laptop>")
        status, body = self.get(path)
        self.assertEqual(200, status)
        for text in (b"&lt;laptop&gt;", b"alice@tailnet.test", b"bob@tailnet.test"):
            self.assertIn(text, body)
        self.assertEqual(404, self.get("/a/nothing")[0])
        self.assertEqual(405, self.get(path, method="PUT")[0])

    def test_approve(self):
        """Approving lets the machine in as the chosen user."""
        node, path = self.login()
        form = b"user=bob%40tailnet.test&verdict=approve"
        status, body = self.get(path, method="POST", body=form)
        self.assertEqual(200, status)
        self.assertIn(b"laptop", body)
        self.assertEqual("bob@tailnet.test", node.record.user.login)
        self.assertEqual(404, self.get(path)[0])

    def test_approveAsNobody(self):
        """A user that does not exist is a problem that the page shows."""
        node, path = self.login()
        status, body = self.get(path, method="POST", body=b"user=eve")
        self.assertEqual(400, status)
        self.assertIn(b"no such user", body)
        self.assertIsNone(node.record)

    def test_approveForbiddenTags(self):
        """Tags that the user may not give are a problem that the page shows."""
        node, path = self.login(RequestTags=["tag:web"])
        status, body = self.get(path, method="POST", body=b"verdict=approve")
        self.assertEqual(400, status)
        self.assertIn(b"requested tags [tag:web] are invalid or not permitted", body)
        self.assertIsNone(node.record)

    def test_deny(self):
        """Refusing tells the machine so."""
        node, path = self.login()
        self.assertEqual(
            200, self.get(path, method="POST", body=b"verdict=deny&user=")[0]
        )
        answer = node.register(Followup=self.server.url + path).json()
        self.assertEqual("login refused", answer["Error"])

    def test_tooOld(self):
        """A login page goes away in time."""
        _, path = self.login()
        self.harness.advance(901, step=100)
        self.assertEqual(404, self.get(path)[0])


class AdminTests(SynchronousTestCase):
    """Tests for the administration interface."""

    def setUp(self):
        """Start a server with a token."""
        options = RegistrationOptions(requireApproval=True)
        config = ControlConfig(adminToken=Secret("sesame"), registration=options)
        self.harness = Harness(config)
        self.server = self.harness.server

    def ask(self, method, path, value=None, token="sesame"):
        """Make a request; the status and the decoded answer."""
        body = b"" if value is None else value
        if not isinstance(body, bytes):
            body = json.dumps(value).encode()
        status, answer = self.harness.client().get(
            path, method, body, f"Authorization: Bearer {token}\r\n"
        )
        return status, json.loads(answer) if status == 200 else answer.decode()

    def test_token(self):
        """Without the token nothing works; without a configured one, neither."""
        self.assertEqual(401, self.ask("GET", "/admin/nodes", token="x")[0])
        self.assertEqual(401, self.ask("GET", "/admin/nodes", token="\xe9")[0])
        self.assertEqual(404, Harness().client().get("/admin/nodes")[0])

    def test_keyAndNode(self):
        """Keys are made, and nodes are seen, approved, ended and deleted."""
        status, made = self.ask(
            "POST",
            "/admin/keys",
            {"reusable": True, "preApproved": False, "lifetime": 60, "tags": []},
        )
        self.assertEqual(200, status)
        node = self.harness.node("n", made["key"], listen=False)
        self.assertFalse(node.record.authorized)
        self.assertEqual((200, {}), self.ask("POST", "/admin/nodes/1/approve"))
        self.assertEqual((200, {}), self.ask("POST", "/admin/nodes/1/expire"))
        [shown] = self.ask("GET", "/admin/nodes")[1]
        self.assertEqual("n", shown["name"])
        self.assertEqual(["100.64.0.1", "fd7a:115c:a1e0::1"], shown["addresses"])
        self.assertTrue(shown["authorized"])
        self.assertEqual((200, {}), self.ask("DELETE", "/admin/nodes/1"))
        self.assertEqual([], self.server.nodes())

    def test_routes(self):
        """Routes are approved, all or some."""
        node = self.harness.node("r", listen=False)
        node.update(Hostinfo={"RoutableIPs": ["10.0.0.0/8", "10.1.0.0/16"]})
        self.ask("POST", "/admin/nodes/1/routes", {"routes": ["10.0.0.0/8"]})
        [shown] = self.ask("GET", "/admin/nodes")[1]
        self.assertEqual(["10.0.0.0/8"], shown["approvedRoutes"])
        self.ask("POST", "/admin/nodes/1/routes")
        [shown] = self.ask("GET", "/admin/nodes")[1]
        self.assertEqual(["10.0.0.0/8", "10.1.0.0/16"], shown["approvedRoutes"])

    def test_logins(self):
        """Machines that wait are seen and let in."""
        node = self.harness.node("waits", authKey="", listen=False)
        [login] = self.ask("GET", "/admin/logins")[1]
        self.assertEqual("waits", login["hostname"])
        status, shown = self.ask("POST", f"/admin/logins/{login['id']}")
        self.assertEqual((200, "waits"), (status, shown["name"]))
        self.assertIsNotNone(node.record)

    def test_policy(self):
        """A policy is put in force, or refused with its fault."""
        self.assertEqual((200, {}), self.ask("PUT", "/admin/policy", {"acls": []}))
        status, text = self.ask("PUT", "/admin/policy", b'{\n"acls": 3}')
        self.assertEqual(400, status)
        self.assertIn("line 2, acls: a list was expected", text)

    def test_malformed(self):
        """Malformed requests are refused."""
        cases = [
            ("POST", "/admin/keys", b"{"),
            ("POST", "/admin/keys", b"[]"),
            ("POST", "/admin/keys", {"reusable": 1}),
            ("POST", "/admin/keys", {"lifetime": True}),
            ("POST", "/admin/keys", {"user": 3}),
            ("POST", "/admin/keys", {"user": "nobody"}),
            ("POST", "/admin/keys", {"tags": "tag:x"}),
            ("POST", "/admin/keys", {"tags": ["x"]}),
            ("POST", "/admin/nodes/x/approve", None),
            ("POST", "/admin/nodes/7/approve", None),
            ("POST", "/admin/nodes/1/routes", {"routes": [1]}),
            ("POST", "/admin/logins/x", None),
        ]
        self.harness.node("n", listen=False)
        for method, path, value in cases:
            self.assertEqual(400, self.ask(method, path, value)[0], (path, value))
        self.assertEqual(404, self.ask("POST", "/admin/nodes/1/dance")[0])
        self.assertEqual(404, self.ask("GET", "/admin/else")[0])


class UpgradeTests(SynchronousTestCase):
    """Tests for the change from HTTP to the control protocol."""

    def test_both(self):
        """POST and GET both upgrade."""
        harness = Harness()
        machine = MachineKey.generate(Random(b"m"))
        for method in ("POST", "GET"):
            client = harness.client().connect(machine, harness.key, method=method)
            self.assertRegex(client.early["nodeKeyChallenge"], "^chalpub:[0-9a-f]{64}$")

    def test_surplus(self):
        """Bytes behind the request belong to the next layer."""
        harness = Harness()
        client = harness.client()
        client.upgrade(b"x" * 101, surplus=b"\x04\x00\x05hello")
        self.assertTrue(client.pipe.closed)
        self.assertEqual([], harness.reactor.getDelayedCalls())

    def test_handshakeErrors(self):
        """What is wrong with a handshake is told before the connection closes."""
        good = b"\x00\x91\x01\x00\x60" + bytes(96)
        cases = {
            b"": b"missing Tailscale handshake header",
            good[:-1]: b"wrong handshake initiation size",
            b"\x00\x91\x02" + good[3:]: b"unexpected handshake message type",
            b"\x00\x91\x01\x00\x61" + good[5:]: b"wrong handshake initiation length",
        }
        for initiation, text in cases.items():
            client = Harness().client()
            _, rest = client.upgrade(initiation)
            self.assertIn(text, rest)
            if initiation:
                self.assertEqual(3, rest[0])
                self.assertEqual(len(rest) - 3, int.from_bytes(rest[1:3], "big"))
                self.assertTrue(client.pipe.closed)

    def test_wrongKey(self):
        """A handshake for another server closes the connection in silence."""
        harness = Harness()
        other = MachineKey.generate(Random(b"other")).public()
        machine = MachineKey.generate(Random(b"m"))
        from tsrt.crypto.noise import IKInitiator

        initiation = IKInitiator(machine, other, 145, Random()).initiation()
        client = harness.client()
        head, rest = client.upgrade(initiation)
        self.assertTrue(head.startswith(b"HTTP/1.1 101"))
        self.assertEqual(b"", rest)
        self.assertTrue(client.pipe.closed)

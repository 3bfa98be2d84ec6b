"""Tests for connections, small requests and the service itself."""

from __future__ import annotations

import base64
import json

import h2.errors
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tsrt.errors import NotRunning, ProtocolError, UnknownPeer
from tsrt.keys import MachineKey
from tsrt.test.rawcontrol import Harness, Random, RawNode
from tsrt.testing.clock import pump
from tsrt.testing.control import ControlConfig, ControlServer, wallClock
from tsrt.testing.control.connection import START_TIMEOUT, MachineConnection
from tsrt.testing.control.h2server import MAX_STREAMS
from tsrt.testing.control.pings import parseC2NResponse
from tsrt.testing.internet import MemoryInternet


class ConnectionTests(SynchronousTestCase):
    """Tests for the Noise and HTTP/2 layers."""

    def setUp(self):
        """Start a server with one connected machine."""
        self.harness = Harness()
        self.node = RawNode(self.harness, "n")
        self.client = self.node.client

    def alive(self):
        """The server still serves others."""
        self.assertEqual(200, self.harness.client().get("/health")[0])
        self.assertEqual([], self.flushLoggedErrors())

    def test_producer(self):
        """A connection is a push producer for its transport."""
        verifyObject(IPushProducer, self.client.pipe.producer)
        self.assertIsInstance(self.client.pipe.producer, MachineConnection)

    def test_malformedRecords(self):
        """Records that are of the wrong kind, too long or do not open end it."""
        for data in (
            b"\x01\x00\x00",
            b"\x04\x0f\xfe" + bytes(4094),
            b"\x04\x00\x05hello",
            b"\x04\x00\x20" + bytes(32),
        ):
            client = RawNode(self.harness, "n").client
            client.pipe.send(data)
            self.assertTrue(client.pipe.closed, data[:3])
        self.alive()

    def test_emptyRecords(self):
        """Records may be empty, and cut anywhere."""
        sealed = self.client._sealing.seal(self.client._sent, b"")
        self.client._sent += 1
        record = b"\x04\x00\x10" + sealed
        for byte in record:
            self.client.pipe.send(bytes([byte]))
        self.assertFalse(self.client.pipe.closed)
        self.assertEqual(
            200, self.client.request("/machine/whoami", method="GET").status
        )

    def test_notHTTP2(self):
        """What is not HTTP/2 ends the connection."""
        client = self.harness.client()
        from tsrt.crypto.noise import IKInitiator

        initiator = IKInitiator(self.node.machine, self.harness.key, 145, Random())
        _, rest = client.upgrade(initiator.initiation())
        from tsrt.crypto.aead import CounterCipher

        send, _, _ = initiator.finish(rest[:51])
        client._sealing, client._sent = CounterCipher(send, bigEndian=True), 0
        client.pipe.send(client.seal(b"GET / HTTP/1.1\r\n\r\n" * 10))
        client.pipe.take()
        self.assertTrue(client.pipe.closed)
        self.alive()

    @given(st.binary(min_size=1, max_size=300))
    @settings(max_examples=60, deadline=None)
    def test_anyHTTP2(self, data):
        """Whatever comes behind the preface, the server lives on."""
        client = RawNode(self.harness, "n").client
        client.pipe.send(client.seal(data))
        client.pipe.disconnect()
        self.alive()

    def test_silence(self):
        """A peer that never begins with HTTP/2 is dropped."""
        client = self.harness.client()
        from tsrt.crypto.noise import IKInitiator

        initiator = IKInitiator(self.node.machine, self.harness.key, 145, Random())
        client.upgrade(initiator.initiation())
        self.harness.advance(START_TIMEOUT - 1)
        self.assertFalse(client.pipe.closed)
        self.harness.advance(1)
        self.assertTrue(client.pipe.closed)
        # One that has begun may be idle as long as it wants.
        self.harness.advance(1000, step=100)
        self.assertFalse(self.client.pipe.closed)

    def test_settings(self):
        """The server allows at least a hundred streams at a time."""
        self.assertGreaterEqual(MAX_STREAMS, 100)
        self.assertEqual(
            MAX_STREAMS, self.client.h2.remote_settings.max_concurrent_streams
        )

    def test_largeBody(self):
        """A request may be as long as it has to be, and no longer."""
        response = self.client.request("/machine/register", b" " * (1 << 20) + b"{")
        self.assertEqual(413, response.status)
        response = self.client.request("/machine/register", b" " * ((8 << 20) + 1))
        self.assertEqual(413, response.status)
        self.assertEqual(400, self.client.request("/machine/register", b"{}").status)

    def test_unsupported(self):
        """What is not offered is answered with 501."""
        for method, path in (
            ("POST", "/machine/tka/init/begin"),
            ("GET", "/machine/tka/bootstrap"),
            ("PATCH", "/machine/set-device-attr"),
            ("GET", "/machine/register"),
            ("POST", "/"),
        ):
            self.assertEqual(501, self.client.request(path, b"{}", method).status)

    def test_failingHandler(self):
        """A mistake in the server costs one request, and is logged."""

        def fail():
            raise RuntimeError("a mistake")

        core = self.harness.server._core
        good, core.api.wallTime = core.api.wallTime, fail
        response = self.node.register()
        self.assertEqual((500, "internal error"), (response.status, response.text))
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        core.api.wallTime = good
        self.assertEqual(200, self.node.register().status)

    def test_resetInTheSameBreath(self):
        """A request that is reset before it is answered does no harm."""
        for _ in range(5):
            client = self.client
            number = client.h2.get_next_available_stream_id()
            client.h2.send_headers(
                number,
                [
                    (":method", "GET"),
                    (":scheme", "https"),
                    (":authority", "x"),
                    (":path", "/machine/whoami"),
                ],
                end_stream=True,
            )
            client.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            client.pump()
        self.assertFalse(self.client.pipe.closed)
        self.alive()

    def test_closedInTheSameBreath(self):
        """A request right before the end of the connection does no harm."""
        client = self.client
        number = client.h2.get_next_available_stream_id()
        headers = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "x"),
            (":path", "/machine/whoami"),
        ]
        client.h2.send_headers(number, headers, end_stream=True)
        client.h2.close_connection()
        client.pump()
        self.assertTrue(client.pipe.closed)
        self.alive()

    def test_floodOfPings(self):
        """Answers to pings are bounded when nobody reads them."""
        client = self.client
        client.stalled = True
        for number in range(20_000):
            client.h2.ping(number.to_bytes(8, "big"))
            if number % 100 == 0:
                client.pump()
        self.assertLess(len(client.pipe.buffer), 4 * client.pipe.limit)
        self.assertFalse(client.pipe.reading)

    def test_largeResponses(self):
        """Responses larger than any window arrive whole, side by side."""
        big = ["y" * 1000] * 300
        self.harness.server.setHealth(*big)
        key = self.harness.server.createAuthKey().text
        self.node.register(key)
        responses = [self.node.map() for _ in range(3)]
        self.harness.settle()
        for response in responses:
            self.assertEqual(big, response.frames()[0]["Health"])


class SmallRequestTests(SynchronousTestCase):
    """Tests for what nodes ask besides registering and maps."""

    def setUp(self):
        """Start a server with one node."""
        self.harness = Harness()
        self.server = self.harness.server
        self.node = self.harness.node("n")

    def ask(self, path, method="POST", **fields):
        """Make a request as the node."""
        body = {"Version": 145, "NodeKey": self.node.keyText, **fields}
        return self.node.client.request(path, body, method)

    def test_setDNS(self):
        """A node may publish the record that proves its name, and no other."""
        fields = {"Type": "TXT", "Value": "v"}
        name = "_acme-challenge.n.tailnet.test"
        for asked in (name, name + "."):
            response = self.ask("/machine/set-dns", Name=asked, **fields)
            self.assertEqual((200, {}), (response.status, response.json()))
        self.assertEqual([(1, name, "TXT", "v")] * 2, self.server.dnsRecords)
        for changes, status in (
            ({"Name": "_acme-challenge.m.tailnet.test"}, 403),
            ({"Name": "n.tailnet.test"}, 403),
            ({"Type": "A"}, 400),
            ({"Value": ""}, 400),
            ({"Value": 3}, 400),
            ({"NodeKey": "x"}, 400),
            ({"NodeKey": "nodekey:" + "1" * 64}, 404),
        ):
            response = self.ask(
                "/machine/set-dns", **{"Name": name, **fields, **changes}
            )
            self.assertEqual(status, response.status)

    def test_small(self):
        """Simple requests are answered."""
        response = self.ask("/machine/feature/query", Feature="serve")
        self.assertEqual({"Complete": True}, response.json())
        self.assertEqual(200, self.ask("/machine/update-health", Error="x").status)
        details = {"Action": "DISCONNECT_NODE", "Details": "why"}
        self.assertEqual(200, self.ask("/machine/audit-log", **details).status)
        self.assertEqual([(1, "DISCONNECT_NODE", "why")], self.server.auditLog)
        response = self.node.client.request("/machine/whoami", method="GET")
        self.assertEqual(["n"], response.json()["Nodes"])

    def test_malformed(self):
        """Malformed requests are refused."""
        for path in ("set-dns", "id-token", "feature/query", "audit-log"):
            for body in (b"", b"{", b"[]", b"{}", b"[" * 10_000):
                response = self.node.client.request("/machine/" + path, body)
                self.assertEqual(400, response.status, (path, body[:9]))

    def test_idToken(self):
        """Identity tokens are signed with the key that is published."""
        token = self.ask("/machine/id-token", Audience="app").json()["id_token"]
        header, claims, signature = (
            base64.urlsafe_b64decode(part + "==") for part in token.split(".")
        )
        keySet = json.loads(self.harness.client().get("/.well-known/jwks.json")[1])
        [key] = keySet["keys"]
        self.assertEqual(key["kid"], json.loads(header)["kid"])
        public = base64.urlsafe_b64decode(key["x"] + "==")
        Ed25519PublicKey.from_public_bytes(public).verify(
            signature, token.rpartition(".")[0].encode()
        )
        told = json.loads(claims)
        self.assertEqual(["app"], told["aud"])
        self.assertEqual("n.tailnet.test", told["sub"])
        self.assertEqual(1767225600 + 300, told["exp"])
        self.assertEqual(400, self.ask("/machine/id-token").status)
        path = "/.well-known/openid-configuration"
        found = json.loads(self.harness.client().get(path)[1])
        self.assertEqual(told["iss"], found["issuer"])

    def test_failNext(self):
        """A test may have requests fail, on either side."""
        self.server.failNext(
            "/machine/map", 429, "slow down", {"Retry-After": "7"}, times=2
        )
        for _ in range(2):
            response = self.node.map()
            self.assertEqual((429, "slow down"), (response.status, response.text))
            self.assertEqual("7", response.headers["retry-after"])
        self.assertEqual(200, self.node.map().status)
        self.server.failNext("/key", 503)
        self.assertEqual(503, self.harness.client().get("/key")[0])
        self.assertEqual(200, self.harness.client().get("/key")[0])


class PingTests(SynchronousTestCase):
    """Tests for questions that the server asks."""

    def setUp(self):
        """Start a server with one node that listens."""
        self.harness = Harness()
        self.server = self.harness.server
        self.node = self.harness.node("n")
        self.harness.quiet(self.node)

    def question(self):
        """The ping that the node was sent, and the path to answer to."""
        [frame] = self.node.heard()
        self.assertTrue(frame["KeepAlive"])
        ping = frame["PingRequest"]
        self.assertTrue(ping["URL"].startswith(self.server.url + "/machine/"))
        self.assertTrue(ping["URLIsNoise"])
        return ping, ping["URL"].removeprefix(self.server.url)

    def test_alive(self):
        """A plain ping is answered by any request, over Noise or without."""
        for ask in (
            lambda path: self.node.client.request(path, method="HEAD").status,
            lambda path: self.harness.client().get(path, method="HEAD")[0],
        ):
            answer = self.server.pingNode("n")
            ping, path = self.question()
            self.assertNotIn("Types", ping)
            self.assertNoResult(answer)
            self.assertEqual(200, ask(path))
            self.assertIsNone(self.successResultOf(answer))
            self.assertEqual(404, ask(path))

    def test_pingPeer(self):
        """A node may be asked to ping another."""
        self.harness.node("p")
        self.harness.quiet(self.node)
        answer = self.server.pingNode("n", "disco,TSMP", "p")
        ping, path = self.question()
        self.assertEqual(("disco,TSMP", "100.64.0.2"), (ping["Types"], ping["IP"]))
        self.node.client.request(path, {"Type": "disco", "LatencySeconds": 0.5})
        self.assertEqual(0.5, self.successResultOf(answer).latencySeconds)

    def test_c2n(self):
        """A request travels to the node, and its response back."""
        answer = self.server.c2n("n", "/echo", method="POST", body=b"hello")
        ping, path = self.question()
        self.assertEqual("c2n", ping["Types"])
        request = base64.b64decode(ping["Payload"])
        self.assertTrue(request.startswith(b"POST /echo HTTP/1.1\r\n"))
        self.assertTrue(request.endswith(b"Content-Length: 5\r\n\r\nhello"))
        self.node.client.request(
            path, b"HTTP/1.1 200 OK\r\nConnection: close\r\nX-A: b\r\n\r\nhello"
        )
        response = self.successResultOf(answer)
        self.assertEqual((200, b"hello"), (response.status, response.body))
        self.assertEqual("b", response.headers["x-a"])

    def test_c2nChunked(self):
        """Chunked responses are put together."""
        response = parseC2NResponse(
            b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        self.assertEqual((400, b"abcde"), (response.status, response.body))

    def test_c2nMalformed(self):
        """A response that is none fails the question."""
        answer = self.server.c2n("n", "/echo")
        _, path = self.question()
        self.node.client.request(path, b"nonsense")
        self.failureResultOf(answer, ProtocolError)

    @given(st.binary(max_size=80))
    @settings(max_examples=60, deadline=None)
    def test_c2nAnyBytes(self, data):
        """Whatever a node answers, only C{ProtocolError} comes out."""
        try:
            parseC2NResponse(b"HTTP/1.1 200 OK\r\n" + data)
        except ProtocolError:
            pass

    def test_timeout(self):
        """A question that is not answered fails in time."""
        answer = self.server.pingNode("n", timeout=5)
        self.harness.advance(4)
        self.assertNoResult(answer)
        self.harness.advance(1)
        self.failureResultOf(answer, TimeoutError)

    def test_cancelled(self):
        """A question may be withdrawn."""
        answer = self.server.pingNode("n")
        _, path = self.question()
        answer.cancel()
        self.failureResultOf(answer)
        self.assertEqual(404, self.node.client.request(path).status)

    def test_notThere(self):
        """Only nodes that listen can be asked."""
        self.assertRaises(UnknownPeer, self.server.pingNode, "else")
        self.node.client.close()
        self.failureResultOf(self.server.pingNode("n"), NotRunning)
        self.failureResultOf(self.server.c2n("n", "/echo"), NotRunning)

    def test_stop(self):
        """Open questions fail when the server stops."""
        answer = self.server.pingNode("n")
        self.harness.stop()
        self.failureResultOf(answer, ConnectionLost)


class ServiceTests(SynchronousTestCase):
    """Tests for starting and stopping."""

    def test_interface(self):
        """The server is a service."""
        verifyObject(IService, ControlServer(Clock(), TCP4ServerEndpoint(None, 0)))

    def test_listening(self):
        """The URL is that of the port."""
        harness = Harness(start=False)
        server = harness.server
        self.assertRaises(NotRunning, lambda: server.url)
        self.failureResultOf(server.whenListening(), NotRunning)
        server.startService()
        self.assertEqual(
            "http://127.0.0.1:8080", self.successResultOf(server.whenListening())
        )
        [[port, _, _, interface]] = harness.reactor.tcpServers
        self.assertEqual((8080, "127.0.0.1"), (port, interface))

    def test_configuredURL(self):
        """A configured URL is given to clients instead."""
        server = Harness(ControlConfig(url="https://control.example/")).server
        self.assertEqual("https://control.example", server.url)

    def test_slowListening(self):
        """Whoever waits for a slow endpoint is told the outcome."""

        class Slow:
            def listen(self, factory):
                self.result = Deferred()
                return self.result

        for outcome in (CannotListenError("127.0.0.1", 1, OSError()), None):
            endpoint = Slow()
            server = ControlServer(Clock(), endpoint)
            server.startService()
            waiting, withdrawn = server.whenListening(), server.whenListening()
            withdrawn.cancel()
            self.failureResultOf(withdrawn)
            if outcome is None:
                self.successResultOf(server.stopService())
                self.failureResultOf(waiting, NotRunning)
            else:
                endpoint.result.errback(outcome)
                self.failureResultOf(waiting, CannotListenError)
                self.failureResultOf(server.whenListening(), CannotListenError)
                self.successResultOf(server.stopService())

    def test_stopLeavesNothing(self):
        """After stopping, no connection and no delayed call is left."""
        harness = Harness(ControlConfig(keepAlive=(1, 2)))
        key = harness.server.createAuthKey(ephemeral=True, reusable=True).text
        nodes = [harness.node("a"), harness.node("e", key), harness.node("b")]
        nodes[1].client.close()
        nodes[2].client.acknowledging = False
        harness.server.setExpiry("a", 1767225600 + 10_000)
        harness.server.setHealth("x" * 1_000_000)
        harness.client().http(b"GET / HT")
        waiting = RawNode(harness, "w")
        url = waiting.register().json()["AuthURL"]
        waiting.register(Followup=url)
        harness.settle()
        self.assertEqual([], harness.stop())
        self.assertTrue(all(client.pipe.closed for client in harness.clients))

    def test_again(self):
        """The state survives a restart, and the key stays."""
        harness = Harness()
        node = harness.node("n")
        harness.stop()
        self.assertRaises(NotRunning, lambda: harness.server.url)
        harness.server.startService()
        self.assertEqual(harness.key, harness.server.publicKey)
        node.connect()
        self.assertEqual("n.tailnet.test.", node.listen()["Node"]["Name"])
        self.assertEqual([], harness.stop())

    def test_dropConnections(self):
        """All clients are cut off, and may come back."""
        harness = Harness()
        node = harness.node("n")
        self.successResultOf(harness.server.dropConnections())
        self.assertTrue(node.client.pipe.closed)
        self.successResultOf(harness.server.dropConnections())
        node.connect()
        self.assertEqual(1, node.listen()["Node"]["ID"])

    def test_badPolicy(self):
        """A malformed policy is refused before anything starts."""
        from tsrt.testing.policy import PolicyError

        config = ControlConfig(policy='{"acls": 1}')
        self.assertRaises(PolicyError, ControlServer, Clock(), 0, config)

    def test_failedPolicyChangesNothing(self):
        """A policy that is refused leaves the one before in force."""
        from tsrt.testing.policy import PolicyError

        harness = Harness()
        node = harness.node("n")
        harness.quiet(node)
        for text in (
            "{",
            '{"acls": [], "tests": [{"src": "a@b", "accept": ["tag:x:1"]}]}',
        ):
            self.assertRaises(PolicyError, harness.server.setPolicy, text)
        harness.settle()
        self.assertEqual([], node.heard())

    def test_wallClock(self):
        """Simulated clocks show a plausible date, real ones the true one."""
        clock = Clock()
        self.assertEqual(1767225600.0, wallClock(clock)())
        clock.rightNow = 1.8e9
        self.assertEqual(1.8e9, wallClock(clock)())

    def test_secrets(self):
        """Neither auth keys nor private keys appear in logs or descriptions."""
        observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        harness = Harness()
        key = harness.server.createAuthKey(reusable=True)
        node = harness.node("n", key.text)
        node.register("tskey-wrong")
        node.client.pipe.send(b"\x04\x00\x05hello")
        harness.stop()
        shown = repr(
            [*observer, key, harness.server.config, harness.server._core.tailnet]
        )
        for secret in (key.text, "tskey-wrong", harness.server._key.raw.hex()):
            self.assertNotIn(secret, shown)


class SimulatedInternetTests(SynchronousTestCase):
    """Tests on hosts of a simulated internet."""

    def test_overTheInternet(self):
        """The server listens on a simulated host, and clients connect to it."""
        clock = Clock()
        internet = MemoryInternet(clock, seed=1)
        host = internet.host("control", ["192.0.2.1"])
        endpoint = TCP4ServerEndpoint(host, 80, interface="192.0.2.1")
        server = ControlServer(host, endpoint, randbytes=Random())
        server.startService()
        url = self.successResultOf(server.whenListening())
        self.assertEqual("http://192.0.2.1:80", url)
        from twisted.web.client import Agent, readBody

        internet.register("control.example", "192.0.2.1")
        client = internet.host("client", ["198.51.100.1"])
        fetched = Agent(client).request(b"GET", b"http://control.example/key?v=145")
        fetched.addCallback(readBody)
        pump(clock, fetched)
        body = json.loads(self.successResultOf(fetched))
        self.assertEqual(server.publicKey.text(), body["publicKey"])
        stopped = server.stopService()
        pump(clock, stopped)
        self.assertEqual([], [call for call in host.getDelayedCalls() if call.active()])


class RealReactorTests(TestCase):
    """Tests on real sockets."""

    async def test_loopback(self):
        """The server listens on a free port of loopback."""
        from twisted.internet import reactor
        from twisted.web.client import Agent, readBody

        key = MachineKey.generate(Random())
        server = ControlServer(reactor, config=ControlConfig(key=key))
        server.startService()
        try:
            url = await server.whenListening()
            self.assertRegex(url, "^http://127.0.0.1:[0-9]+$")
            response = await Agent(reactor).request(b"GET", url.encode() + b"/key")
            body = json.loads(await readBody(response))
            self.assertEqual(key.public().text(), body["publicKey"])
        finally:
            await server.stopService()

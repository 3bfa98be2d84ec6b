"""
Tests for L{tsrt.testing.derp}: what the relay does that clients of ours do not
bring about, and that it serves real sockets.
"""

from __future__ import annotations

import json
from pathlib import Path

from twisted.internet import reactor as realReactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tsrt.crypto.box import Box, openFrom, sealTo
from tsrt.derp.pool import RelayEvents, RelayPool
from tsrt.errors import NotRunning
from tsrt.keys import NodeKey
from tsrt.tailcfg import DERPMap, DERPRegion
from tsrt.test.relayworld import HOME, World
from tsrt.testing.certificates import selfSigned
from tsrt.testing.derp import DERPServer, Duplicates
from tsrt.testing.derpclient import (
    LOGIN_TIMEOUT,
    QUEUE_LIMIT,
    WRITE_TIMEOUT,
    Phase,
)
from tsrt.underlay.dial import StreamDialer
from tsrt.wire import derp
from tsrt.wire.derp import FrameSplitter, FrameType, PeerGoneReason
from tsrt.wire.derpinfo import ClientInfo, ServerInfo

VECTORS = json.loads(
    (Path(__file__).parent / "vectors" / "vectors.json").read_text("utf-8")
)["vectors"]["derp_client_info"]

UPGRADE = b"GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n"
DISCO = b"TS\xf0\x9f\x92\xac" + bytes(60)


class Raw(Protocol):
    """A client that says what it is told to, and keeps what it hears."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None
        self.splitter = FrameSplitter()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason

    def frames(self) -> list[tuple[int, bytes]]:
        """The frames that came since the last call."""
        data, self.data = self.data, b""
        return self.splitter.feed(data)


class ServerTestCase(SynchronousTestCase):
    """A relay without TLS."""

    settings: dict[str, object] = {}

    def setUp(self) -> None:
        self.world = World()
        self.host, self.server = self.world.relay(**self.settings)
        self.clientHost = self.world.internet.host("client")

    def raw(self) -> Raw:
        """A plain connection."""
        endpoint = TCP4ClientEndpoint(self.clientHost, self.host.addresses[0], 443)
        return self.world.result(endpoint.connect(Factory.forProtocol(Raw)))

    def ask(self, request: bytes) -> str:
        """What is answered to a request."""
        raw = self.raw()
        raw.transport.write(request)
        self.world.elapse(0.1)
        self.lastRaw = raw
        return raw.data.decode("latin-1")

    def upgraded(self) -> Raw:
        """A connection that has turned into DERP."""
        raw = self.raw()
        raw.transport.write(UPGRADE + b"Derp-Fast-Start: 1\r\n\r\n")
        self.world.elapse(0.1)
        return raw

    def client(self, key: NodeKey | None = None, info: bytes | None = None) -> Raw:
        """A connection that has logged in."""
        raw = self.upgraded()
        raw.key = key or NodeKey.generate(self.world.randbytes)
        raw.public = raw.key.public().raw
        [(kind, payload)] = raw.frames()
        self.assertEqual(kind, FrameType.SERVER_KEY)
        raw.box = Box(raw.key.raw, derp.parseServerKey(payload))
        sealed = sealTo(raw.box, info or ClientInfo().encode(), self.world.randbytes)
        raw.transport.write(derp.buildClientInfo(raw.public, sealed))
        self.world.elapse(0.1)
        return raw

    def served(self, key: NodeKey | None = None) -> Raw:
        """A connection that was let in."""
        raw = self.client(key)
        [(kind, payload)] = raw.frames()
        self.assertEqual(kind, FrameType.SERVER_INFO)
        raw.info = ServerInfo.decode(openFrom(raw.box, payload))
        return raw

    def send(self, sender: Raw, destination: bytes, *packets: bytes) -> None:
        """Send packets."""
        for packet in packets:
            sender.transport.write(derp.buildSendPacket(destination, packet))
        self.world.elapse(0.1)


class HTTPTests(ServerTestCase):
    """The small pages beside the relay."""

    def test_upgrade(self) -> None:
        """The answer to an upgrade tells version and key."""
        answer = self.ask(UPGRADE + b"\r\n")
        head, _, rest = answer.partition("\r\n\r\n")
        lines = head.split("\r\n")
        self.assertEqual(lines[0], "HTTP/1.1 101 Switching Protocols")
        self.assertIn("Upgrade: DERP", lines)
        self.assertIn("Derp-Version: 2", lines)
        self.assertIn(f"Derp-Public-Key: {self.server.publicKey.hex()}", lines)
        self.assertEqual(
            FrameSplitter().feed(rest.encode("latin-1")),
            [(FrameType.SERVER_KEY, derp.MAGIC + self.server.publicKey)],
        )

    def test_fastStart(self) -> None:
        """A fast start is answered with DERP alone."""
        answer = self.ask(UPGRADE + b"Derp-Fast-Start: 1\r\n\r\n")
        self.assertTrue(answer.startswith("\x01"))

    def test_noUpgrade(self) -> None:
        """Without an upgrade there is no DERP."""
        answer = self.ask(b"GET /derp HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(answer.startswith("HTTP/1.1 426 "))
        self.assertIn("DERP requires connection upgrade", answer)

    def test_webSocket(self) -> None:
        """WebSocket is known, and not served."""
        answer = self.ask(UPGRADE.replace(b"DERP", b"websocket") + b"\r\n")
        self.assertTrue(answer.startswith("HTTP/1.1 501 "))

    def test_latencyCheck(self) -> None:
        """Probes are answered, several on one connection."""
        for path in (b"/derp/latency-check", b"/derp/probe"):
            request = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"
            answer = self.ask(request * 2)
            self.assertEqual(answer.count("HTTP/1.1 200 OK\r\n"), 2)
            self.assertEqual(answer.count("Access-Control-Allow-Origin: *"), 2)
            self.assertIsNone(self.lastRaw.lost)
        self.assertEqual(self.server.requests["/derp/probe"], 2)

    def test_methods(self) -> None:
        """Probes are for GET and HEAD."""
        for method, status in ((b"HEAD", "200"), (b"PUT", "405"), (b"POST", "405")):
            answer = self.ask(method + b" /derp/probe HTTP/1.1\r\n\r\n")
            self.assertTrue(answer.startswith(f"HTTP/1.1 {status} "), answer)

    def test_generate204(self) -> None:
        """The portal check answers a challenge, if it is a decent one."""
        request = b"GET /generate_204 HTTP/1.1\r\nX-Tailscale-Challenge: %s\r\n\r\n"
        answer = self.ask(request % b"ts_a.b:c-1")
        self.assertTrue(answer.startswith("HTTP/1.1 204 "))
        self.assertIn("X-Tailscale-Response: response ts_a.b:c-1\r\n", answer)
        self.assertIn("no-store", answer)
        self.assertNotIn("Content-Length", answer)
        for wrong in (b"a b", b"x" * 65, b"<x>"):
            self.assertNotIn("X-Tailscale-Response", self.ask(request % wrong))

    def test_otherPages(self) -> None:
        """There is a page, and there are others that are not there."""
        for path, status in (
            (b"/", "200"),
            (b"/robots.txt", "200"),
            (b"/bootstrap-dns?q=x", "200"),
            (b"/else", "404"),
        ):
            answer = self.ask(b"GET " + path + b" HTTP/1.1\r\n\r\n")
            self.assertTrue(answer.startswith(f"HTTP/1.1 {status} "), path)

    def test_closes(self) -> None:
        """A connection ends when the client asks, or sends what we do not take."""
        for extra in (b"Connection: close", b"Content-Length: 5"):
            self.ask(b"GET / HTTP/1.1\r\n" + extra + b"\r\n\r\n")
            self.assertIsNotNone(self.lastRaw.lost)

    def test_malformed(self) -> None:
        """Nonsense is answered with 400."""
        for request in (
            b"nonsense\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"x" * 20_000,
        ):
            self.assertTrue(self.ask(request).startswith("HTTP/1.1 400 "))
            self.assertIsNotNone(self.lastRaw.lost)


class LoginTests(ServerTestCase):
    """Who is let in."""

    def test_vector(self) -> None:
        """The published login opens with the published key."""
        self.server.privateRaw = bytes.fromhex(VECTORS["server_private"])
        raw = self.upgraded()
        raw.transport.write(bytes.fromhex(VECTORS["client_info_frame"]))
        self.world.elapse(0.1)
        [connection] = self.server.clients()
        self.assertEqual(connection.key.hex(), VECTORS["client_public"])
        self.assertEqual(connection.info, ClientInfo())

    def test_admission(self) -> None:
        """The admission function decides, at once or later."""
        asked: list[tuple[object, object]] = []
        answer: Deferred[bool] = Deferred()

        def admit(key: object, address: object) -> Deferred[bool]:
            asked.append((key, address))
            return answer

        self.server.admit = admit
        raw = self.client()
        self.send(raw, raw.public, b"early")
        self.assertEqual(raw.frames(), [])
        answer.callback(True)
        self.world.elapse(0.1)
        self.assertEqual(
            [kind for kind, _ in raw.frames()],
            [FrameType.SERVER_INFO, FrameType.RECV_PACKET],
        )
        self.assertEqual(asked[0][0], raw.key.public())
        self.assertEqual(asked[0][1].host, self.clientHost.addresses[0])

    def test_refused(self) -> None:
        """Who is not admitted is hung up on."""
        self.server.admit = lambda key, address: succeed(False)
        raw = self.client()
        self.assertIsNotNone(raw.lost)
        self.assertEqual(self.server.counters.refused, 1)
        self.assertEqual(self.server.clients(), [])

    def test_failingAdmission(self) -> None:
        """A failing admission is logged, and admits nobody."""

        def admit(key: object, address: object) -> bool:
            raise ZeroDivisionError

        self.server.admit = admit
        self.assertIsNotNone(self.client().lost)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_wrongBox(self) -> None:
        """A login that was sealed by another key is no login."""
        raw = self.upgraded()
        key = NodeKey.generate(self.world.randbytes)
        sealed = sealTo(
            Box(key.raw, self.server.publicKey), b"{}", self.world.randbytes
        )
        raw.transport.write(derp.buildClientInfo(bytes(31) + b"\x09", sealed))
        self.world.elapse(0.1)
        self.assertIsNotNone(raw.lost)
        self.assertEqual(self.server.counters.malformed, 1)

    def test_noLogin(self) -> None:
        """Who speaks without logging in, or not at all, is hung up on."""
        raw = self.upgraded()
        raw.transport.write(derp.buildPing(bytes(8)))
        silent = self.upgraded()
        self.world.elapse(0.2)
        self.assertIsNotNone(raw.lost)
        self.assertIsNone(silent.lost)
        self.world.elapse(LOGIN_TIMEOUT)
        self.assertIsNotNone(silent.lost)

    def test_rateLimit(self) -> None:
        """The rate that clients are asked for is told."""
        self.server.info = ServerInfo(
            tokenBucketBytesPerSecond=5, tokenBucketBytesBurst=6
        )
        self.assertEqual(self.served().info, self.server.info)

    def test_earlyFramesAreBounded(self) -> None:
        """While the admission takes its time only so much is kept."""
        answer: Deferred[bool] = Deferred()
        self.server.admit = lambda key, address: answer
        raw = self.client()
        self.send(raw, raw.public, *[b"x"] * 100)
        self.assertEqual(self.server.counters.droppedEarly, 100 - QUEUE_LIMIT)
        raw.transport.abortConnection()
        self.world.elapse(0.1)
        answer.callback(True)
        self.assertEqual(self.server.clients(), [])


class RelayTests(ServerTestCase):
    """What happens to packets."""

    def test_unknownFramesAreSkipped(self) -> None:
        """Clients may know frames that the server does not."""
        raw = self.served()
        raw.transport.write(
            derp.encodeFrame(0x77, b"new") + derp.buildPing(b"12345678")
        )
        self.world.elapse(0.1)
        self.assertEqual(raw.frames(), [(FrameType.PONG, b"12345678")])

    def test_longPing(self) -> None:
        """A long ping is answered with its first eight bytes."""
        raw = self.served()
        raw.transport.write(derp.encodeFrame(FrameType.PING, b"12345678" * 100))
        self.world.elapse(0.1)
        self.assertEqual(raw.frames(), [(FrameType.PONG, b"12345678")])

    def test_notePreferred(self) -> None:
        """A client's home is remembered."""
        raw = self.served()
        raw.transport.write(derp.buildNotePreferred(True))
        self.world.elapse(0.1)
        self.assertTrue(self.server.clients()[0].isHome)

    def test_peerGoneOnlyForDisco(self) -> None:
        """Only disco to nobody is answered, and not more than three times."""
        raw = self.served()
        self.send(raw, bytes(32), b"data", DISCO, DISCO, DISCO, DISCO)
        gone = (FrameType.PEER_GONE, bytes(32) + b"\x01")
        self.assertEqual(raw.frames(), [gone] * 3)
        self.assertEqual(self.server.counters.droppedUnknown, 5)
        self.world.elapse(1.0)
        self.send(raw, bytes(32), DISCO, DISCO)
        self.assertEqual(raw.frames(), [gone])

    def test_peerGoneAtTheEnd(self) -> None:
        """Whom a client wrote to hears of its end; others do not."""
        alice, bob, carol = self.served(), self.served(), self.served()
        self.send(alice, bob.public, b"x")
        bob.frames()
        alice.transport.loseConnection()
        self.world.elapse(0.1)
        reason = bytes((PeerGoneReason.DISCONNECTED,))
        self.assertEqual(bob.frames(), [(FrameType.PEER_GONE, alice.public + reason)])
        self.assertEqual(carol.frames(), [])

    def test_lastActive(self) -> None:
        """Of several connections of a key the one that spoke last is served."""
        key = NodeKey.generate(self.world.randbytes)
        one, two, sender = self.served(key), self.served(key), self.served()
        self.send(sender, one.public, b"1")
        self.assertEqual((len(one.frames()), len(two.frames())), (0, 1))
        self.send(one, sender.public, b"active")
        self.assertEqual([kind for kind, _ in sender.frames()], [FrameType.RECV_PACKET])
        self.send(sender, one.public, b"2")
        self.assertEqual((len(one.frames()), len(two.frames())), (1, 0))
        one.transport.loseConnection()
        self.world.elapse(0.1)
        self.send(sender, one.public, b"3")
        self.assertEqual(len(two.frames()), 1)
        self.assertEqual(sender.frames(), [])
        two.transport.loseConnection()
        self.world.elapse(0.1)
        self.assertEqual(sender.frames(), [(FrameType.PEER_GONE, one.public + b"\0")])

    def test_disabledFighters(self) -> None:
        """Connections that take turns get nothing, and are told so."""
        self.server.duplicates = Duplicates.DISABLE_FIGHTERS
        key = NodeKey.generate(self.world.randbytes)
        one, two, sender = self.served(key), self.served(key), self.served()
        for fighter in (one, two, one):
            self.send(fighter, bytes(32), b"x")
        self.assertEqual([k for k, _ in one.frames()], [FrameType.HEALTH])
        self.assertEqual([k for k, _ in two.frames()], [FrameType.HEALTH])
        self.send(sender, one.public, b"x")
        self.assertEqual((one.frames(), two.frames()), ([], []))
        self.assertEqual(self.server.counters.droppedDisabled, 1)
        two.transport.loseConnection()
        self.world.elapse(0.1)
        self.send(sender, one.public, b"x")
        self.assertEqual(len(one.frames()), 1)

    def test_meshFramesAreRefused(self) -> None:
        """There is no mesh, so who asks for one is hung up on."""
        for frame in (
            derp.buildWatchConns(),
            derp.buildClosePeer(bytes(32)),
            derp.buildForwardPacket(bytes(32), bytes(32), b"x"),
        ):
            raw = self.served()
            raw.transport.write(frame)
            self.world.elapse(0.1)
            self.assertIsNotNone(raw.lost)

    def test_oversized(self) -> None:
        """A packet that is too long ends the connection."""
        raw = self.served()
        self.send(raw, raw.public, bytes(65537))
        self.assertIsNotNone(raw.lost)

    def test_keepAlive(self) -> None:
        """Clients hear something every minute or so."""
        raw = self.served()
        self.world.elapse(600)
        kinds = [kind for kind, _ in raw.frames()]
        self.assertEqual(set(kinds), {FrameType.KEEP_ALIVE})
        self.assertTrue(9 <= len(kinds) <= 10)

    def test_queues(self) -> None:
        """Of what waits for a slow client the oldest is dropped, by kind."""
        slow, sender = self.served(), self.served()
        [connection] = self.server.clients(slow.public)
        connection.pauseProducing()
        for number in range(40):
            marked = DISCO + bytes((number,))
            self.send(sender, slow.public, marked, b"%02d" % number)
            connection._cancelStuck()
        self.assertEqual(self.server.counters.droppedFull, 2 * (40 - QUEUE_LIMIT))
        connection.resumeProducing()
        self.world.elapse(0.1)
        packets = [payload[32:] for _, payload in slow.frames()]
        self.assertEqual(len(packets), 2 * QUEUE_LIMIT)
        others = [p for p in packets if len(p) == 2]
        self.assertEqual(others, [b"%02d" % n for n in range(8, 40)])
        # In turns: neither kind waits for all of the other.
        self.assertEqual({len(p) for p in packets[:2]}, {2, len(DISCO) + 1})

    def test_stuckClient(self) -> None:
        """A client that takes nothing for two seconds is hung up on."""
        slow, sender = self.served(), self.served()
        slow.transport.pauseProducing()
        for _ in range(12):
            self.send(sender, slow.public, bytes(60_000))
        self.world.elapse(WRITE_TIMEOUT + 1)
        self.assertEqual(self.server.counters.stuck, 1)
        self.assertEqual(self.server.clients(slow.public), [])


class LifeTests(ServerTestCase):
    """Start and stop."""

    def test_stop(self) -> None:
        """After the stop nothing is open, whatever the clients do."""
        raw = self.served()
        self.upgraded()
        self.world.result(self.server.stopService())
        self.world.elapse(0.1)
        self.assertEqual(list(self.host.getDelayedCalls()), [])
        self.assertEqual((self.host.ports, self.host.streams), ([], []))
        self.assertIsNotNone(raw.lost)
        self.assertRaises(NotRunning, lambda: self.server.port)

    def test_startAgain(self) -> None:
        """A stopped relay can be started again, on the same port."""
        self.world.result(self.server.stopService())
        self.failureResultOf(self.server.whenListening(), NotRunning)
        self.server.startService()
        self.assertEqual(self.world.result(self.server.whenListening()), 443)
        self.served()

    def test_cannotListen(self) -> None:
        """A port that is taken is told by whenListening."""
        other = DERPServer(self.host, TCP4ServerEndpoint(self.host, 443))
        other.startService()
        self.failureResultOf(other.whenListening())
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.successResultOf(other.stopService())

    def test_node(self) -> None:
        """The relay describes itself for a map."""
        node = self.server.node(7, "relay.example.com", ipv4="192.0.2.1", stunPort=9)
        self.assertEqual((node.name, node.regionID, node.derpPort), ("7a", 7, 443))
        self.assertEqual((node.ipv6, node.stunPort), ("none", 9))
        self.assertTrue(node.insecureForTests)

    def test_phase(self) -> None:
        """A connection knows how far it has come."""
        self.served()
        [connection] = self.server.clients()
        self.assertIs(connection.phase, Phase.SERVING)


class LoopbackTests(TestCase):
    """The relay and its client on real sockets."""

    timeout = 20

    def relay(self, **settings) -> DERPServer:
        """A running relay on a free port of this machine."""
        server = DERPServer(
            realReactor,
            TCP4ServerEndpoint(realReactor, 0, interface="127.0.0.1"),
            **settings,
        )
        server.startService()
        self.addCleanup(server.stopService)
        return server

    async def exchange(self, server: DERPServer, plain: bool) -> list[bytes]:
        """Send a large batch from one client to another; what arrives."""
        await server.whenListening()
        node = server.node(HOME, "127.0.0.1", ipv4="127.0.0.1")
        derpMap = DERPMap(regions={HOME: DERPRegion(regionID=HOME, nodes=[node])})
        arrived: list[bytes] = []
        done: Deferred[None] = Deferred()
        ready: Deferred[None] = Deferred()

        def onPackets(region: int, source: bytes, packets: list[bytes]) -> None:
            arrived.extend(packets)
            if len(arrived) == 20:
                done.callback(None)

        pools = []
        for events in (
            RelayEvents(onConnected=lambda region: None),
            RelayEvents(
                onPackets=onPackets,
                onConnected=lambda region: ready.callback(None),
            ),
        ):
            key = NodeKey.generate(server.randbytes)
            pool = RelayPool(
                realReactor, StreamDialer(realReactor), key, events, plain=plain
            )
            pool.setMap(derpMap)
            pool.setHome(HOME)
            pool.startService()
            self.addCleanup(pool.stopService)
            pools.append((pool, key.public().raw))
        await ready
        pools[0][0].send(
            HOME, pools[1][1], [b"%04d" % n + bytes(60000) for n in range(20)]
        )
        await done
        return [packet[:4] for packet in arrived]

    def test_plain(self) -> Deferred[None]:
        """Packets pass over plain connections."""
        return Deferred.fromCoroutine(self.exchange(self.relay(), True)).addCallback(
            self.assertEqual, [b"%04d" % n for n in range(20)]
        )

    def test_tls(self) -> Deferred[None]:
        """Packets pass over TLS with a fast start."""
        server = self.relay(certificate=selfSigned(["127.0.0.1"]))
        return Deferred.fromCoroutine(self.exchange(server, False)).addCallback(
            self.assertEqual, [b"%04d" % n for n in range(20)]
        )

    def test_stopsCleanly(self) -> Deferred[None]:
        """A relay with a client that says nothing stops all the same."""

        async def run() -> None:
            server = self.relay()
            port = await server.whenListening()
            raw = await TCP4ClientEndpoint(realReactor, "127.0.0.1", port).connect(
                Factory.forProtocol(Raw)
            )
            raw.transport.write(UPGRADE + b"\r\n")
            while not raw.data:
                await deferLater(realReactor, 0.005)
            await server.stopService()
            while raw.lost is None:
                await deferLater(realReactor, 0.005)

        return Deferred.fromCoroutine(run())

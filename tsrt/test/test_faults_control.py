"""
Control servers that are wrong, broken, malicious, or no control servers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import TCP4ServerEndpoint, wrapServerTLS
from twisted.internet.protocol import Factory, Protocol

from tsrt.errors import (
    RegistrationRefused,
    StartupTimeout,
    TSRTError,
    WrongControlKey,
)
from tsrt.keys import MachineKey
from tsrt.runtime.status import NodeState
from tsrt.test.controlpeer import ControlPeer, keyAnswer, page
from tsrt.test.faultworld import FaultTestCase
from tsrt.test.test_node import NodeTestCase
from tsrt.testing.certificates import selfSigned
from tsrt.testing.tailnet import TestTailnet
from tsrt.wire.controlframe import encodeMapFrame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PORTAL = b"<html><title>Hotel</title><body>Please log in.</body></html>"
OTHER_ADDRESS = "192.168.251.1"
OTHER_URL = f"http://{OTHER_ADDRESS}"


class Front(Protocol):
    """Answers each HTTP request with bytes that a function chooses."""

    def __init__(self, answer: Callable[[str], bytes | None]) -> None:
        self._answer = answer
        self._buffer = b""

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if b"\r\n\r\n" in self._buffer:
            path = self._buffer.split(b" ")[1].decode("ascii")
            self._buffer = b""
            answer = self._answer(path)
            if answer is not None:
                self.transport.write(answer)
                self.transport.loseConnection()


def portal(path: str) -> bytes:
    """A login page, whatever is asked for."""
    return page(PORTAL, kind="text/html")


class StartTests(NodeTestCase):
    """A node that comes to the wrong place says what it found there."""

    def front(
        self,
        tailnet: TestTailnet,
        answer: Callable[[str], bytes | None],
        ports: tuple[int, ...] = (80, 443),
    ) -> None:
        """Answer by a function on a host of its own."""
        host = tailnet.internet.host("front", [OTHER_ADDRESS])
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: Front(answer)
        for number in ports:
            listening = TCP4ServerEndpoint(host, number, interface=OTHER_ADDRESS)
            port = self.successResultOf(listening.listen(factory))
            self.addCleanup(port.stopListening)

    def fails(self, tailnet: TestTailnet, kind: type[TSRTError]) -> tuple[str, str]:
        """What up() fails with and what the health says, for a new node."""
        node = tailnet.addNode("x", controlURL=OTHER_URL)
        with self.assertRaises(kind) as raised:
            tailnet.wait(node.up(), limit=120)
        text = str(raised.exception)
        health = " ".join(node.status.health)
        self.assertLess(len(text), 3000)
        calls = len(tailnet.hosts["x"].getDelayedCalls())
        self.assertLess(calls, 20)
        tailnet.wait(node.stopService())
        tailnet.elapse(60)
        self.assertEqual(tailnet.hosts["x"].getDelayedCalls(), [])
        self.assertEqual(tailnet.hosts["x"].streams, [])
        return text, health

    def test_portal(self) -> None:
        """A login page of the network instead of the control server."""
        tailnet = self.tailnet()
        self.front(tailnet, portal)
        text, health = self.fails(tailnet, StartupTimeout)
        self.assertIn("key", text)
        self.assertIn("login page", health)

    def test_redirect(self) -> None:
        """A redirect of everything to elsewhere is not followed."""
        tailnet = self.tailnet()
        asked = []

        def answer(path: str) -> bytes:
            asked.append(path)
            return page(b"", "302 Found", headers="Location: http://evil.test/\r\n")

        self.front(tailnet, answer)
        text, health = self.fails(tailnet, StartupTimeout)
        self.assertIn("302", text)
        self.assertTrue(asked)
        self.assertTrue(health)

    def test_errorPages(self) -> None:
        """Each error page is named by its number."""
        for status in ("404 Not Found", "502 Bad Gateway", "503 Unavailable"):
            tailnet = TestTailnet()
            self.front(tailnet, lambda path, s=status: page(PORTAL, s, "text/html"))
            text, health = self.fails(tailnet, StartupTimeout)
            self.assertIn(status[:3], text)
            self.assertIn(status[:3], health)
            self.doCleanups()
            tailnet.close()

    def test_proxyStripsUpgrade(self) -> None:
        """A proxy that knows nothing of upgrades: the error names the header."""
        for status in ("200 OK", "400 Bad Request", "426 Upgrade Required"):
            tailnet = TestTailnet()
            key = keyAnswer(tailnet.control.publicKey)

            def answer(path: str, key: bytes = key, status: str = status) -> bytes:
                if path.startswith("/key"):
                    return key
                return page(PORTAL, status, "text/html")

            self.front(tailnet, answer)
            text, health = self.fails(tailnet, StartupTimeout)
            self.assertIn("Upgrade", health)
            self.assertIn("Noise", text)
            self.doCleanups()
            tailnet.close()

    def impostor(self, tailnet: TestTailnet) -> ControlPeer:
        """A server that publishes a key which it does not have."""
        peer = ControlPeer()
        self.published = MachineKey.generate(peer.randbytes)
        peer.keyAnswer = keyAnswer(self.published.public())
        host = tailnet.internet.host("impostor", [OTHER_ADDRESS])
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: peer.build()
        for number in (80, 443):
            listening = TCP4ServerEndpoint(host, number, interface=OTHER_ADDRESS)
            port = self.successResultOf(listening.listen(factory))
            self.addCleanup(port.stopListening)
        return peer

    def test_keyOfAnother(self) -> None:
        """A server that cannot read the handshake hangs up; the key is suspected."""
        tailnet = self.tailnet()
        peer = self.impostor(tailnet)
        text, health = self.fails(tailnet, StartupTimeout)
        self.assertIn("Noise", text)
        self.assertIn("does not have the key that it publishes", health)
        self.assertLess(len(peer.heads), 200)

    def test_wrongControlKey(self) -> None:
        """A server that answers with a wrong key ends the attempt for good."""
        tailnet = self.tailnet()
        peer = self.impostor(tailnet)
        other = MachineKey.generate(peer.randbytes).public()
        peer.handshakeAnswer = b"\x02\x00\x30" + other.raw + bytes(16)
        peer.noiseKey = self.published
        node = tailnet.addNode("x", controlURL=OTHER_URL)
        with self.assertRaises(WrongControlKey) as raised:
            tailnet.wait(node.up(), limit=120)
        self.assertIn("login server", raised.exception.describe())
        self.assertIs(node.status.state, NodeState.STOPPED)
        heads = len(peer.heads)
        tailnet.elapse(300)
        self.assertEqual(len(peer.heads), heads)

    def test_keyAnswers(self) -> None:
        """Answers to the question for the key that are none."""
        for body in (
            b"",
            b"{",
            b"[]",
            b'{"publicKey": 3}',
            b'{"publicKey": "mkey:12"}',
            b"[" * 100_000,
            b"x" * 3_000_000,
            b'{"publicKey": "' + b"\xff" * 100 + b'"}',
        ):
            tailnet = TestTailnet()
            self.front(tailnet, lambda path, body=body: page(body))
            text, _ = self.fails(tailnet, TSRTError)
            self.assertTrue(text)
            self.doCleanups()
            tailnet.close()

    def test_silence(self) -> None:
        """Something that takes connections and says nothing."""
        tailnet = self.tailnet()
        self.front(tailnet, lambda path: None)
        text, _ = self.fails(tailnet, StartupTimeout)
        self.assertIn("TCP: ok", text)
        self.assertIn("key", text)

    def test_refusedInWords(self) -> None:
        """The server's own words for a refusal come through, and it is final."""
        tailnet = self.tailnet()
        tailnet.control.failNext(
            "/machine/register", 403, "no laptops on Sundays", times=50
        )
        node = tailnet.addNode("x")
        with self.assertRaises(RegistrationRefused) as raised:
            tailnet.wait(node.up())
        self.assertIn("no laptops on Sundays", str(raised.exception))
        self.assertIs(node.status.state, NodeState.STOPPED)

    def test_registerTrouble(self) -> None:
        """Errors of the server itself are waited out."""
        tailnet = self.tailnet()
        for status, message in (
            (500, PORTAL.decode()),
            (502, ""),
            (503, "x" * 3000),
            (429, "slow down"),
        ):
            tailnet.control.failNext("/machine/register", status, message)
        node = tailnet.addNode("x")
        tailnet.elapse(0.5)
        self.assertIn("HTTP", " ".join(node.status.health))
        tailnet.wait(node.up())
        self.assertEqual(node.status.health, ())

    def clock(self, offset: float, **certificate: object) -> tuple[str, str]:
        """
        What a node says whose clock is off, of a server with a certificate.

        Certificates are judged by the machine's clock, so it is the server's
        idea of the time that is different here.
        """
        tailnet = self.tailnet()
        from email.utils import formatdate

        made = selfSigned([OTHER_ADDRESS], **certificate)
        date = formatdate(tailnet.clock.seconds() - offset, usegmt=True)

        def answer(path: str) -> bytes:
            return page(b"{}", headers=f"Date: {date}\r\n")

        host = tailnet.internet.host("front", [OTHER_ADDRESS])
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: Front(answer)
        listening = wrapServerTLS(
            made.serverTLS(),
            TCP4ServerEndpoint(host, 443, interface=OTHER_ADDRESS),
            clock=host,
        )
        port = self.successResultOf(listening.listen(factory))
        self.addCleanup(port.stopListening)
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(made.pem)
        node = tailnet.addNode("x", controlURL=f"https://{OTHER_ADDRESS}", caFile=path)
        with self.assertRaises(StartupTimeout) as raised:
            tailnet.wait(node.up(), limit=120)
        return str(raised.exception), " ".join(node.status.health)

    def test_clockTwoDaysOff(self) -> None:
        """A clock that is off is named, with how much, and in which direction."""
        for offset, word in ((2 * 86400.0, "ahead"), (-2 * 86400.0, "behind")):
            text, health = self.clock(offset, expired=True)
            self.assertIn(f"your clock is off by 2 days ({word})", health)
            self.assertIn("Set the clock", health)
            self.assertIn("2 days", text)
            self.doCleanups()

    def test_certificateReallyExpired(self) -> None:
        """With a right clock it is the server's certificate that is at fault."""
        _, health = self.clock(0.0, expired=True)
        self.assertIn("has to be renewed", health)


class MapTests(FaultTestCase):
    """The control server of a running tailnet sends nonsense."""

    def setUp(self) -> None:
        self.makeTailnet()

    def poll(self, name: str = "a") -> object:
        """The map stream of a node at the server."""
        poll = self.net.control._core.polls.of(self.net.control.node(name))
        self.assertIsNotNone(poll)
        return poll

    def sendFrame(self, content: bytes, name: str = "a") -> None:
        """Send a frame with this content, well compressed."""
        self.poll(name)._write(encodeMapFrame(zstd.compress(content)))

    def sendDocument(self, document: object, name: str = "a") -> None:
        """Send JSON."""
        self.sendFrame(json.dumps(document).encode(), name)

    def assertRecovers(self, name: str = "a") -> None:
        """
        The stream broke, was told as a problem, and is there again.

        A change at control is heard of.
        """
        self.net.elapse(60)
        self.assertEqual(self.net[name].status.health, ())
        self.assertTrue(self.net.control.isListening(name))
        self.net.addNode("late", ephemeral=True)
        self.net.waitUp("late")
        self.net.elapse(2)
        hosts = [peer.hostname for peer in self.net[name].peers()]
        self.assertIn("late", hosts)
        self.assertInnocent()

    def breaks(self, frame: bytes) -> list[tuple[str, ...]]:
        """Send bytes in the map stream; return what users were told."""
        told: list[tuple[str, ...]] = []
        unwatch = self.net["a"].watchStatus(lambda status: told.append(status.health))
        self.poll()._stream.write(frame)
        self.net.elapse(3)
        unwatch()
        return told

    def test_notJSON(self) -> None:
        """Frames that hold no JSON object."""
        for content in (
            b"",
            b"hello",
            b"[]",
            b"3",
            b'"x"',
            b"{",
            b'{"Node": ',
            b"\xff\xfe\xfd",
            b"null",
            b"[" * 50_000,
            b'{"Peers":' + b"[" * 50_000,
        ):
            told = self.breaks(encodeMapFrame(zstd.compress(content)))
            texts = {text for health in told for text in health}
            self.assertTrue(
                any("control" in text for text in texts), (content[:20], texts)
            )
            self.net.elapse(60)
        self.assertRecovers()

    def test_notCompressed(self) -> None:
        """Frames that are no zstd, cut short, or go on behind their end."""
        good = zstd.compress(b'{"KeepAlive": true}')
        for content in (b"{}", good[:-3], good + b"x", good + good, b"\0" * 100):
            told = self.breaks(encodeMapFrame(content))
            self.assertTrue(any(told), content)
            self.net.elapse(60)
        self.assertRecovers()

    def test_truncated(self) -> None:
        """A stream that ends in the middle of a frame."""
        self.poll()._stream.write(encodeMapFrame(bytes(1000))[:500])
        self.net.elapse(1)
        self.net.control.closePoll("a")
        self.assertRecovers()

    def test_unfinishedFrame(self) -> None:
        """A frame that never ends is given up by the watchdog."""
        self.poll()._stream.write(encodeMapFrame(bytes(100_000))[:500])
        self.poll()._stopTimer()
        self.net.elapse(110)
        self.assertEqual(self.net["a"].status.health, ())
        self.assertRecovers()

    def test_oversized(self) -> None:
        """A frame that announces four gigabytes is not waited for."""
        told = self.breaks(b"\xff\xff\xff\xff" + bytes(1000))
        self.assertTrue(any(told))
        self.assertRecovers()

    def test_bomb(self) -> None:
        """A hundred megabytes in a few kilobytes are never unpacked."""
        compressor = zstd.ZstdCompressor(level=1)
        million = b" " * (1 << 20)
        bomb = b"".join(compressor.compress(million) for _ in range(100))
        bomb += compressor.flush()
        self.assertLess(len(bomb), 200_000)
        told = self.breaks(encodeMapFrame(bomb))
        texts = " ".join(text for health in told for text in health)
        self.assertIn("decompresses to more than", texts)
        self.assertRecovers()

    def test_unknownFields(self) -> None:
        """Fields that nobody knows are passed over, at any depth."""
        self.sendDocument(
            {
                "Zebra": [1, {"x": None}],
                "Health": None,
                "DNSConfig": {"Giraffe": {"a": 1}, "Proxied": True},
                "PeersChangedPatch": [{"NodeID": 2, "Lion": "roar"}],
                "UserProfiles": [{"ID": 1, "LoginName": "u", "Gnu": 3}],
            }
        )
        self.net.elapse(5)
        self.assertEqual(self.net["a"].status.health, ())
        self.assertTrue(self.net.control.isListening("a"))
        self.assertInnocent()

    def test_malformedPeers(self) -> None:
        """What is wrong with one peer rejects that peer alone."""
        [good] = self.net["a"].peers()
        key = "nodekey:" + "7" * 64
        self.sendDocument(
            {
                "PeersChanged": [
                    {"ID": 77, "Key": "nodekey:zz", "Name": "bad."},
                    {"ID": 78, "Key": key, "Addresses": ["300.1.1.1/99"]},
                    {"ID": 79, "Key": 3},
                    {"ID": "x"},
                    7,
                    None,
                    {"ID": 80, "Key": key, "AllowedIPs": "everything"},
                ],
                "PeersChangedPatch": [
                    {"NodeID": 999, "Key": key},
                    {"NodeID": good.id, "DERPRegion": "home"},
                    {"NodeID": good.id, "Key": "nope"},
                    5,
                ],
                "PeersRemoved": [1234, 5678],
                "PeerSeenChange": {"4711": True},
            }
        )
        self.net.elapse(5)
        self.assertEqual([p.hostname for p in self.net["a"].peers()], ["b"])
        self.assertInnocent()

    def test_T_keyCollision_peerWithOurKey(self) -> None:
        """Peers with this node's key or address, or with each other's, harm nobody."""
        own = self.net.control.node("a")
        theirs = self.net.control.node("b")
        for key in (own.nodeKey.text(), theirs.nodeKey.text()):
            for address in ("100.64.0.1/32", "100.64.0.2/32", "100.64.9.9/32"):
                self.sendDocument(
                    {
                        "PeersChanged": [
                            {
                                "ID": 70,
                                "StableID": "n70",
                                "Key": key,
                                "Name": "twin.tailnet.test.",
                                "Addresses": [address],
                                "AllowedIPs": [address],
                                "MachineAuthorized": True,
                            }
                        ]
                    }
                )
                self.net.elapse(3)
        self.sendDocument({"PeersRemoved": [70]})
        self.net.elapse(1)
        self.net.control.closePoll("a")
        self.net.elapse(30)
        self.assertFalse(self.flushLoggedErrors())
        self.assertInnocent(patience=90)

    def test_malformedSelf(self) -> None:
        """A map whose very node makes no sense is asked for anew, with patience."""
        asked = []
        told = type(self.poll()._told)
        first = told.first

        def spoiled(state: object) -> object:
            response = first(state)
            asked.append(self.net.clock.seconds())
            response.node.key = "nodekey:broken"
            return response

        self.patch(told, "first", spoiled)
        self.net.control.closePoll("a")
        self.net.elapse(60)
        self.assertGreater(len(asked), 3)
        self.assertLess(len(asked), 40)
        self.assertTrue(self.net["a"].status.health)
        self.assertEqual(self.net["a"].status.addresses[0], "100.64.0.1")
        self.patch(told, "first", first)
        self.assertRecovers()

    def test_noiseGarbage(self) -> None:
        """Bytes in the Noise connection that nobody sealed."""
        random = Random(1)
        for size in (1, 3, 100, 5000):
            for front in list(self.net.control._connections):
                front.transport.write(random.randbytes(size))
            self.net.elapse(30)
        self.net.elapse(130)
        self.assertRecovers()

    def test_errorPagesForTheMap(self) -> None:
        """Minutes of HTTP errors for the map leave the netmap as it is."""
        for status in (500, 502, 503, 400, 403, 429):
            self.net.control.failNext("/machine/map", status, PORTAL.decode(), times=6)
        self.net.control.closePoll("a")
        self.net.control.closePoll("b")
        self.net.elapse(20)
        self.assertTrue(self.net["a"].status.isRunning)
        self.assertEqual(len(self.net["a"].peers()), 1)
        self.net.elapse(600)
        self.assertRecovers()

    def test_portalInBetween(self) -> None:
        """A portal that answers for the control server for a while."""
        self.net.wait(self.net.control.stopService())
        host = next(h for h in self.net.internet.hosts() if h.name == "control")
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: Front(portal)
        endpoint = TCP4ServerEndpoint(host, 80, interface="192.168.255.1")
        port = self.successResultOf(endpoint.listen(factory))
        self.net.elapse(180)
        self.assertTrue(self.net["a"].status.isRunning)
        self.assertTrue(self.net["a"].status.health)
        port.stopListening()
        self.net.control.startService()
        self.net.elapse(60)
        self.assertRecovers()

    def test_lostInAPortal(self) -> None:
        """Error pages that a portal gives for the key cost the node nothing."""
        key = self.net.control.node("a").nodeKey
        self.net.wait(self.net.control.stopService())
        host = next(h for h in self.net.internet.hosts() if h.name == "control")
        for status in ("404 Not Found", "401 Unauthorized", "410 Gone", "403 No"):
            factory = Factory()
            factory.noisy = False
            factory.buildProtocol = lambda address, s=status: Front(
                lambda path: page(PORTAL, s, "text/html")
            )
            endpoint = TCP4ServerEndpoint(host, 80, interface="192.168.255.1")
            port = self.successResultOf(endpoint.listen(factory))
            self.net.elapse(60)
            self.assertIn(status[:3], " ".join(self.net["a"].status.health))
            self.assertTrue(self.net["a"].status.isRunning)
            port.stopListening()
        self.net.control.startService()
        self.net.elapse(90)
        self.assertEqual(self.net.control.node("a").nodeKey, key)
        self.assertEqual(len(self.net.control.nodes()), 2)
        self.assertRecovers()

    def test_impostorInBetween(self) -> None:
        """
        Another server in place of ours, with another key and without our node.

        It gets no way with the node but to refuse it.
        """
        self.net.wait(self.net.control.stopService())
        host = next(h for h in self.net.internet.hosts() if h.name == "control")
        peer = ControlPeer()
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: peer.build()
        endpoint = TCP4ServerEndpoint(host, 80, interface="192.168.255.1")
        port = self.successResultOf(endpoint.listen(factory))
        peer.keyAnswer = keyAnswer(self.net.control.publicKey)
        self.net.elapse(120)
        self.assertTrue(self.net["a"].status.isRunning)
        self.assertTrue(self.net["a"].status.health)
        port.stopListening()
        for connection in peer.connections:
            connection.drop()
        self.net.control.startService()
        self.net.elapse(60)
        self.assertRecovers()

    def test_healthFlood(self) -> None:
        """Health texts of the server are shown within bounds."""
        self.sendDocument({"Health": ["x" * 5000, "\x1b[31mred", *["y"] * 3000]})
        self.net.elapse(2)
        health = self.net["a"].status.health
        self.assertLessEqual(len(health), 60)
        self.assertTrue(all(len(t) <= 500 and t.isprintable() for t in health))
        self.sendDocument({"Health": []})
        self.net.elapse(2)
        self.assertEqual(self.net["a"].status.health, ())
        self.assertInnocent()

    @given(st.binary(max_size=300))
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def test_anyFrame(self, content: bytes) -> None:
        """Whatever is in a frame, the node lives."""
        if self.net.control.isListening("a"):
            self.sendFrame(content)
        self.net.elapse(1)
        self.assertTrue(self.net["a"].status.isRunning)
        self.assertFalse(self.flushLoggedErrors())

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-5, 1 << 70)
            | st.text(max_size=5)
            | st.floats(allow_nan=False, allow_infinity=False),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=5,
        ),
        st.sampled_from(
            [
                "PeersChanged",
                "PeersRemoved",
                "PeersChangedPatch",
                "PeerSeenChange",
                "OnlineChange",
                "DERPMap",
                "DNSConfig",
                "PacketFilter",
                "PacketFilters",
                "UserProfiles",
                "Health",
                "SSHPolicy",
                "ControlTime",
                "TKAInfo",
                "Debug",
                "PingRequest",
                "PopBrowserURL",
                "ControlDialPlan",
                "ClientVersion",
                "MapSessionHandle",
                "Seq",
                "KeepAlive",
                "DisplayMessages",
            ]
        ),
    )
    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    def test_anyField(self, value: object, field: str) -> None:
        """Whatever is in a field, the node lives, and no error is logged."""
        if field == "Debug" and isinstance(value, dict):
            value = {k: v for k, v in value.items() if k != "SleepSeconds"}
        if self.net.control.isListening("a"):
            self.sendDocument({field: value})
        self.net.elapse(1)
        self.assertTrue(self.net["a"].status.isRunning)
        self.assertEqual(self.flushLoggedErrors(), [], (field, value))

"""
Relays that lie, garble, flood, or show a certificate that is not theirs.
"""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import TCP4ServerEndpoint

from tsrt.errors import StartupTimeout
from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
from tsrt.test.faultworld import FaultTestCase, during
from tsrt.test.test_node import NodeTestCase
from tsrt.testing.certificates import TestCertificate, selfSigned
from tsrt.testing.derp import DERPServer
from tsrt.testing.tailnet import TestTailnet
from tsrt.wire import derp
from tsrt.wire.derp import FrameType

NAME = "other-relay.test"
ADDRESS = "192.168.250.1"

# The relay map that a tailnet begins with.
FIRST_MAP = DERPMap(
    regions={
        900: DERPRegion(
            regionID=900,
            regionCode="r900",
            nodes=[
                DERPNode(
                    name="900a",
                    regionID=900,
                    hostName="derp900.test",
                    ipv4="192.168.254.1",
                    ipv6="none",
                    stunPort=3478,
                    derpPort=443,
                    insecureForTests=True,
                )
            ],
        )
    },
    omitDefaultRegions=True,
)


class CertificateTests(NodeTestCase):
    """Only the relay that the map names is a relay."""

    def relay(self, tailnet: TestTailnet, certificate: TestCertificate) -> None:
        """Start a relay that shows C{certificate}, the only one of the map."""
        host = tailnet.internet.host("other relay", [ADDRESS])
        tailnet.internet.register(NAME, ADDRESS)
        relay = DERPServer(
            host,
            TCP4ServerEndpoint(host, 443, interface=ADDRESS),
            certificate=certificate,
            randbytes=tailnet.internet.randbytes,
        )
        relay.startService()
        tailnet.relays[555] = relay
        self.serverLogins = lambda: len(relay.clients())
        self.useRelay(tailnet)

    def useRelay(self, tailnet: TestTailnet, certName: str = "") -> None:
        """Have the map name the relay."""
        node = DERPNode(
            name="555a",
            regionID=555,
            hostName=NAME,
            certName=certName,
            ipv4=ADDRESS,
            ipv6="none",
            stunPort=-1,
        )
        region = DERPRegion(regionID=555, regionCode="fra", nodes=[node])
        tailnet.control.setDERPMap(
            DERPMap(regions={555: region}, omitDefaultRegions=True)
        )

    def refused(self, certificate: TestCertificate, trusted: TestCertificate) -> str:
        """What a node says of a relay with a certificate that does not do."""
        tailnet = self.tailnet()
        self.relay(tailnet, certificate)
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(trusted.pem)
        node = tailnet.addNode("x", caFile=path)
        with self.assertRaises(StartupTimeout) as raised:
            tailnet.wait(node.up(), limit=90)
        self.assertEqual(self.serverLogins(), 0)
        self.assertIn("first netmap: ok", str(raised.exception))
        self.assertIn("fra", str(raised.exception))
        [health] = [text for text in node.status.health if "fra" in text]
        return health

    def test_good(self) -> None:
        """A certificate of a trusted authority for the right name is good."""
        tailnet = self.tailnet()
        certificate = selfSigned([NAME])
        self.relay(tailnet, certificate)
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(certificate.pem)
        tailnet.addNode("x", caFile=path)
        [status] = tailnet.waitUp("x")
        self.assertEqual(status.homeRegion, "fra")

    def test_untrusted(self) -> None:
        """A certificate that nobody vouches for."""
        health = self.refused(selfSigned([NAME]), selfSigned(["else.test"]))
        self.assertIn("certificate", health)

    def test_otherName(self) -> None:
        """A good certificate for another name."""
        certificate = selfSigned(["another.test"])
        health = self.refused(certificate, certificate)
        self.assertIn("certificate", health)
        self.assertIn(NAME, health)

    def test_expired(self) -> None:
        """A certificate whose time is over."""
        certificate = selfSigned([NAME], expired=True)
        health = self.refused(certificate, certificate)
        self.assertIn("certificate", health)
        self.assertIn("expired", health)

    def test_plainText(self) -> None:
        """A relay that speaks no TLS at all gets no login."""
        tailnet = self.tailnet()
        host = tailnet.internet.host("other relay", [ADDRESS])
        tailnet.internet.register(NAME, ADDRESS)
        relay = DERPServer(host, TCP4ServerEndpoint(host, 443, interface=ADDRESS))
        relay.startService()
        tailnet.relays[555] = relay
        self.useRelay(tailnet)
        node = tailnet.addNode("x")
        with self.assertRaises(StartupTimeout):
            tailnet.wait(node.up(), limit=90)
        self.assertEqual(relay.requests, {})
        self.assertTrue([text for text in node.status.health if "fra" in text])

    def test_changeForTheWorse(self) -> None:
        """
        A home whose certificate goes bad is a health problem, until it is good.

        Connections of the node wait for it.
        """
        tailnet = self.tailnet(direct=False)
        self.relay(tailnet, selfSigned([NAME]))
        tailnet.control.setDERPMap(FIRST_MAP)
        for name in ("a", "b"):
            tailnet.addNode(name)
        tailnet.waitUp("a", "b")
        self.serve(tailnet, "b")
        client = self.connect(tailnet, "a", "b")
        self.useRelay(tailnet)
        client.transport.write(b"wait for me")
        tailnet.elapse(45)
        self.assertEqual(client.received, b"")
        health = " ".join(tailnet["a"].status.health)
        self.assertIn("certificate", health)
        tailnet.control.setDERPMap(FIRST_MAP)
        tailnet.elapse(90)
        self.assertEqual(client.received, b"wait for me")
        self.assertEqual(tailnet["a"].status.health, ())


class MaliciousRelayTests(FaultTestCase):
    """The relay that all traffic goes through turns against node C{b}."""

    def setUp(self) -> None:
        self.makeTailnet(direct=False)
        self.relay = self.net.relays[900]
        [self.keyOfA] = [peer.key.raw for peer in self.net["b"].peers()]
        [self.keyOfB] = [peer.key.raw for peer in self.net["a"].peers()]

    def send(self, *frames: bytes) -> None:
        """Send frames to the victim, on the connection that it has now."""
        for connection in self.relay.clients(self.keyOfB):
            connection._write(b"".join(frames))

    def region(self) -> object:
        """The victim's connection."""
        return self.net["b"]._engine.relays._region(900)

    def test_forgedSources(self) -> None:
        """Packets from keys that are nobody's are dropped and remembered nowhere."""
        random = Random(1)
        pool = self.net["b"]._engine.relays
        for _ in range(40):
            self.send(
                *(
                    derp.buildRecvPacket(random.randbytes(32), random.randbytes(100))
                    for _ in range(50)
                )
            )
            self.net.elapse(0.05)
        self.assertEqual(pool.droppedUnknownPeer, 2000)
        self.assertLessEqual(len(pool._observed), 1)
        self.assertInnocent()

    def test_forgedPackets(self) -> None:
        """Packets that only pretend to be of a peer do not open."""
        random = Random(2)
        index = next(
            iter(self.net["b"]._engine.datapath._tunnel._context.indices._owners)
        )
        for size in (0, 1, 4, 15, 16, 31, 32, 33, 48, 148, 1300, 60_000):
            self.send(
                *(
                    derp.buildRecvPacket(self.keyOfA, junk)
                    for junk in (
                        random.randbytes(size),
                        b"\4\0\0\0" + random.randbytes(max(0, size - 4)),
                        b"\4\0\0\0" + index + random.randbytes(max(0, size - 8)),
                        b"\1\0\0\0" + random.randbytes(max(0, size - 4)),
                    )
                )
            )
            self.net.elapse(0.1)
        counters = self.net["b"]._engine.datapath._tunnel.counters
        self.assertGreater(counters.droppedUnauthentic, 5)
        self.assertGreater(counters.droppedUnknownIndex, 5)
        self.assertGreater(counters.droppedMalformed, 10)
        self.assertInnocent()

    def test_replayedReorderedReflected(self) -> None:
        """A relay that repeats, mixes up and sends back what it gets."""
        random = Random(3)
        honest = self.relay.relay
        kept: list[tuple[object, bytes, bytes]] = []

        def relay(sender: object, destination: bytes, packet: bytes) -> None:
            kept.append((sender, destination, packet))
            del kept[:-50]
            honest(sender, destination, packet)
            honest(sender, sender.key, packet)  # back to where it came from
            for _ in range(2):
                honest(*random.choice(kept))

        self.relay.relay = relay
        self.net.elapse(30)
        self.relay.relay = honest
        for name in ("a", "b"):
            counters = self.net[name]._engine.datapath._tunnel.counters
            self.assertGreater(counters.droppedReplay, 20)
        self.assertInnocent()

    def test_corrupting(self) -> None:
        """A relay that changes a bit in some packets; TCP repeats them."""
        random = Random(4)
        honest = self.relay.relay

        def relay(sender: object, destination: bytes, packet: bytes) -> None:
            if random.random() < 0.2:
                changed = bytearray(packet)
                changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
                packet = bytes(changed)
            honest(sender, destination, packet)

        self.relay.relay = relay
        self.net.elapse(40)
        self.relay.relay = honest
        tunnel = self.net["b"]._engine.datapath._tunnel.counters
        self.assertGreater(tunnel.droppedUnauthentic, 3)
        self.assertInnocent(patience=90)

    def test_frameGarbage(self) -> None:
        """Frames that are unknown, short or of the wrong side are skipped."""
        random = Random(5)
        before = self.region().counters.snapshot()
        connections = before["connections"]
        for kind in range(256):
            if kind in (FrameType.SERVER_INFO, FrameType.RESTARTING):
                continue  # these have tests of their own
            for size in (0, 1, 7, 8, 31):
                self.send(derp.encodeFrame(kind, random.randbytes(size)))
            self.net.elapse(0.02)
        after = self.region().counters.snapshot()
        self.assertEqual(after["connections"], connections)
        self.assertGreater(after["unknown"], 1000)
        self.assertGreater(after["malformed"], 5)
        self.assertInnocent()

    def test_oversizedFrames(self) -> None:
        """A frame that is too long ends the connection; a new one is made."""
        for kind in (
            FrameType.RECV_PACKET,
            FrameType.HEALTH,
            FrameType.SERVER_INFO,
            0xEE,
        ):
            connections = self.region().counters.connections
            self.send(bytes((kind,)) + (0xFFFFFFFF).to_bytes(4, "big") + bytes(500))
            self.net.elapse(10)
            self.assertGreater(self.region().counters.connections, connections)
        self.assertInnocent()

    def test_wrongServerInfo(self) -> None:
        """An answer to the login that does not open ends the connection."""
        connections = self.region().counters.connections
        self.send(derp.encodeFrame(FrameType.SERVER_INFO, bytes(200)))
        self.net.elapse(10)
        self.assertGreater(self.region().counters.connections, connections)
        self.assertInnocent()

    def test_healthTexts(self) -> None:
        """What the relay says of its health is shown, one text at a time, bounded."""
        for text in (b"\xff\xfe broken", b"x" * 60_000, b"\x1b[2Jgone", b"a\nb"):
            for _ in range(20):
                self.send(derp.encodeFrame(FrameType.HEALTH, text))
            self.net.elapse(1)
            health = self.net["b"].status.health
            self.assertLessEqual(len(health), 1)
            for line in health:
                self.assertLess(len(line), 1000)
                self.assertTrue(line.isprintable(), repr(line[:80]))
        self.send(derp.encodeFrame(FrameType.HEALTH, b""))
        self.net.elapse(1)
        self.assertEqual(self.net["b"].status.health, ())
        self.assertInnocent()

    def test_restartingForEver(self) -> None:
        """A relay that wants us back in a month is asked before."""
        self.send(derp.buildRestarting(4e6, 4e6))
        for connection in self.relay.clients(self.keyOfB):
            connection.abort()
        self.net.elapse(100)
        self.assertTrue(self.region().isConnected)
        self.assertInnocent()

    def test_hangingUp(self) -> None:
        """A relay that hangs up on each login is not besieged."""
        connections = self.region().counters.connections

        def hangUp() -> None:
            for connection in self.relay.clients(self.keyOfB):
                connection.abort()

        during(self.net, 60, 0.05, hangUp)
        made = self.region().counters.connections - connections
        self.assertGreater(made, 5)
        self.assertLess(made, 60)
        self.assertInnocent(patience=60)

    def test_peerGoneLies(self) -> None:
        """A relay that says a peer has gone, though it has not."""

        def lie() -> None:
            self.send(
                derp.buildPeerGone(self.keyOfA),
                derp.buildPeerGone(bytes(32), 99),
                derp.encodeFrame(FrameType.PEER_GONE, b""),
            )

        during(self.net, 20, 0.2, lie)
        self.assertInnocent()

    def test_pingFlood(self) -> None:
        """A relay that pings all the time gets answers, and nothing piles up."""
        during(self.net, 10, 0.1, lambda: self.send(*[derp.buildPing(bytes(8))] * 100))
        self.assertLessEqual(len(self.region()._protocol._queue), 32)
        self.assertInnocent()

    def test_R_DERP_3_dataToTheDataPath(self) -> None:
        """What is not disco is handed on as it is; junk is dropped behind."""
        tunnel = self.net["b"]._engine.datapath._tunnel.counters
        before = tunnel.droppedMalformed
        self.send(derp.buildRecvPacket(self.keyOfA, b"no WireGuard message"))
        self.net.elapse(0.2)
        self.assertEqual(tunnel.droppedMalformed, before + 1)
        self.assertInnocent()

    @given(st.binary(max_size=200))
    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def test_anyBytes(self, data: bytes) -> None:
        """Whatever a relay writes, the node goes on, or comes back."""
        self.send(data)
        self.net.elapse(0.5)
        self.assertFalse(self.flushLoggedErrors())
        self.assertLessEqual(len(self.net["b"].status.health), 2)


class RecoveryTests(FaultTestCase):
    """After anything that a relay can write, the node works again."""

    def test_recovers(self) -> None:
        """A hundred pieces of garbage in the middle of frames."""
        self.makeTailnet(direct=False)
        [key] = [peer.key.raw for peer in self.net["a"].peers()]
        random = Random(9)
        for _ in range(100):
            for connection in self.net.relays[900].clients(key):
                connection._write(random.randbytes(random.randrange(1, 100)))
            self.net.elapse(1)
        self.net.elapse(130)
        self.assertInnocent(patience=150)

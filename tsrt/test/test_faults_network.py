"""
The real network around a node: floods at its UDP port, and links that fail.
"""

from __future__ import annotations

from random import Random

from twisted.internet.protocol import DatagramProtocol

from tsrt.addresses import AddrPort, parseAddress
from tsrt.test.faultworld import FaultTestCase, during
from tsrt.testing.links import Link
from tsrt.wire import stun
from tsrt.wire.disco import MAGIC


class _Sink(DatagramProtocol):
    """Counts what comes back."""

    def __init__(self) -> None:
        self.answers = 0

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.answers += 1


class FloodTests(FaultTestCase):
    """Somebody on the internet sends things to the UDP port of node C{b}."""

    def setUp(self) -> None:
        self.makeTailnet(regions=2)
        self.host = self.net.internet.host("attacker")
        self.sink = _Sink()
        self.port = self.host.listenUDP(4000, self.sink)
        self.addCleanup(self.port.stopListening)
        own = self.net.hosts["b"].addresses[0]
        [port] = [
            port.getHost().port
            for port in self.net.hosts["b"].ports
            if port.getHost().type == "UDP" and ":" not in port.getHost().host
        ]
        self.target = (own, port)

    def flood(self, datagrams: list[bytes]) -> None:
        """Send, 50 in a burst."""
        for at in range(0, len(datagrams), 50):
            for datagram in datagrams[at : at + 50]:
                self.port.write(datagram, self.target)
            self.net.elapse(0.02)

    def test_garbage(self) -> None:
        """Anything at all, at any size, is counted and never answered."""
        random = Random(1)
        kinds = (b"", b"\1\0\0\0", b"\4\0\0\0", MAGIC, b"\0\1\0\0\x21\x12\xa4\x42")
        datagrams = [
            random.choice(kinds) + random.randbytes(random.randrange(0, 1500))
            for _ in range(2000)
        ]
        socket = self.net["b"]._engine.getServiceNamed("underlay").counters
        before = socket.receivedPackets
        self.flood(datagrams)
        self.assertGreater(socket.receivedPackets - before, 1900)
        self.assertEqual(self.sink.answers, 0)
        self.assertInnocent()

    def test_forgedSTUN(self) -> None:
        """STUN answers that nobody asked for change nothing."""
        random = Random(2)
        forged = AddrPort(parseAddress("203.0.113.99"), 1)
        home = self.net["b"].status.homeRegion

        def answers() -> None:
            self.flood(
                [stun.buildResponse(random.randbytes(12), forged) for _ in range(50)]
            )

        during(self.net, 90, 1.0, answers)
        self.assertEqual(self.net["b"].status.homeRegion, home)
        self.assertEqual(self.sink.answers, 0)
        self.assertInnocent()


class LinkTests(FaultTestCase):
    """The network itself fails."""

    def test_lossyLinks(self) -> None:
        """Everything works over links that lose, double and disorder packets."""
        self.makeTailnet(links=Link(delay=0.03, jitter=0.02, loss=0.05), seed=3)
        self.net.elapse(120)
        self.assertInnocent(patience=120)

    def test_cutAndHealed(self) -> None:
        """A node that is cut off for two minutes comes back by itself."""
        self.makeTailnet()
        others = [h for h in self.net.internet.hosts() if h is not self.net.hosts["a"]]
        for host in others:
            self.net.internet.cut(self.net.hosts["a"], host)
        self.net.elapse(120)
        for host in others:
            self.net.internet.heal(self.net.hosts["a"], host)
        self.net.elapse(200)
        self.assertEqual(self.net["a"].status.health, ())
        self.assertInnocent(patience=200)

    def test_changedAddress(self) -> None:
        """A host that gets another address loses its connections, not its node."""
        self.makeTailnet()
        self.net.internet.setAddresses(self.net.hosts["a"], ["198.18.200.1"])
        self.net.elapse(300)
        self.assertEqual(self.net["a"].status.health, ())
        self.assertInnocent(patience=100)

    def test_crashedServers(self) -> None:
        """Servers that vanish without a word are found to be gone, and again."""
        self.makeTailnet()
        for host in self.net.internet.hosts():
            if host.name == "control" or host.name.startswith("derp"):
                host.crash()
        self.net.elapse(300)
        self.assertEqual(self.net["a"].status.health, ())
        self.assertInnocent(patience=200)

"""A node that one peer knows by other addresses than its own."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import DatagramProtocol, Factory

from tsrt.test.faultworld import STREAM_PORT, FaultTestCase, Gather
from tsrt.testing.tailnet import TestTailnet

MASK4, MASK6 = "100.99.0.9", "fd7a:115c:a1e0::99"


class EchoUDP(DatagramProtocol):
    """Echoes, and keeps who asked."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, str]] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """See L{DatagramProtocol}."""
        self.heard.append((datagram, addr[0]))
        if not datagram.startswith(b"<"):
            self.transport.write(b"<" + datagram + b">", addr)


class MasqueradeTests(FaultTestCase):
    """Node C{b} knows C{a} by two masks; C{c} knows it as it is."""

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=["a", "b", "c"])
        self.addCleanup(self.net.close)
        control = self.net.control
        control.overridePeer(
            "a",
            "b",
            selfNodeV4MasqAddrForThisPeer=MASK4,
            selfNodeV6MasqAddrForThisPeer=MASK6,
        )
        masks = [f"{MASK4}/32", f"{MASK6}/128"]
        control.overridePeer("b", "a", addresses=masks, allowedIPs=masks)
        self.net.settle(3)
        for name in ("a", "b", "c"):
            self.serve(name)

    def hello(self, source: str, target: str) -> str:
        """Say something over TCP; whom the other side takes us for."""
        client = self.connect(source, target)
        client.transport.write(b"hello")
        self.net.elapse(1)
        self.assertEqual(bytes(client.received), b"hello")
        own = client.transport.getHost().host
        client.transport.loseConnection()
        self.net.elapse(1)
        return str(own)

    def test_streams(self) -> None:
        """Both ways, in both families; and whoever sees through it as before."""
        own = self.net["a"].status.addresses
        for target in self.net["b"].status.addresses:
            self.assertIn(self.hello("a", target), own)
        for mask in (MASK4, MASK6):
            self.hello("b", mask)
        for address in own:
            self.hello("c", address)

    def test_whoItIs(self) -> None:
        """The peer sees the mask, and knows whose it is."""
        udp = EchoUDP()
        self.net["b"].reactor.listenUDP(53, udp)
        client = EchoUDP()
        self.net["a"].reactor.listenUDP(0, client)
        client.transport.write(b"question", (self.net["b"].status.addresses[0], 53))
        self.net.elapse(1)
        self.assertEqual(udp.heard, [(b"question", MASK4)])
        self.assertEqual(client.heard[0][0], b"<question>")
        self.assertEqual(self.net["b"].whois(MASK4).node.hostname, "a")
        for kind in ("ICMP", "TSMP", "disco"):
            self.net.wait(self.net["a"].ping("b", kind=kind))
            self.net.wait(self.net["b"].ping(MASK4, kind=kind))

    def test_withdrawn(self) -> None:
        """Without the mask it is itself again."""
        self.net.control.overridePeer("a", "b")
        self.net.control.overridePeer("b", "a")
        self.net.settle(3)
        self.hello("b", self.net["a"].status.addresses[0])
        endpoint = self.net["b"].clientEndpoint(MASK4, STREAM_PORT, timeout=2)
        attempt = endpoint.connect(Factory.forProtocol(Gather))
        self.net.elapse(3)
        self.failureResultOf(attempt)

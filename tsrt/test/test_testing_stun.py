"""
Tests for L{tsrt.testing.stun}.
"""

from __future__ import annotations

import json
from pathlib import Path

from twisted.internet import error
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import NotRunning
from tsrt.testing.clock import elapse, resultOf
from tsrt.testing.internet import MemoryInternet
from tsrt.testing.stun import STUNServer

VECTORS = json.loads(
    (Path(__file__).parent / "vectors" / "vectors.json").read_text("utf-8")
)["vectors"]
REQUEST = bytes.fromhex(VECTORS["stun_request"]["request"])


class Client(DatagramProtocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def datagramReceived(self, datagram, addr):
        self.received.append(datagram)


class STUNServerTests(SynchronousTestCase):
    """The server answers those who ask properly."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.internet = MemoryInternet(self.clock)
        self.host = self.internet.host("stun", ["203.0.113.1", "2001:db8::1"])

    def ask(self, interface: str, server: STUNServer, address: str, data: bytes):
        """What is answered to a datagram from the address of the vectors."""
        server.startService()
        name = f"client{interface}{len(self.internet.hosts())}"
        source = "2001:db8::5" if interface else "192.0.2.7"
        client = self.internet.host(name, [source])
        protocol = Client()
        port = client.listenUDP(41641, protocol, interface=interface)
        port.write(data, (address, server.port))
        elapse(self.clock, 1)
        resultOf(self.clock, server.stopService())
        return protocol.received

    def test_ipv4(self) -> None:
        """The published request is answered with the published response."""
        answer = self.ask("", STUNServer(self.host), "203.0.113.1", REQUEST)
        self.assertEqual(
            answer, [bytes.fromhex(VECTORS["stun_response_v4"]["response"])]
        )

    def test_ipv6(self) -> None:
        """The same over IPv6."""
        server = STUNServer(self.host, interface="::")
        answer = self.ask("::", server, "2001:db8::1", REQUEST)
        self.assertEqual(
            answer, [bytes.fromhex(VECTORS["stun_response_v6"]["response"])]
        )

    def test_ignored(self) -> None:
        """What is malformed, forged or something else is not answered."""
        server = STUNServer(self.host)
        forged = REQUEST[:-1] + bytes((REQUEST[-1] ^ 1,))
        self.assertEqual(self.ask("", server, "203.0.113.1", forged), [])
        self.assertEqual(server.protocol.ignored, 1)
        self.assertEqual(server.protocol.answered, 0)

    def test_life(self) -> None:
        """The port is there while the service runs, and can be had again."""
        server = STUNServer(self.host, 0)
        self.assertRaises(NotRunning, lambda: server.port)
        server.startService()
        other = STUNServer(self.host, server.port)
        self.assertRaises(error.CannotListenError, other.startService)
        resultOf(self.clock, server.stopService())
        self.successResultOf(server.stopService())
        self.assertEqual(self.host.ports, [])
        server.startService()
        resultOf(self.clock, server.stopService())

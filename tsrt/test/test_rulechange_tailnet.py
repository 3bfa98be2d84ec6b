"""Rules that change while flows are open: what they still allow goes on."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import DatagramProtocol, Factory

from tsrt.test.faultworld import Echo, FaultTestCase, Gather
from tsrt.testing.control import ControlConfig
from tsrt.testing.tailnet import TestTailnet

OFFICE = "10.20.0.5"


def policy(*destinations: str, source: str = "*") -> str:
    """A policy that lets C{source} begin flows with some destinations."""
    accept = {"action": "accept", "src": [source], "dst": list(destinations)}
    return json.dumps({"acls": [accept]})


class EchoDatagrams(DatagramProtocol):
    """Sends back what comes, and keeps where it came from."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.received.append(datagram)
        if datagram.startswith(b"?"):
            self.transport.write(b"!" + datagram, addr)


class RuleChangeTests(FaultTestCase):
    """Node C{a} talks with node C{b}."""

    def setUp(self) -> None:
        self.net = TestTailnet(
            nodes=["a", "b"], config=ControlConfig(policy=policy("*:*"))
        )
        self.addCleanup(self.net.close)
        for name in ("a", "b"):
            for port in (80, 443):
                self.net.wait(
                    self.net[name].serverEndpoint(port).listen(self.factory())
                )

    def factory(self) -> Factory:
        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        return factory

    def open(self, source: str, target: str, port: int) -> Gather:
        """A connection that works."""
        endpoint = self.net[source].clientEndpoint(target, port, timeout=20)
        client: Gather = self.net.wait(endpoint.connect(Factory.forProtocol(Gather)))
        self.talks(client)
        return client

    def talks(self, client: Gather) -> None:
        """Something comes back."""
        before = len(client.received)
        client.transport.write(b"hello")
        self.net.elapse(2)
        self.assertEqual(len(client.received), before + 5)

    def setPolicy(self, text: str) -> None:
        """Put another policy in force."""
        self.net.control.setPolicy(text)
        self.net.elapse(2)

    def test_streams(self) -> None:
        """A stream that is not allowed any more is cut, the others go on."""
        cut, kept = self.open("a", "b", 80), self.open("a", "b", 443)
        other = self.open("b", "a", 80)
        self.setPolicy(policy("*:443"))
        self.assertTrue(cut.reason.check(ConnectionLost))
        self.assertTrue(other.reason.check(ConnectionLost))
        self.talks(kept)
        flows = self.net["b"]._overlay.stack.flows()
        self.assertEqual({f.localPort for f in flows if not f.isOurs}, {443})

    def test_ownFlows(self) -> None:
        """What a node began itself goes on while it may still begin it."""
        address = self.net["b"].status.addresses[0]
        client = self.open("a", "b", 80)
        # Nobody may begin anything with a; but a may with b.
        self.setPolicy(policy(f"{address}:*"))
        self.talks(client)

    def test_toItself(self) -> None:
        """What a node says to itself is no business of the rules."""
        client = self.open("a", self.net["a"].status.addresses[0], 80)
        self.setPolicy(policy("*:443"))
        self.talks(client)
        self.net["a"].setPreferences(shieldsUp=True)
        self.talks(client)

    def test_widened(self) -> None:
        """More rules cut nothing."""
        self.setPolicy(policy("*:80"))
        client = self.open("a", "b", 80)
        self.setPolicy(policy("*:80", "*:443"))
        self.talks(client)
        self.setPolicy(policy("*:*"))
        self.talks(client)

    def test_shieldsUp(self) -> None:
        """Shields cut what others began, and nothing else."""
        theirs, ours = self.open("a", "b", 80), self.open("b", "a", 80)
        self.net["b"].setPreferences(shieldsUp=True)
        self.net.elapse(2)
        self.assertTrue(theirs.reason.check(ConnectionLost))
        self.talks(ours)

    def test_datagrams(self) -> None:
        """A server's answers do not keep a flow open that its rule began."""
        server, client = EchoDatagrams(), EchoDatagrams()
        self.net["b"].reactor.listenUDP(53, server)
        self.net["a"].reactor.listenUDP(5000, client)
        address = self.net["b"].status.addresses[0]

        def ask() -> int:
            client.transport.write(b"?", (address, 53))
            self.net.elapse(1)
            return len(client.received)

        self.assertEqual(ask(), 1)
        self.assertEqual(ask(), 2)
        self.setPolicy(policy("*:443"))
        self.assertEqual(ask(), 2)
        self.assertEqual(len(server.received), 2)
        # What b begins itself is answered, whatever the rules of b say.
        self.setPolicy(policy(f"{self.net['a'].status.addresses[0]}:*"))
        own = EchoDatagrams()
        self.net["b"].reactor.listenUDP(6000, own)
        own.transport.write(b"?own", (self.net["a"].status.addresses[0], 5000))
        self.net.elapse(1)
        self.assertEqual(own.received, [b"!?own"])

    def test_begunBefore(self) -> None:
        """A flow that this node began survives rules that come and go."""
        server = EchoDatagrams()
        self.net["b"].reactor.listenUDP(53, server)
        client = EchoDatagrams()
        self.net["a"].reactor.listenUDP(5000, client)
        address = self.net["b"].status.addresses[0]
        client.transport.write(b"?", (address, 53))
        self.net.elapse(1)
        # Nobody may begin anything with a any more.
        self.setPolicy(policy(f"{address}:*"))
        server.transport.write(
            b"late answer", (self.net["a"].status.addresses[0], 5000)
        )
        self.net.elapse(1)
        self.assertEqual(client.received, [b"!?", b"late answer"])

    def test_forwarded(self) -> None:
        """Flows through a router are cut by the same rules."""
        office = self.net.internet.host("office", [OFFICE])
        far = EchoDatagrams()
        office.listenTCP(80, self.factory())
        office.listenUDP(53, far)
        self.net["b"].setPreferences(advertiseRoutes=["10.20.0.0/16"])
        self.net["a"].setPreferences(acceptRoutes=True)
        self.net.elapse(2)
        self.net.control.approveRoutes("b")
        self.net.elapse(2)
        client = self.open("a", OFFICE, 80)
        datagrams = EchoDatagrams()
        self.net["a"].reactor.listenUDP(5000, datagrams)
        datagrams.transport.write(b"?", (OFFICE, 53))
        self.net.elapse(1)
        self.assertEqual(datagrams.received, [b"!?"])
        forwarder: Any = self.net["b"].getServiceNamed("forwarder")
        self.assertEqual(len(forwarder.udp.flows()), 1)
        self.setPolicy(policy("*:443"))
        self.assertTrue(client.reason.check(ConnectionLost))
        self.assertEqual(forwarder.tcp.flows, {})
        self.assertEqual(forwarder.udp.flows(), [])

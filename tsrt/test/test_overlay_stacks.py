"""
What users run, unchanged, over a whole tailnet: HTTP, DNS, AMP, Perspective
Broker, services that reconnect.
"""

from __future__ import annotations

from pathlib import Path

from twisted.application.internet import ClientService, StreamServerEndpointService
from twisted.internet.defer import fail, succeed
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.names import client as dnsClient
from twisted.names import dns
from twisted.names.common import ResolverBase
from twisted.names.server import DNSServerFactory
from twisted.protocols import amp, basic
from twisted.spread import pb
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import HTTPConnectionPool, RedirectAgent, readBody
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data, File
from twisted.web.util import Redirect

from tsrt.endpoints import TailnetServerEndpoint
from tsrt.test.overlaynet import (
    HalfCloser,
    PushProducer,
    Recorder,
    factoryFor,
)
from tsrt.testing.clock import cooperateOn
from tsrt.testing.links import Link
from tsrt.testing.tailnet import TestTailnet

MEGABYTE = bytes(range(256)) * 4096


class Sum(amp.Command):
    """Adds two numbers."""

    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"total", amp.Integer())]
    errors = {ZeroDivisionError: b"ZERO"}


class Adder(amp.AMP):
    """Adds for others."""

    @Sum.responder
    def add(self, a: int, b: int) -> dict[str, int]:
        if not a:
            raise ZeroDivisionError("nothing")
        return {"total": a + b}


class Objects(pb.Root):
    """A remote object."""

    def remote_reverse(self, text: str) -> str:
        return text[::-1]


class LineEcho(basic.LineReceiver):
    """Sends lines back."""

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(b"echo " + line)


class StackCase(SynchronousTestCase):
    """Nodes C{a} and C{b}."""

    links: Link | None = None

    def setUp(self) -> None:
        self.tailnet = TestTailnet(nodes=["a", "b"], links=self.links)
        self.addCleanup(self.tailnet.close)
        self.a, self.b = self.tailnet["a"], self.tailnet["b"]

    def listen(self, port: int, factory: Factory) -> None:
        """Listen on node C{b} until the end of the test."""
        factory.noisy = False
        listening = self.tailnet.wait(self.b.serverEndpoint(port).listen(factory))
        self.addCleanup(lambda: self.tailnet.wait(listening.stopListening()))


class HTTPTests(StackCase):
    """C{twisted.web}."""

    def setUp(self) -> None:
        super().setUp()
        root = Resource()
        root.putChild(b"big", Data(MEGABYTE, "application/octet-stream"))
        root.putChild(b"old", Redirect(b"http://b/big"))
        self.listen(80, Site(root, reactor=self.tailnet.clock))

    def test_T_http(self) -> None:
        """One kept connection serves a megabyte several times over."""
        pool = HTTPConnectionPool(self.tailnet.clock)
        agent = self.a.agent(pool=pool)
        full = self.b.status.name.encode()
        for host in (b"b", b"b", full):
            uri = b"http://" + host + b"/big"
            response = self.tailnet.wait(agent.request(b"GET", uri))
            self.assertEqual(MEGABYTE, self.tailnet.wait(readBody(response)))
        self.tailnet.wait(pool.closeCachedConnections())

    def test_redirect(self) -> None:
        """Redirects lead on through the tailnet."""
        agent = RedirectAgent(self.a.agent())
        response = self.tailnet.wait(agent.request(b"GET", b"http://b/old"))
        self.assertEqual(MEGABYTE, self.tailnet.wait(readBody(response)))


class PoorHTTPTests(HTTPTests):
    """The same over a network that is slow and loses packets."""

    links = Link(delay=0.04, jitter=0.01, loss=0.01)


class DNSTests(StackCase):
    """C{twisted.names}, client and server, over UDP and TCP."""

    def test_T_dns(self) -> None:
        """A resolver on one node asks a server on the other, by UDP and TCP."""

        class Authority(ResolverBase):
            def _lookup(self, name, cls, type, timeout):
                if type != dns.A:
                    return fail(dns.DomainError(name))
                count = 1 if name == b"one.test" else 100
                records = [
                    dns.RRHeader(
                        name, dns.A, dns.IN, 60, dns.Record_A(f"10.0.0.{number}")
                    )
                    for number in range(1, count + 1)
                ]
                return succeed((records, [], []))

        factory = DNSServerFactory(clients=[Authority()])
        factory.noisy = False
        protocol = dns.DNSDatagramProtocol(factory, reactor=self.b.reactor)
        protocol.noisy = False
        port = self.b.reactor.listenUDP(53, protocol)
        self.addCleanup(lambda: self.tailnet.wait(port.stopListening()))
        self.listen(53, factory)
        for server in self.b.status.addresses:
            resolver = dnsClient.Resolver(
                servers=[(server, 53)], reactor=self.a.reactor
            )
            answers, _, _ = self.tailnet.wait(
                resolver.lookupAddress("one.test", timeout=[5])
            )
            self.assertEqual("10.0.0.1", answers[0].payload.dottedQuad())
            query = dns.Query(b"many.test", dns.A, dns.IN)
            many = self.tailnet.wait(resolver.queryTCP([query]))
            self.assertEqual(100, len(many.answers))
        self.tailnet.settle(70)


class RPCTests(StackCase):
    """Twisted's remote procedure calls."""

    def test_T_amp(self) -> None:
        """AMP calls, and their errors, go over the tailnet."""
        self.listen(1234, Factory.forProtocol(Adder))
        caller = self.tailnet.wait(
            connectProtocol(self.a.clientEndpoint("b", 1234), amp.AMP())
        )
        results = [caller.callRemote(Sum, a=number, b=1) for number in range(1, 200)]
        self.tailnet.settle()
        self.assertEqual(
            list(range(2, 201)),
            [self.successResultOf(result)["total"] for result in results],
        )
        failing = caller.callRemote(Sum, a=0, b=1)
        failing.addErrback(lambda failure: failure.type)
        self.assertIs(ZeroDivisionError, self.tailnet.wait(failing))
        caller.transport.loseConnection()
        self.tailnet.settle()

    def test_T_pb(self) -> None:
        """Perspective Broker references work over connectTCP."""
        self.listen(8789, pb.PBServerFactory(Objects()))
        factory = pb.PBClientFactory()
        factory.noisy = False
        connector = self.a.reactor.connectTCP("b", 8789, factory)
        root = self.tailnet.wait(factory.getRootObject())
        self.assertEqual(
            "olleh", self.tailnet.wait(root.callRemote("reverse", "hello"))
        )
        connector.disconnect()
        self.tailnet.settle()

    def test_lines(self) -> None:
        """Line protocols keep their lines whole."""
        self.listen(7, Factory.forProtocol(LineEcho))
        client = Recorder()
        self.tailnet.wait(connectProtocol(self.a.clientEndpoint("b", 7), client))
        lines = [b"line %d" % number for number in range(2000)]
        client.transport.write(b"".join(line + b"\r\n" for line in lines))
        self.tailnet.settle(5)
        self.assertEqual(
            b"".join(b"echo " + line + b"\r\n" for line in lines), client.data
        )
        client.transport.loseConnection()
        self.tailnet.settle()


class ServiceTests(StackCase):
    """Twisted's services, and nodes that stop and start."""

    def test_T_clientService(self) -> None:
        """A ClientService connects again when the server's node comes back."""
        service = StreamServerEndpointService(
            self.b.serverEndpoint(7), Factory.forProtocol(LineEcho)
        )
        service.setServiceParent(self.b.apps)
        made: list[Recorder] = []

        def build(address):
            made.append(Recorder())
            return made[-1]

        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = build
        feed = ClientService(
            self.a.clientEndpoint("b", 7), factory, clock=self.tailnet.clock
        )
        feed.setServiceParent(self.a.apps)
        self.tailnet.wait(feed.whenConnected())
        self.tailnet.wait(self.b.stopService())
        self.tailnet.settle(5)
        self.assertIsNotNone(made[0].lost)
        self.b.startService()
        self.tailnet.waitUp("b")
        # Twisted's own service does not listen again; the port is ours to open.
        again = self.tailnet.wait(
            TailnetServerEndpoint(lambda: self.b.reactor, 7).listen(
                Factory.forProtocol(LineEcho)
            )
        )
        self.tailnet.wait(feed.whenConnected(), limit=300)
        made[-1].transport.write(b"back\r\n")
        self.tailnet.settle(3)
        self.assertEqual(b"echo back\r\n", made[-1].data)
        self.tailnet.wait(again.stopListening())

    def test_nodeStopTellsProtocols(self) -> None:
        """When a node stops, protocols on both sides hear of the end."""
        client, server = Recorder(), Recorder()
        self.listen(7, factoryFor(server))
        self.tailnet.wait(self.a.clientEndpoint("b", 7).connect(factoryFor(client)))
        client.transport.write(b"last words")
        self.tailnet.wait(self.a.stopService())
        self.assertEqual(["made", "lost"], client.events)
        self.tailnet.settle(5)
        self.assertEqual(b"last words", server.data)
        self.assertEqual(["made", "lost"], server.events)
        self.assertIsInstance(server.lost, ConnectionDone)

    def test_nodeStopTellsTheStubborn(self) -> None:
        """Connections that cannot be flushed end too, and so does an attempt."""
        client, server = Recorder(), HalfCloser()
        self.listen(7, factoryFor(server))
        self.tailnet.wait(self.a.clientEndpoint("b", 7).connect(factoryFor(client)))
        self.tailnet.settle()
        server.transport.pauseProducing()
        producer = PushProducer(client.transport, 50_000_000)
        producer.start()
        self.tailnet.settle(5)
        attempt = self.a.clientEndpoint("100.64.99.99", 1, timeout=500).connect(
            factoryFor(Recorder())
        )
        self.tailnet.settle()
        self.tailnet.wait(self.a.stopService())
        self.assertEqual("stop", producer.events[-1])
        self.assertIsNotNone(client.lost)
        self.assertIsNotNone(self.failureResultOf(attempt))
        self.tailnet.settle(10)
        self.assertIsInstance(server.lost, ConnectionLost)

    def test_portOutlivesStop(self) -> None:
        """A port that is not stopped works again when its node does."""
        self.listen(7, factoryFor(Recorder(), Recorder()))
        for _ in range(2):
            client = Recorder()
            self.tailnet.wait(
                self.a.clientEndpoint("b", 7).connect(factoryFor(client)), limit=100
            )
            client.transport.loseConnection()
            self.tailnet.settle()
            self.tailnet.wait(self.b.stopService())
            self.b.startService()
            self.tailnet.waitUp("b")
            self.tailnet.settle(5)

    def test_whois(self) -> None:
        """What getPeer gives tells who is calling."""
        server = Recorder()
        self.listen(7, factoryFor(server))
        client = Recorder()
        self.tailnet.wait(self.a.clientEndpoint("b", 7).connect(factoryFor(client)))
        self.tailnet.settle()
        caller = self.b.whois(server.transport.getPeer())
        self.assertEqual("a", caller.node.name.split(".")[0])
        client.transport.loseConnection()
        self.tailnet.settle()

    def test_halfClose(self) -> None:
        """A half-closed connection carries the other direction on."""
        client, server = HalfCloser(), HalfCloser()
        self.listen(7, factoryFor(server))
        self.tailnet.wait(self.a.clientEndpoint("b", 7).connect(factoryFor(client)))
        client.transport.write(b"request")
        client.transport.loseWriteConnection()
        self.tailnet.settle()
        self.assertIn("read lost", server.events)
        server.transport.write(MEGABYTE)
        server.transport.loseConnection()
        self.tailnet.settle(10)
        self.assertEqual(MEGABYTE, client.data)
        self.assertIsInstance(client.lost, ConnectionDone)

    def test_bodyFromPullProducer(self) -> None:
        """A static file's pull producer feeds a connection of the tailnet."""
        cooperateOn(self, self.tailnet.clock)
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "file").write_bytes(MEGABYTE)
        self.listen(80, Site(File(str(directory)), reactor=self.tailnet.clock))
        response = self.tailnet.wait(self.a.agent().request(b"GET", b"http://b/file"))
        self.assertEqual(MEGABYTE, self.tailnet.wait(readBody(response)))

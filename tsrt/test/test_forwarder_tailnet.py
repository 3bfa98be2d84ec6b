"""A node that leads to other networks: what gets through, what does not, how it ends."""

from __future__ import annotations

from errno import EMFILE
from typing import Any

from hamcrest import assert_that, has_entries
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    NoRouteError,
)
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.addresses import Prefix, formatAddress, viaPrefix
from tsrt.errors import ConfigError
from tsrt.failures import TailnetTimeout
from tsrt.interfaces import IHostPinger
from tsrt.node import Node
from tsrt.services.forwarder.caps import ForwardLimits
from tsrt.services.forwarder.egress import DirectEgress, HostExitEgress, ProxyEgress
from tsrt.services.forwarder.service import Forwarder
from tsrt.test.faultworld import Echo, FaultTestCase, Gather
from tsrt.testing.tailnet import TestTailnet

INTERNET = "203.0.113.80"
OFFICE = "10.20.0.5"
OFFICE_NET = "10.20.0.0/16"
PROXY = "192.0.2.99"


class EchoDatagrams(DatagramProtocol):
    """Sends back what comes, and remembers from whom."""

    def __init__(self, sources: list[tuple[str, int]]) -> None:
        self._sources = sources

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self._sources.append(addr)
        self.transport.write(datagram, addr)


class Collect(DatagramProtocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, tuple[str, int]]] = []
        self.refusals = 0

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.received.append((datagram, addr))

    def connectionRefused(self) -> None:
        self.refusals += 1


@implementer(IHalfCloseableProtocol)
class AnswersAtTheEnd(Protocol):
    """Says how much it got, once the other side has said all."""

    def __init__(self) -> None:
        self.count = 0

    def dataReceived(self, data: bytes) -> None:
        self.count += len(data)

    def readConnectionLost(self) -> None:
        self.transport.write(b"%d bytes" % self.count)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass


@implementer(IHalfCloseableProtocol)
class SaysAll(Gather):
    """Sends, ends its own side, and keeps what comes."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def connectionMade(self) -> None:
        self.transport.write(self._data)
        self.transport.loseWriteConnection()

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass


@implementer(IHostPinger)
class FakePinger:
    """Hosts answer, or not."""

    def __init__(self) -> None:
        self.pinged: list[str] = []
        self.answers = True

    def ping(self, address: str, payload: bytes) -> Deferred[None]:
        """See L{IHostPinger}."""
        self.pinged.append(address)
        return succeed(None) if self.answers else fail(TailnetTimeout("nobody"))

    def stop(self) -> None:
        """See L{IHostPinger}."""


class ForwarderTestCase(FaultTestCase):
    """Node C{a} uses node C{x}, which leads to C{office} and C{outside}."""

    settings: dict[str, Any] = {"advertiseRoutes": [OFFICE_NET]}
    names = ("a",)

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=self.names)
        self.addCleanup(self.net.close)
        internet = self.net.internet
        self.office = internet.host("office", [OFFICE])
        self.outside = internet.host("outside", [INTERNET])
        self.sources: list[str] = []
        self.asked: list[tuple[str, int]] = []
        for host in (self.office, self.outside):
            host.listenTCP(80, self.factory(Echo))
            host.listenTCP(81, self.factory(AnswersAtTheEnd))
            for port in (53, 5000):
                host.listenUDP(port, EchoDatagrams(self.asked))
        self.router = self.net.addNode("x", **self.settings)
        self.net.waitUp("x")
        self.net.control.approveRoutes("x")
        self.net["a"].setPreferences(acceptRoutes=True)
        self.net.settle(3)
        self.pinger = FakePinger()
        self.forwarder._echo._pinger = self.pinger

    def factory(self, protocol: type[Protocol]) -> Factory:
        """A server that notes who comes."""

        def build(addr: Any) -> Protocol:
            self.sources.append(addr.host)
            return protocol()

        factory = Factory()
        factory.buildProtocol = build
        return factory

    @property
    def forwarder(self) -> Forwarder:
        """The forwarder of C{x}."""
        found = self.router.getServiceNamed("forwarder")
        assert isinstance(found, Forwarder)
        return found

    def counted(self, **expected: int) -> None:
        """The counters of the forwarder are at least as given."""
        assert_that(self.router._forwarding.counters.snapshot(), has_entries(expected))

    def dial(
        self,
        address: str,
        port: int = 80,
        protocol: Protocol | None = None,
        name: str = "a",
    ) -> object:
        """Try to connect from a node; the protocol, or what went wrong."""
        made = Gather() if protocol is None else protocol
        factory = Factory()
        factory.protocol = lambda: made
        attempt = self.net[name].clientEndpoint(address, port, timeout=30)
        results: list[object] = []
        attempt.connect(factory).addCallbacks(
            results.append, lambda failure: results.append(failure.value)
        )
        self.net.elapse(31 if not results else 0)
        return results[0]

    def talks(self, address: str, port: int = 80) -> Gather:
        """TCP gets there and back."""
        client = self.dial(address, port)
        assert isinstance(client, Gather), client
        client.transport.write(b"hello")
        self.net.elapse(2)
        self.assertEqual(bytes(client.received), b"hello")
        return client

    def refused(self, address: str, port: int = 80) -> None:
        """A connection is refused, and nobody hears of it."""
        before = list(self.sources)
        self.assertIsInstance(self.dial(address, port), ConnectError)
        self.assertEqual(self.sources, before)

    def asks(self, address: str, port: int = 53) -> Collect:
        """Send a datagram, and give time for the answer."""
        client = Collect()
        bound = self.net["a"].reactor.listenUDP(0, client)
        self.addCleanup(bound.stopListening)
        assert client.transport is not None
        client.transport.connect(address, port)
        client.transport.write(b"question", None)
        self.net.elapse(3)
        return client


class SubnetRouterTests(ForwarderTestCase):
    """Networks that the node was told to lead to."""

    def test_tcp(self) -> None:
        """A connection gets there, from the address of the router."""
        client = self.talks(OFFICE)
        [address] = self.sources
        self.assertIn(address, self.router._hostReactor.addresses)
        self.assertEqual(len(self.forwarder.tcp.flows), 1)
        client.transport.loseConnection()
        self.net.elapse(2)
        self.assertEqual(self.forwarder.tcp.flows, {})
        self.counted(tcpFlows=1)

    def test_T_half_close(self) -> None:
        """One direction's end does not cut the other."""
        client = SaysAll(b"x" * 300_000)
        self.dial(OFFICE, 81, client)
        self.net.elapse(10)
        self.assertEqual(bytes(client.received), b"300000 bytes")
        self.assertTrue(client.reason.check(ConnectionDone))
        self.net.elapse(5)
        self.assertEqual(self.forwarder.tcp.flows, {})

    def test_refusal(self) -> None:
        """A port that is closed over there is closed for the peer."""
        started = self.net.clock.seconds()
        self.refused(OFFICE, 4444)
        self.assertEqual(self.forwarder.tcp.flows, {})
        self.counted(droppedFailed=1)
        self.assertLess(self.net.clock.seconds() - started, 60)

    def test_noMoreFiles(self) -> None:
        """A host without a free file refuses, and the log says what to do, once."""
        said: list[str] = []

        def note(event: Any) -> None:
            if event.get("log_namespace") == "tsrt.forwarder":
                said.append(formatEvent(event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)

        class Full:
            def connect(self, factory: object) -> Deferred[Any]:
                return fail(ConnectError(EMFILE, "Too many open files"))

        self.patch(self.forwarder.tcp._egress, "endpoint", lambda to, port: Full())
        for _ in range(3):
            self.refused(OFFICE)
        self.assertEqual(len([text for text in said if "ulimit" in text]), 2)
        self.counted(droppedFailed=3)

    def test_R_FW_7_dialTimeout(self) -> None:
        """A host that does not answer is given up after ten seconds."""
        self.office.firewall = lambda kind, address, port: False
        results: list[object] = []
        endpoint = self.net["a"].clientEndpoint("10.20.9.9", 80, timeout=60)
        endpoint.connect(Factory.forProtocol(Gather)).addBoth(results.append)
        self.net.elapse(9)
        self.assertEqual(results, [])
        self.assertEqual(len(self.forwarder.tcp.flows), 1)
        self.net.elapse(4)
        self.assertEqual(len(results), 1)
        self.assertEqual(self.forwarder.tcp.flows, {})

    def test_udp(self) -> None:
        """Datagrams get there and back, as if from there."""
        client = self.asks(OFFICE)
        self.assertEqual(client.received, [(b"question", (OFFICE, 53))])
        [(address, _)] = self.asked
        self.assertIn(address, self.router._hostReactor.addresses)
        self.counted(udpFlows=1)

    def test_R_FW_7_udpIdle(self) -> None:
        """A silent flow gives its socket back; sooner if it asked a name server."""
        self.asks(OFFICE)
        self.asks(OFFICE, 5000)
        self.assertEqual(len(self.forwarder.udp.flows()), 2)
        self.net.elapse(60)
        self.assertEqual(len(self.forwarder.udp.flows()), 1)
        self.net.elapse(120)
        self.assertEqual(self.forwarder.udp.flows(), [])
        self.assertEqual(len(self.router._forwarding.stack._datagrams), 0)
        client = self.asks(OFFICE)
        self.assertEqual(len(client.received), 1)

    def test_manyUDP(self) -> None:
        """Flows are told apart by both ends."""
        clients = [self.asks(OFFICE) for _ in range(3)]
        for client in clients:
            self.assertEqual(len(client.received), 1)
        self.assertEqual(len(set(self.asked)), 3)

    def test_ping(self) -> None:
        """A host that answers pings answers those of peers."""
        result = self.net.wait(self.net["a"].ping(OFFICE))
        self.assertEqual(result.address, OFFICE)
        self.assertEqual(self.pinger.pinged, [OFFICE])
        self.pinger.answers = False
        silent = self.net["a"].ping(OFFICE, timeout=2)
        self.net.elapse(3)
        self.failureResultOf(silent, TailnetTimeout)
        self.counted(pings=1)

    def test_cannotPing(self) -> None:
        """Where a host lets nobody ping, peers get no answer and the log says so."""
        self.forwarder._echo._pinger = self.forwarder._pinger
        for _ in range(2):
            silent = self.net["a"].ping(OFFICE, timeout=2)
            self.net.elapse(3)
            self.failureResultOf(silent, TailnetTimeout)

    def test_R_FW_1_notAdvertised(self) -> None:
        """A peer that sends to other networks reaches nothing there."""
        # As if control had told the peer more than was offered.
        self.net["a"]._engine.datapath._routes.insert(
            Prefix.parse("0.0.0.0/0"), self.peerKey("x")
        )
        before = list(self.sources)
        results: list[object] = []
        endpoint = self.net["a"].clientEndpoint(INTERNET, 80, timeout=20)
        endpoint.connect(Factory.forProtocol(Gather)).addBoth(results.append)
        self.net.elapse(21)
        self.assertEqual(self.sources, before)
        self.assertGreater(self.router._engine.packetFilter.counters.droppedNotLocal, 0)

    def peerKey(self, name: str) -> bytes:
        """The key of a peer of C{a}."""
        peer = self.net["a"].peerByName(name)
        assert peer is not None
        return peer.key.raw

    def test_R_FWD_3_ownStack(self) -> None:
        """The stack of applications takes packets to its own addresses only."""
        self.assertFalse(self.router._overlay.stack._ingress._anyAddress)
        self.assertTrue(self.router._forwarding.stack._ingress._anyAddress)
        # What listens on the router is not reached by another address.
        heard: list[Any] = []
        factory = Factory()
        factory.buildProtocol = heard.append
        self.successResultOf(self.router.serverEndpoint(4444).listen(factory))
        self.refused(OFFICE, 4444)
        self.assertEqual(heard, [])

    def test_liveChanges(self) -> None:
        """Routes come and go while the node runs; flows go with them."""
        client = self.talks(OFFICE)
        self.asks(OFFICE)
        self.router.setPreferences(advertiseRoutes=["10.30.0.0/16"])
        self.assertEqual(self.forwarder.udp.flows(), [])
        self.net.elapse(3)
        self.assertEqual(self.forwarder.tcp.flows, {})
        self.assertTrue(client.reason.check(ConnectionLost))
        [record] = [n for n in self.net.control.nodes() if n.name == "x"]
        self.assertEqual(record.hostinfo.routableIPs, ["10.30.0.0/16"])
        self.router.setPreferences(advertiseRoutes=[OFFICE_NET])
        self.net.settle(3)
        self.talks(OFFICE)
        self.router.setPreferences(advertiseRoutes=[])
        self.net.settle(3)
        self.assertFalse(self.router._forwarding.table)
        self.assertIsNone(record.hostinfo.routableIPs)

    def test_R_GLB_6_approval(self) -> None:
        """What was not approved no peer sends here; what was is counted."""
        self.talks(OFFICE)
        self.assertEqual(
            self.routeMetrics(), ["advertised_routes 1", "approved_routes 1"]
        )
        self.net.control.approveRoutes("x", [])
        self.net.elapse(3)
        self.assertEqual(
            self.routeMetrics(), ["advertised_routes 1", "approved_routes 0"]
        )
        self.assertIsInstance(self.dial(OFFICE), NoRouteError)

    def routeMetrics(self) -> list[str]:
        """What the metrics say of routes."""
        lines = self.router.metricsText().splitlines()
        return [
            line.removeprefix("tailscaled_")
            for line in lines
            if "_routes " in line and not line.startswith("#")
        ]

    def test_badRoutes(self) -> None:
        """A route that cannot be is refused, and changes nothing."""
        before = self.router.preferences
        for routes in (
            ["10.20.0.1/16"],
            ["2001:db8::/32"],
            ["127.0.0.0/8"],
            "10.0.0.0/8",
        ):
            self.assertRaises(
                ConfigError, self.router.setPreferences, advertiseRoutes=routes
            )
        for route in ("2001:db8::/32", "0.0.0.0/0", "127.0.0.0/8"):
            self.assertRaises(
                ConfigError,
                self.router.setPreferences,
                advertiseRoutes=[Prefix.parse(route)],
            )
        self.assertEqual(self.router.preferences, before)

    def test_stop(self) -> None:
        """A node that stops leaves no connection and no socket behind."""
        self.talks(OFFICE)
        self.asks(OFFICE)
        host = self.router._hostReactor
        self.net.wait(self.router.stopService())
        self.net.elapse(1)
        self.assertEqual(host.streams, [])
        self.assertEqual(self.forwarder.tcp.flows, {})
        self.assertEqual(self.forwarder.udp.flows(), [])
        self.router.startService()
        self.net.waitUp("x")
        self.net.elapse(3)
        self.talks(OFFICE)

    def test_peerGone(self) -> None:
        """A flow whose peer is silent for ever ends."""
        self.talks(OFFICE)
        host = self.net["a"]._hostReactor
        host.firewall = lambda kind, address, port: False
        host.crash()
        self.net.elapse(1200)
        self.assertEqual(self.forwarder.tcp.flows, {})

    def test_R_FW_7_tcpIdle(self) -> None:
        """So does one in which nothing is said for two hours."""
        self.talks(OFFICE)
        self.net.elapse(7000)
        self.assertEqual(len(self.forwarder.tcp.flows), 1)
        self.net.elapse(600)
        self.assertEqual(self.forwarder.tcp.flows, {})


class TwoRoutersTests(ForwarderTestCase):
    """Two nodes lead to the same network."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.net.addNode("y", **self.settings)
        self.net.waitUp("y")
        self.net.control.approveRoutes("y")
        self.net.elapse(3)

    def test_routeMoves(self) -> None:
        """When one goes the other has the network, and flows with it."""
        client = self.asks(OFFICE)
        self.talks(OFFICE)
        [address] = set(self.sources)
        first = "x" if address in self.router._hostReactor.addresses else "y"
        self.net.wait(self.net[first].stopService())
        self.net.elapse(30)
        second = self.other if first == "x" else self.router
        self.talks(OFFICE)
        self.assertIn(self.sources[-1], second._hostReactor.addresses)
        # A flow of datagrams goes on by the other, without a word.
        client.transport.write(b"again", None)
        self.net.elapse(3)
        self.assertEqual(client.received[-1], (b"again", (OFFICE, 53)))
        self.assertEqual(second._forwarding.counters.udpFlows, 1)


class LimitsTests(ForwarderTestCase):
    """As many flows as there may be, and no more."""

    def limit(self, **limits: int) -> None:
        """Set other limits."""
        new = ForwardLimits(**limits)
        for part, most, each in (
            (self.forwarder.tcp, new.tcp, new.tcpPerPeer),
            (self.forwarder.udp, new.udp, new.udpPerPeer),
            (self.forwarder._echo, new.pings, new.pingsPerPeer),
        ):
            part._caps._most, part._caps._mostPerPeer = most, each

    def test_T_flow_caps_perPeer(self) -> None:
        """One peer has its share; another peer still has its own."""
        self.limit(tcpPerPeer=2, udpPerPeer=1)
        first = self.talks(OFFICE)
        self.talks(OFFICE)
        self.refused(OFFICE)
        self.counted(droppedFull=1)
        self.net.addNode("b", acceptRoutes=True)
        self.net.waitUp("b")
        self.net.settle(3)
        self.assertIsInstance(self.dial(OFFICE, name="b"), Gather)
        # Who ends one may have another.
        first.transport.loseConnection()
        self.net.elapse(2)
        self.talks(OFFICE)
        self.assertEqual(len(self.asks(OFFICE).received), 1)
        self.assertEqual(len(self.asks(OFFICE).received), 0)

    def test_T_flow_caps_global(self) -> None:
        """All together have no more than the node can carry."""
        self.limit(tcp=1)
        self.talks(OFFICE)
        self.net.addNode("b", acceptRoutes=True)
        self.net.waitUp("b")
        self.net.settle(3)
        self.assertIsInstance(self.dial(OFFICE, name="b"), ConnectError)

    def test_countedBeforeTheDial(self) -> None:
        """Attempts count, so that dead addresses cost no more than others."""
        self.limit(tcpPerPeer=1)
        endpoint = self.net["a"].clientEndpoint("10.20.9.9", 80, timeout=60)
        attempt = endpoint.connect(Factory.forProtocol(Gather))
        self.net.elapse(1)
        self.assertIsInstance(self.dial(OFFICE), ConnectError)
        self.failureResultOf(attempt)
        self.talks(OFFICE)


class PortsTests(ForwarderTestCase):
    """Only some ports are forwarded."""

    settings = {
        "advertiseRoutes": [OFFICE_NET],
        "forwardTCPPorts": ["80"],
        "forwardUDPPorts": [],
    }

    def test_listed(self) -> None:
        """The ports that were named, and no others."""
        self.talks(OFFICE)
        self.refused(OFFICE, 81)
        client = self.asks(OFFICE)
        self.assertEqual(client.received, [])
        self.assertEqual(client.refusals, 1)
        self.counted(droppedPort=2)

    def test_R_FWD_4_portsAndDoor(self) -> None:
        """Which ports are forwarded has no say in what leaves for the internet."""
        for ports in (None, [], ["1-65535"]):
            node = self.net.addNode(
                f"n{ports}"[:9].strip("['"),
                start=False,
                forwardTCPPorts=ports,
                advertiseExitNode=True,
            )
            found = node.getServiceNamed("forwarder")
            assert isinstance(found, Forwarder)
            self.assertIsInstance(found.tcp._egress, DirectEgress)


class ExitNodeTests(ForwarderTestCase):
    """The rest of the world, by the host of the node."""

    settings = {"advertiseExitNode": True, "forwardExitEgress": True}

    def setUp(self) -> None:
        super().setUp()
        self.net["a"].setPreferences(exitNode="x")
        self.net.settle(2)

    def test_works(self) -> None:
        """TCP, UDP and pings to the internet."""
        self.assertIsInstance(self.forwarder.tcp._egress, HostExitEgress)
        self.talks(INTERNET)
        self.assertEqual(len(self.asks(INTERNET).received), 1)
        self.assertEqual(self.net.wait(self.net["a"].ping(INTERNET)).address, INTERNET)
        [address] = self.sources
        self.assertIn(address, self.router._hostReactor.addresses)

    def test_R_FW_5_T_hostexit_refused(self) -> None:
        """Nothing that is near the exit node, but the internet."""
        for address in (
            OFFICE,
            "127.0.0.1",
            "169.254.169.254",
            "192.168.1.1",
            "100.64.0.77",
            "100.100.100.100",
        ):
            self.refused(address)
            self.assertEqual(self.asks(address).received, [])
        self.assertNotEqual(self.router._forwarding.counters.droppedForbidden, 0)
        self.assertEqual(self.asked, [])

    def test_R_FW_6_R_GLB_2_onlyIPv4(self) -> None:
        """IPv6 is refused at once, so that programs use IPv4."""
        started = self.net.clock.seconds()
        results: list[tuple[float, BaseException]] = []
        endpoint = self.net["a"].clientEndpoint("2001:db8::80", 80, timeout=20)

        def refused(failure: Failure) -> None:
            results.append((self.net.clock.seconds(), failure.value))

        endpoint.connect(Factory.forProtocol(Gather)).addCallbacks(self.fail, refused)
        self.net.elapse(21)
        [(when, error)] = results
        self.assertIsInstance(error, ConnectError)
        self.assertLess(when - started, 2)
        self.counted(droppedIPv6=1)
        for _, interface, _ in self.router._hostReactor._ports:
            self.assertNotIn(":", interface.replace("::", ""))

    def test_noLeakOfTheTailnet(self) -> None:
        """The exit node's other peers are not reached by it."""
        self.net.addNode("b")
        self.net.waitUp("b")
        self.net.settle(2)
        [address] = [
            formatAddress(p)
            for p in self.net["a"].peerByName("b").packedAddresses()
            if len(p) == 4
        ]
        table = self.router._forwarding.table
        from tsrt.netmap.forwarding import Refusal

        self.assertIs(
            table.classify(bytes(map(int, address.split(".")))), Refusal.FORBIDDEN
        )


class NoEgressTests(ForwarderTestCase):
    """An exit node by name only."""

    settings = {"advertiseExitNode": True, "exitProxy": f"socks5://{PROXY}:1080"}

    def test_R_CFG_2_R_FWD_1_R_FW_2(self) -> None:
        """Offering lets nothing out, nor does a proxy that is configured."""
        self.assertIsInstance(self.forwarder.tcp._egress, DirectEgress)
        self.net["a"].setPreferences(exitNode="x")
        self.net.settle(2)
        self.refused(INTERNET)
        self.assertEqual(self.asks(INTERNET).received, [])
        ping = self.net["a"].ping(INTERNET, timeout=0.9)
        self.net.elapse(3)
        self.failureResultOf(ping, TailnetTimeout)
        self.assertEqual(self.pinger.pinged, [])
        self.counted(droppedExit=3)
        [text] = self.router.status.health
        self.assertIn("forwardExitEgress", text)
        self.router.setPreferences(advertiseExitNode=False)
        self.assertEqual(self.router.status.health, ())


class SOCKSServer(Protocol):
    """An upstream proxy: lets connections through, or answers as it is told."""

    wanted: list[tuple[str, int]]
    isBroken = False

    def __init__(self) -> None:
        self._state = 0

    def dataReceived(self, data: bytes) -> None:
        if self._state == 0:
            self.transport.write(b"\x05\x00")
        elif self._state == 1:
            address = ".".join(map(str, data[4:8]))
            self.wanted.append((address, int.from_bytes(data[8:10], "big")))
            code = b"\x01" if self.isBroken else b"\x00"
            self.transport.write(b"\x05" + code + b"\x00\x01\x00\x00\x00\x00\x00\x00")
        else:
            self.transport.write(data)
        self._state += 1


class ProxyTests(ForwarderTestCase):
    """All that is forwarded leaves by an upstream proxy."""

    settings = {
        "advertiseExitNode": True,
        "advertiseRoutes": [OFFICE_NET],
        "forwardExitEgress": True,
        "exitProxy": f"socks5://{PROXY}:1080",
    }

    def setUp(self) -> None:
        super().setUp()
        self.wanted: list[tuple[str, int]] = []
        self.proxy = self.net.internet.host("proxy", [PROXY])
        factory = Factory()
        factory.buildProtocol = self.proxied
        self.port = self.proxy.listenTCP(1080, factory)
        self.isBroken = False
        self.net["a"].setPreferences(exitNode="x")
        self.net.settle(2)

    def proxied(self, addr: Any) -> Protocol:
        protocol = SOCKSServer()
        protocol.wanted = self.wanted
        protocol.isBroken = self.isBroken
        return protocol

    def test_bothKinds(self) -> None:
        """Connections to subnets and to the internet, and nothing directly."""
        self.assertIsInstance(self.forwarder.tcp._egress, ProxyEgress)
        self.talks(INTERNET)
        self.talks(OFFICE)
        self.assertEqual(self.wanted, [(INTERNET, 80), (OFFICE, 80)])
        self.assertEqual(self.sources, [])

    def test_R_FW_3_R_FWD_2_noFallback(self) -> None:
        """A proxy that refuses, or is not there, lets nothing through."""
        self.isBroken = True
        self.refused(INTERNET)
        self.assertEqual(len(self.wanted), 1)
        self.port.stopListening()
        self.refused(INTERNET)
        self.refused(OFFICE)

    def test_R_FW_4_noDatagrams(self) -> None:
        """Neither datagrams nor pings leave."""
        self.assertEqual(self.asks(INTERNET).received, [])
        self.assertEqual(self.asks(OFFICE).received, [])
        ping = self.net["a"].ping(INTERNET, timeout=0.9)
        self.net.elapse(3)
        self.failureResultOf(ping, TailnetTimeout)
        self.assertEqual(self.asked, [])
        self.assertEqual(self.pinger.pinged, [])
        self.counted(droppedProxyUDP=3)

    def test_R_FW_5_guard(self) -> None:
        """The proxy is asked for nothing near it, either."""
        for address in ("127.0.0.1", "169.254.169.254", "192.168.1.1"):
            self.refused(address)
        self.assertEqual(self.wanted, [])

    def test_R_FW_8_R_CFG_1_secret(self) -> None:
        """Its password is not shown."""
        node = self.net.addNode(
            "s", start=False, exitProxy="socks5://user:hunter2@192.0.2.99:1080"
        )
        for thing in (node, node._config, node._config.exitProxy):
            self.assertNotIn("hunter2", repr(thing))


class ViaTests(ForwarderTestCase):
    """A site's network of IPv4, by addresses of IPv6."""

    settings = {"advertiseRoutes": [viaPrefix(7, Prefix.parse(OFFICE_NET)).text()]}

    def test_works(self) -> None:
        """TCP, UDP and pings get there by IPv4."""
        address = formatAddress(viaPrefix(7, Prefix.parse(f"{OFFICE}/32")).address)
        self.talks(address)
        self.assertEqual(self.asks(address).received, [(b"question", (address, 53))])
        self.assertEqual(self.net.wait(self.net["a"].ping(address)).address, address)
        self.assertEqual(self.pinger.pinged, [OFFICE])
        self.refused(formatAddress(viaPrefix(7, Prefix.parse("10.20.0.6/32")).address))


class EgressKindsTests(FaultTestCase):
    """Which door a configuration means."""

    def test_table(self) -> None:
        """All of it."""
        net = TestTailnet()
        self.addCleanup(net.close)
        proxy = "http://proxy.test:3128"
        for number, (egress, via, kind) in enumerate(
            (
                (False, None, DirectEgress),
                (False, proxy, DirectEgress),
                (True, None, HostExitEgress),
                (True, proxy, ProxyEgress),
            )
        ):
            node: Node = net.addNode(
                f"n{number}", start=False, forwardExitEgress=egress, exitProxy=via
            )
            found = node.getServiceNamed("forwarder")
            assert isinstance(found, Forwarder)
            for part in (found.tcp, found.udp, found._echo):
                self.assertIsInstance(part._egress, kind)

"""
Tests for L{tsrt.derp.tls}, L{tsrt.derp.upgrade} and L{tsrt.derp.dial}: which
relays are believed to be the right ones, and how they are reached.
"""

from __future__ import annotations

import datetime
import warnings

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP6ServerEndpoint
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tsrt.derp import dial
from tsrt.derp.dial import (
    CONNECT_TIMEOUT,
    NODE_DELAY,
    RegionDialer,
    RelayEndpoint,
    nodeAddresses,
    nodePort,
    relayNodes,
)
from tsrt.derp.failures import (
    RelayProtocolError,
    RelayRefused,
    RelayTimeout,
    RelayUnreachable,
)
from tsrt.derp.latency import measureLatency
from tsrt.derp.race import HOLD, Attempt, Race, RaceLost
from tsrt.derp.tls import META_PREFIX, RelayTLS, relayTLS, verifyPinned
from tsrt.derp.upgrade import UpgradeProtocol, upgradeRequest
from tsrt.errors import RelayCertificateError, WireError
from tsrt.tailcfg import DERPNode
from tsrt.test.relayworld import (
    HOME,
    Relayed,
    RelayTestCase,
    World,
    derpMap,
    node,
    region,
)
from tsrt.testing.certificates import metaCertificate, selfSigned
from tsrt.testing.links import Link
from tsrt.underlay.dial import StreamDialer

CERTIFICATE = selfSigned(["relay.example.com"])
STRANGER = selfSigned(["stranger.example.com"])
EXPIRED = selfSigned(["relay.example.com"], expired=True)


class TLSTestCase(SynchronousTestCase):
    """A relay that speaks TLS, and a client that means to find it."""

    def setUp(self) -> None:
        self.world = World()

    def relay(self, certificate=CERTIFICATE, **settings) -> None:
        """Start the relay."""
        self.relayHost, self.server = self.world.relay(
            certificate=certificate, **settings
        )

    def client(self, trustRoot=CERTIFICATE.trustRoot, **described) -> Relayed:
        """A client whose map describes the relay like that."""
        client = Relayed(self.world, "client", plain=False, trustRoot=trustRoot)
        client.pool.setMap(derpMap(region(HOME, node(**described))))
        client.pool.setHome(HOME)
        client.pool.startService()
        return client

    def accepted(self, **described) -> Relayed:
        """The client connects."""
        client = self.client(**described)
        self.world.until(lambda: client.pool.isConnected(HOME), limit=9)
        self.assertEqual(client.failures, [])
        return client

    def refused(self, **described) -> str:
        """The client refuses the certificate; what it says."""
        client = self.client(**described)
        self.world.until(lambda: bool(client.failures), limit=9)
        error = client.failures[0][1]
        self.assertIsInstance(error, RelayCertificateError)
        self.assertEqual(self.server.clients(), [])
        self.assertEqual(self.server.requests, {})
        self.assertIs(client.pool.status().regions[HOME].error, error)
        return str(error)


class CertificateTests(TLSTestCase):
    """Each way of judging a certificate."""

    def test_hostName(self) -> None:
        """A trusted certificate for the host name is right."""
        self.relay()
        self.accepted()

    def test_untrusted(self) -> None:
        """A certificate that leads nowhere is wrong, and says why."""
        self.relay()
        self.assertIn("self-signed", self.refused(trustRoot=STRANGER.trustRoot))

    def test_wrongName(self) -> None:
        """A trusted certificate for another name is wrong."""
        self.relay(STRANGER)
        self.assertIn("relay.example.com", self.refused(trustRoot=STRANGER.trustRoot))

    def test_expired(self) -> None:
        """A certificate whose time is over is wrong, and says why."""
        self.relay(EXPIRED)
        self.assertIn("expired", self.refused(trustRoot=EXPIRED.trustRoot))

    def test_certName(self) -> None:
        """The map may name another name for the certificate."""
        self.relay(STRANGER)
        self.accepted(trustRoot=STRANGER.trustRoot, certName="stranger.example.com")

    def test_certNameIsDemanded(self) -> None:
        """Then the host name itself does not do."""
        self.relay()
        self.assertIn(
            "stranger.example.com", self.refused(certName="stranger.example.com")
        )

    def test_certNameMustBeTrusted(self) -> None:
        """The other name is worth nothing without trust."""
        self.relay(STRANGER)
        self.refused(certName="stranger.example.com")

    def test_pinned(self) -> None:
        """The pinned certificate needs no authority."""
        self.relay()
        self.accepted(trustRoot=STRANGER.trustRoot, certName=CERTIFICATE.pin)

    def test_pinnedWithoutFastStart(self) -> None:
        """Pins do not depend on the certificate that tells the key."""
        self.relay(fastStart=False)
        self.accepted(certName=CERTIFICATE.pin)

    def test_R_DERPC_1_pinMismatch(self) -> None:
        """Another certificate than the pinned one is refused, though trusted."""
        self.relay()
        self.assertIn("pinned", self.refused(certName=STRANGER.pin))

    def test_R_DERPC_1_malformedPin(self) -> None:
        """A pin that is no hash matches nothing, not even by name."""
        self.relay()
        self.refused(certName="sha256-raw:relay.example.com")

    def test_R_DERPC_1_upperCasePin(self) -> None:
        """A pin is written in lower case."""
        self.relay()
        self.refused(certName="sha256-raw:" + CERTIFICATE.pin[11:].upper())

    def test_pinnedButForAnotherName(self) -> None:
        """A pinned certificate must still be for the host."""
        self.relay(STRANGER)
        self.refused(certName=STRANGER.pin)

    def test_pinnedButExpired(self) -> None:
        """A pinned certificate must still be valid."""
        self.relay(EXPIRED)
        self.assertIn("valid", self.refused(certName=EXPIRED.pin))

    def test_insecureForTests(self) -> None:
        """Where the map says so any certificate does."""
        self.relay(EXPIRED)
        self.accepted(trustRoot=STRANGER.trustRoot, insecureForTests=True)

    def test_address(self) -> None:
        """A relay may have an address for a name."""
        certificate = selfSigned(["192.0.2.1"])
        self.relay(certificate)
        client = Relayed(
            self.world, "client", plain=False, trustRoot=certificate.trustRoot
        )
        relay = DERPNode(name="1a", hostName="192.0.2.1", ipv4="192.0.2.1")
        client.pool.setMap(derpMap(region(HOME, relay)))
        client.pool.setHome(HOME)
        client.pool.startService()
        self.world.until(lambda: client.pool.isConnected(HOME))

    def test_R_DERPC_2_noPlainTextFallback(self) -> None:
        """A relay without TLS is not spoken to, whatever the map says."""
        self.relay(None)
        client = self.client(insecureForTests=True)
        self.world.elapse(60)
        self.assertEqual(client.connections, [])
        self.assertEqual(self.server.requests, {})
        self.assertTrue(client.failures)

    def test_slowRetry(self) -> None:
        """A wrong certificate is tried again now and then, and never fatal."""
        self.relay()
        client = self.client(trustRoot=STRANGER.trustRoot)
        self.world.elapse(600)
        self.assertTrue(5 <= len(client.failures) <= 25, len(client.failures))
        self.assertTrue(client.pool.status().regions[HOME].isOpen)
        self.world.result(client.pool.stopService())
        self.assertEqual(list(client.host.getDelayedCalls()), [])

    def test_failingJudgement(self) -> None:
        """When a judgement itself goes wrong the certificate is not right."""
        self.relay()

        def broken(connection: object) -> None:
            raise ZeroDivisionError("oops")

        self.patch(
            dial,
            "relayTLS",
            lambda node, trustRoot: RelayTLS(node.hostName, trustRoot, broken),
        )
        self.assertIn("oops", self.refused())

    def test_unjudged(self) -> None:
        """A dialer that does not use our TLS gets no word out of us."""
        self.relay()

        class Careless(StreamDialer):
            def endpoint(this, host, port, creator=None, address=None):
                lax = CertificateOptions(verify=False)
                return super().endpoint(host, port, lax, address)

        client = Relayed(self.world, "client", plain=False)
        client.pool._dialer = Careless(client.host)
        client.pool.setMap(derpMap(region(HOME, node())))
        client.pool.setHome(HOME)
        client.pool.startService()
        self.world.until(lambda: bool(client.failures))
        self.assertIsInstance(client.failures[0][1], RelayCertificateError)
        self.assertEqual(self.server.requests, {})

    def test_creator(self) -> None:
        """What makes connections has the interface for it."""
        verifyObject(
            IOpenSSLClientConnectionCreator,
            relayTLS(node(), CERTIFICATE.trustRoot),
        )


class PinTests(SynchronousTestCase):
    """The rules for pinned certificates, one by one."""

    def check(self, chain, name: str = "relay.example.com", days: float = 0) -> None:
        """Judge a chain C{days} from now."""
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        verifyPinned(chain, CERTIFICATE.pin.removeprefix("sha256-raw:"), name, now)

    def test_right(self) -> None:
        """The very certificate, alone or with a key's beside it."""
        self.check([CERTIFICATE.certificate])
        self.check([CERTIFICATE.certificate, metaCertificate(bytes(32))])
        self.check([CERTIFICATE.certificate], name="")

    def test_wrong(self) -> None:
        """None, two, another, at another time, for another name."""
        mine, other = CERTIFICATE.certificate, STRANGER.certificate
        for chain, name, days in (
            ([], "relay.example.com", 0),
            ([metaCertificate(bytes(32))], "relay.example.com", 0),
            ([mine, other], "relay.example.com", 0),
            ([mine, mine], "relay.example.com", 0),
            ([other], "stranger.example.com", 0),
            ([mine], "other.example.com", 0),
            ([mine], "192.0.2.1", 0),
            ([mine], "relay.example.com", 400),
            ([mine], "relay.example.com", -400),
        ):
            self.assertRaises(RelayCertificateError, self.check, chain, name, days)


class FastStartTests(TLSTestCase):
    """A server that tells its key early need not be waited for."""

    def roundTrips(self, **settings) -> float:
        """How many round trips it takes until the relay has let us in."""
        self.relay(**settings)
        self.world.internet.link = Link(delay=0.5)
        start = self.world.clock.seconds()
        self.accepted()
        return round(self.world.clock.seconds() - start, 2)

    def test_fastStart(self) -> None:
        """TCP, TLS, and login together with the upgrade: three round trips."""
        self.assertAlmostEqual(self.roundTrips(), 3.0, 1)

    def test_withoutMetaCertificate(self) -> None:
        """Without the key the upgrade takes one more."""
        self.assertAlmostEqual(self.roundTrips(fastStart=False), 4.0, 1)

    def test_notInOldTLS(self) -> None:
        """In TLS 1.2 certificates travel in the open: no fast start."""
        self.assertGreater(self.roundTrips(maximumTLS=SSL.TLS1_2_VERSION), 4.0)

    def test_slowNetwork(self) -> None:
        """Two seconds each way are slow, and no reason to do without relays."""
        for number, fastStart in enumerate((True, False)):
            self.setUp()
            self.relay(fastStart=fastStart)
            self.world.internet.link = Link(delay=2.0)
            client = self.client()
            self.world.until(lambda c=client: c.pool.isConnected(HOME), limit=40)
            self.assertEqual(len(client.failures), number)

    def test_packetsFlow(self) -> None:
        """After a fast start packets flow as after any other."""
        self.relay()
        alice = self.accepted()
        alice.pool.send(HOME, alice.public, [b"x"])
        self.world.until(lambda: alice.data == [b"x"])

    def test_forgedKey(self) -> None:
        """A key that the relay does not have ends in no login."""
        self.relay()
        self.server.privateRaw = bytes(31) + b"\x01"
        client = self.client()
        self.world.until(lambda: bool(client.failures), limit=20)
        self.assertEqual(client.connections, [])

    def test_prefix(self) -> None:
        """Client and server agree on how a key's certificate is called."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            name = metaCertificate(bytes(range(32))).subject.rfc4514_string()
        self.assertEqual(name, f"CN={META_PREFIX}{bytes(range(32)).hex()}")


class RequestTests(SynchronousTestCase):
    """The upgrade request."""

    def test_plain(self) -> None:
        """It asks for DERP and names the host."""
        lines = upgradeRequest("relay.example.com").decode().split("\r\n")
        self.assertEqual(lines[0], "GET /derp HTTP/1.1")
        self.assertIn("Host: relay.example.com", lines)
        self.assertIn("Upgrade: DERP", lines)
        self.assertIn("Connection: Upgrade", lines)
        self.assertEqual(lines[-2:], ["", ""])
        self.assertFalse([line for line in lines if "Fast" in line or "Ideal" in line])

    def test_options(self) -> None:
        """Fast start and the ideal node are told by headers."""
        lines = upgradeRequest("2001:db8::1", "1a", True).decode().split("\r\n")
        self.assertIn("Host: [2001:db8::1]", lines)
        self.assertIn("Ideal-Node: 1a", lines)
        self.assertIn("Derp-Fast-Start: 1", lines)

    def test_noInjection(self) -> None:
        """A map cannot put headers of its own into the request."""
        for host in ("", "a\r\nX: y", "a b", "a/b", "x" * 300, "\u00fc.example"):
            self.assertRaises(WireError, upgradeRequest, host)
        self.assertNotIn(b"X: y", upgradeRequest("a", "1a\r\nX: y"))


class NodeTests(SynchronousTestCase):
    """What a map says of a server."""

    def test_addresses(self) -> None:
        """Fixed addresses first, DNS where it is allowed."""
        for v4, v6, expected in (
            ("", "", [None]),
            ("192.0.2.1", "", ["192.0.2.1", None]),
            ("192.0.2.1", "none", ["192.0.2.1"]),
            ("none", "none", []),
            ("none", "2001:db8::1", ["2001:db8::1"]),
            ("192.0.2.1", "2001:db8::1", ["192.0.2.1", "2001:db8::1"]),
            ("2001:db8::1", "192.0.2.1", []),
            ("nonsense", "", [None]),
        ):
            described = DERPNode(ipv4=v4, ipv6=v6)
            self.assertEqual(list(nodeAddresses(described)), expected, (v4, v6))

    def test_ports(self) -> None:
        """Ports have defaults, with and without TLS."""
        self.assertEqual(nodePort(DERPNode()), 443)
        self.assertEqual(nodePort(DERPNode(), plain=True), 3340)
        self.assertEqual(nodePort(DERPNode(derpPort=8443), plain=True), 8443)

    def test_stunOnly(self) -> None:
        """Servers that only do STUN are passed over."""
        one, two = DERPNode(name="a", stunOnly=True), DERPNode(name="b")
        self.assertEqual(relayNodes(region(1, one, two)), [two])
        self.assertEqual(relayNodes(region(1)), [])
        described = region(1)
        described.nodes = None
        self.assertEqual(relayNodes(described), [])


class DialTests(RelayTestCase):
    """Which server of a region is taken."""

    def two(self) -> Relayed:
        """A client of a region with two servers, not running yet."""
        self.secondHost, self.second = self.world.relay("second")
        self.map = derpMap(region(HOME, node(), node("second")))
        return self.client("alice")

    def test_firstInOrder(self) -> None:
        """The first server is taken while it can be reached."""
        alice = self.two()
        self.world.until(lambda: alice.pool.isConnected(HOME))
        self.assertEqual(len(self.relay.clients()), 1)
        self.world.elapse(5)
        self.assertEqual(self.second.clients(), [])
        self.assertEqual(alice.pool.status().regions[HOME].node, "900relay")

    def test_refusedGoesOnAtOnce(self) -> None:
        """A server that refuses is passed over without delay."""
        self.relay.stopService()
        self.world.elapse(1)
        start = self.world.clock.seconds()
        alice = self.two()
        self.world.until(lambda: alice.pool.isConnected(HOME))
        self.assertLess(self.world.clock.seconds() - start, 1.0)
        self.assertEqual(alice.pool.status().regions[HOME].node, "900second")

    def test_silentGoesOnSoon(self) -> None:
        """A server that does not answer costs a second and a half."""
        self.relayHost.down = True
        start = self.world.clock.seconds()
        alice = self.two()
        self.world.until(lambda: alice.pool.isConnected(HOME))
        self.assertTrue(
            NODE_DELAY <= self.world.clock.seconds() - start < NODE_DELAY + 0.3
        )

    def test_slowFirstStillWins(self) -> None:
        """A slow server is not given up for the sake of the next."""
        self.world.internet.link = Link(delay=1.2)
        alice = self.client("alice")
        self.world.until(lambda: alice.pool.isConnected(HOME), limit=9)
        self.assertEqual(alice.failures, [])

    def test_verySlow(self) -> None:
        """Where ten seconds do not do the limit grows until they do."""
        self.world.internet.link = Link(delay=3.5)
        alice = self.client("alice")
        self.world.until(lambda: alice.pool.isConnected(HOME), limit=120)
        self.assertIsInstance(alice.failures[0][1], RelayTimeout)

    def test_idealNode(self) -> None:
        """The second server is told which one it stands in for."""
        self.relayHost.down = True
        alice = self.two()
        self.world.until(lambda: alice.pool.isConnected(HOME))
        [connection] = self.second.clients()
        self.assertEqual(connection.idealNode, "900relay")

    def test_noIdealNodeForTheFirst(self) -> None:
        """The first server is told nothing of the kind."""
        alice = self.two()
        self.world.until(lambda: alice.pool.isConnected(HOME))
        [connection] = self.relay.clients()
        self.assertEqual(connection.idealNode, "")

    def test_hungServer(self) -> None:
        """A server that connects and says nothing is given up in ten seconds."""
        self.relay.stopService()
        self.world.elapse(1)
        self.relayHost.listenTCP(443, Factory.forProtocol(Protocol))
        start = self.world.clock.seconds()
        alice = self.client("alice")
        self.world.until(lambda: bool(alice.failures))
        self.assertAlmostEqual(self.world.clock.seconds() - start, CONNECT_TIMEOUT, 1)
        self.assertIsInstance(alice.failures[0][1], RelayTimeout)

    def test_notARelay(self) -> None:
        """A server that says nonsense is named as such."""

        class Nonsense(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"220 mail.example.com ESMTP\r\n")

        self.relay.stopService()
        self.world.elapse(1)
        self.relayHost.listenTCP(443, Factory.forProtocol(Nonsense))
        alice = self.client("alice")
        self.world.until(lambda: bool(alice.failures))
        self.assertIsInstance(alice.failures[0][1], RelayProtocolError)

    def test_noServers(self) -> None:
        """A region without servers cannot be reached."""
        self.map = derpMap(region(HOME))
        alice = self.client("alice")
        self.world.until(lambda: bool(alice.failures))
        self.assertIsInstance(alice.failures[0][1], RelayUnreachable)

    def test_fixedAddress(self) -> None:
        """A server with a fixed address needs no DNS."""
        self.world.internet.unregister("relay.example.com")
        self.map = derpMap(region(HOME, node(ipv4=self.relayHost.addresses[0])))
        alice = self.client("alice")
        self.world.until(lambda: alice.pool.isConnected(HOME))

    def test_secondFamily(self) -> None:
        """Where one family leads nowhere the other is tried soon."""
        self.map = derpMap(
            region(
                HOME,
                node(ipv4="203.0.113.77", ipv6="none"),
                node(ipv4=self.relayHost.addresses[0]),
            )
        )
        alice = self.client("alice")
        self.world.until(lambda: alice.pool.isConnected(HOME), limit=2)

    def test_malformedName(self) -> None:
        """A malformed name in the map is a failure like any other."""
        address = self.relayHost.addresses[0]
        for name in ("a\r\nb", "\u00fc", ""):
            described = DERPNode(hostName=name, ipv4=address, derpPort=443)
            self.map = derpMap(region(HOME, described))
            alice = self.client(f"alice{name!r}", plain=False)
            self.world.until(lambda alice=alice: bool(alice.failures))
            self.assertIsInstance(alice.failures[0][1], RelayUnreachable)
        self.assertEqual(self.relay.requests, {})

    def test_malformedNameIsPassedOver(self) -> None:
        """A malformed name does not keep the next server from being tried."""
        self.map = derpMap(region(HOME, DERPNode(hostName="a b"), node()))
        alice = self.client("alice")
        self.world.until(lambda: alice.pool.isConnected(HOME))

    def test_uselessKey(self) -> None:
        """A relay whose key is no key is refused, and tried again."""
        self.relay.publicKey = bytes(32)
        alice = self.client("alice")
        self.world.until(lambda: len(alice.failures) > 2)
        self.assertIsInstance(alice.failures[0][1], RelayProtocolError)
        self.world.result(alice.pool.stopService())
        self.assertNothingLeft(alice.host)

    def test_preferredFamily(self) -> None:
        """Where IPv6 is preferred it is tried first."""
        self.world.internet.setAddresses(
            self.relayHost, [*self.relayHost.addresses, "2001:db8::1"]
        )
        TCP6ServerEndpoint(self.relayHost, 443).listen(
            Factory.forProtocol(self.relay._protocol)
        )
        host = self.world.internet.host("client", ["198.51.100.7", "2001:db8::7"])
        described = node(ipv4=self.relayHost.addresses[0], ipv6="2001:db8::1")
        for preferred, expected in ((True, "2001:db8::1"), (False, described.ipv4)):
            finder = RegionDialer(
                host,
                StreamDialer(host),
                region(HOME, described),
                lambda node, isTLS: UpgradeProtocol(node, "", isTLS),
                plain=True,
                preferIPv6=lambda preferred=preferred: preferred,
            )
            protocol = self.world.result(finder.dial(5))
            self.assertEqual(protocol.transport.getPeer().host, expected)
            protocol.abort()

    def test_unwanted(self) -> None:
        """A factory that wants no protocol after all ends the connection."""

        class Picky(Factory):
            def buildProtocol(self, addr):
                return None

        host = self.world.internet.host("client")
        endpoint = RelayEndpoint(
            host, StreamDialer(host), region(HOME, node()), plain=True
        )
        with self.assertRaises(NoProtocol):
            self.world.result(endpoint.connect(Picky()))
        self.assertIn("r900", repr(endpoint))
        self.world.elapse(0)
        self.assertEqual(host.streams, [])


class LatencyTests(RelayTestCase):
    """Measuring by HTTPS."""

    def measure(self, **settings) -> float:
        """Measure the region of the map."""
        host = self.world.internet.host(f"client{len(self.world.internet.hosts())}")
        measured = measureLatency(
            host, StreamDialer(host), self.map.regions[HOME], plain=True, **settings
        )
        try:
            return self.world.result(measured)
        finally:
            self.world.elapse(0)
            self.assertEqual(list(host.getDelayedCalls()), [])
            self.assertEqual(host.streams, [])

    def serve(self, answer: bytes, pieces: int = 1) -> None:
        """Answer every request like that, in pieces."""

        class Server(Protocol):
            def dataReceived(self, data: bytes) -> None:
                step = -(-len(answer) // pieces)
                for number in range(pieces):
                    self.factory.host.callLater(
                        number * 0.1,
                        self.transport.write,
                        answer[number * step : (number + 1) * step],
                    )

        self.world.result(self.relay.stopService())
        factory = Factory.forProtocol(Server)
        factory.host = self.relayHost
        self.relayHost.listenTCP(443, factory)

    def test_measured(self) -> None:
        """One round trip is measured, whatever came before it."""
        self.assertAlmostEqual(self.measure(), 0.02)
        self.assertEqual(self.relay.requests, {"/derp/latency-check": 1})

    def test_pieces(self) -> None:
        """The answer may come in pieces; what comes after it is ignored."""
        self.serve(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n" + b"z" * 20, 2)
        self.assertAlmostEqual(self.measure(), 0.12)

    def test_refused(self) -> None:
        """An error is no measurement."""
        self.serve(b"HTTP/1.1 503 Busy\r\n\r\n")
        with self.assertRaises(RelayRefused):
            self.measure()

    def test_malformed(self) -> None:
        """Nonsense is no measurement."""
        self.serve(b"hello")
        with self.assertRaises(RelayProtocolError):
            self.measure()

    def test_hangs(self) -> None:
        """A server that hangs is given up in the time allowed."""
        self.serve(b"")
        with self.assertRaises(RelayTimeout):
            self.measure(limit=2)

    def test_unreachable(self) -> None:
        """A region that is not there is no measurement."""
        self.world.result(self.relay.stopService())
        with self.assertRaises(RelayUnreachable):
            self.measure()


class RaceTests(SynchronousTestCase):
    """Attempts race each other."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.started: list[int] = []
        self.running: list[Deferred[int]] = []

    def race(self, count: int, delay: float = 1.0) -> Race[int]:
        """A race of so many attempts that has begun."""

        def start(number: int):
            def begin(gotSomewhere):
                self.started.append(number)
                self.gotSomewhere = gotSomewhere
                running: Deferred[int] = Deferred()
                self.running.append(running)
                return running

            return begin

        race = Race(self.clock, [Attempt(delay, start(n)) for n in range(count)])
        race.begin()
        return race

    def test_staggered(self) -> None:
        """Each has a head start before the next."""
        race = self.race(3)
        self.assertEqual(self.started, [0])
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.started, [0, 1, 2])
        self.running[1].callback(7)
        self.assertEqual(self.successResultOf(race.result), 7)
        for loser in (self.running[0], self.running[2]):
            self.assertTrue(loser.called)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failureGoesOn(self) -> None:
        """A failure starts the next at once; the last ends the race."""
        race = self.race(2)
        self.running[0].errback(ValueError("a"))
        self.assertEqual(self.started, [0, 1])
        self.running[1].errback(ValueError("b"))
        lost = self.failureResultOf(race.result, RaceLost)
        self.assertEqual([f.getErrorMessage() for f in lost.value.failures], ["a", "b"])

    def test_nobody(self) -> None:
        """A race of none is lost."""
        self.failureResultOf(self.race(0).result, RaceLost)

    def test_held(self) -> None:
        """An attempt that got somewhere holds the next back for a while."""
        self.race(2)
        self.clock.advance(0.9)
        self.gotSomewhere()
        self.clock.advance(HOLD - 0.1)
        self.assertEqual(self.started, [0])
        self.clock.advance(0.2)
        self.assertEqual(self.started, [0, 1])

    def test_cancel(self) -> None:
        """A cancelled race ends its attempts."""
        race = self.race(2)
        race.result.cancel()
        self.failureResultOf(race.result)
        self.assertTrue(self.running[0].called)
        self.clock.advance(5)
        self.assertEqual(self.started, [0])

"""Tests for connecting on the overlay: waiting, errors, time-outs, addresses."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    ServiceNameUnknownError,
    TCPTimedOutError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import (
    IConnector,
    IHostnameResolver,
    IReactorTCP,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyClass, verifyObject

from tsrt.addresses import parseAddress
from tsrt.endpoints import TailnetClientEndpoint
from tsrt.names import PATIENCE
from tsrt.overlay.connector import ATTEMPT_LIMIT, TailnetConnector
from tsrt.test.overlaynet import (
    A4,
    A6,
    B4,
    B6,
    OverlayNet,
    Recorder,
    RecordingFactory,
    factoryFor,
)


class ConnectTests(SynchronousTestCase):
    """C{connectTCP}."""

    def setUp(self) -> None:
        self.net = OverlayNet()
        self.factory = RecordingFactory()

    def connect(self, host: str = B4, port: int = 80, **more) -> IConnector:
        return self.net.a.tailnet.connectTCP(host, port, self.factory, **more)

    def assertFails(self, kind: type[BaseException], within: float = 1.0) -> str:
        self.net.elapse(within)
        self.assertEqual(["start", "connecting", "failed", "stop"], self.factory.events)
        self.assertIs(kind, type(self.factory.failure))
        self.net.elapse(400)
        self.assertEqual([], self.net.clock.getDelayedCalls())
        return str(self.factory.failure)

    def test_interface(self) -> None:
        """The connector is one."""
        self.assertTrue(verifyClass(IConnector, TailnetConnector))
        self.assertTrue(verifyObject(IConnector, self.connect()))
        self.assertTrue(verifyObject(IReactorTCP, self.net.a.tailnet))

    def test_destination(self) -> None:
        """The destination is what was asked for."""
        self.assertEqual(IPv4Address("TCP", B4, 80), self.connect().getDestination())
        self.assertEqual(IPv6Address("TCP", B6, 80), self.connect(B6).getDestination())
        self.assertEqual("b", self.connect("b").getDestination().host)

    def test_byName(self) -> None:
        """A name connects to the node's first address."""
        server = Recorder()
        self.net.b.tailnet.listenTCP(80, factoryFor(server))
        self.connect("b")
        self.net.elapse(1)
        self.assertEqual(["start", "connecting", "build"], self.factory.events)
        self.assertEqual(B4, self.factory.made.transport.getPeer().host)

    def test_serviceName(self) -> None:
        """A port may be the name of a service, if there is one."""
        self.assertEqual(80, self.connect(port="http").getDestination().port)
        with self.assertRaises(ServiceNameUnknownError):
            self.connect(port="no-such-service")

    def test_refused(self) -> None:
        """Nobody listens there."""
        self.connect()
        text = self.assertFails(ConnectionRefusedError)
        self.assertIn(f"{B4}:80 refused", text)

    def test_unknownName(self) -> None:
        """No node is called so."""
        self.connect("nobody")
        self.net.elapse(1)
        self.assertIs(DNSLookupError, type(self.factory.failure))
        self.assertIn("'nobody'", str(self.factory.failure))

    def test_timeout(self) -> None:
        """No answer within the time that the caller gives."""
        self.net.lose = lambda packet: True
        self.connect(timeout=7)
        self.net.elapse(6.9)
        self.assertEqual(["start", "connecting"], self.factory.events)
        text = self.assertFails(TimeoutError, 0.2)
        self.assertIn(f"{B4}:80 was not reached within 7 seconds", text)

    def test_noTimeout(self) -> None:
        """Without a time-out TCP gives up when all of its SYNs are lost."""
        self.net.lose = lambda packet: True
        self.connect(timeout=None)
        self.assertIn("did not answer", self.assertFails(TCPTimedOutError, 400))

    def test_noAddressOfThatFamily(self) -> None:
        """A node without IPv6 has no route to an IPv6 address."""
        self.net.a.stack.setAddresses([parseAddress(A4)])
        self.connect(B6)
        self.assertFails(NoRouteError)

    def test_secondAddress(self) -> None:
        """The next address of a name is tried when one refuses."""
        server = Recorder()
        self.net.b.tailnet.listenTCP(80, factoryFor(server), interface="v6")
        self.connect("b")
        self.net.elapse(1)
        self.assertEqual(B6, self.factory.made.transport.getPeer().host)

    def test_secondAddressAfterSilence(self) -> None:
        """The next address is tried when one does not answer for a while."""
        self.net.lose = lambda packet: packet[0] >> 4 == 4
        self.net.b.tailnet.listenTCP(80, factoryFor(Recorder()))
        self.connect("b")
        self.net.elapse(ATTEMPT_LIMIT - 0.1)
        self.assertNotIn("build", self.factory.events)
        self.net.elapse(0.2)
        self.assertEqual(B6, self.factory.made.transport.getPeer().host)

    def test_allAddressesFail(self) -> None:
        """When all addresses refuse, so does the connection."""
        self.connect("b")
        self.assertFails(ConnectionRefusedError)

    def test_unusableAddress(self) -> None:
        """Nobody can be connected to at a multicast address or a wrong port."""
        self.connect("224.0.0.1")
        self.assertFails(NoRouteError)

    def test_unusablePort(self) -> None:
        """A port out of range is an error of the connection."""
        self.connect(port=70_000)
        self.assertFails(ConnectError)

    def test_bindAddress(self) -> None:
        """The own address and port can be chosen."""
        self.net.b.tailnet.listenTCP(80, factoryFor(Recorder(), Recorder()))
        self.connect(bindAddress=(A4, 5555))
        self.net.elapse(1)
        self.assertEqual(
            IPv4Address("TCP", A4, 5555), self.factory.made.transport.getHost()
        )
        again = self.factory = RecordingFactory()
        self.connect(bindAddress=("", 5555))
        self.net.elapse(1)
        self.assertIs(ConnectBindError, type(again.failure))

    def test_bindAddressChoosesFamily(self) -> None:
        """An IPv6 address to bind to makes a name's IPv6 address the target."""
        self.net.b.tailnet.listenTCP(80, factoryFor(Recorder()))
        self.connect("b", bindAddress=(A6, 0))
        self.net.elapse(1)
        self.assertEqual(B6, self.factory.made.transport.getPeer().host)

    def test_bindWrongAddress(self) -> None:
        """An address that is not ours, or none at all, cannot be bound."""
        for wrong in (B4, "nonsense"):
            self.factory = RecordingFactory()
            self.connect(bindAddress=(wrong, 0))
            self.net.elapse(1)
            self.assertIs(ConnectBindError, type(self.factory.failure))
        self.factory = RecordingFactory()
        self.net.names["only4"] = [parseAddress(B4)]
        self.connect("only4", bindAddress=(A6, 0))
        self.assertFails(ConnectBindError)

    def test_stopConnecting(self) -> None:
        """stopConnecting ends the attempt at once, and the peer forgets it."""
        self.net.b.tailnet.listenTCP(80, factoryFor())
        connector = self.connect()
        self.net.elapse(0.007)
        connector.stopConnecting()
        self.assertIn("aborted", self.assertFails(UserError))
        self.assertEqual([], self.net.b.stack.flows())

    def test_stopConnectingAtOnce(self) -> None:
        """It works before anything was sent, too."""
        self.connect().stopConnecting()
        self.assertFails(UserError, 0)

    def test_disconnect(self) -> None:
        """disconnect ends an attempt, or the connection."""
        self.connect().disconnect()
        self.assertEqual(["start", "connecting", "failed", "stop"], self.factory.events)
        self.factory = RecordingFactory()
        self.net.b.tailnet.listenTCP(80, factoryFor(Recorder()))
        connector = self.connect()
        self.net.elapse(1)
        connector.disconnect()
        self.net.elapse(1)
        self.assertEqual(
            ["start", "connecting", "build", "lost", "stop"], self.factory.events
        )

    def test_connectAgain(self) -> None:
        """A connector can connect again, as reconnecting factories do."""
        self.net.b.tailnet.listenTCP(80, factoryFor(Recorder(), Recorder()))
        connector = self.connect()
        self.net.elapse(1)
        connector.disconnect()
        self.net.elapse(1)
        self.factory.made = Recorder()
        connector.connect()
        self.net.elapse(1)
        self.assertEqual(["made"], self.factory.made.events)

    def test_noProtocol(self) -> None:
        """A client factory that gives no protocol loses the connection."""
        server = Recorder()
        self.net.b.tailnet.listenTCP(80, factoryFor(server))
        self.factory.made = None
        self.connect()
        self.net.elapse(1)
        self.assertEqual(["made", "lost"], server.events)
        self.assertEqual(
            ["start", "connecting", "build", "lost", "stop"], self.factory.events
        )

    def test_stoppedNode(self) -> None:
        """What a node that stops does to connectors ends them in both states."""
        self.net.lose = lambda packet: True
        self.connect()
        self.net.elapse(1)
        [flow] = self.net.a.stack.flows()
        flow.owner.abortConnection()
        self.assertIn("stopped", self.assertFails(ConnectError))

    def test_lostAddressWhileConnecting(self) -> None:
        """Losing the own address ends an attempt."""
        self.net.lose = lambda packet: True
        self.connect()
        self.net.elapse(1)
        self.net.a.stack.setAddresses([])
        self.net.a.flush()
        self.assertFails(ConnectError)

    def test_otherResolver(self) -> None:
        """A resolver that is installed is asked for names."""

        @implementer(IHostnameResolver)
        class Resolver:
            def resolveHostName(self, receiver, hostName, portNumber=0, *rest):
                receiver.resolutionBegan(None)
                for host in ("fe80::1%eth0", B4):
                    receiver.addressResolved(IPv4Address("TCP", host, portNumber))
                receiver.resolutionComplete()
                receiver.resolutionComplete()

        self.net.b.tailnet.listenTCP(80, factoryFor(Recorder()))
        former = self.net.a.tailnet.installNameResolver(Resolver())
        self.connect("internal.example")
        self.net.elapse(1)
        self.assertEqual(B4, self.factory.made.transport.getPeer().host)
        self.net.a.tailnet.installNameResolver(former)


class BeforeUpTests(SynchronousTestCase):
    """Connecting and listening before the node has come up."""

    def setUp(self) -> None:
        self.net = OverlayNet(up=False)
        self.net.b.setUp()
        self.server = Recorder()
        self.net.b.tailnet.listenTCP(80, factoryFor(self.server))

    def attempt(self, host: str, timeout: float = 30):
        endpoint = TailnetClientEndpoint(lambda: self.net.a.tailnet, host, 80, timeout)
        return endpoint.connect(factoryFor(Recorder()))

    def test_waits(self) -> None:
        """Connections by name and by address wait for the node."""
        for host in ("b", B4):
            connecting = self.attempt(host)
            self.net.elapse(20)
            self.assertNoResult(connecting)
            if host == "b":
                connecting.addErrback(lambda failure: None)
                connecting.cancel()
        self.net.a.setUp()
        self.net.elapse(1)
        self.assertEqual(["made"], self.successResultOf(connecting).events)

    def test_waitsByName(self) -> None:
        """A name that nobody knew before the netmap came is found then."""
        self.net.names.clear()
        connecting = self.attempt("b")
        self.net.elapse(5)
        self.net.names["b"] = [parseAddress(B4)]
        self.net.a.setUp()
        self.net.elapse(1)
        self.successResultOf(connecting)

    def test_timeout(self) -> None:
        """Waiting for the node counts as connecting, for names and addresses."""
        for host in ("b", B4):
            connecting = self.attempt(host, timeout=12)
            self.net.elapse(11.9)
            self.assertNoResult(connecting)
            self.net.elapse(0.2)
            failure = self.failureResultOf(connecting, TimeoutError)
            self.assertIn("within 12 seconds", str(failure.value))
        self.assertEqual([], self.net.a._waiting)

    def test_cancel(self) -> None:
        """An attempt that waits can be cancelled."""
        for host in ("b", B4):
            connecting = self.attempt(host)
            self.net.elapse(1)
            connecting.cancel()
            self.failureResultOf(connecting, ConnectingCancelledError)
        self.assertEqual([], self.net.a._waiting)
        self.assertEqual([], self.net.clock.getDelayedCalls())

    def test_patienceOfLookUps(self) -> None:
        """A bare look-up gives up some time, so that nobody hangs."""
        connecting = HostnameEndpoint(self.net.a.tailnet, "b", 80).connect(
            factoryFor(Recorder())
        )
        self.net.elapse(PATIENCE - 1)
        self.assertNoResult(connecting)
        self.net.elapse(2)
        self.failureResultOf(connecting, DNSLookupError)

    def test_listen(self) -> None:
        """A port that was listened on before works afterwards."""
        server = Recorder()
        port = self.net.a.tailnet.listenTCP(81, factoryFor(server))
        self.assertEqual(IPv4Address("TCP", "0.0.0.0", 81), port.getHost())
        self.net.a.setUp()
        self.assertEqual(IPv4Address("TCP", A4, 81), port.getHost())
        factory = RecordingFactory()
        self.net.b.tailnet.connectTCP("a", 81, factory)
        self.net.elapse(1)
        self.assertEqual(["made"], server.events)

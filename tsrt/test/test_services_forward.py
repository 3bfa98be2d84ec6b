"""Tests for joining connections of the tailnet and of the host."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    wrapClientTLS,
    wrapServerTLS,
)
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tsrt.endpoints import TailnetClientEndpoint, TailnetServerEndpoint
from tsrt.services.forward import ForwardService, Half
from tsrt.test.overlaynet import (
    B4,
    HalfCloser,
    OverlayNet,
    PushProducer,
    Recorder,
    factoryFor,
    recordLog,
)
from tsrt.test.test_overlay_tls import clientOptions, serverOptions
from tsrt.testing.internet import MemoryInternet

HOST = "127.0.0.1"


class ForwardCase(SynchronousTestCase):
    """
    Node C{a} of the tailnet, node C{b}, and the host that C{b} runs on.

    @ivar near: the protocol of who connects.
    @ivar far: the protocol of the target.
    """

    def setUp(self) -> None:
        self.net = OverlayNet()
        self.host = MemoryInternet(self.net.clock).host("b")
        self.near: Recorder = HalfCloser()
        self.far: Recorder = HalfCloser()
        self.service: ForwardService | None = None

    def tearDown(self) -> None:
        if self.service is not None and self.service.running:
            self.net.wait(self.service.stopService())
        self.net.elapse(400)
        self.assertEqual([], self.net.clock.getDelayedCalls())

    def forward(self, listenOn, target, **more) -> None:
        self.service = ForwardService(listenOn, target, "test to test", **more)
        self.service.startService()

    def joinBoth(self) -> None:
        """Let a connection be joined; subclasses know how."""
        raise AssertionError


class IntoTheHost(ForwardCase):
    """A port of the tailnet is joined to a port of the host."""

    def start(self, **more) -> None:
        self.forward(
            TailnetServerEndpoint(lambda: self.net.b.tailnet, 80),
            TCP4ClientEndpoint(self.host, HOST, 8080),
            **more,
        )

    def listen(self, factory: Factory) -> None:
        self.host.listenTCP(8080, factory, interface=HOST)

    def attempt(self, protocol: Recorder) -> Deferred[object]:
        endpoint = TailnetClientEndpoint(lambda: self.net.a.tailnet, B4, 80)
        return endpoint.connect(factoryFor(protocol))


class OutOfTheHost(ForwardCase):
    """A port of the host is joined to a port of the tailnet."""

    def start(self, **more) -> None:
        self.forward(
            TCP4ServerEndpoint(self.host, 8080, interface=HOST),
            TailnetClientEndpoint(lambda: self.net.a.tailnet, B4, 80),
            **more,
        )

    def listen(self, factory: Factory) -> None:
        self.net.b.tailnet.listenTCP(80, factory)

    def attempt(self, protocol: Recorder) -> Deferred[object]:
        return TCP4ClientEndpoint(self.host, HOST, 8080).connect(factoryFor(protocol))


class PairTests:
    """What holds for both directions."""

    def joined(self) -> None:
        self.listen(factoryFor(self.far))
        self.start()
        self.net.wait(self.attempt(self.near))
        self.net.elapse(1)
        self.assertEqual(["made"], self.far.events)

    def test_exchange(self) -> None:
        """Bytes go both ways."""
        self.joined()
        self.near.transport.write(b"question" * 100_000)
        self.far.transport.write(b"answer" * 100_000)
        self.net.elapse(20)
        self.assertEqual(b"question" * 100_000, self.far.data)
        self.assertEqual(b"answer" * 100_000, self.near.data)
        self.near.transport.loseConnection()
        self.net.elapse(1)
        self.far.transport.loseConnection()

    def test_earlyData(self) -> None:
        """What is sent before the target is connected reaches it."""
        self.listen(factoryFor(self.far))
        self.start()
        self.near.connectionMade = lambda: self.near.transport.write(b"early")
        self.net.wait(self.attempt(self.near))
        self.net.elapse(1)
        self.assertEqual(b"early", self.far.data)
        self.near.transport.abortConnection()

    def test_targetSpeaksFirst(self) -> None:
        """What the target says at once reaches the other side."""
        self.listen(factoryFor(self.far))
        self.far.connectionMade = lambda: self.far.transport.write(b"220 welcome")
        self.start()
        self.net.wait(self.attempt(self.near))
        self.net.elapse(1)
        self.assertEqual(b"220 welcome", self.near.data)
        self.near.transport.abortConnection()

    def test_T_half_close(self) -> None:
        """One side's end is passed on alone; the answer still comes back."""
        self.joined()
        self.near.transport.write(b"all of the request")
        self.near.transport.loseWriteConnection()
        self.net.elapse(1)
        self.assertEqual(b"all of the request", self.far.data)
        self.assertEqual(["made", "read lost"], self.far.events)
        self.net.elapse(50)
        self.far.transport.write(b"x" * 500_000)
        self.far.transport.loseConnection()
        self.net.elapse(20)
        self.assertEqual(500_000, len(self.near.data))
        self.assertIn("read lost", self.near.events)
        self.near.transport.loseConnection()
        self.net.elapse(1)
        self.assertEqual(set(), self.service._joining.incoming)

    def test_T_half_close_ofTarget(self) -> None:
        """The same when the target ends first."""
        self.joined()
        self.far.transport.write(b"banner")
        self.far.transport.loseWriteConnection()
        self.net.elapse(1)
        self.assertEqual(b"banner", self.near.data)
        self.assertEqual(["made", "read lost"], self.near.events)
        self.near.transport.write(b"y" * 500_000)
        self.near.transport.loseConnection()
        self.net.elapse(20)
        self.assertEqual(500_000, len(self.far.data))
        self.far.transport.loseConnection()
        self.net.elapse(1)
        self.assertEqual(set(), self.service._joining.incoming)

    def test_bothEnd(self) -> None:
        """When both sides have ended nothing of the pair is left."""
        self.joined()
        self.near.transport.write(b"z" * 300_000)
        self.near.transport.loseWriteConnection()
        self.far.transport.loseWriteConnection()
        self.net.elapse(20)
        self.assertEqual(300_000, len(self.far.data))
        self.assertEqual(set(), self.service._joining.incoming)

    def test_reset(self) -> None:
        """A reset of one side is passed on as one."""
        self.joined()
        self.near.transport.abortConnection()
        self.net.elapse(1)
        self.assertIsInstance(self.far.lost, ConnectionLost)
        self.assertNotIsInstance(self.far.lost, ConnectionDone)

    def test_resetOfTarget(self) -> None:
        """Also if it comes from the target."""
        self.joined()
        self.far.transport.abortConnection()
        self.net.elapse(1)
        self.assertIsInstance(self.near.lost, ConnectionLost)

    def test_backPressure(self) -> None:
        """A slow target slows the other side; memory stays bounded."""
        self.joined()
        self.far.transport.pauseProducing()
        producer = PushProducer(self.near.transport, 30_000_000)
        producer.start()
        self.net.elapse(60)
        self.assertEqual("pause", producer.events[-1])
        self.assertLess(producer.written, 5_000_000)
        self.far.dataReceived = lambda data: None
        self.far.transport.resumeProducing()
        self.net.elapse(200)
        self.assertEqual("done", producer.events[-1])
        self.near.transport.abortConnection()

    def test_noTarget(self) -> None:
        """Without a target the connection is reset, and the log says why."""
        lines = recordLog(self)
        self.start()
        self.net.wait(self.attempt(self.near))
        self.net.elapse(1)
        self.assertIsInstance(self.near.lost, ConnectionLost)
        [line] = [text for text in lines() if "no connection for" in text]
        self.assertIn("test to test", line)
        self.assertIn("refused", line)

    def test_goneBeforeTheTarget(self) -> None:
        """Who leaves while the target is being connected is forgotten."""
        cancelled = []

        class Never:
            def connect(self, factory):
                return Deferred(cancelled.append)

        self.start()
        self.service._joining.target = Never()
        self.net.wait(self.attempt(self.near))
        self.net.elapse(1)
        self.near.transport.abortConnection()
        self.net.elapse(1)
        self.assertEqual(1, len(cancelled))
        self.assertEqual(set(), self.service._joining.incoming)

    def test_cap(self) -> None:
        """Beyond the cap connections are closed at once, and one line logged."""
        lines = recordLog(self)
        self.listen(factoryFor(*(HalfCloser() for _ in range(9))))
        self.start(most=2)
        made = [HalfCloser() for _ in range(5)]
        for protocol in made:
            self.net.wait(self.attempt(protocol))
            self.net.elapse(1)
        refused = [protocol for protocol in made if len(protocol.events) > 1]
        self.assertEqual(made[2:], refused)
        said = [text for text in lines() if "more than 2 connections" in text]
        self.assertEqual(1, len(said))
        made[0].transport.abortConnection()
        self.net.elapse(1)
        again = HalfCloser()
        self.net.wait(self.attempt(again))
        self.net.elapse(1)
        self.assertEqual(["made"], again.events)

    def test_stop(self) -> None:
        """Stopping closes the port and what is open, after flushing it."""
        self.joined()
        self.near.transport.write(b"last words")
        self.net.elapse(0.1)
        self.net.wait(self.service.stopService())
        self.net.elapse(2)
        self.assertEqual(b"last words", self.far.data)
        self.assertIn("read lost", self.far.events)
        self.assertIn("read lost", self.near.events)
        failing = self.attempt(Recorder())
        self.net.elapse(1)
        self.failureResultOf(failing)

    def test_stopWhileConnecting(self) -> None:
        """Stopping gives up attempts to reach the target."""

        class Never:
            def connect(self, factory):
                return Deferred()

        self.start()
        self.service._joining.target = Never()
        self.net.wait(self.attempt(self.near))
        self.net.elapse(1)
        self.net.wait(self.service.stopService())
        self.net.elapse(1)
        self.assertIsInstance(self.near.lost, ConnectionLost)

    def test_lateTarget(self) -> None:
        """A target that comes in spite of being cancelled is reset."""
        late: Deferred[object] = Deferred()

        class Stubborn:
            async def _wait(self):
                try:
                    await late
                except CancelledError:
                    return outgoing

            def connect(self, factory):
                return Deferred.fromCoroutine(self._wait())

        outgoing = Half()
        aborted = []

        class Transport:
            def abortConnection(self) -> None:
                aborted.append(True)

        outgoing.transport = Transport()
        self.start()
        self.service._joining.target = Stubborn()
        self.net.wait(self.attempt(self.near))
        self.net.elapse(1)
        self.near.transport.abortConnection()
        self.net.elapse(1)
        self.assertEqual([True], aborted)

    def test_restart(self) -> None:
        """After a stop the service can start again."""
        self.listen(factoryFor(self.far))
        self.start()
        self.net.wait(self.service.stopService())
        self.service.startService()
        self.net.wait(self.attempt(self.near))
        self.near.transport.write(b"again")
        self.net.elapse(1)
        self.assertEqual(b"again", self.far.data)
        self.near.transport.abortConnection()


class IntoTheHostTests(PairTests, IntoTheHost):
    """Each of them from the tailnet into the host."""

    def test_keepAlive(self) -> None:
        """The tailnet side finds out within minutes that a peer has gone."""
        self.joined()
        self.net.lose = lambda packet: True
        self.net.elapse(60 + 9 * 75 + 80)
        self.assertIsInstance(self.far.lost, ConnectionLost)
        self.near.transport.abortConnection()


class OutOfTheHostTests(PairTests, OutOfTheHost):
    """Each of them from the host into the tailnet."""

    def test_interface(self) -> None:
        """A half provides what transports look for."""
        self.assertTrue(verifyObject(IHalfCloseableProtocol, Half()))


class SocketTests(TestCase):
    """A pair of real sockets, which end in their own way."""

    timeout = 20

    def test_T_half_close_sockets(self) -> None:
        """Both ends are passed on, and everything that was sent arrives."""
        from twisted.internet import reactor

        near, far = HalfCloser(), HalfCloser()
        gone = [Deferred(), Deferred()]
        near.connectionLost = lambda reason=None: gone[0].callback(reason.value)
        far.connectionLost = lambda reason=None: gone[1].callback(reason.value)
        data = b"d" * 3_000_000

        def answer() -> None:
            far.transport.write(data)
            far.transport.loseWriteConnection()

        far.readConnectionLost = answer
        far.writeConnectionLost = lambda: far.transport.loseConnection()
        near.readConnectionLost = lambda: near.transport.loseConnection()

        async def run() -> None:
            target = TCP4ServerEndpoint(reactor, 0, interface=HOST)
            port = await target.listen(factoryFor(far))
            listening = TCP4ServerEndpoint(reactor, 0, interface=HOST)
            service = ForwardService(
                listening,
                TCP4ClientEndpoint(reactor, HOST, port.getHost().port),
                "sockets",
            )
            service.startService()
            entry = await service._waitingForPort
            service._waitingForPort = succeed(entry)
            await TCP4ClientEndpoint(reactor, HOST, entry.getHost().port).connect(
                factoryFor(near)
            )
            near.transport.write(data)
            near.transport.loseWriteConnection()
            ends = [await gone[0], await gone[1]]
            self.assertEqual(data, far.data)
            self.assertEqual(data, near.data)
            for end in ends:
                self.assertIsInstance(end, ConnectionDone)
            while service._joining.incoming:
                await deferLater(reactor, 0.01)
            await service.stopService()
            await port.stopListening()

        return Deferred.fromCoroutine(run())


class TLSTargetTests(ForwardCase):
    """A target behind TLS, which knows no half-closed connections."""

    def test_T_half_close_tls(self) -> None:
        """The end of the request ends TLS's direction; the answer comes back."""
        target = wrapServerTLS(
            serverOptions(),
            TCP4ServerEndpoint(self.host, 8443, interface=HOST),
            self.net.clock,
        )
        self.near, self.far = HalfCloser(), Recorder()
        self.net.wait(target.listen(factoryFor(self.far)))
        self.forward(
            TailnetServerEndpoint(lambda: self.net.b.tailnet, 80),
            wrapClientTLS(
                clientOptions(),
                TCP4ClientEndpoint(self.host, HOST, 8443),
                self.net.clock,
            ),
        )
        endpoint = TailnetClientEndpoint(lambda: self.net.a.tailnet, B4, 80)
        self.net.wait(endpoint.connect(factoryFor(self.near)))
        self.net.elapse(1)
        self.near.transport.write(b"request")
        self.net.elapse(1)
        self.far.transport.write(b"answer")
        self.near.transport.loseWriteConnection()
        self.net.elapse(2)
        self.assertEqual(b"request", self.far.data)
        self.assertEqual(b"answer", self.near.data)
        self.assertIsInstance(self.far.lost, ConnectionDone)
        self.near.transport.loseConnection()
        self.net.elapse(1)
        self.assertEqual(set(), self.service._joining.incoming)

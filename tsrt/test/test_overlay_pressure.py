"""Tests for back-pressure through overlay transports, in both directions."""

from __future__ import annotations

from twisted.protocols.basic import FileSender
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.tcpoptions import DEFAULTS
from tsrt.overlay.feed import LEAST_HIGH_WATER, MOST_HIGH_WATER
from tsrt.overlay.transport import READ_SIZE
from tsrt.test.overlaynet import (
    HalfCloser,
    OverlayNet,
    PullProducer,
    PushProducer,
    Recorder,
    join,
    queued,
    unread,
)


class Sink(Recorder):
    """Counts what it receives instead of keeping it."""

    size = 0

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)


class PressureTests(SynchronousTestCase):
    """One side produces, the other reads, or does not."""

    def setUp(self) -> None:
        self.net = OverlayNet()
        self.client, self.server = Recorder(), Sink()
        join(self.net, self.client, self.server)

    def test_pausedProtocolClosesWindow(self) -> None:
        """A paused protocol gets nothing, and its peer stops sending."""
        self.server.transport.pauseProducing()
        self.client.transport.write(bytes(3_000_000))
        self.net.elapse(60)
        self.assertEqual(0, self.server.size)
        self.assertEqual(0, self.client.transport._flow._tcb.sender.window.size)
        self.assertLessEqual(unread(self.server), DEFAULTS.receiveLimit)
        # Nothing but window probes goes over the link any more.
        self.net.packets = 0
        self.net.elapse(60)
        self.assertLess(self.net.packets, 20)
        self.server.transport.resumeProducing()
        self.net.elapse(60)
        self.assertEqual(3_000_000, self.server.size)

    def test_resumeTellsThePeerAtOnce(self) -> None:
        """Room made by a protocol that resumes is offered without delay."""
        self.server.transport.pauseProducing()
        self.client.transport.write(bytes(200_000))
        self.net.elapse(1)
        self.server.transport.resumeProducing()
        self.net.elapse(0.05)
        self.assertEqual(200_000, self.server.size)

    def test_pauseInsideDataReceived(self) -> None:
        """Pausing takes effect at once, within what has already arrived."""
        pieces = []

        def dataReceived(data: bytes) -> None:
            pieces.append(len(data))
            self.server.transport.pauseProducing()

        self.server.transport.pauseProducing()
        self.client.transport.write(bytes(1_000_000))
        self.net.elapse(5)
        self.server.dataReceived = dataReceived
        self.server.transport.resumeProducing()
        self.net.elapse(5)
        self.assertEqual(1, len(pieces))
        self.server.transport.resumeProducing()
        self.net.elapse(5)
        self.assertEqual(2, len(pieces))

    def test_bigBufferInPieces(self) -> None:
        """What waited for a paused protocol comes in pieces of a bounded size."""
        self.client.transport.write(bytes(5_000_000))
        self.net.elapse(10)
        self.server.transport.pauseProducing()
        self.client.transport.write(bytes(3_000_000))
        self.net.elapse(10)
        self.assertGreater(unread(self.server), 3 * READ_SIZE)
        sizes: list[int] = []
        self.server.dataReceived = lambda data: sizes.append(len(data))
        self.server.transport.resumeProducing()
        self.net.elapse(5)
        self.assertEqual(3_000_000, sum(sizes))
        self.assertLessEqual(max(sizes), READ_SIZE)
        self.assertGreater(max(sizes), READ_SIZE // 2)

    def test_deafProducerIsPausedOnce(self) -> None:
        """A producer that writes on when paused is not paused again."""
        producer = PushProducer(None, 0)
        self.server.transport.pauseProducing()
        self.client.transport.registerProducer(producer, True)
        for _ in range(50):
            self.client.transport.write(bytes(50_000))
        self.assertEqual(["pause"], producer.events)
        producer.resumeProducing = lambda: producer.events.append("resume")
        self.server.transport.resumeProducing()
        self.net.elapse(10)
        self.assertEqual(["pause", "resume"], producer.events)

    def test_flushAfterProducer(self) -> None:
        """The end comes when all is acknowledged, though the peer stays open."""
        client, server = Recorder(), HalfCloser()
        join(self.net, client, server)
        producer = PushProducer(client.transport, 2_000_000)
        producer.start()
        client.transport.loseConnection()
        self.net.elapse(30)
        self.assertIn("pause", producer.events)
        self.assertEqual(["made", "read lost"], server.events)
        self.assertEqual(["made", "lost"], client.events)

    def test_resumeIsNotReentrant(self) -> None:
        """resumeProducing delivers in a later turn, not inside of the call."""
        self.server.transport.pauseProducing()
        self.client.transport.write(b"data")
        self.net.elapse(1)
        for _ in range(100):
            self.server.transport.pauseProducing()
            self.server.transport.resumeProducing()
        self.assertEqual(0, self.server.size)
        self.net.elapse(1)
        self.assertEqual(4, self.server.size)

    def test_pauseAndResumeCostsOneCall(self) -> None:
        """However often it is paused and resumed, one delayed call waits."""
        before = len(self.net.clock.getDelayedCalls())
        for _ in range(100):
            self.server.transport.pauseProducing()
            self.server.transport.resumeProducing()
        self.assertEqual(before + 1, len(self.net.clock.getDelayedCalls()))

    def test_slowReaderPausesPushProducer(self) -> None:
        """A push producer is paused with bounded memory, and goes on later."""
        self.server.transport.pauseProducing()
        total = 20_000_000
        producer = PushProducer(self.client.transport, total)
        producer.start()
        self.net.elapse(60)
        self.assertEqual("pause", producer.events[-1])
        held = queued(self.client) + unread(self.server)
        self.assertEqual(producer.written, held)
        piece = 16384
        self.assertLessEqual(held, DEFAULTS.receiveLimit + 2 * LEAST_HIGH_WATER + piece)
        self.server.transport.resumeProducing()
        most = 0
        while self.server.size < total:
            self.net.elapse(0.002)
            most = max(most, queued(self.client))
        self.assertLessEqual(most, MOST_HIGH_WATER + piece)
        self.assertEqual("done", producer.events[-1])

    def test_everyPauseIsFollowedByOneResume(self) -> None:
        """Pauses and resumes alternate; a running producer is not resumed."""
        producer = PushProducer(self.client.transport, 5_000_000)
        producer.start()
        self.net.elapse(60)
        self.assertEqual(5_000_000, self.server.size)
        calls = [event for event in producer.events if event != "done"]
        self.assertGreater(len(calls), 4)
        self.assertEqual(["pause", "resume"] * (len(calls) // 2), calls)

    def test_fastPathStaysFull(self) -> None:
        """On a long path the marks follow the window, so that it stays full."""
        net = OverlayNet(delay=0.1)
        client, server = Recorder(), Sink()
        join(net, client, server)
        producer = PushProducer(client.transport, 150_000_000)
        producer.start()
        net.elapse(6)
        before = server.size
        net.elapse(2)
        # Ten round trips: a window that was half used would show here.
        self.assertGreater((server.size - before) / 10, DEFAULTS.receiveLimit * 0.8)

    def test_pullProducer(self) -> None:
        """A pull producer is asked again and again, and never far ahead."""
        producer = PullProducer(self.client.transport, 1_000_000)
        self.client.transport.registerProducer(producer, False)
        self.net.elapse(30)
        self.assertEqual(1_000_000, self.server.size)
        self.assertEqual(["done"], producer.events)

    def test_pullProducerTinyPieces(self) -> None:
        """A pull producer of single bytes is not left waiting."""
        producer = PullProducer(self.client.transport, 500, piece=1)
        self.client.transport.registerProducer(producer, False)
        self.net.elapse(5)
        self.assertEqual(500, self.server.size)

    def test_slowReaderHoldsPullProducer(self) -> None:
        """A pull producer is not asked while much is under way."""
        self.server.transport.pauseProducing()
        producer = PullProducer(self.client.transport, 20_000_000)
        self.client.transport.registerProducer(producer, False)
        self.net.elapse(60)
        self.assertLessEqual(queued(self.client), LEAST_HIGH_WATER + 4096)
        self.server.transport.resumeProducing()
        self.net.elapse(300)
        self.assertEqual(20_000_000, self.server.size)

    def test_idlePullProducerIsLeftAlone(self) -> None:
        """One that writes nothing when asked is not asked without end."""
        asked = []

        class Idle:
            def resumeProducing(self) -> None:
                asked.append(True)

            def stopProducing(self) -> None:
                """Nothing to stop."""

        self.client.transport.write(b"something first")
        self.client.transport.registerProducer(Idle(), False)
        self.net.elapse(10)
        self.assertLessEqual(len(asked), 3)

    def test_hesitantPullProducer(self) -> None:
        """One that had nothing at first is asked again once the rest is out."""
        asked = []

        class Hesitant:
            def resumeProducing(self) -> None:
                asked.append(queued(client))

            def stopProducing(self) -> None:
                """Nothing to stop."""

        client = self.client
        client.transport.write(b"something first")
        client.transport.registerProducer(Hesitant(), False)
        self.net.elapse(0.001)
        self.assertEqual(2, len(asked))

    def test_loseConnectionWaitsForProducer(self) -> None:
        """A registered producer writes on after loseConnection, to its end."""
        producer = PushProducer(self.client.transport, 3_000_000)
        producer.start()
        self.client.transport.loseConnection()
        self.net.elapse(60)
        self.assertEqual(3_000_000, self.server.size)
        self.assertEqual(["made", "lost"], self.client.events)

    def test_loseConnectionWaitsForPullProducer(self) -> None:
        """The same for a pull producer, which still has to be asked."""
        producer = PullProducer(self.client.transport, 300_000)
        self.client.transport.registerProducer(producer, False)
        self.client.transport.loseConnection()
        self.net.elapse(60)
        self.assertEqual(300_000, self.server.size)
        self.assertEqual(["made", "lost"], self.client.events)

    def test_connectionWithoutUnregisterStays(self) -> None:
        """A producer that never unregisters keeps the connection open."""
        self.client.transport.registerProducer(PushProducer(None, 0), True)
        self.client.transport.loseConnection()
        self.net.elapse(60)
        self.assertEqual(["made"], self.client.events)
        self.client.transport.unregisterProducer()
        self.net.elapse(1)
        self.assertEqual(["made", "lost"], self.client.events)

    def test_peersEndStopsProducer(self) -> None:
        """When the peer ends the connection the producer is told to stop."""
        producer = PushProducer(None, 0)
        self.client.transport.registerProducer(producer, True)
        self.server.transport.loseConnection()
        self.net.elapse(1)
        self.assertEqual(["stop"], producer.events)
        self.assertEqual(["made", "lost"], self.client.events)

    def test_twoProducers(self) -> None:
        """A second producer is refused while there is a first."""
        self.client.transport.registerProducer(PushProducer(None, 0), True)
        with self.assertRaises(RuntimeError):
            self.client.transport.registerProducer(PushProducer(None, 0), True)

    def test_stopConsuming(self) -> None:
        """stopConsuming forgets the producer and closes."""
        self.client.transport.registerProducer(PushProducer(None, 0), True)
        self.client.transport.stopConsuming()
        self.net.elapse(1)
        self.assertEqual(["made", "lost"], self.client.events)

    def test_stopProducing(self) -> None:
        """Who consumes us and wants no more closes the connection."""
        self.client.transport.stopProducing()
        self.net.elapse(1)
        self.assertEqual(["made", "lost"], self.client.events)

    def test_transportFeedsTransport(self) -> None:
        """Connections chained as producer and consumer pace each other."""
        far, out = Sink(), Recorder()
        join(self.net, out, far)
        inner = self.server
        inner.dataReceived = lambda data: out.transport.write(data)
        out.transport.registerProducer(inner.transport, True)
        far.transport.pauseProducing()
        producer = PushProducer(self.client.transport, 20_000_000)
        producer.start()
        self.net.elapse(60)
        self.assertLess(producer.written, 3 * DEFAULTS.receiveLimit)
        far.transport.resumeProducing()
        self.net.elapse(120)
        self.assertEqual(20_000_000, far.size)

    def test_fileSender(self) -> None:
        """Twisted's FileSender, a pull producer, works."""
        from io import BytesIO

        sent = self.client.transport
        done = FileSender().beginFileTransfer(BytesIO(bytes(700_000)), sent)
        self.net.wait(done)
        self.net.elapse(5)
        self.assertEqual(700_000, self.server.size)

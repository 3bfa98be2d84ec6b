"""Tests for connections of which one direction has ended."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from tsrt.test.overlaynet import (
    HalfCloser,
    OverlayNet,
    PushProducer,
    Recorder,
    join,
)


class HalfCloseTests(SynchronousTestCase):
    """C{loseWriteConnection} and L{IHalfCloseableProtocol}."""

    def connect(self, client: Recorder, server: Recorder) -> None:
        self.net = OverlayNet()
        self.client, self.server = client, server
        join(self.net, client, server)

    def test_T_half_close_clientEnds(self) -> None:
        """After its end the client still gets all that the server sends."""
        self.connect(HalfCloser(), HalfCloser())
        self.client.transport.write(b"question")
        self.client.transport.loseWriteConnection()
        self.net.elapse(1)
        self.assertEqual(b"question", self.server.data)
        self.assertEqual(["made", "write lost"], self.client.events)
        self.assertEqual(["made", "read lost"], self.server.events)
        self.server.transport.write(bytes(500_000))
        self.net.elapse(10)
        self.assertEqual(500_000, len(self.client.data))
        self.server.transport.loseWriteConnection()
        self.net.elapse(1)
        self.assertEqual(
            ["made", "write lost", "read lost", "lost"], self.client.events
        )
        self.assertEqual(
            ["made", "read lost", "write lost", "lost"], self.server.events
        )
        self.assertIsInstance(self.client.lost, ConnectionDone)
        self.assertIsInstance(self.server.lost, ConnectionDone)

    def test_T_half_close_serverEnds(self) -> None:
        """The same with the sides exchanged."""
        self.connect(HalfCloser(), HalfCloser())
        self.server.transport.loseWriteConnection()
        self.net.elapse(100)
        self.client.transport.write(b"still there?")
        self.net.elapse(1)
        self.assertEqual(b"still there?", self.server.data)
        self.client.transport.loseConnection()
        self.net.elapse(1)
        self.assertIsInstance(self.server.lost, ConnectionDone)

    def test_halfClosedStaysForHours(self) -> None:
        """Nothing ends a half-closed connection that is idle."""
        self.connect(HalfCloser(), HalfCloser())
        self.client.transport.loseWriteConnection()
        self.net.elapse(10_000)
        self.server.transport.write(b"late")
        self.net.elapse(1)
        self.assertEqual(b"late", self.client.data)

    def test_plainPeer(self) -> None:
        """A protocol that knows no half-close loses the connection as done."""
        self.connect(HalfCloser(), Recorder())
        self.server.transport.write(b"before the end")
        self.client.transport.loseWriteConnection()
        self.net.elapse(1)
        self.assertIsInstance(self.server.lost, ConnectionDone)
        self.assertEqual(b"before the end", self.client.data)
        self.assertIsInstance(self.client.lost, ConnectionDone)

    def test_plainPeerHasWritten(self) -> None:
        """What such a protocol wrote before still reaches the peer."""
        self.connect(HalfCloser(), Recorder())
        self.client.transport.pauseProducing()
        self.server.transport.write(bytes(800_000))
        self.client.transport.loseWriteConnection()
        self.net.elapse(1)
        self.assertIsInstance(self.server.lost, ConnectionDone)
        self.client.transport.resumeProducing()
        self.net.elapse(20)
        self.assertEqual(800_000, len(self.client.data))

    def test_flushFirst(self) -> None:
        """The end of the stream comes after everything written."""
        self.connect(HalfCloser(), HalfCloser())
        self.client.transport.write(bytes(700_000))
        self.client.transport.loseWriteConnection()
        self.net.elapse(0.006)
        self.assertNotIn("read lost", self.server.events)
        self.net.elapse(20)
        self.assertEqual(700_000, len(self.server.data))
        self.assertEqual(["made", "read lost"], self.server.events)

    def test_waitsForProducer(self) -> None:
        """The sending side stays open until the producer has finished."""
        self.connect(HalfCloser(), HalfCloser())
        PushProducer(self.client.transport, 2_000_000).start()
        self.client.transport.loseWriteConnection()
        self.net.elapse(30)
        self.assertEqual(2_000_000, len(self.server.data))
        self.assertEqual(["made", "read lost"], self.server.events)

    def test_writesAfterwardsAreDropped(self) -> None:
        """Nothing is sent after the sending side has closed."""
        self.connect(HalfCloser(), HalfCloser())
        self.client.transport.loseWriteConnection()
        self.client.transport.loseWriteConnection()
        self.net.elapse(1)
        self.client.transport.write(b"too late")
        self.net.elapse(1)
        self.assertEqual(b"", self.server.data)
        self.assertEqual(["made", "write lost"], self.client.events)

    def test_loseConnectionAfterwards(self) -> None:
        """loseConnection ends the connection altogether."""
        self.connect(HalfCloser(), HalfCloser())
        self.client.transport.loseWriteConnection()
        self.net.elapse(1)
        self.client.transport.loseConnection()
        self.net.elapse(1)
        self.assertEqual(["made", "write lost", "lost"], self.client.events)
        self.server.transport.write(b"to nobody")
        self.net.elapse(1)
        self.assertIsInstance(self.server.lost, ConnectionLost)

    def test_doubleHalfClose(self) -> None:
        """Answering an end by an end, and then by loseConnection, is fine."""
        server = HalfCloser()
        server.readConnectionLost = lambda: server.transport.loseWriteConnection()
        server.writeConnectionLost = lambda: server.transport.loseConnection()
        self.connect(Recorder(), server)
        self.client.transport.loseConnection()
        self.net.elapse(1)
        self.assertIsInstance(self.client.lost, ConnectionDone)
        self.assertIsInstance(server.lost, ConnectionDone)

    def test_pausedHearsOfTheEndLater(self) -> None:
        """A paused protocol gets its data, and then the end, when it resumes."""
        self.connect(HalfCloser(), HalfCloser())
        self.server.transport.pauseProducing()
        self.client.transport.write(b"data")
        self.client.transport.loseWriteConnection()
        self.net.elapse(1)
        self.assertEqual(["made"], self.server.events)
        self.server.transport.resumeProducing()
        self.net.elapse(1)
        self.assertEqual(b"data", self.server.data)
        self.assertEqual(["made", "read lost"], self.server.events)

    def test_pausedLosesNoData(self) -> None:
        """Both directions end while a protocol is paused: it misses nothing."""
        self.connect(HalfCloser(), HalfCloser())
        self.server.transport.pauseProducing()
        self.client.transport.write(bytes(100_000))
        self.client.transport.loseWriteConnection()
        self.server.transport.loseWriteConnection()
        self.net.elapse(5)
        self.assertIsNone(self.server.lost)
        self.server.transport.resumeProducing()
        self.net.elapse(1)
        self.assertEqual(100_000, len(self.server.data))
        self.assertEqual(
            ["made", "write lost", "read lost", "lost"], self.server.events
        )
        self.assertIsInstance(self.server.lost, ConnectionDone)

    def test_resetAfterHalfClose(self) -> None:
        """A reset on the open half is a lost connection, not a finished one."""
        self.connect(HalfCloser(), HalfCloser())
        self.client.transport.loseWriteConnection()
        self.net.elapse(1)
        self.server.transport.abortConnection()
        self.net.elapse(1)
        self.assertIs(ConnectionLost, type(self.client.lost))

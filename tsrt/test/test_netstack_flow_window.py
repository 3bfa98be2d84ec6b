"""
Tests of L{tsrt.netstack.flow}: windows, small segments, acknowledgements.
"""

from __future__ import annotations

from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.flow import CloseReason, TCPOptions, TCPState
from tsrt.test.netlink import Link, Pair, pattern
from tsrt.test.netpeer import MSS, Peer, payloads
from tsrt.wire.tcp import FIN

SMALL = TCPOptions(receiveInitial=8192, receiveLimit=8192)


class NagleTests(SynchronousTestCase):
    """Small segments."""

    def test_waits(self) -> None:
        """A small segment waits while another one is in flight."""
        peer = Peer().establish()
        peer.flow.write(b"one")
        self.assertEqual(payloads(peer.take()), [(1, 3)])
        peer.flow.write(b"two")
        peer.flow.write(b"three")
        self.assertEqual(payloads(peer.take()), [])
        self.assertEqual(payloads(peer.send(0, 1, 4)), [(4, 8)])

    def test_fullSegmentsPass(self) -> None:
        """Full segments do not wait; the small rest does."""
        peer = Peer().establish()
        peer.flow.write(b"one")
        peer.take()
        peer.flow.write(bytes(MSS + 10))
        self.assertEqual(payloads(peer.take()), [(4, MSS)])
        self.assertEqual(payloads(peer.send(0, 1, 4)), [(4 + MSS, 10)])

    def test_tailOfLargeWrite(self) -> None:
        """The small end of a large piece goes out with it."""
        peer = Peer().establish()
        peer.flow.write(bytes(2 * MSS + 10))
        self.assertEqual(len(payloads(peer.take())), 3)

    def test_noDelay(self) -> None:
        """With C{setNoDelay} every write goes out at once."""
        peer = Peer().establish()
        peer.flow.setNoDelay(True)
        for number in range(5):
            peer.flow.write(b"x")
            self.assertEqual(payloads(peer.take()), [(1 + number, 1)])

    def test_noDelayLater(self) -> None:
        """Turning it on releases what waits; turning it off holds again."""
        peer = Peer().establish()
        peer.flow.write(b"one")
        peer.take()
        peer.flow.write(b"two")
        peer.flow.setNoDelay(True)
        self.assertEqual(payloads(peer.take()), [(4, 3)])
        peer.flow.setNoDelay(False)
        peer.flow.write(b"three")
        self.assertEqual(payloads(peer.take()), [])

    def test_option(self) -> None:
        """The option sets it from the beginning."""
        peer = Peer(TCPOptions(noDelay=True)).establish()
        peer.flow.write(b"one")
        peer.take()
        peer.flow.write(b"two")
        self.assertEqual(payloads(peer.take()), [(4, 3)])

    def test_finReleases(self) -> None:
        """A FIN takes what waits along."""
        peer = Peer().establish()
        peer.flow.write(b"one")
        peer.take()
        peer.flow.write(b"two")
        peer.flow.shutdownWrite()
        (segment,) = peer.take()
        self.assertEqual((segment.payload, segment.flags & FIN), (b"two", FIN))


class DelayedAcknowledgementTests(SynchronousTestCase):
    """When acknowledgements go out."""

    def test_secondSegment(self) -> None:
        """Every second full segment is acknowledged at once."""
        peer = Peer().establish()
        self.assertEqual(peer.send(0, 1, 1, bytes(MSS)), [])
        (answer,) = peer.send(0, 1 + MSS, 1, bytes(MSS))
        self.assertEqual(answer.ack, 1 + 2 * MSS)
        self.assertIsNone(peer.flow.deadline())

    def test_delay(self) -> None:
        """A lone segment is acknowledged after 40 ms."""
        peer = Peer().establish()
        self.assertEqual(peer.send(0, 1, 1, bytes(MSS)), [])
        self.assertAlmostEqual(peer.flow.deadline() or 0.0, peer.now + 0.040)
        self.assertEqual(peer.wait(0.039), [])
        (answer,) = peer.wait(0.002)
        self.assertEqual(answer.ack, 1 + MSS)
        self.assertIsNone(peer.flow.deadline())

    def test_configured(self) -> None:
        """The delay can be another one, or none."""
        peer = Peer(TCPOptions(delayedAck=0.1)).establish()
        peer.send(0, 1, 1, b"x")
        self.assertEqual(peer.wait(0.09), [])
        self.assertEqual(len(peer.wait(0.02)), 1)

    def test_ridesAlong(self) -> None:
        """Data that goes out meanwhile carries the acknowledgement."""
        peer = Peer().establish()
        peer.send(0, 1, 1, b"question")
        peer.flow.write(b"answer")
        (segment,) = peer.take()
        self.assertEqual(segment.ack, 9)
        self.assertEqual(payloads(peer.wait(0.1)), [])

    def test_smallSegments(self) -> None:
        """Small segments are gathered up to two full ones."""
        peer = Peer().establish()
        answers = []
        for number in range(11):
            answers += peer.send(0, 1 + 100 * number, 1, bytes(100))
        self.assertEqual([a.ack for a in answers], [1101])

    def test_outOfOrder(self) -> None:
        """Out-of-order data, and what fills a gap, is acknowledged at once."""
        peer = Peer().establish()
        self.assertEqual(len(peer.send(0, 101, 1, b"x")), 1)
        self.assertEqual(len(peer.send(0, 51, 1, b"x")), 1)
        self.assertEqual(len(peer.send(0, 1, 1, bytes(50))), 1)


class ReceiveWindowTests(SynchronousTestCase):
    """The window that we offer."""

    def test_closes(self) -> None:
        """Unread data closes the window; reading opens it."""
        peer = Peer(SMALL).establish()
        windows = []
        for number in range(8):
            for answer in peer.send(0, 1 + 1024 * number, 1, bytes(1024)):
                windows.append(answer.window)
        self.assertEqual(windows[-1], 0)
        self.assertEqual(sorted(windows, reverse=True), windows)
        self.assertEqual(peer.flow.readable, 8192)
        self.assertEqual(len(peer.flow.read()), 8192)
        (update,) = peer.take()
        self.assertEqual((update.ack, update.window), (8193, 8192))

    def test_noSillyWindow(self) -> None:
        """Reading little by little does not offer little by little."""
        peer = Peer(SMALL).establish()
        for number in range(8):
            peer.send(0, 1 + 1024 * number, 1, bytes(1024))
        updates = []
        for _ in range(8192 // 64):
            peer.flow.read(64)
            updates += [answer.window for answer in peer.take()]
        self.assertLessEqual(len(updates), 6)
        steps = [b - a for a, b in zip([0, *updates], updates, strict=False)]
        self.assertGreaterEqual(min(steps), 1024)

    def test_beyondIsNotTaken(self) -> None:
        """Data beyond the window is cut off and acknowledged at once."""
        peer = Peer(SMALL).establish()
        peer.send(0, 1, 1, bytes(8000))
        (answer,) = peer.send(0, 8001, 1, bytes(1000))
        self.assertEqual(answer.ack, 8193)
        self.assertEqual(peer.flow.readable, 8192)
        (answer,) = peer.send(0, 8193, 1, bytes(100))
        self.assertEqual((answer.ack, answer.window), (8193, 0))
        (answer,) = peer.send(0, 9000, 1, bytes(100))
        self.assertEqual(answer.ack, 8193)

    def test_probeOfClosedWindow(self) -> None:
        """A probe of a closed window is answered, and its ACK counts."""
        peer = Peer(SMALL).establish()
        peer.flow.write(b"outgoing")
        peer.take()
        peer.send(0, 1, 1, bytes(8192))
        (answer,) = peer.send(0, 8193, 9, b"p")
        self.assertEqual((answer.ack, answer.window), (8193, 0))
        self.assertEqual(peer.flow.queued, 0)

    def test_neverShrinks(self) -> None:
        """The right edge of the window never moves back."""
        peer = Peer(TCPOptions(receiveInitial=16384, receiveLimit=1 << 18)).establish()
        edge = 0
        position = 1
        for number in range(300):
            for answer in peer.send(0, position, 1, bytes(997)):
                reached = answer.ack + (answer.window << 3)
                self.assertGreaterEqual(reached, edge - 7)
                edge = max(edge, reached)
            position += 997
            if number % 3:
                peer.flow.read(900)

    def test_grows(self) -> None:
        """The window doubles as the application keeps up, to its limit."""
        options = TCPOptions(receiveInitial=16384, receiveLimit=1 << 17)
        peer = Peer(options).establish()
        position = 1
        for _ in range(400):
            peer.send(0, position, 1, bytes(1000))
            position += 1000
            peer.flow.read()
            peer.take()
        receiver = peer.flow._tcb.receiver
        assert receiver is not None
        self.assertEqual(receiver.capacity, 1 << 17)
        self.assertLessEqual(receiver.edge - receiver.next, (1 << 17) + 8)

    def test_doesNotGrowUnread(self) -> None:
        """Without reading it stays small, whatever arrives (T-memory)."""
        peer = Peer(SMALL).establish()
        for number in range(50):
            peer.send(0, 1 + 1024 * number, 1, bytes(1024))
        receiver = peer.flow._tcb.receiver
        assert receiver is not None
        self.assertEqual(receiver.capacity, 8192)
        self.assertEqual(peer.flow.readable, 8192)

    def test_edgeDoesNotCreep(self) -> None:
        """Rounding of the scaled window never adds up beyond one unit."""
        options = TCPOptions(receiveInitial=4096, receiveLimit=1 << 20)
        peer = Peer(options).establish()
        receiver = peer.flow._tcb.receiver
        assert receiver is not None
        position = 1
        for _ in range(500):
            size = receiver.edge - receiver.next - 5
            if size <= 0:
                size = receiver.edge - receiver.next
            if size <= 0:
                break
            peer.send(0, position, 1, bytes(size))
            position += size
        self.assertLessEqual(peer.flow.readable, 4096 + 64)


class ZeroWindowTests(SynchronousTestCase):
    """The peer has no room."""

    def closed(self, options: TCPOptions | None = None) -> Peer:
        """A peer that has closed its window while data waits."""
        peer = Peer(options).establish()
        peer.flow.write(b"x" * 100)
        peer.take()
        peer.send(0, 1, 101, window=0)
        peer.flow.write(b"y" * 100)
        self.assertEqual(peer.take(), [])
        return peer

    def test_probes(self) -> None:
        """A byte is sent from time to time, ever less often."""
        peer = self.closed()
        times = []
        for _ in range(8):
            deadline = peer.flow.deadline()
            assert deadline is not None
            times.append(deadline - peer.now)
            (probe,) = peer.wait(deadline - peer.now + 1e-6)
            self.assertEqual(payloads([probe]), [(101, 1)])
            peer.send(0, 1, 101, window=0)
        for before, after in pairwise(times):
            self.assertGreaterEqual(after, min(before * 1.9, 29))
        self.assertLessEqual(max(times), 60)

    def test_livesAsLongAsAnswered(self) -> None:
        """A peer that answers probes is waited for without end."""
        peer = self.closed(TCPOptions(userTimeout=20.0))
        for _ in range(100):
            self.assertEqual(len(payloads(peer.wait(10))[:1]), 1)
            peer.send(0, 1, 101, window=0)
        self.assertIsNone(peer.flow.closeReason)

    def test_diesUnanswered(self) -> None:
        """A peer that does not answer probes counts as dead after a while."""
        peer = self.closed()
        sent = peer.wait(899)
        self.assertGreater(len(payloads(sent)), 4)
        self.assertIsNone(peer.flow.closeReason)
        peer.wait(2)
        self.assertIs(peer.flow.closeReason, CloseReason.TIMEOUT)

    def test_reopened(self) -> None:
        """When the window opens, all goes out, the probed byte included."""
        peer = self.closed()
        peer.wait(1)
        sent = peer.send(0, 1, 101, window=5000)
        self.assertEqual(payloads(sent), [(101, 100)])
        self.assertEqual(sent[0].payload, b"y" * 100)

    def test_probeTaken(self) -> None:
        """A peer may take the byte of the probe."""
        peer = self.closed()
        peer.wait(1)
        self.assertEqual(peer.send(0, 1, 102, window=0), [])
        self.assertEqual(peer.flow.queued, 99)
        self.assertEqual(payloads(peer.wait(10))[0], (102, 1))
        self.assertEqual(payloads(peer.send(0, 1, 103, window=5000)), [(103, 98)])
        peer.send(0, 1, 201)
        self.assertEqual(peer.flow.queued, 0)
        self.assertIsNone(peer.flow.deadline())

    def test_probeTakenLate(self) -> None:
        """Even when the window opened before that is known."""
        peer = self.closed()
        peer.wait(1)
        peer.send(0, 1, 101, window=50)
        peer.send(0, 1, 102, window=5000)
        peer.send(0, 1, 201)
        self.assertEqual(peer.flow.queued, 0)

    def test_finIsProbe(self) -> None:
        """A FIN that waits for room probes as well."""
        peer = Peer().establish()
        peer.send(0, 1, 1, window=0)
        peer.flow.shutdownWrite()
        self.assertEqual(peer.take(), [])
        (probe,) = peer.wait(0.3)
        self.assertTrue(probe.flags & FIN)
        peer.send(0, 1, 2, window=0)
        self.assertIs(peer.flow.state, TCPState.FIN_WAIT_2)
        self.assertIsNone(peer.flow.deadline())
        self.assertEqual(peer.wait(1000), [])
        self.assertIsNone(peer.flow.closeReason)

    def test_sillyWindow(self) -> None:
        """A few bytes of room are not used at once, but in the end."""
        peer = self.closed()
        self.assertEqual(peer.send(0, 1, 101, window=10), [])
        sent = peer.wait(5)
        self.assertEqual(payloads(sent)[0], (101, 10))

    def test_halfOfLargest(self) -> None:
        """A window that is half of the largest ever is used."""
        peer = Peer(window=100).establish()
        peer.flow.write(bytes(1000))
        self.assertEqual(payloads(peer.take()), [(1, 100)])
        self.assertEqual(payloads(peer.send(0, 1, 101, window=50)), [(101, 50)])
        self.assertEqual(peer.send(0, 1, 151, window=49), [])

    def test_takenBack(self) -> None:
        """A window that is taken back is obeyed, and not held against it."""
        peer = Peer().establish()
        peer.flow.write(b"z" * 3 * MSS)
        peer.take()
        peer.send(0, 1, 1, window=0)
        congestion = peer.flow._tcb.sender.congestion.window
        for _ in range(30):
            sent = peer.wait(30)
            self.assertLessEqual(len(payloads(sent)), 8)
            self.assertLessEqual(set(payloads(sent)), {(1, MSS)})
            peer.send(0, 1, 1, window=0)
        self.assertIsNone(peer.flow.closeReason)
        self.assertEqual(peer.flow._tcb.sender.congestion.window, congestion)
        sent = peer.send(0, 1, 1, window=60_000)
        self.assertEqual(payloads(sent), [(1, MSS), (1241, MSS), (2481, MSS)])

    def test_oldWindowUpdate(self) -> None:
        """A window that comes late does not replace a newer one."""
        peer = Peer().establish()
        peer.send(0, 1, 1, b"abcd")
        peer.send(0, 5, 1, b"efgh", window=0)
        # Sent before, arrives later.
        peer.send(0, 1, 1, window=60_000)
        peer.flow.write(b"data")
        self.assertEqual(payloads(peer.take()), [])

    def test_transfer(self) -> None:
        """A reader that pauses for minutes loses nothing."""
        pair = Pair(Link(1, loss=0.05), Link(2, loss=0.05))
        data = pattern(400_000)
        pair.client.send(data, True)
        pair.server.send(b"", True)
        pair.server.reading = False
        pair.run(until=400.0)
        self.assertIsNone(pair.a.closeReason)
        self.assertLess(pair.b.readable, 70_000)
        pair.server.reading = True
        pair.run(stop=pair.closed)
        self.assertEqual(pair.server.received, data)

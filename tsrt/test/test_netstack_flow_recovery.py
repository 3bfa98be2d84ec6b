"""
Tests of L{tsrt.netstack.flow}: losses, timers, keep-alive.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.flow import CloseReason, TCPOptions, TCPState
from tsrt.netstack.recovery import FAST, LOSS, OPEN
from tsrt.netstack.sender import Sender
from tsrt.test.netlink import Link, Pair, pattern
from tsrt.test.netpeer import MSS, Peer, payloads, resets
from tsrt.wire.tcp import ACK, FIN, RST, Segment


def sender(peer: Peer) -> Sender:
    """The send side of the flow under test."""
    return peer.flow._tcb.sender


def at(number: int) -> int:
    """Position of the first byte of a full segment."""
    return 1 + number * MSS


class LossCase(SynchronousTestCase):
    """Ten segments in flight."""

    def flying(
        self, options: TCPOptions | None = None, *, sack: bool = True, count: int = 10
    ) -> Peer:
        """A peer to which that many segments are on their way."""
        peer = Peer(options, sack=sack).establish()
        # A first exchange, so that a round-trip time is known.
        peer.flow.write(bytes(count * MSS))
        self.assertEqual(len(peer.take()), min(count, 10))
        peer.now += 0.05
        return peer


class SackRecoveryTests(LossCase):
    """RFC 6675."""

    def test_threeRanges(self) -> None:
        """The third duplicate sends the lost segment again, once."""
        peer = self.flying()
        self.assertEqual(payloads(peer.send(0, 1, 1, sacks=((at(1), at(2)),))), [])
        self.assertEqual(payloads(peer.send(0, 1, 1, sacks=((at(1), at(3)),))), [])
        sent = peer.send(0, 1, 1, sacks=((at(1), at(4)),))
        self.assertEqual(payloads(sent), [(1, MSS)])
        self.assertEqual(sender(peer).recovery.mode, FAST)
        self.assertEqual(sender(peer).fastRecoveries, 1)
        # CUBIC keeps seven tenths.
        self.assertEqual(sender(peer).congestion.window, 7 * MSS)
        # Further duplicates do not send it again.
        sent = peer.send(0, 1, 1, sacks=((at(1), at(5)),))
        self.assertNotIn((1, MSS), payloads(sent))
        peer.send(0, 1, at(10))
        self.assertEqual(sender(peer).recovery.mode, OPEN)
        self.assertEqual(sender(peer).congestion.window, 7 * MSS)
        self.assertEqual(sender(peer).timerFires, 0)

    def test_atOnce(self) -> None:
        """One acknowledgement with enough SACK blocks suffices."""
        peer = self.flying()
        sent = peer.send(0, 1, 1, sacks=((at(1), at(8)),))
        self.assertEqual(payloads(sent)[0], (1, MSS))

    def test_severalHoles(self) -> None:
        """All holes are filled as the pipe empties, nothing else is repeated."""
        peer = self.flying()
        blocks = ((at(1), at(2)), (at(3), at(4)), (at(6), at(10)))
        sent = payloads(peer.send(0, 1, 1, sacks=blocks))
        sent += payloads(peer.send(0, 1, at(2), sacks=blocks[1:]))
        sent += payloads(peer.send(0, 1, at(4), sacks=blocks[2:]))
        self.assertEqual(
            sorted(sent), [(1, MSS), (at(2), MSS), (at(4), 2 * MSS - MSS), (at(5), MSS)]
        )
        peer.send(0, 1, at(10))
        self.assertEqual(sender(peer).recovery.mode, OPEN)
        self.assertEqual(peer.flow.queued, 0)

    def test_limitedTransmit(self) -> None:
        """The first duplicates let new data out (RFC 3042)."""
        peer = Peer().establish()
        peer.flow.write(bytes(20 * MSS))
        self.assertEqual(len(peer.take()), 10)
        sent = peer.send(0, 1, 1, sacks=((at(1), at(2)),))
        self.assertEqual(payloads(sent), [(at(10), MSS)])
        sent = peer.send(0, 1, 1, sacks=((at(1), at(3)),))
        self.assertEqual(payloads(sent), [(at(11), MSS)])

    def test_newDataDuringRecovery(self) -> None:
        """Once the pipe is down to the window, new data follows."""
        peer = Peer().establish()
        peer.flow.write(bytes(30 * MSS))
        peer.take()
        sent = peer.send(0, 1, 1, sacks=((at(1), at(9)),))
        # In the pipe: the repeated segment and the tenth; the window has 7.
        self.assertEqual(payloads(sent)[0], (1, MSS))
        self.assertEqual(payloads(sent)[1:], [(at(10 + n), MSS) for n in range(5)])

    def test_tailBelowHighest(self) -> None:
        """Without new data, pieces that may be lost are repeated (rule 3)."""
        peer = self.flying()
        blocks = ((at(3), at(4)), (at(5), at(6)), (at(7), at(8)))
        sent = payloads(peer.send(0, 1, 1, sacks=blocks))
        # Lost for sure: 0, 1, 2.  Perhaps lost: 4 and 6.
        self.assertEqual(sent[:3], [(1, MSS), (at(1), MSS), (at(2), MSS)])
        sent += payloads(peer.send(0, 1, at(4), sacks=blocks[1:]))
        self.assertIn((at(4), MSS), sent)
        self.assertIn((at(6), MSS), sent)

    def test_rescue(self) -> None:
        """The end of the flight is repeated once (rule 4)."""
        peer = self.flying()
        sent = payloads(peer.send(0, 1, 1, sacks=((at(1), at(8)),)))
        self.assertEqual(sent, [(1, MSS), (at(9), MSS)])
        self.assertEqual(payloads(peer.send(0, 1, at(8))), [])

    def test_duplicateSackTolerated(self) -> None:
        """D-SACK below the acknowledgement is no news (RFC 2883)."""
        peer = self.flying()
        peer.send(0, 1, at(2))
        for _ in range(5):
            sent = peer.send(0, 1, at(2), sacks=((1, at(1)),))
            self.assertEqual(payloads(sent), [])
        self.assertEqual(sender(peer).recovery.mode, OPEN)

    def test_wildBlocks(self) -> None:
        """Blocks beyond what was sent, or reversed, are ignored."""
        peer = self.flying()
        peer.send(0, 1, 1, sacks=((at(50), at(60)), (at(4), at(2)), (at(1), at(1))))
        self.assertFalse(sender(peer).recovery.board)
        self.assertIsNone(peer.flow.closeReason)

    def test_reneging(self) -> None:
        """What the peer held and dropped again is sent again."""
        peer = self.flying()
        peer.send(0, 1, 1, sacks=((at(1), at(10)),))
        # It acknowledges the first and has forgotten the others.
        peer.send(0, 1, at(1))
        sent = payloads(peer.wait(3))
        self.assertIn((at(1), MSS), sent)
        peer.send(0, 1, at(2))
        self.assertEqual(payloads(peer.take()), [])
        sent = payloads(peer.wait(10))
        self.assertIn((at(2), MSS), sent)

    def test_oneReductionEachRoundTrip(self) -> None:
        """Several losses of one window shrink it once."""
        peer = self.flying()
        peer.send(0, 1, 1, sacks=((at(1), at(2)), (at(3), at(10))))
        peer.send(0, 1, at(2), sacks=((at(3), at(10)),))
        self.assertEqual(sender(peer).congestion.window, 7 * MSS)
        self.assertEqual(sender(peer).fastRecoveries, 1)


class NewRenoRecoveryTests(LossCase):
    """RFC 6582: without SACK."""

    options = TCPOptions(congestion="newreno")

    def test_threeDuplicates(self) -> None:
        """The third duplicate acknowledgement sends the segment again."""
        peer = self.flying(self.options, sack=False)
        for _ in range(2):
            self.assertEqual(payloads(peer.send(0, 1, 1)), [])
        self.assertEqual(payloads(peer.send(0, 1, 1)), [(1, MSS)])
        self.assertEqual(sender(peer).congestion.window, 5 * MSS)
        self.assertEqual(payloads(peer.send(0, 1, 1)), [])
        peer.send(0, 1, at(10))
        self.assertEqual(sender(peer).recovery.mode, OPEN)

    def test_partial(self) -> None:
        """A partial acknowledgement repeats the next lost segment."""
        peer = self.flying(self.options, sack=False)
        for _ in range(5):
            peer.send(0, 1, 1)
        self.assertEqual(payloads(peer.send(0, 1, at(3))), [(at(3), MSS)])
        self.assertEqual(payloads(peer.send(0, 1, at(6))), [(at(6), MSS)])
        self.assertEqual(sender(peer).recovery.mode, FAST)
        peer.send(0, 1, at(10))
        self.assertEqual(sender(peer).recovery.mode, OPEN)
        self.assertEqual(sender(peer).timerFires, 0)

    def test_limitedTransmit(self) -> None:
        """The first two duplicates let one new segment out each (RFC 3042)."""
        peer = Peer(self.options, sack=False).establish()
        peer.flow.write(bytes(20 * MSS))
        peer.take()
        self.assertEqual(payloads(peer.send(0, 1, 1)), [(at(10), MSS)])
        self.assertEqual(payloads(peer.send(0, 1, 1)), [(at(11), MSS)])
        self.assertEqual(payloads(peer.send(0, 1, 1)), [(1, MSS)])

    def test_notDuplicates(self) -> None:
        """Data, and window updates, are no duplicate acknowledgements."""
        peer = self.flying(self.options, sack=False)
        for number in range(6):
            peer.send(0, 1 + number, 1, b"x")
        for number in range(6):
            peer.send(0, 7, 1, window=50_000 + number)
        self.assertEqual(sender(peer).recovery.mode, OPEN)
        self.assertEqual(sender(peer).retransmissions, 0)

    def test_noFastRetransmitAfterTimeout(self) -> None:
        """Duplicates of what a timeout repeated needlessly are ignored."""
        peer = self.flying(self.options, sack=False)
        peer.wait(2)
        peer.send(0, 1, at(10))
        peer.flow.write(bytes(4 * MSS))
        peer.take()
        for _ in range(4):
            peer.send(0, 1, at(10))
        self.assertEqual(sender(peer).fastRecoveries, 0)


class RetransmissionTimerTests(LossCase):
    """RFC 6298."""

    def test_backoff(self) -> None:
        """The first segment is repeated ever less often."""
        peer = self.flying(TCPOptions(selectiveAck=False), count=1)
        start = peer.now - 0.05
        times = []
        for _ in range(5):
            deadline = peer.flow.deadline()
            assert deadline is not None
            times.append(deadline - start)
            self.assertEqual(payloads(peer.wait(deadline - peer.now)), [(1, MSS)])
        # The handshake took no time at all, so the floor of 0.2 s applies.
        for seen, expected in zip(times, (0.2, 0.6, 1.4, 3.0, 6.2), strict=True):
            self.assertAlmostEqual(seen, expected, places=3)
        self.assertEqual(sender(peer).congestion.window, MSS)

    def test_restartedByProgress(self) -> None:
        """The timer starts anew when data is acknowledged."""
        peer = self.flying(TCPOptions(selectiveAck=False))
        peer.send(0, 1, at(1))
        timeout = sender(peer).rtt.timeout
        self.assertAlmostEqual(peer.flow.deadline() or 0.0, peer.now + timeout)
        peer.send(0, 1, at(10))
        self.assertIsNone(peer.flow.deadline())

    def test_goBack(self) -> None:
        """After a timeout everything in flight is repeated, in slow start."""
        peer = self.flying(TCPOptions(selectiveAck=False))
        sent = payloads(peer.wait(0.3))
        self.assertEqual(sent, [(1, MSS)])
        self.assertEqual(sender(peer).recovery.mode, LOSS)
        sent = payloads(peer.send(0, 1, at(1)))
        self.assertEqual(sent, [(at(1), MSS), (at(2), MSS)])
        sent = payloads(peer.send(0, 1, at(3)))
        self.assertEqual(sent, [(at(n), MSS) for n in range(3, 7)])
        peer.send(0, 1, at(10))
        self.assertEqual(sender(peer).recovery.mode, OPEN)

    def test_sackedIsNotRepeated(self) -> None:
        """What the peer holds is not repeated after a timeout."""
        peer = self.flying()
        peer.send(0, 1, 1, sacks=((at(2), at(4)),))
        sent = payloads(peer.wait(1))
        self.assertIn((1, MSS), sent)
        sent = payloads(peer.send(0, 1, at(1), sacks=((at(2), at(4)),)))
        sent += payloads(peer.send(0, 1, at(4)))
        self.assertNotIn((at(2), MSS), sent)
        self.assertNotIn((at(3), MSS), sent)
        self.assertIn((at(1), MSS), sent)
        self.assertIn((at(4), MSS), sent)

    def test_karn(self) -> None:
        """A repeated segment is not measured, and the back-off stays."""
        peer = self.flying(TCPOptions(selectiveAck=False), count=1)
        smoothed = sender(peer).rtt.smoothed
        peer.wait(5)
        backoff = sender(peer).rtt.backoff
        self.assertGreater(backoff, 2)
        peer.send(0, 1, at(1))
        self.assertEqual(sender(peer).rtt.smoothed, smoothed)
        self.assertEqual(sender(peer).rtt.backoff, backoff)
        # New data is measured, which ends the back-off.
        peer.flow.write(bytes(MSS))
        peer.take()
        peer.now += 0.1
        peer.send(0, 1, at(2))
        self.assertEqual(sender(peer).rtt.backoff, 0)

    def test_measured(self) -> None:
        """One segment in flight is timed."""
        peer = Peer().establish()
        peer.flow.write(bytes(100))
        peer.take()
        peer.now += 0.3
        peer.send(0, 1, 101)
        self.assertAlmostEqual(sender(peer).rtt.latest or 0.0, 0.3)

    def test_measuredBySack(self) -> None:
        """A timed segment that is held out of order counts as arrived."""
        peer = Peer().establish()
        peer.flow.write(bytes(MSS))
        peer.take()
        peer.now += 0.1
        peer.send(0, 1, at(1))
        peer.flow.write(bytes(3 * MSS))
        peer.take()
        peer.now += 0.25
        peer.send(0, 1, at(1), sacks=((at(2), at(4)),))
        self.assertAlmostEqual(sender(peer).rtt.latest or 0.0, 0.25)

    def test_measuredByTimestamps(self) -> None:
        """With timestamps each acknowledgement of new data measures."""
        peer = Peer(TCPOptions(timestamps=True), stamp=1).establish()
        peer.flow.write(bytes(10 * MSS))
        stamp = peer.take()[0].options.tsValue
        assert stamp is not None
        peer.now += 0.1
        for number in range(1, 4):
            segment = peer.segment(0, 1, 1 + number * (MSS - 12))
            segment.options.tsEcho = stamp
            peer.sendAll([segment])
        self.assertAlmostEqual(sender(peer).rtt.latest or 0.0, 0.1, places=3)

    def test_oldEcho(self) -> None:
        """An echo from before a repair is not taken for a round trip."""
        peer = Peer(TCPOptions(timestamps=True), stamp=1).establish()
        peer.flow.write(bytes(100))
        stamp = peer.take()[0].options.tsValue
        assert stamp is not None
        peer.wait(20)
        smoothed = sender(peer).rtt.smoothed
        segment = peer.segment(0, 1, 101)
        segment.options.tsEcho = stamp
        peer.sendAll([segment])
        self.assertEqual(peer.flow.queued, 0)
        self.assertEqual(sender(peer).rtt.smoothed, smoothed)

    def test_userTimeout(self) -> None:
        """Without any progress the flow ends after the user timeout."""
        peer = self.flying(TCPOptions(userTimeout=30.0))
        sent = peer.wait(29.9)
        self.assertIsNone(peer.flow.closeReason)
        self.assertEqual(resets(sent), [])
        sent = peer.wait(0.2)
        self.assertIs(peer.flow.closeReason, CloseReason.TIMEOUT)
        self.assertEqual(len(resets(sent)), 1)
        self.assertTrue(peer.flow.retired)
        self.assertEqual(peer.wait(100), [])

    def test_pathRenewed(self) -> None:
        """When the way to the peer is good again nothing waits for old timers."""
        peer = self.flying()
        peer.wait(40)
        deadline = peer.flow.deadline()
        assert deadline is not None
        self.assertGreater(deadline - peer.now, 2)
        self.assertTrue(peer.flow.pathRenewed(peer.now))
        self.assertEqual(peer.flow.deadline(), peer.now)
        self.assertEqual(payloads(peer.wait(0.001)), [(1, MSS)])
        deadline = peer.flow.deadline()
        assert deadline is not None
        self.assertLess(deadline - peer.now, 2.1)

    def test_pathRenewedInVain(self) -> None:
        """Flows that lack nothing are left alone, lest all send at once."""
        peer = self.flying()
        self.assertFalse(peer.flow.pathRenewed(peer.now))
        peer.send(0, 1, at(10))
        self.assertFalse(peer.flow.pathRenewed(peer.now))
        self.assertEqual(peer.wait(0.001), [])

    def test_progressExtends(self) -> None:
        """Any progress starts the user timeout anew."""
        peer = self.flying(TCPOptions(userTimeout=30.0))
        peer.wait(25)
        peer.send(0, 1, at(1))
        peer.wait(25)
        self.assertIsNone(peer.flow.closeReason)

    def test_timeLeaps(self) -> None:
        """A machine that slept tries again before it gives a flow up."""
        peer = self.flying()
        peer.now += 10_000
        peer.flow.tick(peer.now)
        self.assertIsNone(peer.flow.closeReason)
        self.assertIn((1, MSS), payloads(peer.take()))
        peer.send(0, 1, at(10))
        self.assertEqual(peer.flow.queued, 0)
        self.assertIsNone(peer.flow.deadline())

    def test_finCounts(self) -> None:
        """A FIN that nobody acknowledges ends the flow as well (T-reap)."""
        peer = Peer(TCPOptions(userTimeout=30.0)).establish()
        peer.flow.shutdownWrite()
        peer.take()
        peer.wait(31)
        self.assertIs(peer.flow.closeReason, CloseReason.TIMEOUT)
        self.assertTrue(peer.flow.retired)

    def test_idleRestart(self) -> None:
        """After a pause the window starts small again (RFC 5681 4.1)."""
        peer = Peer().establish()
        peer.flow.write(bytes(240 * MSS))
        sent = payloads(peer.take())
        while sent:
            peer.now += 0.001
            position, size = sent[-1]
            sent = payloads(peer.send(0, 1, position + size))
        self.assertEqual(peer.flow.queued, 0)
        self.assertGreater(sender(peer).congestion.window, 20 * MSS)
        peer.now += 60
        peer.flow.write(bytes(40 * MSS))
        self.assertEqual(len(peer.take()), 10)


class TailProbeTests(LossCase):
    """RFC 8985 section 7."""

    def timed(self) -> Peer:
        """A peer with a round-trip time of 50 ms, and nothing in flight."""
        peer = self.flying()
        peer.send(0, 1, at(10))
        self.assertEqual(peer.flow.queued, 0)
        return peer

    def test_probes(self) -> None:
        """After two round trips the last segment goes out again."""
        peer = self.timed()
        smoothed = sender(peer).rtt.smoothed
        assert smoothed is not None
        peer.flow.write(bytes(3 * MSS))
        peer.take()
        start = peer.now
        deadline = peer.flow.deadline()
        assert deadline is not None
        self.assertAlmostEqual(deadline - start, max(2 * smoothed, 0.01))
        self.assertEqual(payloads(peer.wait(deadline - start)), [(at(12), MSS)])
        self.assertEqual(sender(peer).tail.count, 1)
        self.assertEqual(sender(peer).timerFires, 0)
        # Only one, then it is up to the retransmission timer.
        deadline = peer.flow.deadline()
        assert deadline is not None
        self.assertAlmostEqual(deadline - peer.now, sender(peer).rtt.timeout)

    def test_newDataFirst(self) -> None:
        """New data that waits is a better probe."""
        peer = self.timed()
        peer.flow.write(bytes(3 * MSS))
        peer.take()
        peer.flow.write(bytes(10))
        peer.flow._tcb.sender._smallEnd = at(99)
        self.assertEqual(payloads(peer.take()), [])
        self.assertEqual(payloads(peer.wait(0.15)), [(at(13), 10)])

    def test_needless(self) -> None:
        """If the peer had everything, the window stays as it was."""
        peer = self.timed()
        window = sender(peer).congestion.window
        peer.flow.write(bytes(3 * MSS))
        peer.take()
        peer.wait(0.15)
        self.assertEqual(sender(peer).tail.count, 1)
        peer.send(0, 1, at(13), sacks=((at(12), at(13)),))
        self.assertGreaterEqual(sender(peer).congestion.window, window)
        self.assertEqual(sender(peer).recovery.mode, OPEN)

    def test_repaired(self) -> None:
        """If the probe itself filled the gap, that was a loss."""
        peer = self.timed()
        window = sender(peer).congestion.window
        peer.flow.write(bytes(3 * MSS))
        peer.take()
        peer.wait(0.15)
        self.assertEqual(sender(peer).tail.count, 1)
        peer.send(0, 1, at(13))
        self.assertLess(sender(peer).congestion.window, window)
        self.assertEqual(peer.flow.queued, 0)

    def test_findsHole(self) -> None:
        """The answer to a probe shows what is missing, without the timer."""
        pair = Pair(Link(1), Link(2)).establish()
        lost: set[int] = set()

        def drop(number: int, segment: Segment) -> bool:
            # The last three segments of the first flight.
            size = segment.end - segment.start
            offset = (segment.seq - 0xFFFFF001) & 0xFFFFFFFF
            if size and offset >= 7 * MSS and offset not in lost:
                lost.add(offset)
                return True
            return False

        pair.there.drop = drop
        pair.client.send(pattern(10 * MSS), True)
        pair.server.send(b"", True)
        pair.run(stop=pair.closed)
        self.assertEqual(len(pair.server.received), 10 * MSS)
        self.assertGreaterEqual(pair.a._tcb.sender.tail.count, 1)


class KeepAliveTests(SynchronousTestCase):
    """Silent peers."""

    def test_off(self) -> None:
        """Nothing is sent to a silent peer unless asked for."""
        peer = Peer().establish()
        self.assertIsNone(peer.flow.deadline())
        self.assertEqual(peer.wait(100_000), [])

    def test_probes(self) -> None:
        """A probe asks for an answer with an old position."""
        peer = Peer().establish()
        peer.flow.setKeepAlive(60.0, 10.0, 3, now=peer.now)
        self.assertEqual(peer.wait(59.9), [])
        (probe,) = peer.wait(0.2)
        self.assertEqual((probe.seq, probe.ack, probe.flags), (0, 1, ACK))
        self.assertEqual(probe.end, probe.start)

    def test_answered(self) -> None:
        """An answer makes for another period of silence."""
        peer = Peer().establish()
        peer.flow.setKeepAlive(60.0, 10.0, 3, now=peer.now)
        for _ in range(10):
            self.assertEqual(len(peer.wait(60)), 1)
            peer.send(0, 1, 1)
            self.assertEqual(peer.wait(59), [])
            peer.send(0, 1, 1)
        self.assertIsNone(peer.flow.closeReason)

    def test_dead(self) -> None:
        """Too many unanswered probes end the flow with a reset."""
        peer = Peer().establish()
        peer.flow.setKeepAlive(60.0, 10.0, 3, now=peer.now)
        sent = peer.wait(89.9)
        self.assertEqual(len(sent), 3)
        self.assertIsNone(peer.flow.closeReason)
        (reset,) = peer.wait(0.2)
        self.assertTrue(reset.flags & RST)
        self.assertIs(peer.flow.closeReason, CloseReason.TIMEOUT)

    def test_trafficPostpones(self) -> None:
        """Anything that the peer sends counts."""
        peer = Peer().establish()
        peer.flow.setKeepAlive(60.0, 10.0, 3, now=peer.now)
        for number in range(20):
            peer.wait(50)
            peer.send(0, 1 + number, 1, b"x")
            peer.wait(0.1)
        self.assertEqual(sender(peer).nxt, sender(peer).una)
        self.assertIsNone(peer.flow.closeReason)

    def test_busy(self) -> None:
        """While data is in flight, retransmission finds out by itself."""
        peer = Peer(TCPOptions(userTimeout=100.0)).establish()
        peer.flow.setKeepAlive(1.0, 1.0, 1, now=peer.now)
        peer.flow.write(b"x")
        peer.take()
        sent = peer.wait(50)
        self.assertIsNone(peer.flow.closeReason)
        self.assertTrue(all(segment.end > segment.start for segment in sent))

    def test_turnedOff(self) -> None:
        """It can be turned off again."""
        peer = Peer().establish()
        peer.flow.setKeepAlive(1.0, now=peer.now)
        peer.flow.setKeepAlive(None, now=peer.now)
        peer.take()
        self.assertEqual(peer.wait(1000), [])

    def test_peerAnswers(self) -> None:
        """Our side answers the probes of others."""
        peer = Peer().establish()
        (answer,) = peer.send(0, 0, 1)
        self.assertEqual((answer.seq, answer.ack), (1, 1))

    def test_bothSides(self) -> None:
        """Two of our flows keep each other alive."""
        pair = Pair().establish()
        pair.a.setKeepAlive(10.0, 1.0, 2, now=pair.now)
        pair.run(until=100.0)
        self.assertIsNone(pair.a.closeReason)
        self.assertGreater(len(pair.client.sent), 8)
        pair.back.loss = 1.0
        pair.run(until=30.0)
        self.assertIs(pair.a.closeReason, CloseReason.TIMEOUT)

    def test_halfClosed(self) -> None:
        """It also finds a peer gone that should still finish."""
        peer = Peer().establish()
        peer.flow.setKeepAlive(10.0, 1.0, 2, now=peer.now)
        peer.flow.shutdownWrite()
        (fin,) = peer.take()
        self.assertTrue(fin.flags & FIN)
        peer.send(0, 1, 2)
        self.assertIs(peer.flow.state, TCPState.FIN_WAIT_2)
        peer.wait(20)
        self.assertTrue(peer.flow.retired)

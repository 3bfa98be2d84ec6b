"""
Tests of L{tsrt.netstack.flow}: segments that do not belong to the connection.

RFC 5961: a stranger who guesses addresses and ports must not end a flow, slip
data into it, or learn much.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.flow import CloseReason, TCPOptions, TCPState
from tsrt.netstack.recvbuf import MAX_ISLANDS
from tsrt.test.netpeer import MSS, Peer, payloads, resets
from tsrt.wire.tcp import ACK, FIN, PSH, RST, SYN, URG, Options


class ResetTests(SynchronousTestCase):
    """RFC 5961 section 3."""

    def test_exact(self) -> None:
        """A reset at exactly the next position ends the flow."""
        peer = Peer().establish()
        self.assertEqual(peer.send(RST, 1, None), [])
        self.assertIs(peer.flow.closeReason, CloseReason.RESET)

    def test_inWindow(self) -> None:
        """Elsewhere in the window it only gets a challenge."""
        peer = Peer().establish()
        (answer,) = peer.send(RST, 2, None)
        self.assertEqual((answer.seq, answer.ack, answer.flags), (1, 1, ACK))
        (answer,) = peer.send(RST, 60_000, None)
        self.assertEqual(answer.flags, ACK)
        self.assertIs(peer.flow.state, TCPState.ESTABLISHED)

    def test_outOfWindow(self) -> None:
        """Outside of the window it is ignored."""
        peer = Peer().establish()
        for seq in (0, -1, -5000, 100_000, 1 << 31):
            self.assertEqual(peer.send(RST, seq, None), [])
        self.assertIs(peer.flow.state, TCPState.ESTABLISHED)

    def test_challengeLeadsToReset(self) -> None:
        """A real peer that restarted resets on the challenge."""
        peer = Peer().establish()
        (answer,) = peer.send(RST, 500, None)
        peer.send(RST, answer.ack, None)
        self.assertIs(peer.flow.closeReason, CloseReason.RESET)

    def test_withData(self) -> None:
        """A reset never delivers data."""
        peer = Peer().establish()
        peer.send(RST | PSH, 2, 1, b"evil")
        self.assertEqual(peer.flow.readable, 0)


class SynTests(SynchronousTestCase):
    """RFC 5961 section 4."""

    def test_challenged(self) -> None:
        """A SYN in an established flow gets a challenge, wherever it lies."""
        peer = Peer().establish()
        for seq in (0, 1, 500, 1 << 30):
            (answer,) = peer.send(SYN, seq, None)
            self.assertEqual((answer.seq, answer.ack, answer.flags), (1, 1, ACK))
        self.assertIs(peer.flow.state, TCPState.ESTABLISHED)

    def test_synAckChallenged(self) -> None:
        """So does a SYN with ACK, as when our last ACK was lost."""
        peer = Peer().establish()
        (answer,) = peer.send(SYN, 0, 1, options=peer.offers)
        self.assertEqual(answer.flags, ACK)


class AcknowledgementTests(SynchronousTestCase):
    """RFC 5961 section 5."""

    def test_neverSent(self) -> None:
        """What acknowledges the future is challenged, and its data dropped."""
        peer = Peer().establish()
        (answer,) = peer.send(0, 1, 2, b"evil")
        self.assertEqual((answer.seq, answer.ack), (1, 1))
        self.assertEqual(peer.flow.readable, 0)
        self.assertEqual(peer.flow._tcb.wild, 1)

    def test_tooOld(self) -> None:
        """So is what acknowledges more than a window ago."""
        peer = Peer().establish()
        (answer,) = peer.send(0, 1, 1 - 70_000, b"evil")
        self.assertEqual(answer.ack, 1)
        self.assertEqual(peer.flow.readable, 0)

    def test_old(self) -> None:
        """Data with a somewhat old acknowledgement is fine."""
        peer = Peer().establish()
        peer.flow.write(bytes(2 * MSS))
        peer.take()
        peer.send(0, 1, 1 + 2 * MSS)
        peer.send(0, 1, 1, b"good")
        self.assertEqual(peer.flow.read(), b"good")
        self.assertEqual(peer.flow.queued, 0)

    def test_missing(self) -> None:
        """A segment without ACK counts for nothing."""
        peer = Peer().establish()
        self.assertEqual(peer.send(PSH, 1, None, b"evil"), [])
        self.assertEqual(peer.send(FIN, 1, None), [])
        self.assertEqual(peer.flow.readable, 0)
        self.assertIs(peer.flow.state, TCPState.ESTABLISHED)


class ChallengeLimitTests(SynchronousTestCase):
    """RFC 5961 section 7."""

    def test_limited(self) -> None:
        """Ten challenges in five seconds, and no more."""
        peer = Peer().establish()
        answers = [a for _ in range(100) for a in peer.send(SYN, 1, None)]
        self.assertEqual(len(answers), 10)
        self.assertEqual(peer.flow._tcb.challenged, 90)
        peer.now += 5
        self.assertEqual(len(peer.send(SYN, 1, None)), 1)

    def test_ownLimit(self) -> None:
        """The limit of one flow says nothing about others."""
        first, second = Peer().establish(), Peer().establish()
        for _ in range(100):
            first.send(SYN, 1, None)
        self.assertEqual(len(second.send(SYN, 1, None)), 1)

    def test_acknowledgementsDoNotLoop(self) -> None:
        """Wrong acknowledgements are not answered without end."""
        peer = Peer().establish()
        answers = [a for _ in range(100) for a in peer.send(0, 1, 50)]
        self.assertEqual(len(answers), 10)

    def test_dataIsAlwaysAnswered(self) -> None:
        """Repeated data is acknowledged each time: the peer may need it."""
        peer = Peer().establish()
        peer.send(0, 1, 1, b"x" * 100)
        answers = [a for _ in range(50) for a in peer.send(0, 1, 1, b"x" * 100)]
        self.assertEqual(len(answers), 50)


class StampTests(SynchronousTestCase):
    """Protection against wrapped sequence numbers (RFC 7323 section 5)."""

    def stamped(self) -> Peer:
        """A peer of a flow with timestamps, at 1000."""
        return Peer(TCPOptions(timestamps=True), stamp=1000).establish()

    def test_oldStamp(self) -> None:
        """A segment with an old timestamp is dropped and acknowledged."""
        peer = self.stamped()
        peer.stamp = 999
        (answer,) = peer.send(0, 1, 1, b"ghost")
        self.assertEqual((answer.ack, peer.flow.readable), (1, 0))
        peer.stamp = 1000
        peer.send(0, 1, 1, b"alive")
        self.assertEqual(peer.flow.read(), b"alive")

    def test_missing(self) -> None:
        """So is one without, except that a reset need not have any."""
        peer = self.stamped()
        self.assertEqual(peer.send(0, 1, 1, b"ghost", options=Options()), [])
        self.assertEqual(peer.flow.readable, 0)
        peer.send(RST, 1, None, options=Options())
        self.assertIs(peer.flow.closeReason, CloseReason.RESET)

    def test_afterLongSilence(self) -> None:
        """After 24 days a timestamp may have wrapped."""
        peer = self.stamped()
        peer.now += 25 * 86400
        peer.stamp = 5
        peer.send(0, 1, 1, b"fine")
        self.assertEqual(peer.flow.read(), b"fine")

    def test_bareOldLimited(self) -> None:
        """Old ones without data are not answered without end."""
        peer = self.stamped()
        peer.stamp = 999
        answers = [a for _ in range(50) for a in peer.send(0, 1, 1)]
        self.assertEqual(len(answers), 10)

    def test_wrapping(self) -> None:
        """Timestamps pass the point where they wrap."""
        peer = Peer(TCPOptions(timestamps=True), stamp=0xFFFFFFFF).establish()
        peer.stamp = 3
        peer.send(0, 1, 1, b"fine")
        self.assertEqual(peer.flow.read(), b"fine")


class BoundTests(SynchronousTestCase):
    """What a hostile peer can make us hold."""

    def test_islands(self) -> None:
        """Tiny out-of-order pieces do not pile up."""
        peer = Peer().establish()
        for number in range(2000):
            peer.send(0, 3 + 2 * number, 1, b"x")
        receiver = peer.flow._tcb.receiver
        assert receiver is not None
        self.assertEqual(len(receiver.buffer._starts), MAX_ISLANDS)
        self.assertGreater(receiver.buffer.refused, 1000)

    def test_tinySegments(self) -> None:
        """Tiny segments in order cost what they hold."""
        peer = Peer().establish()
        for number in range(3000):
            peer.send(0, 1 + number, 1, b"x")
        receiver = peer.flow._tcb.receiver
        assert receiver is not None
        self.assertLess(len(receiver.buffer._chunks), 200)

    def test_replies(self) -> None:
        """Resets that wait to be sent are few."""
        peer = Peer()
        peer.take()
        segments = [peer.segment(0, 1, 50 + n) for n in range(1000)]
        self.assertLessEqual(len(resets(peer.sendAll(segments))), 8)

    def test_urgentIgnored(self) -> None:
        """Urgent data is data like any other."""
        peer = Peer().establish()
        peer.send(URG | PSH, 1, 1, b"urgent")
        self.assertEqual(peer.flow.read(), b"urgent")

    def test_noDataAfterOurEnd(self) -> None:
        """A closed flow takes nothing and says nothing."""
        peer = Peer().establish()
        peer.send(RST, 1, None)
        self.assertEqual(peer.send(0, 1, 1, b"late"), [])
        self.assertEqual(peer.flow.readable, 0)
        peer.flow.tick(peer.now)
        self.assertEqual(peer.take(), [])

    def test_everyFlag(self) -> None:
        """No combination of flags upsets an established flow."""
        for flags in range(256):
            peer = Peer().establish()
            peer.flow.write(b"data")
            peer.take()
            peer.send(flags & ~ACK, 1, 1 if flags & ACK else None, b"payload")
            self.assertIn(peer.flow.closeReason, (None, CloseReason.RESET), flags)
            peer.wait(1000)
            self.assertIsNotNone(peer.flow.closeReason)
            self.assertEqual(payloads(peer.take()), [])

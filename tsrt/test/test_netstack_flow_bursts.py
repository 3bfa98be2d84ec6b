"""
Tests of L{tsrt.netstack.flow}: many packets at once, many answers at once.
"""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.prr import RateReduction
from tsrt.netstack.recovery import FAST, OPEN
from tsrt.netstack.sender import Sender
from tsrt.netstack.tcpoptions import TCPOptions
from tsrt.test.netlink import Link, Pair, pattern
from tsrt.test.netpeer import MSS, Peer, payloads


def sender(peer: Peer) -> Sender:
    """The send side of the flow under test."""
    return peer.flow._tcb.sender


def at(number: int) -> int:
    """Position of the first byte of a full segment."""
    return 1 + number * MSS


class BatchTests(SynchronousTestCase):
    """Acknowledgements come in batches, and are answered as one."""

    def flying(self) -> Peer:
        """A peer to which forty segments are on their way."""
        peer = Peer(TCPOptions(pacedFrom=inf), scale=4).establish(0.05)
        peer.flow.write(bytes(200 * MSS))
        for acknowledged in (0, 10, 30):
            if acknowledged:
                peer.send(0, 1, at(acknowledged))
            else:
                peer.take()
            peer.now += 0.05
        self.assertEqual(sender(peer).inFlight, 40 * MSS)
        self.assertEqual(sender(peer).congestion.window, 40 * MSS)
        return peer

    def test_lossInBatch(self) -> None:
        """
        A batch that acknowledges most of the flight before it shows a loss:
        the window keeps its share of the flight, not of what was left of it.
        """
        peer = self.flying()
        # Thirty arrived, one is missing, nine arrived behind it.
        batch = [peer.segment(0, 1, at(30 + n)) for n in range(2, 31, 2)]
        batch += [
            peer.segment(0, 1, at(60), sacks=((at(61), at(61 + n)),))
            for n in range(1, 10)
        ]
        answer = payloads(peer.sendAll(batch))
        self.assertEqual(sender(peer).recovery.mode, FAST)
        window = sender(peer).congestion.window
        self.assertGreaterEqual(window, int(0.7 * 40 * MSS))
        # And the pipe is filled up to that at once, the lost segment first.
        self.assertEqual(answer[0], (at(60), MSS))
        self.assertGreater(len(answer), 25)
        self.assertLessEqual(len(answer) * MSS, window)

    def test_longReordering(self) -> None:
        """What was sent on the credit of duplicates does not widen the window."""
        peer = self.flying()
        sender(peer).reordering._steps = 4
        for n in range(1, 40):
            peer.send(0, 1, at(30), sacks=((at(31), at(31 + n)),))
        self.assertEqual(sender(peer).recovery.mode, OPEN)
        self.assertGreater(sender(peer).inFlight, 70 * MSS)
        peer.wait(0.1)
        self.assertEqual(sender(peer).recovery.mode, FAST)
        self.assertEqual(sender(peer).congestion.window, 28 * MSS)


class RateReductionTests(SynchronousTestCase):
    """L{RateReduction}, as RFC 9937 has it."""

    def test_proportional(self) -> None:
        """Above the new window, seven go out for ten that arrive."""
        account = RateReduction()
        account.began(100)
        sent = 0
        for pipe in range(100, 70, -1):
            account.arrived(1, 0, pipe, 70)
            sent += account.room
            account.sent(account.room)
        self.assertEqual(sent, 21)

    def test_belowTheWindow(self) -> None:
        """Below it, as much goes out as arrives, and a segment more."""
        account = RateReduction()
        account.began(100)
        account.arrived(2, 0, 20, 70)
        self.assertEqual(account.room, 2)
        account.sent(2)
        account.arrived(2, 1, 20, 70)
        self.assertEqual(account.room, 3)

    def test_notBeyondTheWindow(self) -> None:
        """What is on its way does not exceed the window."""
        account = RateReduction()
        account.began(100)
        account.arrived(50, 0, 69, 70)
        self.assertEqual(account.room, 1)

    @given(
        st.integers(10, 1000),
        st.lists(st.tuples(st.integers(1, 10), st.booleans()), max_size=100),
    )
    def test_conserves(self, flight: int, arrivals: list[tuple[int, bool]]) -> None:
        """Never more goes out than arrives, but for the segments of speeding up."""
        account = RateReduction()
        account.began(flight)
        pipe = flight
        window = flight * 7 // 10
        delivered = sent = extra = 0
        for size, safe in arrivals:
            size = min(size, pipe)
            pipe -= size
            delivered += size
            extra += safe
            account.arrived(size, int(safe), pipe, window)
            room = max(0, account.room)
            account.sent(room)
            pipe += room
            sent += room
            self.assertLessEqual(sent, delivered + extra)
            self.assertLessEqual(pipe, max(window, flight))


class ShortQueueTests(SynchronousTestCase):
    """A bottleneck with a queue of few packets, as relays have them."""

    def carried(self, **link: float) -> Pair:
        """Send two megabytes over such a wire."""
        pair = Pair(Link(1, **link), Link(2, delay=link["delay"]))
        data = pattern(2_000_000)
        pair.client.send(data, True)
        pair.server.send(b"", True)
        pair.run(stop=pair.closed)
        self.assertEqual(pair.server.received, data)
        return pair

    def test_noTimer(self) -> None:
        """
        Slow start overruns the queue; that is repaired without the timer, and
        hardly anything is repeated that had arrived.
        """
        for delay, queue, limit in ((0.012, 32, 1.8), (0.045, 48, 2.6)):
            pair = self.carried(rate=1_250_000.0, delay=delay, queue=queue)
            state = pair.a._tcb.sender
            self.assertGreater(pair.there.dropped, 50)
            self.assertEqual(state.timerFires, 0)
            self.assertLess(state.retransmissions, pair.there.dropped + 5)
            self.assertLess(pair.now - 1000.0, limit)

"""
Tests of L{tsrt.netstack.flow}: finishing, aborting, and waiting afterwards.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.flow import CloseReason, TCPOptions, TCPState
from tsrt.netstack.tcpstate import CLOSED, EOF, READABLE
from tsrt.test.netlink import Link, Pair, pattern
from tsrt.test.netpeer import US, Peer, payloads, resets
from tsrt.wire.tcp import ACK, FIN, PSH, RST, SYN, Options


class OurFinTests(SynchronousTestCase):
    """This side finishes first."""

    def test_inOrder(self) -> None:
        """FIN_WAIT_1, FIN_WAIT_2, TIME_WAIT, and nothing is left."""
        peer = Peer().establish()
        peer.flow.write(b"last words")
        peer.flow.shutdownWrite()
        (fin,) = peer.take()
        self.assertEqual(fin.payload, b"last words")
        self.assertEqual(fin.flags, FIN | PSH | ACK)
        self.assertIs(peer.flow.state, TCPState.FIN_WAIT_1)
        peer.send(0, 1, 12)
        self.assertIs(peer.flow.state, TCPState.FIN_WAIT_2)
        self.assertIsNone(peer.flow.closeReason)
        (answer,) = peer.send(FIN, 1, 12)
        self.assertEqual((answer.seq, answer.ack), (12, 2))
        self.assertIs(peer.flow.state, TCPState.TIME_WAIT)
        self.assertIs(peer.flow.closeReason, CloseReason.DONE)
        self.assertFalse(peer.flow.retired)
        self.assertEqual(peer.flow.takeMarks() & (EOF | CLOSED), EOF | CLOSED)
        self.assertEqual(peer.wait(29.9), [])
        self.assertFalse(peer.flow.retired)
        self.assertEqual(peer.wait(0.2), [])
        self.assertTrue(peer.flow.retired)
        self.assertEqual(peer.flow.takeMarks(), 0)

    def test_bareFin(self) -> None:
        """A FIN without data takes one position."""
        peer = Peer().establish()
        peer.flow.shutdownWrite()
        (fin,) = peer.take()
        self.assertEqual((fin.seq, fin.flags), (1, FIN | ACK))
        self.assertEqual(peer.flow.queued, 0)

    def test_halfClosed(self) -> None:
        """After our FIN the peer's data still arrives, as long as it likes."""
        peer = Peer().establish()
        peer.flow.shutdownWrite()
        peer.take()
        peer.send(0, 1, 2)
        peer.wait(10_000)
        self.assertIs(peer.flow.state, TCPState.FIN_WAIT_2)
        peer.send(0, 1, 2, b"more")
        self.assertEqual(peer.flow.read(), b"more")
        self.assertFalse(peer.flow.eof)
        peer.send(FIN, 5, 2, b"end")
        self.assertEqual(peer.flow.read(), b"end")
        self.assertTrue(peer.flow.eof)

    def test_finAndAcknowledgementTogether(self) -> None:
        """One segment can acknowledge our FIN and be the peer's."""
        peer = Peer().establish()
        peer.flow.shutdownWrite()
        peer.take()
        peer.send(FIN, 1, 2)
        self.assertIs(peer.flow.state, TCPState.TIME_WAIT)

    def test_finRepeated(self) -> None:
        """An unacknowledged FIN is repeated."""
        peer = Peer().establish()
        peer.flow.shutdownWrite()
        peer.take()
        sent = peer.wait(2)
        self.assertGreaterEqual(len(sent), 2)
        self.assertEqual({(s.seq, s.flags) for s in sent}, {(1, FIN | ACK)})

    def test_finAfterLostData(self) -> None:
        """The FIN is repeated with the data before it."""
        peer = Peer().establish()
        peer.flow.write(b"abc")
        peer.flow.shutdownWrite()
        peer.take()
        sent = peer.wait(1.0)
        self.assertEqual(sent[-1].payload, b"abc")
        self.assertTrue(sent[-1].flags & FIN)


class TheirFinTests(SynchronousTestCase):
    """The peer finishes first."""

    def test_inOrder(self) -> None:
        """CLOSE_WAIT, LAST_ACK, closed, without any waiting."""
        peer = Peer().establish()
        (answer,) = peer.send(FIN, 1, 1, b"bye")
        self.assertEqual(answer.ack, 5)
        self.assertIs(peer.flow.state, TCPState.CLOSE_WAIT)
        self.assertEqual(peer.flow.takeMarks(), READABLE | EOF)
        self.assertFalse(peer.flow.eof)
        self.assertEqual(peer.flow.read(), b"bye")
        self.assertTrue(peer.flow.eof)
        peer.flow.write(b"answer")
        peer.flow.shutdownWrite()
        self.assertIs(peer.flow.state, TCPState.LAST_ACK)
        (fin,) = peer.take()
        self.assertEqual((fin.payload, fin.flags & FIN), (b"answer", FIN))
        peer.send(0, 5, 8)
        self.assertIs(peer.flow.closeReason, CloseReason.DONE)
        self.assertTrue(peer.flow.retired)
        self.assertTrue(peer.flow.takeMarks() & CLOSED)

    def test_outOfOrder(self) -> None:
        """A FIN beyond a gap counts once the gap is filled."""
        peer = Peer().establish()
        peer.send(FIN, 101, 1, b"b" * 10)
        self.assertIs(peer.flow.state, TCPState.ESTABLISHED)
        (answer,) = peer.send(0, 1, 1, b"a" * 100)
        self.assertEqual(answer.ack, 112)
        self.assertIs(peer.flow.state, TCPState.CLOSE_WAIT)
        self.assertEqual(peer.flow.read(), b"a" * 100 + b"b" * 10)

    def test_bareOutOfOrder(self) -> None:
        """So does a bare one."""
        peer = Peer().establish()
        peer.send(FIN, 6, 1)
        self.assertIs(peer.flow.state, TCPState.ESTABLISHED)
        peer.send(0, 1, 1, b"12345")
        self.assertIs(peer.flow.state, TCPState.CLOSE_WAIT)

    def test_nothingAfterFin(self) -> None:
        """Data beyond the FIN is not taken, before or after it counts."""
        peer = Peer().establish()
        peer.send(FIN, 6, 1)
        peer.send(0, 6, 1, b"xxx")
        peer.send(0, 1, 1, b"12345yyy")
        self.assertIs(peer.flow.state, TCPState.CLOSE_WAIT)
        peer.send(0, 7, 1, b"zzz")
        self.assertEqual(peer.flow.read(), b"12345")

    def test_finBelowData(self) -> None:
        """A FIN below data that has come already is not believed."""
        peer = Peer().establish()
        peer.send(0, 10, 1, b"later")
        peer.send(FIN, 8, 1)
        peer.send(0, 1, 1, b"123456789")
        self.assertIs(peer.flow.state, TCPState.ESTABLISHED)
        self.assertEqual(peer.flow.read(), b"123456789later")

    def test_finAgain(self) -> None:
        """A repeated FIN is acknowledged again and changes nothing."""
        peer = Peer().establish()
        peer.send(FIN, 1, 1, b"bye")
        peer.flow.takeMarks()
        (answer,) = peer.send(FIN, 1, 1, b"bye")
        self.assertEqual(answer.ack, 5)
        (answer,) = peer.send(FIN, 4, 1)
        self.assertEqual(answer.ack, 5)
        self.assertEqual(peer.flow.takeMarks(), 0)

    def test_closedWindow(self) -> None:
        """A bare FIN is taken even while the window is closed."""
        peer = Peer(TCPOptions(receiveInitial=2048, receiveLimit=2048)).establish()
        peer.send(0, 1, 1, bytes(2048))
        (answer,) = peer.send(FIN, 2049, 1)
        self.assertEqual((answer.ack, answer.window), (2050, 0))
        self.assertIs(peer.flow.state, TCPState.CLOSE_WAIT)


class SimultaneousCloseTests(SynchronousTestCase):
    """Both finish at once."""

    def test_crossed(self) -> None:
        """FINs that cross lead through CLOSING to TIME_WAIT."""
        peer = Peer().establish()
        peer.flow.shutdownWrite()
        peer.take()
        (answer,) = peer.send(FIN, 1, 1)
        self.assertEqual(answer.ack, 2)
        self.assertIs(peer.flow.state, TCPState.CLOSING)
        self.assertIsNone(peer.flow.closeReason)
        peer.send(0, 2, 2)
        self.assertIs(peer.flow.state, TCPState.TIME_WAIT)
        self.assertIs(peer.flow.closeReason, CloseReason.DONE)

    def test_twoFlows(self) -> None:
        """Two flows that finish in the same instant both end well."""
        pair = Pair().establish()
        pair.client.send(b"a", True)
        pair.server.send(b"b", True)
        pair.run(stop=pair.closed)
        self.assertEqual(pair.a.state, TCPState.TIME_WAIT)
        self.assertEqual(pair.b.state, TCPState.TIME_WAIT)
        pair.run()
        self.assertTrue(pair.a.retired and pair.b.retired)

    def test_resetWhileClosing(self) -> None:
        """A reset after everything was said is no failure."""
        peer = Peer().establish()
        peer.flow.shutdownWrite()
        peer.take()
        peer.send(FIN, 1, 1)
        peer.send(RST, 2, None)
        self.assertIs(peer.flow.closeReason, CloseReason.DONE)

    def test_resetWithDataLeft(self) -> None:
        """A reset while data waits for its acknowledgement is one."""
        peer = Peer().establish()
        peer.flow.write(b"unheard")
        peer.flow.shutdownWrite()
        peer.take()
        peer.send(FIN, 1, 1)
        peer.send(RST, 2, None)
        self.assertIs(peer.flow.closeReason, CloseReason.RESET)


class AbortTests(SynchronousTestCase):
    """Giving up, on either side."""

    def test_ours(self) -> None:
        """Aborting sends one reset and forgets the rest."""
        peer = Peer().establish()
        peer.flow.write(bytes(5000))
        peer.take()
        peer.flow.abort()
        self.assertFalse(peer.flow.retired)
        (reset,) = peer.take()
        self.assertEqual((reset.seq, reset.ack, reset.flags), (5001, 1, RST | ACK))
        self.assertIs(peer.flow.closeReason, CloseReason.ABORTED)
        self.assertTrue(peer.flow.retired)
        self.assertIsNone(peer.flow.deadline())
        self.assertEqual(peer.flow.takeMarks(), CLOSED)
        self.assertEqual(peer.send(0, 1, 5001), [])
        self.assertEqual(peer.wait(100), [])

    def test_theirs(self) -> None:
        """A reset by the peer is told exactly once; data stays readable."""
        peer = Peer().establish()
        peer.send(0, 1, 1, b"last")
        peer.flow.takeMarks()
        self.assertEqual(peer.send(RST, 5, None), [])
        self.assertIs(peer.flow.closeReason, CloseReason.RESET)
        self.assertEqual(peer.flow.takeMarks(), CLOSED)
        peer.send(RST, 5, None)
        peer.flow.abort()
        self.assertEqual(peer.take(), [])
        self.assertEqual(peer.flow.takeMarks(), 0)
        self.assertIs(peer.flow.closeReason, CloseReason.RESET)
        self.assertEqual(peer.flow.read(), b"last")

    def test_resetFinishing(self) -> None:
        """A reset in FIN_WAIT_2 and LAST_ACK ends the flow."""
        peer = Peer().establish()
        peer.flow.shutdownWrite()
        peer.take()
        peer.send(0, 1, 2)
        peer.send(RST, 1, None)
        self.assertTrue(peer.flow.retired)

    def test_afterDone(self) -> None:
        """Aborting what is done changes nothing."""
        peer = Peer().establish()
        peer.flow.shutdownWrite()
        peer.take()
        peer.send(FIN, 1, 2)
        peer.flow.abort()
        self.assertEqual(peer.take(), [])
        self.assertIs(peer.flow.closeReason, CloseReason.DONE)
        self.assertIs(peer.flow.state, TCPState.TIME_WAIT)


class ReleaseTests(SynchronousTestCase):
    """The application loses interest."""

    def test_rest(self) -> None:
        """What was written still goes out, and the flow ends well."""
        pair = Pair(Link(1, loss=0.1), Link(2, loss=0.1)).establish()
        data = pattern(100_000)
        pair.a.write(data)
        pair.a.release(pair.now)
        pair.server.send(b"", True)
        pair.run()
        self.assertEqual(pair.server.received, data)
        self.assertIs(pair.a.closeReason, CloseReason.DONE)
        self.assertTrue(pair.a.retired)

    def test_newData(self) -> None:
        """Data that nobody will read resets the flow."""
        peer = Peer().establish()
        peer.flow.release(peer.now)
        peer.take()
        (reset,) = peer.send(0, 1, 2, b"hello?")
        self.assertTrue(reset.flags & RST)
        self.assertIs(peer.flow.closeReason, CloseReason.ABORTED)
        self.assertTrue(peer.flow.retired)

    def test_unreadData(self) -> None:
        """So does data that was not read (RFC 2525 section 2.17)."""
        peer = Peer().establish()
        peer.send(0, 1, 1, b"hello?")
        peer.flow.release(peer.now)
        (reset,) = peer.take()
        self.assertEqual((reset.seq, reset.ack, reset.flags), (1, 7, RST | ACK))
        self.assertIs(peer.flow.closeReason, CloseReason.ABORTED)
        self.assertEqual(peer.flow.readable, 0)

    def test_T_reap(self) -> None:
        """A peer that never finishes is waited for only so long."""
        peer = Peer().establish()
        peer.flow.release(peer.now)
        peer.flow.release(peer.now)
        peer.take()
        peer.send(0, 1, 2)
        self.assertIs(peer.flow.state, TCPState.FIN_WAIT_2)
        self.assertEqual(peer.wait(59), [])
        (reset,) = peer.wait(2)
        self.assertTrue(reset.flags & RST)
        self.assertTrue(peer.flow.retired)
        self.assertIs(peer.flow.closeReason, CloseReason.DONE)

    def test_closedWindow(self) -> None:
        """Nor is a peer that answers but never opens its window (T-reap)."""
        peer = Peer(TCPOptions(userTimeout=60.0)).establish()
        peer.send(0, 1, 1, window=0)
        peer.flow.write(b"unwanted")
        peer.flow.release(peer.now)
        for _ in range(14):
            peer.wait(5)
            peer.send(0, 1, 1, window=0)
        self.assertIs(peer.flow.closeReason, CloseReason.TIMEOUT)
        self.assertTrue(peer.flow.retired)

    def test_afterHalfClose(self) -> None:
        """The wait also begins when the write side was shut long before."""
        peer = Peer().establish()
        peer.flow.shutdownWrite()
        peer.take()
        peer.send(0, 1, 2)
        peer.wait(1000)
        peer.flow.release(peer.now)
        peer.wait(61)
        self.assertTrue(peer.flow.retired)

    def test_whileOpening(self) -> None:
        """Before an answer to our SYN there is nothing to finish."""
        peer = Peer()
        peer.take()
        peer.flow.release(peer.now)
        self.assertEqual(peer.take(), [])
        self.assertTrue(peer.flow.retired)
        self.assertIs(peer.flow.closeReason, CloseReason.ABORTED)

    def test_refused(self) -> None:
        """A flow that never was can be released as well."""
        peer = Peer()
        peer.take()
        peer.send(RST, 0, 1)
        peer.flow.release(peer.now)
        self.assertIs(peer.flow.closeReason, CloseReason.REFUSED)
        self.assertEqual(peer.take(), [])

    def test_afterwards(self) -> None:
        """A flow that is over gives its memory back."""
        peer = Peer().establish()
        peer.send(FIN, 1, 1, b"unread")
        peer.flow.shutdownWrite()
        peer.take()
        peer.send(0, 8, 2)
        self.assertTrue(peer.flow.retired)
        self.assertEqual(peer.flow.readable, 6)
        peer.flow.release(peer.now)
        self.assertEqual(peer.flow.readable, 0)
        self.assertIs(peer.flow.closeReason, CloseReason.DONE)


class TimeWaitTests(SynchronousTestCase):
    """After the end."""

    def waiting(self, options: TCPOptions | None = None, **offers: int) -> Peer:
        """A peer of a flow in TIME_WAIT."""
        peer = Peer(options, **offers).establish()  # type: ignore[arg-type] # offers are ints here
        peer.flow.shutdownWrite()
        peer.take()
        peer.send(FIN, 1, 2)
        self.assertIs(peer.flow.state, TCPState.TIME_WAIT)
        return peer

    def test_finAgain(self) -> None:
        """A repeated FIN is acknowledged, and the wait starts again."""
        peer = self.waiting()
        peer.wait(20)
        (answer,) = peer.send(FIN, 1, 2)
        self.assertEqual((answer.seq, answer.ack), (2, 2))
        peer.wait(20)
        self.assertFalse(peer.flow.retired)
        peer.wait(20)
        self.assertTrue(peer.flow.retired)

    def test_resetIgnored(self) -> None:
        """A reset cannot cut the wait short (RFC 1337)."""
        peer = self.waiting()
        peer.send(RST, 2, None)
        self.assertIs(peer.flow.state, TCPState.TIME_WAIT)

    def test_configured(self) -> None:
        """The wait can be another one."""
        peer = self.waiting(TCPOptions(timeWait=2.0))
        peer.wait(2.1)
        self.assertTrue(peer.flow.retired)

    def test_reuse(self) -> None:
        """A newer SYN may take the place of the flow; others may not."""
        peer = self.waiting()
        flow = peer.flow
        self.assertTrue(flow.mayReuse(peer.segment(SYN, 2, None)))
        self.assertTrue(flow.mayReuse(peer.segment(SYN, 70_000, None)))
        self.assertFalse(flow.mayReuse(peer.segment(SYN, 0, None)))
        self.assertFalse(flow.mayReuse(peer.segment(SYN, 2, 2)))
        self.assertFalse(flow.mayReuse(peer.segment(0, 2, 2)))
        self.assertFalse(Peer().establish().flow.mayReuse(peer.segment(SYN, 2, None)))
        self.assertEqual(flow.reuseSequence, US + 2 + 65537)

    def test_reuseByStamp(self) -> None:
        """With timestamps, a newer one is what counts (RFC 6191)."""
        peer = self.waiting(TCPOptions(timestamps=True), stamp=50)
        old = peer.segment(SYN, 70_000, None, options=Options(tsValue=49))
        new = peer.segment(SYN, 0, None, options=Options(tsValue=51))
        self.assertFalse(peer.flow.mayReuse(old))
        self.assertTrue(peer.flow.mayReuse(new))

    def test_synIsChallenged(self) -> None:
        """A SYN that may not take its place is answered by an ACK."""
        peer = self.waiting()
        (answer,) = peer.send(SYN, 0, None)
        self.assertEqual((answer.flags, answer.ack), (ACK, 2))

    def test_nothingIsResent(self) -> None:
        """Nothing but answers goes out, and no data is taken."""
        peer = self.waiting()
        peer.send(0, 2, 2, b"data")
        self.assertEqual(peer.flow.readable, 0)
        self.assertEqual(payloads(peer.wait(29)), [])
        self.assertEqual(resets(peer.take()), [])

"""
Tests of L{tsrt.netstack.flow}: opening, options, data, marks.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.dataplane.runs import countOf
from tsrt.netstack.flow import CloseReason, TCPFlow, TCPOptions, TCPState
from tsrt.netstack.tcpstate import CLOSED, EOF, ESTABLISHED, READABLE, WRITABLE
from tsrt.test.netlink import CLIENT, SERVER, Link, Pair
from tsrt.test.netpeer import MSS, PEER, US, Peer, payloads, resets
from tsrt.wire.tcp import ACK, FIN, NO_OPTIONS, PSH, RST, SYN, Options


class ActiveOpenTests(SynchronousTestCase):
    """Connecting."""

    def test_syn(self) -> None:
        """The first dispatch gives a SYN with all options and no more."""
        peer = Peer()
        (syn,) = peer.take()
        self.assertEqual((syn.seq, syn.flags, syn.ack), (0, SYN, 0))
        self.assertEqual(syn.options.mss, 1240)
        self.assertEqual(syn.options.windowScale, 7)
        self.assertTrue(syn.options.sackPermitted)
        self.assertIsNotNone(syn.options.tsValue)
        self.assertEqual(syn.window, 65535)
        self.assertIs(peer.flow.state, TCPState.SYN_SENT)
        self.assertEqual(peer.take(), [])

    def test_established(self) -> None:
        """SYN and ACK establish; the answer acknowledges the SYN."""
        peer = Peer()
        peer.take()
        (answer,) = peer.send(SYN, 0, 1, options=peer.offers)
        self.assertEqual((answer.seq, answer.ack, answer.flags), (1, 1, ACK))
        self.assertEqual(answer.window << 7, 65536)
        self.assertIs(peer.flow.state, TCPState.ESTABLISHED)
        self.assertTrue(peer.flow.established)
        self.assertTrue(peer.flow.takeReady())
        self.assertFalse(peer.flow.takeReady())
        self.assertEqual(peer.flow.takeMarks(), ESTABLISHED)
        self.assertEqual(peer.flow.takeMarks(), 0)

    def test_refused(self) -> None:
        """A reset that acknowledges the SYN is a refusal."""
        peer = Peer()
        peer.take()
        self.assertEqual(peer.send(RST, 0, 1), [])
        self.assertIs(peer.flow.closeReason, CloseReason.REFUSED)
        self.assertFalse(peer.flow.established)
        self.assertTrue(peer.flow.retired)
        self.assertEqual(peer.flow.takeMarks(), CLOSED)

    def test_blindReset(self) -> None:
        """A reset that does not acknowledge the SYN is ignored."""
        peer = Peer()
        peer.take()
        self.assertEqual(peer.send(RST, 0, None), [])
        self.assertEqual(peer.send(RST, 0, 2), [])
        self.assertIs(peer.flow.state, TCPState.SYN_SENT)

    def test_wrongAcknowledgement(self) -> None:
        """An answer to something else is reset, and the SYN still waits."""
        peer = Peer()
        peer.take()
        (answer,) = peer.send(SYN, 0, 77)
        self.assertEqual((answer.seq, answer.flags), (77, RST))
        self.assertIs(peer.flow.state, TCPState.SYN_SENT)

    def test_acknowledgementWithoutSyn(self) -> None:
        """An acknowledgement alone does not establish."""
        peer = Peer()
        peer.take()
        self.assertEqual(peer.send(0, 1, 1), [])
        self.assertIs(peer.flow.state, TCPState.SYN_SENT)

    def test_repeated(self) -> None:
        """The SYN is repeated after 1, 2, 4... seconds, then it is over."""
        peer = Peer(TCPOptions(synRetries=3))
        peer.take()
        for delay in (1, 2, 4):
            self.assertEqual(peer.wait(delay - 0.01), [])
            (syn,) = peer.wait(0.01)
            self.assertEqual((syn.seq, syn.flags), (0, SYN))
        self.assertEqual(peer.wait(10), [])
        self.assertIs(peer.flow.closeReason, CloseReason.TIMEOUT)
        self.assertTrue(peer.flow.retired)
        self.assertIsNone(peer.flow.deadline())

    def test_writtenEarly(self) -> None:
        """What is written before the handshake goes out right after it."""
        peer = Peer()
        peer.flow.write(b"hello")
        peer.flow.shutdownWrite()
        peer.take()
        (data,) = peer.send(SYN, 0, 1, options=peer.offers)
        self.assertEqual(data.payload, b"hello")
        self.assertTrue(data.flags & FIN)
        self.assertIs(peer.flow.state, TCPState.FIN_WAIT_1)

    def test_abortEarly(self) -> None:
        """Giving up before an answer sends nothing: nobody is there yet."""
        peer = Peer()
        peer.take()
        peer.flow.abort()
        self.assertEqual(peer.take(), [])
        self.assertIs(peer.flow.closeReason, CloseReason.ABORTED)
        self.assertTrue(peer.flow.retired)

    def test_textWithSyn(self) -> None:
        """Data that comes with SYN and ACK is left for the peer to repeat."""
        peer = Peer()
        peer.take()
        (answer,) = peer.send(SYN, 0, 1, b"early", options=peer.offers)
        self.assertEqual(answer.ack, 1)
        self.assertEqual(peer.flow.readable, 0)


class PassiveOpenTests(SynchronousTestCase):
    """Being connected to."""

    def test_synAck(self) -> None:
        """A SYN is answered by SYN and ACK; an ACK establishes."""
        peer = Peer(active=False)
        (answer,) = peer.take()
        self.assertEqual((answer.seq, answer.ack, answer.flags), (0, 1, SYN | ACK))
        self.assertEqual(answer.options.mss, 1240)
        self.assertTrue(answer.options.sackPermitted)
        self.assertIs(peer.flow.state, TCPState.SYN_RECEIVED)
        self.assertEqual(peer.send(0, 1, 1), [])
        self.assertIs(peer.flow.state, TCPState.ESTABLISHED)

    def test_ports(self) -> None:
        """The flow has the ports and addresses of the segment."""
        flow = Peer(active=False).flow
        self.assertEqual((flow.localAddress, flow.localPort), CLIENT)
        self.assertEqual((flow.remoteAddress, flow.remotePort), SERVER)
        self.assertIn("SYN_RECEIVED", repr(flow))

    def test_onlyWhatWasOffered(self) -> None:
        """Options that the peer did not offer are not answered."""
        peer = Peer(
            TCPOptions(timestamps=True), active=False, mss=None, scale=None, sack=False
        )
        (answer,) = peer.take()
        self.assertIsNone(answer.options.windowScale)
        self.assertFalse(answer.options.sackPermitted)
        self.assertIsNone(answer.options.tsValue)
        peer.send(0, 1, 1)
        peer.flow.write(bytes(2000))
        # Without an MSS option the peer takes 536 bytes (RFC 9293 3.7.1).
        self.assertEqual(payloads(peer.take())[:2], [(1, 536), (537, 536)])

    def test_synRepeated(self) -> None:
        """The same SYN again gets the same answer again."""
        peer = Peer(active=False)
        (first,) = peer.take()
        (second,) = peer.send(SYN, 0, None, options=peer.offers)
        self.assertEqual(
            (first.seq, first.ack, first.flags), (second.seq, second.ack, second.flags)
        )

    def test_synFlood(self) -> None:
        """Repeated SYNs are not answered without limit."""
        peer = Peer(active=False)
        peer.take()
        answers = [
            answer
            for _ in range(50)
            for answer in peer.send(SYN, 0, None, options=peer.offers)
        ]
        self.assertEqual(len(answers), 10)

    def test_answerRepeated(self) -> None:
        """SYN and ACK are repeated, then the flow is given up (T-reap)."""
        peer = Peer(TCPOptions(synAckRetries=2), active=False)
        peer.take()
        sent = peer.wait(60)
        self.assertEqual([s.flags for s in sent[:2]], [SYN | ACK, SYN | ACK])
        self.assertEqual(len(resets(sent)), 1)
        self.assertTrue(peer.flow.retired)
        self.assertIs(peer.flow.closeReason, CloseReason.TIMEOUT)

    def test_reset(self) -> None:
        """A reset with the right position ends a half-open flow."""
        peer = Peer(active=False)
        peer.take()
        peer.send(RST, 1, None)
        self.assertIs(peer.flow.closeReason, CloseReason.RESET)
        self.assertTrue(peer.flow.retired)

    def test_wrongAcknowledgement(self) -> None:
        """An acknowledgement of something else is reset; the flow waits on."""
        peer = Peer(active=False)
        peer.take()
        (answer,) = peer.send(0, 1, 99)
        self.assertEqual((answer.seq, answer.flags), (99, RST))
        self.assertIs(peer.flow.state, TCPState.SYN_RECEIVED)

    def test_dataWithAcknowledgement(self) -> None:
        """Data with the acknowledgement of the handshake counts."""
        peer = Peer(active=False)
        peer.take()
        peer.send(PSH, 1, 1, b"hello")
        self.assertTrue(peer.flow.established)
        self.assertEqual(peer.flow.read(), b"hello")
        self.assertEqual(peer.flow.takeMarks(), ESTABLISHED | READABLE)

    def test_finWithAcknowledgement(self) -> None:
        """So does a FIN."""
        peer = Peer(active=False)
        peer.take()
        peer.send(FIN, 1, 1, b"bye")
        self.assertIs(peer.flow.state, TCPState.CLOSE_WAIT)
        self.assertEqual(peer.flow.takeMarks(), ESTABLISHED | READABLE | EOF)


class SimultaneousOpenTests(SynchronousTestCase):
    """Both sides connect (RFC 9293 section 3.5, figure 7)."""

    def test_crossed(self) -> None:
        """Two SYNs that cross make one connection."""
        peer = Peer()
        peer.take()
        (answer,) = peer.send(SYN, 0, None, options=peer.offers)
        self.assertEqual((answer.seq, answer.ack, answer.flags), (0, 1, SYN | ACK))
        self.assertIs(peer.flow.state, TCPState.SYN_RECEIVED)
        self.assertEqual(resets(peer.send(SYN, 0, 1, options=peer.offers)), [])
        self.assertIs(peer.flow.state, TCPState.ESTABLISHED)

    def test_twoFlows(self) -> None:
        """Two of our own flows open to each other exchange data both ways."""
        pair = Pair()
        (address, port), (remote, remotePort) = pair.ends
        pair.server.flow = TCPFlow.connect(
            remote, remotePort, address, port, iss=7, now=pair.now
        )
        pair.client.send(b"from one", True)
        pair.server.send(b"from the other", True)
        pair.run(stop=pair.closed)
        self.assertEqual(pair.client.received, b"from the other")
        self.assertEqual(pair.server.received, b"from one")
        self.assertIs(pair.a.closeReason, CloseReason.DONE)
        self.assertIs(pair.b.closeReason, CloseReason.DONE)

    def test_refused(self) -> None:
        """A reset while half-open tells an active opener of a refusal."""
        peer = Peer()
        peer.take()
        peer.send(SYN, 0, None, options=peer.offers)
        peer.send(RST, 1, None)
        self.assertIs(peer.flow.closeReason, CloseReason.REFUSED)


class OptionTests(SynchronousTestCase):
    """What the handshake settles."""

    def test_windowScale(self) -> None:
        """The peer's window is scaled by its own shift, ours by ours."""
        peer = Peer(scale=3, window=10).establish()
        peer.flow.write(bytes(10_000))
        # The window of the SYN is not scaled; ten bytes are too few to use.
        self.assertEqual(peer.take()[0].end, 40 + 10)
        peer = Peer(scale=3, window=1000).establish()
        peer.send(0, 1, 1, window=1000)
        peer.flow.write(bytes(10_000))
        self.assertEqual(payloads(peer.take())[-1], (1 + 5 * MSS, MSS))

    def test_noScale(self) -> None:
        """Without the peer's scale ours is not used either."""
        peer = Peer(scale=None).establish()
        for number in range(200):
            answers = peer.send(0, 1 + 1000 * number, 1, bytes(1000))
            peer.flow.read()
            for answer in answers + peer.take():
                self.assertLessEqual(answer.window, 65535)
                self.assertGreater(answer.window, 60000)

    def test_mss(self) -> None:
        """Segments are no larger than the smaller of both sides' limits."""
        for mtu, mss, expected in ((1280, 1000, 1000), (1280, 9000, 1240)):
            peer = Peer(mss=mss, mtu=mtu).establish()
            peer.flow.write(bytes(5000))
            self.assertEqual(payloads(peer.take())[0], (1, expected))

    def test_tinyMSS(self) -> None:
        """A peer cannot make us send a packet for every byte."""
        peer = Peer(mss=1).establish()
        peer.flow.write(bytes(5000))
        self.assertEqual(payloads(peer.take())[0], (1, 64))

    def test_timestamps(self) -> None:
        """Timestamps are echoed, and their room is taken off segments."""
        peer = Peer(TCPOptions(timestamps=True), stamp=77).establish()
        peer.flow.write(bytes(5000))
        first = peer.take()[0]
        self.assertEqual(first.options.tsEcho, 77)
        self.assertEqual(payloads([first]), [(1, MSS - 12)])
        peer.stamp = 80
        self.assertEqual(peer.send(0, 1, 1, b"x" * 1000), [])
        peer.stamp = 81
        # The oldest segment that is being acknowledged counts (RFC 7323 4.3).
        (answer,) = peer.send(0, 1001, 1, b"x" * 1000)
        self.assertEqual((answer.ack, answer.options.tsEcho), (2001, 80))
        peer.stamp = 82
        peer.send(0, 2001, 1, b"x" * 1000)
        (answer,) = peer.send(0, 3001, 1, b"x" * 1000)
        self.assertEqual(answer.options.tsEcho, 82)

    def test_noSackBlocksUnlessAgreed(self) -> None:
        """Without SACK no blocks are sent for out-of-order data."""
        peer = Peer(sack=False).establish()
        (answer,) = peer.send(0, 100, 1, b"later")
        self.assertEqual(answer.options.sacks, ())
        self.assertEqual(answer.ack, 1)


class DataTests(SynchronousTestCase):
    """Reading and writing."""

    def test_write(self) -> None:
        """Data goes out in full segments, pushed at its end."""
        peer = Peer().establish()
        data = bytes(range(250)) * 10
        peer.flow.write(data)
        sent = peer.take()
        self.assertEqual(payloads(sent), [(1, MSS), (1241, MSS), (2481, 20)])
        self.assertEqual(b"".join(s.payload for s in sent), data)
        self.assertEqual([s.flags & PSH for s in sent], [0, 0, PSH])
        self.assertEqual(peer.flow.queued, 2500)

    def test_acknowledged(self) -> None:
        """Acknowledged bytes leave the queue; WRITABLE comes at low water."""
        peer = Peer().establish()
        peer.flow.writeLowWater = 1000
        self.assertEqual(peer.flow.writeLowWater, 1000)
        peer.flow.write(bytes(2500))
        peer.take()
        peer.send(0, 1, 1241)
        self.assertEqual(peer.flow.queued, 1260)
        self.assertEqual(peer.flow.takeMarks(), 0)
        peer.send(0, 1, 2481)
        self.assertEqual(peer.flow.takeMarks(), WRITABLE)
        peer.send(0, 1, 2501)
        self.assertEqual(peer.flow.takeMarks(), 0)
        self.assertEqual(peer.flow.queued, 0)
        self.assertIsNone(peer.flow.deadline())

    def test_initialWindow(self) -> None:
        """Ten segments go out at first (RFC 6928)."""
        peer = Peer().establish()
        peer.flow.write(bytes(100_000))
        self.assertEqual(len(peer.take()), 10)

    def test_read(self) -> None:
        """Data is read whole or in pieces."""
        peer = Peer().establish()
        peer.send(0, 1, 1, b"hello ")
        peer.send(0, 7, 1, b"world")
        self.assertEqual(peer.flow.readable, 11)
        self.assertTrue(peer.flow.takeMarks() & READABLE)
        self.assertEqual(peer.flow.read(5), b"hello")
        self.assertEqual(peer.flow.read(), b" world")
        self.assertEqual(peer.flow.read(), b"")

    def test_readBeforeOpen(self) -> None:
        """Reading before there is a peer gives nothing."""
        flow = Peer().flow
        self.assertEqual((flow.read(), flow.readable, flow.eof), (b"", 0, False))

    def test_batch(self) -> None:
        """A batch of segments is taken at once and acknowledged once."""
        peer = Peer().establish()
        answers = peer.sendAll(
            [
                peer.segment(0, 1 + 1000 * n, 1, bytes([n]) * 1000, options=None)
                for n in range(20)
            ]
        )
        self.assertEqual([a.ack for a in answers], [20_001])
        self.assertEqual(
            peer.flow.read(), b"".join(bytes([n]) * 1000 for n in range(20))
        )

    def test_batchFastPath(self) -> None:
        """Segments without options run through the short path as well."""
        peer = Peer().establish()
        segments = [
            peer.segment(0, 1 + 1000 * n, 1, bytes([n]) * 1000) for n in range(20)
        ]
        for segment in segments:
            segment.options = NO_OPTIONS
        # One of them is missing, one comes twice, one is pushed.
        missing = segments.pop(7)
        segments.insert(3, segments[2])
        segments[5].flags |= PSH
        answers = peer.sendAll(segments)
        self.assertEqual(answers[-1].ack, 7001)
        self.assertIn((8001, 20_001), answers[-1].options.sacks)
        answers = peer.sendAll([missing])
        self.assertEqual(answers[-1].ack, 20_001)
        self.assertEqual(
            peer.flow.read(), b"".join(bytes([n]) * 1000 for n in range(20))
        )

    def test_fastPathStopsAtWindow(self) -> None:
        """The short path takes no more than the window allows."""
        peer = Peer(TCPOptions(receiveInitial=4096, receiveLimit=4096)).establish()
        segments = [peer.segment(0, 1 + 1000 * n, 1, bytes(1000)) for n in range(8)]
        for segment in segments:
            segment.options = NO_OPTIONS
        answers = peer.sendAll(segments)
        self.assertEqual(answers[-1].ack, 4097)
        self.assertEqual(answers[-1].window, 0)
        self.assertEqual(peer.flow.readable, 4096)

    def test_batchWithStamps(self) -> None:
        """The short path also takes segments with timestamps, but no old ones."""
        peer = Peer(TCPOptions(timestamps=True), stamp=100).establish()
        segments = []
        for number in range(6):
            peer.stamp = 101 + number
            segments.append(peer.segment(0, 1 + 1000 * number, 1, bytes(1000)))
        segments[4].options.tsValue = 99
        answers = peer.sendAll(segments)
        self.assertEqual(peer.flow.readable, 4000)
        self.assertEqual((answers[-1].ack, answers[-1].options.tsEcho), (4001, 101))
        self.assertIn((5001, 6001), answers[-1].options.sacks)

    def test_batchWithoutStamps(self) -> None:
        """Where timestamps are agreed, segments without are not taken."""
        peer = Peer(TCPOptions(timestamps=True), stamp=100).establish()
        segments = [
            peer.segment(0, 1 + 1000 * n, 1, bytes(1000), options=NO_OPTIONS)
            for n in range(3)
        ]
        self.assertEqual(peer.sendAll(segments), [])
        self.assertEqual(peer.flow.readable, 0)

    def test_batchOfAcknowledgements(self) -> None:
        """Of a run of acknowledgements the last one counts."""
        peer = Peer().establish()
        peer.flow.write(bytes(30 * MSS))
        peer.take()
        sent = peer.sendAll(
            [
                peer.segment(0, 1, 1 + n * MSS, options=NO_OPTIONS, window=60_000 + n)
                for n in range(1, 11)
            ]
        )
        # Slow start: ten were acknowledged, so that twenty may follow.
        self.assertEqual(len(payloads(sent)), 20)
        self.assertEqual(peer.flow._tcb.sender.window.size, 60_010)

    def test_batchOfDuplicates(self) -> None:
        """Equal acknowledgements are not taken for one: they are counted."""
        peer = Peer(sack=False).establish()
        peer.flow.write(bytes(10 * MSS))
        peer.take()
        batch = [peer.segment(0, 1, 1 + MSS, options=NO_OPTIONS) for _ in range(4)]
        self.assertEqual(payloads(peer.sendAll(batch))[0], (1 + MSS, MSS))

    def test_batchKeepsSack(self) -> None:
        """Acknowledgements with SACK blocks are all looked at."""
        peer = Peer().establish()
        peer.flow.write(bytes(10 * MSS))
        peer.take()
        low, high = 1 + 2 * MSS, 1 + 9 * MSS
        batch = [
            peer.segment(0, 1, 1, sacks=((low, high),)),
            peer.segment(0, 1, 1 + MSS, options=NO_OPTIONS),
        ]
        self.assertEqual(payloads(peer.sendAll(batch))[0], (1 + MSS, MSS))

    def test_batchWildAcknowledgement(self) -> None:
        """A wild one at the end of a batch does not hide what came before."""
        peer = Peer().establish()
        peer.flow.write(bytes(2 * MSS))
        peer.take()
        peer.sendAll(
            [
                peer.segment(0, 1, 1 + MSS, options=NO_OPTIONS),
                peer.segment(0, 1, 1 + 50 * MSS, options=NO_OPTIONS),
            ]
        )
        self.assertEqual(peer.flow.queued, MSS)

    def test_outOfOrder(self) -> None:
        """Out-of-order data waits, is reported by SACK, and joins later."""
        peer = Peer().establish()
        (answer,) = peer.send(0, 1001, 1, b"b" * 500)
        self.assertEqual((answer.ack, answer.options.sacks), (1, ((1001, 1501),)))
        (answer,) = peer.send(0, 2001, 1, b"c" * 500)
        self.assertEqual(answer.options.sacks, ((2001, 2501), (1001, 1501)))
        self.assertEqual(peer.flow.readable, 0)
        self.assertEqual(peer.flow.takeMarks() & READABLE, 0)
        (answer,) = peer.send(0, 1, 1, b"a" * 1000)
        self.assertEqual((answer.ack, answer.options.sacks), (1501, ((2001, 2501),)))
        self.assertEqual(peer.flow.read(), b"a" * 1000 + b"b" * 500)

    def test_duplicateReported(self) -> None:
        """Data that came before is acknowledged at once, by D-SACK."""
        peer = Peer().establish()
        peer.send(0, 1, 1, b"x" * 100)
        (answer,) = peer.send(0, 1, 1, b"x" * 100)
        self.assertEqual((answer.ack, answer.options.sacks), (101, ((1, 101),)))

    def test_overlapFirstWins(self) -> None:
        """Bytes that came first are not replaced."""
        peer = Peer().establish()
        peer.send(0, 1, 1, b"aaaa")
        peer.send(0, 3, 1, b"BBBB")
        self.assertEqual(peer.flow.read(), b"aaaaBB")

    def test_afterClose(self) -> None:
        """Writing to a flow that is over or shut does nothing."""
        peer = Peer().establish()
        peer.flow.shutdownWrite()
        peer.flow.shutdownWrite()
        peer.flow.write(b"late")
        self.assertEqual(payloads(peer.take()), [])
        peer.flow.abort()
        peer.flow.abort()
        peer.flow.write(b"later")
        peer.flow.shutdownWrite()
        self.assertEqual(len(resets(peer.take())), 1)
        self.assertEqual(peer.flow.queued, 0)

    def test_dispatchLimit(self) -> None:
        """What a limit leaves out keeps the flow wanting."""
        peer = Peer().establish()
        peer.flow.write(bytes(10 * MSS))
        self.assertEqual(countOf(peer.flow.dispatch(peer.now, 4)), 4)
        self.assertTrue(peer.flow.wantsDispatch)
        self.assertEqual(countOf(peer.flow.dispatch(peer.now, 4)), 4)
        self.assertEqual(countOf(peer.flow.dispatch(peer.now, 4)), 2)

    def test_pending(self) -> None:
        """A flow puts itself into the stack's queue when it wants to send."""
        pending: dict[TCPFlow, None] = {}
        flow = TCPFlow.connect(*CLIENT, *SERVER, iss=US, now=0.0, pending=pending)
        self.assertEqual(list(pending), [flow])
        for action in (
            lambda: flow.write(b"x"),
            flow.shutdownWrite,
            lambda: flow.setKeepAlive(10.0, now=0.0),
            lambda: flow.setNoDelay(True),
            flow.abort,
        ):
            pending.clear()
            action()
            self.assertEqual(list(pending), [flow])

    def test_wrappedSequence(self) -> None:
        """Streams pass the point where sequence numbers wrap, both ways."""
        pair = Pair(clientISS=0xFFFFFF00, serverISS=0xFFFFFFFF)
        pair.client.send(bytes(100_000), True)
        pair.server.send(bytes(100_000), True)
        pair.run(stop=pair.closed)
        self.assertEqual(len(pair.server.received), 100_000)
        self.assertEqual(len(pair.client.received), 100_000)


class UnreachableTests(SynchronousTestCase):
    """What ICMP says."""

    def test_hardWhileOpening(self) -> None:
        """A hard error ends a flow that is being opened."""
        peer = Peer()
        peer.take()
        peer.flow.unreachable(peer.now, True)
        self.assertIs(peer.flow.closeReason, CloseReason.UNREACHABLE)
        self.assertTrue(peer.flow.retired)

    def test_soft(self) -> None:
        """A soft one is remembered for when the flow times out."""
        peer = Peer(TCPOptions(synRetries=0))
        peer.take()
        peer.flow.unreachable(peer.now, False)
        self.assertIsNone(peer.flow.closeReason)
        peer.wait(5)
        self.assertIs(peer.flow.closeReason, CloseReason.UNREACHABLE)

    def test_hardWhenEstablished(self) -> None:
        """An established flow is not ended by a message that may be forged."""
        peer = Peer().establish()
        peer.flow.unreachable(peer.now, True)
        self.assertIsNone(peer.flow.closeReason)

    def test_quotes(self) -> None:
        """Only what is in flight can be quoted."""
        peer = Peer().establish()
        self.assertFalse(peer.flow.quotes(US + 1))
        peer.flow.write(bytes(100))
        peer.take()
        self.assertTrue(peer.flow.quotes(US + 1))
        self.assertTrue(peer.flow.quotes(US + 100))
        self.assertFalse(peer.flow.quotes(US + 101))
        self.assertFalse(peer.flow.quotes(US))


class PathMTUTests(SynchronousTestCase):
    """Smaller packets on the way."""

    def test_resegmented(self) -> None:
        """What is in flight goes out again, cut smaller, at full speed."""
        peer = Peer().establish()
        peer.flow.write(bytes(5 * MSS))
        peer.take()
        window = peer.flow._tcb.sender.congestion.window
        peer.flow.reducePathMTU(1000, peer.now)
        sent = payloads(peer.take())
        self.assertEqual(sent[:2], [(1, 960), (961, 960)])
        self.assertEqual(sum(size for _, size in sent), 5 * MSS)
        self.assertEqual(peer.flow._tcb.sender.congestion.window, window)

    def test_bounds(self) -> None:
        """Increases are ignored, and absurdly small sizes are not believed."""
        peer = Peer().establish()
        peer.flow.reducePathMTU(1500, peer.now)
        peer.flow.write(bytes(5000))
        self.assertEqual(payloads(peer.take())[0], (1, MSS))
        peer.flow.reducePathMTU(68, peer.now)
        self.assertEqual(payloads(peer.take())[0], (1, 536))

    def test_whileOpening(self) -> None:
        """Before the handshake it only makes the segments to come smaller."""
        peer = Peer()
        peer.take()
        peer.flow.reducePathMTU(1000, peer.now)
        self.assertEqual(peer.take(), [])
        (syn,) = peer.wait(1)
        self.assertEqual(syn.options.mss, 960)
        peer.send(SYN, 0, 1, options=peer.offers)
        peer.flow.write(bytes(5000))
        self.assertEqual(payloads(peer.take())[0], (1, 960))

    def test_ipv6Floor(self) -> None:
        """IPv6 packets of 1280 bytes always pass (RFC 8200)."""
        pair = Pair(ipv6=True, mtu=1500)
        pair.establish()
        pair.a.reducePathMTU(600, pair.now)
        pair.client.send(bytes(10_000))
        pair.run(until=1.0)
        self.assertEqual(max(s.end - s.start for _, s in pair.client.sent), 1280 - 72)


class HandshakeLossTests(SynchronousTestCase):
    """Handshakes over a bad wire."""

    def test_eachLost(self) -> None:
        """Whichever of the first packets is lost, the handshake succeeds."""
        for there, back in (({0}, set()), (set(), {0}), ({0, 1}, {0}), ({1}, {0, 1})):
            pair = Pair(
                Link(drop=lambda n, _, there=there: n in there),
                Link(drop=lambda n, _, back=back: n in back),
            )
            pair.client.send(b"question", True)
            pair.server.send(b"answer", True)
            pair.run(stop=pair.closed)
            self.assertEqual(pair.server.received, b"question")
            self.assertEqual(pair.client.received, b"answer")

    def test_cautiousAfterLoss(self) -> None:
        """After a lost SYN the first window is one segment (RFC 5681)."""
        peer = Peer()
        peer.take()
        peer.wait(1)
        peer.send(SYN, 0, 1, options=peer.offers)
        peer.flow.write(bytes(50_000))
        self.assertEqual(len(payloads(peer.take())), 1)
        self.assertEqual(peer.flow._tcb.sender.rtt.timeout, 3.0)


class OptionsTests(SynchronousTestCase):
    """L{TCPOptions} itself."""

    def test_checked(self) -> None:
        """Impossible settings are refused."""
        self.assertRaises(ValueError, TCPOptions, congestion="none")
        self.assertRaises(ValueError, TCPOptions, receiveLimit=10)
        self.assertRaises(ValueError, TCPOptions, userTimeout=0.0)
        self.assertRaises(ValueError, TCPOptions, timeWait=-1.0)

    def test_T_memory(self) -> None:
        """An idle flow has no buffers to speak of."""
        peer = Peer().establish()
        tcb = peer.flow._tcb
        assert tcb.receiver is not None
        self.assertEqual(tcb.sender.buffer._pieces, [])
        self.assertEqual(tcb.receiver.buffer._chunks, [])


class PeerOptionTests(SynchronousTestCase):
    """Odd offers."""

    def test_zeroMSS(self) -> None:
        """An MSS of zero counts as none."""
        peer = Peer(active=False, mss=0)
        peer.take()
        peer.send(0, 1, 1)
        peer.flow.write(bytes(600))
        self.assertEqual(payloads(peer.take())[0], (1, 536))

    def test_irsKept(self) -> None:
        """The positions of the peer start at its own number."""
        peer = Peer().establish()
        receiver = peer.flow._tcb.receiver
        assert receiver is not None
        self.assertEqual(receiver.irs, PEER)
        self.assertEqual(Options().sacks, ())

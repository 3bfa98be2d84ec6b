"""
Tests for L{tsrt.tunnel.peer}: what happens when nobody says anything.
"""

from __future__ import annotations

import itertools

from tsrt.test.tunnelpair import PairTestCase, ipPacket
from tsrt.tunnel.peer import MAX_QUEUED

INITIATION, DATA = 1, 4


class TimeTests(PairTestCase):
    """
    What happens when nobody says anything.
    """

    def test_keepaliveAnswersData(self) -> None:
        """Data without an answer is acknowledged after ten seconds."""
        self.connect(settle=1.0)
        self.wire.run(8.9)
        self.assertEqual(self.second.kinds(), [])
        self.wire.run(0.2)
        self.assertEqual(self.second.kinds(), [DATA])
        self.assertEqual(self.first.table.counters.keepalivesReceived, 1)

    def test_T_keepalive_loop(self) -> None:
        """After that keep-alive both sides are silent."""
        self.connect()
        self.wire.run(500)
        self.assertEqual(self.first.kinds() + self.second.kinds(), [])

    def test_T_silence(self) -> None:
        """15 seconds after unanswered data a new handshake starts."""
        self.connect()
        self.wire.drop = lambda *_: True
        self.first.send(self.second, ipPacket(1))
        self.wire.run(14.9)
        self.assertEqual(self.first.kinds(), [DATA])
        self.wire.run(0.5)
        self.assertEqual(self.first.kinds(), [INITIATION])

    def test_T_silence_peerRestarted(self) -> None:
        """So a peer that restarted and lost the session is reached again."""
        self.connect()
        self.second.table.removePeer(self.first.public)
        self.second.knows(self.first)
        for number in range(20):
            self.first.send(self.second, ipPacket(number))
            self.wire.run(1)
        self.assertEqual(self.second.got, [ipPacket(n) for n in range(16, 20)])

    def test_restartedPeerIsReachedAtOnce(self) -> None:
        """
        Who is known to have restarted gets a new handshake, and no packet in
        between is lost; what still comes on the old session is taken.
        """
        know = self.first.table.upsertPeer
        know(self.second.public, incarnation=b"one", now=self.wire.now)
        self.connect()
        self.second.table.removePeer(self.first.public)
        self.second.knows(self.first)
        know(self.second.public, incarnation=b"two", now=self.wire.now)
        self.first.send(self.second, ipPacket(1))
        self.wire.run(0.1)
        self.assertEqual(self.second.got, [ipPacket(1)])
        self.assertEqual(self.first.kinds(), [INITIATION, DATA])

    def test_restartedPeerThatCameFirst(self) -> None:
        """News that come after the peer's own handshake lose nothing either."""
        know = self.first.table.upsertPeer
        know(self.second.public, incarnation=b"one", now=self.wire.now)
        self.connect()
        self.second.send(self.first, ipPacket(1))
        know(self.second.public, incarnation=b"two", now=self.wire.now)
        self.second.send(self.first, ipPacket(2))
        self.wire.run(1)
        self.second.send(self.first, ipPacket(3))
        self.wire.run(1)
        self.assertEqual(self.first.got, [ipPacket(n) for n in (1, 2, 3)])

    def test_sameIncarnation(self) -> None:
        """The same again, or nothing known, keeps the session; so does idleness."""
        know = self.first.table.upsertPeer
        self.connect()
        for incarnation in (b"one", b"one", b"", b"one"):
            know(self.second.public, incarnation=incarnation, now=self.wire.now)
        self.wire.run(1)
        self.assertEqual(self.first.kinds(), [])
        self.wire.run(600)
        self.forget()
        know(self.second.public, incarnation=b"two", now=self.wire.now)
        self.wire.run(600)
        self.assertEqual(self.first.kinds(), [])

    def test_restartedPeerIsNotReachedYet(self) -> None:
        """
        The first initiations follow each other after a second; then they come
        at the usual pace.
        """
        know = self.first.table.upsertPeer
        know(self.second.public, incarnation=b"one", now=self.wire.now)
        self.connect()
        self.wire.drop = lambda *_: True
        know(self.second.public, incarnation=b"two", now=self.wire.now)
        started = self.wire.now
        times: list[float] = []
        while len(times) < 6:
            deadline = self.first.table.deadline()
            assert deadline is not None
            self.wire.run(max(deadline - self.wire.now, 0))
            times += [self.wire.now - started] * len(self.first.kinds())
        gaps = [after - before for before, after in itertools.pairwise(times)]
        self.assertEqual(times[0], 0.0)
        self.assertTrue(all(1 <= gap <= 1.334 for gap in gaps[:3]), gaps)
        self.assertTrue(all(5 <= gap <= 5.334 for gap in gaps[3:]), gaps)

    def test_T_handshake_forever(self) -> None:
        """
        Without an answer there are 18 retransmissions, 5 s and up to 333 ms
        apart, then nothing; the next packet starts all over.
        """
        self.wire.drop = lambda *_: True
        times: list[float] = []
        self.first.send(self.second, ipPacket(1))
        while self.first.sent:
            times += [self.wire.now] * len(self.first.kinds())
            deadline = self.first.table.deadline()
            if deadline is None:
                break
            self.wire.run(deadline - self.wire.now)
        self.assertEqual(len(times), 19)
        gaps = [after - before for before, after in itertools.pairwise(times)]
        self.assertTrue(all(5.0 <= gap <= 5.334 for gap in gaps), gaps)
        self.assertGreater(len(set(gaps)), 10)
        self.assertTrue(95 <= self.wire.now - 1000 <= 101.4)
        counters = self.first.table.counters
        self.assertEqual(counters.droppedNoAnswer, 1)
        self.assertEqual(counters.handshakesAbandoned, 1)
        self.assertEqual(self.first.table.indexCount, 0)
        self.assertIsNone(self.first.table.deadline())

        self.wire.drop = lambda *_: False
        self.first.send(self.second, ipPacket(2))
        self.assertEqual(self.first.kinds(), [INITIATION])
        self.wire.run(1)
        self.assertEqual(self.second.got, [ipPacket(2)])

    def test_T_handshake_forever_sessionRetired(self) -> None:
        """
        After giving up, a session that is left sends nothing more, but still
        receives.
        """
        self.connect()
        self.wire.drop = lambda *_: True
        self.first.send(self.second, ipPacket(1))
        self.wire.run(120)
        self.assertEqual(self.first.table.counters.handshakesAbandoned, 1)
        self.wire.drop = lambda *_: False
        self.forget()
        self.second.send(self.first, ipPacket(2))
        self.wire.run(0.015)
        self.assertEqual(self.first.got, [ipPacket(2)])
        self.first.send(self.second, ipPacket(4))
        self.assertEqual(self.first.kinds(), [INITIATION])

    def test_newDataKeepsTrying(self) -> None:
        """While there is new data to send, it is tried on and on."""
        self.wire.drop = lambda *_: True
        for _ in range(100):
            self.first.send(self.second, ipPacket(1))
            self.wire.run(3)
        self.assertEqual(self.first.table.counters.handshakesAbandoned, 0)
        self.assertGreater(self.first.kinds().count(INITIATION), 50)

    def test_queueIsBounded(self) -> None:
        """128 packets wait; newer ones push out the oldest, and are counted."""
        self.wire.drop = lambda *_: True
        for number in range(MAX_QUEUED + 70):
            self.first.send(self.second, ipPacket(number))
        self.assertEqual(self.first.table.counters.droppedQueueFull, 70)
        status = self.first.table.status(self.second.public)
        assert status is not None
        self.assertEqual(status.queued, 128)
        self.wire.drop = lambda *_: False
        self.wire.run(6)
        self.assertEqual(self.second.got, [ipPacket(70 + n) for n in range(128)])

    def test_hugeBatchIsBounded(self) -> None:
        """So it is if all of them come at once."""
        self.first.send(self.second, *[ipPacket(n) for n in range(1000)])
        self.wire.run(1)
        self.assertEqual(self.second.got, [ipPacket(n) for n in range(872, 1000)])

    def test_T_idle_wedge(self) -> None:
        """
        A tunnel with persistent keep-alives and no traffic stays up for days,
        and recovers by itself from an outage of an hour.
        """
        self.first.knows(self.second, keepalive=25.0)
        self.wire.run(3600)
        # The keep-alives that expect no answer keep the session fresh.
        for _ in range(20):
            self.wire.run(61)
            self.second.send(self.first, ipPacket(1))
            self.assertEqual(self.second.kinds()[-1], DATA)
        self.wire.drop = lambda *_: True
        self.wire.run(3600)
        self.wire.drop = lambda *_: False
        self.wire.run(60)
        self.forget()
        self.second.send(self.first, ipPacket(2))
        self.assertEqual(self.second.kinds(), [DATA])
        self.wire.run(1)
        self.assertEqual(self.first.got, [ipPacket(2)])

    def test_persistentKeepalivePace(self) -> None:
        """They come no further apart than asked for, and not with traffic."""
        self.connect()
        self.first.knows(self.second, keepalive=5.0)
        self.forget()
        self.wire.run(50)
        self.assertTrue(10 <= len(self.first.kinds()) <= 11)
        for _ in range(50):
            self.first.send(self.second, ipPacket(0))
            self.wire.run(1)
        self.assertEqual(self.first.kinds(), [DATA] * 50)

    def test_persistentKeepaliveSetAgain(self) -> None:
        """Telling the same interval again and again hastens nothing."""
        self.first.knows(self.second, keepalive=25.0)
        due = self.first.table.deadline()
        for _ in range(100):
            self.first.knows(self.second, keepalive=25.0)
        self.assertEqual(self.first.table.deadline(), due)

    def test_persistentKeepaliveTurnedOff(self) -> None:
        """Zero turns them off while they run."""
        self.first.knows(self.second, keepalive=5.0)
        self.wire.run(20)
        self.first.knows(self.second, keepalive=0.0)
        self.wire.run(15)
        self.forget()
        self.wire.run(200)
        self.assertEqual(self.first.kinds(), [])

    def test_tinyIntervalIsRaised(self) -> None:
        """An absurdly short interval does not become a busy loop."""
        self.first.knows(self.second, keepalive=1e-12)
        self.wire.run(30)
        self.assertLessEqual(len(self.first.kinds()), 32)

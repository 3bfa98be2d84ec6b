"""
Tests for L{tsrt.tunnel.peer}: how sessions begin and end.
"""

from __future__ import annotations

from tsrt.dataplane.runs import messagesOf
from tsrt.test.tunnelpair import PairTestCase, Wire, ipPacket
from tsrt.tunnel.cookies import CookieJar
from tsrt.tunnel.session import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES

INITIATION, RESPONSE, DATA = 1, 2, 4


class HandshakeTests(PairTestCase):
    """
    How sessions begin.
    """

    def test_firstPacketWaits(self) -> None:
        """
        The first packets start a handshake, wait, and are the first data of
        the session.
        """
        self.first.send(self.second, ipPacket(1), ipPacket(2))
        self.first.send(self.second, ipPacket(3))
        self.assertEqual(self.first.kinds(), [INITIATION])
        self.wire.run(1)
        self.assertEqual(self.second.got, [ipPacket(1), ipPacket(2), ipPacket(3)])
        self.assertEqual(self.first.kinds(), [DATA] * 3)
        self.assertEqual(self.second.kinds(), [RESPONSE])

    def test_R_WG_2_responderWaitsForConfirmation(self) -> None:
        """
        The responder sends no data before the initiator has used the session,
        and then sends all that waited.
        """
        self.first.send(self.second, ipPacket(1))
        (initiation,) = self.first.sent
        received = self.second.table.receive([initiation], b"x", self.wire.now)
        self.assertEqual([m[0] for _, ms in received.replies for m in ms], [RESPONSE])
        self.assertEqual(received.established, [])
        self.second.send(self.first, ipPacket(9))
        self.assertNotIn(DATA, self.second.kinds())
        self.wire.run(1)
        self.assertEqual(self.first.got, [ipPacket(9)])

    def test_R_WG_2_replayedInitiationGetsNoData(self) -> None:
        """
        Who replays a peer's initiation to a node that lost its memory gets a
        response, and never any data.
        """
        self.first.send(self.second, ipPacket(1))
        (initiation,) = self.first.sent
        fresh = self.wire.join("fresh")
        fresh.table.setKey(self.second.key)
        fresh.table.upsertPeer(self.first.public, now=self.wire.now)
        received = fresh.table.receive([initiation], b"x", self.wire.now)
        self.assertEqual(len(received.replies), 1)
        messages = fresh.table.send(self.first.public, [ipPacket(7)], self.wire.now)
        self.assertNotIn(DATA, [m[0] for m in messages])

    def test_initiatorSpeaksFirst(self) -> None:
        """An initiator with nothing to send completes with a keep-alive."""
        self.first.knows(self.second, keepalive=25.0)
        self.wire.run(26)
        self.assertEqual(self.first.kinds()[:2], [INITIATION, DATA])
        self.assertEqual(self.second.table.counters.keepalivesReceived, 1)
        self.assertEqual(self.second.got, [])

    def test_established(self) -> None:
        """Both sides are told once when the session comes into use."""
        told: list[tuple[str, bytes]] = []
        self.first.send(self.second, ipPacket(1))
        for _ in range(10):
            self.wire.run(0.01)
            for party in (self.first, self.second):
                told += [(party.name, public) for public in party.last.established]
                party.last.established = []
        self.assertEqual(
            told, [("first", self.second.public), ("second", self.first.public)]
        )

    def test_status(self) -> None:
        """The status tells of the handshake, the session, and the traffic."""
        status = self.first.table.status(self.second.public)
        assert status is not None
        self.assertEqual(
            (status.sendsUntil, status.isHandshaking, status.lastHandshake),
            (None, False, None),
        )
        self.first.send(self.second, ipPacket(1))
        status = self.first.table.status(self.second.public)
        assert status is not None
        self.assertTrue(status.isHandshaking)
        self.assertEqual(status.queued, 1)
        self.wire.run(1)
        status = self.first.table.status(self.second.public)
        assert status is not None
        self.assertFalse(status.isHandshaking)
        self.assertEqual(status.queued, 0)
        self.assertAlmostEqual(status.lastHandshake or 0, 1000.02)
        self.assertAlmostEqual(status.sendsUntil or 0, 1175.02)
        self.assertEqual(status.sentBytes, 32 + 64)
        other = self.second.table.status(self.first.public)
        assert other is not None
        self.assertEqual(other.receivedBytes, 32 + 64)
        self.assertAlmostEqual(other.lastReceived or 0, 1000.03)

    def test_T_simultaneous(self) -> None:
        """Both sides that start at once end with a session that works."""
        for seed in range(20):
            wire = Wire(seed)
            first, second = wire.pair()
            wire.jitter = 0.05
            for number in range(3):
                first.send(second, ipPacket(number))
                second.send(first, ipPacket(100 + number))
            wire.run(3)
            self.assertEqual(sorted(second.got), [ipPacket(n) for n in range(3)])
            self.assertEqual(sorted(first.got), [ipPacket(100 + n) for n in range(3)])
            first.send(second, ipPacket(50))
            second.send(first, ipPacket(51))
            wire.run(1)
            self.assertEqual(second.got[-1], ipPacket(50))
            self.assertEqual(first.got[-1], ipPacket(51))
            self.assertNotIn(INITIATION, first.kinds()[1:])

    def test_T_simultaneous_crossedResponses(self) -> None:
        """So they do if each completes its own before it sees the other's."""
        self.first.send(self.second, ipPacket(1))
        self.second.send(self.first, ipPacket(2))
        self.wire.run(1)
        self.first.send(self.second, ipPacket(3))
        self.second.send(self.first, ipPacket(4))
        self.wire.run(1)
        self.assertEqual(self.second.got, [ipPacket(1), ipPacket(3)])
        self.assertEqual(self.first.got, [ipPacket(2), ipPacket(4)])
        for party in (self.first, self.second):
            dropped = party.table.counters.snapshot()
            self.assertEqual(dropped["droppedUnknownIndex"], 0)

    def test_T_replay_equal(self) -> None:
        """An initiation whose timestamp is not newer is dropped."""
        self.first.send(self.second, ipPacket(1))
        (initiation,) = self.first.sent
        table = self.second.table
        self.assertEqual(len(table.receive([initiation], b"", 1.0).replies), 1)
        self.assertEqual(table.receive([initiation], b"", 2.0).replies, [])
        self.assertEqual(table.counters.droppedHandshakeReplay, 1)

    def test_olderInitiation(self) -> None:
        """So is one that is older than one already answered."""
        self.wire.drop = lambda *_: True
        self.first.send(self.second, ipPacket(1))
        self.wire.run(6)
        older, newer = self.first.sent
        table = self.second.table
        self.assertEqual(len(table.receive([newer], b"", 1.0).replies), 1)
        self.assertEqual(table.receive([older], b"", 2.0).replies, [])
        self.assertEqual(table.counters.droppedHandshakeReplay, 1)

    def test_initiationFlood(self) -> None:
        """A peer's initiations less than 20 ms apart are dropped."""
        self.wire.drop = lambda *_: True
        self.first.send(self.second, ipPacket(1))
        self.wire.run(11)
        one, two, three = self.first.sent
        table = self.second.table
        self.assertEqual(len(table.receive([one], b"", 1.0).replies), 1)
        self.assertEqual(table.receive([two], b"", 1.019).replies, [])
        self.assertEqual(table.counters.droppedHandshakeFlood, 1)
        self.assertEqual(len(table.receive([three], b"", 1.021).replies), 1)

    def test_T_mac2(self) -> None:
        """R-WG-5: a second MAC that nobody asked for is ignored."""
        self.first.send(self.second, ipPacket(1))
        (initiation,) = self.first.sent
        odd = initiation[:-16] + b"\xa5" * 16
        received = self.second.table.receive([odd], b"", self.wire.now)
        self.assertEqual(len(received.replies), 1)

    def test_forgedResponse(self) -> None:
        """A forged response changes nothing; the true one still completes."""
        self.first.send(self.second, ipPacket(1))
        received = self.second.table.receive(self.first.sent, b"", self.wire.now)
        ((_, (response,)),) = received.replies
        forged = bytearray(response)
        forged[50] ^= 1
        # The first MAC is no secret: a forger can make it right.
        self.assertEqual(self.give(bytes(forged)), [])
        self.assertEqual(self.first.table.counters.droppedMac1, 1)
        signed = CookieJar(self.first.public).sign(bytes(forged[:-32]), 0.0)
        self.assertEqual(self.give(signed), [])
        self.assertEqual(self.first.table.counters.droppedHandshakeFailed, 1)
        self.assertEqual([m[0] for m in self.give(response)], [DATA])
        self.assertEqual(self.give(response), [])

    def test_dataForHalfOpenHandshake(self) -> None:
        """A message for the index of an unanswered initiation is dropped."""
        self.first.send(self.second, ipPacket(1))
        (initiation,) = self.first.sent
        message = b"\x04\x00\x00\x00" + initiation[4:8] + bytes(24)
        self.assertEqual(self.give(message), [])
        self.assertEqual(self.first.table.counters.droppedUnknownIndex, 1)

    def test_responseForSession(self) -> None:
        """So is a response for an index that belongs to a session."""
        self.connect()
        (message,) = self.second.table.send(
            self.first.public, [ipPacket(1)], self.wire.now
        )
        response = b"\x02\x00\x00\x00" + bytes(4) + message[4:8] + bytes(48)
        signed = CookieJar(self.first.public).sign(response, 0.0)
        self.assertEqual(self.give(signed), [])
        self.assertEqual(self.first.table.counters.droppedUnknownIndex, 1)

    def give(self, message: bytes) -> list[bytes]:
        """Hand one message to C{first}; its replies."""
        received = self.first.table.receive([message], b"", self.wire.now)
        return [m for _, messages in received.replies for m in messages]


class RekeyTests(PairTestCase):
    """
    How sessions are renewed, and how they end.
    """

    def test_initiatorRenewsWhenSending(self) -> None:
        """From 120 seconds on, a packet of the initiator renews the session."""
        self.connect()
        self.wire.run(108)
        self.first.send(self.second, ipPacket(1))
        self.assertEqual(self.first.kinds(), [DATA])
        self.wire.run(1.1)
        self.first.send(self.second, ipPacket(2))
        self.assertEqual(self.first.kinds(), [DATA, INITIATION])
        self.wire.run(1)
        self.assertEqual(self.second.got, [ipPacket(1), ipPacket(2)])
        self.assertEqual(self.first.table.counters.handshakesCompleted, 2)

    def test_responderDoesNotRenew(self) -> None:
        """The responder sends on, until the session is too old."""
        self.connect()
        self.wire.run(150)
        self.second.send(self.first, ipPacket(1))
        self.assertEqual(self.second.kinds(), [DATA])

    def test_initiatorRenewsWhenReceiving(self) -> None:
        """From 165 seconds on, a received packet makes the initiator renew."""
        self.connect()
        self.wire.run(153)
        self.second.send(self.first, ipPacket(1))
        self.wire.run(0.05)
        self.assertEqual(self.first.kinds(), [])
        self.wire.run(2)
        self.second.send(self.first, ipPacket(2))
        self.wire.run(0.015)
        self.assertEqual(self.first.kinds(), [INITIATION])
        self.wire.run(1)
        self.assertEqual(self.first.got, [ipPacket(1), ipPacket(2)])
        self.assertEqual(self.first.table.counters.handshakesCompleted, 2)

    def test_responderDoesNotRenewWhenReceiving(self) -> None:
        """Received packets do not make the responder renew."""
        self.connect()
        self.wire.run(160)
        message, *_ = messagesOf(
            self.first.table.send(self.second.public, [ipPacket(1)], self.wire.now)
        )
        received = self.second.table.receive([message], b"", self.wire.now)
        self.assertEqual(received.packets, [(self.first.public, [ipPacket(1)])])
        self.assertEqual(received.replies, [])

    def test_renewalOnReceiveIsPaced(self) -> None:
        """A session that is not renewed is not asked for with each packet."""
        self.connect()
        self.wire.run(155)
        self.wire.drop = lambda _, to, data: to is self.second
        for number in range(40):
            self.second.send(self.first, ipPacket(number))
            self.wire.run(0.1)
        self.assertEqual(self.first.kinds().count(INITIATION), 1)

    def test_expiredSessionReceivesNothing(self) -> None:
        """What comes 180 seconds after the handshake is dropped."""
        self.connect()
        messages = self.second.table.send(
            self.first.public, [ipPacket(1)], self.wire.now
        )
        self.wire.run(180)
        received = self.first.table.receive(messages, b"", self.wire.now)
        self.assertEqual((received.packets, received.heard), ([], []))
        self.assertEqual(self.first.table.counters.droppedExpired, 1)

    def test_expiredSessionSendsNothing(self) -> None:
        """
        A packet waits for a new session from 175 seconds on, lest the old one
        be too old when the packet arrives.
        """
        self.connect()
        self.wire.run(163)
        self.wire.drop = lambda *_: True
        self.second.send(self.first, ipPacket(4))
        self.assertEqual(self.second.kinds(), [DATA])
        self.wire.run(1.1)
        self.wire.drop = lambda *_: False
        self.second.send(self.first, ipPacket(5))
        self.assertEqual(self.second.kinds(), [INITIATION])
        self.wire.run(1)
        self.assertEqual(self.first.got, [ipPacket(5)])

    def test_previousSessionStillReceives(self) -> None:
        """What was sent before a renewal and comes after it is accepted."""
        self.connect()
        late = self.second.table.send(self.first.public, [ipPacket(1)], self.wire.now)
        self.wire.run(110)
        self.first.send(self.second, ipPacket(2))
        self.wire.run(1)
        self.assertEqual(self.first.table.counters.handshakesCompleted, 2)
        received = self.first.table.receive(late, b"", self.wire.now)
        self.assertEqual(received.packets, [(self.second.public, [ipPacket(1)])])

    def test_keysAreForgotten(self) -> None:
        """After 540 seconds nothing of a session is left, nor any timer."""
        self.connect()
        self.wire.run(528)
        self.assertEqual(self.first.table.indexCount, 1)
        self.wire.run(2)
        self.assertEqual(self.first.table.indexCount, 0)
        self.assertEqual(self.second.table.indexCount, 0)
        self.assertIsNone(self.first.table.deadline())
        self.assertIsNone(self.second.table.deadline())

    def test_T_limits_rekeyAfterMessages(self) -> None:
        """After 2^60 messages either side renews, and goes on sending."""
        for sender, receiver in (
            (self.first, self.second),
            (self.second, self.first),
        ):
            self.connect()
            self.session(sender, receiver).sendCounter = REKEY_AFTER_MESSAGES
            self.wire.run(6)
            self.forget()
            sender.send(receiver, ipPacket(1))
            self.assertEqual(sender.kinds(), [DATA, INITIATION])
            self.wire.run(1)
            self.assertEqual(receiver.got, [ipPacket(1)])
            self.wire.run(600)
            self.forget()

    def test_T_limits_rejectAfterMessages(self) -> None:
        """
        At the ceiling of counters nothing more is sealed: the rest waits for
        a new session, and nothing is lost.
        """
        self.connect()
        self.session(self.first, self.second).sendCounter = REJECT_AFTER_MESSAGES - 2
        self.first.send(self.second, *[ipPacket(n) for n in range(5)])
        self.assertEqual(self.first.kinds(), [DATA, DATA, INITIATION])
        self.first.send(self.second, ipPacket(5))
        self.assertEqual(self.first.kinds(), [])
        self.wire.run(1)
        self.assertEqual(self.second.got, [ipPacket(n) for n in range(6)])

    def test_T_limits_ceilingRightAfterHandshake(self) -> None:
        """
        If the ceiling comes before another initiation is allowed, one follows
        as soon as it is: nothing waits for ever.
        """
        self.connect(settle=1.0)
        self.session(self.first, self.second).sendCounter = REJECT_AFTER_MESSAGES
        self.first.send(self.second, ipPacket(1))
        self.assertEqual(self.first.kinds(), [])
        self.wire.run(6)
        self.assertEqual(self.second.got, [ipPacket(1)])

    def test_T_limits_keepaliveAtCeiling(self) -> None:
        """A keep-alive at the ceiling asks for a new session as well."""
        self.connect()
        self.session(self.second, self.first).sendCounter = REJECT_AFTER_MESSAGES
        self.first.send(self.second, ipPacket(1))
        self.wire.run(10.1)
        self.assertEqual(self.second.kinds()[0], INITIATION)


class IndexTests(PairTestCase):
    """
    R-WG-3: no receiver index leaks, whatever happens.
    """

    def test_R_WG_3_afterRemoval(self) -> None:
        """Removing a peer frees all of its indices, at any stage."""
        for seconds in (0.0, 0.005, 0.015, 0.025, 1.0, 125.0, 300.0):
            wire = Wire()
            first, second = wire.pair()
            first.send(second, ipPacket(0))
            second.send(first, ipPacket(0))
            wire.run(seconds)
            first.send(second, ipPacket(1))
            first.table.removePeer(second.public)
            second.table.removePeer(first.public)
            self.assertEqual((first.table.indexCount, second.table.indexCount), (0, 0))
            self.assertIsNone(first.table.deadline())

    def test_R_WG_3_overManyHandshakes(self) -> None:
        """At most four indices a peer are ever in use."""
        self.wire.loss = 0.4
        self.wire.jitter = 0.5
        for number in range(400):
            self.first.send(self.second, ipPacket(number))
            self.second.send(self.first, ipPacket(number))
            self.wire.run(10)
            self.assertLessEqual(self.first.table.indexCount, 4)
            self.assertLessEqual(self.second.table.indexCount, 4)
        self.assertGreater(self.first.table.counters.handshakesCompleted, 20)
        self.wire.run(700)
        self.assertEqual(self.first.table.indexCount, 0)
        self.assertEqual(self.second.table.indexCount, 0)

    def test_R_WG_3_unansweredInitiations(self) -> None:
        """Each retransmission frees the index of the one before it."""
        self.wire.drop = lambda *_: True
        self.first.send(self.second, ipPacket(0))
        for _ in range(15):
            self.wire.run(5)
            self.assertEqual(self.first.table.indexCount, 1)

    def test_R_WG_3_unconfirmedSessions(self) -> None:
        """A responder that is never confirmed keeps one index, not many."""
        self.wire.drop = lambda _, to, data: to is self.first
        self.first.send(self.second, ipPacket(0))
        self.wire.run(80)
        self.assertGreater(self.second.table.counters.handshakesAnswered, 10)
        self.assertEqual(self.second.table.indexCount, 1)
        self.wire.run(600)
        self.assertEqual(self.second.table.indexCount, 0)

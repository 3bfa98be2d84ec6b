"""
Tests for L{tsrt.tunnel.timers}.
"""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from tsrt.tunnel.timers import (
    MAX_JITTER,
    MAX_RETRANSMITS,
    REKEY_ON_RECEIVE,
    SILENCE_TIMEOUT,
    ZERO_KEYS_AFTER,
    TimerEvent,
    TimerState,
)


class TimerStateTests(SynchronousTestCase):
    """
    Tests for L{TimerState}.
    """

    def setUp(self) -> None:
        """A fresh set of timers."""
        self.timers = TimerState()

    def test_constants(self) -> None:
        """The derived times are those of the protocol."""
        self.assertEqual(
            (REKEY_ON_RECEIVE, SILENCE_TIMEOUT, ZERO_KEYS_AFTER, MAX_RETRANSMITS),
            (165.0, 15.0, 540.0, 18),
        )

    def test_allOffAtFirst(self) -> None:
        """New timers never run out."""
        self.assertEqual(self.timers.earliest, inf)
        self.assertEqual(self.timers.expire(1e12), [])

    def test_retransmit(self) -> None:
        """An initiation is awaited for five seconds and the jitter."""
        self.timers.handshakeStarted(100.0, 0.25)
        self.assertEqual(self.timers.earliest, 105.25)
        self.assertEqual(self.timers.expire(105.0), [])
        self.assertEqual(self.timers.expire(105.25), [TimerEvent.RETRANSMIT])
        self.assertEqual(self.timers.earliest, inf)

    def test_giveUpAfterEighteen(self) -> None:
        """After 18 retransmissions the next timeout gives up."""
        now = 0.0
        events = []
        for _ in range(19):
            self.timers.handshakeStarted(now, MAX_JITTER)
            now = self.timers.earliest
            events += self.timers.expire(now)
        self.assertEqual(events, [TimerEvent.RETRANSMIT] * 18 + [TimerEvent.GIVE_UP])
        self.assertTrue(95 <= now <= 19 * 5.334)
        self.assertEqual(self.timers.retransmits, 0)

    def test_finishedHandshake(self) -> None:
        """An answered handshake is not sent again."""
        self.timers.handshakeStarted(0.0, 0.0)
        self.timers.handshakeFinished()
        self.assertEqual(self.timers.expire(1000.0), [])

    def test_keepaliveAfterData(self) -> None:
        """Data that we do not answer for ten seconds is acknowledged."""
        self.timers.received(50.0, True)
        self.timers.received(55.0, True)
        self.assertEqual(self.timers.earliest, 60.0)
        self.assertEqual(self.timers.expire(60.0), [TimerEvent.KEEPALIVE])

    def test_T_keepalive_loop(self) -> None:
        """A received keep-alive asks for nothing."""
        self.timers.received(50.0, False)
        self.assertEqual(self.timers.earliest, inf)

    def test_sendingAcknowledges(self) -> None:
        """Anything that we send spares the keep-alive."""
        for isData in (True, False):
            timers = TimerState()
            timers.received(0.0, True)
            timers.sent(1.0, isData)
            self.assertNotIn(TimerEvent.KEEPALIVE, timers.expire(100.0))

    def test_T_silence(self) -> None:
        """Data without any answer for 15 seconds asks for a new handshake."""
        self.timers.jitter = 0.125
        self.timers.sent(100.0, True)
        self.timers.sent(110.0, True)
        self.assertEqual(self.timers.earliest, 115.125)
        self.assertEqual(self.timers.expire(115.125), [TimerEvent.NEW_HANDSHAKE])

    def test_anythingReceivedEndsTheSilence(self) -> None:
        """A keep-alive from the peer is answer enough."""
        self.timers.sent(100.0, True)
        self.timers.received(101.0, False)
        self.assertEqual(self.timers.expire(1000.0), [])

    def test_keepalivesExpectNoAnswer(self) -> None:
        """What is not data does not begin a silence."""
        self.timers.sent(100.0, False)
        self.assertEqual(self.timers.earliest, inf)

    def test_zeroKeys(self) -> None:
        """Keys are forgotten 540 seconds after the last handshake."""
        self.timers.sessionMade(10.0, 0.0)
        self.timers.sessionMade(20.0, 0.0)
        self.assertEqual(self.timers.expire(559.0), [])
        self.assertEqual(self.timers.expire(560.0), [TimerEvent.ZERO_KEYS])

    def test_persistentKeepalive(self) -> None:
        """It comes again and again, whether or not anything is sent then."""
        self.timers.setInterval(25.0, 7.0)
        times = []
        for _ in range(4):
            now = self.timers.earliest
            self.assertEqual(self.timers.expire(now), [TimerEvent.PERSISTENT])
            times.append(now)
        self.assertEqual(times, [7.0, 32.0, 57.0, 82.0])

    def test_trafficPutsOffPersistentKeepalive(self) -> None:
        """Any packet, either way, starts the interval anew."""
        self.timers.setInterval(25.0, 10.0)
        self.timers.sent(8.0, False)
        self.timers.received(9.0, False)
        self.assertEqual(self.timers.expire(33.0), [])
        self.assertEqual(self.timers.earliest, 34.0)

    def test_persistentKeepaliveOff(self) -> None:
        """An interval of zero turns it off, also while it runs."""
        self.timers.setInterval(25.0, 10.0)
        self.timers.setInterval(0.0, 10.0)
        self.assertEqual(self.timers.expire(1000.0), [])
        self.timers.sent(1001.0, False)
        self.assertEqual(self.timers.persistentAt, inf)

    def test_shorterInterval(self) -> None:
        """A shorter interval counts from the next packet on."""
        self.timers.setInterval(25.0, 10.0)
        self.timers.setInterval(5.0, 12.0)
        self.assertEqual(self.timers.earliest, 10.0)
        self.timers.sent(1.0, False)
        self.assertEqual(self.timers.earliest, 6.0)

    def test_earliestIsNeverTooLate(self) -> None:
        """Timers that were put off make C{earliest} too early at most."""
        self.timers.received(0.0, True)
        self.timers.sent(1.0, True)
        self.timers.received(2.0, False)
        self.assertLessEqual(self.timers.earliest, 12.0)
        self.assertEqual(self.timers.expire(12.0), [])
        self.assertEqual(self.timers.earliest, inf)

    def test_clearKeepsThePersistentOne(self) -> None:
        """Clearing turns off everything but what was asked for."""
        self.timers.setInterval(25.0, 10.0)
        self.timers.handshakeStarted(0.0, 0.0)
        self.timers.sessionMade(0.0, 0.0)
        self.timers.sent(0.0, True)
        self.timers.clear()
        self.assertEqual(self.timers.startedAt, -inf)
        self.assertEqual(self.timers.earliest, 25.0)
        self.assertEqual(self.timers.expire(25.0), [TimerEvent.PERSISTENT])
        self.assertEqual(self.timers.expire(49.0), [])

    def test_awaitTurn(self) -> None:
        """A handshake that may not start yet starts when it may."""
        self.timers.handshakeStarted(100.0, 0.5)
        self.timers.handshakeFinished()
        self.assertEqual(self.timers.expire(101.0), [])
        self.timers.awaitTurn()
        self.assertEqual(self.timers.earliest, 105.5)
        self.assertEqual(self.timers.expire(105.5), [TimerEvent.RETRANSMIT])

    def test_awaitTurnBehindAnotherTimer(self) -> None:
        """Another timer may well run out before that."""
        self.timers.handshakeStarted(100.0, 0.5)
        self.timers.handshakeFinished()
        self.timers.expire(105.5)
        self.timers.setInterval(2.0, 102.0)
        self.timers.startedAt = 101.0
        self.timers.awaitTurn()
        self.assertEqual(self.timers.earliest, 102.0)
        self.assertEqual(self.timers.expire(102.0), [TimerEvent.PERSISTENT])

    def test_awaitTurnLeavesRetransmission(self) -> None:
        """One that is running already is left alone."""
        self.timers.handshakeStarted(100.0, 0.5)
        self.timers.awaitTurn()
        self.assertEqual(self.timers.retransmitAt, 105.5)

"""
Tests for L{tsrt.tunnel.cookies} and L{tsrt.tunnel.limits}.
"""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import DecryptError
from tsrt.test.tunnelpair import vector
from tsrt.tunnel.cookies import CookieChecker, CookieJar
from tsrt.tunnel.limits import MAX_SOURCES, LoadGauge, SourceLimiter
from tsrt.wire.wireguard import NO_MAC

_VECTOR = vector("wireguard_cookie_reply")
_INITIATION = bytes.fromhex(vector("wireguard_initiation")["initiation"])
_RESPONDER = bytes.fromhex(vector("wireguard_initiation")["responder_public"])
_BODY = _INITIATION[:-32]
_REPLY = bytes.fromhex(_VECTOR["cookie_reply"])


class CookieJarTests(SynchronousTestCase):
    """
    Tests for L{CookieJar}.
    """

    def setUp(self) -> None:
        """A jar for the responder of the vectors, which has sent something."""
        self.jar = CookieJar(_RESPONDER)
        self.message = self.jar.sign(_BODY, 0.0)

    def test_withoutCookie(self) -> None:
        """The first MAC has the published bytes, the second one is zero."""
        self.assertEqual(self.message, _INITIATION)
        self.assertEqual(self.message[-16:], NO_MAC)

    def test_vector(self) -> None:
        """With the published cookie reply the second MAC is the published one."""
        self.jar.accept(_REPLY[8:32], _REPLY[32:], 10.0)
        message = self.jar.sign(_BODY, 11.0)
        self.assertEqual(message[:-16], _INITIATION[:-16])
        self.assertEqual(message[-16:].hex(), _VECTOR["mac2_of_same_initiation"])

    def test_cookieAges(self) -> None:
        """A cookie is used for less than 120 seconds."""
        self.jar.accept(_REPLY[8:32], _REPLY[32:], 10.0)
        self.assertNotEqual(self.jar.sign(_BODY, 129.9)[-16:], NO_MAC)
        self.assertEqual(self.jar.sign(_BODY, 130.0)[-16:], NO_MAC)

    def test_cookieForAnotherMessage(self) -> None:
        """A cookie reply to an earlier message is not accepted."""
        self.jar.sign(_BODY[:-1] + b"x", 1.0)
        self.assertRaises(DecryptError, self.jar.accept, _REPLY[8:32], _REPLY[32:], 2.0)
        self.assertEqual(self.jar.sign(_BODY, 3.0)[-16:], NO_MAC)

    def test_unaskedCookie(self) -> None:
        """Who sent nothing believes no cookie reply."""
        jar = CookieJar(_RESPONDER)
        self.assertRaises(DecryptError, jar.accept, _REPLY[8:32], _REPLY[32:], 2.0)


class CookieCheckerTests(SynchronousTestCase):
    """
    Tests for L{CookieChecker}.
    """

    def setUp(self) -> None:
        """The responder of the vectors, and somebody who talks to it."""
        self.checker = CookieChecker(_RESPONDER, Random(3).randbytes)
        self.jar = CookieJar(_RESPONDER)

    def visit(self, source: bytes, now: float) -> None:
        """Send a message and keep the cookie that comes back."""
        reply = self.checker.reply(self.jar.sign(_BODY, now), source, now)
        self.jar.accept(reply[8:32], reply[32:], now)

    def test_mac1(self) -> None:
        """The first MAC is checked over all that is before it."""
        self.assertTrue(self.checker.checkMac1(_INITIATION))
        for position in (0, 4, 50, 115, 116, 131):
            wrong = bytearray(_INITIATION)
            wrong[position] ^= 1
            self.assertFalse(self.checker.checkMac1(bytes(wrong)), position)

    def test_mac1IgnoresMac2(self) -> None:
        """What stands in the place of the second MAC does not matter to it."""
        self.assertTrue(self.checker.checkMac1(_INITIATION[:-16] + b"x" * 16))

    def test_replyHasTheForm(self) -> None:
        """A reply is 64 bytes, of its type, for the sender's index."""
        reply = self.checker.reply(_INITIATION, b"here", 0.0)
        self.assertEqual(len(reply), 64)
        self.assertEqual(reply[:8].hex(), "0300000044332211")

    def test_replyLikeTheVector(self) -> None:
        """With the randomness of the vector the reply is the published one."""
        # The cookie depends on the secret, which the vector leaves open; what
        # seals it does not: swap in the published cookie.
        nonce = bytes.fromhex(_VECTOR["nonce"])
        checker = CookieChecker(_RESPONDER, lambda n: nonce if n == 24 else bytes(n))
        reply = checker.reply(_INITIATION, b"here", 0.0)
        jar = CookieJar(_RESPONDER)
        jar.sign(_BODY, 0.0)
        jar.accept(reply[8:32], reply[32:], 0.0)
        self.assertEqual(reply[:32], _REPLY[:32])
        self.assertTrue(checker.checkMac2(jar.sign(_BODY, 0.0), b"here", 0.0))

    def test_mac2(self) -> None:
        """Who got a cookie at a place is recognised there, and only there."""
        self.visit(b"here", 5.0)
        message = self.jar.sign(_BODY, 6.0)
        self.assertTrue(self.checker.checkMac2(message, b"here", 6.0))
        self.assertFalse(self.checker.checkMac2(message, b"there", 6.0))

    def test_noMac2(self) -> None:
        """A message without a cookie is not recognised."""
        self.visit(b"here", 5.0)
        self.assertFalse(self.checker.checkMac2(_INITIATION, b"here", 6.0))

    def test_noSecretYet(self) -> None:
        """Before the first cookie nobody can hold one."""
        self.assertFalse(self.checker.checkMac2(_INITIATION, b"here", 0.0))

    def test_secretRotates(self) -> None:
        """Cookies are good for 120 seconds at most, then new ones are."""
        self.visit(b"here", 100.0)
        message = self.jar.sign(_BODY, 101.0)
        self.assertTrue(self.checker.checkMac2(message, b"here", 219.9))
        self.assertFalse(self.checker.checkMac2(message, b"here", 220.0))
        self.visit(b"here", 220.0)
        self.assertFalse(self.checker.checkMac2(message, b"here", 220.0))
        renewed = self.jar.sign(_BODY, 221.0)
        self.assertTrue(self.checker.checkMac2(renewed, b"here", 221.0))

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=160), st.binary(max_size=30))
    def test_anyBytes(self, message: bytes, source: bytes) -> None:
        """Any bytes are judged, and none raise."""
        checker = CookieChecker(_RESPONDER, Random(3).randbytes)
        self.assertFalse(checker.checkMac1(message))
        self.assertFalse(checker.checkMac2(message, source, 0.0))


class LoadGaugeTests(SynchronousTestCase):
    """
    Tests for L{LoadGauge}.
    """

    def test_calm(self) -> None:
        """As many as the limit in each second are no load."""
        gauge = LoadGauge(10)
        for second in range(5):
            self.assertFalse(any(gauge.note(second + n / 10) for n in range(10)))

    def test_load(self) -> None:
        """One more within the second is, and for a second from then on."""
        gauge = LoadGauge(10)
        answers = [gauge.note(50.0 + n / 100) for n in range(12)]
        self.assertEqual(answers, [False] * 10 + [True] * 2)
        self.assertTrue(gauge.isLoaded(51.1))
        self.assertFalse(gauge.isLoaded(51.12))

    def test_clockBackwards(self) -> None:
        """A clock that jumps back begins a new second, nothing else."""
        gauge = LoadGauge(2)
        for now in (100.0, 100.1, 5.0, 5.1):
            self.assertFalse(gauge.note(now))


class SourceLimiterTests(SynchronousTestCase):
    """
    Tests for L{SourceLimiter}.
    """

    def test_burst(self) -> None:
        """Five at once, then no more."""
        limiter = SourceLimiter()
        answers = [limiter.admit(b"a", 10.0) for _ in range(7)]
        self.assertEqual(answers, [True] * 5 + [False] * 2)

    def test_rate(self) -> None:
        """In the long run twenty a second pass, however many come."""
        limiter = SourceLimiter()
        passed = sum(limiter.admit(b"a", 10 + n / 1000) for n in range(10_000))
        self.assertTrue(200 <= passed <= 205, passed)

    def test_sourcesAreApart(self) -> None:
        """One source does not use up the share of another."""
        limiter = SourceLimiter()
        for _ in range(10):
            limiter.admit(b"a", 10.0)
        self.assertTrue(limiter.admit(b"b", 10.0))

    def test_recovers(self) -> None:
        """After a pause the whole burst is there again."""
        limiter = SourceLimiter()
        for _ in range(10):
            limiter.admit(b"a", 10.0)
        self.assertEqual([limiter.admit(b"a", 11.0) for _ in range(5)], [True] * 5)

    def test_bounded(self) -> None:
        """However many sources there are, the table does not grow beyond."""
        limiter = SourceLimiter()
        for number in range(3 * MAX_SOURCES):
            limiter.admit(number.to_bytes(4, "big"), 10.0)
        self.assertEqual(len(limiter), MAX_SOURCES)

    def test_forgets(self) -> None:
        """Sources that came long ago make room by themselves."""
        limiter = SourceLimiter()
        for number in range(1000):
            limiter.admit(number.to_bytes(4, "big"), number * 0.1)
        self.assertLess(len(limiter), 10)

    def test_catchesUpWithForgetting(self) -> None:
        """Each newcomer lets two go that came long ago."""
        limiter = SourceLimiter()
        for number in range(100):
            limiter.admit(number.to_bytes(4, "big"), 10.0)
        limiter.admit(b"new", 20.0)
        self.assertEqual(len(limiter), 99)

"""
Tests for L{tsrt.control.keyfetch}, L{tsrt.control.plainhttp},
L{tsrt.control.skew} and L{tsrt.control.tlsoptions}, with real TLS in memory.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.ssl import PrivateCertificate, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tsrt.control.dial import ControlDialer
from tsrt.control.keyfetch import (
    FETCH_TIMEOUT,
    KeyFetcher,
    KeyUnavailable,
    parseKeyAnswer,
)
from tsrt.control.plainhttp import LARGEST_ANSWER
from tsrt.control.skew import describeSpan
from tsrt.control.steps import KEY, TLS, StepLog, StepResult
from tsrt.control.urls import parseControlURL
from tsrt.errors import (
    ClockSkew,
    ControlProtocolError,
    ControlTooOld,
    ControlUnreachable,
)
from tsrt.keys import MachineKey, MachinePublic
from tsrt.test.controlpeer import ControlPeer, fixedBytes, keyAnswer, page
from tsrt.test.memorynet import MemoryNet

HOST = "control.example"
DAY = 86400.0


def certificateFor(
    host: str = HOST, begins: float = -10 * DAY, ends: float = 10 * DAY
) -> PrivateCertificate:
    """A self-signed certificate, valid from and to so many seconds from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(seconds=begins))
        .not_valid_after(now + timedelta(seconds=ends))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    keyPEM = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    result: PrivateCertificate = PrivateCertificate.loadPEM(pem + keyPEM)
    return result


class KeyAnswerTests(SynchronousTestCase):
    """What a control server answers."""

    def test_key(self) -> None:
        """The key is read, and fields that we do not know are ignored."""
        key = MachineKey.generate(fixedBytes(1)).public()
        body = f'{{"publicKey":"{key.text()}","more":[1]}}'.encode()
        self.assertEqual(parseKeyAnswer(body, "x"), key)

    def test_tooOld(self) -> None:
        """A server without a Noise key is too old."""
        zero = MachinePublic.zero().text()
        for body in (
            b"{}",
            b'{"legacyPublicKey":"mkey:' + b"ab" * 32 + b'"}',
            b'{"publicKey":null}',
            b'{"publicKey":"' + zero.encode() + b'"}',
            b"ab" * 32,
            b"mkey:" + b"AB" * 32 + b"\n",
        ):
            problem = self.assertRaises(ControlTooOld, parseKeyAnswer, body, "x")
            self.assertTrue(problem.isPermanent)

    def test_notAKey(self) -> None:
        """Anything else is no control server."""
        for body in (
            b"",
            b"<html>",
            b"[]",
            b'"x"',
            b"\xff\xfe",
            b'{"publicKey":5}',
            b'{"publicKey":"mkey:12"}',
            b'{"publicKey":"nodekey:' + b"ab" * 32 + b'"}',
            b"[" * 100_000,
        ):
            problem = self.assertRaises(ControlProtocolError, parseKeyAnswer, body, "x")
            self.assertFalse(problem.isPermanent)


class FetchTests(SynchronousTestCase):
    """Fetching over pretended TLS and over none."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.net = MemoryNet(self.clock)
        self.peer = ControlPeer()
        self.steps = StepLog(self.clock)

    def fetch(self, url: str = f"https://{HOST}") -> Deferred[MachinePublic]:
        fetcher = KeyFetcher(
            self.clock,
            self.net,
            parseControlURL(url, allowHTTP=True),
            steps=self.steps,
            wallTime=time.time,
        )
        result = fetcher.fetch()
        self.net.pump()
        return result

    def tearDown(self) -> None:
        self.net.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.net.wires, [])

    def test_fetch(self) -> None:
        """The key is asked for with our version, by TLS, at the URL's port."""
        self.net.listen(HOST, 8443, self.peer.build)
        result = self.fetch(f"https://{HOST}:8443/base")
        self.assertEqual(self.successResultOf(result), self.peer.key.public())
        [(method, target, headers)] = self.peer.heads
        self.assertEqual((method, target), ("GET", "/base/key?v=130"))
        self.assertEqual(headers["host"], f"{HOST}:8443")
        self.assertTrue(headers["user-agent"].startswith("tsrt/"))
        self.assertTrue(self.net.attempts[0].tls)
        self.assertIs(self.steps.result(KEY), StepResult.OK)

    def test_local(self) -> None:
        """A plain server on this machine is asked by plain HTTP."""
        self.net.listen("::1", 9000, self.peer.build)
        result = self.fetch("http://[::1]:9000")
        self.assertEqual(self.successResultOf(result), self.peer.key.public())
        self.assertFalse(self.net.attempts[0].tls)

    def test_R_NET_1_neverDowngraded(self) -> None:
        """The key of an https:// server is never asked for by plain HTTP."""
        self.net.listen(HOST, 80, self.peer.build)
        self.failureResultOf(self.fetch(), ControlUnreachable)
        self.assertEqual([a.port for a in self.net.attempts], [443])
        self.assertTrue(self.net.attempts[0].tls)

    def test_R_NET_1_redirect(self) -> None:
        """A redirect to plain HTTP is an error, not followed."""
        self.peer.keyAnswer = page(
            b"", "302 Found", headers=f"Location: http://{HOST}/key\r\n"
        )
        self.net.listen(HOST, 443, self.peer.build)
        self.net.listen(HOST, 80, self.peer.build)
        self.failureResultOf(self.fetch(), KeyUnavailable)
        self.assertEqual(len(self.net.attempts), 1)

    def test_errorPages(self) -> None:
        """HTTP errors tell their status, and may pass."""
        for status in ("404 Not Found", "500 Oops", "502 Bad Gateway", "403 Forbidden"):
            self.peer.keyAnswer = page(b"<html>" * 100, status, "text/html")
            self.net.listen(HOST, 443, self.peer.build)
            problem = self.failureResultOf(self.fetch(), KeyUnavailable).value
            self.assertIn(f"HTTP {status}", str(problem))
            self.assertEqual(problem.status, int(status[:3]))
            self.assertFalse(problem.isPermanent)
            self.net.pump()

    def test_tooOld(self) -> None:
        """A server with a zero key is too old."""
        self.peer.keyAnswer = keyAnswer(MachinePublic.zero())
        self.net.listen(HOST, 443, self.peer.build)
        self.failureResultOf(self.fetch(), ControlTooOld)
        self.assertIs(self.steps.result(KEY), StepResult.FAILED)

    def test_portal(self) -> None:
        """A login page of the network is no key."""
        self.peer.keyAnswer = page(b"<html>Log in</html>", kind="text/html")
        self.net.listen(HOST, 443, self.peer.build)
        problem = self.failureResultOf(self.fetch(), ControlProtocolError).value
        self.assertIn("login page", problem.describe())

    def test_T_caps_announced(self) -> None:
        """A body announced as too long is not read."""
        self.peer.keyAnswer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx" % (
            LARGEST_ANSWER + 1
        )
        self.net.listen(HOST, 443, self.peer.build)
        self.failureResultOf(self.fetch(), ControlProtocolError)

    def test_T_caps_endless(self) -> None:
        """A body without an end is cut off."""
        self.peer.keyAnswer = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (2 * LARGEST_ANSWER)
        self.net.listen(HOST, 443, self.peer.build)
        self.failureResultOf(self.fetch(), ControlProtocolError)

    def test_cutShort(self) -> None:
        """A body that ends early is no key."""
        self.peer.keyAnswer = self.peer.keyAnswer[:-10]
        self.net.listen(HOST, 443, self.peer.build)
        self.failureResultOf(self.fetch(), ControlUnreachable)

    def test_notHTTP(self) -> None:
        """A server that speaks something else is no control server."""
        self.peer.keyAnswer = b"SSH-2.0-OpenSSH\r\n"
        self.net.listen(HOST, 443, self.peer.build)
        self.failureResultOf(self.fetch(), ControlUnreachable)
        self.flushLoggedErrors()

    def test_silence(self) -> None:
        """A fetch that gets no answer is given up in time."""
        self.net.refuse(HOST, 443, None)
        result = self.fetch()
        self.net.advance(FETCH_TIMEOUT)
        problem = self.failureResultOf(result, ControlUnreachable).value
        self.assertIn("no answer within 20 s", str(problem))

    def test_noName(self) -> None:
        """A name that does not resolve is told."""
        self.net.refuse(HOST, 443, error.DNSLookupError())
        problem = self.failureResultOf(self.fetch(), ControlUnreachable).value
        self.assertIn("its name cannot be resolved", str(problem))

    def test_cancel(self) -> None:
        """Cancelling leaves nothing behind."""
        self.peer.keyAnswer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        self.net.refuse(HOST, 443, None)
        result = self.fetch()
        result.cancel()
        self.failureResultOf(result, CancelledError)


class RealTLSTests(SynchronousTestCase):
    """Certificates of all sorts."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.peer = ControlPeer()
        self.steps = StepLog(self.clock)
        self.certificate = certificateFor()

    def serve(self, *, trusted: bool = True) -> None:
        roots = [self.certificate] if trusted else [certificateFor("other.example")]
        self.net = MemoryNet(self.clock, trustRootFromCertificates(roots))
        self.net.listen(HOST, 443, self.peer.build, self.certificate.options())

    def fetch(self, ahead: float = 0.0) -> Deferred[MachinePublic]:
        fetcher = KeyFetcher(
            self.clock,
            self.net,
            parseControlURL(f"https://{HOST}"),
            steps=self.steps,
            wallTime=lambda: time.time() + ahead,
        )
        result = fetcher.fetch()
        self.net.pump()
        return result

    def tearDown(self) -> None:
        self.net.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.net.wires, [])

    def withDate(self, offset: float) -> None:
        self.peer.keyAnswer = page(
            b"{}",
            headers=f"Date: {formatdate(time.time() + offset, usegmt=True)}\r\n",
        )

    def test_good(self) -> None:
        """A certificate that verifies is all that it takes."""
        self.serve()
        self.assertEqual(self.successResultOf(self.fetch()), self.peer.key.public())
        self.assertIs(self.steps.result(TLS), StepResult.OK)

    def test_untrusted(self) -> None:
        """A certificate that nobody vouches for is refused, with the reason."""
        self.serve(trusted=False)
        problem = self.failureResultOf(self.fetch(), ControlUnreachable).value
        self.assertIn("self-signed", str(problem))
        self.assertIn("private authority", problem.describe())
        self.assertIs(self.steps.result(TLS), StepResult.FAILED)

    def test_wrongName(self) -> None:
        """A certificate for another name is refused."""
        self.certificate = certificateFor("other.example")
        self.serve()
        self.failureResultOf(self.fetch(), ControlUnreachable)

    def test_clockBehind(self) -> None:
        """A clock two days behind is named as the cause."""
        self.certificate = certificateFor(begins=DAY, ends=90 * DAY)
        self.withDate(2 * DAY)
        self.serve()
        problem = self.failureResultOf(self.fetch(), ClockSkew).value
        self.assertIn("your clock is off by 2 days (behind)", str(problem))
        self.assertIn("Set the clock", problem.describe())
        self.assertFalse(problem.isPermanent)

    def test_clockAhead(self) -> None:
        """A clock two days ahead is named as the cause."""
        self.certificate = certificateFor(begins=-90 * DAY, ends=-DAY)
        self.withDate(-2 * DAY)
        self.serve()
        problem = self.failureResultOf(self.fetch(), ClockSkew).value
        self.assertIn("your clock is off by 2 days (ahead)", str(problem))

    def test_expiredCertificate(self) -> None:
        """Where the clock is right, it is the certificate."""
        self.certificate = certificateFor(begins=-90 * DAY, ends=-DAY)
        self.withDate(30)
        self.serve()
        problem = self.failureResultOf(self.fetch(), ControlUnreachable).value
        self.assertIn(
            "has expired, and the clock of this machine is right", str(problem)
        )

    def test_expiredWithoutDate(self) -> None:
        """Without a date it may be either."""
        self.certificate = certificateFor(begins=-90 * DAY, ends=-DAY)
        self.serve()
        problem = self.failureResultOf(self.fetch(), ControlUnreachable).value
        self.assertIn(
            "by this machine's clock, the certificate has expired", str(problem)
        )

    def test_unverifiedDateCannotLetUsIn(self) -> None:
        """The second question is for the date only; its key is not used."""
        self.certificate = certificateFor(begins=-90 * DAY, ends=-DAY)
        self.serve()
        self.failureResultOf(self.fetch())
        self.assertEqual(len(self.peer.heads), 1)

    def test_noiseOverBadCertificate(self) -> None:
        """The Noise connection goes on with a bad certificate, and says so."""
        self.certificate = certificateFor("other.example")
        self.serve(trusted=False)
        dialer = ControlDialer(
            self.clock,
            self.net,
            parseControlURL(f"https://{HOST}"),
            MachineKey.generate(fixedBytes(5)),
            randbytes=fixedBytes(6),
            steps=self.steps,
        )
        result = dialer.dial(self.peer.key.public())
        self.net.pump()
        layer = self.successResultOf(result)
        self.assertIs(self.steps.result(TLS), StepResult.OK)
        layer.abortConnection()
        self.net.pump()

    def test_noiseOverGoodCertificate(self) -> None:
        """The same with a good one."""
        self.serve()
        dialer = ControlDialer(
            self.clock,
            self.net,
            parseControlURL(f"https://{HOST}"),
            MachineKey.generate(fixedBytes(5)),
            randbytes=fixedBytes(6),
            steps=self.steps,
        )
        result = dialer.dial(self.peer.key.public())
        self.net.pump()
        self.successResultOf(result).abortConnection()
        self.net.pump()

    def test_spans(self) -> None:
        """Lengths of time are told in the unit that suits them."""
        self.serve()
        for seconds, text in (
            (30, "30 seconds"),
            (90, "2 minutes"),
            (3600, "1 hour"),
            (172800, "2 days"),
        ):
            self.assertEqual(describeSpan(seconds), text)

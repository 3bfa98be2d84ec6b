"""
Tests for L{tsrt.control.dial}, L{tsrt.control.upgrade} and L{tsrt.control.race}.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tsrt.control.dial import DIAL_TIMEOUT, LARGEST_PLAN, ControlDialer
from tsrt.control.noiselayer import HandshakeRefused, NoiseLayer
from tsrt.control.race import AllFailed, race
from tsrt.control.steps import DNS, NOISE, TCP, TLS, StepLog, StepResult
from tsrt.control.urls import parseControlURL
from tsrt.errors import (
    ControlProtocolError,
    ControlUnreachable,
    UpgradeRefused,
    WrongControlKey,
)
from tsrt.interfaces import IStreamDialer
from tsrt.keys import MachineKey
from tsrt.tailcfg import ControlDialCandidate, ControlDialPlan
from tsrt.test.controlpeer import ControlPeer, fixedBytes, page
from tsrt.test.memorynet import MemoryNet
from tsrt.wire.controlframe import encodeError

HOST = "control.example"


class RaceTests(SynchronousTestCase):
    """The first of several ways wins."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.started: dict[str, Deferred[str]] = {}

    def start(self, name: str) -> Deferred[str]:
        self.started[name] = Deferred()
        return self.started[name]

    def race(self, *delays: float, hasten: bool = True) -> Deferred[str]:
        names = "abcdef"
        return race(
            self.clock,
            [
                (delay, partial(self.start, names[number]))
                for number, delay in enumerate(delays)
            ],
            hasten=hasten,
        )

    def test_firstWins(self) -> None:
        """The first result counts, and the others are cancelled."""
        result = self.race(0, 0.5, 9)
        self.clock.advance(0.5)
        self.started["b"].callback("won")
        self.assertEqual(self.successResultOf(result), "won")
        self.assertTrue(self.started["a"].called)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNotIn("c", self.started)

    def test_hasten(self) -> None:
        """When all that run have failed, the next one starts at once."""
        result = self.race(0, 0.5)
        self.started["a"].errback(ValueError("a"))
        self.assertIn("b", self.started)
        self.started["b"].errback(ValueError("b"))
        failure = self.failureResultOf(result, AllFailed)
        self.assertEqual([str(f.value) for f in failure.value.failures], ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noHaste(self) -> None:
        """Without haste each one waits for its time."""
        result = self.race(0, 0.5, hasten=False)
        self.started["a"].errback(ValueError("a"))
        self.assertNotIn("b", self.started)
        self.clock.advance(0.5)
        self.started["b"].callback("b")
        self.assertEqual(self.successResultOf(result), "b")

    def test_cancel(self) -> None:
        """Cancelling the race cancels all of it."""
        result = self.race(0, 0.5)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertTrue(self.started["a"].called)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_atOnce(self) -> None:
        """A way that ends at once leaves the others alone."""
        result = race(
            self.clock,
            [(0, lambda: succeed("x")), (0, lambda: self.start("never"))],
            hasten=True,
        )
        self.assertEqual(self.successResultOf(result), "x")
        self.assertEqual(self.started, {})

    def test_allFailAtOnce(self) -> None:
        """All ways may fail before the race has well begun."""
        result = race(
            self.clock,
            [(0, lambda: fail(ValueError())), (1, lambda: fail(ValueError()))],
            hasten=True,
        )
        self.failureResultOf(result, AllFailed)

    def test_nothing(self) -> None:
        """A race needs somebody to run."""
        self.assertRaises(ValueError, race, self.clock, [], hasten=True)


class DialTests(SynchronousTestCase):
    """Dialling through networks of all sorts."""

    url = f"https://{HOST}"

    def setUp(self) -> None:
        self.clock = Clock()
        self.net = MemoryNet(self.clock)
        self.peer = ControlPeer()
        self.steps = StepLog(self.clock)
        self.make()

    def make(self, url: str | None = None, **options: Any) -> None:
        self.dialer = ControlDialer(
            self.clock,
            self.net,
            parseControlURL(url or self.url, allowHTTP=True),
            MachineKey.generate(fixedBytes(5)),
            randbytes=fixedBytes(6),
            steps=self.steps,
            **options,
        )

    def dial(self) -> Deferred[NoiseLayer]:
        result = self.dialer.dial(self.peer.key.public())
        self.net.pump()
        return result

    def ways(self) -> list[tuple[int, bool, str | None]]:
        return [(a.port, a.tls, a.address) for a in self.net.attempts]

    def test_netIsADialer(self) -> None:
        """The network of these tests keeps to the interface."""
        verifyObject(IStreamDialer, self.net)

    def test_plainFirst(self) -> None:
        """Plain HTTP on port 80 is tried first, and enough if it works."""
        self.net.listen(HOST, 80, self.peer.build)
        self.net.listen(HOST, 443, self.peer.build)
        self.successResultOf(self.dial())
        self.assertEqual(self.ways(), [(80, False, None)])
        method, target, headers = self.peer.heads[0]
        self.assertEqual((method, target), ("POST", "/ts2021"))
        self.assertEqual(headers["host"], HOST)
        self.assertEqual(headers["content-length"], "0")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for step in (DNS, TCP, NOISE):
            self.assertIs(self.steps.result(step), StepResult.OK)

    def test_theServerLearnsWhoWeAre(self) -> None:
        """The handshake tells our machine key and capability version."""
        self.net.listen(HOST, 80, self.peer.build)
        self.successResultOf(self.dial())
        [connection] = self.peer.connections
        self.assertEqual(
            connection.clientKey, MachineKey.generate(fixedBytes(5)).public()
        )
        self.assertEqual(connection.clientVersion, 130)

    def test_TLSAfterHalfASecond(self) -> None:
        """Where plain HTTP hangs, TLS starts after 500 ms and wins."""
        self.net.refuse(HOST, 80, None)
        self.net.listen(HOST, 443, self.peer.build)
        result = self.dial()
        self.net.advance(0.49)
        self.assertEqual(self.ways(), [(80, False, None)])
        self.net.advance(0.01)
        self.successResultOf(result)
        self.assertEqual(self.ways(), [(80, False, None), (443, True, None)])
        self.assertIs(self.steps.result(TLS), StepResult.OK)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_TLSAtOnceWhenPlainFails(self) -> None:
        """Where plain HTTP is refused, TLS starts at once."""
        self.net.listen(HOST, 443, self.peer.build)
        self.successResultOf(self.dial())
        self.assertEqual([a.time for a in self.net.attempts], [0.0, 0.0])

    def test_redirectOnPort80(self) -> None:
        """A web server that sends port 80 elsewhere does not stop us."""
        answer = page(b"", "301 Moved Permanently", headers="Location: https://x/\r\n")
        redirecting = ControlPeer()
        redirecting.upgradeAnswer = answer
        self.net.listen(HOST, 80, redirecting.build)
        self.net.listen(HOST, 443, self.peer.build)
        self.successResultOf(self.dial())

    def test_recentDial(self) -> None:
        """Within two minutes of a dial only TLS is tried, then both again."""
        self.net.listen(HOST, 80, self.peer.build)
        self.net.listen(HOST, 443, self.peer.build)
        self.successResultOf(self.dial())
        self.net.advance(119)
        self.successResultOf(self.dial())
        self.net.advance(119)
        self.successResultOf(self.dial())
        self.net.advance(121)
        self.successResultOf(self.dial())
        self.assertEqual([port for port, _, _ in self.ways()], [80, 443, 443, 80])

    def test_recentDialOfPlainServer(self) -> None:
        """A server configured with http:// is redialled by HTTP."""
        self.make("http://control.example:8080")
        self.net.listen(HOST, 8080, self.peer.build)
        self.successResultOf(self.dial())
        self.successResultOf(self.dial())
        self.assertEqual([port for port, _, _ in self.ways()], [8080, 8080])

    def test_forceTLS(self) -> None:
        """When told so, only TLS is tried."""
        self.make(forceTLS=True)
        self.net.listen(HOST, 80, self.peer.build)
        self.net.listen(HOST, 443, self.peer.build)
        self.successResultOf(self.dial())
        self.assertEqual(self.ways(), [(443, True, None)])

    def test_localServer(self) -> None:
        """A plain server on this machine is tried in that way only."""
        self.make("http://127.0.0.1:9000", forceTLS=True)
        self.failureResultOf(self.dial(), ControlUnreachable)
        self.assertEqual(self.ways(), [(9000, False, None)])
        self.assertIsNone(self.steps.result(DNS))

    def test_unusualPorts(self) -> None:
        """TLS goes to the port of the URL, plain HTTP to port 80."""
        self.make("https://control.example:8443")
        self.failureResultOf(self.dial(), ControlUnreachable)
        self.assertEqual(self.ways(), [(80, False, None), (8443, True, None)])

    def test_hostHeaderHasPort(self) -> None:
        """The Host header names the port where it is not the usual one."""
        self.make("http://127.0.0.1:9000")
        self.net.listen("127.0.0.1", 9000, self.peer.build)
        self.successResultOf(self.dial())
        self.assertEqual(self.peer.heads[0][2]["host"], "127.0.0.1:9000")

    def test_unreachable(self) -> None:
        """When all is refused, the error names each way."""
        failure = self.failureResultOf(self.dial(), ControlUnreachable)
        text = str(failure.value)
        self.assertIn("http://control.example cannot be reached: it refuses", text)
        self.assertIn("https://control.example cannot be reached: it refuses", text)
        self.assertIs(self.steps.result(DNS), StepResult.OK)
        self.assertIs(self.steps.result(TCP), StepResult.FAILED)
        self.assertFalse(failure.value.isPermanent)

    def test_noSuchName(self) -> None:
        """A name that does not resolve is told apart from a closed port."""
        for port in (80, 443):
            self.net.refuse(HOST, port, error.DNSLookupError())
        failure = self.failureResultOf(self.dial(), ControlUnreachable)
        self.assertIn("its name cannot be resolved", str(failure.value))
        self.assertIs(self.steps.result(DNS), StepResult.FAILED)
        self.assertIs(self.steps.result(TCP), StepResult.RUNNING)

    def test_silence(self) -> None:
        """A network that swallows everything ends the dial in time."""
        for port in (80, 443):
            self.net.refuse(HOST, port, None)
        result = self.dial()
        self.net.advance(DIAL_TIMEOUT - 0.1)
        self.assertNoResult(result)
        self.net.advance(0.1)
        failure = self.failureResultOf(result, ControlUnreachable)
        self.assertIn("no answer within 20 s", str(failure.value))
        self.assertIs(self.steps.result(TCP), StepResult.FAILED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silentServer(self) -> None:
        """A server that accepts and then says nothing is given up too."""
        self.peer.upgradeAnswer = b""
        self.net.listen(HOST, 80, self.peer.build)
        self.net.listen(HOST, 443, self.peer.build)
        result = self.dial()
        self.net.advance(DIAL_TIMEOUT, 40)
        self.failureResultOf(result, ControlUnreachable)
        self.net.pump()
        self.assertEqual(self.net.wires, [])

    def test_cancel(self) -> None:
        """Cancelling the dial leaves nothing behind."""
        self.peer.upgradeAnswer = b""
        self.net.listen(HOST, 80, self.peer.build)
        result = self.dial()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.net.pump()
        self.assertEqual(self.net.wires, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def refused(self, answer: bytes, close: bool = True) -> UpgradeRefused:
        self.peer.upgradeAnswer = answer
        self.peer.closeAfterUpgradeAnswer = close
        self.make("http://127.0.0.1:80")
        self.net.listen("127.0.0.1", 80, self.peer.build)
        result = self.dial()
        failure = self.failureResultOf(result, UpgradeRefused)
        self.net.pump()
        self.assertEqual(self.net.wires, [])
        self.assertIs(self.steps.result(NOISE), StepResult.FAILED)
        assert isinstance(failure.value, UpgradeRefused)
        return failure.value

    def test_proxyStripsUpgrade(self) -> None:
        """A proxy that drops the Upgrade header is named as the likely cause."""
        for status, body in (
            ("400 Bad Request", b"missing next protocol"),
            ("500 Internal Server Error", b"Internal error"),
            ("426 Upgrade Required", b""),
            ("405 Method Not Allowed", b"no"),
        ):
            problem = self.refused(page(body, status))
            self.assertIn(f"HTTP {status}", str(problem))
            self.assertIn(body.decode(), str(problem))
            self.assertIn("drops the Upgrade header", problem.describe())

    def test_notFound(self) -> None:
        """A server that knows no such path is perhaps no control server."""
        problem = self.refused(page(b"404 page not found", "404 Not Found"))
        self.assertIn("address is a control server's", problem.describe())

    def test_portalPage(self) -> None:
        """A login page of the network is told apart from a server's text."""
        problem = self.refused(page(b"<html>Welcome</html>", kind="text/html"))
        self.assertIn("HTTP 200 OK and an HTML page", str(problem))

    def test_redirect(self) -> None:
        """A redirect says where to."""
        answer = page(b"", "302 Found", headers="Location: http://portal/\r\n")
        self.assertIn("sends us to http://portal/", str(self.refused(answer)))

    def test_wrongUpgrade(self) -> None:
        """An upgrade to another protocol is none."""
        for protocol in ("websocket", "Tailscale-Control-Protocol"):
            answer = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\n\r\n"
            self.assertIn(repr(protocol), str(self.refused(answer.encode())))

    def test_notHTTP(self) -> None:
        """Something that does not even speak HTTP is refused at once."""
        problem = self.refused(b"SSH-2.0-OpenSSH_9.6\r\n", close=False)
        self.assertIn("not HTTP/1", str(problem))

    def test_T_caps_endlessHead(self) -> None:
        """A head without an end is cut off."""
        problem = self.refused(b"HTTP/1.1 101 OK\r\nX: " + b"y" * 20000, close=False)
        self.assertIn("exceeds 16384 bytes", str(problem))

    def test_closedWithoutAnswer(self) -> None:
        """A connection closed without an answer is a matter of the network."""
        self.peer.upgradeAnswer = b"HTTP/1.1 1"
        self.peer.closeAfterUpgradeAnswer = True
        self.make("http://127.0.0.1:80")
        self.net.listen("127.0.0.1", 80, self.peer.build)
        failure = self.failureResultOf(self.dial(), ControlUnreachable)
        self.assertIn("closed the connection", str(failure.value))

    def test_wrongControlKey(self) -> None:
        """An impostor on one way is passed by; on all ways it is the error."""
        impostor = ControlPeer(seed=9)
        # Its own handshake, made for the key that it does have.
        other = ControlPeer(seed=10)
        impostor.handshakeAnswer = b"\x02\x00\x30" + other.randbytes(48)
        impostor.noiseKey = self.peer.key
        self.net.listen(HOST, 80, impostor.build)
        self.net.listen(HOST, 443, self.peer.build)
        self.successResultOf(self.dial())
        self.make()
        self.net.listen(HOST, 443, impostor.build)
        failure = self.failureResultOf(self.dial(), WrongControlKey)
        self.assertTrue(failure.value.isPermanent)

    def test_serverWithAnotherKey(self) -> None:
        """A server that cannot read our handshake closes; that is told."""
        self.make("http://127.0.0.1:80")
        self.peer.noiseKey = MachineKey.generate(fixedBytes(77))
        self.net.listen("127.0.0.1", 80, self.peer.build)
        self.failureResultOf(self.dial(), HandshakeRefused)

    def test_serverError(self) -> None:
        """The server's error message in the handshake is passed on."""
        self.make("http://127.0.0.1:80")
        self.peer.handshakeAnswer = encodeError("unexpected handshake message type")
        self.net.listen("127.0.0.1", 80, self.peer.build)
        failure = self.failureResultOf(self.dial(), ControlProtocolError)
        self.assertIn("unexpected handshake message type", str(failure.value))

    # -- the dial plan ---------------------------------------------------------------

    def plan(self, *candidates: ControlDialCandidate) -> None:
        self.dialer.setDialPlan(ControlDialPlan(candidates=list(candidates)))

    def test_plan(self) -> None:
        """Candidates are tried at their addresses, each after its delay."""
        self.plan(
            ControlDialCandidate(ip="192.0.2.7", dialTimeoutSec=10),
            ControlDialCandidate(
                ip="192.0.2.8", dialStartDelaySec=3, dialTimeoutSec=10
            ),
        )
        self.net.refuse("192.0.2.7", 80, None)
        self.net.refuse("192.0.2.7", 443, None)
        self.net.listen("192.0.2.8", 443, self.peer.build)
        result = self.dial()
        self.net.advance(3, 30)
        self.successResultOf(result)
        self.assertEqual(
            self.ways(),
            [
                (80, False, "192.0.2.7"),
                (443, True, "192.0.2.7"),
                (80, False, "192.0.2.8"),
                (443, True, "192.0.2.8"),
            ],
        )
        self.assertTrue(all(a.host == HOST for a in self.net.attempts))
        self.assertEqual(self.peer.heads[0][2]["host"], HOST)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_planFallsBackToDNS(self) -> None:
        """When the plan leads nowhere, the name is tried."""
        self.plan(ControlDialCandidate(ip="192.0.2.7", dialTimeoutSec=10))
        self.net.listen(HOST, 80, self.peer.build)
        self.successResultOf(self.dial())
        self.assertEqual(self.ways()[-1], (80, False, None))

    def test_planTimeouts(self) -> None:
        """A candidate has its own timeout, and the whole plan has one."""
        self.plan(ControlDialCandidate(ip="192.0.2.7", dialTimeoutSec=4))
        for port in (80, 443):
            self.net.refuse("192.0.2.7", port, None)
        self.net.listen(HOST, 80, self.peer.build)
        result = self.dial()
        self.net.advance(3.9)
        self.assertNoResult(result)
        self.net.advance(0.1)
        self.successResultOf(result)

    def test_T_caps_planTimeouts(self) -> None:
        """No plan holds us up for longer than a minute."""
        self.plan(
            ControlDialCandidate(
                ip="192.0.2.7", dialStartDelaySec=1e9, dialTimeoutSec=1e9
            )
        )
        self.net.listen(HOST, 80, self.peer.build)
        result = self.dial()
        self.net.advance(59.9)
        self.assertNoResult(result)
        self.net.advance(0.1)
        self.successResultOf(result)

    def test_T_caps_planLength(self) -> None:
        """Only so many candidates are looked at."""
        self.plan(*[ControlDialCandidate(ip="192.0.2.7")] * 1000)
        self.net.listen(HOST, 80, self.peer.build)
        self.successResultOf(self.dial())
        self.assertEqual(len(self.net.attempts), 2 * LARGEST_PLAN + 1)

    def test_planWithProxies(self) -> None:
        """Candidates that are proxies or nonsense are left out."""
        self.plan(
            ControlDialCandidate(aceHost="ace.example"),
            ControlDialCandidate(ip="not an address"),
        )
        self.net.listen(HOST, 80, self.peer.build)
        self.successResultOf(self.dial())
        self.assertEqual(self.ways(), [(80, False, None)])

    def test_emptyPlan(self) -> None:
        """An empty plan means DNS again."""
        self.plan(ControlDialCandidate(ip="192.0.2.7"))
        self.plan()
        self.net.listen(HOST, 80, self.peer.build)
        self.successResultOf(self.dial())
        self.assertEqual(self.ways(), [(80, False, None)])

"""
Tests for the small parts of the control client: URLs, waits, steps, HTTP heads
and bounded decompression.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tsrt.control.backoff import Backoff, randomFraction
from tsrt.control.eventual import EventualQueue
from tsrt.control.steps import DNS, KEY, TCP, StepLog, StepResult
from tsrt.control.urls import isLocalHost, parseControlURL
from tsrt.control.zstd import decompress, zstd
from tsrt.errors import ConfigError, InsecureControlURL, WireError
from tsrt.wire.httphead import ResponseHeadParser


class URLTests(SynchronousTestCase):
    """The login server's URL."""

    def test_ports(self) -> None:
        """The ports that are tried follow the table of the protocol."""
        for text, plain, tls in (
            ("https://host", 80, 443),
            ("https://host:8443", 80, 8443),
            ("http://host", 80, 443),
            ("http://host:8080", 8080, 443),
            ("http://localhost", 80, None),
            ("http://127.0.0.1:9000", 9000, None),
            ("http://10.1.2.3:9000", 9000, None),
            ("http://[fd00::1]:9000", 9000, None),
            ("http://172.16.0.1", 80, None),
            ("http://172.32.0.1", 80, 443),
        ):
            url = parseControlURL(text, allowHTTP=True)
            self.assertEqual((url.plainPort, url.tlsPort), (plain, tls), text)

    def test_text(self) -> None:
        """The text has no slash at its end and no port that goes without."""
        for text, expected in (
            ("https://Host.Example/", "https://host.example"),
            ("https://host:443", "https://host"),
            ("http://localhost:80/", "http://localhost"),
            ("HTTPS://host:8443//", "https://host:8443"),
            (" https://host/base/ ", "https://host/base"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ):
            self.assertEqual(parseControlURL(text).text, expected)

    def test_keyURL(self) -> None:
        """The key is asked for with our version."""
        self.assertEqual(
            parseControlURL("https://host:1/x").keyURL(130),
            "https://host:1/x/key?v=130",
        )

    def test_R_NET_1_insecure(self) -> None:
        """Plain HTTP is refused for other hosts unless it was asked for."""
        for text in (
            "http://control.example",
            "http://203.0.113.1",
            "http://100.64.0.1",
        ):
            error = self.assertRaises(InsecureControlURL, parseControlURL, text)
            self.assertTrue(error.isPermanent)
            self.assertEqual(parseControlURL(text, allowHTTP=True).scheme, "http")
        for text in ("http://localhost:1", "http://x.localhost", "http://192.168.1.1"):
            parseControlURL(text)

    def test_names(self) -> None:
        """A name is local only if it cannot lead elsewhere."""
        self.assertTrue(isLocalHost("LOCALHOST."))
        self.assertFalse(isLocalHost("localhost.example"))
        self.assertFalse(isLocalHost("127.0.0.1.example"))
        self.assertFalse(isLocalHost("8.8.8.8"))

    def test_bad(self) -> None:
        """What is no control server's URL is a mistake in the configuration."""
        for text in (
            "",
            "host",
            "ftp://host",
            "https://",
            "https://user@host",
            "https://host?x=1",
            "https://host#x",
            "https://host:99999",
            "https://host:0",
            "https://[::1",
        ):
            self.assertRaises(ConfigError, parseControlURL, text)

    @given(st.text())
    @settings(max_examples=100, deadline=None)
    def test_anyText(self, text: str) -> None:
        """Any text is a URL or a mistake in the configuration."""
        try:
            parseControlURL(text, allowHTTP=True)
        except (ConfigError, InsecureControlURL):
            pass


class BackoffTests(SynchronousTestCase):
    """Waits after failures."""

    def waits(self, fraction: bytes, count: int) -> list[float]:
        backoff = Backoff(lambda n: fraction * n)
        return [round(backoff.next(), 6) for _ in range(count)]

    def test_T_backoff_growth(self) -> None:
        """Waits are n² times 10 ms, times a factor from 0.5 up."""
        self.assertEqual(self.waits(b"\x00", 5), [0.005, 0.02, 0.045, 0.08, 0.125])

    def test_T_backoff_cap(self) -> None:
        """No wait is longer than 30 s times 1.5."""
        self.assertEqual(self.waits(b"\x00", 100)[-1], 15.0)
        self.assertAlmostEqual(self.waits(b"\xff", 100)[-1], 45.0, 5)
        self.assertLess(self.waits(b"\xff", 54)[-1], self.waits(b"\xff", 55)[-1])

    def test_reset(self) -> None:
        """After a success the waits begin anew."""
        backoff = Backoff(lambda n: bytes(n))
        for _ in range(20):
            backoff.next()
        backoff.reset()
        self.assertEqual(backoff.next(), 0.005)

    def test_fraction(self) -> None:
        """Fractions lie in [0, 1)."""
        self.assertEqual(randomFraction(lambda n: bytes(n)), 0.0)
        self.assertLess(randomFraction(lambda n: b"\xff" * n), 1.0)


class StepTests(SynchronousTestCase):
    """The list of steps."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = StepLog(self.clock)

    def test_describe(self) -> None:
        """The list names each step with its result, in the usual order."""
        self.assertEqual(self.log.describe(), "nothing was tried")
        self.log.begin(KEY)
        self.log.begin(TCP, "host:443")
        self.log.begin(DNS)
        self.clock.advance(0.25)
        self.log.succeeded(DNS)
        self.log.failed(TCP, "host:443: it refuses the connection")
        self.log.begin("relay")
        self.assertEqual(
            self.log.describe(),
            "DNS: ok (0.25 s); TCP: failed: host:443: it refuses the connection; "
            "key: still trying; relay: still trying",
        )

    def test_raceKeepsSuccess(self) -> None:
        """In one round a failure does not hide a success."""
        self.log.begin(TCP)
        self.log.succeeded(TCP, "port 443")
        self.log.begin(TCP)
        self.log.failed(TCP, "port 80")
        self.assertIs(self.log.result(TCP), StepResult.OK)
        self.log.newRound()
        self.log.begin(TCP)
        self.log.failed(TCP, "port 80")
        self.assertIs(self.log.result(TCP), StepResult.FAILED)
        self.assertIn("after 2 attempts", self.log.describe())

    def test_runningDuration(self) -> None:
        """A step that runs shows for how long."""
        self.log.begin(TCP)
        self.clock.advance(3)
        [step] = self.log.steps()
        self.assertEqual(step.duration, 3)

    def test_bounded(self) -> None:
        """Years of attempts leave one entry for each step."""
        for _ in range(1000):
            self.log.newRound()
            self.log.begin(TCP)
            self.log.failed(TCP, "x" * 10_000)
        [step] = self.log.steps()
        self.assertEqual(step.attempts, 1000)
        self.assertLess(len(step.detail), 1000)


class HeadTests(SynchronousTestCase):
    """The head of an HTTP response."""

    def test_bytewise(self) -> None:
        """A head may come byte by byte, and what follows is kept."""
        data = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade:  x \r\na: b\r\n\r\nREST"
        parser = ResponseHeadParser()
        for index in range(len(data) - 5):
            self.assertIsNone(parser.feed(data[index : index + 1]))
        result = parser.feed(data[-5:])
        assert result is not None
        head, surplus = result
        self.assertEqual((head.status, head.reason), (101, "Switching Protocols"))
        self.assertEqual(head.header("upgrade"), "x")
        self.assertEqual(surplus, b"REST")

    def test_bad(self) -> None:
        """What is no HTTP response is refused as early as can be told."""
        for data in (
            b"S",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 2x0 OK\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 17000,
        ):
            self.assertRaises(WireError, ResponseHeadParser().feed, data)

    @given(st.binary(), st.integers(0, 50))
    @settings(max_examples=200, deadline=None)
    def test_anyBytes(self, data: bytes, cut: int) -> None:
        """Any bytes are a head, a part of one, or a WireError."""
        parser = ResponseHeadParser()
        try:
            for part in (b"HTTP/1.1 2", data[:cut], data[cut:], b"\r\n\r\n"):
                if parser.feed(part) is not None:
                    break
        except WireError:
            pass


class DecompressTests(SynchronousTestCase):
    """Bounded decompression."""

    def test_roundTrip(self) -> None:
        """A frame up to the limit comes out whole."""
        for content in (b"", b"x", bytes(range(256)) * 40):
            self.assertEqual(decompress(zstd.compress(content), len(content)), content)

    def test_T_caps_limit(self) -> None:
        """One byte more than the limit is refused."""
        self.assertRaises(WireError, decompress, zstd.compress(b"x" * 101), 100)

    def test_bad(self) -> None:
        """Garbage, parts of frames and frames with a tail are refused."""
        frame = zstd.compress(b"hello" * 100)
        for data in (b"", b"{}", frame[:-1], frame + b"x", frame + frame):
            self.assertRaises(WireError, decompress, data, 1000)

    @given(st.binary())
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Any bytes raise only WireError."""
        try:
            decompress(data, 1000)
        except WireError:
            pass


class EventualTests(SynchronousTestCase):
    """Calls in a later turn."""

    def test_orderAndErrors(self) -> None:
        """Calls keep their order, and an error of one is only logged."""
        clock = Clock()
        queue = EventualQueue(clock)
        seen: list[int] = []

        def broken() -> None:
            raise RuntimeError("broken")

        queue.add(seen.append, 1)
        queue.add(broken)
        queue.add(seen.append, 2)
        self.assertEqual(seen, [])
        clock.advance(0)
        self.assertEqual(seen, [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_clear(self) -> None:
        """Cleared calls never come, also from within a call."""
        clock = Clock()
        queue = EventualQueue(clock)
        seen: list[int] = []
        queue.add(queue.clear)
        queue.add(seen.append, 1)
        clock.advance(0)
        queue.add(seen.append, 2)
        queue.clear()
        clock.advance(0)
        self.assertEqual(seen, [])
        self.assertEqual(clock.getDelayedCalls(), [])

"""
Tests for L{tsrt.underlay.dial} and what it is made of: proxies, their
settings, and trust.
"""

from __future__ import annotations

import base64
import struct
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ServerEndpoint,
    wrapServerTLS,
)
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tsrt.errors import ConfigError, WireError
from tsrt.interfaces import IStreamDialer
from tsrt.keys import Secret
from tsrt.test.relayworld import HOME, Relayed, World, derpMap, node, region
from tsrt.testing.certificates import selfSigned
from tsrt.testing.clock import elapse, pump, resultOf
from tsrt.testing.internet import MemoryInternet
from tsrt.underlay.dial import StreamDialer
from tsrt.underlay.negotiation import (
    HTTPConnect,
    ProxyAuthError,
    ProxyError,
    SOCKS5Connect,
    negotiation,
)
from tsrt.underlay.proxy import Proxy, ProxySettings
from tsrt.underlay.trust import trustRoot
from tsrt.underlay.tunnel import HANDSHAKE_TIMEOUT

HTTP = Proxy.parse("http://proxy.example.com:3128")
WITH_PASSWORD = Proxy.parse("http://al%40ice:s%3Acret@proxy.example.com:3128")
SOCKS = Proxy.parse("socks5://proxy.example.com")
SOCKS_WITH_PASSWORD = Proxy.parse("socks5h://alice:secret@proxy.example.com")
PROXY_CERTIFICATE = selfSigned(["proxy.example.com"])
SERVER_CERTIFICATE = selfSigned(["www.example.com"])


class ProxyTests(SynchronousTestCase):
    """What a proxy's address says."""

    def test_parse(self) -> None:
        """Scheme, port and credentials are read, or have defaults."""
        for text, expected in (
            ("http://p:8080", ("http", "p", 8080)),
            ("p:8080", ("http", "p", 8080)),
            ("p", ("http", "p", 80)),
            ("https://p", ("https", "p", 443)),
            ("socks5://[2001:db8::1]:9", ("socks5", "2001:db8::1", 9)),
            ("socks5h://p/", ("socks5", "p", 1080)),
            ("HTTP://P", ("http", "p", 80)),
        ):
            proxy = Proxy.parse(text)
            self.assertEqual((proxy.scheme, proxy.host, proxy.port), expected, text)
        self.assertEqual(WITH_PASSWORD.username, "al@ice")
        self.assertEqual(WITH_PASSWORD.password.reveal(), "s:cret")

    def test_malformed(self) -> None:
        """What is no proxy is a configuration error that hides passwords."""
        for text in (
            "ftp://p",
            "http://",
            "http://p:99999",
            "http://p:0",
            "http://u:hunter2@p:x",
            "http://a b",
            "http://[::1",
            f"socks5://{'u' * 256}:p@h",
        ):
            failure = self.assertRaises(ConfigError, Proxy.parse, text)
            self.assertNotIn("hunter2", failure.describe())

    def test_secret(self) -> None:
        """Neither the name nor the repr of a proxy shows its password."""
        for text in (repr(WITH_PASSWORD), WITH_PASSWORD.name, str(WITH_PASSWORD)):
            self.assertNotIn("s:cret", text)
        self.assertEqual(WITH_PASSWORD.name, "http://proxy.example.com:3128")
        self.assertEqual(Proxy("http", "::1", 1).name, "http://[::1]:1")


class SettingsTests(SynchronousTestCase):
    """Which proxy is for which connection."""

    def test_none(self) -> None:
        """Without settings there is no proxy."""
        for chosen in (ProxySettings(), ProxySettings.fromEnvironment({})):
            self.assertIsNone(chosen.proxyFor("www.example.com", 443, True))

    def test_byKind(self) -> None:
        """TLS and other connections have proxies of their own."""
        chosen = ProxySettings.fromEnvironment(
            {"HTTPS_PROXY": "http://tls:1", "HTTP_PROXY": "http://plain:2"}
        )
        self.assertEqual(chosen.proxyFor("a.example", 443, True).host, "tls")
        self.assertEqual(chosen.proxyFor("a.example", 80, False).host, "plain")
        chosen = ProxySettings.fromEnvironment({"HTTPS_PROXY": "http://tls:1"})
        self.assertIsNone(chosen.proxyFor("a.example", 80, False))

    def test_allProxy(self) -> None:
        """ALL_PROXY stands in for those that are not set."""
        chosen = ProxySettings.fromEnvironment(
            {"ALL_PROXY": "socks5://all", "https_proxy": "http://tls"}
        )
        self.assertEqual(chosen.proxyFor("a.example", 443, True).host, "tls")
        self.assertEqual(chosen.proxyFor("a.example", 80, False).host, "all")

    def test_lowerCaseFirst(self) -> None:
        """The names in lower case count more; empty ones count nothing."""
        chosen = ProxySettings.fromEnvironment(
            {"https_proxy": "http://lower", "HTTPS_PROXY": "http://upper"}
        )
        self.assertEqual(chosen.proxyFor("a.example", 443, True).host, "lower")
        chosen = ProxySettings.fromEnvironment(
            {"https_proxy": " ", "HTTPS_PROXY": "http://upper"}
        )
        self.assertEqual(chosen.proxyFor("a.example", 443, True).host, "upper")

    def test_CGI(self) -> None:
        """Under CGI a client cannot choose our proxy by a header."""
        chosen = ProxySettings.fromEnvironment(
            {"HTTP_PROXY": "http://evil", "REQUEST_METHOD": "GET"}
        )
        self.assertIsNone(chosen.proxyFor("a.example", 80, False))

    def test_loopbackIsDirect(self) -> None:
        """This machine is never reached by a proxy."""
        chosen = ProxySettings.fromEnvironment({"ALL_PROXY": "http://p"})
        for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "LocalHost."):
            self.assertIsNone(chosen.proxyFor(host, 443, True), host)
        self.assertIsNone(chosen.proxyFor("a.example", 443, True, "127.0.0.1"))
        self.assertIsNotNone(chosen.proxyFor("a.example", 443, True, "192.0.2.1"))

    def test_noProxy(self) -> None:
        """NO_PROXY names hosts, domains, addresses and networks."""
        for entry, inside, outside in (
            ("*", ["a.example", "192.0.2.1"], []),
            ("b.example", ["b.example", "x.b.example", "B.Example."], ["ab.example"]),
            (".b.example", ["x.b.example"], ["b.example"]),
            ("*.b.example", ["x.b.example"], ["b.example"]),
            ("192.0.2.7", ["192.0.2.7"], ["192.0.2.8", "b.example"]),
            ("192.0.2.0/25", ["192.0.2.7"], ["192.0.2.200"]),
            ("2001:db8::/32", ["2001:db8::5"], ["2001:db9::5"]),
            ("b.example:443", ["b.example"], []),
            ("b.example:80", [], ["b.example"]),
            ("192.0.2.7:80", [], ["192.0.2.7"]),
            ("[2001:db8::5]:443", ["2001:db8::5"], ["2001:db8::6"]),
            (".", [], ["b.example"]),
            ("x, ,b.example y", ["b.example", "y", "x"], ["z"]),
        ):
            chosen = ProxySettings.fromEnvironment(
                {"ALL_PROXY": "http://p", "NO_PROXY": entry}
            )
            for host in inside:
                self.assertIsNone(chosen.proxyFor(host, 443, True), (entry, host))
            for host in outside:
                self.assertIsNotNone(chosen.proxyFor(host, 443, True), (entry, host))

    def test_malformed(self) -> None:
        """A malformed proxy is an error, not no proxy."""
        self.assertRaises(
            ConfigError, ProxySettings.fromEnvironment, {"ALL_PROXY": "gopher://p"}
        )


class HTTPConnectTests(SynchronousTestCase):
    """The conversation with an HTTP proxy."""

    def test_request(self) -> None:
        """The request names the target, and no credentials when there are none."""
        request = HTTPConnect(HTTP, "a.example", 443).begin().decode()
        self.assertTrue(request.startswith("CONNECT a.example:443 HTTP/1.1\r\n"))
        self.assertIn("\r\nHost: a.example:443\r\n", request)
        self.assertNotIn("Authorization", request)
        self.assertTrue(request.endswith("\r\n\r\n"))
        self.assertIn(
            b"CONNECT [2001:db8::1]:443 ", HTTPConnect(HTTP, "2001:db8::1", 443).begin()
        )

    def test_credentials(self) -> None:
        """User and password go as basic authentication."""
        request = HTTPConnect(WITH_PASSWORD, "a.example", 443).begin()
        [line] = [x for x in request.split(b"\r\n") if x.startswith(b"Proxy-Auth")]
        self.assertEqual(base64.b64decode(line.rpartition(b" ")[2]), b"al@ice:s:cret")

    def test_surplus(self) -> None:
        """What follows the answer belongs to the connection."""
        conversation = HTTPConnect(HTTP, "a.example", 443)
        self.assertIsNone(conversation.feed(b"HTTP/1.1 200 Conn").surplus)
        progress = conversation.feed(b"ection established\r\nX: y\r\n\r\nhello")
        self.assertEqual(progress.surplus, b"hello")

    def test_refused(self) -> None:
        """Refusals say what the proxy said, but not the password."""
        for status, kind in (
            (b"403 Forbidden", ProxyError),
            (b"407 No", ProxyAuthError),
        ):
            failure = self.assertRaises(
                kind,
                HTTPConnect(WITH_PASSWORD, "a.example", 443).feed,
                b"HTTP/1.1 " + status + b"\r\n\r\n",
            )
            self.assertIn(status.decode(), str(failure))
            self.assertNotIn("s:cret", failure.describe())

    def test_noInjection(self) -> None:
        """A name from a netmap cannot become a request of its own."""
        for host in ("a\r\nX: y", "a b", "", "x" * 300, "\u0000", "a/b"):
            self.assertRaises(WireError, negotiation, HTTP, host, 443)
        self.assertIn(
            b"xn--bcher-kva.example",
            negotiation(HTTP, "b\u00fccher.example", 1).begin(),
        )

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.binary(max_size=40), max_size=6))
    def test_anyBytes(self, pieces: list[bytes]) -> None:
        """No answer raises anything but what is declared."""
        conversation = HTTPConnect(HTTP, "a.example", 443)
        try:
            for piece in pieces:
                conversation.feed(piece)
        except (WireError, ProxyError):
            pass


class SOCKS5Tests(SynchronousTestCase):
    """The conversation with a SOCKS proxy, as RFC 1928 and 1929 have it."""

    def test_name(self) -> None:
        """A name is left to the proxy."""
        conversation = SOCKS5Connect(SOCKS, "a.example", 443)
        self.assertEqual(conversation.begin(), b"\x05\x01\x00")
        self.assertEqual(
            conversation.feed(b"\x05\x00").reply,
            b"\x05\x01\x00\x03\x09a.example\x01\xbb",
        )
        progress = conversation.feed(b"\x05\x00\x00\x01\0\0\0\0\0\0hello")
        self.assertEqual(progress.surplus, b"hello")

    def test_addresses(self) -> None:
        """Addresses are sent as such."""
        for host, encoded in (
            ("192.0.2.1", b"\x01\xc0\x00\x02\x01"),
            ("2001:db8::1", b"\x04" + bytes.fromhex("20010db8" + "0" * 22 + "01")),
        ):
            conversation = SOCKS5Connect(SOCKS, host, 443)
            self.assertEqual(
                conversation.feed(b"\x05\x00").reply,
                b"\x05\x01\x00" + encoded + b"\x01\xbb",
            )

    def test_password(self) -> None:
        """User and password are told when the proxy asks."""
        conversation = SOCKS5Connect(SOCKS_WITH_PASSWORD, "a.example", 443)
        self.assertEqual(conversation.begin(), b"\x05\x02\x00\x02")
        self.assertEqual(
            conversation.feed(b"\x05\x02").reply, b"\x01\x05alice\x06secret"
        )
        self.assertTrue(conversation.feed(b"\x01\x00").reply.startswith(b"\x05\x01"))

    def test_answersOfEveryKind(self) -> None:
        """The address in the answer may have any form, in any pieces."""
        for bound in (b"\x01" + bytes(4), b"\x04" + bytes(16), b"\x03\x03abc"):
            conversation = SOCKS5Connect(SOCKS, "a.example", 443)
            conversation.feed(b"\x05\x00")
            answer = b"\x05\x00\x00" + bound + b"\x00\x00"
            for byte in answer[:-1]:
                self.assertIsNone(conversation.feed(bytes((byte,))).surplus)
            self.assertEqual(conversation.feed(answer[-1:]).surplus, b"")

    def test_refused(self) -> None:
        """Refusals are errors with words."""
        conversation = SOCKS5Connect(SOCKS, "a.example", 443)
        conversation.feed(b"\x05\x00")
        failure = self.assertRaises(
            ProxyError, conversation.feed, b"\x05\x05\x00\x01" + bytes(6)
        )
        self.assertIn("connection refused", str(failure))
        for proxy, answer in (
            (SOCKS, b"\x05\xff"),
            (SOCKS, b"\x05\x02"),
            (SOCKS_WITH_PASSWORD, b"\x05\x02\x01\x01"),
        ):
            conversation = SOCKS5Connect(proxy, "a.example", 443)
            self.assertRaises(ProxyAuthError, conversation.feed, answer)

    def test_otherProtocols(self) -> None:
        """What is no SOCKS 5 is told apart."""
        for answer in (b"\x04\x00", b"HT", b"\x05\x00\x05\x00\x00\x09" + bytes(9)):
            conversation = SOCKS5Connect(SOCKS, "a.example", 443)
            self.assertRaises(WireError, conversation.feed, answer)
        conversation = SOCKS5Connect(SOCKS, "a.example", 443)
        conversation.feed(b"\x05\x00")
        self.assertRaises(WireError, conversation.feed, b"\x04" + bytes(9))

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.binary(max_size=12), max_size=6))
    def test_anyBytes(self, pieces: list[bytes]) -> None:
        """No answer raises anything but what is declared."""
        conversation = SOCKS5Connect(SOCKS_WITH_PASSWORD, "a.example", 443)
        try:
            for piece in pieces:
                conversation.feed(piece)
        except (WireError, ProxyError):
            pass


class Echo(Protocol):
    """Says everything back."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Recorder(Protocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason


@implementer(IHalfCloseableProtocol)
class HalfCloser(Recorder):
    """Notices the two directions apart."""

    readLost = False
    writeLost = False

    def readConnectionLost(self) -> None:
        self.readLost = True

    def writeConnectionLost(self) -> None:
        self.writeLost = True


class ProxyServer(Protocol):
    """A proxy that serves HTTP CONNECT or SOCKS 5, whichever it is asked."""

    def connectionMade(self) -> None:
        self.buffer = b""
        self.upstream: Protocol | None = None
        self.greeted = False

    def dataReceived(self, data: bytes) -> None:
        if self.upstream is not None:
            self.upstream.transport.write(data)
            return
        self.buffer += data
        if self.factory.silent:
            return
        if self.buffer.startswith(b"CONNECT"):
            head, end, _ = self.buffer.partition(b"\r\n\r\n")
            if end:
                target = head.split(b" ")[1].decode()
                host, _, port = target.rpartition(":")
                self.dial(host.strip("[]"), int(port), b"HTTP/1.1 200 OK\r\n\r\n")
        elif not self.greeted:
            self.greeted = True
            self.buffer = b""
            self.transport.write(b"\x05\x00")
        elif len(self.buffer) > 6:
            length = self.buffer[4]
            host = self.buffer[5 : 5 + length].decode()
            [port] = struct.unpack("!H", self.buffer[5 + length : 7 + length])
            self.dial(host, port, b"\x05\x00\x00\x01" + bytes(6))

    def dial(self, host: str, port: int, answer: bytes) -> None:
        self.factory.asked.append((host, port))

        class Upstream(Protocol):
            def dataReceived(this, data: bytes) -> None:
                self.transport.write(data)

            def connectionLost(this, reason: Failure) -> None:
                self.transport.loseConnection()

        def connected(protocol: Protocol) -> None:
            self.upstream = protocol
            self.transport.write(answer)

        def failed(failure: Failure) -> None:
            self.transport.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

        endpoint = HostnameEndpoint(self.factory.host, host, port)
        endpoint.connect(Factory.forProtocol(Upstream)).addCallbacks(connected, failed)

    def connectionLost(self, reason: Failure) -> None:
        if self.upstream is not None:
            self.upstream.transport.loseConnection()


class DialerTestCase(SynchronousTestCase):
    """A host behind a proxy, and a server beyond it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.internet = MemoryInternet(self.clock, seed=5)
        self.host = self.internet.host("inside")
        self.server = self.internet.host("server", ["192.0.2.80"])
        self.internet.register("www.example.com", "192.0.2.80")
        self.proxyHost = self.internet.host("proxy", ["192.0.2.3"])
        self.internet.register("proxy.example.com", "192.0.2.3")
        self.proxy = Factory.forProtocol(ProxyServer)
        self.proxy.host = self.proxyHost
        self.proxy.silent = False
        self.proxy.asked = []
        self.proxyHost.listenTCP(3128, self.proxy)
        self.proxyHost.listenTCP(1080, self.proxy)
        wrapServerTLS(
            PROXY_CERTIFICATE.serverTLS(),
            TCP4ServerEndpoint(self.proxyHost, 443),
            clock=self.proxyHost,
        ).listen(self.proxy)
        self.server.listenTCP(80, Factory.forProtocol(Echo))
        wrapServerTLS(
            SERVER_CERTIFICATE.serverTLS(),
            TCP4ServerEndpoint(self.server, 443),
            clock=self.server,
        ).listen(Factory.forProtocol(Echo))

    def dialer(self, proxy: str = "", trust: object | None = None) -> StreamDialer:
        """A dialer that takes C{proxy} for everything."""
        environment = {"ALL_PROXY": proxy} if proxy else {}
        return StreamDialer(
            self.host, ProxySettings.fromEnvironment(environment), trust
        )

    def echoed(self, dialer: StreamDialer, port: int = 80, tls: bool = False) -> None:
        """The server says back what we say."""
        creator = None
        if tls:
            creator = optionsForClientTLS(
                "www.example.com", trustRoot=SERVER_CERTIFICATE.trustRoot
            )
        endpoint = dialer.endpoint("www.example.com", port, creator)
        client = resultOf(self.clock, endpoint.connect(Factory.forProtocol(Recorder)))
        client.transport.write(b"hello" * 10_000)
        pump(self.clock, lambda: client.data == b"hello" * 10_000)
        client.transport.loseConnection()
        pump(self.clock, lambda: client.lost is not None)
        self.assertTrue(client.lost.check(error.ConnectionDone))
        elapse(self.clock, 1)
        self.assertEqual(list(self.host.getDelayedCalls()), [])
        self.assertEqual(self.host.streams, [])


class DialerTests(DialerTestCase):
    """Connections are made directly, or by a proxy."""

    def test_interface(self) -> None:
        """The dialer provides its interface."""
        verifyObject(IStreamDialer, self.dialer())

    def test_direct(self) -> None:
        """Without a proxy the server is connected with directly."""
        self.echoed(self.dialer())
        self.echoed(self.dialer(), 443, tls=True)
        self.assertEqual(self.proxy.asked, [])

    def test_address(self) -> None:
        """A given address spares the name."""
        self.internet.unregister("www.example.com")
        endpoint = self.dialer().endpoint("www.example.com", 80, None, "192.0.2.80")
        resultOf(self.clock, endpoint.connect(Factory.forProtocol(Recorder)))

    def test_httpProxy(self) -> None:
        """An HTTP proxy is asked by name, for plain and TLS connections."""
        dialer = self.dialer("http://proxy.example.com:3128")
        self.echoed(dialer)
        self.echoed(dialer, 443, tls=True)
        self.assertEqual(
            self.proxy.asked, [("www.example.com", 80), ("www.example.com", 443)]
        )

    def test_socksProxy(self) -> None:
        """A SOCKS proxy is asked by name, for plain and TLS connections."""
        dialer = self.dialer("socks5://proxy.example.com")
        self.echoed(dialer)
        self.echoed(dialer, 443, tls=True)
        self.assertEqual(
            self.proxy.asked, [("www.example.com", 80), ("www.example.com", 443)]
        )

    def test_httpsProxy(self) -> None:
        """A proxy may itself be spoken to in TLS, also for TLS inside."""
        dialer = self.dialer("https://proxy.example.com", PROXY_CERTIFICATE.trustRoot)
        self.echoed(dialer)
        self.echoed(dialer, 443, tls=True)
        self.assertEqual(len(self.proxy.asked), 2)

    def test_untrustedHTTPSProxy(self) -> None:
        """A proxy whose certificate is wrong is not used."""
        dialer = self.dialer("https://proxy.example.com", SERVER_CERTIFICATE.trustRoot)
        connecting = dialer.endpoint("www.example.com", 80).connect(
            Factory.forProtocol(Recorder)
        )
        with self.assertRaises(ProxyError):
            resultOf(self.clock, connecting)
        self.assertEqual(self.proxy.asked, [])

    def test_nameOnlyTheProxyKnows(self) -> None:
        """Names need not be resolvable where we are."""
        dialer = self.dialer("http://192.0.2.3:3128")
        self.host.installNameResolver(MemoryInternet(self.clock).resolver())
        self.echoed(dialer)

    def test_relayBehindAProxy(self) -> None:
        """Relays are reached by the proxy where nothing else is let out."""
        world = World()
        certificate = selfSigned(["relay.example.com"])
        _, _relay = world.relay(certificate=certificate)
        proxyHost = world.internet.host("proxy", ["192.0.2.33"])
        proxy = Factory.forProtocol(ProxyServer)
        proxy.host, proxy.silent, proxy.asked = proxyHost, False, []
        proxyHost.listenTCP(3128, proxy)
        alice = Relayed(
            world,
            "alice",
            plain=False,
            proxies=ProxySettings.fromEnvironment(
                {"HTTPS_PROXY": "http://192.0.2.33:3128"}
            ),
            trustRoot=certificate.trustRoot,
        )
        alice.host.firewall = lambda kind, address, port: address == "192.0.2.33"
        alice.pool.setMap(derpMap(region(HOME, node())))
        alice.pool.setHome(HOME)
        alice.pool.startService()
        world.until(lambda: alice.pool.isConnected(HOME))
        alice.pool.send(HOME, alice.public, [b"x"])
        world.until(lambda: alice.data == [b"x"])
        self.assertEqual(proxy.asked, [("relay.example.com", 443)])


class TunnelFailureTests(DialerTestCase):
    """Proxies fail in several ways."""

    def failing(self, proxy: str, host: str = "www.example.com", port: int = 80):
        """How connecting fails."""
        connecting = (
            self.dialer(proxy)
            .endpoint(host, port)
            .connect(Factory.forProtocol(Recorder))
        )
        with self.assertRaises(ProxyError) as caught:
            resultOf(self.clock, connecting)
        elapse(self.clock, 1)
        self.assertEqual(list(self.host.getDelayedCalls()), [])
        self.assertEqual(self.host.streams, [])
        return caught.exception

    def test_refused(self) -> None:
        """What the proxy says is told."""
        error = self.failing("http://proxy.example.com:3128", "nowhere.example.com")
        self.assertIn("502 Bad Gateway", str(error))
        self.assertIn("HTTPS_PROXY", error.describe())

    def test_unreachable(self) -> None:
        """A proxy that is not there is named."""
        self.assertIn(
            "proxy.example.com:99", str(self.failing("http://proxy.example.com:99"))
        )

    def test_silent(self) -> None:
        """A proxy that does not answer is given up."""
        self.proxy.silent = True
        start = self.clock.seconds()
        self.assertIn("in time", str(self.failing("http://proxy.example.com:3128")))
        self.assertGreaterEqual(self.clock.seconds() - start, HANDSHAKE_TIMEOUT)

    def test_notAProxy(self) -> None:
        """Something else at the proxy's address is told apart."""
        self.proxyHost.listenTCP(25, Factory.forProtocol(Echo))
        self.assertIn("HTTP", str(self.failing("http://proxy.example.com:25")))

    def test_hangsUp(self) -> None:
        """A proxy that hangs up is told of."""

        class Rude(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()

        self.proxyHost.listenTCP(25, Factory.forProtocol(Rude))
        self.assertIn("hung up", str(self.failing("http://proxy.example.com:25")))

    def test_malformedTarget(self) -> None:
        """A malformed name never gets as far as the proxy."""
        connecting = (
            self.dialer("http://proxy.example.com:3128")
            .endpoint("a b", 80)
            .connect(Factory.forProtocol(Recorder))
        )
        self.failureResultOf(connecting, WireError)

    def test_cancel(self) -> None:
        """Connecting can be cancelled at every step."""
        for delay in (0, 0.01, 0.03, 0.05):
            self.proxy.silent = True
            connecting = (
                self.dialer("http://proxy.example.com:3128")
                .endpoint("www.example.com", 80)
                .connect(Factory.forProtocol(Recorder))
            )
            elapse(self.clock, delay)
            connecting.cancel()
            self.failureResultOf(
                connecting, CancelledError, error.ConnectingCancelledError
            )
            elapse(self.clock, 1)
            self.assertEqual(list(self.host.getDelayedCalls()), [])
            self.assertEqual(self.host.streams, [])

    def test_unwantedConnection(self) -> None:
        """A factory may want no protocol after all."""

        class Picky(Factory):
            noisy = False

            def buildProtocol(self, addr):
                return None

        connecting = (
            self.dialer("http://proxy.example.com:3128")
            .endpoint("www.example.com", 80)
            .connect(Picky())
        )
        with self.assertRaises(error.NoProtocol):
            resultOf(self.clock, connecting)

    def test_halfClose(self) -> None:
        """Half-closing works through a tunnel."""
        endpoint = self.dialer("http://proxy.example.com:3128").endpoint(
            "www.example.com", 80
        )
        client = resultOf(self.clock, endpoint.connect(Factory.forProtocol(HalfCloser)))
        client.transport.loseWriteConnection()
        pump(self.clock, lambda: client.readLost)
        self.assertTrue(client.writeLost)
        client.transport.loseConnection()
        pump(self.clock, lambda: client.lost is not None)


class TrustTests(SynchronousTestCase):
    """An extra CA file adds to what is trusted."""

    def write(self, data: bytes) -> Path:
        """A file with that content."""
        path = Path(self.mktemp())
        path.write_bytes(data)
        return path

    def test_extraFile(self) -> None:
        """A server with a certificate from the file is trusted."""
        world = World()
        certificate = selfSigned(["relay.example.com"])
        world.relay(certificate=certificate)
        path = self.write(certificate.pem + selfSigned(["other"]).pem)
        for root, connects in ((trustRoot(path), True), (trustRoot(), False)):
            alice = Relayed(world, f"a{connects}", plain=False, trustRoot=root)
            alice.pool.setMap(derpMap(region(HOME, node())))
            alice.pool.setHome(HOME)
            alice.pool.startService()
            world.until(lambda alice=alice: alice.connections or alice.failures)
            self.assertEqual(bool(alice.connections), connects)

    def test_wrongFile(self) -> None:
        """A file that is not there or no PEM is a configuration error."""
        for path in (Path("/nonexistent/ca.pem"), self.write(b"hello")):
            failure = self.assertRaises(ConfigError, trustRoot, path)
            self.assertIn(str(path), str(failure))

    def test_secretStaysHidden(self) -> None:
        """The password of a proxy does not show in the dialer's endpoints."""
        dialer = StreamDialer(
            MemoryInternet(Clock()).host("node"),
            ProxySettings.fromEnvironment({"ALL_PROXY": "http://u:hunter2@p"}),
        )
        self.assertNotIn("hunter2", repr(dialer.endpoint("a.example", 1)))
        self.assertNotIn("hunter2", repr(Secret("hunter2")))


class DeferredTests(SynchronousTestCase):
    """Small print."""

    def test_connectReturnsADeferred(self) -> None:
        """Even what cannot work fails later, not at the call."""
        host = MemoryInternet(Clock()).host("node")
        dialer = StreamDialer(host, ProxySettings(forPlain=HTTP))
        connecting = dialer.endpoint("a b", 1).connect(Factory.forProtocol(Echo))
        self.assertIsInstance(connecting, Deferred)
        self.failureResultOf(connecting, WireError)

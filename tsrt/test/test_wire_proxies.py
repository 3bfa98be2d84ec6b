"""Tests of L{tsrt.wire.socks5} and L{tsrt.wire.proxyrequest}."""

from __future__ import annotations

import base64

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.wire import socks5
from tsrt.wire.proxyrequest import LARGEST_HEAD, ProxyRequest, ProxyRequestParser

CREDENTIALS = (b"tsnet", b"secret")
CONNECT4 = bytes.fromhex("05 01 00 01 64400001 0050")
LOGIN = b"\x01\x05tsnet\x06secret"


class SOCKS5Tests(SynchronousTestCase):
    """The conversation up to the request, and datagrams."""

    def said(self, *pieces: bytes, wanted=CREDENTIALS) -> socks5.Asked:
        """What is made of some bytes; earlier replies come first."""
        greeting = socks5.Greeting(wanted)
        reply = b""
        for piece in pieces:
            asked = greeting.feed(piece)
            reply += asked.reply
        return asked._replace(reply=reply)

    def test_connect(self) -> None:
        """With a password, all at once or byte by byte."""
        stream = b"\x05\x02\x00\x02" + LOGIN + CONNECT4
        for pieces in ([stream], [bytes([b]) for b in stream]):
            asked = self.said(*pieces)
            self.assertEqual(asked.reply, b"\x05\x02\x01\x00")
            self.assertIs(asked.command, socks5.Command.CONNECT)
            self.assertEqual(asked.target, socks5.Target("100.64.0.1", 80))
        self.assertEqual(self.said(stream + b"early").surplus, b"early")

    def test_targets(self) -> None:
        """Addresses of both families, and names."""
        for raw, host in (
            (
                b"\x04" + bytes.fromhex("fd7a115ca1e0") + bytes(9) + b"\x01",
                "fd7a:115c:a1e0::1",
            ),
            (b"\x03\x03web", "web"),
        ):
            stream = b"\x05\x01\x00\x05\x03\x00" + raw + b"\x1f\x90"
            asked = self.said(stream, wanted=None)
            self.assertEqual(asked.reply, b"\x05\x00")
            self.assertIs(asked.command, socks5.Command.UDP_ASSOCIATE)
            self.assertEqual(asked.target, socks5.Target(host, 8080))

    def test_R_LB_2_method(self) -> None:
        """Who does not offer a password is shown out."""
        asked = self.said(b"\x05\x01\x00")
        self.assertEqual((asked.reply, asked.isOver), (b"\x05\xff", True))
        asked = self.said(b"\x05\x01\x02", wanted=None)
        self.assertEqual((asked.reply, asked.isOver), (b"\x05\xff", True))

    def test_R_LB_2_password(self) -> None:
        """So is who has a wrong one."""
        for login in (
            b"\x01\x05tsnet\x05wrong",
            b"\x01\x04root\x06secret",
            b"\x01\0\0",
        ):
            asked = self.said(b"\x05\x01\x02" + login)
            self.assertEqual((asked.reply, asked.isOver), (b"\x05\x02\x01\x01", True))

    def test_refused(self) -> None:
        """Other commands and other addresses have their own answers."""
        for request, code in (
            ("05 02 00 01 64400001 0050", 7),
            ("05 09 00 01 64400001 0050", 7),
            ("05 01 00 02 64400001 0050", 8),
            ("05 01 00 03 00 0050 00", 8),
            ("05 01 00 03 02 ff41 0050", 8),
        ):
            asked = self.said(b"\x05\x01\x00" + bytes.fromhex(request), wanted=None)
            self.assertTrue(asked.isOver)
            self.assertEqual(asked.reply[3], code, request)

    def test_otherProtocols(self) -> None:
        """Something else is an error."""
        for stream in (b"\x04\x01", b"\x05\x01\x02\x05"):
            self.assertRaises(WireError, self.said, stream)

    def test_datagrams(self) -> None:
        """Wrapped and unwrapped; fragments and halves are refused."""
        wrapped = socks5.encodeDatagram(b"\x64\x40\0\1", 53, b"data")
        target, data = socks5.parseDatagram(wrapped)
        self.assertEqual((target, data), (socks5.Target("100.64.0.1", 53), b"data"))
        self.assertRaises(WireError, socks5.parseDatagram, b"\0\0\1" + wrapped[3:])
        for length in range(10):
            self.assertRaises(WireError, socks5.parseDatagram, wrapped[:length])

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.binary(max_size=40), max_size=6))
    def test_anyBytes(self, pieces: list[bytes]) -> None:
        """Nothing but L{WireError} is ever raised."""
        greeting = socks5.Greeting(CREDENTIALS)
        for piece in pieces:
            try:
                if greeting.feed(piece).isOver:
                    break
            except WireError:
                break
        try:
            socks5.parseDatagram(b"".join(pieces))
        except WireError:
            pass


class HTTPTests(SynchronousTestCase):
    """What a client asks an HTTP proxy for."""

    def ask(self, text: str) -> ProxyRequest:
        """Read a request."""
        request = ProxyRequestParser().feed(text.replace("\n", "\r\n").encode())
        assert request is not None
        return request

    def test_connect(self) -> None:
        """A tunnel to a name or an address of either family."""
        for authority, host, port in (
            ("web:443", "web", 443),
            ("100.64.0.1:22", "100.64.0.1", 22),
            ("[fd7a:115c:a1e0::1]:80", "fd7a:115c:a1e0::1", 80),
        ):
            request = self.ask(f"CONNECT {authority} HTTP/1.1\nHost: x\n\nearly")
            self.assertTrue(request.isTunnel)
            self.assertEqual(request.target, socks5.Target(host, port))
            self.assertEqual((request.head, request.surplus), (b"", b"early"))

    def test_absolute(self) -> None:
        """A URL becomes a request to its server, for this connection only."""
        request = self.ask(
            "POST http://Web:8080/a?b=c HTTP/1.1\nHost: other\nX-A: 1\n"
            "Connection: keep-alive, X-Hop\nX-Hop: 2\nProxy-Connection: keep-alive\n"
            "Proxy-Authorization: Basic eA==\nContent-Length: 4\n\nbody"
        )
        self.assertEqual(request.target, socks5.Target("Web", 8080))
        self.assertEqual(
            request.head,
            b"POST /a?b=c HTTP/1.1\r\nHost: Web:8080\r\nX-A: 1\r\nContent-Length: 4\r\n"
            b"Connection: close\r\n\r\n",
        )
        self.assertEqual(request.surplus, b"body")
        plain = self.ask("GET http://web HTTP/1.0\n\n")
        self.assertEqual(plain.target, socks5.Target("web", 80))
        self.assertTrue(plain.head.startswith(b"GET / HTTP/1.1\r\nHost: web\r\n"))
        query = self.ask("GET http://web?x HTTP/1.1\n\n")
        self.assertTrue(query.head.startswith(b"GET /?x HTTP/1.1\r\n"))

    def test_R_LB_2_credentials(self) -> None:
        """Basic authentication, compared whole."""
        good = base64.b64encode(b"tsnet:secret").decode()
        for value, isGood in (
            (f"Basic {good}", True),
            (f"basic  {good} ", True),
            ("Basic " + base64.b64encode(b"tsnet:wrong").decode(), False),
            ("Basic ???", False),
            (f"Bearer {good}", False),
        ):
            request = self.ask(
                f"CONNECT a:1 HTTP/1.1\nProxy-Authorization: {value}\n\n"
            )
            self.assertEqual(request.has(CREDENTIALS), isGood, value)
        self.assertFalse(self.ask("CONNECT a:1 HTTP/1.1\n\n").has(CREDENTIALS))
        self.assertTrue(self.ask("CONNECT a:1 HTTP/1.1\n\n").has(None))

    def test_refused(self) -> None:
        """Whatever is no request for a proxy."""
        for text in (
            "GET / HTTP/1.1\n\n",
            "GET https://web/ HTTP/1.1\n\n",
            "GET http:///path HTTP/1.1\n\n",
            "GET http://user@web/ HTTP/1.1\n\n",
            "CONNECT web HTTP/1.1\n\n",
            "CONNECT web:0 HTTP/1.1\n\n",
            "CONNECT web:99999 HTTP/1.1\n\n",
            "CONNECT a b:1 HTTP/1.1\n\n",
            "CONNECT web:1 HTTP/2.0\n\n",
            "G\0T http://web/ HTTP/1.1\n\n",
            "GET http://web/ HTTP/1.1\nno colon\n\n",
            "GET http://web/ HTTP/1.1\nA: b\rc\n\n",
            "GET http://web/ HTTP/1.1\n folded: x\n\n",
            "\n\n",
        ):
            self.assertRaises(WireError, self.ask, text)
        self.assertRaises(
            WireError, ProxyRequestParser().feed, b"x" * (LARGEST_HEAD + 1)
        )

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=200))
    def test_anyBytes(self, data: bytes) -> None:
        """Nothing but L{WireError} is ever raised."""
        try:
            ProxyRequestParser().feed(
                b"GET http://w/ HTTP/1.1\r\n" + data + b"\r\n\r\n"
            )
        except WireError:
            pass

"""Tests of L{tsrt.services.loopback}: programs that reach the tailnet by a proxy."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tsrt.errors import NotRunning
from tsrt.services.loopback import USER, Loopback, ProxyService
from tsrt.services.proxy import (
    HANDSHAKE_TIMEOUT,
    HTTP,
    MOST_CONNECTIONS,
    SOCKS5,
    ProxyFactory,
)
from tsrt.test.faultworld import Echo, Gather
from tsrt.testing.clock import cooperateOn
from tsrt.testing.tailnet import TestTailnet
from tsrt.wire import socks5


class Page(Resource):
    """Tells what was asked."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """See L{Resource}."""
        return b"you asked " + request.uri

    def render_POST(self, request: Any) -> bytes:
        """See L{Resource}."""
        return b"you said " + request.content.read()


class LoopbackTests(SynchronousTestCase):
    """Node C{a} has the proxy; C{b} is who programs want to reach."""

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=["a", "b"])
        self.addCleanup(self.net.close)
        cooperateOn(self, self.net.clock)
        self.node = self.net["a"]
        self.host = self.net.hosts["a"]
        b = self.net["b"]
        self.b4, self.b6 = b.status.addresses
        for port, factory in (
            (7, Factory.forProtocol(Echo)),
            (80, Site(Page(), reactor=self.net.clock)),
        ):
            listening = b.serverEndpoint(port).listen(factory)
            self.addCleanup(self.successResultOf(listening).stopListening)
        self.proxy = self.net.wait(self.node.loopback())

    def dial(self, proxy: Loopback | None = None) -> Gather:
        """Connect to the proxy as a program on the same machine does."""
        host, port = (proxy or self.proxy).address.split(":")
        endpoint = TCP4ClientEndpoint(self.host, host, int(port))
        return self.net.wait(endpoint.connect(Factory.forProtocol(Gather)))

    def say(self, program: Gather, data: bytes) -> bytes:
        """Send something; what comes back."""
        before = len(program.received)
        program.transport.write(data)
        self.net.elapse(1)
        return bytes(program.received[before:])

    def login(self, password: str | None = None) -> Gather:
        """A program that was let in by SOCKS."""
        program = self.dial()
        secret = (password or self.proxy.password.reveal()).encode()
        greeting = b"\x05\x01\x02\x01\x05tsnet" + bytes([len(secret)]) + secret
        self.assertEqual(self.say(program, greeting), b"\x05\x02\x01\x00")
        return program

    @staticmethod
    def request(command: int, host: bytes, port: int) -> bytes:
        """A SOCKS request by name, or by address as text."""
        name = bytes((5, command, 0, 3, len(host))) + host
        return name + port.to_bytes(2, "big")

    # -- SOCKS

    def test_socksConnect(self) -> None:
        """By name and by address of either family, whatever comes early."""
        packed4 = bytes(map(int, self.b4.split(".")))
        packed6 = bytes.fromhex(
            self.b6.replace("fd7a:115c:a1e0::", "fd7a115ca1e0" + "0" * 19)
        )
        for target in (
            b"\x03\x01b",
            b"\x03\x0eb.tailnet.test",
            b"\x01" + packed4,
            b"\x04" + packed6,
        ):
            program = self.login()
            answer = self.say(program, b"\x05\x01\0" + target + b"\0\x07early ")
            self.assertEqual(answer, b"\x05\0\0\x01" + bytes(6) + b"early ")
            self.assertEqual(self.say(program, b"and late"), b"and late")
            program.transport.loseConnection()
            self.net.elapse(1)
            self.assertIsNotNone(program.reason)
        self.assertEqual(len(self.proxy._proxies.open), 0)

    def test_R_LB_2_noPassword(self) -> None:
        """Who does not know it learns nothing."""
        program = self.dial()
        self.assertEqual(self.say(program, b"\x05\x01\x00"), b"\x05\xff")
        self.assertIsNotNone(program.reason)
        program = self.dial()
        wrong = b"\x05\x01\x02\x01\x05tsnet\x05wrong"
        self.assertEqual(self.say(program, wrong), b"\x05\x02\x01\x01")
        self.assertIsNotNone(program.reason)
        self.assertEqual(self.proxy.user, USER)
        self.assertEqual(len(self.proxy.password.reveal()), 32)
        self.assertNotIn(self.proxy.password.reveal(), repr(self.proxy))

    def test_R_LB_3_R_LB_4_onlyTheTailnet(self) -> None:
        """Names and addresses of the rest of the world lead nowhere."""
        outside = self.net.internet.host("outside", ["203.0.113.80"])
        self.net.internet.register("outside.test", "203.0.113.80")
        visitors: list[object] = []

        class Visited(Factory):
            def buildProtocol(self, addr: Any) -> None:
                visitors.append(addr)

        outside.listenTCP(80, Visited())
        for host in (b"outside.test", b"nobody", b"203.0.113.80", b"127.0.0.1"):
            program = self.login()
            answer = self.say(program, self.request(1, host, 80))
            self.net.elapse(30)
            answer = answer or bytes(program.received[4:])
            self.assertEqual(answer[:2], b"\x05\x05", host)
            self.assertIsNotNone(program.reason)
        self.assertEqual(visitors, [])

    def test_R_LB_1_address(self) -> None:
        """It is there for this machine only."""
        self.assertTrue(self.proxy.address.startswith("127.0.0.1:"))
        endpoint = TCP4ClientEndpoint(
            self.net.hosts["b"],
            self.host.addresses[0],
            int(self.proxy.address.split(":")[1]),
            timeout=5,
        )
        attempt = endpoint.connect(Factory.forProtocol(Gather))
        self.net.elapse(6)
        self.failureResultOf(attempt)

    def test_socksUDP(self) -> None:
        """Datagrams both ways, as long as the connection lasts."""

        class EchoUDP(DatagramProtocol):
            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                self.transport.write(b"<" + datagram + b">", addr)

        class Program(DatagramProtocol):
            def __init__(self) -> None:
                self.heard: list[bytes] = []

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                self.heard.append(datagram)

        self.net["b"].reactor.listenUDP(53, EchoUDP())
        program = self.login()
        answer = self.say(program, self.request(3, b"0", 9))
        self.assertEqual(answer[:8], b"\x05\0\0\x01\x7f\0\0\x01")
        port = int.from_bytes(answer[8:], "big")
        udp, stranger = Program(), Program()
        self.host.listenUDP(0, udp, "127.0.0.1")
        self.host.listenUDP(0, stranger, "127.0.0.1")
        packed = bytes(map(int, self.b4.split(".")))
        for target in (b"\x01" + packed, b"\x03\x01b"):
            udp.heard.clear()
            datagram = b"\0\0\0" + target + b"\0\x35question"
            udp.transport.write(datagram, ("127.0.0.1", port))
            self.net.elapse(1)
            source, data = socks5.parseDatagram(udp.heard[0])
            self.assertEqual(data, b"<question>")
            self.assertEqual(source.port, 53)
        # Fragments, nonsense, unknown names and strangers are not heard.
        udp.heard.clear()
        fragment = b"\0\0\1" + datagram[3:]
        for bad in (fragment, b"x", b"\0\0\0\x03\x02zz\0\x35?"):
            udp.transport.write(bad, ("127.0.0.1", port))
        stranger.transport.write(b"\0\0\0\x03\x01b\0\x35?", ("127.0.0.1", port))
        self.net.elapse(1)
        self.assertEqual((udp.heard, stranger.heard), ([], []))
        before = len(self.host.ports)
        program.transport.loseConnection()
        self.net.elapse(1)
        self.assertEqual(len(self.host.ports), before - 1)

    # -- HTTP

    def http(self, text: str, password: str | None = None) -> bytes:
        """Ask by HTTP; the whole answer."""
        secret = self.proxy.password.reveal() if password is None else password
        basic = base64.b64encode(f"{USER}:{secret}".encode()).decode()
        head, _, body = text.partition("\n\n")
        head += f"\nProxy-Authorization: Basic {basic}"
        whole = head.replace("\n", "\r\n") + "\r\n\r\n" + body
        return self.say(self.dial(), whole.encode())

    def test_httpConnect(self) -> None:
        """A tunnel, and what comes early through it."""
        answer = self.http("CONNECT b:7 HTTP/1.1\nHost: b:7\n\nearly")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nearly"), answer)

    def test_httpURL(self) -> None:
        """Pages of the tailnet, by the URLs of absolute requests."""
        answer = self.http("GET http://b/x?y HTTP/1.1\nHost: b\n\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK"), answer)
        self.assertTrue(answer.endswith(b"you asked /x?y"), answer)
        answer = self.http(
            "POST http://b/ HTTP/1.1\nHost: b\nContent-Length: 5\n\nhello"
        )
        self.assertTrue(answer.endswith(b"you said hello"), answer)

    def test_httpRefused(self) -> None:
        """Errors say what is wrong."""
        answer = self.http("CONNECT b:7 HTTP/1.1\n\n", password="wrong")
        self.assertTrue(answer.startswith(b"HTTP/1.1 407 "), answer)
        self.assertIn(b"Proxy-Authenticate: Basic realm=", answer)
        answer = self.http("GET / HTTP/1.1\nHost: b\n\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
        answer = self.http("CONNECT nobody:7 HTTP/1.1\n\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 502 "), answer)
        self.assertIn(b"no connection to nobody:7", answer)

    # -- limits

    def test_silent(self) -> None:
        """Who says nothing is not waited for for ever."""
        program = self.dial()
        half = self.dial()
        half.transport.write(b"\x05")
        self.net.elapse(HANDSHAKE_TIMEOUT + 1)
        self.assertIsNotNone(program.reason)
        self.assertIsNotNone(half.reason)

    def test_nonsense(self) -> None:
        """What is neither protocol is cut off."""
        for data in (b"\x04\x01\0\x50", b"\x05\x01\x02\x07"):
            program = self.dial()
            self.say(program, data)
            if data[0] == 5:
                self.assertIsNotNone(program.reason)

    def test_many(self) -> None:
        """Only so many at once."""
        programs = [self.dial() for _ in range(MOST_CONNECTIONS + 5)]
        self.net.elapse(1)
        refused = [p for p in programs if p.reason is not None]
        self.assertEqual(len(refused), 5)
        for program in programs:
            program.transport.loseConnection()
        self.net.elapse(1)
        self.login()

    def test_endsWithTheNode(self) -> None:
        """The port, and what goes through it, end as the node stops."""
        program = self.login()
        self.say(program, self.request(1, b"b", 7))
        self.net.wait(self.node.stopService())
        self.net.elapse(1)
        self.assertIsNotNone(program.reason)
        self.failureResultOf(self.node.loopback(), NotRunning)
        self.node.startService()
        self.net.waitUp("a")
        second = self.net.wait(self.node.loopback())
        self.assertNotEqual(second.password.reveal(), self.proxy.password.reveal())

    def test_oneOfTwo(self) -> None:
        """Of several one can be closed."""
        second = self.net.wait(self.node.loopback())
        self.assertIn(f"@{second.address}", second.url("http"))
        self.net.wait(second.stopService())
        self.login()

    def test_withoutPassword(self) -> None:
        """For those who want it so: one protocol, or both, for everybody."""
        factory = ProxyFactory(
            self.host, self.host, self.node.tailnet(), None, frozenset((SOCKS5,))
        )
        service = ProxyService(TCP4ServerEndpoint(self.host, 1055), factory)
        service.setServiceParent(self.node.apps)
        self.net.settle(1)
        endpoint = TCP4ClientEndpoint(self.host, "127.0.0.1", 1055)
        program = self.net.wait(endpoint.connect(Factory.forProtocol(Gather)))
        answer = self.say(program, b"\x05\x01\x00" + self.request(1, b"b", 7) + b"x")
        self.assertEqual(answer, b"\x05\0\x05\0\0\x01" + bytes(6) + b"x")
        other = self.net.wait(endpoint.connect(Factory.forProtocol(Gather)))
        self.say(other, b"CONNECT b:7 HTTP/1.1\r\n\r\n")
        self.assertIsNotNone(other.reason)
        self.assertNotIn(HTTP, factory.protocols)

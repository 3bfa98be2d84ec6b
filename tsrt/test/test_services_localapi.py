"""Tests of L{tsrt.services.localapi} and of the commands that ask it."""

from __future__ import annotations

import errno
import io
import json
import os
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from tsrt.addresses import AddrPort, parseAddress
from tsrt.cli.ask import PingOptions, WhoisOptions
from tsrt.cli.local import SOCKET, LocalOptions, NodeRefused, NoSuchNode, _Socket
from tsrt.cli.status import IPOptions, StatusOptions, findNode, statusText
from tsrt.dataplane.choice import TIER
from tsrt.errors import ConfigError
from tsrt.services.localapi import HOST, LocalAPI, LocalAPIService
from tsrt.services.quietsite import QuietSite
from tsrt.test.test_underlay_batchport import FakeReactor, FakeSocket
from tsrt.testing.clock import cooperateOn
from tsrt.testing.tailnet import TestTailnet
from tsrt.underlay.batchport import SINGLES_LIFETIME, BatchPort
from tsrt.underlay.socket import UnderlaySocket

PORT = 8080

_OFFLOADS = ("UDPReceiveOffload", "UDPSendOffload", "PathsWithoutSendOffload")


@implementer(IAgentEndpointFactory)
class LocalTestCase(SynchronousTestCase):
    """
    Node C{a} answers questions; they come by TCP here, since the simulated
    internet has no Unix sockets.
    """

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=["a", "b"])
        self.addCleanup(self.net.close)
        cooperateOn(self, self.net.clock)
        self.node = self.net["a"]
        self.host = self.net.hosts["a"]
        port = self.host.listenTCP(
            PORT,
            QuietSite(LocalAPI(self.node), reactor=self.host),
            interface="127.0.0.1",
        )
        self.addCleanup(port.stopListening)
        self.b4 = self.net["b"].status.addresses[0]

    def endpoint(self) -> TCP4ClientEndpoint:
        """Leads to the node's answers."""
        return TCP4ClientEndpoint(self.host, "127.0.0.1", PORT, timeout=5)

    def endpointForURI(self, uri: object) -> TCP4ClientEndpoint:
        """See L{IAgentEndpointFactory}."""
        return self.endpoint()

    def ask(
        self, path: str, method: bytes = b"GET", **headers: str
    ) -> tuple[int, bytes, Headers]:
        """Ask; code, body and headers of the answer."""
        headers = {"Host": HOST, **headers}
        agent = Agent.usingEndpointFactory(self.host, self)
        response = self.net.wait(
            agent.request(
                method,
                f"http://127.0.0.1:{PORT}{path}".encode(),
                Headers({name: [value] for name, value in headers.items()}),
            )
        )
        return response.code, self.net.wait(readBody(response)), response.headers

    def json(self, name: str, method: bytes = b"GET") -> Any:
        """Ask for something; the values of the answer."""
        code, body, _ = self.ask(f"/localapi/v0/{name}", method)
        self.assertEqual(code, 200, body)
        return json.loads(body)


class AnswerTests(LocalTestCase):
    """Questions and answers."""

    def test_status(self) -> None:
        """The status, with peers or without."""
        self.assertEqual(self.json("status"), self.node.backendStatus())
        self.assertIsNone(self.json("status?peers=false")["Peer"])
        _, _, headers = self.ask("/localapi/v0/status")
        self.assertTrue(headers.getRawHeaders("Tailscale-Version"))

    def test_whois(self) -> None:
        """By address, and by flow."""
        for text in (self.b4, f"{self.b4}:80"):
            found = self.json(f"whois?addr={text}")
            self.assertEqual(found["Node"]["Name"], "b.tailnet.test.")
            self.assertEqual(found["UserProfile"]["LoginName"], "user@tailnet.test")
            self.assertEqual(found["CapMap"], {})
        code, body, _ = self.ask("/localapi/v0/whois?addr=100.64.9.9:80")
        self.assertEqual((code, body), (404, b"no match for IP:port\n"))

    def test_ping(self) -> None:
        """Each kind, by relay and directly, and what goes wrong."""
        for kind in ("disco", "TSMP", "ICMP"):
            answer = self.json(f"ping?ip={self.b4}&type={kind}", b"POST")
            self.assertEqual(answer["NodeName"], "b.tailnet.test")
            self.assertGreater(answer["LatencySeconds"], 0)
            where = answer["Endpoint"] or answer["DERPRegionCode"]
            self.assertTrue(where, answer)
        self.net.settle(2)
        self.assertTrue(self.json(f"ping?ip={self.b4}&type=disco", b"POST")["Endpoint"])
        answer = self.json("ping?ip=100.64.9.9&type=disco", b"POST")
        self.assertIn("no peer has the address", answer["Err"])
        self.assertTrue(self.json("ping?ip=x&type=disco", b"POST")["Err"])
        code, body, _ = self.ask("/localapi/v0/ping?ip=1.2.3.4&type=sonar", b"POST")
        self.assertEqual(code, 400)
        self.assertIn(b"sonar", body)

    def test_relayed(self) -> None:
        """The relay is named by code and number."""
        self.net.addNode("far", relayOnly=True)
        self.net.waitUp("far")
        address = self.net["far"].status.addresses[0]
        answer = self.json(f"ping?ip={address}&type=disco", b"POST")
        self.assertEqual(
            (answer["DERPRegionID"], answer["DERPRegionCode"]), (900, "r900")
        )

    def test_others(self) -> None:
        """Relays, metrics, a suggestion."""
        self.assertIn("900", self.json("derpmap")["Regions"])
        code, body, _ = self.ask("/localapi/v0/usermetrics")
        self.assertEqual(code, 200)
        self.assertIn(b"tailscaled_inbound_bytes_total", body)
        self.assertEqual(self.json("suggest-exit-node"), {"ID": "", "Name": ""})

    def test_refused(self) -> None:
        """Browsers, other hosts, other paths and methods."""
        path = "/localapi/v0/status"
        self.assertEqual(self.ask(path, Host="evil.test")[0], 403)
        self.assertEqual(self.ask(path, Origin="http://evil.test")[0], 403)
        self.assertEqual(self.ask(path, Referer="http://evil.test/")[0], 403)
        for other in ("/localapi/v0/nothing", "/status", "/", "/localapi/v0/"):
            self.assertEqual(self.ask(other)[0], 404, other)
        self.assertEqual(self.ask("/localapi/v0/ping?ip=1.2.3.4")[0], 405)
        self.assertEqual(self.ask(path, b"POST")[0], 405)

    def test_notRunning(self) -> None:
        """A node that is stopped says so."""
        self.net.wait(self.node.stopService())
        code, body, _ = self.ask("/localapi/v0/status")
        self.assertEqual(code, 503)
        self.assertIn(b"not running", body)

    def test_longPath(self) -> None:
        """A path that no socket can have is refused beforehand."""
        with self.assertRaises(ConfigError):
            LocalAPIService(self.host, "/" + "x" * 200, self.node)


class CommandTests(LocalTestCase):
    """What people see."""

    def setUp(self) -> None:
        self.sockets: list[UnderlaySocket] = []
        start = UnderlaySocket.startService

        def started(socket: UnderlaySocket) -> None:
            self.sockets.append(socket)
            start(socket)

        self.patch(UnderlaySocket, "startService", started)
        super().setUp()
        self.patch(os, "environ", {})
        self.patch(_Socket, "endpointForURI", lambda _, uri: self.endpoint())

    def run_(self, options: LocalOptions, *arguments: str) -> str:
        """Run a command; what it printed."""
        options.parseOptions(["--socket", "/x", *arguments])
        out = io.StringIO()
        self.net.wait(Deferred.fromCoroutine(options.run(self.host, out)))
        return out.getvalue()

    def test_status(self) -> None:
        """A line for each node."""
        self.net.wait(self.node.ping("b"))
        self.net.settle(2)
        self.net.wait(self.node.ping("b"))
        own, peer, _, means = self.run_(StatusOptions()).splitlines()
        a4 = self.node.status.addresses[0]
        self.assertEqual(own.split(), [a4, "a", "user@", own.split()[3], "-"])
        self.assertRegex(
            peer, rf"{self.b4} +b +user@ +\S+ +active; direct \S+, tx \d+ rx \d+"
        )
        self.net.wait(self.net["b"].stopService())
        self.net.elapse(200)
        own, peer, *_ = self.run_(StatusOptions()).splitlines()
        self.assertRegex(peer, "idle; offline, tx")
        # A simulated network has no sockets of the system's.
        self.assertEqual(means, f"# Data plane: {TIER.name}, without UDP offloads")
        self.assertEqual(len(self.run_(StatusOptions(), "--active").splitlines()), 3)
        document = json.loads(self.run_(StatusOptions(), "--json", "--peers=false"))
        self.assertIsNone(document["Peer"])
        self.assertRaises(UsageError, StatusOptions().parseOptions, ["--peers=x"])

    def test_statusInTrouble(self) -> None:
        """What is wrong is said."""
        status = self.node.backendStatus() | {
            "BackendState": "NeedsLogin",
            "AuthURL": "https://login.test/x",
            "Health": ["something is wrong"],
        }
        text = statusText(status)
        self.assertIn("The node is not running: NeedsLogin.\n", text)
        self.assertIn("Log in at: https://login.test/x\n", text)
        self.assertIn("# Health check:\n#     - something is wrong\n", text)
        empty = statusText({**status, "Self": None, "Peer": None})
        self.assertIn("not running", empty)

    def test_statusOfOffloads(self) -> None:
        """What the system does for the sockets is said, and what it does not."""
        status = self.node.backendStatus()
        both, none = (True, True, 0), (False, False, 0)
        for four, six, words in (
            (both, both, "with UDP GSO and GRO"),
            (both, None, "with UDP GSO and GRO"),
            (None, (True, False, 0), "with UDP GRO"),
            ((False, True, 0), None, "with UDP GSO"),
            (none, none, "without UDP offloads"),
            (None, None, "without UDP offloads"),
            (both, none, "with UDP GSO and GRO by IPv4, nothing by IPv6"),
            ((True, False, 0), both, "with UDP GRO by IPv4, GSO and GRO by IPv6"),
            ((True, True, 1), both, "with UDP GSO and GRO; 1 path without GSO"),
            (
                (True, True, 1),
                (True, True, 3),
                "with UDP GSO and GRO; 4 paths without GSO",
            ),
        ):
            plane: dict[str, Any] = {"Tier": "fast"}
            for name, flags in (("IPv4", four), ("IPv6", six)):
                if flags is not None:
                    plane[name] = dict(zip(_OFFLOADS, flags, strict=True))
            text = statusText({**status, "DataPlane": plane})
            self.assertTrue(text.endswith(f"\n# Data plane: fast, {words}\n"), text)
        self.assertNotIn("plane", statusText({**status, "DataPlane": None}))

    def test_statusOfPorts(self) -> None:
        """What the ports find out by and by is told."""
        (socket,) = (s for s in self.sockets if s._reactor is self.host)
        self.addCleanup(setattr, socket, "_ports", socket._ports)
        self.patch(socket, "rebind", lambda: succeed(None))
        socket._ports, systems = {}, {4: FakeSocket(), 6: FakeSocket()}
        for family, system in systems.items():
            socket._ports[family] = BatchPort(
                FakeReactor(),
                system,
                lambda *_: None,
                lambda: None,
                lambda _: None,
                "linux",
                self.net.clock.seconds,
            )
        socket._senders = {4: socket._ports[4].send, 16: socket._ports[6].send}

        def means() -> str:
            *_, line = self.run_(StatusOptions()).splitlines()
            return line.removeprefix(f"# Data plane: {TIER.name}, ")

        def send(text: str) -> None:
            to = AddrPort(parseAddress(text), 9)
            self.assertTrue(socket.send([bytes(60), bytes(60)], to))

        self.assertEqual(means(), "with UDP GSO and GRO")
        systems[4].faults = {True: errno.EMSGSIZE}
        send("192.0.2.7")
        send("192.0.2.8")
        send("192.0.2.8")
        self.assertEqual(means(), "with UDP GSO and GRO; 2 paths without GSO")
        document = self.node.backendStatus()["DataPlane"]
        self.assertEqual(
            document,
            {
                "Tier": TIER.name,
                "IPv4": dict(zip(_OFFLOADS, (True, True, 2), strict=True)),
                "IPv6": dict(zip(_OFFLOADS, (True, True, 0), strict=True)),
            },
        )
        self.net.clock.advance(SINGLES_LIFETIME)
        self.assertEqual(means(), "with UDP GSO and GRO")
        systems[6].faults = {True: errno.EIO}
        send("2001:db8::7")
        self.assertEqual(means(), "with UDP GSO and GRO by IPv4, GRO by IPv6")

    def test_ip(self) -> None:
        """Addresses of this node and of peers."""
        four, six = self.node.status.addresses
        self.assertEqual(self.run_(IPOptions()), f"{four}\n{six}\n")
        self.assertEqual(self.run_(IPOptions(), "-4"), f"{four}\n")
        self.assertEqual(self.run_(IPOptions(), "-6"), f"{six}\n")
        self.assertEqual(self.run_(IPOptions(), "-1", "b"), f"{self.b4}\n")
        self.assertEqual(self.run_(IPOptions(), "-4", self.b4), f"{self.b4}\n")
        with self.assertRaises(NodeRefused):
            self.run_(IPOptions(), "nobody")
        with self.assertRaises(NodeRefused):
            self.run_(IPOptions(), "-4", "-6")
        with self.assertRaises(NodeRefused):
            findNode({"Self": None, "Peer": None}, "")

    def test_whois(self) -> None:
        """Machine and user."""
        text = self.run_(WhoisOptions(), f"{self.b4}:80")
        self.assertIn("  Name:          b.tailnet.test\n", text)
        self.assertIn("User:\n  Name:     user@tailnet.test\n", text)
        found = json.loads(self.run_(WhoisOptions(), "--json", self.b4))
        self.assertEqual(found["Node"]["Name"], "b.tailnet.test.")
        with self.assertRaises(NodeRefused):
            self.run_(WhoisOptions(), "100.64.9.9")

    def test_ping(self) -> None:
        """Until a path is direct; or so many times."""
        lines = self.run_(PingOptions(), "b").splitlines()
        self.assertRegex(lines[-1], rf"pong from b \({self.b4}\) via [0-9.:]+ in \d+ms")
        many = self.run_(PingOptions(), "-c", "3", "--no-until-direct", "b")
        self.assertEqual(len(many.splitlines()), 3)
        for kind in ("--icmp", "--tsmp"):
            self.assertIn("pong from b", self.run_(PingOptions(), kind, self.b4))
        with self.assertRaises(NodeRefused):
            self.run_(PingOptions(), "nobody")
        self.assertRaises(
            UsageError, PingOptions().parseOptions, ["--icmp", "--tsmp", "b"]
        )
        self.assertRaises(UsageError, PingOptions().parseOptions, ["--timeout=x", "b"])

    def test_nobody(self) -> None:
        """Without a node there is a sentence."""
        self.net.wait(self.node.stopService())
        with self.assertRaises(NodeRefused):
            self.run_(StatusOptions())
        self.patch(
            _Socket,
            "endpointForURI",
            lambda _, uri: TCP4ClientEndpoint(self.host, "127.0.0.1", 1, timeout=1),
        )
        with self.assertRaises(NoSuchNode) as raised:
            self.run_(StatusOptions())
        self.assertIn("no node answers at /x", str(raised.exception))

    def test_socket(self) -> None:
        """Where the socket is."""
        for arguments, path in (
            (["--socket", "/x/y.sock"], "/x/y.sock"),
            (["--statedir", "/state"], f"/state/{SOCKET}"),
        ):
            options = StatusOptions()
            options.parseOptions(arguments)
            self.assertEqual(str(options.path), path)
        os.environ["TS_SOCKET"] = "/env.sock"
        options = StatusOptions()
        options.parseOptions([])
        self.assertEqual(str(options.path), "/env.sock")

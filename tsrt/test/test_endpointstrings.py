"""Tests for C{tailnet:} endpoint strings."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    clientFromString,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tsrt import endpointstrings
from tsrt._endpointplugins import TailnetClientParser, TailnetServerParser
from tsrt.errors import AuthKeyInvalid, ConfigError
from tsrt.node import nodes
from tsrt.runtime.status import NodeState
from tsrt.test.overlaynet import Recorder, factoryFor
from tsrt.testing.tailnet import TestTailnet


class Reactor(Clock):
    """A reactor that is never run; enough to parse with."""


class ParseTests(SynchronousTestCase):
    """What is said when a string is read, long before it is used."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        for name in ("TS_HOSTNAME", "TS_STATE_DIR", "TS_AUTHKEY", "TS_CONTROL_URL"):
            self.patchEnvironment(name)

    def patchEnvironment(self, name: str) -> None:
        import os

        if name in os.environ:
            value = os.environ.pop(name)
            self.addCleanup(os.environ.__setitem__, name, value)

    def client(self, text: str) -> object:
        return clientFromString(self.reactor, text)

    def server(self, text: str) -> object:
        return serverFromString(self.reactor, text)

    def test_plugins(self) -> None:
        """The parsers are found by Twisted, and are what they should be."""
        for parser, interface in (
            (TailnetClientParser(), IStreamClientEndpointStringParserWithReactor),
            (TailnetServerParser(), IStreamServerEndpointStringParser),
        ):
            self.assertTrue(verifyObject(interface, parser))
            self.assertTrue(verifyObject(IPlugin, parser))
            self.assertEqual("tailnet", parser.prefix)

    def test_clients(self) -> None:
        """A client needs a host and a port, with or without their names."""
        for text, expected in (
            ("tailnet:web:80", "web:80"),
            ("tailnet:host=web:port=80", "web:80"),
            ("tailnet:port=80:host=web", "web:80"),
            ("tailnet:web:port=80", "web:80"),
            ("tailnet:web.example.ts.net:443:timeout=5", "web.example.ts.net:443"),
            ("tailnet:fd7a\\:\\:1:80", "fd7a::1:80"),
            (f"tailnet:{quoteStringArgument('fd7a::1')}:80", "fd7a::1:80"),
        ):
            endpoint = self.client(text)
            self.assertTrue(verifyObject(IStreamClientEndpoint, endpoint))
            self.assertEqual(f"<TailnetClientEndpoint {expected}>", repr(endpoint))

    def test_servers(self) -> None:
        """A server needs a port."""
        for text in (
            "tailnet:80",
            "tailnet:port=80",
            "tailnet:80:interface=v4",
            "tailnet:80:interface=fd7a\\:\\:1:backlog=5",
        ):
            endpoint = self.server(text)
            self.assertTrue(verifyObject(IStreamServerEndpoint, endpoint))
            self.assertEqual("<TailnetServerEndpoint port 80>", repr(endpoint))

    def test_nested(self) -> None:
        """Twisted's own wrapper for TLS takes our strings."""
        endpoint = self.client("tls:web:443:endpoint=tailnet\\:web\\:443")
        self.assertTrue(verifyObject(IStreamClientEndpoint, endpoint))

    def test_clientMistakes(self) -> None:
        """Each mistake in a client string has its own sentence."""
        for text, sentence in (
            ("tailnet:web", "needs a host and a port"),
            ("tailnet:port=80", "needs a host and a port"),
            ("tailnet::80", "needs a host and a port"),
            ("tailnet:web:", "needs a host and a port"),
            ("tailnet:web:http", "port=http is not a number from 1 to 65535"),
            ("tailnet:web:0", "port=0 is not a number"),
            ("tailnet:web:65536", "port=65536 is not a number"),
            ("tailnet:web:80:timeout=soon", "timeout=soon is not a number"),
            ("tailnet:web:80:timeout=0", "timeout=0 is not a number"),
            ("tailnet:web:80:interface=v4", "interface= has no meaning"),
            ("tailnet:web:80:colour=red", "colour= has no meaning"),
            ("tailnet:web:80:90", "takes host and port without names"),
            ("tailnet:web:80:host=web", "host is given twice"),
            ("tailnet:web:80:ephemeral=maybe", "neither yes nor no"),
            ("tailnet:web:80:controlURL=nonsense", "nonsense"),
        ):
            with self.assertRaises(ConfigError) as caught:
                self.client(text)
            self.assertIn(sentence, caught.exception.describe(), text)

    def test_serverMistakes(self) -> None:
        """Each mistake in a server string has its own sentence."""
        for text, sentence in (
            ("tailnet:", "needs a port"),
            ("tailnet:interface=v4", "needs a port"),
            ("tailnet:http", "port=http is not a number from 0 to 65535"),
            ("tailnet:-1", "port=-1 is not a number"),
            ("tailnet:80:backlog=0", "backlog=0 is not a number"),
            ("tailnet:80:backlog=x", "backlog=x is not a number"),
            ("tailnet:80:interface=eth0", "interface=eth0 is not an address"),
            ("tailnet:80:timeout=5", "timeout= has no meaning"),
            ("tailnet:80:81", "takes port without names"),
            ("tailnet:80:port=81", "port is given twice"),
        ):
            with self.assertRaises(ConfigError) as caught:
                self.server(text)
            self.assertIn(sentence, caught.exception.describe(), text)

    def test_authKey(self) -> None:
        """An auth key in a string is refused, and not repeated."""
        for text in (
            "tailnet:80:authKey=tskey-secret",
            "tailnet:80:authkey=tskey-secret",
            "tailnet:80:tskey-secret",
        ):
            with self.assertRaises(ConfigError) as caught:
                self.server(text)
            self.assertNotIn("tskey-secret", caught.exception.describe())
        with self.assertRaises(ConfigError) as caught:
            self.server("tailnet:80:authKey=tskey-secret")
        self.assertIn("must not stand", str(caught.exception))
        self.assertIn("authKeyFile=", caught.exception.advice)

    def test_conflict(self) -> None:
        """Strings that disagree about one node are refused when read."""
        self.server("tailnet:80:hostname=files:stateDir=/tmp/x")
        self.server("tailnet:81:hostname=files")
        self.client("tailnet:web:80")
        with self.assertRaises(ConfigError) as caught:
            self.client("tailnet:web:80:hostname=other")
        text = caught.exception.describe()
        self.assertIn("hostname of node 'main': 'files' and 'other'", text)
        self.assertIn("node=", text)

    def test_noConflict(self) -> None:
        """Other nodes, and other reactors, may be set as they like."""
        self.server("tailnet:80:hostname=files")
        self.server("tailnet:80:node=second:hostname=other")
        serverFromString(Reactor(), "tailnet:80:hostname=another")

    def test_mistakesLeaveNoTrace(self) -> None:
        """What a refused string says about its node is not remembered."""
        for text in (
            "tailnet:80:hostname=wrong:ephemeral=maybe",
            "tailnet:x:hostname=wrong",
            "tailnet:80:hostname=wrong:backlog=0",
        ):
            with self.assertRaises(ConfigError):
                self.server(text)
        self.server("tailnet:80:hostname=right")

    def test_addition(self) -> None:
        """Strings may add to what others say about a node."""
        self.server("tailnet:80:hostname=files")
        self.server("tailnet:81:stateDir=/tmp/y:ephemeral=yes")
        said = endpointstrings._declared[self.reactor]["main"]
        self.assertEqual(
            {"hostname": "files", "stateDir": "/tmp/y", "ephemeral": "yes"}, said
        )

    def test_reactorIsForgotten(self) -> None:
        """A reactor that is gone takes its declarations along."""
        reactor = Reactor()
        serverFromString(reactor, "tailnet:80:hostname=files")
        self.assertIn(reactor, endpointstrings._declared)
        before = len(endpointstrings._declared)
        del reactor
        gc.collect()
        self.assertLess(len(endpointstrings._declared), before)

    def test_noNode(self) -> None:
        """Using a string without a node fails with what to do about it."""
        for deferred in (
            self.client("tailnet:web:80:node=ghost").connect(factoryFor()),
            self.server("tailnet:80:node=ghost").listen(factoryFor()),
        ):
            error = self.failureResultOf(deferred, ConfigError).value
            self.assertIn("no tailnet node called 'ghost'", str(error))
            self.assertIn("hostname= and stateDir=", error.advice)


class UseTests(SynchronousTestCase):
    """Strings on the hosts of a whole tailnet."""

    def setUp(self) -> None:
        self.tailnet = TestTailnet(nodes=["web"])
        self.addCleanup(self.tailnet.close)
        self.host = self.tailnet.internet.host("user")
        self.triggers: list[tuple[str, str, Callable[[], Deferred[None]]]] = []
        self.host.addSystemEventTrigger = lambda *trigger: self.triggers.append(trigger)
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.keyFile = self.directory / "key"
        self.keyFile.write_text(self.tailnet.authKey.secret.reveal() + "\n")

    def settings(self, **more: str) -> str:
        words = {
            "hostname": "user",
            "stateDir": str(self.directory / "state"),
            "authKeyFile": str(self.keyFile),
            "controlURL": "http://192.168.255.1",
            **more,
        }
        return "".join(
            f":{name}={quoteStringArgument(value)}" for name, value in words.items()
        )

    def shutDown(self) -> None:
        """What the reactor does before it stops."""
        for phase, event, call in self.triggers:
            self.assertEqual(("before", "shutdown"), (phase, event))
            stopping = call()
            self.tailnet.wait(stopping)

    def test_nodeMadeByString(self) -> None:
        """A string makes its node, others share it, and it ends with the reactor."""
        server = Recorder()
        self.tailnet.wait(
            self.tailnet["web"].serverEndpoint(80).listen(factoryFor(server))
        )
        endpoint = clientFromString(self.host, "tailnet:web:80" + self.settings())
        self.assertIsNone(nodes.find(self.host, "main"))
        client = Recorder()
        self.tailnet.wait(endpoint.connect(factoryFor(client)))
        node = nodes.find(self.host, "main")
        self.assertEqual(NodeState.RUNNING, node.status.state)
        client.transport.write(b"hello")
        self.tailnet.settle()
        self.assertEqual(b"hello", server.data)
        # A second string finds the same node.
        listening = serverFromString(self.host, "tailnet:8080").listen(
            factoryFor(Recorder())
        )
        port = self.tailnet.wait(listening)
        self.assertEqual(node.status.addresses[0], port.getHost().host)
        self.assertEqual(1, len(self.triggers))
        self.tailnet.wait(port.stopListening())
        self.shutDown()
        self.assertEqual(NodeState.STOPPED, node.status.state)
        self.assertIsNone(nodes.find(self.host, "main"))
        self.assertIsNotNone(client.lost)

    def test_listenBeforeUp(self) -> None:
        """listen() fires at once, while the node that it made comes up."""
        server = Recorder()
        listening = serverFromString(self.host, "tailnet:80" + self.settings()).listen(
            factoryFor(server)
        )
        port = self.successResultOf(listening)
        client = Recorder()
        self.tailnet.settle(5)
        connecting = self.tailnet["web"].clientEndpoint("user", 80)
        self.tailnet.wait(connecting.connect(factoryFor(client)))
        self.tailnet.settle()
        self.assertEqual(["made"], server.events)
        self.tailnet.wait(port.stopListening())
        self.shutDown()

    def test_existingNode(self) -> None:
        """A node of the program's own is found by its name."""
        host = self.tailnet.hosts["web"]
        port = self.tailnet.wait(
            serverFromString(host, "tailnet:80:node=web").listen(factoryFor(Recorder()))
        )
        self.assertEqual(self.tailnet["web"].status.addresses[0], port.getHost().host)
        self.tailnet.wait(port.stopListening())

    def test_wrongKeyFile(self) -> None:
        """A node that cannot start says why, to each who tries."""
        settings = self.settings(authKeyFile="/nowhere/key")
        endpoint = serverFromString(self.host, "tailnet:80" + settings)
        for _ in range(2):
            error = self.failureResultOf(endpoint.listen(factoryFor()), ConfigError)
            self.assertIn("/nowhere/key", str(error.value))
        self.flushLoggedErrors()
        self.shutDown()

    def test_refusedKey(self) -> None:
        """After control refused the key, connecting fails with that at once."""
        self.keyFile.write_text("tskey-auth-wrong")
        endpoint = clientFromString(self.host, "tailnet:web:80" + self.settings())
        first = endpoint.connect(factoryFor(Recorder()))
        self.tailnet.settle(40)
        self.failureResultOf(first)
        second = endpoint.connect(factoryFor(Recorder()))
        self.failureResultOf(second, AuthKeyInvalid)
        self.shutDown()

"""
A tailnet with real Tailscale nodes and our own, for the tests of this package.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import (
    DatagramProtocol,
    Factory,
    Protocol,
    connectionDone,
)
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tsrt.config import NodeConfig
from tsrt.node import Node
from tsrt.state import FileStateStore
from tsrt.test.interop.namespaces import Namespace
from tsrt.test.interop.programs import (
    CommandProgram,
    binaries,
    eventually,
    spawn,
    whySkip,
)
from tsrt.test.interop.tailscaled import Tailscaled

MEGABYTE = 1 << 20


def pattern(seed: int, size: int) -> bytes:
    """The bytes that the Go driver sends for a seed."""
    out = bytearray(size)
    x = seed
    for i in range(size):
        x = (x * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        out[i] = x >> 56
    return bytes(out)


class Echo(Protocol):
    """Sends back what it gets."""

    def connectionMade(self) -> None:
        """Read as fast as the other side takes it back, no faster."""
        self.transport.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        """Send it back."""
        self.transport.write(data)


class Source(Protocol):
    """Sends some bytes and closes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def connectionMade(self) -> None:
        """Send all of it."""
        self.transport.write(self.data)
        self.transport.loseConnection()


class Gather(Protocol):
    """Sends some bytes, ends its side, and gathers the answer."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.received = bytearray()
        self.finished: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """Send and end."""
        self.transport.write(self.data)
        self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """All is here, or something went wrong."""
        if reason.check(type(connectionDone.value)):
            self.finished.callback(bytes(self.received))
        else:
            self.finished.errback(reason)


class Datagrams(DatagramProtocol):
    """Echoes datagrams, and keeps those that were waited for."""

    def __init__(self, echo: bool = False) -> None:
        self.echo = echo
        self.waiting: Deferred[bytes] | None = None

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Send it back, or give it to who waits."""
        if self.echo:
            self.transport.write(datagram, addr)
        elif self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.callback(datagram)


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal, as the Go driver tells it."""
    return hashlib.sha256(data).hexdigest()


class ScenarioTestCase(TestCase):
    """
    Makes a namespace for foreign programs, and cleans up after the test.

    Subclasses start a control server and set C{controlURL} and C{authKey}.
    """

    skip = whySkip()
    timeout = 300

    controlURL: str
    authKey: str

    def setUp(self) -> Any:
        """Make the namespace, then what the subclass adds."""
        self.reactor: Any = globalReactor
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir(parents=True)
        self.namespace = self.makeNamespace()
        self.addCleanup(self.namespace.remove)
        self.namespace.make()
        self.peers: dict[str, CommandProgram] = {}
        return Deferred.fromCoroutine(self.prepare())

    def makeNamespace(self) -> Namespace:
        """Where the foreign programs run."""
        return Namespace()

    async def prepare(self) -> None:
        """Start what the tests need; cleaned up by C{addCleanup}."""

    def cleanUp(self, call: Any, *arguments: Any) -> None:
        """Await a coroutine function at the end of the test."""
        self.addCleanup(lambda: Deferred.fromCoroutine(call(*arguments)))

    async def startPeer(self, name: str, **settings: Any) -> dict[str, Any]:
        """Start a real Tailscale node (tsnet) and join it."""
        directory = self.directory / name
        program = CommandProgram(name, directory / "log")
        self.peers[name] = program
        spawn(
            self.reactor,
            program,
            self.namespace.command(str((binaries() / "tsnet-peer").resolve())),
            directory,
        )
        self.cleanUp(program.stop, self.reactor)
        return await program.call(
            "start",
            hostname=name,
            control=self.controlURL,
            authkey=settings.pop("authkey", self.authKey),
            dir=str(directory / "state"),
            timeout=60,
            **settings,
        )

    def makeNode(self, name: str, **settings: Any) -> Node:
        """Make one of our nodes; it stops at the end of the test."""
        settings.setdefault("authKey", self.authKey)
        # The gateway of this machine is none of the tests' business.
        settings.setdefault("portMapping", False)
        config = NodeConfig(hostname=name, controlURL=self.controlURL, **settings)
        node = Node(
            self.reactor,
            config,
            state=FileStateStore(self.directory / f"{name}-state"),
            name=name,
        )
        self.addCleanup(node.stopService)
        return node

    async def startNode(self, name: str, **settings: Any) -> Node:
        """Start one of our nodes and wait for it to come up."""
        node = self.makeNode(name, **settings)
        node.startService()
        await node.up(timeout=30)
        return node

    async def listen(self, node: Node, port: int, protocol: Any) -> None:
        """Serve on a tailnet port with a new protocol for each connection."""
        factory = Factory()
        factory.protocol = protocol
        listening = await node.serverEndpoint(port).listen(factory)
        self.addCleanup(listening.stopListening)

    async def exchange(self, node: Node, host: str, port: int, data: bytes) -> bytes:
        """Connect, send, end our side; return all that comes back."""
        gather = Gather(data)
        factory = Factory()
        factory.protocol = lambda: gather
        await node.clientEndpoint(host, port).connect(factory)
        return await gather.finished

    async def datagram(
        self, node: Node, host: str, port: int, data: bytes, tries: int = 10
    ) -> bytes:
        """Send a datagram, again each second, until one comes back."""
        protocol = Datagrams()
        bound = node.reactor.listenUDP(0, protocol, maxPacketSize=65535)
        try:
            for _ in range(tries):
                protocol.waiting = answer = Deferred()
                protocol.transport.write(data, (host, port))
                answer.addTimeout(1.0, self.reactor, onTimeoutCancel=lambda *_: None)
                received = await answer
                if received is not None:
                    return received
        finally:
            await bound.stopListening()
        raise AssertionError(f"no answer from {host}:{port}")

    async def pause(self, seconds: float) -> None:
        """Let real time pass, where a foreign program needs it."""
        await deferLater(self.reactor, seconds)


class TrafficMixin:
    """
    Traffic between one of our nodes and a real one, in all ways.

    Mixed into a L{ScenarioTestCase} with a control server.
    """

    size = 10 * MEGABYTE

    async def bothEnds(
        self: Any, **settings: Any
    ) -> tuple[Node, CommandProgram, list[str], list[str]]:
        """Our node, the real one, and the addresses of each."""
        started = await self.startPeer("gopeer")
        node = await self.startNode("ours", **settings)
        real: list[str] = started["addresses"]
        self.assertEqual(len(real), 2)
        self.assertEqual(len(node.status.addresses), 2)
        return node, self.peers["gopeer"], list(node.status.addresses), real

    async def test_traffic(self: Any) -> None:
        """
        TCP both ways (10 MB each way, byte-exact), UDP and ICMP both ways, over
        IPv4 and IPv6, through the relay.
        """
        node, peer, ours, real = await self.bothEnds(relayOnly=True)
        small, big = pattern(7, 100_000), pattern(9, self.size)
        await self.listen(node, 7, Echo)
        await self.listen(node, 9, lambda: Source(big))
        node.reactor.listenUDP(7, Datagrams(echo=True), maxPacketSize=65535)
        for network, address in (("tcp4", ":7"), ("tcp6", ":7")):
            await peer.call("listen", network=network, address=address, mode="echo")
        await peer.call(
            "listen", network="tcp", address=":9", mode="source", size=self.size, seed=9
        )
        await peer.call("listen", network="tcp", address=":10", mode="sink")
        for own, remote in zip(ours, real, strict=True):
            literal = f"[{own}]" if ":" in own else own
            # We to them, and back.
            self.assertEqual(await self.exchange(node, remote, 7, small), small)
            # They to us, and back.
            answer = await peer.call(
                "dial", network="tcp", address=f"{literal}:7", size=100_000, seed=7
            )
            self.assertEqual(answer["receivedSHA256"], digest(small))
            # Ten megabytes each way.
            got = await self.exchange(node, remote, 9, b"")
            self.assertEqual(digest(got), digest(big))
            told = await self.exchange(node, remote, 10, big)
            self.assertEqual(told.decode().split(), [str(len(big)), digest(big)])
            answer = await peer.call(
                "dial", network="tcp", address=f"{literal}:9", size=0
            )
            self.assertEqual(answer["receivedSHA256"], digest(big))
            # Datagrams, over IPv4 one of them in fragments: the real node's
            # filter lets no fragments of IPv6 through, in either direction.
            bind = f"[{remote}]:11" if ":" in remote else f"{remote}:11"
            await peer.call("listen", network="udp", address=bind)
            for size in (0, 1, 1000, 1232 if ":" in own else 4000):
                data = pattern(3, size)
                if size:
                    echoed = await self.datagram(node, remote, 11, data)
                    self.assertEqual(echoed, data)
                answer = await peer.call(
                    "dial", network="udp", address=f"{literal}:7", size=size, seed=3
                )
                self.assertTrue(answer["equal"])
            # Echo requests.
            pinged = await node.ping(remote)
            self.assertEqual(pinged.address, remote)
            self.assertTrue(pinged.path.startswith("relay"), pinged.path)
            for mode in ("ICMP", "TSMP", "disco"):
                answer = await peer.call("ping", address=own, mode=mode)
                self.assertGreater(answer["latency"], 0)
        whois = node.whois(real[0])
        self.assertTrue(whois.node.name.startswith("gopeer."), whois.node.name)
        told = await peer.call("whois", address=f"{ours[0]}:1")
        self.assertTrue(told["node"].startswith("ours."), told)

    async def test_daemon(self: Any) -> None:
        """Tailscale's daemon and command line see our node and reach it."""
        daemon = Tailscaled(self.reactor, self.namespace, self.directory / "daemon")
        self.cleanUp(daemon.stop)
        await daemon.start()
        await daemon.up(self.controlURL, self.authKey, "daemon")
        node = await self.startNode("ours")

        async def seen() -> bool:
            peers = (await daemon.status())["Peer"] or {}
            return any(
                p["HostName"] == "ours" and p["Online"] and p["Relay"]
                for p in peers.values()
            )

        await eventually(self.reactor, seen, "the daemon sees our node online")
        for address in node.status.addresses:
            for kind in ("--icmp", "--tsmp"):
                said = await daemon.command(
                    *("ping", kind, "--c=3", "--timeout=5s", address)
                )
                self.assertIn("pong from ours", said)
            # Until it is direct, which it has to become.
            said = await daemon.command("ping", "--c=5", "--timeout=5s", address)
            self.assertIn(f"via {self.namespace.hostAddress}:", said)
        found = await daemon.command("whois", f"{node.status.addresses[0]}:80")
        self.assertIn(node.status.name, found)
        own = await daemon.status()
        pinged = await node.ping(own["Self"]["TailscaleIPs"][0])
        self.assertTrue(pinged.name.startswith("daemon."), pinged)

    async def test_httpByName(self: Any) -> None:
        """Pages are fetched by MagicDNS name, in both directions."""
        from twisted.web.client import readBody
        from twisted.web.resource import Resource
        from twisted.web.server import Site
        from twisted.web.static import Data

        node, peer, ours, _ = await self.bothEnds()
        await peer.call("listen", network="tcp", address=":80", mode="http")
        response = await node.agent().request(b"GET", b"http://gopeer/")
        body = (await readBody(response)).decode()
        self.assertEqual(response.code, 200)
        self.assertIn("hello from gopeer", body)
        self.assertTrue(any(address in body for address in ours), body)
        root = Resource()
        root.putChild(b"", Data(b"hello from ours", "text/plain"))
        listening = await node.serverEndpoint(80).listen(Site(root))
        self.addCleanup(listening.stopListening)
        answer = await peer.call("get", url=f"http://{node.status.name}/")
        self.assertEqual((answer["status"], answer["body"]), (200, "hello from ours"))

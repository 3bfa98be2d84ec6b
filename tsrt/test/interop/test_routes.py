"""Our node behind real ones: a subnet router, and an exit node, which may die."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import NoRouteError, TimeoutError
from twisted.internet.protocol import Factory, Protocol

import tsrt
from tsrt.node import Node
from tsrt.test.interop.headscalecase import HeadscaleTestCase
from tsrt.test.interop.leakwatch import LeakWatch
from tsrt.test.interop.programs import Program, eventually, spawn
from tsrt.test.interop.scenario import Gather, digest, pattern
from tsrt.test.interop.tailscaled import Tailscaled
from tsrt.test.interop.test_devtailnet import DevServersTestCase

PORT = 7007
PING = shutil.which("ping")
OFFICE = "10.77.7.7"
FAR, FAR6 = "198.18.5.5", "2001:db8:77::5"


class EchoedBack(Protocol):
    """
    Sends some bytes, and closes when as many have come back: the daemon ends
    both directions with the first of them.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._received = bytearray()
        self.whole: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """Send all."""
        self.transport.write(self._data)

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self._received += data
        if len(self._received) >= len(self._data) and not self.whole.called:
            self.transport.loseConnection()
            self.whole.callback(bytes(self._received))


class RoutesMixin:
    """A real daemon leads to addresses that are nowhere else."""

    async def prepare(self: Any) -> None:
        """Start the daemon and, in its namespace, somebody who answers."""
        await super().prepare()  # type: ignore[misc]  # of the class that this is mixed into
        for address in (f"{OFFICE}/32", f"{FAR}/32", f"{FAR6}/128"):
            self.namespace.addAddress(address)
        server = Program("far server", self.directory / "far.log")
        spawn(
            self.reactor,
            server,
            self.namespace.command(
                *(sys.executable, "-m", "tsrt.test.interop.farserver"),
                *(str(PORT), OFFICE, FAR, FAR6),
            ),
            self.directory,
            {"PYTHONPATH": str(Path(tsrt.__file__).parent.parent)},
        )
        self.cleanUp(server.stop, self.reactor)
        await eventually(
            self.reactor, lambda: "listening" in server.output(), "it listens"
        )
        self.daemon = Tailscaled(self.reactor, self.namespace, self.directory / "d")
        self.cleanUp(self.daemon.stop)
        await self.daemon.start()
        await self.daemon.up(self.controlURL, self.authKey, "router")

    async def advertise(self: Any, *flags: str) -> None:
        """Let the daemon offer routes, and approve them."""
        await self.daemon.command("set", *flags)
        await self.approveRoutes("router")

    async def works(self: Any, node: Node, address: str) -> None:
        """TCP, UDP and pings get there and back."""
        data = pattern(3, 300_000)
        echoed = EchoedBack(data)
        factory = Factory()
        factory.protocol = lambda: echoed
        await node.clientEndpoint(address, PORT).connect(factory)
        self.assertEqual(digest(await echoed.whole), digest(data))
        self.assertEqual(
            await self.datagram(node, address, PORT, b"hello there"), b"hello there"
        )
        if PING is not None:
            # The daemon leaves pings to the program.
            pinged = await node.ping(address, timeout=10)
            self.assertEqual(pinged.address, address)

    async def test_subnetRouter(self: Any) -> None:
        """A network behind it is reached, when routes are accepted."""
        node = await self.startNode("ours")
        await self.advertise("--advertise-routes=10.77.0.0/16")
        await eventually(
            self.reactor,
            lambda: any(
                prefix.text() == "10.77.0.0/16"
                for peer in node.peers()
                for prefix in peer.allowedIPs
            ),
            "the route is in the netmap",
        )
        with self.assertRaises(NoRouteError):
            await node.clientEndpoint(OFFICE, PORT).connect(Factory.forProtocol(Gather))
        node.setPreferences(acceptRoutes=True)
        await self.works(node, OFFICE)

    async def test_exitNode(self: Any) -> None:
        """
        The rest of the world is reached through it, in both families; and when
        it is gone nothing leaves by another way.
        """
        node = await self.startNode("ours", exitNode="router")
        [problem] = node.status.health
        self.assertIn("lets nobody out", problem)
        await self.advertise("--advertise-exit-node")
        await eventually(self.reactor, lambda: node.activeExitNode, "an exit node")
        self.assertEqual(node.status.health, ())
        watch = LeakWatch(self.reactor, FAR, FAR6)
        self.addCleanup(watch.stop)
        for address in (FAR, FAR6):
            await self.works(node, address)
        await self.daemon.stop()
        for address in (FAR, FAR6):
            await self.unreachable(node, address)
        await self.deleteNode("router")
        await eventually(
            self.reactor, lambda: node.activeExitNode is None, "it is gone"
        )
        for address in (FAR, FAR6):
            await self.unreachable(node, address)
        self.assertEqual(watch.seen, [])

    async def unreachable(self: Any, node: Node, address: str) -> None:
        """Nothing gets there."""
        endpoint = node.clientEndpoint(address, PORT, timeout=3)
        try:
            await endpoint.connect(Factory.forProtocol(Gather))
        except (NoRouteError, TimeoutError):
            return
        self.fail(f"{address} was reached")


class RoutesTests(RoutesMixin, DevServersTestCase):
    """On our own control server."""


class HeadscaleRoutesTests(RoutesMixin, HeadscaleTestCase):
    """On Headscale."""

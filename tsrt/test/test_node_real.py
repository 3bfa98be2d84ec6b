"""Nodes on the real reactor and on real sockets of loopback."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tsrt.config import NodeConfig
from tsrt.netstack.flow import TCPFlow
from tsrt.node import Node
from tsrt.runtime.engine import Engine
from tsrt.state import MemoryStateStore
from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
from tsrt.testing.certificates import selfSigned
from tsrt.testing.control import ControlConfig, ControlServer
from tsrt.testing.derp import DERPServer
from tsrt.testing.stun import STUNServer

LOOPBACK = "127.0.0.1"


class Echo(Protocol):
    """Sends back what it gets."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Gather(Protocol):
    """Fires when enough has come."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.received = bytearray()
        self.enough: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= self.size and not self.enough.called:
            self.enough.callback(bytes(self.received))


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def alive(*kinds: type) -> dict[str, int]:
    """How many objects of each kind there are."""
    gc.collect()
    gc.collect()
    found = gc.get_objects()
    return {kind.__name__: sum(isinstance(o, kind) for o in found) for kind in kinds}


class LoopbackTests(TestCase):
    """A tailnet of real sockets in this process."""

    timeout = 60
    skip = None if os.path.isdir("/proc/self/fd") else "this looks into /proc"

    def setUp(self) -> Any:
        self.reactor: Any = globalReactor
        return Deferred.fromCoroutine(self.startServers())

    async def startServers(self) -> None:
        self.relay = DERPServer(
            self.reactor,
            TCP4ServerEndpoint(self.reactor, 0, interface=LOOPBACK),
            certificate=selfSigned([LOOPBACK]),
        )
        self.relay.startService()
        self.addCleanup(self.relay.stopService)
        stun = STUNServer(self.reactor, 0, LOOPBACK)
        stun.startService()
        self.addCleanup(stun.stopService)
        node = DERPNode(
            name="900a",
            regionID=900,
            hostName=LOOPBACK,
            ipv4=LOOPBACK,
            ipv6="none",
            derpPort=await self.relay.whenListening(),
            stunPort=stun.port,
            insecureForTests=True,
        )
        region = DERPRegion(regionID=900, regionCode="dev", nodes=[node])
        self.control = ControlServer(
            self.reactor,
            config=ControlConfig(derpMap=DERPMap(regions={900: region})),
        )
        self.control.startService()
        self.addCleanup(self.control.stopService)
        self.url = await self.control.whenListening()
        self.key = self.control.createAuthKey(reusable=True).secret

    def makeNode(self, name: str) -> Node:
        """Make an ephemeral node."""
        config = NodeConfig(
            hostname=name, controlURL=self.url, authKey=self.key, ephemeral=True
        )
        return Node(self.reactor, config, state=MemoryStateStore(), name=name)

    async def life(self, names: list[str]) -> None:
        """Start nodes, send a megabyte between two of them, stop them all."""
        nodes = [self.makeNode(name) for name in names]
        for node in nodes:
            node.startService()
        await gatherResults([node.up() for node in nodes])
        await nodes[0].serverEndpoint(7).listen(Factory.forProtocol(Echo))
        data = os.urandom(1 << 20)
        gather = Gather(len(data))
        factory = Factory()
        factory.protocol = lambda: gather
        client = nodes[1].clientEndpoint(nodes[0].status.addresses[0], 7)
        await client.connect(factory)
        gather.transport.write(data)
        self.assertEqual(await gather.enough, data)
        await gatherResults([node.stopService() for node in nodes])

    def test_nothingIsLeft(self) -> Any:
        """Lives of several nodes leave no file, thread or object behind."""
        return Deferred.fromCoroutine(self._nothingIsLeft())

    async def _nothingIsLeft(self) -> None:
        await self.life(["a", "b"])  # what is loaded once is loaded now
        await deferLater(self.reactor, 0.2)
        files, threads = descriptors(), threading.active_count()
        objects = alive(Node, Engine, TCPFlow)
        for _ in range(3):
            await self.life(["a", "b", "c"])
        await deferLater(self.reactor, 0.2)
        self.assertEqual(descriptors(), files)
        self.assertEqual(threading.active_count(), threads)
        self.assertEqual(alive(Node, Engine, TCPFlow), objects)
        self.assertEqual(self.control.nodes(), [])

    def test_interruptedStarts(self) -> Any:
        """Nodes that are stopped while they start leave nothing behind."""
        return Deferred.fromCoroutine(self._interruptedStarts())

    async def _interruptedStarts(self) -> None:
        await self.life(["a", "b"])
        await deferLater(self.reactor, 0.2)
        files = descriptors()
        engines = alive(Engine)["Engine"]
        for step in range(30):
            node = self.makeNode("brief")
            node.startService()
            await deferLater(self.reactor, step * 0.002)
            await node.stopService()
        await deferLater(self.reactor, 0.3)
        self.assertEqual(descriptors(), files)
        self.assertLessEqual(alive(Engine)["Engine"], engines)

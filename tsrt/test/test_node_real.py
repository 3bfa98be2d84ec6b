"""Nodes on the real reactor and on real sockets of loopback."""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from tsrt.config import NodeConfig
from tsrt.dataplane.runs import Buffer, DatagramRun
from tsrt.netstack.flow import TCPFlow
from tsrt.node import Node
from tsrt.runtime.engine import Engine
from tsrt.state import MemoryStateStore
from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
from tsrt.testing.certificates import selfSigned
from tsrt.testing.control import ControlConfig, ControlServer
from tsrt.testing.derp import DERPServer
from tsrt.testing.stun import STUNServer
from tsrt.tunnel.session import Session
from tsrt.underlay.batchport import BatchPort

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

    async def pair(self) -> tuple[Node, Node]:
        """Two nodes with a direct path between them, of which the first echoes."""
        nodes = [self.makeNode(name) for name in ("a", "b")]
        for node in nodes:
            node.startService()
        await gatherResults([node.up() for node in nodes])
        await nodes[0].serverEndpoint(7).listen(Factory.forProtocol(Echo))
        for _ in range(200):
            answer = await nodes[1].ping(nodes[0].status.addresses[0])
            if not answer.path.startswith("derp"):
                break
            await deferLater(self.reactor, 0.05)
        else:
            self.fail(f"no direct path: {answer.path}")
        return nodes[0], nodes[1]

    async def connect(self, a: Node, b: Node, size: int) -> Gather:
        """Connect the second to the first; gather some bytes of the echo."""
        gather = Gather(size)
        factory = Factory()
        factory.protocol = lambda: gather
        await b.clientEndpoint(a.status.addresses[0], 7).connect(factory)
        return gather

    def test_runsInOneProcess(self) -> Any:
        """What flows between two nodes of one process goes in runs all the way."""
        return Deferred.fromCoroutine(self._runsInOneProcess())

    async def _runsInOneProcess(self) -> None:
        if sys.platform != "linux":
            raise SkipTest("the system neither joins nor cuts datagrams")
        a, b = await self.pair()
        opened: list[int] = []
        openRun = Session._openRun

        def note(session: Session, run: DatagramRun, *arguments: Any) -> int:
            opened.append(run.count)
            return openRun(session, run, *arguments)

        self.patch(Session, "_openRun", note)
        size = 4 << 20
        gather = await self.connect(a, b, size)
        data = os.urandom(size)
        gather.transport.write(data)
        self.assertEqual(await gather.enough, data)
        # There and back: some 3,400 segments each way, nearly all of them in runs.
        self.assertGreater(sum(opened), 5000)
        self.assertGreater(max(opened), 40)
        await gatherResults([a.stopService(), b.stopService()])

    def test_leavesAtOnce(self) -> Any:
        """
        A lone packet leaves before the reactor waits for anything: what is
        answered in the very turn in which it came, and what is written at another
        time after at most one look at what is ready, that does not wait.
        """
        return Deferred.fromCoroutine(self._leavesAtOnce())

    async def _leavesAtOnce(self) -> None:
        a, b = await self.pair()
        gather = await self.connect(a, b, 1)
        gather.transport.write(b"x")
        await gather.enough
        polls: list[float | None] = []
        reads: list[int] = []
        sends: list[tuple[int, list[float | None]]] = []
        poll, write, read = (
            self.reactor.doIteration,
            BatchPort._writeOne,
            BatchPort.doRead,
        )

        def countPoll(delay: float | None) -> None:
            polls.append(delay)
            poll(delay)

        def countRead(port: BatchPort) -> None:
            reads.append(len(polls))
            read(port)

        def countWrite(port: BatchPort, datagram: Buffer, *arguments: Any) -> None:
            if datagram[:1] == b"\x04":
                sends.append((len(polls), polls[written:]))
            write(port, datagram, *arguments)

        self.patch(self.reactor, "doIteration", countPoll)
        self.patch(BatchPort, "_writeOne", countWrite)
        self.patch(BatchPort, "doRead", countRead)
        gather.received.clear()
        gather.enough = Deferred()
        written = len(polls)
        gather.transport.write(b"y")
        self.assertEqual(await gather.enough, b"y")
        (_, first), (answered, _) = sends[:2]
        self.assertLessEqual(len(first), 1)
        self.assertEqual(set(first) - {0}, set())
        self.assertIn(answered, reads)
        await gatherResults([a.stopService(), b.stopService()])

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

"""
One of our nodes as a program that takes the same commands as the Go node's driver.

It reads a JSON object a line and answers each with one, so that a benchmark can put
either kind of node at either end.  Run by the other benchmarks, not by hand.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt import MemoryStateStore, Node, NodeConfig

CHUNK = 1 << 16
_NOISE = os.urandom(CHUNK)
"""What is poured: sums over zeros are cheaper than those over anything else."""


@implementer(IPushProducer)
class Pour(Protocol):
    """Sends noise as fast as it is taken, and waits for the receipt."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._isPaused = False
        self._told = b""
        self.done: Deferred[None] = Deferred()

    def begin(self) -> None:
        """The clock runs."""
        transport: Any = self.transport
        transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """Write until told to pause."""
        transport: Any = self.transport
        self._isPaused = False
        while self._left and not self._isPaused:
            piece = _NOISE if self._left >= CHUNK else _NOISE[: self._left]
            self._left -= len(piece)
            transport.write(piece)
            if not self._left:
                transport.unregisterProducer()
                transport.loseWriteConnection()

    def pauseProducing(self) -> None:
        """Enough for now."""
        self._isPaused = True

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._left = 0

    def dataReceived(self, data: bytes) -> None:
        """The receipt."""
        self._told += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Everything is said."""
        if self._told == b"%d\n" % self._size:
            self.done.callback(None)
        else:
            self.done.errback(
                RuntimeError(f"{self._told!r} for {self._size}: {reason.value}")
            )


@implementer(IHalfCloseableProtocol)
class Count(Protocol):
    """Takes a stream to its end and answers with its length."""

    _count = 0

    def dataReceived(self, data: bytes) -> None:
        """Look at no byte."""
        self._count += len(data)

    def readConnectionLost(self) -> None:
        """Say how many they were."""
        assert self.transport is not None
        self.transport.write(b"%d\n" % self._count)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Ours."""


class Echo(Protocol):
    """Sends back what comes."""

    def dataReceived(self, data: bytes) -> None:
        """Send it back."""
        assert self.transport is not None
        self.transport.write(data)


class PingPong(Protocol):
    """Sends a message, waits until all of it came back, and so on."""

    def __init__(self, clock: Callable[[], float], size: int, count: int) -> None:
        self._clock = clock
        self._message = os.urandom(size)
        self._count = count
        self._missing = 0
        self._began = 0.0
        self.times: list[float] = []
        self.done: Deferred[list[float]] = Deferred()

    def connectionMade(self) -> None:
        """Begin."""
        self._next()

    def _next(self) -> None:
        assert self.transport is not None
        self._missing = len(self._message)
        self._began = self._clock()
        self.transport.write(self._message)

    def dataReceived(self, data: bytes) -> None:
        """Part of the echo."""
        self._missing -= len(data)
        if self._missing:
            return
        self.times.append(self._clock() - self._began)
        if len(self.times) < self._count:
            self._next()
        else:
            assert self.transport is not None
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Done, or cut short."""
        if len(self.times) == self._count:
            self.done.callback(self.times)
        else:
            self.done.errback(reason)


def parts(address: str) -> tuple[str, int]:
    """Host and port of C{host:port}, with or without brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


class Commands(LineReceiver):
    """The commands of the Go node's driver, by the same names."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 20

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._node: Node | None = None
        self._nodes: list[Node] = []
        self.ended: Deferred[None] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        """Start what is asked for; answer when it is done."""
        command = json.loads(line)
        call: Callable[..., Awaitable[dict[str, Any] | None]]
        call = getattr(self, f"do_{command['cmd']}")

        async def run() -> None:
            try:
                answer = await call(command) or {}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            answer |= {"id": command["id"], "ok": "error" not in answer}
            self.sendLine(json.dumps(answer).encode())

        Deferred.fromCoroutine(run())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody is there to ask any more."""
        self.ended.callback(None)

    @property
    def node(self) -> Node:
        """The node, once it was started."""
        assert self._node is not None
        return self._node

    async def do_start(self, command: dict[str, Any]) -> dict[str, Any]:
        """Join the tailnet."""
        began = self._reactor.seconds()
        self._node = node = self._start(command, command["hostname"])
        status = await node.up(60)
        return {
            "addresses": [str(address) for address in status.addresses],
            "seconds": self._reactor.seconds() - began,
        }

    def _start(self, command: dict[str, Any], hostname: str) -> Node:
        """Start one node more."""
        config = NodeConfig(
            hostname=hostname,
            controlURL=command["control"],
            authKey=command["authkey"],
            ephemeral=True,
        )
        node = Node(self._reactor, config, state=MemoryStateStore(), name=hostname)
        self._nodes.append(node)
        node.startService()
        return node

    async def do_twin(self, command: dict[str, Any]) -> dict[str, Any]:
        """Have another node in this process, which counts what comes to a port."""
        twin = self._start(command, command["hostname"])
        status = await twin.up(60)
        endpoint = twin.serverEndpoint(command["port"], backlog=1000)
        await endpoint.listen(Factory.forProtocol(Count))
        return {"addresses": [str(address) for address in status.addresses]}

    async def do_listen(self, command: dict[str, Any]) -> None:
        """Serve on a port."""
        kind: type[Protocol] = {"count": Count, "echo": Echo}[command["mode"]]
        _, port = parts(command["address"])
        endpoint = self.node.serverEndpoint(port, backlog=1000)
        await endpoint.listen(Factory.forProtocol(kind))

    async def _connect(self, command: dict[str, Any], protocol: Protocol) -> None:
        host, port = parts(command["address"])
        await connectProtocol(self.node.clientEndpoint(host, port), protocol)

    async def do_pour(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send noise over some connections at once."""
        count = max(command.get("count", 1), 1)
        flows = [Pour(command["size"] // count) for _ in range(count)]
        for flow in flows:
            await self._connect(command, flow)
        began = self._reactor.seconds()
        times: list[float] = []
        for flow in flows:
            flow.done.addCallback(
                lambda _: times.append(self._reactor.seconds() - began)
            )
            flow.begin()
        await gatherResults([flow.done for flow in flows], consumeErrors=True)
        return {"seconds": self._reactor.seconds() - began, "times": times}

    async def do_pingpong(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send small messages to and fro."""
        protocol = PingPong(self._reactor.seconds, command["size"], command["count"])
        await self._connect(command, protocol)
        return {"times": await protocol.done}

    async def do_connects(self, command: dict[str, Any]) -> dict[str, Any]:
        """Open and close connections, some at a time."""
        left = command["count"]

        async def some() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                protocol = Protocol()
                await self._connect(command, protocol)
                assert protocol.transport is not None
                protocol.transport.loseConnection()

        began = self._reactor.seconds()
        parallel = max(command.get("parallel", 1), 1)
        await gatherResults([Deferred.fromCoroutine(some()) for _ in range(parallel)])
        return {"seconds": self._reactor.seconds() - began}

    async def do_ping(self, command: dict[str, Any]) -> dict[str, Any]:
        """Ping through the tunnel; say by which path."""
        answer = await self.node.ping(command["address"])
        return {"latency": answer.seconds, "endpoint": answer.path}

    async def do_crowd(self, command: dict[str, Any]) -> dict[str, Any]:
        """
        Start more nodes in this process, and connect each to an address.

        @return: how long each took to connect.
        """
        host, port = parts(command["address"])
        crowd = []
        for number in range(command["count"]):
            node = self._start(command, f"{command['hostname']}-{number}")
            await node.up(60)
            crowd.append(node)
        await deferLater(self._reactor, command["pause"])
        times = []
        for node in crowd:
            began = self._reactor.seconds()
            protocol = Protocol()
            await connectProtocol(node.clientEndpoint(host, port), protocol)
            times.append(self._reactor.seconds() - began)
            assert protocol.transport is not None
            protocol.transport.loseConnection()
        return {"times": times}

    async def do_usage(self, command: dict[str, Any]) -> dict[str, Any]:
        """What this process took so far."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return {
            "cpu": used.ru_utime + used.ru_stime,
            "rss": pages * resource.getpagesize(),
        }

    async def stop(self) -> None:
        """Leave the tailnet."""
        for node in self._nodes:
            await node.stopService()


async def main(reactor: Any) -> None:
    """Serve until the input ends."""
    commands = Commands(reactor)
    profile = os.environ.get("TSRT_BENCH_PROFILE")
    if profile:
        import cProfile

        profiler = cProfile.Profile()
        reactor.addSystemEventTrigger(
            "before", "shutdown", profiler.dump_stats, profile
        )
        profiler.enable()
    StandardIO(commands, reactor=reactor)
    await commands.ended
    await commands.stop()


if __name__ == "__main__":
    task.react(main)

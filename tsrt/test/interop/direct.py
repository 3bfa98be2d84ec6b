"""Direct paths between one of our nodes and a real one, and the loss of them."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory

from tsrt.node import Node
from tsrt.test.interop.programs import eventually
from tsrt.test.interop.scenario import (
    MEGABYTE,
    Datagrams,
    Gather,
    Source,
    digest,
    pattern,
)

PATIENCE = 3.0
"""Seconds within which a path has to become direct."""

RESUME = 100.0
"""
Seconds within which a real node goes on to send after its path died.  Its timer
doubles with each segment that is lost, and many are: it bursts into the relay's
short queue.
"""


async def becomes(
    test: Any, node: Node, address: str, path: str, patience: float
) -> None:
    """Wait until a node says that the path to an address is such a one."""

    async def check() -> bool:
        return (await node.ping(address, timeout=1)).path.startswith(path)

    await eventually(test.reactor, check, f"{path} to {address}", patience)


class DirectMixin:
    """Mixed into a L{ScenarioTestCase} with a control server and STUN."""

    async def test_direct(self: Any) -> None:
        """
        The path becomes direct within three seconds, and carries TCP and UDP
        both ways, of both families, and pings of all kinds.
        """
        node, peer, ours, real = await self.bothEnds()
        await becomes(self, node, real[0], "direct", PATIENCE)
        big = pattern(9, 10 * MEGABYTE)
        await self.listen(node, 9, lambda: Source(big))
        node.reactor.listenUDP(7, Datagrams(echo=True), maxPacketSize=65535)
        await peer.call(
            "listen", network="tcp", address=":9", mode="source", size=len(big), seed=9
        )
        relayed = node._engine.relays.status().regions
        for own, remote in zip(ours, real, strict=True):
            literal = f"[{own}]" if ":" in own else own
            self.assertEqual(
                digest(await self.exchange(node, remote, 9, b"")), digest(big)
            )
            answer = await peer.call(
                "dial", network="tcp", address=f"{literal}:9", size=0
            )
            self.assertEqual(answer["receivedSHA256"], digest(big))
            answer = await peer.call(
                "dial", network="udp", address=f"{literal}:7", size=1000, seed=3
            )
            self.assertTrue(answer["equal"])
            for mode in ("disco", "ICMP", "TSMP"):
                answer = await peer.call("ping", address=own, mode=mode)
                self.assertGreater(answer["latency"], 0)
            pinged = await node.ping(remote)
            self.assertTrue(pinged.path.startswith("direct 10."), pinged.path)
        self.assertTrue(relayed)
        sent = node._engine.getServiceNamed("underlay").counters
        self.assertGreater(sent.receivedBytes, 2 * len(big))
        self.assertGreater(sent.sentBytes, 2 * len(big))

    async def test_cutAndBack(self: Any) -> None:
        """
        UDP is cut in the middle of a transfer, and works again later: the path
        goes to the relay and back, and the transfer loses nothing.
        """
        node, peer, _, real = await self.bothEnds()
        await becomes(self, node, real[0], "direct", PATIENCE)
        size = 100 * MEGABYTE
        await peer.call(
            "listen", network="tcp", address=":9", mode="source", size=size, seed=9
        )
        gather = Gather(b"")
        factory = Factory()
        factory.protocol = lambda: gather
        await node.clientEndpoint(real[0], 9).connect(factory)
        await eventually(
            self.reactor, lambda: len(gather.received) > size // 20, "it began"
        )
        self.namespace.cutUDP()
        await becomes(self, node, real[0], "relay", 20)
        here = len(gather.received)
        await eventually(
            self.reactor,
            lambda: len(gather.received) > min(here + MEGABYTE, size - 1),
            "it goes on by the relay",
            patience=RESUME,
        )
        self.namespace.healUDP()
        await becomes(self, node, real[0], "direct", 20)
        data = await gather.finished.addTimeout(120, self.reactor)
        self.assertEqual(digest(data), digest(pattern(9, size)))

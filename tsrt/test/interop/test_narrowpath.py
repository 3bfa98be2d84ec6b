"""A way that takes smaller packets than a tunnel makes, between two nodes."""

from __future__ import annotations

import errno
from typing import Any

from tsrt.cli.status import statusText
from tsrt.test.interop.direct import PATIENCE, becomes
from tsrt.test.interop.scenario import MEGABYTE, TrafficMixin, digest, pattern
from tsrt.test.interop.test_devtailnet import DevServersTestCase
from tsrt.underlay.batchport import BatchPort, Offloads

MTU = 1200
"""Of the way; a full packet of the tunnel comes to 1340 bytes on it."""

SIZE = 5 * MEGABYTE


class NarrowPathTests(DevServersTestCase):
    """
    The system refuses to cut a write into datagrams that it would have to fragment
    (C{EMSGSIZE}, C{EINVAL} where it is older); single ones it fragments.

    The way back is wide: a real node (1.101) knows C{EIO} only, and goes on losing
    all that it writes in one, so that it gets 14 kB a second through.
    """

    timeout = 60
    bothEnds = TrafficMixin.bothEnds

    async def test_transfer(self) -> None:
        """
        The path is direct, megabytes go through it both ways and come out whole,
        and our node falls back to single writes for this path, and says so.
        """
        self.namespace.narrow(MTU)
        refused: list[int] = []
        cannotCut = BatchPort._cannotCut

        def noted(port: BatchPort, number: int, address: Any) -> None:
            refused.append(number)
            cannotCut(port, number, address)

        self.patch(BatchPort, "_cannotCut", noted)
        node, peer, _, real = await self.bothEnds()
        await becomes(self, node, real[0], "direct", PATIENCE)
        socket = node._engine.getServiceNamed("underlay")
        if not socket.offloads[4].cuts:
            self.skipTest("this system cuts no writes")
        data = pattern(9, SIZE)
        await peer.call("listen", network="tcp", address=":10", mode="sink")
        await peer.call(
            "listen", network="tcp", address=":9", mode="source", size=SIZE, seed=9
        )
        # We to them.
        told = await self.exchange(node, real[0], 10, data)
        self.assertEqual(told.decode().split(), [str(SIZE), digest(data)])
        # They to us.
        got = await self.exchange(node, real[0], 9, b"")
        self.assertEqual(digest(got), digest(data))
        # It was refused once, and not tried again.
        self.assertIn(refused, ([errno.EMSGSIZE], [errno.EINVAL]))
        self.assertEqual(
            socket.offloads[4], Offloads(socket.offloads[4].joins, True, 1)
        )
        self.assertIn("; 1 path without GSO\n", statusText(node.backendStatus()))
        # All of it went by the direct path.
        pinged = await node.ping(real[0])
        self.assertTrue(pinged.path.startswith("direct 10."), pinged.path)
        self.assertGreater(socket.counters.sentBytes, SIZE)
        self.assertGreater(socket.counters.receivedBytes, SIZE)
        self.assertEqual(socket.counters.droppedTooLong, 0)

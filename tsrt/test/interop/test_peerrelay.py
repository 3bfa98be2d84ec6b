"""A real peer relay between one of our nodes and a real one."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from tsrt.test.interop.direct import becomes
from tsrt.test.interop.namespaces import Namespace
from tsrt.test.interop.programs import eventually
from tsrt.test.interop.scenario import MEGABYTE, Gather, digest, pattern
from tsrt.test.interop.tailscaled import Tailscaled
from tsrt.test.interop.test_devtailnet import DevServersTestCase

PORT = 40123


class PeerRelayTests(DevServersTestCase):
    """
    Our node and a real one reach each other by DERP only; the daemon that
    relays for them has a link to each.
    """

    async def prepare(self) -> None:
        """Make the relay's namespace, with the two links."""
        await super().prepare()
        self.middle = Namespace()
        self.addCleanup(self.middle.remove)
        self.middle.make()
        self.middle.leadHome()
        self.middle.join(self.namespace)
        self.namespace.cutUDPFromTest()
        self.daemon = Tailscaled(self.reactor, self.middle, self.directory / "relay")
        self.cleanUp(self.daemon.stop)
        await self.daemon.start()
        await self.daemon.up(self.controlURL, self.authKey, "middle")
        await self.daemon.command("set", f"--relay-server-port={PORT}")

    async def grant(self, users: list[str]) -> None:
        """Let the daemon relay for nodes, by their addresses."""
        relay = (await self.daemon.status())["Self"]["TailscaleIPs"][0]
        cap = {"tailscale.com/cap/relay": [{}]}
        policy = {
            "grants": [
                {"src": ["*"], "dst": ["*"], "ip": ["*"]},
                {"src": users, "dst": [relay], "app": cap},
            ]
        }
        self.control.setPolicy(json.dumps(policy))

    async def meet(self, asking: str) -> tuple[Any, Any, str]:
        """Start both; let one of them, C{ours} or C{real}, use the relay."""
        started = await self.startPeer("gopeer")
        node = await self.startNode("ours")
        real = started["addresses"][0]
        own = node.status.addresses[0]
        await becomes(self, node, real, "relay ", 10)
        await self.grant([own if asking == "ours" else real])
        peer = self.peers["gopeer"]

        async def used() -> bool:
            # Each keeps the path in use, and looks for a better one.
            back = await peer.call("ping", address=own, mode="disco")
            there = await node.ping(real, timeout=1)
            return bool(back["relay"]) and there.path.startswith("peer-relay ")

        await eventually(self.reactor, used, "the relay carries", 45)
        return node, peer, real

    def test_weAsk(self) -> Any:
        """We ask the relay, tell the peer, and both bind; streams are exact."""
        return Deferred.fromCoroutine(self._carried("ours"))

    def test_theyAsk(self) -> Any:
        """The real node asks, and we come where it says."""
        return Deferred.fromCoroutine(self._carried("real"))

    async def _carried(self, asking: str) -> None:
        node, peer, real = await self.meet(asking)
        pinged = await node.ping(real)
        self.assertTrue(
            pinged.path.startswith(f"peer-relay {self.middle.address}:{PORT}:vni:"),
            pinged.path,
        )
        answer = await peer.call("ping", address=node.status.addresses[0], mode="disco")
        self.assertTrue(answer["relay"].startswith("192.168.78."), answer)
        size = 10 * MEGABYTE
        await peer.call(
            "listen", network="tcp", address=":9", mode="source", size=size, seed=9
        )
        got = await self.exchange(node, real, 9, b"")
        self.assertEqual(digest(got), digest(pattern(9, size)))
        counters = node._engine.paths.peerRelays.counters
        self.assertGreaterEqual(counters.confirmed, 1)
        self.assertEqual(counters.requestsSent > 0, asking == "ours")
        self.assertEqual(counters.offersReceived > 0, asking == "real")

    async def test_dies(self) -> None:
        """The relay dies in the middle of a transfer, which goes on by DERP."""
        node, peer, real = await self.meet("ours")
        size = 30 * MEGABYTE
        await peer.call(
            "listen", network="tcp", address=":9", mode="source", size=size, seed=9
        )
        gather = Gather(b"")
        factory = Factory()
        factory.protocol = lambda: gather
        await node.clientEndpoint(real, 9).connect(factory)
        await eventually(
            self.reactor, lambda: len(gather.received) > size // 10, "it began"
        )
        await self.daemon.stop()
        await becomes(self, node, real, "relay ", 20)
        data = await gather.finished.addTimeout(200, self.reactor)
        self.assertEqual(digest(data), digest(pattern(9, size)))

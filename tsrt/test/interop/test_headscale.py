"""A real Headscale server, and real Tailscale nodes on it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tsrt.errors import AuthKeyInvalid, NeedsLogin
from tsrt.runtime.status import NodeState
from tsrt.test.interop.direct import DirectMixin
from tsrt.test.interop.headscalecase import HeadscaleTestCase
from tsrt.test.interop.programs import eventually
from tsrt.test.interop.scenario import TrafficMixin


class HeadscaleTests(TrafficMixin, DirectMixin, HeadscaleTestCase):
    """Our node under a control server and a relay that we did not write."""

    def test_registerAndLogout(self) -> Any:
        """A node registers by pre-auth key, keeps its identity, and logs out."""
        return Deferred.fromCoroutine(self._registerAndLogout())

    async def _registerAndLogout(self) -> None:
        node = await self.startNode("ours")
        self.assertEqual(node.status.name, "ours.hs.test")
        addresses = node.status.addresses
        [listed] = await self.headscale.nodes()
        self.assertEqual(sorted(listed["ip_addresses"]), sorted(addresses))
        key = listed["node_key"]
        await node.stopService()
        # A stale auth key does not matter to a node with a valid node key.
        again = self.makeNode("ours", authKey="hskey-auth-garbage")
        again.startService()
        await again.up(timeout=30)
        self.assertEqual(again.status.addresses, addresses)
        [listed] = await self.headscale.nodes()
        self.assertEqual(listed["node_key"], key)
        await again.logout()
        [listed] = await self.headscale.nodes()
        self.assertIn("expiry", listed)
        await again.stopService()

    def test_deltas(self) -> Any:
        """A node that joins and one that leaves show in our netmap at once."""
        return Deferred.fromCoroutine(self._deltas())

    async def _deltas(self) -> None:
        ours = await self.startNode("ours")
        self.assertEqual(ours.peers(), ())
        other = await self.startNode("other")
        await eventually(
            self.reactor, lambda: len(ours.peers()) == 1, "the other node is seen"
        )
        self.assertEqual(ours.peers()[0].name, "other.hs.test")
        await other.stopService()
        await eventually(
            self.reactor,
            lambda: ours.peers()[0].online is False,
            "the other node is offline",
        )
        [node] = [n for n in await self.headscale.nodes() if n["name"] == "other"]
        await self.headscale.command("nodes", "delete", "-i", str(node["id"]))
        await eventually(
            self.reactor, lambda: not ours.peers(), "the other node is gone"
        )

    def test_ephemeral(self) -> Any:
        """An ephemeral node is gone from the list within 3 s of its stop."""
        return Deferred.fromCoroutine(self._ephemeral())

    async def _ephemeral(self) -> None:
        key = await self.headscale.authKey("--ephemeral", "-e", "1h")
        node = await self.startNode("brief", authKey=key, ephemeral=True)
        self.assertEqual(len(await self.headscale.nodes()), 1)
        await node.stopService()

        async def gone() -> bool:
            return not await self.headscale.nodes()

        await eventually(self.reactor, gone, "the node is gone", patience=3)

    def test_wrongKey(self) -> Any:
        """A key that Headscale does not know is a typed, permanent error."""
        return Deferred.fromCoroutine(self._wrongKey())

    async def _wrongKey(self) -> None:
        node = self.makeNode("ours", authKey="hskey-auth-nonsense-nonsense")
        node.startService()
        with self.assertRaises(AuthKeyInvalid):
            await node.up(timeout=20)
        self.assertIs(node.status.state, NodeState.STOPPED)

    def test_interactive(self) -> Any:
        """Without a key a URL is shown; approving it lets the node in."""
        return Deferred.fromCoroutine(self._interactive())

    async def _interactive(self) -> None:
        node = self.makeNode("ours", authKey=None)
        node.startService()
        await eventually(
            self.reactor, lambda: node.status.loginURL, "a login URL is shown"
        )
        url = node.status.loginURL
        with self.assertRaises(NeedsLogin):
            await node.up(timeout=0.5)
        await self.headscale.command(
            *("auth", "register", "--auth-id", url.rpartition("/")[2]),
            *("--user", "alice"),
        )
        status = await node.up(timeout=30)
        self.assertEqual(status.name, "ours.hs.test")

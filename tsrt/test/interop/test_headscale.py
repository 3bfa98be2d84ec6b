"""A real Headscale server, and real Tailscale nodes on it."""

from __future__ import annotations

from tsrt.errors import AuthKeyInvalid, NeedsLogin
from tsrt.runtime.status import NodeState
from tsrt.test.interop.direct import DirectMixin
from tsrt.test.interop.headscalecase import HeadscaleTestCase
from tsrt.test.interop.programs import eventually
from tsrt.test.interop.scenario import TrafficMixin


class HeadscaleTests(TrafficMixin, DirectMixin, HeadscaleTestCase):
    """Our node under a control server and a relay that we did not write."""

    async def test_registerAndLogout(self) -> None:
        """A node registers by pre-auth key, keeps its identity, and logs out."""
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

    async def test_deltas(self) -> None:
        """A node that joins and one that leaves show in our netmap at once."""
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

    async def test_ephemeral(self) -> None:
        """An ephemeral node is gone from the list within 3 s of its stop."""
        key = await self.headscale.authKey("--ephemeral", "-e", "1h")
        node = await self.startNode("brief", authKey=key, ephemeral=True)
        self.assertEqual(len(await self.headscale.nodes()), 1)
        await node.stopService()

        async def gone() -> bool:
            return not await self.headscale.nodes()

        await eventually(self.reactor, gone, "the node is gone", patience=3)

    async def test_wrongKey(self) -> None:
        """A key that Headscale does not know is a typed, permanent error."""
        node = self.makeNode("ours", authKey="hskey-auth-nonsense-nonsense")
        node.startService()
        with self.assertRaises(AuthKeyInvalid):
            await node.up(timeout=20)
        self.assertIs(node.status.state, NodeState.STOPPED)

    async def test_interactive(self) -> None:
        """Without a key a URL is shown; approving it lets the node in."""
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

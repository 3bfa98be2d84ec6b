"""Our status beside that of Tailscale's daemon, on one tailnet."""

from __future__ import annotations

from typing import Any

from tsrt.test.interop.direct import becomes
from tsrt.test.interop.tailscaled import Tailscaled
from tsrt.test.interop.test_devtailnet import DevServersTestCase

# What each says of itself and of others in its own way: times, counts, paths.
OWN_WAYS = frozenset(
    (
        *("Addrs", "CurAddr", "RxBytes", "TxBytes", "LastWrite", "LastHandshake"),
        *("LastSeen", "Active", "InEngine", "InMagicSock", "InNetworkMap", "Online"),
        *("TaildropTarget", "NoFileSharingReason", "Capabilities", "CapMap"),
        *("Relay", "PeerAPIURL", "KeyExpiry", "Created", "sshHostKeys"),
    )
)


def kind(value: Any) -> str:
    """The kind of a value of JSON."""
    return "number" if isinstance(value, int | float) else type(value).__name__


class StatusTests(DevServersTestCase):
    """Each tells of the other, of itself, and of a third."""

    async def test_same(self) -> None:
        """The same names and kinds of values, and the same facts."""
        daemon = Tailscaled(self.reactor, self.namespace, self.directory / "d")
        self.cleanUp(daemon.stop)
        await daemon.start()
        await daemon.up(self.controlURL, self.authKey, "daemon")
        await self.startPeer("gopeer")
        node = await self.startNode("ours")
        theirs = await daemon.status()
        real = theirs["TailscaleIPs"][0]
        await becomes(self, node, real, "direct", 10)
        await daemon.command("ping", "--c=1", node.status.addresses[0])
        theirs, ours = await daemon.status(), node.backendStatus()
        # What is ours alone comes after what every reader of theirs knows.
        self.assertEqual(list(ours), [*theirs, "DataPlane"])
        for name in ("MagicDNSSuffix", "BackendState", "CurrentTailnet", "User"):
            self.assertEqual(ours[name], theirs[name], name)
        for name in theirs:
            if theirs[name] is not None and ours[name] is not None:
                self.assertEqual(kind(ours[name]), kind(theirs[name]), name)
        mine = self.nodes(ours)
        for host, peer in self.nodes(theirs).items():
            self.compare(mine[host], peer)
        daemonHere = mine["daemon"]
        self.assertTrue(daemonHere["CurAddr"].startswith("10."))
        self.assertTrue(daemonHere["Online"] and daemonHere["Active"])
        self.assertGreater(daemonHere["RxBytes"], 0)

    @staticmethod
    def nodes(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """All nodes of a status, this one included, by host name."""
        found = [status["Self"], *status["Peer"].values()]
        return {node["HostName"]: node for node in found}

    def compare(self, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        """Two descriptions of one node."""
        for name in set(theirs) & set(ours):
            if theirs[name] is not None and ours[name] is not None:
                self.assertEqual(kind(ours[name]), kind(theirs[name]), name)
            if name not in OWN_WAYS:
                self.assertEqual(ours[name], theirs[name], name)
        self.assertEqual(set(theirs) - set(ours) - OWN_WAYS, set())
        self.assertEqual(set(ours) - set(theirs) - OWN_WAYS, set())

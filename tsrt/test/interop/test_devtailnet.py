"""Real Tailscale nodes on our own control server, relay and STUN server."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory

from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
from tsrt.test.interop.direct import DirectMixin
from tsrt.test.interop.programs import ProgramFailed, eventually
from tsrt.test.interop.scenario import Echo, ScenarioTestCase, TrafficMixin
from tsrt.testing.certificates import selfSigned
from tsrt.testing.control import ControlConfig, ControlServer
from tsrt.testing.derp import DERPServer
from tsrt.testing.stun import STUNServer


class DevServersTestCase(ScenarioTestCase):
    """Runs our own servers."""

    async def prepare(self) -> None:
        """Start the servers on the test's end of the link."""
        address = self.namespace.hostAddress
        relay = DERPServer(
            self.reactor,
            TCP4ServerEndpoint(self.reactor, 0, interface=address),
            certificate=selfSigned([address]),
        )
        relay.startService()
        self.addCleanup(relay.stopService)
        stun = STUNServer(self.reactor, 0, address)
        stun.startService()
        self.addCleanup(stun.stopService)
        derpPort = await relay.whenListening()
        node = DERPNode(
            name="900a",
            regionID=900,
            hostName=address,
            ipv4=address,
            ipv6="none",
            derpPort=derpPort,
            stunPort=stun.port,
            insecureForTests=True,
        )
        region = DERPRegion(
            regionID=900, regionCode="dev", regionName="Dev", nodes=[node]
        )
        self.control = ControlServer(
            self.reactor,
            TCP4ServerEndpoint(self.reactor, 0, interface=address),
            ControlConfig(
                derpMap=DERPMap(regions={900: region}, omitDefaultRegions=True)
            ),
        )
        self.control.startService()
        self.addCleanup(self.control.stopService)
        self.controlURL = await self.control.whenListening()
        self.authKey = self.control.createAuthKey(reusable=True).text

    async def approveRoutes(self, name: str) -> None:
        """Approve all routes that a node offers, once it offers any."""
        await eventually(
            self.reactor,
            lambda: self.control.node(name).advertisedRoutes,
            "routes are offered",
        )
        self.control.approveRoutes(name)

    async def deleteNode(self, name: str) -> None:
        """Take a node out of the tailnet."""
        self.control.deleteNode(name)


class DevTailnetTests(TrafficMixin, DirectMixin, DevServersTestCase):
    """What a tailnet of ours is to foreign nodes."""

    async def test_wrongAuthKey(self) -> None:
        """A real node is told that its auth key is not known."""
        with self.assertRaises(ProgramFailed):
            await self.startPeer("gopeer", authkey="tskey-auth-wrong")

    async def test_fallback(self) -> None:
        """A real node reaches what a handler takes, and is refused the rest."""
        await self.startPeer("gopeer")
        node = await self.startNode("ours")
        peer = self.peers["gopeer"]
        await eventually(self.reactor, lambda: self._seesUs(peer), "it sees ours")

        def handler(source: Any, destination: Any) -> Any:
            taken = destination.port in (7, 8)
            return Factory.forProtocol(Echo) if taken else None

        registration = node.registerFallbackTCPHandler(handler)
        own = node.status.addresses
        for address in (f"{own[0]}:7", f"[{own[1]}]:8"):
            answer = await peer.call("dial", network="tcp", address=address, size=5000)
            self.assertEqual(answer["received"], 5000)
        registration.withdraw()
        for port in (7, 9):
            with self.assertRaises(ProgramFailed) as caught:
                await peer.call(
                    "dial", network="tcp", address=f"{own[0]}:{port}", timeout=10
                )
            self.assertIn("refused", str(caught.exception))

    async def test_deltas(self) -> None:
        """A real node that leaves, and one that comes, shows in our netmap."""
        node = await self.startNode("ours")
        self.assertEqual(node.peers(), ())
        await self.startPeer("gopeer", ephemeral=True)
        await eventually(
            self.reactor,
            lambda: [p for p in node.peers() if p.online],
            "the peer is online",
        )
        peer = self.peers["gopeer"]
        await eventually(
            self.reactor,
            lambda: self._seesUs(peer),
            "the real node sees ours",
        )
        await peer.call("quit")
        await eventually(self.reactor, lambda: not node.peers(), "the peer is gone")

    async def _seesUs(self, peer: Any) -> bool:
        status = await peer.call("status")
        return any(
            p["name"] == "ours.tailnet.test" and p["online"] for p in status["peers"]
        )

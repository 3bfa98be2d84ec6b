"""Rules of the running node that no single part can keep alone."""

from __future__ import annotations

from twisted.internet.protocol import Factory, Protocol

from tsrt.config import NodeConfig
from tsrt.keys import DiscoKey
from tsrt.test.test_node import NodeTestCase
from tsrt.underlay.proxy import ProxySettings
from tsrt.wire.disco import MAGIC


class RuleTests(NodeTestCase):
    """Each test is named after the rule that it holds the node to."""

    def test_R_CFG_1_proxyCredentialsHidden(self) -> None:
        """The password of a proxy is in no repr of the configuration."""
        proxy = ProxySettings.fromEnvironment(
            {"HTTPS_PROXY": "http://me:hush-hush@proxy.example:3128"}
        )
        config = NodeConfig(proxy=proxy)
        self.assertIn("proxy.example", repr(config))
        self.assertNotIn("hush-hush", repr(config))
        self.assertNotIn("hush-hush", str(config))

    def test_R_KEY_3_discoKeyIsNotSaved(self) -> None:
        """Each run has another disco key, and none is in the state."""
        tailnet = self.tailnet("a", "b")
        keys = set()
        for _ in range(2):
            [seen] = [p for p in tailnet["b"].peers() if p.hostname == "a"]
            keys.add(seen.disco)
            for entry in ("_machinekey", "profile-tsrt", "_tsrt-logid"):
                saved = tailnet.states["a"].read(entry) or b""
                self.assertNotIn(seen.disco.text().partition(":")[2].encode(), saved)
            tailnet.wait(tailnet["a"].stopService())
            tailnet["a"].startService()
            tailnet.waitUp("a")
            tailnet.settle()
        self.assertEqual(len(keys), 2)

    def test_R_GLB_5_oneCrashStopsNobodyElse(self) -> None:
        """A user's code that fails everywhere stops nothing but itself."""
        tailnet = self.tailnet("a", "b")

        class Broken(Protocol):
            def connectionMade(self) -> None:
                raise ValueError("mine")

        self.serve(tailnet, "b", 7)
        self.successResultOf(
            tailnet["b"].serverEndpoint(8).listen(Factory.forProtocol(Broken))
        )

        def broken(status: object) -> None:
            raise ZeroDivisionError

        unwatch = tailnet["b"].watchStatus(broken)
        good = self.connect(tailnet, "a", "b", 7)
        bad = self.connect(tailnet, "a", "b", 8)
        tailnet.settle()
        self.assertIsNotNone(bad.reason)
        good.transport.write(b"still here")
        tailnet.settle(3)
        self.assertEqual(good.received, b"still here")
        unwatch()
        self.assertTrue(self.flushLoggedErrors(ValueError))
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_R_DERP_2_relayedDiscoIsSwallowed(self) -> None:
        """A disco message that comes by a relay is dropped, not answered."""
        tailnet = self.tailnet("a", "b")
        relays = tailnet["b"]._engine.relays
        key = next(p.key.raw for p in tailnet["b"].peers())
        tailnet.settle()
        relay = tailnet.relays[900].counters
        before = relay.delivered
        sender = DiscoKey.generate(tailnet.internet.randbytes).public().raw
        relays.send(900, key, [MAGIC + sender + bytes(24 + 16 + 46)])
        tailnet.elapse(5)
        self.assertEqual(relay.delivered, before + 1)  # the message, no answer
        self.assertEqual(tailnet["a"]._engine.datapath.counters.inboundPackets, 0)
        tailnet.wait(tailnet["a"].ping("b"))

    def test_R_DEV_1_listenersAreOnTheOverlayOnly(self) -> None:
        """A tailnet port opens nothing on the host."""
        tailnet = self.tailnet("a")
        before = list(tailnet.hosts["a"].ports)
        self.serve(tailnet, "a", 7)
        tailnet["a"].reactor.listenUDP(53, _Datagrams())
        self.assertEqual(list(tailnet.hosts["a"].ports), before)

    def test_T_homeOwner(self) -> None:
        """The home that control, status and relays know is one and the same."""
        tailnet = self.tailnet("a", regions=3)
        tailnet.elapse(120)
        home = tailnet["a"]._engine.relays.home
        [node] = tailnet.control.nodes()
        self.assertEqual(node.homeDERP, home)
        self.assertEqual(tailnet["a"].status.homeRegion, f"r{home}")

    def test_T_home_flagFollowsTheHome(self) -> None:
        """When the home relay is gone another becomes the home, for all."""
        tailnet = self.tailnet("a", "b", regions=2, direct=False)
        home = tailnet["a"]._engine.relays.home
        tailnet.wait(tailnet.relays[home].stopService())
        tailnet.wait(tailnet.stuns[home].stopService())
        tailnet.elapse(30)
        [other] = {900, 901} - {home}
        self.assertEqual(tailnet["a"]._engine.relays.home, other)
        result = tailnet.wait(tailnet["b"].ping("a"))
        self.assertEqual(result.path, f"relay r{other}")

    def test_T_shutdown(self) -> None:
        """A stop ends in bounded time though control and relays are gone."""
        tailnet = self.tailnet()
        node = tailnet.addNode("a", ephemeral=True)
        tailnet.waitUp("a")
        for host in tailnet.internet.hosts():
            if host is not tailnet.hosts["a"]:
                tailnet.internet.cut(host, tailnet.hosts["a"])
        began = tailnet.clock.seconds()
        tailnet.wait(node.stopService())
        self.assertLess(tailnet.clock.seconds() - began, 12.0)
        for host in tailnet.internet.hosts():
            if host is not tailnet.hosts["a"]:
                tailnet.internet.heal(host, tailnet.hosts["a"])


class _Datagrams:
    """A datagram protocol that does nothing."""

    def makeConnection(self, transport: object) -> None:
        """See L{twisted.internet.protocol.AbstractDatagramProtocol}."""

    def doStop(self) -> None:
        """See L{twisted.internet.protocol.AbstractDatagramProtocol}."""

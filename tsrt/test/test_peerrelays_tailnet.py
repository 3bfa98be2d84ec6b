"""Peer relays of whole nodes: two behind hard NATs, and one that relays for them."""

from __future__ import annotations

import json

from tsrt.addresses import AddrPort, parseAddress
from tsrt.test.faultworld import FaultTestCase, Stream
from tsrt.testing.clock import elapse
from tsrt.testing.peerrelay import PeerRelay, PeerRelayMachine
from tsrt.testing.tailnet import TestTailnet
from tsrt.wire import geneve
from tsrt.wire.classify import Kind

PORT = 40000


class PeerRelayTests(FaultTestCase):
    """Nodes C{a} and C{b} have no direct path; C{r} can be reached by anybody."""

    def setUp(self) -> None:
        self.net = TestTailnet(nodes={"a": "symmetric", "b": "symmetric", "r": "none"})
        self.addCleanup(self.net.close)
        self.serve("b")
        self.stream = Stream(self.net, "a", "b")
        self.addCleanup(self.stream.stop)
        self.net.elapse(5)
        self.assertTrue(self.path().startswith("relay "), self.path())

    def path(self) -> str:
        """How packets from C{a} go now, in words."""
        return self.net["a"].status.paths["b"].path

    def relayOn(self) -> PeerRelayMachine:
        """Let C{r} relay for all, and wait until packets go that way."""
        host = self.net.hosts["r"]
        machine = PeerRelayMachine(
            (AddrPort(parseAddress(host.addresses[0]), PORT),),
            now=self.net.clock.seconds,
            randbytes=self.net.internet.randbytes,
        )
        book = self.net["r"]._engine.paths.book
        book.relays = relay = PeerRelay(book, machine)
        relay.listen(host, PORT)
        self.grant(self.net["r"].status.addresses[0])
        return machine

    def grant(self, relay: str | None, **attributes: list[str]) -> None:
        """Say who relays, and what nodes have to know."""
        grants: list[object] = [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]
        if relay is not None:
            cap = {"tailscale.com/cap/relay": [{}]}
            grants.append({"src": ["*"], "dst": [relay], "app": cap})
        given = [{"target": ["*"], "attr": attr} for attr in attributes.values()]
        policy = {"grants": grants, "nodeAttrs": given}
        self.net.control.setPolicy(json.dumps(policy))

    def becomes(self, way: str, patience: float) -> None:
        """Wait until packets go some way."""
        end = self.net.clock.seconds() + patience
        while not self.path().startswith(way):
            self.assertLess(self.net.clock.seconds(), end, self.path())
            elapse(self.net.clock, 0.5)

    def test_used(self) -> None:
        """
        The stream moves to the relay when there is one, and back to DERP when
        it dies, and loses nothing.
        """
        machine = self.relayOn()
        self.becomes("peer-relay ", 40)
        self.net.elapse(5)
        carried = machine.carried
        self.assertGreater(carried, 10)
        shown = self.net["a"].status.paths["b"]
        self.assertTrue(shown.path.startswith("peer-relay "))
        self.assertIn("peer-relay ", shown.why)
        self.assertFalse(shown.isDirect)
        back = self.net.wait(self.net["b"].ping("a"))
        self.assertTrue(back.path.startswith("peer-relay "), back)
        machine.addresses = ()
        machine.forget()
        self.becomes("relay ", 15)
        self.assertInnocent()

    def test_rebootedRouter(self) -> None:
        """A router that forgets its mappings leads to another handshake."""
        self.relayOn()
        self.becomes("peer-relay ", 40)
        network = self.net.hosts["a"].network
        assert network is not None
        network.reboot()
        self.net.elapse(10)
        self.becomes("peer-relay ", 40)
        self.assertInnocent()

    def test_sleep(self) -> None:
        """After sleep the relay is used again at once."""
        self.relayOn()
        self.becomes("peer-relay ", 40)
        self.net.hosts["a"].sleep(600)
        self.stream.stop()
        self.net.elapse(601)
        self.becomes("peer-relay ", 10)
        self.assertInnocent(patience=60)

    def test_notGranted(self) -> None:
        """Whom no rule lets relay is not asked; nor whom one lets no more."""
        machine = self.relayOn()
        self.grant(None)
        self.net.elapse(60)
        self.assertTrue(self.path().startswith("relay "))
        self.assertEqual(machine.carried, 0)
        self.assertInnocent()

    def test_switchedOff(self) -> None:
        """The attribute disable-relay-client ends the use at once."""
        self.relayOn()
        self.becomes("peer-relay ", 40)
        self.grant(
            self.net["r"].status.addresses[0], attributes=["disable-relay-client"]
        )
        self.net.elapse(1)
        self.assertTrue(self.path().startswith("relay "))
        self.net.elapse(60)
        self.assertTrue(self.path().startswith("relay "))
        self.assertInnocent()

    def test_relayLeaves(self) -> None:
        """A relay that is taken out of the tailnet is asked no more."""
        self.relayOn()
        self.becomes("peer-relay ", 40)
        self.net.wait(self.net["r"].stopService())
        self.net.elapse(3)
        self.assertInnocent()

    def test_ping(self) -> None:
        """Whoever pings hears that a peer relay answered, and which."""
        self.relayOn()
        self.becomes("peer-relay ", 40)
        for kind in ("disco", "TSMP", "ICMP"):
            answer = self.net.wait(self.net["a"].ping("b", kind=kind))
            place, _, vni = answer.path.removeprefix("peer-relay ").partition(":vni:")
            self.assertTrue(place.endswith(f":{PORT}"), answer)
            self.assertEqual(vni, "1")

    def test_nonsense(self) -> None:
        """What is for relays and no disco is counted, and nothing else."""
        paths = self.net["a"]._engine.paths
        source = AddrPort(parseAddress(self.net.hosts["r"].addresses[0]), PORT)
        header = geneve.GeneveHeader(geneve.PROTOCOL_WIREGUARD, 5, True)
        paths._datagrams(source, Kind.GENEVE_WIREGUARD, [header.encode() + b"x"])
        self.assertDropped("a", "peerrelay", "Control", 1)
        self.assertInnocent()

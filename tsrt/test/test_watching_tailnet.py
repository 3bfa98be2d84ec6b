"""Watching a node: where it stands, what changes, and who it is to others."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory

from tsrt.errors import (
    AuthKeyInvalid,
    KeyExpired,
    NeedsApproval,
    NeedsLogin,
    NotRunning,
    StartupTimeout,
)
from tsrt.node import Node
from tsrt.runtime.devicestate import DeviceState, Phase
from tsrt.runtime.notify import Notify, NotifyBus, NotifyMask
from tsrt.runtime.preferences import Preferences
from tsrt.runtime.status import HealthWarning, NodeState, NodeStatus
from tsrt.test.faultworld import Echo, FaultTestCase, Gather
from tsrt.testing.control import ControlConfig, DNSSettings
from tsrt.testing.tailnet import TestTailnet
from tsrt.underlay.interfaces import InterfaceAddress


class DeviceStateTests(FaultTestCase):
    """L{DeviceState} and C{waitUntilRunning}."""

    def setUp(self) -> None:
        self.net = TestTailnet()
        self.addCleanup(self.net.close)

    def settled(self, waiting: Deferred[None], seconds: float = 30) -> list[Any]:
        """What became of a wait within some time."""
        results: list[Any] = []
        waiting.addCallbacks(
            results.append, lambda failure: results.append(failure.value)
        )
        self.net.elapse(seconds)
        return results

    def test_running(self) -> None:
        """It connects, and then it runs; who waits hears so."""
        node = self.net.addNode("a", start=False)
        self.assertIs(node.deviceState.phase, Phase.STOPPED)
        node.startService()
        self.assertEqual(node.deviceState, DeviceState(Phase.CONNECTING))
        self.assertEqual(self.settled(node.waitUntilRunning()), [None])
        self.assertEqual(node.deviceState, DeviceState(Phase.RUNNING))
        self.assertEqual(self.successResultOf(node.waitUntilRunning()), None)

    def test_notStarted(self) -> None:
        """There is nothing to wait for."""
        node = self.net.addNode("a", start=False)
        self.failureResultOf(node.waitUntilRunning(), NotRunning)

    def test_needsLogin(self) -> None:
        """A person has to act: it is told at once, and nothing is lost by it."""
        node = self.net.addNode("a", authKey=None)
        [error] = self.settled(node.waitUntilRunning())
        self.assertIsInstance(error, NeedsLogin)
        self.assertFalse(error.isPermanent)
        self.assertEqual(error.url, node.status.loginURL)
        self.assertEqual(node.deviceState.phase, Phase.NEEDS_LOGIN)
        self.assertEqual(node.deviceState.url, error.url)
        self.assertFalse(node.deviceState.isPermanent)

    def test_refused(self) -> None:
        """A refusal is permanent, with the words of control."""
        node = self.net.addNode("a", authKey="tskey-auth-wrong")
        [error] = self.settled(node.waitUntilRunning())
        self.assertIsInstance(error, AuthKeyInvalid)
        self.assertTrue(node.deviceState.isPermanent)
        self.assertIs(node.deviceState.phase, Phase.FAILED)
        self.assertIs(node.deviceState.error, error)

    def test_timeout(self) -> None:
        """Without a word from control the time-out counts."""
        node = self.net.addNode("a", controlURL="http://192.168.200.200")
        waiting = node.waitUntilRunning(timeout=5)
        self.net.elapse(4)
        self.assertNoResult(waiting)
        self.net.elapse(2)
        self.failureResultOf(waiting, StartupTimeout)
        given = node.waitUntilRunning(timeout=5)
        given.cancel()
        self.failureResultOf(given, CancelledError)

    def test_kinds(self) -> None:
        """All that there is, from the status alone."""
        for status, phase, error in (
            (
                NodeStatus(state=NodeState.NEEDS_MACHINE_AUTH),
                "NEEDS_APPROVAL",
                NeedsApproval,
            ),
            (NodeStatus(state=NodeState.RUNNING, expired=True), "EXPIRED", KeyExpired),
            (
                NodeStatus(state=NodeState.NEEDS_LOGIN, expired=True, loginURL="x"),
                "EXPIRED",
                KeyExpired,
            ),
        ):
            state = DeviceState.of(status)
            self.assertEqual(state.phase, Phase[phase])
            self.assertIsInstance(state.error, error)
            self.assertEqual(state.url, status.loginURL)

    def test_expiry(self) -> None:
        """A key that ends shows, and logging in again mends it."""
        node = self.net.addNode("a")
        self.net.waitUp("a")
        phases: list[Phase] = []
        self.addCleanup(
            node.watchStatus(lambda status: phases.append(node.deviceState.phase))
        )
        self.net.control.expireNode("a")
        self.net.elapse(60)
        self.assertIn(Phase.EXPIRED, phases)
        # The auth key is reusable, so that the node helps itself.
        self.assertIs(node.deviceState.phase, Phase.RUNNING)


class NotifyTests(FaultTestCase):
    """C{notifications}."""

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=["a"])
        self.addCleanup(self.net.close)
        self.node = self.net["a"]

    def test_initial(self) -> None:
        """The mask says what is told at once."""
        every = (
            NotifyMask.INITIAL_STATE
            | NotifyMask.INITIAL_PREFS
            | NotifyMask.INITIAL_NETMAP
            | NotifyMask.INITIAL_HEALTH
        )
        notify = self.successResultOf(self.node.notifications(every).next())
        self.assertEqual(
            notify,
            Notify(
                state=NodeState.RUNNING,
                prefs=self.node.preferences,
                netmap=self.node.netmap,
                health=(),
            ),
        )
        self.assertNoResult(self.node.notifications().next())

    def test_changes(self) -> None:
        """What changes is told, and only that."""
        stream = self.node.notifications()
        waiting = stream.next()
        self.assertNoResult(waiting)
        self.node.setPreferences(shieldsUp=True)
        self.assertEqual(
            self.successResultOf(waiting), Notify(prefs=self.node.preferences)
        )
        self.net.addNode("b")
        self.net.waitUp("b")
        notify = self.net.wait(stream.next())
        self.assertIsNotNone(notify.netmap)
        self.assertIsNone(notify.state)
        stopping = stream.next()
        self.net.wait(self.node.stopService())
        self.assertIs(self.net.wait(stopping).state, NodeState.STOPPED)

    def test_slowReader(self) -> None:
        """Whoever does not read has one piece waiting: the last of everything."""
        stream = self.node.notifications(NotifyMask.NO_NETMAP)
        for number in range(500):
            self.node.setPreferences(hostname=f"name{number}")
        self.node.setPreferences(exitNode="nobody")
        notify = self.successResultOf(stream.next())
        assert notify.prefs is not None and notify.health is not None
        self.assertEqual(notify.prefs, self.node.preferences)
        self.assertEqual([warning.code for warning in notify.health], ["exit-node"])
        self.assertIsNone(notify.netmap)
        self.assertNoResult(stream.next())

    def test_cancelled(self) -> None:
        """Giving up a wait loses nothing; two waits at once are a mistake."""
        stream = self.node.notifications()
        waiting = stream.next()
        self.assertRaises(RuntimeError, stream.next)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.node.setPreferences(shieldsUp=True)
        self.assertIsNotNone(self.successResultOf(stream.next()).prefs)

    def test_close(self) -> None:
        """A stream that is closed ends an iteration."""
        seen: list[Notify] = []

        async def read() -> str:
            async for notify in stream:
                seen.append(notify)
            return "done"

        stream = self.node.notifications()
        reading = Deferred.fromCoroutine(read())
        self.node.setPreferences(shieldsUp=True)
        stream.close()
        stream.close()
        self.assertEqual(self.successResultOf(reading), "done")
        self.assertEqual(len(seen), 1)
        self.failureResultOf(stream.next(), NotRunning)
        self.assertEqual(self.node._notifications._streams, [])

    def test_login(self) -> None:
        """A page to open is told, and that it was."""
        node = self.net.addNode("c", authKey=None, start=False)
        stream = node.notifications()
        node.startService()
        self.net.elapse(5)
        notify = self.successResultOf(stream.next())
        self.assertEqual(notify.browseToURL, node.status.loginURL)
        self.assertIs(notify.state, NodeState.NEEDS_LOGIN)
        self.net.control.approve(node.status.loginURL)
        self.net.waitUp("c")
        notify = self.successResultOf(stream.next())
        self.assertTrue(notify.loginFinished)
        self.assertIs(notify.state, NodeState.RUNNING)

    def test_health(self) -> None:
        """So is what is wrong, with its code."""
        bus = NotifyBus()
        stream = bus.open(0, Preferences(hostname="x"), None)
        warning = HealthWarning("odd", "this is odd")
        bus.statusChanged(NodeStatus(warnings=(warning,)))
        self.assertEqual(self.successResultOf(stream.next()).health, (warning,))


class LoginTests(FaultTestCase):
    """Logging in again, and tokens."""

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=["a", "b"])
        self.addCleanup(self.net.close)
        self.node = self.net["a"]

    def test_again(self) -> None:
        """A new node key while the node runs; its connections go on."""
        self.serve("b")
        stream = self.connect("a", "b")
        before = self.node.netmap.selfNode.key
        self.net.wait(self.node.login())
        self.net.settle(3)
        self.assertNotEqual(self.node.netmap.selfNode.key, before)
        self.assertTrue(self.node.status.isRunning)
        self.assertEqual(len(self.net.control.nodes()), 2)
        self.net.elapse(30)
        stream.transport.write(b"still here")
        self.net.elapse(10)
        self.assertIn(b"still here", bytes(stream.received))

    def test_refused(self) -> None:
        """A key that is no good changes nothing."""
        before = self.node.netmap.selfNode.key
        failed = self.node.login("tskey-auth-wrong")
        self.net.elapse(10)
        self.failureResultOf(failed, AuthKeyInvalid)
        self.assertEqual(self.node.netmap.selfNode.key, before)
        self.assertTrue(self.node.status.isRunning)

    def test_idToken(self) -> None:
        """Control says for an audience who this node is."""
        token = self.net.wait(self.node.idToken("https://example.com"))
        payload = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        self.assertEqual(claims["aud"], ["https://example.com"])
        self.assertIn("a.tailnet.test", json.dumps(claims))

    def test_notRunning(self) -> None:
        """A node that is not started can neither log in nor get tokens."""
        node = self.net.addNode("c", start=False)
        self.assertRaises(NotRunning, node.login)
        self.assertRaises(NotRunning, node.idToken, "x")

    def test_tags(self) -> None:
        """Tags are asked for at once, in one update."""
        self.node.setPreferences(advertiseTags=["tag:web"], hostname="web")
        self.net.settle(2)
        [record] = [n for n in self.net.control.nodes() if n.hostinfo.hostname == "web"]
        self.assertEqual(record.hostinfo.requestTags, ["tag:web"])


class DNSTests(FaultTestCase):
    """C{acceptDNS}."""

    def test_acceptDNS(self) -> None:
        """Without it there are the names of nodes, and no others."""
        records = (("printer.example.com", "A", "100.64.0.9"),)
        net = TestTailnet(
            nodes=["a", "b"], config=ControlConfig(dns=DNSSettings(records=records))
        )
        self.addCleanup(net.close)
        resolve = net["a"]._overlay.resolve
        self.assertTrue(resolve("printer.example.com"))
        net["a"].setPreferences(acceptDNS=False)
        self.assertEqual(resolve("printer.example.com"), [])
        self.assertTrue(resolve("b"))
        self.assertTrue(resolve("b.tailnet.test"))
        net["a"].setPreferences(acceptDNS=True)
        self.assertTrue(resolve("printer.example.com"))


class LANTests(FaultTestCase):
    """C{exitNodeAllowLANAccess}."""

    near = "192.168.7.9"
    away = "192.168.8.9"

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=["a", "x"])
        self.addCleanup(self.net.close)
        self.node: Node = self.net["a"]
        self.visitors: list[str] = []
        for name, address in (
            ("near", self.near),
            ("away", self.away),
            ("meta", "169.254.169.254"),
        ):
            factory = Factory()
            factory.buildProtocol = self.visited
            self.net.internet.host(name, [address]).listenTCP(80, factory)
        self.net["x"].setPreferences(advertiseExitNode=True)
        self.net.settle(2)
        self.net.control.approveRoutes("x")
        self.net.settle(2)
        found = [
            InterfaceAddress(bytes((192, 168, 7, 1)), 24, "eth0"),
            InterfaceAddress(bytes((169, 254, 3, 1)), 16, "eth1"),
            InterfaceAddress(bytes((203, 0, 113, 1)), 24, "eth2"),
        ]
        self.node.reactor._past._interfaces = lambda: found

    def visited(self, addr: Any) -> Echo:
        self.visitors.append(addr.host)
        return Echo()

    def reaches(self, address: str) -> bool:
        """Whether a connection by the node gets there, past the tailnet."""
        before = len(self.visitors)
        attempt = self.node.clientEndpoint(address, 80, timeout=3).connect(
            Factory.forProtocol(Gather)
        )
        attempt.addErrback(lambda failure: None)
        self.net.elapse(4)
        return len(self.visitors) > before

    def test_only(self) -> None:
        """Only when asked for, with an exit node, and only to hosts nearby."""
        self.assertFalse(self.reaches(self.near))
        self.node.setPreferences(exitNode="x")
        self.assertFalse(self.reaches(self.near))
        self.node.setPreferences(exitNodeAllowLANAccess=True)
        self.assertTrue(self.reaches(self.near))
        for address in (self.away, "169.254.169.254", "203.0.113.9", "127.0.0.1"):
            self.assertFalse(self.node.reactor._past.covers(address), address)
            self.assertFalse(self.reaches(address), address)
        self.assertFalse(self.node.reactor._past.covers("near"))
        self.node.setPreferences(exitNode=None)
        self.assertFalse(self.reaches(self.near))

    def test_R_GLB_4_stillClosed(self) -> None:
        """With an exit node that is not there the LAN is reached, and nothing else."""
        self.node.setPreferences(exitNode="nobody", exitNodeAllowLANAccess=True)
        self.assertTrue(self.reaches(self.near))
        self.assertFalse(self.reaches(self.away))

    def test_peersFirst(self) -> None:
        """A network to which a peer leads is reached by the peer."""
        self.net["x"].setPreferences(advertiseRoutes=["192.168.7.0/24"])
        self.net.settle(2)
        self.net.control.approveRoutes("x")
        self.net.settle(2)
        self.node.setPreferences(exitNode="x", exitNodeAllowLANAccess=True)
        self.assertTrue(self.node.reactor._past.covers(self.near))
        self.node.setPreferences(acceptRoutes=True)
        self.assertFalse(self.node.reactor._past.covers(self.near))

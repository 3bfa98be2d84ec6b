"""Tests for L{tsrt.node}, on a whole tailnet under simulated time."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost, DNSLookupError, TimeoutError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tsrt.config import NodeConfig
from tsrt.errors import (
    AuthKeyExpired,
    AuthKeyInvalid,
    AuthKeyUsed,
    ConfigError,
    NeedsLogin,
    NotRunning,
    StartupTimeout,
    StateCorrupt,
    StateLocked,
    TagsRefused,
    UnknownPeer,
)
from tsrt.failures import NoSuchPeer, TailnetTimeout
from tsrt.node import Node
from tsrt.runtime.pings import PingKind
from tsrt.runtime.prompt import LogPrompt
from tsrt.runtime.status import NodeState
from tsrt.state import FileStateStore, MemoryStateStore
from tsrt.testing.control import ControlConfig, RegistrationOptions
from tsrt.testing.tailnet import TestTailnet


class Gather(Protocol):
    """Keeps what it gets, and how it ended."""

    def __init__(self) -> None:
        self.received = b""
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


class Echo(Protocol):
    """Sends back what it gets."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class NodeTestCase(SynchronousTestCase):
    """Makes tailnets that are checked for leftovers at the end."""

    def tailnet(self, *names: str, **arguments: object) -> TestTailnet:
        """A tailnet with nodes of these names, which are up."""
        tailnet = TestTailnet(nodes=names, **arguments)
        self.addCleanup(tailnet.close)
        return tailnet

    def connect(self, tailnet: TestTailnet, source: str, host: str, port: int = 7):
        """Connect from a node; return the protocol."""
        connecting = (
            tailnet[source]
            .clientEndpoint(host, port, timeout=20)
            .connect(Factory.forProtocol(Gather))
        )
        return tailnet.wait(connecting)

    def serve(self, tailnet: TestTailnet, name: str, port: int = 7) -> None:
        """Echo on a port of a node."""
        listening = tailnet[name].serverEndpoint(port).listen(Factory.forProtocol(Echo))
        self.successResultOf(listening)


class LifeTests(NodeTestCase):
    """Nodes come up, talk, and go."""

    def test_up(self) -> None:
        """A node with an auth key comes up with both addresses and a name."""
        tailnet = self.tailnet("a")
        status = tailnet["a"].status
        self.assertIs(status.state, NodeState.RUNNING)
        self.assertEqual(status.addresses, ("100.64.0.1", "fd7a:115c:a1e0::1"))
        self.assertEqual(status.name, "a.tailnet.test")
        self.assertEqual(status.homeRegion, "r900")
        self.assertEqual(status.health, ())
        self.assertTrue(status.isRunning)

    def test_R_CTL_1_runningNeedsANetmap(self) -> None:
        """Nobody is told of a running node before its netmap is there."""
        tailnet = self.tailnet()
        node = tailnet.addNode("a", start=False)
        seen = []
        node.watchStatus(lambda s: seen.append((s.state, s.addresses)))
        node.startService()
        tailnet.waitUp("a")
        for state, addresses in seen:
            if state is NodeState.RUNNING:
                self.assertEqual(len(addresses), 2)
        self.assertIs(seen[-1][0], NodeState.RUNNING)

    def test_talk(self) -> None:
        """A connection by MagicDNS name carries data both ways."""
        tailnet = self.tailnet("a", "b")
        self.serve(tailnet, "b")
        for name in ("b", "B.tailnet.test.", "100.64.0.2", "fd7a:115c:a1e0::2"):
            client = self.connect(tailnet, "a", name)
            client.transport.write(b"x" * 100_000)
            tailnet.settle(3)
            self.assertEqual(client.received, b"x" * 100_000)
            client.transport.loseConnection()
        tailnet.settle()

    def test_pingKinds(self) -> None:
        """All kinds of pings are answered, by relay and directly."""
        for direct, path in ((False, "relay r900"), (True, "direct 198.18.0.")):
            tailnet = TestTailnet(nodes=["a", "b"], direct=direct)
            tailnet.wait(tailnet["a"].ping("b"))
            tailnet.settle()
            for kind in ("disco", "tsmp", PingKind.ICMP):
                result = tailnet.wait(tailnet["a"].ping("b", kind=kind))
                self.assertEqual(result.name, "b.tailnet.test")
                self.assertTrue(result.path.startswith(path), result)
                self.assertLess(result.seconds, 0.1)
            tailnet.close()

    def test_staticEndpoints(self) -> None:
        """Peers are told of configured endpoints, and of no useless ones."""
        tailnet = self.tailnet("a")
        tailnet.addNode("b", staticEndpoints=["203.0.113.7:4000"], port=5000)
        tailnet.waitUp("b")
        tailnet.settle()
        [peer] = tailnet["a"].peers()
        address = tailnet.hosts["b"].addresses[0]
        self.assertEqual(set(peer.endpoints), {"203.0.113.7:4000", f"{address}:5000"})

    def test_pingKindErrors(self) -> None:
        """Peers that do not answer, and those that cannot, are errors."""
        tailnet = self.tailnet("a", "b")
        node = tailnet["a"]
        tailnet.wait(tailnet["b"].stopService())
        for kind in ("disco", "tsmp"):
            with self.assertRaises(TailnetTimeout):
                tailnet.wait(node.ping("100.64.0.2", kind=kind))
            with self.assertRaises(NoSuchPeer):
                tailnet.wait(node.ping("100.64.0.1", kind=kind))
            waiting = node.ping("100.64.0.2", kind=kind)
            tailnet.elapse(1.5)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        self.assertRaises(ConfigError, node.ping, "b", kind="carrier pigeon")

    def test_ping(self) -> None:
        """A ping tells round-trip time and path; unknown names are errors."""
        tailnet = self.tailnet("a", "b", direct=False)
        result = tailnet.wait(tailnet["a"].ping("b"))
        self.assertEqual(result.address, "100.64.0.2")
        self.assertEqual(result.name, "b.tailnet.test")
        self.assertEqual(result.path, "relay r900")
        self.assertGreater(result.seconds, 0)
        with self.assertRaises(NoSuchPeer):
            tailnet.wait(tailnet["a"].ping("c"))
        self.assertTrue(issubclass(NoSuchPeer, DNSLookupError))

    def test_pingOfAStoppedPeer(self) -> None:
        """A peer that does not answer is a time-out that names it."""
        tailnet = self.tailnet("a", "b")
        tailnet.wait(tailnet["b"].stopService())
        with self.assertRaises(TailnetTimeout) as raised:
            tailnet.wait(tailnet["a"].ping("100.64.0.2"))
        self.assertIn("100.64.0.2", str(raised.exception))
        self.assertTrue(issubclass(TailnetTimeout, TimeoutError))

    def test_whois(self) -> None:
        """An address leads to node, user and capabilities; others are errors."""
        tailnet = self.tailnet("a", "b")
        found = tailnet["a"].whois("100.64.0.2")
        self.assertEqual(found.node.name, "b.tailnet.test")
        self.assertEqual(found.user, "user@tailnet.test")
        self.assertFalse(found.can("nothing"))
        for address in ("100.64.0.9", "nonsense", ""):
            self.assertRaises(UnknownPeer, tailnet["a"].whois, address)

    def test_whoisOfACaller(self) -> None:
        """What getPeer gives is good for whois."""
        tailnet = self.tailnet("a", "b")
        self.serve(tailnet, "b")
        client = self.connect(tailnet, "a", "b")
        found = tailnet["a"].whois(client.transport.getPeer())
        self.assertEqual(found.node.name, "b.tailnet.test")

    def test_peersComeAndGo(self) -> None:
        """The peers are those that control has."""
        tailnet = self.tailnet("a")
        self.assertEqual(tailnet["a"].peers(), ())
        tailnet.addNode("b")
        tailnet.waitUp("b")
        tailnet.settle()
        self.assertEqual([p.hostname for p in tailnet["a"].peers()], ["b"])
        tailnet.wait(tailnet["b"].stopService())
        tailnet.control.deleteNode("b")
        tailnet.settle()
        self.assertEqual(tailnet["a"].peers(), ())

    def test_R_DEV_2_unknownNameAsksNobody(self) -> None:
        """A name that is not in the netmap fails without the host's resolver."""
        tailnet = self.tailnet("a")
        tailnet.internet.register("example.com", "192.168.254.1")
        with self.assertRaises(DNSLookupError):
            self.connect(tailnet, "a", "example.com")

    def test_connectionsEndWithTheNode(self) -> None:
        """A stop says goodbye on every connection."""
        tailnet = self.tailnet("a", "b")
        self.serve(tailnet, "b")
        client = self.connect(tailnet, "a", "b")
        tailnet.wait(tailnet["b"].stopService())
        tailnet.settle()
        self.assertIsNotNone(client.reason)
        self.assertFalse(client.reason.check(ConnectionLost))

    def test_nothingWrittenIsLostByAStop(self, **settings: object) -> None:
        """What was written before a stop still arrives."""
        tailnet = self.tailnet("b")
        tailnet.addNode("a", **settings)
        tailnet.waitUp("a")
        received = []

        class Sink(Gather):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                received.append(self.received)

        self.successResultOf(
            tailnet["b"].serverEndpoint(7).listen(Factory.forProtocol(Sink))
        )
        client = self.connect(tailnet, "a", "b")
        client.transport.write(b"y" * 50_000)
        tailnet.wait(tailnet["a"].stopService())
        tailnet.settle()
        self.assertEqual(received, [b"y" * 50_000])

    def test_nothingWrittenIsLostByLeaving(self) -> None:
        """An ephemeral node says goodbye on its connections before it leaves."""
        self.test_nothingWrittenIsLostByAStop(ephemeral=True)


class StartStopTests(NodeTestCase):
    """A node may be stopped at any time, and started again."""

    def test_startStopStart(self) -> None:
        """Three lives of one node have the same name and addresses."""
        tailnet = self.tailnet("a", "b")
        self.serve(tailnet, "b")
        first = tailnet["b"].status
        for _ in range(2):
            tailnet.wait(tailnet["b"].stopService())
            self.assertIs(tailnet["b"].status.state, NodeState.STOPPED)
            tailnet["b"].startService()
            second = tailnet.wait(tailnet["b"].up())
            self.assertEqual(second.addresses, first.addresses)
            self.assertEqual(second.name, first.name)
        client = self.connect(tailnet, "a", "b")
        client.transport.write(b"still there")
        tailnet.settle(3)
        self.assertEqual(client.received, b"still there")

    def test_stopAtEveryMoment(self) -> None:
        """Whenever a start is interrupted, nothing is left of it."""
        tailnet = self.tailnet("other")
        quiet = None
        for step in range(60):
            node = tailnet.addNode("a", start=False)
            node.startService()
            tailnet.elapse(step * 0.013)
            tailnet.wait(node.stopService())
            tailnet.elapse(2.0)
            if node.status.error is not None:
                self.fail(f"after {step} steps: {node.status.error}")
            left = len(tailnet.clock.getDelayedCalls())
            quiet = left if quiet is None else quiet
            self.assertLessEqual(left, quiet + 2, tailnet.clock.getDelayedCalls())

    def test_stopTwice(self) -> None:
        """A second stop waits for the first; one of a stopped node is nothing."""
        tailnet = self.tailnet("a")
        one, two = tailnet["a"].stopService(), tailnet["a"].stopService()
        tailnet.wait(one)
        tailnet.wait(two)
        self.successResultOf(tailnet["a"].stopService())

    def test_asyncWith(self) -> None:
        """A node is started and stopped by C{async with}."""
        tailnet = self.tailnet()
        node = tailnet.addNode("a", start=False)

        async def life() -> NodeState:
            async with node:
                await node.up()
                return node.status.state

        from twisted.internet.defer import Deferred

        self.assertIs(tailnet.wait(Deferred.fromCoroutine(life())), NodeState.RUNNING)
        self.assertIs(node.status.state, NodeState.STOPPED)

    def test_upOfAStoppedNode(self) -> None:
        """Waiting for a node that nobody started is an error."""
        tailnet = self.tailnet()
        node = tailnet.addNode("a", start=False)
        self.failureResultOf(node.up(), NotRunning)

    def test_upCancelled(self) -> None:
        """Cancelling stops waiting, not the node."""
        tailnet = self.tailnet()
        node = tailnet.addNode("a")
        waiting = node.up()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        tailnet.waitUp("a")

    def test_manyNodes(self) -> None:
        """Twenty nodes share one process and all reach each other."""
        names = [f"n{i}" for i in range(20)]
        tailnet = self.tailnet(*names)
        self.assertEqual(len(tailnet["n0"].peers()), 19)
        for name in names[1:]:
            tailnet.wait(tailnet["n0"].ping(name))

    def test_memoryStateNeedsEphemeral(self) -> None:
        """Keys that are lost at each stop are for ephemeral nodes only."""
        self.assertRaises(
            ConfigError, Node, Clock(), NodeConfig(), state=MemoryStateStore()
        )


class StateTests(NodeTestCase):
    """Keys survive; damaged or shared ones are errors."""

    def test_twoNodesOnOneDirectory(self) -> None:
        """The second node on a directory fails with an error that says so."""
        tailnet = self.tailnet()
        directory = self.mktemp()
        tailnet.addNode("a", state=FileStateStore(directory))
        tailnet.waitUp("a")
        second = tailnet.addNode("b", state=FileStateStore(directory))
        self.failureResultOf(second.up(), StateLocked)
        self.assertIsInstance(second.status.error, StateLocked)

    def test_damagedState(self) -> None:
        """A damaged state file stops the node and is left as it is."""
        tailnet = self.tailnet()
        path = Path(self.mktemp())
        path.mkdir()
        (path / "tailscaled.state").write_text("{half")
        node = tailnet.addNode("a", state=FileStateStore(path))
        self.failureResultOf(node.up(), StateCorrupt)
        self.assertEqual((path / "tailscaled.state").read_text(), "{half")

    def test_damagedEntries(self) -> None:
        """Each damaged entry is an error, and the store is free again."""
        for name, value in (
            ("_machinekey", b"privkey:12"),
            ("profile-tsrt", b"{"),
            ("profile-tsrt", b'{"ControlURL": "x", "Config": 3}'),
            ("_tsrt-timestamp", b"short"),
        ):
            store = MemoryStateStore()
            store.open()
            store.write(name, value)
            store.close()
            tailnet = TestTailnet()
            node = tailnet.addNode("a", state=store, ephemeral=True)
            self.failureResultOf(node.up(), StateCorrupt)
            store.open()
            store.close()
            tailnet.close()

    def test_savedKeyBeatsStaleAuthKey(self) -> None:
        """A node with a valid node key needs no auth key."""
        tailnet = self.tailnet("a")
        before = tailnet["a"].status
        tailnet.wait(tailnet["a"].stopService())
        tailnet.addNode("a", authKey="tskey-garbage")
        [after] = tailnet.waitUp("a")
        self.assertEqual(before.addresses, after.addresses)

    def test_nodeDeletedAtControl(self) -> None:
        """A node that control has forgotten registers afresh."""
        tailnet = self.tailnet("a")
        tailnet.wait(tailnet["a"].stopService())
        tailnet.control.deleteNode("a")
        tailnet["a"].startService()
        [status] = tailnet.waitUp("a")
        self.assertEqual(status.name, "a.tailnet.test")

    def test_otherControlServer(self) -> None:
        """The key of one control server is not shown to another."""
        store = MemoryStateStore()
        store.isPersistent = True
        one = self.tailnet()
        one.addNode("a", state=store)
        one.waitUp("a")
        one.wait(one["a"].stopService())
        keys = store.read("profile-tsrt")
        two = self.tailnet()
        two.addNode("a", state=store, controlURL="http://192.168.255.1:80")
        two.waitUp("a")
        self.assertNotEqual(keys, store.read("profile-tsrt"))


class LoginTests(NodeTestCase):
    """Every way in, and every refusal."""

    def refused(self, kind: type[Exception], **settings: object) -> Exception:
        """The error that a node with C{settings} ends with, within 2 s."""
        tailnet = self.tailnet()
        if callable(settings.get("authKey")):
            settings["authKey"] = settings["authKey"](tailnet)
        node = tailnet.addNode("a", **settings)
        began = tailnet.clock.seconds()
        with self.assertRaises(kind) as raised:
            tailnet.wait(node.up())
        self.assertLess(tailnet.clock.seconds() - began, 2.0)
        self.assertIs(node.status.state, NodeState.STOPPED)
        self.assertTrue(raised.exception.isPermanent)
        self.assertTrue(raised.exception.advice)
        requests = len(tailnet.control.nodes())
        tailnet.elapse(120)
        self.assertEqual(len(tailnet.control.nodes()), requests)
        return raised.exception

    def test_unknownKey(self) -> None:
        """An unknown key is refused for good."""
        self.refused(AuthKeyInvalid, authKey="tskey-nobody-knows")

    def test_connectingAfterRefusal(self) -> None:
        """Who connects on a node that has given up is told why, at once."""
        tailnet = self.tailnet()
        node = tailnet.addNode("a", authKey="tskey-nobody-knows")
        with self.assertRaises(AuthKeyInvalid):
            tailnet.wait(node.up())
        connecting = node.clientEndpoint("b", 7).connect(Factory.forProtocol(Gather))
        self.failureResultOf(connecting, AuthKeyInvalid)

    def test_expiredKey(self) -> None:
        """An expired key is refused for good."""
        self.refused(
            AuthKeyExpired,
            authKey=lambda t: t.control.createAuthKey(lifetime=-1.0).secret,
        )

    def test_usedKey(self) -> None:
        """A used one-time key is refused for good."""

        def used(tailnet: TestTailnet) -> object:
            key = tailnet.control.createAuthKey().secret
            tailnet.addNode("first", authKey=key)
            tailnet.waitUp("first")
            return key

        self.refused(AuthKeyUsed, authKey=used)

    def test_refusedTags(self) -> None:
        """Tags that the policy does not give are refused for good."""
        self.refused(TagsRefused, advertiseTags=["tag:server"])

    def test_interactive(self) -> None:
        """Without a key a URL is shown once; approving it lets the node in."""
        tailnet = self.tailnet()
        shown = []

        class Prompt(LogPrompt):
            def loginRequired(self, url: str) -> None:
                shown.append(url)

            def loginCompleted(self) -> None:
                shown.append("done")

        node = tailnet.addNode("a", authKey=None, login=Prompt())
        with self.assertRaises(NeedsLogin) as raised:
            tailnet.wait(node.up(timeout=5))
        [url] = shown
        self.assertEqual(node.status.loginURL, url)
        self.assertIs(node.status.state, NodeState.NEEDS_LOGIN)
        self.assertIn(url, str(raised.exception))
        waiting = node.up()
        tailnet.elapse(300)
        self.assertNoResult(waiting)
        self.assertEqual(shown, [url])
        tailnet.control.approve(url)
        tailnet.wait(waiting)
        self.assertEqual(shown, [url, "done"])
        self.assertEqual(node.status.loginURL, "")

    def test_T_approval(self) -> None:
        """A machine that waits for approval comes up when it is given."""
        config = ControlConfig(registration=RegistrationOptions(requireApproval=True))
        tailnet = self.tailnet(config=config)
        key = tailnet.control.createAuthKey(preApproved=False).secret
        node = tailnet.addNode("a", authKey=key)
        tailnet.elapse(10)
        self.assertIs(node.status.state, NodeState.NEEDS_MACHINE_AUTH)
        tailnet.control.approveNode("a")
        tailnet.wait(node.up())

    def test_logout(self) -> None:
        """After a logout the key is gone here and of no use there."""
        tailnet = self.tailnet("a")
        node = tailnet["a"]
        tailnet.wait(node.logout())
        tailnet.wait(node.stopService())
        self.assertIsNone(tailnet.states["a"].read("profile-tsrt"))

    def test_ephemeral(self) -> None:
        """An ephemeral node is gone from control's list when it has stopped."""
        tailnet = self.tailnet("other")
        tailnet.addNode("a", ephemeral=True)
        tailnet.waitUp("a")
        self.assertEqual(len(tailnet.control.nodes()), 2)
        began = tailnet.clock.seconds()
        tailnet.wait(tailnet["a"].stopService())
        self.assertLess(tailnet.clock.seconds() - began, 3.0)
        self.assertEqual(len(tailnet.control.nodes()), 1)
        tailnet.settle()
        self.assertEqual(tailnet["other"].peers(), ())

    def test_unreachableControl(self) -> None:
        """The time-out of an unreachable server lists what was tried."""
        tailnet = self.tailnet()
        node = tailnet.addNode("a", controlURL="http://192.168.77.77:1234")
        with self.assertRaises(StartupTimeout) as raised:
            tailnet.wait(node.up(), limit=120)
        text = str(raised.exception)
        self.assertIn("60 seconds", text)
        self.assertIn("TCP", text)
        self.assertTrue(node.status.health)

    def test_unreachableRelay(self) -> None:
        """The time-out of a node without a relay names the relay."""
        tailnet = self.tailnet()
        for relay in tailnet.relays.values():
            tailnet.wait(relay.stopService())
        node = tailnet.addNode("a")
        with self.assertRaises(StartupTimeout) as raised:
            tailnet.wait(node.up(), limit=120)
        self.assertIn("DERP", str(raised.exception))
        self.assertIn("first netmap: ok", str(raised.exception))


class SurvivalTests(NodeTestCase):
    """What happens to the world, and what does not happen to connections."""

    def setUp(self) -> None:
        self.net = self.tailnet("a", "b")
        self.serve(self.net, "b")
        self.client = self.connect(self.net, "a", "b")

    def check(self, patience: float = 30.0) -> None:
        """The connection still carries data."""
        before = len(self.client.received)
        self.client.transport.write(b"ping")
        self.net.elapse(patience)
        self.assertEqual(self.client.received[before:], b"ping")

    def test_relayRestart(self) -> None:
        """A relay that restarts breaks no TCP connection."""
        self.net.relays[900].restart()
        self.check()

    def test_controlRestart(self) -> None:
        """A control server that goes away breaks nothing, and is found again."""
        self.net.wait(self.net.control.stopService())
        self.net.elapse(30)
        self.check()
        self.assertTrue(self.net["a"].status.health)
        self.net.control.startService()
        self.net.elapse(60)
        self.assertEqual(self.net["a"].status.health, ())

    def test_idleForAnHour(self) -> None:
        """An idle connection is good after an hour."""
        self.net.elapse(3600)
        self.check()

    def test_rekey(self) -> None:
        """Sessions are renewed under a connection that is in use."""
        for _ in range(12):
            self.net.elapse(60)
            self.check(5)

    def test_policyChange(self) -> None:
        """A policy that still allows the connection leaves it alone."""
        self.net.control.setPolicy(
            '{"hosts": {"a": "100.64.0.1", "b": "100.64.0.2"}, "acls": ['
            '{"action": "accept", "src": ["a"], "dst": ["b:7"]}]}'
        )
        self.net.elapse(5)
        self.check(5)
        connecting = (
            self.net["b"]
            .clientEndpoint("100.64.0.1", 7, timeout=5)
            .connect(Factory.forProtocol(Gather))
        )
        with self.assertRaises(TimeoutError):
            self.net.wait(connecting)


class FilterTests(NodeTestCase):
    """The packet filter, closed unless control opens it."""

    POLICY = """{
        // a may reach port 7 of everybody; nobody else may do anything
        "hosts": {"a": "100.64.0.1"},
        "acls": [{"action": "accept", "src": ["a"], "dst": ["*:7"]}],
    }"""

    def test_T_stateful(self) -> None:
        """Answers to what a node began pass; what others begin does not."""
        tailnet = self.tailnet("a", "b", config=ControlConfig(policy=self.POLICY))
        self.serve(tailnet, "b", 7)
        self.serve(tailnet, "b", 8)
        self.serve(tailnet, "a", 7)
        client = self.connect(tailnet, "a", "100.64.0.2", 7)
        client.transport.write(b"allowed")
        tailnet.settle(3)
        self.assertEqual(client.received, b"allowed")
        for source, host, port in (("a", "100.64.0.2", 8), ("b", "100.64.0.1", 7)):
            connecting = (
                tailnet[source]
                .clientEndpoint(host, port, timeout=5)
                .connect(Factory.forProtocol(Gather))
            )
            with self.assertRaises(TimeoutError):
                tailnet.wait(connecting)

    def test_R_DP_1_closedWithoutAFilter(self) -> None:
        """An empty filter lets nothing in."""
        policy = """{"hosts": {"a": "100.64.0.1", "b": "100.64.0.2"},
            "acls": [{"action": "accept", "src": ["b"], "dst": ["a:*"]}]}"""
        tailnet = self.tailnet("a", "b", config=ControlConfig(policy=policy))
        self.serve(tailnet, "b", 7)
        connecting = (
            tailnet["a"]
            .clientEndpoint("100.64.0.2", 7, timeout=5)
            .connect(Factory.forProtocol(Gather))
        )
        with self.assertRaises(TimeoutError):
            tailnet.wait(connecting)


class SecretTests(NodeTestCase):
    """Secrets stay secret."""

    def test_T_secrets_notInTheLog(self) -> None:
        """No key is in any log event of two nodes' lives, at any level."""
        lines: list[str] = []

        def observe(event: dict[str, object]) -> None:
            lines.append(repr(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        tailnet = self.tailnet("a", "b")
        self.serve(tailnet, "b")
        client = self.connect(tailnet, "a", "b")
        client.transport.write(b"x")
        tailnet.elapse(200)
        tailnet.wait(tailnet["a"].logout())
        tailnet.wait(tailnet["a"].stopService())
        secrets = [tailnet.authKey.text]
        for name in ("a", "b"):
            for entry in ("_machinekey", "profile-tsrt"):
                value = tailnet.states[name].read(entry) or b""
                for word in value.decode().replace('"', " ").split():
                    if word.startswith(("privkey:", "nlpriv:")):
                        secrets.append(word.partition(":")[2])
        self.assertGreater(len(secrets), 4)
        log = "\n".join(lines)
        self.assertGreater(len(lines), 10)
        for secret in secrets:
            self.assertNotIn(secret, log)

"""
The control client against the embedded control server, over a simulated
internet: two independent readings of one protocol.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tsrt.control.c2n import C2NSources
from tsrt.control.loginmachine import LoginState
from tsrt.control.service import ControlService
from tsrt.control.settings import ControlSettings, Identity
from tsrt.errors import AuthKeyExpired, AuthKeyInvalid, AuthKeyUsed, TagsRefused
from tsrt.keys import Secret
from tsrt.netmap.delta import MapState
from tsrt.tailcfg import Hostinfo, MapResponse, NetInfo
from tsrt.test.controlharness import Observer, makeIdentity
from tsrt.test.controlpeer import fixedBytes
from tsrt.testing.clock import elapse, pump, resultOf
from tsrt.testing.control import (
    ControlConfig,
    ControlServer,
    RegistrationOptions,
    wallClock,
)
from tsrt.testing.internet import Link, MemoryInternet
from tsrt.underlay.dial import StreamDialer


class MapObserver(Observer):
    """Keeps the netmap as well."""

    def __init__(self) -> None:
        super().__init__()
        self.state = MapState()

    def mapStarted(self, resumed: bool) -> None:
        super().mapStarted(resumed)
        if not resumed:
            self.state.newPoll()

    def mapResponse(self, response: MapResponse) -> None:
        super().mapResponse(response)
        self.state.apply(response, 0.0)


class DevServerTestCase(SynchronousTestCase):
    """Client and server of this package together."""

    registration = RegistrationOptions()
    delay = 0.02

    def setUp(self) -> None:
        self.clock = Clock()
        self.internet = MemoryInternet(self.clock, seed=1, link=Link(delay=self.delay))
        host = self.internet.host("control", ["192.0.2.1"])
        self.internet.register("control.example", "192.0.2.1")
        self.server = ControlServer(
            host,
            TCP4ServerEndpoint(host, 80, interface="192.0.2.1"),
            ControlConfig(host="control.example", registration=self.registration),
            randbytes=fixedBytes(3),
        )
        self.server.startService()
        resultOf(self.clock, self.server.whenListening())
        self.services: list[ControlService] = []

    def tearDown(self) -> None:
        for service in self.services:
            if service.running:
                resultOf(self.clock, service.stopService())
        resultOf(self.clock, self.server.stopService())
        elapse(self.clock, 10)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def node(
        self,
        name: str,
        authKey: str | None = None,
        identity: Identity | None = None,
        **settings: Any,
    ) -> tuple[ControlService, MapObserver]:
        number = len(self.services) + 2
        try:
            host = self.internet.host(name, [f"192.0.2.{number}"])
        except ValueError:
            host = self.internet.host(f"{name}{number}", [f"192.0.2.{number}"])
        observer = MapObserver()
        service = ControlService(
            host,
            ControlSettings(
                url="http://control.example",
                allowHTTP=True,
                hostname=name,
                authKey=None if authKey is None else Secret(authKey),
                **settings,
            ),
            identity or makeIdentity(seed=100 + number),
            dialer=StreamDialer(host),
            observer=observer,
            hostinfo=Hostinfo(os="linux"),
            randbytes=fixedBytes(200 + number),
            wallTime=wallClock(host),
            c2n=C2NSources(metrics=lambda: "up 1\n"),
        )
        self.services.append(service)
        service.startService()
        return service, observer

    def untilAlive(self, service: ControlService) -> None:
        pump(self.clock, lambda: service.status.isMapAlive)
        elapse(self.clock, 0.5)


class JourneyTests(DevServerTestCase):
    """What holds on each network and with each kind of registration."""

    def test_authKey(self) -> None:
        """A node with an auth key is in the tailnet and has a map."""
        key = self.server.createAuthKey()
        service, observer = self.node("a", key.text)
        self.untilAlive(service)
        [record] = self.server.nodes()
        assert service.identity.nodeKey is not None
        self.assertEqual(record.nodeKey, service.identity.nodeKey.public())
        self.assertEqual(record.machineKey, service.identity.machineKey.public())
        self.assertTrue(record.online)
        selfNode = observer.state.map.selfNode
        assert selfNode is not None
        self.assertEqual(selfNode.id, record.id)
        [(login,)] = observer.of("registered")
        self.assertEqual(login.loginName.partition("@")[0], "user")

    def test_restart(self) -> None:
        """A node that starts again stays what it was, whatever its auth key."""
        key = self.server.createAuthKey()
        service, _ = self.node("a", key.text)
        self.untilAlive(service)
        resultOf(self.clock, service.stopService())
        again, observer = self.node("a", "garbage", service.identity)
        self.untilAlive(again)
        self.assertEqual(len(self.server.nodes()), 1)
        self.assertEqual(observer.failures, [])

    def test_deletedNode(self) -> None:
        """A node that is deleted registers afresh if its key still lets it."""
        key = self.server.createAuthKey(reusable=True)
        service, observer = self.node("a", key.text)
        self.untilAlive(service)
        first = self.server.node("a").id
        self.server.deleteNode("a")
        pump(self.clock, lambda: len(observer.of("registered")) == 2, limit=30)
        self.untilAlive(service)
        self.assertNotEqual(self.server.node("a").id, first)

    def test_expiry(self) -> None:
        """An expired key is replaced, and the node stays the same node."""
        key = self.server.createAuthKey(reusable=True)
        service, observer = self.node("a", key.text)
        self.untilAlive(service)
        before = self.server.node("a")
        number, old = before.id, before.nodeKey
        self.server.expireNode("a")
        pump(self.clock, lambda: len(observer.of("nodeKeyChanged")) == 2, limit=30)
        self.untilAlive(service)
        record = self.server.node("a")
        self.assertEqual(record.id, number)
        self.assertNotEqual(record.nodeKey, old)

    def test_logout(self) -> None:
        """An ephemeral node that logs out is gone at once."""
        key = self.server.createAuthKey(ephemeral=True)
        service, _ = self.node("a", key.text)
        self.untilAlive(service)
        resultOf(self.clock, service.logout())
        self.assertEqual(self.server.nodes(), [])

    def test_serverRestart(self) -> None:
        """A server that goes away for a minute finds its nodes again."""
        key = self.server.createAuthKey()
        service, observer = self.node("a", key.text)
        self.untilAlive(service)
        resultOf(self.clock, self.server.stopService())
        elapse(self.clock, 60)
        self.assertFalse(service.status.isMapAlive)
        self.server.startService()
        pump(self.clock, lambda: service.status.isMapAlive, limit=60)
        self.assertEqual(observer.failures, [])

    def test_cutNetwork(self) -> None:
        """A network that is cut without a word is noticed, and got over."""
        key = self.server.createAuthKey()
        service, _ = self.node("a", key.text)
        self.untilAlive(service)
        self.internet.cut(*self.internet.hosts())
        elapse(self.clock, 150)
        self.assertFalse(service.status.isMapAlive)
        self.internet.heal(*self.internet.hosts())
        pump(self.clock, lambda: service.status.isMapAlive, limit=90)

    def test_questions(self) -> None:
        """Questions of the server are answered."""
        key = self.server.createAuthKey()
        service, _ = self.node("a", key.text)
        self.untilAlive(service)
        self.assertIsNone(resultOf(self.clock, self.server.pingNode("a")))
        response = resultOf(self.clock, self.server.c2n("a", "/debug/metrics"))
        self.assertEqual((response.status, response.body), (200, b"up 1\n"))
        response = resultOf(
            self.clock, self.server.c2n("a", "/echo", method="POST", body=b"x" * 9000)
        )
        self.assertEqual(response.body, b"x" * 9000)

    def test_calls(self) -> None:
        """The smaller calls work."""
        key = self.server.createAuthKey()
        service, _ = self.node("a", key.text)
        self.untilAlive(service)
        resultOf(
            self.clock,
            service.setDNS("_acme-challenge.a.tailnet.test", "TXT", "v"),
        )
        [record] = self.server.dnsRecords
        self.assertEqual(record[-1], "v")
        token = resultOf(self.clock, service.idToken("audience"))
        self.assertEqual(token.count("."), 2)
        answer = resultOf(self.clock, service.queryFeature("serve"))
        self.assertTrue(answer.complete)


class DevServerTests(DevServerTestCase):
    """A good network, and a server that lets everybody in who may come in."""

    def test_refusals(self) -> None:
        """Each bad auth key has its error, within two seconds."""
        used = self.server.createAuthKey()
        self.untilAlive(self.node("first", used.text)[0])
        expired = self.server.createAuthKey(lifetime=1)
        elapse(self.clock, 2)
        good = self.server.createAuthKey(reusable=True)
        for name, text, tags, kind in (
            ("invalid", "nonsense", (), AuthKeyInvalid),
            ("used", used.text, (), AuthKeyUsed),
            ("expired", expired.text, (), AuthKeyExpired),
            ("tags", good.text, ("tag:nobodys",), TagsRefused),
        ):
            service, observer = self.node(name, text, tags=tags)
            pump(self.clock, partial(bool, observer.failures), limit=2)
            self.assertIsInstance(observer.failures[0], kind)
            self.assertIs(service.status.state, LoginState.FAILED)

    def test_interactive(self) -> None:
        """A person lets a node in by its URL."""
        service, observer = self.node("a")
        pump(self.clock, lambda: bool(observer.of("loginURL")))
        [(url,)] = observer.of("loginURL")
        elapse(self.clock, 120)
        self.server.approve(str(url))
        self.untilAlive(service)
        self.assertEqual(len(observer.of("loginURL")), 1)

    def test_denied(self) -> None:
        """A person may also say no."""
        _, observer = self.node("a")
        pump(self.clock, lambda: bool(observer.of("loginURL")))
        self.server.deny(str(observer.of("loginURL")[0][0]), "not you")
        pump(self.clock, lambda: bool(observer.failures))
        self.assertIn("not you", str(observer.failures[0]))

    def test_twoNodes(self) -> None:
        """Two nodes see each other come, change and go."""
        key = self.server.createAuthKey(reusable=True)
        a, seenByA = self.node("a", key.text)
        self.untilAlive(a)
        b, _ = self.node("b", key.text)
        self.untilAlive(b)
        peers = list(seenByA.state.map.peers)
        self.assertEqual(len(peers), 1)
        b.setEndpoints([("192.0.2.3:41641", 1)])
        b.setNetInfo(NetInfo(preferredDERP=5))
        elapse(self.clock, 1)
        record = self.server.node("b")
        self.assertEqual(list(record.endpoints), ["192.0.2.3:41641"])
        self.assertEqual(record.homeDERP, 5)
        self.assertEqual([n.homeDERP for n in seenByA.state.map.peers], [5])
        resultOf(self.clock, b.stopService())
        self.server.deleteNode("b")
        elapse(self.clock, 1)
        self.assertEqual(list(seenByA.state.map.peers), [])

    def test_extended(self) -> None:
        """Without an auth key, an administrator's extension brings it back."""
        service, observer = self.node("a")
        pump(self.clock, lambda: bool(observer.of("loginURL")))
        self.server.approve(str(observer.of("loginURL")[0][0]))
        self.untilAlive(service)
        self.server.expireNode("a")
        pump(
            self.clock,
            lambda: service.status.state is LoginState.NEEDS_LOGIN,
            limit=30,
        )
        self.server.setExpiry("a", None)
        pump(
            self.clock,
            lambda: service.status.state is LoginState.REGISTERED,
            limit=30,
        )
        self.assertTrue(service.status.isMapAlive)

    def test_dayOfKeepAlives(self) -> None:
        """A quiet day is one map stream."""
        key = self.server.createAuthKey()
        service, observer = self.node("a", key.text)
        self.untilAlive(service)
        elapse(self.clock, 86400)
        self.assertEqual(observer.of("mapStarted"), [(False,)])
        self.assertEqual(observer.troubles, [])

    def test_retryAfter(self) -> None:
        """A server that asks for patience gets it."""
        self.server.failNext("/machine/register", 429, headers={"Retry-After": "30"})
        key = self.server.createAuthKey()
        service, _ = self.node("a", key.text)
        elapse(self.clock, 29)
        self.assertEqual(self.server.nodes(), [])
        self.untilAlive(service)


class ApprovalTests(JourneyTests):
    """The same with machines that have to be approved."""

    registration = RegistrationOptions(requireApproval=True)

    def test_T_approval(self) -> None:
        """A machine waits for its approval, and then is in."""
        key = self.server.createAuthKey(preApproved=False)
        service, observer = self.node("a", key.text)
        pump(self.clock, lambda: bool(observer.of("approvalNeeded")))
        elapse(self.clock, 100)
        self.assertIs(service.status.state, LoginState.NEEDS_APPROVAL)
        self.server.approveNode("a")
        pump(self.clock, lambda: bool(observer.of("registered")), limit=60)
        self.untilAlive(service)
        self.assertEqual(len(self.server.nodes()), 1)

    def test_interactive(self) -> None:
        """A machine that a person let in still has to be approved."""
        service, observer = self.node("a")
        pump(self.clock, lambda: bool(observer.of("loginURL")))
        self.server.approve(str(observer.of("loginURL")[0][0]))
        pump(self.clock, lambda: bool(observer.of("approvalNeeded")))
        self.server.approveNode("a")
        self.untilAlive(service)


class SlowNetworkTests(JourneyTests):
    """The same over a network that takes two seconds each way."""

    delay = 2.0

    def untilAlive(self, service: ControlService) -> None:
        """Everything takes its time here."""
        pump(self.clock, lambda: service.status.isMapAlive, limit=180)
        elapse(self.clock, 10)

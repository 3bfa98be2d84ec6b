"""
Tests for L{tsrt.control.service}, L{tsrt.control.updates} and the parts that
only the whole shows.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tsrt.control.loginmachine import LoginState
from tsrt.control.observer import ControlObserver
from tsrt.control.settings import ControlSettings
from tsrt.control.steps import NETMAP, StepResult
from tsrt.control.updates import UpdateLoop
from tsrt.errors import (
    ClientTooOld,
    ConfigError,
    ControlProtocolError,
    ControlUnreachable,
    InsecureControlURL,
    KeyExpired,
    ProtocolError,
    WrongControlKey,
)
from tsrt.keys import DiscoKey, MachineKey
from tsrt.tailcfg import Hostinfo, MapResponse, NetInfo
from tsrt.test.controlharness import (
    WALL_TIME,
    WELCOME,
    Harness,
    makeIdentity,
    makeNodeKey,
)
from tsrt.test.controlpeer import PeerRequest, fixedBytes

SAVED = makeNodeKey()


def timestamp(seconds: float) -> str:
    when = datetime.fromtimestamp(WALL_TIME + seconds, UTC)
    return when.isoformat().replace("+00:00", "Z")


class ServiceTestCase(SynchronousTestCase):
    """A node with a saved key, whose login works."""

    def setUp(self) -> None:
        self.harness = Harness()
        self.observer = self.harness.observer
        self.polls: list[PeerRequest] = []
        self.updates: list[PeerRequest] = []
        self.updateAnswer: int | None = 200
        self.harness.on("/machine/map", self.mapRequested)
        self.registers = self.harness.answer("/machine/register", WELCOME)
        self.service = self.harness.service(makeIdentity(nodeKey=SAVED))

    def mapRequested(self, request: PeerRequest) -> None:
        if request.json.get("Stream"):
            self.polls.append(request)
            request.start()
        else:
            self.updates.append(request)
            if self.updateAnswer is not None:
                request.answer(b"", self.updateAnswer)

    def start(self) -> None:
        self.service.startService()
        self.harness.pump()

    def node(self, **changes: object) -> dict[str, object]:
        key = self.service.identity.nodeKey
        assert key is not None
        return {
            "ID": 1,
            "Name": "a.example.",
            "Key": key.public().text(),
            "MachineAuthorized": True,
            **changes,
        }

    def send(self, **document: object) -> None:
        self.polls[-1].frame(document)
        self.harness.pump()

    def alive(self) -> None:
        """Start, and bring the first map."""
        self.start()
        self.send(Node=self.node())

    def stop(self) -> None:
        stopped = self.service.stopService()
        self.harness.pump()
        self.successResultOf(stopped)
        self.assertEqual(self.harness.clock.getDelayedCalls(), [])
        self.assertEqual(self.harness.net.wires, [])

    def tearDown(self) -> None:
        self.stop()


class RunTests(ServiceTestCase):
    """From start to stop."""

    def test_R_CTL_1_order(self) -> None:
        """The node is never called alive before there is a map."""
        self.start()
        self.assertEqual(self.observer.names(), ["nodeKeyChanged", "registered"])
        self.assertFalse(self.service.status.isMapAlive)
        self.send(KeepAlive=True)
        self.assertEqual(self.observer.of("mapAlive"), [])
        self.send(Node=self.node())
        self.assertEqual(
            self.observer.names()[2:], ["mapStarted", "mapResponse", "mapAlive"]
        )
        self.assertEqual(self.observer.of("mapStarted"), [(False,)])
        self.assertTrue(self.service.status.isMapAlive)
        self.assertIs(self.service.steps.result(NETMAP), StepResult.OK)

    def test_oneConnection(self) -> None:
        """Login, map and updates share one connection."""
        self.alive()
        self.service.setEndpoints([("192.0.2.1:1", 1)])
        self.harness.pump()
        self.assertEqual(len(self.harness.peer.connections), 1)
        self.assertTrue(self.service.status.isConnected)

    def test_mapRequest(self) -> None:
        """The request for the map says who we are and what we are like."""
        self.service.setNetInfo(NetInfo(preferredDERP=900))
        self.service.setEndpoints([("192.0.2.1:41641", 1), ("203.0.113.1:9", 2)])
        self.service.setLockHead("HEAD")
        self.start()
        document = self.polls[0].json
        hostinfo = document.pop("Hostinfo")
        self.assertEqual(
            document,
            {
                "Version": 130,
                "Compress": "zstd",
                "KeepAlive": True,
                "NodeKey": SAVED.public().text(),
                "DiscoKey": self.service.identity.discoPublic.text(),
                "Stream": True,
                "Endpoints": ["192.0.2.1:41641", "203.0.113.1:9"],
                "EndpointTypes": [1, 2],
                "TKAHead": "HEAD",
            },
        )
        assert isinstance(hostinfo, dict)
        self.assertEqual(hostinfo["NetInfo"], {"PreferredDERP": 900})
        self.assertEqual(hostinfo["BackendLogID"], "ab" * 32)

    def test_uncompressed(self) -> None:
        """Compression can be left out."""
        self.service = self.harness.service(
            makeIdentity(nodeKey=SAVED), settings={"compress": False}
        )
        self.start()
        self.assertNotIn("Compress", self.polls[0].json)
        self.polls[0].frame({"Node": self.node()}, compress=False)
        self.harness.pump()
        self.assertTrue(self.service.status.isMapAlive)

    def test_startStopStart(self) -> None:
        """A stopped service leaves nothing, and can be started again."""
        for _ in range(3):
            self.alive()
            self.stop()
            self.assertFalse(self.service.status.isMapAlive)
            self.assertIs(self.service.status.state, LoginState.NEEDS_KEY)
        self.assertEqual(len(self.registers), 3)

    def test_stopAtEveryStep(self) -> None:
        """The service can be stopped whenever it is."""
        moments = 0
        while True:
            self.setUp()
            self.service.startService()
            for _ in range(moments):
                self.harness.clock.advance(0)
                for wire in list(self.harness.net.wires):
                    assert wire.peer is not None
                    if not (wire.step() or wire.peer.step()):
                        continue
            alive = bool(self.polls)
            self.stop()
            moments += 1
            if alive:
                break
        self.assertGreater(moments, 3)

    def test_stopFromObserver(self) -> None:
        """It may even be stopped by the observer, in the middle of a map."""
        self.observer.onMap = lambda _: self.service.stopService()
        self.start()
        self.polls[0].frame({"Node": self.node()})
        self.polls[0].frame({"PeersRemoved": [1]})
        self.harness.pump()
        self.assertFalse(self.service.running)
        self.assertEqual(len(self.observer.maps), 1)

    def test_stopTwice(self) -> None:
        """A second stop waits for the first one."""
        self.alive()
        [wire] = self.harness.net.wires
        assert wire.peer is not None
        wire.peer.reading = False
        first, second = self.service.stopService(), self.service.stopService()
        self.harness.pump()
        self.assertNoResult(first)
        self.assertNoResult(second)
        wire.peer.reading = True
        self.harness.pump()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_startTwice(self) -> None:
        """A second start changes nothing."""
        self.start()
        self.service.startService()
        self.harness.pump()
        self.assertEqual(len(self.registers), 1)

    def test_T_panics_raisingObserver(self) -> None:
        """An observer that fails is logged, and does no harm."""

        def broken(response: MapResponse) -> None:
            raise RuntimeError("broken")

        self.observer.onMap = broken
        self.alive()
        self.send(PeersRemoved=[1])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        self.assertTrue(self.service.status.isMapAlive)
        self.assertEqual(len(self.observer.maps), 2)

    def test_settings(self) -> None:
        """Settings that cannot work are refused before anything is started."""
        for url, kind in (
            ("http://control.example", InsecureControlURL),
            ("nonsense", ConfigError),
        ):
            self.assertRaises(kind, ControlSettings, url=url)

    def test_unreachableForAMinute(self) -> None:
        """What a start-up time-out says names each step and its result."""
        self.harness.net.refuse("127.0.0.1", 9000, None)
        self.service.startService()
        self.harness.advance(60, 600)
        text = self.service.steps.describe()
        self.assertIn("TCP:", text)
        self.assertIn("no answer within 20 s", text)
        self.assertIn("key: still trying after 3 attempts", text)
        self.assertIsInstance(self.service.status.error, ControlUnreachable)


class MapTests(ServiceTestCase):
    """What maps bring."""

    def test_order(self) -> None:
        """Responses reach the observer in order, keep-alives do not."""
        self.alive()
        for number in range(5):
            self.polls[0].frame({"PeersRemoved": [number]})
            self.polls[0].frame({"KeepAlive": True})
        self.harness.pump()
        self.assertEqual(
            [m.peersRemoved for m in self.observer.maps[1:]], [[n] for n in range(5)]
        )

    def test_lostStream(self) -> None:
        """A lost stream is asked for again, and is alive with its first map."""
        self.alive()
        self.harness.peer.connections[0].drop()
        self.harness.advance(1, 20)
        self.assertEqual(len(self.polls), 2)
        self.assertEqual(self.observer.of("mapAlive"), [(True,), (False,)])
        self.assertEqual(len(self.observer.troubles), 1)
        self.send(Node=self.node())
        self.assertEqual(self.observer.of("mapAlive")[-1], (True,))
        # The login is not repeated for that.
        self.assertEqual(len(self.registers), 1)

    def test_silentStream(self) -> None:
        """A stream without a frame for two minutes is given up."""
        self.alive()
        self.harness.advance(119, 119)
        self.assertEqual(len(self.polls), 1)
        self.harness.advance(2, 20)
        self.assertEqual(len(self.polls), 2)
        self.assertTrue(self.polls[0].reset)

    def test_keptAlive(self) -> None:
        """Keep-alives each minute keep a stream for days."""
        self.alive()
        for _ in range(100):
            self.send(KeepAlive=True)
            self.harness.advance(59)
        self.assertEqual(len(self.polls), 1)

    def test_badFrame(self) -> None:
        """Nonsense ends the stream, and a new one is asked for."""
        self.alive()
        self.polls[0].frame(b"<html>")
        self.harness.advance(1, 20)
        self.assertEqual(len(self.polls), 2)
        self.assertIsInstance(self.observer.troubles[0], ControlProtocolError)

    def test_bomb(self) -> None:
        """100 MB in a small frame end the stream and nothing else."""
        self.alive()
        self.polls[0].frame(b" " * 100_000_000)
        self.harness.advance(1, 20)
        self.assertEqual(len(self.polls), 2)
        self.assertIsInstance(self.observer.troubles[0], ControlProtocolError)
        self.assertIs(self.service.status.state, LoginState.REGISTERED)

    def test_observerCannotUseIt(self) -> None:
        """A map that the observer calls wrong is asked for anew, in whole."""

        def refuse(response: MapResponse) -> None:
            raise ProtocolError("no such thing")

        self.observer.onMap = refuse
        self.start()
        self.send(Node=self.node(), MapSessionHandle="h", Seq=1)
        self.observer.onMap = None
        self.harness.advance(1, 20)
        self.assertEqual(len(self.polls), 2)
        self.assertNotIn("MapSessionHandle", self.polls[1].json)
        self.assertEqual(str(self.observer.troubles[0]), "no such thing")

    def test_resumedSession(self) -> None:
        """Where the server can, a new stream goes on where the last one was."""
        self.start()
        self.send(Node=self.node(), MapSessionHandle="h", Seq=9)
        self.harness.peer.connections[0].drop()
        self.harness.advance(1, 20)
        self.assertEqual(self.polls[1].json["MapSessionHandle"], "h")
        self.assertEqual(self.polls[1].json["MapSessionSeq"], 9)
        self.send(MapSessionHandle="h", PeersRemoved=[3])
        self.assertEqual(self.observer.of("mapStarted"), [(False,), (True,)])

    def test_deletedNode(self) -> None:
        """A node that is deleted while it runs registers afresh."""
        self.alive()
        self.harness.on("/machine/map", lambda r: r.answer(b"node not found", 404))
        self.harness.peer.connections[0].drop()
        self.harness.advance(1, 50)
        self.assertGreater(len(self.registers), 1)
        self.harness.on("/machine/map", self.mapRequested)
        self.harness.advance(60, 60)
        self.assertEqual(len(self.polls), 2)
        self.assertIs(self.service.status.state, LoginState.REGISTERED)

    def test_deletedNodeIsNoTightLoop(self) -> None:
        """A server that lets us in and then does not know us is spared."""
        self.harness.on("/machine/map", lambda r: r.answer(b"node not found", 404))
        self.start()
        self.harness.advance(600, 6000)
        self.assertLess(len(self.registers), 150)

    def test_wrongKeyLater(self) -> None:
        """Whoever has a map does not give up for a false server on the way."""
        self.alive()
        other = MachineKey.generate(fixedBytes(99)).public()
        self.harness.peer.handshakeAnswer = b"\x02\x00\x30" + other.raw + bytes(16)
        self.harness.peer.connections[0].drop()
        self.harness.advance(10, 100)
        self.assertIsInstance(self.observer.troubles[-1], WrongControlKey)
        self.assertEqual(self.observer.failures, [])
        self.harness.peer.handshakeAnswer = None
        self.harness.advance(60, 60)
        self.assertEqual(len(self.polls), 2)

    def test_versionRefusedByMap(self) -> None:
        """A server that refuses our version at the map is the end of it."""
        self.harness.on(
            "/machine/map",
            lambda r: r.answer(b"unsupported client version: x (130)", 400),
        )
        self.start()
        [error] = self.observer.failures
        self.assertIsInstance(error, ClientTooOld)
        asked = len(self.harness.peer.requests)
        self.harness.advance(600, 60)
        self.assertEqual(len(self.harness.peer.requests), asked)

    def test_openURL(self) -> None:
        """A page is shown once for each time that it changes."""
        self.alive()
        for url in ("https://a", "https://a", "https://b", "https://a"):
            self.send(KeepAlive=True, PopBrowserURL=url)
        self.assertEqual(
            self.observer.of("openURL"),
            [("https://a",), ("https://b",), ("https://a",)],
        )

    def test_ping(self) -> None:
        """A question in a map is answered."""
        self.alive()
        replies = self.harness.answer("/reply", b"")
        request = {"URL": "https://x/reply?1", "URLIsNoise": True}
        self.send(KeepAlive=True, PingRequest=request)
        self.send(KeepAlive=True, PingRequest=request)
        self.assertEqual([r.method for r in replies], ["HEAD"])

    def test_exit(self) -> None:
        """The server cannot end the process."""
        self.alive()
        self.send(Debug={"Exit": 1})
        self.assertTrue(self.service.status.isMapAlive)

    def test_R_CTL_2_noSSHPolicy(self) -> None:
        """A map without an SSH policy is handed on without one."""
        self.alive()
        self.assertFalse(self.observer.maps[0].sshPolicy)
        self.send(SSHPolicy={"rules": []})
        self.send(PeersRemoved=[1])
        self.assertTrue(self.observer.maps[1].sshPolicy)
        self.assertFalse(self.observer.maps[2].sshPolicy)

    def test_dialPlan(self) -> None:
        """Advice on how to reach the server is taken for the next dial."""
        self.alive()
        self.harness.net.listen("192.0.2.9", 9000, self.harness.peer.build)
        candidate = {"IP": "192.0.2.9", "DialTimeoutSec": 5}
        self.send(ControlDialPlan={"Candidates": [candidate]})
        self.harness.peer.connections[0].drop()
        self.harness.advance(1, 20)
        self.assertEqual(self.harness.net.attempts[-1].address, "192.0.2.9")

    def test_paused(self) -> None:
        """While paused nothing is asked; then it goes on without a login."""
        self.alive()
        self.service.setPaused(True)
        self.harness.pump()
        self.assertEqual(self.harness.net.wires, [])
        self.service.setEndpoints([("192.0.2.1:1", 1)])
        asked = len(self.harness.peer.requests)
        self.harness.advance(600, 60)
        self.assertEqual(len(self.harness.peer.requests), asked)
        self.service.setPaused(False)
        self.harness.pump()
        self.assertEqual(len(self.polls), 2)
        self.assertEqual(len(self.registers), 1)
        self.assertEqual(self.updates[-1].json["Endpoints"], ["192.0.2.1:1"])

    def test_pausedFromTheStart(self) -> None:
        """A paused service logs in once it may."""
        self.service.setPaused(True)
        self.start()
        self.assertEqual(self.harness.net.attempts, [])
        self.service.setPaused(False)
        self.harness.pump()
        self.assertEqual(len(self.polls), 1)

    def test_pausedWhileLoggingIn(self) -> None:
        """A login that is paused begins again."""
        self.registers = self.harness.answer("/machine/register", None, WELCOME)
        self.start()
        self.service.setPaused(True)
        self.harness.advance(60, 60)
        self.service.setPaused(False)
        self.harness.pump()
        self.assertEqual(len(self.registers), 2)
        self.assertEqual(len(self.polls), 1)

    def test_reconnect(self) -> None:
        """After a change of the network everything is connected anew at once."""
        self.alive()
        self.service.reconnect("the network changed")
        self.harness.pump()
        self.assertEqual(len(self.polls), 2)
        self.assertEqual(len(self.harness.peer.connections), 2)
        self.assertEqual(self.observer.troubles, [])


class ExpiryTests(ServiceTestCase):
    """Node keys that expire."""

    def test_expiryInMap(self) -> None:
        """A map that shows the key expired leads to a new one."""
        self.start()
        self.send(Node=self.node(KeyExpiry=timestamp(-1)))
        self.assertEqual(len(self.registers), 2)
        self.assertEqual(self.registers[1].json["OldNodeKey"], SAVED.public().text())
        self.assertIs(self.service.status.state, LoginState.REGISTERED)
        self.assertNotEqual(self.service.identity.nodeKey, SAVED)
        self.assertEqual(len(self.polls), 2)

    def test_expiryWhileRunning(self) -> None:
        """A key that expires while the node runs is replaced then."""
        self.registers = self.harness.answer("/machine/register", WELCOME, None)
        self.start()
        self.send(Node=self.node(KeyExpiry=timestamp(100)))
        for _ in range(99):
            self.harness.advance(1)
        self.assertIs(self.service.status.state, LoginState.REGISTERED)
        self.harness.advance(1.1)
        self.assertIs(self.service.status.state, LoginState.EXPIRED)
        # Seamless: the old key goes on until the new one is accepted.
        self.assertFalse(self.polls[0].reset)

    def test_farExpiry(self) -> None:
        """An expiry months away is looked at again each day."""
        self.start()
        self.send(Node=self.node(KeyExpiry=timestamp(90 * 86400)))
        [longest] = [
            call.getTime()
            for call in self.harness.clock.getDelayedCalls()
            if call.getTime() > 1000
        ]
        self.assertLessEqual(longest, 86400)

    def test_serverTime(self) -> None:
        """It is the server's clock that counts, if ours is far off."""
        self.start()
        self.send(
            Node=self.node(KeyExpiry=timestamp(-100)), ControlTime=timestamp(-7200)
        )
        self.assertIs(self.service.status.state, LoginState.REGISTERED)
        self.assertEqual(len(self.registers), 1)
        self.send(Node=self.node(KeyExpiry=timestamp(-100)), ControlTime=timestamp(-59))
        self.assertEqual(len(self.registers), 2)

    def test_extended(self) -> None:
        """An administrator who extends the key brings the node back."""
        url = {"AuthURL": "https://control.example/a/1"}
        self.registers = self.harness.answer("/machine/register", WELCOME, url, None)
        self.start()
        self.send(Node=self.node(KeyExpiry=timestamp(-1)))
        self.assertIs(self.service.status.state, LoginState.NEEDS_LOGIN)
        self.send(Node=self.node(KeyExpiry=None))
        self.assertIs(self.service.status.state, LoginState.REGISTERED)
        self.assertEqual(self.service.identity.nodeKey, SAVED)
        self.assertTrue(self.registers[2].reset)

    def test_staleAuthKey(self) -> None:
        """A stale auth key does not cost a running node its way back."""
        url = {"AuthURL": "https://control.example/a/1"}
        refused = {"Error": "authkey already used"}
        self.registers = self.harness.answer(
            "/machine/register", WELCOME, refused, url, None
        )
        self.service = self.harness.service(
            makeIdentity(nodeKey=SAVED), authKey="tskey-auth-stale"
        )
        self.start()
        self.send(Node=self.node(KeyExpiry=timestamp(-1)))
        self.assertEqual(self.observer.failures, [])
        self.assertIs(self.service.status.state, LoginState.NEEDS_LOGIN)
        self.assertEqual(
            [request.json.get("Auth") for request in self.registers],
            [None, {"AuthKey": "tskey-auth-stale"}, None, None],
        )
        self.send(Node=self.node(KeyExpiry=None))
        self.assertIs(self.service.status.state, LoginState.REGISTERED)

    def test_userLoginIsNotUndone(self) -> None:
        """A login that the user asked for is not ended by a map."""
        url = {"AuthURL": "https://control.example/a/1"}
        self.registers = self.harness.answer("/machine/register", WELCOME, url, None)
        self.alive()
        self.service.login().addErrback(lambda _: None)
        self.harness.pump()
        self.send(Node=self.node())
        self.assertIs(self.service.status.state, LoginState.NEEDS_LOGIN)

    def test_otherKeyInMap(self) -> None:
        """What a map says of another key does not count."""
        self.start()
        other = makeNodeKey(61).public().text()
        self.send(Node=self.node(Key=other, KeyExpiry=timestamp(-1)))
        self.assertEqual(len(self.registers), 1)

    def test_expiredAgainAndAgain(self) -> None:
        """A server that calls each new key expired is given up after three."""
        self.start()
        for _ in range(10):
            if self.observer.failures:
                break
            self.send(Node=self.node(KeyExpiry=timestamp(-1)))
            self.harness.advance(1, 10)
        [error] = self.observer.failures
        self.assertIsInstance(error, KeyExpired)
        self.assertEqual(len(self.registers), 4)
        self.harness.advance(600, 60)
        self.assertEqual(len(self.registers), 4)


class UpdateTests(ServiceTestCase):
    """Telling the server what has changed."""

    def test_afterLogin(self) -> None:
        """After the login the server is told once how things are."""
        self.alive()
        [update] = self.updates
        document = update.json
        self.assertFalse(document.get("Stream"))
        self.assertIs(document["OmitPeers"], True)
        self.assertIs(document["KeepAlive"], True)
        self.assertEqual(document["DiscoKey"], self.service.identity.discoPublic.text())
        self.assertEqual(update.header("ts-lb"), [SAVED.public().text()])

    def test_changes(self) -> None:
        """Each change is told, and what is no change is not."""
        self.alive()
        disco = DiscoKey.generate(fixedBytes(123)).public()
        changes = [
            lambda: self.service.setEndpoints([("192.0.2.1:1", 1), ("192.0.2.2:2", 2)]),
            lambda: self.service.setNetInfo(NetInfo(preferredDERP=1)),
            lambda: self.service.setHostinfo(Hostinfo(os="linux", hostname="other")),
            lambda: self.service.setLockHead("x"),
            lambda: self.service.setDiscoKey(disco),
        ]
        for number, change in enumerate(changes):
            change()
            self.harness.pump()
            self.assertEqual(len(self.updates), number + 2)
            change()
            self.harness.pump()
            self.assertEqual(len(self.updates), number + 2)
        document = self.updates[-1].json
        self.assertEqual(document["Endpoints"], ["192.0.2.1:1", "192.0.2.2:2"])
        self.assertEqual(document["EndpointTypes"], [1, 2])
        self.assertEqual(document["TKAHead"], "x")
        self.assertEqual(document["DiscoKey"], disco.text())
        hostinfo = document["Hostinfo"]
        assert isinstance(hostinfo, dict)
        self.assertEqual(hostinfo["Hostname"], "other")
        self.assertEqual(hostinfo["NetInfo"], {"PreferredDERP": 1})

    def test_noNews(self) -> None:
        """Another order of endpoints and other latencies are no news."""
        self.service.setEndpoints([("192.0.2.1:1", 1), ("192.0.2.2:2", 2)])
        self.service.setNetInfo(NetInfo(preferredDERP=1, derpLatency={"1-v4": 0.1}))
        self.alive()
        self.service.setEndpoints([("192.0.2.2:2", 2), ("192.0.2.1:1", 1)])
        self.service.setNetInfo(NetInfo(preferredDERP=1, derpLatency={"1-v4": 0.2}))
        self.harness.pump()
        self.assertEqual(len(self.updates), 1)

    def test_coalesced(self) -> None:
        """Many changes during one update make one more, with the newest."""
        self.updateAnswer = None
        self.alive()
        for number in range(1, 50):
            self.service.setEndpoints([(f"192.0.2.1:{number}", 1)])
        self.harness.pump()
        self.assertEqual(len(self.updates), 1)
        self.updateAnswer = 200
        self.updates[0].answer(b"")
        self.harness.pump()
        self.assertEqual(len(self.updates), 2)
        self.assertEqual(self.updates[1].json["Endpoints"], ["192.0.2.1:49"])

    def test_failure(self) -> None:
        """An update that fails is sent again, after waits of its own."""
        self.updateAnswer = 500
        self.alive()
        self.harness.advance(1, 100)
        failed = len(self.updates)
        self.assertTrue(4 <= failed <= 10, failed)
        self.updateAnswer = 200
        self.harness.advance(60, 60)
        self.assertEqual(len(self.updates), failed + 1)
        # The map has not noticed.
        self.assertEqual(len(self.polls), 1)

    def test_deletedNode(self) -> None:
        """An update that finds the node deleted leads to a new registration."""
        self.alive()
        self.updateAnswer = 404
        self.service.setEndpoints([("192.0.2.1:1", 1)])
        self.harness.advance(0.015)
        self.assertEqual(len(self.registers), 2)
        self.assertTrue(self.polls[0].reset)
        self.updateAnswer = 200
        self.harness.advance(1, 20)
        self.assertFalse(self.polls[-1].reset)
        self.assertEqual(self.updates[-1].json["Endpoints"], ["192.0.2.1:1"])

    def test_deletedNodeIsNoTightLoop(self) -> None:
        """A server that never takes an update is spared too."""
        self.updateAnswer = 404
        self.start()
        self.harness.advance(600, 6000)
        self.assertLess(len(self.registers), 150)

    def test_beforeLogin(self) -> None:
        """Before the login nothing is told."""
        self.registers = self.harness.answer("/machine/register", None)
        self.start()
        self.service.setEndpoints([("192.0.2.1:1", 1)])
        self.harness.advance(10, 10)
        self.assertEqual(self.updates, [])

    def test_discoSurvivesLogin(self) -> None:
        """A disco key set during a login is the one that is used after it."""
        self.registers = self.harness.answer("/machine/register", WELCOME, None)
        self.alive()
        self.service.login().addErrback(lambda _: None)
        self.harness.pump()
        disco = DiscoKey.generate(fixedBytes(123)).public()
        self.service.setDiscoKey(disco)
        self.registers[1].answer(WELCOME)
        self.harness.pump()
        self.assertEqual(self.service.identity.discoPublic, disco)
        self.assertEqual(self.polls[-1].json["DiscoKey"], disco.text())

    def test_calls(self) -> None:
        """The smaller calls speak for the current node key."""
        self.alive()
        calls: tuple[tuple[str, Callable[[], Deferred[Any]]], ...] = (
            ("/machine/set-dns", lambda: self.service.setDNS("n", "TXT", "v")),
            ("/machine/id-token", lambda: self.service.idToken("aud")),
            ("/machine/feature/query", lambda: self.service.queryFeature("funnel")),
        )
        for path, call in calls:
            requests = self.harness.answer(path, {"id_token": "t", "Complete": True})
            result = call()
            self.harness.pump()
            self.successResultOf(result)
            self.assertEqual(requests[0].json["NodeKey"], SAVED.public().text())


class UpdateLoopTests(SynchronousTestCase):
    """The loop alone."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[Deferred[None]] = []
        self.troubles: list[object] = []
        self.loop = UpdateLoop(
            self.clock,
            send=self.send,
            trouble=self.troubles.append,
            unknownNode=self.troubles.append,
            randbytes=lambda count: bytes(count),
        )

    def send(self) -> Deferred[None]:
        self.sent.append(Deferred())
        return self.sent[-1]

    def test_gate(self) -> None:
        """What is due waits for the gate; a stop keeps what was under way."""
        self.loop.trigger()
        self.clock.advance(1)
        self.assertEqual(self.sent, [])
        self.loop.start()
        self.clock.advance(0)
        self.assertEqual(len(self.sent), 1)
        self.loop.stop()
        self.assertTrue(self.sent[0].called)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.loop.start()
        self.clock.advance(0)
        self.assertEqual(len(self.sent), 2)
        self.sent[1].callback(None)
        self.loop.stop()
        self.loop.start()
        self.clock.advance(1)
        self.assertEqual(len(self.sent), 2)

    def test_backoff(self) -> None:
        """Waits grow while updates fail, and begin anew after one that works."""
        self.loop.start()
        self.loop.trigger()
        self.clock.advance(0)
        for wait in (0.005, 0.02, 0.045):
            self.sent[-1].errback(ControlUnreachable("no"))
            count = len(self.sent)
            self.clock.advance(wait * 0.9)
            self.assertEqual(len(self.sent), count)
            self.clock.advance(wait * 0.11)
            self.assertEqual(len(self.sent), count + 1)
        self.sent[-1].callback(None)
        self.loop.trigger()
        self.clock.advance(0)
        self.sent[-1].errback(ControlUnreachable("no"))
        self.clock.advance(0.006)
        self.assertEqual(len(self.sent), 6)
        self.assertEqual(len(self.troubles), 4)
        self.loop.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class IdentityTests(SynchronousTestCase):
    """Who a node is."""

    def test_withNodeKey(self) -> None:
        """A new key remembers the one before; the same key changes nothing."""
        identity = makeIdentity(nodeKey=SAVED)
        self.assertIs(identity.withNodeKey(SAVED), identity)
        other = makeNodeKey(61)
        self.assertEqual(
            identity.withNodeKey(other),
            evolve(identity, nodeKey=other, oldNodeKey=SAVED),
        )


class TypeTests(SynchronousTestCase):
    """The harness keeps to what the service asks for."""

    def test_observer(self) -> None:
        """The observer of the tests has all that an observer needs."""
        names = [n for n in vars(ControlObserver) if not n.startswith("_")]
        observer = Harness().observer
        self.assertEqual([n for n in names if not hasattr(observer, n)], [])

"""
Everything that tests of the control client need around it: a network in
memory, a server that can be told what to do, and an observer that remembers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from tsrt.control.api import ControlAPI
from tsrt.control.connection import ControlConnection
from tsrt.control.dial import ControlDialer
from tsrt.control.keyfetch import KeyFetcher
from tsrt.control.service import ControlService
from tsrt.control.settings import ControlSettings, Identity, LoginInfo
from tsrt.control.steps import StepLog
from tsrt.control.urls import parseControlURL
from tsrt.errors import TSRTError
from tsrt.keys import DiscoKey, LockKey, MachineKey, NodeKey, Secret
from tsrt.tailcfg import Hostinfo, MapResponse
from tsrt.test.controlpeer import ControlPeer, PeerRequest, fixedBytes
from tsrt.test.memorynet import MemoryNet

HOST = "127.0.0.1"
URL = f"http://{HOST}:9000"

WALL_TIME = 1_800_000_000.0
"""Where the wall clock of the tests begins."""


def makeIdentity(seed: int = 50, nodeKey: NodeKey | None = None) -> Identity:
    """Somebody."""
    randbytes = fixedBytes(seed)
    return Identity(
        machineKey=MachineKey.generate(randbytes),
        lockKey=LockKey.generate(randbytes),
        discoPublic=DiscoKey.generate(randbytes).public(),
        backendLogID="ab" * 32,
        nodeKey=nodeKey,
    )


def makeNodeKey(seed: int = 60) -> NodeKey:
    """A node key that was saved before."""
    return NodeKey.generate(fixedBytes(seed))


WELCOME: dict[str, object] = {
    "User": {"ID": 7, "DisplayName": "Ann"},
    "Login": {"ID": 7, "LoginName": "ann@example.com", "DisplayName": "Ann"},
    "MachineAuthorized": True,
}
"""What a server says that lets a node in."""


class Observer:
    """Remembers what it was told, as tuples of a name and arguments."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.identities: list[Identity] = []
        self.maps: list[MapResponse] = []
        self.troubles: list[TSRTError] = []
        self.failures: list[TSRTError] = []
        self.veto: Exception | None = None
        self.onMap: Callable[[MapResponse], object] | None = None

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == name]

    def names(self) -> list[object]:
        return [event[0] for event in self.events]

    def identityChanged(self, identity: Identity) -> None:
        if self.veto is not None:
            raise self.veto
        self.events.append(("identityChanged",))
        self.identities.append(identity)

    def nodeKeyChanged(self, identity: Identity) -> None:
        self.events.append(("nodeKeyChanged", identity))

    def loginURL(self, url: str) -> None:
        self.events.append(("loginURL", url))

    def approvalNeeded(self) -> None:
        self.events.append(("approvalNeeded",))

    def registered(self, login: LoginInfo) -> None:
        self.events.append(("registered", login))

    def mapStarted(self, resumed: bool) -> None:
        self.events.append(("mapStarted", resumed))

    def mapResponse(self, response: MapResponse) -> None:
        self.events.append(("mapResponse",))
        self.maps.append(response)
        if self.onMap is not None:
            self.onMap(response)

    def mapAlive(self, alive: bool) -> None:
        self.events.append(("mapAlive", alive))

    def openURL(self, url: str) -> None:
        self.events.append(("openURL", url))

    def trouble(self, error: TSRTError) -> None:
        self.events.append(("trouble",))
        self.troubles.append(error)

    def failed(self, error: TSRTError) -> None:
        self.events.append(("failed",))
        self.failures.append(error)


class Harness:
    """A control client and a server, joined in memory."""

    def __init__(self, url: str = URL) -> None:
        self.clock = Clock()
        self.net = MemoryNet(self.clock)
        self.peer = ControlPeer()
        self.peer.default = None
        self.url = url
        server = parseControlURL(url, allowHTTP=True)
        self.net.listen(server.host, server.plainPort, self.peer.build)
        self.net.listen(server.host, server.port, self.peer.build)
        self.observer = Observer()

    def wallTime(self) -> float:
        return WALL_TIME + self.clock.seconds()

    def connection(self) -> ControlConnection:
        """The connection alone."""
        url = parseControlURL(self.url, allowHTTP=True)
        steps = StepLog(self.clock)
        fetcher = KeyFetcher(
            self.clock, self.net, url, steps=steps, wallTime=self.wallTime
        )
        dialer = ControlDialer(
            self.clock,
            self.net,
            url,
            makeIdentity().machineKey,
            randbytes=fixedBytes(70),
            steps=steps,
        )
        return ControlConnection(self.clock, dialer, fetcher.fetch, url)

    def api(self) -> ControlAPI:
        """The calls alone."""
        return ControlAPI(self.clock, self.connection(), wallTime=self.wallTime)

    def service(
        self,
        identity: Identity | None = None,
        authKey: str | None = None,
        settings: dict[str, Any] | None = None,
        **options: Any,
    ) -> ControlService:
        """All of it."""
        return ControlService(
            self.clock,
            ControlSettings(
                url=self.url,
                authKey=None if authKey is None else Secret(authKey),
                allowHTTP=True,
                **(settings or {}),
            ),
            identity or makeIdentity(),
            dialer=self.net,
            observer=self.observer,
            hostinfo=Hostinfo(os="linux", hostname="machine"),
            randbytes=fixedBytes(80),
            wallTime=self.wallTime,
            **options,
        )

    def pump(self) -> None:
        self.net.pump()

    def advance(self, seconds: float, steps: int = 1) -> None:
        self.net.advance(seconds, steps)

    def on(self, path: str, handler: Callable[[PeerRequest], None]) -> None:
        self.peer.handlers[path] = handler

    def answer(self, path: str, *answers: object) -> list[PeerRequest]:
        """
        Let C{path} answer with these, the last one again and again.

        @param answers: documents, numbers for an HTTP status, pairs of status
            and text, or C{None} for no answer at all.
        @return: the requests so far, a list that grows.
        """
        requests: list[PeerRequest] = []

        def handler(request: PeerRequest) -> None:
            answer = answers[min(len(requests), len(answers) - 1)]
            requests.append(request)
            give(request, answer)

        self.on(path, handler)
        return requests


def give(request: PeerRequest, answer: object) -> None:
    """Answer a request; see L{Harness.answer}."""
    if isinstance(answer, int):
        request.answer(b"", answer)
    elif isinstance(answer, tuple):
        status, text, *headers = answer
        request.answer(text.encode(), status, headers[0] if headers else None)
    elif isinstance(answer, bytes | dict):
        request.answer(answer)

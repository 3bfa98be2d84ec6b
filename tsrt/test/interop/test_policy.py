"""A real Headscale with a policy file, real nodes, and ours: who may do what."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.test.interop.headscalecase import HeadscaleTestCase
from tsrt.test.interop.programs import (
    ProgramFailed,
    eventually,
)
from tsrt.test.interop.scenario import Echo, Gather

CAPABILITY = "example.com/cap/files"
OWNERS = {"tag:ours": ["alice@"], "tag:real": ["alice@"]}


def policy(*allowed: tuple[str, str, str]) -> dict[str, Any]:
    """
    A policy that allows some flows, and what real nodes may do with our files.

    @param allowed: source, destination and ports of each.
    """
    grants: list[dict[str, Any]] = [
        {"src": [source], "dst": [destination], "ip": [ports]}
        for source, destination, ports in allowed
    ]
    grants.append(
        {
            "src": ["tag:real"],
            "dst": ["tag:ours"],
            "app": {CAPABILITY: [{"may": ["read", "write"]}]},
        }
    )
    return {"tagOwners": OWNERS, "grants": grants}


@implementer(IHalfCloseableProtocol)
class Drip(Protocol):
    """
    Sends a little, often, until it is told to finish.

    @ivar sent: how many bytes.
    @ivar isOpen: whether the connection is.
    """

    def __init__(self, reactor: Any, ended: list[Failure]) -> None:
        self._reactor = reactor
        self._ended = ended
        self._next: IDelayedCall | None = None
        self.sent = 0
        self.isOpen = True

    def connectionMade(self) -> None:
        """Begin."""
        self._say()

    def _say(self) -> None:
        self.sent += 4
        self.transport.write(b"drip")
        self._next = self._reactor.callLater(0.05, self._say)

    def finish(self) -> None:
        """Say no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self.transport.loseConnection()

    def readConnectionLost(self) -> None:
        """The other side has nothing to say."""

    def writeConnectionLost(self) -> None:
        """All was sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember how it ended."""
        self.isOpen = False
        if self._next is not None:
            self._next.cancel()
        self._ended.append(reason)


class PolicyTests(HeadscaleTestCase):
    """Flows that are allowed, flows that are not, and when that changes."""

    async def prepare(self) -> None:
        """Start two real nodes and ours, each kind with its tag."""
        await super().prepare()
        self.headscale.setPolicy(
            policy(
                ("tag:real", "tag:ours", "tcp:7,9,11"),
                ("tag:ours", "tag:real", "tcp:7"),
            )
        )
        # The policy has the owners of tags.
        keys = [
            await self.headscale.authKey("--reusable", "--tags", f"tag:{kind}")
            for kind in ("real", "ours")
        ]
        for name in ("gopeer", "second"):
            started = await self.startPeer(name, authkey=keys[0])
            self.real = started["addresses"]
        self.node = await self.startNode("ours", authKey=keys[1])
        self.own = self.node.status.addresses
        await eventually(
            self.reactor, lambda: len(self.node.peers()) == 2, "both are seen"
        )
        for port in (7, 8, 10):
            await self.listen(self.node, port, Echo)
            for name in self.peers:
                await self.peers[name].call(
                    "listen", network="tcp", address=f":{port}", mode="echo"
                )
        self.ended: list[Failure] = []
        self.drips: list[Drip] = []
        await eventually(
            self.reactor, lambda: self.mayReach(7), "the real node knows of ours"
        )
        for port in (9, 11):
            await self.listen(self.node, port, self.drip)

    def drip(self) -> Drip:
        """A protocol for one more flow."""
        self.drips.append(Drip(self.reactor, self.ended))
        return self.drips[-1]

    async def mayReach(self, port: int, address: str | None = None) -> bool:
        """Whether the real node reaches a port of ours."""
        host = address or self.own[0]
        host = f"[{host}]" if ":" in host else host
        try:
            answer = await self.peers["gopeer"].call(
                "dial", network="tcp", address=f"{host}:{port}", size=100, timeout=4
            )
        except ProgramFailed:
            return False
        return bool(answer["received"] == 100)

    async def reaches(self, port: int) -> bool:
        """Whether ours reaches a port of the real node."""
        gather = Gather(b"hello")
        factory = Factory()
        factory.protocol = lambda: gather
        try:
            await self.node.clientEndpoint(self.real[0], port, timeout=4).connect(
                factory
            )
        except TimeoutError:
            return False
        return await gather.finished == b"hello"

    async def test_flows(self) -> None:
        """Both directions, both families; a grant shows in C{whois}."""
        for address in self.own:
            self.assertTrue(await self.mayReach(7, address))
            self.assertFalse(await self.mayReach(8, address))
        self.assertTrue(await self.reaches(7))
        self.assertFalse(await self.reaches(8))
        who = self.node.whois(f"{self.real[0]}:1234")
        self.assertEqual(who.values(CAPABILITY), [{"may": ["read", "write"]}])
        self.assertEqual(who.node.tags, ("tag:real",))

    async def test_change(self) -> None:
        """
        A policy that changes while flows are open cuts those that it forbids,
        leaves the others alone, and holds for new ones at once.
        """
        cut, kept = (
            self.peers[name].call(
                "dial", network="tcp", address=f"{self.own[0]}:{port}", size=0
            )
            for name, port in (("gopeer", 9), ("second", 11))
        )
        broken: list[Any] = []
        cut.addBoth(broken.append)
        await self.pause(1)
        self.headscale.setPolicy(
            policy(
                ("tag:real", "tag:ours", "tcp:8,11"), ("tag:ours", "tag:real", "tcp:8")
            )
        )
        await eventually(self.reactor, lambda: self.ended, "one flow is cut")
        self.assertTrue(self.ended[0].check(ConnectionLost), self.ended[0])
        await eventually(self.reactor, lambda: broken, "the real node knows")
        [going] = [drip for drip in self.drips if drip.isOpen]
        before = going.sent
        await self.pause(1)
        going.finish()
        answer = await kept
        self.assertEqual(answer["received"], going.sent)
        self.assertGreater(going.sent, before)
        self.assertTrue(await self.mayReach(8))
        self.assertFalse(await self.mayReach(7))

        async def changed() -> bool:
            return await self.reaches(8)

        await eventually(self.reactor, changed, "the real node has the policy, too")
        self.assertFalse(await self.reaches(7))

"""Real nodes behind real NATs: the way through is found from both sides."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tsrt.test.interop.direct import PATIENCE, becomes
from tsrt.test.interop.namespaces import Namespace, RoutedNamespace
from tsrt.test.interop.scenario import MEGABYTE, digest, pattern
from tsrt.test.interop.test_devtailnet import DevServersTestCase


class _NATTests(DevServersTestCase):
    """A real node behind a router, one of ours outside."""

    masquerade = "masquerade"

    def makeNamespace(self) -> Namespace:
        """The foreign programs run behind a router."""
        return RoutedNamespace(self.masquerade)

    async def through(self) -> None:
        """Connect, see the router's address, and carry ten megabytes."""
        started = await self.startPeer("gopeer")
        peer = self.peers["gopeer"]
        node = await self.startNode("ours")
        real = started["addresses"][0]
        external = self.namespace.external
        await becomes(self, node, real, f"direct {external}:", PATIENCE)
        size = 10 * MEGABYTE
        await peer.call(
            "listen", network="tcp", address=":9", mode="source", size=size, seed=9
        )
        got = await self.exchange(node, real, 9, b"")
        self.assertEqual(digest(got), digest(pattern(9, size)))
        answer = await peer.call("ping", address=node.status.addresses[0], mode="disco")
        self.assertTrue(answer["endpoint"].startswith(self.namespace.hostAddress))


class EasyNATTests(_NATTests):
    """The router keeps ports where it can."""

    def test_through(self) -> Any:
        """The path leads through the router, within three seconds."""
        return Deferred.fromCoroutine(self.through())


class HardNATTests(_NATTests):
    """The router gives each destination another port."""

    masquerade = "masquerade random,fully-random"

    def test_through(self) -> Any:
        """The path leads through the router, within three seconds."""
        return Deferred.fromCoroutine(self.through())

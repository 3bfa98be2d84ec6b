"""Tests of L{tsrt.runtime.linkchange}: nodes that move, on a whole tailnet."""

from __future__ import annotations

from tsrt.test.faultworld import FaultTestCase
from tsrt.testing.clock import pump


class MovingTests(FaultTestCase):
    """Node C{a} changes its network while it talks with node C{b}."""

    def path(self, source: str = "a", target: str = "b") -> str:
        """How packets go now, in words."""
        address = self.net[target].status.addresses[0]
        result = self.net.wait(self.net[source].ping(address))
        return result.path

    def assertBackWithin(self, seconds: float) -> None:
        """The stream makes progress again, directly, and lost nothing."""
        progress = self.stream.progress
        pump(
            self.net.clock,
            lambda: self.stream.progress > progress + 3000,
            limit=seconds,
        )
        self.net.elapse(3)
        self.assertTrue(self.path().startswith("direct"), self.path())
        self.assertInnocent()

    def test_becomesDirect(self) -> None:
        """Two nodes that talk find a direct path within three seconds."""
        self.makeTailnet()
        self.net.elapse(2)
        self.assertTrue(self.path().startswith("direct"))
        self.assertTrue(self.path("b", "a").startswith("direct"))

    def test_otherAddress(self) -> None:
        """A host with another address carries the same streams within 5 s."""
        self.makeTailnet()
        self.net.elapse(5)
        self.net.internet.setAddresses(self.net.hosts["a"], ["198.18.200.1"])
        self.net.elapse(5)
        self.assertBackWithin(2)
        self.assertEqual(self.net["a"].status.health, ())
        peer = next(p for p in self.net["b"].peers() if p.hostname == "a")
        self.assertTrue(all("198.18.200.1" in e for e in peer.endpoints))

    def test_offlineAndBack(self) -> None:
        """A host without any network for a minute says so, and comes back."""
        self.makeTailnet()
        self.net.elapse(5)
        host = self.net.hosts["a"]
        former = list(host.addresses)
        self.net.internet.setAddresses(host, [])
        self.net.elapse(60)
        self.assertIn(
            "this machine has no network address", self.net["a"].status.health
        )
        self.net.internet.setAddresses(host, former)
        self.net.elapse(5)
        self.assertNotIn(
            "this machine has no network address", self.net["a"].status.health
        )
        self.net.elapse(60)
        self.assertBackWithin(30)

    def test_manyMoves(self) -> None:
        """Neither does a host that moves again and again lose anything."""
        self.makeTailnet()
        for number in range(1, 12):
            self.net.internet.setAddresses(
                self.net.hosts["a"], [f"198.18.201.{number}"]
            )
            self.net.elapse(7)
        self.assertBackWithin(10)
        ports = self.net.hosts["a"].ports
        self.assertLessEqual(len(ports), 2)

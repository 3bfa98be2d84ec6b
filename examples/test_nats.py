"""A test of two nodes behind NATs, between which the path fails and recovers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.testing.tailnet import TestTailnet


class NATTests(SynchronousTestCase):
    """Nodes find the best way to each other."""

    def path(self, tailnet: TestTailnet) -> str:
        """How packets from the laptop to the server go, after some seconds."""
        for _ in range(10):
            tailnet.wait(tailnet["laptop"].ping("server", timeout=20))
            tailnet.settle(2)
        return tailnet.wait(tailnet["laptop"].ping("server", kind="disco")).path

    def test_paths(self) -> None:
        """Directly from router to router, and by relay while that is cut."""
        tailnet = TestTailnet(nodes={"laptop": "easy", "server": "port-restricted"})
        self.addCleanup(tailnet.close)
        home = tailnet.hosts["laptop"].network
        office = tailnet.hosts["server"].network
        self.assertTrue(self.path(tailnet).startswith(f"direct {office.external}:"))

        tailnet.internet.cut(home, office)
        self.assertEqual(self.path(tailnet), "relay r900")

        tailnet.internet.heal(home, office)
        self.assertTrue(self.path(tailnet).startswith(f"direct {office.external}:"))

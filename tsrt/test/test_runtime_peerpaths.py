"""Tests for what a node tells of the paths to its peers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from tsrt.runtime.peerpaths import TELL_INTERVAL
from tsrt.services.statusfile import statusDocument
from tsrt.testing.tailnet import TestTailnet


class PathsTests(SynchronousTestCase):
    """C{node.status.paths} of nodes on a simulated internet."""

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=["a", "b", "c"])
        self.addCleanup(self.net.close)
        self.net.waitUp()
        self.node = self.net["a"]

    def talk(self) -> None:
        self.net.wait(self.node.ping("b"))
        self.net.elapse(2)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.net.clock.seconds(), UTC)

    def test_unused(self) -> None:
        """Only peers with which there was talk are listed; each is found."""
        paths = self.node.status.paths
        self.assertEqual(len(paths), 0)
        self.assertEqual(list(paths), [])
        path = paths["b"]
        self.assertTrue(path.path.startswith("relay "), path)
        self.assertIn("no direct path was looked for", path.why)
        self.assertFalse(path.isDirect)
        self.assertIsNone(path.latency)

    def test_direct(self) -> None:
        """A path tells where it leads, how long that takes, why, since when."""
        before = self.node.status.paths
        self.talk()
        paths = self.node.status.paths
        self.assertEqual(list(paths), ["b.tailnet.test"])
        path = paths["b.tailnet.test"]
        self.assertTrue(path.isDirect)
        self.assertTrue(path.path.startswith("direct "), path)
        self.assertIn(path.path, path.why)
        self.assertGreater(path.latency, 0.0)
        self.assertLess(self.now() - path.since, timedelta(seconds=3))
        self.assertEqual(path.address, "100.64.0.2")
        # A view: also the one of before tells what is so now.
        self.assertEqual(dict(before), dict(paths))
        for host in ("b", "B.tailnet.test.", "100.64.0.2", path.address):
            self.assertEqual(paths[host], path)
        for host in ("a", "nobody", "100.64.9.9", ""):
            self.assertNotIn(host, paths)
        self.assertEqual(repr(paths), "<PeerPaths 1 in use>")

    def test_watchers(self) -> None:
        """Watchers hear of changes, at most once in a second."""
        seen: list[float] = []
        stop = self.node.watchStatus(lambda _: seen.append(self.net.clock.seconds()))
        self.addCleanup(stop)
        seen.clear()
        self.talk()
        self.assertEqual(len(seen), 1)
        for name in ("b", "c"):
            self.net.wait(self.node.ping(name))
        self.net.elapse(5)
        gaps = [b - a for a, b in pairwise(seen)]
        self.assertGreaterEqual(min(gaps), TELL_INTERVAL)
        self.assertEqual(len(self.node.status.paths), 2)

    def test_document(self) -> None:
        """The status file has them, too."""
        self.talk()
        document = statusDocument(self.node.status)
        [(name, path)] = document["paths"].items()
        self.assertEqual(name, "b.tailnet.test")
        self.assertTrue(path["path"].startswith("direct "), path)
        self.assertGreater(path["latencySeconds"], 0)
        self.assertEqual(path["since"][:4], str(self.now().year))

    def test_stopped(self) -> None:
        """A node that does not run has none, and no timer is left."""
        self.talk()
        self.net.wait(self.net["c"].ping("a"))
        self.net.wait(self.node.stopService())
        self.assertEqual(dict(self.node.status.paths), {})

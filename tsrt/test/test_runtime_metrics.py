"""Tests for L{tsrt.runtime.metrics}."""

from __future__ import annotations

import re

from tsrt.node import Node
from tsrt.test.test_node import NodeTestCase

LINE = re.compile(r'[a-z_]+(\{([a-z]+="[^"]*",?)+\})? -?[0-9.e+]+')


class MetricsTests(NodeTestCase):
    """A node's counters are Prometheus text under the known names."""

    def test_wellFormed(self) -> None:
        """Each line is a comment or a value, each metric has help and type."""
        tailnet = self.tailnet("a", "b")
        tailnet.wait(tailnet["a"].ping("b"))
        text = tailnet["a"]._engine.metrics.text()
        named = set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                named.add(line.split()[2])
            elif not line.startswith("# HELP "):
                self.assertTrue(LINE.fullmatch(line), line)
                self.assertIn(re.split(r"[{ ]", line)[0], named)

    def test_values(self) -> None:
        """Traffic, relay and peers are counted."""
        tailnet = self.tailnet("a", "b")
        tailnet.wait(tailnet["a"].ping("b"))
        lines = tailnet["a"]._engine.metrics.text().splitlines()
        self.assertIn("tailscaled_home_derp_region_id 900", lines)
        self.assertIn("tailscaled_health_messages 0", lines)
        self.assertIn("tsrt_peers 1", lines)
        self.assertIn("tailscaled_advertised_routes 0", lines)
        dropped = "tailscaled_inbound_dropped_packets_total"
        self.assertIn(f'{dropped}{{reason="acl"}} 0', lines)
        self.assertIn('tsrt_dropped_total{part="filter",reason="Rule"} 0', lines)

    def values(self, node: Node, name: str) -> dict[str, float]:
        """A metric by kinds of path."""
        found = {}
        for line in node.metricsText().splitlines():
            match = re.fullmatch(rf'{name}{{path="(\w+)"}} (.*)', line)
            if match is not None:
                found[match[1]] = float(match[2])
        return found

    def test_paths(self) -> None:
        """What went by relay and what went directly is told apart."""
        tailnet = self.tailnet("a", "b")
        node = tailnet["a"]
        tailnet.wait(node.ping("b"))
        tailnet.settle(2)
        names = [
            f"tailscaled_{direction}_{what}_total"
            for direction in ("inbound", "outbound")
            for what in ("bytes", "packets")
        ]
        before = {name: self.values(node, name) for name in names}
        for name in names:
            self.assertGreater(before[name]["derp"], 0, name)
            self.assertEqual(before[name]["peer_relay_ipv4"], 0)
        for _ in range(5):
            tailnet.wait(node.ping("b"))
        for name in names:
            now = self.values(node, name)
            self.assertEqual(now["derp"], before[name]["derp"], name)
            least = 5 if "packets" in name else 5 * 80
            grown = now["direct_ipv4"] - before[name]["direct_ipv4"]
            self.assertGreaterEqual(grown, least, name)
            self.assertEqual(now["direct_ipv6"], 0)

    def test_c2n(self) -> None:
        """Control can ask for the metrics."""
        tailnet = self.tailnet("a")
        answer = tailnet.wait(tailnet.control.c2n("a", "/debug/metrics", method="POST"))
        if answer.status == 405:
            answer = tailnet.wait(tailnet.control.c2n("a", "/debug/metrics"))
        self.assertEqual(answer.status, 200)
        self.assertIn(b"tailscaled_home_derp_region_id 900", bytes(answer.body))

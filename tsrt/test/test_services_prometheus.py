"""Tests of L{tsrt.services.prometheus}, and of our text with a real parser."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from tsrt.services.prometheus import NodeCollector
from tsrt.testing.tailnet import TestTailnet

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """What Prometheus makes of a text."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class PrometheusTests(SynchronousTestCase):
    """A node that carried something."""

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=["a", "b"])
        self.addCleanup(self.net.close)
        self.node = self.net["a"]
        self.net.wait(self.node.ping("b"))

    def test_sameAsText(self) -> None:
        """Its own client library and its parser find what our text says."""
        registry = CollectorRegistry()
        registry.register(NodeCollector(self.node))
        ours = samples(self.node.metricsText())
        theirs = samples(generate_latest(registry).decode())
        self.assertEqual(ours, theirs)
        self.assertGreater(len(ours), 100)
        relayed = "tailscaled_inbound_bytes_total", (("path", "derp"),)
        self.assertGreater(ours[relayed], 0)

    def test_notRunning(self) -> None:
        """A node that is stopped has no metrics, and hurts no other."""
        registry = CollectorRegistry()
        registry.register(NodeCollector(self.node))
        self.net.wait(self.node.stopService())
        self.assertEqual(samples(generate_latest(registry).decode()), {})

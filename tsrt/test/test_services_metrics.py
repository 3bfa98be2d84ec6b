"""Tests of L{tsrt.services.metrics}."""

from __future__ import annotations

from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent, readBody
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from tsrt.services.metrics import MetricsService
from tsrt.testing.tailnet import TestTailnet


@implementer(IAgentEndpointFactory)
class MetricsTests(SynchronousTestCase):
    """A node, and whoever watches it."""

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=["a"])
        self.addCleanup(self.net.close)
        self.host = self.net.hosts["a"]
        self.node = self.net["a"]
        service = MetricsService(
            self.host,
            TCP4ServerEndpoint(self.host, 9100, interface="127.0.0.1"),
            self.node.metricsText,
            lambda: self.node.status,
        )
        service.startService()
        self.addCleanup(service.stopService)

    def endpointForURI(self, uri: object) -> TCP4ClientEndpoint:
        """See L{IAgentEndpointFactory}."""
        return TCP4ClientEndpoint(self.host, "127.0.0.1", 9100)

    def get(self, path: str) -> tuple[int, str]:
        """Ask for a page."""
        agent = Agent.usingEndpointFactory(self.host, self)
        url = f"http://127.0.0.1:9100{path}".encode()
        response = self.net.wait(agent.request(b"GET", url))
        return response.code, self.net.wait(readBody(response)).decode()

    def test_running(self) -> None:
        """All counters, and that all is well."""
        self.assertEqual(self.get("/metrics"), (200, self.node.metricsText()))
        self.assertEqual(self.get("/healthz"), (200, "Running\n"))
        self.assertEqual(self.get("/other")[0], 404)
        self.node.setPreferences(exitNode="nobody")
        code, text = self.get("/healthz")
        self.assertEqual(code, 200)
        self.assertIn("no peer is the exit node nobody", text)

    def test_stopped(self) -> None:
        """A node that is not up is not well."""
        self.net.wait(self.node.stopService())
        self.assertEqual(self.get("/healthz"), (503, "Stopped\n"))
        code, text = self.get("/metrics")
        self.assertEqual(code, 503)
        self.assertTrue(text.startswith("# "))

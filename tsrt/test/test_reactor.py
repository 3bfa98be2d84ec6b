"""Tests for the tailnet as a reactor."""

from __future__ import annotations

from twisted.internet.interfaces import (
    IReactorPluggableNameResolver,
    IReactorSSL,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
)
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from tsrt.names import TailnetHostnameResolver
from tsrt.reactor import TailnetReactor
from tsrt.test.overlaynet import OverlayNet


class ReactorTests(SynchronousTestCase):
    """L{TailnetReactor} itself; what it connects is tested elsewhere."""

    def setUp(self) -> None:
        self.net = OverlayNet()
        self.tailnet = self.net.a.tailnet

    def test_interfaces(self) -> None:
        """It provides what it says."""
        for interface in (
            IReactorTCP,
            IReactorUDP,
            IReactorSSL,
            IReactorTime,
            IReactorPluggableNameResolver,
        ):
            self.assertTrue(verifyClass(interface, TailnetReactor))
            self.assertTrue(verifyObject(interface, self.tailnet))

    def test_time(self) -> None:
        """It keeps the host reactor's time, and its delayed calls."""
        called = []
        call = self.tailnet.callLater(3, lambda *a, **k: called.append((a, k)), 1, x=2)
        self.assertEqual([call], list(self.tailnet.getDelayedCalls()))
        self.net.clock.advance(3)
        self.assertEqual([((1,), {"x": 2})], called)
        self.assertEqual(self.net.clock.seconds(), self.tailnet.seconds())

    def test_asClock(self) -> None:
        """It serves as the clock of what Twisted has that wants one."""
        ticks = []
        loop = LoopingCall(lambda: ticks.append(self.tailnet.seconds()))
        loop.clock = self.tailnet
        loop.start(1)
        self.net.clock.pump([1, 1])
        self.assertEqual([0, 1, 2], ticks)
        loop.stop()

    def test_installNameResolver(self) -> None:
        """Another resolver takes the place of the former, which is returned."""
        former = self.tailnet.nameResolver
        other = TailnetHostnameResolver(self.net.b)
        self.assertIs(former, self.tailnet.installNameResolver(other))
        self.assertIs(other, self.tailnet.nameResolver)

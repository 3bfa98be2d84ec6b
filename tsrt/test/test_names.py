"""Tests for resolving tailnet names through a reactor."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyClass, verifyObject

from tsrt.names import PATIENCE, TailnetResolution
from tsrt.test.overlaynet import B4, B6, OverlayNet


@implementer(IResolutionReceiver)
class Receiver:
    """Keeps what a resolver reports."""

    def __init__(self) -> None:
        self.resolution: IHostResolution | None = None
        self.found: list[object] = []
        self.complete = 0

    def resolutionBegan(self, resolutionInProgress) -> None:
        self.resolution = resolutionInProgress

    def addressResolved(self, address) -> None:
        assert self.resolution is not None
        self.found.append(address)

    def resolutionComplete(self) -> None:
        self.complete += 1


class NamesTests(SynchronousTestCase):
    """L{TailnetHostnameResolver}."""

    def setUp(self) -> None:
        self.net = OverlayNet()
        self.resolver = self.net.a.tailnet.nameResolver

    def resolve(self, name: str, *more: object) -> Receiver:
        receiver = Receiver()
        resolution = self.resolver.resolveHostName(receiver, name, *more)
        self.assertIs(resolution, receiver.resolution)
        self.assertEqual(name, resolution.name)
        return receiver

    def test_interfaces(self) -> None:
        """Resolver and look-up are what they should be."""
        self.assertTrue(verifyObject(IHostnameResolver, self.resolver))
        self.assertTrue(verifyClass(IHostResolution, TailnetResolution))
        self.assertTrue(verifyObject(IHostResolution, TailnetResolution("x")))

    def test_name(self) -> None:
        """A name has its node's addresses, IPv4 first, at once."""
        receiver = self.resolve("b", 80)
        self.assertEqual(
            [IPv4Address("TCP", B4, 80), IPv6Address("TCP", B6, 80)], receiver.found
        )
        self.assertEqual(1, receiver.complete)
        self.assertEqual([], self.net.clock.getDelayedCalls())

    def test_oneFamily(self) -> None:
        """Only the kinds of addresses that are wanted are reported."""
        self.assertEqual(
            [IPv6Address("TCP", B6, 0)], self.resolve("b", 0, [IPv6Address]).found
        )
        self.assertEqual(
            [IPv4Address("TCP", B4, 0)], self.resolve("b", 0, [IPv4Address]).found
        )

    def test_udp(self) -> None:
        """Addresses are made for the transport that is wanted."""
        receiver = self.resolve("b", 53, None, "UDP")
        self.assertEqual(IPv4Address("UDP", B4, 53), receiver.found[0])

    def test_literal(self) -> None:
        """An address literal resolves to itself."""
        self.assertEqual([IPv6Address("TCP", B6, 1)], self.resolve(B6, 1).found)
        self.assertEqual(
            [IPv4Address("TCP", "8.8.8.8", 1)], self.resolve("8.8.8.8", 1).found
        )

    def test_unknown(self) -> None:
        """An unknown name has no addresses."""
        receiver = self.resolve("nobody")
        self.assertEqual(([], 1), (receiver.found, receiver.complete))


class WaitingNamesTests(SynchronousTestCase):
    """Look-ups before the node is up."""

    def setUp(self) -> None:
        self.net = OverlayNet(up=False)
        self.receiver = Receiver()
        self.resolution = self.net.a.tailnet.nameResolver.resolveHostName(
            self.receiver, "b"
        )
        self.assertEqual(0, self.receiver.complete)

    def test_up(self) -> None:
        """The answer comes when the node does."""
        self.net.elapse(20)
        self.net.a.setUp()
        self.assertEqual(2, len(self.receiver.found))
        self.assertEqual(1, self.receiver.complete)
        self.assertEqual([], self.net.clock.getDelayedCalls())

    def test_cancel(self) -> None:
        """A look-up that was cancelled reports nothing any more."""
        self.resolution.cancel()
        self.resolution.cancel()
        self.net.a.setUp()
        self.net.elapse(PATIENCE * 2)
        self.assertEqual(([], 0), (self.receiver.found, self.receiver.complete))

    def test_patience(self) -> None:
        """A node that does not come up ends the look-up without an answer."""
        self.net.elapse(PATIENCE - 0.1)
        self.assertEqual(0, self.receiver.complete)
        self.net.elapse(0.2)
        self.assertEqual(([], 1), (self.receiver.found, self.receiver.complete))
        self.net.a.setUp()
        self.assertEqual(1, self.receiver.complete)

"""
Much data through whole nodes: nothing in between may keep a stream slow.
"""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tsrt.netstack.sender import Sender
from tsrt.testing.clock import pump
from tsrt.testing.links import Link
from tsrt.testing.tailnet import TestTailnet

MEGABYTE = 1_000_000


@implementer(IPushProducer)
class Source(Protocol):
    """Writes so many bytes as fast as they are taken."""

    left = 10 * MEGABYTE
    paused = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        while self.left and not self.paused:
            size = min(self.left, 65536)
            self.left -= size
            self.transport.write(bytes(size))
        if not self.left:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        pass


class Sink(Protocol):
    """Counts what comes."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.size += len(data)


class BulkTests(SynchronousTestCase):
    """Ten megabytes from node C{a} to node C{b}."""

    def carry(self, links: Link, limit: float, **settings: object) -> Sender:
        """
        Send them, within C{limit} simulated seconds.

        @return: the state of the sender in the end.
        """
        self.net = net = TestTailnet(links=links)
        self.addCleanup(net.close)
        for name in ("a", "b"):
            net.addNode(name, **settings)
        net.waitUp()
        # Let the nodes find their paths.
        net.elapse(10)
        factory = Factory.forProtocol(Sink)
        factory.size = 0
        net.wait(net["b"].serverEndpoint(7).listen(factory))
        source = net.wait(
            net["a"].clientEndpoint("b", 7).connect(Factory.forProtocol(Source))
        )
        sender = source.transport._flow._tcb.sender
        self.widest = 0

        def arrived() -> bool:
            self.widest = max(self.widest, sender.congestion.window // sender.mss)
            return factory.size == 10 * MEGABYTE

        pump(net.clock, arrived, limit=limit)
        return sender

    def dropped(self) -> int:
        """Packets that C{a} dropped before they were on any wire."""
        pool = self.net["a"]._engine.getServiceNamed("relays")
        regions = pool.status().regions.values()
        return sum(region.counters["droppedFull"] for region in regions)

    def test_relayed(self) -> None:
        """
        By a relay the window grows until the streams with the relay are full;
        no node drops packets of its own for having many at once.
        """
        sender = self.carry(Link(delay=0.01), 1.3, relayOnly=True)
        self.assertGreater(self.widest, 400)
        self.assertEqual(self.dropped(), 0)
        self.assertEqual(sender.timerFires, 0)

    def test_relayedFar(self) -> None:
        """
        A long way takes longer in proportion, and no more, though now the
        streams with the relay are what keeps packets waiting.
        """
        sender = self.carry(Link(delay=0.05), 7.0, relayOnly=True)
        self.assertGreater(self.widest, 400)
        self.assertEqual(sender.timerFires, 0)

    def test_direct(self) -> None:
        """On the direct path nothing is lost, and the receive window is filled."""
        sender = self.carry(Link(delay=0.01), 0.6)
        self.assertEqual(sender.retransmissions, 0)
        self.assertGreater(self.widest, 800)

    def test_families(self) -> None:
        """What goes to both addresses of a node ends at one socket, and shares it."""
        self.net = net = TestTailnet()
        self.addCleanup(net.close)
        for name in ("a", "b", "c"):
            net.addNode(name)
        net.waitUp()
        shares = []
        for name in ("b", "c"):
            net.wait(net[name].serverEndpoint(7).listen(Factory.forProtocol(Sink)))
            for address in net[name].status.addresses:
                endpoint = net["a"].clientEndpoint(address, 7)
                protocol = net.wait(endpoint.connect(Factory.forProtocol(Protocol)))
                shares.append(protocol.transport._flow.share)
        [four, six, other, _] = shares
        self.assertIs(four, six)
        self.assertIsNot(four, other)

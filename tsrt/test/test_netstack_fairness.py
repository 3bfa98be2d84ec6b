"""
Many flows between two stacks: each gets about as much as the next, all of them together
about as much as one, and a small message does not wait for all the rest.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.dataplane.runs import packetsOf
from tsrt.netstack.flow import TCPFlow
from tsrt.netstack.flowtable import CALLED_LIMIT
from tsrt.netstack.share import MOST
from tsrt.test.stackpair import FAR, NEAR, StackPair

RATE = 500e6
"""Bytes that a node gets through in a second: a short path has no other bottleneck."""

SOCKET = 7 << 20
"""Bytes that the socket at the end of it holds."""

PACKET = 1280


class FairnessTestCase(SynchronousTestCase):
    """What these tests have in common."""

    def start(self, net: StackPair, count: int) -> list[TCPFlow]:
        """Have flows send as much as they can."""
        flows = net.connect(count)
        for flow in flows:
            net.fill(flow)
        return flows

    def carried(
        self, net: StackPair, flows: list[TCPFlow], seconds: float
    ) -> list[int]:
        """Let some time pass; the bytes that each flow brought by then."""
        net.read.clear()
        net.run(seconds)
        return [net.read.get(flow.localPort, 0) for flow in flows]


class ShortPathTests(FairnessTestCase):
    """Two nodes on one machine."""

    def pair(self) -> StackPair:
        return StackPair(NEAR, RATE, SOCKET // PACKET)

    def share(self, count: int, seconds: float, ratio: float) -> int:
        """
        Send by many flows for some time.

        @param ratio: what the luckiest may have more than the unluckiest, as a factor.
        @return: the bytes that all brought.
        """
        net = self.pair()
        flows = self.start(net, count)
        brought = self.carried(net, flows, seconds)
        self.assertLess(max(brought), ratio * min(brought))
        for flow in flows:
            state = flow._tcb.sender
            self.assertEqual((state.timerFires, state.retransmissions), (0, 0))
        self.assertEqual(net.there.dropped, 0)
        return sum(brought)

    def test_ten(self) -> None:
        """Ten flows, a fifth of a second."""
        alone = self.share(1, 0.2, 1.01)
        self.assertGreater(alone, 0.9 * 0.2 * RATE)
        self.assertGreater(self.share(10, 0.2, 1.25), 0.95 * alone)

    def test_hundred(self) -> None:
        """A hundred."""
        alone = self.share(1, 0.3, 1.01)
        self.assertGreater(self.share(100, 0.3, 1.6), 0.95 * alone)

    def test_thousand(self) -> None:
        """A thousand: none has had more than some turns by then."""
        alone = self.share(1, 1.0, 1.01)
        self.assertGreater(self.share(1000, 1.0, 2.0), 0.95 * alone)

    def test_smallMessage(self) -> None:
        """
        A message among a hundred flows leaves in the turn in which it is written, and
        waits for nothing but what is on its way already.
        """
        net = self.pair()
        [flow] = net.connect()
        self.start(net, 100)
        net.run(0.2)
        longest = 0.0
        for _ in range(50):
            # The turns of the others go on meanwhile.
            net.run(0.00137)
            self.assertTrue(net.share().waiting)
            net.sent.clear()
            net.read.pop(flow.localPort, None)
            written = net.now
            flow.write(b"message")
            net.settle()
            mine = flow._tcb.builder.front(0)[-4:]
            packets = [item for _, item in net.sent if isinstance(item, bytes)]
            self.assertEqual([packet[20:24] for packet in packets], [mine])
            net.until(lambda: flow.localPort in net.read)
            longest = max(longest, net.now - written)
        whole = MOST + (CALLED_LIMIT + 200) * PACKET
        self.assertLess(longest, whole * 1.05 / RATE + 2 * NEAR)


class CutPair(StackPair):
    """Where the link takes packets one by one, and loses them one by one."""

    def _carry(self, stack, items) -> None:
        super()._carry(stack, packetsOf(items))


class LongPathTests(FairnessTestCase):
    """Far nodes, and a bottleneck in between that loses what it cannot queue."""

    def test_ten(self) -> None:
        """Once they have found their windows, ten flows fill it as one does."""
        rate, seconds = 5e6, 4.0
        totals = []
        for count, ratio in ((1, 1.01), (10, 4.0)):
            # The queue holds what a round trip does.
            net = CutPair(FAR, rate, int(2 * FAR * rate) // PACKET)
            flows = self.start(net, count)
            net.run(3.0)
            brought = self.carried(net, flows, seconds)
            self.assertLess(max(brought), ratio * min(brought))
            totals.append(sum(brought))
        self.assertGreater(totals[0], 0.85 * rate * seconds)
        self.assertGreater(totals[1], 0.92 * totals[0])

"""
Many flows between two stacks: each gets about as much as the next, all of them together
about as much as one, and a small message does not wait for all the rest.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.dataplane.runs import Outgoing, SegmentRun, countOf
from tsrt.netstack.flow import TCPFlow
from tsrt.netstack.flowtable import CALLED_LIMIT, TURN_LIMIT
from tsrt.netstack.pacing import LONG
from tsrt.netstack.share import MOST
from tsrt.test.stackpair import ELSEWHERE, FAR, NEAR, THERE, CutPair, StackPair

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


class Busy:
    """Stands for a flow that fills a turn, to a node where there is always room."""

    share = None
    retired = False
    remoteAddress = ELSEWHERE

    def dispatch(self, now: float, mustWait: bool) -> list[Outgoing]:
        return [bytes(40)] * TURN_LIMIT

    def takeReady(self) -> bool:
        return False

    def recount(self) -> None:
        """Nothing is counted."""

    def deadline(self) -> None:
        """Nothing is due."""


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

    def test_twoAddresses(self) -> None:
        """Flows to two addresses of a node end at one socket."""
        net = self.pair()
        net.source.nodeAt = {THERE: b"node", ELSEWHERE: b"node"}.__getitem__
        flows = net.connect(30) + net.connect(30, ELSEWHERE)
        for flow in flows:
            net.fill(flow)
        net.run(0.3)
        self.assertEqual(net.there.dropped, 0)
        for flow in flows:
            self.assertEqual(flow._tcb.sender.retransmissions, 0)
        self.assertIs(net.share(THERE), net.share(ELSEWHERE))
        # It was another path: what its round trips took says nothing.
        net.source.pathRenewed([ELSEWHERE, THERE], net.now)
        self.assertIs(net.share().smallest, None)
        for flow in flows:
            flow.abort()
        net.settle()
        self.assertIs(net.share(), None)

    def test_lateComer(self) -> None:
        """
        A flow that has never seen the path free learns of others that it is short,
        and is not paced.
        """
        net = self.pair()
        self.start(net, 60)
        net.run(0.2)
        began = net.now
        [late] = net.connect()
        self.assertGreater(net.now - began, LONG)
        net.fill(late)
        net.run(0.1)
        sender = late._tcb.sender
        self.assertEqual(sender.rtt.smallest, net.share().smallest)
        self.assertLess(sender.rtt.smallest, LONG)
        self.assertIs(sender.pacer.at, None)

    def test_busyTurns(self) -> None:
        """Who is called sends, even when other flows fill each turn."""
        net = self.pair()
        self.start(net, 60)
        net.run(0.2)
        table = net.source._flows
        for turn in range(3):
            self.assertGreater(len(net.share().waiting), 30)
            table._pending.update(dict.fromkeys((Busy(), Busy())))
            net.source.pathRenewed([THERE], net.now)
            items: list[Outgoing] = []
            table.dispatch(net.now, items)
            runs = [item for item in items if isinstance(item, SegmentRun)]
            self.assertGreater(countOf(runs), 0, turn)
            self.assertLessEqual(countOf(runs), CALLED_LIMIT)
            self.assertEqual(len(items) - len(runs), TURN_LIMIT)
            # Of the busy ones each gets a turn.
            self.assertIsInstance(next(iter(table._pending)), Busy)
            table._pending.clear()

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

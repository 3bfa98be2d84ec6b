"""
Tests of L{tsrt.netstack.share}, and of how L{tsrt.netstack.flowtable} has flows take
turns.
"""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tsrt.dataplane.runs import Outgoing, SegmentRun
from tsrt.netstack import share as shareModule
from tsrt.netstack.flow import CloseReason, TCPFlow
from tsrt.netstack.flowtable import CALLED_LIMIT
from tsrt.netstack.share import MOST, SHORT, Share
from tsrt.test.stackpair import ELSEWHERE, FAR, HERE, PORT, THERE, StackPair

MSS = 1228
"""Bytes of payload in a full segment."""

ONCE = CALLED_LIMIT * MSS
"""Bytes that one dispatch makes."""

WINDOW = 10 * MSS
"""Bytes that a new flow sends at once."""

LIVES = 200
"""How many times flows live in some order."""

RATE = 500e6
"""Bytes that a link carries in a second."""


class ShareTests(SynchronousTestCase):
    """L{Share} by itself."""

    def test_room(self) -> None:
        """Only on a short path there is a bound."""
        share = Share(b"there")
        for flight, smallest, expected in (
            (MOST, None, True),
            (MOST - 1, SHORT / 2, True),
            (MOST, SHORT / 2, False),
            (MOST, SHORT, True),
        ):
            share.flight, share.smallest = flight, smallest
            self.assertIs(share.hasRoom, expected)


class SharingTestCase(SynchronousTestCase):
    """What these tests have in common."""

    def pair(self, count: int = 0, **settings: float) -> StackPair:
        """Two stacks, and flows from one to the other; the accounts are checked."""
        self.net = StackPair(**settings)
        self.flows = self.net.connect(count)
        self.most = 0
        self.net.watch = self.check
        return self.net

    def check(self) -> None:
        """What is counted together is what is counted for each."""
        flows = self.net.source.flows()
        for remote in (THERE, ELSEWHERE):
            mine = [flow for flow in flows if flow.remoteAddress == remote]
            share = self.net.share(remote)
            if share is None:
                self.assertEqual(mine, [])
                continue
            self.assertEqual(share.count, len(mine))
            flight = sum(flow._tcb.sender.pipe for flow in mine)
            self.assertEqual(share.flight, flight)
            self.assertLessEqual(set(share.waiting), set(mine))
            self.most = max(self.most, flight)

    def full(self, count: int = 12) -> StackPair:
        """
        A share without room: half of the flows have sent what vanishes, and the
        others wait with nothing on its way.
        """
        # What the first windows of half of them hold.
        self.patch(shareModule, "MOST", count // 2 * WINDOW)
        net = self.pair(count)
        net.lose = lambda item: True
        for flow in self.flows:
            net.fill(flow)
        net.settle()
        self.sending, self.waiting = self.flows[: count // 2], self.flows[count // 2 :]
        self.assertEqual([*net.share().waiting], self.waiting)
        self.assertFalse(net.share().hasRoom)
        return net

    def runsOf(self, flow: TCPFlow) -> list[SegmentRun]:
        """What a flow has sent in runs."""
        return [item for _, item in self.net.sent if isOf(item, flow)]


def isOf(item: Outgoing, flow: TCPFlow) -> bool:
    """Whether something that leaves is a run of a flow."""
    return isinstance(item, SegmentRun) and item.builder is flow._tcb.builder


class BoundTests(SharingTestCase):
    """How much is on its way."""

    def test_shortPath(self) -> None:
        """Not more than fits, and what the last one sends that is called."""
        net = self.pair(20, rate=RATE)
        for flow in self.flows:
            net.fill(flow)
        net.run(0.3)
        self.assertGreater(self.most, MOST - ONCE)
        # A probe is no more than a segment, and small ends of data do not wait.
        self.assertLess(self.most, MOST + ONCE + 20 * 2 * MSS)
        self.assertEqual(net.there.dropped, 0)

    def test_longPath(self) -> None:
        """As much as the windows allow, and nobody waits."""
        net = self.pair(6, delay=FAR)
        waited = 0

        def watch() -> None:
            nonlocal waited
            self.check()
            waited += len(net.share().waiting)

        net.watch = watch
        for flow in self.flows:
            net.fill(flow)
        net.run(0.6)
        self.assertGreater(self.most, MOST + ONCE)
        self.assertEqual(waited, 0)

    def test_eachAddress(self) -> None:
        """Each address has a share of its own."""
        net = self.full()
        net.lose = lambda item: isinstance(item, SegmentRun)
        [flow] = net.connect(1, ELSEWHERE)
        net.fill(flow)
        net.settle()
        self.assertEqual(len(self.runsOf(flow)), 1)
        self.assertEqual((net.share().flight, net.share().count), (6 * WINDOW, 12))
        share = net.share(ELSEWHERE)
        self.assertEqual((share.flight, share.count), (WINDOW, 1))

    def test_selfTalk(self) -> None:
        """What a node says to itself is on its way nowhere."""
        net = self.pair()
        net.source.listenTCP(PORT, net.now)
        flow = net.source.connectTCP(HERE, PORT, net.now)
        net.fill(flow, 30_000)
        net.run(1.0)
        self.assertEqual(flow.queued, 0)
        self.assertEqual([each.share for each in net.source.flows()], [None, None])
        self.assertEqual(net.source._flows._shares, {})

    def test_small(self) -> None:
        """What is small does not wait, however many do."""
        net = self.full()
        net.lose = lambda item: isinstance(item, SegmentRun)
        [flow] = net.connect()
        net.sent.clear()
        flow.write(bytes(2 * MSS))
        net.settle()
        self.assertEqual([isOf(item, flow) for _, item in net.sent], [True])
        self.assertEqual(net.sent[0][0], net.now)


class TurnTests(SharingTestCase):
    """Who sends when, and who does not."""

    def test_order(self) -> None:
        """Those that wait are called in the order in which they began to."""
        net = self.pair(20, rate=RATE)
        for flow in self.flows:
            net.fill(flow)
        net.run(0.1)
        waiting = [*net.share().waiting]
        self.assertGreater(len(waiting), 5)
        net.sent.clear()
        net.run(1.0, lambda: all(self.runsOf(flow) for flow in waiting))
        called = dict.fromkeys(
            flow for _, item in net.sent for flow in self.flows if isOf(item, flow)
        )
        self.assertEqual([flow for flow in called if flow in waiting], waiting)

    def test_atRest(self) -> None:
        """
        A flow that waits has no timer running, and the stack nothing to do before
        the timers of the others.
        """
        net = self.full()
        for flow in self.waiting:
            self.assertIsNone(flow.deadline())
        self.assertFalse(net.source._flows.isPending)
        self.assertGreater(net.source.deadline(), net.now)
        # Having more to send gives no flow another place.
        for flow in reversed(self.waiting):
            flow.write(b"more")
        net.settle()
        self.assertEqual([*net.share().waiting], self.waiting)
        self.assertEqual([self.runsOf(flow) for flow in self.waiting], [[]] * 6)

    def test_closedWindow(self) -> None:
        """A flow whose peer makes room while it waits does not probe for room."""
        self.patch(shareModule, "MOST", WINDOW)
        net = self.pair(2)
        filler, flow = self.flows
        net.deaf.add(flow.localPort)
        net.fill(flow)
        net.run(1.0, lambda: flow._tcb.sender.persist.at is not None)
        self.assertEqual(net.share().flight, 0)
        net.lose = lambda item: isOf(item, filler)
        net.fill(filler)
        net.settle()
        self.assertFalse(net.share().hasRoom)
        net.wake()
        net.run(0.002)
        self.assertIn(flow, net.share().waiting)
        self.assertIsNone(flow._tcb.sender.persist.at)
        self.assertIsNone(flow.deadline())

    def test_waitIsNotIdleness(self) -> None:
        """
        A flow that was not called for longer than its timeout has been no less busy
        for that: its window stays.
        """
        self.patch(shareModule, "MOST", 2 * WINDOW)
        # Each of them has a turn in a second or so.
        net = self.pair(40, rate=1e6)
        windows = [0] * 40

        def watch() -> None:
            self.check()
            for at, flow in enumerate(self.flows):
                window = flow._tcb.sender.congestion.window
                self.assertGreaterEqual(window, windows[at])
                windows[at] = window

        net.watch = watch
        for flow in self.flows:
            net.fill(flow)
        net.run(5.0)
        self.assertGreater(min(windows), WINDOW)

    def test_probeIsNoTurn(self) -> None:
        """
        A flow that asks whether the end of its flight arrived sends that one segment,
        and what else it has waits for its turn.
        """
        net = self.full()
        first = self.sending[0]
        share = net.share()
        net.sent.clear()
        net.run(0.2, lambda: first._tcb.sender.tail.count > 0)
        self.assertGreater(first._tcb.sender.tail.count, 0)
        net.settle()
        self.assertEqual(sum(map(len, self.runsOf(first))), 0)
        self.assertLessEqual(share.flight, 6 * (WINDOW + MSS))
        self.assertIn(first, share.waiting)


class LossTests(SharingTestCase):
    """Nothing comes back."""

    def test_others(self) -> None:
        """
        Flows all of whose packets are lost keep the others waiting until their timers
        expire, and no longer.
        """
        net = self.full()
        lost = self.sending
        net.lose = lambda item: any(isOf(item, flow) for flow in lost)
        timeout = max(flow._tcb.sender.rtt.timeout for flow in lost)
        net.run(timeout + 0.05)
        for flow in self.waiting:
            self.assertGreater(net.read.get(flow.localPort, 0), 100 * MSS)
        for flow in lost:
            self.assertGreater(flow._tcb.sender.timerFires, 0)

    def test_pathRenewed(self) -> None:
        """When there may be another path, all that wait go on, at once."""
        net = self.full()
        net.source.pathRenewed([ELSEWHERE], net.now)
        self.assertFalse(net.source._flows.isPending)
        net.source.pathRenewed([THERE], net.now)
        self.assertEqual(net.source.deadline(), net.now)
        net.settle()
        self.assertEqual([len(self.runsOf(flow)) for flow in self.waiting], [1] * 6)
        self.assertEqual(net.share().flight, 12 * WINDOW)
        self.assertFalse(net.source._flows.isPending)

    def test_longerPath(self) -> None:
        """What was measured on the former path says nothing of a new one."""
        net = self.full()
        net.lose = lambda item: False
        net.there.delay = net.back.delay = FAR
        net.source.pathRenewed([THERE], net.now)
        net.run(3.0)
        self.assertGreater(net.share().smallest, FAR)
        self.assertGreater(self.most, 20 * 12 * WINDOW)


class EndTests(SharingTestCase):
    """Flows end while they wait, and while they do not."""

    def assertForgotten(self) -> None:
        """Nothing is left of any share."""
        table = self.net.source._flows
        self.assertEqual((len(table), table._shares, table._called), (0, {}, {}))
        self.assertFalse(table.isPending)

    def test_delivered(self) -> None:
        """All arrived: nothing is on its way, and the last flow takes the share along."""
        net = self.pair(20, rate=RATE)
        for flow in self.flows:
            net.fill(flow, 2_000_000)
        net.run(1.0)
        self.assertEqual(sum(net.read.values()), 20 * 2_000_000)
        self.assertGreater(self.most, MOST)
        share = net.share()
        self.assertEqual((share.flight, len(share.waiting), share.count), (0, 0, 20))
        for flow in self.flows:
            flow.shutdownWrite()
        for flow in net.sink.flows():
            flow.shutdownWrite()
        net.run(60.0)
        self.assertForgotten()

    def test_aborted(self) -> None:
        """Flows that the application gives up leave room for those that are left."""
        net = self.full()
        self.waiting[0].abort()
        net.settle()
        share = net.share()
        self.assertEqual((share.count, share.flight), (11, 6 * WINDOW))
        self.assertEqual([*share.waiting], self.waiting[1:])
        self.sending[0].abort()
        net.settle()
        # It was called who is next.
        self.assertEqual((share.count, share.flight), (10, 6 * WINDOW))
        self.assertEqual([*share.waiting], self.waiting[2:])
        self.assertEqual(len(self.runsOf(self.waiting[1])), 1)
        for flow in self.flows:
            flow.abort()
        net.settle()
        self.assertForgotten()

    def test_resetByPeer(self) -> None:
        """The same for flows that the peer resets."""
        net = self.full()
        for flow in net.sink.flows():
            flow.abort()
        net.run(0.01)
        self.assertForgotten()

    def test_lastOfThemAborted(self) -> None:
        """The last one that waits may end in the turn in which it is called."""
        net = self.full(2)
        [sending], [waiting] = self.sending, self.waiting
        # As when something arrives for one, and then the application is told.
        sending._tcb.sender.una = sending._tcb.sender.nxt
        net.source._flows._settle(sending)
        self.assertEqual([*net.source._flows._called], [net.share()])
        waiting.abort()
        net.settle()
        self.assertEqual((net.share().count, net.share().flight), (1, 0))
        self.assertFalse(net.source._flows.isPending)

    def test_lastOfThemReset(self) -> None:
        """So it may by a reset that comes together with what makes room."""
        self.patch(shareModule, "MOST", WINDOW)
        net = self.pair(2)
        sending, waiting = self.flows
        net.fill(sending, WINDOW)
        net.fill(waiting)
        net.settle()
        self.assertEqual([*net.share().waiting], [waiting])
        [port] = [f for f in net.sink.flows() if f.remotePort == waiting.localPort]
        net.run(1.0, lambda: net.read.get(sending.localPort) == WINDOW)
        port.abort()
        net.run(0.01)
        self.assertEqual((net.share().count, net.share().flight), (1, 0))
        self.assertFalse(net.source._flows.isPending)

    def test_addressGone(self) -> None:
        """A node that loses its address loses all of its flows."""
        net = self.full()
        net.source.setAddresses([])
        net.settle()
        self.assertForgotten()

    def test_timedOut(self) -> None:
        """Flows whose peer has vanished end one after the other, those that wait too."""
        net = self.full()
        net.there.loss = 1.0
        net.run(4000.0)
        self.assertEqual(
            [flow.closeReason for flow in self.flows], [CloseReason.TIMEOUT] * 12
        )
        self.assertForgotten()

    def test_anyOrder(self) -> None:
        """Whatever happens in whatever order: the accounts are right, and all end."""
        for seed in range(LIVES):
            try:
                self.live(Random(seed))
            except Exception:
                print(f"the seed was {seed}")
                raise

    def live(self, chance: Random) -> None:
        """Let flows begin, send, lose, wait and end."""
        rate = chance.choice((None, 1e6, 2e7, 3e8))
        net = self.pair(chance.randrange(1, 5), rate=rate)
        self.patch(shareModule, "MOST", 2 * WINDOW)
        flows = self.flows
        loss = 0.0
        net.lose = lambda item: chance.random() < loss
        for _ in range(chance.randrange(5, 40)):
            alive = [flow for flow in flows if flow.closeReason is None]
            one = chance.choice(alive) if alive else None
            step = chance.randrange(12)
            if step == 0 or one is None:
                remote = chance.choice((THERE, ELSEWHERE))
                flows.append(net.source.connectTCP(remote, PORT, net.now))
            elif step == 1:
                one.abort()
            elif step == 2:
                one.shutdownWrite()
            elif step == 3:
                one.release(net.now)
            elif step == 4:
                for flow in net.sink.flows()[chance.randrange(3) :][:1]:
                    flow.abort()
            elif step == 5:
                loss = chance.choice((0.0, 0.0, 0.3, 1.0))
            elif step == 6:
                net.source.pathRenewed([THERE], net.now)
            else:
                one.write(bytes(chance.choice((1, 3000, 100_000, 1_000_000))))
            if chance.random() < 0.5:
                net.run(chance.choice((0.0001, 0.0005, 0.002, 0.01, 0.3)))
                self.assertAtRest()
        loss = 0.0
        for flow in flows:
            flow.shutdownWrite()
        net.run(100.0)
        for flow in net.sink.flows():
            flow.shutdownWrite()
        net.run(2000.0)
        self.assertForgotten()

    def assertAtRest(self) -> None:
        """Nobody waits where there is room, and nobody wants to do anything now."""
        self.assertFalse(self.net.source._flows.isPending)
        for remote in (THERE, ELSEWHERE):
            share = self.net.share(remote)
            if share is not None and share.waiting:
                self.assertFalse(share.hasRoom)

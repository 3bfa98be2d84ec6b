"""
Tests of L{tsrt.netstack.flow}: what was sent again, and lost again.
"""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack import recovery as recoveries
from tsrt.netstack.flow import TCPOptions
from tsrt.netstack.recovery import FAST, LOSS, OPEN, Recovery
from tsrt.netstack.sender import Sender
from tsrt.test.netlink import Link, Pair, pattern
from tsrt.test.netpeer import MSS, US, Peer, payloads
from tsrt.wire.tcp import Segment

FIRST = (1, MSS)
"""The segment that is lost."""


def sender(peer: Peer) -> Sender:
    """The send side of the flow under test."""
    return peer.flow._tcb.sender


def at(number: int) -> int:
    """Position of the first byte of a full segment."""
    return 1 + number * MSS


def flown(peer: Peer) -> int:
    """How many segments were sent so far, if all were full."""
    return (sender(peer).nxt - US - 1) // MSS


class LostAgainTests(SynchronousTestCase):
    """One flow with a hand-driven peer."""

    def flying(self, options: TCPOptions | None = None) -> Peer:
        """
        A peer to which ten segments are on their way, the first of them lost and
        repeated, and five new ones behind it; much more waits.
        """
        peer = Peer(options).establish()
        peer.flow.write(bytes(100 * MSS))
        self.assertEqual(len(peer.take()), 10)
        peer.now += 0.05
        sent = self.holds(peer, 1, 9)
        self.assertEqual(sent, [FIRST, *((at(10 + n), MSS) for n in range(5))])
        return peer

    def holds(self, peer: Peer, first: int, end: int) -> list[tuple[int, int]]:
        """The peer lacks one segment and holds those behind it."""
        sack = (at(first), at(end))
        return payloads(peer.send(0, 1, at(first - 1), sacks=(sack,)))

    def test_once(self) -> None:
        """
        When three of those arrive that were sent after it, it goes out once more,
        and the timer starts anew.
        """
        peer = self.flying()
        for end in (10, 11, 12):
            self.assertNotIn(FIRST, self.holds(peer, 1, end))
        expires = sender(peer).retransmitAt
        assert expires is not None
        peer.now += 0.05
        self.assertEqual(self.holds(peer, 1, 13)[0], FIRST)
        later = sender(peer).retransmitAt
        assert later is not None
        self.assertGreater(later, expires)
        self.assertNotIn(FIRST, self.holds(peer, 1, 14))
        peer.send(0, 1, at(15))
        self.assertEqual(sender(peer).timerFires, 0)
        self.assertEqual(sender(peer).retransmissions, 2)

    def test_timeAndAgain(self) -> None:
        """It takes three that were sent after the latest repetition, each time."""
        peer = self.flying()
        end, mark = 9, 10
        for times in range(1, 6):
            while end < mark + 2:
                end += 1
                self.assertNotIn(FIRST, self.holds(peer, 1, end), (times, end))
            # What goes out in the same breath comes after the repetition.
            mark = flown(peer)
            end += 1
            self.assertEqual(self.holds(peer, 1, end)[0], FIRST)
            self.assertEqual(sender(peer).retransmissions, 1 + times)
        self.assertEqual(sender(peer).timerFires, 0)

    def test_overtaken(self) -> None:
        """
        Where the peer's window leaves no room for anything new, those that were
        repeated after it tell that it is lost again.
        """
        peer = Peer(window=10 * MSS).establish()
        peer.flow.write(bytes(100 * MSS))
        self.assertEqual(len(peer.take()), 10)
        peer.now += 0.05
        window = 10 * MSS
        sent = []
        for end in range(5, 11):
            sent += payloads(
                peer.send(0, 1, 1, sacks=((at(4), at(end)),), window=window)
            )
        # Once the holes are filled, the end of the flight follows.
        self.assertEqual(sent[:4], [(at(n), MSS) for n in range(4)])
        peer.now += 0.05
        for end in (2, 3):
            blocks = ((at(1), at(end)), (at(4), at(10)))
            answer = payloads(peer.send(0, 1, 1, sacks=blocks, window=window))
            self.assertNotIn(FIRST, answer)
        answer = payloads(peer.send(0, 1, 1, sacks=((at(1), at(10)),), window=window))
        self.assertEqual(answer, [FIRST])
        self.assertEqual(sender(peer).timerFires, 0)

    def test_inFlight(self) -> None:
        """What is merely on its way is not repeated, whatever arrives meanwhile."""
        peer = self.flying()
        # The rest of the first flight, and two that overtook.
        for end in (10, 11, 12):
            self.assertNotIn(FIRST, self.holds(peer, 1, end))
        # Reports that say nothing new.
        for _ in range(20):
            self.assertNotIn(FIRST, self.holds(peer, 1, 12))
        self.assertNotIn(FIRST, payloads(peer.send(0, 1, at(12))))
        self.assertEqual(sender(peer).retransmissions, 1)
        self.assertEqual(sender(peer).recovery.mode, OPEN)

    def test_onlyWhatIsMissing(self) -> None:
        """Of several that were repeated only that goes out which is not there."""
        peer = Peer().establish()
        peer.flow.write(bytes(100 * MSS))
        peer.take()
        blocks = ((at(1), at(3)), (at(4), at(6)), (at(7), at(10)))
        sent = payloads(peer.send(0, 1, 1, sacks=blocks))
        for end in (11, 12):
            sent += payloads(peer.send(0, 1, 1, sacks=((at(10), at(end)), *blocks)))
        self.assertEqual(sent[:3], [FIRST, (at(3), MSS), (at(6), MSS)])
        # The second arrives, the others do not.
        sent.clear()
        for end in range(12, 16):
            blocks = ((at(1), at(6)), (at(7), at(end)))
            sent += payloads(peer.send(0, 1, 1, sacks=blocks))
        self.assertEqual(sent.count(FIRST), 1)
        self.assertEqual(sent.count((at(6), MSS)), 1)
        self.assertEqual(sent.count((at(3), MSS)), 0)
        self.assertEqual(sender(peer).timerFires, 0)

    def test_pipe(self) -> None:
        """What is lost again is not on its way, until it is repeated."""
        peer = self.flying()
        state = sender(peer)
        self.holds(peer, 1, 12)
        new = state.nxt - US - at(12)
        self.assertEqual(state.pipe, MSS + new)
        segment = peer.segment(0, 1, 1, sacks=((at(1), at(13)),))
        peer.flow.process([segment], peer.now)
        self.assertEqual(state.pipe, new - MSS)
        sent = payloads(peer.take())
        self.assertEqual(state.pipe, new - MSS + len(sent) * MSS)

    def test_congestion(self) -> None:
        """The loss of a repetition is a second sign of congestion, and the last."""
        peer = self.flying()
        self.assertEqual(sender(peer).congestion.window, 7 * MSS)
        self.holds(peer, 1, 13)
        lowered = round(0.7 * 7 * MSS)
        self.assertEqual(sender(peer).congestion.window, lowered)
        for end in range(14, 40):
            peer.now += 0.001
            self.holds(peer, 1, min(end, flown(peer)))
        self.assertGreater(sender(peer).recovery.lostAgain, 2)
        self.assertEqual(sender(peer).congestion.window, lowered)

    def test_reorderingKnown(self) -> None:
        """Where the network is known to change the order there is more patience."""
        peer = Peer(TCPOptions(pacedFrom=inf)).establish(0.05)
        sender(peer).reordering._steps = 2
        sender(peer).reordering._left = 9
        peer.flow.write(bytes(100 * MSS))
        self.assertEqual(len(peer.take()), 10)
        peer.now += 0.05
        self.assertNotIn(FIRST, self.holds(peer, 1, 9))
        mark = flown(peer)
        self.assertEqual(payloads(peer.wait(0.1))[0], FIRST)
        slack = 5
        for end in range(10, mark + slack + 3):
            self.assertNotIn(FIRST, self.holds(peer, 1, end), end)
        self.assertEqual(self.holds(peer, 1, mark + slack + 3)[0], FIRST)

    def test_afterTimeout(self) -> None:
        """What was repeated after a timeout may be lost again as well."""
        peer = Peer().establish()
        peer.flow.write(bytes(100 * MSS))
        peer.take()
        self.assertEqual(payloads(peer.wait(0.25))[-1], FIRST)
        self.assertEqual(sender(peer).recovery.mode, LOSS)
        sent = payloads(peer.send(0, 1, at(1)))
        self.assertEqual(sent, [(at(1), MSS), (at(2), MSS)])
        # The rest had arrived: new data follows.
        sent = payloads(peer.send(0, 1, at(1), sacks=((at(2), at(10)),)))
        self.assertNotIn((at(1), MSS), sent)
        end = 10
        while (at(1), MSS) not in sent and end < 40:
            end += 1
            sent = payloads(peer.send(0, 1, at(1), sacks=((at(2), at(end)),)))
        # A probe had gone out before the timeout.
        self.assertEqual(end, 14)
        self.assertEqual(sender(peer).timerFires, 1)

    def test_withoutSack(self) -> None:
        """Without SACK nothing is kept."""
        peer = Peer(sack=False).establish()
        peer.flow.write(bytes(100 * MSS))
        peer.take()
        for _ in range(30):
            peer.send(0, 1, 1)
        self.assertEqual(sender(peer).recovery.mode, FAST)
        self.assertEqual(len(sender(peer).recovery._repeats), 0)

    def test_forgotten(self) -> None:
        """When the recovery is over nothing of it is left."""
        peer = self.flying()
        self.holds(peer, 1, 13)
        peer.send(0, 1, at(flown(peer)))
        recovery = sender(peer).recovery
        self.assertEqual(recovery.mode, OPEN)
        self.assertEqual((len(recovery._repeats), recovery._again), (0, []))


class WireTests(SynchronousTestCase):
    """Two flows on a wire."""

    def carried(self, there: Link, size: int = 2_000_000) -> Pair:
        """Send some megabytes."""
        # A window that is full would end all evidence.
        options = TCPOptions(receiveInitial=1 << 22)
        pair = Pair(there, Link(2, delay=there.delay), options, options)
        data = pattern(size)
        pair.client.highWater = 1 << 20
        pair.client.send(data, True)
        pair.server.send(b"", True)
        pair.run(stop=pair.closed)
        self.assertEqual(pair.server.received, data)
        return pair

    def test_everyRepetition(self) -> None:
        """A segment that gets lost time and again needs no timer."""
        for times in (1, 2, 3):
            doomed: list[int] = []

            def drop(number: int, segment: Segment, doomed=doomed, times=times) -> bool:
                if number == 300 or (segment.seq in doomed and len(doomed) < times):
                    doomed.append(segment.seq)
                else:
                    return False
                return True

            pair = self.carried(Link(1, drop=drop))
            state = pair.a._tcb.sender
            self.assertEqual(state.timerFires, 0, times)
            # Once the window is full the end of the flight is repeated as well.
            self.assertIn(state.retransmissions, (times, times + 1))

    def test_heavyLoss(self) -> None:
        """Where one in fifty is lost, the timer has next to nothing to do."""
        fires = retransmissions = dropped = 0
        for seed in range(8):
            pair = self.carried(Link(seed, loss=0.02))
            state = pair.a._tcb.sender
            fires += state.timerFires
            retransmissions += state.retransmissions
            dropped += pair.there.dropped
        self.assertLess(fires, 4)
        self.assertLess(retransmissions, dropped * 1.1)

    def test_reordering(self) -> None:
        """
        Where many are late, hardly more is repeated than was without looking for
        what is lost again.
        """
        counts = []
        for isOn in (True, False):
            if not isOn:
                self.patch(Recovery, "_findLostAgain", lambda *_: None)
            count = 0
            for seed in range(6):
                link = Link(seed, reorder=0.05, loss=0.002)
                count += self.carried(link).a._tcb.sender.retransmissions
            counts.append(count)
        self.assertLess(counts[0], counts[1] * 1.2 + 10)


UNIT = 10
"""Bytes of a segment of the model."""


class Model:
    """The same by segments, one by one."""

    def __init__(self) -> None:
        self.una = self.nxt = 0
        self.held: set[int] = set()
        # By segment: where the flight ended when it was repeated.
        self.repeated: dict[int, int] = {}
        self.edge = 0

    def missing(self) -> list[int]:
        return [n for n in range(self.una, self.nxt) if n not in self.held]

    def judge(self) -> None:
        inOrder = list(self.repeated)
        for number in self.missing():
            if sum(n > number for n in self.held) > 2:
                self.edge = max(self.edge, number + 1)
            mark = self.repeated.get(number)
            if mark is None:
                continue
            later = inOrder[inOrder.index(number) + 1 :]
            if (
                sum(n >= mark for n in self.held) > 2
                or sum(n in self.held for n in later) > 2
            ):
                del self.repeated[number]

    def pipe(self) -> int:
        return sum((n >= self.edge) + (n in self.repeated) for n in self.missing())

    def hole(self) -> int | None:
        for number in self.missing():
            if number < self.edge and number not in self.repeated:
                return number
        return None


class ModelTests(SynchronousTestCase):
    """L{Recovery} knows what a table of all segments would show."""

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("send"), st.integers(1, 6)),
                st.tuples(st.just("repeat"), st.integers(1, 4)),
                st.tuples(st.just("arrive"), st.integers(0, 40)),
            ),
            max_size=80,
        )
    )
    def test_any(self, steps: list[tuple[str, int]]) -> None:
        """Whatever arrives in whatever order."""
        self.patch(recoveries, "_LOOK", 400)
        recovery, model = Recovery(0), Model()
        recovery.selective = True
        model.nxt = 12
        model.held = set(range(4, 8))
        recovery.hold(0, 120, [(40, 80)])
        recovery.start(0, 120, UNIT)
        model.judge()
        for kind, number in steps:
            if kind == "send":
                model.nxt += number
            elif kind == "repeat":
                for _ in range(number):
                    hole, expected = recovery.hole(model.una * UNIT), model.hole()
                    if hole is None:
                        self.assertIsNone(expected)
                        break
                    start, end = hole[0], min(hole[1], hole[0] + UNIT)
                    self.assertEqual((start, end - start), (expected * UNIT, UNIT))
                    recovery.repeated(start, end, model.nxt * UNIT)
                    model.repeated.pop(expected, None)
                    model.repeated[expected] = model.nxt
            else:
                missing = model.missing()
                if not missing:
                    continue
                arrived = missing[number % len(missing)]
                model.held.add(arrived)
                before = model.una
                while model.una in model.held:
                    model.held.discard(model.una)
                    model.una += 1
                una, nxt = model.una * UNIT, model.nxt * UNIT
                block = (arrived * UNIT, arrived * UNIT + UNIT)
                recovery.hold(una, nxt, [block])
                model.judge()
                if model.una > before:
                    recovery.advanced(una, una - before * UNIT, UNIT)
                    if recovery.mode == OPEN:
                        return
                else:
                    recovery.duplicate(una, UNIT)
            una, nxt = model.una * UNIT, model.nxt * UNIT
            self.assertEqual(recovery.pipe(una, nxt, UNIT), model.pipe() * UNIT)

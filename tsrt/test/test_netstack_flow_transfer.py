"""
Tests of L{tsrt.netstack.flow}: whole transfers over a bad wire.
"""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.flow import CloseReason, TCPOptions
from tsrt.netstack.tcpstate import CLOSED, EOF, ESTABLISHED
from tsrt.test.netlink import Link, Pair, pattern

MEGABYTE = 1_000_000


class TransferTests(SynchronousTestCase):
    """A megabyte each way, over wires with different faults, and in bursts."""

    options = TCPOptions(pacedFrom=inf)
    needless = 0
    """Segments that may be sent again for nothing."""

    carriedThere = 850
    """Packets that a megabyte each way may take in one direction, all told."""

    carriedBack = 60
    """Packets that may acknowledge a megabyte."""

    def transfer(
        self,
        *,
        size: int = MEGABYTE,
        backSize: int | None = None,
        there: Link | None = None,
        back: Link | None = None,
        ipv6: bool = False,
    ) -> Pair:
        """Send bytes both ways, finish both ways, and compare."""
        backSize = size if backSize is None else backSize
        pair = Pair(there, back, self.options, self.options, ipv6=ipv6)
        forth, home = pattern(size, 1), pattern(backSize, 2)
        pair.client.send(forth, True)
        pair.server.send(home, True)
        pair.run(stop=pair.closed)
        self.assertEqual(pair.server.received, forth)
        self.assertEqual(pair.client.received, home)
        for side in (pair.client, pair.server):
            assert side.flow is not None
            self.assertIs(side.flow.closeReason, CloseReason.DONE)
            self.assertTrue(side.flow.eof)
            for mark in (ESTABLISHED, EOF, CLOSED):
                self.assertEqual(side.count(mark), 1)
        pair.run()
        self.assertTrue(pair.a.retired and pair.b.retired)
        self.assertIsNone(pair.a.deadline())
        self.assertIsNone(pair.b.deadline())
        return pair

    def repeated(self, pair: Pair) -> int:
        """Segments that either side sent again."""
        return pair.a._tcb.sender.retransmissions + pair.b._tcb.sender.retransmissions

    def test_clean(self) -> None:
        """A good wire needs each byte once, and acknowledgements ride along."""
        pair = self.transfer()
        self.assertEqual(self.repeated(pair), 0)
        self.assertLess(pair.there.carried, self.carriedThere)
        self.assertLess(pair.now, 1000 + 40)

    def test_oneWay(self) -> None:
        """A stream in one direction is acknowledged once a batch."""
        pair = self.transfer(backSize=0)
        self.assertEqual(self.repeated(pair), 0)
        self.assertLess(pair.back.carried, self.carriedBack)

    def test_ipv6(self) -> None:
        """IPv6 works the same, with smaller segments."""
        pair = self.transfer(ipv6=True)
        self.assertEqual(self.repeated(pair), 0)

    def test_loss2(self) -> None:
        """Two percent of loss costs about that much repetition."""
        pair = self.transfer(there=Link(1, loss=0.02), back=Link(2, loss=0.02))
        lost = pair.there.dropped + pair.back.dropped
        self.assertGreater(lost, 10)
        self.assertLess(self.repeated(pair), 2 * lost)

    def test_loss10(self) -> None:
        """Ten percent of loss is survived without flooding the wire."""
        pair = self.transfer(there=Link(1, loss=0.1), back=Link(2, loss=0.1))
        lost = pair.there.dropped + pair.back.dropped
        self.assertGreater(lost, 100)
        self.assertLess(self.repeated(pair), 2 * lost)

    def test_reorder(self) -> None:
        """Reordering alone loses nothing and repeats little."""
        pair = self.transfer(there=Link(1, reorder=0.1), back=Link(2, reorder=0.1))
        self.assertLess(self.repeated(pair), 250)
        self.assertEqual(pair.a._tcb.sender.timerFires, 0)

    def test_duplicate(self) -> None:
        """Duplicates do no harm."""
        pair = self.transfer(there=Link(1, duplicate=0.2), back=Link(2, duplicate=0.2))
        self.assertLess(self.repeated(pair), 100 + self.needless)

    def test_everything(self) -> None:
        """Loss, reordering and duplication together."""
        for seed in range(3):
            there = Link(seed, loss=0.05, reorder=0.1, duplicate=0.05)
            back = Link(seed + 50, loss=0.05, reorder=0.1, duplicate=0.05)
            pair = self.transfer(there=there, back=back)
            lost = pair.there.dropped + pair.back.dropped
            self.assertLess(self.repeated(pair), 3 * lost)

    def test_bottleneck(self) -> None:
        """A slow wire with a short queue is filled and not drowned."""
        link = Link(1, rate=1_250_000.0, queue=50)
        pair = self.transfer(backSize=0, there=link)
        # One megabyte at ten megabits a second takes 0.83 s.
        self.assertLess(self.repeated(pair), 250)
        self.assertLess(pair.client.sent[-1][0] - 1000.0, 8.0)

    def test_longFatWire(self) -> None:
        """The receive window grows until it fills a long fast path."""
        pair = self.transfer(size=6_000_000, backSize=0, there=Link(delay=0.1))
        receiver = pair.b._tcb.receiver
        assert receiver is not None
        self.assertGreaterEqual(receiver.capacity, 1 << 20)
        widest = max(segment.window << 7 for _, segment in pair.server.sent[2:])
        self.assertGreaterEqual(widest, 512 * 1024)

    def test_lossyAcknowledgements(self) -> None:
        """Lost acknowledgements alone cost almost nothing."""
        pair = self.transfer(backSize=0, back=Link(2, loss=0.3))
        self.assertLess(self.repeated(pair), 30 + self.needless)

    def test_slowReader(self) -> None:
        """An application that reads little at a time gets everything."""
        pair = Pair(None, None, self.options, self.options)
        data = pattern(300_000)
        pair.client.send(data, True)
        pair.server.readLimit = 5000
        pair.server.send(b"", True)
        pair.run(stop=pair.closed)
        while pair.b.readable:
            pair.server.pump()
        self.assertEqual(pair.server.received, data)
        self.assertEqual(self.repeated(pair), 0)

    def test_pathMTU(self) -> None:
        """A smaller packet limit on the way is found and obeyed."""
        pair = self.transfer(size=200_000, there=Link(1, mtu=900))
        self.assertGreater(pair.there.tooBig, 0)
        self.assertLess(pair.there.tooBig, 12)
        late = [
            segment.end - segment.start
            for time, segment in pair.client.sent
            if time > 1000.1
        ]
        self.assertEqual(max(late), 860 - pair.a._tcb.stamping * 12)

    def test_differentMTUs(self) -> None:
        """No segment is larger than what the other side can take."""
        pair = Pair(None, None, self.options, self.options, mtu=1500, serverMTU=1000)
        pair.client.send(pattern(100_000), True)
        pair.server.send(pattern(100_000), True)
        pair.run(stop=pair.closed)
        self.assertEqual(pair.server.received, pattern(100_000))
        self.assertEqual(pair.client.received, pattern(100_000))


class NewRenoTransferTests(TransferTests):
    """The same with NewReno."""

    options = TCPOptions(congestion="newreno", pacedFrom=inf)


class PlainTransferTests(TransferTests):
    """The same without SACK, as RFC 6582 has it."""

    options = TCPOptions(selectiveAck=False, pacedFrom=inf)
    # Duplicates cannot be told from losses, and no probe shortens the timer.
    needless = 120


class UnstampedTransferTests(TransferTests):
    """The same without timestamps."""

    options = TCPOptions(timestamps=False, pacedFrom=inf)


class PacedTransferTests(TransferTests):
    """The same as flows are by default: what comes in a millisecond is a batch."""

    options = TCPOptions()
    carriedThere = 950
    carriedBack = 130


class ScheduleTests(SynchronousTestCase):
    """Fates of single packets, chosen by hypothesis."""

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.integers(0, 3), max_size=80),
        st.lists(st.integers(0, 3), max_size=80),
        st.booleans(),
        st.booleans(),
        st.sampled_from((0, 1, 700, 30_000)),
    )
    def test_anyFate(
        self,
        forth: list[int],
        home: list[int],
        sack: bool,
        stamps: bool,
        size: int,
    ) -> None:
        """
        Whatever happens to each of the first packets, both streams arrive.
        """

        class FatedLink(Link):
            """Lets each packet pass, vanish, come twice or come late."""

            def __init__(self, fates: list[int]) -> None:
                super().__init__(0)
                self.fates = fates

            def transit(self, packet: bytes, now: float) -> list[float]:
                number = self.carried
                self.carried += 1
                fate = self.fates[number] if number < len(self.fates) else 0
                if fate == 1:
                    return []
                if fate == 2:
                    return [now + 0.02, now + 0.03]
                if fate == 3:
                    return [now + 0.09]
                return [now + 0.02]

        options = TCPOptions(
            selectiveAck=sack,
            timestamps=stamps,
            synRetries=100,
            synAckRetries=100,
            userTimeout=100_000.0,
        )
        pair = Pair(FatedLink(forth), FatedLink(home), options, options)
        data, answer = pattern(size, 1), pattern(30_000, 2)
        pair.client.send(data, True)
        pair.server.send(answer, True)
        pair.run(stop=pair.closed)
        self.assertEqual(pair.server.received, data)
        self.assertEqual(pair.client.received, answer)
        self.assertIs(pair.a.closeReason, CloseReason.DONE)
        self.assertIs(pair.b.closeReason, CloseReason.DONE)

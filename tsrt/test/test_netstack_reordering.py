"""Tests for L{tsrt.netstack.reordering}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.reordering import Reordering, duplicateSize
from tsrt.test.netpeer import MSS, Peer, payloads


class DuplicateSizeTests(SynchronousTestCase):
    """Reading D-SACK (RFC 2883)."""

    def test_below(self) -> None:
        """A first block below the acknowledgement tells of a duplicate."""
        self.assertEqual(duplicateSize(100, [(50, 80)]), 30)
        self.assertEqual(duplicateSize(100, [(50, 100), (200, 300)]), 50)

    def test_inside(self) -> None:
        """So does one inside of the second block."""
        self.assertEqual(duplicateSize(100, [(220, 240), (200, 300)]), 20)
        self.assertEqual(duplicateSize(100, [(200, 300), (200, 300)]), 100)

    def test_plain(self) -> None:
        """Other blocks tell of none."""
        self.assertEqual(duplicateSize(100, [(200, 300)]), 0)
        self.assertEqual(duplicateSize(100, [(200, 300), (400, 500)]), 0)

    def test_reversed(self) -> None:
        """A block that makes no sense counts for nothing."""
        self.assertEqual(duplicateSize(100, [(80, 50)]), 0)


class ReorderingTests(SynchronousTestCase):
    """When a suspected loss counts."""

    def needless(self, reordering: Reordering) -> bool:
        """One recovery whose repetition was needless."""
        reordering.began()
        reordering.repeated(1000)
        return reordering.duplicate(1000)

    def test_trusting(self) -> None:
        """At first every evident loss counts at once."""
        self.assertTrue(Reordering().suspected(1.0, 0.1))

    def test_waits(self) -> None:
        """After a needless recovery a quarter of a round trip has to pass."""
        reordering = Reordering()
        self.assertTrue(self.needless(reordering))
        self.assertFalse(reordering.suspected(1.0, 0.1))
        self.assertAlmostEqual(reordering.at or 0.0, 1.025)
        self.assertFalse(reordering.suspected(1.02, 0.1))
        self.assertTrue(reordering.suspected(1.03, 0.1))
        self.assertTrue(reordering.suspected(1.0, None))

    def test_grows(self) -> None:
        """Each further one adds a quarter, up to a whole round trip."""
        reordering = Reordering()
        seen = []
        for _ in range(6):
            self.needless(reordering)
            reordering.suspected(0.0, 1.0)
            seen.append(reordering.at)
        self.assertEqual(seen, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0])

    def test_forgets(self) -> None:
        """Sixteen recoveries for good reason, and all is forgotten."""
        reordering = Reordering()
        self.needless(reordering)
        for _ in range(15):
            reordering.began()
        self.assertFalse(reordering.suspected(0.0, 1.0))
        reordering.began()
        self.assertTrue(reordering.suspected(0.0, 1.0))

    def test_partlyNeedless(self) -> None:
        """A recovery that repaired anything is not taken back."""
        reordering = Reordering()
        reordering.began()
        reordering.repeated(3000)
        self.assertFalse(reordering.duplicate(1000))
        self.assertFalse(reordering.duplicate(1000))
        self.assertEqual(reordering.undone, 0)
        self.assertTrue(reordering.duplicate(1000))
        self.assertEqual(reordering.undone, 1)

    def test_duplicatesOfTheNetwork(self) -> None:
        """Duplicates of what was sent once say nothing."""
        reordering = Reordering()
        self.assertFalse(reordering.duplicate(1000))
        self.assertTrue(reordering.suspected(0.0, 1.0))

    def test_nothingToTakeBack(self) -> None:
        """A repair that did not shrink the window is not taken back."""
        reordering = Reordering()
        reordering.began(shrunk=False)
        reordering.repeated(1000)
        self.assertFalse(reordering.duplicate(1000))


class FlowTests(SynchronousTestCase):
    """What a flow makes of it."""

    def late(self) -> Peer:
        """A flow of which one segment was overtaken by the nine others."""
        peer = Peer().establish()
        peer.flow.write(bytes(10 * MSS))
        peer.take()
        peer.now += 0.1
        peer.send(0, 1, 1, sacks=((1 + MSS, 1 + 10 * MSS),))
        sender = peer.flow._tcb.sender
        self.assertEqual(sender.congestion.window, 7 * MSS)
        peer.now += 0.01
        peer.send(0, 1, 1 + 10 * MSS)
        peer.now += 0.09
        peer.send(0, 1, 1 + 10 * MSS, sacks=((1, 1 + MSS),))
        return peer

    def test_undone(self) -> None:
        """A window that shrank for nothing is restored."""
        sender = self.late().flow._tcb.sender
        self.assertEqual(sender.congestion.window, 10 * MSS)
        self.assertTrue(sender.congestion.inSlowStart)
        self.assertEqual(sender.reordering.undone, 1)

    def test_patientNextTime(self) -> None:
        """The next overtaken segment has a quarter of a round trip to come."""
        peer = self.late()
        sender = peer.flow._tcb.sender
        peer.flow.write(bytes(10 * MSS))
        peer.take()
        una = 1 + 10 * MSS
        block = (una + MSS, una + 10 * MSS)
        self.assertEqual(payloads(peer.send(0, 1, una, sacks=(block,))), [])
        smoothed = sender.rtt.smoothed
        assert smoothed is not None
        deadline = peer.flow.deadline()
        assert deadline is not None
        self.assertAlmostEqual(deadline - peer.now, smoothed / 4)
        peer.send(0, 1, una + 10 * MSS)
        self.assertEqual(sender.retransmissions, 1)
        self.assertIsNone(peer.flow.deadline())

    def test_stillLost(self) -> None:
        """If it does not come, it is sent again then."""
        peer = self.late()
        peer.flow.write(bytes(10 * MSS))
        peer.take()
        una = 1 + 10 * MSS
        block = (una + MSS, una + 10 * MSS)
        peer.send(0, 1, una, sacks=(block,))
        self.assertEqual(payloads(peer.wait(0.05)), [(una, MSS)])
        self.assertEqual(peer.flow._tcb.sender.timerFires, 0)

    def test_timeoutUndone(self) -> None:
        """A timer that expired too early is taken back the same way."""
        peer = Peer().establish()
        peer.flow.write(bytes(10 * MSS))
        peer.take()
        sender = peer.flow._tcb.sender
        sender.tail.at = None
        peer.wait(0.3)
        self.assertEqual(sender.timerFires, 1)
        self.assertEqual(sender.congestion.window, MSS)
        peer.send(0, 1, 1 + 10 * MSS)
        peer.send(0, 1, 1 + 10 * MSS, sacks=((1, 1 + MSS),))
        self.assertGreaterEqual(sender.congestion.window, 10 * MSS)

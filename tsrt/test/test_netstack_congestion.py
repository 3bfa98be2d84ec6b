"""Tests for L{tsrt.netstack.congestion}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.congestion import Cubic, NewReno, makeCongestionControl
from tsrt.netstack.congestion.cubic import cubicWindow

MSS = 1000


class CommonTests(SynchronousTestCase):
    """What all strategies share."""

    def test_byName(self) -> None:
        """Strategies are chosen by name; there are no others."""
        self.assertIsInstance(makeCongestionControl("cubic", MSS), Cubic)
        self.assertIsInstance(makeCongestionControl("newreno", MSS), NewReno)
        self.assertRaises(KeyError, makeCongestionControl, "vegas", MSS)

    def test_initialWindow(self) -> None:
        """The first window is ten segments, within RFC 6928."""
        self.assertEqual(NewReno(1240).window, 12400)
        self.assertEqual(Cubic(1460).window, 14600)
        self.assertEqual(Cubic(8960).window, 17920)

    def test_slowStart(self) -> None:
        """Slow start adds what was acknowledged, so it doubles each trip."""
        for control in (NewReno(MSS), Cubic(MSS)):
            self.assertTrue(control.inSlowStart)
            for _ in range(10):
                control.acknowledged(MSS, 1.0, 0.1)
            self.assertEqual(control.window, 20 * MSS)

    def test_timeout(self) -> None:
        """A timeout leaves one segment, and slow start up to the threshold."""
        for control, kept in ((NewReno(MSS), 10), (Cubic(MSS), 14)):
            control.window = 20 * MSS
            control.timedOut(20 * MSS, 1.0, False)
            self.assertEqual(control.window, MSS)
            self.assertEqual(control.threshold, kept * MSS)
            self.assertTrue(control.inSlowStart)

    def test_timeoutAgain(self) -> None:
        """A further timeout of the same data leaves the threshold alone."""
        for control in (NewReno(MSS), Cubic(MSS)):
            control.timedOut(20 * MSS, 1.0, False)
            threshold = control.threshold
            control.timedOut(MSS, 2.0, True)
            self.assertEqual(control.threshold, threshold)
            self.assertEqual(control.window, MSS)

    def test_least(self) -> None:
        """The threshold is never below two segments."""
        for control in (NewReno(MSS), Cubic(MSS)):
            control.lost(MSS, 1.0)
            self.assertEqual(control.threshold, 2 * MSS)
            self.assertEqual(control.window, 2 * MSS)

    def test_idle(self) -> None:
        """After a pause the window is no larger than the first one."""
        control = NewReno(MSS)
        control.window = 100 * MSS
        control.idled()
        self.assertEqual(control.window, 10 * MSS)
        control.window = 3 * MSS
        control.idled()
        self.assertEqual(control.window, 3 * MSS)

    def test_undo(self) -> None:
        """A loss that was none is taken back, growth since then is kept."""
        for control in (NewReno(MSS), Cubic(MSS)):
            control.lost(10 * MSS, 1.0)
            control.undo()
            self.assertEqual(control.window, 10 * MSS)
            self.assertTrue(control.inSlowStart)
            control.lost(10 * MSS, 2.0)
            control.window = 50 * MSS
            control.undo()
            self.assertEqual(control.window, 50 * MSS)

    def test_segmentSize(self) -> None:
        """A window always holds one segment."""
        control = NewReno(500)
        control.window = 500
        control.setSegmentSize(1200)
        self.assertEqual((control.mss, control.window), (1200, 1200))


class NewRenoTests(SynchronousTestCase):
    """RFC 5681."""

    def test_halves(self) -> None:
        """A loss leaves half of what was in flight."""
        control = NewReno(MSS)
        control.lost(20 * MSS, 1.0)
        self.assertEqual(control.window, 10 * MSS)
        self.assertEqual(control.threshold, 10 * MSS)

    def test_avoidance(self) -> None:
        """A whole window acknowledged adds one segment."""
        control = NewReno(MSS)
        control.lost(20 * MSS, 1.0)
        for _ in range(10):
            control.acknowledged(MSS, 1.0, 0.1)
        self.assertApproximates(control.window, 11 * MSS, 60)

    def test_crossing(self) -> None:
        """An acknowledgement across the threshold counts for both phases."""
        control = NewReno(MSS)
        control.threshold = 10 * MSS + 100
        control.acknowledged(MSS, 1.0, 0.1)
        self.assertEqual(control.window, 10 * MSS + 100 + int(900 * MSS / 10100))


class CubicTests(SynchronousTestCase):
    """RFC 9438; expected values by hand from its formulas."""

    def lossAt(self, segments: int) -> Cubic:
        """A CUBIC that lost a segment at that window."""
        control = Cubic(MSS)
        control.window = segments * MSS
        control.lost(segments * MSS, 0.0)
        return control

    def test_windowFunction(self) -> None:
        """W_cubic(t) = C (t - K)^3 + W_max, with C = 0.4."""
        # W_max = 100, cwnd = 70: K = cbrt(30 / 0.4) = 4.217163.
        k = 4.217163327
        self.assertAlmostEqual(cubicWindow(0.0, k, 100.0), 70.0, places=5)
        self.assertAlmostEqual(cubicWindow(k, k, 100.0), 100.0, places=9)
        self.assertAlmostEqual(cubicWindow(2 * k, k, 100.0), 130.0, places=5)
        self.assertAlmostEqual(cubicWindow(2.0, k, 100.0), 95.640337, places=5)

    def test_decrease(self) -> None:
        """A loss leaves seven tenths (section 4.6)."""
        control = self.lossAt(100)
        self.assertEqual(control.window, 70 * MSS)
        self.assertEqual(control.threshold, 70 * MSS)
        self.assertEqual(control.peak, 100.0)

    def test_growth(self) -> None:
        """With a long round trip the window follows the function."""
        control = self.lossAt(100)
        rtt = 0.1
        now = 0.0
        control.acknowledged(MSS, now, rtt)
        while now < 2.0:
            # One round trip: a window's worth of acknowledgements.
            now += rtt
            for _ in range(control.window // MSS):
                control.acknowledged(MSS, now, rtt)
        self.assertApproximates(control.window / MSS, 95.64, 0.8)

    def test_plateau(self) -> None:
        """At t = K the window is back at W_max, and then grows beyond it."""
        control = self.lossAt(100)
        now = 0.0
        while now < 4.2:
            for _ in range(control.window // MSS):
                control.acknowledged(MSS, now, 0.1)
            now += 0.1
        self.assertApproximates(control.window / MSS, 100.0, 0.5)
        while now < 8.4:
            for _ in range(control.window // MSS):
                control.acknowledged(MSS, now, 0.1)
            now += 0.1
        self.assertApproximates(control.window / MSS, 129.0, 2.0)

    def test_renoFriendly(self) -> None:
        """With a short round trip it grows at least as Reno would (4.3)."""
        control = self.lossAt(10)
        now = 0.0
        for _ in range(20):
            for _ in range(control.window // MSS):
                control.acknowledged(MSS, now, 0.001)
            now += 0.001
        # alpha = 3 * 0.3 / 1.7 = 0.529 a round trip until W_max (six trips),
        # one a round trip after that.
        self.assertApproximates(control.window / MSS, 7 + 6 * 0.53 + 14, 1.5)

    def test_fastConvergence(self) -> None:
        """A loss below the last peak gives up some of it (section 4.7)."""
        control = self.lossAt(100)
        control.window = 80 * MSS
        control.lost(80 * MSS, 1.0)
        self.assertAlmostEqual(control.peak, 80 * 1.7 / 2)
        self.assertEqual(control.window, 56 * MSS)

    def test_afterTimeout(self) -> None:
        """After a timeout the function starts on its plateau (section 4.8)."""
        control = self.lossAt(100)
        control.timedOut(70 * MSS, 1.0, False)
        while control.inSlowStart:
            control.acknowledged(MSS, 2.0, 0.1)
        control.acknowledged(MSS, 2.0, 0.1)
        self.assertApproximates(control.peak, 49.0, 0.1)
        before = control.window
        for _ in range(10):
            control.acknowledged(MSS, 2.1, 0.1)
        self.assertLess(control.window - before, MSS)

    def test_growthBounded(self) -> None:
        """One round trip never grows the window by more than half (4.4)."""
        control = self.lossAt(100)
        control.acknowledged(MSS, 0.0, 0.1)
        window = control.window
        for _ in range(window // MSS):
            control.acknowledged(MSS, 100.0, 0.1)
        self.assertLess(control.window, 1.75 * window)

    def test_pauseDoesNotCount(self) -> None:
        """Time in which the window was not used is not time for it to grow."""
        control = self.lossAt(100)
        control.acknowledged(MSS, 0.0, 0.1)
        for second in range(1, 60):
            control.unused(float(second))
        control.acknowledged(MSS, 59.1, 0.1)
        self.assertLess(control.window, 72 * MSS)

    def test_unusedBeforeAnyLoss(self) -> None:
        """Unused time in slow start changes nothing."""
        control = Cubic(MSS)
        control.unused(5.0)
        self.assertEqual(control.window, 10 * MSS)

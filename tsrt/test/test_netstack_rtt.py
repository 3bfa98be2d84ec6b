"""Tests for L{tsrt.netstack.rtt}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.rtt import RTTEstimator


class RTTEstimatorTests(SynchronousTestCase):
    """The timeout of RFC 6298."""

    def test_beforeMeasurement(self) -> None:
        """Without a measurement the timeout is one second (2.1)."""
        self.assertEqual(RTTEstimator().timeout, 1.0)

    def test_first(self) -> None:
        """The first measurement sets SRTT to it and RTTVAR to its half (2.2)."""
        rtt = RTTEstimator()
        rtt.sample(0.5)
        self.assertEqual(rtt.smoothed, 0.5)
        self.assertEqual(rtt.variance, 0.25)
        self.assertAlmostEqual(rtt.timeout, 1.5)

    def test_second(self) -> None:
        """Later ones weigh one eighth and one fourth (2.3)."""
        rtt = RTTEstimator()
        rtt.sample(0.5)
        rtt.sample(0.9)
        self.assertAlmostEqual(rtt.variance, 0.75 * 0.25 + 0.25 * 0.4)
        assert rtt.smoothed is not None
        self.assertAlmostEqual(rtt.smoothed, 0.875 * 0.5 + 0.125 * 0.9)
        self.assertAlmostEqual(rtt.timeout, 0.55 + 4 * 0.2875)

    def test_floor(self) -> None:
        """The timeout never falls below 200 ms."""
        rtt = RTTEstimator()
        for _ in range(50):
            rtt.sample(0.001)
        self.assertEqual(rtt.timeout, 0.2)

    def test_backoff(self) -> None:
        """Each expiry doubles the timeout, up to 60 s; a measurement ends it."""
        rtt = RTTEstimator()
        seen = []
        for _ in range(8):
            seen.append(rtt.timeout)
            rtt.doubled()
        self.assertEqual(seen, [1, 2, 4, 8, 16, 32, 60, 60])
        self.assertEqual(rtt.backoff, 6)
        rtt.sample(1.0)
        self.assertEqual(rtt.timeout, 3.0)

    def test_progressed(self) -> None:
        """The back-off can be ended without a measurement."""
        rtt = RTTEstimator()
        rtt.doubled()
        rtt.progressed()
        self.assertEqual(rtt.timeout, 1.0)

    def test_synLost(self) -> None:
        """After a repeated SYN data starts with three seconds (5.7)."""
        rtt = RTTEstimator()
        rtt.doubled()
        rtt.synLost()
        self.assertEqual(rtt.timeout, 3.0)
        rtt.sample(0.1)
        self.assertAlmostEqual(rtt.timeout, 0.3)

    def test_clockSetBack(self) -> None:
        """A negative measurement is ignored."""
        rtt = RTTEstimator()
        rtt.sample(-1.0)
        self.assertIsNone(rtt.smoothed)
        self.assertIsNone(rtt.smallest)

    def test_weight(self) -> None:
        """Many measurements in a round trip count for less each."""
        light, full = RTTEstimator(), RTTEstimator()
        for estimator in (light, full):
            estimator.sample(0.1)
        light.sample(0.5, 0.25)
        full.sample(0.5)
        assert light.smoothed is not None and full.smoothed is not None
        self.assertAlmostEqual(light.smoothed, 0.1 + 0.4 / 32)
        self.assertAlmostEqual(full.smoothed, 0.1 + 0.4 / 8)

    def test_extremes(self) -> None:
        """The smallest and the newest measurement are kept."""
        rtt = RTTEstimator()
        for elapsed in (0.3, 0.1, 0.2):
            rtt.sample(elapsed)
        self.assertEqual((rtt.smallest, rtt.latest), (0.1, 0.2))

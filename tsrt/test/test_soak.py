"""A tailnet in bad weather, for a short while (L{tsrt.testing.soak})."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.testing.soak import Weather, content


class SoakTests(SynchronousTestCase):
    """No fault costs a stream a byte."""

    def test_content(self) -> None:
        """A stream is the same, however it is cut into pieces."""
        whole = content("x", 0, 2000)
        self.assertEqual(len(whole), 2000)
        self.assertEqual(content("x", 300, 700), whole[300:1000])
        self.assertNotEqual(content("y", 0, 2000), whole)

    def test_halfAnHour(self) -> None:
        """
        Half an hour of faults: all streams are whole, and nothing has piled up.
        """
        weather = Weather.make(4, seed=7)
        outcome = weather.run(1800, fault=40)
        self.assertTrue(outcome.isGood, outcome)
        self.assertEqual(outcome.streams, 6)
        self.assertGreaterEqual(len(outcome.faults), 5)
        self.assertGreater(sum(outcome.faults.values()), 25)
        early, late = outcome.timers
        self.assertLess(late, early + 30)
        weather.tailnet.close()

    def test_losesAreNoticed(self) -> None:
        """A stream that gets wrong bytes, or too few, is not good."""
        weather = Weather.make(2, seed=1)
        [writer] = weather.writers
        writer.say(100)
        writer.transport.write(b"something else")
        weather.tailnet.settle()
        self.assertEqual(weather.wrong, [writer.name])
        outcome = weather.run(0)
        self.assertFalse(outcome.isGood)
        weather.tailnet.close()

    def test_endsAreNoticed(self) -> None:
        """So is one that ended before its time."""
        weather = Weather.make(2, seed=1)
        weather.tailnet.wait(weather.tailnet["n1"].stopService())
        weather.tailnet.settle()
        outcome = weather.run(0)
        self.assertEqual(list(outcome.ended), ["n0-n1"])
        self.assertFalse(outcome.isGood)
        weather.tailnet.close()

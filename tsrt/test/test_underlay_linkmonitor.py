"""Tests of L{tsrt.underlay.linkmonitor}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tsrt.path.local import InterfaceAddress
from tsrt.underlay.interfaces import addressesFromText
from tsrt.underlay.linkmonitor import INTERVAL, SLEPT, LinkChange, LinkMonitor


class LinkMonitorTests(SynchronousTestCase):
    """What counts as a change, and when it is noticed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.addresses = ["10.0.0.1", "127.0.0.1", "2001:db8::1"]
        self.changes: list[LinkChange] = []
        self.monitor = LinkMonitor(self.clock, self.read, self.changes.append)
        self.monitor.startService()

    def read(self) -> tuple[InterfaceAddress, ...]:
        """The addresses that the machine has."""
        return addressesFromText(self.addresses)

    def test_nothing(self) -> None:
        """As long as nothing happens nothing is told, and at the end stops all."""
        for _ in range(100):
            self.clock.advance(1)
        self.assertEqual(self.changes, [])
        self.monitor.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """An address that is gone is a major change, noticed within seconds."""
        self.addresses.remove("10.0.0.1")
        self.clock.advance(INTERVAL)
        [change] = self.changes
        self.assertTrue(change.isMajor)
        self.assertEqual(change.what, "lost 10.0.0.1")
        self.assertEqual(change.addresses, {"2001:db8::1"})

    def test_moved(self) -> None:
        """So is one that was replaced by another."""
        self.addresses[0] = "10.9.9.9"
        self.clock.advance(INTERVAL)
        [change] = self.changes
        self.assertTrue(change.isMajor)
        self.assertEqual(change.what, "lost 10.0.0.1 and got 10.9.9.9")

    def test_found(self) -> None:
        """A further address breaks nothing."""
        self.addresses.append("192.0.2.1")
        self.clock.advance(INTERVAL)
        [change] = self.changes
        self.assertFalse(change.isMajor)

    def test_irrelevant(self) -> None:
        """Addresses of the tailnet, of the link and of the host do not count."""
        self.addresses += ["100.64.0.1", "fd7a:115c:a1e0::1", "fe80::1", "127.0.0.2"]
        self.clock.advance(INTERVAL)
        self.assertEqual(self.changes, [])

    def test_offline(self) -> None:
        """No network at all is told, and so is the end of that."""
        self.addresses, former = ["127.0.0.1"], self.addresses
        self.clock.advance(INTERVAL)
        self.assertTrue(self.changes[-1].isOffline)
        self.addresses = former
        self.clock.advance(INTERVAL)
        self.assertFalse(self.changes[-1].isOffline)
        self.assertTrue(self.changes[-1].isMajor)

    def test_asleep(self) -> None:
        """A look that is late by far means that the machine was asleep."""
        self.clock.advance(INTERVAL + SLEPT - 1)
        self.assertEqual(self.changes, [])
        self.clock.advance(INTERVAL + 600)
        [change] = self.changes
        self.assertTrue(change.isMajor)
        self.assertEqual(change.what, "this machine was asleep for 600 s")

    def test_clockSetBack(self) -> None:
        """A clock that is set back is no sleep."""
        self.clock.rightNow -= 3600
        self.clock.advance(3600 + INTERVAL)
        self.assertEqual([c for c in self.changes if "asleep" in c.what], [])

    def test_failingHandler(self) -> None:
        """A handler that raises is logged, and told of the next change."""

        def fail(change: LinkChange) -> None:
            self.changes.append(change)
            raise ZeroDivisionError

        self.monitor._onChange = fail
        for number in range(3):
            self.addresses[0] = f"10.0.1.{number}"
            self.clock.advance(INTERVAL)
        self.assertEqual(len(self.changes), 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

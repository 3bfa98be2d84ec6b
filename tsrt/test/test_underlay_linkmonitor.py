"""
Tests of L{tsrt.underlay.linkmonitor} and L{tsrt.underlay.linkstate}.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tsrt.addresses import parseAddress
from tsrt.interfaces import ILinkMonitor
from tsrt.path.local import InterfaceAddress
from tsrt.testing.clock import elapse
from tsrt.testing.internet import MemoryInternet
from tsrt.underlay.interfaces import addressesFromText
from tsrt.underlay.linkmonitor import (
    INTERVAL,
    LONGEST_WAIT,
    QUIET,
    SLEPT,
    LinkChange,
    LinkMonitor,
    linkMonitor,
    sleeplessClock,
)
from tsrt.underlay.linkstate import DefaultRoute, LinkState, compare
from tsrt.underlay.netlink import kernelRoutes, preferredSources


def route(
    gateway: str | None, interface: str = "eth0", source: str | None = None
) -> DefaultRoute:
    """A way to the internet."""
    known = gateway or source or "0.0.0.0"
    return DefaultRoute(
        6 if ":" in known else 4,
        interface,
        None if gateway is None else parseAddress(gateway),
        None if source is None else parseAddress(source),
    )


class FakeWatcher:
    """Tells of news when a test wants it to."""

    def __init__(self, news: Callable[[], object]) -> None:
        self.news = news
        self.isWatching = False

    def start(self) -> bool:
        """Begin."""
        self.isWatching = True
        return True

    def stop(self) -> None:
        """End."""
        self.isWatching = False


class MonitorTestCase(SynchronousTestCase):
    """A monitor of a machine that is what the test says."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.addresses = ["10.0.0.1", "127.0.0.1", "2001:db8::1"]
        self.routes: list[DefaultRoute] = [route("10.0.0.254")]
        self.changes: list[LinkChange] = []
        self.looks = 0
        self.sleepless = 500.0
        self.monitor = self.make()
        self.monitor.startService()

    def make(self) -> LinkMonitor:
        """The monitor."""
        return LinkMonitor(self.clock, self.read, self.changes.append)

    def read(self) -> tuple[InterfaceAddress, ...]:
        """The addresses that the machine has."""
        self.looks += 1
        return addressesFromText(self.addresses)

    def change(self) -> LinkChange:
        """The one change that was told."""
        [change] = self.changes
        self.changes.clear()
        return change


class LinkMonitorTests(MonitorTestCase):
    """What counts as a change, and when it is noticed."""

    def test_interface(self) -> None:
        """It is what the interface says."""
        verifyObject(ILinkMonitor, self.monitor)
        self.assertEqual(self.monitor.state.addresses, set(self.addresses))
        self.assertTrue(self.monitor.state.isUp)

    def test_nothing(self) -> None:
        """As long as nothing happens nothing is told, and at the end stops all."""
        for _ in range(100):
            self.clock.advance(1)
        self.assertEqual(self.changes, [])
        self.monitor.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.monitor.look()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """An address that is gone is a major change, noticed within seconds."""
        self.addresses.remove("10.0.0.1")
        self.clock.advance(INTERVAL)
        change = self.change()
        self.assertTrue(change.isMajor)
        self.assertEqual(change.what, "lost 10.0.0.1")
        # Connections to this machine itself are still good.
        self.assertEqual(change.addresses, {"2001:db8::1", "127.0.0.1"})

    def test_moved(self) -> None:
        """So is one that was replaced by another."""
        self.addresses[0] = "10.9.9.9"
        self.clock.advance(INTERVAL)
        change = self.change()
        self.assertTrue(change.isMajor)
        self.assertEqual(change.what, "lost 10.0.0.1 and got 10.9.9.9")

    def test_found(self) -> None:
        """A further address breaks nothing."""
        self.addresses.append("192.0.2.1")
        self.clock.advance(INTERVAL)
        self.assertFalse(self.change().isMajor)

    def test_manyAddresses(self) -> None:
        """That a host has further addresses for privacy takes none away."""
        for number in range(2, 9):
            self.addresses.insert(2, f"2001:db8::{number}")
            self.clock.advance(INTERVAL)
            change = self.change()
            self.assertFalse(change.isMajor)
            self.assertLessEqual(set(self.addresses), change.addresses)

    def test_irrelevant(self) -> None:
        """Addresses of the tailnet, of the link and of the host do not count."""
        self.addresses += ["100.64.0.1", "fd7a:115c:a1e0::1", "fe80::1", "127.0.0.2"]
        self.clock.advance(INTERVAL)
        self.assertEqual(self.changes, [])

    def test_offline(self) -> None:
        """No network at all is told, and so is the end of that."""
        self.addresses, former = ["127.0.0.1"], self.addresses
        self.clock.advance(INTERVAL)
        self.assertTrue(self.change().isOffline)
        self.assertFalse(self.monitor.state.isUp)
        self.addresses = former
        self.clock.advance(INTERVAL)
        change = self.change()
        self.assertFalse(change.isOffline)
        self.assertTrue(change.isMajor)

    def test_asleep(self) -> None:
        """A look that is late by far means that the machine was asleep."""
        self.clock.advance(INTERVAL + SLEPT - 1)
        self.assertEqual(self.changes, [])
        self.clock.advance(INTERVAL + 600)
        change = self.change()
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

    def test_startAgain(self) -> None:
        """What changed while nobody looked is no news after the start."""
        self.monitor.stopService()
        self.addresses[0] = "10.9.9.9"
        self.clock.advance(1000)
        self.monitor.startService()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.changes, [])


class NewsTests(MonitorTestCase):
    """A monitor that is told of news, and of routes."""

    def make(self) -> LinkMonitor:
        """The monitor."""

        def watch(news: Callable[[], object]) -> FakeWatcher:
            self.watcher = FakeWatcher(news)
            return self.watcher

        return LinkMonitor(
            self.clock,
            self.read,
            self.changes.append,
            routes=self.readRoutes,
            clock=lambda: self.sleepless,
            watch=watch,
        )

    def readRoutes(self) -> list[DefaultRoute]:
        """The ways to the internet."""
        if self.routes is None:
            raise OSError("not told")
        return list(self.routes)

    def pass_(self, seconds: float) -> None:
        """Let time pass on all clocks."""
        self.sleepless += seconds
        self.clock.advance(seconds)

    def test_soon(self) -> None:
        """News are looked at when they have ended."""
        self.pass_(1)
        self.addresses[0] = "10.9.9.9"
        self.watcher.news()
        self.pass_(QUIET / 2)
        self.watcher.news()
        self.pass_(QUIET * 0.9)
        self.assertEqual(self.changes, [])
        self.pass_(QUIET * 0.2)
        self.assertEqual(self.change().what, "lost 10.0.0.1 and got 10.9.9.9")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_withoutEnd(self) -> None:
        """News that do not end are looked at all the same, now and then."""
        self.looks = 0
        for _ in range(100):
            self.watcher.news()
            self.pass_(0.1)
        self.assertGreater(self.looks, 7 / LONGEST_WAIT)
        self.assertLessEqual(self.looks, 10 / LONGEST_WAIT)

    def test_stop(self) -> None:
        """The watcher is started and stopped; late news wake nobody."""
        self.assertTrue(self.watcher.isWatching)
        self.watcher.news()
        self.monitor.stopService()
        self.assertFalse(self.watcher.isWatching)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.watcher.news()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_route(self) -> None:
        """Another way to the internet is a major change."""
        self.routes = [route("10.0.0.253")]
        self.watcher.news()
        self.pass_(QUIET)
        change = self.change()
        self.assertTrue(change.isMajor)
        self.assertEqual(change.what, "IPv4 goes by 10.0.0.253 on eth0 now")

    def test_routesNotTold(self) -> None:
        """Routes that are not told for once have not changed."""
        self.routes = None
        self.pass_(INTERVAL)
        self.routes = [route("10.0.0.254")]
        self.pass_(INTERVAL)
        self.assertEqual(self.changes, [])

    def test_asleepByItself(self) -> None:
        """A sleep shows on a clock that nobody sets, and with the first news."""
        # The wall clock was set back while the machine slept.
        self.sleepless += 600
        self.watcher.news()
        self.clock.advance(QUIET)
        change = self.change()
        self.assertTrue(change.isMajor)
        self.assertEqual(change.what, "this machine was asleep for 597 s")

    def test_clockSetAhead(self) -> None:
        """A wall clock that runs ahead may mean a sleep, and is called by name."""
        self.sleepless += INTERVAL
        self.clock.advance(INTERVAL + 600)
        change = self.change()
        self.assertTrue(change.isMajor)
        self.assertEqual(
            change.what, "the clock of this machine was set ahead by 600 s"
        )

    def test_clockSetBackHeals(self) -> None:
        """News end the wait for a clock that was set back."""
        self.pass_(1)
        self.clock.rightNow -= 3600
        self.watcher.news()
        self.pass_(QUIET)
        self.addresses[0] = "10.9.9.9"
        self.pass_(INTERVAL)
        self.assertEqual(self.change().what, "lost 10.0.0.1 and got 10.9.9.9")


class CompareTests(SynchronousTestCase):
    """What a change of state means."""

    def compare(
        self, former: list[DefaultRoute], now: list[DefaultRoute]
    ) -> LinkChange | None:
        """The change from one set of routes to another."""
        addresses = addressesFromText(["10.0.0.1", "2001:db8::1"])
        return compare(LinkState.of(addresses, former), LinkState.of(addresses, now))

    def test_same(self) -> None:
        """The same is no change, whatever the order."""
        four, six = route("10.0.0.254"), route("2001:db8::ff")
        self.assertIs(self.compare([four, six], [six, four]), None)

    def test_noWayOut(self) -> None:
        """A way that is gone is major; a first one breaks nothing."""
        change = self.compare([route("10.0.0.254")], [])
        self.assertEqual(change.what, "IPv4 has no way out any more")
        self.assertTrue(change.isMajor)
        change = self.compare([], [route("2001:db8::ff", "wlan0")])
        self.assertEqual(change.what, "IPv6 goes by 2001:db8::ff on wlan0 now")
        self.assertFalse(change.isMajor)

    def test_otherInterface(self) -> None:
        """Another interface is major, even with the same gateway."""
        for former, now, text in (
            (route("10.0.0.254"), route("10.0.0.254", "wlan0"), "10.0.0.254 on wlan0"),
            (route(None, "ppp0", "10.0.0.1"), route(None, "ppp1", "10.0.0.1"), "ppp1"),
            (route(None, "", "10.0.0.1"), route(None, "", "10.0.0.2"), "from 10.0.0.2"),
            (route(None, "", "2001:db8::1"), route(None, "", "2001:db9::1"),
             "from 2001:db9::1"),
        ):  # fmt: skip
            change = self.compare([former], [now])
            self.assertTrue(change.isMajor)
            self.assertEqual(change.what, f"IPv{now.family} goes by {text} now")

    def test_privacy(self) -> None:
        """Another IPv6 address of the same subnet is not."""
        change = self.compare(
            [route("fe80::1", "eth0", "2001:db8::1")],
            [route("fe80::1", "eth0", "2001:db8::2")],
        )
        self.assertFalse(change.isMajor)

    def test_selfAssigned(self) -> None:
        """A self-assigned address is a network if packets leave by it."""
        addresses = addressesFromText(["127.0.0.1", "169.254.7.7", "fe80::1"])
        self.assertFalse(LinkState.of(addresses).isUp)
        state = LinkState.of(addresses, [route("169.254.1.1")])
        self.assertEqual(state.useful, {"169.254.7.7"})

    def test_everything(self) -> None:
        """All that happened is told in one sentence."""
        former = LinkState.of(addressesFromText(["10.0.0.1"]), [route("10.0.0.254")])
        now = LinkState.of(addressesFromText(["10.1.0.1"]), [route("10.1.0.254")])
        self.assertEqual(
            compare(former, now, ["it rained"]).what,
            "it rained and lost 10.0.0.1 and got 10.1.0.1"
            " and IPv4 goes by 10.1.0.254 on eth0 now",
        )


class ChoiceTests(SynchronousTestCase):
    """Which monitor is made."""

    def test_simulated(self) -> None:
        """On a simulated host, only its addresses and its time are looked at."""
        clock = Clock()
        internet = MemoryInternet(clock)
        host = internet.host("laptop", ["192.0.2.1"])
        changes: list[LinkChange] = []
        monitor = linkMonitor(
            host, lambda: addressesFromText(host.addresses), changes.append
        )
        monitor.startService()
        elapse(clock, 10)
        internet.setAddresses(host, ["192.0.2.7"])
        elapse(clock, INTERVAL)
        self.assertEqual(changes.pop().what, "lost 192.0.2.1 and got 192.0.2.7")
        host.sleep(1000)
        elapse(clock, 1001)
        self.assertRegex(changes.pop().what, "asleep for (99[0-9]|1000) s")
        monitor.stopService()
        self.assertEqual(list(host.getDelayedCalls()), [])

    def test_real(self) -> None:
        """On Linux the kernel is listened to; elsewhere there is only looking."""
        reactor = MemoryReactorClock()
        monitor = linkMonitor(reactor, tuple, print, platform="linux")
        self.assertIsNot(monitor._watcher, None)
        self.assertIs(monitor._routes, kernelRoutes)
        monitor = linkMonitor(reactor, tuple, print, platform="darwin")
        self.assertIs(monitor._watcher, None)
        self.assertIs(monitor._routes, preferredSources)

    def test_sleeplessClock(self) -> None:
        """The clock goes forward, and not slower than others."""
        before, monotonic = sleeplessClock(), time.monotonic()
        while time.monotonic() == monotonic:
            pass
        self.assertGreater(sleeplessClock(), before)
        if sys.platform == "linux":
            self.assertGreaterEqual(sleeplessClock(), time.monotonic() - 0.001)

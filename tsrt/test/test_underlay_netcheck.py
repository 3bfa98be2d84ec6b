"""
Tests for L{tsrt.underlay.netcheck}, against STUN servers and relays of a
simulated internet.
"""

from __future__ import annotations

from itertools import pairwise

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tsrt.derp.latency import measureLatency
from tsrt.errors import NotRunning
from tsrt.path.netcheck import REPORT_TIMEOUT, STUN_TIMEOUT, Report
from tsrt.tailcfg import DERPHomeParams, DERPMap, DERPNode, DERPRegion
from tsrt.test.relayworld import World
from tsrt.testing.links import Link
from tsrt.testing.stun import STUNServer
from tsrt.underlay.dial import StreamDialer
from tsrt.underlay.netcheck import LONGEST_PERIOD, SHORTEST_PERIOD, NetcheckService
from tsrt.underlay.socket import UnderlaySocket


class NetcheckTestCase(SynchronousTestCase):
    """A node, and relays with STUN servers at several distances."""

    def setUp(self) -> None:
        self.world = World()
        self.host = self.world.internet.host("node", ["198.51.100.1"])
        self.reports: list[Report] = []
        self.map = DERPMap(regions={})
        self.relays = {}
        self.stun = {}
        self.active = True

    def region(self, number: int, delay: float = 0.01, **settings) -> None:
        """A region with a relay and a STUN server that far away."""
        host, relay = self.world.relay(f"r{number}", **settings)
        self.world.internet.setLink(Link(delay=delay), self.host, host)
        self.stun[number] = STUNServer(host)
        self.stun[number].startService()
        self.relays[number] = (host, relay)
        described = DERPNode(
            name=f"{number}a",
            regionID=number,
            hostName=f"r{number}.example.com",
            ipv4=host.addresses[0],
            ipv6="none",
            derpPort=443,
        )
        regions = dict(self.map.regions)
        regions[number] = DERPRegion(regionID=number, nodes=[described])
        self.map = DERPMap(regions=regions)

    def service(self, start: bool = True, **settings) -> NetcheckService:
        """A running service on a running socket."""
        self.socket = UnderlaySocket(self.host)
        self.socket.startService()
        settings.setdefault(
            "httpsLatency",
            lambda *arguments: measureLatency(*arguments, plain=True),
        )
        service = NetcheckService(
            self.host,
            self.socket,
            StreamDialer(self.host),
            randbytes=self.world.randbytes,
            onReport=self.reports.append,
            isActive=lambda: self.active,
            **settings,
        )
        service.setMap(self.map)
        if start:
            service.startService()
        return service

    def noUDP(self) -> None:
        """Let no UDP out of the node's network."""
        self.host.firewall = lambda kind, address, port: kind == "tcp"

    def stop(self, service: NetcheckService) -> None:
        """Stop; nothing is left."""
        service.stopService()
        self.world.result(self.socket.stopService())
        self.world.elapse(0)
        self.assertEqual(list(self.host.getDelayedCalls()), [])
        self.assertEqual((self.host.ports, self.host.streams), ([], []))


class CheckTests(NetcheckTestCase):
    """What a check finds out."""

    def test_report(self) -> None:
        """A check at the start measures every region and picks the nearest."""
        self.region(1, 0.05)
        self.region(2, 0.02)
        service = self.service()
        self.world.until(lambda: bool(self.reports))
        [report] = self.reports
        self.assertTrue(report.isFull and report.udp and report.ipv4)
        self.assertFalse(report.ipv6)
        self.assertIs(report.mappingVaries, False)
        self.assertEqual(report.globalIPv4.text(), "198.51.100.1:41641")
        self.assertAlmostEqual(report.latencies[1], 0.1)
        self.assertAlmostEqual(report.latencies[2], 0.04)
        self.assertEqual(report.preferredRegion, 2)
        self.assertIs(service.last, report)
        self.stop(service)

    def test_quick(self) -> None:
        """With all answers in the check is over."""
        self.region(1, 0.05)
        start = self.world.clock.seconds()
        self.service()
        self.world.until(lambda: bool(self.reports))
        self.assertAlmostEqual(self.world.clock.seconds() - start, 0.1, 2)

    def test_lossy(self) -> None:
        """Lost datagrams are sent again."""
        self.region(1)
        asked: list[int] = []

        def firewall(kind: str, address: str, port: int) -> bool:
            asked.append(port)
            return len(asked) > 2

        self.host.firewall = firewall
        self.service()
        self.world.until(lambda: bool(self.reports))
        self.assertTrue(self.reports[0].udp)
        self.assertAlmostEqual(self.reports[0].latencies[1], 0.02)

    def test_T_netcheck_hungRegion(self) -> None:
        """A region that is not there holds the result three seconds at most."""
        self.region(1)
        self.region(2)
        self.relays[2][0].down = True
        start = self.world.clock.seconds()
        self.service()
        self.world.until(lambda: bool(self.reports))
        self.assertLessEqual(self.world.clock.seconds() - start, STUN_TIMEOUT + 0.01)
        self.assertEqual(self.reports[0].preferredRegion, 1)

    def test_T_netcheck_everythingIsGone(self) -> None:
        """With nothing at all there is a report after five seconds, and a home."""
        self.region(1)
        self.relays[1][0].down = True
        start = self.world.clock.seconds()
        self.service()
        self.world.until(lambda: bool(self.reports))
        self.assertAlmostEqual(self.world.clock.seconds() - start, REPORT_TIMEOUT, 2)
        self.assertFalse(self.reports[0].udp)
        self.assertEqual(self.reports[0].preferredRegion, 1)

    def test_HTTPS(self) -> None:
        """Where no UDP gets out the relays are measured by HTTPS."""
        self.region(1, 0.05)
        self.region(2, 0.02)
        self.noUDP()
        service = self.service()
        self.world.until(lambda: bool(self.reports))
        [report] = self.reports
        self.assertFalse(report.udp)
        self.assertTrue(report.usedHTTPS)
        self.assertAlmostEqual(report.latencies[1], 0.1, 2)
        self.assertAlmostEqual(report.latencies[2], 0.04, 2)
        self.assertEqual(report.preferredRegion, 2)
        self.assertEqual(self.relays[1][1].requests, {"/derp/latency-check": 1})
        self.stop(service)

    def test_T_netcheck_HTTPSHangs(self) -> None:
        """A relay that hangs does not hold what others measured."""
        self.region(1)
        self.region(2)
        self.relays[2][0].down = True
        self.noUDP()
        start = self.world.clock.seconds()
        service = self.service()
        self.world.until(lambda: bool(self.reports))
        self.assertLessEqual(self.world.clock.seconds() - start, REPORT_TIMEOUT + 0.01)
        self.assertEqual(set(self.reports[0].latencies), {1})
        self.stop(service)

    def test_HTTPSOverTLS(self) -> None:
        """The measuring judges certificates as relaying does."""
        self.region(1, tls=True)
        self.noUDP()
        self.service(httpsLatency=measureLatency)
        self.world.until(lambda: bool(self.reports))
        self.assertEqual(self.reports[0].latencies, {})
        self.map.regions[1].nodes[0].insecureForTests = True
        self.reports.clear()
        self.service(httpsLatency=measureLatency)
        self.world.until(lambda: bool(self.reports))
        self.assertEqual(set(self.reports[0].latencies), {1})

    def test_withoutHTTPS(self) -> None:
        """Without a way to measure by HTTPS the home is any region."""
        self.region(1)
        self.noUDP()
        self.service(httpsLatency=None)
        self.world.until(lambda: bool(self.reports))
        self.assertEqual(self.reports[0].preferredRegion, 1)
        self.assertFalse(self.reports[0].usedHTTPS)

    def test_failingHTTPS(self) -> None:
        """A measurement that cannot even begin is no more than that."""

        def broken(*arguments: object) -> Deferred[float]:
            raise ZeroDivisionError

        self.region(1)
        self.noUDP()
        self.service(httpsLatency=broken)
        self.world.until(lambda: bool(self.reports))
        self.assertEqual(self.reports[0].latencies, {})

    def test_refusedLatencyCheck(self) -> None:
        """A server that answers the check with an error is not measured."""
        self.region(1)
        self.noUDP()
        host, relay = self.relays[1]
        self.world.result(relay.stopService())
        host.listenTCP(443, Site(Resource(), reactor=host))
        self.service()
        self.world.until(lambda: bool(self.reports))
        self.assertEqual(self.reports[0].latencies, {})

    def test_scores(self) -> None:
        """The scores of the map count."""
        self.region(1, 0.05)
        self.region(2, 0.03)
        self.map.homeParams = DERPHomeParams(regionScore={1: 0.1})
        self.service()
        self.world.until(lambda: bool(self.reports))
        self.assertEqual(self.reports[0].preferredRegion, 1)

    def test_homeDoesNotChangeInTheDark(self) -> None:
        """While control cannot be told the home stays."""
        self.region(1, 0.01)
        self.region(2, 0.05)
        may = [True]
        service = self.service(mayChangeHome=lambda: may[0])
        self.world.until(lambda: bool(self.reports))
        may[0] = False
        for number, delay in ((1, 0.5), (2, 0.005)):
            host = self.relays[number][0]
            self.world.internet.setLink(Link(delay=delay), self.host, host)
        report = self.world.result(service.check())
        self.assertEqual(report.preferredRegion, 1)
        may[0] = True
        self.assertEqual(self.world.result(service.check()).preferredRegion, 2)


class ScheduleTests(NetcheckTestCase):
    """When it is checked."""

    def test_periodic(self) -> None:
        """While active it is checked every 20 to 26 seconds, not quite regularly."""
        self.region(1)
        times: list[float] = []
        service = self.service()
        service._onReport = lambda report: times.append(self.world.clock.seconds())
        self.world.elapse(600)
        waits = [b - a for a, b in pairwise(times[1:])]
        self.assertGreater(len(waits), 20)
        for wait in waits:
            self.assertTrue(SHORTEST_PERIOD - 1 <= wait <= LONGEST_PERIOD + 1, wait)
        self.assertGreater(len({round(wait, 3) for wait in waits}), 5)

    def test_inactive(self) -> None:
        """While the node is idle it is not checked."""
        self.region(1)
        self.active = False
        self.service()
        self.world.elapse(300)
        self.assertEqual(len(self.reports), 1)
        self.active = True
        self.world.elapse(30)
        self.assertEqual(len(self.reports), 2)

    def test_fullNowAndThen(self) -> None:
        """Every five minutes all regions are asked, between them the nearest."""
        for number in range(1, 7):
            self.region(number, 0.01 * number)
        self.service()
        self.world.elapse(700)
        full = [report.isFull for report in self.reports]
        self.assertTrue(full[0])
        self.assertEqual(sum(full), 3)
        incremental = next(report for report in self.reports if not report.isFull)
        self.assertLessEqual(set(incremental.latencies), {1, 2, 3})

    def test_newMap(self) -> None:
        """A new map is measured at once, the same one is not."""
        self.region(1)
        service = self.service()
        self.world.until(lambda: len(self.reports) == 1)
        service.setMap(DERPMap(regions=dict(self.map.regions)))
        self.world.elapse(1)
        self.assertEqual(len(self.reports), 1)
        self.region(2, 0.001)
        service.setMap(self.map)
        self.world.elapse(1)
        self.assertEqual(len(self.reports), 2)
        self.assertEqual(set(self.reports[1].latencies), {1, 2})

    def test_newMapDuringACheck(self) -> None:
        """A map that comes during a check is measured right after it."""
        self.region(1)
        service = self.service()
        self.region(2)
        service.setMap(self.map)
        self.world.elapse(1)
        self.assertEqual(
            [set(report.latencies) for report in self.reports], [{1}, {1, 2}]
        )

    def test_mapBeforeTheStart(self) -> None:
        """A map that was there before the start is measured at the start."""
        self.region(1)
        service = self.service(start=False)
        self.world.elapse(30)
        self.assertEqual(self.reports, [])
        service.startService()
        self.world.until(lambda: len(self.reports) == 1)

    def test_noMap(self) -> None:
        """Without a map nothing is checked, unless somebody asks."""
        service = self.service()
        self.world.elapse(100)
        self.assertEqual(self.reports, [])
        report = self.world.result(service.check())
        self.assertEqual(report.preferredRegion, 0)

    def test_onDemand(self) -> None:
        """Those who ask during a check get its report."""
        self.region(1)
        service = self.service()
        one, two = service.check(), service.check()
        self.assertIs(self.world.result(one), self.world.result(two))
        self.assertEqual(len(self.reports), 1)

    def test_fullOnDemand(self) -> None:
        """Who wants all regions asked waits for a check that does."""
        self.region(1)
        service = self.service()
        self.world.until(lambda: len(self.reports) == 1)
        small, full = service.check(), service.check(isFull=True)
        self.assertFalse(self.world.result(small).isFull)
        self.assertTrue(self.world.result(full).isFull)
        self.assertEqual(len(self.reports), 3)

    def test_cancel(self) -> None:
        """Who does not wait any more is not told."""
        self.region(1)
        service = self.service()
        waiting = service.check()
        waiting.cancel()
        self.failureResultOf(waiting)
        self.world.elapse(1)
        self.assertEqual(len(self.reports), 1)

    def test_networkChanged(self) -> None:
        """After a change of network everything is measured anew."""
        self.region(1)
        service = self.service()
        self.world.until(lambda: len(self.reports) == 1)
        service.networkChanged()
        self.world.until(lambda: len(self.reports) == 2)
        self.assertTrue(self.reports[1].isFull)

    def test_failingListener(self) -> None:
        """An error of whoever is told is logged, and others are told."""
        self.region(1)
        service = self.service()

        def broken(report: Report) -> None:
            raise ZeroDivisionError

        service._onReport = broken
        self.world.result(service.check())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class PortalTests(NetcheckTestCase):
    """A look for a captive portal, where no STUN server answers."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[int] = []
        self.answer: bool | None = True

    def find(self, derpMap: DERPMap, home: int) -> Deferred[bool | None]:
        """Note the question, and answer it."""
        self.asked.append(home)
        self.assertEqual(derpMap, self.map)
        return succeed(self.answer)

    def test_found(self) -> None:
        """It is in the report, and the next check looks again."""
        self.region(1)
        self.noUDP()
        service = self.service(findPortal=self.find)
        report = self.world.result(service.check())
        self.assertIs(report.captivePortal, True)
        self.answer = False
        report = self.world.result(service.check())
        self.assertTrue(report.isFull)
        self.assertIs(report.captivePortal, False)
        report = self.world.result(service.check())
        self.assertFalse(report.isFull)
        self.assertIsNone(report.captivePortal)
        self.assertEqual(len(self.asked), 2)
        self.stop(service)

    def test_notNeeded(self) -> None:
        """Whoever has UDP makes no request to anybody."""
        self.region(1)
        service = self.service(findPortal=self.find)
        report = self.world.result(service.check())
        self.assertIsNone(report.captivePortal)
        self.assertEqual(self.asked, [])
        self.stop(service)

    def test_slow(self) -> None:
        """A look that takes too long, or fails, keeps no report from coming."""
        self.region(1)
        self.noUDP()
        never: Deferred[bool | None] = Deferred()
        for result in (never, fail(ZeroDivisionError())):
            service = self.service(findPortal=lambda *_, result=result: result)
            report = self.world.result(service.check())
            self.assertIsNone(report.captivePortal)
            self.stop(service)
        self.assertTrue(never.called)


class LifeTests(NetcheckTestCase):
    """Everything that is started is stopped."""

    def test_stopAtAnyStep(self) -> None:
        """A stop in the middle of a check leaves nothing."""
        self.region(1)
        self.noUDP()
        for step in (0, 0.05, 1, 3.005, 3.03, 3.2):
            service = self.service()
            self.world.elapse(step)
            waiting = service.check() if step < 3 else None
            self.stop(service)
            if waiting is not None:
                self.failureResultOf(waiting, NotRunning)

    def test_startAgain(self) -> None:
        """A stopped service can be started again."""
        self.region(1)
        service = self.service()
        self.world.elapse(1)
        service.stopService()
        self.failureResultOf(service.check(), NotRunning)
        service.networkChanged()
        service.startService()
        self.world.elapse(1)
        self.assertEqual(len(self.reports), 2)
        self.stop(service)

    def test_strayDatagrams(self) -> None:
        """STUN that comes when nothing is checked is ignored."""
        self.region(1)
        service = self.service()
        self.world.elapse(1)
        service._stunReceived(b"x", None)
        self.stop(service)

"""
Tests for L{tsrt.path.netcheck}, L{tsrt.path.probes} and L{tsrt.path.home}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import AddrPort, parseAddress
from tsrt.path.home import WINDOW, HomeRegion
from tsrt.path.netcheck import (
    REPORT_TIMEOUT,
    STUN_TIMEOUT,
    Report,
    ReportBuilder,
)
from tsrt.path.probes import (
    ProbeSet,
    fullPlan,
    incrementalPlan,
    measuredRegions,
    stunServer,
)
from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
from tsrt.wire import stun

OURS = AddrPort(parseAddress("198.51.100.9"), 41641)
OURS6 = AddrPort(parseAddress("2001:db8::9"), 41641)


def at(text: str, port: int = 3478) -> AddrPort:
    """A packed address."""
    return AddrPort(parseAddress(text), port)


def node(number: int, index: int = 0, **settings: object) -> DERPNode:
    """A node with fixed addresses."""
    described: dict[str, object] = {
        "name": f"{number}{'abc'[index]}",
        "regionID": number,
        "hostName": f"derp{number}.example.com",
        "ipv4": f"192.0.2.{number * 10 + index}",
        "ipv6": f"2001:db8:{number}::{index + 1}",
    }
    return DERPNode(**(described | settings))


def region(number: int, *nodes: DERPNode, **settings: object) -> DERPRegion:
    """A region, of one node unless others are given."""
    return DERPRegion(regionID=number, nodes=list(nodes) or [node(number)], **settings)


def derpMap(*regions: DERPRegion) -> DERPMap:
    """A map of regions."""
    return DERPMap(regions={each.regionID: each for each in regions})


def shape(plan: list[ProbeSet]) -> dict[tuple[int, int], list[float]]:
    """The delays of a plan by region and family."""
    return {
        (each.regionID, each.family): [round(p.delay, 6) for p in each.waiting]
        for each in plan
    }


class ServerTests(SynchronousTestCase):
    """Who is asked at all."""

    def test_R_DERP_1_onlyFixedIPv4(self) -> None:
        """Nodes that need DNS, have no IPv4 or no port are not asked."""
        self.assertEqual(stunServer(node(1), 4), at("192.0.2.10"))
        for wrong in (
            {"ipv4": ""},
            {"ipv4": "none"},
            {"ipv4": "2001:db8::1"},
            {"stunPort": -1},
            {"stunPort": 70000},
        ):
            self.assertIsNone(stunServer(node(1, **wrong), 4), wrong)
        for wrong in ({"stunPort": -1}, {"stunPort": 70000}):
            self.assertIsNone(stunServer(node(1, **wrong), 6), wrong)

    def test_R_DERP_1_IPv6(self) -> None:
        """IPv6 is asked at fixed addresses, where there is no IPv4 as well."""
        self.assertEqual(stunServer(node(1), 6), at("2001:db8:1::1"))
        self.assertEqual(stunServer(node(1, ipv4="none"), 6), at("2001:db8:1::1"))
        self.assertIsNone(stunServer(node(1, ipv6=""), 6))
        self.assertIsNone(stunServer(node(1, ipv6="none"), 6))

    def test_portsAndTests(self) -> None:
        """Ports have a default; tests may name another address."""
        self.assertEqual(stunServer(node(1, stunPort=99), 4), at("192.0.2.10", 99))
        self.assertEqual(
            stunServer(node(1, stunTestIP="127.0.0.1"), 4), at("127.0.0.1")
        )
        self.assertEqual(
            stunServer(node(1, ipv4="", stunTestIP="127.0.0.1"), 4), at("127.0.0.1")
        )

    def test_STUNOnlyNodesCount(self) -> None:
        """A node that only does STUN is there for this."""
        self.assertIsNotNone(stunServer(node(1, stunOnly=True), 4))

    def test_measuredRegions(self) -> None:
        """Regions that must not be home, or are gone, are left out."""
        described = derpMap(region(1), region(2, noMeasureNoHome=True))
        assert described.regions is not None
        described.regions[3] = None
        self.assertEqual(list(measuredRegions(described)), [1])
        self.assertEqual(measuredRegions(DERPMap()), {})


class PlanTests(SynchronousTestCase):
    """How often each is asked, and when."""

    def test_full(self) -> None:
        """A full check asks each region three times in each family."""
        self.assertEqual(
            shape(fullPlan(derpMap(region(1), region(2)))),
            {(n, f): [0.0, 0.1, 0.2] for n in (1, 2) for f in (4, 6)},
        )

    def test_nodesTakeTurns(self) -> None:
        """The tries go round the nodes of a region that do STUN."""
        plan = fullPlan(
            derpMap(region(1, node(1), node(1, 1, stunPort=-1), node(1, 2))), (4,)
        )
        self.assertEqual([p.node for p in plan[0].waiting], ["1a", "1c", "1a"])

    def test_regionWithoutServers(self) -> None:
        """A region without a server to ask has no place in a plan."""
        described = derpMap(region(1, node(1, ipv4="")), region(2))
        described.regions[3] = DERPRegion(regionID=3)
        self.assertEqual(set(shape(fullPlan(described, (4,)))), {(2, 4)})

    def test_incremental(self) -> None:
        """The nearest three are asked, the fastest two twice."""
        described = derpMap(*[region(n) for n in range(1, 6)])
        latencies = {1: 0.5, 2: 0.1, 3: 0.2, 4: 0.3}
        self.assertEqual(
            shape(incrementalPlan(described, latencies, 0, families=(4,))),
            {(2, 4): [0.0, 0.12], (3, 4): [0.0, 0.24], (4, 4): [0.0]},
        )

    def test_incrementalHome(self) -> None:
        """The home is asked four times, however far it is."""
        described = derpMap(*[region(n) for n in range(1, 6)])
        latencies = {1: 0.5, 2: 0.1, 3: 0.2, 4: 0.3}
        plan = shape(
            incrementalPlan(described, latencies, 1, families=(4,), had6=False)
        )
        self.assertEqual(plan[1, 4], [0.0, 0.6, 1.3, 1.95])
        self.assertEqual(len(plan), 4)
        plan = shape(incrementalPlan(described, {}, 5, families=(4,), had6=False))
        self.assertEqual(plan[5, 4], [0.0, 0.2, 0.5, 0.75])

    def test_incrementalFamilies(self) -> None:
        """Slower regions take turns in families; what fails is not retried."""
        described = derpMap(*[region(n) for n in range(1, 5)])
        latencies = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
        both = shape(incrementalPlan(described, latencies, 0))
        self.assertEqual(set(both), {(1, 4), (1, 6), (2, 4), (2, 6), (3, 4)})
        only4 = shape(incrementalPlan(described, latencies, 4, had6=False))
        self.assertEqual(set(only4), {(1, 4), (1, 6), (2, 4), (2, 6), (3, 4), (4, 4)})

    def test_T_home_flap_homeIsAskedByAllMeans(self) -> None:
        """A far home is asked in both families, or the one that it has."""
        described = derpMap(
            region(1), region(2), region(3), region(4), region(5, node(5, ipv6="none"))
        )
        latencies = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.5}
        for home, expected in ((4, {(4, 4), (4, 6)}), (5, {(5, 4)})):
            plan = shape(incrementalPlan(described, latencies, home))
            self.assertEqual({key for key in plan if key[0] == home}, expected)

    def test_turnsWhereThereIsOneFamily(self) -> None:
        """A region that has one family only is asked in it, whoever's turn it is."""
        described = derpMap(region(1), region(2), region(3, node(3, ipv6="none")))
        latencies = {1: 0.1, 2: 0.2, 3: 0.3}
        plan = shape(incrementalPlan(described, latencies, 0))
        self.assertIn((3, 4), plan)
        described = derpMap(region(1), region(2), region(3, node(3, ipv4="")))
        plan = shape(incrementalPlan(described, latencies, 0))
        self.assertIn((3, 6), plan)

    def test_avoid(self) -> None:
        """Regions to avoid are asked only when they are home."""
        described = derpMap(region(1, avoid=True), region(2))
        self.assertEqual(
            set(shape(incrementalPlan(described, {}, 0, families=(4,)))), {(2, 4)}
        )
        self.assertEqual(
            set(shape(incrementalPlan(described, {}, 1, families=(4,)))),
            {(1, 4), (2, 4)},
        )


class BuilderTestCase(SynchronousTestCase):
    """A check that is driven by hand."""

    def builder(self, *regions: DERPRegion, families=(4, 6), **settings):
        """A builder of a full check at the time 100."""
        self.counter = 0

        def randbytes(count: int) -> bytes:
            self.counter += 1
            return self.counter.to_bytes(count, "big")

        return ReportBuilder(
            fullPlan(derpMap(*regions), families),
            100.0,
            randbytes=randbytes,
            **settings,
        )

    def answer(
        self, builder, request: bytes, now: float, mapped=OURS, source=None
    ) -> bool:
        """A server, the one that was asked unless C{source} says, answers."""
        txid = stun.parseRequest(request)
        flight = builder._flights.get(txid)
        source = source or (flight.probe.server if flight else at("192.0.2.10"))
        return builder.received(stun.buildResponse(txid, mapped), source, now)


class BuilderTests(BuilderTestCase):
    """What is learnt, and when it is enough."""

    def test_oneRegion(self) -> None:
        """One answer of the only region in the only family is enough."""
        builder = self.builder(region(1), families=(4,))
        [(server, request)] = builder.due(100.0)
        self.assertEqual(server, at("192.0.2.10"))
        self.assertEqual(builder.deadline(100.0), 100.1)
        self.assertFalse(builder.isDone(100.0))
        self.assertTrue(self.answer(builder, request, 100.05))
        self.assertTrue(builder.isDone(100.05))
        report = builder.report(100.05)
        self.assertTrue(report.udp and report.ipv4 and not report.ipv6)
        self.assertEqual(set(report.latencies), {1})
        self.assertAlmostEqual(report.latencies[1], 0.05)
        self.assertEqual(report.globalIPv4, OURS)
        self.assertIsNone(report.mappingVaries)
        self.assertEqual(list(report.latencyKeys()), ["1-v4"])

    def test_retries(self) -> None:
        """A question that is not answered is asked again, and again."""
        builder = self.builder(region(1), families=(4,))
        self.assertEqual(len(builder.due(100.0)), 1)
        self.assertEqual(builder.due(100.05), [])
        self.assertEqual(len(builder.due(100.1)), 1)
        [(_, third)] = builder.due(100.2)
        self.answer(builder, third, 100.23)
        self.assertAlmostEqual(builder.report(101).latencies[1], 0.03)

    def test_bothFamilies(self) -> None:
        """Both families count, the better one for the region."""
        builder = self.builder(region(1))
        requests = {len(s.address): r for s, r in builder.due(100.0)}
        self.answer(builder, requests[16], 100.02, OURS6)
        self.answer(builder, requests[4], 100.04)
        report = builder.report(100.04)
        self.assertTrue(report.ipv4 and report.ipv6)
        self.assertEqual(report.globalIPv6, OURS6)
        self.assertAlmostEqual(report.latencies[1], 0.02)
        self.assertAlmostEqual(report.latencies4[1], 0.04)
        self.assertEqual(set(report.latencyKeys()), {"1-v4", "1-v6"})

    def test_mappingVaries(self) -> None:
        """Two servers that see us differently give a hard NAT away."""
        for second, expected in ((OURS, False), (OURS._replace(port=9), True)):
            builder = self.builder(region(1), region(2), families=(4,))
            (_, one), (_, two) = builder.due(100.0)
            self.answer(builder, one, 100.01)
            self.assertIsNone(builder.report(100.01).mappingVaries)
            self.answer(builder, two, 100.02, second)
            self.assertIs(builder.report(100.02).mappingVaries, expected)

    def test_uselessProbesAreSkipped(self) -> None:
        """What cannot teach anything any more is not asked."""
        builder = self.builder(region(1), region(2), region(3))
        requests = builder.due(100.0)
        for server, request in requests:
            if len(server.address) == 4:
                self.answer(builder, request, 100.01)
        # One answer over IPv6 is still of use, but nothing over IPv4.
        later = {len(server.address) for server, _ in builder.due(100.025)}
        self.assertEqual(later, set())
        builder = self.builder(region(1), families=(4,))
        [(_, request)] = builder.due(100.0)
        self.answer(builder, request, 100.01)
        self.assertEqual(builder.due(100.3), [])

    def test_whatWouldHelp(self) -> None:
        """A known region is asked again for IPv6 or the mapping, not for more."""
        builder = self.builder(region(1), region(2))
        requests = dict(builder.due(100.0))
        self.answer(builder, requests[at("192.0.2.10")], 100.01)
        self.answer(builder, requests[at("192.0.2.20")], 100.01)
        # Both regions and the mapping are known; of IPv6 nothing is.
        self.assertEqual(
            {len(server.address) for server, _ in builder.due(100.1)}, {16}
        )
        self.answer(builder, requests[at("2001:db8:1::1")], 100.15, OURS6)
        self.assertEqual(builder.due(100.2), [])
        builder = self.builder(region(1), region(2))
        requests = dict(builder.due(100.0))
        self.answer(builder, requests[at("2001:db8:1::1")], 100.01, OURS6)
        self.answer(builder, requests[at("2001:db8:2::1")], 100.01, OURS6)
        self.assertEqual({len(server.address) for server, _ in builder.due(100.1)}, {4})

    def test_sameServerTellsNothingOfTheMapping(self) -> None:
        """Two answers of one server do not make a NAT easy."""
        shared = node(1)
        builder = self.builder(
            region(1, shared), region(2, node(2, ipv4=shared.ipv4)), families=(4,)
        )
        (_, one), (_, two) = builder.due(100.0)
        self.answer(builder, one, 100.01)
        self.answer(builder, two, 100.02)
        self.assertIsNone(builder.report(101).mappingVaries)

    def test_endsEarly(self) -> None:
        """Three regions are enough, after as long again as the slowest took."""
        builder = self.builder(*[region(n) for n in range(1, 6)], families=(4,))
        requests = [request for _, request in builder.due(100.0)]
        for request, when in zip(requests[:3], (100.01, 100.02, 100.05), strict=True):
            self.assertFalse(builder.isDone(when))
            self.answer(builder, request, when)
        self.assertFalse(builder.isDone(100.149))
        self.assertLessEqual(builder.deadline(100.06), 100.15)
        self.assertTrue(builder.isDone(100.151))

    def test_T_netcheck_hungRegion(self) -> None:
        """A region that never answers holds the others for three seconds."""
        builder = self.builder(region(1), region(2), families=(4,))
        (_, one), _ = builder.due(100.0)
        self.answer(builder, one, 100.01)
        builder.due(100.1)
        builder.due(100.2)
        self.assertFalse(builder.isDone(100.0 + STUN_TIMEOUT - 0.01))
        self.assertTrue(builder.isDone(100.0 + STUN_TIMEOUT))
        self.assertEqual(set(builder.report(103).latencies), {1})

    def test_T_netcheck_everythingHangs(self) -> None:
        """With nothing at all the check ends after five seconds."""
        builder = self.builder(region(1), families=(4,))
        builder.due(100.0)
        self.assertFalse(builder.needsHTTPS(101))
        self.assertTrue(builder.needsHTTPS(100.0 + STUN_TIMEOUT))
        self.assertFalse(builder.needsHTTPS(100.0 + STUN_TIMEOUT))
        self.assertFalse(builder.isDone(104.9))
        self.assertTrue(builder.isDone(100.0 + REPORT_TIMEOUT))
        report = builder.report(105)
        self.assertFalse(report.udp or report.latencies)

    def test_deadlinesComeToAnEnd(self) -> None:
        """Looking again whenever it is due leads to the end, in few steps."""
        builder = self.builder(*[region(n) for n in range(1, 9)], canHTTPS=False)
        now, steps = 100.0, 0
        while not builder.isDone(now):
            builder.due(now)
            following = builder.deadline(now)
            self.assertGreater(following, now)
            now, steps = following, steps + 1
        self.assertLess(steps, 10)
        self.assertEqual(now, 100.0 + STUN_TIMEOUT)

    def test_HTTPS(self) -> None:
        """Where no UDP works latencies by HTTPS count."""
        builder = self.builder(region(1), region(2))
        builder.due(100.0)
        self.assertTrue(builder.needsHTTPS(103.0))
        builder.measured(1, 0.3)
        builder.measured(2, 0.2)
        self.assertFalse(builder.isDone(103.5))
        builder.httpsOver()
        self.assertTrue(builder.isDone(103.5))
        report = builder.report(103.5)
        self.assertFalse(report.udp)
        self.assertTrue(report.usedHTTPS)
        self.assertEqual(report.latencies, {1: 0.3, 2: 0.2})
        self.assertEqual(report.latencyKeys(), {"1-v4": 0.3, "2-v4": 0.2})

    def test_withoutHTTPS(self) -> None:
        """Where the caller cannot measure by HTTPS it is not waited for."""
        builder = self.builder(region(1), canHTTPS=False)
        builder.due(100.0)
        self.assertFalse(builder.needsHTTPS(103.0))
        self.assertTrue(builder.isDone(103.0))

    def test_nobodyToAsk(self) -> None:
        """Without STUN servers it goes straight on to HTTPS."""
        builder = self.builder(region(1, node(1, ipv4="", ipv6="")))
        self.assertEqual(builder.due(100.0), [])
        self.assertTrue(builder.needsHTTPS(100.0))

    def test_notSent(self) -> None:
        """A family that cannot even be sent to is not waited for."""
        builder = self.builder(region(1))
        for when in (100.0, 100.1, 100.2):
            for server, request in builder.due(when):
                if len(server.address) == 16:
                    builder.notSent(server)
                elif when == 100.0:
                    four = request
        self.answer(builder, four, 100.21)
        self.assertTrue(builder.isDone(100.21))

    def test_R_MS_6_unsolicited(self) -> None:
        """Answers to nothing, twice, malformed or too late teach nothing."""
        builder = self.builder(region(1), families=(4,))
        [(_, request)] = builder.due(100.0)
        stranger = stun.buildResponse(b"x" * 12, OURS)
        for datagram in (stranger, b"nonsense", request):
            self.assertFalse(builder.received(datagram, at("192.0.2.10"), 100.01))
        self.assertFalse(self.answer(builder, request, 100.01, OURS6))
        self.assertEqual(builder.report(100.02).globalIPv4, None)
        [(_, request)] = builder.due(100.1)
        self.assertFalse(self.answer(builder, request, 106.0))
        [(_, request)] = builder.due(100.2)
        self.assertTrue(self.answer(builder, request, 100.25))
        self.assertFalse(self.answer(builder, request, 100.26))
        self.assertEqual(builder.unknown, 6)

    def test_wrongServer(self) -> None:
        """An answer from another address or port is nobody's; the right one counts."""
        builder = self.builder(region(1), families=(4,))
        [(server, request)] = builder.due(100.0)
        for source in (at("192.0.2.11"), at("192.0.2.10", 3479)):
            self.assertFalse(self.answer(builder, request, 100.01, source=source))
        self.assertEqual(builder.unknown, 2)
        self.assertEqual(builder.report(100.02).mapped, ())
        self.assertTrue(self.answer(builder, request, 100.02, source=server))
        self.assertEqual(builder.report(100.03).mapped, (OURS,))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.binary(max_size=60), max_size=5))
    def test_anyBytes(self, datagrams: list[bytes]) -> None:
        """No datagram raises anything."""
        builder = self.builder(region(1))
        builder.due(100.0)
        for datagram in datagrams:
            self.assertFalse(builder.received(datagram, at("192.0.2.10"), 100.01))

    def test_withHome(self) -> None:
        """A report gets its home region afterwards."""
        report = Report(when=1.0)
        self.assertEqual(report.preferredRegion, 0)
        self.assertEqual(report.withHome(7).preferredRegion, 7)


class HomeRegionTests(SynchronousTestCase):
    """Which region is the home."""

    def setUp(self) -> None:
        self.home = HomeRegion(seed=5)
        self.now = 1000.0

    def choose(self, latencies: dict[int, float], **settings) -> int:
        """A check half a minute after the last one."""
        self.now += 30.0
        regions = settings.pop("regions", (1, 2, 3))
        return self.home.choose(latencies, regions, self.now, **settings)

    def test_nearest(self) -> None:
        """At first the nearest region is the home."""
        self.assertEqual(self.choose({1: 0.2, 2: 0.1, 3: 0.3}), 2)
        self.assertEqual(self.home.region, 2)

    def test_T_home_flap_littleBetterIsNotEnough(self) -> None:
        """A home is kept unless another is clearly nearer."""
        self.choose({1: 0.100})
        for other in (0.095, 0.091, 0.080, 0.070, 0.067):
            self.assertEqual(self.choose({1: 0.100, 2: other}), 1, other)
        self.assertEqual(self.choose({1: 0.100, 2: 0.066}), 2)

    def test_T_home_flap_tenMilliseconds(self) -> None:
        """Among near regions ten milliseconds are needed besides."""
        self.choose({1: 0.012})
        self.assertEqual(self.choose({1: 0.012, 2: 0.003}), 1)
        self.assertEqual(self.choose({1: 0.014, 2: 0.003}), 2)

    def test_T_home_flap_currentHomeAgainstBestOfWindow(self) -> None:
        """The home counts as it is now, others by their best of five minutes."""
        self.choose({1: 0.060})
        self.assertEqual(self.choose({1: 0.061, 2: 0.055}), 1)
        self.assertEqual(self.choose({1: 0.200, 2: 0.190}), 2)

    def test_T_home_flap_homeWasGood(self) -> None:
        """A home that was the nearest of late is not left for one bad moment."""
        self.choose({1: 0.040, 2: 0.060})
        self.assertEqual(self.choose({1: 0.900, 2: 0.060}), 1)
        self.now += WINDOW
        self.assertEqual(self.choose({1: 0.900, 2: 0.060}), 2)

    def test_T_home_flap_windowEnds(self) -> None:
        """What was measured more than five minutes ago does not count."""
        self.choose({1: 0.100, 2: 0.030}, regions=(1,))
        self.choose({1: 0.100, 3: 0.200})
        self.home.choose({1: 0.1, 2: 0.095}, (1, 2), self.now + WINDOW + 1)
        self.assertEqual(self.home.region, 1)

    def test_T_home_flap_noise(self) -> None:
        """Twenty checks with noise of a tenth change nothing."""
        self.choose({1: 0.050, 2: 0.048})
        first = self.home.region
        for step in range(20):
            noisy = {1: 0.050 + 0.005 * (step % 3), 2: 0.048 + 0.005 * (step % 2)}
            self.assertEqual(self.choose(noisy), first)

    def test_T_home_flap_vanished(self) -> None:
        """A home that is not measured any more is replaced at once."""
        self.choose({1: 0.050, 2: 0.090})
        self.assertEqual(self.choose({2: 0.090, 3: 0.100}), 2)

    def test_vanishedButHeard(self) -> None:
        """Unless its relay has just been heard."""
        self.choose({1: 0.050, 2: 0.090})
        self.assertEqual(
            self.choose({2: 0.090}, lastHeard=lambda region: self.now - 7), 1
        )
        self.assertEqual(
            self.choose(
                {2: 0.090}, began=self.now + 10, lastHeard=lambda region: self.now - 15
            ),
            1,
        )
        self.assertEqual(
            self.choose({2: 0.090}, lastHeard=lambda region: self.now - 9), 2
        )

    def test_nothingMeasured(self) -> None:
        """With nothing measured the home stays; a first one is found anyhow."""
        self.assertEqual(self.choose({}), 3)
        self.assertEqual(self.choose({}), 3)
        self.assertEqual(self.choose({1: 0.1}), 1)
        self.assertEqual(self.choose({}), 1)
        self.assertEqual(self.choose({}, regions=(2, 3)), 3)

    def test_noRegions(self) -> None:
        """Without any region there is no home."""
        self.choose({1: 0.1})
        self.assertEqual(self.choose({}, regions=()), 0)
        self.assertEqual(self.choose({1: 0.1}, regions=()), 0)

    def test_scores(self) -> None:
        """The control server may make regions more or less attractive."""
        self.assertEqual(self.choose({1: 0.1, 2: 0.15}, scores={2: 0.5, 1: 0.0}), 2)

    def test_mayNotChange(self) -> None:
        """While nobody can be told the home stays; the first is chosen anyhow."""
        self.assertEqual(self.choose({1: 0.1}, mayChange=False), 1)
        self.assertEqual(self.choose({1: 0.9, 2: 0.05}, mayChange=False), 1)
        self.assertEqual(self.choose({1: 0.9, 2: 0.05}), 2)
        self.assertEqual(self.choose({1: 0.1}, regions=(1,), mayChange=False), 1)

    def test_sameMeasurementSameHome(self) -> None:
        """T-home: the same result again leaves the home as it is."""
        for _ in range(5):
            self.assertEqual(self.choose({1: 0.1, 2: 0.2}), 1)

    def test_historyIsBounded(self) -> None:
        """However often is checked, what is kept has a limit."""
        for _ in range(500):
            self.home.choose({1: 0.1}, (1,), self.now)
        self.assertLessEqual(len(self.home._history), 64)

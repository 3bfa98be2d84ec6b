"""Tests of L{tsrt.cli.netcheckreport}: a check as people and scripts read it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import AddrPort
from tsrt.cli.netcheckreport import Analysis, goDuration, goTime
from tsrt.path.mappings import Service
from tsrt.path.netcheck import Report
from tsrt.tailcfg import DERPMap, DERPRegion

TIME = datetime(2026, 11, 23, 12, 34, 56, 789000, UTC)
FOUR = AddrPort.parse("198.51.100.1:41641")
SIX = AddrPort.parse("[2001:db8::1]:41641")
MAP = DERPMap(
    regions={
        1: DERPRegion(regionID=1, regionCode="nyc", regionName="New York City"),
        2: DERPRegion(regionID=2, regionCode="fra", regionName="Frankfurt"),
        3: DERPRegion(regionID=3, regionCode="lhr", regionName="London"),
        4: None,
    }
)
GOOD = Analysis(
    time=TIME,
    report=Report(
        when=0,
        udp=True,
        ipv4=True,
        ipv4CanSend=True,
        mappingVaries=False,
        globalIPv4=FOUR,
        seen={FOUR: 3},
        latencies={1: 0.09, 2: 0.01234},
        latencies4={1: 0.09, 2: 0.01234},
        preferredRegion=2,
    ),
    derpMap=MAP,
    services=frozenset({Service.PCP, Service.UPNP}),
    hasIPv6=True,
)
NOTHING = evolve(GOOD, report=Report(when=0, preferredRegion=1), services=frozenset())


class TextTests(SynchronousTestCase):
    """Lines and their order are those of the field's own tool."""

    def test_good(self) -> None:
        """A good network."""
        self.assertEqual(
            GOOD.text(),
            "\nReport:\n"
            "\t* Time: 2026-11-23 12:34:56.789Z\n"
            "\t* UDP: true\n"
            "\t* IPv4: yes, 198.51.100.1:41641\n"
            "\t* IPv6: no, but OS has support\n"
            "\t* MappingVariesByDestIP: false\n"
            "\t* PortMapping: UPnP, PCP\n"
            "\t* Nearest DERP: Frankfurt\n"
            "\t* DERP latency:\n"
            "\t\t- fra: 12.3ms  (Frankfurt)\n"
            "\t\t- nyc: 90ms    (New York City)\n"
            "\t\t- lhr:         (London)\n",
        )

    def test_verbose(self) -> None:
        """With the numbers of regions."""
        self.assertIn("(derp2, Frankfurt)", GOOD.text(verbose=True))

    def test_nothing(self) -> None:
        """A network that lets nothing out."""
        text = NOTHING.text()
        self.assertIn("* UDP: false\n", text)
        self.assertIn("* IPv4: (no addr found)\n", text)
        self.assertIn("* MappingVariesByDestIP: \n", text)
        self.assertIn("* PortMapping: \n", text)
        self.assertIn("* Nearest DERP: unknown (no response to latency ", text)
        self.assertNotIn("CaptivePortal", text)
        self.assertNotIn("DERP latency:", text)

    def test_ipv6(self) -> None:
        """Each of the four things that there are to say of IPv6."""
        for changes, hasIPv6, words in (
            ({"ipv6": True, "globalIPv6": SIX}, True, "yes, [2001:db8::1]:41641"),
            ({"ipv6": True}, True, "(no addr found)"),
            ({}, True, "no, but OS has support"),
            ({}, False, "no, unavailable in OS"),
        ):
            report = evolve(GOOD.report, **changes)
            text = evolve(GOOD, report=report, hasIPv6=hasIPv6).text()
            self.assertIn(f"* IPv6: {words}\n", text)

    def test_rare(self) -> None:
        """Portals, gateways that were not asked, homes that are nowhere."""
        portal = evolve(GOOD.report, captivePortal=True, preferredRegion=9)
        text = evolve(GOOD, report=portal, services=None).text()
        self.assertIn("* CaptivePortal: true\n", text)
        self.assertIn("* PortMapping: not checked\n", text)
        self.assertIn("* Nearest DERP: 9 (region not found in map)\n", text)
        none = evolve(GOOD, report=evolve(GOOD.report, preferredRegion=0))
        self.assertIn("* Nearest DERP: [none]\n", none.text())


class JSONTests(SynchronousTestCase):
    """Names and kinds of values are those of the field's own tool."""

    def test_good(self) -> None:
        """Durations in nanoseconds, by region number."""
        found = json.loads(GOOD.json())
        self.assertEqual(found["Now"], "2026-11-23T12:34:56.789Z")
        self.assertEqual(found["RegionLatency"], {"1": 90_000_000, "2": 12_340_000})
        self.assertEqual(found["RegionV6Latency"], {})
        self.assertEqual(found["GlobalV4Counters"], {FOUR.text(): 3})
        self.assertEqual(found["GlobalV4"], FOUR.text())
        self.assertEqual(found["GlobalV6"], "")
        self.assertIs(found["MappingVariesByDestIP"], False)
        self.assertEqual(
            [found[n] for n in ("UPnP", "PMP", "PCP")], [True, False, True]
        )
        self.assertIs(found["IPv4CanSend"], True)
        self.assertIsNone(found["CaptivePortal"])
        self.assertEqual(found["PreferredDERP"], 2)

    def test_unknown(self) -> None:
        """What is not known is null; a guess at a home is none."""
        found = json.loads(evolve(NOTHING, services=None).json())
        for name in ("MappingVariesByDestIP", "UPnP", "PMP", "PCP", "CaptivePortal"):
            self.assertIsNone(found[name], name)
        self.assertEqual(found["PreferredDERP"], 0)

    def test_lines(self) -> None:
        """One line, or many."""
        self.assertEqual(GOOD.json().count("\n"), 1)
        self.assertIn('\n\t"UDP": true,\n', GOOD.json(indent=True))
        self.assertEqual(json.loads(GOOD.json()), json.loads(GOOD.json(indent=True)))


class GoTests(SynchronousTestCase):
    """Times and durations as Go writes them."""

    def test_durations(self) -> None:
        """From nothing to seconds."""
        for seconds, text in (
            (0, "0s"),
            (0.0003, "300µs"),
            (0.001, "1ms"),
            (0.0123, "12.3ms"),
            (0.25, "250ms"),
            (1.5, "1.5s"),
            (2.0, "2s"),
        ):
            self.assertEqual(goDuration(seconds), text)

    def test_times(self) -> None:
        """With their zone."""
        east = timezone(timedelta(hours=5, minutes=30))
        self.assertEqual(goTime(TIME.astimezone(east)), "2026-11-23 18:04:56.789+05:30")
        self.assertEqual(goTime(TIME.replace(microsecond=0)), "2026-11-23 12:34:56Z")

"""
A network check as people and their scripts read it.

Lines, their order and the names in JSON are those of C{tailscale netcheck}, for
which there are scripts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from attrs import frozen

from tsrt.addresses import AddrPort
from tsrt.path.mappings import Service
from tsrt.path.netcheck import Report
from tsrt.tailcfg import DERPMap, DERPRegion

_NANOSECONDS = 1_000_000_000


@frozen
class Analysis:
    """
    What a check found out, with what is known besides.

    @ivar time: when.
    @ivar derpMap: the relays.
    @ivar services: how the gateway maps ports; C{None}: it was not asked.
    @ivar hasIPv6: whether the system has IPv6 at all.
    """

    time: datetime
    report: Report
    derpMap: DERPMap
    services: frozenset[Service] | None
    hasIPv6: bool

    # -- for people ----------------------------------------------------------------

    def text(self, verbose: bool = False) -> str:
        """
        The report in words.

        @param verbose: with the numbers of the regions.
        """
        report = self.report
        lines = [
            "",
            "Report:",
            f"\t* Time: {goTime(self.time)}",
            f"\t* UDP: {_word(report.udp)}",
            f"\t* IPv4: {_address(report.globalIPv4)}",
            f"\t* IPv6: {self._ipv6()}",
            f"\t* MappingVariesByDestIP: {_word(report.mappingVaries)}",
            f"\t* PortMapping: {self._portMapping()}",
        ]
        if report.captivePortal is not None:
            lines.append(f"\t* CaptivePortal: {_word(report.captivePortal)}")
        lines.append(f"\t* Nearest DERP: {self._nearest()}")
        if report.latencies:
            lines.append("\t* DERP latency:")
            lines += self._table(verbose)
        return "".join(f"{line}\n" for line in lines)

    def _ipv6(self) -> str:
        report = self.report
        if report.globalIPv6 is not None or report.ipv6:
            return _address(report.globalIPv6)
        return "no, but OS has support" if self.hasIPv6 else "no, unavailable in OS"

    def _portMapping(self) -> str:
        if self.services is None:
            return "not checked"
        order = (Service.UPNP, Service.PMP, Service.PCP)
        return ", ".join(s.value for s in order if s in self.services)

    def _nearest(self) -> str:
        report = self.report
        if not report.latencies:
            return "unknown (no response to latency probes)"
        if not report.preferredRegion:
            return "[none]"
        region = self._regions().get(report.preferredRegion)
        if region is None:
            return f"{report.preferredRegion} (region not found in map)"
        return region.regionName

    def _regions(self) -> Mapping[int, DERPRegion]:
        regions = self.derpMap.regions or {}
        return {number: region for number, region in regions.items() if region}

    def _table(self, verbose: bool) -> list[str]:
        latencies, regions = self.report.latencies, self._regions()
        order = sorted(regions, key=lambda n: (latencies.get(n, float("inf")), n))
        lines = []
        for number in order:
            region, seconds = regions[number], latencies.get(number)
            latency = "" if seconds is None else goDuration(round(seconds, 4))
            which = f"derp{number}, " if verbose else ""
            lines.append(
                f"\t\t- {region.regionCode:>3}: {latency:<7} "
                f"({which}{region.regionName})"
            )
        return lines

    # -- for scripts ---------------------------------------------------------------

    def json(self, indent: bool = False) -> str:
        """
        The report in JSON; durations are in nanoseconds.

        @param indent: over several lines.
        """
        report, services = self.report, self.services
        found = {
            "Now": goTime(self.time, separator="T"),
            "UDP": report.udp,
            "IPv6": report.ipv6,
            "IPv4": report.ipv4,
            "IPv6CanSend": report.ipv6CanSend,
            "IPv4CanSend": report.ipv4CanSend,
            "OSHasIPv6": self.hasIPv6,
            "ICMPv4": False,
            "MappingVariesByDestIP": report.mappingVaries,
            "UPnP": None if services is None else Service.UPNP in services,
            "PMP": None if services is None else Service.PMP in services,
            "PCP": None if services is None else Service.PCP in services,
            "PreferredDERP": report.preferredRegion if report.latencies else 0,
            "RegionLatency": _nanoseconds(report.latencies),
            "RegionV4Latency": _nanoseconds(report.latencies4),
            "RegionV6Latency": _nanoseconds(report.latencies6),
            "GlobalV4Counters": _counters(report, 4),
            "GlobalV6Counters": _counters(report, 16),
            "GlobalV4": "" if report.globalIPv4 is None else report.globalIPv4.text(),
            "GlobalV6": "" if report.globalIPv6 is None else report.globalIPv6.text(),
            "CaptivePortal": report.captivePortal,
        }
        if indent:
            return json.dumps(found, indent="\t") + "\n"
        return json.dumps(found, separators=(",", ":")) + "\n"


def _word(value: bool | None) -> str:
    return "" if value is None else str(value).lower()


def _address(address: AddrPort | None) -> str:
    return "(no addr found)" if address is None else f"yes, {address.text()}"


def _nanoseconds(latencies: Mapping[int, float]) -> dict[str, int]:
    return {
        str(number): round(latencies[number] * _NANOSECONDS)
        for number in sorted(latencies)
    }


def _counters(report: Report, length: int) -> dict[str, int]:
    return {
        address.text(): times
        for address, times in report.seen.items()
        if len(address.address) == length
    }


def goTime(time: datetime, separator: str = " ") -> str:
    """
    A time as Go writes it: no zeros at the end, and C{Z} for UTC.

    @param time: with a zone.
    """
    text = time.strftime(f"%Y-%m-%d{separator}%H:%M:%S")
    if time.microsecond:
        text += f".{time.microsecond:06d}".rstrip("0")
    offset = time.strftime("%z")
    return text + ("Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:5]}")


def goDuration(seconds: float) -> str:
    """Seconds as Go writes them: C{12.3ms}, C{1.5s}, C{800µs}, C{0s}."""
    if seconds <= 0:
        return "0s"
    if seconds >= 1:
        return f"{_short(seconds)}s"
    if seconds >= 0.001:
        return f"{_short(seconds * 1000)}ms"
    return f"{_short(seconds * 1_000_000)}µs"


def _short(number: float) -> str:
    return f"{number:.4f}".rstrip("0").rstrip(".")

"""Writes the tables of C{docs/explanation/performance.rst} from the last results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "explanation" / "performance.rst"
RESULTS = ROOT / "benchmarks" / "results.json"
BEGIN, END = ".. begin-table\n", ".. end-table\n"
TIERS = ("plain", "fast", "compiled")
BEST = TIERS[-1]


class Row(NamedTuple):
    """
    A ratio, and the figures that it is of.

    @ivar path: where the figures are, in the section of a benchmark.
    @ivar ours: which of them is ours; C{other} is the Go node's.
    @ivar asked: what the ratio is to be, if anything was said about it.
    """

    name: str
    path: tuple[str, str]
    ours: str
    other: str
    unit: str
    asked: str = ""


MBIT = ("throughput", "throughput_mbit")
RTT = ("latency", "rtt_microseconds")
CONNECTS = ("connections", "connects_per_second")
FIRST = ("connections", "first_handshake_milliseconds")
CPU = ("throughput", "throughput_cpu_seconds_per_gb")
RSS = ("memory", "rss_mib")
START = ("memory", "start_to_first_byte_seconds")

ASKED = {"plain": ">= 1.0", "fast": ">= 1.5", "compiled": ">= 2.5"}

SPEED = (
    *(Row(f"single_flow_{t}", MBIT, t, "go", "Mbit/s", ASKED[t]) for t in TIERS),
    Row("to_go", MBIT, "tsrt to go", "go", "Mbit/s", ">= 0.8"),
    Row("from_go", MBIT, "go to tsrt", "go", "Mbit/s", ">= 0.8"),
    Row("one_process", MBIT, "tsrt, one process", "go", "Mbit/s"),
    Row("wireguard_go", MBIT, "wireguard-go", "go", "Mbit/s"),
    *(
        Row(f"both_ways_{t}", MBIT, f"{t}, both ways", "go, both ways", "Mbit/s")
        for t in TIERS
    ),
    *(
        Row(f"single_flow_ipv6_{t}", MBIT, f"{t}, IPv6", "go, IPv6", "Mbit/s")
        for t in TIERS
    ),
    Row("derp", MBIT, f"{BEST}, relay", "go, relay", "Mbit/s", ">= 0.8"),
    Row("derp_to_go", MBIT, "tsrt to go, relay", "go, relay", "Mbit/s"),
    Row("derp_from_go", MBIT, "go to tsrt, relay", "go, relay", "Mbit/s"),
    Row(
        "hundred_flows_share",
        MBIT,
        "tsrt, 100 flows",
        "go, 100 flows",
        "Mbit/s",
        ">= 0.9",
    ),
    *(
        Row(f"flows_{n}", MBIT, f"tsrt, {n} flows", f"go, {n} flows", "Mbit/s")
        for n in (10, 100, 1000)
    ),
    Row("rtt_idle", RTT, "tsrt, 1 B, idle", "go, 1 B, idle", "us", "<= 1.5"),
    Row("rtt_idle_1000", RTT, "tsrt, 1000 B, idle", "go, 1000 B, idle", "us"),
    Row("rtt_loaded", RTT, "tsrt, 1 B, loaded", "go, 1 B, loaded", "us"),
    Row("rtt_loaded_1000", RTT, "tsrt, 1000 B, loaded", "go, 1000 B, loaded", "us"),
    Row("rtt_derp", RTT, "tsrt, 1 B, relay", "go, 1 B, relay", "us"),
    Row("rtt_derp_1000", RTT, "tsrt, 1000 B, relay", "go, 1000 B, relay", "us"),
    Row(
        "connects_per_second", CONNECTS, "tsrt, 32 at a time", "go, 32 at a time", "/s"
    ),
    Row(
        "connects_one_at_a_time",
        CONNECTS,
        "tsrt, one at a time",
        "go, one at a time",
        "/s",
    ),
    Row("first_handshake", FIRST, "tsrt", "go", "ms"),
)
"""What packets, messages and connections take."""

WEIGHT = (
    Row("rss_1_node", RSS, "tsrt, 1 node", "go, 1 node", "MiB"),
    Row("rss_50_nodes", RSS, "tsrt, 50 nodes", "go, 50 nodes", "MiB"),
    Row("start_to_first_byte", START, "tsrt", "go", "s"),
)
"""What nodes take."""


class Results:
    """What benchmarks found."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.machine: dict[str, Any] = document["machine"]
        self.sections: dict[str, Any] = document["benchmarks"]
        self.ratios: dict[str, float] = document["ratios"]

    def figure(self, path: tuple[str, str], name: str) -> Any:
        """A figure, or several of one thing; C{None} if it was not measured."""
        section, key = path
        absolute = self.sections.get(section, {}).get("absolute", {})
        return absolute.get(key, {}).get(name)

    def shown(self, path: tuple[str, str], name: str, unit: str) -> str:
        """The middle of some measurements, for people."""
        found = self.figure(path, name) or {}
        value = found.get("median", found.get("p50"))
        if value is None:
            return ""
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
        return f"{value:,.{digits}f} {unit}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A simple table of reStructuredText; the first column is text."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = " ".join("=" * width for width in widths)

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return " ".join([first, *others]).rstrip()

    return "\n".join([rule, line(head), rule, *map(line, rows), rule]) + "\n"


def literal(name: str) -> str:
    """A name that programs know."""
    return f"``{name}``"


def speeds(results: Results) -> str:
    """The first table."""
    rows = [
        (
            literal(row.name),
            f"{results.ratios[row.name]:.2f}",
            results.shown(row.path, row.ours, row.unit),
            results.shown(row.path, row.other, row.unit),
            row.asked,
        )
        for row in SPEED
        if row.name in results.ratios
    ]
    return table(("name", "ratio", "tsrt", "Go", "asked"), rows)


def weights(results: Results) -> str:
    """The second table: what nodes and their parts take."""
    rows = []
    for name in (*TIERS, f"{BEST}, relay"):
        other = "go, relay" if name.endswith("relay") else "go"
        costs = [results.figure(CPU, which) for which in (name, other)]
        if all(costs):
            ours, go = (cost["source"] + cost["sink"] for cost in costs)
            label = f"CPU for a gigabyte, both ends, {name}"
            rows.append((label, f"{ours / go:.2f}", f"{ours:.2f} s", f"{go:.2f} s"))
    for row in WEIGHT:
        if row.name in results.ratios:
            ours, go = (
                results.shown(row.path, n, row.unit) for n in (row.ours, row.other)
            )
            ratio = f"{results.ratios[row.name]:.2f}"
            rows.append((literal(row.name), ratio, ours, go))
    for thing in ("peer", "session", "flow"):
        size = results.figure(("memory", "bytes_each"), thing)
        if size is not None:
            rows.append((f"memory of a {thing}", "", f"{size:,} bytes", ""))
    return table(("what", "ratio", "tsrt", "Go"), rows)


def others(results: Results) -> str:
    """The third table: ratios to something of our own."""
    named = {row.name for row in (*SPEED, *WEIGHT)}
    left = {name: v for name, v in results.ratios.items() if name not in named}
    return table(
        ("name", "ratio"),
        [(literal(name), f"{left[name]:.2f}") for name in sorted(left)],
    )


def where(results: Results) -> str:
    """What all of it was measured on."""
    machine, sections = results.machine, results.sections.values()
    dates = " and ".join(sorted({section["date"] for section in sections}))
    commits = {section["commit"] for section in sections} - {""}
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items() if v)
    revision = f", at revision {' and '.join(sorted(commits))}" if commits else ""
    return (
        f"Measured on {dates}{revision}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}, {packages}, "
        f"{machine['go']}.\n"
    )


def updated(text: str, document: dict[str, Any]) -> str:
    """
    The page with the tables of these results.

    @param text: the page as it is.
    @param document: what C{benchmarks/results.json} has.
    """
    results = Results(document)
    parts = [make(results) for make in (speeds, weights, others, where)]
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return before + BEGIN + "\n" + "\n".join(parts) + "\n" + END + after


def main() -> None:
    """Put the tables into the page."""
    document = json.loads(RESULTS.read_text())
    PAGE.write_text(updated(PAGE.read_text(), document))


if __name__ == "__main__":
    main()

"""
Collecting what benchmarks found in C{benchmarks/results.json}.

Each benchmark ends with one line of JSON: C{ratios}, most of them to the Go node in
the same run, under names that never change, and the C{absolute} figures beside them.
In the file each benchmark has a section of its own, with how and when it ran; the
ratios of all of them are together at the top as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "benchmarks" / "results.json"


def readOptions(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """
    Read the options of a benchmark.

    C{isWhole} of what is returned tells whether all is to be measured that is by
    default, in that size, and no less often; only then figures are kept.
    """
    options = parser.parse_args(arguments)
    usual = vars(parser.parse_args([]))
    options.isWhole = all(
        asked >= usual[name] if name == "rounds" else asked == usual[name]
        for name, asked in vars(options).items()
    )
    return options


def conclude(
    name: str,
    ratios: dict[str, float],
    absolute: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    """
    End a benchmark: print the line, and put it with what others found.

    @param name: of the benchmark; what it found before is forgotten.
    @param ratios: by their lasting names.
    @param absolute: the figures behind them, with units in their names.
    @param options: see L{readOptions}.
    """
    ratios = {key: round(value, 3) for key, value in ratios.items()}
    if options.isWhole:
        reason = keep(name, ratios, absolute, options.rounds)
    else:
        reason = "this was less than all that is measured by default"
    if reason:
        print(f"not kept: {reason}", file=sys.stderr)
    print(json.dumps({"benchmark": name, "ratios": ratios, "absolute": absolute}))


def keep(
    name: str, ratios: dict[str, float], absolute: dict[str, Any], rounds: int
) -> str:
    """
    Write a section of the file.

    @return: why that was not done, if so.
    """
    here = machine()
    known: dict[str, Any] = {}
    if FILE.exists():
        known = json.loads(FILE.read_text())
    sections: dict[str, Any] = known.get("benchmarks", {})
    if sections and known.get("machine") != here:
        return f"{FILE} is of another machine, or other versions: remove it first"
    sections[name] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "rounds": rounds,
        "ratios": ratios,
        "absolute": absolute,
    }
    together = {k: v for each in sections.values() for k, v in each["ratios"].items()}
    document = {"machine": here, "benchmarks": sections, "ratios": together}
    FILE.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    return ""


def machine() -> dict[str, Any]:
    """What the figures are taken on."""
    packages = ("twisted", "cryptography", "numpy")
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "go": (output("go", "version").split() + 3 * [""])[2],
        "packages": {name: versionOf(name) for name in packages},
    }


def processor() -> str:
    """The model of it, if the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line for line in lines if line.startswith("model name")]
    return models[0].partition(":")[2].strip() if models else platform.processor()


def versionOf(package: str) -> str:
    """The version of a package, if it is there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def commit() -> str:
    """What was measured, as git calls it; empty if it does not know."""
    found = output("git", "rev-parse", "--short", "HEAD")
    if not found:
        return ""
    # The figures themselves, and what is made of them, change nothing.
    code = ("tsrt", "benchmarks", "interop", ":(exclude)benchmarks/results.json")
    changed = output("git", "status", "--porcelain", "--", *code)
    return f"{found}, dirty" if changed else found


def output(*command: str) -> str:
    """What a program says; nothing if it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def spread(values: Sequence[float], digits: int = 0) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
    }

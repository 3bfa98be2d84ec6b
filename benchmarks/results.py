"""
Collecting what benchmarks found in C{benchmarks/results.json}.

Each benchmark ends with one line of JSON: C{ratios} to the Go node in the same run,
under names that never change, and the C{absolute} figures beside them.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent / "results.json"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = ""
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    go = subprocess.run(["go", "version"], capture_output=True, text=True)
    packages = ("twisted", "cryptography", "numpy")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "go": go.stdout.split()[2] if go.returncode == 0 else "",
        "packages": {name: version(name) for name in packages},
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def conclude(
    ratios: dict[str, float], absolute: dict[str, Any], isWhole: bool = True
) -> None:
    """
    End a benchmark: print the line, and put it with what others found.

    @param ratios: to the Go node, by their lasting names.
    @param absolute: the figures behind them, with units in their names.
    @param isWhole: whether all was measured; only then the figures are kept.
    """
    ratios = {name: round(value, 3) for name, value in ratios.items()}
    print(json.dumps({"ratios": ratios, "absolute": absolute}))
    if not isWhole:
        return
    known: dict[str, Any] = {}
    if FILE.exists():
        known = json.loads(FILE.read_text())
    known["machine"] = machine()
    known["ratios"] = {**known.get("ratios", {}), **ratios}
    known["absolute"] = {**known.get("absolute", {}), **absolute}
    FILE.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def spread(values: Sequence[float], digits: int = 0) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
    }

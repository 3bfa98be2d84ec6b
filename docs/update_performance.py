"""Writes the table of C{docs/explanation/performance.rst} from the last results."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "explanation" / "performance.rst"
RESULTS = ROOT / "benchmarks" / "results.json"
BEGIN, END = ".. begin-table\n", ".. end-table\n"


def table() -> str:
    """The ratios, and what they were measured on."""
    results = json.loads(RESULTS.read_text())
    machine = results["machine"]
    ratios = {
        name: value
        for name, value in results["ratios"].items()
        if not name.startswith("walk_")
    }
    width = max(len(name) + 4 for name in ratios)
    rule = f"{'=' * width} {'=' * 8}\n"
    rows = [f"{f'``{name}``':<{width}} {ratios[name]:>8.2f}\n" for name in ratios]
    head = f"{'name':<{width}} {'ratio':>8}\n"
    where = (
        f"\nMeasured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}, {machine['go']}.\n\n"
    )
    return "\n" + rule + head + rule + "".join(rows) + rule + where


def main() -> None:
    """Put the table into the page."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(before + BEGIN + table() + END + after)


if __name__ == "__main__":
    main()

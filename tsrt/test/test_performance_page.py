"""The page about the performance has the figures that were measured."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import tsrt

ROOT = Path(tsrt.__file__).parent.parent
PAGE = ROOT / "docs" / "explanation" / "performance.rst"
RESULTS = ROOT / "benchmarks" / "results.json"

PROMISED = (
    *(f"single_flow_{tier}" for tier in ("plain", "fast", "compiled")),
    "to_go",
    "from_go",
    "derp",
    "hundred_flows_share",
    "rtt_idle",
    "rtt_loaded",
    "connects_per_second",
    "rss_1_node",
    "rss_50_nodes",
    "start_to_first_byte",
)
"""Names of ratios that others rely on."""


class PageTests(SynchronousTestCase):
    """C{docs/explanation/performance.rst} and C{benchmarks/results.json} agree."""

    skip = None if PAGE.exists() else "the documentation is not part of an installation"

    def setUp(self) -> None:
        self.document: dict[str, Any] = json.loads(RESULTS.read_text())
        program = runpy.run_path(str(ROOT / "docs" / "update_performance.py"))
        self.updated = program["updated"]

    def test_tables(self) -> None:
        """The tables are those of the results."""
        text = PAGE.read_text()
        advice = "run docs/update_performance.py"
        self.assertTrue(self.updated(text, self.document) == text, advice)

    def test_otherFigures(self) -> None:
        """Other results make other tables, and leave the rest of the page alone."""
        text = PAGE.read_text()
        self.document["ratios"]["rtt_idle"] = 98.76
        other = self.updated(text, self.document)
        changed = set(other.splitlines()) - set(text.splitlines())
        [line] = changed
        self.assertRegex(line, r"^``rtt_idle`` +98\.76 ")

    def test_whole(self) -> None:
        """All that is promised was measured, and is on the page."""
        for name in PROMISED:
            ratio = self.document["ratios"][name]
            row = re.search(rf"^``{name}`` +([0-9.]+) ", PAGE.read_text(), re.M)
            self.assertIsNotNone(row, name)
            self.assertEqual(row[1], f"{ratio:.2f}")

    def test_oneTime(self) -> None:
        """All of it was measured at one revision, as it was committed."""
        commits = {each["commit"] for each in self.document["benchmarks"].values()}
        self.assertEqual(len(commits), 1, commits)
        self.assertNotIn("dirty", commits.pop())

"""The page about the architecture is true."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import tsrt

PACKAGE = Path(tsrt.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.rst"


class ArchitectureTests(SynchronousTestCase):
    """C{docs/architecture.rst} and the tree agree."""

    skip = None if PAGE.exists() else "the documentation is not part of an installation"

    def test_everyModuleHasItsLine(self) -> None:
        """Each module is on the page once, with a purpose, and no other is."""
        lines = re.findall(r"^- ``(tsrt/\S+\.py)``: (.+)$", PAGE.read_text(), re.M)
        listed = [name for name, _ in lines]
        found = [
            f"tsrt/{path.relative_to(PACKAGE).as_posix()}"
            for path in PACKAGE.rglob("*.py")
            if "test" not in path.relative_to(PACKAGE).parts[:-1]
        ]
        advice = "run docs/update_map.py"
        self.assertEqual(sorted(set(found) - set(listed)), [], advice)
        self.assertEqual(sorted(set(listed) - set(found)), [], advice)
        self.assertEqual(len(listed), len(set(listed)), advice)

    def test_namedModulesExist(self) -> None:
        """Modules that the text names by their paths exist."""
        text = PAGE.read_text()
        for name in set(re.findall(r"``((?:\w+/)+\w+\.py)``", text)):
            path = (
                PACKAGE / name
                if not name.startswith("tsrt/")
                else PAGE.parents[1] / name
            )
            self.assertTrue(path.exists(), name)

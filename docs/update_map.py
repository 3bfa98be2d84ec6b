"""
Rewrite the map of modules in C{architecture.rst} from the modules' docstrings.

Each module gets its one line: the first sentence of its docstring.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.rst"
BEGIN = ".. the map begins; written by update_map.py\n"
END = ".. the map ends\n"


def modules() -> list[Path]:
    """All modules of the package but its tests, in order."""
    return sorted(
        path
        for path in (ROOT / "tsrt").rglob("*.py")
        if "test" not in path.relative_to(ROOT / "tsrt").parts[:-1]
    )


def purpose(path: Path) -> str:
    """The first sentence of a module's docstring, as plain text."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    text = re.sub(r"[LC]\{([^{}]*)\}", r"\1", " ".join(text.split()))
    return re.split(r"(?<=[.:])\s", text)[0].rstrip(".:").replace("*", r"\*")


def render() -> str:
    """The map as reStructuredText."""
    lines: list[str] = []
    package = None
    for path in modules():
        relative = path.relative_to(ROOT).as_posix()
        parent = relative.rpartition("/")[0]
        if parent != package:
            package = parent
            lines += ["", f"**{parent}/**", ""]
        lines.append(f"- ``{relative}``: {purpose(path)}")
    return "\n".join(lines).strip() + "\n"


def main() -> int:
    """Update the page, or with C{--check} say whether it is up to date."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    updated = f"{head}{BEGIN}\n{render()}\n{END}{tail}"
    if "--check" in sys.argv:
        return int(updated != page)
    PAGE.write_text(updated, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

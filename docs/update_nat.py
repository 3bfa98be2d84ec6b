"""Write the tables of NAT kinds into explanation/nat.rst."""

from __future__ import annotations

from pathlib import Path

from tsrt.testing.natmatrix import natMatrix, natNeighbours, natTable

PAGE = Path(__file__).parent / "explanation" / "nat.rst"
MARK = ".. The {} table below is written by docs/update_nat.py.\n\n"
END = "\n.. The end of the {} table.\n"


def replace(text: str, which: str, table: str) -> str:
    """Replace what stands between the marks of a table."""
    mark, end = MARK.format(which), END.format(which)
    before, _, rest = text.partition(mark)
    _, _, after = rest.partition(end)
    return before + mark + table + end + after


def main() -> None:
    """Write both."""
    text = replace(PAGE.read_text(), "first", natTable(natMatrix()))
    PAGE.write_text(replace(text, "second", natTable(natNeighbours())))


if __name__ == "__main__":
    main()

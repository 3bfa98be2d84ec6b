"""Write the table of NAT kinds into explanation/nat.rst."""

from __future__ import annotations

from pathlib import Path

from tsrt.testing.natmatrix import natMatrix, natTable

PAGE = Path(__file__).parent / "explanation" / "nat.rst"
MARK = ".. The table below is written by docs/update_nat.py.\n\n"
END = "\n.. The end of the table.\n"


def main() -> None:
    """Replace what stands between the marks."""
    text = PAGE.read_text()
    before, _, rest = text.partition(MARK)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + MARK + natTable(natMatrix()) + END + after)


if __name__ == "__main__":
    main()

"""
Which pairs of nodes behind which kinds of NATs reach each other directly.

Two nodes for each pair of kinds, on a simulated internet::

    for pair, seconds in natMatrix().items():
        ...
"""

from __future__ import annotations

from collections.abc import Iterable

from tsrt.testing.clock import elapse
from tsrt.testing.nat import NAT_KINDS
from tsrt.testing.tailnet import TestTailnet

PATIENCE = 15.0
"""Simulated seconds within which a path has to become direct."""

_STEP = 0.1


def natMatrix(
    kinds: Iterable[str] = NAT_KINDS, *, seed: int = 0
) -> dict[tuple[str, str], float | None]:
    """
    Let each pair of nodes talk and see how packets go.

    @param kinds: names of L{NAT_KINDS}.
    @return: by the kinds of who began and of the other: the simulated seconds
        from the first packet to the direct path; C{None} where packets still go
        by the relay after L{PATIENCE}.
    @raise Exception: two nodes do not reach each other at all.
    """
    names = list(kinds)
    return {
        (one, other): _timeToDirect(one, other, seed)
        for one in names
        for other in names
    }


def _timeToDirect(one: str, other: str, seed: int) -> float | None:
    tailnet = TestTailnet(nodes={"one": one, "other": other}, seed=seed)
    try:
        began = tailnet.clock.seconds()
        while tailnet.clock.seconds() < began + PATIENCE:
            result = tailnet.wait(tailnet["one"].ping("other"))
            if result.path.startswith("direct"):
                return tailnet.clock.seconds() - began
            elapse(tailnet.clock, _STEP)
        return None
    finally:
        tailnet.close()


def natTable(found: dict[tuple[str, str], float | None]) -> str:
    """Write what L{natMatrix} found as a table of reStructuredText."""
    names = list(dict.fromkeys(one for one, _ in found))
    width = max(map(len, names))
    rule = " ".join(["=" * width, *("=" * len(name) for name in names)])
    lines = [rule, " ".join(["".ljust(width), *names]), rule]
    for one in names:
        cells = [_cell(found[one, other]).ljust(len(other)) for other in names]
        lines.append(" ".join([one.ljust(width), *cells]).rstrip())
    return "\n".join([*lines, rule, ""])


def _cell(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"

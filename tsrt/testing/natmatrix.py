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
from tsrt.testing.natkinds import EASY
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
        (one, other): _timeToDirect(
            TestTailnet(nodes={"one": one, "other": other}, seed=seed)
        )
        for one in names
        for other in names
    }


NEIGHBOURS = ("one network", "one provider")
"""How two nodes may be neighbours, see L{natNeighbours}."""


def natNeighbours(
    kinds: Iterable[str] = NAT_KINDS, *, seed: int = 0
) -> dict[tuple[str, str], float | None]:
    """
    Let nodes talk that are behind the same NAT: in one network, or in two
    homes with good routers of their own whose provider has that NAT.

    @param kinds: names of L{NAT_KINDS}.
    @return: by the kind and one of L{NEIGHBOURS}, what L{natMatrix} tells.
    @raise Exception: two nodes do not reach each other at all.
    """
    found = {}
    for kind in kinds:
        for relation in NEIGHBOURS:
            tailnet = TestTailnet(seed=seed)
            shared = tailnet.network("shared", kind)
            homes = [shared, shared]
            if relation != NEIGHBOURS[0]:
                homes = [
                    tailnet.internet.network(
                        f"home{number}",
                        f"192.168.{number}.0/24",
                        nat=EASY,
                        uplink=shared,
                    )
                    for number in (1, 2)
                ]
            for name, home in zip(("one", "other"), homes, strict=True):
                tailnet.addNode(name, network=home)
            tailnet.waitUp()
            found[kind, relation] = _timeToDirect(tailnet)
    return found


def _timeToDirect(tailnet: TestTailnet) -> float | None:
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
    """
    Write what L{natMatrix} or L{natNeighbours} found as a table of
    reStructuredText.
    """
    names = list(dict.fromkeys(one for one, _ in found))
    others = list(dict.fromkeys(other for _, other in found))
    width = max(map(len, names))
    rule = " ".join(["=" * width, *("=" * len(name) for name in others)])
    lines = [rule, " ".join(["".ljust(width), *others]), rule]
    for one in names:
        cells = [_cell(found[one, other]).ljust(len(other)) for other in others]
        lines.append(" ".join([one.ljust(width), *cells]).rstrip())
    return "\n".join([*lines, rule, ""])


def _cell(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"

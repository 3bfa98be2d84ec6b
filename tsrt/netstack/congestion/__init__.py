"""Congestion control as interchangeable strategies."""

from __future__ import annotations

from tsrt.netstack.congestion.base import CongestionControl
from tsrt.netstack.congestion.cubic import Cubic
from tsrt.netstack.congestion.newreno import NewReno

__all__ = ["CongestionControl", "Cubic", "NewReno", "makeCongestionControl"]


def makeCongestionControl(name: str, mss: int) -> CongestionControl:
    """
    The strategy of that name, ready for a new flow.

    @param name: C{"cubic"} or C{"newreno"}.
    @param mss: bytes of payload in a full segment.
    @raise KeyError: if there is no such strategy.
    """
    return _STRATEGIES[name](mss)


_STRATEGIES: dict[str, type[CongestionControl]] = {
    "cubic": Cubic,
    "newreno": NewReno,
}

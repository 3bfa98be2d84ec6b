"""Additive increase, halving on loss (RFC 5681 and RFC 6582)."""

from __future__ import annotations

from tsrt.netstack.congestion.base import CongestionControl


class NewReno(CongestionControl):
    """
    One full segment more each round trip, half the flight after a loss.

    The part of NewReno that decides what to send again is in
    L{tsrt.netstack.recovery}.
    """

    __slots__ = ()

"""
The home region: the relay where peers find us.

One L{HomeRegion} alone decides, from the latencies of network checks.  Each
change costs every peer a route, so it takes more than a little to be better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

WINDOW = 5 * 60.0 + 5.0
"""Seconds for which a latency counts; a little more than between full checks."""

LEAST_GAIN = 0.010
"""Seconds by which another region must be nearer, at least."""

LARGEST_SHARE = 2 / 3
"""The share of the home's latency that another region may have, at most."""

HEARD_RECENTLY = 8.0
"""Seconds after a frame for which a home counts as accessible."""

_HISTORY_LIMIT = 64


class HomeRegion:
    """
    Chooses the home region.

    @ivar region: the home, or 0 while there is none.
    """

    def __init__(self, seed: int = 0) -> None:
        """
        @param seed: which region to take when nothing is known of any; the
            same as long as the program runs.
        """
        self.region = 0
        self._seed = seed
        self._history: list[tuple[float, dict[int, float]]] = []

    def choose(
        self,
        latencies: Mapping[int, float],
        regions: Iterable[int],
        now: float,
        *,
        began: float | None = None,
        lastHeard: Callable[[int], float | None] = lambda region: None,
        scores: Mapping[int, float] | None = None,
        mayChange: bool = True,
    ) -> int:
        """
        Take the result of a check, and decide.

        @param latencies: seconds by region, of this check.
        @param regions: the regions that may be the home.
        @param now: in seconds.
        @param began: when the check began.
        @param lastHeard: when a region's relay last sent us a frame.
        @param scores: what latencies are multiplied with, by region; those that
            are not positive do not count.
        @param mayChange: whether anybody can be told of a change; a first home
            is chosen in any case.
        @return: the home, or 0 when there is no region at all.
        """
        allowed = set(regions)
        scored = {
            region: latency * _factor(scores, region)
            for region, latency in latencies.items()
            if region in allowed
        }
        self._remember(scored, now)
        if self.region and self.region in allowed and not mayChange:
            return self.region
        self.region = self._decide(
            scored, allowed, now, now if began is None else began, lastHeard
        )
        return self.region

    def _remember(self, scored: dict[int, float], now: float) -> None:
        self._history = [
            (when, latencies)
            for when, latencies in self._history
            if now - when <= WINDOW
        ]
        self._history.append((now, scored))
        del self._history[:-_HISTORY_LIMIT]

    def _decide(
        self,
        scored: dict[int, float],
        allowed: set[int],
        now: float,
        began: float,
        lastHeard: Callable[[int], float | None],
    ) -> int:
        home = self.region if self.region in allowed else 0
        if not scored:
            # With nothing to go by one region is as good as another, and the
            # one that peers know of is better.
            return home or self._anyRegion(allowed)
        lowest = {
            region: min(past[region] for _, past in self._history if region in past)
            for region in scored
        }
        best = min(lowest, key=lambda region: (lowest[region], region))
        if not home or best == home:
            return best
        current = scored.get(home)
        if current is None:
            heard = lastHeard(home)
            isAccessible = heard is not None and (
                heard >= began or now - heard <= HEARD_RECENTLY
            )
            return home if isAccessible else best
        isBetter = (
            current - lowest[best] >= LEAST_GAIN
            and lowest[best] <= current * LARGEST_SHARE
        )
        return best if isBetter else home

    def _anyRegion(self, allowed: set[int]) -> int:
        if not allowed:
            return 0
        # So that peers can reach us somewhere, and find us there again.
        order = sorted(allowed)
        return order[self._seed % len(order)]


def _factor(scores: Mapping[int, float] | None, region: int) -> float:
    score = (scores or {}).get(region, 1.0)
    return score if score > 0 else 1.0

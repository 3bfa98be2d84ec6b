"""A bound on how often something may happen."""

from __future__ import annotations


class TokenBucket:
    """So often a second, and a number at once."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """
        @param rate: how often a second.
        @param burst: how often at once.
        """
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Whether it may happen once more now."""
        passed = max(now - self._at, 0.0)
        self._at = now
        self._tokens = min(self._burst, self._tokens + passed * self._rate)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

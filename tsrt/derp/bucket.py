"""
The rate that a relay asks its clients to keep to.
"""

from __future__ import annotations

from attrs import define


@define
class TokenBucket:
    """Lets through so many bytes a second, and so many at once."""

    perSecond: float
    burst: float
    tokens: float
    updated: float

    @classmethod
    def full(cls, perSecond: int, burst: int, now: float) -> TokenBucket:
        """
        A bucket that has been idle for long.

        @param perSecond: bytes.
        @param burst: bytes.
        @param now: in seconds.
        """
        return cls(perSecond, burst, burst, now)

    def take(self, count: int, now: float) -> bool:
        """Whether C{count} bytes may go now; if so they are accounted for."""
        self.tokens = min(
            self.burst, self.tokens + (now - self.updated) * self.perSecond
        )
        self.updated = now
        if count > self.tokens:
            return False
        self.tokens -= count
        return True

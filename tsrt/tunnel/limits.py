"""
How many handshakes to put up with: from everybody, and from each source.
"""

from __future__ import annotations

HANDSHAKES_PER_SECOND = 250
"""More handshake messages than this in a second are a load."""

LOAD_HOLD = 1.0
"""How long a load is taken to last after it was last seen, in seconds."""

SOURCE_RATE = 20.0
"""Handshake messages a second that one source may send under load."""

SOURCE_BURST = 5
"""How many of them may come at once."""

MAX_SOURCES = 4096
"""How many sources are remembered; beyond, the one unheard for longest goes."""


class LoadGauge:
    """
    Tells from the pace of handshake messages whether we are under load.
    """

    __slots__ = ("_count", "_limit", "_loadedUntil", "_since")

    def __init__(self, limit: int = HANDSHAKES_PER_SECOND) -> None:
        """
        @param limit: messages in a second that are no load yet.
        """
        self._limit = limit
        self._count = 0
        self._since = 0.0
        self._loadedUntil: float | None = None

    def note(self, now: float) -> bool:
        """Count one more handshake message; whether there is a load."""
        if not 0 <= now - self._since < 1.0:
            self._since = now
            self._count = 0
        self._count += 1
        if self._count > self._limit:
            self._loadedUntil = now + LOAD_HOLD
        return self.isLoaded(now)

    def isLoaded(self, now: float) -> bool:
        """Whether the load lasts, or ended less than a second ago."""
        return self._loadedUntil is not None and now < self._loadedUntil


class SourceLimiter:
    """
    Holds each source to L{SOURCE_RATE}, within bounded memory.
    """

    __slots__ = ("_fullAt",)

    def __init__(self) -> None:
        """Start with no source known."""
        # For each source the time at which its whole burst is available
        # again; the source heard last stands last.
        self._fullAt: dict[bytes, float] = {}

    def __len__(self) -> int:
        """How many sources are remembered."""
        return len(self._fullAt)

    def admit(self, source: bytes, now: float) -> bool:
        """Whether this source may send a handshake message now."""
        fullAt = self._fullAt
        at = max(fullAt.pop(source, now), now)
        admitted = at - now <= (SOURCE_BURST - 1) / SOURCE_RATE + 1e-9
        if admitted:
            at += 1 / SOURCE_RATE
        fullAt[source] = at
        # Two out for each one in keeps the table as small as the load allows.
        for _ in range(2):
            oldest = next(iter(fullAt))
            if fullAt[oldest] > now and len(fullAt) <= MAX_SOURCES:
                break
            del fullAt[oldest]
        return admitted

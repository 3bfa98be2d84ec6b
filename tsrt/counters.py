"""
Counters: plain integers that the data path adds to and nobody waits for.

A dropped packet is a count with a reason in its name, not an exception and not
a log line.
"""

from __future__ import annotations

from collections.abc import Iterator


class Counters:
    """
    The base of a set of counters.

    A subclass names its counters in C{__slots__} and annotates each as C{int};
    all begin at zero::

        class RelayCounters(Counters):
            __slots__ = ("droppedFull", "sent")
            droppedFull: int
            sent: int
    """

    __slots__ = ()

    def __init__(self) -> None:
        """Set every counter to zero."""
        for name in self._names():
            setattr(self, name, 0)

    @classmethod
    def _names(cls) -> Iterator[str]:
        """Yield the names of all counters, those of base classes first."""
        for klass in reversed(cls.__mro__):
            slots = klass.__dict__.get("__slots__", ())
            yield from (slots,) if isinstance(slots, str) else slots

    def snapshot(self) -> dict[str, int]:
        """The counters by name, as they are now."""
        return {name: getattr(self, name) for name in self._names()}

    def add(self, other: Counters) -> None:
        """Add the counters of C{other}, which must be of the same kind."""
        for name in self._names():
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def __repr__(self) -> str:
        shown = " ".join(f"{name}={n}" for name, n in self.snapshot().items() if n)
        return f"<{type(self).__name__} {shown}>"

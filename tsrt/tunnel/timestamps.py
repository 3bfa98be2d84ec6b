"""
The timestamps of handshake initiations: TAI64N, strictly increasing for ever.

A responder remembers the newest timestamp it accepted from a peer and drops
everything that is not newer.  A node whose clock was set back, or which
restarted after handing out timestamps from the future, would therefore be
ignored until its clock catches up.  So the source never goes backwards: not
when the clock steps back, not over a restart, not after a crash.

To survive a crash without a disk write for each handshake, the source
I{reserves}: before it hands out a timestamp beyond what is saved, it saves one
that lies L{RESERVATION} seconds ahead, and then needs no other write until it
gets there.  After a crash it goes on from the reservation.
"""

from __future__ import annotations

from collections.abc import Callable

from tsrt.errors import WireError
from tsrt.wire.wireguard import tai64n

TAI64_BASE = 0x400000000000000A
"""The TAI64 label of the Unix epoch (2^62, and TAI was 10 s ahead in 1970)."""

TIMESTAMP_SIZE = 12

RESERVATION = 3600.0
"""How far ahead of the newest timestamp a reservation reaches, in seconds."""

_NANOSECONDS = 1_000_000_000
# Only the upper bits of the nanoseconds are told, so that a timestamp does not
# show an observer how precisely our clock runs: steps of about 16.8 ms.
_STEP = 1 << 24
_LATEST_SECONDS = 1 << 40


def decodeTimestamp(label: bytes) -> int:
    """
    The nanoseconds since the Unix epoch that a TAI64N label stands for.

    @raise WireError: when it is not a label of a time from 1970 on.
    """
    if len(label) != TIMESTAMP_SIZE:
        raise WireError(f"a TAI64N label has 12 bytes, not {len(label)}")
    seconds = int.from_bytes(label[:8], "big") - TAI64_BASE
    rest = int.from_bytes(label[8:], "big")
    if not 0 <= seconds < _LATEST_SECONDS or rest >= _NANOSECONDS:
        raise WireError("this TAI64N label is outside the range of times")
    return seconds * _NANOSECONDS + rest


class TimestampSource:
    """
    Hands out strictly increasing timestamps; call it to get one.

    At a clean stop save L{last}: the next run then starts from there and not
    from the end of the reservation.
    """

    __slots__ = ("_latest", "_reserved", "_save", "_span", "_wallclock")

    def __init__(
        self,
        wallclock: Callable[[], float],
        stored: bytes = b"",
        *,
        save: Callable[[bytes], None] | None = None,
        reservation: float = RESERVATION,
    ) -> None:
        """
        @param wallclock: the time since the Unix epoch, in seconds.
        @param stored: what was saved last by an earlier run, or nothing.
        @param save: puts a reservation where a restart finds it, and returns
            when it is safe there; it deals with its own failures.  It is
            called from within a request for a timestamp, about once in
            C{reservation} seconds at most.
        @param reservation: how many seconds ahead to reserve.
        @raise WireError: C{stored} is no timestamp.
        """
        self._wallclock = wallclock
        self._latest = decodeTimestamp(stored) if stored else -1
        self._reserved = self._latest
        self._save = save
        self._span = max(int(reservation * _NANOSECONDS), _STEP)

    @property
    def last(self) -> bytes:
        """
        The newest timestamp given out or read from storage; empty if none.
        """
        return tai64n(self._latest) if self._latest >= 0 else b""

    def __call__(self) -> bytes:
        """
        A timestamp of 12 bytes, newer than all before it.
        """
        now = max(int(self._wallclock() * _NANOSECONDS), 0)
        seconds, rest = divmod(now, _NANOSECONDS)
        moment = seconds * _NANOSECONDS + (rest & -_STEP)
        if moment <= self._latest:
            moment = self._following(self._latest)
        self._latest = moment
        if self._save is not None and moment > self._reserved:
            self._reserved = moment + self._span
            self._save(tai64n(self._reserved))
            # What was saved is rounded down; take it at its word.
            self._reserved -= self._reserved % _NANOSECONDS % _STEP
        return tai64n(moment)

    @staticmethod
    def _following(moment: int) -> int:
        """The next time after C{moment} that has a label of its own."""
        seconds, rest = divmod(moment, _NANOSECONDS)
        rest = (rest & -_STEP) + _STEP
        if rest >= _NANOSECONDS:
            seconds, rest = seconds + 1, 0
        return seconds * _NANOSECONDS + rest

"""
The tail loss probe: asking early whether the end of a flight arrived.

When the last segments of a flight or their acknowledgement are lost, nothing
comes back that would show it.  Rather than wait for the retransmission timer,
one more segment goes out after two round trips; its acknowledgement tells what
is missing, or that nothing is.

Reference: RFC 8985 section 7.
"""

from __future__ import annotations

_LONE_SEGMENT_ALLOWANCE = 0.2
"""Seconds that a peer may delay the acknowledgement of a lone segment."""

_LEAST_DELAY = 0.01


class TailProbe:
    """
    The probe timer of one flow.

    @ivar at: when to probe; L{None} for not at all.
    @ivar due: whether a probe has to go out.
    @ivar end: position that ends the episode once it is acknowledged; L{None}
        while no probe is out.
    @ivar repeated: whether the probe was a segment that had been sent before.
    @ivar needless: whether the peer said that it had that segment already.
    @ivar count: probes sent in all.
    """

    __slots__ = ("at", "count", "due", "end", "needless", "repeated")

    def __init__(self) -> None:
        self.at: float | None = None
        self.due = False
        self.end: int | None = None
        self.repeated = False
        self.needless = False
        self.count = 0

    def start(
        self,
        now: float,
        smoothed: float | None,
        lone: bool,
        expires: float | None,
    ) -> None:
        """
        Wait for two round trips, unless the retransmission timer comes first.

        @param smoothed: smoothed round-trip time in seconds.
        @param lone: whether no more than one segment is in flight.
        @param expires: when the retransmission timer expires.
        """
        if smoothed is None or expires is None or self.end is not None:
            return
        at = now + max(2.0 * smoothed, _LEAST_DELAY)
        if lone:
            at += _LONE_SEGMENT_ALLOWANCE
        if at < expires:
            self.at = at

    def stop(self) -> None:
        """Forget about probing; recovery has begun, or all is acknowledged."""
        self.at = None
        self.due = False
        self.end = None

    def probe(
        self, una: int, nxt: int, end: int, edge: int, mss: int
    ) -> tuple[int, int]:
        """
        What to send: new data if there is any, else the last segment again.

        @param una: oldest position that is not acknowledged.
        @param nxt: position just past the newest that was sent.
        @param end: position just past everything that there is to send.
        @param edge: the right edge of the peer's window.
        """
        self.due = False
        self.needless = False
        self.count += 1
        fresh = min(end, edge, nxt + mss)
        if fresh > nxt:
            self.repeated = False
            self.end = fresh
            return nxt, fresh
        self.repeated = True
        self.end = nxt
        if nxt > max(edge, una + mss):
            # The peer took its window back.
            return una, una + mss
        return max(una, nxt - mss), nxt

    def acknowledged(self, ack: int) -> bool:
        """
        Take in an acknowledgement.

        @return: whether it shows that the probe repaired a loss, which calls
            for less speed.
        """
        if self.end is None or ack < self.end:
            return False
        repaired = self.repeated and not self.needless
        self.end = None
        return repaired

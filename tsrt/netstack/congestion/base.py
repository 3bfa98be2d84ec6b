"""
What every congestion control has, and slow start, which all share.

Loss recovery decides what to send again; a strategy only decides how much may
be in flight.

Reference: RFC 5681, RFC 6928, RFC 3465.
"""

from __future__ import annotations

INITIAL_SEGMENTS = 10
"""Full segments of the first window (RFC 6928)."""

_UNLIMITED = 1 << 62


class CongestionControl:
    """
    A congestion window and the rules for moving it.

    @ivar mss: bytes of payload in a full segment.
    @ivar window: bytes that may be in flight.
    @ivar threshold: bytes at which slow start ends.
    """

    __slots__ = ("_before", "_partial", "mss", "threshold", "window")

    beta = 0.5
    """What a loss leaves of the window."""

    def __init__(self, mss: int) -> None:
        """
        @param mss: bytes of payload in a full segment.
        """
        self.mss = mss
        self.window = self.initialWindow
        self.threshold = _UNLIMITED
        # Window and threshold before the last loss.
        self._before = (self.window, self.threshold)
        # Bytes of growth that are due but do not make a whole byte yet.
        self._partial = 0.0

    @property
    def initialWindow(self) -> int:
        """Bytes of the first window (RFC 6928 section 2)."""
        return min(
            INITIAL_SEGMENTS * self.mss, max(2 * self.mss, INITIAL_SEGMENTS * 1460)
        )

    @property
    def inSlowStart(self) -> bool:
        """Whether the window still grows exponentially."""
        return self.window < self.threshold

    def setSegmentSize(self, mss: int) -> None:
        """Use full segments of another size, as after a smaller path MTU."""
        self.mss = mss
        self.window = max(self.window, mss)

    def acknowledged(self, size: int, now: float, rtt: float | None) -> None:
        """
        Grow: new data was acknowledged while the window was in use.

        Not to be called during fast recovery, nor when the application sent
        less than the window let it.

        @param size: bytes newly acknowledged.
        @param rtt: smoothed round-trip time in seconds, if there is one.
        """
        if self.window < self.threshold:
            room = self.threshold - self.window
            grown = min(size, room)
            self.window += grown
            size -= grown
            if size <= 0:
                return
        self._avoid(size, now, rtt)

    def lost(self, inFlight: int, now: float) -> None:
        """
        Shrink: a segment was found lost and fast recovery begins.

        @param inFlight: bytes between the acknowledgement and the highest byte
            sent.
        """
        self._reduce(inFlight, now)
        self.window = self.threshold

    def timedOut(self, inFlight: int, now: float, again: bool) -> None:
        """
        Start over: the retransmission timer expired.

        @param again: whether the same data timed out before, so that the
            threshold stays (RFC 5681 equation 4).
        """
        if not again:
            self._reduce(inFlight, now)
        self.window = self.mss

    def undo(self) -> None:
        """Take the last shrinking back: nothing had been lost."""
        window, self.threshold = self._before
        self.window = max(self.window, window)

    def idled(self) -> None:
        """Nothing was sent for longer than the timeout: open up anew."""
        self.window = min(self.window, self.initialWindow)

    def unused(self, now: float) -> None:
        """Data was acknowledged while less than the window was in use."""

    def _avoid(self, size: int, now: float, rtt: float | None) -> None:
        """Grow in congestion avoidance; additive increase unless overridden."""
        self._partial += self.mss * size / self.window
        grown = int(self._partial)
        self._partial -= grown
        self.window += grown

    def _reduce(self, inFlight: int, now: float) -> None:
        """Set the threshold after a loss."""
        self._before = (self.window, self.threshold)
        self.threshold = max(int(inFlight * self.beta), 2 * self.mss)

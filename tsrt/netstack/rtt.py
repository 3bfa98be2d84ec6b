"""
The estimate of the round-trip time and the retransmission timeout.

Reference: RFC 6298.
"""

from __future__ import annotations

INITIAL_TIMEOUT = 1.0
"""Seconds before the first measurement (RFC 6298 section 2.1)."""

AFTER_SYN_LOSS = 3.0
"""Seconds with which data starts when a SYN had to be repeated (section 5.7)."""

MIN_TIMEOUT = 0.2
"""
Least timeout in seconds.  RFC 6298 asks for one second; like the common
systems we go lower, but stay above the delayed acknowledgements of any peer.
"""

MAX_TIMEOUT = 60.0
"""Largest timeout in seconds, back-off included (section 2.5)."""

_GRANULARITY = 0.001


class RTTEstimator:
    """
    Smoothed round-trip time, its variance and the timeout made of both.

    @ivar smoothed: the smoothed round-trip time in seconds; L{None} before
        the first measurement.
    @ivar variance: the mean deviation, in seconds.
    @ivar smallest: the smallest round-trip time seen; L{None} before that.
    @ivar latest: the newest measurement; L{None} before that.
    @ivar backoff: how many times the timeout is doubled at the moment.
    """

    __slots__ = ("_base", "backoff", "latest", "smallest", "smoothed", "variance")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variance = 0.0
        self.smallest: float | None = None
        self.latest: float | None = None
        self.backoff = 0
        self._base = INITIAL_TIMEOUT

    def sample(self, elapsed: float, weight: float = 1.0) -> None:
        """
        Take one measurement.

        The caller keeps Karn's rule: nothing that was retransmitted is
        measured, unless timestamps tell which copy was acknowledged.

        @param elapsed: seconds between sending and the acknowledgement.
        @param weight: share of a whole measurement, below 1 when there are
            many in each round trip (RFC 7323 appendix G).
        """
        if elapsed < 0.0:
            # The clock was set back; such a measurement says nothing.
            return
        self.latest = elapsed
        if self.smallest is None or elapsed < self.smallest:
            self.smallest = elapsed
        if self.smoothed is None:
            self.smoothed = elapsed
            self.variance = elapsed / 2.0
        else:
            off = abs(self.smoothed - elapsed)
            self.variance += 0.25 * weight * (off - self.variance)
            self.smoothed += 0.125 * weight * (elapsed - self.smoothed)
        self._base = self.smoothed + max(_GRANULARITY, 4.0 * self.variance)
        self.backoff = 0

    def synLost(self) -> None:
        """Start data transfer with a cautious timeout: a SYN was repeated."""
        self.backoff = 0
        self._base = AFTER_SYN_LOSS

    def doubled(self) -> None:
        """Double the timeout: it has just expired."""
        if self.timeout < MAX_TIMEOUT:
            self.backoff += 1

    def progressed(self) -> None:
        """End the back-off: new data was acknowledged."""
        self.backoff = 0

    @property
    def timeout(self) -> float:
        """The retransmission timeout in seconds, back-off included."""
        base = self._base
        if base < MIN_TIMEOUT:
            base = MIN_TIMEOUT
        base *= 1 << self.backoff
        return base if base < MAX_TIMEOUT else MAX_TIMEOUT


class Stopwatch:
    """
    Times one position of the stream, from sending to acknowledgement.

    @ivar position: the position just past what is timed; L{None} while
        nothing is.
    """

    __slots__ = ("_since", "position")

    def __init__(self) -> None:
        self.position: int | None = None
        self._since = 0.0

    def start(self, position: int, now: float) -> None:
        """Time what ends at C{position}, which goes out now for the first time."""
        self.position = position
        self._since = now

    def stop(self) -> None:
        """Give up timing: it would not tell which copy was acknowledged."""
        self.position = None

    def elapsed(self, now: float) -> float:
        """The seconds that it took; ends the timing."""
        self.position = None
        return now - self._since

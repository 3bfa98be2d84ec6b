"""
CUBIC: growth as a cubic function of the time since the last loss.

Reference: RFC 9438.  Windows are in segments here, as the RFC has them, and
in bytes outside.
"""

from __future__ import annotations

from tsrt.netstack.congestion.base import CongestionControl

C = 0.4
"""How fast the window grows, in segments per second cubed (section 4.1)."""

BETA = 0.7
"""What a loss leaves of the window (section 4.6)."""

RENO_ALPHA = 3.0 * (1.0 - BETA) / (1.0 + BETA)
"""Growth of the Reno-friendly estimate, segments a round trip (section 4.3)."""


def cubicWindow(elapsed: float, k: float, peak: float) -> float:
    """
    The window function of section 4.2, in segments.

    @param elapsed: seconds since congestion avoidance began.
    @param k: seconds after which the window is back at C{peak}.
    @param peak: the window at which the function levels off.
    """
    return C * (elapsed - k) ** 3 + peak


class Cubic(CongestionControl):
    """
    The default congestion control.

    @ivar peak: C{W_max}, segments; 0 before the first loss.
    """

    __slots__ = (
        "_began",
        "_k",
        "_last",
        "_peakBefore",
        "_prior",
        "_reno",
        "_timedOut",
        "peak",
    )

    beta = BETA

    def __init__(self, mss: int) -> None:
        super().__init__(mss)
        self.peak = 0.0
        self._peakBefore = 0.0
        self._prior = 0.0
        self._forget()
        self._timedOut = False
        self._last = 0.0

    def _forget(self) -> None:
        # When the present epoch of congestion avoidance began; none has.
        self._began: float | None = None
        self._k = 0.0
        self._reno = 0.0

    def _begin(self, now: float) -> float:
        window = self.window / self.mss
        self._began = now
        self._reno = window
        if self._timedOut or self.peak <= window:
            # After a timeout, or slow start without a loss (section 4.8), the
            # function starts from its plateau.
            self.peak = window
            self._k = 0.0
        else:
            self._k = ((self.peak - window) / C) ** (1.0 / 3.0)
        self._timedOut = False
        return now

    def _avoid(self, size: int, now: float, rtt: float | None) -> None:
        began = self._began
        if began is None:
            began = self._begin(now)
        elapsed = now - began
        self._last = now
        window = self.window / self.mss
        acked = size / self.mss

        # What Reno would have by now (section 4.3); once it is back at the
        # window of the last loss it may grow as Reno itself does.
        alpha = RENO_ALPHA if self._reno < self._prior else 1.0
        self._reno += alpha * acked / window

        if cubicWindow(elapsed, self._k, self.peak) < self._reno:
            self.window = max(self.window, int(self._reno * self.mss))
            return
        target = cubicWindow(elapsed + (rtt or 0.0), self._k, self.peak)
        target = min(max(target, window), 1.5 * window)
        self._partial += (target - window) / window * size
        whole = int(self._partial)
        self._partial -= whole
        self.window += whole

    def unused(self, now: float) -> None:
        # Time that the application left unused does not count as elapsed
        # (section 5.8), or the window would leap afterwards.
        if self._began is not None:
            self._began += max(0.0, now - self._last)
            self._last = now

    def lost(self, inFlight: int, now: float) -> None:
        super().lost(inFlight, now)
        self._timedOut = False

    def timedOut(self, inFlight: int, now: float, again: bool) -> None:
        super().timedOut(inFlight, now, again)
        self._timedOut = True

    def undo(self) -> None:
        super().undo()
        self.peak = self._peakBefore
        self._timedOut = False
        self._forget()

    def _reduce(self, inFlight: int, now: float) -> None:
        self._peakBefore = self.peak
        window = self.window / self.mss
        self._prior = window
        # Fast convergence (section 4.7): leave room for new flows when the
        # last peak was not reached again.
        self.peak = window * (1.0 + BETA) / 2.0 if window < self.peak else window
        self._forget()
        self._partial = 0.0
        super()._reduce(inFlight, now)

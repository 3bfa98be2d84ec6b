"""One delayed call for many deadlines."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# Deadlines closer together than this share one wake-up.
GRAIN = 0.001


class DeadlineTimer:
    """
    Wakes its owner at the earliest deadline that it was told.

    Arming for a later deadline than the pending one costs a comparison: the
    early wake-up then arms again.
    """

    def __init__(self, reactor: IReactorTime, wake: Callable[[], object]) -> None:
        """
        @param wake: called at the deadline; it is expected to arm again.
        """
        self._reactor = reactor
        self._wake = wake
        self._call: IDelayedCall | None = None
        self._at = 0.0

    def arm(self, deadline: float | None, now: float) -> None:
        """
        Wake at C{deadline} at the latest.

        @param deadline: in the reactor's seconds; C{None} leaves things as
            they are.
        """
        if deadline is None:
            return
        if self._call is not None:
            # Overdue: the reactor's clock was set back, and would have us wait
            # until it has caught up.
            isOverdue = now > self._at + GRAIN
            if self._at <= deadline + GRAIN and not isOverdue:
                return
            self._call.cancel()
            if isOverdue:
                deadline = now
        self._at = max(deadline, now)
        self._call = self._reactor.callLater(self._at - now, self._fire)

    def _fire(self) -> None:
        self._call = None
        self._wake()

    def cancel(self) -> None:
        """Forget the deadline."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

"""
How long to wait before trying again.

Each loop of the control client has its own L{Backoff}.
"""

from __future__ import annotations

from collections.abc import Callable

STEP = 0.010
"""Seconds; multiplied with the square of the number of failures."""

LONGEST = 30.0
"""Seconds that the square is cut off at, before the random factor."""


def randomFraction(randbytes: Callable[[int], bytes]) -> float:
    """
    Draw a number from C{[0, 1)}.

    @param randbytes: the source of randomness.
    """
    return int.from_bytes(randbytes(6), "big") / (1 << 48)


class Backoff:
    """
    Waits that grow with the square of the number of failures in a row.

    The random factor keeps clients that lost their server at the same moment
    from all coming back at the same moment.
    """

    def __init__(
        self,
        randbytes: Callable[[int], bytes],
        *,
        step: float = STEP,
        longest: float = LONGEST,
    ) -> None:
        """
        @param randbytes: the source of randomness.
        @param step: seconds of the first wait.
        @param longest: seconds that no wait exceeds before the random factor.
        """
        self._randbytes = randbytes
        self._step = step
        self._longest = longest
        self.failures = 0

    def next(self) -> float:
        """Count one more failure, and say how many seconds to wait for it."""
        self.failures += 1
        base = min(self.failures**2 * self._step, self._longest)
        return base * (0.5 + randomFraction(self._randbytes))

    def reset(self) -> None:
        """Something worked: the next wait is the shortest one."""
        self.failures = 0

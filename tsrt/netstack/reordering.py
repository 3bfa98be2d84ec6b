"""
Learning that the network reorders packets, and not taking that for loss.

A peer that reports duplicates (D-SACK) shows which repetitions were needless.
Once all of a recovery were, the window is what it was before; and from then on
a suspected loss has to last for part of a round trip before it counts.

Reference: RFC 2883, RFC 3708, RFC 8985 section 6.2 (the reordering window).
"""

from __future__ import annotations

_STEPS = 4
"""The wait grows by this part of a round trip, up to a whole one."""

_PERSISTENCE = 16
"""Recoveries without needless repetitions after which all is forgotten."""


def duplicateSize(ack: int, blocks: list[tuple[int, int]]) -> int:
    """
    How many bytes a segment reports to have come twice.

    @param ack: the position that it acknowledges.
    @param blocks: its SACK blocks, as positions; at least one.
    """
    start, end = blocks[0]
    if end <= ack or (
        len(blocks) > 1 and blocks[1][0] <= start and end <= blocks[1][1]
    ):
        return max(0, end - start)
    return 0


class Reordering:
    """
    What is known of reordering on the way of one flow.

    @ivar at: when a suspected loss counts; L{None} while none is suspected.
    @ivar undone: recoveries that turned out to be needless.
    """

    __slots__ = ("_doubtful", "_left", "_noted", "_shrunk", "_steps", "at", "undone")

    def __init__(self) -> None:
        self.at: float | None = None
        self.undone = 0
        # The wait, in parts of a round trip.
        self._steps = 0
        self._left = 0
        # Bytes repeated in the present recovery and not reported as needless.
        self._doubtful = 0
        self._noted = False
        self._shrunk = False

    def suspected(self, now: float, smoothed: float | None) -> bool:
        """
        A loss is evident, if the order of arrival can be trusted.

        @param smoothed: smoothed round-trip time in seconds.
        @return: whether it counts already.
        """
        if not self._steps or smoothed is None:
            return True
        if self.at is None:
            self.at = now + smoothed * self._steps / _STEPS
        return now >= self.at

    def slack(self, window: int) -> int:
        """
        The same wait in bytes.

        @param window: what is sent in a round trip.
        """
        return window * self._steps // _STEPS

    def began(self, shrunk: bool = True) -> None:
        """
        A recovery begins.

        @param shrunk: whether the congestion window shrank for it, so that
            there is something to take back.
        """
        self.at = None
        self._shrunk = shrunk
        self._doubtful = 0
        self._noted = False
        if self._left:
            self._left -= 1
            if not self._left:
                self._steps = 0

    def repeated(self, size: int) -> None:
        """Bytes were sent again in a recovery."""
        self._doubtful += size

    def duplicate(self, size: int) -> bool:
        """
        The peer says that bytes came twice.

        @return: whether with them the whole recovery was needless.
        """
        if not self._doubtful:
            # Not our doing: the network duplicates.
            return False
        if not self._noted:
            self._noted = True
            self._left = _PERSISTENCE
            if self._steps < _STEPS:
                self._steps += 1
        self._doubtful -= min(size, self._doubtful)
        if self._doubtful or not self._shrunk:
            return False
        self._shrunk = False
        self.undone += 1
        return True

"""
The queue at the end of a short path: when to fill it no further.

Between two nodes on one machine, or on one local network, nothing queues but the
socket at the far end, which all flows of a peer share.  Once that is full it loses
whole writes at once, dozens of segments of one flow, which mostly end in a timeout.
So while segments wait there for long, a window is large enough and does not grow.

On longer paths delay says little of how much a queue takes, and whoever heeds it
leaves the path to those who do not; there only loss ends growth.
"""

from __future__ import annotations

from collections import deque

SHORT = 0.002
"""Round-trip time in seconds below which a path is a short one."""

ENOUGH = 0.002
"""Seconds of waiting with which the queue is full enough: at a gigabyte a second two
megabytes, and sockets have seven."""


class StandingQueue:
    """
    How long the segments of one flow wait.

    @ivar isFull: whether the newest that is acknowledged waited for long.
    """

    __slots__ = ("_sent", "isFull")

    def __init__(self) -> None:
        self.isFull = False
        # The ends of what was sent, and when, one entry for each time.
        self._sent: deque[tuple[int, float]] = deque()

    def sent(self, end: int, now: float, smallest: float | None) -> None:
        """
        Note that new data was sent.

        @param end: the position just past it.
        @param smallest: the smallest round-trip time of the flow, in seconds.
        """
        if smallest is None or smallest >= SHORT:
            return
        sent = self._sent
        if sent and sent[-1][1] == now:
            sent.pop()
        sent.append((end, now))

    def acknowledged(self, position: int, now: float, smallest: float | None) -> None:
        """
        Take in an acknowledgement.

        @param position: up to where.
        @param smallest: as for L{sent}.
        """
        sent = self._sent
        if not sent:
            return
        since = None
        while sent and sent[0][0] <= position:
            _, since = sent.popleft()
        if since is not None and smallest is not None:
            self.isFull = now - since > smallest + ENOUGH

    def clear(self) -> None:
        """Forget what was sent: it is sent again."""
        self._sent.clear()
        self.isFull = False

"""
Proportional rate reduction: how much may be sent in answer to what arrives
during fast recovery.

The window alone would let all go out at once that a burst of losses made room
for, and so fill the very queue that has just overflowed: retransmissions would
be lost, and found missing by the timer only.

Reference: RFC 9937 section 6.2.
"""

from __future__ import annotations


class RateReduction:
    """
    The account of one fast recovery, in bytes.

    @ivar room: what may go out now.
    """

    __slots__ = ("_delivered", "_extra", "_flight", "_sent", "room")

    def __init__(self) -> None:
        self.room = 0
        # What was in flight when the recovery began; what of it, and of what
        # was sent since, has arrived; and what was sent.
        self._flight = 1
        self._delivered = 0
        self._sent = 0
        # What may go out beyond that, as the losses are known by now.
        self._extra = 0

    def began(self, flight: int) -> None:
        """
        A recovery begins; what has arrived in the present batch is told next, by
        L{arrived}.

        @param flight: what was in flight before the batch that shows the loss.
        """
        self._flight = max(flight, 1)
        self._delivered = self._sent = self._extra = 0

    def arrived(self, size: int, safe: int, pipe: int, window: int) -> None:
        """
        Decide what may go out, as an acknowledgement has arrived.

        @param size: bytes that are newly known to have arrived.
        @param safe: bytes by which to speed up: a segment if the
            acknowledgement moved and told of no further loss, else 0.
        @param pipe: what is on its way.
        @param window: what is to be on its way in the end.
        """
        self._delivered += size
        if pipe > window:
            self.room = -(-self._delivered * window // self._flight) - self._sent
            return
        self._extra += safe
        due = max(self._delivered - self._sent, size) + self._extra
        self.room = min(due, window - pipe)

    def sent(self, size: int) -> None:
        """Note that C{size} bytes went out."""
        self._sent += size
        self._extra = 0
        self.room -= size

"""
The peer's window, and the timer that probes a closed one.

Reference: RFC 9293 sections 3.8.6.1 and 3.10.7.4.
"""

from __future__ import annotations

from tsrt.netstack.rtt import MAX_TIMEOUT

_MAX_SHIFT = 8


class PeerWindow:
    """
    What the peer lets us send.

    @ivar size: what it offered last, in bytes.
    @ivar largest: the most that it ever offered.
    @ivar edge: the right edge of its window, as a position.
    """

    __slots__ = ("_ack", "_seq", "edge", "largest", "size")

    def __init__(self) -> None:
        self.size = 0
        self.largest = 0
        self.edge = 0
        self._seq: int | None = None
        self._ack = 0

    def update(self, size: int, seq: int, ack: int) -> bool:
        """
        Take in the window of a segment, unless it is older than one before.

        @param seq: the segment's position in the peer's stream.
        @param ack: the position that it acknowledges.
        @return: whether it was taken.
        """
        known = self._seq
        if known is not None and (seq < known or (seq == known and ack < self._ack)):
            return False
        self._seq = seq
        self._ack = ack
        self.size = size
        self.edge = ack + size
        if size > self.largest:
            self.largest = size
        return True


class PersistTimer:
    """
    Asks a peer with a closed window from time to time.

    @ivar at: when to probe next; L{None} while there is no reason to.
    @ivar due: whether a probe has to go out.
    @ivar count: probes sent since the window closed.
    """

    __slots__ = ("at", "count", "due")

    def __init__(self) -> None:
        self.at: float | None = None
        self.due = False
        self.count = 0

    def start(self, now: float, timeout: float, userTimeout: float) -> None:
        """
        Wait for the next probe, longer each time.

        @param timeout: the retransmission timeout in seconds.
        @param userTimeout: seconds of silence after which the peer counts as
            dead; several probes have to fit in.
        """
        delay = timeout * (1 << min(self.count, _MAX_SHIFT))
        self.at = now + min(delay, MAX_TIMEOUT, userTimeout / 4)

    def probe(
        self, una: int, nxt: int, end: int, edge: int, mss: int
    ) -> tuple[int, int]:
        """
        What to send: one byte, or all that a small window admits.

        @param una: oldest position that is not acknowledged.
        @param nxt: position just past the newest that was sent.
        @param end: position just past everything that there is to send.
        @param edge: the right edge of the peer's window.
        """
        self.due = False
        if edge > una and nxt == una:
            self.stop()
            return una, min(edge, end, una + mss)
        return una, una + 1

    def stop(self) -> None:
        """There is no reason to probe any more."""
        self.at = None
        self.due = False
        self.count = 0

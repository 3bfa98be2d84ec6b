"""
The receiving half of a flow: the window we offer, and when to acknowledge.

Reference: RFC 9293 sections 3.8.6.2.2 and 3.8.6.3, RFC 5681 section 4.2,
RFC 2018, RFC 2883, RFC 7323 section 2.
"""

from __future__ import annotations

from tsrt.netstack.recvbuf import ReceiveBuffer

_LEAST_SEGMENT = 536
"""What counts as a full segment until a larger one has been seen."""


class Receiver:
    """
    The receive side of one flow.

    @ivar irs: position of the peer's SYN.
    @ivar buffer: the stream that arrived.
    @ivar finished: whether the peer's FIN was reached in order.
    @ivar edge: the right edge of the window that was offered, as a position;
        it never moves back.
    @ivar capacity: what the window is worth while nothing waits to be read.
    @ivar shift: how far the window field is scaled, 0 until negotiated.
    @ivar ackNow: whether an acknowledgement has to go out.
    @ivar ackAt: when one has to go out at the latest, if it need not now.
    @ivar acknowledged: position up to which was last acknowledged.
    """

    __slots__ = (
        "_consumed",
        "_delay",
        "_duplicate",
        "_finAt",
        "_largest",
        "_limit",
        "ackAt",
        "ackNow",
        "acknowledged",
        "buffer",
        "capacity",
        "edge",
        "finished",
        "irs",
        "shift",
    )

    def __init__(self, irs: int, initial: int, limit: int, delay: float) -> None:
        """
        @param irs: the peer's initial sequence number.
        @param initial: bytes of the first window.
        @param limit: bytes that the window grows to.
        @param delay: seconds that an acknowledgement may wait.
        """
        self.irs = irs
        self.buffer = ReceiveBuffer(irs + 1)
        self.finished = False
        self.capacity = min(initial, limit)
        self.edge = irs + 1 + min(self.capacity, 0xFFFF)
        self.shift = 0
        self.ackNow = False
        self.ackAt: float | None = None
        self.acknowledged = irs + 1
        self._limit = limit
        self._delay = delay
        self._largest = _LEAST_SEGMENT
        self._consumed = 0
        self._finAt: int | None = None
        self._duplicate: tuple[int, int] | None = None

    def scale(self, shift: int) -> None:
        """
        Settle how the window field is scaled, once both SYNs have passed.

        @param shift: 0 if the peer does not scale; that bounds the window.
        """
        self.shift = shift
        self._limit = min(self._limit, 0xFFFF << shift)
        self.capacity = min(self.capacity, self._limit)

    @property
    def next(self) -> int:
        """The position that comes next, a FIN counted."""
        return self.buffer.next + 1 if self.finished else self.buffer.next

    @property
    def isPlain(self) -> bool:
        """Whether there is neither a gap nor a FIN."""
        return self._finAt is None and not self.buffer.hasIslands

    # -- data in -------------------------------------------------------------

    def take(self, start: int, data: bytes, now: float, largest: int) -> int:
        """
        Take the payload of a segment, or of a run of them, cut to the window.

        @param start: position of its first byte.
        @param largest: most bytes that came as one segment.
        @return: how many bytes became readable.
        """
        if self._finAt is not None:
            # Nothing can follow a FIN.
            data = data[: max(0, self._finAt - start)]
        size = len(data)
        if not size:
            return 0
        buffer = self.buffer
        if start != buffer.next or buffer.hasIslands:
            # Beyond a gap, or filling one: the peer should know at once.
            self.ackNow = True
            return buffer.insert(start, data)
        buffer.extend([data], size)
        self.arrived(size, min(size, largest), now)
        return size

    def arrived(self, size: int, largest: int, now: float) -> None:
        """
        Decide on the acknowledgement of data that came in order.

        @param size: bytes in all segments.
        @param largest: bytes in the largest of them.
        """
        if largest > self._largest:
            self._largest = largest
        if self.buffer.next - self.acknowledged >= 2 * self._largest:
            self.ackNow = True
        elif self.ackAt is None:
            self.ackAt = now + self._delay

    def finish(self, position: int) -> None:
        """
        Note the peer's FIN.

        @param position: where in the stream it lies.
        """
        self.ackNow = True
        if self._finAt is None and position >= self.buffer.highest:
            self._finAt = position

    def complete(self) -> bool:
        """Whether everything up to the FIN has now arrived; true only once."""
        if self._finAt == self.buffer.next and not self.finished:
            self.finished = True
            return True
        return False

    def repeated(self, start: int, end: int) -> None:
        """Acknowledge data that came before, and say which (RFC 2883)."""
        self.ackNow = True
        self._duplicate = (start, end)

    # -- acknowledgements out --------------------------------------------------

    def field(self) -> int:
        """
        The window field of a segment that goes out now, and offer that window.

        The edge moves in steps worth sending (silly window avoidance).
        """
        position = self.next
        buffer = self.buffer
        limit = buffer.next - buffer.readable + self.capacity
        edge = self.edge
        if limit - edge >= min(self._largest, self.capacity // 2):
            edge = limit
        window = edge - position
        if window <= 0:
            return 0
        shift = self.shift
        if not shift:
            window = min(window, 0xFFFF)
            self.edge = max(self.edge, position + window)
            return window
        # Rounded up, so that the edge does not move back by a few bytes, but
        # not so often that it creeps beyond what we can hold.
        unit = 1 << shift
        scaled = (window + unit - 1) >> shift
        if position + (scaled << shift) >= limit + unit:
            scaled = window >> shift
        scaled = min(scaled, 0xFFFF)
        self.edge = max(self.edge, position + (scaled << shift))
        return scaled

    def acknowledgedAll(self) -> None:
        """Note that a segment with an acknowledgement went out."""
        self.ackNow = False
        self.ackAt = None
        self.acknowledged = self.next
        self._duplicate = None

    @property
    def hasNews(self) -> bool:
        """Whether an acknowledgement would carry SACK blocks."""
        return self._duplicate is not None or self.buffer.hasIslands

    def blocks(self, limit: int) -> list[tuple[int, int]]:
        """
        The SACK blocks of an acknowledgement, as positions.

        @param limit: most blocks.
        """
        if self._duplicate is None:
            return self.buffer.blocks(limit)
        return [self._duplicate, *self.buffer.blocks(limit - 1)]

    # -- the application ---------------------------------------------------

    def read(self, limit: int | None) -> bytes:
        """
        Take bytes for the application; asks for a window update when due.

        @param limit: most bytes; L{None} for all.
        """
        data = self.buffer.read(limit)
        size = len(data)
        if not size:
            return data
        self._consumed += size
        if self._consumed >= self.capacity:
            # The application keeps up with a whole window: offer more.
            self._consumed = 0
            self.capacity = min(2 * self.capacity, self._limit)
        if not self.finished and not self.ackNow:
            buffer = self.buffer
            gain = buffer.next - buffer.readable + self.capacity - self.edge
            offered = self.edge - buffer.next
            if gain >= self.capacity // 2 or (
                offered < 2 * self._largest
                and gain >= min(2 * self._largest, self.capacity // 2)
            ):
                self.ackNow = True
        return data

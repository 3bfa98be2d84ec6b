"""
What the application wrote and the peer has not acknowledged.

One contiguous buffer: any run of equal segments can be cut out of it at once,
for the first time or again.  Retransmission needs no copies of segments, only
ranges of positions.
"""

from __future__ import annotations

_COMPACT = 65536
"""Bytes of acknowledged data that are kept before the buffer is moved up."""


class SendBuffer:
    """
    A contiguous piece of the outgoing stream.

    @ivar base: position of the first byte that is held.
    @ivar end: position just past the last byte that is held.
    """

    __slots__ = ("_data", "_head", "base", "end")

    def __init__(self, base: int) -> None:
        """
        @param base: position that the first byte written will have.
        """
        self._data = bytearray()
        self._head = 0
        self.base = base
        self.end = base

    def __len__(self) -> int:
        return self.end - self.base

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add C{data} at the end."""
        self._data += data
        self.end = self.base + len(self._data) - self._head

    def discard(self, position: int) -> None:
        """
        Drop everything before C{position}: it was acknowledged.

        @param position: not beyond L{end}; earlier than L{base} does nothing.
        """
        if position <= self.base:
            return
        self._head += position - self.base
        self.base = position
        if position >= self.end:
            # An idle flow holds no memory.
            self.base = self.end = position
            self._data = bytearray()
            self._head = 0
        elif self._head >= _COMPACT and self._head * 2 >= len(self._data):
            # Moving the rest costs no more than what was acknowledged did.
            del self._data[: self._head]
            self._head = 0

    def slice(self, start: int, end: int) -> bytes:
        """
        The bytes between two positions, copied.

        Positions outside of what is held are cut off.
        """
        at = self._head - self.base
        return bytes(
            memoryview(self._data)[max(start, self.base) + at : max(end, start) + at]
        )

    def clear(self) -> None:
        """Drop everything; nothing will be sent again."""
        self.discard(self.end)

"""
What the application wrote and the peer has not acknowledged.

The pieces stay as they were written, so that a large one is copied only when it is
cut into segments.  Any range can be cut out, for the first time or again:
retransmission needs no copies of segments, only ranges of positions.
"""

from __future__ import annotations

from bisect import bisect_right

_SMALL = 4096
"""Bytes below which what is written is joined with its neighbour, so that many
small writes cost their bytes only, and not an object each."""

_COMPACT = 65536
"""Bytes of a piece that have to be acknowledged before its rest is copied to free
them."""

_DEAD = 64
"""Entries of pieces that are gone which are kept before the lists are moved up."""


class SendBuffer:
    """
    A contiguous part of the outgoing stream.

    @ivar base: position of the first byte that is held.
    @ivar end: position just past the last byte that is held.
    """

    __slots__ = ("_first", "_pieces", "_starts", "base", "end")

    def __init__(self, base: int) -> None:
        """
        @param base: position that the first byte written will have.
        """
        # Pieces, none empty, and the position of each; those before `_first` are
        # gone.
        self._pieces: list[bytes] = []
        self._starts: list[int] = []
        self._first = 0
        self.base = base
        self.end = base

    def __len__(self) -> int:
        return self.end - self.base

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add C{data} at the end; if it is C{bytes}, it is not copied."""
        if type(data) is not bytes:
            # It may change, or keep something else from changing.
            data = bytes(data)
        size = len(data)
        if not size:
            return
        pieces = self._pieces
        if size < _SMALL and pieces and len(pieces[-1]) < _SMALL:
            pieces[-1] += data
        else:
            pieces.append(data)
            self._starts.append(self.end)
        self.end += size

    def discard(self, position: int) -> None:
        """
        Drop everything before C{position}: it was acknowledged.

        @param position: not beyond L{end}; earlier than L{base} does nothing.
        """
        if position <= self.base:
            return
        if position >= self.end:
            # An idle flow holds no memory.
            self.base = self.end = position
            self._pieces = []
            self._starts = []
            self._first = 0
            return
        self.base = position
        pieces, starts = self._pieces, self._starts
        first, last = self._first, len(starts) - 1
        while first < last and starts[first + 1] <= position:
            pieces[first] = b""
            first += 1
        if first >= _DEAD and first * 2 > last:
            del pieces[:first], starts[:first]
            first = 0
        self._first = first
        gone = position - starts[first]
        if gone >= _COMPACT and gone * 2 >= len(pieces[first]):
            # Moving the rest costs no more than what was acknowledged did.
            pieces[first] = pieces[first][gone:]
            starts[first] = position

    def slice(self, start: int, end: int) -> bytes:
        """
        The bytes between two positions.

        Positions outside of what is held are cut off.
        """
        start = max(start, self.base)
        end = min(end, self.end)
        if start >= end:
            return b""
        pieces, starts = self._pieces, self._starts
        at = bisect_right(starts, start, self._first) - 1
        piece = pieces[at]
        start -= starts[at]
        end -= starts[at]
        size = len(piece)
        if end <= size:
            return piece[start:end]
        found: list[bytes | memoryview] = [memoryview(piece)[start:]]
        while True:
            end -= size
            at += 1
            piece = pieces[at]
            size = len(piece)
            if end <= size:
                found.append(memoryview(piece)[:end])
                return b"".join(found)
            found.append(piece)

    def clear(self) -> None:
        """Drop everything; nothing will be sent again."""
        self.discard(self.end)

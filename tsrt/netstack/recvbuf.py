"""
What arrived from the peer: the stream in order, and islands out of order.

The part in order is a list of chunks, which one read joins.  Out-of-order data
waits in islands: disjoint, never touching parts of the stream above the first gap.
Where segments overlap, the bytes that came first stay.

Segments are kept as they came, in whatever order that is: what is copied is less
than L{_LEAST_CHUNK} bytes for each piece, however much waits.

Reference: RFC 9293 section 3.10.7.4, RFC 2018 section 4.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

MAX_ISLANDS = 256
"""Islands that one flow keeps; a segment that would make another is dropped."""

_LEAST_CHUNK = 256
"""Mean size in bytes below which chunks are joined, to bound their overhead."""

_FREE_CHUNKS = 64

_DEAD = 64
"""Entries of chunks that were read which are kept before the list is moved up."""


class Island:
    """
    A part of the stream above a gap: pieces behind one another.

    @ivar end: position just past it.
    """

    __slots__ = ("_after", "_before", "end")

    def __init__(self, data: bytes, end: int) -> None:
        """
        @param data: all that it is as yet.
        @param end: position just past it.
        """
        self.end = end
        # What was put in front, the first piece last; and what lies behind that.
        self._before: list[bytes] = []
        self._after = [data]

    def __len__(self) -> int:
        """The number of pieces."""
        return len(self._before) + len(self._after)

    def prepend(self, data: bytes) -> None:
        """Put a piece in front."""
        self._before.append(data)

    def append(self, data: bytes) -> None:
        """Put a piece behind."""
        self._after.append(data)
        self.end += len(data)

    def prependAll(self, other: Island) -> None:
        """Put another island in front; it is of no use any more."""
        self._before += reversed(other._after)
        self._before += other._before

    def appendAll(self, other: Island) -> None:
        """Put another island behind; it is of no use any more."""
        self._after += reversed(other._before)
        self._after += other._after
        self.end = other.end

    def pieces(self) -> list[bytes]:
        """The pieces in order."""
        return [*reversed(self._before), *self._after]

    def bound(self, start: int) -> None:
        """Join the pieces if they are many and small."""
        if len(self) > _FREE_CHUNKS + (self.end - start) // _LEAST_CHUNK:
            self._after = [b"".join(self.pieces())]
            self._before = []


class ReceiveBuffer:
    """
    The incoming stream of one flow.

    @ivar next: position of the first byte that has not arrived in order.
    @ivar readable: bytes in order that wait to be read.
    @ivar refused: segments dropped because there were too many islands.
    """

    __slots__ = (
        "_chunks",
        "_first",
        "_islands",
        "_offset",
        "_recent",
        "_starts",
        "next",
        "readable",
        "refused",
    )

    def __init__(self, position: int) -> None:
        """
        @param position: where the stream begins.
        """
        self.next = position
        self.readable = 0
        self.refused = 0
        # Those before `_first` were read, and of that one as much as `_offset`.
        self._chunks: list[bytes] = []
        self._first = 0
        self._offset = 0
        # Islands: sorted starts, and the rest of each at the same index.
        self._starts: list[int] = []
        self._islands: list[Island] = []
        # Starts of islands, the one that changed last first.
        self._recent: list[int] = []

    # -- in order ----------------------------------------------------------

    def extend(self, chunks: list[bytes], size: int) -> None:
        """
        Take data that continues the stream; there must be no islands.

        @param chunks: payloads in order, none empty.
        @param size: bytes in all of them.
        """
        self._chunks += chunks
        self.next += size
        self.readable += size
        self._bound()

    def read(self, limit: int | None = None) -> bytes:
        """
        Take bytes out of the front of the stream.

        @param limit: most bytes to return, and sometimes less, though there is more;
            L{None} for all that there is.
        """
        chunks, first, offset = self._chunks, self._first, self._offset
        if not self.readable or (limit is not None and limit <= 0):
            return b""
        data = chunks[first]
        if limit is not None and len(data) - offset > limit:
            # Only a part of the first one; the rest stays where it is.
            self._offset = offset + limit
            self.readable -= limit
            return data[offset : offset + limit]
        if offset:
            chunks[first] = data[offset:]
            self._offset = 0
        if limit is None or limit >= self.readable:
            taken = chunks[first:] if first else chunks
            self._chunks = []
            self._first = self.readable = 0
            return taken[0] if len(taken) == 1 else b"".join(taken)
        size, stop = 0, first
        while size + len(chunks[stop]) <= limit:
            size += len(chunks[stop])
            stop += 1
        # Whole chunks only: what is left need not be moved.
        taken = chunks[first:stop]
        self.readable -= size
        if stop > _DEAD and 2 * stop > len(chunks):
            del chunks[:stop]
            self._first = 0
        else:
            chunks[first:stop] = [b""] * len(taken)
            self._first = stop
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def clear(self) -> None:
        """Drop everything that was not read."""
        self._chunks = []
        self._first = self._offset = 0
        self.readable = 0
        self._starts = []
        self._islands = []
        self._recent = []

    def _bound(self) -> None:
        """Join the chunks if they are many and small."""
        chunks, first = self._chunks, self._first
        if len(chunks) - first > _FREE_CHUNKS + self.readable // _LEAST_CHUNK:
            if self._offset:
                chunks[first] = chunks[first][self._offset :]
                self._offset = 0
            self._chunks = [b"".join(chunks[first:])]
            self._first = 0

    # -- out of order ------------------------------------------------------

    @property
    def hasIslands(self) -> bool:
        """Whether anything waits beyond a gap."""
        return bool(self._starts)

    @property
    def highest(self) -> int:
        """Position just past the highest byte that arrived."""
        if not self._starts:
            return self.next
        return self._islands[-1].end

    def insert(self, start: int, data: bytes) -> int:
        """
        Take data from anywhere in the stream, not beyond the window.

        @param start: position of its first byte.
        @return: how far L{next} moved.
        """
        before = self.next
        if start < before:
            data = data[before - start :]
            start = before
        if not data:
            return 0
        if start > before:
            self._addIsland(start, data)
            return 0
        if self._starts and start + len(data) >= self._starts[0]:
            # The gap is filled: what the first islands hold stays as it is.
            self._append(data[: self._starts[0] - start])
            while self._starts and self._starts[0] <= self.next:
                self._appendIsland()
                end = start + len(data)
                if self.next < end:
                    # The segment reaches beyond the island that it covers.
                    stop = min(end, self._starts[0]) if self._starts else end
                    self._append(data[self.next - start : stop - start])
        else:
            self._append(data)
        return self.next - before

    def blocks(self, limit: int) -> list[tuple[int, int]]:
        """
        The islands as SACK blocks, the one that changed last first.

        @param limit: most blocks to return.
        """
        starts, islands = self._starts, self._islands
        return [
            (start, islands[bisect_left(starts, start)].end)
            for start in self._recent[:limit]
        ]

    def _append(self, data: bytes) -> None:
        self._chunks.append(data)
        self.next += len(data)
        self.readable += len(data)
        self._bound()

    def _appendIsland(self) -> None:
        """The first island has become part of what is in order."""
        island = self._islands.pop(0)
        self._recent.remove(self._starts.pop(0))
        self._chunks += island.pieces()
        self.readable += island.end - self.next
        self.next = island.end
        self._bound()

    def _addIsland(self, start: int, data: bytes) -> None:
        starts, islands = self._starts, self._islands
        end = start + len(data)
        # The islands that the new data touches are first <= at < last.
        first = bisect_right(starts, start)
        if first and islands[first - 1].end >= start:
            first -= 1
        last = bisect_right(starts, end, first)
        if first == last:
            if len(starts) >= MAX_ISLANDS:
                self.refused += 1
                return
            starts.insert(first, start)
            islands.insert(first, Island(data, end))
            self._recent.insert(0, start)
            return
        for touched in starts[first:last]:
            self._recent.remove(touched)
        # The one of most pieces stays, and takes the others in.
        kept = first
        for at in range(first + 1, last):
            if len(islands[at]) > len(islands[kept]):
                kept = at
        island, low = islands[kept], starts[kept]
        for at in range(kept - 1, first - 1, -1):
            # Only the gaps between islands are filled from the new data.
            island.prepend(data[islands[at].end - start : low - start])
            island.prependAll(islands[at])
            low = starts[at]
        if start < low:
            island.prepend(data[: low - start])
            low = start
        for at in range(kept + 1, last):
            island.append(data[island.end - start : starts[at] - start])
            island.appendAll(islands[at])
        if island.end < end:
            island.append(data[island.end - start :])
        island.bound(low)
        starts[first:last] = [low]
        islands[first:last] = [island]
        self._recent.insert(0, low)

"""
What arrived from the peer: the stream in order, and islands out of order.

The part in order is a list of chunks, which one read joins.  Out-of-order data
waits in islands: disjoint, never touching pieces above the first gap.  Where
segments overlap, the bytes that came first stay.

Reference: RFC 9293 section 3.10.7.4, RFC 2018 section 4.
"""

from __future__ import annotations

from bisect import bisect_right

MAX_ISLANDS = 256
"""Islands that one flow keeps; a segment that would make another is dropped."""

_LEAST_CHUNK = 256
"""Mean size in bytes below which chunks are joined, to bound their overhead."""

_FREE_CHUNKS = 64


class ReceiveBuffer:
    """
    The incoming stream of one flow.

    @ivar next: position of the first byte that has not arrived in order.
    @ivar readable: bytes in order that wait to be read.
    @ivar refused: segments dropped because there were too many islands.
    """

    __slots__ = (
        "_chunks",
        "_datas",
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
        self._chunks: list[bytes] = []
        # How much of the first chunk was read.
        self._offset = 0
        # Islands: sorted starts, and the bytes of each at the same index.
        self._starts: list[int] = []
        self._datas: list[bytearray] = []
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
        if len(self._chunks) > _FREE_CHUNKS + self.readable // _LEAST_CHUNK:
            self._join()

    def read(self, limit: int | None = None) -> bytes:
        """
        Take bytes out of the front of the stream.

        @param limit: most bytes to return, and sometimes less, though there is more;
            L{None} for all that there is.
        """
        chunks = self._chunks
        if not chunks or (limit is not None and limit <= 0):
            return b""
        offset = self._offset
        first = chunks[0]
        if limit is not None and len(first) - offset > limit:
            # Only a part of the first one; the rest stays where it is.
            self._offset = offset + limit
            self.readable -= limit
            return first[offset : offset + limit]
        if offset:
            chunks[0] = first[offset:]
            self._offset = 0
        if limit is None or limit >= self.readable:
            self._chunks = []
            self.readable = 0
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        size = count = 0
        while size + len(chunks[count]) <= limit:
            size += len(chunks[count])
            count += 1
        # Whole chunks only: what is left need not be moved.
        self._chunks = chunks[count:]
        self.readable -= size
        return chunks[0] if count == 1 else b"".join(chunks[:count])

    def clear(self) -> None:
        """Drop everything that was not read."""
        self._chunks = []
        self._offset = 0
        self.readable = 0
        self._starts = []
        self._datas = []
        self._recent = []

    def _join(self) -> None:
        chunks = self._chunks
        if self._offset:
            chunks[0] = chunks[0][self._offset :]
            self._offset = 0
        self._chunks = [b"".join(chunks)]

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
        return self._starts[-1] + len(self._datas[-1])

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
                island = self._removeIsland(0)
                self._append(bytes(island))
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
        found = []
        for start in self._recent[:limit]:
            at = bisect_right(self._starts, start) - 1
            found.append((start, start + len(self._datas[at])))
        return found

    def _append(self, data: bytes) -> None:
        self._chunks.append(data)
        self.next += len(data)
        self.readable += len(data)
        if len(self._chunks) > _FREE_CHUNKS + self.readable // _LEAST_CHUNK:
            self._join()

    def _removeIsland(self, at: int) -> bytearray:
        self._recent.remove(self._starts.pop(at))
        return self._datas.pop(at)

    def _addIsland(self, start: int, data: bytes) -> None:
        starts = self._starts
        datas = self._datas
        end = start + len(data)
        # The islands that the new data touches are first <= at < last.
        first = bisect_right(starts, start)
        if first and starts[first - 1] + len(datas[first - 1]) >= start:
            first -= 1
        last = bisect_right(starts, end, first)
        if first == last:
            if len(starts) >= MAX_ISLANDS:
                self.refused += 1
                return
            starts.insert(first, start)
            datas.insert(first, bytearray(data))
            self._recent.insert(0, start)
            return
        self._recent.remove(starts[first])
        if starts[first] <= start:
            # Mostly so: the segment after the newest one.
            start = starts[first]
            merged = datas[first]
        else:
            merged = bytearray(data[: starts[first] - start])
            merged += datas[first]
        origin = end - len(data)
        for at in range(first + 1, last):
            # Only the gaps between islands are filled from the new data.
            merged += data[start + len(merged) - origin : starts[at] - origin]
            merged += datas[at]
            self._recent.remove(starts[at])
        reached = start + len(merged)
        if reached < end:
            merged += data[reached - origin :]
        starts[first:last] = [start]
        datas[first:last] = [merged]
        self._recent.insert(0, start)

"""
The tier on NumPy: headers and checksums of a run in a few vectorised passes.

Sealing and opening stay with C{cryptography}, one message at a time.
"""

from __future__ import annotations

import struct

import numpy as np

from tsrt.dataplane.coalesce import Beginning, coalesce, plainAlike
from tsrt.dataplane.plain import MASK, PlainOpener, PlainSealer, paddingOf
from tsrt.dataplane.runs import Arrived, SealedRun, SegmentRun
from tsrt.wire.checksum import onesSum
from tsrt.wire.tcp import HEADER_LENGTH

LEAST_SEGMENTS = 6
"""Segments of a run below which vectorising costs more than it saves."""

DISPATCHED = 392
"""Segments that a run mostly has at most."""

_WORD = np.dtype("<u4")
_SWAP = 256
"""Little-endian words, multiplied, have the sum of big-endian ones modulo 65535."""


class Arena:
    """
    Room for the packets of a run, and slices of it that are made only once.

    @ivar packets: one packet a row.
    @ivar rows: each row as a buffer.
    """

    __slots__ = ("packets", "rows")

    def __init__(self, count: int, size: int) -> None:
        """
        @param count: how many packets.
        @param size: bytes of each, with its padding.
        """
        self.packets = np.zeros((count, size), np.uint8)
        whole = memoryview(self.packets.data).cast("B")
        self.rows = [whole[at * size : (at + 1) * size] for at in range(count)]


class Arenas:
    """Arenas by the size of their packets; those that were made last are kept."""

    __slots__ = ("_kept",)

    MOST = 4

    def __init__(self) -> None:
        self._kept: dict[int, Arena] = {}

    def get(self, count: int, size: int) -> Arena:
        """An arena for at least C{count} packets of some size."""
        arena = self._kept.get(size)
        if arena is None or len(arena.rows) < count:
            if len(self._kept) >= self.MOST:
                self._kept.pop(next(iter(self._kept)))
            arena = self._kept[size] = Arena(max(count, DISPATCHED), size)
        return arena


class FastSealer(PlainSealer):
    """See L{Sealer<tsrt.dataplane.interface.Sealer>}."""

    __slots__ = ("_arenas",)

    def __init__(self, key: bytes, arenas: Arenas) -> None:
        """
        @param key: 32 bytes.
        """
        super().__init__(key)
        self._arenas = arenas

    def sealRun(
        self, run: SegmentRun, prefix: bytes, counter: int, mtu: int
    ) -> SealedRun:
        """See L{Sealer.sealRun<tsrt.dataplane.interface.Sealer.sealRun>}."""
        payload, mss = run.payload, run.mss
        before = (len(payload) - 1) // mss
        if before < LEAST_SEGMENTS or mss % 4:
            return super().sealRun(run, prefix, counter, mtu)
        builder, options, window, ack = run.builder, run.options, run.window, run.ack
        end = before * mss
        headerLength = HEADER_LENGTH + len(options)
        bits = headerLength << 10 | run.flags
        full = headerLength + mss
        front = builder.front(full)
        fixed = builder.fixedSum + full + ack + bits + window + onesSum(options)
        cut = len(front)
        start = cut + HEADER_LENGTH - 4 + len(options)
        size = start + mss + len(paddingOf(start + mss, mtu))

        arena = self._arenas.get(before, size)
        packets = arena.packets[:before]
        data = np.frombuffer(payload, np.uint8, end).reshape(before, mss)
        packets[:, start : start + mss] = data
        # Everything that all of them share, and what differs after that.
        template = b"".join(
            (
                front,
                bytes(4),
                struct.pack("!IHHHH", ack, bits, window, 0, 0),
                options,
            )
        )
        packets[:, :start] = np.frombuffer(template, np.uint8)
        sequence = (np.arange(before, dtype=np.uint64) * mss + run.seq) & MASK
        packets[:, cut : cut + 4] = (
            sequence.astype(">u4").view(np.uint8).reshape(before, 4)
        )
        words = data.view(_WORD).sum(axis=1, dtype=np.uint64)
        totals = words % 65535 * _SWAP + sequence + fixed
        sums = (65535 - totals % 65535) % 65535
        packets[:, cut + 12 : cut + 14] = (
            sums.astype(">u2").view(np.uint8).reshape(before, 2)
        )
        return self._sealAll(run, arena.rows[:before], prefix, counter, mtu)


def fastAlike(
    first: Beginning, plaintexts: list[bytes], at: int
) -> tuple[int, list[bytes]]:
    """See L{Alike<tsrt.dataplane.coalesce.Alike>}."""
    packet, cut, start = first.packet, first.cut, first.start
    size = len(packet)
    rows = plaintexts[at - 1 :]
    while len(rows) > LEAST_SEGMENTS and len(rows[-1]) != size:
        # Mostly it is the last one only that is shorter.
        rows.pop()
    count = len(rows)
    if count <= LEAST_SEGMENTS or size % 4:
        return plainAlike(first, plaintexts, at)
    whole = b"".join(rows)
    if len(whole) != count * size or len(rows[0]) != size:
        return plainAlike(first, plaintexts, at)
    packets = np.frombuffer(whole, np.uint8).reshape(count, size)
    heads = packets[:, :start].copy()
    sequence = heads[:, cut : cut + 4].copy().view(">u4")[:, 0]
    # Sequence number, checksum and urgent pointer are of each segment's own.
    heads[:, cut : cut + 4] = 0
    heads[:, cut + 12 : cut + 16] = 0
    expected = (np.arange(count, dtype=np.uint64) * (size - start) + first.seq) & MASK
    sums = packets.view(_WORD).sum(axis=1, dtype=np.uint64) % 65535
    good = (heads == heads[0]).all(axis=1) & (sequence == expected) & (sums == sums[0])
    if not good.all():
        count = int(good.argmin())
    taken = packets[1:count, start:].tobytes()
    return count - 1, [taken] if taken else []


class FastOpener(PlainOpener):
    """See L{Opener<tsrt.dataplane.interface.Opener>}."""

    __slots__ = ()

    def _coalesce(self, plaintexts: list[bytes]) -> tuple[list[Arrived], int]:
        return coalesce(plaintexts, fastAlike)


class FastTier:
    """See L{Tier<tsrt.dataplane.interface.Tier>}."""

    name = "fast"

    def __init__(self) -> None:
        self._arenas = Arenas()

    def sealer(self, key: bytes) -> FastSealer:
        """See L{Tier.sealer<tsrt.dataplane.interface.Tier.sealer>}."""
        return FastSealer(key, self._arenas)

    def opener(self, key: bytes) -> FastOpener:
        """See L{Tier.opener<tsrt.dataplane.interface.Tier.opener>}."""
        return FastOpener(key)

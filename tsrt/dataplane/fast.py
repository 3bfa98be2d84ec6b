"""
The tier on NumPy: headers and checksums of a run in a few vectorised passes.

Sealing and opening stay with C{cryptography}, one message at a time, but from one
large buffer to another, so that nothing is made for a single message.
"""

from __future__ import annotations

import struct
from collections import deque
from itertools import repeat
from typing import Any, TypeVar
from weakref import ref

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from numpy.typing import NDArray

from tsrt.dataplane.coalesce import Beginning, coalesce, cutToLength
from tsrt.dataplane.interface import Opened
from tsrt.dataplane.plain import MASK, PlainOpener, PlainSealer, paddingOf
from tsrt.dataplane.runs import Arrived, ArrivedRun, DatagramRun, SealedRun, SegmentRun
from tsrt.wire.tcp import ACK, HEADER_LENGTH, PSH
from tsrt.wire.wireguard import MIN_TRANSPORT_LENGTH, TRANSPORT_HEADER_LENGTH

LEAST_SEALED = 4
"""Segments of a run below which vectorising costs more than it saves."""

LEAST_OPENED = 4
"""The same for messages that arrive."""

_LEAST_PLAINTEXT = 40
"""Bytes of a plaintext below which it holds no data."""

_TAG_LENGTH = MIN_TRANSPORT_LENGTH - TRANSPORT_HEADER_LENGTH

_WORD = np.dtype("<u4")
_COUNTER = np.dtype("<u8")
_PLACE = np.dtype(">u4")
_HALF = np.dtype("<u2")

_NOTHING = 65535 << 32
"""No sum of the words of a packet is larger, and it is zero modulo 65535."""

# The sequence number before it is of each segment's own.
_afterPorts = struct.Struct("!4xIHHHH").pack


class Table:
    """
    Rows of bytes in one piece, and slices that are made only once.

    @ivar size: bytes of each row, as far as they are in use.
    @ivar array: the rows.
    @ivar flat: all of it as one row.
    @ivar rows: what is sealed or opened in each row, as a buffer.
    """

    __slots__ = ("_lent", "array", "flat", "rows", "size")

    START = 0
    """Offset in a row of what is sealed or opened."""

    MULTIPLE = 1
    """What the distance from one row to the next is a multiple of."""

    def __init__(self, count: int, size: int) -> None:
        """
        @param count: how many rows.
        @param size: bytes of each.
        """
        width = -(-size // self.MULTIPLE) * self.MULTIPLE
        self.size = size
        self.array = np.zeros((count, width), np.uint8)
        self.flat = self.array.reshape(-1)
        whole = self.flat.data
        self.rows = [
            whole[at + self.START : at + size] for at in range(0, count * width, width)
        ]
        self._lent: ref[NDArray[np.uint8]] | None = None

    @property
    def isFree(self) -> bool:
        """Whether nobody has anything of what was lent."""
        return self._lent is None or self._lent() is None

    def lend(self, length: int) -> memoryview:
        """
        The first bytes, for others to keep for as long as they want.

        Nobody is to write to the table until it is free again.
        """
        # Buffers that are cut from a buffer all keep the array that it is of.
        lent = self.flat[:length]
        self._lent = ref(lent)
        return lent.data


class Messages(Table):
    """
    Room for transport messages, one right behind the other.

    @ivar prefixes: what each begins with, as a number.
    @ivar counters: the counter of each.
    """

    __slots__ = ("counters", "prefixes")

    START = TRANSPORT_HEADER_LENGTH

    def __init__(self, count: int, size: int) -> None:
        """See L{Table}."""
        super().__init__(count, size)
        flat, distance = self.flat, (size,)
        self.prefixes = np.ndarray((count,), _COUNTER, flat, 0, distance)
        self.counters = np.ndarray((count,), _COUNTER, flat, 8, distance)


class Plaintexts(Table):
    """
    Room for what is in transport messages.

    @ivar words: the rows in words, as sums of them are made.
    @ivar halves: the same in words of half the size.
    @ivar places: the same in words as sequence numbers are.
    @ivar sizes: bytes in each row that was opened.
    """

    __slots__ = ("halves", "places", "sizes", "words")

    MULTIPLE = _WORD.itemsize

    def __init__(self, count: int, size: int) -> None:
        """See L{Table}."""
        super().__init__(count, size)
        self.words = self.array.view(_WORD)
        self.halves = self.array.view(_HALF)
        self.places = self.array.view(_PLACE)
        self.sizes: list[int] = []

    def plaintext(self, at: int) -> bytes:
        """What was opened to a row."""
        return bytes(self.rows[at][: self.sizes[at]])

    def sums(self, begin: int, end: int, start: int, stop: int) -> NDArray[np.uint64]:
        """
        Sums of bytes, taken as little-endian words, in each of some rows.

        @param begin: the first row.
        @param end: the row to stop before.
        @param start: the first byte of each; a multiple of 4.
        @param stop: the byte to stop before.
        """
        words, rest = self.words[begin:end], stop & 3
        totals: NDArray[np.uint64] = np.add.reduce(
            words[:, start >> 2 : stop >> 2], axis=1, dtype=np.uint64
        )
        if rest:
            totals += words[:, stop >> 2] & ((1 << 8 * rest) - 1)
        return totals


class Nonces:
    """
    Room for nonces.

    @ivar rows: each as a buffer.
    """

    __slots__ = ("_counters", "rows")

    SIZE = 12

    def __init__(self) -> None:
        self._make(64)

    def _make(self, count: int) -> None:
        size = self.SIZE
        whole = np.zeros(count * size, np.uint8)
        view = whole.data
        self._counters = np.ndarray((count,), _COUNTER, whole, size - 8, (size,))
        self.rows = [view[at : at + size] for at in range(0, count * size, size)]

    def fill(self, counters: NDArray[np.uint64]) -> None:
        """Make the first ones those for some counters."""
        count = len(counters)
        if count > len(self.rows):
            self._make(2 * count)
        self._counters[:count] = counters


_T = TypeVar("_T", bound=Table)


class Desk:
    """
    What all sealers and openers of a tier do their work on, one after the other.

    @ivar nonces: those of the run at hand.
    """

    __slots__ = ("_tables", "nonces")

    MOST = 12
    """Tables that are kept: those that were made last."""

    STEP = 64
    """What the number of rows of a table is a multiple of."""

    def __init__(self) -> None:
        self._tables: list[Table] = []
        self.nonces = Nonces()

    def table(self, kind: type[_T], count: int, size: int) -> _T:
        """A table to write to, with C{count} rows or more."""
        for table in self._tables:
            if (
                table.size == size
                and isinstance(table, kind)
                and len(table.rows) >= count
                and table.isFree
            ):
                return table
        if len(self._tables) >= self.MOST:
            del self._tables[0]
        made = kind(-(-count // self.STEP) * self.STEP, size)
        self._tables.append(made)
        return made


class FastSealer(PlainSealer):
    """See L{Sealer<tsrt.dataplane.interface.Sealer>}."""

    __slots__ = ("_desk", "_encryptInto", "_key")

    def __init__(self, key: bytes, desk: Desk) -> None:
        """
        @param key: 32 bytes.
        """
        super().__init__(key)
        self._key = key
        self._desk = desk
        # Most sessions never see a run.
        self._encryptInto: Any = None

    def sealRun(
        self, run: SegmentRun, prefix: bytes, counter: int, mtu: int
    ) -> SealedRun:
        """See L{Sealer.sealRun<tsrt.dataplane.interface.Sealer.sealRun>}."""
        count, mss = run.count, run.mss
        if count < LEAST_SEALED:
            return super().sealRun(run, prefix, counter, mtu)
        if self._encryptInto is None:
            self._encryptInto = ChaCha20Poly1305(self._key).encrypt_into
        encryptInto, desk = self._encryptInto, self._desk
        # The last one is like the others if it has as much data.
        full = len(run.payload) // mss
        padded = run.builder.overhead + len(run.options) + mss
        padded += len(paddingOf(padded, mtu))
        packets = desk.table(Plaintexts, full, padded)
        _build(run, packets, full)
        size = padded + MIN_TRANSPORT_LENGTH
        messages = desk.table(Messages, count, size)
        counters = np.arange(counter, counter + count, dtype=np.uint64)
        messages.prefixes[:count] = int.from_bytes(prefix, "little")
        messages.counters[:count] = counters
        desk.nonces.fill(counters)
        nonces, rooms = desk.nonces.rows, messages.rows
        deque(map(encryptInto, nonces[:full], packets.rows, repeat(None), rooms), 0)
        length = full * size
        if full < count:
            last = run.builder.build(
                (run.seq + full * mss) & MASK,
                run.ack,
                run.flags | run.lastFlags,
                run.window,
                run.options,
                run.payload[full * mss :],
            )
            last += paddingOf(len(last), mtu)
            room = rooms[full][: len(last) + _TAG_LENGTH]
            encryptInto(nonces[full], last, None, room)
            length += len(last) + MIN_TRANSPORT_LENGTH
        return SealedRun([messages.lend(length)], size, count, length, 0)


def _build(run: SegmentRun, table: Plaintexts, full: int) -> None:
    """
    Build packets of a run, padded.

    @param table: where to.
    @param full: how many, from the first on; all have the same size.
    """
    builder, options, mss, seq = run.builder, run.options, run.mss, run.seq
    headerLength = HEADER_LENGTH + len(options)
    length = headerLength + mss
    front = builder.front(length)
    cut = len(front)
    start = cut - 4 + headerLength
    end = start + mss
    packets = table.array[:full]
    bits = headerLength << 10 | run.flags
    # In place of the checksum is what is summed besides for now.
    besides = (builder.fixedSum + length) % 65535
    template = front + _afterPorts(run.ack, bits, run.window, besides, 0) + options
    packets[:, :start] = np.frombuffer(template, np.uint8)
    payload = np.frombuffer(run.payload, np.uint8, full * mss)
    packets[:, start:end] = payload.reshape(full, mss)
    if end < table.size:
        packets[:, end : table.size] = 0
    places = np.arange(seq, seq + full * mss, mss, dtype=np.uint64)
    table.places[:full, cut >> 2] = places
    if full == run.count:
        packets[-1, cut + 9] |= run.lastFlags
    totals = table.sums(0, full, cut, end)
    np.subtract(_NOTHING, totals, out=totals)
    totals %= 65535
    # Of little-endian words, and stored as one, it is the same.
    table.halves[:full, cut + 12 >> 1] = totals


def _ignoreIdentification(heads: NDArray[np.uint32]) -> None:
    """Make the identification, and the checksum, of IPv4 headers the first one's."""
    halves = heads.view(_HALF)
    halves[:, 2] = halves[0, 2]
    halves[:, 5] = halves[0, 5]


class BeginningInTable(Beginning):
    """The first segment of what may become a run, in a row of a table."""

    __slots__ = ()

    def runIn(
        self, table: Plaintexts, view: memoryview, at: int, full: int
    ) -> ArrivedRun | None:
        """
        Take the segments that follow.

        @param view: what was lent of the table.
        @param at: the row.
        @param full: how many rows are full, from the first on.
        @return: L{None} if none follows.
        """
        packet, cut, start = self.packet, self.cut, self.start
        end = len(packet)
        mss = end - start
        # It may be the last one only that has PSH.
        flags = table.array[at:full, cut + 9].tobytes()
        count = flags.find(ACK | PSH) + 1 or full - at
        count = self._right(table, at, *self._alike(table, at, count))
        if flags[count - 1] & PSH:
            self._flags |= PSH
        size = 0
        after = at + count
        if after < len(table.sizes) and not self._flags & PSH:
            # It may be shorter, and the last one then.
            candidate = table.plaintext(after)
            size = self._almost(candidate, (self.seq + count * mss) & MASK)
        if count == 1 and not size:
            return None
        payload = table.array[at:after, start:end].tobytes()
        if size:
            payload += candidate[start : start + size]
            count += 1
        width = table.array.shape[1]
        return ArrivedRun(
            (view[at * width : (at + count) * width], width),
            packet[:start],
            payload,
            mss,
            count,
            self.seq,
            self._ack,
            self._flags,
            self._window,
            self._options,
        )

    def _alike(self, table: Plaintexts, at: int, count: int) -> tuple[int, bool]:
        """
        Look for headers that are as they have to be, whatever their checksums are.

        @param count: rows to look at; all but the last have no PSH.
        @return: how many are, with the first one, and whether the checksums of
            their IP headers are certain to be right.
        """
        packet, cut, start = self.packet, self.cut, self.start
        column = cut >> 2
        mss = len(packet) - start
        words = table.words[at : at + count, : start >> 2]
        places = np.arange(
            self.seq, self.seq + count * mss, mss, dtype=np.uint64
        ).astype(_PLACE)
        # What each segment has for itself is made the same: sequence number,
        # checksum, the urgent pointer that nobody looks at, and the PSH of the last.
        heads = words.copy()
        heads[:, column] = heads[0, column]
        heads[:, column + 3] = heads[0, column + 3]
        heads.view(np.uint8)[-1, cut + 9] &= ~PSH & 0xFF
        # With some systems it is the identification, too, and the checksum of IP.
        isSame = cut != 24 or table.array[at + 1, 4:6].tobytes() == packet[4:6]
        if not isSame:
            _ignoreIdentification(heads)
        if (
            heads.tobytes() == packet[:start] * count
            and words[:, column].tobytes() == places.tobytes()
        ):
            return count, isSame
        if cut == 24 and isSame:
            _ignoreIdentification(heads)
        differing = heads ^ heads[0]
        differing[:, column] = words[:, column] ^ places.view(_WORD)
        # Zeros, up to the first difference.
        rest = len(differing.tobytes().lstrip(b"\0"))
        return (count * start - rest) // start, cut != 24

    def _right(self, table: Plaintexts, at: int, count: int, isSame: bool) -> int:
        """
        Look for right checksums.

        @param count: rows to look at, whose headers are right otherwise.
        @param isSame: whether those of their IP headers are certain to be.
        @return: how many have them, with the first one.
        """
        # With the same length and header, right checksums mean the same sum of
        # everything.
        sums = table.sums(at, at + count, 0, len(self.packet))
        sums %= 65535
        wrong = sums != sums[0]
        if not isSame:
            # The words with identification and checksum; the others are the same.
            words = table.words[at : at + count]
            pairs = np.add(words[:, 1], words[:, 2], dtype=np.uint64)
            pairs %= 65535
            wrong |= pairs != pairs[0]
        found = wrong.tobytes().find(1)
        return count if found < 0 else found


class FastOpener(PlainOpener):
    """See L{Opener<tsrt.dataplane.interface.Opener>}."""

    __slots__ = ("_decryptInto", "_desk", "_key")

    def __init__(self, key: bytes, desk: Desk) -> None:
        """
        @param key: 32 bytes.
        """
        super().__init__(key)
        self._key = key
        self._desk = desk
        self._decryptInto: Any = None

    def openRun(self, run: DatagramRun, first: int, counter: int) -> Opened:
        """See L{Opener.openRun<tsrt.dataplane.interface.Opener.openRun>}."""
        data, size, start = run.data, run.size, first * run.size
        count, inner = run.count - first, size - MIN_TRANSPORT_LENGTH
        lastSize = len(data) - start - (count - 1) * size
        if lastSize < MIN_TRANSPORT_LENGTH:
            # It holds no tag.
            count, lastSize = count - 1, size
        if count < LEAST_OPENED or inner < _LEAST_PLAINTEXT:
            return super().openRun(run, first, counter)
        counters = np.arange(counter, counter + count, dtype=np.uint64)
        theirs = np.ndarray((count,), _COUNTER, data, start + 8, (size,))
        wrong = (theirs != counters).tobytes().find(1)
        if wrong == 0:
            return Opened(0, [], 0, 0)
        if wrong > 0:
            count, lastSize = wrong, size
        if self._decryptInto is None:
            self._decryptInto = ChaCha20Poly1305(self._key).decrypt_into
        desk = self._desk
        # To copy them all costs less than a slice of each, which is here already.
        messages = desk.table(Messages, count, size)
        length = (count - 1) * size + lastSize
        messages.flat[:length] = np.frombuffer(data, np.uint8, length, start)
        plaintexts = desk.table(Plaintexts, count, inner)
        desk.nonces.fill(counters[:count])
        sealed, rooms = messages.rows[:count], plaintexts.rows
        if lastSize < size:
            sealed[-1] = sealed[-1][: lastSize - TRANSPORT_HEADER_LENGTH]
            rooms = rooms[:count]
            rooms[-1] = rooms[-1][: lastSize - MIN_TRANSPORT_LENGTH]
        sizes: list[int] = []
        try:
            # What comes before a failure is kept: authentic is authentic.
            sizes.extend(
                map(self._decryptInto, desk.nonces.rows, sealed, repeat(None), rooms)
            )
        except InvalidTag:
            pass
        taken = len(sizes)
        if taken and not sizes[-1]:
            # Where others hold something, only the last one can be empty.
            sizes.pop()
        plaintexts.sizes = sizes
        items, dropped = _packetsIn(plaintexts)
        return Opened(taken, items, taken - len(sizes), dropped)


def _packetsIn(table: Plaintexts) -> tuple[list[Arrived], int]:
    """
    See L{coalesce}.

    @param table: with what was opened.
    """
    count, rows = len(table.sizes), table.rows
    # Only the last one may be shorter.
    full = count - (count > 0 and table.sizes[-1] < table.size)
    view = table.lend(count * table.array.shape[1])
    items: list[Arrived] = []
    dropped = at = 0
    following = b""
    while full - at >= LEAST_OPENED:
        plaintext = following or bytes(rows[at])
        following = bytes(rows[at + 1])
        packet = cutToLength(plaintext)
        if packet is None:
            dropped += 1
        else:
            if following[12:24] == packet[12:24]:
                # The same addresses and ports, or halves of the same addresses.
                begun = BeginningInTable.of(packet)
                if isinstance(begun, BeginningInTable):
                    run = begun.runIn(table, view, at, full)
                    if run is not None:
                        items.append(run)
                        at += run.count
                        following = b""
                        continue
            items.append(packet)
        at += 1
    if at < count:
        found, more = coalesce([table.plaintext(at) for at in range(at, count)])
        items += found
        dropped += more
    return items, dropped


class FastTier:
    """See L{Tier<tsrt.dataplane.interface.Tier>}."""

    name = "fast"

    def __init__(self) -> None:
        self._desk = Desk()

    def sealer(self, key: bytes) -> FastSealer:
        """See L{Tier.sealer<tsrt.dataplane.interface.Tier.sealer>}."""
        return FastSealer(key, self._desk)

    def opener(self, key: bytes) -> FastOpener:
        """See L{Tier.opener<tsrt.dataplane.interface.Tier.opener>}."""
        return FastOpener(key, self._desk)

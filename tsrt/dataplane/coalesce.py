"""
Finding runs among packets that came out of a session.

What was checked for the first packet of a run is not checked again for the rest:
predict, verify, fall out.  Whatever does not fit plainly stays a packet for itself
and takes the long way.

Reference: RFC 9293 section 3.1, RFC 1071.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import takewhile
from typing import TypeAlias

from tsrt.dataplane.runs import Arrived, ArrivedRun
from tsrt.errors import WireError
from tsrt.wire.checksum import onesSum, onesSums, verify
from tsrt.wire.ip import PROTOCOL_TCP
from tsrt.wire.tcp import ACK, NO_OPTIONS, PSH, Options, parseOptions

LEAST_PACKET = 20
"""Bytes of the smallest IP packet."""

_AFTER_PORTS = struct.Struct("!IIHH")
_IDENT_AND_CHECKSUM = struct.Struct("!4xH4xH")
_MASK = 0xFFFFFFFF

_WORTH_COLUMNS = 24
"""Packets from which on it is worth it to look at their headers byte by byte."""


def cutToLength(plaintext: bytes) -> bytes | None:
    """
    The packet in what a transport message held: the padding is cut off.

    @return: L{None} if there is none.
    """
    size = len(plaintext)
    if size < LEAST_PACKET:
        return None
    version = plaintext[0] >> 4
    if version == 4:
        length = plaintext[2] << 8 | plaintext[3]
    elif version == 6 and size >= 40:
        length = (plaintext[4] << 8 | plaintext[5]) + 40
    else:
        return None
    if length == size:
        return plaintext
    return plaintext[:length] if LEAST_PACKET <= length < size else None


def coalesce(
    plaintexts: list[bytes], alike: Alike | None = None
) -> tuple[list[Arrived], int]:
    """
    The packets in what transport messages of one session held, in order.

    @param plaintexts: with their padding, none empty.
    @param alike: finds what follows; L{plainAlike} unless there is better.
    @return: packets and runs, and how many plaintexts held no packet.
    """
    items: list[Arrived] = []
    dropped = at = 0
    count = len(plaintexts)
    while at < count:
        plaintext = plaintexts[at]
        packet = cutToLength(plaintext)
        at += 1
        if packet is None:
            dropped += 1
            continue
        if at < count and plaintexts[at][12:24] == plaintext[12:24]:
            # The same addresses and ports, or halves of the same addresses.
            begun = Beginning.of(packet)
            if begun is not None:
                taken = begun.follow(plaintexts, at, alike or plainAlike)
                if taken:
                    items.append(begun.run(plaintexts[at - 1 : at + taken]))
                    at += taken
                    continue
        items.append(packet)
    return items, dropped


class Beginning:
    """
    The first segment of what may become a run.

    @ivar packet: that packet.
    @ivar cut: offset just past the ports.
    @ivar start: offset of the payload.
    @ivar seq: its sequence number.
    """

    __slots__ = (
        "_ack",
        "_bits",
        "_chunks",
        "_count",
        "_flags",
        "_options",
        "_window",
        "cut",
        "packet",
        "seq",
        "start",
    )

    def __init__(self, packet: bytes, cut: int, start: int, options: Options) -> None:
        """
        @param cut: offset just past the ports.
        @param start: offset of the payload.
        """
        self.packet = packet
        self.cut = cut
        self.start = start
        self._options = options
        self.seq, self._ack, self._bits, self._window = _AFTER_PORTS.unpack_from(
            packet, cut
        )
        self._flags = self._bits & 0xFF
        self._chunks = [packet[start:]]
        self._count = 1

    @classmethod
    def of(cls, packet: bytes) -> Beginning | None:
        """
        See whether a packet is a plain data segment with right checksums, after
        which more may come.
        """
        size = len(packet)
        if packet[0] == 0x45:
            cut = 24
            if (
                size <= 40
                or packet[9] != PROTOCOL_TCP
                or packet[6] & 0x3F
                or packet[7]
                or not verify(packet[:20])
            ):
                return None
            addresses = 12
        elif packet[0] >> 4 == 6:
            cut = 44
            if size <= 60 or packet[6] != PROTOCOL_TCP:
                return None
            addresses = 8
        else:
            return None
        bits = packet[cut + 8] << 8 | packet[cut + 9]
        start = cut - 4 + (bits >> 12 << 2)
        if bits & 0xFFF != ACK or start < cut + 16 or start >= size:
            return None
        options = NO_OPTIONS
        if start > cut + 16:
            try:
                options = parseOptions(packet, cut + 16, start)
            except WireError:
                return None
        length = size - cut + 4
        if (onesSum(packet[addresses:]) + PROTOCOL_TCP + length) % 65535:
            return None
        return cls(packet, cut, start, options)

    def follow(self, plaintexts: list[bytes], at: int, alike: Alike) -> int:
        """
        Take the segments that follow.

        @return: how many of C{plaintexts}, from C{at} on, those are.
        """
        start = self.start
        mss = len(self.packet) - start
        taken, chunks = alike(self, plaintexts, at)
        self._chunks += chunks
        while at + taken < len(plaintexts):
            candidate = plaintexts[at + taken]
            size = self._almost(candidate, (self.seq + (taken + 1) * mss) & _MASK)
            if not size:
                break
            self._chunks.append(candidate[start : start + size])
            taken += 1
            if size < mss or self._flags & PSH:
                # It may be the last one only.
                break
        self._count += taken
        return taken

    def _almost(self, candidate: bytes, seq: int) -> int:
        """
        Whether a packet follows that is no exact likeness of the first: with
        another identification, shorter, or with PSH.

        @return: the size of its payload; 0 if it does not follow.
        """
        packet, cut, start = self.packet, self.cut, self.start
        found = cutToLength(candidate)
        if found is None or not start < len(found) <= len(packet):
            return 0
        if cut == 24:
            if (
                found[:2] != packet[:2]
                or found[6:10] != packet[6:10]
                or found[12:24] != packet[12:24]
                or not verify(found[:20])
            ):
                return 0
            addresses = 12
        else:
            if found[:4] != packet[:4] or found[6:44] != packet[6:44]:
                return 0
            addresses = 8
        theirs, ack, bits, window = _AFTER_PORTS.unpack_from(found, cut)
        if (
            theirs != seq
            or ack != self._ack
            or bits & ~PSH != self._bits
            or window != self._window
            or found[cut + 16 : start] != packet[cut + 16 : start]
        ):
            return 0
        length = len(found) - cut + 4
        if (onesSum(found[addresses:]) + PROTOCOL_TCP + length) % 65535:
            return 0
        self._flags |= bits & PSH
        return len(found) - start

    def run(self, plaintexts: list[bytes]) -> ArrivedRun:
        """The run, with the plaintexts that it was made of."""
        packet, start = self.packet, self.start
        return ArrivedRun(
            plaintexts,
            packet[:start],
            b"".join(self._chunks),
            len(packet) - start,
            self._count,
            self.seq,
            self._ack,
            self._flags,
            self._window,
            self._options,
        )


Alike: TypeAlias = Callable[[Beginning, list[bytes], int], tuple[int, list[bytes]]]
"""
Tells how many of some plaintexts, from an offset on, differ from the one before that
offset in nothing but what they have to differ in; and their payloads, in any pieces.
"""


def plainAlike(
    first: Beginning, plaintexts: list[bytes], at: int
) -> tuple[int, list[bytes]]:
    """See L{Alike}."""
    packet, cut, start = first.packet, first.cut, first.start
    full, size = len(packet), len(plaintexts[at - 1])
    mss = full - start
    candidates = plaintexts[at:]
    begin = first.seq + mss
    count = len(candidates) - 1
    if count >= _WORTH_COLUMNS and len(candidates[-1]) <= size:
        # The last one may be shorter.
        whole = b"".join(candidates[:count])
        if len(whole) == count * size and _areAlike(first, whole, size, count):
            return _asLongAsRight(packet, start, full, candidates[:count])
    # All that comes before the sequence number, and what comes behind the
    # acknowledgement up to the checksum.
    head, tail = packet[:cut], packet[cut + 4 : cut + 12]
    expected = [
        head + (seq & _MASK).to_bytes(4, "big") + tail
        for seq in range(begin, begin + len(candidates) * mss, mss)
    ]
    fits = [*map(bytes.startswith, candidates, expected)]
    if start > cut + 16:
        options = packet[cut + 16 : start]
        fits = [
            fit and candidate[cut + 16 : start] == options
            for fit, candidate in zip(fits, candidates, strict=True)
        ]
    if False in fits:
        candidates = candidates[: fits.index(False)]
    sizes = [*map(len, candidates)]
    if sizes.count(size) != len(sizes):
        candidates = [*takewhile(lambda found: len(found) == size, candidates)]
    return _asLongAsRight(packet, start, full, candidates)


def _areAlike(first: Beginning, whole: bytes, size: int, count: int) -> bool:
    """
    Whether packets have the header of the first one, but for what has to differ.

    Each byte of the header is looked at in all packets at once.

    @param whole: the packets, C{count} of them, of C{size} bytes each.
    """
    packet, cut, start = first.packet, first.cut, first.start
    for at in (*range(cut), *range(cut + 4, cut + 12), *range(cut + 16, start)):
        if whole[at::size].count(packet[at]) != count:
            return False
    mss = len(packet) - start
    begin = first.seq + mss
    places = [seq & _MASK for seq in range(begin, begin + count * mss, mss)]
    expected = struct.pack(f"!{count}I", *places)
    return all(whole[cut + at :: size] == expected[at::4] for at in range(4))


def _asLongAsRight(
    packet: bytes, start: int, full: int, candidates: list[bytes]
) -> tuple[int, list[bytes]]:
    """
    Those of some packets, with a right header each, whose checksum is right, up to
    the first that is not.

    @param packet: one that is right, and of their length.
    @param start: offset of the payload.
    @param full: bytes of each packet, without the padding behind it.
    @return: how many they are, and their payloads.
    """
    if candidates and len(candidates[0]) > full:
        candidates = [candidate[:full] for candidate in candidates]
    # With the same length and header, right checksums mean the same sum of
    # everything.
    right = onesSum(packet)
    taken = 0
    for total in onesSums(candidates):
        if total != right:
            break
        taken += 1
    return taken, [found[start:full] for found in candidates[:taken]]

"""
The plain tier: Python and the AEAD of C{cryptography}.  The reference for the others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import repeat

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tsrt.dataplane.coalesce import coalesce
from tsrt.dataplane.interface import Opened
from tsrt.dataplane.runs import Arrived, Buffer, DatagramRun, SealedRun, SegmentRun
from tsrt.wire.checksum import onesSum, onesSums
from tsrt.wire.tcp import HEADER_LENGTH
from tsrt.wire.wireguard import TRANSPORT_HEADER_LENGTH

_NONCE_PREFIX = bytes(4)
MASK = 0xFFFFFFFF

_nonceOf = struct.Struct("<4xQ").pack
_PADDING = [bytes(-size % 16) for size in range(16)]
_afterPorts = struct.Struct("!IIHHHH").pack


def paddingOf(size: int, mtu: int) -> bytes:
    """The zeros that follow a packet of C{size} bytes in its message."""
    return bytes(min(-size % 16, max(mtu - size, 0)))


class PlainSealer:
    """See L{Sealer<tsrt.dataplane.interface.Sealer>}."""

    __slots__ = ("_encrypt",)

    def __init__(self, key: bytes) -> None:
        """
        @param key: 32 bytes.
        """
        self._encrypt = ChaCha20Poly1305(key).encrypt

    def seal(
        self, packets: list[bytes], prefix: bytes, counter: int, mtu: int
    ) -> list[bytes]:
        """See L{Sealer.seal<tsrt.dataplane.interface.Sealer.seal>}."""
        encrypt = self._encrypt
        sealed = []
        for packet in packets:
            size = len(packet)
            rest = size & 15
            if rest:
                if size + 16 - rest <= mtu:
                    packet += _PADDING[rest]
                elif size < mtu:
                    packet += bytes(mtu - size)
            number = counter.to_bytes(8, "little")
            sealed.append(
                prefix + number + encrypt(_NONCE_PREFIX + number, packet, None)
            )
            counter += 1
        return sealed

    def sealRun(
        self, run: SegmentRun, prefix: bytes, counter: int, mtu: int
    ) -> SealedRun:
        """See L{Sealer.sealRun<tsrt.dataplane.interface.Sealer.sealRun>}."""
        builder, options, window = run.builder, run.options, run.window
        payload, mss, seq, ack = run.payload, run.mss, run.seq, run.ack
        headerLength = HEADER_LENGTH + len(options)
        bits = headerLength << 10 | run.flags
        full = headerLength + mss
        front = builder.front(full)
        fixed = builder.fixedSum + full + ack + bits + window + onesSum(options)
        padding = paddingOf(len(front) - 4 + full, mtu)
        before = (len(payload) - 1) // mss
        end = before * mss
        # Each step for all segments at once: half of the time goes into the loop
        # if it is one loop.
        pieces = [payload[at : at + mss] for at in range(0, end, mss)]
        places = [at & MASK for at in range(seq, seq + end, mss)]
        heads = [
            _afterPorts(at, ack, bits, window, -(fixed + at + total) % 65535, 0)
            for at, total in zip(places, onesSums(pieces), strict=True)
        ]
        parts = zip(repeat(front), heads, repeat(options), pieces, repeat(padding))
        packets = map(b"".join, parts)
        return self._sealAll(run, packets, prefix, counter, mtu)

    def _sealAll(
        self,
        run: SegmentRun,
        packets: Iterable[Buffer],
        prefix: bytes,
        counter: int,
        mtu: int,
    ) -> SealedRun:
        """
        Make transport messages of all packets of a run.

        @param packets: all but the last, with their padding; at least one.
        """
        encrypt = self._encrypt
        before = run.count - 1
        end = before * run.mss
        numbers = [
            number.to_bytes(8, "little") for number in range(counter, counter + before)
        ]
        buffers = [b""] * (2 * before + 2)
        buffers[:-2:2] = [prefix + number for number in numbers]
        buffers[1:-2:2] = map(
            encrypt,
            [_NONCE_PREFIX + number for number in numbers],
            packets,
            repeat(None),
        )
        last = run.builder.build(
            (run.seq + end) & MASK,
            run.ack,
            run.flags | run.lastFlags,
            run.window,
            run.options,
            run.payload[end:],
        )
        last += paddingOf(len(last), mtu)
        number = (counter + before).to_bytes(8, "little")
        buffers[-2] = prefix + number
        buffers[-1] = encrypt(_NONCE_PREFIX + number, last, None)
        size = TRANSPORT_HEADER_LENGTH + len(buffers[1])
        length = before * size + TRANSPORT_HEADER_LENGTH + len(buffers[-1])
        return SealedRun(buffers, size, before + 1, length, 2)


class PlainOpener:
    """See L{Opener<tsrt.dataplane.interface.Opener>}."""

    __slots__ = ("_decrypt",)

    def __init__(self, key: bytes) -> None:
        """
        @param key: 32 bytes.
        """
        self._decrypt = ChaCha20Poly1305(key).decrypt

    def open(self, datagram: bytes, counter: int) -> bytes | None:
        """See L{Opener.open<tsrt.dataplane.interface.Opener.open>}."""
        try:
            return self._decrypt(
                _nonceOf(counter), datagram[TRANSPORT_HEADER_LENGTH:], None
            )
        except InvalidTag:
            return None

    def openRun(self, run: DatagramRun, first: int, counter: int) -> Opened:
        """See L{Opener.openRun<tsrt.dataplane.interface.Opener.openRun>}."""
        data, size = run.data, run.size
        starts = range(first * size, len(data), size)
        count = inOrder(run, first, counter)
        nonces = [*map(_nonceOf, range(counter, counter + count))]
        plaintexts: list[bytes] = []
        try:
            # What comes before a failure is kept: authentic is authentic.
            plaintexts.extend(
                map(
                    self._decrypt,
                    nonces,
                    [data[at + 16 : at + size] for at in starts],
                    repeat(None),
                )
            )
        except InvalidTag:
            pass
        taken = len(plaintexts)
        if b"" in plaintexts:
            plaintexts = [plaintext for plaintext in plaintexts if plaintext]
        keepalives = taken - len(plaintexts)
        items, dropped = self._coalesce(plaintexts)
        return Opened(taken, items, keepalives, dropped)

    def _coalesce(self, plaintexts: list[bytes]) -> tuple[list[Arrived], int]:
        return coalesce(plaintexts)


def inOrder(run: DatagramRun, first: int, counter: int) -> int:
    """
    How many messages of a run, from C{first} on, count up from C{counter}.
    """
    count, data, size = run.count - first, run.data, run.size
    if len(data) - (run.count - 1) * size < TRANSPORT_HEADER_LENGTH:
        # Too short for a counter.
        count -= 1
    expected = struct.pack(f"<{count}Q", *range(counter, counter + count))
    start = first * size + 8
    # One slice for each byte of the counters, in place of one for each message.
    for at in range(8):
        if bytes(data[start + at :: size])[:count] != expected[at::8]:
            break
    else:
        return count
    for index in range(count):
        at = start + index * size
        if data[at : at + 8] != expected[8 * index : 8 * index + 8]:
            return index
    return count


class PlainTier:
    """See L{Tier<tsrt.dataplane.interface.Tier>}."""

    name = "plain"

    def sealer(self, key: bytes) -> PlainSealer:
        """See L{Tier.sealer<tsrt.dataplane.interface.Tier.sealer>}."""
        return PlainSealer(key)

    def opener(self, key: bytes) -> PlainOpener:
        """See L{Tier.opener<tsrt.dataplane.interface.Tier.opener>}."""
        return PlainOpener(key)

"""
The compiled tier: a run is cut, checked and sealed, or opened, in one call.

The calls release the interpreter's lock.  The AEAD is that of OpenSSL's libcrypto,
which is looked for when the tier is made: mostly it is the one that Python's own
C{ssl} module has loaded already.
"""

from __future__ import annotations

import struct
from ctypes.util import find_library
from typing import Any

from tsrt.dataplane._kernel import ffi, lib
from tsrt.dataplane.coalesce import cutToLength
from tsrt.dataplane.interface import Opened
from tsrt.dataplane.plain import PlainOpener, PlainSealer
from tsrt.dataplane.runs import (
    Arrived,
    ArrivedRun,
    DatagramRun,
    SealedRun,
    SegmentRun,
    packetsOf,
)
from tsrt.errors import WireError
from tsrt.wire.tcp import (
    ACK,
    HEADER_LENGTH,
    NO_OPTIONS,
    PSH,
    SegmentBuilder,
    parseOptions,
)
from tsrt.wire.wireguard import MIN_TRANSPORT_LENGTH

LIBRARIES = ("libcrypto.so.3", "libcrypto.3.dylib", "libcrypto.so.1.1")
"""Names that the library has, before the system is asked for others."""

_afterPorts = struct.Struct("!IIHHHH").pack
_SEQUENCE_TO_WINDOW = struct.Struct("!II2xH")

# Everything that is asked for is overwritten before it is read.
_allocate = ffi.new_allocator(should_clear_after_alloc=False)


def loadLibrary() -> str:
    """
    Find the library that seals.

    It has to do so before it is relied on: one that may not (as where only what FIPS
    allows is to be had) shows it when it is used, and not before.

    @return: its name.
    @raise ImportError: if there is none.
    """
    for name in (*LIBRARIES, find_library("crypto")):
        if name and lib.tsrt_kernel_load(name.encode()) == 0 and _isUsable():
            return name
    raise ImportError("there is no libcrypto with a ChaCha20-Poly1305 that works")


def _isUsable() -> bool:
    """Whether a run is sealed as by the plain tier, and opened again."""
    key, prefix, counter, mtu = bytes(range(32)), bytes(range(8)), 1 << 40, 1280
    builder = SegmentBuilder(bytes(4), 1, bytes(4), 2)
    run = SegmentRun(builder, 3, 4, ACK, 5, b"", bytes(range(90)), 60, PSH)
    expected = PlainSealer(key).sealRun(run, prefix, counter, mtu).messages()
    whole = b"".join(expected)
    forged = bytes((*whole[:-1], whole[-1] ^ 1))
    size = len(expected[0])
    opener = CompiledOpener(key, Room())
    try:
        sealed = CompiledSealer(key).sealRun(run, prefix, counter, mtu).messages()
        good = opener.openRun(DatagramRun(whole, size), 0, counter)
        bad = opener.openRun(DatagramRun(forged, size), 0, counter)
    except (AssertionError, MemoryError):
        return False
    payloads = [item.payload for item in good.items if isinstance(item, ArrivedRun)]
    return (
        sealed == expected
        and (good.taken, bad.taken) == (2, 1)
        and packetsOf(good.items) == run.packets()
        and payloads == [run.payload]
    )


def _cipher(key: bytes, *, seals: bool) -> Any:
    """A cipher that is freed with its last reference."""
    cipher = lib.tsrt_cipher_new(key, seals)
    if cipher == ffi.NULL:
        raise MemoryError("no cipher could be made")
    return ffi.gc(cipher, lib.tsrt_cipher_free)


class CompiledSealer(PlainSealer):
    """See L{Sealer<tsrt.dataplane.interface.Sealer>}."""

    __slots__ = ("_cipher", "_key")

    def __init__(self, key: bytes) -> None:
        """
        @param key: 32 bytes.
        """
        super().__init__(key)
        self._key = key
        # Most sessions never see a run.
        self._cipher: Any = None

    def sealRun(
        self, run: SegmentRun, prefix: bytes, counter: int, mtu: int
    ) -> SealedRun:
        """See L{Sealer.sealRun<tsrt.dataplane.interface.Sealer.sealRun>}."""
        if self._cipher is None:
            self._cipher = _cipher(self._key, seals=True)
        builder, options, payload, mss = run.builder, run.options, run.payload, run.mss
        headerLength = HEADER_LENGTH + len(options)
        front = builder.front(headerLength + mss)
        head = b"".join(
            (
                front,
                _afterPorts(
                    run.seq, run.ack, headerLength << 10 | run.flags, run.window, 0, 0
                ),
                options,
            )
        )
        full = len(head) + mss
        padded = max(full, min((full + 15) & ~15, mtu))
        size = padded + MIN_TRANSPORT_LENGTH
        count = run.count
        out = _allocate("uint8_t[]", count * size)
        length = lib.tsrt_seal_run(
            self._cipher,
            head,
            len(head),
            len(front) - 4,
            ffi.from_buffer(payload),
            len(payload),
            mss,
            run.lastFlags,
            prefix,
            counter,
            mtu,
            out,
            count * size,
        )
        if length < 0:
            raise AssertionError(f"the kernel sealed nothing of {run!r}: {length}")
        return SealedRun([memoryview(ffi.buffer(out, length))], size, count, length, 0)


class Room:
    """What the kernel writes to and nobody reads after the call."""

    __slots__ = ("items", "most", "opened", "payload", "size", "sizes")

    def __init__(self) -> None:
        self.opened = ffi.new("tsrt_opened *")
        self.most = self.size = 0
        self.items = self.sizes = self.payload = ffi.NULL

    def reserve(self, count: int, size: int) -> None:
        """Have room for so many messages, and for so many bytes of payload."""
        if count > self.most:
            self.most = max(count, 2 * self.most, 256)
            self.items = _allocate("tsrt_item[]", self.most)
            self.sizes = _allocate("int32_t[]", self.most)
        if size > self.size:
            self.size = max(size, 2 * self.size, 1 << 18)
            self.payload = _allocate("uint8_t[]", self.size)


class CompiledOpener(PlainOpener):
    """See L{Opener<tsrt.dataplane.interface.Opener>}."""

    __slots__ = ("_cipher", "_key", "_room")

    def __init__(self, key: bytes, room: Room) -> None:
        """
        @param key: 32 bytes.
        """
        super().__init__(key)
        self._key = key
        self._room = room
        self._cipher: Any = None

    def openRun(self, run: DatagramRun, first: int, counter: int) -> Opened:
        """See L{Opener.openRun<tsrt.dataplane.interface.Opener.openRun>}."""
        if self._cipher is None:
            self._cipher = _cipher(self._key, seals=False)
        count = run.count - first
        stride = run.size - MIN_TRANSPORT_LENGTH
        if stride < 0:
            return Opened(0, [], 0, 0)
        size = max(count * stride, 1)
        room = self._room
        room.reserve(count, size)
        plain = _allocate("uint8_t[]", size)
        start = first * run.size
        opened = room.opened
        data = ffi.from_buffer(run.data)
        if lib.tsrt_open_run(
            self._cipher,
            data + start,
            len(run.data) - start,
            run.size,
            counter,
            plain,
            room.payload,
            size,
            room.sizes,
            room.items,
            count,
            opened,
        ):
            raise AssertionError("the kernel refused a run that fits")
        view = memoryview(ffi.buffer(plain, size))
        items: list[Arrived] = []
        for index in range(opened.items):
            self._take(room.items[index], view, stride, items)
        return Opened(opened.taken, items, opened.keepalives, opened.dropped)

    def _take(
        self, item: Any, view: memoryview, stride: int, items: list[Arrived]
    ) -> None:
        """Make a packet or a run of what the kernel found."""
        at, length, start, count = (
            item.first * stride,
            item.length,
            item.start,
            item.count,
        )
        if not start:
            items.append(bytes(view[at : at + length]))
            return
        head = bytes(view[at : at + start])
        cut = 24 if head[0] >> 4 == 4 else 44
        options = NO_OPTIONS
        if start > cut + HEADER_LENGTH - 4:
            try:
                options = parseOptions(head, cut + HEADER_LENGTH - 4, start)
            except WireError:
                # Whoever takes them one by one will say what is wrong.
                for each in range(at, at + count * stride, stride):
                    packet = cutToLength(bytes(view[each : each + stride]))
                    if packet is not None:
                        items.append(packet)
                return
        seq, ack, window = _SEQUENCE_TO_WINDOW.unpack_from(head, cut)
        where = self._room.payload + item.payload
        items.append(
            ArrivedRun(
                (view[at : at + count * stride], stride),
                head,
                ffi.buffer(where, item.payload_length)[:],
                length - start,
                count,
                seq,
                ack,
                item.flags,
                window,
                options,
            )
        )


class CompiledTier:
    """See L{Tier<tsrt.dataplane.interface.Tier>}."""

    name = "compiled"

    def __init__(self) -> None:
        """
        @raise ImportError: if there is no library that seals.
        """
        loadLibrary()
        self._room = Room()

    def sealer(self, key: bytes) -> CompiledSealer:
        """See L{Tier.sealer<tsrt.dataplane.interface.Tier.sealer>}."""
        return CompiledSealer(key)

    def opener(self, key: bytes) -> CompiledOpener:
        """See L{Tier.opener<tsrt.dataplane.interface.Tier.opener>}."""
        return CompiledOpener(key, self._room)

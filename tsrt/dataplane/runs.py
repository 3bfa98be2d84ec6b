"""
Runs: packets that belong together, handled as one.

A run costs each layer what a single packet would cost.  It can always be taken
apart again into the very packets it stands for, for whoever needs those: captures,
masquerading, relays, the long way through the filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from tsrt.wire.tcp import NO_OPTIONS, PSH, Options, SegmentBuilder, parseOptions

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Something that a socket takes."""

WORTH_JOINING = 6
"""Datagrams below which it is not worth it to make a run of them."""

PREFIX_LENGTH = 8
"""Bytes at the beginning of a transport message that tell whose it is."""


class DatagramRun:
    """
    Datagrams of one size in one buffer; the last may be shorter.

    So the system hands them over where it joins what arrives (UDP GRO).

    @ivar data: all datagrams, one behind the other.  It may lie in what the next
        read overwrites, so that nobody keeps a run beyond the call that it came
        with.
    @ivar size: bytes of each datagram but the last.
    """

    __slots__ = ("_prefix", "count", "data", "size")

    def __init__(self, data: bytes | memoryview, size: int) -> None:
        """
        @param data: all datagrams, one behind the other.
        @param size: bytes of each but the last.
        """
        self.data = data
        self.size = size
        self.count = -(-len(data) // size)
        """How many datagrams there are."""
        self._prefix: bytes | None = None

    def __len__(self) -> int:
        """The bytes of all datagrams together."""
        return len(self.data)

    def datagrams(self, first: int = 0) -> list[bytes]:
        """
        The datagrams, each for itself.

        @param first: how many to leave out.
        """
        data, size = self.data, self.size
        starts = range(first * size, len(data), size)
        return [bytes(data[at : at + size]) for at in starts]

    @property
    def prefix(self) -> bytes:
        """The 8 bytes that all datagrams begin with; empty if they do not."""
        if self._prefix is None:
            self._prefix = self._findPrefix()
        return self._prefix

    def _findPrefix(self) -> bytes:
        data, size, count = self.data, self.size, self.count
        if len(data) - (count - 1) * size < PREFIX_LENGTH:
            return b""
        # One slice a byte of the prefix, instead of one a datagram.
        for at in range(PREFIX_LENGTH):
            if bytes(data[at::size]).count(data[at]) != count:
                return b""
        return bytes(data[:PREFIX_LENGTH])


class SegmentRun:
    """
    TCP segments of one flow, behind one another in the stream, that leave.

    They differ in sequence number and checksum only, but that the last may be
    shorter and have more flags.
    """

    __slots__ = (
        "ack",
        "builder",
        "count",
        "flags",
        "lastFlags",
        "mss",
        "options",
        "payload",
        "seq",
        "window",
    )

    def __init__(
        self,
        builder: SegmentBuilder,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        options: bytes,
        payload: bytes,
        mss: int,
        lastFlags: int,
    ) -> None:
        """See L{SegmentBuilder.buildRun}; the payload is longer than C{mss}."""
        self.builder = builder
        self.seq = seq
        self.ack = ack
        self.flags = flags
        self.window = window
        self.options = options
        self.payload = payload
        self.mss = mss
        self.lastFlags = lastFlags
        self.count = -(-len(payload) // mss)
        """How many segments there are."""

    def __len__(self) -> int:
        """The bytes of all packets together."""
        overhead = self.builder.overhead + len(self.options)
        return len(self.payload) + self.count * overhead

    @property
    def destination(self) -> bytes:
        """The packed address that they go to."""
        return self.builder.destination

    def packets(self) -> list[bytes]:
        """The packets, each for itself."""
        return self.builder.buildRun(
            self.seq,
            self.ack,
            self.flags,
            self.window,
            self.options,
            self.payload,
            self.mss,
            self.lastFlags,
        )

    def arrived(self) -> list[Arrived]:
        """
        The same segments as they arrive at this very node: nothing lies in between
        that could change them, so that no checksum is made but for the header.
        """
        if self.lastFlags & ~PSH:
            # Such a segment comes for itself.
            return [*self.packets()]
        first = self.builder.build(
            self.seq,
            self.ack,
            self.flags,
            self.window,
            self.options,
            self.payload[: self.mss],
        )
        run = ArrivedRun(
            self,
            first[: len(first) - self.mss],
            self.payload,
            self.mss,
            self.count,
            self.seq,
            self.ack,
            self.flags | self.lastFlags,
            self.window,
            parseOptions(self.options, 0, len(self.options)),
        )
        return [run]


class SealedRun:
    """
    Transport messages of one size that leave together; the last may be shorter.
    """

    __slots__ = ("_length", "_pieces", "buffers", "count", "size")

    def __init__(
        self, buffers: Sequence[Buffer], size: int, count: int, length: int, pieces: int
    ) -> None:
        """
        @param buffers: all messages, one behind the other, in any pieces.
        @param size: bytes of each message but the last.
        @param count: how many messages there are.
        @param length: bytes of all of them.
        @param pieces: how many buffers make a message; 0 if there is one buffer
            for all messages.
        """
        self.buffers = buffers
        self.size = size
        self.count = count
        self._length = length
        self._pieces = pieces

    def __len__(self) -> int:
        """The bytes of all messages together."""
        return self._length

    def messages(self) -> list[bytes]:
        """The messages, each for itself."""
        buffers, pieces = self.buffers, self._pieces
        if pieces:
            return [
                b"".join(buffers[at : at + pieces])
                for at in range(0, len(buffers), pieces)
            ]
        (whole,) = buffers
        size = self.size
        return [bytes(whole[at : at + size]) for at in range(0, self._length, size)]

    def slices(self, most: int, room: int) -> list[tuple[Sequence[Buffer], int, int]]:
        """
        The buffers of some messages at a time, for sends that take no more.

        @param most: messages that one send takes.
        @param room: bytes that one send takes.
        @return: buffers, the number of messages in them, and their bytes.
        """
        size, length = self.size, self._length
        most = max(1, min(most, room // size))
        if self.count <= most:
            return [(self.buffers, self.count, length)]
        pieces = self._pieces
        found: list[tuple[Sequence[Buffer], int, int]] = []
        for first in range(0, self.count, most):
            count = min(most, self.count - first)
            start, end = first * size, min((first + count) * size, length)
            if pieces:
                part = self.buffers[first * pieces : (first + count) * pieces]
            else:
                part = [memoryview(self.buffers[0])[start:end]]
            found.append((part, count, end - start))
        return found


class ArrivedRun:
    """
    TCP segments of one flow, behind one another in the stream, that arrived.

    They are data segments with nothing but ACK and, the last one, PSH; have
    the same acknowledgement, window and options, and right checksums.

    @ivar head: the IP and TCP headers of the first.
    @ivar payload: the data of all.
    @ivar largest: bytes of data in each but the last.
    @ivar flags: of all together.
    """

    __slots__ = (
        "_data",
        "ack",
        "count",
        "flags",
        "head",
        "largest",
        "length",
        "options",
        "payload",
        "seq",
        "window",
    )

    def __init__(
        self,
        packets: list[bytes] | tuple[memoryview, int] | SegmentRun,
        head: bytes,
        payload: bytes,
        largest: int,
        count: int,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        options: Options = NO_OPTIONS,
    ) -> None:
        """
        @param packets: each for itself, maybe with padding behind it; or a
            buffer, and the distance in it from one packet to the next; or the run
            as which they left this node.
        """
        self._data = packets
        self.head = head
        self.payload = payload
        self.largest = largest
        self.count = count
        self.seq = seq
        self.ack = ack
        self.flags = flags
        self.window = window
        self.options = options
        self.length = len(payload) + count * len(head)

    def __len__(self) -> int:
        """The bytes of all packets together."""
        return self.length

    def packets(self) -> list[bytes]:
        """The packets, each for itself."""
        if isinstance(self._data, SegmentRun):
            return self._data.packets()
        full = len(self.head) + self.largest
        before = self.count - 1
        last = self.length - before * full
        if isinstance(self._data, list):
            packets = [packet[:full] for packet in self._data]
            packets[-1] = packets[-1][:last]
            return packets
        data, stride = self._data
        starts = range(0, before * stride, stride)
        packets = [bytes(data[at : at + full]) for at in starts]
        packets.append(bytes(data[before * stride : before * stride + last]))
        return packets


Outgoing: TypeAlias = bytes | SegmentRun
"""What a stack has to send."""

Sealed: TypeAlias = bytes | SealedRun
"""What a tunnel has to send."""

Received: TypeAlias = bytes | DatagramRun
"""What comes from the network."""

Arrived: TypeAlias = bytes | ArrivedRun
"""What comes out of a tunnel."""


def packetsOf(items: Sequence[Outgoing] | Sequence[Arrived]) -> list[bytes]:
    """All packets in some items, each for itself."""
    packets: list[bytes] = []
    for item in items:
        if isinstance(item, bytes):
            packets.append(item)
        else:
            packets += item.packets()
    return packets


def arrivedOf(items: Sequence[Outgoing]) -> list[Arrived]:
    """What leaves for this node itself, as it arrives."""
    arrived: list[Arrived] = []
    for item in items:
        if isinstance(item, bytes):
            arrived.append(item)
        else:
            arrived += item.arrived()
    return arrived


def messagesOf(items: Sequence[Sealed]) -> list[bytes]:
    """All messages in some items, each for itself."""
    messages: list[bytes] = []
    for item in items:
        if isinstance(item, bytes):
            messages.append(item)
        else:
            messages += item.messages()
    return messages


def datagramsOf(items: Sequence[Received]) -> list[bytes]:
    """All datagrams in some items, each for itself."""
    datagrams: list[bytes] = []
    for item in items:
        if isinstance(item, bytes):
            datagrams.append(item)
        else:
            datagrams += item.datagrams()
    return datagrams


def joinEqual(items: Sequence[Received]) -> list[Received]:
    """
    Make runs of datagrams that have the same size, where that is worth it.

    The order stays, and so do runs.
    """
    joined: list[Received] = []
    group: list[bytes] = []
    size = 0
    for item in items:
        if group:
            last = len(group[-1])
            if isinstance(item, bytes) and last == size and len(item) <= size:
                # The last of a run may be shorter.
                group.append(item)
                continue
            joined += _joinGroup(group, size)
            group = []
        if isinstance(item, bytes):
            group, size = [item], len(item)
        else:
            joined.append(item)
    return joined + _joinGroup(group, size)


def _joinGroup(group: list[bytes], size: int) -> list[Received]:
    if len(group) >= WORTH_JOINING and group[-1]:
        return [DatagramRun(b"".join(group), size)]
    return [*group]


def countOf(
    items: Sequence[bytes | SegmentRun | SealedRun | DatagramRun | ArrivedRun],
) -> int:
    """How many packets, messages or datagrams some items are."""
    count = len(items)
    for item in items:
        if not isinstance(item, bytes):
            count += item.count - 1
    return count

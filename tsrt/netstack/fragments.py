"""
Putting fragmented packets together again, within bounds.

A datagram with fragments that overlap is given up whole, for both families:
overlaps are made by attackers, not by routers (RFC 5722, RFC 8200 section 4.5;
RFC 791 permits it).  A repetition of the very same fragment is let pass.

Reference: RFC 791, RFC 815, RFC 8200 section 4.5, RFC 8504 section 5.3.
"""

from __future__ import annotations

from bisect import bisect_left

from tsrt.netstack.limits import StackCounters, StackLimits
from tsrt.wire.ip import IPV4_HEADER, IPHeader, buildPackets

_LARGEST = 65535


class _Partial:
    """
    The fragments of one datagram that are here so far.

    @ivar offsets: where each fragment begins, in ascending order.
    @ivar pieces: the data of each, in the same order.
    @ivar total: the length of the whole, once the last fragment is here.
    @ivar poisoned: fragments overlapped; those to come are dropped as well.
    """

    __slots__ = (
        "expires",
        "held",
        "offsets",
        "pieces",
        "poisoned",
        "protocol",
        "total",
    )

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.offsets: list[int] = []
        self.pieces: list[bytes] = []
        self.held = 0
        self.total: int | None = None
        self.protocol: int | None = None
        self.poisoned = False


class Reassembler:
    """
    Collects fragments until a datagram is whole.

    A datagram is known by source, destination, identification and, in IPv4,
    protocol.
    """

    def __init__(self, limits: StackLimits, counters: StackCounters) -> None:
        self._limits = limits
        self._counters = counters
        # Keys begin with the source.  For each family a dictionary in order
        # of arrival, which is the order of expiry.
        self._partials: dict[int, dict[bytes, _Partial]] = {4: {}, 6: {}}
        self._perSource: dict[bytes, int] = {}
        self._held = 0

    def __len__(self) -> int:
        """How many datagrams are being put together."""
        return len(self._partials[4]) + len(self._partials[6])

    @property
    def held(self) -> int:
        """Bytes of all fragments held."""
        return self._held

    def add(self, header: IPHeader, now: float) -> bytes | None:
        """
        Take one fragment.

        @param header: of a packet that is a fragment.
        @return: the whole packet, without options and extension headers in
            front of the fragment, when this was the part that was missing.
        """
        packet = header.packet
        data = packet[header.start : header.end]
        offset = header.fragmentOffset
        end = offset + len(data)
        overhead = IPV4_HEADER if header.version == 4 else 0
        if (
            not data
            or (header.moreFragments and len(data) & 7)
            or end + overhead > _LARGEST
        ):
            self._counters.droppedFragmentWrong += 1
            return None
        key = packet[header.addresses : header.addressesEnd] + header.ident.to_bytes(
            4, "big"
        )
        if header.version == 4:
            key += bytes((header.protocol,))
        partials = self._partials[header.version]
        partial = partials.get(key)
        if partial is None:
            partial = self._begin(header, key, now)
            if partial is None:
                return None
        if partial.poisoned:
            self._counters.droppedFragmentOverlap += 1
            return None
        if self._held + len(data) > self._limits.reassemblyBytes:
            self._counters.droppedFragmentLimit += 1
            return None
        if not self._place(partial, offset, data, header.moreFragments):
            return None
        if offset == 0:
            # In IPv6 the fragments may disagree; the first one decides.
            partial.protocol = header.protocol
        if partial.total is None or partial.held != partial.total:
            return None
        self._forget(header.version, key)
        self._counters.reassembled += 1
        whole = b"".join(partial.pieces)
        assert partial.protocol is not None
        (packet,) = buildPackets(
            header.source,
            header.destination,
            partial.protocol,
            whole,
            _LARGEST + 40,
            header.ident,
        )
        return packet

    def _begin(self, header: IPHeader, key: bytes, now: float) -> _Partial | None:
        """Make room for a new datagram, or count that there is none."""
        source = header.source
        mine = self._perSource.get(source, 0)
        if (
            len(self) >= self._limits.reassemblies
            or mine >= self._limits.reassembliesPerSource
        ):
            self._counters.droppedFragmentLimit += 1
            return None
        limits = self._limits
        lifetime = (
            limits.reassemblyTimeout4
            if header.version == 4
            else limits.reassemblyTimeout6
        )
        partial = _Partial(now + lifetime)
        self._partials[header.version][key] = partial
        self._perSource[source] = mine + 1
        return partial

    def _place(self, partial: _Partial, offset: int, data: bytes, more: bool) -> bool:
        """
        Put C{data} where it belongs.

        @return: whether it was new.
        """
        end = offset + len(data)
        offsets = partial.offsets
        pieces = partial.pieces
        index = bisect_left(offsets, offset)
        isDuplicate = (
            index < len(offsets)
            and offsets[index] == offset
            and pieces[index] == data
            and more == (partial.total != end)
        )
        if isDuplicate:
            self._counters.droppedFragmentWrong += 1
            return False
        overlaps = (
            (index < len(offsets) and offsets[index] < end)
            or (index > 0 and offsets[index - 1] + len(pieces[index - 1]) > offset)
            or (partial.total is not None and end > partial.total)
            or (not more and partial.total is not None)
            or (not more and bool(offsets) and offsets[-1] >= end)
        )
        if overlaps:
            self._counters.droppedFragmentOverlap += 1
            self._held -= partial.held
            partial.poisoned = True
            partial.held = 0
            offsets.clear()
            pieces.clear()
            return False
        offsets.insert(index, offset)
        pieces.insert(index, data)
        partial.held += len(data)
        self._held += len(data)
        if not more:
            partial.total = end
        return True

    def _forget(self, version: int, key: bytes) -> None:
        """Drop a datagram and give back what it held."""
        partial = self._partials[version].pop(key)
        self._held -= partial.held
        source = key[: 4 if version == 4 else 16]
        left = self._perSource[source] - 1
        if left:
            self._perSource[source] = left
        else:
            del self._perSource[source]

    def tick(self, now: float) -> None:
        """Drop the datagrams whose time is over."""
        for version, partials in self._partials.items():
            while partials:
                key = next(iter(partials))
                if partials[key].expires > now:
                    break
                self._forget(version, key)
                self._counters.droppedFragmentTimeout += 1

    def deadline(self) -> float | None:
        """When the next datagram's time is over; L{None} without any."""
        return min(
            (
                partials[next(iter(partials))].expires
                for partials in self._partials.values()
                if partials
            ),
            default=None,
        )

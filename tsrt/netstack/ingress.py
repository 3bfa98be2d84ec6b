"""
The way in: what a packet is, whether it is for us, and who gets it.

Reference: RFC 1122 section 3.2.1, RFC 8200 section 4.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tsrt.dataplane.runs import Arrived, ArrivedRun
from tsrt.errors import WireError
from tsrt.netstack.datagramtable import DatagramTable
from tsrt.netstack.egress import Egress, isUnicast
from tsrt.netstack.flowtable import FlowTable
from tsrt.netstack.fragments import Reassembler
from tsrt.netstack.icmp import ICMP
from tsrt.netstack.icmperrors import NetworkError
from tsrt.netstack.limits import StackCounters
from tsrt.wire.checksum import onesSum, verifyTransport
from tsrt.wire.ip import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    PROTOCOL_TSMP,
    PROTOCOL_UDP,
    IPHeader,
    parseIP,
)
from tsrt.wire.tcp import (
    HEADER_LENGTH,
    NO_OPTIONS,
    Segment,
    parseOptions,
    parseTCP,
)

_PORTS = struct.Struct("!HH")
_AFTER_PORTS = struct.Struct("!IIHH")
_IDENT_AND_CHECKSUM = struct.Struct("!4xH4xH")
_TO_WINDOW = struct.Struct("!HHIIHH")
_V4_CUT = 24
_V4, _V6 = 20, 40


class Ingress:
    """Hands packets to flows, bindings and ICMP."""

    __slots__ = (
        "_anyAddress",
        "_counters",
        "_datagrams",
        "_egress",
        "_flows",
        "_fragments",
        "_icmp",
        "_local",
        "_pair",
    )

    def __init__(
        self,
        egress: Egress,
        fragments: Reassembler,
        flows: FlowTable,
        datagrams: DatagramTable,
        icmp: ICMP,
        counters: StackCounters,
        anyAddress: bool,
    ) -> None:
        """
        @param egress: knows our addresses.
        @param anyAddress: whether packets to any unicast address are for us.
        """
        self._egress = egress
        self._fragments = fragments
        self._flows = flows
        self._datagrams = datagrams
        self._icmp = icmp
        self._counters = counters
        self._anyAddress = anyAddress
        # The addresses of the last segment that was for us, and what was ours then.
        self._pair = b""
        self._local = egress.local

    def receive(self, items: Sequence[Arrived], now: float, fromHere: bool) -> None:
        """
        Take packets and runs in order of arrival.

        @param fromHere: whether the packets come from this node itself.
        """
        if len(items) == 1 and not fromHere:
            lone = self._lone(items[0])
            if lone is not None:
                self._flows.arrive(*lone, now)
                return
        groups: dict[bytes, list[Segment]] = {}
        # The packets of a run of segments have the same bytes up to the ports.
        # What was checked once for them need not be checked again: predict,
        # verify, fall out.
        head = b""
        size = -1
        cut = start = addresses = extra = sourcePort = destinationPort = 0
        tail = b""
        words = 5
        options = NO_OPTIONS
        group: list[Segment] = []
        unpack = _AFTER_PORTS.unpack_from
        for packet in items:
            if isinstance(packet, ArrivedRun):
                self._run(packet, groups, fromHere)
                continue
            if len(packet) == size and (
                packet[:cut] == head or (cut == _V4_CUT and _isAlike(packet, head))
            ):
                seq, ack, bits, window = unpack(packet, cut)
                if (
                    bits >> 12 == words
                    and packet[cut + 16 : start] == tail
                    and (onesSum(packet[addresses:]) + extra) % 65535 == 0
                ):
                    group.append(
                        Segment(
                            packet,
                            start,
                            size,
                            sourcePort,
                            destinationPort,
                            seq,
                            ack,
                            bits & 0xFF,
                            window,
                            options,
                        )
                    )
                    continue
            found = self._take(packet, now, groups, fromHere)
            if found is not None:
                header, group = found
                cut = header.addressesEnd + 4
                size = -1
                if header.packet is packet and header.start + 4 == cut:
                    # Without padding behind it, or packets do not match.
                    size = header.end
                    head = packet[:cut]
                    addresses = header.addresses
                    extra = PROTOCOL_TCP + size - header.start
                    first = group[-1]
                    sourcePort = first.sourcePort
                    destinationPort = first.destinationPort
                    options = first.options
                    start = first.start
                    tail = packet[cut + 16 : start]
                    words = (start - header.start) >> 2
        for key, segments in groups.items():
            self._flows.arrive(key, segments, len(key) == 12, now)

    def _lone(self, packet: Arrived) -> tuple[bytes, list[Segment], bool] | None:
        """
        Take a packet that comes alone, if it is a plain TCP segment.

        @return: the key of its flow, the segment in a list, and whether it is
            IPv4; L{None} for whatever has to take the long way, or is wrong.
        """
        if not isinstance(packet, bytes):
            return None
        size = len(packet)
        if size < _V4 + HEADER_LENGTH:
            return None
        if packet[0] == 0x45:
            start, ports = 12, _V4
            if (
                packet[9] != PROTOCOL_TCP
                or packet[2] << 8 | packet[3] != size
                or packet[6] & 0x3F
                or packet[7]
                or onesSum(packet[:_V4]) % 65535
            ):
                return None
        elif packet[0] >> 4 == 6:
            start, ports = 8, _V6
            if (
                packet[6] != PROTOCOL_TCP
                or size < _V6 + HEADER_LENGTH
                or packet[4] << 8 | packet[5] != size - _V6
            ):
                return None
        else:
            return None
        local = self._egress.local
        if packet[start:ports] != self._pair or local is not self._local:
            middle = (start + ports) // 2
            source, destination = packet[start:middle], packet[middle:ports]
            if destination not in local or source in local or not isUnicast(source):
                return None
            self._pair, self._local = packet[start:ports], local
        sourcePort, destinationPort, seq, ack, bits, window = _TO_WINDOW.unpack_from(
            packet, ports
        )
        text = ports + (bits >> 12 << 2)
        if (
            not sourcePort
            or not destinationPort
            or text > size
            or text < ports + HEADER_LENGTH
            or (onesSum(packet[start:]) + PROTOCOL_TCP + size - ports) % 65535
        ):
            return None
        options = NO_OPTIONS
        if text > ports + HEADER_LENGTH:
            try:
                options = parseOptions(packet, ports + HEADER_LENGTH, text)
            except WireError:
                return None
        segment = Segment(
            packet,
            text,
            size,
            sourcePort,
            destinationPort,
            seq,
            ack,
            bits & 0xFF,
            window,
            options,
        )
        return packet[start : ports + 4], [segment], ports == _V4

    def _run(
        self, run: ArrivedRun, groups: dict[bytes, list[Segment]], fromHere: bool
    ) -> None:
        """Take a run of TCP segments, of which all else was checked."""
        head = run.head
        at, size = (12, 4) if head[0] >> 4 == 4 else (8, 16)
        ports = at + 2 * size
        source, destination = head[at : at + size], head[at + size : ports]
        key = head[at : ports + 4]
        sourcePort, destinationPort = _PORTS.unpack_from(head, ports)
        if not self._isForUs(source, destination, fromHere, run.count):
            return
        if not sourcePort or not destinationPort:
            self._counters.droppedMalformed += run.count
            return
        segment = Segment(
            run.payload,
            0,
            len(run.payload),
            sourcePort,
            destinationPort,
            run.seq,
            run.ack,
            run.flags,
            run.window,
            run.options,
            run.largest,
        )
        group = groups.get(key)
        if group is None:
            groups[key] = [segment]
        else:
            group.append(segment)

    def _isForUs(
        self, source: bytes, destination: bytes, fromHere: bool, count: int
    ) -> bool:
        """
        Whether packets may have these addresses; if not, they are counted.

        @param count: how many there are.
        """
        local = self._egress.local
        if destination not in local and not (
            self._anyAddress and isUnicast(destination)
        ):
            self._counters.droppedNotLocal += count
            return False
        if not fromHere and (source in local or not isUnicast(source)):
            self._counters.droppedBadSource += count
            return False
        return True

    def _take(
        self,
        packet: bytes,
        now: float,
        groups: dict[bytes, list[Segment]],
        fromHere: bool,
    ) -> tuple[IPHeader, list[Segment]] | None:
        """
        Take one packet the long way.

        @param groups: takes the TCP segments, by the key of their flow.
        @return: for a TCP segment its IP header and its group.
        """
        counters = self._counters
        try:
            header = parseIP(packet)
        except WireError:
            counters.droppedMalformed += 1
            return None
        if not self._isForUs(header.source, header.destination, fromHere, 1):
            return None
        if header.isFragment:
            whole = self._fragments.add(header, now)
            if whole is None:
                return None
            try:
                header = parseIP(whole)
            except WireError:
                counters.droppedMalformed += 1
                return None
            if header.isFragment:
                # Fragments in fragments: nobody honest does that.
                counters.droppedMalformed += 1
                return None
        protocol = header.protocol
        if protocol == PROTOCOL_TCP:
            return self._segment(header, groups)
        if protocol == PROTOCOL_UDP:
            self._datagrams.receive(header, now)
        elif protocol == (PROTOCOL_ICMP if header.version == 4 else PROTOCOL_ICMPV6):
            error = self._icmp.receive(header, now)
            if error is not None:
                self._trouble(error, now)
        elif protocol != PROTOCOL_TSMP:
            # Messages between nodes, protocol 99, are handled before packets
            # come here; what is left of them is ignored.
            counters.droppedProtocol += 1
        return None

    def _segment(
        self, header: IPHeader, groups: dict[bytes, list[Segment]]
    ) -> tuple[IPHeader, list[Segment]] | None:
        """Take a TCP segment."""
        packet, start = header.packet, header.start
        try:
            segment = parseTCP(packet, start, header.end)
        except WireError:
            self._counters.droppedMalformed += 1
            return None
        if not segment.sourcePort or not segment.destinationPort:
            self._counters.droppedMalformed += 1
            return None
        if not verifyTransport(
            packet,
            header.addresses,
            header.addressesEnd,
            start,
            header.end,
            PROTOCOL_TCP,
        ):
            self._counters.droppedChecksum += 1
            return None
        key = packet[header.addresses : header.addressesEnd] + packet[start : start + 4]
        group = groups.get(key)
        if group is None:
            group = groups[key] = []
        group.append(segment)
        return header, group

    def _trouble(self, error: NetworkError, now: float) -> None:
        """Hand an ICMP error to the flow or binding that it is about."""
        quotation = error.quotation
        if quotation.protocol == PROTOCOL_TCP:
            matched = self._flows.trouble(error, now)
        elif quotation.protocol == PROTOCOL_UDP:
            matched = self._datagrams.trouble(error, now)
        else:
            matched = False
        if not matched:
            self._counters.droppedICMPUnmatched += 1


def _isAlike(packet: bytes, head: bytes) -> bool:
    """
    Whether an IPv4 packet has a header that is known to be right, but for
    another identification, as the packets of many kernels have.

    @param packet: at least as long as C{head}.
    @param head: the IP header without options and the ports of a good packet.
    """
    if (
        packet[12:24] != head[12:]
        or packet[:4] != head[:4]
        or packet[6:10] != head[6:10]
    ):
        return False
    ident, checksum = _IDENT_AND_CHECKSUM.unpack_from(packet)
    oldIdent, oldChecksum = _IDENT_AND_CHECKSUM.unpack_from(head)
    # All other words of the header are the same, so that its sum is right if
    # these two have the same sum.
    return bool((ident + checksum - oldIdent - oldChecksum) % 65535 == 0)

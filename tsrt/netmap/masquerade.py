"""
Appearing to single peers with another address than one's own.

Control may have a peer know this node by a masquerade address, where the real
one would clash in that peer's tailnet.  Packets to that peer then leave with
the masquerade address as their source, and packets from it arrive with it as
their destination.  Translation is the last thing before sealing and the first
after opening, so that filter and stack see the node's own address only.

Checksums are changed incrementally (RFC 1624).  Packets that are quoted inside
ICMP errors are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

from tsrt.errors import WireError
from tsrt.netmap.node import Node
from tsrt.wire.checksum import onesSum
from tsrt.wire.ip import (
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    IPHeader,
    parseIP,
)

# Where the checksums lie that cover addresses, in the transport headers.
_CHECKSUMS = {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6, PROTOCOL_ICMPV6: 2}
_IPV4_CHECKSUM = 10


class Masquerade:
    """The translation between this node and one peer, in one family or both."""

    __slots__ = ("_masked", "_native")

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """
        @param pairs: own addresses, each with the one that the peer knows;
            packed, at most one of each family.
        """
        pairs = list(pairs)
        self._masked = dict(pairs)
        self._native = {masked: own for own, masked in pairs}

    def outbound(self, packets: list[bytes]) -> list[bytes]:
        """Packets to the peer, with the source that it knows."""
        masked = self._masked
        return [
            _translated(packet, masked, isSource=True)
            if _source(packet) in masked
            else packet
            for packet in packets
        ]

    def inbound(self, packets: list[bytes]) -> list[bytes]:
        """Packets from the peer, with this node's own destination."""
        native = self._native
        return [
            _translated(packet, native, isSource=False)
            if _destination(packet) in native
            else packet
            for packet in packets
        ]

    def appearsAs(self, address: bytes) -> bytes:
        """What the peer knows an own address as."""
        return self._masked.get(address, address)


def masquerades(own: Node, peers: Iterable[Node]) -> dict[bytes, Masquerade]:
    """
    The translations of a tailnet by the raw keys of the peers.

    Nearly always there are none.

    @param own: this node, whose first address of each family is translated.
    """
    native = {len(packed): packed for packed in reversed(own.packedAddresses())}
    found = {}
    for peer in peers:
        if peer.masqueradeV4 is None and peer.masqueradeV6 is None:
            continue
        pairs = [
            (native[len(masked)], masked)
            for masked in (peer.masqueradeV4, peer.masqueradeV6)
            if masked is not None and len(masked) in native
        ]
        if pairs:
            found[peer.key.raw] = Masquerade(pairs)
    return found


def _source(packet: bytes) -> bytes:
    """The source address; something that is none if the packet is cut short."""
    if packet[:1] < b"\x50":
        return packet[12:16]
    return packet[8:24]


def _destination(packet: bytes) -> bytes:
    """The destination address; something that is none if it is cut short."""
    if packet[:1] < b"\x50":
        return packet[16:20]
    return packet[24:40]


def _translated(packet: bytes, table: dict[bytes, bytes], *, isSource: bool) -> bytes:
    """
    A packet with one address replaced, and all checksums set right.

    A malformed packet stays as it is; nobody will take it.
    """
    try:
        header = parseIP(packet)
    except WireError:
        return packet
    size = (header.addressesEnd - header.addresses) // 2
    at = header.addresses if isSource else header.addresses + size
    former = packet[at : at + size]
    new = table[former]
    changed = bytearray(packet)
    changed[at : at + size] = new
    difference = onesSum(former) - onesSum(new)
    if header.version == 4:
        _adjust(changed, _IPV4_CHECKSUM, difference)
    field = _checksumField(header)
    # A checksum of zero in UDP means that there is none.
    if field and not (
        header.protocol == PROTOCOL_UDP and not any(packet[field : field + 2])
    ):
        _adjust(changed, field, difference)
        if header.protocol == PROTOCOL_UDP and not any(changed[field : field + 2]):
            changed[field : field + 2] = b"\xff\xff"
    return bytes(changed)


def _checksumField(header: IPHeader) -> int:
    """Where the checksum of the transport lies; 0 if there is none here."""
    within = _CHECKSUMS.get(header.protocol)
    if within is None or header.fragmentOffset:
        return 0
    field = header.start + within
    return field if field + 2 <= header.end else 0


def _adjust(packet: bytearray, field: int, difference: int) -> None:
    """Change a checksum by what the sum of the data has lost."""
    former = packet[field] << 8 | packet[field + 1]
    new = (former + difference) % 65535
    packet[field] = new >> 8
    packet[field + 1] = new & 0xFF

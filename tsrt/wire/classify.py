"""
What a datagram is, by its first bytes.

WireGuard, disco, STUN and the traffic of peer relays share one UDP port.  The
order of the checks matters: whatever is nothing else is WireGuard's.
"""

from __future__ import annotations

import enum

from tsrt.wire import disco, geneve, stun
from tsrt.wire.wireguard import TRANSPORT_PREFIX


class Kind(enum.Enum):
    """What to do with a datagram."""

    WIREGUARD = "wireguard"
    """A WireGuard message, or nothing that anybody knows."""

    DISCO = "disco"
    STUN = "stun"

    GENEVE_DISCO = "geneve-disco"
    """Disco behind a Geneve header."""

    GENEVE_WIREGUARD = "geneve-wireguard"
    """WireGuard behind a Geneve header."""


_STUN_COOKIE = stun.COOKIE
_DISCO = geneve.PROTOCOL_DISCO.to_bytes(2, "big")
_WIREGUARD = geneve.PROTOCOL_WIREGUARD.to_bytes(2, "big")


def classify(datagram: bytes) -> Kind:
    """What C{datagram} is."""
    if datagram.startswith(TRANSPORT_PREFIX):
        # Nearly all of them; this beginning passes none of the checks below.
        return Kind.WIREGUARD
    if datagram.startswith(disco.MAGIC):
        if len(datagram) >= disco.ENVELOPE_LENGTH:
            return Kind.DISCO
        return Kind.WIREGUARD
    length = len(datagram)
    if length < geneve.HEADER_LENGTH or datagram[0] & 0xC0:
        return Kind.WIREGUARD
    if (
        length >= stun.HEADER_LENGTH
        and datagram[1] == 1
        and datagram[4:8] == _STUN_COOKIE
    ):
        return Kind.STUN
    if datagram[1] & 0x3F == 0 and datagram[7] == 0:
        protocol = datagram[2:4]
        if protocol == _WIREGUARD:
            return Kind.GENEVE_WIREGUARD
        if protocol == _DISCO and (
            length >= geneve.HEADER_LENGTH + disco.ENVELOPE_LENGTH
            and datagram.startswith(disco.MAGIC, geneve.HEADER_LENGTH)
        ):
            return Kind.GENEVE_DISCO
    return Kind.WIREGUARD


def splitByKind(datagrams: list[bytes]) -> dict[Kind, list[bytes]]:
    """
    A batch, sorted by what to do with each datagram; kinds that do not occur
    are missing.  Within a kind the order stays.

    @return: may hold C{datagrams} itself, when all are of one kind.
    """
    for datagram in datagrams:
        if not datagram.startswith(TRANSPORT_PREFIX):
            break
    else:
        return {Kind.WIREGUARD: datagrams} if datagrams else {}
    byKind: dict[Kind, list[bytes]] = {}
    for datagram in datagrams:
        byKind.setdefault(classify(datagram), []).append(datagram)
    return byKind


def looksLikeDisco(packet: bytes) -> bool:
    """
    Whether a relay should treat a packet, whose inside it cannot see, as disco.
    """
    return len(packet) >= disco.MIN_WRAPPER and packet.startswith(disco.MAGIC)

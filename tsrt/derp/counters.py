"""
What relays count.
"""

from __future__ import annotations

from tsrt.counters import Counters


class RelayCounters(Counters):
    """
    Packets and frames of one region, over all its connections.

    @ivar droppedFull: packets for which a queue had no room.
    @ivar droppedRate: packets beyond the rate that the relay asks for.
    @ivar droppedTooLong: packets that no relay takes.
    @ivar droppedClosed: packets that waited for a connection that never came.
    @ivar malformed: received frames that were too short, and skipped.
    @ivar unknown: received frames of a type that we do not know.
    """

    __slots__ = (
        "connections",
        "droppedClosed",
        "droppedFull",
        "droppedRate",
        "droppedTooLong",
        "malformed",
        "receivedBytes",
        "receivedPackets",
        "sentBytes",
        "sentPackets",
        "unknown",
    )
    connections: int
    droppedClosed: int
    droppedFull: int
    droppedRate: int
    droppedTooLong: int
    malformed: int
    receivedBytes: int
    receivedPackets: int
    sentBytes: int
    sentPackets: int
    unknown: int

"""
What the socket of a node counts.
"""

from __future__ import annotations

from tsrt.counters import Counters


class SocketCounters(Counters):
    """
    Datagrams of the underlay socket.

    @ivar droppedNoSocket: datagrams to send in a family that has no socket.
    @ivar droppedBusy: datagrams to send for which the system had no room.
    @ivar droppedTooLong: datagrams to send that fit into no packet, or not
        into those of this path.
    @ivar droppedUnreachable: datagrams to addresses to which the system knows
        no way, or lets us go none.
    @ivar droppedSendError: datagrams that the system did not take for any
        other reason.
    @ivar droppedFull: received datagrams beyond what a batch may hold.
    @ivar refused: ICMP errors that the system told us of.
    @ivar unhandled: received datagrams that nobody wanted.
    @ivar reopened: how often a socket had to be opened anew.
    """

    __slots__ = (
        "droppedBusy",
        "droppedFull",
        "droppedNoSocket",
        "droppedSendError",
        "droppedTooLong",
        "droppedUnreachable",
        "receivedBytes",
        "receivedPackets",
        "refused",
        "reopened",
        "sentBytes",
        "sentPackets",
        "unhandled",
    )
    droppedBusy: int
    droppedFull: int
    droppedNoSocket: int
    droppedSendError: int
    droppedTooLong: int
    droppedUnreachable: int
    receivedBytes: int
    receivedPackets: int
    refused: int
    reopened: int
    sentBytes: int
    sentPackets: int
    unhandled: int

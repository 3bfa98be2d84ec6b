"""
What the socket of a node counts.
"""

from __future__ import annotations

from tsrt.counters import Counters


class SocketCounters(Counters):
    """
    Datagrams of the underlay socket.

    @ivar droppedNoSocket: datagrams to send in a family that has no socket.
    @ivar droppedSendError: datagrams that the system did not take.
    @ivar droppedFull: received datagrams beyond what a batch may hold.
    @ivar refused: ICMP errors that the system told us of.
    @ivar unhandled: received datagrams that nobody wanted.
    @ivar reopened: how often a socket had to be opened anew.
    """

    __slots__ = (
        "droppedFull",
        "droppedNoSocket",
        "droppedSendError",
        "receivedBytes",
        "receivedPackets",
        "refused",
        "reopened",
        "sentBytes",
        "sentPackets",
        "unhandled",
    )
    droppedFull: int
    droppedNoSocket: int
    droppedSendError: int
    receivedBytes: int
    receivedPackets: int
    refused: int
    reopened: int
    sentBytes: int
    sentPackets: int
    unhandled: int

"""
What the tunnel counts.
"""

from __future__ import annotations

from tsrt.counters import Counters


class TunnelCounters(Counters):
    """
    The traffic of all tunnels together, and what was dropped by reason.
    """

    __slots__ = (
        "cookiesReceived",
        "cookiesSent",
        "droppedCookieInvalid",
        "droppedExpired",
        "droppedHandshakeFailed",
        "droppedHandshakeFlood",
        "droppedHandshakeReplay",
        "droppedInner",
        "droppedMac1",
        "droppedMalformed",
        "droppedNoAnswer",
        "droppedQueueFull",
        "droppedRateLimited",
        "droppedRemovedPeer",
        "droppedReplay",
        "droppedUnauthentic",
        "droppedUnderLoad",
        "droppedUnknownIndex",
        "droppedUnknownKey",
        "droppedUnknownPeer",
        "handshakesAbandoned",
        "handshakesAnswered",
        "handshakesCompleted",
        "handshakesStarted",
        "keepalivesReceived",
        "keepalivesSent",
        "packetsReceived",
        "packetsSent",
    )

    cookiesReceived: int
    cookiesSent: int

    droppedCookieInvalid: int
    """Cookie replies that answer nothing we sent."""
    droppedExpired: int
    """Transport messages of sessions past their age."""
    droppedHandshakeFailed: int
    """Handshake messages that did not authenticate."""
    droppedHandshakeFlood: int
    """Initiations that followed another of the same peer too closely."""
    droppedHandshakeReplay: int
    """Initiations with a timestamp that is not newer than the last."""
    droppedInner: int
    """Authentic messages that hold no sound IP packet."""
    droppedMac1: int
    """Handshake messages whose sender does not know our key."""
    droppedMalformed: int
    """Datagrams that have no WireGuard message's form."""
    droppedNoAnswer: int
    """Outgoing packets given up because the peer did not answer."""
    droppedQueueFull: int
    """Outgoing packets pushed out of the queue by newer ones."""
    droppedRateLimited: int
    """Handshake messages above what one source may send under load."""
    droppedRemovedPeer: int
    """Outgoing packets that waited when their peer or our key went away."""
    droppedReplay: int
    """Transport messages whose counter was used before, or is too old."""
    droppedUnauthentic: int
    """Transport messages that did not open."""
    droppedUnderLoad: int
    """Handshake messages answered by a cookie alone."""
    droppedUnknownIndex: int
    """Messages for a session that we do not have."""
    droppedUnknownKey: int
    """Initiations of somebody who is no peer."""
    droppedUnknownPeer: int
    """Outgoing packets for somebody who is no peer."""

    handshakesAbandoned: int
    """Attempts given up after the last retransmission."""
    handshakesAnswered: int
    """Responses sent."""
    handshakesCompleted: int
    """Sessions that came into use."""
    handshakesStarted: int
    """Initiations sent."""

    keepalivesReceived: int
    keepalivesSent: int
    packetsReceived: int
    packetsSent: int

"""Answering the small messages that Tailscale nodes send inside of the tunnel."""

from __future__ import annotations

from tsrt.addresses import MTU
from tsrt.counters import Counters
from tsrt.errors import WireError
from tsrt.wire.ip import PROTOCOL_TSMP, buildPackets
from tsrt.wire.tsmp import Ping, Pong, parseTSMP


class TSMPCounters(Counters):
    """Messages by what was done with them."""

    __slots__ = ("malformed", "pingsAnswered", "swallowed")
    malformed: int
    pingsAnswered: int
    swallowed: int


class TSMPResponder:
    """
    Answers pings; takes notice of nothing else.

    No such message ever reaches the stack or an application.
    """

    def __init__(self) -> None:
        self.counters = TSMPCounters()

    def __call__(self, peer: bytes, packet: bytes) -> list[bytes]:
        """
        Take one TSMP packet.

        @return: the packets to answer the peer with.
        """
        isV4 = packet[0] >> 4 == 4
        offset = (packet[0] & 0x0F) * 4 if isV4 else 40
        source = packet[12:16] if isV4 else packet[8:24]
        destination = packet[16:20] if isV4 else packet[24:40]
        try:
            message = parseTSMP(packet[offset:])
        except WireError:
            self.counters.malformed += 1
            return []
        if not isinstance(message, Ping):
            self.counters.swallowed += 1
            return []
        self.counters.pingsAnswered += 1
        return buildPackets(
            destination, source, PROTOCOL_TSMP, Pong(message.data).encode(), MTU, 0
        )

"""Answering the small messages that Tailscale nodes send inside of the tunnel."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tsrt.addresses import MTU
from tsrt.counters import Counters
from tsrt.errors import WireError
from tsrt.wire.ip import PROTOCOL_TSMP, buildPackets
from tsrt.wire.tsmp import Ping, Pong, parseTSMP


class TSMPCounters(Counters):
    """Messages by what was done with them."""

    __slots__ = ("malformed", "pingsAnswered", "pongs", "swallowed")
    malformed: int
    pingsAnswered: int
    pongs: int
    swallowed: int


class TSMPResponder:
    """
    Answers pings, and knows the answers to our own; all else is swallowed.

    No such message ever reaches the stack or an application.
    """

    def __init__(self) -> None:
        self.counters = TSMPCounters()
        self._expected: dict[tuple[bytes, bytes], Deferred[None]] = {}

    def expect(self, peer: bytes, data: bytes) -> Deferred[None]:
        """
        Fire when a peer answers a ping; cancel to wait no more.

        @param peer: its raw node key.
        @param data: the 8 bytes of the ping.
        """
        key = peer, data

        def forget(_: object) -> None:
            self._expected.pop(key, None)

        answered: Deferred[None] = Deferred(forget)
        self._expected[key] = answered
        return answered

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
        if isinstance(message, Pong):
            answered = self._expected.pop((peer, message.data), None)
            if answered is not None:
                self.counters.pongs += 1
                answered.callback(None)
                return []
        if not isinstance(message, Ping):
            self.counters.swallowed += 1
            return []
        self.counters.pingsAnswered += 1
        return buildPackets(
            destination, source, PROTOCOL_TSMP, Pong(message.data).encode(), MTU, 0
        )

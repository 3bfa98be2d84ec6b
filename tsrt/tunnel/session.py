"""
A session: the keys and counters that one handshake gave us.

This is the hot end of the tunnel.  Whole lists go in and come out; the AEAD
objects live as long as the session; nothing else is made per packet.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tsrt.tunnel.counters import TunnelCounters
from tsrt.tunnel.handshake import TransportKeys
from tsrt.tunnel.replay import ReplayWindow
from tsrt.wire.wireguard import (
    MIN_TRANSPORT_LENGTH,
    TRANSPORT_HEADER_LENGTH,
    TRANSPORT_PREFIX,
)

REKEY_AFTER_MESSAGES = 1 << 60
"""From this counter on a session is due for renewal, whoever started it."""

REJECT_AFTER_MESSAGES = (1 << 64) - (1 << 13) - 1
"""The first counter that may not be used any more."""

_NONCE_PREFIX = bytes(4)
_nonceOf = struct.Struct("<4xQ").pack
_counterOf = struct.Struct("<8xQ").unpack_from
# The first byte of an IP packet, and what IPv4 has for a total length; IPv6 has
# its payload length elsewhere.
_headOf = struct.Struct(">BxH").unpack_from
_payloadLengthOf = struct.Struct(">4xH").unpack_from
_PADDING = [bytes(-size % 16) for size in range(16)]


class Session:
    """
    Seals and opens the transport messages of one session.
    """

    __slots__ = (
        "_decrypt",
        "_encrypt",
        "_prefix",
        "_window",
        "createdAt",
        "index",
        "isInitiator",
        "sendCounter",
    )

    def __init__(
        self,
        keys: TransportKeys,
        *,
        index: bytes,
        remoteIndex: bytes,
        isInitiator: bool,
        now: float,
    ) -> None:
        """
        @param index: the receiver index that our peer puts on messages to us.
        @param remoteIndex: the one that we put on messages to the peer.
        @param isInitiator: whether we sent the initiation.
        """
        self._encrypt = ChaCha20Poly1305(keys.send).encrypt
        self._decrypt = ChaCha20Poly1305(keys.receive).decrypt
        self._prefix = TRANSPORT_PREFIX + remoteIndex
        self._window = ReplayWindow()
        self.index = index
        self.isInitiator = isInitiator
        self.createdAt = now
        self.sendCounter = 0
        """The counter of the next message that we send."""

    @property
    def room(self) -> int:
        """How many messages may still be sent."""
        return max(REJECT_AFTER_MESSAGES - self.sendCounter, 0)

    def seal(self, packets: list[bytes], mtu: int) -> list[bytes]:
        """
        Make transport messages of inner packets; an empty one is a keep-alive.

        Each is padded with zeros to a multiple of 16, but not beyond the MTU.

        @param packets: not more than L{room}.
        """
        counter = self.sendCounter
        encrypt = self._encrypt
        prefix = self._prefix
        sealed = []
        for packet in packets:
            size = len(packet)
            rest = size & 15
            if rest:
                if size + 16 - rest <= mtu:
                    packet += _PADDING[rest]
                elif size < mtu:
                    packet += bytes(mtu - size)
            number = counter.to_bytes(8, "little")
            sealed.append(
                prefix + number + encrypt(_NONCE_PREFIX + number, packet, None)
            )
            counter += 1
        self.sendCounter = counter
        return sealed

    def open(
        self, datagrams: list[bytes], counters: TunnelCounters
    ) -> tuple[list[bytes], int]:
        """
        Take the inner packets out of transport messages for this session.

        Each packet is cut to the length that its own IP header tells.  What
        cannot be accepted is left out and counted.

        @return: the packets, and the number of bytes that all authentic
            messages had together, keep-alives included (so that it is 0 only
            if none was authentic).
        """
        window = self._window
        decrypt = self._decrypt
        packets: list[bytes] = []
        authentic = 0
        # A run of messages in order is marked in the window as a whole: all
        # counters from `runStart` up to, but not including, `expected`.
        runStart = expected = window.newest + 1
        for datagram in datagrams:
            size = len(datagram)
            if size < MIN_TRANSPORT_LENGTH:
                counters.droppedMalformed += 1
                continue
            (counter,) = _counterOf(datagram)
            inOrder = counter == expected and counter < REJECT_AFTER_MESSAGES
            if not inOrder:
                if expected > runStart:
                    window.markRun(runStart, expected - 1)
                    runStart = expected
                if counter >= REJECT_AFTER_MESSAGES or not window.isFresh(counter):
                    counters.droppedReplay += 1
                    continue
            try:
                packet = decrypt(
                    _nonceOf(counter), datagram[TRANSPORT_HEADER_LENGTH:], None
                )
            except InvalidTag:
                counters.droppedUnauthentic += 1
                continue
            authentic += size
            if inOrder:
                expected += 1
            else:
                window.mark(counter)
                runStart = expected = window.newest + 1
            size -= MIN_TRANSPORT_LENGTH
            if not size:
                counters.keepalivesReceived += 1
                continue
            if size < 20:
                counters.droppedInner += 1
                continue
            first, length = _headOf(packet)
            if first >> 4 == 6 and size >= 40:
                length = _payloadLengthOf(packet)[0] + 40
            elif first >> 4 != 4:
                length = 0
            if length == size:
                packets.append(packet)
            elif 20 <= length < size:
                packets.append(packet[:length])
            else:
                counters.droppedInner += 1
        if expected > runStart:
            window.markRun(runStart, expected - 1)
        return packets, authentic

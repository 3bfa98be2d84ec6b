"""
A session: the keys and counters that one handshake gave us.

This is the hot end of the tunnel.  Whole lists go in and come out; the AEAD
objects live as long as the session; nothing else is made per packet.
"""

from __future__ import annotations

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
        "isRenewing",
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
        self.isRenewing = False
        """Whether receiving on this session made us start its renewal."""

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
        # counters from `first` up to, but not including, `expected`.
        first = expected = window.newest + 1
        for datagram in datagrams:
            size = len(datagram)
            if size < MIN_TRANSPORT_LENGTH:
                counters.droppedMalformed += 1
                continue
            number = datagram[8:16]
            counter = int.from_bytes(number, "little")
            inOrder = counter == expected and counter < REJECT_AFTER_MESSAGES
            if not inOrder:
                if expected > first:
                    window.markRun(first, expected - 1)
                    first = expected
                if counter >= REJECT_AFTER_MESSAGES or not window.isFresh(counter):
                    counters.droppedReplay += 1
                    continue
            try:
                packet = decrypt(
                    _NONCE_PREFIX + number, datagram[TRANSPORT_HEADER_LENGTH:], None
                )
            except InvalidTag:
                counters.droppedUnauthentic += 1
                continue
            authentic += size
            if inOrder:
                expected += 1
            else:
                window.mark(counter)
                first = expected = window.newest + 1
            size -= MIN_TRANSPORT_LENGTH
            if not size:
                counters.keepalivesReceived += 1
                continue
            version = packet[0] >> 4
            if version == 4 and size >= 20:
                length = packet[2] << 8 | packet[3]
                isSound = 20 <= length <= size
            elif version == 6 and size >= 40:
                length = (packet[4] << 8 | packet[5]) + 40
                isSound = length <= size
            else:
                isSound = False
            if not isSound:
                counters.droppedInner += 1
            elif length == size:
                packets.append(packet)
            else:
                packets.append(packet[:length])
        if expected > first:
            window.markRun(first, expected - 1)
        return packets, authentic

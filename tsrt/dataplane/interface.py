"""
What a tier of the data plane does: runs in, sealed buffers out, and the reverse.

Three tiers do the same, checked by the same tests: plain Python, NumPy, and a small
compiled kernel.  Nothing outside of this package knows which one is in use.

Reference: the WireGuard protocol, section 5.4.6.
"""

from __future__ import annotations

from typing import Protocol

from tsrt.dataplane.runs import Arrived, DatagramRun, SealedRun, SegmentRun


class Opened:
    """What came out of the first messages of a run."""

    __slots__ = ("dropped", "items", "keepalives", "taken")

    def __init__(
        self, taken: int, items: list[Arrived], keepalives: int, dropped: int
    ) -> None:
        """
        @param taken: how many messages were authentic and in order.
        @param items: the packets in them.
        @param keepalives: how many were empty.
        @param dropped: how many held no packet.
        """
        self.taken = taken
        self.items = items
        self.keepalives = keepalives
        self.dropped = dropped


class Sealer(Protocol):
    """Seals what leaves by one session."""

    def seal(
        self, packets: list[bytes], prefix: bytes, counter: int, mtu: int
    ) -> list[bytes]:
        """
        Make transport messages of packets; an empty one is a keep-alive.

        Each is padded with zeros to a multiple of 16, but not beyond the MTU.

        @param prefix: type and receiver index.
        @param counter: of the first message.
        @param mtu: the largest packet, in bytes.
        """

    def sealRun(
        self, run: SegmentRun, prefix: bytes, counter: int, mtu: int
    ) -> SealedRun:
        """Make transport messages of a run, as L{seal} does."""


class Opener(Protocol):
    """Opens what arrives by one session."""

    def open(self, datagram: bytes, counter: int) -> bytes | None:
        """
        The plaintext of one transport message.

        @param counter: the one that it carries.
        @return: L{None} if it is not authentic.
        """

    def openRun(self, run: DatagramRun, first: int, counter: int) -> Opened:
        """
        Open the messages of a run for as long as they are authentic and carry
        one counter after the other.

        @param first: the first message to look at.
        @param counter: the one that it carries.
        """


class Tier(Protocol):
    """
    One way to do the work.

    @ivar name: what users call it: C{plain}, C{fast} or C{compiled}.
    """

    name: str

    def sealer(self, key: bytes) -> Sealer:
        """A sealer for a key of 32 bytes."""

    def opener(self, key: bytes) -> Opener:
        """An opener for a key of 32 bytes."""

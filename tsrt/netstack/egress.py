"""
The way out: which address packets come from, how large they may be, and
whether they leave at all or come back to this node.

Reference: RFC 1191 and RFC 8201 (path MTU), RFC 6864 (identification).
"""

from __future__ import annotations

from collections.abc import Callable

from tsrt.dataplane.runs import Arrived, countOf
from tsrt.netstack.limits import StackCounters, StackLimits
from tsrt.wire.ip import buildPackets

LEAST_MTU_4 = 576
"""What every IPv4 host takes; lower path MTUs are not believed."""

LEAST_MTU_6 = 1280
"""What every IPv6 link carries (RFC 8200 section 5)."""


def isUnicast(address: bytes) -> bool:
    """
    Whether an address can be that of one remote host.

    Multicast, unspecified, broadcast and loopback addresses cannot.
    """
    if len(address) == 4:
        return 0 < address[0] < 224 and address[0] != 127
    return len(address) == 16 and address[0] != 0xFF and address[:15] != bytes(15)


class Egress:
    """
    Collects outgoing packets between two drains.

    @ivar addresses: the packed addresses of this node, the preferred one of
        each family first.
    @ivar local: the same for look-ups.
    @ivar mtu: the largest packet that may leave.
    """

    __slots__ = (
        "_anyAddress",
        "_counters",
        "_ident",
        "_limits",
        "_loopback",
        "_looping",
        "_packets",
        "_pathMTUs",
        "addresses",
        "local",
        "mtu",
    )

    def __init__(
        self,
        randbytes: Callable[[int], bytes],
        mtu: int,
        limits: StackLimits,
        counters: StackCounters,
        anyAddress: bool,
    ) -> None:
        """
        @param anyAddress: whether packets may come from addresses that are
            not ours, as a router's do.
        """
        self._anyAddress = anyAddress
        self.mtu = mtu
        self.addresses: tuple[bytes, ...] = ()
        self.local: frozenset[bytes] = frozenset()
        self._limits = limits
        self._counters = counters
        self._ident = int.from_bytes(randbytes(4), "big")
        self._packets: list[bytes] = []
        # To this node itself, and how many packets those are.
        self._loopback: list[Arrived] = []
        self._looping = 0
        self._pathMTUs: dict[bytes, tuple[int, float]] = {}

    # -- addresses -----------------------------------------------------------

    def setAddresses(self, addresses: list[bytes]) -> frozenset[bytes]:
        """
        Replace the addresses of this node.

        @return: those that are gone.
        """
        gone = self.local.difference(addresses)
        self.addresses = tuple(addresses)
        self.local = frozenset(addresses)
        return gone

    def sourceFor(self, destination: bytes) -> bytes | None:
        """The address that packets to C{destination} come from, if any."""
        size = len(destination)
        for address in self.addresses:
            if len(address) == size:
                return address
        return None

    def mayUse(self, source: bytes) -> bool:
        """Whether packets may come from that address."""
        return source in self.local or self._anyAddress

    # -- path MTU ------------------------------------------------------------

    def pathMTU(self, destination: bytes, now: float) -> int:
        """The largest packet that is known to get to C{destination}."""
        known = self._pathMTUs.get(destination)
        if known is None:
            return self.mtu
        if now >= known[1]:
            del self._pathMTUs[destination]
            return self.mtu
        return min(known[0], self.mtu)

    def learnPathMTU(self, destination: bytes, mtu: int, now: float) -> int:
        """
        A router said that packets to C{destination} are too large.

        @param mtu: what it said; 0 if it said nothing (before RFC 1191).
        @return: the path MTU as it is believed now.
        """
        least = LEAST_MTU_4 if len(destination) == 4 else LEAST_MTU_6
        believed = max(mtu, least)
        if believed >= self.pathMTU(destination, now):
            return self.pathMTU(destination, now)
        self._pathMTUs.pop(destination, None)
        if len(self._pathMTUs) >= self._limits.pathMTUs:
            # The one that was learned first.
            del self._pathMTUs[next(iter(self._pathMTUs))]
        self._pathMTUs[destination] = (believed, now + self._limits.pathMTULifetime)
        return believed

    # -- packets ---------------------------------------------------------------

    def send(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        payload: bytes,
        now: float,
    ) -> bool:
        """
        Send a transport message, in fragments if need be.

        @return: whether there was room for it.
        """
        self._ident = (self._ident + 1) & 0xFFFFFFFF
        return self.put(
            buildPackets(
                source,
                destination,
                protocol,
                payload,
                self.pathMTU(destination, now),
                self._ident,
            ),
            destination,
        )

    def put(self, packets: list[bytes], destination: bytes) -> bool:
        """
        Send whole packets to one destination, all of them or none.

        @return: whether there was room for them.
        """
        if destination in self.local:
            return self.loop([*packets])
        if len(self._packets) + len(packets) > self._limits.outbox:
            self._counters.droppedOutbox += len(packets)
            return False
        self._packets += packets
        return True

    def loop(self, items: list[Arrived]) -> bool:
        """
        Send whole packets and runs to this node itself, all of them or none.

        @return: whether there was room for them.
        """
        count = countOf(items)
        if self._looping + count > self._limits.loopbackQueue:
            self._counters.droppedLoopbackQueue += count
            return False
        self._loopback += items
        self._looping += count
        return True

    @property
    def isLooping(self) -> bool:
        """Whether packets to this node itself are waiting."""
        return bool(self._loopback)

    @property
    def isWaiting(self) -> bool:
        """Whether any packets are waiting."""
        return bool(self._packets or self._loopback)

    def take(self) -> list[bytes]:
        """Take the packets that leave."""
        packets = self._packets
        if packets:
            self._packets = []
        return packets

    def takeLoopback(self, most: int) -> tuple[list[Arrived], int]:
        """
        Take what comes back to this node: up to C{most} packets, or one run.

        @return: that, and how many packets it is.
        """
        waiting = self._loopback
        count = self._looping
        if count <= most:
            self._loopback = []
            self._looping = 0
            return waiting, count
        at = count = 0
        for item in waiting:
            size = 1 if isinstance(item, bytes) else item.count
            if at and count + size > most:
                break
            at += 1
            count += size
        self._loopback = waiting[at:]
        self._looping -= count
        return waiting[:at], count

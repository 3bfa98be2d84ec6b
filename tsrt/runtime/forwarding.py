"""
The second stack of a node: the one that takes packets to other addresses.

What goes through a subnet router or an exit node never meets the stack of the
node's own applications (R-FWD-3), nor do its ports and limits.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from tsrt.counters import Counters
from tsrt.netmap.forwarding import ForwardTable
from tsrt.netstack.flowtable import FlowCheck
from tsrt.netstack.limits import StackLimits
from tsrt.netstack.stack import Stack
from tsrt.runtime.overlay import NodeOverlay

FORWARD_LIMITS = StackLimits(
    halfOpen=2048,
    halfOpenPerRemote=1024,
    bindings=4096,
    datagramQueue=1024,
    datagramQueueBytes=1 << 20,
    outbox=8192,
)
"""Room for the flows of many peers; what each of them gets is bounded above."""


class ForwardCounters(Counters):
    """Flows that were forwarded, and why others were not."""

    __slots__ = (
        "droppedExit",
        "droppedFailed",
        "droppedForbidden",
        "droppedFull",
        "droppedIPv6",
        "droppedNotAdvertised",
        "droppedPort",
        "droppedProxyUDP",
        "pings",
        "tcpFlows",
        "udpFlows",
    )
    droppedExit: int
    droppedFailed: int
    droppedForbidden: int
    droppedFull: int
    droppedIPv6: int
    droppedNotAdvertised: int
    droppedPort: int
    droppedProxyUDP: int
    pings: int
    tcpFlows: int
    udpFlows: int


class ForwardingOverlay:
    """
    Implements L{tsrt.overlay.context.OverlayContext} for forwarded flows.

    Like the node's own overlay it outlives starts and stops.

    @ivar table: what is forwarded at present.
    @ivar counters: what became of the flows.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        overlay: NodeOverlay,
        randbytes: Callable[[int], bytes],
    ) -> None:
        """
        @param overlay: the node's own.
        """
        self.reactor = reactor
        self.stack = Stack(randbytes=randbytes, limits=FORWARD_LIMITS, anyAddress=True)
        self.table = ForwardTable()
        self.counters = ForwardCounters()
        self._overlay = overlay
        self._peerOf: Callable[[bytes], bytes | None] = lambda address: None
        self._tell: Callable[[ForwardTable], object] = lambda table: None
        self._cut: Callable[[FlowCheck], object] = lambda isAllowed: None

    def now(self) -> float:
        """The time as the node counts it."""
        return self._overlay.now()

    def flush(self) -> None:
        """Ask the data path to send what waits, if there is one."""
        self._overlay.flush()

    def resolve(self, name: str) -> list[bytes]:
        """Forwarded flows have no names."""
        return []

    def localAddresses(self) -> list[bytes]:
        """Forwarded flows have none of our addresses."""
        return []

    def whenUp(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call C{callback} once addresses and routes are known."""
        return self._overlay.whenUp(callback)

    def peerOf(self, address: bytes) -> bytes:
        """Whose flow it is that comes from a packed address, as a raw node key."""
        return self._peerOf(address) or address

    def routeCounts(self) -> tuple[int, int]:
        """How many networks are offered, and how many of those were approved."""
        offered = sum(prefix.length > 0 for prefix in self.table.prefixes)
        approved = sum(prefix.length > 0 for prefix in self.table.approved)
        return offered, approved

    # -- for the runtime -----------------------------------------------------------

    def follow(
        self,
        tell: Callable[[ForwardTable], object],
        cut: Callable[[FlowCheck], object],
    ) -> None:
        """
        Say who is told: the forwarder, of which there is one.

        @param tell: told of other tables.
        @param cut: told which datagrams of peers the rules in force let in.
        """
        self._tell = tell
        self._cut = cut

    def cutDatagrams(self, isAllowed: FlowCheck) -> None:
        """Other rules are in force: end the flows that they forbid."""
        self._cut(isAllowed)

    def setTable(
        self, table: ForwardTable, peerOf: Callable[[bytes], bytes | None]
    ) -> None:
        """
        Forward by this table from now on.

        @param peerOf: gives the peer that may send from an address.
        """
        self._peerOf = peerOf
        former, self.table = self.table, table
        if table != former:
            self._tell(table)

"""UDP bindings: the datagram side of the stack, as applications see it."""

from __future__ import annotations

import enum
from collections import deque
from typing import NamedTuple

from tsrt.errors import WireError
from tsrt.netstack.egress import Egress
from tsrt.netstack.limits import StackCounters, StackLimits
from tsrt.netstack.ports import BindingClosed, PortTable, Scope, checkPort, covers
from tsrt.wire.ip import PROTOCOL_UDP
from tsrt.wire.udp import MAX_PAYLOAD, buildUDP

_QUEUE_OVERHEAD = 64
"""What an entry of a queue counts besides its data, so that empty ones count."""


class DatagramTooLong(WireError):
    """The datagram is longer than UDP can carry."""

    advice = f"A datagram carries at most {MAX_PAYLOAD} bytes."


class DatagramFailure(enum.Enum):
    """Why a datagram that was sent did not arrive."""

    PORT_UNREACHABLE = "port unreachable"
    """Nobody listens on that port over there."""

    UNREACHABLE = "unreachable"
    """The network or the host cannot be reached."""

    PROHIBITED = "prohibited"
    """A filter on the way refuses it."""

    TOO_BIG = "too big"
    """It did not fit a link on the way; the next one will be cut smaller."""

    EXPIRED = "expired"
    """It went round in circles, or its fragments did not all arrive."""

    ADDRESS_REMOVED = "address removed"
    """The address that the binding is bound to is not ours any more."""


class DatagramError(NamedTuple):
    """
    An error that the network reported about a datagram of ours.

    @ivar address: packed, whom the datagram was for.
    @ivar port: the port that it was for.
    """

    failure: DatagramFailure
    address: bytes
    port: int


class Received(NamedTuple):
    """
    A received datagram.

    @ivar address: packed, who sent it.
    @ivar localAddress: packed, which of our addresses it was sent to.
    """

    data: bytes
    address: bytes
    port: int
    localAddress: bytes


class UDPBinding:
    """
    A bound UDP port.

    @ivar owner: for the application; the stack never looks at it.
    @ivar port: the bound port.
    @ivar scope: what was bound: L{None} for any address, 4, 6, or one packed
        address.
    @ivar errors: what the network reported, oldest first.  The application
        takes from it.
    @ivar dropped: datagrams that arrived while the queue was full.
    """

    __slots__ = (
        "_counters",
        "_egress",
        "_limits",
        "_peer",
        "_queue",
        "_queueLimit",
        "_queuedBytes",
        "_table",
        "closed",
        "dropped",
        "errors",
        "owner",
        "port",
        "scope",
    )

    def __init__(
        self,
        scope: Scope,
        port: int,
        table: PortTable[UDPBinding],
        egress: Egress,
        limits: StackLimits,
        counters: StackCounters,
        queueLimit: int | None = None,
    ) -> None:
        """
        Take the port.  Applications use C{Stack.bindUDP}.

        @param queueLimit: most datagrams that wait for the application.
        @raise PortInUse: if the port is taken.
        """
        self.scope = scope
        self.port = port
        self.owner: object | None = None
        self.errors: deque[DatagramError] = deque()
        self.dropped = 0
        self.closed = False
        self._table = table
        self._egress = egress
        self._limits = limits
        self._counters = counters
        self._queue: deque[Received] = deque()
        self._queuedBytes = 0
        self._queueLimit = limits.datagramQueue if queueLimit is None else queueLimit
        self._peer: tuple[bytes, int] | None = None
        table.add(scope, port, self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._queue)} waiting"
        return f"<UDPBinding port={self.port} {state}>"

    # -- application side --------------------------------------------------------

    def send(
        self,
        data: bytes,
        address: bytes,
        port: int,
        now: float,
        localAddress: bytes | None = None,
    ) -> bool:
        """
        Send one datagram, which may be empty.

        @param localAddress: which of our addresses it comes from, to answer
            from the one that was asked.
        @return: whether it was sent; not if the node has no address of that
            family (yet), or too much waits to be sent.
        @raise DatagramTooLong: if it is longer than 65,507 bytes.
        @raise BindingClosed: after L{close}.
        """
        if self.closed:
            raise BindingClosed("the UDP port was closed")
        checkPort(port)
        if len(data) > MAX_PAYLOAD:
            raise DatagramTooLong(f"a datagram of {len(data)} bytes")
        if localAddress is None:
            if isinstance(self.scope, bytes):
                localAddress = self.scope
            else:
                localAddress = self._egress.sourceFor(address)
        if (
            localAddress is None
            or len(localAddress) != len(address)
            or not covers(self.scope, localAddress)
            or not self._egress.mayUse(localAddress)
        ):
            self._counters.droppedNoSource += 1
            return False
        message = buildUDP(localAddress, self.port, address, port, bytes(data))
        if not self._egress.send(localAddress, address, PROTOCOL_UDP, message, now):
            return False
        self._counters.datagramsSent += 1
        return True

    def receive(self) -> Received | None:
        """The oldest datagram that waits, if any does."""
        if not self._queue:
            return None
        received = self._queue.popleft()
        self._queuedBytes -= len(received.data) + _QUEUE_OVERHEAD
        return received

    @property
    def waiting(self) -> int:
        """How many datagrams wait to be received."""
        return len(self._queue)

    def connect(self, address: bytes, port: int) -> None:
        """Receive datagrams and errors from that remote end only."""
        checkPort(port)
        self._peer = (address, port)

    def disconnect(self) -> None:
        """Receive from everybody again."""
        self._peer = None

    def close(self) -> None:
        """Give the port back and drop what waits; more than once is fine."""
        if self.closed:
            return
        self.closed = True
        self._table.remove(self.scope, self.port, self)
        self._queue.clear()
        self._queuedBytes = 0
        self.errors.clear()

    # -- stack side ----------------------------------------------------------------

    def accepts(self, address: bytes, port: int) -> bool:
        """Whether the binding receives from that remote end."""
        return self._peer is None or self._peer == (address, port)

    def deliver(self, received: Received) -> bool:
        """
        Queue a datagram for the application.

        @return: whether there was room.
        """
        size = len(received.data) + _QUEUE_OVERHEAD
        if (
            len(self._queue) >= self._queueLimit
            or self._queuedBytes + size > self._limits.datagramQueueBytes
        ):
            self.dropped += 1
            self._counters.droppedDatagramQueue += 1
            return False
        self._queue.append(received)
        self._queuedBytes += size
        self._counters.datagramsDelivered += 1
        return True

    def fail(self, error: DatagramError) -> bool:
        """
        Queue an error for the application.

        @return: whether there was room.
        """
        if len(self.errors) >= self._limits.errorQueue:
            self._counters.droppedErrorQueue += 1
            return False
        self.errors.append(error)
        return True

"""
Listening: flows that are being opened by others, until an application takes
them.

Nothing that a stranger sends makes a listener grow beyond its bounds: there is
one for half-open flows, one for those of a single remote address, and one for
flows that wait to be accepted.  Beyond them SYNs are dropped, and an honest
peer repeats its SYN.

Reference: RFC 9293 section 3.10.7.2, RFC 4987 (SYN flooding).
"""

from __future__ import annotations

from collections import deque

from tsrt.netstack.flow import TCPFlow, TCPOptions
from tsrt.netstack.limits import StackCounters, StackLimits
from tsrt.netstack.ports import PortTable, Scope


class Listener:
    """
    A listening TCP port.

    @ivar owner: for the application; the stack never looks at it.
    @ivar port: the port that is listened on; 0 for a listener without a port,
        which gets what a fallback gives it.
    @ivar scope: what was bound: L{None} for any address, 4, 6, or one packed
        address.
    @ivar backlog: most established flows that wait to be accepted.
    @ivar options: the settings of the flows.
    @ivar dropped: SYNs dropped at one of the bounds.
    """

    __slots__ = (
        "_accepted",
        "_counters",
        "_halfOpen",
        "_limits",
        "_perRemote",
        "_table",
        "backlog",
        "closed",
        "dropped",
        "options",
        "owner",
        "port",
        "scope",
    )

    def __init__(
        self,
        scope: Scope,
        port: int,
        backlog: int,
        options: TCPOptions,
        table: PortTable[Listener],
        limits: StackLimits,
        counters: StackCounters,
    ) -> None:
        """
        Take the port.  Applications use C{Stack.listenTCP}.

        @raise PortInUse: if the port is taken.
        """
        self.owner: object | None = None
        self.scope = scope
        self.port = port
        self.backlog = backlog
        self.options = options
        self.closed = False
        self.dropped = 0
        self._table = table
        self._limits = limits
        self._counters = counters
        # Half-open flows with the time of their SYN, oldest first.
        self._halfOpen: dict[TCPFlow, float] = {}
        self._perRemote: dict[bytes, int] = {}
        self._accepted: deque[TCPFlow] = deque()
        table.add(scope, port, self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.waiting} waiting"
        return f"<Listener port={self.port} {state}>"

    # -- application side ----------------------------------------------------

    def accept(self) -> TCPFlow | None:
        """
        Take the oldest flow that is established, if there is one.

        Flows that ended meanwhile and left nothing to read are passed over.
        """
        while self._accepted:
            flow = self._accepted.popleft()
            if flow.closeReason is None or flow.readable:
                return flow
        return None

    @property
    def waiting(self) -> int:
        """How many flows wait to be accepted."""
        return len(self._accepted)

    @property
    def halfOpen(self) -> int:
        """How many flows have not finished their handshake."""
        return len(self._halfOpen)

    def close(self, now: float = 0.0) -> None:
        """
        Stop listening; more than once is fine.

        Flows that were accepted live on, those that were not are reset.

        @param now: unused; every operation may be given the time.
        """
        if self.closed:
            return
        self.closed = True
        self._table.remove(self.scope, self.port, self)
        for flow in (*self._halfOpen, *self._accepted):
            flow.abort()
        self._halfOpen.clear()
        self._perRemote.clear()
        self._accepted.clear()

    # -- stack side ------------------------------------------------------------

    def admits(self, remote: bytes, now: float) -> bool:
        """
        Whether there is room for one more half-open flow.

        @param remote: packed address that it comes from.
        """
        if len(self._accepted) >= self.backlog:
            self.dropped += 1
            self._counters.droppedBacklog += 1
            return False
        self._reap(now)
        limits = self._limits
        if (
            len(self._halfOpen) >= limits.halfOpen
            or self._perRemote.get(remote, 0) >= limits.halfOpenPerRemote
        ):
            self.dropped += 1
            self._counters.droppedHalfOpen += 1
            return False
        return True

    def _reap(self, now: float) -> None:
        """Give up the half-open flows that took too long."""
        expired = now - self._limits.halfOpenTimeout
        while self._halfOpen:
            flow = next(iter(self._halfOpen))
            if self._halfOpen[flow] > expired:
                break
            self.forget(flow)
            flow.abort()

    def begin(self, flow: TCPFlow, now: float) -> None:
        """A flow is half-open."""
        self._halfOpen[flow] = now
        remote = flow.remoteAddress
        self._perRemote[remote] = self._perRemote.get(remote, 0) + 1

    def forget(self, flow: TCPFlow) -> None:
        """A flow is not half-open any more, if it was."""
        if self._halfOpen.pop(flow, None) is None:
            return
        remote = flow.remoteAddress
        left = self._perRemote[remote] - 1
        if left:
            self._perRemote[remote] = left
        else:
            del self._perRemote[remote]

    def promote(self, flow: TCPFlow) -> None:
        """A half-open flow has finished its handshake and can be accepted."""
        self.forget(flow)
        self._accepted.append(flow)

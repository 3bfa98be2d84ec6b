"""
All TCP flows of a stack: finding the flow of a segment, opening, waking,
sending for and burying flows.

A flow is found by the bytes of its addresses and ports as they stand in an
incoming packet, so that the key of a plain packet is one slice of it.

Reference: RFC 9293 sections 3.5.2 and 3.10.7.1 (resets).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import TypeAlias

from tsrt.dataplane.runs import Outgoing, arrivedOf, countOf
from tsrt.errors import NoFreePort, PortInUse
from tsrt.netstack.egress import Egress
from tsrt.netstack.flow import DISPATCH_LIMIT, TCPFlow, TCPOptions, TCPState
from tsrt.netstack.held import HeldSYN
from tsrt.netstack.icmperrors import NetworkError, Trouble
from tsrt.netstack.limits import RateLimiter, StackCounters, StackLimits
from tsrt.netstack.listen import Listener
from tsrt.netstack.ports import PortTable, chooseEphemeral
from tsrt.netstack.ready import DeadlineHeap, ReadyList
from tsrt.netstack.seq import initialSequence
from tsrt.netstack.share import Share
from tsrt.wire.tcp import ACK, FIN, RST, SYN, Segment, SegmentBuilder

Fallback: TypeAlias = Callable[[bytes, int, bytes, int], Listener | HeldSYN | None]
"""Asked with remote address and port, local address and port."""

FlowCheck: TypeAlias = Callable[[bytes, bytes, int], bool]
"""Asked with the remote address, and the local address and port, of a flow."""

NodeAt: TypeAlias = Callable[[bytes], bytes]
"""Asked for what all addresses of a remote node have in common, which is the same for no
address of another one; the address itself where nothing is known."""

TURN_LIMIT = 512
"""Packets that flows make before those are sent on their way."""

CALLED_LIMIT = 2 * DISPATCH_LIMIT
"""Packets that a flow makes when its turn has come: the longer, the cheaper each."""

_PORTS = struct.Struct("!HH")
_SYN_BITS = SYN | ACK | RST | FIN
_RECLAIM_PAUSE = 1.0


def flowKey(remote: bytes, local: bytes, remotePort: int, localPort: int) -> bytes:
    """The key of a flow: what an incoming packet of it has in its headers."""
    return remote + local + _PORTS.pack(remotePort, localPort)


class FlowTable:
    """
    The flows of one stack.

    @ivar fallback: who listens where nobody does; L{None} refuses.
    @ivar nodeAt: knows which addresses are of one node, whose flows L{Share} a path.
    """

    __slots__ = (
        "_called",
        "_counters",
        "_egress",
        "_embryos",
        "_flows",
        "_limits",
        "_pending",
        "_randbytes",
        "_ready",
        "_reclaimAt",
        "_resets",
        "_secret",
        "_shares",
        "_timers",
        "fallback",
        "listeners",
        "nodeAt",
    )

    def __init__(
        self,
        egress: Egress,
        ready: ReadyList[object],
        randbytes: Callable[[int], bytes],
        limits: StackLimits,
        counters: StackCounters,
    ) -> None:
        self.listeners: PortTable[Listener] = PortTable()
        self.fallback: Fallback | None = None
        self.nodeAt: NodeAt = lambda address: address
        self._egress = egress
        self._ready = ready
        self._randbytes = randbytes
        self._secret = randbytes(32)
        self._limits = limits
        self._counters = counters
        self._resets = RateLimiter(limits.resetRate, limits.resetBurst)
        self._flows: dict[bytes, TCPFlow] = {}
        self._embryos: dict[TCPFlow, Listener] = {}
        # In the order in which they asked.
        self._pending: OrderedDict[TCPFlow, None] = OrderedDict()
        self._timers: DeadlineHeap[TCPFlow] = DeadlineHeap()
        self._shares: dict[bytes, Share] = {}
        # Those with flows that wait, and room for them.
        self._called: dict[Share, None] = {}
        self._reclaimAt = 0.0

    def __len__(self) -> int:
        return len(self._flows)

    def flows(self) -> list[TCPFlow]:
        """All flows, as they are now."""
        return list(self._flows.values())

    @property
    def isPending(self) -> bool:
        """Whether a flow is to be dispatched."""
        return bool(self._pending or self._called)

    # -- opening -----------------------------------------------------------------

    def connect(
        self,
        local: bytes,
        localPort: int,
        remote: bytes,
        remotePort: int,
        options: TCPOptions,
        now: float,
    ) -> TCPFlow:
        """
        Open a flow.

        @param localPort: 0 for any that is free.
        @raise PortInUse: if there is such a flow already.
        @raise NoFreePort: if no port is free, or there are too many flows.
        """
        if not self._hasRoom(now):
            raise NoFreePort("too many TCP connections")
        if localPort == 0:
            localPort = chooseEphemeral(
                self._randbytes,
                lambda port: (
                    flowKey(remote, local, remotePort, port) not in self._flows
                    and not self.listeners.isUsed(port)
                    and not (port == remotePort and local == remote)
                ),
            )
        key = flowKey(remote, local, remotePort, localPort)
        if key in self._flows or (local == remote and localPort == remotePort):
            raise PortInUse(f"port {localPort} already talks to that address and port")
        flow = TCPFlow.connect(
            local,
            localPort,
            remote,
            remotePort,
            iss=initialSequence(self._secret, key, now),
            now=now,
            mtu=self._egress.pathMTU(remote, now),
            options=options,
            pending=self._pending,
        )
        self._add(key, flow)
        self._counters.flowsOpened += 1
        return flow

    def _add(self, key: bytes, flow: TCPFlow) -> None:
        """There is a new flow."""
        self._flows[key] = flow
        remote = flow.remoteAddress
        if remote not in self._egress.local:
            node = self.nodeAt(remote)
            share = self._shares.get(node)
            if share is None:
                share = self._shares[node] = Share(node)
            share.count += 1
            flow.share = share

    def _hasRoom(self, now: float) -> bool:
        """Whether one more flow may be; old remains make room if need be."""
        if len(self._flows) < self._limits.flows:
            return True
        if now < self._reclaimAt:
            return False
        # Flows that only wait for old packets to pass, oldest first.  Looking
        # for them is dear, so it is done for many and not too often.
        most = max(1, self._limits.flows // 8)
        waiting = (flow for flow in self.flows() if flow.state is TCPState.TIME_WAIT)
        for flow, _ in zip(waiting, range(most), strict=False):
            self._retire(flow)
        if len(self._flows) < self._limits.flows:
            return True
        self._reclaimAt = now + _RECLAIM_PAUSE
        return False

    # -- segments ------------------------------------------------------------------

    def arrive(
        self, key: bytes, segments: list[Segment], isV4: bool, now: float
    ) -> None:
        """
        Take segments of one flow, in order of arrival.

        @param key: as L{flowKey} makes it.
        """
        flow = self._flows.get(key)
        if flow is None:
            flow = self._open(key, segments, isV4, now)
            if flow is None:
                return
        elif segments[0].flags & _SYN_BITS == SYN and flow.mayReuse(segments[0]):
            sequence = flow.reuseSequence
            self._retire(flow)
            flow = self._open(key, segments, isV4, now, sequence)
            if flow is None:
                return
        if segments:
            flow.process(segments, now)
        self._settle(flow)

    def _open(
        self,
        key: bytes,
        segments: list[Segment],
        isV4: bool,
        now: float,
        sequence: int | None = None,
    ) -> TCPFlow | None:
        """
        Open a flow for segments that belong to none.

        @param segments: those up to the SYN are taken out of the list.
        """
        size = 4 if isV4 else 16
        remote, local = key[:size], key[size : 2 * size]
        while segments:
            segment = segments.pop(0)
            if segment.flags & _SYN_BITS != SYN:
                self._refuse(segment, local, remote, now)
                continue
            listener = self.listeners.find(local, segment.destinationPort)
            if listener is None and self.fallback is not None:
                found = self.fallback(
                    remote, segment.sourcePort, local, segment.destinationPort
                )
                if isinstance(found, HeldSYN):
                    found.packet = segment.packet
                    continue
                listener = found
            if listener is None or listener.closed:
                self._refuse(segment, local, remote, now)
                continue
            if not listener.admits(remote, now):
                continue
            if not self._hasRoom(now):
                self._counters.droppedFlowLimit += 1
                continue
            if sequence is None:
                sequence = initialSequence(self._secret, key, now)
            flow = TCPFlow.fromSYN(
                segment,
                local,
                remote,
                iss=sequence,
                now=now,
                mtu=self._egress.pathMTU(remote, now),
                options=listener.options,
                pending=self._pending,
            )
            self._add(key, flow)
            self._embryos[flow] = listener
            listener.begin(flow, now)
            return flow
        return None

    def _refuse(
        self, segment: Segment, local: bytes, remote: bytes, now: float
    ) -> None:
        """Answer a segment that belongs to no flow (RFC 9293 3.10.7.1)."""
        self._counters.droppedNoFlow += 1
        flags = segment.flags
        if flags & RST:
            return
        if not self._resets.allow(now):
            self._counters.droppedRateReset += 1
            return
        builder = SegmentBuilder(
            local, segment.destinationPort, remote, segment.sourcePort
        )
        if flags & ACK:
            packet = builder.build(segment.ack, 0, RST, 0)
        else:
            acknowledged = (segment.seq + segment.sequenceLength) & 0xFFFFFFFF
            packet = builder.build(0, acknowledged, RST | ACK, 0)
        if self._egress.put([packet], remote):
            self._counters.resetsSent += 1

    def _settle(self, flow: TCPFlow) -> None:
        """
        See what has become of a flow that something happened to.

        Its deadline is noted when it was dispatched, which follows whatever may
        have changed it.
        """
        if self._embryos:
            listener = self._embryos.get(flow)
            if listener is not None:
                self._hatch(flow, listener)
        if flow.takeReady():
            self._ready.mark(flow)
        flow.recount()
        share = flow.share
        if share is not None and share.waiting and share.hasRoom:
            self._called[share] = None
        if flow.retired:
            self._retire(flow)

    def _hatch(self, flow: TCPFlow, listener: Listener) -> None:
        """Look whether a half-open flow is established, or dead."""
        if flow.established:
            del self._embryos[flow]
            listener.promote(flow)
            self._counters.flowsAccepted += 1
            # In front of the flow's own mark, so that the application knows
            # the flow when it sees that.
            self._ready.mark(listener)
        elif flow.closeReason is not None:
            del self._embryos[flow]
            listener.forget(flow)
            # Nobody knows it, so that nobody is told.
            flow.takeReady()

    def _retire(self, flow: TCPFlow) -> None:
        """Forget a flow."""
        key = flowKey(
            flow.remoteAddress, flow.localAddress, flow.remotePort, flow.localPort
        )
        if self._flows.get(key) is not flow:
            return
        del self._flows[key]
        self._pending.pop(flow, None)
        flow.pending = None
        self._timers.forget(flow)
        self._leave(flow)
        self._counters.flowsRetired += 1

    def _leave(self, flow: TCPFlow) -> None:
        """A flow shares nothing any more."""
        share = flow.share
        if share is None:
            return
        flow.share = None
        share.flight -= flow.counted
        share.waiting.pop(flow, None)
        share.count -= 1
        if not share.count:
            self._called.pop(share, None)
            del self._shares[share.key]
        elif share.waiting and share.hasRoom:
            self._called[share] = None

    # -- the rest of a turn ------------------------------------------------------------

    def dispatch(self, now: float, items: list[Outgoing]) -> None:
        """
        Let the flows that asked for it send, each once, first come first served.

        Those that are left when L{TURN_LIMIT} is reached go on waiting, as do
        those that have more to send, at the end of the queue.  So do those whose
        L{Share} has no room, until it is called; of these one sends in any case,
        so that they wait for no more than a turn of the others.

        @param items: takes what leaves this node; the rest goes to the
            loopback queue.
        """
        pending = self._pending
        count = 0
        for _ in range(len(pending)):
            if count >= TURN_LIMIT:
                break
            flow, _ = pending.popitem(last=False)
            share = flow.share
            mustWait = False
            if share is not None and (share.waiting or not share.hasRoom):
                mustWait = flow.canWait
                if mustWait:
                    share.waiting[flow] = None
            count += self._send(flow, flow.dispatch(now, mustWait=mustWait), items)
        called = self._called
        isServed = False
        while called and not (isServed and count >= TURN_LIMIT):
            share = next(iter(called))
            del called[share]
            # It may have been otherwise when it was called.
            if share.waiting and share.hasRoom:
                flow, _ = share.waiting.popitem(last=False)
                isServed = True
                # Which calls the share again, if more of them may send.
                count += self._send(flow, flow.dispatch(now, CALLED_LIMIT), items)

    def _send(self, flow: TCPFlow, made: list[Outgoing], items: list[Outgoing]) -> int:
        """
        Take what a flow has made.

        @return: how many packets.
        """
        count = 0
        if made:
            count = countOf(made)
            if flow.remoteAddress in self._egress.local:
                self._egress.loop(arrivedOf(made))
            else:
                items += made
        self._settle(flow)
        if not flow.retired:
            self._timers.note(flow)
        return count

    def tick(self, now: float) -> None:
        """Wake the flows whose deadline has come."""
        for flow in self._timers.due(now):
            flow.tick(now)
            self._settle(flow)

    def deadline(self) -> float | None:
        """The earliest deadline of all flows."""
        return self._timers.deadline()

    def trouble(self, error: NetworkError, now: float) -> bool:
        """
        The network reported an error about a segment of ours.

        @return: whether it is about one that is in flight.
        """
        quotation = error.quotation
        remote = quotation.destination
        flow = self._flows.get(
            flowKey(
                remote,
                quotation.source,
                quotation.destinationPort,
                quotation.sourcePort,
            )
        )
        if flow is None or not flow.quotes(quotation.sequence):
            return False
        if error.trouble is Trouble.TOO_BIG:
            flow.reducePathMTU(self._egress.learnPathMTU(remote, error.mtu, now), now)
        else:
            flow.unreachable(now, error.trouble is not Trouble.EXPIRED)
        self._settle(flow)
        return True

    def pathRenewed(self, remotes: Collection[bytes], now: float) -> None:
        """The way to some addresses is good again."""
        for node in {self.nodeAt(remote) for remote in remotes}:
            share = self._shares.get(node)
            if share is not None:
                # It may be another one, for which other round-trip times hold.
                share.smallest = None
                if share.waiting:
                    self._called[share] = None
        for flow in self.flows():
            if flow.remoteAddress in remotes:
                flow.forgetTrip()
                if flow.pathRenewed(now):
                    self._timers.note(flow)

    def cut(self, isAllowed: FlowCheck) -> int:
        """
        Reset the flows that others opened and that are not allowed any more.

        What this node opened to itself is its own affair.

        @return: how many those were.
        """
        count = 0
        for flow in self.flows():
            if flow.isOurs or flow.closeReason is not None:
                continue
            if flow.remoteAddress in self._egress.local:
                continue
            if not isAllowed(flow.remoteAddress, flow.localAddress, flow.localPort):
                count += 1
                flow.abort()
                self._settle(flow)
        return count

    def abandon(self, gone: frozenset[bytes]) -> None:
        """
        Give up the flows of addresses that are gone.

        Their peers are not told: what we sent would come from an address that
        is not ours any more.
        """
        for flow in self.flows():
            if flow.localAddress in gone or flow.remoteAddress in gone:
                flow.abort()
                self._settle(flow)
                self._retire(flow)

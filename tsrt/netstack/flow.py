"""
One TCP connection as a pure machine.

The stack above gives it segments (L{TCPFlow.process}), asks it for packets
(L{TCPFlow.dispatch}) and wakes it at the time it names (L{TCPFlow.deadline},
L{TCPFlow.tick}).  The application writes and reads, and learns from marks what
has changed.  Nothing here calls anybody: whoever changes a flow finds it in
the queue L{TCPFlow.pending} when it wants to be dispatched.

Reference: RFC 9293.
"""

from __future__ import annotations

from tsrt.dataplane.runs import Outgoing
from tsrt.netstack import arrival, output, timers
from tsrt.netstack.seq import MASK, precedes, unwrap
from tsrt.netstack.share import Share
from tsrt.netstack.tcb import ControlBlock
from tsrt.netstack.tcpoptions import DEFAULTS, TCPOptions
from tsrt.netstack.tcpstate import CloseReason, TCPState
from tsrt.wire.tcp import ACK, FIN, RST, SYN, Segment, SegmentBuilder

__all__ = ["DISPATCH_LIMIT", "CloseReason", "TCPFlow", "TCPOptions", "TCPState"]

DISPATCH_LIMIT = 392
"""
Packets that one dispatch makes unless told otherwise: those of eight writes, which
take 65,507 bytes each, when they are of 1,280 bytes and sealed.
"""

_MIN_MTU_IPV4 = 576
_MIN_MTU_IPV6 = 1280
_REUSE_STEP = 65537

_CLOSED = TCPState.CLOSED
_SYN_SENT = TCPState.SYN_SENT
_SYN_RECEIVED = TCPState.SYN_RECEIVED
_ESTABLISHED = TCPState.ESTABLISHED
_CLOSE_WAIT = TCPState.CLOSE_WAIT
_FIN_WAIT_2 = TCPState.FIN_WAIT_2
_LAST_ACK = TCPState.LAST_ACK
_TIME_WAIT = TCPState.TIME_WAIT


class TCPFlow:
    """
    A TCP connection.

    @ivar localAddress: packed address of this side.
    @ivar localPort: port of this side.
    @ivar remoteAddress: packed address of the peer.
    @ivar remotePort: port of the peer.
    @ivar owner: whatever the application keeps here; never touched.
    @ivar share: what the flow shares with others to the same address, if anything.
    @ivar counted: bytes that are counted there as being on their way.
    @ivar pending: the stack's queue of flows that want to be dispatched; the
        flow adds itself.  L{None} while it belongs to no stack.
    """

    __slots__ = (
        "__weakref__",
        "_tcb",
        "_wanting",
        "counted",
        "localAddress",
        "localPort",
        "owner",
        "pending",
        "remoteAddress",
        "remotePort",
        "share",
    )

    def __init__(
        self,
        localAddress: bytes,
        localPort: int,
        remoteAddress: bytes,
        remotePort: int,
        *,
        iss: int,
        now: float,
        mtu: int,
        options: TCPOptions = DEFAULTS,
        active: bool = True,
        pending: dict[TCPFlow, None] | None = None,
    ) -> None:
        """
        L{connect} and L{fromSYN} are the ways to make a flow.

        @param iss: initial sequence number, hard to guess (see
            L{tsrt.netstack.seq.initialSequence}).
        @param mtu: largest IP packet that the path carries, in bytes.
        @param active: whether this side opens the connection.
        """
        self.localAddress = localAddress
        self.localPort = localPort
        self.remoteAddress = remoteAddress
        self.remotePort = remotePort
        self.owner: object | None = None
        self.pending = pending
        self.share: Share | None = None
        self.counted = 0
        self._wanting = False
        builder = SegmentBuilder(localAddress, localPort, remoteAddress, remotePort)
        self._tcb = ControlBlock(builder, iss, mtu, options, active, now)
        self._want()

    @classmethod
    def connect(
        cls,
        localAddress: bytes,
        localPort: int,
        remoteAddress: bytes,
        remotePort: int,
        *,
        iss: int,
        now: float,
        mtu: int = 1280,
        options: TCPOptions = DEFAULTS,
        pending: dict[TCPFlow, None] | None = None,
    ) -> TCPFlow:
        """An active open: the first dispatch gives the SYN."""
        return cls(
            localAddress,
            localPort,
            remoteAddress,
            remotePort,
            iss=iss,
            now=now,
            mtu=mtu,
            options=options,
            pending=pending,
        )

    @classmethod
    def fromSYN(
        cls,
        segment: Segment,
        localAddress: bytes,
        remoteAddress: bytes,
        *,
        iss: int,
        now: float,
        mtu: int = 1280,
        options: TCPOptions = DEFAULTS,
        pending: dict[TCPFlow, None] | None = None,
    ) -> TCPFlow:
        """
        A passive open: the first dispatch gives the SYN and ACK.

        @param segment: the peer's SYN, without ACK, RST and FIN.
        @param localAddress: packed address that it was sent to.
        @param remoteAddress: packed address that it came from.
        """
        flow = cls(
            localAddress,
            segment.destinationPort,
            remoteAddress,
            segment.sourcePort,
            iss=iss,
            now=now,
            mtu=mtu,
            options=options,
            active=False,
            pending=pending,
        )
        flow._tcb.peerOffers(segment.seq, segment.options, now)
        return flow

    def __repr__(self) -> str:
        return (
            f"<TCPFlow {self.localPort}>{self.remotePort} {self.state.name} "
            f"queued={self.queued} readable={self.readable}>"
        )

    # -- what the application sees -------------------------------------------

    @property
    def state(self) -> TCPState:
        """Where in its life the flow is."""
        return self._tcb.state

    @property
    def isOurs(self) -> bool:
        """Whether this side opened the connection."""
        return self._tcb.active

    @property
    def established(self) -> bool:
        """Whether the handshake has succeeded, however the flow went on."""
        return self._tcb.established

    @property
    def closeReason(self) -> CloseReason | None:
        """Why the flow is over; L{None} while it is not."""
        return self._tcb.closeReason

    @property
    def readable(self) -> int:
        """Bytes that can be read."""
        receiver = self._tcb.receiver
        return 0 if receiver is None else receiver.buffer.readable

    @property
    def eof(self) -> bool:
        """Whether the peer has finished and everything has been read."""
        receiver = self._tcb.receiver
        return (
            receiver is not None and receiver.finished and not receiver.buffer.readable
        )

    @property
    def queued(self) -> int:
        """Bytes written and not yet acknowledged."""
        return len(self._tcb.sender.buffer)

    @property
    def sendWindow(self) -> int:
        """Bytes that path and peer would take at a time, acknowledged or not."""
        sender = self._tcb.sender
        return int(min(sender.congestion.window, sender.window.size))

    @property
    def writeLowWater(self) -> int:
        """
        The mark WRITABLE is set when L{queued} falls to this many bytes.
        """
        return self._tcb.writeLowWater

    @writeLowWater.setter
    def writeLowWater(self, size: int) -> None:
        self._tcb.writeLowWater = size

    def takeMarks(self) -> int:
        """
        What has happened since the last call, as marks of
        L{tsrt.netstack.tcpstate}: READABLE, WRITABLE, ESTABLISHED, EOF, CLOSED.
        """
        tcb = self._tcb
        marks = tcb.marks
        tcb.marks = 0
        return marks

    # -- what the application does -------------------------------------------

    def write(self, data: bytes | bytearray | memoryview, now: float = 0.0) -> None:
        """
        Queue bytes for the peer.

        There is no limit here; the application watches L{queued}.  Once the
        flow is over or the write side is shut, bytes are dropped.

        @param now: unused, as with the next few; every operation may be given
            the time.
        """
        tcb = self._tcb
        if tcb.closeReason is None and not tcb.sender.finQueued and data:
            tcb.sender.buffer.append(data)
            self._want()

    def read(self, limit: int | None = None, now: float = 0.0) -> bytes:
        """
        Take received bytes; this opens the window for the peer.

        Works after the flow is over, too.

        @param limit: most bytes; L{None} for all.
        """
        receiver = self._tcb.receiver
        if receiver is None:
            return b""
        data = receiver.read(limit)
        if receiver.ackNow:
            self._want()
        return data

    def shutdownWrite(self, now: float = 0.0) -> None:
        """Finish our stream once all of it has gone out; reading goes on."""
        tcb = self._tcb
        sender = tcb.sender
        if tcb.closeReason is not None or sender.finQueued:
            return
        sender.finQueued = True
        if tcb.state is _ESTABLISHED:
            tcb.state = TCPState.FIN_WAIT_1
        elif tcb.state is _CLOSE_WAIT:
            tcb.state = _LAST_ACK
        self._want()

    def abort(self, now: float = 0.0) -> None:
        """Give the flow up at once; the peer gets a reset."""
        tcb = self._tcb
        if tcb.closeReason is None:
            tcb.reset(CloseReason.ABORTED)
            self._want()

    def release(self, now: float) -> None:
        """
        Lose interest: finish our stream and take no more of the peer's.

        What was written still goes out, unless our SYN is not answered yet.
        Data that arrives from now on resets the flow, and so does data that
        was not read: the peer must not believe that it was taken (RFC 9293
        section 3.10.4, RFC 2525 section 2.17).  A peer that keeps its window
        closed is not waited for without end any more.
        """
        tcb = self._tcb
        if tcb.discarding:
            return
        tcb.discarding = True
        tcb.sender.patient = False
        receiver = tcb.receiver
        if tcb.closeReason is not None:
            if receiver is not None:
                receiver.buffer.clear()
        elif receiver is None or receiver.buffer.readable:
            tcb.reset(CloseReason.ABORTED)
            if receiver is not None:
                receiver.buffer.clear()
        else:
            self.shutdownWrite()
            if tcb.state is _FIN_WAIT_2:
                tcb.expectFin(now)
        self._want()

    def setNoDelay(self, noDelay: bool) -> None:
        """
        Send small segments at once instead of gathering them.

        @param noDelay: whether to turn Nagle's algorithm off.
        """
        self._tcb.sender.noDelay = noDelay
        if noDelay:
            self._want()

    def setKeepAlive(
        self,
        idle: float | None,
        interval: float = 75.0,
        count: int = 9,
        *,
        now: float,
    ) -> None:
        """
        Probe a silent peer.

        @param idle: seconds of silence before the first probe; L{None} turns
            probing off.
        @param interval: seconds between probes.
        @param count: unanswered probes after which the flow ends.
        """
        self._tcb.keepAlive.configure(idle, interval, count, now)
        self._want()

    # -- what the stack does -------------------------------------------------

    @property
    def retired(self) -> bool:
        """Whether the stack may forget the flow."""
        tcb = self._tcb
        return tcb.state is _CLOSED and not tcb.replies

    @property
    def wantsDispatch(self) -> bool:
        """Whether L{dispatch} may have something to give."""
        return self._wanting

    def process(self, segments: list[Segment], now: float) -> None:
        """
        Take in segments of this flow, in the order in which they arrived.

        @param segments: parsed, with right checksums and this flow's ports.
        """
        arrival.process(self._tcb, segments, now)
        self._want()

    @property
    def canWait(self) -> bool:
        """Whether a lot of data is to be sent for the first time."""
        tcb = self._tcb
        return tcb.established and tcb.sender.canWait

    def recount(self) -> None:
        """
        Tell the others at L{share} what is on its way now, and know how short the
        path is that one of them has seen free.
        """
        share = self.share
        if share is not None:
            sender = self._tcb.sender
            flight = sender.pipe
            share.flight += flight - self.counted
            self.counted = flight
            smallest = sender.rtt.smallest
            known = share.smallest
            if smallest is not None and smallest != known:
                if known is None or smallest < known:
                    share.smallest = smallest
                else:
                    sender.rtt.smallest = known

    def dispatch(
        self, now: float, limit: int = DISPATCH_LIMIT, mustWait: bool = False
    ) -> list[Outgoing]:
        """
        The packets and runs that have to go out now.

        @param limit: about how many at most; what is left over keeps the flow
            in L{pending}.
        @param mustWait: whether new data has to wait; see L{canWait}.
        """
        self._wanting = False
        packets, more = output.dispatch(self._tcb, now, limit, mustWait)
        if more:
            self._want()
        return packets

    def takeReady(self) -> bool:
        """Whether marks were set since the last call."""
        tcb = self._tcb
        fresh = tcb.fresh
        tcb.fresh = False
        return fresh

    def deadline(self) -> float | None:
        """When L{tick} has something to do; L{None} for never."""
        return timers.deadline(self._tcb)

    def pathRenewed(self, now: float) -> bool:
        """
        The way to the peer is good again; see L{Sender.pathRenewed}.

        @return: whether the deadline is another one now.
        """
        return self._tcb.sender.pathRenewed(now)

    def forgetTrip(self) -> None:
        """What was the smallest round-trip time says nothing of the path now."""
        self._tcb.sender.rtt.smallest = None

    def tick(self, now: float) -> None:
        """Do what is due; to be followed by L{dispatch}."""
        timers.tick(self._tcb, now)
        self._want()

    def quotes(self, seq: int) -> bool:
        """
        Whether a sequence number that an ICMP message quotes is in flight.

        Others are forged or late, and have to be ignored (RFC 5927).

        @param seq: 32 bits from the quoted header.
        """
        sender = self._tcb.sender
        position = unwrap(seq, sender.una)
        return sender.una <= position < sender.high

    def reducePathMTU(self, mtu: int, now: float) -> None:
        """
        The path carries only smaller packets (RFC 1191, RFC 8201).

        What is in flight goes out again in smaller segments.

        @param mtu: largest IP packet in bytes; increases are ignored.
        """
        tcb = self._tcb
        least = _MIN_MTU_IPV4 if len(self.localAddress) == 4 else _MIN_MTU_IPV6
        mtu = max(mtu, least)
        if mtu < tcb.mtu and tcb.state is not _CLOSED:
            tcb.mtu = mtu
            tcb.resize(now, tcb.established)
            self._want()

    def unreachable(self, now: float, hard: bool) -> None:
        """
        The network says that the peer cannot be reached.

        Ends a flow that is being opened if the error is a hard one; otherwise
        it is only remembered for the case that the flow times out (RFC 5927
        section 5.2, RFC 9293 section 3.9.2.2).

        @param hard: whether the error is lasting, such as a closed port.
        """
        tcb = self._tcb
        if hard and tcb.state in (_SYN_SENT, _SYN_RECEIVED):
            tcb.close(CloseReason.UNREACHABLE)
            self._want()
        else:
            tcb.softError = True

    def mayReuse(self, segment: Segment) -> bool:
        """
        Whether a SYN may open a new flow with our addresses and ports.

        So it is while this one only waits for old packets to pass, and the SYN
        is newer than they (RFC 9293 section 3.10.7.4, RFC 6191).  The new flow
        has to take L{reuseSequence}.
        """
        tcb = self._tcb
        receiver = tcb.receiver
        if (
            tcb.state is not _TIME_WAIT
            or receiver is None
            or segment.flags & (SYN | ACK | RST | FIN) != SYN
        ):
            return False
        stamp = segment.options.tsValue
        if tcb.stamping and stamp is not None and stamp != tcb.recentStamp:
            return precedes(tcb.recentStamp, stamp)
        return precedes((receiver.next - 1) & MASK, segment.seq)

    @property
    def reuseSequence(self) -> int:
        """An initial sequence number beyond everything that this flow sent."""
        return (self._tcb.sender.high + _REUSE_STEP) & MASK

    def _want(self) -> None:
        """Ask to be dispatched."""
        self._wanting = True
        if self.pending is not None:
            self.pending[self] = None

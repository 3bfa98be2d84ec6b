"""
Segment arrival: what a flow makes of what its peer sends.

Segments come in batches.  A run of segments that continue the stream and say
nothing new about ours is taken at once; every other segment goes through the
steps of the RFC one by one.

Reference: RFC 9293 section 3.10.7, RFC 5961, RFC 7323 section 5, RFC 1337.
"""

from __future__ import annotations

from tsrt.netstack import tcpstate
from tsrt.netstack.receiver import Receiver
from tsrt.netstack.seq import MASK, unwrap
from tsrt.netstack.tcb import ControlBlock
from tsrt.netstack.tcpstate import CloseReason, TCPState
from tsrt.wire.tcp import ACK, FIN, NO_OPTIONS, PSH, RST, SYN, Segment

_CLOSED = TCPState.CLOSED
_SYN_SENT = TCPState.SYN_SENT
_SYN_RECEIVED = TCPState.SYN_RECEIVED
_ESTABLISHED = TCPState.ESTABLISHED
_CLOSE_WAIT = TCPState.CLOSE_WAIT
_FIN_WAIT_1 = TCPState.FIN_WAIT_1
_FIN_WAIT_2 = TCPState.FIN_WAIT_2
_CLOSING = TCPState.CLOSING
_LAST_ACK = TCPState.LAST_ACK
_TIME_WAIT = TCPState.TIME_WAIT

_STAMP_AGE = 24 * 86400.0
"""Seconds after which the peer's last timestamp says nothing (RFC 7323 5.5)."""


def process(tcb: ControlBlock, segments: list[Segment], now: float) -> None:
    """
    Take in a batch of segments, in the order in which they arrived.

    Answers wait until the next dispatch, so that a batch is answered once.
    """
    tcb.keepAlive.heard = now
    at = 0
    count = len(segments)
    while at < count:
        if at + 1 < count and tcb.state in _SYNCHRONIZED:
            taken = _run(tcb, segments, at, now)
            if taken:
                at += taken
                continue
            at = _lastAcknowledgement(tcb, segments, at)
        _arrive(tcb, segments[at], now)
        at += 1


def _run(tcb: ControlBlock, segments: list[Segment], at: int, now: float) -> int:
    """
    Take as many segments as plainly continue the stream.

    @return: how many were taken.
    """
    receiver = tcb.receiver
    if receiver is None or not receiver.isPlain or tcb.discarding:
        return 0
    # A stream without a FIN and a state after the handshake: data may come.
    sender = tcb.sender
    buffer = receiver.buffer
    stamping = tcb.stamping
    recent = tcb.recentStamp
    window = sender.window.size >> tcb.windowShift
    ack = sender.una & MASK
    expected = buffer.next & MASK
    room = receiver.edge - buffer.next
    chunks = []
    total = largest = 0
    for index in range(at, len(segments)):
        segment = segments[index]
        size = segment.end - segment.start
        if (
            segment.seq != expected
            or segment.flags & ~PSH != ACK
            or segment.ack != ack
            or segment.window != window
            or not 0 < size <= room
        ):
            break
        options = segment.options
        if stamping:
            if options.sacks or _isOld(options.tsValue, recent):
                break
        elif options is not NO_OPTIONS:
            break
        chunks.append(segment.packet[segment.start : segment.end])
        expected = (expected + size) & MASK
        room -= size
        total += size
        if segment.largest > largest:
            largest = segment.largest
    if not total:
        return 0
    if stamping and buffer.next == receiver.acknowledged:
        tcb.noteStamp(segments[at].options.tsValue, now)
    buffer.extend(chunks, total)
    receiver.arrived(total, largest, now)
    tcb.mark(tcpstate.READABLE)
    return len(chunks)


def _isOld(value: int | None, recent: int) -> bool:
    """Whether a timestamp is missing or lies before the newest one."""
    return value is None or ((value - recent) & MASK) >= 0x80000000


def _lastAcknowledgement(tcb: ControlBlock, segments: list[Segment], at: int) -> int:
    """
    The last of a run of segments that only acknowledge more and more.

    It says all that those before it say, as long as it is a possible one.
    """
    sender = tcb.sender
    segment = segments[at]
    seq = segment.seq
    known = sender.una & MASK
    left = sender.high - sender.una
    stamping = tcb.stamping
    recent = tcb.recentStamp
    for index in range(at, len(segments)):
        segment = segments[index]
        size = (segment.ack - known) & MASK
        if (
            segment.start != segment.end
            or segment.flags != ACK
            or segment.seq != seq
            or not 0 < size <= left
        ):
            break
        options = segment.options
        if stamping:
            if options.sacks or _isOld(options.tsValue, recent):
                break
        elif options is not NO_OPTIONS:
            break
        known = segment.ack
        left -= size
        at = index
    return at


def _arrive(tcb: ControlBlock, segment: Segment, now: float) -> None:
    """Take one segment through the steps of RFC 9293 section 3.10.7.4."""
    state = tcb.state
    receiver = tcb.receiver
    if state is _CLOSED:
        return
    if receiver is None:
        _answerToSyn(tcb, segment, now)
        return
    flags = segment.flags
    seq = unwrap(segment.seq, receiver.next)
    if flags & SYN and state is _SYN_RECEIVED and seq == receiver.irs:
        if not flags & (ACK | RST | FIN):
            # The SYN once more: our answer was lost.
            if tcb.mayChallenge(now):
                tcb.synDue = True
            return
        if flags & (ACK | RST) == ACK:
            # Simultaneous open: the peer's answer to our SYN.
            flags &= ~SYN
            seq += 1

    if tcb.stamping and not _stampFits(tcb, receiver, segment, now):
        return

    # First, the sequence number.
    size = segment.end - segment.start
    if not _acceptable(receiver, seq, size):
        if flags & RST:
            return
        if state is _TIME_WAIT and flags & FIN:
            tcb.expireAt = now + tcb.options.timeWait
        if not size:
            tcb.challenge(now)
        elif seq < receiver.next:
            receiver.repeated(seq, seq + size)
        else:
            receiver.ackNow = True
        return

    # Second, RST: only the exact position ends the flow (RFC 5961 section 3).
    if flags & RST:
        if state is _TIME_WAIT:
            # It could only cut the wait short (RFC 1337).
            return
        if seq == receiver.next:
            _resetByPeer(tcb)
        else:
            tcb.challenge(now)
        return

    # Fourth, SYN: a peer that really restarted resets on our answer (section 4).
    if flags & SYN:
        tcb.challenge(now)
        return

    # Fifth, ACK.
    if not flags & ACK or not _acknowledge(tcb, receiver, segment, seq, flags, now):
        return
    if tcb.stamping and seq <= receiver.acknowledged:
        tcb.noteStamp(segment.options.tsValue, now)

    # Seventh, the text.
    if size and tcb.state in _RECEIVING:
        if tcb.discarding:
            # Nobody will read it, and the peer should know (RFC 9293 3.6.1).
            tcb.reset(CloseReason.ABORTED)
            return
        _text(tcb, receiver, segment, seq, now)

    # Eighth, FIN; it takes no room, so that a closed window does not matter.
    if flags & FIN and seq + size <= receiver.edge:
        receiver.finish(seq + size)
    if receiver.complete():
        _finished(tcb, now)


def _acceptable(receiver: Receiver, seq: int, size: int) -> bool:
    """
    Whether a segment can belong to the stream as it stands.

    The right edge itself is let in: there a peer that has filled our window
    goes on to acknowledge, and there it probes a closed window.  So are old
    segments without data, down to what was last acknowledged, as the network
    may have reordered them.
    """
    if size:
        return seq + size > receiver.next and seq <= receiver.edge
    return receiver.acknowledged <= seq <= receiver.edge


def _stampFits(
    tcb: ControlBlock, receiver: Receiver, segment: Segment, now: float
) -> bool:
    """Protection against wrapped sequence numbers (RFC 7323 section 5.3)."""
    if segment.flags & RST:
        return True
    value = segment.options.tsValue
    if value is None:
        tcb.wild += 1
        return False
    if _isOld(value, tcb.recentStamp) and now - tcb.recentAt < _STAMP_AGE:
        tcb.wild += 1
        if segment.end > segment.start:
            receiver.ackNow = True
        else:
            tcb.challenge(now)
        return False
    return True


def _resetByPeer(tcb: ControlBlock) -> None:
    state = tcb.state
    if state is _SYN_RECEIVED and tcb.active:
        tcb.close(CloseReason.REFUSED)
    elif state in _FINISHING and not tcb.sender.buffer:
        tcb.close(CloseReason.DONE)
    else:
        tcb.close(CloseReason.RESET)


def _answerToSyn(tcb: ControlBlock, segment: Segment, now: float) -> None:
    """What SYN-SENT makes of a segment (RFC 9293 section 3.10.7.3)."""
    sender = tcb.sender
    flags = segment.flags
    if flags & ACK:
        ack = unwrap(segment.ack, sender.una)
        if ack != sender.iss + 1 or ack > sender.nxt:
            if not flags & RST:
                tcb.reply(ack, 0, RST)
            return
        if flags & RST:
            tcb.close(CloseReason.REFUSED)
            return
    if flags & RST or not flags & SYN:
        return
    # Text or FIN that comes along is left for the peer to repeat.
    receiver = tcb.peerOffers(segment.seq, segment.options, now)
    if flags & ACK:
        tcb.open(receiver, segment.window, segment.seq, now)
        receiver.ackNow = True
    else:
        tcb.state = _SYN_RECEIVED
        tcb.synDue = True


def _acknowledge(
    tcb: ControlBlock,
    receiver: Receiver,
    segment: Segment,
    seq: int,
    flags: int,
    now: float,
) -> bool:
    """
    Take in the acknowledgement of a segment.

    @return: whether the rest of the segment counts.
    """
    sender = tcb.sender
    una = sender.una
    ack = unwrap(segment.ack, una)
    window = segment.window
    if tcb.state is _SYN_RECEIVED:
        if ack != sender.iss + 1 or ack > sender.nxt:
            tcb.reply(ack, 0, RST)
            return False
        if not segment.flags & SYN:
            window <<= tcb.windowShift
        tcb.open(receiver, window, seq, now)
        return True
    if ack > sender.high or ack < una - max(sender.window.largest, 0xFFFF):
        # It acknowledges what was never sent, or is too old to be honest
        # (RFC 5961 section 5).
        tcb.wild += 1
        tcb.challenge(now)
        return False
    options = segment.options
    blocks = [(unwrap(left, una), unwrap(right, una)) for left, right in options.sacks]
    elapsed = None
    if tcb.stamping and ack > una and options.tsEcho:
        elapsed = tcb.sinceStamp(options.tsEcho, now)
    queued = len(sender.buffer)
    if sender.acknowledge(
        ack,
        window << tcb.windowShift,
        seq,
        blocks,
        segment.start == segment.end and not flags & FIN,
        elapsed,
        now,
    ):
        left = len(sender.buffer)
        if left <= tcb.writeLowWater < queued:
            tcb.mark(tcpstate.WRITABLE)
        if sender.finAcknowledged:
            state = tcb.state
            if state is _FIN_WAIT_1:
                tcb.expectFin(now)
            elif state is _CLOSING:
                tcb.linger(now)
            else:
                # LAST_ACK: nothing is left to do.
                tcb.close(CloseReason.DONE)
                return False
    return True


def _text(
    tcb: ControlBlock, receiver: Receiver, segment: Segment, seq: int, now: float
) -> None:
    """Take the payload, cut to what is new and lies inside of the window."""
    start = segment.start
    end = segment.end
    if seq < receiver.next:
        start += receiver.next - seq
        seq = receiver.next
        receiver.ackNow = True
    room = receiver.edge - seq
    if end - start > room:
        end = start + room
        receiver.ackNow = True
    if receiver.take(seq, segment.packet[start:end], now, segment.largest):
        tcb.mark(tcpstate.READABLE)


def _finished(tcb: ControlBlock, now: float) -> None:
    """The peer's stream is complete."""
    state = tcb.state
    if state is _ESTABLISHED:
        tcb.state = _CLOSE_WAIT
    elif state is _FIN_WAIT_1:
        tcb.state = _CLOSING
    else:
        tcb.linger(now)
    tcb.mark(tcpstate.READABLE | tcpstate.EOF)


_RECEIVING = (_ESTABLISHED, _FIN_WAIT_1, _FIN_WAIT_2)
_FINISHING = (_CLOSING, _LAST_ACK)
_SYNCHRONIZED = (*_RECEIVING, _CLOSE_WAIT, _CLOSING, _LAST_ACK)

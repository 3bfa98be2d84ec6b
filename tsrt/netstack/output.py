"""
Making packets: what a flow has to say, as whole IP packets.

Data goes out in runs: one range of the send buffer is cut into segments that
differ in little but their sequence numbers.

Reference: RFC 9293 sections 3.7 and 3.10, RFC 6691, RFC 7323 section 3.
"""

from __future__ import annotations

from tsrt.dataplane.runs import Outgoing, SegmentRun
from tsrt.netstack.receiver import Receiver
from tsrt.netstack.seq import MASK
from tsrt.netstack.tcb import ControlBlock, windowShift
from tsrt.netstack.tcpstate import TCPState
from tsrt.wire.tcp import ACK, FIN, PSH, SYN, encodeOptions, encodeTimestamps

_SENDING = (
    TCPState.ESTABLISHED,
    TCPState.CLOSE_WAIT,
    TCPState.FIN_WAIT_1,
    TCPState.CLOSING,
    TCPState.LAST_ACK,
)
_CLOSED = TCPState.CLOSED
_SYN_SENT = TCPState.SYN_SENT
_SYN_RECEIVED = TCPState.SYN_RECEIVED
_MAX_BLOCKS = 4


def dispatch(
    tcb: ControlBlock, now: float, limit: int, mustWait: bool = False
) -> tuple[list[Outgoing], bool]:
    """
    Make the packets and runs that have to go out now.

    @param limit: about how many packets to make at most.
    @param mustWait: whether new data has to wait.
    @return: those, and whether the limit left some out.
    """
    packets: list[Outgoing] = []
    if tcb.replies:
        build = tcb.builder.build
        for position, acknowledged, flags in tcb.replies:
            packets.append(build(position & MASK, acknowledged & MASK, flags, 0))
        tcb.replies = []
    state = tcb.state
    if state is _CLOSED:
        return packets, False
    if tcb.synDue:
        packets.append(_syn(tcb, now))
    receiver = tcb.receiver
    if receiver is None or state is _SYN_SENT or state is _SYN_RECEIVED:
        return packets, False
    more = False
    if receiver.ackNow and receiver.hasNews:
        # Data segments have no room for SACK blocks.
        packets.append(_acknowledgement(tcb, receiver, now))
    if state in _SENDING:
        more = _data(tcb, receiver, packets, now, limit, mustWait)
    if receiver.ackNow:
        packets.append(_acknowledgement(tcb, receiver, now))
    if tcb.probeDue:
        tcb.probeDue = False
        packets.append(_acknowledgement(tcb, receiver, now, -1))
    return packets, more


def _data(
    tcb: ControlBlock,
    receiver: Receiver,
    packets: list[Outgoing],
    now: float,
    limit: int,
    mustWait: bool,
) -> bool:
    """
    Send what data may go out.

    @return: whether the limit left some out.
    """
    sender = tcb.sender
    builder = tcb.builder
    options = b""
    left = limit - len(packets)
    while True:
        if left <= 0:
            return True
        found = None if sender.isDone else sender.pull(now, left, mustWait)
        if found is None:
            sender.settle(now)
            return False
        start, end = found
        buffer = sender.buffer
        if not options and tcb.stamping:
            options = encodeTimestamps(tcb.stamp(now), tcb.recentStamp)
        last = 0
        if end >= buffer.end:
            last = PSH
            if end > buffer.end:
                last = FIN | PSH if start < buffer.end else FIN
        ack = receiver.next & MASK
        window = receiver.field()
        payload = buffer.slice(start, end)
        if len(payload) <= sender.mss:
            packets.append(
                builder.build(start & MASK, ack, ACK | last, window, options, payload)
            )
            left -= 1
        else:
            seq, mss = start & MASK, sender.mss
            run = SegmentRun(
                builder, seq, ack, ACK, window, options, payload, mss, last
            )
            packets.append(run)
            left -= run.count
        sender.sent(start, end, now)
        receiver.acknowledgedAll()


def _syn(tcb: ControlBlock, now: float) -> bytes:
    """The SYN of an active flow, or the SYN and ACK of a passive one."""
    tcb.synDue = False
    tcb.synTries += 1
    tcb.synSentAt = now
    sender = tcb.sender
    sender.nxt = sender.high = sender.iss + 1
    tcb.handshakeAt = now + sender.rtt.timeout
    limit = tcb.options.receiveLimit
    receiver = tcb.receiver
    options = encodeOptions(
        mss=min(tcb.mtu - tcb.builder.overhead, 0xFFFF),
        windowScale=windowShift(limit) if tcb.wantScale else None,
        sackPermitted=tcb.wantSack,
        timestamps=(tcb.stamp(now), tcb.recentStamp) if tcb.wantStamps else None,
    )
    if receiver is None:
        window = min(tcb.options.receiveInitial, limit, 0xFFFF)
        return tcb.builder.build(sender.iss & MASK, 0, SYN, window, options)
    window = receiver.field()
    receiver.acknowledgedAll()
    return tcb.builder.build(
        sender.iss & MASK, receiver.next & MASK, SYN | ACK, window, options
    )


def _acknowledgement(
    tcb: ControlBlock, receiver: Receiver, now: float, back: int = 0
) -> bytes:
    """
    A segment without data.

    @param back: offset from the next position to send; -1 makes the peer answer.
    """
    options = b""
    if tcb.stamping or (tcb.wantSack and receiver.hasNews):
        blocks: list[tuple[int, int]] = []
        if tcb.wantSack:
            blocks = [
                (left & MASK, right & MASK)
                for left, right in receiver.blocks(_MAX_BLOCKS - tcb.stamping)
            ]
        options = encodeOptions(
            timestamps=(tcb.stamp(now), tcb.recentStamp) if tcb.stamping else None,
            sacks=blocks,
        )
    packet = tcb.builder.build(
        (tcb.sender.nxt + back) & MASK,
        receiver.next & MASK,
        ACK,
        receiver.field(),
        options,
    )
    receiver.acknowledgedAll()
    return packet

"""
The timers of a flow: when the next one is due, and what it does.

They are plain attributes, looked at when the stack's one timer fires.

Reference: RFC 9293 section 3.8, RFC 6298.
"""

from __future__ import annotations

from tsrt.netstack.keepalive import DEAD, PROBE
from tsrt.netstack.tcb import ControlBlock
from tsrt.netstack.tcpstate import CloseReason, TCPState

_CLOSED = TCPState.CLOSED
_TIME_WAIT = TCPState.TIME_WAIT
_ALIVE = (TCPState.ESTABLISHED, TCPState.CLOSE_WAIT, TCPState.FIN_WAIT_2)


def deadline(tcb: ControlBlock) -> float | None:
    """When L{tick} has something to do; L{None} for never."""
    state = tcb.state
    if state is _CLOSED:
        return None
    earliest = tcb.expireAt
    at = tcb.handshakeAt
    if at is not None and (earliest is None or at < earliest):
        earliest = at
    at = tcb.sender.deadline()
    if at is not None and (earliest is None or at < earliest):
        earliest = at
    receiver = tcb.receiver
    if receiver is not None:
        at = receiver.ackAt
        if at is not None and (earliest is None or at < earliest):
            earliest = at
    if state in _ALIVE:
        at = tcb.keepAlive.deadline()
        if at is not None and (earliest is None or at < earliest):
            earliest = at
    return earliest


def tick(tcb: ControlBlock, now: float) -> None:
    """Do what is due."""
    if tcb.state is _CLOSED:
        return
    if tcb.expireAt is not None and now >= tcb.expireAt:
        if tcb.state is _TIME_WAIT:
            tcb.close(CloseReason.DONE)
        else:
            # The peer keeps its side open towards nobody.
            tcb.reset(CloseReason.DONE)
        return
    if tcb.handshakeAt is not None and now >= tcb.handshakeAt:
        _handshakeExpired(tcb)
    if not tcb.sender.tick(now):
        tcb.reset(tcb.timeoutReason())
        return
    receiver = tcb.receiver
    if receiver is not None and receiver.ackAt is not None and now >= receiver.ackAt:
        receiver.ackAt = None
        receiver.ackNow = True
    if tcb.state in _ALIVE:
        verdict = tcb.keepAlive.check(now, tcb.sender.inFlight > 0)
        if verdict == PROBE:
            tcb.probeDue = True
        elif verdict == DEAD:
            tcb.reset(tcb.timeoutReason())


def _handshakeExpired(tcb: ControlBlock) -> None:
    tcb.handshakeAt = None
    tcb.synTimeouts += 1
    options = tcb.options
    if tcb.synTimeouts > (options.synRetries if tcb.active else options.synAckRetries):
        tcb.reset(tcb.timeoutReason())
    else:
        tcb.sender.rtt.doubled()
        tcb.synDue = True

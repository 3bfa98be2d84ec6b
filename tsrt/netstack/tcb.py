"""
The control block of a flow: all of its state, and the changes of that state.

L{tsrt.netstack.arrival} takes segments in, L{tsrt.netstack.output} makes
packets, L{tsrt.netstack.flow} is what everyone else sees; all three work on a
L{ControlBlock}.

Reference: RFC 9293 section 3.3.
"""

from __future__ import annotations

from tsrt.netstack import tcpstate
from tsrt.netstack.congestion import makeCongestionControl
from tsrt.netstack.keepalive import KeepAlive
from tsrt.netstack.receiver import Receiver
from tsrt.netstack.sender import Sender
from tsrt.netstack.seq import MASK
from tsrt.netstack.tcpoptions import TCPOptions
from tsrt.netstack.tcpstate import CloseReason, TCPState
from tsrt.wire.tcp import ACK, MAX_WINDOW_SCALE, RST, Options, SegmentBuilder

MIN_MSS = 64
"""Least payload of a full segment that we are talked into, in bytes."""

TIMESTAMPS_LENGTH = 12
"""Bytes that the timestamps option takes, with padding."""

_IPV4_DEFAULT_MSS = 536
_IPV6_DEFAULT_MSS = 1220

_CHALLENGES = 10
_CHALLENGE_PERIOD = 5.0
_MAX_REPLIES = 8

_CLOSED = TCPState.CLOSED
_SYN_SENT = TCPState.SYN_SENT
_SYN_RECEIVED = TCPState.SYN_RECEIVED
_ESTABLISHED = TCPState.ESTABLISHED
_FIN_WAIT_1 = TCPState.FIN_WAIT_1
_FIN_WAIT_2 = TCPState.FIN_WAIT_2
_TIME_WAIT = TCPState.TIME_WAIT


def windowShift(limit: int) -> int:
    """The window scale with which a window of C{limit} bytes can be offered."""
    shift = 0
    while 0xFFFF << shift < limit and shift < MAX_WINDOW_SCALE:
        shift += 1
    return shift


class ControlBlock:
    """
    Everything that is known about one flow.

    @ivar state: where in its life the flow is.
    @ivar active: whether this side sent the first SYN.
    @ivar sender: the send side.
    @ivar receiver: the receive side; L{None} before the peer's SYN.
    @ivar replies: segments without data to send, as (position, acknowledged
        position, flags).
    @ivar synDue: whether a SYN (or SYN and ACK) has to go out.
    @ivar synTries: how often the SYN was sent.
    @ivar synTimeouts: how often nothing came back in time.
    @ivar probeDue: whether a keep-alive probe has to go out.
    @ivar marks: what the application was not told yet, see
        L{tsrt.netstack.tcpstate}.
    @ivar fresh: whether marks were set since the stack last asked.
    @ivar discarding: whether the application takes no more data.
    @ivar stamping: whether timestamps are in use.
    @ivar recentStamp: the newest timestamp of the peer, to be echoed.
    @ivar softError: whether the network once said the peer is unreachable.
    @ivar challenged: challenge acknowledgements that were held back.
    @ivar wild: segments dropped because they acknowledged what was never sent, or
        because their timestamp was old.
    """

    __slots__ = (
        "_challengeCount",
        "_challengeStart",
        "_peerMSS",
        "active",
        "builder",
        "challenged",
        "closeReason",
        "discarding",
        "established",
        "expireAt",
        "fresh",
        "handshakeAt",
        "keepAlive",
        "marks",
        "mtu",
        "options",
        "probeDue",
        "receiver",
        "recentAt",
        "recentStamp",
        "replies",
        "sender",
        "softError",
        "stampOffset",
        "stamping",
        "state",
        "synDue",
        "synSentAt",
        "synTimeouts",
        "synTries",
        "wantSack",
        "wantScale",
        "wantStamps",
        "wild",
        "windowShift",
        "writeLowWater",
    )

    def __init__(
        self,
        builder: SegmentBuilder,
        iss: int,
        mtu: int,
        options: TCPOptions,
        active: bool,
        now: float,
    ) -> None:
        """
        @param builder: makes the packets of the flow.
        @param iss: initial sequence number of this side.
        @param mtu: largest IP packet on the way to the peer.
        """
        self.builder = builder
        self.options = options
        self.active = active
        self.state = _SYN_SENT if active else _SYN_RECEIVED
        self.mtu = mtu
        self._peerMSS = (
            _IPV6_DEFAULT_MSS if builder.overhead > 40 else _IPV4_DEFAULT_MSS
        )
        mss = max(MIN_MSS, min(self._peerMSS, mtu - builder.overhead))
        self.sender = Sender(
            iss,
            mss,
            makeCongestionControl(options.congestion, mss),
            options.userTimeout,
            options.noDelay,
            options.pacedFrom,
        )
        self.receiver: Receiver | None = None
        self.keepAlive = KeepAlive(now)
        self.established = False
        self.closeReason: CloseReason | None = None
        self.marks = 0
        self.fresh = False
        self.discarding = False
        self.writeLowWater = 0
        self.softError = False
        # What we offer; settled to what both sides offer by the handshake.
        self.wantSack = options.selectiveAck
        self.wantScale = True
        self.wantStamps = options.timestamps
        self.stamping = False
        self.stampOffset = (iss * 2654435761) & MASK
        self.recentStamp = 0
        self.recentAt = now
        self.windowShift = 0
        # Output that waits.
        self.replies: list[tuple[int, int, int]] = []
        self.synDue = True
        self.probeDue = False
        # Timers of their own.
        self.synTries = 0
        self.synTimeouts = 0
        self.synSentAt = now
        self.handshakeAt: float | None = None
        self.expireAt: float | None = None
        self.challenged = 0
        self.wild = 0
        self._challengeCount = 0
        self._challengeStart = now

    # -- handshake -----------------------------------------------------------

    def peerOffers(self, irs: int, offers: Options, now: float) -> Receiver:
        """
        Take in the peer's SYN.

        @param irs: its initial sequence number.
        @param offers: the options of its SYN.
        """
        options = self.options
        receiver = self.receiver = Receiver(
            irs, options.receiveInitial, options.receiveLimit, options.delayedAck
        )
        if offers.mss:
            self._peerMSS = offers.mss
        self.wantSack = self.wantSack and offers.sackPermitted
        self.wantScale = self.wantScale and offers.windowScale is not None
        if self.wantScale:
            self.windowShift = offers.windowScale or 0
        self.wantStamps = self.wantStamps and offers.tsValue is not None
        if self.wantStamps and offers.tsValue is not None:
            self.stamping = True
            self.recentStamp = offers.tsValue
        self.sender.recovery.selective = self.wantSack
        self.resize(now, False)
        self.sender.congestion.window = self.sender.congestion.initialWindow
        return receiver

    def resize(self, now: float, lost: bool) -> None:
        """
        Fit segments to what the peer takes and the path carries.

        @param lost: whether what is in flight was too large.
        """
        mss = min(self._peerMSS, self.mtu - self.builder.overhead)
        if self.stamping:
            mss -= TIMESTAMPS_LENGTH
        self.sender.setSegmentSize(max(MIN_MSS, mss), now, lost)

    def open(self, receiver: Receiver, window: int, seq: int, now: float) -> None:
        """
        The handshake is over.

        @param receiver: our receive side.
        @param window: what the peer offers, in bytes.
        @param seq: position of the segment that said so.
        """
        sender = self.sender
        if self.synTries <= 1:
            sender.rtt.sample(now - self.synSentAt)
        else:
            sender.rtt.synLost()
            sender.congestion.window = sender.mss
        sender.opened(window, seq, now)
        limit = self.options.receiveLimit
        receiver.scale(windowShift(limit) if self.wantScale else 0)
        self.state = _FIN_WAIT_1 if sender.finQueued else _ESTABLISHED
        self.established = True
        self.synDue = False
        self.handshakeAt = None
        self.mark(tcpstate.ESTABLISHED)

    # -- the end -------------------------------------------------------------

    def mark(self, marks: int) -> None:
        """Tell the application something the next time it asks."""
        self.marks |= marks
        self.fresh = True

    def close(self, reason: CloseReason) -> None:
        """The flow is over, at once."""
        self.state = _CLOSED
        self.synDue = self.probeDue = False
        self.handshakeAt = self.expireAt = None
        self.sender.buffer.clear()
        if self.closeReason is None:
            self.closeReason = reason
            self.mark(tcpstate.CLOSED)

    def reset(self, reason: CloseReason) -> None:
        """Give the flow up and tell the peer."""
        receiver = self.receiver
        if receiver is not None and self.state not in (_CLOSED, _TIME_WAIT):
            self.replies = [(self.sender.nxt, receiver.next, RST | ACK)]
        self.close(reason)

    def linger(self, now: float) -> None:
        """Everything is done; only repeated FINs are answered for a while."""
        self.state = _TIME_WAIT
        self.expireAt = now + self.options.timeWait
        self.probeDue = False
        self.closeReason = CloseReason.DONE
        self.mark(tcpstate.CLOSED)

    def expectFin(self, now: float) -> None:
        """Our FIN came through; the peer's is missing."""
        self.state = _FIN_WAIT_2
        if self.discarding:
            self.expireAt = now + self.options.finWait

    def reply(self, position: int, acknowledged: int, flags: int) -> None:
        """Queue a segment without data; a few at most."""
        if len(self.replies) < _MAX_REPLIES:
            self.replies.append((position, acknowledged, flags))

    def mayChallenge(self, now: float) -> bool:
        """
        Whether a suspicious segment may be answered; counts the answer.

        The limit is the flow's own, so that it tells nobody about others
        (RFC 5961 section 7).
        """
        if now - self._challengeStart >= _CHALLENGE_PERIOD:
            self._challengeStart = now
            self._challengeCount = 0
        if self._challengeCount >= _CHALLENGES:
            self.challenged += 1
            return False
        self._challengeCount += 1
        return True

    def challenge(self, now: float) -> None:
        """Acknowledge something suspicious, within the limit."""
        if self.receiver is not None and self.mayChallenge(now):
            self.receiver.ackNow = True

    # -- time ----------------------------------------------------------------

    def stamp(self, now: float) -> int:
        """Our timestamp: milliseconds from a start of the flow's own."""
        return (int(now * 1000.0) + self.stampOffset) & MASK

    def noteStamp(self, value: int | None, now: float) -> None:
        """Keep the timestamp of a segment, to be echoed."""
        if value is not None:
            self.recentStamp = value
            self.recentAt = now

    def sinceStamp(self, echo: int, now: float) -> float:
        """How many seconds ago we sent the timestamp C{echo}."""
        return ((self.stamp(now) - echo) & MASK) / 1000.0

    def timeoutReason(self) -> CloseReason:
        """Why a flow ends whose peer does not answer."""
        return CloseReason.UNREACHABLE if self.softError else CloseReason.TIMEOUT

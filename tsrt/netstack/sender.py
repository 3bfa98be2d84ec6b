"""
The sending half of a flow: what may go out, when, and what came through.

Holds the send sequence space of RFC 9293, joins the send buffer, the peer's
window, congestion control, loss recovery and the retransmission and persist
timers.  Positions never wrap (see L{tsrt.netstack.seq}); the SYN sits at
C{iss}, data follows, and the FIN is one more position behind the data.

What goes out is asked for as ranges, which the caller cuts into segments.

Reference: RFC 9293 sections 3.8.6 and 3.10, RFC 5681, RFC 6298, RFC 6675.
"""

from __future__ import annotations

from tsrt.netstack.congestion import CongestionControl
from tsrt.netstack.recovery import FAST, LOSS, OPEN, Recovery
from tsrt.netstack.rtt import MAX_TIMEOUT, RTTEstimator
from tsrt.netstack.sendbuf import SendBuffer

_MAX_PROBE_SHIFT = 8


class Sender:
    """
    The send side of one flow.

    @ivar iss: position of our SYN.
    @ivar una: oldest position that is not acknowledged.
    @ivar nxt: position just past the newest that was sent.
    @ivar high: position just past the newest that was ever sent; it differs
        from C{nxt} only after window probes.
    @ivar mss: bytes of payload in a full segment, options taken off.
    @ivar window: what the peer offers, in bytes.
    @ivar largestWindow: the most that it ever offered.
    @ivar edge: the right edge of the peer's window, as a position.
    @ivar finQueued: whether a FIN follows the data.
    @ivar noDelay: whether small segments go out at once.
    @ivar timeouts: expiries of the retransmission timer since the last progress.
    @ivar retransmissions: segments sent again.
    @ivar timerFires: expiries of the retransmission timer in all.
    @ivar fastRecoveries: how often a loss was found without the timer.
    """

    __slots__ = (
        "_blockedAt",
        "_lastSent",
        "_probeDue",
        "_probes",
        "_progress",
        "_smallEnd",
        "_timed",
        "_timedAt",
        "_windowAck",
        "_windowSeq",
        "buffer",
        "congestion",
        "edge",
        "fastRecoveries",
        "finQueued",
        "high",
        "iss",
        "largestWindow",
        "mss",
        "noDelay",
        "nxt",
        "persistAt",
        "recovery",
        "retransmissions",
        "retransmitAt",
        "rtt",
        "timeouts",
        "timerFires",
        "una",
        "userTimeout",
        "window",
    )

    def __init__(
        self,
        iss: int,
        mss: int,
        congestion: CongestionControl,
        userTimeout: float,
        noDelay: bool = False,
    ) -> None:
        """
        @param iss: initial sequence number.
        @param mss: bytes of payload in a full segment.
        @param userTimeout: seconds without progress after which the peer
            counts as dead.
        """
        self.iss = iss
        self.una = iss
        self.nxt = iss
        self.high = iss
        self.mss = mss
        self.window = 0
        self.largestWindow = 0
        self.edge = iss
        self.finQueued = False
        self.noDelay = noDelay
        self.timeouts = 0
        self.retransmissions = 0
        self.timerFires = 0
        self.fastRecoveries = 0
        self.userTimeout = userTimeout
        self.buffer = SendBuffer(iss + 1)
        self.congestion = congestion
        self.recovery = Recovery(iss)
        self.rtt = RTTEstimator()
        self.retransmitAt: float | None = None
        self.persistAt: float | None = None
        self._blockedAt = iss
        self._lastSent: float | None = None
        self._probeDue = False
        self._probes = 0
        self._progress = 0.0
        self._smallEnd = iss
        self._timed: int | None = None
        self._timedAt = 0.0
        self._windowAck = iss
        self._windowSeq = 0

    # -- state ---------------------------------------------------------------

    @property
    def end(self) -> int:
        """Position just past everything that there is to send, FIN included."""
        return self.buffer.end + 1 if self.finQueued else self.buffer.end

    @property
    def finAcknowledged(self) -> bool:
        """Whether the peer has acknowledged our FIN."""
        return self.finQueued and self.una > self.buffer.end

    @property
    def inFlight(self) -> int:
        """Positions sent and not acknowledged."""
        return self.nxt - self.una

    def opened(self, window: int, seq: int, now: float) -> None:
        """
        The peer acknowledged our SYN: data may follow.

        @param window: what it offers, in bytes.
        @param seq: position in the peer's stream of the segment that said so.
        """
        self.una = self.nxt = self.high = self.iss + 1
        self.window = self.largestWindow = window
        self.edge = self.una + window
        self._windowSeq = seq
        self._windowAck = self.una
        self._progress = now

    def setSegmentSize(self, mss: int, lost: bool = False) -> None:
        """
        Cut segments of another size from now on.

        @param lost: whether what is in flight was too large to arrive.  It is
            sent again at once; that is no sign of congestion.
        """
        self.mss = mss
        self.congestion.setSegmentSize(mss)
        if lost and self.una < self.nxt and not self._probes:
            self.recovery.timedOut(self.una, self.nxt, False)
            self._timed = None

    # -- acknowledgements --------------------------------------------------

    def acknowledge(
        self,
        ack: int,
        window: int,
        seq: int,
        blocks: list[tuple[int, int]],
        bare: bool,
        elapsed: float | None,
        now: float,
    ) -> int:
        """
        Take in what a segment says about our stream.

        @param ack: its acknowledgement, not beyond L{high}; older ones count
            for nothing.
        @param window: its window in bytes.
        @param seq: its position in the peer's stream.
        @param blocks: its SACK blocks, as positions.
        @param bare: whether it has no payload, SYN or FIN.
        @param elapsed: round-trip time by timestamps, where it has them.
        @return: positions newly acknowledged.
        """
        una = self.una
        if ack < una:
            return 0
        recovery = self.recovery
        news = 0
        if blocks and recovery.selective:
            news = recovery.hold(ack, self.nxt, blocks)
        sameWindow = True
        if seq > self._windowSeq or (seq == self._windowSeq and ack >= self._windowAck):
            sameWindow = window == self.window
            self._windowSeq = seq
            self._windowAck = ack
            self.window = window
            self.edge = ack + window
            if window > self.largestWindow:
                self.largestWindow = window
        size = ack - una
        if size:
            self._advance(ack, size, elapsed, now)
        elif self.nxt > una and (
            news or (not recovery.selective and bare and sameWindow and window)
        ):
            recovery.duplicate(una, self.mss)
        timed = self._timed
        if news and timed is not None and recovery.board.within(timed - 1, timed):
            # The peer holds what is being timed: as good as acknowledged.
            self.rtt.sample(now - self._timedAt)
            self._timed = None
        if recovery.mode == OPEN and recovery.found(self.una, self.mss):
            self.fastRecoveries += 1
            self.congestion.lost(self.nxt - self.una, now)
            recovery.start(self.una, self.nxt, self.mss)
            if not recovery.selective:
                self._timed = None
        if self.window == 0:
            # The peer lives and has no room; that may last.
            self._progress = now
        elif self._probes and self.edge > self.una:
            self._endProbing(now)
        return size

    def _advance(self, ack: int, size: int, elapsed: float | None, now: float) -> None:
        recovery = self.recovery
        congestion = self.congestion
        self.una = ack
        if ack > self.nxt:
            # A byte that probed a closed window, and was let in.
            self.nxt = ack
        self.buffer.discard(min(ack, self.buffer.end))
        self._progress = now
        self.timeouts = 0
        if elapsed is not None:
            share = 2 * self.mss / (self.nxt - ack + size)
            self.rtt.sample(elapsed, min(1.0, share))
            self._timed = None
        elif self._timed is not None and ack >= self._timed:
            self.rtt.sample(now - self._timedAt)
            self._timed = None
        mode = recovery.mode
        recovery.advanced(ack, size, self.mss)
        if mode != FAST:
            if ack <= self._blockedAt:
                if mode == LOSS:
                    # Much may be acknowledged at once where a gap closes.
                    size = min(size, 2 * self.mss)
                congestion.acknowledged(size, now, self.rtt.smoothed)
            else:
                congestion.unused(now)
        self.retransmitAt = now + self.rtt.timeout if self.nxt > ack else None

    # -- what goes out -----------------------------------------------------

    def pull(self, now: float, count: int) -> tuple[int, int] | None:
        """
        The next range to send, or L{None} if nothing may go out.

        A range that begins before L{nxt} is a retransmission.  The caller
        sends all of it and tells so with L{sent}.

        @param count: most full segments that it may be long.
        """
        una = self.una
        nxt = self.nxt
        mss = self.mss
        recovery = self.recovery
        if self._probeDue:
            return self._probe()
        if self._probes and nxt > una:
            # A probe is out and the window is still closed.
            return None
        congestion = self.congestion
        if (
            una == nxt
            and self._lastSent is not None
            and now - self._lastSent > self.rtt.timeout
        ):
            congestion.idled()
        room = congestion.window - recovery.pipe(una, nxt, mss)
        if recovery.mode != OPEN:
            hole = recovery.hole(una)
            if hole is not None:
                if recovery.forced:
                    room = max(room, mss)
                if room < mss:
                    return None
                start, end = hole
                if start >= una + max(self.edge - una, mss):
                    # The peer took back its window.
                    return None
                return start, min(end, start + min(room // mss, count) * mss)
        queued = self.end - nxt
        if queued > 0:
            usable = self.edge - nxt
            if room < usable and room < queued:
                # Less than a full segment would only be cut up by congestion.
                usable = room // mss * mss
                self._blockedAt = nxt + max(usable, 0)
            size = self._sized(queued, usable, count)
            if size:
                return nxt, nxt + size
            if usable > 0 or room < mss:
                return None
        if recovery.mode == FAST and recovery.selective and room >= mss:
            return recovery.extra(una, nxt, mss)
        return None

    def _sized(self, queued: int, usable: int, count: int) -> int:
        """
        How much new data to send: whole segments, and perhaps a small one.

        A small segment waits while another one is in flight (Nagle, in the
        variant of Minshall, which does not hold back the tail of a larger
        piece), and never is cut off by the peer's window alone, unless that is
        half of the largest window it ever had (silly window avoidance).
        """
        mss = self.mss
        if queued <= usable and queued <= count * mss:
            if (
                self.noDelay
                or self.finQueued
                or self.una >= self._smallEnd
                or queued % mss == 0
            ):
                return queued
            return queued - queued % mss
        size = min(queued, usable, count * mss)
        if size >= mss:
            return size - size % mss
        if size > 0 and size * 2 >= self.largestWindow:
            return size
        return 0

    def _probe(self) -> tuple[int, int] | None:
        """The byte that probes a closed window, or what a small one admits."""
        self._probeDue = False
        una = self.una
        if self.end <= una:
            return None
        usable = self.edge - self.nxt
        if self.nxt == una and usable > 0:
            self._probes = 0
            return una, una + min(usable, self.end - una, self.mss)
        return una, una + 1

    def sent(self, start: int, end: int, now: float) -> bool:
        """
        Note that a range that L{pull} gave has been sent.

        @return: whether any of it was sent before.
        """
        again = start < self.high
        if again:
            self.retransmissions += -(-(end - start) // self.mss)
            if self._timed is not None and start < self._timed <= end:
                self._timed = None
        elif self._timed is None and not self._probes:
            self._timed = end
            self._timedAt = now
        if self.una == self.nxt and not self._probes:
            self._progress = now
        self._lastSent = now
        if end > self.nxt:
            self.nxt = end
            if end > self.high:
                self.high = end
            if end - start < self.mss or (end - start) % self.mss:
                self._smallEnd = end
        elif not self._probes:
            self.recovery.repeated(start, end)
        if self._probes:
            # The persist timer is in charge.
            return again
        if self.recovery.forced:
            self.recovery.forced = False
            if self.recovery.mode == FAST:
                self.retransmitAt = None
        if self.retransmitAt is None:
            self.retransmitAt = now + self.rtt.timeout
        return again

    # -- timers --------------------------------------------------------------

    def arm(self, now: float) -> None:
        """
        Start or stop the persist timer; to be called when L{pull} gave nothing.

        It runs while data waits, nothing is in flight and only the peer's
        window keeps it back.
        """
        if self.end > self.una and (self.nxt == self.una or self._probes):
            if self.persistAt is None:
                if not self._probes:
                    self._progress = now
                self.persistAt = now + self._persistDelay()
        else:
            self.persistAt = None
            self._probes = 0

    def _persistDelay(self) -> float:
        delay = self.rtt.timeout * (1 << min(self._probes, _MAX_PROBE_SHIFT))
        # Several probes have to fit into the time after which silence is death.
        return min(delay, MAX_TIMEOUT, self.userTimeout / 4)

    def _endProbing(self, now: float) -> None:
        """The window opened: go on where the last probe was."""
        self._probes = 0
        self._probeDue = False
        self.persistAt = None
        # The byte of the probe goes out again with the segment it belongs to.
        self.nxt = self.una
        self._timed = None
        self._progress = now

    def deadline(self) -> float | None:
        """When L{tick} has something to do; L{None} for never."""
        at = self.retransmitAt
        if at is None:
            at = self.persistAt
            if at is None:
                return None
        dead = self._progress + self.userTimeout
        return at if at < dead else dead

    def tick(self, now: float) -> bool:
        """
        Do what is due.

        @return: whether the flow can go on; not after L{userTimeout} seconds
            without progress.
        """
        if self.retransmitAt is not None:
            if now >= self._progress + self.userTimeout:
                return False
            if now >= self.retransmitAt:
                self._timedOut(now)
        elif self.persistAt is not None:
            if now >= self._progress + self.userTimeout:
                return False
            if now >= self.persistAt:
                self._probes += 1
                self._probeDue = True
                self.persistAt = now + self._persistDelay()
        return True

    def _timedOut(self, now: float) -> None:
        again = self.timeouts > 0
        self.timeouts += 1
        self.timerFires += 1
        if self.window:
            # A window taken back is no sign of congestion.
            self.congestion.timedOut(self.nxt - self.una, now, again)
        self.recovery.timedOut(self.una, self.nxt, again)
        self._timed = None
        self.rtt.doubled()
        self.retransmitAt = now + self.rtt.timeout

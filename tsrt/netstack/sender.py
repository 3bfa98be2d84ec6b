"""
The sending half of a flow: what may go out, when, and what came through.

Holds the send sequence space of RFC 9293, joins the send buffer, the peer's
window, congestion control, loss recovery and the timers.  Positions never wrap
(see L{tsrt.netstack.seq}); the SYN sits at C{iss}, data follows, and the FIN is
one more position behind the data.

What goes out is asked for as ranges, which the caller cuts into segments.

Reference: RFC 9293 sections 3.8.6 and 3.10, RFC 5681, RFC 6298, RFC 6675, RFC
9937.
"""

from __future__ import annotations

from tsrt.netstack.congestion import CongestionControl
from tsrt.netstack.pacing import LONG, Pacer
from tsrt.netstack.prr import RateReduction
from tsrt.netstack.recovery import FAST, LOSS, OPEN, Recovery
from tsrt.netstack.reordering import Reordering, duplicateSize
from tsrt.netstack.rtt import RTTEstimator, Stopwatch
from tsrt.netstack.sendbuf import SendBuffer
from tsrt.netstack.sizing import sizeOfNewData
from tsrt.netstack.tailprobe import TailProbe
from tsrt.netstack.window import PeerWindow, PersistTimer

_MESSAGE = 2
"""Full segments that hold a message of which somebody may wait for the answer."""

_LEAST_TIMEOUTS = 3
"""Expiries of a timer before silence is taken for death: time may have leapt."""


class Sender:
    """
    The send side of one flow.

    @ivar iss: position of our SYN.
    @ivar una: oldest position that is not acknowledged.
    @ivar nxt: position just past the newest that was sent.
    @ivar high: position just past the newest that was ever sent; it differs
        from C{nxt} only after window probes.
    @ivar mss: bytes of payload in a full segment, options taken off.
    @ivar finQueued: whether a FIN follows the data.
    @ivar noDelay: whether small segments go out at once.
    @ivar patient: whether a peer that keeps its window closed, and answers, is
        waited for without end.
    @ivar retransmitAt: when the retransmission timer expires.
    @ivar timeouts: expiries of that timer since the last progress.
    @ivar retransmissions: segments sent again.
    @ivar timerFires: expiries of the retransmission timer in all.
    @ivar fastRecoveries: how often a loss was found without the timer.
    """

    __slots__ = (
        "_blockedAt",
        "_filledAt",
        "_held",
        "_lastSent",
        "_pacedFrom",
        "_progress",
        "_repairedAt",
        "_smallEnd",
        "_watch",
        "buffer",
        "congestion",
        "fastRecoveries",
        "finQueued",
        "high",
        "iss",
        "mss",
        "noDelay",
        "nxt",
        "pacer",
        "patient",
        "persist",
        "recovery",
        "reduction",
        "reordering",
        "retransmissions",
        "retransmitAt",
        "rtt",
        "tail",
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
        pacedFrom: float = LONG,
    ) -> None:
        """
        @param iss: initial sequence number.
        @param mss: bytes of payload in a full segment.
        @param userTimeout: seconds without progress after which the peer
            counts as dead.
        @param pacedFrom: round-trip time in seconds of a path on which data is paced.
        """
        self.iss = iss
        self.una = iss
        self.nxt = iss
        self.high = iss
        self.mss = mss
        self.finQueued = False
        self.noDelay = noDelay
        self.patient = True
        self.timeouts = 0
        self.retransmissions = 0
        self.timerFires = 0
        self.fastRecoveries = 0
        self.userTimeout = userTimeout
        self.buffer = SendBuffer(iss + 1)
        self.window = PeerWindow()
        self.congestion = congestion
        self.recovery = Recovery(iss)
        self.reduction = RateReduction()
        self.reordering = Reordering()
        self.rtt = RTTEstimator()
        self.persist = PersistTimer()
        self.tail = TailProbe()
        self.pacer = Pacer()
        self._pacedFrom = pacedFrom
        self.retransmitAt: float | None = None
        # Acknowledgements up to here show that the window was in full use.
        self._blockedAt = iss
        # What was acknowledged when last all was sent that might be.
        self._filledAt = iss
        self._lastSent: float | None = None
        # When anything was last heard of what is outstanding.
        self._progress = 0.0
        # When the present recovery began.
        self._repairedAt = 0.0
        # Whether new data waits because the caller has it wait.
        self._held = False
        # The end of the last segment that was not full.
        self._smallEnd = iss
        self._watch = Stopwatch()

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
    def isDone(self) -> bool:
        """Whether L{pull} has plainly nothing to give."""
        return (
            self.nxt >= self.buffer.end + self.finQueued
            and self.recovery.mode == OPEN
            and not (self.tail.due or self.persist.due)
        )

    @property
    def canWait(self) -> bool:
        """
        Whether there is new data, and more of it than a message of which somebody may
        wait for the answer.
        """
        return (
            self.buffer.end - self.nxt > _MESSAGE * self.mss
            and not self.persist.due
            and not self.persist.count
        )

    @property
    def pipe(self) -> int:
        """Positions that are on their way, as far as is known."""
        return self.recovery.pipe(self.una, self.nxt, self.mss)

    @property
    def inFlight(self) -> int:
        """Positions sent and not acknowledged."""
        return self.nxt - self.una

    @property
    def _filled(self) -> int:
        """
        How much was in flight before the present batch of segments arrived,
        within the window.

        A batch is answered as a whole: what is left of the flight in the midst
        of it says little.
        """
        return int(min(self.nxt - self._filledAt, self.congestion.window))

    def opened(self, window: int, seq: int, now: float) -> None:
        """
        The peer acknowledged our SYN: data may follow.

        @param window: what it offers, in bytes.
        @param seq: position in the peer's stream of the segment that said so.
        """
        self.una = self.nxt = self.high = self.iss + 1
        self.window.update(window, seq, self.una)
        self._progress = now

    def setSegmentSize(self, mss: int, now: float, lost: bool = False) -> None:
        """
        Cut segments of another size from now on.

        @param lost: whether what is in flight was too large to arrive.  It is
            sent again at once; that is no sign of congestion.
        """
        self.mss = mss
        self.congestion.setSegmentSize(mss)
        if lost and self.una < self.nxt and not self.persist.count:
            self._repair(now, False, False)

    def _repair(self, now: float, again: bool, shrunk: bool) -> None:
        """Send again whatever is in flight."""
        self.recovery.timedOut(self.una, self.nxt, again)
        self.reordering.began(shrunk)
        self._repairedAt = now
        self._watch.stop()
        self.tail.stop()
        self.retransmitAt = now + self.rtt.timeout

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
        held = recovery.board.total
        edge = recovery.edge
        again = recovery.lostAgain
        news = 0
        if blocks and recovery.selective:
            news = recovery.hold(ack, self.nxt, blocks)
            twice = duplicateSize(ack, blocks)
            if twice:
                self.tail.needless = True
                if self.reordering.duplicate(twice):
                    self.congestion.undo()
        before = self.window.size
        fresh = self.window.update(window, seq, ack)
        size = ack - una
        if size:
            self._advance(ack, size, elapsed, now)
        elif self.nxt > una and (
            news or (not recovery.selective and bare and window and window == before)
        ):
            recovery.duplicate(una, self.mss)
        if news:
            self.tail.at = None
            timed = self._watch.position
            if timed is not None and recovery.board.within(timed - 1, timed):
                # The peer holds what is being timed: as good as acknowledged.
                self.rtt.sample(self._watch.elapsed(now))
        if recovery.mode == OPEN:
            self._suspect(now)
        elif recovery.mode == FAST and recovery.selective:
            if recovery.lostAgain and not again:
                # The second sign of congestion (RFC 5681 section 4.3).
                flight = self._filled
                self.congestion.lost(flight, now)
                self.reduction.began(flight)
            isSafe = recovery.edge == edge and recovery.lostAgain == again
            self._allow(
                size + recovery.board.total - held,
                self.mss if size and isSafe else 0,
            )
        if not self.window.size:
            # The peer lives and has no room; that may last.
            if self.patient:
                self._progress = now
        elif self.persist.count and self.window.edge > self.una:
            # The window opened.  The byte of the last probe goes out again
            # with the segment that it belongs to.
            self.persist.stop()
            self.nxt = self._smallEnd = self.una
            self._progress = now
        elif fresh and not before and self.timeouts:
            # The peer had taken its window back and dropped what was in flight.
            self.rtt.progressed()
            self._repair(now, False, False)
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
        mode = recovery.mode
        timed = self._watch.position
        if elapsed is not None:
            # The echo of a segment from before the repair may be of any age:
            # the peer does not update it for what it has already.
            if mode == OPEN or now - elapsed >= self._repairedAt:
                share = 2 * self.mss / (self.nxt - ack + size)
                self.rtt.sample(elapsed, min(1.0, share))
        elif timed is not None and ack >= timed:
            self.rtt.sample(self._watch.elapsed(now))
        recovery.advanced(ack, size, self.mss)
        if mode == LOSS:
            # Much may be acknowledged at once where a gap closes.
            congestion.acknowledged(min(size, 2 * self.mss), now, self.rtt.smoothed)
        elif mode == OPEN:
            if ack <= self._blockedAt:
                congestion.acknowledged(size, now, self.rtt.smoothed)
            else:
                congestion.unused(now)
        if self.tail.acknowledged(ack) and recovery.mode == OPEN:
            congestion.lost(self._filled, now)
        if self.nxt > ack:
            self._arm(now)
        else:
            self.retransmitAt = None
            self.tail.stop()
            if ack >= self.end:
                self.persist.stop()

    def _suspect(self, now: float) -> None:
        """Begin fast recovery if a loss is evident, and for long enough."""
        recovery = self.recovery
        reordering = self.reordering
        if not recovery.found(self.una, self.mss):
            reordering.at = None
        elif reordering.suspected(now, self.rtt.smoothed):
            reordering.began()
            self.fastRecoveries += 1
            flight = self._filled
            pipe = recovery.pipe(self.una, self.nxt, self.mss)
            recovery.slack = reordering.slack(self.congestion.window)
            self.congestion.lost(flight, now)
            recovery.start(self.una, self.nxt, self.mss)
            self.reduction.began(flight)
            self._allow(max(0, flight - pipe), 0)
            self._repairedAt = now
            self.tail.stop()
            if not recovery.selective:
                self._watch.stop()

    def _allow(self, size: int, safe: int) -> None:
        """Let something go out in fast recovery; see L{RateReduction.arrived}."""
        pipe = self.recovery.pipe(self.una, self.nxt, self.mss)
        self.reduction.arrived(size, safe, pipe, self.congestion.window)

    # -- what goes out -----------------------------------------------------

    def pull(
        self, now: float, count: int, mustWait: bool = False
    ) -> tuple[int, int] | None:
        """
        The next range to send, or L{None} if nothing may go out.

        A range that begins before L{nxt} is a retransmission.  The caller
        sends all of it and tells so with L{sent}.

        @param count: most full segments that it may be long.
        @param mustWait: whether new data has to wait, but for a probe.
        """
        una = self.una
        nxt = self.nxt
        mss = self.mss
        edge = self.window.edge
        if self.persist.due:
            return self.persist.probe(una, nxt, self.end, edge, mss)
        if self.persist.count and nxt > una:
            # A probe is out and the window is still closed.
            return None
        if self.tail.due:
            return self.tail.probe(una, nxt, self.end, edge, mss)
        recovery = self.recovery
        congestion = self.congestion
        if self._held:
            # Nobody was idle: there was no leave to send.
            self._held = False
        elif (
            una == nxt
            and self._lastSent is not None
            and now - self._lastSent > self.rtt.timeout
        ):
            congestion.idled()
        pipe = recovery.pipe(una, nxt, mss)
        room = congestion.window - pipe
        smallest = self.rtt.smallest
        isLong = smallest is not None and smallest >= self._pacedFrom
        if recovery.mode != OPEN:
            if recovery.mode == FAST and recovery.selective and pipe >= mss:
                # With less on its way nothing might come that allows more.
                room = min(room, self.reduction.room)
            hole = recovery.hole(una)
            if hole is not None:
                if recovery.forced:
                    room = max(room, mss)
                if room < mss:
                    return None
                if isLong and not recovery.forced:
                    count = min(count, self._paced(hole[1] - hole[0], now))
                    if not count:
                        return None
                start, end = hole
                # If the peer took its window back, one segment asks for it.
                end = min(end, max(edge, una + mss))
                if start >= end:
                    return None
                return start, min(end, start + min(room // mss, count) * mss)
        queued = self.end - nxt
        if mustWait and queued > 0:
            self._held = True
            return None
        if queued > 0:
            usable = edge - nxt
            if room < usable and room < queued:
                # Congestion alone never cuts a segment short.
                usable = room // mss * mss
                self._blockedAt = nxt + max(usable, 0)
            if isLong and room >= mss and usable > 0:
                count = min(count, self._paced(queued, now))
                if not count:
                    return None
            size = sizeOfNewData(
                queued,
                usable,
                count,
                mss,
                self.window.largest,
                self.noDelay or self.finQueued or una >= self._smallEnd,
            )
            if size:
                return nxt, nxt + size
            if usable > 0 or room < mss:
                return None
        if recovery.mode == FAST and recovery.selective and room >= mss:
            return recovery.extra(una, nxt, mss)
        return None

    def _paced(self, size: int, now: float) -> int:
        """How many full segments may go out now on a long path, where so much could."""
        congestion = self.congestion
        count = self.pacer.segments(
            now,
            -(-size // self.mss),
            congestion.window / self.mss,
            self.rtt.smoothed or self._pacedFrom,
            congestion.inSlowStart,
        )
        # Nobody is idle meanwhile.
        self._held = not count
        return count

    def sent(self, start: int, end: int, now: float) -> None:
        """Note that a range that L{pull} gave has been sent."""
        mss = self.mss
        watch = self._watch
        probing = self.persist.count > 0
        self.pacer.sent((end - start) / mss)
        if start < self.high:
            self.retransmissions += -(-(end - start) // mss)
            timed = watch.position
            if timed is not None and start < timed <= end:
                watch.stop()
        elif watch.position is None and not probing:
            watch.start(end, now)
        if self.una == self.nxt and not probing:
            self._progress = now
        self._lastSent = now
        if end > self.nxt:
            self.nxt = end
            self.high = max(self.high, end)
            if (end - start) % mss:
                self._smallEnd = end
            if self.recovery.mode == FAST:
                self.reduction.sent(end - start)
        elif not probing:
            if self.recovery.mode != OPEN:
                self.reduction.sent(end - start)
                self.reordering.repeated(end - start)
            self.recovery.repeated(start, end, self.nxt)
        if probing:
            # The persist timer is in charge.
            return
        if self.recovery.forced:
            self.recovery.forced = False
            if self.recovery.mode == FAST:
                self.retransmitAt = None
        if self.retransmitAt is None:
            self._arm(now)
        elif self.tail.at is not None:
            self._watchTail(now)

    # -- timers --------------------------------------------------------------

    def _arm(self, now: float) -> None:
        """Start the retransmission timer anew, and the tail probe."""
        self.retransmitAt = now + self.rtt.timeout
        self._watchTail(now)

    def _watchTail(self, now: float) -> None:
        recovery = self.recovery
        self.tail.at = None
        if recovery.mode == OPEN and recovery.selective and not recovery.board:
            lone = self.nxt - self.una <= self.mss
            self.tail.start(now, self.rtt.smoothed, lone, self.retransmitAt)

    def settle(self, now: float) -> None:
        """
        Start or stop the persist timer; for when L{pull} gives nothing more.

        It runs while data waits, nothing is in flight and only the peer's
        window keeps it back, or may.
        """
        self._filledAt = self.una
        persist = self.persist
        if (
            self.end > self.una
            and (self.nxt == self.una or persist.count)
            and not self._held
        ):
            if persist.at is None:
                self._progress = now
                persist.start(now, self.rtt.timeout, self.userTimeout)
        elif persist.at is not None:
            persist.stop()

    def pathRenewed(self, now: float) -> bool:
        """
        The way to the peer, which was broken, is good again: what waits for a
        timer that grew with each failure is due now.

        @return: whether anything waited so.
        """
        if self.retransmitAt is not None and self.timeouts:
            self.rtt.progressed()
            self.retransmitAt = now
        elif self.persist.at is not None and self.persist.count:
            self.persist.at = now
        else:
            return False
        return True

    def deadline(self) -> float | None:
        """When L{tick} has something to do; L{None} for never."""
        at = self.retransmitAt
        paced = self.pacer.at
        if paced is not None and (at is None or paced < at):
            return paced
        if at is None:
            at = self.persist.at
            if at is None or self.persist.count < _LEAST_TIMEOUTS:
                return at
        else:
            for early in (self.tail.at, self.reordering.at):
                if early is not None and early < at:
                    at = early
            if self.timeouts < _LEAST_TIMEOUTS:
                return at
        dead = self._progress + self.userTimeout
        return at if at < dead else dead

    def tick(self, now: float) -> bool:
        """
        Do what is due.

        @return: whether the flow can go on; not after C{userTimeout} seconds
            and several attempts without progress.
        """
        self.pacer.tick(now)
        persist = self.persist
        overdue = now >= self._progress + self.userTimeout
        if self.retransmitAt is not None:
            if overdue and self.timeouts >= _LEAST_TIMEOUTS:
                return False
            if now >= self.retransmitAt:
                self._timedOut(now)
            elif self.reordering.at is not None and now >= self.reordering.at:
                self._suspect(now)
                self.reordering.at = None
            elif self.tail.at is not None and now >= self.tail.at:
                self.tail.at = None
                self.tail.due = True
                self.retransmitAt = now + self.rtt.timeout
        elif persist.at is not None:
            if overdue and persist.count >= _LEAST_TIMEOUTS:
                return False
            if now >= persist.at:
                persist.count += 1
                persist.due = True
                persist.start(now, self.rtt.timeout, self.userTimeout)
        return True

    def _timedOut(self, now: float) -> None:
        again = self.timeouts > 0
        self.timeouts += 1
        self.timerFires += 1
        shrunk = self.window.size > 0
        if shrunk:
            # A window taken back is no sign of congestion.
            flight = min(self.nxt - self.una, self.congestion.window)
            self.congestion.timedOut(flight, now, again)
        self.rtt.doubled()
        self._repair(now, again, shrunk)

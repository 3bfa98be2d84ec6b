"""
Loss recovery: what is lost, what is in flight, what to send again.

With SACK the scoreboard decides (RFC 6675); without it duplicate
acknowledgements are counted, each standing for one segment that has left the
network (RFC 6582).  After a timeout everything in flight counts as lost.  All
is kept as a few positions: what lies below L{Recovery.edge} and is not held by
the peer is lost, and what lies below L{Recovery.resent} was sent again.

What was sent again may be lost again.  That shows, with SACK, when the peer holds
enough of what was sent after it: for the first time, counted from where the flight
ended when the piece was repeated, or, where the flight could not grow, again.  RFC
6675 leaves that to the timer; RFC 8985 has the idea, with times in place of positions.

Reference: RFC 6675, RFC 6582, RFC 5681 section 3, RFC 8985 section 3.
"""

from __future__ import annotations

from bisect import bisect
from collections import deque
from itertools import islice

from tsrt.netstack.sack import DUPLICATE_THRESHOLD, Scoreboard

OPEN = 0
"""Mode: no loss is known."""

FAST = 1
"""Mode: a loss was found by duplicate acknowledgements or SACK."""

LOSS = 2
"""Mode: the retransmission timer expired."""

_LOOK = 16
"""Pieces that were sent again among which is looked for what came before others."""


class Recovery:
    """
    The state of loss recovery of one flow.

    @ivar board: what the peer holds out of order.
    @ivar selective: whether SACK is in use.
    @ivar mode: L{OPEN}, L{FAST} or L{LOSS}.
    @ivar duplicates: duplicate acknowledgements counted.
    @ivar point: recovery ends when this position is acknowledged.
    @ivar edge: everything below that the peer does not hold is lost.
    @ivar resent: everything below that the peer does not hold was sent again
        since the recovery began; it may be lost again.
    @ivar forced: whether the first segment goes out however full the pipe is.
    @ivar lostAgain: how often the present recovery found that something was lost
        again.
    @ivar slack: bytes by which the network is known to change the order.
    """

    __slots__ = (
        "_again",
        "_repeats",
        "_rescued",
        "board",
        "duplicates",
        "edge",
        "forced",
        "lostAgain",
        "mode",
        "point",
        "resent",
        "selective",
        "slack",
    )

    def __init__(self, position: int) -> None:
        """
        @param position: the initial sequence number.
        """
        self.board = Scoreboard()
        self.selective = False
        self.mode = OPEN
        self.duplicates = 0
        self.point = position
        self.edge = position
        self.resent = position
        self.forced = False
        self.lostAgain = 0
        self.slack = 0
        self._rescued = False
        # What was sent again, in the order of time: from where to where, and where
        # the flight ended by then.
        self._repeats: deque[tuple[int, int, int]] = deque()
        # What of it is lost again and waits: sorted and disjoint.
        self._again: list[tuple[int, int]] = []

    # -- what comes in -----------------------------------------------------

    def hold(self, una: int, high: int, blocks: list[tuple[int, int]]) -> int:
        """
        Take in SACK blocks, as positions.

        Blocks below C{una} (D-SACK) or beyond C{high} are ignored.

        @return: how many bytes the peer is newly known to hold.
        """
        news = 0
        add = self.board.add
        for start, end in blocks:
            if una < end <= high and start < end:
                news += add(max(start, una), end)
        return news

    def advanced(self, una: int, size: int, mss: int) -> None:
        """
        The cumulative acknowledgement moved.

        @param una: where it is now.
        @param size: by how much it moved.
        """
        self.board.advance(una)
        if self.mode == OPEN:
            self.duplicates = 0
            return
        if una >= self.point:
            self.mode = OPEN
            self.duplicates = 0
            self.forced = False
            self._forget()
        elif self.mode == FAST:
            if self.selective:
                self._markLost(una, mss)
            else:
                # A partial acknowledgement: the next segment is lost too.  Of
                # the duplicates, those whose segments it covers are used up.
                self.duplicates = max(0, self.duplicates - max(0, size // mss - 1))
                self.edge = una + mss
                self.resent = una
                self.forced = True
        elif self.selective:
            self._findLostAgain(una, mss)

    def duplicate(self, una: int, mss: int) -> None:
        """A duplicate acknowledgement, or one with news of SACK, arrived."""
        self.duplicates += 1
        if self.mode != OPEN and self.selective:
            self._markLost(una, mss)

    def found(self, una: int, mss: int) -> bool:
        """Whether a loss is evident that asks for fast recovery to begin."""
        if self.mode != OPEN:
            return False
        if self.selective:
            if not self.board:
                return False
            edge = self.board.lossEdge(mss)
            return self.duplicates >= DUPLICATE_THRESHOLD or (
                edge is not None and edge > una
            )
        # Segments that a timeout sent again needlessly cause duplicates as
        # well; those are recognised by their position (RFC 6582 section 4).
        return self.duplicates >= DUPLICATE_THRESHOLD and una > self.point

    # -- changes of mode ---------------------------------------------------

    def start(self, una: int, nxt: int, mss: int) -> None:
        """Begin fast recovery of what is in flight between two positions."""
        self.mode = FAST
        self.point = nxt
        self.edge = min(una + mss, nxt)
        self.resent = una
        self.forced = True
        self._rescued = False
        self._forget()
        if self.selective:
            self._markLost(una, mss)

    def timedOut(self, una: int, nxt: int, again: bool) -> None:
        """
        Count everything in flight as lost.

        @param again: whether the timer expired before without any progress
            since; then what the peer said it holds is not believed either.
        """
        ranges = self.board.ranges
        if again or (ranges and ranges[0][0] <= una):
            # The peer may drop what it held (RFC 2018 section 8); holding the
            # very next byte and not acknowledging it shows that it did.
            self.board.clear()
        self.mode = LOSS
        self.point = nxt
        self.edge = nxt
        self.resent = una
        self.duplicates = 0
        self.forced = True
        self._rescued = True
        self._forget()

    def _markLost(self, una: int, mss: int) -> None:
        edge = self.board.lossEdge(mss)
        if edge is not None and edge > self.edge:
            self.edge = edge
        self._findLostAgain(una, mss)

    def _findLostAgain(self, una: int, mss: int) -> None:
        board, repeats = self.board, self._repeats
        enough = (DUPLICATE_THRESHOLD - 1) * mss
        while (
            repeats
            and board
            and board.within(repeats[0][2] + self.slack, board.highest) > enough
        ):
            start, end, _ = repeats.popleft()
            self._missAgain(max(start, una), end)
        if repeats and board:
            self._findOvertaken(una, enough + self.slack)

    def _findOvertaken(self, una: int, size: int) -> None:
        """
        Find what is lost again by what was repeated after it.

        @param size: bytes of that which prove nothing yet.
        """
        board, repeats = self.board, self._repeats
        while repeats:
            start, end, mark = repeats[0]
            piece = board.gap(max(start, una), end)
            if piece is None:
                repeats.popleft()
                continue
            start = piece[0]
            later = 0
            for first, last, _ in islice(repeats, 1, _LOOK):
                later += board.within(first, last)
                if later > size:
                    break
            else:
                if later + board.within(start, end) > size:
                    edge = board.below(start, end, size - later)
                    repeats[0] = edge, end, mark
                    self._missAgain(start, edge)
                return
            repeats.popleft()
            self._missAgain(start, end)

    def _missAgain(self, start: int, end: int) -> None:
        """What the peer does not hold of a piece was sent again, and lost again."""
        piece = self.board.gap(start, end)
        if piece is not None:
            self._addAgain(piece[0], end)
            self.lostAgain += 1
            self.forced = True

    def _addAgain(self, start: int, end: int) -> None:
        again, gap = self._again, self.board.gap
        at = bisect(again, (start, end))
        # With nothing missing in between it is the same as one piece.
        if at < len(again) and gap(end, again[at][0]) is None:
            end = again.pop(at)[1]
        if at and gap(again[at - 1][1], start) is None:
            at -= 1
            start = again.pop(at)[0]
        again.insert(at, (start, end))

    def _forget(self) -> None:
        self._repeats.clear()
        self._again = []
        self.lostAgain = 0

    # -- what goes out -----------------------------------------------------

    def pipe(self, una: int, nxt: int, mss: int) -> int:
        """How many bytes are on their way, as far as is known."""
        if self.mode == OPEN:
            flight = nxt - una
            if self.selective:
                return flight - self.board.total
            return max(0, flight - self.duplicates * mss)
        edge = self.edge if self.edge > una else una
        resent = self.resent if self.resent > una else una
        flight = nxt - edge + resent - una
        if self.selective:
            within = self.board.within
            for start, end in self._again:
                start = max(start, una)
                if start < end:
                    flight -= end - start - within(start, end)
            return flight - within(edge, nxt) - within(una, resent)
        if self.mode == LOSS:
            # Duplicates now come of what was sent again needlessly.
            return flight
        return max(0, flight - self.duplicates * mss)

    def hole(self, una: int) -> tuple[int, int] | None:
        """The first lost piece that was not sent again since it was lost."""
        board, again = self.board, self._again
        while again:
            start, end = again[0]
            piece = board.gap(max(una, start), end)
            if piece is not None:
                return piece
            # It came after all.
            del again[0]
        return board.gap(max(una, self.resent), self.edge)

    def repeated(self, start: int, end: int, nxt: int) -> None:
        """
        Note that a piece was sent again.

        @param nxt: where the flight ends.
        """
        board = self.board
        if self.mode == FAST and board and start >= max(board.highest, self.edge):
            # The end of the flight, repeated early: no progress of recovery.
            return
        again = self._again
        if again and again[0][0] <= start < again[0][1]:
            rest = again[0][1]
            again[:1] = [(end, rest)] if end < rest else []
        if end > self.resent:
            self.resent = end
        if self.mode == OPEN or not self.selective:
            return
        repeats = self._repeats
        if repeats:
            first, last, mark = repeats[-1]
            if mark == nxt and last == start:
                repeats[-1] = first, end, mark
                return
        repeats.append((start, end, nxt))

    def extra(self, una: int, nxt: int, mss: int) -> tuple[int, int] | None:
        """
        What to send again when there is neither a known loss nor new data.

        A piece below the highest that the peer holds may be lost as well; and
        once in each recovery the end of the flight is repeated, lest its loss
        wait for the timer (rules 3 and 4 of C{NextSeg} in RFC 6675).
        """
        if self.mode != FAST or not self.board:
            return None
        highest = self.board.highest
        piece = self.board.gap(max(una, self.resent), highest)
        if piece is not None:
            return piece[0], min(piece[1], piece[0] + mss)
        if self._rescued:
            return None
        self._rescued = True
        start = max(highest, nxt - mss)
        return (start, nxt) if start < nxt else None

"""
The sliding window that tells a replayed transport message from a late one.

The counters of a session arrive roughly in order.  The window remembers the
newest one and, in a ring of 64-bit words, which of the ones before it have
been seen (RFC 6479 describes the technique).  Asking and marking are apart on
purpose: a counter is asked about before the message is opened, and marked only
after the message proved to be authentic.
"""

from __future__ import annotations

from array import array

WORD_BITS = 64
RING_WORDS = 128
WINDOW = RING_WORDS * WORD_BITS - WORD_BITS
"""How far behind the newest counter a message may still be: 8128."""

_WORD_MASK = WORD_BITS - 1
_RING_MASK = RING_WORDS - 1
_FULL = (1 << WORD_BITS) - 1
_ZEROS = array("Q", bytes(8 * RING_WORDS))


class ReplayWindow:
    """Which counters of one receiving session have been used."""

    __slots__ = ("_words", "newest")

    def __init__(self) -> None:
        """Start with no counter seen."""
        self.newest = -1
        """The highest counter marked so far, or -1."""
        self._words = array("Q", _ZEROS)

    def isFresh(self, counter: int) -> bool:
        """
        Whether a message with this counter may still be accepted.

        @param counter: from 0 up; the caller enforces the upper limit.
        """
        newest = self.newest
        if counter > newest:
            return True
        if newest - counter > WINDOW:
            return False
        word = self._words[(counter >> 6) & _RING_MASK]
        return not word >> (counter & _WORD_MASK) & 1

    def mark(self, counter: int) -> None:
        """
        Remember that an authentic message with this counter arrived.

        @param counter: one for which L{isFresh} is true.
        """
        if counter > self.newest:
            self._advance(counter)
        self._words[(counter >> 6) & _RING_MASK] |= 1 << (counter & _WORD_MASK)

    def markRun(self, first: int, last: int) -> None:
        """
        Remember all counters from C{first} to C{last}, both included.

        This is what makes a batch cheap that arrived in order: the words are
        written once each, not once a counter.

        @param first: higher than L{newest}.
        @param last: at least C{first}.
        """
        self._advance(last)
        if last - first > WINDOW:
            first = last - WINDOW
        words = self._words
        firstWord = first >> 6
        lastWord = last >> 6
        low = _FULL & ~((1 << (first & _WORD_MASK)) - 1)
        high = (2 << (last & _WORD_MASK)) - 1
        if firstWord == lastWord:
            words[firstWord & _RING_MASK] |= low & high
            return
        words[firstWord & _RING_MASK] |= low
        for index in range(firstWord + 1, lastWord):
            words[index & _RING_MASK] = _FULL
        words[lastWord & _RING_MASK] |= high

    def _advance(self, counter: int) -> None:
        """Make C{counter} the newest; forget what leaves the window."""
        current = self.newest >> 6
        target = counter >> 6
        self.newest = counter
        steps = target - current
        if steps == 0:
            return
        words = self._words
        if steps >= RING_WORDS:
            words[:] = _ZEROS
            return
        for index in range(current + 1, target + 1):
            words[index & _RING_MASK] = 0

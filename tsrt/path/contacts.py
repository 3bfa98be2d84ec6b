"""What is kept of peers that speak disco, beside the paths to them."""

from __future__ import annotations

from collections import OrderedDict

from tsrt.crypto.box import Box
from tsrt.path.tokenbucket import TokenBucket

TRANSACTIONS = 256
"""Pings of a peer that are remembered, so that none is answered twice."""

_ANSWERS_PER_SECOND, _ANSWERS_AT_ONCE = 50.0, 200.0
_CALLS_PER_SECOND, _CALLS_AT_ONCE = 0.5, 10.0
_NEWS_PER_SECOND, _NEWS_AT_ONCE = 1.0, 20.0


class Contact:
    """
    One disco key that has spoken with us.

    @ivar disco: the raw key.
    @ivar box: seals for its owner, and opens what it sealed.
    @ivar answers: how often its pings are answered.
    @ivar calls: how often it may ask to be met somewhere.
    @ivar news: how often it may be heard at a place where it never was.
    """

    __slots__ = ("_seen", "answers", "box", "calls", "disco", "news")

    def __init__(self, raw: bytes, box: Box, now: float) -> None:
        self.disco = raw
        self.box = box
        self.answers = TokenBucket(_ANSWERS_PER_SECOND, _ANSWERS_AT_ONCE, now)
        self.calls = TokenBucket(_CALLS_PER_SECOND, _CALLS_AT_ONCE, now)
        self.news = TokenBucket(_NEWS_PER_SECOND, _NEWS_AT_ONCE, now)
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def hasSeen(self, txid: bytes) -> bool:
        """Whether a ping was answered before, as far as that is remembered."""
        return txid in self._seen

    def remember(self, txid: bytes) -> None:
        """A ping is answered."""
        self._seen[txid] = None
        if len(self._seen) > TRANSACTIONS:
            self._seen.popitem(last=False)

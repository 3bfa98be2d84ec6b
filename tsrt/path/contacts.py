"""The owners of disco keys: sealing for them, and how much is heard of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from tsrt.crypto.box import Box, openFrom, sealTo
from tsrt.errors import DecryptError
from tsrt.keys import DiscoKey
from tsrt.path.tokenbucket import TokenBucket
from tsrt.wire import disco

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


class Contacts:
    """All of them; each is made when it is first needed."""

    def __init__(self, key: DiscoKey, randbytes: Callable[[int], bytes]) -> None:
        """
        @param key: our disco key.
        @param randbytes: the source of secret random bytes.
        """
        self._key = key
        self._public = key.public().raw
        self._randbytes = randbytes
        self._byDisco: dict[bytes, Contact] = {}

    def __len__(self) -> int:
        return len(self._byDisco)

    def withDisco(self, raw: bytes, now: float) -> Contact | None:
        """The owner of a raw disco key; C{None} if nothing can be sealed for it."""
        contact = self._byDisco.get(raw)
        if contact is None:
            try:
                box = Box(self._key.raw, raw)
            except DecryptError:
                return None
            contact = self._byDisco[raw] = Contact(raw, box, now)
        return contact

    def forget(self, raw: bytes) -> None:
        """A disco key is nobody's any more."""
        self._byDisco.pop(raw, None)

    def seal(self, contact: Contact, message: disco.Message) -> bytes:
        """A whole datagram for somebody."""
        sealed = sealTo(contact.box, message.encode(), self._randbytes)
        return disco.encodeEnvelope(self._public, sealed)

    @staticmethod
    def open(contact: Contact, boxed: bytes) -> disco.Message:
        """
        The message in a box of somebody's.

        @raise DecryptError: it was not sealed by whom it names.
        @raise WireError: there is no message in it.
        """
        return disco.parseMessage(openFrom(contact.box, boxed))

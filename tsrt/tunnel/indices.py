"""
The receiver indices that we gave out, and whose they are.

An index is the only thing by which a message tells to which session it
belongs.  It is random, so that it tells an onlooker nothing, and unique among
all sessions and half-open handshakes of the node.  Indices are kept in the form
they have on the wire, four bytes, so that no packet has to be parsed to find
its session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

_OwnerT = TypeVar("_OwnerT")

_COUNT = 1 << 32


class IndexTable(Generic[_OwnerT]):
    """
    Gives out receiver indices and remembers their owners.
    """

    __slots__ = ("_owners", "_randbytes", "find")

    def __init__(self, randbytes: Callable[[int], bytes]) -> None:
        """
        @param randbytes: the source of randomness.
        """
        self._owners: dict[bytes, _OwnerT] = {}
        self._randbytes = randbytes
        self.find = self._owners.get
        """The owner of an index of four bytes, or C{None}."""

    def __len__(self) -> int:
        """How many indices are in use."""
        return len(self._owners)

    def claim(self, owner: _OwnerT) -> bytes:
        """Give out an index that is not in use."""
        index = self._randbytes(4)
        while index in self._owners:
            # Taking the next one ends even if the randomness repeats itself.
            following = (int.from_bytes(index, "little") + 1) % _COUNT
            index = following.to_bytes(4, "little")
        self._owners[index] = owner
        return index

    def release(self, index: bytes) -> None:
        """Take back an index that was given out."""
        del self._owners[index]

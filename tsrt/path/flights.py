"""Pings that are under way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from tsrt.path.candidates import Candidate
from tsrt.path.peerpath import PeerPath
from tsrt.path.places import Place

PING_TIMEOUT = 5.0
"""Seconds after which a ping counts as lost."""

FLIGHTS = 10_000
"""Pings of ours that may be under way."""


class Flight(NamedTuple):
    """
    A ping under way.

    @ivar candidate: whom it was sent to; C{None}: it went by a relay (DERP).
    @ivar token: who wants to know of the answer; 0: nobody.
    """

    path: PeerPath
    place: Place
    candidate: Candidate | None
    sent: float
    token: int


class Flights:
    """The pings under way, in the order in which they were sent."""

    def __init__(self) -> None:
        self._byTransaction: OrderedDict[bytes, Flight] = OrderedDict()

    def __len__(self) -> int:
        return len(self._byTransaction)

    def add(self, txid: bytes, flight: Flight) -> None:
        """A ping was sent; beyond L{FLIGHTS} the oldest is forgotten."""
        if len(self._byTransaction) >= FLIGHTS:
            self._byTransaction.popitem(last=False)
        self._byTransaction[txid] = flight

    def landed(self, txid: bytes, disco: bytes) -> Flight | None:
        """
        The ping that a pong of the owner of a disco key answers.

        @return: C{None} if nobody (any more) waits for that; whoever else
            answers ends the waiting, too.
        """
        flight = self._byTransaction.pop(txid, None)
        if flight is None or flight.path.peer.disco != disco:
            return None
        return flight

    def deadline(self) -> float:
        """When the oldest is lost; C{inf} if none is under way."""
        if not self._byTransaction:
            return inf
        return next(iter(self._byTransaction.values())).sent + PING_TIMEOUT

    def lost(self, now: float) -> Iterator[Flight]:
        """Those that were not answered in time; each is returned once."""
        while self.deadline() <= now:
            _, flight = self._byTransaction.popitem(last=False)
            yield flight

    def forgetPath(self, path: PeerPath) -> None:
        """A peer is gone."""
        for txid in [t for t, f in self._byTransaction.items() if f.path is path]:
            del self._byTransaction[txid]

    def forgetToken(self, token: int) -> None:
        """Nobody wants to know of the answers any more."""
        for txid, flight in list(self._byTransaction.items()):
            if flight.token == token:
                self._byTransaction[txid] = flight._replace(token=0)

    def clear(self) -> None:
        """Wait for none of them any more."""
        self._byTransaction.clear()

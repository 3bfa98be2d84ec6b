"""Asking peers to ping us: what they are told, and who waits to be asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf

from tsrt.addresses import AddrPort
from tsrt.path.candidates import CALL_LIMIT
from tsrt.path.peerpath import PeerPath
from tsrt.wire import disco

ENDPOINTS_FRESH = 27.0
"""Seconds for which our endpoints are good enough to be told to a peer."""


class Calls:
    """
    Knows where we may be reached, as far as that is known well enough.

    @ivar needsEndpoints: whether a peer waits to be called until it is.
    """

    def __init__(self) -> None:
        self.needsEndpoints = False
        self._endpoints: tuple[AddrPort, ...] = ()
        self._since = -inf
        self._hasReflexive = False
        self._waiting: dict[bytes, PeerPath] = {}

    def setEndpoints(
        self, endpoints: Sequence[AddrPort], now: float, hasReflexive: bool
    ) -> Collection[PeerPath]:
        """
        Take what was found out.

        @param hasReflexive: whether one of them is our address as others see it;
            without it nobody is called.
        @return: the paths to those who waited for it.
        """
        self._endpoints = tuple(endpoints)[:CALL_LIMIT]
        self._since = now
        self._hasReflexive = hasReflexive
        self.needsEndpoints = False
        waiting, self._waiting = self._waiting, {}
        return waiting.values()

    def forgetEndpoints(self) -> None:
        """This machine has other addresses."""
        self._since = -inf

    def forget(self, key: bytes) -> None:
        """A peer is gone, by its raw node key."""
        self._waiting.pop(key, None)

    def message(self, path: PeerPath, now: float) -> disco.CallMeMaybe | None:
        """What to send to a peer, now or, when C{None}, not yet or not at all."""
        if now - self._since > ENDPOINTS_FRESH:
            self._waiting[path.peer.key] = path
            self.needsEndpoints = True
            return None
        if not self._hasReflexive or not self._endpoints:
            return None
        return disco.CallMeMaybe(self._endpoints)

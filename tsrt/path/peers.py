"""What the netmap says of how to reach a peer."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from tsrt.addresses import AddrPort
from tsrt.path.places import Via
from tsrt.wire import disco


@frozen
class PathPeer:
    """
    One peer, as far as paths are concerned.

    @ivar key: its raw node key.
    @ivar disco: its raw disco key; empty if it has none.
    @ivar endpoints: where control says that it may be reached.
    @ivar home: its home relay region; 0 if it has none.
    @ivar isWireGuardOnly: whether it knows neither disco nor relays.
    @ivar canRelay: whether it knows peer relays.
    """

    key: bytes
    disco: bytes
    endpoints: tuple[AddrPort, ...] = ()
    home: int = 0
    isWireGuardOnly: bool = False
    canRelay: bool = False


class RelayFinder(Protocol):
    """Looks for places at peer relays where a peer can be met."""

    def wanted(self, peer: PathPeer, isTrusted: bool, now: float) -> None:
        """
        Packets to a peer go by no direct path.

        @param isTrusted: whether a peer relay carries them.
        """

    def received(self, peer: PathPeer, message: disco.Message, now: float) -> None:
        """A peer sent something about peer relays, by a relay (DERP)."""

    def confirmed(self, peer: PathPeer, via: Via, now: float) -> None:
        """A peer answered by way of a peer relay."""

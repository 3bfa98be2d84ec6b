"""What the netmap says of how to reach a peer."""

from __future__ import annotations

from attrs import frozen

from tsrt.addresses import AddrPort


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

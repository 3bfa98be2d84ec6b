"""All peers with their paths, found by node key, by disco key, by address."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Sequence

from tsrt.path.peerpath import PeerPath
from tsrt.path.places import Direct, Via


class PeerIndex:
    """
    Who is who.

    An address belongs to the peer that was heard there first, unless control
    names it for another one: what a peer tells of itself steals nothing.
    """

    def __init__(self) -> None:
        self._byKey: dict[bytes, PeerPath] = {}
        self._byDisco: dict[bytes, list[PeerPath]] = {}
        self._owners: dict[Direct, PeerPath] = {}
        self._withoutDisco: set[PeerPath] = set()
        # Asked for each batch of packets.
        self.get = self._byKey.get

    def __iter__(self) -> Iterator[PeerPath]:
        return iter(self._byKey.values())

    def keys(self) -> KeysView[bytes]:
        """The raw node keys."""
        return self._byKey.keys()

    # -- peers -----------------------------------------------------------------------

    def note(self, path: PeerPath) -> None:
        """A peer is new, or what the netmap says of it is."""
        peer = path.peer
        self._byKey[peer.key] = path
        for place in peer.endpoints:
            owner = self._owners.get(place)
            if owner is not None and place not in owner.peer.endpoints:
                self._owners[place] = path
        if peer.isWireGuardOnly:
            self._withoutDisco.add(path)
        else:
            self._withoutDisco.discard(path)
        if peer.disco:
            paths = self._byDisco.setdefault(peer.disco, [])
            if path not in paths:
                paths.append(path)

    def remove(self, key: bytes) -> PeerPath | None:
        """A peer is gone; C{None} for a stranger."""
        path = self._byKey.pop(key, None)
        if path is not None:
            self._withoutDisco.discard(path)
            for place in self._of(path):
                del self._owners[place]
        return path

    def forgetDisco(self, path: PeerPath) -> bool:
        """
        The disco key of a peer is its no more.

        @return: whether it is nobody's now.
        """
        raw = path.peer.disco
        paths = self._byDisco.get(raw, [])
        if path in paths:
            paths.remove(path)
        if paths or raw not in self._byDisco:
            return False
        del self._byDisco[raw]
        return True

    def withDisco(self, raw: bytes) -> Sequence[PeerPath]:
        """The peers that have a disco key: one as a rule."""
        return self._byDisco.get(raw, ())

    def withoutDisco(self) -> Iterator[PeerPath]:
        """The peers that know WireGuard only."""
        return iter(self._withoutDisco)

    def names(self, packed: bytes) -> bool:
        """Whether control names an address as one of some peer."""
        return any(
            place.address == packed
            for path in self._byKey.values()
            for place in path.peer.endpoints
        )

    # -- addresses -------------------------------------------------------------------

    def ownerOf(self, place: Direct) -> PeerPath | None:
        """The peer that is known to be at an address."""
        return self._owners.get(place)

    def mayBe(self, path: PeerPath, place: Direct) -> bool:
        """Whether an address is a peer's, or nobody's yet."""
        owner = self._owners.get(place)
        return owner is None or owner is path

    def heard(self, path: PeerPath, place: Direct) -> None:
        """A peer seems to be at an address."""
        self._owners.setdefault(place, path)

    def confirm(self, path: PeerPath, place: Direct) -> None:
        """A peer is at an address."""
        self._owners[place] = path

    def disown(self, path: PeerPath) -> None:
        """Give up the addresses that are no candidates of a peer any more."""
        for place in self._of(path):
            if place not in path.candidates:
                del self._owners[place]

    def _of(self, path: PeerPath) -> list[Direct]:
        return [place for place, owner in self._owners.items() if owner is path]

    def viasAt(self, place: Direct) -> list[Via]:
        """The places at a peer relay with an address where peers are met."""
        return [p for p in self._owners if isinstance(p, Via) and p.address == place]

    def forgetAddresses(self) -> None:
        """Nobody is known to be anywhere any more."""
        self._owners.clear()

"""The peers of a tailnet, with indexes to find them by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from tsrt.netmap.node import Node


class Peers:
    """
    The peers, found by id, key, disco key, address or name.

    This is what readers see; L{PeerIndex} can be changed.
    """

    def __init__(self, original: Peers | None = None) -> None:
        """
        @param original: peers to copy.
        """
        self._byID: dict[int, Node] = {}
        self._byKey: dict[bytes, Node] = {}
        self._byDisco: dict[bytes, Node] = {}
        self._byAddress: dict[bytes, Node] = {}
        self._byName: dict[str, Node] = {}
        if original is not None:
            self._byID.update(original._byID)
            self._byKey.update(original._byKey)
            self._byDisco.update(original._byDisco)
            self._byAddress.update(original._byAddress)
            self._byName.update(original._byName)

    def __len__(self) -> int:
        """How many peers there are."""
        return len(self._byID)

    def __iter__(self) -> Iterator[Node]:
        """All peers, by their ids."""
        for number in sorted(self._byID):
            yield self._byID[number]

    @property
    def byID(self) -> Mapping[int, Node]:
        """The peers by control's numbers for them."""
        return MappingProxyType(self._byID)

    def withID(self, number: int) -> Node | None:
        """The peer with control's number for it."""
        return self._byID.get(number)

    def withKey(self, raw: bytes) -> Node | None:
        """The peer with a node key."""
        return self._byKey.get(raw)

    def withDisco(self, raw: bytes) -> Node | None:
        """The peer with a disco key."""
        return self._byDisco.get(raw)

    def withAddress(self, packed: bytes) -> Node | None:
        """The peer with a tailnet address of its own."""
        return self._byAddress.get(packed)

    def withName(self, name: str) -> Node | None:
        """The peer with a full name, in any case, with or without a last dot."""
        return self._byName.get(name.rstrip(".").lower())


class PeerIndex(Peers):
    """
    Peers that come and go.

    An entry of an index goes only with the peer that it points to: a value
    that another peer has taken over in the meantime stays that peer's.
    """

    def put(self, node: Node) -> Node | None:
        """
        Insert a peer, or replace the one with its id.

        @return: another peer that had the same node key and had to go: two
            peers cannot be told apart by the same key.
        """
        former = self._byID.get(node.id)
        if former is not None:
            self._unindex(former)
        evicted = self._byKey.get(node.key.raw)
        if evicted is not None:
            self.remove(evicted.id)
        self._byID[node.id] = node
        self._byKey[node.key.raw] = node
        if node.disco is not None:
            self._byDisco[node.disco.raw] = node
        for prefix in node.addresses:
            self._byAddress[prefix.address] = node
        if node.name:
            self._byName[node.name] = node
        return evicted

    def remove(self, number: int) -> Node | None:
        """Remove a peer; return it if there was one."""
        node = self._byID.pop(number, None)
        if node is not None:
            self._unindex(node)
        return node

    def indexSizes(self) -> tuple[int, ...]:
        """How many keys, disco keys, addresses and names are known."""
        return (
            len(self._byKey),
            len(self._byDisco),
            len(self._byAddress),
            len(self._byName),
        )

    def _unindex(self, node: Node) -> None:
        if self._byKey.get(node.key.raw) is node:
            del self._byKey[node.key.raw]
        if node.disco is not None and self._byDisco.get(node.disco.raw) is node:
            del self._byDisco[node.disco.raw]
        for prefix in node.addresses:
            if self._byAddress.get(prefix.address) is node:
                del self._byAddress[prefix.address]
        if self._byName.get(node.name) is node:
            del self._byName[node.name]

"""
Longest-prefix tables, and which prefixes of a node lead to it.

The same function decides where packets may go and where they may come from,
so that the two can never differ (rule R-GLB-7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from tsrt.addresses import Prefix, isTailscaleAddress
from tsrt.netmap.netmap import Node

V = TypeVar("V")


class RouteTable(Generic[V]):
    """
    Values by prefix; a look-up gives that of the longest one.

    Host prefixes, of which a tailnet has mostly, cost one dictionary look-up;
    others one more for each length in use.
    """

    __slots__ = ("_exact", "_lengths", "_wide")

    def __init__(self, entries: Iterable[tuple[Prefix, V]] = ()) -> None:
        """
        @param entries: the last of several values for one prefix counts.
        """
        self._exact: dict[bytes, V] = {}
        # By address size: (shift, entries by shifted address), longest first.
        self._wide: dict[int, list[tuple[int, dict[int, V]]]] = {4: [], 16: []}
        self._lengths: dict[tuple[int, int], dict[int, V]] = {}
        for prefix, value in entries:
            self.insert(prefix, value)

    def insert(self, prefix: Prefix, value: V) -> None:
        """Give C{prefix} a value."""
        size = len(prefix.address)
        if prefix.length == size * 8:
            self._exact[prefix.address] = value
            return
        shift = size * 8 - prefix.length
        table = self._lengths.get((size, shift))
        if table is None:
            table = self._lengths[size, shift] = {}
            self._wide[size].append((shift, table))
            self._wide[size].sort(key=lambda entry: entry[0])
        table[int.from_bytes(prefix.address, "big") >> shift] = value

    def lookup(self, address: bytes) -> V | None:
        """The value of the longest prefix that contains a packed address."""
        value = self._exact.get(address)
        if value is not None:
            return value
        wide = self._wide.get(len(address))
        if wide:
            number = int.from_bytes(address, "big")
            for shift, table in wide:
                value = table.get(number >> shift)
                if value is not None:
                    return value
        return None

    def __contains__(self, address: bytes) -> bool:
        """Whether some prefix contains a packed address."""
        return self.lookup(address) is not None

    def __len__(self) -> int:
        """How many prefixes have values."""
        return len(self._exact) + sum(map(len, self._lengths.values()))

    def values(self) -> Iterator[V]:
        """The values of all prefixes."""
        yield from self._exact.values()
        for table in self._lengths.values():
            yield from table.values()


def isSubnetRoute(node: Node, prefix: Prefix) -> bool:
    """
    Whether a prefix leads beyond C{node}, to a network behind it.

    A node's own addresses and tailnet addresses do not; everything wider than
    a host does, the default routes included.
    """
    if not prefix.isHost:
        return True
    return not isTailscaleAddress(prefix.address) and prefix not in node.addresses


def routesToInstall(
    node: Node, acceptRoutes: bool = False, exitNodeID: str | None = None
) -> tuple[Prefix, ...]:
    """
    The prefixes that lead to C{node}, and from which it may send.

    @param acceptRoutes: whether networks behind nodes are wanted (R-RT-3).
    @param exitNodeID: the stable id of the one node that may have a default
        route (R-RT-2).
    """
    if node.expired or not node.isReachable:
        return ()
    return tuple(
        prefix
        for prefix in node.allowedIPs
        if (
            bool(exitNodeID) and node.stableID == exitNodeID
            if prefix.length == 0
            else acceptRoutes or not isSubnetRoute(node, prefix)
        )
    )


def buildRoutes(
    nodes: Iterable[Node], acceptRoutes: bool = False, exitNodeID: str | None = None
) -> RouteTable[bytes]:
    """
    The table from addresses to the raw keys of the nodes they lead to.

    It serves as the table of accepted sources, too.  Where several nodes have
    the same prefix the one with the lowest id wins.
    """
    table: RouteTable[bytes] = RouteTable()
    for node in sorted(nodes, key=lambda node: -node.id):
        for prefix in routesToInstall(node, acceptRoutes, exitNodeID):
            table.insert(prefix, node.key.raw)
    return table


def peersWithRoute(nodes: Iterable[Node], address: bytes) -> tuple[Node, ...]:
    """
    The nodes that offer the narrowest prefix with a packed address, by their ids.

    What this node accepts does not matter here.
    """
    best: list[Node] = []
    length = -1
    for node in nodes:
        for prefix in node.allowedIPs:
            if prefix.length < length or not prefix.contains(address):
                continue
            if prefix.length > length:
                best, length = [], prefix.length
            if node not in best:
                best.append(node)
    return tuple(sorted(best, key=lambda node: node.id))

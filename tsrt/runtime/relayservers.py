"""Which peers relay the traffic of others for this node."""

from __future__ import annotations

from collections.abc import Callable, Container

from tsrt.netmap.changes import Changes
from tsrt.netmap.netmap import NetworkMap
from tsrt.netmap.node import Node
from tsrt.tailcfg.capabilities import (
    DISABLE_RELAY_CLIENT,
    PEER_RELAY_VERSION,
    RELAY_TARGET,
)

Granted = Callable[[bytes, bytes], Container[str]]
"""Tells what the node with one packed address may do at another."""


class RelayServers:
    """
    Follows the netmap; asks the packet filter about peers that changed only.

    @ivar isEnabled: whether the tailnet lets us use peer relays.
    """

    def __init__(self, granted: Granted) -> None:
        self.isEnabled = True
        self._granted = granted
        self._keys: dict[int, bytes] = {}

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The raw node keys of the relays."""
        return tuple(self._keys.values())

    def update(self, changes: Changes, netmap: NetworkMap) -> bool:
        """
        Take what changed; the packet filter has it already.

        @return: whether there are other relays now.
        """
        own = netmap.selfNode
        former = self._keys, self.isEnabled
        self.isEnabled = own is None or DISABLE_RELAY_CLIENT not in own.capMap
        if changes.filterChanged or changes.selfChanged:
            nodes = list(netmap.peers)
            keys = {}
        else:
            found = (netmap.peers.byID.get(number) for number in changes.upserted)
            nodes = [node for node in found if node is not None]
            gone = {node.id for node in changes.removed} | changes.upserted
            keys = {id: key for id, key in self._keys.items() if id not in gone}
        if own is not None:
            keys |= {n.id: n.key.raw for n in nodes if self._mayRelay(n, own)}
        self._keys = keys
        return (keys, self.isEnabled) != former

    def _mayRelay(self, node: Node, own: Node) -> bool:
        if (
            node.cap < PEER_RELAY_VERSION
            or node.disco is None
            or node.expired
            or not node.isReachable
            or node.unsignedPeerAPIOnly
        ):
            return False
        ours = own.packedAddresses()
        return any(
            len(source) == len(destination)
            and RELAY_TARGET in self._granted(source, destination)
            for source in node.packedAddresses()
            for destination in ours
        )

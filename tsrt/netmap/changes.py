"""What one map response changed."""

from __future__ import annotations

from attrs import define, field

from tsrt.netmap.node import Node
from tsrt.tailcfg.capabilities import DNS_SUBDOMAIN_RESOLVE

_MOST_REJECTIONS = 100


@define
class Changes:
    """
    What one response changed, so that each part of a node does only its share.

    @ivar isFirst: whether it was the complete response that begins a poll.
    @ivar routesChanged: whether some peer has other routes, another key, or
        has become (un)usable.
    @ivar namesChanged: whether names, or the addresses of names, changed.
    @ivar attributesChanged: whether the attributes of peers changed, by which
        rules may let them in.
    @ivar jailChanged: whether other peers are jailed than before.
    @ivar filterChanged: whether the packet filter would decide otherwise.
    @ivar upserted: ids of peers that are new or changed.
    @ivar removed: peers that are gone, as they were.  A peer that control
        removed and brought back at once is in C{upserted}, too.
    @ivar rekeyed: former raw node keys of peers, with their new ones; whoever
        has sessions with the former drops them.
    @ivar rejected: a sentence for each element that could not be used.
    """

    isFirst: bool = False
    selfChanged: bool = False
    derpMapChanged: bool = False
    dnsChanged: bool = False
    filterChanged: bool = False
    profilesChanged: bool = False
    healthChanged: bool = False
    sshPolicyChanged: bool = False
    tkaChanged: bool = False
    domainChanged: bool = False
    routesChanged: bool = False
    namesChanged: bool = False
    attributesChanged: bool = False
    jailChanged: bool = False
    upserted: set[int] = field(factory=set)
    removed: list[Node] = field(factory=list)
    rekeyed: dict[bytes, bytes] = field(factory=dict)
    rejected: list[str] = field(factory=list)

    @property
    def peersChanged(self) -> bool:
        """Whether any peer came, went or changed."""
        return bool(self.upserted or self.removed)

    def reject(self, sentence: str) -> None:
        """Note an element that could not be used."""
        if len(self.rejected) < _MOST_REJECTIONS:
            self.rejected.append(sentence)

    def noteRemoved(self, node: Node) -> None:
        """A peer is gone."""
        self.removed.append(node)
        self.upserted.discard(node.id)
        self.routesChanged = self.namesChanged = self.attributesChanged = True
        self.jailChanged = self.jailChanged or node.isJailed

    def noteUpserted(self, former: Node | None, node: Node) -> None:
        """A peer is new (C{former} is C{None}) or is not what it was."""
        self.upserted.add(node.id)
        if former is None:
            self.routesChanged = self.namesChanged = self.attributesChanged = True
            self.jailChanged = self.jailChanged or node.isJailed
            return
        moved = former.addresses != node.addresses
        rekeyed = former.key != node.key
        if rekeyed:
            self.rekeyed[former.key.raw] = node.key.raw
        if (
            moved
            or rekeyed
            or former.allowedIPs != node.allowedIPs
            or former.expired != node.expired
            or former.isReachable != node.isReachable
            or former.stableID != node.stableID
        ):
            self.routesChanged = True
        if (
            moved
            or former.name != node.name
            or (DNS_SUBDOMAIN_RESOLVE in former.capMap)
            != (DNS_SUBDOMAIN_RESOLVE in node.capMap)
        ):
            self.namesChanged = True
        if (
            moved
            or former.unsignedPeerAPIOnly != node.unsignedPeerAPIOnly
            or former.capMap.keys() != node.capMap.keys()
        ):
            self.attributesChanged = True
        if former.isJailed != node.isJailed or (node.isJailed and rekeyed):
            self.jailChanged = True

"""The tailnet as this node sees it: for everybody to read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from attrs import define, field

from tsrt.netmap.node import Node
from tsrt.netmap.peers import PeerIndex, Peers
from tsrt.tailcfg import (
    DERPMap,
    DERPRegion,
    DisplayMessage,
    DNSConfig,
    UserProfile,
)

__all__ = ["MapParts", "NetworkMap", "Node", "Peers"]


@define(eq=False)
class MapParts:
    """What a L{NetworkMap} shows; L{tsrt.netmap.delta} changes it."""

    selfNode: Node | None = None
    peers: PeerIndex = field(factory=PeerIndex)
    derpMap: DERPMap = field(factory=lambda: DERPMap(regions={}))
    dnsConfig: DNSConfig = field(factory=DNSConfig)
    domain: str = ""
    userProfiles: dict[int, UserProfile] = field(factory=dict)
    health: tuple[str, ...] = ()
    messages: Mapping[str, DisplayMessage] = field(factory=dict)
    collectServices: bool = False


class NetworkMap:
    """
    The tailnet, as this node sees it.

    Nobody changes it from here.  The one of L{tsrt.netmap.delta.MapState} goes
    along with what control tells; L{copy} stays as it is.
    """

    __slots__ = ("_parts", "_peers")

    def __init__(self, parts: MapParts | None = None) -> None:
        """
        @param parts: what it shows; nothing if there is none.
        """
        self._parts = MapParts() if parts is None else parts
        self._peers: Peers = self._parts.peers

    def copy(self) -> NetworkMap:
        """The picture of this moment, which stays as it is."""
        parts = self._parts
        snapshot = NetworkMap(
            MapParts(
                selfNode=parts.selfNode,
                derpMap=parts.derpMap,
                dnsConfig=parts.dnsConfig,
                domain=parts.domain,
                userProfiles=dict(parts.userProfiles),
                health=parts.health,
                messages=dict(parts.messages),
                collectServices=parts.collectServices,
            )
        )
        snapshot._peers = Peers(self._peers)
        return snapshot

    # -- what there is one of -----------------------------------------------------

    @property
    def selfNode(self) -> Node | None:
        """This node; C{None} until control has told of it."""
        return self._parts.selfNode

    @property
    def derpMap(self) -> DERPMap:
        """The relays."""
        return self._parts.derpMap

    @property
    def dnsConfig(self) -> DNSConfig:
        """How names are resolved."""
        return self._parts.dnsConfig

    @property
    def domain(self) -> str:
        """The name of the tailnet."""
        return self._parts.domain

    @property
    def health(self) -> tuple[str, ...]:
        """What control wants the user to know, in sentences."""
        return self._parts.health

    @property
    def messages(self) -> Mapping[str, DisplayMessage]:
        """The same, with titles and severities."""
        return MappingProxyType(dict(self._parts.messages))

    @property
    def collectServices(self) -> bool:
        """Whether control wants to know what listens on this machine."""
        return self._parts.collectServices

    @property
    def regions(self) -> Mapping[int, DERPRegion]:
        """The relay regions by their numbers."""
        regions = self._parts.derpMap.regions or {}
        return {n: region for n, region in regions.items() if region is not None}

    # -- users ----------------------------------------------------------------------

    @property
    def userProfiles(self) -> Mapping[int, UserProfile]:
        """What is known of users, by their ids."""
        return MappingProxyType(self._parts.userProfiles)

    def profile(self, user: int) -> UserProfile | None:
        """What is known of a user."""
        return self._parts.userProfiles.get(user)

    # -- nodes ----------------------------------------------------------------------

    @property
    def peers(self) -> Peers:
        """The other nodes."""
        return self._peers

    def peerByKey(self, raw: bytes) -> Node | None:
        """The peer with a node key."""
        return self._peers.withKey(raw)

    def peerByAddress(self, packed: bytes) -> Node | None:
        """The peer with a tailnet address."""
        return self._peers.withAddress(packed)

    def peerByName(self, name: str) -> Node | None:
        """The peer with a full name, or with a short one in this tailnet."""
        found = self._peers.withName(name)
        own = self._parts.selfNode
        if found is None and own is not None:
            short = name.rstrip(".")
            if own.tailnetSuffix and "." not in short:
                found = self._peers.withName(f"{short}.{own.tailnetSuffix}")
        return found

    def nodeByAddress(self, packed: bytes) -> Node | None:
        """The node, this one or a peer, with a tailnet address."""
        own = self._parts.selfNode
        if own is not None and any(p.address == packed for p in own.addresses):
            return own
        return self._peers.withAddress(packed)

    def capabilitiesOf(self, packed: bytes) -> Collection[str]:
        """
        The attributes of the peer with an address; for C{cap:} rules.

        A peer that nobody vouches for has none: no rule may let it in.
        """
        node = self._peers.withAddress(packed)
        return () if node is None or node.unsignedPeerAPIOnly else node.capMap

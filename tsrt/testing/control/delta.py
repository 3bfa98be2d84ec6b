"""
Works out what a node has to be told, from what it was told before.

The first frame of a map stream is complete; each later one says what has
changed.  Small changes of a peer are sent as patches, others as the whole node.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from attrs import define, field

from tsrt.tailcfg import (
    ZERO_TIME,
    ControlDialPlan,
    Debug,
    DERPHomeParams,
    DERPMap,
    DNSConfig,
    FilterRule,
    MapResponse,
    PeerChange,
    SSHPolicy,
    UserProfile,
    WireNode,
)
from tsrt.testing.control.records import NodeRecord
from tsrt.testing.control.views import NetworkView

NAMED_FILTERS_VERSION = 81
"""The first capability version that understands named packet filters."""

_PATCHED = frozenset(
    (
        "homeDERP",
        "derp",
        "endpoints",
        "key",
        "keySignature",
        "discoKey",
        "online",
        "lastSeen",
        "keyExpiry",
        "cap",
        "capMap",
    )
)

_IRREVOCABLE = frozenset(
    ("homeDERP", "online", "lastSeen", "discoKey", "cap", "key", "keySignature")
)


def changedFields(old: WireNode, new: WireNode) -> frozenset[str]:
    """The attributes in which two descriptions of a node differ."""
    return frozenset(
        name
        for name in old.__struct_fields__
        if getattr(old, name) != getattr(new, name)
    )


def patch(old: WireNode, new: WireNode, changed: frozenset[str]) -> PeerChange | None:
    """
    Describe the change of a peer as a patch.

    @param old: what the node was told.
    @param new: what is the case.
    @param changed: where they differ.
    @return: the patch, or C{None} if no patch can say it.
    """
    if not changed <= _PATCHED:
        return None
    # A patch cannot take these away again, only replace them.
    for name in changed & _IRREVOCABLE:
        wentOffline = name == "online" and new.online is False
        if not getattr(new, name) and not wentOffline:
            return None
    change = PeerChange(nodeID=new.id)
    if "homeDERP" in changed:
        change.derpRegion = new.homeDERP
    if "endpoints" in changed:
        change.endpoints = list(new.endpoints or ())
    if "key" in changed:
        change.key = new.key
    if "keySignature" in changed:
        change.keySignature = new.keySignature
    if "discoKey" in changed:
        change.discoKey = new.discoKey
    if "online" in changed:
        change.online = new.online
    if "lastSeen" in changed:
        change.lastSeen = new.lastSeen
    if "keyExpiry" in changed:
        change.keyExpiry = new.keyExpiry or ZERO_TIME
    if "cap" in changed:
        change.cap = new.cap
    if "capMap" in changed:
        change.capMap = new.capMap or {}
    return change


@define(eq=False)
class ToldState:
    """
    What one map stream has told its node so far.
    """

    _view: NetworkView
    _node: NodeRecord
    _wallTime: Callable[[], float]
    _own: WireNode | None = None
    _peers: dict[int, WireNode] = field(factory=dict)
    _filter: list[FilterRule] = field(factory=list)
    _profiles: dict[int, UserProfile] = field(factory=dict)
    _dns: DNSConfig | None = None
    _derpMap: DERPMap | None = None
    _ssh: SSHPolicy | None = None
    _health: tuple[str, ...] = ()
    _dialPlan: ControlDialPlan | None = None

    def first(self) -> MapResponse:
        """The complete first frame."""
        view, node = self._view, self._node
        own = view.self(node)
        peers = view.peers(node)
        self._own = own
        self._peers = peers
        self._filter = view.filter(node)
        self._profiles = view.profiles(own, peers)
        self._dns = view.dnsConfig(node)
        self._derpMap = view.derpMap
        self._ssh = view.sshPolicy(node)
        self._health = view.health
        self._dialPlan = view.dialPlan
        response = MapResponse(
            node=own,
            derpMap=_replacing(None, view.derpMap),
            peers=list(peers.values()),
            dnsConfig=self._dns,
            domain=view.domain,
            collectServices=False,
            userProfiles=list(self._profiles.values()),
            sshPolicy=self._ssh,
            controlTime=datetime.fromtimestamp(self._wallTime(), UTC),
            health=list(self._health),
            controlDialPlan=self._dialPlan,
            debug=Debug(disableLogTail=True),
        )
        self._putFilter(response)
        return response

    def next(self) -> MapResponse | None:
        """What has changed since the last frame, or C{None}."""
        view, node = self._view, self._node
        response = MapResponse()
        changed = False
        own = view.self(node)
        if own != self._own:
            self._own = response.node = own
            changed = True
        peers = view.peers(node)
        changed = self._comparePeers(peers, response) or changed
        profiles = view.profiles(own, peers)
        fresh = [
            profile
            for number, profile in profiles.items()
            if self._profiles.get(number) != profile
        ]
        if fresh:
            self._profiles.update(profiles)
            response.userProfiles = fresh
            changed = True
        rules = view.filter(node)
        if rules != self._filter:
            self._filter = rules
            self._putFilter(response)
            changed = True
        dns = view.dnsConfig(node)
        if dns != self._dns:
            self._dns = response.dnsConfig = dns
            changed = True
        if view.derpMap != self._derpMap:
            response.derpMap = _replacing(self._derpMap, view.derpMap)
            self._derpMap = view.derpMap
            changed = True
        ssh = view.sshPolicy(node)
        if ssh != self._ssh:
            self._ssh = response.sshPolicy = ssh
            changed = True
        if view.health != self._health:
            self._health = view.health
            response.health = list(view.health)
            changed = True
        if view.dialPlan != self._dialPlan:
            self._dialPlan = view.dialPlan
            response.controlDialPlan = view.dialPlan or ControlDialPlan()
            changed = True
        return response if changed else None

    def _comparePeers(self, peers: dict[int, WireNode], response: MapResponse) -> bool:
        """Put the differences of the peers into a frame."""
        told = self._peers
        removed = [number for number in told if number not in peers]
        whole: list[WireNode] = []
        patches: list[PeerChange] = []
        online: dict[int, bool] = {}
        for number, new in peers.items():
            old = told.get(number)
            if old is new:
                continue
            if old is None:
                whole.append(new)
                continue
            changed = changedFields(old, new)
            if not changed:
                continue
            if changed == {"online"} and new.online is not None:
                online[number] = new.online
                continue
            change = patch(old, new, changed)
            if change is None:
                whole.append(new)
            else:
                patches.append(change)
        self._peers = peers
        if removed:
            response.peersRemoved = removed
        if whole:
            response.peersChanged = whole
        if patches:
            response.peersChangedPatch = patches
        if online:
            response.onlineChange = online
        return bool(removed or whole or patches or online)

    def _putFilter(self, response: MapResponse) -> None:
        if self._node.version >= NAMED_FILTERS_VERSION:
            response.packetFilters = {"base": self._filter}
        else:
            response.packetFilter = self._filter


def _replacing(old: DERPMap | None, new: DERPMap) -> DERPMap:
    """
    A relay map that leaves nothing of an earlier one in force.

    Absent parts of a relay map mean "as before", so they are spelled out.
    """
    homeParams = new.homeParams
    if not homeParams and old is not None and old.homeParams:
        homeParams = DERPHomeParams(regionScore={})
    return DERPMap(
        regions=dict(new.regions or {}),
        homeParams=homeParams,
        omitDefaultRegions=new.omitDefaultRegions,
    )

"""
Applying map responses, one after the other, to the picture of the tailnet.

The first response of a poll is complete; in the later ones what is not there
has not changed.  A response is applied in this order: this node and what there
is one of, the complete list of peers, removals, changed peers, patches, and
last who was seen and who is online.  Patches so hold even where they come with
a complete list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from attrs import define, field
from msgspec.structs import replace

from tsrt.errors import ProtocolError, WireError
from tsrt.keys import NodePublic
from tsrt.netmap.netmap import NetworkMap, Node
from tsrt.netmap.rules import RuleSet, compileRules
from tsrt.tailcfg import (
    UNSET,
    DERPHomeParams,
    DERPMap,
    DisplayMessage,
    FilterRule,
    MapResponse,
    PeerChange,
    SSHPolicy,
    TKAInfo,
    WireNode,
    present,
)

# Differences between control's clock and ours below this are of no interest.
_CLOCK_TOLERANCE = 60.0

_BASE = "base"
_ALL = "*"

_LONGEST_HANDLE = 256
_MOST_REJECTIONS = 100


@define
class Changes:
    """
    What one response changed.

    @ivar upserted: ids of peers that are new or changed.
    @ivar removed: peers that are gone, as they were.
    @ivar rekeyed: former raw node keys of peers that have another one now;
        whoever has sessions with these keys drops them.
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
    upserted: set[int] = field(factory=set)
    removed: list[Node] = field(factory=list)
    rekeyed: list[bytes] = field(factory=list)
    rejected: list[str] = field(factory=list)

    @property
    def peersChanged(self) -> bool:
        """Whether any peer came, went or changed."""
        return bool(self.upserted or self.removed)

    def reject(self, sentence: str) -> None:
        """Note an element that could not be used."""
        if len(self.rejected) < _MOST_REJECTIONS:
            self.rejected.append(sentence)


def _admitEverybody(node: Node) -> bool:
    """No lock on the tailnet."""
    return True


class MapState:
    """
    The netmap of one node, kept up to date.

    @ivar map: the picture; the same object all along.
    @ivar rules: the packet filter in force.
    @ivar sessionHandle: with L{sequence}, where a broken poll can go on.
    """

    def __init__(self, admits: Callable[[Node], bool] = _admitEverybody) -> None:
        """
        @param admits: whether a peer may be let into the netmap at all; every
            way in goes through it (complete lists, changes and patches).
        """
        self._admits = admits
        self.map = NetworkMap()
        self.rules = RuleSet()
        self.sshPolicy: SSHPolicy | None = None
        self.tka: TKAInfo | None = None
        self.sessionHandle = ""
        self.sequence = 0
        self._clockDelta = 0.0
        self._awaitsFirst = True
        self._filters: dict[str, list[FilterRule]] = {}
        self._healthTexts: list[str] = []
        self._messages: dict[str, DisplayMessage] = {}

    def newPoll(self) -> None:
        """A poll begins; unless it is resumed its first response is complete."""
        self._awaitsFirst = True

    def wallTime(self, now: float) -> float:
        """Control's time, given ours in Unix seconds."""
        return now + self._clockDelta

    def apply(self, response: MapResponse, now: float) -> Changes:
        """
        Apply one response.

        @param now: our own clock in Unix seconds.
        @raise ProtocolError: the first response of a poll does not say who
            this node is.
        """
        changes = Changes(rejected=list(response.rejectedPeers))
        self._noteSession(response, changes)
        self._noteTime(response, now)
        if response.keepAlive:
            return changes
        if self._awaitsFirst:
            if not response.node:
                raise ProtocolError("the first map response does not name this node")
            changes.isFirst = True
        self._applySingles(response, changes, now)
        self._applyPeers(response, changes, now)
        if response.packetFilter is not UNSET or response.packetFilters is not UNSET:
            self._applyFilters(response)
            changes.filterChanged = True
        if changes.filterChanged or changes.peersChanged:
            self._compile(changes)
        self._awaitsFirst = False
        return changes

    # -- the session -----------------------------------------------------------

    def _noteSession(self, response: MapResponse, changes: Changes) -> None:
        handle = response.mapSessionHandle
        if isinstance(handle, str) and handle:
            if len(handle) <= _LONGEST_HANDLE and all("!" <= c <= "~" for c in handle):
                if handle == self.sessionHandle and self.map.selfNode is not None:
                    self._awaitsFirst = False  # it goes on where we were
                else:
                    self.sessionHandle, self.sequence = handle, 0
            else:
                changes.reject("the session handle is malformed")
        if isinstance(response.seq, int) and response.seq:
            self.sequence = response.seq

    def _noteTime(self, response: MapResponse, now: float) -> None:
        when = present(response.controlTime)
        if when is not None:
            delta = when.timestamp() - now
            self._clockDelta = delta if abs(delta) > _CLOCK_TOLERANCE else 0.0

    # -- what there is one of -----------------------------------------------------

    def _applySingles(
        self, response: MapResponse, changes: Changes, now: float
    ) -> None:
        netmap = self.map
        if response.node:
            try:
                netmap.selfNode = Node.fromWire(response.node, self.wallTime(now))
            except WireError as error:
                if netmap.selfNode is None:
                    raise ProtocolError(f"this node is malformed: {error}") from None
                changes.reject(f"this node: {error}")
            else:
                changes.selfChanged = True
        if response.derpMap:
            netmap.derpMap = mergeDERPMaps(netmap.derpMap, response.derpMap)
            changes.derpMapChanged = True
        if response.dnsConfig:
            netmap.dnsConfig = response.dnsConfig
            changes.dnsChanged = True
        if response.domain:
            netmap.domain = response.domain
            changes.domainChanged = True
        for profile in response.userProfiles or ():
            netmap.userProfiles[profile.id] = profile
            changes.profilesChanged = True
        if response.sshPolicy:
            self.sshPolicy = response.sshPolicy
            changes.sshPolicyChanged = True
        if response.tkaInfo:
            self.tka = response.tkaInfo
            changes.tkaChanged = True
        self._applyHealth(response, changes)

    def _applyHealth(self, response: MapResponse, changes: Changes) -> None:
        if isinstance(response.health, list):
            self._healthTexts = list(response.health)
        if isinstance(response.displayMessages, dict):
            messages = response.displayMessages
            if _ALL in messages and messages[_ALL] is None:
                self._messages = {}
            for key, message in messages.items():
                if message is None:
                    self._messages.pop(key, None)
                else:
                    self._messages[key] = message
        # Display messages are the newer form; the other is shown without them.
        texts = tuple(
            [
                ": ".join(part for part in (m.title, m.text) if part)
                for _, m in sorted(self._messages.items())
            ]
            or self._healthTexts
        )
        if texts != self.map.health:
            self.map.health = texts
            changes.healthChanged = True

    # -- peers ----------------------------------------------------------------------

    def _applyPeers(self, response: MapResponse, changes: Changes, now: float) -> None:
        if response.peers:
            self._replaceAll(response.peers, changes, now)
        elif changes.isFirst:
            # A complete response without peers: there are none.
            for node in list(self.map.peers):
                self._remove(node.id, changes)
        for number in response.peersRemoved or ():
            self._remove(number, changes)
        for wire in response.peersChanged or ():
            self._upsert(wire, changes, now)
        for patch in response.peersChangedPatch or ():
            self._patch(patch, changes, now)
        for number, seen in (response.peerSeenChange or {}).items():
            when = datetime.fromtimestamp(self.wallTime(now), UTC)
            self._touch(number, changes, now, lastSeen=when if seen else None)
        for number, online in (response.onlineChange or {}).items():
            self._touch(number, changes, now, online=online)

    def _replaceAll(
        self, peers: Iterable[WireNode], changes: Changes, now: float
    ) -> None:
        listed = set()
        for wire in peers:
            listed.add(wire.id)
            self._upsert(self._keepFresherDisco(wire), changes, now)
        for node in list(self.map.peers):
            if node.id not in listed:
                self._remove(node.id, changes)

    def _keepFresherDisco(self, wire: WireNode) -> WireNode:
        """
        Do not take an older disco key for a newer one.

        Peers also tell us their disco keys themselves; an offline peer's key
        in a list may be from before that.
        """
        known = self.map.peers.byID.get(wire.id)
        if (
            known is None
            or known.disco is None
            or wire.online is not False
            or wire.discoKey == known.wire.discoKey
        ):
            return wire
        seen, before = present(wire.lastSeen), known.lastSeen
        if before is None or seen is None or seen > before:
            return wire
        return replace(wire, discoKey=known.wire.discoKey)

    def _upsert(self, wire: WireNode, changes: Changes, now: float) -> None:
        """Let a peer in, or not; the one place where that is decided."""
        try:
            node = Node.fromWire(wire, self.wallTime(now))
        except WireError as error:
            changes.reject(f"peer {wire.id} ({wire.name}): {error}")
            self._remove(wire.id, changes)
            return
        if not self._admits(node):
            changes.reject(f"peer {wire.id} ({wire.name}) is not trusted")
            self._remove(wire.id, changes)
            return
        former = self.map.peers.byID.get(node.id)
        if (
            former is not None
            and former.wire == wire
            and former.expired == node.expired
        ):
            return
        if former is not None and former.key != node.key:
            changes.rekeyed.append(former.key.raw)
        evicted = self.map.peers.put(node)
        if evicted is not None:
            changes.removed.append(evicted)
            changes.upserted.discard(evicted.id)
        changes.upserted.add(node.id)

    def _remove(self, number: int, changes: Changes) -> None:
        node = self.map.peers.remove(number)
        if node is not None:
            changes.removed.append(node)
            changes.upserted.discard(number)

    def _patch(self, patch: PeerChange, changes: Changes, now: float) -> None:
        known = self.map.peers.byID.get(patch.nodeID)
        if known is None:
            return  # a patch never makes a node
        if _isStale(patch, known):
            patch = replace(patch, discoKey=UNSET)
        fields: dict[str, object] = {}
        if patch.derpRegion:
            fields["homeDERP"] = patch.derpRegion
        if patch.cap:
            fields["cap"] = patch.cap
        for name, target in (
            ("capMap", "capMap"),
            ("endpoints", "endpoints"),
            ("key", "key"),
            ("keySignature", "keySignature"),
            ("discoKey", "discoKey"),
            ("online", "online"),
            ("lastSeen", "lastSeen"),
            ("keyExpiry", "keyExpiry"),
        ):
            value = getattr(patch, name)
            if value is not UNSET and value is not None:
                fields[target] = value
        if "key" in fields and not _isKey(str(fields["key"])):
            changes.reject(f"patch of peer {patch.nodeID}: its key is malformed")
            return
        self._upsert(replace(known.wire, **fields), changes, now)

    def _touch(
        self, number: int, changes: Changes, now: float, **fields: object
    ) -> None:
        known = self.map.peers.byID.get(number)
        if known is not None:
            self._upsert(replace(known.wire, **fields), changes, now)

    def expire(self, now: float) -> Changes:
        """Look for nodes whose keys have expired in the meantime."""
        changes = Changes()
        for node in list(self.map.peers):
            if node.keyExpiry is not None and not node.expired:
                self._upsert(node.wire, changes, now)
        return changes

    # -- the filter -------------------------------------------------------------------

    def _applyFilters(self, response: MapResponse) -> None:
        named = response.packetFilters
        if isinstance(response.packetFilter, list):
            self._filters[_BASE] = response.packetFilter
        if not isinstance(named, dict):
            return
        if _ALL in named and named[_ALL] is None:
            self._filters = {}
        for name, rules in named.items():
            if name == _ALL:
                continue  # reserved for clearing
            if rules:
                self._filters[name] = rules
            else:
                self._filters.pop(name, None)

    def _compile(self, changes: Changes) -> None:
        rules = compileRules(
            rule for name in sorted(self._filters) for rule in self._filters[name]
        )
        for node in self.map.peers:
            # Such a peer is vouched for by nobody: rules that would let it
            # send mean that something is wrong, so nothing is let in.
            if node.unsignedPeerAPIOnly and rules.sourcesOverlap(node.allowedIPs):
                rules = RuleSet(
                    errors=[f"rules let in {node.name}, which nobody vouches for"]
                )
                break
        if rules.errors != self.rules.errors:
            for error in rules.errors:
                changes.reject(f"packet filter: {error}")
        self.rules = rules


def _isKey(text: str) -> bool:
    try:
        NodePublic.parse(text)
    except WireError:
        return False
    return True


def _isStale(patch: PeerChange, known: Node) -> bool:
    """Whether a patch brings a disco key that is older than the known one."""
    if not patch.discoKey or patch.online is not False:
        return False
    seen = present(patch.lastSeen)
    return seen is not None and known.lastSeen is not None and seen <= known.lastSeen


def mergeDERPMaps(former: DERPMap, update: DERPMap) -> DERPMap:
    """
    Apply an update to a map of relays.

    Regions that are C{None} are gone; where the update has none at all, the
    former ones stay.
    """
    scores = update.homeParams.regionScore if update.homeParams else None
    if scores is None and former.homeParams is not None:
        scores = former.homeParams.regionScore
    params = None if scores is None else DERPHomeParams(regionScore=scores)
    if update.regions is None:
        return DERPMap(
            homeParams=params,
            regions=former.regions,
            omitDefaultRegions=former.omitDefaultRegions,
        )
    return DERPMap(
        homeParams=params,
        regions={n: r for n, r in update.regions.items() if r is not None},
        omitDefaultRegions=update.omitDefaultRegions,
    )

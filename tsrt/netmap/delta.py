"""
Applying map responses, one after the other, to the picture of the tailnet.

The first response of a poll is complete; in the later ones what is not there
has not changed.  A response is applied in this order: this node and what there
is one of, the complete list of peers, removals, changed peers, patches, and
last who was seen and who is online.

Clients differ over a response that has both a complete list and patches: some
ignore the patches.  Here they are applied, after the list, since a server that
sends both means them so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from tsrt.errors import ProtocolError, WireError
from tsrt.netmap.changes import Changes
from tsrt.netmap.messages import MessageBook
from tsrt.netmap.netmap import MapParts, NetworkMap
from tsrt.netmap.node import Node, isExpired
from tsrt.netmap.patches import keepFresherDisco, patched
from tsrt.netmap.relays import mergeDERPMaps
from tsrt.netmap.rules import RuleSet
from tsrt.netmap.rulesets import FilterStore
from tsrt.tailcfg import (
    MapResponse,
    PeerChange,
    SSHPolicy,
    TKAInfo,
    WireNode,
    present,
    replace,
)

__all__ = ["Changes", "MapState"]

# Differences between control's clock and ours below this are of no interest.
_CLOCK_TOLERANCE = 60.0

# Later than this no clock of a control server can stand.
_LAST_YEAR = 9000

_LONGEST_HANDLE = 256


def _admitEverybody(node: Node) -> bool:
    """No lock on the tailnet."""
    return True


class MapState:
    """
    The netmap of one node, kept up to date.

    @ivar map: the picture; the same object all along.
    @ivar rules: the packet filter in force.
    @ivar sshPolicy: who may log in by SSH; C{None} if control does not say.
    @ivar tka: the state of Tailnet Lock; C{None} where it is not in use.
    @ivar sessionHandle: with C{sequence}, where a broken poll can go on.
    """

    def __init__(self, admits: Callable[[Node], bool] = _admitEverybody) -> None:
        """
        @param admits: whether a peer may be let into the netmap at all; every
            way in goes through it (complete lists, changes and patches).
        """
        self._admits = admits
        self._parts = MapParts()
        self._peers = self._parts.peers
        self.map = NetworkMap(self._parts)
        self._snapshot: NetworkMap | None = None
        self.rules = RuleSet()
        self.sshPolicy: SSHPolicy | None = None
        self.tka: TKAInfo | None = None
        self.sessionHandle = ""
        self.sequence = 0
        self._clockDelta = 0.0
        self._awaitsFirst = True
        self._filters = FilterStore()
        self._messages = MessageBook()
        # Peers that are not let in, as control describes them: a patch or a
        # change of the lock may make them good.
        self._refused: dict[int, WireNode] = {}
        # Peers that may not send; see _settleFilter.
        self._unsigned: set[int] = set()
        # Peers that lost their key to another one, in the present response.
        self._evicted: dict[int, int] = {}

    def newPoll(self) -> None:
        """A poll begins; unless it is resumed its first response is complete."""
        self._awaitsFirst = True

    def wallTime(self, now: float) -> float:
        """Control's time, given ours in Unix seconds."""
        return now + self._clockDelta

    def snapshot(self) -> NetworkMap:
        """The picture of this moment, which stays as it is."""
        if self._snapshot is None:
            self._snapshot = self.map.copy()
        return self._snapshot

    def apply(self, response: MapResponse, now: float) -> Changes:
        """
        Apply one response.

        @param now: our own clock in Unix seconds.
        @raise ProtocolError: the first response of a poll does not say who
            this node is.  Nothing of it has been applied.
        """
        changes = Changes(rejected=list(response.rejectedPeers))
        if response.keepAlive:
            self._noteTime(response, now)
            return changes
        isFirst = self._awaitsFirst and not self._isResumption(response)
        own = self._readSelf(response, isFirst, now, changes)
        self._snapshot = None
        self._noteSession(response, changes)
        self._noteTime(response, now)
        if isFirst:
            self._beginAnew(changes)
        self._awaitsFirst = False
        if own is not None:
            self._parts.selfNode = own
            changes.selfChanged = True
        self._applySingles(response, changes)
        self._applyPeers(response, changes, now)
        if self._filters.apply(response):
            changes.filterChanged = True
        self._settle(changes)
        return changes

    def expire(self, now: float) -> Changes:
        """
        Look for nodes whose keys have expired in the meantime.

        @param now: our own clock in Unix seconds.
        """
        changes = Changes()
        own = self._parts.selfNode
        wallTime = self.wallTime(now)
        for node in list(self._peers):
            if isExpired(node.wire, wallTime) != node.expired:
                self._upsert(node.wire, changes, now)
        if own is not None and isExpired(own.wire, wallTime) != own.expired:
            self._parts.selfNode = Node.fromWire(
                own.wire, wallTime, former=own, isSelf=True
            )
            changes.selfChanged = True
        if changes.peersChanged or changes.selfChanged:
            self._snapshot = None
        self._settle(changes)
        return changes

    def nextExpiry(self) -> float | None:
        """
        When the next key expires, on our own clock in Unix seconds.

        @return: the time for the next L{expire}; C{None} if no key will.
        """
        own = self._parts.selfNode
        times = [
            node.keyExpiry.timestamp()
            for node in (*self._peers, *(() if own is None else (own,)))
            if node.keyExpiry is not None and not node.expired
        ]
        return min(times) - self._clockDelta if times else None

    def readmit(self, now: float) -> Changes:
        """
        Look at all peers again: who may be let in has changed.

        @param now: our own clock in Unix seconds.
        """
        changes = Changes()
        for node in list(self._peers):
            self._upsert(node.wire, changes, now)
        for wire in list(self._refused.values()):
            self._upsert(wire, changes, now)
        if changes.peersChanged:
            self._snapshot = None
        self._settle(changes)
        return changes

    # -- the session -----------------------------------------------------------

    def _isResumption(self, response: MapResponse) -> bool:
        """Whether the poll goes on where the one before ended."""
        return (
            self._parts.selfNode is not None
            and bool(self.sessionHandle)
            and response.mapSessionHandle == self.sessionHandle
        )

    def _noteSession(self, response: MapResponse, changes: Changes) -> None:
        handle = response.mapSessionHandle
        if isinstance(handle, str) and handle and handle != self.sessionHandle:
            if len(handle) <= _LONGEST_HANDLE and all("!" <= c <= "~" for c in handle):
                self.sessionHandle, self.sequence = handle, 0
            else:
                changes.reject("the session handle is malformed")
        if isinstance(response.seq, int) and response.seq > 0:
            self.sequence = response.seq

    def _noteTime(self, response: MapResponse, now: float) -> None:
        when = present(response.controlTime)
        if when is not None and when.year < _LAST_YEAR:
            delta = when.timestamp() - now
            self._clockDelta = delta if abs(delta) > _CLOCK_TOLERANCE else 0.0

    def _readSelf(
        self, response: MapResponse, isFirst: bool, now: float, changes: Changes
    ) -> Node | None:
        """This node, if the response tells of it."""
        if not response.node:
            if isFirst:
                raise ProtocolError("the first map response does not name this node")
            return None
        try:
            return Node.fromWire(response.node, self.wallTime(now), isSelf=True)
        except WireError as error:
            if isFirst:
                raise ProtocolError(f"this node is malformed: {error}") from None
            changes.reject(f"this node: {error}")
            return None

    def _beginAnew(self, changes: Changes) -> None:
        """
        A complete response comes: what lets anybody in must be told anew.

        What cannot do harm (names, relays, users) stays until it is replaced.
        """
        changes.isFirst = True
        changes.filterChanged = True
        self._filters.clear()
        self._messages.clear()
        if self.sshPolicy is not None:
            self.sshPolicy = None
            changes.sshPolicyChanged = True
        if self.tka is not None:
            self.tka = None
            changes.tkaChanged = True

    # -- what there is one of -----------------------------------------------------

    def _applySingles(self, response: MapResponse, changes: Changes) -> None:
        parts = self._parts
        if response.derpMap:
            parts.derpMap = mergeDERPMaps(parts.derpMap, response.derpMap)
            changes.derpMapChanged = True
        if response.dnsConfig:
            parts.dnsConfig = response.dnsConfig
            changes.dnsChanged = True
        if response.domain:
            parts.domain = response.domain
            changes.domainChanged = True
        if isinstance(response.collectServices, bool):
            parts.collectServices = response.collectServices
        for profile in response.userProfiles or ():
            parts.userProfiles[profile.id] = profile
            changes.profilesChanged = True
        if response.sshPolicy:
            self.sshPolicy = response.sshPolicy
            changes.sshPolicyChanged = True
        if response.tkaInfo:
            self.tka = response.tkaInfo
            changes.tkaChanged = True
        self._messages.apply(response)
        messages = self._messages.messages
        if messages != parts.messages:
            parts.messages, parts.health = messages, self._messages.texts
            changes.healthChanged = True

    # -- peers ----------------------------------------------------------------------

    def _applyPeers(self, response: MapResponse, changes: Changes, now: float) -> None:
        if response.peers:
            self._replaceAll(response.peers, changes, now)
        elif changes.isFirst:
            # A complete response without peers: there are none.
            self._removeOthers(frozenset(), changes)
        for number in response.peersRemoved or ():
            self._remove(number, changes)
        for wire in response.peersChanged or ():
            self._upsert(wire, changes, now)
        for patch in response.peersChangedPatch or ():
            self._patch(patch, changes, now)
        if response.peerSeenChange:
            when = datetime.fromtimestamp(self.wallTime(now), UTC)
            self._touch(
                "lastSeen",
                {
                    n: when if seen else None
                    for n, seen in response.peerSeenChange.items()
                },
                changes,
                now,
            )
        if response.onlineChange:
            self._touch("online", response.onlineChange, changes, now)

    def _replaceAll(
        self, peers: Sequence[WireNode], changes: Changes, now: float
    ) -> None:
        # First those go that are gone: they may have left their keys to others.
        self._removeOthers({wire.id for wire in peers}, changes)
        for wire in peers:
            known = self._peers.withID(wire.id)
            if known is not None:
                wire = keepFresherDisco(wire, known)
            self._upsert(wire, changes, now)

    def _removeOthers(
        self, listed: set[int] | frozenset[int], changes: Changes
    ) -> None:
        for number in (self._peers.byID.keys() | self._refused.keys()) - listed:
            self._remove(number, changes)

    def _upsert(self, wire: WireNode, changes: Changes, now: float) -> None:
        """Let a peer in, or not; the one place where that is decided."""
        wallTime = self.wallTime(now)
        former = self._peers.withID(wire.id)
        try:
            if (
                former is not None
                and former.expired == isExpired(wire, wallTime)
                and former.wire == wire
            ):
                node = former
            else:
                node = Node.fromWire(wire, wallTime, former=former)
            self._checkIsOther(node)
        except WireError as error:
            changes.reject(f"peer {wire.id} ({wire.name}): {error}")
            self._remove(wire.id, changes)
            return
        if not self._admits(node):
            changes.reject(f"peer {wire.id} ({wire.name}) is not trusted")
            self._remove(wire.id, changes)
            self._refused[wire.id] = wire
            return
        self._refused.pop(wire.id, None)
        if node is former:
            return
        evicted = self._peers.put(node)
        if evicted is not None:
            self._unsigned.discard(evicted.id)
            changes.noteRemoved(evicted)
            self._evicted[evicted.id] = node.id
        if node.unsignedPeerAPIOnly:
            self._unsigned.add(node.id)
        else:
            self._unsigned.discard(node.id)
        changes.noteUpserted(former, node)

    def _checkIsOther(self, node: Node) -> None:
        """
        Nobody else may be this node.

        @raise WireError: the peer has the id or the key of this node.
        """
        own = self._parts.selfNode
        if own is not None and (own.id == node.id or own.key == node.key):
            raise WireError("that is this node itself")

    def _remove(self, number: int, changes: Changes) -> None:
        self._refused.pop(number, None)
        self._unsigned.discard(number)
        node = self._peers.remove(number)
        if node is not None:
            changes.noteRemoved(node)

    def _wireOf(self, number: int) -> WireNode | None:
        """What control last said of a peer, whether it was let in or not."""
        known = self._peers.withID(number)
        return self._refused.get(number) if known is None else known.wire

    def _patch(self, patch: PeerChange, changes: Changes, now: float) -> None:
        wire = self._wireOf(patch.nodeID)
        if wire is None:
            return  # a patch never makes a node
        try:
            changed = patched(wire, patch)
        except WireError as error:
            changes.reject(f"patch of peer {patch.nodeID}: {error}")
            return
        self._upsert(changed, changes, now)

    def _touch(
        self, name: str, values: Mapping[int, object], changes: Changes, now: float
    ) -> None:
        """Set one attribute of several peers."""
        for number, value in values.items():
            wire = self._wireOf(number)
            if wire is not None:
                self._upsert(replace(wire, **{name: value}), changes, now)

    # -- afterwards -------------------------------------------------------------------

    def _settle(self, changes: Changes) -> None:
        """See what all the changes together come to."""
        for number, owner in self._evicted.items():
            if self._peers.withID(number) is None:
                changes.reject(f"peer {number} has the key of peer {owner}")
        self._evicted = {}
        self._settleFilter(changes)

    def _settleFilter(self, changes: Changes) -> None:
        """Put the rules in force, or none if they cannot be right."""
        rules = self._filters.rules
        for number in sorted(self._unsigned):
            node = self._peers.withID(number)
            # Nobody vouches for such a peer: rules that would let it send mean
            # that something is wrong, so nothing at all is let in.
            if node is not None and rules.letsIn(node.packedAddresses()):
                rules = RuleSet(
                    errors=[f"rules let in {node.name}, which nobody vouches for"]
                )
                break
        if rules.errors != self.rules.errors:
            for error in rules.errors:
                changes.reject(f"packet filter: {error}")
        if rules is not self.rules and rules != self.rules:
            changes.filterChanged = True
            self.rules = rules
        if changes.jailChanged or (changes.attributesChanged and rules.usesAttributes):
            changes.filterChanged = True

"""What patches make of the description of a peer."""

from __future__ import annotations

from tsrt.keys import DiscoPublic, NodePublic
from tsrt.netmap.node import Node
from tsrt.tailcfg import UNSET, PeerChange, WireNode, present, replace

# Fields of a patch that replace the peer's when they are there at all.
_REPLACED = (
    "capMap",
    "endpoints",
    "key",
    "keySignature",
    "discoKey",
    "online",
    "lastSeen",
    "keyExpiry",
)

# What a node tells of itself, and control may tell again when it is long old.
_PERISHABLE = frozenset(("discoKey", "online", "lastSeen"))


def patched(wire: WireNode, patch: PeerChange) -> WireNode:
    """
    Apply a patch to what is known of a peer.

    A key and its signature change together.  News of a disco key that are
    older than what is known are left out.

    @raise WireError: a key of the patch is malformed.
    """
    fields: dict[str, object] = {}
    if patch.derpRegion:
        fields["homeDERP"] = patch.derpRegion
    if patch.cap:
        fields["cap"] = patch.cap
    stale = _isStale(wire, patch)
    for name in _REPLACED:
        value = getattr(patch, name)
        if value is UNSET or value is None or (stale and name in _PERISHABLE):
            continue
        fields[name] = value
    if isinstance(patch.key, str):
        NodePublic.parse(patch.key)
    if isinstance(patch.discoKey, str) and patch.discoKey:
        DiscoPublic.parse(patch.discoKey)
    return replace(wire, **fields) if fields else wire


def _isStale(wire: WireNode, patch: PeerChange) -> bool:
    """Whether a patch brings a disco key that is older than the known one."""
    if not patch.discoKey or patch.online is not False:
        return False
    seen, before = present(patch.lastSeen), present(wire.lastSeen)
    return seen is not None and before is not None and seen <= before


def keepFresherDisco(wire: WireNode, known: Node) -> WireNode:
    """
    Do not take an older disco key for a newer one.

    Peers also tell us their disco keys themselves; an offline peer's key in a
    list may be from before that.  When it was seen stays, too, or the same old
    news would look new the next time.
    """
    if (
        known.disco is None
        or wire.online is not False
        or wire.discoKey == known.wire.discoKey
        or wire.key != known.wire.key
    ):
        return wire
    seen, before = present(wire.lastSeen), known.lastSeen
    if before is None or seen is None or seen > before:
        return wire
    return replace(wire, discoKey=known.wire.discoKey, lastSeen=known.wire.lastSeen)

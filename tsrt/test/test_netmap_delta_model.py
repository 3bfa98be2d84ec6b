"""
Random sequences of map responses, against a model that is too simple to fail.
"""

from __future__ import annotations

from datetime import UTC, datetime

from attrs import define, evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.netmap.delta import MapState
from tsrt.netmap.node import Node
from tsrt.tailcfg import (
    UNSET,
    MapResponse,
    PeerChange,
    UnsetType,
    WireNode,
    decodeMapResponse,
    encode,
    replace,
)
from tsrt.test.netmapworld import NOW, discoKey, nodeKey, rawKey, wireNode

IDS = st.integers(2, 6)
KEYS = st.integers(2, 7)
SEEN = st.sampled_from([datetime.fromtimestamp(NOW - n, UTC) for n in (30, 20, 10)])


@define
class Peer:
    """What the model knows of a peer."""

    key: int
    disco: int
    region: int
    online: bool | None
    lastSeen: datetime | None
    capabilities: frozenset[str]
    endpoints: tuple[str, ...]

    def wire(self, number: int) -> WireNode:
        """The document of this peer."""
        return wireNode(
            number,
            key=nodeKey(self.key),
            discoKey=discoKey(self.disco),
            homeDERP=self.region,
            online=self.online,
            lastSeen=self.lastSeen,
            capMap=dict.fromkeys(sorted(self.capabilities)) or None,
            endpoints=list(self.endpoints),
        )


@define
class Patch:
    """What the model knows of a patch; C{None} is no change."""

    key: int | None
    disco: int | None
    region: int | None
    online: bool | None
    lastSeen: datetime | None
    capabilities: frozenset[str] | None
    endpoints: tuple[str, ...] | None

    def wire(self, number: int) -> PeerChange:
        """The document of this patch."""
        fields: dict[str, object] = {
            "key": None if self.key is None else nodeKey(self.key),
            "discoKey": None if self.disco is None else discoKey(self.disco),
            "derpRegion": self.region,
            "online": self.online,
            "lastSeen": self.lastSeen,
            "capMap": (
                None
                if self.capabilities is None
                else dict.fromkeys(sorted(self.capabilities))
            ),
            "endpoints": None if self.endpoints is None else list(self.endpoints),
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return replace(PeerChange(nodeID=number), **given)


CAPABILITIES = st.frozensets(st.sampled_from(["a", "b"]))
ENDPOINTS = st.lists(st.sampled_from(["192.0.2.1:1", "192.0.2.2:2"]), max_size=2).map(
    tuple
)
PEERS = st.builds(
    Peer,
    key=KEYS,
    disco=KEYS,
    region=st.integers(1, 3),
    online=st.sampled_from([None, True, False]),
    lastSeen=st.none() | SEEN,
    capabilities=CAPABILITIES,
    endpoints=ENDPOINTS,
)
PATCHES = st.builds(
    Patch,
    key=st.none() | KEYS,
    disco=st.none() | KEYS,
    region=st.none() | st.integers(1, 3),
    online=st.none() | st.booleans(),
    lastSeen=st.none() | SEEN,
    capabilities=st.none() | CAPABILITIES,
    endpoints=st.none() | ENDPOINTS,
)


@define
class Response:
    """A response, for the model and as a document."""

    full: list[tuple[int, Peer]] | None
    removed: list[int]
    changed: list[tuple[int, Peer]]
    patches: list[tuple[int, Patch]]
    seen: dict[int, bool]
    online: dict[int, bool]

    def document(self) -> MapResponse:
        """The response, having been through JSON."""
        response = MapResponse(
            peers=self._peers(self.full),
            peersRemoved=self.removed or UNSET,
            peersChanged=self._peers(self.changed),
            peersChangedPatch=[p.wire(n) for n, p in self.patches] or UNSET,
            peerSeenChange=self.seen or UNSET,
            onlineChange=self.online or UNSET,
        )
        return decodeMapResponse(encode(response))

    @staticmethod
    def _peers(
        peers: list[tuple[int, Peer]] | None,
    ) -> list[WireNode] | UnsetType:
        return UNSET if peers is None else [p.wire(n) for n, p in peers]


RESPONSES = st.builds(
    Response,
    full=st.none() | st.lists(st.tuples(IDS, PEERS), max_size=4),
    removed=st.lists(IDS, max_size=2),
    changed=st.lists(st.tuples(IDS, PEERS), max_size=2),
    patches=st.lists(st.tuples(IDS, PATCHES), max_size=3),
    seen=st.dictionaries(IDS, st.booleans(), max_size=2),
    online=st.dictionaries(IDS, st.booleans(), max_size=2),
)


class Model:
    """Peers in a dictionary, and each rule written out once."""

    def __init__(self) -> None:
        self.peers: dict[int, Peer] = {}

    def put(self, number: int, peer: Peer) -> None:
        """A peer is there, and nobody else has its key."""
        for other, former in list(self.peers.items()):
            if other != number and former.key == peer.key:
                del self.peers[other]
        self.peers[number] = peer

    def apply(self, response: Response) -> None:
        """Apply a response."""
        if response.full:
            listed = {number for number, _ in response.full}
            for number in set(self.peers) - listed:
                del self.peers[number]
            for number, peer in response.full:
                self.put(number, self.fresher(number, peer))
        for number in response.removed:
            self.peers.pop(number, None)
        for number, peer in response.changed:
            self.put(number, peer)
        for number, patch in response.patches:
            if number in self.peers:
                self.put(number, self.patched(self.peers[number], patch))
        for number, seen in response.seen.items():
            if number in self.peers:
                when = datetime.fromtimestamp(NOW, UTC) if seen else None
                self.peers[number] = evolve(self.peers[number], lastSeen=when)
        for number, online in response.online.items():
            if number in self.peers:
                self.peers[number] = evolve(self.peers[number], online=online)

    def fresher(self, number: int, peer: Peer) -> Peer:
        """A listed peer, with the known disco key if that is fresher."""
        known = self.peers.get(number)
        if (
            known is not None
            and peer.online is False
            and peer.key == known.key
            and peer.disco != known.disco
            and peer.lastSeen is not None
            and known.lastSeen is not None
            and peer.lastSeen <= known.lastSeen
        ):
            return evolve(peer, disco=known.disco, lastSeen=known.lastSeen)
        return peer

    def patched(self, peer: Peer, patch: Patch) -> Peer:
        """A peer with a patch."""
        stale = (
            patch.disco is not None
            and patch.online is False
            and patch.lastSeen is not None
            and peer.lastSeen is not None
            and patch.lastSeen <= peer.lastSeen
        )
        given = {
            name: getattr(patch, name)
            for name in Patch.__annotations__
            if getattr(patch, name) is not None
            and not (stale and name in ("disco", "online", "lastSeen"))
        }
        return evolve(peer, **given)


def known(node: Node) -> Peer:
    """What a node looks like to the model."""
    return Peer(
        key=int.from_bytes(node.key.raw[:4], "big") - 1,
        disco=-1
        if node.disco is None
        else int.from_bytes(node.disco.raw[:4], "big") - 1,
        region=node.homeDERP,
        online=node.online,
        lastSeen=node.lastSeen,
        capabilities=frozenset(node.capMap),
        endpoints=node.endpoints,
    )


class ModelTests(SynchronousTestCase):
    """L{MapState} and the model agree."""

    @settings(max_examples=150, deadline=None)
    @given(st.lists(RESPONSES, max_size=8))
    def test_anySequence(self, responses: list[Response]) -> None:
        """After any sequence of responses both know the same peers."""
        state, model = MapState(), Model()
        state.apply(MapResponse(node=wireNode(1)), NOW)
        for response in responses:
            before = dict(state.map.peers.byID)
            changes = state.apply(response.document(), NOW)
            model.apply(response)
            peers = state.map.peers
            self.assertEqual({n.id: known(n) for n in peers}, model.peers)
            self.checkIndexes(state)
            # What is told of changes is what has changed.
            changed = {n for n, node in peers.byID.items() if before.get(n) is not node}
            self.assertEqual(changed, changes.upserted)
            gone = {node.id for node in changes.removed}
            self.assertLessEqual(before.keys() - peers.byID.keys(), gone)
            self.assertLessEqual(gone & peers.byID.keys(), changes.upserted)
            for former, new in changes.rekeyed.items():
                self.assertNotEqual(former, new)

    def checkIndexes(self, state: MapState) -> None:
        """Every peer is found by its key, and every entry is a peer's."""
        peers = state.map.peers
        for node in peers:
            self.assertIs(peers.withKey(node.key.raw), node)
            self.assertIs(peers.withName(node.name), node)
            for packed in node.packedAddresses():
                self.assertIs(peers.withAddress(packed), node)
        for number in range(2, 8):
            for found in (
                peers.withKey(rawKey(number)),
                peers.withDisco(rawKey(number)),
            ):
                self.assertIn(found, [None, *peers])

    @settings(max_examples=50, deadline=None)
    @given(st.lists(RESPONSES, max_size=5))
    def test_snapshotsStay(self, responses: list[Response]) -> None:
        """Whatever comes later, a snapshot shows what was."""
        state = MapState()
        state.apply(MapResponse(node=wireNode(1)), NOW)
        taken = []
        for response in responses:
            state.apply(response.document(), NOW)
            taken.append((state.snapshot(), list(state.map.peers)))
        for snapshot, nodes in taken:
            self.assertEqual(list(snapshot.peers), nodes)

    @settings(max_examples=50, deadline=None)
    @given(RESPONSES)
    def test_resyncIsIdempotent(self, response: Response) -> None:
        """What is known, told again as a complete list, is no news."""
        state = MapState()
        state.apply(MapResponse(node=wireNode(1)), NOW)
        state.apply(response.document(), NOW)
        peers: list[WireNode] = [node.wire for node in state.map.peers]
        again = decodeMapResponse(encode(MapResponse(peers=peers)))
        self.assertFalse(state.apply(again, NOW).peersChanged)

    def test_documentsHoldEverything(self) -> None:
        """The model covers every field that a patch can have, but a few."""
        covered = set(PeerChange.__struct_fields__) - {
            "nodeID",
            "cap",  # like the region
            "keySignature",  # see the tests of the lock
            "keyExpiry",  # see the tests of expiry
        }
        self.assertEqual(len(covered), len(Patch.__annotations__))

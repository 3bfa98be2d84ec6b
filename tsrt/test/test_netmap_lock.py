"""Tests that nobody gets into the netmap past the lock, and of the filters."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.netmap.delta import Changes, MapState
from tsrt.netmap.node import Node
from tsrt.tailcfg import (
    FilterRule,
    MapResponse,
    NetPortRange,
    PeerChange,
    PortRange,
    WireNode,
)
from tsrt.test.netmapworld import (
    NOW,
    firstResponse,
    nodeKey,
    rawKey,
    there,
    wireNode,
)

ANYWHERE = NetPortRange(ip="*", ports=PortRange(first=0, last=65535))


def rule(*sources: str) -> FilterRule:
    """Lets sources reach everything."""
    return FilterRule(srcIPs=list(sources), dstPorts=[ANYWHERE])


def signed(number: int, key: int | None = None, **fields: object) -> WireNode:
    """A peer whose key is signed, as far as these tests are concerned."""
    raw = rawKey(number if key is None else key)
    return wireNode(
        number, key="nodekey:" + raw.hex(), keySignature=b"signed:" + raw, **fields
    )


class LockTests(SynchronousTestCase):
    """A node with a lock lets in peers only that are signed."""

    def setUp(self) -> None:
        """The peers 2 and 3 are signed."""
        self.trusted = b"signed:"
        self.asked: list[int] = []
        self.state = MapState(self.admits)
        self.apply(firstResponse(signed(2), signed(3)))

    def admits(self, node: Node) -> bool:
        """Whether the signature is that of the key that the node has now."""
        self.asked.append(node.id)
        return node.keySignature == self.trusted + node.key.raw

    def apply(self, response: MapResponse) -> Changes:
        """Apply a response."""
        return self.state.apply(response, NOW)

    def ids(self) -> list[int]:
        """The ids of all peers."""
        return [peer.id for peer in self.state.map.peers]

    def test_withoutLock(self) -> None:
        """Without a lock everybody is let in."""
        state = MapState()
        state.apply(firstResponse(wireNode(2), signed(3)), NOW)
        self.assertEqual(len(state.map.peers), 2)

    def test_R_PT_1_unsignedInAList(self) -> None:
        """In a complete list, only the signed peers get in, and that is told."""
        self.state.newPoll()
        changes = self.apply(
            firstResponse(
                signed(2), wireNode(4), wireNode(5, keySignature=b"forged"), signed(6)
            )
        )
        self.assertEqual(self.ids(), [2, 6])
        self.assertEqual(len(changes.rejected), 2)
        self.assertIn("peer 4", changes.rejected[0])

    def test_R_PT_1_unsignedAsChange(self) -> None:
        """A changed peer that is not signed does not get in, or goes."""
        changes = self.apply(MapResponse(peersChanged=[wireNode(2), wireNode(4)]))
        self.assertEqual(self.ids(), [3])
        self.assertEqual([node.id for node in changes.removed], [2])

    def test_R_PT_1_signatureOfAnother(self) -> None:
        """The signature of another key is none."""
        self.apply(
            MapResponse(peersChanged=[wireNode(4, keySignature=b"signed:" + rawKey(2))])
        )
        self.assertEqual(self.ids(), [2, 3])

    def test_R_PT_2_resync(self) -> None:
        """A complete list makes peers go that are not trusted any more."""
        self.trusted = b"revoked:"
        self.apply(MapResponse(peers=[signed(2), signed(3)]))
        self.assertEqual(self.ids(), [])

    def test_R_PT_3_rotation(self) -> None:
        """A new key and its signature are looked at together."""
        changes = self.apply(
            MapResponse(
                peersChangedPatch=[
                    PeerChange(
                        nodeID=2,
                        key=nodeKey(20),
                        keySignature=b"signed:" + rawKey(20),
                    )
                ]
            )
        )
        self.assertEqual(self.ids(), [2, 3])
        self.assertEqual(changes.rekeyed, {rawKey(2): rawKey(20)})

    def test_R_PT_3_rotationRefused(self) -> None:
        """A new key with the old signature, or a wrong one, makes a peer go."""
        for number, patch in (
            (2, PeerChange(nodeID=2, key=nodeKey(20))),
            (3, PeerChange(nodeID=3, key=nodeKey(30), keySignature=b"signed:x")),
        ):
            changes = self.apply(MapResponse(peersChangedPatch=[patch]))
            self.assertNotIn(number, self.ids())
            self.assertEqual([node.id for node in changes.removed], [number])
            self.assertIsNone(self.state.map.peerByKey(rawKey(number)))

    def test_R_PT_4_refusedIsUnknown(self) -> None:
        """Whatever is told of an unsigned peer, it stays out."""
        self.apply(MapResponse(peersChanged=[wireNode(4)]))
        self.apply(
            MapResponse(
                peersChangedPatch=[PeerChange(nodeID=4, derpRegion=5, online=True)],
                onlineChange={4: True},
                peerSeenChange={4: True},
            )
        )
        self.assertEqual(self.ids(), [2, 3])

    def test_signedLater(self) -> None:
        """A peer that control told of gets in by a patch with its signature."""
        self.apply(MapResponse(peersChanged=[wireNode(4)]))
        self.apply(
            MapResponse(
                peersChangedPatch=[
                    PeerChange(nodeID=4, keySignature=b"signed:" + rawKey(4))
                ]
            )
        )
        self.assertEqual(self.ids(), [2, 3, 4])

    def test_removedWhileRefused(self) -> None:
        """A refused peer that control removes is forgotten."""
        patch = PeerChange(nodeID=4, keySignature=b"signed:" + rawKey(4))
        self.apply(MapResponse(peersChanged=[wireNode(4)]))
        self.apply(MapResponse(peersRemoved=[4], peersChangedPatch=[patch]))
        self.assertEqual(self.ids(), [2, 3])
        self.apply(MapResponse(peersChanged=[wireNode(4)]))
        self.apply(MapResponse(peers=[signed(2)], peersChangedPatch=[patch]))
        self.assertEqual(self.ids(), [2])

    def test_readmit(self) -> None:
        """When the lock changes everybody is looked at again."""
        self.apply(MapResponse(peersChanged=[wireNode(4, keySignature=b"x")]))
        self.trusted = b"other:"
        changes = self.state.readmit(NOW)
        self.assertEqual([node.id for node in changes.removed], [2, 3])
        self.trusted = b"signed:"
        changes = self.state.readmit(NOW)
        self.assertEqual((self.ids(), changes.upserted), ([2, 3], {2, 3}))
        self.assertFalse(self.state.readmit(NOW).peersChanged)

    def test_collisionWithUnsigned(self) -> None:
        """An unsigned peer cannot push out one whose key it claims."""
        self.apply(MapResponse(peersChanged=[wireNode(9, key=nodeKey(2))]))
        self.assertEqual(self.ids(), [2, 3])

    def test_everyWayIsAsked(self) -> None:
        """Lists, changes, patches and maps all ask."""
        for response in (
            MapResponse(peers=[signed(2), signed(3)]),
            MapResponse(peersChanged=[signed(2)]),
            MapResponse(peersChangedPatch=[PeerChange(nodeID=2, cap=7)]),
            MapResponse(onlineChange={2: False}),
            MapResponse(peerSeenChange={2: True}),
        ):
            self.asked.clear()
            self.apply(response)
            self.assertIn(2, self.asked)


class FilterStateTests(SynchronousTestCase):
    """The rules that come with responses."""

    def setUp(self) -> None:
        """No rules have come yet."""
        self.state = MapState()
        self.apply(firstResponse(wireNode(2), wireNode(3)))

    def apply(self, response: MapResponse) -> Changes:
        """Apply a response."""
        return self.state.apply(response, NOW)

    def sources(self) -> list[str]:
        """Which of some addresses may reach this node."""
        return [
            text
            for text in ("100.64.0.2", "100.64.0.3", "100.64.0.4")
            if self.state.rules.allowsPort(
                6,
                parseAddress(text),
                parseAddress("100.64.0.1"),
                80,
                self.state.map.capabilitiesOf,
            )
        ]

    def test_R_PF_1_nothing(self) -> None:
        """Without rules nobody may do anything."""
        self.assertEqual(self.sources(), [])
        self.assertEqual(self.state.rules.matches, [])

    def test_single(self) -> None:
        """The old form replaces itself; absent and null change nothing."""
        changes = self.apply(MapResponse(packetFilter=[rule("100.64.0.2")]))
        self.assertTrue(changes.filterChanged)
        self.assertEqual(self.sources(), ["100.64.0.2"])
        for response in (MapResponse(), MapResponse(packetFilter=None)):
            self.assertFalse(self.apply(response).filterChanged)
            self.assertEqual(self.sources(), ["100.64.0.2"])
        self.assertTrue(self.apply(MapResponse(packetFilter=[])).filterChanged)
        self.assertEqual(self.sources(), [])

    def test_named(self) -> None:
        """All named filters together are in force."""
        self.apply(
            MapResponse(
                packetFilters={"b": [rule("100.64.0.3")], "a": [rule("100.64.0.2")]}
            )
        )
        self.assertEqual(self.sources(), ["100.64.0.2", "100.64.0.3"])
        self.apply(MapResponse(packetFilter=[rule("100.64.0.4")]))
        self.assertEqual(len(self.sources()), 3)
        for nothing in ({}, None):
            changes = self.apply(MapResponse(packetFilters=nothing))
            self.assertFalse(changes.filterChanged)
        self.assertEqual(len(self.sources()), 3)

    def test_T_filterEmpty(self) -> None:
        """A named filter that is null or empty is gone; others stay."""
        for nothing in (None, []):
            self.apply(
                MapResponse(
                    packetFilters={"a": [rule("100.64.0.2")], "b": [rule("100.64.0.3")]}
                )
            )
            self.apply(MapResponse(packetFilters={"a": nothing}))
            self.assertEqual(self.sources(), ["100.64.0.3"])

    def test_base(self) -> None:
        """The old form is the filter of a certain name."""
        self.apply(MapResponse(packetFilter=[rule("100.64.0.2")]))
        self.apply(MapResponse(packetFilters={"base": [rule("100.64.0.3")]}))
        self.assertEqual(self.sources(), ["100.64.0.3"])
        self.apply(
            MapResponse(
                packetFilter=[rule("100.64.0.2")],
                packetFilters={"base": [rule("100.64.0.4")]},
            )
        )
        self.assertEqual(self.sources(), ["100.64.0.4"])
        self.apply(MapResponse(packetFilters={"base": None}))
        self.assertEqual(self.sources(), [])

    def test_R_PF_2_clear(self) -> None:
        """C{*} takes all away, with the old form, before others are set."""
        self.apply(MapResponse(packetFilters={"a": [rule("100.64.0.2")]}))
        self.apply(
            MapResponse(
                packetFilter=[rule("100.64.0.3")],
                packetFilters={"z": [rule("100.64.0.4")], "*": None},
            )
        )
        self.assertEqual(self.sources(), ["100.64.0.4"])

    def test_R_PF_2_reservedName(self) -> None:
        """C{*} is no name of a filter: rules under it are none."""
        self.apply(MapResponse(packetFilters={"*": [rule("*")]}))
        self.assertEqual(self.sources(), [])

    def test_newPollBeginsClosed(self) -> None:
        """Filters that a new poll does not tell are gone."""
        self.apply(MapResponse(packetFilters={"a": [rule("*")]}))
        self.state.newPoll()
        changes = self.apply(firstResponse(packetFilters={"b": [rule("100.64.0.3")]}))
        self.assertTrue(changes.filterChanged)
        self.assertEqual(self.sources(), ["100.64.0.3"])
        self.state.newPoll()
        self.apply(firstResponse())
        self.assertEqual(self.sources(), [])

    def test_badEntriesAreTold(self) -> None:
        """What of the rules is malformed is told once, and narrows them only."""
        response = MapResponse(packetFilter=[rule("100.64.0.2", "100.64.0.999")])
        self.assertIn("100.64.0.999", self.apply(response).rejected[0])
        self.assertEqual(self.sources(), ["100.64.0.2"])
        self.assertEqual(self.apply(MapResponse(onlineChange={2: False})).rejected, [])

    def test_unsignedPeers(self) -> None:
        """Rules that let in a peer nobody vouches for let in nobody."""
        self.apply(MapResponse(packetFilter=[rule("100.64.0.0/10")]))
        self.assertEqual(len(self.sources()), 3)
        unsigned = wireNode(4, unsignedPeerAPIOnly=True)
        changes = self.apply(MapResponse(peersChanged=[unsigned]))
        self.assertEqual(self.sources(), [])
        self.assertTrue(changes.filterChanged)
        self.assertIn("vouches", changes.rejected[0])
        # It is told once, and the rules come back when it is gone.
        self.assertEqual(self.apply(MapResponse(onlineChange={2: False})).rejected, [])
        changes = self.apply(MapResponse(peersRemoved=[4]))
        self.assertEqual((len(self.sources()), changes.filterChanged), (3, True))

    def test_unsignedPeersThatNoRuleIsAbout(self) -> None:
        """Such a peer is no harm where no rule lets it in."""
        self.apply(
            MapResponse(
                packetFilter=[rule("100.64.0.2")],
                peersChanged=[wireNode(4, unsignedPeerAPIOnly=True)],
            )
        )
        self.assertEqual(self.sources(), ["100.64.0.2"])

    def test_unsignedPeersBySignature(self) -> None:
        """A peer that becomes signed is one like others."""
        self.apply(MapResponse(packetFilter=[rule("*")]))
        self.apply(MapResponse(peersChanged=[wireNode(4, unsignedPeerAPIOnly=True)]))
        self.assertEqual(self.sources(), [])
        self.apply(MapResponse(peersChanged=[wireNode(4)]))
        self.assertEqual(len(self.sources()), 3)

    def test_attributes(self) -> None:
        """Rules about attributes follow the peers, and a change is told."""
        self.apply(MapResponse(packetFilter=[rule("cap:web")]))
        self.assertEqual(self.sources(), [])
        patch = PeerChange(nodeID=3, capMap={"web": None})
        changes = self.apply(MapResponse(peersChangedPatch=[patch]))
        self.assertTrue(changes.filterChanged)
        self.assertEqual(self.sources(), ["100.64.0.3"])
        self.assertFalse(self.apply(MapResponse(onlineChange={3: False})).filterChanged)

    def test_compiledOnce(self) -> None:
        """Changes of peers alone leave the rules that they are."""
        self.apply(MapResponse(packetFilter=[rule("*")]))
        before = self.state.rules
        changes = self.apply(MapResponse(peersChanged=[wireNode(9)]))
        self.assertIs(self.state.rules, before)
        self.assertFalse(changes.filterChanged)

    def test_jail(self) -> None:
        """Who is jailed matters to the filter."""
        changes = self.apply(MapResponse(peersChanged=[wireNode(2, isJailed=True)]))
        self.assertTrue(changes.filterChanged)
        self.assertTrue(there(self.state.map.peers.withID(2)).isJailed)

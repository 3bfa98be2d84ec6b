"""Tests of applying map responses: what each part of one does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.errors import ProtocolError
from tsrt.netmap.delta import Changes, MapState
from tsrt.netmap.node import Node
from tsrt.tailcfg import (
    ZERO_TIME,
    DERPHomeParams,
    DERPMap,
    DERPRegion,
    DisplayMessage,
    DNSConfig,
    MapResponse,
    PeerChange,
    SSHPolicy,
    TKAInfo,
    UserProfile,
    decodeMapResponse,
    encode,
)
from tsrt.test.netmapworld import (
    NOW,
    discoKey,
    firstResponse,
    nodeKey,
    rawKey,
    replace,
    there,
    wireNode,
)

EARLIER = datetime.fromtimestamp(NOW - 100, UTC)
LATER = datetime.fromtimestamp(NOW - 50, UTC)


class Fixture(SynchronousTestCase):
    """A tailnet of node 1 with the peers 2, 3 and 4."""

    def setUp(self) -> None:
        """The first response has been applied."""
        self.state = MapState()
        self.first = self.apply(
            firstResponse(*(wireNode(number) for number in (2, 3, 4)))
        )

    def apply(self, response: MapResponse, now: float = NOW) -> Changes:
        """Apply a response."""
        return self.state.apply(response, now)

    def ids(self) -> list[int]:
        """The ids of all peers."""
        return [peer.id for peer in self.state.map.peers]

    def peer(self, number: int) -> Node:
        """The peer with an id."""
        return there(self.state.map.peers.withID(number))


class FirstResponseTests(Fixture):
    """The response that begins a poll."""

    def test_applied(self) -> None:
        """It is told what is new, and everything can be found."""
        self.assertTrue(self.first.isFirst)
        self.assertTrue(self.first.selfChanged)
        self.assertTrue(self.first.filterChanged)
        self.assertEqual(self.first.upserted, {2, 3, 4})
        self.assertEqual((self.first.removed, self.first.rejected), ([], []))
        self.assertEqual(there(self.state.map.selfNode).id, 1)
        self.assertEqual(self.ids(), [2, 3, 4])

    def test_withoutNode(self) -> None:
        """One that does not name this node is an error and changes nothing."""
        state = MapState()
        response = MapResponse(
            peers=[wireNode(2)], domain="d", mapSessionHandle="h", seq=3
        )
        self.assertRaises(ProtocolError, state.apply, response, NOW)
        self.assertEqual((len(state.map.peers), state.map.domain), (0, ""))
        self.assertEqual((state.sessionHandle, state.sequence), ("", 0))
        self.assertTrue(state.apply(firstResponse(), NOW).isFirst)

    def test_withMalformedNode(self) -> None:
        """So is one in which this node is malformed, and in any later poll."""
        malformed = MapResponse(node=wireNode(1, key="nodekey:x"), peers=[])
        self.assertRaises(ProtocolError, MapState().apply, malformed, NOW)
        self.state.newPoll()
        self.assertRaises(ProtocolError, self.apply, malformed)
        self.assertEqual(self.ids(), [2, 3, 4])

    def test_keepAliveBeforeIt(self) -> None:
        """A keep-alive is not it."""
        state = MapState()
        self.assertFalse(state.apply(MapResponse(keepAlive=True), NOW).isFirst)
        self.assertTrue(state.apply(firstResponse(), NOW).isFirst)

    def test_newPoll(self) -> None:
        """A later poll begins with a complete response, too."""
        self.state.newPoll()
        changes = self.apply(firstResponse(wireNode(3), wireNode(5)))
        self.assertTrue(changes.isFirst)
        self.assertEqual(self.ids(), [3, 5])
        self.assertEqual(changes.upserted, {5})
        self.assertEqual([node.id for node in changes.removed], [2, 4])

    def test_newPollWithoutPeers(self) -> None:
        """A complete response without peers means that there are none."""
        for peers in (None, []):
            self.state.newPoll()
            changes = self.apply(firstResponse(peers=peers))
            self.assertEqual(self.ids(), [])
            self.assertTrue(changes.isFirst)

    def test_newPollForgetsWhoMayEnter(self) -> None:
        """SSH rules and lock that the new poll does not tell are gone."""
        self.apply(
            MapResponse(sshPolicy=SSHPolicy(rules=[]), tkaInfo=TKAInfo(head="h"))
        )
        self.state.newPoll()
        changes = self.apply(firstResponse())
        self.assertIsNone(self.state.sshPolicy)
        self.assertIsNone(self.state.tka)
        self.assertTrue(changes.sshPolicyChanged and changes.tkaChanged)
        self.state.newPoll()
        again = self.apply(firstResponse())
        self.assertFalse(again.sshPolicyChanged or again.tkaChanged)


class SessionTests(Fixture):
    """Going on where a broken poll was."""

    def test_handleAndSequence(self) -> None:
        """The handle of the first response and the last number are kept."""
        self.state.newPoll()
        self.apply(firstResponse(mapSessionHandle="abc", seq=1))
        self.apply(MapResponse(seq=7))
        for response in (
            MapResponse(domain="x"),
            MapResponse(seq=0),
            MapResponse(seq=-1),
        ):
            self.apply(response)
        self.assertEqual((self.state.sessionHandle, self.state.sequence), ("abc", 7))

    def test_resumed(self) -> None:
        """The same handle means that only changes follow."""
        self.apply(MapResponse(mapSessionHandle="abc", seq=5))
        self.state.newPoll()
        changes = self.apply(
            MapResponse(mapSessionHandle="abc", seq=6, peersRemoved=[3])
        )
        self.assertFalse(changes.isFirst)
        self.assertEqual(self.ids(), [2, 4])
        self.assertEqual(self.state.sequence, 6)

    def test_otherHandle(self) -> None:
        """Another handle means another session, which begins at zero."""
        self.apply(MapResponse(mapSessionHandle="abc", seq=5))
        self.state.newPoll()
        changes = self.apply(firstResponse(wireNode(2), mapSessionHandle="xyz"))
        self.assertTrue(changes.isFirst)
        self.assertEqual((self.state.sessionHandle, self.state.sequence), ("xyz", 0))

    def test_malformedHandle(self) -> None:
        """A handle too long or not of printable ASCII is left."""
        for handle in ("x" * 257, "a b", "a\n", "ä"):
            changes = self.apply(MapResponse(mapSessionHandle=handle))
            self.assertEqual(self.state.sessionHandle, "")
            self.assertIn("handle", changes.rejected[0])
        self.apply(MapResponse(mapSessionHandle="x" * 256))
        self.assertEqual(len(self.state.sessionHandle), 256)


class PeerListTests(Fixture):
    """Lists of whole peers."""

    def test_completeList(self) -> None:
        """Peers that a complete list lacks are gone; equal ones are no news."""
        changes = self.apply(
            MapResponse(peers=[wireNode(3), wireNode(4, name="x.tail.example.")])
        )
        self.assertEqual(self.ids(), [3, 4])
        self.assertEqual(changes.upserted, {4})
        self.assertEqual([node.id for node in changes.removed], [2])

    def test_T_emptyPeers(self) -> None:
        """An empty list is no complete list, and null is nothing."""
        for peers in ([], None):
            changes = self.apply(MapResponse(peers=peers))
            self.assertEqual(self.ids(), [2, 3, 4])
            self.assertFalse(changes.peersChanged)

    def test_changedAndRemoved(self) -> None:
        """Changed peers are inserted or replaced, removed ones go first."""
        changes = self.apply(
            MapResponse(
                peersRemoved=[2, 3, 99],
                peersChanged=[wireNode(3, cap=140), wireNode(9)],
            )
        )
        self.assertEqual(self.ids(), [3, 4, 9])
        self.assertEqual(self.peer(3).cap, 140)
        self.assertEqual(changes.upserted, {3, 9})
        self.assertEqual([node.id for node in changes.removed], [2, 3])

    def test_T_patch_withCompleteList(self) -> None:
        """What comes with a complete list is applied after it."""
        self.apply(
            MapResponse(
                peers=[wireNode(2), wireNode(3), wireNode(4), wireNode(5)],
                peersRemoved=[3],
                peersChanged=[wireNode(4, cap=7)],
                peersChangedPatch=[PeerChange(nodeID=5, derpRegion=44)],
                onlineChange={2: False},
            )
        )
        self.assertEqual(self.ids(), [2, 4, 5])
        self.assertEqual((self.peer(4).cap, self.peer(5).homeDERP), (7, 44))
        self.assertIs(self.peer(2).online, False)

    def test_T_patch_order(self) -> None:
        """Patches hold over changed peers, and the maps over patches."""
        self.apply(
            MapResponse(
                peersChanged=[wireNode(2, online=True, homeDERP=5)],
                peersChangedPatch=[
                    PeerChange(nodeID=2, online=True, derpRegion=6, lastSeen=EARLIER)
                ],
                onlineChange={2: False},
                peerSeenChange={2: False},
            )
        )
        peer = self.peer(2)
        self.assertEqual((peer.homeDERP, peer.online), (6, False))
        self.assertIsNone(peer.lastSeen)

    def test_T_badKeys(self) -> None:
        """A malformed peer is left out alone, as is what it was before."""
        changes = self.apply(
            MapResponse(
                peersChanged=[
                    wireNode(2, key="nodekey:zz"),
                    wireNode(3, addresses=["100.64.0.300/32"]),
                    wireNode(5),
                ]
            )
        )
        self.assertEqual(self.ids(), [4, 5])
        self.assertEqual(len(changes.rejected), 2)
        self.assertIn("peer 2", changes.rejected[0])
        self.assertEqual([node.id for node in changes.removed], [2, 3])

    def test_malformedPeerOfAHundred(self) -> None:
        """Of a hundred peers, one with a bad key costs 99 nothing."""
        peers = [wireNode(number) for number in range(2, 102)]
        peers[17] = wireNode(19, key="privkey:" + "11" * 32)
        state = MapState()
        changes = state.apply(firstResponse(*peers), NOW)
        self.assertEqual(len(state.map.peers), 99)
        self.assertIsNone(state.map.peers.withID(19))
        self.assertEqual(len(changes.rejected), 1)

    def test_rejectedByTheCodec(self) -> None:
        """What the codec had to leave out is told, too."""
        response = decodeMapResponse(b'{"PeersRemoved":[2,"3"]}')
        changes = self.apply(response)
        self.assertEqual(self.ids(), [3, 4])
        self.assertEqual(changes.rejected, list(response.rejectedPeers))

    def test_boundOfRejections(self) -> None:
        """Only so many sentences are kept."""
        changes = self.apply(
            MapResponse(peersChanged=[wireNode(2, key="") for _ in range(500)])
        )
        self.assertEqual(len(changes.rejected), 100)

    def test_peerThatIsThisNode(self) -> None:
        """A peer with the id or the key of this node is none."""
        changes = self.apply(
            MapResponse(
                peersChanged=[wireNode(1, key=nodeKey(9)), wireNode(9, key=nodeKey(1))]
            )
        )
        self.assertEqual(self.ids(), [2, 3, 4])
        self.assertEqual(len(changes.rejected), 2)

    def test_T_rekeyPeer(self) -> None:
        """The former key of a peer is told together with the new one."""
        changes = self.apply(MapResponse(peersChanged=[wireNode(2, key=nodeKey(20))]))
        self.assertEqual(changes.rekeyed, {rawKey(2): rawKey(20)})
        self.assertEqual(changes.removed, [])
        self.assertIsNone(self.state.map.peerByKey(rawKey(2)))
        self.assertEqual(there(self.state.map.peerByKey(rawKey(20))).id, 2)

    def test_T_keyCollision(self) -> None:
        """The older owner of a key goes, and that is told."""
        changes = self.apply(MapResponse(peersChanged=[wireNode(3, key=nodeKey(2))]))
        self.assertEqual(self.ids(), [3, 4])
        self.assertEqual([node.id for node in changes.removed], [2])
        self.assertEqual(changes.upserted, {3})
        self.assertIn("peer 2 has the key of peer 3", changes.rejected)

    def test_keyMovesInACompleteList(self) -> None:
        """A key may pass to another peer in a list, or two be exchanged."""
        changes = self.apply(
            MapResponse(peers=[wireNode(5, key=nodeKey(4)), wireNode(2), wireNode(3)])
        )
        self.assertEqual((self.ids(), changes.rejected), ([2, 3, 5], []))
        changes = self.apply(
            MapResponse(
                peers=[
                    wireNode(2, key=nodeKey(3)),
                    wireNode(3, key=nodeKey(2)),
                    wireNode(5, key=nodeKey(4)),
                ]
            )
        )
        self.assertEqual((self.ids(), changes.rejected), ([2, 3, 5], []))
        self.assertEqual(there(self.state.map.peerByKey(rawKey(3))).id, 2)
        self.assertEqual(there(self.state.map.peerByKey(rawKey(2))).id, 3)
        self.assertEqual(changes.upserted, {2, 3})

    def test_unchangedIsNoNews(self) -> None:
        """The same list again changes nothing, and no node is made anew."""
        before = self.peer(2)
        response = decodeMapResponse(
            encode(MapResponse(peers=[wireNode(n) for n in (2, 3, 4)]))
        )
        changes = self.apply(response)
        self.assertFalse(changes.peersChanged)
        self.assertIs(self.peer(2), before)


class PatchTests(Fixture):
    """Patches of single peers."""

    def patch(self, **fields: object) -> Changes:
        """Patch peer 2."""
        return self.apply(
            MapResponse(peersChangedPatch=[replace(PeerChange(nodeID=2), **fields)])
        )

    def test_everyField(self) -> None:
        """Each field that is there replaces the peer's; nothing else changes."""
        expiry = datetime.fromtimestamp(NOW + 1000, UTC)
        for fields, name, expected in (
            ({"derpRegion": 9}, "homeDERP", 9),
            ({"cap": 131}, "cap", 131),
            ({"capMap": {"a": None}}, "capMap", {"a": None}),
            ({"endpoints": ["192.0.2.1:2"]}, "endpoints", ("192.0.2.1:2",)),
            ({"endpoints": []}, "endpoints", ()),
            ({"capMap": {}}, "capMap", {}),
            ({"online": False}, "online", False),
            ({"lastSeen": EARLIER}, "lastSeen", EARLIER),
            ({"keyExpiry": expiry}, "keyExpiry", expiry),
            ({"keyExpiry": ZERO_TIME}, "keyExpiry", None),
            ({"keySignature": b"sig"}, "keySignature", b"sig"),
        ):
            before = self.peer(2)
            changes = self.patch(**fields)
            after = self.peer(2)
            self.assertEqual(getattr(after, name), expected, fields)
            self.assertEqual(changes.upserted, {2}, fields)
            for other in ("name", "key", "addresses", "allowedIPs", "stableID"):
                self.assertEqual(getattr(after, other), getattr(before, other))

    def test_zeroAndNull(self) -> None:
        """Zero regions and versions, and nulls, mean no change."""
        changes = self.patch(
            derpRegion=0,
            cap=0,
            capMap=None,
            endpoints=None,
            key=None,
            keySignature=None,
            discoKey=None,
            online=None,
            lastSeen=None,
            keyExpiry=None,
        )
        self.assertFalse(changes.peersChanged)

    def test_keyAndDisco(self) -> None:
        """A patch may bring a new node key and a new disco key."""
        changes = self.patch(key=nodeKey(20), discoKey=discoKey(21))
        self.assertEqual(changes.rekeyed, {rawKey(2): rawKey(20)})
        self.assertEqual(there(self.peer(2).disco).raw, rawKey(21))

    def test_R_PT_4_unknownNode(self) -> None:
        """A patch for an unknown node does not make one."""
        changes = self.apply(
            MapResponse(
                peersChangedPatch=[PeerChange(nodeID=77, key=nodeKey(77))],
                onlineChange={77: True},
                peerSeenChange={77: True},
            )
        )
        self.assertFalse(changes.peersChanged)
        self.assertEqual(self.ids(), [2, 3, 4])

    def test_removedInTheSameResponse(self) -> None:
        """A patch for a peer that is just removed does nothing."""
        self.apply(
            MapResponse(
                peersRemoved=[2], peersChangedPatch=[PeerChange(nodeID=2, cap=5)]
            )
        )
        self.assertEqual(self.ids(), [3, 4])

    def test_T_badKeys_inPatches(self) -> None:
        """A patch with a malformed key is left out alone, with all it brings."""
        changes = self.apply(
            MapResponse(
                peersChangedPatch=[
                    PeerChange(nodeID=2, key="nodekey:", cap=5),
                    PeerChange(nodeID=3, discoKey="discokey:0", cap=5),
                    PeerChange(nodeID=4, cap=5),
                ]
            )
        )
        self.assertEqual(self.ids(), [2, 3, 4])
        self.assertEqual([self.peer(n).cap for n in (2, 3, 4)], [130, 130, 5])
        self.assertEqual(len(changes.rejected), 2)

    def test_seenAndOnline(self) -> None:
        """Who was seen is so now, or is unknown; who is online is so."""
        self.apply(
            MapResponse(
                peerSeenChange={2: True}, onlineChange={2: False, 3: True, 4: False}
            )
        )
        self.assertEqual(self.peer(2).lastSeen, datetime.fromtimestamp(NOW, UTC))
        self.assertEqual([self.peer(n).online for n in (2, 3, 4)], [False, True, False])
        self.apply(MapResponse(peerSeenChange={2: False}))
        self.assertIsNone(self.peer(2).lastSeen)

    def test_changesThatAreNone(self) -> None:
        """Being told what is known already is no news."""
        self.assertFalse(self.apply(MapResponse(onlineChange={2: True})).peersChanged)


class DiscoFreshnessTests(Fixture):
    """Old news of a disco key do not replace newer ones."""

    def setUp(self) -> None:
        """Peer 2 was seen, offline, with the disco key 2."""
        super().setUp()
        self.apply(
            MapResponse(peersChanged=[wireNode(2, online=False, lastSeen=LATER)])
        )

    def disco(self) -> bytes:
        """The disco key of peer 2."""
        return there(self.peer(2).disco).raw

    def patch(self, **fields: object) -> None:
        """Patch the disco key of peer 2, and more."""
        self.apply(
            MapResponse(
                peersChangedPatch=[
                    replace(PeerChange(nodeID=2, discoKey=discoKey(50)), **fields)
                ]
            )
        )

    def test_stalePatch(self) -> None:
        """A patch that is not newer does not count, but for what it adds."""
        for seen in (EARLIER, LATER):
            self.patch(online=False, lastSeen=seen, derpRegion=8)
            self.assertEqual(self.disco(), rawKey(2))
            self.assertEqual(self.peer(2).lastSeen, LATER)
            self.assertEqual(self.peer(2).homeDERP, 8)

    def test_newerPatch(self) -> None:
        """A newer one counts."""
        self.patch(online=False, lastSeen=LATER + timedelta(seconds=1))
        self.assertEqual(self.disco(), rawKey(50))

    def test_patchThatIsNoOldNews(self) -> None:
        """Only a patch with a time, of an offline peer, can be old news."""
        self.patch(online=True, lastSeen=EARLIER)
        self.assertEqual(self.disco(), rawKey(50))

    def test_patchWithoutTime(self) -> None:
        """A patch of the disco key alone counts."""
        self.patch()
        self.assertEqual(self.disco(), rawKey(50))

    def test_completeList(self) -> None:
        """In a complete list an offline peer's other disco key must be newer."""
        for fields, expected in (
            ({"online": False, "lastSeen": EARLIER}, 2),
            ({"online": False, "lastSeen": LATER}, 2),
            ({"online": False, "lastSeen": LATER + timedelta(seconds=1)}, 50),
        ):
            self.apply(
                MapResponse(peers=[wireNode(2, discoKey=discoKey(50), **fields)])
            )
            self.assertEqual(self.disco(), rawKey(expected), fields)

    def test_completeListOnline(self) -> None:
        """An online peer's disco key counts at once, and so does a new node's."""
        self.apply(
            MapResponse(
                peers=[
                    wireNode(2, discoKey=discoKey(50), online=True, lastSeen=EARLIER)
                ]
            )
        )
        self.assertEqual(self.disco(), rawKey(50))
        self.apply(
            MapResponse(
                peers=[
                    wireNode(
                        2,
                        key=nodeKey(60),
                        discoKey=discoKey(51),
                        online=False,
                        lastSeen=EARLIER,
                    )
                ]
            )
        )
        self.assertEqual(self.disco(), rawKey(51))


class ExpiryTests(Fixture):
    """Keys that expire in the course of time."""

    def setUp(self) -> None:
        """Peer 2 expires in 100 seconds, this node in 200."""
        super().setUp()
        self.apply(
            MapResponse(
                node=wireNode(1, keyExpiry=datetime.fromtimestamp(NOW + 200, UTC)),
                peersChanged=[
                    wireNode(2, keyExpiry=datetime.fromtimestamp(NOW + 100, UTC))
                ],
            )
        )

    def test_expire(self) -> None:
        """Who expires is told once; both are marked, not removed."""
        self.assertFalse(self.state.expire(NOW + 100).peersChanged)
        self.assertEqual(self.state.nextExpiry(), NOW + 100)
        changes = self.state.expire(NOW + 101)
        self.assertEqual((changes.upserted, changes.selfChanged), ({2}, False))
        self.assertTrue(changes.routesChanged)
        self.assertTrue(self.peer(2).expired)
        self.assertEqual(self.state.nextExpiry(), NOW + 200)
        changes = self.state.expire(NOW + 201)
        self.assertEqual((changes.upserted, changes.selfChanged), (set(), True))
        self.assertTrue(there(self.state.map.selfNode).expired)
        self.assertIsNone(self.state.nextExpiry())

    def test_R_DEV_3_none(self) -> None:
        """Without an expiry a key never expires, however far the clock is off."""
        self.apply(MapResponse(node=wireNode(1), peersChanged=[wireNode(2)]))
        self.assertIsNone(self.state.nextExpiry())
        changes = self.state.expire(NOW + 1e10)
        self.assertEqual((changes.upserted, changes.selfChanged), (set(), False))
        self.assertFalse(there(self.state.map.selfNode).expired)

    def test_extended(self) -> None:
        """A later expiry brings everything back."""
        self.state.expire(NOW + 101)
        later = datetime.fromtimestamp(NOW + 900, UTC)
        self.apply(
            MapResponse(peersChangedPatch=[PeerChange(nodeID=2, keyExpiry=later)]),
            NOW + 102,
        )
        peer = self.peer(2)
        self.assertFalse(peer.expired)
        self.assertEqual((peer.homeDERP, len(peer.endpoints)), (1, 1))

    def test_controlsClock(self) -> None:
        """What counts is control's clock, if ours is more than a minute off."""
        for ahead, expired in ((59, False), (101, True)):
            when = datetime.fromtimestamp(NOW + ahead, UTC)
            self.apply(MapResponse(keepAlive=True, controlTime=when))
            self.assertEqual(self.state.wallTime(NOW), NOW + (ahead if expired else 0))
            self.state.expire(NOW)
            self.assertEqual(self.peer(2).expired, expired)
        self.assertEqual(self.state.nextExpiry(), NOW + 200 - 101)

    def test_impossibleClock(self) -> None:
        """Times that no server can mean are left, and break nothing."""
        for text in ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"):
            response = decodeMapResponse(f'{{"ControlTime":"{text}"}}'.encode())
            self.apply(response)
            self.assertEqual(self.state.wallTime(NOW), NOW)
        self.apply(MapResponse(peerSeenChange={2: True}))
        self.assertIsNotNone(self.peer(2).lastSeen)


class SinglesTests(Fixture):
    """What there is one of."""

    def test_T_dnsReset(self) -> None:
        """What a response does not tell stays as it was, in every poll."""
        dns = DNSConfig(proxied=True, domains=["a.example"])
        policy = SSHPolicy(rules=[])
        self.apply(MapResponse(dnsConfig=dns, sshPolicy=policy, domain="a.example"))
        for response in (
            MapResponse(),
            MapResponse(dnsConfig=None, sshPolicy=None, node=None, domain=""),
            MapResponse(peersRemoved=[2]),
        ):
            changes = self.apply(response)
            self.assertIs(self.state.map.dnsConfig, dns)
            self.assertIs(self.state.sshPolicy, policy)
            self.assertEqual(there(self.state.map.selfNode).id, 1)
            self.assertEqual(self.state.map.domain, "a.example")
            self.assertFalse(changes.dnsChanged or changes.selfChanged)
        self.state.newPoll()
        self.apply(firstResponse())
        self.assertIs(self.state.map.dnsConfig, dns)
        self.assertTrue(self.apply(MapResponse(dnsConfig=DNSConfig())).dnsChanged)
        self.assertFalse(self.state.map.dnsConfig.proxied)

    def test_self(self) -> None:
        """This node is replaced; a malformed one is left out and told."""
        changes = self.apply(MapResponse(node=wireNode(1, tags=["tag:x"])))
        self.assertTrue(changes.selfChanged)
        self.assertEqual(there(self.state.map.selfNode).tags, ("tag:x",))
        changes = self.apply(MapResponse(node=wireNode(1, key="")))
        self.assertFalse(changes.selfChanged)
        self.assertEqual(there(self.state.map.selfNode).tags, ("tag:x",))
        self.assertIn("this node", changes.rejected[0])

    def test_userProfiles(self) -> None:
        """Users are added and replaced, never removed."""
        self.apply(MapResponse(userProfiles=[UserProfile(id=1, loginName="a")]))
        changes = self.apply(
            MapResponse(userProfiles=[UserProfile(id=2, loginName="b")])
        )
        self.assertTrue(changes.profilesChanged)
        self.apply(MapResponse(userProfiles=[UserProfile(id=1, loginName="c")]))
        self.apply(MapResponse(userProfiles=[]))
        names = {n: p.loginName for n, p in self.state.map.userProfiles.items()}
        self.assertEqual(names, {1: "c", 2: "b"})

    def test_userProfilesWithoutPeers(self) -> None:
        """Users are taken from responses that say nothing of peers."""
        self.apply(MapResponse(userProfiles=[UserProfile(id=4)]))
        self.assertIsNotNone(self.state.map.profile(4))

    def test_domainAndServices(self) -> None:
        """Domain, and whether services are wanted, stay until changed."""
        self.assertTrue(self.apply(MapResponse(domain="a")).domainChanged)
        self.apply(MapResponse(collectServices=True))
        self.apply(MapResponse())
        self.assertEqual(
            (self.state.map.domain, self.state.map.collectServices), ("a", True)
        )
        self.apply(MapResponse(collectServices=False))
        self.assertFalse(self.state.map.collectServices)

    def test_tka(self) -> None:
        """The state of the lock stays until it is told anew."""
        self.apply(MapResponse(tkaInfo=TKAInfo(head="a")))
        self.assertFalse(self.apply(MapResponse(tkaInfo=None)).tkaChanged)
        self.assertEqual(there(self.state.tka).head, "a")
        self.assertTrue(
            self.apply(MapResponse(tkaInfo=TKAInfo(disabled=True))).tkaChanged
        )
        self.assertTrue(there(self.state.tka).disabled)

    def test_keepAlive(self) -> None:
        """In a keep-alive nearly everything else is ignored."""
        changes = self.apply(
            MapResponse(keepAlive=True, peersRemoved=[2], domain="x", packetFilter=[])
        )
        self.assertEqual((self.ids(), self.state.map.domain), ([2, 3, 4], ""))
        self.assertFalse(changes.peersChanged or changes.filterChanged)

    def test_snapshot(self) -> None:
        """A snapshot stays as it is; the same one is given until a change."""
        before = self.state.snapshot()
        self.assertIs(self.state.snapshot(), before)
        self.apply(MapResponse(peersRemoved=[2]))
        self.assertEqual([peer.id for peer in before.peers], [2, 3, 4])
        after = self.state.snapshot()
        self.assertEqual([peer.id for peer in after.peers], [3, 4])
        self.apply(MapResponse(keepAlive=True))
        self.assertIs(self.state.snapshot(), after)


class RelayTests(Fixture):
    """Updates of the map of relays."""

    def regions(self) -> dict[int, str]:
        """The codes of the regions by number."""
        return {n: r.regionCode for n, r in self.state.map.regions.items()}

    def setUp(self) -> None:
        """There are two regions with scores."""
        super().setUp()
        self.update({1: "a", 2: "b"}, homeParams=DERPHomeParams(regionScore={1: 0.5}))

    def update(self, codes: dict[int, str | None] | None, **fields: object) -> Changes:
        """Update the map; a region without a code is taken away."""
        regions: dict[int, DERPRegion | None] | None = None
        if codes is not None:
            regions = {
                number: None
                if code is None
                else DERPRegion(regionID=number, regionCode=code)
                for number, code in codes.items()
            }
        return self.apply(
            MapResponse(derpMap=replace(DERPMap(regions=regions), **fields))
        )

    def scores(self) -> object:
        """The scores of the regions."""
        return there(self.state.map.derpMap.homeParams).regionScore

    def test_replaced(self) -> None:
        """New regions replace all the old ones; the scores stay."""
        changes = self.update({2: "b2", 3: "c"}, omitDefaultRegions=True)
        self.assertTrue(changes.derpMapChanged)
        self.assertEqual(self.regions(), {2: "b2", 3: "c"})
        self.assertEqual(self.scores(), {1: 0.5})
        self.assertTrue(self.state.map.derpMap.omitDefaultRegions)

    def test_takenAway(self) -> None:
        """A region that is null, or has an impossible number, is none."""
        self.update({1: None, 2: "b", 0: "x", -4: "y"})
        self.assertEqual(self.regions(), {2: "b"})

    def test_onlyScores(self) -> None:
        """Without regions the old ones stay, as does what goes with them."""
        self.update({1: "a"}, omitDefaultRegions=True)
        self.update(None, homeParams=DERPHomeParams(regionScore={}))
        self.assertEqual(self.regions(), {1: "a"})
        self.assertTrue(self.state.map.derpMap.omitDefaultRegions)
        self.assertEqual(self.scores(), {})
        self.update(None, homeParams=DERPHomeParams(regionScore=None))
        self.assertEqual(self.scores(), {})

    def test_absent(self) -> None:
        """A response without a map of relays changes nothing."""
        for response in (MapResponse(), MapResponse(derpMap=None)):
            self.assertFalse(self.apply(response).derpMapChanged)
            self.assertEqual(self.regions(), {1: "a", 2: "b"})


class MessageTests(Fixture):
    """Health and display messages."""

    def test_health(self) -> None:
        """Texts stay until replaced; an empty list means all is well."""
        self.assertTrue(self.apply(MapResponse(health=["a", "b"])).healthChanged)
        self.assertEqual(self.state.map.health, ("a", "b"))
        for health in (None, ["a", "b"]):
            self.assertFalse(self.apply(MapResponse(health=health)).healthChanged)
        messages = list(self.state.map.messages.values())
        self.assertEqual([message.text for message in messages], ["a", "b"])
        self.assertEqual({message.severity for message in messages}, {"medium"})
        # SHA-256 of "a", which is published in many places.
        self.assertIn(
            "health-ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
            self.state.map.messages,
        )
        self.assertTrue(self.apply(MapResponse(health=[])).healthChanged)
        self.assertEqual(self.state.map.health, ())

    def test_displayMessages(self) -> None:
        """They are set and taken away by name; C{*} takes all away first."""
        a = DisplayMessage(title="A", text="a")
        b = DisplayMessage(text="b")
        self.apply(MapResponse(displayMessages={"y": b, "x": a}))
        self.assertEqual(self.state.map.health, ("A: a", "b"))
        self.apply(MapResponse(displayMessages={"x": None, "z": None}))
        self.assertEqual(dict(self.state.map.messages), {"y": b})
        self.apply(MapResponse(displayMessages={"n": a, "*": None}))
        self.assertEqual(dict(self.state.map.messages), {"n": a})
        self.apply(MapResponse(displayMessages={"*": None}))
        self.assertEqual(self.state.map.health, ())

    def test_displayMessagesComeFirst(self) -> None:
        """The older texts are shown only where there are no messages."""
        self.apply(
            MapResponse(
                health=["old"], displayMessages={"x": DisplayMessage(title="New")}
            )
        )
        self.assertEqual(self.state.map.health, ("New",))
        self.apply(MapResponse(displayMessages={"x": None}))
        self.assertEqual(self.state.map.health, ("old",))

    def test_newPoll(self) -> None:
        """What a new poll does not tell does not hold any more."""
        self.apply(MapResponse(health=["a"]))
        self.state.newPoll()
        self.assertTrue(self.apply(firstResponse()).healthChanged)
        self.assertEqual(self.state.map.health, ())


class KindsOfChangeTests(Fixture):
    """What is told of changes, so that nobody does needless work."""

    def kinds(self, **fields: object) -> tuple[bool, bool, bool, bool]:
        """Change peer 2; tell whether routes, names, attributes, jail changed."""
        changes = self.apply(MapResponse(peersChanged=[wireNode(2, **fields)]))
        self.assertEqual(changes.upserted, {2})
        return (
            changes.routesChanged,
            changes.namesChanged,
            changes.attributesChanged,
            changes.jailChanged,
        )

    def test_kinds(self) -> None:
        """Each change of a peer is of the right kinds only."""
        for fields, expected in (
            ({"online": False}, (False, False, False, False)),
            ({"online": False, "endpoints": []}, (False, False, False, False)),
            ({"homeDERP": 5}, (False, False, False, False)),
            ({"key": nodeKey(20)}, (True, False, False, False)),
            (
                {"key": nodeKey(20), "name": "x.tail.example."},
                (False, True, False, False),
            ),
            ({"capMap": {"a": None}}, (True, True, True, False)),
            ({"capMap": {"a": []}}, (False, False, False, False)),
            (
                {"capMap": {"dns-subdomain-resolve": None}},
                (False, True, True, False),
            ),
            ({"addresses": ["100.64.0.9/32"]}, (True, True, True, False)),
            ({"allowedIPs": ["10.0.0.0/8"]}, (True, True, True, False)),
            ({"isJailed": True}, (True, False, False, True)),
            ({"isJailed": True, "key": nodeKey(21)}, (True, False, False, True)),
            ({"expired": True}, (True, False, False, True)),
            ({}, (True, False, False, False)),
            ({"discoKey": "", "homeDERP": 0}, (True, False, False, False)),
        ):
            self.assertEqual(self.kinds(**fields), expected, fields)

    def test_comingAndGoing(self) -> None:
        """Peers that come or go change routes and names."""
        for response in (
            MapResponse(peersChanged=[wireNode(9)]),
            MapResponse(peersRemoved=[9]),
        ):
            changes = self.apply(response)
            self.assertTrue(changes.routesChanged and changes.namesChanged)
            self.assertFalse(changes.jailChanged)
        for response in (
            MapResponse(peersChanged=[wireNode(9, isJailed=True)]),
            MapResponse(peersRemoved=[9]),
        ):
            self.assertTrue(self.apply(response).jailChanged)

    def test_addressIsFoundAfterEveryChange(self) -> None:
        """After a change of address the old one leads nowhere."""
        self.kinds(addresses=["100.64.0.9/32"])
        peers = self.state.map
        self.assertIsNone(peers.peerByAddress(parseAddress("100.64.0.2")))
        self.assertEqual(there(peers.peerByAddress(parseAddress("100.64.0.9"))).id, 2)

"""Tests of nodes as typed values, and of the indexes of peers."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import AddrPort, parseAddress
from tsrt.errors import WireError
from tsrt.netmap.netmap import MapParts, NetworkMap
from tsrt.netmap.node import CLOCK_IS_SET_AFTER, Node
from tsrt.netmap.peers import PeerIndex
from tsrt.tailcfg import Hostinfo, NetInfo, Service, UserProfile
from tsrt.test.netmapworld import (
    NOW,
    SUFFIX,
    discoKey,
    nodeKey,
    rawKey,
    wireNode,
)


def texts(node: Node) -> tuple[list[str], list[str]]:
    """Addresses and allowed addresses of a node, as text."""
    return [p.text() for p in node.addresses], [p.text() for p in node.allowedIPs]


class FromWireTests(SynchronousTestCase):
    """L{Node.fromWire}."""

    def test_usual(self) -> None:
        """Keys, names and prefixes are parsed."""
        node = Node.fromWire(wireNode(7, name="N7.Tail.Example."), NOW)
        self.assertEqual(node.key.raw, rawKey(7))
        self.assertEqual(node.disco.raw if node.disco else None, rawKey(7))
        self.assertIsNone(node.machine)
        self.assertEqual((node.name, node.hostname), ("n7.tail.example", "n7"))
        self.assertEqual(node.tailnetSuffix, "tail.example")
        self.assertEqual(texts(node)[0], ["100.64.0.7/32", "fd7a:115c:a1e0::7/128"])
        self.assertEqual(
            node.packedAddresses(),
            [parseAddress("100.64.0.7"), parseAddress("fd7a:115c:a1e0::7")],
        )
        self.assertTrue(node.isReachable)

    def test_T_singleAddress(self) -> None:
        """A node may have an IPv4 or an IPv6 address only, or none."""
        for addresses in (["100.64.0.7/32"], ["fd7a:115c:a1e0::7/128"], [], None):
            node = Node.fromWire(
                wireNode(7, addresses=addresses, allowedIPs=addresses), NOW
            )
            self.assertEqual(texts(node), (addresses or [], addresses or []))

    def test_T_badKeys(self) -> None:
        """Each malformed key, address or prefix makes the node a L{WireError}."""
        for field, value in (
            ("id", 0),
            ("id", -3),
            ("key", ""),
            ("key", "nodekey:12"),
            ("key", "nodekey:" + "00" * 32),
            ("key", discoKey(7)),
            ("discoKey", "discokey:xy"),
            ("machine", "mkey:xy"),
            ("addresses", ["100.64.0.7/33"]),
            ("addresses", ["100.64.0.7/24/3"]),
            ("addresses", ["100.64.0"]),
            ("addresses", ["fe80::1%eth0/128"]),
            ("addresses", [""]),
            ("allowedIPs", ["100.64.0.7/32", "10.0.0.0/40"]),
            ("allowedIPs", ["10.0.0.0.0/8"]),
            ("selfNodeV4MasqAddrForThisPeer", "fd7a:115c:a1e0::9"),
            ("selfNodeV6MasqAddrForThisPeer", "nowhere"),
        ):
            with self.assertRaises(WireError, msg=f"{field}={value}"):
                Node.fromWire(wireNode(7, **{field: value}), NOW)

    def test_absentAllowedIPs(self) -> None:
        """Absent allowed addresses are the own ones; explicitly none are none."""
        absent = Node.fromWire(wireNode(7, allowedIPs=None), NOW)
        self.assertEqual(absent.allowedIPs, absent.addresses)
        self.assertEqual(Node.fromWire(wireNode(7, allowedIPs=[]), NOW).allowedIPs, ())

    def test_unsignedPeer(self) -> None:
        """A peer that nobody vouches for has no routes but its addresses."""
        node = Node.fromWire(
            wireNode(7, unsignedPeerAPIOnly=True, allowedIPs=["10.0.0.0/8"]), NOW
        )
        self.assertEqual(node.allowedIPs, node.addresses)

    def test_widerAddress(self) -> None:
        """An address stays one address, with whatever length it is written."""
        node = Node.fromWire(
            wireNode(7, addresses=["100.64.0.7/10"], allowedIPs=["10.1.2.3/8"]), NOW
        )
        self.assertEqual(texts(node), (["100.64.0.7/32"], ["10.0.0.0/8"]))

    def test_homeRegion(self) -> None:
        """The relay comes from three places, the newest first."""
        legacy = "127.3.3.40:9"
        hostinfo = Hostinfo(netInfo=NetInfo(preferredDERP=5))
        for fields, region in (
            ({"homeDERP": 3, "derp": legacy, "hostinfo": hostinfo}, 3),
            ({"homeDERP": 0, "derp": legacy, "hostinfo": hostinfo}, 9),
            ({"homeDERP": 0, "derp": "", "hostinfo": hostinfo}, 5),
            ({"homeDERP": 0, "derp": "127.3.3.40:x", "hostinfo": hostinfo}, 5),
            ({"homeDERP": 0, "derp": "192.0.2.1:9"}, 0),
            ({"homeDERP": -1, "derp": "", "hostinfo": None}, 0),
        ):
            node = Node.fromWire(wireNode(7, **fields), NOW)
            self.assertEqual(node.homeDERP, region, fields)

    def test_oldAttributes(self) -> None:
        """Attributes in the older form count for this node only."""
        wire = wireNode(7, capabilities=["a", "b"], capMap={"b": [], "c": None})
        own = Node.fromWire(wire, NOW, isSelf=True)
        self.assertEqual(dict(own.capMap), {"a": None, "b": [], "c": None})
        self.assertEqual(set(Node.fromWire(wire, NOW).capMap), {"b", "c"})

    def test_zeroDisco(self) -> None:
        """A zero disco key is none; without a relay the node is unreachable."""
        zero = "discokey:" + "00" * 32
        node = Node.fromWire(wireNode(7, discoKey=zero, homeDERP=0), NOW)
        self.assertIsNone(node.disco)
        self.assertFalse(node.isReachable)
        plain = wireNode(7, discoKey="", homeDERP=0, isWireGuardOnly=True)
        self.assertTrue(Node.fromWire(plain, NOW).isReachable)

    def test_expiry(self) -> None:
        """An expired node has no endpoints and no relay; its key stays."""
        expiry = datetime.fromtimestamp(NOW, UTC)
        wire = wireNode(7, keyExpiry=expiry)
        fresh = Node.fromWire(wire, NOW)  # the boundary is not past it
        self.assertFalse(fresh.expired)
        self.assertEqual((fresh.homeDERP, len(fresh.endpoints)), (1, 1))
        expired = Node.fromWire(wire, NOW + 1)
        self.assertTrue(expired.expired)
        self.assertEqual((expired.homeDERP, expired.endpoints), (0, ()))
        self.assertEqual(expired.key, fresh.key)

    def test_expiredAccordingToControl(self) -> None:
        """Control's word counts, whatever the clock says."""
        self.assertTrue(Node.fromWire(wireNode(7, expired=True)).expired)

    def test_clockNotSet(self) -> None:
        """Nothing expires by a clock that is obviously not set."""
        wire = wireNode(7, keyExpiry=datetime(2000, 1, 1, tzinfo=UTC))
        self.assertFalse(Node.fromWire(wire, CLOCK_IS_SET_AFTER).expired)
        self.assertTrue(Node.fromWire(wire, CLOCK_IS_SET_AFTER + 1).expired)

    def test_neverExpires(self) -> None:
        """Go's zero time means that a key never expires."""
        wire = wireNode(7, keyExpiry=datetime(1, 1, 1, tzinfo=UTC))
        node = Node.fromWire(wire, NOW)
        self.assertFalse(node.expired)
        self.assertIsNone(node.keyExpiry)

    def test_endpoints(self) -> None:
        """Endpoints are parsed on demand; malformed and too many are left out."""
        node = Node.fromWire(
            wireNode(7, endpoints=["192.0.2.8:1", "host:2", "", "[2001:db8::1]:3"]), NOW
        )
        self.assertEqual(
            node.underlayAddresses(),
            [
                AddrPort(parseAddress("192.0.2.8"), 1),
                AddrPort(parseAddress("2001:db8::1"), 3),
            ],
        )
        many = Node.fromWire(wireNode(7, endpoints=["192.0.2.8:1"] * 500), NOW)
        self.assertEqual(len(many.underlayAddresses()), 64)

    def test_services(self) -> None:
        """Ports of announced services are found; impossible ones are not."""
        hostinfo = Hostinfo(
            services=[Service(proto="peerapi4", port=4242), Service(proto="x", port=0)]
        )
        node = Node.fromWire(wireNode(7, hostinfo=hostinfo, cap=25), NOW)
        self.assertEqual(node.servicePort("peerapi4"), 4242)
        self.assertIsNone(node.servicePort("x"))
        self.assertIsNone(node.servicePort("peerapi6"))
        self.assertFalse(node.proxiesDNS)
        self.assertTrue(Node.fromWire(wireNode(7, cap=26), NOW).proxiesDNS)

    def test_takesOverUnchangedParts(self) -> None:
        """Parts that did not change are the former ones; changed ones are new."""
        former = Node.fromWire(wireNode(7, allowedIPs=["10.0.0.0/8"]), NOW)
        same = Node.fromWire(
            wireNode(7, allowedIPs=["10.0.0.0/8"], online=False), NOW, former=former
        )
        self.assertIs(same.key, former.key)
        self.assertIs(same.addresses, former.addresses)
        self.assertIs(same.allowedIPs, former.allowedIPs)
        other = Node.fromWire(
            wireNode(7, key=nodeKey(8), discoKey=discoKey(9), addresses=[]),
            NOW,
            former=former,
        )
        self.assertEqual(other.key.raw, rawKey(8))
        self.assertEqual(other.disco.raw if other.disco else None, rawKey(9))
        self.assertEqual(other.addresses, ())
        self.assertEqual(len(other.allowedIPs), 2)
        unsigned = Node.fromWire(
            wireNode(7, unsignedPeerAPIOnly=True, allowedIPs=["10.0.0.0/8"]),
            NOW,
            former=former,
        )
        self.assertEqual(unsigned.allowedIPs, unsigned.addresses)
        signed = Node.fromWire(
            wireNode(7, allowedIPs=["10.0.0.0/8"]), NOW, former=unsigned
        )
        self.assertEqual(texts(signed)[1], ["10.0.0.0/8"])

    def test_immutable(self) -> None:
        """A node cannot be changed."""
        node = Node.fromWire(wireNode(7, capMap={"a": None}), NOW)
        with self.assertRaises(AttributeError):
            node.homeDERP = 5  # type: ignore[misc]  # that is what is tested
        with self.assertRaises(TypeError):
            node.capMap["b"] = None  # type: ignore[index]  # that is what is tested


class PeerIndexTests(SynchronousTestCase):
    """L{PeerIndex}."""

    def put(self, index: PeerIndex, number: int, **fields: object) -> Node:
        """Put a node into an index."""
        node = Node.fromWire(wireNode(number, **fields), NOW)
        index.put(node)
        return node

    def test_lookups(self) -> None:
        """A peer is found by id, keys, each address and its name."""
        index = PeerIndex()
        node = self.put(index, 7)
        self.put(index, 3)
        self.assertIs(index.withID(7), node)
        self.assertIs(index.withKey(rawKey(7)), node)
        self.assertIs(index.withDisco(rawKey(7)), node)
        for packed in node.packedAddresses():
            self.assertIs(index.withAddress(packed), node)
        for name in (f"n7.{SUFFIX}", f"N7.{SUFFIX.upper()}."):
            self.assertIs(index.withName(name), node)
        self.assertEqual([peer.id for peer in index], [3, 7])
        self.assertEqual((len(index), set(index.byID)), (2, {3, 7}))

    def test_removalEmptiesAllIndexes(self) -> None:
        """After the last peer nothing is left anywhere."""
        index = PeerIndex()
        for number in (2, 3, 4):
            self.put(index, number)
        for number in (4, 2, 3):
            self.assertIsNotNone(index.remove(number))
        self.assertIsNone(index.remove(3))
        self.assertEqual((len(index), index.indexSizes()), (0, (0, 0, 0, 0)))

    def test_R_PT_5_T_peerDB_reassigned(self) -> None:
        """A value that went over to another peer outlives its former owner."""
        index = PeerIndex()
        self.put(index, 2)
        heir = self.put(
            index,
            3,
            discoKey=discoKey(2),
            addresses=["100.64.0.2/32"],
            name=f"n2.{SUFFIX}.",
        )
        index.remove(2)
        self.assertIs(index.withDisco(rawKey(2)), heir)
        self.assertIs(index.withAddress(parseAddress("100.64.0.2")), heir)
        self.assertIs(index.withName(f"n2.{SUFFIX}"), heir)
        self.assertIsNone(index.withKey(rawKey(2)))

    def test_R_PT_5_exchange(self) -> None:
        """Two peers may exchange all that they are found by."""
        index = PeerIndex()
        self.put(index, 2)
        self.put(index, 3)
        self.put(index, 2, addresses=["100.64.0.3/32"], name=f"n3.{SUFFIX}.")
        self.put(index, 3, addresses=["100.64.0.2/32"], name=f"n2.{SUFFIX}.")
        for address, number in (("100.64.0.3", 2), ("100.64.0.2", 3)):
            found = index.withAddress(parseAddress(address))
            self.assertEqual(found.id if found else None, number)

    def test_T_keyCollision(self) -> None:
        """Of two peers with one key the older owner goes, whole."""
        index = PeerIndex()
        older = self.put(index, 2)
        newer = Node.fromWire(wireNode(3, key=nodeKey(2)), NOW)
        self.assertIs(index.put(newer), older)
        self.assertEqual([peer.id for peer in index], [3])
        self.assertIs(index.withKey(rawKey(2)), newer)
        self.assertIsNone(index.withDisco(rawKey(2)))
        self.assertIsNone(index.withAddress(parseAddress("100.64.0.2")))

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(2, 5),
                st.one_of(
                    st.none(),
                    st.tuples(*[st.integers(2, 4) for _ in range(4)]),
                ),
            ),
            max_size=20,
        )
    )
    def test_R_PT_5_anyOrder(
        self, steps: list[tuple[int, tuple[int, int, int, int] | None]]
    ) -> None:
        """In any order of coming and going every entry leads to a live peer."""
        index = PeerIndex()
        for number, values in steps:
            if values is None:
                index.remove(number)
                continue
            key, disco, address, name = values
            node = self.put(
                index,
                number,
                key=nodeKey(key),
                discoKey=discoKey(disco),
                addresses=[f"100.64.0.{address}/32"],
                name=f"n{name}.",
            )
            # The last one to claim a value has it.
            self.assertIs(index.withKey(rawKey(key)), node)
            self.assertIs(index.withDisco(rawKey(disco)), node)
            self.assertIs(index.withAddress(parseAddress(f"100.64.0.{address}")), node)
            self.assertIs(index.withName(f"n{name}"), node)
        keys = [peer.key.raw for peer in index]
        self.assertEqual(len(keys), len(set(keys)))
        self.assertEqual({index.withKey(key) for key in keys}, set(index))
        for value in range(2, 5):
            for found in (
                index.withDisco(rawKey(value)),
                index.withAddress(parseAddress(f"100.64.0.{value}")),
                index.withName(f"n{value}"),
            ):
                self.assertIn(found, [None, *index])
        for number in range(2, 6):
            index.remove(number)
        self.assertEqual(index.indexSizes(), (0, 0, 0, 0))


class NetworkMapTests(SynchronousTestCase):
    """L{NetworkMap}, for its readers."""

    def setUp(self) -> None:
        """A tailnet of node 1 and two peers, one from elsewhere."""
        self.parts = MapParts(selfNode=Node.fromWire(wireNode(1), NOW, isSelf=True))
        self.peer = Node.fromWire(wireNode(2, capMap={"a": None}), NOW)
        self.guest = Node.fromWire(
            wireNode(3, name="guest.other.example.", unsignedPeerAPIOnly=True), NOW
        )
        for node in (self.peer, self.guest):
            self.parts.peers.put(node)
        self.map = NetworkMap(self.parts)

    def test_peerByName(self) -> None:
        """Short names mean this tailnet; full ones are found everywhere."""
        for name in ("n2", "N2", "n2.", f"n2.{SUFFIX}", f"N2.{SUFFIX}."):
            self.assertIs(self.map.peerByName(name), self.peer, name)
        self.assertIs(self.map.peerByName("guest.other.example"), self.guest)
        for name in ("guest", "n4", "", ".", f"n2.x.{SUFFIX}"):
            self.assertIsNone(self.map.peerByName(name), name)

    def test_byAddressAndKey(self) -> None:
        """This node has an address, too, but is no peer."""
        own = parseAddress("100.64.0.1")
        self.assertIs(self.map.nodeByAddress(own), self.map.selfNode)
        self.assertIsNone(self.map.peerByAddress(own))
        two = parseAddress("fd7a:115c:a1e0::2")
        self.assertIs(self.map.nodeByAddress(two), self.peer)
        self.assertIs(self.map.peerByAddress(two), self.peer)
        self.assertIs(self.map.peerByKey(rawKey(3)), self.guest)
        self.assertIsNone(self.map.peerByKey(rawKey(9)))

    def test_capabilitiesOf(self) -> None:
        """Attributes are found by address; a peer nobody vouches for has none."""
        self.assertEqual(
            list(self.map.capabilitiesOf(parseAddress("100.64.0.2"))), ["a"]
        )
        unsigned = Node.fromWire(
            wireNode(3, capMap={"a": None}, unsignedPeerAPIOnly=True), NOW
        )
        self.parts.peers.put(unsigned)
        for text in ("100.64.0.3", "100.64.0.9"):
            self.assertEqual(list(self.map.capabilitiesOf(parseAddress(text))), [])

    def test_copyStays(self) -> None:
        """A copy shows what was, whatever comes later."""
        self.parts.userProfiles[1] = UserProfile(id=1, loginName="a@example.com")
        copy = self.map.copy()
        self.parts.peers.remove(2)
        self.parts.peers.put(Node.fromWire(wireNode(4), NOW))
        self.parts.userProfiles[2] = UserProfile(id=2)
        self.parts.domain = "new.example"
        self.assertEqual([peer.id for peer in copy.peers], [2, 3])
        self.assertIs(copy.peerByName("n2"), self.peer)
        self.assertIsNone(copy.peerByAddress(parseAddress("100.64.0.4")))
        self.assertEqual((copy.domain, set(copy.userProfiles)), ("", {1}))
        self.assertEqual([peer.id for peer in self.map.peers], [3, 4])
        self.assertIsNotNone(copy.profile(1))
        self.assertIsNone(copy.profile(2))

    def test_readersCannotChangeIt(self) -> None:
        """What readers get refuses to be changed."""
        with self.assertRaises(TypeError):
            self.map.peers.byID[9] = self.peer  # type: ignore[index]  # tested
        with self.assertRaises(TypeError):
            self.map.userProfiles[9] = UserProfile()  # type: ignore[index]  # tested
        with self.assertRaises(AttributeError):
            self.map.domain = "x"  # type: ignore[misc]  # tested
        self.assertFalse(hasattr(self.map.copy().peers, "put"))

    def test_empty(self) -> None:
        """Before anything is known everything is empty."""
        netmap = NetworkMap()
        self.assertIsNone(netmap.selfNode)
        self.assertEqual((len(netmap.peers), netmap.domain), (0, ""))
        self.assertEqual((netmap.regions, netmap.messages), ({}, {}))
        self.assertIsNone(netmap.peerByName("n1"))

"""Tests of reading documents that are malformed, and of times."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.tailcfg import (
    ZERO_TIME,
    DERPMap,
    MapResponse,
    Raw,
    RegisterRequest,
    RegisterResponse,
    WireNode,
    decode,
    decodeMapResponse,
    decodeRaw,
    encode,
    formatTime,
    parseTime,
    present,
)
from tsrt.test.netmapworld import there, wireNode

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["ID", "Name", "Key", "Regions", "1", "*", "SrcIPs", "DstPorts", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)

RESPONSES = st.dictionaries(
    st.sampled_from([*MapResponse.__struct_encode_fields__, "Unknown"]),
    JSON,
    max_size=6,
)


def jsonOf(value: object) -> bytes:
    """The JSON of a value, by another encoder than ours."""
    return json.dumps(value).encode()


class DecodeTests(SynchronousTestCase):
    """L{decode}."""

    def test_pathInTheMessage(self) -> None:
        """The error says where in the document something is wrong."""
        with self.assertRaises(WireError) as caught:
            decode(DERPMap, b'{"Regions":{"1":{"RegionID":"one"}}}')
        self.assertIn("RegionID", str(caught.exception))
        self.assertIn("DERPMap", str(caught.exception))

    def test_noJSON(self) -> None:
        """What is no JSON, cut short, or too deep is a L{WireError}."""
        for data in (b"", b"{", b'{"a":1', b"\xff", b"[" * 100_000, b'{"User":"\\ud8'):
            self.assertRaises(WireError, decode, RegisterResponse, data)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=60))
    def test_anyBytes(self, data: bytes) -> None:
        """Any bytes raise nothing but L{WireError}."""
        for kind in (RegisterRequest, RegisterResponse, WireNode):
            try:
                decode(kind, data)
            except WireError:
                pass
        try:
            decodeMapResponse(data)
        except WireError:
            pass

    def test_decodeRaw(self) -> None:
        """A raw value is read as plain JSON; one that is none is an error."""
        self.assertEqual(decodeRaw(Raw(b'{"a":[1,null]}')), {"a": [1, None]})
        self.assertRaises(WireError, decodeRaw, Raw(b"{"))


class SalvageTests(SynchronousTestCase):
    """L{decodeMapResponse}, where an element is malformed."""

    def test_T_badKeys_onePeerOfAHundred(self) -> None:
        """One malformed peer of a hundred costs that peer alone, and is told."""
        document = json.loads(
            encode(MapResponse(peers=[wireNode(i) for i in range(2, 102)]))
        )
        document["Peers"][41]["Addresses"] = "100.64.0.43/32"
        response = decodeMapResponse(jsonOf(document))
        kept = [peer.id for peer in there(response.peers)]
        self.assertEqual(kept, [i for i in range(2, 102) if i != 43])
        (sentence,) = response.rejectedPeers
        self.assertIn("Peers[41]", sentence)
        self.assertIn("43", sentence)
        self.assertIn("Addresses", sentence)

    def test_changedPeers(self) -> None:
        """In lists of changed and patched peers only bad elements go."""
        response = decodeMapResponse(
            b'{"PeersChanged":[{"ID":2},{"ID":"3"},null,7],'
            b'"PeersChangedPatch":[{"NodeID":2,"Online":true},{"Online":true},'
            b'{"NodeID":4,"Endpoints":"x"}],'
            b'"PeersRemoved":[5,"6",7],"OnlineChange":{"8":true,"x":true,"9":1}}'
        )
        self.assertEqual([peer.id for peer in there(response.peersChanged)], [2])
        self.assertEqual(
            [patch.nodeID for patch in there(response.peersChangedPatch)], [2]
        )
        self.assertEqual(response.peersRemoved, [5, 7])
        self.assertEqual(response.onlineChange, {8: True})
        self.assertEqual(len(response.rejectedPeers), 8)

    def test_filterRules(self) -> None:
        """A malformed rule goes alone, from the old filter and the named ones."""
        rules = '[{"SrcIPs":["*"]},{"SrcIPs":"*"},{"SrcIPs":["100.64.0.1"]}]'
        response = decodeMapResponse(
            f'{{"PacketFilter":{rules},"PacketFilters":{{"a":{rules},"b":null}}}}'.encode()
        )
        expected = [["*"], ["100.64.0.1"]]
        self.assertEqual([r.srcIPs for r in there(response.packetFilter)], expected)
        self.assertEqual(
            [r.srcIPs for r in there(there(response.packetFilters)["a"])], expected
        )
        self.assertIsNone(there(response.packetFilters)["b"])
        self.assertEqual(len(response.rejectedPeers), 2)

    def test_derpRegions(self) -> None:
        """A malformed region goes alone; a removed one stays removed."""
        response = decodeMapResponse(
            b'{"DERPMap":{"Regions":{"1":{"RegionID":1},"2":{"RegionID":[]},'
            b'"three":{},"4":null},"omitDefaultRegions":true}}'
        )
        regions = there(response.derpMap).regions
        self.assertEqual(set(there(regions)), {1, 4})
        self.assertIsNone(there(regions)[4])
        self.assertTrue(there(response.derpMap).omitDefaultRegions)
        self.assertEqual(len(response.rejectedPeers), 2)

    def test_nullContainersWhereAnotherPartIsBad(self) -> None:
        """Null stays null while another part is being mended."""
        response = decodeMapResponse(
            b'{"Peers":[5],"PacketFilters":null,"DisplayMessages":null,'
            b'"DERPMap":{"HomeParams":null},"Health":null}'
        )
        self.assertEqual(response.peers, [])
        self.assertIsNone(response.packetFilters)
        self.assertIsNone(response.displayMessages)
        self.assertIsNone(there(response.derpMap).regions)

    def test_messages(self) -> None:
        """Of messages, texts and users the malformed ones go."""
        response = decodeMapResponse(
            b'{"Health":["a",1],"DisplayMessages":{"b":{"Title":"B"},"c":7,"d":null},'
            b'"UserProfiles":[{"ID":1},{"ID":{}}]}'
        )
        self.assertEqual(response.health, ["a"])
        self.assertEqual(set(there(response.displayMessages)), {"b", "d"})
        self.assertEqual([user.id for user in there(response.userProfiles)], [1])

    def test_dispensableParts(self) -> None:
        """A malformed part that nothing depends on is left out and told."""
        response = decodeMapResponse(
            b'{"ClientVersion":7,"PingRequest":[],"DNSConfig":{"Domains":{}},'
            b'"Health":"x","UserProfiles":"y","DisplayMessages":[],"Domain":"d"}'
        )
        self.assertEqual(response.domain, "d")
        for name in ("clientVersion", "pingRequest", "dnsConfig", "health"):
            self.assertFalse(getattr(response, name), name)
        self.assertEqual(len(response.rejectedPeers), 6)

    def test_indispensableParts(self) -> None:
        """A malformed part that the rest depends on fails the whole response."""
        for part in (
            b'"Node":5',
            b'"Node":{"ID":"x"}',
            b'"PacketFilter":"*"',
            b'"PacketFilters":{"base":7}',
            b'"PacketFilters":[]',
            b'"Peers":{}',
            b'"DERPMap":[]',
            b'"DERPMap":{"HomeParams":5}',
            b'"DERPMap":{"omitDefaultRegions":9,"Regions":{"1":{}}}',
            b'"KeepAlive":"yes"',
            b'"Debug":1',
            b'"SSHPolicy":1',
        ):
            self.assertRaises(WireError, decodeMapResponse, b"{%s}" % part)

    def test_noObject(self) -> None:
        """A response that is no object is an error."""
        for data in (b"[]", b"null", b"3", b'"x"'):
            self.assertRaises(WireError, decodeMapResponse, data)

    def test_boundOfRejections(self) -> None:
        """However much is malformed, only so much is told."""
        response = decodeMapResponse(jsonOf({"Peers": [1] * 5000}))
        self.assertEqual(response.peers, [])
        self.assertEqual(len(response.rejectedPeers), 100)

    def test_labelsAreShort(self) -> None:
        """What is told of a malformed element is bounded in length."""
        response = decodeMapResponse(
            jsonOf({"Peers": [{"ID": 2, "Name": "n" * 10_000, "Tags": 1}]})
        )
        (sentence,) = response.rejectedPeers
        self.assertLess(len(sentence), 300)

    @settings(max_examples=200, deadline=None)
    @given(RESPONSES)
    def test_anyJSON(self, document: dict[str, object]) -> None:
        """Any JSON object is read or is a L{WireError}; it can be written again."""
        try:
            response = decodeMapResponse(jsonOf(document))
        except WireError:
            return
        again = decodeMapResponse(encode(response))
        self.assertEqual(again.rejectedPeers, ())
        self.assertEqual(again, response)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.one_of(st.integers(2, 200), JSON), max_size=8))
    def test_goodPeersStay(self, elements: list[object]) -> None:
        """Good peers stay in their order, whatever stands between them."""
        good = [n for n in elements if type(n) is int and 2 <= n <= 200]
        document = {
            "Peers": [
                json.loads(encode(wireNode(e)))
                if type(e) is int and 2 <= e <= 200
                else {"ID": "no", "Name": e}
                for e in elements
            ]
        }
        response = decodeMapResponse(jsonOf(document))
        self.assertEqual([peer.id for peer in there(response.peers)], good)
        self.assertEqual(len(response.rejectedPeers), len(elements) - len(good))


class TimeTests(SynchronousTestCase):
    """Times as Go writes them."""

    def test_parse(self) -> None:
        """Fractions of up to nine digits and zones are read."""
        base = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        for text, expected in (
            ("2026-01-02T03:04:05Z", base),
            ("2026-01-02T03:04:05.5Z", base + timedelta(milliseconds=500)),
            ("2026-01-02T03:04:05.123456Z", base + timedelta(microseconds=123456)),
            ("2026-01-02T03:04:05.123456400Z", base + timedelta(microseconds=123456)),
            ("2026-01-02T05:04:05+02:00", base),
        ):
            self.assertEqual(parseTime(text), expected, text)

    def test_zero(self) -> None:
        """Go's zero time is no time."""
        self.assertIsNone(parseTime("0001-01-01T00:00:00Z"))
        self.assertIsNone(present(ZERO_TIME))
        self.assertIsNone(present(None))
        self.assertEqual(formatTime(None), "0001-01-01T00:00:00Z")

    def test_malformed(self) -> None:
        """What is no time is a L{WireError}."""
        for text in (
            "",
            "now",
            "2026-13-01T00:00:00Z",
            "2026-01-01",
            '"',
            "0",
            "\ud800",
        ):
            self.assertRaises(WireError, parseTime, text)

    def test_format(self) -> None:
        """Times are written in UTC, with as many digits as they need."""
        zone = timezone(timedelta(hours=2))
        for when, text in (
            (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
            (datetime(2026, 1, 2, 3, 4, 5, tzinfo=zone), "2026-01-02T01:04:05Z"),
            (datetime(2026, 1, 2, 3, 4, 5, 250_000), "2026-01-02T03:04:05.250000Z"),
        ):
            self.assertEqual(formatTime(when), text)

    def test_withoutZone(self) -> None:
        """A time without a zone counts as UTC."""
        self.assertEqual(
            present(datetime(2026, 1, 2)), datetime(2026, 1, 2, tzinfo=UTC)
        )

    @settings(max_examples=50, deadline=None)
    @given(
        st.datetimes(
            min_value=datetime(2, 1, 1),
            max_value=datetime(9999, 12, 31),
            timezones=st.just(UTC),
        )
    )
    def test_roundTrip(self, when: datetime) -> None:
        """A time that was written is read as the same."""
        self.assertEqual(parseTime(formatTime(when)), when)

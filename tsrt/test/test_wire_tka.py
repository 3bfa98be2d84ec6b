"""
Tests for L{tsrt.wire.tka}; its encodings are tested against vectors elsewhere.
"""

from __future__ import annotations

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.crypto import zip215
from tsrt.errors import WireError
from tsrt.keys import LockKey
from tsrt.wire.cbor import CBORValue, encode
from tsrt.wire.tka import (
    AUM,
    AUMKind,
    Key,
    LockSignature,
    State,
    formatHash,
    parseHash,
)

ALICE = LockKey(b"\1" * 32)
BOB = LockKey(b"\2" * 32)
ALICE_KEY = Key(ALICE.public().raw, votes=2)
BOB_KEY = Key(BOB.public().raw, meta={"name": "bob"})
VALUE = b"\7" * 32
STATE = State((ALICE_KEY,), (VALUE,), stateID1=1, stateID2=2**64 - 1)
HASH = bytes(range(32))
META = {"a": "b"}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
metas = st.dictionaries(texts, texts, max_size=3)
octets = st.binary(max_size=40)
uints = st.integers(0, 2**64 - 1)
keys = st.builds(Key, octets, uints, metas, uints)
states = st.builds(
    State,
    st.lists(keys, max_size=3).map(tuple),
    st.lists(octets, max_size=3).map(tuple),
    st.none() | st.binary(min_size=32, max_size=32),
    uints,
    uints,
)
messages = st.builds(
    AUM,
    uints,
    st.none() | octets,
    st.none() | keys,
    octets,
    st.none() | states,
    st.none() | uints,
    metas,
    st.lists(st.builds(LockSignature, octets, octets), max_size=3).map(tuple),
)


class HashTextTests(SynchronousTestCase):
    """L{formatHash} and L{parseHash}."""

    @given(st.binary(min_size=32, max_size=32))
    @settings(max_examples=50, deadline=None)
    def test_roundTrip(self, digest: bytes) -> None:
        """A hash has 52 characters and comes back."""
        text = formatHash(digest)
        self.assertEqual(len(text), 52)
        self.assertEqual(parseHash(text), digest)

    @given(st.text() | st.from_regex(r"[A-Z2-7=]*", fullmatch=True))
    @settings(max_examples=100, deadline=None)
    def test_anyText(self, text: str) -> None:
        """Other text raises L{WireError} and nothing else."""
        self.assertRaises(WireError, parseHash, text)

    def test_rejected(self) -> None:
        """Padding, lower case, other lengths, and bits beyond the hash."""
        text = formatHash(bytes(32))
        for wrong in (text + "====", text[:-2], text + "AA", text[:-1] + "B", ""):
            self.assertRaises(WireError, parseHash, wrong)
        self.assertRaises(WireError, parseHash, formatHash(HASH).lower())


class AUMCodecTests(SynchronousTestCase):
    """Encodings of messages."""

    @given(messages)
    @settings(max_examples=150, deadline=None)
    def test_roundTrip(self, message: AUM) -> None:
        """What is written is read again, valid or not."""
        decoded = AUM.decode(message.encode())
        self.assertEqual(decoded, message)
        self.assertEqual(decoded.hash(), message.hash())

    @given(st.binary(max_size=60))
    @settings(max_examples=200, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Bytes raise L{WireError}, or are what we would write ourselves."""
        for candidate in (data, b"\xa2\1\3\2" + data, b"\xa3\1\1\2\xf6\3" + data):
            try:
                message = AUM.decode(candidate)
            except WireError:
                continue
            self.assertEqual(message.encode(), candidate)

    def test_T_tkaCBOR(self) -> None:
        """Null and absent, null and empty: each is told from the other."""
        first = AUM(AUMKind.NO_OP)
        self.assertEqual(first.encode().hex(), "a2010302f6")
        empty = AUM(AUMKind.NO_OP, previous=b"")
        self.assertEqual(empty.encode().hex(), "a201030240")
        self.assertNotEqual(first.hash(), empty.hash())
        self.assertEqual(AUM.decode(empty.encode()).previous, b"")
        self.assertRaises(WireError, empty.validate)
        zero = AUM(AUMKind.UPDATE_KEY, keyID=HASH, votes=0)
        self.assertIn(b"\6\0", zero.encode())
        self.assertEqual(AUM.decode(zero.encode()).votes, 0)

    def test_R_TKA_1_shape(self) -> None:
        """What has members of a wrong type, or too many, is refused."""
        key: CBORValue = ALICE_KEY.toCBOR()
        state = STATE.toCBOR()
        good: dict[int, CBORValue] = {1: 1, 2: None, 3: key}
        AUM.decode(encode(good))
        wrong: list[CBORValue] = [
            None,
            1,
            [],
            {**good, 1: "1"},
            {**good, 1: -1},
            {2: None, 3: key},
            {1: 1, 3: key},
            {**good, 2: "text"},
            {**good, 3: 1},
            {**good, 3: None},
            {**good, 3: {1: 1, 2: 1}},
            {**good, 3: {1: 1, 2: 1, 3: None}},
            {**good, 3: {1: 1, 2: None, 3: b"x"}},
            {**good, 3: {1: 1, 2: 1, 3: b"x", 9: 1}},
            {**good, 4: "text"},
            {**good, 4: b""},
            {**good, 5: 5},
            {**good, 5: {**state, 1: b"short"}},
            {**good, 5: {**state, 1: 1}},
            {**good, 5: {**state, 2: None}},
            {**good, 5: {**state, 2: [1]}},
            {**good, 5: {**state, 3: {}}},
            {**good, 5: {**state, 4: 0}},
            {**good, 5: {2: [], 3: []}},
            {**good, 6: None},
            {**good, 6: b"1"},
            {**good, 7: {}},
            {**good, 7: {1: "a"}},
            {**good, 7: {"a": 1}},
            {**good, 7: []},
            {**good, 8: 1},
            {**good, 23: []},
            {**good, 23: [{1: b"a"}]},
            {**good, 23: [{1: b"a", 2: "b"}]},
            {**good, 23: [1]},
        ]
        for value in wrong:
            self.assertRaises(WireError, AUM.decode, encode(value))

    def test_sigHash(self) -> None:
        """Signing changes the hash of a message, not what signatures sign."""
        message = AUM(AUMKind.ADD_KEY, HASH, key=BOB_KEY)
        signed = message.signed(ALICE)
        self.assertEqual(signed.sigHash(), message.sigHash())
        self.assertNotEqual(signed.hash(), message.hash())


class AUMSignatureTests(SynchronousTestCase):
    """Signatures of messages."""

    def check(self, message: AUM) -> None:
        """Check a message against L{STATE}."""
        message.verifySignatures(STATE, zip215.verify)

    def test_valid(self) -> None:
        """One signature of a trusted key is enough; more are fine."""
        message = AUM(AUMKind.ADD_KEY, HASH, key=BOB_KEY).signed(ALICE)
        self.check(message)
        both = evolve(STATE, keys=(ALICE_KEY, BOB_KEY))
        message.signed(BOB).verifySignatures(both, zip215.verify)

    def test_R_TKA_1_refused(self) -> None:
        """No signature, one of a stranger, and one of something else."""
        message = AUM(AUMKind.ADD_KEY, HASH, key=BOB_KEY)
        signed = message.signed(ALICE)
        for wrong in (
            message,
            message.signed(BOB),
            signed.signed(BOB),
            evolve(signed, previous=bytes(32)),
            evolve(
                message,
                signatures=(LockSignature(ALICE_KEY.keyID, bytes(64)),),
            ),
        ):
            self.assertRaises(WireError, self.check, wrong)

    def test_unknownKindOfKey(self) -> None:
        """A key of a kind that we do not know verifies nothing."""
        signature = ALICE.sign(b"data")
        self.assertTrue(ALICE_KEY.verify(signature, b"data", zip215.verify))
        strange = evolve(ALICE_KEY, kind=2)
        self.assertFalse(strange.verify(signature, b"data", zip215.verify))


class ValidationTests(SynchronousTestCase):
    """What a message says by itself."""

    def test_valid(self) -> None:
        """Each kind of message with the members that it has."""
        for message in (
            AUM(AUMKind.ADD_KEY, HASH, key=BOB_KEY),
            AUM(AUMKind.REMOVE_KEY, HASH, keyID=HASH),
            AUM(AUMKind.NO_OP, HASH),
            AUM(AUMKind.UPDATE_KEY, HASH, keyID=HASH, votes=3),
            AUM(AUMKind.UPDATE_KEY, HASH, keyID=HASH, meta=META),
            AUM(AUMKind.UPDATE_KEY, HASH, keyID=HASH, votes=3, meta=META),
            AUM(AUMKind.CHECKPOINT, state=STATE),
            AUM(99, HASH, keyID=HASH, votes=3, meta=META),
        ):
            message.signed(ALICE).validate()

    def test_members(self) -> None:
        """Members of other kinds, and missing ones, are refused."""
        for message in (
            AUM(AUMKind.INVALID, HASH),
            AUM(AUMKind.ADD_KEY, HASH),
            AUM(AUMKind.ADD_KEY, HASH, key=BOB_KEY, keyID=HASH),
            AUM(AUMKind.ADD_KEY, HASH, key=BOB_KEY, state=STATE),
            AUM(AUMKind.ADD_KEY, HASH, key=BOB_KEY, votes=0),
            AUM(AUMKind.ADD_KEY, HASH, key=BOB_KEY, meta=META),
            AUM(AUMKind.REMOVE_KEY, HASH),
            AUM(AUMKind.REMOVE_KEY, HASH, keyID=HASH, key=BOB_KEY),
            AUM(AUMKind.UPDATE_KEY, HASH, keyID=HASH),
            AUM(AUMKind.UPDATE_KEY, HASH, votes=3),
            AUM(AUMKind.UPDATE_KEY, HASH, keyID=HASH, votes=3, state=STATE),
            AUM(AUMKind.CHECKPOINT, HASH),
            AUM(AUMKind.CHECKPOINT, HASH, state=STATE, keyID=HASH),
        ):
            self.assertRaises(WireError, message.validate)

    def test_lengths(self) -> None:
        """Parents, key identifiers and signatures have their lengths."""
        message = AUM(AUMKind.NO_OP, HASH)
        for wrong in (
            evolve(message, previous=bytes(31)),
            evolve(message, signatures=(LockSignature(bytes(31), bytes(64)),)),
            evolve(message, signatures=(LockSignature(bytes(32), bytes(63)),)),
        ):
            self.assertRaises(WireError, wrong.validate)

    def test_keys(self) -> None:
        """Keys of another kind or length, and votes and metadata at the edge."""
        evolve(BOB_KEY, votes=4096, meta={"n" * 200: "v" * 312}).validate()
        for wrong in (
            evolve(BOB_KEY, kind=2),
            evolve(BOB_KEY, public=bytes(31)),
            evolve(BOB_KEY, votes=0),
            evolve(BOB_KEY, votes=4097),
            evolve(BOB_KEY, meta={"n" * 200: "v" * 313}),
            evolve(BOB_KEY, meta={"ü": "ü" * 256}),
        ):
            self.assertRaises(WireError, wrong.validate)
            self.assertRaises(WireError, AUM(AUMKind.ADD_KEY, HASH, key=wrong).validate)

    def test_checkpoints(self) -> None:
        """What a state in a checkpoint must not be."""
        many = tuple(Key(n.to_bytes(32, "big")) for n in range(513))
        values = tuple(n.to_bytes(32, "big") for n in range(33))
        evolve(
            STATE, keys=many[:-1], disablementValues=values[:-1]
        ).validateCheckpoint()
        for wrong in (
            evolve(STATE, lastHash=HASH),
            evolve(STATE, disablementValues=()),
            evolve(STATE, disablementValues=values),
            evolve(STATE, disablementValues=(VALUE, VALUE)),
            evolve(STATE, disablementValues=(VALUE[:-1],)),
            evolve(STATE, keys=()),
            evolve(STATE, keys=many),
            evolve(STATE, keys=(BOB_KEY, evolve(BOB_KEY, votes=2))),
            evolve(STATE, keys=(evolve(BOB_KEY, votes=0),)),
        ):
            self.assertRaises(WireError, wrong.validateCheckpoint)
            self.assertRaises(WireError, AUM(AUMKind.CHECKPOINT, state=wrong).validate)

    def test_lookUp(self) -> None:
        """A state finds its keys by their identifiers."""
        self.assertEqual(STATE.key(ALICE_KEY.keyID), ALICE_KEY)
        self.assertIsNone(STATE.key(BOB_KEY.keyID))

    def test_meta(self) -> None:
        """Metadata given in any order is the same."""
        one = Key(HASH, meta={"a": "1", "b": "2"})
        two = Key(HASH, meta=(("b", "2"), ("a", "1")))
        self.assertEqual(one, two)
        self.assertEqual(len({one, two}), 1)

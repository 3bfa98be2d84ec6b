"""
Tests for L{tsrt.wire.cbor}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.wire.cbor import MAX_ARRAY, MAX_MAP, MAX_NESTING, CBORValue, decode, encode

# RFC 8949 appendix A, as far as the profile goes.
PUBLISHED: list[tuple[CBORValue, str]] = [
    (0, "00"),
    (1, "01"),
    (10, "0a"),
    (23, "17"),
    (24, "1818"),
    (25, "1819"),
    (100, "1864"),
    (1000, "1903e8"),
    (1000000, "1a000f4240"),
    (1000000000000, "1b000000e8d4a51000"),
    (18446744073709551615, "1bffffffffffffffff"),
    (-18446744073709551616, "3bffffffffffffffff"),
    (-1, "20"),
    (-10, "29"),
    (-100, "3863"),
    (-1000, "3903e7"),
    (None, "f6"),
    (b"", "40"),
    (b"\1\2\3\4", "4401020304"),
    ("", "60"),
    ("a", "6161"),
    ("IETF", "6449455446"),
    ('"\\', "62225c"),
    ("ü", "62c3bc"),
    ("水", "63e6b0b4"),
    ("\U00010151", "64f0908591"),
    ([], "80"),
    ([1, 2, 3], "83010203"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    (
        list(range(1, 26)),
        "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
    ),
    ({}, "a0"),
    ({1: 2, 3: 4}, "a201020304"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    (["a", {"b": "c"}], "826161a161626163"),
    (
        {"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"},
        "a56161614161626142616361436164614461656145",
    ),
]

scalars = (
    st.none()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(0, 2**64 - 1), inner, max_size=4)
        | st.dictionaries(st.text(alphabet="abcü", max_size=30), inner, max_size=4)
    ),
    max_leaves=12,
)


def nested(levels: int) -> CBORValue:
    """Arrays in one another."""
    value: CBORValue = 0
    for _ in range(levels):
        value = [value]
    return value


class EncodeTests(SynchronousTestCase):
    """L{encode}."""

    def test_published(self) -> None:
        """The examples of RFC 8949, in both directions."""
        for value, text in PUBLISHED:
            self.assertEqual(encode(value).hex(), text)
            decoded = decode(bytes.fromhex(text))
            self.assertEqual(decoded, value)
            self.assertIs(type(decoded), type(value))

    @given(values)
    @settings(max_examples=200, deadline=None)
    def test_roundTrip(self, value: CBORValue) -> None:
        """What is written is read again."""
        self.assertEqual(decode(encode(value)), value)

    def test_order(self) -> None:
        """Keys come in order of length, then of bytes, whatever they were."""
        self.assertEqual(
            encode({256: 0, 24: 0, 23: 0, 0: 0, 255: 0}).hex(),
            "a50000170018180018ff0019010000",
        )
        self.assertEqual(
            encode({"b": 0, "aa": 0, "": 0, "a": 0}).hex(),
            "a4600061610061620062616100",
        )

    def test_tuples(self) -> None:
        """A tuple is written as an array."""
        self.assertEqual(encode((1, (2,))), encode([1, [2]]))

    def test_rejected(self) -> None:
        """What has no place in the profile raises L{WireError}."""
        bad: tuple[object, ...] = (
            2**64,
            -(2**64) - 1,
            "\ud800",
            True,
            False,
            {True: 1},
            {b"a": 1},
            {None: 1},
        )
        for value in bad:
            self.assertRaises(WireError, encode, value)

    def test_limits(self) -> None:
        """Nothing is written that nobody would read."""
        encode(nested(MAX_NESTING))
        encode([0] * MAX_ARRAY)
        encode(dict.fromkeys(range(MAX_MAP), 0))
        for value in (
            nested(MAX_NESTING + 1),
            [0] * (MAX_ARRAY + 1),
            dict.fromkeys(range(MAX_MAP + 1), 0),
        ):
            self.assertRaises(WireError, encode, value)


class DecodeTests(SynchronousTestCase):
    """L{decode}."""

    @given(st.binary(max_size=60) | values.map(encode).map(lambda data: data[:-1]))
    @settings(max_examples=500, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Bytes raise L{WireError}, or are what we would write ourselves."""
        try:
            value = decode(data)
        except WireError:
            return
        self.assertEqual(encode(value), data)

    @given(values, st.data())
    @settings(max_examples=200, deadline=None)
    def test_oneEncoding(self, value: CBORValue, data: st.DataObject) -> None:
        """No change of an encoding decodes to the same value."""
        encoded = bytearray(encode(value))
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at] ^= data.draw(st.integers(1, 255))
        try:
            changed = decode(bytes(encoded))
        except WireError:
            return
        self.assertNotEqual(changed, value)

    def rejects(self, *texts: str) -> None:
        """Check that none of these is taken."""
        for text in texts:
            self.assertRaises(WireError, decode, bytes.fromhex(text))

    def test_cutShort(self) -> None:
        """Everything published, cut anywhere, is rejected."""
        for _, text in PUBLISHED:
            for length in range(0, len(text), 2):
                self.rejects(text[:length])

    def test_trailing(self) -> None:
        """Something behind the value is rejected."""
        self.rejects("0000", "f6f6", "8000")

    def test_longIntegers(self) -> None:
        """Integers and lengths in a longer form than need be are rejected."""
        self.rejects("1800", "1817", "190001", "1900ff", "1a0000ffff")
        self.rejects("1b00000000ffffffff", "3817", "580100", "9800", "b800")

    def test_outsideTheProfile(self) -> None:
        """Indefinite lengths, tags, floats, truth values and the like."""
        self.rejects("5f42010243030405ff", "7f61616162ff", "9fff", "bfff", "ff")
        self.rejects("c11a514b67b0", "c249010000000000000000", "d74401020304")
        self.rejects("f90000", "fa47c35000", "fb3ff199999999999a")
        self.rejects("f4", "f5", "f7", "e0", "f0", "f818", "f8ff")
        self.rejects("1c", "1d", "1e", "1f", "5c", "9e")

    def test_R_TKA_3_duplicateKeys(self) -> None:
        """A key that is there twice, or out of order, is rejected."""
        self.rejects("a201000100", "a203000100", "a26162006161 00")
        self.rejects("a2626161006162 00", "a20000 1800 00")

    def test_keys(self) -> None:
        """Keys are integers and texts."""
        self.rejects("a1410100", "a1f600", "a1a000", "a18000")

    def test_text(self) -> None:
        """Text is UTF-8."""
        self.rejects("61ff", "62c328", "63eda080")

    def test_R_TKA_2_nesting(self) -> None:
        """Sixteen levels are the most, of arrays and maps alike."""
        decode(b"\x81" * MAX_NESTING + b"\0")
        decode(b"\xa1\0" * MAX_NESTING + b"\0")
        self.rejects("81" * (MAX_NESTING + 1) + "00")
        self.rejects("a100" * (MAX_NESTING + 1) + "00")
        self.rejects("81" * 100000)

    def test_sizes(self) -> None:
        """Large counts are rejected without reading so far."""
        self.rejects("991001", "9a7fffffff", "9bffffffffffffffff")
        self.rejects("b90401", "ba7fffffff")
        self.rejects("5a7fffffff", "7bffffffffffffffff")
        array = b"\x99\x10\x00" + bytes(MAX_ARRAY)
        self.assertEqual(decode(array), [0] * MAX_ARRAY)

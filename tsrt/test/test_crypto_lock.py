"""
Tests for L{tsrt.crypto.argon2i} and L{tsrt.crypto.zip215}.
"""

from __future__ import annotations

import itertools

from cryptography.exceptions import UnsupportedAlgorithm
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.crypto import argon2i, zip215
from tsrt.errors import NotSupported
from tsrt.keys import LockKey, LockPublic
from tsrt.test.test_keys import RFC8032

hexa = bytes.fromhex

# Every encoding of the eight points whose order divides eight, those that RFC
# 8032 calls wrong too.
LOW_ORDER = [
    hexa(text)
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
]

ORDER = 2**252 + 27742317777372353535851937790883648493
NOT_A_POINT = b"\2" + bytes(31)


class Argon2iTests(SynchronousTestCase):
    """L{tsrt.crypto.argon2i}."""

    def test_rfc9106(self) -> None:
        """The vector of RFC 9106 section 5.2."""
        tag = argon2i.argon2i(
            b"\1" * 32,
            b"\2" * 16,
            passes=3,
            memory=32,
            lanes=4,
            secret=b"\3" * 8,
            associated=b"\4" * 12,
        )
        self.assertEqual(
            tag.hex(),
            "c814d9d1dc7f37aa13f0d77f2494bda1c8de6b016dd388d29952a4c4672b6ce8",
        )

    def test_length(self) -> None:
        """The length is part of the result."""
        short = argon2i.argon2i(b"p", b"s" * 8, passes=1, memory=8, lanes=1, length=16)
        self.assertEqual(len(short), 16)

    def test_oldLibrary(self) -> None:
        """Without the library's help the error says what to update."""
        self.patch(argon2i, "_Argon2i", None)
        error = self.assertRaises(NotSupported, argon2i.disablementValue, b"secret")
        self.assertIn("cryptography", error.describe())

    def test_oldOpenSSL(self) -> None:
        """Nor does it work when the library's own library cannot do it."""

        def refuse(**options: object) -> None:
            raise UnsupportedAlgorithm("no")

        self.patch(argon2i, "_Argon2i", refuse)
        self.assertRaises(NotSupported, argon2i.disablementValue, b"secret")


class ZIP215Tests(SynchronousTestCase):
    """L{tsrt.crypto.zip215}."""

    def test_rfc8032(self) -> None:
        """Ordinary signatures verify, and with plain integers too."""
        for _, public, message, signature in RFC8032:
            key, data, both = hexa(public), hexa(message), hexa(signature)
            self.assertTrue(zip215.verify(key, both, data))
            self.assertTrue(zip215._verifySlowly(key, both[:32], both[32:], data))
            self.assertFalse(zip215._verifySlowly(key, both[:32], both[32:], b"no"))

    def test_R_TKA_5_lowOrder(self) -> None:
        """
        With a scalar of zero all points of low order verify, in all their
        encodings; the common rules accept none of these signatures.
        """
        for public, commitment in itertools.product(LOW_ORDER, LOW_ORDER):
            signature = commitment + bytes(32)
            self.assertTrue(zip215.verify(public, signature, b"Zcash"))
            self.assertFalse(LockPublic(public).verify(signature, b"Zcash"))

    def test_scalarInRange(self) -> None:
        """A scalar must be below the order of the group."""
        signature = LOW_ORDER[0] + ORDER.to_bytes(32, "little")
        self.assertFalse(zip215.verify(LOW_ORDER[0], signature, b""))
        last = LOW_ORDER[0] + (ORDER - 1).to_bytes(32, "little")
        self.assertFalse(zip215.verify(LOW_ORDER[0], last, b""))

    def test_noPoint(self) -> None:
        """What encodes no point verifies nothing."""
        zero = bytes(32)
        self.assertFalse(zip215.verify(NOT_A_POINT, LOW_ORDER[0] + zero, b""))
        self.assertFalse(zip215.verify(LOW_ORDER[0], NOT_A_POINT + zero, b""))

    def test_lengths(self) -> None:
        """Keys and signatures of other lengths verify nothing."""
        self.assertFalse(zip215.verify(bytes(31), bytes(64), b""))
        self.assertFalse(zip215.verify(bytes(33), bytes(64), b""))
        self.assertFalse(zip215.verify(bytes(32), bytes(63), b""))

    def test_forgeriesAreCheap(self) -> None:
        """A wrong signature of ordinary points needs no long computation."""
        self.patch(zip215, "_verifySlowly", lambda *args: self.fail("slow"))
        key = LockKey(bytes(32))
        signature = key.sign(b"data")
        self.assertFalse(zip215.verify(key.public().raw, signature, b"date"))

    def test_withoutTheCheck(self) -> None:
        """A library that cannot judge points only makes the verdict slower."""
        self.patch(zip215, "has_crypto_core_ed25519", False)
        key = LockKey(bytes(32))
        signature = key.sign(b"data")
        self.assertTrue(zip215.verify(key.public().raw, signature, b"data"))
        self.assertFalse(zip215.verify(key.public().raw, signature, b"date"))

    @given(
        st.binary(max_size=40) | st.sampled_from(LOW_ORDER),
        st.binary(max_size=70) | st.binary(min_size=64, max_size=64),
    )
    @settings(max_examples=50, deadline=None)
    def test_anyBytes(self, public: bytes, signature: bytes) -> None:
        """Bytes that nobody signed raise nothing."""
        self.assertIn(zip215.verify(public, signature, b""), (True, False))

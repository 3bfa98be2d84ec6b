"""
Tests for L{tsrt.crypto.aead}, L{tsrt.crypto.xchacha}, L{tsrt.crypto.box} and
L{tsrt.crypto.hashes}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.crypto import box, hashes, xchacha
from tsrt.crypto.aead import TAG_LENGTH, CounterCipher
from tsrt.crypto.box import Box, openFrom, sealTo
from tsrt.errors import DecryptError, WireError

hexa = bytes.fromhex

# RFC 7748 section 6.1; the same keys are in the documentation of NaCl.
ALICE = hexa("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = hexa("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB = hexa("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = hexa("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = hexa("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
BOX_SHARED = hexa("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")

# Points of order 1, 2, 4 and 8 on Curve25519, and the smallest that is none.
LOW_ORDER = (
    bytes(32),
    b"\1" + bytes(31),
    hexa("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    hexa("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
)


class CounterCipherTests(SynchronousTestCase):
    """L{CounterCipher}."""

    @given(st.binary(max_size=200), st.binary(max_size=20), st.integers(0, 2**64 - 1))
    @settings(max_examples=50, deadline=None)
    def test_roundTrip(self, plaintext: bytes, aad: bytes, counter: int) -> None:
        """What was sealed opens, in both byte orders."""
        for bigEndian in (False, True):
            cipher = CounterCipher(bytes(32), bigEndian)
            sealed = cipher.seal(counter, plaintext, aad)
            self.assertEqual(len(sealed), len(plaintext) + TAG_LENGTH)
            self.assertEqual(cipher.open(counter, sealed, aad), plaintext)

    def test_byteOrder(self) -> None:
        """The counters differ in their byte order, but for zero."""
        little, big = CounterCipher(bytes(32)), CounterCipher(bytes(32), True)
        self.assertEqual(little.seal(0, b"x"), big.seal(0, b"x"))
        self.assertNotEqual(little.seal(1, b"x"), big.seal(1, b"x"))
        swapped = int.from_bytes((1).to_bytes(8, "little"), "big")
        self.assertEqual(little.seal(1, b"x"), big.seal(swapped, b"x"))

    def test_rejected(self) -> None:
        """Another counter, key, tag or additional data does not open."""
        cipher = CounterCipher(bytes(32))
        sealed = cipher.seal(7, b"hello", b"aad")
        for attempt in (
            lambda: cipher.open(8, sealed, b"aad"),
            lambda: cipher.open(7, sealed, b"aae"),
            lambda: cipher.open(7, sealed),
            lambda: cipher.open(7, sealed[:-1], b"aad"),
            lambda: cipher.open(7, sealed[:-1] + bytes((sealed[-1] ^ 1,)), b"aad"),
            lambda: CounterCipher(b"\1" * 32).open(7, sealed, b"aad"),
        ):
            self.assertRaises(DecryptError, attempt)

    @given(st.binary(max_size=64))
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Bytes that nobody sealed raise L{DecryptError} and nothing else."""
        self.assertRaises(DecryptError, CounterCipher(bytes(32)).open, 0, data)


class XChaChaTests(SynchronousTestCase):
    """L{tsrt.crypto.xchacha}."""

    # draft-irtf-cfrg-xchacha-03 appendix A.3.1.
    KEY = bytes(range(0x80, 0xA0))
    NONCE = bytes(range(0x40, 0x58))
    AAD = hexa("50515253c0c1c2c3c4c5c6c7")
    PLAINTEXT = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one "
        b"tip for the future, sunscreen would be it."
    )
    SEALED = hexa(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
        "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
        "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
    )

    def test_published(self) -> None:
        """The vector of the draft comes out and opens."""
        sealed = xchacha.seal(self.KEY, self.NONCE, self.PLAINTEXT, self.AAD)
        self.assertEqual(sealed, self.SEALED)
        opened = xchacha.open(self.KEY, self.NONCE, sealed, self.AAD)
        self.assertEqual(opened, self.PLAINTEXT)

    @given(st.binary(max_size=64))
    @settings(max_examples=50, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Bytes that nobody sealed raise L{DecryptError} and nothing else."""
        self.assertRaises(DecryptError, xchacha.open, self.KEY, self.NONCE, data)

    def test_rejected(self) -> None:
        """Other additional data does not open."""
        self.assertRaises(
            DecryptError, xchacha.open, self.KEY, self.NONCE, self.SEALED, b""
        )


class BoxTests(SynchronousTestCase):
    """L{tsrt.crypto.box}."""

    def test_shared(self) -> None:
        """The shared key is that of NaCl's documentation, from both sides."""
        self.assertEqual(Box(ALICE, BOB_PUBLIC).shared, BOX_SHARED)
        self.assertEqual(Box(BOB, ALICE_PUBLIC).shared, BOX_SHARED)

    def test_sealTo(self) -> None:
        """The nonce goes in front, and the other side opens it."""
        alice, bob = Box(ALICE, BOB_PUBLIC), Box(BOB, ALICE_PUBLIC)
        sealed = sealTo(alice, b"hello", lambda count: b"\7" * count)
        self.assertEqual(sealed[:24], b"\7" * 24)
        self.assertEqual(len(sealed), 5 + box.OVERHEAD)
        self.assertEqual(openFrom(bob, sealed), b"hello")

    @given(st.binary(max_size=80))
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Bytes that nobody sealed raise L{DecryptError} and nothing else."""
        self.assertRaises(DecryptError, openFrom, Box(ALICE, BOB_PUBLIC), data)

    def test_rejected(self) -> None:
        """A bit changed anywhere, or anything missing, does not open."""
        pair = Box(ALICE, BOB_PUBLIC)
        sealed = sealTo(pair, b"x", lambda count: bytes(count))
        for at in range(len(sealed)):
            changed = bytearray(sealed)
            changed[at] ^= 1
            self.assertRaises(DecryptError, openFrom, pair, bytes(changed))
            self.assertRaises(DecryptError, openFrom, pair, sealed[:at])

    def test_lowOrder(self) -> None:
        """Public keys that share nothing are refused."""
        for public in LOW_ORDER:
            self.assertRaises(DecryptError, Box, ALICE, public)

    def test_hidden(self) -> None:
        """A box does not show its key."""
        self.assertNotIn("1b2755", repr(Box(ALICE, BOB_PUBLIC)))


class HashTests(SynchronousTestCase):
    """L{tsrt.crypto.hashes}."""

    def test_blake2s(self) -> None:
        """The vector of RFC 7693 appendix B, whole and in parts."""
        expected = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
        self.assertEqual(hashes.blake2s(b"abc").hex(), expected)
        self.assertEqual(hashes.blake2s(b"a", b"", b"bc").hex(), expected)

    def test_hmac(self) -> None:
        """HMAC is RFC 2104's construction, also for keys beyond a block."""
        for key in (b"", b"key", bytes(64), b"\xaa" * 131):
            short = hashes.blake2s(key) if len(key) > 64 else key
            padded = short.ljust(64, b"\0")
            inner = hashes.blake2s(bytes(b ^ 0x36 for b in padded), b"data")
            outer = hashes.blake2s(bytes(b ^ 0x5C for b in padded), inner)
            self.assertEqual(hashes.hmacBlake2s(key, b"data"), outer)

    def test_mac16(self) -> None:
        """The MAC is BLAKE2s with its own key, not a hash cut short."""
        mac = hashes.mac16(bytes(32), b"data")
        self.assertEqual(len(mac), 16)
        self.assertNotEqual(mac, hashes.hmacBlake2s(bytes(32), b"data")[:16])
        self.assertNotEqual(mac, hashes.mac16(b"\1" * 32, b"data"))

    def test_kdf(self) -> None:
        """Asking for more keys does not change the first ones."""
        one, two, three = (hashes.kdf(count, b"ck", b"data") for count in (1, 2, 3))
        self.assertEqual((len(one), len(two), len(three)), (1, 2, 3))
        self.assertEqual(three[:2], two)
        self.assertEqual(two[:1], one)
        self.assertEqual(len(set(three)), 3)
        secret = hashes.hmacBlake2s(b"ck", b"data")
        third = hashes.hmacBlake2s(secret, three[1] + b"\3")
        self.assertEqual(three[2], third)

    def test_x25519(self) -> None:
        """The vectors of RFC 7748 section 6.1."""
        self.assertEqual(hashes.x25519Base(ALICE), ALICE_PUBLIC)
        self.assertEqual(hashes.x25519Base(BOB), BOB_PUBLIC)
        self.assertEqual(hashes.x25519(ALICE, BOB_PUBLIC), SHARED)
        self.assertEqual(hashes.x25519(BOB, ALICE_PUBLIC), SHARED)

    def test_lowOrder(self) -> None:
        """A secret that everybody knows is an error of the wire."""
        for public in LOW_ORDER:
            error = self.assertRaises(DecryptError, hashes.x25519, ALICE, public)
            self.assertIsInstance(error, WireError)

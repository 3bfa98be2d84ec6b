"""
Tests for L{tsrt.keys}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.keys import (
    ChallengePublic,
    DiscoKey,
    DiscoPublic,
    LockKey,
    LockPublic,
    MachineKey,
    MachinePublic,
    NodeKey,
    NodePublic,
    PrivateKey,
    PublicKey,
    Secret,
    clamp,
)

PUBLIC_KINDS = (MachinePublic, NodePublic, DiscoPublic, ChallengePublic, LockPublic)
PRIVATE_KINDS = (MachineKey, NodeKey, DiscoKey)

# RFC 8032 section 7.1, tests 1 and 3.
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]

keyBytes = st.binary(min_size=32, max_size=32)


class PublicKeyTests(SynchronousTestCase):
    """L{PublicKey} and its kinds."""

    @given(st.sampled_from(PUBLIC_KINDS), keyBytes)
    @settings(max_examples=50, deadline=None)
    def test_roundTrip(self, kind: type[PublicKey], raw: bytes) -> None:
        """What a key writes, in either case of digits, it reads again."""
        key = kind(raw)
        self.assertEqual(kind.parse(key.text()), key)
        self.assertEqual(kind.parse(kind.PREFIX + raw.hex().upper()), key)
        self.assertEqual(str(key), key.text())
        self.assertIn(key.text(), repr(key))

    @given(st.sampled_from(PUBLIC_KINDS), st.text())
    @settings(max_examples=200, deadline=None)
    def test_anyText(self, kind: type[PublicKey], text: str) -> None:
        """Text that is no key raises L{WireError} and nothing else."""
        for candidate in (text, kind.PREFIX + text):
            self.assertRaises(WireError, kind.parse, candidate)

    def test_T_badKeys(self) -> None:
        """Wrong prefix, length, digits and white space are rejected."""
        good = "ab" * 32
        for text in (
            good,
            "mkey:" + good,
            "nodekey:" + good[:-1],
            "nodekey:" + good[:-2],
            "nodekey:" + good + "00",
            "nodekey:" + good[:-1] + "g",
            "nodekey:" + good[:-2] + " a",
            "nodekey: " + good[:-1],
            "nodekey:" + good[:-2] + "\u0661\u0661",
            "NODEKEY:" + good,
            "",
        ):
            self.assertRaises(WireError, NodePublic.parse, text)

    def test_wrongLength(self) -> None:
        """Only 32 bytes are a key."""
        for size in (0, 31, 33):
            self.assertRaises(WireError, NodePublic, bytes(size))

    def test_zero(self) -> None:
        """The zero key says that it is absent."""
        self.assertEqual(MachinePublic.zero().text(), "mkey:" + "00" * 32)
        self.assertTrue(MachinePublic.zero().isZero())
        self.assertFalse(MachinePublic(bytes(31) + b"\1").isZero())

    def test_identity(self) -> None:
        """Keys are equal by kind and bytes, and hash alike."""
        raw = bytes(range(32))
        self.assertEqual(NodePublic(raw), NodePublic(bytes(raw)))
        self.assertEqual(len({NodePublic(raw), NodePublic(raw)}), 1)
        self.assertNotEqual(NodePublic(raw), DiscoPublic(raw))
        self.assertNotEqual(NodePublic(raw), raw)

    def test_order(self) -> None:
        """Keys of one kind sort by their bytes; other kinds do not compare."""
        small, large = NodePublic(bytes(32)), NodePublic(bytes(31) + b"\1")
        self.assertEqual(sorted([large, small]), [small, large])
        self.assertTrue(small <= small)
        self.assertTrue(large > small)
        self.assertTrue(large >= small)
        with self.assertRaises(TypeError):
            small < DiscoPublic(bytes(32))  # noqa: B015
        with self.assertRaises(TypeError):
            small <= DiscoPublic(bytes(32))  # noqa: B015

    def test_shortForms(self) -> None:
        """Disco keys have a short form of their own."""
        self.assertEqual(MachinePublic(bytes(32)).short(), "[AAAAA]")
        self.assertEqual(DiscoPublic(bytes(32)).short(), "d:0000000000000000")

    def test_binaryNodeKey(self) -> None:
        """The binary form begins with two letters, which are checked."""
        key = NodePublic(bytes(range(32)))
        self.assertEqual(NodePublic.fromBinary(b"np" + key.raw), key)
        for data in (b"", b"np", b"nq" + key.raw, b"np" + key.raw + b"\0"):
            self.assertRaises(WireError, NodePublic.fromBinary, data)

    def test_lockPrefixes(self) -> None:
        """Lock keys are also read in the form of command lines."""
        key = LockPublic(bytes(range(32)))
        self.assertTrue(key.commandText().startswith("tlpub:"))
        self.assertEqual(LockPublic.parse(key.commandText()), key)
        self.assertRaises(WireError, NodePublic.parse, key.commandText())


class PrivateKeyTests(SynchronousTestCase):
    """L{PrivateKey} and its kinds."""

    def test_rfc7748(self) -> None:
        """Public keys follow as in RFC 7748 section 6.1."""
        private = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
        public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
        self.assertEqual(NodeKey(bytes.fromhex(private)).public().raw.hex(), public)

    def test_kinds(self) -> None:
        """Each private key has the public key of its kind."""
        raw = bytes(range(32))
        publics = [kind(raw).public() for kind in PRIVATE_KINDS]
        self.assertEqual(
            list(map(type, publics)), [MachinePublic, NodePublic, DiscoPublic]
        )
        self.assertEqual({public.raw for public in publics}, {publics[0].raw})
        self.assertIs(type(PrivateKey(raw).public()), PublicKey)

    def test_generate(self) -> None:
        """New keys are clamped and made of the bytes asked for."""
        asked: list[int] = []

        def randbytes(count: int) -> bytes:
            asked.append(count)
            return b"\xff" * count

        key = NodeKey.generate(randbytes)
        self.assertEqual(asked, [32])
        self.assertEqual(key.raw, b"\xf8" + b"\xff" * 30 + b"\x7f")
        self.assertEqual(key.raw, clamp(b"\xff" * 32))

    @given(keyBytes.filter(any))
    @settings(max_examples=25, deadline=None)
    def test_roundTrip(self, raw: bytes) -> None:
        """The text form brings the key back, clamped or not."""
        key = MachineKey(raw)
        self.assertEqual(MachineKey.parse(key.text()), key)
        self.assertEqual(MachineKey.parse(key.text()).raw, raw)

    @given(st.text())
    @settings(max_examples=100, deadline=None)
    def test_anyText(self, text: str) -> None:
        """Text that is no key raises L{WireError}, without quoting it."""
        for candidate in (text, "privkey:" + text):
            self.assertRaises(WireError, NodeKey.parse, candidate)

    def test_badKeys(self) -> None:
        """Wrong lengths, and the absent key, are no private keys."""
        for raw in (b"", bytes(31), bytes(33), bytes(32)):
            self.assertRaises(WireError, NodeKey, raw)

    def test_errorsHideTheText(self) -> None:
        """The error about a mistyped private key does not contain it."""
        error = self.assertRaises(WireError, NodeKey.parse, "privkey:c0ffee")
        self.assertNotIn("c0ffee", str(error))

    def test_R_KEY_1_reprIsRedacted(self) -> None:
        """No way of printing a private key or a secret shows it."""
        raw = bytes(range(1, 33))
        for key in (*(kind(raw) for kind in PRIVATE_KINDS), LockKey(raw)):
            for shown in (repr(key), str(key), f"{key}", repr([key])):
                self.assertNotIn(raw.hex(), shown)
                self.assertNotIn(repr(raw), shown)
                self.assertIn("<redacted>", shown)
                self.assertIn(key.public().short(), shown)

    def test_identity(self) -> None:
        """Private keys are equal by kind and bytes, and hash alike."""
        raw = bytes(range(32))
        self.assertEqual(NodeKey(raw), NodeKey(raw))
        self.assertEqual(len({NodeKey(raw), NodeKey(raw)}), 1)
        self.assertNotEqual(NodeKey(raw), NodeKey(raw[::-1]))
        self.assertNotEqual(NodeKey(raw), DiscoKey(raw))


class LockKeyTests(SynchronousTestCase):
    """L{LockKey}."""

    def test_rfc8032(self) -> None:
        """Keys and signatures are those of RFC 8032."""
        for seed, public, message, signature in RFC8032:
            key = LockKey(bytes.fromhex(seed))
            data = bytes.fromhex(message)
            self.assertEqual(key.public().raw.hex(), public)
            self.assertEqual(key.sign(data).hex(), signature)
            self.assertTrue(key.public().verify(bytes.fromhex(signature), data))

    def test_verifyRejects(self) -> None:
        """A signature of something else, by another, or of a wrong length."""
        key = LockKey.generate(lambda count: b"\7" * count)
        signature = key.sign(b"data")
        public = key.public()
        self.assertFalse(public.verify(signature, b"date"))
        self.assertFalse(public.verify(signature[:-1], b"data"))
        self.assertFalse(public.verify(b"", b"data"))
        self.assertFalse(public.verify(bytes(64), b"data"))
        self.assertFalse(LockPublic(bytes(32)).verify(signature, b"data"))

    def test_roundTrip(self) -> None:
        """The text form has 128 digits and brings the key back."""
        key = LockKey(bytes(range(32)))
        self.assertEqual(len(key.text()), len("nlpriv:") + 128)
        self.assertEqual(LockKey.parse(key.text()), key)
        self.assertEqual(len({key, LockKey.parse(key.text())}), 1)
        self.assertNotEqual(key, LockKey(bytes(32)))
        self.assertNotEqual(key, object())

    def test_badKeys(self) -> None:
        """Wrong lengths and halves that do not belong together."""
        raw = bytes.fromhex(LockKey(bytes(32)).text().removeprefix("nlpriv:"))
        self.assertRaises(WireError, LockKey, bytes(31))
        self.assertRaises(WireError, LockKey.fromRaw, raw[:-1])
        self.assertRaises(WireError, LockKey.fromRaw, raw[:-1] + b"\0")
        self.assertRaises(WireError, LockKey.parse, "nlpriv:00")


class SecretTests(SynchronousTestCase):
    """L{Secret}."""

    def test_hidden(self) -> None:
        """A secret shows itself only to who asks for it."""
        secret = Secret("tskey-auth-x")
        self.assertEqual(secret.reveal(), "tskey-auth-x")
        self.assertNotIn("tskey", f"{secret} {secret!r} {[secret]}")
        self.assertTrue(secret)
        self.assertFalse(Secret(""))

    def test_identity(self) -> None:
        """Secrets compare by their text."""
        self.assertEqual(Secret("ü"), Secret("ü"))
        self.assertEqual(len({Secret("a"), Secret("a"), Secret("b")}), 2)
        self.assertNotEqual(Secret("a"), Secret("b"))
        self.assertNotEqual(Secret("a"), "a")

"""
Vectors of the tailnet lock.
"""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from tsrt.crypto import zip215
from tsrt.crypto.argon2i import disablementValue
from tsrt.keys import (
    LockKey,
    NodePublic,
)
from tsrt.test.vectorfile import VECTORS, covers, hexa
from tsrt.wire.nodesignature import (
    NodeKeySignature,
    SignatureKind,
    authorize,
    rotate,
)
from tsrt.wire.tka import AUM, AUMKind, Key, State, formatHash, parseHash


class LockVectors(SynchronousTestCase):
    """The tailnet lock."""

    def keys(self) -> tuple[LockKey, LockKey]:
        """The two keys of the vectors."""
        first = LockKey(hexa(VECTORS["tka_aum"]["signer_seed"]))
        second = LockKey(hashlib.sha256(b"tsrt-vector:tka-2").digest())
        return first, second

    @covers("tka_disablement_kdf")
    def test_disablement(self) -> None:
        """The value that a secret comes to."""
        vector = VECTORS["tka_disablement_kdf"]
        value = disablementValue(hexa(vector["secret"]))
        self.assertEqual(value.hex(), vector["value"])

    @covers("tka_aum")
    def test_genesis(self) -> None:
        """The first message of a chain, built and read."""
        vector = VECTORS["tka_aum"]
        first, _ = self.keys()
        self.assertEqual(first.public().raw.hex(), vector["signer_public"])
        trusted = Key(first.public().raw)
        value = hexa(VECTORS["tka_disablement_kdf"]["value"])
        state = State((trusted,), (value,))
        genesis = AUM(AUMKind.CHECKPOINT, state=state).signed(first)
        self.check(genesis, state, "genesis")
        parsed = AUM.decode(hexa(vector["genesis_cbor"]))
        self.assertEqual(parsed, genesis)

    @covers("tka_aum")
    def test_addKey(self) -> None:
        """The message that adds a key, built and read."""
        vector = VECTORS["tka_aum"]
        first, second = self.keys()
        genesis = AUM.decode(hexa(vector["genesis_cbor"]))
        addition = AUM(
            AUMKind.ADD_KEY,
            previous=genesis.hash(),
            key=Key(second.public().raw, votes=2, meta={"purpose": "test", "a": "b"}),
        ).signed(first)
        assert genesis.state is not None
        parsed = AUM.decode(hexa(vector["addkey_cbor"]))
        self.check(parsed, genesis.state, "addkey")
        self.assertEqual(parsed.previous, genesis.hash())
        self.assertEqual(parsed.kind, AUMKind.ADD_KEY)
        self.assertEqual(addition.encode().hex(), vector["addkey_cbor"], "built by us")

    def check(self, message: AUM, state: State, name: str) -> None:
        """Encoding, both hashes, and signatures."""
        vector = VECTORS["tka_aum"]
        self.assertEqual(message.encode().hex(), vector[f"{name}_cbor"])
        self.assertEqual(message.sigHash().hex(), vector[f"{name}_sighash"])
        self.assertEqual(formatHash(message.hash()), vector[f"{name}_hash_text"])
        self.assertEqual(parseHash(vector[f"{name}_hash_text"]), message.hash())
        message.validate()
        message.verifySignatures(state, zip215.verify)

    @covers("nks_direct")
    def test_direct(self) -> None:
        """A signature by a trusted key."""
        vector = VECTORS["nks_direct"]
        first, _ = self.keys()
        self.assertEqual(first.public().raw.hex(), vector["trusted_key_public"])
        node = NodePublic.parse(vector["node_public"])
        signature = NodeKeySignature(
            SignatureKind.DIRECT,
            publicKey=node.binary(),
            keyID=first.public().raw,
            wrappingKey=hexa(vector["wrapping_public"]),
        )
        self.assertEqual(signature.sigHash().hex(), vector["sighash"])
        signature = signature.signed(first)
        self.assertEqual(signature.encode().hex(), vector["cbor"])
        trusted = {first.public().raw: Key(first.public().raw)}
        self.assertEqual(
            authorize(node, hexa(vector["cbor"]), trusted.get, zip215.verify), signature
        )

    @covers("nks_rotation")
    def test_rotation(self) -> None:
        """A node signs its next key itself."""
        vector = VECTORS["nks_rotation"]
        first, _ = self.keys()
        wrapping = LockKey(hexa(vector["wrapping_seed"]))
        node = NodePublic.parse(vector["node_public"])
        rotated = rotate(hexa(VECTORS["nks_direct"]["cbor"]), node, wrapping)
        self.assertEqual(rotated.hex(), vector["cbor"])
        trusted = {first.public().raw: Key(first.public().raw)}
        signature = authorize(node, rotated, trusted.get, zip215.verify)
        self.assertEqual(signature.sigHash().hex(), vector["sighash"])
        old = NodePublic.parse(VECTORS["nks_direct"]["node_public"])
        self.assertEqual(signature.previousKeys(), [old.binary()])

"""
The values of the tailnet lock: keys, states and authority update messages.

An authority update message (AUM) is one link of a chain that says which keys
may sign node keys.  Each names its parent by hash and is signed by keys that
the state before it trusts.  Here are the values, their encodings, hashes and
signatures and the checks that need no other message; following the chain is
not done here.

A tailnet that is not locked has none of these.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Callable, Iterable, Mapping

from attrs import evolve, field, frozen

from tsrt.errors import WireError
from tsrt.keys import KEY_LENGTH, SIGNATURE_LENGTH, LockKey
from tsrt.wire.cbor import CBORValue, decode, encode
from tsrt.wire.tkafields import (
    array,
    asFields,
    asOctets,
    octets,
    optionalOctets,
    optionalUnsigned,
    texts,
    unsigned,
)

HASH_LENGTH = 32
KEY_ED25519 = 1
"""The only kind of key there is."""

MAX_VOTES = 4096
MAX_META = 512
"""Bytes of all names and values of the metadata of a key."""

MAX_KEYS = 512
"""Keys of the largest state."""

MAX_DISABLEMENT_VALUES = 32

Verifier = Callable[[bytes, bytes, bytes], bool]
"""
Whether a public key made a signature of some data, in this order.

Signatures of trusted keys are checked by the rules of ZIP-215, which are not
those of other Ed25519 signatures; the function is handed in.
"""


def lockHash(data: bytes) -> bytes:
    """The hash that the lock uses throughout; 32 bytes."""
    return hashlib.blake2s(data).digest()


def formatHash(digest: bytes) -> str:
    """The text form of a hash: 52 letters and digits of base 32."""
    return base64.b32encode(digest).decode("ascii").rstrip("=")


def parseHash(text: str) -> bytes:
    """
    Read the text form of a hash.

    @raise WireError: if it is not one.
    """
    try:
        digest = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        raise WireError("a hash of the tailnet lock is not base 32") from None
    if len(digest) != HASH_LENGTH or formatHash(digest) != text:
        raise WireError("a hash of the tailnet lock has another length")
    return digest


def _freezeMeta(
    meta: Mapping[str, str] | Iterable[tuple[str, str]],
) -> tuple[tuple[str, str], ...]:
    """Metadata in a form that can be hashed and compared."""
    pairs = meta.items() if isinstance(meta, Mapping) else meta
    return tuple(sorted(pairs))


def _metaMap(meta: tuple[tuple[str, str], ...]) -> dict[str, CBORValue]:
    """Metadata as a CBOR map."""
    return dict(meta)


@frozen
class Key:
    """A key that the lock trusts."""

    public: bytes
    """The public key; it is also the identifier of the key."""

    votes: int = 1
    """The weight of the key when the chain forks, from 1 to 4096."""

    meta: tuple[tuple[str, str], ...] = field(default=(), converter=_freezeMeta)
    """Names and values for people; made from a mapping or pairs."""

    kind: int = KEY_ED25519

    @property
    def keyID(self) -> bytes:
        """What signatures name this key by."""
        return self.public

    def toCBOR(self) -> dict[int, CBORValue]:
        """The CBOR map."""
        members: dict[int, CBORValue] = {1: self.kind, 2: self.votes, 3: self.public}
        if self.meta:
            members[12] = _metaMap(self.meta)
        return members

    @classmethod
    def fromCBOR(cls, value: CBORValue) -> Key:
        """
        Read the CBOR map; what it says may still not be valid.

        @raise WireError: if it is not a key.
        """
        fields = asFields(value, "tailnet lock key")
        return cls(
            kind=unsigned(fields, 1, "the kind of a key"),
            votes=unsigned(fields, 2, "the votes of a key"),
            public=asOctets(fields.get(3)),
            meta=texts(fields, 12, "the metadata of a key"),
        )

    def validate(self) -> None:
        """
        Check what the key says by itself.

        @raise WireError: if a rule is broken.
        """
        if self.kind != KEY_ED25519:
            raise WireError(f"a tailnet lock key has the unknown kind {self.kind}")
        if len(self.public) != KEY_LENGTH:
            raise WireError("a tailnet lock key does not have 32 bytes")
        if not 1 <= self.votes <= MAX_VOTES:
            raise WireError(f"a tailnet lock key has {self.votes} votes")
        if _metaSize(self.meta) > MAX_META:
            raise WireError("the metadata of a tailnet lock key is too large")

    def verify(self, signature: bytes, data: bytes, verifier: Verifier) -> bool:
        """
        Whether C{signature} is this key's signature of C{data}.

        @param verifier: L{tsrt.crypto.zip215.verify}.
        """
        return self.kind == KEY_ED25519 and verifier(self.public, signature, data)


def _metaSize(meta: tuple[tuple[str, str], ...]) -> int:
    """Bytes of all names and values."""
    return sum(len(name.encode()) + len(value.encode()) for name, value in meta)


@frozen
class State:
    """Which keys are trusted after some message of the chain."""

    keys: tuple[Key, ...]

    disablementValues: tuple[bytes, ...]
    """What the secrets that switch the lock off come to; 32 bytes each."""

    lastHash: bytes | None = None
    """The hash of the last message applied; C{None} inside a checkpoint."""

    stateID1: int = 0
    """With L{stateID2}, which lock this is; random, and never changes."""

    stateID2: int = 0

    def toCBOR(self) -> dict[int, CBORValue]:
        """The CBOR map."""
        members: dict[int, CBORValue] = {
            1: self.lastHash,
            2: self.disablementValues,
            3: [key.toCBOR() for key in self.keys],
        }
        if self.stateID1:
            members[4] = self.stateID1
        if self.stateID2:
            members[5] = self.stateID2
        return members

    @classmethod
    def fromCBOR(cls, value: CBORValue) -> State:
        """
        Read the CBOR map; what it says may still not be valid.

        @raise WireError: if it is not a state.
        """
        fields = asFields(value, "tailnet lock state")
        lastHash = optionalOctets(fields, 1, "the last hash of a state")
        if lastHash is not None and len(lastHash) != HASH_LENGTH:
            raise WireError("the last hash of a state does not have 32 bytes")
        return cls(
            lastHash=lastHash,
            disablementValues=array(fields, 2, asOctets, "disablement values"),
            keys=array(fields, 3, Key.fromCBOR, "the keys of a state"),
            stateID1=unsigned(fields, 4, "a state ID"),
            stateID2=unsigned(fields, 5, "a state ID"),
        )

    def key(self, keyID: bytes) -> Key | None:
        """The trusted key of that identifier, if there is one."""
        for key in self.keys:
            if key.keyID == keyID:
                return key
        return None

    def validateCheckpoint(self) -> None:
        """
        Check what a state must be to stand in a checkpoint.

        @raise WireError: if a rule is broken.
        """
        if self.lastHash is not None:
            raise WireError("the state of a checkpoint names a last hash")
        values = self.disablementValues
        if not 1 <= len(values) <= MAX_DISABLEMENT_VALUES:
            raise WireError(f"a checkpoint has {len(values)} disablement values")
        if len(set(values)) != len(values):
            raise WireError("a checkpoint has a disablement value twice")
        if any(len(value) != HASH_LENGTH for value in values):
            raise WireError("a disablement value does not have 32 bytes")
        if not 1 <= len(self.keys) <= MAX_KEYS:
            raise WireError(f"a checkpoint has {len(self.keys)} keys")
        if len({key.keyID for key in self.keys}) != len(self.keys):
            raise WireError("a checkpoint has a key twice")
        for key in self.keys:
            key.validate()


@frozen
class LockSignature:
    """Who signed a message of the chain."""

    keyID: bytes
    """32 bytes."""

    signature: bytes
    """64 bytes."""

    def toCBOR(self) -> dict[int, CBORValue]:
        """The CBOR map."""
        return {1: self.keyID, 2: self.signature}

    @classmethod
    def fromCBOR(cls, value: CBORValue) -> LockSignature:
        """
        Read the CBOR map.

        @raise WireError: if it is not a signature.
        """
        fields = asFields(value, "tailnet lock signature")
        return cls(asOctets(fields.get(1)), asOctets(fields.get(2)))


class AUMKind(enum.IntEnum):
    """What a message does; unknown kinds do nothing."""

    INVALID = 0
    ADD_KEY = 1
    REMOVE_KEY = 2
    NO_OP = 3
    UPDATE_KEY = 4
    CHECKPOINT = 5


@frozen
class AUM:
    """An authority update message: one link of the chain."""

    kind: int
    """One of L{AUMKind}, or a newer one."""

    previous: bytes | None = None
    """The hash of the parent; C{None} for the first message."""

    key: Key | None = None
    """What L{AUMKind.ADD_KEY} adds."""

    keyID: bytes = b""
    """Which key is removed or updated."""

    state: State | None = None
    """What a checkpoint sets."""

    votes: int | None = None
    """The new votes of an updated key."""

    meta: tuple[tuple[str, str], ...] = field(default=(), converter=_freezeMeta)
    """The new metadata of an updated key."""

    signatures: tuple[LockSignature, ...] = ()

    def _unsigned(self) -> dict[int, CBORValue]:
        """The CBOR map without the signatures."""
        members: dict[int, CBORValue] = {1: self.kind, 2: self.previous}
        if self.key is not None:
            members[3] = self.key.toCBOR()
        if self.keyID:
            members[4] = self.keyID
        if self.state is not None:
            members[5] = self.state.toCBOR()
        if self.votes is not None:
            members[6] = self.votes
        if self.meta:
            members[7] = _metaMap(self.meta)
        return members

    def encode(self) -> bytes:
        """The encoding with all signatures."""
        members = self._unsigned()
        if self.signatures:
            members[23] = [signature.toCBOR() for signature in self.signatures]
        return encode(members)

    @classmethod
    def decode(cls, data: bytes) -> AUM:
        """
        Read an encoding; what it says may still not be valid.

        @raise WireError: if it is not a message of the chain, or one that we
            would write differently, so that its hash would be in doubt.
        """
        fields = asFields(decode(data), "tailnet lock message")
        key, state = fields.get(3), fields.get(5)
        message = cls(
            kind=unsigned(fields, 1, "the kind of a message"),
            previous=optionalOctets(fields, 2, "the parent of a message"),
            key=None if key is None else Key.fromCBOR(key),
            keyID=octets(fields, 4, "the key ID of a message"),
            state=None if state is None else State.fromCBOR(state),
            votes=optionalUnsigned(fields, 6, "the votes of a message"),
            meta=texts(fields, 7, "the metadata of a message"),
            signatures=array(fields, 23, LockSignature.fromCBOR, "signatures"),
        )
        if message.encode() != data:
            raise WireError("a tailnet lock message has members it must not have")
        return message

    def hash(self) -> bytes:
        """What the next message names this one by."""
        return lockHash(self.encode())

    def sigHash(self) -> bytes:
        """What the signatures sign."""
        return lockHash(encode(self._unsigned()))

    def signed(self, key: LockKey) -> AUM:
        """This message with one more signature."""
        signature = LockSignature(key.public().raw, key.sign(self.sigHash()))
        return evolve(self, signatures=(*self.signatures, signature))

    def verifySignatures(self, state: State, verifier: Verifier) -> None:
        """
        Check that there are signatures, that each is valid, and that each is
        of a key that C{state} trusts.

        @param verifier: L{tsrt.crypto.zip215.verify}.
        @raise WireError: if not.
        """
        if not self.signatures:
            raise WireError("a tailnet lock message is not signed")
        digest = self.sigHash()
        for signature in self.signatures:
            key = state.key(signature.keyID)
            if key is None:
                raise WireError("a tailnet lock message is signed by an unknown key")
            if not key.verify(signature.signature, digest, verifier):
                raise WireError("a signature of a tailnet lock message is wrong")

    def validate(self) -> None:
        """
        Check what the message says by itself; signatures only for their form.

        @raise WireError: if a rule is broken.
        """
        if self.kind == AUMKind.INVALID:
            raise WireError("a tailnet lock message has no kind")
        if self.previous is not None and len(self.previous) != HASH_LENGTH:
            raise WireError("the parent of a tailnet lock message is not a hash")
        for signature in self.signatures:
            if (
                len(signature.keyID) != KEY_LENGTH
                or len(signature.signature) != SIGNATURE_LENGTH
            ):
                raise WireError("a tailnet lock signature has a wrong length")
        if self.key is not None:
            self.key.validate()
        if self.state is not None:
            self.state.validateCheckpoint()
        rule = _CONTENTS.get(self.kind)
        if rule is not None and self._contents() not in rule:
            raise WireError(
                f"a tailnet lock message of kind {self.kind} does not have "
                "the members of its kind"
            )

    def _contents(self) -> frozenset[str]:
        """Which members that only some kinds have are there."""
        present = {
            "key": self.key is not None,
            "keyID": bool(self.keyID),
            "state": self.state is not None,
            "votes": self.votes is not None,
            "meta": bool(self.meta),
        }
        return frozenset(name for name, there in present.items() if there)


_CONTENTS: Mapping[int, list[frozenset[str]]] = {
    AUMKind.ADD_KEY: [frozenset({"key"})],
    AUMKind.REMOVE_KEY: [frozenset({"keyID"})],
    AUMKind.UPDATE_KEY: [
        frozenset({"keyID", "votes"}),
        frozenset({"keyID", "meta"}),
        frozenset({"keyID", "votes", "meta"}),
    ],
    AUMKind.CHECKPOINT: [frozenset({"state"})],
}

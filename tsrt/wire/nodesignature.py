"""
Signatures of the tailnet lock over node keys, and how they rotate.

A I{direct} signature is made by a key that the lock trusts.  It may name a
I{wrapping} key, with which a node signs its next node key itself: a
I{rotation}, which carries the earlier signature inside.  A I{credential}
names a wrapping key alone; it comes with an auth key and is good only inside a
rotation.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Callable

from attrs import evolve, frozen

from tsrt.errors import WireError
from tsrt.keys import KEY_LENGTH, LockKey, LockPublic, NodePublic
from tsrt.wire.cbor import MAX_NESTING, CBORValue, decode, encode
from tsrt.wire.tka import Key, Verifier, lockHash
from tsrt.wire.tkafields import asFields, octets, unsigned

MAX_CHAIN = MAX_NESTING
"""Signatures that may lie in one another, for their encoding to be readable."""

_WRAPPED_SEPARATOR = "--TL"


class SignatureKind(enum.IntEnum):
    """How a signature came about."""

    DIRECT = 1
    ROTATION = 2
    CREDENTIAL = 3


@frozen
class NodeKeySignature:
    """A signature over a node key, or over a wrapping key alone."""

    kind: int
    """One of L{SignatureKind}; others never verify."""

    publicKey: bytes = b""
    """The node key in its binary form of 34 bytes; none in a credential."""

    keyID: bytes = b""
    """Which trusted key signed; none in a rotation."""

    signature: bytes = b""
    """64 bytes."""

    nested: NodeKeySignature | None = None
    """What a rotation replaces."""

    wrappingKey: bytes = b""
    """The Ed25519 key that may sign a rotation of this, if any may."""

    def toCBOR(self, withSignature: bool = True) -> dict[int, CBORValue]:
        """The CBOR map, if need be without the outermost signature."""
        members: dict[int, CBORValue] = {1: self.kind}
        if self.publicKey:
            members[2] = self.publicKey
        if self.keyID:
            members[3] = self.keyID
        if self.signature and withSignature:
            members[4] = self.signature
        if self.nested is not None:
            members[5] = self.nested.toCBOR()
        if self.wrappingKey:
            members[6] = self.wrappingKey
        return members

    @classmethod
    def fromCBOR(cls, value: CBORValue) -> NodeKeySignature:
        """
        Read the CBOR map; it need not be valid.

        @raise WireError: if it is not a signature over a node key.
        """
        fields = asFields(value, "node key signature")
        nested = fields.get(5)
        return cls(
            kind=unsigned(fields, 1, "the kind of a signature"),
            publicKey=octets(fields, 2, "the node key of a signature"),
            keyID=octets(fields, 3, "the key ID of a signature"),
            signature=octets(fields, 4, "a signature"),
            nested=None if nested is None else cls.fromCBOR(nested),
            wrappingKey=octets(fields, 6, "the wrapping key of a signature"),
        )

    def encode(self) -> bytes:
        """
        The encoding.

        @raise WireError: if more than L{MAX_CHAIN} lie in one another.
        """
        return encode(self.toCBOR())

    @classmethod
    def decode(cls, data: bytes) -> NodeKeySignature:
        """
        Read an encoding; it need not be valid.

        @raise WireError: if it is not a signature over a node key, or one that
            we would write differently.
        """
        signature = cls.fromCBOR(decode(data))
        if signature.encode() != data:
            raise WireError("a node key signature has members it must not have")
        return signature

    def sigHash(self) -> bytes:
        """What the outermost signature signs."""
        return lockHash(encode(self.toCBOR(withSignature=False)))

    def signed(self, key: LockKey) -> NodeKeySignature:
        """This with the signature of C{key} in place of any other."""
        return evolve(self, signature=key.sign(self.sigHash()))

    def chain(self) -> list[NodeKeySignature]:
        """This and what lies in it, from the newest to the first."""
        links = [self]
        while links[-1].nested is not None:
            links.append(links[-1].nested)
        return links

    def previousKeys(self) -> list[bytes]:
        """
        The node keys that this replaces, newest first, in binary form; once
        this is valid, they are obsolete.
        """
        return [link.publicKey for link in self.chain()[1:] if link.publicKey]

    def authorizingKeyID(self) -> bytes:
        """
        Which trusted key this rests on.

        @raise WireError: if it rests on none.
        """
        for link in self.chain():
            if link.kind != SignatureKind.ROTATION:
                break
        if link.kind not in (SignatureKind.DIRECT, SignatureKind.CREDENTIAL):
            raise WireError("a node key signature does not begin with a trusted key")
        if not link.keyID:
            raise WireError("a node key signature names no trusted key")
        return link.keyID

    def rotationKey(self) -> LockPublic:
        """
        The key that may sign a rotation of this.

        @raise WireError: if none may.
        """
        for link in self.chain():
            if link.wrappingKey:
                return LockPublic(link.wrappingKey)
            if link.kind != SignatureKind.ROTATION:
                break
        raise WireError("a node key signature names no wrapping key")

    def verify(self, nodeKey: NodePublic, trusted: Key, verifier: Verifier) -> None:
        """
        Check that this authorises C{nodeKey}.

        @param trusted: the key that L{authorizingKeyID} names.
        @param verifier: L{tsrt.crypto.zip215.verify}, for the signature of the
            trusted key; nodes' own rotations follow the common rules.
        @raise WireError: if it does not.
        """
        self._verify(nodeKey.binary(), trusted, verifier)

    def _verify(self, nodeKey: bytes, trusted: Key, verifier: Verifier) -> None:
        if self.kind != SignatureKind.CREDENTIAL and self.publicKey != nodeKey:
            raise WireError("a node key signature is over another node key")
        digest = self.sigHash()
        if self.kind == SignatureKind.ROTATION:
            if self.nested is None:
                raise WireError("a rotated node key signature lacks the earlier one")
            if not self.nested.rotationKey().verify(self.signature, digest):
                raise WireError("a rotated node key signature is wrong")
            self.nested._verify(self.nested.publicKey, trusted, verifier)
            return
        if self.kind not in (SignatureKind.DIRECT, SignatureKind.CREDENTIAL):
            raise WireError(f"a node key signature has the unknown kind {self.kind}")
        if self.nested is not None:
            raise WireError("a direct node key signature has another inside")
        if not trusted.verify(self.signature, digest, verifier):
            raise WireError("a node key signature is wrong")


def authorize(
    nodeKey: NodePublic,
    data: bytes,
    trusted: Callable[[bytes], Key | None],
    verifier: Verifier,
) -> NodeKeySignature:
    """
    Check that an encoded signature lets a node into the tailnet.

    @param data: the encoding.
    @param trusted: finds a trusted key by its identifier.
    @param verifier: L{tsrt.crypto.zip215.verify}.
    @return: the signature.
    @raise WireError: if it does not.
    """
    signature = NodeKeySignature.decode(data)
    if signature.kind == SignatureKind.CREDENTIAL:
        raise WireError("a credential alone does not authorise a node")
    key = trusted(signature.authorizingKeyID())
    if key is None:
        raise WireError("a node key signature rests on a key that is not trusted")
    signature.verify(nodeKey, key, verifier)
    return signature


def rotate(old: bytes, nodeKey: NodePublic, key: LockKey) -> bytes:
    """
    Sign a new node key by means of the signature over the old one.

    @param old: the encoding of the signature over the old node key.
    @param nodeKey: the new node key.
    @param key: the private half of the wrapping key of C{old}.
    @return: the encoding of the new signature; C{old} itself if it is over
        C{nodeKey} already.
    @raise WireError: if C{old} is not a signature over a node key.
    """
    earlier = NodeKeySignature.decode(old)
    if earlier.publicKey == nodeKey.binary():
        return old
    return _wrap(_trim(earlier, key), nodeKey.binary(), key).encode()


def _wrap(nested: NodeKeySignature, publicKey: bytes, key: LockKey) -> NodeKeySignature:
    """A signed rotation."""
    kind = SignatureKind.ROTATION
    return NodeKeySignature(kind, publicKey, nested=nested).signed(key)


def _trim(signature: NodeKeySignature, key: LockKey) -> NodeKeySignature:
    """
    C{signature}, if one more can go around it; else as many of its newest
    rotations as leave room, made anew around its first signature.
    """
    links = signature.chain()
    if len(links) < MAX_CHAIN:
        return signature
    trimmed = links.pop()
    for link in reversed(links[: MAX_CHAIN - 2]):
        trimmed = _wrap(trimmed, link.publicKey, key)
    return trimmed


@frozen
class WrappedAuthKey:
    """An auth key together with the means to sign the node that uses it."""

    authKey: str
    """What the control server is told."""

    credential: NodeKeySignature
    key: LockKey
    """Signs a rotation of the credential."""

    def __repr__(self) -> str:
        return f"<WrappedAuthKey <redacted>, public {self.key.public().short()}>"

    def sign(self, nodeKey: NodePublic) -> bytes:
        """The encoding of a signature over C{nodeKey}."""
        return _wrap(self.credential, nodeKey.binary(), self.key).encode()


def parseWrappedAuthKey(text: str) -> WrappedAuthKey | None:
    """
    Take an auth key of a locked tailnet apart.

    @return: the parts, or C{None} if C{text} is an ordinary auth key.
    @raise WireError: if it looks like one but is not; the text is a secret and
        not quoted.
    """
    authKey, separator, rest = text.partition(_WRAPPED_SEPARATOR)
    if not separator:
        return None
    credentialText, dash, keyText = rest.partition("-")
    if not dash:
        raise WireError("a wrapped auth key is cut short")
    credential = NodeKeySignature.decode(_decodeBase64(credentialText))
    if credential.kind != SignatureKind.CREDENTIAL:
        raise WireError("a wrapped auth key does not hold a credential")
    key = LockKey.fromRaw(_decodeBase64(keyText))
    if len(credential.wrappingKey) != KEY_LENGTH:
        raise WireError("the credential of a wrapped auth key names no key")
    return WrappedAuthKey(authKey, credential, key)


def _decodeBase64(text: str) -> bytes:
    """Standard base 64 without padding."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise WireError("a wrapped auth key is not base 64") from None

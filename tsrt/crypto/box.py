"""
NaCl boxes, with the shared key computed once for each pair of keys.

Disco messages and the DERP login are boxes: X25519, XSalsa20, Poly1305, with
the tag in front of the ciphertext.
"""

from __future__ import annotations

from collections.abc import Callable

from nacl.bindings import (
    crypto_box_beforenm,
    crypto_box_easy_afternm,
    crypto_box_open_easy_afternm,
)
from nacl.exceptions import CryptoError

from tsrt.errors import DecryptError

NONCE_LENGTH = 24
"""Bytes of a nonce; long enough to be random."""

TAG_LENGTH = 16
"""Bytes that a box adds, its nonce not counted."""

OVERHEAD = NONCE_LENGTH + TAG_LENGTH
"""Bytes that L{sealTo} adds."""


class Box:
    """What one private and one public key can seal for each other."""

    __slots__ = ("_shared",)

    def __init__(self, privateRaw: bytes, publicRaw: bytes) -> None:
        """
        @param privateRaw: our 32 secret bytes.
        @param publicRaw: the 32 bytes of the other's public key.
        @raise DecryptError: if the public key is a point of low order, which
            shares nothing with anybody.
        """
        try:
            self._shared: bytes = crypto_box_beforenm(publicRaw, privateRaw)
        except CryptoError:
            raise DecryptError("a public key has low order") from None

    @property
    def shared(self) -> bytes:
        """The shared secret key."""
        return self._shared

    def seal(self, nonce: bytes, plaintext: bytes) -> bytes:
        """
        Seal one message.

        @param nonce: 24 bytes, never twice for one pair of keys.
        """
        sealed: bytes = crypto_box_easy_afternm(plaintext, nonce, self._shared)
        return sealed

    def open(self, nonce: bytes, boxed: bytes) -> bytes:
        """
        Open one message.

        @raise DecryptError: if it was not sealed with these keys and nonce.
        """
        if len(boxed) < TAG_LENGTH or len(nonce) != NONCE_LENGTH:
            raise DecryptError("a box is cut short")
        try:
            opened: bytes = crypto_box_open_easy_afternm(boxed, nonce, self._shared)
        except CryptoError:
            raise DecryptError("a box does not open") from None
        return opened


def sealTo(box: Box, plaintext: bytes, randbytes: Callable[[int], bytes]) -> bytes:
    """
    Seal one message under a random nonce, which goes in front.

    @param randbytes: the source of random bytes.
    """
    nonce = randbytes(NONCE_LENGTH)
    return nonce + box.seal(nonce, plaintext)


def openFrom(box: Box, data: bytes) -> bytes:
    """
    Open what L{sealTo} made.

    @raise DecryptError: if it is too short or was not sealed with these keys.
    """
    return box.open(data[:NONCE_LENGTH], data[NONCE_LENGTH:])

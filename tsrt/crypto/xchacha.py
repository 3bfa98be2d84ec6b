"""
XChaCha20-Poly1305, for WireGuard's cookie replies.

Reference: draft-irtf-cfrg-xchacha-03.
"""

from __future__ import annotations

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from tsrt.errors import DecryptError

NONCE_LENGTH = 24
"""Bytes of a nonce; long enough to be random."""

TAG_LENGTH = 16
"""Bytes that sealing adds."""


def seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes = b"") -> bytes:
    """
    Seal one message.

    @param key: 32 secret bytes.
    @param nonce: 24 bytes, never twice for one key.
    @param aad: what the tag covers besides the message.
    """
    return crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)


def open(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes = b"") -> bytes:
    """
    Open one message.

    @raise DecryptError: if it was not sealed with the same arguments.
    """
    if len(ciphertext) < TAG_LENGTH:
        raise DecryptError("a sealed message is cut short")
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, aad, nonce, key)
    except CryptoError:
        raise DecryptError("a sealed message does not open") from None

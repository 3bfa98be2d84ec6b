"""
The hash functions and the Diffie-Hellman function of the Noise handshakes.

Reference: RFC 7693 (BLAKE2), RFC 2104 (HMAC), RFC 5869 (HKDF), RFC 7748
(X25519).
"""

from __future__ import annotations

import hashlib
import hmac

from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from tsrt.errors import DecryptError

HASH_LENGTH = 32
"""Bytes of a BLAKE2s hash."""

MAC_LENGTH = 16
"""Bytes of L{mac16}."""

_ONE = b"\x01"
_TWO = b"\x02"
_THREE = b"\x03"


def blake2s(*parts: bytes) -> bytes:
    """The 32-byte BLAKE2s hash of the parts, one after the other."""
    return hashlib.blake2s(b"".join(parts)).digest()


def hmacBlake2s(key: bytes, data: bytes) -> bytes:
    """HMAC with BLAKE2s; 32 bytes."""
    return hmac.digest(key, data, "blake2s")


def mac16(key: bytes, data: bytes) -> bytes:
    """
    BLAKE2s with its own key, cut to 16 bytes; not an HMAC.

    @param key: up to 32 bytes.
    """
    return hashlib.blake2s(data, key=key, digest_size=MAC_LENGTH).digest()


def kdf(count: int, chainingKey: bytes, data: bytes) -> tuple[bytes, ...]:
    """
    Derive one to three keys of 32 bytes (HKDF with no info).

    @param count: how many keys.
    @param chainingKey: the salt of HKDF.
    @param data: the input key material.
    """
    secret = hmacBlake2s(chainingKey, data)
    first = hmacBlake2s(secret, _ONE)
    if count == 1:
        return (first,)
    second = hmacBlake2s(secret, first + _TWO)
    if count == 2:
        return (first, second)
    return (first, second, hmacBlake2s(secret, second + _THREE))


def x25519(private: bytes, public: bytes) -> bytes:
    """
    The secret that a private and a public key share.

    @raise DecryptError: if it is all zeros, because the public key has low
        order.
    """
    try:
        return crypto_scalarmult(private, public)
    except CryptoError:
        raise DecryptError("a public key has low order") from None


def x25519Base(private: bytes) -> bytes:
    """The public key of a private one."""
    return crypto_scalarmult_base(private)

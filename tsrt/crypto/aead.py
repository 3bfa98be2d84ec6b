"""
ChaCha20-Poly1305 with a message counter as its nonce.

WireGuard counts in little-endian order, the control connection in big-endian
order; both put four zero bytes in front.

Reference: RFC 8439.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tsrt.errors import DecryptError

TAG_LENGTH = 16
"""Bytes that sealing adds."""

_LITTLE_ENDIAN = struct.Struct("<4xQ")
_BIG_ENDIAN = struct.Struct(">4xQ")


class CounterCipher:
    """One key, for messages that are numbered from zero."""

    __slots__ = ("_decrypt", "_encrypt", "_nonce")

    def __init__(self, key: bytes, bigEndian: bool = False) -> None:
        """
        @param key: the 32 secret bytes.
        @param bigEndian: the byte order of the counter in the nonce.
        """
        # The object of the library is costly to make and is kept.
        cipher = ChaCha20Poly1305(key)
        self._encrypt = cipher.encrypt
        self._decrypt = cipher.decrypt
        self._nonce = (_BIG_ENDIAN if bigEndian else _LITTLE_ENDIAN).pack

    def seal(self, counter: int, plaintext: bytes, aad: bytes = b"") -> bytes:
        """
        Seal one message.

        @param counter: below 2**64, and never twice for one key.
        @param aad: what the tag covers besides the message.
        @return: as many bytes as C{plaintext}, and the tag.
        """
        return self._encrypt(self._nonce(counter), plaintext, aad)

    def open(self, counter: int, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """
        Open one message.

        @raise DecryptError: if it was not sealed with this key, counter and
            C{aad}, or is too short to have been sealed at all.
        """
        try:
            return self._decrypt(self._nonce(counter), ciphertext, aad)
        except InvalidTag:
            raise DecryptError("a sealed message does not open") from None

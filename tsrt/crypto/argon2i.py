"""
Argon2i, and the value of a secret that switches the tailnet lock off.

The work is the library's, which has Argon2i since version 47 and needs OpenSSL
3.2 for it; with older ones the rest of tsrt works and this says what is
missing.  Doing it in Python would take minutes.

Reference: RFC 9106.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf import argon2

from tsrt.errors import NotSupported

# Older versions of the library have the module, with Argon2id alone.
_Argon2i = getattr(argon2, "Argon2i", None)

_DISABLEMENT_SALT = b"tailscale network-lock disablement salt"
_ADVICE = "Update the 'cryptography' package to version 47 or newer."


def argon2i(
    password: bytes,
    salt: bytes,
    *,
    passes: int,
    memory: int,
    lanes: int,
    length: int = 32,
    secret: bytes | None = None,
    associated: bytes | None = None,
) -> bytes:
    """
    Derive a key, at some cost; call it in a thread.

    @param passes: how often to go over the memory.
    @param memory: KiB of memory.
    @param lanes: the degree of parallelism; part of the result.
    @param length: bytes of the result.
    @param secret: a key of the function, if any.
    @param associated: data that the result depends on, if any.
    @raise NotSupported: if the libraries cannot do it.
    """
    if _Argon2i is None:
        raise NotSupported("Argon2i is not available", advice=_ADVICE)
    try:
        function = _Argon2i(
            salt=salt,
            length=length,
            iterations=passes,
            lanes=lanes,
            memory_cost=memory,
            ad=associated,
            secret=secret,
        )
    except UnsupportedAlgorithm:
        raise NotSupported("Argon2i is not available", advice=_ADVICE) from None
    derived: bytes = function.derive(password)
    return derived


def disablementValue(secret: bytes) -> bytes:
    """
    What a tailnet lock keeps of a secret that may switch it off; 32 bytes.

    Takes about a tenth of a second and 16 MiB.

    @raise NotSupported: if the libraries cannot do it.
    """
    return argon2i(secret, _DISABLEMENT_SALT, passes=4, memory=16 * 1024, lanes=4)

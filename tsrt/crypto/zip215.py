"""
Ed25519 signatures by the rules of ZIP-215, on which all verifiers agree.

RFC 8032 leaves open whether odd points are accepted, and libraries differ.
Where every node has to come to the same verdict, as with the keys that a
tailnet lock trusts, the rules are: the scalar is below the order of the group,
points may be encoded in any way and have any order, and the equation is
checked after multiplication with eight.

Honest signatures never need this: they pass the library's stricter check,
which comes first.

Reference: ZIP-215, RFC 8032.
"""

from __future__ import annotations

import hashlib

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign_open,
    has_crypto_core_ed25519,
)
from nacl.exceptions import BadSignatureError

_PRIME = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _PRIME) % _PRIME
_SQRT_MINUS_ONE = pow(2, (_PRIME - 1) // 4, _PRIME)
_SIGN = 1 << 255
_POINT_LENGTH = 32
_SIGNATURE_LENGTH = 64

_Point = tuple[int, int, int, int]
"""X, Y, Z and T, where x = X/Z, y = Y/Z and x·y = T/Z."""

_NEUTRAL: _Point = (0, 1, 1, 0)


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """
    Whether C{signature} is a signature of C{data}, by the rules of ZIP-215.

    @param public: the public key; other than 32 bytes verify nothing.
    """
    if len(public) != _POINT_LENGTH or len(signature) != _SIGNATURE_LENGTH:
        return False
    try:
        crypto_sign_open(signature + data, public)
    except BadSignatureError:
        pass
    else:
        return True
    commitment = signature[:_POINT_LENGTH]
    if (
        has_crypto_core_ed25519
        and crypto_core_ed25519_is_valid_point(public)
        and crypto_core_ed25519_is_valid_point(commitment)
    ):
        # Both rules agree about points of prime order in their one encoding,
        # so the verdict stands; and a forger gains no long computation.
        return False
    return _verifySlowly(public, commitment, signature[_POINT_LENGTH:], data)


def _verifySlowly(
    public: bytes, commitment: bytes, response: bytes, data: bytes
) -> bool:
    """The equation of ZIP-215, worked out with plain integers."""
    key, point = _decode(public), _decode(commitment)
    scalar = int.from_bytes(response, "little")
    if key is None or point is None or scalar >= _ORDER:
        return False
    digest = hashlib.sha512(commitment + public + data).digest()
    challenge = int.from_bytes(digest, "little") % _ORDER
    result = _add(_multiply(scalar, _BASE), _multiply(challenge, _negate(key)))
    result = _add(result, _negate(point))
    for _ in range(3):
        result = _add(result, result)
    x, y, z, _ = result
    return x % _PRIME == 0 and (y - z) % _PRIME == 0


def _decode(data: bytes) -> _Point | None:
    """The point of an encoding, canonical or not; C{None} if there is none."""
    number = int.from_bytes(data, "little")
    sign, y = number >= _SIGN, number % _SIGN % _PRIME
    # x² = (y² - 1) / (d·y² + 1), and its root as in RFC 8032 section 5.1.3.
    above, below = (y * y - 1) % _PRIME, (_D * y * y + 1) % _PRIME
    x = above * below**3 * pow(above * below**7, (_PRIME - 5) // 8, _PRIME) % _PRIME
    if (below * x * x - above) % _PRIME:
        x = x * _SQRT_MINUS_ONE % _PRIME
        if (below * x * x - above) % _PRIME:
            return None
    if x & 1 != sign:
        x = -x % _PRIME
    return x, y, 1, x * y % _PRIME


def _negate(point: _Point) -> _Point:
    x, y, z, t = point
    return -x, y, z, -t


def _add(first: _Point, second: _Point) -> _Point:
    """The sum of two points (RFC 8032 section 5.1.4)."""
    x1, y1, z1, t1 = first
    x2, y2, z2, t2 = second
    a = (y1 - x1) * (y2 - x2) % _PRIME
    b = (y1 + x1) * (y2 + x2) % _PRIME
    c = 2 * t1 * t2 * _D % _PRIME
    d = 2 * z1 * z2 % _PRIME
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _PRIME, g * h % _PRIME, f * g % _PRIME, e * h % _PRIME


def _multiply(scalar: int, point: _Point) -> _Point:
    """C{point}, C{scalar} times."""
    result = _NEUTRAL
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


_BASE_ENCODING = b"\x58" + b"\x66" * 31
_base = _decode(_BASE_ENCODING)
assert _base is not None
_BASE: _Point = _base

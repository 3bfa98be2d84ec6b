"""
The part of CBOR that the tailnet lock uses, in its one canonical encoding.

Signatures and hashes cover encodings, so there must be only one for each
value: definite lengths, shortest integers, map keys in order, no tags, no
floats, no truth values.  The decoder takes nothing that the encoder would not write.

Reference: RFC 8949, CTAP2 canonical form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from tsrt.errors import WireError

CBORValue = (
    None
    | int
    | bytes
    | str
    | Sequence["CBORValue"]
    | Mapping[int, "CBORValue"]
    | Mapping[str, "CBORValue"]
    | Mapping[int | str, "CBORValue"]
)
"""What can be encoded.  Decoding makes lists and dictionaries."""

MAX_NESTING = 16
"""How many arrays and maps may lie in one another."""

MAX_ARRAY = 4096
"""Elements of the largest array."""

MAX_MAP = 1024
"""Pairs of the largest map."""

_UNSIGNED = 0
_NEGATIVE = 1
_BYTES = 2
_TEXT = 3
_ARRAY = 4
_MAP = 5
_NULL = b"\xf6"
# Behind each "additional information" follow so many bytes of argument, whose
# value is at least what the shorter forms cannot say.
_ARGUMENTS = {24: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16), 27: (8, 1 << 32)}


def _head(major: int, argument: int) -> bytes:
    """The beginning of an item."""
    top = major << 5
    if argument < 24:
        return bytes((top | argument,))
    if argument < 1 << 8:
        return bytes((top | 24, argument))
    if argument < 1 << 16:
        return bytes((top | 25,)) + argument.to_bytes(2, "big")
    if argument < 1 << 32:
        return bytes((top | 26,)) + argument.to_bytes(4, "big")
    if argument < 1 << 64:
        return bytes((top | 27,)) + argument.to_bytes(8, "big")
    raise WireError("an integer does not fit into CBOR")


def encode(value: CBORValue) -> bytes:
    """
    The canonical encoding.

    @raise WireError: for an integer beyond 64 bits, text that is not Unicode,
        a truth value, or what goes beyond the limits.
    """
    return _encode(value, 0)


def _encode(value: CBORValue, depth: int) -> bytes:
    if value is None:
        return _NULL
    if isinstance(value, bool):
        # Python takes it for an integer, which it is not.
        raise WireError("a truth value has no place in this CBOR")
    if isinstance(value, int):
        return _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
    if isinstance(value, bytes):
        return _head(_BYTES, len(value)) + value
    if isinstance(value, str):
        try:
            data = value.encode("utf-8")
        except UnicodeEncodeError:
            raise WireError("a CBOR text is not Unicode") from None
        return _head(_TEXT, len(data)) + data
    if depth == MAX_NESTING:
        raise WireError("a CBOR value is nested too deeply")
    if isinstance(value, Mapping):
        if len(value) > MAX_MAP:
            raise WireError("a CBOR map is too large")
        pairs = sorted(
            (_key(key), _encode(member, depth + 1)) for key, member in value.items()
        )
        pairs.sort(key=lambda pair: len(pair[0]))
        return _head(_MAP, len(pairs)) + b"".join(map(b"".join, pairs))
    if len(value) > MAX_ARRAY:
        raise WireError("a CBOR array is too large")
    elements = b"".join(_encode(element, depth + 1) for element in value)
    return _head(_ARRAY, len(value)) + elements


def _key(key: int | str) -> bytes:
    """The encoding of a map key."""
    if not isinstance(key, int | str):
        raise WireError("a CBOR map key is neither an integer nor a text")
    return _encode(key, 0)


def decode(data: bytes) -> CBORValue:
    """
    The value of a canonical encoding.

    @raise WireError: if C{data} is anything else, or goes beyond the limits.
    """
    value, end = _item(data, 0, 0)
    if end != len(data):
        raise WireError("something follows a CBOR value")
    return value


def _argument(data: bytes, at: int) -> tuple[int, int, int]:
    """Major type, argument and where the item goes on."""
    if at >= len(data):
        raise WireError("a CBOR value is cut short")
    major, information = data[at] >> 5, data[at] & 31
    at += 1
    if information < 24:
        return major, information, at
    size, least = _ARGUMENTS.get(information, (0, 0))
    if not size:
        raise WireError("a CBOR length is indefinite or reserved")
    end = at + size
    if end > len(data):
        raise WireError("a CBOR value is cut short")
    argument = int.from_bytes(data[at:end], "big")
    if argument < least:
        raise WireError("a CBOR integer is longer than it need be")
    return major, argument, end


def _item(data: bytes, at: int, depth: int) -> tuple[CBORValue, int]:
    """The value of the item at C{at}, and where it ends."""
    if data[at : at + 1] == _NULL:
        return None, at + 1
    major, argument, at = _argument(data, at)
    if major == _UNSIGNED:
        return argument, at
    if major == _NEGATIVE:
        return -1 - argument, at
    reader = _READERS.get(major)
    if reader is None:
        raise WireError("CBOR tags, floats and truth values have no place here")
    return reader(data, at, argument, depth)


def _bytes(data: bytes, at: int, length: int, depth: int) -> tuple[bytes, int]:
    end = at + length
    if end > len(data):
        raise WireError("a CBOR value is cut short")
    return data[at:end], end


def _text(data: bytes, at: int, length: int, depth: int) -> tuple[str, int]:
    raw, end = _bytes(data, at, length, depth)
    try:
        return raw.decode("utf-8"), end
    except UnicodeDecodeError:
        raise WireError("a CBOR text is not UTF-8") from None


def _array(
    data: bytes, at: int, length: int, depth: int
) -> tuple[list[CBORValue], int]:
    if depth == MAX_NESTING or length > MAX_ARRAY:
        raise WireError("a CBOR array is too large or nested too deeply")
    elements = []
    for _ in range(length):
        element, at = _item(data, at, depth + 1)
        elements.append(element)
    return elements, at


def _map(
    data: bytes, at: int, length: int, depth: int
) -> tuple[dict[int | str, CBORValue], int]:
    if depth == MAX_NESTING or length > MAX_MAP:
        raise WireError("a CBOR map is too large or nested too deeply")
    members: dict[int | str, CBORValue] = {}
    previous = (0, b"")
    for _ in range(length):
        start = at
        key, at = _item(data, at, depth + 1)
        if not isinstance(key, int | str):
            raise WireError("a CBOR map key is neither an integer nor a text")
        order = (at - start, data[start:at])
        if order <= previous:
            raise WireError("the keys of a CBOR map are twice there or in disorder")
        previous = order
        members[key], at = _item(data, at, depth + 1)
    return members, at


_READERS = cast(
    "dict[int, Callable[[bytes, int, int, int], tuple[CBORValue, int]]]",
    {_BYTES: _bytes, _TEXT: _text, _ARRAY: _array, _MAP: _map},
)

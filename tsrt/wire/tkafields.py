"""
Taking the maps of the tailnet lock apart, field by field.

Each function returns one member of a decoded CBOR map, or raises
L{tsrt.errors.WireError} if it is not what it must be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from tsrt.errors import WireError
from tsrt.wire.cbor import CBORValue

T = TypeVar("T")

Fields = Mapping[int | str, CBORValue]
"""A decoded map."""


def asFields(value: CBORValue, what: str) -> Fields:
    """C{value} as a map."""
    if not isinstance(value, Mapping):
        raise WireError(f"a {what} is not a CBOR map")
    return cast("Fields", value)


def unsigned(fields: Fields, key: int, what: str) -> int:
    """An unsigned integer; absent is zero."""
    value = fields.get(key, 0)
    if not isinstance(value, int) or value < 0:
        raise WireError(f"{what} is not an unsigned integer")
    return value


def optionalUnsigned(fields: Fields, key: int, what: str) -> int | None:
    """An unsigned integer, or C{None} if it is absent or null."""
    return None if fields.get(key) is None else unsigned(fields, key, what)


def octets(fields: Fields, key: int, what: str) -> bytes:
    """A byte string; absent and null are empty."""
    return optionalOctets(fields, key, what) or b""


def optionalOctets(fields: Fields, key: int, what: str) -> bytes | None:
    """A byte string, or C{None} if it is absent or null."""
    value = fields.get(key)
    if value is not None and not isinstance(value, bytes):
        raise WireError(f"{what} is not a byte string")
    return value


def array(
    fields: Fields, key: int, read: Callable[[CBORValue], T], what: str
) -> tuple[T, ...]:
    """An array of what C{read} makes of its elements; absent is empty."""
    value = fields.get(key, ())
    if not isinstance(value, list | tuple):
        raise WireError(f"{what} are not an array")
    return tuple(map(read, value))


def asOctets(value: CBORValue) -> bytes:
    """An element that is a byte string."""
    if not isinstance(value, bytes):
        raise WireError("an element of a CBOR array is not a byte string")
    return value


def texts(fields: Fields, key: int, what: str) -> dict[str, str]:
    """A map from text to text; absent and null are empty."""
    value = fields.get(key)
    if value is None:
        return {}
    result: dict[str, str] = {}
    for name, member in asFields(value, what).items():
        if not isinstance(name, str) or not isinstance(member, str):
            raise WireError(f"{what} is not a map from text to text")
        result[name] = member
    return result

"""
JSON to values and back.

Unknown fields are ignored.  Of a map response L{decodeMapResponse} reads what
can be read: see L{tsrt.tailcfg.salvage}.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import TypeVar, cast

import msgspec

from tsrt.errors import WireError
from tsrt.tailcfg.mapping import MapResponse
from tsrt.tailcfg.salvage import salvage

T = TypeVar("T")

_encoder = msgspec.json.Encoder()

# What a decoder raises for bytes that it cannot read.
_UNREADABLE = (msgspec.MsgspecError, RecursionError, ValueError)


@cache
def _cachedDecoder(kind: object) -> object:
    return msgspec.json.Decoder(kind)


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """The decoder for a kind; making one is much dearer than using it."""
    return cast("msgspec.json.Decoder[T]", _cachedDecoder(cast(Hashable, kind)))


def encode(value: object) -> bytes:
    """The JSON of a value of this package, as compact bytes."""
    return _encoder.encode(value)


def decode(kind: type[T], data: bytes) -> T:
    """
    Read a document.

    The caller bounds how long it may be.

    @raise WireError: the bytes are no JSON, or not of this kind; the message
        has the path to what is wrong.
    """
    try:
        return _decoder(kind).decode(data)
    except _UNREADABLE as error:
        name = getattr(kind, "__name__", kind)
        raise WireError(f"this is no {name}: {error}") from None


def toBuiltins(value: object) -> object:
    """A value of this package as the values of JSON, by the names of JSON."""
    return msgspec.to_builtins(value)


def decodeRaw(raw: msgspec.Raw) -> object:
    """
    Read a value that was kept as it came.

    @return: what the C{json} module would make of it.
    @raise WireError: it cannot be read.
    """
    try:
        return msgspec.json.decode(raw)
    except _UNREADABLE as error:
        raise WireError(f"a value cannot be read: {error}") from None


def decodeMapResponse(data: bytes) -> MapResponse:
    """
    Read a map response, without those elements that are malformed.

    What had to be left out is in its C{rejectedPeers}.

    @raise WireError: the bytes are no JSON object, or a part is malformed that
        the rest makes no sense without.
    """
    try:
        return _decoder(MapResponse).decode(data)
    except msgspec.ValidationError:
        pass  # one element is malformed: find it
    except _UNREADABLE as error:
        raise WireError(f"this is no map response: {error}") from None
    return salvage(data)

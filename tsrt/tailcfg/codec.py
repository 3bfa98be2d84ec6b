"""
JSON to values and back.

Unknown fields are ignored.  In a map response one malformed peer, rule or
region is left out and told; the rest stays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar, cast

import msgspec

from tsrt.errors import WireError
from tsrt.tailcfg.derpmap import DERPRegion
from tsrt.tailcfg.filters import FilterRule
from tsrt.tailcfg.mapping import DisplayMessage, MapResponse
from tsrt.tailcfg.node import PeerChange, UserProfile, WireNode

T = TypeVar("T")

ZERO_TIME = datetime(1, 1, 1, tzinfo=UTC)
"""Go's zero time, which stands for "no time"."""

_encoder = msgspec.json.Encoder()

# What a map response holds many of, and what each of them is.
_LISTS: dict[str, type] = {
    "Peers": WireNode,
    "PeersChanged": WireNode,
    "PeersChangedPatch": PeerChange,
    "UserProfiles": UserProfile,
    "PacketFilter": FilterRule,
}
_MAPS: dict[str, type] = {"DisplayMessages": DisplayMessage}


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

    @raise WireError: the bytes are no JSON, or not of this kind; the message
        has the path to what is wrong.
    """
    try:
        return _decoder(kind).decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise WireError(
            f"this is no {getattr(kind, '__name__', kind)}: {error}"
        ) from None


def decodeMapResponse(data: bytes) -> MapResponse:
    """
    Read a map response, without those elements that are malformed.

    What had to be left out is in its C{rejectedPeers}.

    @raise WireError: the bytes are no JSON object, or a part that there is
        only one of is malformed.
    """
    try:
        return _decoder(MapResponse).decode(data)
    except msgspec.ValidationError:
        pass  # one element is malformed: find it
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise WireError(f"this is no map response: {error}") from None
    return _salvage(data)


def _salvage(data: bytes) -> MapResponse:
    """Decode element by element; slow, and hardly ever needed."""
    try:
        document = _decoder(dict[str, msgspec.Raw]).decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise WireError(f"this is no map response: {error}") from None
    rejected: list[str] = []
    for name, kind in _LISTS.items():
        if name in document:
            document[name] = _keepGood(name, document[name], kind, rejected)
    for name, kind in _MAPS.items():
        if name in document:
            document[name] = _keepGoodValues(name, document[name], kind, rejected)
    if "PacketFilters" in document:
        document["PacketFilters"] = _each(
            document["PacketFilters"],
            lambda rules: _keepGood("PacketFilters", rules, FilterRule, rejected),
        )
    if "DERPMap" in document:
        document["DERPMap"] = _goodRegions(document["DERPMap"], rejected)
    response = decode(MapResponse, encode(document))
    response.noteRejected(rejected)
    return response


def _keepGood(
    name: str, raw: msgspec.Raw, kind: type, rejected: list[str]
) -> msgspec.Raw:
    """The elements of a list that are well-formed."""
    elements = decode(list[msgspec.Raw] | None, bytes(raw))  # type: ignore[arg-type]  # a union is a kind for msgspec
    if elements is None:
        return raw
    kept = []
    for number, element in enumerate(elements):
        try:
            decode(kind, bytes(element))
        except WireError as error:
            rejected.append(f"{name}[{number}]: {error}")
        else:
            kept.append(element)
    return msgspec.Raw(encode(kept))


def _keepGoodValues(
    name: str, raw: msgspec.Raw, kind: type, rejected: list[str]
) -> msgspec.Raw:
    """The entries of a map whose values are well-formed, or null."""
    entries = decode(dict[str, msgspec.Raw] | None, bytes(raw))  # type: ignore[arg-type]  # a union is a kind for msgspec
    if entries is None:
        return raw
    kept = {}
    for key, element in entries.items():
        try:
            decode(kind | None, bytes(element))  # type: ignore[arg-type]  # a union is a kind for msgspec
        except WireError as error:
            rejected.append(f"{name}[{key!r}]: {error}")
        else:
            kept[key] = element
    return msgspec.Raw(encode(kept))


def _each(
    raw: msgspec.Raw, change: Callable[[msgspec.Raw], msgspec.Raw]
) -> msgspec.Raw:
    """The same map with each value changed."""
    entries = decode(dict[str, msgspec.Raw] | None, bytes(raw))  # type: ignore[arg-type]  # a union is a kind for msgspec
    if entries is None:
        return raw
    return msgspec.Raw(encode({key: change(value) for key, value in entries.items()}))


def _goodRegions(raw: msgspec.Raw, rejected: list[str]) -> msgspec.Raw:
    """The DERP map without malformed regions."""
    document = decode(dict[str, msgspec.Raw] | None, bytes(raw))  # type: ignore[arg-type]  # a union is a kind for msgspec
    if not document or "Regions" not in document:
        return raw
    document["Regions"] = _keepGoodValues(
        "DERPMap.Regions", document["Regions"], DERPRegion, rejected
    )
    return msgspec.Raw(encode(document))


def present(when: datetime | msgspec.UnsetType | None) -> datetime | None:
    """A time, or C{None} where the document means that there is none."""
    if when is None or isinstance(when, msgspec.UnsetType) or when.year <= 1:
        return None
    if when.tzinfo is None:
        return when.replace(tzinfo=UTC)
    return when

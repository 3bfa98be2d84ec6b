"""
Reading a map response of which some element is malformed.

One bad peer, rule or region must not cost the others.  So the response is
taken apart, each element is tried on its own, and those that are good are put
together again.  That is slow, and hardly ever needed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import msgspec
from msgspec import Raw, Struct

from tsrt.errors import WireError
from tsrt.tailcfg.derpmap import DERPRegion
from tsrt.tailcfg.filters import FilterRule
from tsrt.tailcfg.mapping import DisplayMessage, MapResponse
from tsrt.tailcfg.naming import jsonName
from tsrt.tailcfg.node import PeerChange, UserProfile, WireNode

_MOST_REJECTIONS = 100
_LONGEST_LABEL = 64

_UNREADABLE = (msgspec.MsgspecError, RecursionError, ValueError)

_document = msgspec.json.Decoder(dict[str, Raw])
_elements = msgspec.json.Decoder(list[Raw] | None)

# Parts whose loss is a nuisance at most: what was known before stays.  Without
# one of the others the response is not understood.
_DISPENSABLE = frozenset(
    (
        "PingRequest",
        "PopBrowserURL",
        "DNSConfig",
        "CollectServices",
        "UserProfiles",
        "Health",
        "DisplayMessages",
        "ControlTime",
        "DomainDataPlaneAuditLogID",
        "ControlDialPlan",
        "ClientVersion",
        "DefaultAutoUpdate",
    )
)


class _Label(Struct, rename=jsonName):
    """By what people may know an element that cannot be read."""

    id: Raw = Raw(b"")
    name: Raw = Raw(b"")


_label = msgspec.json.Decoder(_Label)


class _Decoder(Protocol):
    """What is used of a decoder here."""

    def decode(self, data: Raw | bytes, /) -> object:
        """Read a document."""


@cache
def _partDecoders() -> dict[str, _Decoder]:
    """A decoder for each part of a map response, by its name there."""
    return {
        part.encode_name: msgspec.json.Decoder(part.type)
        for part in msgspec.structs.fields(MapResponse)
    }


class _Salvage:
    """One response on its way through; collects what had to be left out."""

    def __init__(self) -> None:
        self.rejected: list[str] = []

    def reject(self, where: str, error: Exception) -> None:
        """Note something that is left out."""
        if len(self.rejected) < _MOST_REJECTIONS:
            self.rejected.append(f"{where}: {error}")

    def mendList(self, name: str, raw: Raw, decoder: _Decoder) -> Raw:
        """The elements of a list that are well-formed."""
        elements = _elements.decode(raw)
        if elements is None:
            return raw
        kept = []
        for number, element in enumerate(elements):
            try:
                decoder.decode(element)
            except _UNREADABLE as error:
                self.reject(f"{name}[{number}]{_labelOf(element)}", error)
            else:
                kept.append(element)
        return Raw(msgspec.json.encode(kept))

    def mendMap(self, name: str, raw: Raw, decoder: _Decoder) -> Raw:
        """
        The entries of a map that are well-formed.

        @param decoder: reads a map of one such entry.
        """
        kept = {}
        for key, element in _document.decode(raw).items():
            try:
                decoder.decode(msgspec.json.encode({key: element}))
            except _UNREADABLE as error:
                self.reject(f"{name}[{key!r}]", error)
            else:
                kept[key] = element
        return Raw(msgspec.json.encode(kept))

    def mendFilters(self, name: str, raw: Raw, decoder: _Decoder) -> Raw:
        """Named filters, each without the rules that are malformed."""
        return Raw(
            msgspec.json.encode(
                {
                    key: self.mendList(f"{name}[{key!r}]", rules, decoder)
                    for key, rules in _document.decode(raw).items()
                }
            )
        )

    def mendRelays(self, name: str, raw: Raw, decoder: _Decoder) -> Raw:
        """A map of relays without the regions that are malformed."""
        document = _document.decode(raw)
        if "Regions" in document:
            document["Regions"] = self.mendMap(
                f"{name}.Regions", document["Regions"], decoder
            )
        return Raw(msgspec.json.encode(document))


_Mend = tuple[Callable[[_Salvage, str, Raw, _Decoder], Raw], _Decoder]


@cache
def _mends() -> dict[str, _Mend]:
    """How those parts are mended that hold many of a kind."""

    def of(kind: object) -> _Decoder:
        return msgspec.json.Decoder(kind)

    return {
        "Peers": (_Salvage.mendList, of(WireNode)),
        "PeersChanged": (_Salvage.mendList, of(WireNode)),
        "PeersRemoved": (_Salvage.mendList, of(int)),
        "PeersChangedPatch": (_Salvage.mendList, of(PeerChange)),
        "PeerSeenChange": (_Salvage.mendMap, of(dict[int, bool])),
        "OnlineChange": (_Salvage.mendMap, of(dict[int, bool])),
        "UserProfiles": (_Salvage.mendList, of(UserProfile)),
        "PacketFilter": (_Salvage.mendList, of(FilterRule)),
        "PacketFilters": (_Salvage.mendFilters, of(FilterRule)),
        "Health": (_Salvage.mendList, of(str)),
        "DisplayMessages": (_Salvage.mendMap, of(dict[str, DisplayMessage | None])),
        "DERPMap": (_Salvage.mendRelays, of(dict[int, DERPRegion | None])),
    }


def salvage(data: bytes) -> MapResponse:
    """
    Read what can be read of a map response.

    What had to be left out is in its C{rejectedPeers}.

    @raise WireError: it is no JSON object, or a part is malformed that the
        rest makes no sense without.
    """
    try:
        document = _document.decode(data)
    except _UNREADABLE as error:
        raise WireError(f"this is no map response: {error}") from None
    work = _Salvage()
    decoders = _partDecoders()
    kept: dict[str, Raw] = {}
    for name, raw in document.items():
        decoder = decoders.get(name)
        if decoder is None:
            continue
        try:
            kept[name] = _mended(work, name, raw, decoder)
        except _UNREADABLE as error:
            if name not in _DISPENSABLE:
                raise WireError(f"{name} of a map response: {error}") from None
            work.reject(name, error)
    try:
        response = msgspec.json.decode(msgspec.json.encode(kept), type=MapResponse)
    except _UNREADABLE as error:
        raise WireError(f"this is no map response: {error}") from None
    response.noteRejected(work.rejected)
    return response


def _mended(work: _Salvage, name: str, raw: Raw, decoder: _Decoder) -> Raw:
    """A part as it is, if it can be read, or else what is left of it."""
    try:
        decoder.decode(raw)
    except msgspec.ValidationError:
        mend = _mends().get(name)
        if mend is None:
            raise
        how, elementDecoder = mend
        return how(work, name, raw, elementDecoder)
    return raw


def _labelOf(element: Raw) -> str:
    """The id and the name of an element, where it has any."""
    try:
        label = _label.decode(element)
    except _UNREADABLE:
        return ""
    words = [
        bytes(word)[:_LONGEST_LABEL].decode("utf-8", "replace")
        for word in (label.id, label.name)
        if bytes(word)
    ]
    return f" ({' '.join(words)})" if words else ""

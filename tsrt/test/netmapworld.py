"""Control documents for the tests of the netmap, without a control server."""

from __future__ import annotations

from typing import TypeVar

from tsrt.tailcfg import Hostinfo, MapResponse, Raw, UnsetType, WireNode, replace

T = TypeVar("T")

NOW = 1_800_000_000.0
"""A moment of the year 2027 in Unix seconds, long after clocks are set."""

SUFFIX = "tail.example"


def there(value: T | UnsetType | None) -> T:
    """A part of a document that must be there."""
    if value is None or isinstance(value, UnsetType):
        raise AssertionError("a part of a document is not there")
    return value


def rawKey(number: int) -> bytes:
    """The bytes of the key with a number; none is zero."""
    return (number + 1).to_bytes(4, "big") * 8


def nodeKey(number: int) -> str:
    """The text of a node key."""
    return f"nodekey:{rawKey(number).hex()}"


def discoKey(number: int) -> str:
    """The text of a disco key."""
    return f"discokey:{rawKey(number).hex()}"


def wireNode(number: int, **fields: object) -> WireNode:
    """
    The node C{n<number>} with usual addresses, key and relay.

    @param fields: what is not usual, by attribute.
    """
    addresses = [f"100.64.0.{number}/32", f"fd7a:115c:a1e0::{number:x}/128"]
    usual: dict[str, object] = {
        "id": number,
        "stableID": f"stable{number}",
        "name": f"n{number}.{SUFFIX}.",
        "user": 1,
        "key": nodeKey(number),
        "discoKey": discoKey(number),
        "addresses": addresses,
        "allowedIPs": list(addresses),
        "endpoints": ["192.0.2.8:41641"],
        "homeDERP": 1,
        "hostinfo": Hostinfo(os="linux", hostname=f"n{number}"),
        "cap": 130,
        "online": True,
        "machineAuthorized": True,
    }
    return replace(WireNode(), **{**usual, **fields})


def firstResponse(*peers: WireNode, **fields: object) -> MapResponse:
    """The complete response that begins a poll of node 1."""
    return replace(
        MapResponse(), **{"node": wireNode(1), "peers": list(peers), **fields}
    )


def raw(text: str) -> Raw:
    """A piece of JSON that stays as it is."""
    return Raw(text.encode())

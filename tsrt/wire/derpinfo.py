"""
The two JSON documents that client and server of DERP exchange at login.

They travel inside boxes; L{tsrt.wire.derp} has the frames around those.
"""

from __future__ import annotations

import json

from attrs import frozen

from tsrt.errors import WireError
from tsrt.wire.derp import PROTOCOL_VERSION


def _decode(data: bytes, what: str) -> dict[str, object]:
    """The JSON object in C{data}."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise WireError(f"{what} is not JSON") from None
    if not isinstance(document, dict):
        raise WireError(f"{what} is not a JSON object")
    return document


def _encode(document: dict[str, object]) -> bytes:
    """JSON without white space, members in the order given."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace")


def _integer(document: dict[str, object], name: str) -> int:
    """An integer member; absent and null are zero."""
    value = document.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise WireError(f"{name} is not an integer")
    return value


def _boolean(document: dict[str, object], name: str) -> bool:
    """A boolean member; absent and null are false."""
    value = document.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise WireError(f"{name} is not a boolean")
    return value


def _string(document: dict[str, object], name: str) -> str:
    """A string member; absent and null are empty."""
    value = document.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise WireError(f"{name} is not a string")
    return value


@frozen
class ClientInfo:
    """What a client says about itself when it logs in."""

    version: int = PROTOCOL_VERSION
    """The protocol version that the client speaks."""

    canAckPings: bool = True
    """Whether the client answers pings."""

    meshKey: str = ""
    """The secret of the mesh, 64 hexadecimal digits, if it belongs to one."""

    isProber: bool = False
    """Whether the client only measures."""

    appName: str = ""
    """A name for the program, if it has one."""

    def __repr__(self) -> str:
        return (
            f"ClientInfo(version={self.version}, canAckPings={self.canAckPings}, "
            f"meshKey={'***' if self.meshKey else ''!r}, "
            f"isProber={self.isProber}, appName={self.appName!r})"
        )

    def encode(self) -> bytes:
        """The JSON document; members that say nothing are left out."""
        document: dict[str, object] = {}
        if self.meshKey:
            document["meshKey"] = self.meshKey
        document["version"] = self.version
        if self.canAckPings:
            document["CanAckPings"] = True
        if self.isProber:
            document["IsProber"] = True
        if self.appName:
            document["AppName"] = self.appName
        return _encode(document)

    @classmethod
    def decode(cls, data: bytes) -> ClientInfo:
        """
        Read the JSON document; unknown members are ignored.

        @raise WireError: if it is no such document.
        """
        document = _decode(data, "DERP client info")
        return cls(
            version=_integer(document, "version"),
            canAckPings=_boolean(document, "CanAckPings"),
            meshKey=_string(document, "meshKey"),
            isProber=_boolean(document, "IsProber"),
            appName=_string(document, "AppName"),
        )


@frozen
class ServerInfo:
    """What a server says about itself after a login."""

    version: int = PROTOCOL_VERSION
    """The protocol version that the server speaks."""

    tokenBucketBytesPerSecond: int = 0
    """How much a client may send; zero for no limit."""

    tokenBucketBytesBurst: int = 0
    """How much a client may send at once."""

    def encode(self) -> bytes:
        """The JSON document; members that say nothing are left out."""
        document: dict[str, object] = {"version": self.version}
        if self.tokenBucketBytesPerSecond:
            document["TokenBucketBytesPerSecond"] = self.tokenBucketBytesPerSecond
        if self.tokenBucketBytesBurst:
            document["TokenBucketBytesBurst"] = self.tokenBucketBytesBurst
        return _encode(document)

    @classmethod
    def decode(cls, data: bytes) -> ServerInfo:
        """
        Read the JSON document; unknown members are ignored.

        @raise WireError: if it is no such document.
        """
        document = _decode(data, "DERP server info")
        return cls(
            version=_integer(document, "version"),
            tokenBucketBytesPerSecond=_integer(document, "TokenBucketBytesPerSecond"),
            tokenBucketBytesBurst=_integer(document, "TokenBucketBytesBurst"),
        )

"""Registration of a node key."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, Struct, UnsetType, field

from tsrt.tailcfg.hostinfo import Hostinfo
from tsrt.tailcfg.naming import jsonName
from tsrt.tailcfg.node import Login, User

ZERO_TIME_TEXT = "0001-01-01T00:00:00Z"
"""How the documents write "no time"."""


class RegisterAuth(Struct, rename=jsonName):
    """Why the node should be let in."""

    authKey: str | UnsetType = UNSET

    def __repr__(self) -> str:
        return "RegisterAuth(*****)"


class RegisterRequest(Struct, rename=jsonName):
    """Asks for a node key to be accepted, extended, replaced or expired."""

    version: int = 0
    nodeKey: str = ""
    oldNodeKey: str = ""
    nlKey: str = ""
    auth: RegisterAuth | UnsetType | None = UNSET
    expiry: datetime | str = ZERO_TIME_TEXT
    followup: str = ""
    hostinfo: Hostinfo | None = None
    ephemeral: bool | UnsetType = UNSET
    nodeKeySignature: bytes | None = None
    tailnet: str | UnsetType = UNSET


class RegisterResponse(Struct, rename=jsonName):
    """What control says to that."""

    user: User = field(default_factory=User)
    login: Login = field(default_factory=Login)
    nodeKeyExpired: bool = False
    machineAuthorized: bool = False
    authURL: str = ""
    nodeKeySignature: bytes | None = None
    error: str = ""

"""Registration of a node key."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, Raw, Struct, UnsetType, field

from tsrt.tailcfg.hostinfo import Hostinfo
from tsrt.tailcfg.naming import jsonName
from tsrt.tailcfg.node import Login, User
from tsrt.tailcfg.times import ZERO_TIME


class RegisterAuth(Struct, rename=jsonName):
    """Why the node should be let in."""

    authKey: str | UnsetType = UNSET
    oauth2Token: Raw | UnsetType = UNSET

    def __repr__(self) -> str:
        return "RegisterAuth(*****)"


class RegisterRequest(Struct, rename=jsonName):
    """
    Asks for a node key to be accepted, replaced or expired.

    @ivar expiry: the zero time asks for the server's default; a time in the
        past asks for the key to expire now.
    @ivar followup: the C{authURL} of an earlier reply; the server answers
        when somebody has been there.
    """

    version: int = 0
    nodeKey: str = ""
    oldNodeKey: str = ""
    nlKey: str = ""
    auth: RegisterAuth | UnsetType | None = UNSET
    expiry: datetime = ZERO_TIME
    followup: str = ""
    hostinfo: Hostinfo | None = None
    ephemeral: bool | UnsetType = UNSET
    nodeKeySignature: bytes | None = None
    signatureType: Raw | UnsetType = UNSET
    timestamp: datetime | UnsetType | None = UNSET
    deviceCert: bytes | UnsetType | None = UNSET
    signature: bytes | UnsetType | None = UNSET
    tailnet: str | UnsetType = UNSET


class RegisterResponse(Struct, rename=jsonName):
    """
    What control says to that.

    @ivar authURL: where a person has to go to let the node in; empty if the
        node is in.
    @ivar nodeKeySignature: not empty if the key must be replaced, and the
        signature then made anew for the new one.
    @ivar error: why the node is not let in, for people to read.
    """

    user: User = field(default_factory=User)
    login: Login = field(default_factory=Login)
    nodeKeyExpired: bool = False
    machineAuthorized: bool = False
    authURL: str = ""
    nodeKeySignature: bytes | None = None
    error: str = ""

"""Nodes and users as the control server describes them."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, Raw, Struct, UnsetType

from tsrt.tailcfg.dns import Resolver
from tsrt.tailcfg.hostinfo import Hostinfo
from tsrt.tailcfg.naming import jsonName

CapMap = dict[str, list[Raw] | None]
"""Capability names and their values, which stay as they came."""


class WireNode(Struct, rename=jsonName, omit_defaults=True):
    """
    A node, as it stands in a document.

    Keys and prefixes are text here; L{tsrt.netmap} parses them, so that a
    malformed one costs one node and not the document.
    """

    id: int = 0
    stableID: str = ""
    name: str = ""
    user: int = 0
    sharer: int = 0
    key: str = ""
    keyExpiry: datetime | None = None
    keySignature: bytes | None = None
    machine: str = ""
    discoKey: str = ""
    addresses: list[str] | None = None
    allowedIPs: list[str] | None = None
    endpoints: list[str] | None = None
    derp: str = ""
    homeDERP: int = 0
    hostinfo: Hostinfo | None = None
    created: datetime | None = None
    cap: int = 0
    tags: list[str] | None = None
    primaryRoutes: list[str] | None = None
    lastSeen: datetime | None = None
    online: bool | None = None
    machineAuthorized: bool = False
    capabilities: list[str] | None = None
    capMap: CapMap | None = None
    unsignedPeerAPIOnly: bool = False
    computedName: str = ""
    computedNameWithHost: str = ""
    dataPlaneAuditLogID: str = ""
    expired: bool = False
    selfNodeV4MasqAddrForThisPeer: str | None = None
    selfNodeV6MasqAddrForThisPeer: str | None = None
    isWireGuardOnly: bool = False
    isJailed: bool = False
    exitNodeDNSResolvers: list[Resolver] | None = None


class PeerChange(Struct, rename=jsonName):
    """
    What changed of one peer; what is not there did not change.

    C{capMap} and C{endpoints} replace the whole when they are there.
    """

    nodeID: int
    derpRegion: int | UnsetType = UNSET
    cap: int | UnsetType = UNSET
    capMap: CapMap | UnsetType | None = UNSET
    endpoints: list[str] | UnsetType | None = UNSET
    key: str | UnsetType | None = UNSET
    keySignature: bytes | UnsetType | None = UNSET
    discoKey: str | UnsetType | None = UNSET
    online: bool | UnsetType | None = UNSET
    lastSeen: datetime | UnsetType | None = UNSET
    keyExpiry: datetime | UnsetType | None = UNSET


class User(Struct, rename=jsonName, omit_defaults=True):
    """A user, as a register reply names it."""

    id: int = 0
    displayName: str = ""
    profilePicURL: str = ""
    created: datetime | None = None


class Login(Struct, rename=jsonName, omit_defaults=True):
    """How a user logged in."""

    id: int = 0
    provider: str = ""
    loginName: str = ""
    displayName: str = ""
    profilePicURL: str = ""


class UserProfile(Struct, rename=jsonName, omit_defaults=True):
    """A user, as a netmap names it."""

    id: int = 0
    loginName: str = ""
    displayName: str = ""
    profilePicURL: str = ""
    groups: list[str] | None = None

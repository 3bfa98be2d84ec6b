"""The map poll: what a node asks, and what it is told from then on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import cast

from msgspec import UNSET, Raw, Struct, UnsetType, field

from tsrt.tailcfg.derpmap import DERPMap
from tsrt.tailcfg.dns import DNSConfig
from tsrt.tailcfg.filters import FilterRule
from tsrt.tailcfg.hostinfo import Hostinfo
from tsrt.tailcfg.naming import jsonName
from tsrt.tailcfg.node import PeerChange, UserProfile, WireNode


class MapRequest(Struct, rename=jsonName):
    """Asks for the netmap, or tells control what changed here."""

    version: int = 0
    compress: str | UnsetType = UNSET
    keepAlive: bool = False
    nodeKey: str = ""
    discoKey: str = ""
    stream: bool | UnsetType = UNSET
    hostinfo: Hostinfo | None = None
    mapSessionHandle: str | UnsetType = UNSET
    mapSessionSeq: int | UnsetType = UNSET
    endpoints: list[str] | UnsetType | None = UNSET
    endpointTypes: list[int] | UnsetType | None = UNSET
    tkaHead: str | UnsetType = UNSET
    readOnly: bool | UnsetType = UNSET
    omitPeers: bool | UnsetType = UNSET
    debugFlags: list[str] | UnsetType | None = UNSET
    connectionHandleForTest: str | UnsetType = UNSET


class PingRequest(Struct, rename=jsonName, omit_defaults=True):
    """Control wants to know whether the node is alive, or to ask it something."""

    url: str = ""
    urlIsNoise: bool = field(name="URLIsNoise", default=False)
    log: bool = False
    types: str = ""
    ip: str = ""
    payload: bytes | None = None


class PingResponse(Struct, rename=jsonName, omit_defaults=True):
    """How a ping that control asked for went."""

    type: str = ""
    ip: str = ""
    nodeIP: str = ""
    nodeName: str = ""
    err: str = ""
    latencySeconds: float = 0.0
    endpoint: str = ""
    peerRelay: str = ""
    derpRegionID: int = 0
    derpRegionCode: str = ""
    peerAPIPort: int = 0
    isLocalIP: bool = False


class ControlDialCandidate(Struct, rename=jsonName, omit_defaults=True):
    """One way to reach the control server."""

    ip: str = ""
    aceHost: str = field(name="ACEHost", default="")
    dialStartDelaySec: float = 0.0
    dialTimeoutSec: float = 0.0
    priority: int = 0


class ControlDialPlan(Struct, rename=jsonName, omit_defaults=True):
    """How to reach the control server the next time."""

    candidates: list[ControlDialCandidate] | None = None


class ClientVersion(Struct, rename=jsonName, omit_defaults=True):
    """Whether there is a newer client."""

    runningLatest: bool = False
    latestVersion: str = ""
    urgentSecurityUpdate: bool = False
    notify: bool = False
    notifyURL: str = ""
    notifyText: str = ""


class MessageAction(Struct, rename=jsonName, omit_defaults=True):
    """What a user may do about a message."""

    url: str = ""
    label: str = ""


class DisplayMessage(Struct, rename=jsonName, omit_defaults=True):
    """Something that control wants the user to see."""

    title: str = ""
    text: str = ""
    severity: str = ""
    impactsConnectivity: bool = False
    primaryAction: MessageAction | None = None


class Debug(Struct, rename=jsonName, omit_defaults=True):
    """Orders for odd situations."""

    sleepSeconds: float = 0.0
    disableLogTail: bool = False
    exit: int | None = None


class TKAInfo(Struct, rename=jsonName, omit_defaults=True):
    """The state of Tailnet Lock, as control sees it."""

    head: str = ""
    disabled: bool = False


class SSHPolicy(Struct):
    """Who may log in by SSH; the rules stay as they came."""

    rules: list[Raw] | None = None


class MapResponse(Struct, rename=jsonName, dict=True):
    """
    The netmap, or what changed of it.

    A field that is not there, or C{None}, means "as before"; an empty list or
    map is a value.
    """

    @property
    def rejectedPeers(self) -> tuple[str, ...]:
        """A sentence for each peer, rule or region that had to be left out."""
        return cast("tuple[str, ...]", self.__dict__.get("rejectedPeers_", ()))

    def noteRejected(self, sentences: Iterable[str]) -> None:
        """Remember what was left out; not part of the document."""
        self.__dict__["rejectedPeers_"] = tuple(sentences)

    mapSessionHandle: str | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    keepAlive: bool | UnsetType = UNSET
    pingRequest: PingRequest | UnsetType | None = UNSET
    popBrowserURL: str | UnsetType = UNSET
    node: WireNode | UnsetType | None = UNSET
    derpMap: DERPMap | UnsetType | None = UNSET
    peers: list[WireNode] | UnsetType | None = UNSET
    peersChanged: list[WireNode] | UnsetType | None = UNSET
    peersRemoved: list[int] | UnsetType | None = UNSET
    peersChangedPatch: list[PeerChange] | UnsetType | None = UNSET
    peerSeenChange: dict[int, bool] | UnsetType | None = UNSET
    onlineChange: dict[int, bool] | UnsetType | None = UNSET
    dnsConfig: DNSConfig | UnsetType | None = UNSET
    domain: str | UnsetType = UNSET
    collectServices: bool | UnsetType | None = UNSET
    packetFilter: list[FilterRule] | UnsetType | None = UNSET
    packetFilters: dict[str, list[FilterRule] | None] | UnsetType | None = UNSET
    userProfiles: list[UserProfile] | UnsetType | None = UNSET
    health: list[str] | UnsetType | None = UNSET
    displayMessages: dict[str, DisplayMessage | None] | UnsetType | None = UNSET
    sshPolicy: SSHPolicy | UnsetType | None = UNSET
    controlTime: datetime | UnsetType | None = UNSET
    tkaInfo: TKAInfo | UnsetType | None = UNSET
    domainDataPlaneAuditLogID: str | UnsetType = UNSET
    debug: Debug | UnsetType | None = UNSET
    controlDialPlan: ControlDialPlan | UnsetType | None = UNSET
    clientVersion: ClientVersion | UnsetType | None = UNSET
    defaultAutoUpdate: bool | UnsetType | None = UNSET

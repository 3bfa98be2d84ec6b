"""Control-plane documents as typed values."""

from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from tsrt.tailcfg.capabilities import CAPABILITY_VERSION
from tsrt.tailcfg.codec import decode, decodeMapResponse, decodeRaw, encode
from tsrt.tailcfg.derpmap import DERPHomeParams, DERPMap, DERPNode, DERPRegion
from tsrt.tailcfg.dns import DNSConfig, DNSRecord, Resolver
from tsrt.tailcfg.filters import CapGrant, FilterRule, NetPortRange, PortRange
from tsrt.tailcfg.hostinfo import Hostinfo, Location, NetInfo, Service
from tsrt.tailcfg.mapping import (
    ClientVersion,
    ControlDialCandidate,
    ControlDialPlan,
    Debug,
    DisplayMessage,
    MapRequest,
    MapResponse,
    MessageAction,
    PingRequest,
    PingResponse,
    SSHPolicy,
    TKAInfo,
)
from tsrt.tailcfg.node import CapMap, Login, PeerChange, User, UserProfile, WireNode
from tsrt.tailcfg.register import RegisterAuth, RegisterRequest, RegisterResponse
from tsrt.tailcfg.times import ZERO_TIME, formatTime, parseTime, present

__all__ = [
    "CAPABILITY_VERSION",
    "UNSET",
    "ZERO_TIME",
    "CapGrant",
    "CapMap",
    "ClientVersion",
    "ControlDialCandidate",
    "ControlDialPlan",
    "DERPHomeParams",
    "DERPMap",
    "DERPNode",
    "DERPRegion",
    "DNSConfig",
    "DNSRecord",
    "Debug",
    "DisplayMessage",
    "FilterRule",
    "Hostinfo",
    "Location",
    "Login",
    "MapRequest",
    "MapResponse",
    "MessageAction",
    "NetInfo",
    "NetPortRange",
    "PeerChange",
    "PingRequest",
    "PingResponse",
    "PortRange",
    "Raw",
    "RegisterAuth",
    "RegisterRequest",
    "RegisterResponse",
    "Resolver",
    "SSHPolicy",
    "Service",
    "TKAInfo",
    "UnsetType",
    "User",
    "UserProfile",
    "WireNode",
    "decode",
    "decodeMapResponse",
    "decodeRaw",
    "encode",
    "formatTime",
    "parseTime",
    "present",
    "replace",
]

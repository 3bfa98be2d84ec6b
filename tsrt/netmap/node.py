"""A node of the tailnet as a typed value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TypeVar

from attrs import field, frozen

from tsrt.addresses import AddrPort, Prefix, parseAddress
from tsrt.errors import WireError
from tsrt.keys import DiscoPublic, MachinePublic, NodePublic, PublicKey
from tsrt.tailcfg import Hostinfo, Raw, Resolver, WireNode, present
from tsrt.tailcfg.capabilities import PEER_CAP_DOH

CLOCK_IS_SET_AFTER = 1673373066.0
"""Before this time (Unix seconds) a clock is not set: nothing has expired."""

MOST_ENDPOINTS = 64
"""Endpoints of one node that are looked at."""

K = TypeVar("K", bound=PublicKey)

_LEGACY_DERP = "127.3.3.40:"
_NO_CAPABILITIES: Mapping[str, list[Raw] | None] = MappingProxyType({})


@frozen(slots=True, eq=False)
class Node:
    """
    A node of the tailnet, this one or a peer.

    Values are never changed; a change of a node makes a new one.

    @ivar id: control's number for it; never used again for another.
    @ivar stableID: names the node over changes of its key.
    @ivar name: its full MagicDNS name in lower case, without a trailing dot.
    @ivar key: who it is for WireGuard and for relays.
    @ivar disco: its key for path discovery, if it has one.
    @ivar addresses: its own tailnet addresses.
    @ivar allowedIPs: its addresses and the routes that control gave it.
    @ivar endpoints: where it can perhaps be reached directly, as text.
    @ivar homeDERP: the relay region it listens to; 0 if it has none.
    @ivar user: the id of its owner.
    @ivar sharer: the id of who shared it from another tailnet, or 0.
    @ivar cap: the capability version that it announced.
    @ivar capMap: its attributes with their values, which stay raw JSON.
    @ivar online: whether control sees it; C{None} if control does not say.
    @ivar expired: whether its key is past its expiry; it then gets no routes,
        and has neither endpoints nor a relay.
    @ivar keySignature: of Tailnet Lock; empty if it has none.
    @ivar unsignedPeerAPIOnly: whether it is let in without a signature of
        Tailnet Lock, to be reached but never to reach anything.
    @ivar isJailed: whether it may only answer, never begin.
    @ivar masqueradeV4: how this node appears to it, if not with its own
        address; packed.
    @ivar wire: the document it was made from.
    """

    id: int
    stableID: str
    name: str
    key: NodePublic
    machine: MachinePublic | None
    disco: DiscoPublic | None
    addresses: tuple[Prefix, ...]
    allowedIPs: tuple[Prefix, ...]
    endpoints: tuple[str, ...]
    homeDERP: int
    user: int
    sharer: int
    tags: tuple[str, ...]
    cap: int
    capMap: Mapping[str, list[Raw] | None]
    online: bool | None
    lastSeen: datetime | None
    keyExpiry: datetime | None
    expired: bool
    machineAuthorized: bool
    hostinfo: Hostinfo
    keySignature: bytes
    unsignedPeerAPIOnly: bool
    isWireGuardOnly: bool
    isJailed: bool
    masqueradeV4: bytes | None = None
    masqueradeV6: bytes | None = None
    exitNodeResolvers: tuple[Resolver, ...] = ()
    wire: WireNode = field(repr=False, factory=WireNode, kw_only=True)

    @classmethod
    def fromWire(
        cls,
        wire: WireNode,
        wallTime: float = 0.0,
        *,
        former: Node | None = None,
        isSelf: bool = False,
    ) -> Node:
        """
        Read a node of a document.

        @param wallTime: what control's clock says now, in Unix seconds; 0
            when nobody knows.
        @param former: the node as it was, of which unchanged parts are taken
            over instead of read again.
        @param isSelf: whether it is this node, of which older servers tell
            attributes in another place, too.
        @raise WireError: a key or a prefix is malformed, or there is no key or
            no id.
        """
        if wire.id <= 0:
            raise WireError(f"node {wire.name!r} has no id")
        addresses, allowed = _readPrefixes(wire, former)
        expired = isExpired(wire, wallTime)
        return cls(
            id=wire.id,
            stableID=wire.stableID,
            name=wire.name.rstrip(".").lower(),
            key=_readKey(wire, former),
            machine=(
                former.machine
                if former is not None and former.wire.machine == wire.machine
                else _optional(MachinePublic, wire.machine)
            ),
            disco=(
                former.disco
                if former is not None and former.wire.discoKey == wire.discoKey
                else _optional(DiscoPublic, wire.discoKey)
            ),
            addresses=addresses,
            allowedIPs=allowed,
            endpoints=() if expired else tuple(wire.endpoints or ()),
            homeDERP=0 if expired else _homeRegion(wire),
            user=wire.user,
            sharer=wire.sharer,
            tags=tuple(wire.tags or ()),
            cap=wire.cap,
            capMap=_readCapMap(wire, isSelf),
            online=wire.online,
            lastSeen=present(wire.lastSeen),
            keyExpiry=present(wire.keyExpiry),
            expired=expired,
            machineAuthorized=wire.machineAuthorized,
            hostinfo=wire.hostinfo or Hostinfo(),
            keySignature=wire.keySignature or b"",
            unsignedPeerAPIOnly=wire.unsignedPeerAPIOnly,
            isWireGuardOnly=wire.isWireGuardOnly,
            isJailed=wire.isJailed,
            masqueradeV4=_address(wire.selfNodeV4MasqAddrForThisPeer, 4),
            masqueradeV6=_address(wire.selfNodeV6MasqAddrForThisPeer, 16),
            exitNodeResolvers=tuple(wire.exitNodeDNSResolvers or ()),
            wire=wire,
        )

    @property
    def hostname(self) -> str:
        """The first label of its name, or what it calls itself."""
        return self.name.partition(".")[0] or self.hostinfo.hostname

    @property
    def tailnetSuffix(self) -> str:
        """The domain that its name stands in."""
        return self.name.partition(".")[2]

    @property
    def isReachable(self) -> bool:
        """Whether there can be a way to it at all."""
        return self.disco is not None or self.homeDERP != 0 or self.isWireGuardOnly

    def packedAddresses(self) -> list[bytes]:
        """Its addresses, packed, IPv4 first."""
        return sorted((p.address for p in self.addresses), key=len)

    def underlayAddresses(self) -> list[AddrPort]:
        """Its endpoints; what is malformed or beyond a bound is left out."""
        found = []
        for text in self.endpoints[:MOST_ENDPOINTS]:
            try:
                found.append(AddrPort.parse(text))
            except WireError:
                continue
        return found

    def servicePort(self, protocol: str) -> int | None:
        """
        The port of a service that the node announces.

        @param protocol: as in its C{Hostinfo}: C{peerapi4}, C{peerapi6},
            C{peerapi-dns-proxy} and others.
        """
        for service in self.hostinfo.services or ():
            if service.proto == protocol and 0 < service.port <= 65535:
                return service.port
        return None

    @property
    def proxiesDNS(self) -> bool:
        """Whether it would resolve names for those whose exit node it is."""
        return (
            self.cap >= PEER_CAP_DOH
            or self.servicePort("peerapi-dns-proxy") is not None
        )


def isExpired(wire: WireNode, wallTime: float) -> bool:
    """
    Whether the key of a node is no longer good.

    @param wallTime: control's time in Unix seconds; a clock that is obviously
        not set lets nothing expire.
    """
    if wire.expired:
        return True
    expiry = present(wire.keyExpiry)
    return (
        expiry is not None
        and wallTime > CLOCK_IS_SET_AFTER
        and expiry.timestamp() < wallTime
    )


def _readKey(wire: WireNode, former: Node | None) -> NodePublic:
    if former is not None and former.wire.key == wire.key:
        return former.key
    key = NodePublic.parse(wire.key)
    if key.isZero():
        raise WireError("the node key is zero")
    return key


def _readPrefixes(
    wire: WireNode, former: Node | None
) -> tuple[tuple[Prefix, ...], tuple[Prefix, ...]]:
    """A node's own addresses, and all prefixes that lead to it."""
    old = None if former is None else former.wire
    if former is not None and old is not None and old.addresses == wire.addresses:
        addresses = former.addresses
    else:
        # An address is an address, whatever length it is written with.
        addresses = tuple([Prefix.host(_hostOf(text)) for text in wire.addresses or ()])
    if (
        wire.allowedIPs is None
        or wire.unsignedPeerAPIOnly
        or wire.allowedIPs == wire.addresses
    ):
        return addresses, addresses
    if (
        former is not None
        and old is not None
        and old.allowedIPs == wire.allowedIPs
        and old.unsignedPeerAPIOnly == wire.unsignedPeerAPIOnly
    ):
        return addresses, former.allowedIPs
    return addresses, tuple([_prefix(text) for text in wire.allowedIPs])


# What the texts of single addresses end with, which are nearly all there are.
_HOST_ENDS = {4: "/32", 16: "/128"}


def _hostOf(text: str) -> bytes:
    """The address that a prefix is written with, whatever its length is."""
    address = parseAddress(text.partition("/")[0])
    if not text.endswith(_HOST_ENDS[len(address)]):
        Prefix.parse(text)  # the length must be possible
    return address


def _prefix(text: str) -> Prefix:
    if text.endswith(_HOST_ENDS[16 if ":" in text else 4]):
        return Prefix.host(parseAddress(text.partition("/")[0]))
    return Prefix.parse(text)


def _readCapMap(wire: WireNode, isSelf: bool) -> Mapping[str, list[Raw] | None]:
    if not isSelf or not wire.capabilities:
        if not wire.capMap:
            return _NO_CAPABILITIES
        return MappingProxyType(wire.capMap)
    capMap: dict[str, list[Raw] | None] = dict.fromkeys(wire.capabilities)
    capMap.update(wire.capMap or {})
    return MappingProxyType(capMap)


def _optional(kind: type[K], text: str) -> K | None:
    """A key, or C{None} for an absent or zero one."""
    if not text:
        return None
    key = kind.parse(text)
    return None if key.isZero() else key


def _address(text: str | None, size: int) -> bytes | None:
    if not text:
        return None
    packed = parseAddress(text)
    if len(packed) != size:
        raise WireError(f"{text!r} is of the wrong family")
    return packed


def _homeRegion(wire: WireNode) -> int:
    if wire.homeDERP > 0:
        return wire.homeDERP
    if wire.derp.startswith(_LEGACY_DERP):
        number = wire.derp.removeprefix(_LEGACY_DERP)
        if number.isascii() and number.isdigit() and len(number) < 10:
            return int(number)
    netInfo = wire.hostinfo.netInfo if wire.hostinfo else None
    preferred = netInfo.preferredDERP if netInfo else 0
    return preferred if isinstance(preferred, int) and preferred > 0 else 0

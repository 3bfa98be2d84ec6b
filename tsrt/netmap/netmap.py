"""
The nodes of a tailnet as typed values, with indexes to find them by.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import TypeVar

from attrs import field, frozen

from tsrt.addresses import Prefix, parseAddress
from tsrt.errors import WireError
from tsrt.keys import DiscoPublic, MachinePublic, NodePublic, PublicKey
from tsrt.tailcfg import (
    CapMap,
    DERPMap,
    DNSConfig,
    Hostinfo,
    UserProfile,
    WireNode,
    present,
)

# Before this time a clock is not set; nothing is called expired (Unix seconds).
CLOCK_IS_SET_AFTER = 1673373066.0

K = TypeVar("K", bound=PublicKey)

_LEGACY_DERP = "127.3.3.40:"


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
    @ivar homeDERP: the relay region it listens to; 0 if it has none.
    @ivar user: the id of its owner.
    @ivar online: whether control sees it; C{None} if control does not say.
    @ivar expired: whether its key is past its expiry; it then gets no routes.
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
    capMap: CapMap
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
    wire: WireNode = field(repr=False, factory=WireNode, kw_only=True)

    @classmethod
    def fromWire(cls, wire: WireNode, wallTime: float = 0.0) -> Node:
        """
        Read a node of a document.

        @param wallTime: what control's clock says now, in Unix seconds; 0
            when nobody knows.
        @raise WireError: a key or a prefix is malformed, or there is none.
        """
        if wire.id <= 0:
            raise WireError(f"node {wire.name!r} has no id")
        addresses = _prefixes(wire.addresses)
        allowed = addresses if wire.allowedIPs is None else _prefixes(wire.allowedIPs)
        if wire.unsignedPeerAPIOnly:
            allowed = addresses
        expiry = present(wire.keyExpiry)
        expired = wire.expired or (
            expiry is not None
            and wallTime > CLOCK_IS_SET_AFTER
            and expiry.timestamp() < wallTime
        )
        capMap = dict(wire.capMap or {})
        for name in wire.capabilities or ():
            capMap.setdefault(name, None)
        return cls(
            id=wire.id,
            stableID=wire.stableID,
            name=wire.name.rstrip(".").lower(),
            key=NodePublic.parse(wire.key),
            machine=_optional(MachinePublic, wire.machine),
            disco=_optional(DiscoPublic, wire.discoKey),
            addresses=addresses,
            allowedIPs=allowed,
            endpoints=() if expired else tuple(wire.endpoints or ()),
            homeDERP=0 if expired else _homeRegion(wire),
            user=wire.user,
            sharer=wire.sharer,
            tags=tuple(wire.tags or ()),
            cap=wire.cap,
            capMap=capMap,
            online=wire.online,
            lastSeen=present(wire.lastSeen),
            keyExpiry=expiry,
            expired=expired,
            machineAuthorized=wire.machineAuthorized,
            hostinfo=wire.hostinfo or Hostinfo(),
            keySignature=wire.keySignature or b"",
            unsignedPeerAPIOnly=wire.unsignedPeerAPIOnly,
            isWireGuardOnly=wire.isWireGuardOnly,
            isJailed=wire.isJailed,
            masqueradeV4=_address(wire.selfNodeV4MasqAddrForThisPeer),
            masqueradeV6=_address(wire.selfNodeV6MasqAddrForThisPeer),
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


def _prefixes(texts: list[str] | None) -> tuple[Prefix, ...]:
    return tuple([Prefix.parse(text) for text in texts or ()])


def _optional(kind: type[K], text: str) -> K | None:
    """A key, or C{None} for an absent or zero one."""
    if not text:
        return None
    key = kind.parse(text)
    return None if key.isZero() else key


def _address(text: str | None) -> bytes | None:
    return parseAddress(text) if text else None


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


class PeerIndex:
    """
    The peers, found by id, key, disco key, address or name.

    An entry of an index goes only with the peer it points to: a value that
    another peer has taken over in the meantime stays that peer's.
    """

    def __init__(self) -> None:
        self.byID: dict[int, Node] = {}
        self._byKey: dict[bytes, Node] = {}
        self._byDisco: dict[bytes, Node] = {}
        self._byAddress: dict[bytes, Node] = {}
        self._byName: dict[str, Node] = {}

    def __len__(self) -> int:
        """How many peers there are."""
        return len(self.byID)

    def __iter__(self) -> Iterator[Node]:
        """All peers, by their ids."""
        for number in sorted(self.byID):
            yield self.byID[number]

    def put(self, node: Node) -> Node | None:
        """
        Insert a peer, or replace the one with its id.

        @return: another peer that had the same node key and had to go: two
            peers cannot be told apart by the same key.
        """
        former = self.byID.get(node.id)
        if former is not None:
            self._unindex(former)
        evicted = self._byKey.get(node.key.raw)
        if evicted is not None:
            self.remove(evicted.id)
        self.byID[node.id] = node
        self._byKey[node.key.raw] = node
        if node.disco is not None:
            self._byDisco[node.disco.raw] = node
        for prefix in node.addresses:
            self._byAddress[prefix.address] = node
        if node.name:
            self._byName[node.name] = node
        return evicted

    def remove(self, number: int) -> Node | None:
        """Remove a peer; return it if there was one."""
        node = self.byID.pop(number, None)
        if node is not None:
            self._unindex(node)
        return node

    def _unindex(self, node: Node) -> None:
        if self._byKey.get(node.key.raw) is node:
            del self._byKey[node.key.raw]
        if node.disco is not None and self._byDisco.get(node.disco.raw) is node:
            del self._byDisco[node.disco.raw]
        for prefix in node.addresses:
            if self._byAddress.get(prefix.address) is node:
                del self._byAddress[prefix.address]
        if self._byName.get(node.name) is node:
            del self._byName[node.name]

    def withKey(self, raw: bytes) -> Node | None:
        """The peer with a node key."""
        return self._byKey.get(raw)

    def withDisco(self, raw: bytes) -> Node | None:
        """The peer with a disco key."""
        return self._byDisco.get(raw)

    def withAddress(self, packed: bytes) -> Node | None:
        """The peer with a tailnet address of its own."""
        return self._byAddress.get(packed)

    def withName(self, name: str) -> Node | None:
        """The peer with a full name."""
        return self._byName.get(name.rstrip(".").lower())


class NetworkMap:
    """
    The tailnet, as this node sees it at the moment.

    L{tsrt.netmap.delta} changes it; everybody else reads.
    """

    def __init__(self) -> None:
        self.selfNode: Node | None = None
        self.peers = PeerIndex()
        self.derpMap = DERPMap(regions={})
        self.dnsConfig = DNSConfig()
        self.domain = ""
        self.userProfiles: dict[int, UserProfile] = {}
        self.health: tuple[str, ...] = ()

    def peerByKey(self, raw: bytes) -> Node | None:
        """The peer with a node key."""
        return self.peers.withKey(raw)

    def peerByAddress(self, packed: bytes) -> Node | None:
        """The peer with a tailnet address."""
        return self.peers.withAddress(packed)

    def peerByName(self, name: str) -> Node | None:
        """The peer with a full name, or with a short one in this tailnet."""
        found = self.peers.withName(name)
        if found is None and self.selfNode is not None:
            suffix = self.selfNode.tailnetSuffix
            if suffix and "." not in name.rstrip("."):
                found = self.peers.withName(f"{name.rstrip('.')}.{suffix}")
        return found

    def nodeByAddress(self, packed: bytes) -> Node | None:
        """The node, this one or a peer, with a tailnet address."""
        own = self.selfNode
        if own is not None and any(p.address == packed for p in own.addresses):
            return own
        return self.peers.withAddress(packed)

    def profile(self, user: int) -> UserProfile | None:
        """What is known of a user."""
        return self.userProfiles.get(user)

    def capabilitiesOf(self, packed: bytes) -> Collection[str]:
        """The attributes of the peer with an address; for C{cap:} rules."""
        node = self.peers.withAddress(packed)
        return () if node is None else node.capMap

    @property
    def regions(self) -> Mapping[int, object]:
        """The relay regions by their numbers."""
        return {k: v for k, v in (self.derpMap.regions or {}).items() if v is not None}

"""
What each node is told about the tailnet at present.

A L{NetworkView} answers from the state and the policy; it keeps what costs time
to work out until something changes.  What a node was told before is no concern
of it; see L{tsrt.testing.control.delta}.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from tsrt.addresses import Prefix
from tsrt.tailcfg import (
    CapGrant,
    CapMap,
    ControlDialPlan,
    DERPMap,
    DNSConfig,
    DNSRecord,
    FilterRule,
    Hostinfo,
    NetPortRange,
    PortRange,
    Raw,
    Resolver,
    SSHPolicy,
    UserProfile,
    WireNode,
    encode,
)
from tsrt.tailcfg.capabilities import IS_ADMIN, SSH
from tsrt.testing.control.records import NodeRecord
from tsrt.testing.control.settings import DNSSettings
from tsrt.testing.control.tailnet import Tailnet
from tsrt.testing.policy import (
    CompiledPolicy,
    CompiledRule,
    PacketRule,
    Policy,
    shellRules,
)

_CacheKey = tuple[int, bool, tuple[Prefix, ...]]


def utc(when: float | None) -> datetime | None:
    """Seconds since 1970 as the protocol's kind of time."""
    return None if when is None else datetime.fromtimestamp(when, UTC)


class NetworkView:
    """
    The tailnet as its nodes see it.

    @ivar dns: how nodes resolve names.
    @ivar derpMap: the relays.
    @ivar health: problems that all nodes show their users.
    @ivar dialPlan: how to reach the server when names do not resolve.
    """

    def __init__(
        self,
        tailnet: Tailnet,
        *,
        policy: Policy,
        dns: DNSSettings,
        derpMap: DERPMap,
        attributes: Mapping[str, tuple[object, ...]],
        wallTime: Callable[[], float],
    ) -> None:
        """
        @param tailnet: the state.
        @param policy: the policy in force.
        @param dns: how nodes resolve names.
        @param derpMap: the relays.
        @param attributes: node attributes for all nodes.
        @param wallTime: seconds since 1970.
        """
        self._tailnet = tailnet
        self._attributes = dict(attributes)
        self._wallTime = wallTime
        self._policy = policy
        self.dns = dns
        self.derpMap = derpMap
        self.health: tuple[str, ...] = ()
        self.dialPlan: ControlDialPlan | None = None
        self._compiled: CompiledPolicy | None = None
        self._primary: dict[int, tuple[Prefix, ...]] | None = None
        self._shown: dict[int, WireNode] | None = None
        self._cache: dict[int, tuple[_CacheKey, WireNode]] = {}
        self._overrides: dict[tuple[int, int], Mapping[str, object]] = {}

    def invalidate(self) -> None:
        """Something has changed: look at everything again."""
        self._compiled = None
        self._primary = None
        self._shown = None

    def compiled(self) -> CompiledPolicy:
        """The policy, worked out for the present nodes."""
        if self._compiled is None:
            self._compiled = CompiledPolicy(
                self._policy, [node.subject() for node in self._tailnet.nodes()]
            )
        return self._compiled

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    def setPolicy(self, policy: Policy) -> None:
        """Put another policy in force."""
        self._policy = policy
        # What it gives to nodes is part of how peers are shown.
        self._cache.clear()
        self.invalidate()

    def override(self, viewer: int, peer: int, fields: Mapping[str, object]) -> None:
        """
        Show one node another differently than it is.

        @param viewer: the number of the node that is shown something.
        @param peer: the number of the node that is shown.
        @param fields: values by attribute of L{WireNode}; none shows it as it is.
        """
        if fields:
            self._overrides[viewer, peer] = dict(fields)
        else:
            self._overrides.pop((viewer, peer), None)

    def forget(self, node: NodeRecord) -> None:
        """A node is gone."""
        self._cache.pop(node.id, None)
        for pair in [pair for pair in self._overrides if node.id in pair]:
            del self._overrides[pair]

    # -- nodes ------------------------------------------------------------------------

    def fullName(self, node: NodeRecord) -> str:
        """The name of a node in DNS, without a dot at its end."""
        return f"{node.name}.{self._tailnet.domain}"

    def self(self, node: NodeRecord) -> WireNode:
        """A node as it is told about itself."""
        shown = copy.copy(self._shared(node))
        values: dict[str, tuple[object, ...]] = {
            **self._attributes,
            **({IS_ADMIN: ()} if node.user.admin and not node.tags else {}),
            **({SSH: ()} if self._policy.ssh else {}),
        }
        for name, more in self._given(node).items():
            values[name] = values.get(name, ()) + more
        shown.capMap = _capMap(values)
        shown.hostinfo = node.hostinfo
        return shown

    def peers(self, node: NodeRecord) -> dict[int, WireNode]:
        """The peers that a node is told of, by number, in order."""
        if not node.authorized or node.isExpired(self._wallTime()):
            return {}
        visible = self.compiled().visible(node.subject())
        peers = {
            number: shown
            for number, shown in self._everybody().items()
            if number in visible
        }
        for (viewer, number), changes in self._overrides.items():
            if viewer == node.id and number in peers:
                shown = copy.copy(peers[number])
                for name, value in changes.items():
                    setattr(shown, name, value)
                peers[number] = shown
        return peers

    def _everybody(self) -> dict[int, WireNode]:
        """All approved nodes as their peers are told, by number, in order."""
        if self._shown is None:
            self._shown = {
                node.id: self._shared(node)
                for node in self._tailnet.nodes()
                if node.authorized
            }
        return self._shown

    def _given(self, node: NodeRecord) -> dict[str, tuple[object, ...]]:
        """The attributes that the policy or the interface give to a node."""
        values = self.compiled().attributes(node.subject())
        for name, more in node.attributes.items():
            values[name] = values.get(name, ()) + more
        return values

    def _shared(self, node: NodeRecord) -> WireNode:
        """A node as its peers are told; the same object while it is the same."""
        expired = node.isExpired(self._wallTime())
        routes = self._primaryRoutes().get(node.id, ())
        key = (node.revision, expired, routes)
        known = self._cache.get(node.id)
        if known is not None and known[0] == key:
            return known[1]
        shown = self._build(node, expired, routes)
        self._cache[node.id] = (key, shown)
        return shown

    def _build(
        self, node: NodeRecord, expired: bool, primary: tuple[Prefix, ...]
    ) -> WireNode:
        addresses = [prefix.text() for prefix in node.addresses]
        exits = [route for route in node.servedRoutes if route.length == 0]
        routes = [prefix.text() for prefix in (*primary, *exits)]
        return WireNode(
            id=node.id,
            stableID=node.stableID,
            name=self.fullName(node) + ".",
            user=node.ownerID,
            key=node.nodeKey.text(),
            keyExpiry=utc(node.expires),
            keySignature=node.keySignature or None,
            machine=node.machineKey.text(),
            discoKey=node.discoKey.text() if node.discoKey else "",
            addresses=addresses,
            allowedIPs=[*addresses, *routes],
            endpoints=list(node.endpoints),
            derp=f"127.3.3.40:{node.homeDERP}" if node.homeDERP else "",
            homeDERP=node.homeDERP,
            hostinfo=_reduced(node.hostinfo),
            created=utc(node.created),
            cap=node.version,
            tags=list(node.tags) or None,
            primaryRoutes=[prefix.text() for prefix in primary] or None,
            lastSeen=utc(node.lastSeen),
            online=node.online,
            machineAuthorized=node.authorized,
            capMap=_capMap(self._given(node)) or None,
            expired=expired,
        )

    def _primaryRoutes(self) -> dict[int, tuple[Prefix, ...]]:
        """Which node serves each subnet: one of those that offer it."""
        if self._primary is None:
            chosen: dict[Prefix, NodeRecord] = {}
            now = self._wallTime()
            for node in self._tailnet.nodes():
                if not node.authorized or node.isExpired(now):
                    continue
                for route in node.servedRoutes:
                    current = chosen.get(route)
                    better = current is None or (node.online and not current.online)
                    if route.length and better:
                        chosen[route] = node
            primary: dict[int, tuple[Prefix, ...]] = {}
            for route, node in chosen.items():
                primary[node.id] = (*primary.get(node.id, ()), route)
            self._primary = primary
        return self._primary

    # -- the rest -----------------------------------------------------------------

    def filter(self, node: NodeRecord) -> list[FilterRule]:
        """The packet filter of a node."""
        return [_rule(rule) for rule in self.compiled().rulesFor(node.subject())]

    def profiles(
        self, own: WireNode, peers: Mapping[int, WireNode]
    ) -> dict[int, UserProfile]:
        """The users of the nodes that a node is told of."""
        ids = {own.user, *(peer.user for peer in peers.values())}
        profiles = {}
        for number in sorted(ids):
            user = self._tailnet.profile(number)
            profiles[number] = UserProfile(
                id=number, loginName=user.login, displayName=user.displayName
            )
        return profiles

    def dnsConfig(self, node: NodeRecord) -> DNSConfig:
        """How a node resolves names."""
        dns = self.dns
        domain = self._tailnet.domain
        return DNSConfig(
            proxied=dns.magicDNS,
            domains=[domain, *dns.searchDomains] if dns.magicDNS else [],
            resolvers=[Resolver(addr=address) for address in dns.nameservers],
            routes={
                suffix: [Resolver(addr=address) for address in addresses]
                for suffix, addresses in dns.routes.items()
            },
            certDomains=[self.fullName(node)] if dns.certificates else [],
            extraRecords=[
                DNSRecord(name=name, type=kind, value=value)
                for name, kind, value in dns.records
            ],
        )

    def sshPolicy(self, node: NodeRecord) -> SSHPolicy:
        """Who may open a shell on a node."""
        if not self._policy.ssh:
            return SSHPolicy(rules=[])
        everyone = [other.subject() for other in self._tailnet.nodes()]
        rules = shellRules(self._policy, node.subject(), everyone)
        return SSHPolicy(rules=[Raw(encode(rule)) for rule in rules])

    @property
    def domain(self) -> str:
        """The name of the tailnet."""
        return self._tailnet.domain


def _reduced(hostinfo: Hostinfo) -> Hostinfo:
    """The part of what a node says about itself that its peers are told."""
    return Hostinfo(
        os=hostinfo.os,
        osVersion=hostinfo.osVersion,
        hostname=hostinfo.hostname,
        services=hostinfo.services,
        shareeNode=hostinfo.shareeNode,
        sshHostKeys=hostinfo.sshHostKeys,
        peerRelay=hostinfo.peerRelay,
        appConnector=hostinfo.appConnector,
        location=hostinfo.location,
    )


def _capMap(values: Mapping[str, tuple[object, ...]]) -> CapMap:
    """Names and values in the protocol's form."""
    return {
        name: [Raw(encode(value)) for value in several] or None
        for name, several in values.items()
    }


def _rule(rule: CompiledRule) -> FilterRule:
    """A rule of the policy in the protocol's form."""
    if isinstance(rule, PacketRule):
        return FilterRule(
            srcIPs=list(rule.sources),
            dstPorts=[
                NetPortRange(
                    ip=target, ports=PortRange(first=ports.first, last=ports.last)
                )
                for target, ports in rule.destinations
            ],
            ipProto=list(rule.protocols) or None,
        )
    return FilterRule(
        srcIPs=list(rule.sources),
        capGrant=[
            CapGrant(
                dsts=list(rule.destinations),
                capMap=_capMap(rule.capabilities),
            )
        ],
    )

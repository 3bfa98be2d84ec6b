"""
The node and its tailnet in the shape of C{tailscale status --json}.

Scripts and packages that parse that read this unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from tsrt._version import __version__
from tsrt.addresses import formatAddress
from tsrt.dataplane.choice import TIER
from tsrt.errors import WireError
from tsrt.netmap.exitnode import ExitChoice, offersExit
from tsrt.netmap.netmap import NetworkMap
from tsrt.netmap.node import Node
from tsrt.path.places import Via
from tsrt.path.status import PathStatus
from tsrt.runtime.status import NodeStatus
from tsrt.tailcfg import formatTime
from tsrt.tailcfg.codec import decodeRaw, toBuiltins
from tsrt.tunnel.peer import PeerTunnelStatus
from tsrt.underlay.batchport import Offloads

ACTIVE = 120.0
"""Seconds after the last packet for which a peer counts as active."""

_NEVER = formatTime(None)


@frozen(kw_only=True)
class StatusSources:
    """
    Where what is told comes from.

    @ivar path: how packets to a peer go, by its raw node key.
    @ivar tunnel: how the tunnel to a peer stands, likewise.
    @ivar endpoints: where this node may be reached.
    @ivar regionName: the code of a relay region, or its number.
    @ivar offloads: what the system does for the UDP socket of each family (4 or 6)
        that has one.
    @ivar age: the seconds since a time of paths and tunnels.
    @ivar wallclock: the seconds since 1970.
    """

    netmap: Callable[[], NetworkMap]
    status: Callable[[], NodeStatus]
    path: Callable[[bytes], PathStatus | None]
    tunnel: Callable[[bytes], PeerTunnelStatus | None]
    endpoints: Callable[[], Iterable[str]]
    regionName: Callable[[int], str]
    exitNode: Callable[[], ExitChoice]
    offloads: Callable[[], Mapping[int, Offloads]]
    age: Callable[[float], float]
    wallclock: Callable[[], float]


class BackendStatus:
    """Makes documents of the present."""

    def __init__(self, sources: StatusSources) -> None:
        self._from = sources

    def document(self, peers: bool = True) -> dict[str, Any]:
        """
        The status as values of JSON.

        @param peers: whether to tell of peers and users, too.
        """
        sources = self._from
        netmap, status = sources.netmap(), sources.status()
        own = netmap.selfNode
        exitNode = sources.exitNode().node
        document: dict[str, Any] = {
            "Version": __version__,
            "TUN": False,
            "BackendState": status.state.value,
        }
        if own is not None:
            # Control knows our key; until then it may know none of ours.
            document["HaveNodeKey"] = True
        document |= {
            "AuthURL": status.loginURL,
            "TailscaleIPs": list(status.addresses),
            "Self": None if own is None else self._self(own),
        }
        if exitNode is not None:
            document["ExitNodeStatus"] = {
                "ID": exitNode.stableID,
                "Online": exitNode.online is not False,
                "TailscaleIPs": [prefix.text() for prefix in exitNode.addresses],
            }
        dns = netmap.dnsConfig
        document |= {
            "Health": list(status.health),
            "MagicDNSSuffix": status.magicDNSSuffix,
            "CurrentTailnet": {
                "Name": status.tailnet,
                "MagicDNSSuffix": status.magicDNSSuffix,
                "MagicDNSEnabled": dns.proxied,
            },
            "CertDomains": list(dns.certDomains or ()) or None,
            "ExtraRecords": toBuiltins(dns.extraRecords or None),
            "Peer": None,
            "User": None,
            "ClientVersion": None,
            "DataPlane": self._dataPlane(),
        }
        if peers:
            document["Peer"] = {
                peer.key.text(): self._peer(peer, exitNode) for peer in netmap.peers
            }
            document["User"] = self._users(netmap)
        return document

    def _dataPlane(self) -> dict[str, Any]:
        """By what means packets are handled; of our own, as others have no tiers."""
        return {"Tier": TIER.name} | {
            f"IPv{family}": {
                "UDPReceiveOffload": offloads.joins,
                "UDPSendOffload": offloads.cuts,
                "PathsWithoutSendOffload": offloads.singles,
            }
            for family, offloads in self._from.offloads().items()
        }

    def _users(self, netmap: NetworkMap) -> dict[str, Any]:
        owners = {peer.user for peer in netmap.peers}
        if netmap.selfNode is not None:
            owners.add(netmap.selfNode.user)
        found = {}
        for owner in sorted(owners):
            profile = netmap.profile(owner)
            if profile is not None:
                found[str(owner)] = user = {
                    "ID": profile.id,
                    "LoginName": profile.loginName,
                    "DisplayName": profile.displayName,
                }
                if profile.profilePicURL:
                    user["ProfilePicURL"] = profile.profilePicURL
        return found

    def _self(self, own: Node) -> dict[str, Any]:
        return self._node(own) | {
            "Addrs": list(self._from.endpoints()),
            "Relay": self._from.status().homeRegion,
            "Online": own.online is not False,
            "InNetworkMap": True,
            "Capabilities": sorted(own.capMap),
            "CapMap": _capabilities(own),
        }

    def _peer(self, peer: Node, exitNode: Node | None) -> dict[str, Any]:
        key = peer.key.raw
        path, tunnel = self._from.path(key), self._from.tunnel(key)
        document = self._node(peer)
        document["InMagicSock"] = path is not None
        document["InEngine"] = tunnel is not None and tunnel.sendsUntil is not None
        if path is not None:
            if path.place is not None and path.isTrusted:
                field = "PeerRelay" if isinstance(path.place, Via) else "CurAddr"
                document[field] = path.place.text()
            if path.lastSent is not None:
                document["LastWrite"] = self._time(path.lastSent)
                document["Active"] = self._from.age(path.lastSent) < ACTIVE
        if tunnel is not None:
            document["RxBytes"] = tunnel.receivedBytes
            document["TxBytes"] = tunnel.sentBytes
            if tunnel.lastHandshake is not None:
                document["LastHandshake"] = self._time(tunnel.lastHandshake)
        return document | {
            "Relay": self._from.regionName(peer.homeDERP) if peer.homeDERP else "",
            "Online": peer.online is True,
            "ExitNode": peer is exitNode,
            "ExitNodeOption": offersExit(peer),
            "InNetworkMap": True,
        }

    def _time(self, then: float) -> str:
        seconds = self._from.wallclock() - self._from.age(then)
        return formatTime(datetime.fromtimestamp(seconds, UTC))

    def _node(self, node: Node) -> dict[str, Any]:
        """What is told of any node, in the order of the original."""
        document: dict[str, Any] = {
            "ID": node.stableID,
            "NodeID": node.id,
            "PublicKey": node.key.text(),
            "HostName": node.hostinfo.hostname or node.hostname,
            "DNSName": f"{node.name}." if node.name else "",
            "OS": node.hostinfo.os,
            "UserID": node.user,
        }
        if node.sharer:
            document["AltSharerUserID"] = node.sharer
        document["TailscaleIPs"] = list(map(formatAddress, node.packedAddresses()))
        document["AllowedIPs"] = [prefix.text() for prefix in node.allowedIPs]
        if node.tags:
            document["Tags"] = list(node.tags)
        if node.wire.primaryRoutes:
            document["PrimaryRoutes"] = list(node.wire.primaryRoutes)
        document |= {
            "Addrs": None,
            "CurAddr": "",
            "Relay": "",
            "PeerRelay": "",
            "RxBytes": 0,
            "TxBytes": 0,
            "Created": formatTime(node.wire.created),
            "LastWrite": _NEVER,
            "LastSeen": formatTime(node.lastSeen),
            "LastHandshake": _NEVER,
            "Online": False,
            "ExitNode": False,
            "ExitNodeOption": False,
            "Active": False,
            "PeerAPIURL": _peerAPI(node) or None,
            "TaildropTarget": 0,
            "NoFileSharingReason": "",
        }
        if node.hostinfo.sshHostKeys:
            document["sshHostKeys"] = list(node.hostinfo.sshHostKeys)
        document |= {"InNetworkMap": False, "InMagicSock": False, "InEngine": False}
        if node.expired:
            document["Expired"] = True
        if node.keyExpiry is not None:
            document["KeyExpiry"] = formatTime(node.keyExpiry)
        if node.hostinfo.location is not None:
            document["Location"] = toBuiltins(node.hostinfo.location)
        return document


def _peerAPI(node: Node) -> list[str]:
    urls = []
    for packed in node.packedAddresses():
        four = len(packed) == 4
        port = node.servicePort("peerapi4" if four else "peerapi6")
        if port is not None:
            text = formatAddress(packed)
            urls.append(f"http://{text if four else f'[{text}]'}:{port}")
    return urls


def _capabilities(node: Node) -> Mapping[str, list[object] | None]:
    found: dict[str, list[object] | None] = {}
    for name, values in sorted(node.capMap.items()):
        if values is None:
            found[name] = None
            continue
        found[name] = read = []
        for raw in values:
            try:
                read.append(decodeRaw(raw))
            except WireError:
                continue
    return found

"""
The names of a tailnet: MagicDNS, looked up in the netmap.
"""

from __future__ import annotations

from collections.abc import Iterable

from tsrt.addresses import formatAddress, parseAddress
from tsrt.errors import WireError
from tsrt.netmap.netmap import NetworkMap, Node
from tsrt.tailcfg.capabilities import DNS_SUBDOMAIN_RESOLVE

SERVICE_NAME = "magicdns.localhost-tailscale-daemon"

_FAMILY_OF_TYPE = {"": (4, 16), "A": (4,), "AAAA": (16,)}


def canonical(name: str) -> str:
    """A name as it is compared: lower case, without a trailing dot."""
    return name.rstrip(".").lower()


class NameTable:
    """
    Addresses by name and names by address.

    It is made anew when the netmap changes; look-ups cost a dictionary access
    for each candidate.
    """

    def __init__(self, netmap: NetworkMap) -> None:
        """
        @param netmap: what to take nodes, extra records and search domains
            from, as they are now.
        """
        config = netmap.dnsConfig
        own = netmap.selfNode
        self._hosts: dict[str, list[bytes]] = {}
        self._reverse: dict[bytes, str] = {}
        self._parents: set[str] = set()
        self._domains = [d for d in map(canonical, config.domains or ()) if d]
        if own is not None and own.tailnetSuffix not in ("", *self._domains):
            self._domains.insert(0, own.tailnetSuffix)
        # Names of peers first, so that nobody can take this node's own name.
        for node in [*netmap.peers, *([own] if own is not None else [])]:
            if node.name:
                self._hosts[node.name] = _order(node.packedAddresses())
                if DNS_SUBDOMAIN_RESOLVE in node.capMap:
                    self._parents.add(node.name)
                for packed in node.packedAddresses():
                    self._reverse[packed] = node.name
        for record in config.extraRecords or ():
            self._addRecord(record.name, record.type, record.value)

    def _addRecord(self, name: str, kind: str, value: str) -> None:
        families = _FAMILY_OF_TYPE.get(kind.upper())
        name = canonical(name)
        if families is None or not name:
            return
        try:
            packed = parseAddress(value)
        except WireError:
            return
        if len(packed) in families:
            addresses = self._hosts.setdefault(name, [])
            if packed not in addresses:
                addresses.append(packed)

    def resolve(self, name: str) -> list[bytes]:
        """
        The packed addresses of a name, IPv4 first; none if it is unknown.

        A name is looked up as it is, and then below each search domain.
        """
        wanted = canonical(name)
        if not wanted:
            return []
        for candidate in (wanted, *(f"{wanted}.{d}" for d in self._domains)):
            found = self._hosts.get(candidate)
            if found is not None:
                return list(found)
        parent = wanted
        while parent:
            parent = parent.partition(".")[2]
            if parent in self._parents:
                return list(self._hosts[parent])
        return []

    def nameOf(self, packed: bytes) -> str | None:
        """The full name of the node with an address."""
        return self._reverse.get(packed)

    def isLocal(self, name: str) -> bool:
        """Whether a name belongs to this tailnet, known or not."""
        wanted = canonical(name)
        return any(wanted == d or wanted.endswith(f".{d}") for d in self._domains)

    @property
    def domains(self) -> tuple[str, ...]:
        """The search domains, this tailnet's own first."""
        return tuple(self._domains)

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._hosts)


def _order(addresses: Iterable[bytes]) -> list[bytes]:
    return sorted(addresses, key=len)


def displayName(node: Node) -> str:
    """What to call a node: its full name, or else what else is known of it."""
    if node.name:
        return node.name
    if node.hostinfo.hostname:
        return node.hostinfo.hostname
    addresses = node.packedAddresses()
    return formatAddress(addresses[0]) if addresses else node.key.short()

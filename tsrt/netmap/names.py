"""
The names of a tailnet: MagicDNS, looked up in the netmap.

There are two kinds of askers.  Programs in this process want all addresses of
a node (L{NameTable.resolve}).  DNS clients get what MagicDNS answers
(L{NameTable.answer}), which prefers one family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tsrt.addresses import (
    CGNAT,
    SERVICE_IPV4,
    SERVICE_IPV6,
    formatAddress,
    parseAddress,
    parseViaName,
)
from tsrt.errors import WireError
from tsrt.netmap.netmap import NetworkMap
from tsrt.netmap.node import Node
from tsrt.tailcfg import DNSConfig, DNSRecord
from tsrt.tailcfg.capabilities import DNS_SUBDOMAIN_RESOLVE, MAGICDNS_AAAA

SERVICE_NAME = "magicdns.localhost-tailscale-daemon"
"""What the addresses are called at which every node finds MagicDNS."""

_FAMILIES = {"": (4, 16), "A": (4,), "AAAA": (16,)}

# fd7a:115c:a1e0:ab12:4843:cd96:6200::/104 holds nodes by the last three bytes
# of their IPv4 addresses.
_MAPPED_NODES = bytes.fromhex("fd7a115ca1e0ab124843cd9662")


def canonical(name: str) -> str:
    """A name as it is compared: lower case, without a trailing dot."""
    return name.rstrip(".").lower()


class NameTable:
    """
    Addresses by name and names by address.

    It is made anew when the netmap changes; look-ups cost a dictionary access
    for each candidate.
    """

    def __init__(self, netmap: NetworkMap, acceptDNS: bool = True) -> None:
        """
        @param netmap: what to take nodes, extra records and search domains
            from, as they are now.
        @param acceptDNS: whether its DNS settings hold; else there are only the
            names of nodes.
        """
        own = netmap.selfNode
        self._hosts: dict[str, list[bytes]] = {}
        self._answers: dict[str, list[bytes]] = {}
        self._reverse: dict[bytes, str] = {}
        self._parents: set[str] = set()
        self._domains: list[str] = []
        self._local: tuple[str, ...] = ()
        if own is not None and own.expired:
            return  # nothing can be reached, so nothing has a name
        config = netmap.dnsConfig if acceptDNS else DNSConfig()
        # An empty domain would make every name a local one (rule R-DNS-13).
        self._domains = [d for d in map(canonical, config.domains or ()) if d]
        suffix = "" if own is None else own.tailnetSuffix
        if suffix and suffix not in self._domains:
            self._domains.insert(0, suffix)
        self._local = tuple(f".{domain}" for domain in self._domains)
        answers = _AnswerRule(own)
        for node in netmap.peers:
            self._addNode(node, answers)
        if own is not None:
            # The last to be added, so that nobody can take this node's name.
            self._addNode(own, answers)
        for record in config.extraRecords or ():
            self._addRecord(record)

    def _addNode(self, node: Node, answers: _AnswerRule) -> None:
        if not node.name:
            return
        addresses = node.packedAddresses()
        self._hosts[node.name] = addresses
        self._answers[node.name] = answers.choose(addresses)
        if DNS_SUBDOMAIN_RESOLVE in node.capMap:
            self._parents.add(node.name)
        for packed in addresses:
            self._reverse[packed] = node.name

    def _addRecord(self, record: DNSRecord) -> None:
        families = _FAMILIES.get(record.type.upper())
        name = canonical(record.name)
        if families is None or not name:
            return
        try:
            packed = parseAddress(record.value)
        except WireError:
            return
        # A record of one family is no answer for the other (rule R-DNS-16).
        if len(packed) in families:
            _extend(self._hosts, name, packed)
            _extend(self._answers, name, packed)

    # -- from names to addresses ----------------------------------------------------

    def resolve(self, name: str) -> list[bytes]:
        """
        All packed addresses of a name, IPv4 first; none if it is unknown.

        A name is looked up as it is, and then below each search domain.
        """
        wanted = canonical(name)
        if not wanted:
            return []
        for candidate in (wanted, *(wanted + domain for domain in self._local)):
            found = self._hosts.get(candidate)
            if found is not None:
                return list(found)
        special = _special(wanted)
        if special:
            return special
        return list(self._below(wanted, self._hosts))

    def answer(self, name: str) -> list[bytes] | None:
        """
        The packed addresses that MagicDNS gives for a full name.

        Unless this node asks for both (the attribute C{magicdns-aaaa}), a node
        with IPv4 is found by IPv4 only.

        @return: C{None} if the name is unknown; a name may also be known and
            have no addresses.
        """
        wanted = canonical(name)
        found: Sequence[bytes] | None = self._answers.get(wanted)
        if found is None:
            special = _special(wanted)
            if special:
                return special
            found = self._below(wanted, self._answers) or None
        return None if found is None else list(found)

    def _below(self, wanted: str, hosts: Mapping[str, list[bytes]]) -> Sequence[bytes]:
        """The addresses of the nearest node that stands for all names below it."""
        if not self._parents:
            return ()
        parent = wanted
        while parent:
            parent = parent.partition(".")[2]
            if parent in self._parents:
                return hosts[parent]
        return ()

    # -- from addresses to names ------------------------------------------------------

    def nameOf(self, packed: bytes) -> str | None:
        """The full name of the node with an address."""
        if packed in (SERVICE_IPV4, SERVICE_IPV6):
            return SERVICE_NAME
        if packed.startswith(_MAPPED_NODES):
            return self._reverse.get(packed) or self._reverse.get(
                CGNAT.address[:1] + packed[13:]
            )
        return self._reverse.get(packed)

    # -- about names --------------------------------------------------------------------

    def isLocal(self, name: str) -> bool:
        """Whether a name belongs to this tailnet, known or not."""
        return f".{canonical(name)}".endswith(self._local)

    @property
    def domains(self) -> tuple[str, ...]:
        """The search domains, this tailnet's own first."""
        return tuple(self._domains)

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._hosts)


class _AnswerRule:
    """Which of a node's addresses DNS clients are told."""

    def __init__(self, own: Node | None) -> None:
        ownFamilies = {len(p.address) for p in own.addresses} if own else set()
        self._onlyIPv6 = ownFamilies == {16}
        self._both = own is not None and MAGICDNS_AAAA in own.capMap

    def choose(self, addresses: list[bytes]) -> list[bytes]:
        """
        The addresses to tell.

        @param addresses: all of them, IPv4 first.
        """
        if self._onlyIPv6:
            return [packed for packed in addresses if len(packed) == 16]
        if self._both or not addresses or len(addresses[0]) == 16:
            return addresses
        return [packed for packed in addresses if len(packed) == 4]


def _extend(hosts: dict[str, list[bytes]], name: str, packed: bytes) -> None:
    """Add an address to a name, without touching lists that others have."""
    known = hosts.get(name, [])
    if packed not in known:
        hosts[name] = sorted([*known, packed], key=len)


def _special(wanted: str) -> list[bytes]:
    """The addresses of names that no node has."""
    if wanted == SERVICE_NAME:
        return [SERVICE_IPV4, SERVICE_IPV6]
    via = parseViaName(wanted)
    return [] if via is None else [via]


def displayName(node: Node) -> str:
    """What to call a node: its full name, or else what else is known of it."""
    if node.name:
        return node.name
    if node.hostinfo.hostname:
        return node.hostinfo.hostname
    addresses = node.packedAddresses()
    return formatAddress(addresses[0]) if addresses else node.key.short()

"""
Filter rules, compiled: who may send what where, and who may do what.

Bad entries of rules are left out and the first is remembered; what is left
stays in force.  A rule can so only become narrower, never wider.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from attrs import define, field

from tsrt.addresses import Prefix, parseAddress
from tsrt.errors import WireError
from tsrt.netmap.routes import RouteTable
from tsrt.tailcfg import CapGrant, FilterRule, Raw

# What a rule without protocols means: TCP, UDP, ICMP and ICMPv6.
DEFAULT_PROTOCOLS = frozenset((6, 17, 1, 58))

_EVERYTHING = (Prefix(bytes(4), 0), Prefix(bytes(16), 0))

# A range of addresses becomes at most this many prefixes (two a bit).
_MOST_PREFIXES = 256


def parseAddresses(text: str) -> tuple[Prefix, ...]:
    """
    Read C{*}, C{a.b.c.d}, C{a.b.c.d/n} or C{a.b.c.d-e.f.g.h}.

    @raise WireError: it is none of these, or a prefix with bits set beyond
        its length.
    """
    if text == "*":
        return _EVERYTHING
    if "/" in text:
        return (Prefix.parse(text, strict=True),)
    if text.count("-") == 1:
        first, last = (parseAddress(end) for end in text.split("-"))
        return prefixesBetween(first, last)
    return (Prefix.host(parseAddress(text)),)


def prefixesBetween(first: bytes, last: bytes) -> tuple[Prefix, ...]:
    """
    The fewest prefixes that hold all addresses from C{first} to C{last}.

    @raise WireError: the ends are of two families, or in the wrong order.
    """
    if len(first) != len(last) or first > last:
        raise WireError("the ends of an address range do not fit together")
    bits = len(first) * 8
    low, high = int.from_bytes(first, "big"), int.from_bytes(last, "big")
    found: list[Prefix] = []
    while low <= high and len(found) < _MOST_PREFIXES:
        # As wide as the alignment of `low` and what is left allow.
        width = (low & -low).bit_length() - 1 if low else bits
        while (1 << width) > high - low + 1:
            width -= 1
        found.append(Prefix(low.to_bytes(len(first), "big"), bits - width))
        low += 1 << width
    return tuple(found)


@define
class Match:
    """
    One compiled rule.

    @ivar protocols: IP protocol numbers.
    @ivar sources: prefixes that may send.
    @ivar sourceCaps: node attributes whose holders may send.
    @ivar destinations: prefixes with the first and the last port.
    """

    protocols: frozenset[int]
    sources: RouteTable[bool]
    sourceCaps: frozenset[str]
    destinations: list[tuple[Prefix, int, int]]

    def allowsPort(self, address: bytes, port: int) -> bool:
        """Whether a destination is among this rule's."""
        for prefix, first, last in self.destinations:
            if first <= port <= last and prefix.contains(address):
                return True
        return False

    def allowsAddress(self, address: bytes) -> bool:
        """Whether a destination is among this rule's on any port."""
        return any(prefix.contains(address) for prefix, _, _ in self.destinations)

    def allowsEveryPort(self, address: bytes) -> bool:
        """Whether a destination is among this rule's on all ports."""
        return any(
            first == 0 and last == 65535 and prefix.contains(address)
            for prefix, first, last in self.destinations
        )


@define
class Grant:
    """Capabilities that sources have towards a destination."""

    sources: RouteTable[bool]
    destinations: tuple[Prefix, ...]
    capabilities: dict[str, list[Raw]]


@define
class RuleSet:
    """
    All rules in force.

    @ivar errors: what had to be left out, in sentences.
    """

    matches: list[Match] = field(factory=list)
    grants: list[Grant] = field(factory=list)
    errors: list[str] = field(factory=list)

    def isAllowed(
        self,
        protocol: int,
        source: bytes,
        destination: bytes,
        port: int,
        attributes: Callable[[bytes], Collection[str]],
    ) -> bool:
        """Whether some rule lets a packet in."""
        held: Collection[str] | None = None
        for match in self.matches:
            if protocol not in match.protocols:
                continue
            if source not in match.sources:
                if not match.sourceCaps:
                    continue
                if held is None:
                    held = attributes(source)
                if match.sourceCaps.isdisjoint(held):
                    continue
            if match.allowsPort(destination, port):
                return True
        return False

    def capabilities(self, source: bytes, destination: bytes) -> dict[str, list[Raw]]:
        """What C{source} may do at C{destination}, with all values."""
        found: dict[str, list[Raw]] = {}
        for grant in self.grants:
            if source in grant.sources and any(
                prefix.contains(destination) for prefix in grant.destinations
            ):
                for name, values in grant.capabilities.items():
                    found.setdefault(name, []).extend(values)
        return found

    def sourcesOverlap(self, prefixes: Iterable[Prefix]) -> bool:
        """Whether a rule with destinations lets any of C{prefixes} send."""
        return any(
            prefix.address in match.sources
            for prefix in prefixes
            for match in self.matches
        )


def compileRules(rules: Iterable[FilterRule]) -> RuleSet:
    """
    Compile rules.

    A rule in a form that is long out of use means that the whole filter is
    not understood: nothing at all is let in then.
    """
    compiled = RuleSet()
    for number, rule in enumerate(rules):
        if rule.srcBits or any(isinstance(d.bits, int) for d in rule.dstPorts or ()):
            return RuleSet(
                errors=[f"rule {number} has bit counts; no rule is in force"]
            )
        _compileRule(number, rule, compiled)
    return compiled


def _compileRule(number: int, rule: FilterRule, compiled: RuleSet) -> None:
    def wrong(what: str, error: WireError) -> None:
        compiled.errors.append(f"rule {number}, {what}: {error}")

    sources: RouteTable[bool] = RouteTable()
    caps = set()
    for text in rule.srcIPs or ():
        if text.startswith("cap:"):
            caps.add(text.removeprefix("cap:"))
            continue
        try:
            for prefix in parseAddresses(text):
                sources.insert(prefix, True)
        except WireError as error:
            wrong(f"source {text!r}", error)
    destinations = []
    for destination in rule.dstPorts or ():
        first, last = destination.ports.first, destination.ports.last
        try:
            if not 0 <= first <= last <= 65535:
                raise WireError(f"{first}-{last} are no ports")
            for prefix in parseAddresses(destination.ip):
                destinations.append((prefix, first, last))
        except WireError as error:
            wrong(f"destination {destination.ip!r}", error)
    if destinations and (caps or len(sources)):
        numbers = rule.ipProto
        protocols = (
            frozenset(n for n in numbers if 0 <= n <= 255)
            if numbers
            else DEFAULT_PROTOCOLS
        )
        compiled.matches.append(
            Match(protocols, sources, frozenset(caps), destinations)
        )
    for grant in rule.capGrant or ():
        try:
            compiled.grants.append(_compileGrant(sources, grant))
        except WireError as error:
            wrong("grant", error)


def _compileGrant(sources: RouteTable[bool], grant: CapGrant) -> Grant:
    capabilities: dict[str, list[Raw]] = {name: [] for name in grant.caps or ()}
    for name, values in (grant.capMap or {}).items():
        capabilities.setdefault(name, []).extend(values or ())
    destinations = tuple(Prefix.parse(text) for text in grant.dsts or ())
    return Grant(sources, destinations, capabilities)

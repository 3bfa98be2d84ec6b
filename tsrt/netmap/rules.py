"""
Filter rules, compiled: who may send what where, and who may do what.

Bad entries of rules are left out and remembered; what is left stays in force.
A rule can so only become narrower, never wider.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from attrs import define, field

from tsrt.addresses import Prefix, parseAddress
from tsrt.errors import WireError
from tsrt.netmap.routes import RouteTable
from tsrt.tailcfg import CapGrant, FilterRule, Raw

DEFAULT_PROTOCOLS = frozenset((6, 17, 1, 58))
"""What a rule without protocols is about: TCP, UDP, ICMP and ICMPv6."""

Attributes = Callable[[bytes], Collection[str]]
"""Tells the node attributes of the peer with a packed address."""

_EVERYTHING = (Prefix(bytes(4), 0), Prefix(bytes(16), 0))
_LAST_PORT = 65535
_MOST_ERRORS = 20


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

    There are at most two for each bit of an address.

    @raise WireError: the ends are of two families, or in the wrong order.
    """
    if len(first) != len(last) or first > last:
        raise WireError("the ends of an address range do not fit together")
    bits = len(first) * 8
    low, high = int.from_bytes(first, "big"), int.from_bytes(last, "big")
    found: list[Prefix] = []
    while low <= high:
        # As wide as the alignment of `low` and what is left allow.
        width = (low & -low).bit_length() - 1 if low else bits
        while (1 << width) > high - low + 1:
            width -= 1
        found.append(Prefix(low.to_bytes(len(first), "big"), bits - width))
        low += 1 << width
    return tuple(found)


@define
class Sources:
    """
    Who a rule is about.

    @ivar table: the prefixes that may send.
    @ivar attributes: node attributes of which any holder may send.
    """

    table: RouteTable[bool]
    attributes: frozenset[str]

    def __bool__(self) -> bool:
        """Whether there is anybody."""
        return bool(self.attributes or len(self.table))


@define
class Match:
    """
    One compiled rule.

    @ivar protocols: IP protocol numbers.
    @ivar destinations: prefixes with the first and the last port.
    """

    protocols: frozenset[int]
    sources: Sources
    destinations: list[tuple[Prefix, int, int]]

    def isAbout(self, source: bytes, held: Callable[[], Collection[str]]) -> bool:
        """
        Whether C{source} is among its sources.

        @param held: tells the attributes of the source, if they matter.
        """
        sources = self.sources
        return source in sources.table or (
            bool(sources.attributes) and not sources.attributes.isdisjoint(held())
        )

    def allowsPort(self, address: bytes, port: int) -> bool:
        """Whether a port of an address is among its destinations."""
        for prefix, first, last in self.destinations:
            if first <= port <= last and prefix.contains(address):
                return True
        return False

    def allowsAddress(self, address: bytes) -> bool:
        """Whether any port of an address is among its destinations."""
        return any(prefix.contains(address) for prefix, _, _ in self.destinations)

    def allowsEveryPort(self, address: bytes) -> bool:
        """Whether all ports of an address are one of its destinations."""
        return any(
            first == 0 and last == _LAST_PORT and prefix.contains(address)
            for prefix, first, last in self.destinations
        )


@define
class Grant:
    """Capabilities that sources have towards a destination."""

    sources: RouteTable[bool]
    destinations: tuple[Prefix, ...]
    capabilities: dict[str, list[Raw]]


class _Held:
    """The attributes of one source, looked up when first asked for."""

    __slots__ = ("_attributes", "_found", "_source")

    def __init__(self, source: bytes, attributes: Attributes) -> None:
        self._source = source
        self._attributes = attributes
        self._found: Collection[str] | None = None

    def __call__(self) -> Collection[str]:
        if self._found is None:
            self._found = self._attributes(self._source)
        return self._found


@define
class RuleSet:
    """
    All rules in force; without any nobody may do anything (rule R-PF-1).

    @ivar errors: what had to be left out, in sentences.
    """

    matches: list[Match] = field(factory=list)
    grants: list[Grant] = field(factory=list)
    errors: list[str] = field(factory=list)

    @property
    def usesAttributes(self) -> bool:
        """Whether attributes of peers decide about anything."""
        return any(match.sources.attributes for match in self.matches)

    def allowsPort(
        self,
        protocol: int,
        source: bytes,
        destination: bytes,
        port: int,
        attributes: Attributes,
    ) -> bool:
        """Whether a packet to a port is let in."""
        held = _Held(source, attributes)
        for match in self.matches:
            if (
                protocol in match.protocols
                and match.isAbout(source, held)
                and match.allowsPort(destination, port)
            ):
                return True
        return False

    def allowsHost(
        self, source: bytes, destination: bytes, attributes: Attributes
    ) -> bool:
        """
        Whether a rule of any kind is about these two.

        That is enough for ICMP, which knows no ports.
        """
        held = _Held(source, attributes)
        return any(
            match.isAbout(source, held) and match.allowsAddress(destination)
            for match in self.matches
        )

    def allowsProtocol(self, protocol: int, source: bytes, destination: bytes) -> bool:
        """Whether a packet of a protocol without known ports is let in."""
        return any(
            protocol in match.protocols
            and source in match.sources.table
            and match.allowsEveryPort(destination)
            for match in self.matches
        )

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

    def letsIn(self, addresses: Iterable[bytes]) -> bool:
        """Whether some rule lets any of these addresses send anything."""
        return any(
            address in match.sources.table
            for address in addresses
            for match in self.matches
        )


def compileRules(rules: Iterable[FilterRule]) -> RuleSet:
    """
    Compile rules.

    A rule in a form that is long out of use means that the whole filter is
    not understood: nothing at all is let in then.
    """
    compiler = _Compiler()
    for number, rule in enumerate(rules):
        if rule.srcBits or any(isinstance(d.bits, int) for d in rule.dstPorts or ()):
            return RuleSet(
                errors=[f"rule {number} has bit counts; no rule is in force"]
            )
        compiler.add(number, rule)
    return compiler.compiled


class _Compiler:
    """
    Compiles rules one by one.

    The same sources stand in many rules; they are read once and shared.
    """

    def __init__(self) -> None:
        self.compiled = RuleSet()
        self._sources: dict[tuple[str, ...], Sources] = {}

    def add(self, number: int, rule: FilterRule) -> None:
        """Compile one rule."""
        sources = self._sourcesOf(number, rule.srcIPs or ())
        destinations: list[tuple[Prefix, int, int]] = []
        for destination in rule.dstPorts or ():
            first, last = destination.ports.first, destination.ports.last
            try:
                if not 0 <= first <= last <= _LAST_PORT:
                    raise WireError(f"{first}-{last} are no ports")
                prefixes = parseAddresses(destination.ip)
            except WireError as error:
                self._wrong(number, f"destination {destination.ip!r}", error)
            else:
                destinations += [(prefix, first, last) for prefix in prefixes]
        if destinations and sources:
            self.compiled.matches.append(
                Match(_protocols(rule.ipProto), sources, destinations)
            )
        for grant in rule.capGrant or ():
            self._addGrant(number, sources.table, grant)

    def _addGrant(
        self, number: int, sources: RouteTable[bool], grant: CapGrant
    ) -> None:
        """Compile one grant of a rule."""
        destinations = []
        for text in grant.dsts or ():
            try:
                destinations.append(Prefix.parse(text))
            except WireError as error:
                self._wrong(number, f"destination {text!r} of a grant", error)
        capabilities: dict[str, list[Raw]] = {name: [] for name in grant.caps or ()}
        for name, values in (grant.capMap or {}).items():
            capabilities.setdefault(name, []).extend(values or ())
        self.compiled.grants.append(Grant(sources, tuple(destinations), capabilities))

    def _sourcesOf(self, number: int, texts: Sequence[str]) -> Sources:
        key = tuple(texts)
        known = self._sources.get(key)
        if known is not None:
            return known
        table: RouteTable[bool] = RouteTable()
        attributes = set()
        for text in texts:
            if text.startswith("cap:"):
                attributes.add(text.removeprefix("cap:"))
                continue
            try:
                for prefix in parseAddresses(text):
                    table.insert(prefix, True)
            except WireError as error:
                self._wrong(number, f"source {text!r}", error)
        sources = Sources(table, frozenset(attributes))
        self._sources[key] = sources
        return sources

    def _wrong(self, number: int, what: str, error: WireError) -> None:
        errors = self.compiled.errors
        if len(errors) < _MOST_ERRORS:
            errors.append(f"rule {number}, {what}: {error}")


def _protocols(numbers: Sequence[int] | None) -> frozenset[int]:
    """The protocols of a rule; impossible numbers stand for none."""
    if not numbers:
        return DEFAULT_PROTOCOLS
    return frozenset(number for number in numbers if 0 <= number <= 255)

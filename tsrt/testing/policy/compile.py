"""
Turns a policy and the nodes of a tailnet into what each node is told.

The result for a node holds only the rules whose destinations are on it, and the
nodes that it may see: those that some rule lets talk with it, in either
direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from tsrt.addresses import Prefix, formatAddress
from tsrt.testing.policy.document import Destination, Policy, Rule
from tsrt.testing.policy.ports import PortRange
from tsrt.testing.policy.selectors import (
    Selector,
    SelectorKind,
    Subject,
    sameOwner,
)


def _publicPrefixes() -> tuple[str, ...]:
    """The internet: all addresses but private, shared and special ones."""
    excluded = [
        Prefix.parse(text)
        for text in (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "224.0.0.0/3",
        )
    ]
    return (*_without(Prefix.parse("0.0.0.0/0"), excluded), "2000::/3")


def _without(whole: Prefix, excluded: list[Prefix]) -> list[str]:
    """The prefixes that cover C{whole} but nothing of C{excluded}."""
    touching = [prefix for prefix in excluded if whole.overlaps(prefix)]
    if not touching:
        return [whole.text()]
    if any(prefix.length <= whole.length for prefix in touching):
        return []
    length = whole.length + 1
    upper = bytearray(whole.address)
    upper[whole.length // 8] |= 0x80 >> (whole.length % 8)
    halves = (Prefix(whole.address, length), Prefix(bytes(upper), length))
    return [text for half in halves for text in _without(half, touching)]


INTERNET = _publicPrefixes()
"""What C{autogroup:internet} means as a destination."""


COMPANIONS = {
    "tailscale.com/cap/drive": "tailscale.com/cap/drive-sharer",
    "tailscale.com/cap/relay": "tailscale.com/cap/relay-target",
}
"""Capabilities that the sources of a grant must know of: with the first at the
destinations, these have the second at the sources."""


@frozen
class PacketRule:
    """
    Packets that a node has to let in.

    @ivar sources: C{*}, addresses and prefixes.
    @ivar destinations: C{*}, addresses and prefixes, each with ports.
    @ivar protocols: IP protocol numbers; none means TCP, UDP and ICMP.
    """

    sources: tuple[str, ...]
    destinations: tuple[tuple[str, PortRange], ...]
    protocols: tuple[int, ...] = ()


@frozen
class CapabilityRule:
    """
    Application capabilities that sources have towards a node.

    @ivar sources: C{*}, addresses and prefixes.
    @ivar destinations: prefixes of the node.
    @ivar capabilities: names and their values.
    """

    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    capabilities: Mapping[str, tuple[object, ...]] = field(factory=dict)


CompiledRule = PacketRule | CapabilityRule


class CompiledPolicy:
    """
    A policy, worked out for one set of nodes.

    Build a new one when the policy or any L{Subject} changes; both are values.
    """

    def __init__(self, policy: Policy, subjects: Iterable[Subject]) -> None:
        """
        @param policy: the policy.
        @param subjects: every node that takes part.
        """
        self._policy = policy
        self._subjects = {subject.id: subject for subject in subjects}
        self._everyone = frozenset(self._subjects)
        self._pairs = [self._pair(rule) for rule in policy.rules]
        self._sourceTexts: dict[int, tuple[str, ...]] = {}

    # -- who sees whom ------------------------------------------------------------

    def _pair(self, rule: Rule) -> tuple[frozenset[int], frozenset[int], bool]:
        """Sources, destinations, and whether C{autogroup:self} is meant too."""
        sources = self._matching(rule.sources)
        selectors = [destination.selector for destination in rule.destinations]
        return (
            sources,
            self._matching(selectors),
            any(selector.kind is SelectorKind.SELF for selector in selectors),
        )

    def _matching(self, selectors: Iterable[Selector]) -> frozenset[int]:
        listed = list(selectors)
        if any(selector.kind is SelectorKind.ANY for selector in listed):
            return self._everyone
        return frozenset(
            subject.id
            for subject in self._subjects.values()
            if any(selector.selects(subject) for selector in listed)
        )

    def visible(self, subject: Subject) -> frozenset[int]:
        """
        The nodes that a node is told of.

        @param subject: one of the nodes the policy was compiled for.
        @return: numbers of nodes, never its own.
        """
        seen: set[int] = set()
        for sources, destinations, withSelf in self._pairs:
            if subject.id in sources:
                seen |= destinations
            if subject.id in destinations:
                seen |= sources
            if withSelf:
                seen.update(
                    other.id
                    for other in self._subjects.values()
                    if sameOwner(subject, other)
                    and (subject.id in sources or other.id in sources)
                )
        seen.discard(subject.id)
        return frozenset(seen)

    # -- what is let in -----------------------------------------------------------

    def rulesFor(self, subject: Subject) -> tuple[CompiledRule, ...]:
        """
        The rules with destinations on a node, in the order of the policy.

        @param subject: one of the nodes the policy was compiled for.
        """
        compiled: list[CompiledRule] = []
        for index, rule in enumerate(self._policy.rules):
            ordinary = [
                destination
                for destination in rule.destinations
                if destination.selector.kind is not SelectorKind.SELF
            ]
            own = [
                destination
                for destination in rule.destinations
                if destination.selector.kind is SelectorKind.SELF
            ]
            self._add(compiled, rule, subject, ordinary, self._sources(index))
            if own and subject.login and not subject.tags:
                narrowed = self._ownSources(rule, subject)
                self._add(compiled, rule, subject, own, narrowed)
            self._addCompanions(compiled, rule, subject)
        return tuple(compiled)

    def _add(
        self,
        compiled: list[CompiledRule],
        rule: Rule,
        subject: Subject,
        destinations: list[Destination],
        sources: tuple[str, ...],
    ) -> None:
        if not sources:
            return
        if rule.capabilities is not None:
            prefixes = _capabilityTargets((d.selector for d in destinations), subject)
            if prefixes:
                compiled.append(CapabilityRule(sources, prefixes, rule.capabilities))
            return
        targets = tuple(
            (text, ports)
            for destination in destinations
            for text in _targets(destination.selector, subject)
            for ports in destination.ports
        )
        if targets:
            compiled.append(PacketRule(sources, targets, rule.protocols))

    def _addCompanions(
        self, compiled: list[CompiledRule], rule: Rule, subject: Subject
    ) -> None:
        """What the destinations of a grant may do at a node that is a source."""
        given = rule.capabilities or {}
        names = [theirs for ours, theirs in COMPANIONS.items() if ours in given]
        if not names:
            return
        prefixes = _capabilityTargets(rule.sources, subject)
        selectors = [destination.selector for destination in rule.destinations]
        others = [s for s in selectors if s.kind is not SelectorKind.SELF]
        sources = self._sourceText(others)
        if len(others) < len(selectors) and subject.login and not subject.tags:
            own = (s for s in self._subjects.values() if sameOwner(subject, s))
            sources += tuple(_short(a) for s in own for a in s.addresses)
        if prefixes and sources:
            for name in names:
                compiled.append(CapabilityRule(sources, prefixes, {name: ()}))

    def _sources(self, index: int) -> tuple[str, ...]:
        """The sources of a rule as text, worked out once."""
        known = self._sourceTexts.get(index)
        if known is None:
            known = self._sourceText(self._policy.rules[index].sources)
            self._sourceTexts[index] = known
        return known

    def _sourceText(self, selectors: Iterable[Selector]) -> tuple[str, ...]:
        texts: dict[str, None] = {}
        for selector in selectors:
            if selector.kind is SelectorKind.ANY:
                return ("*",)
            if selector.prefix is not None:
                texts[_short(selector.prefix)] = None
                continue
            for subject in self._subjects.values():
                if selector.owns(subject):
                    for address in subject.addresses:
                        texts[_short(address)] = None
        return tuple(texts)

    def _ownSources(self, rule: Rule, subject: Subject) -> tuple[str, ...]:
        """The devices of the node's owner that are sources of a rule."""
        sources = [
            address
            for other in self._subjects.values()
            if sameOwner(subject, other)
            and any(selector.selects(other) for selector in rule.sources)
            for address in other.addresses
        ]
        return tuple(_short(address) for address in sources)

    # -- attributes and questions -----------------------------------------------

    def attributes(self, subject: Subject) -> dict[str, tuple[object, ...]]:
        """
        The node attributes that the policy gives a node, with their values.

        @param subject: any node.
        """
        found: dict[str, tuple[object, ...]] = {}
        for given in self._policy.nodeAttributes:
            if any(selector.selects(subject) for selector in given.targets):
                for name, values in given.attributes.items():
                    found[name] = found.get(name, ()) + values
        return found

    def mayHaveTag(self, tag: str, subject: Subject) -> bool:
        """
        Whether the tag owners let a node have a tag.

        @param tag: the tag that is asked for.
        @param subject: who asks: an owner, or the tags of an auth key.
        """
        if tag in subject.tags:
            return True
        owners = self._policy.tagOwners.get(tag, ())
        return any(selector.owns(subject) for selector in owners)

    def approves(self, route: Prefix, subject: Subject) -> bool:
        """
        Whether the policy approves a route of a node without being asked.

        @param route: the route, or a default route for an exit node.
        @param subject: the node that offers it.
        """
        if route.length == 0:
            return any(owner.owns(subject) for owner in self._policy.exitApprovers)
        return any(
            covering.covers(route) and any(owner.owns(subject) for owner in owners)
            for covering, owners in self._policy.routeApprovers.items()
        )


def _targets(selector: Selector, subject: Subject) -> list[str]:
    """How a destination of a rule is told to the node that it means."""
    kind = selector.kind
    if kind is SelectorKind.ANY:
        return ["*"]
    if kind is SelectorKind.INTERNET:
        return list(INTERNET) if subject.isExitNode else []
    if kind is SelectorKind.PREFIX:
        assert selector.prefix is not None
        return [_short(selector.prefix)] if selector.selects(subject) else []
    if kind is SelectorKind.SELF or selector.owns(subject):
        return [_short(address) for address in subject.addresses]
    return []


def _capabilityTargets(
    selectors: Iterable[Selector], subject: Subject
) -> tuple[str, ...]:
    """The own prefixes of a node that a capability applies to."""
    prefixes: dict[str, None] = {}
    for selector in selectors:
        if selector.kind is SelectorKind.PREFIX:
            assert selector.prefix is not None
            for address in subject.addresses:
                if selector.prefix.overlaps(address):
                    prefixes[address.text()] = None
        elif selector.kind is SelectorKind.SELF or selector.owns(subject):
            for address in subject.addresses:
                prefixes[address.text()] = None
    return tuple(prefixes)


def _short(prefix: Prefix) -> str:
    """A prefix as text, a host prefix as a plain address."""
    return formatAddress(prefix.address) if prefix.isHost else prefix.text()


def allows(
    policy: Policy,
    source: Subject,
    destination: Subject,
    port: int,
    protocols: tuple[int, ...] = (),
) -> bool:
    """
    Whether a policy lets one node reach a port of another.

    @param protocols: IP protocol numbers; none means the usual ones.
    """
    for rule in policy.rules:
        if rule.capabilities is not None:
            continue
        if not set(protocols or (6,)) <= set(rule.protocols or (1, 6, 17, 58)):
            continue
        if not any(selector.selects(source) for selector in rule.sources):
            continue
        for target in rule.destinations:
            if target.selector.reaches(destination, source) and any(
                ports.contains(port) for ports in target.ports
            ):
                return True
    return False

"""
A policy as values: what the sections of a policy document say.

The document is the one that tailnets are configured with: C{acls}, C{grants},
C{groups}, C{hosts}, C{tagOwners}, C{autoApprovers}, C{nodeAttrs}, C{ssh} and
C{tests}, in JSON with comments and trailing commas.  Sections that cannot be
enforced here are refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from attrs import field, frozen

from tsrt.addresses import Prefix
from tsrt.errors import WireError
from tsrt.testing.policy.errors import Path
from tsrt.testing.policy.hujson import Document, parseHuJSON
from tsrt.testing.policy.ports import (
    ALL_PORTS,
    PortRange,
    checkPortsAllowed,
    parseIPEntry,
    parseProtocol,
    splitDestination,
)
from tsrt.testing.policy.selectors import (
    Selector,
    SelectorKind,
    SelectorTable,
    isGroup,
    isTag,
    parsePrefix,
)

T = TypeVar("T")

_SECTIONS = (
    "acls",
    "grants",
    "groups",
    "hosts",
    "tagOwners",
    "autoApprovers",
    "nodeAttrs",
    "ssh",
    "tests",
    # Read and left alone: they steer clients in ways that no test needs.
    "randomizeClientPort",
    "disableIPv4",
    "OneCGNATRoute",
)
_REFUSED_SECTIONS = ("ipsets", "postures", "defaultsrcposture", "sshtests", "derpmap")
_PORTED_SOURCES = (SelectorKind.SELF, SelectorKind.INTERNET)


@frozen
class Destination:
    """
    One destination of a rule.

    @ivar selector: the nodes or addresses.
    @ivar ports: the ports on them.
    """

    selector: Selector
    ports: tuple[PortRange, ...] = (ALL_PORTS,)


@frozen
class Rule:
    """
    One thing that is allowed.

    @ivar sources: who may.
    @ivar destinations: where to.
    @ivar protocols: IP protocol numbers; none means the usual ones.
    @ivar capabilities: for rules that hand out application capabilities
        instead of packets: names and their values.
    """

    sources: tuple[Selector, ...]
    destinations: tuple[Destination, ...]
    protocols: tuple[int, ...] = ()
    capabilities: Mapping[str, tuple[object, ...]] | None = None


@frozen
class NodeAttribute:
    """
    Attributes for some nodes.

    @ivar targets: the nodes.
    @ivar attributes: names and their values.
    """

    targets: tuple[Selector, ...]
    attributes: Mapping[str, tuple[object, ...]]


@frozen
class PolicyTest:
    """
    A test that a policy brings along.

    @ivar path: where it stands, for messages.
    @ivar source: who tries.
    @ivar protocols: IP protocol numbers; none means the usual ones.
    @ivar accept: what must be allowed.
    @ivar deny: what must not.
    """

    path: Path
    source: Selector
    protocols: tuple[int, ...]
    accept: tuple[Destination, ...] = ()
    deny: tuple[Destination, ...] = ()


@frozen
class Policy:
    """
    A whole policy.

    @ivar rules: what C{acls} and C{grants} allow.
    @ivar tagOwners: who may give a node each tag.
    @ivar routeApprovers: whose routes are approved at once, by covering prefix.
    @ivar exitApprovers: whose exit routes are approved at once.
    @ivar nodeAttributes: attributes of nodes.
    @ivar ssh: the C{ssh} section as plain values.
    @ivar tests: the C{tests} section.
    @ivar document: the document, for the lines of later errors.
    """

    rules: tuple[Rule, ...] = ()
    tagOwners: Mapping[str, tuple[Selector, ...]] = field(factory=dict)
    routeApprovers: Mapping[Prefix, tuple[Selector, ...]] = field(factory=dict)
    exitApprovers: tuple[Selector, ...] = ()
    nodeAttributes: tuple[NodeAttribute, ...] = ()
    ssh: tuple[object, ...] = ()
    tests: tuple[PolicyTest, ...] = ()
    document: Document = field(factory=lambda: Document({}), repr=False)

    @classmethod
    def allowAll(cls) -> Policy:
        """The policy of a tailnet that nobody has configured: all may talk."""
        anyone = Selector(SelectorKind.ANY, "*")
        return cls(rules=(Rule((anyone,), (Destination(anyone),)),))

    @classmethod
    def parse(cls, text: str) -> Policy:
        """
        Parse a policy document.

        @param text: JSON, with comments and trailing commas if they help.
        @raise PolicyError: when the document is malformed or says something
            that cannot be enforced; names the line and the place.
        """
        return _Reader(parseHuJSON(text)).policy()


class _Reader:
    """Reads one document; every complaint names its place."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._fail = document.error
        self._table = SelectorTable()

    # -- shapes ---------------------------------------------------------------

    def _mapping(self, value: object, path: Path) -> dict[str, object]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._fail(path, "an object was expected")
        return value

    def _list(self, value: object, path: Path) -> list[tuple[Path, object]]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._fail(path, "a list was expected")
        return [((*path, index), item) for index, item in enumerate(value)]

    def _text(self, value: object, path: Path) -> str:
        if not isinstance(value, str):
            raise self._fail(path, "a string was expected")
        return value

    def _texts(self, value: object, path: Path) -> list[tuple[Path, str]]:
        return [(at, self._text(item, at)) for at, item in self._list(value, path)]

    def _members(
        self,
        value: object,
        path: Path,
        known: tuple[str, ...],
        refused: tuple[str, ...] = (),
    ) -> dict[str, object]:
        """
        An object with known members only.

        Case does not matter in their names, as in every reader of policies.
        """
        canonical = {name.lower(): name for name in known}
        members: dict[str, object] = {}
        for written, item in self._mapping(value, path).items():
            at = (*path, written)
            name = canonical.get(written.lower())
            if name is None:
                meant = written.lower() in refused
                reason = "is not supported" if meant else "is unknown here"
                raise self._fail(at, f"{written!r} {reason}")
            if name in members:
                raise self._fail(at, f"{name!r} is given twice")
            members[name] = item
        return members

    def _parsed(self, parse: Callable[[str], T], text: str, path: Path) -> T:
        try:
            return parse(text)
        except WireError as error:
            raise self._fail(path, str(error)) from None

    # -- sections ---------------------------------------------------------------

    def policy(self) -> Policy:
        """The whole document."""
        top = self._members(self._document.value, (), _SECTIONS, _REFUSED_SECTIONS)
        self._table = SelectorTable(
            self._groups(top.get("groups")), self._hosts(top.get("hosts"))
        )
        rules: list[Rule] = []
        for path, item in self._list(top.get("acls"), ("acls",)):
            rules.append(self._acl(item, path))
        for path, item in self._list(top.get("grants"), ("grants",)):
            rules.extend(self._grant(item, path))
        if "acls" not in top and "grants" not in top:
            rules.extend(Policy.allowAll().rules)
        routes, exits = self._autoApprovers(top.get("autoApprovers"))
        return Policy(
            rules=tuple(rules),
            tagOwners=self._tagOwners(top.get("tagOwners")),
            routeApprovers=routes,
            exitApprovers=exits,
            nodeAttributes=tuple(
                self._nodeAttribute(item, path)
                for path, item in self._list(top.get("nodeAttrs"), ("nodeAttrs",))
            ),
            ssh=tuple(item for _, item in self._list(top.get("ssh"), ("ssh",))),
            tests=tuple(
                self._test(item, path)
                for path, item in self._list(top.get("tests"), ("tests",))
            ),
            document=self._document,
        )

    def _groups(self, value: object) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name, members in self._mapping(value, ("groups",)).items():
            path = ("groups", name)
            if not isGroup(name):
                raise self._fail(path, f"{name!r} does not start with 'group:'")
            groups[name] = []
            for at, member in self._texts(members, path):
                if "@" not in member:
                    raise self._fail(at, f"{member!r} is no user; groups hold users")
                groups[name].append(member)
        return groups

    def _hosts(self, value: object) -> dict[str, Prefix]:
        hosts: dict[str, Prefix] = {}
        for name, target in self._mapping(value, ("hosts",)).items():
            path = ("hosts", name)
            if not name or any(character in name for character in ":@*/"):
                raise self._fail(path, f"{name!r} cannot be a host name")
            hosts[name] = self._parsed(parsePrefix, self._text(target, path), path)
        return hosts

    def _selectors(
        self,
        value: object,
        path: Path,
        refused: tuple[SelectorKind, ...] = (),
    ) -> tuple[Selector, ...]:
        selectors = []
        for at, text in self._texts(value, path):
            selector = self._parsed(self._table.parse, text, at)
            if selector.kind in refused:
                raise self._fail(at, f"{text!r} is not possible here")
            selectors.append(selector)
        return tuple(selectors)

    def _sources(self, value: object, path: Path) -> tuple[Selector, ...]:
        return self._selectors(value, path, _PORTED_SOURCES)

    def _destination(self, text: str, path: Path) -> Destination:
        selector, ports = self._parsed(splitDestination, text, path)
        return Destination(self._parsed(self._table.parse, selector, path), ports)

    def _acl(self, value: object, path: Path) -> Rule:
        known = ("action", "proto", "src", "dst")
        rule = self._members(value, path, known, ("srcposture", "users", "ports"))
        if rule.get("action") != "accept":
            raise self._fail((*path, "action"), "the action must be 'accept'")
        protocols = self._protocol(rule.get("proto"), (*path, "proto"))
        destinations = []
        for at, text in self._texts(rule.get("dst"), (*path, "dst")):
            destination = self._destination(text, at)
            self._checkPorts(protocols, destination.ports, at)
            destinations.append(destination)
        return Rule(
            self._sources(rule.get("src"), (*path, "src")),
            tuple(destinations),
            protocols,
        )

    def _protocol(self, value: object, path: Path) -> tuple[int, ...]:
        if value is None:
            return ()
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return self._parsed(parseProtocol, self._text(value, path), path)

    def _checkPorts(
        self, protocols: tuple[int, ...], ports: tuple[PortRange, ...], path: Path
    ) -> None:
        try:
            checkPortsAllowed(protocols, ports)
        except WireError as error:
            raise self._fail(path, str(error)) from None

    def _grant(self, value: object, path: Path) -> list[Rule]:
        grant = self._members(
            value, path, ("src", "dst", "ip", "app"), ("via", "srcposture")
        )
        sources = self._sources(grant.get("src"), (*path, "src"))
        targets = self._selectors(grant.get("dst"), (*path, "dst"))
        rules: list[Rule] = []
        byProtocol: dict[tuple[int, ...], list[PortRange]] = {}
        for at, text in self._texts(grant.get("ip"), (*path, "ip")):
            protocols, ports = self._parsed(parseIPEntry, text, at)
            byProtocol.setdefault(protocols, []).extend(ports)
        for protocols, allPorts in byProtocol.items():
            destinations = tuple(
                Destination(selector, tuple(allPorts)) for selector in targets
            )
            rules.append(Rule(sources, destinations, protocols))
        capabilities = self._values(grant.get("app"), (*path, "app"))
        if capabilities:
            destinations = tuple(Destination(selector) for selector in targets)
            rules.append(Rule(sources, destinations, (), capabilities))
        if not rules:
            raise self._fail(path, "a grant needs 'ip' or 'app'")
        return rules

    def _values(self, value: object, path: Path) -> dict[str, tuple[object, ...]]:
        """Names with lists of arbitrary values."""
        return {
            name: tuple(item for _, item in self._list(values, (*path, name)))
            for name, values in self._mapping(value, path).items()
        }

    def _tagOwners(self, value: object) -> dict[str, tuple[Selector, ...]]:
        owners: dict[str, tuple[Selector, ...]] = {}
        for tag, who in self._mapping(value, ("tagOwners",)).items():
            path = ("tagOwners", tag)
            if not isTag(tag):
                raise self._fail(path, f"{tag!r} is not a tag")
            owners[tag] = self._owners(who, path)
        return owners

    def _owners(self, value: object, path: Path) -> tuple[Selector, ...]:
        refused = (*_PORTED_SOURCES, SelectorKind.PREFIX, SelectorKind.ANY)
        return self._selectors(value, path, refused)

    def _autoApprovers(
        self, value: object
    ) -> tuple[dict[Prefix, tuple[Selector, ...]], tuple[Selector, ...]]:
        path: Path = ("autoApprovers",)
        section = self._members(value, path, ("routes", "exitNode"), ("services",))
        routes = {}
        for text, who in self._mapping(
            section.get("routes"), (*path, "routes")
        ).items():
            at = (*path, "routes", text)
            routes[self._parsed(parsePrefix, text, at)] = self._owners(who, at)
        return routes, self._owners(section.get("exitNode"), (*path, "exitNode"))

    def _nodeAttribute(self, value: object, path: Path) -> NodeAttribute:
        section = self._members(value, path, ("target", "attr", "app"), ("ippool",))
        targets = self._selectors(
            section.get("target"), (*path, "target"), _PORTED_SOURCES
        )
        attributes: dict[str, tuple[object, ...]] = {
            name: () for _, name in self._texts(section.get("attr"), (*path, "attr"))
        }
        attributes.update(self._values(section.get("app"), (*path, "app")))
        return NodeAttribute(targets, attributes)

    def _test(self, value: object, path: Path) -> PolicyTest:
        known = ("src", "proto", "accept", "deny")
        test = self._members(value, path, known, ("srcpostureattrs",))
        at = (*path, "src")
        source = self._parsed(self._table.parse, self._text(test.get("src"), at), at)
        if source.kind in _PORTED_SOURCES or source.kind is SelectorKind.ANY:
            raise self._fail(at, "a test needs one source")
        return PolicyTest(
            path=path,
            source=source,
            protocols=self._protocol(test.get("proto"), (*path, "proto")),
            accept=self._probes(test.get("accept"), (*path, "accept")),
            deny=self._probes(test.get("deny"), (*path, "deny")),
        )

    def _probes(self, value: object, path: Path) -> tuple[Destination, ...]:
        probes = []
        for at, text in self._texts(value, path):
            probe = self._destination(text, at)
            if probe.selector.kind is SelectorKind.SELF:
                raise self._fail(at, f"{text!r} is not possible here")
            if len(probe.ports) != 1 or probe.ports[0].first != probe.ports[0].last:
                raise self._fail(at, "a test needs one port")
            probes.append(probe)
        return tuple(probes)

"""
Reads policy documents.

The document is the one that tailnets are configured with: C{acls}, C{grants},
C{groups}, C{hosts}, C{tagOwners}, C{autoApprovers}, C{nodeAttrs}, C{ssh} and
C{tests}, in JSON with comments and trailing commas.  Sections that cannot be
enforced here are refused by name, never ignored.
"""

from __future__ import annotations

from tsrt.addresses import Prefix
from tsrt.errors import WireError
from tsrt.testing.policy.document import (
    Destination,
    NodeAttribute,
    Policy,
    PolicyTest,
    Rule,
    SSHRule,
)
from tsrt.testing.policy.errors import Path
from tsrt.testing.policy.hujson import Document, parseHuJSON
from tsrt.testing.policy.ports import (
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
from tsrt.testing.policy.shapes import Shapes

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

_PORTED_SOURCES = (SelectorKind.SELF, SelectorKind.INTERNET)


def parsePolicy(text: str) -> Policy:
    """
    Parse a policy document.

    @param text: JSON, with comments and trailing commas if they help.
    @raise PolicyError: when the document is malformed or says something that
        cannot be enforced; names the line and the place.
    """
    return _Reader(parseHuJSON(text)).policy()


class _Reader(Shapes):
    """Reads the sections of one document."""

    def __init__(self, document: Document) -> None:
        super().__init__(document)
        self._table = SelectorTable()

    # -- sections ---------------------------------------------------------------

    def policy(self) -> Policy:
        """The whole document."""
        top = self.members(self.document.value, (), _SECTIONS, _REFUSED_SECTIONS)
        self._table = SelectorTable(
            self._groups(top.get("groups")), self._hosts(top.get("hosts"))
        )
        rules: list[Rule] = []
        for path, item in self.items(top.get("acls"), ("acls",)):
            rules.append(self._acl(item, path))
        for path, item in self.items(top.get("grants"), ("grants",)):
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
                for path, item in self.items(top.get("nodeAttrs"), ("nodeAttrs",))
            ),
            ssh=tuple(
                self._sshRule(item, path)
                for path, item in self.items(top.get("ssh"), ("ssh",))
            ),
            tests=tuple(
                self._test(item, path)
                for path, item in self.items(top.get("tests"), ("tests",))
            ),
            document=self.document,
        )

    def _groups(self, value: object) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name, members in self.mapping(value, ("groups",)).items():
            path = ("groups", name)
            if not isGroup(name):
                raise self.fail(path, f"{name!r} does not start with 'group:'")
            groups[name] = []
            for at, member in self.texts(members, path):
                if "@" not in member:
                    raise self.fail(at, f"{member!r} is no user; groups hold users")
                groups[name].append(member)
        return groups

    def _hosts(self, value: object) -> dict[str, Prefix]:
        hosts: dict[str, Prefix] = {}
        for name, target in self.mapping(value, ("hosts",)).items():
            path = ("hosts", name)
            if not name or any(character in name for character in ":@*/"):
                raise self.fail(path, f"{name!r} cannot be a host name")
            hosts[name] = self.parsed(parsePrefix, self.text(target, path), path)
        return hosts

    def _selectors(
        self,
        value: object,
        path: Path,
        refused: tuple[SelectorKind, ...] = (),
    ) -> tuple[Selector, ...]:
        selectors = []
        for at, text in self.texts(value, path):
            selector = self.parsed(self._table.parse, text, at)
            if selector.kind in refused:
                raise self.fail(at, f"{text!r} is not possible here")
            selectors.append(selector)
        return tuple(selectors)

    def _sources(self, value: object, path: Path) -> tuple[Selector, ...]:
        return self._selectors(value, path, _PORTED_SOURCES)

    def _destination(self, text: str, path: Path) -> Destination:
        selector, ports = self.parsed(splitDestination, text, path)
        return Destination(self.parsed(self._table.parse, selector, path), ports)

    def _acl(self, value: object, path: Path) -> Rule:
        known = ("action", "proto", "src", "dst")
        rule = self.members(value, path, known, ("srcposture", "users", "ports"))
        if rule.get("action") != "accept":
            raise self.fail((*path, "action"), "the action must be 'accept'")
        protocols = self._protocol(rule.get("proto"), (*path, "proto"))
        destinations = []
        for at, text in self.texts(rule.get("dst"), (*path, "dst")):
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
        return self.parsed(parseProtocol, self.text(value, path), path)

    def _checkPorts(
        self, protocols: tuple[int, ...], ports: tuple[PortRange, ...], path: Path
    ) -> None:
        try:
            checkPortsAllowed(protocols, ports)
        except WireError as error:
            raise self.fail(path, str(error)) from None

    def _grant(self, value: object, path: Path) -> list[Rule]:
        grant = self.members(
            value, path, ("src", "dst", "ip", "app"), ("via", "srcposture")
        )
        sources = self._sources(grant.get("src"), (*path, "src"))
        targets = self._selectors(grant.get("dst"), (*path, "dst"))
        rules: list[Rule] = []
        byProtocol: dict[tuple[int, ...], list[PortRange]] = {}
        for at, text in self.texts(grant.get("ip"), (*path, "ip")):
            protocols, ports = self.parsed(parseIPEntry, text, at)
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
            raise self.fail(path, "a grant needs 'ip' or 'app'")
        return rules

    def _values(self, value: object, path: Path) -> dict[str, tuple[object, ...]]:
        """Names with lists of arbitrary values."""
        return {
            name: tuple(item for _, item in self.items(values, (*path, name)))
            for name, values in self.mapping(value, path).items()
        }

    def _tagOwners(self, value: object) -> dict[str, tuple[Selector, ...]]:
        owners: dict[str, tuple[Selector, ...]] = {}
        for tag, who in self.mapping(value, ("tagOwners",)).items():
            path = ("tagOwners", tag)
            if not isTag(tag):
                raise self.fail(path, f"{tag!r} is not a tag")
            owners[tag] = self._owners(who, path)
        return owners

    def _owners(self, value: object, path: Path) -> tuple[Selector, ...]:
        refused = (*_PORTED_SOURCES, SelectorKind.PREFIX, SelectorKind.ANY)
        return self._selectors(value, path, refused)

    def _autoApprovers(
        self, value: object
    ) -> tuple[dict[Prefix, tuple[Selector, ...]], tuple[Selector, ...]]:
        path: Path = ("autoApprovers",)
        section = self.members(value, path, ("routes", "exitNode"), ("services",))
        routes = {}
        for text, who in self.mapping(section.get("routes"), (*path, "routes")).items():
            at = (*path, "routes", text)
            routes[self.parsed(parsePrefix, text, at)] = self._owners(who, at)
        return routes, self._owners(section.get("exitNode"), (*path, "exitNode"))

    def _nodeAttribute(self, value: object, path: Path) -> NodeAttribute:
        section = self.members(value, path, ("target", "attr", "app"), ("ippool",))
        targets = self._selectors(
            section.get("target"), (*path, "target"), _PORTED_SOURCES
        )
        attributes: dict[str, tuple[object, ...]] = {
            name: () for _, name in self.texts(section.get("attr"), (*path, "attr"))
        }
        attributes.update(self._values(section.get("app"), (*path, "app")))
        return NodeAttribute(targets, attributes)

    def _sshRule(self, value: object, path: Path) -> SSHRule:
        known = ("action", "src", "dst", "users", "checkPeriod", "acceptEnv")
        rule = self.members(value, path, known, ("srcposture", "recorder"))
        action = rule.get("action")
        if action not in ("accept", "check"):
            raise self.fail((*path, "action"), "the action is 'accept' or 'check'")
        users = tuple(
            text for _, text in self.texts(rule.get("users"), (*path, "users"))
        )
        if not users:
            raise self.fail((*path, "users"), "a rule for shells needs users")
        refused = (SelectorKind.INTERNET,)
        return SSHRule(
            self._sources(rule.get("src"), (*path, "src")),
            self._selectors(rule.get("dst"), (*path, "dst"), refused),
            users,
            action == "check",
            tuple(
                text
                for _, text in self.texts(rule.get("acceptEnv"), (*path, "acceptEnv"))
            ),
        )

    def _test(self, value: object, path: Path) -> PolicyTest:
        known = ("src", "proto", "accept", "deny")
        test = self.members(value, path, known, ("srcpostureattrs",))
        at = (*path, "src")
        source = self.parsed(self._table.parse, self.text(test.get("src"), at), at)
        if source.kind in _PORTED_SOURCES or source.kind is SelectorKind.ANY:
            raise self.fail(at, "a test needs one source")
        return PolicyTest(
            path=path,
            source=source,
            protocols=self._protocol(test.get("proto"), (*path, "proto")),
            accept=self._probes(test.get("accept"), (*path, "accept")),
            deny=self._probes(test.get("deny"), (*path, "deny")),
        )

    def _probes(self, value: object, path: Path) -> tuple[Destination, ...]:
        probes = []
        for at, text in self.texts(value, path):
            probe = self._destination(text, at)
            if probe.selector.kind is SelectorKind.SELF:
                raise self.fail(at, f"{text!r} is not possible here")
            if len(probe.ports) != 1 or probe.ports[0].first != probe.ports[0].last:
                raise self.fail(at, "a test needs one port")
            probes.append(probe)
        return tuple(probes)

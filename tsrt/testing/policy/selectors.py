"""
Selectors: how a policy names the nodes that a rule is about.

A selector is text in a policy (C{tag:web}, C{alice@example.com}, C{10.0.0.0/8})
and, parsed, a value that can be asked whether it means a given node.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping

from attrs import field, frozen

from tsrt.addresses import Prefix
from tsrt.errors import WireError

_TAG = re.compile(r"tag:[a-zA-Z][a-zA-Z0-9-]*\Z")
_GROUP = re.compile(r"group:[^\s:,]+\Z")
_PREFIX_CHARACTERS = re.compile(r"[0-9a-fA-F:.]+(/[0-9]{1,3})?\Z")


def isTag(text: str) -> bool:
    """Whether C{text} is a well-formed tag (C{tag:} and a name)."""
    return _TAG.match(text) is not None


def isGroup(text: str) -> bool:
    """Whether C{text} is a well-formed group name (C{group:} and a name)."""
    return _GROUP.match(text) is not None


class SelectorKind(enum.Enum):
    """What a selector selects by."""

    ANY = "*"
    USER = "user"
    GROUP = "group"
    TAG = "tag"
    PREFIX = "prefix"
    MEMBER = "autogroup:member"
    TAGGED = "autogroup:tagged"
    ADMIN = "autogroup:admin"
    SELF = "autogroup:self"
    INTERNET = "autogroup:internet"


AUTOGROUPS: Mapping[str, SelectorKind] = {
    "autogroup:member": SelectorKind.MEMBER,
    "autogroup:members": SelectorKind.MEMBER,
    "autogroup:tagged": SelectorKind.TAGGED,
    "autogroup:admin": SelectorKind.ADMIN,
    "autogroup:self": SelectorKind.SELF,
    "autogroup:internet": SelectorKind.INTERNET,
    "autogroup:danger-all": SelectorKind.ANY,
}
"""The automatic groups that are understood."""


@frozen
class Subject:
    """
    What a policy can know of a node.

    @ivar id: a number of its own; rules about "the same node" compare it.
    @ivar login: the login name of its owner; empty for tagged nodes.
    @ivar admin: whether the owner administers the tailnet.
    @ivar tags: its tags.
    @ivar addresses: its own addresses, as host prefixes.
    @ivar routes: the subnet and exit routes that it may serve.
    """

    id: int
    login: str = ""
    admin: bool = False
    tags: frozenset[str] = frozenset()
    addresses: tuple[Prefix, ...] = ()
    routes: tuple[Prefix, ...] = ()

    @property
    def isExitNode(self) -> bool:
        """Whether it may carry traffic to the internet."""
        return any(route.length == 0 for route in self.routes)

    @property
    def subnets(self) -> tuple[Prefix, ...]:
        """The routes that are not exit routes."""
        return tuple(route for route in self.routes if route.length)


@frozen
class Selector:
    """
    One parsed selector.

    @ivar kind: what it selects by.
    @ivar text: the text of the policy.
    @ivar logins: the users, for users and groups.
    @ivar prefix: the addresses, for prefixes, addresses and host names.
    """

    kind: SelectorKind
    text: str = field(eq=False)
    logins: frozenset[str] = frozenset()
    prefix: Prefix | None = None

    def owns(self, subject: Subject) -> bool:
        """
        Whether this selector means the node by who it is: by owner or tags.

        Prefixes never do; L{selects} looks at addresses as well.
        """
        kind = self.kind
        if kind is SelectorKind.ANY:
            return True
        if kind is SelectorKind.TAG:
            return self.text in subject.tags
        if kind is SelectorKind.TAGGED:
            return bool(subject.tags)
        if subject.tags or not subject.login:
            return False
        if kind in (SelectorKind.USER, SelectorKind.GROUP):
            return any(sameUser(login, subject.login) for login in self.logins)
        if kind is SelectorKind.ADMIN:
            return subject.admin
        return kind is SelectorKind.MEMBER

    def selects(self, subject: Subject) -> bool:
        """Whether this selector means the node, an address or a route of it."""
        if self.kind is SelectorKind.PREFIX:
            prefix = self.prefix
            assert prefix is not None
            return any(
                prefix.overlaps(own) for own in (*subject.addresses, *subject.subnets)
            )
        if self.kind is SelectorKind.INTERNET:
            return subject.isExitNode
        return self.owns(subject)

    def reaches(self, destination: Subject, source: Subject) -> bool:
        """
        Whether this selector, as a destination, means the node for a source.

        Only C{autogroup:self} depends on the source: it means the untagged
        devices of the source's owner.
        """
        if self.kind is SelectorKind.SELF:
            return sameOwner(destination, source)
        return self.selects(destination)


def sameOwner(one: Subject, other: Subject) -> bool:
    """Whether two nodes are untagged and belong to one user."""
    return bool(
        one.login and one.login == other.login and not one.tags and not other.tags
    )


def sameUser(written: str, login: str) -> bool:
    """
    Whether a user as written in a policy is the user with a login name.

    C{alice@} means the user C{alice} of whatever domain.
    """
    if written.endswith("@"):
        return login == written[:-1] or login.startswith(written)
    return written == login


class SelectorTable:
    """
    The names a policy defines, and the parser of selectors that uses them.
    """

    def __init__(
        self,
        groups: Mapping[str, Iterable[str]] | None = None,
        hosts: Mapping[str, Prefix] | None = None,
    ) -> None:
        """
        @param groups: the users of each C{group:...}.
        @param hosts: the addresses of each host name.
        """
        self._groups = {
            name: frozenset(users) for name, users in (groups or {}).items()
        }
        self._hosts = dict(hosts or {})

    def parse(self, text: str) -> Selector:
        """
        Parse a selector.

        @raise WireError: with a sentence that says why the text means nothing.
        """
        if text == "*":
            return Selector(SelectorKind.ANY, text)
        if text.startswith("autogroup:"):
            kind = AUTOGROUPS.get(text)
            if kind is None:
                raise WireError(f"{text} is not supported")
            return Selector(kind, text)
        if text.startswith("group:"):
            members = self._groups.get(text)
            if members is None:
                raise WireError(f"{text} is not defined in groups")
            return Selector(SelectorKind.GROUP, text, logins=members)
        if text.startswith("tag:"):
            if not isTag(text):
                raise WireError(f"{text!r} is not a tag")
            return Selector(SelectorKind.TAG, text)
        host = self._hosts.get(text)
        if host is not None:
            return Selector(SelectorKind.PREFIX, text, prefix=host)
        if "@" in text:
            return Selector(SelectorKind.USER, text, logins=frozenset((text,)))
        if _PREFIX_CHARACTERS.match(text):
            return Selector(SelectorKind.PREFIX, text, prefix=parsePrefix(text))
        raise WireError(f"{text!r} is no user, group, tag, address or name from hosts")


def parsePrefix(text: str) -> Prefix:
    """
    Parse an address or a prefix; an address becomes a host prefix.

    @raise WireError: when it is neither, or has bits set behind the length.
    """
    return Prefix.parse(text, strict=True)

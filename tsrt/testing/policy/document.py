"""
A policy as values: what the sections of a policy document say.

L{tsrt.testing.policy.reader} makes them of text.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from tsrt.addresses import Prefix
from tsrt.testing.policy.errors import Path
from tsrt.testing.policy.hujson import Document
from tsrt.testing.policy.ports import ALL_PORTS, PortRange
from tsrt.testing.policy.selectors import Selector, SelectorKind


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
class SSHRule:
    """
    Who may open a shell on what.

    @ivar sources: who may.
    @ivar destinations: the nodes that the shell runs on.
    @ivar users: the local users, C{autogroup:nonroot} among them.
    @ivar check: whether the user has to log in again first.
    @ivar acceptEnv: the environment variables that are let through.
    """

    sources: tuple[Selector, ...]
    destinations: tuple[Selector, ...]
    users: tuple[str, ...]
    check: bool = False
    acceptEnv: tuple[str, ...] = ()


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
    @ivar ssh: what the C{ssh} section allows.
    @ivar tests: the C{tests} section.
    @ivar document: the document, for the lines of later errors.
    """

    rules: tuple[Rule, ...] = ()
    tagOwners: Mapping[str, tuple[Selector, ...]] = field(factory=dict)
    routeApprovers: Mapping[Prefix, tuple[Selector, ...]] = field(factory=dict)
    exitApprovers: tuple[Selector, ...] = ()
    nodeAttributes: tuple[NodeAttribute, ...] = ()
    ssh: tuple[SSHRule, ...] = ()
    tests: tuple[PolicyTest, ...] = ()
    document: Document = field(factory=lambda: Document({}), repr=False)

    @classmethod
    def allowAll(cls) -> Policy:
        """The policy of a tailnet that nobody has configured: all may talk."""
        anyone = Selector(SelectorKind.ANY, "*")
        return cls(rules=(Rule((anyone,), (Destination(anyone),)),))

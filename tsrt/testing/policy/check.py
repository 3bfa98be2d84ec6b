"""Runs the tests that a policy document brings along."""

from __future__ import annotations

from collections.abc import Iterable

from tsrt.addresses import Prefix
from tsrt.testing.policy.compile import allows
from tsrt.testing.policy.document import Destination, Policy, PolicyTest
from tsrt.testing.policy.selectors import Selector, SelectorKind, Subject

_DEFAULT_ROUTES = (Prefix.parse("0.0.0.0/0"), Prefix.parse("::/0"))


def checkTests(policy: Policy, subjects: Iterable[Subject] = ()) -> None:
    """
    Run the tests of a policy.

    A test about a user or a tag is about any node of theirs, so it needs no
    such node to exist.  A test about an address is about the node that has it.

    @param policy: the policy.
    @param subjects: the nodes of the tailnet, for tests about addresses.
    @raise PolicyError: for the first test that fails; names its place.
    """
    nodes = tuple(subjects)
    for test in policy.tests:
        for index, probe in enumerate(test.accept):
            verdicts = _verdicts(policy, test, probe, nodes)
            if not verdicts or not all(verdicts):
                raise policy.document.error(
                    (*test.path, "accept", index), _message(test, probe, "refused")
                )
        for index, probe in enumerate(test.deny):
            if any(_verdicts(policy, test, probe, nodes)):
                raise policy.document.error(
                    (*test.path, "deny", index), _message(test, probe, "allowed")
                )


def _message(test: PolicyTest, probe: Destination, verdict: str) -> str:
    port = probe.ports[0].first
    target = f"{probe.selector.text}:{port}"
    return f"test failed: {test.source.text} to {target} is {verdict}"


def _verdicts(
    policy: Policy,
    test: PolicyTest,
    probe: Destination,
    nodes: tuple[Subject, ...],
) -> list[bool]:
    return [
        allows(policy, source, target, probe.ports[0].first, test.protocols)
        for source in _stand(test.source, nodes, -1)
        for target in _stand(probe.selector, nodes, -2)
    ]


def _stand(
    selector: Selector, nodes: tuple[Subject, ...], number: int
) -> list[Subject]:
    """Nodes that stand for what a test names."""
    kind = selector.kind
    if selector.prefix is not None:
        prefix = selector.prefix
        owners = [
            node
            for node in nodes
            if any(prefix.overlaps(own) for own in node.addresses)
        ]
        return owners or [Subject(number, addresses=(prefix,))]
    if kind is SelectorKind.TAG:
        return [Subject(number, tags=frozenset((selector.text,)))]
    if kind is SelectorKind.TAGGED:
        return [Subject(number, tags=frozenset(("tag:any",)))]
    if kind in (SelectorKind.USER, SelectorKind.GROUP):
        return [Subject(number, login=login) for login in sorted(selector.logins)]
    if kind is SelectorKind.INTERNET:
        return [Subject(number, tags=frozenset(("tag:any",)), routes=_DEFAULT_ROUTES)]
    admin = kind is SelectorKind.ADMIN
    return [Subject(number, login="somebody@", admin=admin)]

"""Turns the shell rules of a policy into what a node is told of them."""

from __future__ import annotations

from collections.abc import Iterable

from tsrt.addresses import formatAddress
from tsrt.testing.policy.document import Policy, SSHRule
from tsrt.testing.policy.selectors import (
    Selector,
    SelectorKind,
    Subject,
    sameOwner,
)

NONROOT = "autogroup:nonroot"
"""How a policy names all local users but root."""

_ACCEPT: dict[str, object] = {
    "accept": True,
    "allowAgentForwarding": True,
    "allowLocalPortForwarding": True,
    "allowRemotePortForwarding": True,
}

# Asking a person again takes a server that people log in to; this one has no
# such pages, and letting everybody pass would be the wrong way round.
_NO_CHECK: dict[str, object] = {
    "reject": True,
    "message": "This server cannot check who you are again; use action accept.\n",
}


def shellRules(
    policy: Policy, subject: Subject, subjects: Iterable[Subject]
) -> list[dict[str, object]]:
    """
    The shell rules of a node, in the protocol's form.

    @param policy: the policy.
    @param subject: the node that the shells run on.
    @param subjects: every node that takes part.
    """
    everyone = list(subjects)
    rules = []
    for rule in policy.ssh:
        principals = _principals(rule, subject, everyone)
        if principals:
            told: dict[str, object] = {
                "principals": principals,
                "sshUsers": _users(rule.users),
                "action": _NO_CHECK if rule.check else _ACCEPT,
            }
            if rule.acceptEnv:
                told["acceptEnv"] = list(rule.acceptEnv)
            rules.append(told)
    return rules


def _principals(
    rule: SSHRule, subject: Subject, everyone: list[Subject]
) -> list[dict[str, object]]:
    """Who may come, by address."""
    ordinary = [s for s in rule.destinations if s.kind is not SelectorKind.SELF]
    reached = any(selector.selects(subject) for selector in ordinary)
    own = len(ordinary) < len(rule.destinations)
    if reached and any(s.kind is SelectorKind.ANY for s in rule.sources):
        return [{"any": True}]
    return [
        {"nodeIP": formatAddress(address.address)}
        for other in everyone
        if (reached or (own and sameOwner(subject, other)))
        and _selected(rule.sources, other)
        for address in other.addresses
    ]


def _selected(selectors: Iterable[Selector], subject: Subject) -> bool:
    return any(selector.selects(subject) for selector in selectors)


def _users(users: Iterable[str]) -> dict[str, str]:
    """Which local user each asked-for one becomes; an empty one is refused."""
    told: dict[str, str] = {}
    for user in users:
        if user == NONROOT:
            told["*"] = "="
            told.setdefault("root", "")
        else:
            told[user] = user
    return told

"""Turns host names into the names that nodes have in the tailnet."""

from __future__ import annotations

import re
from collections.abc import Container

MAX_LABEL = 63
"""Characters of the longest DNS label."""

_SUFFIXES = (".localdomain", ".local", ".lan")
_SEPARATORS = re.compile(r"[ .@_]")
_REFUSED = re.compile(r"[^a-z0-9-]")


def sanitizeHostname(hostname: str) -> str:
    """
    Make a DNS label of a host name.

    @param hostname: what the node calls itself; may be anything.
    @return: lower-case letters, digits and inner hyphens; may be empty.
    """
    for suffix in _SUFFIXES:
        hostname = hostname.removesuffix(suffix)
    label = hostname[:MAX_LABEL].lower()
    label = _REFUSED.sub("", _SEPARATORS.sub("-", label))
    return label.strip("-")


def uniqueName(hostname: str, taken: Container[str]) -> str:
    """
    Find a free name for a node.

    @param hostname: what the node calls itself.
    @param taken: the names that other nodes have.
    @return: the sanitised name, with C{-1}, C{-2} and so on behind it when it
        is taken; C{node} stands for a host name of which nothing is left.
    """
    base = sanitizeHostname(hostname) or "node"
    if base not in taken:
        return base
    number = 0
    while True:
        number += 1
        suffix = f"-{number}"
        candidate = base[: MAX_LABEL - len(suffix)] + suffix
        if candidate not in taken:
            return candidate

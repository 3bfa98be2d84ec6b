"""
Which peer is the exit node: the way to addresses that no other route leads to.

What the user named is kept as it is, and looked up among the peers each time
that anything changes (rule R-ENV-3).  As long as it leads to nobody who offers a
default route there is none, and what would have used it goes nowhere (R-RT-1).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from attrs import frozen

from tsrt.addresses import formatAddress, parseAddress
from tsrt.errors import ConfigError, WireError
from tsrt.netmap.node import Node
from tsrt.tailcfg.capabilities import SUGGEST_EXIT_NODE

AUTO = "auto:any"
"""The text that lets the nearest exit node be taken."""

_AUTO_PREFIX = "auto:"


class SelectorKind(enum.Enum):
    """What a selector names an exit node by."""

    STABLE_ID = "stable id"
    ADDRESS = "address"
    NAME = "name"
    AUTO = "auto"


@frozen
class ExitNodeSelector:
    """
    What the user wants for an exit node.

    @ivar text: as the user wrote it: a stable id, a tailnet address in its
        usual form, a MagicDNS name, or L{AUTO}.
    """

    kind: SelectorKind
    text: str

    @classmethod
    def parse(cls, text: str) -> ExitNodeSelector:
        """
        Read what a user wrote: an address, C{auto:any}, or else a name.

        @raise ConfigError: there is no such way to choose.
        """
        text = text.strip()
        if not text:
            raise ConfigError("an exit node has a name, an address or auto:any")
        if text.startswith(_AUTO_PREFIX):
            if text != AUTO:
                raise ConfigError(
                    f"the exit node cannot be chosen by {text!r}",
                    advice=f"The only automatic choice is {AUTO}.",
                )
            return cls(SelectorKind.AUTO, text)
        try:
            return cls(SelectorKind.ADDRESS, formatAddress(parseAddress(text)))
        except WireError:
            return cls(SelectorKind.NAME, text)

    @classmethod
    def byStableID(cls, stableID: str) -> ExitNodeSelector:
        """The node with a stable id, whatever it is called."""
        return cls(SelectorKind.STABLE_ID, stableID)

    def __str__(self) -> str:
        return self.text

    def _names(self, node: Node, suffix: str) -> bool:
        """Whether a node is meant."""
        if self.kind is SelectorKind.STABLE_ID:
            return node.stableID == self.text
        if self.kind is SelectorKind.ADDRESS:
            packed = parseAddress(self.text)
            return any(prefix.address == packed for prefix in node.addresses)
        if self.kind is SelectorKind.AUTO:
            return False
        name = self.text.rstrip(".").lower()
        return node.name == name or (
            "." not in name and node.name == f"{name}.{suffix}"
        )


@frozen
class ExitChoice:
    """
    What became of a selector.

    @ivar node: the exit node; C{None}: there is none.
    @ivar problem: why there is none although one is wanted, and what to do; or
        empty.
    """

    node: Node | None = None
    problem: str = ""


NO_EXIT = ExitChoice()
"""No exit node is wanted."""


def offersExit(node: Node) -> bool:
    """Whether a node lets others out to the internet, as control sees it."""
    return (
        not node.expired
        and node.isReachable
        and any(prefix.length == 0 for prefix in node.allowedIPs)
    )


def chooseExit(
    selector: ExitNodeSelector | None,
    peers: Iterable[Node],
    suffix: str,
    latencies: Mapping[int, float],
    current: str = "",
) -> ExitChoice:
    """
    Look a selector up among the peers.

    Of several that it names the one with the smallest stable id counts.

    @param suffix: the domain of the tailnet's names, for short ones.
    @param latencies: seconds to the relay regions, for the automatic choice.
    @param current: the stable id of the exit node so far, or empty.
    """
    if selector is None:
        return NO_EXIT
    if selector.kind is SelectorKind.AUTO:
        offering = list(peers)
        # Another one, however near, would cut all connections.
        kept = [p for p in offering if p.stableID == current and _isUp(p)]
        nearest = kept[0] if kept else suggestExit(offering, latencies)
        if nearest is None:
            return ExitChoice(
                problem="no peer offers to be an exit node: what would go through "
                "one goes nowhere; set another exit node, or none"
            )
        return ExitChoice(nearest)
    named = [node for node in peers if selector._names(node, suffix)]
    if not named:
        return ExitChoice(
            problem=f"no peer is the exit node {selector}: what would go through it "
            "goes nowhere; look at its name, or set another exit node, or none"
        )
    node = min(named, key=lambda node: node.stableID)
    if not offersExit(node):
        return ExitChoice(
            problem=f"{selector} lets nobody out to the internet: what would go "
            "through it goes nowhere; let it advertise an exit node and approve "
            "that, or set no exit node if only its own ports are wanted"
        )
    return ExitChoice(node)


def _isUp(node: Node) -> bool:
    return offersExit(node) and node.online is not False


def suggestExit(peers: Iterable[Node], latencies: Mapping[int, float]) -> Node | None:
    """
    The exit node that is nearest, as far as that can be told.

    Control may have marked some as fit to be suggested; else all are.  Near is
    whose home relay region is near.

    @param latencies: seconds to the relay regions.
    """
    offering = [p for p in peers if _isUp(p)]
    marked = [p for p in offering if SUGGEST_EXIT_NODE in p.capMap]
    return min(
        marked or offering,
        key=lambda node: (
            latencies.get(node.homeDERP, float("inf")),
            node.stableID,
        ),
        default=None,
    )

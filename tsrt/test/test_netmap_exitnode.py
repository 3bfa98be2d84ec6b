"""Tests of L{tsrt.netmap.exitnode}: whom the user means, and who is nearest."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import ConfigError
from tsrt.keys import DiscoKey, NodeKey
from tsrt.netmap.exitnode import (
    AUTO,
    NO_EXIT,
    ExitChoice,
    ExitNodeSelector,
    SelectorKind,
    chooseExit,
    offersExit,
    suggestExit,
)
from tsrt.netmap.node import Node
from tsrt.tailcfg import WireNode

SUFFIX = "tail.test"
NOWHERE: dict[int, float] = {}


def peer(number: int, name: str, *routes: str, **settings: Any) -> Node:
    """A peer with routes; C{exit} stands for both default routes."""
    address = f"100.64.0.{number}/32"
    allowed = [address]
    for route in routes:
        allowed += ["0.0.0.0/0", "::/0"] if route == "exit" else [route]
    settings.setdefault("stableID", f"n{number}")
    return Node.fromWire(
        WireNode(
            id=number,
            name=f"{name}.{SUFFIX}.",
            key=NodeKey(bytes([number]) * 32).public().text(),
            discoKey=DiscoKey(bytes([number]) * 32).public().text(),
            addresses=[address],
            allowedIPs=allowed,
            **settings,
        )
    )


def choose(
    text: str | ExitNodeSelector | None, *peers: Node, **more: Any
) -> ExitChoice:
    """Look a selector up."""
    selector = ExitNodeSelector.parse(text) if isinstance(text, str) else text
    return chooseExit(
        selector, peers, SUFFIX, more.get("latencies", NOWHERE), more.get("current", "")
    )


EXIT, OTHER = peer(1, "exit", "exit"), peer(2, "other", "exit")
PLAIN = peer(3, "plain", "10.0.0.0/8")


class ParsingTests(SynchronousTestCase):
    """What users write."""

    def test_kinds(self) -> None:
        """An address, the automatic choice, or else a name."""
        for text, kind, kept in (
            ("100.64.0.1", SelectorKind.ADDRESS, "100.64.0.1"),
            ("FD7A:115C:A1E0::0001", SelectorKind.ADDRESS, "fd7a:115c:a1e0::1"),
            (" exit ", SelectorKind.NAME, "exit"),
            ("n1", SelectorKind.NAME, "n1"),
            (AUTO, SelectorKind.AUTO, AUTO),
        ):
            selector = ExitNodeSelector.parse(text)
            self.assertEqual((selector.kind, str(selector)), (kind, kept))
        self.assertIs(ExitNodeSelector.byStableID("n1").kind, SelectorKind.STABLE_ID)

    def test_refused(self) -> None:
        """Nothing, and ways to choose that there are not."""
        for text in ("", "  ", "auto:de", "auto:"):
            self.assertRaises(ConfigError, ExitNodeSelector.parse, text)


class ChoiceTests(SynchronousTestCase):
    """Who is meant."""

    def test_named(self) -> None:
        """By name in short and in full, by address, by stable id."""
        for selector in (
            "exit",
            "EXIT",
            f"exit.{SUFFIX}",
            f"Exit.{SUFFIX}.",
            "100.64.0.1",
            ExitNodeSelector.byStableID("n1"),
        ):
            choice = choose(selector, PLAIN, OTHER, EXIT)
            self.assertEqual(choice, ExitChoice(EXIT), selector)

    def test_R_RT_1_nobody(self) -> None:
        """A name that leads to nobody: no exit node, and why."""
        for selector in ("gone", "100.64.0.99", "exit.other.test", "n1"):
            choice = choose(selector, EXIT, PLAIN)
            self.assertIsNone(choice.node)
            self.assertIn(f"no peer is the exit node {selector}", choice.problem)

    def test_R_RT_1_noDefaultRoute(self) -> None:
        """A peer that lets nobody out: no exit node, and another reason."""
        expired = peer(4, "old", "exit", expired=True)
        for selector, node in (("plain", PLAIN), ("old", expired)):
            choice = choose(selector, EXIT, node)
            self.assertIsNone(choice.node)
            self.assertIn("lets nobody out", choice.problem)

    def test_none(self) -> None:
        """None is wanted: no problem."""
        self.assertEqual(choose(None, EXIT), NO_EXIT)

    def test_ambiguous(self) -> None:
        """Of several the one with the smallest stable id, in any order."""
        one, two = peer(5, "twin", "exit", stableID="b"), peer(6, "twin", "exit")
        self.assertIs(choose("twin", two, one).node, one)
        self.assertIs(choose("twin", one, two).node, one)

    def test_R_ENV_3_lookedUpAnew(self) -> None:
        """The same selector means whoever it means at the time."""
        selector = ExitNodeSelector.parse("exit")
        self.assertIsNone(choose(selector, OTHER).node)
        self.assertIs(choose(selector, OTHER, EXIT).node, EXIT)
        successor = peer(9, "exit", "exit")
        self.assertIs(choose(selector, OTHER, successor).node, successor)


class SuggestionTests(SynchronousTestCase):
    """Who is nearest."""

    def test_latency(self) -> None:
        """Whose home relay region is nearest; unknown ones last."""
        near = peer(5, "near", "exit", homeDERP=2)
        far = peer(6, "far", "exit", homeDERP=1)
        unknown = peer(4, "unknown", "exit", homeDERP=9)
        latencies = {1: 0.1, 2: 0.01}
        peers = [unknown, far, near, PLAIN]
        self.assertIs(suggestExit(peers, latencies), near)
        self.assertIs(suggestExit([unknown, far], latencies), far)
        self.assertIs(suggestExit(peers, {}), unknown)
        self.assertIsNone(suggestExit([PLAIN], latencies))

    def test_marked(self) -> None:
        """Those that control marks come before all others."""
        marked = peer(7, "marked", "exit", capMap={"suggest-exit-node": None})
        self.assertIs(suggestExit([EXIT, marked], {}), marked)

    def test_offline(self) -> None:
        """Who is not online is not suggested, but may be named."""
        offline = peer(8, "off", "exit", online=False)
        self.assertTrue(offersExit(offline))
        self.assertIsNone(suggestExit([offline], {}))
        self.assertIs(choose("off", offline).node, offline)
        self.assertIn("no peer offers", choose(AUTO, offline).problem)

    def test_isKept(self) -> None:
        """The automatic choice stays while it can."""
        near = peer(5, "near", "exit", homeDERP=2)
        latencies = {2: 0.01}
        for current, expected in (("n1", EXIT), ("", near), ("gone", near)):
            choice = choose(AUTO, EXIT, near, latencies=latencies, current=current)
            self.assertIs(choice.node, expected)

"""
Tests for L{tsrt.netmap.whois}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.netmap.node import Node
from tsrt.netmap.whois import WhoIs
from tsrt.tailcfg import Raw, UserProfile
from tsrt.test.netmapworld import wireNode

ALICE = UserProfile(id=1, loginName="alice@example.com", displayName="Alice")


def whois(
    profile: UserProfile | None = ALICE,
    capabilities: dict[str, list[Raw]] | None = None,
    **fields: object,
) -> WhoIs:
    """What is known of a node."""
    return WhoIs(Node.fromWire(wireNode(2, **fields)), profile, capabilities or {})


class WhoIsTests(SynchronousTestCase):
    """
    Tests for L{WhoIs}.
    """

    def test_user(self) -> None:
        """A user is called by login name, or else by the other one."""
        self.assertEqual("alice@example.com", whois().user)
        self.assertEqual("Alice", whois(UserProfile(id=1, displayName="Alice")).user)
        self.assertEqual("", whois(UserProfile(id=1)).user)
        self.assertEqual("", whois(None).user)

    def test_tagged(self) -> None:
        """A tagged node belongs to nobody, whoever registered it."""
        tagged = whois(tags=["tag:web", "tag:prod"])
        self.assertEqual("", tagged.user)
        self.assertEqual(("tag:web", "tag:prod"), tagged.tags)
        self.assertEqual((), whois().tags)

    def test_can(self) -> None:
        """A capability counts with and without values."""
        found = whois(capabilities={"a": [], "b": [Raw(b"1")]})
        self.assertTrue(found.can("a"))
        self.assertTrue(found.can("b"))
        self.assertFalse(found.can("c"))

    def test_values(self) -> None:
        """Values are read where they can be; large numbers stay exact."""
        found = whois(
            capabilities={
                "a": [Raw(b'{"n":9007199254740993}'), Raw(b"{"), Raw(b'["x",null]')]
            }
        )
        self.assertEqual([{"n": 9007199254740993}, ["x", None]], found.values("a"))
        self.assertEqual([], found.values("b"))

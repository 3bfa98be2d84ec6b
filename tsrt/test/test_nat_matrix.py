"""Every kind of NAT against every other (L{tsrt.testing.natmatrix})."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import tsrt
from tsrt.testing.nat import NAT_KINDS
from tsrt.testing.natmatrix import NEIGHBOURS, natMatrix, natNeighbours, natTable

PAGE = Path(tsrt.__file__).parent.parent / "docs" / "explanation" / "nat.rst"

# Whoever knows one external address of such a node may write to it, or will be
# let in once the node has written to any port of his.
OPEN = {"none", "full-cone", "restricted"}

# One external port for all the world, whoever may answer.
EASY = {"firewall", "port-restricted", "easy", "masquerade", "cgnat"}

# Another external port towards each destination.
HARD = {"address-symmetric", "symmetric", "symmetric-random", "hard-cgnat"}

# Hard as well, but a port of them is led to the node when it asks for one.
MAPPED = {"symmetric-pmp", "symmetric-upnp"}

BLOCKED = {"udp-blocked"}

LONGEST = 3.0
"""Simulated seconds within which hole punching has to succeed."""


def mayBeDirect(one: str, other: str) -> bool:
    """Whether hole punching, as the reference client does it, can connect."""
    if BLOCKED & {one, other}:
        return False
    if (OPEN | MAPPED) & {one, other}:
        return True
    return one in EASY and other in EASY


class NATMatrixTests(SynchronousTestCase):
    """All pairs, on simulated time."""

    def test_allPairs(self) -> None:
        """
        Each pair that can be direct is, in time; the others keep the relay; and
        the table of the documentation says the same.
        """
        self.assertEqual(OPEN | EASY | HARD | MAPPED | BLOCKED, set(NAT_KINDS))
        found = natMatrix()
        self.assertGreaterEqual(len(found), 64)
        for pair, seconds in found.items():
            if mayBeDirect(*pair):
                self.assertIsNotNone(seconds, pair)
                self.assertLess(seconds, LONGEST, pair)
            else:
                self.assertIsNone(seconds, pair)
        if PAGE.exists():
            advice = "run docs/update_nat.py"
            self.assertIn(natTable(found), PAGE.read_text(), advice)

    def test_neighbours(self) -> None:
        """
        Nodes in one network are always direct; nodes behind the NAT of one
        provider are if it lets them turn round.
        """
        found = natNeighbours()
        self.assertEqual(len(found), 2 * len(NAT_KINDS))
        for kind, settings in NAT_KINDS.items():
            carrier = settings.carrier or settings
            near, far = (found[kind, relation] for relation in NEIGHBOURS)
            self.assertIsNotNone(near, kind)
            self.assertLess(near, LONGEST, kind)
            if carrier.hairpin or not settings.translates:
                self.assertIsNotNone(far, kind)
                self.assertLess(far, LONGEST, kind)
            else:
                self.assertIsNone(far, kind)
        if PAGE.exists():
            advice = "run docs/update_nat.py"
            self.assertIn(natTable(found), PAGE.read_text(), advice)

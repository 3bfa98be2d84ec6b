"""
A filter to ask, and tests that ask it.
"""

from __future__ import annotations

from collections.abc import Collection

from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import Prefix, parseAddress
from tsrt.netmap.filter import PacketFilter
from tsrt.netmap.routes import RouteTable
from tsrt.netmap.rules import compileRules
from tsrt.tailcfg import FilterRule, NetPortRange, PortRange

PEER = b"p" * 32
OTHER = b"o" * 32


class Addresses:
    """The addresses of one family that the tests use."""

    def __init__(self, own: str, peer: str, other: str, stranger: str) -> None:
        self.own = own
        self.peer = peer
        self.other = other
        self.stranger = stranger


V4 = Addresses("100.64.0.1", "100.64.0.2", "100.64.0.3", "198.51.100.9")
V6 = Addresses(
    "fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2", "fd7a:115c:a1e0::3", "2001:db8::9"
)


def rule(
    *sources: str,
    to: str = "*",
    ports: tuple[int, int] = (0, 65535),
    protocols: list[int] | None = None,
) -> FilterRule:
    """A rule with one destination."""
    return FilterRule(
        srcIPs=list(sources),
        dstPorts=[NetPortRange(ip=to, ports=PortRange(first=ports[0], last=ports[1]))],
        ipProto=protocols,
    )


def makeFilter(
    *rules: FilterRule, attributes: dict[str, set[str]] | None = None
) -> PacketFilter:
    """A filter of a node with the addresses of L{V4} and L{V6} and two peers."""
    held = {parseAddress(a): names for a, names in (attributes or {}).items()}

    def attributesOf(packed: bytes) -> Collection[str]:
        return held.get(packed, ())

    packetFilter = PacketFilter(attributesOf)
    sources: RouteTable[bytes] = RouteTable()
    for family in (V4, V6):
        sources.insert(Prefix.parse(family.peer), PEER)
        sources.insert(Prefix.parse(family.other), OTHER)
    packetFilter.setSources(sources)
    packetFilter.setLocal([Prefix.parse(V4.own), Prefix.parse(V6.own)])
    packetFilter.setRules(compileRules(rules))
    return packetFilter


class FilterTestCase(SynchronousTestCase):
    """
    The base of tests that ask a filter; each question is asked twice, so that
    what is remembered of a flow is put to the same test.
    """

    def assertPasses(
        self, packetFilter: PacketFilter, packet: bytes, peer: bytes = PEER
    ) -> None:
        """The filter lets in C{packet}, each time."""
        for _ in range(3):
            self.assertEqual([packet], packetFilter.admit([packet], peer))

    def assertDrops(
        self,
        packetFilter: PacketFilter,
        packet: bytes,
        reason: str,
        peer: bytes = PEER,
    ) -> None:
        """The filter drops C{packet}, each time, and counts why."""
        for _ in range(3):
            before = packetFilter.counters.snapshot()
            self.assertEqual([], packetFilter.admit([packet], peer))
            changed = {
                name: count - before[name]
                for name, count in packetFilter.counters.snapshot().items()
                if count != before[name]
            }
            self.assertEqual({reason: 1}, changed)

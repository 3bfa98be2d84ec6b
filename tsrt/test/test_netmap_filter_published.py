"""
The packet filter against the published test cases of the reference client.

They are data: C{vectors/filter.json} has rules, packets and verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import Prefix, parseAddress
from tsrt.netmap.filter import PacketFilter
from tsrt.netmap.routes import RouteTable
from tsrt.netmap.rules import compileRules
from tsrt.tailcfg import FilterRule
from tsrt.test.filterharness import PEER
from tsrt.test.filterpackets import SYN, icmp, ip, sctp, tcp, udp

CASES: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "filter.json").read_text("utf-8")
)
EVERYWHERE = (Prefix(bytes(4), 0), Prefix(bytes(16), 0))


def rules(source: list[dict[str, Any]]) -> list[FilterRule]:
    """Rules as control sends them."""
    return msgspec.convert(source, list[FilterRule])


def packet(case: dict[str, Any], protocol: int) -> bytes:
    """The packet of a case."""
    source, destination = case["source"], case["destination"]
    port, sourcePort = case["destinationPort"], case["sourcePort"]
    if protocol == 6:
        return tcp(source, destination, port, SYN, sourcePort)
    if protocol == 17:
        return udp(source, destination, port, sourcePort)
    if protocol == 132:
        return sctp(source, destination, port, sourcePort)
    if protocol in (1, 58):
        return icmp(source, destination, 8 if protocol == 1 else 128)
    return ip(source, destination, protocol, bytes(20))


class PublishedTests(SynchronousTestCase):
    """What others decide, we decide."""

    def makeFilter(self) -> PacketFilter:
        """A filter with the published rules, for one peer that may be anybody."""
        held = {parseAddress(a): n for a, n in CASES["attributes"].items()}

        def attributes(address: bytes) -> Collection[str]:
            return held.get(address, ())

        found = PacketFilter(attributes)
        found.setRules(compileRules(rules(CASES["rules"])))
        self.assertEqual(found.errors, [])
        found.setSources(RouteTable((prefix, PEER) for prefix in EVERYWHERE))
        found.setLocal(map(Prefix.parse, CASES["local"]))
        return found

    def test_verdicts(self) -> None:
        """All cases, each twice; what is said of TCP holds for UDP."""
        checked = 0
        for case in CASES["cases"]:
            protocols = [case["protocol"]]
            if protocols == [6]:
                protocols.append(17)
            for protocol in protocols:
                found = self.makeFilter()
                sent = packet(case, protocol)
                for _ in range(2):
                    admitted = found.admit([sent], PEER)
                    self.assertEqual(bool(admitted), case["accept"], (case, protocol))
                    checked += 1
        self.assertEqual(checked, 124)

    def test_udpFlows(self) -> None:
        """Answers come in, after a question went out."""
        for source, destination, sourcePort, destinationPort in CASES["udpFlows"]:
            found = self.makeFilter()
            answer = udp(source, destination, destinationPort, sourcePort)
            question = udp(destination, source, sourcePort, destinationPort)
            self.assertEqual(found.admit([answer], PEER), [])
            self.assertEqual(found.noteOutbound([question]), [question])
            self.assertEqual(found.admit([answer], PEER), [answer])

    def test_grants(self) -> None:
        """Who may do what where."""
        found = PacketFilter()
        found.setRules(compileRules(rules(CASES["grants"]["rules"])))
        for source, destination, names in CASES["grants"]["cases"]:
            granted = found.capabilities(
                parseAddress(source), parseAddress(destination)
            )
            self.assertEqual(sorted(granted), names, (source, destination))

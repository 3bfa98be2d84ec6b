"""
Tests for L{tsrt.netmap.filter} against the plainest model of it.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import formatAddress
from tsrt.netmap import filter as filterModule
from tsrt.netmap.inspection import parseForFilter
from tsrt.netmap.rules import compileRules
from tsrt.tailcfg import FilterRule
from tsrt.test.filterharness import OTHER, PEER, V4, V6, makeFilter, rule
from tsrt.test.filterpackets import (
    ACK,
    SYN,
    SYN_ACK,
    TSMP,
    icmp,
    ip,
    sctp,
    tcp,
    udp,
)

FEW_FLOWS = 3

OWNERS = {V4.peer: PEER, V6.peer: PEER, V4.other: OTHER, V6.other: OTHER}
LOCAL = (V4.own, V6.own)
ATTRIBUTES = {V4.peer: {"vip"}, V6.other: {"vip"}}

families = st.sampled_from((V4, V6))
ports = st.integers(1, 3)
numbers = st.sampled_from((1, 6, 17, 47, 58, 132))


def _rules() -> st.SearchStrategy[list[FilterRule]]:
    sources = st.sampled_from(
        (
            "*",
            "cap:vip",
            "100.64.0.2",
            "100.64.0.2-100.64.0.3",
            "fd7a:115c:a1e0::/64",
            "fd7a:115c:a1e0::3",
        )
    )
    one = st.builds(
        lambda who, to, span, protocols: rule(
            *who, to=to, ports=(min(span), max(span)), protocols=protocols
        ),
        st.lists(sources, min_size=1, max_size=2),
        st.sampled_from(("*", V4.own, V6.own, "100.64.0.0/24")),
        st.tuples(st.sampled_from((0, 1, 2)), st.sampled_from((2, 3, 65535))),
        st.one_of(st.none(), st.lists(numbers, max_size=3)),
    )
    return st.lists(one, max_size=3)


@st.composite
def _inbound(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A packet, mostly well-formed, and the peer that sends it."""
    family = draw(families)
    source = draw(st.sampled_from((family.peer, family.other, family.stranger)))
    target = draw(st.sampled_from((family.own, family.own, family.own, family.other)))
    sender = draw(st.sampled_from((OWNERS.get(source, PEER), PEER, OTHER)))
    kind = draw(st.integers(0, 7))
    if kind <= 2:
        flags = draw(st.sampled_from((SYN, ACK, SYN_ACK, 0)))
        data = draw(st.sampled_from((b"", b"data")))
        packet = tcp(
            source, target, draw(ports), flags, sourcePort=draw(ports), data=data
        )
    elif kind <= 4:
        packet = udp(source, target, draw(ports), sourcePort=draw(ports))
    elif kind == 5:
        packet = sctp(source, target, draw(ports), sourcePort=draw(ports))
    elif kind == 6:
        packet = icmp(source, target, draw(st.sampled_from((0, 3, 8, 128, 129))))
    else:
        packet = ip(
            source,
            target,
            draw(st.sampled_from((6, 17, 47, TSMP))),
            bytes(24),
            fragmentUnits=draw(st.sampled_from((0, 0, 5, 20))),
            moreFragments=draw(st.booleans()),
        )
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(packet) - 1))
        packet = packet[:at] + bytes((draw(st.integers(0, 255)),)) + packet[at + 1 :]
    return packet, sender


@st.composite
def _outbound(draw: st.DrawFn) -> bytes:
    family = draw(families)
    make = draw(st.sampled_from((udp, sctp)))
    return make(
        family.own,
        draw(st.sampled_from((family.peer, family.other))),
        draw(ports),
        sourcePort=draw(ports),
    )


steps = st.lists(
    st.one_of(
        st.tuples(st.just("in"), _inbound()),
        st.tuples(st.just("in"), _inbound()),
        st.tuples(st.just("out"), _outbound()),
    ),
    max_size=40,
)


class Model:
    """
    The decision written out as the documents have it, with nothing remembered
    but flows.
    """

    def __init__(self, rules: list[FilterRule]) -> None:
        self.rules = rules
        self.flows: OrderedDict[tuple[object, ...], None] = OrderedDict()

    def sent(self, packet: bytes) -> None:
        """A datagram went out."""
        parsed = parseForFilter(packet)
        assert parsed is not None
        protocol, source, destination, offset, _ = parsed
        near, far = self._ports(packet, offset)
        key = (protocol, destination, far, source, near)
        self.flows[key] = None
        self.flows.move_to_end(key)
        if len(self.flows) > FEW_FLOWS:
            self.flows.popitem(last=False)

    @staticmethod
    def _ports(packet: bytes, offset: int) -> tuple[int, int]:
        return (
            int.from_bytes(packet[offset : offset + 2], "big"),
            int.from_bytes(packet[offset + 2 : offset + 4], "big"),
        )

    def passes(self, packet: bytes, peer: bytes) -> bool:
        """Whether a packet is let in."""
        parsed = parseForFilter(packet)
        if parsed is None:
            return False
        protocol, source, destination, offset, isLaterFragment = parsed
        sourceText, destinationText = map(formatAddress, (source, destination))
        if OWNERS.get(sourceText) != peer:
            return False
        target = ipaddress.ip_address(destinationText)
        if target.is_multicast or target.is_link_local:
            return False
        if isLaterFragment:
            return True
        if destinationText not in LOCAL:
            return False
        if protocol == TSMP:
            return True
        if protocol == 6:
            flags = packet[offset + 13]
            if not (flags & SYN and not flags & ACK):
                return True
        if protocol in (17, 132):
            near, far = self._ports(packet, offset)
            key = (protocol, source, near, destination, far)
            if key in self.flows:
                self.flows.move_to_end(key)
                return True
        if protocol == (1 if len(source) == 4 else 58):
            kind, code = packet[offset], packet[offset + 1]
            replies, errors = ((0, (3, 11, 12)), (129, (1, 2, 3, 4)))[protocol == 58]
            if (kind == replies and code == 0) or kind in errors:
                return True
            return any(
                self._isSource(r, sourceText) and self._isTarget(r, target)
                for r in self.rules
            )
        port = self._ports(packet, offset)[1] if protocol in (6, 17, 132) else None
        return any(
            protocol in (r.ipProto or (1, 6, 17, 58))
            and self._isSource(r, sourceText, withAttributes=port is not None)
            and self._isTarget(r, target)
            and self._hasPort(r, port)
            for r in self.rules
        )

    @staticmethod
    def _isSource(r: FilterRule, source: str, withAttributes: bool = True) -> bool:
        address = ipaddress.ip_address(source)
        for text in r.srcIPs or ():
            if text == "*":
                return True
            if text.startswith("cap:"):
                if withAttributes and text[4:] in ATTRIBUTES.get(source, ()):
                    return True
            elif "-" in text:
                first, last = map(ipaddress.ip_address, text.split("-"))
                if first.version == address.version and (
                    int(first) <= int(address) <= int(last)
                ):
                    return True
            elif address in ipaddress.ip_network(text):
                return True
        return False

    @staticmethod
    def _isTarget(
        r: FilterRule, target: ipaddress.IPv4Address | ipaddress.IPv6Address
    ) -> bool:
        (destination,) = r.dstPorts or []
        return destination.ip == "*" or target in ipaddress.ip_network(destination.ip)

    @staticmethod
    def _hasPort(r: FilterRule, port: int | None) -> bool:
        (destination,) = r.dstPorts or []
        first, last = destination.ports.first, destination.ports.last
        if port is None:
            return (first, last) == (0, 65535)
        return first <= port <= last


class ModelTests(SynchronousTestCase):
    """
    Random packets, rules and flows: filter and model decide alike.
    """

    def setUp(self) -> None:
        """So few flows are remembered that some are always forgotten."""
        self.patch(filterModule, "MOST_FLOWS", FEW_FLOWS)

    @settings(max_examples=150, deadline=None)
    @given(_rules(), steps)
    def test_decidesLikeTheModel(
        self, rules: list[FilterRule], script: list[tuple[str, object]]
    ) -> None:
        """What the filter remembers never changes what it decides."""
        packetFilter = makeFilter(*rules, attributes=ATTRIBUTES)
        model = Model(rules)
        for kind, what in script:
            if kind == "out":
                assert isinstance(what, bytes)
                self.assertEqual([what], packetFilter.noteOutbound([what]))
                model.sent(what)
                continue
            assert isinstance(what, tuple)
            packet, peer = what
            # Twice, so that something is remembered, and remembered is used.
            for _ in range(2):
                expected = [packet] if model.passes(packet, peer) else []
                self.assertEqual(expected, packetFilter.admit([packet], peer), what)

    @settings(max_examples=100, deadline=None)
    @given(_rules(), st.lists(_inbound(), max_size=30), st.sampled_from((PEER, OTHER)))
    def test_batchesChangeNothing(
        self,
        rules: list[FilterRule],
        packets: list[tuple[bytes, bytes]],
        peer: bytes,
    ) -> None:
        """A batch is decided as its packets one by one, without memory."""
        remembering = makeFilter(*rules, attributes=ATTRIBUTES)
        forgetful = makeFilter(*rules, attributes=ATTRIBUTES)
        batch = [packet for packet, _ in packets] * 2
        expected = []
        for packet in batch:
            forgetful.setRules(compileRules(rules))
            expected += forgetful.admit([packet], peer)
        self.assertEqual(expected, remembering.admit(batch, peer))
        self.assertEqual(forgetful.counters.snapshot(), remembering.counters.snapshot())

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.binary(max_size=100), max_size=5))
    @example([b"\x45"])
    @example([b"\x60" + bytes(30)])
    @example([b"\x4f" + bytes(30)])
    def test_anyBytes(self, packets: list[bytes]) -> None:
        """No bytes make the filter fail, inbound or outbound."""
        packetFilter = makeFilter(rule("*", protocols=list(range(256))))
        for packet in packets:
            self.assertIn(packetFilter.admit([packet], PEER), ([], [packet]))
            self.assertIn(packetFilter.noteOutbound([packet]), ([], [packet]))

    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from((b"\x45", b"\x46", b"\x60")),
        st.integers(20, 90),
        st.data(),
    )
    def test_anyBytesInKnownFlows(
        self, first: bytes, size: int, data: st.DataObject
    ) -> None:
        """No packet with the addresses of a peer makes the filter fail."""
        good = bytearray(tcp(V4.peer, V4.own, 1) if first != b"\x60" else b"")
        if not good:
            good = bytearray(tcp(V6.peer, V6.own, 1))
        packetFilter = makeFilter(rule("*"))
        packetFilter.admit([bytes(good)], PEER)
        for _ in range(4):
            at = data.draw(st.integers(0, len(good) - 1))
            good[at] = data.draw(st.integers(0, 255))
        good[0:1] = first
        packet = bytes(good[:size])
        self.assertIn(packetFilter.admit([packet], PEER), ([], [packet]))
        self.assertIn(packetFilter.noteOutbound([packet]), ([], [packet]))

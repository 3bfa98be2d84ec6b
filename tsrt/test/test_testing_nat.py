"""
Tests for the NATs and firewalls of the simulated internet, against RFC 4787.
"""

from __future__ import annotations

import math
from random import Random

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.testing.nat import (
    MAPPED_PORTS,
    NAT,
    NAT_KINDS,
    Filtering,
    NATKind,
    Permits,
    Refusal,
)
from tsrt.testing.natkinds import (
    ADDRESS_SYMMETRIC,
    EASY,
    FIREWALL,
    FULL_CONE,
    MASQUERADE,
    PORT_RESTRICTED,
    RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_RANDOM,
    UDP_BLOCKED,
)
from tsrt.testing.statefulfirewall import StatefulFirewall

OUTSIDE = "203.0.113.7"
HOME = ("192.168.1.10", 41641)
OTHER = ("192.168.1.11", 41641)
ONE = ("192.0.2.1", 3478)
ONE_ELSEWHERE = ("192.0.2.1", 9)
TWO = ("198.51.100.1", 3478)


def make(kind: NATKind, seed: int = 1) -> NAT:
    return NAT(kind, OUTSIDE, Random(seed).random)


class MappingTests(SynchronousTestCase):
    """RFC 4787, section 4: which external port a packet gets."""

    def ports(self, kind: NATKind) -> list[int]:
        """The ports that two addresses, and two ports of one, get to see."""
        nat = make(kind)
        ports = []
        for other in (ONE, ONE_ELSEWHERE, TWO):
            seen = nat.outbound("udp", HOME, other, 0.0)
            assert isinstance(seen, tuple)
            self.assertEqual(seen[0], OUTSIDE)
            ports.append(seen[1])
            # What belongs to one flow stays the same.
            self.assertEqual(nat.outbound("udp", HOME, other, 1.0), seen)
        return ports

    def test_endpointIndependent(self) -> None:
        for kind in (FULL_CONE, RESTRICTED, EASY):
            self.assertEqual(self.ports(kind), [41641] * 3, kind.name)
        ports = self.ports(PORT_RESTRICTED)
        self.assertEqual(len(set(ports)), 1)
        self.assertNotEqual(ports[0], 41641)

    def test_addressDependent(self) -> None:
        one, elsewhere, two = self.ports(ADDRESS_SYMMETRIC)
        self.assertEqual(one, elsewhere)
        self.assertNotEqual(one, two)

    def test_addressPortDependent(self) -> None:
        for kind in (SYMMETRIC, SYMMETRIC_RANDOM):
            self.assertEqual(len(set(self.ports(kind))), 3, kind.name)

    def test_sequentialAndRandomPorts(self) -> None:
        one, elsewhere, two = self.ports(SYMMETRIC)
        self.assertEqual([elsewhere - one, two - elsewhere], [1, 1])
        one, elsewhere, two = self.ports(SYMMETRIC_RANDOM)
        self.assertNotEqual([elsewhere - one, two - elsewhere], [1, 1])

    def test_portsComeFromTheSeed(self) -> None:
        def draw(seed: int) -> object:
            return make(SYMMETRIC_RANDOM, seed).outbound("udp", HOME, ONE, 0.0)

        self.assertEqual(draw(1), draw(1))
        self.assertNotEqual(draw(1), draw(2))

    def test_masqueradeKeepsThePortToEverybody(self) -> None:
        self.assertEqual(self.ports(MASQUERADE), [41641] * 3)

    def test_masqueradeSharesPorts(self) -> None:
        """Two inside have the same external port to different others."""
        nat = make(MASQUERADE)
        self.assertEqual(nat.outbound("udp", HOME, ONE, 0.0), (OUTSIDE, 41641))
        self.assertEqual(nat.outbound("udp", OTHER, TWO, 0.0), (OUTSIDE, 41641))
        self.assertEqual(nat.inbound("udp", ONE, (OUTSIDE, 41641), 0.0), HOME)
        self.assertEqual(nat.inbound("udp", TWO, (OUTSIDE, 41641), 0.0), OTHER)
        # To the same other side it must not be shared.
        seen = nat.outbound("udp", OTHER, ONE, 0.0)
        assert isinstance(seen, tuple)
        self.assertNotEqual(seen[1], 41641)
        self.assertEqual(nat.inbound("udp", ONE, seen, 0.0), OTHER)

    def test_portCollision(self) -> None:
        """RFC 4787 REQ-3: whoever comes second gets another port."""
        nat = make(EASY)
        self.assertEqual(nat.outbound("udp", HOME, ONE, 0.0), (OUTSIDE, 41641))
        second = nat.outbound("udp", OTHER, ONE, 0.0)
        assert isinstance(second, tuple)
        self.assertNotEqual(second[1], 41641)
        self.assertEqual(nat.inbound("udp", ONE, second, 0.0), OTHER)
        self.assertEqual(nat.inbound("udp", ONE, (OUTSIDE, 41641), 0.0), HOME)

    def test_portOfAnExpiredMappingIsFree(self) -> None:
        nat = make(EASY)
        nat.outbound("udp", HOME, ONE, 0.0)
        self.assertEqual(nat.outbound("udp", OTHER, ONE, 31.0), (OUTSIDE, 41641))
        self.assertEqual(nat.inbound("udp", ONE, (OUTSIDE, 41641), 31.0), OTHER)

    def test_protocolsHavePortsOfTheirOwn(self) -> None:
        nat = make(EASY)
        self.assertEqual(nat.outbound("udp", HOME, ONE, 0.0), (OUTSIDE, 41641))
        self.assertEqual(nat.outbound("tcp", OTHER, ONE, 0.0), (OUTSIDE, 41641))

    def test_fullTable(self) -> None:
        nat = make(evolve(SYMMETRIC, limit=3))
        for port in range(3):
            self.assertIsInstance(
                nat.outbound("udp", HOME, ("192.0.2.9", port), 0), tuple
            )
        refused = nat.outbound("udp", HOME, ("192.0.2.9", 3), 0)
        self.assertIs(refused, Refusal.FULL)
        self.assertIsInstance(nat.outbound("udp", HOME, ("192.0.2.9", 3), 31), tuple)
        self.assertEqual(len(nat), 1)

    def test_expiredMappingsAreNotKept(self) -> None:
        nat = make(SYMMETRIC)
        for number in range(20_000):
            nat.outbound("udp", HOME, ("192.0.2.9", number), number * 1.0)
        self.assertLess(len(nat), 1100)


class FilteringTests(SynchronousTestCase):
    """RFC 4787, section 5: who may answer."""

    def answers(self, kind: NATKind) -> list[bool]:
        """Whether the one written to, another port of his, and others get in."""
        nat = make(kind)
        seen = nat.outbound("udp", HOME, ONE, 0.0)
        assert isinstance(seen, tuple)
        return [
            nat.inbound("udp", other, seen, 1.0) == HOME
            for other in (ONE, ONE_ELSEWHERE, TWO)
        ]

    def test_endpointIndependent(self) -> None:
        self.assertEqual(self.answers(FULL_CONE), [True, True, True])

    def test_addressDependent(self) -> None:
        for kind in (RESTRICTED, ADDRESS_SYMMETRIC):
            self.assertEqual(self.answers(kind), [True, True, False], kind.name)

    def test_addressPortDependent(self) -> None:
        for kind in (EASY, PORT_RESTRICTED, MASQUERADE, SYMMETRIC, SYMMETRIC_RANDOM):
            self.assertEqual(self.answers(kind), [True, False, False], kind.name)

    def test_reasons(self) -> None:
        nat = make(EASY)
        nat.outbound("udp", HOME, ONE, 0.0)
        inbound = nat.inbound
        self.assertIs(inbound("udp", TWO, (OUTSIDE, 41641), 0), Refusal.FILTERED)
        self.assertIs(inbound("udp", ONE, (OUTSIDE, 9), 0), Refusal.NO_MAPPING)
        self.assertIs(inbound("udp", ONE, ("192.0.2.2", 41641), 0), Refusal.NO_MAPPING)

    def test_packetsFromOutsideOpenNothing(self) -> None:
        for kind in NAT_KINDS.values():
            if kind.translates:
                nat = make(kind)
                for port in range(1024, 1100):
                    refused = nat.inbound("udp", ONE, (OUTSIDE, port), 0.0)
                    self.assertIsInstance(refused, Refusal)
                self.assertEqual(len(nat), 0)

    def test_punchedHole(self) -> None:
        """Writing to somebody lets him in through the mapping that is there."""
        nat = make(EASY)
        seen = nat.outbound("udp", HOME, ONE, 0.0)
        assert isinstance(seen, tuple)
        nat.outbound("udp", HOME, TWO, 1.0)
        self.assertEqual(nat.inbound("udp", TWO, seen, 1.5), HOME)

    def test_manyPermitsAreNotKept(self) -> None:
        permits = Permits()
        for number in range(10_000):
            permits.extend(number, number * 1.0, 30.0)
        self.assertLess(len(permits._until), 200)
        self.assertTrue(permits.holds(9_990, 9_999.0))


class TimeoutTests(SynchronousTestCase):
    """RFC 4787, 4.3: how long a mapping lasts."""

    def test_silence(self) -> None:
        nat = make(evolve(FULL_CONE, udpTimeout=20.0))
        nat.outbound("udp", HOME, ONE, 0.0)
        seen = OUTSIDE, 41641
        # Asked of a NAT that hears of nobody in between.
        self.assertEqual(nat.inbound("udp", TWO, seen, 19.9), HOME)
        nat = make(evolve(FULL_CONE, udpTimeout=20.0))
        nat.outbound("udp", HOME, ONE, 0.0)
        self.assertIs(nat.inbound("udp", TWO, seen, 20.0), Refusal.NO_MAPPING)

    def test_outboundRefreshes(self) -> None:
        """REQ-6: packets from inside always do."""
        nat = make(evolve(EASY, refreshInbound=False))
        for now in range(0, 100, 20):
            self.assertEqual(nat.outbound("udp", HOME, ONE, now), (OUTSIDE, 41641))
        self.assertEqual(nat.inbound("udp", ONE, (OUTSIDE, 41641), 109.0), HOME)

    def test_inboundRefreshesWhereItShould(self) -> None:
        for refreshes in (True, False):
            nat = make(evolve(EASY, refreshInbound=refreshes))
            nat.outbound("udp", HOME, ONE, 0.0)
            nat.inbound("udp", ONE, (OUTSIDE, 41641), 20.0)
            later = nat.inbound("udp", ONE, (OUTSIDE, 41641), 40.0)
            self.assertEqual(later == HOME, refreshes)

    def test_eachPermitEndsOnItsOwn(self) -> None:
        nat = make(EASY)
        nat.outbound("udp", HOME, ONE, 0.0)
        nat.outbound("udp", HOME, TWO, 25.0)
        seen = OUTSIDE, 41641
        self.assertIs(nat.inbound("udp", ONE, seen, 31.0), Refusal.FILTERED)
        self.assertEqual(nat.inbound("udp", TWO, seen, 31.0), HOME)

    def test_expiredMappingGetsAnotherPort(self) -> None:
        nat = make(SYMMETRIC)
        first = nat.outbound("udp", HOME, ONE, 0.0)
        self.assertNotEqual(nat.outbound("udp", HOME, ONE, 30.0), first)

    def test_streamsLastLonger(self) -> None:
        nat = make(EASY)
        nat.outbound("tcp", HOME, ONE, 0.0)
        self.assertEqual(nat.inbound("tcp", ONE, (OUTSIDE, 41641), 7000.0), HOME)
        self.assertIs(
            nat.inbound("tcp", ONE, (OUTSIDE, 41641), 7000.0 + 7440.0),
            Refusal.NO_MAPPING,
        )


class StreamTests(SynchronousTestCase):
    """RFC 5382: TCP."""

    def test_onlyTheOtherEndAnswers(self) -> None:
        nat = make(FULL_CONE)
        seen = nat.outbound("tcp", HOME, ONE, 0.0)
        assert isinstance(seen, tuple)
        self.assertEqual(nat.inbound("tcp", ONE, seen, 1.0), HOME)
        self.assertIs(nat.inbound("tcp", TWO, seen, 1.0), Refusal.FILTERED)

    def test_connectionUnknown(self) -> None:
        """What belongs to no connection that was begun here does not go out."""
        nat = make(EASY)
        refused = nat.outbound("tcp", HOME, ONE, 0.0, begins=False)
        self.assertIs(refused, Refusal.NO_MAPPING)
        seen = nat.outbound("tcp", HOME, ONE, 0.0)
        self.assertEqual(nat.outbound("tcp", HOME, ONE, 1.0, begins=False), seen)
        refused = nat.outbound("tcp", HOME, TWO, 1.0, begins=False)
        self.assertIs(refused, Refusal.NO_MAPPING)

    def test_udpBlocked(self) -> None:
        nat = make(UDP_BLOCKED)
        self.assertIs(nat.outbound("udp", HOME, ONE, 0.0), Refusal.BLOCKED)
        self.assertIs(nat.inbound("udp", ONE, (OUTSIDE, 41641), 0.0), Refusal.BLOCKED)
        self.assertEqual(nat.outbound("tcp", HOME, ONE, 0.0), (OUTSIDE, 41641))
        self.assertEqual(nat.inbound("tcp", ONE, (OUTSIDE, 41641), 0.0), HOME)


class MappedPortTests(SynchronousTestCase):
    """Ports that somebody inside asked for."""

    def test_anybodyComesIn(self) -> None:
        nat = make(SYMMETRIC)
        self.assertEqual(nat.mapPort("udp", *HOME, 41641, 600, 0.0), 41641)
        self.assertEqual(nat.inbound("udp", TWO, (OUTSIDE, 41641), 1.0), HOME)
        # One protocol's port is not the other's.
        refused = nat.inbound("tcp", TWO, (OUTSIDE, 41641), 1.0)
        self.assertIs(refused, Refusal.NO_MAPPING)

    def test_answersGoOutByIt(self) -> None:
        nat = make(SYMMETRIC)
        nat.mapPort("udp", *HOME, 5000, 600, 0.0)
        nat.inbound("udp", TWO, (OUTSIDE, 5000), 1.0)
        self.assertEqual(nat.outbound("udp", HOME, TWO, 1.0), (OUTSIDE, 5000))
        # To others a symmetric NAT makes a mapping as ever.
        other = nat.outbound("udp", HOME, ONE, 1.0)
        assert isinstance(other, tuple)
        self.assertNotEqual(other[1], 5000)
        # And to this one too when it was silent for long.
        self.assertNotEqual(nat.outbound("udp", HOME, TWO, 40.0), (OUTSIDE, 5000))

    def test_endpointIndependentUsesItForAll(self) -> None:
        nat = make(PORT_RESTRICTED)
        nat.mapPort("udp", *HOME, 5000, 600, 0.0)
        self.assertEqual(nat.outbound("udp", HOME, ONE, 1.0), (OUTSIDE, 5000))
        self.assertEqual(nat.outbound("udp", HOME, TWO, 1.0), (OUTSIDE, 5000))

    def test_inboundStream(self) -> None:
        nat = make(EASY)
        nat.mapPort("tcp", *HOME, 80, 600, 0.0)
        self.assertEqual(nat.inbound("tcp", TWO, (OUTSIDE, 80), 1.0), HOME)
        answer = nat.outbound("tcp", HOME, TWO, 1.0, begins=False)
        self.assertEqual(answer, (OUTSIDE, 80))
        refused = nat.outbound("tcp", HOME, ONE, 1.0, begins=False)
        self.assertIs(refused, Refusal.NO_MAPPING)

    def test_lifetime(self) -> None:
        nat = make(EASY)
        nat.mapPort("udp", *HOME, 41641, 600, 0.0)
        self.assertEqual(nat.mapPort("udp", *HOME, 7, 600, 300.0), 41641)
        self.assertEqual(nat.inbound("udp", TWO, (OUTSIDE, 41641), 899.0), HOME)
        refused = nat.inbound("udp", TWO, (OUTSIDE, 41641), 900.0)
        self.assertIs(refused, Refusal.NO_MAPPING)
        self.assertEqual(len(nat), 0)
        nat.mapPort("udp", *HOME, 41641, math.inf, 900.0)
        self.assertEqual(nat.inbound("udp", TWO, (OUTSIDE, 41641), 9e9), HOME)

    def test_expiredIsNotUsedOutbound(self) -> None:
        nat = make(PORT_RESTRICTED)
        nat.mapPort("udp", *HOME, 5000, 10, 0.0)
        self.assertNotEqual(nat.outbound("udp", HOME, ONE, 10.0), (OUTSIDE, 5000))

    def test_wishTaken(self) -> None:
        nat = make(EASY)
        self.assertEqual(nat.mapPort("udp", *HOME, 41641, 600, 0.0), 41641)
        other = nat.mapPort("udp", *OTHER, 41641, 600, 0.0)
        assert other is not None
        self.assertNotEqual(other, 41641)
        self.assertEqual(nat.inbound("udp", TWO, (OUTSIDE, other), 1.0), OTHER)

    def test_wishUsedByAFlow(self) -> None:
        nat = make(EASY)
        nat.outbound("udp", HOME, ONE, 0.0)
        self.assertNotEqual(nat.mapPort("udp", *OTHER, 41641, 600, 1.0), 41641)
        # Its own flows are no reason against it.
        self.assertEqual(nat.mapPort("udp", *HOME, 41641, 600, 1.0), 41641)
        self.assertEqual(nat.inbound("udp", TWO, (OUTSIDE, 41641), 2.0), HOME)

    def test_flowsAvoidMappedPorts(self) -> None:
        nat = make(EASY)
        nat.mapPort("udp", *HOME, 0, 600, 0.0)
        self.assertNotEqual(nat.outbound("udp", OTHER, ONE, 1.0), (OUTSIDE, 41641))
        self.assertEqual(nat.outbound("udp", OTHER, TWO, 700.0)[0], OUTSIDE)

    def test_unmap(self) -> None:
        nat = make(EASY)
        nat.mapPort("udp", *HOME, 41641, 600, 0.0)
        self.assertTrue(nat.unmapPort("udp", *HOME))
        self.assertFalse(nat.unmapPort("udp", *HOME))
        refused = nat.inbound("udp", TWO, (OUTSIDE, 41641), 1.0)
        self.assertIs(refused, Refusal.NO_MAPPING)

    def test_noneLeft(self) -> None:
        nat = make(EASY)
        for port in range(MAPPED_PORTS):
            self.assertIsNotNone(nat.mapPort("udp", "192.168.1.9", port + 1, 0, 60, 0))
        self.assertIsNone(nat.mapPort("udp", *HOME, 0, 600, 0.0))
        self.assertEqual(nat.mapPort("udp", *HOME, 0, 600, 60.0), 41641)

    def test_mistakes(self) -> None:
        nat = make(EASY)
        for lifetime in (0, -1, math.nan):
            with self.assertRaises(ValueError) as raised:
                nat.mapPort("udp", *HOME, 1, lifetime, 0.0)
            self.assertIn("unmapPort()", str(raised.exception))
        with self.assertRaises(ValueError):
            nat.mapPort("UDP", *HOME, 1, 60, 0.0)


class RouterEventTests(SynchronousTestCase):
    """What happens to routers."""

    def test_reset(self) -> None:
        nat = make(FULL_CONE)
        nat.outbound("udp", HOME, ONE, 0.0)
        nat.outbound("tcp", HOME, ONE, 0.0)
        nat.mapPort("udp", *OTHER, 5000, 600, 0.0)
        nat.reset()
        self.assertEqual((len(nat), nat.resets), (0, 1))
        for protocol, port in (("udp", 41641), ("tcp", 41641), ("udp", 5000)):
            refused = nat.inbound(protocol, ONE, (OUTSIDE, port), 1.0)
            self.assertIs(refused, Refusal.NO_MAPPING)

    def test_anotherExternalAddress(self) -> None:
        nat = make(FULL_CONE)
        nat.outbound("udp", HOME, ONE, 0.0)
        nat.mapPort("udp", *OTHER, 5000, 600, 0.0)
        nat.setExternal("203.0.113.99")
        inbound = nat.inbound
        for port in (41641, 5000):
            refused = inbound("udp", ONE, (OUTSIDE, port), 1.0)
            self.assertIs(refused, Refusal.NO_MAPPING)
        refused = inbound("udp", ONE, ("203.0.113.99", 41641), 1.0)
        self.assertIs(refused, Refusal.NO_MAPPING)
        self.assertEqual(inbound("udp", ONE, ("203.0.113.99", 5000), 1.0), OTHER)
        seen = nat.outbound("udp", HOME, ONE, 1.0)
        self.assertEqual(seen, ("203.0.113.99", 41641))


class KindTests(SynchronousTestCase):
    """The kinds as values."""

    def test_names(self) -> None:
        self.assertGreaterEqual(len(NAT_KINDS), 8)
        for name, kind in NAT_KINDS.items():
            self.assertEqual(kind.name, name)

    def test_sharedPortsNeedDependentMapping(self) -> None:
        with self.assertRaises(ValueError) as raised:
            NATKind(name="x", overloads=True)
        self.assertIn("ADDRESS_PORT_DEPENDENT", str(raised.exception))

    def test_carrierNeedsTranslation(self) -> None:
        with self.assertRaises(ValueError):
            NATKind(name="x", translates=False, carrier=EASY)

    def test_timeoutsArePositive(self) -> None:
        with self.assertRaises(ValueError):
            NATKind(name="x", udpTimeout=0)


V6_HOME = ("2001:db8:1::10", 41641)
V6_ONE = ("2001:db8::1", 3478)
V6_TWO = ("2001:db8::2", 3478)


class FirewallTests(SynchronousTestCase):
    """The firewall that translates nothing (RFC 6092)."""

    def test_answersComeIn(self) -> None:
        firewall = StatefulFirewall(FIREWALL)
        inbound = firewall.inbound
        self.assertIs(inbound("udp", V6_ONE, V6_HOME, 0.0), Refusal.NO_MAPPING)
        self.assertEqual(firewall.outbound("udp", V6_HOME, V6_ONE, 0.0), V6_HOME)
        self.assertEqual(inbound("udp", V6_ONE, V6_HOME, 29.0), V6_HOME)
        self.assertIs(inbound("udp", V6_TWO, V6_HOME, 29.0), Refusal.FILTERED)
        self.assertIs(inbound("udp", V6_ONE, V6_HOME, 60.0), Refusal.NO_MAPPING)

    def test_filterings(self) -> None:
        for filtering, expected in (
            (Filtering.ENDPOINT_INDEPENDENT, [True, True]),
            (Filtering.ADDRESS_DEPENDENT, [True, False]),
            (Filtering.ADDRESS_PORT_DEPENDENT, [False, False]),
        ):
            firewall = StatefulFirewall(evolve(FIREWALL, filtering=filtering))
            firewall.outbound("udp", V6_HOME, V6_ONE, 0.0)
            elsewhere = V6_ONE[0], 1
            got = [
                firewall.inbound("udp", other, V6_HOME, 1.0) == V6_HOME
                for other in (elsewhere, V6_TWO)
            ]
            self.assertEqual(got, expected)

    def test_refresh(self) -> None:
        firewall = StatefulFirewall(evolve(FIREWALL, refreshInbound=False))
        firewall.outbound("udp", V6_HOME, V6_ONE, 0.0)
        firewall.inbound("udp", V6_ONE, V6_HOME, 20.0)
        refused = firewall.inbound("udp", V6_ONE, V6_HOME, 31.0)
        self.assertIs(refused, Refusal.NO_MAPPING)

    def test_streams(self) -> None:
        firewall = StatefulFirewall(FIREWALL)
        out = firewall.outbound
        self.assertIs(out("tcp", V6_HOME, V6_ONE, 0, False), Refusal.NO_MAPPING)
        self.assertEqual(out("tcp", V6_HOME, V6_ONE, 0), V6_HOME)
        self.assertEqual(out("tcp", V6_HOME, V6_ONE, 5000, False), V6_HOME)

    def test_pinhole(self) -> None:
        firewall = StatefulFirewall(FIREWALL)
        self.assertEqual(firewall.mapPort("tcp", *V6_HOME, 9, 60, 0.0), 41641)
        self.assertEqual(firewall.inbound("tcp", V6_ONE, V6_HOME, 1.0), V6_HOME)
        answer = firewall.outbound("tcp", V6_HOME, V6_ONE, 1.0, begins=False)
        self.assertEqual(answer, V6_HOME)
        refused = firewall.inbound("tcp", V6_TWO, V6_HOME, 61.0)
        self.assertIs(refused, Refusal.FILTERED)
        firewall.mapPort("udp", *V6_HOME, 9, 60, 70.0)
        self.assertEqual(len(firewall), 2)
        self.assertTrue(firewall.unmapPort("udp", *V6_HOME))
        self.assertFalse(firewall.unmapPort("udp", *V6_HOME))

    def test_blocked(self) -> None:
        firewall = StatefulFirewall(evolve(FIREWALL, blocksUDP=True))
        refused = firewall.outbound("udp", V6_HOME, V6_ONE, 0.0)
        self.assertIs(refused, Refusal.BLOCKED)
        refused = firewall.inbound("udp", V6_ONE, V6_HOME, 0.0)
        self.assertIs(refused, Refusal.BLOCKED)
        self.assertEqual(firewall.outbound("tcp", V6_HOME, V6_ONE, 0.0), V6_HOME)

    def test_bounds(self) -> None:
        firewall = StatefulFirewall(evolve(FIREWALL, limit=3))
        for port in range(1, 4):
            firewall.outbound("udp", ("2001:db8:1::10", port), V6_ONE, 0.0)
        refused = firewall.outbound("udp", V6_HOME, V6_ONE, 0.0)
        self.assertIs(refused, Refusal.FULL)
        self.assertEqual(firewall.outbound("udp", V6_HOME, V6_ONE, 30.0), V6_HOME)
        self.assertEqual(len(firewall), 1)
        firewall.reset()
        self.assertEqual((len(firewall), firewall.resets), (0, 1))


_kinds = st.sampled_from([kind for kind in NAT_KINDS.values() if kind.translates])
_inside = st.tuples(
    st.sampled_from(["192.168.1.10", "192.168.1.11"]), st.integers(1024, 1027)
)
_others = st.tuples(st.sampled_from(["192.0.2.1", "192.0.2.2"]), st.integers(1, 2))
_steps = st.lists(
    st.tuples(
        st.sampled_from(["out", "in", "map", "unmap"]),
        _inside,
        _others,
        st.integers(1020, 1030),
        st.floats(0, 20),
    ),
    max_size=40,
)


class PropertyTests(SynchronousTestCase):
    """What holds for every kind, whatever happens."""

    @given(_kinds, _steps)
    def test_noPortLeadsToTwo(self, kind: NATKind, steps: list) -> None:
        """
        An external endpoint leads, from one other side, to one inside only:
        the one that wrote to it by that endpoint, while that is not over.
        """
        kind = evolve(kind, blocksUDP=False)
        nat = make(kind)
        now = 0.0
        for what, inside, other, port, wait in steps:
            now += wait
            if what == "out":
                seen = nat.outbound("udp", inside, other, now)
                assert isinstance(seen, tuple)
                assert nat.inbound("udp", other, seen, now) == inside
            elif what == "in":
                nat.inbound("udp", other, (OUTSIDE, port), now)
            elif what == "map":
                address, number = inside
                got = nat.mapPort("udp", address, number, port, 25, now)
                assert got is not None
                assert (
                    nat.inbound("udp", ("198.51.100.1", 1), (OUTSIDE, got), now)
                    == inside
                )
            else:
                nat.unmapPort("udp", *inside)

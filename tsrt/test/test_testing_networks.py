"""
Tests for networks behind routers on the simulated internet: datagrams.
"""

from __future__ import annotations

import math

from attrs import evolve
from twisted.internet.protocol import ConnectedDatagramProtocol

from tsrt.test.networkworld import Datagrams, NetworkTestCase
from tsrt.testing.clock import elapse, pump
from tsrt.testing.internet import HostReactor
from tsrt.testing.links import Link
from tsrt.testing.nat import NAT, NAT_KINDS, Mapping, NATKind
from tsrt.testing.natkinds import (
    CARRIER,
    CGNAT,
    EASY,
    FIREWALL,
    FULL_CONE,
    MASQUERADE,
    NONE,
    PORT_RESTRICTED,
    SYMMETRIC,
    UDP_BLOCKED,
)
from tsrt.testing.statefulfirewall import StatefulFirewall


class MappedAddressTests(NetworkTestCase):
    """What STUN servers see of a host behind each kind of NAT."""

    def test_everyKind(self) -> None:
        """
        Two servers see the same address where the mapping is independent of
        them, and of the port that is preserved, and else different ones.
        """
        for name, kind in NAT_KINDS.items():
            host = self.home(kind, name, prefix=self.prefixFor(kind))
            socket = self.socket(host)
            first = self.mapped(socket, "192.0.2.1")
            second = self.mapped(socket, "192.0.2.2")
            if kind.blocksUDP:
                self.assertEqual((first, second), (None, None), name)
                continue
            outermost = kind.carrier or kind
            varies = (
                outermost.mapping is not Mapping.ENDPOINT_INDEPENDENT
                and not outermost.overloads
            )
            assert first is not None and second is not None
            self.assertEqual(first != second, varies, name)
            self.assertEqual(first[1] == 41641, outermost.preservesPort, name)
            # Behind a NAT the address is the router's, else the host's own.
            own = first[0] == host.addresses[0]
            self.assertEqual(own, not kind.translates, name)
            self.assertEqual(self.mapped(socket, "192.0.2.1"), first, name)

    def prefixFor(self, kind: NATKind) -> str:
        if kind.translates:
            return "192.168.1.0/24"
        return {"none": "203.0.113.0/25", "firewall": "203.0.113.128/25"}[kind.name]

    def test_privateAddressesOverlap(self) -> None:
        """Everybody's home network has the same addresses."""
        one, two = self.home(EASY, "one"), self.home(EASY, "two")
        self.assertEqual(one.addresses, two.addresses)
        self.assertEqual(one.gateway, "192.168.1.1")
        first, second = self.mapped(self.socket(one)), self.mapped(self.socket(two))
        assert first is not None and second is not None
        self.assertNotEqual(first[0], second[0])

    def test_collision(self) -> None:
        """Two hosts with the same port get different external ones."""
        one = self.home(EASY)
        two = self.internet.host("two", network=one.network)
        first, second = self.mapped(self.socket(one)), self.mapped(self.socket(two))
        assert first is not None and second is not None
        self.assertEqual(first, (one.network.external, 41641))
        self.assertEqual(second[0], first[0])
        self.assertNotEqual(second[1], 41641)

    def test_externalAddressOnDemand(self) -> None:
        host = self.home(EASY, external="203.0.113.7")
        self.assertEqual(self.mapped(self.socket(host)), ("203.0.113.7", 41641))

    def test_timeout(self) -> None:
        """A silent mapping ends; the next packet has another port."""
        socket = self.socket(self.home(evolve(PORT_RESTRICTED, udpTimeout=20.0)))
        first = self.mapped(socket)
        elapse(self.clock, 15)
        self.assertEqual(self.mapped(socket), first)
        elapse(self.clock, 25)
        self.assertNotEqual(self.mapped(socket), first)


class ReachingTests(NetworkTestCase):
    """Who gets through to whom."""

    def punch(self, kinds: tuple[NATKind, NATKind], **settings: object) -> list[bool]:
        """Both sides write to the other's mapped address, twice."""
        sockets = [
            self.socket(self.home(kind, f"home{number}"))
            for number, kind in enumerate(kinds)
        ]
        seen = [self.mapped(socket) for socket in sockets]
        heard = [len(socket.received) for socket in sockets]
        for _ in range(2):
            for socket, other in zip(sockets, reversed(seen), strict=True):
                socket.transport.write(b"ping", other)
            elapse(self.clock, 1)
        return [
            len(socket.received) > before
            for socket, before in zip(sockets, heard, strict=True)
        ]

    def test_holePunching(self) -> None:
        self.assertEqual(self.punch((EASY, PORT_RESTRICTED)), [True, True])

    def test_hardAgainstEasyHearsTheLatter(self) -> None:
        """
        What a symmetric NAT sends comes from a port that nobody was told of,
        and a port-restricted NAT does not let it in.
        """
        self.assertEqual(self.punch((SYMMETRIC, PORT_RESTRICTED)), [False, False])
        self.assertGreater(self.dropped("nat: filtered"), 0)

    def test_hardAgainstFullCone(self) -> None:
        """A full cone is reached, and answers where it was written from."""
        self.assertEqual(self.punch((SYMMETRIC, FULL_CONE)), [False, True])

    def test_unsolicited(self) -> None:
        host = self.home(EASY)
        socket = self.socket(host)
        outsider = self.socket(self.internet.host("outsider"))
        assert host.network.external is not None
        outsider.transport.write(b"hello", (host.network.external, 41641))
        elapse(self.clock, 1)
        self.assertEqual(socket.received, [])
        self.assertEqual(self.dropped("nat: no mapping"), 1)

    def test_privateAddressesEndAtTheRouter(self) -> None:
        """What is sent to somebody else's private address arrives nowhere."""
        one, two = self.home(EASY, "one"), self.home(EASY, "two", prefix="10.0.0.0/24")
        self.socket(two)
        self.socket(one).transport.write(b"hello", (two.addresses[0], 41641))
        elapse(self.clock, 1)
        self.assertEqual(self.dropped("unreachable"), 1)

    def test_neighbours(self) -> None:
        """Hosts in one network need no router, nor does one that talks to itself."""
        one = self.home(UDP_BLOCKED)
        two = self.internet.host("two", network=one.network)
        sender, receiver = self.socket(one), self.socket(two)
        sender.transport.write(b"hello", (two.addresses[0], 41641))
        sender.transport.write(b"myself", (one.addresses[0], 41641))
        elapse(self.clock, 0.001)
        self.assertEqual(receiver.received, [(b"hello", (one.addresses[0], 41641))])
        self.assertEqual(sender.received, [(b"myself", (one.addresses[0], 41641))])

    def test_nobodyThere(self) -> None:
        self.socket(self.home(EASY)).transport.write(b"hello", ("192.168.1.99", 1))
        elapse(self.clock, 1)
        self.assertEqual(self.dropped("unreachable"), 1)

    def test_multicast(self) -> None:
        """What is sent to a group reaches the neighbours, and no further."""
        one = self.home(EASY)
        neighbours = [
            self.socket(self.internet.host(name, network=one.network), 1900)
            for name in ("two", "three")
        ]
        outside = self.socket(self.internet.host("outside"), 1900)
        sender = self.socket(one, 1900)
        sender.transport.write(b"search", ("239.255.255.250", 1900))
        elapse(self.clock, 1)
        for neighbour in neighbours:
            self.assertEqual(
                neighbour.received, [(b"search", (one.addresses[0], 1900))]
            )
        self.assertEqual((outside.received, sender.received), ([], []))

    def test_udpBlocked(self) -> None:
        """No UDP gets out, while TCP does."""
        host = self.home(UDP_BLOCKED)
        self.assertIsNone(self.mapped(self.socket(host)))
        self.assertEqual(self.dropped("nat: protocol blocked"), 1)
        web = self.serve(self.servers[0])
        client, server = self.connect(host, web, "192.0.2.1")
        client.transport.write(b"question")
        server.transport.write(b"answer")
        elapse(self.clock, 1)
        self.assertEqual((client.data, server.data), (b"answer", b"question"))

    def test_nothingListens(self) -> None:
        """Of a closed port the sender is told, unless there is a NAT between."""
        refusals = []

        class Connected(ConnectedDatagramProtocol):
            def startProtocol(self) -> None:
                self.transport.connect(self.destination, 99)

            def connectionRefused(self) -> None:
                refusals.append(self.destination)

        host = self.home(EASY, ipv6="2001:db8:77::/64")
        neighbour = self.internet.host("two", network=host.network)
        for number, destination in enumerate(
            ["192.0.2.1", neighbour.addresses[0], "2001:db8::1"]
        ):
            protocol = Connected()
            protocol.destination = destination
            host.listenUDP(5000 + number, protocol, "::" if ":" in destination else "")
            protocol.transport.write(b"hello", None)
            elapse(self.clock, 1)
        self.assertEqual(refusals, [neighbour.addresses[0], "2001:db8::1"])
        self.assertEqual(self.dropped("no port"), 3)


class HairpinTests(NetworkTestCase):
    """Two in one network who know each other by external addresses."""

    def hairpin(self, kind: NATKind) -> tuple[Datagrams, Datagrams, HostReactor]:
        one = self.home(kind)
        two = self.internet.host("two", network=one.network)
        first, second = self.socket(one), self.socket(two)
        seen = [self.mapped(first), self.mapped(second)]
        for _ in range(2):
            first.transport.write(b"one", seen[1])
            second.transport.write(b"two", seen[0])
            elapse(self.clock, 1)
        return first, second, one

    def test_hairpin(self) -> None:
        """RFC 4787 REQ-9: with the external address as the source."""
        first, second, one = self.hairpin(EASY)
        external = one.network.external
        self.assertIn((b"one", (external, 41641)), second.received)
        self.assertIn(b"two", [data for data, _ in first.received])

    def test_noHairpin(self) -> None:
        first, second, _ = self.hairpin(MASQUERADE)
        self.assertEqual([len(first.received), len(second.received)], [1, 1])
        self.assertEqual(self.dropped("nat: no hairpin"), 4)

    def test_mappedPort(self) -> None:
        first, _, one = self.hairpin(evolve(SYMMETRIC, hairpin=True))
        nat = one.network.nat
        assert isinstance(nat, NAT)
        nat.mapPort("udp", one.addresses[0], 41641, 7000, math.inf, 0.0)
        three = self.socket(self.internet.host("three", network=one.network))
        three.transport.write(b"three", (one.network.external, 7000))
        elapse(self.clock, 1)
        self.assertEqual(first.received[-1][0], b"three")


class CarrierTests(NetworkTestCase):
    """A NAT behind a NAT."""

    def test_twoTranslations(self) -> None:
        host = self.home(CGNAT, external="203.0.113.7")
        seen = self.mapped(self.socket(host))
        assert seen is not None
        self.assertEqual(seen[0], "203.0.113.7")
        self.assertNotEqual(seen[1], 41641)
        # The home router itself has an address that is not public.
        self.assertEqual(host.network.external, "100.64.0.10")
        carrier = host.network.uplink
        assert carrier is not None
        self.assertEqual(carrier.external, "203.0.113.7")
        self.assertIs(carrier.uplink, self.internet.public)

    def test_homeRouterFilters(self) -> None:
        """Though the carrier lets everybody in, the router at home does not."""
        host = self.home(CGNAT)
        socket = self.socket(host)
        seen = self.mapped(socket)
        outsider = self.socket(self.internet.host("outsider"))
        outsider.transport.write(b"hello", seen)
        elapse(self.clock, 1)
        self.assertEqual(self.dropped("nat: filtered"), 1)
        socket.transport.write(
            b"hello", (outsider.transport.reactor.addresses[0], 41641)
        )
        elapse(self.clock, 1)
        outsider.transport.write(b"hello", seen)
        elapse(self.clock, 1)
        self.assertEqual(socket.received[-1][0], b"hello")

    def test_neighboursBehindOneCarrier(self) -> None:
        """They reach each other through the carrier's hairpin."""
        carrier = self.internet.network("isp", "100.64.0.0/16", nat=CARRIER)
        sockets = [self.socket(self.home(EASY, name, uplink=carrier)) for name in "ab"]
        seen = [self.mapped(socket) for socket in sockets]
        assert seen[0] is not None and seen[1] is not None
        self.assertEqual(seen[0][0], seen[1][0])
        for _ in range(2):
            sockets[0].transport.write(b"from a", seen[1])
            sockets[1].transport.write(b"from b", seen[0])
            elapse(self.clock, 1)
        self.assertEqual(sockets[0].received[-1], (b"from b", seen[1]))
        self.assertEqual(sockets[1].received[-1], (b"from a", seen[0]))


class MappedPortTests(NetworkTestCase):
    """Ports that a gateway maps on request."""

    def test_everybodyComesIn(self) -> None:
        host = self.home(SYMMETRIC)
        socket = self.socket(host)
        nat = host.network.nat
        assert isinstance(nat, NAT)
        port = nat.mapPort("udp", host.addresses[0], 41641, 5000, 600, 0.0)
        self.assertEqual(port, 5000)
        outsider = self.socket(self.internet.host("outsider"))
        outsider.transport.write(b"hello", (host.network.external, 5000))
        elapse(self.clock, 1)
        [(_, source)] = socket.received
        socket.transport.write(b"answer", source)
        elapse(self.clock, 1)
        self.assertEqual(outsider.received, [(b"answer", (nat.external, 5000))])

    def test_streams(self) -> None:
        """TCP comes in by a mapped port and by no other."""
        host = self.home(EASY)
        web = self.serve(host)
        nat = host.network.nat
        assert isinstance(nat, NAT)
        nat.mapPort("tcp", host.addresses[0], 80, 8080, 600, 0.0)
        client, server = self.connect(self.servers[0], web, nat.external, 8080)
        self.assertEqual(server.transport.getHost().host, host.addresses[0])
        self.assertEqual(server.transport.getHost().port, 80)
        self.assertEqual(server.transport.getPeer().host, "192.0.2.1")
        client.transport.write(b"question")
        server.transport.write(b"answer")
        elapse(self.clock, 1)
        self.assertEqual((client.data, server.data), (b"answer", b"question"))

    def test_gatewayHost(self) -> None:
        """What a gateway serves runs on a host that has its address."""
        host = self.home(EASY)
        gateway = host.network.gatewayHost()
        self.assertIs(host.network.gatewayHost(), gateway)
        self.assertEqual(gateway.addresses, [host.gateway])
        service = self.socket(gateway, 5351)
        self.socket(host).transport.write(b"map me", (host.gateway, 5351))
        elapse(self.clock, 1)
        self.assertEqual(service.received, [(b"map me", (host.addresses[0], 41641))])

    def test_noGateway(self) -> None:
        with self.assertRaises(ValueError):
            self.internet.public.gatewayHost()
        only6 = self.internet.network("six", None, ipv6=True)
        self.assertIsNone(only6.gateway)
        with self.assertRaises(ValueError):
            only6.gatewayHost()
        self.assertIsNone(self.servers[0].gateway)


class RoutedTests(NetworkTestCase):
    """Networks whose addresses mean the same outside."""

    def test_open(self) -> None:
        for number, kind in enumerate((None, NONE)):
            host = self.home(kind, f"n{number}", prefix=f"203.0.{113 + number}.0/24")
            self.assertIsNone(host.network.nat)
            socket = self.socket(host)
            outsider = self.socket(self.internet.host(f"outsider{number}"))
            outsider.transport.write(b"hello", (host.addresses[0], 41641))
            elapse(self.clock, 1)
            self.assertEqual([data for data, _ in socket.received], [b"hello"])

    def test_firewall(self) -> None:
        host = self.home(FIREWALL, prefix="203.0.113.0/24")
        self.assertIsInstance(host.network.nat, StatefulFirewall)
        socket = self.socket(host)
        outsider = self.internet.host("outsider")
        sender = self.socket(outsider)
        sender.transport.write(b"too early", (host.addresses[0], 41641))
        elapse(self.clock, 1)
        socket.transport.write(b"may come", (outsider.addresses[0], 41641))
        elapse(self.clock, 1)
        sender.transport.write(b"now", (host.addresses[0], 41641))
        elapse(self.clock, 1)
        self.assertEqual([data for data, _ in socket.received], [b"now"])

    def test_ipv6(self) -> None:
        """IPv6 is not translated, but filtered."""
        host = self.home(SYMMETRIC, ipv6=True)
        self.assertEqual(len(host.addresses), 2)
        socket = self.socket(host, interface="::")
        for server in ("2001:db8::1", "2001:db8::2"):
            seen = self.mapped(socket, server)
            self.assertEqual(seen, (host.addresses[1], 41641))
        before = len(socket.received)
        outsider = self.internet.host("outsider", ["2001:db8:ffff::1"])
        sender = self.socket(outsider, interface="::")
        sender.transport.write(b"too early", (host.addresses[1], 41641))
        elapse(self.clock, 1)
        self.assertEqual(self.dropped("nat: filtered"), 1)
        socket.transport.write(b"may come", ("2001:db8:ffff::1", 41641))
        elapse(self.clock, 1)
        sender.transport.write(b"now", (host.addresses[1], 41641))
        elapse(self.clock, 1)
        got = [data for data, _ in socket.received[before:]]
        self.assertEqual(got, [b"now"])

    def test_ipv6WithoutFirewall(self) -> None:
        host = self.home(None, prefix=None, ipv6="2001:db8:5::/64", firewall6=None)
        self.assertEqual(host.addresses, ["2001:db8:5::a"])
        socket = self.socket(host, interface="::")
        outsider = self.internet.host("outsider", ["2001:db8:ffff::1"])
        sender = self.socket(outsider, interface="::")
        sender.transport.write(b"hello", (host.addresses[0], 41641))
        elapse(self.clock, 1)
        self.assertEqual([data for data, _ in socket.received], [b"hello"])

    def test_ipv6BehindCarrier(self) -> None:
        """A provider without public IPv4 has public IPv6."""
        host = self.home(CGNAT, ipv6=True)
        seen = self.mapped(self.socket(host, interface="::"), "2001:db8::1")
        self.assertEqual(seen, (host.addresses[1], 41641))

    def test_udpBlockedForBothFamilies(self) -> None:
        host = self.home(UDP_BLOCKED, ipv6=True)
        socket = self.socket(host, interface="::")
        self.assertIsNone(self.mapped(socket, "2001:db8::1"))


class LinkTests(NetworkTestCase):
    """What the links on the way do."""

    def timeTo(self, host: HostReactor) -> float:
        socket = self.socket(host)
        socket.transport.write(b"x", ("192.0.2.1", 9))
        sink = self.socket(self.servers[0], 9)
        start = self.clock.seconds()
        pump(self.clock, lambda: bool(sink.received))
        return self.clock.seconds() - start

    def test_delays(self) -> None:
        """The network, the line to the provider and the internet add up."""
        self.internet.link = Link(delay=0.1)
        host = self.home(EASY, link=Link(delay=0.02), access=Link(delay=0.003))
        self.assertAlmostEqual(self.timeTo(host), 0.123)

    def test_linkOfRouters(self) -> None:
        self.internet.link = Link(delay=0.1)
        host = self.home(EASY)
        self.internet.setLink(Link(delay=0.5), host.network, self.servers[0])
        self.assertAlmostEqual(self.timeTo(host), 0.5005)

    def test_linkNeedsNeighbours(self) -> None:
        host = self.home(EASY)
        with self.assertRaises(ValueError) as raised:
            self.internet.setLink(Link(), host, self.servers[0])
        self.assertIn("not in one network", str(raised.exception))
        with self.assertRaises(ValueError):
            self.internet.setLink(Link(), self.internet.public, self.servers[0])
        self.internet.setLink(Link(delay=0.3), host, host.network)
        self.assertAlmostEqual(self.timeTo(host), 0.31)

    def test_mtu(self) -> None:
        """What is too big for one link on the way vanishes there."""
        host = self.home(EASY, access=Link(delay=0.0, mtu=1400))
        sink = self.socket(self.servers[0], 9)
        for size in (1372, 1373):
            self.socket(host, size).transport.write(bytes(size), ("192.0.2.1", 9))
        elapse(self.clock, 1)
        self.assertEqual([len(data) for data, _ in sink.received], [1372])
        self.assertEqual(self.dropped("too big"), 1)

    def test_lossAndDuplication(self) -> None:
        bad = Link(loss=0.2, duplicate=0.2, reorder=0.2, jitter=0.01)
        socket = self.socket(self.home(EASY, link=bad, access=bad))
        sink = self.socket(self.servers[0], 9)
        for number in range(1000):
            socket.transport.write(number.to_bytes(2, "big"), ("192.0.2.1", 9))
            elapse(self.clock, 0.005)
        elapse(self.clock, 1)
        got = [int.from_bytes(data, "big") for data, _ in sink.received]
        lost = self.dropped("lost")
        self.assertTrue(300 < lost < 500, lost)
        self.assertTrue(600 < len(set(got)) < 720, len(set(got)))
        self.assertGreater(len(got), len(set(got)) + 100)
        self.assertNotEqual(got, sorted(got))

    def test_cuts(self) -> None:
        """A cut holds whatever is between, and for nobody else."""
        host = self.home(CGNAT)
        socket = self.socket(host)
        carrier = host.network.uplink
        for place in (host, host.network, carrier):
            self.internet.cut(place, self.servers[0])
            self.assertIsNone(self.mapped(socket, "192.0.2.1"))
            self.assertIsNotNone(self.mapped(socket, "192.0.2.2"))
            self.internet.heal(place, self.servers[0])
            self.assertIsNotNone(self.mapped(socket, "192.0.2.1"))

    def test_cutInFlight(self) -> None:
        socket = self.socket(self.home(EASY))
        socket.transport.write(b"x", ("192.0.2.1", 9))
        sink = self.socket(self.servers[0], 9)
        elapse(self.clock, 0.001)
        self.internet.cut(socket.transport.reactor, self.servers[0])
        elapse(self.clock, 1)
        self.assertEqual(sink.received, [])
        self.assertEqual(self.dropped("unreachable"), 1)

    def test_routerWithoutPower(self) -> None:
        host = self.home(EASY)
        socket = self.socket(host)
        router = host.network.router
        assert router is not None
        router.down = True
        self.assertIsNone(self.mapped(socket))
        router.down = False
        self.assertIsNotNone(self.mapped(socket))

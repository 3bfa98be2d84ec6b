"""
Tests for what happens to networks and hosts of the simulated internet: streams
through NATs, changes of address, moves, sleep, and that all can be repeated.
"""

from __future__ import annotations

from attrs import evolve
from twisted.internet import error
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
)
from twisted.internet.task import LoopingCall

from tsrt.test.networkworld import NetworkTestCase, Streams
from tsrt.testing.clock import elapse, nextEvent, resultOf
from tsrt.testing.hosts import HostReactor
from tsrt.testing.links import Link
from tsrt.testing.nat import NAT, NAT_KINDS
from tsrt.testing.natkinds import CGNAT, EASY, SYMMETRIC, SYMMETRIC_RANDOM


class StreamTests(NetworkTestCase):
    """TCP through routers."""

    def test_everyKind(self) -> None:
        """TCP goes out of every network, and comes back byte by byte."""
        web = self.serve(self.servers[0])
        content = bytes(range(256)) * 2000
        for name, kind in NAT_KINDS.items():
            prefix = {"none": "203.0.113.0/25", "firewall": "203.0.113.128/25"}
            lossy = Link(delay=0.002, loss=0.05, jitter=0.01)
            host = self.home(
                kind, name, prefix=prefix.get(name, "10.0.0.0/24"), access=lossy
            )
            client, server = self.connect(host, web, "192.0.2.1")
            seen = server.transport.getPeer().host
            self.assertEqual(seen == host.addresses[0], not kind.translates, name)
            client.transport.write(content)
            server.transport.write(content[::-1])
            elapse(self.clock, 30)
            self.assertEqual(server.data, content)
            self.assertEqual(client.data, content[::-1])
            client.transport.loseConnection()
            elapse(self.clock, 1)
            self.assertTrue(server.reasons[0].check(error.ConnectionDone))
            self.assertEqual((host.streams, host.ports), ([], []))

    def test_noneComesIn(self) -> None:
        """Nobody connects to a host behind a NAT, or a firewall."""
        for number, (kind, prefix) in enumerate(
            ((EASY, "10.0.0.0/24"), (NAT_KINDS["firewall"], "203.0.113.0/24"))
        ):
            host = self.home(kind, f"home{number}", prefix=prefix)
            web = self.serve(host)
            address = host.network.external or host.addresses[0]
            connecting = TCP4ClientEndpoint(
                self.servers[0], address, 80, timeout=5
            ).connect(Streams())
            elapse(self.clock, 70)
            self.failureResultOf(connecting, error.TimeoutError)
            self.assertEqual(web.made, [])

    def test_refusedThroughNAT(self) -> None:
        """That nothing listens at a port is told through all routers."""
        host = self.home(CGNAT)
        connecting = TCP4ClientEndpoint(host, "192.0.2.1", 81).connect(Streams())
        elapse(self.clock, 1)
        self.failureResultOf(connecting, error.ConnectionRefusedError)

    def test_ipv6(self) -> None:
        host = self.home(SYMMETRIC, ipv6=True)
        web = Streams()
        resultOf(self.clock, TCP6ServerEndpoint(self.servers[0], 80).listen(web))
        endpoint = TCP6ClientEndpoint(host, "2001:db8::1", 80)
        client = resultOf(self.clock, endpoint.connect(Streams()))
        elapse(self.clock, 1)
        self.assertEqual(web.made[0].transport.getPeer().host, host.addresses[1])
        client.transport.write(b"hello")
        elapse(self.clock, 1)
        self.assertEqual(web.made[0].data, b"hello")

    def test_shortCut(self) -> None:
        """A stream stands still while its path is cut, and goes on after."""
        host = self.home(CGNAT)
        web = self.serve(self.servers[0])
        client, server = self.connect(host, web, "192.0.2.1")
        self.internet.cut(host.network, self.servers[0])
        client.transport.write(b"late")
        elapse(self.clock, 20)
        self.assertEqual(server.data, b"")
        self.internet.heal(host.network, self.servers[0])
        elapse(self.clock, 10)
        self.assertEqual(server.data, b"late")

    def test_forgottenByTheRouter(self) -> None:
        """A router that has been restarted lets no old stream through."""
        host = self.home(EASY)
        web = self.serve(self.servers[0])
        client, server = self.connect(host, web, "192.0.2.1")
        host.network.reboot()
        client.transport.write(b"lost")
        server.transport.write(b"lost")
        elapse(self.clock, 30)
        self.assertEqual((client.data, server.data), (b"", b""))
        self.assertEqual((client.reasons, server.reasons), ([], []))
        elapse(self.clock, 60)
        for stream in (client, server):
            self.assertTrue(stream.reasons[0].check(error.TimeoutError))
        # New ones are made as ever.
        client, server = self.connect(host, web, "192.0.2.1")
        client.transport.write(b"again")
        elapse(self.clock, 1)
        self.assertEqual(server.data, b"again")


class ChangeTests(NetworkTestCase):
    """Other addresses."""

    def test_externalAddress(self) -> None:
        """The provider gives another address: what was sent to the old is gone."""
        host = self.home(EASY)
        socket = self.socket(host)
        before = self.mapped(socket)
        assert before is not None
        address = host.network.setExternal()
        self.assertNotEqual(address, before[0])
        outsider = self.socket(self.internet.host("outsider"))
        outsider.transport.write(b"to the old one", before)
        elapse(self.clock, 1)
        self.assertEqual(self.dropped("unreachable"), 1)
        self.assertEqual(self.mapped(socket), (address, 41641))
        # Others may get the old one.
        self.internet.host("successor", [before[0]])

    def test_externalAddressOfCarrier(self) -> None:
        host = self.home(CGNAT)
        socket = self.socket(host)
        self.mapped(socket)
        carrier = host.network.uplink
        assert carrier is not None
        carrier.setExternal("203.0.113.77")
        seen = self.mapped(socket)
        assert seen is not None
        self.assertEqual(seen[0], "203.0.113.77")

    def test_addressesInUse(self) -> None:
        host = self.home(EASY)
        with self.assertRaises(ValueError):
            host.network.setExternal("192.0.2.1")
        assert host.network.external is not None
        with self.assertRaises(ValueError):
            self.internet.host("thief", [host.network.external])
        with self.assertRaises(ValueError):
            self.home(EASY, "other", external=host.network.external)
        self.assertIsNotNone(self.mapped(self.socket(host)))

    def test_nothingToChange(self) -> None:
        routed = self.home(None, prefix="203.0.113.0/24")
        with self.assertRaises(ValueError) as raised:
            routed.network.setExternal()
        self.assertIn("translates nothing", str(raised.exception))
        with self.assertRaises(ValueError):
            self.internet.public.setExternal("203.0.114.1")

    def test_setAddresses(self) -> None:
        """A host gets another address by its router, within the network."""
        host = self.home(EASY)
        socket = self.socket(host)
        self.mapped(socket)
        self.internet.setAddresses(host, ["192.168.1.200"])
        self.assertIsNotNone(self.mapped(socket))
        with self.assertRaises(ValueError) as raised:
            self.internet.setAddresses(host, ["10.0.0.1"])
        self.assertIn("192.168.1.0/24", str(raised.exception))
        self.assertEqual(host.addresses, ["192.168.1.200"])
        self.assertIsNotNone(self.mapped(socket))

    def test_usedUp(self) -> None:
        host = self.home(EASY, prefix="192.168.1.0/28")
        for number in range(4):
            self.internet.host(f"h{number}", network=host.network)
        with self.assertRaises(ValueError) as raised:
            self.internet.host("last", network=host.network)
        self.assertIn("wider prefix", str(raised.exception))

    def test_namesAreUnique(self) -> None:
        self.home(EASY)
        with self.assertRaises(ValueError):
            self.internet.network("home")
        self.assertEqual([net.name for net in self.internet.networks()], ["home"])


class MoveTests(NetworkTestCase):
    """A laptop that is carried about."""

    def test_move(self) -> None:
        laptop = self.home(EASY)
        cafe = self.internet.network("cafe", "10.0.0.0/24", nat=SYMMETRIC)
        socket = self.socket(laptop)
        web = self.serve(self.servers[0])
        client, server = self.connect(laptop, web, "192.0.2.1")
        before = self.mapped(socket)
        old = laptop.addresses
        self.internet.moveHost(laptop, cafe)
        self.assertEqual(laptop.addresses, ["10.0.0.10"])
        self.assertEqual(laptop.gateway, "10.0.0.1")
        after = self.mapped(socket)
        assert before is not None and after is not None
        self.assertNotEqual(after[0], before[0])
        # What is sent to the old mapping finds nobody at home.
        self.servers[0].listenUDP(9, protocol := type(socket)())
        protocol.transport.write(b"where are you", before)
        client.transport.write(b"nor streams")
        elapse(self.clock, 70)
        self.assertEqual(server.data, b"")
        self.assertTrue(client.reasons[0].check(error.TimeoutError))
        # The old address is free.
        home = self.internet.networks()[0]
        self.internet.host("heir", old, network=home)

    def test_toTheInternetAndBack(self) -> None:
        laptop = self.home(EASY, ipv6=True)
        home = laptop.network
        had = laptop.addresses
        self.internet.moveHost(laptop, None, ["203.0.113.5"])
        self.assertIsNone(laptop.gateway)
        socket = self.socket(laptop)
        self.assertEqual(self.mapped(socket), ("203.0.113.5", 41641))
        self.internet.moveHost(laptop, home, had)
        self.assertEqual(self.mapped(socket), (home.external, 41641))
        seen = self.mapped(self.socket(laptop, 7, "::"), "2001:db8::1")
        self.assertEqual(seen, (had[1], 7))

    def test_watchers(self) -> None:
        """Programs are told of another network, even when the address is equal."""
        laptop = self.home(EASY)
        cafe = self.internet.network("cafe", nat=SYMMETRIC)
        told: list[str] = []
        stop = laptop.watchNetwork(lambda: told.append(laptop.network.name))
        self.internet.moveHost(laptop, cafe)
        self.assertEqual(laptop.addresses, ["192.168.1.10"])
        self.assertEqual(told, [])
        elapse(self.clock, 0)
        self.assertEqual(told, ["cafe"])
        self.internet.setAddresses(laptop, ["192.168.1.77"])
        elapse(self.clock, 0)
        self.assertEqual(told, ["cafe", "cafe"])
        self.internet.setAddresses(laptop, ["192.168.1.78"])
        stop()
        stop()
        elapse(self.clock, 1)
        self.assertEqual(told, ["cafe", "cafe"])

    def test_watchersSleep(self) -> None:
        """A laptop that was carried about asleep learns of it on waking up."""
        laptop = self.home(EASY)
        told: list[float] = []
        laptop.watchNetwork(lambda: told.append(round(self.clock.seconds())))
        laptop.sleep(100)
        elapse(self.clock, 50)
        self.internet.moveHost(laptop, self.internet.network("cafe", nat=EASY))
        elapse(self.clock, 49)
        self.assertEqual(told, [])
        elapse(self.clock, 2)
        self.assertEqual(told, [100])

    def test_refusedMove(self) -> None:
        """A host that cannot get an address stays where it was."""
        laptop = self.home(EASY)
        cafe = self.internet.network("cafe", "10.0.0.0/24", nat=EASY)
        self.internet.host("guest", ["10.0.0.10"], network=cafe)
        home = laptop.network
        with self.assertRaises(ValueError):
            self.internet.moveHost(laptop, cafe, ["10.0.0.10"])
        self.assertIs(laptop.network, home)
        self.assertIsNotNone(self.mapped(self.socket(laptop)))


class SleepTests(NetworkTestCase):
    """Hosts that sleep."""

    def test_timersStandStill(self) -> None:
        """What is due meanwhile is run on waking up, in its order."""
        host = self.home(EASY)
        ran: list[tuple[str, float]] = []
        for name, delay in (("third", 400), ("first", 5), ("second", 50)):
            host.callLater(delay, lambda name=name: ran.append((name, host.seconds())))
        self.clock.advance(1)
        host.sleep(100)
        self.assertTrue(host.isAsleep)
        elapse(self.clock, 99)
        self.assertEqual(ran, [])
        elapse(self.clock, 2)
        self.assertEqual([name for name, _ in ran], ["first", "second"])
        self.assertAlmostEqual(ran[0][1], 101, 3)
        elapse(self.clock, 300)
        self.assertAlmostEqual(ran[2][1], 400, 3)

    def test_wallAndMonotonicClock(self) -> None:
        host = self.home(EASY)
        self.clock.advance(10)
        host.sleep(100)
        elapse(self.clock, 50)
        self.assertEqual((host.seconds(), host.monotonic()), (60, 10))
        elapse(self.clock, 60)
        self.assertEqual((host.seconds(), host.monotonic()), (120, 20))
        host.sleep(100)
        elapse(self.clock, 110)
        self.assertEqual((host.seconds(), host.monotonic()), (230, 30))

    def test_loopingCallSkips(self) -> None:
        host = self.home(EASY)
        beats: list[float] = []
        loop = LoopingCall(lambda: beats.append(host.seconds()))
        loop.clock = host
        loop.start(10)
        elapse(self.clock, 25)
        host.sleep(1000)
        elapse(self.clock, 1020)
        loop.stop()
        self.assertEqual([round(beat) for beat in beats], [0, 10, 20, 1025, 1030, 1040])

    def test_noNetworkWhileAsleep(self) -> None:
        host = self.internet.host("sleeper")
        socket = self.socket(host)
        sender = self.socket(self.servers[0], 9)
        host.sleep(100)
        sender.transport.write(b"early", (host.addresses[0], 41641))
        elapse(self.clock, 101)
        sender.transport.write(b"late", (host.addresses[0], 41641))
        elapse(self.clock, 1)
        self.assertEqual([data for data, _ in socket.received], [b"late"])
        self.assertEqual(self.dropped("unreachable"), 1)

    def test_firstTimerHasANetwork(self) -> None:
        host = self.internet.host("sleeper")
        socket = self.socket(host)
        sink = self.socket(self.servers[0], 9)
        host.callLater(5, socket.transport.write, b"awake", ("192.0.2.1", 9))
        host.sleep(100)
        elapse(self.clock, 101)
        self.assertEqual([data for data, _ in sink.received], [b"awake"])

    def test_scheduledWhileAsleep(self) -> None:
        """What a test schedules on a sleeping host waits as well."""
        host = self.internet.host("sleeper")
        host.sleep(100)
        ran: list[float] = []
        host.callLater(1, lambda: ran.append(host.seconds()))
        host.callFromThread(lambda: ran.append(host.seconds()))
        elapse(self.clock, 99)
        self.assertEqual(ran, [])
        elapse(self.clock, 2.5)
        self.assertEqual([round(now) for now in ran], [100, 101])

    def test_streamsSurviveShortSleep(self) -> None:
        host = self.home(EASY)
        web = self.serve(self.servers[0])
        client, server = self.connect(host, web, "192.0.2.1")
        client.transport.write(b"before")
        host.sleep(30)
        server.transport.write(b"while asleep")
        elapse(self.clock, 29)
        self.assertEqual((client.data, server.data), (b"", b""))
        # The sleeper goes on at once, the other with its next retransmission.
        elapse(self.clock, 1.1)
        self.assertEqual(server.data, b"before")
        elapse(self.clock, 9)
        self.assertEqual(client.data, b"while asleep")

    def test_sleepDoesNotSlowRetransmissions(self) -> None:
        """What was in the air is repeated at once, not after a long pause."""
        host = self.home(EASY)
        web = self.serve(self.servers[0])
        client, server = self.connect(host, web, "192.0.2.1")
        client.transport.write(b"in the air")
        elapse(self.clock, 0.005)
        host.sleep(300)
        elapse(self.clock, 300.1)
        self.assertEqual(server.data, b"in the air")

    def test_longSleepEndsStreams(self) -> None:
        """
        The other end gives up; the sleeper, whose timers stood still, learns it
        when it says something.
        """
        host = self.home(EASY)
        web = self.serve(self.servers[0])
        client, server = self.connect(host, web, "192.0.2.1")
        host.sleep(3600)
        server.transport.write(b"are you there")
        elapse(self.clock, 3599)
        self.assertTrue(server.reasons[0].check(error.TimeoutError))
        self.assertEqual(client.reasons, [])
        elapse(self.clock, 2)
        client.transport.write(b"I am back")
        elapse(self.clock, 2)
        self.assertTrue(client.reasons[0].check(error.ConnectionLost))

    def test_connectingWhileAsleep(self) -> None:
        host = self.home(EASY)
        web = self.serve(self.servers[0])
        host.sleep(100)
        connecting = TCP4ClientEndpoint(host, "192.0.2.1", 80).connect(Streams())
        elapse(self.clock, 99)
        self.assertEqual(web.made, [])
        elapse(self.clock, 5)
        self.successResultOf(connecting)

    def test_mappingsEndMeanwhile(self) -> None:
        host = self.home(SYMMETRIC)
        socket = self.socket(host)
        before = self.mapped(socket)
        host.sleep(100)
        elapse(self.clock, 101)
        self.assertNotEqual(self.mapped(socket), before)

    def test_switchedOffBefore(self) -> None:
        """Who had no network before has none after."""
        host = self.internet.host("sleeper")
        host.down = True
        host.sleep(10)
        elapse(self.clock, 11)
        self.assertTrue(host.down)
        self.assertFalse(host.isAsleep)

    def test_mistakes(self) -> None:
        host = self.internet.host("sleeper")
        with self.assertRaises(ValueError):
            host.sleep(0)
        host.sleep(10)
        with self.assertRaises(ValueError) as raised:
            host.sleep(10)
        self.assertIn("asleep", str(raised.exception))


class DeterminismTests(NetworkTestCase):
    """One seed, one course of events."""

    def trace(self, seed: int) -> list[object]:
        """Everything that arrives in a lively minute, with its time."""
        self.setUp()
        self.internet.random.seed(seed)
        bad = Link(delay=0.01, loss=0.1, duplicate=0.1, reorder=0.2, jitter=0.02)
        self.internet.link = bad
        kinds = [SYMMETRIC_RANDOM, EASY, CGNAT, evolve(SYMMETRIC, udpTimeout=2.0)]
        hosts = [self.home(kind, f"h{n}", link=bad) for n, kind in enumerate(kinds)]
        events: list[object] = []

        def watch(host: HostReactor) -> None:
            socket = self.socket(host)
            socket.datagramReceived = lambda data, source: events.append(
                (round(self.clock.seconds(), 9), host.name, source, data)
            )
            chatter = LoopingCall(self.chat, socket, events)
            chatter.clock = host
            chatter.start(0.7)

        for host in (*hosts, *self.servers):
            watch(host)
        elapse(self.clock, 20)
        nat = hosts[0].network.nat
        assert isinstance(nat, NAT)
        nat.mapPort("udp", hosts[0].addresses[0], 41641, 0, 30, self.clock.seconds())
        self.internet.moveHost(hosts[1], hosts[2].network)
        hosts[3].sleep(11)
        hosts[2].network.reboot()
        elapse(self.clock, 40)
        return [*events, sorted(self.internet.dropped.items())]

    def chat(self, socket, events: list[object]) -> None:
        known = [event[2] for event in events[-3:]]
        for destination in (*known, ("192.0.2.1", 41641), ("192.0.2.2", 41641)):
            socket.transport.write(b"%d" % len(events), destination)

    def test_sameTwice(self) -> None:
        first, second, other = self.trace(3), self.trace(3), self.trace(4)
        self.assertGreater(len(first), 500)
        self.assertEqual(first, second)
        self.assertNotEqual(first, other)

    def test_nothingIsLeftScheduled(self) -> None:
        """The internet itself keeps no timers: state ages, it is not swept."""
        socket = self.socket(self.home(CGNAT))
        self.mapped(socket)
        elapse(self.clock, 1)
        self.assertIsNone(nextEvent(self.clock))

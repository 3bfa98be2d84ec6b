"""
Tests for L{tsrt.derp.pool} and L{tsrt.derp.region}, against a real relay on a
simulated internet.
"""

from __future__ import annotations

from itertools import pairwise

from tsrt.derp.failures import RelayLost, RelayRefused, RelayUnreachable
from tsrt.derp.pool import OBSERVED_LIMIT
from tsrt.derp.protocol import QUEUE_LIMIT
from tsrt.derp.region import IDLE_CHECK, IDLE_TIMEOUT
from tsrt.keys import NodeKey
from tsrt.test.relayworld import (
    HOME,
    OTHER,
    Relayed,
    RelayTestCase,
    derpMap,
    node,
    region,
)
from tsrt.wire.derp import PeerGoneReason


class TwoRegionsTestCase(RelayTestCase):
    """Two regions with one relay each."""

    def setUp(self) -> None:
        super().setUp()
        self.otherHost, self.other = self.world.relay("other")
        self.map = derpMap(region(HOME, node()), region(OTHER, node("other", OTHER)))


class ExchangeTests(TwoRegionsTestCase):
    """Packets get from one client to another."""

    def test_packetsOfOneRelay(self) -> None:
        """What one client sends another of the same relay receives, in order."""
        alice, bob = self.connected("alice"), self.connected("bob")
        alice.pool.send(HOME, bob.public, [b"one", b"two", b"three"])
        self.world.until(lambda: len(bob.data) == 3)
        self.assertEqual(
            bob.packets, [(HOME, alice.public, [b"one", b"two", b"three"])]
        )

    def test_packetsToOneself(self) -> None:
        """A packet to one's own key comes back."""
        alice = self.connected("alice")
        alice.pool.send(HOME, alice.public, [b"me"])
        self.world.until(lambda: alice.data == [b"me"])

    def test_otherRegionIsOpenedOnDemand(self) -> None:
        """Sending to a peer of another region connects there first."""
        alice, bob = self.connected("alice"), self.connected("bob", OTHER)
        self.assertFalse(alice.pool.isConnected(OTHER))
        alice.pool.send(OTHER, bob.public, [b"early", b"bird"])
        self.world.until(lambda: len(bob.data) == 2)
        self.assertEqual(bob.data, [b"early", b"bird"])
        self.assertTrue(alice.pool.isConnected(OTHER))

    def test_oneCallForEachSourceAndRead(self) -> None:
        """Packets of one read are handed on together, by source."""
        alice, bob = self.connected("alice"), self.connected("bob")
        carol = self.connected("carol")
        for number in range(5):
            alice.pool.send(HOME, carol.public, [b"a%d" % number])
            bob.pool.send(HOME, carol.public, [b"b%d" % number])
        self.world.until(lambda: len(carol.data) == 10)
        self.assertEqual(
            {source: packets for _, source, packets in carol.packets},
            {
                alice.public: [b"a%d" % n for n in range(5)],
                bob.public: [b"b%d" % n for n in range(5)],
            },
        )

    def test_unknownRegion(self) -> None:
        """What is sent to a region that the map does not have is counted."""
        alice = self.connected("alice", HOME)
        alice.pool.send(77, bytes(32), [b"x", b"y"])
        self.assertEqual(alice.pool.droppedUnknownRegion, 2)

    def test_strangersAreDropped(self) -> None:
        """Once members are known, what others send goes no further."""
        alice, bob = self.connected("alice"), self.connected("bob")
        bob.pool.setPeers([bytes(32)])
        alice.pool.send(HOME, bob.public, [b"x"])
        self.world.elapse(1)
        self.assertEqual(bob.data, [])
        self.assertEqual(bob.pool.droppedUnknownPeer, 1)
        bob.pool.setPeers([alice.public])
        alice.pool.send(HOME, bob.public, [b"y"])
        self.world.until(lambda: bob.data == [b"y"])


class HomeTests(TwoRegionsTestCase):
    """One region is home, and stays connected."""

    def flags(self, client: Relayed) -> dict[int, bool]:
        """What each relay believes about being the client's home."""
        return {
            number: any(c.isHome for c in server.clients(client.public))
            for number, server in ((HOME, self.relay), (OTHER, self.other))
        }

    def test_T_home_flagIsSetExactlyForTheHome(self) -> None:
        """Whatever is measured how often: the home's flag is set, no other."""
        alice = self.connected("alice")
        for home in (HOME, HOME, OTHER, OTHER, HOME, OTHER, HOME):
            alice.pool.setHome(home)
            self.world.until(lambda home=home: alice.pool.isConnected(home))
            self.world.elapse(1)
            self.assertEqual(
                self.flags(alice), {HOME: home == HOME, OTHER: home == OTHER}
            )
            self.assertEqual(alice.pool.status().home, home)

    def test_T_home_mapAfterHome(self) -> None:
        """A home that is set before the map knows it is set when it does."""
        alice = Relayed(self.world, "alice")
        alice.pool.startService()
        alice.pool.setHome(HOME)
        self.world.elapse(1)
        alice.pool.setMap(self.map)
        self.world.until(lambda: alice.pool.isConnected(HOME))
        self.world.elapse(1)
        self.assertEqual(self.flags(alice), {HOME: True, OTHER: False})

    def test_homeIsNeverIdle(self) -> None:
        """The home stays connected without a packet for an hour."""
        alice = self.connected("alice")
        self.world.elapse(3600)
        self.assertTrue(alice.pool.isConnected(HOME))
        self.assertEqual(alice.connections, [HOME])

    def test_idleRegionIsClosed(self) -> None:
        """Another region is closed a minute after the last packet sent."""
        alice = self.connected("alice")
        alice.pool.send(OTHER, bytes(32), [b"x"])
        self.world.until(lambda: alice.pool.isConnected(OTHER))
        self.world.elapse(IDLE_TIMEOUT - 5)
        alice.pool.send(OTHER, bytes(32), [b"x"])
        self.world.elapse(IDLE_TIMEOUT - 1)
        self.assertTrue(alice.pool.isConnected(OTHER))
        self.world.elapse(IDLE_CHECK + 1)
        self.assertFalse(alice.pool.isConnected(OTHER))
        self.assertEqual(self.other.clients(), [])
        self.assertEqual(alice.disconnections, [OTHER])
        self.assertTrue(alice.pool.isConnected(HOME))

    def test_formerHomeIsKeptForAWhile(self) -> None:
        """Peers that send to the former home are heard for another minute."""
        alice = self.connected("alice")
        self.world.elapse(600)
        alice.pool.setHome(OTHER)
        self.world.elapse(IDLE_TIMEOUT - 1)
        self.assertTrue(alice.pool.isConnected(HOME))
        self.world.elapse(IDLE_CHECK + 2)
        self.assertFalse(alice.pool.isConnected(HOME))

    def test_noHome(self) -> None:
        """Without a home nothing is connected with."""
        alice = self.client("alice", None)
        self.world.elapse(60)
        self.assertEqual(alice.connections, [])


class RouteTests(TwoRegionsTestCase):
    """Which relay leads to a peer."""

    def test_T_no_region_observedThenOwnHome(self) -> None:
        """A peer without a region is sent to where it was heard, else home."""
        alice = self.connected("alice")
        bob = self.connected("bob", OTHER)
        self.assertEqual(alice.pool.regionFor(bob.public, None), HOME)
        self.assertEqual(alice.pool.regionFor(bob.public, 0), HOME)
        alice.pool.send(OTHER, bob.public, [b"hello"])
        self.world.until(lambda: bool(bob.data))
        bob.pool.send(OTHER, alice.public, [b"hi"])
        self.world.until(lambda: bool(alice.data))
        self.assertEqual(alice.pool.regionFor(bob.public, None), OTHER)

    def test_T_no_region_withoutAnyHome(self) -> None:
        """With no home and nothing heard there is no way."""
        alice = self.client("alice", None)
        self.assertIsNone(alice.pool.regionFor(bytes(32), None))
        self.assertIsNone(alice.pool.regionFor(bytes(32), 77))

    def test_reverseRoute(self) -> None:
        """A peer is answered where it was heard, before its home is dialled."""
        alice = self.connected("alice")
        bob = self.connected("bob", OTHER)
        bob.pool.send(HOME, alice.public, [b"question"])
        self.world.until(lambda: bool(alice.data))
        self.assertEqual(alice.pool.regionFor(bob.public, OTHER), HOME)
        alice.pool.send(OTHER, bob.public, [b"answer"])
        self.world.until(lambda: bob.data == [b"answer"])
        self.assertFalse(alice.pool.isConnected(OTHER))
        self.assertEqual(bob.packets[0][0], HOME)

    def test_peerGoneEndsTheReverseRoute(self) -> None:
        """A peer that left a relay is not looked for there any more."""
        alice = self.connected("alice")
        bob = self.connected("bob", OTHER)
        bob.pool.send(HOME, alice.public, [b"question"])
        self.world.until(lambda: bool(alice.data))
        self.world.elapse(IDLE_TIMEOUT + 2 * IDLE_CHECK)
        self.assertEqual(alice.gone, [(HOME, bob.public, PeerGoneReason.DISCONNECTED)])
        self.assertIsNone(alice.pool.observedRegion(bob.public))
        self.assertEqual(alice.pool.regionFor(bob.public, OTHER), OTHER)

    def test_lostConnectionEndsTheReverseRoutes(self) -> None:
        """What was learnt by a connection ends with it."""
        alice = self.connected("alice")
        bob = self.connected("bob", OTHER)
        bob.pool.send(HOME, alice.public, [b"question"])
        self.world.until(lambda: bool(alice.data))
        for connection in self.relay.clients(alice.public):
            connection.abort()
        self.world.until(lambda: bool(alice.disconnections))
        self.assertIsNone(alice.pool.observedRegion(bob.public))

    def test_R_DERP_3_everyPacketIsHandedOnUnchanged(self) -> None:
        """The pool looks into no packet: disco and junk come out as they are."""
        alice, bob = self.connected("alice"), self.connected("bob")
        packets = [b"TS\xf0\x9f\x92\xac" + bytes(60), b"", b"junk", bytes(65536)]
        alice.pool.send(HOME, bob.public, packets)
        self.world.until(lambda: len(bob.data) == 4)
        self.assertEqual(bob.data, packets)

    def test_observedPeersAreBounded(self) -> None:
        """Of too many strangers the first are forgotten."""
        alice = self.connected("alice")
        service = alice.pool._regions[HOME]
        for number in range(OBSERVED_LIMIT + 3):
            alice.pool.regionPackets(service, number.to_bytes(32, "big"), [b"x"])
        self.assertEqual(len(alice.pool._observed), OBSERVED_LIMIT)
        self.assertIsNone(alice.pool.observedRegion(bytes(32)))

    def test_R_DERP_5_onlyRelaysOfTheMap(self) -> None:
        """However a region was inferred, it is a relay of the map or none."""
        alice = self.connected("alice")
        bob = self.connected("bob", OTHER)
        bob.pool.send(HOME, alice.public, [b"x"])
        self.world.until(lambda: bool(alice.data))
        alice.pool.setHome(OTHER)
        alice.pool.setMap(derpMap(region(OTHER, node("other", OTHER))))
        self.assertEqual(alice.pool.regionFor(bob.public, None), OTHER)
        alice.pool.setMap(derpMap())
        self.assertIsNone(alice.pool.regionFor(bob.public, None))

    def test_R_DERP_6_departedPeersAreForgotten(self) -> None:
        """Where a peer was heard is forgotten when it leaves the tailnet."""
        alice, bob = self.connected("alice"), self.connected("bob")
        bob.pool.send(HOME, alice.public, [b"x"])
        self.world.until(lambda: bool(alice.data))
        alice.pool.setPeers([bob.public])
        self.assertEqual(alice.pool.observedRegion(bob.public), HOME)
        alice.pool.setPeers([])
        self.assertIsNone(alice.pool.observedRegion(bob.public))

    def test_notHere(self) -> None:
        """A disco packet to nobody is answered, at most three at a time."""
        alice = self.connected("alice")
        disco = b"TS\xf0\x9f\x92\xac" + bytes(60)
        for _ in range(10):
            alice.pool.send(HOME, bytes(32), [disco, b"data"])
        self.world.elapse(0.5)
        self.assertEqual(alice.gone, [(HOME, bytes(32), PeerGoneReason.NOT_HERE)] * 3)


class FailureTests(TwoRegionsTestCase):
    """Relays fail, and come back."""

    def test_R_DERP_7_oneFailingRegionStopsNoOther(self) -> None:
        """While one region cannot be reached the others serve."""
        self.otherHost.down = True
        alice, bob = self.connected("alice"), self.connected("bob")
        alice.pool.send(OTHER, bytes(32), [b"x"])
        self.world.elapse(30)
        self.assertTrue(alice.failures)
        self.assertEqual({number for number, _ in alice.failures}, {OTHER})
        alice.pool.send(HOME, bob.public, [b"y"])
        self.world.until(lambda: bob.data == [b"y"])
        self.otherHost.down = False
        alice.pool.send(OTHER, bytes(32), [b"x"])
        self.world.until(lambda: alice.pool.isConnected(OTHER))

    def test_reconnects(self) -> None:
        """A lost home is connected with again, at once."""
        alice = self.connected("alice")
        for connection in self.relay.clients():
            connection.abort()
        self.world.until(lambda: alice.disconnections == [HOME])
        self.world.until(lambda: alice.connections == [HOME, HOME], limit=1)
        self.assertIsInstance(alice.failures[0][1], RelayLost)

    def test_retriesAreSpacedOut(self) -> None:
        """Waits grow with the square of the failures, to about five seconds."""
        self.world.result(self.relay.stopService())
        alice = self.client("alice")
        times = []
        for _ in range(60):
            count = len(alice.failures)
            self.world.until(lambda count=count: len(alice.failures) > count, limit=20)
            times.append(self.world.clock.seconds())
        waits = [b - a for a, b in pairwise(times)]
        self.assertLess(waits[0], 0.4)
        self.assertTrue(all(wait < 7.9 for wait in waits), waits)
        self.assertTrue(all(wait > 2.5 for wait in waits[-10:]), waits)
        self.assertGreater(len({round(wait, 6) for wait in waits[-10:]}), 5)
        self.assertIsInstance(alice.failures[0][1], RelayUnreachable)

    def test_refusedLoginIsRetriedSlowly(self) -> None:
        """A relay that hangs up on each login is not besieged."""
        self.relay.admit = lambda key, address: False
        alice = self.client("alice")
        self.world.elapse(120)
        self.assertEqual(alice.connections, [])
        self.assertTrue(20 < self.relay.counters.refused < 80)
        self.assertIsInstance(alice.pool.status().regions[HOME].error, RelayLost)

    def test_refusedUpgrade(self) -> None:
        """An answer other than 101 is a typed failure that says so."""
        self.world.internet.register("relay.example.com", *self.otherHost.addresses)
        self.other.stopService()
        self.world.elapse(1)
        from twisted.web.resource import Resource
        from twisted.web.server import Site

        self.otherHost.listenTCP(443, Site(Resource(), reactor=self.otherHost))
        alice = self.client("alice")
        self.world.until(lambda: bool(alice.failures))
        error = alice.failures[0][1]
        self.assertIsInstance(error, RelayRefused)
        self.assertIn("404", str(error))

    def test_restart(self) -> None:
        """A relay that restarts is given the time that it asks for."""
        alice = self.connected("alice")
        self.relay.restart(reconnectIn=8.0)
        self.world.until(lambda: alice.disconnections == [HOME])
        gone = self.world.clock.seconds()
        self.world.until(lambda: len(alice.connections) == 2)
        self.assertTrue(4.0 <= self.world.clock.seconds() - gone <= 12.5)

    def test_restartAdviceIsBounded(self) -> None:
        """A relay cannot send its clients away for days."""
        alice = self.connected("alice")
        self.relay.restart(reconnectIn=1e6)
        self.world.until(lambda: len(alice.connections) == 2, limit=100)

    def test_silentRelay(self) -> None:
        """A relay that is cut off is given up after two minutes."""
        alice = self.connected("alice")
        self.world.internet.cut(alice.host, self.relayHost)
        self.world.elapse(115)
        self.assertTrue(alice.pool.isConnected(HOME))
        self.world.elapse(70)
        self.assertFalse(alice.pool.isConnected(HOME))
        self.world.internet.heal(alice.host, self.relayHost)
        self.world.until(lambda: alice.pool.isConnected(HOME))

    def test_keepAlivesKeepItUp(self) -> None:
        """A relay that only sends keep-alives is not given up."""
        alice = self.connected("alice")
        self.world.elapse(1000)
        self.assertEqual(alice.disconnections, [])

    def test_health(self) -> None:
        """What a relay says is wrong is told, and that it is over."""
        alice = self.connected("alice")
        self.relay.setHealth("overloaded")
        self.world.until(lambda: alice.health == [(HOME, "overloaded")])
        self.assertEqual(alice.pool.status().regions[HOME].problem, "overloaded")
        self.relay.setHealth("")
        self.world.until(lambda: alice.health == [(HOME, "overloaded"), (HOME, "")])

    def test_healthEndsWithTheConnection(self) -> None:
        """The problem of a relay that is gone is no problem any more."""
        alice = self.connected("alice")
        self.relay.setHealth("overloaded")
        self.world.until(lambda: bool(alice.health))
        self.relay.restart()
        self.world.until(lambda: alice.health[-1] == (HOME, ""))


class QueueTests(TwoRegionsTestCase):
    """Queues are bounded, and drops counted."""

    def test_waitingForAConnection(self) -> None:
        """While a region is being connected with, 32 packets wait."""
        alice, bob = self.connected("alice"), self.connected("bob", OTHER)
        for number in range(50):
            alice.pool.send(OTHER, bob.public, [b"%02d" % number])
        counters = alice.pool.status().regions[OTHER].counters
        self.assertEqual(counters["droppedFull"], 50 - QUEUE_LIMIT)
        self.world.until(lambda: len(bob.data) == QUEUE_LIMIT)
        self.assertEqual(bob.data[-1], b"%02d" % (QUEUE_LIMIT - 1))

    def test_oneBigBatch(self) -> None:
        """A batch beyond the room is cut, not refused."""
        alice, bob = self.connected("alice"), self.connected("bob", OTHER)
        alice.pool.send(OTHER, bob.public, [b"%03d" % n for n in range(100)])
        self.world.until(lambda: len(bob.data) == QUEUE_LIMIT)

    def test_congestedConnection(self) -> None:
        """When the relay takes no more, a bounded number of packets waits."""
        alice, bob = self.connected("alice"), self.connected("bob")
        self.world.internet.cut(alice.host, self.relayHost)
        for _ in range(1000):
            alice.pool.send(HOME, bob.public, [bytes(1000)])
            self.world.elapse(0.001)
        counters = alice.pool.status().regions[HOME].counters
        self.assertGreater(counters["droppedFull"], 400)
        self.world.internet.heal(alice.host, self.relayHost)
        self.world.elapse(10)
        # The relay drops as well, for its own connection with bob.
        dropped = counters["droppedFull"] + self.relay.counters.droppedFull
        self.assertEqual(len(bob.data) + dropped, 1000)
        alice.pool.send(HOME, bob.public, [b"after"])
        self.world.until(lambda: bob.data[-1] == b"after")

    def test_tooLong(self) -> None:
        """A packet that no relay takes is dropped alone."""
        alice, bob = self.connected("alice"), self.connected("bob")
        alice.pool.send(HOME, bob.public, [b"a", bytes(65537), bytes(65536), b"b"])
        self.world.until(lambda: len(bob.data) == 3)
        counters = alice.pool.status().regions[HOME].counters
        self.assertEqual(counters["droppedTooLong"], 1)

    def test_rateLimit(self) -> None:
        """Packets beyond the rate that the relay asks for are not sent."""
        self.world.relay("slow", rateLimit=(1000, 2000))
        self.map = derpMap(region(HOME, node("slow")))
        alice, bob = self.connected("alice"), self.connected("bob")
        self.world.elapse(1)
        alice.pool.send(HOME, bob.public, [bytes(100 - 37)] * 30)
        self.world.elapse(1)
        self.assertEqual(len(bob.data), 20)
        alice.pool.send(HOME, bob.public, [bytes(100 - 37)] * 30)
        self.world.elapse(1)
        self.assertEqual(len(bob.data), 30)
        counters = alice.pool.status().regions[HOME].counters
        self.assertEqual(counters["droppedRate"], 30)


class ChangeTests(TwoRegionsTestCase):
    """Maps, keys and networks change."""

    def test_changedRegionIsReconnected(self) -> None:
        """A region that is described otherwise is left, the home rejoined."""
        alice = self.connected("alice")
        changed = alice.pool.setMap(
            derpMap(region(HOME, node("other")), region(OTHER, node("other", OTHER)))
        )
        self.assertEqual(changed, {HOME})
        self.world.until(lambda: bool(self.other.clients(alice.public)))
        self.world.until(lambda: not self.relay.clients())

    def test_sameMapChangesNothing(self) -> None:
        """The same map again leaves all connections alone."""
        alice = self.connected("alice")
        self.assertEqual(
            alice.pool.setMap(
                derpMap(region(HOME, node()), region(OTHER, node("other", OTHER)))
            ),
            frozenset(),
        )
        self.world.elapse(5)
        self.assertEqual(alice.connections, [HOME])

    def test_removedRegionIsLeft(self) -> None:
        """A region that is gone from the map is not connected with any more."""
        alice = self.connected("alice")
        self.assertEqual(alice.pool.setMap(derpMap()), {HOME, OTHER})
        self.world.until(lambda: not self.relay.clients())
        self.world.elapse(30)
        self.assertEqual(alice.connections, [HOME])

    def test_newKey(self) -> None:
        """A new node key closes all connections; the home knows the new one."""
        alice = self.connected("alice")
        alice.pool.send(OTHER, bytes(32), [b"x"])
        self.world.until(lambda: alice.pool.isConnected(OTHER))
        key = NodeKey.generate(self.world.randbytes)
        alice.pool.setKey(key)
        self.world.until(lambda: bool(self.relay.clients(key.public().raw)))
        self.world.elapse(3)
        self.assertEqual(self.relay.clients(alice.public), [])
        self.assertEqual(self.other.clients(), [])
        alice.pool.setKey(key)
        self.world.elapse(3)
        self.assertEqual(alice.connections.count(HOME), 2)

    def test_vanishedAddress(self) -> None:
        """A connection by an address that is gone is made anew at once."""
        alice = self.connected("alice")
        self.world.internet.setAddresses(alice.host, ["198.51.100.200"])
        alice.pool.checkConnections(["198.51.100.200"])
        self.world.until(lambda: alice.connections == [HOME, HOME], limit=3)

    def test_deadConnection(self) -> None:
        """A connection that does not answer a ping is made anew."""
        alice = self.connected("alice")
        self.relayHost.crash()
        self.world.elapse(1)
        self.world.internet.cut(alice.host, self.relayHost)
        alice.pool.checkConnections()
        self.world.elapse(3.1)
        self.world.internet.heal(alice.host, self.relayHost)
        self.world.until(lambda: len(alice.connections) == 2, limit=20)

    def test_livingConnection(self) -> None:
        """A connection that answers is kept."""
        alice = self.connected("alice")
        alice.pool.checkConnections(alice.host.addresses)
        self.world.elapse(10)
        self.assertEqual(alice.connections, [HOME])


class LifeTests(TwoRegionsTestCase):
    """Everything that is started is stopped."""

    def test_stopLeavesNothing(self) -> None:
        """After the stop nothing is scheduled, open or connected."""
        alice = self.connected("alice")
        alice.pool.send(OTHER, bytes(32), [b"x"])
        self.world.until(lambda: alice.pool.isConnected(OTHER))
        self.world.result(alice.pool.stopService())
        self.assertNothingLeft(alice.host)
        alice.pool.send(HOME, bytes(32), [b"x"])
        self.assertNothingLeft(alice.host)

    def test_stopAtAnyStep(self) -> None:
        """A stop in the middle of connecting leaves nothing either."""
        for step in range(12):
            alice = self.client(f"alice{step}")
            self.world.elapse(step * 0.007)
            self.world.result(alice.pool.stopService(), limit=5)
            self.assertNothingLeft(alice.host)

    def test_stopWhileCut(self) -> None:
        """A relay that does not answer does not keep the pool from stopping."""
        alice = self.connected("alice")
        self.world.internet.cut(alice.host, self.relayHost)
        alice.pool.send(HOME, bytes(32), [bytes(60000)] * 20)
        self.world.result(alice.pool.stopService(), limit=5)
        self.assertNothingLeft(alice.host)

    def test_stopWhileUnreachable(self) -> None:
        """A pool that waits for its next attempt stops at once."""
        self.relayHost.down = True
        alice = self.client("alice")
        self.world.elapse(33)
        self.world.result(alice.pool.stopService(), limit=1)
        self.assertNothingLeft(alice.host)

    def test_startStopStart(self) -> None:
        """A stopped pool can be started again, and finds its home."""
        alice = self.connected("alice")
        self.world.result(alice.pool.stopService())
        alice.pool.startService()
        self.world.until(lambda: alice.pool.isConnected(HOME))
        self.world.result(alice.pool.stopService())
        self.assertNothingLeft(alice.host)

    def test_status(self) -> None:
        """The status says what there is to say of each region of use."""
        alice = self.connected("alice")
        status = alice.pool.status()
        self.assertEqual((status.home, list(status.regions)), (HOME, [HOME]))
        home = status.regions[HOME]
        self.assertEqual(
            (home.code, home.isHome, home.isOpen, home.isConnected, home.node),
            ("r900", True, True, True, "900relay"),
        )
        self.assertIsNone(home.error)
        self.assertIsNotNone(home.since)
        self.assertEqual(alice.pool.lastHeard(HOME), home.since)
        self.assertIsNone(alice.pool.lastHeard(OTHER))

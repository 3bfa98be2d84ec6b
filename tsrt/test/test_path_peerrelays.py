"""Tests of L{tsrt.path.peerrelays}: meeting a peer at a third node."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tsrt.addresses import AddrPort
from tsrt.path.binding import MOST_REPEATS
from tsrt.path.peerrelays import (
    ALLOCATE_TIMEOUT,
    DISCOVERY_INTERVAL,
    MOST_BINDINGS_PER_PEER,
    MOST_PLACES,
)
from tsrt.path.places import Relayed, Via
from tsrt.test.pathworld import at
from tsrt.test.peerrelayworld import SERVER, RelayNode, RelayTestCase, UserNode
from tsrt.wire import disco
from tsrt.wire.relayendpoint import RelayEndpoint


class MeetingTests(RelayTestCase):
    """From DERP to a peer relay, and on."""

    def test_found(self) -> None:
        """One side may use the relay; both do, and neither sends by DERP."""
        self.assertEqual(self.a.route(self.b), (None, True))
        self.world.run(0.5)
        via = Via(at(SERVER), 1)
        self.assertEqual(self.a.route(self.b), (via, False))
        self.assertEqual(self.viaOf(self.b, self.a), via)
        self.assertEqual(
            self.a.status(self.b).why, "peer-relay 192.0.2.200:7777:vni:1 (40 ms)"
        )
        self.assertEqual(self.a.relays.counters.confirmed, 1)
        self.assertEqual(self.b.relays.counters.confirmed, 1)
        self.assertIsNone(self.a.relays.deadline())
        self.assertIsNone(self.b.relays.deadline())

    def test_isKept(self) -> None:
        """While it is used it is never left, and no second place is asked for."""
        self.talk(2)
        for _ in range(600):
            self.assertFalse(self.a.route(self.b)[1])
            self.assertFalse(self.b.route(self.a)[1])
            self.world.run(0.2)
        self.assertEqual(self.viaOf(self.a, self.b), Via(at(SERVER), 1))
        self.assertLessEqual(self.a.relays.counters.requestsSent, 4)

    def test_bothAsk(self) -> None:
        """That both may ask the relay leads to one place."""
        self.b.knows(self.a.peer("198.51.100.1:1"), self.r.peer())
        self.b.uses(self.r)
        self.talk(3)
        self.assertEqual(self.viaOf(self.a, self.b), self.viaOf(self.b, self.a))
        self.assertEqual(self.a.relays.counters.requestsSent, 1)
        self.assertEqual(self.b.relays.counters.requestsSent, 1)

    def test_directIsBetter(self) -> None:
        """A direct path, when there is one, is found and taken at once."""
        self.talk(10)
        self.viaOf(self.a, self.b)
        self.world.cut = False
        self.talk(8)
        self.assertEqual(self.place(self.a, self.b), self.b.address)
        self.assertEqual(self.place(self.b, self.a), self.a.address)

    def test_directLost(self) -> None:
        """When the direct path breaks, DERP carries until the relay does."""
        self.world.cut = False
        self.talk(3)
        self.assertEqual(self.place(self.a, self.b), self.b.address)
        self.talk(60)
        self.assertEqual(self.a.relays.counters.requestsSent, 1)
        self.world.cut = True
        while self.place(self.a, self.b) is not None:
            self.talk(0.5)
        self.assertTrue(self.a.route(self.b)[1])
        self.talk(1)
        self.viaOf(self.a, self.b)

    def test_relayDies(self) -> None:
        """A relay that dies is left within seconds, and found when it is back."""
        self.talk(3)
        self.world.isDead = True
        self.talk(7)
        self.assertTrue(self.a.route(self.b)[1])
        self.talk(30)
        self.assertEqual(self.a.route(self.b), (None, True))
        self.assertEqual(
            [c.place for c in self.a.status(self.b).candidates], [self.b.address]
        )
        self.world.isDead = False
        self.talk(DISCOVERY_INTERVAL + 3)
        self.viaOf(self.a, self.b)

    def test_relayForgets(self) -> None:
        """A relay that is started anew gives another place, which takes over."""
        self.talk(3)
        first = self.viaOf(self.a, self.b)
        self.r.machine.forget()
        self.talk(DISCOVERY_INTERVAL + 15)
        second = self.viaOf(self.a, self.b)
        self.assertNotEqual(first, second)
        places = [c.place for c in self.a.status(self.b).candidates]
        self.assertEqual(places, [self.b.address, second])

    def test_idle(self) -> None:
        """Without traffic nothing is sent; the next packet finds the relay again."""
        self.talk(3)
        self.world.run(120)
        self.a.places(), self.b.places()
        self.world.run(100)
        self.assertEqual(self.a.places() + self.b.places(), [])
        self.assertEqual(self.a.route(self.b), (Via(at(SERVER), 1), True))
        self.world.run(0.2)
        self.assertEqual(self.a.route(self.b), (Via(at(SERVER), 1), False))

    def test_networkChanged(self) -> None:
        """The relay knows us by our address: with another, bind again."""
        self.talk(3)
        self.a.address = at("198.51.100.77:1")
        self.a.relays.networkChanged()
        self.a.book.networkChanged(self.world.now)
        self.a.told("198.51.100.77:1")
        self.assertEqual(self.a.route(self.b), (None, True))
        self.world.run(0.5)
        self.viaOf(self.a, self.b)
        self.assertFalse(self.a.route(self.b)[1])

    def test_peerRestarted(self) -> None:
        """Another disco key is another pair, which the relay is asked for anew."""
        self.talk(3)
        self.world.nodes.remove(self.b)
        again = UserNode(self.world, "b anew", "203.0.113.1:1")
        again.key = self.b.key
        again.book.setOwnKey(again.key)
        self.b = again
        self.world.nodes.append(again)
        again.knows(self.a.peer("198.51.100.1:1"))
        again.told("203.0.113.1:1")
        self.r.knows(self.a.peer(), again.peer())
        self.a.knows(again.peer("203.0.113.1:1"), self.r.peer())
        self.a.relays.peersChanged()
        self.assertEqual(self.a.route(again), (None, True))
        self.talk(3)
        self.assertEqual(self.viaOf(self.a, again), Via(at(SERVER), 2))

    def test_better(self) -> None:
        """Of two relays the nearer one is used."""
        far = self.world.delay
        near = RelayNode(self.world, "near", "192.0.2.9:1", "192.0.2.9:7777")
        self.world.nodes.append(near)
        near.knows(self.a.peer(), self.b.peer())
        peers = self.b.peer("203.0.113.1:1"), self.r.peer(), near.peer()
        self.a.knows(*peers)
        self.a.uses(self.r, near)
        carry = self.world._relay

        def relay(node: RelayNode, source: AddrPort, datagram: bytes) -> None:
            self.world.delay = far / 5 if node is near else far
            carry(node, source, datagram)
            self.world.delay = far

        self.world._relay = relay
        self.talk(8)
        self.assertEqual(self.viaOf(self.a, self.b).address, near.server)
        self.assertEqual(self.viaOf(self.b, self.a).address, near.server)

    def test_ping(self) -> None:
        """People who ping a peer find the relay, too, and hear by what they did."""
        token = self.a.book.ping(self.b.key, self.world.now)
        self.a.flush()
        self.world.run(0.5)
        [pong] = self.a.book.takePongs()
        self.assertEqual(pong.token, token)
        self.viaOf(self.a, self.b)
        self.a.book.ping(self.b.key, self.world.now)
        self.a.flush()
        self.world.run(0.5)
        [pong] = self.a.book.takePongs()
        self.assertIsInstance(pong.place, Via)

    def test_unreachable(self) -> None:
        """The system says that the relay cannot be reached: DERP, at once."""
        self.talk(3)
        self.a.book.sendFailed(at(SERVER), self.world.now)
        self.assertEqual(self.a.route(self.b), (None, True))
        self.assertIn("cannot be reached from here", self.a.status(self.b).why)


class AskingTests(RelayTestCase):
    """When relays are asked, and when not."""

    def requests(self) -> int:
        """How often a relay was asked."""
        return self.a.relays.counters.requestsSent

    def test_repeated(self) -> None:
        """A relay that does not answer is asked twice, and then left alone."""
        self.r.book.relays = None
        self.talk(ALLOCATE_TIMEOUT - 1)
        self.assertEqual(self.requests(), 2)
        self.talk(DISCOVERY_INTERVAL - ALLOCATE_TIMEOUT)
        self.assertEqual(self.requests(), 2)
        self.assertIsNone(self.a.relays.deadline())
        self.talk(2)
        self.assertEqual(self.requests(), 3)

    def test_nobodyToAsk(self) -> None:
        """Without a relay, or with a peer that knows none, nobody is asked."""
        self.a.uses()
        self.talk(2)
        self.a.uses(self.r)
        self.a.knows(self.b.peer("203.0.113.1:1", canRelay=False), self.r.peer())
        self.talk(40)
        self.assertEqual(self.requests(), 0)

    def test_relayItself(self) -> None:
        """A relay is not asked for a place to meet itself."""
        self.a.route(self.r)
        self.world.run(1)
        self.assertEqual(self.requests(), 0)

    def test_switchedOff(self) -> None:
        """The tailnet forbids it: nothing is asked, taken or kept."""
        self.talk(3)
        self.viaOf(self.a, self.b)
        self.a.relays.setServers([self.r.key], self.world.now, isEnabled=False)
        self.assertEqual(self.a.route(self.b), (None, True))
        before = self.requests()
        self.talk(60)
        self.assertEqual(self.requests(), before)
        self.assertIsNone(self.place(self.a, self.b))

    def test_relayOnly(self) -> None:
        """A node that shall use DERP only asks no peer relay."""
        c = UserNode(self.world, "c", "192.0.2.55:1", relayOnly=True)
        self.world.nodes.append(c)
        c.knows(self.b.peer(), self.r.peer())
        c.uses(self.r)
        c.route(self.b)
        c.book.ping(self.b.key, self.world.now)
        self.world.run(60)
        self.assertEqual(c.relays.counters.requestsSent, 0)
        offer = disco.CallMeMaybeVia(self.endpointOf(c, self.b, 9, SERVER))
        self.byDERP(self.b, c, offer)
        self.assertEqual(c.controls, [])

    def endpointOf(
        self, one: UserNode, other: UserNode, vni: int, *addresses: str
    ) -> RelayEndpoint:
        """What a relay might say of a place."""
        keys = sorted((one.disco.public().raw, other.disco.public().raw))
        return RelayEndpoint(
            self.r.machine.public,
            (keys[0], keys[1]),
            vni,
            vni,
            30.0,
            300.0,
            tuple(map(at, addresses)),
        )


class HostileTests(AskingTests):
    """Offers and answers that are not what they should be."""

    def offer(self, endpoint: RelayEndpoint) -> list[Via]:
        """C{b} names a place to C{a}; whom that made C{a} send to."""
        self.world.run(2)
        self.a.controls.clear()
        self.byDERP(self.b, self.a, disco.CallMeMaybeVia(endpoint))
        return [via for via, _ in self.a.controls]

    def count(self, name: str) -> int:
        """One of the counters of C{a}."""
        return int(self.a.relays.counters.snapshot()[name])

    def test_onlyByDERP(self) -> None:
        """Whoever sends about relays directly is not listened to."""
        endpoint = self.endpointOf(self.a, self.b, 7, SERVER)
        message = disco.CallMeMaybeVia(endpoint)
        for place in (self.b.address, Via(at(SERVER), 3)):
            self.a.take(place, self.sealed(self.b, self.a, message))
        self.assertEqual(self.a.controls, [])
        self.assertEqual(self.a.book.counters.droppedCall, 2)

    def test_sender(self) -> None:
        """Whose disco key and DERP's word do not agree is nobody."""
        endpoint = self.endpointOf(self.a, self.b, 7, SERVER)
        message = disco.CallMeMaybeVia(endpoint)
        datagram = self.sealed(self.b, self.a, message)
        self.a.take(Relayed(1, self.r.key), datagram)
        self.assertEqual(self.a.controls, [])
        self.assertEqual(self.a.book.counters.droppedUnbound, 1)

    def test_otherPair(self) -> None:
        """A place for other nodes is none for us."""
        self.assertEqual(self.offer(self.endpointOf(self.b, self.b, 7, SERVER)), [])
        self.assertEqual(self.count("droppedOffer"), 1)

    def test_addresses(self) -> None:
        """A peer cannot make us send to the networks around us, or to anything."""
        absurd = [
            "127.0.0.1:22",
            "224.0.0.1:5",
            "10.0.0.1:80",
            "169.254.169.254:80",
            "100.64.0.9:41641",
            "[::1]:22",
            "[fe80::1]:22",
            "192.0.2.3:0",
        ]
        self.assertEqual(self.offer(self.endpointOf(self.a, self.b, 7, *absurd)), [])
        self.assertEqual(self.count("droppedAddress"), len(absurd))
        many = [f"192.0.2.3:{1000 + i}" for i in range(1000)]
        asked = self.offer(self.endpointOf(self.a, self.b, 8, *many))
        self.assertEqual(len(asked), 16)

    def test_privateRelay(self) -> None:
        """A relay in a private network is fine if control knows the machine."""
        endpoint = self.endpointOf(self.a, self.b, 7, "10.0.0.1:7777")
        self.assertEqual(self.offer(endpoint), [])
        self.a.knows(self.b.peer(), self.r.peer("10.0.0.1:41641"))
        self.assertEqual(self.offer(endpoint), [Via(at("10.0.0.1:7777"), 7)])

    def test_flood(self) -> None:
        """However many places a peer names, few are tried, and not for long."""
        for vni in range(1, 2000):
            endpoint = self.endpointOf(self.a, self.b, vni, SERVER)
            key = self.a.random.randbytes(32)
            message = disco.CallMeMaybeVia(endpoint._replace(serverDisco=key))
            self.byDERP(self.b, self.a, message)
        self.assertLessEqual(len(self.a.controls), MOST_BINDINGS_PER_PEER)
        self.assertGreater(self.a.book.counters.droppedFlood, 1900)
        self.world.run(40)
        self.assertLessEqual(
            len(self.a.controls), MOST_BINDINGS_PER_PEER * MOST_REPEATS
        )
        self.assertIsNone(self.a.relays.deadline())

    def test_manyPlaces(self) -> None:
        """Places that lead nowhere do not pile up."""
        self.world.cut = True
        self.talk(3)
        for i in range(40):
            server = RelayNode(
                self.world, f"r{i}", f"192.0.2.{i + 1}:1", f"192.0.2.{i + 1}:7"
            )
            self.world.nodes.append(server)
            pair = (self.a.disco.public().raw, self.b.disco.public().raw)
            endpoint = server.machine.allocate(pair)
            self.byDERP(self.b, self.a, disco.CallMeMaybeVia(endpoint))
            self.talk(2)
        candidates = self.a.status(self.b).candidates
        vias = [c.place for c in candidates if isinstance(c.place, Via)]
        self.assertLessEqual(len(vias), MOST_PLACES + 1)
        self.viaOf(self.a, self.b)

    def test_older(self) -> None:
        """While a place is bound to, one that the relay gave before is ignored."""
        new = self.endpointOf(self.a, self.b, 9, SERVER)
        old = self.endpointOf(self.a, self.b, 8, SERVER)
        self.assertEqual(self.offer(new), [Via(at(SERVER), 9)])
        self.assertNotIn(Via(at(SERVER), 8), self.offer(old))
        self.assertEqual(
            self.offer(self.endpointOf(self.a, self.b, 10, SERVER)),
            [Via(at(SERVER), 10)],
        )

    def test_unasked(self) -> None:
        """An answer to no question, or of the wrong generation, is none."""
        endpoint = self.endpointOf(self.a, self.b, 7, SERVER)
        self.byDERP(self.r, self.a, disco.AllocateResponse(5, endpoint))
        self.assertEqual(self.a.controls, [])
        self.r.book.relays = None
        self.a.route(self.b)
        self.byDERP(self.r, self.a, disco.AllocateResponse(5, endpoint))
        [(_, generation)] = self.a.relays._requests
        self.byDERP(self.b, self.a, disco.AllocateResponse(generation, endpoint))
        other = self.endpointOf(self.b, self.b, 7, SERVER)
        self.byDERP(self.r, self.a, disco.AllocateResponse(generation, other))
        self.assertEqual(self.a.controls, [])
        self.assertEqual(self.count("droppedUnasked"), 4)

    def test_challenges(self) -> None:
        """A challenge from elsewhere, forged or for another pair, changes nothing."""
        real: list[tuple[Via, bytes]] = []
        received = self.a.relays.receivedControl
        self.a.relays.receivedControl = lambda via, datagram, now: real.append(
            (via, datagram)
        )
        self.a.route(self.b)
        self.world.run(0.5)
        via, datagram = real[0]
        now = self.world.now
        received(Via(at("192.0.2.66:6"), via.vni), datagram, now)
        received(Via(via.address, via.vni + 1), datagram, now)
        self.assertEqual(self.count("droppedUnknown"), 2)
        received(via, datagram[:-1] + bytes([datagram[-1] ^ 1]), now)
        self.assertEqual(self.count("droppedUnopened"), 1)
        received(via, b"nonsense", now)
        self.assertEqual(self.count("droppedMalformed"), 1)
        self.assertEqual(self.a.status(self.b).candidates[1:], ())
        received(via, datagram, now)
        received(via, datagram, now)
        self.assertEqual(self.count("droppedChallenge"), 1)

    def test_stolenNumber(self) -> None:
        """Another peer that names our place does not keep us from it."""
        c = UserNode(self.world, "c", "192.0.2.55:1")
        self.world.nodes.append(c)
        self.a.knows(self.b.peer("203.0.113.1:1"), self.r.peer(), c.peer())
        self.byDERP(
            c, self.a, disco.CallMeMaybeVia(self.endpointOf(self.a, c, 1, SERVER))
        )
        self.talk(3)
        self.assertEqual(self.viaOf(self.a, self.b), Via(at(SERVER), 1))

    def test_pingByRelay(self) -> None:
        """A ping by way of a relay that was not agreed upon makes no path."""
        ping = disco.Ping(b"z" * 12, self.b.key)
        self.a.take(Via(at(SERVER), 5), self.sealed(self.b, self.a, ping))
        self.assertEqual(self.a.book.counters.droppedCandidate, 1)
        self.assertEqual(len(self.a.status(self.b).candidates), 1)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=300), st.booleans())
    def test_anyBytes(self, data: bytes, isDisco: bool) -> None:
        """No datagram for relays raises anything."""
        if isDisco:
            data = disco.MAGIC + self.r.machine.public + data
        self.a.relays.receivedControl(Via(at(SERVER), 1), data, self.world.now)

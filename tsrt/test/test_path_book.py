"""Tests of L{tsrt.path.book}: the ways of two nodes to each other."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tsrt.crypto.box import Box, sealTo
from tsrt.keys import DiscoKey, NodeKey
from tsrt.path.candidates import CALL_LIMIT, CANDIDATE_LIMIT
from tsrt.path.contacts import TRANSACTIONS
from tsrt.path.peers import PathPeer
from tsrt.path.places import Relayed, Via
from tsrt.test.pathworld import PathNode, PathTestCase, PathWorld, at
from tsrt.wire import disco

PUBLIC = "192.0.2.7:7"


def sealed(origin: PathNode, to: PathNode, message: disco.Message) -> bytes:
    """A datagram that a node might have sent."""
    box = Box(origin.disco.raw, to.disco.public().raw)
    return disco.encodeEnvelope(
        origin.disco.public().raw, sealTo(box, message.encode(), random.randbytes)
    )


class DirectTests(PathTestCase):
    """From relay to direct, and back."""

    def test_found(self) -> None:
        """The first packet goes by relay and starts the search."""
        self.assertEqual(self.a.route(self.b), (None, True))
        self.world.run(0.05)
        self.assertEqual(self.a.route(self.b), (self.b.address, False))
        self.assertIn("direct 203.0.113.1:1 (20 ms)", self.a.status(self.b).why)
        [change] = self.a.book.takeChanges()
        self.assertEqual((change.peer, change.place), (self.b.key, self.b.address))
        self.assertEqual(self.a.book.takeChanges(), [])

    def test_R_GLB_3_R_RT_4_trustEnds(self) -> None:
        """The moment the trust is over packets take both ways, then the relay."""
        self.connect()
        self.talk(10)
        self.world.cut = True
        cutAt = self.world.now
        while self.a.isDirect(self.b):
            self.a.route(self.b)
            self.world.run(0.1)
        self.assertLess(self.world.now - cutAt, 6.7)
        self.assertEqual(self.a.route(self.b), (self.b.address, True))
        self.talk(8)
        self.assertEqual(self.a.route(self.b), (None, True))
        self.talk(10)
        self.assertEqual(self.a.status(self.b).why, "relay: no answer from its address")
        self.world.cut = False
        self.talk(8)
        self.assertTrue(self.a.isDirect(self.b))

    def test_lossIsTold(self) -> None:
        """People hear when the path stops answering."""
        self.connect()
        self.world.cut = True
        while self.a.status(self.b).place is not None:
            self.a.route(self.b)
            self.world.run(0.1)
        self.assertIn("stopped answering", self.a.status(self.b).why)
        self.assertEqual(len(self.a.book.takeChanges()), 1)

    def test_R_DIR_1_expiry(self) -> None:
        """An idle path is not claimed to be direct."""
        self.connect()
        self.world.run(60)
        self.assertFalse(self.a.isDirect(self.b))
        self.assertEqual(self.a.route(self.b), (self.b.address, True))

    def test_T_trust_isKept(self) -> None:
        """A path in use is asked before its trust lapses; never a packet relayed."""
        self.connect()
        for _ in range(600):
            self.assertFalse(self.a.route(self.b)[1])
            self.world.run(0.2)

    def test_idleIsSilent(self) -> None:
        """Pings end when nothing was sent for 45 seconds, and no timer is left."""
        self.connect()
        self.world.run(60)
        self.a.sent.clear()
        self.b.sent.clear()
        self.world.run(3600)
        self.assertEqual(self.a.sent + self.b.sent, [])
        self.assertIsNone(self.a.book.deadline())

    def test_holePunching(self) -> None:
        """Two firewalls that let in only answers are opened from both sides."""
        self.a.opened, self.b.opened = set(), set()
        self.talk(2)
        self.assertTrue(self.a.isDirect(self.b))
        self.assertTrue(self.b.isDirect(self.a))

    def test_hardNAT(self) -> None:
        """A node whose port nobody knows is found by its own ping (R-MS-3)."""
        self.b.knows(self.a.peer("198.51.100.1:999"))
        self.b.opened = set()
        self.b.opened.add(self.a.address)
        self.talk(2)
        self.assertTrue(self.b.isDirect(self.a))
        self.assertEqual(self.b.status(self.a).place, self.a.address)

    def test_better(self) -> None:
        """A clearly better address takes over; one that is no better does not."""
        lan = self.world.join("b2", "10.0.0.9:9")
        lan.disco, lan.key, lan.book = self.b.disco, self.b.key, self.b.book
        self.connect()
        self.a.knows(self.b.peer("203.0.113.1:1", "10.0.0.9:9"))
        self.talk(70)
        self.assertEqual(self.a.status(self.b).place, at("10.0.0.9:9"))

    def test_T_rebind(self) -> None:
        """A change of network trusts nothing, keeps candidates and asks at once."""
        self.connect()
        self.a.book.networkChanged(self.world.now)
        self.assertEqual(self.a.book.route(self.b.key, self.world.now), (None, True))
        self.assertTrue(self.a.book.needsEndpoints)
        self.a.flush()
        self.assertEqual(self.a.places(), [self.b.address])
        self.a.told("198.51.100.1:1")
        self.a.flush()
        self.assertEqual(self.a.places(), [Relayed(1, self.b.key)])
        self.world.run(0.1)
        self.assertTrue(self.a.isDirect(self.b))

    def test_callCastsDoubt(self) -> None:
        """
        A peer that calls has no path to us, whatever we think: until ours
        answers, packets take the relay as well.
        """
        self.connect()
        call = disco.CallMeMaybe((at(PUBLIC),))
        self.a.book.receivedDisco(
            Relayed(1, self.b.key), sealed(self.b, self.a, call), self.world.now
        )
        route = self.a.book.route(self.b.key, self.world.now)
        self.assertEqual(route, (self.b.address, True))
        self.a.flush()
        self.world.run(0.1)
        self.assertEqual(self.a.route(self.b), (self.b.address, False))

    def test_movedPeer(self) -> None:
        """A peer that moved is found at its new address within two round trips."""
        self.connect()
        self.b.address = at("203.0.113.77:7")
        self.b.book.networkChanged(self.world.now)
        self.b.told("203.0.113.77:7")
        self.b.flush()
        self.world.run(0.1)
        self.assertEqual(self.a.route(self.b), (self.b.address, False))
        self.assertEqual(self.b.route(self.a), (self.a.address, False))

    def test_sendFailed(self) -> None:
        """An address without a way is given up at once."""
        self.connect()
        self.a.book.sendFailed(self.b.address, self.world.now)
        self.assertEqual(self.a.book.route(self.b.key, self.world.now), (None, True))
        self.assertIn("cannot be reached", self.a.status(self.b).why)

    def test_newDiscoKey(self) -> None:
        """A peer that was started anew is looked for anew."""
        self.connect()
        again = DiscoKey.generate(self.b.random.randbytes)
        self.a.knows(PathPeer(self.b.key, again.public().raw, (self.b.address,), 1))
        self.assertEqual(self.a.route(self.b), (None, True))
        self.assertIn("started anew", self.a.status(self.b).why)

    def test_wireGuardOnly(self) -> None:
        """A peer without disco is sent to where it was heard."""
        self.a.knows(
            PathPeer(
                self.b.key,
                b"",
                (at("192.0.2.1:1"), at("[2001:db8::1]:1")),
                isWireGuardOnly=True,
            )
        )
        self.assertEqual(self.a.route(self.b), (at("[2001:db8::1]:1"), False))
        self.a.book.heard(at("192.0.2.1:1"), self.b.key, self.world.now)
        self.assertEqual(self.a.route(self.b), (at("192.0.2.1:1"), False))

    def test_wireGuardOnlyTurns(self) -> None:
        """Each address has its turn until the peer is heard at one."""
        six, four, other = at("[2001:db8::1]:1"), at("192.0.2.1:1"), at("192.0.2.2:2")
        self.a.knows(
            PathPeer(self.b.key, b"", (four, six, other), isWireGuardOnly=True)
        )

        def sent(seconds: float) -> list[object]:
            """Where packets went, one a second."""
            places = []
            for _ in range(round(seconds)):
                place, _ = self.a.route(self.b)
                if place not in places[-1:]:
                    places.append(place)
                self.world.run(1)
            return places

        self.assertEqual(sent(24), [six, four, other, six])
        self.a.book.heard(other, self.b.key, self.world.now)
        self.assertEqual(sent(5), [other])
        # Nothing is heard any more: it is asked again, then others.
        self.assertEqual(sent(18), [other, six, four])
        self.world.run(60)
        self.assertEqual(sent(2), [other])
        self.a.book.sendFailed(other, self.world.now)
        self.assertEqual(sent(2), [six])
        self.a.knows(PathPeer(self.b.key, b"", (), isWireGuardOnly=True))
        self.assertEqual(sent(2), [None])

    def test_silent(self) -> None:
        """
        With silent disco what comes keeps a path trusted, and nothing is sent
        that nobody wanted to say.
        """
        self.connect()
        self.a.book.setSilent(True)
        self.b.book.setSilent(True)
        for _ in range(60):
            self.assertEqual(self.a.route(self.b), (self.b.address, False))
            self.a.book.heard(self.b.address, self.b.key, self.world.now)
            self.world.run(1)
        self.assertEqual(self.a.places(), [])
        self.assertIsNone(self.a.book.deadline())
        # From elsewhere, or by relay, it says nothing of this path.
        for _ in range(7):
            self.a.book.heard(at(PUBLIC), self.b.key, self.world.now)
            self.a.book.heard(Relayed(1, self.b.key), self.b.key, self.world.now)
            self.world.run(1)
        self.assertEqual(self.a.route(self.b), (self.b.address, True))
        self.assertIn(self.b.address, self.a.places())
        self.world.run(1)
        self.assertEqual(self.a.route(self.b), (self.b.address, False))
        self.a.book.setSilent(False)
        self.talk(20)
        self.assertIn(self.b.address, self.a.places())

    def test_heardIsNoPath(self) -> None:
        """WireGuard from somewhere makes no path to a peer with disco."""
        self.a.book.heard(at(PUBLIC), self.b.key, self.world.now)
        self.assertEqual(self.a.route(self.b), (None, True))

    def test_ping(self) -> None:
        """A ping is answered on each way; the first answer tells which."""
        token = self.a.book.ping(self.b.key, self.world.now)
        self.a.flush()
        self.world.run(1)
        pongs = self.a.book.takePongs()
        self.assertEqual(
            {(p.token, p.place) for p in pongs},
            {(token, self.b.address), (token, Relayed(1, self.b.key))},
        )
        self.assertEqual({round(p.seconds, 3) for p in pongs}, {0.02})
        self.assertEqual(self.a.book.ping(bytes(32), self.world.now), 0)

    def test_R_RT_5_relayOnly(self) -> None:
        """Without direct paths only pings by relay are answered."""
        c = self.world.join("c", "192.0.2.3:3", relayOnly=True)
        c.knows(self.a.peer("198.51.100.1:1"))
        self.a.knows(c.peer("192.0.2.3:3"))
        self.assertEqual(c.route(self.a), (None, True))
        self.assertEqual(c.status(self.a).why, "relay: direct paths are switched off")
        self.a.book.ping(c.key, self.world.now)
        self.a.flush()
        self.world.run(10)
        self.assertEqual(
            [p.place for p in self.a.book.takePongs()], [Relayed(1, c.key)]
        )
        self.assertEqual(c.places(), [Relayed(1, self.a.key)])


class RuleTests(PathTestCase):
    """What a stranger, a thief or a mistaken peer can bring about: nothing."""

    def count(self, name: str) -> int:
        """A counter of node C{a}."""
        return int(getattr(self.a.book.counters, name))

    def quiet(self, place, message: disco.Message, counter: str, origin=None) -> None:
        """Node C{a} gets a message, counts it and answers nothing."""
        before = self.count(counter)
        self.a.book.receivedDisco(
            place, sealed(origin or self.b, self.a, message), self.world.now
        )
        self.assertEqual(self.count(counter), before + 1)
        self.assertEqual(self.a.book.take(), [])

    def test_R_MS_2_forbiddenCandidates(self) -> None:
        """What a call may not name is never pinged."""
        bad = (
            *("0.0.0.0:1", "127.0.0.1:1", "169.254.1.1:1", "224.0.0.1:1"),
            *("255.255.255.255:1", "10.1.1.1:1", "172.16.0.1:1", "192.168.1.1:1"),
            *("100.64.0.1:1", "192.0.2.1:0", "[::]:1", "[::1]:1", "[fe80::1]:1"),
            *("[fd00::1]:1", "[ff02::1]:1", "[fd7a:115c:a1e0::1]:1"),
        )
        call = disco.CallMeMaybe(tuple(map(at, (*bad, "192.0.2.1:1"))))
        self.a.take(Relayed(1, self.b.key), sealed(self.b, self.a, call))
        self.assertEqual(set(self.a.places()), {self.b.address, at("192.0.2.1:1")})
        self.assertEqual(self.count("droppedCandidate"), len(bad))

    def test_R_DERP_4_callsAreFiltered(self) -> None:
        """A call with a thousand addresses makes few pings."""
        many = tuple(at(f"192.0.{i // 250}.{i % 250}:1") for i in range(1000))
        call = disco.CallMeMaybe(many)
        self.a.take(Relayed(1, self.b.key), sealed(self.b, self.a, call))
        self.assertEqual(len(self.a.places()), CALL_LIMIT + 1)

    def test_R_MS_3_T_pong_source(self) -> None:
        """A pong counts only from where the ping went, and only once."""
        self.a.book.route(self.b.key, self.world.now)
        [(place, datagram), _] = self.a.book.take()
        box = Box(self.b.disco.raw, self.a.disco.public().raw)
        _, boxed = disco.parseEnvelope(datagram)
        ping = disco.parseMessage(box.open(boxed[:24], boxed[24:]))
        pong = disco.Pong(ping.txid, at(PUBLIC))
        self.quiet(at(PUBLIC), pong, "droppedPongSource")
        self.quiet(place, pong, "droppedUnasked")
        self.assertFalse(self.a.isDirect(self.b))

    def test_R_MS_3_relayedPong(self) -> None:
        """Nor does a pong by relay for a ping that went directly."""
        self.test_R_MS_3_T_pong_source()
        self.assertIsNone(self.a.status(self.b).place)

    def test_R_MS_4_unsolicitedPong(self) -> None:
        """A pong that nobody asked for teaches nothing."""
        pong = disco.Pong(b"x" * 12, at(PUBLIC))
        self.quiet(self.b.address, pong, "droppedUnasked")

    def test_R_MS_5_noPeers(self) -> None:
        """Before there is a netmap everybody is a stranger."""
        self.a.knows()
        self.quiet(self.b.address, disco.Ping(b"x" * 12, self.b.key), "droppedStranger")

    def test_R_MS_8_addressesAreNotStolen(self) -> None:
        """What belongs to one peer cannot be claimed by another."""
        self.connect()
        c = self.world.join("c", "192.0.2.3:3")
        self.a.knows(self.b.peer("203.0.113.1:1"), c.peer())
        call = disco.CallMeMaybe((self.b.address,))
        self.a.take(Relayed(1, c.key), sealed(c, self.a, call))
        ping = disco.Ping(b"x" * 12, c.key)
        self.a.take(self.b.address, sealed(c, self.a, ping))
        self.assertEqual(self.count("droppedCandidate"), 2)
        self.assertEqual(self.a.book.peerAt(self.b.address), self.b.key)
        self.assertEqual(self.a.status(c).candidates, ())
        # The netmap may give it away.
        self.a.knows(self.b.peer(), c.peer("203.0.113.1:1"))
        self.assertEqual(self.a.book.peerAt(self.b.address), c.key)

    def test_R_MS_9_noPath(self) -> None:
        """Without a confirmed path there is no direct place, whatever is named."""
        self.a.told(hasReflexive=False)
        self.world.cut = True
        for _ in range(100):
            self.assertEqual(self.a.route(self.b), (None, True))
            self.world.run(0.5)

    def test_R_DIR_3_binding(self) -> None:
        """A ping must name the node key that the netmap has for its disco key."""
        c = self.world.join("c", "192.0.2.3:3")
        self.a.knows(self.b.peer(), c.peer())
        for key in (c.key, bytes(32)):
            self.quiet(self.b.address, disco.Ping(b"x" * 12, key), "droppedUnbound")
        stranger = self.world.join("d", "192.0.2.4:4")
        self.quiet(
            stranger.address,
            disco.Ping(b"x" * 12, self.b.key),
            "droppedStranger",
            stranger,
        )

    def test_R_DIR_4_callsOfMembersOnly(self) -> None:
        """A call comes from a member, by relay, under its own name."""
        call = disco.CallMeMaybe((at(PUBLIC),))
        c = self.world.join("c", "192.0.2.3:3")
        self.quiet(Relayed(1, c.key), call, "droppedStranger", c)
        self.a.knows(self.b.peer(), c.peer())
        self.quiet(Relayed(1, c.key), call, "droppedUnbound")
        self.quiet(self.b.address, call, "droppedCall")

    def test_R_DIR_6_calls(self) -> None:
        """Nobody is called without a reflexive address, nor when direct."""
        self.a.told("10.0.0.1:1", hasReflexive=False)
        self.a.route(self.b)
        self.assertEqual(self.a.places(), [self.b.address])
        self.world.run(10)
        self.a.sent.clear()
        self.connect()
        self.talk(70)
        self.assertEqual([p for p in self.a.places() if isinstance(p, Relayed)], [])

    def test_R_DIR_6_whatIsTold(self) -> None:
        """A call names the endpoints that control was told, and no others."""
        self.a.told("198.51.100.1:1", "10.0.0.1:1")
        self.a.book.route(self.b.key, self.world.now)
        [call] = [d for p, d in self.a.book.take() if isinstance(p, Relayed)]
        box = Box(self.b.disco.raw, self.a.disco.public().raw)
        _, boxed = disco.parseEnvelope(call)
        message = disco.parseMessage(box.open(boxed[:24], boxed[24:]))
        self.assertEqual(
            message, disco.CallMeMaybe((at("198.51.100.1:1"), at("10.0.0.1:1")))
        )

    def test_newEndpointIsTried(self) -> None:
        """An address that control tells is tried at once, if it is needed."""
        self.a.told(hasReflexive=False)
        self.a.knows(self.b.peer("203.0.113.99:9"))
        self.a.route(self.b)
        self.world.run(1)
        self.assertFalse(self.a.isDirect(self.b))
        self.a.knows(self.b.peer("203.0.113.99:9", self.b.address.text()))
        self.a.flush()
        self.world.run(0.05)
        self.assertTrue(self.a.isDirect(self.b))

    def test_newEndpointIsNotNeeded(self) -> None:
        """Nobody is pinged because of it while there is a path, or no use."""
        self.connect()
        self.a.places()
        self.a.knows(self.b.peer(self.b.address.text(), "203.0.113.99:9"))
        self.world.run(60)
        self.a.places()
        self.a.knows(self.b.peer(self.b.address.text(), "203.0.113.98:9"))
        self.a.flush()
        self.assertEqual(self.a.places(), [])

    def test_staleEndpoints(self) -> None:
        """Endpoints of half a minute ago are found out anew before a call."""
        self.world.run(28)
        self.a.route(self.b)
        self.assertEqual(self.a.places(), [self.b.address])
        self.assertTrue(self.a.book.needsEndpoints)
        self.a.told("198.51.100.1:2")
        self.a.flush()
        self.assertEqual(self.a.places(), [Relayed(1, self.b.key)])
        self.assertFalse(self.a.book.needsEndpoints)

    def test_R_DIR_7_pruned(self) -> None:
        """What the netmap revokes is pinged no more; peers that left are gone."""
        self.connect()
        self.a.knows(self.b.peer("192.0.2.9:9"))
        # Its pings came from the other address, too, for a while.
        self.world.run(60)
        self.a.route(self.b)
        self.world.run(50)
        self.assertIn(
            at("192.0.2.9:9"), {c.place for c in self.a.status(self.b).candidates}
        )
        self.a.knows()
        self.assertIsNone(self.a.book.status(self.b.key, self.world.now))
        self.assertIsNone(self.a.book.peerAt(self.b.address))
        self.a.sent.clear()
        self.world.run(60)
        self.assertEqual(self.a.sent, [])

    def test_R_DERP_2_relayedPing(self) -> None:
        """A ping by relay is answered by relay, and teaches nothing."""
        ping = disco.Ping(b"x" * 12, self.b.key)
        self.a.take(Relayed(1, self.b.key), sealed(self.b, self.a, ping))
        self.assertEqual(self.a.places(), [Relayed(1, self.b.key)])
        self.assertEqual(self.a.status(self.b).candidates, ())
        self.assertIsNone(self.a.book.deadline())

    def test_R_DERP_2_relayedPingOfAnother(self) -> None:
        """Nor is it answered when the relay names another sender."""
        c = self.world.join("c", "192.0.2.3:3")
        self.a.knows(self.b.peer(), c.peer())
        ping = disco.Ping(b"x" * 12, self.b.key)
        self.quiet(Relayed(1, c.key), ping, "droppedUnbound")

    def test_replayedPings(self) -> None:
        """A ping is answered once, wherever it comes from again."""
        ping = sealed(self.b, self.a, disco.Ping(b"x" * 12, self.b.key))
        self.a.take(self.b.address, ping)
        self.assertEqual(self.a.places(), [self.b.address] * 2)
        for number in range(500):
            self.a.take(at(f"192.0.2.7:{number + 1}"), ping)
        self.assertEqual(self.a.places(), [])
        self.assertEqual(self.count("droppedReplay"), 500)

    def test_pingBack(self) -> None:
        """
        A ping from an address that is not trusted is answered by another, as
        the way is open just now; but not more than once a second.
        """
        for number in range(100):
            ping = disco.Ping(number.to_bytes(12, "big"), self.b.key)
            self.a.book.receivedDisco(
                self.b.address, sealed(self.b, self.a, ping), self.world.now
            )
            self.world.now += 0.03
        self.assertEqual(self.count("pingsSent"), 3)
        self.assertEqual(self.count("pongsSent"), 100)

    def test_floodOfPings(self) -> None:
        """A peer that floods is answered a bounded number of times."""
        self.connect()
        for number in range(2000):
            ping = disco.Ping(number.to_bytes(12, "big"), self.b.key)
            self.a.take(at(f"192.0.2.7:{number + 1}"), sealed(self.b, self.a, ping))
        self.assertLess(len(self.a.places()), 300)
        self.assertGreater(self.count("droppedFlood"), 1700)
        self.assertLessEqual(len(self.a.status(self.b).candidates), CANDIDATE_LIMIT + 1)
        contact = self.a.book._contacts.withDisco(
            self.b.disco.public().raw, self.world.now
        )
        assert contact is not None
        self.assertLessEqual(len(contact._seen), TRANSACTIONS)
        self.assertTrue(self.a.isDirect(self.b))
        self.talk(10)
        self.assertTrue(self.a.isDirect(self.b))

    def test_floodOfCalls(self) -> None:
        """So do calls."""
        for number in range(200):
            call = disco.CallMeMaybe((at(f"192.0.2.7:{number + 1}"),))
            self.a.take(Relayed(1, self.b.key), sealed(self.b, self.a, call))
        self.assertLess(len(self.a.places()), 50)
        self.assertGreater(self.count("droppedFlood"), 180)

    def test_forged(self) -> None:
        """What was not sealed by whom it names is dropped, path or no path."""
        self.connect()
        c = self.world.join("c", "192.0.2.3:3")
        for number in range(500):
            ping = disco.Ping(number.to_bytes(12, "big"), self.b.key)
            datagram = bytearray(sealed(c, self.a, ping))
            datagram[6:38] = self.b.disco.public().raw
            self.a.take(self.b.address, bytes(datagram))
        self.assertEqual(self.count("droppedUnopened"), 500)
        self.assertEqual(self.a.places(), [])
        self.assertTrue(self.a.isDirect(self.b))

    def test_T_disco_lax(self) -> None:
        """Trailing bytes are tolerated, unknown types are counted."""
        box = Box(self.b.disco.raw, self.a.disco.public().raw)

        def raw(plaintext: bytes) -> bytes:
            return disco.encodeEnvelope(
                self.b.disco.public().raw,
                sealTo(box, plaintext, random.randbytes),
            )

        self.a.take(self.b.address, raw(b"\x63\0whatever"))
        self.a.take(self.b.address, raw(b""))
        self.assertEqual(self.count("droppedMalformed"), 2)
        ping = disco.Ping(b"y" * 12, self.b.key).encode() + b"more"
        self.a.take(self.b.address, raw(ping))
        self.assertEqual(self.count("pongsSent"), 1)

    def test_messagesOfPeerRelays(self) -> None:
        """They are counted if nobody uses relays."""
        message = disco.AllocateRequest((b"a" * 32, b"b" * 32), 7)
        self.quiet(Relayed(1, self.b.key), message, "droppedUnhandled")
        via = Via(at(PUBLIC), 5)
        self.a.take(via, sealed(self.b, self.a, disco.Ping(b"z" * 12, self.b.key)))
        self.assertEqual(self.count("droppedCandidate"), 1)

    def test_manyPeers(self) -> None:
        """Peers that are not used cost neither keys nor timers nor candidates."""
        peers = [
            PathPeer(
                NodeKey.generate(random.randbytes).public().raw,
                random.randbytes(32),
                (at(PUBLIC),),
                1,
            )
            for _ in range(300)
        ]
        self.a.knows(*peers)
        self.assertIsNone(self.a.book.deadline())
        self.assertEqual(len(self.a.book._contacts), 0)
        status = self.a.book.status(peers[0].key, self.world.now)
        assert status is not None
        self.assertEqual(status.candidates, ())

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=200), st.booleans())
    def test_anyBytes(self, data: bytes, isSealed: bool) -> None:
        """No datagram raises anything."""
        world = PathWorld()
        a, b = world.join("a", "198.51.100.1:1"), world.join("b", "203.0.113.1:1")
        a.knows(b.peer("203.0.113.1:1"))
        datagram = disco.MAGIC + data
        if isSealed:
            box = Box(b.disco.raw, a.disco.public().raw)
            datagram = disco.encodeEnvelope(
                b.disco.public().raw, sealTo(box, data, random.randbytes)
            )
        a.take(b.address, datagram)
        a.take(Relayed(1, b.key), datagram)
        a.book.tick(world.now + 100)

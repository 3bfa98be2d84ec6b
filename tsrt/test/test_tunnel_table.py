"""
Tests for L{tsrt.tunnel.table} and L{tsrt.tunnel.indices}.
"""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.crypto.hashes import x25519
from tsrt.errors import WireError
from tsrt.keys import NodeKey
from tsrt.test.tunnelpair import Party, Wire, ipPacket
from tsrt.tunnel.cookies import CookieJar
from tsrt.tunnel.handshake import Initiation, StaticKey
from tsrt.tunnel.indices import IndexTable
from tsrt.tunnel.limits import MAX_SOURCES
from tsrt.tunnel.table import TICK_BATCH, TunnelTable
from tsrt.wire.wireguard import tai64n

INITIATION, RESPONSE, COOKIE, DATA = 1, 2, 3, 4


def drops(party: Party) -> dict[str, int]:
    """What a node dropped, by reason."""
    snapshot = party.table.counters.snapshot()
    return {n: v for n, v in snapshot.items() if n.startswith("dropped") and v}


class IndexTableTests(SynchronousTestCase):
    """
    Tests for L{IndexTable}.
    """

    def test_owners(self) -> None:
        """An index leads to its owner until it is released."""
        table: IndexTable[str] = IndexTable(Random(1).randbytes)
        index = table.claim("me")
        self.assertEqual(len(index), 4)
        self.assertEqual(table.find(index), "me")
        table.release(index)
        self.assertIsNone(table.find(index))
        self.assertEqual(len(table), 0)

    def test_unique(self) -> None:
        """However bad the randomness is, no index is given out twice."""
        table: IndexTable[int] = IndexTable(lambda n: b"\xff" * n)
        indices = {table.claim(n) for n in range(1000)}
        self.assertEqual(len(indices), 1000)

    def test_releasedTwice(self) -> None:
        """Releasing what is not in use is an error of ours, and told."""
        table: IndexTable[str] = IndexTable(Random(1).randbytes)
        self.assertRaises(KeyError, table.release, b"abcd")


class PeersTests(SynchronousTestCase):
    """
    Who is a peer, and who is not.
    """

    def setUp(self) -> None:
        """Two nodes that know each other."""
        self.wire = Wire()
        self.first, self.second = self.wire.pair()

    def test_container(self) -> None:
        """The table tells who its peers are."""
        table = self.first.table
        self.assertEqual(len(table), 1)
        self.assertIn(self.second.public, table)
        self.assertNotIn(self.first.public, table)
        self.assertIsNone(table.status(self.first.public))

    def test_wrongKeySize(self) -> None:
        """A key that has not 32 bytes cannot be a peer's."""
        for public in (b"", bytes(31), bytes(33)):
            self.assertRaises(WireError, self.first.table.upsertPeer, public, now=0.0)

    def test_sendToStranger(self) -> None:
        """Packets for somebody who is no peer are dropped."""
        self.assertEqual(self.first.table.send(bytes(32), [b"a", b"b"], 0.0), [])
        self.assertEqual(drops(self.first), {"droppedUnknownPeer": 2})

    def test_sendNothing(self) -> None:
        """No packets cause no handshake."""
        self.assertEqual(self.first.table.send(self.second.public, [], 0.0), [])

    def test_removeStranger(self) -> None:
        """Somebody who is no peer can be removed."""
        self.first.table.removePeer(bytes(32))
        self.assertEqual(len(self.first.table), 1)

    def test_R_WG_4_strangersGetNoAnswer(self) -> None:
        """An initiation of somebody who is no peer is dropped in silence."""
        third = self.wire.join("third")
        third.knows(self.first)
        third.send(self.first, ipPacket(1))
        self.wire.run(20)
        self.assertEqual(self.first.sent, [])
        self.assertEqual(set(third.kinds()), {INITIATION})
        self.assertEqual(self.first.last.heard, [])
        self.assertEqual(set(drops(self.first)), {"droppedUnknownKey"})
        self.assertEqual(self.first.table.indexCount, 0)

    def test_lowOrderPeer(self) -> None:
        """A key with which nothing is secret causes drops, and no harm."""
        table = self.first.table
        table.upsertPeer(bytes(32), 25.0, now=self.wire.now)
        self.assertEqual(table.send(bytes(32), [b"a"], self.wire.now), [])
        self.assertEqual(drops(self.first), {"droppedNoAnswer": 1})
        self.wire.byKey[bytes(32)] = self.second
        self.wire.run(100)
        self.assertEqual((self.first.sent, table.indexCount), ([], 0))

    def test_T_key_collision(self) -> None:
        """The same key twice is one peer, and its session goes on."""
        self.first.send(self.second, ipPacket(1))
        self.wire.run(1)
        self.first.knows(self.second)
        self.assertEqual(len(self.first.table), 1)
        self.first.kinds()
        self.first.send(self.second, ipPacket(2))
        self.assertEqual(self.first.kinds(), [DATA])

    def test_T_rekey_peer(self) -> None:
        """
        A peer that changed its key is another peer: nothing of the old
        session is accepted or used any more.
        """
        self.first.send(self.second, ipPacket(1))
        self.wire.run(1)
        old = self.second.table.send(self.first.public, [ipPacket(2)], self.wire.now)
        renewed = NodeKey.generate(Random(7).randbytes)
        self.first.table.removePeer(self.second.public)
        self.first.table.upsertPeer(renewed.public().raw, now=self.wire.now)
        received = self.first.table.receive(old, b"", self.wire.now)
        self.assertEqual((received.packets, received.heard), ([], []))
        self.assertEqual(drops(self.first), {"droppedUnknownIndex": 1})
        messages = self.first.table.send(
            renewed.public().raw, [ipPacket(3)], self.wire.now
        )
        self.assertEqual([m[0] for m in messages], [INITIATION])

    def test_removedPeerIsSilent(self) -> None:
        """Nothing is sent to a peer that was removed, though it was due."""
        self.first.knows(self.second, keepalive=25.0)
        self.first.table.removePeer(self.second.public)
        self.assertEqual(self.first.table.tick(self.wire.now + 100), [])

    def test_removalDropsWhatWaits(self) -> None:
        """Packets that waited for a removed peer are counted."""
        self.first.send(self.second, ipPacket(1), ipPacket(2))
        self.first.table.removePeer(self.second.public)
        self.assertEqual(drops(self.first), {"droppedRemovedPeer": 2})
        self.wire.run(200)
        self.assertEqual(self.second.got, [])

    def test_setKey(self) -> None:
        """With a new key of our own all sessions start again, as somebody else."""
        self.first.send(self.second, ipPacket(1))
        self.wire.run(1)
        self.first.send(self.second, ipPacket(2))
        renewed = NodeKey.generate(Random(8).randbytes)
        self.first.table.setKey(renewed)
        self.assertEqual(self.first.table.indexCount, 0)
        self.second.table.upsertPeer(renewed.public().raw, now=self.wire.now)
        self.wire.byKey[renewed.public().raw] = self.first
        self.first.kinds()
        self.first.send(self.second, ipPacket(3))
        self.assertEqual(self.first.kinds(), [INITIATION])
        self.wire.run(1)
        self.assertEqual(self.second.got, [ipPacket(n) for n in (1, 2, 3)])
        self.assertEqual(self.second.last.heard, [renewed.public().raw])

    def test_setKeyBothWays(self) -> None:
        """Others reach us at the new key only."""
        self.first.table.setKey(NodeKey.generate(Random(8).randbytes))
        self.second.send(self.first, ipPacket(1))
        self.wire.run(1)
        self.assertEqual(self.first.sent, [])
        self.assertEqual(drops(self.first), {"droppedMac1": 1})

    def test_setSameKey(self) -> None:
        """The key that we have already changes nothing."""
        self.first.send(self.second, ipPacket(1))
        self.wire.run(1)
        self.first.table.setKey(self.first.key)
        self.first.kinds()
        self.first.send(self.second, ipPacket(2))
        self.assertEqual(self.first.kinds(), [DATA])

    def test_setKeyKeepsKeepalives(self) -> None:
        """Persistent keep-alives go on, with the new key."""
        self.first.knows(self.second, keepalive=25.0)
        self.wire.run(60)
        renewed = NodeKey.generate(Random(8).randbytes)
        self.first.table.setKey(renewed)
        self.second.table.upsertPeer(renewed.public().raw, now=self.wire.now)
        self.wire.byKey[renewed.public().raw] = self.first
        self.wire.run(30)
        status = self.second.table.status(renewed.public().raw)
        assert status is not None
        self.assertIsNotNone(status.lastHandshake)


class ReceiveTests(SynchronousTestCase):
    """
    How a batch of datagrams is taken apart.
    """

    def setUp(self) -> None:
        """A hub with three peers, and sessions with all."""
        self.wire = Wire()
        self.hub = self.wire.join("hub")
        self.spokes = [self.wire.join(f"spoke{n}") for n in range(3)]
        for spoke in self.spokes:
            spoke.knows(self.hub)
            self.hub.knows(spoke)
            spoke.send(self.hub, ipPacket(0))
        self.wire.run(20)
        self.hub.got.clear()
        self.hub.sent.clear()

    def seal(self, number: int, *packets: bytes) -> list[bytes]:
        """Messages of one spoke."""
        return self.spokes[number].table.send(
            self.hub.public, list(packets), self.wire.now
        )

    def test_interleavedPeers(self) -> None:
        """Messages of many peers in one batch go to the right ones, in order."""
        streams = [
            self.seal(n, *[ipPacket(100 * n + i) for i in range(20)]) for n in range(3)
        ]
        random = Random(5)
        batch: list[bytes] = []
        while any(streams):
            stream = random.choice([s for s in streams if s])
            size = random.randint(1, 3)
            batch += stream[:size]
            del stream[:size]
        received = self.hub.table.receive(batch, b"", self.wire.now)
        for number, spoke in enumerate(self.spokes):
            got = [
                p
                for public, ps in received.packets
                if public == spoke.public
                for p in ps
            ]
            self.assertEqual(got, [ipPacket(100 * number + i) for i in range(20)])
        self.assertEqual(sorted(received.heard), sorted(s.public for s in self.spokes))

    def test_oneRunOneEntry(self) -> None:
        """A run of one session comes out as one entry."""
        batch = self.seal(1, *[ipPacket(n) for n in range(64)])
        received = self.hub.table.receive(batch, b"", self.wire.now)
        self.assertEqual(len(received.packets), 1)
        self.assertEqual(received.replies, [])

    def test_keepaliveIsHeard(self) -> None:
        """A keep-alive carries no packet, but its sender was heard."""
        spoke = self.spokes[0]
        message = spoke.table._peers[self.hub.public].sendKeepalive(self.wire.now)
        received = self.hub.table.receive(message, b"", self.wire.now)
        self.assertEqual((received.packets, received.heard), ([], [spoke.public]))

    def test_unauthenticIsNotHeard(self) -> None:
        """Who cannot seal for a session is not taken for its peer."""
        (message,) = self.seal(0, ipPacket(1))
        forged = message[:-1] + bytes([message[-1] ^ 1])
        received = self.hub.table.receive([forged], b"", self.wire.now)
        self.assertEqual((received.packets, received.heard), ([], []))

    def test_badAmongGood(self) -> None:
        """What is bad in a batch does not harm what is good."""
        good = self.seal(0, *[ipPacket(n) for n in range(5)])
        junk = [
            b"",
            b"\x04",
            b"\x04\x00\x00\x00",
            good[0][:20],
            good[4] + b"x",
            b"\x04\x00\x00\x00" + bytes(40),
            b"\x04\x00\x00\x01" + bytes(40),
            b"\x01\x00\x00\x00" + bytes(143),
            b"\x01\x00\x00\x00" + bytes(144),
            b"\x02\x00\x00\x00" + bytes(88),
            b"\x02\x00\x00\x00" + bytes(10),
            b"\x03\x00\x00\x00" + bytes(60),
            b"\x03\x00\x00\x00" + bytes(61),
            b"\x05\x00\x00\x00" + bytes(60),
        ]
        batch = [m for pair in zip(junk, good * 3, strict=False) for m in pair]
        received = self.hub.table.receive(batch, b"", self.wire.now)
        got = [p for _, packets in received.packets for p in packets]
        self.assertEqual(got, [ipPacket(n) for n in range(5)])
        self.assertEqual(received.toSource, [])
        self.assertEqual(
            drops(self.hub),
            {
                "droppedMalformed": 8,
                "droppedUnauthentic": 1,
                "droppedUnknownIndex": 4,
                "droppedMac1": 1,
                "droppedReplay": 9,
            },
        )

    def test_R_WG_1_replayRejected(self) -> None:
        """A whole batch that comes again yields nothing."""
        batch = self.seal(2, *[ipPacket(n) for n in range(10)])
        self.hub.table.receive(batch, b"", self.wire.now)
        received = self.hub.table.receive(batch, b"elsewhere", self.wire.now)
        self.assertEqual((received.packets, received.heard), ([], []))
        self.assertEqual(drops(self.hub), {"droppedReplay": 10})

    def test_unaskedCookieReply(self) -> None:
        """A made-up cookie reply for a session of ours is counted, no more."""
        (message,) = self.seal(0, ipPacket(1))
        reply = b"\x03\x00\x00\x00" + message[4:8] + bytes(56)
        received = self.hub.table.receive([reply], b"", self.wire.now)
        self.assertEqual(received.heard, [])
        self.assertEqual(drops(self.hub), {"droppedCookieInvalid": 1})

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=200),
                st.builds(
                    lambda kind, size, fill: (bytes([kind, 0, 0, 0]) + fill).ljust(
                        size, b"\x01"
                    )[:size],
                    st.integers(0, 5),
                    st.sampled_from([4, 8, 31, 32, 64, 92, 148, 200]),
                    st.binary(max_size=200),
                ),
            ),
            max_size=8,
        ),
        st.binary(max_size=18),
    )
    def test_anyBytes(self, datagrams: list[bytes], source: bytes) -> None:
        """Whatever arrives, nothing is raised, and nothing comes of it."""
        wire = Wire()
        first, _ = wire.pair()
        received = first.table.receive(datagrams, source, wire.now)
        self.assertEqual(received.packets, [])
        self.assertEqual(received.replies, [])
        self.assertEqual(received.toSource, [])
        self.assertEqual(received.heard, [])
        self.assertEqual(sum(drops(first).values()), len(datagrams))

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_anyChangeOfTrueMessages(self, data: st.DataObject) -> None:
        """True messages with a byte changed are dropped like any others."""
        wire = Wire(data.draw(st.integers(0, 5)))
        first, second = wire.pair()
        first.send(second, ipPacket(1))
        genuine = list(first.sent)
        received = second.table.receive(genuine, b"", wire.now)
        response = [m for _, ms in received.replies for m in ms]
        for party, messages in ((second, genuine), (first, response)):
            message = bytearray(messages[0])
            # The second MAC is not looked at.
            position = data.draw(st.integers(0, len(message) - 17))
            message[position] ^= data.draw(st.integers(1, 255))
            result = party.table.receive([bytes(message)], b"", wire.now)
            self.assertEqual((result.packets, result.replies), ([], []))


class LoadTests(SynchronousTestCase):
    """
    What a flood of handshakes does.
    """

    def setUp(self) -> None:
        """A hub that is under load from 20 handshake messages a second on."""
        self.wire = Wire()
        self.hub = self.wire.join("hub", loadLimit=20)
        self.spoke = self.wire.join("spoke")
        self.spoke.knows(self.hub)
        self.hub.knows(self.spoke)

    def flood(self, count: int, source: bytes | None = None) -> list[bytes]:
        """Initiations with a right first MAC from many places; the answers."""
        answers: list[bytes] = []
        jar = CookieJar(self.hub.public)
        body = b"\x01\x00\x00\x00" + bytes(112)
        for number in range(count):
            message = jar.sign(body[:4] + number.to_bytes(4, "little") + body[8:], 0.0)
            place = source or number.to_bytes(6, "big")
            received = self.hub.table.receive([message], place, self.wire.now)
            answers += received.toSource
            self.assertEqual(received.replies, [])
        return answers

    def test_storm(self) -> None:
        """
        Ten thousand initiations are answered by cookies beyond the limit, and
        leave nothing behind.
        """
        answers = self.flood(10_000)
        self.assertEqual(len(answers), 10_000 - 20)
        self.assertEqual({a[0] for a in answers}, {COOKIE})
        self.assertEqual({len(a) for a in answers}, {64})
        self.assertEqual(self.hub.table.indexCount, 0)
        self.assertLessEqual(len(self.hub.table._limiter), MAX_SOURCES)
        self.assertEqual(
            drops(self.hub),
            {"droppedHandshakeFailed": 20, "droppedUnderLoad": 9980},
        )

    def test_cookieGetsThrough(self) -> None:
        """A true peer is sent a cookie under load, and gets in with it."""
        self.flood(50)
        self.spoke.send(self.hub, ipPacket(1))
        for _ in range(8):
            self.wire.run(0.9)
            self.flood(50)
        self.assertEqual(self.hub.got, [ipPacket(1)])
        self.assertEqual(self.spoke.table.counters.cookiesReceived, 1)
        self.assertEqual(self.hub.kinds()[:2], [COOKIE, RESPONSE])

    def test_ourHandshakeUnderLoad(self) -> None:
        """
        Under load the answers to our own initiations need a cookie as well;
        with it our handshake completes.
        """
        self.hub.send(self.spoke, ipPacket(1))
        for _ in range(120):
            self.flood(50)
            self.wire.run(0.1)
        self.assertEqual(self.spoke.got, [ipPacket(1)])
        self.assertEqual(self.spoke.table.counters.cookiesReceived, 1)

    def test_loadEnds(self) -> None:
        """A second after the flood everything is as before."""
        self.flood(50)
        self.wire.run(1.1)
        self.spoke.send(self.hub, ipPacket(1))
        self.wire.run(1)
        self.assertEqual(self.hub.got, [ipPacket(1)])
        self.assertEqual(self.spoke.table.counters.cookiesReceived, 0)

    def test_wrongMacIsNoLoad(self) -> None:
        """Who does not know our key cannot even put us under load."""
        for _ in range(100):
            self.hub.table.receive([b"\x01\x00\x00\x00" + bytes(144)], b"", 0.0)
        self.assertEqual(drops(self.hub), {"droppedMac1": 100})
        self.assertEqual(self.hub.table.counters.cookiesSent, 0)

    def test_sourceRate(self) -> None:
        """Under load a source with a cookie has 20 a second, 5 at once."""
        self.flood(50)
        jar = CookieJar(self.hub.public)
        first = jar.sign(b"\x01\x00\x00\x00" + bytes(112), self.wire.now)
        (reply,) = self.hub.table.receive([first], b"one", self.wire.now).toSource
        jar.accept(reply[8:32], reply[32:], self.wire.now)
        before = drops(self.hub)["droppedHandshakeFailed"]
        message = jar.sign(b"\x01\x00\x00\x00" + bytes(112), self.wire.now)
        for _ in range(30):
            self.hub.table.receive([message], b"one", self.wire.now)
        self.assertEqual(drops(self.hub)["droppedHandshakeFailed"] - before, 5)
        self.assertEqual(drops(self.hub)["droppedRateLimited"], 25)

    def test_dataUnderLoad(self) -> None:
        """Sessions that exist do not notice."""
        self.spoke.send(self.hub, ipPacket(1))
        self.wire.run(1)
        self.flood(500)
        self.spoke.send(self.hub, ipPacket(2))
        self.wire.run(0.1)
        self.assertEqual(self.hub.got, [ipPacket(1), ipPacket(2)])

    def test_replayedInitiationsOfPeers(self) -> None:
        """A thousand replays of a true initiation make one session."""
        self.spoke.send(self.hub, ipPacket(1))
        (initiation,) = self.spoke.sent
        self.wire.run(0.015)
        for _ in range(1000):
            self.wire.run(1)
            self.hub.table.receive([initiation], b"x", self.wire.now)
        self.assertEqual(self.hub.table.counters.handshakesAnswered, 1)


class ManyPeersTests(SynchronousTestCase):
    """
    What ten thousand peers cost.
    """

    PEERS = 10_000

    def table(self) -> TunnelTable:
        """A table without peers."""
        random = Random(11)
        moments = iter(range(10**18, 10**19, 1 << 25))
        return TunnelTable(
            NodeKey.generate(random.randbytes),
            timestamp=lambda: tai64n(next(moments)),
            randbytes=random.randbytes,
        )

    def keys(self) -> list[bytes]:
        """The public keys of many peers (which nobody owns)."""
        return [Random(n).randbytes(32) for n in range(self.PEERS)]

    def test_lazy(self) -> None:
        """
        Peers to whom nothing is said cost no cryptography, no index, and no
        timer.
        """
        table = self.table()
        for key in self.keys():
            table.upsertPeer(key, now=0.0)
        self.assertEqual(len(table), self.PEERS)
        self.assertIsNone(table.deadline())
        self.assertEqual(table.indexCount, 0)
        peers = table._peers.values()
        self.assertTrue(all(not p._shared and p._jar is None for p in peers))

    def test_tickIsBounded(self) -> None:
        """
        Keep-alives of all peers are spread over the interval, and no tick
        serves more than a few.
        """
        table = self.table()
        for key in self.keys()[:1000]:
            table.upsertPeer(key, 25.0, now=0.0)
        self.assertLess(table.deadline() or 99, 1.0)
        now, most, half = 0.0, 0, 0
        while now < 25.0:
            now = max(now, table.deadline() or now)
            work = table.tick(now)
            most = max(most, len(work))
            if now < 12.5:
                half = sum(1 for p in table._peers.values() if p._pending)
        self.assertLessEqual(most, TICK_BATCH)
        self.assertTrue(400 < half < 600, half)
        self.assertEqual(table.indexCount, 1000)

    def test_lateTickCatchesUp(self) -> None:
        """
        After a long sleep the deadline stays in the past until all is done.
        """
        table = self.table()
        for key in self.keys()[:200]:
            table.upsertPeer(key, 25.0, now=0.0)
        ticks = 0
        while (table.deadline() or 0) <= 1000.0:
            work = table.tick(1000.0)
            self.assertTrue(0 < len(work) <= TICK_BATCH)
            ticks += 1
        self.assertEqual(ticks, 4)
        self.assertEqual(table.counters.handshakesStarted, 200)

    def test_heapStaysSmall(self) -> None:
        """Peers that come and go leave nothing behind in the heap."""
        table = self.table()
        keys = self.keys()[:50]
        for turn in range(40):
            for key in keys:
                table.upsertPeer(key, 25.0, now=float(turn))
            for key in keys:
                table.removePeer(key)
        self.assertLessEqual(len(table._heap), 200)
        self.assertIsNone(table.deadline())

    def test_trafficDoesNotGrowTheHeap(self) -> None:
        """Each peer has about one entry in the heap, however much it talks."""
        wire = Wire()
        first, second = wire.pair()
        first.knows(second, keepalive=5.0)
        for number in range(2000):
            first.send(second, ipPacket(number))
            second.send(first, ipPacket(number))
            wire.run(0.3)
        self.assertLess(len(first.table._heap), 70)


class SimulationTests(SynchronousTestCase):
    """
    Long runs over a bad wire.
    """

    def test_aDayOfOnePacketAMinute(self) -> None:
        """24 hours with a packet a minute each way lose nothing."""
        wire = Wire()
        first, second = wire.pair()
        for minute in range(24 * 60):
            first.send(second, ipPacket(minute))
            wire.run(30)
            second.send(first, ipPacket(minute))
            wire.run(30)
        expected = [ipPacket(minute) for minute in range(24 * 60)]
        self.assertEqual(second.got, expected)
        self.assertEqual(first.got, expected)
        self.assertEqual(drops(first), {})
        self.assertEqual(drops(second), {})
        handshakes = first.table.counters.handshakesCompleted
        self.assertTrue(400 <= handshakes <= 750, handshakes)

    def test_aDayOneWay(self) -> None:
        """So do 24 hours in which only one side has anything to say."""
        wire = Wire()
        first, second = wire.pair()
        for minute in range(24 * 60):
            first.send(second, ipPacket(minute))
            wire.run(60)
        self.assertEqual(second.got, [ipPacket(m) for m in range(24 * 60)])

    def test_lossDuplicatesReordering(self) -> None:
        """
        Over a wire that loses a fifth, doubles a fifth and shuffles, what
        arrives is never doubled or changed, and about four fifths arrive.
        """
        for seed in range(6):
            wire = Wire(seed)
            first, second = wire.pair()
            wire.loss = wire.duplicates = 0.2
            wire.jitter = 0.3
            random = Random(seed)
            for number in range(1500):
                party, other = (
                    (first, second) if random.random() < 0.5 else (second, first)
                )
                party.send(other, ipPacket(number, random.randint(20, 1280)))
                wire.run(random.random() * 0.8)
            wire.run(30)
            got = first.got + second.got
            self.assertEqual(len(got), len(set(got)))
            numbers = {int.from_bytes(p[4:12], "big") for p in got}
            self.assertEqual(len(numbers), len(got))
            self.assertGreater(len(got), 1100)
            for packet in got:
                number = int.from_bytes(packet[4:12], "big")
                self.assertEqual(packet, ipPacket(number, len(packet)))

    def test_terribleWire(self) -> None:
        """Where 60 % are lost, sessions still come about, all the time."""
        for seed in range(4):
            wire = Wire(seed)
            first, second = wire.pair()
            wire.loss = 0.6
            wire.jitter = 1.0
            for number in range(1200):
                first.send(second, ipPacket(number))
                second.send(first, ipPacket(number))
                wire.run(1)
            self.assertGreater(len(first.got), 250)
            self.assertGreater(len(second.got), 250)

    def test_outages(self) -> None:
        """After each outage, however long, the next packets get through."""
        wire = Wire(4)
        first, second = wire.pair()
        for length in (3, 14, 16, 60, 119, 121, 178, 181, 300, 539, 541, 4000):
            wire.drop = lambda *_: True
            end = wire.now + length
            while wire.now < end:
                first.send(second, ipPacket(0))
                second.send(first, ipPacket(0))
                wire.run(1)
            wire.drop = lambda *_: False
            wire.run(6)
            first.got.clear()
            second.got.clear()
            first.send(second, ipPacket(length))
            second.send(first, ipPacket(length))
            wire.run(1)
            self.assertIn(ipPacket(length), first.got, length)
            self.assertIn(ipPacket(length), second.got, length)

    def test_manyNodes(self) -> None:
        """Twelve nodes that all talk to each other all reach each other."""
        wire = Wire(9)
        wire.loss = 0.05
        wire.jitter = 0.05
        nodes = [wire.join(f"node{n}") for n in range(12)]
        for one in nodes:
            for other in nodes:
                if one is not other:
                    one.knows(other)
        for turn in range(5):
            for a, one in enumerate(nodes):
                for b, other in enumerate(nodes):
                    if a != b:
                        one.send(other, ipPacket(turn * 10_000 + a * 100 + b))
            wire.run(40)
        for b, node in enumerate(nodes):
            senders = {int.from_bytes(p[4:12], "big") % 10_000 // 100 for p in node.got}
            self.assertEqual(senders, set(range(12)) - {b})
            for packet in node.got:
                self.assertEqual(int.from_bytes(packet[4:12], "big") % 100, b)


class ForgeryTests(SynchronousTestCase):
    """
    What somebody can do who breaks the rules.
    """

    def setUp(self) -> None:
        """A hub, a peer of it, and somebody who knows both public keys."""
        self.wire = Wire()
        self.hub = self.wire.join("hub")
        self.peer = self.wire.join("peer")
        self.hub.knows(self.peer)
        self.mallory = StaticKey(Random(66).randbytes(32))

    def initiate(self, static: StaticKey) -> list[tuple[bytes, list[bytes]]]:
        """Send the hub an initiation with this key; its replies."""
        initiation = Initiation(
            static,
            self.hub.public,
            x25519(static.private, self.hub.public),
            index=b"abcd",
            timestamp=tai64n(10**18),
            ephemeral=bytes(range(32)),
        )
        message = CookieJar(self.hub.public).sign(initiation.body, self.wire.now)
        return self.hub.table.receive([message], b"", self.wire.now).replies

    def test_ownKey(self) -> None:
        """Who owns the key of a peer is answered as that peer."""
        replies = self.initiate(StaticKey(self.peer.key.raw))
        self.assertEqual([public for public, _ in replies], [self.peer.public])

    def test_claimedKey(self) -> None:
        """Who only claims it is not answered."""
        self.mallory.public = self.peer.public
        self.assertEqual(self.initiate(self.mallory), [])
        self.assertEqual(drops(self.hub), {"droppedHandshakeFailed": 1})
        self.assertEqual(self.hub.table.indexCount, 0)

    def test_claimSpoilsNoTimestamp(self) -> None:
        """Nor does the claim keep out the true peer afterwards."""
        self.mallory.public = self.peer.public
        self.initiate(self.mallory)
        self.assertEqual(len(self.initiate(StaticKey(self.peer.key.raw))), 1)

    def test_lowOrderKey(self) -> None:
        """A peer whose key has low order cannot be impersonated by anybody."""
        self.hub.table.upsertPeer(bytes(32), now=self.wire.now)
        self.mallory.public = bytes(32)
        self.assertEqual(self.initiate(self.mallory), [])
        self.assertEqual(drops(self.hub), {"droppedHandshakeFailed": 1})

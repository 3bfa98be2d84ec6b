"""
Tests for L{tsrt.tunnel.table} under load: floods, and very many peers.
"""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tsrt.keys import NodeKey
from tsrt.test.tunnelpair import Wire, drops, ipPacket
from tsrt.tunnel.cookies import CookieJar
from tsrt.tunnel.limits import MAX_SOURCES
from tsrt.tunnel.table import TICK_BATCH, TunnelTable
from tsrt.wire.wireguard import tai64n

RESPONSE, COOKIE = 2, 3


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

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
from tsrt.test.tunnelpair import Wire, drops, ipPacket
from tsrt.tunnel.cookies import CookieJar
from tsrt.tunnel.handshake import Initiation, StaticKey
from tsrt.tunnel.indices import IndexTable
from tsrt.wire.wireguard import tai64n

INITIATION, DATA = 1, 4


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

    def test_R_WG_5_unaskedCookie(self) -> None:
        """A second MAC that nobody asked for is no reason to drop a handshake."""
        now = self.wire.now
        for mac2 in (b"\x5a" * 16, bytes(16)):
            [initiation] = self.first.table.send(self.second.public, [b"E" * 20], now)
            received = self.second.table.receive(
                [initiation[:-16] + mac2], b"somewhere", now
            )
            [(public, [response])] = received.replies
            self.assertEqual(public, self.first.public)
            answered = self.first.table.receive(
                [response[:-16] + mac2], b"elsewhere", now
            )
            self.assertEqual(answered.heard, [self.second.public])
            self.first.table.removePeer(self.second.public)
            self.first.knows(self.second)
            now += 1
        self.assertEqual(drops(self.second), {})

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

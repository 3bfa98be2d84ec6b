"""
Tests for L{tsrt.tunnel.session}.
"""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.dataplane.runs import messagesOf
from tsrt.test.tunnelpair import ip6Packet, ipPacket, vector
from tsrt.tunnel.counters import TunnelCounters
from tsrt.tunnel.handshake import TransportKeys
from tsrt.tunnel.session import REJECT_AFTER_MESSAGES, Session

_VECTOR = vector("wireguard_session")
_FORTH = bytes.fromhex(_VECTOR["initiator_send_key"])
_BACK = bytes.fromhex(_VECTOR["responder_send_key"])
_MTU = 1280


def pair() -> tuple[Session, Session]:
    """The two ends of the session of the vector."""
    initiator = Session(
        TransportKeys(_FORTH, _BACK),
        index=bytes.fromhex("44332211"),
        remoteIndex=bytes.fromhex("88776655"),
        isInitiator=True,
        now=0.0,
    )
    responder = Session(
        TransportKeys(_BACK, _FORTH),
        index=bytes.fromhex("88776655"),
        remoteIndex=bytes.fromhex("44332211"),
        isInitiator=False,
        now=0.0,
    )
    return initiator, responder


class SealTests(SynchronousTestCase):
    """
    Tests for L{Session.seal}.
    """

    def test_vector(self) -> None:
        """Keep-alive, data and the keep-alive back have the published bytes."""
        initiator, responder = pair()
        inner = bytes.fromhex(_VECTOR["inner_packet"])
        sealed = initiator.seal([b"", inner], _MTU)
        self.assertEqual(sealed[0].hex(), _VECTOR["keepalive_counter0"])
        self.assertEqual(sealed[1].hex(), _VECTOR["data_counter1"])
        (reply,) = responder.seal([b""], _MTU)
        self.assertEqual(reply.hex(), _VECTOR["reply_keepalive_counter0"])

    def test_T_padding(self) -> None:
        """Packets are padded to a multiple of 16, but never beyond the MTU."""
        initiator, _ = pair()
        cases = [
            (1, 1280, 16),
            (16, 1280, 16),
            (17, 1280, 32),
            (1279, 1280, 1280),
            (1280, 1280, 1280),
            (1281, 1280, 1281),
            (1270, 1275, 1275),
            (1275, 1275, 1275),
            (1265, 1275, 1275),
            (1264, 1275, 1264),
        ]
        for size, mtu, padded in cases:
            (message,) = initiator.seal([bytes(size)], mtu)
            self.assertEqual(len(message), 32 + padded, (size, mtu))

    def test_paddingIsZero(self) -> None:
        """What is added are zeros, which the receiver cuts off again."""
        initiator, responder = pair()
        counters = TunnelCounters()
        packet = ipPacket(1, 41)
        opened, _ = responder.open(initiator.seal([packet], _MTU), counters)
        self.assertEqual(opened, [packet])

    def test_countersGoUp(self) -> None:
        """Each message has the next counter, over all batches."""
        initiator, _ = pair()
        messages = initiator.seal([b""] * 3, _MTU) + initiator.seal([b""] * 2, _MTU)
        numbers = [int.from_bytes(m[8:16], "little") for m in messages]
        self.assertEqual(numbers, [0, 1, 2, 3, 4])

    def test_room(self) -> None:
        """A session knows how many messages it has left."""
        initiator, _ = pair()
        self.assertEqual(initiator.room, 2**64 - 2**13 - 1)
        initiator.sendCounter = REJECT_AFTER_MESSAGES - 2
        self.assertEqual(initiator.room, 2)
        initiator.seal([b"", b""], _MTU)
        self.assertEqual(initiator.room, 0)


class OpenTests(SynchronousTestCase):
    """
    Tests for L{Session.open}.
    """

    def setUp(self) -> None:
        """A session's two ends, and the counters of the receiving one."""
        self.initiator, self.responder = pair()
        self.counters = TunnelCounters()

    def open(self, datagrams: list[bytes]) -> list[bytes]:
        """Open at the responder."""
        return self.responder.open(datagrams, self.counters)[0]

    def drops(self) -> dict[str, int]:
        """What was dropped, by reason."""
        snapshot = self.counters.snapshot()
        return {n: v for n, v in snapshot.items() if n.startswith("dropped") and v}

    def test_batch(self) -> None:
        """A batch in order comes out as it went in."""
        packets = [ipPacket(n, 60 + n) for n in range(200)]
        self.assertEqual(self.open(self.initiator.seal(packets, _MTU)), packets)
        self.assertEqual(self.drops(), {})

    def test_bytesOfAuthenticMessages(self) -> None:
        """The size of all that opened is told, keep-alives included."""
        messages = self.initiator.seal([ipPacket(1), b"", ipPacket(2)], _MTU)
        messages[2] = messages[2][:-1] + b"\0"
        _, size = self.responder.open(messages, self.counters)
        self.assertEqual(size, len(messages[0]) + 32)

    def test_keepalives(self) -> None:
        """Empty messages carry no packet and are counted."""
        self.assertEqual(self.open(self.initiator.seal([b"", b""], _MTU)), [])
        self.assertEqual(self.counters.keepalivesReceived, 2)

    def test_R_WG_1_replayRejected(self) -> None:
        """A message opens once, in the same batch and in any later one."""
        messages = self.initiator.seal([ipPacket(n) for n in range(5)], _MTU)
        self.assertEqual(len(self.open(messages + messages)), 5)
        self.assertEqual(self.open(messages), [])
        self.assertEqual(self.drops(), {"droppedReplay": 10})

    def test_R_WG_1_forgeryDoesNotMark(self) -> None:
        """
        A forged message does not use up the counter of the true one: the
        window is set only after the message opened.
        """
        messages = self.initiator.seal([ipPacket(n) for n in range(4)], _MTU)
        forged = [m[:-1] + bytes([m[-1] ^ 1]) for m in messages]
        self.assertEqual(self.open(forged), [])
        self.assertEqual(len(self.open(messages)), 4)
        self.assertEqual(self.drops(), {"droppedUnauthentic": 4})

    def test_forgeryWithFarCounter(self) -> None:
        """A forged counter from the far future does not move the window."""
        messages = messagesOf(
            self.initiator.seal([ipPacket(n) for n in range(3)], _MTU)
        )
        far = messages[0][:8] + (1 << 50).to_bytes(8, "little") + messages[0][16:]
        self.assertEqual(len(self.open([far, *messages])), 3)

    def test_anyOrder(self) -> None:
        """Within the window the order does not matter, nor do the batches."""
        packets = [ipPacket(n) for n in range(600)]
        messages = self.initiator.seal(packets, _MTU)
        for seed in range(5):
            _, self.responder = pair()
            random = Random(seed)
            shuffled = [*messages, *random.sample(messages, 100)]
            random.shuffle(shuffled)
            got: list[bytes] = []
            while shuffled:
                size = random.randint(1, 40)
                got += self.open(shuffled[:size])
                del shuffled[:size]
            self.assertEqual(sorted(got), sorted(packets))

    def test_tooLate(self) -> None:
        """What is further behind than the window is a replay."""
        messages = self.initiator.seal([ipPacket(0)], _MTU)
        self.initiator.sendCounter = 8129
        messages += self.initiator.seal([ipPacket(1)], _MTU)
        self.assertEqual(self.open(messages[1:]), [ipPacket(1)])
        self.assertEqual(self.open(messages[:1]), [])
        self.assertEqual(self.drops(), {"droppedReplay": 1})

    def test_T_limits_ceilingOfCounters(self) -> None:
        """The last counter opens; those above it do not, however authentic."""
        self.initiator.sendCounter = REJECT_AFTER_MESSAGES - 2
        messages = self.initiator.seal([ipPacket(n) for n in range(4)], _MTU)
        self.assertEqual(self.open(messages), [ipPacket(0), ipPacket(1)])
        self.assertEqual(self.drops(), {"droppedReplay": 2})

    def test_tooShort(self) -> None:
        """Messages without room for a tag are malformed."""
        header = self.initiator.seal([b""], _MTU)[0]
        self.assertEqual(self.open([header[:size] for size in range(8, 32)]), [])
        self.assertEqual(self.drops(), {"droppedMalformed": 24})

    def test_innerLengths(self) -> None:
        """Both families are cut to the length that their header tells."""
        six = ip6Packet(3, 55)
        packets = [ipPacket(1, 33) + bytes(7), six + bytes(9), ip6Packet(4, 40)]
        opened = self.open(self.initiator.seal(packets, _MTU))
        self.assertEqual(opened, [ipPacket(1, 33), six, ip6Packet(4, 40)])

    def test_unsoundInner(self) -> None:
        """What is no whole IP packet is dropped and counted."""
        unsound = [
            b"\x45",
            b"\x45\x00\x00\x14" + bytes(12),
            b"\x45\x00\x00\x13" + bytes(28),
            b"\x45\x00\x00\x31" + bytes(44),
            b"\x60\x00\x00\x00\x00\x00" + bytes(26),
            b"\x60\x00\x00\x00\x00\x09" + bytes(42),
            b"\x00" + bytes(47),
            b"\x55" + bytes(47),
            b"\xff" * 48,
        ]
        self.assertEqual(self.open(self.initiator.seal(unsound, _MTU)), [])
        self.assertEqual(self.drops(), {"droppedInner": len(unsound)})

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.binary(max_size=90), max_size=6))
    def test_anyDatagrams(self, datagrams: list[bytes]) -> None:
        """No bytes from outside raise, or yield a packet."""
        _, responder = pair()
        self.assertEqual(responder.open(datagrams, TunnelCounters()), ([], 0))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.binary(max_size=90), max_size=6))
    def test_anyInnerPackets(self, inner: list[bytes]) -> None:
        """No bytes that a peer sealed raise; what comes out is a sound packet."""
        initiator, responder = pair()
        packets, _ = responder.open(initiator.seal(inner, _MTU), TunnelCounters())
        for packet in packets:
            self.assertIn(packet[0] >> 4, (4, 6))
            self.assertTrue(
                int.from_bytes(packet[2:4], "big") == len(packet)
                or int.from_bytes(packet[4:6], "big") + 40 == len(packet)
            )

"""
Tests for L{tsrt.tunnel.session}.
"""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.dataplane.choice import TIERS, chooseTier
from tsrt.dataplane.interface import Opened, Opener
from tsrt.dataplane.runs import DatagramRun, messagesOf, packetsOf
from tsrt.errors import NotSupported
from tsrt.test.tunnelpair import ip6Packet, ipPacket, vector
from tsrt.tunnel.counters import TunnelCounters
from tsrt.tunnel.handshake import TransportKeys
from tsrt.tunnel.session import REJECT_AFTER_MESSAGES, Session

_VECTOR = vector("wireguard_session")
_FORTH = bytes.fromhex(_VECTOR["initiator_send_key"])
_BACK = bytes.fromhex(_VECTOR["responder_send_key"])
_MTU = 1280


class CountingOpener:
    """
    Opens, and counts.

    @ivar alone: messages that were opened by themselves.
    @ivar runs: how many messages each run gave.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self.alone = 0
        self.runs: list[int] = []

    def open(self, datagram: bytes, counter: int) -> bytes | None:
        self.alone += 1
        return self._opener.open(datagram, counter)

    def openRun(self, run: DatagramRun, first: int, counter: int) -> Opened:
        opened = self._opener.openRun(run, first, counter)
        self.runs.append(opened.taken)
        return opened


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


class OpenRunTests(SynchronousTestCase):
    """
    Tests for L{Session.open} with runs that are not quite in order.
    """

    def setUp(self) -> None:
        """Messages of one size."""
        self.initiator, _ = pair()
        self.messages = messagesOf(
            self.initiator.seal([ipPacket(n, 600) for n in range(96)], _MTU)
        )

    def check(self, messages: list[bytes], before: int = 0) -> list[CountingOpener]:
        """
        Opened as a run they give what they give one by one, with each tier: the
        same packets, counters, and replay window.

        @param before: how many messages came beforehand.
        """
        counting = []
        for name in TIERS:
            try:
                tier = chooseTier(name)
            except NotSupported:
                continue
            outcomes = []
            for joined in (False, True):
                session = Session(
                    TransportKeys(_BACK, _FORTH),
                    index=bytes.fromhex("88776655"),
                    remoteIndex=bytes.fromhex("44332211"),
                    isInitiator=False,
                    now=0.0,
                    tier=tier,
                )
                counters = TunnelCounters()
                session.open(self.messages[:before], counters)
                session._opener = opener = CountingOpener(session._opener)
                packets, size = [], 0
                if joined:
                    run = DatagramRun(b"".join(messages), len(messages[0]))
                    packets, size = session.open([run], counters)
                    counting.append(opener)
                else:
                    for message in messages:
                        one, length = session.open([message], counters)
                        packets += one
                        size += length
                window = session._window
                outcomes.append(
                    (
                        packetsOf(packets),
                        size,
                        counters.snapshot(),
                        window.newest,
                        [window.isFresh(number) for number in range(200)],
                    )
                )
            self.assertEqual(outcomes[0], outcomes[1])
        return counting

    def forged(self, number: int) -> bytes:
        """A message with a wrong tag."""
        message = self.messages[number]
        return message[:-1] + bytes([message[-1] ^ 1])

    def test_inOrder(self) -> None:
        """A run in order is opened at once."""
        for opener in self.check(self.messages[:48]):
            self.assertEqual((opener.alone, opener.runs), (0, [48]))

    def test_reordered(self) -> None:
        """Of two neighbours that were swapped the late one is opened alone."""
        messages = self.messages[:48]
        messages[20:22] = messages[21], messages[20]
        for opener in self.check(messages):
            self.assertEqual((opener.alone, opener.runs), (1, [20, 1, 26]))

    def test_replayed(self) -> None:
        """A replayed message is not opened at all, and what follows is a run."""
        messages = self.messages[:20] + self.messages[5:7] + self.messages[20:46]
        for opener in self.check(messages):
            self.assertEqual((opener.alone, opener.runs), (0, [20, 26]))

    def test_forged(self) -> None:
        """A forged message costs itself only."""
        messages = self.messages[:48]
        messages[20] = self.forged(20)
        for opener in self.check(messages):
            self.assertEqual((opener.alone, opener.runs), (1, [20, 0, 27]))

    def test_everything(self) -> None:
        """A swap, a replay and a forgery in one run leave the most of it whole."""
        messages = self.messages[:47]
        messages[9:11] = messages[10], messages[9]
        messages[24] = self.forged(24)
        messages.insert(36, messages[30])
        for opener in self.check(messages):
            self.assertEqual(opener.alone, 2)
            self.assertEqual(sum(opener.runs), 45)

    def test_missing(self) -> None:
        """What was lost does not matter, nor does what filled the window before."""
        del self.messages[30], self.messages[10]
        for opener in self.check(self.messages[:48]):
            self.assertEqual((opener.alone, opener.runs), (0, [10, 19, 19]))
        for opener in self.check(self.messages[:48], before=40):
            self.assertEqual((opener.alone, opener.runs), (0, [8]))

    def test_oldRun(self) -> None:
        """A run that is behind is looked at message by message."""
        messages = self.messages[48:]
        for opener in self.check(messages + self.messages[10:48], before=10):
            self.assertEqual((opener.alone, opener.runs), (38, [48]))

    def test_noPatience(self) -> None:
        """Where hardly two are in order, no more runs are looked for."""
        for messages in (
            [self.messages[n ^ 1] for n in range(96)],
            [self.forged(n) for n in range(96)],
        ):
            for opener in self.check(messages):
                self.assertLess(len(opener.runs), 12)

    def test_tooShort(self) -> None:
        """A stump at the end is malformed, wherever the run was interrupted."""
        messages = self.messages[:20]
        messages[10] = self.forged(10)
        for size in (1, 8, 15, 16, 31):
            for opener in self.check([*messages, self.messages[20][:size]]):
                self.assertEqual(opener.alone, 1)
            self.check([*messages, messages[3], self.messages[20][:size]])

    def test_T_limits_ceilingOfCounters(self) -> None:
        """At the last counter a run ends, and what lies beyond is dropped."""
        self.initiator.sendCounter = REJECT_AFTER_MESSAGES - 10
        last = messagesOf(
            self.initiator.seal([ipPacket(n, 600) for n in range(20)], _MTU)
        )
        self.check(self.messages[:20] + last)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 47), st.integers(0, 3)), max_size=12))
    def test_any(self, changes: list[tuple[int, int]]) -> None:
        """Whatever is swapped, left out, replayed or forged: it is the same."""
        messages = self.messages[:48]
        for at, change in changes:
            at %= len(messages) - 1
            if change == 0:
                messages[at : at + 2] = messages[at + 1], messages[at]
            elif change == 1:
                del messages[at]
            elif change == 2:
                messages.insert(len(messages) // 2, messages[at])
            else:
                messages[at] = self.forged(at)
        self.check(messages, before=len(changes) % 3)

"""
Tests for L{tsrt.dataplane}: the same for each tier.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from random import Random

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.dataplane.choice import TIERS, VARIABLE, chooseTier
from tsrt.dataplane.runs import (
    ArrivedRun,
    DatagramRun,
    SegmentRun,
    countOf,
    datagramsOf,
    messagesOf,
    packetsOf,
)
from tsrt.errors import NotSupported
from tsrt.wire.tcp import ACK, FIN, PSH, SYN, SegmentBuilder, encodeOptions, parseTCP

KEY = bytes(range(32))
PREFIX = b"\x04\0\0\0abcd"
V4 = (parseAddress("100.64.0.1"), parseAddress("100.64.0.2"))
V6 = (parseAddress("fd7a:115c:a1e0::1"), parseAddress("fd7a:115c:a1e0::2"))
STAMPS = encodeOptions(timestamps=(7, 9))


def builderOf(family: int = 4, port: int = 1000) -> SegmentBuilder:
    """What makes the packets of a flow."""
    here, there = V4 if family == 4 else V6
    return SegmentBuilder(here, port, there, 80)


def runOf(
    payload: bytes,
    mss: int,
    family: int = 4,
    options: bytes = b"",
    seq: int = 1000,
    lastFlags: int = PSH,
) -> SegmentRun:
    """A run of segments."""
    builder = builderOf(family)
    return SegmentRun(builder, seq, 77, ACK, 500, options, payload, mss, lastFlags)


def padded(packet: bytes, mtu: int = 1280) -> bytes:
    """A packet as it is sealed."""
    return packet + bytes(min(-len(packet) % 16, max(mtu - len(packet), 0)))


def sealed(packets: list[bytes], counter: int = 0, mtu: int = 1280) -> list[bytes]:
    """The messages of packets, by the library alone."""
    cipher = ChaCha20Poly1305(KEY)
    messages = []
    for packet in packets:
        number = counter.to_bytes(8, "little")
        plaintext = padded(packet, mtu)
        messages.append(
            PREFIX + number + cipher.encrypt(bytes(4) + number, plaintext, None)
        )
        counter += 1
    return messages


def joined(messages: list[bytes]) -> DatagramRun:
    """Messages of one size, but the last, as the system joins them."""
    return DatagramRun(b"".join(messages), len(messages[0]))


class TierMixin:
    """What every tier does."""

    name = ""

    def setUp(self) -> None:
        try:
            self.tier = chooseTier(self.name)
        except NotSupported as error:
            raise SkipTest(str(error)) from error
        self.sealer = self.tier.sealer(KEY)
        self.opener = self.tier.opener(KEY)
        self.random = Random(5)

    def payload(self, size: int) -> bytes:
        return self.random.randbytes(size)

    # -- sealing ---------------------------------------------------------------

    def checkSealed(self, run: SegmentRun, counter: int = 0, mtu: int = 1280) -> None:
        """Sealing a run gives what sealing its packets gives."""
        expected = sealed(run.packets(), counter, mtu)
        made = self.sealer.sealRun(run, PREFIX, counter, mtu)
        self.assertEqual(made.messages(), expected)
        self.assertEqual(b"".join(bytes(b) for b in made.buffers), b"".join(expected))
        self.assertEqual(made.count, len(expected))
        self.assertEqual(made.size, len(expected[0]))
        self.assertEqual(len(made), sum(map(len, expected)))

    def test_sealRun(self) -> None:
        """A run is sealed as its packets would be, one by one."""
        for family, mss in ((4, 1240), (6, 1220)):
            for size in (mss + 1, 2 * mss, 7 * mss + 3, 48 * mss, 195 * mss + 17):
                self.checkSealed(runOf(self.payload(size), mss, family), 5)

    def test_sealOddSizes(self) -> None:
        """Segments and runs of any size are padded as single packets are."""
        for mss in (1, 2, 3, 64, 535, 536, 1227, 1228, 1229, 1238, 1239):
            for family in (4, 6):
                count = 12 * mss + self.random.randrange(1, mss + 1)
                self.checkSealed(runOf(self.payload(count), mss, family))

    def test_sealWithOptions(self) -> None:
        """Every segment of a run carries the options."""
        for family, mss in ((4, 1228), (6, 1208)):
            self.checkSealed(runOf(self.payload(20 * mss), mss, family, STAMPS))

    def test_sealFlags(self) -> None:
        """The last segment has flags besides."""
        for flags in (0, PSH, FIN | PSH):
            self.checkSealed(runOf(self.payload(9000), 1240, lastFlags=flags))

    def test_sealWraps(self) -> None:
        """Sequence numbers wrap, and counters are of 64 bits."""
        for seq in (0xFFFFFFFF, 0xFFFFFFFF - 5000, 0x7FFFFFFF):
            self.checkSealed(runOf(self.payload(20000), 1240, seq=seq), 1 << 40)

    def test_sealZeros(self) -> None:
        """A checksum of nothing but zeros and ones is right, too."""
        for filling in (bytes(30000), b"\xff" * 30000):
            self.checkSealed(runOf(filling, 1240))

    def test_sealPaddingIsZeros(self) -> None:
        """Padding is zeros, whatever was sealed before."""
        for mss in (1240, 1229, 1235, 1240, 1230):
            self.checkSealed(runOf(b"\xff" * (20 * mss + 1), mss))

    def test_sealCounters(self) -> None:
        """Counters have 64 bits."""
        for counter in ((1 << 32) - 5, (1 << 63) - 5, (1 << 64) - (1 << 14)):
            self.checkSealed(runOf(self.payload(20000), 1240), counter)

    def test_sealedStays(self) -> None:
        """What was sealed is not changed by what is sealed after it."""
        runs = [runOf(self.payload(12000), 1240) for _ in range(20)]
        made = [self.sealer.sealRun(run, PREFIX, 3, 1280) for run in runs]
        parts = [one.slices(4, 65507)[1][0] for one in made]
        wanted = [sealed(run.packets(), 3) for run in runs]
        self.assertEqual([one.messages() for one in made], wanted)
        del made
        for run in runs:
            self.sealer.sealRun(run, PREFIX, 9, 1280)
        for part, messages in zip(parts, wanted, strict=True):
            self.assertEqual(b"".join(part), b"".join(messages[4:8]))

    def test_sealBeyondTheMTU(self) -> None:
        """What is larger than the MTU is not padded."""
        self.checkSealed(runOf(self.payload(30000), 1240), mtu=1270)
        self.checkSealed(runOf(self.payload(30000), 1235), mtu=1276)

    def test_seal(self) -> None:
        """Single packets are sealed, too; an empty one is a keep-alive."""
        packets = [b"", b"x" * 20, b"y" * 1280, b"z" * 1279]
        self.assertEqual(self.sealer.seal(packets, PREFIX, 3, 1280), sealed(packets, 3))

    # -- opening -----------------------------------------------------------------

    def openAll(self, packets: list[bytes], mtu: int = 1280):
        """Open what sealing packets gave; the packets are the same."""
        messages = sealed(packets, 0, mtu)
        opened = self.opener.openRun(joined(messages), 0, 0)
        self.assertEqual(opened.taken, len(packets))
        self.assertEqual(packetsOf(opened.items), packets)
        self.assertEqual(opened.dropped, 0)
        return opened.items

    def checkRun(self, run: SegmentRun) -> ArrivedRun:
        """A run is found where one was sealed."""
        packets = run.packets()
        items = self.openAll(packets)
        self.assertEqual(len(items), 1)
        (found,) = items
        self.assertIsInstance(found, ArrivedRun)
        self.assertEqual(found.payload, run.payload)
        self.assertIs(type(found.payload), bytes)
        self.assertEqual(found.count, len(packets))
        self.assertEqual(found.largest, run.mss)
        self.assertEqual(found.seq, run.seq)
        self.assertEqual(found.ack, run.ack)
        self.assertEqual(found.window, run.window)
        self.assertEqual(found.flags, ACK | run.lastFlags)
        self.assertEqual(found.head, packets[0][: len(found.head)])
        self.assertEqual(len(found), sum(map(len, packets)))
        return found

    def test_openRun(self) -> None:
        """A run comes out as it went in."""
        for family, mss in ((4, 1240), (6, 1220)):
            for size in (mss + 1, 2 * mss, 7 * mss + 3, 48 * mss, 195 * mss + 17):
                self.checkRun(runOf(self.payload(size), mss, family))

    def test_openOddSizes(self) -> None:
        """Padding is cut off."""
        for mss in (17, 64, 535, 536, 1227, 1229, 1238, 1239):
            for family in (4, 6):
                self.checkRun(runOf(self.payload(12 * mss + 1), mss, family))

    def test_openWithOptions(self) -> None:
        """Options are parsed once."""
        for family, mss in ((4, 1228), (6, 1208)):
            found = self.checkRun(runOf(self.payload(20 * mss), mss, family, STAMPS))
            self.assertEqual(found.options.tsValue, 7)
            self.assertEqual(found.options.tsEcho, 9)

    def test_openWraps(self) -> None:
        """Sequence numbers wrap within a run."""
        self.checkRun(runOf(self.payload(20000), 1240, seq=0xFFFFFFFF - 5000))

    def test_openZeros(self) -> None:
        """Sums of nothing but zeros or ones are right."""
        for filling in (bytes(30000), b"\xff" * 30000):
            self.checkRun(runOf(filling, 1240))

    def test_pushEndsARun(self) -> None:
        """What follows a segment with PSH begins anew."""
        first = runOf(self.payload(10 * 1240), 1240)
        second = runOf(self.payload(10 * 1240), 1240, seq=first.seq + 12400)
        items = self.openAll(first.packets() + second.packets())
        self.assertEqual(
            [item.payload for item in items], [first.payload, second.payload]
        )

    def test_shortEndsARun(self) -> None:
        """So does what follows a short segment."""
        first = runOf(self.payload(10 * 1240), 1240, lastFlags=0).packets()
        short = builderOf().build(1000 + 12400, 77, ACK, 500, b"", b"short")
        rest = runOf(self.payload(10 * 1240), 1240, seq=1000 + 12400 + 5).packets()
        messages = sealed([*first, short], 0)
        opened = self.opener.openRun(joined(messages), 0, 0)
        self.assertEqual(packetsOf(opened.items), [*first, short])
        self.assertEqual(len(opened.items), 1)
        opened = self.opener.openRun(joined(sealed(rest, 11)), 0, 11)
        self.assertEqual(len(opened.items), 1)

    def test_differences(self) -> None:
        """A segment that differs in what tells something is none of the run."""
        base = runOf(self.payload(14 * 1240), 1240, lastFlags=0).packets()

        def segment(seq=1000 + 7 * 1240, ack=77, flags=ACK, window=500, port=1000):
            builder = builderOf(port=port)
            return builder.build(seq, ack, flags, window, b"", self.payload(1240))

        for other in (
            segment(seq=1000 + 7 * 1240 + 1),
            segment(seq=1000),
            segment(ack=78),
            segment(window=501),
            segment(flags=ACK | FIN),
            segment(flags=ACK | SYN),
            segment(flags=0),
            segment(port=1001),
        ):
            packets = [*base[:7], other, *base[8:]]
            items = self.openAll(packets)
            self.assertEqual(countOf(items[:1]), 7)
            self.assertNotIn(
                1240 * 14, [len(getattr(i, "payload", b"")) for i in items]
            )

    def test_badChecksum(self) -> None:
        """A segment that was damaged before it was sealed is for others to judge."""
        for at in (12, 26, 30, 33, 38, 40, 700, 1279):
            packets = runOf(self.payload(14 * 1240), 1240, lastFlags=0).packets()
            damaged = bytearray(packets[5])
            damaged[at] ^= 0x40
            packets[5] = bytes(damaged)
            items = self.openAll(packets)
            self.assertEqual(items[1], packets[5])
            self.assertEqual(countOf(items[:1]), 5)

    def test_damagedFirst(self) -> None:
        """A first segment that is damaged begins no run."""
        packets = runOf(self.payload(14 * 1240), 1240).packets()
        packets[0] = packets[0][:-1] + bytes((packets[0][-1] ^ 1,))
        items = self.openAll(packets)
        self.assertEqual(items[0], packets[0])
        self.assertEqual(len(items), 2)

    def test_identification(self) -> None:
        """IPv4 packets that differ in their identification are one run."""
        packets = []
        for number, packet in enumerate(runOf(self.payload(9920), 1240).packets()):
            changed = bytearray(packet)
            changed[4:6] = number.to_bytes(2, "big")
            # One more here, one less there.
            total = int.from_bytes(changed[10:12], "big") - number
            changed[10:12] = (total % 65535).to_bytes(2, "big")
            packets.append(bytes(changed))
        (found,) = self.openAll(packets)
        self.assertEqual(found.count, 8)

    def test_longIdentification(self) -> None:
        """So they are from any one on, if the headers are right."""
        for since in (1, 2, 30):
            base = runOf(self.payload(60 * 1240 - 7), 1240).packets()
            packets = base[:since] + [
                identified(packet, number)
                for number, packet in enumerate(base[since:], 65530)
            ]
            (found,) = self.openAll(packets)
            self.assertEqual(found.count, 60)
            for at in (4, 5, 10, 11):
                damaged = bytearray(packets[40])
                damaged[at] ^= 0x11
                changed = [*packets[:40], bytes(damaged), *packets[41:]]
                first, lone, last = self.openAll(changed)
                self.assertEqual((first.count, last.count), (40, 19))
                self.assertEqual(lone, bytes(damaged))

    def test_twoWrongChecksums(self) -> None:
        """Two checksums that are wrong do not make up for each other."""
        base = runOf(self.payload(20 * 1240), 1240).packets()
        for changes in (False, True):
            packets = [
                identified(packet, changes * number)
                for number, packet in enumerate(base)
            ]
            for number, damages in ((9, (1, -1)), (1, (-1, 1))):
                damaged = bytearray(packets[number])
                for at, more in zip((10, 36), damages, strict=True):
                    field = int.from_bytes(damaged[at : at + 2], "big") + more
                    damaged[at : at + 2] = field.to_bytes(2, "big")
                changed = [*packets[:number], bytes(damaged), *packets[number + 1 :]]
                items = self.openAll(changed)
                self.assertEqual(len(items), 3)
                self.assertEqual(items[1], bytes(damaged))

    def test_pushInTheMiddle(self) -> None:
        """Wherever a segment has PSH, a run ends."""
        for pushed in (1, 2, 9, 47, 48):
            first = runOf(self.payload(pushed * 1240 + 1240), 1240)
            rest = runOf(
                self.payload(9 * 1240), 1240, seq=first.seq + len(first.payload)
            )
            items = self.openAll(first.packets() + rest.packets())
            self.assertEqual(
                [(item.count, item.flags, item.payload) for item in items],
                [
                    (pushed + 1, ACK | PSH, first.payload),
                    (9, ACK | PSH, rest.payload),
                ],
            )

    def test_shorterInTheMiddle(self) -> None:
        """A segment that is shorter than its message lets it be ends a run."""
        for mss, family in ((1240, 4), (1220, 6)):
            first = runOf(self.payload(20 * mss - 3), mss, family, lastFlags=0)
            rest = runOf(
                self.payload(9 * mss), mss, family, seq=first.seq + len(first.payload)
            )
            items = self.openAll(first.packets() + rest.packets())
            self.assertEqual(
                [(item.count, item.flags, item.payload) for item in items],
                [(20, ACK, first.payload), (9, ACK | PSH, rest.payload)],
            )

    def test_anyPadding(self) -> None:
        """What follows a packet in its message is of no matter."""
        for mss in (1240, 1239, 1238, 1237, 1205):
            for family in (4, 6):
                run = runOf(self.payload(30 * mss), mss, family, lastFlags=0)
                packets = run.packets()
                plaintexts = [
                    packet + self.payload(1312 - len(packet)) for packet in packets
                ]
                for last in (packets[-1], plaintexts[-1]):
                    datagrams = joined(sealed([*plaintexts[:-1], last], 3, 2000))
                    opened = self.opener.openRun(datagrams, 0, 3)
                    (found,) = opened.items
                    self.assertEqual(opened.taken, 30)
                    self.assertEqual(found.payload, run.payload)
                    self.assertEqual(found.packets(), packets)

    def test_urgentPointers(self) -> None:
        """Where a segment without URG points to is its own affair."""
        packets = runOf(self.payload(9920), 1240).packets()
        changed = bytearray(packets[4])
        changed[38:40] = b"\x01\x00"
        total = int.from_bytes(changed[36:38], "big") - 256
        changed[36:38] = (total % 65535).to_bytes(2, "big")
        packets[4] = bytes(changed)
        (found,) = self.openAll(packets)
        self.assertEqual(found.count, 8)

    def test_openedStays(self) -> None:
        """What was opened is not changed by what is opened after it."""
        runs = [runOf(self.payload(12001), 1240) for _ in range(20)]
        many = [joined(sealed(run.packets(), 3)) for run in runs]
        found = [self.opener.openRun(each, 0, 3).items[0] for each in many]
        for run, item in zip(runs, found, strict=True):
            self.assertEqual(item.packets(), run.packets())
            self.assertEqual(item.payload, run.payload)

    def test_cutOff(self) -> None:
        """A last packet that is cut off is none, whatever was opened before."""
        packets = runOf(self.payload(20 * 1240), 1240).packets()
        for last in (packets[-1], packets[-1][:600], packets[-1][:1264]):
            datagrams = joined(sealed([*packets[:-1], last], 3))
            opened = self.opener.openRun(datagrams, 0, 3)
            isWhole = last == packets[-1]
            self.assertEqual(opened.taken, 20)
            self.assertEqual(opened.dropped, not isWhole)
            self.assertEqual(packetsOf(opened.items), packets[: 19 + isWhole])

    def test_scratch(self) -> None:
        """What was opened does not lie in what arrived."""
        run = runOf(self.payload(12001), 1240)
        messages = sealed(run.packets(), 3)
        data = bytearray(b"".join(messages))
        datagrams = DatagramRun(memoryview(data), len(messages[0]))
        (found,) = self.opener.openRun(datagrams, 0, 3).items
        data[:] = bytes(len(data))
        self.assertEqual(found.packets(), run.packets())
        self.assertEqual(found.payload, run.payload)

    def test_otherProtocols(self) -> None:
        """Datagrams and fragments are no segments."""
        packets = runOf(self.payload(9920), 1240).packets()
        for at, value in ((9, 17), (6, 0x20), (7, 1), (0, 0x46)):
            changed = []
            for packet in packets:
                other = bytearray(packet)
                old = int.from_bytes(other[at & ~1 : (at & ~1) + 2], "big")
                other[at] = value
                new = int.from_bytes(other[at & ~1 : (at & ~1) + 2], "big")
                total = int.from_bytes(other[10:12], "big") + old - new
                other[10:12] = (total % 65535).to_bytes(2, "big")
                changed.append(bytes(other))
            self.assertEqual(self.openAll(changed), changed)

    def test_malformedOptions(self) -> None:
        """Options that make no sense make no run, and nothing is lost."""
        packets = runOf(self.payload(9920), 1228, options=b"\x08\x03\x01\x01").packets()
        self.assertEqual(self.openAll(packets), packets)

    def test_openStops(self) -> None:
        """Opening ends at a counter that is out of order, and at a forgery."""
        packets = runOf(self.payload(20 * 1240), 1240).packets()
        good = sealed(packets, 9)
        for change in (
            lambda m: m[:8] + (99).to_bytes(8, "little") + m[16:],
            lambda m: m[:-1] + bytes((m[-1] ^ 1,)),
            lambda m: m[:600] + bytes((m[600] ^ 1,)) + m[601:],
        ):
            messages = [*good[:12], change(good[12]), *good[13:]]
            opened = self.opener.openRun(joined(messages), 0, 9)
            self.assertEqual(opened.taken, 12)
            self.assertEqual(packetsOf(opened.items), packets[:12])
            opened = self.opener.openRun(joined(messages), 13, 22)
            self.assertEqual(opened.taken, 7)
            self.assertEqual(packetsOf(opened.items), packets[13:])
        self.assertEqual(self.opener.openRun(joined(good), 0, 8).taken, 0)

    def test_openStopsAnywhere(self) -> None:
        """Wherever it ends, what comes before it is there, and nothing else."""
        run = runOf(self.payload(29 * 1240 + 5), 1240)
        packets = run.packets()
        good = sealed(packets, 9)
        for at in (0, 1, 2, 3, 4, 5, 28, 29):
            for byte in (8, 15, 16, 40, -17, -1):
                changed = bytearray(good[at])
                changed[byte] ^= 1
                messages = [*good[:at], bytes(changed), *good[at + 1 :]]
                opened = self.opener.openRun(joined(messages), 0, 9)
                self.assertEqual(opened.taken, at)
                self.assertEqual(packetsOf(opened.items), packets[:at])
                self.assertEqual(len(opened.items), min(at, 1))
                self.assertEqual((opened.dropped, opened.keepalives), (0, 0))

    def test_largeCounters(self) -> None:
        """Counters have 64 bits here as well."""
        packets = runOf(self.payload(200 * 1240), 1240).packets()
        for counter in ((1 << 32) - 5, (1 << 63) - 5, (1 << 64) - (1 << 14)):
            run = joined(sealed(packets, counter))
            opened = self.opener.openRun(run, 150, counter + 150)
            self.assertEqual(opened.taken, 50)
            self.assertEqual(packetsOf(opened.items), packets[150:])

    def test_open(self) -> None:
        """Single messages open, forgeries do not."""
        (message,) = sealed([b"p" * 32], 4)
        self.assertEqual(self.opener.open(message, 4), b"p" * 32)
        self.assertIsNone(self.opener.open(message, 5))
        self.assertIsNone(self.opener.open(message[:-1], 4))

    def test_keepalives(self) -> None:
        """Empty messages are counted, and what is no packet."""
        run = joined(sealed([b""] * 5, 1))
        opened = self.opener.openRun(run, 0, 1)
        self.assertEqual((opened.taken, opened.keepalives, opened.items), (5, 5, []))
        run = joined(sealed([b"\x70" + bytes(63)] * 3, 1))
        opened = self.opener.openRun(run, 0, 1)
        self.assertEqual((opened.taken, opened.dropped, opened.items), (3, 3, []))
        run = joined([*sealed([bytes(48)], 1), *sealed([b""], 2)])
        opened = self.opener.openRun(run, 0, 1)
        self.assertEqual((opened.taken, opened.dropped, opened.keepalives), (2, 1, 1))

    def test_keepaliveAtTheEnd(self) -> None:
        """An empty message ends what the system joins, and counts as such."""
        packets = runOf(self.payload(20 * 1240), 1240, lastFlags=0).packets()
        opened = self.opener.openRun(joined(sealed([*packets, b""], 4)), 0, 4)
        self.assertEqual((opened.taken, opened.keepalives, opened.dropped), (21, 1, 0))
        self.assertEqual(packetsOf(opened.items), packets)
        self.assertEqual(len(opened.items), 1)

    def test_noPacketInTheMiddle(self) -> None:
        """What is no packet is dropped, and parts two runs."""
        packets = runOf(self.payload(20 * 1240), 1240, lastFlags=0).packets()
        for junk in (bytes(1280), b"\x45" + bytes(1279), b"\x45\0\xff\xff" * 320):
            plaintexts = [*packets[:9], junk, *packets[9:]]
            opened = self.opener.openRun(joined(sealed(plaintexts, 4)), 0, 4)
            self.assertEqual((opened.taken, opened.dropped), (21, 1))
            self.assertEqual([item.count for item in opened.items], [9, 11])
            self.assertEqual(packetsOf(opened.items), packets)

    def test_tooShort(self) -> None:
        """Messages that hold no tag are not taken."""
        for size in (8, 16, 31):
            run = DatagramRun(bytes(size * 3), size)
            self.assertEqual(self.opener.openRun(run, 0, 0).taken, 0)
        whole = sealed(runOf(self.payload(6200), 1240).packets())
        run = DatagramRun(b"".join(whole)[:-1300], len(whole[0]))
        self.assertEqual(self.opener.openRun(run, 0, 0).taken, 4)

    def test_anyMixture(self) -> None:
        """
        Whatever is mixed, every tier gives what the plain one gives: the same
        packets, and the same runs.
        """
        for seed in range(120):
            self.checkAsPlain(mixture(Random(seed)))

    def test_anyRuns(self) -> None:
        """So it is with runs that end in any way, of any size."""
        for seed in range(120):
            self.checkAsPlain(manyRuns(Random(seed)))

    def checkAsPlain(self, plaintexts: list[bytes]) -> None:
        """Opening these gives what the plain tier gives."""
        plain = chooseTier("plain").opener(KEY)
        run = joined(sealed(plaintexts))
        mine, reference = self.opener.openRun(run, 0, 0), plain.openRun(run, 0, 0)
        self.assertEqual(packetsOf(mine.items), packetsOf(reference.items))
        self.assertEqual(describe(mine.items), describe(reference.items))
        self.assertEqual(mine.dropped, reference.dropped)
        self.assertEqual(mine.taken, len(plaintexts))


def mixture(random: Random) -> list[bytes]:
    """Packets of one size that could be runs, with changes here and there."""
    family = random.choice((4, 6))
    mss = random.choice((1240, 1220, 100)) if family == 4 else 1220
    seq = random.randrange(1 << 32)
    packets: list[bytes] = []
    while len(packets) < 40:
        count = random.randrange(1, 20)
        builder = builderOf(family, random.choice((1000, 1000, 1000, 1001)))
        packets += builder.buildRun(
            seq, 77, ACK, 500, b"", random.randbytes(count * mss), mss, 0
        )
        seq = (seq + count * mss + random.choice((0, 0, 1))) & 0xFFFFFFFF
    for _ in range(random.randrange(6)):
        where = random.randrange(len(packets))
        changed = bytearray(packets[where])
        changed[random.randrange(min(len(changed), 64))] ^= 1 << random.randrange(8)
        packets[where] = bytes(changed)
    return packets


def identified(packet: bytes, number: int) -> bytes:
    """An IPv4 packet, whose identification was zero, with another one."""
    changed = bytearray(packet)
    number &= 0xFFFF
    changed[4:6] = number.to_bytes(2, "big")
    total = int.from_bytes(changed[10:12], "big") - number
    changed[10:12] = (total % 65535).to_bytes(2, "big")
    return bytes(changed)


def manyRuns(random: Random) -> list[bytes]:
    """Plaintexts with runs that end in any way, one behind the other."""
    family = random.choice((4, 6))
    mss = random.choice((1228, 1208, 1205, 100, 31))
    options = random.choice((b"", STAMPS)) if mss < 1228 or family == 4 else b""
    numbers = random.random() < 0.5 and family == 4
    seq = random.randrange(1 << 32)
    packets: list[bytes] = []
    while len(packets) < 60:
        size = max(random.choice((1, 2, 5, 12, 30)) * mss - random.choice((0, 7)), 1)
        packets += builderOf(family).buildRun(
            seq,
            77,
            ACK,
            500,
            options,
            random.randbytes(size),
            mss,
            random.choice((0, PSH)),
        )
        seq = (seq + size) & 0xFFFFFFFF
    if numbers:
        packets = [identified(packet, at) for at, packet in enumerate(packets, 999)]
    room = max(map(len, packets))
    room += -room % 16
    return [packet + random.randbytes(room - len(packet)) for packet in packets]


def describe(items) -> list:
    """What runs there are."""
    return [
        item
        if isinstance(item, bytes)
        else (item.count, item.seq, item.ack, item.flags, item.window, item.payload)
        for item in items
    ]


class PlainTests(TierMixin, SynchronousTestCase):
    """The plain tier."""

    name = "plain"

    def test_builtPackets(self) -> None:
        """The reference makes segments that parse to what was asked for."""
        run = runOf(self.payload(9000), 1240)
        at = 0
        for packet in run.packets():
            segment = parseTCP(packet, 20, len(packet))
            self.assertEqual(segment.payload, run.payload[at : at + 1240])
            self.assertEqual(segment.seq, 1000 + at)
            at += 1240


class FastTests(TierMixin, SynchronousTestCase):
    """The tier on NumPy."""

    name = "fast"

    def test_tables(self) -> None:
        """
        Room is used again once nobody has anything of it, and not before.
        """
        from tsrt.dataplane.fast import Desk, Messages, Plaintexts

        desk = Desk()
        first = desk.table(Messages, 10, 1312)
        self.assertIs(desk.table(Messages, 64, 1312), first)
        self.assertIsNot(desk.table(Messages, 65, 1312), first)
        self.assertIsNot(desk.table(Messages, 10, 1311), first)
        self.assertIsNot(desk.table(Plaintexts, 10, 1312), first)
        lent = first.lend(5000)
        part = lent[1000:1001]
        del lent
        other = desk.table(Messages, 10, 1312)
        self.assertIsNot(other, first)
        del part
        self.assertIs(desk.table(Messages, 10, 1312), first)

    def test_keptTables(self) -> None:
        """Only so many are kept."""
        from tsrt.dataplane.fast import Desk, Messages

        desk = Desk()
        made = [desk.table(Messages, 1, size) for size in range(100, 100 + desk.MOST)]
        self.assertIs(desk.table(Messages, 1, 100), made[0])
        desk.table(Messages, 1, 50)
        self.assertIs(desk.table(Messages, 1, 101), made[1])
        self.assertIsNot(desk.table(Messages, 1, 100), made[0])


class CompiledTests(TierMixin, SynchronousTestCase):
    """The compiled tier."""

    name = "compiled"

    def test_lock(self) -> None:
        """
        Other threads of the program go on while a run is sealed, and while one is
        opened: each call lets go of the interpreter's lock.
        """
        run = runOf(bytes(1240 * 700), 1240)
        datagrams = joined(self.sealer.sealRun(run, PREFIX, 0, 1280).messages())
        # Nobody has to give it up otherwise.
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(60)

        def goesOn(call: Callable[[], object]) -> bool:
            begun, done = threading.Event(), threading.Event()

            def work() -> None:
                begun.set()
                call()
                done.set()

            thread = threading.Thread(target=work)
            thread.start()
            begun.wait()
            isOn = not done.is_set()
            thread.join()
            return isOn

        for call in (
            lambda: self.sealer.sealRun(run, PREFIX, 0, 1280),
            lambda: self.opener.openRun(datagrams, 0, 0),
        ):
            self.assertTrue(any(goesOn(call) for _ in range(20)))


class ChoiceTests(SynchronousTestCase):
    """Which tier is in use."""

    def choose(self, name: str | None, *, without: str = "") -> str:
        """The tier that a new interpreter takes."""
        environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
        if name is not None:
            environment[VARIABLE] = name
        program = "import sys\n"
        for module in without.split():
            program += f"sys.modules[{module!r}] = None\n"
        program += "from tsrt.dataplane.choice import TIER\nprint(TIER.name)"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    def test_named(self) -> None:
        """The environment names one."""
        self.assertEqual(self.choose("plain"), "plain")
        self.assertEqual(self.choose("fast"), "fast")

    def test_fastest(self) -> None:
        """Otherwise it is the fastest that can be had."""
        without = "tsrt.dataplane._kernel"
        self.assertEqual(self.choose(None, without=without), "fast")
        self.assertEqual(self.choose("", without=without + " numpy"), "plain")

    def test_notThere(self) -> None:
        """One that was named and cannot be had is an error that says why."""
        told = self.choose("fast", without="numpy")
        self.assertIn("NotSupported", told)
        self.assertIn("numpy", told)
        told = self.choose("warp")
        self.assertIn("compiled, fast, plain", told)

    def test_order(self) -> None:
        """The fastest comes first."""
        self.assertEqual(list(TIERS), ["compiled", "fast", "plain"])


class RunTests(SynchronousTestCase):
    """Runs can be taken apart."""

    def test_datagrams(self) -> None:
        """The last datagram may be shorter."""
        run = DatagramRun(b"aaabbbc", 3)
        self.assertEqual(run.datagrams(), [b"aaa", b"bbb", b"c"])
        self.assertEqual(run.datagrams(1), [b"bbb", b"c"])
        self.assertEqual((run.count, len(run)), (3, 7))

    def test_prefix(self) -> None:
        """A prefix is what all have."""
        one, other = b"prefix-1", b"prefix-2"
        self.assertEqual(DatagramRun((one + b"xy") * 3, 10).prefix, one)
        self.assertEqual(DatagramRun(one + b"xy" + one, 10).prefix, one)
        self.assertEqual(DatagramRun(one + b"xy" + other + b"xy", 10).prefix, b"")
        self.assertEqual(DatagramRun(one + b"xy" + one[:7], 10).prefix, b"")

    def test_mixed(self) -> None:
        """Lists of both are flattened in order."""
        run = DatagramRun(b"aabb", 2)
        self.assertEqual(datagramsOf([b"x", run, b"y"]), [b"x", b"aa", b"bb", b"y"])
        self.assertEqual(countOf([b"x", run, b"y"]), 4)
        segments = runOf(bytes(3000), 1240)
        self.assertEqual(packetsOf([segments]), segments.packets())
        self.assertEqual(len(segments), sum(map(len, segments.packets())))

    def test_slices(self) -> None:
        """A sealed run is cut for sends that take less, in whole messages."""
        for name in TIERS:
            try:
                tier = chooseTier(name)
            except NotSupported:
                continue
            run = runOf(bytes(100 * 1240 + 7), 1240)
            made = tier.sealer(KEY).sealRun(run, PREFIX, 0, 1280)
            whole = messagesOf([made])
            pieces = made.slices(64, 65507)
            self.assertEqual([count for _, count, _ in pieces], [49, 49, 3])
            for buffers, _, size in pieces:
                self.assertEqual(sum(map(len, buffers)), size)
            parts = [bytes(b) for buffers, _, _ in pieces for b in buffers]
            self.assertEqual(b"".join(parts), b"".join(whole))
            self.assertEqual(len(made.slices(200, 1 << 20)), 1)

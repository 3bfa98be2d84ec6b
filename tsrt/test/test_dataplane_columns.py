"""Long runs, whose headers the plain tier looks at byte by byte."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.dataplane import coalesce as module
from tsrt.dataplane.coalesce import coalesce
from tsrt.dataplane.plain import inOrder
from tsrt.dataplane.runs import Arrived, ArrivedRun, DatagramRun
from tsrt.wire.tcp import ACK, PSH, SegmentBuilder, encodeOptions

COUNT, MSS = 40, 1228
ENDS = (("100.64.0.1", "100.64.0.2"), ("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2"))


def seen(items: list[Arrived]) -> list[object]:
    """What can be told of some items."""
    return [
        item
        if isinstance(item, bytes)
        else (item.packets(), item.payload, item.count, item.seq, item.flags)
        for item in items
    ]


class ColumnsTests(SynchronousTestCase):
    """The short way and the long one."""

    def packets(self, ends: tuple[str, str], last: int = MSS) -> list[bytes]:
        here, there = map(parseAddress, ends)
        payload = Random(5).randbytes((COUNT - 1) * MSS + last)
        options = encodeOptions(timestamps=(7, 9))
        builder = SegmentBuilder(here, 1000, there, 80)
        return builder.buildRun(
            0xFFFFFF00, 2, ACK, 500, options, payload, MSS, lastFlags=PSH
        )

    def check(self, packets: list[bytes]) -> list[Arrived]:
        """Both ways find the same."""
        short, dropped = coalesce(packets)
        self.patch(module, "_WORTH_COLUMNS", len(packets) + 1)
        long, alsoDropped = coalesce(packets)
        self.patch(module, "_WORTH_COLUMNS", 24)
        self.assertEqual(seen(short), seen(long))
        self.assertEqual(dropped, alsoDropped)
        return short

    def test_whole(self) -> None:
        """A run that is in order is one run, whatever its last packet is like."""
        for ends in ENDS:
            for last in (MSS, 17):
                packets = self.packets(ends, last)
                for padding in (b"", bytes(5)):
                    (run,) = self.check([packet + padding for packet in packets])
                    assert isinstance(run, ArrivedRun)
                    self.assertEqual(run.packets(), packets)

    def test_everyByteOfAHeader(self) -> None:
        """Whatever byte of a header is another one, both ways see it."""
        for ends in ENDS:
            packets = self.packets(ends)
            size = len(packets[0]) - MSS
            for at in range(size):
                for which in (1, 20, COUNT - 2):
                    changed = bytearray(packets[which])
                    changed[at] ^= 0x10
                    self.check(
                        [*packets[:which], bytes(changed), *packets[which + 1 :]]
                    )

    def test_damagedPayload(self) -> None:
        """A wrong checksum ends the run."""
        packets = self.packets(ENDS[0])
        packets[30] = packets[30][:-1] + bytes((packets[30][-1] ^ 1,))
        run, *rest = self.check(packets)
        assert isinstance(run, ArrivedRun)
        self.assertEqual(run.count, 30)
        self.assertTrue(rest)

    def test_shorterInTheMiddle(self) -> None:
        """So does a packet of another length."""
        packets = self.packets(ENDS[0])
        packets[30] = packets[30][:-8]
        self.check(packets)
        packets[30] += bytes(16)
        self.check(packets)


class InOrderTests(SynchronousTestCase):
    """Counters of a run."""

    def messages(self, counters: list[int], last: int = 64) -> DatagramRun:
        data = b"".join(
            b"\x04\0\0\0abcd" + counter.to_bytes(8, "little") + bytes(48)
            for counter in counters
        )
        return DatagramRun(memoryview(data)[: len(data) - 64 + last], 64)

    def test_inOrder(self) -> None:
        """All that count up, from any counter on."""
        for begin in (0, 250, (1 << 32) - 7, 1 << 60):
            run = self.messages([*range(begin, begin + 20)])
            self.assertEqual(inOrder(run, 0, begin), 20)
            self.assertEqual(inOrder(run, 5, begin + 5), 15)
            self.assertEqual(inOrder(run, 5, begin), 0)

    def test_outOfOrder(self) -> None:
        """Up to the first that does not."""
        for odd in (0, 7, 19):
            counters = [*range(300, 320)]
            counters[odd] += 256
            self.assertEqual(inOrder(self.messages(counters), 0, 300), odd)

    def test_tooShortForACounter(self) -> None:
        """A last one without a counter is left out, one with a counter is not."""
        counters = [*range(20)]
        self.assertEqual(inOrder(self.messages(counters, 15), 0, 0), 19)
        self.assertEqual(inOrder(self.messages(counters, 16), 0, 0), 20)

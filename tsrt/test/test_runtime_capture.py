"""Tests of L{tsrt.wire.pcap}, L{tsrt.runtime.capture} and L{tsrt.services.capture}."""

from __future__ import annotations

import io
import os
import stat
import struct
from pathlib import Path

from twisted.internet.interfaces import IConsumer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tsrt.errors import ConfigError
from tsrt.runtime.capture import CaptureHub, Hook
from tsrt.services.capture import CaptureService
from tsrt.testing.tailnet import TestTailnet
from tsrt.wire import pcap

HEADER = bytes.fromhex("d4c3b2a1 0200 0400 00000000 00000000 ffff0000 93000000")
TIME = 1_700_000_000.25


def read(data: bytes) -> list[tuple[float, int, bytes]]:
    """The packets of a capture: when, by which path, and what."""
    assert data[:24] == HEADER
    packets, at = [], 24
    while at < len(data):
        seconds, micros, length, whole = struct.unpack_from("<IIII", data, at)
        assert length == whole
        at += 16
        path, source, destination = struct.unpack_from("<HBB", data, at)
        assert (source, destination) == (0, 0)
        packets.append((seconds + micros / 1e6, path, data[at + 4 : at + length]))
        at += length
    return packets


@implementer(IConsumer)
class SlowConsumer:
    """Something that can pause whoever writes to it."""

    def __init__(self) -> None:
        self.data = b""
        self.producer = None

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """See L{IConsumer}."""
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        """See L{IConsumer}."""
        self.producer = None

    def write(self, data: bytes) -> None:
        """See L{IConsumer}."""
        self.data += data


class FullDisk(io.BytesIO):
    """Takes the header, and nothing more."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Take bytes, perhaps."""
        if self.tell():
            raise OSError(28, "No space left on device")
        return super().write(data)


class FormatTests(SynchronousTestCase):
    """The bytes."""

    def test_bytes(self) -> None:
        """Little-endian, with the path in front of each packet."""
        self.assertEqual(pcap.fileHeader(), HEADER)
        self.assertEqual(
            pcap.records(TIME, pcap.FROM_PEER, [b"abc"]),
            bytes.fromhex("00f15365 90d00300 07000000 07000000 0100 00 00") + b"abc",
        )

    def test_many(self) -> None:
        """A batch is one record after the other."""
        data = pcap.records(TIME, pcap.FROM_LOCAL, [b"a", b"", b"ccc"])
        self.assertEqual([p for _, _, p in read(HEADER + data)], [b"a", b"", b"ccc"])


class HubTests(SynchronousTestCase):
    """Captures come and go; the data path has a hook while there is one."""

    def setUp(self) -> None:
        self.hub = CaptureHub(lambda: TIME)
        self.hook: Hook | None = None
        self.hub.attach(self.setHook)

    def setHook(self, hook: Hook | None) -> None:
        """What the data path calls."""
        self.hook = hook

    def feed(self, *packets: bytes) -> None:
        """Packets come by."""
        if self.hook is not None:
            self.hook(1, list(packets))

    def test_several(self) -> None:
        """Each gets what comes between its beginning and its end."""
        one, two = io.BytesIO(), io.BytesIO()
        self.feed(b"before")
        first = self.hub.begin(one)
        self.feed(b"a")
        second = self.hub.begin(two)
        self.feed(b"b", b"c")
        first.stop()
        first.stop()
        self.feed(b"d")
        second.stop()
        self.assertIsNone(self.hook)
        self.assertEqual([p for _, _, p in read(one.getvalue())], [b"a", b"b", b"c"])
        self.assertEqual(
            read(two.getvalue()), [(TIME, 1, b"b"), (TIME, 1, b"c"), (TIME, 1, b"d")]
        )
        self.assertEqual(first.counters.written, 3)
        self.assertFalse(first.isActive)

    def test_overRestarts(self) -> None:
        """The next data path feeds the same captures."""
        file = io.BytesIO()
        self.hub.begin(file)
        self.hub.attach(None)
        self.hook = None
        self.hub.attach(self.setHook)
        self.feed(b"later")
        self.assertEqual(len(read(file.getvalue())), 1)

    def test_slowConsumer(self) -> None:
        """What comes while the consumer pauses is counted and not kept."""
        consumer = SlowConsumer()
        capture = self.hub.begin(consumer)
        self.assertIs(consumer.producer, capture)
        self.feed(b"a")
        capture.pauseProducing()
        self.feed(b"b", b"c")
        capture.resumeProducing()
        self.feed(b"d")
        self.assertEqual([p for _, _, p in read(consumer.data)], [b"a", b"d"])
        self.assertEqual(capture.counters.droppedSlow, 2)
        capture.stopProducing()
        self.assertIsNone(self.hook)
        self.assertIsNone(consumer.producer)

    def test_fullDisk(self) -> None:
        """A target that fails ends its capture, and nothing else."""
        other = io.BytesIO()
        capture = self.hub.begin(FullDisk())
        self.hub.begin(other)
        self.feed(b"a")
        self.feed(b"b")
        self.assertFalse(capture.isActive)
        self.assertIn("No space", str(capture.error))
        self.assertEqual(len(read(other.getvalue())), 2)

    def test_file(self) -> None:
        """A file is for this user only, and can be read while it grows."""
        path = Path(self.mktemp())
        capture = self.hub.begin(path)
        self.feed(b"a")
        self.assertEqual(len(read(path.read_bytes())), 1)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        capture.stop()
        self.feed(b"b")
        self.assertEqual(len(read(path.read_bytes())), 1)

    def test_noFile(self) -> None:
        """A file that cannot be written is an error, and no capture."""
        for path in ("/no/such/directory/x.pcap", os.curdir):
            error = self.assertRaises(ConfigError, self.hub.begin, path)
            self.assertIn("cannot be written", str(error))
        self.assertIsNone(self.hook)

    def test_service(self) -> None:
        """The service has a capture as long as it runs."""
        path, failures = Path(self.mktemp()), []
        service = CaptureService(self.hub.begin, path, failures.append)
        service.startService()
        self.feed(b"a")
        service.stopService()
        self.assertIsNone(self.hook)
        self.assertEqual(len(read(path.read_bytes())), 1)
        wrong = CaptureService(self.hub.begin, Path("/no/such/x"), failures.append)
        wrong.startService()
        wrong.stopService()
        self.assertIn("/no/such/x", str(failures[0]))


class NodeTests(SynchronousTestCase):
    """A whole node."""

    def test_node(self) -> None:
        """Both directions, in clear text, from before the start to the stop."""
        net = TestTailnet(nodes=["a", "b"])
        self.addCleanup(net.close)
        file = io.BytesIO()
        node = net["a"]
        net.wait(node.stopService())
        capture = node.capturePcap(file)
        node.startService()
        net.waitUp("a")
        net.wait(node.ping("b"))
        packets = read(file.getvalue())
        self.assertEqual({path for _, path, _ in packets}, {0, 1})
        for when, path, packet in packets:
            self.assertLess(abs(when - net.clock.seconds()), 10)
            self.assertEqual(packet[0], 0x45)
            own = bytes(map(int, node.status.addresses[0].split(".")))
            self.assertIn(own, (packet[12:16] if path == 0 else packet[16:20],))
        capture.stop()
        before = len(file.getvalue())
        net.wait(node.ping("b"))
        self.assertEqual(len(file.getvalue()), before)

"""
Counting what the interpreter does for packets: a number that no other work on the
machine changes.

What a run costs may hardly grow with its segments, and what a lone segment costs is
most of what a round trip takes.
"""

from __future__ import annotations

from collections.abc import Callable

from tsrt.dataplane.choice import TIER
from tsrt.dataplane.runs import messagesOf
from tsrt.path.places import Relayed
from tsrt.test.walking import WalkTestCase, Watch

FEW, MANY = 20, 250

PER_SEGMENT = {
    "compiled": (0.1, 0.1, 1.1),
    "fast": (0.1, 0.1, 1.1),
    "plain": (1.1, 1.1, 2.1),
}
"""
Python calls for each further segment of a run: as it leaves, as it comes in a run, and
as it comes by itself and is joined to others.  The plain tier computes checksums one by
one.
"""

PER_FRAME = (1.1, 7.0)
"""The same between a relay's stream and the tunnel: as it leaves, and as it comes."""

PER_DATAGRAM = (33.0, 31.0)
"""Python calls for each further datagram of UDP: as it leaves, and as it comes."""

LONE = (300, 305)
"""Python calls for a lone segment, both ends together: on the direct path, by relay."""

SLACK = 1.04


class Counts(WalkTestCase):
    """What is counted on each path."""

    def stream(self, segments: int, size: int = 1200) -> tuple[Watch, Watch]:
        """
        Send segments of a stream from C{a} to C{b}.

        @param size: bytes in each, more or less.
        @return: what was done to send them, and to receive them.
        """
        self.widen()
        before = len(self.server.data)
        data = b"s" * (size * segments)
        out, into, _ = self.walk(lambda: self.client.transport.write(data))
        self.assertEqual(len(self.server.data) - before, len(data))
        mss = self.client.transport._flow._tcb.sender.mss
        self.assertEqual(self.packets(), -(-len(data) // mss))
        return out, into

    def datagrams(self, count: int) -> tuple[Watch, Watch]:
        """Send datagrams, all in one turn."""

        def write() -> None:
            for _ in range(count):
                self.out.write(b"x" * 100, self.target)

        before = self.arrived.count
        out, into, _ = self.walk(write)
        self.assertEqual(self.arrived.count - before, count)
        return out, into

    def further(
        self, work: Callable[[int], tuple[Watch, ...]], limits: tuple[float, ...]
    ) -> None:
        """Each further segment or datagram may cost so much, and nothing dear."""
        few, many = work(FEW), work(MANY)
        for less, more, limit in zip(few, many, limits, strict=True):
            self.assertLessEqual((more.calls - less.calls) / (MANY - FEW), limit)
            self.assertEqual(more.dear, less.dear)
            self.assertLessEqual(more.scheduled, less.scheduled + 1)

    def lone(self, limit: int) -> None:
        """A byte leaves in the turn of its write, and costs no more than it did."""
        costs = []
        for _ in range(3):
            out, into = self.stream(1, 1)
            costs.append(out.calls + into.calls)
        self.assertLessEqual(min(costs), limit * SLACK)


class DirectCounts(Counts):
    """On the direct path, from a transport to the socket and back."""

    def test_segments(self) -> None:
        """Runs stay runs all the way."""
        out, run, _ = PER_SEGMENT[TIER.name]
        self.further(self.stream, (out, run))

    def test_datagrams(self) -> None:
        """Datagrams are what they are; but what is dear is done for all of them."""
        self.further(self.datagrams, PER_DATAGRAM)

    def test_lone(self) -> None:
        """A lone segment."""
        self.lone(LONE[0])


class RelayedCounts(Counts):
    """By a relay, from a transport to the relay's stream and back."""

    direct = False

    def singles(self, segments: int) -> tuple[Watch, Watch]:
        """
        Send a run from data path to data path: it arrives as single messages.

        @return: as L{stream} does.
        """
        self.widen()
        before = len(self.server.data)
        data = bytes(1200 * segments)
        messages: list[bytes] = []
        path = self.a.engine.datapath
        usual = path._transmit

        def transmit(peer: bytes, items: object) -> bool:
            messages.extend(messagesOf(items))
            return True

        def leave() -> None:
            self.client.transport.write(data)
            self.tailnet.clock.advance(0)

        source = self.a.key
        path._transmit = transmit
        out = Watch(leave)
        path._transmit = usual
        into = Watch(
            lambda: self.b.engine.datapath.receive(
                source, messages, Relayed(900, source)
            )
        )
        self.assertEqual(len(self.server.data) - before, len(data))
        self.assertGreaterEqual(len(messages), segments * 9 // 10)
        self.tailnet.settle()
        return out, into

    def test_singles(self) -> None:
        """Messages that come one by one are joined first of all."""
        out, _, single = PER_SEGMENT[TIER.name]
        self.further(self.singles, (out, single))

    def test_frames(self) -> None:
        """The relay's protocol puts a frame around each, and takes it off."""
        out, _, single = PER_SEGMENT[TIER.name]
        more, less = PER_FRAME
        self.further(self.stream, (out + more, single + less))

    def test_lone(self) -> None:
        """A lone segment."""
        self.lone(LONE[1])

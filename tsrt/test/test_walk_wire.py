"""
Watching packets walk, all the way: from what an application writes to what the system
is given, and from what the system gives to what an application is told.

Not once does that enter a Deferred, a coroutine, a state machine of Automat, a logger,
an address object or an attrs object.  CI has each tier of the data plane walk.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter
from typing import Protocol

from attrs import frozen
from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python import log
from twisted.trial.unittest import SynchronousTestCase

from tsrt.test.walking import WalkTestCase, Watch

DATAGRAMS = 40
SEGMENTS = 300

SCHEDULED = 3
"""Delayed calls of a turn: its end, and the next timers of stack and path."""


class Walks(WalkTestCase):
    """What is to hold on each path."""

    def assertPlain(self, *seen: Watch) -> None:
        """Nothing dear was done, and what is done once in a turn was."""
        for watch in seen:
            self.assertEqual(watch.dear, Counter())
            self.assertLessEqual(watch.contexts, 1)
            self.assertLessEqual(watch.scheduled, SCHEDULED)

    def sendStream(self, size: int) -> None:
        """Walk with the bytes of a stream; all of them arrive."""
        before = len(self.server.data)
        out, into, back = self.walk(lambda: self.client.transport.write(bytes(size)))
        self.assertEqual(len(self.server.data) - before, size)
        self.assertPlain(out, into, back)
        # It really was this way that they came.
        self.assertEqual((out.contexts, into.contexts), (0, 1))

    def sendDatagrams(self, count: int) -> None:
        """Walk with datagrams; all of them arrive."""
        before = self.arrived.count

        def write() -> None:
            for _ in range(count):
                self.out.write(bytes(500), self.target)

        out, into, back = self.walk(write)
        self.assertEqual(self.arrived.count - before, count)
        self.assertEqual(self.packets(), count)
        self.assertPlain(out, into, back)
        self.assertEqual((out.contexts, into.contexts), (0, 1))
        # The watch saw each of them.
        self.assertGreater(min(out.calls, into.calls), 10 * count)


class DirectWalks(Walks):
    """Down to the socket of the direct path."""

    def assertWrites(self, *shapes: bool) -> None:
        """
        The last walk was made by such writes.

        @param shapes: of each, whether it was to be cut into datagrams.
        """
        self.assertEqual([bool(each) for _, each, _ in self.written], [*shapes])

    def test_segment(self) -> None:
        """Lone segments, one after the other."""
        for _ in range(3):
            self.sendStream(1)
            self.assertWrites(False)
            self.assertEqual(self.packets(), 1)

    def test_segments(self) -> None:
        """Runs of segments, and what acknowledges them."""
        self.widen()
        self.sendStream(SEGMENTS * 1200)
        self.assertEqual({bool(each) for _, each, _ in self.written}, {True})
        self.assertGreater(self.packets(), SEGMENTS * 9 // 10)

    def test_segments6(self) -> None:
        """The same by addresses of IPv6."""
        self.connect(self.tailnet["b"].status.addresses[1])
        self.tailnet.elapse(1)
        self.test_segments()

    def test_datagram(self) -> None:
        """Lone datagrams, one after the other."""
        for _ in range(3):
            self.sendDatagrams(1)
            self.assertWrites(False)

    def test_datagrams(self) -> None:
        """Datagrams of one size, which leave and arrive as one."""
        self.sendDatagrams(DATAGRAMS)
        self.assertWrites(True)


class RelayedWalks(Walks):
    """Down to the frames that a relay gets and sends."""

    direct = False

    def test_segment(self) -> None:
        """Lone segments, one after the other."""
        for _ in range(3):
            self.sendStream(1)
            self.assertEqual((self.packets(), len(self.frames)), (1, 1))

    def test_segments(self) -> None:
        """Runs of segments: many frames in one write."""
        self.widen()
        self.sendStream(SEGMENTS * 1200)
        self.assertGreater(self.packets(), SEGMENTS * 9 // 10)
        self.assertLess(len(self.frames), 5)

    def test_datagram(self) -> None:
        """Lone datagrams, one after the other."""
        for _ in range(3):
            self.sendDatagrams(1)
            self.assertEqual(len(self.frames), 1)

    def test_datagrams(self) -> None:
        """Datagrams of one turn: one write."""
        self.sendDatagrams(DATAGRAMS)
        self.assertEqual(len(self.frames), 1)


@frozen
class Frozen:
    """An attrs object."""

    number: int


class Light(Protocol):
    """A machine of Automat."""

    def flip(self) -> None:
        """Its one input."""


def light() -> Light:
    """One that is on and stays so."""
    builder = TypeMachineBuilder(Light, list)
    on = builder.state("on")
    on.upon(Light.flip).loop().returns(None)
    return builder.build()([])


class WatchTests(SynchronousTestCase):
    """The watch finds what it is to find."""

    def test_finds(self) -> None:
        """Each of the dear things is seen when it is done once."""

        async def nothing() -> None:
            pass

        def send() -> None:
            try:
                nothing().send(None)
            except StopIteration:
                pass

        for action in (
            lambda: Deferred().callback(None),
            lambda: succeed(1),
            lambda: Logger(namespace="tsrt.test").debug("a word"),
            lambda: log.msg("a word"),
            lambda: logging.getLogger("tsrt.test").isEnabledFor(10),
            lambda: ipaddress.ip_address("192.0.2.1"),
            lambda: Frozen(1),
            light().flip,
            send,
        ):
            self.assertGreater(Watch(action).dear.total(), 0)
        self.assertEqual(Watch(lambda: None).dear, Counter())

    def test_convention(self) -> None:
        """What Twisted does once in a turn is counted for itself."""
        seen = Watch(lambda: log.callWithContext({"system": "-"}, int))
        self.assertEqual((seen.contexts, seen.dear), (1, Counter()))

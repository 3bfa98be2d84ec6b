"""
Tests of L{tsrt.underlay.netlink}.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable

from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.test.test_wire_rtnetlink import address, attribute, link, message
from tsrt.test.test_wire_rtnetlink import route as routeMessage
from tsrt.underlay.linkstate import DefaultRoute
from tsrt.underlay.netlink import (
    READS,
    NetlinkWatcher,
    isRelevant,
    kernelRoutes,
    makeSocket,
    preferredSources,
)
from tsrt.wire.rtnetlink import GROUPS, IFF_LOOPBACK, buildRouteRequest, parseMessages

KERNEL = (0, GROUPS)


class FakeSocket:
    """A netlink socket that a test writes to."""

    def __init__(self, answer: Callable[[bytes], list[bytes]] | None = None) -> None:
        self.incoming: list[tuple[bytes, tuple[int, int]] | OSError] = []
        self.asked: list[bytes] = []
        self.bound: tuple[int, int] | None = None
        self.isClosed = False
        self._answer = answer

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def bind(self, where: tuple[int, int]) -> None:
        """See L{socket.socket}."""
        self.bound = where

    def fileno(self) -> int:
        """See L{socket.socket}."""
        return 77

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        """See L{socket.socket}."""
        if not self.incoming:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        found = self.incoming.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    def sendto(self, data: bytes, where: tuple[int, int]) -> None:
        """See L{socket.socket}."""
        self.asked.append(data)
        if self._answer is not None:
            self.incoming += [(answer, (0, 0)) for answer in self._answer(data)]

    def close(self) -> None:
        """See L{socket.socket}."""
        self.isClosed = True


def refuse() -> FakeSocket:
    """A system that gives out no sockets."""
    raise PermissionError(errno.EPERM, "not you")


class WatcherTests(SynchronousTestCase):
    """What is told of, and what is not."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.socket = FakeSocket()
        self.events = 0
        self.watcher = NetlinkWatcher(
            self.reactor, self.event, makeSocket=lambda: self.socket
        )

    def event(self) -> None:
        """There are news."""
        self.events += 1

    def told(self, *incoming: bytes | OSError, sender: tuple[int, int] = KERNEL) -> int:
        """How often a read event is told of."""
        self.socket.incoming = [
            found if isinstance(found, OSError) else (found, sender)
            for found in incoming
        ]
        self.events = 0
        self.watcher.doRead()
        return self.events

    def test_startAndStop(self) -> None:
        """It reads while it is started."""
        self.watcher.stop()
        self.assertTrue(self.watcher.start())
        self.assertTrue(self.watcher.start())
        self.assertEqual(self.socket.bound, (0, GROUPS))
        self.assertEqual(self.reactor.getReaders(), [self.watcher])
        self.assertEqual(self.watcher.fileno(), 77)
        self.assertEqual(self.watcher.logPrefix(), "netlink")
        self.watcher.stop()
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertTrue(self.socket.isClosed)
        self.assertEqual(self.watcher.fileno(), -1)
        self.assertEqual(self.told(link()), 0)

    def test_refused(self) -> None:
        """Where it may not listen it does not, and leaves nothing open."""
        watcher = NetlinkWatcher(self.reactor, self.event, makeSocket=refuse)
        self.assertFalse(watcher.start())

        def bind(where: tuple[int, int]) -> None:
            raise PermissionError(errno.EPERM, "not you")

        self.socket.bind = bind
        self.assertFalse(self.watcher.start())
        self.assertFalse(self.watcher.isWatching)
        self.assertTrue(self.socket.isClosed)
        self.assertEqual(self.reactor.getReaders(), [])

    def test_once(self) -> None:
        """All that comes in one turn is told of once."""
        self.watcher.start()
        self.assertEqual(self.told(link(), link(), address(20, "192.0.2.1")), 1)
        self.assertEqual(self.socket.incoming, [])
        self.assertEqual(self.told(), 0)

    def test_irrelevant(self) -> None:
        """Most of what happens on a router does not matter."""
        self.watcher.start()
        for data in (
            address(20, "fe80::1"),
            address(20, "100.64.0.1"),
            address(20, "127.0.0.1"),
            routeMessage(24, 2, 24),
            link(flags=IFF_LOOPBACK | 1),
            message(2, bytes(4)),
            b"nonsense",
            b"",
        ):
            self.assertEqual(self.told(data), 0, data)
        for data in (
            address(21, "192.0.2.1"),
            routeMessage(24, 2, 0),
            routeMessage(25, 10, 1),
            link(17),
        ):
            self.assertEqual(self.told(b"nonsense", data), 1, data)

    def test_onlyTheKernel(self) -> None:
        """Other processes are not believed."""
        self.watcher.start()
        self.assertEqual(self.told(link(), sender=(4711, 0)), 0)

    def test_flood(self) -> None:
        """One turn reads so much and no more."""
        self.watcher.start()
        self.assertEqual(self.told(*[link()] * (READS + 5)), 1)
        self.assertEqual(len(self.socket.incoming), 5)

    def test_overflow(self) -> None:
        """What was lost may have been news."""
        self.watcher.start()
        self.assertEqual(self.told(OSError(errno.ENOBUFS, "too much"), b""), 1)
        self.assertTrue(self.watcher.isWatching)
        self.assertEqual(self.socket.incoming, [])

    def test_broken(self) -> None:
        """A socket that fails is given up, quietly."""
        self.watcher.start()
        self.assertEqual(self.told(OSError(errno.EBADF, "broken"), link()), 1)
        self.assertFalse(self.watcher.isWatching)
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertTrue(self.watcher.start())
        self.watcher.connectionLost(Failure(OSError("lost")))
        self.assertFalse(self.watcher.isWatching)

    def test_requestsAreNoNews(self) -> None:
        """What is neither an address, a route nor a link is nothing."""
        [(_, error)] = parseMessages(message(2, struct.pack("=i", -1)))
        self.assertFalse(isRelevant(error))


class RouteTests(SynchronousTestCase):
    """Asking which way packets go."""

    def routes(self, *answers: list[bytes]) -> tuple[DefaultRoute, ...]:
        """The routes of a kernel that answers so, family by family."""
        waiting = list(answers)
        self.socket = FakeSocket(lambda request: waiting.pop(0))
        return kernelRoutes(lambda: self.socket, {3: "eth0"}.__getitem__)

    def answer(self, family: int, sequence: int, *attributes: bytes, type=1) -> bytes:
        """A route with the number of its request."""
        data = bytearray(routeMessage(24, family, 0, *attributes, type=type))
        data[8:12] = struct.pack("=I", sequence)
        return bytes(data)

    def test_both(self) -> None:
        """Each family is asked for, with its own number."""
        gateway, source = parseAddress("192.0.2.1"), parseAddress("192.0.2.2")
        four = self.answer(
            2,
            4,
            attribute(4, struct.pack("=I", 3)),
            attribute(5, gateway),
            attribute(7, source),
        )
        refused = bytearray(message(2, struct.pack("=i", -101)))
        refused[8:12] = struct.pack("=I", 6)
        self.assertEqual(
            self.routes([link(), four], [bytes(refused)]),
            (DefaultRoute(4, "eth0", gateway, source),),
        )
        google = parseAddress("8.8.8.8"), parseAddress("2001:4860:4860::8888")
        self.assertEqual(
            self.socket.asked,
            [buildRouteRequest(google[0], 4), buildRouteRequest(google[1], 6)],
        )
        self.assertTrue(self.socket.isClosed)

    def test_nowhere(self) -> None:
        """A route that refuses is no way."""
        answers = [self.answer(2, 4, type=7)], [self.answer(10, 6, type=6)]
        self.assertEqual(self.routes(*answers), ())

    def test_silent(self) -> None:
        """A kernel that does not answer is an error, soon."""
        self.assertRaises(OSError, self.routes, [])
        self.assertTrue(self.socket.isClosed)
        self.assertRaises(OSError, self.routes, [link()] * READS)
        self.assertRaises(PermissionError, kernelRoutes, refuse)

    def test_namelessInterface(self) -> None:
        """An interface that is gone meanwhile has only its number."""

        def nameOf(index: int) -> str:
            raise OSError("gone")

        sock = FakeSocket(
            lambda request: [
                self.answer(2 if len(request) == 36 else 10, 4 if len(request) == 36
                            else 6, attribute(4, struct.pack("=I", 9)))
            ]
        )  # fmt: skip
        found = kernelRoutes(lambda: sock, nameOf)
        self.assertEqual([route.interface for route in found], ["9", "9"])


class RealTests(SynchronousTestCase):
    """What this machine says."""

    def test_kernel(self) -> None:
        """The kernel answers, and agrees with what sockets get."""
        try:
            makeSocket().close()
        except OSError as error:
            raise SkipTest(f"no netlink here: {error}") from error
        routes = kernelRoutes()
        sources = {route.family: route.source for route in preferredSources()}
        for route in routes:
            self.assertIn(route.interface, os.listdir("/sys/class/net"))
            if route.source is not None:
                self.assertEqual(sources[route.family], route.source)

    def test_elsewhere(self) -> None:
        """A system without netlink says so."""
        self.patch(socket, "AF_NETLINK", None)
        self.assertRaises(OSError, makeSocket)

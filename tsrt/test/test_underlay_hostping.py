"""Pings of this host: by socket, by program, or not at all."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tsrt.errors import NotSupported
from tsrt.failures import TailnetTimeout
from tsrt.interfaces import IHostPinger
from tsrt.underlay import hostping
from tsrt.underlay.hostping import HostPinger
from tsrt.wire.icmp import V4_ECHO_REPLY, V4_ECHO_REQUEST, buildICMP, parseICMP


class FakeSocket:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, str]] = []
        self.isClosed = False
        self.error: OSError | None = None

    def send(self, message: bytes, address: str) -> None:
        """See L{PingSocket}."""
        if self.error is not None:
            raise self.error
        self.sent.append((message, address))

    def close(self) -> None:
        """See L{PingSocket}."""
        self.isClosed = True


class BySocketTests(SynchronousTestCase):
    """Which answer is whose."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.socket = FakeSocket()
        self.pinger = HostPinger(self.clock)
        self.pinger._socket = self.socket  # type: ignore[assignment]

    def reply(self, number: int, address: str = "192.0.2.7", **changes: Any) -> None:
        """Answer a request that was sent."""
        request, _ = self.socket.sent[number]
        message = parseICMP(request, 0, len(request))
        kind = changes.get("kind", V4_ECHO_REPLY)
        payload = changes.get("payload", message.payload)
        rest = changes.get("rest", 0x1234 << 16 | message.sequence)
        answer = buildICMP(bytes(4), bytes(4), kind, 0, rest, payload)
        self.pinger._received(address, changes.get("head", b"") + answer)

    def test_interface(self) -> None:
        """It is what it says."""
        verifyObject(IHostPinger, self.pinger)

    def test_answered(self) -> None:
        """Each gets its own answer, with or without an IP header before it."""
        one = self.pinger.ping("192.0.2.7", b"one")
        two = self.pinger.ping("192.0.2.8", b"two")
        self.reply(1, "192.0.2.8", head=b"\x45" + bytes(19))
        self.successResultOf(two)
        self.assertNoResult(one)
        self.reply(0)
        self.successResultOf(one)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_notItsOwn(self) -> None:
        """What is not quite the answer is none."""
        waiting = self.pinger.ping("192.0.2.7", b"one")
        self.reply(0, "192.0.2.8")
        self.reply(0, kind=V4_ECHO_REQUEST)
        self.reply(0, payload=b"other")
        self.reply(0, rest=99)
        self.pinger._received("192.0.2.7", b"\0")
        self.pinger._received("192.0.2.7", b"")
        self.assertNoResult(waiting)
        self.clock.advance(hostping.PATIENCE)
        self.failureResultOf(waiting, TailnetTimeout)

    def test_noWay(self) -> None:
        """The kernel says at once that there is no way."""
        self.socket.error = OSError(101, "Network is unreachable")
        failure = self.failureResultOf(
            self.pinger.ping("192.0.2.7", b""), TailnetTimeout
        )
        self.assertIn("Network is unreachable", str(failure.value))

    def test_stop(self) -> None:
        """Who waits is told; it may go on later."""
        waiting = self.pinger.ping("192.0.2.7", b"")
        gone = self.pinger.ping("192.0.2.7", b"")
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.pinger.stop()
        self.failureResultOf(waiting, CancelledError)
        self.assertTrue(self.socket.isClosed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cannot(self) -> None:
        """A reactor with neither files nor processes cannot ping."""
        pinger = HostPinger(Clock())
        failure = self.failureResultOf(pinger.ping("192.0.2.7", b""), NotSupported)
        self.assertIn("ping_group_range", failure.value.describe())


class RealTests(TestCase):
    """Loopback answers."""

    def test_host(self) -> Deferred[None]:
        """By whatever this machine permits."""
        if shutil.which("ping") is None and sys.platform != "darwin":
            raise SkipTest("this machine has no ping program")
        pinger = HostPinger(reactor)
        self.addCleanup(pinger.stop)
        return pinger.ping("127.0.0.1", b"0123456789abcdef")

    def program(self, script: str) -> HostPinger:
        """A pinger that has a program only, which is a script."""
        path = Path(self.mktemp())
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        self.patch(hostping.shutil, "which", lambda name: str(path.resolve()))
        pinger = HostPinger(reactor)
        pinger._mayUseSocket = False
        self.addCleanup(pinger.stop)
        return pinger

    async def test_program(self) -> None:
        """The program's exit says whether there was an answer."""
        if sys.platform == "win32":
            raise SkipTest("Windows has no shell scripts")
        await self.program("exit 0").ping("192.0.2.7", b"")
        with self.assertRaises(TailnetTimeout):
            await self.program("exit 1").ping("192.0.2.7", b"")

    async def test_programGetsNoNames(self) -> None:
        """Nothing but an address gets to the command line."""
        for text in ("-f", "localhost", "127.0.0.1 -f", ""):
            with self.assertRaises(ValueError):
                await self.program("exit 0").ping(text, b"")

    async def test_programKilled(self) -> None:
        """Who gives up, or stops, leaves no program behind."""
        if sys.platform == "win32":
            raise SkipTest("Windows has no shell scripts")
        pinger = self.program("exec sleep 60")
        waiting = pinger.ping("192.0.2.7", b"")
        pinger.stop()
        with self.assertRaises(TailnetTimeout):
            await waiting
        self.assertEqual(pinger._programs, set())

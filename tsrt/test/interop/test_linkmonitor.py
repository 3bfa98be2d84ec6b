"""
L{tsrt.underlay.linkmonitor} and a real kernel, in a network namespace of which
the addresses and routes are changed with C{ip}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

import tsrt
from tsrt.test.interop.namespaces import Namespace
from tsrt.test.interop.programs import Program, eventually, spawn
from tsrt.underlay.linkmonitor import INTERVAL

reactor: Any = _reactor

WITHIN = 1.5
"""Seconds within which the kernel's news are told; the regular look alone takes
longer most of the time."""


def whySkip() -> str | None:
    """
    Why there can be no namespace here.

    @raise RuntimeError: there must be (C{TSRT_INTEROP_REQUIRED}).
    """
    reason = None
    if not sys.platform.startswith("linux"):
        reason = "network namespaces need Linux"
    elif os.geteuid() != 0:
        reason = "network namespaces need root"
    elif subprocess.run(["ip", "netns", "list"], capture_output=True).returncode:
        reason = "the ip command cannot make network namespaces here"
    if reason is not None and os.environ.get("TSRT_INTEROP_REQUIRED"):
        raise RuntimeError(reason)
    return reason


class Watcher(Program):
    """The program that tells of changes."""

    def lines(self) -> list[dict[str, Any]]:
        """What it told."""
        found = []
        for line in self.output().splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                found.append(json.loads(line))
        return found


class KernelTests(TestCase):
    """What the monitor makes of a kernel's news."""

    timeout = 60

    def setUp(self) -> Deferred[None]:
        reason = whySkip()
        if reason is not None:
            raise SkipTest(reason)
        self.namespace = Namespace()
        self.addCleanup(self.namespace.remove)
        self.namespace.make()
        self.link = f"{self.namespace._link}i"
        directory = Path(self.mktemp()).absolute()
        self.watcher = Watcher("watchlinks", directory / "log")
        root = Path(tsrt.__file__).parent.parent
        spawn(
            reactor,
            self.watcher,
            self.namespace.command(
                sys.executable, "-m", "tsrt.test.interop.watchlinks"
            ),
            directory,
            {"PYTHONPATH": str(root)},
        )
        self.seen = 0
        return Deferred.fromCoroutine(self._started())

    async def _started(self) -> None:
        self.addCleanup(lambda: Deferred.fromCoroutine(self.watcher.stop(reactor)))
        line = await self.next(30)
        self.assertEqual(line["what"], "started", self.watcher.output())
        self.assertIn(self.namespace.address, line["addresses"])

    def ip(self, *arguments: str) -> None:
        """Change something in the namespace."""
        subprocess.run(
            ["ip", "-n", self.namespace.name, *arguments],
            check=True,
            capture_output=True,
        )

    async def next(self, patience: float = WITHIN) -> dict[str, Any]:
        """The next change that is told."""
        await eventually(
            reactor,
            lambda: len(self.watcher.lines()) > self.seen,
            "a change of the network",
            patience,
            0.02,
        )
        self.seen += 1
        return self.watcher.lines()[self.seen - 1]

    def test_addresses(self) -> Deferred[None]:
        """Addresses that come and go are told at once."""

        async def run() -> None:
            self.ip("addr", "add", "198.51.100.7/24", "dev", self.link)
            line = await self.next()
            self.assertEqual(line["what"], "got 198.51.100.7")
            self.assertFalse(line["isMajor"])
            self.ip("addr", "del", "198.51.100.7/24", "dev", self.link)
            line = await self.next()
            self.assertEqual(line["what"], "lost 198.51.100.7")
            self.assertTrue(line["isMajor"])
            self.ip("-6", "addr", "add", "2001:db8::7/64", "dev", self.link, "nodad")
            line = await self.next()
            self.assertEqual(line["what"], "got 2001:db8::7")

        return Deferred.fromCoroutine(run())

    def test_routes(self) -> Deferred[None]:
        """Ways to the internet that come, change and go are told at once."""
        gateway = self.namespace.hostAddress

        async def run() -> None:
            self.ip("route", "add", "default", "via", gateway)
            line = await self.next()
            self.assertEqual(line["what"], f"IPv4 goes by {gateway} on {self.link} now")
            self.assertFalse(line["isMajor"])
            # Another interface takes over, as when a cable is plugged in.
            self.ip("link", "add", "spare", "type", "veth", "peer", "name", "far")
            self.ip("link", "set", "far", "up")
            self.ip("link", "set", "spare", "up")
            self.ip("addr", "add", "198.51.100.7/24", "dev", "spare")
            line = await self.next()
            self.assertEqual(line["what"], "got 198.51.100.7")
            self.ip("route", "replace", "default", "via", "198.51.100.1")
            line = await self.next()
            self.assertEqual(line["what"], "IPv4 goes by 198.51.100.1 on spare now")
            self.assertTrue(line["isMajor"])
            self.ip("route", "del", "default")
            line = await self.next()
            self.assertEqual(line["what"], "IPv4 has no way out any more")
            self.assertTrue(line["isMajor"])

        return Deferred.fromCoroutine(run())

    def test_down(self) -> Deferred[None]:
        """An interface that is switched off is no network, until it is back."""

        async def run() -> None:
            self.ip("link", "set", self.link, "down")
            line = await self.next()
            self.assertEqual(line["what"], f"lost {self.namespace.address}")
            self.assertTrue(line["isOffline"])
            self.ip("link", "set", self.link, "up")
            line = await self.next()
            self.assertTrue(line["isMajor"])
            self.assertFalse(line["isOffline"])
            self.assertIn(self.namespace.address, line["addresses"])

        return Deferred.fromCoroutine(run())

    def test_irrelevant(self) -> Deferred[None]:
        """What happens on the side is not told, however much it is."""

        async def run() -> None:
            self.ip("link", "add", "side", "type", "veth", "peer", "name", "far")
            self.ip("link", "set", "far", "up")
            self.ip("link", "set", "side", "up")
            self.ip("addr", "add", "100.101.102.103/32", "dev", "side")
            for number in range(50):
                self.ip("route", "add", f"203.0.113.{number}/32", "dev", "side")
            for number in range(50):
                self.ip("route", "del", f"203.0.113.{number}/32", "dev", "side")
            self.ip("link", "del", "side")
            await deferLater(reactor, INTERVAL + 1)
            self.assertEqual(self.watcher.lines()[self.seen :], [])

        return Deferred.fromCoroutine(run())

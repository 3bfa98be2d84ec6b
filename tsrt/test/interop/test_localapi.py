"""Tailscale's own command line, and ours, ask a node of ours by its socket."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tslocal import Client
from twisted.internet.threads import deferToThread

from tsrt.services.localapi import LocalAPIService
from tsrt.test.interop.programs import binaries
from tsrt.test.interop.test_devtailnet import DevServersTestCase


class LocalAPITests(DevServersTestCase):
    """A node of ours with a socket, and a real one beside it."""

    async def prepare(self) -> None:
        """Start both."""
        await super().prepare()
        # The path of a Unix socket may have hardly more than a hundred letters.
        scratch = Path(tempfile.mkdtemp(prefix="tsrt-"))
        self.addCleanup(shutil.rmtree, scratch, ignore_errors=True)
        self.socket = scratch / "new" / "tsrt.sock"
        started = await self.startPeer("gopeer")
        self.real = started["addresses"][0]
        self.node = await self.startNode("ours")
        service = LocalAPIService(self.reactor, str(self.socket), self.node)
        service.setServiceParent(self.node.apps)

    async def command(self, *command: str) -> str:
        """Run a program; what it prints."""

        def run() -> str:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=60,
                env={"PATH": "/usr/bin:/bin", "HOME": str(self.directory)},
            )
            self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}")
            return done.stdout

        return await deferToThread(run)

    async def tailscale(self, *arguments: str) -> str:
        """Run Tailscale's command line."""
        program = str((binaries() / "tailscale").resolve())
        return await self.command(program, f"--socket={self.socket}", *arguments)

    async def tsrt(self, command: str, *arguments: str) -> str:
        """Run ours."""
        script = "from tsrt.cli.main import main; main()"
        socket = f"--socket={self.socket}"
        return await self.command(
            sys.executable, "-c", script, command, socket, *arguments
        )

    async def test_theirs(self) -> None:
        """C{tailscale} understands the answers."""
        status = json.loads(await self.tailscale("status", "--json"))
        self.assertEqual(status["Self"]["HostName"], "ours")
        self.assertIn("gopeer", await self.tailscale("status"))
        self.assertEqual(
            (await self.tailscale("ip", "-4")).strip(), self.node.status.addresses[0]
        )
        self.assertIn("pong from gopeer", await self.tailscale("ping", "gopeer"))
        said = await self.tailscale("whois", self.real)
        self.assertIn("gopeer.tailnet.test", said)
        self.assertIn("user@tailnet.test", said)

    async def test_package(self) -> None:
        """So does a package of PyPI that was written for C{tailscaled}."""
        client = Client(str(self.socket), use_socket_only=True)
        self.addCleanup(client.close)
        status = await deferToThread(client.status)
        self.assertEqual(status.backend_state, "Running")
        self.assertEqual(
            [str(address) for address in status.tailscale_ips],
            list(self.node.status.addresses),
        )
        [peer] = status.peer.values()
        self.assertEqual(peer.dns_name, "gopeer.tailnet.test.")
        self.assertTrue(peer.online)
        found = await deferToThread(client.who_is, f"{self.real}:1234")
        self.assertEqual(found.node.name, "gopeer.tailnet.test.")
        self.assertEqual(found.user_profile.login_name, "user@tailnet.test")
        token = await deferToThread(client.id_token, "https://example.com")
        self.assertEqual(token.id_token.count("."), 2)

    async def test_ours(self) -> None:
        """So does C{tsrt}, and says the same."""
        self.assertIn("pong from gopeer", await self.tsrt("ping", "gopeer"))
        await self.tsrt("ping", "--icmp", "-c", "1", "gopeer")
        self.assertIn("active; direct 10.", await self.tsrt("status"))
        self.assertIn("gopeer.tailnet.test", await self.tsrt("whois", self.real))
        ours = json.loads(await self.tsrt("status", "--json"))
        theirs = json.loads(await self.tailscale("status", "--json"))
        self.assertEqual(ours["Self"]["ID"], theirs["Self"]["ID"])
        self.assertEqual(ours["Peer"].keys(), theirs["Peer"].keys())
        for flags in (["-4"], ["-6"], ["-1"], ["gopeer"]):
            self.assertEqual(
                await self.tsrt("ip", *flags), await self.tailscale("ip", *flags)
            )
        self.assertEqual(os.stat(self.socket).st_mode & 0o777, 0o600)

"""Tailscale's own daemon and command line, for the length of a test."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from tsrt.test.interop.namespaces import Namespace
from tsrt.test.interop.programs import Program, binaries, eventually, spawn


class Tailscaled:
    """A C{tailscaled} inside of a namespace."""

    def __init__(
        self,
        reactor: Any,
        namespace: Namespace,
        directory: Path,
        device: str = "userspace-networking",
        flags: tuple[str, ...] = (),
    ) -> None:
        """
        @param device: the name of a tunnel device to make in the kernel; by
            default there is none.
        @param flags: further ones of the daemon.
        """
        self._flags = flags
        self._device = device
        self._reactor = reactor
        self._namespace = namespace
        self._directory = directory
        # The path of a Unix socket may have hardly more than a hundred letters.
        self._scratch = Path(tempfile.mkdtemp(prefix="tsrt-"))
        self._socket = self._scratch / "s"
        self._program = Program("tailscaled", directory / "tailscaled.log")

    async def start(self) -> None:
        """Start the daemon and wait for its socket."""
        spawn(
            self._reactor,
            self._program,
            self._namespace.command(
                str((binaries() / "tailscaled").resolve()),
                f"--tun={self._device}",
                f"--statedir={self._directory}",
                f"--socket={self._socket}",
                "--port=0",
                "--no-logs-no-support",
                *self._flags,
            ),
            self._directory,
        )
        await eventually(self._reactor, self._socket.exists, "tailscaled listens")

    async def command(self, *arguments: str, patience: float = 60) -> str:
        """Run C{tailscale}; return what it prints."""

        def run() -> str:
            done = subprocess.run(
                self._namespace.command(
                    str((binaries() / "tailscale").resolve()),
                    f"--socket={self._socket}",
                    *arguments,
                ),
                capture_output=True,
                text=True,
                timeout=patience,
                env={"HOME": str(self._directory), "PATH": "/usr/bin:/bin:/usr/sbin"},
            )
            if done.returncode:
                raise AssertionError(
                    f"tailscale {' '.join(arguments)}: {done.stdout}{done.stderr}"
                )
            return done.stdout

        return await deferToThread(run)

    async def up(self, url: str, authKey: str, hostname: str) -> None:
        """Join a tailnet."""
        await self.command(
            *("up", f"--login-server={url}", f"--auth-key={authKey}"),
            *("--accept-dns=false", f"--hostname={hostname}", "--timeout=50s"),
        )

    async def status(self) -> dict[str, Any]:
        """What C{tailscale status --json} says."""
        found: dict[str, Any] = json.loads(await self.command("status", "--json"))
        return found

    async def stop(self) -> None:
        """End the daemon."""
        await self._program.stop(self._reactor)
        shutil.rmtree(self._scratch, ignore_errors=True)

"""A real Headscale and a real DERP server for the length of a test."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from twisted.internet.threads import deferToThread

from tsrt.test.interop.programs import Program, binaries, eventually, spawn

_direct = build_opener(ProxyHandler({}))


def freePort(address: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of C{address} that is free now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


class Derper:
    """Tailscale's own relay, with STUN, under a certificate of its own."""

    def __init__(self, reactor: Any, address: str, directory: Path) -> None:
        self._reactor = reactor
        self.address = address
        self.port = freePort(address)
        self.stunPort = freePort(address, socket.SOCK_DGRAM)
        self._directory = directory
        self._program = Program("derper", directory / "derper.log")

    async def start(self) -> None:
        """Start it and wait until it answers."""
        spawn(
            self._reactor,
            self._program,
            [
                str(binaries() / "derper"),
                *("-a", f"{self.address}:{self.port}", "-http-port", "-1"),
                *("-hostname", self.address, "-certmode", "manual"),
                *("-certdir", str(self._directory / "certs")),
                *("-c", str(self._directory / "derper.json")),
                *("-stun-port", str(self.stunPort)),
            ],
            self._directory,
        )

        def listening() -> bool:
            with socket.create_connection((self.address, self.port), 1):
                return True

        await eventually(
            self._reactor, lambda: deferToThread(listening), "derper listens"
        )

    def region(self) -> dict[str, object]:
        """The relay as Headscale's derp.yaml describes it."""
        return {
            "regionid": 1,
            "regioncode": "loc",
            "regionname": "Local",
            "nodes": [
                {
                    "name": "1a",
                    "regionid": 1,
                    "hostname": self.address,
                    "ipv4": self.address,
                    "ipv6": "none",
                    "derpport": self.port,
                    "stunport": self.stunPort,
                    "insecurefortests": True,
                }
            ],
        }

    async def stop(self) -> None:
        """End it."""
        await self._program.stop(self._reactor)


class Headscale:
    """A Headscale server with one user."""

    def __init__(
        self,
        reactor: Any,
        address: str,
        directory: Path,
        derp: Derper,
        settings: dict[str, object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._directory = directory
        self._config = directory / "config.yaml"
        self._policy = directory / "policy.json"
        port = freePort(address)
        self.url = f"http://{address}:{port}"
        directory.mkdir(parents=True, exist_ok=True)
        # JSON is YAML.
        (directory / "derp.yaml").write_text(
            json.dumps({"regions": {1: derp.region()}}).replace('"1":', "1:")
        )
        self._config.write_text(
            json.dumps(
                {
                    "server_url": self.url,
                    "listen_addr": f"{address}:{port}",
                    "metrics_listen_addr": "127.0.0.1:0",
                    "grpc_listen_addr": f"127.0.0.1:{freePort('127.0.0.1')}",
                    "noise": {"private_key_path": "./noise.key"},
                    "prefixes": {
                        "v4": "100.64.0.0/10",
                        "v6": "fd7a:115c:a1e0::/48",
                    },
                    "database": {
                        "type": "sqlite",
                        "sqlite": {"path": "./db.sqlite"},
                    },
                    "derp": {
                        "server": {"enabled": False},
                        "urls": [],
                        "paths": ["./derp.yaml"],
                        "auto_update_enabled": False,
                    },
                    "dns": {
                        "magic_dns": True,
                        "base_domain": "hs.test",
                        "override_local_dns": False,
                    },
                    "disable_check_updates": True,
                    "ephemeral_node_inactivity_timeout": "70s",
                    "unix_socket": "./hs.sock",
                    "policy": {"mode": "file", "path": str(self._policy)},
                    "log": {"level": "debug"},
                    **(settings or {}),
                }
            )
        )
        # Everybody may do everything, as without a policy.
        self._writePolicy(
            {"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}
        )
        self._program = Program("headscale", directory / "headscale.log")

    def _writePolicy(self, policy: dict[str, Any]) -> None:
        self._policy.write_text(json.dumps(policy))

    def setPolicy(self, policy: dict[str, Any]) -> None:
        """Put another policy file in its place, and have it read."""
        self._writePolicy(policy)
        assert self._program.transport is not None
        self._program.transport.signalProcess("HUP")

    async def start(self) -> None:
        """Start it and make a user."""
        spawn(
            self._reactor,
            self._program,
            [str(binaries() / "headscale"), "-c", str(self._config), "serve"],
            self._directory,
        )

        def healthy() -> bool:
            try:
                with _direct.open(f"{self.url}/health", timeout=2) as answer:
                    return bool(answer.status == 200)
            except URLError:
                return False

        await eventually(
            self._reactor, lambda: deferToThread(healthy), "headscale is healthy"
        )
        await self.command("users", "create", "alice")

    async def command(self, *arguments: str) -> Any:
        """Run a headscale command; return the JSON that it prints."""

        def run() -> Any:
            done = subprocess.run(
                [
                    *(str(binaries() / "headscale"), "-c", str(self._config)),
                    *(*arguments, "-o", "json", "--force"),
                ],
                cwd=self._directory,
                capture_output=True,
                text=True,
                timeout=60,
                env={"HOME": str(self._directory), "PATH": "/usr/bin:/bin"},
            )
            if done.returncode:
                raise AssertionError(
                    f"headscale {' '.join(arguments)}: {done.stdout}{done.stderr}"
                )
            return json.loads(done.stdout or "null")

        return await deferToThread(run)

    async def authKey(self, *options: str) -> str:
        """A pre-auth key; good for one hour and many nodes unless told else."""
        made = await self.command("preauthkeys", "create", "-u", "1", *options)
        return str(made["key"])

    async def nodes(self) -> list[dict[str, Any]]:
        """All nodes that it knows."""
        found = await self.command("nodes", "list")
        return found or []

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._program.output()

    async def stop(self) -> None:
        """End it."""
        await self._program.stop(self._reactor)

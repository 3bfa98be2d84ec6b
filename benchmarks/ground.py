"""
The ground that benchmarks stand on: one tailnet in a network namespace.

All nodes, ours and the Go ones, are programs in the same namespace, reach each other
by its own address, and take the same commands.  Control is the embedded server, the
relay is the real DERP server.  Needs C{make interop-build} and root.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.endpoints import TCP4ServerEndpoint

from tsrt.keys import NodeKey
from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
from tsrt.test.interop.namespaces import Namespace
from tsrt.test.interop.programs import CommandProgram, binaries, eventually, spawn
from tsrt.test.interop.servers import Derper
from tsrt.testing.control import ControlConfig, ControlServer

HERE = Path(__file__).resolve().parent


NEEDED = ("tsnet-peer", "derper", "wireguard-peer")


def whyNot() -> str | None:
    """Why nothing can be measured here, if so."""
    missing = [name for name in NEEDED if not (binaries() / name).exists()]
    if missing:
        return f"there is no {missing[0]} in {binaries()}: run make interop-build"
    if os.geteuid() != 0:
        return "the network namespace of the nodes needs root"
    if shutil.which("ip") is None or shutil.which("nft") is None:
        return "the network namespace of the nodes needs the commands ip and nft"
    return None


class Ground:
    """
    A tailnet to measure on.

    @ivar nodes: the running programs by their names.
    @ivar addresses: the tailnet addresses of each, IPv4 first.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.namespace = Namespace()
        self.nodes: dict[str, CommandProgram] = {}
        self.addresses: dict[str, list[str]] = {}
        self._directory = Path(tempfile.mkdtemp(prefix="tsrt-bench-"))
        self._control: ControlServer | None = None
        self._derper: Derper | None = None
        self._url = ""
        self._key = ""
        self._crowds = 0

    async def start(self) -> None:
        """Make namespace, control and relay."""
        self.namespace.make()
        host = self.namespace.hostAddress
        self._derper = derper = Derper(self.reactor, host, self._directory / "derp")
        await derper.start()
        server = DERPNode(
            name="1a",
            regionID=1,
            hostName=host,
            ipv4=host,
            ipv6="none",
            derpPort=derper.port,
            stunPort=derper.stunPort,
            insecureForTests=True,
        )
        region = DERPRegion(regionID=1, regionCode="loc", nodes=[server])
        self._control = control = ControlServer(
            self.reactor,
            TCP4ServerEndpoint(self.reactor, 0, interface=host),
            ControlConfig(derpMap=DERPMap(regions={1: region})),
        )
        control.startService()
        self._url = await control.whenListening()
        self._key = control.createAuthKey(reusable=True).text

    async def addGo(self, name: str) -> None:
        """Start a Go node."""
        await self._add(name, [str(binaries().resolve() / "tsnet-peer")], {})

    async def addOurs(self, name: str, tier: str = "") -> None:
        """
        Start one of our nodes.

        @param tier: which tier of the data plane it has to use.
        """
        environment = {"TSRT_DATAPLANE": tier} if tier else {}
        if os.environ.get("TSRT_BENCH_PROFILE"):
            environment["TSRT_BENCH_PROFILE"] = (
                f"{os.environ['TSRT_BENCH_PROFILE']}.{name}"
            )
        environment["PYTHONPATH"] = str(HERE.parent)
        command = [sys.executable, "-m", "benchmarks.nodeprogram"]
        await self._add(name, command, environment)

    async def addWireGuard(self, first: str, second: str) -> None:
        """
        Start two nodes of plain wireguard-go that know each other.

        They use its usual socket, with GSO and GRO, and gVisor's stack.
        """
        keys = {name: NodeKey.generate(os.urandom) for name in (first, second)}
        pairs = [(first, second, 1), (second, first, 2)]
        for name, other, number in pairs:
            home = self._directory / name
            home.mkdir()
            program = CommandProgram(name, home / "log")
            command = [str(binaries().resolve() / "wireguard-peer")]
            spawn(self.reactor, program, self.namespace.command(*command), home)
            self.nodes[name] = program
            self.addresses[name] = [f"10.99.0.{number}"]
            await self.call(
                name,
                "start",
                privateKey=keys[name].raw.hex(),
                peerKey=keys[other].public().raw.hex(),
                endpoint=f"{self.namespace.address}:{51820 + 3 - number}",
                allowedIPs=[f"10.99.0.{3 - number}/32"],
                addresses=[f"10.99.0.{number}"],
                mtu=1280,
                local=f"{self.namespace.address}:{51820 + number}",
                batches=True,
            )

    async def _add(
        self, name: str, command: list[str], environment: dict[str, str]
    ) -> None:
        home = self._directory / name
        home.mkdir()
        program = CommandProgram(name, home / "log")
        command = self.namespace.command(*command)
        spawn(self.reactor, program, command, home, environment)
        self.nodes[name] = program
        started: dict[str, Any] = await self.call(
            name,
            "start",
            hostname=name,
            control=self._url,
            authkey=self._key,
            dir=str(home / "state"),
            ephemeral=True,
        )
        self.addresses[name] = started["addresses"]

    async def call(self, name: str, cmd: str, **arguments: Any) -> dict[str, Any]:
        """Have a node do something."""
        answer: dict[str, Any] = await self.nodes[name].call(cmd, **arguments)
        return answer

    async def addTwin(self, name: str, twin: str, port: int) -> None:
        """Start one more node in a process of ours; it counts what comes to a port."""
        started: dict[str, Any] = await self.call(
            name,
            "twin",
            hostname=twin,
            control=self._url,
            authkey=self._key,
            port=port,
        )
        self.nodes[twin] = self.nodes[name]
        self.addresses[twin] = started["addresses"]

    async def crowd(
        self, name: str, count: int, target: dict[str, str], pause: float = 0.0
    ) -> list[float]:
        """
        Have a process start more nodes, each of which then connects to a target.

        @param pause: seconds between the start of the last and the first connect.
        @return: how long each took to connect.
        """
        self._crowds += 1
        answer: dict[str, Any] = await self.call(
            name,
            "crowd",
            hostname=f"{name}-more-{self._crowds}",
            control=self._url,
            authkey=self._key,
            dir=str(self._directory / name / f"more-{self._crowds}"),
            count=count,
            pause=pause,
            timeout=300,
            **target,
        )
        return [float(time) for time in answer["times"]]

    async def drop(self, name: str) -> None:
        """Stop a process, and have control forget its nodes."""
        await self.nodes.pop(name).stop(self.reactor)
        assert self._control is not None
        for record in self._control.nodes():
            if record.name == name or record.name.startswith(f"{name}-more-"):
                self._control.deleteNode(record)

    async def listen(self, name: str, port: int, mode: str) -> None:
        """Have a node serve on a port, in both families."""
        await self.call(
            name, "listen", network="tcp", address=f":{port}", port=port, mode=mode
        )

    def target(self, name: str, port: int, family: int = 4) -> dict[str, str]:
        """The arguments that name a port of a node."""
        address = self.addresses[name][0 if family == 4 else 1]
        if family == 6:
            address = f"[{address}]"
        return {"network": "tcp", "address": f"{address}:{port}"}

    async def untilDirect(self, name: str, other: str) -> None:
        """Wait until two nodes have a direct path."""

        async def isDirect() -> bool:
            answer = await self.call(
                name, "ping", address=self.addresses[other][0], mode="disco"
            )
            endpoint = str(answer["endpoint"])
            return bool(endpoint) and not endpoint.startswith(("derp", "127.3.3.40"))

        await eventually(self.reactor, isDirect, f"{name} reaches {other} directly")

    async def stop(self) -> None:
        """Remove all of it."""
        for program in self.nodes.values():
            await program.stop(self.reactor)
        if self._control is not None:
            await self._control.stopService()
        if self._derper is not None:
            await self._derper.stop()
        self.namespace.remove()
        shutil.rmtree(self._directory, ignore_errors=True)


def run(measure: Callable[[Ground], Coroutine[Any, Any, None]]) -> int:
    """Measure on fresh ground, or say why not."""
    # Programs run in directories of their own.
    os.environ["TSRT_INTEROP_BIN"] = str(binaries().resolve())
    reason = whyNot()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1

    async def main(reactor: Any) -> None:
        ground = Ground(reactor)
        try:
            await ground.start()
            await measure(ground)
        finally:
            await ground.stop()

    task.react(main)
    return 0

"""
Round trips of small messages on the direct path, beside the real Go node's.

Two Go nodes (C{tsnet}) in a network namespace ping each other, then one of ours
pings a Go node, then two of ours, each in a process of its own, ping each other;
all on one tailnet in the same run, taking turns, since the machine's noise changes.
Both kinds measure an ICMP echo through their whole stack and tunnel.
Needs C{make interop-build} and root.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROUNDS = 10
PINGS = 20
LIMIT = 60.0


def goBinary() -> Path:
    """The driver of the Go node."""
    directory = os.environ.get("TSRT_INTEROP_BIN", "interop/bin")
    return Path(directory).resolve() / "tsnet-peer"


async def echoNode(reactor: Any, url: str, key: str) -> None:
    """One of our nodes, in a process of its own, until its input ends."""
    from twisted.internet.defer import Deferred
    from twisted.internet.threads import deferToThread

    from tsrt import MemoryStateStore, Node, NodeConfig

    node = Node(
        reactor,
        NodeConfig(hostname="second", controlURL=url, authKey=key, ephemeral=True),
        state=MemoryStateStore(),
    )
    node.startService()
    status = await node.up(LIMIT)
    print(status.addresses[0], flush=True)
    waiting: Deferred[str] = deferToThread(sys.stdin.read)
    await waiting
    await node.stopService()


async def measure(reactor: Any) -> None:
    """Start everything, take turns, print the figures."""
    from twisted.internet.endpoints import TCP4ServerEndpoint
    from twisted.internet.task import deferLater
    from twisted.internet.threads import deferToThread

    from tsrt import MemoryStateStore, Node, NodeConfig
    from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
    from tsrt.test.interop.namespaces import Namespace
    from tsrt.test.interop.programs import CommandProgram, spawn
    from tsrt.testing.certificates import selfSigned
    from tsrt.testing.control import ControlConfig, ControlServer
    from tsrt.testing.derp import DERPServer
    from tsrt.testing.stun import STUNServer

    namespace = Namespace()
    directory = Path(tempfile.mkdtemp(prefix="tsrt-latency-"))
    second: subprocess.Popen[str] | None = None
    try:
        namespace.make()
        address = namespace.hostAddress
        relay = DERPServer(
            reactor,
            TCP4ServerEndpoint(reactor, 0, interface=address),
            certificate=selfSigned([address]),
        )
        relay.startService()
        stun = STUNServer(reactor, 0, address)
        stun.startService()
        server = DERPNode(
            name="900a",
            regionID=900,
            hostName=address,
            ipv4=address,
            ipv6="none",
            derpPort=await relay.whenListening(),
            stunPort=stun.port,
            insecureForTests=True,
        )
        region = DERPRegion(regionID=900, regionCode="dev", nodes=[server])
        control = ControlServer(
            reactor,
            TCP4ServerEndpoint(reactor, 0, interface=address),
            ControlConfig(derpMap=DERPMap(regions={900: region})),
        )
        control.startService()
        url = await control.whenListening()
        key = control.createAuthKey(reusable=True).text
        programs, addresses = [], []
        for name in ("go1", "go2"):
            home = directory / name
            home.mkdir()
            program = CommandProgram(name, home / "log")
            spawn(reactor, program, namespace.command(str(goBinary())), home)
            started: dict[str, Any] = await program.call(
                "start",
                hostname=name,
                control=url,
                authkey=key,
                dir=str(home / "state"),
                ephemeral=True,
            )
            programs.append(program)
            addresses.append(started["addresses"][0])
        ours = Node(
            reactor,
            NodeConfig(hostname="ours", controlURL=url, authKey=key, ephemeral=True),
            state=MemoryStateStore(),
        )
        ours.startService()
        await ours.up(LIMIT)
        second = subprocess.Popen(
            [sys.executable, __file__, "echo", url, key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert second.stdout is not None
        other = (await deferToThread(second.stdout.readline)).strip()

        async def goToGo() -> float:
            answer: dict[str, Any] = await programs[0].call(
                "ping", address=addresses[1], mode="ICMP"
            )
            return float(answer["latency"])

        async def oursToGo() -> float:
            return float((await ours.ping(addresses[0])).seconds)

        async def oursToOurs() -> float:
            return float((await ours.ping(other)).seconds)

        ways = {"Go to Go": goToGo, "ours to Go": oursToGo, "ours to ours": oursToOurs}
        for ask in ways.values():
            for _ in range(5):
                await ask()
        await deferLater(reactor, 3, lambda: None)
        for target in (addresses[0], other):
            path = (await ours.ping(target)).path
            assert path.startswith("direct"), path
        found: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, ask in ways.items():
                for _ in range(PINGS):
                    found[way].append(await ask())
        report(found)
        for program in programs:
            await program.stop(reactor)
        assert second.stdin is not None
        second.stdin.close()
        await deferToThread(second.wait, 10)
        await ours.stopService()
        for service in (control, relay, stun):
            await service.stopService()
    finally:
        if second is not None and second.poll() is None:
            second.kill()
        namespace.remove()


def report(found: dict[str, list[float]]) -> None:
    """Print percentiles, and the ratios to Go."""
    print(f"{'ICMP echo, ms':>14}  {'p10':>6} {'p50':>6} {'p90':>6} {'p99':>6}")
    for way, seconds in found.items():
        cuts = statistics.quantiles(seconds, n=100)
        shown = " ".join(f"{cuts[p - 1] * 1000:6.2f}" for p in (10, 50, 90, 99))
        print(f"{way:>14}  {shown}")
    medians = {way: statistics.median(seconds) for way, seconds in found.items()}
    go = medians["Go to Go"]
    ratios = {way: round(median / go, 2) for way, median in medians.items()}
    print(json.dumps({"rtt_idle_icmp": ratios}))


def main() -> int:
    """Run it, or say why not."""
    from twisted.internet import task

    if sys.argv[1:2] == ["echo"]:
        task.react(echoNode, sys.argv[2:4])
    if not goBinary().exists():
        print("nothing to compare with: run make interop-build")
    elif os.geteuid() != 0:
        print("the network namespace of the Go nodes needs root")
    else:
        task.react(measure)
    return 0


if __name__ == "__main__":
    sys.exit(main())

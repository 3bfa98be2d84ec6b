"""
How fast nodes join a tailnet and carry their first byte, and what they weigh.

The embedded control server and relay run as a process of their own on loopback.
Then 1, 10 and 50 of our nodes start at once in one process; and one real C{tsnet}
node starts on a control server inside of the reach of its network namespace, in the
same run; then one of ours on that same server.  The machine's noise concerns both:
compare within one run only.  Needs C{make interop-build} and root.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COUNTS = (1, 10, 50)
LIMIT = 120.0


def memory() -> float:
    """Resident memory of this process now, in MiB."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


# -- our nodes, in a process of their own ------------------------------------------------


def runNodes(url: str, key: str, count: int) -> None:
    """Start nodes, fetch a byte with each, print the figures as JSON."""
    from twisted.internet import task

    task.react(measureNodes, (url, key, count))


async def measureNodes(reactor: Any, url: str, key: str, count: int) -> None:
    """Measure in this process."""
    from twisted.internet.defer import Deferred, gatherResults
    from twisted.internet.endpoints import connectProtocol
    from twisted.internet.protocol import Factory, Protocol

    from tsrt import MemoryStateStore, Node, NodeConfig

    class Byte(Protocol):
        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.write(b"!")

    class First(Protocol):
        def __init__(self) -> None:
            self.first: Deferred[bytes] = Deferred()

        def dataReceived(self, data: bytes) -> None:
            if not self.first.called:
                self.first.callback(data)

    def make(name: str) -> Node:
        config = NodeConfig(hostname=name, controlURL=url, authKey=key, ephemeral=True)
        return Node(reactor, config, state=MemoryStateStore(), name=name)

    server = make("server")
    server.startService()
    await server.up(LIMIT)
    await server.serverEndpoint(7).listen(Factory.forProtocol(Byte))
    before = memory()
    nodes = [make(f"node{i}") for i in range(count)]
    running: list[float] = []
    firstByte: list[float] = []

    async def life(node: Node) -> None:
        began = reactor.seconds()
        node.startService()
        await node.up(LIMIT)
        running.append(reactor.seconds() - began)
        client = First()
        await connectProtocol(
            node.clientEndpoint(server.status.addresses[0], 7), client
        )
        await client.first
        firstByte.append(reactor.seconds() - began)

    await gatherResults([Deferred.fromCoroutine(life(node)) for node in nodes])
    after = memory()
    print(
        json.dumps(
            {
                "running": running,
                "firstByte": firstByte,
                "process": after,
                "perNode": (after - before) / count,
            }
        )
    )
    await gatherResults([node.stopService() for node in [*nodes, server]])


# -- the Go node ------------------------------------------------------------------------


def runGo(binary: Path) -> None:
    """Start a tailnet of ours and a Go node on it; print the figures as JSON."""
    from twisted.internet import task

    task.react(measureGo, (binary,))


async def measureGo(reactor: Any, binary: Path) -> None:
    """Measure the Go node, inside of a network namespace, and then one of ours."""
    from twisted.internet.endpoints import TCP4ServerEndpoint
    from twisted.internet.protocol import Factory, Protocol
    from twisted.internet.threads import deferToThread

    from tsrt import MemoryStateStore, Node, NodeConfig
    from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion
    from tsrt.test.interop.namespaces import Namespace
    from tsrt.test.interop.programs import CommandProgram, spawn
    from tsrt.testing.certificates import selfSigned
    from tsrt.testing.control import ControlConfig, ControlServer
    from tsrt.testing.derp import DERPServer
    from tsrt.testing.stun import STUNServer

    class Byte(Protocol):
        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.write(b"!")
            self.transport.loseConnection()

    namespace = Namespace()
    directory = Path(tempfile.mkdtemp(prefix="tsrt-join-"))
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
        node = DERPNode(
            name="900a",
            regionID=900,
            hostName=address,
            ipv4=address,
            ipv6="none",
            derpPort=await relay.whenListening(),
            stunPort=stun.port,
            insecureForTests=True,
        )
        region = DERPRegion(regionID=900, regionCode="dev", nodes=[node])
        control = ControlServer(
            reactor,
            TCP4ServerEndpoint(reactor, 0, interface=address),
            ControlConfig(derpMap=DERPMap(regions={900: region})),
        )
        control.startService()
        url = await control.whenListening()
        key = control.createAuthKey(reusable=True).text
        server = Node(
            reactor,
            NodeConfig(hostname="server", controlURL=url, authKey=key, ephemeral=True),
            state=MemoryStateStore(),
        )
        server.startService()
        await server.up(LIMIT)
        await server.serverEndpoint(7).listen(Factory.forProtocol(Byte))
        program = CommandProgram("go", directory / "go.log")
        spawn(reactor, program, namespace.command(str(binary)), directory)
        began = reactor.seconds()
        await program.call(
            "start",
            hostname="go",
            control=url,
            authkey=key,
            dir=str(directory / "state"),
            ephemeral=True,
        )
        running = reactor.seconds() - began
        await program.call(
            "dial", network="tcp", address=f"{server.status.addresses[0]}:7", size=0
        )
        firstByte = reactor.seconds() - began
        assert program.transport is not None
        ours = await deferToThread(child, "nodes", url, key, "1")
        print(
            json.dumps(
                {
                    "ours": ours,
                    "running": [running],
                    "firstByte": [firstByte],
                    "process": childMemory(program.transport.pid),
                }
            )
        )
        await program.stop(reactor)
        await server.stopService()
        await control.stopService()
        await relay.stopService()
        await stun.stopService()
    finally:
        namespace.remove()


def childMemory(pid: int) -> float:
    """Resident memory of a process and its children, in MiB."""
    pids = [pid]
    for child in Path("/proc").glob("[0-9]*"):
        try:
            fields = (child / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) in pids:
                pids.append(int(child.name))
        except (OSError, IndexError, ValueError):
            continue
    total = 0
    for one in pids:
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except OSError:
            continue
    return total * resource.getpagesize() / (1 << 20)


# -- the run ---------------------------------------------------------------------------------


def child(*arguments: str) -> dict[str, Any]:
    """Run this module as a child and read the figures it prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TS_")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.join", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT * 2,
        env=environment,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{arguments}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    figures: dict[str, Any] = json.loads(lines[-1])
    return figures


def goBinary() -> Path:
    """The driver of the Go node."""
    directory = os.environ.get("TSRT_INTEROP_BIN", "interop/bin")
    return (ROOT / directory / "tsnet-peer").resolve()


def show(name: str, rounds: list[dict[str, Any]]) -> dict[str, float]:
    """Print one row; return the medians of all that is in it."""
    row = f"{name:>18}"
    medians = {}
    for key in ("running", "firstByte"):
        values = [s for figures in rounds for s in figures[key]]
        medians[key] = statistics.median(values)
        row += f"  {min(values):6.2f} {medians[key]:6.2f} {max(values):6.2f}"
    for key in ("process", "perNode"):
        values = [figures[key] for figures in rounds if key in figures]
        if values:
            medians[key] = statistics.median(values)
    each = medians.get("perNode", float("nan"))
    print(f"{row}  {medians['process']:8.1f}  {each:8.2f}")
    return {key: round(value, 3) for key, value in medians.items()}


def main() -> int:
    """Run everything and print a table."""
    # Not known to the children, whose memory is measured.
    from benchmarks.ground import whyNot
    from benchmarks.results import conclude, readOptions

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = readOptions(parser)
    reason = whyNot()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    found = {}
    twistd = Path(sys.executable).parent / "twistd"
    with tempfile.TemporaryDirectory(prefix="tsrt-join-") as name:
        document = Path(name) / "tailnet.json"
        tailnet = subprocess.Popen(
            [
                *(str(twistd), "-n", "--pidfile=", f"--logfile={name}/log"),
                *("tsrt-devtailnet", "--port", "0", "--print-json", str(document)),
            ],
            cwd=name,
        )
        try:
            deadline = time.monotonic() + 30
            while not document.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            settings = json.loads(document.read_text())
            print(f"{'':>18}  {'to Running, s':^20}  {'to first byte, s':^20}")
            print(
                f"{'nodes':>18}  {'min':>6} {'median':>6} {'max':>6}  "
                f"{'min':>6} {'median':>6} {'max':>6}  {'RSS, MiB':>8}  {'a node':>8}"
            )
            for count in COUNTS:
                rounds = [
                    child("nodes", settings["url"], settings["authKey"], str(count))
                    for _ in range(options.rounds)
                ]
                label = f"{count} in one process"
                found[label] = show(label, rounds)
        finally:
            tailnet.terminate()
            tailnet.wait(20)
    pairs = [child("go", str(goBinary())) for _ in range(options.rounds)]
    print("on one control server, one after the other; ours without Python's start:")
    go = found["1 tsnet (Go)"] = show("1 tsnet (Go)", pairs)
    ours = found["1 of ours"] = show("1 of ours", [pair["ours"] for pair in pairs])
    print(
        f"tsnet / ours, one node: {go['running'] / ours['running']:.1f} to Running, "
        f"{go['firstByte'] / ours['firstByte']:.1f} to the first byte"
    )
    conclude("join", {}, {"join_seconds_and_mib": found}, options)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["nodes"]:
        runNodes(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1:2] == ["go"]:
        runGo(Path(sys.argv[2]))
    else:
        sys.exit(main())

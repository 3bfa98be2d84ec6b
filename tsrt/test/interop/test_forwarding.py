"""A real node, with a device in the kernel, behind ours: a router, and an exit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

import tsrt
from tsrt.addresses import Prefix, formatAddress, viaPrefix
from tsrt.test.interop.headscalecase import HeadscaleTestCase
from tsrt.test.interop.namespaces import Namespace
from tsrt.test.interop.programs import Program, eventually, required, spawn
from tsrt.test.interop.tailscaled import Tailscaled
from tsrt.test.interop.test_devtailnet import DevServersTestCase

PORT = 7007
OFFICE = "10.77.7.7"
OFFICE_NET = "10.77.0.0/16"
FAR, FAR6 = "198.18.5.5", "2001:db8:77::5"
SOURCES = {"PYTHONPATH": str(Path(tsrt.__file__).parent.parent)}


def _whySkip() -> str | None:
    """Why these tests cannot run here, if they cannot."""
    if DevServersTestCase.skip:
        return DevServersTestCase.skip
    if not os.path.exists("/dev/net/tun"):
        return required("this machine has no tunnel devices")
    return required(None if shutil.which("ping") else "there is no ping program")


class ForwardingMixin:
    """
    C{twistd tsrt} and a far server in one namespace, a real node and ordinary
    programs in another.
    """

    skip = _whySkip()

    async def prepare(self: Any) -> None:
        """Start everything but our node."""
        await super().prepare()  # type: ignore[misc]  # of the class that this is mixed into
        self.site = Namespace()
        self.addCleanup(self.site.remove)
        self.site.make()
        self.site.leadHome()
        self.namespace.join(self.site)
        for address in (f"{OFFICE}/32", f"{FAR}/32", f"{FAR6}/128"):
            self.site.addAddress(address)
        self.far = self.start(
            self.site,
            "far",
            *("tsrt.test.interop.farserver", str(PORT), OFFICE, FAR, FAR6),
        )
        await eventually(
            self.reactor, lambda: "listening" in self.far.output(), "it listens"
        )
        self.daemon = Tailscaled(
            self.reactor, self.namespace, self.directory / "d", "ts0"
        )
        self.cleanUp(self.daemon.stop)
        await self.daemon.start()
        await self.daemon.up(self.controlURL, self.authKey, "real")

    def start(self: Any, where: Namespace, name: str, *arguments: str) -> Program:
        """Start a module of Python inside of a namespace."""
        program = Program(name, self.directory / f"{name}.log")
        spawn(
            self.reactor,
            program,
            where.command(sys.executable, "-m", *arguments),
            self.directory,
            SOURCES,
        )
        self.cleanUp(program.stop, self.reactor)
        return program

    async def ours(self: Any, *flags: str, name: str = "ours") -> None:
        """Start our node with some flags, and approve what it offers."""
        self.node = self.start(
            self.site,
            name,
            *("twisted", "--log-format=text", "tsrt", f"--authkey={self.authKey}"),
            *(f"--login-server={self.controlURL}", f"--hostname={name}"),
            *(f"--statedir={self.directory / name}-state", "--socket=no", *flags),
        )
        await eventually(
            self.reactor, lambda: "is up at" in self.node.output(), "our node is up"
        )
        await self.approveRoutes(name)
        await eventually(
            self.reactor,
            lambda: "forwarding what peers send to" in self.node.output(),
            "our node knows what it leads to",
        )

    async def program(self: Any, *command: str) -> subprocess.CompletedProcess[str]:
        """Run an ordinary program beside the real node."""
        return await deferToThread(
            subprocess.run,
            self.namespace.command(*command),
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **SOURCES},
        )

    async def client(
        self: Any, what: str, address: str, number: int, port: int = PORT
    ) -> dict[str, Any]:
        """What L{tsrt.test.interop.farclient} saw."""
        done = await self.program(
            *(sys.executable, "-m", "tsrt.test.interop.farclient"),
            *(what, address, str(port), str(number)),
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen

    async def reached(self: Any, address: str, pings: str = "ping") -> None:
        """TCP, UDP and pings get there and back."""

        # The daemon takes a moment until its kernel knows of a route.
        async def answers() -> bool:
            return (await self.client("udp", address, 100)).get("isEqual", False)

        await eventually(self.reactor, answers, f"{address} answers", patience=30)
        self.assertTrue((await self.client("tcp", address, 2_000_000)).get("isEqual"))
        self.assertTrue((await self.client("tcp", address, 0)).get("isEqual"))
        for size in (0, 1, 1200, 4000):
            if size:
                seen = await self.client("udp", address, size)
                self.assertEqual(seen, {"isEqual": True}, size)
        done = await self.program(pings, "-c", "3", "-i", "0.3", "-W", "5", address)
        self.assertIn("3 received", done.stdout, done.stdout + done.stderr)

    async def refused(self: Any, address: str, port: int = PORT) -> None:
        """A connection is refused, at once."""
        seen = await self.client("tcp", address, 10, port)
        self.assertEqual(seen.get("error"), "ConnectionRefusedError", address)
        self.assertLess(seen["seconds"], 5)

    async def test_subnetRouter(self: Any) -> None:
        """
        It uses ours as a subnet router: networks by IPv4, and by IPv6 where that
        stands for the IPv4 of a site; and for nothing else.
        """
        site = viaPrefix(7, Prefix.parse(OFFICE_NET)).text()
        await self.ours(f"--advertise-routes={OFFICE_NET},{site}")
        await self.daemon.command("set", "--accept-routes")
        await self.reached(OFFICE)
        await self.reached(formatAddress(viaPrefix(7, Prefix.parse(OFFICE)).address))
        await self.refused(OFFICE, PORT + 1)

    async def test_exitNode(self: Any) -> None:
        """
        It uses ours as an exit node; what is near that one is refused, and so is
        IPv6.
        """
        await self.ours("--advertise-exit-node")
        await self.exitBy("ours")
        await self.reached(FAR)
        for address in (OFFICE, "192.168.1.1", FAR6):
            await self.refused(address)
        self.assertIn("that is no destination for peers", self.node.output())
        self.assertIn("only IPv4 leaves this node", self.node.output())

    async def exitBy(self: Any, name: str) -> None:
        """Let the real node send everything to another."""

        async def offered() -> bool:
            peers = (await self.daemon.status())["Peer"].values()
            return any(p["HostName"] == name and p["ExitNodeOption"] for p in peers)

        await eventually(self.reactor, offered, "the exit node is offered")
        await self.daemon.command("set", f"--exit-node={name}")


class ForwardingTests(ForwardingMixin, DevServersTestCase):
    """On our own control server, where it is tried in more ways."""

    async def test_pingBySocket(self) -> None:
        """Where the kernel lets everybody ping, it needs no program for that."""
        setting = "net.ipv4.ping_group_range=0 2147483647"
        subprocess.run(self.site.command("sysctl", "-qw", setting), check=True)
        await self.ours(f"--advertise-routes={OFFICE_NET}")
        await self.daemon.command("set", "--accept-routes")
        await self.reached(OFFICE)

    async def test_exitProxy(self) -> None:
        """
        What peers send leaves by a proxy, of either kind, that is another real
        daemon; without the proxy nothing leaves.
        """
        for number, scheme in enumerate(("socks5", "http")):
            address = f"{self.site.address}:{1055 + number}"
            flag = "socks5-server" if number == 0 else "outbound-http-proxy-listen"
            proxy = Tailscaled(
                self.reactor,
                self.site,
                self.directory / f"proxy{number}",
                flags=(f"--{flag}={address}",),
            )
            self.cleanUp(proxy.stop)
            await proxy.start()
            await proxy.up(self.controlURL, self.authKey, f"proxy{number}")
            name = f"exit{number}"
            await self.ours(
                "--advertise-exit-node",
                f"--exit-proxy={scheme}://{address}",
                name=name,
            )
            await self.exitBy(name)

            async def answers() -> bool:
                seen = await self.client("tcp", FAR, 100_000)
                return bool(seen.get("isEqual"))

            await eventually(self.reactor, answers, f"{FAR} answers", patience=30)
            seen = await self.client("udp", FAR, 100)
            self.assertEqual(seen, {"error": "ConnectionRefusedError"})
            await self.refused("192.168.1.1")
            await proxy.stop()
            await self.refused(FAR)

    async def test_manyFlows(self) -> None:
        """
        A thousand connections at once through our exit node, all of them good;
        and as many as one peer may have, no more.
        """
        await self.ours("--advertise-exit-node")
        await self.exitBy("ours")
        await self.reached(FAR)
        seen = await self.client("many", FAR, 1000)
        self.assertEqual(
            seen, {"open": 1000, "good": 1000, "errors": {}, "undecided": 0}
        )
        # Until all of these have ended.
        await self.pause(3)
        seen = await self.client("many", FAR, 1600)
        self.assertEqual(seen["open"], 1536, seen)
        self.assertEqual(seen["good"], 1536)
        self.assertEqual(seen["errors"], {"ConnectionRefusedError": 64})
        # And then there is room again.
        await self.pause(3)
        seen = await self.client("many", FAR, 100)
        self.assertEqual(seen["good"], 100)


class HeadscaleForwardingTests(ForwardingMixin, HeadscaleTestCase):
    """On Headscale."""

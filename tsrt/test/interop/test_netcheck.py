"""C{tsrt netcheck} beside C{tailscale netcheck}, against a real relay."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread

from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion, encode
from tsrt.test.interop.scenario import ScenarioTestCase
from tsrt.test.interop.servers import Derper
from tsrt.test.interop.tailscaled import Tailscaled
from tsrt.testing.control import ControlConfig, ControlServer
from tsrt.testing.stun import STUNServer


class NetcheckTests(ScenarioTestCase):
    """Both commands run in one namespace, and must find the same."""

    async def prepare(self) -> None:
        """Start a real relay, a second STUN server, and a daemon that knows them."""
        address = self.namespace.hostAddress
        directory = self.directory / "derper"
        directory.mkdir()
        derper = Derper(self.reactor, address, directory)
        self.cleanUp(derper.stop)
        await derper.start()
        stun = STUNServer(self.reactor, 0, address)
        stun.startService()
        self.addCleanup(stun.stopService)
        described: dict[int, DERPRegion | None] = {}
        for number, code, name, stunPort in (
            (1, "loc", "Local", derper.stunPort),
            (2, "oth", "Other", stun.port),
        ):
            node = DERPNode(
                name=f"{number}a",
                regionID=number,
                hostName=address,
                ipv4=address,
                ipv6="none",
                derpPort=derper.port,
                stunPort=stunPort,
                insecureForTests=True,
            )
            described[number] = DERPRegion(
                regionID=number, regionCode=code, regionName=name, nodes=[node]
            )
        derpMap = DERPMap(regions=described, omitDefaultRegions=True)
        self.map = self.directory / "map.json"
        self.map.write_bytes(encode(derpMap))
        control = ControlServer(
            self.reactor,
            TCP4ServerEndpoint(self.reactor, 0, interface=address),
            ControlConfig(derpMap=derpMap),
        )
        control.startService()
        self.addCleanup(control.stopService)
        url = await control.whenListening()
        self.daemon = Tailscaled(self.reactor, self.namespace, self.directory / "d")
        self.cleanUp(self.daemon.stop)
        await self.daemon.start()
        key = control.createAuthKey(reusable=True).text
        await self.daemon.up(url, key, "daemon")

    async def ours(self, *arguments: str) -> str:
        """What our command prints."""
        script = "from tsrt.cli.main import main; main()"
        command = self.namespace.command(
            *(sys.executable, "-c", script, "netcheck"),
            *("--derp-map", str(self.map), *arguments),
        )

        def run() -> str:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            if done.returncode:
                raise AssertionError(f"tsrt netcheck: {done.stdout}{done.stderr}")
            return done.stdout

        return await deferToThread(run)

    async def both(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The reports in JSON, ours first."""
        ours = json.loads(await self.ours("--format", "json"))
        theirs = json.loads(await self.daemon.command("netcheck", "--format=json"))
        return ours, theirs

    def same(self, ours: dict[str, Any], theirs: dict[str, Any], *names: str) -> None:
        """Both say the same of these."""
        for name in names:
            self.assertEqual(ours[name], theirs[name], name)

    async def test_same(self) -> None:
        """A good network: the same fields, with the same values."""
        ours, theirs = await self.both()
        self.assertEqual(list(ours), list(theirs))
        self.same(
            *(ours, theirs, "UDP", "IPv4", "IPv6", "IPv4CanSend", "OSHasIPv6"),
            *("MappingVariesByDestIP", "CaptivePortal", "GlobalV6"),
        )
        self.assertIs(ours["UDP"], True)
        self.assertEqual(ours["RegionLatency"].keys(), theirs["RegionLatency"].keys())
        self.assertEqual(
            ours["GlobalV4"].split(":")[0], theirs["GlobalV4"].split(":")[0]
        )
        for name in ("UPnP", "PMP", "PCP"):
            self.assertFalse(ours[name])
            self.assertFalse(theirs[name])

    async def test_noUDP(self) -> None:
        """Without UDP both measure by HTTPS."""
        self.namespace.cutUDP()
        ours, theirs = await self.both()
        self.same(ours, theirs, "UDP", "GlobalV4", "MappingVariesByDestIP")
        self.assertIs(ours["UDP"], False)
        self.assertEqual(ours["RegionLatency"].keys(), theirs["RegionLatency"].keys())

    async def test_text(self) -> None:
        """For people there are the same lines, with the same words."""
        ours, theirs = [
            [line.split(":")[0] for line in text.splitlines() if "\t-" not in line]
            for text in (await self.ours(), await self.daemon.command("netcheck"))
        ]
        self.assertEqual(ours, theirs)

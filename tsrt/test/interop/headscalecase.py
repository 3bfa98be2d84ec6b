"""Tests on a real Headscale, with a relay that we did not write."""

from __future__ import annotations

from typing import Any

from tsrt.test.interop.programs import eventually
from tsrt.test.interop.scenario import ScenarioTestCase
from tsrt.test.interop.servers import Derper, Headscale


class HeadscaleTestCase(ScenarioTestCase):
    """Runs Headscale and a relay."""

    async def prepare(self) -> None:
        """Start both on the test's end of the link."""
        address = self.namespace.hostAddress
        self.derper = Derper(self.reactor, address, self.directory / "derper")
        self.cleanUp(self.derper.stop)
        await self.derper.start()
        self.headscale = Headscale(
            self.reactor, address, self.directory / "headscale", self.derper
        )
        self.cleanUp(self.headscale.stop)
        await self.headscale.start()
        self.controlURL = self.headscale.url
        self.authKey = await self.headscale.authKey("--reusable")

    async def record(self, name: str) -> dict[str, Any]:
        """What the server knows of a node."""
        [found] = [n for n in await self.headscale.nodes() if n["name"] == name]
        return found

    async def approveRoutes(self, name: str) -> None:
        """Approve all routes that a node offers, once it offers any."""

        async def offered() -> bool:
            return bool((await self.record(name)).get("available_routes"))

        await eventually(self.reactor, offered, "routes are offered")
        record = await self.record(name)
        await self.headscale.command(
            *("nodes", "approve-routes", "-i", str(record["id"])),
            *("-r", ",".join(record["available_routes"])),
        )

    async def deleteNode(self, name: str) -> None:
        """Take a node out of the tailnet."""
        record = await self.record(name)
        await self.headscale.command("nodes", "delete", "-i", str(record["id"]))

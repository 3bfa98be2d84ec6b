"""
Tests for L{tsrt.underlay.gateway}.
"""

from __future__ import annotations

import sys

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tsrt.addresses import parseAddress
from tsrt.path.mappings import Gateway
from tsrt.underlay.gateway import findGateway, parseRouteGet, parseRoutePrint

MACOS = """\
   route to: default
destination: default
       mask: default
    gateway: 192.168.1.1
  interface: en0
      flags: <UP,GATEWAY,DONE,STATIC,PRCLONING,GLOBAL>
"""

MACOS_TUNNEL = """\
   route to: default
destination: default
  interface: utun4
"""

WINDOWS = """\
===========================================================================
IPv4 Route Table
===========================================================================
Active Routes:
Network Destination        Netmask          Gateway       Interface  Metric
          0.0.0.0          0.0.0.0         10.0.0.1         10.0.0.9     55
          0.0.0.0          0.0.0.0      192.168.1.1     192.168.1.50     25
          0.0.0.0          0.0.0.0         On-link      100.64.0.1       5
===========================================================================
"""


class ParserTests(SynchronousTestCase):
    """What the programs of other systems say."""

    def test_macOS(self) -> None:
        """macOS tells the gateway, where there is one."""
        self.assertEqual(parseRouteGet(MACOS), parseAddress("192.168.1.1"))
        self.assertIsNone(parseRouteGet(MACOS_TUNNEL))
        self.assertIsNone(parseRouteGet(""))
        self.assertIsNone(parseRouteGet("    gateway: 999.1.1.1\n"))

    def test_windows(self) -> None:
        """Windows tells all of them; the one with the least metric is used."""
        self.assertEqual(
            parseRoutePrint(WINDOWS),
            Gateway(parseAddress("192.168.1.1"), parseAddress("192.168.1.50")),
        )
        self.assertIsNone(parseRoutePrint(""))
        self.assertIsNone(parseRoutePrint("  0.0.0.0  0.0.0.0  1.2.3.400  1.2.3.4  1"))


class FindTests(TestCase):
    """The machine that this test runs on."""

    def test_simulated(self) -> None:
        """A clock has no gateway."""
        self.assertIsNone(self.successResultOf(findGateway(Clock())))

    async def test_here(self) -> None:
        """There is one or there is none, and both addresses are of IPv4."""
        from twisted.internet import reactor

        gateway = await findGateway(reactor)
        if gateway is not None:
            self.assertEqual((len(gateway.address), len(gateway.own)), (4, 4))

    async def test_noProgram(self) -> None:
        """Where the system's program is missing, no gateway is found."""
        from twisted.internet import reactor

        if sys.platform == "win32":
            platform = "darwin"
        else:
            platform = "win32"
        self.assertIsNone(await findGateway(reactor, platform))

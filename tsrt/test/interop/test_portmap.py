"""
L{tsrt.underlay.portmapper} and a real gateway: miniupnpd, which many home
routers run, maps ports with nftables in a network namespace.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SkipTest, TestCase

import tsrt
from tsrt.test.interop.namespaces import MappingNamespace
from tsrt.test.interop.programs import Program, eventually, required, spawn
from tsrt.test.interop.test_linkmonitor import whySkip

reactor: Any = _reactor

DAEMON = shutil.which("miniupnpd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")

# The daemon maps nothing while its own address is a private one, so it is told
# that another is in front of it. Nothing is ever sent there.
OUTSIDE = "5.6.7.8"

CONFIGURATION = f"""\
ext_ifname=wan
ext_ip={OUTSIDE}
listening_ip=lan
http_port=5000
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
system_uptime=no
notify_interval=900
uuid=6d696e69-7570-6e70-6400-000000000001
upnp_table_name=filter
upnp_nat_table_name=filter
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


class Mapper(Program):
    """The program that has a port mapped."""

    def lines(self) -> list[dict[str, Any]]:
        """What it told."""
        return [
            json.loads(line)
            for line in self.output().splitlines(keepends=True)
            if line.startswith("{") and line.endswith("\n")
        ]


class Stranger(DatagramProtocol):
    """Somebody outside, who writes and hears."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        """See L{DatagramProtocol}."""
        self.heard.append(datagram)


class PortMapTests(TestCase):
    """One protocol after the other."""

    timeout = 60

    def setUp(self) -> None:
        reason = whySkip()
        if reason is None and DAEMON is None:
            reason = required("miniupnpd is not installed (miniupnpd-nftables)")
        if reason is not None:
            raise SkipTest(reason)
        self.namespace = MappingNamespace()
        self.addCleanup(self.namespace.remove)
        self.namespace.make()
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        (self.directory / "miniupnpd.conf").write_text(CONFIGURATION)
        assert DAEMON is not None
        self.daemon = Program("miniupnpd", self.directory / "miniupnpd.log")
        spawn(
            reactor,
            self.daemon,
            self.namespace.onRouter(
                DAEMON, "-d", "-f", "miniupnpd.conf", "-P", "miniupnpd.pid"
            ),
            self.directory,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(self.daemon.stop(reactor)))

    async def run_(self, service: str) -> None:
        """Get a port by a protocol, use it, give it back."""
        mapper = Mapper("mapport", self.directory / f"{service}.log")
        spawn(
            reactor,
            mapper,
            self.namespace.command(
                sys.executable, "-m", "tsrt.test.interop.mapport", service
            ),
            self.directory,
            {"PYTHONPATH": str(Path(tsrt.__file__).parent.parent)},
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(mapper.stop(reactor)))
        await eventually(
            reactor, lambda: len(mapper.lines()) >= 2, "a mapping, and a probe", 25
        )
        first, second = mapper.lines()[:2]
        self.assertEqual(first.get("service"), service, self.why(mapper))
        self.assertEqual(second, {"services": ["NAT-PMP", "PCP", "UPnP"]})
        host, _, port = first["address"].partition(":")
        self.assertEqual(host, OUTSIDE)
        stranger = Stranger()
        listening = reactor.listenUDP(0, stranger, interface=self.namespace.hostAddress)
        self.addCleanup(listening.stopListening)
        listening.write(b"hello", (self.namespace.external, int(port)))
        await eventually(reactor, lambda: stranger.heard, "an echo", 5)
        self.assertEqual(stranger.heard, [b"hello"])
        self.assertIn(f"dport {port}", self.namespace.rules())
        await mapper.stop(reactor)
        await eventually(
            reactor,
            lambda: f"dport {port}" not in self.namespace.rules(),
            "the end of the mapping",
            5,
        )

    def why(self, mapper: Mapper) -> str:
        """What was said by both."""
        return f"{mapper.output()}\n{self.daemon.output()}"[-4000:]

    def test_natPMP(self) -> Any:
        """NAT-PMP."""
        return Deferred.fromCoroutine(self.run_("NAT-PMP"))

    def test_pcp(self) -> Any:
        """PCP."""
        return Deferred.fromCoroutine(self.run_("PCP"))

    def test_upnp(self) -> Any:
        """UPnP."""
        return Deferred.fromCoroutine(self.run_("UPnP"))

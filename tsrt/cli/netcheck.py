"""C{tsrt netcheck}: what the network around this machine lets through."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from hyperlink import URL
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.python.usage import UsageError

from tsrt.addresses import parseAddress
from tsrt.cli.derpmaps import loadDERPMap
from tsrt.cli.netcheckreport import Analysis
from tsrt.cli.options import CommandOptions
from tsrt.config import NodeConfig, Seams, parseDuration
from tsrt.derp.latency import measureLatency
from tsrt.errors import ConfigError, WireError
from tsrt.path.captive import TAILSCALE_HOSTS, portalChecks
from tsrt.path.mappings import Service
from tsrt.path.netcheck import ENOUGH_REGIONS
from tsrt.tailcfg import DERPMap
from tsrt.underlay.captiveportal import findCaptivePortal
from tsrt.underlay.dial import StreamDialer
from tsrt.underlay.netcheck import NetcheckService
from tsrt.underlay.portmapper import PortMapper
from tsrt.underlay.socket import UnderlayBindError, UnderlaySocket
from tsrt.underlay.trust import trustRoot

_EVERY_REGION = 100
"""So many regions must answer before a check that shall tell all ends early."""


class NetcheckOptions(CommandOptions):
    """The options of C{tsrt netcheck}."""

    command = "tsrt netcheck"
    longdesc = (
        "Tells whether UDP works, what a NAT makes of this machine, how far away "
        "each relay is, and whether the gateway maps ports. The relays are those "
        "of the login server, which must be Tailscale's, or of --derp-map."
    )
    optFlags = [
        ["verbose", None, "Wait for every region, and log what happens inside."],
        ["allow-http", None, "Permit an http:// login server on a public address."],
    ]
    optParameters = [
        ["format", None, None, "Output format: json, json-line; text by default."],
        ["every", None, None, "Check again and again, with this long between (5s)."],
        ["bind-address", None, None, "Probe from this address of the machine only."],
        ["bind-port", None, 0, "Probe from this UDP port.", int],
        ["derp-map", None, None, "File or https:// URL of a map of relays in JSON."],
        ["login-server", None, None, "URL of the control server."],
        ["ca-file", None, None, "PEM file of further certificate authorities."],
    ]

    def __init__(self, seams: Seams | None = None) -> None:
        """
        @param seams: what a test replaces.
        """
        super().__init__()
        self._seams = Seams() if seams is None else seams

    def postOptions(self) -> None:
        """See L{UsageOptions}."""
        if self["format"] not in (None, "json", "json-line"):
            raise UsageError(f"--format knows json and json-line, not {self['format']}")
        if not 0 <= self["bind-port"] < 65536:
            raise UsageError(f"--bind-port {self['bind-port']} is not a port")
        address = self["bind-address"]
        try:
            if address is not None:
                parseAddress(address)
        except WireError:
            raise UsageError(f"--bind-address {address!r} is no address") from None
        try:
            self["every"] = parseDuration(self["every"] or "0")
            caFile = self["ca-file"]
            self.config = NodeConfig.fromEnvironment(
                controlURL=self["login-server"],
                caFile=None if caFile is None else Path(caFile),
                allowHTTP=True if self["allow-http"] else None,
            )
        except ConfigError as error:
            raise UsageError(error.describe()) from None

    async def run(self, reactor: Any, out: TextIO) -> None:
        """Check, and print what was found."""
        if self["verbose"]:
            globalLogPublisher.addObserver(textFileLogObserver(sys.stderr))
        config = self.config
        dialer = StreamDialer(reactor, config.proxy, trustRoot(config.caFile))
        derpMap = await loadDERPMap(reactor, dialer, config, self["derp-map"])
        # Tailscale's own hosts are asked by those who use them anyway.
        isTheirs = URL.from_text(config.controlURL).host in TAILSCALE_HOSTS
        hosts = TAILSCALE_HOSTS if isTheirs and self["derp-map"] is None else ()
        checking = _Checking(reactor, self, self._seams, dialer, derpMap, hosts)
        checking.start()
        try:
            while True:
                analysis = await checking.check()
                out.write(self._formatted(analysis))
                out.flush()
                if not self["every"]:
                    break
                await deferLater(reactor, self["every"])
        finally:
            await checking.stop()

    def _formatted(self, analysis: Analysis) -> str:
        if self["format"]:
            return analysis.json(indent=self["format"] == "json")
        return analysis.text(verbose=self["verbose"])


class _Checking:
    """The parts of a check, from start to stop."""

    def __init__(
        self,
        reactor: Any,
        options: NetcheckOptions,
        seams: Seams,
        dialer: StreamDialer,
        derpMap: DERPMap,
        portalHosts: tuple[str, ...],
    ) -> None:
        self._reactor = reactor
        self._seams = seams
        self._derpMap = derpMap
        self._isFirst = True
        port = options["bind-port"]
        self._address = options["bind-address"] or ""
        self._socket = UnderlaySocket(
            reactor, port=port, strict=True, address=self._address
        )
        self._netcheck = NetcheckService(
            reactor,
            self._socket,
            dialer,
            randbytes=seams.randbytes,
            onReport=lambda report: None,
            httpsLatency=measureLatency,
            findPortal=lambda derpMap, home: findCaptivePortal(
                reactor, portalChecks(derpMap, home, portalHosts)
            ),
            enough=_EVERY_REGION if options["verbose"] else ENOUGH_REGIONS,
            isActive=lambda: False,
        )
        self._mapper = PortMapper(
            reactor,
            randbytes=seams.randbytes,
            gateway=lambda: seams.gateway(reactor),
            localPort=lambda: self._socket.localPort(4),
            onChange=lambda address: None,
            isEnabled=options.config.portMapping,
            mayUPnP=options.config.upnp,
            mayMap=False,
        )

    def start(self) -> None:
        """
        Open what there is to open.

        @raise UnderlayBindError: the port that was asked for is taken.
        @raise ConfigError: the address is none of this machine's.
        """
        self._socket.startService()
        if not self._socket.has(4) and not self._socket.has(6):
            reasons = "; ".join(sorted(set(self._socket.errors.values())))
            at = f" at {self._address}" if self._address else ""
            raise UnderlayBindError(f"no UDP port is to be had{at}: {reasons}")
        self._mapper.startService()
        self._netcheck.setMap(self._derpMap)
        self._netcheck.startService()

    async def stop(self) -> None:
        """Close it again."""
        if self._netcheck.running:
            self._netcheck.stopService()
        if self._mapper.running:
            await self._mapper.stopService()
        await self._socket.stopService()

    async def check(self) -> Analysis:
        """Check once; all regions the first time."""
        probing = self._mapper.probe() if self._mapper.isEnabled else None
        report = await self._netcheck.check(isFull=self._isFirst)
        self._isFirst = False
        services: frozenset[Service] | None = None
        if probing is not None:
            services = await probing
        when = datetime.fromtimestamp(self._seams.wallclock(), UTC)
        return Analysis(
            time=when.astimezone(),
            report=report,
            derpMap=self._derpMap,
            services=services,
            hasIPv6=await _hasIPv6(self._reactor),
        )


async def _hasIPv6(reactor: Any) -> bool:
    """Whether a socket can be had on IPv6's own loopback address."""
    try:
        port = reactor.listenUDP(0, DatagramProtocol(), "::1")
    except CannotListenError:
        return False
    stopping = port.stopListening()
    if isinstance(stopping, Deferred):
        await stopping
    return True

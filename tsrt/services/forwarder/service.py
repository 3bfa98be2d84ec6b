"""The forwarder of a node: it is there always, and works while there are routes."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from tsrt.interfaces import IHostPinger
from tsrt.netmap.forwarding import ForwardTable, PortRanges
from tsrt.overlay.fallback import FallbackHandlers, FallbackListener
from tsrt.runtime.forwarding import ForwardingOverlay
from tsrt.services.forwarder.caps import ForwardLimits
from tsrt.services.forwarder.echo import EchoForwarder
from tsrt.services.forwarder.egress import Egress
from tsrt.services.forwarder.gate import Gate
from tsrt.services.forwarder.tcp import TCPForwarder
from tsrt.services.forwarder.udp import UDPForwarder

_log = Logger(namespace="tsrt.forwarder")


class Forwarder(Service):
    """
    Carries flows between peers and real networks.

    @ivar tcp: the TCP flows.
    @ivar udp: the UDP flows.
    """

    name = "forwarder"

    def __init__(
        self,
        reactor: IReactorTime,
        context: ForwardingOverlay,
        egress: Egress,
        pinger: IHostPinger,
        *,
        tcpPorts: PortRanges | None = None,
        udpPorts: PortRanges | None = None,
        limits: ForwardLimits | None = None,
        handlers: FallbackHandlers,
    ) -> None:
        """
        @param context: the stack that takes packets to any address.
        @param egress: the one door to real networks.
        @param pinger: pings hosts for peers.
        @param tcpPorts: what is forwarded; C{None}: all ports.
        @param udpPorts: the same for UDP.
        @param handlers: take TCP flows before they are forwarded.
        """
        limits = ForwardLimits() if limits is None else limits
        gate = Gate(context)
        self._context = context
        claim = FallbackListener(context, handlers).claim
        self.tcp = TCPForwarder(reactor, context, gate, egress, tcpPorts, limits, claim)
        self.udp = UDPForwarder(context, gate, egress, udpPorts, limits)
        self._echo = EchoForwarder(context, gate, egress, pinger, limits)
        self._pinger = pinger
        self._interval = limits.sweep
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor
        # Nothing passes but by these (R-FWD-3: on this stack alone).
        stack = context.stack
        stack.fallback = self.tcp.asked
        stack.datagramFallback = self.udp.asked
        stack.echoFallback = self._echo.asked
        context.follow(self._tableChanged, self.udp.cut)

    def startService(self) -> None:
        """Look now and then for what is over, while there are routes."""
        super().startService()
        self._sweepIfNeeded()

    def stopService(self) -> Deferred[None] | None:
        """End all flows."""
        super().stopService()
        if self._sweeping.running:
            self._sweeping.stop()
        self.tcp.stop()
        self.udp.stop()
        self._echo.stop()
        self._pinger.stop()
        return None

    def _sweepIfNeeded(self) -> None:
        if self.running and not self._sweeping.running and self._context.table:
            self._sweeping.start(self._interval, now=False).addErrback(
                lambda failure: _log.failure("flows are not ended any more", failure)
            )

    def _sweep(self) -> None:
        self.tcp.sweep(self._interval)
        self.udp.sweep(self._interval)

    def _tableChanged(self, table: ForwardTable) -> None:
        _log.info(
            "forwarding what peers send to {routes}; known to be approved: {approved}",
            routes=", ".join(map(str, table.prefixes)) or "nothing",
            approved=", ".join(map(str, table.approved)) or "none",
        )
        self.tcp.recheck()
        self.udp.recheck()
        self._sweepIfNeeded()

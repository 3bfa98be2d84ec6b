"""
TCP through this node: a connection of a peer, joined to one of this host.

The far end is reached first.  Until then the peer's request goes unanswered; if
the far end refuses, the peer is refused, as if it had asked there itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.addresses import formatAddress
from tsrt.errors import EgressRefused
from tsrt.netmap.forwarding import Destination, PortRanges
from tsrt.netstack.flow import TCPFlow
from tsrt.netstack.held import HeldSYN
from tsrt.netstack.listen import Listener
from tsrt.overlay.fallback import Refusal
from tsrt.overlay.transport import TailnetTCPTransport
from tsrt.runtime.forwarding import ForwardingOverlay
from tsrt.services.forward import Half
from tsrt.services.forwarder.caps import FlowCaps, ForwardLimits
from tsrt.services.forwarder.egress import DIAL_TIMEOUT, Egress
from tsrt.services.forwarder.gate import Gate

_log = Logger(namespace="tsrt.forwarder")

_BACKLOG = 2048

FlowKey = tuple[bytes, int, bytes, int]
"""Address and port of the peer, address and port that it wants."""


Claim = Callable[[bytes, int, bytes, int], Listener | HeldSYN | Refusal | None]


class Side(Half):
    """One of the two connections of a flow."""

    def __init__(self, flow: ForwardedTCP) -> None:
        self._flow = flow

    def connectionMade(self) -> None:
        """See L{Half}."""
        self._flow.sides.add(self)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Pass data on."""
        self._flow.isActive = True
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{Half}; the last one ends the flow."""
        super().connectionLost(reason)
        self._flow.sides.discard(self)
        if not self._flow.sides:
            self._flow.end()


class ForwardedTCP:
    """
    One flow, from the request to the end of both connections.

    @ivar held: the request of the peer.
    @ivar isReached: whether the far end was reached; C{None}: not known yet.
    @ivar sides: the connections that are open.
    @ivar isActive: whether anything was carried since the last look.
    @ivar idle: seconds, about, since something was.
    """

    def __init__(
        self, key: FlowKey, to: Destination, end: Callable[[ForwardedTCP], object]
    ) -> None:
        self.key = key
        self.to = to
        self.held = HeldSYN()
        self.isReached: bool | None = None
        self.isAccepted = False
        self.sides: set[Side] = set()
        self.farSide: Side | None = None
        self.connecting: Deferred[None] | None = None
        self.isActive = False
        self.idle = 0.0
        self._end: Callable[[ForwardedTCP], object] | None = end

    def end(self) -> None:
        """Nothing of it is open any more."""
        end, self._end = self._end, None
        if end is not None:
            end(self)

    def abort(self) -> None:
        """Break what is open."""
        if self.connecting is not None:
            self.connecting.cancel()
        for side in list(self.sides):
            cast(ITCPTransport, side.transport).abortConnection()


class TCPForwarder:
    """
    Takes all TCP connections of the forwarding stack.

    @ivar flows: those that there are, by their addresses and ports.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        context: ForwardingOverlay,
        gate: Gate,
        egress: Egress,
        ports: PortRanges | None,
        limits: ForwardLimits,
        claim: Claim,
    ) -> None:
        """
        @param ports: those that are forwarded; C{None}: all.
        @param claim: asked first, for programs that take some flows themselves.
        """
        self._claim = claim
        self._reactor = reactor
        self._context = context
        self._gate = gate
        self._egress = egress
        self._ports = ports
        self._limits = limits
        self._caps = FlowCaps(limits.tcp, limits.tcpPerPeer)
        self._listener: Listener = context.stack.listenDetached(_BACKLOG)
        self._listener.owner = self
        self.flows: dict[FlowKey, ForwardedTCP] = {}

    def asked(
        self, remote: bytes, remotePort: int, local: bytes, localPort: int
    ) -> Listener | HeldSYN | None:
        """A peer wants to connect: the fallback of the stack."""
        key = (remote, remotePort, local, localPort)
        flow = self.flows.get(key)
        if flow is None:
            claimed = self._claim(remote, remotePort, local, localPort)
            if claimed is not None:
                return None if isinstance(claimed, Refusal) else claimed
            try:
                flow = self._begin(key)
            except EgressRefused as error:
                self._gate.refused(error, remote, local)
                return None
        if flow.isReached is None:
            return flow.held
        if flow.isReached:
            return self._listener
        flow.end()
        return None

    def _begin(self, key: FlowKey) -> ForwardedTCP:
        remote, _, local, port = key
        to = self._gate.destination(local, port, self._ports)
        endpoint = self._egress.endpoint(to, port)
        peer = self._context.peerOf(remote)
        self._caps.take(peer)

        def end(flow: ForwardedTCP) -> None:
            del self.flows[key]
            self._caps.release(peer)

        flow = self.flows[key] = ForwardedTCP(key, to, end)
        factory = Factory.forProtocol(lambda: Side(flow))
        factory.noisy = False
        connecting = endpoint.connect(factory)
        connecting.addTimeout(DIAL_TIMEOUT, self._reactor)
        flow.connecting = connecting.addCallbacks(
            lambda side: self._reached(flow, cast(Side, side)),
            lambda failure: self._missed(flow, failure),
        ).addErrback(lambda failure: _log.failure("a flow was not joined", failure))
        return flow

    def _reached(self, flow: ForwardedTCP, side: Side) -> None:
        flow.connecting = None
        flow.farSide = side
        flow.isReached = True
        self._askAgain(flow)

    def _missed(self, flow: ForwardedTCP, failure: Failure) -> None:
        flow.connecting = None
        flow.isReached = False
        self._gate.failed(failure.value)
        _log.debug(
            "{address} was not reached for a peer: {reason}",
            address=formatAddress(flow.to.address),
            reason=failure.getErrorMessage() or failure,
        )
        self._askAgain(flow)

    def _askAgain(self, flow: ForwardedTCP) -> None:
        """Give the stack the request once more, now that there is an answer."""
        packet = flow.held.packet
        if packet is not None:
            self._context.stack.receive([packet], self._context.now())
            self._context.flush()

    def stackReady(self) -> None:
        """Peers have finished their handshakes."""
        while True:
            accepted = self._listener.accept()
            if accepted is None:
                return
            self._accept(accepted)

    def _accept(self, accepted: TCPFlow) -> None:
        key = (
            accepted.remoteAddress,
            accepted.remotePort,
            accepted.localAddress,
            accepted.localPort,
        )
        flow = self.flows.get(key)
        if flow is None or flow.isAccepted or flow.farSide not in flow.sides:
            # The far end is gone meanwhile.
            accepted.abort()
            self._context.flush()
            return
        flow.isAccepted = True
        self._context.counters.tcpFlows += 1
        near = Side(flow)
        TailnetTCPTransport(self._context, accepted, isClient=False).attach(near)
        if near in flow.sides:
            near.join(flow.farSide)
        else:
            flow.abort()

    def sweep(self, seconds: float) -> None:
        """
        End what is over.

        @param seconds: how long it is since the last time.
        """
        for flow in list(self.flows.values()):
            if flow.isActive:
                flow.isActive = False
                flow.idle = 0.0
                continue
            flow.idle += seconds
            limits = self._limits
            most = limits.tcpIdle if flow.isAccepted else limits.handshake
            if flow.idle >= most:
                flow.abort()

    def recheck(self) -> None:
        """Other routes are in force: end the flows that they do not lead."""
        for flow in list(self.flows.values()):
            if self._context.table.classify(flow.key[2]) != flow.to:
                flow.abort()

    def stop(self) -> None:
        """End all flows."""
        for flow in list(self.flows.values()):
            flow.abort()

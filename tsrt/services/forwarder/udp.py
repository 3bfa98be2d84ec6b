"""
UDP through this node: a socket of this host for each flow of a peer.

A flow is one peer's address and port with one destination's; what comes back to
its socket comes from the destination, and goes to the peer as if from there.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol

from tsrt.errors import EgressRefused, NoFreePort, PortInUse
from tsrt.netmap.forwarding import Destination, PortRanges
from tsrt.netstack.datagrams import UDPBinding
from tsrt.netstack.flowtable import FlowCheck
from tsrt.runtime.forwarding import ForwardingOverlay
from tsrt.services.forwarder.caps import FlowCaps, ForwardLimits
from tsrt.services.forwarder.egress import Egress
from tsrt.services.forwarder.gate import Gate

_DNS = 53

FlowKey = tuple[bytes, int, bytes]
"""Address and port of the peer, and the address that it wants."""


class ForwardedUDP(DatagramProtocol):
    """
    One flow: the protocol of its socket.

    @ivar idle: seconds, about, since something was carried.
    """

    def __init__(
        self,
        to: Destination,
        answer: Callable[[bytes], object],
        end: Callable[[], object],
    ) -> None:
        """
        @param answer: takes what is for the peer.
        @param end: called once, when the flow is over.
        """
        self.to = to
        self.idle = 0.0
        self._answer = answer
        self._end: Callable[[], object] | None = end
        self.port: IListeningPort | None = None

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        """The destination answers."""
        if self._end is not None:
            self.idle = 0.0
            self._answer(datagram)

    def connectionRefused(self) -> None:
        """Nobody listens over there."""
        self.end()

    def send(self, data: bytes) -> None:
        """Send what the peer sent; an error ends the flow."""
        self.idle = 0.0
        if self.transport is None:
            return
        try:
            self.transport.write(data, None)
        except (OSError, MessageLengthError):
            self.end()

    def end(self) -> None:
        """Give the socket back."""
        end, self._end = self._end, None
        if end is None:
            return
        port, self.port = self.port, None
        if port is not None:
            port.stopListening()
        end()


class _Port:
    """A port of the forwarding stack, with its flows to all addresses."""

    def __init__(self, forwarder: UDPForwarder, binding: UDPBinding) -> None:
        self._forwarder = forwarder
        self.binding = binding
        self.flows: dict[FlowKey, ForwardedUDP] = {}

    def stackReady(self) -> None:
        """Peers have sent something."""
        while True:
            received = self.binding.receive()
            if received is None:
                break
            key = (received.address, received.port, received.localAddress)
            flow = self.flows.get(key)
            if flow is None:
                flow = self._forwarder.begin(self, key)
            if flow is not None:
                flow.send(received.data)
        self.binding.errors.clear()
        if not self.flows:
            self._forwarder.close(self)


class UDPForwarder:
    """Takes all datagrams of the forwarding stack."""

    def __init__(
        self,
        context: ForwardingOverlay,
        gate: Gate,
        egress: Egress,
        ports: PortRanges | None,
        limits: ForwardLimits,
    ) -> None:
        """
        @param ports: those that are forwarded; C{None}: all.
        """
        self._context = context
        self._gate = gate
        self._egress = egress
        self._forwarded = ports
        self._limits = limits
        self._caps = FlowCaps(limits.udp, limits.udpPerPeer)
        self._ports: dict[int, _Port] = {}

    def flows(self) -> list[ForwardedUDP]:
        """All flows, as they are now."""
        return [flow for port in self._ports.values() for flow in port.flows.values()]

    def asked(
        self, remote: bytes, remotePort: int, local: bytes, localPort: int
    ) -> UDPBinding | None:
        """A peer sends to a port that is not bound: the fallback of the stack."""
        try:
            to = self._gate.destination(local, localPort, self._forwarded)
            self._egress.checkDatagrams(to)
        except EgressRefused as error:
            self._gate.refused(error, remote, local)
            return None
        try:
            binding = self._context.stack.bindUDP(localPort)
        except (NoFreePort, PortInUse):
            self._context.counters.droppedFull += 1
            return None
        port = self._ports[localPort] = _Port(self, binding)
        binding.owner = port
        return binding

    def begin(self, port: _Port, key: FlowKey) -> ForwardedUDP | None:
        """A flow for the first datagram of a peer; C{None} if there is to be none."""
        remote, remotePort, local = key
        context, number = self._context, port.binding.port
        peer = context.peerOf(remote)

        def answer(data: bytes) -> None:
            if not port.binding.closed:
                port.binding.send(data, remote, remotePort, context.now(), local)
                context.flush()

        def end() -> None:
            self._caps.release(peer)
            port.flows.pop(key, None)
            if not port.flows:
                self.close(port)

        try:
            to = self._gate.destination(local, number, self._forwarded)
            self._caps.take(peer)
        except EgressRefused as error:
            self._gate.refused(error, remote, local)
            return None
        flow = ForwardedUDP(to, answer, end)
        try:
            flow.port = self._egress.datagrams(to, number, flow)
        except (EgressRefused, CannotListenError, OSError) as error:
            if isinstance(error, EgressRefused):
                self._gate.refused(error, remote, local)
            else:
                self._gate.failed(getattr(error, "socketError", error))
            flow.end()
            return None
        port.flows[key] = flow
        context.counters.udpFlows += 1
        return flow

    def close(self, port: _Port) -> None:
        """No flow uses the port any more."""
        if not port.binding.waiting:
            port.binding.close()
            if self._ports.get(port.binding.port) is port:
                del self._ports[port.binding.port]

    def sweep(self, seconds: float) -> None:
        """
        End what is over.

        @param seconds: how long it is since the last time.
        """
        for number, port in list(self._ports.items()):
            most = self._limits.dnsIdle if number == _DNS else self._limits.udpIdle
            for flow in list(port.flows.values()):
                flow.idle += seconds
                if flow.idle >= most:
                    flow.end()

    def recheck(self) -> None:
        """Other routes are in force: end the flows that they do not lead."""
        for port in list(self._ports.values()):
            for key, flow in list(port.flows.items()):
                if self._context.table.classify(key[2]) != flow.to:
                    flow.end()

    def cut(self, isAllowed: FlowCheck) -> None:
        """Other rules are in force: end the flows that they forbid."""
        for number, port in list(self._ports.items()):
            for (remote, _, local), flow in list(port.flows.items()):
                if not isAllowed(remote, local, number):
                    flow.end()

    def stop(self) -> None:
        """End all flows."""
        for flow in self.flows():
            flow.end()

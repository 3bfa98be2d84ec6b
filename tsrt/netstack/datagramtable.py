"""All UDP bindings of a stack: finding the binding of a datagram."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tsrt.errors import WireError
from tsrt.netstack.datagrams import (
    DatagramError,
    DatagramFailure,
    Received,
    UDPBinding,
)
from tsrt.netstack.egress import Egress
from tsrt.netstack.icmp import ICMP
from tsrt.netstack.icmperrors import NetworkError, Trouble
from tsrt.netstack.limits import StackCounters, StackLimits
from tsrt.netstack.ports import PortTable, Scope
from tsrt.netstack.ready import ReadyList
from tsrt.wire.ip import IPHeader
from tsrt.wire.udp import parseUDP, verifyUDP

DatagramFallback: TypeAlias = Callable[[bytes, int, bytes, int], UDPBinding | None]
"""Asked with remote address and port, local address and port."""

_FAILURES = {
    Trouble.UNREACHABLE: DatagramFailure.UNREACHABLE,
    Trouble.PORT_UNREACHABLE: DatagramFailure.PORT_UNREACHABLE,
    Trouble.PROHIBITED: DatagramFailure.PROHIBITED,
    Trouble.TOO_BIG: DatagramFailure.TOO_BIG,
    Trouble.EXPIRED: DatagramFailure.EXPIRED,
}


class DatagramTable:
    """
    The UDP bindings of one stack.

    @ivar fallback: who takes datagrams for ports that are not bound; L{None}
        answers that the port is unreachable.
    """

    __slots__ = (
        "_bindings",
        "_counters",
        "_egress",
        "_icmp",
        "_limits",
        "_randbytes",
        "_ready",
        "fallback",
    )

    def __init__(
        self,
        egress: Egress,
        icmp: ICMP,
        ready: ReadyList[object],
        randbytes: Callable[[int], bytes],
        limits: StackLimits,
        counters: StackCounters,
    ) -> None:
        self.fallback: DatagramFallback | None = None
        self._egress = egress
        self._icmp = icmp
        self._ready = ready
        self._randbytes = randbytes
        self._limits = limits
        self._counters = counters
        self._bindings: PortTable[UDPBinding] = PortTable()

    def __len__(self) -> int:
        return len(self._bindings)

    def bind(self, port: int, scope: Scope, queueLimit: int | None) -> UDPBinding:
        """
        Bind a port; see C{Stack.bindUDP}.

        @raise PortInUse: if the port is taken.
        @raise NoFreePort: if no port is free, or there are too many bindings.
        @raise ValueError: if port or scope is none.
        """
        limits = self._limits
        port = self._bindings.choose(port, scope, limits.bindings, self._randbytes)
        return UDPBinding(
            scope,
            port,
            self._bindings,
            self._egress,
            limits,
            self._counters,
            queueLimit,
        )

    def receive(self, header: IPHeader, now: float) -> None:
        """Take a packet with a UDP datagram to one of our addresses."""
        counters = self._counters
        try:
            datagram = parseUDP(header.packet, header.start, header.end)
        except WireError:
            counters.droppedMalformed += 1
            return
        port = datagram.destinationPort
        if not port:
            counters.droppedMalformed += 1
            return
        if not verifyUDP(header, datagram):
            counters.droppedChecksum += 1
            return
        local, remote = header.destination, header.source
        binding = self._bindings.find(local, port)
        if binding is None and self.fallback is not None:
            binding = self.fallback(remote, datagram.sourcePort, local, port)
        if binding is None or binding.closed:
            counters.droppedNoBinding += 1
            self._icmp.portUnreachable(header, now)
        elif not binding.accepts(remote, datagram.sourcePort):
            counters.droppedNoBinding += 1
        elif binding.deliver(
            Received(datagram.payload, remote, datagram.sourcePort, local)
        ):
            self._ready.mark(binding)

    def trouble(self, error: NetworkError, now: float) -> bool:
        """
        The network reported an error about a datagram of ours.

        @return: whether the port that it came from is bound.
        """
        quotation = error.quotation
        remote, port = quotation.destination, quotation.destinationPort
        binding = self._bindings.find(quotation.source, quotation.sourcePort)
        if binding is None or not binding.accepts(remote, port):
            return False
        if error.trouble is Trouble.TOO_BIG:
            self._egress.learnPathMTU(remote, error.mtu, now)
        if binding.fail(DatagramError(_FAILURES[error.trouble], remote, port)):
            self._ready.mark(binding)
        return True

    def abandon(self, gone: frozenset[bytes]) -> None:
        """Tell the bindings of addresses that are gone."""
        for scope, binding in self._bindings.items():
            if isinstance(scope, bytes) and scope in gone:
                failure = DatagramError(DatagramFailure.ADDRESS_REMOVED, scope, 0)
                if binding.fail(failure):
                    self._ready.mark(binding)

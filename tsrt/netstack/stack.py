"""
The stack: IP packets in, IP packets out, applications' objects in between.

A L{Stack} looks at each packet just far enough to know whose it is.  It is
driven in turns: L{Stack.receive} as often as packets come, L{Stack.tick} when
its L{Stack.deadline} has come, then L{Stack.takeReady} and L{Stack.drainRuns} until
both are empty.  Nothing here calls the application.

Reference: RFC 1122 section 3, RFC 8200, RFC 9293.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias, cast

from tsrt.dataplane.runs import Arrived, Outgoing, countOf, packetsOf
from tsrt.netstack.datagrams import UDPBinding
from tsrt.netstack.datagramtable import DatagramFallback, DatagramTable
from tsrt.netstack.egress import Egress, isUnicast
from tsrt.netstack.flow import TCPFlow, TCPOptions
from tsrt.netstack.flowtable import Fallback, FlowCheck, FlowTable, NodeAt
from tsrt.netstack.fragments import Reassembler
from tsrt.netstack.icmp import ICMP, Echo, EchoFallback, EchoRequest, Ping
from tsrt.netstack.ingress import Ingress
from tsrt.netstack.limits import DEFAULT_LIMITS, StackCounters, StackLimits
from tsrt.netstack.listen import Listener
from tsrt.netstack.ports import AddressNotAvailable, PortTable, Scope, checkPort
from tsrt.netstack.ready import ReadyList
from tsrt.netstack.tcpoptions import DEFAULTS

MTU = 1280
"""The MTU of a tailnet."""

PING_TIMEOUT = 30.0
"""Seconds that a ping waits for its reply unless told otherwise."""

_LEAST_MTU = 576
_LOOPBACK_ROUNDS = 16

Ready: TypeAlias = TCPFlow | Listener | UDPBinding | Ping
"""What an application can own."""


class Stack:
    """
    A TCP/IP stack with the addresses of one node.

    @ivar counters: what was counted.
    """

    __slots__ = (
        "_datagrams",
        "_echo",
        "_egress",
        "_flows",
        "_fragments",
        "_ingress",
        "_limits",
        "_now",
        "_randbytes",
        "_ready",
        "counters",
    )

    def __init__(
        self,
        *,
        randbytes: Callable[[int], bytes],
        mtu: int = MTU,
        limits: StackLimits = DEFAULT_LIMITS,
        anyAddress: bool = False,
    ) -> None:
        """
        @param randbytes: a source of good random bytes.
        @param mtu: the largest packet that leaves, in bytes.
        @param anyAddress: whether to take packets to any unicast address, as
            the stack of a subnet router does.  Wildcard listeners and bindings
            then see the address that was meant.
        """
        if not _LEAST_MTU <= mtu <= 65535:
            raise ValueError(f"MTU {mtu} outside {_LEAST_MTU}..65535")
        self.counters = counters = StackCounters()
        self._randbytes = randbytes
        self._limits = limits
        self._now = 0.0
        self._ready: ReadyList[object] = ReadyList()
        self._egress = Egress(randbytes, mtu, limits, counters, anyAddress)
        self._fragments = Reassembler(limits, counters)
        self._echo = Echo(self._egress, self._ready, randbytes, limits, counters)
        icmp = ICMP(self._egress, self._echo, limits, counters)
        self._flows = FlowTable(self._egress, self._ready, randbytes, limits, counters)
        self._datagrams = DatagramTable(
            self._egress, icmp, self._ready, randbytes, limits, counters
        )
        self._ingress = Ingress(
            self._egress,
            self._fragments,
            self._flows,
            self._datagrams,
            icmp,
            counters,
            anyAddress,
        )

    def __repr__(self) -> str:
        return f"<Stack flows={len(self._flows)} bindings={len(self._datagrams)}>"

    # -- configuration -------------------------------------------------------------

    @property
    def mtu(self) -> int:
        """The largest packet that leaves, in bytes."""
        return self._egress.mtu

    @property
    def addresses(self) -> tuple[bytes, ...]:
        """The packed addresses of the node."""
        return self._egress.addresses

    @property
    def fallback(self) -> Fallback | None:
        """
        Who takes connections to ports that nobody listens on.

        Called with remote address and port, local address and port; a listener
        that it returns gets the connection, L{None} refuses it, and a
        L{HeldSYN<tsrt.netstack.held.HeldSYN>} keeps the request.
        """
        return self._flows.fallback

    @fallback.setter
    def fallback(self, fallback: Fallback | None) -> None:
        self._flows.fallback = fallback

    @property
    def nodeAt(self) -> NodeAt:
        """What all addresses of a remote node have in common; see L{NodeAt}."""
        return self._flows.nodeAt

    @nodeAt.setter
    def nodeAt(self, nodeAt: NodeAt) -> None:
        self._flows.nodeAt = nodeAt

    @property
    def datagramFallback(self) -> DatagramFallback | None:
        """
        Who takes datagrams to ports that are not bound.

        Called like L{fallback}; a binding that it returns gets the datagram,
        L{None} answers that the port is unreachable.
        """
        return self._datagrams.fallback

    @datagramFallback.setter
    def datagramFallback(self, fallback: DatagramFallback | None) -> None:
        self._datagrams.fallback = fallback

    @property
    def echoFallback(self) -> EchoFallback | None:
        """
        Who answers echo requests to addresses that are not the node's own.

        Called with the request; L{answerEcho} answers it.  L{None} has the
        stack answer for all addresses that it takes packets to.
        """
        return self._echo.fallback

    @echoFallback.setter
    def echoFallback(self, fallback: EchoFallback | None) -> None:
        self._echo.fallback = fallback

    def flows(self) -> list[TCPFlow]:
        """All TCP flows in any state, for a status display."""
        return self._flows.flows()

    def setAddresses(self, addresses: list[bytes]) -> None:
        """
        Replace the addresses of the node.

        Flows and pings of an address that is gone end with it.  UDP bindings
        of that very address get an error; they and listeners stay bound, since
        the address may come back.

        @param addresses: packed, the preferred one of each family first.
        @raise ValueError: if one is no address.
        """
        for address in addresses:
            if len(address) not in (4, 16):
                raise ValueError("an address has 4 or 16 bytes")
        gone = self._egress.setAddresses(list(dict.fromkeys(addresses)))
        if not gone:
            return
        self._flows.abandon(gone)
        self._echo.abandon(gone)
        self._datagrams.abandon(gone)

    def cutFlows(self, isAllowed: FlowCheck) -> int:
        """
        Reset the connections that others opened and that are not allowed any more.

        @param isAllowed: asked of each with the remote address, and the local
            address and port.
        @return: how many those were.
        """
        return self._flows.cut(isAllowed)

    # -- applications ----------------------------------------------------------------

    def connectTCP(
        self,
        remoteAddress: bytes,
        remotePort: int,
        now: float,
        localAddress: bytes | None = None,
        localPort: int = 0,
        options: TCPOptions = DEFAULTS,
    ) -> TCPFlow:
        """
        Open a TCP connection.

        The flow is ready once it is established, or over.

        @param localAddress: which of our addresses to use; L{None} for the
            preferred one of the family.
        @param localPort: 0 picks a free one.
        @raise AddressNotAvailable: if we have no such address.
        @raise PortInUse: if there is such a connection already.
        @raise NoFreePort: if no port is free, or there are too many flows.
        @raise ValueError: if an address or port is none.
        """
        checkPort(remotePort)
        checkPort(localPort, 0)
        if not isUnicast(remoteAddress):
            raise AddressNotAvailable("cannot connect to that address")
        source = self._egress.sourceFor(remoteAddress)
        if localAddress is not None:
            source = localAddress if self._egress.mayUse(localAddress) else None
        if source is None or len(source) != len(remoteAddress):
            raise AddressNotAvailable("no address to connect from")
        return self._flows.connect(
            source, localPort, remoteAddress, remotePort, options, now
        )

    def listenTCP(
        self,
        port: int,
        now: float = 0.0,
        address: Scope = None,
        backlog: int = 50,
        options: TCPOptions = DEFAULTS,
    ) -> Listener:
        """
        Listen for TCP connections.

        The address need not be ours (yet).

        @param port: 0 picks a free one.
        @param address: L{None} for any address of both families, 4 or 6 for
            any of one family, or a packed address.
        @param backlog: most connections that wait to be accepted.
        @param options: the settings of the connections.
        @raise PortInUse: if the port is taken.
        @raise NoFreePort: if no port is free, or there are too many listeners.
        @raise ValueError: if port, address or backlog make no sense.
        """
        listeners = self._flows.listeners
        port = listeners.choose(port, address, self._limits.bindings, self._randbytes)
        if backlog < 1:
            raise ValueError("a backlog below one")
        return Listener(
            address, port, backlog, options, listeners, self._limits, self.counters
        )

    def listenDetached(
        self, backlog: int = 50, options: TCPOptions = DEFAULTS
    ) -> Listener:
        """
        A listener without a port: it gets the connections that L{fallback}
        gives it.

        @param backlog: most connections that wait to be accepted.
        @param options: the settings of the connections.
        @raise ValueError: if the backlog makes no sense.
        """
        if backlog < 1:
            raise ValueError("a backlog below one")
        return Listener(
            None, 0, backlog, options, PortTable(), self._limits, self.counters
        )

    def answerEcho(self, request: EchoRequest, now: float) -> None:
        """Answer an echo request that L{echoFallback} was called with."""
        self._echo.answer(request, now)

    def bindUDP(
        self,
        port: int,
        address: Scope = None,
        queueLimit: int | None = None,
    ) -> UDPBinding:
        """
        Bind a UDP port.

        The address need not be ours (yet).

        @param port: 0 picks a free one.
        @param address: as for L{listenTCP}.
        @param queueLimit: most datagrams that wait to be received.
        @raise PortInUse: if the port is taken.
        @raise NoFreePort: if no port is free, or there are too many bindings.
        @raise ValueError: if port or address is none.
        """
        return self._datagrams.bind(port, address, queueLimit)

    def ping(
        self,
        remote: bytes,
        payload: bytes,
        now: float,
        timeout: float = PING_TIMEOUT,
    ) -> Ping:
        """
        Send an ICMP echo request.

        The ping is ready once it is answered, or given up.

        @raise AddressNotAvailable: if we have no address of that family.
        @raise NoFreePort: if too many pings are under way.
        @raise ValueError: if the payload is longer than a packet can carry.
        """
        return self._echo.ping(remote, payload, now, timeout)

    def takeReady(self) -> list[Ready]:
        """
        The objects with news since the last call, each once.

        News are: data or datagrams to read, room to write, established, ended,
        flows to accept, errors, an answered ping.
        """
        return cast("list[Ready]", self._ready.take())

    # -- packets -------------------------------------------------------------------------

    def receive(self, items: Sequence[Arrived], now: float) -> None:
        """
        Take packets and runs from the network, in order of arrival.

        What is not for us or not well-formed is dropped and counted.
        """
        self.counters.received += countOf(items)
        self._now = now
        self._ingress.receive(items, now, False)

    def drain(self, now: float) -> list[bytes]:
        """The packets that have to leave now, each for itself."""
        return packetsOf(self.drainRuns(now))

    def drainRuns(self, now: float) -> list[Outgoing]:
        """
        The packets and runs that have to leave now.

        Packets to ourselves are delivered on the way, so that objects may be
        ready afterwards even if nothing leaves.
        """
        self._now = now
        egress = self._egress
        if not (self._flows.isPending or egress.isWaiting):
            return []
        items: list[Outgoing] = []
        budget = self._limits.loopback
        for _ in range(_LOOPBACK_ROUNDS):
            self._flows.dispatch(now, items)
            if not egress.isLooping or budget <= 0:
                break
            looped, count = egress.takeLoopback(budget)
            budget -= count
            self.counters.loopedBack += count
            self._ingress.receive(looped, now, True)
        items += egress.take()
        self.counters.sent += countOf(items)
        return items

    # -- time ----------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due; to be followed by L{drain}."""
        self._now = now
        self._flows.tick(now)
        self._fragments.tick(now)
        self._echo.tick(now)

    def pathRenewed(self, remotes: Collection[bytes], now: float) -> None:
        """
        The way to some addresses, which may have been broken, is good again.

        Flows that wait ever longer between their attempts make one at once.

        @param remotes: packed addresses.
        """
        self._flows.pathRenewed(remotes, now)

    def deadline(self) -> float | None:
        """
        When L{tick} may have something to do; L{None} for never.

        While packets or news wait to be taken, that is at once.
        """
        if self._flows.isPending or self._egress.isWaiting or self._ready:
            return self._now
        earliest = self._flows.deadline()
        for other in (self._fragments.deadline(), self._echo.deadline()):
            if other is not None and (earliest is None or other < earliest):
                earliest = other
        return earliest

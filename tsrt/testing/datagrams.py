"""
UDP ports of the simulated internet.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IUDPTransport
from twisted.internet.protocol import AbstractDatagramProtocol
from twisted.logger import Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from tsrt.testing.internet import HostReactor

_log = Logger(namespace="tsrt.testing")

_LARGEST = 65507


@implementer(IListeningPort, IUDPTransport)
class MemoryUDPPort:
    """A UDP port of a simulated host."""

    def __init__(
        self,
        reactor: HostReactor,
        port: int,
        protocol: AbstractDatagramProtocol,
        interface: str,
        maxPacketSize: int,
    ) -> None:
        """
        @param reactor: the host that the port belongs to.
        @param port: the port number, or 0 for a free one.
        @param interface: the address to bind, empty or C{"::"} for all.
        """
        self.reactor = reactor
        self.interface = interface
        self.isIPv6 = ":" in interface
        self.maxPacketSize = maxPacketSize
        self.protocol = protocol
        self.port = port
        self.remote: tuple[str, int] | None = None
        self._asked = port
        self._listening = False
        self._broadcast = False

    def startListening(self) -> None:
        """See L{twisted.internet.interfaces.IListeningPort}."""
        self.port = self.reactor.bindPort("udp", self.interface, self._asked, self)
        self._listening = True
        self.protocol.makeConnection(self)

    def stopListening(self) -> Deferred[None] | None:
        """See L{twisted.internet.interfaces.IListeningPort}."""
        if not self._listening:
            return None
        self._listening = False
        self.reactor.releasePort("udp", self.interface, self.port)
        done: Deferred[None] = Deferred()
        self.reactor.internet.clock.callLater(0, self._stopped, done)
        return done

    def _stopped(self, done: Deferred[None]) -> None:
        self.protocol.doStop()
        done.callback(None)

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        """See L{twisted.internet.interfaces.IUDPTransport}."""
        if self.remote is not None:
            assert addr in (None, self.remote)
            addr = self.remote
        assert addr is not None
        host, port = addr
        if isIPAddress(host) == self.isIPv6 and isIPv6Address(host) != self.isIPv6:
            raise error.InvalidAddressError(host, "the port has another address family")
        if not isIPAddress(host) and not isIPv6Address(host):
            raise error.InvalidAddressError(host, "only addresses, no names")
        if len(packet) > _LARGEST:
            raise error.MessageLengthError("message too long")
        if not self._listening:
            return
        source = self.interface
        if source in ("", "0.0.0.0", "::"):
            chosen = self.reactor.sourceFor(host)
            if chosen is None:
                raise OSError(errno.ENETUNREACH, "Network is unreachable")
            source = chosen
        self.reactor.internet.sendDatagram(
            self.reactor, (source, self.port), (host, port), bytes(packet)
        )

    def writeSequence(
        self, packets: Iterable[bytes], addr: tuple[str, int] | None = None
    ) -> None:
        """Send the pieces as one datagram."""
        self.write(b"".join(packets), addr)

    def connect(self, host: str, port: int) -> None:
        """See L{twisted.internet.interfaces.IUDPTransport}."""
        if self.remote is not None:
            raise RuntimeError("already connected")
        if not isIPAddress(host) and not isIPv6Address(host):
            raise error.InvalidAddressError(host, "only addresses, no names")
        self.remote = (host, port)

    def arrived(self, data: bytes, source: tuple[str, int]) -> None:
        """A datagram has come from the internet."""
        if not self._listening or self.remote not in (None, source):
            return
        try:
            self.protocol.datagramReceived(data[: self.maxPacketSize], source)
        except Exception:
            _log.failure("a protocol on the simulated internet failed")

    def refused(self, destination: tuple[str, int]) -> None:
        """Nothing listens at C{destination}; only connected ports are told."""
        if self._listening and self.remote == destination:
            refused = getattr(self.protocol, "connectionRefused", None)
            if refused is not None:
                refused()

    def getHost(self) -> IPv4Address | IPv6Address:
        """See L{twisted.internet.interfaces.IListeningPort}."""
        if self.isIPv6:
            return IPv6Address("UDP", self.interface, self.port)
        return IPv4Address("UDP", self.interface or "0.0.0.0", self.port)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """See L{twisted.internet.interfaces.IUDPTransport}."""
        self._broadcast = bool(enabled)

    def getBroadcastAllowed(self) -> bool:
        """See L{twisted.internet.interfaces.IUDPTransport}."""
        return self._broadcast

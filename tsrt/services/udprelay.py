"""
Datagrams between one SOCKS client and the tailnet (UDP ASSOCIATE).

Reference: RFC 1928, 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IListeningPort, IReactorUDP
from twisted.internet.protocol import DatagramProtocol

from tsrt.addresses import formatAddress, parseAddress
from tsrt.errors import WireError
from tsrt.wire import socks5

LARGEST = 65507


class _Near(DatagramProtocol):
    """The side of the client."""

    def __init__(self, relay: UDPRelay) -> None:
        self._relay = relay

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """See L{DatagramProtocol}."""
        self._relay.fromClient(datagram, addr)


class _Far(DatagramProtocol):
    """The side of the tailnet."""

    def __init__(self, relay: UDPRelay) -> None:
        self._relay = relay

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """See L{DatagramProtocol}."""
        self._relay.fromTailnet(datagram, addr)


class UDPRelay:
    """
    Carries datagrams until it is stopped.

    @ivar address: where the client sends its datagrams.
    """

    def __init__(
        self,
        hostReactor: IReactorUDP,
        tailnet: IReactorUDP,
        resolve: Callable[[str], list[bytes]],
        interface: str,
        client: str,
    ) -> None:
        """
        @param resolve: gives the packed addresses of a tailnet name.
        @param interface: the address of this machine that the client uses.
        @param client: the only address that is listened to.
        @raise CannotListenError: there is no port.
        """
        self._resolve = resolve
        self._client = client
        self._clientPort: int | None = None
        self._near, self._far = _Near(self), _Far(self)
        self._ports: list[IListeningPort] = [
            hostReactor.listenUDP(0, self._near, interface, LARGEST)
        ]
        try:
            self._ports.append(tailnet.listenUDP(0, self._far, "::", LARGEST))
        except Exception:
            self.stop()
            raise
        own = cast(IPv4Address | IPv6Address, self._ports[0].getHost())
        self.address: tuple[str, int] = (own.host, own.port)

    def fromClient(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """The client sends something; the first to do so is the client."""
        if addr[0] != self._client or self._clientPort not in (None, addr[1]):
            return
        try:
            target, data = socks5.parseDatagram(datagram)
        except WireError:
            return
        self._clientPort = addr[1]
        host = target.host
        try:
            parseAddress(host)
        except WireError:
            found = self._resolve(host)
            if not found:
                return
            host = formatAddress(found[0])
        if self._far.transport is not None and target.port:
            self._far.transport.write(data, (host, target.port))

    def fromTailnet(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Somebody in the tailnet sends something to the client."""
        if self._clientPort is None or self._near.transport is None:
            return
        packed = parseAddress(addr[0])
        wrapped = socks5.encodeDatagram(packed, addr[1], datagram)
        self._near.transport.write(wrapped, (self._client, self._clientPort))

    def stop(self) -> None:
        """Give both ports back."""
        ports, self._ports = self._ports, []
        for port in ports:
            port.stopListening()

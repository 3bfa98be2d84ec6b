"""
A STUN server for tests and development.
"""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReactorUDP
from twisted.internet.protocol import DatagramProtocol

from tsrt.addresses import AddrPort, fromMapped, parseAddress
from tsrt.errors import NotRunning, WireError
from tsrt.wire import stun


class STUNProtocol(DatagramProtocol):
    """
    Tells clients which address their requests come from.

    Only well-formed requests of the software that this is for are answered,
    so that the server is of no use to anybody who forges source addresses.

    @ivar answered: how many requests were answered.
    @ivar ignored: how many datagrams were not.
    """

    def __init__(self) -> None:
        self.answered = 0
        self.ignored = 0

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """See L{DatagramProtocol}."""
        try:
            txid = stun.parseRequest(datagram)
            source = AddrPort(fromMapped(parseAddress(addr[0])), addr[1])
        except WireError:
            self.ignored += 1
            return
        self.answered += 1
        assert self.transport is not None
        self.transport.write(stun.buildResponse(txid, source), addr)


class STUNServer(Service):
    """A L{STUNProtocol} as a service."""

    def __init__(
        self,
        reactor: IReactorUDP,
        port: int = stun.DEFAULT_PORT,
        interface: str = "",
    ) -> None:
        """
        @param port: the UDP port, or 0 for a free one.
        @param interface: the address to bind; empty for all of IPv4, C{"::"}
            for IPv6.
        """
        self._reactor = reactor
        self._asked = port
        self._interface = interface
        self._port: IListeningPort | None = None
        self.protocol = STUNProtocol()

    @property
    def port(self) -> int:
        """
        The UDP port that is listened at.

        @raise NotRunning: when the service is not running.
        """
        if self._port is None:
            raise NotRunning("the STUN server is not running")
        address = self._port.getHost()
        assert isinstance(address, IPv4Address | IPv6Address)
        return address.port

    def startService(self) -> None:
        """
        Open the port.

        @raise CannotListenError: when it is taken.
        """
        self._port = self._reactor.listenUDP(
            self._asked, self.protocol, self._interface, 8192
        )
        Service.startService(self)

    def stopService(self) -> Deferred[None]:
        """Close the port."""
        Service.stopService(self)
        port, self._port = self._port, None
        stopping = port.stopListening() if port is not None else None
        return succeed(None) if stopping is None else stopping

"""A UDP port of the overlay (L{IUDPTransport}, L{IListeningPort})."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    CannotListenError,
    InvalidAddressError,
    MessageLengthError,
)
from twisted.internet.interfaces import IListeningPort, IUDPTransport
from twisted.internet.protocol import (
    AbstractDatagramProtocol,
    ConnectedDatagramProtocol,
)
from twisted.logger import Logger
from zope.interface import implementer

from tsrt.addresses import formatAddress, parseAddress
from tsrt.errors import NoFreePort, PortInUse, WireError
from tsrt.netstack.datagrams import DatagramFailure, UDPBinding
from tsrt.overlay.context import OverlayContext, packedInterface, twistedAddress
from tsrt.overlay.port import hostAddress

_log = Logger(namespace="tsrt.overlay")

# Datagrams handed to a protocol before others get a turn.
_AT_ONCE = 256


@implementer(IListeningPort, IUDPTransport)
class TailnetUDPPort:
    """
    Sends and receives datagrams on the tailnet.

    A wildcard port receives both address families.
    """

    def __init__(
        self,
        context: OverlayContext,
        port: int,
        protocol: AbstractDatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,
    ) -> None:
        """
        @param port: 0 picks a free one.
        @param maxPacketSize: longer datagrams are cut, as a socket would.
        """
        self._context = context
        self._wanted = port
        self.protocol = protocol
        self._interface = interface
        self._maxPacketSize = maxPacketSize
        self._binding: UDPBinding | None = None
        self._connectedTo: tuple[bytes, int] | None = None

    def __repr__(self) -> str:
        state = f"port {self._binding.port}" if self._binding else "not bound"
        return f"<TailnetUDPPort of {type(self.protocol).__name__}, {state}>"

    def startListening(self) -> None:
        """
        Take the port and start the protocol.

        @raise CannotListenError: it is taken, or the interface is none.
        """
        if self._binding is not None:
            raise CannotListenError(self._interface, self._wanted, "already listening")
        try:
            self._binding = self._context.stack.bindUDP(
                self._wanted, address=packedInterface(self._interface)
            )
        except (PortInUse, NoFreePort, ValueError) as error:
            raise CannotListenError(
                self._interface, self._wanted, OSError(str(error))
            ) from None
        self._binding.owner = self
        self.protocol.makeConnection(self)

    def stackReady(self) -> None:
        """Datagrams, or errors about datagrams that we sent, are waiting."""
        binding = self._binding
        for _ in range(_AT_ONCE):
            if binding is None or binding is not self._binding:
                return
            received = binding.receive()
            if received is None:
                break
            data, address, port = received[0], received[1], received[2]
            self._hand(data[: self._maxPacketSize], address, port)
        else:
            self._context.reactor.callLater(0, self.stackReady)
        if binding is not None and binding is self._binding and binding.errors:
            self._handErrors(binding)

    def _hand(self, data: bytes, address: bytes, port: int) -> None:
        try:
            if self._connectedTo is not None and isinstance(
                self.protocol, ConnectedDatagramProtocol
            ):
                self.protocol.datagramReceived(data)
            else:
                self.protocol.datagramReceived(data, (formatAddress(address), port))
        except Exception:
            _log.failure("Unhandled error in {port!r}", port=self)

    def _handErrors(self, binding: UDPBinding) -> None:
        """Tell a connected protocol that nobody listens over there."""
        errors = list(binding.errors)
        binding.errors.clear()
        refused = getattr(self.protocol, "connectionRefused", None)
        if self._connectedTo is None or refused is None:
            return
        for error in errors:
            if error.failure is not DatagramFailure.PORT_UNREACHABLE:
                continue
            try:
                refused()
            except Exception:
                _log.failure("Unhandled error in {port!r}", port=self)

    # -- IUDPTransport ------------------------------------------------------------

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        """
        Send one datagram; it may be empty.

        @param addr: literal address and port; not given on a connected port.
        @raise InvalidAddressError: the host is a name.
        """
        if self._binding is None:
            return
        if self._connectedTo is not None:
            address, port = self._connectedTo
        else:
            if addr is None:
                raise ValueError("an unconnected port needs an address to write to")
            address, port = self._packed(addr[0]), addr[1]
        try:
            self._binding.send(packet, address, port, self._context.now())
        except WireError as error:
            raise MessageLengthError(str(error)) from None
        self._context.flush()

    def connect(self, host: str, port: int) -> None:
        """Exchange datagrams with this peer only."""
        if self._connectedTo is not None:
            raise RuntimeError(
                "already connected, reconnecting is not currently supported"
            )
        self._connectedTo = (self._packed(host), port)
        if self._binding is not None:
            self._binding.connect(*self._connectedTo)

    def _packed(self, host: str) -> bytes:
        try:
            return parseAddress(host)
        except WireError:
            raise InvalidAddressError(
                host, "write() only accepts IP addresses, not hostnames"
            ) from None

    def stopListening(self) -> Deferred[None]:
        """Give the port back and stop the protocol."""
        binding, self._binding = self._binding, None
        if binding is not None:
            binding.owner = None
            binding.close()
            try:
                self.protocol.doStop()
            except Exception:
                _log.failure("Unhandled error in stopping {port!r}", port=self)
        return succeed(None)

    def loseConnection(self) -> None:
        """Give the port back (the older name of L{stopListening})."""
        self.stopListening()

    def getHost(self) -> IPv4Address | IPv6Address:
        """The address and port that are bound."""
        if self._binding is None:
            raise CannotListenError(self._interface, self._wanted, "not listening")
        return hostAddress(self._context, "UDP", self._interface, self._binding.port)

    def getPeer(self) -> IPv4Address | IPv6Address | None:
        """Whom the port is connected to, if it is."""
        if self._connectedTo is None:
            return None
        return twistedAddress("UDP", *self._connectedTo)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """
        Ask for broadcasts.

        @raise OSError: always when enabled; a tailnet has no broadcast.
        """
        if enabled:
            raise OSError("a tailnet has no broadcast addresses")

    def getBroadcastAllowed(self) -> bool:
        """Whether broadcasts may be sent: never."""
        return False

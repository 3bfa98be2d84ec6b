"""A UDP port of the overlay (L{IUDPTransport}, L{IListeningPort})."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    CannotListenError,
    InvalidAddressError,
    MessageLengthError,
)
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    ILoggingContext,
    IUDPTransport,
)
from twisted.internet.protocol import AbstractDatagramProtocol
from twisted.logger import Logger
from twisted.python.log import callWithContext
from zope.interface import implementer

from tsrt.addresses import formatAddress, parseAddress
from tsrt.errors import NoFreePort, PortInUse, WireError
from tsrt.netstack.datagrams import DatagramFailure, DatagramTooLong, UDPBinding
from tsrt.overlay.context import OverlayContext, packedInterface, twistedAddress
from tsrt.overlay.port import hostAddress

_log = Logger(namespace="tsrt.overlay")

# Datagrams handed to a protocol before others get a turn.
_AT_ONCE = 256


@implementer(IListeningPort, IUDPTransport, ILoggingContext)
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
        self._wake: IDelayedCall | None = None
        self._stopping: Deferred[None] = succeed(None)

    def __repr__(self) -> str:
        state = f"port {self._binding.port}" if self._binding else "not bound"
        return f"<TailnetUDPPort of {type(self.protocol).__name__}, {state}>"

    def logPrefix(self) -> str:
        """How log lines call this port."""
        if ILoggingContext.providedBy(self.protocol):
            return f"{self.protocol.logPrefix()} (UDP)"
        return f"{type(self.protocol).__name__} (UDP)"

    def startListening(self) -> None:
        """
        Take the port and start the protocol.

        @raise CannotListenError: it is taken.
        @raise InvalidAddressError: the interface is none.
        """
        if self._binding is not None:
            raise CannotListenError(self._interface, self._wanted, "already listening")
        try:
            scope = packedInterface(self._interface)
        except ValueError as error:
            raise InvalidAddressError(self._interface, str(error)) from None
        try:
            binding = self._context.stack.bindUDP(self._wanted, address=scope)
        except (PortInUse, NoFreePort, ValueError) as error:
            raise CannotListenError(
                self._interface, self._wanted, OSError(str(error))
            ) from None
        self._binding = binding
        binding.owner = self
        try:
            self.protocol.makeConnection(self)
        except BaseException:
            self._binding = None
            binding.close()
            raise

    def stackReady(self) -> None:
        """Datagrams, or errors about datagrams that we sent, are waiting."""
        callWithContext({"system": self.logPrefix()}, self._takeAll)

    def _takeAll(self) -> None:
        for _ in range(_AT_ONCE):
            if self._binding is None:
                return
            received = self._binding.receive()
            if received is None:
                break
            self._call(
                self.protocol.datagramReceived,
                received.data[: self._maxPacketSize],
                (formatAddress(received.address), received.port),
            )
        else:
            # Others get a turn; the stack gives no notice of old datagrams.
            if self._wake is None:
                self._wake = self._context.reactor.callLater(0, self._woken)
        if self._binding is not None and self._binding.errors:
            self._handErrors(self._binding)

    def _woken(self) -> None:
        self._wake = None
        if self._binding is not None:
            self.stackReady()

    def _call(self, call: Callable[..., object], *args: object) -> None:
        """Call the protocol; an error in it costs one datagram."""
        try:
            call(*args)
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
            self._call(refused)

    # -- IUDPTransport ------------------------------------------------------------

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        """
        Send one datagram; it may be empty.

        Until the node has an address, and after the port was given back,
        nothing is sent.

        @param addr: literal address and port; not needed on a connected port.
        @raise InvalidAddressError: the host is a name, or an address of a
            family that the port has not.
        @raise MessageLengthError: it is longer than 65,507 bytes.
        @raise ValueError: C{addr} is missing, or not who the port is
            connected to.
        """
        if addr is None:
            if self._connectedTo is None:
                raise ValueError("an unconnected port needs an address to write to")
            remote = self._connectedTo
        else:
            remote = self._packed(addr[0]), addr[1]
            if self._connectedTo not in (None, remote):
                raise ValueError("a connected port writes to its peer only")
        if self._binding is None:
            return
        try:
            self._binding.send(packet, *remote, self._context.now())
        except DatagramTooLong as error:
            raise MessageLengthError(str(error)) from None
        self._context.flush()

    def writeSequence(
        self, seq: Iterable[bytes], addr: tuple[str, int] | None = None
    ) -> None:
        """Send one datagram that is given in pieces."""
        self.write(b"".join(seq), addr)

    def connect(self, host: str, port: int) -> None:
        """
        Exchange datagrams with this peer only.

        @raise InvalidAddressError: the host is a name.
        @raise RuntimeError: there is a peer already.
        @raise ValueError: the port is none.
        """
        if self._connectedTo is not None:
            raise RuntimeError(
                "already connected, reconnecting is not currently supported"
            )
        remote = self._packed(host), port
        if self._binding is not None:
            self._binding.connect(*remote)
        self._connectedTo = remote

    def _packed(self, host: str) -> bytes:
        try:
            address = parseAddress(host)
        except WireError:
            raise InvalidAddressError(
                host, "only IP addresses are accepted here, not names"
            ) from None
        scope = packedInterface(self._interface)
        family = 4 if len(address) == 4 else 6
        if isinstance(scope, bytes):
            scope = 4 if len(scope) == 4 else 6
        if scope not in (None, family):
            raise InvalidAddressError(host, "the port is not bound to that family")
        return address

    def stopListening(self) -> Deferred[None]:
        """
        Give the port back.

        The port is free at once.  The protocol is stopped in the next turn,
        and then the Deferred fires.
        """
        binding, self._binding = self._binding, None
        if binding is not None:
            binding.owner = None
            binding.close()
            if self._wake is not None:
                self._wake.cancel()
                self._wake = None
            self._stopping = Deferred()
            self._context.reactor.callLater(0, self._stopped, self._stopping)
        done: Deferred[None] = Deferred()
        self._stopping.chainDeferred(done)
        return done

    def _stopped(self, stopping: Deferred[None]) -> None:
        self._call(self.protocol.doStop)
        stopping.callback(None)

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

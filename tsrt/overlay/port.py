"""Listening on a TCP port of the overlay (L{IListeningPort})."""

from __future__ import annotations

from typing import Literal

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.log import callWithContext
from twisted.python.reflect import qual
from zope.interface import implementer

from tsrt.errors import NoFreePort, PortInUse
from tsrt.netstack.listen import Listener
from tsrt.overlay.context import OverlayContext, packedInterface, twistedAddress
from tsrt.overlay.serving import serveFlow

_log = Logger(namespace="tsrt.overlay")


@implementer(IListeningPort)
class TailnetPort:
    """
    Accepts connections from the tailnet and gives each a protocol.

    May be started before the node has addresses: the port is taken in the
    stack at once and needs no address to exist.
    """

    def __init__(
        self,
        context: OverlayContext,
        port: int,
        factory: ServerFactory,
        backlog: int = 50,
        interface: str = "",
    ) -> None:
        """
        @param port: 0 picks a free one.
        @param interface: see L{packedInterface}.
        """
        self._context = context
        self._wanted = port
        self._factory = factory
        self._backlog = backlog
        self._interface = interface
        self._listener: Listener | None = None
        self._stopping: Deferred[None] = succeed(None)

    def __repr__(self) -> str:
        state = f"port {self._listener.port}" if self._listener else "not listening"
        return f"<TailnetPort of {type(self._factory).__name__}, {state}>"

    def startListening(self) -> None:
        """
        Take the port.

        @raise CannotListenError: it is taken, or the interface is none.
        """
        if self._listener is not None:
            raise CannotListenError(self._interface, self._wanted, "already listening")
        try:
            listener = self._context.stack.listenTCP(
                self._wanted,
                self._context.now(),
                address=packedInterface(self._interface),
                backlog=self._backlog,
            )
        except (PortInUse, NoFreePort, ValueError) as error:
            raise CannotListenError(
                self._interface, self._wanted, OSError(str(error))
            ) from None
        try:
            self._factory.doStart()
        except BaseException:
            listener.close(self._context.now())
            raise
        self._listener = listener
        listener.owner = self
        _log.info(
            "{factory} listens on tailnet port {port}",
            factory=type(self._factory).__name__,
            port=listener.port,
        )

    def stackReady(self) -> None:
        """Connections are waiting to be accepted."""
        callWithContext({"system": qual(type(self._factory))}, self._acceptAll)

    def _acceptAll(self) -> None:
        while self._listener is not None:
            flow = self._listener.accept()
            if flow is None:
                return
            serveFlow(self._context, flow, self._factory)

    def stopListening(self) -> Deferred[None]:
        """
        Give the port back; connections that were accepted go on.

        The port is free at once.  The factory hears of it in the next turn,
        and then the Deferred fires.
        """
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.owner = None
            listener.close(self._context.now())
            self._context.flush()
            _log.info("tailnet port {port} closed", port=listener.port)
            self._stopping = Deferred()
            self._context.reactor.callLater(0, self._stopped, self._stopping)
        done: Deferred[None] = Deferred()
        self._stopping.chainDeferred(done)
        return done

    def _stopped(self, stopping: Deferred[None]) -> None:
        try:
            self._factory.doStop()
        except Exception:
            _log.failure("{factory!r} raised in stop", factory=self._factory)
        stopping.callback(None)

    # Older callers, such as twisted.application, use this name.
    loseConnection = stopListening

    def getHost(self) -> IPv4Address | IPv6Address:
        """The address and port that are listened on."""
        if self._listener is None:
            raise CannotListenError(self._interface, self._wanted, "not listening")
        return hostAddress(self._context, "TCP", self._interface, self._listener.port)


def hostAddress(
    context: OverlayContext, protocol: Literal["TCP", "UDP"], interface: str, port: int
) -> IPv4Address | IPv6Address:
    """
    The address of a bound port.

    A wildcard is shown as the node's own address once it has one (that is
    what a peer connects to), and as the unspecified address until then.
    """
    bound = packedInterface(interface)
    if isinstance(bound, bytes):
        return twistedAddress(protocol, bound, port)
    family = {4: 4, 6: 16}.get(bound) if bound is not None else None
    for address in context.localAddresses():
        if family in (None, len(address)):
            return twistedAddress(protocol, address, port)
    return twistedAddress(protocol, bytes(16 if bound == 6 else 4), port)

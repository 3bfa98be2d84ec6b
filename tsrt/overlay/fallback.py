"""
Connections to ports that nobody listens on, for whoever wants them.

Handlers are asked in the order in which they were registered, once for each
connection, before it is answered.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, TypeAlias

from attrs import define
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.netstack.flow import TCPFlow
from tsrt.netstack.held import HeldSYN
from tsrt.netstack.listen import Listener
from tsrt.overlay.context import OverlayContext, twistedAddress
from tsrt.overlay.serving import serveFlow

_log = Logger(namespace="tsrt.overlay")

MOST_PER_PORT = 512
"""Connections to one port that handlers may have at a time; others wait."""

_BACKLOG = 1024

# Seconds that a handshake may take, after which the connection does not count.
_PATIENCE = 75.0


class Refusal(enum.Enum):
    """What a handler answers to refuse a connection."""

    REFUSE = "refuse"


REFUSE: Final = Refusal.REFUSE
"""The answer of a handler that refuses a connection."""

FallbackTCPHandler: TypeAlias = Callable[
    [IPv4Address | IPv6Address, IPv4Address | IPv6Address],
    "IProtocolFactory | Refusal | None",
]
"""
Asked with the source and the destination of a connection; answers with a factory,
whose protocol gets the connection, with L{REFUSE}, or with C{None}: not mine.
"""

FlowKey: TypeAlias = tuple[bytes, int, bytes, int]


class FallbackRegistration:
    """A handler that is asked, until it is withdrawn."""

    def __init__(self, handlers: FallbackHandlers, handler: FallbackTCPHandler) -> None:
        self._handlers = handlers
        self.handler = handler

    def withdraw(self) -> None:
        """
        Ask the handler no more; more than once is fine.

        Connections that it has taken go on.
        """
        self._handlers.forget(self)

    def __repr__(self) -> str:
        return f"<FallbackRegistration of {self.handler!r}>"


class FallbackHandlers:
    """The handlers of a node, in their order."""

    def __init__(self) -> None:
        self._registrations: tuple[FallbackRegistration, ...] = ()
        self._watchers: list[Callable[[bool], object]] = []

    def register(self, handler: FallbackTCPHandler) -> FallbackRegistration:
        """Ask C{handler}, after those that are there."""
        registration = FallbackRegistration(self, handler)
        self._registrations += (registration,)
        self._tell()
        return registration

    def forget(self, registration: FallbackRegistration) -> None:
        """Ask a handler no more."""
        self._registrations = tuple(
            r for r in self._registrations if r is not registration
        )
        self._tell()

    def watch(self, watcher: Callable[[bool], object]) -> None:
        """Tell C{watcher} whether there are any handlers, now and later."""
        self._watchers.append(watcher)
        watcher(bool(self._registrations))

    def _tell(self) -> None:
        for watcher in self._watchers:
            watcher(bool(self._registrations))

    def ask(
        self,
        source: IPv4Address | IPv6Address,
        destination: IPv4Address | IPv6Address,
    ) -> IProtocolFactory | Refusal | None:
        """
        Whose a connection is.

        A handler that raises refuses it.
        """
        # Handlers may register and withdraw others: those that there were are
        # asked (R-FB-5).
        for registration in self._registrations:
            try:
                answer = registration.handler(source, destination)
            except Exception:
                _log.failure(
                    "{handler!r} raised when asked for {source} to {destination}",
                    handler=registration.handler,
                    source=source,
                    destination=destination,
                )
                return REFUSE
            if answer is not None:
                return answer
        return None


@define(eq=False)
class _Claimed:
    """A connection that a handler has taken."""

    factory: IProtocolFactory
    since: float


class FallbackListener:
    """Accepts, on one stack, the connections that handlers take."""

    def __init__(self, context: OverlayContext, handlers: FallbackHandlers) -> None:
        self._context = context
        self._handlers = handlers
        self._listener: Listener = context.stack.listenDetached(_BACKLOG)
        self._listener.owner = self
        # Those whose handshake is under way, oldest first.
        self._claimed: dict[FlowKey, _Claimed] = {}
        self._byPort: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<FallbackListener, {sum(self._byPort.values())} connections>"

    def claim(
        self, remote: bytes, remotePort: int, local: bytes, localPort: int
    ) -> Listener | HeldSYN | Refusal | None:
        """
        Offer a connection request to the handlers.

        @return: who accepts it; something that keeps it waiting, if the port has
            as many connections as may be; a refusal; or C{None} if it is nobody's.
        """
        key = (remote, remotePort, local, localPort)
        self._forgetOld()
        if key in self._claimed:
            return self._listener
        answer = self._handlers.ask(
            twistedAddress("TCP", remote, remotePort),
            twistedAddress("TCP", local, localPort),
        )
        if answer is None or isinstance(answer, Refusal):
            return answer
        if self._byPort.get(localPort, 0) >= MOST_PER_PORT:
            # The peer repeats its request; perhaps there is room then.
            return HeldSYN()
        self._claimed[key] = _Claimed(answer, self._context.now())
        self._byPort[localPort] = self._byPort.get(localPort, 0) + 1
        return self._listener

    def asked(
        self, remote: bytes, remotePort: int, local: bytes, localPort: int
    ) -> Listener | HeldSYN | None:
        """The same as the fallback of a stack: what is nobody's is refused."""
        found = self.claim(remote, remotePort, local, localPort)
        return None if isinstance(found, Refusal) else found

    def _forgetOld(self) -> None:
        """Handshakes that came to nothing do not count for ever."""
        expired = self._context.now() - _PATIENCE
        while self._claimed:
            key = next(iter(self._claimed))
            if self._claimed[key].since > expired:
                break
            del self._claimed[key]
            self._release(key[3])

    def _release(self, port: int) -> None:
        left = self._byPort[port] - 1
        if left:
            self._byPort[port] = left
        else:
            del self._byPort[port]

    def stackReady(self) -> None:
        """Handshakes have succeeded."""
        while True:
            flow = self._listener.accept()
            if flow is None:
                return
            self._serve(flow)

    def _serve(self, flow: TCPFlow) -> None:
        port = flow.localPort
        key = (flow.remoteAddress, flow.remotePort, flow.localAddress, port)
        claimed = self._claimed.pop(key, None)
        if claimed is None:
            flow.abort()
            self._context.flush()
            return
        factory = claimed.factory

        def ended(reason: Failure | None = None) -> None:
            self._release(port)
            self._call(factory, "doStop")

        if not self._call(factory, "doStart"):
            self._release(port)
            flow.abort()
            self._context.flush()
        elif not serveFlow(self._context, flow, factory, ended):
            ended()

    def _call(self, factory: IProtocolFactory, name: str) -> bool:
        try:
            getattr(factory, name)()
        except Exception:
            _log.failure("{factory!r} raised in {name}", factory=factory, name=name)
            return False
        return True

"""
The embedded control server: a coordination server for tests and development.

Clients of every kind can join it: nodes of this package, and those of others.
It runs on any reactor, a simulated one included::

    server = ControlServer(reactor, config=ControlConfig(derpMap=derpMap))
    server.startService()
    url = await server.whenListening()
    key = server.createAuthKey(reusable=True)

All state is in memory and survives stopping and starting the service.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import cast

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    fail,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IReactorTCP,
    IReactorTime,
    IStreamServerEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.errors import NotRunning
from tsrt.keys import MachineKey, MachinePublic
from tsrt.testing.control.admin import AdminInterface
from tsrt.testing.control.administration import Administration
from tsrt.testing.control.connection import MachineConnection
from tsrt.testing.control.conversations import Conversations
from tsrt.testing.control.core import ControlCore, wallClock
from tsrt.testing.control.http import HTTPFront
from tsrt.testing.control.settings import ControlConfig
from tsrt.testing.control.site import LOGIN_PATH, ControlSite

_log = Logger(namespace="tsrt.testing.control")

LOOPBACK = "127.0.0.1"
"""Where the server listens when it is given a port alone."""

_WILDCARDS = {"0.0.0.0": LOOPBACK, "::": "::1"}


class _Front(HTTPFront):
    """A connection that the server can drop."""

    dropped: Callable[[_Front], None]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{twisted.internet.interfaces.IProtocol}."""
        self.dropped(self)
        super().connectionLost(reason)


class _FrontFactory(Factory):
    """Makes the protocol of each connection."""

    noisy = False

    def __init__(self, build: Callable[[], _Front]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> _Front:
        """See L{twisted.internet.interfaces.IProtocolFactory}."""
        return self._build()


class ControlServer(Administration, Conversations, Service):
    """
    A control server.

    Methods that take a node take a record, a number, a name or an address, and
    raise L{tsrt.errors.UnknownPeer} when there is no such node.

    @ivar config: the configuration it started out with.
    @ivar factory: makes the protocol of each connection; for endpoints that
        the server does not know of.
    """

    def __init__(
        self,
        reactor: object,
        endpoint: IStreamServerEndpoint | int = 0,
        config: ControlConfig | None = None,
        *,
        randbytes: Callable[[int], bytes] = os.urandom,
        wallTime: Callable[[], float] | None = None,
    ) -> None:
        """
        @param reactor: provides C{IReactorTime}, and C{IReactorTCP} when it is
            given a port.
        @param endpoint: where to listen: an endpoint, or a port of loopback
            (0 for a free one).
        @param config: the configuration.
        @param randbytes: the source of secret random bytes.
        @param wallTime: seconds since 1970; by default what goes with the
            reactor, see L{tsrt.testing.control.core.wallClock}.
        @raise PolicyError: if the configured policy is malformed.
        """
        clock = cast(IReactorTime, reactor)
        if isinstance(endpoint, int):
            endpoint = TCP4ServerEndpoint(
                cast(IReactorTCP, reactor), endpoint, interface=LOOPBACK
            )
        self.config = config or ControlConfig()
        self._reactor = clock
        self._endpoint = endpoint
        self._randbytes = randbytes
        self._wallTime = wallTime or wallClock(clock)
        self._key = self.config.key or MachineKey.generate(randbytes)
        self._connections: set[_Front] = set()
        self._emptied: list[Deferred[None]] = []
        self._port: IListeningPort | None = None
        self._listening: Deferred[IListeningPort] | None = None
        self._problem: Failure | None = None
        self._waiting: list[Deferred[str]] = []
        self._core = ControlCore(
            clock,
            self.config,
            randbytes=randbytes,
            wallTime=self._wallTime,
            url=lambda: self.url,
            loginURL=lambda loginID: f"{self.url}{LOGIN_PATH}{loginID}",
        )
        self._site = ControlSite(
            publicKey=self._key.public(),
            tailnet=self._core.tailnet,
            registrar=self._core.registrar,
            pings=self._core.pings,
            signer=self._core.signer,
            faults=self._core.faults,
            admin=AdminInterface(self, self.config.adminToken),
            wallTime=self._wallTime,
            accept=self._accept,
        )
        self.factory: Factory = _FrontFactory(self._buildFront)

    # -- the service ------------------------------------------------------------------

    def startService(self) -> None:
        """Begin to listen; see L{whenListening}."""
        super().startService()
        self._core.start()
        self._problem = None
        self._listening = self._endpoint.listen(self.factory)
        self._listening.addCallback(self._bound)
        self._listening.addErrback(self._notBound)

    def stopService(self) -> Deferred[None]:
        """
        Stop listening and drop every connection.

        @return: fires when nothing is left; the state stays.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await maybeDeferred(super().stopService)
        self._core.stop()
        self._tellWaiting(Failure(NotRunning("the control server was stopped")))
        listening, self._listening = self._listening, None
        if listening is not None and not listening.called:
            listening.cancel()
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        await self.dropConnections()

    def _bound(self, port: IListeningPort) -> None:
        self._port = port
        _log.info("the control server listens on {url}", url=self.url)
        self._tellWaiting(self.url)

    def _notBound(self, reason: Failure) -> None:
        self._listening = None
        if not reason.check(CancelledError):
            self._problem = reason
            _log.error(
                "the control server cannot listen: {reason}", reason=reason.value
            )
        self._tellWaiting(reason)

    def _tellWaiting(self, outcome: str | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(outcome)

    def whenListening(self) -> Deferred[str]:
        """
        Wait for the server to listen.

        @return: fires with L{url}; fails if listening fails or the service is
            not running.
        """
        if self._port is not None:
            return succeed(self.url)
        if self._problem is not None:
            return fail(self._problem)
        if self._listening is None:
            return fail(NotRunning("the control server is not listening"))
        waiter: Deferred[str] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        return waiter

    @property
    def url(self) -> str:
        """
        The address that clients are given.

        @raise NotRunning: if it depends on a port that is not bound.
        """
        if self.config.url:
            return self.config.url.rstrip("/")
        address = self._port.getHost() if self._port is not None else None
        host, port = getattr(address, "host", None), getattr(address, "port", None)
        if host is None or port is None:
            raise NotRunning("the control server has no address yet")
        host = self.config.host or _WILDCARDS.get(host, host)
        if ":" in host:
            host = f"[{host}]"
        return f"http://{host}:{port}"

    @property
    def publicKey(self) -> MachinePublic:
        """The key by which clients know the server."""
        return self._key.public()

    # -- connections --------------------------------------------------------------

    def _buildFront(self) -> _Front:
        front = _Front(self._reactor, self._site.handle, self._wallTime)
        front.dropped = self._dropped
        self._connections.add(front)
        return front

    def _accept(self, initiation: bytes) -> MachineConnection:
        return MachineConnection(
            self._reactor,
            self._key,
            initiation,
            self._randbytes,
            self._core.api.handle,
        )

    def _dropped(self, front: _Front) -> None:
        self._connections.discard(front)
        if not self._connections:
            waiting, self._emptied = self._emptied, []
            for waiter in waiting:
                waiter.callback(None)

    def dropConnections(self) -> Deferred[None]:
        """
        Cut off every client; they may come back at once.

        @return: fires when the last connection is gone.
        """
        if not self._connections:
            return succeed(None)
        emptied: Deferred[None] = Deferred()
        self._emptied.append(emptied)
        for front in list(self._connections):
            cast(ITCPTransport, front.transport).abortConnection()
        return emptied

"""
The connection with one region: made when needed, kept while of use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as TypingProtocol

from attrs import frozen
from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.derp.counters import RelayCounters
from tsrt.derp.dial import CONNECT_TIMEOUT, RelayEndpoint
from tsrt.derp.failures import RelayTimeout
from tsrt.derp.protocol import QUEUE_LIMIT, DERPClientProtocol
from tsrt.errors import RelayCertificateError, RelayError
from tsrt.interfaces import IStreamDialer
from tsrt.keys import NodeKey
from tsrt.tailcfg import DERPNode, DERPRegion
from tsrt.wire.derp import Restarting

_log = Logger(namespace="tsrt.derp")

IDLE_TIMEOUT = 60.0
"""Seconds without a packet to send after which a connection is closed."""

IDLE_CHECK = 15.0
"""Seconds between two looks at whether a connection is idle."""

RETRY_STEP = 0.010
LONGEST_RETRY = 5.0
"""Seconds that no wait exceeds before the random factor."""

SETTLED = 10.0
"""Seconds that a connection must last for the next to be made without a wait."""

CERTIFICATE_RETRY = 60.0
"""Seconds to wait after a wrong certificate, which seldom changes soon."""

LONGEST_ADVICE = 60.0
"""Seconds of what a restarting relay asks for that are believed."""

LONGEST_CONNECT = 30.0
"""Seconds to which the limit of a connection grows on a slow network."""


class RegionListener(TypingProtocol):
    """Told of what happens in a region."""

    def regionConnected(self, region: RegionService) -> None:
        """The relay has let us in."""

    def regionDisconnected(self, region: RegionService, reason: Failure) -> None:
        """The relay had let us in, and the connection is gone."""

    def regionFailed(self, region: RegionService, error: RelayError) -> None:
        """No connection could be made, or it ended before the login did."""

    def regionPackets(
        self, region: RegionService, source: bytes, packets: list[bytes]
    ) -> None:
        """Packets from a peer."""

    def regionPeerGone(self, region: RegionService, peer: bytes, reason: int) -> None:
        """The relay does not, or no longer, reach a peer."""

    def regionHealth(self, region: RegionService, problem: str) -> None:
        """The relay has a problem, or with no text: has none any more."""


@frozen
class RegionStatus:
    """
    How a region is doing.

    @ivar node: the name of the server that is connected with, or was last.
    @ivar since: when the relay let us in, in seconds of the reactor.
    @ivar error: how the last attempt failed; C{None} when it did not.
    @ivar problem: what the relay says is wrong with it.
    """

    regionID: int
    code: str
    isHome: bool
    isOpen: bool
    isConnected: bool
    node: str
    since: float | None
    error: RelayError | None
    problem: str
    counters: dict[str, int]


class RegionService(Service):
    """
    Keeps a connection with a region while there is a reason to.

    There is a reason while the region is the home, and for a minute after each
    packet that was sent.  Failures never end the service; it tries again.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        dialer: IStreamDialer,
        region: DERPRegion,
        nodeKey: NodeKey,
        listener: RegionListener,
        *,
        randbytes: Callable[[int], bytes],
        plain: bool = False,
    ) -> None:
        """
        @param region: which region, as the relay map describes it.
        @param nodeKey: who we are.
        @param listener: is told of everything.
        @param plain: do without TLS, which only debugging wants.
        """
        self.region = region
        self.regionID = region.regionID
        self.counters = RelayCounters()
        self.isHome = False
        self.isConnected = False
        self.error: RelayError | None = None
        self.problem = ""
        self._reactor = reactor
        self._nodeKey = nodeKey
        self._listener = listener
        self._randbytes = randbytes
        self._endpoint = RelayEndpoint(
            reactor,
            dialer,
            region,
            plain=plain,
            timeout=lambda: self._limit,
            reached=self._reached,
            failed=self._failed,
        )
        self._client: ClientService | None = None
        self._protocol: DERPClientProtocol | None = None
        self._ending: set[Deferred[None]] = set()
        self._idle: LoopingCall | None = None
        self._waiting: list[tuple[bytes, list[bytes]]] = []
        self._waitingCount = 0
        self._lastWrite = 0.0
        self._failures = 0
        self._limit = CONNECT_TIMEOUT
        self._advice: float | None = None
        self._node = ""
        self._since: float | None = None
        self._lastHeard: float | None = None

    # -- the service -------------------------------------------------------------

    def startService(self) -> None:
        """Be ready; connect at once only where this is the home."""
        Service.startService(self)
        if self.isHome:
            self.open()

    def stopService(self) -> Deferred[None]:
        """Close the connection; fires when nothing of it is left."""
        Service.stopService(self)
        self.close()
        return DeferredList(list(self._ending)).addCallback(lambda _: None)

    @property
    def isOpen(self) -> bool:
        """Whether there is a connection, or one is being made."""
        return self._client is not None

    def open(self) -> None:
        """Have a connection, if the service runs."""
        if not self.running or self._client is not None:
            return
        self._lastWrite = self._reactor.seconds()
        self._failures = 0
        self._limit = CONNECT_TIMEOUT
        self._advice = None
        factory: Factory[DERPClientProtocol] = _ClientFactory(self._build)
        self._client = ClientService(
            self._endpoint, factory, retryPolicy=self._retry, clock=self._reactor
        )
        self._client.startService()
        self._idle = LoopingCall(self._closeIfIdle)
        self._idle.clock = self._reactor
        looping = self._idle.start(IDLE_CHECK, now=False)
        looping.addErrback(lambda f: _log.failure("looking for idleness failed", f))

    def close(self) -> None:
        """Have no connection, until there is a reason again."""
        client, self._client = self._client, None
        protocol, self._protocol = self._protocol, None
        idle, self._idle = self._idle, None
        if idle is not None and idle.running:
            idle.stop()
        self._dropWaiting()
        if self.isConnected:
            self._disconnected(Failure(RelayError("the connection was closed")))
        if protocol is not None:
            self._lastHeard = protocol.lastFrame
            protocol.close()
        if client is None:
            return
        ending = client.stopService()
        self._ending.add(ending)

        def ended(result: object) -> None:
            self._ending.discard(ending)
            if isinstance(result, Failure):
                _log.failure("a relay connection did not end well", result)

        ending.addBoth(ended)

    def reconnect(self, nodeKey: NodeKey | None = None) -> None:
        """
        Close the connection; the home gets a new one.

        @param nodeKey: who we are from now on, when that has changed.
        """
        if nodeKey is not None:
            self._nodeKey = nodeKey
        self.close()
        if self.isHome:
            self.open()

    def _closeIfIdle(self) -> None:
        if self.isHome or self._reactor.seconds() - self._lastWrite < IDLE_TIMEOUT:
            return
        _log.debug("relay {region} is idle: closing", region=self.region.regionCode)
        self.close()

    # -- use ---------------------------------------------------------------------

    def setHome(self, isHome: bool) -> None:
        """Be the home, with a lasting connection, or be it no more."""
        if isHome == self.isHome:
            return
        self.isHome = isHome
        # Peers may go on sending here for a while.
        self._lastWrite = self._reactor.seconds()
        if self._protocol is not None:
            self._protocol.setHome(isHome)
        if isHome:
            self.open()

    def send(self, peer: bytes, messages: list[bytes]) -> None:
        """
        Send packets to a peer; connect first if need be.

        While there is no connection, a few packets wait for it.
        """
        self._lastWrite = self._reactor.seconds()
        protocol = self._protocol
        if protocol is not None:
            protocol.send(peer, messages)
            return
        if not self.running:
            self.counters.droppedClosed += len(messages)
            return
        room = QUEUE_LIMIT - self._waitingCount
        if len(messages) > room:
            self.counters.droppedFull += len(messages) - room
            messages = messages[:room]
        if messages:
            self._waiting.append((peer, messages))
            self._waitingCount += len(messages)
        self.open()

    def ping(self, timeout: float) -> Deferred[float] | None:
        """Ping the relay; C{None} without a connection."""
        return None if self._protocol is None else self._protocol.ping(timeout)

    @property
    def lastHeard(self) -> float | None:
        """When the last frame came, in seconds of the reactor."""
        if self.isConnected and self._protocol is not None:
            return self._protocol.lastFrame
        return self._lastHeard

    def localAddress(self) -> str | None:
        """The address that the connection leaves this machine by."""
        if self._protocol is None or self._protocol.transport is None:
            return None
        host = getattr(self._protocol.transport.getHost(), "host", None)
        return host if isinstance(host, str) else None

    def status(self) -> RegionStatus:
        """How the region is doing now."""
        return RegionStatus(
            regionID=self.regionID,
            code=self.region.regionCode,
            isHome=self.isHome,
            isOpen=self.isOpen,
            isConnected=self.isConnected,
            node=self._node,
            since=self._since,
            error=self.error,
            problem=self.problem,
            counters=self.counters.snapshot(),
        )

    def _dropWaiting(self) -> None:
        self.counters.droppedClosed += self._waitingCount
        self._waiting.clear()
        self._waitingCount = 0

    # -- connecting --------------------------------------------------------------

    def _build(self) -> DERPClientProtocol:
        return DERPClientProtocol(
            self._reactor,
            self._nodeKey,
            self,
            randbytes=self._randbytes,
            counters=self.counters,
        )

    def _fraction(self) -> float:
        return 0.5 + int.from_bytes(self._randbytes(4), "big") / (1 << 32)

    def _retry(self, attempt: int) -> float:
        # Our own count: a relay that hangs up on each login must not be
        # besieged, though each of its connections was made.
        self._failures += 1
        advice, self._advice = self._advice, None
        if advice is not None:
            return advice * self._fraction()
        if isinstance(self.error, RelayCertificateError):
            return CERTIFICATE_RETRY * self._fraction()
        return min(self._failures**2 * RETRY_STEP, LONGEST_RETRY) * self._fraction()

    def _reached(self, node: DERPNode) -> None:
        self._node = node.name or node.hostName

    def _failed(self, error: RelayError) -> None:
        if type(error) is not type(self.error) or str(error) != str(self.error):
            _log.info(
                "relay {region}: {error}",
                region=self.region.regionCode or self.regionID,
                error=error.describe(),
            )
        self.error = error
        if isinstance(error, RelayTimeout):
            self._limit = min(self._limit * 1.5, LONGEST_CONNECT)
        self._listener.regionFailed(self, error)

    # -- what the connection tells -------------------------------------------------

    def relayReady(self, protocol: DERPClientProtocol) -> None:
        """The login was sent: packets can be."""
        if self._client is None:
            protocol.abort()
            return
        self._protocol = protocol
        self.counters.connections += 1
        if self.isHome:
            protocol.setHome(True)
        waiting, self._waiting = self._waiting, []
        self._waitingCount = 0
        for peer, messages in waiting:
            protocol.send(peer, messages)

    def relayLoggedIn(self, protocol: DERPClientProtocol) -> None:
        """The relay has let us in."""
        if protocol is not self._protocol:
            return
        self._limit = CONNECT_TIMEOUT
        self.error = None
        self.isConnected = True
        self._since = self._reactor.seconds()
        self._listener.regionConnected(self)

    def relayPackets(
        self, protocol: DERPClientProtocol, source: bytes, packets: list[bytes]
    ) -> None:
        """Packets from a peer have come."""
        if protocol is self._protocol:
            self._listener.regionPackets(self, source, packets)

    def relayPeerGone(
        self, protocol: DERPClientProtocol, peer: bytes, reason: int
    ) -> None:
        """The relay does not, or no longer, reach a peer."""
        if protocol is self._protocol:
            self._listener.regionPeerGone(self, peer, reason)

    def relayHealth(self, protocol: DERPClientProtocol, problem: str) -> None:
        """The relay has a problem, or has none any more."""
        if protocol is self._protocol and problem != self.problem:
            self.problem = problem
            self._listener.regionHealth(self, problem)

    def relayRestarting(self, protocol: DERPClientProtocol, advice: Restarting) -> None:
        """The relay will hang up; remember when it wants us back."""
        if protocol is self._protocol:
            self._advice = min(advice.reconnectIn, LONGEST_ADVICE)

    def relayLost(self, protocol: DERPClientProtocol, reason: Failure) -> None:
        """The connection is gone."""
        if protocol is not self._protocol:
            return
        self._lastHeard = protocol.lastFrame
        self._protocol = None
        error = reason.value
        if self._advice is None and isinstance(error, RelayError):
            self._failed(error)
        if self.isConnected:
            self._disconnected(reason)

    def _disconnected(self, reason: Failure) -> None:
        self.isConnected = False
        since, self._since = self._since, None
        if since is not None and self._reactor.seconds() - since >= SETTLED:
            self._failures = 0
        problem, self.problem = self.problem, ""
        if problem:
            self._listener.regionHealth(self, "")
        self._listener.regionDisconnected(self, reason)


class _ClientFactory(Factory[DERPClientProtocol]):
    noisy = False

    def __init__(self, build: Callable[[], DERPClientProtocol]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> DERPClientProtocol:
        return self._build()

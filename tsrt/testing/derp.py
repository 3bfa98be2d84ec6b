"""
A DERP relay for tests and development.

It speaks to real clients and to simulated ones alike: give it a real reactor
and an endpoint of it, or a host of the
L{simulated internet<tsrt.testing.internet>}::

    server = DERPServer(
        host,
        TCP4ServerEndpoint(host, 443),
        certificate=selfSigned(["derp.example.com"]),
    )
    server.startService()

Several regions are several servers.  There is no mesh: each server is a region
of its own.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.endpoints import wrapServerTLS
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.counters import Counters
from tsrt.errors import NotRunning
from tsrt.keys import NodeKey, NodePublic
from tsrt.tailcfg import DERPNode
from tsrt.testing.certificates import TestCertificate, metaCertificate
from tsrt.testing.derpclient import ClientConnection
from tsrt.testing.derphttp import DERPHTTPProtocol, Request
from tsrt.wire.classify import looksLikeDisco
from tsrt.wire.derp import PeerGoneReason
from tsrt.wire.derpinfo import ServerInfo

_log = Logger(namespace="tsrt.testing.derp")

KEEP_ALIVE = 60.0
"""Seconds between two keep-alives, to which up to 5 random ones come."""

GOODBYE = 2.0
"""Seconds that clients have to take leave when the server stops."""


class DERPCounters(Counters):
    """What happened to the packets and clients of a L{DERPServer}."""

    __slots__ = (
        "delivered",
        "droppedDisabled",
        "droppedEarly",
        "droppedFull",
        "droppedUnknown",
        "malformed",
        "refused",
        "stuck",
    )
    delivered: int
    droppedDisabled: int
    droppedEarly: int
    droppedFull: int
    droppedUnknown: int
    malformed: int
    refused: int
    stuck: int


class Duplicates(enum.Enum):
    """Who gets the packets when several connections have one key."""

    LAST_ACTIVE = "last active"
    """The one that came or sent last."""

    DISABLE_FIGHTERS = "disable fighters"
    """As above, until they take turns: then none, and all are told so."""


def admitAll(key: NodePublic, address: IAddress) -> bool:
    """Let everybody in."""
    return True


class DERPServer(Service):
    """
    One DERP relay: a whole region of one node.

    @ivar counters: what happened so far.
    @ivar requests: how often each HTTP path was asked for.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamServerEndpoint,
        *,
        certificate: TestCertificate | None = None,
        fastStart: bool = True,
        maximumTLS: int | None = None,
        privateKey: NodeKey | None = None,
        randbytes: Callable[[int], bytes] = os.urandom,
        admit: Callable[[NodePublic, IAddress], bool | Deferred[bool]] = admitAll,
        rateLimit: tuple[int, int] | None = None,
        duplicates: Duplicates = Duplicates.LAST_ACTIVE,
        keepAlive: float = KEEP_ALIVE,
    ) -> None:
        """
        @param endpoint: where to listen.
        @param certificate: speak TLS with it; C{None} for plain HTTP, which
            only tests of the debug switch want.
        @param fastStart: whether the server tells its key in a certificate.
        @param maximumTLS: see L{TestCertificate.serverTLS}.
        @param privateKey: the server's key; C{None} makes one.
        @param admit: says who may log in.
        @param rateLimit: bytes per second and bytes at once that clients are
            asked to keep to.
        @param duplicates: what to do about connections with the same key.
        @param keepAlive: seconds between two keep-alives.
        """
        self.reactor = reactor
        self.randbytes = randbytes
        self.admit = admit
        self.keepAlive = keepAlive
        self.counters = DERPCounters()
        self.requests: dict[str, int] = {}
        self.duplicates = duplicates
        key = privateKey if privateKey is not None else NodeKey.generate(randbytes)
        self.privateRaw = key.raw
        self.publicKey = key.public().raw
        perSecond, burst = rateLimit if rateLimit is not None else (0, 0)
        self.info = ServerInfo(
            tokenBucketBytesPerSecond=perSecond, tokenBucketBytesBurst=burst
        )
        self._endpoint = endpoint
        if certificate is not None:
            extra = [metaCertificate(self.publicKey)] if fastStart else []
            self._endpoint = wrapServerTLS(
                certificate.serverTLS(extra, maximumTLS), endpoint, clock=reactor
            )
        self._listening: Deferred[IListeningPort] | None = None
        self._port: IListeningPort | None = None
        self._connections: set[ClientConnection] = set()
        self._clients: dict[bytes, list[ClientConnection]] = {}
        self._senders: dict[bytes, list[ClientConnection]] = {}
        self._waiting: list[Deferred[None]] = []
        self._goodbye: IDelayedCall | None = None

    # -- the service -------------------------------------------------------------

    def startService(self) -> None:
        """Begin to listen; see L{whenListening}."""
        Service.startService(self)
        factory: Factory[DERPHTTPProtocol] = Factory.forProtocol(self._protocol)
        factory.noisy = False
        self._listening = self._endpoint.listen(factory)
        self._listening.addCallbacks(self._listens, self._listenFailed)

    def _protocol(self) -> DERPHTTPProtocol:
        return DERPHTTPProtocol(self.publicKey, self._connection, self._requested)

    def _connection(self, request: Request) -> ClientConnection:
        return ClientConnection(self, request.headers.get("ideal-node", ""))

    def _requested(self, path: str) -> None:
        if len(self.requests) < 1000 or path in self.requests:
            self.requests[path] = self.requests.get(path, 0) + 1

    def _listens(self, port: IListeningPort) -> IListeningPort:
        self._port = port
        return port

    def _listenFailed(self, failure: Failure) -> Failure:
        _log.failure("the DERP server cannot listen", failure=failure)
        return failure

    def whenListening(self) -> Deferred[int]:
        """
        The port number, once it is known.

        @return: fails with what the endpoint failed with, or with
            L{tsrt.errors.NotRunning} when the service was not started.
        """
        result: Deferred[int] = Deferred()
        if self._listening is None:
            result.errback(NotRunning("the DERP server has not been started"))
            return result

        def tell(port: IListeningPort) -> IListeningPort:
            result.callback(self.port)
            return port

        def fail(failure: Failure) -> Failure:
            result.errback(failure)
            return failure

        self._listening.addCallbacks(tell, fail)
        # Told to the caller by now, and logged before.
        self._listening.addErrback(lambda failure: None)
        return result

    @property
    def port(self) -> int:
        """
        The number of the port that the server listens at.

        @raise NotRunning: when it does not listen yet, or any more.
        """
        if self._port is None:
            raise NotRunning("the DERP server does not listen")
        address = self._port.getHost()
        assert isinstance(address, IPv4Address | IPv6Address)
        return address.port

    def stopService(self) -> Deferred[None]:
        """Stop listening and hang up on all clients."""
        Service.stopService(self)
        listening, self._listening = self._listening, None
        port, self._port = self._port, None
        stopping = port.stopListening() if port is not None else None
        if port is None and listening is not None:
            listening.addErrback(lambda failure: None)
            listening.cancel()
        for connection in list(self._connections):
            connection.close()
        gone: Deferred[None] = Deferred()
        if self._connections:
            # A client that does not take leave is hung up on.
            self._goodbye = self.reactor.callLater(GOODBYE, self._hangUp)
            self._waiting.append(gone)
        else:
            gone.callback(None)
        return gatherResults([stopping or succeed(None), gone]).addCallback(
            lambda _: None
        )

    def _hangUp(self) -> None:
        self._goodbye = None
        for connection in list(self._connections):
            connection.abort()

    # -- what a test does to it --------------------------------------------------

    def restart(self, reconnectIn: float = 0.5, tryFor: float = 10.0) -> None:
        """
        Tell all clients of a restart and hang up; new ones are let in.

        @param reconnectIn: seconds that clients are asked to wait.
        @param tryFor: seconds that clients are asked to try.
        """
        for connection in self.clients():
            connection.restarting(reconnectIn, tryFor)

    def setHealth(self, problem: str) -> None:
        """Tell all clients of a problem, or with no text that it is over."""
        for connection in self.clients():
            connection.health(problem)

    def clients(self, key: bytes | None = None) -> list[ClientConnection]:
        """The connections that have logged in, or those of C{key}."""
        if key is not None:
            return list(self._clients.get(key, ()))
        return [c for connections in self._clients.values() for c in connections]

    def node(
        self,
        regionID: int,
        hostName: str,
        *,
        ipv4: str = "",
        ipv6: str = "none",
        stunPort: int = -1,
        certName: str = "",
        insecure: bool = True,
    ) -> DERPNode:
        """
        What a DERP map says about this server.

        @param stunPort: where a STUN server listens; -1 for nowhere.
        @param insecure: whether clients shall not verify the certificate.
        @raise NotRunning: when the server does not listen.
        """
        return DERPNode(
            name=f"{regionID}a",
            regionID=regionID,
            hostName=hostName,
            certName=certName,
            ipv4=ipv4,
            ipv6=ipv6,
            stunPort=stunPort,
            derpPort=self.port,
            insecureForTests=insecure,
        )

    # -- for the connections -------------------------------------------------------

    def connectionOpened(self, connection: ClientConnection) -> None:
        """Somebody has upgraded to DERP."""
        self._connections.add(connection)

    def clientJoined(self, connection: ClientConnection) -> None:
        """A client has logged in."""
        same = self._clients.setdefault(connection.key, [])
        same.append(connection)
        self._senders.pop(connection.key, None)
        for other in same:
            other.isDisabled = False

    def connectionClosed(self, connection: ClientConnection) -> None:
        """A connection is gone, whether it had logged in or not."""
        self._connections.discard(connection)
        self._left(connection)
        if not self._connections:
            goodbye, self._goodbye = self._goodbye, None
            if goodbye is not None and goodbye.active():
                goodbye.cancel()
            waiting, self._waiting = self._waiting, []
            for gone in waiting:
                gone.callback(None)

    def _left(self, connection: ClientConnection) -> None:
        same = self._clients.get(connection.key)
        if same is None or connection not in same:
            return
        same.remove(connection)
        self._senders.pop(connection.key, None)
        if same:
            # Whoever talked to the key is to hear of the end of the last one.
            same[-1].talkedTo |= connection.talkedTo
            for other in same:
                other.isDisabled = False
            return
        del self._clients[connection.key]
        for peer in connection.talkedTo:
            for other in self._clients.get(peer, ()):
                other.peerGone(connection.key, PeerGoneReason.DISCONNECTED)

    def relay(
        self, sender: ClientConnection, destination: bytes, packet: bytes
    ) -> None:
        """Pass a packet on to the connection that shall have it."""
        self._noteActive(sender)
        connections = self._clients.get(destination)
        if not connections:
            self.counters.droppedUnknown += 1
            if looksLikeDisco(packet):
                sender.notHere(destination)
            return
        sender.talksTo(destination)
        receiver = connections[-1]
        if receiver.isDisabled:
            self.counters.droppedDisabled += 1
            return
        receiver.deliver(sender.key, packet)

    def _noteActive(self, sender: ClientConnection) -> None:
        same = self._clients[sender.key]
        if len(same) < 2:
            return
        if same[-1] is not sender:
            same.remove(sender)
            same.append(sender)
        if self.duplicates is Duplicates.DISABLE_FIGHTERS:
            senders = self._senders.setdefault(sender.key, [])
            if senders and senders[-1] is sender:
                return
            if sender in senders and not sender.isDisabled:
                for other in same:
                    other.isDisabled = True
                    other.health("several connections use the same key")
            senders.append(sender)
            del senders[:-10]

"""
A simulated internet with STUN servers, for tests of what is behind routers.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import formatAddress
from tsrt.testing.clock import elapse, resultOf
from tsrt.testing.internet import HostReactor, MemoryInternet
from tsrt.testing.nat import NATKind
from tsrt.testing.stun import STUNServer
from tsrt.wire import stun

Endpoint = tuple[str, int]


class Datagrams(DatagramProtocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, Endpoint]] = []

    def datagramReceived(self, datagram: bytes, addr: Endpoint) -> None:
        self.received.append((datagram, addr))


class Stream(Protocol):
    """Keeps what it receives, and how it ended."""

    def __init__(self) -> None:
        self.data = b""
        self.reasons: list[Failure] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:
        self.reasons.append(reason)


class Streams(Factory):
    """Makes streams and keeps them."""

    def __init__(self) -> None:
        self.made: list[Stream] = []

    def buildProtocol(self, addr: object) -> Stream:
        self.made.append(Stream())
        return self.made[-1]


class NetworkTestCase(SynchronousTestCase):
    """Two STUN servers on the internet, and whatever a test puts behind NATs."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.internet = MemoryInternet(self.clock, seed=7)
        self.servers = []
        for number in (1, 2):
            host = self.internet.host(
                f"stun{number}", [f"192.0.2.{number}", f"2001:db8::{number}"]
            )
            self.servers.append(host)
            for interface in ("", "::"):
                STUNServer(host, 3478, interface).startService()

    def home(
        self, kind: NATKind | None, name: str = "home", **settings: Any
    ) -> HostReactor:
        """A host in a network of its own."""
        network = self.internet.network(name, nat=kind, **settings)
        return self.internet.host(f"{name}.host", network=network)

    def socket(
        self, host: HostReactor, port: int = 41641, interface: str = ""
    ) -> Datagrams:
        protocol = Datagrams()
        host.listenUDP(port, protocol, interface)
        return protocol

    def mapped(self, protocol: Datagrams, server: str = "192.0.2.1") -> Endpoint | None:
        """What a STUN server sees of a socket."""
        before = len(protocol.received)
        protocol.transport.write(stun.buildRequest(bytes(12)), (server, 3478))
        elapse(self.clock, 1)
        if len(protocol.received) == before:
            return None
        [(datagram, _)] = protocol.received[before:]
        _, seen = stun.parseResponse(datagram)
        return formatAddress(seen.address), seen.port

    def dropped(self, reason: str) -> int:
        return self.internet.dropped.get(reason, 0)

    def serve(self, host: HostReactor, port: int = 80) -> Streams:
        """Listen for streams; returns all that come."""
        web = Streams()
        resultOf(self.clock, TCP4ServerEndpoint(host, port).listen(web))
        return web

    def connect(
        self, host: HostReactor, web: Streams, address: str, port: int = 80
    ) -> tuple[Stream, Stream]:
        """A stream from C{host} to what L{serve} has made; both its ends."""
        endpoint = TCP4ClientEndpoint(host, address, port)
        client = resultOf(self.clock, endpoint.connect(Streams()))
        elapse(self.clock, 1)
        return client, web.made[-1]

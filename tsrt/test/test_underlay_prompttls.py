"""
Tests for L{tsrt.underlay.prompttls}.
"""

from __future__ import annotations

from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    wrapServerTLS,
)
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tsrt.interfaces import IReadListener
from tsrt.testing.certificates import selfSigned
from tsrt.testing.clock import pump, resultOf
from tsrt.testing.internet import MemoryInternet
from tsrt.underlay.prompttls import PromptTLSEndpoint

CERTIFICATE = selfSigned(["www.example.com"])


class Server(Protocol):
    """Keeps what it is told."""

    received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


@implementer(IReadListener)
class Client(Protocol):
    """Notes what comes, and when a read is over."""

    def __init__(self) -> None:
        self.events: list[bytes | None] = []

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def readOver(self) -> None:
        """See L{IReadListener}."""
        if self.events and self.events[-1] is not None:
            self.events.append(None)


class PromptTLSTests(SynchronousTestCase):
    """A client and a server that speak real TLS on a simulated network."""

    def setUp(self) -> None:
        self.clock = Clock()
        internet = MemoryInternet(self.clock)
        serving, dialing = internet.host("server"), internet.host("client")
        self.server = Server()
        options = CERTIFICATE.serverTLS()
        endpoint = wrapServerTLS(
            options, TCP4ServerEndpoint(serving, 443), clock=serving
        )
        listening = endpoint.listen(Factory.forProtocol(lambda: self.server))
        resultOf(self.clock, listening)
        endpoint = PromptTLSEndpoint(
            dialing,
            optionsForClientTLS("www.example.com", trustRoot=CERTIFICATE.trustRoot),
            TCP4ClientEndpoint(dialing, serving.addresses[0], 443),
        )
        verifyObject(IStreamClientEndpoint, endpoint)
        self.endpoint = endpoint

    def connect(self, client: Protocol) -> None:
        """Connect, and let the handshake be over."""
        connecting = self.endpoint.connect(Factory.forProtocol(lambda: client))
        pump(self.clock)
        self.assertIs(self.successResultOf(connecting), client)
        client.transport.write(b"first")
        pump(self.clock)
        self.assertEqual(self.server.received, b"first")

    def test_readOver(self) -> None:
        """The end of a read is told once for all the records that it had."""
        client = Client()
        self.connect(client)
        client.events.clear()
        # Records of 16 kilobytes, which come with one read.
        self.server.transport.write(bytes(40000))
        pump(self.clock)
        sizes = [len(data) for data in client.events if data is not None]
        self.assertEqual(sum(sizes), 40000)
        self.assertGreater(len(sizes), 1)
        self.assertEqual(client.events[-1], None)
        self.assertEqual(client.events.count(None), 1)

    def test_indifferent(self) -> None:
        """A protocol that does not ask is told nothing."""
        client = Server()
        self.connect(client)
        self.server.transport.write(b"answer")
        pump(self.clock)
        self.assertEqual(client.received, b"answer")

    def test_atOnce(self) -> None:
        """What is written is on its way before the next turn."""
        client = Client()
        self.connect(client)
        written: list[bytes] = []
        client.transport.transport.write = written.append
        client.transport.write(b"now")
        self.assertEqual(len(written), 1)
        self.assertNotIn(b"now", written[0])

    def test_unreachable(self) -> None:
        """That there is no server is told as the inner endpoint tells it."""
        clock = Clock()
        internet = MemoryInternet(clock)
        dialing, silent = internet.host("client"), internet.host("silent")
        endpoint = PromptTLSEndpoint(
            dialing,
            optionsForClientTLS("www.example.com", trustRoot=CERTIFICATE.trustRoot),
            TCP4ClientEndpoint(dialing, silent.addresses[0], 443),
        )
        connecting = endpoint.connect(Factory.forProtocol(Client))
        pump(clock)
        self.failureResultOf(connecting, ConnectionRefusedError)

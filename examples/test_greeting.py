"""A test of a service on a tailnet: two nodes, no network, no waiting."""

from __future__ import annotations

from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from tsrt.testing.tailnet import TestTailnet


class Greeting(Protocol):
    """The service: says hello and hangs up."""

    def connectionMade(self) -> None:
        """Greet."""
        assert self.transport is not None
        self.transport.write(b"hello from the tailnet")
        self.transport.loseConnection()


class Listener(Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard = b""

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.heard += data


class GreetingTests(SynchronousTestCase):
    """The greeting reaches a client on another node."""

    def test_greeting(self) -> None:
        """A client on one node hears what the server on another says."""
        tailnet = TestTailnet(nodes=["client", "server"])
        self.addCleanup(tailnet.close)
        tailnet.wait(
            tailnet["server"].serverEndpoint(7).listen(Factory.forProtocol(Greeting))
        )
        listener = tailnet.wait(
            tailnet["client"]
            .clientEndpoint("server", 7)
            .connect(Factory.forProtocol(Listener))
        )
        tailnet.settle()
        assert isinstance(listener, Listener)
        self.assertEqual(listener.heard, b"hello from the tailnet")

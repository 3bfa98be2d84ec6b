"""Tests of L{tsrt.derp.protocol} over real TLS: relays that hang up."""

from __future__ import annotations

import os

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tsrt.derp.failures import RelayLost
from tsrt.derp.protocol import DERPClientProtocol
from tsrt.derp.upgrade import Greeting
from tsrt.keys import NodeKey
from tsrt.testing.certificates import selfSigned
from tsrt.wire.derp import FrameSplitter

PACKET = bytes(1400)


class Busy(Protocol):
    """A relay that stops to read when the login has come."""

    def __init__(self) -> None:
        self.loggedIn: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """The login; all that follows waits, or is thrown away."""
        if not self.loggedIn.called:
            self.transport.pauseProducing()
            self.loggedIn.callback(None)


class Listener:
    """Waits for the end of the connection; ignores everything else."""

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def relayLost(self, protocol: DERPClientProtocol, reason: Failure) -> None:
        """The connection is gone."""
        self.lost.errback(reason)

    def relayReady(self, protocol: DERPClientProtocol) -> None:
        """The login was sent."""


class HangUpTests(TestCase):
    """The end of a connection is noticed, however busy it is."""

    timeout = 20

    async def test_whileHeldBack(self) -> None:
        """
        A relay that ends TLS while our packets wait to be sent, and takes what
        is on its way before it closes, is noticed without the watchdog.
        """
        certificate = selfSigned(["127.0.0.1"])
        relay = Busy()
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            TLSMemoryBIOFactory(
                certificate.serverTLS(), False, Factory.forProtocol(lambda: relay)
            )
        )
        self.addCleanup(port.stopListening)
        listener = Listener()
        client = DERPClientProtocol(
            reactor, NodeKey.generate(os.urandom), listener, randbytes=os.urandom
        )

        class ClientFactory(Factory):
            noisy = False

            def buildProtocol(self, addr: IAddress | None) -> Protocol:
                return client

        await wrapClientTLS(
            optionsForClientTLS("127.0.0.1", trustRoot=certificate.trustRoot),
            TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port),
        ).connect(ClientFactory())
        key = NodeKey.generate(os.urandom).public().raw
        client.begin(Greeting(key, FrameSplitter(), [], False))
        await relay.loggedIn
        while not client._paused:
            client.send(key, [PACKET] * 100)
            await deferLater(reactor, 0, lambda: None)
        client.send(key, [PACKET])
        relay.transport.loseConnection()
        while not client.transport.transport.disconnecting:
            await deferLater(reactor, 0.001, lambda: None)
        relay.transport.resumeProducing()
        await self.assertFailure(listener.lost.addTimeout(5, reactor), RelayLost)

"""
A program that answers at addresses that only its own namespace has: over TCP it
sends back what it gets, and over UDP too.  Run by L{tsrt.test.interop.test_routes}
with a port and addresses.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from zope.interface import implementer

from tsrt.cli.filelimit import raiseFileLimit

reactor: Any = _reactor


@implementer(IHalfCloseableProtocol)
class Echo(Protocol):
    """Sends back what comes, to its end."""

    def connectionMade(self) -> None:
        """Read as fast as the other side takes it back, no faster."""
        self.transport.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        """See L{IHalfCloseableProtocol}."""
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """See L{IHalfCloseableProtocol}."""


class EchoDatagrams(DatagramProtocol):
    """Sends back what comes."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """See L{DatagramProtocol}."""
        assert self.transport is not None
        self.transport.write(datagram, addr)


def main() -> None:
    """Listen until the process is ended."""
    raiseFileLimit()
    port = int(sys.argv[1])
    factory = Factory.forProtocol(Echo)
    factory.noisy = False
    for address in sys.argv[2:]:
        reactor.listenTCP(port, factory, 4096, interface=address)
        reactor.listenUDP(port, EchoDatagrams(), interface=address)
    print("listening", flush=True)
    reactor.run()


if __name__ == "__main__":
    main()

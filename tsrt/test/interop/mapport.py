"""
A program that has a port mapped, echoes what comes to it, and writes a line of
JSON for each change.

Run inside of a network namespace by L{tsrt.test.interop.test_portmap}, with the
name of the one protocol that it is to hear: C{NAT-PMP}, C{PCP} or C{UPnP}.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol

from tsrt.addresses import AddrPort
from tsrt.underlay.gateway import findGateway
from tsrt.underlay.portmapper import PortMapper

reactor: Any = _reactor

# What the answers of each begin with.
BEGINNINGS = {"NAT-PMP": b"\0", "PCP": b"\2", "UPnP": b"H"}


class Echo(DatagramProtocol):
    """Sends back what comes."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """See L{DatagramProtocol}."""
        assert self.transport is not None
        self.transport.write(datagram, addr)


class OneProtocol(PortMapper):
    """Hears one protocol only."""

    wanted = b""

    def _received(self, datagram: bytes, source: AddrPort) -> None:
        if datagram.startswith(self.wanted):
            super()._received(datagram, source)


def tell(**line: object) -> None:
    """Write a line."""
    print(json.dumps(line), flush=True)


def main() -> None:
    """Keep the port until the process is ended."""
    port = reactor.listenUDP(0, Echo())
    mapper = OneProtocol(
        reactor,
        randbytes=os.urandom,
        gateway=lambda: findGateway(reactor),
        localPort=lambda: int(port.getHost().port),
        onChange=lambda address: tell(
            address=None if address is None else address.text(),
            service=None if mapper.mapping is None else mapper.mapping.service.value,
        ),
    )
    mapper.wanted = BEGINNINGS[sys.argv[1]]
    reactor.callWhenRunning(mapper.startService)

    def probed(services: Any) -> None:
        tell(services=sorted(service.value for service in services))

    def look() -> None:
        # With all ears.
        mapper.wanted = b""
        mapper.probe().addCallback(probed)

    reactor.callLater(3, look)
    reactor.callLater(20, lambda: tell(failure=mapper.failure))

    def stop() -> Deferred[None]:
        return mapper.stopService()

    reactor.addSystemEventTrigger("before", "shutdown", stop)
    reactor.run()


if __name__ == "__main__":
    main()

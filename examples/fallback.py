"""
A node that answers on every port: connections that nobody listens for are echoed,
but for those to low ports, which are refused.

Run it with TS_AUTHKEY set.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react

from tsrt import REFUSE, Node, NodeConfig


class Echo(Protocol):
    """Sends back what comes."""

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        assert self.transport is not None
        self.transport.write(data)


def whose(
    source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address
) -> Any:
    """Say whose a connection is."""
    if destination.port < 1024:
        return REFUSE
    return Factory.forProtocol(Echo)


async def main(reactor: Any) -> None:
    """Run until interrupted."""
    async with Node(reactor, NodeConfig.fromEnvironment(hostname="echo")) as node:
        await node.up()
        node.registerFallbackTCPHandler(whose)
        await Deferred()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))

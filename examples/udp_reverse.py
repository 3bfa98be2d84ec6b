"""A UDP service on the tailnet; the protocol does not know where it runs."""

from __future__ import annotations

from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol

from tsrt import Node, NodeConfig


class Reverse(DatagramProtocol):
    """Sends each datagram back, turned round."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Answer."""
        assert self.transport is not None
        self.transport.write(datagram[::-1], addr)


def serve(node: Node) -> None:
    """Serve on UDP port 4000 of a node, over IPv4 and IPv6."""
    node.reactor.listenUDP(4000, Reverse())


async def main(reactor: Any) -> None:
    """Join and serve until Ctrl-C."""
    config = NodeConfig.fromEnvironment(hostname="reverse", stateDir="./reverse-state")
    async with Node(reactor, config) as node:
        await node.up()
        serve(node)
        await Deferred()


if __name__ == "__main__":
    task.react(main)

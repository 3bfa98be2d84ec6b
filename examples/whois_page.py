"""A web page on the tailnet that greets each caller by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Site

from tsrt import Node, NodeConfig
from tsrt.netmap.whois import WhoIs
from tsrt.web import WhoIsResource

if TYPE_CHECKING:
    from twisted.web.http import Request


class Greeting(Resource):
    """One caller's page."""

    isLeaf = True

    def __init__(self, caller: WhoIs) -> None:
        super().__init__()
        self._caller = caller

    def render_GET(self, request: Request) -> bytes:
        """Greet."""
        who = self._caller.user or "somebody without a user"
        text = f"Hello {who} on {self._caller.node.hostname}!\n"
        return text.encode("utf-8")


async def serve(node: Node) -> None:
    """Serve the page on port 80 of a node."""
    site: Site = Site(WhoIsResource(node.whois, Greeting))
    await node.serverEndpoint(80).listen(site)


async def main(reactor: Any) -> None:
    """Join and serve until Ctrl-C."""
    config = NodeConfig.fromEnvironment(hostname="greeter", stateDir="./greeter-state")
    async with Node(reactor, config) as node:
        status = await node.up()
        await serve(node)
        print(f"open http://{status.name}/ on any machine of the tailnet")
        await Deferred()


if __name__ == "__main__":
    task.react(main)

"""One process on two tailnets: fetch from the one, tell a port of the other."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import task
from twisted.web.client import readBody

from tsrt import Node, NodeConfig


async def carry(one: Node, url: bytes, two: Node, port: int) -> bytes:
    """Fetch a page on the first tailnet and serve it on the second."""
    from twisted.web.server import Site
    from twisted.web.static import Data

    response = await one.agent().request(b"GET", url)
    page: bytes = await readBody(response)
    root = Data(page, "text/html")
    root.isLeaf = True
    site: Site = Site(root)
    await two.serverEndpoint(port).listen(site)
    return page


async def main(reactor: Any) -> None:
    """Join both tailnets; each has a control server, a key and a directory."""
    one, two = (
        Node(
            reactor,
            NodeConfig(
                hostname="bridge",
                controlURL=os.environ[f"CONTROL_{name}"],
                authKey=os.environ[f"AUTHKEY_{name}"],
                stateDir=f"./bridge-{name.lower()}",
            ),
            name=name,
        )
        for name in ("ONE", "TWO")
    )
    async with one, two:
        await one.up()
        await two.up()
        page = await carry(one, os.environ["URL"].encode(), two, 80)
        print(f"{len(page)} bytes carried; {two.status.name} serves them for a minute")
        await task.deferLater(reactor, 60)


if __name__ == "__main__":
    task.react(main)

"""Fetch a page over the tailnet: C{python fetch.py http://files/}."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import task
from twisted.web.client import readBody

from tsrt import MemoryStateStore, Node, NodeConfig


async def main(reactor: Any, url: str) -> None:
    """Join, fetch, leave."""
    config = NodeConfig.fromEnvironment(hostname="fetch", ephemeral=True)
    async with Node(reactor, config, state=MemoryStateStore()) as node:
        status = await node.up()
        print(f"I am {status.name} at {', '.join(status.addresses)}")
        response = await node.agent().request(b"GET", url.encode())
        print(f"{url} answers {response.code}:")
        print((await readBody(response)).decode())


if __name__ == "__main__":
    task.react(main, sys.argv[1:])

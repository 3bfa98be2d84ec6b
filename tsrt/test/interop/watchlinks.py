"""
A program that writes a line of JSON for each change of the network around it.

Run inside of a network namespace by L{tsrt.test.interop.test_linkmonitor}.
"""

from __future__ import annotations

import json

from twisted.internet import reactor

from tsrt.underlay.interfaces import readAddresses
from tsrt.underlay.linkmonitor import LinkChange, linkMonitor


def tell(what: str, isMajor: bool, addresses: frozenset[str], isOffline: bool) -> None:
    """Write a line."""
    line = {
        "what": what,
        "isMajor": isMajor,
        "addresses": sorted(addresses),
        "isOffline": isOffline,
    }
    print(json.dumps(line), flush=True)


def changed(change: LinkChange) -> None:
    """Something changed."""
    tell(change.what, change.isMajor, change.addresses, change.isOffline)


def main() -> None:
    """Watch until the process is ended."""
    monitor = linkMonitor(reactor, readAddresses, changed)
    reactor.callWhenRunning(monitor.startService)
    reactor.callWhenRunning(
        lambda: tell("started", False, monitor.state.addresses, not monitor.state.isUp)
    )
    reactor.addSystemEventTrigger("before", "shutdown", monitor.stopService)
    reactor.run()


if __name__ == "__main__":
    main()

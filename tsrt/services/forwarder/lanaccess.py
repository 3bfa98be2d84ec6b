"""
The way past the exit node to the networks that this machine is in.

It is open only while the user says so, for connections by IPv4 to private
addresses on networks that this machine is itself part of, and to which no peer
leads.  Everything else that is meant for the tailnet stays in the tailnet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.interfaces import IConnector, IReactorTCP
from twisted.internet.protocol import ClientFactory

from tsrt.addresses import Prefix, parseAddress
from tsrt.errors import WireError
from tsrt.path.local import InterfaceAddress
from tsrt.runtime.preferences import Preferences
from tsrt.services.forwarder.egress import ANY_PORT

_PRIVATE = tuple(
    map(
        Prefix.parse,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
    )
)
_METADATA_SERVICE = parseAddress("169.254.169.254")


class LANAccess:
    """Connects to hosts nearby, for programs that use the tailnet."""

    def __init__(
        self,
        reactor: object,
        preferences: Callable[[], Preferences],
        interfaces: Callable[[], Iterable[InterfaceAddress]],
        leadsTo: Callable[[bytes], bool],
    ) -> None:
        """
        @param reactor: the host's; provides TCP.
        @param interfaces: tells the addresses of this machine.
        @param leadsTo: says whether a peer leads to an address by another route
            than that of an exit node.
        """
        self._reactor = reactor
        self._preferences = preferences
        self._interfaces = interfaces
        self._leadsTo = leadsTo

    def covers(self, host: str) -> bool:
        """Whether connections to C{host} go directly."""
        wanted = self._preferences()
        if not wanted.exitNodeAllowLANAccess or wanted.exitNode is None:
            return False
        try:
            address = parseAddress(host)
        except WireError:
            # Names are those of the tailnet.
            return False
        if address == _METADATA_SERVICE:
            return False
        if not any(network.contains(address) for network in _PRIVATE):
            return False
        return self._isNear(address) and not self._leadsTo(address)

    def _isNear(self, address: bytes) -> bool:
        return any(
            len(found.address) == 4
            and not found.isLoopback
            and Prefix(found.address, found.prefixLength).contains(address)
            for found in self._interfaces()
        )

    def connectTCP(
        self, host: str, port: int, factory: ClientFactory[Any], timeout: float
    ) -> IConnector:
        """Connect by this machine's own network."""
        reactor = cast(IReactorTCP, self._reactor)
        connector: IConnector = reactor.connectTCP(
            host, port, factory, timeout=timeout, bindAddress=ANY_PORT
        )
        return connector

"""
Listening on several addresses of a host at once, as servers on both families do.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer


@implementer(IListeningPort)
class JoinedPorts:
    """Several listening ports that are closed together; the first speaks."""

    def __init__(self, ports: Sequence[IListeningPort]) -> None:
        """@param ports: those that listen, at least one."""
        self._ports = list(ports)

    def startListening(self) -> None:
        """See L{IListeningPort}."""
        for port in self._ports:
            port.startListening()

    def stopListening(self) -> Deferred[None]:
        """See L{IListeningPort}; fires when all are closed."""
        closing = [maybeDeferred(port.stopListening) for port in self._ports]
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)

    def getHost(self) -> IAddress:
        """The address of the first."""
        return self._ports[0].getHost()


@implementer(IStreamServerEndpoint)
class BothFamilies:
    """An endpoint that listens wherever several others do."""

    def __init__(self, *endpoints: IStreamServerEndpoint) -> None:
        """@param endpoints: where to listen; L{JoinedPorts.getHost} is the first's."""
        self._endpoints = endpoints

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See L{IStreamServerEndpoint}."""
        ports: Deferred[list[IListeningPort]] = gatherResults(
            [endpoint.listen(protocolFactory) for endpoint in self._endpoints],
            consumeErrors=True,
        )
        return ports.addCallback(JoinedPorts)

"""Giving an accepted flow its protocol."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.netstack.flow import TCPFlow
from tsrt.overlay.context import OverlayContext, twistedAddress
from tsrt.overlay.transport import TailnetTCPTransport

_log = Logger(namespace="tsrt.overlay")


def serveFlow(
    context: OverlayContext,
    flow: TCPFlow,
    factory: IProtocolFactory,
    onLost: Callable[[Failure], object] | None = None,
) -> bool:
    """
    Connect a protocol of C{factory} to an established flow.

    A factory that has none closes the flow, one that raises resets it.

    @param onLost: called after the protocol's C{connectionLost}.
    @return: whether there is a protocol.
    """
    peer = twistedAddress("TCP", flow.remoteAddress, flow.remotePort)
    try:
        protocol = factory.buildProtocol(peer)
    except Exception:
        _log.failure(
            "{factory!r} raised when asked for a protocol for {peer}",
            factory=factory,
            peer=peer,
        )
        flow.abort()
        context.flush()
        return False
    if protocol is None:
        flow.release(context.now())
        context.flush()
        return False
    transport = TailnetTCPTransport(context, flow, isClient=False, onLost=onLost)
    transport.attach(protocol)
    return True

"""Making the forwarder that a configuration asks for."""

from __future__ import annotations

from twisted.internet.abstract import isIPAddress
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from tsrt.config import NodeConfig, Seams
from tsrt.overlay.fallback import FallbackHandlers
from tsrt.runtime.forwarding import ForwardingOverlay
from tsrt.services.forwarder.egress import ANY_PORT, DIAL_TIMEOUT, chooseEgress
from tsrt.services.forwarder.service import Forwarder
from tsrt.underlay.dial import withProxyTLS
from tsrt.underlay.proxy import Proxy
from tsrt.underlay.trust import trustRoot


def makeForwarder(
    reactor: IReactorTime,
    config: NodeConfig,
    seams: Seams,
    context: ForwardingOverlay,
    handlers: FallbackHandlers,
) -> Forwarder:
    """
    The forwarder of a node; it is not started.

    @raise ConfigError: the certificate authorities for the proxy cannot be read.
    """
    proxy = config.exitProxy
    isTLS = proxy is not None and proxy.scheme == "https"
    root = trustRoot(config.caFile) if isTLS else None

    def toProxy(proxy: Proxy) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint
        if isIPAddress(proxy.host):
            endpoint = TCP4ClientEndpoint(
                reactor, proxy.host, proxy.port, int(DIAL_TIMEOUT), ANY_PORT
            )
        else:
            # Bound to IPv4, it reaches no address of IPv6.
            endpoint = HostnameEndpoint(
                reactor, proxy.host, proxy.port, DIAL_TIMEOUT, ANY_PORT
            )
        return withProxyTLS(reactor, proxy, endpoint, root)

    return Forwarder(
        reactor,
        context,
        chooseEgress(reactor, config.forwardExitEgress, proxy, toProxy),
        seams.hostPinger(reactor),
        tcpPorts=config.forwardTCPPorts,
        udpPorts=config.forwardUDPPorts,
        handlers=handlers,
    )

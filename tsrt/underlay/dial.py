"""
Outgoing stream connections on the real network.
"""

from __future__ import annotations

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import optionsForClientTLS, platformTrust
from zope.interface import implementer

from tsrt.interfaces import IStreamDialer
from tsrt.underlay.prompttls import PromptTLSEndpoint
from tsrt.underlay.proxy import Proxy, ProxySettings
from tsrt.underlay.tunnel import TunnelEndpoint

CONNECT_TIMEOUT = 30.0
"""Seconds that one attempt to connect to one address may take."""


@implementer(IStreamDialer)
class StreamDialer:
    """
    Makes endpoints that know of upstream proxies.

    Connections to this machine itself never take a proxy.  Where one is taken,
    the proxy resolves the name of the server, so an C{address} that was given
    with it has no effect.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        proxies: ProxySettings | None = None,
        trustRoot: object | None = None,
    ) -> None:
        """
        @param reactor: also provides C{IReactorTCP} and
            C{IReactorPluggableNameResolver}.
        @param proxies: the upstream proxies; C{None} for none.
        @param trustRoot: what certificates must lead to, see
            L{tsrt.underlay.trust.trustRoot}; C{None} for what the operating
            system trusts.  It holds for a proxy that is spoken to in TLS; the
            users of the dialer take it for theirs.
        """
        self._reactor = reactor
        self._proxies = proxies if proxies is not None else ProxySettings()
        self.trustRoot: object = platformTrust() if trustRoot is None else trustRoot

    def endpoint(
        self,
        host: str,
        port: int,
        connectionCreator: object | None = None,
        address: str | None = None,
    ) -> IStreamClientEndpoint:
        """See L{IStreamDialer}."""
        proxy = self._proxies.proxyFor(
            host, port, connectionCreator is not None, address
        )
        if proxy is None:
            inner = self._direct(address or host, port)
        else:
            inner = TunnelEndpoint(
                self._reactor, self._toProxy(proxy), proxy, host, port
            )
        if connectionCreator is None:
            return inner
        return PromptTLSEndpoint(
            self._reactor, IOpenSSLClientConnectionCreator(connectionCreator), inner
        )

    def _direct(self, host: str, port: int) -> IStreamClientEndpoint:
        # HostnameEndpoint takes addresses too, but is slow to tell of failure.
        if isIPAddress(host):
            return TCP4ClientEndpoint(self._reactor, host, port, CONNECT_TIMEOUT)
        if isIPv6Address(host):
            return TCP6ClientEndpoint(self._reactor, host, port, CONNECT_TIMEOUT)
        return HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_TIMEOUT)

    def _toProxy(self, proxy: Proxy) -> IStreamClientEndpoint:
        endpoint = self._direct(proxy.host, proxy.port)
        return withProxyTLS(self._reactor, proxy, endpoint, self.trustRoot)


def withProxyTLS(
    reactor: IReactorTime,
    proxy: Proxy,
    endpoint: IStreamClientEndpoint,
    trustRoot: object,
) -> IStreamClientEndpoint:
    """An endpoint that leads to a proxy, in TLS where that is spoken to it."""
    if proxy.scheme != "https":
        return endpoint
    creator = optionsForClientTLS(
        proxy.host,
        trustRoot=trustRoot,  # type: ignore[arg-type]  # private type
    )
    return wrapClientTLS(creator, endpoint, clock=reactor)

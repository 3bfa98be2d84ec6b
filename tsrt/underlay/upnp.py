"""
Asking a UPnP gateway for a port: search, read, ask.

Anything on the local network can answer a search.  So only the gateway itself is
believed, only URLs on it are followed, and what it sends is read with limits of
size and time.

Reference: UPnP Device Architecture 1.1; WANIPConnection:1 and :2,
WANPPPConnection:1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import hyperlink
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from tsrt.addresses import AddrPort, formatAddress, parseAddress
from tsrt.errors import TSRTError, WireError
from tsrt.httpbody import BodyCollector, WholeBody
from tsrt.path.mappings import Gateway
from tsrt.wire import ssdp, upnp
from tsrt.wire.xmltree import LARGEST_DOCUMENT

LEASE = 7200
"""Seconds that we ask for."""

ANSWER_TIMEOUT = 3.0
"""Seconds that the gateway gets for each answer by HTTP."""

SEARCH_TRIES = 2
SEARCH_WAIT = 0.75
"""Seconds after each search; devices may put their answers off."""

SETTLE = 0.05
"""Seconds for further answers after the first one that is a gateway."""

MOST_LOCATIONS = 4
"""How many descriptions are read; a gateway has one, or one for each version."""

PORT_TRIES = 4
"""How many external ports are tried, the others being taken."""

DESCRIPTION = "tsrt"
"""What the router's own pages show beside the port."""

_FIRST_PORT = 1024

_REFUSALS = {upnp.NOT_AUTHORIZED, upnp.OPTIONAL_ACTION}


class UPnPFailed(TSRTError):
    """
    A gateway gives no port by UPnP.

    @ivar isRefusal: whether it could, but must not.
    """

    def __init__(self, reason: str, isRefusal: bool = False) -> None:
        super().__init__(reason)
        self.isRefusal = isRefusal


@frozen
class Lease:
    """
    A port that was given.

    @ivar address: where the world finds us.
    @ivar lifetime: seconds that it holds; infinite if until it is deleted.
    """

    address: AddrPort
    lifetime: float


@frozen
class _Control:
    """Where and how to ask."""

    url: str
    service: str


@implementer(IAgentEndpointFactory)
class _GatewayEndpoints:
    """Leads all connections to the gateway, whatever a URL says."""

    def __init__(self, reactor: IReactorTime, gateway: Gateway) -> None:
        self._reactor = reactor
        self._gateway = gateway

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See L{IAgentEndpointFactory}."""
        return TCP4ClientEndpoint(
            self._reactor,
            self._gateway.text(),
            uri.port,
            timeout=ANSWER_TIMEOUT,
            bindAddress=(formatAddress(self._gateway.own), 0),
        )


class UPnPClient:
    """
    Speaks with one gateway.

    @ivar ignored: how many answers to searches came from elsewhere, were none,
        or led elsewhere.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        gateway: Gateway,
        send: Callable[[bytes, tuple[str, int]], object],
        *,
        randbytes: Callable[[int], bytes],
    ) -> None:
        """
        @param send: sends a datagram to an address; what comes back is to be
            handed to L{received}.
        @param randbytes: the source of randomness, for ports.
        """
        self.ignored = 0
        self._reactor = reactor
        self._gateway = gateway
        self._send = send
        self._randbytes = randbytes
        self._agent = Agent.usingEndpointFactory(
            reactor, _GatewayEndpoints(reactor, gateway)
        )
        self._locations: dict[str, bool] = {}
        self._arrived: Deferred[None] | None = None
        self._control: _Control | None = None

    # -- searching -----------------------------------------------------------------

    def received(self, datagram: bytes, source: AddrPort) -> bool:
        """
        Take an answer to a search.

        @return: whether the gateway has shown that it speaks UPnP.
        """
        try:
            found = ssdp.parseFound(datagram)
        except WireError:
            self.ignored += 1
            return False
        if source.address != self._gateway.address or not self._isOwn(found.location):
            # Somebody else on the network offers to be the gateway.
            self.ignored += 1
            return False
        isGateway = "InternetGatewayDevice" in found.target
        if found.location in self._locations or len(self._locations) < MOST_LOCATIONS:
            self._locations[found.location] = isGateway or self._locations.get(
                found.location, False
            )
        if isGateway and self._arrived is not None:
            arrived, self._arrived = self._arrived, None
            arrived.callback(None)
        return True

    def _isOwn(self, location: str) -> bool:
        """Whether a URL is on the gateway, and is not more than a URL of HTTP."""
        try:
            url = hyperlink.parse(location)
            return (
                url.scheme == "http"
                and not any(url.userinfo)
                and parseAddress(url.host) == self._gateway.address
                and 0 < (url.port or 0) < 65536
            )
        except (ValueError, TypeError):
            return False

    async def search(self) -> list[str]:
        """
        Find the gateway's descriptions.

        @return: their URLs, those of gateways first; none if it does not answer.
        """
        self._locations.clear()
        home = self._gateway.text()
        for _ in range(SEARCH_TRIES):
            for target in (ssdp.GATEWAY, ssdp.ALL):
                datagram = ssdp.buildSearch(target, delay=1)
                for host in (ssdp.GROUP, home):
                    self._send(datagram, (host, ssdp.PORT))
            self._arrived = Deferred()
            await self._within(self._arrived, SEARCH_WAIT)
            if any(self._locations.values()):
                await self._within(Deferred(), SETTLE)
                break
        self._arrived = None
        return sorted(self._locations, key=lambda url: not self._locations[url])

    async def _within(self, event: Deferred[None], seconds: float) -> None:
        """Wait for an event, for so long at the most."""

        def over() -> None:
            if self._arrived is event:
                self._arrived = None
            event.callback(None)

        call: IDelayedCall = self._reactor.callLater(seconds, over)
        try:
            await event
        finally:
            if self._arrived is event:
                self._arrived = None
            if call.active():
                call.cancel()

    # -- asking for ports ----------------------------------------------------------

    async def map(self, localPort: int, suggestedPort: int) -> Lease:
        """
        Ask for a UDP port.

        @param localPort: ours.
        @param suggestedPort: the external one that we had, or 0.
        @raise UPnPFailed: says why there is none.
        """
        if self._control is not None:
            try:
                return await self._mapAt(self._control, localPort, suggestedPort)
            except UPnPFailed:
                # The gateway may be another one by now, at another port.
                self._control = None
        controls = await self._findControls()
        failure = UPnPFailed("its UPnP has no service that maps ports")
        for control in controls:
            try:
                lease = await self._mapAt(control, localPort, suggestedPort)
            except UPnPFailed as error:
                failure = error
                continue
            self._control = control
            return lease
        raise failure

    async def unmap(self, externalPort: int) -> None:
        """
        Give a port back.

        @raise UPnPFailed: the gateway does not take it.
        """
        control = self._control
        if control is None:
            raise UPnPFailed("there is no UPnP gateway that gave a port")
        result = await self._act(
            control,
            "DeletePortMapping",
            {
                "NewRemoteHost": "",
                "NewExternalPort": str(externalPort),
                "NewProtocol": "UDP",
            },
        )
        if isinstance(result, upnp.Fault):
            raise _refused("keeps the port", result)

    async def _findControls(self) -> list[_Control]:
        locations = await self.search()
        if not locations:
            raise UPnPFailed("UPnP is not answered")
        controls: list[_Control] = []
        reason = ""
        for location in locations:
            try:
                document = await self._fetch("GET", location)
                description = upnp.parseDescription(document)
            except (UPnPFailed, WireError) as error:
                reason = str(error)
                continue
            base = hyperlink.parse(location)
            if self._isOwn(description.base):
                base = hyperlink.parse(description.base)
            for service in upnp.connectionServices(description):
                try:
                    url = base.click(service.controlURL).to_text()
                except ValueError:
                    continue
                control = _Control(url, service.type)
                if self._isOwn(url) and control not in controls:
                    controls.append(control)
        if not controls and reason:
            raise UPnPFailed(f"its UPnP description cannot be read: {reason}")
        order = upnp.CONNECTION_SERVICES
        return sorted(controls, key=lambda control: order.index(control.service))

    async def _mapAt(
        self, control: _Control, localPort: int, suggestedPort: int
    ) -> Lease:
        address = await self._externalAddress(control)
        port = suggestedPort or localPort
        lease = LEASE
        fault = upnp.Fault(0, "")
        for _ in range(PORT_TRIES):
            result = await self._askFor(control, port, localPort, lease)
            if isinstance(result, int):
                lifetime = lease or float("inf")
                return Lease(AddrPort(address, result), lifetime)
            fault = result
            if result.code == upnp.ONLY_PERMANENT_LEASES and lease:
                lease = 0
            elif result.code == upnp.SAME_PORT_VALUES and port != localPort:
                port = localPort
            elif result.code in (upnp.CONFLICT, upnp.ACTION_FAILED):
                # Some say only that they failed when the port is taken.
                span = 65536 - _FIRST_PORT
                number = int.from_bytes(self._randbytes(4), "big")
                port = _FIRST_PORT + number % span
            else:
                break
        raise _refused("gives no port", fault)

    async def _externalAddress(self, control: _Control) -> bytes:
        result = await self._act(control, "GetExternalIPAddress", {})
        if isinstance(result, upnp.Fault):
            raise _refused("does not tell its address", result)
        text = result.get("NewExternalIPAddress", "")
        try:
            packed = parseAddress(text)
        except WireError:
            packed = b""
        if len(packed) != 4 or not any(packed):
            raise UPnPFailed("it has no address itself, says its UPnP")
        return packed

    async def _askFor(
        self, control: _Control, port: int, localPort: int, lease: int
    ) -> int | upnp.Fault:
        """Ask for one external port; return the one that was given."""
        isSecond = control.service == upnp.WAN_IP_2
        action = "AddAnyPortMapping" if isSecond else "AddPortMapping"
        result = await self._act(
            control,
            action,
            {
                "NewRemoteHost": "",
                "NewExternalPort": str(port),
                "NewProtocol": "UDP",
                "NewInternalPort": str(localPort),
                "NewInternalClient": formatAddress(self._gateway.own),
                "NewEnabled": "1",
                "NewPortMappingDescription": DESCRIPTION,
                "NewLeaseDuration": str(lease),
            },
        )
        if isinstance(result, upnp.Fault):
            return result
        text = result.get("NewReservedPort", "") if isSecond else str(port)
        if not (text.isascii() and text.isdecimal() and 0 < int(text[:6]) < 65536):
            raise UPnPFailed("its UPnP gives a port that is none")
        return int(text)

    # -- HTTP ------------------------------------------------------------------------

    async def _act(
        self, control: _Control, action: str, arguments: Mapping[str, str]
    ) -> dict[str, str] | upnp.Fault:
        """
        Have the gateway do something.

        @raise UPnPFailed: it does not answer, or not in UPnP.
        """
        document = await self._fetch(
            "POST",
            control.url,
            upnp.buildAction(control.service, action, arguments),
            upnp.soapAction(control.service, action),
        )
        try:
            return upnp.parseResult(action, document)
        except WireError as error:
            raise UPnPFailed(f"its UPnP answers what is no answer: {error}") from None

    async def _fetch(
        self, method: str, url: str, body: bytes = b"", action: str = ""
    ) -> bytes:
        headers = Headers({"User-Agent": [DESCRIPTION], "Connection": ["close"]})
        producer: WholeBody | None = None
        if action:
            headers.addRawHeader("Content-Type", upnp.CONTENT_TYPE)
            headers.addRawHeader("SOAPAction", action)
            producer = WholeBody(body)
        answering = Deferred.fromCoroutine(
            self._exchange(method, url, headers, producer)
        )
        answering.addTimeout(ANSWER_TIMEOUT, self._reactor)
        try:
            return await answering
        except UPnPFailed:
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise UPnPFailed(f"its UPnP does not answer: {reason[:200]}") from None

    async def _exchange(
        self, method: str, url: str, headers: Headers, body: WholeBody | None
    ) -> bytes:
        response: IResponse = await self._agent.request(
            method.encode(), url.encode("ascii"), headers, body
        )
        collector = BodyCollector(LARGEST_DOCUMENT)
        response.deliverBody(collector)
        # Faults come with 500, and say more than the number does.
        if response.code not in (200, 500):
            collector.done.addErrback(lambda _: None)
            collector.done.cancel()
            raise UPnPFailed(f"its UPnP answers with HTTP {response.code}")
        return await collector.done


def _refused(what: str, fault: upnp.Fault) -> UPnPFailed:
    words = f"{fault.code} {fault.reason}".strip()
    return UPnPFailed(f"its UPnP {what} ({words})", fault.code in _REFUSALS)

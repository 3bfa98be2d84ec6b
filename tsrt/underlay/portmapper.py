"""
Keeps a port of the gateway mapped to ours, while the node runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.application.service import Service as TwistedService
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IReactorMulticast,
    IReactorTime,
    IReactorUDP,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.addresses import AddrPort, formatAddress, isTailscaleAddress, parseAddress
from tsrt.errors import WireError
from tsrt.path.candidates import isPrivate
from tsrt.path.local import isLinkLocal
from tsrt.path.mappings import (
    Gateway,
    MapByUPnP,
    PortMapping,
    PortMappingCounters,
    Service,
    UnmapByUPnP,
)
from tsrt.path.portmapping import PortMappingMachine
from tsrt.underlay.upnp import Lease, UPnPClient, UPnPFailed
from tsrt.wire import portmap

_log = Logger(namespace="tsrt.portmap")

DELETE_TIMEOUT = 2.0
"""Seconds that giving a port back may hold up the node's stop."""

_LARGEST = 8192

FindGateway = Callable[[], "Deferred[Gateway | None]"]


class _Datagrams(DatagramProtocol):
    """Hands on what comes to our socket."""

    def __init__(self, received: Callable[[bytes, AddrPort], object]) -> None:
        self._received = received

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """See L{DatagramProtocol}."""
        try:
            source = AddrPort(parseAddress(addr[0]), addr[1])
        except WireError:
            return
        self._received(datagram, source)

    def send(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Send one, or do not: whoever waits for the answer asks again."""
        if self.transport is None:
            return
        try:
            self.transport.write(datagram, addr)
        except OSError as error:
            _log.debug("nothing goes to {addr}: {e}", addr=addr[0], e=error)


class PortMapper(TwistedService):
    """
    Asks the gateway of the machine's network for a port, and keeps it.

    It has a UDP socket of its own: requests must come from the address that the
    port is to lead to, but not from that port.
    """

    name = "portmapper"

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        randbytes: Callable[[int], bytes],
        gateway: FindGateway,
        localPort: Callable[[], int],
        onChange: Callable[[AddrPort | None], object],
        isEnabled: bool = True,
        mayUPnP: bool = True,
        mayMap: bool = True,
    ) -> None:
        """
        @param randbytes: the source of randomness.
        @param gateway: finds the gateway; never fails.
        @param localPort: our UDP port, 0 when there is none.
        @param onChange: told where the world finds us, C{None} when the gateway
            gives no port any more.
        @param isEnabled: whether to ask at all.
        @param mayUPnP: whether UPnP may be tried.
        @param mayMap: whether a port is wanted; if not, L{probe} still finds
            out whether there could be one.
        """
        self._reactor = reactor
        self._randbytes = randbytes
        self._findGateway = gateway
        self._localPort = localPort
        self._onChange = onChange
        self._isEnabled = isEnabled
        self._mayUPnP = mayUPnP
        self._mayMap = mayMap
        self._machine = PortMappingMachine(randbytes=randbytes, mayUPnP=mayUPnP)
        if not isEnabled:
            self._machine.noGateway("port mapping is switched off")
        self._gateway: Gateway | None = None
        self._datagrams: _Datagrams | None = None
        self._port: IListeningPort | None = None
        self._upnp: UPnPClient | None = None
        self._searching: list[UPnPClient] = []
        self._finding: Deferred[Gateway | None] | None = None
        self._mapping: Deferred[None] | None = None
        self._working: set[Deferred[None]] = set()
        self._timer: IDelayedCall | None = None
        self._told: AddrPort | None = None
        self._seenFrom: bytes | None = None

    # -- what is to be known -----------------------------------------------------

    @property
    def isEnabled(self) -> bool:
        """Whether the gateway is asked anything at all."""
        return self._isEnabled

    @property
    def mapping(self) -> PortMapping | None:
        """The mapping at present."""
        return self._machine.mapping

    @property
    def failure(self) -> str:
        """Why there is no mapping, in words; empty while that is not known."""
        return self._machine.failure

    @property
    def counters(self) -> PortMappingCounters:
        """What came of asking."""
        return self._machine.counters

    @property
    def services(self) -> frozenset[Service]:
        """The protocols that the gateway has shown to speak lately."""
        return self._machine.services(self._reactor.seconds())

    # -- the service ---------------------------------------------------------------

    def startService(self) -> None:
        """Look for the gateway, and ask it."""
        super().startService()
        self._begin()

    def stopService(self) -> Deferred[None]:
        """Give the port back, within L{DELETE_TIMEOUT}."""
        super().stopService()
        self._cancelFinding()
        self._machine.end()
        self._settle()
        self._cancelMapping()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        working: list[Deferred[None]] = list(self._working)
        for each in working:
            each.addTimeout(DELETE_TIMEOUT, self._reactor)
            each.addErrback(lambda failure: None)
        return DeferredList(working).addCallback(lambda _: self._close())

    def networkChanged(self) -> None:
        """The machine may be in another network, or have another port."""
        if self.running:
            self._begin()

    def seenFrom(self, address: bytes) -> None:
        """
        Servers see us at an address.

        When that changes while we are in the same network, the provider or the
        gateway has done something.

        @param address: packed, IPv4.
        """
        former, self._seenFrom = self._seenFrom, address
        if former is not None and former != address and self.running:
            self._machine.check(self._reactor.seconds())
            self._settle()

    def setPolicy(self, mayUPnP: bool) -> None:
        """Take what the tailnet's policy says."""
        mayUPnP = mayUPnP and self._mayUPnP
        machine = self._machine
        if mayUPnP == machine.mayUPnP:
            return
        machine.mayUPnP = mayUPnP
        mapping = machine.mapping
        if not mayUPnP and mapping is not None and mapping.service is Service.UPNP:
            machine.end()
            self._settle()
            self.networkChanged()
        elif mayUPnP and mapping is None:
            self.networkChanged()

    def probe(self) -> Deferred[frozenset[Service]]:
        """
        Find out which protocols the gateway speaks.

        @return: fires with them, within two seconds; never fails.
        """
        return Deferred.fromCoroutine(self._probe())

    async def _probe(self) -> frozenset[Service]:
        finding = self._finding
        if finding is not None:
            found: Deferred[None] = Deferred()
            finding.addBoth(lambda _: found.callback(None))
            await found
        gateway, datagrams = self._gateway, self._datagrams
        if gateway is None or datagrams is None:
            return frozenset()
        self._sendToGateway(
            [
                portmap.buildPMPAddressRequest(),
                portmap.buildPCPAnnounceRequest(gateway.own),
            ]
        )
        searcher = self._makeUPnP(gateway, datagrams)
        self._searching.append(searcher)
        try:
            await searcher.search()
        finally:
            self._searching.remove(searcher)
        return self.services

    # -- the gateway ---------------------------------------------------------------

    def _begin(self) -> None:
        self._cancelFinding()
        if not self._isEnabled:
            return
        self._finding = finding = self._findGateway()
        finding.addCallback(self._found)
        finding.addErrback(self._notFound)

    def _cancelFinding(self) -> None:
        finding, self._finding = self._finding, None
        if finding is not None:
            finding.cancel()

    def _notFound(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("the gateway cannot be asked for a port", failure)

    def _found(self, gateway: Gateway | None) -> None:
        if not self.running:
            return
        self._finding = None
        localPort = self._localPort()
        reason = _whyNot(gateway, localPort)
        if gateway is None or reason:
            self._gateway = None
            self._close()
            self._machine.noGateway(reason)
        elif self._open(gateway):
            if self._mayMap:
                self._machine.begin(gateway, localPort, self._reactor.seconds())
            else:
                self._machine.watch(gateway)
        else:
            self._machine.noGateway(
                "there is no UDP port for asking the gateway with: the system "
                f"gives none at {formatAddress(gateway.own)}"
            )
        self._settle()

    def _open(self, gateway: Gateway) -> bool:
        """Have a socket that speaks with this gateway."""
        if gateway == self._gateway and self._port is not None:
            return True
        self._close()
        self._seenFrom = None
        datagrams = _Datagrams(self._received)
        interface = formatAddress(gateway.own)
        try:
            self._port = _listen(self._reactor, datagrams, interface)
        except CannotListenError as error:
            _log.debug("no port for asking the gateway: {e}", e=error)
            return False
        self._gateway = gateway
        self._datagrams = datagrams
        self._upnp = self._makeUPnP(gateway, datagrams)
        return True

    def _makeUPnP(self, gateway: Gateway, datagrams: _Datagrams) -> UPnPClient:
        return UPnPClient(
            self._reactor, gateway, datagrams.send, randbytes=self._randbytes
        )

    def _close(self) -> None:
        port, self._port = self._port, None
        self._datagrams = self._upnp = self._gateway = None
        if port is not None:
            port.stopListening()

    # -- datagrams -----------------------------------------------------------------

    def _received(self, datagram: bytes, source: AddrPort) -> None:
        if not self.running:
            return
        now = self._reactor.seconds()
        if datagram.startswith(b"HTTP/"):
            for client in (self._upnp, *self._searching):
                if client is not None and client.received(datagram, source):
                    self._machine.noteSeen(Service.UPNP, now)
            return
        self._machine.received(datagram, source, now)
        self._settle()

    def _sendToGateway(self, datagrams: list[bytes]) -> None:
        gateway = self._gateway
        if gateway is None or self._datagrams is None:
            return
        where = gateway.text(), portmap.GATEWAY_PORT
        for datagram in datagrams:
            self._datagrams.send(datagram, where)

    # -- the machine's wishes --------------------------------------------------------

    def _settle(self) -> None:
        """Do what the machine wants done."""
        machine = self._machine
        self._sendToGateway(machine.take())
        for wish in machine.takeUPnP():
            if isinstance(wish, MapByUPnP):
                self._mapByUPnP(wish)
            else:
                self._unmapByUPnP(wish)
        self._tell()
        if self.running:
            self._arm(machine.deadline())

    def _arm(self, deadline: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            # Rounding must not make it fire just too soon, again and again.
            wait = max(deadline - self._reactor.seconds(), 0.001)
            self._timer = self._reactor.callLater(wait, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._machine.tick(self._reactor.seconds())
        self._settle()

    def _tell(self) -> None:
        mapping = self._machine.mapping
        address = None if mapping is None else mapping.address
        if address == self._told:
            return
        self._told = address
        if mapping is not None:
            _log.info(
                "the gateway leads {address} to this node ({service})",
                address=mapping.address.text(),
                service=mapping.service.value,
            )
        elif self.running:
            _log.info("the gateway leads no port to this node any more")
        try:
            self._onChange(address)
        except Exception:
            _log.failure("a change of the port mapping could not be handled")

    # -- UPnP ------------------------------------------------------------------------

    def _mapByUPnP(self, wish: MapByUPnP) -> None:
        self._cancelMapping()
        client = self._upnp
        if client is None or not self.running:
            return
        mapping = Deferred.fromCoroutine(client.map(wish.localPort, wish.suggestedPort))
        self._mapping = mapping.addCallbacks(self._upnpMapped, self._upnpFailed)

    def _cancelMapping(self) -> None:
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            mapping.cancel()

    def _upnpMapped(self, lease: Lease) -> None:
        self._mapping = None
        now = self._reactor.seconds()
        self._machine.upnpMapped(lease.address, lease.lifetime, now)
        self._settle()

    def _upnpFailed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._mapping = None
        error = failure.value
        if isinstance(error, UPnPFailed):
            reason, isRefusal = str(error), error.isRefusal
        else:
            _log.failure("a UPnP gateway could not be asked", failure)
            reason, isRefusal = "its UPnP made us fail", False
        self._machine.upnpFailed(reason, isRefusal, self._reactor.seconds())
        self._settle()

    def _unmapByUPnP(self, wish: UnmapByUPnP) -> None:
        client = self._upnp
        if client is None:
            return
        unmapping = Deferred.fromCoroutine(client.unmap(wish.externalPort))

        def over(result: object) -> None:
            self._working.discard(unmapping)
            if isinstance(result, Failure):
                _log.debug("{why}", why=result.getErrorMessage())

        self._working.add(unmapping)
        unmapping.addBoth(over)


def _whyNot(gateway: Gateway | None, localPort: int) -> str:
    """Why a gateway is not asked, in words; empty if it is."""
    if gateway is None:
        return "there is no gateway of IPv4"
    if not localPort:
        return "there is no UDP port of IPv4"
    own = gateway.own
    if isPrivate(own) or isTailscaleAddress(own) or isLinkLocal(own):
        return ""
    return "this machine has a public address"


def _listen(
    reactor: IReactorTime, datagrams: DatagramProtocol, interface: str
) -> IListeningPort:
    """
    Open a UDP port at an address, by which searches for all leave too.

    @raise CannotListenError: when the system gives none.
    """
    if not IReactorMulticast.providedBy(reactor):
        return IReactorUDP(reactor).listenUDP(0, datagrams, interface, _LARGEST)
    port: Any = IReactorMulticast(reactor).listenMulticast(
        0, datagrams, interface, _LARGEST
    )
    port.setOutgoingInterface(interface)
    return cast(IListeningPort, port)

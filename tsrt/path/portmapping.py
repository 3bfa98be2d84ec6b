"""
Asking the gateway for a port of its public address: when, how, and what of it.

A pure machine.  NAT-PMP is asked first, because where it is there it works; PCP
where only that is spoken; UPnP, which is slow and talks a lot, when neither
gives a port.  One mapping is kept at a time, and renewed well before it ends.

Reference: RFC 6886 (NAT-PMP), RFC 6887 (PCP).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from tsrt.addresses import AddrPort, formatAddress
from tsrt.errors import WireError
from tsrt.path.mappings import (
    Gateway,
    MapByUPnP,
    PortMapping,
    PortMappingCounters,
    Service,
    UnmapByUPnP,
    UPnPWish,
    isUseful,
    pcpReason,
    pmpReason,
)
from tsrt.wire import portmap

WAITS = (0.25, 0.25)
"""Seconds that each try gets for its answer (RFC 6886, 3.1, cut short: there is
another protocol to try)."""

RENEWED_AT = 0.5
"""The part of its lifetime after which a mapping is renewed."""

LEAST_RENEWAL = 30.0
"""Seconds from one renewal to the next, however little a gateway grants."""

LONGEST_LIFETIME = 24 * 3600.0
"""Seconds of a lifetime that are believed."""

CHECK_EVERY = 600.0
"""Seconds after which a gateway is asked whether it still remembers."""

RETRY_FAILED = 300.0
"""Seconds from a failure to the next try."""

RETRY_REFUSED = 1800.0
"""The same when the gateway says that it must not."""

SEEN_FOR = 600.0
"""Seconds for which a service that answered counts as there."""

_EPOCH_SLACK = 2


class _State(Enum):
    OFF = "there is no gateway to ask"
    ASKING = "a question is open"
    SETTLED = "there is a mapping, or a reason why not"


class PortMappingMachine:
    """
    Keeps one UDP port mapped.

    Whoever drives it sends what L{take} returns to the gateway, does what
    L{takeUPnP} wants, hands on what comes to L{received}, and calls L{tick} at
    the time that L{deadline} says.

    @ivar mapping: the mapping at present.
    @ivar failure: why there is none, in words; empty while that is not known.
    @ivar counters: what happened.
    """

    def __init__(
        self, *, randbytes: Callable[[int], bytes], mayUPnP: bool = True
    ) -> None:
        """
        @param randbytes: the source of randomness, for PCP.
        @param mayUPnP: whether UPnP may be tried.
        """
        self.mapping: PortMapping | None = None
        self.failure = ""
        self.counters = PortMappingCounters()
        self.mayUPnP = mayUPnP
        self._randbytes = randbytes
        self._state = _State.OFF
        self._gateway: Gateway | None = None
        self._localPort = 0
        self._nonce = b""
        self._out: list[bytes] = []
        self._wishes: list[UPnPWish] = []
        self._seen: dict[Service, float] = {}
        self._epochs: dict[Service, tuple[int, float]] = {}
        self._service = Service.PMP
        self._tries = 0
        self._tried: set[Service] = set()
        self._reasons: list[str] = []
        self._isRefused = False
        self._pmpAddress: bytes | None = None
        self._pmpMapped: portmap.PMPMapping | None = None
        self._next: float | None = None
        self._nextCheck: float | None = None

    # -- beginning and ending ----------------------------------------------------

    def begin(self, gateway: Gateway, localPort: int, now: float) -> None:
        """
        Ask a gateway for a mapping of our port.

        Asked about the gateway and port that there is a mapping for, it only
        makes sure that the gateway knows of it.
        """
        if (gateway, localPort) != (self._gateway, self._localPort):
            sameGateway = gateway == self._gateway
            if sameGateway:
                self._giveBack()
            else:
                self._seen.clear()
                self._epochs.clear()
                # What another router was asked for is out of reach.
                self._wishes.clear()
                self._service = Service.PMP
            self.mapping = None
            self._nonce = b""
        self._gateway = gateway
        self._localPort = localPort
        self.failure = ""
        self._ask(now)

    def end(self) -> None:
        """Give back what there is; L{take} and L{takeUPnP} say how."""
        self._giveBack()
        self._turnOff("port mapping is switched off")

    def noGateway(self, reason: str) -> None:
        """
        There is nobody to ask.

        @param reason: why, in words.
        """
        self._turnOff(reason)
        self._gateway = None

    def _turnOff(self, reason: str) -> None:
        self.mapping = None
        self.failure = reason
        self._state = _State.OFF
        self._next = self._nextCheck = None

    def _giveBack(self) -> None:
        mapping = self.mapping
        self.mapping = None
        if mapping is not None:
            self._delete(mapping.service, mapping.address.port)

    def _delete(self, service: Service, externalPort: int) -> None:
        gateway = self._gateway
        if service is Service.UPNP:
            self._wishes.append(UnmapByUPnP(externalPort))
        elif service is Service.PMP:
            self._out.append(portmap.buildPMPMapRequest(self._localPort, 0, 0))
        elif gateway is not None:
            self._out.append(
                portmap.buildPCPMapRequest(
                    gateway.own, self._nonce, self._localPort, lifetime=0
                )
            )

    def watch(self, gateway: Gateway) -> None:
        """Take note of what a gateway speaks, without asking it for a port."""
        self._gateway = gateway

    # -- what is to be done --------------------------------------------------------

    def take(self) -> list[bytes]:
        """Datagrams to send to the gateway's port L{portmap.GATEWAY_PORT}."""
        out, self._out = self._out, []
        return out

    def takeUPnP(self) -> list[UPnPWish]:
        """What to do by UPnP, in this order."""
        wishes, self._wishes = self._wishes, []
        return wishes

    def deadline(self) -> float | None:
        """When L{tick} is to be called, in seconds."""
        expires = None if self.mapping is None else self.mapping.expires
        times = (self._next, self._nextCheck, expires)
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: float) -> None:
        """Time has passed."""
        mapping = self.mapping
        if mapping is not None and now >= mapping.expires:
            self.mapping = None
        if self._next is not None and now >= self._next:
            self._next = None
            if self._state is _State.ASKING:
                self._unanswered(now)
            else:
                self._ask(now)
        if self._nextCheck is not None and now >= self._nextCheck:
            self.check(now)

    # -- asking --------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        """Begin with the protocol that gave the present mapping, or the first."""
        self._state = _State.ASKING
        self._tried.clear()
        self._reasons = []
        self._isRefused = False
        self._nextCheck = None
        mapping = self.mapping
        self._try(Service.PMP if mapping is None else mapping.service, now)

    def _try(self, service: Service, now: float) -> None:
        self._service = service
        self._tried.add(service)
        self._tries = 0
        self._pmpAddress = None
        self._pmpMapped = None
        if service is not Service.UPNP:
            self._send(now)
            return
        self._next = None
        self._wishes.append(MapByUPnP(self._localPort, self._suggestion()))

    def _suggestion(self) -> int:
        return 0 if self.mapping is None else self.mapping.address.port

    def _send(self, now: float) -> None:
        gateway = self._gateway
        assert gateway is not None, "asked for a port without a gateway"
        port, suggestion = self._localPort, self._suggestion()
        if self._service is Service.PMP:
            if self._pmpAddress is None:
                self._out.append(portmap.buildPMPAddressRequest())
            if self._pmpMapped is None:
                self._out.append(portmap.buildPMPMapRequest(port, suggestion))
            if self.mapping is None:
                self._out.append(portmap.buildPCPAnnounceRequest(gateway.own))
        else:
            if not self._nonce:
                self._nonce = self._randbytes(portmap.PCP_NONCE_LENGTH)
            self._out.append(
                portmap.buildPCPMapRequest(gateway.own, self._nonce, port, suggestion)
            )
        self._next = now + WAITS[self._tries]
        self._tries += 1

    def _unanswered(self, now: float) -> None:
        isPMP = self._service is Service.PMP
        heard = self._pmpAddress is not None or self._pmpMapped is not None
        if isPMP and not heard and self._isThere(Service.PCP, now):
            # That gateway has had its chance: it answers in the other protocol.
            self._try(Service.PCP, now)
        elif self._tries < len(WAITS):
            self._send(now)
        else:
            self._fail(f"{self._service.value} is not answered", False, now)

    def _fail(self, reason: str, isRefusal: bool, now: float) -> None:
        """One protocol gives nothing: try the next one."""
        self._reasons.append(reason)
        self._isRefused = self._isRefused or isRefusal
        if self._isThere(Service.PCP, now) and Service.PCP not in self._tried:
            self._try(Service.PCP, now)
        elif self.mayUPnP and Service.UPNP not in self._tried:
            self._try(Service.UPNP, now)
        else:
            self._giveUp(now)

    def _giveUp(self, now: float) -> None:
        gateway = self._gateway
        assert gateway is not None, "gave up without a gateway"
        self._state = _State.SETTLED
        self.counters.failed += 1
        mapping = self.mapping
        if mapping is not None:
            # It may be that nobody listened just now; it holds for a while.
            left = mapping.expires - now
            self._next = now + max(left * RENEWED_AT, min(left, LEAST_RENEWAL))
            return
        reasons = ", ".join(dict.fromkeys(self._reasons))
        self.failure = f"the gateway {gateway.text()} maps no port: {reasons}"
        self._next = now + (RETRY_REFUSED if self._isRefused else RETRY_FAILED)

    def _succeed(
        self, service: Service, address: AddrPort, lifetime: float, now: float
    ) -> None:
        if not isUseful(address):
            self._delete(service, address.port)
            text = formatAddress(address.address)
            self._fail(f"its own address {text} is not a public one", False, now)
            return
        lifetime = min(lifetime, LONGEST_LIFETIME)
        self._state = _State.SETTLED
        self.failure = ""
        self.counters.granted += 1
        self.mapping = PortMapping(address, self._localPort, service, now + lifetime)
        self._next = now + max(lifetime * RENEWED_AT, LEAST_RENEWAL)
        if service is not Service.UPNP:
            self._nextCheck = now + CHECK_EVERY

    # -- whether the gateway still knows -------------------------------------------

    def check(self, now: float) -> None:
        """
        Have a look whether the gateway remembers the mapping, and what its
        address is; without a mapping, try again if it was the gateway that
        gave none.
        """
        gateway = self._gateway
        if self._state is not _State.SETTLED or gateway is None:
            return
        mapping = self.mapping
        if mapping is None or mapping.service is Service.UPNP:
            self._ask(now)
            return
        self._nextCheck = now + CHECK_EVERY
        if mapping.service is Service.PMP:
            self._out.append(portmap.buildPMPAddressRequest())
        else:
            self._out.append(portmap.buildPCPAnnounceRequest(gateway.own))

    def _noteEpoch(self, service: Service, epoch: int, now: float) -> bool:
        """
        See whether a gateway counts on (RFC 6886, 3.6; RFC 6887, 8.5).

        @return: whether it began anew, and so forgot its mappings.
        """
        former = self._epochs.get(service)
        self._epochs[service] = epoch, now
        if former is None:
            return False
        then, at = former
        return epoch < then + (now - at) * 7 / 8 - _EPOCH_SLACK

    # -- answers -------------------------------------------------------------------

    def received(self, datagram: bytes, source: AddrPort, now: float) -> None:
        """
        Take a datagram.

        @param source: where it came from; only the gateway is believed.
        """
        gateway = self._gateway
        if gateway is None or source != (gateway.address, portmap.GATEWAY_PORT):
            self.counters.droppedForeign += 1
            return
        try:
            reply = portmap.parsePortmapReply(datagram)
        except WireError:
            self.counters.droppedMalformed += 1
            return
        if isinstance(reply, portmap.PMPAddress | portmap.PMPMapping):
            service = Service.PMP
        else:
            service = Service.PCP
        if reply.result == portmap.RESULT_UNSUPPORTED_VERSION:
            # The other protocol was asked; this says that it is not known, in a
            # form that can be taken for an answer of this one.
            return
        self.noteSeen(service, now)
        mapping = self.mapping
        isForgotten = self._noteEpoch(service, reply.epoch, now)
        if (
            isForgotten
            and self._state is _State.SETTLED
            and mapping is not None
            and mapping.service is service
        ):
            self.counters.forgotten += 1
            self._ask(now)
            return
        if isinstance(reply, portmap.PMPAddress):
            self._pmpAddressCame(reply, now)
        elif isinstance(reply, portmap.PMPMapping):
            self._pmpMappingCame(reply, now)
        elif isinstance(reply, portmap.PCPMapping):
            self._pcpMappingCame(reply, now)

    def _isAsking(self, service: Service) -> bool:
        return self._state is _State.ASKING and self._service is service

    def _pmpAddressCame(self, reply: portmap.PMPAddress, now: float) -> None:
        mapping = self.mapping
        if self._isAsking(Service.PMP):
            if reply.result:
                self._fail(*pmpReason(reply.result), now)
                return
            self._pmpAddress = reply.address
            self._completePMP(now)
        elif (
            mapping is not None
            and mapping.service is Service.PMP
            and not reply.result
            and mapping.address.address != reply.address
        ):
            # The provider has given it another address.
            self._ask(now)

    def _pmpMappingCame(self, reply: portmap.PMPMapping, now: float) -> None:
        if not self._isAsking(Service.PMP) or reply.internalPort != self._localPort:
            self.counters.droppedStray += 1
            return
        if reply.result:
            self._fail(*pmpReason(reply.result), now)
        elif not (reply.lifetime and reply.externalPort):
            # The answer to what was given back before.
            self.counters.droppedStray += 1
        else:
            self._pmpMapped = reply
            self._completePMP(now)

    def _completePMP(self, now: float) -> None:
        address, mapped = self._pmpAddress, self._pmpMapped
        if address is not None and mapped is not None:
            where = AddrPort(address, mapped.externalPort)
            self._succeed(Service.PMP, where, mapped.lifetime, now)

    def _pcpMappingCame(self, reply: portmap.PCPMapping, now: float) -> None:
        if not self._isAsking(Service.PCP) or reply.nonce != self._nonce:
            self.counters.droppedStray += 1
            return
        if reply.result:
            self._fail(*pcpReason(reply.result), now)
        elif not (reply.lifetime and reply.externalPort):
            self.counters.droppedStray += 1
        else:
            where = AddrPort(reply.externalAddress, reply.externalPort)
            self._succeed(Service.PCP, where, reply.lifetime, now)

    # -- UPnP ----------------------------------------------------------------------

    def upnpMapped(self, address: AddrPort, lifetime: float, now: float) -> None:
        """
        L{MapByUPnP} was done.

        @param lifetime: seconds that the mapping holds; what holds until it is
            deleted is looked after all the same.
        """
        self.noteSeen(Service.UPNP, now)
        if self._isAsking(Service.UPNP):
            self._succeed(Service.UPNP, address, lifetime, now)

    def upnpFailed(self, reason: str, isRefusal: bool, now: float) -> None:
        """
        L{MapByUPnP} could not be done.

        @param reason: in words that follow on "the gateway maps no port".
        @param isRefusal: whether the gateway could, but must not.
        """
        if not self._isAsking(Service.UPNP):
            return
        if self.mapping is not None and self.mapping.service is Service.UPNP:
            # It may be gone by now, and another protocol may have come.
            self.mapping = None
            self._ask(now)
            return
        self._fail(reason, isRefusal, now)

    # -- what is there -------------------------------------------------------------

    def noteSeen(self, service: Service, now: float) -> None:
        """A service showed that it is there."""
        self._seen[service] = now

    def _isThere(self, service: Service, now: float) -> bool:
        seen = self._seen.get(service)
        return seen is not None and now - seen < SEEN_FOR

    def services(self, now: float) -> frozenset[Service]:
        """The services that have shown within L{SEEN_FOR} that they are there."""
        return frozenset(each for each in Service if self._isThere(each, now))

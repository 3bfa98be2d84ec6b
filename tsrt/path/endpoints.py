"""
Where this node may be reached: the endpoints that control and peers are told.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from tsrt.addresses import AddrPort, isTailscaleAddress
from tsrt.counters import Counters
from tsrt.path.local import (
    InterfaceAddress,
    isLinkLocal,
    isLoopback,
    isUnicast,
    usableAddresses,
)

REMEMBERED = 310.0
"""Seconds for which an endpoint is told after it was last seen: a little longer
than the time between two full checks of the network."""

ROUND = 5.0
"""Seconds within which the answers of one check of the network come."""

REFLEXIVE_LIMIT = 16
"""Reflexive addresses that are known at a time (R-MS-4)."""

PER_ADDRESS = 6
"""Endpoints of one IP address that are told from memory."""

STATIC_LIMIT = 64
"""Configured endpoints that are told."""


class EndpointKind(IntEnum):
    """How an endpoint came to be known; the numbers are those of control."""

    UNKNOWN = 0
    LOCAL = 1
    STUN = 2
    PORT_MAPPED = 3
    STUN4_LOCAL_PORT = 4
    EXPLICIT = 5


class Endpoint(NamedTuple):
    """A place where this node may be reached, and how that is known."""

    address: AddrPort
    kind: EndpointKind

    def text(self) -> str:
        """C{192.0.2.1:41641 (stun)}, for people."""
        return f"{self.address.text()} ({_WORDS[self.kind]})"


_WORDS = {
    EndpointKind.UNKNOWN: "unknown",
    EndpointKind.LOCAL: "local",
    EndpointKind.STUN: "stun",
    EndpointKind.PORT_MAPPED: "port mapping",
    EndpointKind.STUN4_LOCAL_PORT: "stun, own port",
    EndpointKind.EXPLICIT: "configured",
}


class EndpointCounters(Counters):
    """
    What the list of our endpoints left out.

    @ivar droppedImplausible: reflexive addresses that no peer could use.
    @ivar droppedFull: reflexive addresses beyond L{REFLEXIVE_LIMIT}.
    """

    __slots__ = ("droppedFull", "droppedImplausible")
    droppedFull: int
    droppedImplausible: int


class _Sighting:
    """How often and when servers saw us at an address."""

    __slots__ = ("count", "last")

    def __init__(self) -> None:
        self.count = 0
        self.last = 0.0


class EndpointBook:
    """
    Knows at which addresses this node may be reached.

    It is told what the interfaces, the STUN servers, the gateway and the
    configuration say, and makes one list of it, the most widely reachable
    first.  An endpoint that is not seen any more stays on the list for
    L{REMEMBERED} seconds, so that one lost answer withdraws nothing.

    @ivar counters: what was left out, and why.
    """

    def __init__(self, *, fixedPort: bool = False) -> None:
        """
        @param fixedPort: whether the user chose the port.  Then somebody may
            have made a hard NAT forward this very port by hand, and it is worth
            a try.
        """
        self.counters = EndpointCounters()
        self._fixedPort = fixedPort
        self._local: list[bytes] = []
        self._loopback: list[bytes] = []
        self._ports = {4: 0, 16: 0}
        self._reflexive: dict[AddrPort, _Sighting] = {}
        self._newest = {4: 0.0, 16: 0.0}
        self._mapped: AddrPort | None = None
        self._static: tuple[AddrPort, ...] = ()
        self._mappingVaries: bool | None = None
        self._recent: dict[Endpoint, float] = {}

    # -- what is known -----------------------------------------------------------

    def setLocal(
        self, addresses: Iterable[InterfaceAddress], port4: int, port6: int
    ) -> None:
        """
        Say which addresses this machine has.

        @param addresses: all of them; those of no use to peers are left out.
        @param port4: the port of the IPv4 socket, 0 when there is none.
        @param port6: the port of the IPv6 socket, 0 when there is none.
        """
        self._local, self._loopback = usableAddresses(addresses)
        self._ports = {4: port4, 16: port6}

    def addReflexive(self, address: AddrPort, now: float) -> None:
        """
        Say that a STUN server saw our socket at an address.

        Only answers to requests that this node sent from its one socket may get
        here (R-MS-4, R-MS-6, R-DIR-5): whoever else could add to this list would
        have peers send their packets to a place of his choice.
        """
        if not _isPlausible(address):
            self.counters.droppedImplausible += 1
            return
        self._forgetOld(now)
        sighting = self._reflexive.get(address)
        if sighting is None:
            if len(self._reflexive) >= REFLEXIVE_LIMIT and not self._makeRoom(now):
                self.counters.droppedFull += 1
                return
            sighting = self._reflexive[address] = _Sighting()
        sighting.count += 1
        sighting.last = now
        self._newest[len(address.address)] = now

    def setMapped(self, address: AddrPort | None) -> None:
        """Say which address a gateway gave us, or C{None} if it gives none."""
        self._mapped = address

    def setStatic(self, addresses: Iterable[AddrPort]) -> None:
        """Say which endpoints were configured; L{STATIC_LIMIT} of them count."""
        self._static = tuple(dict.fromkeys(addresses))[:STATIC_LIMIT]

    def setMappingVaries(self, varies: bool | None) -> None:
        """
        Say whether a NAT gives us another address towards each destination.

        @param varies: C{None} if that is not known.
        """
        self._mappingVaries = varies

    def networkChanged(self, now: float) -> None:
        """
        Forget where servers saw us: that was another network (T-rebind).

        What the gateway gave stays until L{setMapped} says otherwise; whoever
        asks the gateway hears of the change too.
        """
        self._reflexive.clear()
        self._recent.clear()
        self._mappingVaries = None

    # -- what follows from it --------------------------------------------------------

    def hasReflexive(self, now: float) -> bool:
        """
        Whether an address of ours as it looks from outside is known, by STUN or
        from a gateway; without one there is no point in inviting peers
        (R-DIR-6).
        """
        self._forgetOld(now)
        return bool(self._reflexive) or self._mapped is not None

    def endpoints(self, now: float) -> list[Endpoint]:
        """
        All endpoints that are worth telling, each address once.

        @return: in the order of how far away they can be used; compare two
            lists as sets.
        """
        self._forgetOld(now)
        fresh = self._fresh(now)
        self._recent.update(fresh)
        found: dict[AddrPort, EndpointKind] = {}
        for endpoint in fresh:
            found.setdefault(*endpoint)
        for address in self._static:
            found.setdefault(address, EndpointKind.EXPLICIT)
        for endpoint in self._remembered(found):
            found.setdefault(*endpoint)
        isReachable = bool(found)
        for packed in self._local:
            self._addLocal(found, packed)
        if not isReachable and not self._hasLocal():
            # Two nodes on a machine that has no network find each other.
            for packed in self._loopback:
                self._addLocal(found, packed)
        return [Endpoint(*item) for item in found.items()]

    def _addLocal(self, found: dict[AddrPort, EndpointKind], packed: bytes) -> None:
        port = self._ports[len(packed)]
        if port:
            found.setdefault(AddrPort(packed, port), EndpointKind.LOCAL)

    def _hasLocal(self) -> bool:
        return any(self._ports[len(packed)] for packed in self._local)

    def _fresh(self, now: float) -> dict[Endpoint, float]:
        """What gateway and servers say at present, and when they said it."""
        found: dict[Endpoint, float] = {}
        if self._mapped is not None:
            found[Endpoint(self._mapped, EndpointKind.PORT_MAPPED)] = now
        own4 = self._current(4)
        for address in (*own4, *self._current(16)):
            last = self._reflexive[address].last
            found[Endpoint(address, EndpointKind.STUN)] = last
        if self._mappingVaries and self._fixedPort and self._ports[4]:
            for address in own4:
                guess = AddrPort(address.address, self._ports[4])
                endpoint = Endpoint(guess, EndpointKind.STUN4_LOCAL_PORT)
                if guess not in own4 and endpoint not in found:
                    found[endpoint] = self._reflexive[address].last
        return found

    def _current(self, size: int) -> list[AddrPort]:
        """Reflexive addresses of the last round, the one seen most often first."""
        since = self._newest[size] - ROUND
        found = [
            (-sighting.count, -sighting.last, index, address)
            for index, (address, sighting) in enumerate(self._reflexive.items())
            if len(address.address) == size and sighting.last >= since
        ]
        return [item[3] for item in sorted(found)]

    def _remembered(self, found: dict[AddrPort, EndpointKind]) -> list[Endpoint]:
        """
        Endpoints of earlier rounds, the youngest of each address; the rest is
        forgotten, so that a gateway that changes its mind all the time fills
        neither the memory nor the list.
        """
        counts: dict[bytes, int] = {}
        for address in found:
            counts[address.address] = counts.get(address.address, 0) + 1
        chosen: list[Endpoint] = []
        for endpoint in sorted(self._recent, key=self._age):
            address = endpoint.address
            if address in found:
                continue
            count = counts.get(address.address, 0)
            if count < PER_ADDRESS and len(chosen) < REFLEXIVE_LIMIT:
                counts[address.address] = count + 1
                chosen.append(endpoint)
            else:
                del self._recent[endpoint]
        return chosen

    def _age(self, endpoint: Endpoint) -> float:
        return -self._recent[endpoint]

    def _forgetOld(self, now: float) -> None:
        since = now - REMEMBERED
        for address, sighting in list(self._reflexive.items()):
            if sighting.last < since:
                del self._reflexive[address]
        for endpoint, last in list(self._recent.items()):
            if last < since:
                del self._recent[endpoint]

    def _makeRoom(self, now: float) -> bool:
        """
        Drop the oldest reflexive address that the present round did not bring.

        Those of the present round stay: a server that sees us everywhere must
        not drive out what the others say.
        """
        oldest = min(self._reflexive, key=lambda address: self._reflexive[address].last)
        if self._reflexive[oldest].last >= now - ROUND:
            return False
        del self._reflexive[oldest]
        return True


def _isPlausible(address: AddrPort) -> bool:
    """Whether a peer might reach us at a reflexive address."""
    packed = address.address
    return (
        0 < address.port < 65536
        and isUnicast(packed)
        and not isLoopback(packed)
        and not isLinkLocal(packed)
        and not isTailscaleAddress(packed)
    )

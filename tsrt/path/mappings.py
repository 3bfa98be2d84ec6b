"""
What port mapping is about: gateways, the ways to ask them, and what they give.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from tsrt.addresses import AddrPort, formatAddress, isTailscaleAddress
from tsrt.counters import Counters
from tsrt.path.local import isLinkLocal, isLoopback, isUnicast
from tsrt.wire import portmap


class Service(Enum):
    """How ports are asked for; the values are what people call them."""

    PMP = "NAT-PMP"
    PCP = "PCP"
    UPNP = "UPnP"


@frozen
class Gateway:
    """
    The next router on the way to the IPv4 internet.

    @ivar address: its packed address on our side.
    @ivar own: our packed address towards it.
    """

    address: bytes
    own: bytes

    def text(self) -> str:
        """Its address as people write it."""
        return formatAddress(self.address)


@frozen
class PortMapping:
    """
    A port that a gateway leads to us.

    @ivar address: where the world finds us.
    @ivar localPort: our own UDP port.
    @ivar service: how it was asked for.
    @ivar expires: when it ends, in seconds.
    """

    address: AddrPort
    localPort: int
    service: Service
    expires: float


@frozen
class MapByUPnP:
    """The machine's wish that somebody asks for a port by UPnP."""

    localPort: int
    suggestedPort: int


@frozen
class UnmapByUPnP:
    """The machine's wish that somebody gives a port back by UPnP."""

    externalPort: int


UPnPWish = MapByUPnP | UnmapByUPnP


class PortMappingCounters(Counters):
    """
    What came of asking gateways.

    @ivar droppedForeign: datagrams that did not come from the gateway.
    @ivar droppedMalformed: datagrams of the gateway that were no answers.
    @ivar droppedStray: answers to what was not asked.
    @ivar failed: how often no protocol gave a port.
    @ivar forgotten: how often a gateway had lost a mapping, as after a reboot.
    @ivar granted: how often a port was given, renewals included.
    """

    __slots__ = (
        "droppedForeign",
        "droppedMalformed",
        "droppedStray",
        "failed",
        "forgotten",
        "granted",
    )
    droppedForeign: int
    droppedMalformed: int
    droppedStray: int
    failed: int
    forgotten: int
    granted: int


def isUseful(address: AddrPort) -> bool:
    """
    Whether somebody may find us there.

    A private address is good for those in the network that it belongs to; in
    the range of a provider's NAT it cannot be told from the tailnet's own.
    """
    packed = address.address
    return (
        len(packed) == 4
        and isUnicast(packed)
        and not isLoopback(packed)
        and not isLinkLocal(packed)
        and not isTailscaleAddress(packed)
    )


_PMP_RESULTS = {
    2: "NAT-PMP is switched off there",
    3: "it has no address itself",
    4: "it has no port left",
}

_PCP_RESULTS = {
    2: "PCP is switched off there",
    7: "it has no address itself",
    8: "it has no port left for us",
    10: "it has given us as many ports as it may",
    12: "there is another NAT between it and us",
}


def pmpReason(result: int) -> tuple[str, bool]:
    """What a result of NAT-PMP means, and whether it is a refusal."""
    reason = _PMP_RESULTS.get(result, f"NAT-PMP fails with result {result}")
    return reason, result == portmap.RESULT_NOT_AUTHORISED


def pcpReason(result: int) -> tuple[str, bool]:
    """The same for PCP."""
    reason = _PCP_RESULTS.get(result, f"PCP fails with result {result}")
    return reason, result == portmap.RESULT_NOT_AUTHORISED

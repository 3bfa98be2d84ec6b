"""What overlay transports need of the node that they run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorTime

from tsrt.addresses import formatAddress, parseAddress
from tsrt.errors import WireError
from tsrt.netstack.stack import Stack


class Reactive(Protocol):
    """Owns an object of the stack and is told when that has news."""

    def stackReady(self) -> None:
        """Look at the object: data, room, an end, a new connection."""


class OverlayContext(Protocol):
    """
    The node, as far as a transport may know it.

    @ivar reactor: for the time and for delayed calls.
    @ivar stack: the TCP/IP stack whose objects the transports own.
    """

    reactor: IReactorTime
    stack: Stack

    def now(self) -> float:
        """The time in seconds, as the stack counts it."""

    def flush(self) -> None:
        """
        See to it that what the stack has to send leaves when the reactor has dealt
        with what is ready, before it waits.
        """

    def resolve(self, name: str) -> list[bytes]:
        """The packed addresses of a tailnet name; none if it is unknown."""

    def whenUp(self, callback: Callable[[], object]) -> Callable[[], None]:
        """
        Call C{callback} once addresses and routes are known; at once if they
        are already.

        @return: a callable that takes the request back.
        """

    def localAddresses(self) -> list[bytes]:
        """This node's packed addresses, IPv4 first; none before the netmap."""


def twistedAddress(
    protocol: Literal["TCP", "UDP"], address: bytes, port: int
) -> IPv4Address | IPv6Address:
    """Make the address value that Twisted's own transports would give."""
    kind = IPv4Address if len(address) == 4 else IPv6Address
    return kind(protocol, formatAddress(address), port)


def packedInterface(interface: str) -> bytes | int | None:
    """
    Read the C{interface} argument of a listen call.

    @param interface: empty for both families, C{v4} or C{0.0.0.0} for IPv4
        only, C{v6} for IPv6 only, C{::} for both (as a dual-stack socket
        does), or one of the node's addresses.
    @return: what the stack takes: C{None}, 4, 6 or a packed address.
    @raise ValueError: it is none of these.
    """
    if interface in ("", "::"):
        return None
    if interface in ("v4", "0.0.0.0"):
        return 4
    if interface == "v6":
        return 6
    try:
        return parseAddress(interface)
    except WireError:
        raise ValueError(f"{interface!r} is not an address of the overlay") from None

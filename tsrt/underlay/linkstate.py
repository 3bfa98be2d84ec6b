"""
How this machine is connected, and what it means when that changes.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from tsrt.addresses import formatAddress, isTailscaleAddress
from tsrt.path.local import InterfaceAddress, isLinkLocal, isLoopback, isUnicast


@frozen
class DefaultRoute:
    """
    The way by which packets leave for the internet.

    @ivar family: 4 or 6.
    @ivar interface: the name of the interface; empty when not known.
    @ivar gateway: the packed address of the next router; C{None} when not known
        or not needed.
    @ivar source: the packed address that packets come from, if known.
    """

    family: int
    interface: str
    gateway: bytes | None
    source: bytes | None

    def text(self) -> str:
        """For people: C{192.0.2.1 on eth0}."""
        if self.gateway is not None:
            way = _text(self.gateway)
            return f"{way} on {self.interface}" if self.interface else way
        if self.interface:
            return self.interface
        return "from " + _text(self.source or b"")


@frozen
class LinkState:
    """
    How this machine is connected.

    @ivar addresses: all its addresses, as text.
    @ivar useful: those by which anybody else can reach it.
    @ivar routes: its ways to the internet, by family; empty when there are none
        or they are not known.
    """

    addresses: frozenset[str] = frozenset()
    useful: frozenset[str] = frozenset()
    routes: tuple[DefaultRoute, ...] = ()

    @property
    def isUp(self) -> bool:
        """Whether there is any network."""
        return bool(self.useful)

    @classmethod
    def of(
        cls,
        addresses: Iterable[InterfaceAddress],
        routes: Iterable[DefaultRoute] = (),
    ) -> LinkState:
        """The state of a machine with these addresses and routes."""
        everything = list(addresses)
        ways = tuple(sorted(routes, key=lambda route: route.family))
        useful = [entry for entry in everything if _isUseful(entry)]
        if not useful and any(route.family == 4 for route in ways):
            # Some clouds give nothing but a self-assigned address, and NAT.
            useful = [entry for entry in everything if _isSelfAssigned(entry)]
        return cls(
            frozenset(entry.text() for entry in everything),
            frozenset(entry.text() for entry in useful),
            ways,
        )


@frozen
class LinkChange:
    """
    Something that happened to this machine's network.

    @ivar what: it, in words.
    @ivar isMajor: whether connections made before may be of no use any more.
    @ivar addresses: all addresses that the machine has now, as text.
    @ivar isOffline: whether there is no network at all at the moment.
    @ivar hasSlept: whether the machine was asleep, while others were not.
    """

    what: str
    isMajor: bool
    addresses: frozenset[str]
    isOffline: bool = False
    hasSlept: bool = False


def compare(
    former: LinkState, state: LinkState, events: Iterable[str] = ()
) -> LinkChange | None:
    """
    What changed.

    An address that is new breaks nothing; one that is gone, and another way to
    the internet, do: packets would leave with an address that does not belong
    there.

    @param events: sleep, in words; always major.
    @return: C{None} if nothing did.
    """
    parts = list(events)
    isMajor = hasSlept = bool(parts)
    lost = former.useful - state.useful
    found = state.useful - former.useful
    if lost:
        parts.append(f"lost {_list(lost)}")
        isMajor = True
    if found:
        parts.append(f"got {_list(found)}")
        isMajor = isMajor or not former.useful
    for family in (4, 6):
        before, now = _route(former, family), _route(state, family)
        if before == now:
            continue
        isMajor = isMajor or _isOther(before, now)
        if now is not None:
            parts.append(f"IPv{family} goes by {now.text()} now")
        else:
            parts.append(f"IPv{family} has no way out any more")
    if not parts:
        return None
    return LinkChange(
        " and ".join(parts),
        isMajor,
        state.addresses,
        isOffline=not state.isUp,
        hasSlept=hasSlept,
    )


def _route(state: LinkState, family: int) -> DefaultRoute | None:
    return next((route for route in state.routes if route.family == family), None)


def _isOther(before: DefaultRoute | None, now: DefaultRoute | None) -> bool:
    """Whether packets of connections made before may not arrive any more."""
    if before is None or now is None:
        # Without a way nothing worked; a new one is like a new address.
        return before is not None
    if (before.interface, before.gateway) != (now.interface, now.gateway):
        return True
    former, source = before.source or b"", now.source or b""
    # For privacy, IPv6 hosts take another address of the same subnet now and
    # then; the former one stays good for a while.
    return len(source) == 4 or former[:8] != source[:8]


def _isUseful(entry: InterfaceAddress) -> bool:
    packed = entry.address
    return (
        isUnicast(packed)
        and not entry.isLoopback
        and not isLoopback(packed)
        and not isLinkLocal(packed)
        and not isTailscaleAddress(packed)
    )


def _isSelfAssigned(entry: InterfaceAddress) -> bool:
    return len(entry.address) == 4 and isLinkLocal(entry.address)


def _text(packed: bytes) -> str:
    return formatAddress(packed) if len(packed) in (4, 16) else "?"


def _list(addresses: Iterable[str]) -> str:
    return ", ".join(sorted(addresses))

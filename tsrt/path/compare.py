"""Which of two answering addresses of a peer is the better one."""

from __future__ import annotations

from tsrt.path.candidates import isPrivate
from tsrt.path.local import isLinkLocal, isLoopback
from tsrt.path.places import Direct, Via

_LOOPBACK = 50
_LINK_LOCAL = 30
_PRIVATE = 20
_IPV6 = 10


def isBetter(place: Direct, latency: float, other: Direct, otherLatency: float) -> bool:
    """
    Whether C{place} is so much better than C{other} that a change is worth it.

    Nearness counts in hundredths of the slower one's latency; addresses of the
    same site, and IPv6, get something on top, since they cost less or are more
    likely to last.

    @param latency: of C{place}, in seconds; C{otherLatency} likewise.
    """
    if place == other:
        return False
    isVia, otherIsVia = isinstance(place, Via), isinstance(other, Via)
    if isVia != otherIsVia:
        # Through a third node it is slower, and that node has other work.
        return otherIsVia
    points = otherPoints = 0
    if latency > otherLatency and latency > 0:
        otherPoints = 100 - int(otherLatency * 100 / latency)
    elif otherLatency > 0:
        points = 100 - int(latency * 100 / otherLatency)
    points += _bonus(place)
    otherPoints += _bonus(other)
    if points <= 1 and otherPoints == 0:
        return False
    return points > otherPoints


def _bonus(place: Direct) -> int:
    address = place.address if isinstance(place, Via) else place
    packed = address.address
    bonus = _IPV6 if len(packed) == 16 else 0
    if isLoopback(packed):
        return bonus + _LOOPBACK
    if isLinkLocal(packed):
        return bonus + _LINK_LOCAL
    if isPrivate(packed):
        return bonus + _PRIVATE
    return bonus

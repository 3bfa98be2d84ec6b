"""Hands out the overlay addresses of a tailnet."""

from __future__ import annotations

from collections.abc import Container

from tsrt.addresses import (
    CGNAT,
    CHROMEOS,
    SERVICE_IPV4,
    SERVICE_IPV6,
    ULA,
    Prefix,
)
from tsrt.errors import ConfigError

_LIMIT = 1 << (32 - CGNAT.length)


class AddressPool:
    """
    Gives each node the next addresses; those of deleted nodes rest a long time.

    The two addresses of a node end in the same number, for people's sake.
    """

    def __init__(self, ipv4: bool = True, ipv6: bool = True) -> None:
        """
        @param ipv4: whether nodes get an IPv4 address.
        @param ipv6: whether nodes get an IPv6 address.
        @raise ConfigError: when they would get neither.
        """
        if not (ipv4 or ipv6):
            raise ConfigError("nodes need IPv4 or IPv6 addresses, or both")
        self._ipv4 = ipv4
        self._ipv6 = ipv6
        self._last = 0

    def take(self, used: Container[Prefix]) -> tuple[Prefix, ...]:
        """
        Pick addresses that nobody has.

        @param used: the host prefixes that are taken.
        @return: one host prefix for each family.
        @raise ConfigError: when there are no more.
        """
        for _ in range(_LIMIT):
            self._last = self._last % (_LIMIT - 2) + 1
            candidates = self._numbered(self._last)
            if candidates and not any(prefix in used for prefix in candidates):
                return candidates
        raise ConfigError("all addresses of the tailnet are taken")

    def _numbered(self, number: int) -> tuple[Prefix, ...]:
        """The addresses with a number, or none if one of them is special."""
        four = _offset(CGNAT, number)
        six = _offset(ULA, number)
        if four == SERVICE_IPV4 or six == SERVICE_IPV6 or CHROMEOS.contains(four):
            return ()
        wanted = [(self._ipv4, four), (self._ipv6, six)]
        return tuple(Prefix.host(address) for give, address in wanted if give)


def _offset(prefix: Prefix, number: int) -> bytes:
    size = len(prefix.address)
    return (int.from_bytes(prefix.address, "big") + number).to_bytes(size, "big")

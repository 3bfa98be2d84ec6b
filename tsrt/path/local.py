"""
The addresses of this machine, and which of them are worth telling peers.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from tsrt.addresses import Prefix, formatAddress, isTailscaleAddress

PER_SUBNET = 2
"""How many IPv6 addresses of one subnet are told to peers; machines that
change their address daily for privacy have many more."""


@frozen
class InterfaceAddress:
    """
    One address of one network interface.

    @ivar address: packed.
    @ivar prefixLength: how many leading bits its subnet shares.
    @ivar interface: the name of the interface, for people.
    @ivar isLoopback: whether it leads nowhere but to this machine.
    """

    address: bytes
    prefixLength: int
    interface: str = ""
    isLoopback: bool = False

    def text(self) -> str:
        """The address as people write it, without its prefix."""
        return formatAddress(self.address)


def isLinkLocal(packed: bytes) -> bool:
    """Whether an address is good on one link only (RFC 3927, RFC 4291)."""
    if len(packed) == 4:
        return packed[:2] == b"\xa9\xfe"
    return packed[0] == 0xFE and packed[1] & 0xC0 == 0x80


def isLoopback(packed: bytes) -> bool:
    """Whether an address always means the machine that uses it."""
    if len(packed) == 4:
        return packed[0] == 127
    return packed == _LOOPBACK6


def isUnicast(packed: bytes) -> bool:
    """Whether an address can be that of one machine."""
    if not any(packed):
        return False
    if len(packed) == 4:
        # Zero is "this network", and from 224 on there are groups, addresses
        # that were never given out, and broadcast.
        return 0 < packed[0] < 224
    return packed[0] != 0xFF


def isUniqueLocal(packed: bytes) -> bool:
    """Whether an IPv6 address is private to a site (RFC 4193)."""
    return len(packed) == 16 and packed[0] & 0xFE == 0xFC


_LOOPBACK6 = bytes(15) + b"\x01"


def usableAddresses(
    addresses: Iterable[InterfaceAddress],
) -> tuple[list[bytes], list[bytes]]:
    """
    Choose the addresses at which peers may find this machine.

    Addresses of a tailnet are not among them: a path must not lead through
    itself.  Private IPv6 addresses and self-assigned IPv4 ones are used only if
    there are no others, because some cloud machines have nothing else.

    @return: those that others can use, and the loopback ones, each once, in the
        order given.
    """
    regular: dict[bytes, None] = {}
    lastResort: dict[bytes, None] = {}
    loopback: dict[bytes, None] = {}
    subnets: dict[Prefix, int] = {}
    for entry in addresses:
        packed = entry.address
        if not isUnicast(packed) or isTailscaleAddress(packed):
            continue
        if entry.isLoopback or isLoopback(packed):
            loopback[packed] = None
        elif isLinkLocal(packed):
            if len(packed) == 4:
                lastResort[packed] = None
        elif isUniqueLocal(packed):
            lastResort[packed] = None
        elif len(packed) == 4:
            regular[packed] = None
        elif packed not in regular:
            subnet = Prefix(packed, entry.prefixLength).masked()
            taken = subnets.get(subnet, 0)
            if taken < PER_SUBNET:
                subnets[subnet] = taken + 1
                regular[packed] = None
    return list(regular or lastResort), list(loopback)

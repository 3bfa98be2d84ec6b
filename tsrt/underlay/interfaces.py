"""
The addresses of this machine's network interfaces.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import ifaddr
from twisted.logger import Logger

from tsrt.addresses import fromMapped, isTailscaleAddress, parseAddress
from tsrt.errors import WireError
from tsrt.path.local import InterfaceAddress, isLoopback

__all__ = [
    "InterfaceAddress",
    "InterfaceSource",
    "addressesFromText",
    "interfaceAddresses",
    "readAddresses",
]

_log = Logger(namespace="tsrt.underlay")

InterfaceSource = Callable[[], Sequence[InterfaceAddress]]
"""Tells the addresses that this machine has now."""

# Get the flags of an interface, and the flag that it is switched on.
_SIOCGIFFLAGS = {"linux": 0x8913, "darwin": 0xC0206911}.get(sys.platform)
_IFF_UP = 1


class _IP(Protocol):
    """An address as C{ifaddr} tells it: IPv6 with flow and scope."""

    @property
    def ip(self) -> str | tuple[str, int, int]:
        """The address."""

    @property
    def network_prefix(self) -> int:
        """The length of the prefix that its subnet shares."""


class Adapter(Protocol):
    """An interface as C{ifaddr} tells it."""

    @property
    def nice_name(self) -> str:
        """The name that people know."""

    @property
    def ips(self) -> Sequence[_IP]:
        """The addresses."""


def readAddresses(
    adapters: Callable[[], Iterable[Adapter]] | None = None,
    isUp: Callable[[str], bool] | None = None,
) -> tuple[InterfaceAddress, ...]:
    """
    The addresses of all interfaces that are switched on.

    Those that Tailscale gives to nodes are left out, whoever carries them, and
    so are the interfaces of ZeroTier: two overlay networks that try to run
    through each other carry nothing but each other's probes.

    @param adapters: tells the interfaces.
    @param isUp: says by its name whether an interface is switched on.
    @raise OSError: when the system does not tell.
    """
    found = []
    for adapter in (adapters or _systemAdapters)():
        name = str(adapter.nice_name)
        if name.startswith("zt") or "ZeroTier" in name or not (isUp or _isUp)(name):
            continue
        parsed = []
        for entry in adapter.ips:
            packed = _packed(entry.ip)
            if packed is not None and not isTailscaleAddress(packed):
                parsed.append((packed, entry.network_prefix))
        # Whatever else the loopback interface carries leads nowhere either.
        isLocal = any(isLoopback(packed) for packed, _ in parsed)
        for packed, length in parsed:
            length = min(max(length, 0), 8 * len(packed))
            found.append(InterfaceAddress(packed, length, name, isLocal))
    return tuple(found)


class _Interfaces:
    """
    Remembers what was told last; like what it tells, it belongs to the process.
    """

    def __init__(self) -> None:
        self._last: tuple[InterfaceAddress, ...] = ()

    def __call__(self) -> tuple[InterfaceAddress, ...]:
        try:
            self._last = readAddresses()
        except OSError as error:
            _log.debug("the addresses of this machine are not told: {e}", e=error)
        return self._last


interfaceAddresses: Final[Callable[[], tuple[InterfaceAddress, ...]]] = _Interfaces()
"""L{readAddresses}; what it told before if the system does not tell now, as it
does not while there are too many files open. A machine does not lose its network
by that."""


def addressesFromText(
    addresses: Iterable[str], interface: str = ""
) -> tuple[InterfaceAddress, ...]:
    """
    The same for a machine whose addresses are known as text, such as a host of
    the simulated internet.

    @raise WireError: for what is no address.
    """
    found = []
    for text in addresses:
        packed = parseAddress(text)
        if not isTailscaleAddress(packed):
            found.append(
                InterfaceAddress(packed, 8 * len(packed), interface, isLoopback(packed))
            )
    return tuple(found)


def _systemAdapters() -> Iterable[Adapter]:
    adapters: Iterable[Adapter] = ifaddr.get_adapters()
    return adapters


def _packed(ip: str | tuple[str, int, int]) -> bytes | None:
    text = ip if isinstance(ip, str) else ip[0]
    with suppress(WireError):
        return fromMapped(parseAddress(text.partition("%")[0]))
    return None


def _isUp(name: str) -> bool:
    """Whether an interface is switched on; it is if nobody can tell."""
    if _SIOCGIFFLAGS is None:
        return True
    # Not there on Windows.
    import fcntl

    # A struct ifreq: the name, and a union with the flags in front.
    request = struct.pack("16s24x", name.encode()[:15])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock.fileno(), _SIOCGIFFLAGS, request)
    except OSError:
        return True
    return bool(struct.unpack_from("=H", answer, 16)[0] & _IFF_UP)

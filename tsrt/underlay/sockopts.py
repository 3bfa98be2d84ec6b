"""
What a UDP socket is told when it is made: how much to keep for us, and that
errors of others are none of its own.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable

BUFFER_SIZE = 7 << 20
"""Bytes that the system is asked to keep for us in each direction while we, or
the network, are busy; that is what the reference client asks for."""

SMALLEST_BUFFER = 64 << 10
"""Bytes below which asking for less makes no sense any more."""

# Linux: beyond what the administrator allows to everybody, for those who may.
_FORCE = {socket.SO_RCVBUF: 33, socket.SO_SNDBUF: 32}

# Windows: whether ICMP errors about datagrams that were sent to others break
# the next receive.
_SIO_UDP_CONNRESET = 0x9800000C
_SIO_UDP_NETRESET = 0x9800000F

Control = Callable[[int, int, bytes], int]
"""Windows' C{WSAIoctl}: takes handle, code and input; returns zero if it went
well."""


def enlargeBuffers(sock: socket.socket, platform: str = sys.platform) -> None:
    """
    Have the system keep as much for a socket as it is willing to, up to
    L{BUFFER_SIZE}; less is no error.
    """
    for option, force in _FORCE.items():
        if platform == "linux":
            try:
                sock.setsockopt(socket.SOL_SOCKET, force, BUFFER_SIZE)
                continue
            except OSError:
                # Only for the administrator. The other option below is cut to
                # what is allowed, without an error.
                pass
        size = BUFFER_SIZE
        while size >= SMALLEST_BUFFER:
            try:
                sock.setsockopt(socket.SOL_SOCKET, option, size)
                break
            except OSError:
                # The BSDs refuse what is too much, and do not say how much
                # would not be.
                size //= 2


def ignoreICMPErrors(
    sock: socket.socket,
    platform: str = sys.platform,
    control: Control | None = None,
) -> None:
    """
    Have receiving not fail because a datagram that was sent earlier came to a
    closed port or a dead network; only Windows does that to sockets that are
    not connected.
    """
    if platform != "win32":
        return
    call = _wsaIoctl if control is None else control
    for code in (_SIO_UDP_CONNRESET, _SIO_UDP_NETRESET):
        # One that is not known (NETRESET came with Windows 10) or refused
        # means that such errors come, which the reader survives.
        call(sock.fileno(), code, struct.pack("=I", 0))


def _wsaIoctl(handle: int, code: int, data: bytes) -> int:
    """Call C{WSAIoctl}; Python's own C{ioctl} knows only few codes."""
    import ctypes

    library = getattr(ctypes, "windll").ws2_32  # noqa: B009
    returned = ctypes.c_ulong()
    result: int = library.WSAIoctl(
        ctypes.c_size_t(handle),
        ctypes.c_ulong(code),
        ctypes.c_char_p(data),
        ctypes.c_ulong(len(data)),
        None,
        ctypes.c_ulong(0),
        ctypes.byref(returned),
        None,
        None,
    )
    return result

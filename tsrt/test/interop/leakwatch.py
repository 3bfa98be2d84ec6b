"""Seeing whether this machine itself sends anything to some address."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any

from tsrt.addresses import parseAddress

_ETH_P_ALL = 3
_HEADERS = {0x0800: (4, slice(16, 20)), 0x86DD: (6, slice(24, 40))}


class LeakWatch:
    """
    Reads all that leaves and enters the interfaces of this machine.

    @ivar seen: the addresses, of those that are watched, that packets were for.
    """

    def __init__(self, reactor: Any, *addresses: str) -> None:
        self._watched = {parseAddress(text): text for text in addresses}
        self._reactor = reactor
        self.seen: list[str] = []
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)
        )
        self._socket.setblocking(False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """See L{IFileDescriptor}."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See L{ILoggingContext}."""
        return "leak watch"

    def connectionLost(self, reason: object) -> None:
        """See L{IFileDescriptor}."""

    def doRead(self) -> None:
        """See L{IReadDescriptor}."""
        with suppress(BlockingIOError):
            while True:
                frame = self._socket.recv(65535)
                if len(frame) < 54:
                    continue
                (kind,) = struct.unpack_from("!H", frame, 12)
                where = _HEADERS.get(kind)
                if where is None:
                    continue
                destination = frame[14:][where[1]]
                if destination in self._watched:
                    self.seen.append(self._watched[destination])

    def stop(self) -> None:
        """Read no more."""
        self._reactor.removeReader(self)
        self._socket.close()

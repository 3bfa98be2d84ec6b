"""
One UDP port of one address family, kept open whatever happens to it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorSocket,
    IReactorUDP,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol

from tsrt.underlay.sockopts import enlargeBuffers, ignoreICMPErrors

MAX_DATAGRAM = 65535
"""Bytes of the largest datagram that is read whole."""

Writer = Callable[[bytes, tuple[str, int]], object]
"""Sends a datagram to an address; raises C{OSError} if it cannot."""


class FamilyProtocol(DatagramProtocol):
    """Hands on what comes by one port."""

    noisy = False

    def __init__(
        self,
        received: Callable[[bytes, tuple[str, int]], None],
        refused: Callable[[], None],
        stopped: Callable[[FamilyProtocol], None],
    ) -> None:
        """
        @param received: called with each datagram and where it is from.
        @param refused: called when the system tells of an ICMP error.
        @param stopped: called when the port is closed, by whomever.
        """
        self._received = received
        self._refused = refused
        self._stopped = stopped

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """See L{DatagramProtocol}."""
        self._received(datagram, addr)

    def connectionRefused(self) -> None:
        """See L{DatagramProtocol}."""
        self._refused()

    def stopProtocol(self) -> None:
        """See L{DatagramProtocol}."""
        self._stopped(self)


def openPort(
    reactor: IReactorUDP,
    protocol: FamilyProtocol,
    family: int,
    port: int,
    address: str = "",
) -> IListeningPort:
    """
    Open a UDP port.

    @param family: 4 or 6.  An IPv6 port takes no IPv4 datagrams, so that both
        families can have the same number.
    @param port: the number, or 0 for a free one.
    @param address: one of the machine's of that family; by default all.
    @raise CannotListenError: when the port, or the family, is not to be had.
    """
    if family == 4:
        listening: IListeningPort = reactor.listenUDP(
            port, protocol, address, MAX_DATAGRAM
        )
    elif IReactorSocket.providedBy(reactor):
        listening = _openIPv6(IReactorSocket(reactor), protocol, port, address or "::")
    else:
        listening = reactor.listenUDP(port, protocol, address or "::", MAX_DATAGRAM)
    handle = _handleOf(listening)
    if handle is not None:
        enlargeBuffers(handle)
        ignoreICMPErrors(handle)
    return listening


def _openIPv6(
    reactor: IReactorSocket, protocol: FamilyProtocol, port: int, address: str
) -> IListeningPort:
    """
    Twisted's own IPv6 ports take IPv4 as well on most systems, and then cannot
    have the number of an IPv4 port.
    """
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    except OSError as error:
        raise CannotListenError(address, port, error) from error
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        return reactor.adoptDatagramPort(
            sock.fileno(), socket.AF_INET6, protocol, MAX_DATAGRAM
        )
    except OSError as error:
        raise CannotListenError(address, port, error) from error
    finally:
        # The reactor has made a copy of its own.
        sock.close()


def closePort(port: IListeningPort) -> Deferred[None]:
    """Close a port; fires when it is closed."""
    stopping = port.stopListening()
    return succeed(None) if stopping is None else stopping


def _handleOf(port: IListeningPort) -> socket.socket | None:
    """The socket of a port on a real network."""
    handle = getattr(port, "getHandle", lambda: None)()
    return handle if isinstance(handle, socket.socket) else None


def writerOf(port: IListeningPort) -> Writer:
    """
    How to send from a port.

    On the hot path this is the socket's own method: the transport's looks at
    each address anew to find out what it is, for longer than the rest takes.
    """
    handle = _handleOf(port)
    if handle is not None:
        return handle.sendto
    return IUDPTransport(port).write


def sendVia(
    write: Writer, datagrams: list[bytes], address: tuple[str, int]
) -> tuple[int, int, int, int]:
    """
    Send datagrams to one address.

    @return: how many the system took, their bytes, how many were too long for
        it, and the error number with which it took no more, or 0; -1 if there
        is no number.
    """
    sent = size = tooLong = 0
    for datagram in datagrams:
        try:
            write(datagram, address)
        except MessageLengthError:
            # Others may be shorter.
            tooLong += 1
            continue
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                tooLong += 1
                continue
            # Whatever it is (no route, a firewall, no buffer), the next would
            # fare no better, and a datagram may get lost at any time.
            return sent, size, tooLong, error.errno or -1
        except Exception:
            return sent, size, tooLong, -1
        sent += 1
        size += len(datagram)
    return sent, size, tooLong, 0

"""
UDP ports of one address family, whatever the reactor has for them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorFDSet,
    IReactorTime,
    IReactorUDP,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol

from tsrt.dataplane.runs import Received, Sealed, messagesOf
from tsrt.underlay.batchport import Address, BatchPort, SendOutcome, bindPort

MAX_DATAGRAM = 65535
"""Bytes of the largest datagram that is read whole."""

Writer = Callable[[bytes, Address], object]
"""Sends a datagram to an address; raises C{OSError} if it cannot."""

Sender = Callable[[Sequence[Sealed], Address], SendOutcome]
"""Sends datagrams and runs of them to an address."""


class FamilyProtocol(DatagramProtocol):
    """
    Hands on what comes by one port of a reactor, datagram by datagram.

    @ivar port: that port, once it is open.
    """

    noisy = False

    def __init__(
        self,
        received: Callable[[Address, bytes], None],
        refused: Callable[[], None],
        stopped: Callable[[object], None],
    ) -> None:
        """See L{openPort}."""
        self._received = received
        self._refused = refused
        self._stopped = stopped
        self.port: object = None

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """See L{DatagramProtocol}."""
        self._received(addr, datagram)

    def connectionRefused(self) -> None:
        """See L{DatagramProtocol}."""
        self._refused()

    def stopProtocol(self) -> None:
        """See L{DatagramProtocol}."""
        self._stopped(self.port)


def openPort(
    reactor: IReactorUDP,
    arrived: Callable[[Address, list[Received]], None],
    received: Callable[[Address, bytes], None],
    refused: Callable[[], None],
    stopped: Callable[[object], None],
    family: int,
    port: int,
    address: str = "",
) -> tuple[IListeningPort, Sender]:
    """
    Open a UDP port: one for whole runs of datagrams where the reactor watches
    sockets, an ordinary one of the reactor's elsewhere.

    @param arrived: called with an address, and all that a read event brought
        from it, in order.
    @param received: called instead with each datagram, where that is not known.
    @param refused: called when the system tells of an ICMP error.
    @param stopped: called with the port when it is closed, by whomever.
    @param family: 4 or 6.
    @param port: the number, or 0 for a free one.
    @param address: one of the machine's of that family; by default all.
    @return: the port, and what sends from it.
    @raise CannotListenError: when the port, or the family, is not to be had.
    """
    if IReactorFDSet.providedBy(reactor):
        sock = bindPort(family, port, address)
        batch = BatchPort(
            IReactorFDSet(reactor),
            sock,
            arrived,
            refused,
            stopped,
            seconds=IReactorTime(reactor).seconds,
        )
        batch.startListening()
        return batch, batch.send
    protocol = FamilyProtocol(received, refused, stopped)
    where = address or ("" if family == 4 else "::")
    listening: IListeningPort = reactor.listenUDP(port, protocol, where, MAX_DATAGRAM)
    protocol.port = listening
    write = IUDPTransport(listening).write
    return listening, partial(sendVia, write)


def closePort(port: IListeningPort) -> Deferred[None]:
    """Close a port; fires when it is closed."""
    stopping = port.stopListening()
    return succeed(None) if stopping is None else stopping


def sendVia(write: Writer, items: Sequence[Sealed], address: Address) -> SendOutcome:
    """
    Send datagrams to one address, one by one; see L{BatchPort.send}.

    @param write: sends one; raises C{OSError} if it cannot.
    """
    outcome = SendOutcome()
    for datagram in messagesOf(items):
        try:
            write(datagram, address)
        except MessageLengthError:
            # Others may be shorter.
            outcome.tooLong += 1
            continue
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                outcome.tooLong += 1
                continue
            # Whatever it is (no route, a firewall, no buffer), the next would
            # fare no better, and a datagram may get lost at any time.
            outcome.error = error.errno or -1
            break
        except Exception:
            outcome.error = -1
            break
        outcome.sent += 1
        outcome.size += len(datagram)
    return outcome

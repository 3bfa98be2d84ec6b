"""
The UDP socket of a node: one port for everything, one for each family.

WireGuard, disco and STUN share it, because what matters about it, the mapping
that a NAT makes for it, is the same for all only if the port is the same.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IReactorTime,
    IReactorUDP,
)
from twisted.logger import Logger

from tsrt.addresses import AddrPort, formatAddress, fromMapped, parseAddress
from tsrt.dataplane.runs import (
    DatagramRun,
    Received,
    Sealed,
    countOf,
    datagramsOf,
)
from tsrt.errors import TSRTError, WireError
from tsrt.underlay.batchport import Address, BatchPort, Offloads
from tsrt.underlay.counters import SocketCounters
from tsrt.underlay.ports import (
    Sender,
    closePort,
    openPort,
)
from tsrt.wire.classify import Kind, splitByKind
from tsrt.wire.wireguard import TRANSPORT_PREFIX

_log = Logger(namespace="tsrt.underlay")

DEFAULT_PORT = 41641
"""The port that is asked for when nothing else is said."""

BATCH_LIMIT = 8192
"""Datagrams that are kept until the end of a turn: a full window, and then some."""

REOPEN_DELAY = 1.0
"""Seconds to wait before a port that was lost is opened again; twice as long
after each failure."""

LONGEST_REOPEN_DELAY = 60.0
"""Seconds between two attempts to open a port anew, at most."""

_CACHE_LIMIT = 4096

STUNHandler = Callable[[bytes, AddrPort], object]
"""Takes a STUN datagram and where it is from."""

DatagramHandler = Callable[[AddrPort, Kind, Sequence[Received]], object]
"""Takes datagrams of one kind and where they are from, all of one turn."""


UnreachableHandler = Callable[[AddrPort], object]
"""Told an address to which the system knows no way at present."""

UNREACHABLE = frozenset(
    (
        errno.EACCES,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EPERM,
    )
)
"""Errors of sending that say something of the way, not of the moment."""

BUSY = frozenset((errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM))
"""Errors of sending that say that there is no room at the moment."""

_NO_FAMILY = frozenset((errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL))


class UnderlayBindError(TSRTError, OSError):
    """The UDP port that was asked for is not to be had."""

    advice = "Choose another port, 0 for any, or stop what uses it."


class UnderlaySocket(Service):
    """
    Sends and receives datagrams on the real network.

    A family that cannot be had is done without: with neither, the node is left
    to its relays.

    @ivar counters: what happened so far.
    @ivar errors: why a family has no socket, by 4 and 6.
    @ivar onUnreachable: see L{UnreachableHandler}.
    """

    name = "underlay"

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        port: int | None = None,
        strict: bool = False,
        ipv6: bool = True,
        address: str = "",
        onSTUN: STUNHandler | None = None,
        onDatagrams: DatagramHandler | None = None,
    ) -> None:
        """
        @param reactor: also provides C{IReactorUDP}.
        @param port: the port to have, 0 for any; C{None} for the usual one.
        @param strict: whether not getting C{port} is an error, rather than a
            line in the log and another port.
        @param ipv6: whether to have an IPv6 socket as well.
        @param address: the one address of the machine to use, and no other
            family than its own; by default all of them.
        @param onSTUN: see L{STUNHandler}; may be set later.
        @param onDatagrams: see L{DatagramHandler}; may be set later.
        """
        self.counters = SocketCounters()
        self.errors: dict[int, str] = {}
        self.onSTUN = onSTUN
        self.onDatagrams = onDatagrams
        self.onUnreachable: UnreachableHandler | None = None
        self._reactor = reactor
        self._asked = DEFAULT_PORT if port is None else port
        self._former = 0
        self._strict = strict and bool(self._asked)
        self._address = address
        if address:
            self._families: tuple[int, ...] = (6,) if ":" in address else (4,)
        else:
            self._families = (4, 6) if ipv6 else (4,)
        self._lost: set[int] = set()
        self._reopenDelay = REOPEN_DELAY
        self._ports: dict[int, IListeningPort] = {}
        self._senders: dict[int, Sender] = {}
        self._closing: set[Deferred[None]] = set()
        self._pending: dict[Address, list[Received]] = {}
        self._pendingCount = 0
        self._flush: IDelayedCall | None = None
        self._reopening: IDelayedCall | None = None
        self._packed: dict[Address, AddrPort] = {}
        self._texts: dict[AddrPort, Address] = {}

    # -- the service -------------------------------------------------------------

    def startService(self) -> None:
        """
        Open the ports.

        @raise UnderlayBindError: when the very port was demanded and is taken.
        """
        self._open()
        Service.startService(self)

    def stopService(self) -> Deferred[None]:
        """Close the ports; fires when they are closed."""
        Service.stopService(self)
        if self._flush is not None and self._flush.active():
            self._flush.cancel()
        self._flush = None
        self._cancelReopening()
        self._pending.clear()
        self._pendingCount = 0
        self._close()
        return DeferredList(list(self._closing)).addCallback(lambda _: None)

    def rebind(self) -> Deferred[None]:
        """
        After a change of network: open the ports anew, with the same numbers
        where they can be had.

        @return: fires when they are open, or cannot be had.
        """
        if not self.running:
            return succeed(None)
        self._lost |= set(self._ports)
        self._cancelReopening()
        self._close()
        waiting = DeferredList(list(self._closing))

        def reopen(_: object) -> None:
            if self.running and not self._ports:
                self._reopen()

        return waiting.addCallback(reopen).addErrback(
            lambda f: _log.failure("the sockets did not reopen", f)
        )

    def _open(self) -> None:
        """
        Open what is not open, both families at one number where possible: that
        of the former port, then the one that was asked for, then any.
        """
        for family in self._families:
            if family not in self._ports:
                inUse = (self.localPort(other) for other in self._ports)
                wanted = (*inUse, self._former, self._asked)
                self._openFamily(family, [port for port in wanted if port] + [0])
        self._former = self.localPort(4) or self.localPort(6) or self._former

    def _openFamily(self, family: int, wanted: list[int]) -> None:
        for port in dict.fromkeys(wanted):
            try:
                listening, sender = openPort(
                    IReactorUDP(self._reactor),
                    self._arrived,
                    self._received,
                    self._refused,
                    partial(self._stopped, family),
                    family,
                    port,
                    self._address,
                )
            except CannotListenError as error:
                self._cannotListen(family, port, error)
                continue
            self._ports[family] = listening
            self._senders[4 if family == 4 else 16] = sender
            self._lost.discard(family)
            self.errors.pop(family, None)
            return

    def _cannotListen(self, family: int, port: int, error: CannotListenError) -> None:
        reason = str(error.socketError)
        isNews = self.errors.get(family) != reason
        self.errors[family] = reason
        number = getattr(error.socketError, "errno", None)
        if (
            self._strict
            and not self.running
            and port == self._asked
            # A machine without IPv4 has to do with IPv6, and the other way
            # round; the port is demanded of the first family that there is.
            and not self._ports
            and number not in _NO_FAMILY
        ):
            self._close()
            raise UnderlayBindError(f"UDP port {port} cannot be used: {reason}")
        if not isNews:
            return
        if family == 6:
            # Many machines have no IPv6; nothing is wrong with that.
            _log.debug("no IPv6 port {port}: {reason}", port=port, reason=reason)
        elif port:
            _log.warn(
                "UDP port {port} cannot be used ({reason}); taking another",
                port=port,
                reason=reason,
            )
        else:
            _log.error(
                "no UDP socket: {reason}; only relays will be used", reason=reason
            )

    def _close(self) -> None:
        ports, self._ports = self._ports, {}
        self._senders.clear()
        for port in ports.values():
            closing = closePort(port)
            self._closing.add(closing)
            closing.addErrback(lambda f: _log.failure("a socket did not close", f))
            closing.addCallback(partial(self._closed, closing))

    def _closed(self, closing: Deferred[None], result: None) -> None:
        self._closing.discard(closing)

    def _stopped(self, family: int, port: object) -> None:
        """A port was closed; if not by us, it has to be opened again."""
        if self._ports.get(family) is not port:
            return
        del self._ports[family]
        del self._senders[4 if family == 4 else 16]
        if self.running:
            _log.warn("the IPv{family} socket was lost", family=family)
            self._lost.add(family)
            if self._reopening is None:
                self._reopenDelay = REOPEN_DELAY
                self._reopening = self._reactor.callLater(REOPEN_DELAY, self._reopen)

    def _reopen(self) -> None:
        """Open what was lost; again later if it cannot be had now."""
        self._cancelReopening()
        self.counters.reopened += 1
        self._open()
        if not self._lost:
            self._reopenDelay = REOPEN_DELAY
            return
        self._reopening = self._reactor.callLater(self._reopenDelay, self._reopen)
        self._reopenDelay = min(2 * self._reopenDelay, LONGEST_REOPEN_DELAY)

    def _cancelReopening(self) -> None:
        if self._reopening is not None and self._reopening.active():
            self._reopening.cancel()
        self._reopening = None

    # -- what there is -----------------------------------------------------------

    def localPort(self, family: int) -> int:
        """The port number of a family (4 or 6); 0 when it has no socket."""
        port = self._ports.get(family)
        if port is None:
            return 0
        host = port.getHost()
        return host.port if isinstance(host, IPv4Address | IPv6Address) else 0

    def has(self, family: int) -> bool:
        """Whether a family (4 or 6) has a socket."""
        return family in self._ports

    @property
    def offloads(self) -> dict[int, Offloads]:
        """What the system does for the socket of each family (4 or 6) that has one."""
        return {
            family: port.offloads if isinstance(port, BatchPort) else Offloads()
            for family, port in sorted(self._ports.items())
        }

    # -- sending -----------------------------------------------------------------

    def send(self, items: Sequence[Sealed], destination: AddrPort) -> bool:
        """
        Send datagrams to one address; those that cannot go are counted.

        @return: whether the system took all of them.
        """
        counters = self.counters
        send = self._senders.get(len(destination.address))
        count = countOf(items)
        if send is None:
            counters.droppedNoSocket += count
            return False
        address = self._texts.get(destination)
        if address is None:
            if len(self._texts) >= _CACHE_LIMIT:
                self._texts.clear()
            address = (formatAddress(destination.address), destination.port)
            self._texts[destination] = address
        outcome = send(items, address)
        counters.sentPackets += outcome.sent
        counters.sentBytes += outcome.size
        if outcome.sent == count:
            return True
        counters.droppedTooLong += outcome.tooLong
        dropped = count - outcome.sent - outcome.tooLong
        error = outcome.error
        if error in UNREACHABLE:
            counters.droppedUnreachable += dropped
            if self.onUnreachable is not None:
                self.onUnreachable(destination)
        elif error in BUSY:
            counters.droppedBusy += dropped
        else:
            counters.droppedSendError += dropped
        return False

    # -- receiving ---------------------------------------------------------------

    def _refused(self) -> None:
        self.counters.refused += 1

    def _arrived(self, address: Address, items: Sequence[Received]) -> None:
        """A read event brought all this from one address."""
        self._handle(address, items)
        # Once they are answered: who waits for the answer does not wait for this.
        counters = self.counters
        counters.receivedPackets += countOf(items)
        counters.receivedBytes += sum(map(len, items))

    def _received(self, address: Address, datagram: bytes) -> None:
        """A read event brought this, and maybe more."""
        counters = self.counters
        counters.receivedPackets += 1
        counters.receivedBytes += len(datagram)
        if self._pendingCount >= BATCH_LIMIT:
            counters.droppedFull += 1
            return
        self._pendingCount += 1
        waiting = self._pending.get(address)
        if waiting is not None:
            waiting.append(datagram)
            return
        self._pending[address] = [datagram]
        if self._flush is None:
            # They are handed on together when it is over.
            self._flush = self._reactor.callLater(0, self._handOn)

    def _handOn(self) -> None:
        self._flush = None
        pending, self._pending = self._pending, {}
        self._pendingCount = 0
        for address, items in pending.items():
            self._handle(address, items)

    def _handle(self, address: Address, items: Sequence[Received]) -> None:
        source = self._source(address)
        if source is None:
            self.counters.unhandled += countOf(items)
            return
        try:
            self._dispatch(source, items)
        except Exception:
            _log.failure("datagrams could not be handled")

    def _source(self, address: Address) -> AddrPort | None:
        source = self._packed.get(address)
        if source is None:
            try:
                packed = parseAddress(address[0].partition("%")[0])
            except WireError:
                return None
            if len(self._packed) >= _CACHE_LIMIT:
                self._packed.clear()
            source = AddrPort(fromMapped(packed), address[1])
            self._packed[address] = source
        return source

    def _dispatch(self, source: AddrPort, items: Sequence[Received]) -> None:
        for kind, some in _splitByKind(items).items():
            if kind is Kind.STUN and self.onSTUN is not None:
                for datagram in datagramsOf(some):
                    self.onSTUN(datagram, source)
            elif kind is not Kind.STUN and self.onDatagrams is not None:
                self.onDatagrams(source, kind, some)
            else:
                self.counters.unhandled += countOf(some)


def _splitByKind(items: Sequence[Received]) -> dict[Kind, Sequence[Received]]:
    """A batch, sorted by what to do with it; runs stay whole where they can."""
    for item in items:
        head = item.prefix if isinstance(item, DatagramRun) else item
        if not head.startswith(TRANSPORT_PREFIX):
            break
    else:
        return {Kind.WIREGUARD: items} if items else {}
    return {**splitByKind(datagramsOf(items))}

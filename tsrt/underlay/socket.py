"""
The UDP socket of a node: one port for everything, one for each family.

WireGuard, disco and STUN share it, because what matters about it, the mapping
that a NAT makes for it, is the same for all only if the port is the same.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IReactorTime,
    IReactorUDP,
    IUDPTransport,
)
from twisted.logger import Logger

from tsrt.addresses import AddrPort, formatAddress, fromMapped, parseAddress
from tsrt.errors import TSRTError, WireError
from tsrt.underlay.counters import SocketCounters
from tsrt.underlay.ports import FamilyProtocol, closePort, openPort, sendVia
from tsrt.wire.classify import Kind, splitByKind

_log = Logger(namespace="tsrt.underlay")

DEFAULT_PORT = 41641
"""The port that is asked for when nothing else is said."""

BATCH_LIMIT = 1024
"""Datagrams that are kept until the end of a turn."""

REOPEN_DELAY = 1.0
"""Seconds to wait before a port that was lost is opened again."""

_CACHE_LIMIT = 4096

STUNHandler = Callable[[bytes, AddrPort], object]
"""Takes a STUN datagram and where it is from."""

DatagramHandler = Callable[[AddrPort, Kind, list[bytes]], object]
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
        onSTUN: STUNHandler | None = None,
        onDatagrams: DatagramHandler | None = None,
    ) -> None:
        """
        @param reactor: also provides C{IReactorUDP}.
        @param port: the port to have, 0 for any; C{None} for the usual one.
        @param strict: whether not getting C{port} is an error, rather than a
            line in the log and another port.
        @param ipv6: whether to have an IPv6 socket as well.
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
        self._strict = strict and bool(self._asked)
        self._families = (4, 6) if ipv6 else (4,)
        self._ports: dict[int, IListeningPort] = {}
        self._protocols: dict[int, FamilyProtocol] = {}
        self._closing: set[Deferred[None]] = set()
        self._pending: dict[tuple[str, int], list[bytes]] = {}
        self._pendingCount = 0
        self._flush: IDelayedCall | None = None
        self._reopening: IDelayedCall | None = None
        self._packed: dict[tuple[str, int], AddrPort] = {}
        self._texts: dict[AddrPort, tuple[str, int]] = {}

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
        for call in (self._flush, self._reopening):
            if call is not None and call.active():
                call.cancel()
        self._flush = self._reopening = None
        self._pending.clear()
        self._pendingCount = 0
        self._close()
        return DeferredList(list(self._closing)).addCallback(lambda _: None)

    def rebind(self) -> None:
        """
        After a change of network: open the ports anew, with the same numbers
        where they can be had.
        """
        if not self.running:
            return
        self._asked = self.localPort(4) or self.localPort(6) or self._asked
        self._close()
        waiting = DeferredList(list(self._closing))

        def reopen(_: object) -> None:
            if self.running and not self._ports:
                self.counters.reopened += 1
                self._open()

        waiting.addCallback(reopen)
        waiting.addErrback(lambda f: _log.failure("the sockets did not reopen", f))

    def _open(self) -> None:
        self.errors.clear()
        port = self._asked
        for family in self._families:
            if family in self._ports:
                continue
            opened = self._openFamily(family, port)
            if opened and family == 4:
                # So that both families are found at one number.
                port = self.localPort(4)

    def _openFamily(self, family: int, wanted: int) -> bool:
        strict = self._strict and not self.running and family == 4
        for port in dict.fromkeys((wanted, 0)):
            protocol = FamilyProtocol(
                self._received, self._refused, partial(self._stopped, family)
            )
            try:
                listening = openPort(IReactorUDP(self._reactor), protocol, family, port)
            except CannotListenError as error:
                self._cannotListen(family, port, error, strict)
                continue
            self._ports[family] = listening
            self._protocols[family] = protocol
            self.errors.pop(family, None)
            return True
        return False

    def _cannotListen(
        self, family: int, port: int, error: CannotListenError, strict: bool
    ) -> None:
        reason = str(error.socketError)
        self.errors[family] = reason
        if strict:
            self._close()
            raise UnderlayBindError(f"UDP port {port} cannot be used: {reason}")
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
        self._protocols.clear()
        for port in ports.values():
            closing = closePort(port)
            self._closing.add(closing)
            closing.addErrback(lambda f: _log.failure("a socket did not close", f))
            closing.addCallback(partial(self._closed, closing))

    def _closed(self, closing: Deferred[None], result: None) -> None:
        self._closing.discard(closing)

    def _stopped(self, family: int, protocol: FamilyProtocol) -> None:
        """A port was closed; if not by us, it has to be opened again."""
        if self._protocols.get(family) is not protocol:
            return
        del self._protocols[family]
        del self._ports[family]
        if self.running and self._reopening is None:
            _log.warn("the IPv{family} socket was lost", family=family)
            self._reopening = self._reactor.callLater(REOPEN_DELAY, self._reopen)

    def _reopen(self) -> None:
        self._reopening = None
        self.counters.reopened += 1
        self._open()

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

    # -- sending -----------------------------------------------------------------

    def send(self, datagrams: list[bytes], destination: AddrPort) -> bool:
        """
        Send datagrams to one address; those that cannot go are counted.

        @return: whether the system took all of them.
        """
        counters = self.counters
        port = self._ports.get(4 if len(destination.address) == 4 else 6)
        if port is None:
            counters.droppedNoSocket += len(datagrams)
            return False
        address = self._texts.get(destination)
        if address is None:
            if len(self._texts) >= _CACHE_LIMIT:
                self._texts.clear()
            address = (formatAddress(destination.address), destination.port)
            self._texts[destination] = address
        sent, size, error = sendVia(IUDPTransport(port), datagrams, address)
        counters.sentPackets += sent
        counters.sentBytes += size
        counters.droppedSendError += len(datagrams) - sent
        if error in UNREACHABLE and self.onUnreachable is not None:
            self.onUnreachable(destination)
        return sent == len(datagrams)

    # -- receiving ---------------------------------------------------------------

    def _refused(self) -> None:
        self.counters.refused += 1

    def _received(self, datagram: bytes, address: tuple[str, int]) -> None:
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
            # A read event brings many datagrams, one call each: they are
            # handed on together when it is over.
            self._flush = self._reactor.callLater(0, self._handOn)

    def _handOn(self) -> None:
        self._flush = None
        pending, self._pending = self._pending, {}
        self._pendingCount = 0
        for address, datagrams in pending.items():
            source = self._source(address)
            if source is None:
                self.counters.unhandled += len(datagrams)
                continue
            try:
                self._dispatch(source, datagrams)
            except Exception:
                _log.failure("datagrams could not be handled")

    def _source(self, address: tuple[str, int]) -> AddrPort | None:
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

    def _dispatch(self, source: AddrPort, datagrams: list[bytes]) -> None:
        for kind, some in splitByKind(datagrams).items():
            if kind is Kind.STUN and self.onSTUN is not None:
                for datagram in some:
                    self.onSTUN(datagram, source)
            elif kind is not Kind.STUN and self.onDatagrams is not None:
                self.onDatagrams(source, kind, some)
            else:
                self.counters.unhandled += len(some)

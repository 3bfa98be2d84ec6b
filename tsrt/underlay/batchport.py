"""
One UDP port that reads and writes whole runs of datagrams.

Linux joins equal datagrams of one sender that arrive together (UDP GRO), and cuts
one large write into equal datagrams (UDP GSO).  Each is used where it is there and
done without where it is not, at run time: an old kernel, another system, a network
device that cannot, a path whose packets are smaller.

Reference: C{udp(7)}.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from functools import cache

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.runtime import seconds as systemSeconds
from zope.interface import implementer

from tsrt.dataplane.runs import Buffer, DatagramRun, Received, Sealed
from tsrt.underlay.sockopts import enlargeBuffers, ignoreICMPErrors

_log = Logger(namespace="tsrt.underlay")

Address = tuple[str, int]

MAX_READ = 65535
"""Bytes of the largest read."""

READ_BYTES = 512 * 1024
"""Bytes after which a read event is over, whatever waits."""

READ_CALLS = 256
"""Reads after which it is, if they are small."""

MAX_SEGMENTS = 64
"""Datagrams that one write may be cut into."""

MAX_WRITE = 65507
"""Bytes that one write may have."""

SINGLES_LIFETIME = 600.0
"""Seconds for which a path is believed to be too narrow for writes that are cut."""

_MOST_SINGLES = 1024
_KEPT_MEMORY = 8 << 20

_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104
_int = struct.Struct("=i")
_short = struct.Struct("=H")


@frozen
class Offloads:
    """
    What the system does for a socket.

    @ivar joins: whether it joins what arrives.
    @ivar cuts: whether it cuts what is written.
    @ivar singles: the number of addresses to which it does not, though it can.
    """

    joins: bool = False
    cuts: bool = False
    singles: int = 0


class SendOutcome:
    """What became of some datagrams."""

    __slots__ = ("error", "sent", "size", "tooLong")

    def __init__(self) -> None:
        self.sent = 0
        """How many the system took."""
        self.size = 0
        """Their bytes."""
        self.tooLong = 0
        """How many were too long for it."""
        self.error = 0
        """The error number with which it took no more; -1 if it had none."""


class _Chunk:
    """Datagrams of one size and source that lie behind one another."""

    __slots__ = ("address", "each", "length", "start")

    def __init__(self, address: Address, start: int, length: int, each: int) -> None:
        self.address = address
        self.start = start
        self.length = length
        self.each = each

    def take(self, count: int, each: int, address: Address) -> bool:
        """Whether what was read next belongs to it as well."""
        if (
            address != self.address
            or not count
            or self.length % (self.each or 1)
            or (each != self.each and (each != count or count > self.each))
        ):
            return False
        self.length += count
        return True


@implementer(IReadDescriptor, IListeningPort)
class BatchPort:
    """
    A bound UDP socket.

    @ivar joins: whether the system joins what arrives.
    @ivar cuts: whether the system cuts what is written.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        sock: socket.socket,
        received: Callable[[Address, list[Received]], None],
        refused: Callable[[], None],
        stopped: Callable[[BatchPort], None],
        platform: str = sys.platform,
        seconds: Callable[[], float] = systemSeconds,
    ) -> None:
        """
        @param sock: bound and not blocking; it belongs to the port now.
        @param received: called with an address, and what came from it, in order.
        @param refused: called when the system tells of an ICMP error.
        @param stopped: called when the port is closed, by whomever.
        @param seconds: tells the time.
        """
        self._reactor = reactor
        self._socket = sock
        self._received = received
        self._refused = refused
        self._stopped = stopped
        self._isOpen = False
        # Whether the last read event brought one datagram.
        self._isQuiet = False
        self._seconds = seconds
        # Addresses to which writes cannot be cut, as their path has small packets,
        # and when that was seen; the latest come last.
        self._singles: dict[Address, float] = {}
        self._controls: dict[int, list[tuple[int, int, bytes]]] = {}
        self.joins = platform == "linux" and self._option(_UDP_GRO, 1)
        # Setting zero changes nothing; an old kernel does not know the option.
        self.cuts = platform == "linux" and self._option(_UDP_SEGMENT, 0)
        _keepFreedMemory()

    def _option(self, option: int, value: int) -> bool:
        try:
            self._socket.setsockopt(_SOL_UDP, option, value)
        except OSError:
            return False
        return True

    @property
    def offloads(self) -> Offloads:
        """What the system does for it at present."""
        if not self.cuts:
            return Offloads(self.joins)
        since = self._seconds() - SINGLES_LIFETIME
        recent = sum(seen > since for seen in self._singles.values())
        return Offloads(self.joins, True, recent)

    # -- life --------------------------------------------------------------------

    def startListening(self) -> None:
        """Begin to read."""
        self._isOpen = True
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Close; what waited to be read is lost."""
        self._close()
        return succeed(None)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has no use for the socket any more."""
        self._close()

    def _close(self) -> None:
        if self._isOpen:
            self._isOpen = False
            self._reactor.removeReader(self)
            self._socket.close()
            self._stopped(self)

    def fileno(self) -> int:
        """See L{IReadDescriptor}; -1 once it is closed."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """How the log calls it."""
        return "tsrt.underlay"

    def getHost(self) -> IPv4Address | IPv6Address:
        """The address that it is bound to."""
        host, port = self._socket.getsockname()[:2]
        if self._socket.family == socket.AF_INET6:
            return IPv6Address("UDP", host, port)
        return IPv4Address("UDP", host, port)

    # -- reading -----------------------------------------------------------------

    def doRead(self) -> None:
        """Read what waits, and hand it on by where it is from."""
        view = _scratch()
        chunks: list[_Chunk] = []
        chunk: _Chunk | None = None
        end = 0
        for number in range(READ_CALLS):
            try:
                count, each, address = self._read(view[end : end + MAX_READ])
            except BlockingIOError:
                break
            except InterruptedError:
                continue
            except OSError as error:
                # An ICMP error about what was sent, or a datagram that is too
                # long: the next read may be good.
                if error.errno == errno.EBADF:
                    return
                self._refused()
                continue
            if not number:
                isLone = self._isQuiet and count == each
                self._isQuiet = count == each
                if isLone:
                    # Where datagrams come one at a time, who sent it may wait for
                    # the answer: that comes before a look at whether there is more.
                    self._received(address[:2], [bytes(view[:count])])
                    if not self._isOpen:
                        return
                    continue
            else:
                self._isQuiet = False
            if chunk is None or not chunk.take(count, each, address):
                chunk = _Chunk(address, end, count, each)
                chunks.append(chunk)
            end += count
            if end >= READ_BYTES:
                break
        pending: dict[Address, list[Received]] = {}
        for chunk in chunks:
            data = view[chunk.start : chunk.start + chunk.length]
            # A run is opened before anything else is read.
            item = (
                bytes(data)
                if chunk.length <= chunk.each
                else DatagramRun(data, chunk.each)
            )
            waiting = pending.get(chunk.address)
            if waiting is None:
                pending[chunk.address] = [item]
            else:
                waiting.append(item)
        for address, items in pending.items():
            if self._isOpen:
                self._received(address[:2], items)

    def _read(self, room: memoryview) -> tuple[int, int, Address]:
        """
        Read once.

        @return: how many bytes, how many each datagram in them has but the last,
            and where they are from.
        """
        if not self.joins:
            count, address = self._socket.recvfrom_into(room)
            return count, count, address
        count, controls, _, address = self._socket.recvmsg_into((room,), 64)
        for level, kind, value in controls:
            if level == _SOL_UDP and kind == _UDP_GRO:
                (each,) = _int.unpack(value)
                if 0 < each < count:
                    return count, each, address
        return count, count, address

    # -- writing -----------------------------------------------------------------

    def send(self, items: Sequence[Sealed], address: Address) -> SendOutcome:
        """
        Send datagrams and runs of them to one address, in order.

        A datagram may get lost at any time: once one does not go, for whatever
        reason but its length, the rest are not tried.
        """
        outcome = SendOutcome()
        at = 0
        if len(items) == 1 and isinstance(items[0], bytes):
            self._writeOne(items[0], address, outcome)
            return outcome
        while at < len(items) and not outcome.error:
            item = items[at]
            if not isinstance(item, bytes):
                at += 1
                for buffers, count, size in item.slices(MAX_SEGMENTS, MAX_WRITE):
                    if not outcome.error:
                        self._write(buffers, item.size, count, size, address, outcome)
                continue
            # Datagrams of one size leave together; the last may be shorter.
            first, each, total = at, len(item), 0
            while at < len(items) and at - first < MAX_SEGMENTS:
                item = items[at]
                if (
                    not isinstance(item, bytes)
                    or len(item) > each
                    or total + len(item) > max(MAX_WRITE, each)
                ):
                    break
                total += len(item)
                at += 1
                if len(item) < each:
                    break
            some = [item for item in items[first:at] if isinstance(item, bytes)]
            self._write(some, each, len(some), total, address, outcome)
        return outcome

    def _write(
        self,
        buffers: Sequence[Buffer],
        each: int,
        count: int,
        size: int,
        address: Address,
        outcome: SendOutcome,
    ) -> None:
        """
        Make one write, if it can be one.

        @param each: bytes of every datagram but the last.
        @param count: how many datagrams the buffers are.
        @param size: bytes of all of them.
        """
        controls: list[tuple[int, int, bytes]] = []
        if count > 1:
            if not self.cuts or (self._singles and self._isNarrow(address)):
                self._writeEach(buffers, each, address, outcome)
                return
            found = self._controls.get(each)
            if found is None:
                found = [(_SOL_UDP, _UDP_SEGMENT, _short.pack(each))]
                self._controls[each] = found
            controls = found
        try:
            self._socket.sendmsg(buffers, controls, 0, address)
        except OSError as error:
            number = error.errno or -1
            if count > 1 and number in (errno.EINVAL, errno.EIO, errno.EMSGSIZE):
                self._cannotCut(number, address)
                self._writeEach(buffers, each, address, outcome)
            elif number == errno.EMSGSIZE:
                outcome.tooLong += count
            else:
                outcome.error = number
            return
        outcome.sent += count
        outcome.size += size

    def _isNarrow(self, address: Address) -> bool:
        """Whether writes to an address could not be cut, not long ago."""
        seen = self._singles.get(address)
        if seen is None:
            return False
        if self._seconds() - seen < SINGLES_LIFETIME:
            return True
        # The path may have become wider, or be another one by now.
        del self._singles[address]
        return False

    def _cannotCut(self, number: int, address: Address) -> None:
        """A write was refused that was to be cut into datagrams."""
        if number == errno.EIO:
            _log.info("the network device cannot cut writes; they go one by one")
            self.cuts = False
            return
        # The path takes only smaller packets than these; they are to be
        # fragmented, which the system does with single ones only.
        if len(self._singles) >= _MOST_SINGLES:
            del self._singles[next(iter(self._singles))]
        self._singles[address] = self._seconds()

    def _writeEach(
        self,
        buffers: Sequence[Buffer],
        each: int,
        address: Address,
        outcome: SendOutcome,
    ) -> None:
        """Make a write for each datagram."""
        whole = memoryview(b"".join(buffers))
        for at in range(0, len(whole), each):
            self._writeOne(whole[at : at + each], address, outcome)
            if outcome.error:
                return

    def _writeOne(
        self, datagram: Buffer, address: Address, outcome: SendOutcome
    ) -> None:
        """Make a write for one datagram."""
        try:
            self._socket.sendto(datagram, address)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                # Others may be shorter.
                outcome.tooLong += 1
            else:
                outcome.error = error.errno or -1
            return
        outcome.sent += 1
        outcome.size += len(datagram)


def bindPort(family: int, port: int, address: str) -> socket.socket:
    """
    A bound socket that does not block.

    @param family: 4 or 6.  An IPv6 socket takes no IPv4 datagrams, so that both
        families can have the same number.
    @param port: the number, or 0 for a free one.
    @param address: one of the machine's, or empty for all.
    @raise CannotListenError: if the port, or the family, is not to be had.
    """
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    try:
        sock = socket.socket(kind, socket.SOCK_DGRAM)
    except OSError as error:
        raise CannotListenError(address, port, error) from error
    try:
        sock.setblocking(False)
        if family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise CannotListenError(address, port, error) from error
    enlargeBuffers(sock)
    ignoreICMPErrors(sock)
    return sock


def _keepFreedMemory() -> None:
    """
    Have the C library keep some megabytes of what is freed.

    Each batch takes and frees some hundred kilobytes.  Left to itself, glibc gives
    them back to the system at the end of each turn and takes them again in the next,
    where every page costs a fault: up to a third of all time.  It learns to keep as
    much as twice the largest block that was ever mapped and freed (C{mallopt(3)},
    dynamic mmap threshold); other systems are not the worse for it.
    """
    bytes(_KEPT_MEMORY // 2)


@cache
def _scratch() -> memoryview:
    """
    What is read into; whatever is read is taken before the next read event, so
    that all ports share it.
    """
    return memoryview(bytearray(READ_BYTES + MAX_READ))

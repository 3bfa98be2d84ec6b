"""
Pings of this host, without a privilege.

Linux and macOS have sockets for that, which an administrator may have closed;
otherwise the system's own C{ping} program does it.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorProcess,
    IReactorTime,
    IReadDescriptor,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.addresses import formatAddress, parseAddress
from tsrt.errors import NotSupported, WireError
from tsrt.failures import TailnetTimeout
from tsrt.interfaces import IHostPinger
from tsrt.wire.icmp import V4_ECHO_REPLY, V4_ECHO_REQUEST, buildICMP, parseICMP

PATIENCE = 5.0
"""Seconds that a ping waits for its answer."""

_AT_ONCE = 64
_LARGEST = 65535
_IPV4 = 4
_ADVICE = "Install the ping program, or set net.ipv4.ping_group_range."


class _Waiting:
    """A ping by socket, under way."""

    def __init__(self, address: str, payload: bytes) -> None:
        self.address = address
        self.payload = payload
        self.done: Deferred[None] = Deferred()
        self.timer: IDelayedCall | None = None


@implementer(IReadDescriptor)
class PingSocket:
    """
    A datagram socket for ICMP echo; the kernel gives it an identifier.
    """

    def __init__(self, reactor: IReactorFDSet, received: Callable[..., object]) -> None:
        """
        @param received: called with the address of a sender and its message.
        @raise OSError: this host has no such sockets, or not for us.
        """
        self._reactor = reactor
        self._received = received
        self._socket = socket.socket(
            socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP
        )
        self._socket.setblocking(False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """See L{twisted.internet.interfaces.IFileDescriptor}."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See L{twisted.internet.interfaces.ILoggingContext}."""
        return "ping"

    def connectionLost(self, reason: object) -> None:
        """The reactor stops."""
        self._socket.close()

    def doRead(self) -> None:
        """Take answers."""
        with suppress(BlockingIOError, ConnectionError):
            for _ in range(_AT_ONCE):
                data, (address, *_rest) = self._socket.recvfrom(_LARGEST)
                self._received(address, data)

    def send(self, message: bytes, address: str) -> None:
        """
        Send an ICMP message.

        @raise OSError: it cannot be sent there.
        """
        self._socket.sendto(message, (address, 0))

    def close(self) -> None:
        """Give the socket back."""
        self._reactor.removeReader(self)
        self._socket.close()


@implementer(IHostPinger)
class HostPinger:
    """Pings by socket, or by program; which, shows at the first ping."""

    def __init__(self, reactor: IReactorTime) -> None:
        """
        @param reactor: the host's; file descriptors or processes, too.
        """
        self._reactor = reactor
        self._socket: PingSocket | None = None
        self._mayUseSocket = sys.platform != "win32"
        self._waiting: dict[int, _Waiting] = {}
        self._sequence = 0
        self._programs: set[_Program] = set()

    def ping(self, address: str, payload: bytes) -> Deferred[None]:
        """See L{IHostPinger}."""
        opened = self._open()
        if opened is not None:
            return self._bySocket(opened, address, payload)
        return self._byProgram(address, len(payload))

    def stop(self) -> None:
        """See L{IHostPinger}."""
        for sequence in list(self._waiting):
            self._end(sequence, CancelledError())
        for running in self._programs:
            running.kill()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- by socket ---------------------------------------------------------------------

    def _open(self) -> PingSocket | None:
        if self._socket is None and self._mayUseSocket:
            reactor = IReactorFDSet(self._reactor, None)
            try:
                if reactor is not None:
                    self._socket = PingSocket(reactor, self._received)
            except OSError:
                pass
            self._mayUseSocket = self._socket is not None
        return self._socket

    def _bySocket(
        self, opened: PingSocket, address: str, payload: bytes
    ) -> Deferred[None]:
        sequence = self._sequence = (self._sequence + 1) & 0xFFFF
        waiting = _Waiting(address, payload)
        self._end(sequence, TailnetTimeout("too many pings are under way"))
        self._waiting[sequence] = waiting
        waiting.timer = self._reactor.callLater(
            PATIENCE, self._end, sequence, TailnetTimeout(f"no answer from {address}")
        )
        packed = parseAddress(address)
        message = buildICMP(packed, packed, V4_ECHO_REQUEST, 0, sequence, payload)
        try:
            opened.send(message, address)
        except OSError as error:
            self._end(
                sequence, TailnetTimeout(f"no way to {address}: {error.strerror}")
            )
        waiting.done.addErrback(self._cancelled, sequence)
        return waiting.done

    def _cancelled(self, failure: object, sequence: int) -> object:
        # Somebody waits no more.
        self._end(sequence, CancelledError())
        return failure

    def _received(self, address: str, data: bytes) -> None:
        if data and data[0] >> 4 == _IPV4:
            # macOS gives the IP header, too.
            data = data[(data[0] & 0xF) << 2 :]
        try:
            message = parseICMP(data, 0, len(data))
        except WireError:
            return
        waiting = self._waiting.get(message.sequence)
        if (
            waiting is not None
            and message.type == V4_ECHO_REPLY
            and waiting.address == address
            and waiting.payload == message.payload
        ):
            self._end(message.sequence, None)

    def _end(self, sequence: int, error: BaseException | None) -> None:
        waiting = self._waiting.pop(sequence, None)
        if waiting is None:
            return
        if waiting.timer is not None and waiting.timer.active():
            waiting.timer.cancel()
        if waiting.done.called:
            return
        if error is None:
            waiting.done.callback(None)
        else:
            waiting.done.errback(error)

    # -- by program --------------------------------------------------------------------

    def _byProgram(self, address: str, size: int) -> Deferred[None]:
        program = shutil.which("ping")
        if program is None or not IReactorProcess.providedBy(self._reactor):
            return fail(NotSupported("this host lets nobody ping", advice=_ADVICE))
        if sys.platform == "win32":
            flags = ["-n", "1", "-w", str(int(PATIENCE * 1000)), "-l", str(size)]
        elif sys.platform == "darwin":
            flags = ["-n", "-c", "1", "-t", str(int(PATIENCE)), "-s", str(size)]
        else:
            flags = ["-n", "-c", "1", "-w", str(int(PATIENCE)), "-s", str(size)]
        # Never a name, nor anything that looks like an option.
        target = formatAddress(parseAddress(address))
        running = _Program(target)
        self._programs.add(running)
        running.done.addBoth(self._ended, running)
        self._reactor.spawnProcess(
            running, program, [program, *flags, target], os.environ
        )
        return running.done

    def _ended(self, result: object, running: _Program) -> object:
        self._programs.discard(running)
        return result


class _Program(ProcessProtocol):
    """The system's own C{ping}, which answers by its exit code."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.done: Deferred[None] = Deferred(lambda _: self.kill())

    def kill(self) -> None:
        """Nobody waits any more."""
        if self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")

    def processEnded(self, reason: Failure) -> None:
        """See L{ProcessProtocol}."""
        if self.done.called:
            return
        if reason.check(ProcessDone):
            self.done.callback(None)
        else:
            self.done.errback(TailnetTimeout(f"no answer from {self._address}"))

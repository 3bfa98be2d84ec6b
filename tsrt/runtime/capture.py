"""Capturing the packets of a node while it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol, cast

from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from tsrt.counters import Counters
from tsrt.errors import ConfigError
from tsrt.wire import pcap

_log = Logger(namespace="tsrt.capture")

Hook = Callable[[int, list[bytes]], object]
"""Takes a direction, as pcap tells paths, and IP packets."""


class Writable(Protocol):
    """Where a capture goes."""

    def write(self, data: bytes) -> object:
        """Take some bytes of the capture."""


class CaptureCounters(Counters):
    """
    What became of packets.

    @ivar written: those that are in the capture.
    @ivar droppedSlow: those that came while the consumer was not ready.
    """

    __slots__ = ("droppedSlow", "written")
    droppedSlow: int
    written: int


@implementer(IPushProducer)
class Capture:
    """
    One capture; it goes on over stops and starts of its node.

    @ivar counters: what became of packets.
    @ivar isActive: whether it goes on.
    @ivar error: why it ended by itself, if it did.
    """

    def __init__(
        self,
        target: Writable,
        wallclock: Callable[[], float],
        ended: Callable[[Capture], object],
        close: Callable[[], object] | None,
    ) -> None:
        """
        @param target: gets the bytes; an L{IConsumer} can pause.
        @param wallclock: the seconds since 1970.
        @param ended: told when it ends.
        @param close: closes what was opened for it.
        """
        self.counters = CaptureCounters()
        self.isActive = True
        self.error: Exception | None = None
        self._target = target
        self._wallclock = wallclock
        self._ended = ended
        self._close = close
        self._isPaused = False
        self._isConsumer = IConsumer.providedBy(target)
        if self._isConsumer:
            IConsumer(target).registerProducer(self, True)
        self._write(pcap.fileHeader())

    def note(self, path: int, packets: list[bytes]) -> None:
        """Packets came by."""
        if not self.isActive:
            return
        if self._isPaused:
            self.counters.droppedSlow += len(packets)
            return
        self.counters.written += len(packets)
        self._write(pcap.records(self._wallclock(), path, packets))

    def _write(self, data: bytes) -> None:
        try:
            self._target.write(data)
        except Exception as error:
            # A full disk must not stop the node.
            self.error = error
            _log.warn("a capture ended: {error}", error=error)
            self.stop()

    def stop(self) -> None:
        """End the capture; what was opened for it is closed."""
        if not self.isActive:
            return
        self.isActive = False
        if self._isConsumer:
            IConsumer(self._target).unregisterProducer()
        if self._close is not None:
            try:
                self._close()
            except OSError as error:
                self.error = self.error or error
                _log.warn("a capture may not be whole: {error}", error=error)
        self._ended(self)

    # -- the consumer speaks ---------------------------------------------------------

    def pauseProducing(self) -> None:
        """See L{IPushProducer}."""
        self._isPaused = True

    def resumeProducing(self) -> None:
        """See L{IPushProducer}."""
        self._isPaused = False

    def stopProducing(self) -> None:
        """See L{IPushProducer}."""
        self.stop()


class CaptureHub:
    """All captures of a node, and the data path that feeds them."""

    def __init__(self, wallclock: Callable[[], float]) -> None:
        """
        @param wallclock: the seconds since 1970.
        """
        self._wallclock = wallclock
        self._captures: list[Capture] = []
        self._setHook: Callable[[Hook | None], object] | None = None

    def attach(self, setHook: Callable[[Hook | None], object] | None) -> None:
        """
        Say what feeds the captures from now on.

        @param setHook: takes a hook, or C{None} while there is no capture.
        """
        self._setHook = setHook
        self._update()

    def begin(self, target: str | os.PathLike[str] | Writable) -> Capture:
        """
        Begin a capture.

        @param target: the path of a new file, or what takes bytes.
        @raise ConfigError: the file cannot be written.
        """
        close: Callable[[], object] | None = None
        if isinstance(target, str | os.PathLike):
            try:
                descriptor = os.open(
                    target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
                )
            except OSError as error:
                raise ConfigError(
                    f"the capture file {os.fspath(target)} cannot be written: "
                    f"{error.strerror or error}"
                ) from error
            file = os.fdopen(descriptor, "wb", buffering=0)
            writable, close = cast(Writable, file), file.close
        else:
            writable = target
        capture = Capture(writable, self._wallclock, self._end, close)
        if capture.isActive:
            self._captures.append(capture)
            self._update()
        return capture

    def _end(self, capture: Capture) -> None:
        if capture in self._captures:
            self._captures.remove(capture)
            self._update()

    def _update(self) -> None:
        if self._setHook is not None:
            self._setHook(self._note if self._captures else None)

    def _note(self, path: int, packets: list[bytes]) -> None:
        for capture in list(self._captures):
            capture.note(path, packets)

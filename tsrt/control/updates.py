"""
Telling the control server what has changed about us.

However often things change, one update is under way and at most one more is
due; what is sent is what is true when it is sent.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.control.backoff import Backoff
from tsrt.errors import ControlError

_log = Logger(namespace="tsrt.control")


class UpdateLoop:
    """Sends updates while it may, with waits of its own after failures."""

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        send: Callable[[], Deferred[None]],
        trouble: Callable[[ControlError], None],
        randbytes: Callable[[int], bytes],
    ) -> None:
        """
        @param reactor: the clock.
        @param send: sends what is true now.
        @param trouble: told of each error.
        @param randbytes: the source of randomness.
        """
        self._reactor = reactor
        self._send = send
        self._trouble = trouble
        self._backoff = Backoff(randbytes)
        self._pending = False
        self._started = False
        self._running: Deferred[None] | None = None

    def trigger(self) -> None:
        """Something has changed: an update is due."""
        self._pending = True
        self._wake()

    def start(self) -> None:
        """Send what is due, now and from now on."""
        self._started = True
        self._wake()

    def stop(self) -> None:
        """Send nothing more; what is due is kept for the next start."""
        self._started = False
        running, self._running = self._running, None
        if running is not None:
            self._pending = True
            running.cancel()

    def _wake(self) -> None:
        if not self._started or not self._pending or self._running is not None:
            return
        # A turn of its own coalesces what changes at the same moment.
        running = Deferred.fromCoroutine(self._run())
        self._running = running
        running.addErrback(self._broke)

    def _broke(self, failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            self._running = None
            _log.failure("the update loop broke", failure=failure)

    async def _run(self) -> None:
        await deferLater(self._reactor, 0, lambda: None)
        while self._pending:
            self._pending = False
            try:
                await self._send()
            except ControlError as error:
                self._pending = True
                self._trouble(error)
                await deferLater(self._reactor, self._backoff.next(), lambda: None)
            else:
                self._backoff.reset()
        self._running = None

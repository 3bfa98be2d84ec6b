"""
Telling the control server what has changed about us.

However often things change, one update is under way and at most one more is
due; what is sent is what is true when it is sent.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from tsrt.control.api import isUnknownNode
from tsrt.control.backoff import Backoff
from tsrt.control.looper import Looper, Run
from tsrt.errors import ControlError


class UpdateLoop:
    """Sends updates while it may, with waits of its own after failures."""

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        send: Callable[[], Deferred[None]],
        trouble: Callable[[ControlError], None],
        unknownNode: Callable[[ControlError], None],
        randbytes: Callable[[int], bytes],
    ) -> None:
        """
        @param reactor: the clock.
        @param send: sends what is true now.
        @param trouble: told of each error.
        @param unknownNode: told when the server does not know our node key;
            nothing is sent then until the next L{start}.
        @param randbytes: the source of randomness.
        """
        self._reactor = reactor
        self._send = send
        self._trouble = trouble
        self._unknownNode = unknownNode
        self._backoff = Backoff(randbytes)
        self._pending = False
        self._started = False
        self._looper = Looper(self._run)

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
        if self._looper.stop():
            self._pending = True

    def _wake(self) -> None:
        if self._started and self._pending:
            self._looper.start()

    async def _run(self, run: Run) -> None:
        # A turn of its own coalesces what changes at the same moment.
        await run.wait(deferLater(self._reactor, 0, lambda: None))
        while self._pending:
            self._pending = False
            try:
                await run.wait(self._send())
            except ControlError as error:
                self._pending = True
                self._trouble(error)
                wait = self._backoff.next()
                await run.wait(deferLater(self._reactor, wait, lambda: None))
                if isUnknownNode(error):
                    self._looper.stop()
                    self._unknownNode(error)
                    return
            else:
                self._backoff.reset()

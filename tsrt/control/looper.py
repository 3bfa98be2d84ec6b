"""
A coroutine that goes round and round until it is stopped.

It may be stopped from anywhere, even from something that it calls itself:
cancelling a coroutine that is not waiting would not work.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")

_log = Logger(namespace="tsrt.control")


class Run:
    """
    One run of the coroutine.

    @ivar stopped: whether it is to end.
    """

    def __init__(self) -> None:
        """It has not begun."""
        self.stopped = False
        self._waiting = False
        self._deferred: Deferred[None] | None = None

    async def wait(self, awaited: Deferred[T]) -> T:
        """
        Wait for a Deferred; all waiting of the coroutine goes through here.

        @raise CancelledError: when the run was stopped, before or meanwhile.
        """
        if self.stopped:
            awaited.addErrback(lambda _: None)
            awaited.cancel()
            raise CancelledError
        self._waiting = True
        try:
            return await awaited
        finally:
            self._waiting = False

    def begin(self, body: Coroutine[Deferred[Any], Any, None]) -> None:
        """Run C{body} up to where it first waits."""
        self._deferred = Deferred.fromCoroutine(body).addErrback(self._broke)

    def stop(self) -> None:
        """End the run, at once or when it next waits."""
        self.stopped = True
        if self._waiting and self._deferred is not None:
            self._deferred.cancel()

    def _broke(self, failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            _log.failure("a loop of the control client broke", failure=failure)


class Looper:
    """At most one run at a time."""

    def __init__(
        self, body: Callable[[Run], Coroutine[Deferred[Any], Any, None]]
    ) -> None:
        """
        @param body: the coroutine function; it waits by means of its L{Run}.
        """
        self._body = body
        self._run: Run | None = None

    @property
    def isRunning(self) -> bool:
        """Whether there is a run that was not stopped."""
        return self._run is not None

    def start(self) -> None:
        """Begin a run, unless there is one."""
        if self._run is None:
            run = self._run = Run()
            run.begin(self._guarded(run))

    async def _guarded(self, run: Run) -> None:
        try:
            await self._body(run)
        finally:
            if self._run is run:
                self._run = None

    def stop(self) -> bool:
        """
        End the run.

        @return: whether there was one.
        """
        run, self._run = self._run, None
        if run is not None:
            run.stop()
        return run is not None

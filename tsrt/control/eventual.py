"""
Telling the observer, in turns of their own.

Whoever hears of something may at once ask for something else, even to stop
everything; in a turn of its own that never happens in the middle of things.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_log = Logger(namespace="tsrt.control")


class EventualQueue:
    """Calls, one after the other, later."""

    def __init__(self, reactor: IReactorTime) -> None:
        """
        @param reactor: gives the turns.
        """
        self._reactor = reactor
        self._calls: deque[Callable[[], object]] = deque()
        self._turn: IDelayedCall | None = None

    def add(self, call: Callable[..., object], *arguments: object) -> None:
        """Call C{call} in a later turn; what it raises is logged."""
        self._calls.append(partial(call, *arguments))
        if self._turn is None:
            self._turn = self._reactor.callLater(0, self._work)

    def clear(self) -> None:
        """Forget all calls that are still to come."""
        self._calls.clear()
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._turn = None

    def _work(self) -> None:
        self._turn = None
        while self._calls:
            call = self._calls.popleft()
            try:
                call()
            except Exception:
                _log.failure("an observer of the control client failed")

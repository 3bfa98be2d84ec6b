"""Telling whoever wants to know of a value that changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.logger import Logger

_log = Logger(namespace="tsrt.runtime")

T = TypeVar("T")


class Watchers(Generic[T]):
    """
    Those who are told of each new value, and of the last one when they begin.

    An error of one is logged; it keeps neither others nor the node from going on.
    """

    def __init__(self) -> None:
        self._callbacks: list[Callable[[T], object]] = []
        self._last: list[T] = []

    def tell(self, value: T) -> None:
        """There is a new value."""
        self._last = [value]
        for callback in list(self._callbacks):
            if callback in self._callbacks:
                self._call(callback, value)

    def forget(self) -> None:
        """There is no value any more; who begins to watch waits for the next."""
        self._last = []

    def watch(self, callback: Callable[[T], object]) -> Callable[[], None]:
        """
        Call C{callback} with the last value, if there is one, and each new one.

        @return: a callable that ends this.
        """
        self._callbacks.append(callback)
        for value in self._last:
            self._call(callback, value)

        def stop() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return stop

    def _call(self, callback: Callable[[T], object], value: T) -> None:
        try:
            callback(value)
        except Exception:
            _log.failure("a watcher raised an error")

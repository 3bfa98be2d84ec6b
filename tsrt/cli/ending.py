"""Ending the process of a command, with a sentence and a status."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable
from typing import TextIO

from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.logger import Logger

from tsrt.errors import TSRTError

_log = Logger(namespace="tsrt.cli")


class Ending:
    """Tells the terminal how things stand, and ends the process at the worst."""

    def __init__(
        self,
        reactor: IReactorTime,
        terminal: TextIO | None,
        atExit: Callable[[Callable[[], None]], object] = atexit.register,
    ) -> None:
        """
        @param reactor: is stopped in the end.
        @param terminal: where sentences go; C{None} where there is none.
        @param atExit: takes what has to run last.
        """
        self._reactor = reactor
        self._terminal = terminal
        self._atExit = atExit
        self._isEnding = False

    def say(self, text: str) -> None:
        """Write a line to the terminal."""
        if self._terminal is not None:
            self._terminal.write(f"tsrt: {text}\n")
            self._terminal.flush()

    def giveUp(self, error: TSRTError, isLogged: bool = False) -> None:
        """
        End the process with a status of 1; only the first reason is told.

        @param isLogged: whether the log holds the reason already.  It is all
            that is left of the sentence where there is no terminal.
        """
        if self._isEnding:
            return
        self._isEnding = True
        self.say(error.describe())
        if not isLogged:
            _log.critical("giving up: {reason}", reason=error.describe())
        self._atExit(exitWithFailure)
        # What fails while things are being started ends the reactor as soon as
        # it runs.
        self._reactor.callLater(0, self._stop)

    def _stop(self) -> None:
        with contextlib.suppress(ReactorNotRunning):
            IReactorCore(self._reactor).stop()


def exitWithFailure() -> None:
    """
    Leave with a status of 1.

    C{twistd} offers services no way to say how the process shall end.  By now
    the reactor has stopped and the pid file is gone.
    """
    for stream in (sys.stdout, sys.stderr, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(1)

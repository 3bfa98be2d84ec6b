"""A terminal that is closed is a reason to leave in good order."""

from __future__ import annotations

import contextlib
import signal
import sys
from types import FrameType
from typing import cast

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads
from twisted.logger import Logger

_log = Logger(namespace="tsrt.cli")


class HangUpService(Service):
    """
    Stops the reactor on SIGHUP.

    By default that signal kills the process at once, and an ephemeral node
    would stay in the tailnet.  Who ignores the signal (C{nohup}) or handles it
    goes on to do so.
    """

    def __init__(self, reactor: IReactorCore) -> None:
        """
        @param reactor: the one that the process runs.
        """
        self._reactor = reactor
        self._isInstalled = False

    def startService(self) -> None:
        """Take the signal, where there is one and nobody else wants it."""
        super().startService()
        if sys.platform == "win32" or signal.getsignal(signal.SIGHUP) != signal.SIG_DFL:
            return
        try:
            signal.signal(signal.SIGHUP, self._hungUp)
        except ValueError:
            return  # only the main thread may
        self._isInstalled = True

    def stopService(self) -> None:
        """Give the signal back."""
        super().stopService()
        if self._isInstalled and sys.platform != "win32":
            self._isInstalled = False
            signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def _hungUp(self, number: int, frame: FrameType | None) -> None:
        # Python code may be anywhere at this moment, but for the reactor.
        cast(IReactorFromThreads, self._reactor).callFromThread(self._stop)

    def _stop(self) -> None:
        _log.info("Received SIGHUP, shutting down.")
        with contextlib.suppress(ReactorNotRunning):
            self._reactor.stop()

"""Pinging a peer from time to time and logging path and round-trip time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tsrt.runtime.ping import PingResult

_log = Logger(namespace="tsrt.ping")

RETRY = 1.0
"""Seconds until the next ping after one that failed."""


class PingService(Service):
    """Pings one host at an interval, for as long as it runs."""

    def __init__(
        self,
        reactor: IReactorTime,
        ping: Callable[[str], Deferred[PingResult]],
        host: str,
        interval: float = 10.0,
    ) -> None:
        """
        @param ping: the node's ping.
        @param interval: seconds between two pings.
        """
        self._ping = ping
        self._host = host
        self._interval = interval
        self._reactor = reactor
        self._next: IDelayedCall | None = None
        self._current: Deferred[PingResult] | None = None
        self._trouble = ""

    def startService(self) -> None:
        """Begin; the first ping waits for the node to come up."""
        super().startService()
        self._trouble = ""
        self._pingOnce()

    def stopService(self) -> None:
        """Stop, also in the middle of a ping."""
        super().stopService()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._current is not None:
            self._current.cancel()

    def _pingOnce(self) -> None:
        self._next = None
        Deferred.fromCoroutine(self._report()).addErrback(
            lambda failure: _log.failure("pinging failed", failure)
        )

    async def _report(self) -> None:
        delay = self._interval
        self._current = self._ping(self._host)
        try:
            result = await self._current
        except Exception as error:
            # A peer that was not there may come at any moment.
            delay = min(delay, RETRY)
            trouble = str(error) or type(error).__name__
            if self.running and trouble != self._trouble:
                self._trouble = trouble
                _log.warn("ping {host}: {reason}", host=self._host, reason=trouble)
        else:
            self._trouble = ""
            _log.info(
                "ping {host} ({address}): {milliseconds:.1f} ms by {path}",
                host=result.name or self._host,
                address=result.address,
                milliseconds=result.seconds * 1000,
                path=result.path,
            )
        finally:
            self._current = None
        if self.running:
            self._next = self._reactor.callLater(delay, self._pingOnce)

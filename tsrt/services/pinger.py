"""Pinging a peer from time to time and logging path and round-trip time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from tsrt.runtime.ping import PingResult


class PingService(Service):
    """Pings one host at an interval, for as long as it runs."""

    _log = Logger(namespace="tsrt.ping")

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
        self._loop = LoopingCall(self._pingOnce)
        self._loop.clock = reactor
        self._current: Deferred[PingResult] | None = None

    def startService(self) -> None:
        """Begin; the first ping waits for the node to come up."""
        super().startService()
        self._loop.start(self._interval)

    def stopService(self) -> None:
        """Stop, also in the middle of a ping."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        if self._current is not None:
            self._current.cancel()

    def _pingOnce(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._report())

    async def _report(self) -> None:
        self._current = self._ping(self._host)
        try:
            result = await self._current
        except Exception as error:
            if self.running:
                self._log.warn(
                    "ping {host}: {reason}",
                    host=self._host,
                    reason=str(error) or type(error).__name__,
                )
        else:
            self._log.info(
                "ping {host} ({address}): {milliseconds:.1f} ms by {path}",
                host=result.name or self._host,
                address=result.address,
                milliseconds=result.seconds * 1000,
                path=result.path,
            )
        finally:
            self._current = None

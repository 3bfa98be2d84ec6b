"""A service with children that stop one after the other."""

from __future__ import annotations

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger(namespace="tsrt.runtime")


class OrderedMultiService(MultiService):
    """
    Starts its children in order; stops them in reverse, waiting for each.

    A plain L{MultiService} asks all children to stop at once, so that those
    who want to say goodbye would find the sockets closed.  A child that takes
    too long is left behind with a log line.
    """

    def __init__(self, reactor: IReactorTime, stopTimeout: float = 3.0) -> None:
        """
        @param stopTimeout: seconds that each child gets to stop.
        """
        super().__init__()
        self._reactor = reactor
        self._stopTimeout = stopTimeout

    def stopService(self) -> Deferred[None]:
        """Stop the children; fires when the last one is done."""
        self.running = 0
        return Deferred.fromCoroutine(self._stopChildren())

    async def _stopChildren(self) -> None:
        for child in reversed(list(self)):
            await self._stopChild(child)

    async def _stopChild(self, child: IService) -> None:
        stopping = maybeDeferred(child.stopService)
        stopping.addTimeout(self._stopTimeout, self._reactor)
        try:
            await stopping
        except TimeoutError:
            _log.warn(
                "{child} did not stop within {seconds} s; leaving it",
                child=getattr(child, "name", None) or type(child).__name__,
                seconds=self._stopTimeout,
            )
        except Exception:
            _log.failure("{child!r} failed to stop", child=child)

"""Ending the overlay's connections properly before the tunnel goes."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from tsrt.netstack.tcpstate import TCPState
from tsrt.runtime.overlay import NodeOverlay

PATIENCE = 1.0
"""Seconds that connections get to say goodbye."""

_STEP = 0.02

# Nothing is left to be said in these.
_QUIET = frozenset((TCPState.CLOSED, TCPState.TIME_WAIT, TCPState.FIN_WAIT_2))


class DrainService(Service):
    """On stop, closes every connection and waits a little for the ends."""

    name = "drain"

    def __init__(self, reactor: IReactorTime, overlay: NodeOverlay) -> None:
        """
        @param overlay: whose connections end.
        """
        self._reactor = reactor
        self._overlay = overlay

    def stopService(self) -> Deferred[None]:
        """Close all connections; fires when they are gone, or given up."""
        super().stopService()
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        stack = self._overlay.stack
        for flow in stack.flows():
            close = getattr(flow.owner, "loseConnection", None)
            if close is not None:
                close()
            else:
                flow.release(self._overlay.now())
        self._overlay.flush()
        deadline = self._overlay.now() + PATIENCE
        while self._overlay.now() < deadline:
            if all(flow.state in _QUIET for flow in stack.flows()):
                break
            await deferLater(self._reactor, _STEP)
        for flow in stack.flows():
            abort = getattr(flow.owner, "abortConnection", None)
            if abort is not None:
                abort()
            else:
                flow.abort()
        self._overlay.flush()
        # The transports tell their protocols in the next turn.
        await deferLater(self._reactor, 0)
        await deferLater(self._reactor, 0)

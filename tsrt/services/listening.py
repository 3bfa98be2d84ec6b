"""Services that listen, and listen again when they are started again."""

from __future__ import annotations

from typing import cast

from twisted.application.internet import StreamServerEndpointService
from twisted.internet.defer import Deferred, succeed


class ListeningService(StreamServerEndpointService):
    """
    A L{StreamServerEndpointService} that can be restarted.

    Twisted's own listens only the first time that it is started.
    """

    def stopService(self) -> Deferred[None]:
        """Stop listening; fires when the port is given back."""
        if self._waitingForPort is None:
            return succeed(None)
        stopping = cast("Deferred[None]", super().stopService())
        self._waitingForPort = None
        return stopping

"""Endpoints without which a command is of no use."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from tsrt.errors import ConfigError, TSRTError


@implementer(IStreamServerEndpoint)
class VitalEndpoint:
    """
    Listens at another endpoint; a failure is reported rather than just logged.

    A service that asked for the port waits for ever then, which is until the
    process ends.
    """

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        what: str,
        giveUp: Callable[[TSRTError], object],
    ) -> None:
        """
        @param what: the option that wants this, for the sentence.
        @param giveUp: told why the port cannot be had.
        """
        self._endpoint = endpoint
        self._what = what
        self._giveUp = giveUp

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; fires with the port, or never."""
        return Deferred.fromCoroutine(self._listen(factory))

    async def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        try:
            port: IListeningPort = await self._endpoint.listen(factory)
        except CancelledError:
            raise
        except Exception as error:
            self._giveUp(ConfigError(f"{self._what}: {_sentence(error)}"))
            return await Deferred[IListeningPort]()
        return port


def _sentence(error: Exception) -> str:
    if isinstance(error, CannotListenError):
        reason = getattr(error.socketError, "strerror", None) or error.socketError
        return f"port {error.port} cannot be had: {reason}"
    if isinstance(error, TSRTError):
        return error.describe()
    return str(error) or type(error).__name__

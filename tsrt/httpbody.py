"""Bodies of HTTP messages for Twisted's C{Agent}: whole, and with a limit."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer


class TooLong(Exception):
    """The body exceeds the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer has more than {limit} bytes")


class BodyCollector(Protocol):
    """
    Collects the body of a response up to a limit.

    @ivar done: fires with it; fails with L{TooLong}, or as the connection did.
        Cancelling it ends the connection.
    """

    def __init__(self, limit: int) -> None:
        """
        @param limit: bytes.
        """
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self.done: Deferred[bytes] = Deferred(lambda _: self._close())

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        self._size += len(data)
        self._parts.append(data)
        if self._size > self._limit:
            self._parts.clear()
            self._close()
            self._finish(TooLong(self._limit))

    def connectionLost(self, reason: Failure | None = None) -> None:
        """See L{IProtocol}."""
        whole = reason is None or isinstance(
            reason.value, ResponseDone | PotentialDataLoss
        )
        self._finish(None if whole or reason is None else reason.value)

    def _finish(self, error: BaseException | None) -> None:
        if self.done.called:
            return
        if error is None:
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(error)


@implementer(IBodyProducer)
class WholeBody:
    """The body of a request that is whole in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See L{IBodyProducer}."""
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """See L{IBodyProducer}: it is all written already."""

    def resumeProducing(self) -> None:
        """See L{IBodyProducer}: it is all written already."""

    def stopProducing(self) -> None:
        """See L{IBodyProducer}: it is all written already."""

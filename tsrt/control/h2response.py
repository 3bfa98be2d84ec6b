"""
Responses of the HTTP/2 connection to the control server, and their bodies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tsrt.errors import ControlError, ControlProtocolError

T = TypeVar("T")

_log = Logger(namespace="tsrt.control.h2")


class BodyReceiver(Protocol):
    """Takes the body of a response as it comes in."""

    def bodyReceived(self, data: bytes) -> None:
        """Take a part of the body."""

    def bodyFinished(self, error: ControlError | None) -> None:
        """
        The body has ended; nothing comes any more.

        @param error: why it ended early, or C{None} if it is whole.
        """


class StreamControl(Protocol):
    """What a response needs of its connection."""

    def acknowledge(self, streamID: int, amount: int) -> None:
        """C{amount} bytes of the stream's window were consumed."""

    def resetStream(self, streamID: int) -> None:
        """Nobody wants the rest of the stream."""


class H2Response:
    """
    Status, headers and the body to come.

    Bytes that nobody takes stay unacknowledged, so that no more than the
    stream's window of them is ever held.
    """

    def __init__(
        self,
        control: StreamControl,
        streamID: int,
        status: int,
        headers: tuple[tuple[str, str], ...],
    ) -> None:
        """
        @param control: the connection.
        @param streamID: the stream of this response.
        @param status: the HTTP status code.
        @param headers: names in lower case with their values, in order.
        """
        self.status = status
        self.headers = headers
        self._control = control
        self._streamID = streamID
        self._receiver: BodyReceiver | None = None
        self._held: deque[tuple[bytes, int]] = deque()
        self._paused = False
        self._ended = False
        self._error: ControlError | None = None
        self._finished = False

    def header(self, name: str) -> str | None:
        """The first value of the header C{name} (in lower case)."""
        for known, value in self.headers:
            if known == name:
                return value
        return None

    # -- for whoever made the request ------------------------------------------

    def deliver(self, receiver: BodyReceiver) -> None:
        """
        Give the body to C{receiver}, from its first byte on.

        It may be called once.
        """
        if self._receiver is not None:
            raise RuntimeError("the body is already being delivered")
        self._receiver = receiver
        self._drain()

    def readBody(self, limit: int) -> Deferred[bytes]:
        """
        Collect the whole body.

        @param limit: the most bytes that it may have.
        @return: fires with the body.  It fails with L{ControlProtocolError}
            for a longer one and with L{tsrt.errors.ControlError} when the
            connection ends before the body does; cancelling it gives up the
            request.
        """
        collector = _Collector(self, limit)
        self.deliver(collector)
        return collector.done

    def cancel(self) -> None:
        """Give up the rest of the body; the receiver hears no more."""
        if self._finished:
            return
        self._finished = True
        for _, amount in self._held:
            self._control.acknowledge(self._streamID, amount)
        self._held.clear()
        if not self._ended:
            self._ended = True
            self._control.resetStream(self._streamID)

    def pauseProducing(self) -> None:
        """Deliver nothing until L{resumeProducing}; the server is held back."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on delivering."""
        self._paused = False
        self._drain()

    # -- for the connection ------------------------------------------------------

    def received(self, data: bytes, amount: int) -> None:
        """
        A part of the body came in.

        @param amount: how much of the window it took, padding included.
        """
        if self._finished:
            self._control.acknowledge(self._streamID, amount)
            return
        self._held.append((data, amount))
        self._drain()

    def ended(self, error: ControlError | None) -> None:
        """No more of the body will come in."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._drain()

    def _drain(self) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        while self._held and not self._paused and not self._finished:
            data, amount = self._held.popleft()
            self._control.acknowledge(self._streamID, amount)
            if data:
                self._guard(receiver.bodyReceived, data)
        if self._ended and not self._finished and (self._error or not self._held):
            self._finished = True
            self._held.clear()
            self._guard(receiver.bodyFinished, self._error)

    def _guard(self, call: Callable[[T], None], argument: T) -> None:
        """An error of the receiver ends this response and nothing else."""
        try:
            call(argument)
        except Exception:
            _log.failure("the receiver of a control response failed")
            self.cancel()


class _Collector:
    """Collects a body up to a limit."""

    def __init__(self, response: H2Response, limit: int) -> None:
        self._response = response
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self.done: Deferred[bytes] = Deferred(lambda _: response.cancel())

    def bodyReceived(self, data: bytes) -> None:
        """See L{BodyReceiver}."""
        self._size += len(data)
        if self._size > self._limit:
            self._parts.clear()
            self._response.cancel()
            self.done.errback(
                ControlProtocolError(
                    f"an answer of the control server exceeds {self._limit} bytes"
                )
            )
        else:
            self._parts.append(data)

    def bodyFinished(self, error: ControlError | None) -> None:
        """See L{BodyReceiver}."""
        if error is None:
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(error)

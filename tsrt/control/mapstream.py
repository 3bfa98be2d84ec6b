"""
One map stream: from the bytes of a response to map responses, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tsrt.control.h2response import H2Response
from tsrt.control.zstd import decompress
from tsrt.errors import (
    ControlError,
    ControlProtocolError,
    ControlUnreachable,
    WireError,
)
from tsrt.tailcfg import MapResponse, decodeMapResponse
from tsrt.wire.controlframe import MapFrameSplitter

_log = Logger(namespace="tsrt.control.map")

LARGEST_FRAME = 16 << 20
"""Bytes of a frame as it comes."""

LARGEST_MAP = 64 << 20
"""Bytes of the JSON in a frame."""

WATCHDOG = 120.0
"""Seconds without a whole frame until a stream counts as dead."""

LONGEST_SLEEP = 300.0
"""Seconds that the server may have us sleep before we look at a map."""

LONGEST_HANDLE = 256
"""Characters of a session handle."""


class SessionCursor:
    """
    Where the last map stream was, so that the next one can go on there.

    @ivar handle: the server's name for the session, or empty.
    @ivar seq: the number of the last response that changed anything.
    """

    def __init__(self) -> None:
        """There was no stream yet."""
        self.handle = ""
        self.seq = 0

    def note(self, response: MapResponse) -> None:
        """Take handle and number from a response."""
        handle = response.mapSessionHandle
        if isinstance(handle, str) and isGoodHandle(handle) and handle != self.handle:
            self.handle = handle
            self.seq = 0
        if isinstance(response.seq, int) and response.seq:
            self.seq = response.seq

    def clear(self) -> None:
        """What was known is void: the next stream begins at the beginning."""
        self.handle = ""
        self.seq = 0


def isGoodHandle(handle: str) -> bool:
    """Whether a session handle is one that may be sent back."""
    return 0 < len(handle) <= LONGEST_HANDLE and all("!" <= c <= "~" for c in handle)


class MapStream:
    """
    The responses of one stream.

    @ivar done: fires when the server ends the stream.  It fails with a
        L{ControlError} when the stream breaks, falls silent or makes no
        sense.  Cancelling it gives up the stream.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        compressed: bool,
        cursor: SessionCursor,
        started: Callable[[bool], None],
        deliver: Callable[[MapResponse], None],
    ) -> None:
        """
        @param reactor: the clock.
        @param compressed: whether frames are compressed.
        @param cursor: where the stream before was; kept up to date.
        @param started: called before the first response, with whether the
            stream goes on where the one before was.
        @param deliver: called with each response.
        """
        self._reactor = reactor
        self._compressed = compressed
        self._cursor = cursor
        self._asked = cursor.handle
        self._started = started
        self._deliver = deliver
        self._splitter = MapFrameSplitter(LARGEST_FRAME)
        self._response: H2Response | None = None
        self._pending: deque[MapResponse] = deque()
        self._sleeping: IDelayedCall | None = None
        self._ended = False
        self._endError: ControlError | None = None
        self._begun = False
        self._over = False
        self.done: Deferred[None] = Deferred(lambda _: self._stop())
        self._watchdog: IDelayedCall | None = None

    def attach(self, response: H2Response) -> None:
        """Read the stream from C{response}."""
        self._response = response
        self._feedWatchdog()
        response.deliver(self)

    def _feedWatchdog(self) -> None:
        """The server has shown that it lives; while we sleep it need not."""
        asleep = 0.0
        if self._sleeping is not None:
            asleep = self._sleeping.getTime() - self._reactor.seconds()
        if self._watchdog is None:
            self._watchdog = self._reactor.callLater(WATCHDOG, self._silent)
        elif self._watchdog.active():
            self._watchdog.reset(WATCHDOG + asleep)

    # -- bytes ---------------------------------------------------------------------

    def bodyReceived(self, data: bytes) -> None:
        """See L{tsrt.control.h2response.BodyReceiver}."""
        if self._over:
            return
        try:
            for frame in self._splitter.feed(data):
                self._feedWatchdog()
                self._pending.append(self._decode(frame))
                self._drain()
                if self._over:
                    return
        except ControlError as error:
            self._finish(error)
        except WireError as error:
            self._finish(ControlProtocolError(f"the control server's map: {error}"))

    def bodyFinished(self, error: ControlError | None) -> None:
        """See L{tsrt.control.h2response.BodyReceiver}."""
        self._ended = True
        self._endError = error
        self._drain()

    def _decode(self, frame: bytes) -> MapResponse:
        if self._compressed:
            frame = decompress(frame, LARGEST_MAP)
        response = decodeMapResponse(frame)
        rejected = response.rejectedPeers
        if rejected:
            _log.warn(
                "{count} parts of a map make no sense and were left out: {first}",
                count=len(rejected),
                first=rejected[0],
            )
        return _keepAliveParts(response) if response.keepAlive is True else response

    # -- responses -------------------------------------------------------------------

    def _drain(self) -> None:
        while self._pending and self._sleeping is None and not self._over:
            response = self._pending[0]
            if self._mustSleep(response):
                return
            self._pending.popleft()
            self._take(response)
        if self._ended and not self._pending and not self._over:
            self._finish(self._endError)

    def _take(self, response: MapResponse) -> None:
        if not self._begun and response.keepAlive is not True:
            self._begin(response)
        self._cursor.note(response)
        self._deliver(response)

    def _begin(self, response: MapResponse) -> None:
        """Look at the first response that is more than a sign of life."""
        resumed = bool(self._asked) and response.mapSessionHandle == self._asked
        if not resumed:
            if not response.node:
                raise ControlProtocolError("the control server's first map has no node")
            self._cursor.clear()
        self._begun = True
        self._started(resumed)

    def _mustSleep(self, response: MapResponse) -> bool:
        debug = response.debug
        if not debug or debug.sleepSeconds <= 0:
            return False
        seconds = min(debug.sleepSeconds, LONGEST_SLEEP)
        debug.sleepSeconds = 0.0
        _log.info("the control server has us sleep for {seconds} s", seconds=seconds)
        if self._response is not None:
            self._response.pauseProducing()
        self._sleeping = self._reactor.callLater(seconds, self._wake)
        self._feedWatchdog()
        return True

    def _wake(self) -> None:
        self._sleeping = None
        self._feedWatchdog()
        try:
            self._drain()
        except ControlError as error:
            self._finish(error)
        if self._response is not None and not self._over and self._sleeping is None:
            self._response.resumeProducing()

    # -- the end -----------------------------------------------------------------------

    def fail(self, error: ControlError) -> None:
        """Give up the stream for a reason of ours."""
        self._finish(error)

    def _silent(self) -> None:
        self._finish(
            ControlUnreachable(f"the control server sent no map for {WATCHDOG:.0f} s")
        )

    def _finish(self, error: ControlError | None) -> None:
        if self._over:
            return
        if isinstance(error, ControlProtocolError):
            # What we have may be incomplete: start over.
            self._cursor.clear()
        self._stop()
        if error is None:
            self.done.callback(None)
        else:
            self.done.errback(error)

    def _stop(self) -> None:
        self._over = True
        self._pending.clear()
        for call in (self._watchdog, self._sleeping):
            if call is not None and call.active():
                call.cancel()
        self._sleeping = None
        if self._response is not None:
            self._response.cancel()


def _keepAliveParts(response: MapResponse) -> MapResponse:
    """What counts in a keep-alive; everything else in it is to be ignored."""
    return MapResponse(
        keepAlive=True,
        pingRequest=response.pingRequest,
        popBrowserURL=response.popBrowserURL,
        clientVersion=response.clientVersion,
        controlTime=response.controlTime,
        controlDialPlan=response.controlDialPlan,
    )

"""
An HTTP/2 client on one connection that is already there.

C{h2} keeps the protocol; this module moves bytes and turns its events into
Deferreds.  It is made for the Noise connection to the control server: prior
knowledge, no TLS of its own, a few long streams beside many short ones.

Reference: RFC 9113.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.control.h2response import H2Response
from tsrt.errors import ControlError, ControlProtocolError, ControlUnreachable

_log = Logger(namespace="tsrt.control.h2")

STREAM_WINDOW = 1 << 20
"""Bytes that the server may send on one stream ahead of its reader."""

CONNECTION_WINDOW = 4 << 20
"""Bytes that the server may send on all streams ahead of their readers."""

CONCURRENT = 100
"""Streams that we open at once, and until the server has told its own limit."""

LONGEST_QUEUE = 256
"""Requests that may wait for a stream."""

LARGEST_BACKLOG = 1 << 20
"""Bytes that may be written while the transport asks us to pause."""

_PINGS = 8


class _Stream:
    """A request on its way."""

    def __init__(
        self,
        headers: list[tuple[str, str]],
        body: bytes,
        answered: Deferred[H2Response],
    ) -> None:
        self.headers = headers
        self.body = body
        self.sent = 0
        self.bodyDone = not body
        self.answered = answered
        self.response: H2Response | None = None
        self.streamID: int | None = None
        self.refused = False

    def end(self, error: ControlError | None) -> None:
        """Nothing more will be heard from the server about this request."""
        if self.response is not None:
            self.response.ended(error)
        elif not self.answered.called:
            self.answered.errback(
                error
                or ControlProtocolError("the control server ended without an answer")
            )


@implementer(IPushProducer)
class H2ClientProtocol(Protocol):
    """Many requests at once over one connection."""

    def __init__(self, reactor: IReactorTime) -> None:
        """
        @param reactor: tells the time that pings take.
        """
        self._reactor = reactor
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: 64 * 1024,
            },
        )
        self._streams: dict[int, _Stream] = {}
        self._waiting: deque[_Stream] = deque()
        self._pings: dict[bytes, tuple[float, Deferred[float]]] = {}
        self._pingCount = 0
        self._paused = False
        self._backlog = 0
        self._open = False
        self._lost: ControlError | None = None
        self._closed: list[Deferred[None]] = []
        self.lastReceived = reactor.seconds()
        """When anything last came in."""

    # -- what callers use --------------------------------------------------------

    @property
    def isUsable(self) -> bool:
        """Whether a new request has a chance."""
        return self._lost is None

    @property
    def activity(self) -> int:
        """How many requests are under way or waiting."""
        return len(self._streams) + len(self._waiting)

    def request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        authority: str = "",
        scheme: str = "https",
    ) -> Deferred[H2Response]:
        """
        Send a request.

        @param path: with the query, if there is one.
        @param headers: names in lower case.
        @param authority: the host that the request is for.
        @return: fires when the head of the response is there.  It fails with
            L{ControlUnreachable} when the connection is lost, and with
            L{ControlProtocolError} when the server resets the request.
            Cancelling it resets the stream.
        """
        if self._lost is not None:
            return fail(self._lost)
        if len(self._waiting) >= LONGEST_QUEUE:
            return fail(ControlError("too many requests to the control server wait"))
        answered: Deferred[H2Response] = Deferred(lambda _: self._cancel(stream))
        stream = _Stream(
            [
                (":method", method),
                (":scheme", scheme),
                (":authority", authority),
                (":path", path),
                *headers,
            ],
            body,
            answered,
        )
        self._waiting.append(stream)
        self._openWaiting()
        return answered

    def ping(self) -> Deferred[float]:
        """
        Ask the server for a sign of life.

        @return: fires with the seconds that it took; fails like L{request}.
        """
        if self._lost is not None:
            return fail(self._lost)
        if len(self._pings) >= _PINGS or not self._open:
            return fail(ControlError("the control connection takes no ping now"))
        self._pingCount += 1
        payload = self._pingCount.to_bytes(8, "big")
        done: Deferred[float] = Deferred(lambda _: self._forgetPing(payload))
        self._pings[payload] = (self._reactor.seconds(), done)
        self._h2.ping(payload)
        self._flush()
        return done

    def _forgetPing(self, payload: bytes) -> None:
        self._pings.pop(payload, None)

    def close(self) -> Deferred[None]:
        """
        Say goodbye and close; requests under way fail.

        @return: fires when the connection is gone.
        """
        if self._lost is not None and self.transport is None:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closed.append(closed)
        if self._lost is None:
            if self._open:
                self._h2.close_connection()
                self._flush()
            self._end(ControlUnreachable("the control connection was closed"))
            self._loseConnection()
        return closed

    def abort(self, error: ControlError) -> None:
        """Close at once; requests under way fail with C{error}."""
        self._end(error)
        transport = self.transport
        if transport is not None:
            getattr(transport, "abortConnection", transport.loseConnection)()

    # -- the transport -------------------------------------------------------------

    def connectionMade(self) -> None:
        """The connection is there: send the preface and what waits."""
        self._open = True
        self.lastReceived = self._reactor.seconds()
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - 65535)
        IConsumer(self.transport).registerProducer(self, True)
        self._flush()
        self._openWaiting()

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the server."""
        if self._lost is not None:
            return
        self.lastReceived = self._reactor.seconds()
        try:
            for event in self._h2.receive_data(data):
                self._handle(event)
                if self._lost is not None:
                    return
        except H2Error as error:
            self._flush()
            self.abort(
                ControlProtocolError(f"the control server broke HTTP/2: {error}")
            )
            return
        except Exception:
            # An error boundary: whatever the server sends ends at most this
            # connection.
            _log.failure("the control connection failed")
            self.abort(ControlProtocolError("the control connection failed"))
            return
        self._flush()
        self._openWaiting()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The connection is gone: so are all requests."""
        self.transport = None
        self._open = False
        why = "" if reason is None else f": {reason.getErrorMessage()}"
        self._end(ControlUnreachable(f"the connection to control was lost{why}"))
        closed, self._closed = self._closed, []
        for deferred in closed:
            deferred.callback(None)

    def _loseConnection(self) -> None:
        transport = self.transport
        if transport is not None:
            # With a producer registered the transport would wait for it.
            IConsumer(transport).unregisterProducer()
            transport.loseConnection()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if not data or self.transport is None:
            return
        if self._paused:
            self._backlog += len(data)
            if self._backlog > LARGEST_BACKLOG:
                self.abort(
                    ControlProtocolError("the control server reads nothing of ours")
                )
                return
        self.transport.write(data)

    # -- the transport as our consumer -----------------------------------------------

    def pauseProducing(self) -> None:
        """The transport has enough for now: no more bodies."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport takes more."""
        self._paused = False
        self._backlog = 0
        self._pumpAll()
        self._flush()

    def stopProducing(self) -> None:
        """The transport is going away, of which L{connectionLost} tells."""

    # -- streams -------------------------------------------------------------------

    def _limit(self) -> int:
        return min(CONCURRENT, self._h2.remote_settings.max_concurrent_streams)

    def _openWaiting(self) -> None:
        while (
            self._waiting
            and self._open
            and self._lost is None
            and len(self._streams) < self._limit()
        ):
            stream = self._waiting.popleft()
            try:
                streamID = self._h2.get_next_available_stream_id()
                self._h2.send_headers(
                    streamID, stream.headers, end_stream=stream.bodyDone
                )
            except H2Error as error:
                stream.end(ControlError(f"the request cannot be sent: {error}"))
                if not self._streams:
                    # Out of stream numbers, say: the next dial starts afresh.
                    self.abort(ControlUnreachable("the control connection is used up"))
                continue
            stream.streamID = streamID
            self._streams[streamID] = stream
            self._pump(stream)
        self._flush()

    def _pumpAll(self) -> None:
        for stream in list(self._streams.values()):
            self._pump(stream)

    def _pump(self, stream: _Stream) -> None:
        """Send as much of a body as the windows and the transport allow."""
        streamID = stream.streamID
        if streamID is None:
            return
        while not stream.bodyDone and not self._paused and self._lost is None:
            room = min(
                self._h2.local_flow_control_window(streamID),
                self._h2.max_outbound_frame_size,
            )
            if room <= 0:
                return
            chunk = stream.body[stream.sent : stream.sent + room]
            stream.sent += len(chunk)
            stream.bodyDone = stream.sent >= len(stream.body)
            self._h2.send_data(streamID, chunk, end_stream=stream.bodyDone)
            self._flush()

    def _cancel(self, stream: _Stream) -> None:
        if stream.streamID is None:
            if stream in self._waiting:
                self._waiting.remove(stream)
        else:
            self.resetStream(stream.streamID)

    def resetStream(self, streamID: int) -> None:
        """See L{tsrt.control.h2response.StreamControl}."""
        if self._streams.pop(streamID, None) is None or self._lost is not None:
            return
        try:
            self._h2.reset_stream(streamID, ErrorCodes.CANCEL)
        except H2Error as error:
            _log.debug(
                "stream {stream} was gone: {error}", stream=streamID, error=error
            )
        self._flush()
        self._openWaiting()

    def acknowledge(self, streamID: int, amount: int) -> None:
        """See L{tsrt.control.h2response.StreamControl}."""
        if self._lost is not None or not amount:
            return
        try:
            self._h2.acknowledge_received_data(amount, streamID)
        except H2Error as error:
            _log.debug(
                "stream {stream} was gone: {error}", stream=streamID, error=error
            )
        self._flush()

    # -- events --------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            self._responseReceived(event)
        elif isinstance(event, DataReceived):
            stream = self._streams.get(event.stream_id)
            if stream is None or stream.response is None:
                self.acknowledge(event.stream_id, event.flow_controlled_length)
            else:
                stream.response.received(event.data, event.flow_controlled_length)
        elif isinstance(event, StreamEnded):
            self._streamEnded(event.stream_id)
        elif isinstance(event, StreamReset):
            self._streamReset(event)
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            self._pumpAll()
        elif isinstance(event, PingAckReceived):
            began, done = self._pings.pop(event.ping_data, (0.0, None))
            if done is not None:
                done.callback(self._reactor.seconds() - began)
        elif isinstance(event, ConnectionTerminated):
            self.abort(
                ControlUnreachable(
                    "the control server closes the connection "
                    f"(HTTP/2 code {event.error_code})"
                )
            )

    def _responseReceived(self, event: ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        status = 0
        headers = []
        for name, value in event.headers:
            if name == b":status":
                status = int(value)
            else:
                headers.append((name.decode("latin-1"), value.decode("latin-1")))
        stream.response = H2Response(self, event.stream_id, status, tuple(headers))
        stream.answered.callback(stream.response)

    def _streamEnded(self, streamID: int) -> None:
        stream = self._streams.get(streamID)
        if stream is None:
            return
        if not stream.bodyDone:
            # Answered before all was sent: the server does not want the rest.
            self.resetStream(streamID)
        else:
            del self._streams[streamID]
        stream.end(None)

    def _streamReset(self, event: StreamReset) -> None:
        stream = self._streams.pop(event.stream_id, None)
        if stream is None:
            return
        code = event.error_code
        if (
            code == ErrorCodes.REFUSED_STREAM
            and not stream.refused
            and stream.response is None
        ):
            # RFC 9113, 8.7: nothing was done with it, so it may go again.
            stream.refused = True
            stream.streamID = None
            stream.sent = 0
            stream.bodyDone = not stream.body
            self._waiting.appendleft(stream)
            return
        name = getattr(code, "name", str(code))
        stream.end(
            ControlProtocolError(f"the control server reset the request ({name})")
        )

    def _end(self, error: ControlError) -> None:
        """Fail everything that is under way, once."""
        if self._lost is not None:
            return
        self._lost = error
        streams = [*self._streams.values(), *self._waiting]
        pings = list(self._pings.values())
        self._streams.clear()
        self._waiting.clear()
        self._pings.clear()
        for stream in streams:
            stream.end(error)
        for _, done in pings:
            done.errback(error)

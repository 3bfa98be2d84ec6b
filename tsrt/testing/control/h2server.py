"""
The server side of HTTP/2, for few connections with long-lived streams.

It knows nothing of what carries it: bytes come in through L{H2Server.received}
and go out through a callable.  Data leaves only as fast as the peer's windows and
the transport below allow; what waits is counted per stream, and its producer
is told when it has drained.

Reference: RFC 9113.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from attrs import define, field
from twisted.logger import Logger

_log = Logger(namespace="tsrt.testing.control")

MAX_STREAMS = 250
"""How many requests of one connection may be under way."""

MAX_BODY = 8 << 20
"""Bytes of the longest request body."""

_ROUND = 64 * 1024
"""Bytes handed to the transport before looking whether it is full."""

Headers = Iterable[tuple[str, str]]
"""Header names, in lower case, and values."""


@define(eq=False)
class ServerStream:
    """
    One request and its response.

    @ivar method: the method.
    @ivar path: the path with the query.
    @ivar headers: the other headers by lower-case name.
    @ivar body: the whole body, when the request is handed to the handler.
    @ivar onDrained: called when everything that was written has left.
    @ivar onClosed: called once when the stream ends before it was finished.
    """

    _server: H2Server
    _id: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytearray = field(factory=bytearray)
    onDrained: Callable[[], None] | None = None
    onClosed: Callable[[], None] | None = None
    _queue: deque[bytes] = field(factory=deque)
    _pending: int = 0
    _started: bool = False
    _finishing: bool = False
    _closed: bool = False

    @property
    def pending(self) -> int:
        """Bytes that were written and have not left yet."""
        return self._pending

    @property
    def isOpen(self) -> bool:
        """Whether writing still makes sense."""
        return not (self._closed or self._finishing)

    def respond(
        self,
        status: int,
        body: bytes = b"",
        contentType: str = "text/plain; charset=utf-8",
        headers: Headers = (),
    ) -> None:
        """Send a whole response; nothing happens if the stream has ended."""
        typed = [("content-type", contentType)] if body else []
        self.begin(status, [*typed, ("content-length", str(len(body))), *headers])
        if body and self.method != "HEAD":
            self.write(body)
        self.finish()

    def begin(self, status: int, headers: Headers = ()) -> None:
        """Send the head of a response; the body follows in pieces."""
        if self._closed or self._started:
            return
        self._started = True
        self._server.sendHead(self, [(":status", str(status)), *headers])

    def write(self, data: bytes) -> None:
        """Send a piece of the body, when the peer takes it."""
        if not self.isOpen or not data:
            return
        self._queue.append(data)
        self._pending += len(data)
        self._server.wantsToSend(self)

    def finish(self) -> None:
        """End the response behind what was written."""
        if not self.isOpen:
            return
        self._finishing = True
        self._server.wantsToSend(self)

    def reset(self) -> None:
        """Cut the stream off now and forget what waits."""
        if not self._closed:
            self._server.sendReset(self)

    # -- for the connection ------------------------------------------------------

    def takeChunk(self, limit: int) -> bytes:
        """Remove up to C{limit} bytes from what waits."""
        taken = self._queue.popleft()
        if len(taken) > limit:
            self._queue.appendleft(taken[limit:])
            taken = taken[:limit]
        self._pending -= len(taken)
        return taken

    def markClosed(self, tell: bool) -> None:
        """The stream is over; C{tell} whoever still writes to it."""
        if self._closed:
            return
        self._closed = True
        self._queue.clear()
        self._pending = 0
        self.onDrained = None
        onClosed, self.onClosed = self.onClosed, None
        if tell and onClosed is not None:
            onClosed()


class H2Server:
    """
    One HTTP/2 connection.
    """

    def __init__(
        self,
        handler: Callable[[ServerStream], None],
        send: Callable[[bytes], None],
        close: Callable[[], None],
    ) -> None:
        """
        @param handler: called with each request when its body is complete.
        @param send: takes bytes for the peer; may call L{pause} before it
            returns.
        @param close: ends the connection, after what was sent.
        """
        self._handler = handler
        self._send = send
        self._close = close
        self._connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None)
        )
        self._streams: dict[int, ServerStream] = {}
        self._ready: deque[ServerStream] = deque()
        self._paused = False
        self._receiving = False
        self._sending = False
        self._over = False

    def start(self) -> None:
        """Send the server's half of the connection preface."""
        connection = self._connection
        connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 65536,
            },
        )
        connection.initiate_connection()
        self._flush()

    def received(self, data: bytes) -> None:
        """
        Take bytes from the peer.

        @param data: any part of the stream of bytes.
        """
        if self._over:
            return
        self._receiving = True
        try:
            events = self._connection.receive_data(data)
            for event in events:
                if not self._over:
                    self._event(event)
        except h2.exceptions.H2Error as error:
            _log.debug("closing an HTTP/2 connection: {error}", error=str(error))
            self._flush()
            self._shut()
            return
        finally:
            self._receiving = False
        self._pump()

    def lost(self) -> None:
        """The connection is gone."""
        self._over = True
        streams = list(self._streams.values())
        self._streams.clear()
        self._ready.clear()
        for stream in streams:
            stream.markClosed(tell=True)

    def pause(self) -> None:
        """The transport is full: hold back."""
        self._paused = True

    def resume(self) -> None:
        """The transport takes more."""
        self._paused = False
        self._pump()

    def _shut(self) -> None:
        if not self._over:
            self.lost()
            self._close()

    # -- receiving ------------------------------------------------------------------

    def _event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._requestReceived(event)
        elif isinstance(event, h2.events.DataReceived):
            self._dataReceived(event)
        elif isinstance(event, h2.events.StreamEnded):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                self._handle(stream)
        elif isinstance(event, h2.events.StreamReset):
            gone = self._streams.pop(event.stream_id, None)
            if gone is not None:
                gone.markClosed(tell=True)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._shut()

    def _requestReceived(self, event: h2.events.RequestReceived) -> None:
        headers: dict[str, str] = {}
        for rawName, rawValue in event.headers:
            name = bytes(rawName).decode("latin-1")
            value = bytes(rawValue).decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._streams[event.stream_id] = ServerStream(
            self,
            event.stream_id,
            headers.pop(":method", ""),
            headers.pop(":path", ""),
            headers,
        )

    def _dataReceived(self, event: h2.events.DataReceived) -> None:
        # The window is opened again at once; the size of a body is what bounds
        # the memory of a stream.
        self._connection.acknowledge_received_data(
            event.flow_controlled_length, event.stream_id
        )
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.body += event.data
        if len(stream.body) > MAX_BODY:
            stream.respond(413, b"the request body is too large\n")

    def _handle(self, stream: ServerStream) -> None:
        try:
            self._handler(stream)
        except Exception:
            _log.failure("failed to answer {path}", path=stream.path)
            stream.respond(500, b"internal error\n")

    # -- sending --------------------------------------------------------------------

    def sendHead(self, stream: ServerStream, headers: list[tuple[str, str]]) -> None:
        """Send the head of a stream's response."""
        if self._over:
            return
        try:
            self._connection.send_headers(stream._id, headers)
        except h2.exceptions.H2Error:
            self._gone(stream)
        self._pump()

    def _gone(self, stream: ServerStream) -> None:
        """The peer gave the stream up, though we have not come to that yet."""
        self._streams.pop(stream._id, None)
        stream.markClosed(tell=True)

    def sendReset(self, stream: ServerStream) -> None:
        """Cut a stream off."""
        if self._streams.pop(stream._id, None) is not None:
            try:
                self._connection.reset_stream(stream._id, h2.errors.ErrorCodes.CANCEL)
            except h2.exceptions.H2Error:
                pass
            stream.markClosed(tell=True)
            self._pump()

    def wantsToSend(self, stream: ServerStream) -> None:
        """A stream has something to send."""
        if stream not in self._ready:
            self._ready.append(stream)
        self._pump()

    def _pump(self) -> None:
        """Send what may be sent now, the streams in turn."""
        if self._receiving or self._sending or self._over:
            return
        self._sending = True
        drained: list[ServerStream] = []
        try:
            while self._ready and not self._paused:
                if not self._round(drained):
                    break
                self._flush()
            self._flush()
        finally:
            self._sending = False
        for stream in drained:
            if stream.onDrained is not None and not stream.pending:
                stream.onDrained()

    def _round(self, drained: list[ServerStream]) -> bool:
        """Give each waiting stream a turn; tell whether anything was sent."""
        progress = False
        budget = _ROUND
        for _ in range(len(self._ready)):
            if budget <= 0:
                break
            stream = self._ready.popleft()
            if stream._id not in self._streams:
                continue
            try:
                sent, done = self._sendSome(stream, budget)
            except h2.exceptions.H2Error:
                self._gone(stream)
                progress = True
                continue
            budget -= sent
            progress = progress or sent > 0 or done
            if done:
                if stream._id in self._streams:
                    drained.append(stream)
            else:
                self._ready.append(stream)
        return progress

    def _sendSome(self, stream: ServerStream, budget: int) -> tuple[int, bool]:
        """Send one frame; the bytes sent, and whether nothing more waits."""
        connection = self._connection
        sent = 0
        if stream.pending:
            window = connection.local_flow_control_window(stream._id)
            limit = min(window, connection.max_outbound_frame_size, budget)
            if limit <= 0:
                return 0, False
            chunk = stream.takeChunk(limit)
            connection.send_data(stream._id, chunk)
            sent = len(chunk)
        if stream.pending:
            return sent, False
        if stream._finishing:
            connection.end_stream(stream._id)
            self._streams.pop(stream._id, None)
            stream.markClosed(tell=False)
        return sent, True

    def _flush(self) -> None:
        data = self._connection.data_to_send()
        if data:
            self._send(data)

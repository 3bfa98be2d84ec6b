"""
Tests for L{tsrt.control.h2client} against the server side of C{h2}.
"""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes, Settings
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tsrt.control.h2client import (
    CONCURRENT,
    LARGEST_BACKLOG,
    LONGEST_QUEUE,
    STREAM_WINDOW,
    H2ClientProtocol,
)
from tsrt.control.h2response import H2Response
from tsrt.errors import ControlError, ControlProtocolError, ControlUnreachable
from tsrt.test.memorynet import WireEnd

E = TypeVar("E", bound=Event)


class Server(Protocol):
    """The server side of C{h2}, which does only what a test tells it."""

    transport: ITransport

    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self.events: list[Event] = []
        self.acknowledge = True
        self.lost = False

    def limit(self, streams: int) -> None:
        self.h2.local_settings = Settings(
            client=False,
            initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: streams},
        )

    def connectionMade(self) -> None:
        self.h2.initiate_connection()
        self.flush()

    def dataReceived(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, DataReceived) and self.acknowledge:
                self.h2.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
        self.flush()

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            self.transport.write(data)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def bodyOf(self, streamID: int) -> bytes:
        return b"".join(
            event.data for event in self.of(DataReceived) if event.stream_id == streamID
        )

    def respond(
        self, streamID: int, body: bytes = b"", status: int = 200, end: bool = True
    ) -> None:
        self.h2.send_headers(streamID, [(":status", str(status)), ("x-a", "b")])
        if body:
            self.h2.send_data(streamID, body)
        if end:
            self.h2.end_stream(streamID)
        self.flush()


class Recorder:
    """A receiver of a body."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.ends: list[object] = []

    def bodyReceived(self, data: bytes) -> None:
        self.parts.append(data)

    def bodyFinished(self, error: object) -> None:
        self.ends.append(error)


class H2ClientTests(SynchronousTestCase):
    """Requests over one HTTP/2 connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.client = H2ClientProtocol(self.clock)
        self.server = Server()
        here = IPv4Address("TCP", "192.0.2.1", 1)
        there = IPv4Address("TCP", "192.0.2.2", 2)
        self.end = WireEnd(here, there)
        self.end.peer = self.far = WireEnd(there, here)
        self.far.peer = self.end
        self.end.protocol, self.far.protocol = self.client, self.server

    def connect(self) -> None:
        self.server.makeConnection(self.far)
        self.client.makeConnection(self.end)
        self.pump()

    def pump(self) -> None:
        while self.end.step() or self.far.step():
            pass

    def get(self, path: str = "/", body: bytes = b"") -> Deferred[H2Response]:
        return self.client.request(
            "POST" if body else "GET", path, [("a", "b")], body, authority="h"
        )

    def test_isProducer(self) -> None:
        """The protocol is a producer for its transport."""
        verifyObject(IPushProducer, self.client)

    def test_requestAndResponse(self) -> None:
        """A request carries its headers and body; the response comes back."""
        self.connect()
        answered = self.get("/a?b", b"hello")
        self.pump()
        [request] = self.server.of(RequestReceived)
        self.assertEqual(
            list(request.headers),
            [
                (b":method", b"POST"),
                (b":scheme", b"https"),
                (b":authority", b"h"),
                (b":path", b"/a?b"),
                (b"a", b"b"),
            ],
        )
        self.assertEqual(self.server.bodyOf(1), b"hello")
        self.assertEqual(len(self.server.of(StreamEnded)), 1)
        self.server.respond(1, b"answer", 404)
        self.pump()
        response = self.successResultOf(answered)
        self.assertEqual(response.status, 404)
        self.assertEqual(response.header("x-a"), "b")
        self.assertIsNone(response.header("x-b"))
        self.assertEqual(self.successResultOf(response.readBody(100)), b"answer")
        self.assertEqual(self.client.activity, 0)

    def test_requestBeforeTheConnection(self) -> None:
        """A request made before the connection is sent once there is one."""
        answered = self.get()
        self.connect()
        self.server.respond(1)
        self.pump()
        self.assertEqual(self.successResultOf(answered).status, 200)

    def test_pushIsOff(self) -> None:
        """The server is told not to push and how large its windows are."""
        self.connect()
        settings = self.server.h2.remote_settings
        self.assertEqual(settings.enable_push, 0)
        self.assertEqual(settings.initial_window_size, STREAM_WINDOW)
        self.assertEqual(self.server.h2.outbound_flow_control_window, 4 << 20)

    def test_bodyInParts(self) -> None:
        """Parts of a body are delivered as they come in, then its end."""
        self.connect()
        answered = self.get()
        self.pump()
        self.server.respond(1, b"one", end=False)
        self.pump()
        recorder = Recorder()
        self.successResultOf(answered).deliver(recorder)
        self.assertEqual(recorder.parts, [b"one"])
        self.server.h2.send_data(1, b"two")
        self.server.flush()
        self.pump()
        self.assertEqual(recorder.parts, [b"one", b"two"])
        self.assertEqual(recorder.ends, [])
        self.server.h2.end_stream(1)
        self.server.flush()
        self.pump()
        self.assertEqual(recorder.ends, [None])

    def test_manyStreams(self) -> None:
        """Answers come back in any order, each to its own request."""
        self.connect()
        answers = [self.get(f"/{number}") for number in range(20)]
        self.pump()
        for number in reversed(range(20)):
            self.server.respond(2 * number + 1, str(number).encode())
        self.pump()
        bodies = [
            self.successResultOf(self.successResultOf(answer).readBody(10))
            for answer in answers
        ]
        self.assertEqual(bodies, [str(number).encode() for number in range(20)])

    def test_concurrencyLimit(self) -> None:
        """No more streams are open than the server allows; others wait."""
        self.server.limit(2)
        self.connect()
        answers = [self.get() for _ in range(5)]
        self.pump()
        self.assertEqual(len(self.server.of(RequestReceived)), 2)
        self.assertEqual(self.client.activity, 5)
        self.server.respond(1)
        self.pump()
        self.assertEqual(len(self.server.of(RequestReceived)), 3)
        answers[4].cancel()
        self.failureResultOf(answers[4], CancelledError)
        self.assertEqual(self.client.activity, 3)
        self.server.respond(3)
        self.pump()
        self.server.respond(5)
        self.pump()
        self.assertEqual(len(self.server.of(RequestReceived)), 4)

    def test_queueIsBounded(self) -> None:
        """Requests beyond the queue fail at once rather than pile up."""
        waiting = [self.get() for _ in range(LONGEST_QUEUE)]
        self.failureResultOf(self.get(), ControlError)
        self.assertEqual(self.client.activity, LONGEST_QUEUE)
        self.connect()
        self.assertEqual(len(self.server.of(RequestReceived)), CONCURRENT)
        self.client.abort(ControlUnreachable("over"))
        for answer in waiting:
            self.failureResultOf(answer, ControlUnreachable)

    def test_refusedStreamGoesAgain(self) -> None:
        """A stream refused before anything was done is sent once more."""
        self.connect()
        answered = self.get("/x", b"body")
        self.pump()
        self.server.h2.reset_stream(1, ErrorCodes.REFUSED_STREAM)
        self.server.flush()
        self.pump()
        self.assertNoResult(answered)
        self.assertEqual(self.server.bodyOf(3), b"body")
        self.server.h2.reset_stream(3, ErrorCodes.REFUSED_STREAM)
        self.server.flush()
        self.pump()
        self.failureResultOf(answered, ControlProtocolError)

    def test_reset(self) -> None:
        """A stream reset by the server fails its request, and no other."""
        self.connect()
        first, second = self.get(), self.get()
        self.pump()
        self.server.h2.reset_stream(1, ErrorCodes.INTERNAL_ERROR)
        self.server.flush()
        self.pump()
        failure = self.failureResultOf(first, ControlProtocolError)
        self.assertIn("INTERNAL_ERROR", str(failure.value))
        self.assertNoResult(second)
        second.addErrback(lambda _: None)

    def test_resetInBody(self) -> None:
        """A reset in the middle of a body ends the body with an error."""
        self.connect()
        answered = self.get()
        self.pump()
        self.server.respond(1, b"half", end=False)
        self.pump()
        body = self.successResultOf(answered).readBody(100)
        self.server.h2.reset_stream(1, ErrorCodes.CANCEL)
        self.server.flush()
        self.pump()
        self.failureResultOf(body, ControlProtocolError)

    def test_cancelBeforeAnswer(self) -> None:
        """Cancelling a request resets its stream."""
        self.connect()
        answered = self.get()
        self.pump()
        answered.cancel()
        self.failureResultOf(answered, CancelledError)
        self.pump()
        [reset] = self.server.of(StreamReset)
        self.assertEqual(reset.error_code, ErrorCodes.CANCEL)
        self.assertEqual(self.client.activity, 0)

    def test_cancelBody(self) -> None:
        """Cancelling the body resets the stream, and late data does no harm."""
        self.connect()
        answered = self.get()
        self.pump()
        self.server.respond(1, b"half", end=False)
        self.pump()
        body = self.successResultOf(answered).readBody(100)
        self.server.h2.send_data(1, b"late")
        self.server.flush()
        body.cancel()
        self.failureResultOf(body, CancelledError)
        self.pump()
        self.assertEqual(len(self.server.of(StreamReset)), 1)
        self.assertTrue(self.client.isUsable)

    def test_T_caps_readBodyLimit(self) -> None:
        """A body beyond its limit is an error, and the rest is not wanted."""
        self.connect()
        answered = self.get()
        self.pump()
        self.server.respond(1, b"x" * 101, end=False)
        self.pump()
        body = self.successResultOf(answered).readBody(100)
        self.failureResultOf(body, ControlProtocolError)
        self.pump()
        self.assertEqual(len(self.server.of(StreamReset)), 1)

    def test_bodyAtTheLimit(self) -> None:
        """A body of exactly the limit is whole."""
        self.connect()
        answered = self.get()
        self.pump()
        self.server.respond(1, b"x" * 100)
        self.pump()
        response = self.successResultOf(answered)
        self.assertEqual(self.successResultOf(response.readBody(100)), b"x" * 100)

    def test_largeRequestBody(self) -> None:
        """A body larger than the server's window goes as the window opens."""
        self.server.acknowledge = False
        self.connect()
        body = bytes(range(256)) * 1024
        answered = self.get("/", body)
        self.pump()
        self.assertEqual(len(self.server.bodyOf(1)), 65535)
        self.assertEqual(self.server.of(StreamEnded), [])
        for _ in range(4):
            self.server.h2.increment_flow_control_window(65536)
            self.server.h2.increment_flow_control_window(65536, 1)
            self.server.flush()
            self.pump()
        self.assertEqual(self.server.bodyOf(1), body)
        self.assertEqual(len(self.server.of(StreamEnded)), 1)
        answered.addErrback(lambda _: None)

    def test_transportBackPressure(self) -> None:
        """While the transport is full, no more of a body is written."""
        self.connect()
        self.server.h2.increment_flow_control_window(1 << 22)
        self.server.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 21})
        self.server.flush()
        self.pump()
        self.far.reading = False
        answered = self.get("/", b"x" * (1 << 20))
        self.pump()
        self.assertLess(len(self.end.outgoing), 3 * 64 * 1024)
        self.assertTrue(self.end.producerPaused)
        self.far.reading = True
        self.pump()
        self.assertEqual(len(self.server.bodyOf(1)), 1 << 20)
        answered.addErrback(lambda _: None)

    def test_backlogIsBounded(self) -> None:
        """A server that reads nothing but makes us answer is cut off."""
        self.connect()
        self.client.pauseProducing()
        ping = bytes.fromhex("000008060000000000") + bytes(8)
        for _ in range(LARGEST_BACKLOG // (17 * 1000) + 1):
            self.client.dataReceived(ping * 1000)
        self.assertFalse(self.client.isUsable)
        self.assertTrue(self.end.aborted)

    def test_flowControl(self) -> None:
        """Without a reader the server stops at the window of the stream."""
        self.connect()
        answered = self.get()
        self.pump()
        self.server.h2.send_headers(1, [(":status", "200")])
        sent = 0
        while room := min(
            self.server.h2.local_flow_control_window(1),
            self.server.h2.max_outbound_frame_size,
        ):
            self.server.h2.send_data(1, b"x" * room)
            sent += room
            self.server.flush()
            self.pump()
        self.assertEqual(sent, STREAM_WINDOW)
        recorder = Recorder()
        response = self.successResultOf(answered)
        response.pauseProducing()
        response.deliver(recorder)
        self.pump()
        self.assertEqual(recorder.parts, [])
        self.assertEqual(self.server.h2.local_flow_control_window(1), 0)
        response.resumeProducing()
        self.pump()
        self.assertEqual(sum(map(len, recorder.parts)), STREAM_WINDOW)
        self.assertGreater(self.server.h2.local_flow_control_window(1), 0)

    def test_cancelledBodyFreesTheConnection(self) -> None:
        """Bytes of streams that nobody read do not use up the connection."""
        self.connect()
        for number in range(8):
            answered = self.get()
            self.pump()
            streamID = 2 * number + 1
            self.server.h2.send_headers(streamID, [(":status", "200")])
            left = STREAM_WINDOW
            while left:
                room = min(left, self.server.h2.max_outbound_frame_size)
                self.server.h2.send_data(streamID, b"x" * room)
                left -= room
            self.server.flush()
            self.pump()
            self.successResultOf(answered).cancel()
            self.pump()
        self.assertGreater(self.server.h2.outbound_flow_control_window, STREAM_WINDOW)

    def test_earlyAnswer(self) -> None:
        """An answer before the whole request was sent ends the request."""
        self.server.acknowledge = False
        self.connect()
        answered = self.get("/", b"x" * 200_000)
        self.pump()
        self.server.respond(1, b"too large", 413)
        self.pump()
        response = self.successResultOf(answered)
        self.assertEqual(response.status, 413)
        self.assertEqual(self.successResultOf(response.readBody(20)), b"too large")
        self.assertEqual(len(self.server.of(StreamReset)), 1)

    def test_ping(self) -> None:
        """A ping tells how long the answer took."""
        self.connect()
        ping = self.client.ping()
        self.end.step()
        self.clock.advance(0.25)
        self.pump()
        self.assertEqual(self.successResultOf(ping), 0.25)
        self.assertEqual(len(self.server.of(PingReceived)), 1)

    def test_pingsAreBounded(self) -> None:
        """Only so many pings are under way; a cancelled one is forgotten."""
        self.connect()
        pings = [self.client.ping() for _ in range(8)]
        self.failureResultOf(self.client.ping(), ControlError)
        pings[0].cancel()
        self.failureResultOf(pings[0], CancelledError)
        extra = self.client.ping()
        self.client.abort(ControlUnreachable("gone"))
        for ping in [*pings[1:], extra]:
            self.failureResultOf(ping, ControlUnreachable)

    def test_goAway(self) -> None:
        """GOAWAY fails all requests and closes the connection."""
        self.connect()
        first = self.get()
        self.pump()
        self.server.respond(1, b"x", end=False)
        self.pump()
        body = self.successResultOf(first).readBody(100)
        second = self.get()
        self.pump()
        self.server.h2.close_connection()
        self.server.flush()
        self.pump()
        self.failureResultOf(body, ControlUnreachable)
        self.failureResultOf(second, ControlUnreachable)
        self.failureResultOf(self.get(), ControlUnreachable)
        self.assertTrue(self.server.lost)

    def test_connectionLost(self) -> None:
        """Losing the connection fails what is under way and what waits."""
        self.server.limit(1)
        self.connect()
        first, second, ping = self.get(), self.get(), self.client.ping()
        self.end.lose(ConnectionDone())
        for deferred in (first, second, ping):
            self.failureResultOf(deferred, ControlUnreachable)
        self.assertFalse(self.client.isUsable)

    def test_close(self) -> None:
        """Closing says goodbye, and tells when the connection is gone."""
        self.connect()
        request = self.get()
        closed = self.client.close()
        self.failureResultOf(request, ControlUnreachable)
        self.assertNoResult(closed)
        self.pump()
        self.successResultOf(closed)
        self.successResultOf(self.client.close())
        self.assertIn(
            "ConnectionTerminated", [type(e).__name__ for e in self.server.events]
        )

    def test_garbage(self) -> None:
        """Bytes that are not HTTP/2 end the connection and nothing else."""
        self.connect()
        request = self.get()
        self.client.dataReceived(bytes(9))
        self.failureResultOf(request, ControlProtocolError)
        self.assertTrue(self.end.aborted)
        self.client.dataReceived(b"more")

    def test_badStatus(self) -> None:
        """A status that is no number ends the connection and nothing else."""
        self.connect()
        request = self.get()
        self.pump()
        self.server.h2.send_headers(1, [(":status", "abc")])
        self.server.flush()
        self.pump()
        self.failureResultOf(request)
        self.flushLoggedErrors(ValueError)
        self.assertTrue(self.end.aborted or self.end.gone)

    def test_raisingReceiver(self) -> None:
        """An error of a receiver is logged and ends only its own request."""

        class Broken(Recorder):
            def bodyReceived(self, data: bytes) -> None:
                raise RuntimeError("broken")

        self.connect()
        answered = self.get()
        self.pump()
        self.server.respond(1, b"x", end=False)
        self.pump()
        self.successResultOf(answered).deliver(Broken())
        self.pump()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.server.of(StreamReset)), 1)
        self.assertTrue(self.client.isUsable)

    def test_reentrantRequests(self) -> None:
        """A request made while another's body ends goes out as any other."""
        self.connect()
        results: deque[bytes] = deque()

        def next(body: bytes) -> None:
            results.append(body)
            if len(results) < 5:
                start()

        def start() -> None:
            self.get().addCallback(lambda r: r.readBody(10)).addCallback(next)

        start()
        self.pump()
        for number in range(5):
            self.server.respond(2 * number + 1, b"%d" % number)
            self.pump()
        self.assertEqual(list(results), [b"0", b"1", b"2", b"3", b"4"])

    def test_failureOfRequestIsNotShared(self) -> None:
        """After an abort the reason is what later requests fail with."""
        self.connect()
        self.client.abort(ControlUnreachable("the reason"))
        failure = self.failureResultOf(self.get(), ControlUnreachable)
        self.assertIsInstance(failure, Failure)
        self.assertEqual(str(failure.value), "the reason")

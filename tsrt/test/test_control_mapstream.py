"""
Tests for L{tsrt.control.mapstream} and L{tsrt.control.maploop}.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tsrt.control.h2response import H2Response
from tsrt.control.maploop import MapLoop
from tsrt.control.mapstream import (
    LARGEST_FRAME,
    LARGEST_MAP,
    WATCHDOG,
    MapStream,
    SessionCursor,
    isGoodHandle,
)
from tsrt.control.steps import NETMAP, StepLog, StepResult
from tsrt.control.zstd import zstd
from tsrt.errors import (
    ControlError,
    ControlHTTPError,
    ControlProtocolError,
    ControlUnreachable,
)
from tsrt.tailcfg import MapRequest, MapResponse
from tsrt.wire.controlframe import encodeMapFrame

NODE: dict[str, object] = {"ID": 1, "StableID": "n1", "Name": "a.example.", "Key": "k"}
FIRST: dict[str, object] = {"Node": NODE}


class FakeStreams:
    """Stands for the connection of a response."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.resets = 0

    def acknowledge(self, streamID: int, amount: int) -> None:
        self.acknowledged += amount

    def resetStream(self, streamID: int) -> None:
        self.resets += 1


def frame(document: dict[str, object] | bytes, compress: bool = True) -> bytes:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return encodeMapFrame(zstd.compress(data) if compress else data)


class MapStreamTests(SynchronousTestCase):
    """From bytes to responses."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.cursor = SessionCursor()
        self.responses: list[MapResponse] = []
        self.started: list[bool] = []
        self.open()

    def open(self, compressed: bool = True) -> None:
        self.streams = FakeStreams()
        self.response = H2Response(self.streams, 1, 200, ())
        self.stream = MapStream(
            self.clock,
            compressed=compressed,
            cursor=self.cursor,
            started=self.started.append,
            deliver=self.responses.append,
        )
        self.stream.attach(self.response)

    def feed(self, data: bytes) -> None:
        self.response.received(data, len(data))

    def tearDown(self) -> None:
        self.stream.done.addErrback(lambda _: None)
        self.stream.done.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def broken(self, data: bytes) -> ControlProtocolError:
        self.feed(data)
        problem = self.failureResultOf(self.stream.done, ControlProtocolError).value
        self.assertEqual(self.streams.resets, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        assert isinstance(problem, ControlProtocolError)
        return problem

    def test_order(self) -> None:
        """Responses come out in order, however the bytes are cut."""
        data = frame(FIRST) + b"".join(
            frame({"PeersRemoved": [number]}) for number in range(5)
        )
        for byte in data:
            self.feed(bytes([byte]))
        self.assertEqual(self.started, [False])
        self.assertEqual(
            [response.peersRemoved for response in self.responses[1:]],
            [[number] for number in range(5)],
        )
        self.assertEqual(self.streams.acknowledged, len(data))

    def test_onePiece(self) -> None:
        """Many responses may come in one piece."""
        self.feed(frame(FIRST) + frame({"PeersRemoved": [1]}) + frame(FIRST)[:7])
        self.assertEqual(len(self.responses), 2)

    def test_plain(self) -> None:
        """Without compression frames are plain JSON."""
        self.tearDown()
        self.open(compressed=False)
        self.feed(frame(FIRST, compress=False))
        self.assertEqual(len(self.responses), 1)

    def test_cleanEnd(self) -> None:
        """A stream that the server ends is no error."""
        self.feed(frame(FIRST))
        self.response.ended(None)
        self.successResultOf(self.stream.done)

    def test_brokenEnd(self) -> None:
        """A stream that breaks is one."""
        self.feed(frame(FIRST))
        self.response.ended(ControlUnreachable("gone"))
        self.failureResultOf(self.stream.done, ControlUnreachable)

    def test_keepAlive(self) -> None:
        """In a keep-alive only the few parts that count are kept."""
        self.feed(
            frame(
                {
                    "KeepAlive": True,
                    "PeersRemoved": [1],
                    "Node": NODE,
                    "PopBrowserURL": "https://x",
                    "PingRequest": {"URL": "https://y"},
                }
            )
        )
        [response] = self.responses
        self.assertFalse(response.node)
        self.assertFalse(response.peersRemoved)
        self.assertEqual(response.popBrowserURL, "https://x")
        self.assertEqual(getattr(response.pingRequest, "url", None), "https://y")
        self.assertEqual(self.started, [])

    def test_firstNeedsNode(self) -> None:
        """A first map without this node is refused."""
        problem = self.broken(frame({"KeepAlive": True}) + frame({"Peers": []}))
        self.assertIn("has no node", str(problem))
        self.assertEqual(self.started, [])

    def test_garbage(self) -> None:
        """What is not zstd, or not JSON, ends the stream."""
        for data in (
            encodeMapFrame(b"not zstd"),
            frame(b"<html>"),
            frame(b"[]"),
            frame(b'{"Node":[]}'),
            encodeMapFrame(zstd.compress(b"{}")[:-2]),
            encodeMapFrame(b""),
            frame(b"\xff"),
        ):
            self.broken(data)
            self.open()

    def test_unknownFields(self) -> None:
        """Fields that we do not know do no harm."""
        self.feed(frame({**FIRST, "Whatever": {"x": [1, None]}}))
        self.assertEqual(len(self.responses), 1)

    def test_T_bad_keys_onePeer(self) -> None:
        """A malformed peer costs that peer, not the response."""
        peers = [{"ID": 2, "Name": "b."}, {"ID": "two"}, {"ID": 3, "Name": "c."}]
        self.feed(frame({**FIRST, "Peers": peers}))
        [response] = self.responses
        self.assertEqual([peer.id for peer in response.peers or ()], [2, 3])

    def test_T_caps_frame(self) -> None:
        """A frame beyond 16 MiB is refused by its length alone."""
        problem = self.broken((LARGEST_FRAME + 1).to_bytes(4, "little"))
        self.assertIn(str(LARGEST_FRAME + 1), str(problem))

    def test_T_caps_bomb(self) -> None:
        """100 MB of zeros in a few kilobytes end the stream, not the memory."""
        import tracemalloc

        bomb = frame(b" " * 100_000_000)
        self.assertLess(len(bomb), 100_000)
        tracemalloc.start()
        try:
            problem = self.broken(bomb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertIn(f"more than {LARGEST_MAP} bytes", str(problem))
        self.assertLess(peak, 4 * LARGEST_MAP)

    def test_T_caps_nested(self) -> None:
        """A map that is nested too deeply ends the stream."""
        self.broken(frame(b'{"Node":' + b"[" * 100_000))

    def test_T_backoff_watchdog(self) -> None:
        """120 s without a whole frame end the stream."""
        self.clock.advance(WATCHDOG - 1)
        self.feed(frame(FIRST))
        self.clock.advance(WATCHDOG - 1)
        self.feed(frame({"KeepAlive": True})[:-1])
        self.assertNoResult(self.stream.done)
        self.clock.advance(1)
        self.failureResultOf(self.stream.done, ControlUnreachable)
        self.assertEqual(self.streams.resets, 1)

    def test_T_backoff_watchdogInBody(self) -> None:
        """A frame that trickles in byte by byte does not keep a stream alive."""
        data = frame(FIRST)
        for byte in data[:12]:
            self.feed(bytes([byte]))
            self.clock.advance(WATCHDOG / 11)
        self.failureResultOf(self.stream.done, ControlUnreachable)

    def test_cancel(self) -> None:
        """Cancelling the stream resets it and stops its timers."""
        self.stream.done.cancel()
        self.failureResultOf(self.stream.done, CancelledError)
        self.assertEqual(self.streams.resets, 1)
        self.feed(frame(FIRST))
        self.assertEqual(self.responses, [])

    def test_sleep(self) -> None:
        """The server may have us sleep before we look at a map."""
        slow = {**FIRST, "Debug": {"SleepSeconds": 400}}
        self.feed(frame(slow) + frame({"PeersRemoved": [1]}))
        self.assertEqual(self.responses, [])
        self.feed(frame({"PeersRemoved": [2]}))
        self.clock.advance(299)
        self.assertEqual(self.responses, [])
        self.clock.advance(1)
        self.assertEqual(len(self.responses), 3)
        self.assertNoResult(self.stream.done)

    def test_endWhileSleeping(self) -> None:
        """A stream that ends meanwhile ends after the sleep."""
        self.feed(frame({**FIRST, "Debug": {"SleepSeconds": 1}}))
        self.response.ended(None)
        self.assertNoResult(self.stream.done)
        self.clock.advance(1)
        self.assertEqual(len(self.responses), 1)
        self.successResultOf(self.stream.done)

    def test_sessionHandle(self) -> None:
        """Handle and number of the session are remembered."""
        self.feed(frame({**FIRST, "MapSessionHandle": "h1", "Seq": 3}))
        self.assertEqual((self.cursor.handle, self.cursor.seq), ("h1", 3))
        self.feed(frame({"PeersRemoved": [1], "Seq": 4}))
        self.feed(frame({"KeepAlive": True}))
        self.assertEqual((self.cursor.handle, self.cursor.seq), ("h1", 4))

    def test_resumed(self) -> None:
        """A stream that goes on needs no whole map."""
        self.cursor.handle, self.cursor.seq = "h1", 7
        self.tearDown()
        self.open()
        self.feed(frame({"MapSessionHandle": "h1", "PeersRemoved": [1], "Seq": 8}))
        self.assertEqual(self.started, [True])
        self.assertEqual(self.cursor.seq, 8)

    def test_notResumed(self) -> None:
        """A server that does not go on begins with a whole map."""
        self.cursor.handle, self.cursor.seq = "h1", 7
        self.tearDown()
        self.open()
        self.feed(frame({**FIRST, "MapSessionHandle": "h2"}))
        self.assertEqual(self.started, [False])
        self.assertEqual((self.cursor.handle, self.cursor.seq), ("h2", 0))

    def test_notResumedWithoutHandle(self) -> None:
        """A server without sessions ends the one that we had."""
        self.cursor.handle, self.cursor.seq = "h1", 7
        self.tearDown()
        self.open()
        self.feed(frame(FIRST))
        self.assertEqual((self.cursor.handle, self.cursor.seq), ("", 0))

    def test_brokenStreamIsNotResumed(self) -> None:
        """After nonsense the next stream begins at the beginning."""
        self.feed(frame({**FIRST, "MapSessionHandle": "h1", "Seq": 3}))
        self.broken(frame(b"x"))
        self.assertEqual(self.cursor.handle, "")

    def test_handles(self) -> None:
        """Only short handles of printable characters are taken."""
        for handle, good in (
            ("h", True),
            ("x" * 256, True),
            ("", False),
            ("x" * 257, False),
            ("a b", False),
            ("a\x00", False),
            ("é", False),
        ):
            self.assertEqual(isGoodHandle(handle), good)
        self.cursor.handle, self.cursor.seq = "old", 5
        self.cursor.note(MapResponse(mapSessionHandle="a b"))
        self.assertEqual((self.cursor.handle, self.cursor.seq), ("old", 5))

    @given(st.binary(max_size=200))
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, data: bytes) -> None:
        """Any bytes end the stream at worst."""
        self.setUp()
        self.feed(data)
        self.feed(frame(data, compress=False))
        self.tearDown()


class MapLoopTests(SynchronousTestCase):
    """One stream after the other."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.steps = StepLog(self.clock)
        self.requests: list[MapRequest] = []
        self.answers: list[Deferred[H2Response]] = []
        self.alive: list[bool] = []
        self.troubles: list[ControlError] = []
        self.unknown: list[ControlError] = []
        self.started: list[bool] = []
        self.responses: list[MapResponse] = []
        self.loop = MapLoop(
            self.clock,
            request=lambda: MapRequest(compress="zstd", stream=True),
            openMap=self.openMap,
            started=self.started.append,
            deliver=self.responses.append,
            alive=self.alive.append,
            trouble=self.troubles.append,
            unknownNode=self.unknown.append,
            steps=self.steps,
            # Each wait is the shortest that it may be.
            randbytes=lambda count: bytes(count),
        )

    def tearDown(self) -> None:
        self.loop.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def openMap(self, request: MapRequest) -> Deferred[H2Response]:
        self.requests.append(request)
        self.answers.append(Deferred())
        return self.answers[-1]

    def answer(self, *frames: dict[str, object]) -> H2Response:
        response = H2Response(FakeStreams(), 1, 200, ())
        self.answers[-1].callback(response)
        for document in frames:
            data = frame(document)
            response.received(data, len(data))
        return response

    def waitsAfter(self, act: Callable[[], object], times: int) -> list[float]:
        """How long the loop waits after each of some endings."""
        waits = []
        for _ in range(times):
            asked = len(self.requests)
            act()
            began = self.clock.seconds()
            while len(self.requests) == asked:
                [call] = self.clock.getDelayedCalls()
                self.clock.advance(call.getTime() - self.clock.seconds())
            waits.append(round(self.clock.seconds() - began, 6))
        return waits

    def test_alive(self) -> None:
        """A stream is alive from its first map to its end."""
        self.loop.start()
        response = self.answer({"KeepAlive": True})
        self.assertEqual(self.alive, [])
        data = frame(FIRST)
        response.received(data, len(data))
        self.assertEqual(self.alive, [True])
        self.assertTrue(self.loop.isAlive)
        self.assertIs(self.steps.result(NETMAP), StepResult.OK)
        response.ended(None)
        self.assertEqual(self.alive, [True, False])

    def test_T_backoff_errors(self) -> None:
        """After errors the waits grow."""
        self.loop.start()
        waits = self.waitsAfter(
            lambda: self.answers[-1].errback(ControlUnreachable("no")), 4
        )
        self.assertEqual(waits, [0.005, 0.02, 0.045, 0.08])
        self.assertEqual(len(self.troubles), 4)

    def test_T_backoff_cleanEnds(self) -> None:
        """A stream that ends well without a map is waited after as well."""
        self.loop.start()
        waits = self.waitsAfter(lambda: self.answer().ended(None), 3)
        self.assertEqual(waits, [0.005, 0.02, 0.045])
        self.assertEqual(self.troubles, [])

    def test_T_backoff_keepAlivesDoNotReset(self) -> None:
        """Signs of life alone do not shorten the waits."""
        self.loop.start()
        waits = self.waitsAfter(lambda: self.answer({"KeepAlive": True}).ended(None), 3)
        self.assertEqual(waits, [0.005, 0.02, 0.045])

    def test_T_backoff_mapsReset(self) -> None:
        """A map does, whatever its number."""
        self.loop.start()
        waits = self.waitsAfter(
            lambda: self.answers[-1].errback(ControlUnreachable("no")), 3
        )
        self.assertEqual(waits[-1], 0.045)
        waits = self.waitsAfter(
            lambda: self.answer({**FIRST, "Seq": 0}).ended(ControlUnreachable("no")), 3
        )
        self.assertEqual(waits, [0.005, 0.005, 0.005])

    def test_noAnswer(self) -> None:
        """A request that is never answered is given up by the watchdog."""
        self.loop.start()
        self.clock.advance(WATCHDOG)
        [problem] = self.troubles
        self.assertIsInstance(problem, ControlUnreachable)
        self.clock.advance(1)
        self.assertEqual(len(self.requests), 2)

    def test_unknownNode(self) -> None:
        """A node that the server does not know asks no more, after a wait."""
        for status in (401, 404, 410):
            self.loop.start()
            self.answers[-1].errback(ControlHTTPError("gone", status=status))
            self.assertTrue(self.loop.isRunning)
            self.clock.advance(1)
            self.assertFalse(self.loop.isRunning)
            self.assertEqual(getattr(self.unknown[-1], "status", None), status)

    def test_otherStatus(self) -> None:
        """Other statuses are errors like any other."""
        self.loop.start()
        self.answers[-1].errback(ControlHTTPError("oops", status=500))
        self.clock.advance(1)
        self.assertEqual(len(self.requests), 2)
        self.assertEqual(self.unknown, [])

    def test_resume(self) -> None:
        """The next stream asks to go on where the last one was."""
        self.loop.start()
        response = self.answer({**FIRST, "MapSessionHandle": "h", "Seq": 5})
        response.ended(ControlUnreachable("cut"))
        self.clock.advance(1)
        self.assertEqual(self.requests[1].mapSessionHandle, "h")
        self.assertEqual(self.requests[1].mapSessionSeq, 5)
        self.answer({"MapSessionHandle": "h", "PeersRemoved": [1]})
        self.assertEqual(self.started, [False, True])

    def test_restartFresh(self) -> None:
        """A fresh start asks for everything, at once."""
        self.loop.start()
        self.answer({**FIRST, "MapSessionHandle": "h", "Seq": 5})
        self.loop.restart(fresh=True)
        self.assertEqual(len(self.requests), 2)
        self.assertFalse(self.requests[1].mapSessionHandle)
        self.assertEqual(self.alive, [True, False])

    def test_abandon(self) -> None:
        """A stream that nobody can use is asked for anew, after a wait."""
        self.loop.start()
        self.answer({**FIRST, "MapSessionHandle": "h"})
        self.loop.abandon(ControlProtocolError("nonsense"))
        self.assertEqual(str(self.troubles[0]), "nonsense")
        self.clock.advance(1)
        self.assertFalse(self.requests[1].mapSessionHandle)

    def test_stopAndStart(self) -> None:
        """A stopped loop leaves nothing, and can be started again."""
        self.loop.start()
        self.loop.start()
        self.assertEqual(len(self.requests), 1)
        self.answer(FIRST)
        self.loop.stop()
        self.assertEqual(self.alive, [True, False])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.loop.start()
        self.assertEqual(len(self.requests), 2)

    def test_stopWhileWaiting(self) -> None:
        """A loop can be stopped while it waits, and while it opens."""
        self.loop.start()
        self.loop.stop()
        self.assertTrue(self.answers[0].called)
        self.loop.start()
        self.answers[-1].errback(ControlUnreachable("no"))
        self.loop.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

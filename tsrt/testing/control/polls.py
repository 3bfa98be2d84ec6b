"""
The map streams of all nodes.

A stream is told what has changed once in a turn of the reactor, and only when
it has taken everything it was told before: a slow reader gets fewer, larger
steps, never a growing queue.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tsrt.tailcfg import MapResponse
from tsrt.testing.control.delta import ToldState
from tsrt.testing.control.frames import KEEP_ALIVE, encodeFrame
from tsrt.testing.control.h2server import ServerStream
from tsrt.testing.control.records import NodeRecord

_log = Logger(namespace="tsrt.testing.control")

STALL_INTERVALS = 2
"""Keep-alive intervals that a reader may take nothing before it is cut off."""


class MapPoll:
    """
    One map stream.

    @ivar node: the node that listens.
    @ivar key: the node key that it listens under.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        stream: ServerStream,
        node: NodeRecord,
        told: ToldState,
        *,
        compression: str,
        limit: int,
        interval: Callable[[], float],
        again: Callable[[], None],
        ended: Callable[[MapPoll], None],
    ) -> None:
        """
        @param reactor: provides the keep-alive timer.
        @param stream: the response to write to.
        @param node: the node that listens.
        @param told: works out what to say.
        @param compression: the compression that the node asked for.
        @param limit: bytes that may wait before the stream is closed.
        @param interval: seconds until the next keep-alive.
        @param again: asks for L{update} to be called soon.
        @param ended: told when the node has gone.
        """
        self.node = node
        self.key = node.nodeKey
        self._reactor = reactor
        self._stream = stream
        self._told = told
        self._compression = compression
        self._limit = limit
        self._interval = interval
        self._again = again
        self._ended = ended
        self._behind = False
        self._stalled = 0
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Send the head of the response and the complete first frame."""
        if not self._stream.isOpen:
            # The node went away while it was being prepared for.
            self._ended(self)
            return
        self._stream.onDrained = self._drained
        self._stream.onClosed = self._closed
        self._timer = self._reactor.callLater(self._interval(), self._tick)
        self._stream.begin(200, [("content-type", "application/json")])
        if self._stream.isOpen:
            self.send(self._told.first())

    def update(self) -> None:
        """Tell what has changed, now or when the reader has caught up."""
        if not self._stream.isOpen:
            return
        if self._stream.pending:
            self._behind = True
            return
        self._behind = False
        response = self._told.next()
        if response is not None:
            self.send(response)

    def send(self, response: MapResponse) -> None:
        """
        Send a frame.

        @param response: what it says.
        """
        self._write(encodeFrame(response, self._compression))

    def _write(self, frame: bytes) -> None:
        if self._stream.pending > self._limit:
            _log.warn(
                "closing the map stream of {name}: {pending} bytes wait for it",
                name=self.node.name,
                pending=self._stream.pending,
            )
            self._cutOff()
            return
        if self._timer is not None:
            self._timer.reset(self._interval())
        self._stream.write(frame)

    def _tick(self) -> None:
        """Nothing was sent for a while."""
        self._timer = self._reactor.callLater(self._interval(), self._tick)
        if not self._stream.pending:
            self._stalled = 0
            self._write(KEEP_ALIVE[self._compression])
            return
        self._stalled += 1
        if self._stalled >= STALL_INTERVALS:
            _log.warn(
                "closing the map stream of {name}: its reader has stopped",
                name=self.node.name,
            )
            self._cutOff()

    def _drained(self) -> None:
        self._stalled = 0
        if self._behind:
            self._again()

    def _closed(self) -> None:
        self._stopTimer()
        self._ended(self)

    def _cutOff(self) -> None:
        """End the stream without waiting for its reader."""
        self._stopTimer()
        self._stream.reset()

    def close(self) -> None:
        """End the stream; nobody is told."""
        self._stopTimer()
        self._stream.onClosed = None
        self._stream.onDrained = None
        if self._stream.pending:
            # What a reader has not taken by now it will not miss.
            self._stream.reset()
        else:
            self._stream.finish()

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


class PollTable:
    """
    The map streams, one for each node at most.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        prepare: Callable[[], None],
        arrived: Callable[[NodeRecord], None],
        left: Callable[[NodeRecord], None],
    ) -> None:
        """
        @param reactor: runs what is put off to the next turn.
        @param prepare: called before the streams are told of changes.
        @param arrived: told when a node begins to listen.
        @param left: told when a node does not listen any more.
        """
        self._reactor = reactor
        self._prepare = prepare
        self._arrived = arrived
        self._left = left
        self._polls: dict[int, MapPoll] = {}
        self._flush: IDelayedCall | None = None

    def open(self, poll: MapPoll) -> None:
        """
        Begin a stream; an older one of the same node ends.

        @param poll: the stream, not yet started.
        """
        older = self._polls.get(poll.node.id)
        if older is not None:
            older.close()
        self._polls[poll.node.id] = poll
        self._arrived(poll.node)
        self._prepare()
        poll.start()

    def ended(self, poll: MapPoll) -> None:
        """A node has left its stream."""
        if self._polls.get(poll.node.id) is poll:
            del self._polls[poll.node.id]
            self._left(poll.node)

    def of(self, node: NodeRecord) -> MapPoll | None:
        """The stream of a node, if it listens."""
        return self._polls.get(node.id)

    def close(self, node: NodeRecord) -> None:
        """End the stream of a node, if it listens."""
        poll = self._polls.get(node.id)
        if poll is not None:
            poll.close()
            self.ended(poll)

    def flushSoon(self) -> None:
        """Tell all streams what has changed, in the next turn."""
        if self._flush is None:
            self._flush = self._reactor.callLater(0, self._flushNow)

    def _flushNow(self) -> None:
        self._flush = None
        self._prepare()
        for poll in list(self._polls.values()):
            poll.update()

    def stop(self) -> None:
        """End all streams; nobody is told."""
        flush, self._flush = self._flush, None
        if flush is not None and flush.active():
            flush.cancel()
        polls = list(self._polls.values())
        self._polls.clear()
        for poll in polls:
            poll.close()

"""
The map poll that never ends: one stream after the other.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from tsrt.control.api import isUnknownNode
from tsrt.control.backoff import Backoff
from tsrt.control.h2response import H2Response
from tsrt.control.looper import Looper, Run
from tsrt.control.mapstream import WATCHDOG, MapStream, SessionCursor
from tsrt.control.steps import NETMAP, StepLog
from tsrt.errors import ControlError, ControlUnreachable
from tsrt.tailcfg import UNSET, MapRequest, MapResponse

# Seconds, whatever the number of useless maps in a row.
_LONGEST_PENANCE = 30.0


class MapLoop:
    """
    Keeps a map stream open while it may.

    @ivar isAlive: whether there is a stream that has brought a map.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        request: Callable[[], MapRequest],
        openMap: Callable[[MapRequest], Deferred[H2Response]],
        started: Callable[[bool], None],
        deliver: Callable[[MapResponse], None],
        alive: Callable[[bool], None],
        trouble: Callable[[ControlError], None],
        unknownNode: Callable[[ControlError], None],
        steps: StepLog,
        randbytes: Callable[[int], bytes],
        resume: bool = True,
    ) -> None:
        """
        @param reactor: the clock.
        @param request: makes the request of the next stream; without a
            session, which is added here.
        @param openMap: sends it.
        @param started: called before the first response of each stream, with
            whether it goes on where the one before ended.
        @param deliver: called with each response.
        @param alive: told when a stream brings its first map, and when it ends.
        @param trouble: told of each error.
        @param unknownNode: told when the server does not know our node key;
            no stream is asked for then until the next L{start}.
        @param steps: where the first map is noted.
        @param randbytes: the source of randomness.
        @param resume: whether to go on where the stream before ended, if the
            server can.
        """
        self._reactor = reactor
        self._request = request
        self._openMap = openMap
        self._started = started
        self._deliver = deliver
        self._alive = alive
        self._trouble = trouble
        self._unknownNode = unknownNode
        self._steps = steps
        self._resume = resume
        self._backoff = Backoff(randbytes)
        self._cursor = SessionCursor()
        self._looper = Looper(self._run)
        self._stream: MapStream | None = None
        self._isAbandoned = False
        self._useless = 0
        self.isAlive = False

    @property
    def isRunning(self) -> bool:
        """Whether streams are asked for."""
        return self._looper.isRunning

    def start(self) -> None:
        """Ask for streams; nothing happens if that is being done."""
        self._looper.start()

    def stop(self) -> None:
        """Give up the stream, and ask for no other."""
        self._looper.stop()
        self._setAlive(False)

    def restart(self, *, fresh: bool) -> None:
        """
        Give up the stream, and ask for a new one at once.

        @param fresh: whether what was known from maps is void.
        """
        self.stop()
        self._backoff.reset()
        if fresh:
            self._cursor.clear()
        self.start()

    def abandon(self, error: ControlError) -> None:
        """
        What the stream brought cannot be used: get all of it anew, later.
        """
        self._cursor.clear()
        if self._stream is not None:
            self._isAbandoned = True
            self._stream.fail(error)

    async def _run(self, run: Run) -> None:
        while True:
            error = await self._poll(run)
            self._setAlive(False)
            if error is not None:
                self._steps.failed(NETMAP, str(error))
                self._trouble(error)
            # A clean end waits too: else a server that ends each stream at
            # once would be asked without a pause.
            wait = max(self._backoff.next(), self._penance())
            await run.wait(deferLater(self._reactor, wait, lambda: None))
            if error is not None and isUnknownNode(error):
                # It is for the others to say when to go on.
                self._looper.stop()
                self._unknownNode(error)
                return

    def _penance(self) -> float:
        """
        Seconds to wait because of maps that came, but were of no use.

        Each of them looks like a success to the back-off.
        """
        self._useless = self._useless + 1 if self._isAbandoned else 0
        self._isAbandoned = False
        return min(float(self._useless), _LONGEST_PENANCE)

    async def _poll(self, run: Run) -> ControlError | None:
        """Read one stream to its end; C{None} if it ended well."""
        request = self._request()
        if self._resume and self._cursor.handle:
            request.mapSessionHandle = self._cursor.handle
            request.mapSessionSeq = self._cursor.seq
        self._steps.newRound((NETMAP,))
        self._steps.begin(NETMAP)
        stream = MapStream(
            self._reactor,
            compressed=request.compress is not UNSET,
            cursor=self._cursor,
            started=self._started,
            deliver=self._take,
        )
        opening = self._openMap(request)
        opening.addTimeout(WATCHDOG, self._reactor)
        try:
            response = await run.wait(opening)
            self._stream = stream
            stream.attach(response)
            await run.wait(stream.done)
        except TimeoutError:
            return ControlUnreachable(
                f"the control server did not answer the map request for {WATCHDOG:g} s"
            )
        except ControlError as error:
            return error
        finally:
            self._stream = None
        return None

    def _take(self, response: MapResponse) -> None:
        if response.keepAlive is not True:
            # A sign of life alone proves little: a server may send them and
            # then cut us off, again and again.
            self._backoff.reset()
            self._steps.succeeded(NETMAP)
        self._deliver(response)
        if response.keepAlive is not True:
            self._setAlive(True)

    def _setAlive(self, alive: bool) -> None:
        if alive != self.isAlive:
            self.isAlive = alive
            self._alive(alive)

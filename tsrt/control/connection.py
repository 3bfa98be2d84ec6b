"""
The one connection to the control server that all calls share.

It is made when a call needs it, made again when it is gone, and closed when
nobody has needed it for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.control.dial import ControlDialer
from tsrt.control.h2client import H2ClientProtocol
from tsrt.control.h2response import H2Response
from tsrt.control.noiselayer import HandshakeRefused, NoiseLayer
from tsrt.control.urls import ControlURL
from tsrt.errors import ControlUnreachable, WrongControlKey
from tsrt.keys import MachinePublic

_log = Logger(namespace="tsrt.control")

IDLE_TIMEOUT = 90.0
"""Seconds without any request until the connection is closed."""

QUIET = 75.0
"""
Seconds without a byte from the server until it is asked for a sign of life;
more than the interval of its own keep-alives.
"""

PING_TIMEOUT = 20.0
"""Seconds that the sign of life may take."""

CLOSE_TIMEOUT = 2.0
"""Seconds that a clean close may take."""

_CHECK_INTERVAL = 5.0


class ControlConnection:
    """Requests to one control server, over Noise."""

    def __init__(
        self,
        reactor: IReactorTime,
        dialer: ControlDialer,
        fetchKey: Callable[[], Deferred[MachinePublic]],
        url: ControlURL,
    ) -> None:
        """
        @param reactor: the clock.
        @param dialer: makes Noise connections.
        @param fetchKey: asks the server for its key.
        @param url: the server.
        """
        self._reactor = reactor
        self._dialer = dialer
        self._fetchKey = fetchKey
        self._url = url
        self._serverKey: MachinePublic | None = None
        self._client: H2ClientProtocol | None = None
        self._dialing: Deferred[None] | None = None
        self._waiters: list[Deferred[H2ClientProtocol]] = []
        self._closed = False
        self._idleSince = 0.0
        self._pinged: float | None = None
        self._watch: LoopingCall | None = None

    @property
    def isConnected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and self._client.isUsable

    def request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Deferred[H2Response]:
        """
        Send a request, over a new connection if need be.

        @return: fires with the head of the response; the body is still to
            come.  It fails with a L{tsrt.errors.ControlError}.  Cancelling it
            gives up the request.
        """
        return Deferred.fromCoroutine(self._request(method, path, headers, body))

    async def _request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
    ) -> H2Response:
        client = await self._connected()
        return await client.request(
            method, path, headers, body, authority=self._url.authority
        )

    def drop(self, reason: str) -> None:
        """
        Close the connection at once; the next request makes a new one.

        @param reason: why, for the errors of requests under way.
        """
        if self._client is not None:
            self._client.abort(ControlUnreachable(reason))

    def close(self) -> Deferred[None]:
        """
        Close for good; requests under way fail.

        @return: fires when nothing is left, after at most L{CLOSE_TIMEOUT}.
        """
        self._closed = True
        self._stopWatch()
        self._wakeWaiters(ControlUnreachable("the control client was stopped"))
        if self._dialing is not None:
            self._dialing.cancel()
        client, self._client = self._client, None
        if client is None:
            return succeed(None)
        closed = client.close()
        timer = self._reactor.callLater(
            CLOSE_TIMEOUT, client.abort, ControlUnreachable("it took too long to close")
        )

        def gone(result: None) -> None:
            if timer.active():
                timer.cancel()

        return closed.addCallback(gone)

    # -- dialling ------------------------------------------------------------------

    def _connected(self) -> Deferred[H2ClientProtocol]:
        if self._closed:
            return fail(ControlUnreachable("the control client was stopped"))
        if self._client is not None and self._client.isUsable:
            return succeed(self._client)
        waiter: Deferred[H2ClientProtocol] = Deferred(self._waiterCancelled)
        self._waiters.append(waiter)
        if self._dialing is None:
            # It may be over before the next line: hence the check.
            dialing = Deferred.fromCoroutine(self._dial())
            if not dialing.called:
                self._dialing = dialing
            dialing.addErrback(lambda failure: _log.failure("dial", failure=failure))
        return waiter

    def _waiterCancelled(self, waiter: Deferred[H2ClientProtocol]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        if not self._waiters and self._dialing is not None:
            self._dialing.cancel()

    def _wakeWaiters(self, result: H2ClientProtocol | Failure | Exception) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if isinstance(result, H2ClientProtocol):
                waiter.callback(result)
            else:
                waiter.errback(result)

    async def _dial(self) -> None:
        try:
            layer = await self._dialWithKey()
        except Exception as error:
            self._dialing = None
            self._wakeWaiters(error)
            return
        client = H2ClientProtocol(self._reactor)
        # At once: the server may already have said more.
        layer.attach(client)
        self._dialing = None
        if self._closed:
            client.abort(ControlUnreachable("the control client was stopped"))
            return
        self._client = client
        self._startWatch()
        self._wakeWaiters(client)

    async def _dialWithKey(self) -> NoiseLayer:
        key = self._serverKey
        if key is not None:
            try:
                return await self._dialer.dial(key)
            except (WrongControlKey, HandshakeRefused) as error:
                self._serverKey = None
                _log.info(
                    "the control server no longer takes its key ({error}); "
                    "asking for a new one",
                    error=str(error),
                )
        self._serverKey = await self._fetchKey()
        return await self._dialer.dial(self._serverKey)

    # -- keeping an eye on it --------------------------------------------------------

    def _startWatch(self) -> None:
        self._idleSince = self._reactor.seconds()
        self._pinged = None
        if self._watch is None:
            self._watch = LoopingCall(self._check)
            self._watch.clock = self._reactor
            self._watch.start(_CHECK_INTERVAL, now=False).addErrback(
                lambda failure: _log.failure("the watch failed", failure=failure)
            )

    def _stopWatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None and watch.running:
            watch.stop()

    def _check(self) -> None:
        client = self._client
        if client is None or not client.isUsable:
            self._client = None
            self._stopWatch()
            return
        now = self._reactor.seconds()
        if not client.activity:
            if now - self._idleSince >= IDLE_TIMEOUT:
                _log.debug("the control connection is idle; closing it")
                client.close().addErrback(
                    lambda failure: _log.failure("close", failure=failure)
                )
            return
        self._idleSince = now
        pinged = self._pinged
        if pinged is not None and client.lastReceived >= pinged:
            pinged = self._pinged = None
        quiet = now - client.lastReceived
        if pinged is None:
            if quiet >= QUIET:
                self._pinged = now
                client.ping().addErrback(lambda _: None)
        elif now - pinged >= PING_TIMEOUT:
            client.abort(
                ControlUnreachable(
                    f"the control server has been silent for {quiet:.0f} s"
                )
            )

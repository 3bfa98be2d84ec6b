"""
Answering the control server's questions whether we are there.

Answers go to the control server and nowhere else: of the URL that it names
only path and query are used.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.control.api import ControlAPI
from tsrt.control.c2n import C2NHandler, C2NResponse, parseRequest
from tsrt.control.plainhttp import PlainHTTP
from tsrt.errors import ControlError, NotSupported, WireError
from tsrt.tailcfg import PingRequest, PingResponse, encode

_log = Logger(namespace="tsrt.control.ping")

HEAD_TIMEOUT = 15.0
PING_TIMEOUT = 10.0
ANSWER_TIMEOUT = 15.0
C2N_ANSWER_TIMEOUT = 60.0
"""Seconds that each step of an answer may take."""

MOST_ANSWERS = 16
"""Questions that are being answered at one time; more are not."""

KINDS = ("disco", "TSMP", "ICMP", "peerapi")

Pinger = Callable[[str, str], "Deferred[PingResponse]"]
"""Pings an address of the tailnet in one of the L{KINDS}."""


def noPinger(ip: str, kind: str) -> Deferred[PingResponse]:
    """A pinger for where there is nothing to ping with."""
    return fail(NotSupported("pings are not supported here"))


class PingAnswerer:
    """
    Answers ping requests.

    @ivar dropped: questions that were not answered because there were too
        many.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        api: ControlAPI,
        http: PlainHTTP,
        *,
        c2n: C2NHandler,
        pinger: Pinger,
    ) -> None:
        """
        @param reactor: the clock.
        @param api: carries answers over Noise.
        @param http: carries those that are to go by ordinary HTTP.
        @param c2n: answers requests.
        @param pinger: pings other nodes.
        """
        self._reactor = reactor
        self._api = api
        self._http = http
        self._c2n = c2n
        self._pinger = pinger
        self._lastURL = ""
        self._running: set[Deferred[None]] = set()
        self.dropped = 0

    def answer(self, request: PingRequest) -> None:
        """Answer a question, unless it is the same one as before."""
        if not request.url or request.url == self._lastURL:
            return
        self._lastURL = request.url
        if len(self._running) >= MOST_ANSWERS:
            self.dropped += 1
            return
        if request.log:
            _log.info("the control server asks: {kind}", kind=request.types or "HEAD")
        # Kept before it runs: it may be over at once.
        running = Deferred.fromCoroutine(self._answer(request))
        self._running.add(running)
        running.addBoth(self._ended, running)

    def stop(self) -> None:
        """Give up all that is being answered."""
        for running in list(self._running):
            running.cancel()
        self._running.clear()
        self._lastURL = ""

    def _ended(self, result: object, running: Deferred[None]) -> None:
        self._running.discard(running)
        if not isinstance(result, Failure):
            return
        error = result.value
        if isinstance(error, WireError | ControlError | TimeoutError):
            _log.info("a question of the control server: {error}", error=str(error))
        elif not isinstance(error, CancelledError):
            _log.failure("answering the control server failed", failure=result)

    async def _answer(self, request: PingRequest) -> None:
        target = replyTarget(request.url)
        if not request.types:
            await self._head(target, request.urlIsNoise)
        elif request.types == "c2n":
            await self._answerC2N(target, request)
        else:
            await self._ping(target, request)

    async def _head(self, target: str, overNoise: bool) -> None:
        if overNoise:
            await self._api.send("HEAD", target, timeout=HEAD_TIMEOUT)
        else:
            attempt = Deferred.fromCoroutine(self._http.request("HEAD", target))
            await attempt.addTimeout(HEAD_TIMEOUT, self._reactor)

    async def _answerC2N(self, target: str, request: PingRequest) -> None:
        if not request.payload:
            raise WireError("a request of the control server has no content")
        question = parseRequest(request.payload)
        handled = self._c2n.handle(question)
        handled.addTimeout(question.timeout, self._reactor)
        try:
            answer = await handled
        except TimeoutError:
            answer = C2NResponse(504, b"the handler took too long\n")
        await self._api.send(
            "POST", target, answer.toBytes(), timeout=C2N_ANSWER_TIMEOUT
        )

    async def _ping(self, target: str, request: PingRequest) -> None:
        for kind in request.types.split(","):
            if kind not in KINDS:
                _log.info(
                    "the control server asks for a ping of kind {kind}, which is "
                    "not known",
                    kind=kind[:40],
                )
                continue
            response = await self._pingOnce(request.ip, kind)
            body = encode(response)
            if request.urlIsNoise:
                await self._api.send("POST", target, body, timeout=ANSWER_TIMEOUT)
            else:
                attempt = Deferred.fromCoroutine(
                    self._http.request("POST", target, body)
                )
                await attempt.addTimeout(ANSWER_TIMEOUT, self._reactor)

    async def _pingOnce(self, ip: str, kind: str) -> PingResponse:
        try:
            ping = self._pinger(ip, kind)
            response = await ping.addTimeout(PING_TIMEOUT, self._reactor)
        except CancelledError:
            raise
        except TimeoutError:
            return PingResponse(type=kind, ip=ip, err="timeout")
        except Exception as error:
            return PingResponse(
                type=kind, ip=ip, err=str(error) or type(error).__name__
            )
        response.type = kind
        return response


def replyTarget(url: str) -> str:
    """
    Path and query of the URL that the server names.

    @raise WireError: when there is no path in it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise WireError("the control server names a malformed URL") from None
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    if not target.startswith("/") or not all("!" <= c <= "~" for c in target):
        raise WireError("the control server names a malformed URL")
    return target

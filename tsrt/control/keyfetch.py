"""
The key of the control server, fetched over ordinary HTTP.

What this answers is what the whole connection trusts, so here, unlike for the
Noise connection, certificates are verified.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from tsrt.control.plainhttp import LARGEST_ANSWER, PlainHTTP
from tsrt.control.reach import (
    gaveUp,
    isTLSFailure,
    reasonOf,
    unreachable,
)
from tsrt.control.skew import explainCertificate
from tsrt.control.steps import DNS, KEY, TCP, TLS, StepLog
from tsrt.control.urls import ControlURL
from tsrt.errors import (
    ControlError,
    ControlProtocolError,
    ControlTooOld,
    WireError,
)
from tsrt.httpbody import TooLong
from tsrt.interfaces import IStreamDialer
from tsrt.keys import MachinePublic
from tsrt.tailcfg.capabilities import CAPABILITY_VERSION

FETCH_TIMEOUT = 20.0
"""Seconds for the whole fetch."""

_NOT_CONTROL = (
    "Check that the login server's address is a control server's, and that no "
    "login page of the network is in between."
)


class KeyUnavailable(ControlError):
    """
    The question for the key was answered with an HTTP error.

    Not a L{ControlHTTPError}: whoever answered has not shown that it is the
    control server, so what it says means nothing for the node or its login.

    @ivar status: the HTTP status code.
    """

    advice = _NOT_CONTROL

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class KeyFetcher:
    """Fetches the key of one control server."""

    def __init__(
        self,
        reactor: IReactorTime,
        dialer: IStreamDialer,
        url: ControlURL,
        *,
        steps: StepLog,
        wallTime: Callable[[], float],
        version: int = CAPABILITY_VERSION,
        timeout: float = FETCH_TIMEOUT,
    ) -> None:
        """
        @param reactor: the clock.
        @param dialer: makes the connections.
        @param url: the server.
        @param steps: where each step is noted.
        @param wallTime: tells the time in seconds since 1970.
        @param version: our capability version.
        @param timeout: seconds for the whole fetch.
        """
        self._reactor = reactor
        self._dialer = dialer
        self._url = url
        self._steps = steps
        self._wallTime = wallTime
        self._version = version
        self._timeout = timeout
        self._http = PlainHTTP(reactor, dialer, url, steps=steps)

    def fetch(self) -> Deferred[MachinePublic]:
        """
        Ask the server for its key.

        @return: fires with the key.  It fails with L{ControlTooOld} when the
            server has none, L{KeyUnavailable} for an HTTP error,
            L{ControlProtocolError} for an answer that is no key,
            L{tsrt.errors.ClockSkew} and L{tsrt.errors.ControlUnreachable}.
        """
        return Deferred.fromCoroutine(self._fetch())

    async def _fetch(self) -> MachinePublic:
        self._steps.newRound((DNS, TCP, TLS, KEY))
        self._steps.begin(KEY, self._url.text)
        try:
            key = parseKeyAnswer(await self._limited(), self._url.text)
        except ControlError as error:
            self._steps.failed(KEY, str(error))
            raise
        self._steps.succeeded(KEY, key.short())
        return key

    async def _limited(self) -> bytes:
        where = self._url.text
        attempt = Deferred.fromCoroutine(self._get())
        attempt.addTimeout(self._timeout, self._reactor)
        try:
            return await attempt
        except defer.TimeoutError:
            raise gaveUp(self._steps, where, self._timeout) from None
        except (ControlError, defer.CancelledError):
            raise
        except TooLong:
            raise ControlProtocolError(
                f"{where} answered the question for its key with more than "
                f"{LARGEST_ANSWER} bytes",
                advice=_NOT_CONTROL,
            ) from None
        except Exception:
            failure = Failure()
        if isTLSFailure(failure) and "verify failed" in reasonOf(failure):
            problem = await explainCertificate(
                self._reactor, self._dialer, self._url, self._wallTime, self._version
            )
            self._steps.failed(TLS, str(problem))
            raise problem
        raise unreachable(failure, where, self._steps)

    async def _get(self) -> bytes:
        url = self._url.keyURL(self._version)
        response = await self._http.request("GET", f"/key?v={self._version}")
        if response.status != 200:
            raise KeyUnavailable(
                f"{url} was answered with HTTP {response.status} "
                f"{response.reason}".rstrip(),
                response.status,
            )
        return response.body


def parseKeyAnswer(body: bytes, where: str) -> MachinePublic:
    """
    The key in the answer of a control server.

    @param where: the server, for messages.
    @raise ControlTooOld: when the server says that it has none.
    @raise ControlProtocolError: when it is no answer of a control server.
    """
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        raise _notJSON(body, where) from None
    if not isinstance(document, dict):
        raise _notJSON(body, where)
    text = document.get("publicKey")
    if text is None:
        raise _tooOld(where)
    try:
        key = MachinePublic.parse(text if isinstance(text, str) else "")
    except WireError as error:
        raise ControlProtocolError(
            f"{where} answered with a bad key: {error}"
        ) from None
    if key.isZero():
        raise _tooOld(where)
    return key


def _notJSON(body: bytes, where: str) -> ControlError:
    """Servers of old answer with nothing but their legacy key."""
    text = body.decode("utf-8", "replace").strip().strip('"').removeprefix("mkey:")
    if len(text) == 64 and all(c in "0123456789abcdefABCDEF" for c in text):
        return _tooOld(where)
    return ControlProtocolError(
        f"{where} answered the question for its key with something else",
        advice=_NOT_CONTROL,
    )


def _tooOld(where: str) -> ControlTooOld:
    return ControlTooOld(f"{where} is too old: it has no Noise key")

"""Questions to nodes that are answered by a request of theirs, later."""

from __future__ import annotations

import base64
import http.client
import io
from collections.abc import Callable, Mapping

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tsrt.errors import ProtocolError

ANSWER_PATH = "/machine/ping-response/"
"""Where nodes post their answers, followed by the id of the question."""


@frozen
class C2NResponse:
    """
    What a node answered to a request of the control server.

    @ivar status: the status code.
    @ivar headers: the values by lower-case name.
    @ivar body: the whole body.
    """

    status: int
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""


class _Source:
    """Bytes in the shape that the response parser reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        """All bytes as a file."""
        return io.BytesIO(self._data)


def parseC2NResponse(data: bytes) -> C2NResponse:
    """
    Parse a whole HTTP/1 response.

    @param data: status line, headers and body.
    @raise ProtocolError: when it is none.
    """
    parser = http.client.HTTPResponse(_Source(data))  # type: ignore[arg-type]  # reads from makefile() only
    try:
        parser.begin()
        body = parser.read()
    except (http.client.HTTPException, ValueError, OSError) as error:
        raise ProtocolError(f"the node sent no HTTP response: {error!r}") from None
    headers = {name.lower(): value for name, value in parser.getheaders()}
    return C2NResponse(parser.status, headers, body)


def encodeC2NRequest(
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """
    Write a request the way it travels inside a ping.

    @param method: the method.
    @param path: the path with the query.
    @param body: the body.
    @param headers: further headers.
    """
    lines = [f"{method} {path} HTTP/1.1", "Host: c2n"]
    lines.extend(f"{name}: {value}" for name, value in (headers or {}).items())
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class PendingPings:
    """
    The questions that are still open.
    """

    def __init__(
        self, reactor: IReactorTime, randbytes: Callable[[int], bytes]
    ) -> None:
        """
        @param reactor: provides the time-outs.
        @param randbytes: the source of secret random bytes.
        """
        self._reactor = reactor
        self._randbytes = randbytes
        self._open: dict[str, tuple[Deferred[bytes], IDelayedCall]] = {}

    def ask(self, timeout: float) -> tuple[str, Deferred[bytes]]:
        """
        Open a question.

        @param timeout: seconds to wait for the answer.
        @return: the id that the answer has to name, and a Deferred that fires
            with the body of the answer; it fails with C{TimeoutError}, or
            C{ConnectionLost} when the server stops.
        """
        raw = base64.b32encode(self._randbytes(10)).decode("ascii").lower()
        answer: Deferred[bytes] = Deferred(lambda _: self._forget(raw))
        call = self._reactor.callLater(timeout, self._timedOut, raw)
        self._open[raw] = (answer, call)
        return raw, answer

    def answered(self, question: str, body: bytes) -> bool:
        """
        Take an answer.

        @return: whether anybody waited for it.
        """
        answer = self._drop(question)
        if answer is None:
            return False
        answer.callback(body)
        return True

    def stop(self) -> None:
        """Fail all open questions."""
        for question in list(self._open):
            answer = self._drop(question)
            if answer is not None:
                answer.errback(ConnectionLost("the control server stopped"))

    def _timedOut(self, question: str) -> None:
        answer = self._drop(question)
        if answer is not None:
            answer.errback(TimeoutError("the node did not answer"))

    def _forget(self, question: str) -> None:
        self._drop(question)

    def _drop(self, question: str) -> Deferred[bytes] | None:
        answer, call = self._open.pop(question, (None, None))
        if call is not None and call.active():
            call.cancel()
        return answer

"""
Telling a wrong clock from a wrong certificate.

To OpenSSL both look the same.  So when a certificate does not verify, the
server is asked once more, without trust in the answer, just for its C{Date}.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.control.tlsoptions import NotedTLS
from tsrt.control.urls import ControlURL
from tsrt.errors import ClockSkew, ControlError, ControlUnreachable, WireError
from tsrt.interfaces import IStreamDialer
from tsrt.wire.httphead import ResponseHead, ResponseHeadParser

_log = Logger(namespace="tsrt.control")

PROBE_TIMEOUT = 10.0
"""Seconds for asking the server for its date."""

TOLERANCE = 300.0
"""Seconds by which a clock may be off before it is to blame."""


class _DateProbe(Protocol):
    """Asks for a page and looks at nothing but the head of the answer."""

    def __init__(self, authority: str, path: str) -> None:
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
        )
        self._parser = ResponseHeadParser()
        self.done: Deferred[ResponseHead | None] = Deferred(lambda _: self._close())

    def connectionMade(self) -> None:
        if self.transport is not None:
            self.transport.write(self._request.encode("ascii"))

    def dataReceived(self, data: bytes) -> None:
        try:
            result = self._parser.feed(data)
        except WireError:
            self._finish(None)
        else:
            if result is not None:
                self._finish(result[0])

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.transport = None
        self._finish(None)

    def _finish(self, head: ResponseHead | None) -> None:
        self._close()
        if not self.done.called:
            self.done.callback(head)

    def _close(self) -> None:
        transport = self.transport
        if transport is not None:
            getattr(transport, "abortConnection", transport.loseConnection)()


class _ProbeFactory(Factory):
    noisy = False

    def __init__(self, probe: _DateProbe) -> None:
        self._probe = probe

    def buildProtocol(self, addr: IAddress | None) -> _DateProbe:
        return self._probe


@frozen
class _Finding:
    """
    What the server showed.

    @ivar problem: what is wrong with its certificate, if anything.
    @ivar isDate: whether it is only the dates.
    @ivar date: its idea of the time, in seconds since 1970.
    """

    problem: str | None
    isDate: bool
    date: float | None


async def explainCertificate(
    reactor: IReactorTime,
    dialer: IStreamDialer,
    url: ControlURL,
    wallTime: Callable[[], float],
    version: int,
) -> ControlError:
    """
    Find out why the certificate of the server did not verify.

    @param wallTime: this machine's idea of the time, in seconds since 1970.
    @return: L{ClockSkew} when this machine's clock is to blame, else
        L{ControlUnreachable} with what is wrong with the certificate.
    """
    finding = await _probe(reactor, dialer, url, version)
    where = url.text
    if finding is None or finding.problem is None:
        return ControlUnreachable(
            f"the certificate of {where} does not verify",
            advice=_CERTIFICATE_ADVICE,
        )
    if not finding.isDate:
        return ControlUnreachable(
            f"{where}: {finding.problem}", advice=_CERTIFICATE_ADVICE
        )
    if finding.date is None:
        return ControlUnreachable(
            f"{where}: by this machine's clock, {finding.problem}",
            advice="Check the clock of this machine.",
        )
    offset = wallTime() - finding.date
    if abs(offset) <= TOLERANCE:
        return ControlUnreachable(
            f"{where}: {finding.problem}, and the clock of this machine is right",
            advice="The certificate of the server has to be renewed.",
        )
    direction = "ahead" if offset > 0 else "behind"
    return ClockSkew(
        f"your clock is off by {describeSpan(abs(offset))} ({direction}), so that "
        f"for {where} {finding.problem}"
    )


_CERTIFICATE_ADVICE = (
    "Check the login server's address; if its certificate comes from a private "
    "authority, give that authority's certificate with --ca-file."
)


async def _probe(
    reactor: IReactorTime, dialer: IStreamDialer, url: ControlURL, version: int
) -> _Finding | None:
    tls = NotedTLS(url.host, dialer.trustRoot)
    probe = _DateProbe(url.authority, f"{url.prefix}/key?v={version}")
    attempt = Deferred.fromCoroutine(_ask(dialer, url, tls, probe))
    attempt.addTimeout(PROBE_TIMEOUT, reactor)
    try:
        head = await attempt
    except Exception as error:
        _log.debug("no date from {where}: {error}", where=url.text, error=str(error))
        return None
    return _Finding(
        tls.problem(), tls.isDateProblem, None if head is None else _dateOf(head)
    )


async def _ask(
    dialer: IStreamDialer, url: ControlURL, tls: NotedTLS, probe: _DateProbe
) -> ResponseHead | None:
    endpoint = dialer.endpoint(url.host, url.port, tls)
    await endpoint.connect(_ProbeFactory(probe))
    return await probe.done


def _dateOf(head: ResponseHead) -> float | None:
    text = head.header("date")
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def describeSpan(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, length in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= length:
            count = round(seconds / length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:.0f} seconds"

"""Looking for a captive portal, see L{tsrt.path.captive}."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint
from twisted.internet.interfaces import (
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.errors import WireError
from tsrt.path.captive import PortalCheck
from tsrt.wire.httphead import ResponseHeadParser

TIMEOUT = 3.0
"""Seconds for the answers; a portal is near."""

_log = Logger(namespace="tsrt.netcheck")


class _Asking(Protocol):
    """Asks one server, and reads no more than the head of its answer."""

    def __init__(self, check: PortalCheck) -> None:
        self._check = check
        self._parser = ResponseHeadParser()
        self._isOver = False
        self.answer: Deferred[bool | None] = Deferred(lambda _: self._end())

    def connectionMade(self) -> None:
        """Ask."""
        if self.transport is not None:
            self.transport.write(self._check.request())

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        if self._isOver:
            return
        try:
            found = self._parser.feed(data)
        except WireError:
            # Whatever this is, it is not the server.
            self._tell(True)
            return
        if found is not None:
            self._tell(self._check.isForged(found[0]))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}."""
        self._tell(None)

    def _tell(self, isForged: bool | None) -> None:
        if not self._isOver:
            self._end()
            self.answer.callback(isForged)

    def _end(self) -> None:
        self._isOver = True
        transport = self.transport
        if transport is None:
            return
        if ITCPTransport.providedBy(transport):
            transport.abortConnection()
        else:
            transport.loseConnection()


class _OneFactory(Factory):
    """Has one protocol, made beforehand."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Protocol:
        """See L{IProtocolFactory}."""
        return self._protocol


def findCaptivePortal(
    reactor: IReactorTime, checks: Iterable[PortalCheck]
) -> Deferred[bool | None]:
    """
    Ask all servers at once, directly, by no proxy: a portal is in the way to it.

    @param reactor: also provides C{IReactorTCP} and, for names,
        C{IReactorPluggableNameResolver}.
    @return: fires within L{TIMEOUT} seconds: with C{True} as soon as an answer
        is a portal's, C{False} when all are the servers' own, C{None} when
        nobody answered.  It never fails; cancelling ends the connections.
    """
    asking = [_ask(reactor, check) for check in checks]
    if not asking:
        return succeed(None)

    def cancel() -> None:
        for each in asking:
            each.cancel()

    result: Deferred[bool | None] = Deferred(lambda _: cancel())
    answers: list[bool] = []

    def noted(answer: bool | None) -> None:
        if answer is None or result.called:
            return
        answers.append(answer)
        if answer:
            result.callback(True)
            cancel()

    def over(_: object) -> None:
        if not result.called:
            result.callback(False if answers else None)

    # Each answer is noted before the last of them ends the waiting.
    for each in asking:
        each.addCallback(noted)
    DeferredList(asking).addCallback(over)
    return result


def _ask(reactor: IReactorTime, check: PortalCheck) -> Deferred[bool | None]:
    """Ask one server; C{None} if it does not answer."""
    return Deferred.fromCoroutine(_asked(reactor, check)).addErrback(
        lambda failure: _log.debug(
            "{host} does not tell whether there is a captive portal: {reason}",
            host=check.host,
            reason=failure.getErrorMessage(),
        )
    )


async def _asked(reactor: IReactorTime, check: PortalCheck) -> bool | None:
    host = check.host
    endpoint: IStreamClientEndpoint
    if isIPAddress(host):
        endpoint = TCP4ClientEndpoint(reactor, host, 80, timeout=TIMEOUT)
    else:
        endpoint = HostnameEndpoint(reactor, host, 80, timeout=TIMEOUT)
    began = reactor.seconds()
    asking = _Asking(check)
    await endpoint.connect(_OneFactory(asking))
    left = max(began + TIMEOUT - reactor.seconds(), 0.0)
    return await asking.answer.addTimeout(left, reactor)

"""
Connecting, with each step noted and each failure said in plain words.
"""

from __future__ import annotations

import ipaddress

from OpenSSL import SSL
from twisted.internet import defer, error
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived
from zope.interface import implementer

from tsrt.control.steps import DNS, TCP, TLS, StepLog, StepResult
from tsrt.errors import ControlError, ControlUnreachable, TSRTError


def isAddress(host: str) -> bool:
    """Whether C{host} is an address literal, which needs no DNS."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@implementer(IStreamClientEndpoint)
class NotedEndpoint:
    """An endpoint that tells a L{StepLog} how far it got."""

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        steps: StepLog,
        where: str,
        *,
        resolves: bool,
        tls: bool,
    ) -> None:
        """
        @param endpoint: the one that connects.
        @param steps: where the steps are noted.
        @param where: host and port, for the notes.
        @param resolves: whether a name is looked up first.
        @param tls: whether a TLS handshake follows.
        """
        self._endpoint = endpoint
        self._steps = steps
        self._where = where
        self._resolves = resolves
        self._tls = tls

    def connect(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IProtocol]:
        """See L{IStreamClientEndpoint}."""
        if self._resolves:
            self._steps.begin(DNS, self._where)
        self._steps.begin(TCP, self._where)
        return self._endpoint.connect(protocolFactory).addCallbacks(
            self._connected, self._failed
        )

    def _connected(self, protocol: IProtocol) -> IProtocol:
        if self._resolves:
            self._steps.succeeded(DNS, self._where)
        self._steps.succeeded(TCP, self._where)
        if self._tls:
            self._steps.begin(TLS, self._where)
        return protocol

    def _failed(self, failure: Failure) -> Failure:
        value = failure.value
        if isinstance(value, error.DNSLookupError):
            self._steps.failed(DNS, f"{self._where}: no such name")
        elif isinstance(value, error.ConnectionRefusedError | error.NoRouteError):
            # To be refused by a host one must know its address.
            if self._resolves:
                self._steps.succeeded(DNS, self._where)
            self._steps.failed(TCP, f"{self._where}: {reasonOf(failure)}")
        elif not isinstance(value, defer.CancelledError):
            self._steps.failed(TCP, f"{self._where}: {reasonOf(failure)}")
        return failure


def gaveUp(steps: StepLog, where: str, seconds: float) -> ControlUnreachable:
    """
    The error for an attempt that took too long; also notes where it hung.

    @param where: host and port.
    @param seconds: how long it was given.
    """
    text = f"{where}: no answer within {seconds:g} s"
    for name in (TLS, TCP):
        if steps.result(name) is StepResult.RUNNING:
            steps.failed(name, text)
            break
    return ControlUnreachable(f"{where} gave no answer within {seconds:g} s")


def reasonOf(failure: Failure) -> str:
    """Why a connection failed, in a few words."""
    value = failure.value
    if isinstance(value, ResponseNeverReceived) and value.reasons:
        return reasonOf(value.reasons[0])
    if isinstance(value, TSRTError):
        return str(value)
    if isinstance(value, error.DNSLookupError):
        return "its name cannot be resolved"
    if isinstance(value, error.ConnectionRefusedError):
        return "it refuses the connection"
    if isinstance(value, error.NoRouteError):
        return "there is no route to it"
    if isinstance(value, error.TimeoutError | defer.TimeoutError):
        return "it does not answer"
    if isinstance(value, error.ConnectionDone | error.ConnectionLost):
        return "it closed the connection"
    if isinstance(value, SSL.Error):
        return f"TLS failed ({_sslReason(value)})"
    return str(value) or type(value).__name__


def _sslReason(problem: SSL.Error) -> str:
    details = problem.args[0] if problem.args else ()
    if isinstance(details, list | tuple) and details:
        last = details[-1]
        if isinstance(last, tuple) and last:
            return str(last[-1])
    return str(details) or "no reason given"


def isTLSFailure(failure: Failure) -> bool:
    """Whether TLS is what failed."""
    value = failure.value
    if isinstance(value, ResponseNeverReceived):
        return any(isTLSFailure(reason) for reason in value.reasons)
    return isinstance(value, SSL.Error)


def unreachable(failure: Failure, where: str, steps: StepLog) -> ControlError:
    """
    Turn a failure to connect into an error that says what to look at.

    @param where: host and port.
    """
    value = failure.value
    if isinstance(value, ControlError):
        return value
    reason = reasonOf(failure)
    if isTLSFailure(failure):
        steps.failed(TLS, f"{where}: {reason}")
    return ControlUnreachable(f"{where} cannot be reached: {reason}")

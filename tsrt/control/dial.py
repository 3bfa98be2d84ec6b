"""
Getting a Noise connection to the control server through whatever network.

Plain HTTP on port 80 and TLS on port 443 race: one of the two gets through
where the other does not, and the Noise handshake makes both equally safe.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.control.noiselayer import NoiseLayer
from tsrt.control.race import AllFailed, race
from tsrt.control.reach import NotedEndpoint, gaveUp, isAddress, unreachable
from tsrt.control.steps import DNS, NOISE, TCP, TLS, StepLog
from tsrt.control.tlsoptions import NotedTLS
from tsrt.control.upgrade import UPGRADE_PATH, UpgradeProtocol
from tsrt.control.urls import ControlURL
from tsrt.crypto.noise import IKInitiator
from tsrt.errors import (
    ControlError,
    ControlUnreachable,
    UpgradeRefused,
    WrongControlKey,
)
from tsrt.interfaces import IStreamDialer
from tsrt.keys import MachineKey, MachinePublic
from tsrt.tailcfg import ControlDialCandidate, ControlDialPlan
from tsrt.tailcfg.capabilities import CAPABILITY_VERSION

_log = Logger(namespace="tsrt.control")

TLS_DELAY = 0.5
"""Seconds that plain HTTP is ahead of TLS."""

RECENT = 120.0
"""Seconds in which a redial of an C{https://} server leaves plain HTTP out."""

DIAL_TIMEOUT = 20.0
"""
Seconds for a dial without a plan: a name, a connection, TLS and Noise are
eight trips over a network that may need two seconds for each.
"""

LEAST_PLAN_TIMEOUT = 10.0
LONGEST_TIMEOUT = 60.0
"""Seconds that a dial plan may take."""

LARGEST_PLAN = 32
"""Candidates of a dial plan that are looked at."""


class _OneProtocol(Factory):
    """Builds the protocol that it is given."""

    noisy = False

    def __init__(self, protocol: UpgradeProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> UpgradeProtocol:
        return self._protocol


class ControlDialer:
    """
    Makes Noise connections to one control server.

    @ivar steps: where each step is noted.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        dialer: IStreamDialer,
        url: ControlURL,
        machineKey: MachineKey,
        *,
        randbytes: Callable[[int], bytes],
        steps: StepLog,
        version: int = CAPABILITY_VERSION,
        forceTLS: bool = False,
        timeout: float = DIAL_TIMEOUT,
    ) -> None:
        """
        @param reactor: the clock.
        @param dialer: makes the connections.
        @param url: the server.
        @param machineKey: who we are to the server.
        @param randbytes: the source of secret random bytes.
        @param steps: where each step is noted.
        @param version: our capability version.
        @param forceTLS: leave plain HTTP out, unless there is nothing else.
        @param timeout: seconds for a dial without a plan.
        """
        self._reactor = reactor
        self._dialer = dialer
        self._url = url
        self._machineKey = machineKey
        self._randbytes = randbytes
        self._version = version
        self._forceTLS = forceTLS
        self._timeout = timeout
        self._lastDial: float | None = None
        self._candidates: tuple[ControlDialCandidate, ...] = ()
        self.steps = steps

    def setDialPlan(self, plan: ControlDialPlan) -> None:
        """
        Take the server's advice on how to reach it from the next dial on.

        @param plan: one without candidates means DNS, as in the beginning.
        """
        usable = []
        for candidate in (plan.candidates or ())[:LARGEST_PLAN]:
            if isAddress(candidate.ip or ""):
                usable.append(candidate)
            else:
                # An ACE host would be an HTTPS proxy of the server's choice.
                _log.info(
                    "the dial plan of the control server names {what}, which is "
                    "not supported; left out",
                    what=candidate.aceHost or candidate.ip or "nothing",
                )
        self._candidates = tuple(usable)

    def dial(self, serverKey: MachinePublic) -> Deferred[NoiseLayer]:
        """
        Connect.

        @param serverKey: the key that the server published.
        @return: fires with a connection whose handshake is complete; attach a
            protocol at once.  It fails with L{WrongControlKey},
            L{UpgradeRefused}, L{ControlUnreachable} or another
            L{ControlError}, which names the ways that were tried.
        """
        return Deferred.fromCoroutine(self._dial(serverKey))

    async def _dial(self, serverKey: MachinePublic) -> NoiseLayer:
        now = self._reactor.seconds()
        recent = self._lastDial is not None and now - self._lastDial < RECENT
        self._lastDial = now
        tlsOnly = self._forceTLS or (recent and self._url.plainIsSecondChoice)
        self.steps.newRound((DNS, TCP, TLS, NOISE))
        if self._candidates:
            try:
                return await self._dialPlan(serverKey, tlsOnly)
            except ControlError as error:
                _log.info(
                    "the dial plan of the control server leads nowhere "
                    "({error}); asking DNS",
                    error=str(error),
                )
        return await self._dialHost(serverKey, tlsOnly, None, self._timeout)

    async def _dialPlan(self, serverKey: MachinePublic, tlsOnly: bool) -> NoiseLayer:
        longest = max(
            (candidate.dialStartDelaySec or 0.0) + (candidate.dialTimeoutSec or 0.0)
            for candidate in self._candidates
        )
        total = min(max(longest + 5, LEAST_PLAN_TIMEOUT), LONGEST_TIMEOUT)
        starts = [
            (
                min(max(candidate.dialStartDelaySec or 0.0, 0.0), LONGEST_TIMEOUT),
                partial(
                    self._startHost,
                    serverKey,
                    tlsOnly,
                    candidate.ip or "",
                    candidate.dialTimeoutSec or total,
                ),
            )
            for candidate in self._candidates
        ]
        return await self._limited(
            race(self._reactor, starts, hasten=False), total, "the dial plan"
        )

    def _startHost(
        self, serverKey: MachinePublic, tlsOnly: bool, address: str, timeout: float
    ) -> Deferred[NoiseLayer]:
        return Deferred.fromCoroutine(
            self._dialHost(serverKey, tlsOnly, address, timeout)
        )

    async def _dialHost(
        self,
        serverKey: MachinePublic,
        tlsOnly: bool,
        address: str | None,
        timeout: float,
    ) -> NoiseLayer:
        """Race plain HTTP and TLS to the host, or to one address of it."""
        plain = partial(self._attempt, serverKey, "http", self._url.plainPort, address)
        starts: list[tuple[float, Callable[[], Deferred[NoiseLayer]]]] = []
        tlsPort = self._url.tlsPort
        if tlsPort is None or not tlsOnly:
            starts.append((0.0, plain))
        if tlsPort is not None:
            tls = partial(self._attempt, serverKey, "https", tlsPort, address)
            starts.append((TLS_DELAY if starts else 0.0, tls))
        return await self._limited(
            race(self._reactor, starts, hasten=True), timeout, self._url.text
        )

    async def _limited(
        self, attempt: Deferred[NoiseLayer], timeout: float, where: str
    ) -> NoiseLayer:
        attempt.addTimeout(timeout, self._reactor)
        try:
            return await attempt
        except AllFailed as error:
            raise _worst(error.failures) from None
        except TimeoutError:
            raise gaveUp(self.steps, where, timeout) from None

    def _attempt(
        self,
        serverKey: MachinePublic,
        scheme: str,
        port: int,
        address: str | None,
    ) -> Deferred[NoiseLayer]:
        return Deferred.fromCoroutine(self._upgrade(serverKey, scheme, port, address))

    async def _upgrade(
        self,
        serverKey: MachinePublic,
        scheme: str,
        port: int,
        address: str | None,
    ) -> NoiseLayer:
        """Connect in one way, ask for the upgrade, and shake hands."""
        host = self._url.host
        tls = NotedTLS(host, self._dialer.trustRoot) if scheme == "https" else None
        target = ControlURL(scheme, host, port)
        where = target.text if address is None else f"{target.text} ({address})"
        endpoint = NotedEndpoint(
            self._dialer.endpoint(host, port, tls, address),
            self.steps,
            where,
            resolves=address is None and not isAddress(host),
            tls=tls is not None,
        )
        # Each attempt has an ephemeral key of its own: they must not mix.
        initiator = IKInitiator(
            self._machineKey, serverKey, self._version, self._randbytes
        )
        protocol = UpgradeProtocol(
            initiator,
            authority=target.authority,
            path=self._url.prefix + UPGRADE_PATH,
            where=where,
            steps=self.steps,
            tls=tls,
        )
        try:
            await endpoint.connect(_OneProtocol(protocol))
        except (ControlError, CancelledError):
            raise
        except Exception:
            raise unreachable(_current(), where, self.steps) from None
        return await protocol.done


def _current() -> Failure:
    """The exception that is being handled."""
    return Failure()


def _worst(failures: tuple[Failure, ...]) -> ControlError:
    """
    One error for several attempts: the one that got furthest speaks.

    Of two that got equally far the last one does, which is the one with TLS.
    """
    errors = [
        failure.value
        if isinstance(failure.value, ControlError)
        else ControlUnreachable(failure.getErrorMessage())
        for failure in failures
    ]
    ranks = (WrongControlKey, UpgradeRefused)

    def rank(error: ControlError) -> int:
        for position, kind in enumerate(ranks):
            if isinstance(error, kind):
                return position
        return len(ranks) + isinstance(error, ControlUnreachable)

    best = min(reversed(errors), key=rank)
    others = [str(error) for error in errors if error is not best]
    if not others:
        return best
    message = f"{best}; before that, {'; '.join(others)}"
    result = type(best)(message)
    result.advice = best.advice
    return result

"""
Checking the network: now and then, and when something has changed.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.addresses import AddrPort
from tsrt.errors import NotRunning
from tsrt.interfaces import IStreamDialer
from tsrt.path.home import HomeRegion
from tsrt.path.netcheck import ENOUGH_REGIONS, FULL_EVERY, Report, ReportBuilder
from tsrt.path.probes import fullPlan, incrementalPlan, measuredRegions
from tsrt.tailcfg import DERPMap, DERPRegion
from tsrt.underlay.socket import UnderlaySocket

_log = Logger(namespace="tsrt.netcheck")

SHORTEST_PERIOD = 20.0
LONGEST_PERIOD = 26.0
"""Seconds between two checks while the node is active."""

HTTPSLatency = Callable[[IReactorTime, IStreamDialer, DERPRegion], Deferred[float]]
"""Measures by HTTPS how far away a region is, in seconds."""


PortalProbe = Callable[[DERPMap, int], Deferred[bool | None]]
"""Finds out whether there is a captive portal, given the home region, or 0."""


class NetcheckService(Service):
    """
    Measures the relays, and decides which of them is the home.

    A check runs when the relay map changes, when the network changes, every
    now and then while the node is active, and when somebody asks for it.

    @ivar last: the last report.
    @ivar home: decides about the home region; nobody else does.
    """

    name = "netcheck"

    def __init__(
        self,
        reactor: IReactorTime,
        socket: UnderlaySocket,
        dialer: IStreamDialer,
        *,
        randbytes: Callable[[int], bytes],
        onReport: Callable[[Report], object],
        httpsLatency: HTTPSLatency | None = None,
        findPortal: PortalProbe | None = None,
        enough: int = ENOUGH_REGIONS,
        lastHeard: Callable[[int], float | None] = lambda region: None,
        isActive: Callable[[], bool] = lambda: True,
        mayChangeHome: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        @param socket: where STUN is spoken; the mapping of a NAT that matters
            is that of this socket.
        @param dialer: for measuring by HTTPS.
        @param randbytes: the source of randomness.
        @param onReport: told of each report.
        @param httpsLatency: how to measure where no STUN server answers; C{None}
            to do without.
        @param findPortal: looks for a captive portal where no STUN server
            answers; C{None} to do without.
        @param enough: how many regions must have answered before a check may
            end early.
        @param lastHeard: when the relay of a region last sent a frame, in
            seconds of the reactor.
        @param isActive: whether the periodic checks are worth while.
        @param mayChangeHome: whether peers could be told of another home.
        """
        self.last: Report | None = None
        self.home = HomeRegion(int.from_bytes(randbytes(4), "big"))
        self._reactor = reactor
        self._socket = socket
        self._dialer = dialer
        self._randbytes = randbytes
        self._onReport = onReport
        self._httpsLatency = httpsLatency
        self._findPortal = findPortal
        self._enough = enough
        self._lastHeard = lastHeard
        self._isActive = isActive
        self._mayChangeHome = mayChangeHome
        self._map = DERPMap()
        self._lastFull: float | None = None
        self._builder: ReportBuilder | None = None
        self._isFull = False
        self._again = False
        self._waiting: list[Deferred[Report]] = []
        self._waitingNext: list[Deferred[Report]] = []
        self._measuring: set[Deferred[None]] = set()
        self._timer: IDelayedCall | None = None
        self._period: IDelayedCall | None = None

    # -- the service -------------------------------------------------------------

    def startService(self) -> None:
        """Begin to check, if there is a map."""
        Service.startService(self)
        self._socket.onSTUN = self._stunReceived
        self._schedule()
        if self._map.regions:
            self._begin(isFull=True)

    def stopService(self) -> None:
        """Check nothing any more; who waits for a report is told so."""
        Service.stopService(self)
        self._socket.onSTUN = None
        self._cancel()
        if self._period is not None and self._period.active():
            self._period.cancel()
        self._period = None
        self._again = False
        waiting = self._waiting + self._waitingNext
        self._waiting, self._waitingNext = [], []
        for deferred in waiting:
            deferred.errback(Failure(NotRunning("network checks have been stopped")))

    def setMap(self, derpMap: DERPMap) -> None:
        """Take a new relay map; one that differs is measured at once."""
        if derpMap == self._map:
            return
        self._map = derpMap
        if self.running:
            self._request(isFull=True)

    def networkChanged(self) -> None:
        """The addresses of this machine have changed: measure everything."""
        if self.running:
            self._request(isFull=True)

    def check(self, isFull: bool = False) -> Deferred[Report]:
        """
        Check the network, now or together with a check that is running.

        @param isFull: whether every region is to be asked.
        @return: fires with the report; fails with L{NotRunning}.
        """
        if not self.running:
            return fail(NotRunning("network checks are not running"))
        result: Deferred[Report] = Deferred(self._forget)
        if self._builder is not None and isFull and not self._isFull:
            self._waitingNext.append(result)
        else:
            self._waiting.append(result)
        self._request(isFull)
        return result

    def _forget(self, deferred: Deferred[Report]) -> None:
        for waiting in (self._waiting, self._waitingNext):
            if deferred in waiting:
                waiting.remove(deferred)

    def _request(self, isFull: bool) -> None:
        if self._builder is None:
            self._begin(isFull)
        elif isFull:
            # What is being measured may be of the past already.
            self._again = True

    def _schedule(self) -> None:
        span = LONGEST_PERIOD - SHORTEST_PERIOD
        fraction = int.from_bytes(self._randbytes(2), "big") / 65536
        self._period = self._reactor.callLater(
            SHORTEST_PERIOD + span * fraction, self._periodic
        )

    def _periodic(self) -> None:
        self._schedule()
        if self._builder is None and self._map.regions and self._isActive():
            self._begin(isFull=False)

    # -- one check ---------------------------------------------------------------

    def _begin(self, isFull: bool) -> None:
        now = self._reactor.seconds()
        last = self.last
        isStale = self._lastFull is None or now - self._lastFull >= FULL_EVERY
        if last is None or isStale or (last.captivePortal and not last.udp):
            isFull = True
        families = tuple(family for family in (4, 6) if self._socket.has(family))
        if isFull or last is None:
            plan = fullPlan(self._map, families)
        else:
            plan = incrementalPlan(
                self._map,
                last.latencies,
                self.home.region,
                families=families,
                had4=last.ipv4,
                had6=last.ipv6,
            )
        self._isFull = isFull
        self._builder = ReportBuilder(
            plan,
            now,
            randbytes=self._randbytes,
            isFull=isFull,
            canHTTPS=self._httpsLatency is not None,
            enough=self._enough,
        )
        self._step()

    def _step(self) -> None:
        self._timer = None
        builder = self._builder
        if builder is None:
            return
        now = self._reactor.seconds()
        for server, request in builder.due(now):
            if self._socket.send([request], server):
                builder.sent(server)
            else:
                builder.notSent(server)
        if builder.needsPortalCheck(now):
            self._lookForPortal(builder)
        if builder.needsHTTPS(now):
            self._measureAll(builder)
        if builder.isDone(now):
            self._finish(builder, now)
            return
        self._rearm(builder.deadline(now) - now)

    def _rearm(self, delay: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        # Rounding must not make it fire just too soon, again and again.
        self._timer = self._reactor.callLater(max(0.001, delay), self._step)

    def _stunReceived(self, datagram: bytes, source: AddrPort) -> None:
        builder = self._builder
        if builder is None:
            return
        now = self._reactor.seconds()
        if builder.received(datagram, source, now):
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._step()

    def _measureAll(self, builder: ReportBuilder) -> None:
        measure = self._httpsLatency
        if measure is None:
            return
        measuring: list[Deferred[None]] = []
        for number, region in measuredRegions(self._map).items():
            deferred = maybeDeferred(measure, self._reactor, self._dialer, region)
            measuring.append(
                deferred.addCallbacks(
                    lambda latency, number=number: builder.measured(number, latency),
                    lambda failure, number=number: _log.debug(
                        "relay {region} cannot be measured: {reason}",
                        region=number,
                        reason=failure.getErrorMessage(),
                    ),
                )
            )
        self._measuring.update(measuring)

        def over(_: object) -> None:
            self._measuring.difference_update(measuring)
            builder.httpsOver()
            if self._builder is builder:
                self._rearm(0.0)

        DeferredList(measuring).addCallback(over)

    def _lookForPortal(self, builder: ReportBuilder) -> None:
        find = self._findPortal
        if find is None:
            return
        looking: Deferred[None] = maybeDeferred(
            find, self._map, self.home.region
        ).addCallbacks(
            builder.portalChecked,
            lambda failure: _log.debug(
                "no look for a captive portal: {reason}",
                reason=failure.getErrorMessage(),
            ),
        )
        self._measuring.add(looking)
        looking.addBoth(lambda _: self._measuring.discard(looking))

    def _cancel(self) -> None:
        self._builder = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        for measuring in list(self._measuring):
            measuring.cancel()

    def _finish(self, builder: ReportBuilder, now: float) -> None:
        self._cancel()
        report = builder.report(now)
        if report.isFull:
            self._lastFull = builder.began
        params = self._map.homeParams
        home = self.home.choose(
            report.latencies,
            measuredRegions(self._map),
            now,
            began=builder.began,
            lastHeard=self._lastHeard,
            scores=params.regionScore if params is not None else None,
            mayChange=self._mayChangeHome(),
        )
        report = report.withHome(home)
        self.last = report
        waiting, self._waiting = self._waiting, self._waitingNext
        self._waitingNext = []
        try:
            self._onReport(report)
        except Exception:
            _log.failure("a report on the network could not be handled")
        for deferred in waiting:
            deferred.callback(report)
        again, self._again = self._again, False
        if again and self.running and self._builder is None:
            self._begin(isFull=True)

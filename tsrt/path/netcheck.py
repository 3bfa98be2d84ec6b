"""
A check of the network: does UDP work, what does a NAT make of us, how far away
is each relay.

L{ReportBuilder} is told of everything that happens and says what to do next;
whoever drives it sends its questions and measures by HTTPS when it asks for
that.  Each probe and the whole check have a deadline: no server that hangs
keeps a result from coming.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from attrs import define, evolve, field, frozen

from tsrt.addresses import AddrPort
from tsrt.errors import WireError
from tsrt.path.probes import Probe, ProbeSet
from tsrt.wire import stun

REPORT_TIMEOUT = 5.0
"""Seconds that a whole check may take."""

STUN_TIMEOUT = 3.0
"""Seconds after which no STUN answer is waited for any more."""

ENOUGH_REGIONS = 3
"""How many regions must have answered before a check may end early."""

PORTAL_DELAY = 0.2
"""Seconds without any answer after which a captive portal is thought of."""

FULL_EVERY = 5 * 60.0
"""Seconds after which a check asks every region again."""


@frozen(kw_only=True)
class Report:
    """
    What a check found out.

    @ivar when: when it ended, in seconds.
    @ivar isFull: whether every region was asked.
    @ivar udp: whether any STUN server answered.
    @ivar ipv4: whether one answered over IPv4; C{ipv6} likewise.
    @ivar ipv4CanSend: whether the system took a question over IPv4;
        C{ipv6CanSend} likewise.
    @ivar mappingVaries: whether a NAT gives us another address towards each
        server; C{None} when fewer than two have answered.
    @ivar globalIPv4: our address as a server saw it; C{globalIPv6} likewise.
    @ivar seen: all addresses that servers saw, and how often.
    @ivar latencies: seconds by region, the best of all families; C{latencies4}
        and C{latencies6} by family.
    @ivar usedHTTPS: whether the latencies were measured by HTTPS.
    @ivar captivePortal: whether this network lets nobody out before a login
        page; C{None}: there was no reason to look, or nobody to ask.
    @ivar preferredRegion: the home region that follows, or 0.
    """

    when: float
    isFull: bool = True
    udp: bool = False
    ipv4: bool = False
    ipv6: bool = False
    ipv4CanSend: bool = False
    ipv6CanSend: bool = False
    mappingVaries: bool | None = None
    globalIPv4: AddrPort | None = None
    globalIPv6: AddrPort | None = None
    seen: dict[AddrPort, int] = field(factory=dict)
    latencies: dict[int, float] = field(factory=dict)
    latencies4: dict[int, float] = field(factory=dict)
    latencies6: dict[int, float] = field(factory=dict)
    usedHTTPS: bool = False
    captivePortal: bool | None = None
    preferredRegion: int = 0

    @property
    def mapped(self) -> tuple[AddrPort, ...]:
        """L{seen}, the one seen most often first, IPv4 before IPv6."""
        seen = self.seen
        return tuple(sorted(seen, key=lambda a: (len(a.address), -seen[a])))

    def withHome(self, region: int) -> Report:
        """The same with a home region."""
        return evolve(self, preferredRegion=region)

    def latencyKeys(self) -> dict[str, float]:
        """The latencies as the control server is told of them."""
        keys = {f"{n}-v4": seconds for n, seconds in self.latencies4.items()}
        keys |= {f"{n}-v6": seconds for n, seconds in self.latencies6.items()}
        return keys


@define
class _Flight:
    """A question that was asked."""

    probe: Probe
    group: ProbeSet
    sent: float


class ReportBuilder:
    """
    Drives one check.

    First STUN; if nothing at all answers, latencies by HTTPS.  The caller
    sends what L{due} returns, hands on what comes to L{received}, and looks
    again at the time that L{deadline} says.
    """

    def __init__(
        self,
        plan: list[ProbeSet],
        now: float,
        *,
        randbytes: Callable[[int], bytes],
        isFull: bool = True,
        canHTTPS: bool = True,
        enough: int = ENOUGH_REGIONS,
    ) -> None:
        """
        @param plan: whom to ask.
        @param now: when the check begins, in seconds.
        @param randbytes: the source of randomness, for the transactions.
        @param isFull: whether the plan has every region.
        @param canHTTPS: whether the caller can measure by HTTPS.
        @param enough: how many regions must have answered to end early.
        """
        self.began = now
        self.unknown = 0
        self._plan = plan
        self._randbytes = randbytes
        self._isFull = isFull
        self._canHTTPS = canHTTPS
        self._enough = enough
        self._sent: set[int] = set()
        self._portalBegan = False
        self._portal: bool | None = None
        self._flights: dict[bytes, _Flight] = {}
        self._latencies: dict[int, dict[int, float]] = {4: {}, 6: {}}
        self._https: dict[int, float] = {}
        self._mapped: dict[int, AddrPort] = {}
        self._seen: Counter[AddrPort] = Counter()
        self._mappedBy: AddrPort | None = None
        self._mappingVaries: bool | None = None
        self._enoughAt: float | None = None
        self._httpsBegan = False
        self._httpsOver = False

    # -- STUN --------------------------------------------------------------------

    def due(self, now: float) -> list[tuple[AddrPort, bytes]]:
        """
        What to send now: requests and the servers to send them to.

        Questions whose answer could not teach anything are passed over.
        """
        requests: list[tuple[AddrPort, bytes]] = []
        if self.isSTUNOver(now):
            return requests
        for group in self._plan:
            while group.waiting and now >= self.began + group.waiting[0].delay:
                probe = group.waiting.pop(0)
                if group.isAnswered or not self._wouldHelp(probe):
                    continue
                txid = self._randbytes(stun.TXID_LENGTH)
                self._flights[txid] = _Flight(probe, group, now)
                requests.append((probe.server, stun.buildRequest(txid)))
        return requests

    def _wouldHelp(self, probe: Probe) -> bool:
        if all(probe.regionID not in known for known in self._latencies.values()):
            return True
        if probe.family == 6:
            return not self._latencies[6]
        return self._mappingVaries is None

    def notSent(self, server: AddrPort) -> None:
        """The system did not take a request; the next try may fare better."""
        for txid in [t for t, f in self._flights.items() if f.probe.server == server]:
            del self._flights[txid]

    def sent(self, server: AddrPort) -> None:
        """The system took a request."""
        self._sent.add(len(server.address))

    def received(self, datagram: bytes, source: AddrPort, now: float) -> bool:
        """
        Take a STUN datagram.

        Only the answer to a question of ours teaches anything, only once, and
        only if it comes from whom we asked.

        @param source: where it came from.
        @return: whether it was one.
        """
        try:
            txid, mapped = stun.parseResponse(datagram)
        except WireError:
            self.unknown += 1
            return False
        flight = self._flights.get(txid)
        if flight is None or source != flight.probe.server:
            self.unknown += 1
            return False
        del self._flights[txid]
        probe = flight.probe
        if now - self.began > REPORT_TIMEOUT:
            self.unknown += 1
            return False
        if (len(mapped.address) == 4) != (probe.family == 4) or not mapped.port:
            self.unknown += 1
            return False
        flight.group.isAnswered = True
        known = self._latencies[probe.family]
        latency = max(0.0, now - flight.sent)
        known[probe.regionID] = min(latency, known.get(probe.regionID, latency))
        self._noteMapping(probe, mapped)
        self._noteEnough(now)
        return True

    def _noteMapping(self, probe: Probe, mapped: AddrPort) -> None:
        first = self._mapped.setdefault(probe.family, mapped)
        self._seen[mapped] += 1
        if probe.family != 4:
            return
        if self._mappedBy is None:
            self._mappedBy = probe.server
        elif probe.server != self._mappedBy:
            # Once seen to vary it varies, whatever others say.
            self._mappingVaries = bool(self._mappingVaries) or mapped != first

    def _noteEnough(self, now: float) -> None:
        answered = self._latencies[4].keys() | self._latencies[6].keys()
        if self._enoughAt is not None or len(answered) < self._enough:
            return
        # Those that are not much farther away get their chance.
        largest = max(
            max(known.values(), default=0.0) for known in self._latencies.values()
        )
        self._enoughAt = now + largest * (2 if self._isFull else 1)

    def _hasUDP(self) -> bool:
        return bool(self._latencies[4] or self._latencies[6])

    def isSTUNOver(self, now: float) -> bool:
        """Whether no more is to be learnt by STUN."""
        if now >= self.began + STUN_TIMEOUT:
            return True
        if self._enoughAt is not None and now >= self._enoughAt:
            return True
        return all(
            group.isAnswered or not (group.waiting or self._isInFlight(group))
            for group in self._plan
        )

    def _isInFlight(self, group: ProbeSet) -> bool:
        return any(flight.group is group for flight in self._flights.values())

    # -- HTTPS -------------------------------------------------------------------

    def needsHTTPS(self, now: float) -> bool:
        """
        Whether it is time to measure by HTTPS; true once.

        After that the caller measures, tells L{measured} of each region, and
        calls L{httpsOver} when it has no more to tell.
        """
        if (
            not self._canHTTPS
            or self._httpsBegan
            or self._hasUDP()
            or not self.isSTUNOver(now)
        ):
            return False
        self._httpsBegan = True
        return True

    def measured(self, regionID: int, latency: float) -> None:
        """
        A region was measured by HTTPS.

        @param latency: in seconds.
        """
        self._https[regionID] = latency

    def httpsOver(self) -> None:
        """No more will be measured by HTTPS."""
        self._httpsOver = True

    # -- captive portals -----------------------------------------------------------

    def needsPortalCheck(self, now: float) -> bool:
        """
        Whether to look for a captive portal; true once.

        Whoever has had an answer from outside is behind none.
        """
        if (
            not self._isFull
            or self._portalBegan
            or self._hasUDP()
            or now < self.began + PORTAL_DELAY
        ):
            return False
        self._portalBegan = True
        return True

    def portalChecked(self, isThere: bool | None) -> None:
        """
        There is a captive portal, or not.

        @param isThere: C{None}: nobody could be asked.
        """
        self._portal = isThere

    # -- the end -----------------------------------------------------------------

    def isDone(self, now: float) -> bool:
        """Whether the report can be had."""
        if now >= self.began + REPORT_TIMEOUT:
            return True
        if not self.isSTUNOver(now):
            return False
        return self._hasUDP() or not self._canHTTPS or self._httpsOver

    def deadline(self, now: float) -> float:
        """
        When to look again even if nothing comes until then.

        @param now: in seconds; what is due by now has been asked for.
        """
        times = [self.began + REPORT_TIMEOUT]
        if self._isFull and now < self.began + PORTAL_DELAY:
            times.append(self.began + PORTAL_DELAY)
        if not self.isSTUNOver(now):
            times.append(self.began + STUN_TIMEOUT)
            if self._enoughAt is not None:
                times.append(self._enoughAt)
            times += [
                self.began + group.waiting[0].delay
                for group in self._plan
                if group.waiting
            ]
        return min(times)

    def report(self, now: float) -> Report:
        """What was found out so far."""
        latencies: dict[int, float] = {}
        for known in (*self._latencies.values(), self._https):
            for region, latency in known.items():
                latencies[region] = min(latency, latencies.get(region, latency))
        return Report(
            when=now,
            isFull=self._isFull,
            udp=self._hasUDP(),
            ipv4=bool(self._latencies[4]),
            ipv6=bool(self._latencies[6]),
            ipv4CanSend=4 in self._sent,
            ipv6CanSend=16 in self._sent,
            mappingVaries=self._mappingVaries,
            globalIPv4=self._mapped.get(4),
            globalIPv6=self._mapped.get(6),
            seen=dict(self._seen),
            latencies=latencies,
            # The server that answered an HTTPS check may have any address.
            latencies4=self._latencies[4] or dict(self._https),
            latencies6=dict(self._latencies[6]),
            usedHTTPS=bool(self._https),
            captivePortal=self._portal,
        )

"""
What a L{Stack<tsrt.netstack.stack.Stack>} may hold, and what it counts.

Everything that a remote node can make grow has a bound here, and everything
that is dropped at a bound has a counter.
"""

from __future__ import annotations

from attrs import field, frozen, validators

from tsrt.counters import Counters

_count = validators.gt(0)
_amount = validators.gt(0.0)


@frozen(kw_only=True)
class StackLimits:
    """
    Bounds of one stack.  Times are in seconds, sizes in bytes.

    @ivar flows: TCP flows in any state, half-open ones included.  One that is idle
        takes 5 kB, so that all of them take 80 MB; what is not read of one comes on
        top of that, 64 kB at first.  A stranger alone cannot fill the table: there
        are the bounds of each listener, and its backlog, below which an application
        has to take flows.
    @ivar halfOpen: half-open flows of one listener.
    @ivar halfOpenPerRemote: half-open flows of one listener with one remote
        address, so that one peer alone cannot fill the backlog.
    @ivar halfOpenTimeout: how long a remote may take to finish a handshake.
    @ivar bindings: UDP bindings and TCP listeners, each.
    @ivar datagramQueue: datagrams that wait for the application of a binding.
    @ivar datagramQueueBytes: bytes of the same.
    @ivar errorQueue: ICMP errors that wait for the application of a binding.
    @ivar outbox: UDP and ICMP packets that wait for the next drain.
    @ivar loopback: packets to ourselves that one drain delivers.
    @ivar loopbackQueue: packets to ourselves that wait.
    @ivar reassemblies: datagrams being put together at a time.
    @ivar reassembliesPerSource: the same for one remote address.
    @ivar reassemblyBytes: bytes of all fragments held.
    @ivar reassemblyTimeout4: how long IPv4 fragments wait for the others.
    @ivar reassemblyTimeout6: how long IPv6 fragments do (RFC 8200 4.5).
    @ivar echoRate: echo replies a second; C{echoBurst} at once.
    @ivar errorRate: ICMP errors a second that we send; C{errorBurst} at once.
    @ivar resetRate: resets a second for segments without a flow;
        C{resetBurst} at once.
    @ivar pings: pings under way.
    @ivar pathMTUs: remote addresses whose path MTU is remembered.
    @ivar pathMTULifetime: how long it is believed (RFC 1191 6.3).
    """

    flows: int = field(default=16384, validator=_count)
    halfOpen: int = field(default=256, validator=_count)
    halfOpenPerRemote: int = field(default=64, validator=_count)
    halfOpenTimeout: float = field(default=60.0, validator=_amount)
    bindings: int = field(default=2048, validator=_count)
    datagramQueue: int = field(default=256, validator=_count)
    datagramQueueBytes: int = field(default=1 << 18, validator=_count)
    errorQueue: int = field(default=16, validator=_count)
    outbox: int = field(default=2048, validator=_count)
    loopback: int = field(default=1024, validator=_count)
    loopbackQueue: int = field(default=4096, validator=_count)
    reassemblies: int = field(default=64, validator=_count)
    reassembliesPerSource: int = field(default=16, validator=_count)
    reassemblyBytes: int = field(default=1 << 20, validator=_count)
    reassemblyTimeout4: float = field(default=30.0, validator=_amount)
    reassemblyTimeout6: float = field(default=60.0, validator=_amount)
    echoRate: float = field(default=200.0, validator=_amount)
    echoBurst: float = field(default=100.0, validator=_amount)
    errorRate: float = field(default=50.0, validator=_amount)
    errorBurst: float = field(default=50.0, validator=_amount)
    resetRate: float = field(default=1000.0, validator=_amount)
    resetBurst: float = field(default=500.0, validator=_amount)
    pings: int = field(default=256, validator=_count)
    pathMTUs: int = field(default=256, validator=_count)
    pathMTULifetime: float = field(default=600.0, validator=_amount)


DEFAULT_LIMITS = StackLimits()
"""The limits of a stack when nobody says otherwise."""


class RateLimiter:
    """
    A bucket of tokens that fills with time.

    One token pays for one message.
    """

    __slots__ = ("_burst", "_last", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        """
        @param rate: tokens a second.
        @param burst: most tokens that the bucket holds; it begins full.
        """
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._last: float | None = None

    def allow(self, now: float) -> bool:
        """Take a token, if there is one."""
        last = self._last
        if last is not None and now > last:
            self._tokens = min(self._burst, self._tokens + (now - last) * self._rate)
        self._last = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class StackCounters(Counters):
    """
    What a stack counted since it was made.

    C{received} and C{sent} count packets that crossed its border; names that
    begin with C{dropped} are packets that came to nothing, by reason.
    """

    __slots__ = (
        "datagramsDelivered",
        "datagramsSent",
        "droppedBacklog",
        "droppedBadSource",
        "droppedChecksum",
        "droppedDatagramQueue",
        "droppedErrorQueue",
        "droppedFlowLimit",
        "droppedFragmentLimit",
        "droppedFragmentOverlap",
        "droppedFragmentTimeout",
        "droppedFragmentWrong",
        "droppedHalfOpen",
        "droppedICMPUnmatched",
        "droppedLoopbackQueue",
        "droppedMalformed",
        "droppedNoBinding",
        "droppedNoFlow",
        "droppedNoSource",
        "droppedNotLocal",
        "droppedOutbox",
        "droppedProtocol",
        "droppedRateEcho",
        "droppedRateError",
        "droppedRateReset",
        "droppedTooLarge",
        "echoReplies",
        "errorsReceived",
        "errorsSent",
        "flowsAccepted",
        "flowsOpened",
        "flowsRetired",
        "loopedBack",
        "reassembled",
        "received",
        "resetsSent",
        "sent",
    )
    datagramsDelivered: int
    datagramsSent: int
    droppedBacklog: int
    droppedBadSource: int
    droppedChecksum: int
    droppedDatagramQueue: int
    droppedErrorQueue: int
    droppedFlowLimit: int
    droppedFragmentLimit: int
    droppedFragmentOverlap: int
    droppedFragmentTimeout: int
    droppedFragmentWrong: int
    droppedHalfOpen: int
    droppedICMPUnmatched: int
    droppedLoopbackQueue: int
    droppedMalformed: int
    droppedNoBinding: int
    droppedNoFlow: int
    droppedNoSource: int
    droppedNotLocal: int
    droppedOutbox: int
    droppedProtocol: int
    droppedRateEcho: int
    droppedRateError: int
    droppedRateReset: int
    droppedTooLarge: int
    echoReplies: int
    errorsReceived: int
    errorsSent: int
    flowsAccepted: int
    flowsOpened: int
    flowsRetired: int
    loopedBack: int
    reassembled: int
    received: int
    resetsSent: int
    sent: int

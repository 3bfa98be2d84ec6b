"""
ICMP and ICMPv6: answering echoes, sending pings, reporting closed ports, and
reading the errors that routers and hosts send back.

Reference: RFC 792, RFC 1122 section 3.2.2, RFC 4443, RFC 1812 section 4.3.2.8
(rate limits).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from tsrt.errors import NoFreePort, WireError
from tsrt.netstack.egress import Egress
from tsrt.netstack.icmperrors import (
    NetworkError,
    Trouble,
    buildPortUnreachable,
    readError,
)
from tsrt.netstack.limits import RateLimiter, StackCounters, StackLimits
from tsrt.netstack.ports import AddressNotAvailable
from tsrt.netstack.ready import DeadlineHeap, ReadyList
from tsrt.wire.icmp import (
    V4_ECHO_REPLY,
    V4_ECHO_REQUEST,
    V6_ECHO_REPLY,
    V6_ECHO_REQUEST,
    ICMPMessage,
    buildICMP,
    parseICMP,
    verifyICMP,
)
from tsrt.wire.ip import PROTOCOL_ICMP, PROTOCOL_ICMPV6, IPHeader

MAX_PING = 65507
"""Most bytes that a ping can carry."""


class PingFailure(enum.Enum):
    """Why a ping got no answer."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    CANCELLED = "cancelled"


class Ping:
    """
    One echo request and what became of it.

    @ivar owner: for the application; the stack never looks at it.
    @ivar remote: packed address of who is asked.
    @ivar local: packed address that asks.
    @ivar ident: the identifier, which no other ping under way has.
    @ivar roundTrip: seconds until the reply came; L{None} before.
    @ivar failure: why none will come; L{None} before and after a reply.
    """

    __slots__ = (
        "_echo",
        "_expires",
        "failure",
        "ident",
        "local",
        "owner",
        "payload",
        "remote",
        "roundTrip",
        "sentAt",
        "sequence",
    )

    def __init__(
        self,
        echo: Echo,
        local: bytes,
        remote: bytes,
        ident: int,
        payload: bytes,
        now: float,
        timeout: float,
    ) -> None:
        self.owner: object | None = None
        self.local = local
        self.remote = remote
        self.ident = ident
        self.sequence = 1
        self.payload = payload
        self.sentAt = now
        self.roundTrip: float | None = None
        self.failure: PingFailure | None = None
        self._expires = now + timeout
        self._echo = echo

    def __repr__(self) -> str:
        if self.failure is not None:
            state = self.failure.value
        elif self.roundTrip is not None:
            state = f"{self.roundTrip * 1000:.1f} ms"
        else:
            state = "waiting"
        return f"<Ping ident={self.ident} {state}>"

    @property
    def answered(self) -> bool:
        """Whether the reply came."""
        return self.roundTrip is not None

    @property
    def done(self) -> bool:
        """Whether the ping was answered or given up."""
        return self.roundTrip is not None or self.failure is not None

    def deadline(self) -> float | None:
        """When the ping is given up."""
        return None if self.done else self._expires

    def close(self) -> None:
        """Give the ping up; nothing happens if it is done."""
        self._echo.finish(self, PingFailure.CANCELLED)


class EchoRequest(NamedTuple):
    """
    An echo request to an address that is not the node's own.

    @ivar remote: packed address of who asks.
    @ivar local: packed address of who is asked.
    @ivar rest: identifier and sequence number, as one number.
    """

    remote: bytes
    local: bytes
    rest: int
    payload: bytes


EchoFallback: TypeAlias = Callable[[EchoRequest], object]


class Echo:
    """
    Answers echo requests and sends our own.

    @ivar fallback: who answers for addresses that are not ours; L{None} has us
        answer for them.
    """

    __slots__ = (
        "_counters",
        "_egress",
        "_limiter",
        "_limits",
        "_pings",
        "_randbytes",
        "_ready",
        "_timers",
        "fallback",
    )

    def __init__(
        self,
        egress: Egress,
        ready: ReadyList[object],
        randbytes: Callable[[int], bytes],
        limits: StackLimits,
        counters: StackCounters,
    ) -> None:
        self.fallback: EchoFallback | None = None
        self._egress = egress
        self._ready = ready
        self._randbytes = randbytes
        self._limits = limits
        self._counters = counters
        self._limiter = RateLimiter(limits.echoRate, limits.echoBurst)
        self._pings: dict[int, Ping] = {}
        self._timers: DeadlineHeap[Ping] = DeadlineHeap()

    def ping(self, remote: bytes, payload: bytes, now: float, timeout: float) -> Ping:
        """
        Send an echo request.

        @param timeout: seconds to wait for the reply.
        @raise AddressNotAvailable: if we have no address of that family.
        @raise NoFreePort: if too many pings are under way.
        @raise ValueError: if the payload is longer than L{MAX_PING}.
        """
        if len(payload) > MAX_PING:
            raise ValueError(f"a ping carries at most {MAX_PING} bytes")
        local = self._egress.sourceFor(remote)
        if local is None:
            raise AddressNotAvailable("no address of that family to ping from")
        pings = self._pings
        if len(pings) >= self._limits.pings:
            raise NoFreePort("too many pings under way")
        ident = int.from_bytes(self._randbytes(2), "big")
        while ident in pings:
            ident = (ident + 1) & 0xFFFF
        ping = Ping(self, local, remote, ident, payload, now, timeout)
        pings[ident] = ping
        self._timers.note(ping)
        kind = V4_ECHO_REQUEST if len(remote) == 4 else V6_ECHO_REQUEST
        self._send(local, remote, kind, ident << 16 | ping.sequence, payload, now)
        return ping

    def _send(
        self,
        local: bytes,
        remote: bytes,
        kind: int,
        rest: int,
        payload: bytes,
        now: float,
    ) -> bool:
        protocol = PROTOCOL_ICMP if len(remote) == 4 else PROTOCOL_ICMPV6
        message = buildICMP(local, remote, kind, 0, rest, payload)
        return self._egress.send(local, remote, protocol, message, now)

    def finish(self, ping: Ping, failure: PingFailure) -> None:
        """Give a ping up, unless it is done already."""
        if ping.done:
            return
        ping.failure = failure
        self._forget(ping)

    def _forget(self, ping: Ping) -> None:
        """The ping is done: free its identifier and tell the application."""
        del self._pings[ping.ident]
        self._timers.forget(ping)
        self._ready.mark(ping)

    def request(self, header: IPHeader, message: ICMPMessage, now: float) -> None:
        """Answer an echo request to one of our addresses."""
        if not self._limiter.allow(now):
            self._counters.droppedRateEcho += 1
            return
        request = EchoRequest(
            header.source, header.destination, message.rest, message.payload
        )
        if self.fallback is not None and request.local not in self._egress.local:
            self.fallback(request)
        else:
            self.answer(request, now)

    def answer(self, request: EchoRequest, now: float) -> None:
        """Answer a request in the name of who was asked."""
        remote, local, rest, payload = request
        kind = V4_ECHO_REPLY if len(local) == 4 else V6_ECHO_REPLY
        if self._send(local, remote, kind, rest, payload, now):
            self._counters.echoReplies += 1

    def reply(self, header: IPHeader, message: ICMPMessage, now: float) -> bool:
        """
        Match an echo reply with a ping.

        @return: whether it answers one.
        """
        ping = self._pings.get(message.ident)
        if (
            ping is None
            or ping.sequence != message.sequence
            or ping.remote != header.source
            or ping.local != header.destination
            or ping.payload != message.payload
        ):
            return False
        ping.roundTrip = max(0.0, now - ping.sentAt)
        self._forget(ping)
        return True

    def trouble(self, error: NetworkError) -> bool:
        """
        Match an ICMP error with a ping.

        @return: whether it is about one.
        """
        quotation = error.quotation
        ping = self._pings.get(quotation.sequence >> 16)
        if (
            ping is None
            or ping.sequence != quotation.sequence & 0xFFFF
            or ping.remote != quotation.destination
            or ping.local != quotation.source
        ):
            return False
        self.finish(ping, PingFailure.UNREACHABLE)
        return True

    def abandon(self, gone: frozenset[bytes]) -> None:
        """Give up the pings from addresses that are gone."""
        for ping in list(self._pings.values()):
            if ping.local in gone:
                self.finish(ping, PingFailure.CANCELLED)

    def tick(self, now: float) -> None:
        """Give up the pings whose time is over."""
        for ping in self._timers.due(now):
            self.finish(ping, PingFailure.TIMEOUT)

    def deadline(self) -> float | None:
        """When the next ping's time is over."""
        return self._timers.deadline()


class ICMP:
    """The ICMP part of a stack."""

    __slots__ = ("_counters", "_egress", "_limiter", "echo")

    def __init__(
        self,
        egress: Egress,
        echo: Echo,
        limits: StackLimits,
        counters: StackCounters,
    ) -> None:
        self.echo = echo
        self._egress = egress
        self._counters = counters
        self._limiter = RateLimiter(limits.errorRate, limits.errorBurst)

    def receive(self, header: IPHeader, now: float) -> NetworkError | None:
        """
        Take an ICMP message to one of our addresses.

        @return: the error that it reports about a packet with one of our
            transports, for the stack to hand on.
        """
        counters = self._counters
        try:
            message = parseICMP(header.packet, header.start, header.end)
        except WireError:
            counters.droppedMalformed += 1
            return None
        if not verifyICMP(header):
            counters.droppedChecksum += 1
            return None
        kind = message.type
        isV4 = header.version == 4
        if kind == (V4_ECHO_REQUEST if isV4 else V6_ECHO_REQUEST):
            self.echo.request(header, message, now)
            return None
        if kind == (V4_ECHO_REPLY if isV4 else V6_ECHO_REPLY):
            if not self.echo.reply(header, message, now):
                counters.droppedICMPUnmatched += 1
            return None
        try:
            error = readError(header.version, message)
        except WireError:
            counters.droppedMalformed += 1
            return None
        if error is None or not self._egress.mayUse(error.quotation.source):
            # Of no use, or about nothing that we sent.
            counters.droppedICMPUnmatched += 1
            return None
        counters.errorsReceived += 1
        if error.quotation.protocol in (PROTOCOL_ICMP, PROTOCOL_ICMPV6):
            if error.trouble is Trouble.TOO_BIG or not self.echo.trouble(error):
                counters.droppedICMPUnmatched += 1
            return None
        return error

    def portUnreachable(self, header: IPHeader, now: float) -> None:
        """Tell the sender of a packet that nobody has its port here."""
        if not self._limiter.allow(now):
            self._counters.droppedRateError += 1
            return
        source, destination = header.destination, header.source
        protocol = PROTOCOL_ICMP if header.version == 4 else PROTOCOL_ICMPV6
        if self._egress.send(
            source, destination, protocol, buildPortUnreachable(header), now
        ):
            self._counters.errorsSent += 1

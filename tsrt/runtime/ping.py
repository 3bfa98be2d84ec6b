"""Pinging a peer through the tunnel."""

from __future__ import annotations

from contextlib import suppress

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import NoRouteError
from twisted.internet.interfaces import IDelayedCall

from tsrt.addresses import formatAddress
from tsrt.errors import NoFreePort
from tsrt.failures import TailnetTimeout
from tsrt.netstack.icmp import Ping, PingFailure
from tsrt.netstack.ports import AddressNotAvailable
from tsrt.overlay.context import OverlayContext

# 24 bytes, as short as most ping programs go and still easy to tell in a
# packet dump.
_PAYLOAD = b"tsrt echo request payload"[:24]


@frozen
class PingResult:
    """
    One answered ping.

    @ivar address: the tailnet address that answered.
    @ivar name: the peer's MagicDNS name, where it is known.
    @ivar seconds: the round-trip time.
    @ivar path: how packets get there, in words (C{relay fra}).
    """

    address: str
    name: str
    seconds: float
    path: str


REPEAT_AFTER = 1.0
"""Seconds after which an unanswered echo request is followed by another."""


class EchoRequest:
    """
    ICMP echo requests on their way; the owner of the stack's pings.

    A lost packet must not look like a lost peer, so the request is repeated
    every second; whichever is answered first gives the round trip.
    """

    def __init__(self, context: OverlayContext, address: bytes, timeout: float) -> None:
        """
        Send the first request.

        @param timeout: seconds to wait for an answer.
        """
        self._context = context
        self._address = address
        self._timeout = timeout
        self._end = context.now() + timeout
        self._pings: list[Ping] = []
        self._repeat: IDelayedCall | None = None
        self.answered: Deferred[float] = Deferred(lambda _: self._forget())
        self._send()

    def _again(self) -> None:
        """No answer yet: send another, unless the node is going down."""
        self._repeat = None
        # What is under way tells how it ends.
        with suppress(AddressNotAvailable, NoFreePort):
            self._send()

    def _send(self) -> None:
        now = self._context.now()
        ping = self._context.stack.ping(
            self._address, _PAYLOAD, now, max(self._end - now, 0.0)
        )
        ping.owner = self
        self._pings.append(ping)
        if self._end - now > REPEAT_AFTER:
            self._repeat = self._context.reactor.callLater(REPEAT_AFTER, self._again)
        self._context.flush()

    def stackReady(self) -> None:
        """An answer is here, or none will come."""
        for ping in self._pings:
            if ping.roundTrip is not None:
                self._forget()
                self.answered.callback(ping.roundTrip)
                return
        failures = [ping.failure for ping in self._pings]
        if PingFailure.UNREACHABLE in failures:
            self._forget()
            self.answered.errback(
                NoRouteError(string=f"no way leads to {formatAddress(self._address)}")
            )
        elif self._pings and None not in failures:
            self._forget()
            self.answered.errback(
                TailnetTimeout(
                    f"{formatAddress(self._address)} did not answer a ping within "
                    f"{self._timeout:g} seconds"
                )
            )

    def _forget(self) -> None:
        if self._repeat is not None and self._repeat.active():
            self._repeat.cancel()
        self._repeat = None
        pings, self._pings = self._pings, []
        for ping in pings:
            ping.owner = None
            ping.close()

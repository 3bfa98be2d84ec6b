"""Pinging a peer through the tunnel."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import NoRouteError

from tsrt.addresses import formatAddress
from tsrt.failures import TailnetTimeout
from tsrt.netstack.icmp import Ping, PingFailure
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


class EchoRequest:
    """One ICMP echo request on its way; the owner of the stack's ping."""

    def __init__(self, context: OverlayContext, address: bytes, timeout: float) -> None:
        """
        Send the request.

        @param timeout: seconds to wait for the answer.
        """
        self._context = context
        self._address = address
        self._timeout = timeout
        self._ping: Ping | None = context.stack.ping(
            address, _PAYLOAD, context.now(), timeout
        )
        self._ping.owner = self
        self.answered: Deferred[float] = Deferred(lambda _: self._forget())
        context.flush()

    def stackReady(self) -> None:
        """The answer is here, or will not come."""
        ping = self._ping
        if ping is None or not ping.done:
            return
        self._forget()
        if ping.roundTrip is not None:
            self.answered.callback(ping.roundTrip)
        elif ping.failure is PingFailure.UNREACHABLE:
            self.answered.errback(
                NoRouteError(string=f"no way leads to {formatAddress(self._address)}")
            )
        else:
            self.answered.errback(
                TailnetTimeout(
                    f"{formatAddress(self._address)} did not answer a ping within "
                    f"{self._timeout:g} seconds"
                )
            )

    def _forget(self) -> None:
        ping, self._ping = self._ping, None
        if ping is not None:
            ping.owner = None
            ping.close()

"""Pings through this node: the host pings for the peer."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tsrt.addresses import formatAddress
from tsrt.errors import EgressRefused, NotSupported, TSRTError
from tsrt.interfaces import IHostPinger
from tsrt.netstack.icmp import EchoRequest
from tsrt.runtime.forwarding import ForwardingOverlay
from tsrt.services.forwarder.caps import FlowCaps, ForwardLimits
from tsrt.services.forwarder.egress import Egress
from tsrt.services.forwarder.gate import Gate

_log = Logger(namespace="tsrt.forwarder")


class EchoForwarder:
    """Takes all echo requests of the forwarding stack."""

    def __init__(
        self,
        context: ForwardingOverlay,
        gate: Gate,
        egress: Egress,
        pinger: IHostPinger,
        limits: ForwardLimits,
    ) -> None:
        self._context = context
        self._gate = gate
        self._egress = egress
        self._pinger = pinger
        self._caps = FlowCaps(limits.pings, limits.pingsPerPeer)
        self._waiting: set[Deferred[None]] = set()
        self._isUnable = False

    def asked(self, request: EchoRequest) -> None:
        """A peer pings an address: the fallback of the stack."""
        waiting = Deferred.fromCoroutine(self._ping(request))
        if not waiting.called:
            self._waiting.add(waiting)
            waiting.addBoth(lambda _: self._waiting.discard(waiting))

    async def _ping(self, request: EchoRequest) -> None:
        peer = self._context.peerOf(request.remote)
        try:
            to = self._gate.destination(request.local)
            self._egress.checkDatagrams(to)
            self._caps.take(peer)
        except EgressRefused as error:
            self._gate.refused(error, request.remote, request.local)
            return
        try:
            await self._pinger.ping(formatAddress(to.address), request.payload)
        except NotSupported as error:
            if not self._isUnable:
                self._isUnable = True
                _log.warn("pings of peers get no answer: {why}", why=error.describe())
            return
        except TSRTError:
            # Nobody answered, so that the peer gets no answer either.
            return
        finally:
            self._caps.release(peer)
        if self._context.table.classify(request.local) == to:
            self._context.counters.pings += 1
            self._context.stack.answerEcho(request, self._context.now())
            self._context.flush()

    def stop(self) -> None:
        """Wait for no answer any more."""
        for waiting in list(self._waiting):
            waiting.cancel()

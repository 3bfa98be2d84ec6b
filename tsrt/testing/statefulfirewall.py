"""
A firewall that lets out everything, and in what answers that.

It stands in the place of a L{NAT<tsrt.testing.nat.NAT>} where addresses are
public on both sides, which is the rule for IPv6 (RFC 6092).
"""

from __future__ import annotations

from tsrt.testing.nat import Endpoint, Permits
from tsrt.testing.natkinds import Filtering, NATKind, Refusal

_FIRST_SWEEP = 1024


class _Flow:
    """What one internal port may be answered by."""

    __slots__ = ("expires", "permits")

    def __init__(self) -> None:
        self.permits = Permits()
        self.expires = 0.0


class StatefulFirewall:
    """
    The firewall of one router, with the interface of a NAT.

    @ivar kind: what it does; its mapping is of no meaning.
    @ivar resets: how often it forgot everything.
    """

    def __init__(self, kind: NATKind) -> None:
        self.kind = kind
        self.resets = 0
        self._flows: dict[tuple[str, Endpoint], _Flow] = {}
        self._opened: dict[tuple[str, Endpoint], float] = {}
        self._sweepAt = _FIRST_SWEEP

    def __len__(self) -> int:
        """How many flows are followed, including some that are over."""
        return len(self._flows) + len(self._opened)

    def outbound(
        self,
        protocol: str,
        source: Endpoint,
        destination: Endpoint,
        now: float,
        begins: bool = True,
    ) -> Endpoint | Refusal:
        """See L{NAT.outbound<tsrt.testing.nat.NAT.outbound>}: C{source}, or why not."""
        kind = self.kind
        if kind.blocksUDP and protocol == "udp":
            return Refusal.BLOCKED
        key = protocol, source
        permit = self._permitKey(protocol, destination)
        flow = self._flows.get(key)
        if not begins and (flow is None or not flow.permits.holds(permit, now)):
            return Refusal.NO_MAPPING
        if flow is None:
            self._sweep(now)
            if len(self._flows) >= kind.limit:
                return Refusal.FULL
            flow = self._flows[key] = _Flow()
        self._refresh(flow, permit, protocol, now)
        return source

    def inbound(
        self, protocol: str, source: Endpoint, destination: Endpoint, now: float
    ) -> Endpoint | Refusal:
        """
        See L{NAT.inbound<tsrt.testing.nat.NAT.inbound>}: C{destination}, or
        why not.
        """
        kind = self.kind
        if kind.blocksUDP and protocol == "udp":
            return Refusal.BLOCKED
        key = protocol, destination
        flow = self._flows.get(key)
        if self._opened.get(key, now) > now:
            if flow is None:
                flow = self._flows[key] = _Flow()
            self._refresh(flow, self._permitKey(protocol, source), protocol, now)
            return destination
        permit = self._permitKey(protocol, source)
        if flow is None or flow.expires <= now:
            return Refusal.NO_MAPPING
        if not flow.permits.holds(permit, now):
            return Refusal.FILTERED
        if kind.refreshInbound:
            self._refresh(flow, permit, protocol, now)
        return destination

    def _permitKey(self, protocol: str, other: Endpoint) -> object:
        filtering = self.kind.filtering
        if protocol == "udp" and filtering is Filtering.ENDPOINT_INDEPENDENT:
            return None
        if protocol == "udp" and filtering is Filtering.ADDRESS_DEPENDENT:
            return other[0]
        return other

    def _refresh(self, flow: _Flow, permit: object, protocol: str, now: float) -> None:
        kind = self.kind
        timeout = kind.udpTimeout if protocol == "udp" else kind.tcpTimeout
        flow.permits.extend(permit, now, timeout)
        flow.expires = now + timeout

    def _sweep(self, now: float) -> None:
        if len(self._flows) >= min(self._sweepAt, self.kind.limit):
            self._flows = {k: f for k, f in self._flows.items() if f.expires > now}
            self._sweepAt = max(_FIRST_SWEEP, 2 * len(self._flows))

    def mapPort(
        self,
        protocol: str,
        internalAddress: str,
        internalPort: int,
        externalPort: int,
        lifetime: float,
        now: float,
    ) -> int | None:
        """
        Open a port of somebody inside for everybody (a pinhole of PCP).

        @return: C{internalPort}, whatever was wished for.
        """
        self._opened = {k: t for k, t in self._opened.items() if t > now}
        self._opened[protocol, (internalAddress, internalPort)] = now + lifetime
        return internalPort

    def unmapPort(self, protocol: str, internalAddress: str, internalPort: int) -> bool:
        """
        End what L{mapPort} began.

        @return: whether there was anything to end.
        """
        key = protocol, (internalAddress, internalPort)
        return self._opened.pop(key, None) is not None

    def reset(self) -> None:
        """Forget all flows and open ports: a reboot."""
        self._flows.clear()
        self._opened.clear()
        self.resets += 1

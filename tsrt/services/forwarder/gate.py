"""The one place where it is decided whether a flow of a peer may go on."""

from __future__ import annotations

from errno import EMFILE, ENFILE

from twisted.logger import Logger

from tsrt.addresses import formatAddress
from tsrt.errors import (
    EgressRefused,
    ExitEgressRefused,
    ForbiddenDestination,
    NotAdvertised,
    ProxyUDPUnsupported,
    TooManyFlows,
)
from tsrt.netmap.forwarding import Destination, PortRanges, Refusal
from tsrt.runtime.forwarding import ForwardingOverlay

_log = Logger(namespace="tsrt.forwarder")

# Seconds between two lines of the log with the same reason.
_LOG_INTERVAL = 60.0

_COUNTERS: tuple[tuple[type[EgressRefused], str], ...] = (
    (NotAdvertised, "droppedNotAdvertised"),
    (ForbiddenDestination, "droppedForbidden"),
    (ExitEgressRefused, "droppedExit"),
    (ProxyUDPUnsupported, "droppedProxyUDP"),
    (TooManyFlows, "droppedFull"),
)


class PortNotForwarded(EgressRefused):
    """The flow goes to a port that this node does not forward."""


class NoIPv6Egress(EgressRefused):
    """The flow goes to an address of IPv6, and only IPv4 leaves."""


class Gate:
    """Judges flows by where they go; counts and tells of those it refuses."""

    def __init__(self, context: ForwardingOverlay) -> None:
        self._context = context
        self._told: dict[type[BaseException], float] = {}

    def destination(
        self, address: bytes, port: int = 0, ports: PortRanges | None = None
    ) -> Destination:
        """
        Where a flow goes on the real network.

        @param address: packed, where the peer sends it.
        @param ports: the ports that are forwarded; C{None}: all.
        @raise EgressRefused: nowhere.
        """
        found = self._context.table.classify(address)
        if isinstance(found, Destination):
            if ports is not None and port not in ports:
                raise PortNotForwarded(f"port {port} is not forwarded")
            return found
        if found is Refusal.NOT_ADVERTISED:
            raise NotAdvertised("this node does not lead there")
        if found is Refusal.IPV6:
            raise NoIPv6Egress("only IPv4 leaves this node")
        raise ForbiddenDestination("that is no destination for peers")

    def refused(self, error: EgressRefused, remote: bytes, local: bytes) -> None:
        """Count a flow that was refused, and tell of the first of its kind."""
        counters = self._context.counters
        for kind, name in _COUNTERS:
            if isinstance(error, kind):
                setattr(counters, name, getattr(counters, name) + 1)
                break
        else:
            if isinstance(error, NoIPv6Egress):
                counters.droppedIPv6 += 1
            else:
                counters.droppedPort += 1
        if self._isTime(type(error)):
            _log.info(
                "refused a flow of {remote} to {local}: {reason}",
                remote=formatAddress(remote),
                local=formatAddress(local),
                reason=str(error),
            )

    def failed(self, reason: BaseException | None) -> None:
        """Count a flow that came to nothing, and tell if this host is to blame."""
        self._context.counters.droppedFailed += 1
        number = getattr(reason, "osError", None) or getattr(reason, "errno", None)
        if number in (EMFILE, ENFILE) and self._isTime(OSError):
            _log.warn(
                "this process may open no more sockets, so that flows of peers fail; "
                "raise the limit of open files (ulimit -n)"
            )

    def _isTime(self, kind: type[BaseException]) -> bool:
        """Whether to tell of something of a kind, which is not done each time."""
        now = self._context.now()
        if now < self._told.get(kind, now):
            return False
        self._told[kind] = now + _LOG_INTERVAL
        return True

"""
A NAT as a pure machine: addresses and C{now} in, addresses out.

Its behaviour is described by a L{NATKind} in the words of RFC 4787 (UDP) and
RFC 5382 (TCP).  What refers to a TCP connection goes out when it begins one or
belongs to one, and comes in when it belongs to one: of an ended mapping, as
after a reboot, nobody is told, and both ends find out by their own timers.
"""

from __future__ import annotations

from collections.abc import Callable

from tsrt.testing.natkinds import (
    NAT_KINDS,
    Filtering,
    Mapping,
    NATKind,
    Refusal,
)

__all__ = [
    "NAT",
    "NAT_KINDS",
    "Endpoint",
    "Filtering",
    "Mapping",
    "NATKind",
    "Refusal",
]

Endpoint = tuple[str, int]
"""An address in its canonical text, and a port."""

MAPPED_PORTS = 256
"""The most ports that a router maps on request."""

_FIRST_PORT = 1024
_PORTS = 65536 - _FIRST_PORT
_FIRST_SWEEP = 1024
_FIRST_PURGE = 64


class Permits:
    """
    Who may answer, and until when.

    Entries that are over are removed whenever the number has doubled, so that
    what is kept is in proportion to what is in use.
    """

    __slots__ = ("_limit", "_until")

    def __init__(self) -> None:
        self._until: dict[object, float] = {}
        self._limit = _FIRST_PURGE

    def holds(self, key: object, now: float) -> bool:
        """Whether C{key} is permitted at C{now}."""
        return self._until.get(key, now) > now

    def extend(self, key: object, now: float, seconds: float) -> None:
        """Permit C{key} for so many seconds from now on."""
        self._until[key] = now + seconds
        if len(self._until) > self._limit:
            self._until = {k: t for k, t in self._until.items() if t > now}
            self._limit = max(_FIRST_PURGE, 2 * len(self._until))


class _Binding:
    """One mapping that a packet from inside made."""

    __slots__ = ("expires", "inner", "internal", "outer", "permits", "port")

    def __init__(
        self, inner: object, outer: object, internal: Endpoint, port: int
    ) -> None:
        self.inner = inner
        self.outer = outer
        self.internal = internal
        self.port = port
        self.permits = Permits()
        self.expires = 0.0


class _MappedPort:
    """One mapping that somebody inside asked for (NAT-PMP, PCP, UPnP)."""

    __slots__ = ("internal", "port", "sessions", "until")

    def __init__(self, internal: Endpoint, port: int, until: float) -> None:
        self.internal = internal
        self.port = port
        self.until = until
        self.sessions = Permits()


class NAT:
    """
    The address translation of one router.

    @ivar kind: what it does.
    @ivar external: its address outside.
    @ivar resets: how often it forgot everything.
    """

    def __init__(
        self, kind: NATKind, external: str, random: Callable[[], float]
    ) -> None:
        """
        @param external: the address outside, in canonical text.
        @param random: returns numbers in C{[0, 1)}; ports come from it.
        """
        self.kind = kind
        self.external = external
        self.resets = 0
        self._random = random
        self._inside: dict[object, _Binding] = {}
        self._outside: dict[object, _Binding] = {}
        self._mapped: dict[tuple[str, int], _MappedPort] = {}
        self._requested: dict[tuple[str, Endpoint], _MappedPort] = {}
        self._next = int(random() * _PORTS)
        self._sweepAt = _FIRST_SWEEP
        self._sweptFull = -1.0

    def __len__(self) -> int:
        """How many mappings are kept, including some that are over."""
        return len(self._inside) + len(self._mapped)

    # -- packets -----------------------------------------------------------------

    def outbound(
        self,
        protocol: str,
        source: Endpoint,
        destination: Endpoint,
        now: float,
        begins: bool = True,
    ) -> Endpoint | Refusal:
        """
        Take a packet from inside.

        @param protocol: C{"udp"} or C{"tcp"}.
        @param begins: whether it may begin a flow; of TCP only a SYN may.
        @return: the source that the world sees, or why there is none.
        """
        kind = self.kind
        if kind.blocksUDP and protocol == "udp":
            return Refusal.BLOCKED
        if self._requested:
            mapped = self._requestedFor(protocol, source, destination, now)
            if mapped is not None:
                mapped.sessions.extend(destination, now, self._timeout(protocol))
                return self.external, mapped.port
        inner = self._innerKey(protocol, source, destination)
        permit = self._permitKey(protocol, destination)
        binding = self._inside.get(inner)
        if binding is not None and binding.expires <= now:
            self._forget(binding)
            binding = None
        if not begins and (binding is None or not binding.permits.holds(permit, now)):
            return Refusal.NO_MAPPING
        if binding is None:
            binding = self._bind(inner, protocol, source, destination, now)
            if binding is None:
                return Refusal.FULL
        self._refresh(binding, permit, protocol, now)
        return self.external, binding.port

    def inbound(
        self, protocol: str, source: Endpoint, destination: Endpoint, now: float
    ) -> Endpoint | Refusal:
        """
        Take a packet from outside.

        @return: the destination inside, or why there is none.
        """
        if self.kind.blocksUDP and protocol == "udp":
            return Refusal.BLOCKED
        port = destination[1]
        mapped = self._mapped.get((protocol, port))
        if mapped is not None and destination[0] == self.external:
            if mapped.until > now:
                mapped.sessions.extend(source, now, self._timeout(protocol))
                return mapped.internal
            self._unmap(protocol, mapped)
        binding = self._outside.get(self._outerKey(protocol, port, source))
        if binding is None or binding.expires <= now or destination[0] != self.external:
            return Refusal.NO_MAPPING
        permit = self._permitKey(protocol, source)
        if not binding.permits.holds(permit, now):
            return Refusal.FILTERED
        if self.kind.refreshInbound:
            self._refresh(binding, permit, protocol, now)
        return binding.internal

    def _timeout(self, protocol: str) -> float:
        return self.kind.udpTimeout if protocol == "udp" else self.kind.tcpTimeout

    def _refresh(
        self, binding: _Binding, permit: object, protocol: str, now: float
    ) -> None:
        timeout = self._timeout(protocol)
        binding.permits.extend(permit, now, timeout)
        binding.expires = now + timeout

    # -- what things depend on -----------------------------------------------------

    def _innerKey(self, protocol: str, source: Endpoint, other: Endpoint) -> object:
        mapping = self.kind.mapping
        if mapping is Mapping.ENDPOINT_INDEPENDENT:
            return protocol, source
        if mapping is Mapping.ADDRESS_DEPENDENT:
            return protocol, source, other[0]
        return protocol, source, other

    def _outerKey(self, protocol: str, port: int, other: Endpoint) -> object:
        return (protocol, port, other) if self.kind.overloads else (protocol, port)

    def _permitKey(self, protocol: str, other: Endpoint) -> object:
        if protocol == "tcp":
            # Only segments of a connection that was begun from inside.
            return other
        filtering = self.kind.filtering
        if filtering is Filtering.ENDPOINT_INDEPENDENT:
            return None
        if filtering is Filtering.ADDRESS_DEPENDENT:
            return other[0]
        return other

    # -- mappings that packets make ------------------------------------------------

    def _bind(
        self,
        inner: object,
        protocol: str,
        source: Endpoint,
        destination: Endpoint,
        now: float,
    ) -> _Binding | None:
        if not self._hasRoom(now):
            return None
        port = self._choosePort(protocol, source[1], destination, now)
        if port is None:
            return None
        outer = self._outerKey(protocol, port, destination)
        binding = _Binding(inner, outer, source, port)
        self._inside[inner] = self._outside[outer] = binding
        return binding

    def _forget(self, binding: _Binding) -> None:
        del self._inside[binding.inner]
        del self._outside[binding.outer]

    def _hasRoom(self, now: float) -> bool:
        isFull = len(self._inside) >= self.kind.limit
        if len(self._inside) >= self._sweepAt or (isFull and self._sweptFull != now):
            self._sweptFull = now
            for binding in [b for b in self._inside.values() if b.expires <= now]:
                self._forget(binding)
            self._sweepAt = max(_FIRST_SWEEP, 2 * len(self._inside))
        return len(self._inside) < self.kind.limit

    def _choosePort(
        self, protocol: str, wanted: int, destination: Endpoint, now: float
    ) -> int | None:
        """A free external port; C{wanted} when the kind keeps ports."""
        keeps = self.kind.preservesPort
        if keeps and self._isFree(protocol, wanted, destination, now):
            return wanted
        for _ in range(_PORTS):
            port = self._nextPort()
            if port != wanted and self._isFree(protocol, port, destination, now):
                return port
        return None

    def _nextPort(self) -> int:
        if self.kind.randomPorts:
            self._next = int(self._random() * _PORTS)
        else:
            self._next = (self._next + 1) % _PORTS
        return _FIRST_PORT + self._next

    def _isFree(self, protocol: str, port: int, other: Endpoint, now: float) -> bool:
        mapped = self._mapped.get((protocol, port))
        if mapped is not None:
            if mapped.until > now:
                return False
            self._unmap(protocol, mapped)
        binding = self._outside.get(self._outerKey(protocol, port, other))
        if binding is None:
            return True
        if binding.expires > now:
            return False
        self._forget(binding)
        return True

    # -- mappings that somebody asks for -------------------------------------------

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
        Lead an external port to somebody inside, for whoever writes to it.

        Asked again for the same internal port, it only lasts longer.

        @param externalPort: the port that is wished for; 0 for any.
        @param lifetime: seconds, or C{math.inf} for as long as the router runs.
        @return: the external port, which is another one when the one wished
            for belongs to somebody else; C{None} when there is none left.
        @raise ValueError: on a protocol or a lifetime that does not exist.
        """
        if protocol not in ("udp", "tcp"):
            raise ValueError(f"protocol {protocol!r} cannot be mapped: use udp or tcp")
        if not lifetime > 0:
            raise ValueError(
                f"a lifetime of {lifetime} s maps nothing: unmapPort() ends a "
                "mapping, and math.inf makes one that lasts"
            )
        internal = internalAddress, internalPort
        mapped = self._requested.get((protocol, internal))
        if mapped is not None:
            mapped.until = now + lifetime
            return mapped.port
        self._expireMapped(now)
        if len(self._mapped) >= MAPPED_PORTS:
            return None
        port = self._portToMap(protocol, internal, externalPort or internalPort, now)
        if port is not None:
            mapped = _MappedPort(internal, port, now + lifetime)
            self._mapped[protocol, port] = mapped
            self._requested[protocol, internal] = mapped
        return port

    def unmapPort(self, protocol: str, internalAddress: str, internalPort: int) -> bool:
        """
        End what L{mapPort} began.

        @return: whether there was anything to end.
        """
        internal = internalAddress, internalPort
        mapped = self._requested.get((protocol, internal))
        if mapped is None:
            return False
        self._unmap(protocol, mapped)
        return True

    def _portToMap(
        self, protocol: str, internal: Endpoint, wanted: int, now: float
    ) -> int | None:
        users = [
            b for key, b in self._outside.items() if self._uses(key, protocol, now, b)
        ]
        taken = {b.port for b in users if b.internal != internal}
        taken |= {port for kind, port in self._mapped if kind == protocol}
        if wanted not in taken:
            return wanted
        for _ in range(_PORTS):
            port = self._nextPort()
            if port not in taken:
                return port
        return None

    @staticmethod
    def _uses(key: object, protocol: str, now: float, binding: _Binding) -> bool:
        assert isinstance(key, tuple)
        return key[0] == protocol and binding.expires > now

    def _requestedFor(
        self, protocol: str, source: Endpoint, destination: Endpoint, now: float
    ) -> _MappedPort | None:
        """
        The mapped port that a packet from inside goes out by.

        What came in by one is answered by it; what begins here takes it where
        all packets of one internal port take one external port anyway.
        """
        mapped = self._requested.get((protocol, source))
        if mapped is None:
            return None
        if mapped.until <= now:
            self._unmap(protocol, mapped)
            return None
        if mapped.sessions.holds(destination, now) or (
            protocol == "udp" and self.kind.mapping is Mapping.ENDPOINT_INDEPENDENT
        ):
            return mapped
        return None

    def _unmap(self, protocol: str, mapped: _MappedPort) -> None:
        del self._mapped[protocol, mapped.port]
        del self._requested[protocol, mapped.internal]

    def _expireMapped(self, now: float) -> None:
        over = [(p, m) for (p, _), m in self._mapped.items() if m.until <= now]
        for protocol, mapped in over:
            self._unmap(protocol, mapped)

    # -- what happens to a router --------------------------------------------------

    def reset(self) -> None:
        """Forget all mappings, those that were asked for as well: a reboot."""
        self._inside.clear()
        self._outside.clear()
        self._mapped.clear()
        self._requested.clear()
        self.resets += 1

    def setExternal(self, address: str) -> None:
        """
        Use another address outside, as the provider has decided.

        Ports that were asked for stay mapped; flows are forgotten.
        """
        self.external = address
        self._inside.clear()
        self._outside.clear()
